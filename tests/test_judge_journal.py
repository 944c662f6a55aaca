"""The journal: nothing appended is lost, nothing damaged is read."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge import journal
from judge.errors import StoreError
from judge.journal import Journal
from judge.testing import sample_pair
from judge.types import Answer, Item, Message, Outcome, Pair, Reply, Usage

words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
answers = st.builds(
    Answer,
    words,
    model=st.none() | words.filter(bool),
    tokens=st.none() | st.integers(0, 9),
    tool_calls=st.just(({"name": "f"},)),
)
items = st.builds(
    Item,
    words,
    messages=st.lists(st.builds(Message, words, words), max_size=2).map(tuple),
    category=words,
    tags=st.lists(words, max_size=2).map(tuple),
    context=st.lists(words, max_size=2).map(tuple),
    reference=st.none() | words.filter(bool),
    metadata=st.dictionaries(words, st.integers(0, 5), max_size=2),
)
replies = st.builds(
    Reply,
    text=words,
    probs=st.none() | st.just((0.2, 0.3, 0.5)),
    error=st.none() | words.filter(bool),
    usage=st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.none() | st.floats(0, 1)),
    flags=st.lists(words, max_size=2).map(tuple),
    score=st.dictionaries(words, st.floats(-1, 1), max_size=2),
)


def written(path: Path, count: int = 5) -> Path:
    with Journal(path, create=True) as opened:
        opened.append("run", {"run_id": "r", "format": 1})
        for number in range(count):
            opened.append("reply", {"key": str(number), "text": "é\u0000" * number})
    return path


@given(st.builds(Pair, words, items, answers, answers, st.none() | st.sampled_from(Outcome)))
def test_a_pair_survives_the_journal(pair: Pair) -> None:
    """Encoding and decoding a pair gives the pair."""
    import orjson

    assert journal.decode_pair(orjson.loads(orjson.dumps(journal.encode_pair(pair)))) == pair


ITEM: dict[str, Any] = {
    "messages": (Message("user", "q"),), "category": "c", "tags": ("t",), "context": ("d",), "reference": "r",
    "metadata": {"risk": "high"}, "checks": ({"check": "json"},), "tools": ({"name": "f"},),
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "model": "m", "latency_ms": 1.5, "tokens": 3, "cost": 0.5, "tool_calls": ({"name": "f"},), "turns": 2,
    "finish": "length",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(Item, name) for name in ITEM] + [(Answer, name) for name in ANSWER])
def test_each_field_alone_survives_the_journal(kind: type, name: str) -> None:
    """A pair with nothing but one field beside its texts comes back with it: its own checks, its tools, its turns."""
    item = Item("q", **({name: ITEM[name]} if kind is Item else {}))
    answer = Answer("x", **({name: ANSWER[name]} if kind is Answer else {}))
    pair = Pair("a", item, answer, Answer("y"))
    assert journal.decode_pair(journal.encode_pair(pair)) == pair
    assert journal.decode_pair(journal.encode_pair(replace(pair, baseline=answer))).baseline == answer


def test_no_field_is_forgotten_above() -> None:
    """Whoever adds a field to an item or an answer has to say that it survives."""
    for kind, tried in ((Item, ITEM), (Answer, ANSWER)):
        assert {field.name for field in fields(kind)} - {"prompt", "text"} == tried.keys()


@given(replies)
def test_a_reply_survives_the_journal(reply: Reply) -> None:
    """Encoding and decoding a reply gives the reply."""
    import orjson

    assert journal.decode_reply(orjson.loads(orjson.dumps(journal.encode_reply(reply)))) == reply


def test_a_torn_tail_is_reported_and_cut(tmp_path: Path) -> None:
    """A half-written last line is left out on reading, cut on opening, and the rest stays whole."""
    path = written(tmp_path / "r.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + b'0123abcd {"t": "rep')
    assert journal.scan(path).torn_bytes == 20 - 1
    assert len(list(journal.records(path))) == 6
    with Journal(path) as opened:
        opened.append("seal", {})
    assert path.read_bytes().startswith(whole)
    assert journal.scan(path).sealed


def test_every_cut_and_every_flipped_bit_is_detected_or_recovered(tmp_path: Path) -> None:
    """After a cut anywhere the whole lines before it are read; a flipped bit is an error, or costs the torn tail
    only.
    """
    path = written(tmp_path / "r.jsonl")
    whole = path.read_bytes()
    records = list(journal.records(path))
    chance = random.Random(7)
    for _ in range(200):
        cut = chance.randrange(1, len(whole))
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        if lines:
            assert list(journal.records(path)) == records[:lines]
        else:
            with pytest.raises(StoreError, match="no whole run header"):
                list(journal.records(path))
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            read = list(journal.records(path))
        except StoreError:
            continue
        assert read == records[:-1]


def test_a_damaged_line_names_its_number(tmp_path: Path) -> None:
    """Damage before the end is an error with the line, never skipped."""
    path = written(tmp_path / "r.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"1"', b'"9"')
    path.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match="line 3 is damaged"):
        journal.scan(path)


def test_a_second_process_cannot_write_the_same_run(tmp_path: Path) -> None:
    """An open journal refuses another process until it closes."""
    path = written(tmp_path / "r.jsonl")
    code = f"from judge.journal import Journal; from pathlib import Path; Journal(Path({str(path)!r}))"
    with Journal(path):
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is writing this run" in held.stderr
    assert free.returncode == 0


def test_an_existing_journal_is_not_overwritten(tmp_path: Path) -> None:
    """Creating over an existing run is refused with the command that continues it."""
    path = written(tmp_path / "r.jsonl")
    with pytest.raises(StoreError, match="judge resume r"):
        Journal(path, create=True)


def test_a_sealed_journal_is_not_opened_again(tmp_path: Path) -> None:
    """A finished run is immutable."""
    path = written(tmp_path / "r.jsonl")
    with Journal(path) as opened:
        opened.append("seal", {})
    with pytest.raises(StoreError, match="is sealed"):
        Journal(path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A header of a newer format says to upgrade."""
    with Journal(tmp_path / "r.jsonl", create=True) as opened:
        opened.append("run", {"format": 99})
    with pytest.raises(StoreError, match="upgrade"):
        list(journal.records(tmp_path / "r.jsonl"))


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    """A process that kills itself right after an append loses nothing."""
    path = tmp_path / "r.jsonl"
    code = (
        "import os, signal; from pathlib import Path; from judge.journal import Journal\n"
        f"j = Journal(Path({str(path)!r}), create=True); j.append('run', {{'format': 1}})\n"
        "[j.append('reply', {'key': str(n)}) for n in range(100)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert journal.scan(path).records == 101


def test_empty_fields_are_not_written() -> None:
    """A plain pair takes a plain line."""
    assert journal.encode_pair(sample_pair()) == {
        "id": "pair-1",
        "item": {"prompt": "What is the capital of France?", "category": "facts"},
        "candidate": {"text": "Paris."},
        "baseline": {"text": "Lyon."},
    }


def test_after_a_failed_write_nothing_more_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line is cut off again, and every later append raises the same error instead of writing after it."""
    import os

    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    path = written(tmp_path / "r.jsonl")
    whole = path.read_bytes()
    opened = Journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            opened.append("reply", {"key": "x"})
    assert path.read_bytes() == whole
    with pytest.raises(OSError, match="No space"):
        opened.append("reply", {"key": "y"})
    with pytest.raises(OSError, match="No space"):
        opened.close()
    assert path.read_bytes() == whole
    with Journal(path) as again:
        again.append("reply", {"key": "z"})
    assert journal.scan(path).records == 7


def test_lines_are_synced_by_a_thread_soon_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append does not wait for the disk: another thread syncs it, and many appends share one sync."""
    import os
    import threading

    synced = threading.Event()
    callers: list[str] = []

    def fsync(_fd: int) -> None:
        callers.append(threading.current_thread().name)
        synced.set()

    with Journal(tmp_path / "r.jsonl", create=True) as opened:
        monkeypatch.setattr(os, "fsync", fsync)
        for number in range(100):
            opened.append("reply", {"key": str(number)})
        assert synced.wait(30)
        assert callers == ["journal-fsync"]
    assert callers[1:] == ["MainThread"]


def test_a_record_that_json_cannot_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """A lone surrogate raises at once; what was added before it and after it is written."""
    with Journal(tmp_path / "r.jsonl", create=True) as opened:
        opened.add("run", {"run_id": "r"})
        with pytest.raises(TypeError):
            opened.add("reply", {"text": "\ud800"})
        opened.add("reply", {"text": "ok"})
    assert [record["t"] for record in journal.records(tmp_path / "r.jsonl")] == ["run", "reply"]


def test_closing_never_waits_for_a_sync_that_took_its_wake_up(tmp_path: Path) -> None:
    """A stop that comes while the fsync thread waits for its turn ends that thread; it once hung for ever."""
    import threading
    import time

    from judge.journal import _Syncer

    with (tmp_path / "x").open("wb") as file:
        syncer = _Syncer(file.fileno())
        with syncer._lock:
            syncer.wrote()
            time.sleep(0.15)  # the thread is in `sync` now, waiting for the lock
            stopping = threading.Thread(target=syncer.stop, daemon=True)
            stopping.start()
            while not (syncer._stopped.is_set() and syncer._dirty.is_set()):
                time.sleep(0.005)
        stopping.join(5)
        assert not stopping.is_alive()


def test_a_reply_that_cannot_be_stored_becomes_an_error_that_keeps_what_it_took(tmp_path: Path) -> None:
    """A lone surrogate in a reply ends nothing: tokens, attempts and possibly paid ones stand in the journal."""
    path = tmp_path / "r-1.jsonl"
    took = Usage(100, 7, 0.5)
    with Journal(path, create=True) as opened:
        opened.append("run", {"format": 2})
        bad = Reply(text="\ud800", usage=took, attempts=3, possibly_paid=2)
        kept = opened.add_reply({"key": "k", "pair_id": "p"}, bad)
    assert kept.error is not None and "cannot be stored" in kept.error
    assert (kept.usage, kept.attempts, kept.possibly_paid) == (took, 3, 2)
    *_, last = journal.records(path)
    assert journal.decode_reply(last["reply"]) == kept


def test_the_short_way_to_encode_a_reply_is_the_general_one() -> None:
    """Every mixture of empty, usual and seldom fields gives the same fields, and is read back."""
    usages = (Usage(), Usage(1, 2, None), Usage(0, 0, 0.0), Usage(5, 0, 0.2), Usage(0, 7, None))
    for text, probs, model, latency, usage, ids, finish, attempts, error, score in itertools.product(
        ("", "x"), (None, (0.1, 0.2, 0.7)), (None, "m"), (0.0, 1.5), usages, ((), ("a", "b")), ("stop", "length"),
        (0, 1, 2), (None, "bad"), ({}, {"k": 0.5}),
    ):  # fmt: skip
        more = {"flags": ("odd",), "possibly_paid": 1, "fingerprint": "f"} if len(ids) + attempts > 2 else {}
        reply = Reply(
            text, probs, score, finish, error, model, latency_ms=latency, usage=usage, attempts=attempts,
            response_ids=ids, **more,
        )  # fmt: skip
        assert journal.encode_reply(reply) == journal._filled(reply)
        assert journal.decode_reply(journal.encode_reply(reply)) == reply


def test_a_new_journal_is_listed_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file's folder is synced, and that of a new folder; opening the file again needs neither."""
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").resolve().name))
    path = tmp_path / "runs" / "r-1.jsonl"
    with Journal(path, create=True) as journal:
        assert seen == [tmp_path.name, "runs"]
        journal.append("run", {"run_id": "r-1"})
        journal.sync()
    assert set(seen[2:]) == {path.name}
    seen.clear()
    with Journal(path):
        assert seen == []


def test_a_new_journal_that_cannot_be_listed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its folder cannot be synced the error is raised and no file stays."""

    def fails(_fd: int) -> None:
        raise OSError(5, "injected")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails)
        with pytest.raises(OSError, match="injected"):
            Journal(tmp_path / "r-1.jsonl", create=True)
    assert not list(tmp_path.iterdir())
    Journal(tmp_path / "r-1.jsonl", create=True).close()
