"""Length-controlled win rates of 300 models: the batched fit, against AlpacaEval 2's estimator, interleaved.

    python benchmarks/length_speed.py [--models 300] [--gold ../shared/gold]

``calibration.length.controlled_many`` fits all models at once. The comparison arm is
``calibration.alpacaeval.alpacaeval2``, our own implementation of AlpacaEval 2's steps (lasso, ten penalties, five
folds); alpaca_eval itself fetches two files from a hub on every call and cannot be timed without a network. A few
models are run through it and scaled up. With ``--gold`` the data are the recorded AlpacaEval preferences, repeated to
the wanted number of models; without it they are made up.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from calibration.alpacaeval import alpacaeval2  # noqa: E402
from calibration.length import controlled, controlled_many, difficulties, length_feature  # noqa: E402

PROMPTS = 805


def made_up(models: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Preferences and both lengths of ``models`` candidates on 805 prompts."""
    rng = np.random.default_rng(0)
    theirs = np.tile(rng.integers(300, 4000, PROMPTS).astype(float), (models, 1))
    ours = theirs * np.exp(rng.normal(rng.normal(0.0, 0.4, (models, 1)), 0.5, (models, PROMPTS)))
    hard = rng.normal(0.0, 1.5, PROMPTS)
    s = rng.normal(-0.5, 1.0, (models, 1)) + hard + 1.8 * np.tanh((ours - theirs) / 1000.0)
    return 1 / (1 + np.exp(-(s + rng.normal(0.0, 2.0, s.shape)))), ours, theirs


def recorded(folder: Path, models: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shared slice of AlpacaEval 2, complete models only, repeated to ``models`` rows."""
    found: dict[str, dict[int, tuple[float, float, float]]] = {}
    with gzip.open(folder / "verdicts.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            found.setdefault(row["model"], {})[row["instruction_id"]] = (row["prob_a"], row["len_a"], row["len_b"])
    full = [[own[i] for i in range(PROMPTS)] for own in found.values() if len(own) == PROMPTS]
    table = np.array([full[k % len(full)] for k in range(models)], dtype=float)
    return table[..., 0], table[..., 1], table[..., 2]


def main() -> int:
    """Time both arms in alternation and print seconds, ratio and the largest difference of the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--named", type=int, default=4, help="models per pass through the AlpacaEval 2 estimator")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--gold", type=Path, default=None)
    options = parser.parse_args()
    folder = options.gold / "alpacaeval2" if options.gold else None
    y, ours, theirs = recorded(folder, options.models) if folder else made_up(options.models)
    x = np.array([length_feature(a, b) for a, b in zip(ours, theirs, strict=True)])
    start = time.process_time()
    hard = difficulties(y[:35], x[:35])
    learning = time.process_time() - start
    controlled_many(y[:2], x[:2], difficulty=hard)
    alpacaeval2(y[0], ours[0], theirs[0], hard)
    batch, single, differences = [], [], []
    for turn in range(options.passes):
        start = time.process_time()
        fitted = controlled_many(y, x, difficulty=hard)
        batch.append(time.process_time() - start)
        start = time.process_time()
        for k in range(turn * options.named, (turn + 1) * options.named):
            named = alpacaeval2(y[k], ours[k], theirs[k], hard)
            quick = fitted[k]
            if named is not None and quick is not None:
                differences.append(abs(named.length_controlled.value - quick.value))
        single.append((time.process_time() - start) / options.named * options.models)
    start = time.process_time()
    controlled(y[0], x[0], difficulty=hard, rounds=1000)
    interval = time.process_time() - start
    us, them = float(np.median(batch)), float(np.median(single))
    source = "recorded AlpacaEval preferences" if folder else "made-up preferences"
    print(f"{options.models} models x {PROMPTS} prompts, {source}, CPU seconds, median of {options.passes}")
    print(f"controlled_many, all models with delta-method intervals   {us:8.3f}   (goal: at most 2)")
    print(f"alpacaeval2, {options.named} models run, scaled to {options.models}            {them:8.3f}")
    print(f"ratio {them / us:.0f}x; largest difference of the controlled rates {100 * max(differences):.2f} points")
    print(f"difficulties from 35 models {learning:.3f} s; one model with 1,000 bootstrap refits {interval:.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
