"""Bringing a journal into DuckDB, beside the least that DuckDB itself takes for the same rows from Arrow.

    python benchmarks/ingest.py                 # 50,000 pairs, three turns
    python benchmarks/ingest.py --pairs 10000

``journal`` is ``Store.ingest``: every line read and checked, settled, written as segments, inserted; two verdicts a
pair. ``arrow, all tables`` inserts the very same rows, texts and replies included, from Arrow tables that are in memory
already; ``arrow, comparison`` inserts only the table of numbers. Arms run in turn; printed are the medians of CPU
microseconds per pair and verdicts per CPU second (of all threads), and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars
from engine import pairs

from judge.engine import Job, judge_pairs
from judge.formats import EvalSet
from judge.journal import Journal
from judge.runs import RunPlan, header_of
from judge.store import Store
from judge.store.database import Stream, reading, writing
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric

TABLES = ("comparison", "pair", "reply")


def judged(count: int, store: Store) -> Path:
    rubric, path = sample_rubric(), store.journal_path("r-bench")
    backend = ScriptedBackend(prefer_longer, name="scripted/longer", batch=64, concurrency=8, keep=False)
    evalset = EvalSet((Path("synthetic"),), "0" * 64, count, (), lambda: iter(()))
    plan = RunPlan("r-bench", "2026-01-01T00:00:00+00:00", evalset, {}, rubric, "scripted:longer")

    async def work(journal: Journal) -> None:
        async for _ in judge_pairs(pairs(count), Job(rubric, backend), journal=journal):
            pass

    with Journal(path, create=True) as journal:
        journal.append("run", header_of(plan, backend.id, ""))
        asyncio.run(work(journal))
        journal.append("seal", {"comparisons": count})
    return path


def inserted(frames: dict[str, polars.DataFrame], folder: Path) -> None:
    path = folder / "arrow.duckdb"
    path.unlink(missing_ok=True)
    with writing(path) as con:
        for table, frame in frames.items():
            con.register("given", frame)
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM given")  # noqa: S608 - a name of ours


def cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "home")
        path = judged(options.pairs, store)
        store.ingest(path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        with reading(store.path) as con:
            frames = {table: polars.DataFrame(Stream(con.cursor().sql(f"FROM {table}"))) for table in TABLES}
        arms: dict[str, Callable[[], Any]] = {
            "journal": lambda: store.ingest(path),
            "arrow, all tables": lambda: inserted(frames, Path(name)),
            "arrow, comparison": lambda: inserted({"comparison": frames["comparison"]}, Path(name)),
        }
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(options.turns):
            for arm, work in arms.items():
                found[arm].append(cpu(work))
    print(f"{options.pairs} pairs, duckdb {duckdb.__version__}, median of {options.turns}; peak {peak:.0f} MB")
    for arm, values in found.items():
        each = statistics.median(values) / options.pairs
        print(f"{arm:>18} {1e6 * each:7.1f} us a pair {2 / each:12,.0f} verdicts per CPU second")


if __name__ == "__main__":
    main()
