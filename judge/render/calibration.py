"""The calibration report on its surfaces: terminal text, Markdown, JSON with a published schema, and one HTML page.

All four are made from one ``CalibrationReport``. The verdict in plain words stands first; what is withheld says why and
what would give it. Names and texts of others are hostile: they cannot steer a terminal or leave their place in HTML.
"""

from __future__ import annotations

import json
from importlib import resources
from itertools import zip_longest
from typing import TYPE_CHECKING

from calibration.provenance import Refused

from .change import change
from .confidence import calibration, selective
from .document import Chart, Figure, Figures, Prose, Section, Table, withheld
from .measures import agreement, headline, identity
from .page import page
from .risks import bias, drift, segments, self_check, validity
from .words import columns, cut, markdown, plain, safe, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calibration.belief import Word
    from calibration.report import CalibrationReport

    from .document import Level

__all__ = ["schema", "sections", "to_brief", "to_html", "to_json", "to_markdown", "to_text"]

SCHEMA = "judge.calibration/1"
WIDTH, _NARROWEST, _WIDEST = 80, 60, 100
_NAME = 30
_NARROW = 14
_LEVELS: dict[Word, Level] = {"BELIEVE": "good", "WITH CARE": "care", "DO NOT BELIEVE": "bad", "UNKNOWN": "soft"}
_MEANING: dict[Word, str] = {
    "BELIEVE": "within the intervals below, on pairs like these",
    "WITH CARE": "it tells better from worse, but a doubt is named below",
    "DO NOT BELIEVE": "these labels do not show that it tells better from worse",
    "UNKNOWN": "too few labels to say anything about this judge",
}


def sections(report: CalibrationReport) -> tuple[Section, ...]:
    """The eleven sections, in order."""
    return (
        identity(report),
        headline(report),
        agreement(report),
        calibration(report),
        selective(report),
        bias(report),
        change(report),
        segments(report),
        drift(report),
        validity(report),
        self_check(report),
    )


def experiment(report: CalibrationReport) -> str:
    """The verdict on a rubric or judge change for the top of the report, empty where none was tried."""
    return change(report).answer if report.change is not None else ""


def to_text(report: CalibrationReport, width: int = WIDTH) -> str:
    """The terminal report, readable without colour; the verdict stands first.

    No line is wider than ``width`` columns, which is held between 60 and 100: below, tables break, above, nobody reads.
    """
    lines = [to_brief(report, width)]
    width = min(max(width, _NARROWEST), _WIDEST)
    for section in sections(report):
        lines += ["", *wrap(f"{section.number}. {section.title.upper()}", width=width)]
        lines += wrap(safe(section.answer), first="   ", rest="   ", width=width)
        for block in section.blocks:
            lines += _text_block(block, width)
    return "\n".join(lines)


def to_brief(report: CalibrationReport, width: int = WIDTH) -> str:
    """The verdict and the sentences behind it: the top of the terminal report."""
    width = min(max(width, _NARROWEST), _WIDEST)
    lines = [*wrap(f"{report.belief.word}: {_MEANING[report.belief.word]}", width=width)]
    lines += wrap(safe(experiment(report)), width=width) if report.change is not None else []
    lines.append("")
    for sentence in report.belief.sentences:
        lines += wrap(safe(sentence), first="  ", rest="  ", width=width)
    return "\n".join(lines)


def _text_block(block: Figures | Table | Prose | Chart, width: int) -> Iterator[str]:
    if isinstance(block, Prose):
        mark = "   ! " if block.level in {"care", "bad"} else "   "
        yield from wrap(safe(block.text), first=mark, rest=" " * len(mark), width=width)
    elif isinstance(block, Figures):
        if block.title:
            yield from ["", *wrap(safe(block.title), first="   ", rest="   ", width=width)]
        for row in block.merged:
            yield from _text_figure(row, width)
    elif isinstance(block, Table):
        yield from _text_table(block, width)


def _text_figure(row: Figure, width: int) -> Iterator[str]:
    rest = " " * (_NAME + 5)
    if row.missing and columns(row.name) > _NAME:
        yield from wrap(f"{safe(row.name)}: {safe(row.shown)}", first="   ", rest="     ", width=width)
        return
    name = f"   {cut(row.name, _NAME)}"
    said = safe(" ".join(part for part in (row.shown, row.interval, row.base) if part))
    longest = max(map(columns, said.split()), default=0)
    if width - len(rest) < longest <= width - 5:  # a name or digest stays in one piece, on a line of its own
        yield name.rstrip()
        yield from wrap(said, first="     ", rest="     ", width=width)
    else:
        yield from wrap(said, first=name + rest[columns(name) :], rest=rest, width=width)
    if row.note and not row.missing:
        yield from wrap(f"({safe(row.note)})", first=rest, rest=rest + " ", width=width)


