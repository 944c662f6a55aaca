"""Preference data from what there is, put together, measured, held against gold sets, written and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from calibration.confidence import Calibration, NotCalibrated
from calibration.gold import GoldSet
from judge.cli import _run, root
from judge.errors import InputError
from judge.labelling import Request, Subject, drawing
from judge.labels import DrawRecord, evalset_source, write_draw
from judge.register import Register
from judge.store import Store
from judge.types import Answer, Item, JudgeId, Pair
from rubrics.words import pinned
from tune.preferences import Preference, Source, read_preferences, write_preferences
from tune.quality import facets_of, quality
from tune.redaction import Redactor
from tune.sources import Left, from_actions, from_findings, from_labels, from_ratings
from tune.triangulation import triangulate

PAIRS = {
    name: Pair(name, Item(f"question {name}", category="billing"), Answer(f"new {name}"), Answer(f"old {name}"))
    for name in "abcd"
}


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def gold(*rows: tuple[str, str, str | None]) -> GoldSet:
    entries = [
        orjson.dumps({"pair_id": p, "annotator": who, "outcome": said, "rubric": "h@1"}).decode()
        for p, who, said in rows
    ]
    return GoldSet.from_lines(entries)


def split(found: Any) -> tuple[list[Preference], list[Left]]:
    both = list(found)
    return [row for row in both if isinstance(row, Preference)], [row for row in both if isinstance(row, Left)]


def test_labels_become_preferences_with_the_share_of_votes() -> None:
    """A majority decides, p is its share; a tie, a split and a label without texts are left out, by name."""
    labels = gold(
        ("a", "ada", "win"), ("a", "bob", "win"), ("a", "eve", "loss"), ("b", "ada", "loss"), ("c", "ada", "tie"),
        ("d", "ada", "win"), ("d", "bob", "loss"), ("z", "ada", "win"),
    )  # fmt: skip
    rows, left = split(from_labels(labels, PAIRS, origin={"labels": "l"}))
    assert [(row.chosen, row.rejected, row.p, row.close) for row in rows] == [
        ("new a", "old a", pytest.approx(2 / 3), True),
        ("old b", "new b", 1.0, False),
    ]
    assert rows[0].labeller == "ada, bob, eve"
    assert rows[0].rubric == "h@1"
    assert rows[0].metadata["category"] == "billing"
    assert "length" in rows[0].metadata["known_bias"]
    assert {(entry.name, entry.why) for entry in left} == {
        ("c", "a tie"), ("d", "annotators have no majority"), ("z", "no texts for this label"),
    }  # fmt: skip


def test_ratings_compare_a_rater_with_himself(tmp_path: Path) -> None:
    """A severe and a mild rater who order two answers alike agree; means across strangers are marked as such."""
    rows = [("q", "x", 2, "severe"), ("q", "y", 1, "severe"), ("q", "x", 5, "mild"), ("q", "y", 4, "mild"),
            ("r", "x", 5, "one"), ("r", "y", 1, "two"), ("s", "x", 3, "one"), ("s", "y", 3, "one"),
            ("t", "x", 1, "one")]  # fmt: skip
    path = lines(tmp_path / "r.jsonl", *({"prompt": p, "answer": a, "rating": n, "rater": w} for p, a, n, w in rows))
    found, left = split(from_ratings(path))
    assert [(row.prompt, row.chosen, row.p) for row in found] == [("q", "x", 1.0), ("r", "x", 1.0)]
    assert "across_raters" not in found[0].metadata
    assert found[1].metadata["across_raters"] is True
    assert sorted(entry.why for entry in left) == ["one rated answer only", "ratings differ by less than 1"]


def test_a_rater_who_orders_the_other_way_lowers_p(tmp_path: Path) -> None:
    """Two of three raters on one side give p = 2/3."""
    rows = [("x", 5, "a"), ("y", 1, "a"), ("x", 5, "b"), ("y", 1, "b"), ("x", 2, "c"), ("y", 3, "c")]
    path = lines(tmp_path / "r.jsonl", *({"prompt": "q", "answer": a, "rating": n, "rater": w} for a, n, w in rows))
    (row,), _left = split(from_ratings(path))
    assert row.p == pytest.approx(2 / 3)


def test_actions_say_something_only_with_a_better_answer_beside_them(tmp_path: Path) -> None:
    """Edits, accepted answers, and what ended asking or escalation; a bare click gives nothing and is counted."""
    trace = {"id": "t", "prompt": "q", "answer": {"text": "draft"}}
    actions = [
        {"kind": "edit", "text": "better", "by": "u1"},
        {"kind": "accept", "instead_of": ["other"]},
        {"kind": "reask"},
        {"kind": "escalate", "text": "a person's answer"},
        {"kind": "edit", "text": "draft"},
        {"kind": "wink"},
    ]
    path = lines(tmp_path / "t.jsonl", {**trace, "actions": actions}, trace)
    rows, left = split(from_actions(path, Redactor(), trust=0.8))
    assert [(row.chosen, row.rejected) for row in rows] == [
        ("better", "draft"), ("draft", "other"), ("a person's answer", "draft"),
    ]  # fmt: skip
    assert {row.p for row in rows} == {0.8}
    assert rows[0].labeller == "u1"
    assert [entry.why[:40] for entry in left] == [
        "reask: no better answer stands beside it", "'chosen' equals 'rejected': there is not",
        "an action of unknown kind 'wink'", "no action on an answer",
    ]  # fmt: skip


@pytest.mark.parametrize("said", [{"finish_reason": "length"}, {"answer": {"text": "draft", "finish": "length"}}])
def test_an_answer_that_a_limit_ended_stays_marked(tmp_path: Path, said: dict[str, object]) -> None:
    """Whichever side of an action it becomes, the trace's cut answer is not trained on as one that ended there."""
    actions = [{"kind": "edit", "text": "better"}, {"kind": "accept", "instead_of": ["other"]}]
    trace = {"id": "t", "prompt": "q", "answer": {"text": "draft"}, "actions": actions, **said}
    rows, _left = split(from_actions(lines(tmp_path / "t.jsonl", trace), Redactor()))
    assert [(row.rejected if "rejected" in row.cut else row.chosen, len(row.cut)) for row in rows] == [("draft", 1)] * 2


