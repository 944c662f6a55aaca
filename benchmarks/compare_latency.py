"""What ``judge.compare`` adds to the slower of its two calls, over HTTP on loopback.

    python benchmarks/compare_latency.py            # 300 comparisons at 20 ms latency
    python benchmarks/compare_latency.py --latency 0.1 --count 100

A server in a process of its own answers after a fixed time. Each call is timed inside the judge, from the moment its
body is handed to the HTTP client to the moment its answer is read; what ``compare`` took beyond the longer of the two
is its own. Printed are the milliseconds added (median, 95th percentile), how far apart the two calls began, and the
whole over the latency: 1 where both go out together, 2 where one waits for the other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "benchmarks")]

from engine_calls import ANSWER, PROMPT, SERVER, control  # noqa: E402

import judge  # noqa: E402
from judge.backends import open_backend  # noqa: E402
from judge.environment import Environment  # noqa: E402


class Timed:
    """A transport that notes when each call begins and ends."""

    def __init__(self, inner: Any) -> None:
        """Wrap a transport."""
        self.inner = inner
        self.spans: list[tuple[float, float]] = []

    async def send(self, body: Any) -> Any:
        """Send once, timed."""
        begun = time.perf_counter()
        answer = await self.inner.send(body)
        self.spans.append((begun, time.perf_counter()))
        return answer

    async def close(self) -> None:
        """Close the transport."""
        await self.inner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--latency", type=float, default=0.02)
    options = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        asyncio.run(control(url, f"/latency/{options.latency}"))
        with tempfile.TemporaryDirectory() as folder:
            env = Environment(Path(folder), Path(folder))
            backend: Any = open_backend(f"openai:m?base_url={url}&mode=logprobs", env)
            timed = backend._transport = Timed(backend._transport)  # noqa: SLF001 - to time what is inside
            spent = 0.0
            added, apart, whole = [], [], []
            for number in range(options.count + 5):
                if number == 5:
                    spent = time.process_time()
                timed.spans.clear()
                begun = time.perf_counter()
                made = judge.compare(
                    f"{PROMPT} ({number})", candidate=f"{ANSWER}{number}", baseline=f"{number} {ANSWER}", judge=backend
                )
                took = time.perf_counter() - begun
                assert made.invalid is None and len(timed.spans) == 2
                if number >= 5:
                    (one, first), (two, second) = timed.spans
                    added.append(1000 * (took - max(first - one, second - two)))
                    apart.append(1000 * abs(one - two))
                    whole.append(took / options.latency)
            cpu = 1000 * (time.process_time() - spent) / options.count
    finally:
        server.terminate()
        server.wait()
    tail = statistics.quantiles(added, n=20)[-1]
    print(
        f"judge.compare, {options.count} times at {1000 * options.latency:g} ms: adds {statistics.median(added):.2f} "
        f"ms to the slower of its two calls (95th percentile {tail:.2f}; {cpu:.2f} CPU-ms with both calls), they begin "
        f"{statistics.median(apart):.2f} ms apart, the whole takes {statistics.median(whole):.2f}x the latency"
    )
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
