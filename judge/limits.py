"""How an interval is held to a limit, and how the outcome is said: what all rulings share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from calibration.estimates import Estimate

from .decision import Missing, Result, Ruling, Word
from .render.words import Unit, number, span

if TYPE_CHECKING:
    from .policy import Policy

__all__ = [
    "REALISTIC",
    "Side",
    "absent",
    "age",
    "aged",
    "effect_of",
    "held",
    "interval_words",
    "listed",
    "percentage",
    "settle",
]

Side = Literal["at least", "at most"]
_SHOWN = 5
_FEW = 30
"""Prompts below which a number that is drawn from their spread is none either."""
REALISTIC = 10
"""How many times more than was measured is still advice; beyond it a number of prompts is none."""
_AHEAD = 1.0
"""Days that a record may be dated ahead of the clock: another machine's clock or time zone."""


def held(found: Estimate, limit: float, side: Side, *, strict: bool) -> Result:
    """An interval against a limit; with ``strict`` an end on the limit is not within it."""
    low, high = (found.low, found.high) if side == "at least" else (-found.high, -found.low)
    edge = limit if side == "at least" else -limit
    if low > edge or (low == edge and not strict):
        return Result.PASSED
    return Result.FAILED if high < edge else Result.UNCLEAR


def effect_of(policy: Policy, *, required: bool, hold: Result = Result.MISSING) -> Word:
    """What a missing rule does: nothing unless required; never a pass."""
    if not required:
        return Word.SHIP
    return Word.BLOCK if hold is Result.MISSING and policy.missing == "block" else Word.HOLD


def absent(policy: Policy, rule: str, stage: str, place: tuple[str, str], gone: Missing, *, required: bool) -> Ruling:
    """The ruling where there is no evidence: never a pass; no obstacle only where the policy does not require it."""
    says = gone.reason if required else f"{gone.reason} (not required by this policy)"
    effect = effect_of(policy, required=required)
    return Ruling(rule, stage, *place, Result.MISSING, effect, says, change=gone.fix if required else "")


def aged(days: float, allowed: int) -> str:
    """Why an age is not fresh, as what follows "it is"; empty where it is. A date that is not known (NaN) is not."""
    if math.isnan(days):
        return "of unknown age"
    if days < -_AHEAD:
        return f"dated {-days:.1f} days ahead of this machine's clock, so the age is not known"
    return "" if days <= allowed else f"{days:.0f} days old; at most {allowed} are allowed"


def age(days: float) -> str:
    """An age in words: ``2.0 days``."""
    return f"{max(days, 0.0):.1f} days"


def settle(found: Estimate, limit: float, side: Side, result: Result, *, mend: str, name: str) -> str:
    """What would turn an interval into a pass: a better candidate, or as many more prompts as its width asks for."""
    if result is Result.PASSED:
        return ""
    gap = limit - found.value if side == "at most" else found.value - limit
    half = found.high - found.value if side == "at most" else found.value - found.low
    if result is Result.FAILED or gap <= 0 or not math.isfinite(half):
        few = result is Result.UNCLEAR and found.clusters < _FEW
        prompts = "1 prompt measures" if found.clusters == 1 else f"{found.clusters} prompts measure"
        return f"{mend}; only {prompts} {name}, so judge more that do" if few else mend
    more = math.ceil(found.clusters * ((half / gap) ** 2 - 1))
    if more > REALISTIC * found.clusters and found.clusters < _FEW:
        prompts = "prompt measures" if found.clusters == 1 else "prompts measure"
        return f"only {found.clusters} {prompts} {name}: measure it on a set made for it, with some hundred"
    if more > REALISTIC * found.clusters:
        return (
            f"{name} is too near its limit for its spread: no realistic number of prompts settles it (over "
            f"{REALISTIC} times the {found.clusters} measured). Measure it on a set made for it, or set a limit that "
            "leaves out what does not matter"
        )
    return f"measure {name} on about {more} more prompts"


def interval_words(found: Estimate, limit: float, side: Side, unit: Unit) -> str:
    """A number with its interval, the end that was held, and the limit."""
    end = found.low if side == "at least" else found.high
    name = "lower" if side == "at least" else "upper"
    return (
        f"{number(found.value, unit)} {span(found, unit)}: {name} bound {number(end, unit)}, must be {side} "
        f"{number(limit, unit)} (n = {found.n})"
    )


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def percentage(found: Estimate) -> str:
    """A share with its interval: ``53.1% [49.1, 57.0]``."""
    return f"{100 * found.value:.1f}% [{100 * found.low:.1f}, {100 * found.high:.1f}]"
