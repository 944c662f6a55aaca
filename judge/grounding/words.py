"""Text as sentences, words and numbers, each with its place: what grounding compares. Linear in the text, whatever the
text.

No pattern here can back-track: every one matches at each place it is tried or fails at its first character, and what
depends on a neighbour is asked in Python afterwards. A hostile text is slow in proportion to its length and no more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from .lexicon import (
    ABBREVIATIONS,
    ELSEWHERE,
    ENGLISH,
    FUNCTION_WORDS,
    LETTER_SCALES,
    MONTHS,
    ORDINALS,
    SCALES,
    SMALL,
    TENS,
    UNITS,
)
from .stems import stem

__all__ = [
    "Number",
    "Sentence",
    "Token",
    "folded",
    "language_problem",
    "numbers",
    "sentences",
    "tokens",
    "uncited",
]

LONGEST = 120
"""Words a piece of text may have before it is cut into pieces, sentence or not: a claim is not a chapter."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[%$€£¥°]")
_STOP = re.compile("[.!?…。！？]+[\"'”’)\\]*_]*|\n+")
_CITATION = re.compile(r"\[\^?\d{1,3}(?:[ ,;–-]{1,2}\d{1,3}){0,8}\]")
_NUMBERED = re.compile(r"\b(?:passage|document|source|context|excerpt|snippet)s? (?:no\. ?)?(\d{1,3})\b", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)
_BULLET = re.compile(r"[ \t]*(?:[-*+•>|][ \t|]*|#{1,6}[ \t]+|\(?\d{1,3}[.)][ \t]+)")


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or sign: as written, its place in the text, and its stem."""

    text: str
    start: int
    end: int
    stem: str

    @property
    def lower(self) -> str:
        """The word in lower case, a curly apostrophe made straight."""
        return self.text.lower().replace("’", "'")

    @property
    def is_number(self) -> bool:
        """Whether it begins with a digit."""
        return self.text[0].isdigit()

    @property
    def content(self) -> bool:
        """Whether it says something by itself: a number, or a word that is no function word."""
        return self.is_number or (self.stem not in FUNCTION_WORDS and len(self.stem) > 1)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters ``start`` to ``end`` of a text, and why it makes no claim (``question``, ``heading``, ``code``,
    ``nothing said``), if it makes none.
    """

    start: int
    end: int
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Number:
    """A number said in a text: its value, unit (``%``, ``$``, ``km``, ``hour`` ... or empty), place, the tokens it
    takes (``at`` to ``until``), and how else it may be read (``1, 100`` is also 1100).

    ``kind`` is ``number``, ``ordinal`` (``first``, ``3rd``, ``twice``), ``year`` or ``month`` (the value is 1 to 12).
    """

    value: float
    unit: str
    start: int
    end: int
    at: int
    until: int
    kind: str = "number"
    others: tuple[float, ...] = ()
    digits: int = 15
    """Significant digits it is written with: ``1.2 million`` has two, so 1,204,331 rounds to it."""


def folded(text: str) -> str:
    """Text for comparing: one character for one, so that places stay; full-width forms and ligatures that change the
    length stay as they are.
    """
    if text.isascii():
        return text
    return "".join(
        plain if len(plain := unicodedata.normalize("NFKC", character)) == 1 else character for character in text
    )


def uncited(text: str, documents: int) -> str:
    """The text with its citation marks (``[2]``, ``passage 2`` where there are that many documents) blanked out, place
    for place: they say where something stands, not what.
    """
    text = _CITATION.sub(lambda match: " " * len(match[0]), text)
    return _NUMBERED.sub(lambda match: " " * len(match[0]) if 1 <= int(match[1]) <= documents else match[0], text)


