"""The calibration report on its surfaces: one value, eleven sections, honest absences, hostile text that stays text.

Run as a script it writes the published JSON Schema anew from the dataclasses.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibration.change
import calibration.selfcheck
from calibration import draws
from calibration.agreement import agreement_report
from calibration.change import Side, compare_judges
from calibration.estimates import Estimate
from calibration.evidence import Evidence, Said
from calibration.gold import GoldItem, GoldLabel, GoldSet
from calibration.provenance import Judged, JudgedRun, Refused
from calibration.report import CalibrationReport, Earlier, calibration_report
from calibration.selfcheck import self_check
from judge.render import calibration as render
from judge.render import charts
from judge.render.document import Absent, Chart, Figure, Figures, Section, Table
from judge.render.measures import _confusion, interval_row
from judge.render.svg import WIDTH, draw
from judge.render.words import columns, counted, cut, number, span, wrap
from rubrics import Outcome

SCHEMA = Path(__file__).resolve().parent.parent / "judge" / "data" / "calibration-1.schema.json"
OUTCOMES = {1.0: Outcome.WIN, 0.5: Outcome.TIE, 0.0: Outcome.LOSS}
HOSTILE = (
    "<script>alert(1)</script> \"onload='x' \x1b[31m\u202eevil\u200b `*_|[x](http://e.vil)</svg><!-- 漢字😀\n"
    + "w" * 200
)
VOID = {"meta", "line", "rect", "circle", "polyline", "polygon"}


def judged(n: int, *, seed: int = 0, shift: float = 0.5, name: str = "local@1", category: str = "") -> Evidence:
    """A judge that sees the gap with noise, position bias, two repeats, and now and then nothing at all."""
    rng = np.random.default_rng(seed)
    gap, noise = rng.normal(0.2, 1, n), rng.normal(0, 0.8, n)
    places = [1 / (1 + np.exp(-2 * (gap + shift + noise + lean))) for lean in (0.3, -0.1)]
    rows, said = [], []
    for k in range(n):
        outcomes = [OUTCOMES[1.0 if p[k] > 0.55 else 0.0 if p[k] < 0.45 else 0.5] for p in places]
        soft, dead = float(places[0][k] + places[1][k]) / 2, k % 50 == 7
        probabilities = (None, None, None) if dead else (0.85 * soft, 0.15, 0.85 * (1 - soft))
        kind = f"{'abcd'[k % 4]}{category}"
        rows.append(Judged(f"p{k}{category}", f"q{k // 2}", *probabilities, kind, int(400 + 80 * gap[k]), 400))
        settled = None if dead else OUTCOMES[1.0 if soft > 0.5 else 0.0]
        calls = [(None, None) if dead else (o, o if rng.random() < 0.9 else Outcome.TIE) for o in outcomes]
        two = (None, None) if dead else (float(places[0][k]), float(places[1][k]))
        said.append(Said(settled, calls[0], calls[1], two, "new", "old"))
    identity = {"run": "r-1", "judge": name, "rubric": "help@1", "gold digest": "a" * 64}
    styles = {f"bold{category}": {row.pair_id: float(x) for row, x in zip(rows, rng.normal(size=n), strict=True)}}
    return Evidence(JudgedRun(tuple(rows), "new", "old", "help@1"), tuple(said), "help@1", name, identity, styles)


def labels(evidence: Evidence, n: int, *, seed: int = 1, annotator: str = "ann", drawn: bool = True) -> GoldSet:
    """Three annotators' labels on a random draw of n pairs; without ``drawn`` nobody knows how they were drawn."""
    rng = np.random.default_rng(seed)
    ids = [row.pair_id for row in evidence.run.rows]
    picked = {p.pair_id: p.probability for p in draws.draw_random(ids, n, seed=seed).pairs} if n else {}
    items = []
    for row, soft in zip(evidence.run.rows, evidence.preferences, strict=True):
        values = rng.choice([1.0, 0.5, 0.0], 3, p=[0.9 * (p := 0.5 if np.isnan(soft) else soft), 0.1, 0.9 * (1 - p)])
        if row.pair_id in picked:
            own = tuple(GoldLabel(f"{annotator}{j}", OUTCOMES[float(v)]) for j, v in enumerate(values))
            item = GoldItem(row.pair_id, row.prompt_id, own, "new", "old", "help@1", row.category, "desk")
            items.append(replace(item, drawn="random", probability=picked[row.pair_id]) if drawn else item)
    return GoldSet(tuple(items))


