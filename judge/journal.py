"""The append-only journal of one run: what was asked and answered, one checksummed line each.

The journal is the truth and the database a view of it. A line is ``CRC32 as 8 hex digits``, one space, one JSON object,
newline. The first record is the run's header (``run``), then in any order

* ``probe``: what finding out the judge's mode took before the run began, where it was asked;
* ``pair``: the texts of one pair and its ``asks`` (``encode_asks``), before anything is asked about it;
* ``intent``: keys that are about to be asked, with the most that each can cost where that is known. A key without a
  later ``reply`` was possibly paid for;
* ``lost``: attempts of calls on their way that were possibly paid and are made again;
* ``reply``: one raw answer, with its key; ``reused`` where it was taken over and not asked for;
* ``stop``: the run ended in good order before its end (Ctrl-C, a judge that gave up, the budget);
* ``resume``: another process took the run up;

and at most one ``seal`` at the end. A line is handed to the operating system before ``flush`` returns, so ``kill -9``
loses nothing that was flushed; a thread of its own calls ``fsync`` within 50 ms of a write, which bounds what a power
cut can take. A torn last line (one without its newline) is cut off when the journal is opened again and reported by
``scan``; a whole line with a wrong checksum is an error, never skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from . import failpoints
from .errors import JournalError, StoreError
from .types import Answer, Ask, Item, Message, Outcome, Pair, Reply, Usage
from .writing import make_folder, sync

__all__ = [
    "Journal",
    "Scan",
    "bodies",
    "decode_pair",
    "decode_reply",
    "encode_asks",
    "encode_pair",
    "encode_reply",
    "records",
    "scan",
]

FORMAT = 2
"""Version of the record layout, kept in every header; a newer one is refused, every older one is read.

2: ``probe`` records, ``response_ids`` of a reply, ``asks`` of a pair."""

_READ_BYTES = 1 << 18
_SYNC_SECONDS = 0.04
"""How long written lines may wait for an fsync; with the fsync itself they are on the disk within about 50 ms."""


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
    """One open journal; a second process that opens the same file is refused until this one closes.

    ``add`` takes a record, ``flush`` writes all that were added with one system call; ``append`` does both. After a
    write or fsync that failed the journal takes nothing more: every further call raises the same error.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open for appending; ``create`` makes a new file and refuses an existing one.

        Raises ``StoreError`` where the file is missing, exists already, is damaged before its end, or is held by
        another process.
        """
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            if create:
                make_folder(path.parent)
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
        try:
            if create:
                sync(path.parent)  # else a power cut could take the file itself, however well its lines are synced
            else:
                self._take_up()
        except BaseException:  # Ctrl-C, too: neither the lock nor an empty journal is left behind
            if create:
                path.unlink(missing_ok=True)
            os.close(self._fd)
            raise
        self._good = os.fstat(self._fd).st_size
        self._lines: list[bytes] = []
        self._kinds: dict[str, None] = {}
        self._broken: BaseException | None = None
        self._syncer = _Syncer(self._fd)

    def _take_up(self) -> None:
        """Cut the torn tail of an existing journal; a sealed one is not opened."""
        found = scan(self.path)
        if found.sealed:
            raise StoreError(f"{self.path}: this run is sealed and stays as it is; start a new run")
        os.ftruncate(self._fd, found.good_bytes)

    def add(self, kind: str, record: Mapping[str, Any]) -> None:
        """Take one record for the next ``flush``; raises ``TypeError`` for one that JSON cannot hold, and keeps none
        of it.
        """
        body = orjson.dumps({"t": kind, **record}, default=str)
        self._lines.append(b"%08x %b\n" % (zlib.crc32(body), body))
        self._kinds[kind] = None

    def add_reply(self, record: Mapping[str, Any], reply: Reply) -> Reply:
        """Take a ``reply`` record for the next ``flush`` and return the reply that it holds: one that cannot be stored
        becomes an error that keeps what it took, never a crash.
        """
        try:
            self.add("reply", {**record, "reply": encode_reply(reply)})
        except (TypeError, ValueError, RecursionError) as error:
            reply = Reply(
                error=f"the reply cannot be stored: {error}"[:500], finish="error",
                usage=reply.usage, attempts=reply.attempts, possibly_paid=reply.possibly_paid,
            )  # fmt: skip
            self.add("reply", {**record, "reply": encode_reply(reply)})
        return reply

    def append(self, kind: str, record: Mapping[str, Any]) -> None:
        """Write one record; it survives the death of this process once this returns."""
        self.add(kind, record)
        self.flush()

    def flush(self) -> None:
        """Write what was added; it survives the death of this process once this returns."""
        self._check()
        if not self._lines:
            return
        data, kinds = b"".join(self._lines), list(self._kinds)
        self._lines.clear()
        self._kinds.clear()
        for kind in kinds:
            failpoints.reached(f"before_{kind}")
        try:
            if failpoints.armed():
                half = len(data) // 2
                self._write(data[:half])
                for kind in kinds:
                    failpoints.reached(f"within_{kind}")
                self._write(data[half:])
            else:
                self._write(data)
            self._good += len(data)
        except BaseException as error:
            # Also a KeyboardInterrupt between two writes: nothing may ever follow half a line.
            self._broken = error
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._good)
            raise
        self._syncer.wrote()
        for kind in kinds:
            failpoints.reached(f"after_{kind}")

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        while written < len(data):
            written += os.write(self._fd, data[written:])

    def sync(self) -> None:
        """Write what was added and force it to the disk before this returns."""
        self.flush()
        self._syncer.sync()

    def close(self) -> None:
        """Sync and release the file; raises the ``OSError`` of a write or fsync that failed."""
        if self._fd < 0:
            return
        try:
            self._check()
            self.sync()
        finally:
            self._syncer.stop()
            os.close(self._fd)
            self._fd = -1

    def _check(self) -> None:
        error = self._broken or self._syncer.error
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        try:
            self.close()
        except BaseException as late:  # a broken journal raises at its close the error that broke it: once is enough
            if late is not error:
                raise


class _Syncer:
    """Calls ``fsync`` a moment after each write, in a thread of its own: many writes share one, and nobody waits.

    After an fsync that failed no other is tried: the kernel may have dropped the pages, and a second call that succeeds
    would say nothing (Rebello et al. 2020, "Can Applications Recover from fsync Failures?").
    """

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self._fd = fd
        self._dirty, self._stopped, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def wrote(self) -> None:
        """Something was written that is not synced yet."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal-fsync", daemon=True)
            self._thread.start()
        if not self._dirty.is_set():
            self._dirty.set()

    def sync(self) -> None:
        """Sync now, in the calling thread."""
        with self._lock:
            if self.error is not None:
                raise self.error
            self._dirty.clear()
            failpoints.reached("before_fsync")
            try:
                os.fsync(self._fd)
            except OSError as error:
                self.error = error
                raise
            failpoints.reached("after_fsync")

    def stop(self) -> None:
        """End the thread; what is not synced by then is left to the system."""
        self._stopped.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            if self._stopped.wait(_SYNC_SECONDS):
                return
            if self._dirty.is_set():
                try:
                    self.sync()
                except OSError:
                    return  # kept in ``error``: the next flush raises it
                if self._stopped.is_set():
                    return  # ``stop`` may have come while this waited for its turn, and ``sync`` took its wake-up away


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


