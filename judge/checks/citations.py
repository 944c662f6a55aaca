"""Citations: what an answer quotes and points at has to be there.

A quoted span resolves where it stands in a supplied source, exactly or, after folding case, quotes, dashes and white
space, as a span that is at least ``closeness`` alike (Ratcliff and Obershelp's ratio, ``difflib``). A reference ``[3]``
or ``[source 3]`` resolves where there is a third source or a source of that name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import ClassVar
from urllib.parse import urlsplit

from ..types import Answer, Item, Span
from .check import Check, Observation, failed, passed

__all__ = ["Citations", "Links", "closest", "links_of"]

_QUOTE = re.compile(r"“([^”\n]{1,600})”|\"([^\"\n]{1,600})\"|«([^»\n]{1,600})»")
_REFERENCE = re.compile(
    r"\[(?:(?:source|doc|document|ref)[ :#]*)?(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\](?!\()", re.IGNORECASE
)
_NAMED = re.compile(r"\[(?:source|doc|document|ref)[ :#]+([\w.-]{1,80})\](?!\()", re.IGNORECASE)
_LINK = re.compile(r"(?:https?|ftp)://[^\s<>\"'`]+|\bwww\.[^\s<>\"'`]+", re.IGNORECASE)
_DOI = re.compile(r"(?:\bdoi:\s*|doi\.org/)(\S+)", re.IGNORECASE)
_GOOD_DOI = re.compile(r"10\.\d{4,9}/[^\s<>\"]+")
_LABEL = re.compile(r"[a-z0-9\u00a1-\uffff](?:[a-z0-9\u00a1-\uffff-]{0,61}[a-z0-9\u00a1-\uffff])?", re.IGNORECASE)
_FOLD = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "\u00a0": " "})
_TAIL = ".,;:!?*_"
_WINDOWS = 8


@dataclass(frozen=True)
class Citations(Check):
    """Every quoted span of at least ``least`` words and every reference resolves in the item's ``context``.

    ``closeness`` is the least similarity of a span that is not found exactly, ``wanted`` how many citations there must
    be at least. Metadata ``context_ids`` (a list, one name a source) lets references name sources. What stands in the
    prompt itself may be quoted, too. An item without sources is not concerned.
    """

    name: ClassVar[str] = "citations"
    layer: ClassVar[str] = "evidence"
    least: int = 4
    closeness: float = 0.9
    wanted: int = 0
    quotes: bool = True
    references: bool = True

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Resolve what is quoted and pointed at; the value is the number of citations."""
        if not item.context:
            return None
        spans: list[Span] = []
        count = 0
        if self.quotes:
            sources = tuple(_folded(text) for text in (*item.context, item.prompt))
            for found in _QUOTE.finditer(answer.text):
                quote = next(group for group in found.groups() if group is not None)
                if len(quote.split()) >= self.least:
                    count += 1
                    near = closest(quote, sources)
                    if near < self.closeness:
                        spans.append(Span(*found.span(), f"quoted, but in no source (closest {near:.2f})"))
        if self.references:
            for span, name, good in _references(answer.text, item):
                count += 1
                if not good:
                    spans.append(Span(*span, f"there is no source {name!r}"))
        if spans:
            return failed(f"{len(spans)} of {count} citations do not resolve: {spans[0].note}", *spans[:8],
                          value=float(count))  # fmt: skip
        if count < self.wanted:
            return failed(f"{count} citations, at least {self.wanted}", value=float(count))
        return passed(value=float(count))


def _references(text: str, item: Item) -> Iterator[tuple[tuple[int, int], str, bool]]:
    """Each reference: where, what it names, and whether there is such a source."""
    given = item.metadata.get("context_ids")
    names = (
        {str(name).lower() for name in given} if isinstance(given, Sequence) and not isinstance(given, str) else set()
    )
    for found in _REFERENCE.finditer(text):
        for number in re.findall(r"\d+", found[1]):
            yield found.span(), number, number in names or 1 <= int(number) <= len(item.context)
    for found in _NAMED.finditer(text):
        if not found[1].isdigit():
            yield found.span(), found[1], found[1].lower() in names


@lru_cache(maxsize=256)
def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_FOLD).casefold()
    return " ".join(plain.split())


