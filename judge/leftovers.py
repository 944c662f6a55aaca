"""Unfinished files that killed writers left, and the proof that nobody will finish them.

Four kinds of names are ours: parts of files that appear whole or not at all (``judge.writing``), passes of ``judge
check`` that never ended, the empty files whose lock says that a process is finding out how a judge can answer
(``judge.outlays``), and requests that were to be sent to a provider's batch interface (``judge.mail``). Nothing else is
looked at.

The proof is a lock, not a process number, which another process may have by now and which means nothing on another
machine: a writer holds ``flock`` on its file from its first moment to its last, and the system drops it when the
process dies, however it dies. A file that can be locked, and was not written to for a minute, has no writer. The
minute is for a writer between the making of its file and the lock. A part without the mark of a lock (from an older
version, or a file system that has none) proves nothing: it is named, and removed by nobody but you.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

__all__ = ["Leftover", "State", "find", "remove"]

_LOCKED = re.compile(
    r"\..+\.[0-9a-f]{16}\.held\.part|k-[\w-]+\.part|probes\.jsonl\.[0-9a-f]{16}\.asking"
    r"|batches/judge-[0-9a-f]{16}\.jsonl"
)
"""Files whose writer holds their lock: parts, passes of checks (which are journals), looks at a judge, and requests on
their way to a provider's batch interface (``judge.mail``).
"""
_BARE = re.compile(r"\..+\.[0-9a-f]{16}\.part")
_YOUNG_SECONDS = 60.0


class State(StrEnum):
    """Whether the writer of an unfinished file lives, as a report says it."""

    GONE = "its writer is gone"
    BUSY = "being written"
    YOUNG = "written to within the last minute"
    UNKNOWN = "no lock says whether its writer lives; remove it by hand once nothing of yours runs"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One unfinished file: ``size`` in bytes, ``seconds`` since it was last written to, and whether anybody will."""

    path: Path
    size: int
    seconds: float
    state: State

    @property
    def age(self) -> str:
        """How old it is, in the largest unit of which there are two."""
        for name, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
            if self.seconds >= 2 * length:
                return f"{self.seconds / length:.0f} {name}"
        return f"{max(self.seconds, 0):.0f} seconds"


def find(folders: Iterable[Path], *, also: Path | None = None) -> list[Leftover]:
    """The unfinished files in ``folders`` and all below them, and in ``also`` without what is below, by path.

    Links are not followed, and what goes away while this looks was none. Never raises: what cannot be read is not
    there.
    """
    found: dict[Path, Leftover] = {}
    for path in (*(path for folder in folders for path in _below(folder)), *(_in(also) if also is not None else ())):
        name = f"batches/{path.name}" if path.parent.name == "batches" and path.suffix == ".jsonl" else path.name
        known = _LOCKED.fullmatch(name), _BARE.fullmatch(path.name)
        if any(known):
            with suppress(OSError):
                found[path.absolute()] = _looked_at(path.absolute(), locked=known[0] is not None)
    return [found[path] for path in sorted(found)]


def remove(leftover: Leftover) -> bool:
    """Remove an unfinished file whose writer is gone, holding its lock; returns whether it was. One that is held by
    now, or was written to since, stays.
    """
    with suppress(OSError):
        fd = os.open(leftover.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if leftover.state is not State.GONE or _state(fd, locked=True) is not State.GONE:
                return False
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino != leftover.path.lstat().st_ino:
                return False  # another file of the same name: what was looked at is gone already
            leftover.path.unlink()
        finally:
            os.close(fd)
        return True
    return False


def _looked_at(path: Path, *, locked: bool) -> Leftover:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        about = os.fstat(fd)
        return Leftover(path, about.st_size, time.time() - about.st_mtime, _state(fd, locked=locked))
    finally:
        os.close(fd)


def _state(fd: int, *, locked: bool) -> State:
    """Who may still write to an open file; the lock that this takes is given back at once."""
    if not locked:
        return State.UNKNOWN
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return State.BUSY
    except OSError:
        return State.UNKNOWN
    fcntl.flock(fd, fcntl.LOCK_UN)
    return State.YOUNG if time.time() - os.fstat(fd).st_mtime < _YOUNG_SECONDS else State.GONE


def _below(folder: Path) -> Iterator[Path]:
    for place, _folders, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _in(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from folder.iterdir()
