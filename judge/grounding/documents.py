"""The supplied documents, indexed once: where each word stands, how rare it is, and how well a claim fits any place.

Every question about a claim is answered from the places of its own words, so the time grows with the claim and with how
often its words occur, not with the document squared.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .lexicon import FUNCTION_WORDS
from .words import Number, Token, folded, language_problem, numbers, sentences, tokens

__all__ = ["Documents", "Fit", "Fragment", "Place"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LIKE = 100
"""Numbers of one value that are looked at; a value that stands there more often says nothing of where it belongs."""
_SEPARATOR = -1
_PRESENT_AT_MOST = 4_000_000
"""Cells of the table words x sentences that is held for one claim; beyond it only the rarest words are looked up."""


@dataclass(frozen=True, slots=True)
class Place:
    """Characters ``start`` to ``end`` of document number ``document``."""

    document: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Words ``at`` to ``at + length`` of a claim that stand in the documents just so, from word ``position`` on."""

    at: int
    length: int
    position: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a claim's words fit the documents: one weight and one found-or-not a word, and the best window.

    ``weights`` are the rarity of each word (0 for function words). ``anywhere`` says which words stand in any document,
    ``within`` which stand in the best window, the one or two neighbouring sentences that hold most of the claim's
    weight. ``first`` and ``last`` are that window's sentences (-1 where no word of the claim was found).
    """

    weights: Floats
    anywhere: npt.NDArray[np.bool_]
    within: npt.NDArray[np.bool_]
    first: int
    last: int


class Documents:
    """An index over the texts that a claim must be supported by. Raises nothing: texts without a word index to empty.

    >>> documents = Documents(["The bridge opened in 1932. It is 503 metres long."])
    >>> documents.evidence(documents.fit(tokens("The bridge is 503 metres long"))).start
    0
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        self.problem = next(filter(None, map(language_problem, self.texts)), "") if texts else ""
        self.words: list[Token] = []
        self.sentences: list[Place] = []
        self._vocabulary: dict[str, int] = {}
        ids: list[int] = []
        places: list[int] = []
        self._bounds: list[tuple[int, int]] = []
        self._sorted: list[str] | None = None
        for number, text in enumerate(self.texts):
            even = folded(text)
            for sentence in sentences(even):
                found = tokens(even, sentence.start, sentence.end)
                if not found:
                    continue
                self._bounds.append((len(self.words), len(self.words) + len(found)))
                places += [len(self.sentences)] * len(found)
                ids += [self._vocabulary.setdefault(word.stem, len(self._vocabulary)) for word in found]
                self.words += found
                self.sentences.append(Place(number, sentence.start, sentence.end))
            # A word that no text holds, so that nothing runs over from one document into the next.
            self.words.append(Token("\n", len(text), len(text), "\n"))
            ids.append(_SEPARATOR)
            places.append(max(len(self.sentences) - 1, 0))
        self._ids: Ints = np.asarray(ids, dtype=np.int64)
        self._sentence_of: Ints = np.asarray(places, dtype=np.int64)
        self._order: Ints = np.argsort(self._ids, kind="stable")
        self._starts: Ints = np.searchsorted(self._ids[self._order], np.arange(len(self._vocabulary) + 1))
        self._runs: Ints = np.zeros(len(ids) + 1, dtype=np.int64)
        spread = np.zeros(len(self._vocabulary))
        if len(self.sentences):
            pairs = np.unique(self._ids * len(self.sentences) + self._sentence_of)
            pairs = pairs[pairs >= 0] // len(self.sentences)
            spread = np.bincount(pairs, minlength=len(self._vocabulary)).astype(float)
        self._rarity: Floats = np.log1p(len(self.sentences) / (0.5 + spread))
        self._unseen = float(np.log1p(len(self.sentences) / 0.5))
        self.numbers: list[Number] = numbers(self.words)
        self.months = [k for k, number_said in enumerate(self.numbers) if number_said.kind == "month"]
        self._by_sentence: dict[int, list[Number]] = {}
        self._by_value: dict[float, list[Number]] = {}
        for number_said in self.numbers:
            self._by_sentence.setdefault(int(self._sentence_of[number_said.at]), []).append(number_said)
            for value in (number_said.value, *number_said.others):
                self._by_value.setdefault(value, []).append(number_said)
        self._values: Floats = np.sort(np.array(list(self._by_value), dtype=np.float64))
        self._neighbours = np.array(
            [a.document == b.document for a, b in zip(self.sentences, self.sentences[1:], strict=False)], dtype=bool
        )

    def __len__(self) -> int:
        """Words in all documents."""
        return len(self.words) - len(self.texts)

    def positions(self, stem: str) -> Ints:
        """Where a word stands, as numbers of words; empty where it does not."""
        known = self._vocabulary.get(stem)
        if known is None:
            return self._order[:0]
        return self._order[self._starts[known] : self._starts[known + 1]]

    def has_kin(self, word: str) -> bool:
        """Whether some word of the documents begins like this one (``british`` and ``britain`` share ``brit``): the
        first five letters, or all but the last two of a shorter word.
        """
        if self._sorted is None:
            self._sorted = sorted(self._vocabulary)
        head = word[: max(4, min(5, len(word) - 3))]
        if len(word) < 5:
            return False
        at = bisect_left(self._sorted, head)
        return at < len(self._sorted) and self._sorted[at].startswith(head)

    def sentence_at(self, position: int) -> int:
        """Number of the sentence that holds a word."""
        return int(self._sentence_of[position])

    def words_of(self, sentence: int) -> tuple[int, int]:
        """First word of a sentence and the word after its last."""
        return self._bounds[sentence]

    def numbers_of(self, sentence: int) -> list[Number]:
        """The numbers said in a sentence."""
        return self._by_sentence.get(sentence, [])

    def equal_numbers(self, number: Number) -> list[Number]:
        """The numbers that are this one, exactly or as it rounds them (``1.2 million`` for 1,204,331), the exact ones
        first; no more than ``LIKE`` of them.
        """
        found: list[Number] = []
        for value in (number.value, *number.others):
            found += self._by_value.get(value, [])[:LIKE]
        for value in (number.value, *number.others):
            if found or number.digits >= 6 or number.kind == "year" or not 10 <= abs(value) < 1e300:
                continue
            begin, end = np.searchsorted(self._values, (value * 0.94, value * 1.06))
            for near in self._values[begin:end].tolist():
                if float(f"{near:.{number.digits}g}") == value:
                    found += self._by_value[near][:LIKE]
                if len(found) >= LIKE:
                    break
        return found[:LIKE]

    def place(self, first: int, last: int) -> Place:
        """The stretch from one sentence to another of the same document."""
        return Place(self.sentences[first].document, self.sentences[first].start, self.sentences[last].end)

    def text_of(self, place: Place) -> str:
        """The text of a place."""
        return self.texts[place.document][place.start : place.end]

    def evidence(self, fit: Fit) -> Place | None:
        """The place that supports a claim best, or ``None`` where none of its words was found."""
        return None if fit.first < 0 else self.place(fit.first, fit.last)

    def rarity(self, stem: str) -> float:
        """ln(1 + sentences / (0.5 + sentences that hold the word)); 0 for function words."""
        if stem in FUNCTION_WORDS:
            return 0.0
        known = self._vocabulary.get(stem)
        return self._unseen if known is None else float(self._rarity[known])

    def fit(self, claim: Sequence[Token]) -> Fit:
        """How the words of a claim fit the documents."""
        weights = np.array([self.rarity(word.stem) if word.content else 0.0 for word in claim])
        count = len(self.sentences)
        stems = list(dict.fromkeys(word.stem for word in claim if word.content))
        if not stems or not count:
            nothing = np.zeros(len(claim), dtype=bool)
            return Fit(weights, nothing, nothing, -1, -1)
        looked_up = stems
        if len(stems) * count > _PRESENT_AT_MOST:
            looked_up = sorted(stems, key=self.rarity, reverse=True)[: max(1, _PRESENT_AT_MOST // count)]
        row = {stem: k for k, stem in enumerate(looked_up)}
        present = np.zeros((len(looked_up), count), dtype=bool)
        for stem, k in row.items():
            present[k, self._sentence_of[self.positions(stem)]] = True
        weight = np.array([self.rarity(stem) for stem in looked_up])
        single = weight @ present
        best, first, last = float(single.max()), int(single.argmax()), int(single.argmax())
        if count > 1:
            double = np.where(self._neighbours, weight @ (present[:, :-1] | present[:, 1:]), 0.0)
            k = int(double.argmax())
            # A second sentence has to bring something: a word of middling rarity, not a mere "also".
            if float(double[k]) > best * 1.1 + 1e-9:
                first, last = k, k + 1
        inside = present[:, first] | present[:, last]
        anywhere = np.array([len(self.positions(word.stem)) > 0 for word in claim])
        within = np.array([word.stem in row and bool(inside[row[word.stem]]) for word in claim])
        if best <= 0:
            first = last = -1
        return Fit(weights, anywhere, within, first, last)

    def fragments(self, claim: Sequence[Token], *, near: int = -1) -> list[Fragment]:
        """The claim as the longest stretches that stand word by word in the documents, from the left.

        The extractive fragments of Grusky, Naaman and Artzi 2018 (arXiv 1804.11283). Of equally long stretches the one
        nearest to sentence ``near`` is taken. Costs the number of places at which the claim's words stand.
        """
        count = len(claim)
        longest = [0] * count
        places = [0] * count
        runs = self._runs
        before: Ints = self._order[:0]
        for k in range(count - 1, -1, -1):
            here = self.positions(claim[k].stem)
            lengths = runs[here + 1] + 1 if len(here) else here
            runs[before] = 0
            runs[here] = lengths
            before = here
            if len(here):
                longest[k] = int(lengths.max())
                tops = here[lengths == longest[k]]
                places[k] = int(tops[np.abs(self._sentence_of[tops] - near).argmin()]) if near >= 0 else int(tops[0])
        runs[before] = 0
        found, at = [], 0
        while at < count:
            if longest[at]:
                found.append(Fragment(at, longest[at], places[at]))
            at += max(longest[at], 1)
        return found

    def in_order(self, claim: Sequence[Token], first: int, last: int) -> int:
        """Length of the longest common subsequence of a claim and the sentences ``first`` to ``last`` (ROUGE-L).

        Bit-parallel (Hyyrö 2004): one machine operation a word of the claim.
        """
        masks: dict[str, int] = {}
        begin, end = self.words_of(first)[0], self.words_of(last)[1]
        for k in range(begin, end):
            stem = self.words[k].stem
            masks[stem] = masks.get(stem, 0) | 1 << (k - begin)
        full = (1 << (end - begin)) - 1
        state = full
        for word in claim:
            match = masks.get(word.stem, 0)
            shared = state & match
            state = ((state + shared) | (state - shared)) & full
        return (end - begin) - state.bit_count()
