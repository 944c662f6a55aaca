"""The area under the ROC curve with a clustered interval, and the logistic fit: against other programs, simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from calibration.discrimination import auc, auc_difference, fit_logistic
from rubrics.errors import InputError


def test_the_docstring_s_example() -> None:
    """Three of four pairs are in order: 0.75."""
    found = auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert found is not None
    assert found.value == pytest.approx(0.75)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_area_is_that_of_scikit_learn(levels: int) -> None:
    """With and without ties the area is sklearn's to the last digits."""
    rng = np.random.default_rng(levels)
    y = rng.integers(0, 2, 300)
    x = np.round((rng.normal(size=300) + y) * levels) / levels if levels > 3 else rng.integers(0, 3, 300) + y
    found = auc(x, y)
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(y, x), abs=1e-12)


def test_the_variance_is_delong_s() -> None:
    """Without clusters the interval is that of DeLong's variance, written out over all pairs, but for n/(n-1)."""
    rng = np.random.default_rng(1)
    y = np.repeat([1.0, 0.0], [40, 60])
    x = rng.normal(size=100) + y
    psi = (x[:40, None] > x[None, 40:]).astype(float)
    area = psi.mean()
    variance = psi.mean(1).var(ddof=1) / 40 + psi.mean(0).var(ddof=1) / 60
    found = auc(x, y)
    assert found is not None
    logit = [math.log(end / (1 - end)) for end in (found.low, found.high)]
    se = (logit[1] - logit[0]) / 2 / 1.984217 * area * (1 - area)
    assert se == pytest.approx(math.sqrt(variance), rel=0.02)


def test_rows_said_twice_are_one_observation() -> None:
    """Every row doubled within its cluster leaves the interval where it was; as rows of their own it would shrink."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 80).astype(float)
    x = rng.normal(size=80) + y
    once = auc(x, y)
    twice = auc(np.repeat(x, 2), np.repeat(y, 2), clusters=np.repeat(np.arange(80), 2))
    naive = auc(np.repeat(x, 2), np.repeat(y, 2))
    assert once is not None and twice is not None and naive is not None
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high), rel=1e-6)
    assert naive.high - naive.low < 0.8 * (once.high - once.low)


def test_the_interval_keeps_its_level_with_clusters() -> None:
    """Of 400 samples of 40 clusters with a shared effect the 95% interval covers the true area in 92% to 98%."""
    rng = np.random.default_rng(3)

    def sample(clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        groups = np.repeat(np.arange(clusters), 4)
        y = (rng.random(groups.size) < 0.5).astype(float)
        return rng.normal(size=clusters)[groups] + rng.normal(size=groups.size) + 1.5 * y, y, groups

    x, y, _ = sample(40_000)
    truth = roc_auc_score(y, x)
    covered = 0
    for _ in range(400):
        scores, labels, groups = sample(40)
        found = auc(scores, labels, clusters=groups)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_separated_kinds_and_one_cluster_keep_a_width() -> None:
    """Scores that separate completely are no certainty; one cluster says nothing."""
    separated = auc([1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1])
    assert separated is not None
    assert (separated.value, separated.high) == (1.0, 1.0)
    assert separated.low < 0.5
    alone = auc([1, 3, 2, 4], [0, 0, 1, 1], clusters=["d"] * 4)
    assert alone is not None
    assert (alone.low, alone.high) == (0.0, 1.0)


def test_one_kind_has_no_area() -> None:
    """Without both kinds there is no number."""
    assert auc([0.1, 0.2], [1, 1]) is None
    assert auc([], []) is None
    assert auc_difference([0.1, 0.2], [0.2, 0.3], [0, 0]) is None


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0], [1, 0], "1 scores but 2 labels"),
        ([math.nan, 1], [0, 1], "score 0"),
        ([1, 2], [0, 0.5], "1 for the kind"),
    ],
)
def test_bad_input_is_named(scores: list[float], labels: list[float], message: str) -> None:
    """Another number of labels, a score that is not finite, a label that is neither kind."""
    with pytest.raises(InputError, match=message):
        auc(scores, labels)


def test_a_paired_difference_is_narrower_than_the_two_areas() -> None:
    """The difference is that of the areas, nothing for equal scores, and its interval uses that they go together."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 200).astype(float)
    x = rng.normal(size=200) + y
    z = x + 0.1 * rng.normal(size=200)
    gap, one, other = auc_difference(x, z, y), auc(x, y), auc(z, y)
    assert gap is not None and one is not None and other is not None
    assert gap.value == pytest.approx(one.value - other.value)
    assert gap.high - gap.low < (one.high - one.low) / 3
    same = auc_difference(x, x, y)
    assert same is not None
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
def test_the_logistic_fit_is_that_of_scikit_learn(ridge: float) -> None:
    """On standardised columns the ridge is sklearn's 1/C, and the weights are given for the columns as they are."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 3)) * [1, 10, 0.1] + [0, 5, 1]
    y = (rng.random(200) < 1 / (1 + np.exp(-(x[:, 0] - 0.1 * x[:, 1])))).astype(float)
    z = (x - x.mean(0)) / x.std(0)
    theirs = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=1000).fit(z, y)
    intercept, weights = fit_logistic(x, y, ridge=ridge)
    assert weights == pytest.approx(theirs.coef_[0] / x.std(0), rel=1e-4)
    assert intercept + weights @ x.mean(0) == pytest.approx(theirs.intercept_[0], abs=1e-4)


def test_a_column_without_spread_gets_no_weight() -> None:
    """A constant column is left at 0, separated data stay finite, one kind of outcome is refused."""
    x = np.column_stack([np.arange(20.0), np.ones(20)])
    y = (np.arange(20) > 9).astype(float)
    intercept, weights = fit_logistic(x, y)
    assert weights[1] == 0.0
    assert np.isfinite([intercept, *weights]).all()
    with pytest.raises(InputError, match="both kinds"):
        fit_logistic(x, np.ones(20))
