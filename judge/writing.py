"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["make_folder", "sync", "whole", "write_whole"]

_HEAD = 200
"""Bytes of a file's name that the name of its part begins with."""


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once the block ends well; else nothing is left of it,
    and what stood at ``path`` stays. An ``OSError`` without a file name is given this one's.

    With ``durable`` the content is on the disk before it takes the place, and the place before this returns: for what
    others name or what was paid for.

    Every writer has a file of its own, so of two at once the last one stands, whole. One that is killed leaves its own
    behind: hidden, and with an ending (``.part``) that nothing reads.
    """
    part = path.with_name(_part_name(path.name))
    try:
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    except OSError as error:
        if error.errno is not None and (error.filename is None or error.filename == str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


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


def _part_name(name: str) -> str:
    """A name that no other writer has, and no longer than a file's name may be (255 bytes). The writer makes the file
    itself, so that it has the usual mode.
    """
    head = os.fsencode(name)[:_HEAD].decode("utf-8", "ignore")
    return f".{head}.{secrets.token_hex(8)}.part"


def sync(path: Path) -> None:
    """Bring a file, or what a folder lists, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
