"""calibration.drift: a changed judge, changed answers, and known false-alarm rates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.calibrators import logistic
from calibration.drift import (
    anchors,
    corrected_change,
    cusum,
    cusum_limit,
    kolmogorov_smirnov,
    log_length,
    moves,
    population_stability,
    psi_threshold,
)
from calibration.estimates import Estimate
from rubrics.errors import InputError


@pytest.mark.parametrize(("n", "limit"), [(50, 0.867), (100, 0.433), (200, 0.217), (500, 0.087), (1000, 0.043)])
def test_psi_thresholds_are_the_calibrated_ones(n: int, limit: float) -> None:
    """One per cent thresholds for ten bins and equal samples."""
    assert psi_threshold(n, n) == pytest.approx(limit, abs=5e-4)


def test_psi_above_a_fifth_means_nothing_in_small_samples() -> None:
    """Unchanged samples of 100 pass .2 about two times of five; the calibrated threshold about one in a hundred."""
    rng = np.random.default_rng(0)
    found = [population_stability(rng.normal(size=100), rng.normal(size=100)) for _ in range(400)]
    shifts = [s for s in found if s is not None]
    assert np.mean([s.statistic for s in shifts]) == pytest.approx(0.192, abs=0.02)
    assert np.mean([s.statistic > 0.2 for s in shifts]) == pytest.approx(0.38, abs=0.08)
    assert np.mean([s.changed for s in shifts]) <= 0.03


def test_psi_finds_a_real_change_and_the_permutation_agrees() -> None:
    """A shift of half a standard deviation in 500 rows is found by both laws, and no change by neither."""
    rng = np.random.default_rng(1)
    old, new, same = rng.normal(size=500), rng.normal(0.5, 1.0, 500), rng.normal(size=500)
    for permutations in (0, 200):
        moved = population_stability(old, new, permutations=permutations)
        still = population_stability(old, same, permutations=permutations)
        assert moved is not None
        assert still is not None
        assert moved.changed
        assert moved.p_value < 0.01
        assert not still.changed
        assert still.p_value > 0.01


def test_psi_by_hand() -> None:
    """Two bins, 8:2 against 5:5: sum of (p - q) ln(p / q)."""
    result = population_stability([0] * 8 + [1] * 2, [0] * 5 + [1] * 5, bins=2)
    assert result is not None
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert result.statistic == pytest.approx(expected)


def test_kolmogorov_smirnov_agrees_with_scipy() -> None:
    """Statistic and p are scipy's, and the threshold is where p is alpha."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    old, new = rng.normal(size=200), rng.normal(0.2, 1.0, 300)
    ours, theirs = kolmogorov_smirnov(old, new, alpha=0.05), stats.ks_2samp(old, new, method="asymp")
    assert ours is not None
    assert ours.statistic == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert ours.changed == (theirs.pvalue < 0.05)
    assert ours.threshold == pytest.approx(1.358 * np.sqrt(1 / 200 + 1 / 300), rel=1e-3)


