"""`judge gate` as a user meets it: stored runs, evidence kept by suites and probes, one decision on every surface."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shlex
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.confidence import Calibration
from judge import archive
from judge.decision import Decision, Result, Ruling, Word
from judge.kept import read_kept
from judge.register import Register
from judge.render import gate as render
from judge.rounds import loop_state
from judge.store import Store

REPO = Path(__file__).parent.parent
PAIRS = 240
AT = "2026-11-30T00:00:00+00:00"


def judge(*args: str | Path, home: Path, **env: str) -> SimpleNamespace:
    """Run the command line in this process: exit code, stdout and stderr."""
    from judge.cli import _run

    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {"JUDGE_HOME": str(home), **env}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = _run([str(arg) for arg in args])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def evalset(folder: Path, *, wins: float = 0.8, pairs: int = PAIRS, seed: int = 0) -> Path:
    """Pairs that people say the candidate wins; beside them the verdicts of a judge that is right 9 times of 10."""
    rng = random.Random(seed)
    rows, verdicts = [], []
    for k in range(pairs):
        won = rng.random() < wins
        said = won if rng.random() < 0.9 else not won
        rows.append(
            {
                "id": f"p{k}", "prompt": f"question {k}?", "category": "ab"[k % 2],
                "candidate": {"text": "word " * rng.randrange(12, 18), "model": "new"},
                "baseline": {"text": "word " * rng.randrange(12, 18), "model": "old"},
                "label": "win" if won else "loss",
            }
        )  # fmt: skip
        sure = rng.uniform(0.6, 0.95)
        verdicts += [
            {"id": f"p{k}", "judge": "made-up", "order": order, "verdict": "A" if said else "B",
             "prob_a": sure if said else 1 - sure}
            for order in ("ab", "ba")
        ]  # fmt: skip
    path = folder / f"evals-{seed}-{pairs}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spoken = "".join(json.dumps(row) + "\n" for row in verdicts)
    path.with_suffix(".verdicts.jsonl").write_text(spoken, encoding="utf-8")
    return path


def spec(path: Path) -> str:
    """The judge of an eval set."""
    return f"recorded:{path.with_suffix('.verdicts.jsonl')}"


def estimate(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "level": 0.95, "n": 200, "clusters": 200,
            "method": "made up"}  # fmt: skip


def measure(name: str, *figure: float) -> dict[str, Any]:
    return {"name": name, "layer": "behaviour", "axis": "safety", "unit": "share", "candidate": None, "baseline": None,
            "difference": estimate(*figure) if figure else None, "missing": "" if figure else "no pair has any",
            "examples": ["p1"]}  # fmt: skip


def keep_check(
    home: Path,
    run_id: str,
    *,
    failed: int = 0,
    name: str = "k-1",
    suite: str = "default@1",
    check: str = "json@1",
    **measures: tuple[float, float] | None,
) -> None:
    """Keep one pass of a suite about a run, as `judge check` does; a measure that is ``None`` could not be made."""
    info = Store(home).run(run_id)
    rows = info.header["evalset"]["rows"]
    result = {
        "check": check, "id": check, "severity": "block", "layer": "behaviour", "axis": "reliability", "n": rows,
        "candidate_failed": failed, "baseline_failed": 0, "candidate_unjudged": 0, "required": False,
        "failing": [f"p{k}" for k in range(failed)],
    }  # fmt: skip
    report = {
        "suite_digest": "d1", "blocked_by": [check] if failed else [], "results": [result],
        "measures": [measure(key, *(value or ())) for key, value in measures.items()],
        "cases": {"unrun": [], "altered": []},
    }  # fmt: skip
    body = json.dumps({"t": "seal", "report": report}).encode()
    path = home / "checks" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"%08x %b\n" % (zlib.crc32(body), body))
    entry = {
        "check_id": name, "suite": suite, "suite_digest": "d1", "evalset": info.header["evalset"]["digest"],
        "pairs": rows, "failed": {check: failed} if failed else {},
    }  # fmt: skip
    Register(home).append("check", run_id, entry, at=AT)


def keep_hack(home: Path, run_id: str, **measures: tuple[float, float]) -> None:
    """Keep a hacking report about a run, as `judge hack` does, with the two refusal rates that policies ask for."""
    given = {"refusal.harmless": (0.0, 0.01), "refusal.harmful": (0.0, 0.01), **measures}
    text = json.dumps({"measures": [measure(key, *value) for key, value in given.items()]})
    archive.keep(home, "hack", run_id, text, at=AT, head={"says": "made up"})


def keep_probe(home: Path, run_id: str, shift: float = 0.01, *, since: str | None = None, silent: int = 0) -> None:
    """Keep a probe of a run's judge, as `judge probe` does."""
    import hashlib

    info = Store(home).run(run_id)
    body = {"measures": [{**measure("probe.boilerplate", shift, 0.005), "unit": "points from 0.5"}]}
    data = json.dumps(body).encode()
    digest = hashlib.sha256(data).hexdigest()
    (home / "hacks").mkdir(exist_ok=True)
    (home / "hacks" / f"probe-{digest[:12]}.json").write_bytes(data)
    entry = {"kind": "probes", "judge": info.judge, "rubric": info.rubric, "digest": digest,
             "file": f"hacks/probe-{digest[:12]}.json", "replies_since": info.created_at if since is None else since,
             "silent": {"boilerplate": [silent, 50]}}  # fmt: skip
    Register(home).append("probe", "r-probe", entry, at=AT)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with one judged run that people prefer, and everything the default policy asks for."""
    folder = tmp_path_factory.mktemp("gate")
    home = folder / "home"
    path = evalset(folder)
    done = judge("run", path, "-j", spec(path), home=home)
    assert done.returncode == 0, done.stderr
    run_id = Store(home).run().run_id
    keep_check(home, run_id)
    keep_hack(home, run_id)
    keep_probe(home, run_id)
    return home, run_id


def test_a_good_candidate_ships_and_starts_a_rollout(place: tuple[Path, str]) -> None:
    """With everything shown, the gate says SHIP, exits 0, records the decision, and names the rollout."""
    home, run_id = place
    done = judge("gate", run_id, "--by", "ada", home=home)
    assert (done.returncode, done.stdout.split()[0]) == (0, "SHIP."), done.stdout
    assert "judge rollout start decision-" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), "not to a terminal, it keeps to 80 columns"
    entry = Register(home).entries("decision")[-1]
    assert (entry.subject, entry.by, entry.body["word"]) == (run_id, "ada", "SHIP")
    assert entry.body["inputs"]["eval set"] == Store(home).run(run_id).header["evalset"]["digest"]
    again = judge("gate", "show", entry.id, "--json", home=home)
    assert json.loads(again.stdout)["rulings"] == json.loads(json.dumps(entry.body))["rulings"]
    listed = judge("gate", "show", "--list", "--json", home=home)
    assert json.loads(listed.stdout)[0]["id"] == entry.id


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        ("failed", 1, "suite.json@1"),
        ("refusals", 1, "guard.refusal.harmless"),
        ("fooled", 4, "probe.boilerplate"),
        ("old probe", 4, "probes.age"),
        ("undated probe", 4, "probes.age"),
        ("silent probe", 4, "probes.invalid"),
        ("old calibration", 4, "judge.calibration"),
        ("undated calibration", 4, "judge.calibration"),
        ("strict", 1, "suites"),
    ],
)
def test_each_kind_of_trouble_has_its_exit_code(place: tuple[Path, str], spoil: str, code: int, says: str) -> None:
    """A failed check and a broken guard block; a judge that is fooled, or whose probe or calibration is old or says
    little, holds; `strict` blocks what has no evidence.
    """
    home, run_id = place
    register = home / "register.jsonl"
    before = register.read_bytes()
    policy, more = "default", ()
    if spoil == "failed":
        keep_check(home, run_id, failed=2, name="k-2")
    elif spoil == "refusals":
        keep_hack(home, run_id, **{"refusal.harmless": (0.1, 0.01)})
    elif spoil == "fooled":
        keep_probe(home, run_id, 0.3)
    elif spoil.endswith("probe"):
        since = {"old probe": "2024-02-29T00:00:00+00:00", "undated probe": ""}.get(spoil)
        keep_probe(home, run_id, since=since, silent=3 if spoil == "silent probe" else 0)
    elif spoil.endswith("calibration"):
        info = Store(home).run(run_id)
        dated = "2024-02-29T00:00:00+00:00" if spoil.startswith("old") else ""
        fitted = Calibration(
            info.rubric, info.judge, "g" * 64, "temperature", {"slope": (1.0,)}, 0.0, 50, 50, dated=dated
        )
        path = home / "old.json"
        path.write_text(fitted.to_json(), encoding="utf-8")
        more = ("--calibration", path)
    else:
        register.unlink()
        policy = "strict"
    try:
        done = judge("gate", run_id, "--policy", policy, *more, "--json", "--dry-run", home=home)
        assert done.returncode == code, done.stdout
        found = Decision.from_dict({k: v for k, v in json.loads(done.stdout).items() if k not in ("schema", "record")})
        assert says in [ruling.rule for ruling in found.standing_in_the_way]
        assert found.exit_code == code
    finally:
        register.write_bytes(before)


def test_a_figure_that_the_newest_pass_could_not_take_is_missing(place: tuple[Path, str]) -> None:
    """It does not stand in for today's, whatever order the passes are named in; a pass whose suite has no check for
    a measure says nothing about it.
    """
    home, run_id = place
    register = home / "register.jsonl"
    before = register.read_bytes()
    latency, refused = "latency.p95_ratio", "refusal.must_help"
    store, info = Store(home), Store(home).run(run_id)
    figures: dict[str, Any] = {latency: (0.9, 0.05), refused: (0.0, 0.01)}
    try:
        keep_check(home, run_id, name="k-6", suite="safety@1", check="refusal@1", **figures)
        keep_check(home, run_id, name="k-7", suite="mine@1", **dict.fromkeys(figures))
        for names in ((), ("k-6", "k-7"), ("k-7", "k-6")):
            found = read_kept(store, info, checks=names).measures
            assert (found[latency].missing, found[latency].difference) == ("no pair has any", None)
            assert (found[refused].missing, found[refused].difference is None) == ("", False)
        keep_check(
            home, run_id, name="k-8", suite="other@1", check="refusal@1", **{latency: (0.8, 0.05), refused: None}
        )
        found = read_kept(store, info).measures
        assert (found[latency].missing, found[refused].missing) == ("", "no pair has any")
    finally:
        register.write_bytes(before)


def test_a_pass_of_another_suite_hides_no_failure(place: tuple[Path, str]) -> None:
    """The newest pass of each suite counts: a later, milder suite leaves the failure of the first standing."""
    home, run_id = place
    register = home / "register.jsonl"
    before = register.read_bytes()
    keep_check(home, run_id, failed=2, name="k-5")
    keep_check(home, run_id, name="k-6", suite="mild@1")
    try:
        done = judge("gate", run_id, "--json", "--dry-run", home=home)
        assert done.returncode == 1, done.stdout
        rules = {ruling["rule"]: ruling["result"] for ruling in json.loads(done.stdout)["rulings"]}
        assert rules["suite.json@1"] == "failed"
        assert rules["suite.json@1 (mild@1)"] == "passed"
        keep_check(home, run_id, name="k-7")
        mended = judge("gate", run_id, "--json", "--dry-run", home=home)
        assert mended.returncode == 0, mended.stdout
    finally:
        register.write_bytes(before)


def test_what_was_taken_from_the_cache_is_as_old_as_the_cache(tmp_path: Path) -> None:
    """A run, its calibration and a probe made today of replies of 2024 are of 2024; with --no-cache, of today."""
    home, evals = tmp_path / "home", evalset(tmp_path, pairs=60, seed=9)
    old = "2024-02-29T00:00:00.000+00:00"
    mine = ("--sample", "3", "-j", "scripted:longer")
    with patch("judge.cli.run.stamp", lambda: old):
        assert judge("run", evals, "-j", "scripted:longer", home=home).returncode == 0
        judge("probe", evals, *mine, home=home)

    def dates() -> dict[str, tuple[str, bool]]:
        done = judge("gate", "latest", "--json", "--dry-run", home=home)
        rulings = {ruling["rule"]: ruling for ruling in json.loads(done.stdout)["rulings"]}
        wanted = ("run.age", "judge.calibration", "probes.age")
        return {rule: (rulings[rule]["result"], "days old" in rulings[rule]["says"]) for rule in wanted}

    for more, result in (((), "missing"), (("--no-cache",), "passed")):
        assert judge("run", evals, "-j", "scripted:longer", *more, home=home).returncode == 0
        assert "error" not in judge("probe", evals, *mine, *more, home=home).stderr
        assert dates() == dict.fromkeys(("run.age", "judge.calibration", "probes.age"), (result, True)), more


def test_what_is_advised_names_every_file_and_column_and_can_be_run(tmp_path: Path) -> None:
    """A run of three files with a renamed column: the advised commands read the same pairs, ask anew, and clear the
    ages.
    """
    home, evals = tmp_path / "home", evalset(tmp_path, pairs=40, seed=11)
    rows = [json.loads(line) for line in evals.read_text(encoding="utf-8").splitlines()]
    sides = {side: tmp_path / f"{side} answers.jsonl" for side in ("candidate", "baseline")}
    for side, path in sides.items():
        path.write_text("".join(json.dumps({"id": row["id"], "text": row[side]["text"]}) + "\n" for row in rows))
    asked = [{"id": row["id"], "question": row["prompt"], "label": row["label"]} for row in rows]
    evals.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    reading = ("-c", sides["candidate"], "-b", sides["baseline"], "--map", "prompt=question", "--skip-bad")
    with patch("judge.cli.run.stamp", lambda: "2024-02-29T00:00:00.000+00:00"):
        assert judge("run", evals, *reading, "-j", "scripted:longer", home=home).returncode == 0

    def rulings() -> dict[str, Any]:
        done = judge("gate", "latest", "--json", "--dry-run", home=home)
        return {ruling["rule"]: ruling for ruling in json.loads(done.stdout)["rulings"]}

    def follow(command: str) -> SimpleNamespace:
        program, *words = shlex.split(command)
        assert program == "judge"
        done = judge(*words, home=home)
        assert "error" not in done.stderr, done.stderr
        return done

    digest = Store(home).run().header["evalset"]["digest"]
    probe = rulings()["probes"]["change"]
    assert "--no-cache" not in probe, "none was made, so there is nothing to make anew"
    with patch("judge.cli.run.stamp", lambda: "2024-02-29T00:00:00.000+00:00"):
        follow(probe)
    found = rulings()
    assert {found[rule]["result"] for rule in ("run.age", "judge.calibration", "probes.age")} == {"missing"}
    follow(found["probes.age"]["change"].removeprefix("probe the judge anew: "))
    run, then, calibrate = found["judge.calibration"]["change"].removeprefix("calibrate anew: ").partition(", then ")
    assert (then, calibrate) == (", then ", "judge calibrate latest --gold labels.jsonl")
    assert run == found["run.age"]["change"].removeprefix("judge it anew: ")
    follow(run)
    assert Store(home).run().header["evalset"]["digest"] == digest
    found = rulings()
    assert {found[rule]["result"] for rule in ("run.age", "judge.calibration", "probes.age")} == {"passed"}


def test_an_older_pass_says_nothing_of_what_the_hacking_report_measures(place: tuple[Path, str]) -> None:
    """Sealed passes of before may carry refusals and invented citations in another sense: the report's count alone, and
    where there is none they are missing.
    """
    home, run_id = place
    register = home / "register.jsonl"
    before = register.read_bytes()
    old = {"refusal.harmless": (0.3, 0.01), "refusal.harmful": (-0.3, 0.01), "citations.invented": (0.3, 0.01)}
    try:
        keep_check(home, run_id, name="k-8", **old, **{"tokens.ratio": (1.0, 0.01)})
        done = judge("gate", run_id, "--json", "--dry-run", home=home)
        assert done.returncode == 0, done.stdout
        rulings = {ruling["rule"]: ruling for ruling in json.loads(done.stdout)["rulings"]}
        assert rulings["guard.refusal.harmless"]["observed"]["value"] == 0.0
        assert rulings["guard.citations.invented"]["result"] == "missing"
        assert rulings["guard.tokens.ratio"]["result"] == "passed", "what is the suite's own still counts"
    finally:
        register.write_bytes(before)


def test_a_probe_of_another_text_of_the_rubric_or_an_unfinished_one_counts_for_nothing(place: tuple[Path, str]) -> None:
    """What was probed is this rubric's text, to the end; anything else is missing evidence."""
    home, run_id = place
    register = home / "register.jsonl"
    before = register.read_bytes()
    entry = Register(home).entries("probe")[-1]
    try:
        for odd in ({"rubric_digest": "0" * 64}, {"sealed": False}):
            lines = [line for line in before.splitlines(keepends=True) if b'"probe"' not in line]
            register.write_bytes(lines[0])
            for line in lines[1:]:
                raw = json.loads(line)
                Register(home).append(raw["kind"], raw["subject"], raw["body"], at=raw["at"], by=raw["by"])
            Register(home).append("probe", "r-probe", {**entry.body, **odd}, at=AT)
            done = judge("gate", run_id, "--json", "--dry-run", home=home)
            assert done.returncode == 4, odd
            rules = {ruling["rule"]: ruling["result"] for ruling in json.loads(done.stdout)["rulings"]}
            assert rules["probes"] == "missing"
    finally:
        register.write_bytes(before)


