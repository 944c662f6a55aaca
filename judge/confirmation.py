"""Is the baseline served again? A canary run of what is served now, held against a rollback.

The run's candidate side are answers that production gives now, its baseline side the answers that the baseline is known
to give. Confirmed where the run is sealed, was made after the rollback, names the baseline as what answered, has
verdicts, and is not shown to be worse; how much worse it may still be is said, and goes into the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from calibration.estimates import mean

from .evidence import compared
from .limits import percentage

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from .rollout import Rollout
    from .store import RunInfo, Store

__all__ = ["Canary", "canary_of"]

_INVALID = 0.05
_FEW = 20


@dataclass(frozen=True, slots=True)
class Canary:
    """What a canary run shows: ``faults`` keep it from confirming, ``says`` is the finding where there are none."""

    run_id: str
    faults: tuple[str, ...]
    says: str
    shown: Estimate | None = None
    """The judge's mean preference for what is served now over the baseline's own answers, 0.5 where they are alike."""


def canary_of(store: Store, info: RunInfo, rollout: Rollout) -> Canary:
    """Hold a run against a rollback; nothing is written."""
    faults = []
    frame = store.comparisons(info.run_id)
    answered, _ = compared(store, info)
    if not info.sealed:
        faults.append(f"it is not finished: judge resume {info.run_id}")
    if datetime.fromisoformat(info.created_at) < datetime.fromisoformat(rollout.since):
        faults.append(f"it was begun at {info.created_at}, before the rollback at {rollout.since}")
    if answered != rollout.baseline:
        faults.append(f"its candidate answers are of {answered}, not of {rollout.baseline}: the baseline is not served")
    judged = frame.filter(frame["preference"].is_not_null()) if not frame.is_empty() else frame
    if judged.height < _FEW:
        faults.append(f"only {judged.height} comparisons have a verdict; at least {_FEW} are asked for")
    elif judged.height < (1 - _INVALID) * frame.height:
        faults.append(f"{frame.height - judged.height} of {frame.height} comparisons have no verdict")
    found = None
    if judged.height:
        prompts = judged["prompt_digest"].to_list()
        found = mean(judged["preference"].to_numpy(), clusters=prompts, bounds=(0.0, 1.0))
    if found is not None and found.high < 0.5:
        told = f"{percentage(found)}, n = {found.n}"
        faults.append(f"what is served now is shown to be worse than the baseline's own answers: {told}")
    says = f"run {info.run_id}: {answered} answers again; {_shown(found)}"
    return Canary(info.run_id, tuple(faults), says, found)


def _shown(found: Estimate | None) -> str:
    """What the canary run shows, and what it leaves open."""
    if found is None:
        return "nothing is shown about its answers"
    return (
        f"preferred over the baseline's own answers in {percentage(found)} of {found.n} comparisons (50% = alike): "
        f"shown to lose at most {100 * max(0.5 - found.low, 0.0):.1f} points, on the judge's scale"
    )
