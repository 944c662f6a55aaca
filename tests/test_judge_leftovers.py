"""What killed writers leave is named, and removed only where nobody can be writing it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from judge.cli import root
from judge.leftovers import Leftover, State, find, remove
from judge.writing import whole, write_whole

WRITING = """
import sys, time
from pathlib import Path
from judge.writing import whole
with whole(Path(sys.argv[1])) as part:
    part.write_text("half of it", encoding="utf-8")
    print("writing", flush=True)
    time.sleep(600)
"""
ASKING = """
import sys, time
from pathlib import Path
from judge.outlays import _asking
with _asking(Path(sys.argv[1])):
    print("asking", flush=True)
    time.sleep(600)
"""
CHECKING = """
import sys, time
from pathlib import Path
from judge.journal import Journal
journal = Journal(Path(sys.argv[1]), create=True)
journal.append("check", {"check_id": "k-0"})
print("checking", flush=True)
time.sleep(600)
"""
SENDING = """
import sys, time
from pathlib import Path
from judge.backends.batches import OpenAIBatches
from judge.mail import Outbox
parcels = []
place = Path(sys.argv[1])
outbox = Outbox(place.parent, OpenAIBatches.shape, 0, lambda: place.stem, repairs=False, parcels=parcels)
outbox.add("a" * 64, b"{}", 0.0)
outbox.close()
print("sending", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start() -> Iterator[Callable[[str, Path], subprocess.Popen[str]]]:
    """Start a process that begins to write and never ends; it is killed with the test."""
    begun: list[subprocess.Popen[str]] = []

    def process(code: str, place: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", code, str(place)]
        begun.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        stream = begun[-1].stdout
        assert stream is not None and stream.readline()
        return begun[-1]

    yield process
    for one in begun:
        one.kill()
        one.communicate()


def aged(path: Path, seconds: float = 3_600) -> None:
    """Let a file look as if it was last written to so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def doctor(home: Path, *words: str) -> list[dict[str, Any]]:
    """The lines of the doctor about unfinished files."""
    done = CliRunner().invoke(root, ["doctor", "--json", "--home", str(home), *words])
    assert done.exit_code == 0, done.output
    return [check for check in json.loads(done.stdout) if check["name"] == "unfinished file"]


@pytest.mark.parametrize(
    ("code", "place"),
    [
        (WRITING, "out/page.html"),
        (ASKING, ""),
        (CHECKING, "checks/k-20260101-abc.part"),
        (SENDING, "batches/judge-0123456789abcdef.jsonl"),
    ],
)
def test_a_killed_writer_s_file_is_named_and_removed_and_a_living_one_s_is_not(
    code: str, place: str, tmp_path: Path, start: Any
) -> None:
    """While it writes its file stays, however old; after kill -9 it is named, and removed with --clean."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    process = start(code, tmp_path / place)
    (left,) = find([tmp_path])
    aged(left.path)
    (seen,) = find([tmp_path])
    assert seen.state is State.BUSY
    assert not remove(Leftover(seen.path, seen.size, seen.seconds, State.GONE))
    (line,) = doctor(tmp_path, "--clean")
    assert (line["state"], line["fix"]) == ("ok", "") and "being written" in line["detail"]
    assert seen.path.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    (line,) = doctor(tmp_path)
    assert line["state"] == "note" and f"{seen.path}: {seen.size} bytes, 60 minutes old" in line["detail"]
    assert "--clean" in line["fix"] and seen.path.exists()
    (line,) = doctor(tmp_path, "--clean")
    assert line["detail"].endswith("its writer is gone: removed")
    assert not seen.path.exists() and doctor(tmp_path) == []


def test_a_file_of_this_minute_stays(tmp_path: Path, start: Any) -> None:
    """Who died a moment ago cannot be told from who is about to lock: nothing is removed yet."""
    process = start(WRITING, tmp_path / "page.html")
    process.kill()
    process.wait()
    (line,) = doctor(tmp_path, "--clean")
    assert "within the last minute" in line["detail"]
    assert len(list(tmp_path.glob(".page.html.*.part"))) == 1


def test_a_part_without_a_lock_is_named_and_never_removed(tmp_path: Path) -> None:
    """A part of an older version: nobody can prove that its writer is gone."""
    old = tmp_path / ".page.html.0123456789abcdef.part"
    old.write_text("half", encoding="utf-8")
    aged(old, 3 * 86_400)
    (line,) = doctor(tmp_path, "--clean")
    assert line["state"] == "note" and "3 days old, no lock says" in line["detail"]
    assert old.exists()


@pytest.mark.parametrize(
    "name",
    [
        "movie.part",
        ".hidden.part",
        "notes.asking",
        "k-1.jsonl",
        ".a.0123456789abcdef.partx",
        "judge-0123456789abcdef.jsonl",
    ],
)
def test_files_of_others_are_not_ours(name: str, tmp_path: Path) -> None:
    """Only names that this project makes are looked at."""
    (tmp_path / name).write_text("x", encoding="utf-8")
    aged(tmp_path / name)
    assert find([tmp_path]) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link of such a name to a file of value is neither named nor removed."""
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")
    (tmp_path / ".page.html.0123456789abcdef.held.part").symlink_to(tmp_path / "thesis.txt")
    aged(tmp_path / "thesis.txt")
    assert find([tmp_path]) == []


def test_folders_are_looked_at_where_they_are_named_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of --in with what is below, this folder without; a part in both is named once."""
    here, deep = tmp_path / "here", tmp_path / "other" / "deep"
    for folder in (here, here / "below", deep):
        folder.mkdir(parents=True)
        left = folder / ".a.0123456789abcdef.held.part"
        left.touch()
        aged(left)
    monkeypatch.chdir(here)
    assert len(doctor(tmp_path / "home")) == 1
    assert len(doctor(tmp_path / "home", "--in", str(deep.parent))) == 2
    assert len(doctor(tmp_path / "home", "--in", str(here))) == 2


def test_what_is_whole_inside_of_what_is_whole_keeps_the_lock(tmp_path: Path) -> None:
    """A writer that writes its part whole does not lose the lock of it: the doctor sees it busy to its end."""
    path = tmp_path / "rows.jsonl"
    with whole(path) as part:
        write_whole(part, "rows")
        aged(part)
        (left,) = find([tmp_path])
        assert left.state is State.BUSY
    assert path.read_text(encoding="utf-8") == "rows"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where flock is refused the file appears whole, and its part bears no mark of a lock."""

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("judge.writing.fcntl.flock", refuse)
    with whole(tmp_path / "page.html") as part:
        part.write_text("text", encoding="utf-8")
        assert not part.name.endswith(".held.part")
        assert [left.state for left in find([tmp_path])] == [State.UNKNOWN]
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "text"


def test_a_folder_that_takes_no_file_is_named_as_the_target(tmp_path: Path) -> None:
    """The error of a part that cannot be made names the file that was asked for."""
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "page.html", "text")
    assert caught.value.filename == str(tmp_path / "none" / "page.html")
