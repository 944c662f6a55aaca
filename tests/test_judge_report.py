"""Summary and rendering: one value, honest figures, and hostile text that stays text."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import orjson
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.estimates import Estimate
from judge import render
from judge.formats import open_evalset
from judge.protocol import plan, settle
from judge.runs import RunPlan, start_run
from judge.store import Store
from judge.summary import RunReport, summarise
from judge.testing import ScriptedBackend, prefer_longer, sample_pair, sample_rubric
from judge.types import Ask, JudgeId, Reply

HEADER = {
    "run_id": "r-test",
    "created_at": "2026-01-01T00:00:00+00:00",
    "rubric": "helpfulness@1",
    "rubric_digest": "0" * 64,
    "judge": {"name": "test", "revision": "1", "decoding": ""},
    "judge_notice": "",
    "seed": 0,
    "repeats": 1,
    "template": "pairwise-1",
    "evalset": {"rows": 0, "digest": "0" * 64, "left_out": {}},
    "versions": {"python": "3"},
}


_CHANCE: dict[str | None, tuple[float, ...]] = {"win": (1, 0, 0), "tie": (0, 1, 0), "loss": (0, 0, 1), None: ()}
_PLAIN: dict[str, object] = {
    "repeat": 0,
    "category": "a",
    "metadata": "{}",
    "label": None,
    "confidence": 1.0,
    "candidate_chars": 10,
    "baseline_chars": 10,
    "flags": "",
    "rationale": "",
    "cost": 0.0,
    "tokens": 1,
    "cached": 0,
}


def frame(rows: Sequence[dict[str, object]]) -> polars.DataFrame:
    """Comparisons with the given fields, the rest plain: a consistent verdict on its own prompt."""
    full = []
    for number, row in enumerate(rows):
        outcome = row.get("outcome", "win")
        chance = _CHANCE[outcome]  # type: ignore[index]
        plain: dict[str, object] = _PLAIN | {
            "pair_id": f"p{number}",
            "prompt_digest": str(number),
            "outcome": outcome,
            "preference": None if outcome is None else chance[0] + chance[1] / 2,
            "consistent": None if outcome is None else True,
            "invalid": "empty" if outcome is None else None,
        }
        for order in ("cf", "bf"):
            plain |= {f"{order}_outcome": outcome, f"{order}_invalid": plain["invalid"]}
            plain |= dict(zip((f"{order}_win", f"{order}_tie", f"{order}_loss"), chance or (None,) * 3, strict=True))
        full.append(plain | row)
    text = ["label", "outcome", "invalid", "cf_outcome", "bf_outcome"]
    return polars.DataFrame(full, schema_overrides=dict.fromkeys(text, polars.String), infer_schema_length=None)


def report(rows: Sequence[dict[str, object]], **header: object) -> RunReport:
    return summarise(HEADER | header, frame(rows))


def test_rates_and_net_are_those_of_the_rows() -> None:
    """Win, tie and loss shares add to one and net is win minus loss."""
    found = report([{"outcome": "win"}] * 5 + [{"outcome": "tie"}] * 2 + [{"outcome": "loss"}] * 3).overall
    assert found.win and found.tie and found.loss and found.net
    assert (found.win.value, found.tie.value, found.loss.value) == (0.5, 0.2, 0.3)
    assert found.net.value == pytest.approx(0.2)


def test_mirrored_rows_mirror_every_figure() -> None:
    """Exchanging the sides turns each figure and interval around (M20)."""
    outcomes = ["win"] * 9 + ["tie"] * 3 + ["loss"] * 4
    turn = {"win": "loss", "tie": "tie", "loss": "win"}
    there = report([{"outcome": outcome} for outcome in outcomes]).overall
    back = report([{"outcome": turn[outcome]} for outcome in outcomes]).overall
    assert there.net and back.net and there.win and back.loss
    assert (there.net.low, there.net.high) == pytest.approx((-back.net.high, -back.net.low))
    assert (there.win.value, there.win.low, there.win.high) == (back.loss.value, back.loss.low, back.loss.high)


def test_repeats_of_one_prompt_do_not_narrow_the_interval() -> None:
    """Ten rows of the same prompt are one observation of it: the interval is that of the prompts."""
    base = [{"outcome": outcome, "prompt_digest": str(n)} for n, outcome in enumerate(["win"] * 6 + ["loss"] * 4)]
    once, often = report(base).overall.net, report(base * 10).overall.net
    assert once and often
    assert (once.low, once.high) == pytest.approx((often.low, often.high))
    assert (often.n, often.clusters) == (100, 10)


def test_invalid_comparisons_are_counted_and_bound_the_headline() -> None:
    """Nothing is dropped: invalid ones leave the rates and widen the bounds."""
    found = report([{"outcome": "win"}] * 6 + [{"outcome": None}] * 4)
    assert (found.overall.n, found.overall.judged, found.overall.invalid) == (10, 6, 4)
    assert found.overall.net_bounds == pytest.approx((0.2, 1.0))
    assert found.invalid_reasons == (("empty", 4),)
    assert "invalid" in {caveat.kind for caveat in found.caveats}


def test_a_slice_without_verdicts_has_no_estimate() -> None:
    """No data is no number."""
    found = report([{"outcome": None}]).overall
    assert (found.win, found.net, found.flips, found.first_place, found.verdict) == (None, None, None, None, "unclear")
    assert "-" in render.to_text(report([{"outcome": None}]))


def test_first_place_and_flips_show_a_judge_that_looks_at_the_order() -> None:
    """A judge that always picks the first answer flips every pair and gives the first place everything."""
    found = report([{"outcome": "tie", "consistent": False, "cf_outcome": "win", "bf_outcome": "loss"}] * 20)
    assert found.overall.flips and found.overall.first_place
    assert (found.overall.flips.value, found.overall.first_place.value) == (1.0, 1.0)
    assert {"flips", "position"} <= {caveat.kind for caveat in found.caveats}


def test_better_must_hold_for_all_categories_at_once() -> None:
    """An effect that is clear alone is unclear among ten categories (Bonferroni)."""
    rows = [{"outcome": outcome} for outcome in ["win"] * 14 + ["loss"] * 5]
    alone = report(rows).categories[0]
    among = next(
        part for part in report(rows + [{"category": str(n)} for n in range(9)]).categories if part.name == "a"
    )
    assert (alone.verdict, among.verdict) == ("better", "unclear")


def test_every_surface_says_that_the_intervals_of_categories_are_widened() -> None:
    """A widened interval is headed by no level of its own, and the sentence that says so is the same everywhere."""
    found = report([{"category": f"c{n % 9}"} for n in range(90)])
    assert {part.net.level for part in found.categories if part.net} == {1 - 0.05 / 9}
    for text in (render.to_text(found), render.to_markdown(found), render.to_html(found)):
        assert "those of the categories widened so that all hold at once (Bonferroni)" in " ".join(text.split())
    assert "95% interval" not in render.to_markdown(found) + render.to_html(found)


def test_the_judge_s_worth_stands_beside_the_length_rules() -> None:
    """With labels, accuracy is given with the longer- and shorter-wins baselines, and skill needs to beat them."""
    rows = [{"outcome": "win", "label": "win", "candidate_chars": 20}] * 45 + [
        {"outcome": "win", "label": "loss", "candidate_chars": 20}
    ] * 5
    found = report([row | {"prompt_digest": str(n)} for n, row in enumerate(rows)])
    assert found.worth
    assert (found.worth.accuracy.value, found.worth.longer.value, found.worth.shorter.value) == pytest.approx(
        (0.9, 0.9, 0.1)
    )
    assert not found.worth.skilled and not found.believable
    mixed = [row | {"prompt_digest": str(n), "candidate_chars": 5 + 10 * (n % 2)} for n, row in enumerate(rows)]
    assert report(mixed).believable


def test_a_notice_or_uncalibrated_judge_is_always_said() -> None:
    """The judge's own warning and the missing human scale stand in every report."""
    found = report([{}], judge_notice="smoke-test judge")
    for text in (render.to_text(found), render.to_markdown(found), render.to_html(found), render.to_json(found)):
        assert "smoke-test judge" in text.replace("\\", "")
        assert "judge's scale" in text.replace("&#39;", "'")
    assert not found.believable


