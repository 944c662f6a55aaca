"""Remote judges: modes, keys, prices, generation, litellm, and a real model behind a real server, all on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from judge import protocol
from judge.backends import open_backend, ready
from judge.backends.chat import ChatBackend, Generation, Options
from judge.backends.completions import Form, Malformed, label_probs_of, load, plain, read
from judge.environment import Environment, environment
from judge.errors import BackendUnavailable, InputError
from judge.money import Priced
from judge.prices import Price, find_price, prices_date, tokens_at_least, tokens_at_most
from judge.testing import sample_pair, sample_rubric
from judge.types import Ask, InvalidReason, JudgeId, Labels, Message, Order, Outcome, Reply

REPO = Path(__file__).resolve().parent.parent
KEY = "sk-planted-0123456789abcdef"
ENV = Environment(
    home=Path("unused"), cache=Path(tempfile.mkdtemp()), api_key=KEY, keys={"OTHER_API_KEY": "other-secret-1234"}
)


# litellm's own types warn when pydantic first builds them; not ours to fix.
litellms = pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning")


def opened(url: str, more: str = "", *, env: Environment = ENV, name: str = "openai:m") -> ChatBackend:
    backend = open_backend(f"{name}?base_url={url}{more}", env)
    assert isinstance(backend, ChatBackend)
    return backend


def asks_of(backend: ChatBackend, repeat: int = 0) -> tuple[Ask, ...]:
    return protocol.plan(sample_pair(), sample_rubric(), backend.id, repeat=repeat)


def answered(backend: ChatBackend, *, prepared: bool = False, repeat: int = 0) -> list[Reply]:
    async def work() -> list[Reply]:
        try:
            if prepared:
                await ready(backend)
            return await backend.ask(asks_of(backend, repeat))
        finally:
            await backend.close()

    return asyncio.run(work())


def outcomes(backend: ChatBackend, replies: list[Reply]) -> list[Outcome | InvalidReason | None]:
    read = [protocol.read(ask, reply) for ask, reply in zip(asks_of(backend), replies, strict=True)]
    return [verdict.invalid or verdict.outcome for verdict in read]


@pytest.mark.parametrize(
    ("script", "decoding", "probes"),
    [
        ("ok", "t0-n8-logprobs", 1),
        ("no-logprobs,ok", "t0-n64-schema", 2),
        ("no-logprobs-400,ok", "t0-n64-schema", 2),
        ("no-schema", "t0-n32-text", 2),
        ("no-logprobs-400,no-schema-400,ok", "t0-n32-text", 3),
    ],
)
def test_the_capability_is_probed_once_and_the_id_names_it(
    server: Any, script: str, decoding: str, probes: int
) -> None:
    """Label probabilities where the server gives them, else structured output, else text; another mode is another
    judge, and the probe's calls are in the accounts.
    """
    name = f"probe-{probes}-{decoding}-{len(script)}"
    backend = opened(server.url(name, script), "&price_in=1&price_out=1&repair=0")
    backend.caller.breaker = type(backend.caller.breaker)(after=99)
    replies = answered(backend, prepared=True)
    assert backend.id.decoding == f"{decoding}-norepair"
    assert outcomes(backend, replies) == [Outcome.WIN, Outcome.LOSS]
    assert (replies[0].probs is not None) is decoding.endswith("logprobs")
    book = server.book(name)
    assert book["requests"] == probes + 2 == sum(reply.attempts for reply in replies)
    bodies = [entry["body"] for entry in book["log"]][probes:]
    assert [("logprobs" in body, "response_format" in body) for body in bodies] == [
        (decoding.endswith("logprobs"), decoding.endswith("schema"))
    ] * 2
    assert all("no_logprobs" not in reply.flags for reply in replies)


def test_a_named_mode_is_not_probed_and_a_resume_keeps_the_recorded_one(server: Any) -> None:
    """`mode=text` sends no probe; a resumed run takes the mode of its header without a call."""
    url = server.url("pinned")
    named = opened(url, "&mode=text")
    assert len(answered(named, prepared=True)) == 2
    assert server.book("pinned")["requests"] == 2
    resumed = opened(url)
    recorded = JudgeId("openai/m", resumed.id.revision, "t0-n64-schema")
    asyncio.run(ready(resumed, recorded))
    assert (resumed.id, server.book("pinned")["requests"]) == (recorded, 2)


def test_a_schema_verdict_can_hold_nothing_but_a_label(server: Any) -> None:
    """Structured output is strict, closed and an enumeration of this ask's own labels."""
    backend = opened(server.url("schema"), "&mode=schema")
    replies = answered(backend)
    assert json.loads(replies[0].text).keys() == {"verdict"}
    assert outcomes(backend, replies) == [Outcome.WIN, Outcome.LOSS]
    form = server.book("schema")["log"][0]["body"]["response_format"]["json_schema"]
    labels = asks_of(backend)[0].labels
    assert (form["strict"], form["schema"]["additionalProperties"]) == (True, False)
    assert form["schema"]["properties"]["verdict"]["enum"] == [labels.first, labels.second, labels.tie]