def side(evidence: Evidence, name: str) -> Side:
    """A judging as one side of a comparison."""
    rows = list(zip(evidence.run.rows, evidence.preferences, strict=True))
    soft = {row.pair_id: None if np.isnan(p) else float(p) for row, p in rows}
    anchors = dict(list(soft.items())[:60])
    return Side(name, name, evidence.judge, evidence.outcomes, soft, cost=1.0, anchors=anchors)


@cache
def full(hostile: str = "") -> CalibrationReport:
    """A report with every section filled; ``hostile`` text stands in every name."""
    evidence = judged(240, name=f"local@1{hostile}", category=hostile)
    gold = labels(evidence, 120, annotator=f"ann{hostile}")
    before = judged(240, shift=0.2, name=f"local@1{hostile}", category=hostile)
    report = calibration_report(evidence, gold, earlier=Earlier(f"r-0{hostile}", before), rounds=40)
    change = compare_judges(side(before, f"old{hostile}"), side(evidence, f"new{hostile}"), gold)
    return replace(report, change=change, self_check=self_check(evidence.run, gold, rounds=20))


@cache
def report(kind: str) -> CalibrationReport:
    """A report by name: full, hostile, empty, few, unknown draw, or no verdict at all."""
    if kind in {"full", "hostile"}:
        return full(HOSTILE if kind == "hostile" else "")
    evidence = judged(120)
    if kind == "mute":
        blank = {"p_win": None, "p_tie": None, "p_loss": None}
        run = replace(evidence.run, rows=tuple(replace(row, **blank) for row in evidence.run.rows))
        none = Said(None, (None,), (None,), (None, None))
        evidence = replace(evidence, run=run, said=(none,) * len(run.rows))
    sizes = {"empty": 0, "few": 12, "refused": 60, "mute": 60}
    gold = labels(evidence, sizes[kind], drawn=kind != "refused")
    found = calibration_report(evidence, gold, rounds=40)
    return replace(found, self_check=self_check(evidence.run, gold, rounds=1)) if kind in {"few", "refused"} else found


KINDS = ("full", "hostile", "empty", "few", "refused", "mute")
each_kind = pytest.mark.parametrize("kind", KINDS)


class Page(HTMLParser):
    """A strict reader: counts tags, checks that they nest, and keeps attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def blocks(found: CalibrationReport) -> Iterator[tuple[Section, object]]:
    """Every block of a report with its section."""
    for part in render.sections(found):
        for block in part.blocks:
            yield part, block


@each_kind
def test_every_surface_has_the_verdict_first_and_all_eleven_sections(kind: str) -> None:
    """The text and the page open with the word of the verdict and carry sections 1 to 11 in order."""
    found = report(kind)
    parts = render.sections(found)
    assert [part.number for part in parts] == list(range(1, 12))
    text, page = render.to_text(found), Page(render.to_html(found))
    assert text.startswith(found.belief.word) and render.to_markdown(found).startswith(f"### {found.belief.word}")
    assert re.findall(r"^(\d+)\. ", text, re.MULTILINE) == [str(k) for k in range(1, 12)]
    assert [attrs["id"] for tag, attrs in page.tags if tag == "section"] == [part.key for part in parts]
    assert page.text.index(found.belief.word) < page.text.index(parts[0].title)


@each_kind
def test_every_number_stands_with_its_n(kind: str) -> None:
    """A figure made of an estimate shows its n, and so does a table cell, by its row's column or itself."""
    text = " ".join(render.to_text(report(kind)).split())
    seen = 0
    for _, block in blocks(report(kind)):
        if isinstance(block, Figures):
            for row in block.rows:
                if isinstance(row.value, Estimate):
                    seen += 1
                    assert f"{number(row.value.value, row.unit)} {span(row.value, row.unit)} n {row.value.n}" in text
        if isinstance(block, Table):
            for k, cells in enumerate(block.rows):
                for cell, shown in zip(cells, block.cells(k), strict=False):
                    if isinstance(cell, Estimate):
                        seen += 1
                        assert shown.endswith(f"n {cell.n}") or (block.columns[-1], block.n[k]) == ("n", cell.n)
    assert seen > 3 or kind == "mute"


