"""What else moves a judge besides quality: the place in the prompt, length, style, its own family.

Position needs no human labels: both orders of one pair differ in nothing else. Length and style do need them, since
humans like longer answers too: the bias is the judge's slope minus the human one on the same pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics import Outcome
from rubrics.errors import InputError

from .estimates import Clusters, Codes, Estimate, cluster_codes, difference, mean, share, t_cdf, t_quantile
from .segments import benjamini_hochberg

__all__ = [
    "FamilyBias",
    "FlipSources",
    "PositionBias",
    "StyleSlope",
    "family_bias",
    "flip_sources",
    "position_bias",
    "style_bias",
]

Array = npt.NDArray[np.float64]
Call = tuple[Outcome | None, Outcome | None]


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Both orders of each pair held together.

    ``consistency`` is the share of pairs whose two orders name the same outcome. ``first_rate`` is the share of
    one-sided inconsistent pairs (decisive for the same place in both orders) that went to the first place, with the
    exact binomial ``p`` against one half. ``net_first`` is the mean over both verdicts of +1 for the first place, -1
    for the second, 0 for a tie: the signed preference, which can be 0 in a judge that flips every third pair.
    ``score_shift`` is the mean soft score of the candidate shown first minus shown second. ``pairs`` counts pairs with
    two verdicts, ``invalid`` the others.
    """

    pairs: int
    invalid: int
    consistency: Estimate | None
    net_first: Estimate | None
    first_rate: Estimate | None
    p: float | None
    score_shift: Estimate | None


def position_bias(
    verdicts: Sequence[Call],
    *,
    scores: Sequence[tuple[float | None, float | None]] | None = None,
    clusters: Clusters | None = None,
    level: float = 0.95,
) -> PositionBias:
    """Position bias from outcomes (candidate's side) with the candidate shown first, then second; ``None`` is invalid.

    ``scores`` are the soft preferences of the same two calls, where known. Sources: consistency and preference after
    Zheng et al. 2023 (arXiv 2306.05685) and Shi et al. 2024 (arXiv 2406.07791); the binomial test is McNemar's on the
    two orders.
    """
    from scipy.special import bdtr

    names = cluster_codes(clusters, len(verdicts))
    both = [k for k, (first, second) in enumerate(verdicts) if first is not None and second is not None]
    own = names[both] if both else None
    pulls = [_pull(verdicts[k]) for k in both]
    one_sided = [k for k, pull in zip(both, pulls, strict=True) if abs(pull) == 1.0]
    firsts = [float(_pull(verdicts[k]) > 0) for k in one_sided]
    least, total = min(sum(firsts), len(firsts) - sum(firsts)), len(firsts)
    shift = None
    if scores is not None:
        if len(scores) != len(verdicts):
            raise InputError(f"{len(verdicts)} pairs of verdicts but {len(scores)} pairs of scores")
        known = [k for k, pair in enumerate(scores) if None not in pair]
        shift = difference(
            [scores[k][0] or 0.0 for k in known],
            [scores[k][1] or 0.0 for k in known],
            clusters=names[known] if known else None,
            level=level,
            bounds=(-1.0, 1.0),
        )
    return PositionBias(
        pairs=len(both),
        invalid=len(verdicts) - len(both),
        consistency=share([float(verdicts[k][0] == verdicts[k][1]) for k in both], clusters=own, level=level),
        net_first=mean(pulls, clusters=own, level=level, bounds=(-1.0, 1.0)),
        first_rate=share(firsts, clusters=names[one_sided] if one_sided else None, level=level),
        p=min(1.0, 2 * float(bdtr(least, total, 0.5))) if total else None,
        score_shift=shift,
    )


@dataclass(frozen=True, slots=True)
class FlipSources:
    """Why verdicts of one pair differ: ``noise`` between repeats of the same prompt, ``order`` between the two orders.

    Both are the chance that two valid verdicts of a pair differ; ``position`` is order minus noise, paired by pair:
    what the order adds to what the judge does anyway. ``stability`` is the mean share of the commonest verdict among
    the repeats of one order.
    """

    pairs: int
    invalid: int
    noise: Estimate | None
    order: Estimate | None
    position: Estimate | None
    stability: Estimate | None


