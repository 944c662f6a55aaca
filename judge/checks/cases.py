"""Known-failure cases: prompts that once went wrong, frozen with digest and origin, rerun every release.

A case file is an eval set without answers, one JSON object a line: ``id``, ``prompt`` or ``messages``, ``checks`` (what
has to hold), ``origin`` (``source``, ``date``, ``why``) and ``digest`` (SHA-256 of all that but the origin). The file
is what ``judge generate`` takes; the answers are then checked against the frozen prompts and the frozen checks, not
against what an eval set says today.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import InputError
from ..types import Item, Message, Pair
from ..writing import write_whole

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["Case", "Cases", "case_digest", "case_lines", "freeze", "read_cases", "write_cases"]

_ORIGIN = ("source", "date", "why")


@dataclass(frozen=True, slots=True)
class Case:
    """One frozen case: the item (with its checks), where it comes from, and the digest that holds it."""

    id: str
    item: Item
    origin: Mapping[str, str]
    digest: str


@dataclass(slots=True)
class Cases:
    """The frozen cases of a suite while pairs go by: which were run as they are, and which were not."""

    cases: dict[str, Case]
    run: set[str] = field(default_factory=set)
    altered: list[str] = field(default_factory=list)

    def hold(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs, those of a case with the frozen checks; one whose prompt is no longer the frozen one is noted and
        not counted as run.
        """
        for pair in pairs:
            case = self.cases.get(pair.id)
            if case is None:
                yield pair
                continue
            item = replace(pair.item, checks=case.item.checks)
            if case_digest(pair.id, item) == case.digest:
                self.run.add(pair.id)
            else:
                self.altered.append(pair.id)
            yield replace(pair, item=item)

    @property
    def missing(self) -> list[str]:
        """Ids of cases that no pair answered as they are frozen."""
        return [name for name in self.cases if name not in self.run]


def case_digest(name: str, item: Item) -> str:
    """What a case is held to: id, prompt, messages, sources, tools and checks."""
    parts = [
        name,
        "" if item.messages else item.prompt,
        [[turn.role, turn.content] for turn in item.messages],
        list(item.context),
        [dict(tool) for tool in item.tools],
        [dict(check) for check in item.checks],
    ]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def read_cases(path: Path | Traversable) -> dict[str, Case]:
    """The cases of a file by id. Raises ``InputError`` for a row that is damaged, edited after it was frozen, or lacks
    its origin.
    """
    return _read(path.read_bytes(), str(path))


def _read(lines: bytes, path: str) -> dict[str, Case]:
    found: dict[str, Case] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = orjson.loads(line)
            item = Item(
                prompt=row.get("prompt", ""),
                messages=tuple(Message(turn["role"], turn["content"]) for turn in row.get("messages", ())),
                category=row.get("category", ""),
                tags=tuple(row.get("tags", ())),
                context=tuple(row.get("context", ())),
                checks=tuple(row["checks"]),
                tools=tuple(row.get("tools", ())),
            )
            name, origin, digest = str(row["id"]), row["origin"], row["digest"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: no frozen case ({type(error).__name__}: {error})") from None
        if not isinstance(origin, dict) or not all(isinstance(origin.get(key), str) and origin[key] for key in _ORIGIN):
            raise InputError(f"{where}: case {name}: origin needs {', '.join(_ORIGIN)}")
        if case_digest(name, item) != digest:
            raise InputError(f"{where}: case {name} was edited after it was frozen; restore it, or freeze it anew")
        if name in found:
            raise InputError(f"{where}: case {name} stands twice; remove one")
        found[name] = Case(name, item, origin, digest)
    if not found:
        raise InputError(f"{path}: no case in it")
    return found


def freeze(name: str, item: Item, origin: Mapping[str, str]) -> dict[str, Any]:
    """One row of a case file. Raises ``InputError`` where it has no check or no origin: it could not fail, or nobody
    would know why it is there.
    """
    if not item.checks:
        raise InputError(f"case {name}: it has no check; a case without one cannot fail")
    if not all(origin.get(key) for key in _ORIGIN):
        raise InputError(f"case {name}: origin needs {', '.join(_ORIGIN)}")
    row: dict[str, Any] = {"id": name}
    if item.messages:
        row["messages"] = [{"role": turn.role, "content": turn.content} for turn in item.messages]
    else:
        row["prompt"] = item.prompt
    parts = {
        "category": item.category,
        "tags": list(item.tags),
        "context": list(item.context),
        "tools": [dict(tool) for tool in item.tools],
    }
    row |= {key: value for key, value in parts.items() if value}
    checks = [dict(check) for check in item.checks]
    return {**row, "checks": checks, "origin": dict(origin), "digest": case_digest(name, item)}


def write_cases(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a case file, whole or not at all; returns the number of cases. Raises ``InputError`` where it exists,
    and for rows that ``read_cases`` would refuse.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; name another file (cases are never overwritten)")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first")
    lines = case_lines(rows, path)
    write_whole(path, lines, durable=True)
    return lines.count(b"\n")


def case_lines(rows: Iterable[Mapping[str, Any]], path: Path) -> bytes:
    """What a case file at ``path`` holds for these rows; raises ``InputError`` where ``read_cases`` would refuse it."""
    lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    _read(lines, str(path))
    return lines
