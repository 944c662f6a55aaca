"""calibration.length: the win rate at equal length, on the judge's and on the human scale."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.calibrators import logistic
from calibration.drift import log_length
from calibration.length import (
    Prior,
    controlled,
    controlled_many,
    difficulties,
    human_controlled,
    length_feature,
    reaches_equality,
    style_feature,
)
from rubrics.errors import InputError


def judged(n: int = 600, seed: int = 0, *, level: float = 0.0, slope: float = 1.5, longer: float = 0.6):
    """Preferences of a judge that likes length, on answers that are mostly longer; the feature; lengths."""
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(7.0, 0.4, n))
    ours = base * np.exp(rng.normal(longer, 0.3, n))
    x = length_feature(ours, base)
    p = logistic(level + slope * x + rng.normal(0.0, 0.5, n))
    return p, x, ours, base


def test_length_control_takes_out_what_length_put_in() -> None:
    """A candidate that only wins by being longer has a raw win rate far above one half and a controlled one at it."""
    p, x, ours, base = judged()
    result = controlled(p, x, rounds=300)
    assert result is not None
    assert result.raw.low > 0.6
    assert result.controlled.low < 0.5 < result.controlled.high
    assert result.coefficients[0].low > 0.0
    assert result.mediated is not None
    assert result.mediated.value == pytest.approx(1.0, abs=0.15)
    assert result.shift.value == pytest.approx(result.raw.value - result.controlled.value)
    growth = log_length(base, ours)
    assert growth is not None
    assert result.longer_not_better(growth)


def test_a_better_answer_of_equal_length_stays_better() -> None:
    """Without a length difference on average the controlled rate is near the raw one, and the verdict is not
    hacking.
    """
    p, x, ours, base = judged(level=0.8, longer=0.0)
    result = controlled(p, x, rounds=200)
    growth = log_length(base, ours)
    assert result is not None
    assert growth is not None
    assert result.controlled.low > 0.6
    assert not result.longer_not_better(growth)


def test_the_fit_is_the_logistic_one() -> None:
    """Coefficients and controlled rate are those of a binomial GLM on the same fractional outcomes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm = pytest.importorskip("statsmodels.api")
    p, x, _, _ = judged(300, 1)
    d = np.random.default_rng(2).normal(size=300)
    ours = controlled(p, x, difficulty=d, rounds=50)
    assert ours is not None
    theirs = sm.GLM(p, np.column_stack([x, d, np.ones(300)]), family=sm.families.Binomial()).fit()
    assert ours.coefficients[0].value == pytest.approx(theirs.params[0], abs=1e-3)
    expected = logistic(theirs.params[1] * d + theirs.params[2]).mean()
    assert ours.controlled.value == pytest.approx(expected, abs=1e-4)


def test_bootstrap_and_delta_method_agree() -> None:
    """Two ways to the same interval: prompts resampled, and the sandwich of the batched fit."""
    p, x, _, _ = judged(500, 3)
    first = controlled(p, x, rounds=1000)
    second = controlled_many(np.array([p]), np.array([x]))[0]
    assert first is not None
    assert second is not None
    assert second.value == pytest.approx(first.controlled.value, abs=1e-6)
    assert second.high - second.low == pytest.approx(first.controlled.high - first.controlled.low, rel=0.12)


def test_rows_of_one_prompt_are_drawn_together() -> None:
    """Copies of a row under one prompt id leave the interval as it was; without ids it would halve."""
    p, x, _, _ = judged(200, 4)
    once = controlled(p, x, rounds=400)
    ids = [str(i) for i in np.repeat(np.arange(200), 4)]
    copied = controlled(np.repeat(p, 4), np.repeat(x, 4), clusters=ids, rounds=400)
    assert once is not None
    assert copied is not None
    assert (copied.n, copied.controlled.clusters) == (800, 200)
    width = once.controlled.high - once.controlled.low
    assert copied.controlled.high - copied.controlled.low == pytest.approx(width, rel=0.15)


def test_a_prior_holds_the_length_slope() -> None:
    """With five rows the slope stays at its prior; with six hundred the data decide."""
    p, x, _, _ = judged(600, 5)
    few = controlled(p[:5], x[:5], prior=Prior(0.3, 0.05), rounds=50)
    many = controlled(p, x, prior=Prior(0.3, 5.0), rounds=50)
    assert few is not None
    assert many is not None
    assert few.coefficients[0].value == pytest.approx(0.3, abs=0.05)
    assert many.coefficients[0].value > 1.0
    assert "prior" in few.method