def test_what_users_did_is_redacted_before_it_is_kept(tmp_path: Path) -> None:
    """No address of a user reaches a training set through an action's texts or its author; ids stay."""
    trace = {
        "id": "t", "prompt": "write to bo@example.org", "answer": {"text": "to bo@example.org: hi"},
        "actions": [{"kind": "edit", "text": "Dear Bo, (bo@example.org)", "by": "ada@example.org"}],
    }  # fmt: skip
    redactor = Redactor()
    (row,), _left = split(from_actions(lines(tmp_path / "t.jsonl", trace), redactor))
    assert "example.org" not in str(row)
    assert (row.chosen, row.labeller, row.origin["trace"]) == ("Dear Bo, ([email])", "[email]", "t")
    assert redactor.counts["email"] == 4


def test_a_failed_check_decides_only_against_a_side_that_passed_it() -> None:
    """Passed against failed is a pair; both failed, one side checked, and crosswise failures are not."""
    finding = lambda check, pair, side, passed, **more: {
        "check": check,
        "pair_id": pair,
        "side": side,
        "passed": passed,
        **more,
    }
    findings = [
        finding("json@1", "a", "candidate", False, detail="not JSON"),
        finding("json@1", "a", "baseline", True),
        finding("json@1", "b", "candidate", False),
        finding("json@1", "b", "baseline", False),
        finding("json@1", "c", "candidate", False),
        finding("json@1", "d", "candidate", False),
        finding("json@1", "d", "baseline", True),
        finding("pii@1", "d", "candidate", True),
        finding("pii@1", "d", "baseline", False),
        finding("tone@1", "a", "baseline", False, severity="warn"),
    ]
    rows, left = split(from_findings(findings, PAIRS, source="f"))
    assert [(row.chosen, row.why, row.source) for row in rows] == [("old a", "json@1: not JSON", Source.GATE)]
    assert {(entry.name, entry.why) for entry in left} == {
        ("b", "both sides fail"), ("c", "one side only was checked"), ("d", "each side fails another check"),
    }  # fmt: skip


