"""What one judge said about the pairs of one run, as the calibration report needs it: a value, made by the caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rubrics import Outcome
from rubrics.errors import InputError

from .gold import GoldSet
from .gold_rows import GoldItem
from .provenance import JudgedRun, rubric_family

__all__ = ["Evidence", "Matched", "Said", "match"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """The judge on one pair, from the candidate's side: settled ``outcome``, and what each call said.

    ``first`` and ``second`` are the outcomes of every repeat with the candidate shown first and shown second, ``soft``
    the preference P(win) + P(tie)/2 of the two places (mean over repeats), ``each`` the preference of every repeat
    (mean of its two places; empty: one repeat); ``None`` is invalid. ``candidate`` and ``baseline`` name the models
    where the answers carry one, ``texts`` is a digest of both answers.
    """

    outcome: Outcome | None
    first: tuple[Outcome | None, ...]
    second: tuple[Outcome | None, ...]
    soft: tuple[float | None, float | None]
    candidate: str | None = None
    baseline: str | None = None
    each: tuple[float | None, ...] = ()
    texts: str = ""


@dataclass(frozen=True)
class Evidence:
    """One judge on one run: ``said[k]`` belongs to ``run.rows[k]``.

    ``rubric`` and ``judge`` are what a ``Calibration`` is tied to, ``identity`` every digest and version worth
    printing. ``styles`` holds by feature the difference candidate minus baseline by pair id, for the pairs whose texts
    were read. ``cost`` (US dollars, ``None``: a price is unknown) and ``tokens`` are what judging all of it anew takes,
    ``seconds`` is the mean time of a call. ``sequence`` holds the pair ids in the order in which they were judged
    (empty: the order of the rows).
    """

    run: JudgedRun
    said: tuple[Said, ...]
    rubric: str
    judge: str
    identity: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost: float | None = None
    tokens: int = 0
    seconds: float | None = None
    sequence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.said) != len(self.run.rows):
            raise InputError(f"{len(self.said)} sets of verdicts for {len(self.run.rows)} pairs; give one a pair")

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The row of each pair id."""
        return {row.pair_id: k for k, row in enumerate(self.run.rows)}

    @cached_property
    def preferences(self) -> Array:
        """The soft preference of each row, NaN where invalid."""
        soft = self.run.probabilities[:, 0] + self.run.probabilities[:, 1] / 2
        return np.where(self.run.valid, soft, np.nan)

    def singles(self, row: int) -> tuple[float, ...]:
        """The preferences of one row, one for each repeat that has a verdict."""
        said = self.said[row]
        if not said.each:
            return (float(self.preferences[row]),) if self.run.valid[row] else ()
        return tuple(value for value in said.each if value is not None)

    @property
    def outcomes(self) -> Mapping[str, Outcome | None]:
        """The settled outcome by pair id."""
        return {row.pair_id: said.outcome for row, said in zip(self.run.rows, self.said, strict=True)}


@dataclass(frozen=True)
class Matched:
    """Labels about the very answers that were judged, clustered by the run's prompts; ``left_out`` counts the others.

    ``gold`` may measure the judge; whether it may also speak for the run's rate is decided by ``provenance.join``.
    """

    gold: GoldSet
    rows: npt.NDArray[np.int64]
    left_out: Mapping[str, int]
    digest: str
    """Of the whole gold set, as it was read."""

    @cached_property
    def human(self) -> Array:
        """Human outcomes by item: win 1, tie 0.5, loss 0, averaged over annotators."""
        return np.array([item.value for item in self.gold.items], dtype=float)

    @cached_property
    def prompts(self) -> list[str]:
        """The prompt of each item."""
        return [item.prompt_id for item in self.gold.items]


def match(evidence: Evidence, gold: GoldSet) -> Matched:
    """The labels that are about this run's answers, in gold order.

    A label of a pair that was not judged, of another candidate or baseline (by name, or by the length of its answer),
    or of another rubric says nothing about what the judge saw here; each is left out and counted.
    """
    kept: list[GoldItem] = []
    rows: list[int] = []
    left = Counter[str]()
    for item in gold.items:
        k = evidence.place.get(item.pair_id)
        why = "pairs that are not in this run" if k is None else _unlike(evidence, k, item)
        if why is not None or k is None:
            left[why or ""] += 1
            continue
        kept.append(replace(item, prompt_id=evidence.run.rows[k].prompt_id))
        rows.append(k)
    own = GoldSet(tuple(kept), gold.notes)
    return Matched(own, np.array(rows, dtype=np.int64), dict(sorted(left.items())), gold.digest)


def _unlike(evidence: Evidence, k: int, item: GoldItem) -> str | None:
    """Why a label is about something else than row ``k``; ``None`` where nothing says so."""
    row, said = evidence.run.rows[k], evidence.said[k]
    sides: Sequence[tuple[str | None, str | None, str | None]] = (
        (item.candidate, evidence.run.candidate, said.candidate),
        (item.baseline, evidence.run.baseline, said.baseline),
    )
    if any(name is not None and name not in known for name, *known in sides):
        return "another candidate or baseline"
    if item.rubric and rubric_family(item.rubric) != rubric_family(evidence.rubric):
        return "another rubric"
    lengths = ((item.candidate_length, row.candidate_length), (item.baseline_length, row.baseline_length))
    if any(None not in pair and pair[0] != pair[1] for pair in lengths):
        return "answers of another length under the same pair id"
    return None
