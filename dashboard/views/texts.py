"""Texts of models as blocks that a page can only show, never run: CommonMark without HTML, links and images, or raw.

A block is ``{"tag": ..., "runs": [[text, kind, note], ...]}``. ``tag`` is one of a fixed list that the page turns into
elements whose text is set as text; ``kind`` is ``""``, ``b``, ``i``, ``code`` or ``mark``. A link shows its address as
text and an image its description: nothing in an answer can fetch, style or link anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from judge.render.words import safe
from judge.types import Span

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["CAP", "Block", "capped", "raw", "rendered"]

Block = dict[str, Any]
CAP = 20_000
"""Characters of one answer that are shown at first: the browser lays 300,000 out for seconds."""
_HEADINGS = {"h1": "h4", "h2": "h5", "h3": "h6", "h4": "h6", "h5": "h6", "h6": "h6"}


def capped(text: str, *, whole: bool = False) -> tuple[str, int]:
    """The text that is shown, and how many characters are not."""
    if whole or len(text) <= CAP:
        return text, 0
    return text[:CAP], len(text) - CAP


def raw(text: str, spans: Sequence[Span] = ()) -> list[Block]:
    """The text as it is, with spans marked; invisible and control characters become visible."""
    runs, at = [], 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        start, end = max(at, span.start), min(len(text), span.end)
        if start >= end:
            continue
        runs += [[safe(text[at:start]), "", ""], [safe(text[start:end]), "mark", span.note]]
        at = end
    runs.append([safe(text[at:]), "", ""])
    return [{"tag": "pre", "runs": [run for run in runs if run[0]]}]


def rendered(text: str) -> list[Block]:
    """The text as CommonMark with tables, without HTML, links and images."""
    from markdown_it import MarkdownIt

    parser = (
        MarkdownIt("commonmark", {"html": False})
        .enable(["table", "strikethrough"])
        .disable(["image", "html_block", "html_inline"])
    )
    return list(_blocks(parser.parse(safe(text))))


@dataclass(slots=True)
class _Where:
    """Where in a document the reader of tokens is."""

    tag: str = "p"
    marker: str = ""
    numbers: list[int] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)

    def enter(self, token: Token) -> None:
        """Take a token that opens or closes something."""
        if token.type in ("bullet_list_open", "ordered_list_open"):
            self.numbers.append(int(token.attrs.get("start", 1)) if token.type.startswith("ordered") else 0)
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            self.numbers.pop()
        elif token.type == "list_item_open":
            self.marker = f"{self.numbers[-1]}." if self.numbers[-1] else "•"
            self.numbers[-1] += bool(self.numbers[-1])
        elif token.type == "heading_open":
            self.tag = _HEADINGS[token.tag]
        elif token.type == "blockquote_open":
            self.tag = "blockquote"
        elif token.type in ("heading_close", "blockquote_close"):
            self.tag = "p"
        elif token.type == "tr_open":
            self.cells = []

    def inline(self, token: Token) -> Block:
        """A run of text, with the marker of the list item that it begins."""
        runs = list(_runs(token.children or []))
        if self.marker:
            runs.insert(0, [f"{self.marker} ", "", ""])
            self.marker = ""
        return {"tag": "li" if self.numbers else self.tag, "runs": runs, "depth": len(self.numbers)}


def _blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    """The flat list of tokens as a flat list of blocks; lists keep their depth."""
    where, before = _Where(), ""
    for token in tokens:
        inside_table, before = before in ("td_open", "th_open"), token.type
        where.enter(token)
        if token.type in ("fence", "code_block"):
            yield {"tag": "pre", "runs": [[token.content.rstrip("\n"), "code", ""]]}
        elif token.type == "hr":
            yield {"tag": "hr", "runs": []}
        elif token.type == "tr_close":
            yield {"tag": "pre", "runs": [["  |  ".join(where.cells), "", ""]]}
        elif token.type == "inline" and inside_table:
            where.cells.append("".join(run[0] for run in _runs(token.children or [])))
        elif token.type == "inline":
            yield where.inline(token)


def _runs(children: Sequence[Token]) -> Iterator[list[str]]:
    kinds: list[str] = []
    target = ""
    for child in children:
        if child.type in ("strong_open", "em_open"):
            kinds.append("b" if child.type == "strong_open" else "i")
        elif child.type in ("strong_close", "em_close"):
            kinds.pop()
        elif child.type == "link_open":
            target = str(child.attrs.get("href", ""))
        elif child.type == "link_close":
            yield [f" ({safe(target)})", "", ""]
        elif child.type == "code_inline":
            yield [child.content, "code", ""]
        elif child.type in ("softbreak", "hardbreak"):
            yield ["\n", "", ""]
        elif child.content:
            yield [child.content, kinds[-1] if kinds else "", ""]
