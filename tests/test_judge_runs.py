"""Runs: engine, journal and store together, with the scripted judge and real files."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import polars
import pytest

import rubrics
from judge import journal, protocol
from judge.backends import Backend, open_backend
from judge.engine import Job, judge_pairs
from judge.environment import Environment
from judge.errors import BackendError, InputError, StoreError
from judge.formats import open_evalset
from judge.runs import Progress, RunPlan, resume_run, start_run
from judge.store import Store, settled
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Ask, Outcome, Reply, Usage


def evalset(path: Path, rows: int = 10) -> Path:
    lines = [
        orjson.dumps(
            {
                "id": f"p{n:04}",
                "prompt": f"Question {n}?",
                "category": "ab"[n % 2],
                "candidate": "c" * (n % 7 + 1),
                "baseline": "b" * 4 + str(n),
            }
        )
        for n in range(rows)
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def plan_of(path: Path, run_id: str = "r-1", **changes: object) -> RunPlan:
    values = {"seed": 0, "repeats": 1, "reuse": True} | changes
    options = {"candidate": None, "baseline": None, "mapping": {}, "skip_bad": False, "limit": None}
    return RunPlan(
        run_id, "2026-01-01T00:00:00+00:00", open_evalset(path), options, sample_rubric(), "scripted:longer", **values
    )  # type: ignore[arg-type]


def run(
    path: Path, store: Store, backend: Backend | None = None, run_id: str = "r-1", **changes: object
) -> polars.DataFrame:
    asyncio.run(start_run(plan_of(path, run_id, **changes), backend or longer(), store))
    return store.comparisons(run_id)


def longer(**options: int) -> ScriptedBackend:
    return ScriptedBackend(prefer_longer, name="scripted/longer", **options)


def facts(frame: polars.DataFrame) -> list[tuple[object, ...]]:
    return frame.drop("run_id", "cached").rows()


def test_a_run_stores_one_row_per_pair_with_both_orders(tmp_path: Path) -> None:
    """Every pair becomes one comparison; both orders' verdicts stand in its columns."""
    frame = run(evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home"))
    assert frame.height == 10
    first = frame.row(6, named=True)
    assert (first["pair_id"], first["outcome"], first["cf_outcome"], first["bf_outcome"]) == (
        "p0006",
        "win",
        "win",
        "win",
    )
    assert first["cf_win"] == first["bf_win"] == pytest.approx(8 / 14)


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 1), (3, 2), (64, 8)])
def test_batch_size_concurrency_and_row_order_change_no_number(tmp_path: Path, batch: int, concurrency: int) -> None:
    """However the work is cut, the table is the same (M7)."""
    path = evalset(tmp_path / "e.jsonl", 40)
    plain = run(path, Store(tmp_path / "a"))
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    other = run(mixed, Store(tmp_path / "b"), longer(batch=batch, concurrency=concurrency))
    assert facts(plain) == facts(other)


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    """Judgements with the same identity come from the store: no call, the same bytes."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    first = run(path, store)
    backend = longer()
    again = run(path, store, backend, "r-2")
    assert backend.asked == []
    assert facts(first) == facts(again)
    assert again["cached"].sum() == 2 * again.height


def test_reuse_can_be_refused_and_repeats_are_asked_anew(tmp_path: Path) -> None:
    """Without reuse everything is asked again; another repeat is another judgement."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    run(path, store)
    anew, repeated = longer(), longer()
    run(path, store, anew, "r-2", reuse=False)
    frame = run(path, store, repeated, "r-3", repeats=3)
    assert (len(anew.asked), len(repeated.asked), frame.height) == (20, 40, 30)


