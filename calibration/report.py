"""The calibration report as one value: how far this judge can be believed on this run, and why.

``calibration_report`` is pure; the terminal, Markdown, JSON and HTML are made from the value it returns. What cannot be
said is a ``Refused`` with the reason and the fix, or ``None`` where there is nothing it could be about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .agreement import AgreementReport, agreement_report
from .belief import Assumption, Belief, believe, ledger
from .cards import (
    BiasCard,
    ConfidenceCard,
    DriftCard,
    SelectiveCard,
    bias_card,
    confidence_card,
    drift_card,
    selective_card,
)
from .evidence import Evidence, Matched, match
from .gold import GoldSet
from .length import LABEL_FLOOR, LengthControlled, controlled, human_controlled, length_feature, reaches_equality
from .ppi import Estimand
from .provenance import Joined, Refused, join
from .winrate import Frame, SegmentRate, WinRate, segment_win_rates, win_rate

if TYPE_CHECKING:
    from .change import Change
    from .selfcheck import SelfCheck

__all__ = ["CalibrationReport", "Earlier", "LengthCard", "calibration_report"]


@dataclass(frozen=True, slots=True)
class LengthCard:
    """The win rate at equal answer lengths: on the judge's scale, and on the human scale where labels allow it."""

    judge: LengthControlled | None
    human: LengthControlled | Refused | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier judging of the same pairs, to measure drift against, and its name."""

    name: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Everything known about one judge on one run.

    ``belief`` is the verdict in plain words and stands first. ``identity`` names every version and digest, ``labels``
    how many labelled pairs could be used, ``left_out`` why others could not, ``warnings`` what is odd about the gold
    set, ``disputed`` the pairs an expert should see. ``ledger`` lists every assumption and whether it holds.
    ``change`` is the rubric or judge experiment and ``self_check`` the measured coverage, where they were asked for.
    """

    belief: Belief
    identity: Mapping[str, str]
    labels: int
    left_out: Mapping[str, int]
    warnings: tuple[str, ...]
    disputed: tuple[str, ...]
    win_rate: WinRate
    length: LengthCard
    agreement: AgreementReport
    confidence: ConfidenceCard
    selective: SelectiveCard
    bias: BiasCard
    segments: tuple[SegmentRate, ...] | Refused
    drift: DriftCard | None
    ledger: tuple[Assumption, ...]
    change: Change | None = None
    self_check: SelfCheck | Refused | None = None


