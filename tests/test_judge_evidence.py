"""From a stored run to calibration evidence: names, repeats, invalid verdicts, styles; and the labelled pairs again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path

import pytest

from calibration.gold import GoldSet
from judge.backends import Backend
from judge.evidence import compared_names, run_evidence, styles
from judge.formats import open_evalset, write_evalset
from judge.journal import decode_pair
from judge.rejudging import labelled_evalset, run_with_labels, stored
from judge.runs import RunPlan, start_run
from judge.store import Store
from judge.testing import ScriptedBackend, prefer_longer, sample_rubric
from judge.types import Ask, Outcome, Reply
from rubrics.errors import InputError


def evalset_of(folder: Path, rows: int = 6, **names: str) -> Path:
    """A small eval set; even rows are won by length."""
    path = folder / "evals.jsonl"
    lines = [
        {
            "id": f"p{k}", "prompt": f"question {k}", "category": "ab"[k % 2],
            "candidate": {"text": "long answer " * (k + 1), "model": names.get("candidate")},
            "baseline": {"text": "short", "model": names.get("baseline")},
        }
        for k in range(rows)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def judged(store: Store, path: Path, backend: Backend | None = None, *, run_id: str = "r-1", repeats: int = 1) -> None:
    """Judge an eval set into a store."""
    plan = RunPlan(
        run_id=run_id,
        created_at=f"2026-01-01T00:00:0{len(store.runs())}+00:00",
        evalset=open_evalset(path),
        options={},
        rubric=sample_rubric(),
        judge_spec="scripted",
        repeats=repeats,
    )
    asyncio.run(start_run(plan, backend or ScriptedBackend(prefer_longer), store))


def labels_of(folder: Path, ids: list[str], **changes: object) -> GoldSet:
    """Labels that the candidate wins."""
    rows = [{"pair_id": name, "annotator": "ann", "outcome": "win", "drawn": "random", **changes} for name in ids]
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return GoldSet.read(path)


def test_every_pair_carries_both_orders_lengths_and_identity(tmp_path: Path) -> None:
    """Evidence holds one row a pair with probabilities, both calls from the candidate's side, lengths and versions."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, candidate="new-1", baseline="old-1"))
    evidence = run_evidence(store, store.run())
    assert (evidence.run.candidate, evidence.run.baseline, evidence.rubric) == ("new-1", "old-1", "helpfulness@1")
    assert evidence.judge == "scripted"
    row, said = evidence.run.rows[1], evidence.said[1]
    assert (row.pair_id, row.category, row.candidate_length, row.baseline_length) == ("p1", "b", 24, 5)
    assert said.outcome is Outcome.WIN and said.first == said.second == (Outcome.WIN,)
    assert said.soft[0] == pytest.approx(said.soft[1])
    assert evidence.identity["rubric digest"] == sample_rubric().digest
    assert evidence.cost == 0.0 or evidence.cost is None


def test_answers_without_a_model_are_named_by_their_eval_set(tmp_path: Path) -> None:
    """Two eval sets with unnamed answers never share a name; one model a side is that model, several are none."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path))
    digest = store.run().header["evalset"]["digest"]
    assert run_evidence(store, store.run()).run.candidate == f"evalset:{digest[:12]}/candidate"
    assert compared_names([("a", "b"), ("a", "c")], "0123456789abcdef") == ("a", "evalset:0123456789ab/baseline")
    assert compared_names([("a", "b"), (None, "b")], "0123456789abcdef")[0] == "evalset:0123456789ab/candidate"


def test_repeats_are_averaged_and_kept_apart(tmp_path: Path) -> None:
    """A pair judged twice is one row with the mean of its repeats, settled by the tie rule; every repeat stays."""

    def fickle(ask: Ask) -> Reply:
        sure = 0.9 if (ask.repeat == 0) == (ask.order == "candidate_first") else 0.7
        return Reply(probs=(sure, 0.0, 1 - sure) if ask.order == "candidate_first" else (1 - sure, 0.0, sure))

    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, rows=2), ScriptedBackend(fickle), repeats=2)
    evidence = run_evidence(store, store.run())
    assert len(evidence.run.rows) == 2
    assert evidence.run.rows[0].p_win == pytest.approx(0.8)
    assert evidence.said[0].outcome is Outcome.WIN
    assert evidence.singles(0) == pytest.approx((0.8, 0.8))
    assert [len(said.first) for said in evidence.said] == [2, 2]


def test_two_repeats_that_disagree_are_settled_by_their_mean(tmp_path: Path) -> None:
    """One sure win and one weak loss are a win; counting heads would call it a tie."""

    def fickle(ask: Ask) -> Reply:
        candidate = 0.95 if ask.repeat == 0 else 0.4
        first = candidate if ask.order == "candidate_first" else 1 - candidate
        return Reply(probs=(first, 0.0, 1 - first))

    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, rows=1), ScriptedBackend(fickle), repeats=2)
    said = run_evidence(store, store.run()).said[0]
    assert (said.outcome, said.each) == (Outcome.WIN, pytest.approx((0.95, 0.4)))


def test_what_has_no_verdict_stays_without_numbers(tmp_path: Path) -> None:
    """An invalid comparison has no probability, no outcome and is counted."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, rows=2), ScriptedBackend(lambda _ask: Reply(text="")))
    evidence = run_evidence(store, store.run())
    assert [row.p_win for row in evidence.run.rows] == [None, None]
    assert [said.outcome for said in evidence.said] == [None, None]
    assert not evidence.run.valid.any()


