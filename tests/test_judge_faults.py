"""The failure catalogue, row by row: each fault on a real loopback server, the retry loop with a clock that need not
wait, and the pure parts under it.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from judge import protocol
from judge.backends import open_backend
from judge.backends.calling import BREAK_AFTER, GIVE_UP_AFTER, MAX_WAIT, Breaker, Caller, Clock, Limits, Meter, Window
from judge.backends.chat import ChatBackend
from judge.backends.faults import POLICIES, Failure, Fault, classify, redact, retry_after, spellings
from judge.environment import Environment
from judge.errors import BackendError, BackendUnavailable, InputError
from judge.prices import tokens_at_most
from judge.testing import sample_pair, sample_rubric
from judge.types import Ask, InvalidReason, Reply


@dataclass
class Time:
    """A clock that jumps to the next sleeper's end instead of waiting, and notes how long every wait was."""

    at: float = 1_000.0
    chance: float = 0.5
    waits: list[float] = field(default_factory=list)
    sleepers: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            end = self.at + seconds
            self.sleepers.append(end)
            try:
                while self.at < end:
                    for _ in range(4):
                        await asyncio.sleep(0)
                    if end == min(self.sleepers):
                        self.at = max(self.at, end)
            finally:
                self.sleepers.remove(end)

        return Clock(lambda: self.at, sleep, lambda: self.chance)


def opened(server: Any, name: str, script: str, more: str = "&price_in=1&price_out=1") -> tuple[ChatBackend, Time]:
    backend = open_backend(f"openai:m?base_url={server.url(name, script)}&timeout=0.4{more}", ENV)
    assert isinstance(backend, ChatBackend)
    time = Time()
    backend.caller.clock = time.clock()
    return backend, time


ENV = Environment(home=Path("unused"), cache=Path(tempfile.mkdtemp()), api_key="sk-planted-secret")


def first_ask(backend: ChatBackend) -> Ask:
    return protocol.plan(sample_pair(), sample_rubric(), backend.id)[0]


def asked(backend: ChatBackend) -> Reply:
    async def work() -> Reply:
        try:
            return (await backend.ask([first_ask(backend)]))[0]
        finally:
            await backend.close()

    return asyncio.run(work())


def most_paid(reply: Reply) -> int:
    """How many calls a reply says were paid for at most: the answers it is made of, and what was possibly paid."""
    return (0 if reply.error else 2 if "repaired" in reply.flags else 1) + reply.possibly_paid


PASSING = [
    ("429", Fault.RATE_LIMITED),
    ("429-seconds", Fault.RATE_LIMITED),
    ("429-date", Fault.RATE_LIMITED),
    ("429-ms", Fault.RATE_LIMITED),
    ("409", Fault.AGAIN),
    ("500", Fault.SERVER_ERROR),
    ("502", Fault.SERVER_ERROR),
    ("html", Fault.SERVER_ERROR),
    ("error200", Fault.SERVER_ERROR),
    ("503", Fault.OVERLOADED),
    ("529", Fault.OVERLOADED),
    ("504", Fault.TIMEOUT),
    ("hang", Fault.TIMEOUT),
    ("drip", Fault.TIMEOUT),
    ("reset", Fault.RESET),
    ("reset-mid-body", Fault.RESET),
    ("truncated", Fault.UNREADABLE),
    ("html200", Fault.UNREADABLE),
]


@pytest.mark.parametrize(("name", "fault"), PASSING, ids=[name for name, _ in PASSING])
def test_a_fault_that_passes_is_retried_and_paid_for_as_its_row_says(server: Any, name: str, fault: Fault) -> None:
    """One fault, then an answer: two attempts, a verdict, and a failed attempt counted as its policy says."""
    backend, _ = opened(server, f"once-{name}", f"{name},ok")
    reply = asked(backend)
    assert (reply.error, reply.attempts, reply.possibly_paid) == (None, 2, int(POLICIES[fault].paid))
    assert reply.probs is not None
    book = server.book(f"once-{name}")
    assert book["requests"] == reply.attempts
    assert most_paid(reply) >= book["paid"]
    assert (backend.caller.window.size < backend.concurrency) is POLICIES[fault].slow