def _text_table(table: Table, width: int) -> Iterator[str]:
    """A table with aligned columns; columns that do not fit beside each other go below, each time with the names."""
    if table.title:
        yield from ["", *wrap(safe(table.title), first="   ", rest="   ", width=width)]
    lines = [table.columns, *(table.cells(k) for k in range(len(table.rows)))]
    names, *rest = (tuple(" ".join(safe(cell).split()) for cell in column) for column in zip(*lines, strict=True))
    last = [rest.pop()] if table.n else []
    spare = width - 3 - min(_NARROW, max(map(columns, names))) - sum(_size(column) + 2 for column in last)
    while rest:
        taken = [rest.pop(0)]
        while rest and sum(_size(column) + 2 for column in (*taken, rest[0])) <= spare:
            taken.append(rest.pop(0))
        yield from _text_columns(names, [*taken, *last], width)
    if table.left_out:
        yield f"   and {table.left_out} more (the JSON holds all)"
    if table.note:
        yield from wrap(safe(table.note), first="   ", rest="   ", width=width)


def _text_columns(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Aligned columns right of the names, or one short paragraph a row where even those are too wide."""
    sizes = [_size(column) for column in cells]
    room = min(width - 3 - sum(sizes) - 2 * len(sizes), max(map(columns, names)))
    if room >= min(_NARROW, max(map(columns, names))):
        for name, *row in zip(names, *cells, strict=True):
            first = cut(name, room) if name else ""
            aligned = [" " * (size - columns(cell)) + cell for cell, size in zip(row, sizes, strict=True)]
            yield ("   " + "  ".join([first + " " * (room - columns(first)), *aligned])).rstrip()
        return
    heads = [column[0] for column in cells]
    for name, *row in list(zip(names, *cells, strict=True))[1:]:
        told = "; ".join(f"{head} {cell}" for head, cell in zip(heads, row, strict=True))
        yield from wrap(f"{cut(name, 40)}: {told}", first="   ", rest="      ", width=width)


def _size(column: Sequence[str]) -> int:
    return max(map(columns, column))


def to_markdown(report: CalibrationReport) -> str:
    """The report for a pull request: the verdict, the key figures, and what fails or is withheld."""
    parts = sections(report)
    word = report.belief.word
    lines = [
        f"### {word}: {_MEANING[word]}",
        "",
        *_md_top(report),
        *(f"- {markdown(text)}" for text in report.belief.sentences),
        "",
    ]
    lines += ["| | value | interval | n |", "|---|---:|---|---:|"]
    for row in _key(parts):
        base = row.base.removeprefix("n ")
        cells = (row.name, row.shown, row.interval or "-", base or "-")
        lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    rate = report.win_rate.corrected
    same = (
        withheld(rate) if isinstance(rate, Refused) else None
    )  # said in the table; what it withholds is not said twice
    told = [part for part in parts[3:] if part.level != "soft" and part.key != "validity"]
    told = [part for part in told if same is None or same not in part.answer]
    lines += ["", "**Findings**", "", *(f"- {part.title}: {markdown(part.answer)}" for part in told)]
    failed = [assumption for assumption in report.ledger if assumption.holds is False]
    if failed:
        lines += ["", "**What fails**", ""]
        for assumption in failed:
            cost = f" Withheld: {assumption.costs}." if assumption.costs else ""
            lines.append(f"- **{markdown(assumption.name)}**: {markdown(assumption.text + cost)}")
    named = ((name, report.identity.get(name, "")) for name in ("run", "judge", "rubric", "gold", "seed"))
    own = ", ".join(f"{name} {markdown(cut(text, 40))}" for name, text in named if text)
    return "\n".join([*lines, "", f"<sub>{own}</sub>"])


def _md_top(report: CalibrationReport) -> list[str]:
    return [f"**{markdown(experiment(report))}**", ""] if report.change is not None else []


def _key(parts: tuple[Section, ...]) -> Iterator[Figure]:
    """The first group of figures of the headline and of agreement."""
    for part in (parts[1], parts[2]):
        yield from next(block.merged for block in part.blocks if isinstance(block, Figures))


def to_json(report: CalibrationReport) -> str:
    """The report as one JSON object that ``schema`` describes; no NaN, an open end of an interval is null."""
    return json.dumps({"schema": SCHEMA, **plain(report)}, ensure_ascii=False, allow_nan=False)


def schema() -> str:
    """The published JSON Schema (draft 2020-12) of ``to_json``."""
    return resources.files("judge").joinpath("data/calibration-1.schema.json").read_text(encoding="utf-8")


def to_html(report: CalibrationReport) -> str:
    """The report as one HTML page without scripts or outside resources, in light and dark, for screen and paper."""
    word = report.belief.word
    return page(
        "calibration.html.j2",
        report=report,
        sections=sections(report),
        level=_LEVELS[word],
        meaning=_MEANING[word],
        experiment=experiment(report),
        named=lambda name: cut(report.identity.get(name, "") or "not named", 80),
        kind=lambda block: type(block).__name__.lower(),
        pairs=lambda cells, heat: list(zip_longest(cells, heat)),
    )