def test_a_pass_of_judge_check_is_a_source(tmp_path: Path, home: Path) -> None:
    """`--checks k-...`: the answer that failed a blocking check is rejected; pass and run are the origin."""
    judged(tmp_path, home)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "name: own\nversion: 1\nsummary: Says yes.\nchecks:\n  - check: contains\n    id: agrees\n"
        "    severity: block\n    with: {texts: ['yes']}\n"
    )
    run_id = Store(home).run().run_id
    done = CliRunner().invoke(root, ["check", run_id, "--suite", str(suite), "--home", str(home), "--json"])
    check_id = orjson.loads(done.stdout)["check_id"]
    out = tmp_path / "out.jsonl"
    made = pairs(home, "--checks", check_id, "--unchecked", "-o", str(out))
    assert made.exit_code == 0, made.output
    rows = read_preferences(out)
    assert {(row.chosen_text[:3], row.rejected_text[:2], row.source) for row in rows} == {("yes", "no", Source.GATE)}
    assert len(rows) == 10
    assert rows[0].origin["findings"] == check_id
    assert Register(home).entries("dataset")[0].body["runs"] == [run_id]
    assert f"pass {check_id} of run {run_id}: 10 pairs" in made.stderr
    half = {"check": "json@1", "pair_id": "a", "severity": "block"}
    both = [{**half, "side": "candidate", "passed": False}, {**half, "side": "baseline", "passed": None}]
    assert [one.why for one in split(from_findings(both, PAIRS, source="k-1", of_pass="r-1"))[1]] == [
        "one side only was checked"
    ]
    of_file = CliRunner().invoke(
        root, ["check", str(tmp_path / "train-prompts.jsonl"), "--suite", str(suite), "--home", str(home), "--json"]
    )
    other = orjson.loads(of_file.stdout)["check_id"]
    refused = pairs(home, "--checks", other, "--unchecked", "-o", str(out))
    assert "this pass checked a file" in str(refused.exception)
    assert "k-nothing" in str(pairs(home, "--checks", "k-nothing", "--unchecked", "-o", str(out)).exception)


def row(name: str, chosen: str, rejected: str, source: Source = Source.HUMAN, **more: Any) -> Preference:
    return Preference(name, f"prompt {name[0]}", chosen, rejected, source=source, **more)


def test_sources_on_one_comparison_are_put_together_and_their_disagreement_is_shown() -> None:
    """A person outranks a judge; two others average; what cancels out is left out; agreement has an interval."""
    rows = [
        row("a1", "x", "y"), row("a2", "y", "x", Source.JUDGE, p=0.9),
        row("b1", "x", "y", Source.JUDGE, p=0.9), row("b2", "y", "x", Source.ACTION, p=0.6),
        row("c1", "x", "y", Source.JUDGE, p=0.7), row("c2", "y", "x", Source.ACTION, p=0.7),
        row("d1", "x", "y"), row("d2", "x", "y", Source.JUDGE, p=0.8),
        row("e1", "x", "y"),
    ]  # fmt: skip
    found = triangulate(rows)
    kept = {entry.id[0]: entry for entry in found.rows}
    assert (kept["a"].chosen, kept["a"].p, kept["a"].close) == ("x", 1.0, True)
    assert kept["a"].metadata["sources_disagree"] is True
    assert (kept["b"].chosen, kept["b"].p) == ("x", pytest.approx((0.9 + 0.4) / 2))
    assert found.undecided == ("c1",)
    assert kept["d"].metadata["sources"] == ["human", "judge"]
    assert found.merged == 4
    between = {entry.sources: entry for entry in found.between}
    assert between["human", "judge"].same.value == 0.5
    assert between["human", "judge"].apart == ("a1",)
    assert between["action", "judge"].same.value == 0.0
    assert found.labellers is None


