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
        seen.append((place.suffix or place.name, path.exists() and path.read_text(encoding="utf-8")))

    monkeypatch.setattr("judge.writing.os.fsync", sync)
    write_whole(path, "old")
    assert seen == []
    write_whole(path, b"new", durable=True)
    assert seen == [(".part", "old"), (tmp_path.name, "new")]


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    """Each writes to a file of its own: the last one stands, whole, and no writer takes another's away."""
    path = tmp_path / "page.html"
    with whole(path) as first, first.open("w", encoding="utf-8") as one:
        one.write("first " * 3)
        one.flush()
        with whole(path) as second:
            second.write_text("second", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "second"
        one.write("end")
    assert path.read_text(encoding="utf-8") == "first first first end"

    def fails(part: Path) -> None:
        part.write_text("half", encoding="utf-8")
        write_whole(path, "kept")
        raise KeyError

    with pytest.raises(KeyError), whole(path) as lost:
        fails(lost)
    assert path.read_text(encoding="utf-8") == "kept"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127])
def test_the_longest_name_can_be_written(tmp_path: Path, name: str) -> None:
    """A name as long as the file system takes is written like any other, with the usual mode."""
    path = tmp_path / name
    write_whole(path, "text")
    (tmp_path / "usual").write_text("text", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "text"
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_writer_left_is_hidden_and_no_hindrance(tmp_path: Path) -> None:
    """A part that stayed behind is hidden, has no ending of data, and does not hinder the next writer."""
    path = tmp_path / "run.jsonl"
    with whole(path) as part:
        part.write_text("new", encoding="utf-8")
        left = part.with_name(part.name.replace(".part", "0.part"))
        left.write_text("half", encoding="utf-8")
    assert (left.name.startswith("."), left.suffix) == (True, ".part")
    assert list(tmp_path.glob("*.jsonl")) == [path]
    write_whole(path, "newer")
    assert path.read_text(encoding="utf-8") == "newer"