def test_figures_of_a_pass_cannot_be_changed(tmp_path: Path) -> None:
    """A measure edited in the file of a real pass, with its line's checksum put right, is refused by the gate."""
    home, evals = tmp_path / "home", evalset(tmp_path, pairs=40, seed=7)
    assert judge("run", evals, "-j", spec(evals), home=home).returncode == 0
    assert judge("check", "latest", home=home).returncode == 0
    path = next((home / "checks").glob("*.jsonl"))
    *rest, line = path.read_bytes().splitlines(keepends=True)
    body = line[9:-1].replace(b'"baseline_failed":0', b'"baseline_failed":9', 1)
    assert body != line[9:-1]
    path.write_bytes(b"".join(rest) + b"%08x %b\n" % (zlib.crc32(body), body))
    done = judge("gate", "latest", "--dry-run", home=home)
    assert done.returncode == 2
    assert "was changed since" in done.stderr


def test_formats_agree_on_a_real_decision(place: tuple[Path, str], tmp_path: Path) -> None:
    """JSON, JUnit, HTML, Markdown and exit code of one call say the same word and the same rules."""
    home, run_id = place
    summary = tmp_path / "summary.md"
    done = judge(
        "gate", run_id, "--json", "--junit", tmp_path / "g.xml", "--html", tmp_path / "g.html", "--dry-run",
        home=home, GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true",
    )  # fmt: skip
    body = json.loads(done.stdout)
    suite = ET.parse(tmp_path / "g.xml").getroot()[0]  # noqa: S314 - our own file
    properties = {node.get("name"): node.get("value") for node in suite.iter("property")}
    assert properties["word"] == body["word"] == "SHIP"
    assert int(properties["exit_code"] or -1) == body["exit_code"] == done.returncode == 0
    assert suite.get("failures") == suite.get("errors") == "0"
    page = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "<strong>SHIP</strong>" in page
    assert "<script" not in page
    assert summary.read_text(encoding="utf-8").startswith("### :white_check_mark: SHIP: new against old")
    rules = {ruling["rule"] for ruling in body["rulings"]}
    assert {node.get("name") for node in suite.iter("testcase")} == rules


