"""Everything that is known about a run, gathered from the home folder for the gate: the one place that reads for it.

What is not there becomes a ``Missing`` with the command that would make it (``kept`` reads what suites, hacking reports
and probes left behind).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.belief import more_labels
from calibration.confidence import Calibration
from calibration.drift import log_length, moves
from calibration.estimates import Estimate, mean, normal_quantile, sample_size
from calibration.provenance import Judged, Refused
from calibration.report import CalibrationReport, Earlier, calibration_report
from calibration.segments import benjamini_hochberg
from calibration.winrate import SegmentRate, segment_win_rates, win_rate

from .again import run_command
from .calibrations import stored_calibration
from .canaries import canary_verdict
from .clock import days_since
from .decision import Calibrated, Canaries, Evidence, Missing, Preference, RunFacts, Segment, Standing
from .errors import InputError
from .evidence import compared, labels_of, run_evidence
from .kept import probed, read_kept, require_named
from .slices import slices_of
from .types import Measure

if TYPE_CHECKING:
    from datetime import datetime

    import polars

    from calibration.evidence import Evidence as JudgeEvidence
    from calibration.gold import GoldSet

    from .policy import Policy
    from .store import RunInfo, Store

__all__ = ["Asked", "gather", "require_asked"]

_COLUMNS = (
    "pair_id", "repeat", "prompt_digest", "category", "metadata", "preference", "invalid", "candidate_chars",
    "baseline_chars", "cached",
)  # fmt: skip
_SHOWN = 20
_ROUNDS = 1000
_REST = "\x00rest"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gate is to look at beside the run itself.

    ``gold`` are human labels (``None``: those that the eval set carries), ``gold_files`` where they lie. ``checks``
    and ``hacks`` name what a check or hacking report kept (none: the newest that is about the run). ``calibration`` is
    one to be used instead of the fitted or stored one, ``since`` an earlier run of the same pairs.
    """

    gold: GoldSet | None = None
    checks: tuple[str, ...] = ()
    hacks: tuple[str, ...] = ()
    calibration: Calibration | None = None
    since: RunInfo | None = None
    seed: int = 0
    gold_files: tuple[str, ...] = ()


def gather(store: Store, info: RunInfo, policy: Policy, asked: Asked, *, now: datetime) -> Evidence:
    """Everything that the gate looks at. Raises ``InputError`` where something was named that is about another run,
    rubric or judge.
    """
    frame = store.comparisons(info.run_id, _COLUMNS)
    facts = _facts(store, info, frame, now)
    require_asked(store, info, asked)
    left = read_kept(store, info, checks=asked.checks, hacks=asked.hacks)
    measures = dict(left.measures)
    inputs = {
        "run": info.run_id,
        "eval set": str(info.header["evalset"]["digest"]),
        "rubric": str(info.header["rubric_digest"]),
        **left.inputs,
    }
    unfinished = Missing("the run is not finished", f"judge resume {info.run_id}")
    preference: Preference | Missing = unfinished
    standing: Standing | Missing = unfinished
    if info.sealed and not frame.is_empty():
        found = _judged(store, info, frame, policy, asked, now)
        preference, standing, used = found
        inputs |= used
        if "length.log_ratio" not in measures and preference.log_length is not None:
            longest = _most(frame)
            measures["length.log_ratio"] = Measure(
                "length.log_ratio", "behaviour", "capability", "ln", difference=preference.log_length, examples=longest
            )
    return Evidence(
        run=facts,
        suites=left.suites,
        measures=measures,
        unmeasured=left.unmeasured,
        preference=preference,
        canaries=_canaries(store, info, frame),
        standing=standing,
        probed=None if left.probe is None else probed(left.probe, info, now),
        inputs=inputs,
    )


def require_asked(store: Store, info: RunInfo, asked: Asked) -> None:
    """Raises ``InputError`` where something was named that is about another run, rubric or judge; writes nothing."""
    require_named(store, info, checks=asked.checks, hacks=asked.hacks)
    if asked.calibration is not None:
        asked.calibration.require(rubric=_rubric(info), judge=_judge_name(info))


def _rubric(info: RunInfo) -> str:
    from rubrics.words import pinned

    head = info.header
    return pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))


