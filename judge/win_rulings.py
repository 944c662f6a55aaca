"""The rules about what people prefer: the win rate, the same at equal length, and segment by segment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calibration.estimates import Estimate
from calibration.provenance import Refused

from .decision import Missing, Preference, Result, Ruling, Segment, Word
from .limits import REALISTIC, absent, held, interval_words, listed, percentage, settle

if TYPE_CHECKING:
    from .policy import Policy

__all__ = ["length", "losing", "segments", "win"]


def win(policy: Policy, known: Preference | Missing) -> Ruling:
    """The corrected win rate against its limit."""
    place, limit = ("preference", "capability"), policy.win.limit
    if isinstance(known, Missing):
        return absent(policy, "win.human", "win", place, known, required=True)
    if isinstance(known.corrected, Refused):
        gone = Missing(known.corrected.reason, known.corrected.fix)
        return absent(policy, "win.human", "win", place, gone, required=True)
    result = held(known.corrected, limit, "at least", strict=True)
    change = ""
    if result is Result.FAILED:
        change = "another candidate: people prefer the baseline"
    elif result is Result.UNCLEAR:
        change = _labels_words(policy, known, limit)
    return _preferred("win.human", "win", known.corrected, limit, result, change, known.losing)


def _labels_words(policy: Policy, known: Preference, limit: float) -> str:
    """How many more labels would do: for the gain that the policy asks for, and for the one that is seen."""
    goal = f"{policy.win.power:.0%} power to see {100 * policy.win.detect:+.1f} pp"
    assert isinstance(known.corrected, Estimate)
    gap, half = known.corrected.value - limit, known.corrected.value - known.corrected.low
    seen = math.ceil(known.labels * ((half / gap) ** 2 - 1)) if gap > 0 else None
    at_this_gain = f"if the gain is {100 * gap:+.1f} pp, as it seems"
    if known.labels_wanted is None:
        more = max(known.pairs_wanted - known.judged, 0)
        likely = (
            f"; {at_this_gain}, about {seen} more labelled pairs do"
            if seen and seen <= REALISTIC * known.judged
            else ""
        )
        if more <= REALISTIC * known.judged:
            return (
                f"judge about {more} more pairs and label them: {goal} takes {known.pairs_wanted} labels in all{likely}"
            )
        far = f"no realistic number of pairs gives {goal}: {known.pairs_wanted} labels in all, over {REALISTIC} times"
        return f"{far} the {known.judged} judged{likely}"
    more = known.labels_wanted - known.labels
    if more > 0:
        return f"label {more} more pairs: {goal}"
    if seen is None:
        return f"{known.labels} labels have {goal}, and no gain is seen: another candidate"
    if seen > REALISTIC * known.judged:
        return (
            f"{known.labels} labels have {goal}, and the gain seen is {100 * gap:+.1f} pp: no realistic number of "
            "labels shows so small a gain; another candidate"
        )
    return f"label about {seen} more pairs {at_this_gain}"


def length(policy: Policy, known: Preference | Missing) -> Ruling:
    """The win rate at equal length against its limit."""
    place, rule = ("preference", "capability"), policy.length
    if isinstance(known, Missing):
        return absent(policy, "win.equal_length", "length", place, known, required=rule.required)
    found = known.corrected if known.controlled is None else known.controlled
    if isinstance(found, Refused):
        gone = Missing(found.reason, found.fix)
        return absent(policy, "win.equal_length", "length", place, gone, required=rule.required)
    limit = 0.5 - max(rule.margin, policy.win.margin)
    result = held(found, limit, "at least", strict=True)
    change = ""
    if result is not Result.PASSED:
        change = "label more pairs, or answer at the baseline's length"
    return _preferred("win.equal_length", "length", found, limit, result, change, ())


def _preferred(
    name: str, stage: str, found: Estimate, limit: float, result: Result, change: str, pairs: tuple[str, ...]
) -> Ruling:
    return Ruling(
        rule=name,
        stage=stage,
        layer="preference",
        axis="capability",
        result=result,
        effect={Result.PASSED: Word.SHIP, Result.FAILED: Word.BLOCK}.get(result, Word.HOLD),
        says=interval_words(found, limit, "at least", "share"),
        observed=found,
        limit=limit,
        side="at least",
        unit="share",
        method=found.method,
        change=change,
        pairs=pairs,
    )


def losing(policy: Policy, known: Preference) -> list[Segment]:
    """The segments that are shown to lose."""
    if isinstance(known.segments, Refused):
        return []
    return [
        part
        for part in known.segments
        if part.rate is not None and part.q is not None and part.q <= policy.segments.q and part.rate.value < 0.5
    ]


def segments(policy: Policy, known: Preference | Missing) -> Iterator[Ruling]:
    """No segment is shown to lose, and the protected ones are shown not to."""
    place, rule = ("preference", "capability"), policy.segments
    parts: tuple[Segment, ...] | Missing
    if isinstance(known, Missing):
        parts = known
    elif isinstance(known.segments, Refused):
        parts = Missing(known.segments.reason, known.segments.fix)
    else:
        parts = known.segments
    if isinstance(parts, Missing):
        yield absent(policy, "segments", "segments", place, parts, required=rule.required)
        return
    assert not isinstance(known, Missing)
    lost = losing(policy, known)
    tested = [part for part in parts if part.rate is not None and part.q is not None]
    thin = [part.name for part in parts if part not in tested]
    if not tested:
        by = ", ".join(rule.by)
        most = max(parts, key=lambda part: part.labels, default=None)
        nearest = "" if most is None else f" (most: {most.name} with {most.labels})"
        gone = Missing(
            f"no segment by {by} has {rule.minimum} labels{nearest}",
            f"label {rule.minimum} pairs of one value of {by}, or name other columns in the policy (segments.by)",
        )
        yield absent(policy, "segments", "segments", place, gone, required=rule.required)
    elif not lost:
        says = f"none of {len(tested)} tested segments is shown to lose"
        says += f"; too few labels to tell: {listed(tuple(thin))}" if thin else ""
        yield Ruling(
            "segments", "segments", *place, Result.PASSED, Word.SHIP, says, method=f"Benjamini-Hochberg, q = {rule.q:g}"
        )
    for part in lost:
        assert part.rate is not None
        assert part.q is not None
        yield Ruling(
            rule=f"segments.{part.name}",
            stage="segments",
            layer="preference",
            axis="capability",
            result=Result.FAILED,
            effect=Word.BLOCK,
            says=f"{percentage(part.rate)} is shown to lose (q = {part.q:.3f}, {part.labels} labels)",
            observed=part.rate,
            limit=0.5,
            side="at least",
            unit="share",
            method=f"Benjamini-Hochberg over {len(tested)} segments, q = {rule.q:g}",
            change=f"mend {part.name}: {listed(part.losing)}" if part.losing else f"mend {part.name}",
            pairs=part.losing,
        )
    yield from _protected(policy, parts)


def _protected(policy: Policy, parts: Sequence[Segment]) -> Iterator[Ruling]:
    for asked in policy.segments.protect:
        part = next((part for part in parts if part.name == asked.segment), None)
        name = f"protect.{asked.segment}"
        if part is None or part.rate is None:
            why = "there is no such segment" if part is None else f"it has only {part.labels} labels"
            gone = Missing(why, f"label pairs of {asked.segment}")
            yield absent(policy, name, "segments", ("preference", "safety"), gone, required=True)
            continue
        limit = 0.5 - asked.margin
        result = held(part.rate, limit, "at least", strict=True)
        change = settle(part.rate, limit, "at least", result, mend=f"mend {asked.segment}", name=asked.segment)
        yield _preferred(name, "segments", part.rate, limit, result, change, part.losing)
