"""The tool-call contract: the right call, with arguments that fit, and no call where none may be made.

Calls and tools are understood in the forms of the common interfaces: OpenAI (``{"function": {"name", "arguments"}}``
with arguments as text), Anthropic (``{"name", "input"}``, ``input_schema``), plain ``{"name", "arguments"}``, and
``{"name": {arguments}}``. Parameter types of the Berkeley Function Calling Leaderboard (``dict``, ``float``, ``tuple``,
``any``) are read as their JSON Schema equivalents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from ..types import Answer, Item
from .check import Check, Observation, failed, passed, unjudged
from .strictjson import NotJson, parse
from .structure import compiled

__all__ = ["Call", "ExpectedCalls", "ToolCalls", "calls_of", "tools_of"]

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "int": "integer", "bool": "boolean", "list": "array"}
_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")


@dataclass(frozen=True, slots=True)
class Call:
    """One call read: the function's name and its arguments, or the ``fault`` that keeps it from being read."""

    name: str
    arguments: Any
    fault: str = ""


def calls_of(answer: Answer) -> tuple[Call, ...]:
    """The calls that an answer makes, in order; one that cannot be read carries its fault."""
    return tuple(_call(call) for call in answer.tool_calls)


def _call(given: Mapping[str, Any]) -> Call:
    inner = given.get("function", given)
    if not isinstance(inner, Mapping):
        return Call("", None, "'function' is no object")
    name = inner.get("name")
    if name is None and len(inner) == 1 and inner is given:
        ((name, arguments),) = inner.items()
    else:
        arguments = next((inner[key] for key in ("arguments", "input", "args") if key in inner), {})
    if not isinstance(name, str) or not name:
        return Call("", None, "the call has no name")
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments) if arguments.strip() else {}
        except NotJson as fault:
            return Call(name, None, f"the arguments are not JSON: {fault.reason}")
    return Call(name, arguments)


def tools_of(item: Item) -> dict[str, dict[str, Any]]:
    """The parameters' JSON Schema of each tool that an item offers (``tools``, or in its metadata), by name."""
    given = item.tools or item.metadata.get("tools") or item.metadata.get("functions") or ()
    return _tools(orjson.dumps(given, default=dict)) if given else {}


@lru_cache(maxsize=1024)
def _tools(text: bytes) -> dict[str, dict[str, Any]]:
    given = orjson.loads(text)
    found: dict[str, dict[str, Any]] = {}
    for tool in given if isinstance(given, list) else ():
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            schema = next((inner[key] for key in ("parameters", "input_schema") if key in inner), {"type": "object"})
            found[inner["name"]] = _schema(schema) if isinstance(schema, Mapping) else {}
    return found


def _schema(given: Any) -> Any:
    """A parameter schema with the leaderboard's type names put right."""
    if not isinstance(given, Mapping):
        return given
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key == "type" and isinstance(value, str):
            if value not in ("any", "Any"):
                out[key] = _TYPES.get(value, value)
        elif key in _SCHEMAS and isinstance(value, Mapping):
            out[key] = {name: _schema(part) for name, part in value.items()}
        elif key in ("items", "additionalProperties", "not", "if", "then", "else", "contains"):
            out[key] = _schema(value)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            out[key] = [_schema(part) for part in value]
        elif key not in ("default", "optional"):
            out[key] = value
    return out


