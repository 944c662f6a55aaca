"""Many segments at once: adjusted p values, and rates pulled towards their mean as far as their noise demands.

Twelve segments tested at 5% each flag a healthy one in almost every second report. Block on adjusted p values, show the
shrunk rate beside the raw one, and never a rate without its n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import (
    Clusters,
    Estimate,
    Values,
    cluster_codes,
    mean,
    normal_quantile,
    rule_of_three,
    standard_error,
    t_cdf,
    t_quantile,
)

__all__ = [
    "Pooled",
    "Segment",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "between_variance",
    "holm",
    "pool",
    "segment_rates",
]

Array = npt.NDArray[np.float64]


def benjamini_hochberg(p: Values) -> Array:
    """Adjusted p values that keep the false discovery rate; flag those at or under the rate.

    Benjamini and Hochberg 1995: q_(i) = min over k >= i of p_(k) m / k. Independent or positively dependent tests.
    """
    return _step_up(p, 1.0)


def benjamini_yekutieli(p: Values) -> Array:
    """The same under any dependence: Benjamini-Hochberg times 1 + 1/2 + ... + 1/m (Benjamini and Yekutieli 2001)."""
    return _step_up(p, float(sum(1 / k for k in range(1, len(p) + 1))))


def holm(p: Values) -> Array:
    """Adjusted p values that keep the chance of any false flag (Holm 1979); for gates where any one segment blocks."""
    x = _p_values(p)
    order = np.argsort(x, kind="stable")
    steps = np.maximum.accumulate(x[order] * np.arange(len(x), 0, -1))
    adjusted = np.empty(len(x))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


@dataclass(frozen=True, slots=True)
class Pooled:
    """Partially pooled segments: spread ``tau2`` between true rates, their common ``mean``, and one value a segment.

    ``weights`` are the B of each segment: the share of its own rate in its shrunk value.
    """

    tau2: float
    mean: Estimate
    shrunk: tuple[Estimate, ...]
    weights: tuple[float, ...]


def between_variance(values: Values, variances: Values, *, method: Literal["pm", "dl"] = "pm") -> float:
    """Variance between true segment rates, never below 0.

    ``dl``: DerSimonian and Laird 1986, (Q - (k-1)) / (sum w - sum w^2 / sum w) with w = 1/variance, clamped at 0
    (unclamped it is -44.6 on the Eight Schools, where the answer is 0). ``pm``: Paule and Mandel 1982, the tau2 at
    which Q equals k - 1.
    """
    y, v = _pairs(values, variances)
    if len(y) < 2:
        return 0.0

    def excess(tau2: float) -> float:
        w = 1 / (v + tau2)
        return float((w * (y - (w * y).sum() / w.sum()) ** 2).sum()) - (len(y) - 1)

    if method == "dl":
        w = 1 / v
        return max(0.0, excess(0.0) / float(w.sum() - (w**2).sum() / w.sum()))
    if excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(np.ptp(y)) ** 2 + float(v.max())
    while excess(high) > 0:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def pool(
    values: Values,
    variances: Values,
    *,
    level: float = 0.95,
    counts: Sequence[int] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    method: Literal["pm", "dl"] = "pm",
) -> Pooled | None:
    """Shrink segment rates towards their precision-weighted mean; ``None`` for no segments.

    Empirical Bayes (Efron and Morris 1975):     B = tau2 / (tau2 + se^2); shrunk = B value + (1 - B) mean; its variance
    B se^2 + (1 - B)^2 / sum 1/(se^2 + tau2). In simulation (12 segments of 30-120 rows, one bad) the error falls from
    .062 to .047. Raises ``InputError`` for variances not above 0. Eight Schools: tau2 0, mean 7.686, se 4.072.
    """
    y, v = _pairs(values, variances)
    if len(y) == 0:
        return None
    rows = list(counts) if counts is not None else [1] * len(y)
    tau2 = between_variance(y, v, method=method)
    w = 1 / (v + tau2)
    centre, total = float((w * y).sum() / w.sum()), float(w.sum())
    z = normal_quantile(level)

    def clipped(value: float, variance: float, n: int, name: str) -> Estimate:
        half = z * math.sqrt(variance)
        value = min(max(value, bounds[0]), bounds[1])
        return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half), level, n, n, name)

    own = tau2 / (tau2 + v)
    spread = own * v + (1 - own) ** 2 / total
    shrunk = own * y + (1 - own) * centre
    return Pooled(
        tau2=tau2,
        mean=clipped(centre, 1 / total, sum(rows), "random effects mean"),
        shrunk=tuple(
            clipped(float(a), float(b), n, "partially pooled") for a, b, n in zip(shrunk, spread, rows, strict=True)
        ),
        weights=tuple(float(b) for b in own),
    )


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its own rate, its shrunk rate (``None`` where it could not be pooled), and its test.

    ``p`` is two-sided against the reference rate, ``q`` the Benjamini-Hochberg and ``p_holm`` the Holm value over all
    segments of the report; both ``None`` where the segment has fewer than two clusters or no spread to test.
    """

    name: str
    n: int
    raw: Estimate
    shrunk: Estimate | None
    p: float | None
    q: float | None
    p_holm: float | None


