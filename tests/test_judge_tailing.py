"""Looking at a batch that is being written: counts without a lock, from where the last look ended."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from judge.errors import StoreError
from judge.store import Store
from judge.tailing import Tail, unfinished

_spec = importlib.util.spec_from_file_location("made", Path(__file__).parent / "servers" / "dashboard.py")
assert _spec is not None and _spec.loader is not None
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a finished run of 30 pairs."""
    home = tmp_path_factory.mktemp("home")
    made.judge_rows(home, made.write_rows(home / "a.jsonl", made.rows(30)), "r-aaaaaa")
    return home / "runs" / "r-aaaaaa.jsonl"


def test_a_journal_that_grows_is_counted_once(journal: Path, tmp_path: Path) -> None:
    """Cut at any byte and looked at again after it grew, the counts are those of the whole file."""
    data, path = journal.read_bytes(), tmp_path / "r-aaaaaa.jsonl"
    tail = Tail(path, clock=lambda: path.stat().st_mtime)
    seen = []
    for part in range(1, 8):
        path.write_bytes(data[: len(data) * part // 7])
        live = tail.look()
        if live is not None:
            seen.append(live.replies)
            assert live.total == 60 and live.state == "running"
    assert seen == sorted(seen) and seen[-1] == 60 and seen[0] < 60
    assert live is not None and live.sealed and live.cost == 0.0 and live.unpriced == 0


def test_a_batch_that_went_silent_or_stopped_says_so(journal: Path, tmp_path: Path) -> None:
    """An old file is silent, one that ended with a stop is stopped; half a line is no line."""
    lines = journal.read_bytes().splitlines(keepends=True)
    path = tmp_path / "r-aaaaaa.jsonl"
    path.write_bytes(b"".join(lines[:20]) + lines[20][:15])
    live = Tail(path, clock=lambda: path.stat().st_mtime + 300).look()
    assert live is not None and live.state == "silent" and live.quiet == pytest.approx(300)
    stop = b'00000000 {"t":"stop","reason":"KeyboardInterrupt","unpaid":false}\n'
    path.write_bytes(b"".join(lines[:20]) + stop)
    stopped = Tail(path).look()
    assert stopped is not None and stopped.state == "stopped"
    path.write_bytes(lines[0][:40])
    assert Tail(path).look() is None
    path.write_bytes(b'00000000 {"t":"reply"}\n00000000 {"x":1}\n')
    with pytest.raises(StoreError, match="no journal of a run"):
        Tail(path).look()


def test_a_line_longer_than_a_block_holds_nothing_up(journal: Path, tmp_path: Path) -> None:
    """A pair of long texts, or the keys of a large batch, make a line of megabytes; what follows still counts."""
    lines = journal.read_bytes().splitlines(keepends=True)
    path = tmp_path / "r-aaaaaa.jsonl"
    long = b'00000000 {"t":"batch_intent","keys":["' + b"f" * 5_000_000 + b'"]}\n'
    path.write_bytes(lines[0] + long + b"".join(lines[1:]))
    live = Tail(path).look()
    assert live is not None and live.replies == 60 and live.sealed
    path.write_bytes(lines[0] + long[:-2])  # still being written
    tail = Tail(path)
    assert tail.look() is not None
    path.write_bytes(lines[0] + long + b"".join(lines[1:]))
    live = tail.look()
    assert live is not None and live.replies == 60


def test_a_reused_reply_takes_nothing(journal: Path, tmp_path: Path) -> None:
    """Its price was paid by an earlier run: the cost so far is that of this run's own calls."""
    head = journal.read_bytes().splitlines(keepends=True)[0]
    path = tmp_path / "r-aaaaaa.jsonl"
    path.write_bytes(
        head
        + b'00000000 {"t":"reply","key":"a","pair_id":"p","reply":{"text":"A","usage":{"cost":0.5}}}\n'
        + b'00000000 {"t":"reply","key":"b","pair_id":"p","reused":true,"reply":{"text":"A","usage":{"cost":0.5}}}\n'
        + b'00000000 {"t":"reply","key":"c","pair_id":"q","reused":true,"reply":{"text":"A"}}\n'
    )
    live = Tail(path).look()
    assert live is not None and (live.replies, live.cost, live.unpriced) == (3, 0.5, 0)


def test_only_journals_without_a_sealed_run_are_unfinished(journal: Path) -> None:
    """A run in the database is finished; a journal beside it is not."""
    store = Store(journal.parent.parent)
    assert unfinished(store) == []
    other = journal.with_name("r-bbbbbb.jsonl")
    other.write_bytes(journal.read_bytes()[:2000])
    assert unfinished(store) == [other]
    other.unlink()
