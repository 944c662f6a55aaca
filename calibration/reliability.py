"""How honest are probabilities? Calibration error with its null band, proper scores and their parts, slope and
intercept.

Sources: debiased L2 calibration error, Kumar, Liang, Ma 2019 (arXiv 1909.10155); smooth calibration error, Blasiok,
Nakkiran 2023 (arXiv 2309.12236); CORP decomposition and consistency bands, Dimitriadis, Gneiting, Jordan 2021; slope
and intercept, Cox 1958. A perfectly calibrated judge reads an ECE of 0.10 on 100 items, so an error is never shown
without the value that chance alone reaches in 95% of samples (``Level.chance``).

``p`` is a probability on the preference scale, ``y`` a human outcome in {0, 0.5, 1} for it; ties count as half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array, log_odds, logistic, pool
from .estimates import Estimate, mean, t_quantile

__all__ = [
    "DiagramPoint",
    "Level",
    "Reliability",
    "Slope",
    "assess",
    "brier",
    "calibration_slope",
    "corp",
    "debiased_ece",
    "log_losses",
    "plain_ece",
    "smooth_ece",
    "validated",
]

_GRID = 400
_LOG_EDGE = 1e-6
_CODES = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Level:
    """A calibration error, and ``chance``: the 95th percentile of the same number for a perfectly calibrated judge of
    this size.

    Above ``chance`` the judge is miscalibrated beyond sampling noise; below it the error says nothing.
    """

    error: Estimate
    chance: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the error is larger than a perfect judge of this sample size shows in 95% of samples."""
        return self.error.value > self.chance


