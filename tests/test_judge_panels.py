"""Panels and cascades: several judges over one eval set, each a run of its own, through real stores and processes."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from calibration.bias import flip_sources
from calibration.coefficients import cohen_kappa
from calibration.confidence import Calibration, NotCalibrated
from calibration.panel import fit_panel, majority
from judge import cli
from judge.backends.recorded import open_recorded
from judge.cascades import Gate, cascade_report, escalated, gate_of
from judge.evidence import labels_of, run_evidence
from judge.formats import open_evalset
from judge.journal import records
from judge.labelling import Framed, Request, drawing
from judge.panels import Group, group_of, panel_report
from judge.render.panel import label_command
from judge.runs import RunPlan, start_run
from judge.store import Store
from judge.testing import ScriptedBackend, sample_rubric
from judge.types import Ask, Outcome, Reply

REPO = Path(__file__).parent.parent


ROWS = 40
SCORE = {"A": 1.0, "tie": 0.5, "B": 0.0}


def evalset(path: Path, rows: int = ROWS, *, labels: bool = True) -> Path:
    """Pairs with candidates of 1 to 9 characters against 4; the last row's answers are identical."""
    lines = []
    for n in range(rows):
        row = {
            "id": f"p{n:03}",
            "prompt": f"Q{n}?",
            "candidate": "c" * (n % 9 + 1 if n % 3 else 3),
            "baseline": f"bb{n:02}",
        }
        lines.append({**row, **({"label": "win" if n % 4 else "loss"} if labels else {})})
    lines[-1]["candidate"] = lines[-1]["baseline"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def calibration(path: Path, *, judge: str = "scripted/longer", **changes: Any) -> Path:
    """A saved calibration of a judge under helpfulness@1, certified for three error rates."""
    given = {
        "rubric": "helpfulness@1", "judge": judge, "gold": "ab" * 32, "method": "temperature",
        "coefficients": {"slope": (1.0,)}, "tie": 0.0, "n": 200, "clusters": 100,
        "certified": {"0.1": 0.6, "0.2": 0.55}, **changes,
    }  # fmt: skip
    path.write_text(Calibration(**given).to_json(), encoding="utf-8")
    return path


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command line in this process, with a home of its own: exit code, stdout, stderr."""
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> tuple[int, str, str]:
        code = cli._run([str(arg) for arg in args])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return call


def killed(tmp_path: Path, *args: str, at: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process that is stopped at a crash point."""
    env = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path / "home"), "JUDGE_CRASH_AT": at}
    return subprocess.run(
        [sys.executable, "-c", "from judge.cli import main; main()", *args],
        capture_output=True, text=True, env=env, cwd=tmp_path, check=False,
    )  # fmt: skip


def rows_of(store: Store, run_id: str) -> list[dict[str, Any]]:
    return store.comparisons(run_id).drop("run_id").to_dicts()


def group_in(text: str) -> str:
    found = re.search(r"[pc]-[0-9a-f]{6}", text)
    assert found, text
    return found[0]


PANEL = ("run", "e.jsonl", "-j", "scripted:longer", "-j", "scripted:hash", "-j", "scripted:shorter")


