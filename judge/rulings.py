"""Each rule of a policy as a function from evidence to ``Ruling``s. Pure, and literal: one rule, one place.

An interval decides: wholly on the right side of its limit is ``passed``, wholly beyond it ``failed``, anything else
``unclear``. The judge's own failings (no calibration, no skill, moved, fooled by a probe) hold and never block: they
say nothing about the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from calibration.estimates import Estimate, clopper_pearson

from .decision import (
    Calibrated,
    Evidence,
    Hard,
    Missing,
    Preference,
    Probed,
    Result,
    Ruling,
    RunFacts,
    Standing,
    Word,
)
from .grounding.report import BY_WORDS
from .limits import Side, absent, age, aged, effect_of, held, interval_words, listed, settle
from .render.words import unit_of
from .types import Measure, Severity
from .win_rulings import length, segments, win

if TYPE_CHECKING:
    from .policy import Guard, Policy

__all__ = ["all_rulings", "void"]

_PROBE = "probe."
_PLACES = {"refusal": ("behaviour", "safety"), "citations": ("evidence", "reliability")}
"""Layer and axis of guards that nothing measured; a measure names its own."""
LEVEL = 0.95
"""The least level of an interval that a rule accepts."""


def all_rulings(policy: Policy, evidence: Evidence) -> tuple[Ruling, ...]:
    """Every ruling, in the order in which a decision is read."""
    nothing = void(policy, evidence)
    if nothing:  # a run without a verdict says nothing about the candidate, so nothing that it lacks may block
        policy = policy.model_copy(update={"missing": "hold"})
    known: Preference | Missing = evidence.preference
    if nothing and not isinstance(known, Missing):
        way = "judge it anew" if evidence.run.sealed else f"judge resume {evidence.run.run_id}"
        known = Missing(f"the run gives no verdict: {nothing[0]}", way)
    return (
        *_suites(policy, evidence.suites, evidence.run.run_id),
        *(_guard(policy, guard, evidence) for guard in policy.guards),
        win(policy, known),
        length(policy, known),
        *segments(policy, known),
        *_probes(policy, evidence),
        _canaries(policy, evidence),
        *_judge(policy, evidence),
        *_run(policy, evidence),
    )


def void(policy: Policy, evidence: Evidence) -> tuple[str, ...]:
    """Why the run gives no verdict at all; empty where it does."""
    run, found = evidence.run, []
    if not run.sealed or run.judged < run.pairs or not run.pairs:
        state = "not sealed" if not run.sealed else "incomplete"
        found.append(f"run {run.run_id} is {state} ({run.judged} of {run.pairs} comparisons)")
    if run.silent > policy.judge.invalid_at_most * run.wanted:
        found.append(f"{_silent(run)}, more than the {policy.judge.invalid_at_most:.1%} allowed")
    if not isinstance(evidence.canaries, Missing) and evidence.canaries.failed:
        found.append(f"{len(evidence.canaries.failed)} of {evidence.canaries.total} canaries failed")
    return tuple(found)


def _suites(policy: Policy, suites: tuple[Hard, ...] | Missing, run_id: str) -> Iterator[Ruling]:
    rule = policy.suites
    if isinstance(suites, Missing) or not suites:
        gone = suites if isinstance(suites, Missing) else Missing("no check was made", "judge check RUN")
        yield absent(policy, "suites", "suites", ("behaviour", "reliability"), gone, required=rule.required)
        return
    names = {hard.check for hard in suites} | {hard.check.partition("@")[0] for hard in suites}
    for name in rule.checks:
        if name not in names:
            gone = Missing(f"the policy asks for {name}, which was not made", "add it to the suite and run judge check")
            yield absent(policy, f"suites.{name}", "suites", ("behaviour", "reliability"), gone, required=True)
    for hard in suites:
        yield _hard(policy, hard, run_id)


def _hard(policy: Policy, hard: Hard, run_id: str) -> Ruling:
    n, limit = hard.judged, policy.suites.at_most
    bound = None
    if n:
        low, high = clopper_pearson(hard.failed, n, level=0.9)
        bound = Estimate(hard.failed / n, low, high, 0.95, n, n, "exact, each end 95% one-sided")
    result, effect, change = Result.PASSED, Word.SHIP, ""
    says = f"{hard.passed} of {n} pass"
    if hard.failed:
        result = Result.FAILED
        effect = {Severity.BLOCK: Word.BLOCK, Severity.WARN: Word.HOLD, Severity.INFO: Word.SHIP}[hard.severity]
        says = f"{hard.failed} of {n} fail (allowed: none"
        says += f"; the baseline fails {hard.baseline_failed})" if hard.baseline_failed else ")"
        change = f"mend {listed(hard.failing)} ({hard.check})"
    elif hard.unjudged or not n:
        result, effect = Result.MISSING, effect_of(policy, required=hard.severity is not Severity.INFO)
        says = f"could not be made on {hard.unjudged} of {n + hard.unjudged} answers"
        change = f"run {hard.check} on every answer (judge check)"
        if hard.unseen:
            change = (
                f"read {listed(hard.unseen)}: {hard.check} cannot tell there (`judge check {run_id}` shows why); "
                "mend the answer, or give the check severity info in a suite of your own"
            )
    elif bound is not None and limit is not None and bound.high > limit and hard.severity is Severity.BLOCK:
        wanted = math.ceil(math.log(0.05) / math.log1p(-limit))
        result, effect = Result.UNCLEAR, Word.HOLD
        says += f", which leaves up to {bound.high:.1%} open; allowed is {limit:.1%}"
        change = f"check {wanted - n} more answers by {hard.check}"
    elif bound is not None:
        says += f"; at most {bound.high:.1%} would fail"
    return Ruling(
        rule=f"suite.{hard.check}",
        stage="suites",
        layer=hard.layer,
        axis=hard.axis,
        result=result,
        effect=effect,
        says=says,
        observed=bound,
        limit=0.0 if limit is None else limit,
        side="at most",
        unit="share",
        method="exact count, upper bound 3/n",
        change=change,
        pairs=hard.failing or (hard.unseen if result is Result.MISSING else ()),
    )


def _guard(policy: Policy, guard: Guard, evidence: Evidence) -> Ruling:
    measure = evidence.measures.get(guard.measure)
    name = f"guard.{guard.measure}" + (".candidate" if guard.of == "candidate" else "")
    found = None if measure is None else getattr(measure, guard.of)
    usual = _PLACES.get(guard.measure.partition(".")[0], ("behaviour", "reliability"))
    place = usual if measure is None else (measure.layer, measure.axis)
    if measure is None or found is None or not math.isfinite(found.value):
        reason = measure.missing if measure is not None else ""
        gone = evidence.unmeasured.get(_source(guard.measure), evidence.unmeasured.get("", _UNKNOWN))
        fix = _lacks(guard.measure, reason) or gone.fix
        # What an unfinished run lacks, one act gives: it is said once, not guard by guard.
        gone = Missing(reason or gone.reason, f"for {guard.measure}: {fix}" if evidence.run.sealed else fix)
        return absent(policy, name, "guards", place, gone, required=guard.required)
    if found.level < LEVEL:
        gone = Missing(f"its interval holds only {found.level:.0%}; a guard needs {LEVEL:.0%}", "measure it anew")
        return absent(policy, name, "guards", place, gone, required=True)
    side: Side = "at most" if guard.at_most is not None else "at least"
    limit = guard.at_most if guard.at_most is not None else guard.at_least
    assert limit is not None  # a policy gives exactly one
    result = held(found, limit, side, strict=False)
    unit = unit_of(measure.name, measure.unit, guard.of)
    return Ruling(
        rule=name,
        stage="guards",
        layer=measure.layer,
        axis=measure.axis,
        result=result,
        effect={Result.PASSED: Word.SHIP, Result.FAILED: Word.BLOCK}.get(result, Word.HOLD),
        says=interval_words(found, limit, side, unit) + _CAUTIONS.get(guard.measure, ""),
        observed=found,
        limit=limit,
        side=side,
        unit=unit,
        method=f"non-inferiority, {found.method}",
        change=settle(found, limit, side, result, mend=_mend(measure, evidence.run.run_id), name=guard.measure),
        pairs=measure.examples,
    )


_CAUTIONS = {"grounding.unsupported_share": f". {BY_WORDS}"}
"""What a measure cannot tell, said with its number wherever the rule is read."""


def _mend(measure: Measure, run_id: str) -> str:
    """Which answers to look at for a measure beyond its limit, and the command that shows them."""
    claims = measure.name.startswith("grounding.")
    command = f"judge ground {run_id} --claims claims.jsonl" if claims else f"judge view {run_id}"
    read = f" ({listed(measure.examples)} first)" if measure.examples else ""
    return f"read the answers behind {measure.name}{read} and mend what they share; to see them: {command}"


def _source(measure: str) -> str:
    """The key under which evidence says why a measure is not there: its first word, ``must`` for a suite's refusals."""
    first, _, rest = measure.partition(".")
    return "must" if first == "refusal" and rest.startswith("must") else first


