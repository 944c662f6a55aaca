"""`judge calibrate` as a user meets it: real runs, real label files, reports on stdout, telling exit codes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from calibration.confidence import Calibration
from calibration.evidence import Evidence
from judge import cli
from judge.evidence import run_evidence
from judge.store import RunInfo, Store
from rubrics import load

REPO = Path(__file__).parent.parent
PAIRS = 90


def judge(*args: str | Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in its own process, with no traceback allowed."""
    done = subprocess.run(
        [sys.executable, "-c", "from judge.cli import main; main()", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(home), **env},
        check=False,
        cwd=home.parent,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def wins(k: int) -> bool:
    """Whether people prefer the candidate's answer to question ``k``."""
    return k % 3 != 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a judged eval set (home ``home``) and labels of sixty of its pairs drawn at random."""
    folder = tmp_path_factory.mktemp("calibrate")
    rng = random.Random(0)
    pairs = [
        {
            "id": f"p{k}", "prompt": f"question {k}?", "category": "ab"[k % 2],
            "candidate": {"text": "long answer " * (3 if wins(k) == (rng.random() < 0.85) else 1), "model": "new"},
            "baseline": {"text": "long answer " * 2, "model": "old"},
        }
        for k in range(PAIRS)
    ]  # fmt: skip
    (folder / "evals.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    labels = [
        {
            "pair_id": f"p{k}", "annotator": who, "outcome": "win" if wins(k) else "loss", "drawn": "random",
            "probability": 60 / PAIRS, "candidate": "new", "baseline": "old", "rubric": "helpfulness@1",
        }
        for k in sorted(rng.sample(range(PAIRS), 60))
        for who in ("ann", "ben")
    ]  # fmt: skip
    (folder / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels), encoding="utf-8")
    texts = [
        {
            "id": pair["id"], "prompt": pair["prompt"], "response_a": pair["candidate"]["text"],
            "response_b": pair["baseline"]["text"], "label": "A" if wins(k) else "B",
        }
        for k, pair in enumerate(pairs[:50])
    ]  # fmt: skip
    (folder / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    done = judge("run", "evals.jsonl", "-j", "scripted:longer", home=folder / "home")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_is_measured_against_its_labels(place: Path) -> None:
    """The report leads with a plain verdict, gives the human-scale rate, and says where the calibration lies."""
    done = judge("calibrate", "--gold", "labels.jsonl", home=place / "home")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(":")[0] in ("BELIEVE", "WITH CARE")
    assert "People would give the candidate" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "calibration: " in done.stderr
    (saved,) = (place / "home" / "calibrations").glob("*.json")
    assert Calibration.from_json(saved.read_text()).judge.startswith("scripted")


def test_the_saved_calibration_serves_compare(place: Path) -> None:
    """What calibrate saves, compare takes; under another rubric it is refused with exit code 2 and no number."""
    judge("calibrate", "--gold", "labels.jsonl", "--save", "c.json", home=place / "home")
    call = ("compare", "-p", "q", "-c", "a longer answer", "-b", "short", "-j", "scripted:longer", "--json")
    done = judge(*call, "--calibration", "c.json", home=place / "home")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["calibrated"] < 1
    other = judge(*call, "--calibration", "c.json", "-r", "groundedness@1", home=place / "home")
    assert other.returncode == 2 and other.stdout == ""
    assert "was fitted for rubric 'helpfulness@1'" in other.stderr


def test_json_follows_the_published_schema(place: Path) -> None:
    """--json is one object that the JSON Schema of --schema describes."""
    schema = json.loads(judge("calibrate", "--schema", home=place / "home").stdout)
    report = json.loads(judge("calibrate", "--gold", "labels.jsonl", "--json", home=place / "home").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(report)
    assert report["win_rate"]["labels"] == 60
    assert report["agreement"]["labelled"] == 60


def test_markdown_and_html_are_written(place: Path) -> None:
    """--md goes to stdout; --html writes one page without outside resources, and the terminal has the verdict and its
    reasons, not the sections a second time.
    """
    assert judge("calibrate", "--gold", "labels.jsonl", "--md", home=place / "home").stdout.startswith("#")
    done = judge("calibrate", "--gold", "labels.jsonl", "--html", "c.html", home=place / "home")
    page = (place / "c.html").read_text(encoding="utf-8")
    assert "wrote c.html" in done.stderr
    assert done.stdout.split(":")[0] in ("BELIEVE", "WITH CARE", "DO NOT BELIEVE")
    assert "People would give the candidate" in done.stdout and "1. WHAT WAS MEASURED" not in done.stdout
    assert "<svg" in page and "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_the_self_check_prints_the_coverage_it_measured(place: Path) -> None:
    """--self-check adds a measured coverage with its interval to the report."""
    done = judge("calibrate", "--gold", "labels.jsonl", "--self-check", "--json", home=place / "home")
    assert done.returncode == 0, done.stderr
    coverage = json.loads(done.stdout)["self_check"]["coverage"]
    assert coverage["low"] <= coverage["value"] <= coverage["high"] and coverage["value"] > 0.8


def test_two_judges_are_compared_on_the_labelled_pairs(place: Path) -> None:
    """A judge that people agree with replaces one that always picks the other side; the other way round it stays."""
    better = judge(
        "calibrate", "--gold", "labels.jsonl", "-j", "scripted:longer", "--against-judge", "scripted:shorter",
        "--json", home=place / "home",
    )  # fmt: skip
    assert better.returncode == 0, better.stderr
    change = json.loads(better.stdout)["change"]
    assert change["verdict"] == "ADOPT" and change["finding"] == "better" and change["compared"] == 60
    worse = judge(
        "calibrate", "--gold", "labels.jsonl", "-j", "scripted:shorter", "--against-judge", "scripted:longer",
        home=place / "home",
    )  # fmt: skip
    assert worse.returncode == 1
    assert "KEEP" in worse.stdout
    assert "judged before" in worse.stderr


def test_two_rubrics_are_compared_with_anchors(place: Path) -> None:
    """Under a judge that reads no rubric two rubrics are equivalent or undecided; anchors are judged under both."""
    text = load("helpfulness@1").text.replace("version: 1", "version: 2", 1)
    (place / "helpfulness-v2.md").write_text(text, encoding="utf-8")
    done = judge(
        "calibrate", "--gold", "labels.jsonl", "--rubric", "helpfulness-v2.md", "--against", "@1",
        "--anchors", "20", "--json", home=place / "home",
    )  # fmt: skip
    change = json.loads(done.stdout)["change"]
    assert done.returncode == {"KEEP": 1, "UNDECIDED": 4}[change["verdict"]]
    assert change["flips"] == [] and change["anchors"]["n"] == 20


def test_labels_with_texts_are_judged_now(place: Path) -> None:
    """A file of labelled pairs needs no run before: --judge judges it, as a run that is found again."""
    first = judge("calibrate", "--gold", "gold.jsonl", "-j", "scripted:longer", home=place / "fresh")
    assert first.returncode == 0, first.stderr
    assert "50 labelled pairs x 2 orders" in first.stderr
    again = judge("calibrate", "--gold", "gold.jsonl", "-j", "scripted:longer", home=place / "fresh")
    assert again.stdout == first.stdout


def test_labels_of_the_eval_set_need_no_gold_file(place: Path) -> None:
    """Where every row of the eval set has a label, the run is measured against them and the rate is not withheld."""
    home = place / "labelled"
    assert judge("run", "gold.jsonl", "-j", "scripted:longer", home=home).returncode == 0
    done = judge("calibrate", "--json", home=home)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["labels"] == 50 and report["win_rate"]["corrected"]["value"] == pytest.approx(33 / 50)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "its eval set carries no labels; give --gold FILE"),
        (("--gold", "nowhere.jsonl"), "nowhere.jsonl: the gold set cannot be read"),
        (("--gold", "labels.jsonl", "r-none"), "'r-none' is not a run here"),
        (("--gold", "labels.jsonl", "--html", "no/such/folder.html"), "no such folder"),
        (("--gold", "labels.jsonl", "--against", "@1", "--rubric", "helpfulness@1"), "both sides are the same"),
        (("--gold", "labels.jsonl", "--against", "@99", "--rubric", "helpfulness@1"), "helpfulness"),
        (("--gold", "labels.jsonl", "--gold", "gold.jsonl"), "2 sources"),
        (("--gold", "torn.jsonl"), "torn.jsonl:2: not JSON"),
        (("--gold", "labels.jsonl", "--md", "--json"), "both want stdout"),
        (("--gold", "labels.jsonl", "--anchors", "5"), "give --against"),
        (("--gold", "labels.jsonl", "--margin", "nan", "--against-judge", "scripted:hash"), "nan is no number"),
        (("--gold", "labels.jsonl", "-r", "concision-voice@1", "--against", "helpfulness@1"), "say nothing about"),
        (("--gold", "foreign.jsonl"), "no run in"),
        (("--gold", "another.jsonl"), "another.jsonl: none of its 2 labelled pairs is of run r-"),
    ],
)
def test_bad_input_is_one_clear_error(place: Path, args: tuple[str, ...], message: str) -> None:
    """Whatever cannot be used is named with its file or option; exit code 2, nothing on stdout."""
    (place / "torn.jsonl").write_text('{"pair_id": "p1", "annotator": "a", "outcome": "win"}\n{"pair_id": "p')
    (place / "foreign.jsonl").write_text('{"pair_id": "other", "annotator": "a", "outcome": "win"}\n')
    rows = [{"pair_id": f"p{k}", "annotator": "a", "outcome": "win", "candidate": "newest"} for k in (1, 2)]
    (place / "another.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = judge("calibrate", *args, home=place / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_run_is_read_once(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether any label fits and what the judge is worth come from one reading of the run."""
    read: list[str] = []

    def counting(store: Store, info: RunInfo, **options: Any) -> Evidence:
        read.append(info.run_id)
        return run_evidence(store, info, **options)

    monkeypatch.setattr("judge.evidence.run_evidence", counting)
    assert cli._run(["calibrate", "--gold", str(place / "labels.jsonl"), "--home", str(place / "home")]) == 0
    assert len(read) == 1
    assert "scripted/longer" in capsys.readouterr().err
