"""A fast run is brought in by a second process while it is judged, and by nobody else's fault less well without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars
import pytest

from judge import alongside, journal
from judge.alongside import Alongside
from judge.errors import JournalError
from judge.formats import open_evalset
from judge.journal import Journal
from judge.runs import RunPlan, start_run
from judge.store import ReplyCache, Store, database
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Reply

ROWS = 60


def evalset(path: Path, rows: int = ROWS) -> Path:
    """An eval set of answers of many lengths."""
    lines = [
        orjson.dumps({"id": f"p{n}", "prompt": f"Question {n}?", "candidate": "c" * (n % 7 + 1), "baseline": "b" * 4})
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def run(path: Path, store: Store) -> polars.DataFrame:
    """Judge a set by length."""
    options = {"candidate": None, "baseline": None, "mapping": {}, "skip_bad": False, "limit": None}
    made = "2026-01-01T00:00:00+00:00"
    plan = RunPlan("r-1", made, open_evalset(path), options, sample_rubric(), "scripted:longer")
    asyncio.run(start_run(plan, ScriptedBackend(prefer_longer, name="scripted/longer"), store))
    return store.comparisons("r-1")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process starts for every run."""
    monkeypatch.setattr(alongside, "_WORTH", 1)
    monkeypatch.setattr(alongside, "_WORTH_BYTES", 0)
    monkeypatch.setattr(alongside, "cores", lambda: 2)


def refused(*_args: object, **_kwargs: object) -> int:
    raise AssertionError("the process that judges was to bring nothing in")