def closest(quote: str, sources: Sequence[str]) -> float:
    """How alike a quote is to the most similar span of its own length in any (folded) source, 0 to 1."""
    wanted = _folded(quote).strip(" " + _TAIL + "\"'")
    # An ellipsis joins parts that each have to be there.
    parts = [part.strip(" " + _TAIL) for part in re.split(r"\.\.\.|…|\[\.\.\.\]", wanted)]
    return min((max((_alike(part, source) for source in sources), default=0.0) for part in parts if part), default=0.0)


def _alike(wanted: str, source: str) -> float:
    if wanted in source:
        return 1.0
    words, text = wanted.split(), source.split()
    if not text:
        return 0.0
    size = len(words)
    bag = set(words)
    hits = [word in bag for word in text]
    running = sum(hits[:size])
    scored = [(running, 0)]
    for start in range(1, max(1, len(text) - size + 1)):
        running += hits[min(start + size - 1, len(text) - 1)] - hits[start - 1]
        scored.append((running, start))
    scored.sort(key=lambda pair: -pair[0])
    best = 0.0
    for _count, start in scored[:_WINDOWS]:
        window = " ".join(text[max(0, start - 1) : start + size + 1])
        matcher = SequenceMatcher(None, wanted, window, autojunk=False)
        # Characters of the window beyond the quote's own length are not held against it.
        kept = sum(block.size for block in matcher.get_matching_blocks())
        best = max(best, kept / len(wanted))
    return best


@dataclass(frozen=True)
class Links(Check):
    """Every URL and DOI is well formed and, where ``corpus`` is given (or ``in_context``), is one of those.

    Compared without scheme, ``www.``, fragment and closing slash. Nothing is fetched: a well-formed link may be dead.
    """

    name: ClassVar[str] = "links"
    layer: ClassVar[str] = "evidence"
    corpus: tuple[str, ...] = ()
    in_context: bool = False

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Look at every link; the value is their number."""
        found = list(links_of(answer.text))
        known = {_bare(link) for link in self.corpus}
        if self.in_context:
            known |= {
                _bare(link) for source in (*item.context, item.prompt) for _span, link, _fault in links_of(source)
            }
        spans = []
        for span, link, fault in found:
            why = fault or (
                "not in the corpus" if (self.corpus or self.in_context) and _bare(link) not in known else ""
            )
            if why:
                spans.append(Span(*span, f"{link[:80]}: {why}"))
        if spans:
            return failed(f"{len(spans)} of {len(found)} links: {spans[0].note}", *spans[:8], value=float(len(found)))
        return passed(value=float(len(found)))


def links_of(text: str) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Each URL and DOI of a text: where, itself, and what is wrong with its form (empty where nothing is)."""
    taken: list[tuple[int, int]] = []
    for found in _DOI.finditer(text):
        doi = _trimmed(found[1])
        start = found.start(1)
        taken.append((found.start(), start + len(doi)))
        yield (start, start + len(doi)), doi, "" if _GOOD_DOI.fullmatch(doi) else "no well-formed DOI"
    for found in _LINK.finditer(text):
        link = _trimmed(found[0])
        if not any(start < found.start() + len(link) and found.start() < end for start, end in taken):
            yield (found.start(), found.start() + len(link)), link, _fault(link)


def _trimmed(link: str) -> str:
    """A link without the punctuation and the brackets that belong to the sentence around it."""
    while link:
        last = link[-1]
        opening = {")": "(", "]": "[", "}": "{"}.get(last)
        if last in _TAIL or (opening and link.count(last) > link.count(opening)):
            link = link[:-1]
        else:
            break
    return link


def _fault(link: str) -> str:
    try:
        parts = urlsplit(link if "://" in link else f"http://{link}")
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "no well-formed URL"
    if host.startswith("[") or ":" in host:
        return ""
    labels = host.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        return "no well-formed host"
    return "" if len(labels) > 1 or host == "localhost" else "the host has no domain"


def _bare(link: str) -> str:
    bare = re.sub(r"^(?:\w+://|doi:\s*)?(?:www\.|(?:dx\.)?doi\.org/)?", "", link.strip(), flags=re.IGNORECASE)
    return bare.split("#")[0].rstrip("/").casefold()
