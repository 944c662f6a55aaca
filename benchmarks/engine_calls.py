"""The engine over HTTP on loopback: CPU per call against raw aiohttp, wall time against the ideal, memory per call.

    python benchmarks/engine_calls.py              # all tables, about three minutes
    python benchmarks/engine_calls.py --quick      # smaller
    python benchmarks/engine_calls.py --only cpu   # one of cpu, wall, memory, durability, cached
    python benchmarks/engine_calls.py --only memory --calls 100000

A server in a process of its own answers chat completions after a fixed latency and counts what is in flight. Three arms
run in turn on the same prompts:

* ``aiohttp``: a pool of workers posts the rendered prompts and reads the verdicts, nothing else;
* ``engine``: the whole path (plan, journal with fsync, call, read, settle) around that same call;
* ``openai``: the whole path with the shipped remote judge.

``cpu`` is the client's CPU milliseconds per call at no latency (median of the turns), ``wall/ideal`` the wall time at
100 ms latency over calls * latency / concurrency. ``sleep`` is the engine around ``asyncio.sleep``: no sockets at all.
``durability`` compares the engine with its journal on disk, with a journal that writes nothing, and with none.
``cached`` runs ``judge run`` twice over the same set: the second must ask nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from judge import protocol
from judge.backends import Backend, open_backend
from judge.engine import Job, judge_pairs, seldom_collecting
from judge.environment import Environment
from judge.journal import Journal
from judge.testing import sample_rubric
from judge.types import Answer, Ask, Item, JudgeId, Pair, Reply, Usage

PROMPT = "Explain in two sentences why the sky is blue, for a child of eight. " * 3
ANSWER = "Sunlight holds all colours, and the air scatters the blue ones most, so blue reaches us from everywhere. " * 6
LEVELS = (32, 128, 512)

SERVER = r"""
import asyncio, sys, json
delay = 0.0; flying = most = calls = conns = 0
def answer(label):
    body = json.dumps({"id": "x", "model": "m", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": label}, "logprobs": {"content": [{"token": label, "logprob": -0.1,
        "top_logprobs": [{"token": label, "logprob": -0.1}]}]}}],
        "usage": {"prompt_tokens": 600, "completion_tokens": 1, "total_tokens": 601}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
class Chat(asyncio.Protocol):
    def connection_made(self, transport):
        global conns
        conns += 1; self.transport, self.data = transport, b""
    def data_received(self, data):
        global delay, flying, most, calls, conns
        self.data += data
        head, sep, body = self.data.partition(b"\r\n\r\n")
        if not sep: return
        size = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:": size = int(line[15:])
        if len(body) < size: return
        self.data = b""
        if head.startswith(b"GET /latency/"):
            delay = float(head.split(b"/")[2].split()[0]); conns = most = calls = 0
            return self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if head.startswith(b"GET /counts"):
            text = json.dumps({"most": most, "calls": calls, "connections": conns}).encode()
            return self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        flying += 1; calls += 1; most = max(most, flying)
        at = body.rfind(b"exactly one of: ") + 16
        reply = answer(body[at:at + 1].decode())
        if delay: asyncio.get_running_loop().call_later(delay, self.send, reply)
        else: self.send(reply)
    def send(self, reply):
        global flying
        flying -= 1
        if not self.transport.is_closing(): self.transport.write(reply)
async def main():
    server = await asyncio.get_running_loop().create_server(Chat, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def pairs(count: int) -> Iterator[Pair]:
    for number in range(count):
        item = Item(f"{PROMPT} ({number})", category=f"c{number % 8}")
        yield Pair(f"p{number}", item, Answer(f"{ANSWER}{number}"), Answer(f"{number} {ANSWER}"))


def body_of(ask: Ask) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "system", "content": ask.system}, {"role": "user", "content": ask.user}],
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 20,
    }


async def post(session: Any, url: str, body: Any) -> str:
    async with session.post(f"{url}/chat/completions", json=body) as response:
        value = await response.json(content_type=None)
    text = value["choices"][0]["message"]["content"]
    assert isinstance(text, str) and len(text) == 1
    return text


def session_for(concurrency: int) -> Any:
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))


