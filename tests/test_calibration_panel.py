"""calibration.panel: weights from gold, error correlation, and whether the panel is worth its calls."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.panel import effective_size, fit_panel, majority, peer_rank
from rubrics.errors import InputError


def judges(n: int, errors: tuple[float, ...], seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Independent judges with the given error rates, hard verdicts, and the truth."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.5).astype(float)
    return {f"j{k}": np.where(rng.random(n) < e, 1.0 - truth, truth) for k, e in enumerate(errors)}, truth


def test_weights_are_log_odds_of_accuracy() -> None:
    """Independent judges get weights proportional to ln(a / (1 - a))."""
    votes, truth = judges(20_000, (0.1, 0.2, 0.3))
    panel = fit_panel(votes, truth)
    assert panel is not None
    expected = np.log([0.9 / 0.1, 0.8 / 0.2, 0.7 / 0.3])
    assert [m.weight for m in panel.members] == pytest.approx(list(expected / expected.sum()), abs=0.01)
    assert panel.effective == pytest.approx(3.0, abs=0.1)
    assert panel.best == "j0"


def test_weighting_beats_majority_with_unequal_judges() -> None:
    """With errors .1, .2, .3, .45 the weighted panel reaches the reference .875 where a plain vote has about .870 or
    less.
    """
    votes, truth = judges(20_000, (0.1, 0.2, 0.3, 0.45), 1)
    panel = fit_panel(votes, truth)
    assert panel is not None
    vote = majority(votes)
    split = np.where(vote == 0.5, 0.5, (vote == truth).astype(float)).mean()
    assert panel.accuracy.value > split
    assert panel.accuracy.value == pytest.approx(0.905, abs=0.02)


def test_copies_count_once_and_are_warned_about() -> None:
    """Three copies of one judge are one judge: correlation 1, effective size 1, and a panel that adds nothing."""
    votes, truth = judges(400, (0.3,), 2)
    panel = fit_panel(dict.fromkeys("abc", votes["j0"]), truth)
    assert panel is not None
    assert panel.effective == pytest.approx(1.0)
    assert panel.correlation[0][1] == pytest.approx(1.0)
    assert panel.gain.value == 0.0
    assert panel.warning is not None
    assert "not better than its best member" in panel.warning


def test_a_panel_that_hurts_is_called_worse() -> None:
    """Five judges that share their errors outvote one good judge, and the result says to use that one alone."""
    rng = np.random.default_rng(3)
    truth = (rng.random(600) < 0.5).astype(float)
    good = np.where(rng.random(600) < 0.2, 1 - truth, truth)
    shared = np.where(rng.random(600) < 0.40, 1 - truth, truth)
    crowd = {f"c{k}": np.where(rng.random(600) < 0.02, 1 - shared, shared) for k in range(5)}
    panel = fit_panel({"good": good, **crowd}, truth)
    assert panel is not None
    assert panel.best == "good"
    assert panel.gain.high < 0.0
    assert panel.effective < 3.0
    assert panel.warning is not None
    assert panel.warning.endswith("use good alone")


def test_combine_uses_whoever_answered() -> None:
    """An invalid member is left out and the others' weights are scaled up; nobody gives nothing."""
    votes, truth = judges(500, (0.1, 0.3), 4)
    panel = fit_panel(votes, truth)
    assert panel is not None
    heavy, light = (m.weight for m in panel.members)
    assert panel.combine({"j0": 1.0, "j1": 0.0}) == pytest.approx(heavy / (heavy + light))
    assert panel.combine({"j0": None, "j1": 0.3}) == pytest.approx(0.3)
    assert panel.combine({"j0": float("nan"), "j1": None}) is None
    with pytest.raises(InputError, match="not on this panel: z"):
        panel.combine({"z": 1.0})


def test_invalid_rows_are_counted() -> None:
    """NaN preferences are counted by member, and rows without any answer by the panel."""
    votes, truth = judges(100, (0.1, 0.3), 5)
    votes["j0"][:10] = np.nan
    votes["j1"][:4] = np.nan
    panel = fit_panel(votes, truth)
    assert panel is not None
    assert [m.invalid for m in panel.members] == [10, 4]
    assert panel.invalid == 4
    assert panel.accuracy.n == 96


