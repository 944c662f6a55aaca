"""judge ground and its calibration: eval sets, runs, labels, every message, and the figures on the gold set."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.confidence import NotCalibrated
from calibration.discrimination import auc
from judge import cli
from judge.backends.scripted import open_scripted
from judge.errors import InputError
from judge.formats import open_evalset
from judge.grounding import Coefficients, shipped
from judge.grounding.calibrating import LabelledClaim, Table, calibrate, read_labels, table
from judge.grounding.coefficients import FEATURES
from judge.grounding.report import ground_pairs, report
from judge.runs import RunPlan, start_run
from judge.store import Store
from judge.types import Answer, Item, Pair
from rubrics import load

EQUAL = Coefficients("equal", 0.0, {name: -1.0 if name == "stitched" else 1.0 for name in FEATURES})
NOUNS = ["harbour", "engine", "garden", "teacher", "window", "planet", "bottle", "forest", "market", "doctor", "river"]
VERBS = ["painted", "carried", "opened", "closed", "repaired", "followed", "watched", "measured", "crossed"]


def sentence(rng: random.Random) -> str:
    a, b, c = rng.sample(NOUNS, 3)
    return f"The {a} beside the {b} {rng.choice(VERBS)} the old {c} in {rng.randint(1900, 1999)}."


def claims(documents: int, *, seed: int = 0, noise: float = 0.1) -> list[LabelledClaim]:
    """Two claims a document: one copied, one made up; a share of the labels is wrong."""
    rng = random.Random(seed)
    rows = []
    for number in range(documents):
        context = (" ".join(sentence(rng) for _ in range(6)),)
        copied = rng.choice(context[0].split(". ")) + "."
        for claim, label in ((copied, True), (sentence(rng), False)):
            wrong = rng.random() < noise
            rows.append(LabelledClaim(context, claim, label != wrong, f"d{number}"))
    return rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def evalset(path: Path, count: int = 24) -> Path:
    """Pairs whose candidate gets a year wrong two times in three, in two categories."""
    rows = []
    for k in range(count):
        year = 1932 + k % 3
        rows.append(
            {
                "id": f"p{k:02}",
                "prompt": f"When did bridge {k} open?",
                "category": "ab"[k % 2],
                "context": ["The bridge opened in 1932.", "It is 503 metres long."],
                "candidate": f"The bridge opened in {year}.",
                "baseline": "The bridge opened in 1932.",
            }
        )
    return written(path, rows)


def judge(*args: str) -> int:
    return cli._run(["ground", *args])


def test_the_report_is_paired_and_says_who_is_less_grounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measures with intervals, a verdict, segments, what to read first, and notes, within 80 columns."""
    assert judge(str(evalset(tmp_path / "e.jsonl"))) == 0
    out = capsys.readouterr().out
    assert "24 of 24 pairs judged on both sides" in out
    assert "The candidate is less grounded: +66.7 pp" in out
    assert "  a                          12     +66.7 pp" in out
    assert "candidate: date 16" in out
    assert "the documents have '1932'" in out
    assert "calibrate" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_and_markdown_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object with measures, segments and findings with spans; Markdown with the same figures."""
    path = str(evalset(tmp_path / "e.jsonl"))
    assert judge(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    measures = {measure["name"]: measure for measure in found["measures"]}
    assert set(measures) == {"grounding.unsupported_share", "grounding.contradictions", "grounding.claims"}
    gap = measures["grounding.unsupported_share"]["difference"]
    assert gap["value"] == pytest.approx(2 / 3)
    assert 0 < gap["low"] < gap["value"] < gap["high"] <= 1
    assert gap["clusters"] == 24
    assert len(found["findings"]) == 32
    assert found["findings"][0]["spans"][0]["start"] == 0
    assert found["not_judged"] == {"candidate": {}, "baseline": {}}
    assert judge(path, "--md") == 0
    assert "| unsupported claims | 66.7%" in capsys.readouterr().out


def test_answers_without_documents_are_counted_and_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pair without a context is left out of every number and said; a set without any is refused with the fix."""
    path = evalset(tmp_path / "e.jsonl", 6)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:4]:
        del row["context"]
    written(path, rows)
    assert judge(str(path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pairs"], found["judged"]) == (6, 2)
    assert found["not_judged"]["candidate"] == {"no context": 4}
    assert sum(finding["passed"] is None for finding in found["findings"]) == 16
    for row in rows:
        row.pop("context", None)
    assert judge(str(written(path, rows))) == 2
    message = capsys.readouterr().err
    assert "not one of its 6 pairs has a context" in message
    assert "--map context=COLUMN" in message


def test_what_cannot_be_judged_at_all_ends_in_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Documents in another language: no number, no pass, exit code 3."""
    row = {
        "prompt": "p",
        "candidate": "It is long.",
        "baseline": "x",
        "context": "Die Brücke ist lang und nicht sehr alt.",
    }
    assert judge(str(written(tmp_path / "e.jsonl", [{"id": "1", **row}]))) == 3
    captured = capsys.readouterr()
    assert "the context is not in English" in captured.out
    assert "that is not a pass" in captured.out
    assert "not one pair could be judged" in captured.err


def test_equal_answers_differ_by_nothing(tmp_path: Path) -> None:
    """The same answer on both sides has a difference of exactly 0, with a width."""
    pairs = [
        Pair(
            f"p{k}", Item(f"q{k}", context=("The bridge opened in 1932.",)), Answer("It opened."), Answer("It opened.")
        )
        for k in range(5)
    ]
    found = report(ground_pairs(pairs)).measure("unsupported_share")
    assert found.difference is not None
    assert (found.difference.value, found.difference.low < 0 < found.difference.high) == (0.0, True)


def test_pairs_of_one_prompt_are_one_observation() -> None:
    """Ten copies of a prompt do not narrow the interval."""

    def pairs(copies: int) -> list[Pair]:
        return [
            Pair(
                f"p{k}-{n}",
                Item(f"q{k}", context=("The bridge opened in 1932 in town.",)),
                Answer(f"The bridge opened in 193{k % 4}."),
                Answer("The bridge opened in 1932."),
            )
            for k in range(8)
            for n in range(copies)
        ]

    once, often = (report(ground_pairs(pairs(n))).measure("unsupported_share").difference for n in (1, 10))
    assert once is not None and often is not None
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert (often.n, often.clusters) == (80, 8)


def test_no_pairs_give_no_number() -> None:
    """An empty set is no zero."""
    measure = report([]).measure("unsupported_share")
    assert measure.difference is None
    assert measure.missing


def test_a_stored_run_is_grounded_as_it_was_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """RUN reads the texts from the store, the newest run by default; --judge adds a run under groundedness@1."""
    home, path = tmp_path / "home", evalset(tmp_path / "e.jsonl")
    backend = open_scripted("longer")
    plan = RunPlan(
        run_id="r-00000a", created_at="2026-01-01T00:00:00+00:00", evalset=open_evalset(path), options={},
        rubric=load("helpfulness"), judge_spec="scripted:longer",
    )  # fmt: skip
    asyncio.run(start_run(plan, backend, Store(home)))
    assert judge("--home", str(home), "--json") == 0
    from_run = json.loads(capsys.readouterr().out)
    assert judge(str(path), "--json") == 0
    from_file = json.loads(capsys.readouterr().out)
    assert from_run["of"] == "run r-00000a"
    assert from_run["measures"] == from_file["measures"]
    assert judge("r-00000a", "--home", str(home), "--judge", "scripted:longer") == 0
    assert "groundedness@1" in capsys.readouterr().out
    assert Store(home).run("latest").rubric == "groundedness@1"
    assert judge("r-ffffff", "--home", str(home)) == 2
    assert "not a run here" in capsys.readouterr().err


def test_claims_are_written_to_be_labelled_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--claims writes one claim a line with its context; labelled, --calibrate takes the file."""
    out = tmp_path / "claims.jsonl"
    assert judge(str(evalset(tmp_path / "e.jsonl", 4)), "--claims", str(out)) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8
    assert rows[0]["claim"] == "The bridge opened in 1932."
    assert rows[0]["label"] is None
    assert judge("--calibrate", str(out)) == 2
    assert "no claim with a label" in capsys.readouterr().err
    rows[0]["label"], rows[1]["label"] = "supported", "unsupported"
    labelled = read_labels(written(out, rows))
    assert [(row.claim, row.supported) for row in labelled] == [(rows[0]["claim"], True), (rows[1]["claim"], False)]
    assert labelled[0].context == ("The bridge opened in 1932.", "It is 503 metres long.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claims.jsonl", "e.jsonl"]


def test_calibration_on_labels_is_held_out_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """120 labelled documents: all weights fitted, figures out of fold, saved with provenance, used with -c."""
    rows = [
        {"context": list(row.context), "claim": row.claim, "label": row.supported, "document": row.document}
        for row in claims(120)
    ]
    labels, saved = written(tmp_path / "l.jsonl", rows), tmp_path / "mine.json"
    assert judge("--calibrate", str(labels), "--save", str(saved)) == 0
    out = capsys.readouterr().out
    assert "240 claims about 120 documents" in out
    assert "chance alone reaches" in out
    found = Coefficients.read(saved)
    assert found.name == "mine"
    assert found.fitted_on["sha256"] == sha256(labels.read_bytes()).hexdigest()
    assert found.quality["auc"]["low"] > 0.8
    assert judge(str(evalset(tmp_path / "e.jsonl", 4)), "-c", str(saved)) == 0
    assert "weighed by mine" in capsys.readouterr().out
    assert judge("--calibrate", str(labels), "--json") == 0
    assert json.loads(capsys.readouterr().out)["documents"] == 120


def test_figures_of_a_calibration_are_out_of_fold() -> None:
    """On labels drawn by lot no way to weigh the evidence looks skilled, however many are tried."""
    rng = random.Random(7)
    rows = [LabelledClaim(row.context, row.claim, rng.random() < 0.5, row.document) for row in claims(150)]
    found = calibrate(table(rows), name="x", source={}, start=EQUAL)
    assert found.auc.low < 0.5
    assert any("not shown to tell" in note for note in found.notes)


def test_few_documents_only_correct_the_probabilities() -> None:
    """Below 100 documents the weights keep their proportions, and this is said."""
    found = calibrate(table(claims(40)), name="x", source={}, start=EQUAL)
    assert set(found.held_out) == {"as it is", "corrected"}
    weights = found.coefficients.weights
    assert weights["phrases"] == pytest.approx(-weights["stitched"])
    assert any("100" in note for note in found.notes)


def test_no_weight_goes_against_its_sense() -> None:
    """Where chance makes coverage count against a claim, it is left out instead."""
    rng = np.random.default_rng(0)
    x = rng.random((400, 4))
    y = (rng.random(400) < 1 / (1 + np.exp(-(4 * x[:, 0] - 2 - 2 * x[:, 2])))).astype(float)
    made = Table(x, y, tuple(f"d{k}" for k in range(400)), np.ones(400), np.zeros(400, dtype=bool), {})
    found = calibrate(made, name="x", source={}, start=EQUAL, only="fitted anew")
    assert found.coefficients.weights["coverage"] == 0.0
    assert found.coefficients.weights["phrases"] > 2
    assert found.coefficients.weights["stitched"] <= 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (claims(29), "labels of 29 documents"),
        ([row for row in claims(40, noise=0) if row.supported], "only 0 documents"),
    ],
)
def test_too_few_labels_are_refused(rows: list[LabelledClaim], message: str) -> None:
    """Fewer than 30 documents, or ten with either label, calibrate nothing."""
    with pytest.raises(NotCalibrated, match=message):
        calibrate(table(rows), name="x", source={})


