"""Budgets: how long, how slow, how costly one answer may be, and what a spoken answer may hold.

What was not recorded is not judged: a missing latency is no fast answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from ..types import Answer, Item, Severity, Span
from .check import Check, Observation, failed, passed, unjudged
from .sentences import words

__all__ = ["Budget", "Spoken"]

_UNSPEAKABLE = (
    ("a URL", re.compile(r"https?://\S+|\bwww\.\S+")),
    ("a code fence", re.compile(r"```")),
    ("a table", re.compile(r"^\|.*\|", re.MULTILINE)),
    ("a heading", re.compile(r"^#{1,6} ", re.MULTILINE)),
    ("bold text", re.compile(r"\*\*[^*\n]+\*\*")),
    ("a bullet list", re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE)),
    ("an emoji", re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")),
)


@dataclass(frozen=True)
class Budget(Check):
    """One answer stays within its limits: ``tokens`` (generated), ``words``, ``characters``, ``latency_ms``
    (milliseconds) and ``cost`` (US dollars).

    A limit on something the answer does not carry makes the finding neither passed nor failed.
    """

    name: ClassVar[str] = "budget"
    severity: ClassVar[Severity] = Severity.WARN
    tokens: int | None = None
    words: int | None = None
    characters: int | None = None
    latency_ms: float | None = None
    cost: float | None = None

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Hold every limit."""
        count = len(words(answer.text)) if self.words is not None else 0
        limits: tuple[tuple[str, float | None, float | None], ...] = (
            ("tokens", self.tokens, answer.tokens),
            ("words", self.words, count),
            ("characters", self.characters, len(answer.text)),
            ("ms", self.latency_ms, answer.latency_ms),
            ("dollars", self.cost, answer.cost),
        )
        held = [(name, limit, value) for name, limit, value in limits if limit is not None]
        if not held:
            return None
        over = [
            f"{value:g} {name}, at most {limit:g}" for name, limit, value in held if value is not None and value > limit
        ]
        first = held[0][2]
        if over:
            return failed("; ".join(over), value=first)
        absent = [name for name, _limit, value in held if value is None]
        return unjudged(f"not recorded: {', '.join(absent)}") if absent else passed(value=first)


@dataclass(frozen=True)
class Spoken(Check):
    """A spoken answer: at most ``words`` words, at most ``turns`` turns of the assistant to completion, and nothing
    that cannot be said aloud (URLs, Markdown, emoji) unless ``written``.

    Turns are those the answer records (``turns``); where there are none recorded and ``turns`` is asked for, the
    finding is neither passed nor failed.
    """

    name: ClassVar[str] = "spoken"
    words: int | None = 60
    turns: int | None = None
    written: bool = False

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Count words and turns, and look for what cannot be said; the value is the number of words."""
        count = len(words(answer.text))
        faults: list[str] = []
        spans: list[Span] = []
        if self.words is not None and count > self.words:
            faults.append(f"{count} words, at most {self.words}")
        if self.turns is not None and answer.turns is not None and answer.turns > self.turns:
            faults.append(f"{answer.turns} turns, at most {self.turns}")
        for what, pattern in () if self.written else _UNSPEAKABLE:
            if found := pattern.search(answer.text):
                faults.append(f"has {what}")
                spans.append(Span(*found.span(), what))
        if faults:
            return failed("; ".join(faults), *spans, value=float(count))
        if self.turns is not None and answer.turns is None:
            return unjudged("the number of turns is not recorded")
        return passed(value=float(count))
