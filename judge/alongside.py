"""A run that is judged fast is brought in while it is judged: a second process lays out its rows as its journal grows,
so that at the end only the database has to take them.

It is a short cut and no more. The journal is written as ever; a process that does not start, dies or cannot write
leaves nothing that counts, and the run is brought in from its journal at the end, as a slow one always is. Where that
fails, too, it says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from .engine import seldom_collecting
from .environment import cores
from .store import Store

__all__ = ["Alongside"]

_WORTH, _WORTH_BYTES = 10_000, 4_000_000
"""Comparisons of a run from which it pays, and the size of an eval set that may have so many: with fewer the second
process saves less than it takes to start."""
_QUICK, _QUICK_SECONDS = 1_000, 2.0
"""A run that has not settled so many comparisons after so many seconds is slow, and needs nobody beside it."""
_LOOK_SECONDS = 0.05
_WHOLE = b"."


class Alongside:
    """The second process of one run, where that pays: ``begin`` tells it what to do, ``bring_in`` has it finish.

    Left without that, it ends with nothing done.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._needed = False

    def warm_up(self, evalset: Path) -> None:
        """Start the process where the run may turn out to be worth it: it loads what it needs meanwhile."""
        with contextlib.suppress(OSError):
            if evalset.stat().st_size >= _WORTH_BYTES:
                self._start()

    def begin(self, store: Store, run_id: str, total: int) -> None:
        """Tell the process of a run of ``total`` comparisons, whose journal has its header."""
        if total < _WORTH:
            self._end()
            return
        self._start()
        self._say(json.dumps([str(store.home), run_id]).encode() + b"\n")

    def look(self, settled: int, seconds: float) -> None:
        """Told after each comparison how far the run is, end the process of a slow one."""
        if self._process is not None and not self._needed and seconds > _QUICK_SECONDS:
            self._needed = settled >= _QUICK
            if not self._needed:
                self._end()

    def bring_in(self, store: Store, run_id: str) -> None:
        """Bring the run in, by the process or without one; call it once the journal is sealed and closed."""
        if self._process is not None:
            self._say(_WHOLE)
            _load()
            if self._process.wait() == 0:
                return
        store.ingest(store.journal_path(run_id))

    def _start(self) -> None:
        if self._process is None and cores() > 1:
            quiet = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # no memory or no process left
                self._process = subprocess.Popen(  # noqa: S603 - this program itself
                    [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
                )

    def _say(self, words: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has died: its return code says so
                self._process.stdin.write(words)
                self._process.stdin.flush()

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


class _Abandoned(Exception):
    """Whoever judges has died, or needs nobody."""


def _order(stdin: int) -> tuple[Store, str]:
    """Wait to be told which run of which home to bring in."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(stdin, 1)
        if not byte:
            raise _Abandoned
        line += byte
    home, run_id = json.loads(line)
    return Store(Path(home)), run_id


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
    import polars  # noqa: F401

    from . import screening  # noqa: F401
    from .store import verdicts  # noqa: F401

    stdin = sys.stdin.fileno()
    try:
        store, run_id = _order(stdin)
        with seldom_collecting():
            store.ingest(store.journal_path(run_id), more=_growing(stdin))
    except _Abandoned:
        return 1
    return 0


if __name__ == "__main__":
    os._exit(_main())  # all is written and closed: freeing what it held would only keep others waiting
