"""How much longer an answer is, from the logarithm of the ratio of two lengths: a number, and what all surfaces say.

An empty answer against a long one, or an interval from a handful of prompts, has logarithms that no percentage is
written for, and some beyond what a float can hold: these are ``over +9999%``, never an error.
"""

from __future__ import annotations

import math

__all__ = ["growth", "longer"]

_HUGE = 9999
"""Percent beyond which a length is not written out."""


def growth(log_ratio: float) -> float:
    """By what share it is longer, ``exp(log_ratio) - 1``; infinite where a float cannot hold it."""
    try:
        return math.expm1(log_ratio)
    except OverflowError:
        return math.inf


def longer(log_ratio: float, *, digits: int = 1) -> str:
    """The same in percent.

    >>> longer(math.log(1.3)), longer(-0.0), longer(20.0), longer(-math.inf), longer(math.inf)
    ('+30.0%', '+0.0%', 'over +9999%', '-100.0%', 'no limit')
    """
    if math.isnan(log_ratio):
        return "undefined"
    if log_ratio == math.inf:
        return "no limit"
    percent = 100 * growth(log_ratio)
    return f"over +{_HUGE}%" if percent > _HUGE else f"{percent + 0.0:+.{digits}f}%"
