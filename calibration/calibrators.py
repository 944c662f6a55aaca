"""The maps from a judge's preference to the human scale: plain functions of coefficients, so that a fit is readable
JSON.

Every map takes the judge's preference ``p`` in [0, 1] (P(win) + P(tie)/2 from the candidate's side) and returns the
expected human outcome on the same scale. A human tie is half a win and half a loss (the fractional log likelihood),
which leaves the mean model intact; ``ordinal`` models the tie itself.

    temperature   sig(a s)                                       s = logit(p)
    platt         sig(a s + b)                                   Platt 1999
    beta          sig(a ln p - b ln(1 - p) + c), a, b >= 0        Kull, Silva Filho, Flach 2017
    isotonic      monotone steps, joined linearly                 Zadrozny, Elkan 2002
    venn_abers    p1 / (1 - p0 + p1), two isotonic fits           Vovk, Petej, Fedorova 2015 (arXiv 1511.00213)
    ordinal       P(win) = sig(a s + b - h), P(loss) = sig(-a s - b - h), h >= 0
    constant      the smoothed base rate: for a judge that says the same about everything

Parametric fits use Platt's smoothed targets ((n1 + 1)/(n1 + 2) and 1/(n0 + 2)) so that a perfect judge has finite
coefficients; ``smooth=False`` turns that off (for comparison with other programs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "EDGE",
    "LEVELS",
    "METHODS",
    "Array",
    "Coefficients",
    "evaluate",
    "fit_map",
    "log_odds",
    "logistic",
    "pool",
    "venn_abers_interval",
]

Array = npt.NDArray[np.float64]
Coefficients = Mapping[str, tuple[float, ...]]

METHODS = ("temperature", "platt", "ordinal", "beta", "venn_abers", "isotonic")
"""The maps that ``confidence.fit`` may choose, simplest first (``constant`` is never chosen, only forced by the
data)."""
EDGE = 1e-6
"""Preferences are clipped to [EDGE, 1 - EDGE] before a logit: log odds of at most 13.8 either way."""
LEVELS = 512
"""Isotonic and Venn-Abers fits see at most this many distinct preferences (quantile groups beyond)."""


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    half = np.tanh(0.5 * np.asarray(x, dtype=np.float64))
    return np.asarray(0.5 * (1.0 + half))


def log_odds(p: Array, edge: float = EDGE) -> Array:
    """ln(p / (1 - p)) with ``p`` clipped to [edge, 1 - edge]: probabilities of exactly 0 and 1 stay finite."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), edge, 1.0 - edge)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def pool(values: npt.NDArray[Any], weights: npt.NDArray[Any]) -> Array:
    """The non-decreasing sequence nearest to ``values`` in weighted least squares (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values, weights=weights).x, dtype=np.float64)


def fit_map(method: str, p: Array, y: Array, *, smooth: bool = True) -> dict[str, tuple[float, ...]]:
    """Coefficients of one map, fitted to preferences ``p`` and human outcomes ``y`` in {0, 0.5, 1} (equal length, n >=
    1).

    Raises ``ValueError`` for an unknown method.
    """
    if method == "constant":
        return {"rate": (float((y.sum() + 1.0) / (y.size + 2.0)),)}
    if method == "isotonic":
        return _fit_isotonic(p, y)
    if method == "venn_abers":
        return _fit_venn_abers(p, y)
    if method == "ordinal":
        return _fit_ordinal(log_odds(p), y)
    targets = _targets(y) if smooth else y
    s = log_odds(p)
    if method == "temperature":
        (slope,) = _logistic_fit(s[:, None], targets)
        return {"slope": (max(float(slope), 0.0),)}
    if method == "platt":
        slope, shift = _logistic_fit(np.column_stack([s, np.ones_like(s)]), targets)
        return {"slope": (float(slope),), "shift": (float(shift),)}
    if method == "beta":
        return _fit_beta(p, targets)
    raise ValueError(f"unknown calibration map {method!r}: use one of {', '.join(METHODS)}")


def evaluate(method: str, coefficients: Coefficients, p: Array) -> Array:
    """The map applied to preferences ``p``; returns the expected human outcome in [0, 1], same shape."""
    c = {name: np.asarray(value, dtype=np.float64) for name, value in coefficients.items()}
    if method == "constant":
        return np.full(np.shape(p), c["rate"][0])
    if method == "temperature":
        return logistic(c["slope"][0] * log_odds(p))
    if method == "platt":
        return logistic(c["slope"][0] * log_odds(p) + c["shift"][0])
    if method == "beta":
        x = np.clip(p, EDGE, 1.0 - EDGE)
        return logistic(c["a"][0] * np.log(x) - c["b"][0] * np.log1p(-x) + c["shift"][0])
    if method == "isotonic":
        return np.asarray(np.clip(np.interp(p, c["knots"], c["values"]), c["floor"][0], 1.0 - c["floor"][0]))
    if method == "venn_abers":
        low, high = venn_abers_interval(coefficients, p)
        return np.asarray(high / (1.0 - low + high))
    if method == "ordinal":
        u = c["slope"][0] * log_odds(p) + c["shift"][0]
        h = c["half"][0]
        return np.asarray(0.5 * (1.0 + logistic(u - h) - logistic(-u - h)))
    raise ValueError(f"unknown calibration map {method!r}")


def venn_abers_interval(coefficients: Coefficients, p: Array) -> tuple[Array, Array]:
    """Venn-Abers' two probabilities (p0, p1), p0 <= p1: the fit with the new row labelled a loss, and labelled a
    win.
    """
    knots = np.asarray(coefficients["knots"])
    low = np.asarray(coefficients["low"])[np.searchsorted(knots, p, side="right")]
    high = np.asarray(coefficients["high"])[np.searchsorted(knots, p, side="left")]
    return low, high


def _targets(y: Array) -> Array:
    wins = float(y.sum())
    losses = y.size - wins
    return np.asarray(y * (wins + 1.0) / (wins + 2.0) + (1.0 - y) / (losses + 2.0))


def _logistic_fit(x: Array, y: Array, ridge: float = 1e-9) -> Array:
    """Maximum of the fractional Bernoulli likelihood by Newton steps, halved while they do not improve."""
    scale = np.sqrt(np.mean(x * x, axis=0))
    scale[scale == 0.0] = 1.0
    z = x / scale
    beta = np.zeros(x.shape[1])

    def loss(b: Array) -> float:
        eta = z @ b
        return float(np.sum(np.logaddexp(0.0, eta) - y * eta) + 0.5 * ridge * b @ b)

    now = loss(beta)
    for _ in range(100):
        mean = logistic(z @ beta)
        gradient = z.T @ (y - mean) - ridge * beta
        hessian = (z * (mean * (1.0 - mean))[:, None]).T @ z + ridge * np.eye(beta.size)
        step = np.linalg.solve(hessian, gradient)
        if np.max(np.abs(step)) > 10.0:
            step *= 10.0 / np.max(np.abs(step))
        while (new := loss(beta + step)) > now + 1e-12 and np.max(np.abs(step)) > 1e-10:
            step *= 0.5
        beta, now = beta + step, new
        if np.max(np.abs(step)) < 1e-10:
            break
    return np.asarray(beta / scale)


def _fit_beta(p: Array, targets: Array) -> dict[str, tuple[float, ...]]:
    x = np.clip(p, EDGE, 1.0 - EDGE)
    up, down = np.log(x), -np.log1p(-x)
    one = np.ones_like(x)
    a, b, shift = _logistic_fit(np.column_stack([up, down, one]), targets)
    if a < 0.0:
        (b, shift), a = _logistic_fit(np.column_stack([down, one]), targets), 0.0
    elif b < 0.0:
        (a, shift), b = _logistic_fit(np.column_stack([up, one]), targets), 0.0
    return {"a": (max(float(a), 0.0),), "b": (max(float(b), 0.0),), "shift": (float(shift),)}


def _fit_ordinal(s: Array, y: Array) -> dict[str, tuple[float, ...]]:
    """Proportional odds with two thresholds; concave in (slope, shift, half), so Newton with halving finds the maximum.

    log L = sum w' ln sig(u - h) + l' ln sig(-u - h) + t ln(exp(2h) - 1), with w' = wins + ties, l' = losses + ties.
    Half a win and half a loss at each of +-rms(s) keep a perfect judge's slope finite.
    """
    spread = float(np.sqrt(np.mean(s * s))) or 1.0
    x = np.column_stack([np.append(s, [spread, -spread]) / spread, np.ones(s.size + 2)])
    tie = np.append((y == 0.5).astype(float), [0.0, 0.0])
    win = np.append((y == 1.0).astype(float), [0.5, 0.5]) + tie
    loss = np.append((y == 0.0).astype(float), [0.5, 0.5]) + tie
    theta = np.array([0.0, 0.0, 0.5])
    ties = float(tie.sum())

    def negative(t: Array) -> float:
        u = x @ t[:2]
        gap = ties * (2.0 * t[2] + np.log(-np.expm1(-2.0 * t[2]))) if ties else 0.0
        return float(np.sum(win * np.logaddexp(0.0, t[2] - u) + loss * np.logaddexp(0.0, t[2] + u)) - gap)

    design = np.column_stack([x, -np.ones(len(x))]), np.column_stack([-x, -np.ones(len(x))])
    now = negative(theta)
    for _ in range(100):
        q1, q2 = logistic(-(design[0] @ theta)), logistic(-(design[1] @ theta))
        gradient = design[0].T @ (win * q1) + design[1].T @ (loss * q2)
        hessian = (design[0].T * (win * q1 * (1 - q1))) @ design[0] + (design[1].T * (loss * q2 * (1 - q2))) @ design[1]
        if ties:
            gradient[2] += 2.0 * ties / -np.expm1(-2.0 * theta[2])
            hessian[2, 2] += ties / np.sinh(min(theta[2], 300.0)) ** 2
        else:
            gradient[2], hessian[2, :], hessian[:, 2], hessian[2, 2], theta[2] = 0.0, 0.0, 0.0, 1.0, 0.0
        step = np.linalg.solve(hessian + 1e-9 * np.eye(3), gradient)
        while theta[2] + step[2] <= 0.0 and ties:
            step *= 0.5
        while (new := negative(theta + step)) > now + 1e-12 and np.max(np.abs(step)) > 1e-10:
            step *= 0.5
        theta, now = theta + step, new
        if np.max(np.abs(step)) < 1e-10:
            break
    return {"slope": (float(theta[0] / spread),), "shift": (float(theta[1]),), "half": (float(theta[2]),)}


def _levels(p: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distinct preferences (at most ``LEVELS`` quantile groups), the mean outcome and the count at each."""
    knots, where = np.unique(p, return_inverse=True)
    if knots.size > LEVELS:
        edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, LEVELS + 1)[1:-1]))
        where = np.searchsorted(edges, p, side="right")
        used, where = np.unique(where, return_inverse=True)
        knots = np.bincount(where, weights=p, minlength=used.size) / np.bincount(where, minlength=used.size)
    count = np.bincount(where, minlength=knots.size).astype(np.float64)
    return knots, np.bincount(where, weights=y, minlength=knots.size) / count, count


def _fit_isotonic(p: Array, y: Array) -> dict[str, tuple[float, ...]]:
    knots, mean, count = _levels(p, y)
    return {
        "knots": tuple(knots.tolist()),
        "values": tuple(pool(mean, count).tolist()),
        "floor": (1.0 / (y.size + 2.0),),
    }


def _fit_venn_abers(p: Array, y: Array) -> dict[str, tuple[float, ...]]:
    """For each level, the isotonic value there after adding one row labelled 0 (``low``) and one labelled 1
    (``high``).
    """
    knots, mean, count = _levels(p, y)
    low: list[float] = [0.0]
    high: list[float] = []
    for level in range(knots.size):
        weights = count.copy()
        weights[level] += 1.0
        for label, out in ((0.0, low), (1.0, high)):
            values = mean.copy()
            values[level] = (mean[level] * count[level] + label) / weights[level]
            out.append(float(pool(values, weights)[level]))
    high.append(1.0)
    return {"knots": tuple(knots.tolist()), "low": tuple(low), "high": tuple(high)}
