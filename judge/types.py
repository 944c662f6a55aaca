"""The vocabulary of a judgement, as frozen values.

``Item`` and two ``Answer``s make a ``Pair``, which knows nothing of order. ``protocol.plan`` turns a pair into two
``Ask``s, one per order; a backend answers each with a ``Reply``; ``protocol.settle`` reads both into a ``Comparison``.
``candidate`` and ``baseline`` are what is compared, ``first`` and ``second`` are places in a prompt, and letters exist
only inside one blind prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rubrics import Outcome, RubricRef

if TYPE_CHECKING:
    from calibration.estimates import Estimate

__all__ = [
    "Answer",
    "Ask",
    "Comparison",
    "Finding",
    "InvalidReason",
    "Item",
    "JudgeId",
    "Labels",
    "Measure",
    "Message",
    "Order",
    "Outcome",
    "Pair",
    "Reply",
    "Severity",
    "Span",
    "Usage",
    "Verdict",
]


class Order(StrEnum):
    """Which answer stands first in a prompt."""

    CANDIDATE_FIRST = "candidate_first"
    BASELINE_FIRST = "baseline_first"


class InvalidReason(StrEnum):
    """Why a reply (or a comparison) carries no verdict; an invalid verdict is counted, never guessed."""

    EMPTY = "empty"
    """The judge returned no text and no label probabilities."""
    UNPARSED = "unparsed"
    """The reply names no verdict in the form that was asked for."""
    CONFLICT = "conflict"
    """The reply names more than one verdict."""
    REFUSAL = "refusal"
    """The judge refused to judge."""
    LENGTH = "length"
    """The reply was cut by the token limit before a verdict."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter withheld the reply."""
    MISSING = "missing"
    """No reply exists for this ask (a recorded judge without this row)."""
    NOT_FINITE = "not_finite"
    """Label probabilities that are not finite, negative, or do not sum to 1."""
    ERROR = "error"
    """The call failed for good; the reply's ``error`` says how."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: ``role`` is ``system``, ``user``, ``assistant`` or ``tool``."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Item:
    """What was asked: a prompt (or a conversation), with the category and the sources it is judged by.

    ``checks`` are hard checks of this item alone, as a suite's entries (``{"check": NAME, "with": {...}}``); ``tools``
    are the tools that the model could call.
    """

    prompt: str
    messages: tuple[Message, ...] = ()
    category: str = ""
    tags: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    reference: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; everything but ``text`` is for reports and never reaches a judge's prompt.

    ``latency_ms`` is in milliseconds, ``tokens`` counts generated tokens, ``cost`` is in US dollars, ``turns`` counts
    the assistant's turns until the task was done. ``finish`` is the server's word for how the answer ended (``stop``,
    ``length``, ``content_filter``, ``tool_calls``, ...; ``judge.endings`` says which mean a token limit), ``None``
    where nobody told.
    """

    text: str
    model: str | None = None
    latency_ms: float | None = None
    tokens: int | None = None
    cost: float | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    turns: int | None = None
    finish: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """An item and two answers to it; knows nothing of order.

    ``label`` is a human's outcome from the candidate's side where the input file carries one.
    """

    id: str
    item: Item
    candidate: Answer
    baseline: Answer
    label: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """The neutral names of the two places and of the tie inside one blind prompt."""

    first: str
    second: str
    tie: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One blind prompt in one order.

    ``system`` and ``user`` are the rendered prompt. ``question``, ``first`` and ``second`` are the same material
    unfenced, for judges that score likelihoods instead of reading a prompt. ``pair_id`` and ``order`` are the envelope:
    no backend that renders a prompt may show them. ``key`` is the identity of the judgement (hex digest); equal keys
    are one judgement.
    """

    key: str
    pair_id: str
    order: Order
    repeat: int
    system: str
    user: str
    labels: Labels
    question: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call took: tokens, and US dollars (``None`` where the price is unknown)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One raw answer of a judge.

    ``probs`` are P(first is better), P(tie), P(second is better) read from label probabilities, or ``None`` where the
    judge gives text only. ``score`` holds judge-specific raw numbers kept for later analysis. ``flags`` say what was
    done to the input (``truncated``) or is missing (``no_logprobs``). ``attempts`` counts the calls that were sent for
    it, ``possibly_paid`` those among them that brought no readable answer and may have been charged all the same.
    ``response_ids`` are the provider's ids of the responses it was made of, by which a bill can be matched.
    """

    text: str = ""
    probs: tuple[float, float, float] | None = None
    score: Mapping[str, float] = field(default_factory=dict)
    finish: str = "stop"
    error: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    latency_ms: float = 0.0
    usage: Usage = Usage()
    flags: tuple[str, ...] = ()
    attempts: int = 1
    possibly_paid: int = 0
    response_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One reply read, from the candidate's side: three probabilities and an outcome, or ``invalid`` with a reason."""

    order: Order
    p_win: float | None = None
    p_tie: float | None = None
    p_loss: float | None = None
    outcome: Outcome | None = None
    invalid: InvalidReason | None = None
    source: str = "text"
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class JudgeId:
    """Which judge: name, revision of its weights or snapshot, and how it decodes. A change of any is another judge."""

    name: str
    revision: str = ""
    decoding: str = ""
    by_pair: bool = False
    """Whether it answers by the pair's id, not its texts (a recorded one); the id is then part of the identity."""

    def __str__(self) -> str:
        return "@".join(part for part in (self.name, self.revision) if part) + (
            f"[{self.decoding}]" if self.decoding else ""
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both orders of one pair settled.

    ``preference`` is P(win) + P(tie)/2 averaged over both orders, in [0, 1] from the candidate's side. ``consistent``
    says whether both orders named the same outcome. ``confidence`` is max(preference, 1 - preference): the judge's own,
    uncalibrated; ``calibrated`` is the same on the human scale where a calibration was given. An invalid comparison has
    a reason and no numbers. ``cost`` is in US dollars, ``None`` where a price is unknown.
    """

    pair_id: str
    outcome: Outcome | None
    preference: float | None
    p_win: float | None
    p_tie: float | None
    p_loss: float | None
    consistent: bool | None
    confidence: float | None
    verdicts: tuple[Verdict, ...]
    rubric: RubricRef
    judge: JudgeId
    invalid: InvalidReason | None = None
    calibrated: float | None = None
    repeat: int = 0
    flags: tuple[str, ...] = ()
    rationale: str = ""
    cost: float | None = None


class Severity(StrEnum):
    """What a failed check means for a release."""

    BLOCK = "block"
    """It may not ship."""
    WARN = "warn"
    """A person has to look."""
    INFO = "info"
    """It is counted, no more."""


@dataclass(frozen=True, slots=True)
class Span:
    """The part of an answer that a finding is about: characters ``start`` to ``end`` (exclusive), and why."""

    start: int
    end: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One hard check on one answer: what was checked, whether it passed, and where to look; not a score.

    ``check`` is ``name@version``; ``side`` is ``candidate`` or ``baseline``. ``passed`` is ``None`` where the check
    could not be made (it crashed, ran out of time, lacks what it needs): never a pass, and counted apart; ``detail``
    says why.
    """

    check: str
    pair_id: str
    side: str
    passed: bool | None
    severity: Severity = Severity.BLOCK
    detail: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure:
    """One number about the candidate against the baseline, which a report shows and a policy may hold to a limit.

    ``name`` is dotted (``length.log_ratio``, ``refusal.harmless``, ``latency.p95_ratio``, ``probe.boilerplate``).
    ``layer`` is ``preference``, ``behaviour`` or ``evidence``; ``axis`` is ``capability``, ``reliability`` or
    ``safety``.
    ``candidate`` and ``baseline`` are the two sides' own figures, ``difference`` is candidate minus baseline (or the
    ratio, where the name says so), paired and clustered by prompt. ``unit`` is what they are counted in. Where there
    is no number, ``missing`` says why: absence is not zero. ``examples`` are ids of pairs to read next to it.
    """

    name: str
    layer: str
    axis: str
    unit: str = ""
    candidate: Estimate | None = None
    baseline: Estimate | None = None
    difference: Estimate | None = None
    missing: str = ""
    examples: tuple[str, ...] = ()