def test_a_panel_is_one_ordinary_run_for_each_judge(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """Each judge has a sealed run over all pairs whose header names panel, place and size; the report is shown again
    by the panel's id, and every figure of a judge is that of its run.
    """
    evalset(tmp_path / "e.jsonl")
    code, out, err = judge(*PANEL)
    assert code == 0
    group = group_of(Store(tmp_path / "home"), group_in(out))
    assert [info.judge for info in group.runs.values()] == ["scripted/longer", "scripted/hash", "scripted/shorter"]
    heads = [info.header["panel"] for info in group.runs.values()]
    assert [(head["id"], head["place"], head["of"]) for head in heads] == [(group.id, n, 3) for n in (1, 2, 3)]
    assert all(info.sealed and info.header["evalset"]["rows"] == ROWS for info in group.runs.values())
    assert f"next: judge report {group.id}" in err
    again = judge("report", group.id)
    assert again == (0, out, "")
    assert max(map(len, out.splitlines())) <= 80
    value = json.loads(judge("report", group.id, "--json")[1])
    alone = [json.loads(judge("report", info.run_id, "--json")[1]) for info in group.runs.values()]
    assert (value["schema"], value["pairs"]) == ("judge.panel/1", ROWS)
    assert [member["report"]["overall"] for member in value["members"]] == [report["overall"] for report in alone]
    assert "| vote | 40 |" in judge("report", group.id, "--md")[1]
    listed = json.loads(judge("report", "--list", "--json")[1])
    assert {row["group"] for row in listed} == {group.id}


def test_agreement_and_the_plain_vote_are_counted_pair_by_pair(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """Share of equal verdicts, Cohen's kappa and the majority are those of the stored verdicts."""
    evalset(tmp_path / "e.jsonl")
    out = judge(*PANEL)[1]
    store = Store(tmp_path / "home")
    group = group_of(store, group_in(out))
    report = panel_report(store, group)
    said = {
        place: [Outcome(row["outcome"]) for row in rows_of(store, info.run_id)] for place, info in group.runs.items()
    }
    for found in report.agreements:
        a, b = said[found.first], said[found.second]
        kappa = cohen_kappa(list(zip(a, b, strict=True)), tuple(Outcome))
        assert found.share is not None
        assert found.kappa is not None
        assert kappa is not None
        assert found.share.value == pytest.approx(sum(x is y for x, y in zip(a, b, strict=True)) / ROWS)
        assert found.kappa.value == pytest.approx(kappa.value)
        assert found.n == ROWS
    counts = [[votes.count(word) for word in Outcome] for votes in zip(*said.values(), strict=True)]
    won = [list(Outcome)[row.index(max(row))] if row.count(max(row)) == 1 else Outcome.TIE for row in counts]
    assert report.majority.win is not None
    assert report.majority.win.value == pytest.approx(won.count(Outcome.WIN) / ROWS)
    assert report.majority.net is not None
    assert report.majority.net.value == pytest.approx((won.count(Outcome.WIN) - won.count(Outcome.LOSS)) / ROWS)
    assert report.weighing is None
    assert "need labels" in report.notes[0]


def test_labels_weigh_the_judges_and_a_panel_that_hurts_is_called_so(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """With the eval set's labels come weights, error correlation and the warning that one judge alone is better; with
    --gold those of a file are used, and without either the report says what is needed.
    """
    path = evalset(tmp_path / "e.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    longer = {row["id"]: len(row["candidate"]) > 4 for row in rows}
    for row in rows:
        row["label"] = "win" if longer[row["id"]] else "loss"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = judge("run", "e.jsonl", "-j", "scripted:longer", "-j", "scripted:shorter", "-j", "scripted:hash")[1]
    assert re.search(r"judge 1: right on 9\d\.\d% .* weight 0\.\d+", out)
    assert re.search(r"judge 2: right on .* weight 0\.000", out)
    assert "WARNING: by plain majority the panel is worse than judge 1 alone" in " ".join(out.split())
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "label"}) + "\n" for row in rows))
    unlabelled = judge("run", "bare.jsonl", "-j", "scripted:longer", "-j", "scripted:shorter")[1]
    assert "need labels" in " ".join(unlabelled.split())
    assert "gold =" not in unlabelled
    labels = [{"pair_id": row["id"], "annotator": "ann", "outcome": row["label"]} for row in rows[:20]]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    shown = judge("report", group_in(unlabelled), "--gold", "labels.jsonl")[1]
    assert "against 20 labels" in shown
    assert "only 20 labelled prompts" in shown
    begun = judge("run", "bare.jsonl", "-j", "scripted:longer", "-j", "scripted:shorter", "-g", "labels.jsonl")[1]
    assert judge("report", group_in(begun))[1] == begun
    assert "against 20 labels" in begun


