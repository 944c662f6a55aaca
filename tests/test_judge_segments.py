"""Segments that answer an incident: the slice that got worse is found, its kind, what changed, and the way back."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from judge.errors import InputError
from judge.formats import open_evalset
from judge.render.segments import to_json, to_markdown, to_text
from judge.runs import RunPlan, start_run
from judge.segments import segment_report
from judge.slices import NONE, slices_of, usual_columns
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric


def judged(store: Store, folder: Path, *, run_id: str, broken: str = "", seed: int = 0, slow: float = 1.0) -> None:
    """A run of 240 pairs whose slice ``broken`` (a value of ``surface``) lost its length, and with it its wins."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for k in range(240):
        surface = ("web", "voice", "mail")[k % 3]
        noise = rng.randrange(1, 7)
        length = 6 if surface != broken else 2
        rows.append(
            {
                "id": f"p{k}", "prompt": f"question {k}", "category": "ab"[k % 2], "tags": ["all", f"t{k % 4}"],
                "context": ["x" * 3000] if k % 2 else [],
                "candidate": {"text": "word " * (length + noise), "model": "new", "latency_ms": 100.0 * slow},
                "baseline": {"text": "word " * (6 + rng.randrange(1, 7)), "model": "old", "latency_ms": 100.0},
                "metadata": {"surface": surface, "risk": "low" if k % 5 else "high", "note": f"n{k}"},
            }
        )  # fmt: skip
    path = folder / f"{run_id}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = RunPlan(
        run_id=run_id,
        created_at=f"2026-01-01T00:00:0{len(store.runs())}+00:00",
        evalset=open_evalset(path),
        options={},
        rubric=sample_rubric(),
        judge_spec="scripted",
        seed=seed,
    )
    asyncio.run(start_run(plan, ScriptedBackend(prefer_longer), store))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("segments")
    made = Store(folder / "home")
    judged(made, folder, run_id="r-before", seed=1)
    judged(made, folder, run_id="r-after", broken="voice", seed=2, slow=1.5)
    return made


def test_the_slice_that_got_worse_is_found(store: Store) -> None:
    """Against the run before, exactly the broken surface is worse, with its pairs, and the healthy ones are not."""
    report = segment_report(store, store.run("r-after"), against=store.run("r-before"), by=("surface", "category"))
    assert [(part.column, part.value) for part in report.of("worse") if part.column == "surface"] == [
        ("surface", "voice")
    ]
    worst = report.of("worse")[0]
    assert (worst.value, worst.pairs) == ("voice", 80)
    assert worst.raw.high < 0
    assert all(int(pair[1:]) % 3 == 1 for pair in worst.items)
    assert {part.value for part in report.of("unclear")} >= {"web", "mail"}


def test_it_says_in_what_way(store: Store) -> None:
    """Latency and length of the slice are told with intervals; what no check looked at is said to be unknown."""
    report = segment_report(store, store.run("r-after"), against=store.run("r-before"), by=("surface",))
    moved = {(part.kind, part.name): part for part in report.of("worse")[0].moved}
    latency, length = moved["latency", "latency ratio"], moved["format", "length ratio"]
    assert latency.estimate is not None
    assert length.estimate is not None
    assert latency.estimate.value == pytest.approx(1.5)
    assert latency.shown
    assert length.estimate.high < 0.8
    unknown = next(part for part in report.of("worse")[0].moved if part.estimate is None)
    assert "judge check r-after" in unknown.why


def test_it_says_what_changed_and_how_to_go_back(store: Store) -> None:
    """The headers' difference names data and seed, and nothing that is equal; the way back ends in a new comparison."""
    report = segment_report(store, store.run("r-after"), against=store.run("r-before"))
    fields = {(change.kind, change.field) for change in report.changes}
    assert fields == {("data", "eval set"), ("config", "seed"), ("data", "answers of shared pairs")}
    assert "judge segments NEW-RUN --against r-before" in " ".join(report.back)
    for text in (to_text(report), to_markdown(report)):
        assert "surface=voice" in text
        assert "differ: p" in text
    body = json.loads(to_json(report))
    assert body["slices"][0]["verdict"] == "worse"


def test_a_run_against_itself_changed_in_nothing(store: Store) -> None:
    """No slice is worse, no header field differs."""
    report = segment_report(store, store.run("r-before"), against=store.run("r-before"))
    assert report.of("worse") == report.of("better") == ()
    assert report.changes == ()


def test_alone_a_run_is_held_against_even(store: Store) -> None:
    """Without another run the broken slice loses against a half; tags put a pair into several slices."""
    report = segment_report(store, store.run("r-after"), by=("surface", "tags"))
    assert ("surface", "voice") in [(part.column, part.value) for part in report.of("worse")]
    tags = {part.value: part.pairs for part in report.slices if part.column == "tags"}
    assert tags == {"all": 240, "t0": 60, "t1": 60, "t2": 60, "t3": 60}


def test_small_slices_are_named_and_not_tested(store: Store) -> None:
    """Below the least number of prompts a slice is "too few", has no q, and takes no part in the correction."""
    few = segment_report(store, store.run("r-after"), by=("risk", "surface"), minimum=60)
    assert {(part.value, part.verdict, part.q) for part in few.of("too few")} == {("high", "too few", None)}
    assert all(part.q is not None for part in few.slices if part.verdict != "too few")


def test_usual_columns_are_those_that_make_slices(store: Store) -> None:
    """Columns with one value, and columns that name every item, are no slices."""
    frame, traits = store.comparisons("r-after"), store.traits("r-after")
    assert usual_columns(frame, traits) == ("category", "risk", "context", "surface", "tags")
    found = slices_of(frame, traits, ["context", "metadata.note", "tools"])
    assert found["context"]["p1"] == ("up to 8000",)
    assert found["context"]["p0"] == ("none",)
    assert found["tools"]["p0"] == ("none",)
    with pytest.raises(InputError, match=r"there are category, tags, tools, context, metadata\.note"):
        slices_of(frame, traits, ["surfaces"])
    assert NONE not in {value for row in found["metadata.note"].values() for value in row}


def test_runs_without_a_shared_pair_are_refused(store: Store, tmp_path: Path) -> None:
    """Two runs that share nothing cannot be compared."""
    other = Store(store.home)
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "other", "prompt": "q", "candidate": "a b", "baseline": "c"}\n', encoding="utf-8")
    plan = RunPlan("r-other", "2026-01-01T00:00:09+00:00", open_evalset(path), {}, sample_rubric(), "scripted")
    asyncio.run(start_run(plan, ScriptedBackend(prefer_longer), other))
    with pytest.raises(InputError, match="share no pair"):
        segment_report(store, store.run("r-after"), against=store.run("r-other"))
