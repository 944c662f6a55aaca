"""calibration.sequential: stopping early without the false alarms of looking often."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.sequential import (
    asymptotic_track,
    betting_track,
    e_average,
    e_benjamini_hochberg,
    e_value,
    log_capital,
    monitor,
)
from rubrics.errors import InputError

REFERENCE = [1, 1, 0.5, 1, 0, 1, 1, 1, 0.5, 1, 0, 1, 1, 1, 1, 0, 1, 0.5, 1, 1]


def stream(n: int, mean: float, seed: int) -> np.ndarray:
    """Outcomes with 20% ties and the given mean."""
    return np.random.default_rng(seed).choice([0.0, 0.5, 1.0], n, p=[0.9 - mean, 0.2, mean - 0.1])


def test_log_capital_is_the_reference_value() -> None:
    """Twenty outcomes against one half: 3.573515 up, -8.418737 down."""
    up, down = log_capital(REFERENCE, 0.5)
    assert up == pytest.approx(3.573515, abs=5e-7)
    assert down == pytest.approx(-8.418737, abs=5e-7)
    assert e_value(REFERENCE, 0.5) == pytest.approx(math.exp(up))
    assert e_value(REFERENCE, 0.5, side="below") == pytest.approx(math.exp(down))


def test_asymptotic_track_is_its_formula() -> None:
    """The interval after 400 values, recomputed from the paper's expression."""
    x = stream(400, 0.56, 1)
    track = asymptotic_track(x, planned=800)
    assert track is not None
    alpha, t, s2 = 0.05, 400, x.var()
    r2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / (s2 * 800)
    half = math.sqrt((t * s2 * r2 + 1) / (t**2 * r2) * 2 * math.log(math.sqrt(t * s2 * r2 + 1) / alpha))
    assert track.lows[-1] == pytest.approx(x.mean() - half)
    assert track.highs[-1] == pytest.approx(x.mean() + half)
    assert track.lows[48] == 0.0
    assert track.highs[48] == 1.0
    assert track.lows[49] > 0.0


@pytest.mark.parametrize("method", ["asymptotic", "betting"])
def test_false_alarms_stay_below_the_level(method: str) -> None:
    """Looking after every one of 1,000 outcomes of an even pair raises an alarm in at most 5% of streams (plus
    noise).
    """
    alarms = 0
    for seed in range(150):
        x = stream(1000, 0.5, seed)
        if method == "betting":
            ups = np.array([log_capital(x[: t + 1], 0.5) for t in (99, 299, 599, 999)])
            alarms += bool((ups.max(axis=1) - math.log(2) >= math.log(20)).any())
        else:
            result = monitor(x)
            assert result is not None
            alarms += result.stopped_at is not None
    assert alarms / 150 <= 0.05 + 0.03


def test_a_better_candidate_stops_the_stream_early() -> None:
    """At a true .56 both sequences stop above one half within 2,000 outcomes, the asymptotic one sooner (about 404 and
    762).
    """
    stops: dict[str, list[int]] = {"asymptotic": [], "betting": []}
    for seed in range(25):
        for method, found in stops.items():
            result = monitor(stream(2000, 0.56, seed), method=method)  # type: ignore[arg-type]
            assert result is not None
            found.append(result.stopped_at or 2000)
            if result.stopped_at is not None:
                assert result.direction == "above"
    assert 250 < np.median(stops["asymptotic"]) < 650
    assert np.median(stops["asymptotic"]) < np.median(stops["betting"]) < 1200


def test_betting_interval_is_where_no_bet_won() -> None:
    """The betting interval's ends are the means against which the capital has not reached 1/alpha."""
    x = stream(300, 0.6, 3)
    track = betting_track(x)
    assert track is not None
    assert all(a <= b for a, b in zip(track.lows, track.lows[1:], strict=False))
    assert all(a >= b for a, b in zip(track.highs, track.highs[1:], strict=False))
    ever = max(max(log_capital(x[:t], track.lows[-1] - 0.001)) for t in range(1, 301)) - math.log(2)
    assert ever >= math.log(20)
    inside = max(max(log_capital(x[:t], track.lows[-1] + 0.002)) for t in range(1, 301)) - math.log(2)
    assert inside < math.log(20)


def test_e_average_and_e_bh() -> None:
    """The mean of e-values is one; e-BH rejects the k largest with e_(k) >= m / (q k)."""
    assert e_average([2.0, 0.0, 4.0]) == 2.0
    assert e_average([]) is None
    assert e_benjamini_hochberg([100.0, 1.0, 45.0, 0.5], q=0.05) == (True, False, True, False)
    assert e_benjamini_hochberg([79.0, 1.0, 39.0, 0.5], q=0.05) == (False, False, False, False)
    assert e_benjamini_hochberg([]) == ()
    for call in (lambda: e_average([-1.0]), lambda: e_benjamini_hochberg([float("nan")])):
        with pytest.raises(InputError, match="must not be negative"):
            call()
    with pytest.raises(InputError, match="q must lie"):
        e_benjamini_hochberg([1.0], q=0.0)


def test_an_e_value_of_nothing_is_one() -> None:
    """No data, no evidence."""
    assert e_value([], 0.5) == 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 200))
def test_tracks_mirror(seed: int, n: int) -> None:
    """Swapping sides mirrors both confidence sequences."""
    x = stream(n, 0.55, seed)
    for make in (betting_track, asymptotic_track):
        one, two = make(x), make(1.0 - x)
        assert one is not None
        assert two is not None
        assert np.array(two.lows) == pytest.approx(1.0 - np.array(one.highs), abs=1.5e-3)
        assert np.array(two.highs) == pytest.approx(1.0 - np.array(one.lows), abs=1.5e-3)


def test_degenerate_streams() -> None:
    """Nothing, one value, all ties and all wins: no claim without evidence, and none that is not covered."""
    assert monitor([]) is None
    assert betting_track([]) is None
    one = monitor([1.0])
    assert one is not None
    assert (one.estimate.low, one.estimate.high, one.stopped_at) == (0.0, 1.0, None)
    ties = monitor(np.full(200, 0.5))
    assert ties is not None
    assert ties.stopped_at is None
    assert (ties.estimate.low, ties.estimate.high) == (0.0, 1.0)
    betting = monitor(np.full(200, 0.5), method="betting")
    assert betting is not None
    assert betting.stopped_at is None
    assert betting.estimate.low < 0.5 < betting.estimate.high
    wins = monitor(np.ones(200), method="betting")
    assert wins is not None
    assert wins.stopped_at is not None
    assert wins.stopped_at < 30
    assert wins.estimate.high == 1.0


def test_other_bounds() -> None:
    """Differences in [-1, 1] are followed by the asymptotic sequence with their own bounds."""
    track = asymptotic_track(np.linspace(-1, 1, 100), bounds=(-1.0, 1.0))
    assert track is not None
    assert track.lows[0] == -1.0
    assert track.lows[-1] < 0.0 < track.highs[-1]


def test_bad_input_is_named() -> None:
    """Values out of range, NaN, and impossible options each have a message."""
    for bad in ([1.2], [float("nan")], [-0.1]):
        with pytest.raises(InputError, match="needs values in"):
            monitor(bad)
    with pytest.raises(InputError, match="null must lie"):
        log_capital([0.5], 1.0)
    with pytest.raises(InputError, match="unknown method"):
        monitor([0.5], method="peeking")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="planned"):
        asymptotic_track([0.5], planned=0)
    with pytest.raises(InputError, match="alpha"):
        betting_track([0.5], level=1.0)