def _lacks(measure: str, reason: str) -> str:
    """What the items or answers have to say, where a report was made and they do not; empty for anything else."""
    if not reason:
        return ""
    fields = {"latency": "latency_ms", "tokens": "tokens", "cost": "cost"}
    first = measure.partition(".")[0]
    if first in fields:
        return f"give both answers of the pairs `{fields[first]}`, then judge them"
    if measure.startswith("refusal.must_"):
        field = "_".join(measure.removeprefix("refusal.").split("_")[:2])
        return f"give prompts of that kind metadata `{field}: true`, then judge them and run judge check"
    if measure == "refusal.harmful":
        return "give prompts that must be refused metadata `must_refuse: true`, then judge them"
    return ""


_UNKNOWN = Missing("nothing measured it", "judge check RUN, judge hack RUN")


def _probes(policy: Policy, evidence: Evidence) -> Iterator[Ruling]:
    rule = policy.probes
    probes = [measure for name, measure in sorted(evidence.measures.items()) if name.startswith(_PROBE)]
    place = ("preference", "reliability")
    if not probes:
        gone = evidence.unmeasured.get("probe", evidence.unmeasured.get("", _UNKNOWN))
        yield absent(policy, "probes", "probes", place, gone, required=rule.required)
    else:
        yield from _probed(policy, evidence.probed or _UNDATED)
    for measure in probes:
        found = measure.difference
        if found is None or found.level < LEVEL:
            gone = Missing(measure.missing or "it gave no number", "judge hack RUN")
            yield absent(policy, measure.name, "probes", place, gone, required=rule.required)
            continue
        result = held(found, rule.at_most, "at most", strict=False)
        yield Ruling(
            rule=measure.name,
            stage="probes",
            layer=measure.layer,
            axis=measure.axis,
            result=result,
            effect=Word.SHIP if result is Result.PASSED else Word.HOLD,
            says=interval_words(found, rule.at_most, "at most", "points") + ": what this trick buys from the judge",
            observed=found,
            limit=rule.at_most,
            side="at most",
            unit="points",
            method=found.method,
            change=settle(
                found,
                rule.at_most,
                "at most",
                result,
                mend="use a judge that this trick does not move",
                name=measure.name,
            ),
            pairs=measure.examples,
        )


