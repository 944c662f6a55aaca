"""Canary pairs: in every run, never counted, the same after a resume, and a run whose canaries fail is void."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from pathlib import Path

import pytest

from judge import cli, render
from judge import journal as journals
from judge.backends.scripted import ScriptedBackend
from judge.canaries import PREFIX, Canaries, canaries_of, canary_verdict, usual_count
from judge.checks.passes import of_run
from judge.errors import InputError, StoreError
from judge.formats import EvalSet, open_evalset, write_evalset
from judge.labels import run_source
from judge.runs import RunPlan, resume_run, start_run
from judge.store import Store
from judge.summary import RunReport, summarise
from judge.testing import sample_rubric
from judge.types import Answer, Ask, Item, Pair, Reply, Usage

FREE = Usage(cost=0.0)


def careful(ask: Ask) -> Reply:
    """Prefers the longer text, so real answers over junk; the constant text is long, so words of the question count."""

    def worth(text: str) -> float:
        return 1.0 + len(set(text.split()) & {f"w{n}" for n in range(200)})

    a, b = worth(ask.first), worth(ask.second)
    return Reply(probs=(a / (a + b), 0.0, b / (a + b)), usage=FREE)


def backwards(ask: Ask) -> Reply:
    first, tie, second = careful(ask).probs or (0.5, 0.0, 0.5)
    return Reply(probs=(second, tie, first), usage=FREE)


def evalset(folder: Path, rows: int = 60) -> EvalSet:
    rng = random.Random(rows)

    def answer() -> Answer:
        return Answer(" ".join(f"w{rng.randrange(200)}" for _ in range(rng.randint(12, 40))))

    write_evalset(folder / "set.jsonl", [Pair(f"p{n}", Item(f"Q{n}?"), answer(), answer()) for n in range(rows)])
    return open_evalset(folder / "set.jsonl")


def plan(folder: Path, *, canaries: int | None, rows: int = 60) -> RunPlan:
    return RunPlan(
        "r-can", "2026-01-01T00:00:00+00:00", evalset(folder, rows), {}, sample_rubric(), "scripted:longer",
        canaries=canaries,
    )  # fmt: skip


def judged(folder: Path, judge: ScriptedBackend, *, canaries: int | None = 4) -> tuple[Store, RunReport]:
    store = Store(folder / "home")
    asyncio.run(start_run(plan(folder, canaries=canaries), judge, store))
    info = store.run()
    return store, summarise(
        info.header, store.comparisons(info.run_id), sealed=info.sealed, canaries=store.canaries(info.run_id)
    )


def test_a_good_run_passes_and_counts_only_its_own_pairs(tmp_path: Path) -> None:
    """Four paid canaries and two free ones are judged; every figure is that of the run without them."""
    judge = ScriptedBackend(careful)
    store, report = judged(tmp_path, judge)
    (tmp_path / "plain").mkdir()
    _store, plain = judged(tmp_path / "plain", ScriptedBackend(careful), canaries=None)
    assert report.canaries.state == "passed"
    assert (report.canaries.paid, len(report.canaries.findings)) == (4, 6)
    assert len(judge.asked) == 2 * (60 + 4)  # the identical pair and the mirrored twin cost nothing
    assert report.overall == plain.overall
    assert report.overall.n == 60
    assert plain.canaries.state == "none"
    assert len(store.ids("r-can")) == store.answers("r-can").height == 60
    assert store.canaries("r-can").height == 6
    assert "All canaries are as they must be" in render.to_text(report)


def test_the_twin_of_a_pair_is_not_asked_anew_in_a_large_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that answers a little otherwise each time is asked about the twin's original once: no run is void for it.

    In a run of 50,000 pairs the engine has long forgotten the original's replies by the time other canaries come; here
    it forgets sooner.
    """
    monkeypatch.setattr("judge.engine.RECENT", 16)
    spread = canaries_of(evalset(tmp_path, 600), 8)
    order = [pair.id for pair in spread.pairs()]
    (twin,) = (pair for pair in spread.canaries if pair.id.startswith("canary:twin"))
    assert order.index(twin.id) == order.index(twin.item.metadata["of"]) + 1
    assert len(order) == len(set(order)) == spread.rows
    asked = [0]

    def wavers(ask: Ask) -> Reply:
        asked[0] += 1
        first, tie, second = careful(ask).probs or (0.5, 0.0, 0.5)
        slip = asked[0] * 1e-6
        return Reply(probs=(first - slip, tie, second + slip), usage=FREE)

    store = Store(tmp_path / "home")
    asyncio.run(start_run(plan(tmp_path, canaries=8, rows=600), ScriptedBackend(wavers), store))
    info = store.run()
    assert asked[0] == 2 * (600 + 8)
    found = canary_verdict(info.header, store.canaries(info.run_id), store.comparisons(info.run_id))
    assert {finding.passed for finding in found.findings if "twin" in finding.check} == {True}


