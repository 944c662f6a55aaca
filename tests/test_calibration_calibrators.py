"""calibration.calibrators: each map against an independent program, and its shape."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from calibration.calibrators import (
    EDGE,
    METHODS,
    evaluate,
    fit_map,
    log_odds,
    logistic,
    venn_abers_interval,
)


def sample(n: int = 400, seed: int = 0, *, ties: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Preferences of an over-confident, slightly biased judge and human outcomes."""
    rng = np.random.default_rng(seed)
    s = rng.normal(0.0, 2.5, n)
    y = (rng.random(n) < logistic(0.45 * s + 0.3)).astype(float)
    y[rng.random(n) < ties] = 0.5
    return logistic(s), y


def test_temperature_and_platt_agree_with_scikit_learn() -> None:
    """Without smoothing, both maps are the maximum-likelihood logistic fits of scikit-learn."""
    linear = pytest.importorskip("sklearn.linear_model")
    p, y = sample()
    s = log_odds(p)
    free = linear.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(s[:, None], y)
    through = linear.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(s[:, None], y)
    ours = fit_map("platt", p, y, smooth=False)
    assert ours["slope"][0] == pytest.approx(free.coef_[0, 0], rel=1e-4)
    assert ours["shift"][0] == pytest.approx(free.intercept_[0], rel=1e-3)
    assert fit_map("temperature", p, y, smooth=False)["slope"][0] == pytest.approx(through.coef_[0, 0], rel=1e-4)


def test_smoothed_platt_agrees_with_scikit_learns_sigmoid() -> None:
    """Smoothed targets give the sigmoid of CalibratedClassifierCV, fitted to the same log odds."""
    calibration = pytest.importorskip("sklearn.calibration")
    p, y = sample(120, 3)
    a, b = calibration._sigmoid_calibration(log_odds(p), y)
    ours = fit_map("platt", p, y)
    assert ours["slope"][0] == pytest.approx(-a, rel=1e-4)
    assert ours["shift"][0] == pytest.approx(-b, rel=1e-3)


def test_beta_agrees_with_betacal() -> None:
    """The beta map has betacal's coefficients, also where one of them is cut at 0."""
    betacal = pytest.importorskip("betacal")
    for seed, n in ((0, 400), (1, 60), (5, 40)):
        p, y = sample(n, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = betacal.BetaCalibration().fit(p[:, None], y).predict(p[:, None])
        assert evaluate("beta", fit_map("beta", p, y, smooth=False), p) == pytest.approx(theirs, abs=2e-3)


def test_isotonic_agrees_with_scikit_learn() -> None:
    """Isotonic values at unseen preferences are scikit-learn's, away from the floor that keeps log loss finite."""
    isotonic = pytest.importorskip("sklearn.isotonic")
    p, y = sample(300, 2)
    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(p, y)
    at = np.linspace(0.2, 0.8, 50)
    assert evaluate("isotonic", fit_map("isotonic", p, y), at) == pytest.approx(theirs.predict(at), abs=1e-9)


def test_venn_abers_agrees_with_the_venn_abers_package() -> None:
    """Both probabilities of every test point are those of the reference implementation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("venn_abers")
    p, y = sample(200, 4)
    at = np.random.default_rng(9).random(300)
    with np.errstate(all="ignore"):
        p0, p1, c = package.venn_abers.calc_p0p1(np.column_stack([1 - p, p]), y)
        mixed, both = package.venn_abers.calc_probs(p0, p1, c, np.column_stack([1 - at, at]))
    fitted = fit_map("venn_abers", p, y)
    low, high = venn_abers_interval(fitted, at)
    assert low == pytest.approx(both[:, 0], abs=1e-9)
    assert high == pytest.approx(both[:, 1], abs=1e-9)
    assert evaluate("venn_abers", fitted, at) == pytest.approx(mixed[:, 1], abs=1e-9)


def test_ordinal_agrees_with_statsmodels() -> None:
    """The ordinal map is a proportional-odds model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ordinal = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
    p, y = sample(3000, 6, ties=0.3)
    ours = fit_map("ordinal", p, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ordinal.OrderedModel((2 * y).astype(int), log_odds(p)[:, None], distr="logit").fit(
            method="bfgs", disp=False
        )
    slope, lower, width = theirs.params
    upper = lower + np.exp(width)
    assert ours["slope"][0] == pytest.approx(slope, rel=5e-3)
    assert -ours["shift"][0] + ours["half"][0] == pytest.approx(upper, abs=5e-3)
    assert -ours["shift"][0] - ours["half"][0] == pytest.approx(lower, abs=5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_monotone_and_inside_the_unit_interval(method: str) -> None:
    """A higher preference never calibrates to a lower one, and exact 0 and 1 are handled."""
    p, y = sample(200, 7, ties=0.2)
    fitted = fit_map(method, np.append(p, [0.0, 1.0]), np.append(y, [0.0, 1.0]))
    out = evaluate(method, fitted, np.linspace(0.0, 1.0, 101))
    assert np.all(np.diff(out) >= -1e-12)
    assert out.min() > 0.0
    assert out.max() < 1.0


@pytest.mark.parametrize("method", METHODS)
def test_maps_mirror_when_sides_are_swapped(method: str) -> None:
    """Swapping candidate and baseline everywhere turns the calibrated value into one minus itself."""
    p, y = sample(150, 8, ties=0.2)
    at = np.linspace(0.02, 0.98, 49)
    ours = evaluate(method, fit_map(method, p, y), at)
    mirrored = evaluate(method, fit_map(method, 1.0 - p, 1.0 - y), 1.0 - at)
    assert mirrored == pytest.approx(1.0 - ours, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_perfect_judge_has_finite_coefficients(method: str) -> None:
    """Separated outcomes, with probabilities of exactly 0 and 1, still give a usable map."""
    y = np.tile([0.0, 1.0], 40)
    out = evaluate(method, fit_map(method, y, y), np.array([0.0, 1.0]))
    assert np.all(np.isfinite(out))
    assert out[0] < 0.1
    assert out[1] > 0.9


def test_log_odds_are_clipped_and_unknown_maps_refused() -> None:
    """A certain judge counts as one in a million, and a map that does not exist is named."""
    assert log_odds(np.array([0.0, 1.0])) == pytest.approx([np.log(EDGE), -np.log(EDGE)], abs=1e-5)
    with pytest.raises(ValueError, match="unknown calibration map 'magic'"):
        fit_map("magic", np.array([0.5]), np.array([1.0]))
    with pytest.raises(ValueError, match="unknown calibration map"):
        evaluate("magic", {}, np.array([0.5]))
