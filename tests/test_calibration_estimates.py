"""Means, shares, differences and bootstraps, against published values and other people's implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration import estimates as e
from rubrics.errors import InputError

UNIT = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=40)


def test_wilson_and_clopper_pearson_match_the_published_values():
    """8 of 10 gives the textbook intervals."""
    assert e.wilson(8, 10) == pytest.approx((0.490162, 0.943318), abs=5e-7)
    assert e.clopper_pearson(8, 10) == pytest.approx((0.443905, 0.974789), abs=5e-7)


def test_intervals_of_none_and_all_have_width():
    """0 of n and n of n never pass for certainty."""
    for low, high in (e.wilson(0, 20), e.clopper_pearson(0, 20)):
        assert low == 0.0 and high > 0.1
    for low, high in (e.wilson(20, 20), e.clopper_pearson(20, 20)):
        assert high == 1.0 and low < 0.9


def test_mcnemar_matches_the_published_p_values():
    """12 against 3 discordant pairs: exact .035156, mid-p .021271."""
    found = e.mcnemar([1] * 12 + [0] * 3 + [1] * 5, [0] * 12 + [1] * 3 + [1] * 5)
    assert (found.only_first, found.only_second) == (12, 3)
    assert found.p_exact == pytest.approx(0.035156, abs=5e-7)
    assert found.p_mid == pytest.approx(0.021271, abs=5e-7)
    assert e.mcnemar([1, 0], [1, 0]).p_exact == 1.0


@pytest.mark.parametrize(
    ("gain", "ties", "needed"),
    [
        (0.02, 0, 4898),
        (0.03, 0, 2173),
        (0.05, 0, 778),
        (0.1, 0, 189),
        (0.02, 0.3, 3427),
        (0.03, 0.3, 1519),
        (0.05, 0.3, 542),
        (0.1, 0.3, 130),
    ],
)
def test_sample_sizes_match_the_published_table(gain: float, ties: float, needed: int):
    """80% power at the two-sided 5% level, without and with 30% ties."""
    assert e.sample_size(gain, ties=ties) == needed


def test_clustered_standard_error_equals_statsmodels():
    """40 clusters of 5: the cluster-robust error of statsmodels, up to the factor G/(G-1)."""
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x = rng.normal(size=40)[groups] + rng.normal(size=200)
    fit = sm.OLS(x, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    assert e.standard_error(x, groups) == pytest.approx(float(fit.bse[0]) * math.sqrt(40 / 39), rel=1e-12)
    assert e.standard_error(x, groups) > 1.3 * e.standard_error(x)


def test_mean_is_a_student_interval():
    """Independent values give the textbook t interval."""
    found = e.mean([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half))
    assert (found.n, found.clusters, found.level) == (5, 5, 0.95)
    assert found.to_dict()["method"] == "clustered t"


def test_nothing_gives_no_number():
    """Empty input is None, one cluster is the bounds: never 0.0, never a narrow guess."""
    assert e.mean([]) is None and e.share([]) is None and e.difference([], []) is None
    assert e.bootstrap(lambda s: s[..., 0], np.zeros((0, 1))) is None
    one = e.mean([1.0, 0.0], clusters=["p", "p"], bounds=(0, 1))
    assert (one.low, one.high) == (0, 1) and "one cluster" in one.method
    assert e.share([1, 1, 0], clusters=[1, 1, 1]).low == 0.0
    assert e.mean([0.3]).high == math.inf


def test_equal_values_keep_a_width():
    """Thirty wins of thirty bound the losses by the rule of three, on the number of prompts."""
    wins = e.mean([1.0] * 30, bounds=(0, 1))
    assert wins.low == pytest.approx(0.025 ** (1 / 30)) and wins.high == 1.0
    doubled = e.mean([1.0] * 60, clusters=list(range(30)) * 2, bounds=(0, 1))
    assert doubled.low == pytest.approx(wins.low)


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf], [[1.0], [2.0]]])
def test_values_that_are_no_flat_finite_list_are_refused(bad):
    """NaN is never averaged away."""
    for function in (e.mean, e.share):
        with pytest.raises(InputError, match="finite"):
            function(bad)


def test_misused_arguments_are_named():
    """Lengths, levels and values out of range raise InputError with the fix."""
    with pytest.raises(InputError, match="cluster names"):
        e.mean([1.0, 2.0], clusters=["a"])
    with pytest.raises(InputError, match="level"):
        e.mean([1.0], level=95)
    with pytest.raises(InputError, match="zeros and ones"):
        e.share([0.5])
    with pytest.raises(InputError, match="same rows"):
        e.difference([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="above zero"):
        e.geometric_mean_ratio([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(InputError, match="no share"):
        e.wilson(3, 2)
    with pytest.raises(InputError, match="margin"):
        e.equivalence([1.0], [1.0], margin=0)


def test_share_with_single_row_clusters_is_wilson():
    """A cluster of one row each changes nothing."""
    found = e.share([1] * 8 + [0] * 2, clusters=list("abcdefghij"))
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943318), abs=5e-7)


def test_repeated_prompts_widen_a_share():
    """Five copies of ten prompts are ten prompts, not fifty."""
    ten = e.share([1] * 7 + [0] * 3)
    fifty = e.share(([1] * 7 + [0] * 3) * 5, clusters=list(range(10)) * 5)
    naive = e.share(([1] * 7 + [0] * 3) * 5)
    assert fifty.high - fifty.low > ten.high - ten.low > naive.high - naive.low


def test_length_ratio_is_geometric():
    """Twice and half as long cancel; the interval is on the log scale."""
    assert e.geometric_mean_ratio([2.0, 1.0], [1.0, 2.0]).value == pytest.approx(1.0)
    found = e.geometric_mean_ratio([12.0, 13.0, 11.0, 12.0], [10.0] * 4)
    assert found.value == pytest.approx(math.exp(np.log([1.2, 1.3, 1.1, 1.2]).mean()))
    assert 1.0 < found.low < found.value < found.high


def test_no_change_can_be_a_finding():
    """Many equal answers are equivalent within 2 points, ten are not, and a real gap never is."""
    same = [1.0, 0.0] * 200
    assert e.equivalence(same, same, margin=0.02).equivalent
    few = e.equivalence(same[:10], same[:10], margin=0.02)
    assert not few.equivalent and few.p > 0.05
    far = e.equivalence([1.0] * 50 + [0.0] * 50, [0.0] * 100, margin=0.02)
    assert not far.equivalent and far.p > 0.5
    assert e.equivalence([1.0], [1.0], margin=0.02) is None


def test_bootstrap_of_a_mean_agrees_with_its_formula():
    """The resampled interval of a mean lies near the clustered t interval."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 3)
    x = rng.normal(size=60)[groups] + rng.normal(size=180)
    moments = np.column_stack([x, np.ones(180)])
    found = e.bootstrap(lambda s: s[..., 0] / s[..., 1], moments, clusters=groups, rounds=4000)
    exact = e.mean(x, clusters=groups)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.04)


