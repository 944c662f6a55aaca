"""Every page of the dashboard, run without a browser: on a full home, an empty one, and one with damaged files."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from judge.archive import Kept

pytest.importorskip("streamlit", reason="streamlit is not installed: pip install 'touchstone-judge[dashboard]'")
pytestmark = [
    # Streamlit's own imports; the code of this project is held to no warning at all elsewhere.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

REPO = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("made", REPO / "tests" / "servers" / "dashboard.py")
assert _spec is not None and _spec.loader is not None
made = sys.modules.setdefault("servers_dashboard", importlib.util.module_from_spec(_spec))  # one home for all files
if not hasattr(made, "full_home"):
    _spec.loader.exec_module(made)

PAGES = (
    "decision",
    "segments",
    "pairs",
    "regressions",
    "hacking",
    "label",
    "calibration",
    "drift",
    "runs",
    "candidates",
    "loop",
)
FORBIDDEN = {
    "html",
    "iframe",
    "components.v1.html",
    "components.html",
    "components.iframe",
    "image",
    "write_stream",
    "feedback",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three runs, labels, a decision, a candidate and a rollout."""
    return made.full_home(tmp_path_factory.mktemp("full"))


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A home that a test may change."""
    return Path(shutil.copytree(home, tmp_path / "copy"))


def page(monkeypatch: pytest.MonkeyPatch, home: Path, name: str, **query: str) -> Any:
    """One page of the app, run once."""
    from streamlit.testing.v1 import AppTest
    from streamlit.util import calc_hash

    monkeypatch.setattr(sys, "argv", ["app.py", "--home", str(home)])
    at = AppTest.from_file(str(REPO / "dashboard" / "app.py"), default_timeout=60)
    for key, value in query.items():
        at.query_params[key] = value
    at._page_hash = calc_hash("" if name == "decision" else name)
    return at.run()


def said(at: Any) -> str:
    """All text of a page."""
    parts = [
        *at.title,
        *at.markdown,
        *at.caption,
        *at.info,
        *at.warning,
        *at.error,
        *at.success,
        *at.subheader,
        *at.code,
    ]
    return "\n".join(str(part.value) for part in parts)


def listed(at: Any) -> list[list[dict[str, Any]]]:
    """The rows of every table of a page that shows its texts whole."""
    found = []
    for element in at.get("bidi_component"):
        proto = element.proto
        told = json.loads(proto.json or proto.mixed.json or "{}").get("told")
        if isinstance(told, str):
            table = json.loads(told)
            names = [column["name"] for column in table["columns"]]
            found.append([dict(zip(names, row, strict=True)) for row in table["rows"]])
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_page_runs_on_a_full_home(monkeypatch: pytest.MonkeyPatch, home: Path, name: str) -> None:
    """No page raises, and each shows a title."""
    at = page(monkeypatch, home, name, **({"run": "r-000003"} if name != "label" else {}))
    assert not at.exception, at.exception
    assert not at.error, said(at)
    assert len(at.title) == 1


_LOADED = """
import sys
from types import SimpleNamespace
sys.argv = ["app.py", "--home", sys.argv[1]]
from streamlit.dataframe import lazy_df_source
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

# In the harness tables go a way on which no library is looked for; here they go the way of a server.
lazy_df_source.config = SimpleNamespace(get_option=lambda name: False)
for name in {pages}:
    at = AppTest.from_file({app!r}, default_timeout=60)
    at._page_hash = calc_hash("" if name == "decision" else name)
    assert not at.run().exception, (name, at.exception)
    for heavy in ("pandas", "altair") + ("scipy",) * (name in ("decision", "segments", "pairs")):
        assert heavy not in sys.modules, (name, heavy)
"""


def test_no_page_waits_for_the_import_of_pandas(home: Path) -> None:
    """Neither a table nor an answer makes Streamlit import pandas or altair, and the first pages load no SciPy."""
    code = _LOADED.format(app=str(REPO / "dashboard" / "app.py"), pages=PAGES)
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_an_empty_home_says_which_command_fills_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Where there is nothing, a page says what makes it and invents no number."""
    at = page(monkeypatch, tmp_path, name)
    assert not at.exception, at.exception
    assert any(f"--home {tmp_path}" in block.value for block in at.code), said(at)
    assert (not at.metric and not at.dataframe) or name == "loop"
    assert list(tmp_path.iterdir()) == [], "looking makes no file"