def _judge_name(info: RunInfo) -> str:
    from .types import JudgeId

    return str(JudgeId(**info.header["judge"]))


def _canaries(store: Store, info: RunInfo, frame: polars.DataFrame) -> Canaries | Missing:
    """What the canary pairs of the run say; a slip that voids nothing is no failure here either."""
    said = canary_verdict(info.header, store.canaries(info.run_id), frame)
    if said.state == "none":
        return Missing("the run holds no canary pairs", "judge it anew with canaries (judge run --canaries 5)")
    if said.state == "unknown":
        return Canaries(len(said.findings), silent=said.text)
    failed = tuple(finding.pair_id for finding in said.findings if finding.passed is False)
    return Canaries(len(said.findings), failed if said.void else ())


def _facts(store: Store, info: RunInfo, frame: polars.DataFrame, now: datetime) -> RunFacts:
    head = info.header
    candidate, baseline = compared(store, info)
    return RunFacts(
        run_id=info.run_id,
        sealed=info.sealed,
        pairs=int(head["evalset"]["rows"]) * int(head["repeats"]),
        judged=frame.height,
        invalid=0 if frame.is_empty() else int(frame["invalid"].is_not_null().sum()),
        candidate=candidate,
        baseline=baseline,
        rubric=_rubric(info),
        judge=_judge_name(info),
        days=days_since(store.replies_since(info), now),
        again=run_command(info),
        left_out=sum(head["evalset"].get("left_out", {}).values()) * int(head["repeats"]),
    )


# --- what the judge and people say -----------------------------------------------------------------------------------


def _judged(
    store: Store, info: RunInfo, frame: polars.DataFrame, policy: Policy, asked: Asked, now: datetime
) -> tuple[Preference, Standing, dict[str, str]]:
    gold = asked.gold if asked.gold is not None else labels_of(store, info)
    evidence = run_evidence(store, info, read_texts_of=[item.pair_id for item in gold.items])
    traits = store.traits(info.run_id)
    if not len(gold):
        return _unlabelled(evidence, frame, policy), _no_labels(store, info, evidence, asked, now), {}
    earlier = None
    if asked.since is not None:
        earlier = Earlier(asked.since.run_id, run_evidence(store, asked.since))
    report = calibration_report(evidence, gold, earlier=earlier, rounds=_ROUNDS, seed=asked.seed)
    width = (
        policy.win.detect * normal_quantile(0.95) / (normal_quantile(0.95) + normal_quantile(2 * policy.win.power - 1))
    )
    rate = report.win_rate
    wanted = None
    if isinstance(rate.corrected, Estimate):
        wanted = win_rate(evidence.run, gold, widths=(width,), seed=asked.seed).labels_for[0][1]
    tie = rate.tie.value if isinstance(rate.tie, Estimate) else 0.0
    controlled = report.length.human
    preference = Preference(
        judge=rate.judge,
        corrected=rate.corrected,
        controlled=controlled if isinstance(controlled, Refused) or controlled is None else controlled.controlled,
        segments=_sliced(evidence, gold, frame, traits, policy, asked.seed),
        labels=rate.labels,
        judged=rate.judged,
        human=rate.human,
        rho=rate.rho,
        log_length=_log_length(frame),
        labels_wanted=wanted,
        pairs_wanted=sample_size(policy.win.detect, ties=min(tie, 0.95), power=policy.win.power),
        losing=_lost(frame),
    )
    fix = more_labels(report) if report.belief.word == "UNKNOWN" else ""
    standing = Standing(
        word=report.belief.word,
        why=report.belief.sentences,
        fix=fix,
        accuracy=report.agreement.decisive,
        calibration=_calibration(store, info, evidence, asked, report.confidence.fitted, now, fix=fix),
        moved=_moved(report, evidence, asked, reused=bool(frame["cached"].sum())),
    )
    return preference, standing, {"gold": gold.digest}