def test_people_who_compare_the_same_two_are_held_against_each_other() -> None:
    """Votes of several annotators and rows of several people count pairwise."""
    rows = [
        row("a1", "x", "y", metadata={"votes": {"win": 2, "loss": 1}}),
        row("b1", "x", "y", labeller="ada"),
        row("b2", "y", "x", labeller="bob"),
    ]
    found = triangulate(rows)
    assert found.labellers is not None
    assert (found.labellers.value, found.labellers.n) == (pytest.approx(1 / 4), 4)


LONG = "A careful answer about the invoice and the refund that you asked for, with every step. " * 3


def test_the_report_flags_what_gives_a_rejected_answer_away() -> None:
    """Each kind of easy pair is found by its own test, and only there."""
    asked = "please explain the invoice and the refund"
    answer = "Your invoice shows the refund; we explain each line below in order."
    rejected = {
        "rejected is empty": "",
        "one side is more than four times as long": "Yes, your invoice.",
        "rejected repeats itself": "refund " * 60,
        "rejected shares no word with the prompt": "Bananas are yellow and grow quickly in warm places, as known.",
        "rejected is in another script": "Счёт показывает возврат invoice и мы объясняем каждую строку ниже.",
        "rejected refuses, chosen does not": "I'm sorry, I cannot help with this invoice question or refund at all.",
        "": "Your invoice shows a refund, maybe; lines are explained by someone else later.",
    }
    for why, text in rejected.items():
        chosen = LONG if "four" in why or "itself" in why else answer
        found = quality([Preference("a", asked, chosen, text)])
        assert [entry.why for entry in found.easy] == ([why] if why else []), why


def test_length_and_style_that_tell_the_sides_apart_are_flagged() -> None:
    """Where chosen is always longer the report says so with an interval; an even set has no flag."""
    uneven = [Preference(f"r{n}", f"q{n}", "an answer " * (n + 3), "short") for n in range(30)]
    found = quality(uneven)
    assert found.longer is not None and found.longer.value == 1.0 and found.longer.low < 1.0
    assert found.length is not None and found.length.low > 1.0
    assert any("length alone tells them apart" in flag for flag in found.flags)
    even = [Preference(f"r{n}", f"q{n}", "ab" * (1 + n % 2), "cd" * (2 - n % 2)) for n in range(30)]
    assert quality(even).flags == ()


def test_coverage_is_held_against_the_real_mix() -> None:
    """A segment that is met in use and absent in training is named; what nobody records is unknown, not zero."""
    rows = [Preference(f"r{n}", f"q{n}", "x", "y", metadata={"intent": "billing", "risk": "low"}) for n in range(40)]
    use = [{"prompt": "p", "category": "refund" if n % 2 else "billing", "tools": []} for n in range(100)]
    found = quality(rows, use=use)
    by = {entry.facet: entry for entry in found.coverage}
    assert by["intent"].distance == pytest.approx(0.5)
    assert [segment.name for segment in by["intent"].segments if segment.under] == ["refund"]
    assert by["difficulty"].missing == "no training row says it"
    assert by["risk"].missing == "no trace says it"
    assert by["tools"].missing == "no training row says it"
    assert by["context_length"].distance == 0.0
    assert found.flags == ("intent: too few rows of refund",)
    assert quality(rows).coverage[0].missing.startswith("no traces to hold it against")


def test_a_mix_that_was_sampled_is_weighted_back() -> None:
    """Traces drawn with chance 1 and 0.1 stand for themselves and for ten."""
    rows = [Preference(f"r{n}", f"q{n}", "x", "y", metadata={"intent": "a"}) for n in range(10)]
    drawn = lambda intent, chance: {"prompt": "p", "metadata": {"intent": intent, "sampled": {"chance": chance}}}
    use = [drawn("a", 1.0)] * 50 + [drawn("b", 0.1)] * 5
    intent = quality(rows, use=use).coverage[0]
    assert intent.distance == pytest.approx(0.5)