def test_log_length_is_a_paired_t_test() -> None:
    """Fifteen per cent longer answers read ln 1.15 with the interval of a paired t test."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(3)
    old = np.exp(rng.normal(6.0, 0.8, 200))
    new = old * 1.15 * np.exp(rng.normal(0.0, 0.3, 200))
    result = log_length(old, new)
    assert result is not None
    interval = stats.ttest_rel(np.log(new), np.log(old)).confidence_interval(0.95)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.low > 0.0
    assert np.expm1(result.value) == pytest.approx(0.15, abs=0.06)
    assert log_length([], []) is None
    empty = log_length([0, 10], [5, 10])
    assert empty is not None
    assert empty.value == pytest.approx(np.log(5) / 2)
    with pytest.raises(InputError, match="paired"):
        log_length([1], [1, 2])
    with pytest.raises(InputError, match="at least 0"):
        log_length([1], [float("nan")])


def test_anchors_have_power_that_fresh_samples_lack() -> None:
    """A judge moved by a quarter of a logit is found on 100 re-judged anchors every time, and rarely without
    pairing.
    """
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(4)
    paired = fresh = 0
    for _ in range(60):
        s = rng.normal(0.0, 1.0, 100)
        old, new = logistic(s + rng.normal(0, 0.2, 100)), logistic(s + 0.25 + rng.normal(0, 0.2, 100))
        result = anchors(old, new)
        assert result is not None
        paired += result.p_value < 0.05
        other = logistic(rng.normal(0.0, 1.0, 100) + 0.25)
        fresh += stats.ttest_ind(old, other).pvalue < 0.05
    assert paired == 60
    assert fresh < 35


def test_anchor_p_value_is_the_paired_t_test() -> None:
    """Without clusters the p value is scipy's."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(5)
    old, new = rng.random(40), rng.random(40)
    result = anchors(old, new)
    assert result is not None
    assert result.p_value == pytest.approx(stats.ttest_rel(new, old).pvalue)


def test_flips_stand_beside_the_noise_floor() -> None:
    """Flips of a judge that only repeats its noise do not exceed the floor; a changed judge's do."""
    rng = np.random.default_rng(6)
    base = rng.normal(0.0, 0.5, 400)
    judgings = [logistic(base + rng.normal(0.0, 0.3, 400)) for _ in range(3)]
    quiet = anchors(judgings[0], judgings[1], repeat=judgings[2])
    loud = anchors(judgings[0], logistic(-base), repeat=judgings[2])
    assert quiet is not None
    assert loud is not None
    assert quiet.noise_flips is not None
    assert quiet.excess is not None
    assert loud.excess is not None
    assert quiet.flips.value > 0.05
    assert quiet.excess.low < 0.0 < quiet.excess.high
    assert loud.excess.low > 0.2


def test_accuracy_change_is_an_exact_mcnemar_test() -> None:
    """Twelve anchors lost and three gained: exact p .035156."""
    old = np.array([0.9] * 12 + [0.1] * 3 + [0.9] * 20)
    new = np.array([0.1] * 12 + [0.9] * 3 + [0.9] * 20)
    result = anchors(old, new, gold=np.ones(35))
    assert result is not None
    assert (result.gained, result.lost) == (3, 12)
    assert result.mcnemar == pytest.approx(0.035156, abs=5e-7)
    assert result.accuracy is not None
    assert result.accuracy.value == pytest.approx(-9 / 35)


def test_invalid_anchors_are_counted_and_degenerate_ones_answered() -> None:
    """NaN on either side is skipped and counted; nothing valid is nothing; an unchanged judge has p 1."""
    assert anchors([], []) is None
    assert anchors([np.nan], [0.5]) is None
    result = anchors([0.2, np.nan, 0.7], [0.2, 0.4, 0.7], gold=[1.0, 1.0, np.nan])
    assert result is not None
    assert (result.n, result.skipped) == (2, 1)
    assert result.p_value == 1.0
    assert result.flips.value == 0.0
    assert result.flips.high > 0.0
    assert result.mcnemar == 1.0
    one = anchors([0.2], [0.9])
    assert one is not None
    assert one.p_value == 1.0
    with pytest.raises(InputError, match="same anchors"):
        anchors([0.2], [0.2, 0.3])
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        anchors([1.2], [0.2])


def test_anchors_of_one_prompt_count_once() -> None:
    """Copies under one prompt id do not sharpen the test."""
    rng = np.random.default_rng(7)
    old, new = rng.random(30), rng.random(30)
    once = anchors(old, new)
    ids = [f"q{i:02d}" for i in np.repeat(np.arange(30), 4)]
    copied = anchors(np.repeat(old, 4), np.repeat(new, 4), clusters=ids)
    assert once is not None
    assert copied is not None
    assert copied.p_value == pytest.approx(once.p_value)