def test_repeats_have_their_own_seed_and_temperature_is_part_of_the_id(server: Any) -> None:
    """The k-th repeat is drawn with seed k at the temperature that was asked for."""
    backend = opened(server.url("repeats"), "&temperature=0.7")
    assert backend.id.decoding == "t0.7-n8-logprobs"
    for repeat in (0, 3):
        answered(backend, repeat=repeat)
    bodies = [entry["body"] for entry in server.book("repeats")["log"]]
    assert [(body["seed"], body["temperature"]) for body in bodies] == [(0, 0.7)] * 2 + [(3, 0.7)] * 2


def test_a_model_that_refuses_max_tokens_is_asked_in_its_own_words(server: Any) -> None:
    """A parameter that does not change the judgement is renamed or left out after one refusal, and stays so."""
    backend = opened(server.url("limit", "no-limit-400,ok"))
    replies = [answered(backend)[0] for _ in range(2)]
    assert all(reply.probs for reply in replies)
    bodies = [entry["body"] for entry in server.book("limit")["log"]]
    assert "max_tokens" in bodies[0] and bodies[-1]["max_completion_tokens"] == 8 and "max_tokens" not in bodies[-1]


def test_a_changing_fingerprint_is_flagged(server: Any) -> None:
    """A reply from another build of the model than the first one says so."""
    first, second = sorted(answered(opened(server.url("fp", "fingerprint"))), key=lambda reply: reply.fingerprint or "")
    assert ("fingerprint_changed" in first.flags) is not ("fingerprint_changed" in second.flags)


