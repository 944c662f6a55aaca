"""The register: append-only, chained, safe against two writers, death and edits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from judge.errors import StoreError
from judge.register import Register

AT = "2026-11-30T00:00:00+00:00"


def three(home: Path) -> Register:
    register = Register(home)
    for number in range(3):
        register.append("decision", f"r-{number}", {"says": "HOLD", "n": number}, at=AT, by="ada")
    return register


def test_entries_come_back_in_order_with_what_was_given(tmp_path: Path) -> None:
    """What was appended is read back whole, in order, and filtered by kind and subject."""
    register = three(tmp_path)
    register.append("rollout", "r-1", {"to": "1%"}, at=AT)
    assert [entry.seq for entry in register.entries()] == [1, 2, 3, 4]
    assert [entry.body["n"] for entry in register.entries("decision")] == [0, 1, 2]
    assert [entry.kind for entry in register.entries(subject="r-1")] == ["decision", "rollout"]
    first = register.entries()[0]
    assert register.find(first.id) == first


@pytest.mark.parametrize("damage", ["edit", "remove", "swap", "garbage"])
def test_a_changed_line_is_named(tmp_path: Path, damage: str) -> None:
    """An edited, removed, reordered or damaged line breaks the chain, and nothing is appended after it."""
    register = three(tmp_path)
    lines = register.path.read_bytes().splitlines(keepends=True)
    changed = {
        "edit": [lines[0], lines[1].replace(b"HOLD", b"SHIP"), lines[2]],
        "remove": [lines[0], lines[2]],
        "swap": [lines[1], lines[0], lines[2]],
        "garbage": [lines[0], b"not json\n", lines[2]],
    }[damage]
    register.path.write_bytes(b"".join(changed))
    with pytest.raises(StoreError, match=r"line [12] does not fit the chain"):
        register.entries()
    with pytest.raises(StoreError):
        register.append("decision", "x", {}, at=AT)


def test_a_torn_last_line_is_left_out_and_then_cut(tmp_path: Path) -> None:
    """A line without its end was never acknowledged: it is not read, and the next entry takes its place."""
    register = three(tmp_path)
    register.path.write_bytes(register.path.read_bytes()[:-10])
    assert len(register.entries()) == 2
    register.append("decision", "again", {}, at=AT)
    assert [entry.subject for entry in register.entries()] == ["r-0", "r-1", "again"]


def test_two_processes_take_turns(tmp_path: Path) -> None:
    """Entries of two writers interleave without a break in the chain."""
    code = (
        "import sys; from pathlib import Path; from judge.register import Register\n"
        "register = Register(Path(sys.argv[1]))\n"
        "for n in range(20): register.append('decision', sys.argv[2], {'n': n}, at='t')\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    entries = Register(tmp_path).entries()
    assert len(entries) == 40
    assert [entry.body["n"] for entry in entries if entry.subject == "a"] == list(range(20))


def test_a_name_that_fits_none_or_several_is_refused(tmp_path: Path) -> None:
    """``find`` never guesses."""
    register = three(tmp_path)
    with pytest.raises(StoreError, match="ambiguous"):
        register.find("decision-")
    with pytest.raises(StoreError, match="not in"):
        register.find("decision-zz")