class Raw:
    """The raw call as a judge."""

    def __init__(self, url: str, concurrency: int) -> None:
        self.id, self.batch, self.concurrency, self.notice, self.url = JudgeId("raw"), 1, concurrency, "", url
        self.session: Any = None

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Post each ask."""
        if self.session is None:
            self.session = session_for(self.concurrency)
        return [Reply(await post(self.session, self.url, body_of(ask)), usage=Usage(600, 1, 0.0)) for ask in asks]

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()


class Sleeping:
    """A judge that answers after a while, without a socket."""

    def __init__(self, concurrency: int, latency: float) -> None:
        self.id, self.batch, self.concurrency, self.notice = JudgeId("sleep"), 1, concurrency, ""
        self.latency, self.flying, self.most = latency, 0, 0

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Wait, then name the first place."""
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(self.latency)
        self.flying -= 1
        return [Reply(ask.labels.first, usage=Usage(600, 1, 0.0)) for ask in asks]

    async def close(self) -> None:
        """Nothing to release."""


class Nowhere(Journal):
    """A journal that encodes every record and writes none."""

    def _write(self, data: bytes) -> None:
        self._syncer.wrote = lambda: None  # type: ignore[method-assign]


async def through_engine(count: int, backend: Backend, folder: str, kind: type[Journal] | None = Journal) -> None:
    rubric = sample_rubric()
    path = Path(folder) / f"{time.monotonic_ns()}.jsonl"
    if kind is None:
        async for _ in judge_pairs(pairs(count), Job(rubric, backend)):
            pass
        return
    with kind(path, create=True) as journal:
        journal.append("run", {"run_id": path.stem})
        settled = 0
        async for entry in judge_pairs(pairs(count), Job(rubric, backend), journal=journal):
            assert entry.comparison.invalid is None, entry.replies
            settled += 1
        journal.append("seal", {})
        journal.sync()
    assert settled == count
    path.unlink()


async def arm(name: str, count: int, url: str, concurrency: int, latency: float, folder: str) -> tuple[float, float]:
    """CPU seconds and wall seconds of one arm; rendering the prompts is left out of the raw arm's."""
    if name == "aiohttp":
        asks = iter([ask for pair in pairs(count) for ask in protocol.plan(pair, sample_rubric(), JudgeId("raw"))])
        async with session_for(concurrency) as session:

            async def worker() -> None:
                for ask in asks:
                    await post(session, url, body_of(ask))

            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.gather(*(worker() for _ in range(concurrency)))
            return time.process_time() - cpu, time.monotonic() - wall
    if name == "sleep":
        backend: Any = Sleeping(concurrency, latency)
    elif name == "engine":
        backend = Raw(url, concurrency)
    else:
        backend = open_backend(
            f"openai:m?base_url={url}&concurrency={concurrency}", Environment(Path(folder), Path(folder))
        )
    await through_engine(8, backend, folder)  # imports, the rubric and first connections are start-up, not calls
    cpu, wall = time.process_time(), time.monotonic()
    try:
        await through_engine(count, backend, folder)
    finally:
        await backend.close()
    if name == "sleep":
        assert backend.most <= concurrency
    return time.process_time() - cpu, time.monotonic() - wall


async def control(url: str, path: str) -> bytes:
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(url.removesuffix("/v1") + path) as response:
        return await response.read()


def child(options: argparse.Namespace) -> None:
    # Every arm with the collector as `judge run` sets it: the bare call gains by it, too.
    with tempfile.TemporaryDirectory() as folder, seldom_collecting():
        cpu, wall = asyncio.run(
            arm(options.arm, options.pairs, options.url, options.concurrency, options.latency, folder)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"cpu": cpu, "wall": wall, "kb": peak}))


