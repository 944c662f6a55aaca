"""JSON as RFC 8259 has it: no NaN or Infinity, no name twice in an object, no lone surrogates, bounded depth.

The grammar is read by orjson (which refuses what the RFC refuses and never recurses beyond its own bound), names are
then looked at by the standard library's scanner. Both run over text whose depth was counted first, so that a text of
100,000 opening brackets costs one pass over its characters and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

__all__ = ["DEPTH", "NotJson", "depth", "fenced", "parse"]

DEPTH = 200
"""Deepest nesting that is read; RFC 8259, section 9 lets an implementation set a limit."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{\]}]', re.DOTALL)
_FENCE = re.compile(r"\A\s*```[ \t]*(?:json)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*\Z", re.DOTALL | re.IGNORECASE)


class NotJson(ValueError):
    """The text is no JSON: why, and at which character."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.reason, self.position = reason, position


def parse(text: str | bytes, *, limit: int = DEPTH, unique: bool = True) -> Any:
    """Read one JSON text. Raises ``NotJson`` with reason and character (byte, where bytes were given).

    The RFC's grammar lets a name stand twice in an object and says that what it then means cannot be relied on;
    ``unique`` refuses it.

    Numbers beyond the range of a double are read as Python reads them; an exponent that overflows is refused.
    """
    counted = depth(text if isinstance(text, str) else text.decode("latin-1"), limit)
    if counted >= 0:
        raise NotJson(f"nested deeper than {limit} levels", counted)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotJson(_reason(error.msg), _position(text, error)) from None
    if not isinstance(value, dict | list):
        return value
    whole = text if isinstance(text, str) else text.decode("utf-8")
    try:
        return json.loads(whole, object_pairs_hook=_object if unique else None, parse_constant=_constant)
    except _Double as double:
        raise NotJson(f"the name {double.args[0]!r} stands twice in an object", _twice(whole, double.args[0])) from None
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error), 0) from None


def depth(text: str, limit: int) -> int:
    """The character at which the nesting exceeds ``limit``, or -1; linear in the text, whatever is in it."""
    if text.count("[") + text.count("{") <= limit:
        return -1
    level = 0
    for token in _TOKEN.finditer(text):
        mark = token[0]
        if mark in "[{":
            level += 1
            if level > limit:
                return token.start()
        elif mark in "]}":
            level -= 1
    return -1


def fenced(text: str) -> tuple[str, int]:
    """What stands in the one Markdown code fence that a text consists of, and where it begins; else the text itself."""
    found = _FENCE.match(text)
    return (found[1], found.start(1)) if found else (text, 0)


class _Double(Exception):
    """A name that stands twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _value in pairs:
            if name in seen:
                raise _Double(name)
            seen.add(name)
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _twice(text: str, name: str) -> int:
    """The character of the second time a name is given (as written without escapes), 0 where it is spelled with
    some.
    """
    places = _places(text, json.dumps(name, ensure_ascii=False))
    next(places, None)
    return next(places, 0)


def _places(text: str, wanted: str) -> Iterator[int]:
    start = text.find(wanted)
    while start >= 0:
        if text[start + len(wanted) :].lstrip()[:1] == ":":
            yield start
        start = text.find(wanted, start + 1)


def _reason(message: str) -> str:
    return message.partition(": line ")[0].rstrip(".")


def _position(text: str | bytes, error: json.JSONDecodeError) -> int:
    return max(0, min(error.pos, len(text)))
