"""How often does a guard pass a candidate that lies on its limit, where harm is rare and comes in clusters?

    python benchmarks/rare_events.py [--rounds 2000] [--seed 0]

A share that only the candidate (or both, by as much more) has is drawn with its true difference on the limit, in
prompts of one row, of four, of a geometric number and of one or 20 rows, at intraclass correlations from 0 to 1 (a
beta-binomial), also with all the harm in the large prompts. Passing is wrong; 2.5% are meant. Printed: the worst cases
of ``share_difference``, the share of all, and how often a candidate with no more harm than the baseline passes.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from calibration.estimates import clopper_pearson, difference, share_difference

SHAPES = ("one row", "four rows", "geometric", "one or 20")
WHERE = {True: "harm in the large ones", False: "harm anywhere"}


def sizes_of(rng: np.random.Generator, shape: str, prompts: int) -> np.ndarray:
    if shape == "geometric":
        return 1 + rng.geometric(0.3, prompts)
    if shape == "one or 20":
        return np.where(rng.random(prompts) < 0.05, 20, 1)
    return np.full(prompts, 4 if shape == "four rows" else 1)


def events(rng: np.random.Generator, share: float, alike: float, sizes: np.ndarray, *, large: bool) -> np.ndarray:
    """Zeros and ones, one a row, with this expected share of all rows and correlation within a prompt."""
    prompts = len(sizes)
    if large:
        mine = sizes > np.median(sizes)
        share = min(1.0, share * sizes.sum() / max(sizes[mine].sum(), 1))
    else:
        mine = np.ones(prompts, dtype=bool)
    if alike in (0.0, 1.0) or not 0.0 < share < 1.0:
        chance = np.full(prompts, share) if alike < 1.0 else (rng.random(prompts) < share).astype(float)
    else:
        spread = 1 / alike - 1
        chance = rng.beta(share * spread, (1 - share) * spread, prompts)
    return rng.random(int(sizes.sum())) < np.repeat(np.where(mine, chance, 0.0), sizes)


def passes(rng: np.random.Generator, case: tuple, rounds: int, harm: float) -> tuple[int, int]:
    """Of ``rounds`` draws with this true difference, how many pass: by ``share_difference``, by the t interval."""
    limit, prompts, shape, alike, base, large = case
    found = [0, 0]
    for _ in range(rounds):
        sizes = sizes_of(rng, shape, prompts)
        theirs = events(rng, base, alike, sizes, large=False).astype(float)
        ours = events(rng, harm + base, alike, sizes, large=large).astype(float)
        groups = np.repeat(np.arange(prompts), sizes)
        for k, interval in enumerate((share_difference, difference)):
            gap = interval(ours, theirs, clusters=groups)
            found[k] += gap is not None and gap.high <= limit
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, started, rows = np.random.default_rng(asked.seed), time.process_time(), []
    for case in product((0.02, 0.05), (100, 200, 400), SHAPES, (0.0, 0.3, 1.0), (0.0, 0.02), (False, True)):
        _, _, shape, alike, base, large = case
        if (large and (shape not in SHAPES[2:] or base)) or (alike and shape == SHAPES[0]):
            continue
        rows.append((*passes(rng, case, asked.rounds, case[0]), case))
    print(f"true difference on the limit, {asked.rounds} draws each of {len(rows)} cases; 2.5% are meant to pass")
    for k, name in enumerate(("share_difference", "t interval")):
        worst = sorted(rows, key=lambda row: -row[k])[:4]
        total = sum(row[k] for row in rows) / (len(rows) * asked.rounds)
        print(f"{name}: {total:.2%} of all; the worst:")
        for row in worst:
            limit, prompts, shape, alike, base, large = row[2]
            low, high = clopper_pearson(row[k], asked.rounds)
            told = f"limit {limit:.0%}, {prompts} prompts of {shape}, correlation {alike}, baseline {base:.0%}"
            print(f"  {row[k] / asked.rounds:6.2%} [{low:.2%}, {high:.2%}]  {told}, {WHERE[large]}")
    print("no more harm than the baseline: passes by share_difference, by the t interval")
    for prompts, shape in product((150, 300, 600, 1200), SHAPES):
        alike = 0.0 if shape == SHAPES[0] else 0.3
        mine, theirs = passes(rng, (0.02, prompts, shape, alike, 0.005, False), asked.rounds // 4, 0.0)
        shares = [f"{count / (asked.rounds // 4):6.1%}" for count in (mine, theirs)]
        print(f"  limit 2%, 0.5% on both sides, {prompts:5} prompts of {shape:10} {'  '.join(shares)}")
    print(f"{time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main()
