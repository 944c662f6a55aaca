"""What in a claim the documents say otherwise, or do not say: numbers, dates, units, names, negations, opposites.

Rules, not a model: each names the words it is about on both sides, so that a person can check it at a glance. They see
what stands in words and nothing else; how often each is right is measured in docs/grounding.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .documents import LIKE, Documents, Fit, Place
from .lexicon import DAYS, NEGATORS, OPPOSITES, QUANTIFIERS, SMALL, WEAK_OPPOSITES
from .words import Number, Token, numbers

__all__ = ["KINDS", "Contradiction", "Kind", "contradictions"]

Kind = Literal["number", "date", "unit", "noun", "name", "negation", "opposite", "quantifier"]
KINDS: dict[Kind, str] = {
    "number": "a number that stands in no document",
    "date": "a year or day that stands in no document, or a month with another day",
    "unit": "a number that the documents give in another unit",
    "noun": "a number that the best evidence gives to something else, and another number for this",
    "name": "a name that stands in no document",
    "negation": "said where the best evidence denies it, or denied where it says it",
    "opposite": "a word where the best evidence has its opposite",
    "quantifier": "all, some, most or none where the best evidence has another",
}
"""Each kind of contradiction and what it means."""

_NEAR = 0.6
"""Share of a claim's weight that the best evidence must hold before its negations and opposites are compared."""
_DATES = frozenset({"year", "month"})
_NOT_NEGATED = frozenset({"only", "just", "least", "until", "unless", "doubt", "matter", "wonder"})
_TITLES = frozenset(
    {
        "i",
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "sir",
        "ok",
        "ceo",
        "cfo",
        "cto",
        "vp",
        "faq",
        "pdf",
        "url",
        "tv",
        "pc",
        "id",
    }
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One thing a claim says that the documents do not: its ``kind``, its characters in the answer, the words said
    there, and what the documents have instead, with its place where there is one.
    """

    kind: Kind
    start: int
    end: int
    said: str
    instead: str = ""
    place: Place | None = None

    def __str__(self) -> str:
        found = f"; the documents have {self.instead!r}" if self.instead else ""
        return f"{self.kind}: {self.said!r}, {KINDS[self.kind]}{found}"


def contradictions(text: str, claim: Sequence[Token], documents: Documents, fit: Fit) -> tuple[Contradiction, ...]:
    """Everything the rules find in one claim, in the order of its words; each word is in one of them at most.

    ``text`` is what the words of ``claim`` stand in.
    """
    if not len(documents):
        return ()
    window = _Window(documents, fit)
    found: list[Contradiction] = []
    taken: set[int] = set()
    for one in (
        *_numbers(claim, documents, window),
        *_names(text, claim, documents),
        *_negations(claim, window, fit),
        *_opposites(claim, window, fit),
    ):
        if not taken & set(range(one.start, one.end)):
            taken |= set(range(one.start, one.end))
            found.append(one)
    return tuple(sorted(found, key=lambda one: (one.start, one.end)))


class _Window:
    """The best evidence of a claim as words and numbers."""

    def __init__(self, documents: Documents, fit: Fit) -> None:
        self.documents = documents
        self.sentences = range(fit.first, fit.last + 1) if fit.first >= 0 else range(0)
        self.words: list[Token] = []
        self.numbers: list[Number] = []
        self.begin = documents.words_of(fit.first)[0] if self.sentences else 0
        if self.sentences:
            self.words = documents.words[self.begin : documents.words_of(fit.last)[1]]
            self.numbers = [number for k in self.sentences for number in documents.numbers_of(k)]
        self.stems = [word.stem for word in self.words]

    def place(self, start: int, end: int) -> Place | None:
        """A stretch of the window's characters, as a place."""
        return Place(self.documents.sentences[self.sentences[0]].document, start, end) if self.sentences else None

    def where(self, word: str) -> list[int]:
        """Where a stem stands in the window."""
        return [k for k, other in enumerate(self.stems) if other == word]


def _same(a: Number, b: Number) -> bool:
    """Whether two numbers may be one, by their value or another reading of it."""
    return bool({a.value, *a.others} & {b.value, *b.others})


def _numbers(claim: Sequence[Token], documents: Documents, window: _Window) -> Iterator[Contradiction]:
    said = numbers(list(claim))
    for k, number in enumerate(said):
        if number.kind == "ordinal":
            continue
        equal = documents.equal_numbers(number)
        if not equal and len(documents.positions(claim[number.at].stem)) and claim[number.at].is_number:
            continue  # it stands there as part of a version, a score or a code
        text = _text(claim, number)
        if not equal:
            if number.kind == "month" and not documents.months:
                continue
            instead = _rival(claim, number, window)
            if instead is None and claim[number.at].lower in SMALL and number.value <= 12:
                continue  # "two of them", "four-legged": counted by the writer, or no count at all
            yield Contradiction(
                "date" if number.kind in _DATES or _beside_month(said, k) else "number",
                number.start,
                number.end,
                text,
                *(_shown(instead, window) if instead is not None else ("", None)),
            )
            continue
        if number.kind == "month":
            yield from _day(claim, number, said[k - 1 : k] + said[k + 1 : k + 2], documents)
            continue
        units = {other.unit for other in equal}
        if number.unit and number.unit not in units and "" not in units:
            other = equal[0]
            words = " ".join(word.text for word in documents.words[other.at : other.until])
            place = Place(documents.sentences[documents.sentence_at(other.at)].document, other.start, other.end)
            yield Contradiction("unit", number.start, number.end, text, f"{words} ({other.unit})", place)
            continue
        if not _beside_month(said, k):
            yield from _noun(claim, number, equal, window)


def _beside_month(said: Sequence[Number], k: int) -> bool:
    """Whether a number is the day of the month next to it."""
    number = said[k]
    return 1 <= number.value <= 31 and any(
        other.kind == "month" and (other.until == number.at or number.until == other.at)
        for other in (*said[max(0, k - 1) : k], *said[k + 1 : k + 2])
    )


def _text(claim: Sequence[Token], number: Number) -> str:
    return " ".join(word.text for word in claim[number.at : number.until])


def _shown(number: Number, window: _Window) -> tuple[str, Place | None]:
    words = window.documents.words[number.at : number.until]
    return " ".join(word.text for word in words), window.place(number.start, number.end)


def _things(words: Sequence[Token], number: Number) -> list[str]:
    """What a number counts: its unit's noun, else the next two words that say something."""
    found = [word.stem for word in words[number.until : number.until + 3] if word.content and not word.is_number]
    return found[:2]


def _rival(claim: Sequence[Token], number: Number, window: _Window) -> Number | None:
    """The number that the best evidence has in this place: of the same thing or unit, else the only one of its kind."""
    things = set(_things(claim, number))
    same_kind = [other for other in window.numbers if other.kind == number.kind and not _same(number, other)]
    for other in same_kind:
        if things & set(_things(window.documents.words, other)) or (number.unit and number.unit == other.unit):
            return other
    small = claim[number.at].lower in SMALL and number.value <= 12
    return same_kind[0] if len(same_kind) == 1 and not small else None


def _day(
    claim: Sequence[Token], month: Number, beside: Sequence[Number], documents: Documents
) -> Iterator[Contradiction]:
    """A month that the documents have with other days only."""
    days = [
        other
        for other in beside
        if other.kind == "number" and 1 <= other.value <= 31 and (month.until == other.at or other.until == month.at)
    ]
    if not days:
        return
    spans = {}
    for k in documents.months:
        other = documents.numbers[k]
        if other.value == month.value:
            if any(_same(days[0], day) for day in documents.numbers_of(documents.sentence_at(other.at))):
                return
            near = documents.numbers[max(0, k - 1) : k] + documents.numbers[k + 1 : k + 2]
            for day in near:
                if 1 <= day.value <= 31 and min(abs(day.at - other.until), abs(other.at - day.until)) <= 1:
                    spans[day.value] = (min(day.start, other.start), max(day.end, other.end), other)
    if spans:
        start, end, other = next(iter(spans.values()))
        document = documents.sentences[documents.sentence_at(other.at)].document
        first, last = min(month.start, days[0].start), max(month.end, days[0].end)
        said = " ".join(word.text for word in claim if first <= word.start < last)
        yield Contradiction(
            "date", first, last, said, documents.texts[document][start:end], Place(document, start, end)
        )


def _noun(claim: Sequence[Token], number: Number, equal: Sequence[Number], window: _Window) -> Iterator[Contradiction]:
    """The number is there, but never before what it is said to count, and that has another number."""
    things = set(_things(claim, number)[:1])
    if not things or number.kind != "number" or number.unit or len(equal) >= LIKE:
        return
    documents = window.documents
    for other in equal:
        if things & set(_things(documents.words, other)):
            return
    for other in window.numbers:
        if other.kind == "number" and not other.unit and things & set(_things(documents.words, other)[:1]):
            words, place = _shown(other, window)
            thing = next(name for name in _things(documents.words, other) if name in things)
            full = next(
                (word.text for word in documents.words[other.until : other.until + 3] if word.stem == thing), thing
            )
            yield Contradiction("noun", number.start, number.end, _text(claim, number), f"{words} {full}", place)
            return


def _names(text: str, claim: Sequence[Token], documents: Documents) -> Iterator[Contradiction]:
    """Capitalised words amid a sentence that no document has, in any case or form; a title in capitals has no names."""
    words = [word for word in claim if word.content and not word.is_number]
    capital = [word for word in words if word.text[0].isupper()]
    if len(words) > 3 and len(capital) > 0.85 * len(words):
        return
    for k, word in enumerate(claim):
        if k == 0 or word not in capital or word.lower in _TITLES or len(word.text) < 2:
            continue
        if _begins(text, word.start):
            continue
        if len(documents.positions(word.stem)) or documents.has_kin(word.stem):
            continue
        if numbers([word]):
            continue
        yield Contradiction("date" if word.lower in DAYS else "name", word.start, word.end, word.text)


def _begins(text: str, at: int) -> bool:
    """Whether a word follows an opening: a quotation mark, a colon, a bracket, the end of a sentence."""
    before = at - 1
    while before > at - 4 and before >= 0 and text[before].isspace():
        before -= 1
    return before < 0 or text[before] in "\"'“”‘’«»:;([{<.!?…–—*_#|\n"


def _negated(words: Sequence[Token]) -> dict[str, list[bool]]:
    """Each content stem with whether it stands right after a negation (is the first content word within five), for each
    time it stands there.
    """
    found: dict[str, list[bool]] = {}
    reach = 0
    for k, word in enumerate(words):
        if word.stem in NEGATORS and word.stem != "nor":
            after = words[k + 1].lower if k + 1 < len(words) else ""
            reach = 0 if after in _NOT_NEGATED else 5
            continue
        reach -= 1
        if word.content:
            found.setdefault(word.stem, []).append(reach > 0)
            reach = 0
    return found


def _weight_within(fit: Fit, *, without: int = -1) -> float:
    """Share of a claim's weight that its best evidence holds, one word left out where asked."""
    total = held = 0.0
    for k, (weight, within) in enumerate(zip(fit.weights.tolist(), fit.within.tolist(), strict=True)):
        if k != without:
            total += weight
            held += weight * within
    return held / total if total else 0.0


def _negations(claim: Sequence[Token], window: _Window, fit: Fit) -> Iterator[Contradiction]:
    if _weight_within(fit) < _NEAR:
        return
    mine, theirs = _negated(claim), _negated(window.words)
    deny_mine, deny_theirs = (any(any(times) for times in side.values()) for side in (mine, theirs))
    if deny_mine == deny_theirs:
        return
    denying = mine if deny_mine else theirs
    for k, word in enumerate(claim):
        if word.stem in mine and word.stem in theirs and all(denying[word.stem]):
            at = window.where(word.stem)[0]
            start, end = _with_negation(claim, k) if deny_mine else (word.start, word.end)
            begin, until = (
                (window.words[at].start, window.words[at].end) if deny_mine else _with_negation(window.words, at)
            )
            place = window.place(begin, until)
            assert place is not None
            said = " ".join(other.text for other in claim if start <= other.start < end)
            yield Contradiction("negation", start, end, said, window.documents.text_of(place), place)
            return


def _with_negation(words: Sequence[Token], at: int) -> tuple[int, int]:
    """Characters of a word with the negation before it."""
    first = next((k for k in range(at - 1, max(at - 6, -1), -1) if words[k].stem in NEGATORS), at)
    return words[first].start, words[at].end


def _opposites(claim: Sequence[Token], window: _Window, fit: Fit) -> Iterator[Contradiction]:
    mine = {word.stem for word in claim}
    negated = _negated(window.words)
    for k, word in enumerate(claim):
        kind = QUANTIFIERS.get(word.lower)
        if kind is not None:
            yield from _quantifier(claim, k, kind, window, fit)
        rivals = OPPOSITES.get(word.stem, frozenset()) - mine
        if not rivals or word.stem in window.stems or _weight_within(fit, without=k) < _NEAR:
            continue
        for at, other in enumerate(window.words):
            if other.stem in rivals and not any(negated.get(other.stem, ())) and _same_company(claim, k, window, at):
                place = window.place(other.start, other.end)
                yield Contradiction("opposite", word.start, word.end, word.text, other.text, place)
                break


def _same_company(claim: Sequence[Token], k: int, window: _Window, at: int) -> bool:
    """Whether two opposites stand among the same words; for those with other meanings, between the same words."""
    if claim[k].lower in WEAK_OPPOSITES:
        before = k > 0 and at > 0 and claim[k - 1].stem == window.stems[at - 1]
        after = k + 1 < len(claim) and at + 1 < len(window.stems) and claim[k + 1].stem == window.stems[at + 1]
        return before and after
    mine = {word.stem for word in claim[max(0, k - 4) : k + 5] if word.content} - {claim[k].stem}
    theirs = {word.stem for word in window.words[max(0, at - 4) : at + 5] if word.content}
    return len(mine & theirs) >= min(2, len(mine))


def _quantifier(claim: Sequence[Token], k: int, kind: str, window: _Window, fit: Fit) -> Iterator[Contradiction]:
    """The same noun under another quantifier."""
    noun = next((word.stem for word in claim[k + 1 : k + 4] if word.content), None)
    if noun is None or _weight_within(fit) < _NEAR:
        return
    found = []
    for at, word in enumerate(window.words):
        other = QUANTIFIERS.get(word.lower)
        if other is not None and noun == next((w.stem for w in window.words[at + 1 : at + 4] if w.content), None):
            found.append((other, word))
    if found and kind not in {other for other, _word in found}:
        word = found[0][1]
        yield Contradiction(
            "quantifier", claim[k].start, claim[k].end, claim[k].text, word.text, window.place(word.start, word.end)
        )