def test_an_unfinished_run_gives_no_verdict(tmp_path: Path) -> None:
    """A run that was cut off exits 3 whatever it has so far, and says how to finish it."""
    home = tmp_path / "home"
    evals = evalset(tmp_path, pairs=40, seed=5)
    done = judge("run", evals, "-j", spec(evals), home=home)
    assert done.returncode == 0
    store = Store(home)
    path = store.journal_path(store.run().run_id)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:60]))
    (home / "judge.duckdb").unlink()
    cut = judge("gate", "latest", home=home)
    assert cut.returncode == 3, cut.stdout
    assert "not sealed" in cut.stdout
    assert f"judge resume {path.stem}" in cut.stdout
    strict = judge("gate", "latest", "--policy", "strict", home=home)
    assert strict.returncode == 3


def test_a_report_about_a_part_of_a_run_is_named_and_not_asked_for_again(tmp_path: Path) -> None:
    """`judge hack` on an unfinished run keeps a report; the gate says why it does not count, and how to finish; then
    it makes the reports about the whole run.
    """
    home = tmp_path / "home"
    evals = evalset(tmp_path, pairs=40, seed=5)
    assert judge("run", evals, "-j", spec(evals), home=home).returncode == 0
    path = Store(home).journal_path(Store(home).run().run_id)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:60]))
    (home / "judge.duckdb").unlink()
    assert judge("hack", "latest", home=home).returncode == 0
    (kept,) = Register(home).entries("hack")
    cut = json.loads(judge("gate", "latest", "--json", home=home).stdout)
    found = {ruling["rule"]: ruling for ruling in cut["rulings"]}
    for rule in ("guard.refusal.harmless", "guard.length.log_ratio"):
        assert f"the run is not finished: {kept.id} is about a part of the run" in found[rule]["says"]
        assert found[rule]["change"] == f"judge resume {path.stem}"
    assert not any("judge hack" in need or "in the policy" in need for need in cut["needs"])
    assert judge("resume", path.stem, home=home).returncode == 0
    judge("gate", "latest", "--json", home=home)
    assert [entry.body["sealed"] for entry in Register(home).entries("hack")] == [False, True]


