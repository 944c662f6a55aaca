"""Judge only where the judge can be trusted, with a guarantee; send the rest to people.

A threshold picked because its accuracy looked good breaks its promise in half of all runs. Here a threshold is
certified: with probability 1 - delta over the gold draw, P(judge leans one way, people the other | confidence >=
threshold) <= alpha.

Method: Learn-then-Test with a fixed sequence (Angelopoulos et al. 2021, arXiv 2110.01052; for judges: Jung, Brahman,
Choi 2024, arXiv 2407.18370). At most ten thresholds fixed before the labels are looked at are tested from strict to lax
with the exact binomial bound R+ = BetaInv(1 - delta; k + 1, n - k); the last one before the first failure is certified.
Where even the first fails, nothing is certified and every pair is abstained on. A cascade of m judges spends delta / m
on each.

Assumptions: gold drawn at random from what will be judged, every row with the same chance (``equal_chance`` thins a
draw with unequal ones until that holds: the binomial bound knows no weights), one row per prompt (more are thinned to
one, drawn by seed), the same judge and rubric. An error is a preference on one side of 1/2 where the mean of the
people's labels is on the other; where either is even nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import Estimate, share

__all__ = [
    "Certificate",
    "Step",
    "cascade",
    "certify",
    "cheapest_threshold",
    "equal_chance",
    "errors",
    "risk_bound",
    "zero_error_need",
]

Array = npt.NDArray[np.float64]
MOST_THRESHOLDS = 10
"""More candidates would be tested on ever thinner slices; ten lose little and keep the sequence fixed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One tested threshold: gold rows at or above it, errors among them, the upper bound R+, and whether it held."""

    threshold: float
    n: int
    errors: int
    bound: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was certified, and on what evidence.

    ``threshold`` is ``None`` where nothing is certified: then the judge abstains on everything. ``coverage`` is the
    share of gold at or above the threshold; ``risk`` the error rate there with upper limit R+ (one-sided, level 1 -
    delta); both ``None`` without a threshold. ``needed`` is about how many gold labels would certify ``alpha`` at the
    best candidate if the error rates seen are the true ones (``None`` where no number would, or it is certified
    already). ``n`` counts the gold rows used, ``thinned`` those left out because their prompt was drawn already,
    ``steps`` the thresholds tested.
    """

    alpha: float
    delta: float
    threshold: float | None
    coverage: Estimate | None
    risk: Estimate | None
    n: int
    thinned: int
    needed: int | None
    steps: tuple[Step, ...]

    def accepts(self, confidence: float | None) -> bool:
        """Whether a judgement of this confidence may stand; an invalid one (``None`` or NaN) never does."""
        return self.threshold is not None and confidence is not None and confidence >= self.threshold

    def abstained(self, ids: Sequence[str], confidences: Sequence[float | None]) -> tuple[str, ...]:
        """Ids for the label queue, least confident first, invalid ones before all.

        All of them are labelled, so their labels re-enter an estimate with draw probability 1; accepted pairs enter
        with the probability of their audit sample (inverse probability weighting).
        """
        if len(ids) != len(confidences):
            raise InputError(f"{len(ids)} ids for {len(confidences)} confidences; give one confidence per id")
        left = [
            (-1.0 if c is None or math.isnan(c) else c, i)
            for i, c in zip(ids, confidences, strict=True)
            if not self.accepts(c)
        ]
        return tuple(i for _, i in sorted(left))

    def __str__(self) -> str:
        if self.threshold is not None and self.coverage is not None and self.risk is not None:
            return (
                f"certified: at confidence >= {self.threshold:.3f} at most {self.alpha:.0%} oppose the human "
                f"(observed {self.risk.value:.1%}, bound {self.risk.high:.1%}, {1 - self.delta:.0%} confidence, "
                f"{self.coverage.value:.0%} of pairs, n = {self.n})"
            )
        more = f"need about {self.needed} labels" if self.needed is not None else "at these error rates no number would"
        return f"cannot certify {self.alpha:.0%} with {self.n} labels; {more}"


