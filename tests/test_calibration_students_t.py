"""Quantiles without SciPy are those of SciPy."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri, stdtr, stdtrit

from calibration.estimates import normal_quantile, t_quantile
from calibration.students_t import normal, two_sided

LEVELS = [0.01, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1 - 0.05 / 60, 1 - 0.0027, 1 - 1e-6, 1 - 1e-9]
DEGREES = [1, 1.5, 2, 3, 4, 7.25, 11, 30, 99, 239, 500, 999, 999.9, 1000, 1001, 5000, 1e5, 1e7, 1e12]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("df", DEGREES)
def test_quantiles_of_t_are_those_of_scipy(level: float, df: float) -> None:
    """For every level and every number of degrees of freedom that a report meets, the tail below minus the quantile is
    the one that was asked for (SciPy's own quantile of a small tail loses it to rounding), and they agree elsewhere.
    """
    found = two_sided(level, df)
    assert float(stdtr(df, -found)) == pytest.approx((1 - level) / 2, rel=1e-9)
    assert found == pytest.approx(float(stdtrit(df, (1 + level) / 2)), rel=1e-10 if level < 0.9999 else 1e-6)
    assert normal(level) == pytest.approx(-float(ndtri((1 - level) / 2)), rel=1e-7)


@given(st.floats(0.001, 1 - 1e-9), st.floats(1, 1e6))
def test_quantiles_of_any_level_and_degrees(level: float, df: float) -> None:
    """Between the listed ones, too."""
    assert float(stdtr(df, -two_sided(level, df))) == pytest.approx((1 - level) / 2, rel=1e-8)


def test_what_is_not_certain_here_is_asked_of_scipy() -> None:
    """Fractions of a degree of freedom, no degree, an infinity of them, and levels without a tail."""
    assert t_quantile(0.95, 0.5) == pytest.approx(float(stdtrit(0.5, 0.975)), rel=1e-12)
    assert t_quantile(0.95, math.inf) == pytest.approx(normal_quantile(0.95), rel=1e-12)
    assert math.isnan(t_quantile(0.95, 0.0)) and math.isinf(t_quantile(1.0, 5)) and math.isinf(normal_quantile(1.0))


def test_an_interval_of_sums_needs_no_scipy() -> None:
    """A page adds up sums and shows intervals: nothing of SciPy is imported for that."""
    code = (
        "import sys; from calibration.sums import Sums, mean_of, share_of, geometric_mean_of\n"
        "s = Sums(100, 40.0, 40.0, 60, 30.0, 60.0, 200.0)\n"
        "assert mean_of(s, bounds=(0, 1)) and share_of(s) and geometric_mean_of(s)\n"
        "assert 'scipy' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