def test_replies_are_as_old_as_the_run_that_asked_for_the_oldest(tmp_path: Path) -> None:
    """Reused replies date a run by the one that asked for them, through any number of runs; asked anew, by itself; and
    where the run that asked is gone, nobody knows.
    """
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")

    def since(run_id: str, month: int, rows: Path = path, **changes: bool) -> str:
        plan = replace(plan_of(rows, run_id, canaries=5, **changes), created_at=f"2026-{month:02}-01T00:00:00+00:00")
        asyncio.run(start_run(plan, longer(), store))
        return store.replies_since(store.run(run_id))[:7]

    assert since("r-1", 1) == "2026-01"
    assert since("r-2", 2) == "2026-01"
    assert since("r-3", 3, reuse=False) == "2026-03", "asked anew although every key is known"
    assert since("r-4", 4) == "2026-01", "the first answer stays the answer"
    wider = evalset(tmp_path / "wider.jsonl", 15)
    assert since("r-5", 5, wider) == "2026-01", "ten of fifteen rows were judged before"
    other = tmp_path / "other.jsonl"
    rows = [orjson.loads(line) | {"prompt": "another question"} for line in path.read_bytes().splitlines()]
    doubled = [orjson.dumps(row | {"id": f"{row['id']}-{n}"}) for row in rows for n in range(2)]
    other.write_bytes(b"\n".join(doubled) + b"\n")
    assert since("r-6", 6, other) == "2026-06", "canaries and rows with the same texts reuse nothing that is old"
    assert since("r-7", 7, other) == "2026-06"
    for name in ("r-1", "r-6"):
        store.journal_path(name).unlink()
    store.rebuild()
    ages = {name: store.replies_since(store.run(name))[:7] for name in ("r-2", "r-3", "r-4", "r-5", "r-7")}
    gone = "r-1 asked, and is gone; r-2 came before r-3 asked, so that its answer is older"
    assert ages == {"r-2": "", "r-3": "2026-03", "r-4": "", "r-5": "", "r-7": ""}, gone


def test_rows_with_the_same_texts_are_asked_once_and_counted_each(tmp_path: Path) -> None:
    """Doubling a set under new ids doubles the rows and not the calls (M18)."""
    path = evalset(tmp_path / "e.jsonl")
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"\n".join(orjson.dumps(row | {"id": f"{row['id']}-{n}"}) for row in rows for n in range(2)))
    backend = longer()
    frame = run(path, Store(tmp_path / "home"), backend)
    assert (len(backend.asked), frame.height) == (20, 20)


class _Failing(ScriptedBackend):
    """Answers some asks, then gives up for good."""

    def __init__(self, after: int) -> None:
        super().__init__(prefer_longer, name="scripted/longer", batch=2, concurrency=1)
        self.left = after

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        self.left -= len(asks)
        if self.left < 0:
            raise BackendError("the server went away")
        return await super().ask(asks)


@pytest.mark.parametrize("after", [0, 1, 2, 6, 19])
def test_resume_asks_only_for_what_is_missing(tmp_path: Path, after: int) -> None:
    """A judge that gives up leaves what it answered; resuming asks the rest and gives the unbroken table (M19)."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    broken = _Failing(after)
    with pytest.raises(BackendError, match="went away") as caught:
        asyncio.run(start_run(plan_of(path), broken, store))
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    assert len(rest.asked) == 20 - len(broken.asked)
    assert caught.value.unanswered == 10 - len(broken.asked) // 2
    assert facts(store.comparisons("r-1")) == facts(run(path, Store(tmp_path / "other")))


def test_half_a_pair_in_the_journal_is_kept(tmp_path: Path) -> None:
    """If only one order was answered before the crash, only the other is asked on resume."""
    path, store = evalset(tmp_path / "e.jsonl", 1), Store(tmp_path / "home")
    broken = _Failing(1)
    broken.batch = 1
    with pytest.raises(BackendError):
        asyncio.run(start_run(plan_of(path), broken, store))
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    assert [ask.order for ask in broken.asked + rest.asked] == list(protocol.Order)


def test_resuming_a_finished_run_asks_nothing(tmp_path: Path) -> None:
    """A sealed run is immutable: resume changes no byte of its journal."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    run(path, store)
    before = store.journal_path("r-1").read_bytes()
    asyncio.run(resume_run("r-1", store, lambda _spec: pytest.fail("a judge was opened")))
    assert store.journal_path("r-1").read_bytes() == before