def test_a_judge_that_prefers_junk_voids_its_run_on_every_surface(tmp_path: Path) -> None:
    """Text, Markdown, HTML and JSON say VOID, and the report is not believable."""
    _store, report = judged(tmp_path, ScriptedBackend(backwards))
    assert report.canaries.void
    assert report.canaries.failed == 4
    assert not report.believable
    assert report.caveats[0].kind == "void"
    for shape in (render.to_text, render.to_markdown, render.to_html, render.to_json):
        assert "VOID" in shape(report) or '"void"' in shape(report)
    assert "VOID: 4 of 6 canary pairs failed" in render.to_text(report)


def test_a_coin_is_void_mostly_and_a_good_judge_hardly_ever() -> None:
    """With five canaries two failures void a run and one does not; with two, one does."""
    verdicts = {(n, failed): _void(n, failed) for n in (1, 2, 5, 8) for failed in range(n + 1)}
    assert not any(verdicts[n, 0] for n in (1, 2, 5, 8))
    assert verdicts[1, 1]
    assert verdicts[2, 1]
    assert (verdicts[5, 1], verdicts[5, 2]) == (False, True)
    assert (verdicts[8, 1], verdicts[8, 2]) == (False, True)


def _void(n: int, failed: int) -> bool:
    from judge.canaries import _too_many

    return _too_many(failed, n)


def test_one_slip_is_said_and_voids_nothing(tmp_path: Path) -> None:
    """Of five judged canaries one fails: the report names it as a caveat, and the run stands."""
    slipped: list[str] = []

    def slips(ask: Ask) -> Reply:
        if "prepared with care" in ask.first + ask.second and slipped in ([], [ask.pair_id]):
            slipped[:] = [ask.pair_id]
            return backwards(ask)
        return careful(ask)

    _store, report = judged(tmp_path, ScriptedBackend(slips, batch=1, concurrency=1), canaries=5)
    assert (report.canaries.state, report.canaries.failed) == ("passed", 1)
    assert slipped[0] in next(caveat.text for caveat in report.caveats if caveat.kind == "canaries")
    assert "All canaries" not in render.to_text(report)


def test_a_broken_twin_voids_a_run(tmp_path: Path) -> None:
    """Where the stored twin does not mirror its pair, or the identical pair is no tie, the pipeline is broken."""
    import polars

    store, _report = judged(tmp_path, ScriptedBackend(careful))
    info = store.run()
    good, real = store.canaries(info.run_id), store.comparisons(info.run_id)
    assert canary_verdict(info.header, good, real).state == "passed"
    for kind in ("twin", "identical"):
        bent = good.with_columns(
            polars.when(polars.col("pair_id").str.contains(kind))
            .then(0.9)
            .otherwise(polars.col("preference"))
            .alias("preference")
        )
        found = canary_verdict(info.header, bent, real)
        assert found.state == "void"
        assert kind in found.text


def test_canaries_without_a_verdict_are_no_pass(tmp_path: Path) -> None:
    """A judge that cannot be read gives "unknown", and the report says so."""
    _store, report = judged(tmp_path, ScriptedBackend(lambda _ask: Reply(text="hm", usage=FREE)))
    assert report.canaries.state == "unknown"
    assert not report.canaries.void
    assert any(caveat.kind == "canaries" for caveat in report.caveats)
    assert canary_verdict({"canaries": {"count": 4}}, None, _store.comparisons("r-can")).state == "unknown"


