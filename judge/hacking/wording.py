"""What a side says over and over: shared phrases, how well its answers compress, how many of their words are new.

All of it is about a collection of answers, not about one. For large runs a sample of prompts is read, drawn by a digest
of their ids, so that the same run always reads the same.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from calibration.estimates import Estimate, difference, share
from calibration.wording import Odds, jackknife, log_odds

from .features import prose, words

__all__ = ["COMMON", "RUN", "SAMPLE", "Wording", "constant", "sampled", "wording"]

RUN = 5
"""Words in a phrase."""
COMMON = 0.05
"""A phrase is boilerplate where more than this share of a side's answers holds it (and at least ``_LEAST`` do)."""
SAMPLE = 2_000
_LEAST = 4
_COMPRESSED = 400
"""Pairs whose answers are compressed together."""
_NAMED = 12
_CONSTANT_SHARE, _CONSTANT_LEAST, _CONSTANT_CHARS = 0.02, 3, 20


@dataclass(frozen=True, slots=True)
class Wording:
    """One run's wording: each triple is candidate, baseline and difference (``None`` for too few answers).

    ``shared`` is the share of answers with a boilerplate phrase; ``compression`` bytes before over after (higher is
    more repetitive); ``distinct_1`` and ``distinct_2`` distinct words and word pairs over all, with the two answers of
    a pair cut to the same number of words. ``phrases`` are named by log-odds, the candidate's first; ``common`` the
    boilerplate phrases of the candidate with the number of its answers. ``holders`` are ids of answers that hold one.
    """

    n: int
    shared: tuple[Estimate, Estimate, Estimate] | None
    compression: tuple[Estimate, Estimate, Estimate] | None
    distinct_1: tuple[Estimate, Estimate, Estimate] | None
    distinct_2: tuple[Estimate, Estimate, Estimate] | None
    phrases: tuple[Odds, ...]
    common: tuple[tuple[str, int], ...]
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One pair as it is read here: id, prompt, both answers."""

    pair_id: str
    prompt_id: str
    prompt: str
    candidate: str
    baseline: str


def sampled(ids: Iterable[str], most: int = SAMPLE) -> set[str]:
    """At most ``most`` ids, those with the smallest digest."""
    return set(sorted(ids, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())[:most])


def wording(pairs: Sequence[Spoken]) -> Wording:
    """The wording of both sides."""
    held = [[_phrases(text, pair.prompt) for text in (pair.candidate, pair.baseline)] for pair in pairs]
    counts = [Counter(phrase for sides in held for phrase in sides[side]) for side in (0, 1)]
    least = max(_LEAST, int(COMMON * len(pairs)) + 1)
    common = [{phrase for phrase, count in of.items() if count >= least} for of in counts]
    hits = [[float(not common[side].isdisjoint(sides[side])) for sides in held] for side in (0, 1)]
    prompts = [pair.prompt_id for pair in pairs]
    ours, theirs = share(hits[0], clusters=prompts), share(hits[1], clusters=prompts)
    gap = difference(hits[0], hits[1], clusters=prompts, bounds=(-1.0, 1.0))
    named = log_odds(counts[0], counts[1], least=_LEAST)
    texts = pairs[:_COMPRESSED]
    return Wording(
        n=len(pairs),
        shared=None if ours is None or theirs is None or gap is None else (ours, theirs, gap),
        compression=_triple(lambda side, rows: _compression(texts, side, rows), len(texts)),
        distinct_1=_triple(lambda side, rows: _distinct(texts, side, rows, 1), len(texts)),
        distinct_2=_triple(lambda side, rows: _distinct(texts, side, rows, 2), len(texts)),
        phrases=_unlike(named),
        common=tuple(_longest(((phrase, counts[0][phrase]) for phrase in common[0]), _NAMED)),
        holders=tuple(pair.pair_id for pair, hit in zip(pairs, hits[0], strict=True) if hit),
    )


def constant(answers: Iterable[tuple[str, str]], prompts: int) -> dict[str, int]:
    """Answers that a side gives to many prompts, with how many: to 2% of all prompts, and at least 3.

    ``answers`` are (prompt id, ``digest`` of the answer); an empty digest, of an answer under 20 characters, is none:
    "Yes." may be right often.
    """
    seen: dict[str, set[str]] = {}
    for prompt, key in answers:
        if key:
            seen.setdefault(key, set()).add(prompt)
    least = max(_CONSTANT_LEAST, int(_CONSTANT_SHARE * prompts))
    return {key: len(of) for key, of in seen.items() if len(of) >= least}


def digest(text: str) -> str:
    """What an answer is called among answers, white space apart; empty for one of under 20 characters."""
    if len(" ".join(text.split())) < _CONSTANT_CHARS:
        return ""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _phrases(text: str, prompt: str) -> set[str]:
    """Runs of five words of an answer that do not stand in its request."""
    said, asked = words(prose(text)), " ".join(words(prompt))
    runs = {" ".join(said[k : k + RUN]) for k in range(len(said) - RUN + 1)}
    return {run for run in runs if run not in asked}


def _unlike(named: Sequence[Odds]) -> tuple[Odds, ...]:
    """The strongest phrases of both sides, of overlapping ones only the first."""
    ours = _apart(odds for odds in named if odds.score > 0)
    theirs = _apart(odds for odds in reversed(named) if odds.score < 0)
    return (*islice(ours, _NAMED), *islice(theirs, _NAMED // 2))


def _apart(named: Iterable[Odds]) -> list[Odds]:
    kept: list[Odds] = []
    for odds in named:
        of = set(odds.phrase.split())
        if all(len(of & set(other.phrase.split())) < RUN - 1 for other in kept):
            kept.append(odds)
        if len(kept) >= _NAMED:
            break
    return kept


def _longest(counts: Iterable[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    kept: list[tuple[str, int]] = []
    for phrase, count in sorted(counts, key=lambda entry: (-entry[1], entry[0])):
        of = set(phrase.split())
        if all(len(of & set(other.split())) < RUN - 1 for other, _ in kept):
            kept.append((phrase, count))
        if len(kept) >= most:
            break
    return kept


def _triple(statistic, n: int) -> tuple[Estimate, Estimate, Estimate] | None:  # type: ignore[no-untyped-def] # noqa: ANN001
    found = [
        jackknife(lambda rows: statistic(0, rows), n),
        jackknife(lambda rows: statistic(1, rows), n),
        jackknife(lambda rows: statistic(0, rows) - statistic(1, rows), n, method="paired "),
    ]
    if found[0] is None or found[1] is None or found[2] is None:
        return None
    return (found[0], found[1], found[2])


def _side(pair: Spoken, side: int) -> str:
    return pair.baseline if side else pair.candidate


def _compression(pairs: Sequence[Spoken], side: int, rows: Sequence[int]) -> float:
    """Bytes of all answers over their bytes in zlib (window of 32 KB, level 6)."""
    data = "\n".join(_side(pairs[row], side) for row in rows).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data)) if data else 1.0


def _distinct(pairs: Sequence[Spoken], side: int, rows: Sequence[int], size: int) -> float:
    """Distinct runs of ``size`` words over all, each pair's answers cut to the shorter one's words."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for row in rows:
        both = [words(text) for text in (pairs[row].candidate, pairs[row].baseline)]
        said = both[side][: min(map(len, both))]
        runs = [tuple(said[k : k + size]) for k in range(len(said) - size + 1)]
        seen.update(runs)
        total += len(runs)
    return len(seen) / total if total else 0.0