def test_a_changed_eval_set_or_judge_cannot_be_resumed(tmp_path: Path) -> None:
    """Resume names what changed since the run began."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    with pytest.raises(BackendError):
        asyncio.run(start_run(plan_of(path), _Failing(4), store))
    with pytest.raises(StoreError, match="was begun with judge scripted/longer"):
        asyncio.run(resume_run("r-1", store, lambda _spec: ScriptedBackend(prefer_longer, name="another")))
    evalset(path, 11)
    with pytest.raises(StoreError, match=r"changed since it began .10 rows, .* now 11 rows"):
        asyncio.run(resume_run("r-1", store, lambda _spec: longer()))


def test_the_database_is_rebuilt_from_the_journals(tmp_path: Path) -> None:
    """Losing the database loses nothing: rebuilding gives the same tables."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    frame = run(path, store)
    run(path, store, run_id="r-2", seed=3)
    store.path.write_bytes(b"garbage")
    with pytest.raises(StoreError, match="recover"):
        store.runs()
    assert store.rebuild() == (["r-2", "r-1"], [])
    assert facts(store.comparisons("r-1")) == facts(frame)


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A schema this version does not know is not touched."""
    import duckdb

    store = Store(tmp_path / "home")
    run(evalset(tmp_path / "e.jsonl"), store)
    with duckdb.connect(str(store.path)) as con:
        con.execute("INSERT INTO schema_version VALUES (999)")
    with pytest.raises(StoreError, match="schema 999 is newer"):
        store.runs()


def test_every_rule_can_be_recomputed_without_a_model(tmp_path: Path) -> None:
    """Settling anew under a wider tie band changes outcomes from the stored replies alone."""
    store = Store(tmp_path / "home")
    frame = run(evalset(tmp_path / "e.jsonl"), store)
    wide = store.resettled("r-1", 0.45)
    assert (frame["outcome"] == "tie").sum() < (wide["outcome"] == "tie").sum() == 10
    assert frame["preference"].to_list() == wide["preference"].to_list()


def test_failed_calls_are_not_reused(tmp_path: Path) -> None:
    """A reply that carries an error is evidence of its run and asked again in the next."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    frame = run(
        path, store, ScriptedBackend(lambda _ask: Reply(error="HTTP 500", finish="error"), name="scripted/longer")
    )
    backend = longer()
    run(path, store, backend, "r-2")
    assert (frame["invalid"].to_list(), len(backend.asked)) == (["error"] * 10, 20)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    """Each settled comparison is reported once; the last report is complete and costs add up."""
    seen: list[Progress] = []
    asyncio.run(
        start_run(plan_of(evalset(tmp_path / "e.jsonl")), longer(), Store(tmp_path / "home"), report=seen.append)
    )
    assert [step.settled for step in seen] == list(range(1, 11))
    assert (seen[-1].total, seen[-1].cost, seen[-1].eta_seconds) == (10, 0.0, 0.0)


