"""Pure views: valid specifications, colours that can be read, texts that cannot run, tables without formulas."""

from __future__ import annotations

import io
import json
import math
import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import polars
import pytest

from calibration.sums import Sums
from dashboard.views import charts, figures, tables, texts
from judge.render.charts import PAPER, rounded, trace
from judge.render.svg import draw, picture
from judge.render.words import markdown, prose
from judge.types import Span

altair = pytest.importorskip("altair", reason="altair is not installed: pip install 'touchstone-judge[dashboard]'")

SEGMENTS = [
    {"segment": name, "kind": kind, "value": value, "low": value - 0.2, "high": value + 0.2, "verdict": word, "n": 40}
    for name, value, word in (("a", -0.5, "worse"), ("<script>b", 0.05, "unclear"), ("c", 0.6, "better"))
    for kind in ("judge", "corrected by labels")
]
BARS = [{"segment": "a", "win": 0.5, "tie": 0.2, "loss": 0.3}, {"segment": "b", "win": 1.0, "tie": 0.0, "loss": 0.0}]
HEAT = [
    {"row": "a", "column": "x", "n": 40, "verdict": "better", "net": 0.4, "net_low": 0.1, "net_high": 0.7},
    {"row": "a", "column": "y", "n": 3, "verdict": "unclear", "net": None, "net_low": None, "net_high": None},
]
RUNS = [
    {
        "run": f"r-{k}",
        "at": "2026-11-01",
        "value": 0.1 * k,
        "low": 0.1 * k - 0.1,
        "high": 0.1 * k + 0.1,
        "n": 9,
        "series": "a" if k < 3 else "b",
    }
    for k in range(4)
]
STRETCHES = [
    {
        "stretch": k,
        "value": 0.1,
        "low": -0.2,
        "centre": 0.0,
        "high": 0.2,
        "n": 5,
        "state": "outside" if k == 3 else "inside",
    }
    for k in range(1, 9)
]
LINES = [{"name": name, "forecast": f, "observed": f, "n": 5} for name in ("own", "held out") for f in (0.2, 0.8)]
BAND = [{"forecast": 0.2, "low": 0.1, "high": 0.3}, {"forecast": 0.8, "low": 0.7, "high": 0.9}]
CURVE = [{"coverage": 1.0, "risk": 0.2, "bound": 0.3, "threshold": 0.5, "n": 50}]
COUNTS = [{"row": "win", "column": "loss", "n": 4}, {"row": "loss", "column": "loss", "n": 40}]


def specs(dark: bool) -> dict[str, dict[str, Any]]:
    """Every chart once."""
    ink = charts.ink(dark=dark)
    return {
        "forest": charts.forest(SEGMENTS, ink),
        "bars": charts.bars(BARS, ink),
        "heat": charts.heat(HEAT, ink),
        "over_runs": charts.over_runs(
            RUNS, ink, title="net", fmt="+.0%", marks=[{"run": "r-2", "what": "judge changed"}]
        ),
        "control": charts.control(STRETCHES, ink, title="net", fmt="+.0%", alarm=3),
        "histogram": charts.histogram([{"low": 0.5, "high": 0.6, "n": 4}], ink, title="confidence"),
        "reliability": charts.reliability(LINES, BAND, ink),
        "risk": charts.risk(CURVE, ink, levels=[0.1, 0.2]),
        "sums": charts.sums({"up": [0.0, 1.0, 3.0], "down": [0.0, 0.5, 0.1]}, ink, limit=2.5, title="Stretch"),
        "confusion": charts.confusion(COUNTS, ink, x_title="judge", y_title="people"),
    }


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", sorted(specs(dark=False)))
def test_every_chart_is_valid_vega_lite_and_fetches_nothing(name: str, dark: bool) -> None:
    """Altair's schema accepts the specification; its data is inside it, and no address but the schema's occurs."""
    spec = specs(dark)[name]
    altair.Chart.from_dict(json.loads(json.dumps(spec)))
    text = json.dumps({key: value for key, value in spec.items() if key != "$schema"})
    assert "http" not in text and '"url"' not in text
    assert spec["data"]["values"], "the data is inside"


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("dark", "ground"), [(False, "#ffffff"), (True, "#11181c")])
def test_every_written_colour_has_a_contrast_of_four_and_a_half(dark: bool, ground: str) -> None:
    """Words on the page, on bars and on cells of heat tables can be read in both themes."""
    ink = charts.ink(dark=dark)
    for colour in (ink.better, ink.worse, ink.unclear, ink.accent, ink.text):
        assert contrast(colour, ground) >= 4.5, colour
    inside = "#0b1214" if dark else "#ffffff"
    assert contrast(inside, ink.better) >= 4.5 and contrast(inside, ink.worse) >= 4.5
    assert contrast(ink.text, ink.line) >= 4.5
    for colour in (ink.better, ink.worse, ink.accent, ink.middle):
        assert contrast(ink.text, ink.soft(colour)) >= 4.5, colour


