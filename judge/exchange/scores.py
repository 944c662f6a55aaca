"""Scores as CSV: one a row, for tools that take feedback as a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..formats import Problem, read_rows
from ..writing import whole
from .rows import BadRow, Found, Options, Row, default_id

__all__ = ["fitting", "read_scores", "write_scores"]

_TARGET = ("trace_id", "span_id", "response_id")
_COLUMNS = ("id", "name", "value", "label", "comment", *_TARGET)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""Beginnings that a spreadsheet takes for a formula; such a text is written behind an apostrophe."""


def fitting(row: Row) -> Row:
    """The row, if CSV has a column for each of its fields; raises ``BadRow`` otherwise."""
    extra = sorted(set(row) - {"id", "name", "value", "label", "explanation", "target"})
    if extra:
        raise BadRow("unplaced", f"a CSV of scores has no column for {', '.join(extra)}")
    return row


def write_scores(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write evaluation rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for row in rows:
            target = row.get("target") or {}
            said = [row.get(name) for name in ("id", "name", "value", "label", "explanation")]
            table.writerow([_guarded(value) for value in (*said, *(target.get(name) for name in _TARGET))])
            count += 1
    return count


def read_scores(path: Path, _options: Options) -> Iterator[Found]:
    """Evaluation rows of such a CSV."""
    for line, given in read_rows(path):
        if isinstance(given, Problem):
            yield line, given
            continue
        try:
            yield line, _row({name: _bare(str(given.get(name) or "")) for name in _COLUMNS})
        except BadRow as bad:
            yield line, Problem(str(path), line, bad.kind, str(bad))


def _row(given: dict[str, str]) -> Row:
    if not given["name"]:
        raise BadRow("missing", "no 'name'")
    row: Row = {"name": given["name"]}
    if given["value"]:
        try:
            row["value"] = float(given["value"])
        except ValueError:
            raise BadRow("malformed", f"'value' is {given['value']!r}, not a number") from None
    row |= {ours: given[theirs] for ours, theirs in (("label", "label"), ("explanation", "comment")) if given[theirs]}
    row["target"] = {name: given[name] for name in _TARGET if given[name]}
    return {"id": given["id"] or default_id(row, "evaluation"), **row}


def _guarded(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else "" if value is None else value


def _bare(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
