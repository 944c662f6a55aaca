"""What finding out a judge's mode costs is written down before any run has a journal, and told until one books it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from judge import cli, failpoints
from judge.backends import open_backend
from judge.environment import Environment
from judge.errors import BackendError
from judge.money import Budget
from judge.outlays import FILE, Outlay, find_out, unbooked
from judge.store import Store
from judge.types import Reply, Usage

REPO = Path(__file__).resolve().parent.parent

CHILD = "from judge.cli import main; main()"


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command line in this process, with a home of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"p{n}", "prompt": f"Q{n}?", "candidate": "c" * (n + 1), "baseline": "bb!"} for n in range(6)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def call(*args: str) -> tuple[int, str, str]:
        code = cli._run([str(arg) for arg in args])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def spec_of(url: str) -> str:
    return f"openai:m?base_url={url}&price_in=1&price_out=1"


def killed(folder: Path, point: str, *args: str) -> int:
    """The exit code of the command line in a process of its own that dies at a named point."""
    env = {"PYTHONPATH": str(REPO), "JUDGE_HOME": str(folder / "home"), "JUDGE_CRASH_AT": point, "HOME": str(folder)}
    command = [sys.executable, "-c", CHILD, *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False, timeout=60).returncode


def booked(folder: Path) -> int:
    """Calls of finding out that runs have booked."""
    store = Store(folder / "home")
    store.catch_up()
    return sum(run.probes for run in store.runs())


class Judge:
    """A judge that has to look at its server, and does not get there; ``ask`` is done in between."""

    id, batch, concurrency, notice = "x", 1, 1, ""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.ask, self.spent = ask, Reply(attempts=0, usage=Usage(cost=0.0))

    async def prepare(self, _recorded: object = None, *, budget: object = None) -> None:
        self.ask()
        self.spent = Reply(attempts=2, possibly_paid=1, usage=Usage(cost=0.5))
        raise BackendError("gone")

    async def probed(self, *, keep: bool = False) -> Reply:
        assert keep
        return self.spent


def look(home: Path, name: str, ask: Callable[[], object] = bool) -> None:
    """Find out how such a judge can answer."""
    with pytest.raises(BackendError, match="gone"):
        asyncio.run(find_out(home, name, Judge(ask), budget=None, at="today"))  # type: ignore[arg-type]


def test_a_look_that_fails_is_told_until_the_end_of_time(server: Any, tmp_path: Path, judge: Any) -> None:
    """The server answered the first look and not the second: what the first took belongs to no run, and is told."""
    url = server.url("fails", "no-logprobs,401")
    code, _, err = judge("run", "e.jsonl", "-j", spec_of(url))
    assert (code, "401" in err) == (3, True)
    assert not list((tmp_path / "home").glob("runs/*"))
    (outlay,) = unbooked(tmp_path / "home")
    assert (outlay.calls, outlay.possibly_paid, server.book("fails")["requests"]) == (1, 0, 2)
    assert outlay.cost is not None and outlay.cost > 0
    assert outlay.most is not None and outlay.most >= outlay.cost
    shown = judge("doctor")[1]
    assert "unbooked cost" in shown and f"${outlay.cost:.6f}" in shown
    assert f"${outlay.cost:.6f}" in judge("report", "--list")[2]


@pytest.mark.parametrize("point", failpoints.PROBE_POINTS)
def test_dying_around_the_look_loses_no_cost(server: Any, tmp_path: Path, judge: Any, point: str) -> None:
    """Killed at every step between the first look and the record that books it: each call that was made is told once,
    by its run or apart from all runs; calls that nobody can know of are possibly paid.
    """
    name = f"dies-{point.replace('_', '-')}"
    spec = spec_of(server.url(name))
    assert killed(tmp_path, point, "run", "e.jsonl", "-j", spec) == -signal.SIGKILL
    made = server.book(name)["requests"]
    outlays = unbooked(tmp_path / "home")
    known = booked(tmp_path) + sum(outlay.calls for outlay in outlays)
    assert known == made if point not in ("before_probing", "after_probing") else known == 0
    assert sum(outlay.possibly_paid for outlay in outlays) == (6 if known == 0 else 0)
    told = judge("doctor")[1].count("unbooked cost")
    assert told == len(outlays) == (0 if booked(tmp_path) else 1)


def test_a_panel_that_dies_during_its_first_judge_keeps_the_cost_of_all(
    server: Any, tmp_path: Path, judge: Any
) -> None:
    """All judges are looked at first; killed while the first judges, the others' looks stand, and count when it is
    resumed.
    """
    one, two = spec_of(server.url("panel-one")), spec_of(server.url("panel-two")).replace("openai:m", "openai:n")
    assert killed(tmp_path, "before_reply", "run", "e.jsonl", "-j", one, "-j", two) == -signal.SIGKILL
    (outlay,) = unbooked(tmp_path / "home")
    assert (outlay.calls, outlay.subject[-2:], booked(tmp_path)) == (1, "/2", 1)
    group = outlay.subject[:-2]
    assert judge("resume", group)[0] == 0
    assert server.book("panel-two")["requests"] == 1 + 12
    assert unbooked(tmp_path / "home") == [outlay]


def test_a_run_books_what_its_look_took(server: Any, tmp_path: Path, judge: Any) -> None:
    """In good order nothing is left over, and a second run, which looks at nothing, adds no line."""
    spec = spec_of(server.url("good"))
    assert judge("run", "e.jsonl", "-j", spec)[0] == 0
    path = tmp_path / "home" / FILE
    written = path.read_bytes()
    assert (written.count(b"\n"), unbooked(tmp_path / "home"), booked(tmp_path)) == (2, [], 1)
    assert judge("run", "e.jsonl", "-j", spec)[0] == 0
    assert path.read_bytes() == written
    assert "unbooked" not in judge("doctor")[1]


def test_a_look_that_several_ask_for_is_told_once(tmp_path: Path) -> None:
    """A panel looks at its judges before their runs do the same: one look is one pair of lines, also of a judge that
    does not say what it knows of its server.
    """

    class Once(Judge):
        """It gets there, and asks its server the first time only."""

        async def prepare(self, _recorded: object = None, *, budget: object = None) -> None:
            self.spent = Reply(attempts=2, usage=Usage(cost=0.5))

    backend: Any = Once(bool)
    for _ in range(2):
        asyncio.run(find_out(tmp_path, "p-1/1", backend, budget=None, at="today"))
    assert unbooked(tmp_path) == [Outlay("p-1/1", "x", "today", 2, 0, 0.5, 0.5)]


def test_an_interrupted_look_may_have_been_paid(server: Any, tmp_path: Path) -> None:
    """Cancelled while its call is on its way, that call counts as possibly paid, at its upper bound."""
    backend = open_backend(spec_of(server.url("slow", "hang")), Environment(tmp_path / "home", tmp_path / "cache"))

    async def work() -> None:
        try:
            task = asyncio.ensure_future(find_out(tmp_path, "r-1", backend, budget=Budget(1.0), at="today"))
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        finally:
            await backend.close()

    asyncio.run(work())
    (outlay,) = unbooked(tmp_path)
    assert (outlay.calls, outlay.possibly_paid, outlay.cost) == (0, 1, 0.0)
    assert outlay.most is not None and outlay.most > 0


@pytest.mark.parametrize("cut", [2, 12, 40])
def test_a_torn_or_damaged_line_is_left_out(tmp_path: Path, cut: int) -> None:
    """What a dying process left half is no record; the next writer begins a line of its own."""
    look(tmp_path, "r-1")
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-cut])
    look(tmp_path, "r-2")
    first, second = unbooked(tmp_path)
    assert first == Outlay("r-1", "x", "today", 0, 6, 0.0, 0.0)
    assert second == Outlay("r-2", "x", "today", 1, 1, 0.5, 0.5)
    assert "1 calls for $0.500000, 1 possibly paid (at most $0.500000 in all)" in str(second)


def test_a_new_file_is_listed_on_the_disk_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line is synced, then the folder that lists its file, and the one that lists that folder; a later line
    needs no folder.
    """
    seen: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").resolve().name))
    home = tmp_path / "new" / "home"
    look(home, "r-1", ask=lambda: seen.append("asked"))
    assert seen == [tmp_path.name, "new", FILE, "home", "asked", FILE]
    seen.clear()
    look(home, "r-2", ask=lambda: seen.append("asked"))
    assert seen == [FILE, "asked", FILE]