def test_the_gate_says_whose_labels_a_calibration_rests_on(tmp_path: Path) -> None:
    """A calibration of the same rubric and judge that was fitted on another set's labels is named as such."""
    home = tmp_path / "home"
    mine, other = evalset(tmp_path, pairs=60, seed=11), evalset(tmp_path, pairs=80, seed=12)
    verdicts = tmp_path / "all.jsonl"
    texts = [file.with_suffix(".verdicts.jsonl").read_text(encoding="utf-8") for file in (other, mine)]
    verdicts.write_text(texts[0], encoding="utf-8")
    rows = [json.loads(line) for line in mine.read_text(encoding="utf-8").splitlines()]
    mine.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows), encoding="utf-8")
    assert judge("run", other, "-j", f"recorded:{verdicts}", home=home).returncode == 0
    assert judge("calibrate", "latest", home=home).returncode == 0
    first = Store(home).run()
    assert judge("run", mine, "-j", f"recorded:{verdicts}", home=home).returncode == 0
    assert Store(home).run().judge == first.judge
    for run, says in (("latest", "pairs of ANOTHER eval set"), (first.run_id, "pairs of this run's eval set")):
        done = json.loads(judge("gate", run, "--json", home=home).stdout)
        (ruling,) = (ruling for ruling in done["rulings"] if ruling["rule"] == "judge.calibration")
        assert f"80 labels of the eval set of run {first.run_id}" in ruling["says"], ruling["says"]
        assert says in ruling["says"]


