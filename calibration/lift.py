"""What an attack adds: a paired difference of two success rates, with an interval that stays honest near 0 and 1.

MOVER (Zou and Donner 2008) over two Wilson intervals, which for independent pairs is Newcombe's method 10 (1998): with
rates p and q, their intervals [l, u] and [m, v], and r the correlation of the two,

    low  = p - q - sqrt((p - l)^2 - 2 r (p - l)(v - q) + (v - q)^2)
    high = p - q + sqrt((u - p)^2 - 2 r (u - p)(q - m) + (q - m)^2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rubrics.errors import InputError

from .estimates import Estimate, cluster_codes, share

__all__ = ["Lift", "paired_lift"]


@dataclass(frozen=True, slots=True)
class Lift:
    """Success with and without, both with Wilson intervals, and the paired difference."""

    attacked: Estimate
    plain: Estimate
    lift: Estimate


def paired_lift(
    attacked: Sequence[float],
    plain: Sequence[float],
    *,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Lift | None:
    """P(success attacked) - P(success plain) over the same rows; ``None`` for no rows.

    Rows are zeros and ones; rows that share a cluster (a prompt) are not independent, and both Wilson intervals are
    widened by their design effect. ``r`` is the correlation of the clusters' means, 0 where one of them never varies.
    Example: 9 of 50 against 3 of 50, of which 3 succeed both times, is 0.12 [0.03, 0.23].
    """
    if len(attacked) != len(plain):
        raise InputError(f"a paired lift needs the same rows on both sides, not {len(attacked)} and {len(plain)}")
    one, two = (share(side, clusters=clusters, level=level) for side in (attacked, plain))
    if one is None or two is None:
        return None
    codes = cluster_codes(clusters, len(attacked))
    size = np.bincount(codes)
    a, b = (np.bincount(codes, weights=np.asarray(side, dtype=float)) / size for side in (attacked, plain))
    flat = len(a) < 2 or float(np.std(a)) == 0.0 or float(np.std(b)) == 0.0
    r = 0.0 if flat else float(np.corrcoef(a, b)[0, 1])
    gap = one.value - two.value
    below = _reach(one.value - one.low, two.high - two.value, r)
    above = _reach(one.high - one.value, two.value - two.low, r)
    low, high = max(-1.0, gap - below), min(1.0, gap + above)
    method = f"Newcombe's paired interval from Wilson intervals, correlation {r:.2f}"
    return Lift(one, two, Estimate(gap, low, high, level, one.n, one.clusters, method))


def _reach(first: float, second: float, r: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * r * first * second + second**2))
