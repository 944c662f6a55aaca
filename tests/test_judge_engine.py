"""The streaming engine: how many calls fly, what is shared, what is kept, and what a budget stops."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars
import pytest

from judge import journal, protocol
from judge.backends import open_backend
from judge.backends.calling import Clock
from judge.backends.chat import ChatBackend
from judge.engine import RECENT, Job, judge_pairs, seldom_collecting
from judge.environment import Environment
from judge.errors import BackendError, BackendUnavailable, InputError
from judge.forecast import forecast
from judge.formats import open_evalset
from judge.journal import Journal
from judge.ledger import Ledger
from judge.money import Budget, BudgetSpent, Quote, took
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Settled, Store
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Answer, Ask, Item, JudgeId, Order, Pair, Reply, Usage


def pairs(count: int, *, texts: int | None = None) -> Iterator[Pair]:
    for number in range(count):
        text = number if texts is None else number % texts
        yield Pair(f"p{number}", Item(f"Question {text}?"), Answer("c" * (text % 7 + 1)), Answer(f"bbbb{text}"))


def evalset(path: Path, rows: int = 10) -> Path:
    lines = [
        {"id": f"p{n:04}", "prompt": f"Question {n}?", "candidate": "c" * (n % 7 + 1), "baseline": f"bbbb{n}"}
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return path


def plan_of(path: Path, run_id: str = "r-1", **changes: Any) -> RunPlan:
    return RunPlan(run_id, "2026-01-01", open_evalset(path), {}, sample_rubric(), "scripted:longer", **changes)


def longer() -> ScriptedBackend:
    return ScriptedBackend(prefer_longer, name="scripted/longer")


def facts(frame: polars.DataFrame) -> list[tuple[object, ...]]:
    return frame.drop("run_id", "cached").rows()


class Server(ScriptedBackend):
    """A judge on whose replies the test decides; counts what is in flight and keeps what was asked."""

    def __init__(self, *, concurrency: int = 4, batch: int = 1, hold: Callable[[Ask], Awaitable[None]] | None = None):
        super().__init__(prefer_longer, name="scripted/longer", concurrency=concurrency, batch=batch)
        self.hold, self.flying, self.most, self.delivered = hold, 0, 0, 0

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            for _ in range(1 + len(self.asked) % 5):  # calls end out of step
                await asyncio.sleep(0)
            replies = await super().ask(asks)
            if self.hold is not None:
                await self.hold(asks[0])
            self.delivered += len(asks)
            return replies
        finally:
            self.flying -= 1


def judged(source: Iterator[Pair], job: Job, **options: Journal) -> list[Settled]:
    async def all_of() -> list[Settled]:
        return [entry async for entry in judge_pairs(source, job, **options)]

    return asyncio.run(all_of())


@pytest.mark.parametrize(("concurrency", "batch"), [(1, 1), (4, 1), (32, 1), (3, 7)])
def test_never_more_calls_fly_than_configured_and_all_slots_are_used(concurrency: int, batch: int) -> None:
    """The calls in flight reach the configured number and never pass it."""
    backend = Server(concurrency=concurrency, batch=batch)
    done = judged(pairs(200), Job(sample_rubric(), backend))
    assert (len(done), len(backend.asked), backend.most) == (200, 400, concurrency)


def test_a_suspect_is_asked_alone() -> None:
    """A key under suspicion flies alone: nothing beside it when it begins, nothing begins until it is answered."""
    rubric, backend = sample_rubric(), Server(concurrency=8)
    suspects = [ask.key for pair in list(pairs(60))[30:32] for ask in protocol.plan(pair, rubric, backend.id)]
    beside: list[int] = []

    async def hold(ask: Ask) -> None:
        if ask.key in suspects:
            beside.append(backend.flying)
            for _ in range(20):
                await asyncio.sleep(0)
            beside.append(backend.flying)

    backend.hold = hold
    assert len(judged(pairs(60), Job(rubric, backend, suspects=frozenset(suspects)))) == 60
    assert beside == [1] * 8
    assert backend.most == 8


def test_the_collector_is_given_back_as_it_was() -> None:
    """While a command judges, garbage is looked for seldom; afterwards, an error included, as before."""
    before = gc.get_threshold(), gc.get_freeze_count()
    during = []

    def work() -> None:
        with seldom_collecting():
            during.append(gc.get_threshold()[0])
            raise BackendError("gone")

    with pytest.raises(BackendError):
        work()
    assert during[0] > before[0][0]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_one_slow_call_holds_up_nothing() -> None:
    """There is no barrier: while one call hangs, every other pair of the set is settled."""
    release = asyncio.Event()

    async def hold(ask: Ask) -> None:
        if ask.pair_id == "p0" and ask.order is Order.CANDIDATE_FIRST:
            await release.wait()

    async def work() -> list[str]:
        seen = []
        async for entry in judge_pairs(pairs(2_500), Job(sample_rubric(), Server(hold=hold))):
            seen.append(entry.pair.id)
            if len(seen) == 2_499:
                release.set()
        return seen

    seen = asyncio.run(asyncio.wait_for(work(), 60))
    assert (seen[-1], len(seen)) == ("p0", 2_500)


def test_both_orders_of_a_comparison_fly_together() -> None:
    """With two slots free both orders of one pair are in flight before either is answered."""
    flying: list[tuple[str, Order]] = []
    together = asyncio.Event()

    async def hold(ask: Ask) -> None:
        flying.append((ask.pair_id, ask.order))
        if len(flying) == 2:
            together.set()
        await together.wait()

    judged(pairs(1), Job(sample_rubric(), Server(concurrency=2, hold=hold)))
    assert sorted(flying) == [("p0", Order.BASELINE_FIRST), ("p0", Order.CANDIDATE_FIRST)]


@pytest.mark.parametrize("texts", [1, 3, 50])
def test_the_same_texts_are_asked_once_over_the_whole_set(texts: int) -> None:
    """Rows with the same texts share one call each way, also with those in flight, and each row gets its comparison."""
    backend = Server(concurrency=8)
    done = judged(pairs(1_000, texts=texts), Job(sample_rubric(), backend))
    assert (len(done), len(backend.asked)) == (1_000, 2 * texts)
    assert sum(entry.cached for entry in done) == 2_000 - 2 * texts


def test_rows_farther_apart_than_the_bound_are_asked_again() -> None:
    """Sharing is bounded, so that memory is: texts that come again after RECENT other asks are asked again."""
    backend = Server(concurrency=64)
    rows = RECENT // 2 + 200
    judged(pairs(2 * rows, texts=rows), Job(sample_rubric(), backend))
    assert len(backend.asked) == 4 * rows


def test_a_set_of_equal_rows_is_not_read_ahead_of_its_one_call() -> None:
    """Reading ahead is bounded also where nothing waits in the queue."""
    read = 0

    def counted() -> Iterator[Pair]:
        nonlocal read
        for pair in pairs(100_000, texts=1):
            read += 1
            yield pair

    async def work() -> int:
        release = asyncio.Event()

        async def hold(ask: Ask) -> None:
            await release.wait()

        running = judge_pairs(counted(), Job(sample_rubric(), Server(hold=hold)))
        first = asyncio.ensure_future(anext(running))
        for _ in range(100):
            await asyncio.sleep(0)
        seen = read
        release.set()
        await first
        await running.aclose()
        return seen

    assert asyncio.run(work()) <= 200


@pytest.mark.parametrize("count", [pytest.param(8_000), pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_set(tmp_path: Path, count: int) -> None:
    """What the engine keeps after the first thousands of calls stays below 0.1 kB per further call."""
    at: list[int] = []

    async def work(opened: Journal) -> None:
        backend = ScriptedBackend(prefer_longer, concurrency=64, batch=1, keep=False)
        settled = 0
        async for _ in judge_pairs(pairs(count), Job(sample_rubric(), backend), journal=opened):
            settled += 1
            if settled in (count // 2, count):
                gc.collect()
                at.append(tracemalloc.get_traced_memory()[0])

    with Journal(tmp_path / "r.jsonl", create=True) as opened:
        tracemalloc.start()
        asyncio.run(work(opened))
        tracemalloc.stop()
    assert (at[1] - at[0]) / count < 100


def test_every_turn_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that came in together are written with one system call, before any of them is yielded."""
    import os

    real, writes = os.write, [0]

    def write(fd: int, data: bytes) -> int:
        writes[0] += 1
        return real(fd, data)

    path = tmp_path / "r.jsonl"

    async def work(opened: Journal) -> None:
        async for entry in judge_pairs(pairs(500), Job(sample_rubric(), Server(concurrency=64)), journal=opened):
            assert path.read_bytes().count(b'"pair_id":"%b"' % entry.pair.id.encode()) == 2

    with Journal(path, create=True) as opened:
        monkeypatch.setattr(os, "write", write)
        asyncio.run(work(opened))
        monkeypatch.setattr(os, "write", real)
    assert writes[0] < 500