def calibration_report(
    evidence: Evidence,
    gold: GoldSet,
    *,
    earlier: Earlier | None = None,
    estimand: Estimand = "superpopulation",
    error_cost: float = 5.0,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> CalibrationReport:
    """Measure one judge on one run against human labels.

    ``gold`` may hold labels of other pairs, candidates and rubrics: those are left out and counted. ``error_cost`` is
    what a wrong verdict costs in human labels. ``rounds`` are bootstrap rounds (half of them where a round refits or
    redraws everything, a tenth in slices). Deterministic for equal arguments.

    Example::

        report = calibration_report(evidence, GoldSet.read("gold.jsonl"))
        report.belief.word, report.win_rate.corrected, [a.text for a in report.ledger if a.holds is False]
    """
    matched = match(evidence, gold)
    agreement = agreement_report(matched.gold, evidence.outcomes, level=level, rounds=rounds, seed=seed)
    rate = win_rate(evidence.run, gold, estimand=estimand, level=level, seed=seed)
    report = CalibrationReport(
        belief=Belief("UNKNOWN", ()),
        identity={**evidence.identity, "gold": matched.digest},
        labels=len(matched.gold),
        left_out=matched.left_out,
        warnings=matched.gold.warnings,
        disputed=tuple(item.pair_id for item in matched.gold.disputed()),
        win_rate=rate,
        length=_length(evidence, gold, matched, rate, level=level, rounds=rounds, seed=seed),
        agreement=agreement,
        confidence=confidence_card(evidence, matched, level=level, rounds=rounds, seed=seed),
        selective=selective_card(evidence, matched, error_cost=error_cost, seed=seed),
        bias=bias_card(evidence, matched, level=level),
        segments=segment_win_rates(evidence.run, gold, level=level, seed=seed),
        drift=None
        if earlier is None
        else drift_card(earlier.evidence, evidence, matched, name=earlier.name, seed=seed, level=level),
        ledger=(),
    )
    fitted = report.confidence.fitted
    if not isinstance(fitted, Refused):
        made_out = report.selective.certificates
        passed = {} if isinstance(made_out, Refused) else {f"{made.alpha:g}": made.threshold for made in made_out}
        certified = {alpha: threshold for alpha, threshold in passed.items() if threshold is not None}
        fitted = replace(
            fitted,
            certified=certified,
            dated=evidence.identity.get("replies since", ""),
            sources=matched.gold.sources,
            evalset=evidence.identity.get("pairs of", "") or evidence.identity.get("eval set", ""),
        )
        report = replace(report, confidence=replace(report.confidence, fitted=fitted))
    report = replace(report, ledger=ledger(report, matched))
    return replace(report, belief=believe(report))


def _length(
    evidence: Evidence, gold: GoldSet, matched: Matched, rate: WinRate, *, level: float, rounds: int, seed: int
) -> LengthCard:
    rows = evidence.run.rows
    sizes = np.array(
        [
            (np.nan, np.nan)
            if row.candidate_length is None or row.baseline_length is None
            else (row.candidate_length, row.baseline_length)
            for row in rows
        ],
        dtype=float,
    ).reshape(-1, 2)
    feature = length_feature(sizes[:, 0], sizes[:, 1])
    known = np.isfinite(feature)
    if not known.any() or not np.any(sizes[known, 0] != sizes[known, 1]):
        return LengthCard(None, None)
    if not np.ptp(feature[known]) or not reaches_equality(feature):
        why = (
            "hardly any pair has answers of about equal length, or nearly all differ the same way: length cannot be "
            "told apart from quality here, and a rate at equal length would be extrapolated"
        )
        fix = "judge pairs of which at least one in twenty (and five) is not longer, and as many not shorter"
        return LengthCard(None, Refused("too_few", why, fix))
    rounds //= 2  # every round refits a regression; 500 place the ends of an interval well enough
    preferences = np.where(known, evidence.preferences, np.nan)
    feature = np.where(known, feature, 0.0)
    prompts = list(evidence.run.prompts)
    plain = controlled(preferences, feature, clusters=prompts, level=level, rounds=rounds, seed=seed)
    if isinstance(rate.corrected, Refused):
        return LengthCard(plain, rate.corrected)
    joined = join(evidence.run, gold)
    assert isinstance(joined, Joined)  # a corrected win rate exists
    if len(np.unique(joined.sample.chances)) > 1:
        why = "the labels were drawn with unequal chances, which this estimator does not weigh"
        return LengthCard(plain, Refused("not_random", why, "draw at random to have it"))
    human = np.full(len(rows), np.nan)
    human[joined.sample.rows] = joined.value
    human[~known] = np.nan
    labelled = np.isfinite(human)
    count = len({prompts[k] for k in np.flatnonzero(labelled)})
    if count < LABEL_FLOOR:
        why = f"{labelled.sum()} labels of pairs with known answer lengths lie on {count} prompts, below {LABEL_FLOOR}"
        return LengthCard(plain, Refused("too_few", why, f"label pairs of {LABEL_FLOOR - count} more prompts"))
    if labelled[known].all():
        people = controlled(human, feature, clusters=prompts, level=level, rounds=rounds, seed=seed)
        assert people is not None  # there are labels
        return LengthCard(plain, replace(people, method=f"every pair is labelled, no judge needed; {people.method}"))
    # A pair without a verdict stays in with a neutral preference, as in the win rate: leaving it out would select by
    # verdict, and the labels of pairs on which the judge falls silent need not be like the others.
    neutral = np.where(known, Frame.of(evidence.run).soft, np.nan)
    people = human_controlled(neutral, feature, human, clusters=prompts, level=level, rounds=rounds, seed=seed)
    return LengthCard(plain, people)
