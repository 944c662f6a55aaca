"""Checks of structured answers: it is JSON, and it is the JSON that was asked for.

JSON Schema is Draft 2020-12 through ``jsonschema-rs`` (https://github.com/Stranger6667/jsonschema): it agrees with the
official test suite including ``format`` and ECMA 262 patterns, and compiles a schema once. A schema never fetches
anything: a ``$ref`` that leaves the document is an error of the schema, unless its target is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import orjson

from ..errors import InputError
from ..types import Answer, Item, Span
from .check import Check, Observation, failed, passed
from .strictjson import DEPTH, NotJson, fenced, parse

__all__ = ["JsonParses", "JsonSchema", "Schema", "compiled"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BACKTRACKS = 100_000
_SHOWN = 3


class Schema:
    """A compiled JSON Schema (2020-12). Raises ``InputError`` for one that is itself invalid, with the place in it.

    ``formats`` decides whether ``format`` is asserted or only noted; ``documents`` are the schemas that a ``$ref`` may
    lead to, by URI. Patterns run under a bound on backtracking.

    >>> [fault for fault in Schema({"type": "object", "required": ["id"]}).faults({})]
    ['"id" is a required property']
    """

    def __init__(
        self, schema: Any, *, formats: bool = True, documents: Mapping[str, Any] | None = None, where: str = "schema"
    ) -> None:
        import jsonschema_rs as engine

        registry = engine.Registry(list(documents.items())) if documents else None
        options = engine.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        try:
            # A schema of another dialect names a meta-schema that has to be among the documents.
            foreign = isinstance(schema, dict) and schema.get("$schema", _DIALECT).rstrip("#") != _DIALECT
            self._engine = (engine.validator_for if foreign else engine.Draft202012Validator)(
                schema,
                validate_formats=formats,
                registry=registry,
                pattern_options=options,
                offline=True,
            )
        except engine.ValidationError as error:
            path = "/".join(str(part) for part in error.instance_path)
            raise InputError(f"{where}: not a valid JSON Schema at /{path}: {_short(error.message)}") from None
        except (engine.ReferencingError, ValueError, RecursionError) as error:
            raise InputError(f"{where}: not a valid JSON Schema: {_short(str(error))}") from None

    def valid(self, value: Any) -> bool:
        """Whether a value fits."""
        return bool(self._engine.is_valid(value))

    def faults(self, value: Any) -> list[str]:
        """Why a value does not fit, the first few faults with their place; empty where it fits."""
        if self._engine.is_valid(value):
            return []
        found = []
        for error in self._engine.iter_errors(value):
            path = "".join(f"/{part}" for part in error.instance_path)
            found.append(f"{path + ': ' if path else ''}{_short(error.message)}")
            if len(found) == _SHOWN:
                break
        return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."


@lru_cache(maxsize=4096)
def _compiled(text: bytes, *, formats: bool) -> Schema:
    return Schema(orjson.loads(text), formats=formats)


def compiled(schema: Any, *, formats: bool = True) -> Schema:
    """A schema compiled once, however often it is asked for. Raises ``InputError`` as ``Schema`` does."""
    return _compiled(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS), formats=formats)


@dataclass(frozen=True)
class JsonParses(Check):
    """The whole answer is one JSON text (RFC 8259): no NaN, no name twice, at most ``depth`` levels.

    ``fence`` also takes an answer that is one Markdown code fence and nothing else.
    """

    name: ClassVar[str] = "json-parses"
    fence: bool = False
    depth: int = DEPTH

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Parse the answer."""
        text, start = fenced(answer.text) if self.fence else (answer.text, 0)
        try:
            parse(text, limit=self.depth)
        except NotJson as fault:
            return _not_json(fault, start, len(answer.text))
        return passed()


@dataclass(frozen=True)
class JsonSchema(Check):
    """The answer is JSON and fits a JSON Schema (Draft 2020-12): ``schema``, or the one in the item's ``metadata``
    under ``schema_from``. An item without a schema is not concerned.
    """

    name: ClassVar[str] = "json-schema"
    schema: dict[str, Any] | bool | None = None
    schema_from: str = "schema"
    formats: bool = True
    fence: bool = False
    depth: int = DEPTH

    def __post_init__(self) -> None:
        """Refuse a schema that is itself invalid before any answer is read."""
        _ = self._given

    @cached_property
    def _given(self) -> Schema | None:
        return None if self.schema is None else compiled(self.schema, formats=self.formats)

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Parse and validate the answer."""
        ready = self._given
        if ready is None:
            given = item.metadata.get(self.schema_from)
            if not isinstance(given, dict | bool):
                return None
            ready = compiled(given, formats=self.formats)
        text, start = fenced(answer.text) if self.fence else (answer.text, 0)
        try:
            value = parse(text, limit=self.depth)
        except NotJson as fault:
            return _not_json(fault, start, len(answer.text))
        faults = ready.faults(value)
        if not faults:
            return passed()
        return failed("; ".join(faults), Span(start, start + len(text), "does not fit the schema"))


def _not_json(fault: NotJson, start: int, length: int) -> Observation:
    at = min(start + fault.position, length)
    return failed(f"not JSON: {fault.reason} (character {at})", Span(at, min(at + 1, length), fault.reason))
