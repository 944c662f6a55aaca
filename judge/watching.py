"""Watching a rollout: harm of the candidate over the baseline, bounded at every look under one error budget. Pure.

One observation is one unit of traffic (a user, a session): which arm answered it and its harms, each from 0 to 1.
Candidate and baseline are compared side by side in time: observations are taken in the order in which they came, and a
block is closed as soon as it holds both arms; its value is the mean of its candidates less the mean of its baselines. A
change of the traffic itself (a launch, a weekend) meets both arms of a block and cancels. In the shadow both models
answer the same request, and a block is a request.

Error budget ``alpha`` of the plan, over the whole rollout and all looks (``calibration.sequential.betting_bounds``):

    roll back   each guard and stage has alpha / (guards x stages): a candidate within its margins is proposed for
                rollback anywhere with a chance of at most alpha
    advance     each stage has alpha / stages, and all guards have to pass: a candidate beyond a margin (times the
                stage's slack) is passed on anywhere with a chance of at most alpha

A line that does not say a guard's metric is no zero: for advancing it counts as harm of the candidate (or none of the
baseline), for rolling back the other way round. A few such lines widen the bounds; where no line says it, nothing is
ever shown, and the proposal says so as soon as ``PATIENCE`` units of the candidate went by.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from calibration.estimates import Estimate
from calibration.sequential import betting_bounds, log_capital

from .errors import InputError
from .policy import SHARES, STAGES

if TYPE_CHECKING:
    from .policy import Guarded, Plan, Stage

__all__ = ["PATIENCE", "Move", "Observation", "Proposal", "Watched", "differences", "propose"]

_COMPARED = len(STAGES) - 1
"""Stages with a baseline to compare with: all but the last."""
_RATIO_ALPHA = 0.001
PATIENCE = 200
"""Units of the candidate after which a metric that no line says is called missing, and not late."""
_AGAINST = {"candidate": 1.0, "baseline": 0.0}
_FOR = {"candidate": 0.0, "baseline": 1.0}
"""What a line that does not say a metric counts as: the worst and the best for the candidate."""


class Move(StrEnum):
    """What the evidence proposes."""

    ADVANCE = "advance"
    HOLD = "hold"
    ROLL_BACK = "roll back"
    UNWATCHED = "not watched"
    """Of one guard: the policy does not require it, and no line of this stage or an earlier one says it."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One unit of traffic: its key, the arm that answered (``candidate`` or ``baseline``) at which stage, its harms.

    ``eligible`` is false for a request that could not meet the candidate (its risk is not let in at this stage): it is
    in no comparison.
    """

    key: str
    arm: str
    stage: str
    harms: dict[str, float] = field(default_factory=dict)
    eligible: bool = True


@dataclass(frozen=True, slots=True)
class Watched:
    """One guard at one stage: the extra harm of the candidate with bounds, its margin, and what that means.

    ``estimate`` is ``None`` where no block has a value (``why`` says so). ``lacking`` counts observations that do not
    say the metric.
    """

    metric: str
    margin: float
    passing: float
    estimate: Estimate | None
    move: Move
    why: str
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to do with a rollout now, and the evidence: one entry a guard.

    ``candidates`` and ``baselines`` count the units compared, ``repeated`` observations of a key that was counted
    already, ``left_out`` those of other stages or not eligible.
    """

    move: Move
    stage: str
    why: str
    guards: tuple[Watched, ...]
    candidates: int
    baselines: int
    repeated: int = 0
    left_out: int = 0