def tokens(text: str, start: int = 0, end: int | None = None) -> list[Token]:
    """The words, numbers and unit signs between two places, in order."""
    found = []
    for match in _WORD.finditer(text, start, len(text) if end is None else end):
        word = match[0]
        digits = word.replace(",", "") if _thousands(word) else word
        shape = digits if word[0].isdigit() else stem(word)
        found.append(Token(word, match.start(), match.end(), shape))
    return found


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences, list items and table rows of a text, in order; each is a claim unless ``skipped`` says why not.

    A full stop ends one unless it follows an abbreviation or a single letter, or a lower-case word follows. Pieces of
    more than ``LONGEST`` words are cut.
    """
    inside = False
    for start, end, code in _blocks(text):
        inside = code
        if inside:
            if text[start:end].strip():
                yield Sentence(start, end, "code")
            continue
        yield from _prose(text, start, end)


def language_problem(text: str) -> str:
    """Why a text cannot be judged here (another script or language than English), or an empty string.

    Short texts without a sign of another language pass. The word lists are English: numbers and names could be compared
    in any language, negations and endings cannot.
    """
    head = text[:20_000]
    letters = [character for character in head if character.isalpha()]
    if len(letters) >= 10 and 2 * sum(_latin(character) for character in letters) < len(letters):
        return "not in Latin script"
    words = [match[0].lower() for match in _WORD.finditer(head) if match[0][0].isalpha()]
    if len(words) < 8:
        return ""
    english = sum(word in ENGLISH for word in words) / len(words)
    foreign = sum(word in ELSEWHERE and word not in FUNCTION_WORDS for word in words) / len(words)
    return "not in English" if foreign > max(english, 0.12) else ""


def numbers(words: list[Token]) -> list[Number]:
    """Every number among the words: digits, number words, scales (``1.2 million``), units, years and month names."""
    found: list[Number] = []
    at = 0
    while at < len(words):
        number = _number_at(words, at)
        if number is None:
            at += 1
            continue
        found.append(number)
        at = number.until
    return found


def _latin(character: str) -> bool:
    return character < "\u0250" or "\u1e00" <= character < "\u1f00"


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Stretches of the text with whether they are fenced code."""
    at, code = 0, False
    for match in _FENCE.finditer(text):
        if match.start() > at:
            yield at, match.start(), code
        line = text.find("\n", match.end())
        at, code = (len(text) if line < 0 else line + 1), not code
    if at < len(text):
        yield at, len(text), code


def _prose(text: str, start: int, end: int) -> Iterator[Sentence]:
    at = start
    for match in _STOP.finditer(text, start, end):
        if match[0][0] != "\n" and not _ends(text, match, at, end):
            continue
        yield from _piece(text, at, match.end())
        at = match.end()
    yield from _piece(text, at, end)


def _ends(text: str, match: re.Match[str], begun: int, end: int) -> bool:
    """Whether a full stop ends a sentence."""
    after = match.end()
    if match[0][0] in "。！？":
        return True
    if after < end and not text[after].isspace():
        return False
    if match[0][0] != ".":
        return True
    word_start = match.start()
    floor = max(begun, match.start() - 12)
    while word_start > floor and not text[word_start - 1].isspace():
        word_start -= 1
    word = text[word_start : match.start()].lower().lstrip("(\"'“‘[")
    if word in ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
        return False
    if word.isdigit() and not text[begun:word_start].strip():
        return False
    while after < end and text[after] in " \t":
        after += 1
    if after >= end:
        return True
    # "2. 5 per cent": a decimal that a tokeniser took apart.
    split = word.isdigit() and len(word) <= 2 and text[after].isdigit() and after == match.end() + 1
    return not split and not text[after].islower()


def _piece(text: str, start: int, end: int) -> Iterator[Sentence]:
    """One stretch without its bullet and white space, in pieces of at most ``LONGEST`` words."""
    bullet = _BULLET.match(text, start, end)
    heading = bullet is not None and "#" in bullet[0]
    start = bullet.end() if bullet is not None else start
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    words = tokens(text, start, end)
    if not words:
        return
    skipped = _skipped(text[max(start, end - 4) : end], words, heading=heading)
    if len(words) <= LONGEST:
        yield Sentence(start, end, skipped)
        return
    for k in range(0, len(words), LONGEST):
        last = k + LONGEST >= len(words)
        yield Sentence(start if k == 0 else words[k].start, end if last else words[k + LONGEST - 1].end, skipped)


def _skipped(tail: str, words: list[Token], *, heading: bool) -> str:
    tail = tail.rstrip("\"'”’)]*_ ")
    if heading or (tail.endswith(":") and len(words) <= 12):
        return "heading"
    if tail.endswith(("?", "？")):
        return "question"
    return "" if any(word.content for word in words) else "nothing said"


def _thousands(word: str) -> bool:
    """Whether the commas of a number part thousands."""
    whole = word.partition(".")[0].split(",")
    return len(whole) > 1 and 1 <= len(whole[0]) <= 3 and all(len(part) == 3 for part in whole[1:])


def _value(word: str) -> float | None:
    """The number a word of digits says; ``None`` for versions and addresses (1.2.3)."""
    plain = word.replace(",", "") if _thousands(word) else word.replace(",", ".", 1)
    if plain.count(".") > 1 or "," in plain or len(plain) > 30:
        return None
    return float(plain)


