"""Position, noise, length, style and family: planted biases are found, absent ones are not, recorded judges give
known figures.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.bias import family_bias, flip_sources, position_bias, style_bias
from calibration.estimates import Estimate
from rubrics import Outcome
from rubrics.errors import InputError

W, T, L = Outcome.WIN, Outcome.TIE, Outcome.LOSS
CALLS = st.lists(st.tuples(*[st.sampled_from([W, T, L, None])] * 2), min_size=1, max_size=30)
OUTCOME = {"A": W, "B": L, "tie": T, None: None}


def rows_of(path: Path, name: str) -> list[dict]:
    """JSON lines of a shared file, compressed or not."""
    plain = path / name
    raw = plain.read_bytes() if plain.exists() else gzip.decompress((path / f"{name}.gz").read_bytes())
    return [json.loads(line) for line in raw.decode("utf-8").splitlines()]


def calls_of(path: Path, name: str = "verdicts.jsonl") -> dict[str, dict[str, tuple[Outcome | None, Outcome | None]]]:
    """By judge and pair: the verdict with A first, and with B first."""
    found: dict[str, dict[str, dict[str, Outcome | None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows_of(path, name):
        found[row["judge"]][row["id"]][row["order"]] = OUTCOME[row["verdict"]]
    return {j: {k: (v.get("ab"), v.get("ba")) for k, v in pairs.items()} for j, pairs in found.items()}


def test_a_judge_that_takes_the_first_is_seen():
    """Two pairs for the first place, one consistent, one half tie, one invalid."""
    found = position_bias([(W, L), (W, L), (W, W), (W, T), (None, W)])
    assert (found.pairs, found.invalid) == (4, 1)
    assert found.consistency.value == 0.25
    assert found.net_first.value == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found.first_rate.value == 1.0 and found.first_rate.n == 2
    assert found.p == pytest.approx(0.5)
    assert found.score_shift is None


def test_balanced_flips_are_inconsistent_but_not_biased():
    """A judge that flips every pair, half each way, has net preference 0 and consistency 0: both are reported."""
    found = position_bias([(W, L), (L, W)] * 50)
    assert found.net_first.value == 0.0 and found.consistency.value == 0.0
    assert found.first_rate.value == 0.5 and found.p == 1.0


def test_soft_scores_show_a_shift_that_verdicts_hide():
    """The same outcome in both orders, but 8 points more when shown first."""
    found = position_bias([(W, W)] * 40, scores=[(0.9, 0.82)] * 39 + [(None, 0.9)])
    assert found.consistency.value == 1.0
    assert found.score_shift.value == pytest.approx(0.08) and found.score_shift.n == 39
    with pytest.raises(InputError, match="pairs of scores"):
        position_bias([(W, W)], scores=[])


def test_no_pairs_no_numbers():
    """Empty or wholly invalid input has counts and None."""
    for calls in ([], [(None, W)]):
        found = position_bias(calls)
        assert found.pairs == 0 and found.invalid == len(calls)
        assert found.consistency is found.net_first is found.first_rate is found.p is None
    assert flip_sources([]).noise is None


@given(CALLS)
def test_changing_sides_keeps_the_position_figures(calls: list[tuple[Outcome | None, Outcome | None]]):
    """Mirrored outcomes in exchanged orders are the same judge: no position figure moves (M20)."""
    turned = [tuple(None if v is None else v.mirrored for v in pair[::-1]) for pair in calls]
    assert position_bias(calls) == position_bias(turned)


def test_noise_and_order_flips_are_told_apart():
    """A noisy judge flips as often between repeats as between orders; a position-biased one only between orders."""
    rng = np.random.default_rng(1)
    coin = [tuple(tuple([W, L][k] for k in calls) for calls in rng.integers(0, 2, (2, 3))) for _ in range(200)]
    found = flip_sources(coin)
    assert found.noise.value == pytest.approx(0.5, abs=0.07)
    assert found.position.low < 0 < found.position.high
    biased = flip_sources([((W, W, W), (L, L, L))] * 30 + [((W, W, None), (W, W, W))] * 30)
    assert biased.noise.value == 0.0 and biased.order.value == 0.5
    assert biased.position.value == pytest.approx(0.5) and biased.position.low > 0.3
    assert biased.invalid == 30 and biased.stability.value == 1.0


def test_a_planted_length_bias_is_the_difference_of_slopes():
    """Humans like length a little (.1), the judge a lot (.4): the bias is .3, not .4."""
    rng = np.random.default_rng(1)
    length, quality = np.tanh(rng.normal(size=1500)), rng.normal(size=1500)
    human = np.clip(0.5 + 0.1 * length + 0.1 * quality + rng.normal(0, 0.1, 1500), 0, 1)
    judge = np.clip(0.5 + 0.4 * length + 0.1 * quality + rng.normal(0, 0.1, 1500), 0, 1)
    found = style_bias(judge, human, {"length": length, "bold": rng.normal(size=1500)})
    assert found[0].human.value == pytest.approx(0.1, abs=0.02)
    assert found[0].bias.value == pytest.approx(found[0].judge.value - found[0].human.value, abs=1e-12)
    assert found[0].bias.low < 0.3 < found[0].bias.high + 0.02 and found[0].p < 1e-6
    assert found[1].feature == "bold" and found[1].p_two_sided > 0.05


def test_slopes_and_errors_equal_statsmodels():
    """HC3 errors and category intercepts as statsmodels computes them."""
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    x, names = rng.normal(size=60), rng.choice(["a", "b", "c"], 60)
    y, f = rng.random(60), rng.random(60)
    found = style_bias(f, y, {"x": x}, categories=list(names))[0]
    design = np.column_stack([x, *[(names == name).astype(float) for name in "abc"]])
    fit = sm.OLS(f - y, design).fit(cov_type="HC3")
    assert found.bias.value == pytest.approx(fit.params[0])
    half = found.bias.high - found.bias.value
    assert half / 2.0009953780882674 == pytest.approx(fit.bse[0], rel=1e-6)


def test_clusters_widen_a_slope():
    """Rows copied within prompts carry no new information."""
    rng = np.random.default_rng(3)
    x, y, f = rng.normal(size=40), rng.random(40), rng.random(40)
    once = style_bias(f, y, {"x": x})[0].bias
    many = style_bias(np.tile(f, 5), np.tile(y, 5), {"x": np.tile(x, 5)}, clusters=list(range(40)) * 5)[0].bias
    assert many.value == pytest.approx(once.value)
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.02)


def test_slopes_that_data_cannot_tell_are_none():
    """Constant features, collinear features, too few rows: no number; NaN and unequal lengths: an error."""
    ten = np.arange(10.0)
    assert style_bias(ten / 10, ten / 10, {"x": np.ones(10)}) is None
    assert style_bias(ten / 10, ten / 10, {"x": ten, "y": 2 * ten}) is None
    assert style_bias([0.1], [0.2], {"x": [1.0]}) is None
    with pytest.raises(InputError, match="finite"):
        style_bias([0.1], [float("nan")], {"x": [1.0]})
    with pytest.raises(InputError, match="one length"):
        style_bias([0.1], [0.2], {})


def test_family_favours_are_judge_minus_human():
    """A judge that lifts its own family by .2 over what humans say is named; a family humans like as well is not."""
    rng = np.random.default_rng(4)
    kinds = [("gpt", "llama"), ("llama", "claude"), ("claude", "gpt"), ("gpt", "gpt")]
    families = [kinds[k % 4] for k in range(800)]
    human = np.clip(0.5 + rng.normal(0, 0.15, 800), 0, 1)
    lift = np.array([0.2 * ((a == "gpt") - (b == "gpt")) for a, b in families])
    found = {row.family: row for row in family_bias(human + lift, human, families, judge_family="gpt")}
    assert found["gpt"].own and found["gpt"].excess.value == pytest.approx(0.2) and found["gpt"].excess.n == 400
    noisy = {r.family: r for r in family_bias(np.clip(human + lift + rng.normal(0, 0.2, 800), 0, 1), human, families)}
    assert noisy["gpt"].q < 1e-6 and not noisy["gpt"].own
    with pytest.raises(InputError, match="each pair"):
        family_bias([0.5], [0.5], [])


@pytest.mark.parametrize(
    ("judge", "net", "consistency"),
    [
        ("bard", 0.602, 0.369),
        ("gpt-4", 0.210, 0.689),
        ("gpt-3.5-turbo", -0.016, 0.691),
        ("vicuna-13b", -0.182, 0.374),
        ("claude-1", -0.253, 0.549),
    ],
)
def test_vicuna80_position_figures(gold: Callable[[str], Path], judge: str, net: float, consistency: float):
    """Five judges differ in the sign of their position bias; a net of 0 goes with 31% flips."""
    found = position_bias(list(calls_of(gold("vicuna80"))[judge].values()))
    assert found.net_first.value == pytest.approx(net, abs=5.01e-4)
    assert found.consistency.value == pytest.approx(consistency, abs=5.01e-4)
    assert found.pairs == 800 and isinstance(found.first_rate, Estimate)


def _llmbar(calls: dict, labels: dict, ids: set[str]) -> tuple[float, float]:
    """Accuracy over both orders and positional agreement in per cent; as in the source an invalid verdict is wrong,
    two agree.
    """
    hits = [float(v is labels[k]) for k, pair in calls.items() if k in ids for v in pair]
    same = position_bias([pair for k, pair in calls.items() if k in ids])
    blank = sum(pair == (None, None) for k, pair in calls.items() if k in ids)
    return 100 * float(np.mean(hits)), 100 * (same.consistency.value * same.pairs + blank) / len(ids)


@pytest.mark.parametrize(
    ("evaluator", "accuracy", "agreement"),
    [
        ("GPT-4/Vanilla", 80.8, 91.0),
        ("GPT-4/Swap_CoT", 80.2, 96.8),
        ("GPT-4/Metrics_Reference", 82.8, 88.2),
        ("PaLM2/Vanilla", 65.2, 72.2),
        ("LLaMA2/Vanilla", 37.1, 72.0),
        ("ChatGPT/Vanilla", 30.6, 61.4),
        ("Falcon/Vanilla", 51.4, 38.2),
    ],
)
def test_llmbar_adversarial_table(gold: Callable[[str], Path], evaluator: str, accuracy: float, agreement: float):
    """Accuracy and positional agreement as published: the mean of four subsets, each rounded to a tenth before
    averaging.
    """
    pairs = rows_of(gold("llmbar"), "pairs.jsonl")
    labels = {r["id"]: OUTCOME[r["label"]] for r in pairs}
    calls = calls_of(gold("llmbar"))[evaluator]
    subsets = defaultdict(set)
    for r in pairs:
        subsets[r["category"]].add(r["id"])
    hard = [ids for name, ids in subsets.items() if "Natural" not in name]
    assert len(hard) == 4
    found = np.mean([np.round(_llmbar(calls, labels, ids), 1) for ids in hard], axis=0)
    assert found == pytest.approx((accuracy, agreement), abs=0.0501)


def test_llmbar_natural_and_all_evaluators(gold: Callable[[str], Path]):
    """GPT-4 Vanilla on Natural: 95.5 / 95.0; every one of 65 evaluators has both orders of 419 pairs."""
    pairs = rows_of(gold("llmbar"), "pairs.jsonl")
    labels = {r["id"]: OUTCOME[r["label"]] for r in pairs}
    calls = calls_of(gold("llmbar"))
    natural = {r["id"] for r in pairs if "Natural" in r["category"]}
    assert _llmbar(calls["GPT-4/Vanilla"], labels, natural) == pytest.approx((95.5, 95.0), abs=0.001)
    assert len(calls) == 65 and all(len(found) == 419 for found in calls.values())


@pytest.mark.parametrize(
    ("evaluator", "accuracy", "agreement"),
    [
        ("GPT-4/Vanilla_NoRules", 72.7, 69.7),
        ("GPT-4/Metrics_Reference", 66.7, 60.6),
        ("ChatGPT/Vanilla_NoRules", 57.6, 18.2),
        ("PaLM2/Vanilla_NoRules", 59.8, 31.8),
        ("LLaMA2/Vanilla_NoRules", 56.1, 33.3),
    ],
)
def test_llmbar_human_table(gold: Callable[[str], Path], evaluator: str, accuracy: float, agreement: float):
    """The FairEval part with human labels, as in the statistics of its source."""
    labels = {r["id"]: OUTCOME[r["label"]] for r in rows_of(gold("llmbar_human3"), "pairs.jsonl")}
    found = _llmbar(calls_of(gold("llmbar_human3"))[evaluator], labels, set(labels))
    assert found == pytest.approx((accuracy, agreement), abs=0.0501)


def test_repeats_of_nine_judges(gold: Callable[[str], Path]):
    """Repetition stability of nine judges over three repeats; order flips exceed noise in every one of them."""
    published = json.loads((gold("judge9_repeats") / "computed.json").read_text(encoding="utf-8"))
    repeats: dict[str, dict[str, dict[str, list]]] = defaultdict(lambda: defaultdict(lambda: {"ab": [], "ba": []}))
    for row in rows_of(gold("judge9_repeats"), "verdicts.jsonl"):
        repeats[row["judge"]][row["id"]][row["order"]].append(OUTCOME[row["verdict"]])
    assert repeats.keys() == published.keys()
    for judge, pairs in repeats.items():
        found = flip_sources([(calls["ab"], calls["ba"]) for calls in pairs.values()])
        assert found.pairs == 96 and found.invalid == published[judge]["unparsed"]
        expected = published[judge]["repetition_stability"]
        # The published figure takes "unparsed" for a verdict of its own; here it is no verdict.
        exact = published[judge]["unparsed"] == 0
        assert found.stability.value == pytest.approx(expected, abs=5e-5 if exact else 0.025)
        assert found.position.value > 0 and found.order.value > found.noise.value


def test_humans_like_length_on_ordinary_sets_and_not_on_llmbar(gold: Callable[[str], Path]):
    """Gpt-3.5 on PandaLM: judge slope, human slope and their difference, in that order, all on the same pairs."""
    pairs = {r["id"]: r for r in rows_of(gold("pandalm"), "pairs.jsonl")}
    value = {"A": 1.0, "tie": 0.5, "B": 0.0}
    calls = [r for r in rows_of(gold("pandalm"), "verdicts.jsonl") if r["judge"] == "gpt-3.5-turbo" and r["verdict"]]
    gaps = np.array([len(str(pairs[r["id"]]["response_a"])) - len(str(pairs[r["id"]]["response_b"])) for r in calls])
    human = [value[pairs[r["id"]]["label"]] for r in calls]
    found = style_bias(
        [value[r["verdict"]] for r in calls],
        human,
        {"length": np.tanh(gaps / gaps.std())},
        clusters=[pairs[r["id"]]["prompt"] for r in calls],
    )[0]
    assert found.human.low > 0 and found.judge.value > 0
    assert found.bias.value == pytest.approx(found.judge.value - found.human.value)