def test_who_still_asks_has_lost_nothing(tmp_path: Path, judge: Any) -> None:
    """While a judge is asked nothing of it counts as possibly paid, not in `judge doctor` or the list either; what a
    dead process began for the same run does, before and after.
    """
    home = tmp_path / "home"
    shown: list[tuple[list[Outlay], int]] = []

    def asked() -> None:
        told = judge("doctor")[1] + judge("report", "--list")[2]
        shown.append((unbooked(home), told.count("possibly paid")))

    look(home, "r-1", ask=asked)
    ended = Outlay("r-1", "x", "today", 1, 1, 0.5, 0.5)
    assert (shown, unbooked(home)) == ([([], 0)], [ended])
    assert not list(home.glob("*.asking"))
    path, shown[:] = home / FILE, []
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # as if the process had died before its end
    dead = Outlay("r-1", "x", "today", 0, 6, 0.0, 0.0)
    look(home, "r-1", ask=asked)
    assert (shown, unbooked(home)) == ([([dead], 2)], [dead, ended])


def test_who_died_asking_counts(server: Any, tmp_path: Path) -> None:
    """Killed while it asks, a process holds no lock any more: its calls are possibly paid."""
    url = server.url("killed-asking", "hang")
    env = {"PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}
    (tmp_path / "e.jsonl").write_text('{"id": "p", "prompt": "Q?", "candidate": "c", "baseline": "b"}\n')
    command = [sys.executable, "-c", CHILD, "run", "e.jsonl", "-j", spec_of(url)]
    child = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not server.book("killed-asking")["requests"] and time.monotonic() < end:
            time.sleep(0.05)
        assert unbooked(tmp_path / "home") == []
    finally:
        child.kill()
        child.wait()
    (outlay,) = unbooked(tmp_path / "home")
    assert (outlay.calls, outlay.possibly_paid) == (0, 6)


def test_a_look_that_ends_while_it_is_told_is_told_as_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is read although it came after the first reading: the calls are not taken for possibly paid ones."""
    look(tmp_path, "r-1")
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole.splitlines(keepends=True)[0])

    def ends(_home: Path, _begin: object) -> bool:
        path.write_bytes(whole)
        return False

    monkeypatch.setattr("judge.outlays._alive", ends)
    assert unbooked(tmp_path) == [Outlay("r-1", "x", "today", 1, 1, 0.5, 0.5)]