def test_better_and_worse_are_words_before_they_are_colours() -> None:
    """The forest plot writes the verdict of every segment; the control chart gives what lies outside its own shape."""
    spec = specs(dark=False)["forest"]
    (said,) = [layer for layer in spec["layer"] if layer["encoding"].get("text", {}).get("field") == "said"]
    assert [row["said"] for row in said["data"]["values"]] == [
        "-50 [-70, -30] worse",
        "+5 [-15, +25] unclear",
        "+60 [+40, +80] better",
    ]
    shapes = [
        layer["encoding"]["shape"] for layer in specs(dark=False)["control"]["layer"] if "shape" in layer["encoding"]
    ]
    assert shapes[0]["scale"]["range"] == ["circle", "triangle-up"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", sorted(specs(dark=False)))
def test_every_chart_can_be_saved_as_svg_from_the_very_specification(name: str, dark: bool) -> None:
    """The file is well-formed, holds every word of the specification, keeps to its frame, and fetches nothing."""
    ink = charts.ink(dark=dark)
    spec = specs(dark)[name]
    data = picture(spec, ink, title="<chart>")
    root = ET.fromstring(data)  # noqa: S314 - our own
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert b"http" not in data.replace(b"http://www.w3.org/2000/svg", b"") and b"<script" not in data
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert set(tags) <= {"svg", "title", "desc", "rect", "line", "polyline", "polygon", "circle", "text", "g"}
    for element in root.iter():
        for key, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
            if key in element.attrib:
                assert -1 <= float(element.attrib[key]) <= most + 1, (element.tag, element.attrib)
    words = {element.text for element in root.iter() if element.tag.endswith("}text")}
    for layer in spec["layer"]:
        rows = layer.get("data", spec["data"])["values"]
        told = layer["encoding"].get("text", {})
        assert {row[told["field"]] for row in rows if "field" in told} <= words | {""}
    marks = [layer for layer in spec["layer"] if layer["mark"]["type"] == "point"]
    shown = sum(len(layer.get("data", spec["data"])["values"]) for layer in marks)
    assert tags.count("g") >= shown, "a mark that is pointed at says its values"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec["layer"][0]["mark"].update(type="arc"),
        lambda spec: spec["layer"][0]["encoding"].update(size={"field": "n"}),
        lambda spec: spec["layer"][1]["encoding"]["x"]["axis"].update(labelExpr="datum.label"),
    ],
)
def test_what_the_drawing_does_not_know_is_an_error_and_not_left_out(spoil: Any) -> None:
    """A mark, a channel or an expression of Vega-Lite that is not drawn stops the report."""
    spec = specs(dark=False)["forest"]
    spoil(spec)
    with pytest.raises(ValueError, match="no drawing of"):
        draw(spec, name="x", title="x")


