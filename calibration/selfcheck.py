"""The report checks its own promise: how often would this estimator, at these very sizes, hold the truth?

A 95% interval covers 95% only as far as its assumptions reach: enough labels, enough prompts, no outcome too rare. The
self-check builds a population like the run, whose win rate it therefore knows, draws labels from it by the design that
drew the real ones, sends them through ``winrate.headline`` (the code that made the reported figure, not a copy), and
counts. It is a parametric bootstrap of coverage (Beran 1987; Loh 1987): it speaks of the interval, not of the judge.

The population keeps the judged frame as it is: pairs, preferences, lengths, missing verdicts, prompts, strata. Only
human outcomes are made up, from a model fitted to the labels:

    E[Y | x] = logistic(b0 + b x), x the estimator's own features (and the strata, where the draw had them), fitted by
    weighted ridge maximum likelihood (``PRIOR``) with half a pseudo-label at each end, so that an outcome which no
    label showed is rare, not impossible;
    P(Y = y | x) proportional to b(y) exp(t y), t such that the mean is that (the proportional likelihood ratio model,
    Luo and Tsai 2012), which keeps ties and split votes as frequent as they were;
    outcomes of one prompt joined by a Gaussian copula with the residual correlation seen between its labels.

For the superpopulation whole prompts are redrawn with replacement in every round and outcomes are drawn anew for every
copy. The plain bootstrap copies labelled pairs with their outcomes instead. Copies of one label then stand on both
sides of the cross-fitting folds, where they predict each other, and prompts of which only a part is labelled fall
apart. Measured against worlds of known truth (``benchmarks/self_check.py``; true coverage, what this check says on
average over runs, what copies say; full widths in brackets):

    30 labels, soft judge                    .963 (.296)    .965 (.285)    .954 (.280)
    30 labels, judge wrong on 6%             .971 (.211)    .972 (.229)    .960 (.213)
    100 labels on 40 very uneven prompts     .927 (.355)    .918 (.353)    .955 (.185)
    40 whole prompts of 4 pairs              .953 (.143)    .956 (.144)    .957 (.112)
    30 labels, nearly bare active draw       .809 (.419)    .802 (.369)    .778 (.339)

What it cannot see: an error of the judge that no label shows and the features cannot carry, labels that were not drawn
as they say, raters who err together. Good coverage here is necessary, not sufficient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import logistic
from .estimates import Codes, Estimate, clopper_pearson, mean
from .gold import GoldSet
from .ppi import Estimand, Method, Sample
from .provenance import Joined, JudgedRun, Refused, join
from .winrate import Frame, headline

__all__ = ["SelfCheck", "self_check"]

Array = npt.NDArray[np.float64]
Design = Literal["random", "stratified", "unequal chances", "whole prompts", "everything"]

PRIOR = 0.25
"""Ridge precision of each standardised coefficient of the outcome model: one prior standard deviation is 2 logits."""
_STEPS = 50
_TILT = 60.0


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What the estimator did in simulated runs of this size, and the population it was tried on.

    ``coverage`` is the share of rounds whose interval held the simulated truth, with a Clopper-Pearson interval over
    the rounds; ``width`` and ``human_width`` the mean full widths of the corrected interval and of the labels alone on
    the same draws, ``bias`` the mean of estimate minus truth, all ``None`` where every round was refused. ``level`` is
    what the interval promises. ``rounds`` were simulated, in ``refused`` of them the estimator gave no interval; those
    count in no other figure. ``rho`` (judge and human outcome), ``ties`` (outcomes of exactly one half) and ``within``
    (residual correlation of two outcomes of one prompt) describe the population. ``sentence`` says it in words.
    """

    coverage: Estimate | None
    width: Estimate | None
    human_width: Estimate | None
    bias: Estimate | None
    level: float
    rounds: int
    refused: int
    labels: int
    pairs: int
    prompts: int
    design: Design
    estimand: Estimand
    method: Method
    rho: float | None
    ties: float
    within: float
    sentence: str
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool | None:
        """Whether the measured coverage is compatible with the promised level or above it; ``None`` without rounds."""
        return None if self.coverage is None else self.coverage.high >= self.level