def test_bootstrap_draws_are_the_same_for_few_and_many_kinds_of_rows():
    """Counting equal rows once is a cheaper draw of the same distribution."""
    rng = np.random.default_rng(0)
    few = (rng.random((400, 1)) < 0.3).astype(float)
    many = few + rng.random((400, 1)) * 1e-9
    a, b = (e.resampled(x, rounds=4000, seed=3)[:, 0] for x in (few, many))
    assert (a.mean(), a.std()) == pytest.approx((b.mean(), b.std()), rel=0.05)


def test_bootstrap_says_when_it_knows_nothing():
    """Undefined statistics are None, statistics without spread fall back to the rule of three."""
    assert e.bootstrap(lambda s: s[..., 0] * np.nan, np.ones((5, 1))) is None
    flat = e.bootstrap(lambda s: s[..., 0] / s[..., 0], np.ones((30, 1)), bounds=(-1, 1))
    assert flat.high == 1.0 and flat.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 30)))
    with pytest.raises(InputError, match="moments"):
        e.bootstrap(lambda s: s[..., 0], [[math.nan]])


@given(UNIT, st.integers(0, 5))
def test_order_of_rows_is_nothing(values: list[float], shift: int):
    """Means and bootstraps depend on the rows, not on their order (M7)."""
    names = [k % 7 for k in range(len(values))]
    turned = values[shift:] + values[:shift], names[shift:] + names[:shift]
    first, second = (e.mean(v, clusters=c, bounds=(0, 1)) for v, c in ((values, names), turned))
    assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high), abs=1e-12)
    drawn = [
        e.bootstrap(lambda s: s[..., 0] / s[..., 1], np.column_stack([v, np.ones(len(v))]), clusters=c, rounds=50)
        for v, c in ((values, names), turned)
    ]
    assert (drawn[0].low, drawn[0].high) == pytest.approx((drawn[1].low, drawn[1].high), abs=1e-9)