def test_every_call_has_its_intent_in_the_file_first(tmp_path: Path) -> None:
    """When a call begins, its key stands in the journal already."""
    path = tmp_path / "r.jsonl"

    async def hold(ask: Ask) -> None:
        assert ask.key.encode() in path.read_bytes()

    with Journal(path, create=True) as opened:
        judged(pairs(40), Job(sample_rubric(), Server(hold=hold)), journal=opened)
        opened.append("seal", {})


def test_a_bug_in_one_call_keeps_the_other_replies(tmp_path: Path) -> None:
    """An exception that nobody expected is raised only after what else was in flight stands in the journal."""

    async def hold(ask: Ask) -> None:
        if ask.pair_id == "p3":
            raise ZeroDivisionError("a bug")
        for _ in range(20):
            await asyncio.sleep(0)

    path = tmp_path / "r.jsonl"
    backend = Server(concurrency=16, hold=hold)
    with Journal(path, create=True) as opened, pytest.raises(ZeroDivisionError):
        judged(pairs(40), Job(sample_rubric(), backend), journal=opened)
    assert path.read_bytes().count(b'"t":"reply"') == backend.delivered >= 14


def test_a_cancelled_run_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    """Cancelling sends nothing new and journals the calls that were on their way."""
    path = tmp_path / "r.jsonl"

    async def work() -> Server:
        begun = asyncio.Event()

        async def hold(ask: Ask) -> None:
            begun.set()
            for _ in range(50):
                await asyncio.sleep(0)

        backend = Server(concurrency=8, hold=hold)
        with Journal(path, create=True) as opened:

            async def run() -> None:
                async for _ in judge_pairs(pairs(100), Job(sample_rubric(), backend), journal=opened):
                    pass

            running = asyncio.ensure_future(run())
            await begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        return backend

    backend = asyncio.run(work())
    assert len(backend.asked) == backend.delivered == path.read_bytes().count(b'"t":"reply"') == 8