def test_styles_count_markers_outside_code() -> None:
    """A marker is counted per hundred words of prose, candidate minus baseline; code blocks do not count."""
    plain = " ".join(["word"] * 48)
    found = styles([("p", (f"**bold** {plain} sorry", plain)), ("q", ("```\n# not a header\n```", "# header"))])
    assert found["bold"]["p"] == pytest.approx(100 / 50)
    assert found["apologies"]["p"] == pytest.approx(2.0)
    assert found["headers"]["q"] == pytest.approx(-50.0)
    assert found["lists"]["p"] == 0.0


def test_the_labelled_pairs_become_an_eval_set_once(tmp_path: Path) -> None:
    """The same labels give the same file; its pairs are the run's; anchors are added from the rest, by seed."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, candidate="new-1", baseline="old-1"))
    gold = labels_of(tmp_path, ["p1", "p3", "elsewhere"])
    info = run_with_labels(store, gold, None)
    assert info is not None and info.run_id == "r-1"
    first, again = (labelled_evalset(store, info, gold) for _ in range(2))
    assert (first.digest, first.rows) == (again.digest, 2)
    assert [pair.id for pair in first.pairs()] == ["p1", "p3"]
    assert next(iter(first.pairs())) == store.pair("r-1", "p1")
    more = labelled_evalset(store, info, gold, anchors=2, seed=1)
    assert more.rows == 4
    with pytest.raises(InputError, match="none of the 1 labelled pairs"):
        labelled_evalset(store, info, labels_of(tmp_path, ["elsewhere"]))


def test_a_judging_that_is_stored_is_found_by_content(tmp_path: Path) -> None:
    """The same pairs under the same rubric text and judge are not judged twice; another judge is another judging."""
    store = Store(tmp_path / "home")
    path = evalset_of(tmp_path)
    judged(store, path)
    backend = ScriptedBackend(prefer_longer)
    found = stored(store, open_evalset(path), sample_rubric(), backend.id)
    assert found is not None and found.run_id == "r-1"
    other = ScriptedBackend(prefer_longer, name="other")
    assert stored(store, open_evalset(path), sample_rubric(), other.id) is None


def test_runs_of_labelled_pairs_are_not_taken_for_the_run_that_was_labelled(tmp_path: Path) -> None:
    """A later judging of the labelled pairs does not become the run that the labels are of."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path))
    gold = labels_of(tmp_path, ["p1", "p3"])
    first = run_with_labels(store, gold, None)
    assert first is not None
    labelled_evalset(store, first, gold)
    judged(store, next((store.home / "evalsets").iterdir()), ScriptedBackend(prefer_longer, name="other"), run_id="r-2")
    found = run_with_labels(store, gold, None)
    assert found is not None and found.run_id == "r-1"