@given(UNIT)
def test_mirrored_values_mirror_the_interval(values: list[float]):
    """Changing candidate and baseline turns [low, high] into [1 - high, 1 - low] (M20)."""
    first, second = e.mean(values, bounds=(0, 1)), e.mean([1 - v for v in values], bounds=(0, 1))
    assert (second.value, second.low, second.high) == pytest.approx((1 - first.value, 1 - first.high, 1 - first.low))
    hits = [float(v > 0.4) for v in values]
    first, second = e.share(hits), e.share([1 - v for v in hits])
    assert (second.low, second.high) == pytest.approx((1 - first.high, 1 - first.low))


@given(UNIT)
def test_doubling_the_rows_of_each_prompt_changes_nothing(values: list[float]):
    """The same prompts twice double n and leave value and interval (M18)."""
    once = e.mean(values, bounds=(0, 1))
    twice = e.mean(values * 2, clusters=list(range(len(values))) * 2, bounds=(0, 1))
    assert twice.n == 2 * once.n and twice.clusters == once.clusters
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


@given(st.integers(0, 30), st.integers(1, 30), st.sampled_from([0.8, 0.95, 0.99]))
def test_shares_stay_in_the_unit_interval(hits: int, misses: int, level: float):
    """A share and its interval never leave [0, 1], and the interval holds the share."""
    found = e.share([1] * hits + [0] * misses, clusters=[k % 5 for k in range(hits + misses)], level=level)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low


@pytest.mark.parametrize(
    ("n", "limit"), [(150, 0.02), (185, 0.02), (200, 0.02), (200, 0.03), (300, 0.02), (400, 0.02), (600, 0.01)]
)
def test_a_candidate_on_its_limit_rarely_passes_for_non_inferior(n: int, limit: float) -> None:
    """Exactly, over all counts: a harm that only the candidate does is shown to be less than it is with a chance of at
    most the 2.5% that one end of the interval promises.
    """
    passes = {e.share_difference: 0.0, e.difference: 0.0}
    for count in range(20):
        chance = math.comb(n, count) * limit**count * (1 - limit) ** (n - count)
        ours, theirs = [1.0] * count + [0.0] * (n - count), [0.0] * n
        for interval in passes:
            found = interval(ours, theirs)
            assert found is not None
            passes[interval] += chance * (found.high <= limit)
    assert passes[e.share_difference] <= 0.025
    assert passes[e.difference] > 0.05


