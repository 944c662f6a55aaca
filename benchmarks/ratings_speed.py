"""Bradley-Terry bootstrap: prompts resampled in batches, against two public leaderboards' row bootstraps, interleaved.

    python benchmarks/ratings_speed.py [--battles 500000] [--models 30] [--rounds 1000] [--passes 3]

Ours draws whole prompts (``calibration.ratings.rate``, interval="bootstrap"); counting the battles is part of its
time. The peers are not packages that can be installed (the module in question is in neither fschat 0.2.36 nor any
release of arena-hard-auto), so their algorithms are written anew here, in our own words, with the settings of their
repositories:

- arena-hard-auto (utils/math_utils.py): one-hot rows of all battles as float32 tensors; every round draws battle rows
  with replacement and fits with torch's L-BFGS (learning rate 1, at most 50 iterations, tolerance 1e-9).
- FastChat (serve/monitor/rating_systems.py): distinct (first, second, outcome) rows with their counts; every round
  draws the counts from a multinomial and fits with scipy's L-BFGS-B (gtol 1e-6, at most 100 iterations), base-10
  logits. The original spreads rounds over a process pool; here all arms count CPU seconds, which a pool does not lower.

Some rounds of each peer are run and scaled up (their one-time counting or encoding is not scaled); cost is linear in
rounds. All arms run on one thread, because waiting threads of a busy machine count as CPU seconds. Neither peer knows
prompts, so their intervals are too narrow where battles on a prompt are correlated; the printed widths show it. The
peers' solvers take more steps the less evenly the models fight (--skew), so their time depends on the data; ours hardly
does.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from calibration.ratings import Battles, rate  # noqa: E402


@dataclass(frozen=True)
class Arena:
    """Battles as codes: ``first`` and ``second`` are model numbers, ``outcome`` is for the first, ``item`` the
    prompt.
    """

    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    item: np.ndarray
    models: int


def arena(battles: int, models: int, items: int, skew: float) -> Arena:
    """Battles of models drawn with popularity 1 / rank^skew, and prompts that suit some models better than others."""
    rng = np.random.default_rng(0)
    popularity = 1.0 / (1.0 + rng.permutation(models)) ** skew
    popularity /= popularity.sum()
    strength = np.linspace(1.5, -1.5, models)
    suits = rng.normal(0.0, 0.7, (items, models))
    first = rng.choice(models, battles, p=popularity)
    second = rng.choice(models, battles, p=popularity)
    while (same := first == second).any():
        second[same] = rng.choice(models, int(same.sum()), p=popularity)
    item = rng.integers(0, items, battles)
    gap = strength[first] + suits[item, first] - strength[second] - suits[item, second]
    won = (rng.random(battles) < 1 / (1 + np.exp(-gap))).astype(float)
    return Arena(first, second, np.where(rng.random(battles) < 0.1, 0.5, won), item, models)


def encoded(data: Arena) -> tuple[Any, Any]:
    """One-hot rows of all battles and their outcomes, as arena-hard-auto builds them (once)."""
    import torch

    torch.set_num_threads(1)
    rows = torch.zeros(len(data.first), data.models)
    place = torch.arange(len(data.first))
    rows[place, torch.from_numpy(data.first)] = 1.0
    rows[place, torch.from_numpy(data.second)] = -1.0
    return rows, torch.from_numpy(data.outcome).float()


def dense_rounds(rows: Any, target: Any, rounds: int) -> np.ndarray:
    """The arena-hard-auto way: battle rows resampled and refitted by L-BFGS in every round."""
    import torch

    rng = np.random.default_rng(1)
    fits = []
    for _ in range(rounds):
        drawn = torch.from_numpy(rng.integers(0, len(target), len(target)))
        x, y = rows[drawn], target[drawn]
        logits = torch.full((rows.shape[1],), 0.5, requires_grad=True)
        solver = torch.optim.LBFGS([logits], lr=1.0, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9)

        def closure(x: Any = x, y: Any = y, logits: Any = logits, solver: Any = solver) -> Any:
            solver.zero_grad()
            p = torch.sigmoid(x @ logits)
            loss = -(torch.log(p) * y + torch.log(1.0 - p) * (1.0 - y)).sum()
            loss.backward()
            return loss

        solver.step(closure)
        fits.append(logits.detach().numpy().astype(float))
    return np.array(fits)


def counted(data: Arena) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (first, second, outcome) rows and how often each was fought, as FastChat counts them (once)."""
    rows = np.column_stack([data.first, data.second, (2 * data.outcome).astype(int)]).astype(np.int32)
    return np.unique(rows, axis=0, return_counts=True)