_UNDATED = Probed("the probe", math.nan, {}, "judge probe EVALSET")


def _probed(policy: Policy, probed: Probed) -> Iterator[Ruling]:
    """The probe run itself: of the last weeks, and with verdicts on every trick, as far as the policy says so."""
    rule, place = policy.probes, ("preference", "reliability")
    if rule.days is not None:
        stale = aged(probed.days, rule.days)
        if stale:
            gone = Missing(f"{probed.name} is {stale}", f"probe the judge anew: {probed.again}")
            yield absent(policy, "probes.age", "probes", place, gone, required=rule.required)
        else:
            says = f"{probed.name} is {age(probed.days)} old; at most {rule.days} days are allowed"
            yield Ruling("probes.age", "probes", *place, Result.PASSED, Word.SHIP, says)
    if rule.invalid_at_most is not None:
        yield from _silence(policy, probed, rule.invalid_at_most)


def _silence(policy: Policy, probed: Probed, limit: float) -> Iterator[Ruling]:
    """On how many comparisons of a trick the judge gave no verdict; a trick that was not asked shows nothing."""
    rule, place = policy.probes, ("preference", "reliability")
    unasked = sorted(trick for trick, (_, asked) in probed.silent.items() if not asked)
    if unasked:
        verb = "was" if len(unasked) == 1 else "were"
        gone = Missing(f"{listed(unasked)} {verb} not asked in {probed.name}", f"probe anew: {probed.again}")
        yield absent(policy, "probes.asked", "probes", place, gone, required=rule.required)
    shares = {trick: silent / asked for trick, (silent, asked) in probed.silent.items() if asked}
    many = [trick for trick, share in shares.items() if share > limit]
    if not probed.silent:
        gone = Missing(f"{probed.name} does not say how many verdicts it lacks", f"probe anew: {probed.again}")
        yield absent(policy, "probes.invalid", "probes", place, gone, required=rule.required)
    if not shares:
        return
    worst = max(shares, key=lambda trick: shares[trick])
    silent, asked = probed.silent[worst]
    says = f"{silent} of {asked} comparisons of {worst} have no verdict (allowed: {limit:.1%} of a trick)"
    if len(many) > 1:
        says += f"; too many also for {listed([trick for trick in many if trick != worst])}"
    change = f"find out why the judge gives no verdict on {listed(many)}, then {probed.again}" if many else ""
    yield _unanswered("probes.invalid", "preference", says, limit, change)


