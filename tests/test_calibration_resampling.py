"""calibration.resampling: the prediction-powered bootstrap by cells is the one by rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.resampling import LABEL_FLOOR, powered_bootstrap
from rubrics.errors import InputError


def data(n: int, extra: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes with ties, a soft judge on the same prompts, and the judge alone on others."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(0.2, 1.2, n + extra)
    judge = 1 / (1 + np.exp(-(quality + 0.3 + rng.normal(0.0, 0.7, n + extra))))
    human = (rng.random(n + extra) < 1 / (1 + np.exp(-quality))).astype(float)
    human[rng.random(n + extra) < 0.15] = 0.5
    return human[:n], judge[:n], judge[n:]


@pytest.mark.parametrize(("n", "extra"), [(60, 300), (200, 2000), (500, 20_000)])
def test_intervals_agree_with_ppboot(n: int, extra: int) -> None:
    """Ends are within a twentieth of the width of ppi-python's row bootstrap at the same power."""
    ppi = pytest.importorskip("ppi_py")
    y, f, rest = data(n, extra)
    np.random.seed(0)  # noqa: NPY002 - the peer draws from the global generator
    low, high = ppi.ppboot(np.mean, y, f, rest, lam=1, n_resamples=1500, alpha=0.05)
    ours = powered_bootstrap(y, f, rest, power=1.0)
    assert ours is not None
    assert ours.low == pytest.approx(low, abs=0.05 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.05 * (high - low))


def test_the_reference_estimate_and_width() -> None:
    """Twenty reference labels, repeated to clear the floor: power .681 and estimate .617 as ppi-python has them.

    Reference: lam .681182 with n = 20 and N = 200; repeating both four times leaves it as it is.
    """
    y = np.tile([1, 0, 1, 1, 0, 1, 0, 1, 0.5, 1, 0, 1, 1, 0, 0.5, 1, 1, 0, 1, 0], 4)
    f = np.tile([1, 0, 1, 0.5, 0, 1, 0.5, 1, 0.5, 1, 0, 0.5, 1, 0.5, 1, 1, 1, 0, 0, 0], 4)
    rest = np.tile([1, 1, 0.5, 0, 1, 0, 0.5, 1, 1, 0], 80)
    result = powered_bootstrap(y, f, rest, power=0.681182)
    assert result is not None
    assert result.value == pytest.approx(0.617030, abs=5e-7)
    assert result.high - result.low == pytest.approx((0.765050 - 0.469009) / 2, rel=0.03)
    tuned = powered_bootstrap(y, f, rest)
    assert tuned is not None
    assert tuned.value == pytest.approx(0.617030, abs=2e-3)


def test_a_good_judge_narrows_and_a_useless_one_does_not_widen() -> None:
    """Against labels alone (power 0): narrower with an informative judge, no wider than noise with a random one."""
    y, f, rest = data(300, 5000, 2)
    alone, tuned = powered_bootstrap(y, f, rest, power=0.0), powered_bootstrap(y, f, rest)
    rng = np.random.default_rng(3)
    random = powered_bootstrap(y, rng.random(300), rng.random(5000))
    assert alone is not None
    assert tuned is not None
    assert random is not None
    assert tuned.high - tuned.low < 0.96 * (alone.high - alone.low)
    assert random.high - random.low < 1.05 * (alone.high - alone.low)


def test_coverage_in_simulation() -> None:
    """The 95% interval holds the true rate in about 95 of 100 draws of 150 labels."""
    truth = data(400_000, 0, 99)[0].mean()
    hits = 0
    for seed in range(200):
        result = powered_bootstrap(*data(150, 1500, seed), rounds=1000)
        assert result is not None
        hits += result.low <= truth <= result.high
    assert 180 <= hits <= 198


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_estimate_mirrors_and_ignores_row_order(seed: int) -> None:
    """Swapping sides gives one minus the estimate; permuting rows gives the same interval."""
    y, f, rest = data(50, 200, seed)
    order = np.random.default_rng(seed).permutation(50)
    one = powered_bootstrap(y, f, rest, rounds=200)
    two = powered_bootstrap(1 - y, 1 - f, 1 - rest, rounds=200)
    three = powered_bootstrap(y[order], f[order], rest[::-1], rounds=200)
    assert one is not None
    assert two is not None
    assert three is not None
    assert two.value == pytest.approx(1 - one.value)
    assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high), abs=1e-6)


def test_degenerate_inputs() -> None:
    """Below 30 labels or without unlabelled rows there is no corrected rate; constant judges are ignored."""
    y, f, rest = data(40, 100)
    for n in (0, 1, LABEL_FLOOR - 1):
        assert powered_bootstrap(y[:n], f[:n], rest) is None
    assert powered_bootstrap(y, f, []) is None
    constant = powered_bootstrap(y, np.full(40, 0.7), np.full(100, 0.7))
    assert constant is not None
    assert constant.value == pytest.approx(y.mean())
    wins = powered_bootstrap(np.ones(40), np.ones(40), np.ones(100))
    assert wins is not None
    assert (wins.value, wins.high) == (1.0, 1.0)
    assert wins.low == pytest.approx(0.025 ** (1 / 40))


@pytest.mark.parametrize(
    ("y", "f", "rest", "message"),
    [
        ([1.0], [0.5, 0.5], [0.5], "one length"),
        ([0.3], [0.5], [0.5], "human outcomes"),
        ([1.0], [float("nan")], [0.5], r"\[0, 1\]"),
        ([1.0], [0.5], [1.5], r"\[0, 1\]"),
    ],
)
def test_bad_input_is_named(y: list[float], f: list[float], rest: list[float], message: str) -> None:
    """Unequal lengths, unknown labels, NaN and values out of range each have a message."""
    with pytest.raises(InputError, match=message):
        powered_bootstrap(y, f, rest)
    with pytest.raises(InputError, match="power"):
        powered_bootstrap([1.0], [0.5], [0.5], power=1.5)
