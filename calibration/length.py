"""The win rate at equal length and style: how much of a win is the longer answer?

One logistic model per comparison: logit P(candidate preferred) = features . beta + psi * difficulty + gamma. The
controlled win rate sets the features to 0 (no difference in length or style) and averages over the prompts,

    LC = mean_i sig(psi d_i + gamma),

with a bootstrap that draws whole prompts and refits the model each time. ``alpacaeval2`` is the published AlpacaEval 2
estimator (Dubois et al. 2024, arXiv 2404.04475; steps as in alpaca_eval's metrics/glm_winrate.py): lasso with 5-fold
cross-validation, and two gamed baselines as regulariser.

What length control is not: proof against cheating. A constant prompt-attack has the highest published LC of all.
Without per-prompt difficulty the logistic model averages over easy and hard prompts and pulls LC towards the raw rate
by up to several points; give ``difficulty`` (``difficulties`` of past runs on the same prompts) where it exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array, logistic
from .estimates import Estimate

__all__ = [
    "LengthControlled",
    "Prior",
    "controlled",
    "controlled_many",
    "difficulties",
    "human_controlled",
    "length_feature",
    "reaches_equality",
    "style_feature",
]

LABEL_FLOOR = 30
"""Labelled prompts below which no human-scale controlled rate is given."""
_ABOUT_EQUAL, _SHARE_EQUAL, _LEAST_EQUAL = 0.1, 0.05, 5
_BLOCK = 65_536
"""Bootstrap weights fitted at once, in numbers: small enough for the processor's cache."""
_Codes = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal prior on the first feature's coefficient, e.g. fitted on verbose and concise variants of the
    baseline.
    """

    centre: float
    sd: float


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate with length and style, without, and what lies between.

    ``raw`` is the mean preference, ``controlled`` the rate at equal features, ``coefficients`` one logit slope per
    feature (positive: the judge prefers the side that has more of it), ``shift`` = raw - controlled. ``mediated`` is
    the share of the win that goes through the features, shift / (raw - 0.5), given only where the interval of ``raw``
    leaves out 0.5. ``skipped`` counts rows without a preference. ``method`` names estimator and prior.
    """

    raw: Estimate
    controlled: Estimate
    shift: Estimate
    coefficients: tuple[Estimate, ...]
    mediated: Estimate | None
    n: int
    skipped: int
    method: str

    def longer_not_better(self, log_length_ratio: Estimate) -> bool:
        """Whether answers grew by over 10%, the raw rate wins, and at equal length nothing is shown.

        ``log_length_ratio`` is the mean of ln(candidate / baseline length), e.g. ``drift.log_length``.
        """
        grew = log_length_ratio.low > np.log(1.1)
        return bool(grew and self.raw.low > 0.5 and self.controlled.low <= 0.5 <= self.controlled.high)