def test_a_set_that_breaks_off_keeps_the_replies_in_flight(tmp_path: Path) -> None:
    """An error of the input is raised after the calls in flight were stored."""

    def broken() -> Iterator[Pair]:
        yield from pairs(40)
        raise InputError("the file changed")

    path = tmp_path / "r.jsonl"
    backend = Server(concurrency=8)
    with Journal(path, create=True) as opened, pytest.raises(InputError, match="changed"):
        judged(broken(), Job(sample_rubric(), backend), journal=opened)
    assert path.read_bytes().count(b'"t":"reply"') == backend.delivered


def test_a_pair_that_cannot_be_planned_keeps_the_replies_in_flight(tmp_path: Path) -> None:
    """A text that no journal can hold is raised after the calls in flight were stored, like a set that breaks off."""

    def spoilt() -> Iterator[Pair]:
        yield from pairs(40)
        yield Pair("bad", Item("Question?"), Answer("half a pair: \ud800"), Answer("b"))

    path = tmp_path / "r.jsonl"
    backend = Server(concurrency=8)
    with Journal(path, create=True) as opened, pytest.raises((TypeError, UnicodeEncodeError)):
        judged(spoilt(), Job(sample_rubric(), backend), journal=opened)
    assert backend.delivered > 0
    assert path.read_bytes().count(b'"t":"reply"') == backend.delivered == len(backend.asked)