def test_claims_that_cannot_be_read_are_left_out_and_counted() -> None:
    """Other languages and empty texts do not become features."""
    odd = [
        LabelledClaim(("The bridge is long.",), "...", True, "a"),
        LabelledClaim(("...",), "The bridge.", True, "b"),
        LabelledClaim(("Die Brücke ist lang und nicht sehr alt.",), "The bridge.", True, "c"),
        LabelledClaim(("The bridge is long.",), "Die Brücke ist lang und nicht sehr alt.", True, "d"),
    ]
    found = table([*odd, *claims(1)])
    assert len(found.outcome) == 2
    assert sum(found.left_out.values()) == 4
    assert len(found.left_out) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "l.jsonl:1: not JSON"),
        ("[]", "l.jsonl:1: not an object"),
        ('{"label": "supported", "claim": "x"}', "a label but no 'context'"),
        ('{"label": "maybe", "claim": "x", "context": "y"}', "label 'maybe'"),
        ('{"label": "yes", "claim": 3, "context": "y"}', "'claim' is int"),
        ('{"label": "yes", "claim": "x", "context": [1]}', "neither a text nor a list"),
        ('{"claim": "x", "context": "y"}', "no claim with a label"),
    ],
)
def test_labels_that_cannot_be_read_are_named(tmp_path: Path, line: str, message: str) -> None:
    """File, line and field of each fault."""
    path = tmp_path / "l.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"l\.jsonl") as caught:
        read_labels(path)
    assert message in str(caught.value)


