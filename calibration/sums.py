"""The estimates of ``estimates`` from sums instead of rows: the same value and the same interval, exactly.

A store that keeps seven sums a cell (``Sums``) can show a clustered interval over a million rows without reading one.
With T_g and n_g the total and the number of rows of cluster g, the squared standard error of the mean m is

    se^2 = G/(G-1) sum_g (T_g - m n_g)^2 / n^2,
    sum_g (T_g - m n_g)^2 = sum T_g^2 - 2 m sum T_g n_g + m^2 sum n_g^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .estimates import Estimate, _wilson, rule_of_three, t_quantile, wilson

__all__ = ["Sums", "accuracy_of", "geometric_mean_of", "mean_of", "share_of"]


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of one quantity x: ``n`` rows with ``total`` and ``squares`` (sum of x^2), in ``clusters`` clusters.

    ``tt``, ``tn`` and ``nn`` are sums over clusters of total^2, of total times rows, and of rows^2. Sums of disjoint
    sets of clusters add up field by field.
    """

    n: int
    total: float
    squares: float
    clusters: int
    tt: float
    tn: float
    nn: float

    def __add__(self, other: Sums) -> Sums:
        """The sums of both, where no cluster is in both."""
        return Sums(
            self.n + other.n,
            self.total + other.total,
            self.squares + other.squares,
            self.clusters + other.clusters,
            self.tt + other.tt,
            self.tn + other.tn,
            self.nn + other.nn,
        )

    @property
    def standard_error(self) -> float:
        """Of the mean, robust to clusters; NaN with fewer than two of them."""
        if self.clusters < 2:
            return math.nan
        m = self.total / self.n
        spread = max(0.0, self.tt - 2 * m * self.tn + m * m * self.nn)
        return math.sqrt(self.clusters / (self.clusters - 1) * spread) / self.n

    @property
    def constant(self) -> bool:
        """Whether all rows have one value, up to rounding."""
        return self.n * self.squares - self.total**2 <= 1e-12 * max(1.0, self.n * self.squares)


def mean_of(sums: Sums, *, level: float = 0.95, bounds: tuple[float, float] | None = None) -> Estimate | None:
    """``estimates.mean`` from sums, clusters included; ``None`` for no rows."""
    n, count = sums.n, sums.clusters
    if n == 0:
        return None
    centre = sums.total / n
    lowest, highest = bounds if bounds is not None else (-math.inf, math.inf)
    if count < 2:
        return Estimate(centre, lowest, highest, level, n, count, "one cluster: nothing is known about the spread")
    if bounds is not None and sums.constant:
        low, high = rule_of_three(centre, count, bounds=bounds, level=level)
        return Estimate(centre, low, high, level, n, count, "all values equal: rule of three")
    half = t_quantile(level, count - 1) * sums.standard_error
    return Estimate(centre, max(lowest, centre - half), min(highest, centre + half), level, n, count, "clustered t")


def share_of(sums: Sums, *, level: float = 0.95) -> Estimate | None:
    """``estimates.share`` from sums of zeros and ones, clusters included; ``None`` for no rows."""
    n, count = sums.n, sums.clusters
    if n == 0:
        return None
    p = sums.total / n
    if count == n:
        low, high = wilson(sums.total, n, level=level)
        return Estimate(p, low, high, level, n, count, "Wilson")
    if count == 1:
        return Estimate(p, 0.0, 1.0, level, n, count, "one cluster: nothing is known about the spread")
    independent = p * (1 - p) / n
    effect = sums.standard_error**2 / independent if independent > 0 else n / count
    effective = n / max(1.0, effect)
    low, high = _wilson(p, effective, t_quantile(level, count - 1))
    return Estimate(p, low, high, level, n, count, "Wilson, clustered")


def accuracy_of(sums: Sums, *, level: float = 0.95) -> Estimate | None:
    """``estimates.accuracy`` from sums of ones, zeros and halves; ``None`` for no rows."""
    if sums.total == sums.squares:  # only zeros and ones are their own squares; a half falls short, exactly
        return share_of(sums, level=level)
    return mean_of(sums, level=level, bounds=(0.0, 1.0))


def geometric_mean_of(sums: Sums, *, level: float = 0.95) -> Estimate | None:
    """``estimates.geometric_mean_ratio`` from sums of log ratios; ``None`` for no rows."""
    logs = mean_of(sums, level=level)
    if logs is None:
        return None
    low, high = (math.exp(min(edge, 700.0)) for edge in (logs.low, logs.high))
    return Estimate(math.exp(logs.value), low, high, level, logs.n, logs.clusters, f"geometric mean, {logs.method}")