def test_the_second_process_brings_in_the_same_rows(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever judges need not bring the run in, and every row is the one that it would have made."""
    path = evalset(tmp_path / "e.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "ingest", refused)
        beside = run(path, Store(tmp_path / "one"))
    monkeypatch.setattr(alongside, "cores", lambda: 1)
    alone = run(path, Store(tmp_path / "two"))
    assert beside.height == ROWS
    assert beside.rows() == alone.rows()
    store = Store(tmp_path / "one")
    assert store.audit(store.journal_path("r-1")).agrees
    assert not list((tmp_path / "one").glob("ingest-*"))


def test_a_second_process_that_dies_costs_nothing_but_time(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is then brought in from its journal."""
    popen: Any = subprocess.Popen

    def dying(_command: list[str], **options: object) -> Any:
        return popen([sys.executable, "-c", "raise SystemExit(3)"], **options)

    monkeypatch.setattr(subprocess, "Popen", dying)
    assert run(evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")).height == ROWS


def test_no_second_process_where_none_can_be_started(
    tmp_path: Path, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for another process is no reason not to judge."""

    def none(*_args: object, **_options: object) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none)
    assert run(evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")).height == ROWS


def begun(tmp_path: Path, along: Alongside) -> tuple[Store, Any]:
    """A run that is being judged, and its second process."""
    store = Store(tmp_path / "home")
    with Journal(store.journal_path("r-1"), create=True) as opened:
        opened.append("run", {"run_id": "r-1", "format": journal.FORMAT})
    along.begin(store, "r-1", ROWS)
    assert along._process is not None
    return store, along._process


def test_a_slow_run_needs_nobody_beside_it(tmp_path: Path, eager: None) -> None:
    """The process ends once the run turns out to be slow, and stays where it is fast."""
    with Alongside() as along:
        _store, process = begun(tmp_path, along)
        along.look(1, 0.5)
        assert process.poll() is None
        along.look(900, 2.5)
        assert process.poll() is not None
    with Alongside() as along:
        along.warm_up(evalset(tmp_path / "e.jsonl"))
        process = along._process
        assert process is not None
        along.look(1_000, 2.5)
        along.look(1_001, 60.0)
        assert process.poll() is None
    assert process.poll() is not None


def test_the_second_process_ends_with_whoever_judges(tmp_path: Path, eager: None) -> None:
    """Where the pipe to it breaks, as by kill -9, it writes nothing to the database."""
    with Alongside() as along:
        store, process = begun(tmp_path, along)
        process.stdin.close()
        process.stdin = None
        assert process.wait(timeout=30) == 1
        assert not store.path.exists()


def growth(path: Path, *parts: bytes) -> Callable[[], bool]:
    """Appends one part at each wait."""
    left = list(parts)

    def more() -> bool:
        if not left:
            return False
        with path.open("ab") as handle:
            handle.write(left.pop(0))
        return True

    return more


def test_a_growing_journal_is_read_by_whole_lines(tmp_path: Path) -> None:
    """Half a line waits for its end; what is still torn when nothing more comes is left out, and damage is refused."""
    path = tmp_path / "r-1.jsonl"
    with Journal(path, create=True) as opened:
        opened.append("run", {"run_id": "r-1"})
        opened.append("seal", {"note": "ü" * 50})
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[:5])
    more = growth(path, first[5:], second[:20], b"", second[20:70], second[70:], second[:30])
    assert [record["t"] for record, _body in journal.bodies(path, more=more)] == ["run", "seal"]
    path.write_bytes(first)
    with pytest.raises(JournalError, match="line 2 is damaged"):
        list(journal.bodies(path, more=growth(path, b"x" + second)))


def test_the_cache_stays_open_only_while_everything_is_found(tmp_path: Path) -> None:
    """Between questions that found all the database is held; a key that is missing, or close, gives it free."""
    path = evalset(tmp_path / "e.jsonl", 3)
    store = Store(tmp_path / "home")
    run(path, store)
    judge, rubric = ScriptedBackend(prefer_longer, name="scripted/longer").id, sample_rubric()
    with database.reading(store.path) as con:
        keys = [key for (key,) in con.execute("SELECT key FROM reply").fetchall()]
    cache = store.known(rubric.digest, judge)
    assert isinstance(cache, ReplyCache)

    def free() -> bool:
        try:
            duckdb.connect(str(store.path)).close()
        except duckdb.Error:
            return False
        return True

    found = cache(keys)
    assert free()
    cache.hold()
    assert dict(cache(keys)) == dict(found)
    assert all(isinstance(reply, Reply) for reply in found.values())
    assert not free()
    assert "missing" not in cache([*keys, "missing"])
    assert free()
    cache(keys)
    assert not free()
    cache.close()
    assert free()


def test_the_cache_gives_others_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a run finds everything, the database is never held for longer than a few seconds."""
    path = evalset(tmp_path / "e.jsonl", 3)
    store = Store(tmp_path / "home")
    run(path, store)
    with database.reading(store.path) as con:
        keys = [key for (key,) in con.execute("SELECT key FROM reply").fetchall()]
    cache = ReplyCache(store.path)
    cache.hold()
    cache(keys)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 5.0)
    cache(keys)
    duckdb.connect(str(store.path)).close()


def test_texts_survive_the_schema_that_compresses_them(tmp_path: Path) -> None:
    """A database of schema 9 keeps the texts of its pairs, and stores them with zstd from then on."""
    path = tmp_path / "judge.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        for number, script in database._migrations()[:9]:
            con.execute(script)
            con.execute("INSERT INTO schema_version VALUES (?)", [number])
        con.execute("INSERT INTO pair VALUES ('r-1', 'p1', '{}'), ('r-1', 'p2', ?)", ["ä" * 5_000])
    with database.reading(path) as con:
        assert con.execute("SELECT pair_id, length(body) FROM pair ORDER BY pair_id").fetchall() == [
            ("p1", 2),
            ("p2", 5_000),
        ]
        made = con.execute("SELECT sql FROM duckdb_tables() WHERE table_name = 'pair'").fetchone()
        assert made is not None
        assert "ZSTD" in made[0].upper()


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a", "prompt": "Q?", "candidate": "x", "baseline": "y"},
        {"uid": "a", "question": "Q?", "answer_a": "x", "answer_b": "y", "category": "c", "label": "A"},
        {"id": 7, "prompt": "Q?", "candidate": {"text": "x", "model": "m"}, "baseline": "y", "category": 3},
        {"id": "", "prompt": "Q?", "candidate": "x", "baseline": "", "category": None, "label": None},
    ],
)
def test_plain_rows_are_read_as_any_other(tmp_path: Path, row: dict[str, object]) -> None:
    """The short way for rows of texts gives the very pair that a row with one more, empty column is read as."""
    plain, other = tmp_path / "plain.jsonl", tmp_path / "other.jsonl"
    plain.write_bytes(orjson.dumps(row) + b"\n")
    other.write_bytes(orjson.dumps({**row, "tags": []}) + b"\n")
    assert list(open_evalset(plain).pairs()) == list(open_evalset(other).pairs())
    assert open_evalset(plain).digest == open_evalset(other).digest