def _unlabelled(evidence: JudgeEvidence, frame: polars.DataFrame, policy: Policy) -> Preference:
    """What is known where nobody labelled a pair: the judge's word, and nothing on the human scale."""
    run = evidence.identity["run"]
    fix = f"judge label {run} --to labels.jsonl --as YOU, then judge gate {run} --gold labels.jsonl"
    none = Refused("no_labels", "no pair of this run carries a human label", fix)
    return Preference(
        judge=_judge_mean(evidence),
        corrected=none,
        controlled=none,
        segments=none,
        labels=0,
        judged=len(evidence.run.rows),
        pairs_wanted=sample_size(policy.win.detect, power=policy.win.power),
        log_length=_log_length(frame),
        losing=_lost(frame),
    )


def _no_labels(store: Store, info: RunInfo, evidence: JudgeEvidence, asked: Asked, now: datetime) -> Standing:
    fix = f"judge label {evidence.identity['run']} --to labels.jsonl --as YOU"
    return Standing(
        word="UNKNOWN",
        why=("nobody labelled a pair, so nothing is known about this judge on this run",),
        fix=fix,
        accuracy=None,
        calibration=_calibration(store, info, evidence, asked, None, now),
    )


def _judge_mean(evidence: JudgeEvidence) -> Estimate | None:
    kept = evidence.run.valid
    prompts = [name for name, valid in zip(evidence.run.prompts, kept, strict=True) if valid]
    return mean(evidence.preferences[kept], clusters=prompts, bounds=(0.0, 1.0))


def _sliced(
    evidence: JudgeEvidence,
    gold: GoldSet,
    frame: polars.DataFrame,
    traits: polars.DataFrame,
    policy: Policy,
    seed: int,
) -> tuple[Segment, ...] | Refused:
    """The segments by the columns of the policy; refused where the run has no such column."""
    try:
        columns = slices_of(frame, traits, policy.segments.by)
    except InputError as error:
        fix = "give the items that field, or slice by another one in the policy"
        return Refused("part", str(error).removeprefix("--by "), fix)
    return _segments(evidence, gold, columns, policy, seed)


def _segments(
    evidence: JudgeEvidence,
    gold: GoldSet,
    columns: Mapping[str, Mapping[str, tuple[str, ...]]],
    policy: Policy,
    seed: int,
) -> tuple[Segment, ...] | Refused:
    """Every slice of every column on the human scale, with one Benjamini-Hochberg over all that have labels enough."""
    found: list[tuple[str, SegmentRate, tuple[str, ...]]] = []
    for column, values in columns.items():
        names = sorted({value for own in values.values() for value in own})
        several = any(len(own) > 1 for own in values.values())
        # A pair with several tags is in several slices, so each of them is held against the rest in turn.
        for asked in [(name,) for name in names] if several else [tuple(names)]:
            rates = segment_win_rates(evidence.run, gold, by=_slicer(values, asked), seed=seed)
            if isinstance(rates, Refused):
                return rates
            for rate in rates:
                if rate.name in asked:
                    inside = [row.pair_id for row in evidence.run.rows if rate.name in values[row.pair_id]]
                    found.append((f"{column}={rate.name}", rate, tuple(_worst(evidence, inside))))
    tested = [
        k for k, (_, rate, _) in enumerate(found) if rate.p is not None and rate.labels >= policy.segments.minimum
    ]
    q = (
        dict(zip(tested, benjamini_hochberg([found[k][1].p or 0.0 for k in tested]).tolist(), strict=True))
        if tested
        else {}
    )
    return tuple(
        Segment(
            name=name,
            judged=rate.judged,
            labels=rate.labels,
            rate=rate.corrected if k in q else None,
            shrunk=rate.shrunk,
            q=q.get(k),
            losing=losing,
        )
        for k, (name, rate, losing) in enumerate(found)
    )


def _slicer(values: Mapping[str, tuple[str, ...]], asked: tuple[str, ...]) -> Callable[[Judged], str]:
    def name(row: Judged) -> str:
        return next((value for value in values[row.pair_id] if value in asked), _REST)

    return name


def _worst(evidence: JudgeEvidence, pairs: Sequence[str]) -> list[str]:
    """The pairs that the judge thinks worst of, from the candidate's side, worst first."""
    known = [(float(evidence.preferences[evidence.place[pair]]), pair) for pair in pairs]
    return [pair for value, pair in sorted(known) if value < 0.5][:_SHOWN]


