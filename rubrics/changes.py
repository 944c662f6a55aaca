"""What changed between two rubrics: by field for a machine, as a unified diff for a reviewer."""

from __future__ import annotations

import json
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from .library import locate
from .model import Rubric, parse
from .words import Change, RubricDiff

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["diff"]


def diff(before: str | Path | Rubric, after: str | Path | Rubric) -> RubricDiff:
    """Compare two rubrics, given as refs, paths or values.

    Files are read as they stand, so that an edit of a released file can be looked at. Raises ``RubricError`` where one
    cannot be read.
    """
    old, new = _rubric(before), _rubric(after)
    left, right = _fields(old), _fields(new)
    changes = tuple(
        Change(field, left.get(field), right.get(field))
        for field in dict.fromkeys([*left, *right])
        if left.get(field) != right.get(field)
    )
    lines = unified_diff(old.text.splitlines(True), new.text.splitlines(True), str(old.ref), str(new.ref))
    return RubricDiff(old.ref, new.ref, changes, "".join(lines))


def _rubric(given: str | Path | Rubric) -> Rubric:
    if isinstance(given, Rubric):
        return given
    found = locate(given)
    return parse(found.data, path=found.path)


def _fields(rubric: Rubric) -> dict[str, str]:
    """The rubric flattened to compact JSON by dotted field; criteria by id, examples and changelog by position from
    1.
    """
    data = rubric.model_dump(mode="json", exclude={"digest", "text", "released", "calibrated_on"})
    flat: dict[str, str] = {}

    def put(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                put(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = json.dumps(value, ensure_ascii=False)

    for name, value in data.items():
        if name == "criteria":
            for position, criterion in enumerate(value, 1):
                put(f"criteria.{criterion.pop('id')}", {"position": position, **criterion})
        elif name in {"examples", "changelog"}:
            for position, entry in enumerate(value, 1):
                put(f"{name}.{position}", entry)
        else:
            put(name, value)
    return flat