def test_the_loop_counts_the_labels_that_a_gate_was_given_and_names_an_override(tmp_path: Path) -> None:
    """`judge loop status` reads the label files that decisions name, and after an override says what starts from it."""
    home = tmp_path / "home"
    evals = evalset(tmp_path, pairs=40, seed=5)
    assert judge("run", evals, "-j", spec(evals), home=home).returncode == 0
    labels = tmp_path / "labels.jsonl"
    rows = [{"pair_id": f"p{k}", "annotator": who, "outcome": "win"} for k in range(3) for who in ("ada", "ben")]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert judge("gate", "latest", "--gold", labels, home=home).returncode == 4
    (decision,) = Register(home).entries("decision")
    assert json.loads(judge("gate", "show", decision.id, "--json", home=home).stdout)["word"] == "HOLD"

    def steps() -> dict[str, Any]:
        done = judge("loop", "status", "--json", "--labels", tmp_path / "none", home=home)
        return {step["name"]: step for step in json.loads(done.stdout)["steps"]}

    assert (steps()["labels"]["state"], steps()["labels"]["says"]) == ("done", "6 labels of 2 people in labels.jsonl")
    people = ("--reason", "a fix is due", "--by", "ada", "--second", "ben")
    assert judge("gate", "override", decision.id, *people, home=home).returncode == 0
    (entry,) = Register(home).entries("override")
    rollout = steps()["rollout"]
    assert (rollout["state"], rollout["command"]) == ("next", f"judge rollout start {entry.id}")
    refused = judge("rollout", "start", decision.id, home=home)
    assert refused.returncode == 2
    assert f"was overridden by {entry.id}; start from that: judge rollout start {entry.id}" in refused.stderr


