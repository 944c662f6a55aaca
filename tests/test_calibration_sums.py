"""Estimates from sums are the estimates from rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.estimates import accuracy, geometric_mean_ratio, mean, share
from calibration.sums import Sums, accuracy_of, geometric_mean_of, mean_of, share_of


def sums_of(x: np.ndarray, clusters: np.ndarray) -> Sums:
    """The sums that a store keeps, worked out in the plainest way."""
    groups = [x[clusters == name] for name in np.unique(clusters)]
    return Sums(
        len(x),
        float(x.sum()),
        float((x**2).sum()),
        len(groups),
        float(sum(g.sum() ** 2 for g in groups)),
        float(sum(g.sum() * len(g) for g in groups)),
        float(sum(len(g) ** 2 for g in groups)),
    )


def same(found: object, wanted: object) -> None:
    """Two estimates agree in every field; numbers to rounding."""
    for name in ("value", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=1e-9), name
    for name in ("level", "n", "clusters", "method"):
        assert getattr(found, name) == getattr(wanted, name)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grouped", [False, True])
def test_mean_and_share_from_sums_equal_those_from_rows(seed: int, grouped: bool) -> None:
    """Value, interval, n, clusters and method are the same, with and without clusters."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 25, 80) if grouped else np.arange(80)
    signs = rng.integers(-1, 2, 80).astype(float)
    hits = (rng.random(80) < 0.3).astype(float)
    bounds = (-1.0, 1.0)
    same(mean_of(sums_of(signs, clusters), bounds=bounds), mean(signs, clusters=clusters, bounds=bounds))
    same(mean_of(sums_of(signs, clusters), level=0.99), mean(signs, clusters=clusters, level=0.99))
    same(share_of(sums_of(hits, clusters)), share(hits, clusters=clusters))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("halves", [False, True])
def test_an_accuracy_from_sums_equals_that_from_rows(*, grouped: bool, halves: bool) -> None:
    """Right, wrong and leaning to neither side: the terminal and the dashboard say one interval."""
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 40, 95) if grouped else np.arange(95)
    hits = rng.choice([0.0, 0.5, 1.0] if halves else [0.0, 1.0], 95)
    same(accuracy_of(sums_of(hits, clusters)), accuracy(hits, clusters=clusters))
    assert accuracy([]) is None


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_values_that_are_all_equal_keep_a_width(value: float) -> None:
    """Rows without spread get the rule of three, as `mean` does, and a share of none or all its Wilson interval."""
    x, clusters = np.full(40, value), np.repeat(np.arange(20), 2)
    same(mean_of(sums_of(x, clusters), bounds=(-1.0, 1.0)), mean(x, clusters=clusters, bounds=(-1.0, 1.0)))
    if value >= 0:
        same(share_of(sums_of(x, clusters)), share(x, clusters=clusters))
    found = mean_of(sums_of(x, clusters), bounds=(-1.0, 1.0))
    assert found is not None and found.high > found.low


def test_one_cluster_and_no_rows_say_nothing() -> None:
    """One prompt gives the bounds, no row gives no estimate."""
    one = sums_of(np.array([1.0, 0.0]), np.array([7, 7]))
    same(mean_of(one, bounds=(0.0, 1.0)), mean([1.0, 0.0], clusters=[7, 7], bounds=(0.0, 1.0)))
    same(share_of(one), share([1.0, 0.0], clusters=[7, 7]))
    none = Sums(0, 0.0, 0.0, 0, 0.0, 0.0, 0.0)
    assert mean_of(none) is None and share_of(none) is None and geometric_mean_of(none) is None


def test_length_ratio_from_sums() -> None:
    """The geometric mean of ratios follows from sums of their logarithms."""
    rng = np.random.default_rng(3)
    a, b, clusters = rng.integers(1, 900, 60), rng.integers(1, 900, 60), rng.integers(0, 20, 60)
    same(geometric_mean_of(sums_of(np.log(a / b), clusters)), geometric_mean_ratio(a, b, clusters=clusters))


def test_sums_of_disjoint_clusters_add_up() -> None:
    """Two portions of whole prompts give what all rows give at once."""
    rng = np.random.default_rng(5)
    x, clusters = rng.random(90), rng.integers(0, 30, 90)
    early = clusters < 15
    both = sums_of(x[early], clusters[early]) + sums_of(x[~early], clusters[~early])
    assert math.isclose(both.standard_error, sums_of(x, clusters).standard_error, rel_tol=1e-12)
