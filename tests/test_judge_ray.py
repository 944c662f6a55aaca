"""Judges on a Ray cluster: real actors, killed with real signals, against a real server that counts paid calls.

One local cluster of two workers serves the whole module. The workers' environment holds a planted key.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars
import pytest

from judge import outlays, protocol
from judge.backends import Backend, open_backend, probed, ray_workers, ready
from judge.backends.ray_workers import Cluster, RayBackend, open_on_ray
from judge.cli import _run
from judge.environment import calm_ray, environment
from judge.errors import BackendError, InputError
from judge.formats import open_evalset
from judge.outlays import find_out, unbooked
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer, sample_pair, sample_rubric
from judge.types import Reply

REPO = Path(__file__).resolve().parent.parent
KEY = "sk-planted-0123456789abcdef"
WINDOW = 3
ROWS = 40


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def server(server: Any) -> Any:
    """The misbehaving server, which takes 20 ms to answer."""
    server.book("latency/0.02")
    return server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers' worth of a local cluster; its environment is this process's, with a planted key."""
    before = dict(os.environ)
    home = tmp_path_factory.mktemp("home")
    os.environ.update(OPENAI_API_KEY=KEY, PYTHONPATH=str(REPO), JUDGE_HOME=str(home))
    calm_ray("0" * 64)
    made = Cluster("local", workers=2)
    made.join()
    yield made
    folder = Path(made.folder)
    assert folder.is_dir()
    made.leave()
    assert not folder.exists()
    os.environ.clear()
    os.environ.update(before)