def _moved(
    report: CalibrationReport, evidence: JudgeEvidence, asked: Asked, *, reused: bool
) -> tuple[str, ...] | Missing:
    drift = report.drift
    if drift is None or asked.since is None:
        return Missing("no earlier run was named", f"judge gate {evidence.identity['run']} --since RUN")
    if drift.judge_changed:
        fix = "name an earlier run of the same judge and rubric"
        return Missing(f"run {drift.previous} was judged by another judge or rubric", fix)
    if drift.anchors is None:
        return Missing(f"run {drift.previous} shares no pair with this one", "name an earlier run of the same pairs")
    if drift.anchors.identical and reused:
        why = f"the verdicts of run {drift.previous} were taken over, so nothing was asked anew"
        return Missing(why, "judge the anchors anew (judge run --no-cache)")
    return tuple(moves(drift.anchors, drift.cusum))


def _calibration(
    store: Store,
    info: RunInfo,
    evidence: JudgeEvidence,
    asked: Asked,
    fitted: Calibration | Refused | None,
    now: datetime,
    *,
    fix: str = "",
) -> Calibrated | Missing:
    """The calibration for exactly this rubric and judge: the one named, the one these labels give, or the stored one
    (``stored_calibration``). ``fix`` is what has to be done before one can be fitted.
    """
    again = f"judge calibrate {evidence.identity['run']} --gold labels.jsonl"

    def aged(used: Calibration, name: str = "") -> Calibrated:
        name = name or hashlib.sha256((used.to_json() + chr(10)).encode()).hexdigest()[:12]
        about = _origin(used, str(info.header["evalset"]["digest"]))
        newer = evidence.identity["replies since"] > used.dated  # stamps sort as text; one not known is never newer
        anew = again if newer else f"{run_command(info)}, then judge calibrate latest --gold labels.jsonl"
        return Calibrated(f"calibration {name}", days_since(used.dated, now), anew, about)

    if asked.calibration is not None:
        return aged(asked.calibration)
    if isinstance(fitted, Calibration):
        return aged(fitted)
    stored = stored_calibration(store.home, evidence.rubric, evidence.judge)
    if stored is not None:
        # By its file, which an older version may have written with fewer fields.
        return aged(stored[1], stored[0].stem.rsplit("-", 1)[-1])
    why = fitted.reason if isinstance(fitted, Refused) else "no labels to fit one"
    return Missing(f"no calibration exists for {evidence.rubric} and {evidence.judge} ({why})", fix or again)


def _origin(used: Calibration, evalset: str) -> str:
    """On whose labels a calibration was fitted, and whether these are of pairs of this eval set."""
    named = f" of {', '.join(used.sources)}" if used.sources else ""
    labels = f"{used.n} {'label' if used.n == 1 else 'labels'}{named} (gold {used.gold[:12]})"
    if not used.evalset:
        return f"{labels}; whether they are of this run's eval set was not recorded"
    if used.evalset == evalset:
        return f"{labels}, pairs of this run's eval set"
    return f"{labels}, pairs of ANOTHER eval set, or of another version of this run's ({used.evalset[:12]})"


def _log_length(frame: polars.DataFrame) -> Estimate | None:
    return log_length(
        frame["baseline_chars"].to_numpy(),
        frame["candidate_chars"].to_numpy(),
        clusters=frame["prompt_digest"].to_list(),
    )


def _lost(frame: polars.DataFrame) -> tuple[str, ...]:
    lost = frame.filter(frame["preference"].is_not_null() & (frame["preference"] < 0.5)).sort("preference", "pair_id")
    return tuple(dict.fromkeys(lost["pair_id"].to_list()))[:_SHOWN]


def _most(frame: polars.DataFrame) -> tuple[str, ...]:
    """The pairs whose candidate grew most."""
    grown = frame.with_columns(((frame["candidate_chars"] + 1) / (frame["baseline_chars"] + 1)).alias("grown")).sort(
        "grown", "pair_id", descending=[True, False]
    )
    return tuple(dict.fromkeys(grown["pair_id"].to_list()))[:5]
