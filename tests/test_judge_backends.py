"""Judge strings, the recorded judge and the OpenAI-compatible judge on a real loopback server."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest

from judge import protocol
from judge.backends import Backend, open_backend
from judge.backends.remote import label_probs
from judge.environment import Environment
from judge.errors import BackendError, BackendUnavailable, InputError
from judge.testing import ScriptedBackend, prefer_longer, sample_pair, sample_rubric
from judge.types import Ask, InvalidReason, Labels, Outcome, Reply

ENV = Environment(home=Path("unused"), cache=Path(tempfile.mkdtemp()), api_key="sk-planted-secret")


def asks_for(backend: Backend) -> tuple[Ask, ...]:
    return protocol.plan(sample_pair(), sample_rubric(), backend.id)


def answers(backend: Backend) -> list[Reply]:
    async def work() -> list[Reply]:
        try:
            return await backend.ask(asks_for(backend))
        finally:
            await backend.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lokal", "did you mean 'local'"),
        ("nothing-like-it", "known: local, hf"),
        ("scripted:none", "unknown script"),
        ("scripted?speed=9", "unknown option 'speed'"),
        ("openai", "name the model"),
        ("openai:m?concurrency=many", "not a whole number"),
        ("openai:m?timeout=soon", "not a number"),
        ("openai:m?api_key=secret", "unknown option 'api_key'"),
        ("openai:m?base_url=ftp://x", "is not a URL"),
        ("openai:m?base_url=http://", "is not a URL"),
        ("openai:m?base_url=http://x:99999", "is not a URL"),
        ("recorded:missing.jsonl", "no such file"),
    ],
)
def test_a_judge_string_that_names_no_judge_is_one_clear_error(spec: str, message: str) -> None:
    """The error says what is wrong with the judge string and what there is."""
    with pytest.raises(InputError, match=message):
        open_backend(spec, ENV)


def test_options_reach_the_judge() -> None:
    """Options after the question mark are typed and handed on."""
    backend = open_backend("openai:m?concurrency=3&base_url=http://127.0.0.1:9/v1", ENV)
    assert (backend.concurrency, backend.id.name) == (3, "openai/m")


def test_scripted_judges_satisfy_the_interface() -> None:
    """The public scripted judge is a Backend and answers by its function."""
    backend = ScriptedBackend(prefer_longer)
    assert isinstance(backend, Backend)
    assert [reply.probs for reply in answers(backend)] == [
        (pytest.approx(7 / 13), 0.0, pytest.approx(6 / 13)),
        (pytest.approx(6 / 13), 0.0, pytest.approx(7 / 13)),
    ]


def recorded(path: Path, *rows: dict[str, Any]) -> str:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return f"recorded:{path}"


def verdict(order: str, said: str | None, **more: Any) -> dict[str, Any]:
    return {"id": "pair-1", "judge": "j", "order": order, "verdict": said, "prob_a": None, "raw": "why", **more}


def test_recorded_verdicts_are_turned_to_their_place(tmp_path: Path) -> None:
    """A verdict in terms of the unswapped pair becomes the place it had in the prompt, and comes back as the same
    outcome.
    """
    backend = open_backend(recorded(tmp_path / "v.jsonl", verdict("ab", "A"), verdict("ba", "A")), ENV)
    given = answers(backend)
    assert [reply.probs for reply in given] == [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)]
    outcomes = [protocol.read(ask, reply).outcome for ask, reply in zip(asks_for(backend), given, strict=True)]
    assert outcomes == [Outcome.WIN, Outcome.WIN]


def test_recorded_probabilities_and_gaps_are_kept(tmp_path: Path) -> None:
    """prob_a is used where present; null verdicts are unparsed; absent rows are missing."""
    backend = open_backend(recorded(tmp_path / "v.jsonl", verdict("ab", "B", prob_a=0.25)), ENV)
    first, second = answers(backend)
    assert first.probs == (0.25, 0.0, 0.75)
    assert protocol.read(asks_for(backend)[1], second).invalid is InvalidReason.MISSING
    unread = open_backend(recorded(tmp_path / "w.jsonl", verdict("ab", None), verdict("ba", "tie")), ENV)
    assert [
        protocol.read(ask, reply).invalid for ask, reply in zip(asks_for(unread), answers(unread), strict=True)
    ] == [InvalidReason.UNPARSED, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [verdict("ab", "A"), verdict("ab", "A", judge="k")],
            r"holds 2 judges; choose one with \?judge=NAME; there are j, k",
        ),
        ([verdict("ab", "A"), verdict("ab", "B")], "a second, different verdict"),
        ([verdict("xy", "A")], "v.jsonl:1: a recorded verdict needs"),
        ([verdict("ab", "C")], "verdict 'C'; use A, B, tie or null"),
        ([verdict("ab", "A", repeat="x")], "repeat is 'x'"),
        ([verdict("ab", "A", prob_a="x")], "prob_a is 'x'"),
        ([verdict("ab", ["A"])], "use A, B, tie or null"),  # type: ignore[arg-type]
    ],
)
def test_recorded_files_that_cannot_be_replayed_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    """Several judges, contradictions and malformed rows are named with their line."""
    with pytest.raises(InputError, match=message):
        open_backend(recorded(tmp_path / "v.jsonl", *rows), ENV)


LABELS = Labels("K", "R", "TIE")


@pytest.mark.parametrize(
    ("top", "wanted"),
    [
        ([("K", 0.5), (" k", 0.1), ("R", 0.2), ("T", 0.1), ("TI", 0.1)], (0.6, 0.2, 0.2)),
        ([("K", 0.3), ("The", 0.7)], None),
        ([], None),
        ([("R", 1.0)], (0.0, 0.0, 1.0)),
    ],
)
def test_label_probabilities_are_read_from_the_first_token(
    top: list[tuple[str, float]], wanted: tuple[float, ...] | None
) -> None:
    """Spellings of a label add up, the rest is normalised away, and too little mass is no distribution."""
    import math

    entries = [{"token": token, "logprob": math.log(p)} for token, p in top]
    found = label_probs(entries, LABELS)
    assert (found is None) if wanted is None else (found is not None and found[0] == pytest.approx(wanted))


class _Server(BaseHTTPRequestHandler):
    """Answers chat completions by the script of the test: a list of (status, headers, body) taken in turn, the last
    one for ever.
    """

    script: ClassVar[list[tuple[int, dict[str, str], Any]]] = []
    seen: ClassVar[list[dict[str, Any]]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.seen.append({"path": self.path, "auth": self.headers.get("Authorization"), **body})
            status, headers, answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(answer):
            answer = answer(body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[type[_Server]]:
    _Server.script, _Server.seen = [], []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    _Server.url = f"http://127.0.0.1:{httpd.server_port}/v1"  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield _Server
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def chat(label_place: str = "first", *, logprobs: bool = True, **choice: Any) -> Any:
    """A completion that names the label of a place, as the request's own prompt spells it."""

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        first, second, tie = body["messages"][1]["content"].rsplit("exactly one of: ", 1)[1].rstrip(".").split(", ")
        label = {"first": first, "second": second, "tie": tie}[label_place]
        top = [
            {"token": label, "logprob": -0.105361},
            {"token": second if label != second else first, "logprob": -2.302585},
        ]
        content = [{"token": label, "logprob": -0.105361, "top_logprobs": top}]
        made = {
            "message": {"content": label},
            "finish_reason": "stop",
            "logprobs": {"content": content} if logprobs else None,
            **choice,
        }
        return {
            "model": "served",
            "system_fingerprint": "fp1",
            "choices": [made],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1},
        }

    return answer