@each_kind
def test_what_is_missing_says_why(kind: str) -> None:
    """No figure and no cell is blank: a refusal prints its reason and its fix, an absence its reason."""
    text = " ".join(render.to_text(report(kind)).split())
    for part, block in blocks(report(kind)):
        assert part.answer
        if isinstance(block, Figures):
            for row in block.merged:
                assert row.shown
                if isinstance(row.value, Refused):
                    assert f"withheld: {row.value.reason}; {row.value.fix}" in text
        if isinstance(block, Table):
            assert all(all(block.cells(k)) for k in range(len(block.rows)) if block.rows[k][0])


def test_labels_that_nobody_drew_print_why_no_threshold_has_a_guarantee() -> None:
    """Section 5 says withheld with reason and fix, on every surface, and shows neither a threshold nor a curve."""
    found = report("refused")
    part = next(part for part in render.sections(found) if part.key == "selective")
    refused = found.selective.certificates
    assert isinstance(refused, Refused) and refused.kind == "not_random"
    assert part.answer == f"A threshold with a guarantee is withheld: {refused.reason}; {refused.fix}."
    assert part.level == "bad" and not any(isinstance(block, Chart | Table) for block in part.blocks)
    for text in (render.to_text(found), Page(render.to_html(found)).text):
        assert f"withheld: {refused.reason}; {refused.fix}" in " ".join(text.split())
    assert json.loads(render.to_json(found))["selective"]["certificates"]["kind"] == "not_random"


def test_weighted_agreement_and_thinned_certificates_say_so() -> None:
    """Where pairs were drawn with unequal chances, sections 3 and 5 name what was weighed and what was left out."""
    evidence = judged(240)
    plain = labels(evidence, 120)
    drawn = GoldSet(
        tuple(replace(i, drawn="active", probability=0.9 if k % 2 else 0.3) for k, i in enumerate(plain.items))
    )
    weighed, equal = (
        " ".join(render.to_text(calibration_report(evidence, g, rounds=40)).split()) for g in (drawn, plain)
    )
    assert "each counts 1/chance: the figures speak of the run" in weighed
    assert "the guarantee asks for one chance for all" in weighed
    assert "1/chance:" not in equal and "one chance for all" not in equal


def test_a_plan_of_more_labels_than_pairs_is_said_in_words() -> None:
    """Where all pairs of the run would not do, the figure says to judge more; so does a certificate's need."""
    found = report("full")
    part = render.sections(replace(found, win_rate=replace(found.win_rate, labels_for=((0.03, None),))))[1]
    shown = {row.name: row.shown for block in part.blocks if isinstance(block, Figures) for row in block.rows}
    assert shown["labels for ±3 points"] == "more than all 240 pairs of this run: judge more pairs (have 120 labels)"
    card = found.selective
    assert not isinstance(card.certificates, Refused)
    made = replace(card.certificates[0], threshold=None, coverage=None, risk=None, needed=9000, n=110)
    many = replace(found, selective=replace(card, certificates=(made, *card.certificates[1:])))
    assert "need about 9000, more than the run's 240 pairs: judge more" in " ".join(render.to_text(many).split())


def test_the_style_table_says_what_each_slope_is_adjusted_for() -> None:
    """Length stands alone and every other style at equal length, in points a typical step; the note says so."""
    text = " ".join(render.to_text(report("full")).split())
    assert "one typical step more than the baseline's (one standard deviation over these pairs)" in text
    assert "of length alone, of each style at equal length" in text


@each_kind
def test_the_text_keeps_to_eighty_columns_without_control_characters(kind: str) -> None:
    """No line is wider than a terminal of 80 columns, and no escape reaches it, whatever the names are."""
    lines = render.to_text(report(kind)).split("\n")
    assert max(map(columns, lines)) <= 80
    assert not any(ord(character) < 32 or character in "\x7f\u202e\u200b" for line in lines for character in line)


