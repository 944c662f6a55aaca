"""What finding out how a judge can answer has cost before any run had a journal to book it in.

The calls that find out a judge's mode come before its id is known, and so before its run's header and journal. A server
that fails then, or a process that dies then, would leave calls that nobody counts. So ``probes.jsonl`` in the home
folder gets a line before (``begin``: who, when, the most that a call can cost) and one after (``end``: what it took),
each synced before the next step. A run that begins books the same in its journal; what no journal holds is told by
``judge doctor`` and ``judge report --list``, and counts against the limit of the panel that it was spent for.

For as long as a process asks it holds a lock, named in ``begin`` (``asking``), so that nobody takes it for a dead one.

A line is the CRC-32 of its body as eight hex digits, a space, a JSON object, as in a journal. One that is torn or
damaged is left out: its ``begin`` then counts as calls that were possibly paid.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from . import failpoints
from . import journal as journals
from .backends import Backend, Preparing, probed, ready
from .backends.capability import MOST_CALLS
from .errors import JournalError
from .money import Budget
from .types import Reply, Usage
from .writing import make_folder, sync

__all__ = ["Outlay", "find_out", "subject_of", "unbooked"]

FILE = "probes.jsonl"
"""The file in a home folder."""


@dataclass(frozen=True, slots=True)
class Outlay:
    """Calls that found out (or tried to) how a judge can answer, and that no run has booked.

    ``cost`` is what the answered ones took in US dollars, ``most`` that and the upper bound of those that were possibly
    paid; ``None`` where the price is unknown. ``subject`` is the run that they were made for (``GROUP/PLACE`` in a
    panel or cascade), ``at`` when it was begun.
    """

    subject: str
    judge: str
    at: str
    calls: int
    possibly_paid: int
    cost: float | None
    most: float | None

    def __str__(self) -> str:
        sure = "an unknown price" if self.cost is None else f"${self.cost:.6f}"
        told = f"{self.calls} calls for {sure}" if self.calls else "no call that is known to be paid"
        if self.possibly_paid:
            most = "at an unknown price" if self.most is None else f"at most ${self.most:.6f} in all"
            told += f", {self.possibly_paid} possibly paid ({most})"
        return f"finding out how {self.judge} can answer, begun {self.at} for {self.subject}: {told}"


def subject_of(run_id: str, group: Mapping[str, Any]) -> str:
    """Whom an outlay is made for: a run, or a place in a panel or cascade, whose run has no name yet."""
    plan = group.get("panel") or group.get("cascade")
    return f"{plan['id']}/{plan['place']}" if plan else run_id


async def find_out(home: Path, subject: str, backend: Backend, *, budget: Budget | None, at: str) -> None:
    """``backends.ready``, with what it costs written down before and after; nothing where nothing has to be asked, or
    where this backend was looked at before and no run has booked that yet: what it took is written down already.
    """
    if not _asks(backend) or (await probed(backend, keep=True)).attempts:
        await ready(backend, budget=budget)
        return
    make_folder(home)
    with _asking(home) as token:
        named = {"subject": subject, "judge": str(backend.id), "at": at, "bound": _bound(backend), "asking": token}
        _write(home, {"t": "begin", **named})
        failpoints.reached("before_probing")
        cut = False
        try:
            await ready(backend, budget=budget)
        except asyncio.CancelledError:
            cut = True  # the call that was on its way is nowhere counted
            raise
        finally:
            failpoints.reached("after_probing")
            spent = await probed(backend, keep=True)
            spent = replace(spent, attempts=spent.attempts + cut, possibly_paid=spent.possibly_paid + cut)
            _write(home, {"t": "end", **named, "reply": journals.encode_reply(spent), "attempts": spent.attempts})


def unbooked(home: Path) -> list[Outlay]:
    """What was spent on finding out and stands in no run's journal, in the order in which it was begun.

    A look whose process is still asking is left out: it will say itself what it took.
    """
    begun = [begin for begin, end in _looks(home) if end is None]
    dead = [begin for begin in begun if not _alive(home, begin)]
    # A look may have ended since the file was read, so it is read anew; what began since is alive or told next time.
    found = [(begin, end) for begin, end in _looks(home) if end is not None or begin in dead]
    booked = list(_booked(home)) if found else []
    outlays = []
    for begin, end in found:
        if end is not None and (begin["subject"], end["reply"]) in booked:
            booked.remove((begin["subject"], end["reply"]))
            continue
        outlay = _outlay(begin, end)
        if outlay.calls or outlay.possibly_paid:
            outlays.append(outlay)
    return outlays


def _looks(home: Path) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Every ``begin`` with its ``end``, where it has one."""
    found: list[tuple[Mapping[str, Any], Mapping[str, Any] | None]] = []
    for record in _read(home):
        if record["t"] == "begin":
            found.append((record, None))
        for number in range(len(found) - 1, -1, -1) if record["t"] == "end" else ():
            begin, end = found[number]
            if end is None and all(begin.get(name) == record.get(name) for name in ("subject", "asking")):
                found[number] = (begin, record)
                break
    return found