def measure(name: str, count: int, url: str, concurrency: int, latency: float) -> dict[str, float]:
    if url:
        asyncio.run(control(url, f"/latency/{latency}"))
    command = [sys.executable, __file__, "--arm", name, "--pairs", str(count), "--url", url]
    command += ["--concurrency", str(concurrency), "--latency", str(latency)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    row = json.loads(out.stdout)
    if name != "sleep":
        counts = json.loads(asyncio.run(control(url, "/counts")))
        assert counts["most"] <= concurrency, counts
        assert counts["connections"] <= concurrency + 2, counts  # two are these control calls
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--calls", type=int, default=0, help="memory: up to how many calls (100000)")
    parser.add_argument("--arm")
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--url", default="")
    parser.add_argument("--concurrency", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    if options.arm:
        child(options)
        return
    turns, count = (1, 500) if options.quick else (3, 1_500)
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        tables = {
            "cpu": lambda: cpu_table(url, turns, count),
            "wall": lambda: wall_table(url, turns, count),
            "memory": lambda: memory_table((500, (options.calls or (10_000 if options.quick else 100_000)) // 2)),
            "durability": lambda: asyncio.run(durability_table(url, turns, count)),
            "cached": lambda: cached_table(5_000 if options.quick else 50_000),
        }
        for name, table in tables.items():
            if options.only in (None, name):
                table()
    finally:
        server.terminate()
        server.wait()


ARMS = ("aiohttp", "engine", "openai", "sleep")


def cpu_table(url: str, turns: int, count: int) -> None:
    print(f"CPU ms per call, no latency, {2 * count} calls, median of {turns}")
    print(f"{'':>10}" + "".join(f"{f'c={level}':>9}" for level in LEVELS) + f"{'512/32':>9}{'/aiohttp at 128':>17}")
    cpu: dict[str, list[float]] = {}
    for _turn in range(turns):
        for level in LEVELS:
            for name in ARMS:
                cost = measure(name, count, url, level, 0.0)["cpu"]
                cpu.setdefault(f"{name} {level}", []).append(1000 * cost / (2 * count))
    for name in ARMS:
        row = [statistics.median(cpu[f"{name} {level}"]) for level in LEVELS]
        ratio = row[1] / statistics.median(cpu["aiohttp 128"])
        print(f"{name:>10}" + "".join(f"{value:9.3f}" for value in row) + f"{row[2] / row[0]:8.2f}x{ratio:16.2f}x")


def wall_table(url: str, turns: int, count: int) -> None:
    print(f"wall / ideal at 100 ms, {2 * count} calls at c=32, {4 * count} at c=128 and 512, best of {turns}")
    print(f"{'':>10}" + "".join(f"{f'c={level}':>9}" for level in LEVELS) + "   (goals 1.08, 1.25, 2.5)", flush=True)
    for name in ARMS:
        row = []
        for level in LEVELS:
            calls = 2 * count if level == 32 else 4 * count
            walls = [measure(name, calls // 2, url, level, 0.1)["wall"] for _ in range(turns)]
            row.append(min(walls) / (calls * 0.1 / level))
        print(f"{name:>10}" + "".join(f"{value:9.2f}" for value in row), flush=True)


def memory_table(sizes: tuple[int, int]) -> None:
    small, large = (measure("sleep", size, "", 128, 0.0)["kb"] for size in sizes)
    growth = (large - small) / (2 * (sizes[1] - sizes[0]))
    print(
        f"memory: {small / 1024:.0f} MB at {2 * sizes[0]} calls, {large / 1024:.0f} MB at {2 * sizes[1]}: "
        f"{growth:.3f} kB per call"
    )


async def durability_table(url: str, turns: int, count: int) -> None:
    """All three in one process, in turn and in a random order, so that only the journal differs: many short turns, and
    the median of what differs within each, since the machine changes from one second to the next.
    """
    kinds: dict[str, type[Journal] | None] = {"none": None, "nowhere": Nowhere, "disk": Journal}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    backend = Raw(url, 128)
    with tempfile.TemporaryDirectory() as folder, seldom_collecting():
        await through_engine(8, backend, folder)
        for _ in range(12 + 8 * turns):
            for name in random.sample(sorted(kinds), len(kinds)):
                cpu = time.process_time()
                await through_engine(count // 2, backend, folder, kinds[name])
                found[name].append(1000 * (time.process_time() - cpu) / (2 * (count // 2)))
    await backend.close()
    none, nowhere, disk = (statistics.median(values) for values in found.values())
    written, whole = (
        statistics.median(a - b for a, b in zip(found["disk"], found[other], strict=True)) / disk
        for other in ("nowhere", "none")
    )
    print(
        f"durability at c=128, CPU ms per call: {none:.3f} without a journal, {nowhere:.3f} encoded, {disk:.3f} on "
        f"disk; median difference within {len(found['disk'])} turns: writing and syncing {written:.1%}, the whole "
        f"journal {whole:.1%}"
    )


def cached_table(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [
            {
                "id": pair.id,
                "prompt": pair.item.prompt,
                "candidate": pair.candidate.text,
                "baseline": pair.baseline.text,
            }
            for pair in pairs(count)
        ]
        (folder / "e.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        command = [
            sys.executable,
            "-c",
            "from judge.cli import main; main()",
            "run",
            "e.jsonl",
            "-j",
            "scripted:longer",
        ]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        for turn in ("first run", "second run"):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.monotonic()
            done = subprocess.run([*command, "--json"], cwd=folder, env=env, capture_output=True, text=True, check=True)
            wall = time.monotonic() - began
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rate = 2 * float(done.stderr.split("judged ")[-1].split("/s")[0].split()[-1])
            report = json.loads(done.stdout)
            print(
                f"{turn} of {2 * count} verdicts: {report['cached']} cached, {rate:,.0f} verdicts/s while judging, "
                f"{wall:.1f} s and {cpu:.1f} CPU-s for the whole command"
            )
        assert report["cached"] == 2 * count


if __name__ == "__main__":
    main()
