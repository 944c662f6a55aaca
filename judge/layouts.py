"""Which columns of a row hold which field of an eval set: by name, by another usual name, or as --map says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from operator import itemgetter
from typing import Any

from .cells import Bad

__all__ = ["FIELDS", "Layout", "Layouts", "nearest", "present", "value_of"]

_ALIASES = {
    "id": ("id", "uid", "question_id"),
    "prompt": ("prompt", "instruction", "question"),
    "candidate": ("candidate", "response_a", "answer_a", "output_a"),
    "baseline": ("baseline", "response_b", "answer_b", "output_b"),
    "category": ("category", "segment"),
    "text": ("text", "answer", "output", "response", "completion"),
    "model": ("model", "generator"),
}
FIELDS = (*_ALIASES, "messages", "tags", "context", "reference", "label", "metadata", "checks", "tools")
_OURS = frozenset({alias for aliases in _ALIASES.values() for alias in aliases} | {*FIELDS, "meta"})
"""Column names that mean something here; every other one is metadata."""
_TEXTS = ("id", "prompt", "candidate", "baseline")


def present(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """The mapped columns that an answer file has: --map speaks of the eval set and may name columns of either."""
    return {name: column for name, column in names.items() if column in row}


def value_of(row: Mapping[str, Any], name: str, names: Mapping[str, str]) -> Any:
    """What a row says of a field: the mapped column, else the first usual name that is not empty."""
    if names and name in names:
        if names[name] not in row:
            near = get_close_matches(names[name], map(str, row), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the row has {', '.join(map(str, row))}"
            raise Bad("missing", f"no column {names[name]!r} (mapped to {name}); {hint}")
        return row[names[name]]
    aliases = _ALIASES.get(name)
    if aliases is None:
        return row.get(name)
    return next((value for alias in aliases if (value := row.get(alias)) is not None), None)


def nearest(name: str, row: Mapping[str, Any]) -> str:
    """Which column may have been meant for a field that is not there, with how to say so; empty where none is near."""
    known = [str(column) for column in row if str(column) not in _OURS]
    near = get_close_matches(name, known, 1)
    return f"; did you mean the column {near[0]!r}? Then give --map {name}={near[0]}" if near else ""


class Layout:
    """Which columns of a row hold which field; rows of one file have few layouts, so each is worked out once.

    ``wanted`` are the fields that rows of this layout can have at all: those with a column, and those that --map names.
    ``plain`` takes the id, the prompt and both answers out of a row of nothing else but a category and a label; it is
    ``None`` for other layouts.
    """

    __slots__ = ("_columns", "_names", "others", "plain", "wanted")

    def __init__(self, keys: Iterable[Any], names: Mapping[str, str]) -> None:
        keys = tuple(keys)
        self._names = names
        self._columns: dict[str, str] = {}
        several = set()
        for name in (*FIELDS, "meta"):
            found = [column for column in _ALIASES.get(name, (name,)) if column in keys]
            if name in names or len(found) > 1:
                several.add(name)
            elif found:
                self._columns[name] = found[0]
        self.wanted = frozenset(self._columns) | several
        self.others = tuple(key for key in keys if key not in _OURS and key not in names.values())
        found_all = self._columns.keys() >= set(_TEXTS) and self.wanted <= {*_TEXTS, "category", "label"}
        self.plain: Callable[[Mapping[str, Any]], tuple[Any, ...]] | None = None
        if found_all and not self.others:
            self.plain = itemgetter(*(self._columns[name] for name in _TEXTS))

    def get(self, row: Mapping[str, Any], name: str) -> Any:
        """``value_of`` one field."""
        column = self._columns.get(name)
        if column is not None:
            return row[column]
        return value_of(row, name, self._names) if name in self.wanted else None


class Layouts:
    """The layouts of the rows of one file."""

    _MOST = 256

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self._known: dict[tuple[Any, ...], Layout] = {}

    def of(self, row: Mapping[str, Any]) -> Layout:
        """The layout of a row."""
        keys = tuple(row)
        found = self._known.get(keys)
        if found is None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            found = self._known[keys] = Layout(keys, self.names)
        return found