def test_huge_and_open_numbers_fit() -> None:
    """Values beyond all sense are written short, an open end as such, and the lines stay within 80 columns."""
    found = report("full")
    wild = Estimate(1e300, -float("inf"), float("inf"), 0.95, 10**9, 10**8, "m" * 300)
    found = replace(
        found,
        agreement=replace(found.agreement, accuracy=wild, kappa=wild, decisive=wild),
        bias=replace(
            found.bias, styles=tuple(replace(s, judge=wild, bias=wild, human=wild) for s in found.bias.styles)
        ),
        segments=tuple(replace(s, shrunk=wild, corrected=wild) for s in found.segments),  # type: ignore[union-attr]
    )
    text = render.to_text(found)
    assert max(map(columns, text.splitlines())) <= 80
    assert "no limit" in text and "undefined" not in text
    Page(render.to_html(found))
    value = json.loads(render.to_json(found))["agreement"]["accuracy"]
    assert (value["low"], value["high"]) == (None, None)


@each_kind
def test_the_page_is_inert(kind: str) -> None:
    """The page nests, runs nothing, loads nothing, names every picture, and shows hostile names as text."""
    html = render.to_html(report(kind))
    page = Page(html)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "foreignobject",
        "image",
        "use",
    }
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") or name in {"src", "srcset", "xlink:href"} for name in attrs), (tag, attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert "url(" not in html and "@import" not in html and "http-equiv" in html
    identifiers = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(identifiers)) == len(identifiers)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    for attrs in pictures:
        assert attrs["role"] == "img" and set((attrs["aria-labelledby"] or "").split()) <= set(identifiers)
    if kind == "hostile":
        assert "<script>alert(1)" in page.text and "<U+202E>" in page.text and "\x1b" not in html
    assert len(pictures) == {"full": 5, "hostile": 5, "mute": 2, "empty": 1}.get(kind, len(pictures))


@each_kind
def test_the_json_validates_against_the_published_schema(kind: str) -> None:
    """The JSON object follows the schema that is shipped, holds no NaN, and every estimate is complete."""
    value = json.loads(render.to_json(report(kind)), parse_constant=pytest.fail)
    validator = jsonschema.Draft202012Validator(json.loads(render.schema()))
    assert [error.message for error in validator.iter_errors(value)] == []
    assert value["schema"] == "judge.calibration/1"
    if kind == "full":
        fields = {field.name for field in dataclasses.fields(Estimate)}
        assert set(value["win_rate"]["corrected"]) == fields == set(value["change"]["difference"])


