"""Formats whose rows are deep and differ by version: the original is kept whole, a table of paths says what we read.

A row keeps the original as ``foreign.raw``. On the way out it is written as it came, with the values replaced that were
changed since: what we never understood cannot be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .rows import OURS, BadRow, Row, at_path, check_text, default_id, merge, put_path

__all__ = ["Whole", "decode_whole", "encode_whole", "messages_of", "text_of"]

_ASKED = ("input", "question", "query", "prompt", "instruction")
_ANSWERED = ("output", "answer", "text", "response", "completion", "content", "result")


@dataclass(frozen=True, slots=True)
class Whole:
    """A format as a table: our dotted field to the paths where it may stand, the first that has a value counts.

    ``asked`` and ``answered`` are the paths of input and output, which may be texts, conversations or objects around
    one. ``shape`` turns a found value of a field into ours and back, where they differ.
    """

    name: str
    kind: str
    asked: tuple[str, ...]
    answered: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    shape: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]


def decode_whole(format_: Whole, theirs: Mapping[str, Any], mapping: Mapping[str, str]) -> Row:
    """Our row of one of theirs; ``mapping`` replaces paths of the table. Raises ``BadRow`` without input or output."""
    ours = _read(format_, theirs, mapping)
    ours["foreign"] = {"format": format_.name, "raw": {k: v for k, v in theirs.items() if k != OURS}}
    if isinstance(theirs.get(OURS), Mapping):
        merge(ours, theirs[OURS])
    return {"id": str(ours.pop("id", None) or default_id(ours, format_.kind)), **ours}


def encode_whole(format_: Whole, ours: Mapping[str, Any], mapping: Mapping[str, str]) -> Row:
    """Their row of one of ours: the original where there is one, with what differs from it put in."""
    rest: Row = orjson.loads(orjson.dumps(ours))
    foreign = rest.pop("foreign", None)
    raw: Row = {}
    if isinstance(foreign, Mapping) and foreign.get("format") == format_.name:
        raw = foreign["raw"]
    elif foreign is not None:
        rest["foreign"] = foreign
    had: Row = {}
    if raw:
        had = _read(format_, raw, mapping)
        had["id"] = str(had.get("id") or default_id(had, format_.kind))
    if had == rest:
        return raw
    stood: Row = orjson.loads(orjson.dumps(raw))
    _put_said(format_, raw, rest, had, mapping)
    for path, places in format_.fields.items():
        value = at_path(rest, path)
        if value is not None and value != at_path(had, path):
            back = format_.shape[path][1] if path in format_.shape else _same
            put_path(raw, _first(stood, _paths(places, path, mapping)), back(value))
    known = {"prompt", "messages", "answer.text", "answer.messages", *format_.fields}
    extra: Row = {}
    for path, value in _leaves(rest):
        if not any(path == name or path.startswith(f"{name}.") for name in known):
            put_path(extra, path, value)
    if extra:
        raw[OURS] = extra
    return raw


def _put_said(format_: Whole, raw: Row, rest: Row, had: Row, mapping: Mapping[str, str]) -> None:
    """Put request and answer where they stood, if they say something else now."""
    answer, before = rest.get("answer") or {}, had.get("answer") or {}
    for names, now, old, places, field in (
        (("prompt", "messages"), rest, had, format_.asked, "input"),
        (("text", "messages"), answer, before, format_.answered, "output"),
    ):
        for name in names:
            if now.get(name) is not None and now[name] != old.get(name):
                put_path(raw, _first(raw, _paths(places, field, mapping)), now[name])


def messages_of(value: Any) -> list[dict[str, Any]] | None:
    """A conversation in one of the usual shapes as turns ``{role, content, ...}``; ``None`` where it is none."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        return None
    found = []
    for turn in value:
        inner = {str(name).removeprefix("message."): entry for name, entry in turn.items()}
        nested = inner.get("message")
        inner = {**inner, **nested} if isinstance(nested, Mapping) else inner
        role = inner.get("role") or inner.get("type")
        if not isinstance(role, str) or ("content" not in inner and "tool_calls" not in inner):
            return None
        role = {"human": "user", "ai": "assistant"}.get(role, role)
        kept = {"role": role, "content": text_of(inner.get("content")) or ""}
        if inner.get("tool_calls"):
            kept["tool_calls"] = inner["tool_calls"]
        found.append(kept)
    return found


def text_of(value: Any) -> str | None:
    """A text, or the one inside the usual wrappings: parts of a content, an object with one known key."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [
            text_of(part.get("text", part.get("content"))) if isinstance(part, Mapping) else text_of(part)
            for part in value
        ]
        kept = [text for text in texts if text is not None]
        return "\n".join(kept) if kept else None
    if isinstance(value, Mapping):
        for name in _ANSWERED:
            if isinstance(value.get(name), str | list):
                return text_of(value[name])
        return None
    return str(value)


def _read(format_: Whole, theirs: Mapping[str, Any], mapping: Mapping[str, str]) -> Row:
    ours: Row = {}
    asked = _found(theirs, _paths(format_.asked, "input", mapping))
    if asked is None:
        raise BadRow("missing", f"no input: nothing at {' or '.join(_paths(format_.asked, 'input', mapping))}")
    inside = asked.get("messages", asked) if isinstance(asked, Mapping) else asked
    turns = messages_of(inside)
    if turns is not None:
        ours["messages"] = turns
    else:
        text = _asked_text(asked)
        if text is None:
            raise BadRow(
                "malformed", "the input is neither a text nor a conversation; name its path with --map input=..."
            )
        ours["prompt"] = check_text(text, "input")
    answered = _found(theirs, _paths(format_.answered, "output", mapping))
    if answered is not None:
        ours["answer"] = _answer(answered)
    for path, places in format_.fields.items():
        value = _found(theirs, _paths(places, path, mapping))
        if value is not None:
            put_path(ours, path, format_.shape[path][0](value) if path in format_.shape else value)
    if "text" not in ours.get("answer", {}) and format_.kind in ("trace", "answer"):
        raise BadRow("missing", f"no output: nothing at {' or '.join(_paths(format_.answered, 'output', mapping))}")
    return ours


def _asked_text(asked: Any) -> str | None:
    if isinstance(asked, Mapping):
        name = next((name for name in _ASKED if isinstance(asked.get(name), str)), None)
        return asked[name] if name else None
    return asked if isinstance(asked, str) else None


def _answer(value: Any) -> Row:
    inside = value.get("messages", value) if isinstance(value, Mapping) else value
    turns = messages_of(inside if isinstance(inside, list) else [inside])
    if turns:
        last = turns[-1]
        calls = {"tool_calls": last["tool_calls"]} if last.get("tool_calls") else {}
        return {"text": last["content"], **calls}
    text = text_of(value)
    if text is None:
        text = orjson.dumps(value).decode()
    return {"text": check_text(text, "output")}


def _paths(places: tuple[str, ...], name: str, mapping: Mapping[str, str]) -> tuple[str, ...]:
    return (mapping[name],) if name in mapping else places


def _found(theirs: Mapping[str, Any], places: tuple[str, ...]) -> Any:
    return next((value for path in places if (value := at_path(theirs, path)) is not None), None)


def _first(raw: Mapping[str, Any], places: tuple[str, ...]) -> str:
    """Where a value is put: where it stood, else at the first place of the table."""
    return next((path for path in places if at_path(raw, path) is not None), places[0])


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and all("." not in str(name) for name in value):
        return [
            leaf for name, inner in value.items() for leaf in _leaves(inner, f"{path}.{name}" if path else str(name))
        ]
    return [(path, value)]


def _same(value: Any) -> Any:
    return value
