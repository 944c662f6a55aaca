"""Whether training rows repeat what the candidate will be measured on: exactly, nearly, or as a part.

Texts are compared as words in lower case; punctuation and spacing do not count, system turns neither (a shared system
text would make everything alike). Three findings, the first that holds:

    exact      the same words
    near       Jaccard similarity of 3-word shingles at or above ``near`` (0.7). Found by MinHash (96 hashes, 24 bands
               of 4: Broder 1997; Leskovec et al., Mining of Massive Datasets, ch. 3) and then computed exactly, so
               nothing is reported that is not so; a pair at 0.7 is missed with probability 0.15%, at 0.8 with 0.0003%.
    contained  at least ``contained`` (0.8) of the reference's 8-word shingles stand in the row (references of eight
               words or more)

Everything is vectorised over blocks of rows: words are hashed by position-weighted sums over the bytes of a block, so a
million rows take about a minute of one core; memory holds the reference index and one block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .preferences import Said, said_text

__all__ = ["Clash", "References", "compared_text", "distinct"]

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_BLOCK = 4_096
_HASHES, _BANDS = 96, 24
_SHINGLE, _LONG = 3, 8
_FILTER = 1 << 24
"""Slots of the table that tells most shingles from those of the references at once."""


def _letters() -> npt.NDArray[np.bool_]:
    """Bytes that belong to a word: ASCII letters and digits, and all of UTF-8's other bytes."""
    table = np.zeros(256, dtype=bool)
    for low, high in ((48, 58), (65, 91), (97, 123), (128, 256)):
        table[low:high] = True
    return table