def errors(preferences: Sequence[float] | Array, outcomes: Sequence[float] | Array) -> Array:
    """1 where the judge leans one way and the human the other, else 0: ties of either side are harmless."""
    p, y = np.asarray(preferences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    return np.asarray((p - 0.5) * (y - 0.5) < 0.0, dtype=np.float64)


def equal_chance(chances: Sequence[float] | Array, *, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which rows to keep so that each had the same chance to be here: all of them where the draw was equal already.

    A row drawn with chance pi is kept with chance min(pi) / pi (rejection, seeded), whatever its label, so what is left
    is a random draw with chance min(pi) for every pair. Raises ``InputError`` for a chance outside (0, 1].
    """
    pi = np.asarray(chances, dtype=np.float64)
    if not ((pi > 0.0) & (pi <= 1.0 + 1e-12)).all():
        raise InputError("every row needs the chance with which it was drawn, above 0 and up to 1")
    if pi.size == 0 or np.allclose(pi, pi[0], rtol=1e-9, atol=0.0):
        return np.ones(pi.size, dtype=bool)
    return np.asarray(np.random.default_rng(seed).random(pi.size) < pi.min() / pi)


def risk_bound(mistakes: int, n: int, delta: float) -> float:
    """Exact upper bound on an error rate: sup of r with P(Binomial(n, r) <= mistakes) >= delta; 1 for n = 0."""
    from scipy.special import betaincinv

    if n <= 0 or mistakes >= n:
        return 1.0
    return float(betaincinv(mistakes + 1, n - mistakes, 1.0 - delta))


def zero_error_need(alpha: float, delta: float) -> int:
    """Rows without a single error that prove ``alpha``: ceil(ln(1/delta) / -ln(1 - alpha))."""
    _check(alpha, delta)
    return math.ceil(math.log(1.0 / delta) / -math.log1p(-alpha))


def certify(
    confidences: Sequence[float] | Array,
    mistakes: Sequence[float] | Array,
    *,
    alpha: float = 0.1,
    delta: float = 0.1,
    thresholds: Sequence[float] | None = None,
    clusters: Sequence[str] | None = None,
    seed: int = 0,
) -> Certificate:
    """Certify the lowest threshold whose accepted judgements err at most ``alpha``, with probability 1 - ``delta``.

    ``confidences`` and ``mistakes`` (0 or 1, see ``errors``) are one per gold row. ``thresholds`` (at most ten) must
    have been fixed without looking at the labels; the default takes evenly spaced quantiles of the confidences
    themselves, beginning where three times ``zero_error_need`` rows (or a tenth of all) are left. An empty gold set
    certifies nothing and needs labels.

    Raises ``InputError`` for NaN, mistakes other than 0 and 1, or more than ten thresholds.
    """
    _check(alpha, delta)
    c, e = _validated(confidences, mistakes)
    rows = _one_per_cluster(clusters, c.size, seed)
    c, e = c[rows], e[rows]
    fixed = None if thresholds is None else np.unique(np.asarray(thresholds, dtype=np.float64))[::-1]
    chosen = _thresholds(c, alpha, delta) if fixed is None else fixed
    if chosen.size > MOST_THRESHOLDS or not np.all(np.isfinite(chosen)):
        raise InputError(f"thresholds must be at most {MOST_THRESHOLDS} finite numbers; got {chosen.size}")
    steps: list[Step] = []
    best: Step | None = None
    for threshold in chosen:
        step = _step(float(threshold), c, e, alpha, delta)
        steps.append(step)
        if not step.passed:
            break
        best = step
    all_steps = [_step(float(threshold), c, e, alpha, delta) for threshold in chosen]
    return Certificate(
        alpha=alpha,
        delta=delta,
        threshold=None if best is None else best.threshold,
        coverage=None if best is None else share((c >= best.threshold).tolist()),
        risk=None if best is None else _risk(best, delta),
        n=c.size,
        thinned=len(confidences) - c.size,
        needed=None if best is not None else _needed(all_steps, c.size, alpha, delta),
        steps=tuple(steps),
    )


def cascade(
    confidences: Sequence[Sequence[float]],
    mistakes: Sequence[Sequence[float]],
    *,
    alpha: float = 0.1,
    delta: float = 0.1,
    seed: int = 0,
) -> tuple[Certificate, ...]:
    """One certificate per judge of a cascade, cheapest judge first; judge k sees only what judges before it left.

    ``confidences[k]`` and ``mistakes[k]`` are judge k's on the same gold rows. Each judge spends delta / m, so all
    guarantees hold together with probability 1 - ``delta`` (union bound), and so does the error of the whole cascade.
    Thresholds of a later judge are chosen on the rows that reach it, from confidences only. Which rows reach it was
    decided on the same labels, as in the published procedure; certify the judges on disjoint gold where that must be
    exact.
    """
    if len(confidences) != len(mistakes) or not confidences:
        raise InputError("a cascade needs one list of confidences and one of mistakes per judge, at least one judge")
    left = np.ones(len(confidences[0]), dtype=bool)
    certificates = []
    for own, wrong in zip(confidences, mistakes, strict=True):
        c, e = _validated(own, wrong)
        if c.size != left.size:
            raise InputError(f"every judge of a cascade needs the same gold rows: {left.size}, got {c.size}")
        certificate = certify(c[left], e[left], alpha=alpha, delta=delta / len(confidences), seed=seed)
        certificates.append(certificate)
        if certificate.threshold is not None:
            left &= c < certificate.threshold
    return tuple(certificates)


def cheapest_threshold(
    confidences: Sequence[float] | Array,
    mistakes: Sequence[float] | Array,
    *,
    human_cost: float,
    error_cost: float,
    delta: float = 0.1,
) -> tuple[float | None, float]:
    """The threshold with the least expected cost per pair, and that cost in the unit of the two costs.

    Cost = human_cost (1 - coverage) + error_cost * coverage * R+, where R+ bounds the error among accepted pairs at
    level 1 - delta/10, so that the cost holds for whichever of the ten thresholds wins. ``None`` means label
    everything.
    """
    _check(0.5, delta)
    if not (human_cost >= 0.0 and error_cost >= 0.0):
        raise InputError(f"costs must not be negative: human {human_cost}, error {error_cost}")
    c, e = _validated(confidences, mistakes)
    best: tuple[float | None, float] = (None, float(human_cost))
    if c.size == 0:
        return best
    for threshold in np.unique(np.quantile(c, np.arange(MOST_THRESHOLDS) / MOST_THRESHOLDS, method="lower")):
        kept = c >= threshold
        bound = risk_bound(int(e[kept].sum()), int(kept.sum()), delta / MOST_THRESHOLDS)
        covered = float(kept.mean())
        cost = human_cost * (1.0 - covered) + error_cost * covered * bound
        if cost < best[1]:
            best = (float(threshold), cost)
    return best


def _check(alpha: float, delta: float) -> None:
    for name, value in (("alpha", alpha), ("delta", delta)):
        if not 0.0 < value < 1.0:
            raise InputError(f"{name} must lie between 0 and 1; got {value}")


def _validated(confidences: Sequence[float] | Array, mistakes: Sequence[float] | Array) -> tuple[Array, Array]:
    c, e = np.asarray(confidences, dtype=np.float64), np.asarray(mistakes, dtype=np.float64)
    if c.ndim != 1 or c.shape != e.shape:
        raise InputError(f"confidences and mistakes must be two lists of one length; got {c.shape} and {e.shape}")
    bad = np.flatnonzero(~np.isfinite(c))
    if bad.size:
        raise InputError(f"confidence in row {bad[0]} is {c[bad[0]]}; leave invalid comparisons out and count them")
    bad = np.flatnonzero(~np.isin(e, (0.0, 1.0)))
    if bad.size:
        raise InputError(f"mistake in row {bad[0]} is {e[bad[0]]}; use 1 (judge against human) or 0")
    return c, e


def _one_per_cluster(clusters: Sequence[str] | None, size: int, seed: int) -> npt.NDArray[np.intp]:
    if clusters is None:
        return np.arange(size)
    if len(clusters) != size:
        raise InputError(f"{len(clusters)} prompt ids for {size} rows; give one id per row")
    order = np.random.default_rng(seed).permutation(size)
    first = np.unique(np.asarray(clusters)[order], return_index=True)[1]
    return np.asarray(np.sort(order[first]))


def _thresholds(c: Array, alpha: float, delta: float) -> Array:
    """Confidences that leave evenly spaced numbers of rows, strict first, the last one all rows.

    The first leaves three times the zero-error need or a tenth of the rows, whichever is more: a thin first slice fails
    by bad luck, and a failed first test certifies nothing at all.
    """
    start = max(3 * zero_error_need(alpha, delta), math.ceil(c.size / MOST_THRESHOLDS))
    if c.size == 0:
        return np.empty(0)
    if c.size < start:
        return np.array([c.min()])
    counts = np.unique(np.linspace(start, c.size, MOST_THRESHOLDS).round().astype(int))
    return np.asarray(np.unique(np.sort(c)[c.size - counts])[::-1])


def _step(threshold: float, c: Array, e: Array, alpha: float, delta: float) -> Step:
    kept = c >= threshold
    n, wrong = int(kept.sum()), int(e[kept].sum())
    bound = risk_bound(wrong, n, delta)
    return Step(threshold, n, wrong, bound, bound <= alpha)


def _risk(step: Step, delta: float) -> Estimate:
    return Estimate(
        value=step.errors / step.n,
        low=0.0,
        high=step.bound,
        level=1.0 - delta,
        n=step.n,
        clusters=step.n,
        method="one-sided Clopper-Pearson, fixed sequence",
    )


def _needed(steps: Sequence[Step], n: int, alpha: float, delta: float) -> int | None:
    """Gold labels at which the best candidate would pass if its observed error rate and coverage are the true ones."""
    if n == 0 or not steps:
        return 3 * zero_error_need(alpha, delta)
    wants = []
    for step in steps:
        rate = step.errors / step.n if step.n else 1.0
        if rate >= alpha:
            continue
        high = max(zero_error_need(alpha, delta), n)
        while risk_bound(math.ceil(rate * high), high, delta) > alpha:
            high *= 2
        low = 1
        while low < high:
            middle = (low + high) // 2
            passed = risk_bound(math.ceil(rate * middle), middle, delta) <= alpha
            low, high = (low, middle) if passed else (middle + 1, high)
        wants.append(math.ceil(high * n / step.n))
    return max(min(wants), n + 1) if wants else None
