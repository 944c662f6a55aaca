"""A loopback server that speaks chat completions and misbehaves on demand, counting every call that would be paid for.

Run as a script it prints its port and serves until it is killed; ``launch()`` does that for a test and yields a
``Served``. What it does stands in the URL: ``http://127.0.0.1:PORT/NAME/FAULT,FAULT,.../v1``. Each request under that
path takes the next entry, the last one for ever; after ``each:`` every prompt has a turn of its own. ``NAME`` keeps the
counts of one test apart from another's: ``GET /NAME`` gives them as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

NOT_PAID = {
    "429", "429-seconds", "429-date", "429-ms", "quota", "400", "401", "404", "409", "toolong", "filtered", "503",
    "529", "redirect", "echo401", "echo500", "urlkey401", "urlkey500", "urlkey-redirect", "no-logprobs-400",
    "no-schema-400", "no-limit-400",
}  # fmt: skip
SILENT = {
    "no-logprobs", "no-schema", "prose", "conflict", "refusal", "refused", "length", "content-null", "content-empty",
}  # fmt: skip
STATUS = {
    "429": 429, "429-seconds": 429, "429-date": 429, "429-ms": 429, "quota": 429, "400": 400, "401": 401, "404": 404,
    "409": 409, "toolong": 400, "filtered": 400, "500": 500, "502": 502, "503": 503, "504": 504, "529": 529,
    "html": 502,
    "redirect": 307, "echo401": 401, "echo500": 500, "urlkey401": 401, "urlkey500": 500, "urlkey-redirect": 307,
    "no-logprobs-400": 400, "no-schema-400": 400, "no-limit-400": 400,
}  # fmt: skip
TEXTS = {
    "quota": '{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}',
    "toolong": '{"error": {"code": "context_length_exceeded", "message": "maximum context length is 8192 tokens"}}',
    "filtered": '{"error": {"code": "content_filter", "message": "filtered by the content management policy"}}',
    "html": "<html><body><h1>502 Bad Gateway</h1></body></html>",
    "no-logprobs-400": '{"error": {"message": "not supported with this model", "param": "logprobs"}}',
    "no-schema-400": '{"error": {"message": "response_format is not supported"}}',
    "no-limit-400": '{"error": {"message": "Unsupported parameter: max_tokens", "param": "max_tokens"}}',
}


@dataclass
class Book:
    """What one path prefix has seen."""

    requests: int = 0
    paid: int = 0
    flying: int = 0
    most: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self.turns: dict[str, int] = defaultdict(int)
        self.log: list[dict[str, Any]] = []
        self.peers: set[int] = set()


BOOKS: dict[str, Book] = defaultdict(Book)
LATENCY = 0.0


def completion(body: dict[str, Any], fault: str, number: int) -> dict[str, Any]:
    """A good completion, or one that is odd in the way of ``fault``; it names the label of the first answer."""
    asked = next(turn["content"] for turn in reversed(body["messages"]) if turn["role"] == "user")
    at = asked.rfind("exactly one of: ")
    first, second, tie = asked[at + 16 :].split(".")[0].split(", ") if at >= 0 else ("K", "R", "TIE")
    schema = "response_format" in body and fault != "no-schema"
    text = json.dumps({"verdict": first}) if schema else first
    text = {
        "prose": f"The better answer, I think, is the one called {first}, for many reasons",
        "conflict": f"{first} or {second}", "content-empty": "", "length": "", "filter": "",
        "refusal": "I'm sorry, I can't help with that.", "tie": tie, "second": second,
    }.get(fault, text)  # fmt: skip
    message: dict[str, Any] = {"role": "assistant", "content": None if fault == "content-null" else text}
    if fault == "refused":
        message = {"role": "assistant", "content": None, "refusal": "This is not something to compare."}
    if fault == "tools":
        message["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    finish = {"length": "length", "filter": "content_filter"}.get(fault, "stop")
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
    if body.get("logprobs") and fault not in SILENT:
        other = second if text != second else first
        top = [{"token": text, "logprob": -0.105361}, {"token": other, "logprob": -2.302585}]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.105361, "top_logprobs": top}]}
    made: dict[str, Any] = {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": body.get("model"),
        "choices": [] if fault == "choices-empty" else [choice],
        "system_fingerprint": f"fp{number}" if fault == "fingerprint" else "fp",
    }  # fmt: skip
    if fault != "no-usage":
        size = sum(len(str(turn["content"])) for turn in body["messages"])
        made["usage"] = {"prompt_tokens": size // 4, "completion_tokens": 1, "total_tokens": size // 4 + 1}
    return made


class Chat(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if len(body) < int(headers.get("content-length", 0)):
            return
        self.data = b""
        verb, path, _ = lines[0].split(" ")
        if verb == "GET":
            self.report(path)
        else:
            self.chat(path, headers, body)

    def report(self, path: str) -> None:
        global LATENCY  # noqa: PLW0603
        if path.startswith("/latency/"):
            LATENCY = float(path.split("/")[2])
        book = BOOKS[path.strip("/")]
        known = {
            "requests": book.requests,
            "paid": book.paid,
            "most": book.most,
            "connections": len(book.peers),
            "log": book.log,
        }
        self.send(200, orjson.dumps(known))

    def chat(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        _, name, script, *_ = path.split("/")
        book, body = BOOKS[name], orjson.loads(raw)
        faults = script.removeprefix("each:").split(",")
        turn = hashlib.md5(raw).hexdigest() if script.startswith("each:") else ""  # noqa: S324
        number = book.turns[turn]
        book.turns[turn] += 1
        fault = faults[min(number, len(faults) - 1)]
        book.requests += 1
        book.paid += fault not in NOT_PAID
        book.flying += 1
        book.most = max(book.most, book.flying)
        book.peers.add(id(self))
        if len(book.log) < 64:
            book.log.append({"path": path, "authorization": headers.get("authorization"), "body": body})
        if LATENCY:
            asyncio.get_running_loop().call_later(LATENCY, self.answer, book, fault, number, body, headers)
        else:
            self.answer(book, fault, number, body, headers)

    def answer(self, book: Book, fault: str, number: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        book.flying -= 1
        if fault == "hang":
            return
        if fault == "reset":
            self.transport.abort()
            return
        if fault in STATUS:
            extra = {
                "429-seconds": {"Retry-After": "7"}, "429-ms": {"retry-after-ms": "2500"},
                "429-date": {"Date": formatdate(17e8, usegmt=True), "Retry-After": formatdate(17e8 + 11, usegmt=True)},
                "redirect": {"Location": "http://localhost:1/stolen"},
            }.get(fault, {})  # fmt: skip
            text = TEXTS.get(fault, '{"error": {"message": "no"}}')
            if fault.startswith("echo"):
                text = json.dumps(
                    {"error": {"message": f"bad header Authorization: {headers.get('authorization')} " + "x" * 90}}
                )
            if fault.startswith("urlkey"):
                key = quote(headers.get("authorization", "").removeprefix("Bearer "), safe="")
                text = json.dumps({"error": {"message": f"POST https://other.example/v1?key={key} failed"}})
                extra = {"Location": f"https://other.example/v1?key={key}"}
            self.send(STATUS[fault], text.encode(), extra)
            return
        if fault == "html200":
            self.send(200, TEXTS["html"].encode())
            return
        if fault == "error200":
            self.send(200, b'{"error": {"code": 502, "message": "upstream is down"}}')
            return
        data = orjson.dumps(completion(body, fault, number))
        if fault == "echo-ok":
            data = data.replace(b'"fp"', orjson.dumps(f"fp {headers.get('authorization')}"))
        if fault == "truncated":
            data = data[: len(data) // 2]
        if fault == "array":
            data = b"[1, 2]"
        if fault == "reset-mid-body":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data[:40]))
            asyncio.get_running_loop().call_later(0.02, self.transport.abort)
        elif fault == "drip":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
            self.drip(data)
        else:
            self.send(200, data)

    def drip(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data[:1])
            asyncio.get_running_loop().call_later(0.05, self.drip, data[1:])

    def send(self, status: int, data: bytes, extra: dict[str, str] | None = None) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (extra or {}).items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{lines}\r\n"
        self.transport.write(head.encode() + data)


@dataclass
class Served:
    """A running server, seen from a test."""

    port: int

    def url(self, name: str, script: str = "ok") -> str:
        return f"http://127.0.0.1:{self.port}/{name}/{script}/v1"

    def book(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}") as answer:
            return json.load(answer)


@contextlib.contextmanager
def launch() -> Iterator[Served]:
    """Start the server in a process of its own and stop it at the end."""
    with subprocess.Popen([sys.executable, str(Path(__file__))], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield Served(int(child.stdout.readline()))
        finally:
            child.kill()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
