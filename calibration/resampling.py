"""The prediction-powered bootstrap of a win rate, at the cost of a few cells instead of all rows.

Zrnic 2024 (arXiv 2405.18379): theta = mean(Y) + lam (mean(f, unlabelled) - mean(f, labelled)), every part resampled,
labelled rows in pairs (Y, f). Resampling rows costs rounds x rows. But a resampled mean depends on the rows only
through how often each distinct value was drawn, and those counts are multinomial: rounds x cells. Judge scores with
many distinct values are grouped into eight bins; what a bin loses of the variance within it is drawn back as normal
noise of exactly that variance, so the resampled mean has the mean and variance of the row bootstrap and nearly its
skewness. A part of 10,000 rows or more is one bin: the skewness of its resampled mean is below 0.01 times that of a
row.

One row is one prompt: average repeats and both orders of a prompt first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rubrics.errors import InputError

from .calibrators import Array
from .estimates import Estimate, rule_of_three

__all__ = ["LABEL_FLOOR", "powered_bootstrap"]

LABEL_FLOOR = 30
"""Labelled prompts below which no corrected rate is given."""
_BINS = 8
_LARGE = 10_000


def powered_bootstrap(
    human: Sequence[float] | Array,
    judge: Sequence[float] | Array,
    unlabelled: Sequence[float] | Array,
    *,
    rounds: int = 10_000,
    level: float = 0.95,
    power: float | None = None,
    seed: int = 0,
) -> Estimate | None:
    """Human-scale win rate with a percentile bootstrap interval; ``None`` below 30 labels or without unlabelled rows.

    ``human`` holds outcomes 1, 0.5, 0 of prompts drawn at random from this run, ``judge`` the judge's preferences on
    the same prompts, ``unlabelled`` those on all others. ``power`` is lam: 1 is plain PPI, 0 ignores the judge, the
    default is the value that minimises the variance, cov(Y, f) / ((1 + n/N) var(f)) held in [0, 1]. Percentiles are a
    little narrow below 100 labels; a t interval is the better choice there.

    Raises ``InputError`` for values out of range or lists of unequal length.
    """
    y, f, rest = (np.asarray(v, dtype=np.float64) for v in (human, judge, unlabelled))
    if y.shape != f.shape or y.ndim != 1 or rest.ndim != 1:
        raise InputError(f"human and judge must be two lists of one length; got {y.shape} and {f.shape}")
    if not np.all(np.isin(y, (0.0, 0.5, 1.0))):
        raise InputError("human outcomes must be 1 (win), 0.5 (tie) or 0 (loss)")
    if not all(v.min() >= 0.0 and v.max() <= 1.0 for v in (f, rest) if v.size):
        raise InputError("judge preferences must lie in [0, 1]; leave invalid comparisons out and count them")
    if power is not None and not 0.0 <= power <= 1.0:
        raise InputError(f"power must lie in [0, 1]; got {power}")
    if y.size < LABEL_FLOOR or rest.size == 0:
        return None
    lam = _power(y, f, rest) if power is None else power
    rng = np.random.default_rng(seed)
    # labelled rows enter through one number each, Y - lam f, so they need no pairing beyond their own bins
    own = y - lam * f
    draws = _means(own, rounds, rng) + lam * _means(rest, rounds, rng)
    value = float(own.mean() + lam * rest.mean())
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    if np.ptp(own) == 0.0:  # no label ever differed: resampling shows no spread, but n labels cannot rule one out
        low, high = rule_of_three(value, y.size, bounds=(0.0, 1.0), level=level)
    return Estimate(
        value=value,
        low=float(np.clip(min(low, value), 0.0, 1.0)),
        high=float(np.clip(max(high, value), 0.0, 1.0)),
        level=level,
        n=y.size,
        clusters=y.size,
        method=f"prediction-powered bootstrap, {rounds} rounds, lam {lam:.3f}",
    )


def _power(y: Array, f: Array, rest: Array) -> float:
    variance = float(np.var(np.concatenate([f, rest]), ddof=1))
    if variance == 0.0:
        return 0.0
    best = float(np.cov(y, f)[0, 1]) / ((1.0 + y.size / rest.size) * variance)
    return min(max(best, 0.0), 1.0)


def _means(x: Array, rounds: int, rng: np.random.Generator) -> Array:
    """Resampled means of ``x``: multinomial counts over bins, and normal noise for the variance inside them."""
    low, high = float(x.min()), float(x.max())
    if low == high:
        return np.full(rounds, low)
    if x.size >= _LARGE:
        return np.asarray(x.mean() + x.std() / np.sqrt(x.size) * rng.standard_normal(rounds))
    code = ((x - low) * ((_BINS - 1e-9) / (high - low))).astype(np.intp)
    size = np.bincount(code, minlength=_BINS)
    used = size > 0
    count = size[used].astype(np.float64)
    centre = np.bincount(code, weights=x, minlength=_BINS)[used] / count
    inside = max(float(x @ x) - float(count @ (centre * centre)), 0.0) / x.size
    drawn = rng.multinomial(x.size, count / x.size, size=rounds)
    return np.asarray(drawn @ centre / x.size + np.sqrt(inside / x.size) * rng.standard_normal(rounds))
