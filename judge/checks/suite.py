"""A suite: which checks are made on which items, as a YAML file, versioned and frozen by digest like a rubric.

    name: support
    version: 1
    summary: What every answer of the support bot has to keep to.
    checks:
      - check: json-schema
        id: ticket
        where: {tags: [ticket]}
        with:
          schema: {type: object, required: [id]}

Shipped suites stand in ``judge/suites/`` and are held to the digests in ``frozen.json`` there; a suite of your own is a
path. A suite may bring frozen cases (``cases``): prompts with their own checks, rerun every release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rubrics.errors import RubricError
from rubrics.source import Source, read_yaml

from ..errors import InputError
from ..types import Item, Severity
from .check import Check
from .registry import Registry

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from pydantic_core import ErrorDetails

__all__ = ["Entry", "Planned", "Suite", "SuiteFile", "Where", "load_suite", "shipped_suites", "suite_digests"]

NAME = r"^[a-z][a-z0-9]*([.-][a-z0-9]+)*$"
_FROZEN = "frozen.json"
DEEPEST = 40
_LISTS = Field(strict=False)  # a YAML list arrives as a Python list; its items stay strict

Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Scalar = str | int | float | bool


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)


class Where(_Strict):
    """Which items an entry concerns: all of what is given has to hold, one value of each list.

    ``metadata`` compares a field with a value or a list of values, as text and without case (``true`` is true).
    """

    category: Annotated[tuple[str, ...], _LISTS] = ()
    tags: Annotated[tuple[str, ...], _LISTS] = ()
    metadata: dict[str, Scalar | list[Scalar]] = {}

    def holds(self, item: Item) -> bool:
        """Whether an item is concerned."""
        if self.category and item.category not in self.category:
            return False
        if self.tags and not set(self.tags) & set(item.tags):
            return False
        return all(_equal(item.metadata.get(name), wanted) for name, wanted in self.metadata.items())


def _equal(given: object, wanted: Scalar | list[Scalar]) -> bool:
    options = wanted if isinstance(wanted, list) else [wanted]
    return given is not None and str(given).casefold() in {str(option).casefold() for option in options}


class Entry(_Strict):
    """One check of a suite: ``check`` names it (``name`` or ``name@version``), ``with`` configures it.

    ``id`` tells two uses of one check apart; ``severity`` replaces the check's own; ``required`` makes it an error when
    the check concerns no item at all.
    """

    check: Annotated[str, Field(min_length=1, max_length=200)]
    id: Name | None = None
    severity: Annotated[Severity, Field(strict=False)] | None = None
    where: Where = Where()
    with_: Annotated[dict[str, Any], Field(alias="with")] = {}
    required: bool = False
    why: Text | None = None


class SuiteFile(_Strict):
    """The fields of a suite file; the published JSON Schema is made from this model."""

    name: Name
    version: Annotated[int, Field(ge=1, le=9999)]
    summary: Text
    checks: Annotated[tuple[Entry, ...], _LISTS] = ()
    cases: Annotated[str, Field(pattern=r"^[\w.@-]+\.jsonl$")] | None = None
    changelog: Annotated[tuple[Text, ...], _LISTS] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.checks and self.cases is None:
            raise ValueError("a suite without checks checks nothing; add one, or `cases:`")
        return self


EVERYWHERE = Where()
"""Every item."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One entry ready to run: its ``id`` (unique in the suite), the check, its severity and the items it concerns."""

    id: str
    check: Check
    severity: Severity
    where: Where = EVERYWHERE
    required: bool = False

    @property
    def ref(self) -> str:
        """How its findings are called: ``name@version``, with ``#id`` where it has one (``#item``: an item's own)."""
        mark = "item" if self.id == f"{self.check.name}.item" else self.id
        return self.check.ref if self.id == self.check.name else f"{self.check.ref}#{mark}"


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite read: what it plans, its identity, and whether its text is frozen."""

    name: str
    version: int
    summary: str
    digest: str
    text: str
    planned: tuple[Planned, ...]
    registry: Registry
    released: bool = False
    cases: Traversable | None = None

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def pinned(self) -> str:
        """What names exactly this text: the ref, with the head of the digest where it may still change."""
        return self.ref if self.released else f"{self.ref}#{self.digest[:12]}"

    def own(self, item: Item) -> tuple[Planned, ...]:
        """The checks that an item brings itself (``Item.checks``). Raises ``InputError`` for one that is no check."""
        if not item.checks:
            return ()
        text = orjson.dumps([dict(check) for check in item.checks], default=str)
        return _own(self._key(), text)

    def _key(self) -> _Builder:
        return _Builder(self.registry)


class _Builder:
    """A registry as a key of a cache: equal where it is the same one."""

    __slots__ = ("registry",)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __hash__(self) -> int:
        return id(self.registry)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Builder) and other.registry is self.registry


@lru_cache(maxsize=2048)
def _own(builder: _Builder, text: bytes) -> tuple[Planned, ...]:
    planned = []
    for number, given in enumerate(orjson.loads(text)):
        try:
            entry = Entry.model_validate(given)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in detail["loc"])
            near = get_close_matches(place, _keys(Entry), 1)
            hint = f"; did you mean {near[0]!r}?" if detail["type"] == "extra_forbidden" and near else ""
            raise InputError(f"checks.{number}.{place}: {detail['msg']}{hint}") from None
        one = _plan(entry, builder.registry, f"checks.{number}")
        planned.append(one if entry.id else replace(one, id=f"{one.check.name}.item"))
    return tuple(planned)


def _plan(entry: Entry, registry: Registry, place: str) -> Planned:
    try:
        check = registry.build(entry.check, entry.with_)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    severity = entry.severity or check.severity
    return Planned(entry.id or check.name, check, severity, entry.where, entry.required)


def shipped_suites() -> tuple[str, ...]:
    """The refs of the shipped suites, sorted."""
    return tuple(sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml")))


def suite_digests() -> dict[str, str]:
    """The digests of the shipped suites' texts, as ``frozen.json`` has to hold them."""
    return {
        ref: read_yaml(_folder().joinpath(f"{ref}.yaml").read_bytes(), ref, deepest=DEEPEST).digest
        for ref in shipped_suites()
    }