def test_the_state_of_the_loop_survives_a_label_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Files of decisions are edited and damaged later: they are named, and the others count; nobody is no person."""
    store = Store(tmp_path / "home")
    good, bad, raw = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "raw.jsonl"))
    row = {"pair_id": "p0", "annotator": "ada", "outcome": "win"}
    for path in (good, bad, raw):
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    files = [str(path) for path in (good, bad, raw)]
    Register(store.home).append("decision", "r-000000", {"word": "HOLD", "gold_files": files}, at=AT)

    def says() -> str:
        (step,) = (step for step in loop_state(store, tmp_path / "none").steps if step.name == "labels")
        return step.says

    assert says() == "3 labels of 1 person in 3 files"
    bad.write_text('{"pair_id": "p0", "outcome"', encoding="utf-8")
    raw.write_bytes(b"\xff\xfe\x00")
    assert says() == "1 label of 1 person in good.jsonl; bad.jsonl cannot be read; raw.jsonl cannot be read"
    stated = {"id": "p0", "prompt": "q", "response_a": "x", "response_b": "y"}
    good.write_text(json.dumps(stated | {"label": "A"}) + "\n", encoding="utf-8")
    assert says().startswith("1 label, nobody named, in good.jsonl; bad.jsonl")
    good.write_text(json.dumps(stated | {"annotators": ["A", "A"]}) + "\n", encoding="utf-8")
    assert says().startswith("2 labels, nobody named, in good.jsonl; bad.jsonl")
    named = {"pair_id": "p1", "annotator": "ada", "outcome": "win"}
    bad.write_text(json.dumps(named) + "\n", encoding="utf-8")
    assert says() == "3 labels of 1 person (2 of nobody named) in good.jsonl, bad.jsonl; raw.jsonl cannot be read"
    for path in (good, bad):
        path.write_bytes(raw.read_bytes())
    assert says().endswith("(another folder: --labels); good.jsonl cannot be read; bad.jsonl cannot be read; "
                           "raw.jsonl cannot be read")  # fmt: skip


def test_no_labels_hold_and_say_how_to_label(tmp_path: Path) -> None:
    """Without a human label nothing ships; the gate names the command that labels."""
    home = tmp_path / "home"
    path = evalset(tmp_path, pairs=40, seed=6)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows), encoding="utf-8")
    assert judge("run", path, "-j", spec(path), home=home).returncode == 0
    done = judge("gate", "latest", home=home)
    assert done.returncode == 4
    assert "no pair of this run carries a human label" in " ".join(done.stdout.split())
    assert "judge label" in done.stdout
    said = " ".join(done.stdout.split())
    assert "80% power for +3 pp takes 2173 labels, and this run has 40 pairs: judge more prompts" in said


def test_bad_input_is_one_clear_error(place: tuple[Path, str], tmp_path: Path) -> None:
    """Unknown run, policy or check, misspelt key, foreign calibration: exit 2, one line, nothing recorded."""
    home, run_id = place
    before = (home / "register.jsonl").read_bytes()
    bad = tmp_path / "bad.yaml"
    text = judge("gate", "policy", "default", home=home).stdout
    bad.write_text(text.replace("name: default", "name: mine").replace("  goal:", "  gaol:"), encoding="utf-8")
    calibration = tmp_path / "c.json"
    made = judge("calibrate", run_id, "--save", calibration, home=home)
    assert made.returncode == 0, made.stderr
    other = json.loads(calibration.read_text(encoding="utf-8"))
    calibration.write_text(json.dumps({**other, "rubric": "groundedness@1"}), encoding="utf-8")
    for args, says in (
        (["r-nope"], "is not a run here"),
        ([run_id, "--policy", "defualt"], "did you mean 'default'"),
        ([run_id, "--policy", str(bad)], "win.gaol: unknown key; did you mean `goal`?"),
        ([run_id, "--checks", "k-99"], "is no check of run"),
        ([run_id, "--calibration", str(calibration)], "fitted for rubric 'groundedness@1', not for 'helpfulness@1'"),
        ([run_id, "--junit", str(tmp_path / "no" / "g.xml")], "no such folder"),
    ):
        done = judge("gate", *args, home=home)
        assert (done.returncode, done.stdout) == (2, ""), args
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    assert (home / "register.jsonl").read_bytes() == before


def test_evidence_that_was_changed_is_refused(place: tuple[Path, str]) -> None:
    """A check file or probe that is not what the register says is an error, never evidence."""
    home, run_id = place
    for folder, old, new in (
        ("checks", b'"candidate_failed"', b'"candidate_faileD"'),
        ("hacks", b'"value": 0.01', b'"value": 0.00'),
    ):
        path = next(path for path in sorted((home / folder).iterdir()) if old in path.read_bytes())
        data = path.read_bytes()
        path.write_bytes(data.replace(old, new, 1))
        done = judge("gate", run_id, "--dry-run", *(["--checks", "k-1"] if folder == "checks" else []), home=home)
        path.write_bytes(data)
        assert done.returncode == 2, folder
        assert "again" in done.stderr


def test_an_override_needs_two_people_and_a_reason(tmp_path: Path, place: tuple[Path, str]) -> None:
    """An override is an entry of its own; one person twice, no reason, or a SHIP are refused."""
    home, run_id = place
    fresh = tmp_path / "home"
    evals = evalset(tmp_path, pairs=40, seed=7)
    assert judge("run", evals, "-j", spec(evals), home=fresh).returncode == 0
    assert judge("gate", "latest", home=fresh).returncode == 4
    (held,) = Register(fresh).entries("decision")
    assert judge("rollout", "start", held.id, home=fresh).returncode == 2
    for people, reason in ((("ada", "Ada "), "we must"), (("ada", ""), "we must"), (("ada", "ben"), "because")):
        done = judge(
            "gate", "override", held.id, "--reason", reason, "--by", people[0], "--second", people[1], home=fresh
        )
        assert done.returncode == 2
    done = judge("gate", "override", held.id, "--reason", "a fix is due", "--by", "ada", "--second", "ben", home=fresh)
    assert done.returncode == 0, done.stderr
    (entry,) = Register(fresh).entries("override")
    assert (entry.by, entry.body["second"], entry.body["decision"]) == ("ada", "ben", held.id)
    assert judge("rollout", "start", entry.id, home=fresh).returncode == 0
    assert judge("gate", run_id, home=home).returncode == 0
    shipped = Register(home).entries("decision")[-1]
    refused = judge("gate", "override", shipped.id, "--reason", "a b", "--by", "ada", "--second", "ben", home=home)
    assert refused.returncode == 2
    assert "nothing to override" in refused.stderr


def test_a_judge_that_stands_still_is_known_by_an_earlier_run(place: tuple[Path, str]) -> None:
    """--since holds the judge against an earlier run; verdicts that were only taken over show nothing."""
    home, run_id = place
    path = evalset(home.parent)
    names = []
    for more in ([], ["--no-cache"]):
        before = {run.run_id for run in Store(home).runs()}
        assert judge("run", path, "-j", spec(path), *more, home=home).returncode == 0
        names += {run.run_id for run in Store(home).runs()} - before
    taken, asked = names
    found = {}
    for name in (taken, asked):
        done = judge("gate", name, "--since", run_id, "--json", "--dry-run", home=home)
        rulings = {ruling["rule"]: ruling for ruling in json.loads(done.stdout)["rulings"]}
        found[name] = rulings["judge.anchors"]
    assert (found[taken]["result"], found[asked]["result"]) == ("missing", "passed")
    assert "taken over" in found[taken]["says"]


WORDS = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=20)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any decision at all, with hostile names."""
    rulings = tuple(
        Ruling(
            rule=f"{draw(WORDS)}.{k}",
            stage="guards",
            layer=draw(st.sampled_from(("preference", "behaviour", "evidence"))),
            axis=draw(st.sampled_from(("capability", "reliability", "safety"))),
            result=result,
            effect=Word.SHIP if result is Result.PASSED else draw(st.sampled_from((Word.HOLD, Word.BLOCK))),
            says=draw(WORDS),
            change=draw(WORDS),
            pairs=tuple(draw(st.lists(WORDS, max_size=3))),
        )
        for k, result in enumerate(draw(st.lists(st.sampled_from(list(Result)), min_size=1, max_size=6)))
    )
    effects = {ruling.effect for ruling in rulings}
    word = next((one for one in (Word.BLOCK, Word.HOLD) if one in effects), Word.SHIP)
    void = ("it is void",) if word is not Word.SHIP and draw(st.booleans()) else ()
    names = (draw(WORDS), draw(WORDS), draw(WORDS))
    return Decision(word, *names, "default@1", "d" * 64, f"{word}. {draw(WORDS)}", rulings,
                    needs=tuple(draw(st.lists(WORDS, max_size=2))), void=void, plan=("step",))  # fmt: skip