def propose(plan: Plan, stage: str, observations: Iterable[Observation], *, said: Collection[str] = ()) -> Proposal:
    """Advance, hold or roll back, from the observations of the present stage in the order in which they came.

    ``said`` names the metrics that earlier stages of this rollout are known to have logged; those that observations of
    earlier stages say are added. What was logged once is watched to the end: a guard of it that falls silent holds.

    Rolls back where one guard is shown to be beyond its margin; advances where all that are logged, at least one, are
    shown to be within margin times slack; holds else: without a value for every guard that is required, with a share of
    candidates that is not the stage's, and where the stage's exposure is used up without an answer (then a person
    decides). Raises ``InputError`` for a harm outside [0, 1] or an arm of another name.
    """
    known = set(said)
    mine, repeated, left_out = _kept(stage, _noting(stage, observations, known))
    candidates = sum(seen.arm == "candidate" for seen in mine)
    counts = (candidates, len(mine) - candidates, repeated, left_out)
    if stage == STAGES[-1]:
        why = "at 100% no baseline is left to compare with; judge rollout rollback still takes it back"
        return Proposal(Move.HOLD, stage, why, (), *counts)
    shown = tuple(_watched(plan, plan.stage(stage), guard, mine, known) for guard in plan.guards)
    worse = [guard.metric for guard in shown if guard.move is Move.ROLL_BACK]
    if worse:
        why = f"{', '.join(worse)}: the candidate is shown to do more harm than its margin"
        return Proposal(Move.ROLL_BACK, stage, why, shown, *counts)
    skewed = _skewed(stage, mine)
    if skewed:
        return Proposal(Move.HOLD, stage, skewed, shown, *counts)
    open_ = [guard.metric for guard in shown if guard.move is Move.HOLD]
    if not any(guard.move is Move.ADVANCE for guard in shown) and not open_:
        why = "not one guard is logged: nothing is watched, and nothing is shown; log the harm that a guard names"
        return Proposal(Move.HOLD, stage, why, shown, *counts)
    if not open_:
        return Proposal(Move.ADVANCE, stage, _advances(shown), shown, *counts)
    gone = [guard.metric for guard in shown if guard.move is Move.HOLD and guard.lacking == len(mine)]
    if gone and candidates >= min(PATIENCE, plan.stage(stage).units):
        return Proposal(Move.HOLD, stage, _never(gone, candidates, known), shown, *counts)
    if candidates >= plan.stage(stage).units:
        why = f"{candidates} units met the candidate, as many as planned, without an answer on {', '.join(open_)}: "
        return Proposal(Move.HOLD, stage, why + "a person has to decide", shown, *counts)
    why = f"not yet shown: {', '.join(open_)}; {candidates} of {plan.stage(stage).units} planned units"
    return Proposal(Move.HOLD, stage, why, shown, *counts)


def _advances(shown: Sequence[Watched]) -> str:
    free = [guard.metric for guard in shown if guard.move is Move.UNWATCHED]
    if not free:
        return "every guard is shown to be within its margin"
    return f"every guard that is logged is shown to be within its margin; not watched: {', '.join(free)}"


def _noting(stage: str, observations: Iterable[Observation], known: set[str]) -> Iterator[Observation]:
    """The same observations; the metrics that those of earlier stages say are put into ``known``."""
    earlier = STAGES[: STAGES.index(stage)]
    for seen in observations:
        if seen.stage in earlier:
            known.update(seen.harms)
        yield seen


def _never(gone: Sequence[str], candidates: int, known: Collection[str]) -> str:
    """Why waiting does not help, and the two ways on."""
    names = ", ".join(gone)
    logged = ", ".join(f'"{name}": 0' for name in gone)
    fell = [name for name in gone if name in known]
    silent = f". Earlier stages said {', '.join(fell)}: look for what stopped the log" if fell else ""
    return (
        f"not one line says {names}, after {candidates} units of the candidate: more traffic will not show it. Log it "
        f"(harms: {{{logged}}} or 1), or let two people decide: judge rollout advance --force --reason WHY --by YOU "
        "--second ANOTHER. Where it cannot be logged, give the guard `required: false` in the policy of the next gate"
        + silent
    )


def differences(
    stage: str, observations: Sequence[Observation], metric: str, *, absent: Mapping[str, float] | None = None
) -> list[float]:
    """The harm of the candidate less that of the baseline, one value a block, each in [-1, 1].

    ``absent`` is what an observation that does not say the metric counts as, by its arm (none given: all must say it).
    """
    fill = absent or {}
    if stage == STAGES[0]:
        return _paired(observations, metric, fill)
    found = []
    sums = {"candidate": [0.0, 0], "baseline": [0.0, 0]}
    for seen in observations:
        own = sums[seen.arm]
        own[0] += _harm(seen, metric, fill)
        own[1] += 1
        if sums["candidate"][1] and sums["baseline"][1]:
            means = {arm: total / count for arm, (total, count) in sums.items()}
            found.append(means["candidate"] - means["baseline"])
            sums = {"candidate": [0.0, 0], "baseline": [0.0, 0]}
    return found


