"""A calibration report on 1,000 labelled pairs, against one bootstrap of the same size by scipy, interleaved.

    python benchmarks/report_speed.py [--pairs 2000] [--labels 1000] [--passes 3]

The report holds some 200 intervals; the peer arm is a single ``scipy.stats.bootstrap`` (BCa, 1,000 rounds) of one mean,
so the ratio says how many such bootstraps the whole report costs. The data are made up and seeded. The self-check is
not part of it: it runs the estimator hundreds of times and is timed by ``benchmarks/self_check.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from calibration.evidence import Evidence, Said  # noqa: E402
from calibration.gold import GoldItem, GoldLabel, GoldSet  # noqa: E402
from calibration.provenance import Judged, JudgedRun  # noqa: E402
from calibration.report import calibration_report  # noqa: E402
from rubrics import Outcome  # noqa: E402


def made_up(pairs: int, labels: int) -> tuple[Evidence, GoldSet]:
    """A run with lengths and eight categories, and two annotators on each labelled pair."""
    rng = np.random.default_rng(0)
    gap = rng.normal(0.1, 1.0, pairs)
    sizes = rng.integers(100, 3000, (pairs, 2))
    preference = 1 / (1 + np.exp(-(2 * gap + rng.normal(0, 1, pairs))))
    rows, said = [], []
    for k, p in enumerate(preference.tolist()):
        side = Outcome.WIN if p > 0.55 else Outcome.LOSS if p < 0.45 else Outcome.TIE
        rows.append(Judged(f"p{k}", f"q{k}", p, 0.0, 1 - p, f"c{k % 8}", int(sizes[k, 0]), int(sizes[k, 1])))
        said.append(Said(side, (side,), (side,), (p, p)))
    items = []
    for k in rng.permutation(pairs)[:labels].tolist():
        felt = gap[k] + rng.normal(0, 0.4, 2)
        given = tuple(
            GoldLabel(f"a{n}", Outcome.TIE if abs(v) < 0.1 else Outcome.WIN if v > 0 else Outcome.LOSS)
            for n, v in enumerate(felt)
        )
        items.append(GoldItem(f"p{k}", f"q{k}", given, "new", "old", "helpfulness@1", f"c{k % 8}", drawn="random"))
    run = JudgedRun(tuple(rows), "new", "old", "helpfulness@1")
    return Evidence(run, tuple(said), "helpfulness@1", "judge@1"), GoldSet(tuple(items))


def main() -> int:
    """Time both arms in alternation and print CPU seconds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    evidence, gold = made_up(options.pairs, options.labels)
    values = np.array([item.value for item in gold.items])
    own, peer = [], []
    for _ in range(options.passes + 1):
        start = time.process_time()
        report = calibration_report(evidence, gold)
        own.append(time.process_time() - start)
        start = time.process_time()
        bootstrap((values,), np.mean, n_resamples=1000, rng=0)
        peer.append(time.process_time() - start)
    print(f"{report.belief.word}: {options.labels} labelled pairs of {options.pairs}")
    print(f"first report, with imports  {own[0]:.2f} CPU-s")
    print(f"report, median of {options.passes}       {np.median(own[1:]):.2f} CPU-s")
    print(f"one scipy bootstrap         {np.median(peer[1:]):.3f} CPU-s")
    print(f"ratio                       {np.median(own[1:]) / np.median(peer[1:]):.0f} bootstraps a report")
    return 0


if __name__ == "__main__":
    sys.exit(main())
