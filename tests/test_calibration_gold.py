"""Gold sets: reading, refusing, warning, splitting, and drawing what to label."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import draws
from calibration.gold import GoldItem, GoldLabel, GoldSet, combine
from calibration.gold_rows import row
from rubrics import Outcome
from rubrics.errors import InputError


def pair(k: int, label: str | None = "A", **more) -> dict:
    """A pair row in the shape of the shared sets."""
    return {
        "id": f"p{k}",
        "prompt": f"q{k // 2}",
        "response_a": "long answer",
        "response_b": "no",
        "label": label,
    } | more


def labelled(k: int, outcome: str | None = "win", **more) -> dict:
    """A label row as `judge label` writes it."""
    return {"pair_id": f"p{k}", "annotator": "ann", "outcome": outcome} | more


def read(*rows: dict, **more) -> GoldSet:
    """Parse rows as a file would be."""
    return GoldSet.from_lines([json.dumps(r) for r in rows], **more)


def test_annotators_are_kept_apart():
    """Three votes stay three votes: majority, shares, value and disagreement are derived."""
    item = read(pair(1, "A", annotators=["A", "tie", "A"])).items[0]
    assert [label.outcome for label in item.labels] == [Outcome.WIN, Outcome.TIE, Outcome.WIN]
    assert item.majority is Outcome.WIN
    assert item.shares == pytest.approx((2 / 3, 1 / 3, 0))
    assert item.value == pytest.approx(5 / 6)
    assert item.disagreement == pytest.approx(2 / 3)
    assert (item.candidate_length, item.baseline_length) == (11, 2)


def test_no_majority_is_a_result():
    """A pair that splits its annotators stays in the set, is counted, and is first in the queue for an expert."""
    gold = read(
        pair(1, annotators=["A", "B"], label=None), pair(2, annotators=["A", "A"]), pair(3, annotators=["A", "B", "B"])
    )
    assert [item.pair_id for item in gold.no_majority] == ["p1"]
    assert [item.pair_id for item in gold.disputed()] == ["p1", "p3"]
    assert any("no majority" in warning for warning in gold.warnings)


def test_a_label_without_annotators_is_a_stated_one():
    """The source's own label counts where no annotator is named, and rows without any label are counted out."""
    gold = read(pair(1, "B"), pair(2, None), pair(3, "tie"))
    assert [item.majority for item in gold.items] == [Outcome.LOSS, Outcome.TIE]
    assert any("1 rows carry no label" in note for note in gold.notes)


def test_named_annotators_come_from_a_mapping():
    """A mapping names the people, a list only numbers them."""
    gold = read(pair(1, annotators={"ann": "A", "bob": "B"}))
    assert gold.annotators == ("ann", "bob") and gold.items[0].labels[0].named
    assert not read(pair(1, annotators=["A"])).items[0].labels[0].named


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([pair(1, "C")], "gold:1: field label: 'C' is none of A, B, tie"),
        ([pair(1), pair(1)], "gold:2: field id: 'p1' stands twice"),
        ([pair(1, annotators=["A", "x"])], "field annotators.1"),
        ([pair(1, annotators="A")], "field annotators"),
        ([{**pair(1), "id": ""}], "field id"),
        ([labelled(1, "better")], "field outcome: 'better' is none of"),
        ([labelled(1), labelled(1)], "gold:2: annotator 'ann' labelled pair 'p1' before"),
        ([labelled(1, probability=0)], "field probability"),
        ([labelled(1, closeness=2)], "field closeness"),
        ([labelled(1, closeness=True)], "field closeness"),
        ([labelled(1, drawn="by hand")], "field drawn"),
        ([labelled(1, shown_first="left")], "field shown_first"),
        ([labelled(1, candidate_length="9")], "field candidate_length"),
        ([labelled(1, candidate="m1"), labelled(1, annotator="bob", candidate="m2")], "an earlier row says 'm1'"),
        ([labelled(1), pair(2)], "keep them apart"),
        ([{"annotator": "ann", "outcome": "win"}], "field pair_id"),
    ],
)
def test_bad_rows_are_named_with_line_and_field(rows: list[dict], message: str):
    """Every refusal says where, which field, and what is allowed."""
    with pytest.raises(InputError) as caught:
        read(*rows)
    assert message in str(caught.value)


