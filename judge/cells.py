"""Single values of a row of an eval set: read strictly, or refused with what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from .types import Message, Outcome

__all__ = [
    "MAX_FIELD",
    "Bad",
    "calls",
    "label",
    "messages",
    "number",
    "optional",
    "structured",
    "text",
    "texts",
    "whole",
]

MAX_FIELD = 5_000_000
"""Characters one text field may have."""

_LABELS = {"win": "win", "candidate": "win", "a": "win", "tie": "tie", "loss": "loss", "baseline": "loss", "b": "loss"}


class Bad(Exception):
    """A row that cannot be used; becomes a ``Problem``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def text(value: Any, name: str) -> str:
    """A text of bounded length."""
    if not isinstance(value, str):
        raise Bad("malformed", f"'{name}' is {type(value).__name__}, not text")
    if len(value) > MAX_FIELD:
        raise Bad("malformed", f"'{name}' has {len(value):,} characters, more than {MAX_FIELD:,}")
    return value


def optional(value: Any, name: str) -> str | None:
    """A text, or nothing where the cell is empty."""
    return None if value in (None, "") else text(value, name)


def texts(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts; a single text is a list of one."""
    if value in (None, "", []):
        return ()
    if isinstance(value, str):
        return (text(value, name),)
    if not isinstance(value, list | tuple):
        raise Bad("malformed", f"'{name}' is {type(value).__name__}, not a list of texts")
    return tuple(text(part, name) for part in value)


def number(value: Any, name: str) -> float | None:
    """A finite number, or nothing."""
    if value in (None, ""):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise Bad("malformed", f"'{name}' is not a number: {value!r}")
    return found


def whole(value: Any, name: str) -> int | None:
    """A number cut to a whole one, or nothing."""
    found = number(value, name)
    return None if found is None else int(found)


def structured(value: Any, name: str) -> Any:
    """A list as it is, or as the JSON text that a CSV cell holds."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Bad("malformed", f"'{name}' is not JSON: {error.msg}") from None


def calls(value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    """A list of objects."""
    if value in (None, "", []):
        return ()
    if not isinstance(value, list) or not all(isinstance(call, dict) for call in value):
        raise Bad("malformed", f"'{name}' is not a list of objects")
    return tuple(value)


def messages(value: Any) -> tuple[Message, ...]:
    """The turns of a conversation."""
    if not value:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in value
    ):
        raise Bad("malformed", "'messages' is not a list of {role, content}")
    return tuple(Message(str(turn.get("role", "user")), text(turn["content"], "messages")) for turn in value)


def label(value: Any) -> Outcome | None:
    """A known outcome, from the candidate's side."""
    if value in (None, ""):
        return None
    name = _LABELS.get(str(value).lower())
    if name is None:
        raise Bad("malformed", f"'label' is {value!r}; use win, tie or loss (or A, B, tie with A as the candidate)")
    return Outcome(name)