@contextmanager
def _asking(home: Path) -> Iterator[str]:
    """A name for one look, and a locked file for as long as it lasts; the system unlocks that of a process that dies.

    An empty file is all that a killed process leaves of it.
    """
    token = secrets.token_hex(8)
    path = _lock_of(home, token)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield token
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _alive(home: Path, begin: Mapping[str, Any]) -> bool:
    """Whether the process that began a look is still asking."""
    if "asking" not in begin:
        return False
    try:
        fd = os.open(_lock_of(home, begin["asking"]), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _lock_of(home: Path, token: str) -> Path:
    return home / f"{FILE}.{token}.asking"


def _asks(backend: Backend) -> bool:
    """Whether ``ready`` may ask the server: the backend has to know something, and nobody has found it out."""
    recall, assumed = getattr(backend, "recall", None), getattr(backend, "assumed", None)
    if recall is not None:
        recall()
        assumed = getattr(backend, "assumed", None)
    return isinstance(backend, Preparing) and assumed is not False


def _bound(backend: Backend) -> float | None:
    bound = getattr(backend, "probe_bound", None)
    return bound() if bound is not None else 0.0


def _outlay(begin: Mapping[str, Any], end: Mapping[str, Any] | None) -> Outlay:
    """A pair of lines in figures; without the second the process died, and any of the calls may have been made."""
    reply = Reply(attempts=0, possibly_paid=MOST_CALLS, usage=Usage(cost=0.0))
    if end is not None:
        reply = replace(journals.decode_reply(end["reply"]), attempts=end["attempts"])
    cost, bound = reply.usage.cost, begin["bound"]
    known = cost is not None and (bound is not None or not reply.possibly_paid)
    most = (cost or 0.0) + reply.possibly_paid * (bound or 0.0) if known else None
    calls = max(0, reply.attempts - reply.possibly_paid)
    return Outlay(begin["subject"], begin["judge"], begin["at"], calls, reply.possibly_paid, cost, most)


def _booked(home: Path) -> Iterator[tuple[str, Any]]:
    """What the journals hold: for whom, and the reply that stands for it."""
    for path in sorted((home / "runs").glob("*.jsonl")):
        try:
            records = list(islice(journals.records(path), 2))
        except JournalError:
            continue  # `judge doctor` says what is wrong with it
        if len(records) == 2 and records[1]["t"] == "probe":
            yield subject_of(records[0]["run_id"], records[0]), records[1]["reply"]


def _write(home: Path, record: Mapping[str, Any]) -> None:
    """Append one line and sync it; processes take turns, and what a dead one left half is ended first."""
    body = orjson.dumps(record, default=str)
    fd = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        begin = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        line = begin + b"%08x %b\n" % (zlib.crc32(body), body)
        written = os.write(fd, line)
        while written < len(line):
            written += os.write(fd, line[written:])
        os.fsync(fd)
        if not size:
            sync(home)  # the file is new: it has to be listed, too
    finally:
        os.close(fd)


def _read(home: Path) -> Iterator[dict[str, Any]]:
    path = home / FILE
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            body = line[9:-1]
            if line.endswith(b"\n") and line[:9] == b"%08x " % zlib.crc32(body):
                yield orjson.loads(body)