def test_too_few_replies_are_a_judge_error(tmp_path: Path) -> None:
    """A backend that loses replies is refused, not padded."""

    class Short(ScriptedBackend):
        async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
            return (await super().ask(asks))[:-1]

    async def all_of() -> None:
        async for _ in judge_pairs(
            open_evalset(evalset(tmp_path / "e.jsonl")).pairs(), Job(sample_rubric(), Short(prefer_longer))
        ):
            pass

    with pytest.raises(BackendError, match=r"\d replies to \d asks"):
        asyncio.run(all_of())


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a write fails the run stops, the journal stays readable and resume finishes it."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    real, calls = os.write, [0]

    def write(fd: int, data: bytes) -> int:
        calls[0] += 1
        if calls[0] == 3:
            real(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(start_run(plan_of(path), longer(), store))
    monkeypatch.setattr(os, "write", real)
    asyncio.run(resume_run("r-1", store, lambda _spec: longer()))
    assert facts(store.comparisons("r-1")) == facts(run(path, Store(tmp_path / "other")))


def test_a_disk_that_fills_while_the_database_is_written_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is sealed in its journal; the error is the system's, and ingesting later gives the whole table."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")

    def full(*_args: object, **_options: object) -> None:
        raise polars.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(polars.DataFrame, "write_parquet", full)
        with pytest.raises(OSError, match="No space left") as caught:
            asyncio.run(start_run(plan_of(path), longer(), store))
    assert caught.value.errno == errno.ENOSPC
    assert journal.scan(store.journal_path("r-1")).sealed
    assert store.ingest(store.journal_path("r-1")) == 10


_CHILD = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from judge.runs import start_run
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer
import test_judge_runs as t
class Slow(ScriptedBackend):
    async def ask(self, asks):
        await asyncio.sleep(0.01)
        return await super().ask(asks)
asyncio.run(start_run(t.plan_of(Path({path!r})), Slow(prefer_longer, name="scripted/longer", batch=2, concurrency=2),
Store(Path({home!r}))))
"""


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.2])
def test_kill_9_in_the_middle_loses_and_doubles_nothing(tmp_path: Path, wait: float) -> None:
    """A killed run resumes to the table of an unbroken run; calls repeated are at most those in flight."""
    path, store = evalset(tmp_path / "e.jsonl", 60), Store(tmp_path / "home")
    code = _CHILD.format(tests=str(Path(__file__).parent), path=str(path), home=str(store.home))
    child = subprocess.Popen([sys.executable, "-c", code])
    file = store.journal_path("r-1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (file.exists() and file.read_bytes().count(b'"t":"reply"') >= 8):
        time.sleep(0.01)
    time.sleep(wait)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = file.read_bytes().count(b'"t":"reply"')
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    frame = store.comparisons("r-1")
    assert frame["pair_id"].n_unique() == frame.height == 60
    assert len(rest.asked) <= 120 - kept + 4
    assert facts(frame) == facts(run(path, Store(tmp_path / "other")))


def test_settled_streams_only_whole_pairs(tmp_path: Path) -> None:
    """An unfinished journal gives its finished pairs, and its run is listed as unfinished."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    with pytest.raises(BackendError):
        asyncio.run(start_run(plan_of(path), _Failing(7), store))
    store.ingest(store.journal_path("r-1"))
    assert len(list(settled(store.journal_path("r-1")))) == store.comparisons("r-1").height == 3
    assert store.run("latest").sealed is False


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b"])
def test_a_run_id_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    """Ids that could name another place are refused."""
    with pytest.raises(StoreError, match="is no run id"):
        Store(tmp_path).journal_path(name)


def test_recorded_llmbar_verdicts_give_the_published_figures(tmp_path: Path, gold: object) -> None:
    """GPT-4 and ChatGPT (Vanilla) on LLMBar through a run: accuracy and positional agreement as published, exactly."""
    folder = gold("llmbar")  # type: ignore[operator]
    store = Store(tmp_path / "home")
    published = {
        "GPT-4": {"Natural": (95.5, 95.0), "Adversarial": (80.8, 91.0)},
        "ChatGPT": {"Adversarial": (30.6, 61.4)},
    }
    for judge, sets in published.items():
        backend = open_backend(
            f"recorded:{folder / 'verdicts.jsonl.gz'}?judge={judge}/Vanilla", Environment(tmp_path, tmp_path)
        )
        frame = run(folder / "pairs.jsonl", store, backend, f"r-{judge}")
        found = {}
        for category in frame["category"].unique():
            part = frame.filter(polars.col("category") == category)
            right = ((part["cf_outcome"] == part["label"]).mean() + (part["bf_outcome"] == part["label"]).mean()) / 2  # type: ignore[operator]
            found[category] = (100 * right, 100 * part["consistent"].mean())  # type: ignore[operator]
        adversarial = [figures for category, figures in found.items() if category != "Natural"]
        # The published table averages the four subsets' figures after rounding them (61.35 and not 61.34 for ChatGPT).
        found["Adversarial"] = tuple(
            sum(round(figure, 1) for figure in column) / 4 for column in zip(*adversarial, strict=True)
        )
        for which, wanted in sets.items():
            assert tuple(round(figure + 1e-9, 1) for figure in found[which]) == wanted


def test_identical_answers_are_tied_without_a_judge(tmp_path: Path) -> None:
    """A pair of equal answers is stored as a tie and costs no call."""
    path = tmp_path / "e.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "q", "candidate": "same", "baseline": "same"}))
    backend = longer()
    frame = run(path, Store(tmp_path / "home"), backend)
    assert (frame["outcome"].to_list(), frame["preference"].to_list(), backend.asked) == (["tie"], [0.5], [])


def test_an_unknown_rubric_names_those_that_exist() -> None:
    """A misspelt rubric is one clear error."""
    with pytest.raises(InputError, match="helpfulness"):
        rubrics.load("helpfulnes@1")


def test_a_label_is_carried_to_the_table(tmp_path: Path) -> None:
    """Labels in the shape of the gold sets (A, B, tie) become outcomes of the candidate."""
    path = tmp_path / "e.jsonl"
    rows = [
        {"id": str(n), "prompt": "q", "response_a": f"x{n}", "response_b": "y", "label": label}
        for n, label in enumerate(["A", "B", "tie", None])
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert run(path, Store(tmp_path / "home"))["label"].to_list() == [Outcome.WIN, Outcome.LOSS, Outcome.TIE, None]


def test_the_journal_alone_identifies_the_run(tmp_path: Path) -> None:
    """The header holds every digest, version and text that the numbers depend on."""
    store = Store(tmp_path / "home")
    run(evalset(tmp_path / "e.jsonl"), store)
    header = next(journal.records(store.journal_path("r-1")))
    assert header["rubric_digest"] == rubrics.parse(header["rubric_text"]).digest
    assert {"python", "duckdb"} <= header["versions"].keys()
    assert (header["template"], header["seed"], header["evalset"]["rows"]) == (protocol.TEMPLATE, 0, 10)


def rows_file(path: Path, *rows: dict[str, object]) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return path


def recorded(path: Path, *rows: tuple[str, str, str]) -> Backend:
    lines = [{"id": name, "judge": "j", "order": order, "verdict": verdict} for name, order, verdict in rows]
    return open_backend(f"recorded:{rows_file(path, *lines)}", Environment(path.parent, path.parent))


def test_recorded_verdicts_belong_to_pairs_not_to_texts(tmp_path: Path) -> None:
    """Two pairs with the same texts keep the verdict that each of them got."""
    same = {"prompt": "q", "candidate": "x", "baseline": "y"}
    path = rows_file(tmp_path / "e.jsonl", {"id": "a", **same}, {"id": "b", **same})
    backend = recorded(tmp_path / "v.jsonl", ("a", "ab", "A"), ("a", "ba", "A"), ("b", "ab", "B"), ("b", "ba", "B"))
    assert run(path, Store(tmp_path / "home"), backend)["outcome"].to_list() == ["win", "loss"]


def test_a_missing_recorded_verdict_is_looked_up_again(tmp_path: Path) -> None:
    """An absent verdict is no answer: once the file holds it, the next run finds it."""
    path = rows_file(tmp_path / "e.jsonl", {"id": "a", "prompt": "q", "candidate": "x", "baseline": "y"})
    store = Store(tmp_path / "home")
    first = recorded(tmp_path / "v.jsonl", ("a", "ab", "A"))
    full = recorded(tmp_path / "w.jsonl", ("a", "ab", "A"), ("a", "ba", "A"))
    full.id = first.id
    assert run(path, store, first)["invalid"].to_list() == ["missing"]
    assert run(path, store, full, "r-2")["outcome"].to_list() == ["win"]


def test_a_copied_or_empty_journal_hides_no_run(tmp_path: Path) -> None:
    """A copy beside the original and an empty file are named and change nothing, also when the database is rebuilt."""
    store = Store(tmp_path / "home")
    frame = run(evalset(tmp_path / "e.jsonl"), store)
    original = store.journal_path("r-1")
    original.with_name("r-1.backup.jsonl").write_bytes(original.read_bytes()[:-200])
    original.with_name("r-0.jsonl").write_bytes(b"")
    problems = store.catch_up()
    assert ["no whole run header" in problems[0], "copy of run r-1" in problems[1]] == [True, True]
    assert store.rebuild() == (["r-1"], problems)
    assert facts(store.comparisons("r-1")) == facts(frame)


def test_a_stale_write_ahead_log_does_not_spoil_the_rebuilt_database(tmp_path: Path) -> None:
    """Rebuilding puts the old file and its log aside together."""
    store = Store(tmp_path / "home")
    run(evalset(tmp_path / "e.jsonl"), store)
    store.path.with_name("judge.duckdb.wal").write_bytes(b"not a log of this file" * 50)
    store.rebuild()
    assert store.comparisons("r-1").height == 10


def test_only_what_was_asked_is_paid(tmp_path: Path) -> None:
    """Shared and cached replies cost nothing again, in the table and in the progress."""
    same = [{"id": str(n), "prompt": "q", "candidate": "x", "baseline": "yy"} for n in range(5)]
    path, store = rows_file(tmp_path / "e.jsonl", *same), Store(tmp_path / "home")

    def priced(_ask: Ask) -> Reply:
        return Reply(probs=(1.0, 0.0, 0.0), usage=Usage(10, 1, 1.0))

    seen: list[Progress] = []
    for run_id in ("r-1", "r-2"):
        asyncio.run(start_run(plan_of(path, run_id), ScriptedBackend(priced), store, report=seen.append))
    first, second = (store.comparisons(run_id) for run_id in ("r-1", "r-2"))
    assert (first["cost"].sum(), first["tokens"].sum(), second["cost"].sum(), second["tokens"].sum()) == (
        2.0,
        22,
        0.0,
        0,
    )
    assert (seen[4].cost, seen[9].cost) == (2.0, 0.0)


def test_the_same_prompt_over_other_sources_is_another_cluster(tmp_path: Path) -> None:
    """Rows that differ in their context are different questions."""
    rows = [{"prompt": "Summarise.", "context": [f"source {n}"], "candidate": "a", "baseline": "b"} for n in range(5)]
    frame = run(rows_file(tmp_path / "e.jsonl", *rows), Store(tmp_path / "home"))
    assert frame["prompt_digest"].n_unique() == frame.height == 5


def test_answers_that_differ_in_tool_calls_are_judged(tmp_path: Path) -> None:
    """Equal texts with other tool calls are not identical, and the judge sees the calls."""
    sides = {
        side: {"text": "", "tool_calls": [{"name": name}]}
        for side, name in (("candidate", "book"), ("baseline", "drop"))
    }
    backend = longer()
    run(rows_file(tmp_path / "e.jsonl", {"prompt": "q", **sides}), Store(tmp_path / "home"), backend)
    assert [('"name":"book"' in ask.user, '"name":"drop"' in ask.user) for ask in backend.asked] == [(True, True)] * 2


def test_the_first_answer_stays_the_answer(tmp_path: Path) -> None:
    """Where a judge was asked again and said otherwise, later runs reuse its first answer, also after a rebuild."""
    path, store = evalset(tmp_path / "e.jsonl", 1), Store(tmp_path / "home")
    for number, share in enumerate((0.9, 0.2)):
        backend = ScriptedBackend(lambda _ask, p=share: Reply(probs=(p, 0.0, 1 - p)))  # type: ignore[misc]
        made = replace(plan_of(path, f"r-{number}", reuse=False), created_at=f"2026-01-0{number + 1}")
        asyncio.run(start_run(made, backend, store))
    first = run(path, store, ScriptedBackend(prefer_longer), "r-8")
    store.rebuild()
    assert (
        first["cf_win"].to_list()
        == run(path, store, ScriptedBackend(prefer_longer), "r-9")["cf_win"].to_list()
        == [0.9]
    )


def test_replies_in_flight_are_kept_when_another_call_fails(tmp_path: Path) -> None:
    """What was answered before or beside the failing call stands in the journal."""

    class Partly(ScriptedBackend):
        async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
            if asks[0].pair_id == "p0000":
                raise BackendError("no")
            await asyncio.sleep(0.05)
            return await super().ask(asks)

    store = Store(tmp_path / "home")
    backend = Partly(prefer_longer, name="scripted/longer", batch=1, concurrency=4)
    with pytest.raises(BackendError):
        asyncio.run(start_run(plan_of(evalset(tmp_path / "e.jsonl")), backend, store))
    kept = store.journal_path("r-1").read_bytes().count(b'"t":"reply"')
    assert kept == len(backend.asked) >= 2


def test_errors_are_asked_again_on_resume(tmp_path: Path) -> None:
    """A reply that failed is not done: resuming an unsealed run asks it again and the good reply counts."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")

    class Dying(ScriptedBackend):
        async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
            if len(self.asked) >= 6:
                raise BackendError("gone")
            self.asked += asks
            return [Reply(error="HTTP 503", finish="error") for _ in asks]

    with pytest.raises(BackendError):
        asyncio.run(
            start_run(plan_of(path), Dying(prefer_longer, name="scripted/longer", batch=2, concurrency=1), store)
        )
    rest = longer()
    asyncio.run(resume_run("r-1", store, lambda _spec: rest))
    assert len(rest.asked) == 20
    assert facts(store.comparisons("r-1")) == facts(run(path, Store(tmp_path / "other")))


def test_an_interrupted_run_serves_the_next(tmp_path: Path) -> None:
    """What a dead run was answered is reused by a new run over a changed set."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    with pytest.raises(BackendError):
        asyncio.run(start_run(plan_of(path), _Failing(8), store))
    rest = longer()
    run(evalset(path, 11), store, rest, "r-2")
    assert len(rest.asked) == 22 - 8


def test_a_set_whose_content_changes_is_not_sealed(tmp_path: Path) -> None:
    """Other texts under the same ids while judging are noticed before the seal."""
    path, store = evalset(tmp_path / "e.jsonl"), Store(tmp_path / "home")
    made = plan_of(path)
    path.write_bytes(path.read_bytes().replace(b"Question 9", b"Question X"))
    with pytest.raises(InputError, match="changed while it was judged"):
        asyncio.run(start_run(made, longer(), store))
    assert not journal.scan(store.journal_path("r-1")).sealed
