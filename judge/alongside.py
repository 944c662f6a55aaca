"""A run that is judged fast is brought in while it is judged: a second process lays out its rows as its journal grows,
so that at the end only the database has to take them.

It is a short cut and no more. The journal is written as ever; a process that does not start, dies or cannot write
leaves nothing that counts, and the run is brought in from its journal at the end, as a slow one always is. Where that
fails, too, it says why.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from .engine import seldom_collecting
from .store import Store

__all__ = ["Alongside"]

_WORTH = 10_000
"""Comparisons of a run from which it pays: with fewer the second process saves less than it takes to start."""
_QUICK, _QUICK_SECONDS = 1_000, 2.0
"""A run that has not settled so many comparisons after so many seconds is slow, and needs nobody beside it."""
_LOOK_SECONDS = 0.05
_WHOLE = b"."


class Alongside:
    """The second process of one run, where that pays: ``begin`` starts it, ``bring_in`` has it finish.

    Left without that, it ends with nothing done.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._process: subprocess.Popen[bytes] | None = None
        self._needed = False

    def begin(self, total: int) -> None:
        """Start the process for a run of ``total`` comparisons, whose journal has its header."""
        if total < _WORTH or _cores() < 2:
            return
        command = [sys.executable, "-m", __name__, str(self._store.home), self._run_id]
        quiet = subprocess.DEVNULL
        # No memory or no process left: the run goes on, and is brought in at its end.
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)  # noqa: S603 - this program itself

    def look(self, settled: int, seconds: float) -> None:
        """Told after each comparison how far the run is, end the process of a slow one."""
        if self._process is not None and not self._needed and seconds > _QUICK_SECONDS:
            self._needed = settled >= _QUICK
            if not self._needed:
                self._end()

    def bring_in(self) -> None:
        """Bring the run in, by the process or without one; call it once the journal is sealed and closed."""
        if self._process is None:
            self._store.ingest(self._store.journal_path(self._run_id))
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died: its return code says so
            self._process.stdin.write(_WHOLE)
            self._process.stdin.flush()
        _load()
        if self._process.wait() != 0:
            self._store.ingest(self._store.journal_path(self._run_id))

    def _end(self) -> None:
        """End the process; what it made lies in a scratch folder, which the next writer removes."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()


def _load() -> None:
    """Load what the report of a run, which comes next, is made with: while another process works it takes no time."""
    import polars  # noqa: F401

    from . import render, summary  # noqa: F401


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Abandoned(Exception):
    """Whoever judges has died or given up."""


def _growing(stdin: int) -> Callable[[], bool]:
    """Waits for more of a journal: true until its writer says that it is whole and the rest has been read."""
    whole = False

    def more() -> bool:
        nonlocal whole
        if whole:
            return False
        if select.select([stdin], [], [], _LOOK_SECONDS)[0]:
            whole = os.read(stdin, 1) == _WHOLE
            if not whole:
                raise _Abandoned
        return True

    return more


def _main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever judges: it drains, and ends this one
    home, run_id = sys.argv[1:]
    store = Store(Path(home))
    try:
        with seldom_collecting():
            store.ingest(store.journal_path(run_id), more=_growing(sys.stdin.fileno()))
    except _Abandoned:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