def test_a_refusal_field_is_no_vote(server: Any) -> None:
    """What a server puts into `refusal` never becomes a verdict, whatever else it says."""
    (reply, _) = answered(opened(server.url("refused", "refused"), "&repair=0"))
    assert (reply.probs, reply.finish) == (None, "refusal")
    assert outcomes(opened(server.url("x")), [reply, reply])[0] in (InvalidReason.REFUSAL, InvalidReason.UNPARSED)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "script"),
    [
        ("openai:m", "echo401"),
        ("openai:m", "each:echo500,ok"),
        ("openai:m", "echo-ok"),
        ("openai:m", "redirect"),
        ("litellm:openai/m", "echo401"),
    ],
)
def test_a_planted_key_is_found_nowhere(server: Any, tmp_path: Path, script: str, client: str) -> None:
    """A whole run against a server that echoes the Authorization header: the key reaches the server and no file, no
    output and no message.
    """
    if client.startswith("litellm"):
        pytest.importorskip("litellm")
    evalset = tmp_path / "e.jsonl"
    evalset.write_bytes(
        b"\n".join(orjson.dumps({"prompt": f"q{n}", "candidate": f"a{n}", "baseline": f"b{n}"}) for n in range(4))
    )
    name = f"leak-{client[:4]}-{script[-6:]}"
    where = f"{client}?base_url={server.url(name, script)}&key_env=PLANTED_API_KEY&mode=logprobs"
    home = tmp_path / "home"
    environ = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(home), "PLANTED_API_KEY": KEY}
    environ |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", "from judge.cli import main; main()"]
    done = subprocess.run(
        [*command, "run", str(evalset), "-j", where, "--json"],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert server.book(name)["log"][0]["authorization"] == f"Bearer {KEY}", done.stderr.decode()
    assert done.returncode == (0 if script.endswith("ok") else 3), done.stderr.decode()
    reported = subprocess.run(
        [*command, "report", "--html", str(tmp_path / "r.html")],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    outputs = [done.stdout, done.stderr, reported.stdout, reported.stderr]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert list(home.rglob("*.jsonl")) != []
    assert [path.name for path in files if KEY.encode()[:16] in path.read_bytes()] == []
    assert [output for output in outputs if KEY.encode()[:16] in output] == []


def test_a_key_is_in_no_repr_and_no_message() -> None:
    """Environment, backend and errors about a judge string that holds a key show nothing of it."""
    backend = opened("http://127.0.0.1:9/v1")
    shown = [repr(ENV), repr(backend), repr(vars(backend)), repr(backend._transport)]
    for spec in (f"openai:m?api_key={KEY}", f"openai:m?base_url=http://u:{KEY}@h/v1", f"openai:m?key_env={KEY}",
                 f"openai:m?base_url=http://h/v1?key={KEY}", f"litellm:m?api_key={KEY}",
                 f"openai:m?base_url=htp://u:{KEY}@h/v1", f"openai:m?base_url=h/v1%3Fkey={KEY}"):  # fmt: skip
        with pytest.raises(InputError) as caught:
            open_backend(spec, ENV)
        shown.append(str(caught.value))
    assert [text for text in shown if KEY in text] == []


def test_a_key_is_chosen_by_the_name_of_its_variable(server: Any) -> None:
    """`key_env` sends another variable's value; without one it is OPENAI_API_KEY."""
    answered(opened(server.url("keys"), "&key_env=OTHER_API_KEY"))
    answered(opened(server.url("keys")))
    sent = {entry["authorization"] for entry in server.book("keys")["log"]}
    assert sent == {"Bearer other-secret-1234", f"Bearer {KEY}"}


def test_secrets_are_read_from_the_environment_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable named like a secret is known, so that it can be kept out of what is written."""
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", "x" * 20)
    monkeypatch.setenv("JUDGE_PRICES", "prices.json")
    found = environment()
    assert (found.keys["SOME_PROVIDER_API_KEY"], found.prices) == ("x" * 20, Path("prices.json"))
    assert "PATH" not in found.keys
    for name in ("WATSONX_APIKEY", "WATSONX_ZENAPIKEY", "AWS_BEARER_TOKEN_BEDROCK", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x" * 20)
        assert name in environment().keys, name
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert "TOKENIZERS_PARALLELISM" not in environment().keys
    assert "x" * 20 not in repr(found)


# --- options and prices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai:m?mode=guess", "use auto, logprobs, schema, text"),
        ("openai:m?temperature=-1", "lies between 0 and 5"),
        ("openai:m?temperature=nan", "not a number"),
        ("openai:m?concurrency=0", "lies between 1 and"),
        ("openai:m?repair=maybe", "repair is 0 or 1"),
        ("openai:m?price_in=1", "go together"),
        ("openai:m?rpm=-5", "lies between 0"),
        ("openai:m?key_env=NOT_THERE_KEY", "no key under the name"),
        ("litellm:m", "name provider and model"),
        ("litellm:anthropic/m?speed=1", "unknown option 'speed'"),
        ("anthropics/claude", "did you mean|there is no judge"),
    ],
)
def test_an_option_that_cannot_be_is_one_clear_error(spec: str, message: str) -> None:
    """Options are checked when the judge is opened, before anything is sent."""
    with pytest.raises(InputError, match=message):
        open_backend(spec, ENV)


def test_provider_strings_are_judges(tmp_path: Path) -> None:
    """A bare litellm model string opens litellm, also with a colon in it; `openai/m` is our own client."""
    pytest.importorskip("litellm")
    names = {
        "anthropic/claude-haiku-4-5": "anthropic/claude-haiku-4-5",
        "litellm:gemini/gemini-2.5-flash": "gemini/gemini-2.5-flash",
        "bedrock/anthropic.claude-3-5-haiku-20241022-v1:0": "bedrock/anthropic.claude-3-5-haiku-20241022-v1:0",
        "openai/gpt-4o-mini": "openai/gpt-4o-mini",
    }
    for spec, name in names.items():
        backend = open_backend(spec, ENV)
        assert isinstance(backend, ChatBackend)
        assert backend.id.name == name
        assert backend.price is not None, spec


def test_an_unknown_price_is_none_and_never_zero(server: Any, tmp_path: Path) -> None:
    """A server of your own has no price until you give one; zero must be said."""
    unknown = opened(server.url("price"))
    assert (unknown.price, isinstance(unknown, Priced)) == (None, True)
    quote = unknown.quote(asks_of(unknown)[0])
    assert (quote.cost, quote.least) == (None, None)
    assert answered(unknown)[0].usage.cost is None
    free = opened(server.url("price"), "&price_in=0&price_out=0")
    assert answered(free)[0].usage.cost == 0.0
    own = tmp_path / "prices.json"
    own.write_text('{"models": {"openai/gpt-4o": {"input": 1, "output": 2}}}')
    env = dataclasses.replace(ENV, prices=own)
    mine, listed = open_backend("openai:gpt-4o", env), open_backend("openai:gpt-4o", ENV)
    assert isinstance(mine, ChatBackend) and isinstance(listed, ChatBackend)
    assert (mine.price, listed.price) == (Price(1.0, 2.0), find_price("openai/gpt-4o"))
    elsewhere = opened(server.url("price"), name="openai:gpt-4o")
    assert elsewhere.price is None, "the table is about OpenAI's own server"


def test_the_quote_bounds_what_a_reply_costs(server: Any) -> None:
    """The bound holds for a repaired reply and for one without usage, which is booked at the bound of its call."""
    for script in ("ok", "prose,ok", "no-usage"):
        backend = opened(server.url(f"quote-{script[:4]}", script), "&price_in=3&price_out=15")
        ask = asks_of(backend)[0]
        quote = backend.quote(ask)
        (reply, _) = answered(backend)
        assert quote.cost is not None and reply.usage.cost is not None and quote.least is not None
        assert 0 < reply.usage.cost <= quote.cost
        assert quote.least < quote.cost
        assert reply.usage.prompt_tokens <= quote.prompt_tokens
    once = opened(server.url("quote-once"), "&price_in=3&price_out=15&repair=0").quote(ask)
    assert quote.prompt_tokens >= 2 * once.prompt_tokens, "a repair sends the prompt a second time"
    assert quote.completion_tokens > once.completion_tokens
    assert "no_usage" in reply.flags and reply.usage.prompt_tokens >= len(ask.system) + len(ask.user)


@pytest.mark.parametrize(
    "text", ["", "plain words", "Grüße, 世界", "🏳️‍🌈" * 20, "\u0000\ud800", "a" * 5_000, "x\u0301" * 50]
)
def test_the_token_bound_covers_a_real_tokenizer(text: str) -> None:
    """Never more tokens than bytes: checked against the shipped model's byte-level tokenizer."""
    pytest.importorskip("gguf")
    from judge.backends.smollm2 import gguf_file, tokenizer_from_gguf

    try:
        path = gguf_file()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))
    import gguf

    global _tokenizer  # noqa: PLW0603
    _tokenizer = _tokenizer or tokenizer_from_gguf(gguf.GGUFReader(path).fields)
    encoded = _tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
    assert tokens_at_least(text) <= tokens_at_most(text)
    assert len(encoded) <= tokens_at_most(text)


