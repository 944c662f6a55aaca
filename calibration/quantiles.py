"""Quantiles of paired measurements (latencies), and their ratio, with intervals from whole clusters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rubrics.errors import InputError

from .estimates import Array, Clusters, Estimate, Values, cluster_codes

__all__ = ["quantile", "quantile_ratio"]

_DRAWS = 40_000_000
"""Rows that all rounds of a bootstrap draw together, at most."""
_FEWEST = 200


def quantile(
    values: Values,
    q: float,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
) -> Estimate | None:
    """The ``q`` quantile (linear between order statistics) with a percentile bootstrap interval over clusters.

    ``None`` for no values. A quantile beyond the data's reach (fewer than 1 / (1 - q) values for a high one) has the
    largest value as its upper end at best, and ``method`` says so.
    """
    x = _checked(values, q)
    if not len(x):
        return None
    picks, groups = _rounds(cluster_codes(clusters, len(x)), rounds, seed)
    drawn = np.array([np.quantile(x[_rows(groups, pick)], q) for pick in picks])
    return _estimate(float(np.quantile(x, q)), drawn, level, len(x), len(groups), q)


def quantile_ratio(
    first: Values,
    second: Values,
    q: float,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
) -> Estimate | None:
    """The ``q`` quantile of ``first`` over that of ``second``, the same rows (clusters) drawn for both in each round.

    ``None`` for no rows or where the second quantile is 0. Raises ``InputError`` for values that are negative or not
    paired. With very many rows there are fewer rounds, at least 200; ``method`` says how many.
    """
    a, b = _checked(first, q), _checked(second, q)
    if len(a) != len(b):
        raise InputError(f"a paired ratio needs the same rows on both sides, not {len(a)} and {len(b)}")
    if not len(a) or np.quantile(b, q) == 0:
        return None
    picks, groups = _rounds(cluster_codes(clusters, len(a)), rounds, seed)
    drawn = []
    for pick in picks:
        rows = _rows(groups, pick)
        below = float(np.quantile(b[rows], q))
        if below > 0:
            drawn.append(float(np.quantile(a[rows], q)) / below)
    value = float(np.quantile(a, q) / np.quantile(b, q))
    return _estimate(value, np.array(drawn), level, len(a), len(groups), q)


Groups = list[np.ndarray] | np.ndarray


def _rounds(codes: np.ndarray, rounds: int, seed: int) -> tuple[Iterator[np.ndarray], Groups]:
    """Which clusters each round draws (one round at a time: all at once would be large), and the rows of each."""
    count = int(codes.max()) + 1
    rounds = max(_FEWEST, min(rounds, _DRAWS // len(codes)))
    rng = np.random.default_rng(seed)
    order = np.argsort(codes, kind="stable")
    groups: Groups = order if count == len(codes) else np.split(order, np.cumsum(np.bincount(codes))[:-1])
    return (rng.integers(0, count, size=count, dtype=np.int32) for _ in range(rounds)), groups


def _rows(groups: Groups, pick: np.ndarray) -> np.ndarray:
    return groups[pick] if isinstance(groups, np.ndarray) else np.concatenate([groups[one] for one in pick])


def _estimate(value: float, drawn: Array, level: float, n: int, clusters: int, q: float) -> Estimate:
    method = f"cluster bootstrap of the {q:.0%} quantile, {len(drawn)} rounds"
    if n * min(q, 1 - q) < 1:
        method += ", too few rows to reach it"
    if clusters < 2 or not len(drawn):
        return Estimate(value, 0.0, float("inf"), level, n, clusters, "one cluster: nothing is known about the spread")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), level, n, clusters, method)


def _checked(values: Values, q: float) -> Array:
    x = np.asarray(values, dtype=float)
    if not 0 < q < 1 or not np.isfinite(x).all() or (x < 0).any():
        raise InputError("a quantile needs finite values that are not negative, and q between 0 and 1")
    return x