def test_every_surface_states_the_same_figures() -> None:
    """Terminal, Markdown, HTML and JSON agree on the headline."""
    found = report([{"outcome": "win"}] * 30 + [{"outcome": "loss"}] * 10)
    assert found.overall.net
    value = json.loads(render.to_json(found))["overall"]["net"]
    assert value["value"] == found.overall.net.value == 0.5
    assert "+50.0 pp" in render.to_markdown(found) and "+50.0 pp" in render.to_html(found)
    assert re.search(r"^all .* \+50\.0 ", render.to_text(found), re.MULTILINE)


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil/)",
    "\x1b[31m",
    "\u202e",
    "{{7*7}}",
    "=1+1",
    "a|b\n# c",
]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """Model text and category names neither run, load, style nor break a table anywhere."""
    found = report([{"category": text, "outcome": "win"}, {"category": "b"}], judge_notice=text)
    page = render.to_html(found, [render.Example("id", text, "why", text, text, text, "win", 0.5, "")])
    parser = _Page()
    parser.feed(page)
    names = {tag for tag, _ in parser.tags}
    assert not names & {"script", "img", "iframe", "link", "object", "form"}
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in parser.tags for name in attrs)
    assert "\x1b" not in page and "\u202e" not in page
    terminal = render.to_text(found)
    assert "\x1b" not in terminal and "\u202e" not in terminal
    table = [line for line in render.to_markdown(found).splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {11}
    assert "](" not in render.to_markdown(found).replace("\\]\\(", "").replace("\\](", "")


@given(st.text())
def test_safe_text_holds_no_control_character(text: str) -> None:
    """Whatever goes in, nothing that steers a terminal comes out, and harmless text is unchanged."""
    out = render.safe(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out)
    assert render.safe(out) == out


def test_the_html_page_needs_nothing_from_outside() -> None:
    """One file: no scripts, no requests, a policy that forbids both, both colour schemes."""
    page = render.to_html(report([{}]))
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org)", page)