@dataclass(frozen=True, slots=True)
class Slope:
    """Logistic regression of the outcome on logit(p): slope 1 and intercept 0 is calibrated, slope below 1 is
    over-confident.

    ``p_value`` tests both at once: likelihood ratio with 2 df where every prompt has one decisive row, else a
    cluster-robust Wald test.
    """

    slope: Estimate
    intercept: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class DiagramPoint:
    """One point of the reliability diagram: mean forecast, isotonic outcome rate, rows, and the 90% consistency
    band.
    """

    forecast: float
    observed: float
    n: int
    band_low: float
    band_high: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Everything said about one set of probabilities; every number with its interval, rows ``n`` and prompts
    ``clusters``.

    ``brier`` = ``miscalibration`` - ``discrimination`` + ``uncertainty`` (values, exactly). ``slope`` is ``None`` where
    the outcomes are separated by the forecasts or of one class only, so that no finite slope exists.
    """

    n: int
    clusters: int
    brier: Estimate
    log_loss: Estimate
    miscalibration: Estimate
    discrimination: Estimate
    uncertainty: Estimate
    ece: Level
    smooth_ece: Level
    slope: Slope | None
    diagram: tuple[DiagramPoint, ...]


def validated(
    p: Sequence[float] | Array, y: Sequence[float] | Array, clusters: Sequence[str] | None = None
) -> tuple[Array, Array, _CODES]:
    """Arrays of equal length with ``p`` in [0, 1] and ``y`` in {0, 0.5, 1}, and one prompt code per row.

    Raises ``InputError`` that names the first bad row. Without ``clusters`` every row is its own prompt.
    """
    forecast = np.asarray(p, dtype=np.float64)
    outcome = np.asarray(y, dtype=np.float64)
    if forecast.ndim != 1 or forecast.shape != outcome.shape:
        raise InputError(f"preferences and outcomes need one length; got {forecast.shape} and {outcome.shape}")
    bad = np.flatnonzero(~((forecast >= 0.0) & (forecast <= 1.0)))
    if bad.size:
        raise InputError(
            f"preference in row {bad[0]} is {forecast[bad[0]]}, not a number in [0, 1]; "
            "leave invalid comparisons out and count them"
        )
    bad = np.flatnonzero(~np.isin(outcome, (0.0, 0.5, 1.0)))
    if bad.size:
        raise InputError(f"human outcome in row {bad[0]} is {outcome[bad[0]]}; use 1 (win), 0.5 (tie) or 0 (loss)")
    if clusters is None:
        return forecast, outcome, np.arange(forecast.size)
    if len(clusters) != forecast.size:
        raise InputError(f"{len(clusters)} prompt ids for {forecast.size} rows; give one id per row")
    return forecast, outcome, np.unique(np.asarray(clusters), return_inverse=True)[1].astype(np.intp)


def brier(p: Array, y: Array) -> float:
    """Mean of (p - y) squared; lower is better, and calibration or discrimination both move it."""
    return float(np.mean((p - y) ** 2))


def log_losses(p: Array, y: Array) -> Array:
    """-y ln p - (1 - y) ln(1 - p) per row in nats, with p clipped to [1e-6, 1 - 1e-6]: certain and wrong costs 13.8."""
    q = np.clip(p, _LOG_EDGE, 1.0 - _LOG_EDGE)
    return np.asarray(-(y * np.log(q) + (1.0 - y) * np.log1p(-q)))


def plain_ece(p: Array, y: Array, *, bins: int = 10) -> float:
    """The usual binned error, sum of w_b |mean p - mean y| over equal-width bins; biased upward, for comparison
    only.
    """
    where = np.minimum((p * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(where, weights=p - y, minlength=bins)).sum() / p.size)


def debiased_ece(p: Array, y: Array, *, bins: int = 10) -> float:
    """Square root of sum w_b [(mean p - mean y)^2 - var(y)/n_b] over equal-mass bins, clamped at 0 (Kumar 2019).

    For y in {0, 1} the correction is ybar(1 - ybar)/(n_b - 1). Bins with one row carry no correction and are left out.
    """
    return float(_debiased(p, np.ones((1, p.size)), y[None, :], bins)[0])


def smooth_ece(p: Array, y: Array) -> float:
    """Calibration error smoothed with a reflected Gaussian whose bandwidth equals the error it finds (arXiv
    2309.12236).
    """
    return float(_smooth(p, (y - p)[None, :] / p.size)[0])


def corp(p: Array, y: Array) -> tuple[float, float, float]:
    """(miscalibration, discrimination, uncertainty) of the Brier score through isotonic regression, free of bins.

    MCB = S(p) - S(iso), DSC = S(mean) - S(iso), UNC = S(mean); Brier = MCB - DSC + UNC.
    """
    mcb, dsc, unc = _corp(*_grouped(p), p, np.ones((1, p.size)), y[None, :])[0]
    return float(mcb), float(dsc), float(unc)


def calibration_slope(
    p: Sequence[float] | Array,
    y: Sequence[float] | Array,
    *,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Slope | None:
    """Slope and intercept of the outcome on logit(p), prompt-clustered sandwich intervals with a t quantile.

    ``None`` where no finite slope exists: one class, a constant forecast, or perfectly separated outcomes.
    """
    forecast, outcome, codes = validated(p, y, clusters)
    return _slope(forecast, outcome, codes, level)


def assess(
    p: Sequence[float] | Array,
    y: Sequence[float] | Array,
    *,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
) -> Reliability | None:
    """The whole reliability card of probabilities ``p`` against outcomes ``y``; ``None`` for an empty set.

    Intervals: cluster-robust t for the mean scores. For the others the wider of the basic and the percentile cluster
    bootstrap (``rounds`` // 4 draws), from 0 where the error is not beyond chance: a resampled calibration error is
    biased upward by about as much as the error itself, and each of the two alone covers 60-90% at a nominal 95%. The
    chance level redraws outcomes from ``p`` itself ``rounds`` times, with the observed share of ties; rows of one
    prompt are redrawn together.
    """
    forecast, outcome, codes = validated(p, y, clusters)
    if forecast.size == 0:
        return None
    rng = np.random.default_rng(seed)
    names = [str(code) for code in codes]
    score = mean(((forecast - outcome) ** 2).tolist(), clusters=names, level=level, bounds=(0.0, 1.0))
    loss = mean(log_losses(forecast, outcome).tolist(), clusters=names, level=level)
    assert score is not None  # the set is not empty
    assert loss is not None
    null = _redrawn(forecast, outcome, codes, rounds, rng)
    draws = _errors(forecast, _cluster_weights(codes, max(rounds // 4, 50), rng), outcome)
    value = _errors(forecast, np.ones((1, forecast.size)), outcome)[0]
    chance = np.quantile(_errors(forecast, np.ones_like(null), null), 0.95, axis=0)
    chance[3:] = 0.0  # discrimination and uncertainty are not errors: chance sets no lower limit for them
    groups = int(codes.max()) + 1
    ece, smooth, mcb, dsc, unc = (
        _interval(float(value[k]), draws[:, k], float(chance[k]), level=level, size=(forecast.size, groups))
        for k in range(5)
    )
    return Reliability(
        n=forecast.size,
        clusters=groups,
        brier=score,
        log_loss=loss,
        miscalibration=mcb,
        discrimination=dsc,
        uncertainty=unc,
        ece=Level(ece, float(chance[0])),
        smooth_ece=Level(smooth, float(chance[1])),
        slope=_slope(forecast, outcome, codes, level),
        diagram=_diagram(forecast, outcome, null),
    )


def _errors(p: Array, weights: Array, y: Array) -> Array:
    """(rounds, 5): debiased ECE, smooth ECE, miscalibration, discrimination, uncertainty under row weights."""
    outcome = np.broadcast_to(y, weights.shape)
    where, size = _grouped(p)
    mass = weights * (outcome - p) / weights.sum(axis=1, keepdims=True)
    parts = _corp(where, size, p, weights, outcome)
    return np.column_stack([_debiased(p, weights, outcome, 10), _smooth(p, mass), parts])


def _interval(value: float, draws: Array, chance: float, *, level: float, size: tuple[int, int]) -> Estimate:
    tail = (1.0 - level) / 2.0
    low, high = (float(q) for q in np.quantile(draws, [tail, 1.0 - tail]))
    lower = max(min(low, 2.0 * value - high, value), 0.0)
    return Estimate(
        value=value,
        low=0.0 if value <= chance else lower,
        high=max(high, 2.0 * value - low, value),
        level=level,
        n=size[0],
        clusters=size[1],
        method="cluster bootstrap, wider of basic and percentile",
    )


def _cluster_weights(codes: _CODES, rounds: int, rng: np.random.Generator) -> Array:
    """Row weights of ``rounds`` bootstrap samples of whole prompts, shape (rounds, rows)."""
    groups = int(codes.max()) + 1
    counts = rng.multinomial(groups, np.full(groups, 1.0 / groups), size=rounds)
    return np.asarray(counts[:, codes], dtype=np.float64)


def _redrawn(p: Array, y: Array, codes: _CODES, rounds: int, rng: np.random.Generator) -> Array:
    """Outcomes a calibrated judge could have met: mean exactly ``p``, ties as frequent as observed; (rounds, rows).

    Rows of one prompt share one draw: labels of one prompt agree more than independent ones do, and how much is
    unknown.
    """
    spread = p * (1.0 - p)
    share = float(np.mean(y == 0.5))
    total = float(spread.mean())
    tie = np.minimum(share * spread / total, 2.0 * np.minimum(p, 1.0 - p)) if total > 0.0 else np.zeros_like(p)
    u = rng.random((rounds, int(codes.max()) + 1))[:, codes]
    win = p - 0.5 * tie
    return np.asarray(np.where(u < win, 1.0, np.where(u < win + tie, 0.5, 0.0)))


def _debiased(p: Array, weights: Array, y: Array, bins: int) -> Array:
    edges = np.unique(np.quantile(p, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    where = np.searchsorted(edges, p, side="right")
    member = np.zeros((p.size, edges.size + 1))
    member[np.arange(p.size), where] = 1.0
    count = weights @ member
    safe = np.maximum(count, 1.0)
    rate = (weights * y) @ member / safe
    forecast = (weights * p) @ member / safe
    spread = np.maximum((weights * y * y) @ member / safe - rate * rate, 0.0) / np.maximum(safe - 1.0, 1.0)
    kept = np.where(count >= 2.0, count, 0.0)
    total = np.maximum(kept.sum(axis=1), 1.0)
    return np.asarray(np.sqrt(np.maximum((kept * ((forecast - rate) ** 2 - spread)).sum(axis=1) / total, 0.0)))


def _smooth(p: Array, mass: Array) -> Array:
    """Smooth ECE of each row of residual masses; the kernel acts in the cosine basis, where it only damps
    frequencies.
    """
    from scipy.fft import dct, idct
    from scipy.sparse import csr_array

    place = np.clip(p * _GRID - 0.5, 0.0, _GRID - 1.0)
    left = np.minimum(place.astype(np.intp), _GRID - 2)
    share = place - left
    rows = np.concatenate([left, left + 1])
    columns = np.tile(np.arange(p.size), 2)
    spread = csr_array((np.concatenate([1.0 - share, share]), (rows, columns)), shape=(_GRID, p.size))
    waves = dct(np.asarray((spread @ mass.T).T), type=2, norm="ortho", axis=1)
    frequency = np.pi * np.arange(_GRID)

    def error(sigma: Array) -> Array:
        damped = waves * np.exp(-0.5 * (frequency[None, :] * sigma[:, None]) ** 2)
        return np.asarray(np.abs(idct(damped, type=2, norm="ortho", axis=1)).sum(axis=1))

    low, high = np.full(len(mass), 1e-3), np.ones(len(mass))
    for _ in range(12):
        middle = 0.5 * (low + high)
        above = error(middle) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return error(0.5 * (low + high))


def _grouped(p: Array) -> tuple[_CODES, int]:
    levels, where = np.unique(p, return_inverse=True)
    return where.astype(np.intp), levels.size


def _corp(where: _CODES, size: int, p: Array, weights: Array, y: Array) -> Array:
    """(rounds, 3): miscalibration, discrimination and uncertainty of the CORP decomposition."""
    from scipy.sparse import csr_array

    level = csr_array((np.ones(p.size), (where, np.arange(p.size))), shape=(size, p.size))
    heavy = weights * y
    count, rate = (np.asarray((level @ part.T).T) for part in (weights, heavy))
    total, hits = weights.sum(axis=1), heavy.sum(axis=1)
    squares = np.einsum("rn,rn->r", heavy, y)
    own = squares - 2 * heavy @ p + weights @ p**2
    iso = squares.copy()
    for k in range(len(weights)):
        seen = count[k] > 0.0
        fitted = pool(rate[k, seen] / count[k, seen], count[k, seen])
        iso[k] += (count[k, seen] * fitted - 2 * rate[k, seen]) @ fitted
    unc = squares - hits**2 / total
    parts = np.column_stack([own - iso, unc - iso, unc]) / total[:, None]
    return np.asarray(np.maximum(parts, 0.0))  # none is negative but for rounding


def _diagram(p: Array, y: Array, null: Array) -> tuple[DiagramPoint, ...]:
    knots, where = np.unique(p, return_inverse=True)
    weights = np.bincount(where, minlength=knots.size).astype(np.float64)

    def fitted(outcome: Array) -> Array:
        return pool(np.bincount(where, weights=outcome, minlength=knots.size) / weights, weights)

    observed = fitted(y)
    low, high = np.quantile(np.array([fitted(row) for row in null]), [0.05, 0.95], axis=0)
    shown = np.unique(np.linspace(0, knots.size - 1, min(knots.size, 101)).round().astype(int))
    return tuple(
        DiagramPoint(float(knots[i]), float(observed[i]), int(weights[i]), float(low[i]), float(high[i])) for i in shown
    )


def _slope(p: Array, y: Array, codes: _CODES, level: float) -> Slope | None:
    from scipy.special import chdtrc, fdtrc

    s = log_odds(p)
    if p.size < 3 or np.ptp(s) == 0.0 or np.ptp(y) == 0.0:
        return None
    x = np.column_stack([s, np.ones_like(s)])
    beta = _newton(x, y)
    if beta is None:
        return None
    fitted = logistic(x @ beta)
    bread = np.linalg.inv((x * (fitted * (1.0 - fitted))[:, None]).T @ x)
    groups = int(codes.max()) + 1
    if groups < 3:
        return None
    scores = np.column_stack([np.bincount(codes, weights=x[:, k] * (y - fitted), minlength=groups) for k in (0, 1)])
    meat = scores.T @ scores
    if np.linalg.matrix_rank(meat, tol=1e-12) < 2:
        return None  # nothing varies between prompts, as where people split on every pair
    cov = bread @ meat @ bread * groups / (groups - 1)
    quantile = t_quantile(level, groups - 1)
    one, zero = (
        Estimate(
            value=float(beta[k]),
            low=float(beta[k] - quantile * np.sqrt(cov[k, k])),
            high=float(beta[k] + quantile * np.sqrt(cov[k, k])),
            level=level,
            n=p.size,
            clusters=groups,
            method="logistic, cluster-robust",
        )
        for k in (0, 1)
    )
    if groups == p.size and not np.any(y == 0.5):

        def nll(eta: Array) -> float:
            return float(np.sum(np.logaddexp(0.0, eta) - y * eta))

        p_value = float(chdtrc(2, 2.0 * (nll(s) - nll(x @ beta))))
    else:
        away = beta - np.array([1.0, 0.0])
        p_value = float(fdtrc(2, groups - 1, away @ np.linalg.solve(cov, away) / 2.0))
    return Slope(one, zero, p_value)


def _newton(x: Array, y: Array) -> Array | None:
    """Maximum likelihood, or ``None`` where it does not exist (the likelihood keeps rising as the slope grows)."""
    beta = np.zeros(x.shape[1])
    for _ in range(60):
        fitted = logistic(x @ beta)
        weight = fitted * (1.0 - fitted)
        hessian = (x * weight[:, None]).T @ x
        if weight.max() < 1e-8 or np.linalg.cond(hessian) > 1e14:
            return None
        step = np.linalg.solve(hessian, x.T @ (y - fitted))
        now = np.sum(np.logaddexp(0.0, x @ beta) - y * (x @ beta))
        while np.sum(np.logaddexp(0.0, x @ (beta + step)) - y * (x @ (beta + step))) > now + 1e-12:
            step *= 0.5
            if np.max(np.abs(step)) < 1e-12:
                break
        beta = beta + step
        if np.max(np.abs(step)) < 1e-9:
            return beta
    return None