def test_the_run_of_the_labels_names_goes_before_one_with_the_same_ids(tmp_path: Path) -> None:
    """A newer run of another candidate on the same prompts is not what the labels are about."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, candidate="new-1", baseline="old-1"))
    judged(store, evalset_of(tmp_path, candidate="new-2", baseline="old-1"), run_id="r-2")
    gold = labels_of(tmp_path, ["p1", "p3"], candidate="new-1", baseline="old-1")
    found = run_with_labels(store, gold, None)
    assert found is not None and found.run_id == "r-1"
    unnamed = run_with_labels(store, labels_of(tmp_path, ["p1"]), None)
    assert unnamed is not None and unnamed.run_id == "r-2"


def test_a_judging_of_some_pairs_keeps_the_names_of_their_run(tmp_path: Path) -> None:
    """Pairs of a run that are judged again are a part of it: its names, and its size so that the rate is withheld."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path))
    whole = store.run("r-1")
    labelled_evalset(store, whole, labels_of(tmp_path, ["p1", "p3"]))
    judged(store, next((store.home / "evalsets").iterdir()), ScriptedBackend(prefer_longer, name="other"), run_id="r-2")
    part = run_evidence(store, store.run("r-2"), part_of=whole)
    assert (part.run.part_of, len(part.run.rows)) == (6, 2)
    assert part.run.candidate == run_evidence(store, whole).run.candidate


def test_answers_are_told_apart_by_their_texts(tmp_path: Path) -> None:
    """Each pair carries a digest of both answers: equal for equal texts, other for other texts of the same length."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path, rows=3))
    path = evalset_of(tmp_path, rows=3)
    path.write_text(path.read_text(encoding="utf-8").replace("short", "shirt", 1), encoding="utf-8")
    judged(store, path, run_id="r-2")
    first, second = (run_evidence(store, store.run(name)).said for name in ("r-1", "r-2"))
    assert [a.texts == b.texts for a, b in zip(first, second, strict=True)] == [False, True, True]


def test_written_pairs_are_read_back_equal(tmp_path: Path) -> None:
    """An eval set written from pairs has the same pairs and the same digest when it is read again."""
    path = evalset_of(tmp_path, candidate="new-1")
    pairs = list(open_evalset(path).pairs())
    write_evalset(tmp_path / "copy.jsonl", pairs)
    copy = open_evalset(tmp_path / "copy.jsonl")
    assert list(copy.pairs()) == pairs
    assert copy.digest == open_evalset(path).digest


def test_texts_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs come in order of id whatever was asked for, once each, and no more are in memory than were wanted."""
    store = Store(tmp_path / "home")
    judged(store, evalset_of(tmp_path))
    monkeypatch.setattr("judge.store.runs._TEXTS", 2)
    decoded: list[str] = []
    monkeypatch.setattr("judge.journal.decode_pair", lambda body: decoded.append(body["id"]) or decode_pair(body))
    stream = store.pairs("r-1", ["p5", "p0", "p3", "elsewhere", "p1", "p3"])
    assert next(stream).id == "p0"
    assert decoded == ["p0"]
    assert [pair.id for pair in stream] == ["p1", "p3", "p5"]
    assert list(store.pairs("r-1", ())) == []


def test_traits_and_models_are_what_the_bodies_say(tmp_path: Path) -> None:
    """Tags with quotes, commas and brackets, the length of all documents, tool calls, latency: as the eval set had."""
    tags = ['say "so"', "a, b", "[c]", "\u00e9\\n"]
    rows: list[dict[str, object]] = [
        {"id": "p0", "prompt": "q", "tags": tags, "context": ["\u00e9t\u00e9", "four"],
         "candidate": {"text": "longer", "model": "new", "latency_ms": 12.5},
         "baseline": {"text": "b", "model": "old"}},
        {"id": "p1", "prompt": "r", "candidate": {"text": "a", "tool_calls": [{"name": "f", "arguments": {}}]},
         "baseline": {"text": "longer"}},
    ]  # fmt: skip
    path = tmp_path / "evals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = Store(tmp_path / "home")
    judged(store, path)
    assert store.traits("r-1").rows() == [("p0", tags, 7, False, 12.5, None), ("p1", [], 0, True, None, None)]
    assert store.models("r-1") == {("new", "old"), (None, None)}
    answers = store.answers("r-1")
    assert answers.select("pair_id", "candidate", "baseline").rows() == [("p0", "new", "old"), ("p1", None, None)]
    assert answers["texts"][0] == hashlib.md5(b"longer\x1fb").hexdigest()  # noqa: S324 - a name, no secret
