"""calibration.confidence: choosing, applying and guarding a fitted calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.calibrators import METHODS, logistic
from calibration.confidence import MINIMUM, Calibration, NotCalibrated, cross_fit, fit
from rubrics.errors import InputError

IDENTITY = {"rubric": "helpfulness@1", "judge": "local@3f2a", "gold": "9c1e"}


def sample(n: int, seed: int = 0, *, ties: float = 0.0, slope: float = 0.45, shift: float = 0.3):
    """An over-confident judge with an offset, human outcomes, and the true mean outcome."""
    rng = np.random.default_rng(seed)
    s = rng.normal(0.0, 2.5, n)
    truth = logistic(slope * s + shift)
    y = (rng.random(n) < truth).astype(float)
    y[rng.random(n) < ties] = 0.5
    return logistic(s), y, truth * (1 - ties) + 0.5 * ties


def made(n: int = 200, seed: int = 0, **extra: object) -> Calibration:
    """A calibration fitted on ``sample``."""
    p, y, _ = sample(n, seed)
    return fit(p, y, **IDENTITY, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "ties", "expected"),
    [
        (60, 0.0, {"temperature"}),
        (150, 0.0, {"temperature", "platt"}),
        (150, 0.3, {"temperature", "platt", "ordinal"}),
        (400, 0.0, {"temperature", "platt", "beta"}),
        (1200, 0.2, set(METHODS)),
    ],
)
def test_maps_compete_by_sample_size(n: int, ties: float, expected: set[str]) -> None:
    """Small gold sets get one parameter; flexible maps compete only where there is data for them."""
    p, y, _ = sample(n, 1, ties=ties)
    calibration = fit(p, y, **IDENTITY)
    assert set(calibration.considered) == expected
    assert calibration.considered[calibration.method] == min(calibration.considered.values())
    assert calibration.n == n


def test_clusters_are_what_counts_as_sample_size() -> None:
    """Four annotators on 60 prompts are 60 prompts: only temperature competes, though there are 240 rows."""
    p, y, _ = sample(240, 2)
    calibration = fit(p, y, clusters=[f"q{i // 4}" for i in range(240)], **IDENTITY)
    assert calibration.clusters == 60
    assert set(calibration.considered) == {"temperature"}
    assert calibration.quality["log_loss"].clusters == 60


def test_calibration_comes_nearer_to_the_truth_than_the_judge() -> None:
    """With an over-confident judge the calibrated values are within .06 of the true ones where raw ones are .13 off."""
    for n in (60, 300, 1000):
        p, y, _ = sample(n, 3)
        fresh, _, truth = sample(4000, 99)
        calibration = fit(p, y, **IDENTITY)
        assert np.mean(np.abs(fresh - truth)) > 0.12
        assert np.mean(np.abs(calibration.apply_all(fresh) - truth)) < (0.10 if n == 60 else 0.06)


def test_a_judge_that_tells_no_more_than_the_base_rate_gains_nothing() -> None:
    """Four wins in five and a judge that sees none of it: its Brier score is below a coin's, its gain is not shown."""
    rng = np.random.default_rng(3)
    y = (rng.random(400) < 0.8).astype(float)
    blind = fit(rng.uniform(0.6, 0.9, 400), y, rubric="r@1", judge="j@1", gold="g")
    assert blind.quality["brier"].high < 0.25
    assert blind.quality["brier_gain"].low <= 0.0
    seen = fit(np.clip(0.3 + 0.4 * y + rng.normal(0, 0.1, 400), 0.01, 0.99), y, rubric="r@1", judge="j@1", gold="g")
    assert seen.quality["brier_gain"].low > 0.0


def test_quality_is_held_out_and_carries_intervals() -> None:
    """Quality figures are out-of-fold, with the raw judge beside them and the paired gain."""
    calibration = made(400)
    quality = calibration.quality
    assert set(quality) == {"brier", "brier_gain", "brier_raw", "log_loss", "log_loss_gain", "log_loss_raw"}
    gain = quality["log_loss_gain"]
    assert gain.value == pytest.approx(quality["log_loss_raw"].value - quality["log_loss"].value)
    assert gain.low > 0.0
    p, y, _ = sample(400)
    held = cross_fit(p, y, calibration.method)
    assert np.mean((held - y) ** 2) == pytest.approx(quality["brier"].value)


