"""judge check and judge cases, as a user runs them: runs and eval sets, exit codes, surfaces, what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from judge import cli
from judge.errors import JournalError
from judge.register import Register
from judge.store import Findings, Store

ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": "JSON?", "tags": ["json"], "candidate": '{"x": 1}', "baseline": '{"x": 1}'},
    {"id": "b", "prompt": "JSON!", "tags": ["json"], "candidate": '{"x": NaN}', "baseline": '{"x": 2}'},
    {"id": "c", "prompt": "Say <b>hi</b>.", "candidate": "hi \u001b[31m", "baseline": "hi",
     "checks": [{"check": "regex", "id": "plain", "severity": "warn", "with": {"pattern": "^hi$"}}]},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with an eval set and a recorded judge in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    put("e.jsonl", ROWS)
    verdicts = [
        {"id": row["id"], "judge": "j", "order": order, "verdict": "A"} for row in ROWS for order in ("ab", "ba")
    ]
    put("v.jsonl", verdicts)
    return tmp_path


def put(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(*argv: str) -> int:
    return cli._run(list(argv))


def test_a_stored_run_is_checked_from_its_journal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`judge check` takes the latest run, counts failures and what broke, exits 1, and keeps the findings."""
    assert run("run", "e.jsonl", "-j", "recorded:v.jsonl") == 0
    Path("e.jsonl").unlink()
    capsys.readouterr()
    assert run("check", "-s", "json-tools") == 1
    out, err = capsys.readouterr()
    assert "FAILED: json-parses@1 fails 1 of 2, 1 new" in out
    assert "character 6" in out
    assert "\x1b" not in out + err
    assert all(len(line) <= 80 for line in out.splitlines())
    info = Store(folder / "home").run()
    (made,) = Findings(folder / "home").runs(info.run_id)
    assert made.check_id in err
    assert made.report["blocked_by"] == made.report["regressed"] == ["json-parses@1"]
    (finding,) = Findings(folder / "home").of_pair("b", run_id=info.run_id)
    assert (finding.side, finding.passed, finding.spans[0].start) == ("candidate", False, 6)
    (entry,) = Register(folder / "home").entries("check", info.run_id)
    assert entry.body["failed"] == {"json-parses@1": 1}


def test_an_eval_set_is_checked_without_a_judge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answer files joined on id give the same counts as answers in the rows; --json is one object."""
    put("p.jsonl", [{key: value for key, value in row.items() if key not in ("candidate", "baseline")} for row in ROWS])
    for side in ("candidate", "baseline"):
        put(f"{side}.jsonl", [{"id": row["id"], "text": row[side]} for row in ROWS])
    assert run("check", "e.jsonl", "-s", "json-tools", "--json") == 1
    rows = json.loads(capsys.readouterr().out)
    assert run("check", "p.jsonl", "-c", "candidate.jsonl", "-b", "baseline.jsonl", "-s", "json-tools", "--json") == 1
    files = json.loads(capsys.readouterr().out)
    assert rows["results"] == files["results"]
    assert rows["schema"] == "judge.check/1"
    assert {one["check"]: one["n"] for one in rows["results"]}["regex@1#plain"] == 1
    assert {measure["name"] for measure in rows["measures"]} >= {"check.json-parses", "latency.p95_ratio", "cost.ratio"}


@pytest.mark.parametrize(
    ("baseline", "fail_on", "code"),
    [
        ('{"x": 2}', "failures", 1),
        ('{"x": 2}', "regressions", 1),
        ('{"x": 2}', "nothing", 0),
        ("{", "failures", 1),
        ("{", "regressions", 0),
    ],
)
def test_failures_and_regressions_decide_the_exit_code_as_asked(
    folder: Path, baseline: str, fail_on: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any failure of the candidate is 1 by default; with --fail-on regressions only one that the baseline lacks."""
    put("e.jsonl", [{**ROWS[1], "baseline": baseline}])
    assert run("check", "e.jsonl", "-s", "json-tools", "--fail-on", fail_on) == code
    assert ("nothing new" in capsys.readouterr().out) == (baseline == "{")