LASTING = [
    *[row for row in PASSING if not row[0].startswith("429")],
    ("400", Fault.BAD_REQUEST),
    ("toolong", Fault.TOO_LONG),
    ("array", Fault.MALFORMED),
]


@pytest.mark.parametrize(("name", "fault"), LASTING, ids=[name for name, _ in LASTING])
def test_a_fault_that_lasts_is_an_error_reply_after_the_retries_of_its_row(
    server: Any, name: str, fault: Fault
) -> None:
    """As many attempts as the policy allows and no more, the fault named, and no paid call left out of the bound."""
    backend, time = opened(server, f"ever-{name}", name)
    reply = asked(backend)
    policy = POLICIES[fault]
    assert (reply.error or "").startswith(f"{fault}: ")
    assert (reply.attempts, reply.possibly_paid) == (1 + policy.retries, (1 + policy.retries) * policy.paid)
    assert protocol.read(first_ask(backend), reply).invalid is InvalidReason.ERROR
    book = server.book(f"ever-{name}")
    assert book["requests"] == reply.attempts
    assert most_paid(reply) >= book["paid"]
    assert len(time.waits) == policy.retries
    assert reply.usage.cost == 0.0, "known to be priced, and nothing that was read was charged"


STOPPING = [
    ("429", "still rate limited after 9 attempts", BackendError),
    ("quota", "out of money or quota", BackendError),
    ("401", "check the URL, the model name and OPENAI_API_KEY", BackendError),
    ("404", "check the URL, the model name and OPENAI_API_KEY", BackendError),
    ("redirect", "to http://localhost:1/stolen, which is not followed; set base_url", BackendError),
]


@pytest.mark.parametrize(("name", "message", "kind"), STOPPING, ids=[row[0] for row in STOPPING])
def test_a_fault_that_stops_everything_says_so_once(server: Any, name: str, message: str, kind: type) -> None:
    """Key, quota, model, redirect: one call and one clear message; a rate limit that never ends stops after its
    retries and can be resumed, it does not make invalid verdicts.
    """
    backend, _ = opened(server, f"stop-{name}", name)
    with pytest.raises(kind, match=message) as caught:
        asked(backend)
    assert "sk-planted" not in str(caught.value)
    assert server.book(f"stop-{name}")["requests"] == (9 if name == "429" else 1)


@pytest.mark.parametrize(
    ("name", "reason", "flags", "calls"),
    [
        ("choices-empty", InvalidReason.EMPTY, {"repaired", "no_logprobs"}, 2),
        ("content-null", InvalidReason.EMPTY, {"repaired", "no_logprobs"}, 2),
        ("content-empty", InvalidReason.EMPTY, {"repaired", "no_logprobs"}, 2),
        ("length", InvalidReason.LENGTH, {"repaired", "no_logprobs"}, 2),
        ("prose", InvalidReason.UNPARSED, {"repaired", "no_logprobs"}, 2),
        ("conflict", InvalidReason.CONFLICT, {"repaired", "no_logprobs"}, 2),
        ("filter", InvalidReason.CONTENT_FILTER, set(), 1),
        ("filtered", InvalidReason.CONTENT_FILTER, set(), 1),
        ("refusal", InvalidReason.REFUSAL, {"no_logprobs"}, 1),
        ("no-usage", None, {"no_usage"}, 1),
        ("no-logprobs", None, {"no_logprobs"}, 1),
        ("tie", None, set(), 1),
    ],
)
def test_an_odd_answer_is_no_vote_and_is_repaired_at_most_once(
    server: Any, name: str, reason: InvalidReason | None, flags: set[str], calls: int
) -> None:
    """Empty, cut, filtered, refused or unclear is invalid with its reason; one repair call, counted and flagged."""
    backend, _ = opened(server, f"odd-{name}", name)
    reply = asked(backend)
    assert (protocol.read(first_ask(backend), reply).invalid, set(reply.flags), reply.attempts) == (
        reason, flags, calls,
    )  # fmt: skip
    book = server.book(f"odd-{name}")
    assert (book["requests"], most_paid(reply) >= book["paid"]) == (calls, True)