def test_the_terminal_report_fits_80_columns() -> None:
    """Long category names are cut, prose is wrapped."""
    rows = [
        {"category": f"a very long category name number {n}", "outcome": ("win", "loss")[n % 2], "label": "win"}
        for n in range(40)
    ]
    assert max(map(len, render.to_text(report(rows)).splitlines())) <= 80


def test_hostile_labelled_categories_stay_text_in_markdown() -> None:
    """The part on the judge's worth escapes category names like every other part."""
    rows = [
        {"category": "x\n\n<img src=y onerror=z>", "label": "win", "outcome": "win", "prompt_digest": str(n)}
        for n in range(9)
    ]
    assert "<img" not in render.to_markdown(report(rows)).replace("\\<", "")


def test_a_wider_tie_margin_is_always_said() -> None:
    """Figures settled under another rule than the run's own carry that in every form."""
    found = report([{}], tie_margin=0.4)
    assert "tie margin of 0.4" in " ".join(render.to_text(found).split())
    assert "tie margin of 0.4" in render.to_json(found)


def test_a_draft_rubric_and_missing_sources_are_said() -> None:
    """A rubric that may still change, and items without what the rubric judges by, stand among the caveats."""
    found = report([{"flags": "no_reference"}, {"flags": "identical"}], rubric_released=False)
    texts = {caveat.kind: caveat.text for caveat in found.caveats}
    assert "is a draft" in texts["draft"]
    assert texts["no_reference"] == "1 of 2 items have no reference, by which this rubric judges."


def test_one_comparison_is_shown_whole_or_invalid() -> None:
    """The terminal form of a comparison names outcome, both orders and doubts; an invalid one its reason."""
    asks = plan(sample_pair(), sample_rubric(), JudgeId("j"))
    first = settle(
        sample_pair(), sample_rubric(), JudgeId("j"), asks, [Reply(probs=(0.9, 0.0, 0.1), text="why\x1b")] * 2
    )
    assert "no: the verdict depends on the order" in render.comparison_text(first)
    assert "why<U+001B>" in render.comparison_text(first)
    broken = settle(sample_pair(), sample_rubric(), JudgeId("j"), asks, [Reply(), Reply()])
    assert render.comparison_text(broken).startswith("invalid (empty)")
    assert json.loads(render.comparison_json(broken))["outcome"] is None


def test_examples_prefer_what_a_reader_should_see(tmp_path: Path) -> None:
    """Verdicts against their label come first, then flips, cut to a readable length."""
    rows = [
        {
            "id": str(n),
            "prompt": f"q{n}",
            "candidate": "c" * (5000 if n == 0 else 3),
            "baseline": "b" * (n + 2),
            "label": "loss",
        }
        for n in range(6)
    ]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    store = Store(tmp_path / "home")

    def script(ask: Ask) -> Reply:
        return Reply(probs=(1.0, 0.0, 0.0)) if "q3" in ask.question else prefer_longer(ask)

    made = RunPlan("r-1", "2026", open_evalset(path), {}, sample_rubric(), "scripted")
    asyncio.run(start_run(made, ScriptedBackend(script), store))
    table = store.comparisons("r-1")
    examples = render.pick_examples(store, summarise(store.run().header, table), table)
    assert (examples[0].pair_id, examples[0].why) == ("0", "against its label")
    assert "[cut: 3,000 more characters]" in examples[0].candidate
    assert ("3", "other verdict when swapped") in {(example.pair_id, example.why) for example in examples}


def test_json_of_estimates_carries_their_doubt() -> None:
    """Every number leaves with low, high, level, n, clusters and method."""
    value = json.loads(render.to_json(report([{"outcome": "win"}, {"outcome": "loss"}])))
    assert set(value["overall"]["net"]) == set(Estimate.__dataclass_fields__)