def test_what_could_not_be_checked_is_no_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A blocking check that could not be made, and a required one that concerns nothing, exit 4."""
    Path("s.yaml").write_text(
        "name: s\nversion: 1\nsummary: x\nchecks:\n  - check: not-empty\n  - check: regex\n"
        "    with: {pattern: '(x+x+)+y', absent: true, seconds: 0.1}\n"
    )
    put("e.jsonl", [{"id": "a", "prompt": "p", "candidate": "x" * 5000, "baseline": "y"}])
    assert run("check", "e.jsonl", "-s", "s.yaml") == 4
    assert "UNDECIDED: regex@1 could not be made on 1 of 1" in capsys.readouterr().out
    put("e.jsonl", [{"id": "a", "prompt": "p", "candidate": "fine", "baseline": "fine", "must_help": True}])
    assert run("check", "e.jsonl", "-s", "safety", "--fail-on", "nothing") == 4
    assert "must-refuse is required and concerns no item" in capsys.readouterr().out


def test_junit_and_markdown_say_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JUnit fails the one check that blocks, skips those without items; Markdown escapes what is foreign."""
    assert run("check", "e.jsonl", "-s", "json-tools", "--junit", "o.xml", "--md") == 1
    out = capsys.readouterr().out
    suite = ET.fromstring(Path("o.xml").read_text())  # noqa: S314 - our own file
    states = {case.get("name"): [child.tag for child in case] for case in suite}
    assert states["json-parses@1"] == ["failure"]
    assert states["json-schema@1"] == ["skipped"]
    assert states["regex@1#plain"] == []
    assert (suite.get("failures"), suite.get("tests")) == ("1", str(len(states)))
    assert "| json-parses@1 | block | 2 | 1 | 0 | 1 | 0 |" in out


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["nope.jsonl"], "no such file"),
        (["empty.jsonl"], "empty"),
        (["e.jsonl", "-s", "defalt"], "did you mean 'default'"),
        (["e.jsonl", "--checks", "nope.py"], "no such file of checks"),
        (["e.jsonl", "-s", "voice", "--junit", "no/such/o.xml"], "no such folder"),
        (["bad.jsonl", "-s", "json-tools"], "item x: checks.0"),
        (["schema.jsonl"], "item x: json-schema"),
        (["plain.jsonl", "-s", "none.yaml"], "concerns no item"),
        (["r-nope"], "no runs here yet"),
        (["r-nope", "-c", "a.jsonl"], "go with an eval set"),
    ],
)
def test_bad_input_is_one_error_and_leaves_nothing(
    folder: Path, argv: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one message that says what to do, no file in the home folder and no entry in the register."""
    Path("empty.jsonl").write_text("")
    put(
        "bad.jsonl",
        [ROWS[0], {"id": "x", "prompt": "p", "candidate": "1", "baseline": "1", "checks": [{"check": "x"}]}],
    )
    put("schema.jsonl", [{"id": "x", "prompt": "p", "candidate": "1", "baseline": "1", "schema": {"type": "nope"}}])
    put("plain.jsonl", ROWS[:1])
    head = "name: s\nversion: 1\nsummary: x\nchecks:\n"
    Path("none.yaml").write_text(head + "  - check: not-empty\n    where: {tags: [none]}\n")
    assert run("check", *argv) == 2
    out, err = capsys.readouterr()
    assert fault in err
    assert out == ""
    assert not list((folder / "home").rglob("*.jsonl"))
    assert not list((folder / "home").rglob("*.part"))


def test_findings_are_rebuilt_from_their_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`judge recover` brings findings back with the runs; a damaged or copied file is said and hides nothing."""
    assert run("run", "e.jsonl", "-j", "recorded:v.jsonl") == 0
    assert run("check", "-s", "json-tools") == 1
    findings = Findings(folder / "home")
    (made,) = findings.runs()
    before = findings.frame(made.check_id)
    assert run("recover") == 0
    assert findings.frame(made.check_id).equals(before)
    assert findings.runs()[0].report == made.report
    measure = findings.runs()[0].measures["check.json-parses"]
    assert measure.candidate is not None and measure.candidate.value == 0.5
    assert measure.examples == ("b",)
    file = findings.file(made.check_id)
    copy = findings.file("k-copied")
    copy.write_bytes(file.read_bytes())
    assert "copy of pass" in findings.catch_up()[0]
    copy.write_bytes(file.read_bytes()[:-20])
    assert "has no end" in findings.catch_up()[0]
    copy.write_bytes(file.read_bytes().replace(b"character 6", b"character 7"))
    with pytest.raises(JournalError, match="damaged"):
        findings.ingest(copy)
    assert len(findings.runs()) == 1


def test_a_check_of_one_s_own_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--checks FILE.py makes its checks usable by a suite; the shipped example runs as the documentation shows it."""
    Path("mine.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from judge.checks import Check, failed, passed\n\n\n"
        "@dataclass(frozen=True)\nclass Polite(Check):\n    name: ClassVar[str] = 'polite'\n\n"
        "    def examine(self, item, answer):\n"
        "        return passed() if 'please' in answer.text else failed('no please')\n"
    )
    Path("s.yaml").write_text("name: s\nversion: 1\nsummary: x\nchecks:\n  - check: polite\n    severity: warn\n")
    assert run("check", "e.jsonl", "-s", "s.yaml", "--checks", "mine.py") == 0
    assert "polite@1" in capsys.readouterr().out
    assert run("check", "e.jsonl", "-s", "s.yaml") == 2
    assert "--checks FILE.py" in capsys.readouterr().err


def test_failures_are_frozen_and_rerun(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a pass found wrong becomes a case file; a suite that names it holds the next candidate to it, and a case
    that is left out is no pass.
    """
    assert run("run", "e.jsonl", "-j", "recorded:v.jsonl") == 0
    assert run("check", "-s", "json-tools") == 1
    check_id = Findings(folder / "home").runs()[0].check_id
    assert (
        run(
            "cases",
            "freeze",
            check_id,
            "-o",
            "known.jsonl",
            "--why",
            "NaN broke it.",
            "--broken",
            "--check",
            "json-parses@1",
        )
        == 0
    )
    (row,) = [json.loads(line) for line in Path("known.jsonl").read_text().splitlines()]
    assert (row["id"], row["checks"][0]["check"]) == ("b", "json-parses@1")
    assert row["origin"]["why"] == "NaN broke it."
    Path("known.yaml").write_text("name: known\nversion: 1\nsummary: What once broke.\ncases: known.jsonl\n")
    for text, code in (('{"x": NaN}', 1), ('{"x": 3}', 0)):
        put("next.jsonl", [{"id": "b", "text": text}])
        capsys.readouterr()
        assert run("check", "known.jsonl", "-s", "known.yaml", "-c", "next.jsonl", "-b", "next.jsonl") == code
    put("other.jsonl", [{**ROWS[0], "checks": [{"check": "not-empty"}]}])
    assert run("check", "other.jsonl", "-s", "known.yaml") == 4
    assert "1 of 1 frozen cases were not run: b" in capsys.readouterr().out
    assert run("cases", "freeze", check_id, "-o", "known.jsonl", "--why", "x") == 2


def test_the_red_team_is_written_as_prompts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`judge cases write` gives a file that `judge generate` reads; nothing is overwritten."""
    from judge.prompts import open_prompts

    assert run("cases", "write", "redteam", "-o", "r.jsonl") == 0
    prompts = open_prompts(Path("r.jsonl"))
    assert prompts.rows == 40
    assert prompts.with_tools >= 3
    assert run("cases", "write", "redteam", "-o", "r.jsonl") == 2
    assert run("cases", "write", "default", "-o", "x.jsonl") == 2
    assert "has no frozen cases" in capsys.readouterr().err


def test_everything_shipped_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`judge check --list` names every suite and check, as text and as JSON."""
    from judge.checks.registry import CHECKS

    assert run("check", "--list") == 0
    text = capsys.readouterr().out
    assert run("check", "--list", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert {name.partition("@")[0] for name in data["checks"]} == set(CHECKS)
    assert all(name in text for name in (*CHECKS, "default@1", "redteam@1"))
    assert not (folder / "home").exists()


PAGE = Path(__file__).parent.parent / "docs" / "checks.md"


def test_the_worked_example_of_the_documentation_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/checks.md: the check of one's own and the suite that uses it, word for word, find what they should."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = {
        kind: re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for kind in ("python", "yaml")
    }
    Path("my_checks.py").write_text(blocks["python"][0])
    Path("support.yaml").write_text(blocks["yaml"][0])
    ticket = {"prompt": "Ticket?", "tags": ["ticket"], "baseline": '{"id": 1, "priority": "low"}'}
    rows = [
        {"id": "a", **ticket, "candidate": '{"id": "1", "priority": "low"}'},
        {"id": "b", "prompt": "Whom can I call?", "candidate": "Call 555 123 4567.", "baseline": "See the web page."},
    ]
    put("evals.jsonl", rows)
    assert run("check", "evals.jsonl", "-s", "support.yaml", "--checks", "my_checks.py", "--json") == 1
    found = {one["check"]: one for one in json.loads(capsys.readouterr().out)["results"]}
    assert found["json-schema@1#ticket"]["failing"] == ["a"]
    assert found["no-phone-numbers@1"]["failing"] == ["b"]


def test_every_check_suite_and_measure_is_documented() -> None:
    """Each shipped check, suite, option of the command and measure stands in docs/checks.md."""
    from judge.checks.examination import examine
    from judge.checks.registry import CHECKS
    from judge.checks.suite import load_suite, shipped_suites
    from judge.types import Answer, Item, Pair

    text = PAGE.read_text(encoding="utf-8")
    report = examine(load_suite("default"), [Pair("p", Item("q"), Answer("a"), Answer("b"))])
    measures = [measure.name for measure in report.measures if not measure.name.startswith("check.")]
    words = [*CHECKS, *shipped_suites(), *measures]
    assert [word for word in words if f"`{word}`" not in text] == []
