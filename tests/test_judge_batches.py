"""Batch interfaces: two real HTTP shapes on loopback, rows that go wrong in every way, and processes that really die.

What must hold: the table is that of a live run, nothing is paid for twice, nothing is lost, the key appears nowhere.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars
import pytest

from judge import failpoints, journal
from judge.backends import open_backend
from judge.backends.batches import AnthropicBatches, OpenAIBatches, Shape
from judge.backends.calling import Clock
from judge.backends.chat import ChatBackend
from judge.backends.completions import Malformed
from judge.backends.messages import params_of, read_message
from judge.batching import ROUNDS, Batching, BatchPlan, BatchProgress
from judge.environment import Environment
from judge.errors import BackendError, InputError
from judge.formats import open_evalset
from judge.ledger import Ledger
from judge.mail import Outbox
from judge.money import Budget, BudgetSpent
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Store
from judge.testing import sample_rubric
from judge.types import Ask, Reply

REPO = Path(__file__).parent.parent

_spec = importlib.util.spec_from_file_location("batch_server", REPO / "tests" / "servers" / "batch.py")
assert _spec is not None and _spec.loader is not None
batch_server: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(batch_server)
KEY, BatchServer = batch_server.KEY, batch_server.BatchServer

SHAPES = ("openai", "anthropic")
PAIRS = 12
ASKS = 2 * PAIRS
COST = (1000 * 1 + 10 * 5) / 1e6
each_shape = pytest.mark.parametrize("shape", ["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
QUICK = ("after_submit", "before_batch", "after_batch", "while_polling", "while_reading")
"""Where Anthropic's shape is killed in every run of the tests; elsewhere only in the slow ones."""


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer() as served:
        yield served


class Scene:
    """One eval set, one home and one server; runs and resumes without waiting."""

    def __init__(self, folder: Path, server: BatchServer, shape: str) -> None:
        self.folder, self.server, self.shape = folder, server, shape
        self.home, self.path = folder / "home", folder / "e.jsonl"
        self.store = Store(self.home)
        self.progress: list[BatchProgress] = []
        rows = [
            {"id": f"p{n:02}", "prompt": f"Question {n}?", "candidate": "c" * (n % 7 + 1), "baseline": f"bbb{n}"}
            for n in range(PAIRS)
        ]
        self.path.write_bytes(b"\n".join(map(orjson.dumps, rows)))

    @property
    def spec(self) -> str:
        mode = "logprobs" if self.shape == "openai" else "text"
        return (
            f"{self.shape}:m?mode={mode}&base_url={self.server.url}&revision=r&price_in=1&price_out=5&price_batch=0.5"
        )

    @property
    def env(self) -> Environment:
        keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
        return Environment(home=self.home, cache=self.folder, api_key=KEY, keys=keys)

    def batching(self) -> Batching:
        async def no_sleep(_seconds: float) -> None:
            await asyncio.sleep(0)

        tags = (f"tag-{os.urandom(4).hex()}" for _ in itertools.count())
        return Batching(
            self.home / "batches", lambda: "2096-10-02T07:06:00+00:00", tags.__next__, self.progress.append,
            clock=Clock(sleep=no_sleep), wait=0.0,
        )  # fmt: skip

    def run(self, name: str = "r-1", *, live: bool = False, spec: str = "", **changes: Any) -> polars.DataFrame:
        options: dict[str, Any] = {"batch": None if live else BatchPlan()} | changes
        plan = RunPlan(name, "2026-01-01", open_evalset(self.path), {}, sample_rubric(), spec or self.spec, **options)

        async def work() -> None:
            backend = open_backend(spec or self.spec, self.env)
            try:
                await start_run(plan, backend, self.store, batching=self.batching())
            finally:
                await backend.close()

        asyncio.run(work())
        return self.store.comparisons(name)

    def resume(self, name: str = "r-1", **options: Any) -> polars.DataFrame:
        asyncio.run(
            resume_run(name, self.store, lambda spec: open_backend(spec, self.env), batching=self.batching(), **options)
        )
        return self.store.comparisons(name)

    def records(self, kind: str, name: str = "r-1") -> list[dict[str, Any]]:
        return [record for record in journal.records(self.store.journal_path(name)) if record["t"] == kind]

    def texts(self) -> bytes:
        """Everything that was written anywhere."""
        return b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())

    def twice(self) -> list[str]:
        return [key for key, count in self.server.paid.items() if count > 1]


def facts(frame: polars.DataFrame) -> list[tuple[object, ...]]:
    return sorted(frame.drop("run_id", "cached", "cost", "tokens").rows(), key=str)


@pytest.fixture(params=SHAPES)
def both(request: pytest.FixtureRequest, tmp_path: Path, server: BatchServer) -> Scene:
    return Scene(tmp_path, server, request.param)