def test_headline_is_corrected_for_the_judge() -> None:
    """Five points up of which three are the judge leaves two, with both errors."""
    total = Estimate(0.05, 0.01, 0.09, 0.95, 500, 500, "t")
    anchor = Estimate(0.03, 0.0, 0.06, 0.95, 100, 100, "t")
    system = corrected_change(total, anchor)
    assert system.value == pytest.approx(0.02)
    assert (system.low, system.high) == pytest.approx((-0.03, 0.07))


def test_cusum_limit_gives_the_run_length_it_was_made_for() -> None:
    """Known value: a two-sided CUSUM with k = .5 and limit 5 alarms once in about 465 values; simulated streams
    agree.
    """
    assert cusum_limit(465, k=0.5) == pytest.approx(5.0, abs=0.15)
    limit = cusum_limit(300, k=0.25)
    rng = np.random.default_rng(8)
    exposure, alarms = 0, 0
    for _ in range(150):
        alarm = cusum(rng.normal(size=1500), centre=0.0, sd=1.0, limit=limit).alarm_at
        exposure += alarm or 1500
        alarms += alarm is not None
    assert exposure / alarms == pytest.approx(300, rel=0.2)


def test_cusum_sees_a_lasting_step() -> None:
    """A step of half a standard deviation after 1,000 values is found within about 100 values, with its direction."""
    waits = []
    limit = cusum_limit(2000, k=0.25)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = np.append(rng.normal(size=1000), rng.normal(-0.5, 1.0, 600))
        after = cusum(x[1000:], centre=0.0, sd=1.0, limit=limit)
        assert after.alarm_at is not None
        assert after.direction == "down"
        waits.append(after.alarm_at)
    assert np.median(waits) < 110


def test_cusum_alarms_less_than_page_hinkley_defaults() -> None:
    """On stationary streams of 2,000 values river's default Page-Hinkley alarms in most, ours at its stated rate."""
    drift = pytest.importorskip("river.drift")
    rng = np.random.default_rng(9)
    limit = cusum_limit(20_000 / 4, k=0.25)
    theirs = ours = 0
    for _ in range(20):
        x = rng.normal(size=2000)
        detector = drift.PageHinkley()
        fired = False
        for value in x:
            detector.update(float(value))
            fired = fired or detector.drift_detected
        theirs += fired
        ours += cusum(x, centre=0.0, sd=1.0, limit=limit).alarm_at is not None
    assert theirs >= 12
    assert ours <= 12
    assert ours < theirs


def test_cusum_of_nothing_and_bad_input() -> None:
    """No values, no alarm; a constant history, NaN and impossible options are the caller's error."""
    assert cusum([], centre=0.0, sd=1.0, limit=5.0).alarm_at is None
    with pytest.raises(InputError, match="no scale"):
        cusum([1.0], centre=0.0, sd=0.0)
    with pytest.raises(InputError, match="finite"):
        cusum([float("nan")], centre=0.0, sd=1.0)
    with pytest.raises(InputError, match="run_length"):
        cusum_limit(5)
    with pytest.raises(InputError, match="k must"):
        cusum_limit(100, k=-1.0)
    with pytest.raises(InputError, match="two samples"):
        psi_threshold(0, 5)


def test_empty_and_constant_samples() -> None:
    """An empty sample has no distance; two constant equal samples have none between them."""
    assert population_stability([], [1.0]) is None
    assert kolmogorov_smirnov([1.0], []) is None
    same = population_stability(np.ones(50), np.ones(60))
    assert same is not None
    assert not same.changed
    assert same.p_value == 1.0
    apart = population_stability(np.ones(50), np.zeros(60))
    assert apart is not None
    assert apart.changed


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 80))
def test_distances_do_not_depend_on_order_and_direction(seed: int, n: int) -> None:
    """PSI, KS and flips are the same after permuting rows or exchanging before and after; the shift changes sign."""
    rng = np.random.default_rng(seed)
    old, new = rng.random(n), rng.random(n)
    order = rng.permutation(n)
    for distance in (population_stability, kolmogorov_smirnov):
        one, two, three = distance(old, new), distance(new, old), distance(old[order], new)
        assert one is not None
        assert two is not None
        assert three is not None
        assert two.statistic == pytest.approx(one.statistic)
        assert three.statistic == pytest.approx(one.statistic)
    forward, back = anchors(old, new), anchors(new, old)
    mirrored = anchors(1.0 - old[order], 1.0 - new[order])
    assert forward is not None
    assert back is not None
    assert mirrored is not None
    assert back.shift.value == pytest.approx(-forward.shift.value)
    assert mirrored.shift.value == pytest.approx(-forward.shift.value)
    assert back.flips == forward.flips == mirrored.flips