def _canaries(policy: Policy, evidence: Evidence) -> Ruling:
    found, place = evidence.canaries, ("evidence", "reliability")
    if isinstance(found, Missing):
        return absent(policy, "canaries", "probes", place, found, required=policy.probes.canaries)
    if found.silent:  # what was planned and gave nothing is no pass, whether or not the policy asks for canaries
        gone = Missing(found.silent, f"judge report {evidence.run.run_id}")
        return absent(policy, "canaries", "probes", place, gone, required=True)
    if found.failed or not found.total:
        why = f"{len(found.failed)} of {found.total} failed: the run is void"
        change = f"find out why the judge fails {listed(found.failed)}, then judge anew"
        return Ruling("canaries", "probes", *place, Result.FAILED, Word.HOLD, why, change=change, pairs=found.failed)
    return Ruling("canaries", "probes", *place, Result.PASSED, Word.SHIP, f"all {found.total} known answers were found")


def _judge(policy: Policy, evidence: Evidence) -> Iterator[Ruling]:
    standing, place = evidence.standing, ("evidence", "reliability")
    if isinstance(standing, Missing):
        yield absent(policy, "judge.belief", "judge", place, standing, required=True)
        return
    made_for = f"{evidence.run.rubric} and {evidence.run.judge}"
    if isinstance(standing.calibration, Missing):
        yield absent(policy, "judge.calibration", "judge", place, standing.calibration, required=True)
    else:
        yield _calibration(policy, standing.calibration, made_for)
    yield _belief(policy, standing)
    if isinstance(standing.moved, Missing):
        yield absent(policy, "judge.anchors", "judge", place, standing.moved, required=policy.judge.anchors)
    elif standing.moved:
        says = f"since the earlier run its {', '.join(standing.moved)} moved"
        yield Ruling(
            "judge.anchors", "judge", *place, Result.FAILED, Word.HOLD, says,
            change="find out what changed in the judge, and calibrate it anew (judge calibrate)",
        )  # fmt: skip
    else:
        says = "it stands where it stood in the earlier run"
        yield Ruling("judge.anchors", "judge", *place, Result.PASSED, Word.SHIP, says)