@pytest.fixture(params=["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
def scene(request: pytest.FixtureRequest, tmp_path: Path, server: BatchServer) -> Scene:
    """What lies above the two shapes: tried with one, and with the other in the slow tests."""
    return Scene(tmp_path, server, request.param)


def test_a_batch_run_gives_the_table_of_a_live_run_at_half_the_price(both: Scene, tmp_path: Path) -> None:
    """Same judge, same verdicts, half the cost; the results come in another order and among foreign rows."""
    batched = both.run()
    (tmp_path / "live").mkdir()
    live = Scene(tmp_path / "live", both.server, both.shape)
    plain = live.run(live=True)
    assert facts(batched) == facts(plain)
    assert set(batched["outcome"]) == {"win", "tie", "loss"}
    assert (batched["cost"].sum(), plain["cost"].sum()) == pytest.approx((ASKS * COST / 2, ASKS * COST))
    assert both.server.counts == [ASKS]
    assert both.server.live == ASKS
    assert both.records("batch_end")[0]["unknown"] == 1


def test_live_and_batch_share_one_cache(both: Scene) -> None:
    """What a batch answered is free for a live run and the other way round: the judge is the same."""
    first = both.run("r-1")
    second = both.run("r-2", live=True)
    assert both.server.live == 0
    both.run("r-3")
    assert both.server.counts == [ASKS]
    assert facts(first) == facts(second)
    assert both.records("batch", "r-3") == []


def test_the_id_stands_in_the_journal_before_the_first_look(scene: Scene) -> None:
    """The journal holds intent, id, provider, count and digest, and the custom ids are the keys of the asks."""
    looked: list[list[str]] = []

    def note(name: str) -> None:
        if name == "while_polling":
            looked.append([record["t"] for record in journal.records(scene.store.journal_path("r-1"))])

    failpoints.install(note)
    try:
        scene.run()
    finally:
        failpoints.install(None)
    assert looked[0][-2:] == ["batch_intent", "batch"]
    (batch,), (intent,) = scene.records("batch"), scene.records("batch_intent")
    assert (batch["provider"], batch["count"], batch["tag"]) == (scene.shape, ASKS, intent["tag"])
    assert set(intent["keys"]) == set(scene.server.paid) == {record["key"] for record in scene.records("reply")}
    assert batch["id"] in scene.server.batches


def test_label_probabilities_come_through_a_batch(tmp_path: Path, server: BatchServer) -> None:
    """OpenAI's batches carry log-probabilities like its calls; Anthropic's give none and every reply says so."""
    first = Scene(tmp_path, server, "openai")
    first.run()
    masses = [record["reply"]["score"]["label_mass"] for record in first.records("reply")]
    assert masses == pytest.approx([0.9] * ASKS, abs=1e-5)
    (tmp_path / "a").mkdir()
    other = Scene(tmp_path / "a", server, "anthropic")
    hard = other.run()
    assert set(hard["cf_win"]) <= {0.0, 1.0}
    assert all(record["reply"]["flags"] == ["no_logprobs"] for record in other.records("reply"))
    assert all("logprobs" in body for body in server.bodies[:ASKS])


def test_progress_says_submitted_done_and_elapsed(scene: Scene) -> None:
    """While a batch runs somebody is told how many requests of how many are done."""
    scene.run()
    first, last = scene.progress[0], scene.progress[-1]
    assert (first.batches, first.ended, first.done, first.total) == (1, 0, 0, ASKS)
    assert (last.batches, last.ended, last.done, last.total) == (1, 1, ASKS, ASKS)
    assert last.seconds >= first.seconds >= 0


@pytest.mark.parametrize("fate", ["500", "expired", "missing"])
def test_rows_without_an_answer_go_into_a_further_batch(both: Scene, fate: str) -> None:
    """A failed, expired or missing row is asked again, and only such a row."""
    victims: list[str] = []

    def some(key: str, number: int) -> str:
        if number == 0 and len(victims) < 3:
            victims.append(key)
            return fate
        return "ok"

    both.server.fate = some
    frame = both.run()
    assert frame["outcome"].null_count() == 0
    assert both.server.counts == [ASKS, 3]
    assert {key for key, _, _ in list(both.server.batches.values())[1]["rows"]} == set(victims)
    ledger = ledger_of(both)
    assert ledger.possibly_paid == (3 if fate == "missing" else 0)
    assert ledger.calls == ASKS


def test_rows_that_never_answer_are_given_up_and_counted_invalid(scene: Scene) -> None:
    """After three batches an ask is an error with its reason; the run is sealed with the others' results."""
    scene.server.fate = lambda key, _number: "500" if key[0] in "0123" else "ok"
    frame = scene.run()
    assert len(scene.server.counts) == ROUNDS
    bad = {record["key"]: record["reply"] for record in scene.records("reply") if record["reply"].get("error")}
    assert bad and all(key[0] in "0123" and reply["attempts"] == ROUNDS for key, reply in bad.items())
    assert all("HTTP 500" in reply["error"] or "api_error" in reply["error"] for reply in bad.values())
    assert 0 < frame["invalid"].drop_nulls().len() <= len(bad)
    assert scene.records("seal")


def test_what_cannot_succeed_is_not_asked_again(both: Scene) -> None:
    """A refused request is an error at once, a filtered one is that, an unreadable one was paid for."""
    fates = dict(enumerate(["400", "filtered", "malformed"]))
    order: list[str] = []

    def some(key: str, _number: int) -> str:
        order.append(key)
        return fates.get(len(order) - 1, "ok")

    both.server.fate = some
    both.run()
    replies = {record["key"]: record["reply"] for record in both.records("reply")}
    refused, filtered, malformed = (replies[key] for key in order[:3])
    assert both.server.counts == [ASKS]
    assert refused["error"].startswith("bad_request: ")
    assert filtered["finish"] == "content_filter"
    assert malformed["error"].startswith("malformed: ") and malformed["possibly_paid"] == 1
    assert ledger_of(both).possibly_paid == 1


def test_unreadable_answers_are_repaired_in_a_further_batch(both: Scene) -> None:
    """One repair request each, with the first answer shown; its cost is the sum of both."""
    both.server.fate = lambda key, number: "prose" if number == 0 and key[0] in "01234" else "ok"
    frame = both.run()
    repaired = [record["reply"] for record in both.records("reply") if "repaired" in record["reply"].get("flags", [])]
    assert repaired and len(repaired) == both.server.counts[1] == len(both.records("draft"))
    assert frame["outcome"].null_count() == 0
    assert [reply["usage"]["cost"] for reply in repaired] == pytest.approx([COST] * len(repaired))
    assert [turn["role"] for turn in both.server.bodies[-1]["messages"]][-2:] == ["assistant", "user"]


def test_a_repair_that_fails_leaves_the_first_answer(scene: Scene) -> None:
    """What was paid for is kept: invalid as unparsed, flagged, never lost."""
    scene.server.fate = lambda key, number: ("prose" if number == 0 else "400") if key[0] in "01234" else "ok"
    scene.run()
    kept = [record["reply"] for record in scene.records("reply") if "repair_failed" in record["reply"].get("flags", [])]
    assert len(kept) == len(scene.records("draft")) > 0
    assert all(reply["text"] == "Well, that depends." for reply in kept)


def test_the_rest_can_be_asked_live(scene: Scene) -> None:
    """With rest=live what a batch left over is asked and repaired by ordinary calls at their own price."""
    fates = iter(["expired", "expired", "prose"])
    scene.server.fate = lambda _key, _number: next(fates, "ok")
    frame = scene.run(batch=BatchPlan(rest="live"))
    assert (scene.server.counts, scene.server.live) == ([ASKS], 3)
    assert frame["outcome"].null_count() == 0
    whole = (ASKS - 3) * COST / 2 + 2 * COST + (COST / 2 + COST)
    assert frame["cost"].sum() == pytest.approx(whole, rel=1e-3)


def test_a_live_repair_is_reserved_before_it_is_sent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """While repairs are on their way their upper bounds are set aside, and afterwards what all calls took is spent."""
    fates, budgets, seen = iter(["prose", "prose"]), [], []
    scene.server.fate = lambda _key, _number: next(fates, "ok")
    repair = ChatBackend.repair

    class Kept(Budget):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            budgets.append(self)

    async def watched(backend: ChatBackend, ask: Ask, draft: Reply) -> Reply:
        seen.append((budgets[-1].reserved, budgets[-1].spent, backend.quote(ask).cost, draft.usage.cost))
        return await repair(backend, ask, draft)

    monkeypatch.setattr("judge.runs.Budget", Kept)
    monkeypatch.setattr(ChatBackend, "repair", watched)
    frame = scene.run(batch=BatchPlan(rest="live"), max_cost=1.0)
    assert len(seen) == 2
    reserved, spent, _bound, _draft = seen[0]
    assert reserved == pytest.approx(sum(max(0.0, bound - draft) for _, _, bound, draft in seen))
    assert spent == pytest.approx(ASKS * COST / 2)
    assert (budgets[-1].reserved, budgets[-1].spent) == (pytest.approx(0.0), pytest.approx(frame["cost"].sum()))


def test_a_live_repair_that_the_budget_does_not_allow_is_not_sent(scene: Scene, monkeypatch: Any) -> None:
    """With nothing left after the batch the run stops before the repair, and a resume with more sends that alone."""
    fates, budgets = iter(["prose"]), []
    scene.server.fate = lambda _key, _number: next(fates, "ok")

    class Lean(Budget):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            budgets.append(self)

    def spend(name: str) -> None:
        if name == "while_polling":
            budgets[-1].limit = ASKS * COST / 2

    monkeypatch.setattr("judge.runs.Budget", Lean)
    failpoints.install(spend)
    try:
        with pytest.raises(BudgetSpent, match=r"does not allow the next repair: \$0\.0126 are spent"):
            scene.run(batch=BatchPlan(rest="live"), max_cost=1.0)
    finally:
        failpoints.install(None)
    assert (scene.server.counts, scene.server.live) == ([ASKS], 0)
    frame = scene.resume(max_cost=1.0)
    assert (scene.server.counts, scene.server.live) == ([ASKS], 1)
    assert frame["cost"].sum() == pytest.approx((ASKS + 2) * COST / 2)


def test_a_parameter_that_a_model_refuses_is_left_out(tmp_path: Path, server: BatchServer) -> None:
    """Rows refused for their seed are sent again without one."""
    server.fate = lambda _key, _number: "seed"
    frame = Scene(tmp_path, server, "openai").run()
    assert (server.counts, frame["outcome"].null_count()) == ([ASKS, ASKS], 0)
    assert "seed" not in server.bodies[-1]


def test_the_mode_is_found_out_by_one_ordinary_call(tmp_path: Path, server: BatchServer) -> None:
    """With mode=auto one small call comes before the batch, is booked by the run at its own price, and fixes the id."""
    scene = Scene(tmp_path, server, "openai")
    frame = scene.run(spec=scene.spec.replace("mode=logprobs&", ""))
    assert (server.live, server.counts) == (1, [ASKS])
    assert frame["cost"].sum() == pytest.approx(ASKS * COST / 2)
    info = scene.store.run("r-1")
    assert (info.probes, info.probe_cost) == (1, pytest.approx(COST))
    assert info.judge == "openai/m@r[t0-n8-logprobs]"


def test_duplicate_rows_count_once(scene: Scene) -> None:
    """A custom_id that comes twice is taken once."""
    scene.server.fate = lambda _key, _number: "twice"
    frame = scene.run()
    assert (len(scene.records("reply")), frame.height) == (ASKS, PAIRS)
    assert scene.records("batch_end")[0]["duplicate"] == ASKS


def test_large_runs_are_split_by_the_limits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has more requests or bytes than the provider takes, and the parts give the table of one."""
    whole = scene.run()
    by_count = scene.run("r-2", reuse=False, batch=BatchPlan(size=7))
    assert scene.server.counts[1:] == [7, 7, 7, 3]
    for kind in (OpenAIBatches, AnthropicBatches):
        monkeypatch.setattr(kind, "shape", replace(kind.shape, size=40_000))
    uploads = scene.server.counts.copy()
    by_size = scene.run("r-3", reuse=False)
    parts = scene.server.counts[len(uploads) :]
    assert sum(parts) == ASKS and len(parts) > 1
    assert all(len(data) <= 40_000 for data in list(scene.server.files.values())[-len(parts) :])
    assert facts(whole) == facts(by_count) == facts(by_size)


def test_the_limits_are_the_documented_ones() -> None:
    """50,000 requests and 200 MB for OpenAI, 100,000 and 256 MB for Anthropic."""
    assert (OpenAIBatches.shape.requests, OpenAIBatches.shape.size) == (50_000, 200_000_000)
    assert (AnthropicBatches.shape.requests, AnthropicBatches.shape.size) == (100_000, 256_000_000)
    assert Shape(1, 1).between == b"\n"


def test_faults_while_looking_and_reading_are_waited_out(scene: Scene) -> None:
    """5xx on a look, and results that break in the middle, cost time and nothing else."""
    scene.server.polls = 3
    scene.server.looks = [500, 200, 503, 502, 429]
    scene.server.cuts = 2
    assert scene.run()["outcome"].null_count() == 0
    assert scene.server.counts == [ASKS]
    assert len(scene.records("reply")) == ASKS


def test_a_refused_look_stops_the_run_and_a_resume_goes_on(scene: Scene) -> None:
    """401 is not waited out; the batch goes on at the provider and its id in the journal."""
    scene.server.looks = [401]
    with pytest.raises(BackendError, match="401"):
        scene.run()
    assert scene.resume()["outcome"].null_count() == 0
    assert scene.server.counts == [ASKS]


@pytest.mark.parametrize("first", ["500-made", "500-lost", "429", "503-lost"])
def test_a_submission_that_fails_is_never_repeated_blindly(both: Scene, first: str) -> None:
    """After an answer that says nothing the batch is searched for; one that was made is taken, not made again."""
    both.server.submissions = [first]
    both.run()
    assert both.server.counts == [ASKS]
    assert both.twice() == []
    assert bool(both.records("batch")[0].get("found")) == (first == "500-made")
    assert ledger_of(both).possibly_paid == (ASKS if first == "500-lost" else 0)


def test_a_refused_submission_stops_the_run(scene: Scene) -> None:
    """400 is an error with the provider's words; nothing is paid and nothing counted as possibly paid."""
    scene.server.submissions = ["400"]
    with pytest.raises(BackendError, match="the batch could not be made: bad_request"):
        scene.run()
    assert (scene.server.counts, ledger_of(scene).possibly_paid) == ([], 0)
    assert scene.resume().height == PAIRS


def test_a_cancelled_batch_keeps_what_it_answered_and_stops(both: Scene) -> None:
    """Who cancels a batch is not sent another unasked: the run stops, and a resume sends the rest."""
    both.server.state = lambda number: "cancelled" if number == 0 else "completed"
    with pytest.raises(BackendError, match="was cancelled"):
        both.run()
    kept = len(both.records("reply"))
    assert kept == ASKS // 2
    assert both.resume()["outcome"].null_count() == 0
    assert both.server.counts == [ASKS, ASKS - kept]


def test_a_batch_that_fails_validation_stops_with_the_reason(tmp_path: Path, server: BatchServer) -> None:
    """A batch that never ran says why and was not paid for; where another one worked, its rows are sent again."""
    scene = Scene(tmp_path, server, "openai")
    server.state = lambda _number: "failed"
    with pytest.raises(BackendError, match="Enqueued token limit reached"):
        scene.run()
    server.state = lambda number: "failed" if number == 1 else "completed"
    frame = scene.run("r-2", batch=BatchPlan(size=ASKS // 2))
    assert frame["outcome"].null_count() == 0


def test_a_budget_is_held_against_the_whole_round_before_anything_is_submitted(scene: Scene) -> None:
    """Where the upper bound of all requests passes the limit nothing is uploaded; with enough money it runs."""
    with pytest.raises(BudgetSpent, match="nothing was submitted") as refused:
        scene.run(max_cost=0.01)
    assert scene.server.seen == []
    most = float(re.findall(r"up to \$([\d.]+)", str(refused.value))[0])
    assert scene.resume(max_cost=most + 0.001)["cost"].sum() == pytest.approx(ASKS * COST / 2)


def test_a_batch_that_failed_holds_nothing_of_the_budget_back(tmp_path: Path, server: BatchServer) -> None:
    """It never ran, so what was set aside for it is free again: a limit that allows all requests once is enough."""
    scene = Scene(tmp_path, server, "openai")
    with pytest.raises(BudgetSpent, match="nothing was submitted") as refused:
        scene.run("r-0", max_cost=0.01)
    most = float(re.findall(r"up to \$([\d.]+)", str(refused.value))[0])
    server.state = lambda number: "failed" if number == 1 else "completed"
    frame = scene.run(batch=BatchPlan(size=ASKS // 2), max_cost=most + 0.001)
    assert (frame["outcome"].null_count(), server.counts) == (0, [ASKS // 2] * 3)
    assert frame["cost"].sum() == pytest.approx(ASKS * COST / 2)


class DiedError(Exception):
    """The process stops here."""


def test_a_batch_that_is_found_again_is_not_counted_twice(scene: Scene) -> None:
    """What a lost batch may have cost is taken back once it is found; its expired rows fit the same budget again."""
    with pytest.raises(BudgetSpent) as refused:
        scene.run("r-0", max_cost=0.01)
    most = float(re.findall(r"up to \$([\d.]+)", str(refused.value))[0]) + 0.001
    scene.server.fate = lambda _key, number: "expired" if number == 0 else "ok"

    def die(name: str) -> None:
        if name == "after_submit":
            raise DiedError

    failpoints.install(die)
    try:
        with pytest.raises(DiedError):
            scene.run(max_cost=most)
    finally:
        failpoints.install(None)
    assert ledger_of(scene).possibly_paid_cost == pytest.approx(most, abs=0.002)
    assert scene.resume()["outcome"].null_count() == 0
    assert scene.server.counts == [ASKS, ASKS]
    assert ledger_of(scene).possibly_paid_cost == 0.0


def test_resuming_a_sealed_run_does_nothing(scene: Scene) -> None:
    """The same command on a finished run asks, looks and submits nothing."""
    scene.run()
    seen = len(scene.server.seen)
    assert scene.resume().height == PAIRS
    assert len(scene.server.seen) == seen


def test_rows_with_the_same_texts_are_sent_once(scene: Scene) -> None:
    """A custom_id appears once in a batch; every row has its result, and one of them its price."""
    rows = [orjson.loads(line) for line in scene.path.read_bytes().splitlines()]
    scene.path.write_bytes(b"\n".join(orjson.dumps(row | {"id": f"{row['id']}-{n}"}) for row in rows for n in (0, 1)))
    frame = scene.run()
    assert (scene.server.counts, frame.height) == ([ASKS], 2 * PAIRS)
    assert frame["cost"].sum() == pytest.approx(ASKS * COST / 2)
    assert ledger_of(scene).cost == pytest.approx(ASKS * COST / 2)


def test_dying_between_the_replies_of_equal_rows_loses_none(scene: Scene) -> None:
    """A journal cut after the first of two rows that share a reply: the resume writes the second one's."""
    rows = [orjson.loads(line) for line in scene.path.read_bytes().splitlines()]
    scene.path.write_bytes(b"\n".join(orjson.dumps(row | {"id": f"{row['id']}-{n}"}) for row in rows for n in (0, 1)))
    scene.run()
    path = scene.store.journal_path("r-1")
    lines = path.read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if b'{"t":"reply"' in line)
    path.write_bytes(b"".join(lines[: first + 1]))
    assert scene.resume().height == 2 * PAIRS
    assert scene.server.counts == [ASKS]


def test_repeats_are_asked_each(scene: Scene) -> None:
    """Every repeat is a request of its own."""
    assert scene.run(repeats=2).height == 2 * PAIRS
    assert scene.server.counts == [2 * ASKS]


def test_a_judge_without_batches_is_refused_before_a_run_begins(tmp_path: Path, server: BatchServer) -> None:
    """No journal is left behind for a judge that has no batch interface here."""
    scene = Scene(tmp_path, server, "openai")
    with pytest.raises(InputError, match="no batch interface"):
        scene.run(spec="scripted:longer")
    assert not scene.store.journal_path("r-1").exists()


def test_the_key_goes_to_the_server_and_nowhere_else(both: Scene) -> None:
    """Under faults that repeat the key, it stands in no journal, database, request file or message."""
    both.server.looks = [500, 500]
    both.server.submissions = ["500-made"]
    both.run()
    both.server.submissions = ["400"]
    with pytest.raises(BackendError) as refused:
        both.run("r-2", reuse=False)
    assert both.server.keys == {f"Bearer {KEY}" if both.shape == "openai" else KEY}
    assert KEY.encode() not in both.texts()
    assert KEY not in str(refused.value)
    assert list((both.home / "batches").iterdir()) == []


def test_a_batch_can_be_cancelled(both: Scene) -> None:
    """The client asks for it and the provider ends the batch."""
    both.server.polls = 10**6
    batch = both.server.make([("k", {"model": "m", "messages": []})], both.shape, None)

    async def work() -> str:
        backend = open_backend(both.spec, both.env)
        assert backend.batches is not None  # type: ignore[attr-defined]
        api = backend.batches()  # type: ignore[attr-defined]
        try:
            return str((await api.cancel(batch["id"])).state)
        finally:
            await api.close()
            await backend.close()

    assert asyncio.run(work()) in ("ended", "cancelled")


def test_a_lost_batch_is_found_on_a_later_page(both: Scene) -> None:
    """The search goes on through the provider's list until it finds our batch among many."""
    both.server.submissions = ["500-made"]
    both.server.page = 2
    made = both.server.make

    def crowded(requests: Any, shape: str, metadata: Any) -> dict[str, Any]:
        batch = made(requests, shape, metadata)
        for number in range(5):
            others = [(f"other-{number}-{n}", body) for n, (_, body) in enumerate(requests)]
            made(others, shape, {"touchstone_tag": "x"})
        return batch

    both.server.make = crowded  # type: ignore[method-assign]
    assert both.run()["outcome"].null_count() == 0
    assert len(both.server.counts) == 6


@pytest.mark.parametrize(
    "payload", [None, [], {"content": 3}, {"content": [3]}, {"content": [{"type": "text", "text": 3}]}]
)  # fmt: skip
def test_a_message_of_another_shape_is_malformed(payload: Any) -> None:
    """Nothing in an answer is trusted to have its shape."""
    with pytest.raises(Malformed):
        read_message(payload)


@pytest.mark.parametrize(
    "usage", [{"input_tokens": -1}, {"input_tokens": 1.5}, {"input_tokens": True}, {"input_tokens": "9"}, [], "none"]
)
def test_a_message_is_not_thrown_away_over_its_accounts(usage: object) -> None:
    """A count of tokens that is none is not said, as for chat completions; the verdict stays."""
    said = read_message({"content": [{"type": "text", "text": "K"}], "usage": usage, "stop_reason": "end_turn"})
    assert (said.text, said.usage) == ("K", None)


@pytest.mark.parametrize(
    "odd",
    [
        {"request_counts": ["total", 6]},
        {"request_counts": {"total": "many", "completed": "some", "succeeded": "some"}},
        {"request_counts": {"processing": {"now": 3}, "total": []}},
        {"errors": "none", "request_counts": 6},
    ],
    ids=lambda odd: str(odd)[:40],
)
def test_a_look_that_cannot_be_read_is_one_look_that_failed(both: Scene, odd: dict[str, Any]) -> None:
    """A gateway that says something else of a batch once costs one more look, not the run."""
    shown, turns = both.server.status, itertools.count()
    both.server.status = lambda batch: shown(batch) | (odd if next(turns) == 1 else {})  # type: ignore[method-assign]
    assert both.run()["outcome"].null_count() == 0
    assert next(turns) > 2
    assert both.twice() == []


@pytest.mark.parametrize("when", ["written", "submitted"])
def test_requests_that_are_not_wanted_any_more_leave_no_file(scene: Scene, monkeypatch: Any, when: str) -> None:
    """Whatever ends a round (a full disk, a refused submission), the prompts do not stay behind."""
    if when == "submitted":
        scene.server.submissions = ["400"]
    else:
        whole = Outbox._put

        def full(outbox: Outbox, data: bytes) -> None:
            if outbox._size > 3_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(outbox, data)

        monkeypatch.setattr(Outbox, "_put", full)
    with pytest.raises((OSError, BackendError)):
        scene.run()
    assert list((scene.home / "batches").iterdir()) == []
    monkeypatch.undo()
    assert scene.resume()["outcome"].null_count() == 0


def test_a_chat_body_becomes_message_parameters() -> None:
    """The system text stands apart, the limit has one name, a seed is left out."""
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    params = params_of({"model": "m", "messages": turns, "max_completion_tokens": 9, "seed": 1, "temperature": 0.0})
    assert params == {"model": "m", "system": "S", "messages": turns[1:], "max_tokens": 9, "temperature": 0.0}
    said = read_message({"content": [{"type": "text", "text": "K"}], "stop_reason": "max_tokens"})
    assert (said.text, said.finish, said.usage) == ("K", "length", None)


def ledger_of(scene: Scene, name: str = "r-1") -> Ledger:
    ledger = Ledger()
    for record in journal.records(scene.store.journal_path(name)):
        ledger.take(record)
    ledger.end()
    return ledger


# Processes that die -----------------------------------------------------------------------------------------------

NURSERY = r"""
import json, os, sys
import asyncio, duckdb, polars, aiohttp
sys.path[:0] = ["tests"]
from pathlib import Path
from judge import failpoints
import judge.backends.remote, judge.backends.messages
from test_judge_batches import Scene

class There:
    url = ""

def run(job):
    failpoints.install(failpoints.killer(job["crash_at"]))
    There.url = job["url"]
    try:
        Scene(Path(job["folder"]), There, job["shape"]).run()
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
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "POLARS_MAX_THREADS": "1"},
    )  # fmt: skip

    def run(scene: Scene, crash_at: str) -> int:
        job = {"folder": str(scene.folder), "url": scene.server.url, "shape": scene.shape, "crash_at": crash_at}
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield run
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[object, ...]]]:
    """The tables of live runs."""
    with BatchServer() as served:
        return {shape: facts(Scene(tmp_path_factory.mktemp(shape), served, shape).run(live=True)) for shape in SHAPES}


@pytest.mark.parametrize(
    ("shape", "point"),
    [
        pytest.param(shape, point, marks=() if shape == "openai" or point in QUICK else pytest.mark.slow)
        for shape in SHAPES
        for point in failpoints.BATCH_POINTS
    ],
)
def test_killed_anywhere_a_resume_pays_nothing_twice_and_loses_nothing(
    tmp_path: Path, server: BatchServer, nursery: Any, unbroken: dict[str, Any], *, shape: str, point: str
) -> None:
    """kill -9 at every step of a batch: the resume completes, no ask is in two paid batches, the table is whole."""
    scene = Scene(tmp_path, server, shape)
    assert nursery(scene, point) == -9
    kept = {record["key"] for record in scene.records("reply")}
    frame = scene.resume()
    assert scene.twice() == []
    assert scene.server.counts == [ASKS]
    assert kept <= {record["key"] for record in scene.records("reply")}
    assert facts(frame) == unbroken[shape]
    replies = Counter((record["key"], record["pair_id"]) for record in scene.records("reply"))
    assert max(replies.values()) == 1
    assert {(now.batches, now.total) for now in scene.progress} <= {(1, ASKS)}
    assert scene.resume().height == PAIRS
    unknown = {"before_batch", "within_batch", "after_submit", "after_batch_intent"}
    found = bool(scene.records("batch")[0].get("found"))
    assert found == (point in unknown - {"after_batch_intent"})
    assert ledger_of(scene).possibly_paid == (ASKS if point == "after_batch_intent" else 0)
    assert KEY.encode() not in scene.texts()


@pytest.mark.parametrize("point", ["while_polling", "while_reading", "after_submit"])
def test_interrupted_a_resume_takes_the_batch_up_again(scene: Scene, nursery: Any, point: str) -> None:
    """Ctrl-C leaves the batch running at the provider; the resume finds it by its id or its tag."""
    assert nursery(scene, f"{point}:1:INT") == 130
    assert scene.resume()["outcome"].null_count() == 0
    assert scene.server.counts == [ASKS]
    assert scene.twice() == []
    assert {(now.batches, now.total) for now in scene.progress} <= {(1, ASKS)}


@pytest.mark.parametrize("point", ["while_reading", "after_batch:2", "after_batch_end:2"])
def test_a_kill_in_every_round_of_a_repair_keeps_drafts(scene: Scene, nursery: Any, point: str) -> None:
    """Killed while first answers or repairs are read, neither is taken for the other or asked again."""
    scene.server.fate = lambda _key, number: "prose" if number == 0 else "ok"
    assert nursery(scene, point) == -9
    assert scene.records("draft")
    frame = scene.resume()
    assert frame["outcome"].null_count() == 0
    assert scene.server.counts == [ASKS, ASKS]
    assert all("repaired" in record["reply"]["flags"] for record in scene.records("reply"))
    assert frame["cost"].sum() == pytest.approx(ASKS * COST)


def test_a_batch_that_cannot_be_found_is_reported_as_possibly_paid(scene: Scene, nursery: Any) -> None:
    """Made, its id lost, and no longer in the provider's list: the run goes on and the report says what it may cost."""
    assert nursery(scene, "after_submit") == -9
    before = ledger_of(scene)
    assert (before.possibly_paid, before.calls) == (ASKS, 0)
    scene.server.batches.clear()
    scene.resume()
    after, info = ledger_of(scene), scene.store.run("r-1")
    assert after.possibly_paid == info.possibly_paid == ASKS
    assert after.possibly_paid_cost is not None and after.possibly_paid_cost > ASKS * COST / 2
    assert scene.server.counts == [ASKS, ASKS]


# The command line -------------------------------------------------------------------------------------------------


def judge(scene: Scene, *arguments: str, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "JUDGE_CRASH_AT": crash_at}
    return subprocess.run(
        [sys.executable, "-c", "from judge.cli import main; main()", *arguments, "--home", str(scene.home)],
        capture_output=True, text=True, cwd=REPO, env=environment, check=False,
    )  # fmt: skip


@each_shape
def test_the_command_line_runs_dies_and_resumes_a_batch(tmp_path: Path, server: BatchServer, shape: str) -> None:
    """--dry-run shows half the price, a killed --batch run is resumed by its id, progress stands on stderr."""
    scene = Scene(tmp_path, server, shape)
    asked = ("run", str(scene.path), "-j", scene.spec)
    full, half = (
        json.loads(judge(scene, *asked, "--dry-run", "--json", *more).stdout)["high"] for more in ((), ("--batch",))
    )
    assert half == pytest.approx(full / 2)
    assert server.seen == []
    died = judge(scene, *asked, "--batch", crash_at="while_polling")
    assert died.returncode == -9
    (path,) = (scene.home / "runs").glob("*.jsonl")
    done = judge(scene, "resume", path.stem, "--json")
    assert done.returncode == 0, done.stderr
    assert f"1 batches submitted, 1 ended  {ASKS}/{ASKS} requests  elapsed 0:00:" in done.stderr
    assert server.counts == [ASKS]
    assert KEY not in died.stdout + died.stderr + done.stdout + done.stderr
    again = judge(scene, "resume", path.stem)
    assert (again.returncode, server.counts) == (0, [ASKS])


def test_the_loopback_server_speaks_what_the_openai_sdk_speaks(server: BatchServer, tmp_path: Path) -> None:
    """The shape that our client is tested against is the one that OpenAI's own client uses."""
    import openai

    body = {"model": "m", "messages": [{"role": "user", "content": "Reply with exactly one of: K, R, TIE."}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    path = tmp_path / "requests.jsonl"
    path.write_bytes(orjson.dumps(line))
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        with path.open("rb") as handle:
            file = client.files.create(file=handle, purpose="batch")
        made = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        assert [batch.id for batch in client.batches.list()] == [made.id]
        for _ in range(3):
            seen = client.batches.retrieve(made.id)
        assert (seen.status, seen.metadata) == ("completed", {"a": "b"})
        assert seen.request_counts is not None and seen.request_counts.total == 1
        assert seen.output_file_id is not None
        rows = [orjson.loads(row) for row in client.files.content(seen.output_file_id).text.splitlines()[:1]]
    assert rows[0]["response"]["body"]["choices"][0]["message"]["content"] == "K"


def test_a_repair_of_unknown_price_beyond_the_budget_is_said_in_words(scene: Scene, monkeypatch: Any) -> None:
    """Where the price of the next repair is unknown and the budget is spent, the run stops for the budget as ever."""
    fates, budgets = iter(["prose"]), []
    scene.server.fate = lambda _key, _number: next(fates, "ok")
    quote = ChatBackend.quote

    class Lean(Budget):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            budgets.append(self)

    def spend(name: str) -> None:
        if name == "while_polling":
            budgets[-1].limit = COST / 2
            monkeypatch.setattr(ChatBackend, "quote", lambda backend, ask: replace(quote(backend, ask), cost=None))

    monkeypatch.setattr("judge.runs.Budget", Lean)
    failpoints.install(spend)
    try:
        with pytest.raises(BudgetSpent, match="are spent, and what it may take is unknown"):
            scene.run(batch=BatchPlan(rest="live"), max_cost=1.0)
    finally:
        failpoints.install(None)
    assert (scene.server.counts, scene.server.live) == ([ASKS], 0)