def test_labels_under_other_names(tmp_path: Path) -> None:
    """--map names the columns; another suffix, an unknown field and a missing file are refused."""
    path = written(tmp_path / "l.jsonl", [{"prompt": "d", "response": "c", "label": "unsupported"}])
    (row,) = read_labels(path, {"context": "prompt", "claim": "response"})
    assert (row.context, row.claim, row.supported) == (("d",), "c", False)
    with pytest.raises(InputError, match="unknown field"):
        read_labels(path, {"contxt": "prompt"})
    for name, message in (("l.csv", "JSONL"), ("none.jsonl", "no such file")):
        with pytest.raises(InputError, match=message):
            read_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--md", "--json"], "both want stdout"),
        (["--save", "x.json"], "--save goes with --calibrate"),
        (["--calibrate", "l.jsonl", "--md"], "leave out --md"),
        (["--judge", "local", "--json"], "judge run EVALSET --rubric groundedness@1"),
        (["--claims", "no/such/folder/x.jsonl"], "no such folder"),
        (["-c", "none.json"], "no such file"),
        (["--map", "foo"], "FIELD=COLUMN"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with one error and exit code 2, nothing written."""
    monkeypatch.chdir(tmp_path)
    evalset(Path("e.jsonl"), 2)
    assert judge("e.jsonl", *args) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["e.jsonl"]


def _qags(folder: Path) -> dict[str, list[LabelledClaim]]:
    """The two parts of benchmarks/grounding.py: A chose and fitted, B is held out."""
    parts: dict[str, list[LabelledClaim]] = {"A": [], "B": []}
    for line in (folder / "items.jsonl").read_bytes().splitlines():
        row = json.loads(line)
        number = row["meta"]["summary_index"]
        if row["category"] == "cnndm":
            part = "AB"[int(sha256(b"grounding" + str(number).encode()).hexdigest(), 16) % 2]
            label = row["label"] == "supported"
            parts[part].append(LabelledClaim((row["prompt"],), row["response"], label, f"cnndm-{number}"))
    return parts


def _support(found: Table, coefficients: Coefficients) -> Any:
    weights = np.array([coefficients.weights[name] for name in FEATURES])
    return 1 / (1 + np.exp(-(coefficients.intercept + found.features @ weights)))


def test_grounding_tells_supported_claims_on_both_halves_of_qags(gold: Callable[[str], Path]) -> None:
    """Area under the curve: 0.87 on the half that chose the features, 0.83 on the other, above the claim's length."""
    for name, rows in _qags(gold("qags")).items():
        found = table(rows)
        area = auc(_support(found, shipped()), found.outcome, clusters=list(found.documents))
        longer = auc(found.words, found.outcome, clusters=list(found.documents))
        assert area is not None and longer is not None
        assert area.value > {"A": 0.85, "B": 0.80}[name]
        assert area.low > longer.high


def test_the_shipped_coefficients_are_what_the_command_fits(gold: Callable[[str], Path]) -> None:
    """Fitting part A again gives the file in the package."""
    made = calibrate(table(_qags(gold("qags"))["A"]), start=EQUAL, name="again", source={}, only="corrected")
    assert made.coefficients.intercept == pytest.approx(shipped().intercept, rel=1e-6)
    assert dict(made.coefficients.weights) == pytest.approx(dict(shipped().weights), rel=1e-6)
    assert made.coefficients.threshold == pytest.approx(shipped().threshold, rel=1e-6)