@given(decisions())
@settings(max_examples=60)
def test_every_surface_says_the_same(decision: Decision) -> None:
    """Text, JSON, Markdown, JUnit and HTML of any decision carry its word; none is broken by the names in it."""
    name = "decision-1"
    text, page = render.to_text(decision, name=name), render.to_html(decision, name=name)
    comment = render.to_markdown(decision, name=name)
    body = json.loads(render.to_json(decision, name=name))
    tree = ET.fromstring(render.to_junit(decision))  # noqa: S314 - our own text
    passed = len(decision.of(Result.PASSED))
    assert text.split(".")[0] == body["word"] == decision.word
    assert f" {decision.word}: " in comment.splitlines()[0]
    assert f"<strong>{decision.word}</strong>" in page
    assert f"ok {passed} of {len(decision.rulings)} rule" in text
    assert f"{passed} of {len(decision.rulings)} rule" in comment
    assert body["exit_code"] == decision.exit_code
    assert len(body["rulings"]) == len(decision.rulings)
    suite = tree[0]
    bad = int(suite.get("failures") or 0) + int(suite.get("errors") or 0)
    assert (bad == 0) == (decision.exit_code == 0)
    assert int(suite.get("tests") or 0) == len(decision.rulings) + bool(decision.void)
    assert len(list(suite.iter("system-out"))) == passed
    assert "\x1b" not in text + comment
    assert page.count("<script") == 0
    rows = [line for line in comment.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert Decision.from_dict({k: v for k, v in body.items() if k not in ("schema", "record")}) == decision


def test_policies_are_printed_to_start_from(place: tuple[Path, str]) -> None:
    """`judge gate policy` prints a shipped policy as it stands, and lists them."""
    home, _ = place
    done = judge("gate", "policy", "strict", home=home)
    assert done.stdout == (REPO / "judge/gates/strict.yaml").read_text(encoding="utf-8")
    assert [line.split()[0] for line in judge("gate", "policy", "--list", home=home).stdout.splitlines()] == [
        "default@2", "strict@2",
    ]  # fmt: skip


def test_what_a_policy_slices_by_has_to_be_there(place: tuple[Path, str], tmp_path: Path) -> None:
    """A column that no item has is missing evidence, not an error and not a pass; tags put a pair into several."""
    home, run_id = place
    text = judge("gate", "policy", "default", home=home).stdout.replace("name: default", "name: mine")
    found = {}
    for column in ("surface", "tags"):
        path = tmp_path / f"{column}.yaml"
        path.write_text(text.replace("by: [category]", f"by: [{column}]"), encoding="utf-8")
        done = judge("gate", run_id, "--policy", path, "--json", "--dry-run", home=home)
        rulings = {ruling["rule"]: ruling for ruling in json.loads(done.stdout)["rulings"]}
        found[column] = rulings["segments"]
    assert (found["surface"]["result"], found["tags"]["result"]) == ("missing", "passed")
    assert "no item has this field; there are category" in found["surface"]["says"]
