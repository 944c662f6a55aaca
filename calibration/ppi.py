"""Prediction-powered estimates: a few human labels correct what a judge said about everything.

One estimator covers the cases. For a judged frame of N pairs with judge scores f, of which n have human outcomes Y and
were drawn with known chances pi (w = 1/pi):

    theta = lambda mean_all f + sum_l w (Y - lambda f) / sum_l w

With equal chances this is PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453; their lambda is ours times 1 -
n/N), which is the regression estimator of survey sampling; with unequal ones it is active inference (Zrnic and Candes
2024, arXiv 2403.03208) in Hajek form. It is unbiased up to O(1/n) for any judge; a judge that knows nothing costs
nothing (lambda 0).

Cross-fitting (``method="cross-fit"``) replaces f by a ridge regression of Y on the judge's features, fitted without the
prompt it predicts, so that no label judges itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import Codes, Estimate, Values, normal_quantile, t_quantile
from .gold import fold_of

__all__ = [
    "Corrected",
    "Sample",
    "corrected_mean",
    "cross_fit_scores",
    "interval",
    "labels_needed",
    "ppi_estimate",
    "variance",
]

Array = npt.NDArray[np.float64]
Estimand = Literal["superpopulation", "fixed set"]
Method = Literal["cross-fit", "ppi++", "human only"]

FOLDS = 10
RIDGE = 0.02
"""Ridge penalty on the mean square scale: .005 to .1 cover alike on real gold sets, .02 is narrowest."""
FLAWLESS = 0.1
"""Where no label lies further from its prediction than this, no error of the judge has been seen."""


@dataclass(frozen=True)
class Sample:
    """Where the labels lie in the judged frame.

    ``rows`` (n) are the labelled positions, ``chances`` (n) the chance with which each was drawn, ``clusters`` (N) the
    prompt codes of the frame, ``prompts`` (N) their names. ``strata`` (N) codes are given where the draw was
    stratified. ``unit`` says whether single pairs or whole prompts were drawn.
    """

    rows: Codes
    chances: Array
    clusters: Codes
    prompts: Sequence[str] | range | Codes
    strata: Codes | None = None
    unit: Literal["pair", "prompt"] = "pair"
    weights: Array = field(init=False)

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.chances) or not ((self.chances > 0) & (self.chances <= 1 + 1e-12)).all():
            raise InputError("every label needs the chance with which its pair was drawn, above 0 and up to 1")
        if len(np.unique(self.rows)) != len(self.rows):
            raise InputError("a pair carries two labels; average its annotators first")
        object.__setattr__(self, "weights", 1 / self.chances)

    @classmethod
    def simple(cls, rows: Values, n_frame: int, *, prompts: Sequence[str] | None = None) -> Sample:
        """A simple random draw of ``rows`` out of ``n_frame`` pairs; without ``prompts`` each pair is its own."""
        at = np.asarray(rows, dtype=np.int64)
        chances = np.full(len(at), len(at) / n_frame)
        if prompts is None:
            return cls(at, chances, np.arange(n_frame), range(n_frame))
        return cls(at, chances, np.unique(np.asarray(prompts), return_inverse=True)[1].astype(np.int64), prompts)


@dataclass(frozen=True, slots=True)
class Corrected:
    """A corrected mean before it becomes an ``Estimate``: its value, influence by row, and what it was made of.

    ``labelled`` (n) and ``frame`` (N) are influences: the variance of the value is the variance of their sum.
    ``tuning`` is lambda on the scale of the module's formula. ``fitted`` is 1 where lambda cost a degree of freedom:
    out-of-fold scores leave honest residuals, and none. ``largest`` is the largest residual.
    """

    value: float
    labelled: Array
    frame: Array
    tuning: float
    fitted: int
    largest: float

    def combined(self, other: Corrected, mine: float, theirs: float, shift: float) -> Corrected:
        """``shift + mine * self + theirs * other`` on the same sample."""
        return Corrected(
            shift + mine * self.value + theirs * other.value,
            mine * self.labelled + theirs * other.labelled,
            mine * self.frame + theirs * other.frame,
            self.tuning,
            max(self.fitted, other.fitted),
            abs(mine) * self.largest + abs(theirs) * other.largest,
        )


def ppi_estimate(sample: Sample, human: Array, scores: Array, *, method: Method = "cross-fit") -> Corrected:
    """The corrected mean of ``human`` (n, for the labelled rows) given ``scores`` (N, for the frame).

    ``cross-fit`` expects out-of-fold scores (``cross_fit_scores``) and tunes lambda = cov_l(Y, f) / var_l(f) in [0, 1];
    ``ppi++`` tunes cov_l(Y, f) / ((1 + n/(N-n)) var(f)) in [0, 1] as ppi_py does, var over the whole frame with ddof 1,
    and reports it divided by 1 - n/N; ``human only`` sets lambda 0.
    """
    strata, f = _strata(sample), scores[sample.rows]
    w = sample.weights
    size = np.bincount(strata)
    share = size / len(strata)
    own = strata[sample.rows]
    total = np.bincount(own, weights=w, minlength=len(size))

    def inner(x: Array) -> Array:
        return x - (np.bincount(own, weights=w * x, minlength=len(size)) / total)[own]

    tuning = 0.0 if method == "human only" else _tuning(sample, inner(human), inner(f), scores, method)
    gap = human - tuning * f
    labelled = (share / total)[own] * w * inner(gap)
    largest = float(np.abs(inner(gap)).max(initial=0.0))
    means = np.bincount(own, weights=w * gap, minlength=len(size)) / total
    part = tuning * scores + means[strata]
    value = tuning * float(scores.mean()) + float(share @ means)
    counts = np.bincount(own, minlength=len(size))
    labelled = labelled * np.sqrt(counts / np.maximum(counts - 1, 1))[own]
    return Corrected(value, labelled, (part - value) / len(part), tuning, int(method == "ppi++"), largest)


def variance(sample: Sample, corrected: Corrected, estimand: Estimand) -> tuple[float, float, int]:
    """Variance of a corrected mean, the part of it that more labels would shrink, and the degrees of freedom.

    Fixed set (the mean over exactly these N pairs): sum (1 - pi) a^2 over the drawn units. Superpopulation (prompts
    like these): sum over prompts of (a + b)^2, labelled and frame influence together. Degrees of freedom are the
    labelled units or prompts less one, and one more for a lambda tuned on the scores as they are, with the factor
    G/(G-1) to match.
    """
    rows = sample.clusters[sample.rows]
    by_prompt = estimand == "superpopulation" or sample.unit == "prompt"
    units = np.unique(rows, return_inverse=True)[1] if by_prompt else np.arange(len(rows))
    count = int(units.max()) + 1
    df = max(count - 1 - corrected.fitted, 1)
    # The influences carry n/(n-1) by rows; with clusters the correction is by cluster.
    scale = (count - 1) / df * (count / (count - 1) * (len(rows) - 1) / len(rows) if count < len(rows) else 1.0)
    sums = np.bincount(units, weights=corrected.labelled)
    shrinks = float(scale * (sums @ sums))
    if estimand == "fixed set":
        chance = np.zeros(count)
        chance[units] = sample.chances
        return float(scale * ((1 - np.minimum(chance, 1.0)) @ sums**2)), shrinks, df
    size = int(sample.clusters.max()) + 1
    both = math.sqrt(scale) * np.bincount(rows, weights=corrected.labelled, minlength=size)
    both = both + math.sqrt(size / max(size - 1, 1)) * np.bincount(
        sample.clusters, weights=corrected.frame, minlength=size
    )
    return float(both @ both), shrinks, df


def interval(
    sample: Sample,
    corrected: Corrected,
    *,
    estimand: Estimand,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
    method: str = "",
) -> Estimate:
    """The corrected mean with a Student's t interval on the logit scale of ``bounds``, which never leaves them.

    Where no label contradicts its prediction (``FLAWLESS``: a perfect judge, or labels all equal) the rule of three on
    the number of labels is added: n flawless labels do not make a flawless judge.
    """
    total, _, df = variance(sample, corrected, estimand)
    n = len(sample.rows)
    low, high = bounds
    half = t_quantile(level, df) * math.sqrt(max(total, 0.0))
    value = min(max(corrected.value, low), high)
    name = f"{method or 'prediction-powered'}, {estimand}, t with {df} df"
    room = (value - low) * (high - value) / (high - low)
    if corrected.largest <= FLAWLESS * (high - low):
        rest = 1 - ((1 - level) / 2) ** (1 / n)
        if estimand == "fixed set":
            rest *= 1 - float(np.mean(sample.chances))
        reach = math.hypot(half, rest * (high - low))
        edges = (max(low, value - reach), min(high, value + reach))
        name += ", rule of three on the labels"
    elif room <= 0:
        edges = (max(low, corrected.value - half), min(high, corrected.value + half))
    else:
        centre = math.log((value - low) / (high - value))
        reach = half / room
        edges = (_expit(centre - reach, low, high), _expit(centre + reach, low, high))
    clusters = len(np.unique(sample.clusters[sample.rows]))
    return Estimate(value, min(edges[0], value), max(edges[1], value), level, n, clusters, name)


def cross_fit_scores(sample: Sample, human: Array, features: Array, *, seed: int = 0, folds: int = FOLDS) -> Array:
    """Predicted human outcomes for the frame: labelled rows by folds without their prompt, others by the mean of all.

    Weighted ridge regression with a free intercept, features centred and penalised by ``RIDGE`` on the mean square
    scale. Folds hold whole prompts and follow a seeded hash, so the order of rows is nothing.
    """
    names = [str(sample.prompts[k]) for k in sample.rows]
    parts = max(2, min(folds, len(set(names))))
    fold = np.array(fold_of(names, parts, seed=seed))
    own = features[sample.rows]
    kept = np.empty(len(human))
    slopes, start = np.zeros(features.shape[1]), 0.0
    for part in range(parts):
        train, test = fold != part, fold == part
        slope, cut = _ridge(own[train], human[train], sample.weights[train])
        kept[test] = own[test] @ slope + cut
        slopes, start = slopes + slope / parts, start + cut / parts
    scores = features @ slopes + start
    scores[sample.rows] = kept
    return np.asarray(scores)


def corrected_mean(
    human: Values,
    judged: Values,
    rest: Values,
    *,
    level: float = 0.95,
    estimand: Estimand = "superpopulation",
    method: Method = "ppi++",
) -> Estimate:
    """PPI++ on plain lists: outcomes and scores of the labelled, scores of the unlabelled, every row its own prompt.

    On the reference data of ppi_py (20 labels, 200 others) the value is .617030 with their lambda .681182; the interval
    is wider than theirs, by ddof and Student's t. Raises ``InputError`` for lists of unequal length or values outside
    [0, 1].
    """
    y, f, u = (np.asarray(values, dtype=float) for values in (human, judged, rest))
    if len(y) != len(f) or len(y) < 3:
        raise InputError(f"corrected_mean needs one score for each of at least 3 labels, not {len(f)} for {len(y)}")
    if not all(((x >= 0) & (x <= 1)).all() for x in (y, f, u)):
        raise InputError("outcomes and scores must be numbers from 0 to 1")
    scores = np.concatenate([f, u])
    sample = Sample.simple(np.arange(len(y)), len(scores))
    if method == "cross-fit":
        scores = cross_fit_scores(sample, y, scores[:, None] - 0.5)
    return interval(
        sample, ppi_estimate(sample, y, scores, method=method), estimand=estimand, level=level, method=method
    )


def labels_needed(
    sample: Sample, corrected: Corrected, half_width: float, *, estimand: Estimand, level: float = 0.95
) -> int | None:
    """Labels in all for an interval of +- ``half_width`` with this judge on this frame; ``None`` if none suffice.

    Solves variance(n') = (half_width / z)^2 with the labelled part falling as 1/n' and the rest staying; for the fixed
    set the labelled part is (1/n' - 1/N). At least 30, and ``None`` above N: a pair is labelled once, so more pairs
    must be judged first.
    """
    total, shrinks, _ = variance(sample, corrected, estimand)
    n, target = len(sample.rows), (half_width / normal_quantile(level)) ** 2
    size = len(sample.clusters)
    if estimand == "fixed set":
        needed = 1 / (target / max(n * shrinks, 1e-30) + 1 / size)
    else:
        room = target - max(total - shrinks, 0.0)
        needed = n * shrinks / room if room > 0 else math.inf
    return max(30, math.ceil(needed)) if max(30.0, needed) <= size else None


def _expit(x: float, low: float, high: float) -> float:
    return low + (high - low) / (1 + math.exp(-min(max(x, -700.0), 700.0)))


def _tuning(sample: Sample, y: Array, f: Array, scores: Array, method: Method) -> float:
    """Lambda from residuals ``y`` and ``f`` within strata."""
    w = sample.weights / sample.weights.sum()
    cov, var = float((w * y) @ f), float((w * f) @ f)
    if method == "ppi++":
        n, size = len(y), len(scores)
        spread = float(np.var(scores, ddof=1))
        if spread <= 1e-24 or size == n:
            return 0.0
        return min(max(cov / ((1 + n / (size - n)) * spread), 0.0), 1.0) / (1 - n / size)
    return min(max(cov / var, 0.0), 1.0) if var > 1e-24 else 0.0


def _ridge(x: Array, y: Array, w: Array) -> tuple[Array, float]:
    w = w / w.sum()
    x_bar, y_bar = w @ x, float(w @ y)
    centred = x - x_bar
    gram = (centred * w[:, None]).T @ centred + RIDGE * np.eye(x.shape[1])
    slope: Array = np.linalg.solve(gram, centred.T @ (w * (y - y_bar))).astype(np.float64)
    return slope, y_bar - float(x_bar @ slope)


def _strata(sample: Sample) -> Codes:
    """Stratum codes 0..K-1 of the frame, each with at least two labels: thinner ones are joined."""
    if sample.strata is None:
        return np.zeros(len(sample.clusters), dtype=np.int64)
    codes = np.unique(sample.strata, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(codes[sample.rows], minlength=int(codes.max()) + 1)
    thin = counts < 2
    if thin.any():
        big = int(np.argmax(counts))
        home = int(np.flatnonzero(thin)[0]) if counts[thin].sum() >= 2 else big
        codes = np.where(thin[codes], home, codes)
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)
