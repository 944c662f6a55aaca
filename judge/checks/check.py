r"""What a check is: a frozen value with one pure method, from an item and an answer to what was seen.

A check of your own is a few lines:

    @dataclass(frozen=True)
    class NoPhoneNumbers(Check):
        name: ClassVar[str] = "no-phone-numbers"
        version: ClassVar[int] = 1
        digits: int = 7

        def examine(self, item: Item, answer: Answer) -> Observation | None:
            found = re.search(rf"(?:\d[ -]?){{{self.digits},}}", answer.text)
            return passed() if found is None else failed("a phone number", Span(*found.span()))

The fields are its configuration, given in a suite under ``with:`` and validated strictly (no text for a number, no
unknown name). It reads nothing but its arguments: no file, no clock, no network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from ..types import Answer, Item, Severity, Span

__all__ = ["Check", "Observation", "failed", "passed", "unjudged"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a check saw in one answer.

    ``passed`` is ``None`` where it could not be made; ``detail`` says why it failed or could not be made, and ``spans``
    where in the answer. ``value`` is a number that was measured on the way (words, milliseconds), ``label`` a class the
    answer was put into (``partial_refusal``); both are there for passing answers, too.
    """

    passed: bool | None
    detail: str = ""
    spans: tuple[Span, ...] = ()
    value: float | None = None
    label: str = ""


def passed(*, value: float | None = None, label: str = "", detail: str = "") -> Observation:
    """The answer does what the check asks."""
    return Observation(True, detail, (), value, label)


def failed(detail: str, *spans: Span, value: float | None = None, label: str = "") -> Observation:
    """The answer does not do what the check asks: in one sentence why, and where."""
    return Observation(False, detail, spans, value, label)


def unjudged(detail: str) -> Observation:
    """The check could not be made; it counts neither as passed nor as failed, and is never dropped."""
    return Observation(None, detail)


@dataclass(frozen=True)
class Check(ABC):
    """One hard check; a subclass is a frozen dataclass with a ``name``, a ``version`` and ``examine``.

    Raise ``version`` when the same answer would get another finding than before: findings carry ``name@version``.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    severity: ClassVar[Severity] = Severity.BLOCK
    """What a failure means unless a suite says otherwise."""
    layer: ClassVar[str] = "behaviour"
    axis: ClassVar[str] = "reliability"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    @abstractmethod
    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look at one answer; ``None`` where the check does not concern this item (it is then not counted)."""

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"
