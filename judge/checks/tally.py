"""Counting what checks found, pair by pair, in a few bytes an answer; then figures with intervals.

Two things are told apart: *failures* (the candidate's answer does not do what the check asks) and *regressions*, which
are pairs that broke: the baseline's answer did. A finding that could not be made is neither, and has a count of its
own.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calibration.estimates import Estimate, clopper_pearson, mcnemar, share, share_difference

from ..types import Severity
from .check import Observation
from .suite import Planned

__all__ = ["CheckResult", "CheckTally"]

_SHOWN = 50
_NONE = -1
_ROUNDING = 0.9
"""A two-sided level whose upper end is a one-sided 95% bound."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check over all pairs that it concerns.

    ``n`` counts pairs; ``candidate_failed``, ``baseline_failed``, ``candidate_unjudged`` and ``baseline_unjudged`` are
    exact counts. ``broken`` pairs passed on the baseline's side and fail on the candidate's, ``fixed`` ones the other
    way round, ``judged`` ones were judged on both. ``candidate``, ``baseline`` and ``difference`` are failure rates
    with 95% intervals clustered by prompt; ``upper`` is the exact one-sided 95% bound on the candidate's rate (3/n
    where nothing failed). ``p_exact`` is McNemar's exact test on broken against fixed. ``failing``, ``breaking``,
    ``fixing`` and ``unjudged`` are the first ids of each kind, ``reasons`` the commonest details of the candidate's
    failures.
    """

    check: str
    id: str
    severity: Severity
    layer: str
    axis: str
    n: int
    judged: int
    candidate_failed: int
    baseline_failed: int
    candidate_unjudged: int
    baseline_unjudged: int
    broken: int
    fixed: int
    required: bool = False
    candidate: Estimate | None = None
    baseline: Estimate | None = None
    difference: Estimate | None = None
    upper: float | None = None
    p_exact: float | None = None
    failing: tuple[str, ...] = ()
    breaking: tuple[str, ...] = ()
    fixing: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    labels: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def candidate_passed(self) -> int:
        """Answers of the candidate that pass."""
        return self.n - self.candidate_failed - self.candidate_unjudged

    @property
    def empty(self) -> bool:
        """Whether the check concerned nothing: it says nothing then, and is no pass."""
        return self.n == 0


class CheckTally:
    """The counts of one entry of a suite while pairs go by."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self.prompts = array("q")
        self.sides = {"candidate": array("b"), "baseline": array("b")}
        self.ids: dict[str, list[str]] = {name: [] for name in ("failing", "breaking", "fixing", "unjudged")}
        self.labels: dict[str, dict[str, int]] = {"candidate": {}, "baseline": {}}

    def add(self, pair_id: str, prompt: int, candidate: Observation | None, baseline: Observation | None) -> None:
        """Take one pair; a side that is not concerned where the other is counts as not judged."""
        seen = {"candidate": candidate, "baseline": baseline}
        self.prompts.append(prompt)
        for side, observation in seen.items():
            outcome = _NONE if observation is None or observation.passed is None else int(observation.passed)
            self.sides[side].append(outcome)
            if observation is not None and observation.label:
                counts = self.labels[side]
                counts[observation.label] = counts.get(observation.label, 0) + 1
        mine, theirs = self.sides["candidate"][-1], self.sides["baseline"][-1]
        kinds = {
            "failing": mine == 0,
            "breaking": mine == 0 and theirs == 1,
            "fixing": mine == 1 and theirs == 0,
            "unjudged": _NONE in {mine, theirs},
        }
        for kind, holds in kinds.items():
            if holds and len(self.ids[kind]) < _SHOWN:
                self.ids[kind].append(pair_id)

    def result(self) -> CheckResult:
        """The figures."""
        prompts = np.array(self.prompts, dtype=np.int64)
        mine, theirs = (np.array(self.sides[side], dtype=np.int8) for side in ("candidate", "baseline"))
        both = (mine != _NONE) & (theirs != _NONE)
        broken, fixed = int((both & (mine == 0) & (theirs == 1)).sum()), int((both & (mine == 1) & (theirs == 0)).sum())
        known = int((mine != _NONE).sum())
        failures = int((mine == 0).sum())
        planned = self.planned
        return CheckResult(
            check=planned.ref,
            id=planned.id,
            severity=planned.severity,
            layer=planned.check.layer,
            axis=planned.check.axis,
            n=len(prompts),
            judged=int(both.sum()),
            candidate_failed=failures,
            baseline_failed=int((theirs == 0).sum()),
            candidate_unjudged=len(mine) - known,
            baseline_unjudged=int((theirs == _NONE).sum()),
            broken=broken,
            fixed=fixed,
            required=planned.required,
            candidate=_rate(mine, prompts),
            baseline=_rate(theirs, prompts),
            difference=share_difference(
                (mine[both] == 0).astype(float), (theirs[both] == 0).astype(float), clusters=prompts[both]
            ),
            upper=clopper_pearson(failures, known, level=_ROUNDING)[1] if known else None,
            p_exact=mcnemar(np.repeat([1.0, 0.0], [broken, fixed]), np.repeat([0.0, 1.0], [broken, fixed])).p_exact
            if both.any()
            else None,
            labels={side: dict(sorted(counts.items())) for side, counts in self.labels.items() if counts},
            **{kind: tuple(names) for kind, names in self.ids.items()},
        )  # fmt: skip


def _rate(outcomes: Any, prompts: Any) -> Estimate | None:
    known = outcomes != _NONE
    return share((outcomes[known] == 0).astype(float), clusters=prompts[known])
