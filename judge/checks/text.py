"""Checks of the plain text: what has to stand in it, what may not, and patterns under a time limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ..errors import InputError
from ..types import Answer, Item, Span
from .check import Check, Observation, failed, passed, unjudged

__all__ = ["Contains", "NotContains", "NotEmpty", "Pattern", "Regex"]

_SHOWN = 5


class Pattern:
    """A regular expression (syntax of the ``regex`` package) that gives up after ``seconds``.

    Raises ``InputError`` for one that does not compile. ``search`` and ``finditer`` raise ``TimeoutError``: a pattern
    that backtracks without end is stopped, not waited for.
    """

    def __init__(self, pattern: str, *, flags: str = "", seconds: float = 1.0) -> None:
        import regex

        wanted = 0
        for letter in flags:
            flag = {"i": regex.IGNORECASE, "m": regex.MULTILINE, "s": regex.DOTALL}.get(letter)
            if flag is None:
                raise InputError(f"regex flags {flags!r}: unknown flag {letter!r}; use i, m and s")
            wanted |= flag
        try:
            self._compiled = regex.compile(pattern, wanted)
        except regex.error as error:
            raise InputError(f"regex {pattern!r}: does not compile: {error}") from None
        self._seconds = seconds

    def search(self, text: str, *, whole: bool = False) -> tuple[int, int] | None:
        """The first place where the pattern matches (the whole text where ``whole``)."""
        find = self._compiled.fullmatch if whole else self._compiled.search
        found = find(text, timeout=self._seconds)
        return found.span() if found else None

    def finditer(self, text: str) -> Iterator[tuple[int, int]]:
        """Every place where the pattern matches."""
        for found in self._compiled.finditer(text, timeout=self._seconds):
            yield found.span()


@dataclass(frozen=True)
class NotEmpty(Check):
    """The answer says something: text that is not white space, or a tool call."""

    name: ClassVar[str] = "not-empty"

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look for anything."""
        return passed() if answer.text.strip() or answer.tool_calls else failed("the answer is empty")


@dataclass(frozen=True)
class Contains(Check):
    """Each of ``texts`` stands in the answer (one of them, where ``any``); letter case counts unless ``ignore_case``.

    Without ``texts``, the item's metadata under ``texts_from`` (a text or a list) says which.
    """

    name: ClassVar[str] = "contains"
    axis: ClassVar[str] = "capability"
    texts: tuple[str, ...] = ()
    texts_from: str = "must_contain"
    any: bool = False
    ignore_case: bool = True

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look for the texts."""
        texts = self.texts or _listed(item.metadata.get(self.texts_from))
        if not texts:
            return None
        missing = [text for text in texts if not _spans(answer.text, text, ignore_case=self.ignore_case)]
        if not missing or (self.any and len(missing) < len(texts)):
            return passed()
        shown = ", ".join(repr(text) for text in missing[:_SHOWN])
        return failed(f"none of {shown}" if self.any else f"without {shown}")


@dataclass(frozen=True)
class NotContains(Check):
    """None of ``texts`` stands in the answer; ``words`` looks for whole words.

    Without ``texts``, the item's metadata under ``texts_from`` (a text or a list) says which.
    """

    name: ClassVar[str] = "not-contains"
    texts: tuple[str, ...] = ()
    texts_from: str = "must_not_contain"
    words: bool = False
    ignore_case: bool = True

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look for the texts."""
        texts = self.texts or _listed(item.metadata.get(self.texts_from))
        if not texts:
            return None
        found = [
            (text, span)
            for text in texts
            for span in _spans(answer.text, text, ignore_case=self.ignore_case)
            if not self.words or _is_word(answer.text, span)
        ]
        if not found:
            return passed()
        names = ", ".join(repr(text) for text in dict.fromkeys(text for text, _ in found))
        return failed(f"with {names}", *(Span(*span, repr(text)) for text, span in found[:_SHOWN]))


@dataclass(frozen=True)
class Regex(Check):
    """The answer matches ``pattern`` (nowhere, where ``absent``; as a whole, where ``whole``).

    ``flags`` are any of ``i``, ``m``, ``s``. A match that takes longer than ``seconds`` is given up: the finding is
    then neither passed nor failed.
    """

    name: ClassVar[str] = "regex"
    pattern: str
    absent: bool = False
    whole: bool = False
    flags: str = ""
    seconds: float = 1.0

    def __post_init__(self) -> None:
        """Compile the pattern, so that a broken one is found before any answer is read."""
        _ = self._compiled

    @cached_property
    def _compiled(self) -> Pattern:
        return Pattern(self.pattern, flags=self.flags, seconds=self.seconds)

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Search under the time limit."""
        try:
            if not self.absent:
                found = self._compiled.search(answer.text, whole=self.whole)
                return passed() if found else failed(f"does not match {self.pattern!r}")
            places = [span for span, _ in zip(self._compiled.finditer(answer.text), range(_SHOWN), strict=False)]
        except TimeoutError:
            return unjudged(f"the pattern {self.pattern!r} took longer than {self.seconds:g} s and was given up")
        return failed(f"matches {self.pattern!r}", *(Span(*span) for span in places)) if places else passed()


def _listed(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,) if given else ()
    return tuple(part for part in given if isinstance(part, str) and part) if isinstance(given, list | tuple) else ()


def _spans(text: str, wanted: str, *, ignore_case: bool) -> list[tuple[int, int]]:
    """Where ``wanted`` stands, up to a few places."""
    import re

    if not ignore_case:
        at = text.find(wanted)
        return [(at, at + len(wanted))] if at >= 0 else []
    found = []
    for match in re.finditer(re.escape(wanted), text, re.IGNORECASE):
        found.append(match.span())
        if len(found) == _SHOWN:
            break
    return found


def _is_word(text: str, span: tuple[int, int]) -> bool:
    before, after = text[span[0] - 1 : span[0]] if span[0] else "", text[span[1] : span[1] + 1]
    return not (before.isalnum() or before == "_") and not (after.isalnum() or after == "_")