def test_facets_are_read_where_they_stand() -> None:
    """Names of tools offered or called, context counted with the prompt, an empty list of tools is none."""
    tool = {"type": "function", "function": {"name": "search"}}
    assert facets_of({"tools": [tool, {"name": "calc"}]}, "x")["tools"] == "calc, search"
    assert facets_of({"tools": []}, "x")["tools"] == "none"
    assert facets_of({"answer": {"tool_calls": [{"name": "f"}]}}, "x")["tools"] == "f"
    assert facets_of({}, "x")["tools"] is None
    assert facets_of({"context": ["y" * 5000]}, "x")["context_length"] == "4k-16k"
    assert facets_of({"metadata": {"context_chars": 70_000}}, "x")["context_length"] == "64k and more"


def test_a_refresh_beyond_its_limit_is_major() -> None:
    """New rows over all rows, by what they say and not by id; at the limit it is not yet major."""
    old = [Preference(f"r{n}", f"q{n}", "x", "y") for n in range(10)]
    renamed = [Preference(f"s{n}", f"q{n}", "x", "y") for n in range(8)]
    new = [*renamed, Preference("n1", "new 1", "x", "y"), Preference("n2", "new 2", "x", "y")]
    found = quality(new, last=old).refresh
    assert found is not None
    assert (found.new, found.gone, found.same, found.share, found.major) == (2, 2, 8, 0.2, False)
    more = quality([*new, Preference("n3", "new 3", "x", "y")], last=old)
    assert more.refresh is not None and more.refresh.major
    assert any("a major change" in flag for flag in more.flags)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def pairs(home: Path, *words: str) -> Result:
    return CliRunner().invoke(root, ["tune", "pairs", *words, "--home", str(home)])