def remote(server: type[_Server]) -> Backend:
    return open_backend(f"openai:m?base_url={server.url}", ENV)  # type: ignore[attr-defined]


def test_a_verdict_comes_from_label_probabilities(server: type[_Server]) -> None:
    """The reply carries P(first), usage, the served model and its fingerprint; both asks of a pair are sent."""
    server.script = [(200, {}, chat("first"))]
    replies = answers(remote(server))
    assert [reply.probs for reply in replies] == [(pytest.approx(0.9, abs=1e-5), 0.0, pytest.approx(0.1, abs=1e-5))] * 2
    assert (replies[0].model, replies[0].fingerprint, replies[0].usage.prompt_tokens, replies[0].flags) == (
        "served",
        "fp1",
        100,
        (),
    )
    assert [(seen["path"], seen["logprobs"], seen["temperature"]) for seen in server.seen] == [
        ("/v1/chat/completions", True, 0)
    ] * 2


def test_missing_log_probabilities_are_recorded_and_the_text_is_read(server: type[_Server]) -> None:
    """Asked for and not given is a flag; the strict parser reads the text instead."""
    server.script = [(200, {}, chat("second", logprobs=False))]
    backend = remote(server)
    replies = answers(backend)
    assert [(reply.probs, reply.flags) for reply in replies] == [(None, ("no_logprobs",))] * 2
    assert protocol.read(asks_for(backend)[0], replies[0]).outcome is Outcome.LOSS


