"""Remote judging against other HTTP clients: CPU per call, in one interleaved run against one loopback server.

    python benchmarks/remote.py            # c = 32, 128, 512; about five minutes on two cores
    python benchmarks/remote.py --quick    # c = 128 only, fewer calls

Each arm is a process of its own (imports and a warm-up are not counted) and sends the same judge prompts to the same
server, which is another process: tests/servers/chat.py.

* ``aiohttp``, ``httpx``, ``openai``, ``litellm``: one client, a pool of workers, body to JSON, answer to verdict;
  retries off;
* ``client``: our judge alone (``Backend.ask``: window, limits, retries, strict reading, label probabilities);
* ``engine``: the whole path (``judge_pairs`` with a journal: plan, render, hash, intent, call, read, settle).

Printed are CPU milliseconds per call (median of the turns), ratios to ``engine``, and how the cost grows from c = 32 to
512. A client that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests" / "servers")]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from judge import protocol  # noqa: E402
from judge.backends import open_backend  # noqa: E402
from judge.backends.completions import Form, ask_body  # noqa: E402
from judge.engine import Job, judge_pairs  # noqa: E402
from judge.environment import Environment  # noqa: E402
from judge.journal import Journal  # noqa: E402
from judge.testing import sample_rubric  # noqa: E402
from judge.types import Answer, Ask, Item, JudgeId, Pair  # noqa: E402

PROMPT = "Explain in two sentences why the sky is blue, for a child of eight. " * 3
ANSWER = "Sunlight holds all colours, and the air scatters the blue ones most, so blue reaches us from everywhere. " * 6
ARMS = {
    "aiohttp": "aiohttp",
    "client": "aiohttp",
    "engine": "aiohttp",
    "httpx": "httpx",
    "openai": "openai",
    "litellm": "litellm",
}

Call = Callable[[dict[str, Any]], Awaitable[str]]


def pairs(count: int) -> Iterator[Pair]:
    for number in range(count):
        item = Item(f"{PROMPT} ({number})", category=f"c{number % 8}")
        yield Pair(f"p{number}", item, Answer(f"{ANSWER}{number}"), Answer(f"{number} {ANSWER}"))


def asks(count: int) -> list[Ask]:
    return [ask for pair in pairs(count) for ask in protocol.plan(pair, sample_rubric(), JudgeId("bench"))]


async def raw(name: str, url: str, concurrency: int) -> tuple[Call, Callable[[], Awaitable[Any]]]:
    """One call of a client, and how to close it."""
    if name == "aiohttp":
        import aiohttp

        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))

        async def call(body: dict[str, Any]) -> str:
            async with session.post(f"{url}/chat/completions", json=body) as response:
                return (await response.json())["choices"][0]["message"]["content"]

        return call, session.close
    if name == "httpx":
        import httpx

        client = httpx.AsyncClient(limits=httpx.Limits(max_connections=concurrency), timeout=60)

        async def call(body: dict[str, Any]) -> str:
            response = await client.post(f"{url}/chat/completions", json=body)
            return response.json()["choices"][0]["message"]["content"]

        return call, client.aclose
    if name == "openai":
        import openai

        sdk = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)

        async def call(body: dict[str, Any]) -> str:
            return (await sdk.chat.completions.create(**body)).choices[0].message.content

        return call, sdk.close
    import litellm

    async def call(body: dict[str, Any]) -> str:
        body = {**body, "model": "openai/m"}
        answer = await litellm.acompletion(
            **body, api_base=url, api_key="none", num_retries=0, max_retries=0, timeout=60
        )
        return answer.choices[0].message.content

    return call, litellm.close_litellm_async_clients


async def one(name: str, url: str, concurrency: int, count: int) -> float:
    """CPU seconds of one arm for ``count`` pairs, two calls each."""
    env = Environment(Path("unused"), Path("unused"))
    if name in ("client", "engine"):
        backend = open_backend(f"openai:m?base_url={url}&concurrency={concurrency}&mode=logprobs", env)
        close: Callable[[], Awaitable[Any]] = backend.close

        async def run(number: int) -> None:
            if name == "engine":
                await through_engine(number, backend)
                return

            async def ours(ask: Ask) -> bool:
                return (await backend.ask([ask]))[0].probs is not None

            await pool(asks(number), ours)
    else:
        call, close = await raw(name, url, concurrency)

        async def run(number: int) -> None:
            async def theirs(ask: Ask) -> bool:
                text = await call(ask_body("m", Form(), ask))
                return text in (ask.labels.first, ask.labels.second, ask.labels.tie)

            await pool(asks(number), theirs)

    spent = 0.0

    async def pool(todo: list[Ask], judge: Callable[[Ask], Awaitable[bool]]) -> None:
        nonlocal spent
        queue, begun = iter(todo), time.process_time()

        async def worker() -> None:
            for ask in queue:
                assert await judge(ask)

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        spent = time.process_time() - begun

    async def through_engine(number: int, backend: Any) -> None:
        nonlocal spent
        with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "r.jsonl", create=True) as journal:
            begun = time.process_time()
            journal.append("run", {"run_id": "r"})
            settled = 0
            async for entry in judge_pairs(pairs(number), Job(sample_rubric(), backend), journal=journal):
                settled += 1
                assert entry.comparison.invalid is None, entry.replies
            assert settled == number
            spent = time.process_time() - begun

    try:
        await run(max(16, concurrency // 2))
        await run(count)
    finally:
        await close()
    return spent


def measured(name: str, url: str, concurrency: int, count: int) -> float:
    """CPU milliseconds per call of one arm, in a process of its own."""
    command = [sys.executable, __file__, "--arm", name, "--url", url, "--c", str(concurrency), "--pairs", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return 1000 * json.loads(done.stdout.splitlines()[-1]) / (2 * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arm")
    parser.add_argument("--url", default="")
    parser.add_argument("--c", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.arm:
        print(asyncio.run(one(chosen.arm, chosen.url, chosen.c, chosen.pairs)))
        return
    levels, turns = ((128,), 1) if chosen.quick else ((32, 128, 512), 3)
    arms = [name for name, package in ARMS.items() if importlib.util.find_spec(package) is not None]
    for name in ARMS.keys() - set(arms):
        print(f"left out: {name} is not installed")
    import chat

    cpu: dict[tuple[str, int], list[float]] = {}
    with chat.launch() as server:
        for turn in range(turns):
            for level in levels:
                for name in arms:
                    count = (300 if chosen.quick else 600) if name in ("httpx", "openai", "litellm") else 1_500
                    url = server.url(f"{name}-{level}-{turn}")
                    cpu.setdefault((name, level), []).append(measured(name, url, level, count))
                    book = server.book(f"{name}-{level}-{turn}")
                    if name in ("client", "engine"):
                        assert book["most"] <= level and book["connections"] <= level, book
    show(arms, levels, {key: statistics.median(values) for key, values in cpu.items()}, turns)


def show(arms: list[str], levels: tuple[int, ...], cpu: dict[tuple[str, int], float], turns: int) -> None:
    print(f"CPU ms per call, median of {turns}; in brackets the ratio to engine at the same concurrency")
    for name in arms:
        cells = [f"{cpu[name, level]:8.3f} ({cpu[name, level] / cpu['engine', level]:5.2f}x)" for level in levels]
        growth = (
            f"   {levels[-1]}/{levels[0]} {cpu[name, levels[-1]] / cpu[name, levels[0]]:.2f}x" if levels[1:] else ""
        )
        print(f"{name:>10} {version(ARMS[name]):>8}" + "".join(cells) + growth)
    print(f"engine / aiohttp at c=128: {cpu['engine', 128] / cpu['aiohttp', 128]:.2f} (goal <= 1.6)")
    for name, goal in (("httpx", 12), ("litellm", 15)):
        if name in arms:
            print(f"{name} / engine at c=128: {cpu[name, 128] / cpu['engine', 128]:.1f} (goal >= {goal})")


if __name__ == "__main__":
    main()