def test_majority_of_hard_votes() -> None:
    """The most frequent side wins, a shared first place is a tie, silence is NaN."""
    votes = {"a": [1, 1, 0.5, np.nan], "b": [0.9, 0, 0.5, np.nan], "c": [0, 0.5, 1, np.nan]}
    out = majority(votes)
    assert out[:3].tolist() == [1.0, 0.5, 0.5]
    assert np.isnan(out[3])


@pytest.mark.parametrize(
    ("k", "r", "size"), [(5, 0.0, 5.0), (5, 1.0, 1.0), (6, 0.4, 2.0), (5, -0.2, 5.0), (0, 0.3, 0.0)]
)
def test_effective_size(k: int, r: float, size: float) -> None:
    """The formula k / (1 + (k - 1) r), with r held in [0, 1]."""
    assert effective_size(k, r) == pytest.approx(size)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_mirror_and_member_order(seed: int) -> None:
    """Swapping sides, or listing judges in another order, changes no weight and no accuracy."""
    votes, truth = judges(60, (0.2, 0.3, 0.4), seed)
    panel = fit_panel(votes, truth)
    mirrored = fit_panel({name: 1.0 - row for name, row in votes.items()}, 1.0 - truth)
    assert panel is not None
    assert mirrored is not None
    assert [m.weight for m in mirrored.members] == pytest.approx([m.weight for m in panel.members])
    assert mirrored.accuracy == panel.accuracy
    turned = fit_panel(dict(reversed(votes.items())), truth)
    assert turned is not None
    assert {m.name: m.weight for m in turned.members} == pytest.approx({m.name: m.weight for m in panel.members})
    assert turned.accuracy.value == pytest.approx(panel.accuracy.value)


def test_degenerate_panels() -> None:
    """Too little gold gives nothing; useless, perfect and constant judges give finite weights."""
    assert fit_panel({"a": []}, []) is None
    assert fit_panel({"a": [1.0]}, [1.0]) is None
    useless = fit_panel({"a": [1.0, 1.0, 0.0, 0.0], "b": [0.0] * 4}, [1.0, 0.0, 1.0, 0.0])
    assert useless is not None
    assert [m.weight for m in useless.members] == [0.5, 0.5]
    perfect = fit_panel({"a": [1.0, 0.0] * 20, "b": [0.5] * 40}, [1.0, 0.0] * 20)
    assert perfect is not None
    assert perfect.members[0].weight == 1.0
    assert perfect.accuracy.value == 1.0
    assert perfect.accuracy.low < 1.0
    assert perfect.correlation[0][1] is None
    assert fit_panel({"a": [0.9, 0.2, 0.7]}, [0.5, 0.5, 0.5]) is not None


@pytest.mark.parametrize(
    ("votes", "truth", "message"),
    [
        ({}, [1.0], "at least one judge"),
        ({"a": [1.0, 0.0]}, [1.0], "'a' has 2 preferences for 1"),
        ({"a": [1.5]}, [1.0], r"outside \[0, 1\]"),
        ({"a": [1.0]}, [0.3], "human outcomes"),
        ({"a": [np.nan, np.nan]}, [1.0, 0.0], "no panel member answered"),
    ],
)
def test_bad_input_is_named(votes: dict[str, list[float]], truth: list[float], message: str) -> None:
    """Each wrong argument has its own message."""
    with pytest.raises(InputError, match=message):
        fit_panel(votes, truth)


def test_peer_rank_needs_judges_that_compete() -> None:
    """A judge that is no contestant, preferences out of range, and nothing at all are refused."""
    with pytest.raises(InputError, match="these are not: c"):
        peer_rank(["c"], ["a"], ["b"], [1.0])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        peer_rank(["a"], ["a"], ["b"], [2.0])
    with pytest.raises(InputError, match="at least 1"):
        peer_rank([], [], [], [])
    assert peer_rank(["a", "b"], ["a", "a"], ["b", "b"], [0.5, 0.5]) == {"a": 0.5, "b": 0.5}


NAMES = {"gpt-4": "gpt4", "claude-1": "claude", "gpt-3.5-turbo": "gpt35", "bard": "bard", "vicuna-13b": "vicuna-13b"}
SCORE = {"A": 1.0, "tie": 0.5, "B": 0.0}