_tokenizer: Any = None


def test_the_price_table_has_a_date_and_whole_rows() -> None:
    """Every shipped price is positive, output costs no less than input, and a batch costs no more."""
    assert prices_date() >= "2026-01-01"
    table = json.loads((REPO / "judge" / "data" / "prices.json").read_text())
    for name in table["models"]:
        price = find_price(name)
        assert price is not None and 0 < price.input <= price.output and 0 < price.batch <= 1, name
    long = Price(1.0, 2.0, long_above=100, long_input=10.0, long_output=20.0)
    assert (long.cost(100, 0), long.cost(101, 0)) == (0.0001, 0.00101)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"models": {"a/b": 3}}',
        '{"models": {"a/b": {"input": -1, "output": 1}}}',
        '{"models": {"a/b": {"input": true, "output": 1}}}',
    ],
)
def test_a_price_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is no price file is the user's error, not a free model."""
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"p\.json"):
        find_price("a/b", override=path)


# --- reading answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b'{"a": NaN}', b"{", b"\xff", b'"\\ud800 NaN' + b"[" * 100_000, b"[" * 100_000, b'{"a": -Infinity}']
)
def test_what_is_no_strict_json_is_refused(data: bytes) -> None:
    """NaN, bad UTF-8, a cut body and endless nesting are errors, never values or crashes."""
    with pytest.raises(ValueError):
        load(data)