def test_the_published_schema_is_a_schema_and_refuses_what_is_not_a_report() -> None:
    """The schema is valid 2020-12; a missing n, an unknown field or a bare number in place of an estimate fails it."""
    schema = json.loads(render.schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = json.loads(render.to_json(report("full")))
    for spoil in (
        lambda value: value["win_rate"]["judge"].pop("n"),
        lambda value: value.update(extra=1),
        lambda value: value["win_rate"].update(judge=0.5),
        lambda value: value["belief"].update(word="TRUST ME"),
    ):
        bad = json.loads(json.dumps(good))
        spoil(bad)
        assert not validator.is_valid(bad)


def test_the_published_schema_matches_the_dataclasses() -> None:
    """A field added to the report must be added to the schema: run this file as a script to write it anew."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == published()


@each_kind
def test_markdown_is_short_and_holds_no_markup_of_others(kind: str) -> None:
    """The pull request text carries verdict, key figures and failures, and names cannot add links, HTML or rows."""
    found = report(kind)
    text = render.to_markdown(found)
    assert len(text.splitlines()) <= 60
    assert not re.search(r"(?<!\\)<(?!/?sub>)", text) and not re.search(r"(?<!\\)\]\(", text)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {5}
    for assumption in found.ledger:
        if assumption.holds is False:
            assert assumption.name in text


def test_the_same_figures_stand_on_every_surface() -> None:
    """The corrected win rate and its interval are written the same in text, Markdown and HTML."""
    found = report("full")
    assert isinstance(found.win_rate.corrected, Estimate)
    shown = number(found.win_rate.corrected.value, "share"), span(found.win_rate.corrected, "share")
    for text in (render.to_text(found), render.to_markdown(found).replace("\\", ""), Page(render.to_html(found)).text):
        assert all(part in text for part in shown)


def test_an_experiment_puts_its_verdict_next_to_the_first() -> None:
    """With two ways to judge compared, ADOPT, KEEP or UNDECIDED stands at the top of every surface."""
    found = report("full")
    assert found.change is not None
    word = found.change.verdict
    for text in (render.to_text(found), render.to_markdown(found)):
        assert word in "\n".join(text.splitlines()[:3])
    page = Page(render.to_html(found)).text
    assert page.index(word) < page.index("What was measured")


def test_sections_that_were_not_asked_for_name_the_option() -> None:
    """Change, drift and self-check say which option asks for them."""
    answers = {part.key: part.answer for part in render.sections(report("empty"))}
    assert (
        "--against" in answers["change"] and "--since" in answers["drift"] and "--self-check" in answers["self-check"]
    )


def test_failed_assumptions_stand_first_and_red() -> None:
    """The ledger lists failures before what holds, in the colour of failure and with a word that needs none."""
    part = render.sections(report("refused"))[9]
    levels = [block.level for block in part.blocks]  # type: ignore[union-attr]
    assert levels[0] == "bad" and levels == sorted(levels, key=["bad", "care", "good"].index)
    assert part.blocks[0].text.startswith("FAILS:")  # type: ignore[union-attr]


def test_missing_figures_of_one_reason_are_said_once() -> None:
    """Neighbours that are missing for the same reason share one line that names them all."""
    rows = Figures((Figure("a", Absent("no pair")), Figure("b", Absent("no pair")), Figure("c", "1 (n 3)")))
    assert [(row.name, row.shown) for row in rows.merged] == [("a; b", "none: no pair"), ("c", "1 (n 3)")]


@given(st.text(max_size=300), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_wrapping_keeps_every_character_within_the_width(text: str, indent: int) -> None:
    """Wrapped lines are at most as wide as asked and hold the same characters, for any script."""
    lines = wrap(text, first=" " * indent, rest=" " * indent, width=40)
    assert max(map(columns, lines)) <= 40
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert columns(cut(text, 12)) <= 12


@given(st.lists(st.tuples(st.text(max_size=80), *[st.floats()] * 3), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_a_forest_survives_any_number_and_any_name(rows: list[tuple[str, float, float, float]]) -> None:
    """Whatever the values and names, the chart is well-formed and every mark lies inside the picture."""
    bars = [
        interval_row(f"{k} {name}", Estimate(v, lo, hi, 0.95, 1, 1, "")) for k, (name, v, lo, hi) in enumerate(rows)
    ]
    spec = charts.forest(bars, charts.PAPER, unit="share")
    json.dumps(spec, allow_nan=False)
    page = Page(draw(spec, name="t", title="t"))
    assert page.open == []
    places = [float(attrs[key] or 0) for tag, attrs in page.tags for key in ("x1", "x2", "cx") if key in attrs]
    assert places and all(0 <= x <= WIDTH for x in places)


def test_columns_count_what_a_terminal_shows() -> None:
    """A wide character takes two columns and a combining mark none, so that tables stay aligned in any script."""
    assert [columns(text) for text in ("abc", "漢字", "😀", "e\u0301")] == [3, 4, 2, 1]


def test_charts_of_nothing_are_nothing() -> None:
    """Without values there is no chart, not an empty frame."""
    for spec in (
        charts.forest([], charts.PAPER),
        charts.reliability([], [], charts.PAPER),
        charts.risk([], charts.PAPER),
        charts.sums({"up": [], "down": []}, charts.PAPER, limit=1.0, title="t"),
    ):
        assert draw(spec, name="t", title="t") == ""
    shown = {part.key for part, block in blocks(report("mute")) if isinstance(block, Chart) and block.svg}
    assert shown == {"win-rate", "segments"}


@cache
def experiment(verdict: str, word: str = "WITH CARE") -> CalibrationReport:
    """The full report with a comparison that ends in ``verdict``, under a belief of ``word``."""
    evidence = judged(240)
    gold = labels(evidence, 120)
    right = {item.pair_id: item.majority for item in gold.items if item.majority is not None}
    good = replace(side(evidence, "good"), verdicts=right)
    bad = replace(side(evidence, "bad"), verdicts={pair: outcome.mirrored for pair, outcome in right.items()})
    old, new = {"ADOPT": (bad, good), "KEEP": (good, bad)}.get(verdict, (good, replace(good, name="same", rubric="r")))
    change = compare_judges(old, new, gold)
    assert change.verdict == verdict
    return replace(full(), change=change, belief=replace(full().belief, word=word))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [
        ("ADOPT", r"ADOPT good instead of bad: accuracy \+\d.* \(n \d+\)\."),
        ("KEEP", r"KEEP good; do not adopt bad: accuracy -\d.* \(n \d+\)\."),
        ("UNDECIDED", r"UNDECIDED between good \(in use\) and same \(proposed\): the same verdict on all .*\."),
    ],
)
def test_the_verdict_names_the_side_it_is_about(verdict: str, wanted: str) -> None:
    """KEEP is followed by the side in use, ADOPT by the proposed one, UNDECIDED by both, on text and Markdown."""
    found = experiment(verdict)
    assert re.fullmatch(wanted, " ".join(render.to_text(found).split("\n\n")[0].split("\n")[1:]))
    bold = render.to_markdown(found).splitlines()[2].replace("\\", "")
    assert re.fullmatch(wanted, bold.strip("*"))
    assert re.search(wanted, Page(render.to_html(found)).text)


@pytest.mark.parametrize("verdict", ["ADOPT", "KEEP", "UNDECIDED"])
def test_a_verdict_on_a_change_does_not_lift_disbelief(verdict: str) -> None:
    """Beside DO NOT BELIEVE the line of the change adds that the proposed judge is not to be believed either way."""
    new = {"ADOPT": "good", "KEEP": "bad", "UNDECIDED": "same"}[verdict]
    said = f"Either way {new} is not to be believed"
    for show in (render.to_text, render.to_markdown):
        assert said in " ".join(show(experiment(verdict, "DO NOT BELIEVE")).split("\n")[:5])
        assert said not in show(experiment(verdict, "WITH CARE"))


def test_only_an_open_change_says_how_many_pairs_would_settle_it() -> None:
    """The pairs that settle the margin stand in an UNDECIDED report and in no other."""
    shown = {verdict: render.to_text(experiment(verdict)) for verdict in ("ADOPT", "KEEP", "UNDECIDED")}
    assert [verdict for verdict, text in shown.items() if "pairs that settle" in text] == ["UNDECIDED"]


def test_identical_judges_are_called_identical() -> None:
    """Equal verdicts and preferences have no interval that no resampling can give; the report says identical."""
    text = render.to_text(experiment("UNDECIDED"))
    assert "identical: the same preferences (n " in text and "identical: the same verdicts (n " in text
    assert not re.search(r"^ *(log loss|log loss, calibrated|Cohen kappa) +\+0\.000", text, re.MULTILINE)


def drifting(how: str) -> CalibrationReport:
    """A report against an earlier run whose judge said the opposite throughout, something alike, or the very same."""
    evidence = judged(240)
    before = evidence
    if how == "flipped":
        rows = tuple(replace(row, p_win=row.p_loss, p_loss=row.p_win) for row in evidence.run.rows)
        before = replace(evidence, run=replace(evidence.run, rows=rows))
    if how == "alike":
        rng = np.random.default_rng(0)
        moved = [None if row.p_win is None else float(rng.uniform(-0.02, 0.02)) for row in evidence.run.rows]
        rows = tuple(
            row if by is None else replace(row, p_win=row.p_win + by, p_loss=row.p_loss - by)  # type: ignore[operator]
            for row, by in zip(evidence.run.rows, moved, strict=True)
            if by is None or (0 <= row.p_win + by <= 1 and 0 <= row.p_loss - by <= 1)  # type: ignore[operator]
        )
        kept = {row.pair_id for row in rows}
        said = tuple(s for s, row in zip(evidence.said, evidence.run.rows, strict=True) if row.pair_id in kept)
        styles = {name: {p: x for p, x in by.items() if p in kept} for name, by in evidence.styles.items()}
        before = replace(evidence, run=replace(evidence.run, rows=rows), said=said, styles=styles)
    return calibration_report(evidence, labels(evidence, 120), earlier=Earlier("r-0", before), rounds=40)


def test_drift_is_not_denied_while_something_moved() -> None:
    """Flipped verdicts, accuracy or an alarm each veto "not shown to move", and the headline says which it was."""
    part = render.sections(drifting("flipped"))[8]
    assert "not been shown to move" not in part.answer and part.level == "care"
    assert re.search(r"has moved: .*accuracy \+\d.*McNemar p <0\.001\)", part.answer)
    assert re.search(r"\d+\.\d% \[.*\] of verdicts changed side \(n \d+, noise floor unknown\)", part.answer)
    calm = render.sections(drifting("alike"))[8]
    assert calm.answer.startswith("Against run r-0 it has not been shown to move: mean preference ")
    assert "of verdicts changed side" in calm.answer and calm.level == "good"
    assert "not moved: every preference is identical (n 2" in render.sections(drifting("same"))[8].answer


def test_the_alarm_counts_stretches_of_ten_anchors() -> None:
    """The CUSUM runs over means of ten anchors, and its place and n say so."""
    text = " ".join(render.to_text(report("full")).split())
    assert re.search(r"alarm up at stretch \d+ of 23 \(n 23 stretches\)", text) and "stretches of ten anchors" in text


def test_section_five_defines_wrong_and_names_its_two_bases() -> None:
    """Wrong is defined where it is certified; a share kept is of the labelled pairs, a queue is of the run."""
    text = " ".join(render.to_text(report("full")).split())
    assert "Wrong: the judge's preference leans to one answer and the mean of the people's labels to the other" in text
    assert re.search(r"keeps \d+\.\d% \[[^]]*\] of the labelled pairs \(n \d+\); \d+ of the run's 240 pairs go", text)
    assert "of the labelled pairs (n " in render.sections(report("full"))[4].answer


def test_the_judge_scale_says_that_it_is_soft() -> None:
    """The judge's own rate is named a soft preference, apart from the counted verdicts of another report."""
    for text in (render.to_text(report("full")), Page(render.to_html(report("full"))).text):
        assert "judge scale (soft preference)" in text
        assert "judge report counts settled verdicts" in " ".join(text.split()).replace(" ( ", " ")
    assert "judge scale (soft preference)" in render.to_markdown(report("full"))


def test_the_headline_does_not_say_its_word_twice() -> None:
    """What follows the word of the verdict adds something and does not repeat it."""
    for word in ("BELIEVE", "WITH CARE", "DO NOT BELIEVE", "UNKNOWN"):
        found = replace(full(), belief=replace(full().belief, word=word), change=None)
        head, _, rest = render.to_text(found).splitlines()[0].partition(": ")
        assert head == word and rest and not {"believe", "care", "known"} & set(re.findall(r"\w+", rest.lower()))


def test_a_lone_map_is_not_called_the_best_of_several() -> None:
    """Where so few prompts allow one map only, the report says so instead of "lowest"."""
    text = " ".join(render.to_text(report("full")).split())
    assert "the only map that 89 prompts allow; held-out log loss: temperature 0." in text
    assert "lowest held-out" not in text


@pytest.mark.parametrize(("asked", "held"), [(60, 60), (72, 72), (100, 100), (20, 60), (300, 100)])
@pytest.mark.parametrize("kind", ["full", "hostile", "refused"])
def test_the_text_takes_the_width_it_is_given(kind: str, asked: int, held: int) -> None:
    """Lines fill a width between 60 and 100 columns and never go beyond it."""
    widths = [columns(line) for line in render.to_text(report(kind), asked).split("\n")]
    assert held - 8 <= max(widths) <= held


def test_a_long_name_stays_in_one_piece_on_a_line_of_its_own() -> None:
    """A judge id or digest that does not fit beside its name is not broken: it stands whole below it."""
    name = "local/smollm2-135m@b179c9523d0e[blend-int8-t1]"
    lines = render.to_text(replace(full(), identity={**full().identity, "judge": name, "gold": "ab" * 32})).split("\n")
    assert f"     {name}" in lines
    assert f"     {'ab' * 32}" in lines
    assert "   judge" in lines


def test_counts_of_one_are_singular() -> None:
    """One test, one pair, one prompt, one assumption: no plural beside a 1 on any surface."""
    assert [counted(1, "label"), counted(2, "label"), counted(1, "stretch", "stretches")] == [
        "1 label", "2 labels", "1 stretch",
    ]  # fmt: skip
    found = replace(full(), bias=replace(full().bias, q={"position": 0.0004}))
    assert render.sections(found)[5].answer == "Shown to move it (of 1 test): position."
    lone = calibration_report(judged(1), labels(judged(1), 1), rounds=40)
    text = " ".join(render.to_text(lone).split("1. WHAT WAS MEASURED")[1].split("10. WHAT THESE")[0].split())
    nouns = "labels|labelled pairs|compared pairs|pairs|tests|prompts|annotators|stretches"
    assert re.findall(rf"(?<![\d.])1 (?:more )?(?:{nouns})\b", text) == []


def test_the_even_mark_spares_the_names() -> None:
    """The dashed mark of a forest runs beside the intervals alone, never at the height of a name."""
    bars = [interval_row(f"name {k}", Estimate(0.5, 0.4, 0.6, 0.95, 9, 9, "")) for k in range(5)]
    page = Page(draw(charts.forest(bars, charts.PAPER, unit="share"), name="t", title="t"))
    names = [float(attrs["y"] or 0) for tag, attrs in page.tags if tag == "text"][-10:]
    marks = [
        (float(attrs["y1"] or 0), float(attrs["y2"] or 0))
        for tag, attrs in page.tags
        if tag == "line" and attrs.get("stroke-dasharray")
    ]
    assert len(marks) == 5
    assert all(foot <= y - 11 or head >= y + 3 for head, foot in marks for y in names)


def published() -> dict[str, object]:
    """The JSON Schema of a report, made from the dataclasses: their fields, types and docstrings."""
    defs: dict[str, object] = {}
    root = described(CalibrationReport, defs)
    properties = {"schema": {"const": "judge.calibration/1"}, **typing.cast("dict[str, object]", root["properties"])}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "judge.calibration/1",
        "title": "Calibration report of a judge",
        **root,
        "properties": properties,
        "required": list(properties),
        "$defs": dict(sorted(defs.items())),
    }


