"""Files that appear whole or not at all.

A part is locked (``flock``) for as long as its writer lives, and its name says so: the system unlocks that of a process
that dies, which is how ``judge.leftovers`` knows that nobody will finish it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["HELD", "make_folder", "sync", "whole", "write_whole"]

HELD = ".held.part"
"""How the name of a part ends that its writer has locked; where the file system has no locks it is ``.part``."""

_HEAD = 200
"""Bytes of a file's name that the name of its part begins with."""


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once the block ends well; else nothing is left of it,
    and what stood at ``path`` stays. An ``OSError`` without a file name is given this one's.

    With ``durable`` the content is on the disk before it takes the place, and the place before this returns: for what
    others name or what was paid for.

    Every writer has a file of its own, so of two at once the last one stands, whole. One that is killed leaves its own
    behind: hidden, and with an ending (``.part``) that nothing reads; ``judge doctor`` names it. A part of a part is
    that part: what is whole inside has the lock of the outer one, and takes its place with it.
    """
    if path.name.endswith(HELD):
        yield path
        return
    part, held = path, -1
    try:
        part, held = _begun(path)
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    except OSError as error:
        own = held < 0 or error.filename in (None, str(part))
        if error.errno is not None and own:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        if held >= 0:
            part.unlink(missing_ok=True)
            os.close(held)


def _begun(path: Path) -> tuple[Path, int]:
    """A new part with the usual mode, and the descriptor that holds its lock."""
    while True:
        part = path.with_name(_part_name(path.name, HELD))
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return part, fd
        except BlockingIOError:
            pass  # whoever clears leftovers was here before the lock was: begin another one
        except OSError:  # a file system without locks: a part that nobody can prove to be left over
            bare = path.with_name(_part_name(path.name, ".part"))
            part.rename(bare)
            return bare, fd
        part.unlink(missing_ok=True)
        os.close(fd)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a text (as UTF-8) or bytes, whole or not at all; ``durable`` as in ``whole``.

    Example: ``write_whole(Path("report.html"), page)``.
    """
    with whole(path, durable=durable) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are missing; each is on the disk before this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync(folder.parent)


def _part_name(name: str, ending: str) -> str:
    """A name that no other writer has, and no longer than a file's name may be (255 bytes)."""
    head = os.fsencode(name)[:_HEAD].decode("utf-8", "ignore")
    return f".{head}.{secrets.token_hex(8)}{ending}"


def sync(path: Path) -> None:
    """Bring a file, or what a folder lists, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
