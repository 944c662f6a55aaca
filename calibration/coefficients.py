"""Chance-corrected agreement: Cohen, Gwet, Fleiss, Krippendorff, each with an interval clustered by prompt.

Accuracy hides prevalence: a classifier with 74% agreement can have kappa .08, and kappa itself collapses where one
category rules (kappa -.02 at 95% agreement, Gwet's AC1 .94). Read two of them. A coefficient that is undefined
(everybody always says the same) is ``None``, never 0.

Every function takes ``ratings``: one line an item, one column a rater, ``None`` where a rater did not rate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import Clusters, Codes, Estimate, Values, bootstrap, relative_weights

__all__ = ["Resampling", "cohen_kappa", "encode", "fleiss_kappa", "gwet_ac", "krippendorff_alpha"]

Array = npt.NDArray[np.float64]
Ratings = Sequence[Sequence[Hashable | None]]
Weights = Literal["nominal", "linear", "quadratic"]
Metric = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True)
class Resampling:
    """How intervals are made: prompts (one name an item; ``None`` = every item is one), level, rounds and seed.

    ``weights`` is 1 / the chance of each item's draw: every item then counts for as many as it stands for, in the
    coefficient and in each resample of whole prompts. Equal weights are no weights.
    """

    clusters: Clusters | None = None
    level: float = 0.95
    rounds: int = 2000
    seed: int = 0
    weights: Values | None = None


def encode(ratings: Ratings, categories: Sequence[Hashable]) -> Codes:
    """Ratings as numbers 0..Q-1 (items, raters), -1 for missing; ``InputError`` for a rating outside ``categories``."""
    place: dict[Hashable | None, int] = {name: k for k, name in enumerate(categories)}
    if len(place) < len(categories):
        raise InputError("a category stands twice")
    place[None] = -1
    width = {len(row) for row in ratings}
    if len(width) > 1:
        raise InputError("every item needs one entry for each rater; use None where a rater did not rate")
    try:
        codes = [[place[value] for value in row] for row in ratings]
    except KeyError as error:
        known = ", ".join(str(name) for name in categories)
        raise InputError(f"rating {error.args[0]!r} is none of the categories {known}") from error
    return np.array(codes, dtype=np.int64).reshape(len(ratings), width.pop() if width else 0)


def cohen_kappa(
    ratings: Ratings,
    categories: Sequence[Hashable],
    *,
    weights: Weights = "nominal",
    resampling: Resampling | None = None,
) -> Estimate | None:
    """Cohen's kappa of two raters (1960), weighted for ordered categories (1968); ``None`` if undefined.

    (po - pe) / (1 - pe) with weights 1 - |i-j|/(Q-1) or 1 - (i-j)^2/(Q-1)^2. Items that one of the two did not rate are
    left out. A table 118 / 5 / 2 / 0 gives -.023392.
    """
    codes = encode(ratings, categories)
    if codes.size and codes.shape[1] != 2:
        raise InputError(f"Cohen's kappa is for two raters, not {codes.shape[1]}")
    both = np.asarray((codes >= 0).all(axis=1) & (codes.shape[1] == 2))
    size, weight = len(categories), _weights(weights, len(categories))
    cells = np.zeros((int(both.sum()), size * size))
    cells[np.arange(len(cells)), codes[both, 0] * size + codes[both, 1] if codes.size else []] = 1.0

    def kappa(sums: Array) -> Array:
        table = sums.reshape(*sums.shape[:-1], size, size)
        table = table / table.sum(axis=(-2, -1), keepdims=True)
        seen = (weight * table).sum(axis=(-2, -1))
        chance = (weight * table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]).sum(axis=(-2, -1))
        return _corrected(seen, chance)

    return _interval(kappa, cells, both, resampling, (-1.0, 1.0))


def gwet_ac(
    ratings: Ratings,
    categories: Sequence[Hashable],
    *,
    weights: Weights = "nominal",
    resampling: Resampling | None = None,
) -> Estimate | None:
    """Gwet's AC1 (2008), or AC2 with ``weights`` for ordered categories, for two or more raters; ``None`` if undefined.

    Observed agreement over items with two ratings or more; chance sum(w) / (Q (Q-1)) sum_q pi_q (1 - pi_q), pi_q the
    mean share of category q. Stays sensible where one category rules. A table 118 / 5 / 2 / 0 gives .94078.
    """
    size, weight = len(categories), _weights(weights, len(categories))
    counts = _counts(encode(ratings, categories), size)
    if size < 2:
        raise InputError("agreement needs two categories or more")

    def coefficient(sums: Array) -> Array:
        shares = sums[..., 3:] / sums[..., 1:2]
        chance = float(weight.sum()) / (size * (size - 1)) * (shares * (1 - shares)).sum(axis=-1)
        return _corrected(sums[..., 2] / sums[..., 0], chance)

    return _interval(coefficient, _moments(counts, weight), counts.sum(axis=1) > 0, resampling, (-1.0, 1.0))


def fleiss_kappa(
    ratings: Ratings,
    categories: Sequence[Hashable],
    *,
    weights: Weights = "nominal",
    resampling: Resampling | None = None,
) -> Estimate | None:
    """Fleiss' kappa (1971) for two or more raters, missing ratings allowed; ``None`` if undefined.

    Observed agreement over items with two ratings or more, chance sum_kl w_kl pi_k pi_l. On the four-rater data of Gwet
    .76117.
    """
    weight = _weights(weights, len(categories))
    counts = _counts(encode(ratings, categories), len(categories))

    def coefficient(sums: Array) -> Array:
        shares = sums[..., 3:] / sums[..., 1:2]
        return _corrected(sums[..., 2] / sums[..., 0], np.einsum("...k,kl,...l->...", shares, weight, shares))

    return _interval(coefficient, _moments(counts, weight), counts.sum(axis=1) > 0, resampling, (-1.0, 1.0))


def krippendorff_alpha(
    ratings: Ratings,
    categories: Sequence[Hashable],
    *,
    metric: Metric = "nominal",
    resampling: Resampling | None = None,
) -> Estimate | None:
    """Krippendorff's alpha, 1 - Do/De from the coincidence matrix (2011), any number of raters; ``None`` if undefined.

    ``ordinal`` uses the order of ``categories``, ``interval`` their values, which then must be numbers. Items with one
    rating do not count. On the data of the ``krippendorff`` package: nominal .691358, interval .810845.
    """
    size = len(categories)
    counts = _counts(encode(ratings, categories), size)
    counts = counts[(paired := counts.sum(axis=1) > 1)]
    raters = counts.sum(axis=1)
    cells = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(size)
    cells = (cells / np.maximum(raters - 1, 1)[:, None, None]).reshape(len(counts), size * size)
    try:
        values = np.array([float(str(name)) for name in categories]) if metric == "interval" else np.zeros(size)
    except ValueError as error:
        raise InputError("the interval metric needs categories that are numbers") from error

    def alpha(sums: Array) -> Array:
        table = sums.reshape(*sums.shape[:-1], size, size)
        margin = table.sum(axis=-1)
        if metric == "nominal":
            distance = np.broadcast_to(1 - np.eye(size), table.shape)
        else:
            spot = np.cumsum(margin, axis=-1) - margin / 2 if metric == "ordinal" else values
            distance = (spot[..., :, None] - spot[..., None, :]) ** 2
        seen = (table * distance).sum(axis=(-2, -1))
        chance = (margin[..., :, None] * margin[..., None, :] * distance).sum(axis=(-2, -1))
        total = margin.sum(axis=-1)
        return np.asarray(np.where(chance > 0, 1 - (total - 1) * seen / np.where(chance > 0, chance, 1.0), np.nan))

    return _interval(alpha, cells, paired, resampling, (-1.0, 1.0))


def _interval(
    statistic: Callable[[Array], Array],
    rows: Array,
    kept: npt.NDArray[np.bool_],
    resampling: Resampling | None,
    bounds: tuple[float, float],
) -> Estimate | None:
    how = resampling or Resampling()
    clusters = how.clusters
    if clusters is not None:
        if len(clusters) != len(kept):
            raise InputError(f"{len(kept)} items but {len(clusters)} cluster names; give one per item")
        clusters = [name for name, keep in zip(clusters, kept, strict=True) if keep]
    rows = rows if len(rows) == int(kept.sum()) else rows[kept]
    weights = relative_weights(how.weights, len(kept))
    weights = None if weights is None else relative_weights(weights[kept], len(rows))
    found = bootstrap(
        statistic,
        rows if weights is None else rows * weights[:, None],
        clusters=clusters,
        level=how.level,
        bounds=bounds,
        rounds=how.rounds,
        seed=how.seed,
    )
    if found is None or weights is None:
        return found
    return replace(found, method=f"weighted by 1/chance, {found.method}")


def _counts(codes: Codes, size: int) -> Array:
    """How many raters chose each category, by item (items, Q)."""
    counts = np.zeros((len(codes), size))
    for column in codes.T:
        given = column >= 0
        np.add.at(counts, (np.flatnonzero(given), column[given]), 1.0)
    return counts


def _moments(counts: Array, weight: Array) -> Array:
    """By item with a rating: (has two or more, 1, weighted pairwise agreement, shares of each category)."""
    rated = counts[counts.sum(axis=1) > 0]
    n = rated.sum(axis=1)
    near = rated @ weight
    pairs = np.where(n > 1, (rated * (near - 1)).sum(axis=1) / np.maximum(n * (n - 1), 1), 0.0)
    return np.column_stack([n > 1, np.ones(len(rated)), pairs, rated / n[:, None]])


def _weights(kind: Weights, size: int) -> Array:
    if kind == "nominal" or size < 2:
        return np.eye(size)
    gap = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / (size - 1)
    return np.asarray(1 - gap if kind == "linear" else 1 - gap**2)


def _corrected(seen: Array, chance: Array) -> Array:
    room = 1 - chance
    return np.asarray(np.where(room > 1e-12, (seen - chance) / np.where(room > 1e-12, room, 1.0), np.nan))