def test_an_interrupted_run_is_resumed_with_the_same_canaries(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Interrupted within a call and resumed, the canaries and the table are those of an unbroken run (M19); the
    interrupt is raised once, and no task is left that tells of it again.
    """
    store = Store(tmp_path / "home")
    calls = 0

    def dies(ask: Ask) -> Reply:
        nonlocal calls
        calls += 1
        if calls > 70:
            raise KeyboardInterrupt
        return careful(ask)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(start_run(plan(tmp_path, canaries=4), ScriptedBackend(dies), store))
    gc.collect()
    assert "never retrieved" not in caplog.text
    asyncio.run(resume_run("r-can", store, lambda _spec: ScriptedBackend(careful)))
    (tmp_path / "whole").mkdir()
    whole, _report = judged(tmp_path / "whole", ScriptedBackend(careful))
    columns = ["pair_id", "preference", "outcome"]
    assert store.canaries("r-can").select(columns).equals(whole.canaries("r-can").select(columns))
    assert store.comparisons("r-can").select(columns).equals(whole.comparisons("r-can").select(columns))
    assert store.run().sealed
    audit = store.audit(store.journal_path("r-can"))
    assert audit.agrees
    assert audit.ledger.comparisons == audit.comparisons == 66


def test_another_version_of_the_canaries_is_refused_on_resume(tmp_path: Path) -> None:
    """A run that was begun with other canary texts cannot go on with these."""
    store = Store(tmp_path / "home")
    asyncio.run(start_run(plan(tmp_path, canaries=2), ScriptedBackend(careful), store))
    path = store.journal_path("r-can")
    records = [record for record in journals.records(path) if record["t"] != "seal"]
    records[0]["canaries"]["version"] = "canary-0"
    path.unlink()
    with journals.Journal(path, create=True) as journal:
        for record in records[:1]:
            journal.append("run", {key: value for key, value in record.items() if key != "t"})
        journal.sync()
    with pytest.raises(StoreError, match="canary-0"):
        asyncio.run(resume_run("r-can", store, lambda _spec: ScriptedBackend(careful)))


def test_ids_of_canaries_are_reserved(tmp_path: Path) -> None:
    """An eval set that uses such an id is refused with line and fix: its row would not be counted."""
    write_evalset(tmp_path / "bad.jsonl", [Pair(f"{PREFIX}x", Item("Q"), Answer("a"), Answer("b"))])
    with pytest.raises(InputError, match=r"bad\.jsonl:1: the id 'canary:x' begins with 'canary:'"):
        open_evalset(tmp_path / "bad.jsonl")


def test_canaries_are_made_from_the_set_alone(tmp_path: Path) -> None:
    """Twice the same, spread over the run, on both sides, and none where the set has no answer to use."""
    rows = evalset(tmp_path)
    one, two = canaries_of(rows, 4), canaries_of(rows, 4)
    assert one.canaries == two.canaries
    ids = [pair.id for pair in one.pairs()]
    assert len(ids) == one.rows == 66
    places = [place for place, name in enumerate(ids) if name.startswith(PREFIX)]
    assert max(places) - min(places) > 30
    assert [name for name in ids if not name.startswith(PREFIX)] == [f"p{n}" for n in range(60)]
    sides = {pair.item.metadata["real"] for pair in one.canaries if "real" in pair.item.metadata}
    assert sides == {"candidate", "baseline"}
    write_evalset(tmp_path / "empty.jsonl", [Pair("p", Item("Q"), Answer("a"), Answer(" "))])
    assert canaries_of(open_evalset(tmp_path / "empty.jsonl"), 4).canaries == ()
    assert Canaries(rows, ()).rows == 60


def test_what_canaries_cost_is_bounded() -> None:
    """By default at most 5% more calls, never more than 16, and none for a set that decides nothing."""
    assert usual_count(19) is None
    for rows in (20, 39, 108, 500, 100_000):
        count = usual_count(rows)
        assert count is not None
        assert count <= 8
        assert count / rows <= 0.05


def test_a_gate_reads_the_canaries_of_a_run(tmp_path: Path) -> None:
    """Void canaries reach the gate by name, passed ones as a count, and a run without any as what is missing."""
    from judge.decision import Canaries as Known
    from judge.decision import Missing
    from judge.dossier import _canaries

    (tmp_path / "mute").mkdir()
    mute, _report = judged(tmp_path / "mute", ScriptedBackend(lambda _ask: Reply(text="hm", usage=FREE)))
    silent = _canaries(mute, mute.run(), mute.comparisons("r-can"))
    assert isinstance(silent, Known)
    assert "no verdict" in silent.silent
    found = {}
    for name, script, count in (("good", careful, 4), ("bad", backwards, 4), ("none", careful, None)):
        (tmp_path / name).mkdir()
        store, _report = judged(tmp_path / name, ScriptedBackend(script), canaries=count)
        found[name] = _canaries(store, store.run(), store.comparisons("r-can"))
    assert found["good"] == Known(6)
    bad = found["bad"]
    assert isinstance(bad, Known)
    assert len(bad.failed) == 4
    assert all(name.startswith(PREFIX) for name in bad.failed)
    assert isinstance(found["none"], Missing)


def test_checks_labels_and_slices_see_no_canary(tmp_path: Path) -> None:
    """A pass of checks, a frame to label, grounding's ids and the traits hold the eval set's 60 pairs and no other."""
    store, _report = judged(tmp_path, ScriptedBackend(careful))
    assert store.canaries("r-can").height == 6
    own = {f"p{n}" for n in range(60)}
    material = of_run(store.journal_path("r-can"))
    assert material.rows == 60
    assert {pair.id for pair in material.pairs()} == own
    assert {pair.id for pair in run_source(store, "r-can").read()} == own
    assert set(store.traits("r-can")["pair_id"]) == set(store.ids("r-can")) == own


def test_judge_check_counts_no_canary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``judge check RUN`` reports on 60 pairs of a run that judged 66."""
    store, _report = judged(tmp_path, ScriptedBackend(careful))
    assert cli._run(["check", "r-can", "--json", "--home", str(store.home)]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] == 60
    assert PREFIX not in store.home.joinpath("checks", f"{told['check_id']}.jsonl").read_text()