def self_check(
    run: JudgedRun,
    gold: GoldSet,
    *,
    estimand: Estimand = "superpopulation",
    method: Method = "cross-fit",
    level: float = 0.95,
    rounds: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> SelfCheck | Refused:
    """Measured coverage of ``win_rate`` with these arguments at the sizes of this run and these labels.

    ``progress`` is called with (rounds done, rounds) after every round. 400 rounds tell 95% from 91%. Returns the
    refusal of ``win_rate`` where that refuses the labels themselves. Raises ``InputError`` for no rounds or a level
    outside (0, 1).

    Example: ``self_check(run, gold, estimand="fixed set").sentence``.
    """
    if rounds < 1 or not 0 < level < 1:
        raise InputError(f"the self-check needs a round or more and a level between 0 and 1, not {rounds} and {level}")
    joined = join(run, gold)
    if isinstance(joined, Refused):
        return joined
    frame = Frame.of(run)
    first = headline(frame, joined.sample, joined.value, estimand=estimand, method=method, level=level, seed=seed)
    if isinstance(first.corrected, Refused):
        return first.corrected
    world = _World.like(frame, joined, estimand)
    rng = np.random.default_rng(seed)
    found: list[tuple[Estimate, float, float]] = []
    for k in range(rounds):
        trial, truth = world.trial(rng)
        shown = headline(
            trial.frame, trial.sample, trial.human, estimand=estimand, method=method, level=level, seed=seed + k
        )
        if isinstance(shown.corrected, Estimate) and shown.human is not None:
            found.append((shown.corrected, shown.human.high - shown.human.low, truth))
        if progress is not None:
            progress(k + 1, rounds)
    return _report(world, found, rounds=rounds, level=level, estimand=estimand, method=method)


@dataclass(frozen=True, eq=False)
class _Trial:
    """One simulated run: its frame, where its labels lie, and what they say."""

    frame: Frame
    sample: Sample
    human: Array


@dataclass(frozen=True, eq=False)
class _World:
    """A population like the run: its frame, who is drawn how, and the law of the human outcomes.

    ``means`` (N) is E[Y | x]; ``edges`` (N, K-1) the normal quantiles that separate the K values of ``support``.
    ``latent`` is the correlation of normal luck that gives residuals the correlation ``within``. ``chances`` (N) are
    given where pairs were drawn with unequal chances.
    """

    frame: Frame
    sample: Sample
    resampled: bool
    means: Array
    edges: Array
    support: Array
    within: float
    latent: float
    chances: Array | None
    ties: float
    rho: float | None
    notes: tuple[str, ...]

    @classmethod
    def like(cls, frame: Frame, joined: Joined, estimand: Estimand) -> _World:
        """The population fitted to these labels."""
        from scipy.special import ndtri

        sample, y = joined.sample, joined.value
        means = _means(frame, sample, y)
        support, where = np.unique(np.round(np.concatenate([y, [0.0, 1.0]]), 9), return_inverse=True)
        weights = np.concatenate([sample.weights * len(y) / sample.weights.sum(), [0.5, 0.5]])
        law = _law(support, np.bincount(where, weights=weights).astype(np.float64), means, sample)
        edges = ndtri(np.clip(np.cumsum(law, axis=1)[:, :-1], 1e-12, 1 - 1e-12))
        residual = y - means[sample.rows]
        spread = law @ support**2 - means**2
        notes = []
        if len(np.unique(y)) == 1:
            notes.append(f"every label is {y[0]:g}: the simulated outcomes which differ are a guess, not a finding")
        within = _within(residual, spread[sample.rows], sample.clusters[sample.rows])
        f = frame.soft
        total = float(np.sqrt((spread.mean() + means.var()) * f.var()))
        return cls(
            frame=frame,
            sample=sample,
            resampled=estimand == "superpopulation",
            means=means,
            edges=edges,
            support=support,
            within=within,
            latent=_latent(within, support, edges, spread),
            chances=_chances(frame, sample),
            ties=float(law[:, support == 0.5].sum(axis=1).mean()),
            rho=float(np.mean((means - means.mean()) * (f - f.mean()))) / total if total > 1e-12 else None,
            notes=tuple(notes),
        )

    @property
    def design(self) -> Design:
        """How the labels were drawn, and are redrawn."""
        if len(self.sample.rows) == len(self.means):
            return "everything"
        if self.sample.unit == "prompt":
            return "whole prompts"
        if self.sample.strata is not None:
            return "stratified"
        return "random" if self.chances is None else "unequal chances"

    def trial(self, rng: np.random.Generator) -> tuple[_Trial, float]:
        """One run and its labels, and the win rate that a perfect interval would hold."""
        rows, clusters = np.arange(len(self.means)), self.sample.clusters
        if self.resampled:
            rows, clusters = _redrawn(clusters, rng)
        strata = None if self.sample.strata is None else self.sample.strata[rows]
        at, chances = self._labelled(rows, clusters, strata, rng)
        # A frame of its own truth needs every outcome; a superpopulation only those that are labelled.
        everyone = np.arange(len(rows)) if not self.resampled else at
        outcomes = self._outcomes(rows[everyone], clusters[everyone], rng)
        if self.resampled:
            human, truth = outcomes, float(self.means.mean())
        else:
            human, truth = outcomes[at], float(outcomes.mean())
        sample = Sample(at, chances, clusters, clusters, strata, self.sample.unit)
        return _Trial(self.frame.take(rows) if self.resampled else self.frame, sample, human), truth

    def _outcomes(self, rows: Codes, clusters: Codes, rng: np.random.Generator) -> Array:
        """Human outcomes of these rows; equal ``clusters`` share a part of their luck."""
        luck = rng.standard_normal(len(rows))
        if self.within > 0:
            shared = rng.standard_normal(int(clusters.max()) + 1)[clusters]
            luck = np.sqrt(self.latent) * shared + np.sqrt(1 - self.latent) * luck
        return np.asarray(self.support[(luck[:, None] > self.edges[rows]).sum(axis=1)])

    def _labelled(
        self, rows: Codes, clusters: Codes, strata: Codes | None, rng: np.random.Generator
    ) -> tuple[Codes, Array]:
        """Places to label and their chances, by the design of the real draw and as many."""
        size, n = len(rows), len(self.sample.rows)
        if self.design == "everything":
            return np.arange(size), np.ones(size)
        if self.design == "whole prompts":
            prompts = len(np.unique(self.sample.clusters[self.sample.rows]))
            picked = np.isin(clusters, rng.permutation(int(clusters.max()) + 1)[:prompts])
            at = np.flatnonzero(picked)
            return at, np.full(len(at), len(at) / size)
        if self.chances is not None:
            return _systematic(self.chances[rows], min(n, size), rng)
        if strata is None or self.sample.strata is None:
            at = np.sort(rng.permutation(size)[:n])
            return at, np.full(len(at), len(at) / size)
        wanted = np.bincount(self.sample.strata[self.sample.rows], minlength=int(self.sample.strata.max()) + 1)
        sizes = np.bincount(strata, minlength=len(wanted))
        taken = np.minimum(wanted, sizes)
        order = np.lexsort((rng.random(size), strata))
        rank = np.arange(size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        at = np.sort(order[rank < taken[strata[order]]])
        return at, (taken / np.maximum(sizes, 1))[strata[at]]


def _means(frame: Frame, sample: Sample, y: Array) -> Array:
    """E[Y | x] for every pair: weighted ridge logistic regression with half a pseudo-label at 0 and at 1.

    Where prompts have several pairs their mean features come in too (Mundlak 1978): what the judge says about one pair
    of a prompt then tells about the others, as it does in the labels.
    """
    x = frame.features
    sizes = np.bincount(sample.clusters)
    if sizes.max() > 1:
        means = [np.bincount(sample.clusters, weights=column) / np.maximum(sizes, 1) for column in x.T]
        x = np.column_stack([x, *(column[sample.clusters] for column in means)])
    if sample.strata is not None:
        x = np.column_stack([x, np.eye(int(sample.strata.max()) + 1)[sample.strata]])
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    x = np.column_stack([np.ones(len(x)), x])
    own = np.vstack([x[sample.rows], np.eye(2, x.shape[1])[[0, 0]]])
    target = np.concatenate([y, [0.0, 1.0]])
    w = np.concatenate([sample.weights * len(y) / sample.weights.sum(), [0.5, 0.5]])
    prior = PRIOR * np.eye(x.shape[1])
    prior[0, 0] = 0.0
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        p = logistic(own @ beta)
        step = np.linalg.solve(
            (own * (w * p * (1 - p))[:, None]).T @ own + prior, own.T @ (w * (target - p)) - prior @ beta
        )
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    return np.asarray(np.clip(logistic(x @ beta), 1e-6, 1 - 1e-6))


def _law(support: Array, counts: Array, means: Array, sample: Sample) -> Array:
    """P(Y = y | x) by pair, shape (N, K): b(y) exp(t y) with the fitted mean, b such that labels are met as seen.

    b is scaled until the law's average over the labelled pairs is the labels' own distribution, which is the likelihood
    equation of b: tilting alone would thin out the ties, which lie in the middle.
    """
    seen, base = counts / counts.sum(), counts / counts.sum()
    own, w = means[sample.rows], sample.weights / sample.weights.sum()
    for _ in range(_STEPS):
        got = w @ _tilted(support, base, own)
        base = base * seen / np.maximum(got, 1e-12)
        base = base / base.sum()
        if float(np.abs(got - seen).max()) < 1e-4:
            break
    return _tilted(support, base, means)


def _tilted(support: Array, base: Array, means: Array) -> Array:
    """Probabilities in proportion to base(y) exp(t y), with t such that the mean is as wanted; shape (N, K)."""
    grid = np.linspace(-_TILT, _TILT, 2001)
    tilt = np.log(base)[None, :] + grid[:, None] * support
    tilt = np.exp(tilt - tilt.max(axis=1, keepdims=True))
    t = np.interp(means, (tilt @ support) / tilt.sum(axis=1), grid)
    out = np.log(base)[None, :] + t[:, None] * support
    out = np.exp(out - out.max(axis=1, keepdims=True))
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _within(residual: Array, spread: Array, clusters: Codes) -> float:
    """Correlation of two residuals of one prompt, held to 0..0.9: the analysis-of-variance estimator (Donner 1986).

    (MSB - MSW) / (MSB + (c0 - 1) MSW) with c0 = (n - sum c_g^2 / n) / (G - 1). Below ten degrees of freedom inside
    prompts it is 0: too few to tell it from noise, and too few to matter.
    """
    e = residual / np.sqrt(np.maximum(spread, 1e-12))
    codes = np.unique(clusters, return_inverse=True)[1]
    size = np.bincount(codes).astype(float)
    n, groups = len(e), len(size)
    if n - groups < 10 or groups < 2:
        return 0.0
    centres = np.bincount(codes, weights=e) / size
    inside = float(((e - centres[codes]) ** 2).sum()) / (n - groups)
    between = float(size @ (centres - e.mean()) ** 2) / (groups - 1)
    typical = (n - float(size @ size) / n) / (groups - 1)
    return min(max((between - inside) / max(between + (typical - 1) * inside, 1e-12), 0.0), 0.9)


def _latent(within: float, support: Array, edges: Array, spread: Array) -> float:
    """Correlation of normal luck under which residuals correlate by ``within``.

    To first order a residual keeps corr(Y, luck) = sum_k (y_{k+1} - y_k) phi(edge_k) / sd(Y) of it, two of them its
    square a; the sine makes it exact for even odds, where a is 2/pi.
    """
    slope = np.exp(-(edges**2) / 2) @ np.diff(support) / np.sqrt(2 * np.pi * np.maximum(spread, 1e-12))
    scaled = within * (2 / np.pi) / max(float(slope.mean()) ** 2, 1e-12)
    return min(float(np.sin(np.pi / 2 * min(scaled, 1.0))), 0.95)


def _chances(frame: Frame, sample: Sample) -> Array | None:
    """The chance of every pair where chances differ; ``None`` where they are equal or follow the strata.

    Only those of labelled pairs are stored. Chances of an active draw are a line in the judge's uncertainty, so where a
    line in the preference and its distance from one half fits them (R^2 above .99) the others lie on it; elsewhere each
    has that of the labelled pair with the nearest preference.
    """
    if sample.strata is not None or np.ptp(sample.chances) < 1e-12:
        return None
    score = frame.soft - 0.5
    x = np.column_stack([np.ones(len(score)), score, np.abs(score)])
    slope, *_ = np.linalg.lstsq(x[sample.rows], sample.chances, rcond=None)
    line = np.clip(x @ slope, 0.1 * sample.chances.min(), 1.0)
    chances = line
    if float(((line[sample.rows] - sample.chances) ** 2).sum()) > 0.01 * len(sample.rows) * float(sample.chances.var()):
        order = np.argsort(score[sample.rows], kind="stable")
        place, own = score[sample.rows][order], sample.chances[order]
        after = np.clip(np.searchsorted(place, score), 1, len(order) - 1)
        nearer = score - place[after - 1] < place[after] - score
        chances = np.where(nearer, own[after - 1], own[after])
    chances[sample.rows] = sample.chances
    return np.asarray(chances, dtype=float)


def _redrawn(clusters: Codes, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Rows of as many prompts drawn with replacement, and the new prompt of each row."""
    sizes = np.bincount(clusters)
    order = np.argsort(clusters, kind="stable")
    starts = np.cumsum(sizes) - sizes
    picked = rng.integers(0, len(sizes), len(sizes))
    taken = sizes[picked]
    fresh = np.repeat(np.arange(len(picked)), taken)
    inside = np.arange(len(fresh)) - np.repeat(np.cumsum(taken) - taken, taken)
    return order[starts[picked][fresh] + inside], fresh


def _systematic(chances: Array, n: int, rng: np.random.Generator) -> tuple[Codes, Array]:
    """Exactly ``n`` rows, each with a chance in proportion to its own, capped at 1 (Madow 1949, random order)."""
    full = np.zeros(len(chances), dtype=bool)
    for _ in range(len(chances)):
        scaled = np.where(full, 1.0, chances * ((n - full.sum()) / max(chances[~full].sum(), 1e-300)))
        if not (scaled[~full] > 1).any():
            break
        full |= scaled >= 1
    order = rng.permutation(len(chances))
    ends = np.cumsum(np.minimum(scaled, 1.0)[order])
    at = np.sort(order[np.minimum(np.searchsorted(ends, np.arange(n) + rng.random(), side="right"), len(ends) - 1)])
    return at, np.minimum(scaled, 1.0)[at]


def _report(
    world: _World,
    found: list[tuple[Estimate, float, float]],
    *,
    rounds: int,
    level: float,
    estimand: Estimand,
    method: Method,
) -> SelfCheck:
    count = len(found)
    # Where every pair is labelled the fixed set is known, up to the last digits of a float.
    hits = sum(shown.low - 1e-9 <= truth <= shown.high + 1e-9 for shown, _, truth in found)
    coverage = None
    if count:
        low, high = clopper_pearson(hits, count)
        coverage = Estimate(hits / count, low, high, 0.95, count, count, "simulated rounds, Clopper-Pearson")
    n, size = len(world.sample.rows), len(world.means)
    return SelfCheck(
        coverage=coverage,
        width=mean([shown.high - shown.low for shown, _, _ in found], bounds=(0.0, 1.0)),
        human_width=mean([alone for _, alone, _ in found], bounds=(0.0, 1.0)),
        bias=mean([shown.value - truth for shown, _, truth in found], bounds=(-1.0, 1.0)),
        level=level,
        rounds=rounds,
        refused=rounds - count,
        labels=n,
        pairs=size,
        prompts=int(world.sample.clusters.max()) + 1,
        design=world.design,
        estimand=estimand,
        method=method,
        rho=world.rho,
        ties=world.ties,
        within=world.within,
        sentence=_sentence(coverage, level=level, sizes=(n, size), lost=rounds - count),
        notes=world.notes,
    )


def _sentence(coverage: Estimate | None, *, level: float, sizes: tuple[int, int], lost: int) -> str:
    of = f"simulated runs with {sizes[0]} labels of {sizes[1]} pairs"
    if coverage is None:
        return f"In all {lost} {of} the estimator gave no interval: nothing was measured."
    said = (
        f"In {coverage.n} {of} the {level:.0%} interval held the true win rate in {coverage.value:.1%} "
        f"[{coverage.low:.1%}, {coverage.high:.1%}]"
    )
    if coverage.high < level:
        said += ": fewer than promised, so read the interval as too narrow."
    elif coverage.low > level:
        said += ": more than promised, so the interval is wider than it need be."
    else:
        said += ", as promised."
    return said + (f" In {lost} more it gave no interval." if lost else "")