def _harm(seen: Observation, metric: str, fill: Mapping[str, float]) -> float:
    found = seen.harms.get(metric)
    return fill[seen.arm] if found is None else found


def _paired(observations: Sequence[Observation], metric: str, fill: Mapping[str, float]) -> list[float]:
    waiting: dict[str, Observation] = {}
    found = []
    for seen in observations:
        other = waiting.pop(seen.key, None)
        if other is None:
            waiting[seen.key] = seen
        elif other.arm != seen.arm:
            sign = 1.0 if seen.arm == "candidate" else -1.0
            found.append(sign * (_harm(seen, metric, fill) - _harm(other, metric, fill)))
    return found


def _kept(stage: str, observations: Iterable[Observation]) -> tuple[list[Observation], int, int]:
    """The observations of a stage, each key once (in the shadow once an arm), with what was left out."""
    kept, seen_keys, repeated, left_out = [], set(), 0, 0
    for seen in observations:
        if seen.arm not in ("candidate", "baseline"):
            raise InputError(f"key {seen.key!r}: arm {seen.arm!r} is neither candidate nor baseline")
        for metric, harm in seen.harms.items():
            if not 0.0 <= harm <= 1.0:
                raise InputError(f"key {seen.key!r}: {metric} is {harm}; a harm lies between 0 (none) and 1")
        name = (seen.key, seen.arm) if stage == STAGES[0] else seen.key
        if seen.stage != stage or not seen.eligible:
            left_out += 1
        elif name in seen_keys:
            repeated += 1
        else:
            seen_keys.add(name)
            kept.append(seen)
    return kept, repeated, left_out


def _watched(plan: Plan, stage: Stage, guard: Guarded, mine: Sequence[Observation], known: Collection[str]) -> Watched:
    passing = min(guard.margin * stage.slack, 0.99)
    lacking = sum(guard.metric not in seen.harms for seen in mine)

    def watched(move: Move, why: str, found: Estimate | None = None) -> Watched:
        return Watched(guard.metric, guard.margin, passing, found, move, why, lacking)

    if not mine:
        return watched(Move.HOLD, "no observation yet")
    if lacking == len(mine):
        why = f"not one of {lacking} observations says {guard.metric}"
        if guard.metric in known:
            return watched(Move.HOLD, f"{why}, which an earlier stage did")
        if guard.required:
            return watched(Move.HOLD, why)
        return watched(Move.UNWATCHED, f"{why}, and the policy does not require it")
    found = _bounded(plan, stage, guard.metric, mine, lacking)
    if found is None:
        return watched(Move.HOLD, "no block with both arms yet")
    said = f"; {lacking} of {len(mine)} observations do not say it, which counts both ways" if lacking else ""
    if found.low > guard.margin:
        return watched(Move.ROLL_BACK, f"more harm than the margin{said}", found)
    if found.high < passing:
        return watched(Move.ADVANCE, f"within the margin{said}", found)
    return watched(Move.HOLD, f"not decided yet{said}", found)


def _bounded(plan: Plan, stage: Stage, metric: str, mine: Sequence[Observation], lacking: int) -> Estimate | None:
    """The extra harm with its two bounds; each takes what is not said at its worst for what it would show."""
    found = []
    for absent in (_AGAINST, _FOR) if lacking else (_AGAINST,):
        values = differences(stage.name, mine, metric, absent=absent)
        found.append(
            betting_bounds(
                values,
                alpha_low=plan.alpha / (len(plan.guards) * _COMPARED),
                alpha_high=plan.alpha / _COMPARED,
                bounds=(-1.0, 1.0),
            )
        )
    against, best = found[0], found[-1]
    if against is None or best is None:
        return None
    return replace(against, value=(against.value + best.value) / 2, low=best.low)


def _skewed(stage: str, mine: Sequence[Observation]) -> str:
    """Why the assignment cannot be right: the share of candidates is not the stage's, by a test valid at every look."""
    if stage == STAGES[0] or not mine:
        return ""
    arms = [float(seen.arm == "candidate") for seen in mine]
    if max(log_capital(arms, SHARES[stage], alpha=_RATIO_ALPHA)) < math.log(2.0 / _RATIO_ALPHA):
        return ""
    return (
        f"{sum(arms):.0f} of {len(arms)} eligible units met the candidate where {SHARES[stage]:.0%} should: the "
        "assignment or the log is broken, so nothing can be read from it"
    )
