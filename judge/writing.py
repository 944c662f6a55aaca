"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole", "write_whole"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place once the block ends well; else nothing is left of it,
    and what stood at ``path`` stays. An ``OSError`` without a file name is given this one's.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if error.errno is not None and (error.filename is None or error.filename == str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all.

    Example: ``write_whole(Path("report.html"), page)``.
    """
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