def evalset(folder: Path, rows: int = ROWS) -> Path:
    path = folder / "e.jsonl"
    lines = [
        {"id": f"p{n:04}", "prompt": f"Question {n}?", "candidate": "c" * (n % 7 + 1), "baseline": f"bbbb{n}"}
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    return path


def judged(
    folder: Path, spec: str, backend: Backend, home: str = "home", run_id: str = "r-1", rows: int = ROWS, **more: Any
) -> Store:
    """A run in a home folder of its own, with this backend."""

    async def work() -> None:
        try:
            plan = RunPlan(run_id, "2026-01-01", open_evalset(evalset(folder, rows)), {}, sample_rubric(), spec)
            await start_run(plan, backend, store, **more)
        finally:
            await backend.close()

    store = Store(folder / home)
    asyncio.run(work())
    return store


def facts(store: Store) -> list[tuple[object, ...]]:
    frame: polars.DataFrame = store.comparisons("r-1")
    return frame.drop("run_id", "cached").rows()


def chat(server: Any, name: str, script: str = "ok", more: str = "&mode=logprobs") -> str:
    return f"openai:m?base_url={server.url(name, script)}&concurrency={WINDOW}&price_in=1&price_out=2{more}"


def told_of(backend: RayBackend, number: int = 0) -> int:
    """The process id of a living worker."""
    return backend.workers[number].pid


@needs_ray
def test_the_table_is_that_of_a_plain_run(cluster: Cluster, tmp_path: Path) -> None:
    """Judged on two workers, every row is equal to that of a run in one process, and serves it as its cache."""
    spec = "scripted:longer"
    plain = judged(tmp_path, spec, open_backend(spec, environment()), "plain")
    backend = open_on_ray(spec, environment(), cluster)
    assert (str(backend.id), backend.batch, backend.concurrency) == ("scripted/longer", 256, 8)
    assert len({worker.pid for worker in backend.workers} - {os.getpid()}) == 2
    spread = judged(tmp_path, spec, backend)
    assert facts(spread) == facts(plain)
    assert spread.run("r-1").header["judge"] == plain.run("r-1").header["judge"]
    plain_again = ScriptedBackend(prefer_longer, name="scripted/longer")
    judged(tmp_path, spec, plain_again, run_id="r-2")
    assert plain_again.asked == []


@needs_ray
def test_a_killed_worker_costs_at_most_its_window(cluster: Cluster, server: Any, tmp_path: Path) -> None:
    """With one worker killed by signal 9 in the middle, the run ends with the plain table; the server was paid at most
    one worker's window more, and each repeated call is booked as possibly paid.
    """
    spec = chat(server, "kill")
    plain = judged(tmp_path, spec, open_backend(spec, environment()), "plain")
    once = server.book("kill")["paid"]
    notes: list[str] = []
    backend = open_on_ray(spec, environment(), cluster, tell=notes.append)
    assert backend.concurrency == 2 * WINDOW
    victims = [told_of(backend)]

    def report(progress: Any) -> None:
        if progress.settled >= ROWS // 4 and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    store = judged(tmp_path, spec, backend, report=report)
    assert facts(store) == facts(plain)
    assert backend.lost == 1 and len(notes) == 1 and "1 left" in notes[0]
    info = store.run("r-1")
    assert backend.repeated == info.possibly_paid
    assert 0 < info.possibly_paid <= WINDOW
    assert 0 <= server.book("kill")["paid"] - 2 * once <= info.possibly_paid
    assert server.book("kill")["most"] <= 3 * WINDOW, "two windows, and what the dead worker left at the server"


@needs_ray
def test_with_every_worker_dead_what_was_answered_is_kept(cluster: Cluster, server: Any, tmp_path: Path) -> None:
    """Once no worker is left the run stops with the reason; resumed without Ray, it asks for the rest only."""
    spec = chat(server, "dead")
    backend = open_on_ray(spec, environment(), cluster)
    victims = [worker.pid for worker in backend.workers]

    def report(progress: Any) -> None:
        if progress.settled >= ROWS // 4:
            while victims:
                os.kill(victims.pop(), signal.SIGKILL)

    with pytest.raises(BackendError, match="all 2 Ray workers died") as caught:
        judged(tmp_path, spec, backend, report=report)
    assert 0 < caught.value.unanswered <= ROWS * 3 // 4
    store = Store(tmp_path / "home")
    asyncio.run(resume_run("r-1", store, lambda spec: open_backend(spec, environment())))
    plain = judged(tmp_path, spec, open_backend(spec, environment()), "plain")
    assert facts(store) == facts(plain)
    assert server.book("dead")["paid"] - 2 * 2 * ROWS <= 2 * WINDOW


@needs_ray
@pytest.mark.slow
def test_an_ask_that_two_workers_died_of_is_not_sent_again(cluster: Cluster, server: Any) -> None:
    """An ask that is in flight on a dying worker twice becomes a reply with an error that says so, and is counted."""
    backend = open_on_ray(chat(server, "poison", "hang"), environment(), Cluster("local", workers=3))
    ask = protocol.plan(sample_pair(), sample_rubric(), backend.id)[0]

    async def work() -> list[Reply]:
        task = asyncio.ensure_future(backend.ask([ask]))
        for death in range(2):
            while server.book("poison")["requests"] <= death and not task.done():
                await asyncio.sleep(0.01)
            (busy,) = (seat for seat in backend._seats if seat.flying)
            os.kill(busy.opened.pid, signal.SIGKILL)
        try:
            return await task
        finally:
            await backend.close()

    (reply,) = asyncio.run(work())
    assert reply.error is not None and "2 Ray workers died" in reply.error
    assert (reply.attempts, reply.possibly_paid, backend.lost, len(backend.workers)) == (2, 2, 2, 1)
    assert server.book("poison")["requests"] == 2


@needs_ray
def test_a_killed_driver_resumes_without_ray(cluster: Cluster, server: Any, tmp_path: Path) -> None:
    """The command line on a cluster that is there already: killed by signal 9 and resumed without Ray, the table is the
    plain one and at most one window of calls is made again.
    """
    import ray

    spec, home = chat(server, "driver"), tmp_path / "home"
    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:"), "a local cluster listens on loopback"
    command = [sys.executable, "-c", "from judge.cli import main; main()", "run", str(evalset(tmp_path)), "-j", spec]
    done = subprocess.run(
        [*command, "--engine", "ray", "--ray-address", address, "--home", str(home), "--canaries", "0"],
        env={**os.environ, "JUDGE_CRASH_AT": "after_reply:12"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    (run_id,) = (path.stem for path in (home / "runs").glob("*.jsonl"))
    assert _run(["resume", run_id, "--home", str(home)]) == 0
    paid = server.book("driver")["paid"]
    plain = judged(tmp_path, spec, open_backend(spec, environment()), "plain")
    outcomes = ["pair_id", "outcome", "preference", "cf_win", "bf_win", "cost", "tokens"]
    resumed = Store(home).comparisons(run_id).select(outcomes)
    assert resumed.height == ROWS
    # The run above had the shipped rubric and this one the sample: prompts, and so tokens, differ; the rest does not.
    assert resumed.drop("cost", "tokens").equals(plain.comparisons("r-1").select(outcomes).drop("cost", "tokens"))
    assert 0 <= paid - 2 * ROWS <= 2 * WINDOW


@needs_ray
@pytest.mark.parametrize("script", ["ok", pytest.param("echo401", marks=pytest.mark.slow)])
def test_a_planted_key_is_in_no_artefact_of_ray(cluster: Cluster, server: Any, tmp_path: Path, script: str) -> None:
    """The workers send the key of their environment; no file of Ray or of the run, and no message, has it."""
    name = f"leak-{script}"
    spec = chat(server, name, script)
    notes = ""
    try:
        judged(tmp_path, spec, open_on_ray(spec, environment(), cluster))
    except BackendError as error:
        notes = str(error)
    assert (notes != "") == (script != "ok")
    assert server.book(name)["log"][0]["authorization"] == f"Bearer {KEY}"
    files = [path for root in (tmp_path, Path(cluster.folder)) for path in root.rglob("*") if path.is_file()]
    assert any("session_" in str(path) for path in files), "Ray's own logs are among what is searched"
    assert [path for path in files if KEY.encode()[:16] in path.read_bytes()] == []
    logs = [path for path in files if cluster.folder in str(path)]
    assert [path for path in logs if b"Question 1?" in path.read_bytes()] == [], "prompts stand in no log of Ray"
    assert KEY[:16] not in notes


@needs_ray
def test_one_worker_looks_at_the_server_for_all(cluster: Cluster, server: Any) -> None:
    """With mode=auto one call finds the mode, is booked once and kept by the driver, and gives a plain run's id."""
    backend = open_on_ray(chat(server, "auto", "ok", "&revision=r"), environment(), cluster)
    alone = open_backend(chat(server, "alone", "ok", "&revision=r"), environment())

    async def work() -> list[Reply]:
        try:
            await ready(backend)
            await ready(alone)
            asks = protocol.plan(sample_pair(), sample_rubric(), backend.id)
            return [await probed(backend), *await backend.ask(asks), *await backend.ask(asks)]
        finally:
            await backend.close()
            await alone.close()

    replies = asyncio.run(work())
    assert backend.id == alone.id
    assert server.book("auto")["requests"] == 1 + 4
    assert sum(reply.attempts for reply in replies) == 1 + 4
    again = open_backend(chat(server, "auto", "ok", "&revision=r"), environment())
    asyncio.run(ready(again))
    assert (again.id, server.book("auto")["requests"]) == (backend.id, 1 + 4)


@needs_ray
def test_a_look_of_the_workers_is_written_once_and_booked_once(cluster: Cluster, server: Any, tmp_path: Path) -> None:
    """A panel looks at a judge before its run does: one call is one pair of lines, which the run's journal books; a
    judge whose mode is kept or given has no line, and its workers find nothing out (the second run is all cached).
    """
    home, spec = tmp_path / "home", chat(server, "looks", "ok", "&revision=r")
    env = replace(environment(), home=home)
    home.mkdir()
    for number, asked in enumerate((spec, spec, chat(server, "looks"))):
        backend = open_on_ray(asked, env, cluster)
        name = f"r-{number}"
        asyncio.run(find_out(home, name, backend, budget=None, at="2026-01-01"))
        judged(tmp_path, asked, backend, run_id=name, rows=2)
    lines = (home / outlays.FILE).read_bytes().splitlines()
    assert (len(lines), unbooked(home), server.book("looks")["requests"]) == (2, [], 1 + 2 * 4)
    assert [run.probes for run in sorted(Store(home).runs(), key=lambda run: run.run_id)] == [1, 0, 0]


@needs_ray
def test_the_server_is_the_drivers_and_not_the_nodes(cluster: Cluster, server: Any) -> None:
    """Where OPENAI_BASE_URL says which server, it is that of the process that was started: prompts go nowhere else."""
    env = replace(environment(), base_url=server.url("base"))
    backend = open_on_ray("openai:m?mode=logprobs", env, cluster)

    async def work() -> list[Reply]:
        try:
            return await backend.ask(protocol.plan(sample_pair(), sample_rubric(), backend.id))
        finally:
            await backend.close()

    assert [reply.error for reply in asyncio.run(work())] == [None, None]
    assert server.book("base")["paid"] == 2


@needs_ray
def test_a_worker_must_be_the_same_judge_and_the_same_version(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another judge or another version on a node is refused with the node's name, before anything is asked."""
    with monkeypatch.context() as patch:
        patch.setattr(ray_workers, "open_backend", lambda _spec, _env: ScriptedBackend(prefer_longer, name="mine"))
        with pytest.raises(BackendError, match="judge mine is scripted/longer on "):
            open_on_ray("scripted:longer", environment(), cluster)
    monkeypatch.setattr(ray_workers, "__version__", "9.9")
    with pytest.raises(BackendError, match="install the same version on both"):
        open_on_ray("scripted:longer", environment(), cluster)


@needs_ray
@pytest.mark.slow
def test_what_a_node_cannot_open_is_told_as_here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that does not open on a node fails with that node's own message and kind."""
    there = lambda _spec, _env: ScriptedBackend(prefer_longer)
    monkeypatch.setattr(ray_workers, "open_backend", there)
    with pytest.raises(InputError, match="there is no judge 'elsewhere'"):
        open_on_ray("elsewhere", environment(), cluster)


@needs_ray
@pytest.mark.slow
def test_a_cluster_without_room_says_how_many_workers_fit(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers of one CPU each do not fit on two CPUs: the message says what does."""
    monkeypatch.setattr(ray_workers, "_PLACE_SECONDS", 0.2)
    with pytest.raises(BackendError, match=r"room for \d of 3 workers .*--workers \d"):
        open_on_ray("scripted:longer", environment(), Cluster("auto", workers=3))


def ran(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`judge run` in a process of its own, after some code."""
    code = f"import sys\n{before}\nfrom judge.cli import main\nmain()"
    given = [sys.executable, "-c", code, "run", str(evalset(folder)), "-j", "scripted", "--engine", "ray", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(folder / "home")}
    return subprocess.run(given, env=environ, capture_output=True, text=True, check=False)


def test_without_ray_the_message_has_the_command(tmp_path: Path) -> None:
    """Where ray is not installed, `--engine ray` ends with code 3 and the command that installs it; no run is begun."""
    done = ran(tmp_path, before="sys.modules['ray'] = None")
    assert (done.returncode, "pip install 'touchstone-judge[ray]'" in done.stderr) == (3, True), done.stderr
    assert not (tmp_path / "home" / "runs").exists()


@needs_ray
@pytest.mark.parametrize(
    ("address", "code", "fix"),
    [
        ("127.0.0.1:1", 3, "--ray-address HOST:6379"),
        ("nowhere", 2, "give HOST:PORT of the head node"),
        ("ray://127.0.0.1:10001", 2, "give HOST:PORT of the head node"),
    ],
)
def test_an_address_without_a_cluster_names_the_fix(tmp_path: Path, address: str, code: int, fix: str) -> None:
    """A cluster that cannot be reached, or an address that is none, ends at once with the fix; no run is begun."""
    done = ran(tmp_path, "--ray-address", address)
    assert (done.returncode, fix in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "home" / "runs").exists()


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    """Workers without Ray, and a provider's batches through Ray, are usage errors."""
    path = str(evalset(tmp_path))
    assert _run(["run", path, "-j", "scripted", "--workers", "3"]) == 2
    assert _run(["run", path, "-j", "scripted", "--batch", "--engine", "ray"]) == 2


def test_limits_per_minute_hold_for_all_workers_together() -> None:
    """Each worker gets its part of rpm and tpm; everything else in the judge string stays as it was."""
    spec = "openai:m/x?base_url=http://127.0.0.1:8000/v1&rpm=600&tpm=90000&concurrency=8"
    head, _, query = ray_workers._shared(spec, 4).partition("?")
    assert head == "openai:m/x"
    assert "rpm=150.0&tpm=22500.0&concurrency=8" in query
    assert ray_workers._shared("scripted:longer", 4) == "scripted:longer"
    assert open_backend(ray_workers._shared(spec, 4), environment()).id == open_backend(spec, environment()).id


def test_importing_the_engine_does_not_load_ray() -> None:
    """Ray is loaded when a cluster is joined, and not by any import."""
    code = (
        "import sys, judge, judge.cli.run, judge.cli.resume, judge.backends.ray_workers; sys.exit('ray' in sys.modules)"
    )
    environ = {**os.environ, "PYTHONPATH": str(REPO)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
