"""Reading the features of `judge hack`: microseconds a pair, with and without looking first which words a text has.

    python benchmarks/hacking.py               # the sample set, again and again up to 3,000 pairs
    python benchmarks/hacking.py --pairs 500 --set evals.jsonl

Three arms read the same pairs in turn: ``words first`` as the report does it, ``bare patterns`` with every pattern
tried on every text (which must give the same numbers), and ``split``, the words of both answers and nothing else: about
the least that reading a text in Python takes. Printed are the medians of CPU microseconds a pair and their ratios.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from judge.formats import open_evalset
from judge.hacking.features import FEATURES, seen
from judge.signs import Cue
from judge.types import Pair

SAMPLE = Path(__file__).resolve().parent.parent / "judge/samples/demo.jsonl"


def read(pairs: Sequence[Pair]) -> list[list[float | None]]:
    return [[feature.read(side) for feature in FEATURES] for pair in pairs for side in seen(pair)]


def bare(pairs: Sequence[Pair]) -> list[list[float | None]]:
    with mock.patch.object(Cue, "may_match", return_value=True):
        return read(pairs)


def split(pairs: Sequence[Pair]) -> list[int]:
    return [len(answer.text.lower().split()) for pair in pairs for answer in (pair.candidate, pair.baseline)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--set", type=Path)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    given = list(open_evalset(options.set or SAMPLE).pairs())
    pairs = list(itertools.islice(itertools.cycle(given), options.pairs))
    assert read(given) == bare(given)
    arms: dict[str, Callable[[Sequence[Pair]], object]] = {"words first": read, "bare patterns": bare, "split": split}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(options.turns):
        for name, work in arms.items():
            began = time.process_time()
            work(pairs)
            found[name].append(1e6 * (time.process_time() - began) / len(pairs))
    size = sum(len(pair.candidate.text) + len(pair.baseline.text) for pair in given) / len(given)
    least = statistics.median(found["words first"])
    print(f"{len(pairs)} pairs of {size:.0f} characters in both answers, median of {options.turns}")
    for name, values in found.items():
        each = statistics.median(values)
        print(f"{name:>14} {each:8.1f} us a pair {each / least:7.2f} of 'words first'")


if __name__ == "__main__":
    main()