def test_several_features_are_controlled_at_once() -> None:
    """A judge that likes both length and lists is controlled for both."""
    rng = np.random.default_rng(6)
    p, x, _, _ = judged(800, 6)
    lists = style_feature(
        rng.poisson(6, 800), rng.poisson(2, 800), candidate_tokens=np.full(800, 300), baseline_tokens=np.full(800, 300)
    )
    assert np.std(lists, ddof=1) == pytest.approx(1.0)
    p = logistic(np.log(p / (1 - p)) + 0.7 * lists)
    one = controlled(p, x, rounds=50)
    both = controlled(p, np.column_stack([x, lists]), rounds=50)
    assert one is not None
    assert both is not None
    assert len(both.coefficients) == 2
    assert abs(both.controlled.value - 0.5) < abs(one.controlled.value - 0.5)


def test_human_scale_covers_the_human_rate_and_is_narrower_than_labels_alone() -> None:
    """With 150 random labels of 1,200 pairs the human rate at equal length is covered about 95 times of 100."""
    rng = np.random.default_rng(7)
    covered, widths, alone = 0, [], []
    for run in range(60):
        n = 1200
        x = length_feature(np.exp(rng.normal(0.3, 0.4, n)), np.ones(n))
        quality = rng.normal(0.3, 1.5, n)
        human = (rng.random(n) < logistic(quality + 0.3 * x)).astype(float)
        judge = logistic(0.4 + quality + 1.5 * x + rng.normal(0.0, 0.5, n))
        label = np.full(n, np.nan)
        rows = rng.permutation(n)[:150]
        label[rows] = human[rows]
        result = human_controlled(judge, x, label, rounds=200, seed=run)
        only = controlled(human[rows], x[rows], rounds=200, seed=run)
        assert result is not None
        assert only is not None
        truth = controlled(human, x, rounds=20)
        assert truth is not None
        covered += result.controlled.low <= truth.controlled.value <= result.controlled.high
        widths.append(result.controlled.high - result.controlled.low)
        alone.append(only.controlled.high - only.controlled.low)
    assert covered >= 53
    assert np.mean(widths) < 0.95 * np.mean(alone)


def test_too_few_labels_give_no_human_scale() -> None:
    """Below 30 labelled prompts, or with everything labelled, there is no corrected rate."""
    p, x, _, _ = judged(100, 8)
    label = np.full(100, np.nan)
    label[:29] = 1.0
    assert human_controlled(p, x, label) is None
    assert human_controlled(p, x, np.ones(100)) is None
    label[:40] = np.tile([0.0, 1.0], 20)
    given = human_controlled(p, x, label, rounds=50)
    assert given is not None
    assert "40 labels" in given.method
    label[0] = 1.3
    with pytest.raises(InputError, match="human outcomes"):
        human_controlled(p, x, label)
    with pytest.raises(InputError, match="99 human outcomes"):
        human_controlled(p, x, label[1:])


def test_difficulties_are_recovered() -> None:
    """Per-prompt difficulty learnt from twenty past candidates follows the true one; unjudged prompts read 0."""
    rng = np.random.default_rng(9)
    truth = rng.normal(0.0, 1.5, 200)
    x = np.tanh(rng.normal(size=(20, 200)))
    y = logistic(truth + x + rng.normal(0.0, 1.0, (20, 1)) + rng.normal(0.0, 1.0, (20, 200)))
    y[:, 7] = np.nan
    found = difficulties(y, x)
    assert np.corrcoef(np.delete(found, 7), np.delete(truth, 7))[0, 1] > 0.97
    assert abs(found[7]) < 0.2
    with pytest.raises(InputError, match="candidates, prompts"):
        difficulties(y, x[:5])