def test_peer_rank_reproduces_the_published_weights_and_accuracy(gold: Callable[[str], Path]) -> None:
    """PRD: weights after five iterations, and accuracy and Fleiss kappa of the weighted panel, to all digits.

    Its panel verdict is the side of the weighted mean vote per review (both orders), its kappa is computed in the order
    in which the answers were shown.
    """
    folder = gold("vicuna80")
    pairs = {row["id"]: row for row in map(json.loads, (folder / "pairs.jsonl").read_text().splitlines())}
    reviews: dict[str, dict[tuple[str, str], float]] = {name: {} for name in NAMES}
    for row in map(json.loads, (folder / "verdicts.jsonl").read_text().splitlines()):
        if row["judge"] in NAMES:
            reviews[row["judge"]][row["id"], row["order"]] = SCORE[row["verdict"]]
    rows = [(NAMES[judge], key, y) for judge, own in reviews.items() for key, y in own.items()]
    weights = peer_rank(
        [judge for judge, _, _ in rows],
        [pairs[key[0]]["meta"]["model_a"] for _, key, _ in rows],
        [pairs[key[0]]["meta"]["model_b"] for _, key, _ in rows],
        [y for _, _, y in rows],
        iterations=5,
    )
    published = json.loads((folder / "published.json").read_text())["panel5_weighted_winrate_5iters"]
    for judge, weight in published["weights"].items():
        assert weights[NAMES[judge]] == pytest.approx(weight, abs=1e-12)
    keys = sorted(reviews["gpt-4"])
    mean = np.array([sum(weights[NAMES[j]] * reviews[j][k] for j in NAMES) for k in keys])
    side = np.sign(np.round(mean - 0.5, 12))
    human = np.array([np.sign(np.mean([SCORE[v] - 0.5 for v in pairs[k[0]]["annotators"]])) for k in keys])
    assert np.mean(side == human) == pytest.approx(published["accuracy"], abs=1e-12)
    shown = np.array([1.0 if order == "ab" else -1.0 for _, order in keys])
    both = np.concatenate([side * shown, human * shown])
    chance = sum(np.mean(both == value) ** 2 for value in (-1.0, 0.0, 1.0))
    assert (np.mean(side == human) - chance) / (1 - chance) == pytest.approx(published["fleiss"], abs=1e-12)


def llmbar(folder: Path, prompt: str) -> tuple[dict[str, list[float]], list[float], list[str]]:
    """Six models with one prompt on LLMBar's adversarial pairs: two-order means, labels, ids."""
    labels = {
        row["id"]: SCORE[row["label"]]
        for row in map(json.loads, (folder / "pairs.jsonl").read_text().splitlines())
        if "Natural" not in row["id"]
    }
    found: dict[str, dict[str, list[float]]] = {}
    with gzip.open(folder / "verdicts.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            if row["id"] in labels and row["judge"].endswith("/" + prompt) and row["verdict"] is not None:
                found.setdefault(row["judge"].split("/")[0], {}).setdefault(row["id"], []).append(SCORE[row["verdict"]])
    ids = sorted(labels)
    votes = {name: [float(np.mean(own.get(i, [np.nan]))) for i in ids] for name, own in found.items()}
    return votes, [labels[i] for i in ids], ids


def test_llmbar_a_vote_hurts_and_weights_mend_it(gold: Callable[[str], Path]) -> None:
    """Six judges by majority are far below GPT-4 alone on the adversarial pairs; weighted by gold they are above it."""
    votes, truth, ids = llmbar(gold("llmbar"), "Vanilla")
    right = np.array(truth)
    assert len(votes) == 6
    assert len(ids) == 319
    vote = majority(votes)
    assert np.mean(np.array(votes["GPT-4"]) == right) == pytest.approx(0.7712, abs=5e-5)
    assert np.mean(np.where(vote == 0.5, 0.5, vote == right)) == pytest.approx(0.4342, abs=5e-5)
    panel = fit_panel(votes, truth)
    assert panel is not None
    assert panel.best == "GPT-4"
    assert panel.accuracy.value == pytest.approx(0.8025, abs=0.02)
    assert panel.gain.value > 0.0
    assert panel.warning is None
    assert panel.effective == pytest.approx(2.81, abs=0.01)


def test_llmbar_few_shot_panel_is_warned_about(gold: Callable[[str], Path]) -> None:
    """Five judges with one example in the prompt gain nothing over GPT-4 alone, and the result says so."""
    votes, truth, _ = llmbar(gold("llmbar"), "Vanilla_1shot")
    panel = fit_panel(votes, truth)
    assert panel is not None
    assert panel.warning is not None
    assert "not better than its best member GPT-4" in panel.warning
