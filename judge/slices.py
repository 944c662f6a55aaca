"""What the pairs of a run can be sliced by: their category and metadata, and what follows from their form.

    category, tags         as the eval set says
    intent, difficulty,    fields of the items' metadata; ``metadata.x`` (or plain ``x``) is any field of it
    risk, language,
    surface, ...
    tools                  whether either answer called a tool
    context                characters of the supplied context: none, up to 2000, up to 8000, more

A pair without a value is in ``(none)``, never left out. A pair with several tags is in several slices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import polars

__all__ = ["NONE", "USUAL", "known_columns", "slices_of", "usual_columns"]

NONE = "(none)"
USUAL = ("category", "intent", "difficulty", "risk", "tools", "context", "language", "surface", "tags")
"""What a report slices by if nobody says otherwise, as far as the run has it."""
_STEPS = ((0, "none"), (2000, "up to 2000"), (8000, "up to 8000"))
_MANY = 40
"""Values from which on a column names items, not slices."""

Slices = Mapping[str, Mapping[str, tuple[str, ...]]]
"""By column and pair id, the values."""


def known_columns(frame: polars.DataFrame) -> tuple[str, ...]:
    """The columns that a run can be sliced by: the derived ones and every field of its items' metadata."""
    fields = {name for row in frame["metadata"].unique() for name in json.loads(row)}
    return ("category", "tags", "tools", "context", *sorted(f"metadata.{name}" for name in fields))


def usual_columns(frame: polars.DataFrame, traits: polars.DataFrame) -> tuple[str, ...]:
    """Those of ``USUAL`` with at least two slices here, and few enough to be slices."""
    fields = {name.removeprefix("metadata.") for name in known_columns(frame)}
    found = slices_of(frame, traits, [name for name in USUAL if name in fields])
    kept = []
    for name, rows in found.items():
        values = {value for row in set(rows.values()) for value in row}
        if 1 < len(values) <= _MANY:
            kept.append(name)
    return tuple(kept) or ("category",)


def slices_of(frame: polars.DataFrame, traits: polars.DataFrame, by: Sequence[str]) -> Slices:
    """The values of each column of ``by`` for every pair of a run (columns as in ``schema/001_runs.sql``).

    ``traits`` are those of ``Store.traits``. Raises ``InputError`` for a column that no item has, naming those there
    are.
    """
    known = known_columns(frame)
    rows = frame.unique("pair_id", keep="first", maintain_order=True).join(traits, on="pair_id", how="left")
    pairs = rows["pair_id"].to_list()
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in dict.fromkeys(by):
        field = name.removeprefix("metadata.")
        values: Iterator[tuple[str, ...]]
        if name == "category":
            values = ((str(value) if value else NONE,) for value in rows["category"])
        elif name == "tags":
            values = (tuple(own) or (NONE,) for own in rows["tags"].to_list())
        elif name == "tools":
            values = (("called" if called else "none",) for called in rows["tools"])
        elif name == "context":
            values = ((_step(characters),) for characters in rows["context"])
        elif f"metadata.{field}" in known:
            values = (_field(row, field) for row in rows["metadata"])
        else:
            raise InputError(f"--by {name}: no item has this field; there are {', '.join(known)}")
        # Few values stand on many pairs: each is held once.
        same: dict[tuple[str, ...], tuple[str, ...]] = {}
        found[name] = {pair: same.setdefault(value, value) for pair, value in zip(pairs, values, strict=True)}
    return found


def _field(metadata: str, field: str) -> tuple[str]:
    value = json.loads(metadata).get(field)
    return (str(value) if value not in (None, "") else NONE,)


def _step(characters: int) -> str:
    return next((name for most, name in _STEPS if characters <= most), "more than 8000")
