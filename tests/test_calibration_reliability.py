"""calibration.reliability: calibration errors with their null band, proper scores, slope."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.calibrators import fit_map, logistic
from calibration.reliability import (
    assess,
    brier,
    calibration_slope,
    corp,
    debiased_ece,
    log_losses,
    plain_ece,
    smooth_ece,
)
from rubrics.errors import InputError


def sample(n: int, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts whose true log odds are ``slope`` times what they say."""
    rng = np.random.default_rng(seed)
    s = rng.normal(0.0, 1.5, n)
    return logistic(s), (rng.random(n) < logistic(slope * s)).astype(float)


@pytest.mark.parametrize("slope", [1.0, 0.3])
def test_smooth_ece_agrees_with_relplot(slope: float) -> None:
    """The smooth calibration error and its self-chosen bandwidth are relplot's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        relplot = pytest.importorskip("relplot")
    for seed in range(3):
        p, y = sample(300, seed, slope)
        assert smooth_ece(p, y) == pytest.approx(relplot.smECE(p, y), abs=0.004)


def test_a_perfect_judge_reads_what_the_simulations_say() -> None:
    """On 100 calibrated items plain ECE reads about .10, the debiased error .03, the smooth one .07."""
    rng = np.random.default_rng(0)
    p = rng.random((300, 100))
    y = (rng.random((300, 100)) < p).astype(float)
    assert np.mean([plain_ece(a, b) for a, b in zip(p, y, strict=True)]) == pytest.approx(0.103, abs=0.01)
    assert np.mean([debiased_ece(a, b) for a, b in zip(p, y, strict=True)]) == pytest.approx(0.030, abs=0.015)
    assert np.mean([smooth_ece(a, b) for a, b in zip(p, y, strict=True)]) == pytest.approx(0.069, abs=0.01)


def test_debiased_ece_is_the_formula() -> None:
    """Two bins by hand: w (gap squared minus ybar (1 - ybar) / (n - 1)), clamped at 0, square root."""
    p = np.array([0.2] * 10 + [0.8] * 10)
    y = np.array([1.0] * 5 + [0.0] * 5 + [1.0] * 9 + [0.0])
    expected = 0.5 * ((0.2 - 0.5) ** 2 - 0.25 / 9) + 0.5 * ((0.8 - 0.9) ** 2 - 0.09 / 9)
    assert debiased_ece(p, y, bins=2) == pytest.approx(np.sqrt(expected))


def test_corp_parts_add_up_and_agree_with_scikit_learn() -> None:
    """Brier = miscalibration - discrimination + uncertainty, and the isotonic score is scikit-learn's."""
    isotonic = pytest.importorskip("sklearn.isotonic")
    p, y = sample(200, 1, 0.5)
    mcb, dsc, unc = corp(p, y)
    assert mcb - dsc + unc == pytest.approx(brier(p, y), abs=1e-12)
    fitted = isotonic.IsotonicRegression().fit(p, y).predict(p)
    assert mcb == pytest.approx(brier(p, y) - brier(fitted, y), abs=1e-12)
    assert mcb >= 0.0
    assert dsc >= 0.0


