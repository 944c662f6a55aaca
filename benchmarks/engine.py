"""Engine overhead per comparison with the scripted judge, against the least a program could do, and memory from 1k to
100k pairs.

    python benchmarks/engine.py                # 1k, 10k and 100k pairs, each in a process of its own
    python benchmarks/engine.py --pairs 1000   # one size, in this process

Three arms run in turn inside each process, on the same pairs: ``floor`` renders both prompts, hashes them and appends
two JSON lines to a file; ``engine`` is the whole path (plan, ask, read, settle, journal); ``ingest`` brings the journal
into DuckDB. Printed are CPU microseconds per comparison, the ratio engine/floor, and the peak resident memory of the
process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from judge import protocol
from judge.engine import Job, judge_pairs
from judge.formats import EvalSet
from judge.journal import Journal, encode_pair
from judge.runs import RunPlan, header_of
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Answer, Item, Pair

PROMPT = "Explain in two sentences why the sky is blue, for a child of eight. " * 3
ANSWER = "Sunlight holds all colours, and the air scatters the blue ones most, so blue reaches us from everywhere. " * 6


def pairs(count: int) -> Iterator[Pair]:
    for number in range(count):
        item = Item(f"{PROMPT} ({number})", category=f"c{number % 8}")
        yield Pair(f"p{number}", item, Answer(f"{ANSWER}{number}"), Answer(f"{number} {ANSWER}"))


def floor(count: int, folder: Path) -> float:
    rubric = sample_rubric()
    system = protocol.render_system(rubric)
    started = time.process_time()
    with (folder / "floor.jsonl").open("wb") as out:
        for pair in pairs(count):
            for first, second in ((pair.candidate.text, pair.baseline.text), (pair.baseline.text, pair.candidate.text)):
                prompt = f"{system}\n{pair.item.prompt}\n{first}\n{second}"
                key = hashlib.sha256(prompt.encode()).hexdigest()
                out.write(
                    orjson.dumps({"key": key, "pair": encode_pair(pair), "reply": {"probs": [0.5, 0.0, 0.5]}}) + b"\n"
                )
    return time.process_time() - started


def engine(count: int, store: Store) -> float:
    rubric = sample_rubric()
    backend = ScriptedBackend(prefer_longer, name="scripted/longer", batch=64, concurrency=8, keep=False)
    evalset = EvalSet((Path("synthetic"),), "0" * 64, count, (), lambda: iter(()))
    plan = RunPlan("r-bench", "2026-01-01T00:00:00+00:00", evalset, {}, rubric, "scripted:longer")

    async def work(journal: Journal) -> None:
        async for _ in judge_pairs(pairs(count), Job(rubric, backend), journal=journal):
            pass

    started = time.process_time()
    with Journal(store.journal_path("r-bench"), create=True) as journal:
        journal.append("run", header_of(plan, backend.id, ""))
        asyncio.run(work(journal))
        journal.append("seal", {"comparisons": count})
    return time.process_time() - started


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def one(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floors, engines = [], []
        for turn in range(2 if count <= 10_000 else 1):
            store = Store(folder / f"home{turn}")
            floors.append(floor(count, folder))
            engines.append(engine(count, store))
        judged = peak_mb()
        started = time.process_time()
        store.ingest(store.journal_path("r-bench"))
        ingest = time.process_time() - started
        return {
            "pairs": count,
            "floor_us": 1e6 * min(floors) / count,
            "engine_us": 1e6 * min(engines) / count,
            "ratio": min(engines) / min(floors),
            "ingest_us": 1e6 * ingest / count,
            "peak_mb_judging": judged,
            "peak_mb_ingest": peak_mb(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int)
    chosen = parser.parse_args().pairs
    if chosen:
        print(json.dumps(one(chosen)))
        return
    print(
        f"{'pairs':>8} {'floor us':>9} {'engine us':>10} {'engine/floor':>13} {'ingest us':>10} {'MB judging':>11} "
        f"{'MB ingest':>10}"
    )
    for count in (1_000, 10_000, 100_000):
        out = subprocess.run(
            [sys.executable, __file__, "--pairs", str(count)], capture_output=True, text=True, check=True
        )
        row = json.loads(out.stdout)
        print(
            f"{row['pairs']:>8} {row['floor_us']:>9.0f} {row['engine_us']:>10.0f} {row['ratio']:>12.1f}x "
            f"{row['ingest_us']:>10.0f} "
            f"{row['peak_mb_judging']:>11.0f} {row['peak_mb_ingest']:>10.0f}"
        )


if __name__ == "__main__":
    main()