def test_broken_files_are_input_errors(tmp_path: Path):
    """No JSON, no object, no file: all named."""
    for text in ("{", "[1]", '"x"', "[" * 100_000, '{"pair_id": ' + "9" * 6000 + "}"):
        with pytest.raises(InputError, match=":1:"):
            GoldSet.from_lines([text])
    with pytest.raises(InputError, match="cannot be read"):
        GoldSet.read(tmp_path / "absent.jsonl")
    (tmp_path / "g.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 at byte 0"):
        GoldSet.read(tmp_path / "g.jsonl")


def test_label_rows_read_back_what_was_written(tmp_path: Path):
    """`row` and `read` are inverse, provenance and all."""
    label = GoldLabel("ann", Outcome.TIE, "both fine", 0.5, "2026-01-01T00:00:00Z", "baseline")
    item = GoldItem(
        "p1", "q1", (label,), "new", "old", "helpfulness@1", "code", "desk", "active", 0.25, "", None, 120, 80
    )
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row(item, label)) + "\n\n", encoding="utf-8")
    assert GoldSet.read(path).items == (item,)


def test_revisions_replace_and_retract():
    """A correction carries revises; an outcome of null takes the label back."""
    gold = read(labelled(1), labelled(2), labelled(1, "loss", revises=True), labelled(2, None, revises=True))
    assert [(item.pair_id, item.majority) for item in gold.items] == [("p1", Outcome.LOSS)]


def test_digest_depends_on_content_only():
    """Order of rows and annotators is nothing; an outcome, a probability or a rubric is."""
    rows = [labelled(1), labelled(1, "loss", annotator="bob"), labelled(2, "tie")]
    digest = read(*rows).digest
    assert read(*rows[::-1]).digest == digest and len(digest) == 64
    for change in ({"outcome": "loss"}, {"probability": 0.5}, {"rubric": "helpfulness@2"}, {"rationale": "why"}):
        assert read(*rows[:2], rows[2] | change).digest != digest


def test_the_right_answer_always_first_is_said():
    """A set in which one side always wins is usable only after shuffling, and says so."""
    for letter, side in (("A", "candidate"), ("B", "baseline")):
        warnings = read(*(pair(k, letter) for k in range(5))).warnings
        assert any("always on one side" in w and side in w for w in warnings)
    assert any("is a tie" in w for w in read(*(pair(k, "tie") for k in range(5))).warnings)
    assert not any("side" in w for w in read(pair(1, "A"), pair(2, "B")).warnings)


def test_duplicate_raters_are_suspected():
    """Two names that agree on every one of many shared pairs are pointed out."""
    outcomes = ["win", "loss"] * 15
    rows = [labelled(k, o, annotator=name) for k, o in enumerate(outcomes) for name in ("ann", "bob")]
    assert any("one person twice" in w for w in read(*rows).warnings)
    rows[0] = rows[0] | {"outcome": "loss"}
    assert not any("one person twice" in w for w in read(*rows).warnings)


def test_sources_do_not_mix_silently():
    """Two sources join only when asked to, and the result still says so; a pair twice never."""
    first, second = read(pair(1), source="experts"), read(pair(2), source="crowd")
    with pytest.raises(InputError, match="2 sources"):
        combine([first, second])
    both = combine([first, second], mix_sources=True)
    assert both.sources == ("crowd", "experts") and any("2 sources" in w for w in both.warnings)
    with pytest.raises(InputError, match="stands twice"):
        combine([first, first])


def test_unknown_pairs_are_listed():
    """Labels of pairs that nobody judged are returned by name."""
    known, others = read(pair(1), pair(2)).known(["p2", "p9"])
    assert [item.pair_id for item in known.items] == ["p2"] and others == ("p1",)


@given(st.integers(1, 5), st.integers(0, 3), st.permutations(range(20)))
def test_splits_keep_prompts_together_and_ignore_order(parts: int, seed: int, order: list[int]):
    """Every pair lands in one part, no prompt in two, and the order of rows changes nothing."""
    items = [pair(k) for k in range(20)]
    split = read(*items).split(parts, seed=seed)
    assert sum(len(part) for part in split) == 20
    prompts = [{item.prompt_id for item in part.items} for part in split]
    assert sum(len(p) for p in prompts) == len(set().union(*prompts))
    assert max(map(len, prompts)) - min(map(len, prompts)) <= 1
    again = read(*(items[k] for k in order)).split(parts, seed=seed)
    assert [{i.pair_id for i in part.items} for part in again] == [{i.pair_id for i in part.items} for part in split]


