"""Quantiles and their paired ratio: values, pairing, clusters, coverage, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.quantiles import quantile, quantile_ratio
from rubrics.errors import InputError


def test_the_value_is_numpy_s_and_lies_in_its_interval() -> None:
    """The point is the linear quantile; the interval holds it and narrows with the rows."""
    rng = np.random.default_rng(1)
    small, large = rng.exponential(size=100), rng.exponential(size=5000)
    widths = []
    for values in (small, large):
        found = quantile(values, 0.95)
        assert found is not None
        assert found.value == pytest.approx(np.quantile(values, 0.95))
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


def test_a_common_slow_prompt_cancels() -> None:
    """Both sides draw the same prompts: where one is exactly 1.2 times the other, the ratio has no width."""
    base = np.random.default_rng(2).exponential(size=300)
    found = quantile_ratio(1.2 * base, base, 0.95)
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((1.2, 1.2, 1.2))


def test_copies_of_a_prompt_add_nothing() -> None:
    """Each prompt ten times over, in clusters, gives about the interval of the prompts once; as rows it narrows."""
    values = np.random.default_rng(3).exponential(size=200)
    prompts = np.repeat(np.arange(200), 10)
    once, clustered = quantile(values, 0.5), quantile(np.repeat(values, 10), 0.5, clusters=prompts)
    rows = quantile(np.repeat(values, 10), 0.5)
    assert once is not None and clustered is not None and rows is not None
    assert clustered.clusters == 200
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.25)
    assert rows.high - rows.low < 0.6 * (clustered.high - clustered.low)


def test_the_interval_covers_the_median_s_ratio() -> None:
    """Over 200 samples of 150 pairs the nominal 95% interval of the median's ratio covers the truth in 90 to 99%."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        base = rng.exponential(size=150)
        mine = 1.3 * base * rng.lognormal(sigma=0.2, size=150)
        found = quantile_ratio(mine, base, 0.5, rounds=300)
        assert found is not None
        # The medians of exp(1), with and without the lognormal noise, from 10^7 draws.
        covered += found.low <= 1.3 * 0.6890 / 0.6931 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_what_has_no_quantile_says_so() -> None:
    """No rows and a zero below give none; too few rows to reach it and one cluster are said; bad values are refused."""
    assert quantile([], 0.5) is None
    assert quantile_ratio([1.0], [0.0], 0.5) is None
    few = quantile([1.0, 2.0, 3.0], 0.95)
    assert few is not None and "too few rows" in few.method
    one = quantile([1.0, 2.0], 0.5, clusters=["a", "a"])
    assert one is not None and "one cluster" in one.method
    for first, second in (([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([float("nan")], [1.0])):
        with pytest.raises(InputError):
            quantile_ratio(first, second, 0.5)
