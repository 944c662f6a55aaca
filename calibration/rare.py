"""A difference of two shares whose events are rare and may come in clusters: bounds that hold where few rows differ.

A design effect that is estimated from three events is no design effect: where they happen to lie in small clusters, the
sample looks larger than it is. A candidate that lies on a limit of 2 points then passes up to 45 times of 100 (400
clusters of which one in twenty has 20 rows, all of a cluster alike), where 2.5 are meant. Here the number of events is
a weighted sum of Poisson counts, one a cluster:

    upper end of sum w_g d_g   (v + m^2) / (2 (y + m)) times the chi-square quantile at 2 (y + m)^2 / (v + m^2) degrees
    lower end                  v / (2 y) times the quantile at 2 y^2 / v

with y = sum of the clusters' shares of all rows that have the event, v the sum of their squares, and m the weight of
the cluster that may yet have one (Fay and Feuer 1997, Statistics in Medicine 16:791). They take the largest cluster for
m, which is safe and without power; here it is the size-biased mean sum n_g^2 / (n sum n_g), the cluster in which the
next row lies. The two ways to differ are joined by the recovery of variance estimates (Zou and Donner 2008, Statistics
in Medicine 27:1693). ``benchmarks/rare_events.py`` prints how often it passes a candidate on the limit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["clustered_ends"]

Array = npt.NDArray[np.float64]


def clustered_ends(delta: Array, groups: npt.NDArray[np.int64], *, level: float = 0.95) -> tuple[float, float]:
    """The two ends of an interval for the mean of ``delta``, values -1, 0 or 1; ``groups`` are clusters 0..G-1.

    >>> low, high = clustered_ends(np.zeros(400), np.arange(400) // 4)
    >>> round(low, 4), round(high, 4)  # nothing of 100 clusters: the rule of three on clusters
    (-0.0369, 0.0369)
    """
    sizes = np.bincount(groups).astype(np.float64)
    n = float(sizes.sum())
    next_one = float(sizes @ sizes) / n**2
    more, less = (np.bincount(groups, weights=delta == sign) / n for sign in (1.0, -1.0))
    (low_more, high_more), (low_less, high_less) = (_gamma(part, next_one, level) for part in (more, less))
    up, down = float(more.sum()), float(less.sum())
    value = up - down
    return (
        max(-1.0, value - math.hypot(up - low_more, high_less - down)),
        min(1.0, value + math.hypot(high_more - up, down - low_less)),
    )


def _gamma(parts: Array, next_one: float, level: float) -> tuple[float, float]:
    from scipy.special import gammaincinv

    tail = (1.0 - level) / 2.0
    y, v = float(parts.sum()), float(parts @ parts)
    low = float(v / y * gammaincinv(y**2 / v, tail)) if y else 0.0
    y, v = y + next_one, v + next_one**2
    return low, float(v / y * gammaincinv(y**2 / v, 1.0 - tail))