@pytest.mark.parametrize("sizes", ["even", "geometric", "few large"])
@pytest.mark.parametrize("alike", [0.3, 1.0])
def test_a_candidate_on_its_limit_rarely_passes_where_harm_comes_in_clusters(sizes: str, alike: float) -> None:
    """1,500 draws of 200 prompts with several rows each, whose harm is correlated within a prompt (a beta-binomial at
    this intraclass correlation): one that lies on its limit passes at most 3.5 times of 100, that is 2.5 and the error
    of the simulation.
    """
    rng, limit, prompts = np.random.default_rng(7), 0.05, 200
    passed, rounds = 0, 1_500
    for _ in range(rounds):
        count = {
            "even": np.full(prompts, 4),
            "geometric": 1 + rng.geometric(0.3, prompts),
            "few large": np.where(rng.random(prompts) < 0.05, 20, 1),
        }[sizes]
        spread = 1 / alike - 1
        chance = rng.beta(limit * spread, (1 - limit) * spread, prompts) if spread else rng.random(prompts) < limit
        groups = np.repeat(np.arange(prompts), count)
        ours = (rng.random(groups.size) < chance[groups]).astype(float)
        found = e.share_difference(ours, np.zeros(groups.size), clusters=groups)
        assert found is not None
        passed += found.high <= limit
    assert passed / rounds <= 0.035


def test_a_difference_of_shares_has_the_sides_the_clusters_and_the_ends_right() -> None:
    """The worked value; sides exchanged turn it round; equal rows of one prompt count once; nothing differing has the
    rule of three; one prompt says nothing.
    """
    ours, theirs = [1.0] * 4 + [0.0] * 396, [0.0] * 400
    found, turned = e.share_difference(ours, theirs), e.share_difference(theirs, ours)
    assert found is not None
    assert turned is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.01, -0.002009, 0.025604), abs=1e-6)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    rows = e.share_difference(ours * 2, theirs * 2, clusters=[*range(400)] * 2)
    assert rows is not None
    assert (rows.low, rows.high) == pytest.approx((found.low, found.high), abs=2e-4)
    same, one = e.share_difference(theirs, theirs), e.share_difference([1.0, 0.0], [0.0, 0.0], clusters=["a", "a"])
    assert same is not None
    assert same.high == pytest.approx(1 - 0.025 ** (1 / 400), rel=0.01)
    assert one is not None
    assert (one.low, one.high) == (-1.0, 1.0)
    assert e.share_difference([], []) is None
    with pytest.raises(InputError, match="zeros and ones"):
        e.share_difference([0.5], [0.0])


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7, 1e-9, 1e9 + 0.1])
@pytest.mark.parametrize("count", [3, 6, 7, 10, 49])
def test_the_spread_that_rounding_leaves_is_not_tested_with(value: float, count: int) -> None:
    """Equal differences have the sign test's p whatever their mean is rounded to, and so have equal clusters; clusters
    that each even out have 1. A spread that is small but real is tested with.
    """
    assert e.p_value([value] * count) == 0.5 ** (count - 1)
    clusters = [k // 2 for k in range(2 * count)]
    assert e.p_value([value, 3 * value] * count, clusters) == 0.5 ** (count - 1)
    assert e.p_value([value, -value] * count, clusters) == 1.0
    real = e.p_value([value * (1 + 1e-6 * (k % 2)) for k in range(count)])
    assert real is not None and real < 0.5 ** (count - 1)


def test_the_p_value_is_that_of_the_clustered_interval_and_never_zero() -> None:
    """A mean on the edge of its 95% interval has p 0.05; equal values have the sign test's; one cluster has none."""
    x = np.random.default_rng(2).normal(0.3, 1.0, 60)
    clusters = [k // 2 for k in range(60)]
    found = e.mean(x, clusters=clusters)
    assert found is not None
    assert e.p_value(x - found.low, clusters) == pytest.approx(0.05)
    assert e.p_value(x - found.value, clusters) == pytest.approx(1.0)
    assert e.p_value([0.2] * 5) == 0.5**4
    assert e.p_value([0.0] * 5) == 1.0
    assert e.p_value([1.0, 2.0], ["a", "a"]) is None
    assert e.p_value([]) is None