_WORD = _letters()
_SPOKEN_ALONE = np.zeros(256, dtype=bool)
_SPOKEN_ALONE[0xE3:0xEE] = True
"""First bytes of kana, CJK and Hangul: scripts without spaces; each such character is a word."""
_POWERS = np.cumprod(np.full(256, 0x9E3779B97F4A7C15, dtype=np.uint64), dtype=np.uint64)
_rng = np.random.default_rng(20_231_127)
_MULTIPLY = _rng.integers(1, 2**63, size=_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ADD = _rng.integers(0, 2**63, size=_HASHES, dtype=np.uint64)
_EMPTY = np.uint64(2**64 - 1)


@dataclass(frozen=True, slots=True)
class Clash:
    """A training row that repeats a reference: ids of both, where the reference stands, how, and how much (0 to 1)."""

    row: str
    reference: str
    where: str
    how: str
    similarity: float


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of a block of texts: hash and text number of each, and where each text's words begin."""

    hashes: U64
    starts: Ints
    counts: Ints


@dataclass(slots=True)
class References:
    """The texts that training data must not repeat; fill with ``add``, then ask with ``clashes``.

    ``near`` and ``contained`` are the similarities from which on a row is refused.
    """

    near: float = 0.7
    contained: float = 0.8
    names: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _index: Any = None

    def add(self, where: str, texts: Iterable[tuple[str, str]]) -> int:
        """Add texts by id, all of them from ``where``; blank ones are left out. Returns how many there were."""
        count = 0
        for name, text in texts:
            if text.strip():
                self.names.append(name)
                self.places.append(where)
                self._texts.append(text)
                count += 1
        self._index = None
        return count

    def __len__(self) -> int:
        return len(self.names)

    def clashes(self, rows: Iterable[tuple[str, str]]) -> Iterator[Clash]:
        """Stream the rows (id and text) that repeat a reference, at most one finding a row, the strongest."""
        if self._index is None:
            self._index = _Index.of(self._texts, self.near, self.contained)
        stream = iter(rows)
        while block := list(islice(stream, _BLOCK)):
            names = [name for name, _text in block]
            for row, reference, how, similarity in self._index.find([text for _name, text in block]):
                yield Clash(names[row], self.names[reference], self.places[reference], how, similarity)


def distinct(texts: Sequence[str], *, near: float = 0.7) -> list[int]:
    """Places of the texts that repeat no earlier one (same words, or near by ``near``); blank ones are left out."""
    kept: list[int] = []
    seen: set[int] = set()
    tables: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
    shingles: dict[int, set[int]] = {}
    for start in range(0, len(texts), _BLOCK):
        words = _words(texts[start : start + _BLOCK])
        whole, banded = _whole(words).tolist(), _banded(_signatures(words)).tolist()
        for row, bands in enumerate(banded):
            if not words.counts[row] or whole[row] in seen:
                continue
            seen.add(whole[row])
            place = start + row
            likely = {other for table, key in zip(tables, bands, strict=True) for other in table.get(key, ())}
            own = set(_shingles(_words([texts[place]]), _SHINGLE)[0].tolist())
            if any(len(own & shingles[other]) >= near * len(own | shingles[other]) for other in likely):
                continue
            kept.append(place)
            shingles[place] = own
            for table, key in zip(tables, bands, strict=True):
                table.setdefault(key, []).append(place)
    return kept


def compared_text(said: Said) -> str:
    """The part of a prompt that is compared: the user's turns, or all where there is none."""
    if isinstance(said, str):
        return said
    asked = tuple(turn for turn in said if turn.get("role") == "user")
    return said_text(asked or said)


@dataclass(slots=True)
class _Index:
    """What is looked up: whole texts, bands of signatures and long shingles of the references, each sorted."""

    near: float
    contained: float
    texts: Sequence[str]
    whole: tuple[U64, Ints]
    bands: list[tuple[U64, Ints]]
    long: tuple[U64, Ints]
    long_counts: Ints
    table: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, texts: Sequence[str], near: float, contained: float) -> _Index:
        whole, bands, long, owners, counts = [], [], [], [], []
        for start in range(0, len(texts), _BLOCK):
            words = _words(texts[start : start + _BLOCK])
            whole.append(_whole(words))
            bands.append(_banded(_signatures(words)))
            shingles, owner = _shingles(words, _LONG)
            pairs = np.unique(np.stack([shingles, owner.astype(np.uint64) + np.uint64(start)]), axis=1)
            long.append(pairs[0])
            owners.append(pairs[1].astype(np.int64))
            counts.append(np.bincount(owners[-1] - start, minlength=len(words.counts)))
        none = np.empty(0, dtype=np.uint64)
        table = np.zeros(_FILTER, dtype=bool)
        hashes = np.concatenate(long) if long else none
        table[(hashes & np.uint64(_FILTER - 1)).astype(np.int64)] = True
        banded = np.concatenate(bands) if bands else np.empty((0, _BANDS), dtype=np.uint64)
        return cls(
            near,
            contained,
            texts,
            _sorted(np.concatenate(whole) if whole else none),
            [_sorted(np.ascontiguousarray(banded[:, band])) for band in range(_BANDS)],
            _sorted(hashes, np.concatenate(owners) if owners else np.empty(0, dtype=np.int64)),
            np.concatenate(counts) if counts else np.empty(0, dtype=np.int64),
            table,
        )

    def find(self, texts: Sequence[str]) -> Iterator[tuple[int, int, str, float]]:
        """Row, reference, how and how much, for the rows of one block that repeat something; in order of rows."""
        words = _words(texts)
        found: dict[int, tuple[int, str, float]] = {}
        own = _whole(words)
        for row, reference in _matches(own, np.arange(len(texts)), self.whole):
            if words.counts[row]:
                found.setdefault(int(row), (int(reference), "exact", 1.0))
        for row, reference, similarity in self._near(words, texts, found):
            if row not in found or found[row][2] < similarity:
                found[row] = (reference, "near", similarity)
        for row, reference, share in self._contained(words):
            if row not in found:
                found[row] = (reference, "contained", share)
        for row in sorted(found):
            yield (row, *found[row])

    def _near(
        self, words: _Words, texts: Sequence[str], known: dict[int, tuple[int, str, float]]
    ) -> Iterator[tuple[int, int, float]]:
        banded = _banded(_signatures(words))
        rows = np.arange(len(texts))
        pairs = {
            (int(row), int(reference))
            for band in range(_BANDS)
            for row, reference in _matches(banded[:, band], rows, self.bands[band])
        }
        left: dict[int, set[int]] = {}
        for row, reference in sorted(pairs):
            if row in known:
                continue
            mine = left.setdefault(row, set(_shingles(_words([texts[row]]), _SHINGLE)[0].tolist()))
            theirs = set(_shingles(_words([self.texts[reference]]), _SHINGLE)[0].tolist())
            similarity = len(mine & theirs) / len(mine | theirs) if mine or theirs else 0.0
            if similarity >= self.near:
                yield row, reference, similarity

    def _contained(self, words: _Words) -> Iterator[tuple[int, int, float]]:
        shingles, owners = _shingles(words, _LONG)
        likely = self.table[(shingles & np.uint64(_FILTER - 1)).astype(np.int64)]
        shingles, owners = shingles[likely], owners[likely]
        if not len(shingles):
            return
        pairs = np.unique(np.stack([shingles, owners.astype(np.uint64)]), axis=1)
        hits = Counter(
            (int(row), int(reference)) for row, reference in _matches(pairs[0], pairs[1].astype(np.int64), self.long)
        )
        best: dict[int, tuple[float, int]] = {}
        for (row, reference), count in hits.items():
            share = count / int(self.long_counts[reference])
            if share >= self.contained and share > best.get(row, (0.0, 0))[0]:
                best[row] = (share, reference)
        yield from ((row, reference, share) for row, (share, reference) in best.items())