def described(cls: type, defs: dict[str, object]) -> dict[str, object]:
    """One dataclass as an object without further properties."""
    names = {"Change": calibration.change.Change, "SelfCheck": calibration.selfcheck.SelfCheck}
    hints = typing.get_type_hints(cls, localns=names)
    own = [field.name for field in dataclasses.fields(cls)]
    return {
        "type": "object",
        "description": " ".join(re.sub(r"\n\s*Example::?.*", "", inspect.getdoc(cls) or "", flags=re.DOTALL).split()),
        "properties": {name: typed(hints[name], defs) for name in own},
        "required": own,
        "additionalProperties": False,
    }


def typed(hint: object, defs: dict[str, object]) -> dict[str, object]:
    """The schema of one annotation; a number that is not finite is null."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    plain = {str: "string", bool: "boolean", int: "integer", types.NoneType: "null"}
    if hint in plain:
        return {"type": plain[typing.cast("type", hint)]}
    if hint is float:
        return {"type": ["number", "null"]}
    if origin in {typing.Union, types.UnionType}:
        return {"anyOf": [typed(part, defs) for part in inside]}
    if origin is typing.Literal:
        return {"enum": list(inside)}
    if origin is tuple:
        if inside[-1] is Ellipsis:
            return {"type": "array", "items": typed(inside[0], defs)}
        size = len(inside)
        return {"type": "array", "prefixItems": [typed(p, defs) for p in inside], "minItems": size, "maxItems": size}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": typed(inside[1], defs)}
    if origin is not None and issubclass(typing.cast("type", origin), typing.Iterable):
        return {"type": "array", "items": typed(inside[0], defs)}
    if hint is Hashable:
        return {}
    assert isinstance(hint, type), hint
    if issubclass(hint, Enum):
        return {"enum": [member.value for member in hint]}
    if hint.__name__ not in defs:
        defs[hint.__name__] = {}
        defs[hint.__name__] = described(hint, defs)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def test_the_confusion_table_names_its_rows_and_columns() -> None:
    """Labels and verdicts are counted under their own names, wins first."""
    win, tie, loss = Outcome.WIN, Outcome.TIE, Outcome.LOSS
    said = [(win, win)] * 3 + [(win, loss)] * 2 + [(tie, win)] + [(loss, tie)] * 4
    gold = GoldSet(
        tuple(GoldItem(f"p{k}", "", (GoldLabel("ada", human),)) for k, (human, _judge) in enumerate(said)), "g"
    )
    report = agreement_report(gold, {f"p{k}": judge for k, (_human, judge) in enumerate(said)}, rounds=50)
    table = _confusion(report)
    assert table.columns == ("", "judge: win", "judge: tie", "judge: loss")
    assert table.rows == (
        ("people: win", "3", "0", "2"),
        ("people: tie", "1", "0", "0"),
        ("people: loss", "0", "4", "0"),
    )
    assert report.order == (loss, tie, win)


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(published(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
