"""A cascade: the cheap judge first; what its calibration cannot certify goes to the next one, the rest to people.

A judge's verdict stands where its confidence reaches the threshold that was certified for exactly this rubric and judge
(``calibration.selective``; Jung, Brahman, Choi 2024, arXiv 2407.18370). Each stage is a run of its own: the first over
the eval set, each later one over what the stage before passed on, written as an eval set in the home folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from calibration.confidence import NotCalibrated

from .canaries import NO_CANARIES, CanaryVerdict, canary_verdict, together
from .errors import InputError
from .formats import EvalSet, open_evalset, write_evalset
from .money import total
from .summary import summarise, whole_cost

if TYPE_CHECKING:
    import polars

    from calibration.confidence import Calibration

    from .panels import Group
    from .store import RunInfo, Store
    from .summary import RunReport, Slice

__all__ = ["CascadeReport", "Gate", "Stage", "cascade_report", "escalated", "escalated_evalset", "gate_of"]

DELTA = 0.1
"""The chance that one certificate is wrong, as ``judge calibrate`` makes them."""
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Gate:
    """From which confidence on a stage of a cascade decides alone, and on what evidence.

    ``rate`` is the certified error rate, ``gold`` the digest of the gold set, with ``labels`` labels of ``prompts``
    prompts.
    """

    threshold: float
    rate: float
    gold: str
    labels: int
    prompts: int


def gate_of(calibration: Calibration, *, rubric: str, judge: str, error: float) -> Gate:
    """The gate of a stage: the threshold certified for the largest rate that is not above ``error``.

    Raises ``NotCalibrated`` where the calibration is for another rubric or judge, or certifies no such rate.
    """
    calibration.require(rubric=rubric, judge=judge)
    rates = {float(rate): threshold for rate, threshold in calibration.certified.items()}
    able = [rate for rate in rates if rate <= error + 1e-12]
    if not able:
        held = ", ".join(f"{rate:g}" for rate in sorted(rates))
        why = (
            f"certified are {held}: pass --error {min(rates):g}, or label more pairs"
            if rates
            else "no rate is certified: its report says how many labels would do, if any number does"
        )
        raise NotCalibrated(
            f"{judge} is not certified to err at most {error:g} (gold {calibration.gold[:12]}, "
            f"{calibration.clusters} labelled prompts); {why}"
        )
    rate = max(able)
    return Gate(rates[rate], rate, calibration.gold, calibration.n, calibration.clusters)


def escalated(frame: polars.DataFrame, gate: Gate) -> list[str]:
    """Pair ids on which a stage does not decide: no verdict, or a confidence under the gate's; sorted.

    Pairs with identical answers are ties that need no judge and stay decided.
    """
    return sorted(
        row["pair_id"]
        for row in frame.iter_rows(named=True)
        if "identical" not in row["flags"].split(" ")
        and (row["confidence"] is None or row["confidence"] < gate.threshold)
    )


def escalated_evalset(store: Store, run_id: str, pair_ids: Sequence[str]) -> EvalSet:
    """The named pairs of a run as an eval set in the home folder, the same file for the same pairs."""
    digest = hashlib.sha256(orjson.dumps([run_id, list(pair_ids)])).hexdigest()
    path = store.home / "evalsets" / f"escalated-{digest[:12]}.jsonl"
    if not path.exists():
        parts = (pair_ids[at : at + _CHUNK] for at in range(0, len(pair_ids), _CHUNK))
        write_evalset(path, (pair for part in parts for pair in store.pairs(run_id, part)))
    return open_evalset(path)


@dataclass(frozen=True, slots=True)
class Stage:
    """One judge of a cascade: of the ``reached`` pairs it ``decided`` some (``identical`` ones need no judge), and
    passed the others on, ``invalid`` ones among them.

    ``gate`` is ``None`` for a last judge that nothing certifies: each of its verdicts stands. ``cost`` is what its
    run took in US dollars, ``each`` what one pair takes when it is asked for (``None``: a price is unknown).
    ``canaries`` is what the canary pairs of its run say.
    """

    place: int
    judge: str
    run_id: str | None
    sealed: bool
    gate: Gate | None
    reached: int
    decided: int
    identical: int
    invalid: int
    cost: float | None
    each: float | None
    canaries: CanaryVerdict = NO_CANARIES

    @property
    def passed_on(self) -> int:
        """Pairs that it did not decide."""
        return self.reached - self.decided


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """What a cascade says: ``report`` summarises every pair by the last judge that saw it.

    ``cost`` is in US dollars, ``all_last`` about what the last judge would have cost for all pairs, at the mean cost of
    those it judged (``None``: a price is unknown, or it judged none). ``people`` are pairs that no judge decided: no
    verdict, a confidence under the last gate, or another verdict when swapped where there is no such gate.
    ``certificates`` hold together with a confidence of at least ``together``.
    """

    cascade_id: str
    error: float
    pairs: int
    stages: tuple[Stage, ...]
    report: RunReport
    people: tuple[str, ...]
    cost: float | None
    all_last: float | None
    certificates: int
    together: float

    @property
    def sealed(self) -> bool:
        """Whether every judge has judged what reached it."""
        return all(stage.sealed for stage in self.stages)


def cascade_report(store: Store, group: Group, *, by: str = "category") -> CascadeReport:
    """Each pair by the last judge that saw it, and who decided how many; ``by`` names the slices (``summarise``).

    Raises ``InputError`` where nothing is judged yet.
    """
    stages: list[Stage] = []
    frames: list[polars.DataFrame] = []
    left: list[str] | None = None
    for place, spec in enumerate(group.specs, 1):
        plan, info = group.plan["gates"][place - 1], group.runs.get(place)
        gate = Gate(**plan) if plan is not None else None
        frame = store.comparisons(info.run_id) if info is not None and left != [] else None
        if info is None or frame is None or frame.is_empty():
            stages.append(_idle(place, info, spec, gate, left))
            left = left if left == [] else None
            continue
        frames.append(frame)
        stage, left = _stage(store, info, frame, gate)
        stages.append(stage)
    if not frames:
        raise InputError(f"{group.id} has no comparison yet; finish it with: judge resume {group.id}")
    each, whole = stages[-1].each, frames[0].height
    gates = sum(stage.gate is not None and stage.reached > 0 for stage in stages)
    report = summarise(
        _header(group, stages),
        _merged(frames),
        by=by,
        sealed=all(stage.sealed for stage in stages),
        canaries=together({stage.place: stage.canaries for stage in stages if stage.reached}),
    )
    return CascadeReport(
        cascade_id=group.id,
        error=float(group.plan["error"]),
        pairs=whole,
        stages=tuple(stages),
        report=_without_unit_costs(report),
        people=tuple(left or ()) if report.sealed else (),
        cost=total(stage.cost for stage in stages),
        all_last=None if each is None else each * whole,
        certificates=gates,
        together=max(0.0, 1 - gates * DELTA),
    )


def _idle(place: int, info: RunInfo | None, spec: str, gate: Gate | None, left: list[str] | None) -> Stage:
    """A stage that has judged nothing: because nothing reached it, or not yet."""
    judge = info.judge if info is not None else spec.partition("?")[0]
    run_id = info.run_id if info is not None else None
    cost = info.probe_cost if info is not None else 0.0
    return Stage(place, judge, run_id, left == [], gate, len(left or ()), 0, 0, 0, cost, None)


def _stage(store: Store, info: RunInfo, frame: polars.DataFrame, gate: Gate | None) -> tuple[Stage, list[str]]:
    """What a stage did, and the pairs that it did not decide."""
    rows = [(row["pair_id"], row["consistent"]) for row in frame.iter_rows(named=True)]
    left = escalated(frame, gate) if gate is not None else sorted(pair for pair, same in rows if not same)
    invalid = frame["outcome"].null_count()
    taken = store.usage(info.run_id)[0]
    canaries = canary_verdict(info.header, store.canaries(info.run_id), frame)
    pairs = None if frame["cost"].null_count() else float(frame["cost"].sum())
    stage = Stage(
        place=int(info.header["cascade"]["place"]),
        judge=info.judge,
        run_id=info.run_id,
        sealed=info.sealed,
        gate=gate,
        reached=frame.height,
        decided=frame.height - (len(left) if gate is not None else invalid),
        identical=int(frame["flags"].str.split(" ").list.contains("identical").sum()),
        invalid=invalid,
        cost=whole_cost(pairs, canaries, info.header),
        each=None if taken is None else taken / frame.height,
        canaries=canaries,
    )
    return stage, left


def _merged(frames: Sequence[polars.DataFrame]) -> polars.DataFrame:
    """Each pair's row of the last stage that judged it, with what all its stages took."""
    import polars

    merged = frames[0]
    for frame in frames[1:]:
        before = merged.select("pair_id", polars.col("cost", "tokens").name.suffix("_before"))
        sums = [polars.col(name) + polars.col(f"{name}_before") for name in ("cost", "tokens")]
        added = frame.join(before, on="pair_id", how="left").with_columns(sums).select(merged.columns)
        merged = polars.concat([merged.join(added, on="pair_id", how="anti"), added], how="vertical_relaxed")
    return merged.sort("pair_id")