def segment_rates(
    values: Values,
    segments: Sequence[str],
    *,
    clusters: Clusters | None = None,
    reference: float = 0.5,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[Segment, ...]:
    """Every segment's mean of ``values`` raw and shrunk, tested against ``reference``; sorted by name.

    A segment without spread (all wins) is tested and pooled with the variance of its rule-of-three interval, so that
    three wins of three do not pass for certainty.
    """
    x = np.asarray(values, dtype=float)
    if len(segments) != len(x):
        raise InputError(f"{len(x)} values but {len(segments)} segment names; give one per value")
    codes = cluster_codes(clusters, len(x))
    names = sorted(set(segments))
    where = np.array([names.index(name) for name in segments], dtype=np.int64)
    raws, variances = [], []
    for k in range(len(names)):
        rows = where == k
        raw = mean(x[rows], clusters=codes[rows], level=level, bounds=bounds)
        assert raw is not None
        raws.append(raw)
        variances.append(_variance(x[rows], codes[rows], raw, bounds))
    return _tested(names, raws, variances, reference=reference, level=level, bounds=bounds)


def _tested(
    names: Sequence[str],
    raws: Sequence[Estimate],
    variances: Sequence[float],
    *,
    reference: float,
    level: float,
    bounds: tuple[float, float],
) -> tuple[Segment, ...]:
    usable = [k for k, variance in enumerate(variances) if math.isfinite(variance)]
    pooled = pool(
        [raws[k].value for k in usable],
        [variances[k] for k in usable],
        level=level,
        counts=[raws[k].n for k in usable],
        bounds=bounds,
    )
    p = [
        2 * t_cdf(-abs(raws[k].value - reference) / math.sqrt(variances[k]), max(raws[k].clusters - 1, 1))
        for k in usable
    ]
    q, family = benjamini_hochberg(p), holm(p)
    place = {k: i for i, k in enumerate(usable)}
    rows = []
    for k, (name, raw) in enumerate(zip(names, raws, strict=True)):
        i = place.get(k)
        if i is None or pooled is None:
            rows.append(Segment(name, raw.n, raw, None, None, None, None))
        else:
            rows.append(Segment(name, raw.n, raw, pooled.shrunk[i], p[i], float(q[i]), float(family[i])))
    return tuple(rows)


def _variance(x: Array, codes: npt.NDArray[np.int64], raw: Estimate, bounds: tuple[float, float]) -> float:
    if raw.clusters < 2:
        return math.nan
    se = standard_error(x, codes)
    if se > 0:
        return se**2
    low, high = rule_of_three(raw.value, raw.clusters, bounds=bounds, level=raw.level)
    return (max(high - raw.value, raw.value - low) / t_quantile(raw.level, raw.clusters - 1)) ** 2


def _step_up(p: Values, factor: float) -> Array:
    x = _p_values(p)
    m = len(x)
    order = np.argsort(x, kind="stable")
    scaled = x[order] * factor * m / np.arange(1, m + 1)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _p_values(p: Values) -> Array:
    x = np.asarray(p, dtype=float)
    if x.ndim != 1 or not ((x >= 0) & (x <= 1)).all():
        raise InputError("p values must be numbers from 0 to 1")
    return x


def _pairs(values: Values, variances: Values) -> tuple[Array, npt.NDArray[Any]]:
    y, v = np.asarray(values, dtype=float), np.asarray(variances, dtype=float)
    if len(y) != len(v) or not np.isfinite(y).all() or not (np.isfinite(v) & (v > 0)).all():
        raise InputError("pooling needs one finite value and one variance above 0 for each segment")
    return y, v
