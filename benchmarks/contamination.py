"""The near-duplicate check on a million rows: CPU time, memory, recall by similarity; against datasketch on a part.

    python benchmarks/contamination.py [--rows 1000000] [--references 5000] [--compared 3000]

Rows are made up, 20 to 140 words each (80 on average) from a vocabulary of 20,000; ``--planted`` of them repeat a
reference with some words changed, so that their Jaccard similarity (3-word shingles) is known. Rows are made while they
are checked, and the time to make them is measured apart and taken off. Memory is the peak of the process. datasketch
(MinHash with as many hashes, LSH at the same limit) is timed on ``--compared`` rows in the same process, alternating.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from tune.contamination import References  # noqa: E402

VOCABULARY = np.array([f"word{number}" for number in range(20_000)])


def text(rng: np.random.Generator, size: int) -> str:
    return " ".join(VOCABULARY[rng.integers(0, len(VOCABULARY), size)])


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of 3-word shingles, in plain Python."""
    sets = [{tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in (one.split(), other.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def made(rows: int, planted: dict[int, str], seed: int = 1) -> Iterator[tuple[str, str]]:
    """Rows in blocks, so that making them is cheap."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, 10_000):
        count = min(10_000, rows - start)
        sizes = rng.integers(20, 141, count)
        words = VOCABULARY[rng.integers(0, len(VOCABULARY), int(sizes.sum()))]
        at = 0
        for place, size in enumerate(sizes):
            name = start + place
            yield (f"r{name}", planted[name] if name in planted else " ".join(words[at : at + size]))
            at += size


def plant(references: list[str], rows: int, count: int) -> tuple[dict[int, str], dict[int, float]]:
    """Near-duplicates at random places, with their true similarity."""
    rng = np.random.default_rng(2)
    planted, truth = {}, {}
    for place in rng.choice(rows, size=count, replace=False):
        original = references[int(rng.integers(len(references)))]
        words = original.split()
        for at in rng.choice(len(words), size=int(rng.integers(0, max(2, len(words) // 10))), replace=False):
            words[at] = "changed"
        planted[int(place)] = " ".join(words)
        truth[int(place)] = similarity(original, planted[int(place)])
    return planted, truth


def against_datasketch(references: list[str], compared: int) -> None:
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        print("datasketch is not installed: pip install datasketch")
        return
    rows = list(made(compared, {}, seed=3))
    few = references[:200]
    ours_held = References()
    ours_held.add("few", [(str(place), known) for place, known in enumerate(few)])
    list(ours_held.clashes(rows[:10]))

    def sketch(known: str) -> MinHash:
        words = known.split()
        found = MinHash(num_perm=96)
        found.update_batch([" ".join(words[at : at + 3]).encode() for at in range(len(words) - 2)])
        return found

    theirs_held = MinHashLSH(threshold=0.7, num_perm=96)
    for place, known in enumerate(few):
        theirs_held.insert(str(place), sketch(known))
    ours, theirs = [], []
    for part in range(3):
        slice_ = rows[part::3]
        begun = time.process_time()
        list(ours_held.clashes(slice_))
        ours.append((time.process_time() - begun) / len(slice_))
        begun = time.process_time()
        for _name, known in slice_:
            theirs_held.query(sketch(known))
        theirs.append((time.process_time() - begun) / len(slice_))
    ratio = np.median(theirs) / np.median(ours)
    print(f"a row: {np.median(ours) * 1e6:.1f} us, datasketch {np.median(theirs) * 1e6:.0f} us: {ratio:.0f}x less CPU")


def main() -> int:
    """Check the rows and print the figures; exit 1 where a row is reported that repeats nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--references", type=int, default=5_000)
    parser.add_argument("--planted", type=int, default=5_000)
    parser.add_argument("--compared", type=int, default=3_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    known = [text(rng, int(rng.integers(20, 141))) for _ in range(options.references)]
    planted, truth = plant(known, options.rows, min(options.planted, options.rows // 2))
    begun = time.process_time()
    for _row in made(options.rows, planted):
        pass
    making = time.process_time() - begun
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.process_time()
    held = References()
    held.add("gold", [(f"g{place}", known_text) for place, known_text in enumerate(known)])
    found = {int(clash.row[1:]): clash for clash in held.clashes(made(options.rows, planted))}
    cpu = time.process_time() - begun - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = options.rows / cpu
    print(
        f"{options.rows:,} rows against {options.references:,} references: {cpu:.1f} CPU-s, {rate:,.0f} rows per CPU-s"
    )
    print(f"peak memory {peak:.0f} MB ({peak - before:.0f} MB above the start)")
    for low, high in ((0.7, 0.75), (0.75, 0.8), (0.8, 0.9), (0.9, 1.0), (1.0, 1.01)):
        wanted = [place for place, similar in truth.items() if low <= similar < high]
        hits = sum(place in found for place in wanted)
        if wanted:
            word = "exact" if low == 1.0 else f"similarity {low:.2f} to {high:.2f}"
            print(f"recall, {word}: {hits} of {len(wanted)} = {hits / len(wanted):.4f}")
    wrong = [place for place in found if place not in planted]
    print(f"reported without cause: {len(wrong)}")
    against_datasketch(known, options.compared)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