def test_a_prompt_is_never_in_two_folds() -> None:
    """Held-out values of a prompt do not move when its own labels change."""
    p, y, _ = sample(120, 4)
    ids = [f"q{i // 2}" for i in range(120)]
    first = cross_fit(p, y, "platt", clusters=ids)
    other = y.copy()
    other[:2] = 1.0 - other[:2]
    second = cross_fit(p, other, "platt", clusters=ids)
    assert first[:2] == pytest.approx(second[:2], abs=1e-12)
    assert np.abs(first - second).max() > 1e-6


def test_round_trip_through_json() -> None:
    """A calibration is plain JSON and comes back equal, for every kind of map."""
    p, y, _ = sample(1200, 5, ties=0.2)
    for method in METHODS:
        calibration = fit(p, y, method=method, **IDENTITY)
        again = Calibration.from_json(calibration.to_json())
        assert again == calibration
        assert again.apply(0.83) == calibration.apply(0.83)
        assert json.loads(calibration.to_json())["rubric"] == "helpfulness@1"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1, "coefficients": {}}', "null"],
)
def test_other_files_are_refused(text: str) -> None:
    """What is not a calibration file is an input error, whatever is wrong with it."""
    with pytest.raises(InputError, match="calibration file"):
        Calibration.from_json(text)


def test_a_file_with_a_hole_is_refused() -> None:
    """A missing coefficient or an unknown method is found when loading, not when judging."""
    raw = json.loads(made().to_json())
    for change in ({"coefficients": {}}, {"method": "magic"}):
        with pytest.raises(InputError, match="calibration file"):
            Calibration.from_json(json.dumps({**raw, **change}))


def test_another_rubric_or_judge_raises_not_calibrated() -> None:
    """A calibration answers for its own rubric and judge only, and names both."""
    calibration = made()
    assert calibration.require(rubric="helpfulness@1", judge="local@3f2a") is calibration
    with pytest.raises(NotCalibrated, match=r"fitted for rubric 'helpfulness@1', not for 'helpfulness@2'"):
        calibration.require(rubric="helpfulness@2", judge="local@3f2a")
    with pytest.raises(NotCalibrated, match="fitted for judge"):
        calibration.require(rubric="helpfulness@1", judge="local@other")
    assert issubclass(NotCalibrated, InputError)


@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_labels_give_no_calibration(n: int) -> None:
    """Below 30 labelled prompts there is no calibration, and the message says how many there are."""
    p, y, _ = sample(n, 6)
    with pytest.raises(NotCalibrated, match=f"at least {MINIMUM} labelled prompts; this gold set has {n}"):
        fit(p, y, **IDENTITY)


@pytest.mark.parametrize(("label", "word"), [(1.0, "win"), (0.5, "tie"), (0.0, "loss")])
def test_labels_of_one_kind_give_no_calibration(label: float, word: str) -> None:
    """One class only, and all ties, cannot calibrate anything."""
    p, _, _ = sample(60, 7)
    with pytest.raises(NotCalibrated, match=word):
        fit(p, np.full(60, label), **IDENTITY)


def test_a_constant_judge_is_left_with_the_base_rate_and_says_so() -> None:
    """A judge that says .8 about everything is calibrated to the smoothed share of wins."""
    y = np.array([1.0, 0.0, 0.0, 0.0] * 10)
    calibration = fit(np.full(40, 0.8), y, **IDENTITY)
    assert calibration.method == "constant"
    assert calibration.apply(0.8) == pytest.approx(11 / 42)
    assert "only the base rate" in calibration.notes[0]
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_a_perfect_judge_stays_finite() -> None:
    """Probabilities of exactly 0 and 1 that are always right calibrate near, never at, 0 and 1."""
    y = np.tile([0.0, 1.0], 60)
    calibration = fit(y, y, **IDENTITY)
    assert 0.9 < calibration.apply(1.0) < 1.0
    assert 0.0 < calibration.apply(0.0) < 0.1
    assert any("clipped" in note for note in calibration.notes)