def test_a_lone_surrogate_costs_no_answer() -> None:
    """A paid answer with half a character is kept, with a replacement in its place."""
    assert load(b'{"a": "x\\ud83d"}') == {"a": "x?"} or load(b'{"a": "x\\ud83d"}') == {"a": "x\ufffd"}


@pytest.mark.parametrize(
    "payload", [3, {"choices": 3}, {"choices": [3]}, {"choices": [{"message": {"tool_calls": 3}}]}]
)
def test_another_shape_is_malformed(payload: Any) -> None:
    """Everything that is no chat completion says where it is not."""
    with pytest.raises(Malformed):
        read(payload)


def test_content_in_parts_is_joined() -> None:
    """Some servers give the content as a list of parts."""
    parts = [{"type": "text", "text": "K"}, {"type": "text", "text": "."}]
    assert read({"choices": [{"message": {"content": parts}}]}).text == "K."


def test_white_space_and_markup_before_the_label_are_skipped_at_their_price() -> None:
    """The label's mass is multiplied by the probability of what stood before it."""
    top = [{"token": "K", "logprob": -0.05}]
    tokens = [
        {"token": "\n", "logprob": -0.1, "top_logprobs": []},
        {"token": "K", "logprob": -0.05, "top_logprobs": top},
    ]
    found = label_probs_of(tokens, Labels("K", "R", "TIE"))
    assert found is not None and found[0] == (1.0, 0.0, 0.0) and found[1] == pytest.approx(0.8607, abs=1e-4)
    doubtful = [{**tokens[0], "logprob": -2.0}, tokens[1]]
    assert label_probs_of(doubtful, Labels("K", "R", "TIE")) is None


def test_a_form_names_itself() -> None:
    """Everything that changes a judgement is in the decoding part of the id."""
    forms = [Form(), Form("schema"), Form("text"), Form(temperature=0.5), Form(max_tokens=16), Form(repair=False)]
    assert len({form.decoding for form in forms}) == len(forms)


# --- generation -------------------------------------------------------------------------------------------------------


def generated(backend: ChatBackend) -> Generation:
    async def work() -> Generation:
        try:
            return await backend.generate([Message("user", "Say hello")], max_tokens=32, temperature=0.5, seed=7)
        finally:
            await backend.close()

    return asyncio.run(work())


def test_an_answer_is_generated_with_its_accounts(server: Any) -> None:
    """Text, tool calls, usage, cost and latency of one answer, asked for without anything that is about verdicts."""
    made = generated(opened(server.url("gen", "429,tools"), "&price_in=1&price_out=1&rpm=6000"))
    assert (made.text, made.tool_calls[0]["function"]["name"], made.attempts, made.error) == ("K", "f", 2, None)
    assert made.usage.cost == pytest.approx((made.usage.prompt_tokens + 1) / 1e6)
    assert made.latency_ms > 0
    body = server.book("gen")["log"][-1]["body"]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (32, 0.5, 7)
    assert body.keys() == {"model", "messages", "max_tokens", "temperature", "seed"}


