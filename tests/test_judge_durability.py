"""Dying at the worst moments: real processes killed and interrupted at every step, writes that fail, bytes that rot.

A crash may cost the calls that were in flight, never a reply that was stored; resuming gives the table of a run that
nothing happened to.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import polars
import pytest

from judge import failpoints, journal
from judge.errors import InputError, JournalError, StoreError
from judge.formats import open_evalset
from judge.ledger import DEATHS, Ledger
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Store, settled
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Ask, Reply

REPO = Path(__file__).parent.parent
WINDOW = 4

# Forks one process for each job that it is given on stdin, so that what takes long (imports) is done once. A job is a
# run or a resume with a judge that notes in a file each call that it begins ("+key") and each that it returns ("-key").
NURSERY = r"""
import asyncio, json, os, signal, sys, time
from pathlib import Path
import duckdb, polars
from judge import failpoints, protocol
from judge.formats import open_evalset
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric

class Noting(ScriptedBackend):
    def __init__(self, job):
        super().__init__(prefer_longer, name="scripted/longer", batch=1, concurrency=job["window"])
        self.log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.job = job
    async def ask(self, asks):
        os.write(self.log, f"+{asks[0].key}\n".encode())
        await asyncio.sleep(self.job["seconds"])
        if asks[0].pair_id == self.job["deadly"]:
            os.kill(os.getpid(), signal.SIGKILL)
        replies = await super().ask(asks)
        os.write(self.log, f"-{asks[0].key}\n".encode())
        return replies

