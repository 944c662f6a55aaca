"""What a text must hold before a pattern can match it: words and marks, all looked up in one pass over its bytes.

A pattern of the screen costs about as much as everything else the screen does to a text, and nearly every text can be
told apart from what it looks for by a few words. So each rule names what any match of its pattern has to hold; a text
without it is not searched. That changes no result: what is named is a necessary condition, and the tests hold it
against the bare patterns.

A *word* is a run of the letters a to z, whatever else stands beside it, so ``gpt-4``, ``_gpt_`` and ``"GPT"`` hold the
word ``gpt``. Letters are folded the way ``re.IGNORECASE`` folds them, by which U+0130 and U+0131 match ``i``, U+017F
``s`` and U+212A ``k``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FLAGS", "SIDED", "VERSION", "Cue", "Rule", "Sieve", "Signs", "cue", "rule"]

VERSION = "3"
"""Of the screen's rules (``judge.screening``); a changed rule is a new version, and findings carry it. It stands here
because whoever only asks for the version shall not compile the rules.
"""
FLAGS: dict[str, str] = {
    "empty": "nothing that can be read",
    "master_key": "no content, only an opener that some judges reward",
    "fence_forgery": "imitates the lines or tokens that part the answers in a judge's prompt",
    "injected_verdict": "speaks to whoever compares the answers, or forges a verdict",
    "hidden_text": "text that is not shown to a reader",
    "identity_leak": "says which model wrote it, or who made it",
    "invisible_characters": "characters that are not shown, or reorder what is shown",
    "wrong_encoding": "a broken encoding, or line ends of several systems",
    "homoglyphs": "letters of one script that look like letters of another, within a word",
}
SIDED = frozenset(f"{flag}:{side}" for flag in FLAGS for side in ("candidate", "baseline"))
"""Flags as a comparison carries them."""
_FOLDED = {0x130: "i", 0x131: "i", 0x17F: "s", 0x212A: "k"}
"""All characters beyond ASCII that match an ASCII letter when case is ignored."""
_ODD = frozenset(map(chr, _FOLDED))
_ASCII = bytes(range(128))
_CONTROL = b"\x00"
_SHOWN_CONTROLS = b"\t\n\r"


def _table(kept: bytes, control: bytes = b"") -> bytes:
    """A translation of bytes: letters in ``kept`` to lower case, ``control`` to NUL, everything else to a space."""
    return bytes(ord(chr(byte).lower()) if byte in kept else 0 if byte in control else 32 for byte in range(256))


_LETTERS = bytes(byte for byte in range(128) if chr(byte).isalpha())
_WORDS = _table(_LETTERS, bytes(byte for byte in (*range(32), 127) if byte not in _SHOWN_CONTROLS))
_RUNS = bytes(120 if byte in _LETTERS + b"0123456789+/" else 32 for byte in range(256))
_LONG = b"x" * 24


@dataclass(frozen=True, slots=True)
class Cue:
    """A pattern that is counted in many texts, and what any match of it holds: one word or mark of each group."""

    pattern: re.Pattern[str]
    groups: tuple[tuple[frozenset[bytes], tuple[bytes, ...]], ...]

    def may_match(self, signs: Signs) -> bool:
        """Whether the pattern could match a text, or any part of it that cuts no word."""
        for words, marks in self.groups:
            if words.isdisjoint(signs.held):
                for mark in marks:
                    if mark in signs.folded:
                        break
                else:
                    return False
        return True

    def count(self, text: str, signs: Signs) -> int:
        """How often the pattern matches a text of these signs."""
        return len(self.pattern.findall(text)) if self.may_match(signs) else 0

    def within(self, text: str, signs: Signs) -> bool:
        """Whether the pattern matches anywhere in a text of these signs."""
        return self.may_match(signs) and self.pattern.search(text) is not None


def cue(pattern: str, needs: str = "", *, flags: int = re.IGNORECASE | re.MULTILINE) -> Cue:
    r"""A cue from its pattern and its words, in groups parted by ``&``; what begins with ``~`` may stand inside a word.

    >>> cue(r"\bI am (?:sure|\w*certain)\b", "i & sure ~certain").may_match(Signs("Am I uncertain?"))
    True
    """
    groups = []
    for group in needs.lower().split("&") if needs else ():
        found = group.split()
        marks = tuple(part[1:].encode() for part in found if part.startswith("~"))
        groups.append((frozenset(part.encode() for part in found if not part.startswith("~")), marks))
    return Cue(re.compile(pattern, flags), tuple(groups))


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, what any match of it holds, and what a match means.

    ``groups`` are sets of words, or of single characters that are no letters; a match holds one of each. ``marks`` are
    parts of the text in lower case, of which it holds one. ``hint`` is a pattern for texts in lower case: where the
    pattern matches one, so does the hint, and it is several times as fast. ``gate`` is the same for Rust's ``regex``
    (which has neither lookaround nor references, and is fast where a match holds a literal) and for texts of printable
    ASCII alone. ``order`` says that a match must begin a clause.
    """

    flag: str
    groups: tuple[frozenset[bytes], ...]
    marks: tuple[bytes, ...]
    pattern: re.Pattern[str]
    hint: re.Pattern[str]
    gate: str
    order: bool = False

    def may_match(self, signs: Signs) -> bool:
        """Whether the pattern could match a text that has the rule's words."""
        if self.marks and not any(mark in signs.folded for mark in self.marks):
            return False
        return self.hint.search(signs.lower) is not None


