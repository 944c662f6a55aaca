"""A candidate and its baseline over an eval set: whose claims are less supported, by how much, and where.

Both answers of a pair are held against the same documents, so the difference is paired; pairs with one prompt are one
observation. A pair counts where both its answers were judged; every other one is counted by reason and is never a pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..types import Finding, Measure, Pair
from .claims import Grounding, ground_in, indexed
from .coefficients import Coefficients, shipped
from .likelihood import Reader

if TYPE_CHECKING:
    from calibration.estimates import Estimate
    from calibration.segments import Segment

__all__ = ["BY_WORDS", "GroundedPair", "GroundingReport", "ground_pairs", "report"]

SIDES = ("candidate", "baseline")
_EXAMPLES = 5
BY_WORDS = "Words are compared, not meaning: a true paraphrase may count as unsupported."
"""What stands beside every verdict on the unsupported share; the gate says it with its rule."""


@dataclass(frozen=True, slots=True)
class GroundedPair:
    """Both answers of a pair, held against its documents (``context``); ``prompt`` groups pairs that are one
    observation.
    """

    pair_id: str
    prompt: str
    category: str
    candidate: Grounding
    baseline: Grounding
    context: tuple[str, ...] = ()

    def of(self, side: str) -> Grounding:
        """The grounding of ``candidate`` or ``baseline``."""
        return self.candidate if side == "candidate" else self.baseline

    @property
    def both(self) -> bool:
        """Whether both answers were judged."""
        return not (self.candidate.not_judged or self.baseline.not_judged)

    @property
    def gap(self) -> float:
        """Unsupported share of the candidate minus that of the baseline; above zero is worse. 0 unless both were
        judged.
        """
        ours, theirs = self.candidate.unsupported_share, self.baseline.unsupported_share
        return ours - theirs if ours is not None and theirs is not None else 0.0


@dataclass(frozen=True, slots=True)
class GroundingReport:
    """What grounding found. ``measures`` are ``grounding.unsupported_share`` (of each answer's claims, then averaged),
    ``grounding.contradictions`` (share of answers with one) and ``grounding.claims`` (claims an answer).
    ``not_judged`` counts answers by reason for each side; ``segments`` are the paired differences in the unsupported
    share by category, raw and shrunk. ``kinds`` counts contradictions by kind for each side. ``findings`` are those
    that did not pass. ``coefficients`` weighed the evidence.
    """

    pairs: int
    judged: int
    measures: tuple[Measure, ...]
    segments: tuple[Segment, ...]
    not_judged: Mapping[str, Mapping[str, int]]
    kinds: Mapping[str, Mapping[str, int]]
    worst: tuple[GroundedPair, ...]
    findings: tuple[Finding, ...]
    coefficients: Coefficients
    phrases: float | None = None
    """Mean share of the claims' word pairs that stand so in the documents, both sides: how much they are copied."""

    def measure(self, name: str) -> Measure:
        """A measure by the end of its name; raises ``KeyError`` for another name."""
        for measure in self.measures:
            if measure.name.endswith(f".{name}"):
                return measure
        raise KeyError(name)


def ground_pairs(
    pairs: Iterable[Pair],
    coefficients: Coefficients | None = None,
    *,
    reader: Reader | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[GroundedPair]:
    """Each pair with both answers held against the documents of its item, in order, as a stream."""
    weighed = shipped() if coefficients is None else coefficients
    for done, pair in enumerate(pairs, 1):
        documents = indexed(pair.item.context)
        candidate = ground_in(documents, pair.candidate.text, weighed, reader=reader)
        same = pair.candidate.text == pair.baseline.text
        baseline = candidate if same else ground_in(documents, pair.baseline.text, weighed, reader=reader)
        prompt = pair.item.prompt or "\n".join(message.content for message in pair.item.messages)
        yield GroundedPair(pair.id, prompt, pair.item.category, candidate, baseline, pair.item.context)
        if progress is not None:
            progress(done)


def report(
    grounded: Iterable[GroundedPair], coefficients: Coefficients | None = None, *, level: float = 0.95
) -> GroundingReport:
    """Everything said about grounded pairs, from a stream; texts are kept only of the worst."""
    gathered = _Gathered()
    for pair in grounded:
        gathered.add(pair)
    return gathered.report(shipped() if coefficients is None else coefficients, level)


class _Gathered:
    """What is kept of each pair while they stream by: numbers, reasons, findings that failed, and the worst."""

    def __init__(self) -> None:
        self.pairs = 0
        self.prompts: list[str] = []
        self.categories: list[str] = []
        self.ids: list[str] = []
        self.values: dict[str, dict[str, list[float]]] = {
            name: {side: [] for side in SIDES} for name in ("unsupported_share", "contradictions", "claims")
        }
        self.reasons: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
        self.kinds: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
        self.findings: list[Finding] = []
        self.worst: list[GroundedPair] = []
        self.copied = self.counted = 0.0

    def add(self, pair: GroundedPair) -> None:
        self.pairs += 1
        for side in SIDES:
            grounding = pair.of(side)
            if grounding.not_judged:
                self.reasons[side][grounding.not_judged] += 1
            self.copied += sum(claim.features["phrases"] for claim in grounding.judged)
            self.counted += len(grounding.judged)
            self.kinds[side].update(one.kind for one in grounding.contradictions)
            self.findings += [one for one in grounding.findings(pair.pair_id, side) if one.passed is not True]
        if not pair.both:
            return
        self.ids.append(pair.pair_id)
        self.prompts.append(pair.prompt)
        self.categories.append(pair.category or "(none)")
        for side in SIDES:
            grounding = pair.of(side)
            share = grounding.unsupported_share
            assert share is not None
            self.values["unsupported_share"][side].append(share)
            self.values["contradictions"][side].append(float(bool(grounding.contradictions)))
            self.values["claims"][side].append(float(len(grounding.judged)))
        if pair.gap > 0 or len(pair.candidate.contradictions) > len(pair.baseline.contradictions):
            self.worst = sorted([*self.worst, pair], key=_badness, reverse=True)[:_EXAMPLES]

    def report(self, coefficients: Coefficients, level: float) -> GroundingReport:
        from calibration.segments import segment_rates

        share = self.values["unsupported_share"]
        gaps = [a - b for a, b in zip(share["candidate"], share["baseline"], strict=True)]
        segments: tuple[Segment, ...] = ()
        if gaps and len(set(self.categories)) > 1:
            segments = segment_rates(
                gaps, self.categories, clusters=self.prompts, reference=0.0, level=level, bounds=(-1.0, 1.0)
            )
        return GroundingReport(
            self.pairs,
            len(self.ids),
            tuple(
                self._measure(name, unit, bounds, level)
                for name, unit, bounds in (
                    ("unsupported_share", "share of claims", (0.0, 1.0)),
                    ("contradictions", "share of answers", (0.0, 1.0)),
                    ("claims", "per answer", None),
                )
            ),
            segments,
            {side: dict(counts) for side, counts in self.reasons.items()},
            {side: dict(counts) for side, counts in self.kinds.items()},
            tuple(self.worst),
            tuple(self.findings),
            coefficients,
            self.copied / self.counted if self.counted else None,
        )

    def _measure(self, name: str, unit: str, bounds: tuple[float, float] | None, level: float) -> Measure:
        from calibration.estimates import difference, mean, share

        about = (f"grounding.{name}", "evidence", "reliability", unit)
        if not self.ids:
            reasons = {reason for counts in self.reasons.values() for reason in counts}
            return Measure(
                *about, missing=f"no pair has two judged answers: {', '.join(sorted(reasons)) or 'no pairs'}"
            )
        values = self.values[name]

        def side(which: str) -> Estimate | None:
            if name == "contradictions":
                return share(values[which], clusters=self.prompts, level=level)
            return mean(values[which], clusters=self.prompts, level=level, bounds=bounds)

        gap = difference(
            values["candidate"],
            values["baseline"],
            clusters=self.prompts,
            level=level,
            bounds=None if bounds is None else (-1.0, 1.0),
        )
        examples = () if name == "claims" else tuple(pair.pair_id for pair in self.worst)
        return Measure(*about, side("candidate"), side("baseline"), gap, examples=examples)


def _badness(pair: GroundedPair) -> tuple[float, int]:
    return pair.gap, len(pair.candidate.contradictions) - len(pair.baseline.contradictions)