def _number_at(words: list[Token], at: int) -> Number | None:
    word = words[at].lower
    if word in MONTHS and _is_month(words, at):
        return Number(float(MONTHS[word]), "", words[at].start, words[at].end, at, at + 1, "month")
    if words[at].is_number:
        return _digits(words, at)
    if word in SMALL or word in TENS:
        return _spelled(words, at)
    if word in ORDINALS and word != "second":
        return Number(ORDINALS[word], "", words[at].start, words[at].end, at, at + 1, "ordinal")
    return None


def _is_month(words: list[Token], at: int) -> bool:
    """Whether ``may`` or ``march`` is the month: beside a number, or in upper case amid a sentence."""
    word = words[at]
    if word.lower not in {"may", "march", "mar", "jun", "jan", "dec", "sep", "apr", "oct", "nov", "jul", "feb", "aug"}:
        return True
    beside = [words[k] for k in (at - 1, at + 1) if 0 <= k < len(words)]
    return any(near.is_number or near.lower in {"last", "next"} for near in beside) or (
        word.lower in {"may", "march"} and word.text[0].isupper() and at > 0 and words[at - 1].lower in {"in", "of"}
    )


def _digits(words: list[Token], at: int) -> Number | None:
    value = _value(words[at].text)
    if value is None:
        return None
    until = at + 1
    scale, until = _scaled(words, until)
    text = words[at].text
    year = text.isdigit() and len(text) == 4 and 1000 <= value < 2200 and scale == 1.0
    unit, until = _unit(words, at, until)
    kind = "year" if year and unit == "" else "number"
    if at + 1 < len(words) and unit == "" and words[at + 1].lower in {"st", "nd", "rd", "th"}:
        until, kind = max(until, at + 2), "ordinal"
    digits = len(text.replace(",", "").replace(".", "").strip("0")) or 1
    others: tuple[float, ...] = ()
    joined = _joined(words, at) if until == at + 1 else None
    if joined is not None:
        scale_joined, after = _scaled(words, at + 2)
        others = (joined * scale_joined,)
        unit = unit or _unit(words, at, after)[0]
    return Number(value * scale, unit, words[at].start, words[until - 1].end, at, until, kind, others, digits)


def _joined(words: list[Token], at: int) -> float | None:
    """``1, 100`` as 1100 and ``2. 5`` as 2.5: how some tokenisers leave numbers behind."""
    if at + 1 >= len(words) or not words[at + 1].is_number or words[at + 1].start - words[at].end != 2:
        return None
    first, second = words[at].text, words[at + 1].text
    if first.isdigit() and len(first) <= 3 and len(second) == 3 and second.isdigit():
        return float(first + second)
    return float(f"{first}.{second}") if first.isdigit() and second.isdigit() and len(first + second) < 12 else None


def _spelled(words: list[Token], at: int) -> Number | None:
    """``twenty-five``, ``two hundred``; a lone ``one`` is a pronoun as often as a number and is left out."""
    value, until = SMALL.get(words[at].lower), at + 1
    if value is None:
        value = TENS[words[at].lower]
        if until < len(words) and 0 < SMALL.get(words[until].lower, 0) < 10:
            value += SMALL[words[until].lower]
            until += 1
    scale, until = _scaled(words, until)
    if value == 1 and scale == 1:
        return None
    unit, until = _unit(words, at, until)
    return Number(value * scale, unit, words[at].start, words[until - 1].end, at, until, digits=2)


def _scaled(words: list[Token], until: int) -> tuple[float, int]:
    scale = 1.0
    while until < len(words) and words[until].lower in SCALES and scale < 1e12:
        close = words[until].start - words[until - 1].end
        if words[until].lower in LETTER_SCALES and close > 0:
            break
        scale *= SCALES[words[until].lower]
        until += 1
    return scale, until


def _unit(words: list[Token], at: int, until: int) -> tuple[str, int]:
    """The unit before (``$5``) or after (``5 km``, ``5 per cent``) a number, and where it ends."""
    if at > 0 and words[at - 1].text in "$€£¥" and words[at].start - words[at - 1].end <= 1:
        return words[at - 1].text, until
    if until < len(words):
        name = words[until].lower
        if name == "per" and until + 1 < len(words) and words[until + 1].lower == "cent":
            return "%", until + 2
        if name in UNITS:
            return UNITS[name], until + 1
    return "", until