def rule(
    flag: str, needs: str, pattern: str, *, marks: str = "", hint: str = "", gate: str = "", order: bool = False
) -> Rule:
    r"""A rule from its words and characters, in groups parted by ``&``, and its marks.

    Without a hint of its own a rule gets its pattern without the word boundary before it, which keeps ``re`` from
    looking for the first letter first. Without a gate of its own it gets its hint; the gate ``words`` is any word of
    the first group.

    >>> [sorted(group) for group in rule("plea", "pick choose & me", r"\b(?:pick|choose) me\b").groups]
    [[b'choose', b'pick'], [b'me']]
    """
    groups = tuple(frozenset(group.split()) for group in needs.encode().split(b"&"))
    compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    lower = re.sub(r"(?<!\\)[A-Z]", lambda letter: letter[0].lower(), hint or pattern.removeprefix(r"\b"))
    if gate == "words":
        gate = "|".join(sorted(needs.split("&", 1)[0].split()))
    found = tuple(marks.encode().split())
    return Rule(flag, groups, found, compiled, re.compile(lower, re.MULTILINE), gate or lower, order)


class Sieve:
    """Tells for a text which of many rules could match it.

    Each word stands for the groups it belongs to, one bit each: the first groups of all rules, then the second ones,
    and so on. A rule is left where all its groups have been met.
    """

    __slots__ = ("_bits", "_characters", "_deep", "_met", "_rules", "_words")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules, self._deep = tuple(rules), max(len(each.groups) for each in rules)
        self._bits: dict[bytes, int] = {}
        self._met = 0
        for number, each in enumerate(rules):
            for depth in range(self._deep):
                bit = 1 << (depth * len(rules) + number)
                if depth >= len(each.groups):
                    self._met |= bit
                else:
                    for word in each.groups[depth]:
                        self._bits[word] = self._bits.get(word, 0) | bit
        self._words = frozenset(word for word in self._bits if word.isalpha())
        self._characters = tuple(word for word in self._bits if not word.isalpha())

    def left(self, signs: Signs) -> list[Rule]:
        """The rules whose words a text has, in their order."""
        bits, met, width = self._bits, self._met, len(self._rules)
        for word in self._words.intersection(signs.words):
            met |= bits[word]
        for character in self._characters:
            if character in signs.folded:
                met |= bits[character]
        left = (1 << width) - 1
        for depth in range(self._deep):
            left &= met >> (depth * width)
        found = []
        while left:
            lowest = left & -left
            found.append(self._rules[lowest.bit_length() - 1])
            left ^= lowest
        return found


class Signs:
    """What there is in one text: its words, control characters, and what is beyond ASCII.

    ``folded`` is the text in lower case as bytes. ``rare`` holds the characters beyond ASCII, in order and without the
    others between them. ``controls`` is whether there are control characters of ASCII besides tabs and line ends.
    """

    __slots__ = ("_held", "_lower", "_raw", "_text", "controls", "folded", "rare", "words")

    def __init__(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        self.rare, self._text = "", text
        if len(raw) != len(text):
            self.rare = raw.translate(None, _ASCII).decode("utf-8", "surrogatepass")
            if not _ODD.isdisjoint(self.rare):
                self._text = text.translate(_FOLDED)
                raw = self._text.encode("utf-8", "surrogatepass")
        self._raw, self._lower, self.folded = raw, "", raw.lower()
        spaced = raw.translate(_WORDS)
        self.controls = _CONTROL in spaced
        if self.controls:
            spaced = spaced.replace(_CONTROL, b" ")
        self.words = spaced.split()
        self._held: frozenset[bytes] | None = None

    @property
    def held(self) -> frozenset[bytes]:
        """The words as a set, in lower case."""
        if self._held is None:
            self._held = frozenset(self.words)
        return self._held

    @property
    def lower(self) -> str:
        """The text in lower case."""
        self._lower = self._lower or self._text.lower()
        return self._lower

    @property
    def runs(self) -> bool:
        """Whether 24 or more characters of the Base64 alphabet stand together."""
        return _LONG in self._raw.translate(_RUNS)