def length_feature(candidate: Sequence[float] | Array, baseline: Sequence[float] | Array) -> Array:
    """tanh((candidate - baseline) / sd) of answer lengths in characters; sd over the rows, ddof 1, not centred.

    This is AlpacaEval 2's feature with the sign turned so that longer candidates are positive. All zero where every
    difference is the same. NaN where a length is NaN.
    """
    delta = np.asarray(candidate, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    known = delta[np.isfinite(delta)]
    spread = float(np.std(known, ddof=1)) if known.size > 1 else 0.0
    return np.asarray(np.tanh(delta / spread)) if spread > 0.0 else np.where(np.isfinite(delta), 0.0, np.nan)


def reaches_equality(feature: Sequence[float] | Array) -> bool:
    """Whether equal length lies within the data rather than beyond its edge.

    At least 5% of the rows, and at least five, must be no longer than about equal (feature at most 0.1), and as many no
    shorter. Where nearly every candidate is longer, "at equal length" is an extrapolation whose bootstrap interval is
    narrow and means nothing: every round extrapolates alike. Rows with NaN do not count.

    >>> reaches_equality([0.9, 0.8] * 20), reaches_equality([0.5, -0.4] * 20)
    (False, True)
    """
    x = np.asarray(feature, dtype=np.float64)
    x = x[np.isfinite(x)]
    least = max(_LEAST_EQUAL, _SHARE_EQUAL * x.size)
    return bool(np.sum(x <= _ABOUT_EQUAL) >= least and np.sum(x >= -_ABOUT_EQUAL) >= least)


def style_feature(
    candidate: Sequence[float] | Array,
    baseline: Sequence[float] | Array,
    *,
    candidate_tokens: Sequence[float] | Array,
    baseline_tokens: Sequence[float] | Array,
) -> Array:
    """Difference of marker densities (headers, list items, bold spans ...), in units of its own sd.

    With d = count / (tokens + 1): (d_c - d_b) / (d_c + d_b + 1), as in arena-hard-auto's style control, but divided by
    the sd only: centring would move "equal style" away from 0.
    """
    ours = np.asarray(candidate, dtype=np.float64) / (np.asarray(candidate_tokens, dtype=np.float64) + 1.0)
    theirs = np.asarray(baseline, dtype=np.float64) / (np.asarray(baseline_tokens, dtype=np.float64) + 1.0)
    raw = (ours - theirs) / (ours + theirs + 1.0)
    spread = float(np.std(raw, ddof=1)) if raw.size > 1 else 0.0
    return np.asarray(raw / spread) if spread > 0.0 else np.zeros_like(raw)


def controlled(
    preferences: Sequence[float] | Array,
    features: Array,
    *,
    difficulty: Sequence[float] | Array | None = None,
    prior: Prior | None = None,
    clusters: Sequence[str] | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlled | None:
    """The win rate of one comparison at equal features, with a prompt bootstrap.

    ``preferences`` in [0, 1], NaN where the comparison is invalid (counted in ``skipped``); ``features`` of shape (n,)
    or (n, k), 0 meaning "no difference"; ``difficulty`` one number per row, larger where the candidate side wins more
    often. A tiny ridge (1e-3 pseudo-rows per coefficient) keeps the fit finite where one side always wins. ``None``
    without rows.
    """
    frame = _frame(preferences, features, difficulty, clusters)
    if frame is None:
        return None
    rng = np.random.default_rng(seed)
    (points,) = _rates(frame, (frame.y,), _once(frame), prior)
    (draws,) = _rates(frame, (frame.y,), _draws(frame.codes, rounds, rng), prior)
    given = "" if prior is None else f", prior N({prior.centre}, {prior.sd}^2)"
    method = f"logistic, {rounds} prompt bootstrap rounds{given}"
    return _summary(frame, points[0], draws, level, method)


def human_controlled(
    preferences: Sequence[float] | Array,
    features: Array,
    human: Sequence[float] | Array,
    *,
    difficulty: Sequence[float] | Array | None = None,
    clusters: Sequence[str] | None = None,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlled | None:
    """The same on the human scale: the prediction-powered bootstrap (Zrnic 2024, arXiv 2405.18379), power-tuned.

    ``human`` holds outcomes 1, 0.5, 0 (or their mean over annotators) of rows drawn at random from this run and NaN
    elsewhere. Each figure is
    theta_human(labelled) + lam (theta_judge(unlabelled) - theta_judge(labelled)) with lam = cov / (var + var) from the
    bootstrap, held in [0, 1]; labelled and unlabelled prompts are drawn apart. ``None`` below 30 labelled prompts or
    without unlabelled rows (then ``controlled(human, features)`` is the answer). A row without a preference is left
    out with its label: give it 0.5 where the judge's silence may go with the outcome. Labels of another candidate or
    chosen by hand make it wrong; that is checked where provenance is known.
    """
    frame = _frame(preferences, features, difficulty, clusters)
    label = np.asarray(human, dtype=np.float64)
    if frame is None:
        return None
    if label.shape != frame.kept.shape:
        raise InputError(f"{label.size} human outcomes for {frame.kept.size} rows; give NaN where there is no label")
    label = label[frame.kept]
    known = np.isfinite(label)
    if not np.all((label[known] >= 0.0) & (label[known] <= 1.0)):
        raise InputError("human outcomes lie in [0, 1] (win 1, tie 0.5, loss 0, or their mean) or are NaN")
    if np.unique(frame.codes[known]).size < LABEL_FLOOR or known.all():
        return None
    rng = np.random.default_rng(seed)
    lab, rest = frame.part(known), frame.part(~known)

    def three(lab_weights: Iterable[Array], rest_weights: Iterable[Array]) -> tuple[Array, ...]:
        return (
            *_rates(lab, (label[known], lab.y), lab_weights, None),
            *_rates(rest, (rest.y,), rest_weights, None),
        )

    truth, judged, others = three(_draws(lab.codes, rounds, rng), _draws(rest.codes, rounds, rng))
    power = np.zeros(truth.shape[1])
    for k in range(truth.shape[1]):
        covariance = np.cov(truth[:, k], judged[:, k])
        total = covariance[1, 1] + np.var(others[:, k], ddof=1)
        power[k] = np.clip(covariance[0, 1] / total, 0.0, 1.0) if total > 0.0 else 0.0
    point = three(_once(lab), _once(rest))
    value = (point[0] + power * (point[2] - point[1]))[0]
    draws = truth + power * (others - judged)
    method = f"prediction-powered logistic, {int(known.sum())} labels, {rounds} prompt bootstrap rounds"
    return _summary(frame, value, draws, level, method)


def controlled_many(
    preferences: Array, features: Array, *, difficulty: Sequence[float] | Array | None = None, level: float = 0.95
) -> tuple[Estimate | None, ...]:
    """Controlled win rates of many candidates on the same prompts in one batched fit.

    ``preferences`` and ``features`` have shape (candidates, prompts), NaN where missing. Intervals by the delta method
    with a sandwich over prompts (each prompt counts once per candidate). ``None`` for a candidate without a row.
    """
    from scipy.special import ndtri

    y, x = np.asarray(preferences, dtype=np.float64), np.asarray(features, dtype=np.float64)
    if y.ndim != 2 or y.shape != x.shape:
        raise InputError(f"preferences and features must both be (candidates, prompts); got {y.shape} and {x.shape}")
    extra = [] if difficulty is None else [np.broadcast_to(np.asarray(difficulty, dtype=np.float64), y.shape)]
    design = np.stack([x, *extra, np.ones_like(y)], axis=-1)
    weight = (np.isfinite(y) & np.isfinite(x)).astype(np.float64)
    design, y = np.where(weight[..., None] > 0.0, design, 0.0), np.where(weight > 0.0, y, 0.0)
    _check_range(y)
    beta, hessian = _fit(design, y, weight, np.full(design.shape[2], 1e-3), np.zeros(design.shape[2]))
    equal = design.copy()
    equal[..., 0] = 0.0
    n = weight.sum(axis=1)
    safe = np.maximum(n, 1.0)
    rate = logistic(np.einsum("mnk,mk->mn", equal, beta))
    value = (weight * rate).sum(axis=1) / safe
    slope = np.einsum("mn,mnk->mk", weight * rate * (1.0 - rate), equal) / safe[:, None]
    fitted = logistic(np.einsum("mnk,mk->mn", design, beta))
    lever = np.linalg.solve(hessian, slope[..., None])[..., 0]
    influence = (rate - value[:, None]) / safe[:, None] + np.einsum("mnk,mk->mn", design, lever) * (y - fitted)
    error = np.sqrt((weight * influence**2).sum(axis=1) * safe / np.maximum(safe - 1.0, 1.0))
    reach = ndtri(0.5 + level / 2.0) * error
    return tuple(
        None
        if n[m] == 0.0
        else Estimate(
            value=float(value[m]),
            low=float(max(value[m] - reach[m], 0.0)),
            high=float(min(value[m] + reach[m], 1.0)),
            level=level,
            n=int(n[m]),
            clusters=int(n[m]),
            method="logistic, delta method over prompts",
        )
        for m in range(len(y))
    )


def difficulties(preferences: Array, features: Array, *, steps: int = 30) -> Array:
    """One number per prompt: how much more often than usual candidates win there, in logits, shrunk to 0.

    A joint logistic model over past candidates (rows) and prompts (columns, NaN where missing): length slope and level
    per candidate, one normal effect per prompt whose variance is learnt (empirical Bayes, penalised quasi-likelihood).
    Prompts that nobody was judged on read 0.
    """
    y, x = np.asarray(preferences, dtype=np.float64), np.asarray(features, dtype=np.float64)
    if y.ndim != 2 or y.shape != x.shape or not y.size:
        raise InputError(f"preferences and features must both be (candidates, prompts): {y.shape}, {x.shape}")
    weight = (np.isfinite(y) & np.isfinite(x)).astype(np.float64)
    y, x = np.where(weight > 0.0, y, 0.0), np.where(weight > 0.0, x, 0.0)
    _check_range(y)
    design = np.stack([x, weight], axis=-1)
    level, variance = np.zeros(y.shape[1]), 1.0
    for _ in range(steps):
        beta, _hessian = _fit(design, y, weight, np.full(2, 1e-3), np.zeros(2), offset=np.broadcast_to(level, y.shape))
        base = np.einsum("mnk,mk->mn", design, beta)
        for _ in range(4):
            p = logistic(base + level)
            information = (weight * p * (1.0 - p)).sum(axis=0) + 1.0 / variance
            step = ((weight * (y - p)).sum(axis=0) - level / variance) / information
            level = level + np.clip(step, -2.0, 2.0)
        level = level - level.mean()
        variance = max(float(np.mean(level**2 + 1.0 / information)), 1e-4)
    return np.asarray(level)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Valid rows: design (features, difficulty, 1), preferences, prompt codes, and which input rows were kept."""

    design: Array
    y: Array
    codes: _Codes
    width: int
    kept: npt.NDArray[np.bool_]

    def part(self, rows: npt.NDArray[np.bool_]) -> _Frame:
        codes = np.unique(self.codes[rows], return_inverse=True)[1].astype(np.intp)
        return _Frame(self.design[rows], self.y[rows], codes, self.width, self.kept)


def _frame(
    preferences: Sequence[float] | Array,
    features: Array,
    difficulty: Sequence[float] | Array | None,
    clusters: Sequence[str] | None,
) -> _Frame | None:
    y = np.asarray(preferences, dtype=np.float64)
    x = np.asarray(features, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if y.ndim != 1 or x.ndim != 2 or len(x) != y.size:
        raise InputError(f"features must have one row per preference: {y.shape} preferences, {x.shape} features")
    kept = np.isfinite(y)
    if not np.all(np.isfinite(x[kept])):
        raise InputError("a feature is not finite on a row with a preference; measure it or leave the row out")
    _check_range(y[kept])
    columns = [x]
    if difficulty is not None:
        d = np.asarray(difficulty, dtype=np.float64)
        if d.shape != y.shape or not np.all(np.isfinite(d[kept])):
            raise InputError("difficulty must be one finite number per row")
        columns.append(d[:, None])
    if clusters is not None and len(clusters) != y.size:
        raise InputError(f"{len(clusters)} prompt ids for {y.size} rows; give one id per row")
    if not kept.any():
        return None
    design = np.column_stack([*columns, np.ones(y.size)])[kept]
    names = np.arange(y.size)[kept] if clusters is None else np.asarray(clusters)[kept]
    return _Frame(design, y[kept], np.unique(names, return_inverse=True)[1].astype(np.intp), x.shape[1], kept)


def _check_range(y: Array) -> None:
    if np.any((y < 0.0) | (y > 1.0)):
        raise InputError("preferences must lie in [0, 1] (P(win) + P(tie)/2), or be NaN where invalid")


def _once(frame: _Frame) -> tuple[Array]:
    """The weights that count every row once."""
    return (np.ones((1, frame.y.size)),)


def _draws(codes: _Codes, rounds: int, rng: np.random.Generator) -> Iterator[Array]:
    """How often each row is drawn in each round, a few rounds at a time: all of them are rounds times rows."""
    groups, step = int(codes.max()) + 1, 8 * _at_once(codes.size)
    for first in range(0, rounds, step):
        size = min(step, rounds - first)
        picks = rng.integers(0, groups, size=(size, groups)) + np.arange(size)[:, None] * groups
        counts = np.bincount(picks.ravel(), minlength=size * groups).reshape(size, groups)
        yield np.asarray(counts[:, codes], dtype=np.float64)


def _at_once(rows: int) -> int:
    """How many rounds are fitted at once."""
    return max(1, _BLOCK // rows)


def _rates(frame: _Frame, outcomes: Sequence[Array], draws: Iterable[Array], prior: Prior | None) -> tuple[Array, ...]:
    """For each of ``outcomes`` (rounds, 2 + features): raw rate, controlled rate and feature slopes of each draw.

    Every fit starts from the one that weighs all rows alike, two or three steps from where it ends.
    """
    size = frame.design.shape[1]
    ridge, centre = np.full(size, 1e-3), np.zeros(size)
    if prior is not None:
        ridge[0], centre[0] = 1.0 / prior.sd**2, prior.centre
    (ones,) = _once(frame)
    starts = [_fit(frame.design, y[None, :], ones, ridge, centre)[0][0] for y in outcomes]
    step, rest = _at_once(frame.y.size), frame.design[:, frame.width :]
    found: list[list[Array]] = [[] for _ in outcomes]
    for weights in draws:
        total = weights.sum(axis=1)
        blocks = [weights[first : first + step] for first in range(0, len(weights), step)]
        for y, start, own in zip(outcomes, starts, found, strict=True):
            fits = [_fit(frame.design, y[None, :], block, ridge, centre, start=start)[0] for block in blocks]
            beta = np.concatenate(fits)
            equal = logistic(beta[:, frame.width :] @ rest.T)
            rates = (weights @ y / total, (weights * equal).sum(axis=1) / total, beta[:, : frame.width])
            own.append(np.column_stack(rates))
    return tuple(np.concatenate(own) for own in found)


def _fit(
    design: Array,
    y: Array,
    weights: Array,
    ridge: Array,
    centre: Array,
    *,
    offset: Array | None = None,
    start: Array | None = None,
) -> tuple[Array, Array]:
    """Batched Newton for weighted ridge logistic regression; design (n, k) shared or (batch, n, k); returns fits,
    Hessians.
    """
    shared = design.ndim == 2
    k = design.shape[-1]
    products = (design[..., :, None] * design[..., None, :]).reshape(*design.shape[:-1], k * k)
    beta = np.tile(centre if start is None else start, (len(weights), 1))
    hessian = np.empty((len(weights), k, k))
    for _ in range(30):
        eta = beta @ design.T if shared else np.einsum("bnk,bk->bn", design, beta)
        p = logistic(eta if offset is None else eta + offset)
        residual, curve = weights * (y - p), weights * p * (1.0 - p)
        if shared:
            gradient, flat = residual @ design, curve @ products
        else:
            gradient = np.einsum("bn,bnk->bk", residual, design)
            flat = np.matmul(curve[:, None, :], products)[:, 0, :]
        hessian = flat.reshape(-1, k, k) + np.diag(ridge)
        step = np.linalg.solve(hessian, (gradient - ridge * (beta - centre))[..., None])[..., 0]
        largest = np.max(np.abs(step), axis=1, keepdims=True)
        beta = beta + step * np.minimum(1.0, 3.0 / np.maximum(largest, 1e-300))
        if largest.max() < 1e-6:  # the steps shrink quadratically: the next one would be about 1e-12
            break
    return beta, hessian


def _summary(frame: _Frame, value: Array, draws: Array, level: float, method: str) -> LengthControlled:
    groups = int(frame.codes.max()) + 1

    def estimate(centre: float, sample: Array, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
        tail = (1.0 - level) / 2.0
        low, high = np.quantile(sample, [tail, 1.0 - tail])
        return Estimate(
            value=float(np.clip(centre, *bounds)),
            low=float(np.clip(min(low, centre), *bounds)),
            high=float(np.clip(max(high, centre), *bounds)),
            level=level,
            n=frame.y.size,
            clusters=groups,
            method=method,
        )

    raw = estimate(value[0], draws[:, 0], (0.0, 1.0))
    mediated = None
    if raw.low > 0.5 or raw.high < 0.5:
        away = draws[draws[:, 0] != 0.5]
        mediated = estimate((value[0] - value[1]) / (value[0] - 0.5), (away[:, 0] - away[:, 1]) / (away[:, 0] - 0.5))
    return LengthControlled(
        raw=raw,
        controlled=estimate(value[1], draws[:, 1], (0.0, 1.0)),
        shift=estimate(value[0] - value[1], draws[:, 0] - draws[:, 1]),
        coefficients=tuple(estimate(value[2 + k], draws[:, 2 + k]) for k in range(frame.width)),
        mediated=mediated,
        n=frame.y.size,
        skipped=int(np.sum(~frame.kept)),
        method=method,
    )
