"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from judge.writing import whole, write_whole


def test_a_text_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """A text is written as UTF-8 and nothing is left beside it."""
    path = tmp_path / "page.html"
    write_whole(path, "one")
    write_whole(path, "two \u00e9")
    assert path.read_text(encoding="utf-8") == "two \u00e9"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_is_named(tmp_path: Path) -> None:
    """Where writing fails half way, what stood there stays, nothing lies beside it, and the error names the file."""
    path = tmp_path / "page.html"
    write_whole(path, "old")

    def half(part: Path) -> None:
        part.write_text("ne", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught, whole(path) as part:
        half(part)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_durable_content_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is brought to the disk before the old one is replaced, its folder after; without `durable` neither."""
    path, seen = tmp_path / "flag.json", []

    def sync(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").resolve()
        seen.append((place.name, path.exists() and path.read_text(encoding="utf-8")))

    monkeypatch.setattr("judge.writing.os.fsync", sync)
    write_whole(path, "old")
    assert seen == []
    write_whole(path, b"new", durable=True)
    assert seen == [(".flag.json.part", "old"), (tmp_path.name, "new")]
