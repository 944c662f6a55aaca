"""Prediction-powered bootstrap of a win rate: ``calibration.resampling`` against ppi-python's ``ppboot``, interleaved.

    python benchmarks/ppi_speed.py [--unlabelled 100000] [--rounds 10000] [--passes 3]

The peer is the real package (pip install ppi-python, tested with 0.2.3). It resamples every row in every round;
``--peer-rounds`` of its rounds are run and scaled up, because its cost is linear in rounds. Both are timed in CPU
seconds of this process in alternation, and both intervals are printed for the same power, so that speed is not bought
with another answer. What ours leaves out is said in its module: rows are drawn as counts of bins, and a part of 10,000
rows or more from its normal limit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from calibration.resampling import powered_bootstrap  # noqa: E402

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def data(labelled: int, unlabelled: int) -> Arrays:
    """Outcomes with ties, a biased and noisy soft judge on the same prompts, and the judge alone on all others."""
    rng = np.random.default_rng(0)
    n = labelled + unlabelled
    quality = rng.normal(0.2, 1.2, n)
    judge = 1 / (1 + np.exp(-(quality + 0.3 + rng.normal(0.0, 0.7, n))))
    human = (rng.random(n) < 1 / (1 + np.exp(-quality))).astype(float)
    human[rng.random(n) < 0.15] = 0.5
    return human[:labelled], judge[:labelled], judge[labelled:]


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> int:
    """Run both arms in alternation and print times, ratio and intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--unlabelled", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--peer-rounds", type=int, default=500)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    try:
        import ppi_py
    except ImportError:
        print("ppi-python is not installed: pip install ppi-python", file=sys.stderr)
        return 2
    human, judge, rest = data(options.labelled, options.unlabelled)
    powered_bootstrap(human, judge, rest, rounds=10)  # first call imports and compiles
    ppi_py.ppboot(np.mean, human, judge, rest, n_resamples=2, lam=1)
    ours, theirs = [], []
    for _ in range(options.passes):
        ours.append(seconds(lambda: powered_bootstrap(human, judge, rest, rounds=options.rounds, power=1.0)))
        some = options.peer_rounds
        took = seconds(lambda some=some: ppi_py.ppboot(np.mean, human, judge, rest, lam=1, n_resamples=some))
        theirs.append(took * options.rounds / some)
        ours.append(seconds(lambda: powered_bootstrap(human, judge, rest, rounds=options.rounds, power=1.0)))
    us, them = float(np.median(ours)), float(np.median(theirs))
    mine = powered_bootstrap(human, judge, rest, rounds=options.rounds, power=1.0)
    low, high = ppi_py.ppboot(np.mean, human, judge, rest, lam=1, n_resamples=4 * options.peer_rounds, alpha=0.05)
    print(f"n = {options.labelled}, N = {options.unlabelled}, {options.rounds} rounds, CPU seconds, median")
    print(f"calibration.resampling.powered_bootstrap  {us:9.4f}   (all: {', '.join(f'{x:.4f}' for x in ours)})")
    print(f"ppi_py.ppboot ({options.peer_rounds} rounds run, scaled)     {them:9.4f}")
    print(f"ratio {them / us:.0f}x   (goal: at least 500x)")
    if mine is not None:
        print(f"95% intervals at lam = 1: ours [{mine.low:.4f}, {mine.high:.4f}], ppboot [{low:.4f}, {high:.4f}]")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
