"""calibration.selective: thresholds that keep their promise, or say that they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.selective import (
    cascade,
    certify,
    cheapest_threshold,
    equal_chance,
    errors,
    risk_bound,
    zero_error_need,
)
from rubrics.errors import InputError


def accuracy(confidence: np.ndarray) -> np.ndarray:
    """The simulation's judge: right .55 of the time at confidence .5, .97 at 1."""
    return 0.55 + 0.84 * (confidence - 0.5)


def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and mistakes of that judge."""
    c = rng.uniform(0.5, 1.0, n)
    return c, (rng.random(n) > accuracy(c)).astype(float)


@pytest.mark.parametrize(("delta", "needs"), [(0.10, (45, 22, 15, 11)), (0.05, (59, 29, 19, 14))])
def test_zero_error_need(delta: float, needs: tuple[int, ...]) -> None:
    """Rows without an error that prove 5, 10, 15 and 20%."""
    assert tuple(zero_error_need(alpha, delta) for alpha in (0.05, 0.10, 0.15, 0.20)) == needs


def test_risk_bound_is_the_exact_binomial_one() -> None:
    """The bound r solves P(Binomial(n, r) <= k) = delta, and zero errors match the zero-error need."""
    stats = pytest.importorskip("scipy.stats")
    assert stats.binom.cdf(3, 40, risk_bound(3, 40, 0.1)) == pytest.approx(0.1)
    assert risk_bound(0, 22, 0.1) <= 0.1 < risk_bound(0, 21, 0.1)
    assert risk_bound(5, 5, 0.1) == risk_bound(0, 0, 0.1) == 1.0
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    assert risk_bound(2, 30, 0.05) == pytest.approx(proportion.proportion_confint(2, 30, alpha=0.1, method="beta")[1])


@pytest.mark.parametrize(("n", "alpha"), [(100, 0.10), (100, 0.20), (200, 0.10), (500, 0.20)])
def test_the_promise_is_kept(n: int, alpha: float) -> None:
    """Over 400 gold draws, the true error among accepted pairs exceeds alpha in at most delta of them (plus noise)."""
    rng = np.random.default_rng(n)
    broken = 0
    for _ in range(400):
        threshold = certify(*draw(n, rng), alpha=alpha, delta=0.1).threshold
        if threshold is not None:
            true_error = 1.0 - (accuracy(np.array(threshold)) + 0.97) / 2.0
            broken += true_error > alpha
    assert broken / 400 <= 0.1 + 0.03


def test_nothing_certified_abstains_on_everything() -> None:
    """Where even the strictest threshold fails there is no threshold, every pair is queued, and the need is printed."""
    rng = np.random.default_rng(0)
    c = rng.uniform(0.5, 1.0, 40)
    wrong = (rng.random(40) < 0.08).astype(float)
    certificate = certify(c, wrong, alpha=0.1)
    assert certificate.threshold is None
    assert certificate.coverage is None
    assert certificate.risk is None
    assert not certificate.accepts(1.0)
    assert certificate.abstained(["b", "a", "c"], [0.9, 0.6, None]) == ("c", "a", "b")
    assert certificate.needed is not None
    assert certificate.needed > 40
    assert str(certificate) == f"cannot certify 10% with 40 labels; need about {certificate.needed} labels"


def test_needed_is_about_right() -> None:
    """Gold of the stated size, with the same error rate, does certify."""
    wrong = np.array(([1.0] + [0.0] * 19) * 3)
    first = certify(np.full(60, 0.9), wrong, alpha=0.1)
    assert first.needed is not None
    times = int(np.ceil(first.needed / 20))
    again = certify(np.full(times * 20, 0.9), np.tile(wrong[:20], times), alpha=0.1)
    assert again.threshold == 0.9
    assert again.needed is None


def test_no_number_of_labels_helps_a_bad_judge() -> None:
    """At an observed error above alpha everywhere, the message does not send anybody to label more."""
    c = np.linspace(0.5, 1.0, 200)
    certificate = certify(c, np.tile([1.0, 0.0], 100), alpha=0.1)
    assert certificate.threshold is None
    assert certificate.needed is None
    assert "no number would" in str(certificate)


def test_certificate_reports_risk_coverage_and_its_tests() -> None:
    """A certified threshold carries its coverage, its observed risk with upper limit, and the tested sequence."""
    certificate = certify(*draw(2000, np.random.default_rng(1)), alpha=0.2)
    assert certificate.threshold is not None
    assert certificate.risk is not None
    assert certificate.coverage is not None
    assert certificate.risk.value < certificate.risk.high <= 0.2
    assert 0.3 < certificate.coverage.value < 1.0
    assert len(certificate.steps) <= 10
    assert [step.passed for step in certificate.steps[:-1]] == [True] * (len(certificate.steps) - 1)
    tested = [step.threshold for step in certificate.steps]
    assert tested == sorted(tested, reverse=True)
    assert str(certificate).startswith("certified: at confidence >= ")
    assert certificate.accepts(1.0)
    assert not certificate.accepts(float("nan"))


def test_the_sequence_stops_at_the_first_failure() -> None:
    """A lax threshold that would pass is not reached past a strict one that fails."""
    c = np.repeat([0.9, 0.6], [40, 400])
    wrong = np.concatenate([np.tile([1.0, 0.0], 20), np.zeros(400)])
    certificate = certify(c, wrong, alpha=0.1, thresholds=[0.6, 0.9])
    assert certificate.threshold is None
    assert [step.threshold for step in certificate.steps] == [0.9]


def test_ties_are_harmless() -> None:
    """Only a decisive verdict against a decisive human is an error."""
    assert errors([0.9, 0.9, 0.9, 0.5, 0.2], [1.0, 0.5, 0.0, 0.0, 1.0]).tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]


def test_rows_of_one_prompt_are_thinned_to_one() -> None:
    """The exact bound needs independent rows: copies of a prompt add nothing and are counted."""
    c, wrong = draw(100, np.random.default_rng(2))
    ids = [f"q{i:03d}" for i in np.repeat(np.arange(100), 3)]
    certificate = certify(np.repeat(c, 3), np.repeat(wrong, 3), clusters=ids)
    assert certificate.n == 100
    assert certificate.thinned == 200
    assert certificate.threshold == certify(c, wrong).threshold


def test_cascade_splits_delta_and_passes_on_what_is_left() -> None:
    """Each of m judges spends delta / m, and judge two sees only what judge one did not take."""
    rng = np.random.default_rng(3)
    cheap, dear = draw(1500, rng), draw(1500, rng)
    certificates = cascade([cheap[0], dear[0]], [cheap[1], dear[1]], alpha=0.2, delta=0.1)
    assert [c.delta for c in certificates] == [0.05, 0.05]
    assert certificates[0].threshold is not None
    assert certificates[1].n == int((cheap[0] < certificates[0].threshold).sum())
    with pytest.raises(InputError, match="same gold rows"):
        cascade([[0.9], [0.9, 0.8]], [[0.0], [0.0, 1.0]])
    with pytest.raises(InputError, match="at least one judge"):
        cascade([], [])


def test_cheapest_threshold_weighs_people_against_errors() -> None:
    """Free errors accept all, dear errors label all, and costs between lie between."""
    c, wrong = draw(2000, np.random.default_rng(4))
    accept_all, cost = cheapest_threshold(c, wrong, human_cost=1.0, error_cost=0.0)
    assert accept_all == c.min()
    assert cost == 0.0
    assert cheapest_threshold(c, wrong, human_cost=1.0, error_cost=1000.0) == (None, 1.0)
    middle, cost = cheapest_threshold(c, wrong, human_cost=1.0, error_cost=4.0)
    assert middle is not None
    assert c.min() < middle < 1.0
    assert cost < 1.0
    assert cheapest_threshold([], [], human_cost=2.0, error_cost=1.0) == (None, 2.0)
    with pytest.raises(InputError, match="costs"):
        cheapest_threshold(c, wrong, human_cost=-1.0, error_cost=1.0)


def test_empty_one_and_constant_gold() -> None:
    """No gold, one row and a judge with one confidence for all are answered, never with a threshold out of thin air."""
    assert certify([], []).needed == 66
    assert certify([], []).threshold is None
    assert certify([0.9], [0.0]).threshold is None
    constant = certify(np.full(100, 0.7), np.zeros(100))
    assert constant.threshold == 0.7
    assert constant.risk is not None
    assert constant.risk.high == pytest.approx(risk_bound(0, 100, 0.1))


@pytest.mark.parametrize(
    ("c", "e", "options", "message"),
    [
        ([float("nan")], [0.0], {}, "row 0 is nan"),
        ([0.9], [0.5], {}, "mistake in row 0"),
        ([0.9], [0.0, 1.0], {}, "one length"),
        ([0.9], [0.0], {"alpha": 0.0}, "alpha"),
        ([0.9], [0.0], {"delta": 1.0}, "delta"),
        ([0.9], [0.0], {"thresholds": np.linspace(0, 1, 11)}, "at most 10"),
        ([0.9], [0.0], {"clusters": ["a", "b"]}, "prompt ids"),
    ],
)
def test_bad_input_is_named(c: list[float], e: list[float], options: dict[str, object], message: str) -> None:
    """Each wrong argument has its own message."""
    with pytest.raises(InputError, match=message):
        certify(c, e, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one confidence per id"):
        certify([0.9], [0.0]).abstained(["a"], [])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 300))
def test_row_order_does_not_matter(seed: int, n: int) -> None:
    """Permuting gold rows gives the same certificate."""
    rng = np.random.default_rng(seed)
    c, wrong = draw(n, rng)
    order = rng.permutation(n)
    assert certify(c, wrong, alpha=0.2) == certify(c[order], wrong[order], alpha=0.2)


def test_an_unequal_draw_is_thinned_to_one_chance() -> None:
    """Equal chances keep every row; unequal ones leave each stratum at its share of the frame, by seed."""
    assert equal_chance([0.25] * 40).all() and equal_chance([]).shape == (0,)
    rng = np.random.default_rng(0)
    hard = rng.random(40_000) < 0.3
    chance = np.where(hard, 0.8, 0.2)
    drawn = rng.random(40_000) < chance
    kept = equal_chance(chance[drawn], seed=1)
    assert hard[drawn].mean() > 0.6
    assert hard[drawn][kept].mean() == pytest.approx(0.3, abs=0.02)
    assert kept[~hard[drawn]].all()
    assert (kept == equal_chance(chance[drawn], seed=1)).all()
    with pytest.raises(InputError, match="above 0 and up to 1"):
        equal_chance([0.5, 0.0])
