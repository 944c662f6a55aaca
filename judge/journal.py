"""The append-only journal of one run: what was asked and answered, one checksummed line each.

The journal is the truth and the database a view of it. A line is ``CRC32 as 8 hex digits``, one space, one JSON object,
newline. The first record is the run's header, then ``pair`` and ``reply`` records in any order, at most one ``seal`` at
the end. A line is handed to the operating system before ``append`` returns, so ``kill -9`` loses nothing that was
appended; ``fsync`` runs at most every 50 ms, which bounds what a power cut can take. A torn last line (one without its
newline) is cut off when the journal is opened again and reported by ``scan``; a whole line with a wrong checksum is an
error, never skipped.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from .errors import JournalError, StoreError
from .types import Answer, Item, Message, Outcome, Pair, Reply, Usage

__all__ = ["Journal", "Scan", "decode_pair", "decode_reply", "encode_pair", "encode_reply", "records", "scan"]

FORMAT = 1
"""Version of the record layout, kept in every header; a newer one is refused."""

_SYNC_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Scan:
    """What a look through a journal found: whole records, bytes that are whole, and the torn tail in bytes (0 if
    none).
    """

    records: int
    good_bytes: int
    torn_bytes: int
    sealed: bool


class Journal:
    """One open journal; a second process that opens the same file is refused until this one closes."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open for appending; ``create`` makes a new file and refuses an existing one.

        Raises ``StoreError`` where the file is missing, exists already, is damaged before its end, or is held by
        another process.
        """
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, flags, 0o644)
        except FileExistsError:
            raise StoreError(
                f"{path}: the journal exists already; continue it with `judge resume {path.stem}`"
            ) from None
        except FileNotFoundError:
            raise StoreError(f"{path}: no such journal; list runs with `judge report --list`") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise StoreError(f"{path}: another process is writing this run; wait for it or stop it") from None
        if not create:
            self._take_up()
        self._synced = time.monotonic()

    def _take_up(self) -> None:
        """Cut the torn tail of an existing journal; a sealed one is not opened."""
        try:
            found = scan(self.path)
            if found.sealed:
                raise StoreError(f"{self.path}: this run is sealed and stays as it is; start a new run")
            os.ftruncate(self._fd, found.good_bytes)
        except StoreError:
            os.close(self._fd)
            raise

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write one record; it survives the death of this process once this returns."""
        body = orjson.dumps({"t": kind, **record}, default=str)
        line = b"%08x %b\n" % (zlib.crc32(body), body)
        written = os.write(self._fd, line)
        while written < len(line):
            written += os.write(self._fd, line[written:])
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to the disk."""
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and release the file."""
        self.sync()
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def scan(path: Path) -> Scan:
    """Check every line of a journal; the last may lack its end (torn), any other damage raises ``StoreError`` with the
    line number.
    """
    count, good, sealed = 0, 0, False
    size = path.stat().st_size
    for number, line, record in _lines(path):
        if record is None:
            if line.endswith(b"\n"):
                raise JournalError(
                    f"{path}: line {number} is damaged (checksum); restore the file from a copy, or keep the lines "
                    f"before it (`head -n {number - 1} {path.name} > whole`, then put `whole` in its place) and resume"
                )
            break
        count, good, sealed = count + 1, good + len(line), record["t"] == "seal"
    return Scan(count, good, size - good, sealed)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole record of a journal in order, the header first; a torn tail is left out (see ``scan``).

    Raises ``StoreError`` for a damaged line, a file without a header, or a header of a newer format.
    """
    empty = True
    for _number, _line, record in _lines(path):
        if record is None:
            scan(path)
            break
        if empty and record["t"] != "run":
            raise JournalError(
                f"{path}: the first record is {record['t']!r}, not a run header; this is no journal of a run"
            )
        if empty and record.get("format", 0) > FORMAT:
            raise JournalError(
                f"{path}: written by a newer version (format {record['format']}); upgrade touchstone-judge"
            )
        empty = False
        yield record
    if empty:
        raise JournalError(
            f"{path}: line 1: no whole run header; the run died before it began, delete the file and start again"
        )


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Number, raw bytes and decoded record of each line; ``None`` for one that is damaged or torn."""
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            body = line[9:-1]
            whole = line.endswith(b"\n") and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(body)
            yield number, line, orjson.loads(body) if whole else None


def encode_pair(pair: Pair) -> dict[str, Any]:
    """A pair as plain JSON values, without its empty fields."""
    return {
        "id": pair.id,
        "item": _filled(pair.item),
        "candidate": _filled(pair.candidate),
        "baseline": _filled(pair.baseline),
        **({"label": pair.label} if pair.label else {}),
    }


def decode_pair(data: Mapping[str, Any]) -> Pair:
    """The inverse of ``encode_pair``."""
    item = dict(data["item"])
    item["messages"] = tuple(
        Message(turn.get("role", ""), turn.get("content", "")) for turn in item.get("messages", ())
    )
    for name in ("tags", "context"):
        item[name] = tuple(item.get(name, ()))
    sides = {
        side: Answer(**{**data[side], "tool_calls": tuple(data[side].get("tool_calls", ()))})
        for side in ("candidate", "baseline")
    }
    label = Outcome(data["label"]) if data.get("label") else None
    return Pair(data["id"], Item(**{"prompt": "", **item}), **sides, label=label)


def encode_reply(reply: Reply) -> dict[str, Any]:
    """A reply as plain JSON values, without its empty fields."""
    return _filled(reply)


def decode_reply(data: Mapping[str, Any]) -> Reply:
    """The inverse of ``encode_reply``."""
    values = dict(data)
    if values.get("probs") is not None:
        values["probs"] = tuple(values["probs"])
    values["flags"] = tuple(values.get("flags", ()))
    values["usage"] = Usage(**values.get("usage", {}))
    return Reply(**values)


def _filled(value: Any) -> dict[str, Any]:
    """The fields of a flat frozen dataclass that differ from empty and default, dataclass values turned into dicts."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if (item in (None, "", (), {}) or item == field.default) and field.name != "text":
            continue
        if dataclasses.is_dataclass(item):
            item = _filled(item)
        elif isinstance(item, tuple):
            item = [_filled(part) if dataclasses.is_dataclass(part) else part for part in item]
        elif isinstance(item, Mapping):
            item = dict(item)
        out[field.name] = item
    return out
