"""The gate: a policy held against everything that is known about a run. Pure: values in, one ``Decision`` out.

SHIP needs all rules at once, so no correction for their number is due (an intersection-union test, Berger 1982): the
chance to ship a candidate that violates a limit is at most that of the violated rule alone.

    decision = decide(load_policy("default"), evidence)
    decision.word, decision.exit_code, [ruling.says for ruling in decision.standing_in_the_way]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calibration.estimates import Estimate

from . import rulings, win_rulings
from .decision import Decision, Evidence, Missing, Preference, Result, Ruling, Word
from .lengths import longer
from .limits import percentage
from .types import Severity

if TYPE_CHECKING:
    from .policy import Policy

__all__ = ["decide"]


def decide(policy: Policy, evidence: Evidence) -> Decision:
    """Hold a policy against the evidence, rule by rule in a fixed order: hard suites, guards, human win rate, win rate
    at equal length, segments, probes and canaries, the judge, the run itself.

    Deterministic; equal arguments give equal decisions.
    """
    void = rulings.void(policy, evidence)
    made = rulings.all_rulings(policy, evidence)
    word = Word.SHIP
    for effect in (Word.BLOCK, Word.HOLD):
        if any(ruling.effect is effect for ruling in made):
            word = effect
            break
    if word is Word.SHIP and void:
        word = Word.HOLD
    more = _more_labels(policy, evidence)
    return Decision(
        word=word,
        run_id=evidence.run.run_id,
        candidate=evidence.run.candidate,
        baseline=evidence.run.baseline,
        policy=policy.ref,
        policy_digest=policy.digest,
        headline=_headline(policy, evidence, word, void),
        rulings=made,
        needs=_needs(made, void),
        void=void,
        inputs=dict(evidence.inputs),
        plan=_plan(policy),
        more_labels=more,
    )


def _needs(made: Sequence[Ruling], nothing: Sequence[str]) -> tuple[str, ...]:
    """What would settle what stands in the way: each act once, in the order of the rulings."""
    acts = dict.fromkeys(ruling.change for ruling in made if ruling.effect is not Word.SHIP and ruling.change)
    if nothing and not acts:
        return (f"judge anew: {nothing[0]}",)
    return tuple(acts)


def _plan(policy: Policy) -> tuple[str, ...]:
    """How a SHIP would meet traffic, in sentences."""
    rollout = policy.rollout
    stages = " -> ".join(
        stage.name + (f" (risk {', '.join(stage.only)} only)" if stage.only else "") for stage in rollout.stages
    )
    guards = ", ".join(
        f"{guard.metric} at most {100 * guard.margin:+.1f} pp" + ("" if guard.required else " (where it is logged)")
        for guard in rollout.guards
    )
    share = rollout.alpha / (len(rollout.guards) * (len(rollout.stages) - 1))
    return (
        stages,
        f"watched against the baseline: {guards}",
        f"one alpha of {rollout.alpha:g} over the whole rollout: {share:.5f} a guard and stage, valid at every look",
        "rolled back as soon as a guard's lower bound passes its margin: judge rollout rollback",
    )


def _more_labels(policy: Policy, evidence: Evidence) -> int | None:
    """Labels still needed for the policy's gain and power; ``None`` where the win rate passed or labels cannot help."""
    known = evidence.preference
    if isinstance(known, Missing) or rulings.void(policy, evidence):
        return None
    if (
        win_rulings.win(policy, known).result is Result.PASSED
        and win_rulings.length(policy, known).result is Result.PASSED
    ):
        return None
    if win_rulings.win(policy, known).result is Result.FAILED:
        return None
    wanted = known.labels_wanted if known.labels_wanted is not None else known.pairs_wanted
    return max(wanted - known.labels, 0) or None


def _headline(policy: Policy, evidence: Evidence, word: Word, nothing: Sequence[str]) -> str:
    """The finding in a few sentences, numbers first."""
    parts = [f"{word}."]
    parts += [f"{reason[:1].upper()}{reason[1:]}: no verdict." for reason in nothing]
    known = evidence.preference
    if not isinstance(known, Missing):
        parts += _preference_words(known)
        parts += [
            f"Segment '{part.name}' {part.rate.value:.0%} (q = {part.q:.3f}, its p value adjusted for all segments)."
            for part in win_rulings.losing(policy, known)
            if part.rate is not None and part.q is not None
        ]
    if not isinstance(evidence.suites, Missing):
        broken = [hard for hard in evidence.suites if hard.failed and hard.severity is Severity.BLOCK]
        parts += [f"{hard.check} fails on {hard.failed} of {hard.judged}." for hard in broken[:3]]
    more = _more_labels(policy, evidence)
    if word is not Word.SHIP and more and not isinstance(known, Missing):
        goal = f"{policy.win.power:.0%} power for {100 * policy.win.detect:+.0f} pp"
        if known.labels + more > known.judged:
            pairs = "1 pair" if known.judged == 1 else f"{known.judged} pairs"
            parts.append(f"{goal} takes {known.labels + more} labels, and this run has {pairs}: judge more prompts.")
        else:
            parts.append(f"{more} more labels give {goal}.")
    return " ".join(parts)


def _preference_words(known: Preference) -> Iterator[str]:
    rho = "" if known.rho is None else f"; the judge's correlation with them is rho {known.rho.value:.2f}"
    if isinstance(known.corrected, Estimate):
        yield f"Human win {percentage(known.corrected)} (n = {known.labels} labels of N = {known.judged} pairs{rho})."
        if known.judge is not None:
            bias = known.judge.value - known.corrected.value
            side = "below" if bias < 0 else "above"
            yield f"The judge's mean preference is {known.judge.value:.1%}, {100 * abs(bias):.1f} pp {side} it."
    elif known.judge is not None:
        yield f"The judge's mean preference is {percentage(known.judge)}; what people would say is not known."
    length = known.log_length
    grew = "" if length is None else f"; answers {_percent_longer(length)} longer in characters"
    if isinstance(known.controlled, Estimate):
        yield f"At equal length {percentage(known.controlled)}{grew}{_longer_not_better(known)}."
    elif length is not None:
        yield f"Answers are {_percent_longer(length)} longer in characters."


def _longer_not_better(known: Preference) -> str:
    if not isinstance(known.controlled, Estimate) or not isinstance(known.corrected, Estimate):
        return ""
    grew = known.log_length is not None and known.log_length.low > math.log(1.1)
    return ": longer, not shown better" if grew and known.controlled.low <= 0.5 else ""


def _percent_longer(log_length: Estimate) -> str:
    value, low, high = (longer(end, digits=0) for end in (log_length.value, log_length.low, log_length.high))
    return f"{value} [{low.removesuffix('%')}, {high.removesuffix('%')}]"
