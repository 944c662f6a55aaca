"""Does the self-check report the coverage that the estimator really has? Worlds whose truth is known.

For every world: the true coverage of the nominal 95% interval over many fresh runs, and what ``calibration.selfcheck``
says from one run at a time (mean and standard deviation over runs), beside the plain bootstrap, which copies labelled
pairs with their outcomes into a population. Both simulate the same estimator. Run: ``python benchmarks/self_check.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from calibration.ppi import Sample
from calibration.provenance import Joined
from calibration.selfcheck import _systematic, _World
from calibration.winrate import Frame, headline

rng_type = np.random.Generator


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def soft_frame(f: np.ndarray, gaps: np.ndarray) -> Frame:
    return Frame(np.column_stack([f, np.zeros(len(f)), 1 - f]), gaps)


def latent(rng: rng_type, size: int, *, shift: float = 0.2, ties: float = 0.15, noise: float = 1.0, fine: float = 2.0):
    """Humans and a biased, noisy judge see one gap in quality; answers that are better are longer."""
    gap = rng.normal(shift, 1.0, size)
    human = np.where(rng.random(size) < ties, 0.5, (gap + rng.normal(0, 0.7, size) > 0).astype(float))
    f = expit(fine * (gap + 0.5 + noise * rng.normal(size=size)))
    return human, soft_frame(f, 80 * gap + rng.normal(0, 60, size))


def crooked(rng: rng_type, size: int):
    """The human rate rises, falls and rises with the judge's preference: no model in use has that shape."""
    f = rng.random(size)
    p = np.clip(0.5 + 0.45 * np.sin(7 * f), 0, 1)
    return (rng.random(size) < p).astype(float), soft_frame(f, rng.normal(0, 50, size))


def nearly_right(rng: rng_type, size: int):
    """A hard judge that is wrong on 6% of pairs."""
    y = (rng.random(size) < 0.6).astype(float)
    f = np.where(rng.random(size) < 0.06, 1 - y, y)
    return y, soft_frame(f, rng.normal(0, 50, size))


def simple(make: Callable, n: int, size: int, **kind) -> Callable[[rng_type], tuple[Frame, Sample, np.ndarray]]:
    def draw(rng: rng_type):
        y, frame = make(rng, size, **kind)
        rows = np.sort(rng.permutation(size)[:n])
        return frame, Sample(rows, np.full(n, n / size), np.arange(size), np.arange(size)), y

    return draw


def clustered(n: int, prompts: int, spread: float):
    """Pairs of one prompt share three quarters of their luck; a few prompts have most of the pairs."""

    def draw(rng: rng_type):
        sizes = np.zeros(1, dtype=int)
        while sizes.sum() < n:
            sizes = np.maximum(1, np.round(np.exp(rng.normal(0.8, spread, prompts)))).astype(int)
        codes = np.repeat(np.arange(prompts), sizes)
        size = len(codes)
        gap = 0.2 + np.sqrt(0.75) * rng.normal(size=prompts)[codes] + np.sqrt(0.25) * rng.normal(size=size)
        y = (gap > 0).astype(float)
        f = expit(1.5 * (rng.normal(size=size) + 0.4 * gap))
        rows = np.sort(rng.permutation(size)[:n])
        return soft_frame(f, np.full(size, np.nan)), Sample(rows, np.full(n, n / size), codes, codes), y

    return draw