def _folder() -> Traversable:
    return files("judge").joinpath("suites")


def load_suite(ref: str, registry: Registry | None = None) -> Suite:
    """Read a suite: ``default@1``, ``default`` (its latest version), or the path of a file of your own.

    Raises ``InputError``: unknown, not readable, a key or option that does not exist, a check that is unknown or
    configured wrongly, a frozen text that was edited. Nothing is checked then.
    """
    path: Traversable
    if ref.endswith((".yaml", ".yml")) or "/" in ref:
        path, shown, shipped = Path(ref), ref, False
        if not path.is_file():
            raise InputError(f"{ref}: no such suite file; shipped are {', '.join(shipped_suites())}")
    else:
        path, shown, shipped = _folder().joinpath(f"{_latest(ref)}.yaml"), f"suite {ref}", True
    try:
        source = read_yaml(path.read_bytes(), shown, deepest=DEEPEST)
    except RubricError as error:
        raise InputError(str(error)) from None
    frozen = _frozen(_folder()) if shipped else _frozen(Path(ref).parent)
    return _suite(source, registry or Registry(), frozen, path if shipped else Path(ref))


def _latest(ref: str) -> str:
    known = shipped_suites()
    if ref in known:
        return ref
    versions = [one for one in known if one.partition("@")[0] == ref]
    if versions:
        return max(versions, key=lambda one: int(one.partition("@")[2]))
    names = sorted({*known, *(one.partition("@")[0] for one in known)})
    near = get_close_matches(ref, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "one of your own is a path that ends in .yaml"
    raise InputError(f"unknown suite {ref!r}; {hint}; shipped are {', '.join(known)}")


def _frozen(folder: Traversable) -> dict[str, str]:
    try:
        table = json.loads(folder.joinpath(_FROZEN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise InputError(f"{folder.joinpath(_FROZEN)}: not JSON: {error}; restore it") from None
    return {str(key): str(value) for key, value in table.items()} if isinstance(table, dict) else {}


def _suite(source: Source, registry: Registry, frozen: Mapping[str, str], path: Traversable) -> Suite:
    try:
        made = SuiteFile.model_validate(source.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        raise InputError(f"{_problem(source, details[0])}{more}") from None
    ref = f"{made.name}@{made.version}"
    if frozen.get(ref, source.digest) != source.digest:
        raise InputError(
            f"{source.path}: {ref} is frozen with another text; undo the edit, or raise `version:` (it is "
            f"{source.digest[:12]}, frozen is {frozen[ref][:12]})"
        )
    planned: list[Planned] = []
    for number, entry in enumerate(made.checks):
        one = _plan(entry, registry, f"{source.path}:{source.line(('checks', number))}: checks.{number}")
        if any(one.id == other.id for other in planned):
            raise InputError(str(source.problem(("checks", number), f"id {one.id!r} is used twice; give it an `id:`")))
        planned.append(one)
    cases = None
    if made.cases is not None:
        cases = (path.parent if isinstance(path, Path) else _folder()).joinpath(made.cases)
        if not cases.is_file():
            raise InputError(f"{source.path}: cases: {made.cases}: no such file beside the suite")
    return Suite(
        made.name, made.version, made.summary, source.digest, source.text, tuple(planned), registry,
        released=ref in frozen, cases=cases,
    )  # fmt: skip


def _problem(source: Source, detail: ErrorDetails) -> str:
    """One pydantic error in the words of the file."""
    field = detail["loc"]
    if detail["type"] == "missing":
        return str(source.problem(field, f"missing; add `{field[-1]}:`"))
    if detail["type"] == "extra_forbidden":
        home = Entry if len(field) == 3 else Where if "where" in field else SuiteFile
        near = get_close_matches(str(field[-1]), _keys(home), 1)
        return str(source.problem(field, "unknown key; " + (f"did you mean `{near[0]}`?" if near else "remove it")))
    given = detail["input"]
    shown = f" (given: {given!r})" if isinstance(given, str | int | float) and len(repr(given)) <= 60 else ""
    return str(source.problem(field or ("checks",), detail["msg"].removeprefix("Value error, ") + shown))


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