def test_each_of_four_signs_is_a_move() -> None:
    """The mean, gold, flips beyond the noise and an alarm each count alone; a judge that stands still shows none."""
    rng = np.random.default_rng(1)
    old = rng.choice([0.1, 0.9], 200)
    mirrored = anchors(old, 1.0 - old, gold=np.where(old > 0.5, 0.0, 1.0))
    assert mirrored is not None
    assert mirrored.p_value > 0.05  # wins and losses cancel in the mean
    assert moves(mirrored) == ("accuracy", "verdicts")
    shifted = anchors(old, old + 0.05)
    assert shifted is not None
    assert moves(shifted) == ("preference",)
    still = anchors(old, old, repeat=old, gold=np.where(old > 0.5, 1.0, 0.0))
    assert still is not None
    assert still.identical
    assert moves(still, cusum(np.zeros(20), centre=0.0, sd=1.0)) == ()
    assert moves(still, cusum(np.full(60, 1.0), centre=0.0, sd=1.0)) == ("stream",)


def test_flips_count_against_the_noise_of_repeats() -> None:
    """As many flips as repeats show is no move, more is; without repeats only more than any noise could make."""
    rng = np.random.default_rng(2)
    old = np.where(rng.random(400) < 0.5, 0.4, 0.6)
    once, twice = (np.where(rng.random(400) < 0.3, 1.0 - old, old) for _ in range(2))
    noisy = anchors(old, once, repeat=twice)
    calm = anchors(old, once, repeat=old)
    blind = anchors(old, once)
    assert noisy is not None
    assert calm is not None
    assert blind is not None
    assert "verdicts" not in moves(noisy)
    assert "verdicts" in moves(calm)
    assert "verdicts" not in moves(blind)
    assert not blind.identical


def test_repeat_noise_of_recorded_judges(gold: Callable[[str], Path]) -> None:
    """Nine judges re-judging the same 96 pairs do not drift: repeat 2 against repeat 1 stays within the noise floor.

    Repetition stability in computed.json, the mean of the largest count of three over three, is recomputed on the way.
    """
    folder = gold("judge9_repeats")
    computed = json.loads((folder / "computed.json").read_text())
    score = {"A": 1.0, "tie": 0.5, "B": 0.0, None: np.nan}
    table: dict[str, dict[tuple[str, str], dict[int, str | None]]] = {}
    for line in (folder / "verdicts.jsonl").read_text().splitlines():
        row = json.loads(line)
        table.setdefault(row["judge"], {}).setdefault((row["id"], row["order"]), {})[row["repeat"]] = row["verdict"]
    assert set(table) == set(computed)
    for judge, found in table.items():
        repeats = sorted({r for each in found.values() for r in each})
        assert len(repeats) == 3
        one, two, three = ([score[each[r]] for each in found.values()] for r in repeats)
        result = anchors(one, two, repeat=three, clusters=[pair for pair, _ in found])
        assert result is not None
        assert result.excess is not None
        assert result.excess.low <= 0.0, judge
        stable = np.mean([max(list(each.values()).count(v) for v in each.values()) / 3 for each in found.values()])
        assert stable == pytest.approx(computed[judge]["repetition_stability"], abs=0.006), judge
        assert result.n + result.skipped == len(found)