def test_turns_with_tool_calls_and_tools_go_over_the_wire_as_they_are(server: Any) -> None:
    """A conversation may hold tool calls and results, and declare tools."""
    backend = opened(server.url("tools", "tools"))
    turns = [Message("user", "hi"), {"role": "tool", "tool_call_id": "1", "content": "42"}]
    tool = {"type": "function", "function": {"name": "f"}}

    async def work() -> Generation:
        try:
            return await backend.generate(turns, max_tokens=8, tools=[tool])
        finally:
            await backend.close()

    assert asyncio.run(work()).tool_calls
    body = server.book("tools")["log"][0]["body"]
    assert (body["messages"], body["tools"]) == ([{"role": "user", "content": "hi"}, turns[1]], [tool])


def test_a_generation_that_fails_is_a_value(server: Any) -> None:
    """After the retries the error stands in the value, with what was possibly paid."""
    made = generated(opened(server.url("genbad", "array")))
    assert (made.error is not None, made.possibly_paid, made.usage.cost) == (True, 1, None)


# --- a real model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """The address of SmolLM2-135M behind llama.cpp's server, in a process of its own."""
    from judge.backends.smollm2 import gguf_file

    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed (extra: dev)")
    try:
        weights = gguf_file()
    except BackendUnavailable as missing:
        pytest.skip(str(missing))
    script = REPO / "tests" / "servers" / "llama.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(weights)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        try:
            address = next((line.strip() for line in child.stdout if line.startswith("http")), "")
            assert address, "the server ended before it listened"
            yield f"{address}/v1"
        finally:
            child.kill()


def tiny_asks() -> list[Ask]:
    """Asks of a few dozen tokens: a small machine reads a hundred a second."""
    user = "Which is right for 2 + 2? {} Reply with exactly one of: K, R, TIE."
    return [
        Ask(f"key-{order}", "p", order, 0, "You judge.", user.format(texts), Labels("K", "R", "TIE"), "", "", "")
        for order, texts in zip(Order, ("K says 4. R says 5.", "K says 5. R says 4."), strict=True)
    ]


def told(backend: ChatBackend, *, prepared: bool = False) -> list[Reply]:
    async def work() -> list[Reply]:
        try:
            if prepared:
                await ready(backend)
            return await backend.ask(tiny_asks())
        finally:
            await backend.close()

    return asyncio.run(work())


def test_a_real_model_gives_label_probabilities(llama: str) -> None:
    """Probed as a server with log-probabilities; both orders are answered, with usage, and the mass of the labels is
    a probability.
    """
    backend = opened(llama, "&repair=0", name="openai:smollm2")
    replies = told(backend, prepared=True)
    assert backend.id.decoding == "t0-n8-logprobs-norepair"
    assert [reply.error for reply in replies] == [None, None]
    for reply in replies:
        assert reply.usage.prompt_tokens > 20
        assert reply.usage.prompt_tokens <= backend.quote(tiny_asks()[0]).prompt_tokens
        assert "no_logprobs" not in reply.flags
        assert reply.probs is None or sum(reply.probs) == pytest.approx(1)


def test_a_real_model_keeps_to_the_schema(llama: str) -> None:
    """Structured output is one of the labels in every reply."""
    backend = opened(llama, "&mode=schema&max_tokens=24&repair=0", name="openai:smollm2")
    replies = told(backend)
    verdicts = [protocol.read(ask, reply) for ask, reply in zip(tiny_asks(), replies, strict=True)]
    assert [verdict.invalid for verdict in verdicts] == [None, None], replies


