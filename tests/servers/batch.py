"""A loopback server that speaks two batch interfaces, OpenAI's and Anthropic's, and their ordinary calls.

It runs in threads of the test's own process, so a test scripts it by its attributes and looks at what it saw. ``paid``
counts, for each ``custom_id``, how often a batch was made that answers it; the longer answer of a pair wins.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

KEY = "sk-planted-key-0123456789"
_ANSWER = re.compile(r"=== ANSWER (\w) \w+ ===\n(.*?)\n=== END", re.DOTALL)


class BatchServer:
    """State and script.

    ``polls``: looks at a batch before it ends. ``fate(key, number)``: what becomes of a request in the number-th batch:
    ``ok``, ``prose``, ``500``, ``400``, ``seed``, ``expired``, ``missing``, ``twice``, ``malformed``, ``filtered``.
    ``state(number)``: how a batch ends. ``submissions``: what the next submissions do: ``ok``, ``500-made`` (made, and
    answered with 500), ``500-lost``, ``429``, ``400``. ``looks``: HTTP statuses of the next looks. ``cuts``: how many
    downloads break in the middle.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.counts: list[int] = []
        self.live = 0
        self.seen: list[str] = []
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, Any]] = []
        self.polls = 1
        self.fate: Callable[[str, int], str] = lambda _key, _number: "ok"
        self.state: Callable[[int], str] = lambda _number: "completed"
        self.submissions: list[str] = []
        self.looks: list[int] = []
        self.cuts = 0
        self.page = 100
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"book": self}))
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def make(self, requests: list[tuple[str, dict[str, Any]]], shape: str, metadata: Any) -> dict[str, Any]:
        """Make a batch: what every request comes to is decided, and paid for, now."""
        number = len(self.batches)
        name = f"{'batch' if shape == 'openai' else 'msgbatch'}_{number}"
        rows = [(key, body, self.fate(key, number)) for key, body in requests]
        self.paid.update(key for key, _, fate in rows if fate in ("ok", "prose", "twice", "missing", "malformed"))
        self.counts.append(len(rows))
        batch = {"id": name, "shape": shape, "rows": rows, "looks": 0, "metadata": metadata, "number": number}
        self.bodies += [body for _, body in requests]
        self.batches[name] = batch
        return batch

    def status(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as its provider shows it."""
        over = batch["looks"] > self.polls or batch.get("cancelled")
        rows, state = batch["rows"], self.state(batch["number"])
        good = sum(fate in ("ok", "prose", "twice", "malformed") for _, _, fate in rows)
        if batch["shape"] == "openai":
            shown: dict[str, Any] = {
                "id": batch["id"], "object": "batch", "endpoint": "/v1/chat/completions", "created_at": 4_000_000_000,
                "metadata": batch["metadata"], "status": state if over else "in_progress",
                "request_counts": {"total": len(rows), "completed": good if over else 0, "failed": 0},
            }  # fmt: skip
            if over and state == "failed":
                error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
                shown["errors"] = {"object": "list", "data": [error]}
            elif over:
                shown |= {"output_file_id": f"out-{batch['id']}", "error_file_id": f"err-{batch['id']}"}
            return shown
        expired = sum(fate == "expired" for _, _, fate in rows)
        cancelled = len(rows) if state == "cancelled" else 0
        errored = len(rows) - good - expired - cancelled
        ended = {"processing": 0, "succeeded": good, "errored": errored, "canceled": cancelled, "expired": expired}
        going = {"processing": len(rows), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        return {
            "id": batch["id"], "type": "message_batch", "created_at": "2096-10-02T07:06:40+00:00",
            "processing_status": "ended" if over else "in_progress", "request_counts": ended if over else going,
            "cancel_initiated_at": "2096-10-02T07:06:40+00:00" if cancelled else None,
            "results_url": "http://127.0.0.1:1/stolen",
        }  # fmt: skip

    def results(self, batch: dict[str, Any], kind: str) -> bytes:
        """The lines of a results file, last request first."""
        lines = []
        for number, (key, body, given) in enumerate(reversed(batch["rows"])):
            fate = "cancelled" if self.state(batch["number"]) == "cancelled" and number % 2 else given
            if fate == "missing":
                continue
            bad = fate in ("expired", "cancelled", "500")
            if batch["shape"] == "openai" and bad != (kind == "err"):
                continue
            line = _openai_line(key, body, fate) if batch["shape"] == "openai" else _anthropic_line(key, body, fate)
            lines += [line] * (2 if fate == "twice" else 1)
        if kind != "err":
            lines.append({"custom_id": "nobody-asked-for-this", "response": None, "result": {"type": "expired"}})
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"not json\n\n"


def verdict(messages: list[dict[str, str]]) -> str:
    """The label of the longer answer; a question that shows no answers is answered by its first label."""
    asked = "\n".join(turn["content"] for turn in messages if turn["role"] == "user")
    labels = asked[asked.rfind("exactly one of: ") + 16 :].split(".")[0].split(", ")
    answers = _ANSWER.findall(asked)
    if len(answers) != 2 or len(answers[0][1]) == len(answers[1][1]):
        return labels[2] if answers else labels[0]
    return max(answers, key=lambda found: len(found[1]))[0]


def completion(body: dict[str, Any], *, prose: bool = False) -> dict[str, Any]:
    text = "Well, that depends." if prose else verdict(body["messages"])
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if body.get("logprobs") and not prose:
        top = [{"token": text, "logprob": -0.105361}, {"token": "~", "logprob": -2.4}]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.105361, "top_logprobs": top}]}
    usage = {"prompt_tokens": 1000, "completion_tokens": 10}
    return {"id": "c", "model": body["model"], "choices": [choice], "usage": usage}


def message(body: dict[str, Any], *, prose: bool = False) -> dict[str, Any]:
    text = "Well, that depends." if prose else verdict(body["messages"])
    usage = {"input_tokens": 600, "cache_read_input_tokens": 400, "output_tokens": 10}
    content = [{"type": "text", "text": text}]
    return {
        "id": "m", "type": "message", "model": body["model"], "content": content, "stop_reason": "end_turn",
        "usage": usage,
    }  # fmt: skip


def _openai_line(key: str, body: dict[str, Any], fate: str) -> dict[str, Any]:
    line: dict[str, Any] = {"id": "r", "custom_id": key, "response": None, "error": None}
    if fate in ("expired", "cancelled"):
        return line | {"error": {"code": f"batch_{fate}", "message": "This request could not be executed."}}
    known = {
        "500": (500, {"error": {"message": "server had an error"}}), "malformed": (200, {"choices": "none"}),
        "400": (400, {"error": {"message": "no such thing", "type": "invalid_request_error"}}),
        "seed": (400, {"error": {"message": "Unsupported parameter: seed", "param": "seed"}}),
        "filtered": (400, {"error": {"code": "content_filter", "message": "filtered"}}),
    }  # fmt: skip
    if fate == "seed" and "seed" not in body:
        fate = "ok"
    code, answer = known.get(fate) or (200, completion(body, prose=fate == "prose"))
    return line | {"response": {"status_code": code, "request_id": "q", "body": answer}}


def _anthropic_line(key: str, body: dict[str, Any], fate: str) -> dict[str, Any]:
    if fate in ("expired", "cancelled"):
        return {"custom_id": key, "result": {"type": "expired" if fate == "expired" else "canceled"}}
    kinds = {"500": "api_error", "400": "invalid_request_error", "filtered": "invalid_request_error"}
    if fate in kinds:
        told = {"type": kinds[fate], "message": "flagged by content_filter" if fate == "filtered" else "no"}
        return {"custom_id": key, "result": {"type": "errored", "error": {"type": "error", "error": told}}}
    answer = {"content": "none"} if fate == "malformed" else message(body, prose=fate == "prose")
    return {"custom_id": key, "result": {"type": "succeeded", "message": answer}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    book: BatchServer

    def log_message(self, *_told: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        book, (path, _, query) = self.book, self.path.partition("?")
        with book.lock:
            book.keys.add(self.headers.get("Authorization") or self.headers.get("x-api-key"))
            book.seen.append(f"GET {path}")
            if path in ("/v1/batches", "/v1/messages/batches"):
                self.list(path, dict(parse_qsl(query)))
            elif path.endswith(("/content", "/results")):
                self.results(path)
            else:
                self.look(path)

    def list(self, path: str, query: dict[str, str]) -> None:
        book, shape = self.book, "anthropic" if "messages" in path else "openai"
        found = [batch for batch in reversed(book.batches.values()) if batch["shape"] == shape]
        after = query.get("after") or query.get("after_id")
        names = [batch["id"] for batch in found]
        begin = names.index(after) + 1 if after else 0
        page = found[begin : begin + book.page]
        for batch in page:
            batch["looks"] += 1
        more = begin + book.page < len(found)
        data = [book.status(batch) for batch in page]
        self.answer(200, {"data": data, "has_more": more, "last_id": page[-1]["id"] if page else None})

    def look(self, path: str) -> None:
        book = self.book
        if book.looks:
            status = book.looks.pop(0)
            if status != 200:
                self.answer(status, {"error": {"message": f"for now; you sent {self.headers.get('Authorization')}"}})
                return
        batch = book.batches.get(path.rsplit("/", 1)[-1])
        if batch is None:
            self.answer(404, {"error": {"message": "no such batch"}})
            return
        batch["looks"] += 1
        self.answer(200, book.status(batch))

    def results(self, path: str) -> None:
        book, (name, kind) = self.book, (path.split("/")[-2], "results")
        if path.endswith("/content"):
            kind, _, name = name.partition("-")
        data = book.results(book.batches[name], kind)
        if book.cuts and kind != "err":
            book.cuts -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.answer(200, None, data)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        book, path = self.book, self.path
        with book.lock:
            book.keys.add(self.headers.get("Authorization") or self.headers.get("x-api-key"))
            book.seen.append(f"POST {path}")
            if path == "/v1/files":
                name = f"file-{len(book.files)}"
                book.files[name] = raw.split(b"\r\n\r\n")[-1].rsplit(b"\r\n--", 1)[0]
                assert b'name="purpose"\r\n' in raw and b"\r\n\r\nbatch\r\n" in raw
                self.answer(200, {"id": name})
            elif path == "/v1/batches":
                asked = json.loads(raw)
                lines = [json.loads(line) for line in book.files[asked["input_file_id"]].splitlines()]
                assert {line["url"] for line in lines} == {asked["endpoint"]} == {"/v1/chat/completions"}
                rows = [(line["custom_id"], line["body"]) for line in lines]
                self.submit(rows, "openai", asked["metadata"])
            elif path == "/v1/messages/batches":
                rows = [(entry["custom_id"], entry["params"]) for entry in json.loads(raw)["requests"]]
                self.submit(rows, "anthropic", None)
            elif path.endswith("/cancel"):
                batch = book.batches[path.split("/")[-2]]
                batch["cancelled"] = True
                self.answer(200, book.status(batch))
            else:
                book.live += 1
                body = json.loads(raw)
                self.answer(200, message(body) if path == "/v1/messages" else completion(body))

    def submit(self, rows: list[tuple[str, dict[str, Any]]], shape: str, metadata: Any) -> None:
        book = self.book
        fault = book.submissions.pop(0) if book.submissions else "ok"
        assert len({key for key, _ in rows}) == len(rows)
        if fault in ("ok", "500-made"):
            batch = book.make(rows, shape, metadata)
        if fault == "ok":
            self.answer(200, book.status(batch))
        else:
            self.answer(int(fault[:3]), {"error": {"message": f"no: {self.headers.get('Authorization')}"}})

    def answer(self, status: int, value: Any, data: bytes | None = None) -> None:
        data = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
