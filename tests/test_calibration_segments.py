"""Adjusted p values and partial pooling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import segments as s
from rubrics.errors import InputError

SCHOOLS = [28, 8, -3, 7, -1, 1, 18, 12], [15**2, 10**2, 16**2, 11**2, 9**2, 11**2, 10**2, 18**2]
P = st.lists(st.floats(0, 1, allow_nan=False), max_size=20)


@pytest.mark.parametrize("method", ["pm", "dl"])
def test_eight_schools_pool_completely(method: str):
    """tau2 0 (not -44.6), mean 7.686 with se 4.072, and every school at the mean."""
    found = s.pool(*SCHOOLS, method=method)
    assert found.tau2 == 0.0
    assert found.mean.value == pytest.approx(7.686, abs=5e-4)
    assert (found.mean.high - found.mean.value) / 1.959964 == pytest.approx(4.072, abs=5e-4)
    assert all(school.value == pytest.approx(found.mean.value) for school in found.shrunk)


def test_between_variance_equals_statsmodels_where_it_is_positive():
    """DerSimonian-Laird and Paule-Mandel agree with statsmodels; its unclamped negative is our 0."""
    meta = pytest.importorskip("statsmodels.stats.meta_analysis")
    y, v = np.array([0.2, 0.55, 0.5, 0.8, 0.35]), np.array([0.004, 0.002, 0.003, 0.006, 0.004])
    for ours, theirs in (("dl", "dl"), ("pm", "iterated")):
        expected = meta.combine_effects(y, v, method_re=theirs).tau2
        assert s.between_variance(y, v, method=ours) == pytest.approx(expected, rel=1e-5)
    assert meta.combine_effects(*(np.array(x, dtype=float) for x in SCHOOLS), method_re="dl").tau2 < 0


def test_adjusted_p_values_equal_statsmodels():
    """Benjamini-Hochberg, Benjamini-Yekutieli and Holm, ties included."""
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = [0.001, 0.01, 0.01, 0.04, 0.2, 0.5, 0.9, 1.0]
    for ours, theirs in (
        (s.benjamini_hochberg, "fdr_bh"),
        (s.benjamini_yekutieli, "fdr_by"),
        (s.holm, "holm"),
    ):
        assert ours(p) == pytest.approx(multitest.multipletests(p, method=theirs)[1], abs=1e-12)


@given(P)
def test_adjusting_keeps_order_and_never_helps(p: list[float]):
    """Adjusted values are at least the raw ones, at most 1, in the same order."""
    for adjust in (s.benjamini_hochberg, s.benjamini_yekutieli, s.holm):
        q = adjust(p)
        assert len(q) == len(p)
        assert all(b >= a - 1e-12 and b <= 1 for a, b in zip(p, q, strict=True))
        assert list(q[np.argsort(p, kind="stable")]) == sorted(q)


def test_bad_input_is_named():
    """p values outside [0, 1], variances of zero and lists of unequal length."""
    for bad in ([1.2], [-0.1], [float("nan")]):
        with pytest.raises(InputError, match="p values"):
            s.holm(bad)
    with pytest.raises(InputError, match="variance"):
        s.pool([1.0], [0.0])
    with pytest.raises(InputError, match="segment names"):
        s.segment_rates([1.0], [])
    assert s.pool([], []) is None
    assert s.segment_rates([], []) == ()


def test_shrinking_lowers_the_error():
    """Over simulated segments the shrunk rates are nearer the truth than the raw ones."""
    rng = np.random.default_rng(7)
    raw, shrunk = [], []
    for _ in range(60):
        truth = np.array([0.36] + [0.5] * 11)
        n = rng.integers(30, 121, size=12)
        hits = rng.binomial(n, truth) / n
        found = s.pool(hits, np.maximum(hits * (1 - hits), 0.05) / n)
        raw.append(((hits - truth) ** 2).mean())
        shrunk.append(((np.array([x.value for x in found.shrunk]) - truth) ** 2).mean())
    assert np.sqrt(np.mean(shrunk)) < 0.85 * np.sqrt(np.mean(raw))


def test_segment_rates_flag_the_bad_segment_and_show_both_values():
    """One losing segment among healthy ones is flagged after adjustment; its shrunk rate lies between it and the
    rest.
    """
    rng = np.random.default_rng(3)
    names = np.repeat(list("abcdef"), 80)
    values = (rng.random(480) < np.where(names == "c", 0.2, 0.5)).astype(float)
    found = {row.name: row for row in s.segment_rates(values, names)}
    assert found["c"].q < 0.01 and found["c"].p_holm < 0.01
    assert all(row.q > 0.05 for name, row in found.items() if name != "c")
    assert found["c"].raw.value < found["c"].shrunk.value < 0.5
    assert all(row.n == 80 for row in found.values())


def test_tiny_segments_are_not_certain():
    """Three wins of three are pooled with a wide variance, one row alone is shown but not tested."""
    rows = s.segment_rates([1.0] * 3 + [1.0, 0.0] * 30 + [1.0], ["w"] * 3 + ["x"] * 60 + ["y"])
    found = {row.name: row for row in rows}
    assert found["w"].shrunk.value < 1.0 and found["w"].p > 0.05
    assert found["y"].p is None and found["y"].shrunk is None and found["y"].raw.n == 1
