"""Ratings of more than two candidates from pairwise outcomes, with intervals that know what a prompt is.

Models (s_i log strength, d = s_i - s_j):

    bradley_terry  P(i wins) = sig(d); a tie is half a win and half a loss          Bradley, Terry 1952
    davidson       P(i) : P(tie) : P(j) = e^(d/2) : nu : e^(-d/2)                    Davidson 1970
    rao_kupper     P(i) = sig(d - h), P(j) = sig(-d - h), h = ln theta >= 0          Rao, Kupper 1967

All three are concave, so Newton steps find the maximum; whole batches of bootstrap rounds are fitted at once. Battles
are counted once into cells (pair x outcome); a round is then weights(items) @ cell counts by item, so its cost does not
depend on the number of battles. Resampling battles as rows, as public leaderboards do, covers 60% at a nominal 90%,
because the battles on one prompt are not independent: here whole prompts are drawn, or the sandwich sums scores within
prompts first.

With one baseline and no other pairs, ratings say no more than win rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array, logistic
from .estimates import Estimate

__all__ = ["Battles", "Model", "Rating", "Ratings", "components", "rate"]

Model = Literal["bradley_terry", "davidson", "rao_kupper"]
ELO = 400.0 / math.log(10.0)
"""Elo points per unit of log strength."""
_RIDGE = 1e-9
_LIMIT = 20.0
_DENSE = 20_000_000
"""Item-by-cell counts are kept dense up to this size, sparse beyond."""
_EXACT = 4_000_000
"""Battles below which resampled counts are exact in single precision."""


@dataclass(frozen=True, slots=True)
class Battles:
    """Pairwise outcomes: ``first[k]`` against ``second[k]`` on prompt ``items[k]``, ``outcomes[k]`` 1, 0.5 or 0 for the
    first.
    """

    first: Sequence[str]
    second: Sequence[str]
    outcomes: Sequence[float] | Array
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Rating:
    """One candidate: ``strength`` in log odds relative to the baseline (which has exactly 0), battles fought.

    ``rank_low`` and ``rank_high`` are the ranks the intervals leave possible: 1 + candidates certainly better, and
    candidates not certainly worse.
    """

    name: str
    strength: Estimate
    battles: int
    rank_low: int
    rank_high: int

    @property
    def elo(self) -> tuple[float, float, float]:
        """(value, low, high) on the Elo scale with the baseline at 1000: 400/ln 10 points per unit of log odds."""
        s = self.strength
        return 1000.0 + ELO * s.value, 1000.0 + ELO * s.low, 1000.0 + ELO * s.high


@dataclass(frozen=True, slots=True)
class Ratings:
    """All candidates, best first.

    ``tie`` is nu (Davidson) or theta (Rao-Kupper), ``None`` for Bradley-Terry. ``log_likelihood`` is at the maximum, in
    nats. ``pseudo_ties`` is the number of ties with the baseline that had to be added to every candidate because the
    battles leave candidates without a finite rating; 0 when the data suffice. ``notes`` say so in words.
    """

    model: Model
    baseline: str
    ratings: tuple[Rating, ...]
    tie: Estimate | None
    log_likelihood: float
    pseudo_ties: float
    n: int
    items: int
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Rating:
        """The rating of one candidate; raises ``InputError`` for a name that did not fight."""
        for rating in self.ratings:
            if rating.name == name:
                return rating
        raise InputError(f"no rating for {name!r}; rated: {', '.join(r.name for r in self.ratings)}")

    def probabilities(self, first: str, second: str) -> tuple[float, float, float]:
        """Modelled P(first wins), P(tie), P(second wins)."""
        d = np.array([[self[first].strength.value - self[second].strength.value]])
        extra = np.zeros(1) if self.tie is None else np.log(np.maximum([self.tie.value], 1e-300))
        win, tie, loss = _chances(self.model, d, extra)
        return float(win[0, 0]), float(tie[0, 0]), float(loss[0, 0])


def rate(
    battles: Battles,
    *,
    baseline: str | None = None,
    model: Model = "bradley_terry",
    interval: Literal["sandwich", "bootstrap"] = "sandwich",
    rounds: int = 1000,
    level: float = 0.95,
    pseudo_ties: float = 0.25,
    seed: int = 0,
) -> Ratings | None:
    """Rate every candidate; ``None`` without battles.

    ``baseline`` is the fixed point of the scale (default: the candidate with most battles, first by name among equals).
    ``interval``: ``sandwich`` (t quantile, scores summed within prompts) or ``bootstrap`` (percentiles over ``rounds``
    draws of whole prompts). Where the battles are not strongly connected (some group of candidates never lost or tied
    against the rest, so that its rating is infinite), ``pseudo_ties`` ties with the baseline are added to every
    candidate, and said.

    Raises ``InputError`` for outcomes other than 1, 0.5, 0, unequal lengths, a candidate against itself, an unknown
    baseline.
    """
    table = _tabulate(battles)
    if table is None:
        return None
    anchor = _anchor(table, baseline)
    groups = components(table.wins())
    added = pseudo_ties if len(groups) > 1 else 0.0
    notes = []
    if added:
        notes.append(
            f"{len(groups)} groups of candidates are not connected both ways by wins or ties; {added:g} ties with "
            f"{table.names[anchor]} were added to every candidate, and their ratings depend on that"
        )
    if model != "bradley_terry" and table.totals[:, 1].sum() == 0.0:
        notes.append(f"no battle was a tie: {model} equals Bradley-Terry")
    fit = _Fit(model, table, anchor, *_with_ties(table, anchor, added))
    theta, hessian = _newton(fit, fit.cells(table.totals.reshape(1, -1)))
    if interval == "bootstrap":
        spread = _bootstrap(fit, theta[0], rounds=rounds, level=level, seed=seed)
        method = f"{model}, {rounds} prompt bootstrap rounds"
    else:
        spread = _sandwich(fit, theta[0], hessian[0], level)
        method = f"{model}, prompt-clustered sandwich"

    def estimate(k: int, scale: Callable[[float], float] = float) -> Estimate:
        value, low, high = (scale(float(v)) for v in (theta[0, k], spread.low[k], spread.high[k]))
        return Estimate(value, min(low, value), max(high, value), level, table.n, table.counts.shape[0], method)

    return Ratings(
        model=model,
        baseline=table.names[anchor],
        ratings=_ranked(table, spread, estimate),
        tie=estimate(table.size, math.exp) if fit.ties else None,
        log_likelihood=_log_likelihood(fit, theta),
        pseudo_ties=added,
        n=table.n,
        items=table.counts.shape[0],
        notes=tuple(notes),
    )


def components(wins: Array) -> tuple[tuple[int, ...], ...]:
    """Strongly connected groups of candidates; one group means that every rating is finite (Ford 1957).

    ``wins`` is square: entry (i, j) counts wins of i over j plus ties.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(csr_array(np.asarray(wins) > 0.0), directed=True, connection="strong")
    return tuple(tuple(np.flatnonzero(label == k).tolist()) for k in range(count))