def stratified(n: int, size: int):
    """Five categories that the judge sees very differently well, drawn in proportion."""

    def draw(rng: rng_type):
        kinds = np.arange(size) % 5
        human, _ = latent(rng, size)
        gap = np.where(human == 0.5, 0.0, 2 * human - 1)
        f = expit((kinds - 1) * gap + rng.normal(size=size) + 0.4 * (kinds == 0))
        human = np.where((kinds == 4) & (rng.random(size) < 0.6), 1.0, human)
        order = np.lexsort((rng.random(size), kinds))
        rows = np.sort(order.reshape(5, -1)[:, : n // 5].ravel())
        sample = Sample(rows, np.full(len(rows), n / size), np.arange(size), np.arange(size), kinds)
        return soft_frame(f, rng.normal(0, 50, size)), sample, human

    return draw


def whole_prompts(prompts: int, drawn: int):
    """Four pairs a prompt; whole prompts are labelled."""

    def draw(rng: rng_type):
        codes = np.repeat(np.arange(prompts), 4)
        gap = 0.3 + np.sqrt(0.5) * rng.normal(size=prompts)[codes] + np.sqrt(0.5) * rng.normal(size=len(codes))
        y = (gap > 0).astype(float)
        rows = np.flatnonzero(np.isin(codes, rng.permutation(prompts)[:drawn]))
        chances = np.full(len(rows), drawn / prompts)
        f = expit(2 * gap + rng.normal(size=len(y)))
        return soft_frame(f, np.full(len(y), np.nan)), Sample(rows, chances, codes, codes, unit="prompt"), y

    return draw


def active(n: int, size: int, mix: float):
    """Pairs drawn the more often the less sure the judge is."""

    def draw(rng: rng_type):
        y, frame = latent(rng, size, fine=4.0)
        u = 1 - np.abs(2 * frame.soft - 1)
        rows, chances = _systematic(mix / size + (1 - mix) * u / u.sum(), n, rng)
        return frame, Sample(rows, chances, np.arange(size), np.arange(size)), y

    return draw


WORLDS: dict[str, tuple[Callable, str, str]] = {
    "soft judge, n 30": (simple(latent, 30, 1000), "cross-fit", "superpopulation"),
    "soft judge, n 100": (simple(latent, 100, 1000), "cross-fit", "superpopulation"),
    "soft judge, n 300": (simple(latent, 300, 1000), "cross-fit", "superpopulation"),
    "soft judge, n 30, ppi++": (simple(latent, 30, 1000), "ppi++", "superpopulation"),
    "strong judge, n 30, ppi++": (simple(latent, 30, 1000, ties=0.0, noise=0.2), "ppi++", "superpopulation"),
    "useless judge, n 30": (simple(latent, 30, 1000, noise=30.0), "cross-fit", "superpopulation"),
    "win rate .95, n 30": (simple(latent, 30, 1000, shift=2.0, ties=0.0), "cross-fit", "superpopulation"),
    "win rate .95, n 50": (simple(latent, 50, 1000, shift=2.0, ties=0.0), "cross-fit", "superpopulation"),
    "40% ties, n 30": (simple(latent, 30, 1000, ties=0.4), "cross-fit", "superpopulation"),
    "crooked judge, n 30": (simple(crooked, 30, 1000), "cross-fit", "superpopulation"),
    "wrong on 6%, n 30": (simple(nearly_right, 30, 1000), "cross-fit", "superpopulation"),
    "wrong on 6%, n 100": (simple(nearly_right, 100, 1000), "cross-fit", "superpopulation"),
    "60 prompts, n 60": (clustered(60, 60, 0.5), "cross-fit", "superpopulation"),
    "40 uneven prompts, n 100": (clustered(100, 40, 1.2), "cross-fit", "superpopulation"),
    "100 uneven prompts, n 100": (clustered(100, 100, 1.2), "cross-fit", "superpopulation"),
    "stratified, n 100": (stratified(100, 1000), "cross-fit", "superpopulation"),
    "stratified, n 100, fixed": (stratified(100, 1000), "cross-fit", "fixed set"),
    "soft judge, n 100, fixed": (simple(latent, 100, 300), "cross-fit", "fixed set"),
    "60 prompts, n 60, fixed": (clustered(60, 60, 0.5), "cross-fit", "fixed set"),
    "40 whole prompts": (whole_prompts(200, 40), "cross-fit", "superpopulation"),
    "40 whole prompts, fixed": (whole_prompts(200, 40), "cross-fit", "fixed set"),
    "active, mix .5, n 50": (active(50, 1000, 0.5), "cross-fit", "superpopulation"),
    "active, mix .05, n 30": (active(30, 1000, 0.05), "cross-fit", "superpopulation"),
}


def truth_of(draw: Callable, rng: rng_type, runs: int) -> float:
    """The win rate of a world, from all pairs of many runs (its error is a small part of one interval)."""
    totals = np.zeros(2)
    for _ in range(runs):
        _, _, y = draw(rng)
        totals += float(y.sum()), len(y)
    return float(totals[0] / totals[1])


def held(
    trials: Iterator[tuple[Frame, Sample, np.ndarray, float]], method: str, estimand: str, seed: int
) -> np.ndarray:
    """By trial: whether the interval held the truth, NaN where it was refused; and its width."""
    out = []
    for k, (frame, sample, y, truth) in enumerate(trials):
        shown = headline(frame, sample, y, method=method, estimand=estimand, seed=seed + k).corrected
        out.append(
            [float(shown.low <= truth <= shown.high), shown.high - shown.low] if hasattr(shown, "low") else [np.nan] * 2
        )
    return np.array(out)


def fresh(draw: Callable, truth: float, rng: rng_type, rounds: int, estimand: str):
    """Runs of the world itself."""
    for _ in range(rounds):
        frame, sample, y = draw(rng)
        yield frame, sample, y[sample.rows], float(y.mean()) if estimand == "fixed set" else truth


def copies(frame: Frame, sample: Sample, y: np.ndarray, rng: rng_type, rounds: int, estimand: str):
    """The plain bootstrap: labelled pairs copied into a population, every copy its own prompt; labels drawn anew."""
    size, n = len(frame.gaps), len(y)
    p = sample.weights / sample.weights.sum()
    for _ in range(rounds):
        picked = rng.choice(n, size, p=p)
        if np.ptp(sample.chances) > 1e-12:
            at, chances = _systematic(sample.chances[picked], n, rng)
        else:
            at, chances = np.sort(rng.permutation(size)[:n]), np.full(n, n / size)
        truth = float(y[picked].mean() if estimand == "fixed set" else p @ y)
        yield (
            frame.take(sample.rows[picked]),
            Sample(at, chances, np.arange(size), np.arange(size)),
            y[picked][at],
            truth,
        )


def modelled(frame: Frame, sample: Sample, y: np.ndarray, rng: rng_type, rounds: int, estimand: str):
    """The self-check's own population."""
    shares = np.column_stack([y, np.zeros_like(y), 1 - y])
    world = _World.like(frame, Joined(sample, shares, ()), estimand)
    for _ in range(rounds):
        trial, truth = world.trial(rng)
        yield trial.frame, trial.sample, trial.human, truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000, help="fresh runs for the true coverage")
    parser.add_argument("--runs", type=int, default=60, help="runs that check themselves")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of each self-check")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started, rows = time.perf_counter(), []
    print(f"{'world':28}   true  width |  check    sd  width | copies    sd  width")
    for name, (draw, method, estimand) in WORLDS.items():
        if options.only not in name:
            continue
        rng = np.random.default_rng(1)
        truth = truth_of(draw, rng, 5 * options.draws)
        true = np.nanmean(held(fresh(draw, truth, rng, options.draws, estimand), method, estimand, 0), axis=0)
        said: dict[str, list[np.ndarray]] = {"check": [], "copies": []}
        for run in range(options.runs):
            frame, sample, y = draw(rng)
            for kind, simulate in (("check", modelled), ("copies", copies)):
                trials = simulate(frame, sample, y[sample.rows], np.random.default_rng(run), options.rounds, estimand)
                said[kind].append(np.nanmean(held(trials, method, estimand, run), axis=0))
        row = {"world": name, "true": float(true[0]), "width": float(true[1])}
        for kind, values in said.items():
            centre, spread = np.mean(values, axis=0), np.std(values, axis=0)
            row |= {kind: float(centre[0]), f"{kind}_sd": float(spread[0]), f"{kind}_width": float(centre[1])}
        rows.append(row)
        keys = ("true", "width", "check", "check_sd", "check_width", "copies", "copies_sd", "copies_width")
        shown = [f"{row[key]:6.3f}" for key in keys]
        print(f"{name:28} {' '.join(shown[:2])} | {' '.join(shown[2:5])} | {' '.join(shown[5:])}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
