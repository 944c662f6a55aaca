"""Hack and probe reports kept in the home folder, named by their content, with an entry in the register.

``hacks/<kind>-<digest>.json`` holds the report as it was printed by ``--json``; the register (kinds ``hack`` and
``probe``, subject the run) says when it was made, of what, and under which digest. The same report is kept once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from calibration.estimates import Estimate

from ..errors import StoreError
from ..register import Register
from ..types import Measure

if TYPE_CHECKING:
    from ..register import Entry

__all__ = ["Kept", "keep", "latest", "measures_of"]

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
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(path)
    register = Register(home)
    known = [entry for entry in register.entries(kind, subject) if entry.body.get("digest") == digest]
    body = {"digest": digest, "file": f"{_FOLDER}/{path.name}", **head}
    entry = known[-1] if known else register.append(kind, subject, body, at=at)
    return Kept(entry, path, orjson.loads(text))


def latest(home: Path, kind: str, subject: str | None = None) -> Kept | None:
    """The newest stored report of a kind (about one subject); ``None`` where there is none.

    Raises ``StoreError`` where its file is gone or is not what the register says.
    """
    entries = Register(home).entries(kind, subject)
    if not entries:
        return None
    entry = entries[-1]
    path = home / str(entry.body["file"])
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != entry.body["digest"]:
        state = "is gone" if not data else "was changed"
        raise StoreError(
            f"{path}: {state} since {entry.id} was written; make it again with: judge {kind} {subject or ''}"
        )
    return Kept(entry, path, orjson.loads(data))


def measures_of(body: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures of a stored report."""
    return tuple(_measure(row) for row in _rows(body))


def _rows(body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    rows = body.get("measures")
    return rows if isinstance(rows, list) else ()


def _measure(row: Mapping[str, Any]) -> Measure:
    figures = {name: _estimate(row.get(name)) for name in ("candidate", "baseline", "difference")}
    return Measure(
        name=row["name"], layer=row["layer"], axis=row["axis"], unit=row["unit"], missing=row["missing"],
        examples=tuple(row["examples"]), **figures,
    )  # fmt: skip


def _estimate(row: Mapping[str, Any] | None) -> Estimate | None:
    if row is None:
        return None
    low, high = row["low"], row["high"]  # JSON has no infinity: an open end was written as null
    return Estimate(
        row["value"], -math.inf if low is None else low, math.inf if high is None else high, row["level"], row["n"],
        row["clusters"], row["method"],
    )  # fmt: skip
