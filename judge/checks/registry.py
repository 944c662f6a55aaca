"""The checks that there are: a literal table of the shipped ones, and those a user names.

A check is built from a name and its options; options are validated strictly against the check's own fields, so that a
misspelt option is an error with the one that was meant.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from ..errors import InputError
from .check import Check

__all__ = ["CHECKS", "Registry"]

CHECKS: Mapping[str, tuple[str, str]] = {
    "not-empty": ("text", "NotEmpty"),
    "contains": ("text", "Contains"),
    "not-contains": ("text", "NotContains"),
    "regex": ("text", "Regex"),
    "json-parses": ("structure", "JsonParses"),
    "json-schema": ("structure", "JsonSchema"),
    "tool-calls": ("tools", "ToolCalls"),
    "expected-calls": ("tools", "ExpectedCalls"),
    "instructions": ("instructions", "Instructions"),
    "language": ("language", "Language"),
    "format": ("language", "Format"),
    "refusal": ("refusal", "Refusal"),
    "citations": ("citations", "Citations"),
    "links": ("citations", "Links"),
    "grounded": ("grounded", "Grounded"),
    "budget": ("budgets", "Budget"),
    "spoken": ("budgets", "Spoken"),
}
"""Every shipped check: its module in this package, and its class."""


@dataclass(slots=True)
class Registry:
    """The shipped checks and those of the user, by name.

    ``python`` allows a suite to name a class of any importable module (``python:module:Class``): that runs its code, so
    it is off unless the caller says so.
    """

    own: dict[str, type[Check]] = field(default_factory=dict)
    python: bool = False

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*CHECKS, *self.own})

    def add(self, path: Path) -> list[str]:
        """Run a Python file of the user and take up the checks that it defines; returns their names.

        Raises ``InputError`` for a file that cannot be run, defines no check, or redefines a shipped one.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file of checks")
        name = f"judge_own_checks_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path}: not a Python file; name it .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything; it becomes one clear message
            del sys.modules[name]
            raise InputError(f"{path}: cannot be run: {type(error).__name__}: {error}") from None
        found = {
            value.name: value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Check) and value.__module__ == name and value.name
        }
        if not found:
            raise InputError(f"{path}: defines no check: a frozen dataclass that subclasses Check and has a `name`")
        if taken := sorted(found.keys() & CHECKS.keys()):
            raise InputError(f"{path}: {taken[0]!r} is the name of a shipped check; give yours another")
        self.own |= found
        return sorted(found)

    def find(self, ref: str) -> type[Check]:
        """The class behind ``name``, ``name@version`` or ``python:module:Class``.

        Raises ``InputError`` for an unknown name (with the nearest one), another version, or Python that is not
        allowed.
        """
        if ref.startswith("python:"):
            return self._imported(ref)
        name, at, version = ref.partition("@")
        found = self.own.get(name) or (_shipped(name) if name in CHECKS else None)
        if found is None:
            near = get_close_matches(name, self.names(), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.names())}"
            raise InputError(f"unknown check {name!r}; {hint} (checks of your own: --checks FILE.py)")
        if at and version != str(found.version):
            raise InputError(
                f"check {ref!r}: here it is {name}@{found.version}; name that, or install an older package"
            )
        return found

    def _imported(self, ref: str) -> type[Check]:
        if not self.python:
            raise InputError(f"{ref!r} runs Python of your own; allow it with --allow-python")
        module, _, name = ref.removeprefix("python:").partition(":")
        try:
            found = getattr(import_module(module), name)
        except Exception as error:  # noqa: BLE001 - the user's module may raise anything; it becomes one clear message
            raise InputError(f"{ref!r} cannot be imported: {type(error).__name__}: {error}") from None
        if not (isinstance(found, type) and issubclass(found, Check) and found.name):
            raise InputError(f"{ref!r} is no check: a frozen dataclass that subclasses Check and has a `name`")
        return found

    def build(self, ref: str, options: Mapping[str, Any]) -> Check:
        """A check with its options. Raises ``InputError`` naming the option that does not fit."""
        kind = self.find(ref)
        try:
            built = _adapter(kind).validate_json(orjson.dumps(dict(options)))
        except ValidationError as error:
            raise InputError(f"{kind.name}: {_fault(kind, error)}") from None
        except (PydanticUserError, TypeError) as error:
            # A check of the user's: a field of a type that no file can give, or no `examine`.
            raise InputError(f"{kind.name}: cannot be configured: {str(error).splitlines()[0]}") from None
        assert isinstance(built, Check)
        return built


@cache
def _shipped(name: str) -> type[Check]:
    module, kind = CHECKS[name]
    found = getattr(import_module(f".{module}", __package__), kind)
    assert isinstance(found, type) and issubclass(found, Check) and found.name == name
    return found


@cache
def _adapter(kind: type[Check]) -> TypeAdapter[Check]:
    return TypeAdapter(kind)


def _fault(kind: type[Check], error: ValidationError) -> str:
    """The first thing that is wrong with options, in the words of a suite."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"])
    known = [name for name in kind.__dataclass_fields__ if not name.startswith("_")]
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = get_close_matches(place, known, 1)
        return f"no option {place!r}; " + (f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}")
    if detail["type"] in ("missing", "missing_argument"):
        return f"the option {place!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    if not place:
        return message
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) and len(repr(given)) <= 60 else ""
    return f"option {place!r}: {message}{shown}"