def test_a_chart_of_a_report_takes_the_colours_of_the_theme_and_changes_in_nothing_else() -> None:
    """What is made for paper and coloured for a theme is what is made for that theme."""
    for ink in (charts.ink(dark=False), charts.ink(dark=True)):
        assert charts.inked(charts.forest(SEGMENTS, PAPER), ink) == charts.forest(SEGMENTS, ink)
        assert charts.inked(charts.reliability(LINES, BAND, PAPER), ink) == charts.reliability(LINES, BAND, ink)
        assert charts.inked(charts.risk(CURVE, PAPER), ink) == charts.risk(CURVE, ink)


def test_places_in_a_drawing_follow_the_values() -> None:
    """Marks stand where a linear scale puts them: the middle between two others is drawn in the middle."""
    rows = [{**SEGMENTS[0], "segment": str(k), "kind": "judge", "value": v, "low": v, "high": v}
            for k, v in enumerate((-0.4, 0.0, 0.4))]  # fmt: skip
    text = draw(charts.forest(rows, charts.ink(dark=False)), name="x", title="x")
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    assert len(places) == 3 and places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)
    assert places[0] < places[1]


def test_no_character_reaches_the_picture_that_xml_cannot_hold() -> None:
    """Whatever a name or title holds, the file is well-formed; what cannot be written is shown by its code."""
    every = "".join(map(chr, [*range(0x300), *range(0xD7F0, 0xE010), *range(0xFDC0, 0x10010), 0x1FFFF, 0x10FFFF]))
    ink = charts.ink(dark=False)
    for start in range(0, len(every), 12):
        part = every[start : start + 12]
        spec = charts.forest([{**SEGMENTS[0], "segment": part, "kind": part}], ink)
        root = ET.fromstring(picture(spec, ink, title=part))  # noqa: S314 - our own
        assert root.tag.endswith("svg")
        ET.fromstring(draw(spec, name=part, title=part))  # noqa: S314 - our own
    assert "<U+FFFE>" in (ET.fromstring(picture(spec, ink, title="a\ufffe"))[0].text or "")  # noqa: S314 - our own


@pytest.mark.parametrize("name", ["forest", "bars", "risk"])
def test_a_chart_without_rows_is_saved_as_a_picture_that_says_so(name: str) -> None:
    """The file is an SVG with its ground and words, not a bare rectangle."""
    ink = charts.ink(dark=True)
    make: dict[str, Any] = {"forest": charts.forest, "bars": charts.bars, "risk": charts.risk}
    root = ET.fromstring(picture(make[name]([], ink), ink, title="a title"))  # noqa: S314 - our own
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert tags == ["svg", "title", "desc", "rect", "text"]
    assert [element.text for element in root.iter() if element.text] == ["a title", *["nothing to show"] * 2]


@pytest.mark.parametrize("value", [0.0, 3.0, -1e6, 1e16, 1e17, -3e200, 1.7e308])
@pytest.mark.parametrize("ends", [(1, 1), (1, 1 + 1e-15), (-1, 1)])
def test_a_line_of_any_size_is_drawn(value: float, ends: tuple[float, float]) -> None:
    """Constant, nearly so or from end to end: all points stand in the frame, between ticks that say numbers."""
    ink = charts.ink(dark=False)
    points = {"loss": [(float(k), value * ends[k % 2]) for k in range(4)]}
    spec = trace(points, ink, titles=("step", "loss"), said="a loss")
    root = ET.fromstring(draw(spec, name="x", title="x"))  # noqa: S314 - our own
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    (line,) = root.iter("polyline")
    for place in line.attrib["points"].split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= width and 0 <= y <= height
    words = [element.text for element in root.iter("text")]
    assert len(words) > 3 and not {"nan", "inf", "-inf"} & set(words)