def test_the_decision_names_its_reasons_and_what_would_change_it(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """BLOCK stands on top, the blocking rule before the holding one, with the command that would help."""
    at = page(monkeypatch, home, "decision", run="r-000003")
    text = said(at)
    assert at.title[0].value == "BLOCK"
    assert text.index("segments\\.worse" if "segments\\.worse" in text else "segments.worse") < text.index(
        "judge.belief"
    )
    assert "40 more labels" in text
    other = page(monkeypatch, home, "decision", run="r-000001")
    assert other.title[0].value == "No decision yet" and "judge gate r-000001" in said(other)


def test_a_guard_on_length_is_told_in_percent_on_both_sides(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Logarithms of ratios of lengths are read as the ruling's own words read them: value, interval and limit alike."""
    from calibration.estimates import Estimate
    from judge.limits import interval_words
    from judge.register import Register

    register = Register(copy)
    (made,) = [entry for entry in register.entries("decision") if entry.subject == "r-000003"]
    seen = Estimate(
        value=math.log(1.3), low=math.log(1.2), high=math.log(1.5), level=0.95, n=60, method="t", clusters=60
    )
    limit = math.log(1.1)
    ruling = {
        **made.body["rulings"][0],
        "rule": "guards.length.log_ratio",
        "unit": "ln",
        "observed": dataclasses.asdict(seen),
        "limit": limit,
        "side": "at most",
        "says": interval_words(seen, limit, "at most", "ln"),
    }
    register.append("decision", "r-000003", {**made.body, "rulings": [ruling]}, at="2026-11-20T10:00:00+00:00", by="ci")
    at = page(monkeypatch, copy, "decision", run="r-000003")
    ((row,),) = listed(at)
    assert row["observed"] == "+30.0% [+20.0, +50.0]"
    assert row["limit"] == "at most +10.0%"
    assert row["says"].startswith("+30.0% [+20.0, +50.0]: upper bound +50.0%, must be at most +10.0%")


def test_segments_show_the_figures_of_the_report_and_filters_come_from_the_url(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """The table has the report's net win rates; `?by=` chooses the column; corrected rates stand beside the judge's."""
    from judge.store import Store
    from judge.summary import summarise

    store = Store(home)
    report = summarise(store.run("r-000003").header, store.comparisons("r-000003"))
    at = page(monkeypatch, home, "segments", run="r-000003")
    frame = at.dataframe[0].value
    shown = dict(zip(frame["segment"], frame["net"], strict=True))
    assert shown == pytest.approx({part.name: 100 * part.net.value for part in report.categories if part.net})
    assert all("/pairs?run=r-000003&field=category&value=" in link for link in frame["rows"])
    by = page(monkeypatch, home, "segments", run="r-000003", by="language")
    assert set(by.dataframe[0].value["segment"]) == {"en", "de", "fr"}
    two = page(monkeypatch, home, "segments", run="r-000003", by="difficulty", across="language")
    assert not two.exception and len(two.dataframe[0].value) == 6
    beside = page(monkeypatch, home, "segments", run="r-000003", corrected="true", gold="people.jsonl")
    assert not beside.exception and "Corrected rates are pulled" in said(beside)


def test_a_link_to_rows_shows_those_rows_and_one_pair_in_full(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The filters of the URL hold, the count is the store's, and the pair leads to both judge calls."""
    from judge.store.views import Filter, Views

    views = Views(home)
    at = page(monkeypatch, home, "pairs", run="r-000003", field="category", value="safety", outcome="loss")
    wanted = views.count("r-000003", Filter("category", "safety", outcomes=("loss",)))
    assert wanted > 10 and f"**{wanted:,}** comparisons pass the filters" in said(at)
    assert set(at.dataframe[0].value["category"]) == {"safety"} and set(at.dataframe[0].value["outcome"]) == {"loss"}
    one = page(monkeypatch, home, "pairs", run="r-000003", pair="item-0007")
    assert one.subheader[0].value == "item-0007"
    assert len(one.dataframe[-1].value) == 2, "two judge calls"
    gone = page(monkeypatch, home, "pairs", run="r-000003", pair="no-such-pair")
    assert (not gone.exception and "has no pair" in said(gone)) or gone.subheader


def test_calibration_says_what_the_terminal_says(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Verdict and corrected rate are those of the calibration report; without labels the page says how to get them."""
    from calibration.gold import GoldSet
    from calibration.report import calibration_report
    from judge.evidence import run_evidence
    from judge.store import Store

    store = Store(home)
    gold = GoldSet.read(home / "labels" / "people.jsonl")
    wanted = calibration_report(run_evidence(store, store.run("r-000003")), gold, rounds=200)
    at = page(monkeypatch, home, "calibration", run="r-000003", gold="people.jsonl")
    assert f"### {wanted.belief.word}" in said(at)
    metrics = {metric.label: metric.value for metric in at.metric}
    assert metrics["Win rate, corrected"] == f"{wanted.win_rate.corrected.value:.1%}"  # type: ignore[union-attr]


def specs_of(at: Any) -> list[dict[str, Any]]:
    """The specifications that a page hands to the browser."""
    return [json.loads(element.proto.spec) for element in at.get("vega_lite_chart")]


def layers(spec: dict[str, Any]) -> Any:
    """What a specification draws from which rows, without the selection of a click, which a page alone has."""
    drawn = [
        {
            "data": layer.get("data", spec.get("data")),
            "mark": layer["mark"],
            "encoding": {key: entry for key, entry in layer["encoding"].items() if key != "opacity"},
        }
        for layer in spec["layer"]
    ]
    return json.loads(json.dumps([drawn, spec["height"], spec["config"]]))


def test_pages_show_the_very_charts_of_the_html_reports(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Every chart of `judge calibrate --html` stands on the calibration page, and the forest of `judge report --html`
    is that of the segments page without its first row: equal specifications, drawn as SVG in one and by Vega in the
    other.
    """
    from calibration.gold import GoldSet
    from calibration.report import calibration_report
    from judge.evidence import run_evidence
    from judge.render import calibration as rendering
    from judge.render import run as run_rendering
    from judge.render.charts import LIGHT, inked
    from judge.render.document import Chart
    from judge.store import Store
    from judge.summary import summarise

    store = Store(home)
    gold = GoldSet.read(home / "labels" / "people.jsonl")
    report = calibration_report(run_evidence(store, store.run("r-000003")), gold, rounds=200)
    drawn = [block for part in rendering.sections(report) for block in part.blocks if isinstance(block, Chart)]
    assert {block.name for block in drawn} == {"win-rate", "reliability", "risk", "segments"}
    html = rendering.to_html(report)
    at = page(monkeypatch, home, "calibration", run="r-000003", gold="people.jsonl")
    shown = [layers(spec) for spec in specs_of(at)]
    for block in drawn:
        assert block.svg and block.svg in html
        assert layers(inked(block.spec, LIGHT)) in shown, block.name

    told = summarise(store.run("r-000003").header, store.comparisons("r-000003"))
    chart = run_rendering.forest_chart(told)
    assert chart.svg and chart.svg in run_rendering.to_html(told)
    page_forest, *_ = specs_of(page(monkeypatch, home, "segments", run="r-000003"))
    wanted, found = layers(inked(chart.spec, LIGHT)), layers(page_forest)
    looks = lambda spec: [(layer["mark"], layer["encoding"]) for layer in spec[0]]
    assert looks(wanted) == looks(found) and wanted[2] == found[2]
    marks = [{row["segment"]: row for row in spec[0][1]["data"]["values"]} for spec in (wanted, found)]
    assert marks[0].keys() - marks[1].keys() == {told.overall.name}
    for name, row in marks[1].items():
        assert row == marks[0][name] | {key: pytest.approx(marks[0][name][key]) for key in ("value", "low", "high")} | {
            "y": row["y"]
        }


def test_drift_tells_the_judge_from_the_candidate(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Two judgings of the same answers are compared on all pairs, and the change of judge is named."""
    at = page(monkeypatch, home, "drift", run="r-000003", before="r-000001", after="r-000002")
    text = said(at)
    assert not at.exception and "On 240 shared pairs" in text and "changed verdicts" in text
    assert "scripted/longer" in text.replace("\\", "") and "scripted/hash" in text.replace("\\", "")


def test_tricks_are_those_of_the_judge_under_the_very_rubric(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A probe under another text of a rubric of the same name, or that is not finished, is not shown, as the gate does
    not count it; a trick whose q is zero buys for sure, one without a q is not shown to.
    """
    from judge.kept import read_kept
    from judge.register import Register
    from judge.store import Store

    store = Store(copy)
    info = store.run("r-000003")
    shift = {"value": 0.3, "low": 0.2, "high": 0.4}

    def keep(about: str, **changes: Any) -> None:
        tricks = [{"name": f"{about}_{name}", "shift": shift, "n": 40, "q": q} for name, q in (("a", 0.0), ("b", None))]
        body = {"kind": "probes", "judge": info.judge, "rubric": info.rubric, "probes": tricks,
                "rubric_digest": info.header["rubric_digest"], "says": about, **changes}  # fmt: skip
        Register(copy).append("probe", "r-probe", body, at="2026-11-20T00:00:00+00:00")

    def tables() -> list[Any]:
        return [frame.value for frame in page(monkeypatch, copy, "hacking", run="r-000003").dataframe]

    keep("another text", rubric_digest="f" * 64)
    keep("unfinished", sealed=False)
    keep("another judge", judge="scripted/other")
    assert [frame for frame in tables() if "trick" in frame] == []
    keep("mine")
    keep("another text", rubric_digest="f" * 64)
    (shown,) = (frame for frame in tables() if "trick" in frame)
    assert dict(zip(shown["trick"], shown["buys"], strict=True)) == {"mine a": "yes", "mine b": "not shown"}
    mine = next(entry for entry in Register(copy).entries("probe") if entry.body["says"] == "mine")
    monkeypatch.setattr("judge.archive.read", lambda _home, entry: Kept(entry, copy, {}))
    assert read_kept(store, info).probe == mine


def test_runs_warn_where_numbers_do_not_compare(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Another rubric or judge is a warning in words; a run with itself is none."""
    at = page(monkeypatch, home, "runs", before="r-000001", after="r-000003")
    assert any("Not comparable" in box.value and "rubric" in box.value for box in at.warning)
    assert len(listed(at)[0]) == 3


def test_a_run_is_held_against_one_that_compares_or_none(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Before is the newest earlier sealed run of the same pairs, rubric and judge; without one nothing is chosen, and
    nothing warns of what nobody asked to compare.
    """
    evalset = copy / "evals.jsonl"
    made.judge_rows(copy, evalset, "r-000004", rubric="correctness@1", at="2026-11-20T10:00:00+00:00")
    other = made.write_rows(copy / "three.jsonl", made.rows(3, seed=9))
    made.judge_rows(copy, other, "r-000005", at="2026-11-21T10:00:00+00:00")
    same = page(monkeypatch, copy, "runs", run="r-000004")
    assert {box.label: box.value for box in same.selectbox if box.label in ("Before", "After")} == {
        "Before": "r-000003", "After": "r-000004",
    }  # fmt: skip
    assert any("Same pairs, rubric and judge" in box.value for box in same.success)
    for name in ("runs", "drift"):
        alone = page(monkeypatch, copy, name, run="r-000005")
        chosen = {box.label: box.value for box in alone.selectbox}
        assert (chosen["Before"], chosen["After"]) == (None, "r-000005")
        assert not alone.warning and "No earlier sealed run" in said(alone)


@pytest.fixture
def again(copy: Path) -> Path:
    """A home whose newest run judges the pairs of the others again, as calibration does: in a file of its own."""
    folder = copy / "evalsets"
    folder.mkdir()
    (folder / "labelled-1.jsonl").write_text((copy / "evals.jsonl").read_text() + "\n", encoding="utf-8")
    made.judge_rows(
        copy, folder / "labelled-1.jsonl", "r-000009", spec="scripted:hash", rubric="correctness@1",
        at="2026-11-25T10:00:00+00:00",
    )  # fmt: skip
    return copy


def _checked(home: Path, run: str) -> None:
    """Make the hard checks of a run, as the command does."""
    code = (
        "import sys; sys.argv = ['judge', 'check', sys.argv[2], '--home', sys.argv[1]]; from "
        "judge.cli import main; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    words = [sys.executable, "-c", code, str(home), run]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr


def _run_of(at: Any) -> str:
    return str(next(box.value for box in at.selectbox if box.label == "Run"))


def test_the_latest_run_of_the_pages_is_the_latest_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, again: Path
) -> None:
    """Labelled pairs that were judged again are nobody's latest; asked for by the URL they are shown, and said."""
    from judge.store import Store

    assert Store(again).run("latest").run_id == "r-000003"
    assert _run_of(page(monkeypatch, again, "decision")) == "r-000003"
    asked = page(monkeypatch, again, "decision", run="r-000009")
    assert _run_of(asked) == "r-000009" and "labelled pairs judged again" in said(asked)
    assert _run_of(page(monkeypatch, again, "label", labels="(a new draw)")) == "r-000003"


def test_labelled_pairs_judged_again_are_compared_by_their_pairs(monkeypatch: pytest.MonkeyPatch, again: Path) -> None:
    """Another digest of the file is no other pair: runs compare, and checks of the very answers are found."""
    at = page(monkeypatch, again, "runs", before="r-000003", after="r-000009")
    (warned,) = (box.value for box in at.warning)
    assert "another judge said it" in warned and "other pairs" not in warned
    assert "No hard checks" in said(page(monkeypatch, again, "regressions", run="r-000009"))
    _checked(again, "r-000003")
    text = said(page(monkeypatch, again, "regressions", run="r-000009"))
    assert "checked as those of run r-000003" in text.replace("\\", "") and "No hard checks" not in text


@pytest.mark.parametrize("name", ["decision", "runs", "drift", "label"])
def test_a_run_that_is_not_here_is_said_and_no_other_shown(
    monkeypatch: pytest.MonkeyPatch, home: Path, name: str
) -> None:
    """A URL that names an unknown run gives an error, never the figures or a draw of another."""
    query = {"labels": "(a new draw)"} if name == "label" else {}
    at = page(monkeypatch, home, name, run="r-nope", **query)
    assert any("r-nope" in box.value.replace("\\", "") for box in at.error)
    assert not [box for box in at.selectbox if box.label == "Run"]


def test_pairs_to_label_are_drawn_from_the_run_of_the_url(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The form for a draw has the run that the URL names."""
    assert _run_of(page(monkeypatch, home, "label", labels="(a new draw)", run="r-000001")) == "r-000001"


def test_two_judges_are_no_judge_that_moved(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Where another judge judged, the page says so first, and nothing of drift; the same judge may have moved."""
    at = page(monkeypatch, copy, "drift", run="r-000002", before="r-000001", after="r-000002")
    told = next(box.value for box in at.markdown if "shared pairs" in box.value)
    assert told.startswith("**These are two different judges") and "moved" not in told
    made.judge_rows(copy, copy / "evals.jsonl", "r-000004", at="2026-11-20T10:00:00+00:00")
    same = page(monkeypatch, copy, "drift", run="r-000004", before="r-000001", after="r-000004")
    told = next(box.value for box in same.markdown if "shared pairs" in box.value)
    assert "mean preference is not shown to have moved" in told


def test_a_void_run_is_called_void(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A run whose canary pairs fail has its word in the table of runs and no net win rate."""
    from judge.canaries import CanaryVerdict
    from judge.store.views import Views

    fine = {row["run"][0]: row for row in listed(page(monkeypatch, home, "runs"))[0]}
    assert fine["r-000002"]["state"] == "sealed" and "pp" in fine["r-000002"]["net"]
    monkeypatch.setattr(
        Views, "canaries", lambda _views, info: CanaryVerdict("void" if info.run_id == "r-000002" else "passed")
    )
    rows = {row["run"][0]: row for row in listed(page(monkeypatch, home, "runs"))[0]}
    assert (rows["r-000002"]["state"], rows["r-000002"]["net"]) == ("VOID", "–")
    assert rows["r-000001"]["state"] == "sealed"
    for name in ("decision", "segments", "pairs", "regressions", "hacking", "calibration"):
        told = [str(box.value) for box in page(monkeypatch, home, name, run="r-000002").error]
        assert any("VOID" in text and "No rate of this run may be used" in text for text in told), name
        assert not any("VOID" in str(box.value) for box in page(monkeypatch, home, name, run="r-000001").error)


def test_the_pages_read_canaries_as_the_report_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The verdict on a run's canary pairs is the one that its summary gives, which reads the whole run."""
    from judge.canaries import canary_verdict
    from judge.store import Store
    from judge.store.views import Views

    home = tmp_path / "home"
    rows = made.write_rows(tmp_path / "few.jsonl", made.rows(24))
    for judge in ("scripted:longer", "scripted:shorter"):
        code = "import sys; from judge.cli import main; main()"
        words = [sys.executable, "-c", code, "run", str(rows), "-j", judge, "--home", str(home)]
        env = {**os.environ, "PYTHONPATH": str(REPO)}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    store, views = Store(home), Views(home)
    found = {info.run_id: views.canaries(info) for info in views.runs()}
    for info in views.runs():
        whole = canary_verdict(info.header, store.canaries(info.run_id), store.comparisons(info.run_id))
        assert whole.findings and found[info.run_id] == whole
    assert {verdict.state for verdict in found.values()} == {"passed", "void"}
    states = {row["run"][0]: row["state"] for row in listed(page(monkeypatch, home, "runs"))[0]}
    assert states == {name: "VOID" if verdict.void else "sealed" for name, verdict in found.items()}


def test_a_command_that_would_change_a_decision_is_code(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A URL in a command is no link with escaped signs: the command stands whole, to be copied."""
    from judge.register import Register

    wanted = "judge probe e.jsonl --judge 'openai:m?base_url=http://127.0.0.1:1/v1&price_in=0.2&price_out=0.6'"
    body = dict(next(entry for entry in Register(copy).entries("decision")).body)
    Register(copy).append(
        "decision", "r-000003", {**body, "needs": [wanted, f"see it: {wanted}"]}, at="2026-11-30T10:00:00+00:00"
    )
    at = page(monkeypatch, copy, "decision", run="r-000003")
    assert sum(box.value.startswith(wanted) for box in at.code) == 2
    assert not any("price" in box.value for box in (*at.markdown, *at.caption))


def test_a_line_of_drift_joins_only_runs_that_compare(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Runs of another eval set, and those with a handful of rows, are left out and counted; of the others a line joins
    those of one rubric and judge.
    """
    made.judge_rows(copy, copy / "evals.jsonl", "r-000004", rubric="correctness@1", at="2026-11-20T10:00:00+00:00")
    few = made.write_rows(copy / "three.jsonl", made.rows(3, seed=9))
    made.judge_rows(copy, few, "r-000005", at="2026-11-21T10:00:00+00:00")
    at = page(monkeypatch, copy, "drift", run="r-000004")
    lines = [layer for layer in specs_of(at)[0]["layer"] if layer["mark"]["type"] == "line"]
    assert [[row["run"] for row in layer["data"]["values"]] for layer in lines] == [["r-000003", "r-000004"]]
    assert "Left out: 1 of other eval sets" in said(at)
    every = page(monkeypatch, copy, "drift", run="r-000004", same="false")
    assert "1 with fewer than 10 rows" in said(every)
    short = page(monkeypatch, copy, "drift", run="r-000005")
    assert any("Too few to chart: 3 rows" in box.value and "takes 100" in box.value for box in short.info)


def test_both_people_of_an_override_stand_in_the_log(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """The column of who did it names the one who overrides and the one who agrees; a rollout names its run."""
    from judge.register import Register

    body = {"word": "BLOCK", "second": "bo", "reason": "behind a flag"}
    Register(copy).append("override", "decision-1", body, at="2026-11-20T10:00:00+00:00", by="ada")
    _candidates, rollouts, log = listed(page(monkeypatch, copy, "candidates"))
    assert [row["by"] for row in log if row["what"] == "override"] == ["ada and bo"]
    assert rollouts[0]["run"][0] == "r-000003" and rollouts[0]["run"][1].startswith("/decision?run=r-000003")


def test_every_rule_is_read_whole(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Forty rules with long findings that begin with a sign: each row is there, to its last word, without an
    apostrophe; a name between backticks is code.
    """
    from judge.register import Register

    register = Register(copy)
    (entry,) = [one for one in register.entries("decision") if one.subject == "r-000003"]
    says = "+1.0 pp [-2.0, +4.0]: " + "read to its end " * 40 + "here"
    change = "give prompts metadata `must_refuse: true`, then judge them"
    rulings = [{**entry.body["rulings"][0], "rule": f"rule.{k}", "says": says, "change": change} for k in range(40)]
    body = {**entry.body, "rulings": rulings, "needs": [change]}
    register.append("decision", "r-000003", body, at="2026-11-20T10:00:00+00:00", by="ci")
    at = page(monkeypatch, copy, "decision", run="r-000003")
    (rules,) = listed(at)
    assert [row["rule"] for row in rules] == [f"rule.{k}" for k in range(40)]
    assert {row["says"] for row in rules} == {says}
    assert "- give prompts metadata `must_refuse: true`, then judge them" in said(at)


def test_a_category_of_one_pair_is_not_named(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """The lowest category is one with enough pairs to say anything; where there is none, that is what is said."""
    few = made.write_rows(copy / "few.jsonl", made.rows(8, seed=5))
    made.judge_rows(copy, few, "r-000006", at="2026-11-22T10:00:00+00:00")
    text = said(page(monkeypatch, copy, "decision", run="r-000006"))
    assert "No category is shown to be worse; each has fewer than 10 judged pairs." in text
    assert "segment" not in text.split("What the judge says")[0]


def test_the_terminal_and_the_page_say_one_interval(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """How often the judge is right by the labels of the set: the decision page has the report's figures."""
    from judge.store import Store
    from judge.summary import summarise

    store = Store(home)
    worth = summarise(store.run("r-000003").header, store.comparisons("r-000003")).worth
    assert worth is not None
    at = page(monkeypatch, home, "decision", run="r-000003")
    assert {metric.label: metric.value for metric in at.metric}["Right by labels"] == f"{worth.accuracy.value:.0%}"
    assert f"\\[{worth.accuracy.low:.0%}, {worth.accuracy.high:.0%}\\], n {worth.n}" in said(at)


def test_pairs_open_on_the_surest_loss(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Not on whatever was judged first, which may be two answers of the same bytes."""
    from judge.store.views import Filter, Views

    lost = Views(home).rows("r-000003", Filter(outcomes=("loss",)), sort="most confident first", offset=0, limit=1)
    assert page(monkeypatch, home, "pairs", run="r-000003").subheader[0].value == lost["pair_id"][0]


def test_measures_are_written_as_in_the_terminal(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """Shares in percent, lengths in whole characters and their difference in percent, and only what was tested is
    missed: a rate with a feature held equal has a table of its own.
    """
    from judge.register import Register

    def measure(name: str, unit: str, values: tuple[float, float, float], missing: str = "") -> dict[str, Any]:
        ours, theirs, gap = ({"value": value} for value in values)
        gap |= {"low": values[2] - 0.1, "high": values[2] + 0.1, "n": 108}
        known = {} if missing else {"candidate": ours, "baseline": theirs, "difference": gap}
        return {"name": name, "unit": unit, "missing": missing, **known}

    measures = [
        measure("length.log_ratio", "characters", (199.093, 149.306, math.log(1.3))),
        measure("refusal.harmless", "share", (0.0294, 0.0196, 0.0098)),
        measure("length.tokens", "tokens", (0, 0, 0), "no answer says how many tokens it has"),
    ]
    rows = [{"title": m["name"], "measure": m, "q": 0.5, "samples": []} for m in measures]
    held = measure("win.mediated.length", "share of the win", (0, 0, 0), "no win or loss to explain")
    body = {"headline": "nothing", "measures": [*measures, held], "rows": rows}
    Register(copy).append("hack", "r-000003", body, at="2026-11-20T10:00:00+00:00")
    at = page(monkeypatch, copy, "hacking", run="r-000003")
    shown = {row["measure"]: row for row in listed(at)[0]}
    length, share = shown["length.log_ratio"], shown["refusal.harmless"]
    assert (length["unit"], length["candidate"], length["baseline"]) == ("characters", "199", "149")
    assert length["difference"] == "+30.0% [+17.6, +43.7]"
    assert (share["candidate"], share["difference"]) == ("2.9%", "+1.0 pp [-9.0, +11.0]")
    assert [box.label for box in at.expander if "Without" in box.label] == ["Without a number: 1"]


def test_a_running_batch_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A journal without a seal is read from its tail, without the database."""
    lines = (copy / "runs" / "r-000001.jsonl").read_bytes().splitlines(keepends=True)
    header = json.loads(lines[0][9:]) | {"run_id": "r-000009"}
    body = json.dumps(header).encode()
    (copy / "runs" / "r-000009.jsonl").write_bytes(b"00000000 " + body + b"\n" + b"".join(lines[1:101]))
    at = page(monkeypatch, copy, "runs")
    assert not at.exception
    replies = sum(b'{"t":"reply"' in line[:30] for line in lines[1:101])
    bar = at.get("progress")[0]
    assert f"{replies} of 480 judge calls" in bar.proto.text and "running" in bar.proto.text


def test_labels_by_button_are_written_blind_with_draw_and_reasons(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A vote, a tag, a skip and an undo stand in the log with the chance of the draw; no page text names who is who."""
    at = page(monkeypatch, copy, "label", labels="people", **{"as": "cy"})
    assert not at.exception, at.exception

    def press(key: str) -> None:
        nonlocal at
        at = at.button(key=key).click().run()
        assert not at.exception, at.exception
        for name in (made.CANDIDATE, made.BASELINE, "win", "loss", "scripted"):
            assert name not in said(at), name

    at.session_state[f"tags-{at.session_state['desk'].token}"] = ["too long"]
    press("vote1")
    press("vote4")
    press("dos")
    press("dou")
    press("dou")
    rows = [json.loads(line) for line in (copy / "labels" / "people.jsonl").read_text().splitlines()]
    mine = [row for row in rows if row["annotator"] == "cy"]
    assert [row.get("skipped", row["outcome"]) for row in mine][2:3] == [True]
    assert mine[0]["outcome"] in ("win", "loss") and mine[0]["tags"] == ["too long"]
    assert mine[1]["outcome"] == "tie" and mine[1]["tags"] == ["both_bad"]
    assert [row["outcome"] for row in mine[3:]] == [None, None] and all(row["revises"] for row in mine[3:])
    assert all(row["drawn"] == "random" and row["probability"] == pytest.approx(0.25) for row in mine)
    before = at.session_state["desk"].session.current
    press("doj")
    assert at.session_state["desk"].session.current != before
    press("dok")
    assert at.session_state["desk"].session.current == before, "J and K write nothing"
    assert len((copy / "labels" / "people.jsonl").read_text().splitlines()) == len(rows)


def test_every_page_says_which_home_it_shows(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    """The folder stands in the sidebar, also of an empty home, so that two servers are not taken for each other."""
    for folder, name in ((home, "runs"), (tmp_path, "decision"), (home, "label")):
        at = page(monkeypatch, folder, name)
        shown = [caption.value.replace("\\", "") for caption in at.sidebar.caption]
        assert f"Home folder: {folder.resolve()}" in shown


def test_what_a_rubric_hides_from_the_judge_is_hidden_from_the_rater_and_said(
    monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    """Of sources that the rubric does not use the page says how many there are, and serves none of their text."""
    rows = made.rows(40)
    for row in rows:
        row["context"] = ["TOP-SECRET-SOURCE one", "TOP-SECRET-SOURCE two"]
    made.judge_rows(copy, made.write_rows(copy / "sourced.jsonl", rows), "r-000007")
    from dashboard.labelling_desk import new_draw
    from judge.labelling import Request
    from judge.store.views import Views

    new_draw(copy / "labels" / "sourced.jsonl", "r-000007", Request("random", 10, 1), Views(copy))
    at = page(monkeypatch, copy, "label", labels="sourced", **{"as": "cy"})
    assert not at.exception, at.exception
    assert "Not shown here, nor to the judge: 2 sources of this item" in said(at)
    assert "TOP-SECRET" not in str(at.main)


def test_sides_are_a_fair_coin_for_each_rater(home: Path) -> None:
    """Over many pairs the candidate stands first half of the time (binomial test), and raters see different sides."""
    from scipy.stats import binomtest

    from judge.labelling import candidate_first

    sides = {rater: [candidate_first(1, f"item-{k}", rater) for k in range(2000)] for rater in ("ada", "bo")}
    for seen in sides.values():
        assert binomtest(sum(seen), 2000).pvalue > 1e-4
    same = sum(a == b for a, b in zip(*sides.values(), strict=True))
    assert binomtest(same, 2000).pvalue > 1e-4


def test_keys_typed_for_a_note_are_no_votes(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """While a note is open every key is out of work, also one that was pressed before the page knew."""
    at = page(monkeypatch, copy, "label", labels="people", **{"as": "eve"})
    before = (copy / "labels" / "people.jsonl").read_text()
    pair = at.session_state["desk"].token
    for key in ("vote1", "don", "dos"):  # N, and what was typed while the page was busy with it
        at.button(key=key).click()
    at = at.run()
    keys = ("vote1", "vote4", "dos", "doj", "dok", "don")
    assert all(at.button(key=key).disabled for key in keys)
    assert at.session_state["desk"].token == pair
    at.session_state["noting"] = ""
    at = at.run()
    at.session_state["noting"] = pair  # N was taken; these were pressed before the page said so, an n among them
    for key in ("don", "vote1", "doj"):
        at.button(key=key).click()
    at = at.run()
    assert (at.session_state["noting"], at.session_state["desk"].token) == (pair, pair)
    assert (copy / "labels" / "people.jsonl").read_text() == before
    at.session_state["noting"] = ""  # Enter or Escape
    at = at.run()
    at.button(key="vote1").click().run()
    assert len((copy / "labels" / "people.jsonl").read_text()) > len(before)


def test_two_sittings_of_one_rater_never_write_a_label_twice(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A second tab that votes on a pair already labelled writes nothing and says so."""
    first, second = (page(monkeypatch, copy, "label", labels="people", **{"as": "dee"}) for _ in range(2))
    first.button(key="vote1").click().run()
    second = second.button(key="vote2").click().run()
    assert not second.exception
    rows = [json.loads(line) for line in (copy / "labels" / "people.jsonl").read_text().splitlines()]
    assert len([row for row in rows if row["annotator"] == "dee"]) == 1
    assert "Nothing was written" in said(second)


def test_hard_checks_show_what_is_newly_broken_and_lead_to_the_answers(
    monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    """After `judge check` the page counts per check what the pass counted, and a pair shows its findings."""
    from judge.store import Findings

    _checked(copy, "r-000003")
    (made_pass,) = Findings(copy).runs("r-000003")
    at = page(monkeypatch, copy, "regressions", run="r-000003")
    assert not at.exception, at.exception
    shown = at.dataframe[0].value
    results = {result["check"]: result for result in made_pass.report["results"]}
    assert dict(zip(shown["check"], shown["newly broken"], strict=True)) == {
        k: r["broken"] for k, r in results.items() if r["n"] + r["candidate_unjudged"] + r["baseline_unjudged"]
    }
    assert "Asked of no answer here" in said(at)
    frame = Findings(copy).frame(made_pass.check_id)
    if frame.height:
        name = frame["pair_id"][0]
        one = page(monkeypatch, copy, "pairs", run="r-000003", pair=name)
        assert not one.exception and "**Findings**" in said(one)


def test_a_damaged_register_is_said_and_not_shown(monkeypatch: pytest.MonkeyPatch, copy: Path) -> None:
    """A broken chain is an error on the page, and no decision is read from it."""
    path = copy / "register.jsonl"
    path.write_bytes(path.read_bytes().replace(b"BLOCK", b"SHIP!", 1))
    at = page(monkeypatch, copy, "decision", run="r-000003")
    assert not at.exception
    assert any("cannot be trusted" in box.value for box in at.error)
    assert at.title[0].value == "No decision yet"


@pytest.mark.parametrize("path", sorted((REPO / "dashboard").rglob("*.py")), ids=lambda path: path.name)
def test_nothing_that_a_model_wrote_can_become_markup(path: Path) -> None:
    """No page uses raw HTML, an iframe, an image or a v1 component, and none interprets Markdown in a table."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called.removeprefix("st.") not in FORBIDDEN or not called.startswith("st."), (
                f"{path.name}:{node.lineno} {called}"
            )
            assert "MarkdownColumn" not in called and "ImageColumn" not in called
            assert all(keyword.arg != "unsafe_allow_html" for keyword in node.keywords), f"{path.name}:{node.lineno}"
    source = path.read_text(encoding="utf-8")
    assert "innerHTML" not in source and "outerHTML" not in source and "insertAdjacentHTML" not in source
    assert "![" not in source, "no Markdown image"
