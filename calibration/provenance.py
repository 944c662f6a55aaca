"""Which labels may speak for a run: matched by pair, candidate, baseline, rubric and draw, or refused with the reason.

Labels about another candidate are the fatal error of judge calibration: in simulation 300 of them gave 0% coverage
where 100 fresh ones gave 94%. They may still measure the judge (``agreement``), never the rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import Codes
from .gold import GoldSet
from .gold_rows import GoldItem
from .ppi import Sample

__all__ = ["Joined", "Judged", "JudgedRun", "Refused", "join", "label_more", "rubric_family"]

Array = npt.NDArray[np.float64]

_RANDOM = ("random", "stratified", "active", "all", "escalated")


@dataclass(frozen=True, slots=True)
class Judged:
    """What the judge said about one pair, both orders averaged.

    The probabilities are ``None`` where it gave no verdict. Lengths are in characters of the answers.
    """

    pair_id: str
    prompt_id: str
    p_win: float | None
    p_tie: float | None
    p_loss: float | None
    category: str = ""
    candidate_length: int | None = None
    baseline_length: int | None = None


@dataclass(frozen=True)
class JudgedRun:
    """Every pair of one run, with the names that labels are held against."""

    rows: tuple[Judged, ...]
    candidate: str | None = None
    baseline: str | None = None
    rubric: str | None = None
    part_of: int | None = None
    """How many pairs the run has of which only these were judged (``None``: the run is whole)."""

    def __post_init__(self) -> None:
        twice = [pair for pair, count in Counter(row.pair_id for row in self.rows).items() if count > 1]
        if twice:
            raise InputError(f"pair {twice[0]!r} stands twice in the run ({len(twice)} such); settle repeats first")
        for row in self.rows:
            given = [p for p in (row.p_win, row.p_tie, row.p_loss) if p is not None]
            if given and (len(given) < 3 or not all(0 <= p <= 1 for p in given) or abs(sum(given) - 1) > 1e-3):
                raise InputError(
                    f"pair {row.pair_id!r}: win, tie and loss must be probabilities that sum to 1, or all None"
                )

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Whether each row has a verdict."""
        return np.array([row.p_win is not None for row in self.rows], dtype=bool)

    @cached_property
    def probabilities(self) -> Array:
        """P(win), P(tie), P(loss) by row (N, 3); a row without a verdict counts as knowing nothing, a third each."""
        blank = (1 / 3, 1 / 3, 1 / 3)
        rows = [blank if row.p_win is None else (row.p_win, row.p_tie, row.p_loss) for row in self.rows]
        return np.array(rows, dtype=float).reshape(-1, 3)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The prompt of each row: its cluster."""
        return tuple(row.prompt_id for row in self.rows)


Kind = Literal["no_labels", "too_few", "stale", "not_random", "unknown_pairs", "rubric", "chance", "part"]
_KINDS: dict[str, Kind] = {
    "unknown_pairs": "unknown_pairs",
    "stale": "stale",
    "rubric": "rubric",
    "not_random": "not_random",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a figure is not given, and what would make it possible; ``kind`` is a stable word for machines."""

    kind: Kind
    reason: str
    fix: str


def label_more(have: int, pairs: int, *, least: int, enough: int = 100, labelled: int | None = None) -> str:
    """How many more of a run's pairs to label, never more than there are: for ``least`` labels, better ``enough``.

    ``have`` labels count so far, and ``labelled`` of the ``pairs`` are labelled already (``None``: as many), among them
    those on which people split.

    >>> label_more(18, 200, least=30), label_more(18, 36, least=30)
    ('label 12 more pairs, better 82', 'label 12 more pairs, better all 18 that are left; for 100 judge more prompts')
    """
    few, many, left = (
        max(least - have, 1),
        max(enough - have, 1),
        max(pairs - (have if labelled is None else labelled), 0),
    )
    more = f"{few} more pair{'s' * (few != 1)}"
    if many <= left:
        return f"label {more}, better {many}"
    if few <= left:
        return f"label {more}, better all {left} that are left; for {enough} judge more prompts"
    need = "1 more label is" if few == 1 else f"{few} more labels are"
    rest = {0: "no pair is", 1: "only 1 pair is"}.get(left, f"only {left} pairs are")
    return f"judge more prompts: {rest} left to label in this run, and {need} needed, better {many}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Labels matched to a run: where they lie, their shares of win, tie and loss (n, 3), and what was left out."""

    sample: Sample
    shares: Array
    notes: tuple[str, ...]

    @property
    def value(self) -> Array:
        """Human outcomes by label: win 1, tie 0.5, loss 0, averaged over annotators."""
        return np.asarray(self.shares[:, 0] + self.shares[:, 1] / 2)


def join(run: JudgedRun, gold: GoldSet) -> Joined | Refused:
    """The labels that may speak for this run, matched to its rows, or the reason why there are none.

    Labels of another candidate, baseline or rubric name, of unknown pairs, and labels without a random draw are left
    out and counted; what is left must still be the random draw it says it is.
    """
    if run.part_of is not None and run.part_of > len(run.rows):
        reason = (
            f"only {len(run.rows)} of the {run.part_of} pairs of the run were judged this way, the labelled ones first"
        )
        return Refused("part", reason, "judge the whole eval set this way (`judge run`), then calibrate that run")
    place = {row.pair_id: k for k, row in enumerate(run.rows)}
    left, reasons = list(gold.items), Counter[str]()
    for kind, passes in _tests(run, place):
        passed = [item for item in left if passes(item)]
        reasons[kind] += len(left) - len(passed)
        left = passed
    if not left:
        return _refusal(run, gold, reasons)
    notes = [f"{count} labels left out: {_WHY[kind]}" for kind, count in sorted(reasons.items()) if count]
    versions = sorted({item.rubric for item in left if item.rubric and run.rubric and item.rubric != run.rubric})
    if versions:
        notes.append(f"labels were given under {', '.join(versions)}, the run was judged under {run.rubric}")
    left.sort(key=lambda item: place[item.pair_id])
    rows = np.array([place[item.pair_id] for item in left], dtype=np.int64)
    strata = _strata(run, left, rows)
    chances = _chances(run, left, strata, rows)
    if isinstance(chances, Refused):
        return chances
    codes = np.unique(np.asarray(run.prompts), return_inverse=True)[1].astype(np.int64)
    sample = Sample(rows, chances, codes, run.prompts, strata, _unit(rows, codes))
    return Joined(sample, np.array([item.shares for item in left], dtype=float), tuple(notes))