def test_more_than_a_chart_can_tell_apart_is_refused_in_words() -> None:
    """A fourth kind of interval and a third line have no look of their own."""
    ink = charts.ink(dark=False)
    rows = [{**SEGMENTS[0], "kind": kind} for kind in "abcd"]
    assert draw(charts.forest(rows[:3], ink), name="x", title="x")
    with pytest.raises(ValueError, match=r"4 kinds of interval in one chart \(a, b, c, d\): it tells 3 apart"):
        charts.forest(rows, ink)
    lines = {name: [(0.0, 1.0), (1.0, 2.0)] for name in "abc"}
    with pytest.raises(ValueError, match=r"3 lines in one chart \(a, b, c\): it tells 2 apart"):
        trace(lines, ink, titles=("x", "y"), said="three")


def test_a_cell_with_few_rows_shows_its_n_and_no_rate() -> None:
    """Below the least n a two-way cell has no number to be misread."""
    few = {"net": Sums(4, 4.0, 4.0, 4, 4.0, 4.0, 4.0)}
    frame = polars.DataFrame(
        [
            {
                "value": "a",
                "other": "x",
                "measure": "net",
                **{name: getattr(few["net"], name) for name in ("n", "total", "squares", "clusters", "tt", "tn", "nn")},
            }
        ]
    )
    (row,) = figures.heat_rows(frame)
    assert row["net"] is None and row["n"] == 4 and row["verdict"] == "unclear"
    (cell,) = charts.heat([row], charts.ink(dark=False))["data"]["values"]
    assert cell["said"] == "n 4"


def test_csv_has_no_formula_and_parquet_reads_back() -> None:
    """Cells and heads that a spreadsheet would run begin with an apostrophe; numbers stay; Parquet is exact."""
    frame = polars.DataFrame(
        {
            "text": ["=HYPERLINK(1)", "+1", "-2", "@x", "\tt", "fine"],
            "n": [-1.5, 2.0, 3.0, 4.0, 5.0, 6.0],
            "=head": ["a"] * 6,
        }
    )
    back = polars.read_csv(io.BytesIO(tables.as_csv(frame)))
    assert back["text"].to_list() == ["'=HYPERLINK(1)", "'+1", "'-2", "'@x", "'\tt", "fine"]
    assert back["n"].to_list() == frame["n"].to_list() and "'=head" in back.columns
    assert polars.read_parquet(io.BytesIO(tables.as_parquet(frame))).equals(frame)


def test_tables_on_a_page_have_no_formula_either() -> None:
    """What the browser saves of a table is guarded as well; figures that begin with a sign are left as they are."""
    cells = ["=1+1", "-2+3|cmd", "+1.5 pp [-0.4, +3.1] n 1,200", "-54.0%", "@x", "plain", None]
    shown = tables.arrow(polars.DataFrame({"a": cells, "n": [-1.0] * 7}))["a"].to_pylist()
    assert shown == ["'=1+1", "'-2+3|cmd", "+1.5 pp [-0.4, +3.1] n 1,200", "-54.0%", "'@x", "plain", None]


def test_a_column_of_a_table_has_one_type() -> None:
    """Whole numbers, numbers, flags, words and nothing keep their types; what is mixed is words, and guarded."""
    huge = 2**70
    rows = [
        {"whole": 1, "mixed": 1, "number": 1, "flag": True, "none": None, "odd": True, "huge": huge, "list": [1]},
        {"whole": None, "mixed": "=1", "number": 0.5, "flag": None, "none": None, "odd": 1, "huge": 1, "list": []},
    ]
    table = tables.arrow(rows)
    assert {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)} == {
        "whole": "int64", "mixed": "large_string", "number": "double", "flag": "bool", "none": "null",
        "odd": "large_string", "huge": "large_string", "list": "large_string",
    }  # fmt: skip
    assert table.to_pydict() == {
        "whole": [1, None], "mixed": ["1", "'=1"], "number": [1.0, 0.5], "flag": [True, None], "none": [None, None],
        "odd": ["True", "1"], "huge": [str(huge), "1"], "list": ["[1]", "[]"],
    }  # fmt: skip
    assert tables.arrow([]).num_rows == 0