def test_the_cache_is_shared_with_single_runs(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """What a judge said alone is free in a panel, and what it said in a panel is free alone."""
    evalset(tmp_path / "e.jsonl")
    judge("run", "e.jsonl", "-j", "scripted:longer")
    group = group_of(Store(tmp_path / "home"), group_in(judge(*PANEL)[1]))
    asked = 2 * (ROWS - 1)
    cached = [Store(tmp_path / "home").comparisons(info.run_id)["cached"].sum() for info in group.runs.values()]
    assert cached[0] == asked
    assert cached[1] < asked
    assert cached[2] < asked
    canaries = 4
    assert (
        f"calls   0 for {2 * (ROWS + canaries)} verdicts"
        in judge("run", "e.jsonl", "-j", "scripted:hash", "--dry-run")[1]
    )


@pytest.mark.parametrize("at", ["after_reply:2", pytest.param("after_ingest:1", marks=pytest.mark.slow)])
def test_a_panel_killed_at_any_point_is_finished_by_resume(at: str, tmp_path: Path, judge: Callable[..., Any]) -> None:
    """kill -9 within a judge, or between two, loses nothing: `judge resume p-...` gives the tables of an unbroken
    panel, with one run for each judge.
    """
    evalset(tmp_path / "e.jsonl")
    died = killed(tmp_path, *PANEL, at=at)
    assert died.returncode == -signal.SIGKILL, died.stderr
    name = group_in(died.stderr)
    code, out, _ = judge("resume", name)
    assert code == 0
    assert "UNFINISHED" not in out
    store = Store(tmp_path / "home")
    group = group_of(store, name)
    assert sorted(group.runs) == [1, 2, 3]
    assert len(store.runs()) == 3
    for (place, info), spec in zip(group.runs.items(), group.specs, strict=True):
        single = judge("run", "e.jsonl", "-j", spec, "--no-cache", "--home", tmp_path / f"single-{place}")
        assert single[0] == 0
        whole = Store(tmp_path / f"single-{place}")
        columns = ("pair_id", "outcome", "preference", "consistent", "label", "prompt_digest")
        assert whole.comparisons(whole.run().run_id)[columns].equals(store.comparisons(info.run_id)[columns])
    assert judge("resume", name)[1] == out


def test_an_interrupted_panel_prints_how_to_go_on_and_shows_what_it_has(
    tmp_path: Path, judge: Callable[..., Any]
) -> None:
    """Ctrl-C exits 130 with the command that resumes the panel; until then its report says that it is unfinished."""
    evalset(tmp_path / "e.jsonl", labels=False)
    died = killed(tmp_path, *PANEL, at="after_intent:2:INT")
    name = group_in(died.stderr)
    assert died.returncode == 130
    assert f"judge resume {name}" in died.stderr
    code, out, err = judge("report", name)
    assert code == 0
    assert "UNFINISHED" in out
    assert "(not begun)" in " ".join(out.split())
    assert "not finished: judge 2, 3 of 3 has pairs left" in " ".join(out.split())
    assert f"judge resume {name}" in err


def test_a_panel_that_is_resumed_says_nothing_but_its_report(tmp_path: Path) -> None:
    """What Python's binding of DuckDB complains of when a process ends with frozen objects is not on the screen."""
    evalset(tmp_path / "e.jsonl", 8)
    died = killed(tmp_path, *PANEL, at="after_ingest:1")
    assert died.returncode == -signal.SIGKILL
    done = subprocess.run(
        [sys.executable, "-c", "from judge.cli import main; main()", "resume", group_in(died.stderr)],
        capture_output=True, text=True, cwd=tmp_path, check=True,
        env={**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert "leaked" not in done.stderr


def paid(url: str, model: str, price: str = "&price_in=1000&price_out=1000") -> str:
    return f"openai:{model}?base_url={url}&mode=text&concurrency=2{price}"


def test_a_limit_holds_for_the_whole_panel(tmp_path: Path, judge: Callable[..., Any], chat: Any) -> None:
    """--max-cost stops the second judge at what the first has left of it; resume takes a new limit for both."""
    evalset(tmp_path / "e.jsonl", 8, labels=False)
    with chat.launch() as served:
        one, two = (paid(served.url("limit", "ok"), model) for model in ("m1", "m2"))
        dry = json.loads(judge("run", "e.jsonl", "-j", one, "-j", two, "--dry-run", "--json")[1])
        assert dry["total"]["calls"] == sum(entry["calls"] for entry in dry["judges"]) == 28
        assert dry["total"]["high"] == pytest.approx(2 * dry["judges"][0]["high"])
        assert served.book("limit")["requests"] == 0
        assert judge("run", "e.jsonl", "-j", one, "--home", "alone")[0] == 0
        each = Store(tmp_path / "alone").usage(Store(tmp_path / "alone").run().run_id)[0]
        assert each
        bound = dry["judges"][0]["high"]
        limit = 1.5 * each + bound / 14
        code, _, err = judge("run", "e.jsonl", "-j", one, "-j", two, "--max-cost", f"{limit}")
        assert code == 3
        name = group_in(err)
        assert f"judge resume {name} --max-cost MORE" in err
        assert f"that is what the 1 judge before left of ${limit:g}" in err, "the limit that was given is named"
        store = Store(tmp_path / "home")
        store.catch_up()
        runs = group_of(store, name).runs
        assert runs[1].sealed
        assert not runs[2].sealed
        spent = sum(store.usage(info.run_id)[0] or 0.0 for info in runs.values())
        assert each < spent <= limit
        assert judge("resume", name)[0] == 3
        assert judge("resume", name, "--max-cost", f"{3 * bound}")[0] == 0
        assert all(info.sealed for info in group_of(store, name).runs.values())
        assert sum(store.usage(info.run_id)[0] or 0.0 for info in runs.values()) == pytest.approx(2 * each)
        args = ("run", "e.jsonl", "-j", one, "-j", two, "--no-cache", "--max-cost", f"{limit}")
        died = killed(tmp_path, *args, at="after_ingest:1")
        assert died.returncode == -signal.SIGKILL
        code, _, err = judge("resume", group_in(died.stderr))
        assert (code, "the limit" in err or "--max-cost MORE" in err) == (3, True)


def test_an_unknown_price_is_refused_before_any_judge_is_asked(
    tmp_path: Path, judge: Callable[..., Any], chat: Any
) -> None:
    """A limit that the second judge cannot hold stops the panel before the first one costs anything."""
    evalset(tmp_path / "e.jsonl", 4)
    with chat.launch() as served:
        url = served.url("price", "ok")
        code, _, err = judge("run", "e.jsonl", "-j", paid(url, "m1"), "-j", paid(url, "m2", ""), "--max-cost", "9")
        assert (code, "price is unknown" in err) == (2, True)
        assert served.book("price")["requests"] == 0
    assert not (tmp_path / "home" / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-j", "scripted:longer", "-j", "scripted:longer"), "stands twice"),
        (("-j", "scripted:longer", "--gold", "cal.json"), "--gold needs several --judge"),
        (("-j", "scripted:longer", "--error", "0.1"), "--error needs --cascade"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "--error", "0.1"), "--error needs --cascade"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "--gold", "none.jsonl"), "cannot be read"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "-j", "local", "--cascade", "cal.json"), "need 2 calibrat"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "cal.json", "--repeat", "2"), "--repeat does"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "none.json"), "cannot be read"),
        (("-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "e.jsonl"), "not a calibration file"),
        (("-j", "scripted:shorter", "-j", "scripted:hash", "--cascade", "cal.json"), "not for 'scripted/shorter'"),
        (("-r", "correctness", "-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "cal.json"), "for rubric"),
        (
            ("-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "cal.json", "--error", "0.05"),
            "certified are 0.1, 0.2: pass --error 0.1",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_call(
    args: tuple[str, ...], message: str, tmp_path: Path, judge: Callable[..., Any]
) -> None:
    """One judge twice, gates that are missing, of another judge or rubric, or not certified: exit 2, nothing begun."""
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    code, out, err = judge("run", "e.jsonl", *args)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (tmp_path / "home" / "runs").exists()


def test_a_server_is_not_even_probed_for_a_cascade_that_cannot_be(
    tmp_path: Path, judge: Callable[..., Any], chat: Any
) -> None:
    """A judge that looks at its server before its id is known is not contacted where no rate is certified."""
    evalset(tmp_path / "e.jsonl", 4)
    calibration(tmp_path / "cal.json", judge="openai/m", certified={})
    with chat.launch() as served:
        spec = f"openai:m?base_url={served.url('probe', 'ok')}"
        code, _, err = judge("run", "e.jsonl", "-j", spec, "-j", "scripted:hash", "--cascade", "cal.json")
        assert (code, "no rate is certified" in err) == (2, True)
        calibration(tmp_path / "cal.json", judge="openai/other")
        assert served.book("probe")["requests"] == 0
        code, _, err = judge("run", "e.jsonl", "-j", spec, "-j", "scripted:hash", "--cascade", "cal.json")
        assert (code, "fitted for judge 'openai/other'" in err) == (2, True)
    assert not list((tmp_path / "home").glob("runs/*"))


def test_unknown_groups_are_named(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """report and resume of a panel that is not there exit 2 and name those that are."""
    evalset(tmp_path / "e.jsonl")
    name = group_in(judge(*PANEL)[1])
    for verb in ("report", "resume"):
        code, _, err = judge(verb, "p-nothing")
        assert (code, name in err) == (2, True)
    assert judge("report", name, "--html", "x.html")[0] == 2


def test_a_gate_takes_the_laxest_certified_rate_that_is_tolerated() -> None:
    """0.15 is served by the certificate for 0.1; a rate under all certified ones, and no certificate, are refused."""
    common = {"rubric": "r@1", "judge": "j", "gold": "9c1e", "method": "temperature", "coefficients": {"slope": (1.0,)}}
    fitted = Calibration(**common, tie=0.0, n=200, clusters=100, certified={"0.1": 0.8, "0.2": 0.6})  # type: ignore[arg-type]
    assert gate_of(fitted, rubric="r@1", judge="j", error=0.15) == Gate(0.8, 0.1, "9c1e", 200, 100)
    assert gate_of(fitted, rubric="r@1", judge="j", error=0.2).threshold == 0.6
    with pytest.raises(NotCalibrated, match=r"certified are 0\.1, 0\.2: pass --error 0\.1"):
        gate_of(fitted, rubric="r@1", judge="j", error=0.05)
    with pytest.raises(NotCalibrated, match="for judge 'j', not for 'k'"):
        gate_of(fitted, rubric="r@1", judge="k", error=0.2)
    bare = Calibration(**common, tie=0.0, n=200, clusters=100)  # type: ignore[arg-type]
    with pytest.raises(NotCalibrated, match="no rate is certified"):
        gate_of(bare, rubric="r@1", judge="j", error=0.2)


def test_a_stage_keeps_what_it_is_sure_of() -> None:
    """Invalid pairs and those under the threshold are passed on; at the threshold, and identical answers, are kept."""
    frame = polars.DataFrame(
        {
            "pair_id": ["sure", "edge", "unsure", "invalid", "same"],
            "confidence": [0.9, 0.8, 0.79, None, 0.5],
            "flags": ["", "empty_candidate", "", "", "identical template_tokens"],
        }
    )
    assert escalated(frame, Gate(0.8, 0.1, "g", 1, 1)) == ["invalid", "unsure"]


CASCADE = ("run", "e.jsonl", "-j", "scripted:longer", "-j", "scripted:hash", "--cascade", "cal.json")


def test_a_cascade_asks_the_next_judge_only_where_the_first_is_unsure(
    tmp_path: Path, judge: Callable[..., Any]
) -> None:
    """The second judge gets exactly the pairs under the threshold, as a run of its own; the report holds each pair by
    its last judge, says who decided how many, and what is certified by which gold.
    """
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    code, out, _ = judge(*CASCADE)
    assert code == 0
    store = Store(tmp_path / "home")
    group = group_of(store, group_in(out))
    first, second = (rows_of(store, info.run_id) for info in group.runs.values())
    unsure = {row["pair_id"] for row in first if row["confidence"] < 0.6 and row["flags"] != "identical"}
    assert 0 < len(unsure) < ROWS - 1
    assert {row["pair_id"] for row in second} == unsure
    assert group.runs[1].header["cascade"]["gates"][0]["threshold"] == 0.6
    report = cascade_report(store, group)
    by_pair = {row["pair_id"]: row for row in first} | {row["pair_id"]: row for row in second}
    wins = sum(row["outcome"] == "win" for row in by_pair.values())
    assert report.report.overall.win is not None
    assert report.report.overall.win.value == pytest.approx(wins / ROWS)
    assert report.report.overall.n == ROWS
    stages = [(stage.reached, stage.decided, stage.passed_on) for stage in report.stages]
    assert stages == [(ROWS, ROWS - len(unsure), len(unsure)), (len(unsure), len(unsure), 0)]
    text = " ".join(out.split())
    assert "at most 10.0% go against people, with 90% confidence; certified on gold abababababab, 100 prompts" in text
    assert "1 pair has identical answers" in text
    assert judge("report", group.id)[1] == out
    value = json.loads(judge("report", group.id, "--json")[1])
    assert (value["schema"], value["report"]["overall"]["n"]) == ("judge.cascade/1", ROWS)
    assert "| 1 | scripted/longer | 40 |" in judge("report", group.id, "--md")[1]
    dry = json.loads(judge(*CASCADE, "--dry-run", "--json", "--no-cache")[1])
    assert dry["total"]["calls_least"] == 2 * (ROWS - 1 + 2)  # and the two canary pairs that are asked


def test_a_cascade_that_needs_no_second_judge_asks_none(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """Where the first judge decides every pair, the second has no run and the report is whole."""
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json", certified={"0.1": 0.5})
    code, out, err = judge(*CASCADE)
    assert code == 0
    assert "UNFINISHED" not in out
    assert "judge 1 decided every pair" in err
    group = group_of(Store(tmp_path / "home"), group_in(out))
    assert list(group.runs) == [1]
    assert judge("resume", group.id)[1] == out


@pytest.mark.parametrize("at", ["after_ingest:1", pytest.param("before_seal:2", marks=pytest.mark.slow)])
def test_a_killed_cascade_is_finished_by_resume(at: str, tmp_path: Path, judge: Callable[..., Any]) -> None:
    """kill -9 within the second stage, or before it began, changes nothing of the result; the calibration file is not
    needed any more.
    """
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    whole = judge(*CASCADE, "--home", tmp_path / "whole")[1]
    died = killed(tmp_path, *CASCADE, at=at)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (tmp_path / "cal.json").unlink()
    name = group_in(died.stderr)
    code, out, _ = judge("resume", name)
    assert code == 0
    blind = re.compile(r"\b[rc]-[0-9a-f]{6}\b")
    assert blind.sub("ID", out) == blind.sub("ID", whole)


def test_calls_lost_in_a_crash_are_counted_over_all_stages(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """What was on its way when the process died in the second stage stands in the report of the cascade."""
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    died = killed(tmp_path, *CASCADE, at="after_intent:2")
    name = group_in(died.stderr)
    assert judge("resume", name)[0] == 0
    report = json.loads(judge("report", name, "--json")[1])
    second = json.loads(judge("report", report["stages"][1]["run_id"], "--json")[1])
    assert report["report"]["possibly_paid"] == second["possibly_paid"] > 0


def test_three_stages_hold_together_by_the_union_bound(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """Two certificates of 90% hold together with 80%; what the last gate cannot certify is left to people, and the
    command that is printed draws exactly those pairs.
    """
    evalset(tmp_path / "e.jsonl", 60)
    calibration(tmp_path / "one.json")
    calibration(tmp_path / "two.json", judge="scripted/shorter", certified={"0.1": 0.58})
    calibration(tmp_path / "three.json", judge="scripted/hash", certified={"0.1": 0.6})
    judges = ("-j", "scripted:longer", "-j", "scripted:shorter", "-j", "scripted:hash")
    gates = ("--cascade", "one.json", "--cascade", "two.json")
    code, out, _ = judge("run", "e.jsonl", *judges, *gates)
    assert code == 0
    assert "all 2 hold together with at least 80% confidence" in " ".join(out.split())
    assert "only if its labels were drawn among such pairs" in " ".join(out.split())
    assert "nothing certifies judge 3" in out
    code, out, _ = judge("run", "e.jsonl", *judges, *gates, "--cascade", "three.json")
    assert code == 0
    store = Store(tmp_path / "home")
    group = group_of(store, group_in(out))
    report = cascade_report(store, group)
    assert report.together == pytest.approx(0.7)
    last = rows_of(store, group.runs[3].run_id)
    assert set(report.people) == {row["pair_id"] for row in last if row["confidence"] < 0.6}
    assert 0 < len(report.people) < len(last)
    command = label_command(report)
    assert f"judge label {group.runs[3].run_id} --draw escalated --below 0.6 " in command
    frame = [Framed(row["pair_id"], "", row["confidence"], row["consistent"]) for row in last]
    drawn = drawing(frame, Request("escalated", below=0.6))
    assert {place.pair_id for place in drawn.places if place.drawn == "escalated"} == set(report.people)


def recorded(path: Path, verdicts: dict[str, dict[str, tuple[Any, Any]]]) -> Path:
    """Recorded verdicts of several judges, by judge and pair as (shown first, shown second)."""
    rows = [
        {"id": pair, "judge": name, "order": order, "verdict": said}
        for name, own in verdicts.items()
        for pair, both in own.items()
        for order, said in zip(("ab", "ba"), both, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_without_a_verdict_are_escalated_and_then_left_to_people(
    tmp_path: Path, judge: Callable[..., Any]
) -> None:
    """An invalid verdict goes to the next judge; where that one has none either, or turns with the order, the pair is
    listed for people.
    """
    evalset(tmp_path / "e.jsonl", 6)
    cheap = {"p000": ("A", "A"), "p001": (None, "A"), "p002": ("A", "B"), "p003": ("B", "B"), "p004": (None, None)}
    strong = {"p001": ("B", "B"), "p002": ("A", "B"), "p004": (None, "A")}
    recorded(tmp_path / "v.jsonl", {"cheap": cheap, "strong": strong})
    name = str(open_recorded(str(tmp_path / "v.jsonl"), judge="cheap").id)
    calibration(tmp_path / "cal.json", judge=name, certified={"0.1": 0.9})
    specs = [f"recorded:v.jsonl?judge={who}" for who in ("cheap", "strong")]
    code, out, _ = judge("run", "e.jsonl", "-j", specs[0], "-j", specs[1], "--cascade", "cal.json")
    assert code == 0
    store = Store(tmp_path / "home")
    report = cascade_report(store, group_of(store, group_in(out)))
    assert [(stage.decided, stage.passed_on, stage.invalid) for stage in report.stages] == [(3, 3, 2), (2, 1, 1)]
    assert report.people == ("p002", "p004")
    assert report.report.overall.invalid == 1
    assert report.report.overall.loss is not None
    assert report.report.overall.loss.value == pytest.approx(2 / 5)
    assert "2 pairs that no judge decided with certainty: p002, p004" in out


def test_costs_of_a_cascade_are_those_of_its_stages(tmp_path: Path, judge: Callable[..., Any], chat: Any) -> None:
    """The cost is the sum of both stages, beside what the strong judge would have cost for every pair."""
    evalset(tmp_path / "e.jsonl", 12)
    calibration(tmp_path / "cal.json")
    with chat.launch() as served:
        strong = paid(served.url("cascade", "ok"), "m")
        code, out, err = judge("run", "e.jsonl", "-j", "scripted:longer", "-j", strong, "--cascade", "cal.json")
        assert code == 0, err
    store = Store(tmp_path / "home")
    report = cascade_report(store, group_of(store, group_in(out)))
    taken = store.usage(str(report.stages[1].run_id))[0]
    assert taken
    assert report.cost == pytest.approx(taken)
    assert report.report.cost == pytest.approx(taken)
    assert report.all_last == pytest.approx(taken / report.stages[1].reached * 12)
    assert "judge 2 for all 12 pairs: about $" in out


def test_the_dry_run_of_a_cascade_counts_the_canaries_of_the_next_judge(
    tmp_path: Path, judge: Callable[..., Any], chat: Any
) -> None:
    """The canaries of the next judge are made of the pairs that reach it, so they may all be new where every verdict is
    stored: what the dry run names is an upper bound of calls and cost all the same.
    """
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    with chat.launch() as served:
        strong = paid(served.url("strong", "ok"), "m")
        assert judge("run", "e.jsonl", "-j", strong, "--canaries", "0")[0] == 0
        before = served.book("strong")["requests"]
        args = ("run", "e.jsonl", "-j", "scripted:longer", "-j", strong, "--cascade", "cal.json")
        dry = json.loads(judge(*args, "--dry-run", "--json")[1])["judges"][1]
        code, out, err = judge(*args)
        assert code == 0, err
        made = served.book("strong")["requests"] - before
        assert 0 < made <= dry["calls"] == 2 * 2
        store = Store(tmp_path / "home")
        report = cascade_report(store, group_of(store, group_in(out)))
        assert report.cost
        assert 0 < report.cost <= dry["high"]
        none = json.loads(judge(*args, "--dry-run", "--json", "--canaries", "0")[1])["judges"][1]
        assert (none["calls"], none["high"]) == (0, 0)


def test_a_judge_whose_canaries_fail_is_named_by_its_panel_and_voids_its_cascade(
    tmp_path: Path, judge: Callable[..., Any], chat: Any
) -> None:
    """What canary pairs say of one judge stands in the report of all of them, and their cost is in it."""
    evalset(tmp_path / "e.jsonl")
    calibration(tmp_path / "cal.json")
    with chat.launch() as served:
        first = paid(served.url("first", "ok"), "m")  # this server says the label that is shown first: always a tie
        code, panel, _ = judge("run", "e.jsonl", "-j", "scripted:longer", "-j", first)
        assert code == 0
        args = ("run", "e.jsonl", "-j", "scripted:longer", "-j", first, "--cascade", "cal.json", "--no-cache")
        cascade = judge(*args)[1]
        requests = served.book("first")["requests"]
    text = " ".join(panel.replace("! ", "").split())
    assert "WARNING: judge 2: VOID: 2 of 4 canary pairs failed" in text
    store = Store(tmp_path / "home")
    voted = panel_report(store, group_of(store, group_in(panel)))
    report = cascade_report(store, group_of(store, group_in(cascade)))
    assert report.report.canaries.void
    assert "(judge 2: a real answer ties with a master key)" in " ".join(cascade.split())
    costs = [
        record["reply"]["usage"]["cost"]
        for group in (voted.panel_id, report.cascade_id)
        for record in records(store.journal_path(group_of(store, group).runs[2].run_id))
        if record["t"] == "reply" and not record.get("reused")
    ]
    assert len(costs) == requests
    assert (voted.cost or 0.0) + (report.cost or 0.0) == pytest.approx(sum(costs))


def members(store: Store, path: Path, backends: list[Any]) -> Group:
    """A panel of backends, judged run by run."""
    for place, backend in enumerate(backends, 1):
        record = {"id": "p-1", "place": place, "of": len(backends), "judges": ["x"] * len(backends), "gold": None}
        plan = RunPlan(
            f"r-{place}", f"2026-01-0{place}", open_evalset(path), {}, sample_rubric(), "x", group={"panel": record}
        )
        asyncio.run(start_run(plan, backend, store))
    return group_of(store, "p-1")


def test_llmbar_as_a_panel_gives_the_figures_of_calibration(gold: Callable[[str], Path], tmp_path: Path) -> None:
    """Six recorded judges on LLMBar's adversarial pairs, judged as runs: weights, error correlations, effective size
    and the held-out gain are those that `fit_panel` finds on the verdicts themselves, and the plain vote is warned
    about.
    """
    folder = gold("llmbar")
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    pairs = [row for row in pairs if "Natural" not in row["id"]]
    ids = sorted(row["id"] for row in pairs)
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    said: dict[str, dict[str, list[float]]] = {}
    wanted = set(ids)
    with gzip.open(folder / "verdicts.jsonl.gz", "rt") as lines:
        kept = [row for row in map(json.loads, lines) if row["judge"].endswith("/Vanilla") and row["id"] in wanted]
    for row in kept:
        score = np.nan if row["verdict"] is None else SCORE[row["verdict"]]
        said.setdefault(row["judge"], {}).setdefault(row["id"], []).append(score)
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    backends = [open_recorded(str(tmp_path / "v.jsonl"), judge=name) for name in said]
    store = Store(tmp_path / "home")
    group = members(store, tmp_path / "e.jsonl", backends)
    report = panel_report(store, group, labels_of(store, group.first))
    found = report.weighing
    assert found is not None
    assert found.labels == 319
    prompts = {row.pair_id: row.prompt_id for row in run_evidence(store, group.first).run.rows}
    votes = {f"judge {k}": [float(np.mean(own[name])) for name in ids] for k, own in enumerate(said.values(), 1)}
    truth = [SCORE[row["label"]] for row in sorted(pairs, key=lambda row: row["id"])]
    wanted_panel = fit_panel(votes, truth, clusters=[prompts[name] for name in ids])
    assert found.panel == wanted_panel
    assert list(said)[int(found.panel.best.removeprefix("judge ")) - 1] == "GPT-4/Vanilla"
    assert found.panel.effective == pytest.approx(2.81, abs=0.01)
    plain = majority(votes)
    assert found.majority is not None
    assert found.majority.value == pytest.approx(np.mean((plain == np.array(truth))[np.isfinite(plain)]))
    assert found.majority.value < 0.5
    assert "by plain majority the panel is worse than" in report.warnings[0]
    assert report.agreements[0].errors == pytest.approx(found.panel.correlation[0][1])


def counting(tag: str) -> ScriptedBackend:
    """A judge that prefers the first answer more the more often it was asked: no two calls of it are alike."""
    calls = iter(range(1, 10_000))

    def script(_ask: Ask) -> Reply:
        first = 1 / (1 + next(calls))
        return Reply(probs=(first, 0.0, 1 - first))

    return ScriptedBackend(script, name=tag)


def test_repeats_are_asked_anew_and_never_served_by_another_repeat(tmp_path: Path) -> None:
    """Three repeats after a run of one: the first is taken from the cache, the two others are asked, under identities
    and replies of their own.
    """
    path, store, backend = evalset(tmp_path / "e.jsonl", 10), Store(tmp_path / "home"), counting("scripted/counting")

    def run(run_id: str, repeats: int) -> polars.DataFrame:
        plan = RunPlan(run_id, f"2026-01-{run_id}", open_evalset(path), {}, sample_rubric(), "x", repeats=repeats)
        asyncio.run(start_run(plan, backend, store))
        return store.comparisons(run_id)

    run("01", 1)
    assert len(backend.asked) == 18
    frame = run("02", 3)
    assert len(backend.asked) == 18 + 36
    assert len({ask.key for ask in backend.asked}) == len(backend.asked)
    asked = frame.filter(polars.col("flags") != "identical")
    assert asked.filter(polars.col("repeat") == 0)["cached"].to_list() == [2] * 9
    assert asked.filter(polars.col("repeat") > 0)["cached"].sum() == 0
    assert asked.group_by("pair_id").agg(polars.col("cf_win").n_unique())["cf_win"].to_list() == [3] * 9
    run("03", 3)
    assert len(backend.asked) == 18 + 36
    held = [record["key"] for record in records(store.journal_path("02")) if record["t"] == "reply"]
    assert len(set(held)) == len(held) == 54


def test_a_report_with_repeats_holds_noise_beside_order_flips(tmp_path: Path, judge: Callable[..., Any]) -> None:
    """With repeats the report says how far verdicts differ when asked again and when swapped, as `flip_sources` counts
    them; without repeats it says nothing of it.
    """
    evalset(tmp_path / "e.jsonl", 12)
    rows = [
        {"id": f"p{n:03}", "judge": "j", "order": order, "repeat": repeat,
         "verdict": "AB"[(n + repeat * (n % 4 == 0) + (order == "ba") * (n % 3 == 0)) % 2]}
        for n in range(11) for order in ("ab", "ba") for repeat in range(3)
    ]  # fmt: skip
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = judge("run", "e.jsonl", "-j", "recorded:v.jsonl", "--repeat", "3")
    assert code == 0
    assert "Asked again in the same order, the judge says something else in" in " ".join(out.split())
    found = json.loads(judge("report", "--json")[1])["repeats"]
    calls: dict[str, tuple[list[Outcome], list[Outcome]]] = {f"p{n:03}": ([], []) for n in range(11)}
    for row in sorted(rows, key=lambda row: row["repeat"]):
        calls[row["id"]][row["order"] == "ba"].append(Outcome.WIN if row["verdict"] == "A" else Outcome.LOSS)
    calls["p011"] = ([Outcome.TIE] * 3, [Outcome.TIE] * 3)
    wanted = flip_sources(list(calls.values()), clusters=list(calls))
    assert wanted.noise is not None
    assert wanted.order is not None
    assert found["noise"]["value"] == pytest.approx(wanted.noise.value)
    assert found["order"]["value"] == pytest.approx(wanted.order.value)
    assert found["noise"]["high"] == pytest.approx(wanted.noise.high)
    assert json.loads(judge("run", "e.jsonl", "-j", "scripted:hash", "--json")[1])["repeats"] is None
