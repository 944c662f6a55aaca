"""How much of a win does one feature of the answers explain? Longer (or more hedged, bolder, ...) without better.

For one feature, paired by prompt, four numbers and a verdict:

- the win rate as it is (``raw``) and with the feature controlled (``controlled``: ``length.controlled``, a logistic
  model at no difference of the feature, refitted in every round of a bootstrap over whole prompts);
- the win rate among pairs that hardly differ in it (``near_equal``), which needs no model;
- the share of the win that goes through it, (raw - controlled) / (raw - 1/2), with the interval of that bootstrap.

The verdict needs all of: the feature grew by over a tenth (its whole interval), the raw rate wins (its whole interval),
the controlled rate covers 1/2. Where moreover the drop from raw to controlled is beyond doubt, the feature explains the
win ("longer, not better"); where it is not, too little is known ("longer, not shown better"). A controlled rate whose
whole interval wins is "longer and better".

Singhal et al. 2023 (arXiv 2310.03716) found 70-90% of the reward gain of RLHF in length; Dubois et al. 2024
(arXiv 2404.04475) is the controlled rate. What this cannot do: tell apart two features that always come together, or
clear a candidate that cheats in a way nobody measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from rubrics.errors import InputError

from .calibrators import Array
from .estimates import Estimate, mean
from .length import LengthControlled, controlled

__all__ = ["Explained", "Growth", "Word", "explain", "growth"]

GREW = 0.1
"""How much more of a feature (as a share of the baseline's) counts as grown."""
NEAR = 0.1
"""Pairs are near-equal within this: of the log ratio for lengths, of one standard deviation of the difference else."""
_ALIKE = 0.01
"""Spread of the feature (in [-1, 1]) below which every pair differs alike."""
FLOOR = 30
"""Comparisons below which nothing is said."""


class Word(StrEnum):
    """What is said of one feature."""

    NOT_BETTER = "not better"
    """More of it, wins, and at equal feature the win is gone: it explains the win."""
    NOT_SHOWN = "not shown better"
    """More of it, wins, and at equal feature nothing is shown; nor that the feature is the reason."""
    BETTER = "and better"
    """More of it, and wins at equal feature, too."""
    NO_WIN = "no win to explain"
    """More of it, and the raw rate does not win."""
    NOT_MORE = "not more"
    """Not shown to have more of it."""
    TOO_FEW = "too few"
    """Too few comparisons, or nobody differs in it."""
    INSEPARABLE = "inseparable"
    """Every pair differs in it alike, so that it cannot be told apart from quality."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much more of a feature the candidate has: ``ratio`` as a log ratio, or ``difference`` in its own unit.

    ``grew`` says whether the whole interval lies above ``GREW`` of the baseline's level.
    """

    change: Estimate
    baseline: float
    log: bool

    @property
    def grew(self) -> bool:
        """Whether its whole interval lies above a tenth of the baseline's level; from nothing, above nothing."""
        bound = float(np.log(1 + GREW)) if self.log else GREW * self.baseline
        return self.change.low > bound


@dataclass(frozen=True, slots=True)
class Explained:
    """One feature and the win: see the module. ``near`` is the win rate among ``near.n`` near-equal pairs."""

    feature: str
    word: Word
    growth: Growth
    control: LengthControlled | None
    near: Estimate | None

    @property
    def mediated(self) -> Estimate | None:
        """The share of the win that goes through the feature; ``None`` where there is no win or loss to explain."""
        return None if self.control is None else self.control.mediated


def growth(
    candidate: Sequence[float] | Array,
    baseline: Sequence[float] | Array,
    *,
    log: bool,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Growth | None:
    """Paired mean change of a feature; for ``log`` (lengths) of ln((candidate + 1) / (baseline + 1)). ``None`` for no
    rows.
    """
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise InputError(f"a paired change needs the same rows on both sides, not {ours.size} and {theirs.size}")
    delta = np.log((ours + 1.0) / (theirs + 1.0)) if log else ours - theirs
    change = mean(delta, clusters=clusters, level=level)
    return None if change is None else Growth(change, float(theirs.mean()), log)


def explain(
    feature: str,
    preferences: Sequence[float] | Array,
    candidate: Sequence[float] | Array,
    baseline: Sequence[float] | Array,
    *,
    log: bool = False,
    clusters: Sequence[str] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Explained | None:
    """How much of the win one feature explains; ``None`` for no rows.

    ``preferences`` in [0, 1] from the candidate's side, NaN where invalid; ``candidate`` and ``baseline`` the feature
    of each side's answer. ``log`` is for lengths: growth and nearness are then measured in log ratios.
    """
    y = np.asarray(preferences, dtype=np.float64)
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    grown = growth(ours, theirs, log=log, clusters=clusters)
    if grown is None or y.shape != ours.shape:
        if grown is None:
            return None
        raise InputError(f"{y.size} preferences for {ours.size} answers; give one per row, NaN where invalid")
    known = np.isfinite(y)
    distance = np.log((ours + 1.0) / (theirs + 1.0)) if log else ours - theirs
    x = _scaled(distance)
    if int(known.sum()) < FLOOR or not np.any(distance[known]):
        return Explained(feature, Word.TOO_FEW, grown, None, None)
    if float(np.std(x[known])) < _ALIKE:
        return Explained(feature, Word.INSEPARABLE, grown, None, None)
    found = controlled(y, x, clusters=clusters, rounds=rounds, seed=seed)
    width = NEAR if log else NEAR * float(np.std(distance, ddof=1))
    close = known & (np.abs(distance) <= width)
    names = None if clusters is None else [name for name, keep in zip(clusters, close, strict=True) if keep]
    near = mean(y[close], clusters=names, bounds=(0.0, 1.0)) if close.any() else None
    return Explained(feature, _word(grown, found), grown, found, near)


def _scaled(distance: Array) -> Array:
    """tanh(d / root mean square of d): AlpacaEval 2's feature, but scaled so that a steady difference does not
    saturate.

    Their tanh(d / sd) is 1 wherever all answers grew by about the same, and then nothing parts it from quality.
    """
    size = float(np.sqrt(np.mean(distance**2)))
    return np.asarray(np.tanh(distance / size)) if size > 0.0 else np.zeros_like(distance)


def _word(grown: Growth, found: LengthControlled | None) -> Word:
    if found is None:
        return Word.TOO_FEW
    if not grown.grew:
        return Word.NOT_MORE
    if found.raw.low <= 0.5:
        return Word.NO_WIN
    if found.controlled.low > 0.5:
        return Word.BETTER
    return Word.NOT_BETTER if found.shift.low > 0.0 else Word.NOT_SHOWN