def test_stored_replies_are_looked_up_in_bulk(tmp_path: Path) -> None:
    """A set that is known whole takes few lookups and no call; one known in part is asked the rest."""
    known: dict[str, Reply] = {}
    rubric = sample_rubric()
    for pair in pairs(3_000):
        for ask in protocol.plan(pair, rubric, JudgeId("scripted/longer")):
            known[ask.key] = prefer_longer(ask)
    sizes: list[int] = []

    def lookup(keys: Sequence[str]) -> dict[str, Reply]:
        sizes.append(len(keys))
        return {key: known[key] for key in keys if key in known}

    backend = Server()
    with Journal(tmp_path / "r.jsonl", create=True) as opened:
        done = judged(pairs(3_000), Job(rubric, backend, known=lookup), journal=opened)
    assert (len(done), backend.asked, sum(sizes)) == (3_000, [], 6_000)
    assert len(sizes) <= 8
    assert (tmp_path / "r.jsonl").read_bytes().count(b'"reused":true') == 6_000
    asked = judged(pairs(3_300), Job(rubric, backend, known=lookup))
    assert (len(asked), len(backend.asked)) == (3_300, 600)
    assert all(ask.system and ask.question in ask.user for ask in backend.asked)


def test_a_lookup_of_long_texts_is_begun_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a lookup is bounded in characters, too, and none of it is lost."""
    monkeypatch.setattr("judge.engine._MOST_CHARS", 20_000)
    sizes: list[int] = []

    def lookup(keys: Sequence[str]) -> dict[str, Reply]:
        sizes.append(len(keys))
        return {}

    given = [replace(pair, candidate=Answer("x" * 1_000 + pair.id)) for pair in pairs(300)]
    assert len(judged(iter(given), Job(sample_rubric(), Server(), known=lookup))) == 300
    assert sum(sizes) == 600
    assert max(sizes) <= 2 * (20 + 32)


def test_a_lookup_that_fails_keeps_the_replies_in_flight(tmp_path: Path) -> None:
    """An unreadable database ends the run only after the calls in flight were stored."""
    calls = 0

    def lookup(keys: Sequence[str]) -> dict[str, Reply]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BackendError("the database went away")
        return {}

    backend = Server(concurrency=8)
    path = tmp_path / "r.jsonl"
    with Journal(path, create=True) as opened, pytest.raises(BackendError, match="went away"):
        judged(pairs(3_000), Job(sample_rubric(), backend, known=lookup), journal=opened)
    assert path.read_bytes().count(b'"t":"reply"') == backend.delivered > 0


def test_a_reply_that_cannot_be_stored_is_an_error_and_its_price_is_kept(tmp_path: Path) -> None:
    """Text that JSON cannot hold makes the comparison invalid; the run goes on and what it cost is counted."""

    def script(ask: Ask) -> Reply:
        text = "\ud800" if ask.pair_id == "p0001" else ask.labels.first
        return Reply(text, usage=Usage(5, 1, 0.25))

    store = Store(tmp_path / "home")
    backend = ScriptedBackend(script, name="scripted/longer")
    asyncio.run(start_run(plan_of(evalset(tmp_path / "e.jsonl", 3)), backend, store))
    frame = store.comparisons("r-1")
    assert frame["invalid"].to_list() == [None, "error", None]
    assert frame["cost"].sum() == 1.5


# Money -----------------------------------------------------------------------------------------------------------


class Paid(Server):
    """A judge whose calls are quoted at ``bound`` and cost ``price`` US dollars."""

    def __init__(self, *, bound: float | None = 1.0, price: float | None = 0.5, lost: int = 0, **options: int) -> None:
        super().__init__(**options)
        self.bound, self.price, self.lost, self.paid = bound, price, lost, 0.0

    def quote(self, ask: Ask) -> Quote:
        return Quote(100, 5, self.bound, None if self.bound is None else self.bound / 4)

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        replies = await super().ask(asks)
        self.paid += len(asks) * (self.price or 0.0)
        usage = Usage(100, 5, self.price)
        return [Reply(reply.text, reply.probs, usage=usage, possibly_paid=self.lost) for reply in replies]


@pytest.mark.parametrize("concurrency", [1, 4, 32])
@pytest.mark.parametrize(("bound", "price"), [(1.0, 1.0), (1.0, 0.3), (0.25, 0.25)])
def test_a_budget_is_never_passed_and_used_up(concurrency: int, bound: float, price: float) -> None:
    """Spending stops hard at the limit, and only where not one more call fits under it."""
    backend = Paid(bound=bound, price=price, concurrency=concurrency)
    budget = Budget(10.0)
    with pytest.raises(BudgetSpent, match=r"budget of \$10 does not allow another call"):
        judged(pairs(500), Job(sample_rubric(), backend, budget=budget))
    assert backend.paid == pytest.approx(budget.spent)
    assert 10.0 - bound < budget.spent <= 10.0
    assert budget.reserved == pytest.approx(0.0)


def test_lost_attempts_count_against_the_budget() -> None:
    """A retry that was possibly paid is counted at its upper bound; the overshoot is less than one window."""
    budget = Budget(10.0)
    backend = Paid(lost=1, concurrency=4)
    with pytest.raises(BudgetSpent):
        judged(pairs(500), Job(sample_rubric(), backend, budget=budget))
    assert budget.spent == pytest.approx(1.5 * backend.delivered)
    assert 10.0 < budget.spent <= 10.0 + 4 * 0.5


@pytest.mark.parametrize(
    ("reply", "bound", "most"),
    [
        (Reply(usage=Usage(cost=0.5)), 1.0, 0.5),
        (Reply(usage=Usage()), 1.0, 1.0),
        (Reply(usage=Usage(), error="HTTP 500"), 1.0, 0.0),
        (Reply(usage=Usage(), error="timeout", possibly_paid=2), 1.0, 2.0),
        (Reply(usage=Usage(cost=0.5), possibly_paid=1), None, 0.5),
    ],
)
def test_what_a_reply_took(reply: Reply, bound: float | None, most: float) -> None:
    """Its own cost, its bound where that is unknown, and the bound for each attempt that was possibly paid."""
    assert took(reply, bound) == most


def test_calls_that_are_made_again_do_not_pass_the_budget(server: Any, tmp_path: Path) -> None:
    """A server that charges and fails cannot be paid more than the limit: each further attempt is reserved, too."""
    path, store = evalset(tmp_path / "e.jsonl", rows=10), Store(tmp_path / "home")
    spec = (
        f"openai:m?mode=logprobs&repair=0&price_in=1&price_out=1&base_url={server.url('again', 'each:reset,reset,ok')}"
    )
    bound = 0.0
    env = Environment(home=tmp_path, cache=tmp_path)

    def opened(_spec: str = spec) -> Any:
        nonlocal bound
        backend = open_backend(spec, env)
        assert isinstance(backend, ChatBackend)
        for pair in open_evalset(path).pairs():
            for ask in protocol.plan(pair, sample_rubric(), backend.id):
                bound = max(bound, backend.quote(ask).cost or 0.0)
        backend.caller.clock = Clock(draw=lambda: 0.0)
        return backend

    backend = opened()
    plan = replace(plan_of(path, max_cost=8 * bound), judge_spec=spec)
    with pytest.raises(BudgetSpent):
        asyncio.run(closing(start_run(plan, backend, store), backend))
    assert 2 <= server.book("again")["paid"] <= 8
    asyncio.run(resume_run("r-1", store, opened, max_cost=1_000 * bound))
    assert store.comparisons("r-1")["outcome"].null_count() == 0
    info = store.run("r-1")
    assert server.book("again")["paid"] == info.calls + info.possibly_paid


async def closing(work: Awaitable[Any], backend: Any) -> None:
    """Await and close."""
    try:
        await work
    finally:
        await backend.close()


def test_a_run_stopped_by_its_budget_is_finished_with_more(tmp_path: Path) -> None:
    """Nothing is lost: the limit holds over resumes, and a higher one gives the table of an unbroken run."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    first = Paid(bound=1.0, price=0.5)
    with pytest.raises(BudgetSpent) as caught:
        asyncio.run(start_run(plan_of(path, max_cost=4.0), first, store))
    assert caught.value.unanswered > 0
    again = Paid(bound=1.0, price=0.5)
    with pytest.raises(BudgetSpent):
        asyncio.run(resume_run("r-1", store, lambda _spec: again))
    assert again.asked == []
    rest = Paid(bound=1.0, price=0.5)
    asyncio.run(resume_run("r-1", store, lambda _spec: rest, max_cost=20.0))
    assert len(first.asked) + len(rest.asked) == 20
    plain = Store(tmp_path / "plain")
    asyncio.run(start_run(plan_of(path), Paid(bound=1.0, price=0.5), plain))
    assert facts(store.comparisons("r-1")) == facts(plain.comparisons("r-1"))
    assert store.run("r-1").possibly_paid == 0