def test_random_draws_keep_their_chances():
    """A seeded draw is repeatable, of the asked size, with n/N for every pair."""
    ids = [f"p{k}" for k in range(50)]
    draw = draws.draw_random(ids, 10, seed=4)
    assert draw == draws.draw_random(ids[::-1], 10, seed=4) != draws.draw_random(ids, 10, seed=5)
    assert len(draw.pairs) == 10 and set(draw.probabilities.values()) == {0.2}
    assert draws.draw_random(ids, 50).how == "all"


def test_stratified_draws_are_proportional():
    """Each stratum gets its share, at least two; chances differ by stratum and are kept."""
    strata = {f"p{k}": "ab"[k >= 80] for k in range(100)}
    draw = draws.draw_stratified(strata, 20)
    counts = {name: sum(p.stratum == name for p in draw.pairs) for name in "ab"}
    assert counts == {"a": 16, "b": 4}
    tilted = draws.draw_stratified(strata, 20, spread={"a": 1.0, "b": 4.0})
    assert [sum(p.stratum == name for p in tilted.pairs) for name in "ab"] == [10, 10]
    assert {p.probability for p in tilted.pairs} == {10 / 80, 10 / 20}


def test_active_draws_match_their_chances():
    """Over many seeds every pair is drawn as often as its stored chance says, and each draw has exactly n pairs."""
    uncertainty = {f"p{k}": float(k % 5) ** 2 for k in range(40)}
    seen = dict.fromkeys(uncertainty, 0)
    for seed in range(1500):
        draw = draws.draw_active(uncertainty, 10, seed=seed)
        assert len({p.pair_id for p in draw.pairs}) == 10
        for p in draw.pairs:
            seen[p.pair_id] += 1
    assert sum(draw.probabilities.values()) == pytest.approx(10)
    for pair_id, chance in draw.probabilities.items():
        assert seen[pair_id] / 1500 == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 1500) + 1e-9)


def test_draw_chances_are_capped_at_one():
    """A pair that must be drawn has chance 1 and the others share the rest."""
    draw = draws.draw_active({"a": 1000.0, "b": 1.0, "c": 1.0, "d": 1.0}, 2, mix=0.2)
    assert draw.probabilities["a"] == 1.0 and sum(draw.probabilities.values()) == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draws.draw_random(["a"], 2), "cannot be drawn"),
        (lambda: draws.draw_random(["a", "a"], 1), "twice"),
        (lambda: draws.draw_active({"a": 1.0}, 1, mix=0), "mix"),
        (lambda: draws.draw_active({"a": float("nan"), "b": 1.0}, 1), "uncertainty"),
        (lambda: draws.draw_stratified({"a": "x"}, 1, spread={}), "spread"),
    ],
)
def test_impossible_draws_are_refused(call: Callable[[], object], message: str):
    """Too many pairs, repeated ids, missing chances."""
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "pairs", "prompts"),
    [
        ("llmbar", 419, 418),
        ("faireval", 80, 80),
        ("vicuna80", 800, 80),
        ("pandalm", 999, 170),
        ("judgebench", 244, 222),
    ],
)
def test_shared_sets_are_understood_as_they_are(gold: Callable[[str], Path], name: str, pairs: int, prompts: int):
    """Every shared set reads without a line of glue, and says that nobody recorded how it was drawn."""
    found = GoldSet.read(gold(name) / "pairs.jsonl", source=name)
    assert len(found) == pairs and len({item.prompt_id for item in found.items}) == prompts
    assert found.sources == (name,) and any("do not say how they were drawn" in w for w in found.warnings)


def test_two_gold_sets_of_the_same_pairs_disagree(gold: Callable[[str], Path]):
    """FairEval's experts and vicuna80 agree on 29 of the same 80 pairs: why sources never mix silently."""
    experts = GoldSet.read(gold("faireval") / "pairs.jsonl")
    crowd = {item.pair_id: item for item in GoldSet.read(gold("vicuna80") / "pairs.jsonl").items}
    same = 0
    for item in experts.items:
        other = crowd[f"v80-gpt35-vs-vicuna-13b-{item.pair_id.rpartition('-')[2]}"]
        same += other.stated is item.majority
    assert same == 29


def test_evalbiasbench_before_our_shuffle_would_be_caught(gold: Callable[[str], Path]):
    """In the source the right answer is always first; undoing the shuffle of the shared copy trips the warning."""
    lines = (gold("evalbiasbench") / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    found = GoldSet.from_lines(lines)
    assert not any("always on one side" in w for w in found.warnings)
    undone = GoldSet(tuple(replace(item, stated=Outcome.WIN) for item in found.items))
    assert any("always on one side" in w for w in undone.warnings)