@pytest.mark.parametrize(
    ("name", "said"), [("prose", True), ("conflict", True), ("content-null", False), ("length", False)]
)
def test_a_repair_that_works_gives_a_verdict_with_both_calls_counted(server: Any, name: str, said: bool) -> None:
    """The repair shows the model its own words, or asks again with a larger limit; usage and cost are the sum."""
    backend, _ = opened(server, f"repair-{name}", f"{name},ok")
    reply = asked(backend)
    first, second = (entry["body"] for entry in server.book(f"repair-{name}")["log"])
    assert (reply.attempts, reply.probs is not None, "repaired" in reply.flags) == (2, True, True)
    assert (len(second["messages"]) == len(first["messages"]) + 2) is said
    assert second["max_tokens"] > first["max_tokens"]
    assert reply.usage.completion_tokens == 2
    quote = backend.quote(first_ask(backend))
    assert quote.cost is not None and reply.usage.cost is not None
    assert reply.usage.cost == pytest.approx((reply.usage.prompt_tokens + 2) / 1e6)
    assert reply.usage.cost <= quote.cost


def test_a_repair_without_usage_is_booked_with_what_it_showed(server: Any) -> None:
    """The bound of a repair counts the first answer and the question for the label, too: it is a bound of that call."""
    backend, _ = opened(server, "repair-no-usage", "prose,no-usage")
    reply = asked(backend)
    first, second = (entry["body"] for entry in server.book("repair-no-usage")["log"])
    told = sum(len(turn["content"].encode()) // 4 for turn in first["messages"])
    shown = tokens_at_most(*(turn["content"] for turn in first["messages"]))
    more = sum(len(turn["content"].split()) for turn in second["messages"][len(first["messages"]) :])
    assert "no_usage" in reply.flags and more > 0
    assert reply.usage.prompt_tokens >= told + shown + more
    quote = backend.quote(first_ask(backend))
    assert reply.usage.cost is not None and quote.cost is not None and reply.usage.cost <= quote.cost


def test_no_repair_where_it_is_switched_off_and_the_id_says_so(server: Any) -> None:
    """`repair=0` sends one call, and is another judge."""
    backend, _ = opened(server, "norepair", "prose", "&repair=0")
    assert (asked(backend).attempts, backend.id.decoding) == (1, "t0-n8-logprobs-norepair")


@pytest.mark.parametrize(("name", "seconds"), [("429-seconds", 7.0), ("429-date", 11.0), ("429-ms", 2.5)])
def test_retry_after_is_obeyed_in_three_spellings(server: Any, name: str, seconds: float) -> None:
    """Nothing is sent before the time that the server named: in seconds, as a date, in milliseconds."""
    backend, time = opened(server, f"after-{name}", f"{name},ok")
    begun = time.at
    asked(backend)
    assert seconds <= time.at - begun <= seconds * 1.2
    assert time.waits


def calls(caller: Caller, *results: Any, count: int = 1) -> tuple[list[Any], list[float]]:
    """Make calls whose attempts come to ``results`` in turn (the last for ever); returns outcomes and send times."""
    left, sent = list(results), []

    async def send() -> Any:
        sent.append(caller.clock.now())
        await asyncio.sleep(0)
        return left.pop(0) if len(left) > 1 else left[0]

    async def work() -> list[Any]:
        return await asyncio.gather(*(caller.call(send) for _ in range(count)), return_exceptions=True)

    return asyncio.run(work()), sent


def failed(fault: Fault, wait: float | None = None, status: int = 0) -> Failure:
    return Failure(fault, "x", wait, status)


def test_every_fault_has_a_row() -> None:
    """The table is whole, and what stops everything is never also an error reply of one ask after a breaker."""
    assert set(POLICIES) == set(Fault)


def test_a_wish_to_wait_is_capped_and_slows_everybody() -> None:
    """An hour of Retry-After is one capped wait; calls of other workers wait for it too."""
    time = Time()
    caller = Caller("x", Limits(4), clock=time.clock())
    _, sent = calls(caller, failed(Fault.RATE_LIMITED, 3_600.0, 429), "ok", count=4)
    assert sent[:4] == [1_000.0] * 4
    assert 1_000 + MAX_WAIT <= sent[4] <= 1_000 + MAX_WAIT * 1.1
    _, later = calls(caller, "ok")
    assert later[0] >= 1_000 + MAX_WAIT


def test_a_wish_not_to_wait_is_no_storm() -> None:
    """Retry-After: 0 and a moment already past wait no less than the back-off would."""
    time = Time(chance=1.0)
    calls(Caller("x", Limits(), clock=time.clock()), failed(Fault.RATE_LIMITED, 0.0, 429))
    plain = Time(chance=1.0)
    calls(Caller("x", Limits(), clock=plain.clock()), failed(Fault.RATE_LIMITED, status=429))
    assert time.waits == plain.waits and sum(time.waits) > 10


def test_backoff_is_full_jitter_over_a_doubling_bound() -> None:
    """The wait before the n-th retry is drawn from zero to first * 2^n: at the top of the draw it doubles."""
    time = Time(chance=1.0)
    calls(Caller("x", Limits(), clock=time.clock()), failed(Fault.OVERLOADED, status=503))
    assert time.waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    calm = Time(chance=0.0)
    calls(Caller("x", Limits(), clock=calm.clock()), failed(Fault.OVERLOADED, status=503))
    assert calm.waits == []


def test_the_breaker_opens_probes_with_one_call_and_closes() -> None:
    """After the failures in a row nothing is sent for a while, then one probe alone; its success lets all through."""
    time, events = Time(), []
    caller = Caller("x", Limits(64), clock=time.clock())
    for _ in range(BREAK_AFTER):
        caller.breaker.failed(now=time.at)

    async def send() -> str:
        events.append(("sent", time.at))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        events.append(("answered", time.at))
        return "ok"

    async def work() -> list[Any]:
        return await asyncio.gather(*(caller.call(send) for _ in range(16)))

    assert [called.attempts for called in asyncio.run(work())] == [1] * 16
    assert events[0][1] >= 1_002.0
    assert [name for name, _ in events[:3]] == ["sent", "answered", "sent"]


def test_a_server_that_stays_down_stops_the_run_without_burning_every_call() -> None:
    """With the breaker open each probe is one call; when they keep failing every waiting call ends with one error."""
    time = Time(chance=0.0)
    caller = Caller("x", Limits(64), clock=time.clock())
    outcomes, sent = calls(caller, failed(Fault.OVERLOADED, status=503), count=64)
    assert all(isinstance(outcome, BackendError) for outcome in outcomes)
    assert "keeps failing" in str(outcomes[0])
    assert len(sent) <= 64 + GIVE_UP_AFTER
    assert 50 < time.at - 1_000 < 80


def test_a_stop_does_not_lose_what_was_possibly_paid() -> None:
    """A call that was possibly paid more than once ends as a value that says so; the next call raises the error."""
    time = Time()
    caller = Caller("x", Limits(1), clock=time.clock())
    lost = [failed(Fault.RESET), failed(Fault.RESET), failed(Fault.AUTH, status=401)]
    (outcome,), _ = calls(caller, *lost)
    assert (outcome.possibly_paid, outcome.attempts, outcome.failure.fault) == (2, 3, Fault.AUTH)
    (raised,), sent = calls(caller, "ok")
    assert isinstance(raised, BackendError) and sent == []
    (again,), _ = calls(caller, "ok")
    assert again.value == "ok"


def test_a_server_that_was_there_is_waited_for_and_one_that_never_was_is_not() -> None:
    """Refused at first is `BackendUnavailable` after three tries; refused in mid-run is tried for longer."""
    caller = Caller("x", Limits(1), clock=Time().clock())
    (outcome,), sent = calls(caller, failed(Fault.UNREACHABLE))
    assert (type(outcome), len(sent)) == (BackendUnavailable, 3)
    (fine,), _ = calls(caller, "ok")
    (gone,), later = calls(caller, failed(Fault.UNREACHABLE))
    assert (fine.value, type(gone), len(later)) == ("ok", BackendError, 7)


def test_the_window_never_passes_its_cap_and_halves_once_per_burst() -> None:
    """Never more in flight than configured; a burst of refusals sent together halves the window once."""
    caller = Caller("x", Limits(8), clock=Time().clock())
    flying = most = 0

    async def send() -> str:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        return "ok"

    async def work() -> None:
        await asyncio.gather(*(caller.call(send) for _ in range(100)))

    asyncio.run(work())
    assert (most, caller.window.size) == (8, 8.0)
    window = Window(8)
    assert [window.shrink(started=1.0, now=2.0) for _ in range(5)] == [True, False, False, False, False]
    assert window.size == 4.0
    for _ in range(4):
        window.grow()
    assert 4.8 < window.size < 5.2
    for now in range(3, 20):
        window.shrink(started=now, now=now)
    assert window.size == 1.0


def test_a_cancelled_call_gives_its_place_back() -> None:
    """Cancelling calls that run or wait leaves the window as empty as before."""
    caller = Caller("x", Limits(2))

    async def work() -> None:
        async def hang() -> str:
            await asyncio.Event().wait()
            return "never"

        async def fine() -> str:
            return "ok"

        tasks = [asyncio.ensure_future(caller.call(hang)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        done = await asyncio.wait_for(asyncio.gather(*(caller.call(fine) for _ in range(5))), timeout=30)
        assert [called.value for called in done] == ["ok"] * 5

    asyncio.run(work())


def test_requests_per_minute_are_shared_by_all_workers() -> None:
    """120 a minute are two a second, however many workers send."""
    time = Time()
    caller = Caller("x", Limits(16, rpm=120), clock=time.clock())
    _, sent = calls(caller, "ok", count=16)
    sent.sort()
    assert sum(1 for moment in sent if moment < 1_001.0 - 1e-6) <= 3
    assert sent[-1] - sent[0] >= 7.0 - 0.51


def test_tokens_per_minute_are_booked_before_and_corrected_after() -> None:
    """A call books its estimate, and what it did not use lets the next one go earlier."""
    meter = Meter(6_000)
    assert [round(meter.take(300, now=0.0), 2) for _ in range(3)] == [0.0, 2.01, 5.01]
    meter.give_back(300)
    assert round(meter.take(1, now=0.0), 2) == 5.01


def test_half_open_lets_one_through() -> None:
    """While the probe is on its way nobody else is let through; a cancelled probe makes room for another."""
    breaker = Breaker(after=1)
    breaker.failed(now=0.0)
    assert breaker.wait(now=1.0) == 1.0
    assert breaker.wait(now=2.5) == 0.0
    assert breaker.wait(now=2.5) > 0.0
    breaker.abandon()
    assert breaker.wait(now=2.5) == 0.0
    assert breaker.succeeded() is True
    assert breaker.wait(now=2.5) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:30 GMT"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        (
            {"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            None,
        ),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 +99999999999999", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_read_strictly(headers: dict[str, str], seconds: float | None) -> None:
    """What is not a plain number or a date beside the server's own is not understood, never guessed."""
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "text", "fault"),
    [
        (429, "insufficient_quota", Fault.QUOTA),
        (429, "slow down", Fault.RATE_LIMITED),
        (402, "", Fault.QUOTA),
        (403, "input was flagged by moderation", Fault.FILTERED),
        (403, "key not allowed", Fault.AUTH),
        (400, "This model's maximum context length is 8192 tokens", Fault.TOO_LONG),
        (413, "", Fault.TOO_LONG),
        (418, "", Fault.BAD_REQUEST),
        (302, "", Fault.REDIRECT),
        (599, "", Fault.SERVER_ERROR),
        (408, "", Fault.TIMEOUT),
        (425, "", Fault.AGAIN),
    ],
)
def test_a_status_and_its_words_name_the_fault(status: int, text: str, fault: Fault) -> None:
    """Out of money comes as 429, filtered as 400 or 403: the body decides."""
    assert classify(status, text, {}).fault is fault


def test_secrets_are_replaced_whole() -> None:
    """Every occurrence goes, and an empty secret does nothing."""
    assert redact("a sk-1 b sk-1", ["", "sk-1"]) == "a [redacted] b [redacted]"


def test_a_secret_is_found_as_a_url_spells_it_and_a_placeholder_is_none() -> None:
    """A key with a slash or a plus sign stands otherwise in a URL; ``EMPTY`` and ``x`` stand in ordinary answers."""
    hidden = spellings(["sk-pa/ss+word", "", "x", "EMPTY"])
    for text in ("key=sk-pa/ss+word", "?key=sk-pa%2Fss%2Bword&", "/sk-pa/ss%2Bword/"):
        assert "word" not in redact(text, hidden), text
    assert redact("the EMPTY box", hidden) == "the EMPTY box"


def test_a_placeholder_for_a_key_takes_no_letter_out_of_a_verdict(server: Any) -> None:
    """A server of one's own wants any key: one that is a label of the ask must not become ``[redacted]``."""
    judge = f"openai:m?base_url={server.url('placeholder', 'ok')}&mode=logprobs"
    ask = first_ask(open_backend(judge, ENV))
    backend = open_backend(judge, replace(ENV, api_key=ask.labels.first))

    async def asked() -> list[Reply]:
        try:
            return await backend.ask([ask])
        finally:
            await backend.close()

    reply = asyncio.run(asked())[0]
    assert reply.text == ask.labels.first
    assert reply.probs is not None


@pytest.mark.parametrize("script", ["urlkey401", "urlkey500", "urlkey-redirect"])
def test_a_key_that_a_server_puts_into_a_url_is_shown_nowhere(server: Any, script: str) -> None:
    """Error texts and places of redirects name URLs, and some providers' URLs carry the key."""
    env = replace(ENV, api_key="sk-plan/ted+secret")
    backend = open_backend(f"openai:m?base_url={server.url(script, script)}&mode=logprobs&repair=0", env)
    assert isinstance(backend, ChatBackend)
    backend.caller.clock = Time().clock()

    async def asked() -> str:
        try:
            return str((await backend.ask([first_ask(backend)]))[0])
        except BackendError as error:
            return str(error)
        finally:
            await backend.close()

    told = asyncio.run(asked())
    assert "[redacted]" in told
    assert "ted" not in told.replace("redacted", "")


@pytest.mark.parametrize("judge", ["openai:m", "anthropic:m", "litellm:openai/m"])
def test_a_key_with_a_line_break_is_refused_before_any_call(judge: str) -> None:
    """What HTTP cannot send in a header is one clear error that does not show it; the end of its line is no part."""
    keys = {"ANTHROPIC_API_KEY": "sk-plan\nted", "MY_KEY": "sk-plan\nted"}
    env = replace(ENV, api_key="sk-plan\nted", keys=keys)
    more = "?key_env=MY_KEY" if judge.startswith("litellm") else ""
    with pytest.raises(InputError, match="holds a line break") as told:
        open_backend(judge + more, env)
    assert "ted" not in str(told.value)
    fine = dict.fromkeys(keys, "sk-planted\n")
    opened_judge = open_backend(judge + more, replace(ENV, api_key="sk-planted\n", keys=fine))
    asyncio.run(opened_judge.close())