def data(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = [
        Preference(f"r{n}", f"How do I do thing number {n} in the app today?", f"yes {n}", f"no {n}") for n in range(20)
    ]
    write_preferences(path, rows)
    return path


def test_a_gold_item_in_the_training_data_refuses_the_set(tmp_path: Path, home: Path) -> None:
    """Exit by InputError with the ids of both; nothing is written or recorded; the rows can be taken out on request."""
    out = tmp_path / "out.jsonl"
    evals = lines(
        tmp_path / "evals.jsonl",
        {"id": "gold-7", "prompt": "how do I do thing number 7 in the app TODAY", "candidate": "x", "baseline": "y"},
        {"id": "gold-x", "prompt": "Something else altogether, please.", "candidate": "x", "baseline": "y"},
    )
    done = pairs(home, str(data(tmp_path)), "--against", str(evals), "-o", str(out))
    assert isinstance(done.exception, InputError)
    assert "1 of 20 training rows repeat" in str(done.exception)
    assert f"row r7 is exact (1.00) to gold-7 of {evals}" in str(done.exception)
    assert not out.exists()
    assert Register(home).entries() == []
    done = pairs(home, str(data(tmp_path)), "--against", str(evals), "-o", str(out), "--drop-contaminated")
    assert done.exit_code == 0, done.output
    assert "r7" not in {entry.id for entry in read_preferences(out)}
    card = orjson.loads((tmp_path / "out.card.json").read_bytes())
    assert [clash["reference"] for clash in card["clashes"]] == ["gold-7"]
    (entry,) = Register(home).entries("dataset")
    assert entry.subject == card["digest"]
    assert entry.body["against"] == {str(evals): 2}


def test_what_earlier_rounds_froze_is_always_held_against(tmp_path: Path, home: Path) -> None:
    """A frozen prompt of the home folder refuses the set although nobody named it."""
    (home / "frozen").mkdir(parents=True)
    lines(home / "frozen" / "hard.jsonl", {"id": "frozen-1", "prompt": "How do I do thing number 3 in the app today?"})
    done = pairs(home, str(data(tmp_path)), "--unchecked", "-o", str(tmp_path / "out.jsonl"))
    assert "row r3 is exact (1.00) to frozen-1" in str(done.exception)


def test_data_that_is_held_against_nothing_must_say_so(tmp_path: Path, home: Path) -> None:
    """Without --against the command is refused; --unchecked is on record; a set without prompts is no check."""
    words = (str(data(tmp_path)), "-o", str(tmp_path / "out.jsonl"))
    done = pairs(home, *words)
    assert done.exit_code == 2
    assert "--against is needed" in done.output
    assert pairs(home, *words, "--unchecked").exit_code == 0
    assert Register(home).entries("dataset")[0].body["checked"] is False
    empty = lines(tmp_path / "e.jsonl", {"id": "1", "text": "no prompt"})
    assert "there is no prompt in it" in str(pairs(home, *words, "--against", str(empty)).exception)


def test_who_compared_is_said_and_never_supposed(tmp_path: Path, home: Path) -> None:
    """Rows of another tool that do not name their source are refused until --files-are does; others keep theirs."""
    path = lines(
        tmp_path / "in.jsonl",
        {"id": "a", "prompt": "q", "chosen": "x", "rejected": "y"},
        {"id": "b", "prompt": "r", "chosen": "x", "rejected": "y", "source": "human"},
    )
    words = (str(path), "--unchecked", "-o", str(tmp_path / "o.jsonl"))
    assert "1 row (the first on line 1) do not say who compared" in str(pairs(home, *words).exception)
    assert pairs(home, *words, "--files-are", "judge").exit_code == 0
    found = {entry.id: entry for entry in read_preferences(tmp_path / "o.jsonl")}
    assert (found["a"].source, found["b"].source) == (Source.JUDGE, Source.HUMAN)
    assert "self-preference" in found["a"].metadata["known_bias"]


def test_labels_without_texts_and_without_a_draw_are_refused(tmp_path: Path, home: Path) -> None:
    """A bare label file can neither be trained on nor held against: the message says which file is missing."""
    labels = lines(tmp_path / "labels.jsonl", {"pair_id": "a", "annotator": "ada", "outcome": "win"})
    done = pairs(home, "--human", str(labels), "--unchecked", "-o", str(tmp_path / "o.jsonl"))
    assert "there is no labels.draw.jsonl" in str(done.exception)
    done = pairs(home, str(data(tmp_path)), "--against", str(labels), "-o", str(tmp_path / "o.jsonl"))
    assert "give the eval set or the run that they label" in str(done.exception)


def judged(tmp_path: Path, home: Path) -> str:
    """A finished run of a scripted judge over ten pairs; returns its id."""
    evals = lines(
        tmp_path / "train-prompts.jsonl",
        *(
            {"id": f"p{n}", "prompt": f"train prompt {n}", "candidate": f"yes, like this {n}", "baseline": f"no {n}"}
            for n in range(10)
        ),
    )
    done = CliRunner().invoke(root, ["run", str(evals), "--judge", "scripted:longer", "--home", str(home)])
    assert done.exit_code == 0, done.output
    return Store(home).run().run_id


def calibration_of(home: Path, slope: float = 0.8) -> Calibration:
    """A map that makes this run's judge less sure: p = sigmoid(slope * logit(preference))."""
    head = Store(home).run().header
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    judge = str(JudgeId(**head["judge"]))
    return Calibration(rubric, judge, "g" * 64, "temperature", {"slope": (slope,)}, 0.0, 50, 50)


def test_a_judge_s_verdicts_need_a_calibration_for_exactly_this_judge(tmp_path: Path, home: Path) -> None:
    """Without one: refused. With another judge's: refused. With it: p is the calibrated probability, and said so."""
    run_id = judged(tmp_path, home)
    out = tmp_path / "out.jsonl"
    words = ("--judge", run_id, "--unchecked", "-o", str(out))
    done = pairs(home, *words)
    assert isinstance(done.exception, NotCalibrated)
    assert "no calibration for helpfulness@1" in str(done.exception)
    assert not out.exists()
    fitted = calibration_of(home)
    path = tmp_path / "calibration.json"
    other = Calibration(**{**{name: getattr(fitted, name) for name in fitted.__slots__}, "judge": "another"})
    path.write_text(other.to_json())
    assert "fitted for judge 'another'" in str(pairs(home, *words, "-c", str(path)).exception)
    path.write_text(fitted.to_json())
    done = pairs(home, *words, "-c", str(path))
    assert done.exit_code == 0, done.output
    rows = read_preferences(out)
    assert len(rows) == 10
    for entry in rows:
        assert entry.source is Source.JUDGE
        assert entry.p == pytest.approx(fitted.apply(entry.metadata["raw"]))
        assert entry.p < entry.metadata["raw"]
        assert entry.labeller == fitted.judge
        assert entry.origin["run"] == run_id
    body = Register(home).entries("dataset")[0].body
    assert (body["labellers"], body["runs"]) == ([fitted.judge], [run_id])


def test_an_uncalibrated_judge_is_taken_loudly_or_not_at_all(tmp_path: Path, home: Path) -> None:
    """--allow-uncalibrated warns on stderr and marks every row."""
    run_id = judged(tmp_path, home)
    out = tmp_path / "out.jsonl"
    done = pairs(home, "--judge", run_id, "--allow-uncalibrated", "--unchecked", "-o", str(out))
    assert "NOT calibrated" in done.stderr
    assert all(entry.metadata["uncalibrated"] for entry in read_preferences(out))


def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """An eval set and a label file of judge label on all its pairs, with its draw; returns both."""
    evals = lines(
        tmp_path / "to-label.jsonl",
        *(
            {
                "id": f"l{n}",
                "prompt": f"Question number {n} to be labelled",
                "candidate": f"yes {n}",
                "baseline": f"no {n}",
            }
            for n in range(6)
        ),
    )
    source = evalset_source(evals, {})
    request = Request(how="random", n=6)
    subject = Subject("new", "old", "helpfulness@1", "d", source.evalset)
    labels = tmp_path / "labels.jsonl"
    draw = DrawRecord(drawing(source.frame(request), request), subject, "text", source.origin)
    write_draw(labels, draw, at="2026-11-01T00:00:00+00:00")
    said = ("win", "win", "loss", "tie", "win", "loss")
    lines(labels, *({"pair_id": f"l{n}", "annotator": "ada", "outcome": said[n]} for n in range(6)))
    return evals, labels


def test_labels_find_their_texts_by_their_draw_and_refuse_what_they_hold(tmp_path: Path, home: Path) -> None:
    """A label file gives pairs through its draw; as --against it refuses a set that holds one of its prompts."""
    evals, labels = labelled(tmp_path)
    out = tmp_path / "out.jsonl"
    done = pairs(home, "--human", str(labels), "--unchecked", "-o", str(out))
    assert done.exit_code == 0, done.output
    rows = read_preferences(out)
    assert sorted((row.origin["pair"], row.chosen) for row in rows) == [
        ("l0", "yes 0"), ("l1", "yes 1"), ("l2", "no 2"), ("l4", "yes 4"), ("l5", "no 5"),
    ]  # fmt: skip
    assert "1 left out: a tie" in done.stderr
    done = pairs(home, str(out), "--against", str(labels), "-o", str(tmp_path / "again.jsonl"))
    assert f"is exact (1.00) to l0 of {labels}" in str(done.exception)
    evals.unlink()
    assert isinstance(pairs(home, "--human", str(labels), "--unchecked", "-o", str(out)).exception, InputError)


def test_the_report_says_what_was_found(tmp_path: Path, home: Path) -> None:
    """Counts, coverage, length and flags stand on stderr, the path on stdout; --strict exits 1 for a flag."""
    mix = lines(tmp_path / "mix.jsonl", *({"prompt": "p", "category": "refund"} for _ in range(20)))
    run_id = judged(tmp_path, home)
    words = ("--judge", run_id, "--allow-uncalibrated", "--unchecked")
    words += ("--mix", str(mix), "-o", str(tmp_path / "o.jsonl"))
    done = pairs(home, *words)
    assert done.stdout == f"{tmp_path / 'o.jsonl'}\n"
    expected = (
        "10 pairs on 10 prompts (10 judge)",
        "context_length: distance 0.00 from the real mix",
        "intent: unknown (no training row says it)",
        "contamination: NOT CHECKED",
        "flag: chosen is the longer one",
    )
    for text in expected:
        assert text in done.stderr
    assert _run(["tune", "pairs", *words, "--strict", "--home", str(home)]) == 1
    card = orjson.loads(pairs(home, *words, "--json").stdout)
    assert card["rows"] == 10
    assert card["bias"]["judge"]


def test_the_same_data_from_twice_the_same_sources_has_the_same_digest(tmp_path: Path, home: Path) -> None:
    """Building again gives the same set, and a data set can be held against itself as the last one."""
    path, out = data(tmp_path), tmp_path / "out.jsonl"
    first = orjson.loads(pairs(home, str(path), "--unchecked", "--json", "-o", str(out)).stdout)
    again = orjson.loads(pairs(home, str(path), "--unchecked", "--last", str(out), "--json", "-o", str(out)).stdout)
    assert again["digest"] == first["digest"]
    assert again["quality"]["refresh"]["same"] == 20
    assert again["extra_validation"] is False


@pytest.mark.parametrize("words", [("--weight", "judge=0"), ("--weight", "x=1"), ("--weight", "judge"), ()])
def test_options_that_make_no_sense_are_refused(words: tuple[str, ...], tmp_path: Path, home: Path) -> None:
    """A weight of nothing, an unknown source, no source at all: exit 2."""
    assert pairs(home, *words, "--unchecked", "-o", str(tmp_path / "o.jsonl")).exit_code == 2


def test_a_recipe_carries_the_options_and_the_command_line_stands_before_it(tmp_path: Path, home: Path) -> None:
    """What a recipe says is what the same options say; given ones win; a misspelt key and a wrong shape are refused."""
    source = lines(tmp_path / "in.jsonl", {"id": "a", "prompt": "what?", "chosen": "x", "rejected": "y"})
    evals = lines(tmp_path / "evals.jsonl", {"id": "e", "prompt": "another?"})
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "o.jsonl"
    body = f"files: [{source}]\nfiles-are: human\nagainst: [{evals}]\nweight: [human=0.5]\nmajor: 0.4\n"
    recipe.write_text(body, encoding="utf-8")
    done = pairs(home, "--recipe", str(recipe), "-o", str(out))
    assert done.exit_code == 0, done.output
    plain = tmp_path / "plain.jsonl"
    given = ("--files-are", "human", "--against", str(evals), "--weight", "human=0.5", "--major", "0.4")
    assert pairs(home, str(source), *given, "-o", str(plain)).exit_code == 0
    assert out.read_bytes() == plain.read_bytes()
    other = tmp_path / "other.jsonl"
    assert pairs(home, "--recipe", str(recipe), "--files-are", "judge", "-o", str(other)).exit_code == 0
    assert [[row.source for row in read_preferences(path)] for path in (out, other)] == [[Source.HUMAN], [Source.JUDGE]]
    for text, says in (
        (body.replace("against", "agianst"), "agianst: unknown key; did you mean `against`?"),
        (body.replace(f"[{evals}]", str(evals)), "against: give a list"),
        (body.replace("0.4", "[0.4]"), "major: give one value, no list"),
        (body + "json: true\n", "json: unknown key"),
    ):
        recipe.write_text(text, encoding="utf-8")
        refused = pairs(home, "--recipe", str(recipe), "-o", str(tmp_path / "never.jsonl"))
        assert says in f"{refused.exception} {refused.output}", text
    assert not (tmp_path / "never.jsonl").exists()