@litellms
def test_the_same_server_answers_the_openai_sdk_and_litellm_alike(llama: str) -> None:
    """Our client, the openai SDK and litellm read the same verdict and the same first-token probabilities."""
    openai, _ = pytest.importorskip("openai"), pytest.importorskip("litellm")
    from judge.backends.completions import ask_body

    ours = opened(llama, "&repair=0", name="openai:smollm2")
    theirs = opened(llama, "&repair=0&key_env=OTHER_API_KEY", name="litellm:openai/smollm2")
    ask = tiny_asks()[0]
    body = ask_body("smollm2", Form(), ask)

    async def work() -> tuple[Reply, Reply, Any]:
        async with openai.AsyncOpenAI(base_url=llama, api_key="none", max_retries=0) as client:
            raw = await client.chat.completions.create(**body)
        (mine,), (other,) = await ours.ask([ask]), await theirs.ask([ask])
        await ours.close()
        await theirs.close()
        return mine, other, raw

    mine, other, raw = asyncio.run(work())
    assert mine.text == other.text == raw.choices[0].message.content
    assert mine.usage.prompt_tokens == other.usage.prompt_tokens == raw.usage.prompt_tokens
    assert mine.score == pytest.approx(other.score)
    assert mine.error is other.error is None


# --- litellm ----------------------------------------------------------------------------------------------------------


@litellms
@pytest.mark.parametrize(
    ("script", "error", "attempts"),
    [
        ("ok", None, 1),
        ("503,ok", None, 2),
        ("429-seconds,ok", None, 2),
        ("500", "server_error", 3),
        ("reset", "reset", 3),
        ("hang", "timeout", 2),
        ("truncated", "server_error", 3),
        ("toolong", "too_long", 1),
        ("array", "server_error", 3),
    ],
)
def test_litellm_makes_exactly_the_calls_of_our_policy(
    server: Any, script: str, error: str | None, attempts: int
) -> None:
    """Its own retries are off: the server counts what our table says, and every exception has its fault."""
    pytest.importorskip("litellm")
    name = f"lite-{script[:4]}"
    backend = opened(
        server.url(name, script), "&timeout=0.5&price_in=1&price_out=1&key_env=OTHER_API_KEY", name="litellm:openai/m"
    )
    backend.caller.clock = dataclasses.replace(backend.caller.clock, sleep=_no_sleep, now=_Ticks().now)

    async def work() -> Reply:
        try:
            return (await backend.ask(asks_of(backend)[:1]))[0]
        finally:
            await backend.close()

    reply = asyncio.run(work())
    assert (None if reply.error is None else reply.error.split(":")[0], reply.attempts) == (error, attempts)
    book = server.book(name)
    assert book["requests"] == attempts
    assert (0 if reply.error else 1) + reply.possibly_paid >= book["paid"]
    if error is None:
        assert reply.probs is not None and reply.usage.prompt_tokens > 0
        assert book["log"][0]["authorization"] == "Bearer other-secret-1234"


async def _no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


class _Ticks:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        self.at += 1.0
        return self.at


def test_options_have_the_defaults_that_the_docs_name() -> None:
    """An unprepared judge asks for log-probabilities, eight at a time."""
    options = Options()
    assert (options.mode, options.concurrency, options.form().decoding) == ("auto", 8, "t0-n8-logprobs")


def test_the_same_model_name_elsewhere_is_another_judge(server: Any) -> None:
    """Servers are told apart by their URL, unless a revision says which weights answer; the provider's own has none."""
    here, there = (opened(server.url(name), "&mode=text").id for name in ("here", "there"))
    assert here != there and here.revision and there.revision
    named = [opened(server.url(name), "&mode=text&revision=v3").id for name in ("here", "there")]
    assert named[0] == named[1] and named[0].revision == "v3"
    assert open_backend("openai:gpt-4o-mini?mode=text", Environment(Path(), Path())).id.revision == ""


def test_a_key_spelled_with_escapes_is_found() -> None:
    """JSON may write a key in escapes; it is searched for as it reads, not as it is spelled."""
    escaped = b'{"text": "' + b"".join(b"\\u%04x" % ord(letter) for letter in "sk-secret") + b'"}'
    assert b"sk-secret" in plain(escaped)
    assert plain(b"no json \\u12") == b"no json \\u12"


@pytest.mark.parametrize("usage", [{"prompt_tokens": 5, "completion_tokens": None}, {"prompt_tokens": 2**52}, [], "x"])
def test_a_verdict_is_not_thrown_away_over_its_accounts(usage: object) -> None:
    """Usage that cannot be used counts as not said; the answer stays."""
    body = {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": usage}
    found = read(body)
    assert (found.text, found.usage) == ("A", None)