def test_many_candidates_skip_what_is_missing() -> None:
    """A candidate without one judged prompt has no rate; a missing row is left out of another's."""
    p, x, _, _ = judged(50, 10)
    table = np.array([p, np.full(50, np.nan), p])
    table[2, 0] = np.nan
    first, none, last = controlled_many(table, np.array([x, x, x]))
    assert none is None
    assert first is not None
    assert last is not None
    assert (first.n, last.n) == (50, 49)
    alone = controlled_many(np.array([p[1:]]), np.array([x[1:]]))[0]
    assert alone is not None
    assert last.value == pytest.approx(alone.value)
    with pytest.raises(InputError, match="both be"):
        controlled_many(p, x)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_controlled_rate_mirrors_and_ignores_row_order(seed: int) -> None:
    """Swapping sides gives one minus the rate; permuting rows changes nothing but noise in the interval."""
    p, x, ours, base = judged(80, seed)
    result = controlled(p, x, rounds=20)
    swapped = controlled(1.0 - p, length_feature(base, ours), rounds=20)
    order = np.random.default_rng(seed).permutation(80)
    shuffled = controlled(p[order], x[order], rounds=20)
    assert result is not None
    assert swapped is not None
    assert shuffled is not None
    assert swapped.controlled.value == pytest.approx(1.0 - result.controlled.value, abs=1e-9)
    assert shuffled.controlled.value == pytest.approx(result.controlled.value, abs=1e-9)


def test_degenerate_inputs() -> None:
    """Nothing, invalid rows only, certain wins only, one row, and equal lengths each have a finite or no answer."""
    assert controlled([], np.empty(0)) is None
    assert controlled([np.nan, np.nan], np.zeros(2)) is None
    wins = controlled(np.ones(50), np.tanh(np.linspace(-1, 1, 50)), rounds=50)
    assert wins is not None
    assert 0.9 < wins.controlled.value < 1.0
    one = controlled([0.7], np.zeros(1), rounds=20)
    assert one is not None
    assert one.n == 1
    ties = controlled(np.full(40, 0.5), np.tanh(np.linspace(-1, 1, 40)), rounds=20)
    assert ties is not None
    assert ties.controlled.value == pytest.approx(0.5)
    assert ties.mediated is None
    skipping = controlled([0.2, np.nan, 0.9], np.zeros(3), rounds=20)
    assert skipping is not None
    assert (skipping.n, skipping.skipped) == (2, 1)
    assert length_feature([3, 5], [1, 3]).tolist() == [0.0, 0.0]
    assert np.isnan(length_feature([3, np.nan, 9], [1, 3, 1])[1])


@pytest.mark.parametrize(
    ("p", "x", "options", "message"),
    [
        ([1.3], np.zeros(1), {}, r"in \[0, 1\]"),
        ([0.3], np.zeros(2), {}, "one row per preference"),
        ([0.3], np.array([np.nan]), {}, "feature is not finite"),
        ([0.3], np.zeros(1), {"difficulty": [np.nan]}, "difficulty"),
        ([0.3], np.zeros(1), {"clusters": ["a", "b"]}, "prompt ids"),
    ],
)
def test_bad_input_is_named(p: list[float], x: np.ndarray, options: dict[str, object], message: str) -> None:
    """Each wrong argument has its own message."""
    with pytest.raises(InputError, match=message):
        controlled(p, x, **options)  # type: ignore[arg-type]


def test_equal_length_beyond_the_data_is_told() -> None:
    """Where nearly all candidates are longer (or shorter), equal length is extrapolated; a few like pairs suffice."""
    rng = np.random.default_rng(0)
    longer = rng.uniform(0.3, 1.0, 200)
    assert not reaches_equality(longer)
    assert not reaches_equality(-longer)
    assert not reaches_equality(np.concatenate([longer, np.full(9, 0.05)]))
    assert reaches_equality(np.concatenate([longer, np.full(11, 0.05)]))
    assert not reaches_equality(np.array([0.5, -0.5, np.nan, 0.0]))


def test_the_rounds_are_drawn_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds at once give what all at once give, and a long run is never multiplied by its rounds in memory."""
    rng = np.random.default_rng(5)
    n = 20_000
    y, x = rng.random(n), np.tanh(rng.normal(size=n))
    human = np.where(rng.random(n) < 0.02, (rng.random(n) < y).astype(float), np.nan)
    found = [controlled(y[:2000], x[:2000], rounds=100), human_controlled(y[:2000], x[:2000], human[:2000], rounds=100)]
    monkeypatch.setattr("calibration.length._BLOCK", 10_000_000)
    whole = [controlled(y[:2000], x[:2000], rounds=100), human_controlled(y[:2000], x[:2000], human[:2000], rounds=100)]
    monkeypatch.undo()
    for few, all_ in zip(found, whole, strict=True):
        assert few is not None
        assert all_ is not None
        for one, other in zip((few.raw, few.controlled), (all_.raw, all_.controlled), strict=True):
            assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-9)
    tracemalloc.start()
    try:
        assert controlled(y, x, rounds=200) is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * n * 8  # one matrix of all weights