def flip_sources(
    repeats: Sequence[tuple[Sequence[Outcome | None], Sequence[Outcome | None]]],
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
) -> FlipSources:
    """Split flips into noise and order from repeated calls: by pair, the verdicts candidate first and candidate second.

    Pairs without two valid verdicts in some order carry no noise estimate; ``invalid`` counts invalid calls.
    """
    names = cluster_codes(clusters, len(repeats))
    noise, order, stability = [], [], []
    invalid = 0
    for k, (first, second) in enumerate(repeats):
        ours, theirs = ([call for call in calls if call is not None] for calls in (first, second))
        invalid += len(first) + len(second) - len(ours) - len(theirs)
        within = [_differ(calls) for calls in (ours, theirs) if len(calls) > 1]
        stability += [
            (k, max(calls.count(o) for o in Outcome) / len(calls)) for calls in (ours, theirs) if len(calls) > 1
        ]
        if within:
            noise.append((k, float(np.mean(within))))
        if ours and theirs:
            order.append((k, float(np.mean([a != b for a in ours for b in theirs]))))
    by_noise = dict(noise)
    joint = [(k, value, by_noise[k]) for k, value in order if k in by_noise]

    def over(rows: Sequence[tuple[int, float]]) -> Estimate | None:
        return mean(
            [value for _, value in rows],
            clusters=names[[k for k, _ in rows]] if rows else None,
            level=level,
            bounds=(0.0, 1.0),
        )

    return FlipSources(
        pairs=len(repeats),
        invalid=invalid,
        noise=over(noise),
        order=over(order),
        position=difference(
            [row[1] for row in joint],
            [row[2] for row in joint],
            clusters=names[[row[0] for row in joint]] if joint else None,
            level=level,
            bounds=(-1.0, 1.0),
        ),
        stability=over(stability),
    )


@dataclass(frozen=True, slots=True)
class StyleSlope:
    """One feature: how far a unit of it moves the judge, the humans, and the judge beyond the humans (``bias``).

    ``p`` is one-sided for a bias towards more of the feature; ``p_two_sided`` for any.
    """

    feature: str
    judge: Estimate
    human: Estimate
    bias: Estimate
    p: float
    p_two_sided: float


def style_bias(
    judge: Sequence[float],
    human: Sequence[float],
    features: Mapping[str, Sequence[float]],
    *,
    categories: Sequence[str] | None = None,
    clusters: Clusters | None = None,
    level: float = 0.95,
) -> tuple[StyleSlope, ...] | None:
    """Slopes of judge preference, human outcome and their difference on style features, all features in one regression.

    ``judge`` and ``human`` are in [0, 1] from the candidate's side; a feature is candidate minus baseline: for length
    pass tanh(difference / sd) (``length.length_feature``). Least squares with an intercept by category; sandwich
    variance with jackknifed residuals, HC3 (MacKinnon and White 1985) or by cluster CR3, Student's t on clusters less
    one. The slope of judge - human is exactly the difference of the two slopes. ``None`` where the data cannot tell
    (fewer than 3 rows a column, a constant feature).
    """
    y, f = np.asarray(human, dtype=float), np.asarray(judge, dtype=float)
    names = list(features)
    if not names or any(len(features[name]) != len(y) for name in names) or len(f) != len(y):
        raise InputError("judge, human and at least one feature are needed, all of one length")
    x = np.column_stack([np.asarray(features[name], dtype=float) for name in names])
    if not all(np.isfinite(v).all() for v in (x, y, f)):
        raise InputError("features and preferences must be finite; leave out rows without them and count those")
    codes = cluster_codes(clusters, len(y))
    group = cluster_codes(list(categories) if categories is not None else ["all"] * len(y), len(y))
    design = np.column_stack([x, np.eye(int(group.max(initial=0)) + 1)[group]]) if len(y) else x
    if len(y) < 3 * design.shape[1] or len(np.unique(codes)) < 3 or np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fits = {name: _sandwich(design, target, codes) for name, target in (("judge", f), ("human", y), ("bias", f - y))}
    df = int(codes.max())
    out = []
    for k, name in enumerate(names):
        parts = {}
        for which, (slope, se) in fits.items():
            half = t_quantile(level, df) * float(se[k])
            value = float(slope[k])
            parts[which] = Estimate(
                value, value - half, value + half, level, len(y), df + 1, f"least squares, CR3, t with {df} df"
            )
        slope, se = fits["bias"]
        ratio = float(slope[k]) / max(float(se[k]), 1e-300)
        out.append(StyleSlope(name, **parts, p=t_cdf(-ratio, df), p_two_sided=2 * t_cdf(-abs(ratio), df)))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class FamilyBias:
    """One family of answers: mean of judge minus human preference for it; ``q`` is Benjamini-Hochberg over families."""

    family: str
    own: bool
    excess: Estimate
    p: float | None
    q: float | None


