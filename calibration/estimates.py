"""Numbers with their uncertainty: ``Estimate`` is the only way a number leaves this package.

Intervals are clustered: rows that share a cluster (a prompt) are one observation of it, however many rows there are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rubrics.errors import InputError

__all__ = ["Estimate", "mean", "share"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval: ``low`` and ``high`` at ``level``, from ``n`` rows in ``clusters`` clusters, by ``method``."""

    value: float
    low: float
    high: float
    level: float
    n: int
    clusters: int
    method: str


def mean(
    values: Sequence[float] | np.ndarray[Any, Any],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Estimate | None:
    """Mean with a cluster-robust t interval, clipped to ``bounds``; ``None`` for no values.

    se^2 = G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2 with G clusters and G - 1 degrees of freedom (Miller 2024,
    arXiv 2411.00640). One cluster says nothing about the spread: the interval is then ``bounds``, or unbounded.
    Raises ``InputError`` for values that are not finite or a cluster list of another length.
    """
    x, groups = _checked(values, clusters)
    n = len(x)
    if n == 0:
        return None
    centre = float(x.mean())
    sums = np.bincount(groups, weights=x - centre)
    count = len(sums)
    lowest, highest = bounds if bounds is not None else (-math.inf, math.inf)
    if count < 2:
        return Estimate(centre, lowest, highest, level, n, count, "one cluster: nothing is known about the spread")
    se = math.sqrt(count / (count - 1) * float(sums @ sums)) / n
    half = _t_quantile(level, count - 1) * se
    if se == 0.0 and bounds is not None:
        # All values equal: the t interval has no width, which would claim certainty. Use the rule of three on the cluster count.
        half = (highest - lowest) * (1 - ((1 - level) / 2) ** (1 / count))
    return Estimate(centre, max(lowest, centre - half), min(highest, centre + half), level, n, count, "clustered t")


def share(
    hits: Sequence[float] | np.ndarray[Any, Any], *, clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Estimate | None:
    """Share of ones with a Wilson interval at the effective sample size; ``None`` for no rows.

    With clusters the sample size is divided by the design effect (clustered over independent variance, at least 1), so 0 of n
    and n of n keep an honest width (Wilson 1927; Korn and Graubard 1998).
    """
    x, groups = _checked(hits, clusters)
    n = len(x)
    if n == 0:
        return None
    if not np.isin(x, (0.0, 1.0)).all():
        raise InputError("share takes zeros and ones; use mean for other values")
    p = float(x.mean())
    count = int(groups.max()) + 1
    effective = float(n)
    if count < n:
        sums = np.bincount(groups, weights=x - p)
        independent = p * (1 - p) / n
        if count > 1 and independent > 0:
            clustered = count / (count - 1) * float(sums @ sums) / n**2
            effective = n / max(1.0, clustered / independent)
        else:
            effective = float(count)
    z = _z_quantile(level) if count == n else _t_quantile(level, max(count - 1, 1))
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z * math.sqrt(p * (1 - p) / effective + z * z / (4 * effective**2)) / (1 + z * z / effective)
    return Estimate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), level, n, count, "Wilson, clustered" if count < n else "Wilson")


def _checked(
    values: Sequence[float] | np.ndarray[Any, Any], clusters: Sequence[Hashable] | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise InputError("estimates need a flat list of finite numbers; drop or count missing values first")
    if clusters is None:
        return x, np.arange(len(x))
    if len(clusters) != len(x):
        raise InputError(f"{len(x)} values but {len(clusters)} cluster names; give one per value")
    codes: dict[Hashable, int] = {}
    return x, np.array([codes.setdefault(name, len(codes)) for name in clusters], dtype=np.int64)


def _t_quantile(level: float, df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))


def _z_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