@dataclass(frozen=True, slots=True)
class _Table:
    """Battles counted: names, (items, pairs * 3) counts of wins, ties, losses of the lower index, and their
    totals.
    """

    names: tuple[str, ...]
    counts: Any
    totals: Array
    n: int

    @property
    def size(self) -> int:
        return len(self.names)

    def wins(self) -> Array:
        out = np.zeros((self.size, self.size))
        i, j = np.triu_indices(self.size, 1)
        out[i, j] = self.totals[:, 0] + self.totals[:, 1]
        out[j, i] = self.totals[:, 2] + self.totals[:, 1]
        return out


_Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a likelihood is made of besides the counts: model, table, fixed candidate, fought pairs, pseudo-counts."""

    model: Model
    table: _Table
    anchor: int
    pairs: _Pairs
    prior: Array

    @property
    def size(self) -> int:
        return self.table.size

    @property
    def ties(self) -> bool:
        return self.model != "bradley_terry"

    @property
    def free(self) -> npt.NDArray[np.intp]:
        """Parameters that are estimated; the last one is the tie parameter."""
        return np.delete(np.arange(self.size + 1), [self.anchor] if self.ties else [self.anchor, self.size])

    @property
    def columns(self) -> npt.NDArray[np.intp]:
        i, j = self.pairs
        index = i * self.size - i * (i + 1) // 2 + j - i - 1
        return np.asarray((index * 3 + np.arange(3)[:, None]).ravel())

    @property
    def incidence(self) -> Array:
        """(pairs, size): +1 for the lower index, -1 for the higher."""
        rows = np.arange(self.pairs[0].size)
        out = np.zeros((rows.size, self.size))
        out[rows, self.pairs[0]], out[rows, self.pairs[1]] = 1.0, -1.0
        return out

    def cells(self, counts: Array) -> Array:
        """Counts of all pairs (batch, all * 3) to the fitted pairs with pseudo-counts, (batch, 3, pairs)."""
        return (counts[:, self.columns] + self.prior).reshape(len(counts), 3, -1)


@dataclass(frozen=True, slots=True)
class _Spread:
    """Intervals of all parameters, and ``better[i, j]``: i is better than j beyond the interval of their difference."""

    low: Array
    high: Array
    better: npt.NDArray[np.bool_]


def _tabulate(battles: Battles) -> _Table | None:
    from scipy.sparse import csr_array

    y = np.asarray(battles.outcomes, dtype=np.float64)
    if not len(battles.first) == len(battles.second) == len(battles.items) == y.size:
        raise InputError("first, second, outcomes and items of battles must have one length")
    if y.size == 0:
        return None
    bad = np.flatnonzero(~np.isin(y, (0.0, 0.5, 1.0)))
    if bad.size:
        raise InputError(f"outcome of battle {bad[0]} is {y[bad[0]]}; use 1 (first wins), 0.5 (tie) or 0")
    names, code = _codes(np.concatenate([np.asarray(battles.first), np.asarray(battles.second)]))
    one, two = code[: y.size], code[y.size :]
    same = np.flatnonzero(one == two)
    if same.size:
        raise InputError(f"battle {same[0]} sets {str(names[one[same[0]]])!r} against itself")
    item = _codes(np.asarray(battles.items))[1]
    low, high = np.minimum(one, two), np.maximum(one, two)
    size = names.size
    pair = low * size - low * (low + 1) // 2 + high - low - 1
    kind = np.where(y == 0.5, 1, np.where((y == 1.0) == (one < two), 0, 2))
    width = size * (size - 1) // 2 * 3
    rows = int(item.max()) + 1
    counts: Any
    if rows * width <= _DENSE:
        cell = item * width + pair * 3 + kind
        counts = np.bincount(cell, minlength=rows * width).reshape(rows, width).astype(np.float64)
    else:
        counts = csr_array((np.ones(y.size), (item, pair * 3 + kind)), shape=(rows, width))
    totals = np.bincount(pair * 3 + kind, minlength=width).astype(np.float64).reshape(-1, 3)
    return _Table(tuple(str(name) for name in names), counts, totals, y.size)


def _codes(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Sorted distinct values and the place of each value among them; small integers are counted instead of sorted."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() < 4 * values.size:
        seen = np.bincount(values) > 0
        return np.flatnonzero(seen), (np.cumsum(seen) - 1)[values]
    names, code = np.unique(values, return_inverse=True)
    return names, code


def _ranked(table: _Table, spread: _Spread, estimate: Callable[[int], Estimate]) -> tuple[Rating, ...]:
    fought = _fought(table)
    made = [
        Rating(
            name=name,
            strength=estimate(k),
            battles=int(fought[k]),
            rank_low=1 + int(spread.better[:, k].sum()),
            rank_high=table.size - int(spread.better[k].sum()),
        )
        for k, name in enumerate(table.names)
    ]
    return tuple(sorted(made, key=lambda r: (-r.strength.value, r.name)))


def _anchor(table: _Table, baseline: str | None) -> int:
    if baseline is not None:
        if baseline not in table.names:
            raise InputError(f"baseline {baseline!r} fought no battle; candidates: {', '.join(table.names)}")
        return table.names.index(baseline)
    return int(np.argmax(_fought(table)))


def _fought(table: _Table) -> Array:
    i, j = np.triu_indices(table.size, 1)
    total = table.totals.sum(axis=1)
    return np.asarray(np.bincount(i, total, table.size) + np.bincount(j, total, table.size), dtype=np.float64)


def _with_ties(table: _Table, anchor: int, added: float) -> tuple[_Pairs, Array]:
    """Pairs that were fought (and those of the pseudo-ties), and the flat prior counts over them."""
    i, j = np.triu_indices(table.size, 1)
    pseudo = ((i == anchor) | (j == anchor)) & (added > 0.0)
    used = (table.totals.sum(axis=1) > 0.0) | pseudo
    prior = np.zeros((3, int(used.sum())))
    prior[1, pseudo[used]] = added
    return (i[used], j[used]), prior.reshape(1, -1)


def _chances(model: Model, d: Array, extra: Array) -> tuple[Array, Array, Array]:
    """P(win), P(tie), P(loss) of shape (batch, pairs); ``extra`` is ln nu, ln theta or unused, one per batch row."""
    e = extra[:, None]
    if model == "davidson":
        top = np.maximum(np.abs(d) / 2.0, e)
        win, tie, loss = np.exp(d / 2.0 - top), np.exp(e - top), np.exp(-d / 2.0 - top)
        total = win + tie + loss
        return win / total, tie / total, loss / total
    if model == "rao_kupper":
        win, loss = logistic(d - e), logistic(-d - e)
        return win, np.maximum(1.0 - win - loss, 0.0), loss
    win = logistic(d)
    return win, np.zeros_like(d), 1.0 - win


def _newton(fit: _Fit, count: Array, *, start: Array | None = None, tolerance: float = 1e-8) -> tuple[Array, Array]:
    """Batched maximum likelihood: ``count`` (batch, 3, pairs) to parameters (batch, size + 1) and negative Hessians.

    The last parameter is ln nu or ln theta. A ridge of 1e-9 per battle keeps rounds finite in which a candidate
    happened to win everything.
    """
    size = fit.size
    tieless = count[:, 1].sum(axis=1) == 0.0
    theta = np.zeros((len(count), size + 1)) if start is None else np.tile(start, (len(count), 1))
    if start is None and fit.model == "rao_kupper":
        theta[:, -1] = 0.5
    ridge = _RIDGE * count.sum(axis=(1, 2))
    free, incidence = fit.free, fit.incidence
    diagonal = np.arange(size)
    for _ in range(60):
        if fit.ties:
            theta[tieless, -1] = -_LIMIT if fit.model == "davidson" else 0.0
        gradient, hessian = _derivatives(fit, incidence, count, theta)
        gradient[:, :size] -= ridge[:, None] * theta[:, :size]
        hessian[:, diagonal, diagonal] += ridge[:, None]
        if fit.ties and tieless.any():
            hessian[tieless, :, -1] = hessian[tieless, -1, :] = gradient[tieless, -1] = 0.0
            hessian[tieless, -1, -1] = 1.0
        step = np.zeros_like(theta)
        inner = hessian[:, free[:, None], free]
        step[:, free] = np.linalg.solve(inner, gradient[:, free][..., None])[..., 0]
        largest = np.abs(step).max(axis=1, keepdims=True)
        step *= np.minimum(1.0, 2.0 / np.maximum(largest, 1e-300))
        if fit.model == "rao_kupper":
            crossed = (theta[:, -1] + step[:, -1] <= 0.0) & ~tieless
            step[crossed, -1] = -0.5 * theta[crossed, -1]
        theta = np.clip(theta + step, -_LIMIT, _LIMIT)
        if largest.max() < tolerance:  # each step is about the square of the last: after 3e-3, 1e-5 is left
            break
    return theta, hessian


def _derivatives(fit: _Fit, incidence: Array, count: Array, theta: Array) -> tuple[Array, Array]:
    """Gradient (batch, size + 1) and negative Hessian (batch, size + 1, size + 1) of the log likelihood."""
    size = fit.size
    i, j = fit.pairs
    slope, curve, mixed, last, bend = _pair_derivatives(fit.model, theta[:, i] - theta[:, j], theta[:, -1], count)
    gradient = np.column_stack([slope @ incidence, last])
    hessian = np.zeros((len(theta), size + 1, size + 1))
    hessian[:, i, j] = hessian[:, j, i] = -curve
    hessian[:, np.arange(size), np.arange(size)] = curve @ np.abs(incidence)
    if fit.ties:
        hessian[:, :size, size] = hessian[:, size, :size] = mixed @ incidence
        hessian[:, size, size] = bend
    return gradient, hessian


def _pair_derivatives(model: Model, d: Array, extra: Array, count: Array) -> tuple[Array, Array, Array, Array, Array]:
    """First and (negative) second derivatives by pair: d/dd, -d2/dd2, -d2/dd dh, and summed d/dh, -d2/dh2."""
    w, t, l = count[:, 0], count[:, 1], count[:, 2]  # noqa: E741 (win, tie, loss)
    n = w + t + l
    if model == "bradley_terry":
        p, none = logistic(d), np.zeros(len(d))
        up = n * p
        return w + 0.5 * t - up, up * (1.0 - p), d, none, none  # without a tie parameter the third is not read
    win, tie, loss = _chances(model, d, extra)
    if model == "davidson":
        lean = win - loss
        slope = 0.5 * (w - l - n * lean)
        curve = 0.25 * n * (win + loss - lean * lean)
        mixed = -0.5 * n * lean * tie
        return slope, curve, mixed, (t - n * tie).sum(axis=1), (n * tie * (1.0 - tie)).sum(axis=1)
    up, down = w + t, l + t
    slope = up * (1.0 - win) - down * (1.0 - loss)
    a, b = up * win * (1.0 - win), down * loss * (1.0 - loss)
    ties = t.sum(axis=1)
    h = np.where(ties > 0.0, np.maximum(extra, 1e-12), 1.0)
    last = -(up * (1.0 - win) + down * (1.0 - loss)).sum(axis=1) + 2.0 * ties / -np.expm1(-2.0 * h)
    return slope, a + b, b - a, last, (a + b).sum(axis=1) + ties / np.sinh(h) ** 2


def _log_likelihood(fit: _Fit, theta: Array) -> float:
    """Log likelihood of the battles fought, without pseudo-ties."""
    i, j = fit.pairs
    chance = np.array(_chances(fit.model, theta[:, i] - theta[:, j], theta[:, -1]))[:, 0]
    count = fit.table.totals.reshape(-1)[fit.columns].reshape(3, -1)
    if not fit.ties:
        half = 0.5 * count[1]
        count = np.array([count[0] + half, np.zeros_like(half), count[2] + half])
    return float(np.sum(count[count > 0.0] * np.log(np.maximum(chance[count > 0.0], 1e-300))))


def _bootstrap(fit: _Fit, point: Array, *, rounds: int, level: float, seed: int) -> _Spread:
    rng = np.random.default_rng(seed)
    items = fit.table.counts.shape[0]
    exact = fit.table.n < _EXACT
    counts = fit.table.counts[:, fit.columns].astype(np.float32 if exact else np.float64)
    chunk = max(1, min(rounds, int(4e7 // items)))
    out = []
    for begin in range(0, rounds, chunk):
        size = min(chunk, rounds - begin)
        drawn = rng.integers(0, items, size=(size, items)) + items * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * items).reshape(size, items).astype(counts.dtype)
        cells = (weights @ counts + fit.prior).reshape(size, 3, -1)
        out.append(_newton(fit, cells, start=point, tolerance=3e-3)[0])
    draws = np.concatenate(out)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    strength = draws[:, : fit.size]
    better = np.array([(column[:, None] > strength).mean(axis=0) for column in strength.T]) >= 1.0 - tail
    return _Spread(low, high, better)


def _sandwich(fit: _Fit, theta: Array, hessian: Array, level: float) -> _Spread:
    """H^-1 (sum over prompts of u u') H^-1 * G/(G - 1), u the summed score of a prompt; t quantile with G - 1 df."""
    from scipy.special import stdtrit

    size, items = fit.size, fit.table.counts.shape[0]
    d = theta[fit.pairs[0]] - theta[fit.pairs[1]]
    scores = np.zeros((3, d.size, size + 1))
    for kind in range(3):
        one = np.zeros((d.size, 3, 1))
        one[:, kind] = 1.0
        slope, _, _, last, _ = _pair_derivatives(fit.model, d[:, None], np.full(d.size, theta[-1]), one)
        scores[kind, :, :size] = slope * fit.incidence
        scores[kind, :, size] = last if fit.ties else 0.0
    free = fit.free
    summed = (fit.table.counts[:, fit.columns] @ scores.reshape(-1, size + 1))[:, free]
    inverse = np.linalg.inv(hessian[np.ix_(free, free)])
    cov = np.zeros((size + 1, size + 1))
    cov[np.ix_(free, free)] = inverse @ (summed.T @ summed) @ inverse * items / max(items - 1, 1)
    quantile = float(stdtrit(max(items - 1, 1), 0.5 + level / 2.0))
    variance = np.diag(cov)
    reach = quantile * np.sqrt(np.maximum(variance, 0.0))
    gap = variance[:size, None] + variance[None, :size] - 2.0 * cov[:size, :size]
    better = theta[:size, None] - theta[None, :size] > quantile * np.sqrt(np.maximum(gap, 0.0))
    return _Spread(theta - reach, theta + reach, better)