@dataclass(frozen=True)
class ToolCalls(Check):
    """Each call names an offered tool and its arguments fit that tool's schema.

    ``must`` are tools that have to be called, ``forbidden`` ones that may not; ``none`` allows no call at all, ``some``
    wants at least one, ``most`` bounds their number. ``unknown`` also takes arguments that the schema does not name.
    An item that offers no tools is concerned only by what the check itself demands.
    """

    name: ClassVar[str] = "tool-calls"
    must: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    none: bool = False
    some: bool = False
    most: int | None = None
    unknown: bool = False
    formats: bool = False

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Hold every call to the contract."""
        tools, calls = tools_of(item), calls_of(answer)
        demands = self.must or self.forbidden or self.none or self.some or self.most is not None
        if not tools and not demands:
            return None
        faults = list(self._demands(calls))
        for number, call in enumerate(calls, 1):
            faults += (f"call {number}: {fault}" for fault in self._call(call, tools))
        if faults:
            return failed("; ".join(faults[:4]), value=float(len(calls)))
        return passed(value=float(len(calls)))

    def _demands(self, calls: tuple[Call, ...]) -> list[str]:
        names = [call.name for call in calls]
        faults = [f"{name} was not called" for name in self.must if name not in names]
        faults += [f"{name} was called and may not be" for name in dict.fromkeys(names) if name in self.forbidden]
        if self.none and calls:
            faults.append(f"{names[0] or 'a tool'} was called where no call may be made")
        if self.some and not calls:
            faults.append("no tool was called")
        if self.most is not None and len(calls) > self.most:
            faults.append(f"{len(calls)} calls, at most {self.most}")
        return faults

    def _call(self, call: Call, tools: Mapping[str, dict[str, Any]]) -> list[str]:
        if call.fault:
            return [f"{call.name + ': ' if call.name else ''}{call.fault}"]
        if not tools:
            return []
        if call.name not in tools:
            return [f"there is no tool {call.name!r}; offered: {', '.join(sorted(tools))}"]
        schema = tools[call.name]
        if not isinstance(call.arguments, Mapping):
            return [f"{call.name}: the arguments are no object"]
        faults = [f"{call.name}{fault}" if fault[:1] == "/" else f"{call.name}: {fault}" for fault in
                  compiled(schema, formats=self.formats).faults(call.arguments)]  # fmt: skip
        named = schema.get("properties")
        if not self.unknown and isinstance(named, Mapping) and "additionalProperties" not in schema:
            faults += [f"{call.name}: no argument {name!r}" for name in call.arguments if name not in named]
        return faults


@dataclass(frozen=True)
class ExpectedCalls(Check):
    """The calls are those that were expected, in any order unless ``ordered``.

    ``calls`` (or the item's metadata under ``calls_from``) lists one object per call, ``{"name": {"argument": [accepted
    values]}}``; an accepted value ``""`` lets the argument be left out. Texts are compared without case, white space
    and punctuation, whole numbers equal their fractions (the rules of the Berkeley Function Calling Leaderboard's AST
    match). An empty list expects no call.
    """

    name: ClassVar[str] = "expected-calls"
    axis: ClassVar[str] = "capability"
    calls: tuple[dict[str, dict[str, Any]], ...] | None = None
    calls_from: str = "expected_calls"
    ordered: bool = False

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Match the calls made with those expected."""
        wanted = self.calls if self.calls is not None else item.metadata.get(self.calls_from)
        if wanted is None:
            return None
        if not isinstance(wanted, Sequence) or isinstance(wanted, str):
            return unjudged(f"the item's {self.calls_from} is no list of calls")
        made = calls_of(answer)
        if len(made) != len(wanted):
            return failed(f"{len(made)} calls where {len(wanted)} were expected")
        left = list(made)
        for position, one in enumerate(wanted):
            ((name, arguments),) = one.items()
            near = [left[0]] if self.ordered else left
            hit = next((call for call in near if call.name == name and not _differs(call, arguments)), None)
            if hit is None:
                named = next((call for call in near if call.name == name), None)
                why = _differs(named, arguments) if named else f"{name} was not called"
                return failed(f"expected call {position + 1}: {why}")
            left.remove(hit)
        return passed()


def _differs(call: Call, wanted: Mapping[str, Any]) -> str:
    """Why a call's arguments are not the expected ones; empty where they are."""
    if call.fault or not isinstance(call.arguments, Mapping):
        return f"{call.name}: {call.fault or 'the arguments are no object'}"
    for name, accepted in wanted.items():
        options = accepted if isinstance(accepted, list) else [accepted]
        if name not in call.arguments:
            if "" not in options:
                return f"{call.name}: the argument {name!r} is missing"
        elif not any(_same(call.arguments[name], option) for option in options):
            return f"{call.name}: {name!r} is {call.arguments[name]!r}, accepted are {options!r}"[:300]
    extra = [name for name in call.arguments if name not in wanted]
    return f"{call.name}: unexpected argument {extra[0]!r}" if extra else ""


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(given, str) and isinstance(wanted, str):
        return _plain(given) == _plain(wanted)
    if isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    if isinstance(given, list) and isinstance(wanted, list):
        return len(given) == len(wanted) and all(_same(one, two) for one, two in zip(given, wanted, strict=True))
    if isinstance(given, Mapping) and isinstance(wanted, Mapping):
        # Inside an expected object each value is again a list of accepted ones.
        return not _differs(Call("", given), wanted)
    return bool(given == wanted)


def _plain(text: str) -> str:
    return "".join(mark for mark in text.lower() if mark not in " ,./-_*^'\"")