@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_passing_fault_is_retried(server: type[_Server], status: int) -> None:
    """Rate limits and server errors are tried again, and the verdict counts once."""
    server.script = [(status, {"Retry-After": "0"}, {"error": "x"}), (200, {}, chat())]
    assert all(reply.probs for reply in answers(remote(server)))
    assert len(server.seen) == 3


@pytest.mark.parametrize(("status", "body"), [(500, {"error": "x"}), (200, b"<html>oops"), (400, {"error": "bad"})])
def test_a_lasting_fault_is_an_error_reply(server: type[_Server], status: int, body: Any) -> None:
    """After the retries the reply carries the error; the comparison is invalid, not lost."""
    server.script = [(status, {"Retry-After": "0"}, body)]
    backend = remote(server)
    replies = answers(backend)
    assert all(reply.error for reply in replies)
    assert protocol.read(asks_for(backend)[0], replies[0]).invalid is InvalidReason.ERROR


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"choices": []}, InvalidReason.EMPTY),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, InvalidReason.EMPTY),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, InvalidReason.LENGTH),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}, InvalidReason.CONTENT_FILTER),
        (
            {"choices": [{"message": {"refusal": "I'm sorry, I can't help."}, "finish_reason": "stop"}]},
            InvalidReason.REFUSAL,
        ),
        ({}, InvalidReason.ERROR),
        ({"error": "overloaded"}, InvalidReason.ERROR),
        ({"detail": "worker crashed"}, InvalidReason.ERROR),
        ({"error": None, "code": 503, "message": "busy"}, InvalidReason.ERROR),
    ],
)
def test_odd_completions_are_invalid_with_their_reason(server: type[_Server], body: Any, reason: InvalidReason) -> None:
    """Empty, cut, filtered and refused replies are not votes."""
    server.script = [(200, {}, body)]
    backend = remote(server)
    assert {
        protocol.read(ask, reply).invalid for ask, reply in zip(asks_for(backend), answers(backend), strict=True)
    } == {reason}


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": "K"}, "logprobs": []}]},
        {"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": ["K"]}]}}]},
        {"choices": {}, "usage": []},
        {"usage": {"prompt_tokens": 10**30}},
        [],
        "text",
        None,
    ],
)
def test_a_body_of_another_shape_is_an_error_reply(server: type[_Server], body: Any) -> None:
    """A server that answers nonsense gives error replies, never a crash."""
    server.script = [(200, {}, body)]
    assert all(reply.error and "malformed" in reply.error for reply in answers(remote(server)))


def test_a_server_that_keeps_failing_stops_the_run(server: type[_Server]) -> None:
    """Ten calls that fail for good in a row mean the server is out: the run stops and can be resumed, it is not
    sealed.
    """
    server.script = [(400, {}, {"error": "bad"})]
    backend = remote(server)

    async def work() -> None:
        try:
            for _ in range(5):
                await backend.ask(asks_for(backend))
        finally:
            await backend.close()

    with pytest.raises(BackendError, match="10 calls failed in a row"):
        asyncio.run(work())


def test_a_wrong_key_stops_at_once(server: type[_Server]) -> None:
    """A refused key is no verdict and not retried; the message never shows the key."""
    server.script = [(401, {}, {"error": "no"})]
    with pytest.raises(BackendError, match="check the URL, the model name and OPENAI_API_KEY") as caught:
        answers(remote(server))
    assert "sk-planted-secret" not in str(caught.value)
    assert server.seen[0]["auth"] == "Bearer sk-planted-secret"


def test_no_server_is_unavailable() -> None:
    """A refused connection says so and asks whether the server runs."""
    with pytest.raises(BackendUnavailable, match="is the server running"):
        answers(open_backend("openai:m?base_url=http://127.0.0.1:9/v1", ENV))