def test_two_headers_are_compared_and_what_matters_is_said() -> None:
    """Equal headers compare; another rubric, judge or set of pairs is said; ids and times are no difference."""
    head = {
        "run_id": "a",
        "created_at": "1",
        "rubric_digest": "x",
        "judge": {"name": "j"},
        "evalset": {"digest": "d"},
        "rubric_text": "t",
        "seed": 0,
    }
    assert tables.header_diff(head, {**head, "run_id": "b", "created_at": "2"}) == []
    assert tables.incomparable(head, {**head, "seed": 1}) == []
    assert tables.header_diff(head, {**head, "seed": 1}) == [{"field": "seed", "first": "0", "second": "1"}]
    for other in (
        {**head, "rubric_digest": "y"},
        {**head, "judge": {"name": "k"}},
        {**head, "evalset": {"digest": "e"}},
    ):
        assert len(tables.incomparable(head, other)) == 1


HOSTILE = (
    "<script>alert(1)</script> ![x](http://evil.example/a.png) [go](javascript:alert(1)) "
    "<img src=x onerror=alert(1)> :red[a] $x$ \x00\u202e"
)


def test_markdown_of_models_becomes_text_runs_only() -> None:
    """No block has a tag or kind outside the fixed lists, links and images are text, control characters are visible."""
    source = (
        "# H *i* **b** `c`\n\n1. one\n2. two\n   - deep\n\n> q\n\n| a | b |\n|---|---|\n| 1 "
        "| 2 |\n\n```\nfence\n```\n\n---\n\n"
    ) + HOSTILE
    blocks = texts.rendered(source)
    assert {block["tag"] for block in blocks} <= {"p", "pre", "h4", "h5", "h6", "blockquote", "hr", "li"}
    runs = [run for block in blocks for run in block["runs"]]
    assert {run[1] for run in runs} <= {"", "b", "i", "code", "mark"}
    said = "".join(run[0] for run in runs)
    for part in (
        "<script>alert(1)</script>",
        "http://evil.example/a.png",
        "javascript:alert(1)",
        "<U+0000>",
        "<U+202E>",
        ":red[a]",
        "$x$",
        "1. ",
        "2. ",
        "1  |  2",
        "fence",
    ):
        assert part in said, part


def test_spans_are_marked_where_they_are() -> None:
    """Marked runs are exactly the spans, overlaps are cut, and the text is whole."""
    text = "the quick brown fox"
    (block,) = texts.raw(text, [Span(4, 9, "why"), Span(7, 15, "again"), Span(100, 200, "beyond")])
    assert "".join(run[0] for run in block["runs"]) == text
    assert [run for run in block["runs"] if run[1] == "mark"] == [["quick", "mark", "why"], [" brown", "mark", "again"]]


def test_a_long_answer_is_capped_and_says_how_much_is_left() -> None:
    """20,000 characters are shown, the rest is counted; all of it comes on demand."""
    shown, rest = texts.capped("x" * 300_000)
    assert (len(shown), rest) == (texts.CAP, 300_000 - texts.CAP)
    assert texts.capped("x" * 300_000, whole=True) == ("x" * 300_000, 0)


def test_a_stretch_outside_the_limits_is_seen_and_chance_is_not() -> None:
    """One stretch that moved by many standard errors is outside; without a move none of the others is."""

    def row(name: str, mean: float, n: int = 50) -> dict[str, Any]:
        total, squares = mean * n, n * (0.25 + mean**2)
        return {
            "value": name,
            "measure": "preference",
            "n": n,
            "total": total,
            "squares": squares,
            "clusters": n,
            "tt": squares,
            "tn": total,
            "nn": float(n),
        }

    frame = polars.DataFrame([row(f"{k:02}", 0.9 if k == 7 else 0.5) for k in range(20)])
    states = {entry["stretch"]: entry["state"] for entry in figures.stretch_rows(frame, "preference")}
    assert states.pop(8) == "outside" and set(states.values()) == {"inside"}