def test_an_inverted_judge_is_noted() -> None:
    """A judge that prefers what humans reject is shown as such, not silently turned around by one parameter."""
    p, y, _ = sample(200, 8)
    calibration = fit(1.0 - p, y, method="platt", **IDENTITY)
    assert any("inverted" in note for note in calibration.notes)
    assert calibration.confidence(0.95) < 0.5
    cautious = fit(1.0 - p, y, method="temperature", **IDENTITY)
    assert cautious.apply(0.95) == pytest.approx(0.5)
    assert any("adds nothing" in note for note in cautious.notes)


def test_an_over_confident_judge_is_noted() -> None:
    """A slope below one half is put in words."""
    p, y, _ = sample(90, 9, slope=0.2, shift=0.0)
    assert any("over-confident" in note for note in fit(p, y, **IDENTITY).notes)


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01, float("inf")])
def test_invalid_preferences_are_refused(value: float) -> None:
    """A calibration has no answer for an invalid comparison."""
    with pytest.raises(InputError, match=r"not in \[0, 1\]"):
        made().apply(value)


@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([0.5, float("nan")], [1, 0], "row 1 is nan"),
        ([0.5, 0.5], [1, 0.7], "outcome in row 1"),
        ([0.5], [1, 0], "one length"),
    ],
)
def test_bad_rows_are_named(p: list[float], y: list[float], message: str) -> None:
    """NaN preferences, unknown labels and unequal lengths are named before anything is fitted."""
    with pytest.raises(InputError, match=message):
        fit(p, y, **IDENTITY)
    with pytest.raises(InputError, match="unknown calibration method"):
        made(method="magic")
    with pytest.raises(NotCalibrated, match="at least 2 prompts"):
        cross_fit([0.5], [1], "platt")


@pytest.mark.parametrize("method", ["temperature", "platt", "ordinal", "beta", "venn_abers", "isotonic"])
def test_outcome_probabilities_split_the_preference(method: str) -> None:
    """P(win), P(tie), P(loss) are probabilities whose half-tie mean is the calibrated preference, with ties as in
    gold.
    """
    p, y, _ = sample(400, 10, ties=0.3)
    calibration = fit(p, y, method=method, **IDENTITY)
    ties = []
    for value in np.append(p, [0.0, 0.5, 1.0]):
        win, tie, loss = calibration.outcomes(float(value))
        assert min(win, tie, loss) >= 0.0
        assert win + tie + loss == pytest.approx(1.0)
        assert win + tie / 2 == pytest.approx(calibration.apply(float(value)))
        ties.append(tie)
    assert np.mean(ties) == pytest.approx(np.mean(y == 0.5), abs=0.04)


def test_without_ties_in_gold_no_tie_is_predicted() -> None:
    """A gold set without ties gives P(tie) = 0."""
    assert made().outcomes(0.7)[1] == 0.0


def test_venn_abers_interval_narrows_with_more_labels() -> None:
    """The distance of the two Venn-Abers probabilities says how sure the calibration is; other maps have none."""
    few, many = made(60, 11, method="venn_abers"), made(1200, 11, method="venn_abers")
    first, second = few.interval(0.8), many.interval(0.8)
    assert first is not None
    assert second is not None
    assert second[1] - second[0] < first[1] - first[0]
    assert second[0] <= many.apply(0.8) <= second[1]
    assert made().interval(0.8) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_fit_mirrors_and_ignores_row_order(seed: int) -> None:
    """Swapping sides mirrors the calibration; permuting rows (with their prompt ids) changes nothing."""
    p, y, _ = sample(120, seed, ties=0.1)
    ids = [f"q{i:03d}" for i in range(120)]
    calibration = fit(p, y, clusters=ids, **IDENTITY)
    swapped = fit(1.0 - p, 1.0 - y, clusters=ids, **IDENTITY)
    order = np.random.default_rng(seed).permutation(120)
    shuffled = fit(p[order], y[order], clusters=[ids[i] for i in order], **IDENTITY)
    assert swapped.method == calibration.method == shuffled.method
    for value in (0.05, 0.4, 0.9):
        assert swapped.apply(1.0 - value) == pytest.approx(1.0 - calibration.apply(value), abs=1e-6)
        assert shuffled.apply(value) == pytest.approx(calibration.apply(value), abs=1e-6)