def test_a_budget_needs_a_price(tmp_path: Path) -> None:
    """A judge of unknown price is refused under a limit before anything is written, unless it is allowed."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    with pytest.raises(InputError, match="--allow-unknown-price"):
        asyncio.run(start_run(plan_of(path, max_cost=1.0), Paid(bound=None, price=None), store))
    assert not store.home.exists()
    with pytest.raises(BudgetSpent):
        asyncio.run(start_run(plan_of(path, "r-2", max_cost=2.0), Paid(), store))
    with pytest.raises(InputError, match="its price is unknown"):
        asyncio.run(resume_run("r-2", store, lambda _spec: Paid(bound=None, price=None), max_cost=5.0))
    store.journal_path("r-2").unlink()
    store.path.unlink(missing_ok=True)
    asyncio.run(start_run(plan_of(path, max_cost=1.0, allow_unknown_price=True), Paid(bound=None, price=None), store))
    assert store.comparisons("r-1").height == 10
    assert store.comparisons("r-1")["cost"].null_count() == 10


def test_a_forecast_is_what_a_run_then_does(tmp_path: Path) -> None:
    """Calls, cached and shared verdicts and the bounds of a forecast hold for the run that follows."""
    rows = [{"id": str(n), "prompt": f"q{n % 6}", "candidate": "a" * (n % 6 + 1), "baseline": "b"} for n in range(12)]
    path, store = tmp_path / "e.jsonl", Store(tmp_path / "home")
    path.write_bytes(b"\n".join(map(orjson.dumps, rows[:2])))
    asyncio.run(start_run(plan_of(path), Paid(), store))
    path.write_bytes(
        b"\n".join(map(orjson.dumps, [*rows, {"id": "x", "prompt": "q", "candidate": "s", "baseline": "s"}]))
    )
    plan, backend = plan_of(path, "r-2"), Paid()
    job = Job(plan.rubric, backend, known=store.known(plan.rubric.digest, backend.id))
    found = forecast(plan.evalset.pairs(), job, rate=2.0)
    assert (found.pairs, found.verdicts, found.identical, found.cached, found.shared, found.calls) == (
        13,
        26,
        1,
        8,
        8,
        8,
    )
    assert (found.prompt_tokens, found.completion_tokens, found.low, found.high, found.seconds) == (
        800,
        40,
        2.0,
        8.0,
        4.0,
    )
    assert backend.asked == []
    asyncio.run(start_run(plan, backend, store))
    assert (len(backend.asked), backend.paid) == (found.calls, 4.0)
    unknown = forecast(plan.evalset.pairs(), Job(plan.rubric, Paid(bound=None)))
    assert (unknown.low, unknown.high, unknown.seconds) == (None, None, None)


def test_a_ledger_counts_what_was_possibly_paid(tmp_path: Path) -> None:
    """Calls on their way at a crash, and attempts that a reply says were lost, are counted with their upper bounds."""
    records = [
        {"t": "run"},
        {"t": "intent", "keys": ["a", "b", "c"], "bounds": [1.0, 2.0, None]},
        {"t": "reply", "key": "a", "reply": {"usage": {"cost": 0.5}, "possibly_paid": 1}},
        {"t": "resume"},
        {"t": "intent", "keys": ["b"], "bounds": [2.0]},
        {"t": "reply", "key": "b", "reply": {"usage": {"cost": 0.25}}},
        {"t": "seal", "comparisons": 1, "calls": 1, "seconds": 0.5},
    ]
    ledger = Ledger()
    for record in records[:3]:
        ledger.take(record)
    ledger.end()
    assert (ledger.calls, ledger.cost, ledger.possibly_paid, ledger.possibly_paid_cost) == (1, 0.5, 3, None)
    assert ledger.deaths == {"b": 1, "c": 1}
    whole = Ledger()
    for record in records:
        whole.take({**record, "bounds": [1.0, 2.0, 4.0]} if record.get("bounds") and "c" in record["keys"] else record)  # type: ignore[operator]
    assert (whole.calls, whole.cost, whole.possibly_paid, whole.possibly_paid_cost) == (2, 0.75, 3, 7.0)
    assert (whole.most, whole.deaths, whole.rate, whole.sealed) == (7.75, {"c": 1}, 2.0, True)


def test_attempts_before_a_death_are_counted_once(tmp_path: Path) -> None:
    """What a ``lost`` told is not counted again by the reply, and counts where no reply comes."""
    begun = [{"t": "run"}, {"t": "intent", "keys": ["a"], "bounds": [2.0]}, {"t": "lost", "keys": ["a"], "count": 2}]
    dead, alive = Ledger(), Ledger()
    for record in begun:
        dead.take(record)
        alive.take(record)
    dead.end()
    assert (dead.possibly_paid, dead.possibly_paid_cost, dead.lost) == (3, 6.0, {"a": 3})
    alive.take({"t": "reply", "key": "a", "reply": {"usage": {"cost": 1.0}, "possibly_paid": 3}})
    alive.take({"t": "seal", "comparisons": 1, "calls": 1, "seconds": 1.0})
    alive.end()
    assert (alive.calls, alive.cost, alive.possibly_paid, alive.possibly_paid_cost) == (1, 1.0, 3, 6.0)


def test_a_call_that_dies_in_its_third_attempt_was_possibly_paid_three_times(server: Any, tmp_path: Path) -> None:
    """Two broken connections and a kill while the third attempt hangs: a resume knows of all three, and their price."""
    path, store = evalset(tmp_path / "e.jsonl", rows=1), Store(tmp_path / "home")
    judge = (
        f"openai:m?mode=logprobs&price_in=1&price_out=1&concurrency=1&base_url={server.url('dies', 'reset,reset,hang')}"
    )
    code = (
        "import asyncio, sys; from pathlib import Path; from judge.backends import open_backend\n"
        "from judge.environment import environment; from judge.formats import open_evalset\n"
        "from judge.runs import RunPlan, start_run; from judge.store import Store\n"
        "from judge.testing import sample_rubric\n"
        "path, home, judge = sys.argv[1:]\n"
        "plan = RunPlan('r-1', '2026-01-01', open_evalset(Path(path)), {}, sample_rubric(), judge)\n"
        "asyncio.run(start_run(plan, open_backend(judge, environment()), Store(Path(home))))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path), str(store.home), judge]) as child:
        try:
            deadline = time.monotonic() + 30
            while server.book("dies")["requests"] < 3 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            child.kill()
    ledger = Ledger()
    for record in journal.records(store.journal_path("r-1")):
        ledger.take(record)
    ledger.end()
    intent = next(entry for entry in journal.records(store.journal_path("r-1")) if entry["t"] == "intent")
    assert server.book("dies")["paid"] == ledger.possibly_paid == 3
    assert ledger.possibly_paid_cost == pytest.approx(3 * intent["bounds"][0])


def test_a_stop_in_good_order_is_no_death(tmp_path: Path) -> None:
    """Calls that were on their way when a run stopped cleanly are possibly paid and blamed on nobody; where the judge
    could not be reached at all they were not paid.
    """
    for stop, paid in (({}, 2), ({"unpaid": True}, 0)):
        ledger = Ledger()
        for record in ({"t": "run"}, {"t": "intent", "keys": ["a", "b"]}, {"t": "stop", **stop}, {"t": "resume"}):
            ledger.take(record)
        assert (ledger.possibly_paid, ledger.deaths) == (paid, {})


@pytest.mark.parametrize(("error", "paid"), [(BackendError, 4), (BackendUnavailable, 0)])
def test_a_judge_that_gives_up_may_have_been_paid(tmp_path: Path, error: type[BackendError], paid: int) -> None:
    """Calls that raise are possibly paid, unless the judge could not be reached."""

    async def hold(ask: Ask) -> None:
        raise error("no")

    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    backend = Server(concurrency=4, hold=hold)
    backend.id = JudgeId("scripted/longer")
    with pytest.raises(error):
        asyncio.run(start_run(plan_of(path), backend, store))
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    run = store.run("r-1")
    assert (len(rest.asked), run.possibly_paid, run.calls, run.possibly_paid_cost) == (20, paid, 20, 0.0)


def test_pieces_of_the_old_format_are_still_read(tmp_path: Path) -> None:
    """A journal without intents, stops and resumes (as version 0.1 wrote it) is resumed and ingested."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    asyncio.run(start_run(plan_of(path), longer(), store))
    whole = store.comparisons("r-1")
    file = store.journal_path("r-1")
    old = [record for record in journal.records(file) if record["t"] in ("run", "pair", "reply")]
    for name in ("max_cost", "allow_unknown_price"):
        del old[0][name]
    file.unlink()
    store.path.unlink()
    with Journal(file, create=True) as opened:
        for record in old[:-5]:
            opened.add(record.pop("t"), record)
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    assert len(rest.asked) == 5
    assert facts(store.comparisons("r-1")) == facts(whole)


def test_a_death_between_the_lines_of_two_equal_rows_loses_neither(tmp_path: Path) -> None:
    """Where only the first of two rows with the same texts has a reply in the journal, both settle."""
    row = {"prompt": "q", "candidate": "a longer answer", "baseline": "short"}
    path, store = tmp_path / "e.jsonl", Store(tmp_path / "home")
    path.write_bytes(b"".join(orjson.dumps({"id": name, **row}) + b"\n" for name in ("p1", "p2")))
    asyncio.run(start_run(plan_of(path), longer(), store))
    whole = store.comparisons("r-1")
    file = store.journal_path("r-1")
    records = [record for record in journal.records(file) if record["t"] in ("run", "pair", "reply")]
    first = next(record for record in records if record["t"] == "reply" and record["pair_id"] == "p1")
    file.unlink()
    store.path.unlink()
    with Journal(file, create=True) as opened:
        for record in [record for record in records if record["t"] != "reply"] + [first]:
            opened.add(record.pop("t"), record)
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    assert len(rest.asked) == 1
    assert facts(store.comparisons("r-1")) == facts(whole)
    assert store.comparisons("r-1").height == 2