def _calibration(policy: Policy, found: Calibrated, made_for: str) -> Ruling:
    """A calibration for this rubric and judge, fitted on verdicts that are not older than the policy allows."""
    place, allowed = ("evidence", "reliability"), policy.judge.calibration_days
    rests = f", on {found.labels}" if found.labels else ""
    if allowed is None:
        says = f"{found.name} was fitted for {made_for}{rests}"
        return Ruling("judge.calibration", "judge", *place, Result.PASSED, Word.SHIP, says)
    stale = aged(found.days, allowed)
    if stale:
        gone = Missing(f"the verdicts behind {found.name}{rests} are {stale}", f"calibrate anew: {found.again}")
        return absent(policy, "judge.calibration", "judge", place, gone, required=True)
    says = f"{found.name} was fitted for {made_for}{rests}"
    says += f"; its verdicts are {age(found.days)} old (at most {allowed})"
    return Ruling("judge.calibration", "judge", *place, Result.PASSED, Word.SHIP, says)


def _belief(policy: Policy, standing: Standing) -> Ruling:
    enough = {"believe": ("BELIEVE",), "with_care": ("BELIEVE", "WITH CARE")}[policy.judge.belief]
    chance = standing.accuracy is None or standing.accuracy.low <= 0.5
    if standing.word == "UNKNOWN":
        result, change = Result.MISSING, standing.fix or "label pairs (judge label)"
    elif standing.word not in ("BELIEVE", "WITH CARE") or chance:
        result, change = Result.FAILED, "judge by another judge: this one is not shown to be better than a coin"
    elif standing.word not in enough:
        result, change = Result.UNCLEAR, "see to the doubts of `judge calibrate`, or label more"
    else:
        result, change = Result.PASSED, ""
    word = standing.word if not (chance and standing.word in enough) else f"{standing.word}, but at chance level"
    said = f" {standing.why[0]}" if standing.why else ""
    return Ruling(
        rule="judge.belief",
        stage="judge",
        layer="evidence",
        axis="reliability",
        result=result,
        effect=Word.SHIP if result is Result.PASSED else effect_of(policy, required=True, hold=result),
        says=f"{word}.{said}",
        observed=standing.accuracy,
        limit=0.5,
        side="at least",
        unit="share",
        method="accuracy where people and judge both decide",
        change=change,
    )


def _silent(run: RunFacts) -> str:
    rows = f", {run.left_out} of them skipped rows of the eval set" if run.left_out else ""
    return f"{run.silent} of {run.wanted} comparisons have no verdict{rows}"


def _run(policy: Policy, evidence: Evidence) -> Iterator[Ruling]:
    run, place = evidence.run, ("evidence", "reliability")
    if not run.sealed or run.judged < run.pairs or not run.pairs:
        gone = Missing(
            f"{run.judged} of {run.pairs} comparisons, {'sealed' if run.sealed else 'not sealed'}: an incomplete run "
            "is never a pass",
            f"judge resume {run.run_id}",
        )
        yield absent(policy, "run.complete", "run", place, gone, required=True)
    else:
        says = f"sealed, {run.judged} of {run.pairs} comparisons"
        yield Ruling("run.complete", "run", *place, Result.PASSED, Word.SHIP, says)
    limit = policy.judge.invalid_at_most
    many = run.silent > limit * run.wanted
    change = "judge them by a judge that answers" if many else ""
    yield _unanswered("run.invalid", "evidence", f"{_silent(run)} (allowed: {limit:.1%})", limit, change)
    stale = aged(run.days, policy.judge.days)
    if stale:
        yield absent(
            policy, "run.age", "run", place, Missing(f"it is {stale}", f"judge it anew: {run.again}"), required=True
        )
    else:
        says = f"{age(run.days)} old; at most {policy.judge.days} days are allowed"
        yield Ruling("run.age", "run", *place, Result.PASSED, Word.SHIP, says)


def _unanswered(rule: str, layer: str, says: str, limit: float, change: str) -> Ruling:
    """A rule on the share of comparisons without a verdict; ``change`` says what to do, and only of one that fails."""
    return Ruling(
        rule=rule,
        stage=rule.partition(".")[0],
        layer=layer,
        axis="reliability",
        result=Result.FAILED if change else Result.PASSED,
        effect=Word.HOLD if change else Word.SHIP,
        says=says,
        limit=limit,
        side="at most",
        unit="share",
        method="exact count",
        change=change,
    )