@pytest.mark.parametrize(("cells", "each", "stretches"), [(30, 1, 0), (108, 1, 4), (40, 3, 4), (40, 60, 40)])
def test_a_stretch_holds_enough_rows_for_limits_that_can_be_passed(cells: int, each: int, stretches: int) -> None:
    """Stretches of one row are joined, a limit lies where the measure can be, and too few rows give no chart."""
    rows = []
    for k in range(cells):
        signs = [1.0 if (k * each + i) % 3 else -1.0 for i in range(each)]
        total, squares = sum(signs), float(len(signs))
        rows.append({"value": f"{k:03}", "measure": "net", "n": each, "total": total, "squares": squares,
                     "clusters": each, "tt": squares, "tn": total, "nn": float(each)})  # fmt: skip
    found = figures.stretch_rows(polars.DataFrame(rows), "net")
    assert len(found) == stretches and sum(row["n"] for row in found) == (cells * each if stretches else 0)
    assert all(row["n"] >= figures.STRETCH and -1 <= row["low"] < row["high"] <= 1 for row in found)
    assert all(row["high"] < 1 or row["low"] > -1 for row in found), "at least one limit can be passed"


def test_a_length_over_stretches_is_a_ratio() -> None:
    """Lengths are summed as logarithms and read as ratios, the limits too."""
    log = math.log(1.5)
    rows = [
        {"value": f"{k:02}", "measure": "length", "n": 30, "total": 30 * log, "squares": 30 * (log**2 + 0.04),
         "clusters": 30, "tt": 1.0, "tn": 1.0, "nn": 30.0}
        for k in range(5)
    ]  # fmt: skip
    (row, *_rest) = figures.stretch_rows(polars.DataFrame(rows), "length")
    half = 3 * 0.2 / 30**0.5
    assert (row["value"], row["centre"]) == pytest.approx((1.5, 1.5))
    assert (row["low"], row["high"]) == pytest.approx((1.5 * math.exp(-half), 1.5 * math.exp(half)))


@pytest.mark.parametrize(
    ("low", "high"), [(0.481, 0.664), (-1.0, 1.0), (-0.02, 0.01), (0.5, 0.5), (0.0, 9.45), (0.0, 123_456.0)]
)
def test_the_ends_of_a_round_axis_hold_everything(low: float, high: float) -> None:
    """First and last place are labelled and nothing lies beyond them; counts have whole steps."""
    ticks = rounded(low, high, count=5)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    assert all(b > a for a, b in pairwise(ticks))
    assert all(tick == round(tick) for tick in rounded(0.0, max(high, 1.0), count=4, least=1.0))


def test_no_mark_of_a_chart_lies_beyond_its_labelled_axis() -> None:
    """A forest plot's intervals end within the labels of its axis, and a histogram's bars below the top."""
    ink = charts.ink(dark=False)
    rows = [{"segment": "all", "kind": "judge", "value": 0.579, "low": 0.481, "high": 0.664, "verdict": "unclear",
             "n": 108}]  # fmt: skip
    x = charts.forest(rows, ink, unit="share")["layer"][1]["encoding"]["x"]
    assert x["scale"]["domain"] == [x["axis"]["values"][0], x["axis"]["values"][-1]] == [0.45, 0.7]
    y = charts.histogram([{"low": 0, "high": 1, "n": 9}], ink, title="t")["layer"][0]["encoding"]["y"]
    assert y["scale"]["domain"] == [0.0, 10.0] and y["axis"]["values"][-1] == 10


def test_a_sentence_of_our_own_keeps_its_code_and_nothing_else() -> None:
    """Backticks in pairs are code, a lone one is text, and no other markup gets through."""
    assert prose("metadata `must_refuse: true`, then *judge*") == "metadata `must_refuse: true`, then \\*judge\\*"
    assert prose("a lone ` and [x](y)") == markdown("a lone ` and [x](y)")
    assert prose("`a` `b`") == "`a` `b`"