def records(path: Path, *, head: str = "run") -> Iterator[dict[str, Any]]:
    """Every whole record of a journal in order, the header first; a torn tail is left out (see ``scan``).

    ``head`` is the kind of its header: ``run``, or ``check`` for what a suite found.

    Raises ``StoreError`` for a damaged line, a file without a header, or a header of a newer format.
    """
    return (record for record, _body in bodies(path, head=head))


def bodies(
    path: Path, *, head: str = "run", more: Callable[[], bool] | None = None
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """``records``, each with the JSON that it stands as in the file.

    With ``more`` the journal may still be growing: at its end ``more()`` waits a while and says whether to look again.
    """
    empty = True
    for _number, line, record in _lines(path, more):
        if record is None:
            scan(path)
            break
        if empty and record["t"] != head:
            raise JournalError(
                f"{path}: the first record is {record['t']!r}, not a {head} header; this is no journal of a {head}"
            )
        if empty and record.get("format", 0) > FORMAT:
            raise JournalError(
                f"{path}: written by a newer version (format {record['format']}); upgrade touchstone-judge"
            )
        empty = False
        yield record, line[9:-1]
    if empty:
        raise JournalError(
            f"{path}: line 1: no whole run header; the run died before it began, delete the file and start again"
        )


def _lines(path: Path, more: Callable[[], bool] | None = None) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Number, raw bytes and decoded record of each line; ``None`` for one that is damaged or torn."""
    with path.open("rb", buffering=_READ_BYTES) as handle:
        for number, line in enumerate(_whole_lines(handle, more) if more is not None else handle, 1):
            body = line[9:-1]
            whole = line.endswith(b"\n") and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(body)
            yield number, line, orjson.loads(body) if whole else None


def _whole_lines(handle: BinaryIO, more: Callable[[], bool]) -> Iterator[bytes]:
    """The lines of a file that grows: one without its end waits for it, and comes as it is once there is no more."""
    begun = b""
    while True:
        for line in handle:
            if not line.endswith(b"\n"):
                begun += line
            elif begun:
                yield begun + line
                begun = b""
            else:
                yield line
        if not more():
            break
    if begun:
        yield begun


def encode_pair(pair: Pair) -> dict[str, Any]:
    """A pair as plain JSON values, without its empty fields."""
    values = {
        "id": pair.id,
        "item": _item(pair.item),
        "candidate": _answer(pair.candidate),
        "baseline": _answer(pair.baseline),
    }
    if pair.label:
        values["label"] = pair.label
    return values


def _item(item: Item) -> dict[str, Any]:
    """``_filled`` of an item; most have a prompt and a category alone."""
    others = item.messages or item.tags or item.context or item.metadata or item.checks or item.tools
    if others or item.reference is not None:
        return _filled(item)
    values = {"prompt": item.prompt} if item.prompt else {}
    if item.category:
        values["category"] = item.category
    return values


def _answer(answer: Answer) -> dict[str, Any]:
    """``_filled`` of an answer; most are a text alone."""
    bare = answer.model is None and answer.latency_ms is None and answer.tokens is None and answer.cost is None
    bare = bare and answer.turns is None and answer.finish is None and not answer.tool_calls
    return {"text": answer.text} if bare else _filled(answer)


def encode_asks(plans: Iterable[Sequence[Ask]]) -> list[list[str]]:
    """The asks of a pair, one entry a repeat: both keys, and the labels of first place, second place and tie; an empty
    entry where the answers are identical and nothing is asked. With them a reader need not plan anew.
    """
    return [
        [asks[0].key, asks[1].key, asks[0].labels.first, asks[0].labels.second, asks[0].labels.tie] if asks else []
        for asks in plans
    ]


def decode_pair(data: Mapping[str, Any]) -> Pair:
    """The inverse of ``encode_pair``."""
    item = dict(data["item"])
    item["messages"] = tuple(
        Message(turn.get("role", ""), turn.get("content", "")) for turn in item.get("messages", ())
    )
    for name in ("tags", "context", "checks", "tools"):
        item[name] = tuple(item.get(name, ()))
    sides = {
        side: Answer(**{**data[side], "tool_calls": tuple(data[side].get("tool_calls", ()))})
        for side in ("candidate", "baseline")
    }
    label = Outcome(data["label"]) if data.get("label") else None
    return Pair(data["id"], Item(**{"prompt": "", **item}), **sides, label=label)


def encode_reply(reply: Reply) -> dict[str, Any]:
    """A reply as plain JSON values, without its empty fields: ``_filled`` written out, since this stands in the way of
    every call.
    """
    values: dict[str, Any] = {"text": reply.text} if reply.text else {}
    if reply.probs is not None:
        values["probs"] = list(reply.probs)
    if reply.score:
        values["score"] = dict(reply.score)
    if reply.model:
        values["model"] = reply.model
    if reply.fingerprint:
        values["fingerprint"] = reply.fingerprint
    if reply.latency_ms:
        values["latency_ms"] = reply.latency_ms
    if reply.usage != _NO_USAGE:
        values["usage"] = _spent(reply.usage)
    if reply.response_ids:
        values["response_ids"] = list(reply.response_ids)
    smooth = reply.finish == "stop" and reply.error is None and reply.attempts == 1
    if not smooth or reply.flags or reply.possibly_paid:
        values |= _filled(
            Reply(
                finish=reply.finish, error=reply.error, flags=reply.flags, attempts=reply.attempts,
                possibly_paid=reply.possibly_paid,
            )
        )  # fmt: skip
    return values


def _spent(usage: Usage) -> dict[str, Any]:
    values: dict[str, Any] = {"prompt_tokens": usage.prompt_tokens} if usage.prompt_tokens else {}
    if usage.completion_tokens:
        values["completion_tokens"] = usage.completion_tokens
    if usage.cost is not None:
        values["cost"] = usage.cost
    return values


_NO_USAGE = Usage()


def decode_reply(data: Mapping[str, Any]) -> Reply:
    """The inverse of ``encode_reply``."""
    values = dict(data)
    for name in _TUPLES & values.keys():
        if values[name] is not None:
            values[name] = tuple(values[name])
    usage = values.get("usage")
    if usage is not None:
        values["usage"] = Usage(**usage)
    return Reply(**values)


_TUPLES = frozenset(("probs", "flags", "response_ids"))


@cache
def _layout(kind: type) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[str, ...], tuple[Any, ...]]:
    """How to read all fields of a dataclass at once, their names and their defaults."""
    fields = dataclasses.fields(kind)
    names = tuple(field.name for field in fields)
    return attrgetter(*names), names, tuple(field.default for field in fields)


def _filled(value: Any) -> dict[str, Any]:
    """The fields of a flat frozen dataclass that differ from empty and default, dataclass values turned into dicts."""
    values, names, defaults = _layout(value.__class__)
    out: dict[str, Any] = {}
    for name, item, default in zip(names, values(value), defaults, strict=True):
        if item is default or item is None:
            continue
        kind = item.__class__
        if kind is str:
            if (item and item != default) or name == "text":
                out[name] = item
        elif (not item and (kind is tuple or kind is dict)) or item == default:
            continue
        elif kind is tuple:
            out[name] = [_filled(part) if dataclasses.is_dataclass(part) else part for part in item]
        elif isinstance(item, Mapping):
            out[name] = dict(item)
        elif kind is float or kind is int or kind is bool:
            out[name] = item
        else:
            out[name] = _filled(item) if dataclasses.is_dataclass(item) else item
    return out