def test_slope_agrees_with_statsmodels_clustered() -> None:
    """Slope, intercept and their cluster-robust intervals are those of a GLM with cov_type cluster."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm = pytest.importorskip("statsmodels.api")
    p, y = sample(300, 2, 0.6)
    groups = np.arange(300) // 3
    ours = calibration_slope(p, y, clusters=[str(g) for g in groups])
    assert ours is not None
    s = np.log(p / (1 - p))
    theirs = sm.GLM(y, sm.add_constant(s), family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    assert [ours.intercept.value, ours.slope.value] == pytest.approx(theirs.params, abs=1e-6)
    quantile = 1.9842169515864102  # t with 99 degrees of freedom
    reach = (ours.slope.high - ours.slope.value) / quantile
    assert reach == pytest.approx(theirs.bse[1] * np.sqrt(100 / 99), rel=1e-5)


def test_an_over_confident_judge_is_found_out_and_a_calibrated_one_is_not() -> None:
    """Errors pass their chance level and the slope test rejects only where the judge really is miscalibrated."""
    bad = assess(*sample(400, 3, 0.3), rounds=200)
    good = assess(*sample(400, 4, 1.0), rounds=200)
    assert bad is not None
    assert good is not None
    assert bad.ece.beyond_chance
    assert bad.smooth_ece.beyond_chance
    assert bad.slope is not None
    assert bad.slope.slope.high < 1.0
    assert bad.slope.p_value < 1e-6
    assert not good.smooth_ece.beyond_chance
    assert good.slope is not None
    assert good.slope.p_value > 0.01
    assert bad.n == bad.clusters == 400


def test_diagram_lies_in_its_band_for_a_calibrated_judge() -> None:
    """The isotonic line of a calibrated judge stays inside the 90% consistency band nearly everywhere, and rises."""
    card = assess(*sample(500, 5), rounds=200)
    assert card is not None
    inside = [point.band_low - 1e-9 <= point.observed <= point.band_high + 1e-9 for point in card.diagram]
    assert np.mean(inside) > 0.8
    assert np.all(np.diff([point.observed for point in card.diagram]) >= 0.0)
    assert len(card.diagram) <= 101


def test_ties_narrow_the_null() -> None:
    """With ties among the outcomes the chance level is lower than for decisive outcomes: ties vary less."""
    rng = np.random.default_rng(6)
    p = np.full(200, 0.5)
    decisive = (rng.random(200) < 0.5).astype(float)
    tied = np.where(rng.random(200) < 0.8, 0.5, decisive)
    first, second = assess(p, decisive, rounds=300), assess(p, tied, rounds=300)
    assert first is not None
    assert second is not None
    assert second.smooth_ece.chance < first.smooth_ece.chance


def test_clusters_widen_intervals() -> None:
    """Four copies of each row under one prompt id leave the Brier interval as wide as the original rows do."""
    p, y = sample(100, 7)
    once = assess(p, y, rounds=100)
    ids = [str(i) for i in np.repeat(np.arange(100), 4)]
    copied = assess(np.repeat(p, 4), np.repeat(y, 4), clusters=ids, rounds=100)
    assert once is not None
    assert copied is not None
    assert copied.clusters == 100
    assert copied.n == 400
    assert copied.brier.high - copied.brier.low == pytest.approx(once.brier.high - once.brier.low, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_scores_do_not_depend_on_row_order_or_side(seed: int, n: int) -> None:
    """Permuting rows, or mirroring forecasts and outcomes, leaves every score as it was."""
    rng = np.random.default_rng(seed)
    p, y = rng.random(n), rng.choice([0.0, 0.5, 1.0], n)
    order = rng.permutation(n)
    for score in (brier, smooth_ece, lambda a, b: corp(a, b)[0], lambda a, b: float(log_losses(a, b).mean())):
        assert score(p[order], y[order]) == pytest.approx(score(p, y), abs=1e-9)
        assert score(1 - p, 1 - y) == pytest.approx(score(p, y), abs=1e-9)
    assert debiased_ece(p[order], y[order]) == pytest.approx(debiased_ece(p, y), abs=1e-9)


def test_degenerate_inputs_give_no_slope_and_no_crash() -> None:
    """Nothing, one class, a constant judge, a perfect judge and certain probabilities each have a clear answer."""
    assert assess([], []) is None
    one_class = assess([0.2, 0.9, 0.6], [1, 1, 1], rounds=50)
    constant = assess([0.5] * 10, [0, 1] * 5, rounds=50)
    perfect = assess([0.0, 1.0] * 20, [0, 1] * 20, rounds=50)
    single = assess([0.7], [1], rounds=50)
    for card in (one_class, constant, perfect, single):
        assert card is not None
        assert card.slope is None
    assert perfect is not None
    assert perfect.brier.value == 0.0
    assert constant is not None
    assert constant.miscalibration.value == pytest.approx(0.0)
    certain_wrong = assess([0.0, 1.0] * 20, [1, 0] * 20, rounds=50)
    assert certain_wrong is not None
    assert certain_wrong.log_loss.value == pytest.approx(13.8155, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([float("nan"), 0.5], [1, 0], "row 0 is nan"),
        ([0.5, 1.2], [1, 0], "row 1 is 1.2"),
        ([0.5, 0.2], [1, 2], "outcome in row 1 is 2"),
        ([0.5], [1, 0], "one length"),
    ],
)
def test_bad_rows_are_named(p: list[float], y: list[float], message: str) -> None:
    """NaN, values out of range, unknown labels and unequal lengths are the caller's error, by row."""
    with pytest.raises(InputError, match=message):
        assess(p, y)


def reward_models(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """JudgeBench reward models: mean probability of both orders and the objective label."""
    labels: dict[str, float] = {}
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        row = json.loads(line)
        labels[row["id"]] = float(row["label"] == "A")
    found: dict[str, dict[str, list[float]]] = {}
    for line in (folder / "verdicts.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["prob_a"] is not None:
            found.setdefault(row["judge"].split("/")[-1], {}).setdefault(row["id"], []).append(row["prob_a"])
    return {
        judge: (np.array([np.mean(v) for v in rows.values()]), np.array([labels[i] for i in rows]))
        for judge, rows in found.items()
    }


def test_judgebench_reward_models(gold: Callable[[str], Path]) -> None:
    """Brier score, calibration error and slope of the five recorded reward models on 140 pairs each.

    Brier, ECE (10 equal bins, on preferences, and on the confidence of the side taken) and the slope through the origin
    (1 / temperature). The folder's README gives the ranges .07-.33 and .97-.087 without definitions: the least
    confidence-scale ECE is .0695, and the least slope .0869 or .080 by judge.
    """
    expected = {
        "Ray2333_GRM-Gemma-2B-rewardmodel-ft": (0.2715, 0.2381, 0.2325, 0.2649),
        "Skywork_Skywork-Reward-Gemma-2-27B": (0.3456, 0.3369, 0.3364, 0.0800),
        "Skywork_Skywork-Reward-Llama-3.1-8B": (0.3576, 0.3691, 0.3517, 0.0869),
        "internlm_internlm2-20b-reward": (0.2074, 0.1175, 0.0985, 1.0209),
        "internlm_internlm2-7b-reward": (0.2182, 0.1082, 0.0695, 0.7630),
    }
    models = reward_models(gold("judgebench"))
    assert set(models) == set(expected)
    for judge, (score, error, confident, slope) in expected.items():
        p, y = models[judge]
        right = np.where(p > 0.5, y, 1.0 - y)
        assert p.size == 140
        assert brier(p, y) == pytest.approx(score, abs=1e-4)
        assert plain_ece(p, y) == pytest.approx(error, abs=1e-4)
        assert plain_ece(np.maximum(p, 1 - p), right) == pytest.approx(confident, abs=1e-4)
        assert fit_map("temperature", p, y, smooth=False)["slope"][0] == pytest.approx(slope, abs=1e-4)
    card = assess(*models["Skywork_Skywork-Reward-Llama-3.1-8B"], rounds=200)
    assert card is not None
    assert card.ece.beyond_chance
    assert card.slope is not None
    assert card.slope.slope.high < 0.2
