"""The register of one home folder: what was decided, by whom and on what evidence; append-only and hash-chained.

``register.jsonl`` holds one JSON object a line. Each carries the digest of the line before it, so that an edited or
reordered line, or one removed from between others, shows when the chain is read. Whole lines cut off at the end do not:
whoever has to exclude that keeps the id of the last entry elsewhere (a pull request, a ticket). Decisions, overrides,
rollout events, candidates and the headers of check runs stand here; nothing is ever changed, a correction is a new
entry.

A line that was only half written (the process died, the disk was full) is cut off by the next ``append``: whoever wrote
it was never told that it stands.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .errors import StoreError

__all__ = ["Entry", "Register"]

_START = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: what kind it is, about whom, when (UTC, ISO 8601), by whom, and what.

    ``seq`` counts from 1, ``prev`` is the digest of the entry before, ``digest`` (sha256, hex) covers everything else.
    """

    seq: int
    kind: str
    subject: str
    at: str
    by: str
    body: Mapping[str, Any] = field(default_factory=dict)
    prev: str = _START
    digest: str = ""

    @property
    def id(self) -> str:
        """How the entry is called: its kind and the beginning of its digest, for example ``decision-1f0c9a2b``."""
        return f"{self.kind}-{self.digest[:8]}"


class Register:
    """The register file of a home folder; see the module for what it promises.

    >>> register = Register(Path(".judge"))                                       # doctest: +SKIP
    >>> entry = register.append("decision", "r-1a2b3c", {"says": "HOLD"}, at=now, by="ada")    # doctest: +SKIP
    >>> [entry.id for entry in register.entries("decision")]                      # doctest: +SKIP
    ['decision-1f0c9a2b']
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "register.jsonl"

    def append(
        self,
        kind: str,
        subject: str,
        body: Mapping[str, Any],
        *,
        at: str,
        by: str = "",
        check: Callable[[Sequence[Entry]], None] | None = None,
    ) -> Entry:
        """Add one entry; it is on the disk when this returns. Two processes take turns.

        ``check`` is told all entries while nobody else can add one; what it raises keeps the entry out. Raises
        ``StoreError`` where the chain is broken, and the ``OSError`` of a write that failed; nothing stands then.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            known = list(self._read())
            last, whole = known[-1] if known else (None, 0)
            if check is not None:
                check([entry for entry, _end in known])
            os.ftruncate(fd, whole)
            seq, prev = (1, _START) if last is None else (last.seq + 1, last.digest)
            fields = {"seq": seq, "kind": kind, "subject": subject, "at": at, "by": by, "body": body, "prev": prev}
            text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
            digest = hashlib.sha256(text).hexdigest()
            line = orjson.dumps({**orjson.loads(text), "digest": digest}, option=orjson.OPT_SORT_KEYS) + b"\n"
            try:
                written = os.write(fd, line)
                while written < len(line):
                    written += os.write(fd, line[written:])
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, whole)
                raise
            return _entry(orjson.loads(line))
        finally:
            os.close(fd)

    def entries(self, kind: str | None = None, subject: str | None = None) -> list[Entry]:
        """All entries in order, or those of one kind or about one subject; the whole chain is verified.

        Raises ``StoreError`` naming the first line that does not fit. A torn last line is left out.
        """
        return [
            entry
            for entry, _end in self._read()
            if (kind is None or entry.kind == kind) and (subject is None or entry.subject == subject)
        ]

    def find(self, name: str) -> Entry:
        """The one entry whose ``id`` begins with ``name``; raises ``StoreError`` where none or several do."""
        found = [entry for entry in self.entries() if entry.id.startswith(name)]
        if len(found) != 1:
            raise StoreError(
                f"{name!r} is {'ambiguous' if found else 'not in'} {'in ' if found else ''}{self.path}"
                f"{': ' + ', '.join(entry.id for entry in found[:5]) if found else ''}"
            )
        return found[0]

    def _read(self) -> Iterator[tuple[Entry, int]]:
        """Each entry with the offset of its end; stops before a torn last line."""
        if not self.path.exists():
            return
        prev, end = _START, 0
        with self.path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield self._checked(line, number, prev), end
                prev = orjson.loads(line)["digest"]

    def _checked(self, line: bytes, number: int, prev: str) -> Entry:
        try:
            fields = orjson.loads(line)
            digest = fields.pop("digest")
            fits = hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest() == digest
            fits = fits and fields["prev"] == prev and fields["seq"] == number
            entry = Entry(**fields, digest=digest)
        except (ValueError, KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise StoreError(
                f"{self.path}: line {number} does not fit the chain: it, or a line before it, was edited, removed or "
                "damaged; restore the file from a copy"
            )
        return entry


def _entry(fields: Mapping[str, Any]) -> Entry:
    return Entry(**fields)
