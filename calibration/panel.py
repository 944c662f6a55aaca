"""Several judges as one: weights from gold reliability, error correlation, and whether the panel is worth it.

A panel is not better by being larger. By plain majority six judges reach .43 on LLMBar's adversarial pairs, where the
best of them alone has .77 and a panel weighted by gold .80; judges of one family make the same errors, so k judges with
mean error correlation r count as k / (1 + (k - 1) r). The panel and its best member are therefore compared on held-out
prompts, paired, and the answer is part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array
from .estimates import Estimate, mean, share

__all__ = ["Member", "Panel", "effective_size", "fit_panel", "majority", "peer_rank"]


@dataclass(frozen=True, slots=True)
class Member:
    """One judge of a panel: three-way accuracy on gold (invalid rows left out, counted), weight in [0, 1]."""

    name: str
    accuracy: Estimate | None
    weight: float
    invalid: int


@dataclass(frozen=True, slots=True)
class Panel:
    """A weighted panel and its comparison with the best single judge.

    ``correlation[i][j]`` is the correlation of the errors of members i and j on gold (``None`` where one never or
    always errs), ``effective`` the number of independent judges they amount to. ``accuracy``, ``best_accuracy`` and
    ``gain`` (panel minus best, paired) are held out: weights and the choice of the best member come from other prompts.
    ``best`` is the most accurate member on all gold. ``warning`` says in words when the panel is not worth its calls.
    """

    members: tuple[Member, ...]
    correlation: tuple[tuple[float | None, ...], ...]
    effective: float
    accuracy: Estimate
    best: str
    best_accuracy: Estimate
    gain: Estimate
    invalid: int
    warning: str | None

    def combine(self, preferences: Mapping[str, float | None]) -> float | None:
        """Weighted mean preference of the members that answered; ``None`` where none with weight did (invalid)."""
        unknown = set(preferences) - {member.name for member in self.members}
        if unknown:
            raise InputError(f"not on this panel: {', '.join(sorted(unknown))}")
        given = [(m.weight, preferences.get(m.name)) for m in self.members]
        used = [(w, p) for w, p in given if p is not None and not np.isnan(p)]
        total = sum(w for w, _ in used)
        return sum(w * p for w, p in used) / total if total > 0.0 else None


def fit_panel(
    preferences: Mapping[str, Sequence[float]],
    outcomes: Sequence[float] | Array,
    *,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Panel | None:
    """Weigh judges by reliability on gold and measure the panel on held-out prompts; ``None`` below 2 gold prompts.

    ``preferences`` maps a judge to one preference in [0, 1] per gold row (NaN: invalid), ``outcomes`` are human labels
    1, 0.5, 0. A member's weight is ln(a / (1 - a)), a = (credit + 1) / (n + 2) with half credit where one side is a tie
    and the other is not, at least 0, scaled to sum to 1: the best weights for independent errors (Nitzan, Paroush
    1982). Correlated judges get too much together; ``effective`` shows by how much.
    """
    names = tuple(preferences)
    votes, truth, codes = _validated(preferences, outcomes, clusters)
    groups = int(codes.max()) + 1 if codes.size else 0
    if groups < 2:
        return None
    folds = (np.random.default_rng(seed).permutation(groups) % min(5, groups))[codes]
    panel_side, best_side = np.full(truth.size, np.nan), np.full(truth.size, np.nan)
    for fold in np.unique(folds):
        here = folds == fold
        weights = _weights(votes[:, ~here], truth[~here])
        panel_side[here] = _side(_combine(votes[:, here], weights))
        chosen = int(np.argmax(_accuracies(votes[:, ~here], truth[~here])))
        best_side[here] = _side(votes[chosen, here])
    valid = np.isfinite(panel_side)
    if not valid.any():
        raise InputError("no panel member answered any gold row; check that preferences and labels belong together")
    ids = [str(code) for code in codes[valid]]
    right = (panel_side == truth)[valid].astype(float)
    best_right = (best_side == truth)[valid].astype(float)
    accuracy = share(right.tolist(), clusters=ids, level=level)
    best_accuracy = share(best_right.tolist(), clusters=ids, level=level)
    gain = mean((right - best_right).tolist(), clusters=ids, level=level, bounds=(-1.0, 1.0))
    assert accuracy is not None  # valid rows exist
    assert best_accuracy is not None
    assert gain is not None
    correlation = _error_correlation(votes, truth)
    known = [r for i, row in enumerate(correlation) for r in row[i + 1 :] if r is not None]
    best = names[int(np.argmax(_accuracies(votes, truth)))]
    return Panel(
        members=_members(names, votes, truth, codes, level),
        correlation=correlation,
        effective=effective_size(len(names), float(np.mean(known)) if known else 0.0),
        accuracy=accuracy,
        best=best,
        best_accuracy=best_accuracy,
        gain=gain,
        invalid=int(np.sum(~valid)),
        warning=_warning(len(names), best, gain),
    )


def majority(preferences: Mapping[str, Sequence[float]]) -> Array:
    """The plain vote, for comparison: 1, 0.5 or 0 per row by the most frequent side; shared first place is a tie.

    NaN where nobody answered.
    """
    votes = np.array([np.asarray(row, dtype=np.float64) for row in preferences.values()])
    side = _side(votes)
    count = np.array([(side == value).sum(axis=0) for value in (0.0, 0.5, 1.0)])
    top = count == count.max(axis=0)
    out = np.where(top.sum(axis=0) > 1, 0.5, np.array([0.0, 0.5, 1.0])[np.argmax(count, axis=0)])
    return np.asarray(np.where(count.sum(axis=0) == 0, np.nan, out))


def effective_size(judges: int, correlation: float) -> float:
    """Independent judges that k correlated ones amount to: k / (1 + (k - 1) r), r the mean error correlation.

    r is held in [0, 1]; 0 for no judges.
    """
    r = min(max(correlation, 0.0), 1.0)
    return judges / (1.0 + (judges - 1) * r) if judges else 0.0


def peer_rank(
    judges: Sequence[str],
    candidates: Sequence[str],
    baselines: Sequence[str],
    preferences: Sequence[float] | Array,
    *,
    iterations: int = 5,
) -> dict[str, float]:
    """Weights without human labels for judges that are contestants too: good contestants judge more (Li, Patel, Du
    2023, PRD).

    Row k: judge ``judges[k]`` gave ``preferences[k]`` to ``candidates[k]`` over ``baselines[k]``. Each round computes
    every contestant's win rate under the current weights, then sets a judge's weight to its own win rate minus the
    lowest, scaled to sum to 1. Starts from equal weights. Raises ``InputError`` where a judge is no contestant. It
    rewards strength, not reliability, and cannot see a bias that all share; prefer ``fit_panel`` where gold exists.
    """
    y = np.asarray(preferences, dtype=np.float64)
    if not len(judges) == len(candidates) == len(baselines) == y.size or y.size == 0:
        raise InputError("judges, candidates, baselines and preferences must have one length, at least 1")
    if not np.all((y >= 0.0) & (y <= 1.0)):
        raise InputError("preferences must lie in [0, 1]; leave invalid reviews out")
    who, judge = np.unique(np.asarray(judges), return_inverse=True)
    contestants, code = np.unique(np.concatenate([np.asarray(candidates), np.asarray(baselines)]), return_inverse=True)
    missing = set(who.tolist()) - set(contestants.tolist())
    if missing:
        raise InputError(f"peer ranking needs judges that are contestants; these are not: {', '.join(sorted(missing))}")
    own = np.searchsorted(contestants, who)
    weights = np.full(who.size, 1.0 / who.size)
    for _ in range(iterations):
        mass = np.tile(weights[judge], 2)
        won = np.bincount(code, mass * np.concatenate([y, 1.0 - y]), contestants.size)
        rate = (won / np.maximum(np.bincount(code, mass, contestants.size), 1e-300))[own]
        spread = rate - rate.min()
        weights = spread / spread.sum() if spread.sum() > 0.0 else np.full(who.size, 1.0 / who.size)
    return {str(name): float(weight) for name, weight in zip(who, weights, strict=True)}


def _validated(
    preferences: Mapping[str, Sequence[float]], outcomes: Sequence[float] | Array, clusters: Sequence[str] | None
) -> tuple[Array, Array, npt.NDArray[np.intp]]:
    truth = np.asarray(outcomes, dtype=np.float64)
    if not preferences:
        raise InputError("a panel needs at least one judge")
    if not np.all(np.isin(truth, (0.0, 0.5, 1.0))):
        raise InputError("human outcomes must be 1 (win), 0.5 (tie) or 0 (loss)")
    for name, row in preferences.items():
        values = np.asarray(row, dtype=np.float64)
        if values.shape != truth.shape:
            raise InputError(f"judge {name!r} has {values.size} preferences for {truth.size} gold rows")
        if np.any((values < 0.0) | (values > 1.0) | np.isinf(values)):
            raise InputError(f"judge {name!r} has a preference outside [0, 1]; use NaN for invalid")
    if clusters is not None and len(clusters) != truth.size:
        raise InputError(f"{len(clusters)} prompt ids for {truth.size} rows; give one id per row")
    codes = np.arange(truth.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.array([np.asarray(row, dtype=np.float64) for row in preferences.values()]), truth, codes.astype(np.intp)


def _side(preference: Array) -> Array:
    """1, 0.5 or 0 by which side of one half (within rounding), NaN kept."""
    lean = np.asarray(preference) - 0.5
    return np.asarray(np.where(np.isnan(lean), np.nan, np.where(np.abs(lean) < 1e-12, 0.5, (lean > 0.0).astype(float))))


def _combine(votes: Array, weights: Array) -> Array:
    given = np.isfinite(votes) * weights[:, None]
    total = given.sum(axis=0)
    summed = (given * np.nan_to_num(votes)).sum(axis=0)
    return np.asarray(np.where(total > 0.0, summed / np.where(total > 0.0, total, 1.0), np.nan))


def _weights(votes: Array, truth: Array) -> Array:
    side = _side(votes)
    seen = np.isfinite(side)
    credit = np.where(seen, 1.0 - np.abs(np.nan_to_num(side) - truth), 0.0).sum(axis=1)
    rate = (credit + 1.0) / (seen.sum(axis=1) + 2.0)
    weights = np.maximum(np.log(rate / (1.0 - rate)), 0.0)
    return weights / weights.sum() if weights.sum() > 0.0 else np.full(len(votes), 1.0 / len(votes))


def _accuracies(votes: Array, truth: Array) -> Array:
    seen = np.isfinite(votes)
    return np.asarray((_side(votes) == truth).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))


def _error_correlation(votes: Array, truth: Array) -> tuple[tuple[float | None, ...], ...]:
    wrong = np.where(np.isfinite(votes), (_side(votes) != truth).astype(float), np.nan)

    def pair(a: Array, b: Array) -> float | None:
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < 3 or np.ptp(a[both]) == 0.0 or np.ptp(b[both]) == 0.0:
            return None
        return float(np.corrcoef(a[both], b[both])[0, 1])

    return tuple(tuple(1.0 if i == j else pair(a, b) for j, b in enumerate(wrong)) for i, a in enumerate(wrong))


def _members(
    names: tuple[str, ...], votes: Array, truth: Array, codes: npt.NDArray[np.intp], level: float
) -> tuple[Member, ...]:
    weights = _weights(votes, truth)
    made = []
    for name, row, weight in zip(names, votes, weights, strict=True):
        seen = np.isfinite(row)
        right = (_side(row) == truth)[seen].astype(float)
        accuracy = share(right.tolist(), clusters=[str(c) for c in codes[seen]], level=level)
        made.append(Member(name, accuracy, float(weight), int(np.sum(~seen))))
    return tuple(made)


def _warning(judges: int, best: str, gain: Estimate) -> str | None:
    if judges < 2 or gain.value > 0.0:
        return None
    shown = f"{gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}] on held-out prompts"
    if gain.high < 0.0:
        return f"the panel is worse than its best member {best}: {shown}; use {best} alone"
    return f"the panel is not better than its best member {best}: {shown}; {judges - 1} of {judges} judges add nothing"