def family_bias(
    judge: Sequence[float],
    human: Sequence[float],
    families: Sequence[tuple[str, str]],
    *,
    judge_family: str | None = None,
    clusters: Clusters | None = None,
    level: float = 0.95,
) -> tuple[FamilyBias, ...]:
    """How far the judge favours answers of a model family beyond what humans do.

    ``families`` is (candidate's, baseline's) by pair. For a family, pairs with it on exactly one side: mean of (judge -
    human) seen from that side (after Wataoka et al. 2024, arXiv 2410.21819, who compare rates at equal human label).
    ``own`` marks the judge's family; an empty name is no family.
    """
    f, y = np.asarray(judge, dtype=float), np.asarray(human, dtype=float)
    if not len(f) == len(y) == len(families):
        raise InputError("judge, human and families need one entry for each pair")
    codes = cluster_codes(clusters, len(y))
    found: list[tuple[str, Estimate, float | None]] = []
    for name in sorted({name for pair in families for name in pair} - {""}):
        rows = [k for k, (ours, theirs) in enumerate(families) if (ours == name) != (theirs == name)]
        sign = np.array([1.0 if families[k][0] == name else -1.0 for k in rows])
        if not rows:
            continue
        excess = mean(sign * (f[rows] - y[rows]), clusters=codes[rows], level=level, bounds=(-1.0, 1.0))
        if excess is not None:
            found.append((name, excess, _against_zero(excess)))
    tested = [p for _, _, p in found if p is not None]
    q = iter(benjamini_hochberg(tested))
    return tuple(
        FamilyBias(name, name == judge_family, excess, p, None if p is None else float(next(q)))
        for name, excess, p in found
    )


def _pull(pair: Call) -> float:
    """+1 where both orders chose the first place, -1 the second; halves where one order was a tie."""
    first, second = pair
    ours = {Outcome.WIN: 1.0, Outcome.TIE: 0.0, Outcome.LOSS: -1.0}
    return 0.0 if first is None or second is None else (ours[first] - ours[second]) / 2


def _differ(calls: Sequence[Outcome]) -> float:
    n = len(calls)
    return 1 - sum(calls.count(o) * (calls.count(o) - 1) for o in Outcome) / (n * (n - 1))


def _against_zero(estimate: Estimate) -> float | None:
    """Two-sided p of a clustered t estimate against 0, from its own unclipped half-width."""
    if estimate.clusters < 2 or estimate.method != "clustered t":
        return None
    df = estimate.clusters - 1
    # The side away from a bound is never clipped.
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)
    if half <= 0:
        return None
    return 2 * t_cdf(-abs(estimate.value) / half * t_quantile(estimate.level, df), df)


def _sandwich(x: Array, y: Array, codes: Codes) -> tuple[Array, Array]:
    """Least-squares slopes, and standard errors from residuals of the fit without their cluster (CR3; HC3 by row)."""
    inverse = np.linalg.inv(x.T @ x)
    slope = inverse @ x.T @ y
    residual = y - x @ slope
    meat = np.zeros_like(inverse)
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        own = x[rows]
        hat = own @ inverse @ own.T
        left = np.linalg.lstsq(np.eye(len(rows)) - hat, residual[rows], rcond=None)[0]
        score = own.T @ left
        meat += np.outer(score, score)
    return np.asarray(slope), np.sqrt(np.maximum(np.diag(inverse @ meat @ inverse), 0.0))