def _words(texts: Sequence[str]) -> _Words:
    """All words of a block as hashes: sum over the word of byte times power of its place, mixed."""
    data = np.frombuffer("\n".join(_flat(text) for text in texts).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    breaks = data == 10
    inside = _WORD[data]
    alone = _SPOKEN_ALONE[data]
    before = np.zeros(len(data), dtype=bool)
    before[1:] = inside[:-1]
    # A word begins where letters begin, at each character that stands alone, and after one.
    after = np.zeros(len(data), dtype=bool)
    after[3:] = alone[:-3]
    begins = np.flatnonzero(inside & (~before | alone | after))
    number = np.cumsum(breaks)
    counts = np.zeros(len(texts), dtype=np.int64)
    if not len(begins):
        return _Words(np.empty(0, dtype=np.uint64), counts, counts.copy())
    owner = number[begins]
    counts = np.bincount(owner, minlength=len(texts))
    lengths = np.diff(np.append(begins, len(data)))
    place = np.arange(len(data))
    place[begins[0] :] -= np.repeat(begins, lengths)
    weighted = np.where(inside, data, 0).astype(np.uint64) * _POWERS[place & 255]
    hashes = _mixed(np.add.reduceat(weighted, begins))
    return _Words(hashes, np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)


def _flat(text: str) -> str:
    """The text in lower case on one line."""
    return text.lower().replace("\n", " ")


def _mixed(values: U64) -> U64:
    """SplitMix64's finaliser: near hashes become far ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _whole(words: _Words) -> U64:
    """One hash a text, of its words in order."""
    if not len(words.hashes):
        return np.zeros(len(words.counts), dtype=np.uint64)
    place = np.arange(len(words.hashes)) - np.repeat(words.starts, words.counts)
    weighted = _mixed(words.hashes + (place.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    total = sums[words.starts + words.counts] - sums[words.starts]
    return _mixed(total + words.counts.astype(np.uint64))


def _shingles(words: _Words, size: int) -> tuple[U64, Ints]:
    """Hashes of all runs of ``size`` words within a text, and the text of each; a shorter text is one short run.

    For ``size`` 8 short texts give none.
    """
    n = len(words.hashes)
    owner = np.repeat(np.arange(len(words.counts)), words.counts)
    if n == 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    padded = np.concatenate([words.hashes, np.zeros(size, dtype=np.uint64)])
    ends = np.repeat(words.starts + words.counts, words.counts)
    index = np.arange(n)
    total = np.zeros(n, dtype=np.uint64)
    for step in range(size):
        part = (
            padded[step : step + n]
            if step == 0
            else np.where(index + step < ends, padded[step : step + n], np.uint64(0))
        )
        total = total * np.uint64(0x9E3779B97F4A7C15) + part
    whole = index + size <= ends
    if size < _LONG:
        # A text of fewer words counts as one shingle of what it has.
        whole |= (index == np.repeat(words.starts, words.counts)) & (np.repeat(words.counts, words.counts) < size)
    return _mixed(total[whole]), owner[whole]


def _signatures(words: _Words) -> U64:
    """MinHash of each text: the smallest of its shingles under 96 hashes; all ones for a text without words."""
    shingles, owner = _shingles(words, _SHINGLE)
    signature = np.full((len(words.counts), _HASHES), _EMPTY, dtype=np.uint64)
    if not len(shingles):
        return signature
    counts = np.bincount(owner, minlength=len(words.counts))
    held = counts > 0
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[held]
    for place in range(_HASHES):
        hashed = shingles * _MULTIPLY[place] + _ADD[place]
        signature[held, place] = np.minimum.reduceat(hashed, starts)
    return signature


def _banded(signatures: U64) -> U64:
    """One hash for each band of a signature; a text without words matches nothing (its bands are drawn apart)."""
    rows = _HASHES // _BANDS
    total = np.zeros((len(signatures), _BANDS), dtype=np.uint64)
    for place in range(rows):
        total = total * np.uint64(0x9E3779B97F4A7C15) + _mixed(signatures[:, place::rows])
    return _mixed(total)


def _sorted(hashes: U64, owners: Ints | None = None) -> tuple[U64, Ints]:
    order = np.argsort(hashes, kind="stable")
    return hashes[order], order if owners is None else owners[order]


def _matches(hashes: U64, owners: Ints, index: tuple[U64, Ints]) -> Iterator[tuple[Any, Any]]:
    """Pairs of a row and a reference whose hashes are equal."""
    keys, references = index
    if not len(keys):
        return
    low = np.searchsorted(keys, hashes, side="left")
    hit = np.flatnonzero((low < len(keys)) & (keys[np.minimum(low, len(keys) - 1)] == hashes))
    for at in hit:
        place = int(low[at])
        while place < len(keys) and keys[place] == hashes[at]:
            yield owners[at], references[place]
            place += 1
