"""The words of a release decision, as frozen values: what a gate looks at, what each rule found, what was decided.

Every rule becomes a ``Ruling``: passed, failed, unclear (the interval holds the limit and what lies beyond it) or
missing (no evidence, stale, errored). Only ``passed`` lets a candidate through; ``missing`` is never a pass. The three
layers (preference, behaviour, evidence) and the three axes (capability, reliability, safety) stay apart: a decision is
a list of rulings, never a sum.

    BLOCK   a rule failed that is about the candidate: it is shown to be worse than the policy allows
    HOLD    nothing failed, but something is unclear or missing, or the judge may not be believed
    SHIP    every rule that the policy requires passed
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from calibration.estimates import Estimate
from calibration.provenance import Refused

from .errors import InputError
from .types import Measure, Severity

__all__ = [
    "Calibrated",
    "Canaries",
    "Decision",
    "Evidence",
    "Hard",
    "Missing",
    "Preference",
    "Probed",
    "Result",
    "Ruling",
    "RunFacts",
    "Segment",
    "Standing",
    "Word",
]


class Word(StrEnum):
    """What a gate says."""

    SHIP = "SHIP"
    HOLD = "HOLD"
    BLOCK = "BLOCK"


class Result(StrEnum):
    """What one rule found."""

    PASSED = "passed"
    FAILED = "failed"
    UNCLEAR = "unclear"
    """There is evidence, and it does not decide."""
    MISSING = "missing"
    """There is no evidence that counts: nothing was measured, it is stale, or it could not be made."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no evidence, and the command or act that would give it."""

    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run that is judged: ``pairs`` it should hold, ``judged`` of them settled, ``invalid`` without a verdict.

    ``left_out`` counts rows of its eval set that could not be read and were skipped. ``days`` is the age of its oldest
    reply when the gate asked (NaN: not known), ``again`` the command that judges it anew. ``candidate`` and
    ``baseline`` are what labels and rollouts call them.
    """

    run_id: str
    sealed: bool
    pairs: int
    judged: int
    invalid: int
    candidate: str
    baseline: str
    rubric: str
    judge: str
    days: float
    left_out: int = 0
    again: str = "judge run --no-cache"

    @property
    def silent(self) -> int:
        """Comparisons without a verdict, rows that were skipped among them."""
        return self.invalid + self.left_out

    @property
    def wanted(self) -> int:
        """Comparisons that there would be if every row could be judged."""
        return self.pairs + self.left_out


@dataclass(frozen=True, slots=True)
class Hard:
    """One hard check on all answers of the candidate, and how often the baseline failed it.

    ``unjudged`` counts answers on which it could not be made; ``failing`` are ids of pairs to read, ``unseen`` those
    of pairs in which it was tried and could not be made.
    """

    check: str
    axis: str
    severity: Severity
    passed: int
    failed: int
    unjudged: int = 0
    baseline_failed: int = 0
    failing: tuple[str, ...] = ()
    layer: str = "behaviour"
    unseen: tuple[str, ...] = ()

    @property
    def judged(self) -> int:
        """Answers on which the check was made."""
        return self.passed + self.failed


@dataclass(frozen=True, slots=True)
class Segment:
    """One slice of a run (``column=value``) on the human scale; ``q`` is Benjamini-Hochberg over all slices together.

    ``rate`` is its own corrected win rate (``None``: too few labels), ``shrunk`` the one pulled to the mean; ``losing``
    are ids of pairs it lost.
    """

    name: str
    judged: int
    labels: int
    rate: Estimate | None
    shrunk: Estimate | None = None
    q: float | None = None
    losing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """What people would prefer, as far as labels tell.

    ``judge`` is the judge's own mean preference, ``corrected`` the win rate on the human scale, ``controlled`` the same
    at equal answer lengths (``None``: lengths do not differ), ``log_length`` the mean log length ratio.
    ``labels_wanted`` are the labels in all that the policy's gain and power need (``None``: more than the run has
    pairs), ``pairs_wanted`` the labelled pairs if no judge helped.
    """

    judge: Estimate | None
    corrected: Estimate | Refused
    controlled: Estimate | Refused | None
    segments: tuple[Segment, ...] | Refused
    labels: int
    judged: int
    human: Estimate | None = None
    rho: Estimate | None = None
    log_length: Estimate | None = None
    labels_wanted: int | None = None
    pairs_wanted: int = 0
    losing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Canaries:
    """Pairs with a known answer inside the run: ``failed`` names those that the judge got wrong.

    ``silent`` says why they show nothing although the run has them (empty: they do).
    """

    total: int
    failed: tuple[str, ...] = ()
    silent: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """The probe run whose shifts are held: its age in days when the gate asked (NaN: not known), and for every trick
    the comparisons without a verdict and all that were asked for. ``again`` is the command that makes it anew.
    """

    name: str
    days: float
    silent: Mapping[str, tuple[int, int]]
    again: str


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration for exactly the run's rubric and judge: its name, and the age in days of the verdicts that it was
    fitted on (NaN: not known). ``again`` is the command that fits it anew, ``labels`` says whose labels it rests on
    and whether they are of the run's eval set.
    """

    name: str
    days: float
    again: str
    labels: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the judge is worth on this rubric: the word of the calibration report, and what it rests on.

    ``word`` is BELIEVE, WITH CARE, DO NOT BELIEVE or UNKNOWN; ``why`` its sentences. ``accuracy`` is on pairs that
    people and judge both decide. ``calibration`` is the one for exactly this rubric and judge. ``moved`` says what an
    earlier run of the same pairs shows to have moved (empty: nothing). ``fix`` says what would make it known.
    """

    word: str
    why: tuple[str, ...]
    accuracy: Estimate | None
    calibration: Calibrated | Missing
    moved: tuple[str, ...] | Missing = Missing("no earlier run was named", "judge gate --since RUN")
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a gate looks at, as values; what is not known says why (``judge/dossier.py`` gathers it).

    ``measures`` are all measures by name; ``unmeasured`` is the reason for those that are not among them. ``probed`` is
    the probe run that the measures ``probe.*`` are of (``None``: there are none). ``inputs`` names the digest or id of
    everything that was read.
    """

    run: RunFacts
    suites: tuple[Hard, ...] | Missing
    measures: Mapping[str, Measure]
    unmeasured: Mapping[str, Missing]
    preference: Preference | Missing
    canaries: Canaries | Missing
    standing: Standing | Missing
    probed: Probed | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule of the policy and what it found.

    ``rule`` is its dotted name, ``stage`` the part of the policy it stands in. ``effect`` is what it does to the
    decision (SHIP: it does not stand in the way). ``observed`` was held to ``limit`` by ``method``: its ``low`` must be
    above (``side`` ``at least``) or its ``high`` below it (``at most``). ``says`` is the finding in words, ``change``
    what would change it, ``pairs`` the pairs to read.
    """

    rule: str
    stage: str
    layer: str
    axis: str
    result: Result
    effect: Word
    says: str
    observed: Estimate | None = None
    limit: float | None = None
    side: str = ""
    unit: str = "plain"
    method: str = ""
    change: str = ""
    pairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The one value that every surface and the exit code are made of.

    ``void`` says why the run gives no verdict at all (not sealed, failed canaries): never a pass, exit code 3 unless
    the candidate is blocked anyway. ``needs`` lists what would settle what is open, most wanted first. ``headline`` is
    the finding in a few sentences.
    """

    word: Word
    run_id: str
    candidate: str
    baseline: str
    policy: str
    policy_digest: str
    headline: str
    rulings: tuple[Ruling, ...]
    needs: tuple[str, ...] = ()
    void: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    more_labels: int | None = None
    """Labels still needed for the policy's gain and power; ``None`` where labels are not what is missing."""

    @property
    def exit_code(self) -> int:
        """0 SHIP, 1 BLOCK, 3 the run gives no verdict, 4 HOLD."""
        if self.word is Word.HOLD and self.void:
            return 3
        return {Word.SHIP: 0, Word.BLOCK: 1, Word.HOLD: 4}[self.word]

    def of(self, result: Result) -> tuple[Ruling, ...]:
        """The rulings with this result, in order."""
        return tuple(ruling for ruling in self.rulings if ruling.result is result)

    @property
    def standing_in_the_way(self) -> tuple[Ruling, ...]:
        """The rulings that keep it from SHIP, those that block first."""
        order = {Word.BLOCK: 0, Word.HOLD: 1}
        found = [ruling for ruling in self.rulings if ruling.effect is not Word.SHIP]
        return tuple(sorted(found, key=lambda ruling: order[ruling.effect]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON and the register; ``decision_from`` reads it back."""
        return {**_encoded(self), "exit_code": self.exit_code}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Decision:
        """The decision that ``to_dict`` wrote; raises ``InputError`` for anything else."""
        try:
            fields = {key: value for key, value in raw.items() if key not in ("exit_code", "gold_files", "policy_text")}
            return cls(
                **{
                    **fields,
                    "word": Word(raw["word"]),
                    "rulings": tuple(_ruling(ruling) for ruling in raw["rulings"]),
                    **{name: tuple(raw[name]) for name in ("needs", "void", "plan")},
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a decision of this version ({error}); run `judge gate` again") from error


def _encoded(value: Any) -> Any:
    """A value of this module as what JSON knows; an open end of an interval is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _encoded(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _encoded(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        return [_encoded(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _ruling(raw: Mapping[str, Any]) -> Ruling:
    observed = raw["observed"]
    return Ruling(
        **{
            **raw,
            "result": Result(raw["result"]),
            "effect": Word(raw["effect"]),
            "observed": None if observed is None else _estimate(observed),
            "pairs": tuple(raw["pairs"]),
        }
    )


def _estimate(raw: Mapping[str, Any]) -> Estimate:
    ends: dict[str, Any] = {"low": -math.inf, "high": math.inf}
    return Estimate(**{**raw, **{key: end for key, end in ends.items() if raw[key] is None}})