def counted_rounds(rows: np.ndarray, counts: np.ndarray, models: int, rounds: int) -> np.ndarray:
    """The FastChat way: multinomial counts of the distinct rows, one L-BFGS-B fit a round."""
    from scipy.optimize import minimize
    from scipy.special import expit

    pair, won = rows[:, :2], rows[:, 2] / 2.0
    total = counts.sum()
    scale = np.log(10.0)
    signs = np.array([1.0, -1.0])

    def loss(ratings: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
        p = expit(scale * (ratings[pair[:, 0]] - ratings[pair[:, 1]]))
        value = -np.sum(weight * (won * np.log(p) + (1.0 - won) * np.log(1.0 - p)))
        slope = np.zeros_like(ratings)
        np.add.at(slope, pair, (-scale * weight * (won - p))[:, None] * signs)
        return float(value), slope

    draws = np.random.default_rng(2).multinomial(total, counts / total, size=rounds) / total
    start = np.zeros(models)
    fits = [
        minimize(loss, start, args=(weight,), jac=True, method="L-BFGS-B", options={"maxiter": 100, "gtol": 1e-6}).x
        for weight in draws
    ]
    return np.array(fits) * scale


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call (all threads), and what it returned."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def spread(fits: np.ndarray) -> float:
    """Mean 95% width of the strengths relative to model 0."""
    low, high = np.quantile(fits - fits[:, :1], [0.025, 0.975], axis=0)
    return float(np.mean((high - low)[1:]))


def main() -> int:
    """Run the three arms in alternation and print CPU seconds, ratios and widths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battles", type=int, default=500_000)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--skew", type=float, default=1.0, help="popularity 1 / rank^skew; 0 draws all models alike")
    parser.add_argument("--dense-rounds", type=int, default=2)
    parser.add_argument("--counted-rounds", type=int, default=100)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    data = arena(options.battles, options.models, options.items, options.skew)
    names = np.array([f"m{k:02d}" for k in range(options.models)])
    battles = Battles(names[data.first], names[data.second], data.outcome, data.item)
    codes = Battles(data.first, data.second, data.outcome, data.item)  # model numbers, as the peers are given
    times: dict[str, list[float]] = {"ours": [], "ours, names as text": [], "counted": [], "dense": []}
    widths: dict[str, float] = {}
    if find_spec("torch") is None:
        del times["dense"]
        print("torch is not installed: the arena-hard-auto arm is left out", file=sys.stderr)
    else:
        dense_rounds(*encoded(data), 1)
    rate(battles, interval="bootstrap", rounds=2)  # first calls import and are not timed
    counted_rounds(*counted(data), options.models, 2)
    for _ in range(options.passes):
        for label, each in (("ours", codes), ("ours, names as text", battles)):
            took, _ = seconds(lambda each=each: rate(each, interval="bootstrap", rounds=options.rounds))
            times[label].append(took)
        once, table = seconds(lambda: counted(data))
        took, fits = seconds(lambda table=table: counted_rounds(*table, options.models, options.counted_rounds))
        times["counted"].append(once + took * options.rounds / options.counted_rounds)
        widths["counted"] = spread(fits)
        if "dense" in times:
            once, table = seconds(lambda: encoded(data))
            took, _ = seconds(lambda table=table: dense_rounds(*table, options.dense_rounds))
            times["dense"].append(once + took * options.rounds / options.dense_rounds)
    anchored = rate(battles, interval="bootstrap", rounds=options.rounds, baseline="m00")
    if anchored is not None:
        others = [r.strength.high - r.strength.low for r in anchored.ratings if r.name != "m00"]
        widths["ours"] = float(np.mean(others))
    middle = {label: float(np.median(found)) for label, found in times.items()}
    size = f"{options.battles} battles, {options.models} models, {options.items} prompts, skew {options.skew:g}"
    print(f"{size}, {options.rounds} rounds; CPU seconds on one thread")
    for label, took in middle.items():
        runs = ", ".join(f"{x:.3f}" for x in times[label])
        print(f"{label:22s} {took:10.3f}   {took / middle['ours']:8.1f}x   (passes: {runs})")
    print("goals: dense (arena-hard-auto) at least 2000x, counted (FastChat) at least 12x")
    if "ours" in widths:
        print(f"mean 95% width: prompts drawn {widths['ours']:.4f}, rows drawn {widths['counted']:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