def _header(group: Group, stages: Sequence[Stage]) -> dict[str, Any]:
    """The header of the first run, in the name of the cascade."""
    runs = list(group.runs.values())
    notices = dict.fromkeys(str(info.header["judge_notice"]) for info in runs if info.header["judge_notice"])
    calls = {
        "calls": sum(info.calls for info in runs),
        "possibly_paid": sum(info.possibly_paid for info in runs),
        "possibly_paid_cost": total(info.possibly_paid_cost for info in runs),
        "given_up": sum(info.given_up for info in runs),
        "probes": sum(info.probes for info in runs),
        "probe_cost": total(info.probe_cost for info in runs),
    }
    name = ", then ".join(stage.judge for stage in stages)
    judge = {"name": name, "revision": "", "decoding": "", "by_pair": False}
    return {
        **group.first.header,
        "run_id": group.id,
        "judge": judge,
        "judge_notice": " ".join(notices),
        "calls": calls,
    }


def _without_unit_costs(report: RunReport) -> RunReport:
    """A pair of a cascade may have cost four calls of two judges: a cost per verdict would say nothing."""

    def bare(part: Slice) -> Slice:
        return replace(part, cost_per_verdict=None)

    return replace(report, overall=bare(report.overall), categories=tuple(bare(part) for part in report.categories))