def _tests(run: JudgedRun, place: Mapping[str, int]) -> Iterator[tuple[str, Callable[[GoldItem], bool]]]:
    """What a label must pass, in order, each with the kind of its refusal."""
    family = rubric_family(run.rubric)
    yield "unknown_pairs", lambda item: item.pair_id in place
    yield "stale", lambda item: item.candidate == run.candidate and item.baseline == run.baseline
    yield "rubric", lambda item: None in (family, item.rubric) or rubric_family(item.rubric) == family
    yield "not_random", lambda item: item.drawn in _RANDOM


_WHY = {
    "unknown_pairs": "their pairs are not in this run",
    "stale": "they are about another candidate or baseline, or do not say which",
    "rubric": "they were given under another rubric",
    "not_random": "nothing says that their pairs were drawn at random",
}
_FIX = {
    "unknown_pairs": "label pairs of this run: `judge label` draws them",
    "stale": "label about 100 fresh pairs of this run; old labels measure the judge only on the run they are of",
    "rubric": "label under the rubric of this run, or judge under the rubric of the labels",
    "not_random": "draw the pairs with `judge label` (random, stratified or active), which stores the chances",
}


_UNNAMED = (
    "give them the names of the models, label with `judge label`, or run the labelled file and calibrate that run "
    "without --gold"
)


def _refusal(run: JudgedRun, gold: GoldSet, reasons: Mapping[str, int]) -> Refused:
    """The refusal for the reason that took the most labels."""
    if not gold.items:
        return Refused("no_labels", "there are no human labels", _FIX["unknown_pairs"])
    kind = max(_WHY, key=lambda name: reasons.get(name, 0))
    reason = f"none of {len(gold)} labels can speak for this run: {reasons[kind]} of them do not, because {_WHY[kind]}"
    if kind == "stale":
        if all(item.candidate is None and item.baseline is None for item in gold.items):
            reason = "the labels do not say which candidate and baseline they are about"
            return Refused("stale", reason, _UNNAMED)
        others = sorted({f"{item.candidate} against {item.baseline}" for item in gold.items})
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        reason = f"the labels are about {others[0]}{more}, this run compares {run.candidate} with {run.baseline}"
    return Refused(_KINDS[kind], reason, _FIX[kind])


def _chances(run: JudgedRun, items: list[GoldItem], strata: Codes | None, rows: Codes) -> Array | Refused:
    """The chance of each label: n/N for a random draw (by stratum for a stratified one), else what was stored."""
    kinds = {item.drawn for item in items}
    if kinds == {"all"} and len(items) < len(run.rows):
        return Refused(
            "chance",
            f"the labels say that every pair was drawn, but {len(items)} of {len(run.rows)} carry one",
            "finish labelling, or draw a random part of the run",
        )
    if kinds == {"escalated"} and len(items) < len(run.rows):
        return Refused(
            "chance",
            f"the labels are only of pairs that were escalated ({len(items)} of {len(run.rows)}): the others have none",
            "label the random audit of the others, too: `judge label --draw escalated` draws one",
        )
    if kinds <= {"random", "all"}:
        return np.full(len(items), len(items) / len(run.rows))
    if kinds == {"stratified"} and strata is not None:
        drawn = np.bincount(strata[rows], minlength=int(strata.max()) + 1)
        return np.asarray((drawn / np.bincount(strata))[strata[rows]], dtype=float)
    stored = [1.0 if item.drawn in ("all", "escalated") else item.probability for item in items]
    chances = [chance for chance in stored if chance is not None]
    if len(chances) < len(stored):
        return Refused(
            "chance",
            f"{len(stored) - len(chances)} of {len(items)} labels were drawn with unequal chances that were not stored",
            "label again with `judge label`; a chance that was not stored cannot be recovered",
        )
    return np.array(chances)


def _strata(run: JudgedRun, items: list[GoldItem], rows: Codes) -> Codes | None:
    """Category codes where the draw was stratified by category; other strata work through their chances alone."""
    if any(item.drawn != "stratified" for item in items):
        return None
    if any(item.stratum != run.rows[k].category for item, k in zip(items, rows, strict=True)):
        return None
    return np.unique(np.asarray([row.category for row in run.rows]), return_inverse=True)[1].astype(np.int64)


def _unit(rows: Codes, clusters: Codes) -> Literal["pair", "prompt"]:
    """Whether whole prompts were drawn: every labelled prompt is labelled in full, and some have several pairs."""
    inside, size = np.bincount(clusters[rows], minlength=int(clusters.max()) + 1), np.bincount(clusters)
    touched = inside > 0
    return "prompt" if (inside[touched] == size[touched]).all() and (size[touched] > 1).any() else "pair"


def rubric_family(rubric: str | None) -> str | None:
    """The name of a rubric without its version: ``helpfulness@2`` and ``helpfulness@1`` ask for the same."""
    return None if rubric is None else rubric.partition("@")[0]