def run(job):
    if job["crash_at"]:
        failpoints.install(failpoints.killer(job["crash_at"]))
    store, backend = Store(Path(job["home"])), Noting(job)
    plan = RunPlan("r-1", "2026-01-01", open_evalset(Path(job["path"])), {}, sample_rubric(), "scripted:longer")
    work = start_run(plan, backend, store) if job["new"] else resume_run("r-1", store, lambda _spec: backend)
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        return 130
    return 0

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = run(json.loads(line))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPO), "POLARS_MAX_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=REPO,
        )  # fmt: skip

    def begin(self, folder: Path, **job: object) -> int:
        """Start a job and return its process id."""
        given = {"path": str(folder / "e.jsonl"), "home": str(folder / "home"), "log": str(folder / "calls")}
        defaults = {"new": True, "crash_at": "", "deadly": "", "seconds": 0.001, "window": WINDOW}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({**given, **defaults, **job}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Wait for the job; its exit code, negative for a signal."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, folder: Path, **job: object) -> int:
        self.begin(folder, **job)
        return self.end()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    assert made.process.stdin is not None and made.process.stdout is not None
    made.process.stdin.close()
    made.process.wait(timeout=30)
    made.process.stdout.close()


def evalset(folder: Path, rows: int = 40) -> Path:
    path = folder / "e.jsonl"
    lines = [
        {"id": f"p{n:04}", "prompt": f"Question {n}?", "candidate": "c" * (n % 7 + 1), "baseline": f"bbbb{n}"}
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return path


def plan_of(path: Path) -> RunPlan:
    return RunPlan("r-1", "2026-01-01", open_evalset(path), {}, sample_rubric(), "scripted:longer")


class Judge(ScriptedBackend):
    def __init__(self) -> None:
        super().__init__(prefer_longer, name="scripted/longer", batch=1, concurrency=WINDOW)

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        await asyncio.sleep(0)
        return await super().ask(asks)


def facts(frame: polars.DataFrame) -> list[tuple[object, ...]]:
    return frame.drop("run_id", "cached").rows()


def unbroken(folder: Path, rows: int = 40) -> list[tuple[object, ...]]:
    folder.mkdir(exist_ok=True)
    asyncio.run(start_run(plan_of(evalset(folder, rows)), Judge(), Store(folder / "home")))
    return facts(Store(folder / "home").comparisons("r-1"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    return unbroken(tmp_path_factory.mktemp("whole"))


def finish(folder: Path) -> tuple[Store, Judge]:
    """Resume a run, or begin it again where it died before its header was whole."""
    store, rest = Store(folder / "home"), Judge()
    path = store.journal_path("r-1")
    try:
        asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    except StoreError as error:
        if "no whole run header" not in str(error) and "no such run" not in str(error):
            raise
        path.unlink(missing_ok=True)
        asyncio.run(start_run(plan_of(folder / "e.jsonl"), rest, store))
    return store, rest


def repeated(folder: Path, rest: Judge) -> tuple[int, int]:
    """Calls that were begun before the crash and again after it, and those among them that had returned."""
    log = (folder / "calls").read_text().split() if (folder / "calls").exists() else []
    again = {ask.key for ask in rest.asked}
    begun = {line[1:] for line in log if line[0] == "+"}
    returned = {line[1:] for line in log if line[0] == "-"}
    assert Counter(ask.key for ask in rest.asked).most_common(1)[0][1] == 1 if rest.asked else True
    return len(begun & again), len(returned & again)


MIDDLE = {"intent", "call", "reply"}
EXPECTED_CODES = {"KILL": {-signal.SIGKILL}, "INT": {130, 0}}


@pytest.mark.parametrize(
    ("point", "sent"),
    [
        (point, sent)
        for point in failpoints.POINTS
        for sent in ("KILL", "INT")
        if (point[:6], sent) != ("within", "INT")
    ],
)
def test_dying_at_every_step_loses_and_doubles_nothing(
    nursery: Nursery, tmp_path: Path, whole: list[tuple[object, ...]], point: str, sent: str
) -> None:
    """At each named point, killed or interrupted, the resumed table is that of an unbroken run; at most one window of
    calls is made again, and the possibly paid ones are counted.
    """
    evalset(tmp_path)
    turn = 5 if point.partition("_")[2] in MIDDLE else 1
    code = nursery.run(tmp_path, crash_at=f"{point}:{turn}:{sent}")
    assert code in EXPECTED_CODES[sent], code
    store, rest = finish(tmp_path)
    frame = store.comparisons("r-1")
    assert facts(frame) == whole
    assert frame["pair_id"].n_unique() == frame.height == 40
    twice, delivered = repeated(tmp_path, rest)
    assert twice <= WINDOW
    if sent == "INT":
        assert delivered == 0
    assert twice <= store.run("r-1").possibly_paid <= WINDOW
    assert store.audit(store.journal_path("r-1")).agrees


@pytest.mark.parametrize("kills", [pytest.param(6), pytest.param(100, marks=pytest.mark.slow)])
def test_random_kills_lose_nothing_and_repeat_only_what_was_in_flight(
    nursery: Nursery, tmp_path: Path, whole: list[tuple[object, ...]], kills: int
) -> None:
    """Killed at random moments, every run resumes to the whole table; mostly no call that returned is repeated."""
    chance, counted = random.Random(11), []
    for number in range(kills):
        folder = tmp_path / str(number)
        folder.mkdir()
        evalset(folder)
        child = nursery.begin(folder, seconds=0.004)
        file = folder / "home" / "runs" / "r-1.jsonl"
        timer = threading.Timer(chance.uniform(0.0, 0.12), os.kill, (child, signal.SIGKILL))
        while not file.exists():
            os.sched_yield()
        timer.start()
        code = nursery.end()
        timer.cancel()
        timer.join()
        assert code in {-signal.SIGKILL, 0}
        store, rest = finish(folder)
        assert facts(store.comparisons("r-1")) == whole
        twice, delivered = repeated(folder, rest)
        assert twice <= WINDOW
        counted.append(delivered)
    assert statistics.median(counted) == 0


def test_killed_again_and_again_a_run_still_ends(
    nursery: Nursery, tmp_path: Path, whole: list[tuple[object, ...]]
) -> None:
    """A run that is killed on every resume makes progress each time and pays at most a window more for each kill."""
    evalset(tmp_path)
    deaths = 0
    while nursery.run(tmp_path, new=deaths == 0, crash_at="after_reply:4:KILL") != 0:
        deaths += 1
        assert deaths < 40
    store = Store(tmp_path / "home")
    assert facts(store.comparisons("r-1")) == whole
    assert deaths > 2
    calls = (tmp_path / "calls").read_text().count("+")
    assert 80 <= calls <= 80 + deaths * WINDOW
    # Some had their intent written and were never begun; nobody can know that after a kill.
    assert calls - 80 <= store.run("r-1").possibly_paid <= deaths * WINDOW
    info = store.run("r-1")
    assert sum(info.lost.values()) == info.possibly_paid, "each is named"
    assert store.receipts("r-1")["in_flight"].sum() == info.possibly_paid


def test_a_deadly_ask_is_given_up_and_said(nursery: Nursery, tmp_path: Path) -> None:
    """An ask that kills the process each time is given up after a bounded number of deaths; the others are judged."""
    evalset(tmp_path)
    codes = []
    while not codes or codes[-1] != 0:
        codes.append(nursery.run(tmp_path, new=not codes, deadly="p0007"))
        assert len(codes) < 12
    # Both orders of p0007 are deadly: each is named by deaths of its own, after those that they shared.
    assert codes[:-1] == [-signal.SIGKILL] * (len(codes) - 1)
    assert DEATHS <= len(codes) - 1 <= 2 * DEATHS
    store = Store(tmp_path / "home")
    frame = store.comparisons("r-1")
    assert frame.filter(polars.col("invalid").is_not_null())["pair_id"].to_list() == ["p0007"]
    assert frame.filter(polars.col("pair_id") == "p0007")["invalid"].to_list() == ["error"]
    assert store.run("r-1").given_up == 2
    log = (tmp_path / "calls").read_text().split()
    assert max(Counter(log).values()) <= DEATHS


def test_a_clean_stop_blames_nobody(nursery: Nursery, tmp_path: Path, whole: list[tuple[object, ...]]) -> None:
    """Interrupting a run many times gives no ask up: only sudden deaths count."""
    evalset(tmp_path)
    for turn in range(2 * DEATHS):
        assert nursery.run(tmp_path, new=turn == 0, crash_at="after_intent:1:INT") == 130
    store, _ = finish(tmp_path)
    assert facts(store.comparisons("r-1")) == whole
    assert (store.run("r-1").given_up, store.run("r-1").possibly_paid) == (0, 0)


# Failing calls to the system ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["write", "fsync"])
def test_whichever_write_or_sync_fails_nothing_is_lost_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[tuple[object, ...]], name: str
) -> None:
    """For n = 1, 2, ... the n-th call fails: the run says so, and resuming gives the whole table."""
    real = getattr(os, name)
    for failing in range(1, 200):
        folder = tmp_path / f"{name}{failing}"
        folder.mkdir()
        store, count = Store(folder / "home"), [0]

        def broken(fd: int, *rest: bytes, failing: int = failing, count: list[int] = count) -> int:
            count[0] += 1
            if count[0] == failing:
                if rest:
                    real(fd, rest[0][: len(rest[0]) // 2])
                raise OSError(errno.ENOSPC if rest else errno.EIO, "injected")
            return int(real(fd, *rest) or 0)

        said = False
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            try:
                asyncio.run(start_run(plan_of(evalset(folder)), Judge(), store))
            except OSError as error:
                said = error.args[1] == "injected"
        assert said == (count[0] >= failing)
        store, _ = finish(folder)
        assert facts(store.comparisons("r-1")) == whole
        if not said:
            break
    assert failing >= 3


def test_whichever_rename_fails_the_database_can_be_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that fails while the database is rebuilt is said; the journals are untouched and the next try works."""
    table = unbroken(tmp_path)
    store = Store(tmp_path / "home")
    store.path.with_name("judge.duckdb.wal").write_bytes(b"")
    real = Path.replace
    for failing in range(1, 10):
        count = [0]

        def broken(path: Path, target: Path, failing: int = failing, count: list[int] = count) -> Path:
            count[0] += 1
            if count[0] == failing:
                raise OSError(errno.EIO, "injected")
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", broken)
            try:
                store.rebuild()
            except OSError:
                pass
            else:
                break
        assert store.catch_up() == []
        assert facts(store.comparisons("r-1")) == table
    assert failing >= 3


# Rot -------------------------------------------------------------------------------------------------------------


def spoilt(whole: bytes, chance: random.Random) -> bytes:
    """The bytes cut anywhere, or with one bit flipped."""
    if chance.random() < 0.5:
        return whole[: chance.randrange(len(whole))]
    damaged = bytearray(whole)
    damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


@pytest.mark.parametrize("turns", [pytest.param(60), pytest.param(1_000, marks=pytest.mark.slow)])
def test_no_cut_and_no_flipped_bit_of_a_sealed_journal_goes_unnoticed(tmp_path: Path, turns: int) -> None:
    """Reading fails with the line, or the audit against the database disagrees; never does a changed journal pass."""
    unbroken(tmp_path, 6)
    store = Store(tmp_path / "home")
    path = store.journal_path("r-1")
    original, chance = path.read_bytes(), random.Random(3)
    assert store.audit(path).agrees
    for _ in range(turns):
        path.write_bytes(spoilt(original, chance))
        try:
            audit = store.audit(path)
        except JournalError:
            continue
        assert not audit.agrees and not audit.ledger.sealed


@pytest.mark.parametrize("turns", [pytest.param(15), pytest.param(300, marks=pytest.mark.slow)])
def test_a_spoilt_unfinished_journal_is_refused_or_finished_whole(tmp_path: Path, turns: int) -> None:
    """A cut costs only calls; a flipped bit is refused, or it tore the last line and costs that one."""
    table = unbroken(tmp_path, 60)
    store = Store(tmp_path / "home")
    path = store.journal_path("r-1")
    lines = path.read_bytes().splitlines(keepends=True)
    original, chance = b"".join(lines[:-1]), random.Random(5)
    refused = 0
    for _ in range(turns):
        store.path.unlink(missing_ok=True)
        path.write_bytes(spoilt(original, chance))
        try:
            asyncio.run(resume_run("r-1", store, lambda _spec: Judge()))
        except JournalError:
            refused += 1
            continue
        assert facts(store.comparisons("r-1")) == table
    assert 0 < refused < turns


def test_the_audit_finds_every_changed_row(tmp_path: Path) -> None:
    """A value changed, a row lost and a row too many in the database are counted and the first is named."""
    import duckdb

    unbroken(tmp_path, 6)
    store = Store(tmp_path / "home")
    path = store.journal_path("r-1")
    found = []
    for change in (
        "UPDATE comparison SET cf_win = cf_win + 1e-9 WHERE pair_id = 'p0002'",
        "DELETE FROM reply WHERE pair_id = 'p0003' AND placement = 'baseline_first'",
        "INSERT INTO pair VALUES ('r-1', 'nobody', '{}')",
        "UPDATE run SET possibly_paid = 7",
    ):
        with duckdb.connect(str(store.path)) as con:
            con.execute(change)
        audit = store.audit(path)
        found.append((audit.differing, audit.missing, audit.extra))
    assert found == [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)]
    assert store.rebuild() == (["r-1"], [])
    assert store.audit(path).agrees


def test_a_database_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """A database that version 0.1 wrote is read, with nothing known of its calls until the journal is read again."""
    import duckdb

    table = unbroken(tmp_path, 6)
    store = Store(tmp_path / "home")
    columns = "SELECT table_name, column_name FROM information_schema.columns"
    with duckdb.connect() as first:
        first.execute((REPO / "judge" / "schema" / "001_runs.sql").read_text(encoding="utf-8"))
        known = set(first.execute(columns).fetchall())
    with duckdb.connect(str(store.path)) as con:
        later = [entry for entry in con.execute(columns).fetchall() if entry not in known]
        tables = {name for name, _ in known}
        for name in {name for name, _ in later} - tables - {"schema_version"}:
            con.execute(f"DROP TABLE {name}")
        for name, column in later:
            if name in tables:
                con.execute(f"ALTER TABLE {name} DROP COLUMN {column}")
        con.execute("DELETE FROM schema_version WHERE version > 1")
    assert [run.run_id for run in store.runs()] == ["r-1"]
    assert facts(store.comparisons("r-1")) == table
    store.rebuild()
    assert store.run("r-1").calls == 12


# The hook itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["nowhere", "after_intent:x", "after_intent:1:NOSUCH"])
def test_a_crash_point_that_does_not_exist_is_refused(spec: str) -> None:
    """A misspelt point would make a test that cannot fail."""
    with pytest.raises(InputError, match="JUDGE_CRASH_AT"):
        failpoints.killer(spec)


def test_every_crash_point_is_reached(tmp_path: Path) -> None:
    """A whole run passes every named point."""
    seen: Counter[str] = Counter()

    def note(name: str) -> None:
        seen[name] += 1

    failpoints.install(note)
    try:
        unbroken(tmp_path, 6)
    finally:
        failpoints.install(None)
    assert set(seen) == set(failpoints.POINTS)
    assert len(failpoints.POINTS) >= 12


def test_the_command_line_reads_the_crash_point_and_recovers(tmp_path: Path) -> None:
    """Killed after an intent, judge resume finishes the run, the report says what was possibly paid, recover and doctor
    agree.
    """

    def judge(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from judge.cli import main; main()", *args],
            env={**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path / "home"), **env},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    path = str(evalset(tmp_path, 6))
    assert judge("run", path, "-j", "scripted:longer", JUDGE_CRASH_AT="after_intent").returncode == -signal.SIGKILL
    run_id = next((tmp_path / "home" / "runs").iterdir()).stem
    resumed = judge("resume", run_id)
    assert resumed.returncode == 0, resumed.stderr
    assert "12 calls were possibly paid" in " ".join(resumed.stdout.split())
    (tmp_path / "home" / "judge.duckdb").write_bytes(b"garbage")
    recovered = judge("recover")
    assert (recovered.returncode, run_id in recovered.stdout) == (0, True)
    checked = judge("doctor")
    assert "12 calls possibly paid without an answer, journal and database agree" in " ".join(checked.stdout.split())


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(tmp_path: Path) -> None:
    """judge run --dry-run counts the calls, makes none and writes no file."""
    command = [
        sys.executable,
        "-c",
        "from judge.cli import main; main()",
        "run",
        str(evalset(tmp_path, 6)),
        "--dry-run",
    ]
    env = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path / "home")}
    done = subprocess.run([*command, "-j", "scripted"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "calls   12 for 12 verdicts" in done.stdout) == (0, True)
    assert not (tmp_path / "home").exists()
    as_json = subprocess.run([*command, "-j", "scripted", "--json"], env=env, capture_output=True, check=True)
    assert json.loads(as_json.stdout)["calls"] == 12


def test_an_unfinished_journal_tells_what_is_on_its_way(nursery: Nursery, tmp_path: Path) -> None:
    """After a kill the ledger of the journal counts one window of calls as possibly paid."""
    evalset(tmp_path)
    assert nursery.run(tmp_path, crash_at="after_intent:1:KILL") == -signal.SIGKILL
    ledger = Ledger()
    assert list(settled(Store(tmp_path / "home").journal_path("r-1"), ledger=ledger)) == []
    assert (ledger.possibly_paid, ledger.calls, sorted(set(ledger.deaths.values()))) == (WINDOW, 0, [1])
    assert journal.scan(Store(tmp_path / "home").journal_path("r-1")).torn_bytes == 0
