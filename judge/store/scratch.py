"""Folders for what is made beside the database and thrown away: ``ingest-*`` and ``rebuild-*`` in a home folder.

A process that is killed leaves its folder behind. Each holder has its folder locked, and the system drops the lock when
it dies, however it dies and whatever number it had: so the next one that needs a folder removes those that nobody
holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["scratch", "sweep"]

_KINDS = ("ingest-", "rebuild-")
_YOUNG_SECONDS = 60.0
"""A folder that was written to so lately is left alone: its maker may be about to lock it, or be an older version."""


@contextmanager
def scratch(home: Path, kind: str) -> Iterator[Path]:
    """A folder in ``home`` of one's own, locked while it is used and removed afterwards; leftovers go first."""
    sweep(home)
    with tempfile.TemporaryDirectory(dir=home, prefix=f"{kind}-") as name:
        held = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(held)


def sweep(home: Path) -> list[Path]:
    """Remove what dead processes left; returns what was removed. What cannot be removed stays, and is no error."""
    return [path for kind in _KINDS for path in sorted(home.glob(f"{kind}*")) if _removed(path)]


def _removed(path: Path) -> bool:
    """Whether a folder was one that nobody holds; or a file, as older versions called their half-built databases."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime < _YOUNG_SECONDS:
            return False
        folder = path.is_dir()
        held = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            (fcntl.flock if folder else fcntl.lockf)(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if folder else path.unlink()
        finally:
            os.close(held)
        return True
    return False
