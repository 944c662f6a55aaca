"""Reports about a run kept in the home folder, named by their content, with an entry in the register.

``hacks/<kind>-<digest>.json`` holds the report as it was printed by ``--json``; the register (kinds ``hack``,
``ground`` and ``probe``, subject the run) says when it was made, of what, and under which digest. The same report is
kept once, and entered again only where another one was made since: the newest entry is what was made last.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from calibration.estimates import Estimate

from .errors import StoreError
from .register import Register
from .types import Measure
from .writing import make_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from .register import Entry

__all__ = ["Kept", "keep", "latest", "measures_of", "read"]

_FOLDER = "hacks"


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored report: its register entry, its file, and its content."""

    entry: Entry
    path: Path
    body: Mapping[str, Any]


def keep(home: Path, kind: str, subject: str, text: str, *, at: str, head: Mapping[str, Any]) -> Kept:
    """Store a report (JSON text) and enter it in the register; ``head`` goes into the entry beside digest and file."""
    data = text.encode("utf-8") + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    path = home / _FOLDER / f"{kind}-{digest[:12]}.json"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        make_folder(path.parent)
        write_whole(path, data, durable=True)  # the register must not outlive what it names
    register = Register(home)
    newest = register.entries(kind, subject)[-1:]
    body = {"digest": digest, "file": f"{_FOLDER}/{path.name}", **head}
    same = newest and newest[0].body == body
    entry = newest[0] if same else register.append(kind, subject, body, at=at)
    return Kept(entry, path, orjson.loads(text))


def latest(home: Path, kind: str, subject: str | None = None) -> Kept | None:
    """The newest stored report of a kind (about one subject); ``None`` where there is none.

    Raises ``StoreError`` where its file is gone or is not what the register says.
    """
    entries = Register(home).entries(kind, subject)
    return read(home, entries[-1]) if entries else None


def read(home: Path, entry: Entry) -> Kept:
    """The report of an entry, held against the digest that the register gives it.

    Raises ``StoreError`` where its file is gone or is not what the register says.
    """
    path = home / str(entry.body["file"])
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != entry.body["digest"]:
        state = "is gone" if not data else "was changed"
        raise StoreError(f"{path}: {state} since {entry.id} was written; make it again with: judge {entry.kind}")
    return Kept(entry, path, orjson.loads(data))


def measures_of(body: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures of a stored report, or of the end of a check run; raises ``StoreError`` for one that is none."""
    return tuple(_measure(row) for row in body.get("measures", ()))


def _measure(row: Mapping[str, Any]) -> Measure:
    try:
        sides = {side: _estimate(row.get(side)) for side in ("candidate", "baseline", "difference")}
        return Measure(**{**row, **sides, "examples": tuple(row.get("examples", ()))})
    except (KeyError, TypeError) as error:
        raise StoreError(f"measure {row.get('name')!r} cannot be read ({error}); make its report again") from error


def _estimate(raw: Mapping[str, Any] | None) -> Estimate | None:
    if raw is None:
        return None
    ends = {"low": -math.inf, "high": math.inf}  # JSON has no infinity: an open end was written as null
    return Estimate(**{**raw, **{name: end for name, end in ends.items() if raw[name] is None}})
