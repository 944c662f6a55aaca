"""Looking at results while they come in, without the false alarms of looking often.

Checking a fixed-sample test every 50 judgements raises 33% false alarms at a nominal 5%; a confidence sequence keeps
its promise at all times together, so judging may stop whenever its interval says enough.

    betting      hedged capital of Waudby-Smith, Ramdas (arXiv 2010.09686): exact for any mean of values in [0, 1];
                 for safety streams
    asymptotic   Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (arXiv 2103.06476): tighter, valid from about 50 values
                 on; for stopping a run of judgements early

One value is one independent unit: average the two orders and all repeats of a prompt before handing it in. Values come
in the order in which they were drawn, and that order must not depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rubrics.errors import InputError

from .calibrators import Array
from .estimates import Estimate

__all__ = [
    "Monitor",
    "Track",
    "asymptotic_track",
    "betting_bounds",
    "betting_track",
    "e_average",
    "e_benjamini_hochberg",
    "e_value",
    "log_capital",
    "monitor",
]

MINIMUM = 50
"""Values before the asymptotic sequence says anything."""
_TRUNCATION = 0.5
_GRID = 1001
_HALVINGS = 17


@dataclass(frozen=True, slots=True)
class Track:
    """A confidence sequence: after value t (from 1), the mean so far and an interval; all intervals hold together.

    Before ``start`` values the interval is the whole range.
    """

    means: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    level: float
    start: int
    method: str


@dataclass(frozen=True, slots=True)
class Monitor:
    """Where a stream stands against ``null``.

    ``estimate`` is the interval after the last value, valid although it was looked at all along. ``stopped_at`` is the
    first value after which the interval left ``null`` out (``None``: not yet), ``direction`` on which side.
    """

    estimate: Estimate
    null: float
    stopped_at: int | None
    direction: Literal["above", "below"] | None
    track: Track


def log_capital(values: Sequence[float] | Array, null: float, *, alpha: float = 0.05) -> tuple[float, float]:
    """Log of the capital won by betting that the mean is above ``null``, and that it is below, from 1 each.

    Capital = prod(1 +- lam_t (x_t - m)), lam_t = sqrt(2 ln(2/alpha) / (s2_{t-1} t ln(1 + t))) held below 1/2 / m (up)
    or 1/2 / (1 - m) (down); s2 is the running variance with prior 1/4. For values in [0, 1] and 0 < ``null`` < 1.
    """
    x = _checked(values, alpha)
    if not 0.0 < null < 1.0:
        raise InputError(f"null must lie inside (0, 1); got {null}")
    up, down = _capital(x, np.array([null]), alpha)
    return (float(up[-1, 0]), float(down[-1, 0])) if x.size else (0.0, 0.0)


def betting_track(values: Sequence[float] | Array, *, level: float = 0.95) -> Track | None:
    """Hedged betting confidence sequence for the mean of values in [0, 1]; ``None`` without values.

    A mean m leaves the interval for good once max(up/2, down/2) reached 1/alpha at any earlier time. The interval is
    rounded outward to a grid of 1/1000.
    """
    x = _checked(values, 1.0 - level)
    if not x.size:
        return None
    grid = np.linspace(0.0, 1.0, _GRID)
    inside = grid[1:-1]
    up, down = _capital(x, inside, 1.0 - level)
    best = np.maximum.accumulate(np.maximum(up, down), axis=0) - math.log(2.0)
    kept = best < -math.log(1.0 - level)
    any_kept = kept.any(axis=1)
    first = np.where(any_kept, np.argmax(kept, axis=1), 0)
    last = np.where(any_kept, kept.shape[1] - 1 - np.argmax(kept[:, ::-1], axis=1), kept.shape[1] - 1)
    means = np.cumsum(x) / np.arange(1, x.size + 1)
    # grid[k] is the point just below inside[k]; where everything is rejected only the mean itself is left
    lows = np.where(any_kept, grid[first], np.maximum(means - 1.0 / _GRID, 0.0))
    highs = np.where(any_kept, grid[last + 2], np.minimum(means + 1.0 / _GRID, 1.0))
    return Track(*_tuples(means, lows, highs), level, 1, "hedged betting confidence sequence")


def betting_bounds(
    values: Sequence[float] | Array,
    *,
    alpha_low: float,
    alpha_high: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate | None:
    """The mean of a stream with two one-sided bounds, each valid at every look; ``None`` without values.

    The mean lies below ``low`` with a chance of at most ``alpha_low``, above ``high`` of at most ``alpha_high``,
    however often one looks (Ville's inequality on the capitals of ``log_capital``, the running best of each). ``level``
    is 1 - alpha_low - alpha_high. Found by bisection: memory is one stream, ``betting_track`` holds a grid of them.
    """
    x = _checked(values, alpha_low, bounds)
    _checked((), alpha_high)
    if not x.size:
        return None
    width = bounds[1] - bounds[0]
    z = (x - bounds[0]) / width
    centre = float(z.mean())

    def reached(null: float, side: int, alpha: float) -> bool:
        return float(_capital(z, np.array([null]), 2.0 * alpha)[side].max()) >= -math.log(alpha)

    def edge(side: int, alpha: float) -> float:
        inside, outside = centre, float(side)  # up rejects small means, down large ones
        if not 0.0 < centre < 1.0:
            inside = min(max(centre, 1e-9), 1.0 - 1e-9)
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2.0
            if reached(middle, side, alpha):
                outside = middle
            else:
                inside = middle
        return outside

    low, high = edge(0, alpha_low), edge(1, alpha_high)
    low, high, value = (bounds[0] + width * end for end in (min(low, centre), max(high, centre), centre))
    level = 1.0 - alpha_low - alpha_high
    return Estimate(value, low, high, level, int(x.size), int(x.size), "betting bounds, valid at every look")


def asymptotic_track(
    values: Sequence[float] | Array,
    *,
    level: float = 0.95,
    planned: int = 1000,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Track | None:
    """Asymptotic confidence sequence, tightest around ``planned`` values; ``None`` without values.

    mean +- sqrt((t s2 r2 + 1) / (t2 r2) * 2 ln(sqrt(t s2 r2 + 1) / alpha)), r2 = (-2 ln a + ln(-2 ln a + 1)) / (s2
    planned), s2 the running variance (ddof 0). Says nothing (the whole of ``bounds``) before 50 values or while all are
    equal.
    """
    alpha = 1.0 - level
    x = _checked(values, alpha, bounds)
    if planned < 1:
        raise InputError(f"planned must be at least 1; got {planned}")
    if not x.size:
        return None
    t = np.arange(1, x.size + 1)
    means = np.cumsum(x) / t
    variance = np.maximum(np.cumsum(x * x) / t - means**2, 0.0)
    known = (t >= MINIMUM) & (variance > 1e-12)
    tuning = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0)) / planned
    mixed = t * tuning + 1.0
    half = np.sqrt(variance * mixed / (t * t * tuning) * 2.0 * np.log(np.sqrt(mixed) / alpha))
    lows = np.where(known, np.maximum(means - half, bounds[0]), bounds[0])
    highs = np.where(known, np.minimum(means + half, bounds[1]), bounds[1])
    return Track(*_tuples(means, lows, highs), level, MINIMUM, "asymptotic confidence sequence")


def monitor(
    values: Sequence[float] | Array,
    *,
    null: float = 0.5,
    level: float = 0.95,
    method: Literal["asymptotic", "betting"] = "asymptotic",
    planned: int = 1000,
) -> Monitor | None:
    """Follow a stream of values in [0, 1] and say whether and when it left ``null``; ``None`` without values."""
    if method == "betting":
        track = betting_track(values, level=level)
    elif method == "asymptotic":
        track = asymptotic_track(values, level=level, planned=planned)
    else:
        raise InputError(f"unknown method {method!r}; use asymptotic or betting")
    if track is None:
        return None
    lows, highs = np.asarray(track.lows), np.asarray(track.highs)
    out = np.flatnonzero((lows > null) | (highs < null))
    stop = int(out[0]) if out.size else None
    n = lows.size
    mean = float(track.means[-1])
    estimate = Estimate(
        value=mean,
        low=min(float(lows[-1]), mean),
        high=max(float(highs[-1]), mean),
        level=level,
        n=n,
        clusters=n,
        method=track.method,
    )
    direction: Literal["above", "below"] | None = None if stop is None else ("above" if lows[stop] > null else "below")
    return Monitor(estimate, null, None if stop is None else stop + 1, direction, track)


def e_value(
    values: Sequence[float] | Array, null: float, *, side: Literal["above", "below"] = "above", alpha: float = 0.05
) -> float:
    """Evidence against "the mean is not ``side`` of ``null``": the betting capital now, 1 without values.

    Under the null its expectation is at most 1 at any stopping time; reject at level a when it reaches 1/a.
    """
    up, down = log_capital(values, null, alpha=alpha)
    return math.exp(min(up if side == "above" else down, 700.0))


def e_average(e_values: Sequence[float]) -> float | None:
    """The mean of e-values is an e-value for "all nulls hold", whatever their dependence; ``None`` for none."""
    if not e_values:
        return None
    if not all(e >= 0.0 for e in e_values):
        raise InputError("e-values must not be negative or NaN")
    return float(np.mean(e_values))


def e_benjamini_hochberg(e_values: Sequence[float], *, q: float = 0.05) -> tuple[bool, ...]:
    """Which nulls e-BH rejects at false discovery rate ``q`` under any dependence (Wang, Ramdas 2022, arXiv
    2009.02824).

    The k largest are rejected for the largest k with e_(k) >= m / (q k).
    """
    e = np.asarray(e_values, dtype=np.float64)
    if e.size and not np.all(e >= 0.0):
        raise InputError("e-values must not be negative or NaN")
    if not 0.0 < q < 1.0:
        raise InputError(f"q must lie between 0 and 1; got {q}")
    order = np.argsort(-e, kind="stable")
    passed = np.flatnonzero(e[order] * np.arange(1, e.size + 1) * q >= e.size)
    out = np.zeros(e.size, dtype=bool)
    if passed.size:
        out[order[: passed[-1] + 1]] = True
    return tuple(bool(x) for x in out)


def _checked(values: Sequence[float] | Array, alpha: float, bounds: tuple[float, float] = (0.0, 1.0)) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.all((x >= bounds[0]) & (x <= bounds[1])):
        raise InputError(f"a sequence needs values in [{bounds[0]:g}, {bounds[1]:g}]; leave out invalid ones")
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha (1 - level) must lie between 0 and 1; got {alpha}")
    return x


def _tuples(means: Array, lows: Array, highs: Array) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    return tuple(means.tolist()), tuple(lows.tolist()), tuple(highs.tolist())


def _capital(x: Array, null: Array, alpha: float) -> tuple[Array, Array]:
    """Cumulative log capital up and down, each (values, nulls)."""
    t = np.arange(1, x.size + 1)
    centre = (0.5 + np.cumsum(x)) / (t + 1.0)
    variance = (0.25 + np.cumsum((x - centre) ** 2)) / (t + 1.0)
    before = np.concatenate([[0.25], variance[:-1]])
    stake = np.sqrt(2.0 * math.log(2.0 / alpha) / (before * t * np.log1p(t)))[:, None]
    gap = x[:, None] - null[None, :]
    up = np.cumsum(np.log1p(np.minimum(stake, _TRUNCATION / null) * gap), axis=0)
    down = np.cumsum(np.log1p(-np.minimum(stake, _TRUNCATION / (1.0 - null)) * gap), axis=0)
    return up, down
