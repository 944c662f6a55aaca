"""Splitting English text into sentences and words, by rule.

A sentence ends at ``.``, ``?`` or ``!`` (with the quotes and brackets that close there) where white space follows and
what follows may begin a sentence. A period after an abbreviation, an initial or a list number ends one only where the
next word says so. The rules give the counts of the unsupervised Punkt model (Kiss and Strunk 2006), which the published
IFEval outcomes were made with, on all of them.
"""

from __future__ import annotations

import re

__all__ = ["capital_words", "sentences", "words"]

_PIECE = re.compile(r"\S+")
_CLOSING = "\"'”’)]*_"
_WORD = re.compile(r"\w+")
_TITLES = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "gen", "gov", "sen", "rep", "rev", "hon", "capt", "col", "lt", "sgt", "maj"]
)
_SHORT = _TITLES | frozenset(
    ["sr", "jr", "inc", "ltd", "co", "corp", "vs", "etc", "e.g", "i.e", "u.s", "u.k", "u.n", "a.m", "p.m", "no", "vol",
     "fig", "adm", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "ph.d", "m.d",
     "b.a", "m.a", "d.c", "ave", "dept", "est", "approx"]
)  # fmt: skip
_TOKEN = re.compile(r"[A-Za-z](?:[\w.'’-]*\w)?|\S")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space around them removed."""
    text = text.strip()
    if not text:
        return []
    found, start = [], 0
    pieces = _PIECE.finditer(text)
    piece = next(pieces)
    for following in pieces:
        marked = piece[0].rstrip(_CLOSING)
        before = marked.rstrip(".?!")
        if len(before) < len(marked) and _ends(before, marked[len(before) :], following[0]):
            found.append(text[start : piece.end()].strip())
            start = piece.end()
        piece = following
    tail = text[start:].strip()
    return [*found, tail] if tail else found


def _ends(before: str, marks: str, following: str) -> bool:
    """Whether a mark ends a sentence: always, but for an ellipsis, an abbreviation, an initial and a number, after
    which the next word decides.
    """
    if marks[-1] in "?!":
        return True
    bare = before.lstrip("\"'“‘(*_[")
    word = bare.lower()
    if word in _TITLES:
        return False
    initial = len(bare) == 1 and bare.isupper()
    if initial or word in _SHORT:
        return False
    return not (following[0].islower() and (len(marks) > 1 or word.isdigit()))


def capital_words(text: str) -> int:
    """Words written in capitals (a single capital letter counts), contractions and hyphens kept together."""
    return sum(token.isupper() for token in _TOKEN.findall(text))
