"""Annotators as instruments: how good one is, whether the judge could replace one, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .coefficients import Ratings, encode
from .estimates import t_cdf
from .segments import benjamini_yekutieli

__all__ = ["AltTest", "AltTestRow", "DawidSkene", "alt_test", "dawid_skene", "latent_accuracy"]

Array = npt.NDArray[np.float64]


def latent_accuracy(human_human: float, judge_human: float) -> tuple[float, float] | None:
    """Accuracy of one annotator and of the judge against the unseen truth; ``None`` if undefined.

    From the agreement of humans, and of judge and human, on two-way labels. Annotators equally good and independent
    given the truth agree with chance a^2 + (1-a)^2, so a = (1 + sqrt(2 A_hh - 1)) / 2, and the judge's accuracy is
    (A_jh - (1-a)) / (2a - 1), held to [0, 1]. Agreement of .81 and .85 gives .8937 and .9445: the judge is better than
    its agreement with single humans looks. Undefined at A_hh <= 1/2, where humans do not agree beyond chance.
    """
    if not human_human > 0.5:
        return None
    annotator = (1 + math.sqrt(2 * human_human - 1)) / 2
    judge = (judge_human - (1 - annotator)) / (2 * annotator - 1)
    return annotator, min(max(judge, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class AltTestRow:
    """The judge against one annotator: how often it, and the annotator, is at least as near to the others."""

    annotator: str
    n: int
    judge_wins: float
    annotator_wins: float
    p: float
    rejected: bool


@dataclass(frozen=True, slots=True)
class AltTest:
    """Whether the judge may stand in for an annotator.

    ``omega`` is the share of annotators it beats, ``rho`` its mean share of wins. ``skipped`` names annotators with
    fewer than ``least`` items. ``note`` says where the test has little power: it is hard on the judge where each item
    has few annotators (on MT-Bench it fails every judge).
    """

    passed: bool
    omega: float
    rho: float
    epsilon: float
    rows: tuple[AltTestRow, ...]
    skipped: tuple[str, ...]
    note: str


def alt_test(
    judge: Sequence[Hashable | None],
    ratings: Ratings,
    annotators: Sequence[str],
    *,
    epsilon: float = 0.15,
    q: float = 0.05,
    least: int = 30,
) -> AltTest | None:
    """The alternative annotator test; ``None`` with under 3 usable annotators.

    Calderon, Reichart and Dror 2025, arXiv 2501.10970. For annotator j and every item that j, the judge and at least
    two others rated: the score of j, and of the judge, is the mean agreement with the others; each wins where its score
    is at least the other's. One-sided t-test that mean(W_j - W_judge) < ``epsilon`` (.2 for experts, .15 skilled, .1
    crowd), Benjamini-Yekutieli at ``q`` over the annotators. Passed where omega >= .5.
    """
    if len(judge) != len(ratings):
        raise InputError(f"{len(ratings)} rated items but {len(judge)} verdicts; give one per item, None for none")
    if not judge:
        return None
    names = sorted({v for row in ratings for v in row if v is not None} | {v for v in judge if v is not None}, key=str)
    codes, own = encode(ratings, names), encode([[v] for v in judge], names)[:, 0]
    rows, skipped = [], []
    for j, annotator in enumerate(annotators):
        others = np.delete(codes, j, axis=1)
        seen = (others >= 0).sum(axis=1)
        kept = (codes[:, j] >= 0) & (own >= 0) & (seen >= 2)
        if int(kept.sum()) < least:
            skipped.append(annotator)
            continue
        mine = (others[kept] == codes[kept, j, None]).sum(axis=1) / seen[kept]
        theirs = (others[kept] == own[kept, None]).sum(axis=1) / seen[kept]
        judge_wins, wins = (theirs >= mine).astype(float), (mine >= theirs).astype(float)
        gap = wins - judge_wins - epsilon
        spread = float(gap.std(ddof=1)) / math.sqrt(len(gap))
        p = float(gap.mean() >= 0) if spread == 0 else t_cdf(float(gap.mean()) / spread, len(gap) - 1)
        rows.append((annotator, len(gap), float(judge_wins.mean()), float(wins.mean()), p))
    if len(rows) < 3:
        return None
    rejected = benjamini_yekutieli([row[4] for row in rows]) <= q
    omega = float(rejected.mean())
    fewest = min(row[1] for row in rows)
    note = "" if fewest >= 50 else f"little power: the thinnest annotator has {fewest} items, 50 to 100 are advised"
    return AltTest(
        passed=omega >= 0.5,
        omega=omega,
        rho=float(np.mean([row[2] for row in rows])),
        epsilon=epsilon,
        rows=tuple(AltTestRow(*row, bool(out)) for row, out in zip(rows, rejected, strict=True)),
        skipped=tuple(skipped),
        note=note,
    )


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """Consensus by the Dawid-Skene model: posteriors by item, confusion tables by rater, prior of the categories.

    ``consensus`` holds the likeliest category of each item (``None`` for an item that nobody rated),
    ``confusion[rater][c][l]`` the chance that the rater says l where c is true, ``accuracy`` the chance that the rater
    is right. ``note`` names a thin rater.
    """

    categories: tuple[Hashable, ...]
    consensus: tuple[Hashable | None, ...]
    posterior: tuple[tuple[float, ...], ...]
    prior: tuple[float, ...]
    confusion: Mapping[str, tuple[tuple[float, ...], ...]]
    accuracy: Mapping[str, float]
    iterations: int
    note: str


def dawid_skene(
    ratings: Ratings,
    categories: Sequence[Hashable],
    raters: Sequence[str],
    *,
    smoothing: float = 0.01,
    iterations: int = 200,
    tolerance: float = 1e-8,
) -> DawidSkene | None:
    """Joint estimate of truth and raters' errors by EM, started at the majority; ``None`` without ratings.

    Dawid and Skene 1979. E: T_ic ~ pi_c prod_k theta_k[c, l_ik]; M: weighted counts plus ``smoothing``. Needs about 100
    items a rater and errors that are independent given the truth: judges of one model family are not, and outvote
    everybody else.
    """
    codes = encode(ratings, categories)
    if codes.size == 0 or not (codes >= 0).any():
        return None
    if codes.shape[1] != len(raters):
        raise InputError(f"{codes.shape[1]} columns of ratings but {len(raters)} raters")
    size = len(categories)
    said = np.stack([codes == label for label in range(size)], axis=2).astype(float)
    votes = said.sum(axis=1)
    rated = votes.sum(axis=1) > 0
    posterior = np.where(rated[:, None], votes, 1.0)
    posterior /= posterior.sum(axis=1, keepdims=True)
    steps = 0
    while steps < iterations:
        steps += 1
        prior = posterior[rated].mean(axis=0)
        theta = np.einsum("ic,ikl->kcl", posterior[rated], said[rated]) + smoothing
        theta /= theta.sum(axis=2, keepdims=True)
        logs = np.log(np.maximum(prior, 1e-300)) + np.einsum("ikl,kcl->ic", said, np.log(theta))
        logs -= logs.max(axis=1, keepdims=True)
        fresh = np.exp(logs)
        fresh /= fresh.sum(axis=1, keepdims=True)
        moved = float(np.abs(fresh - posterior)[rated].max())
        posterior = fresh
        if moved < tolerance:
            break
    best = posterior.argmax(axis=1)
    items = (codes >= 0).sum(axis=0)
    thin = [name for name, count in zip(raters, items, strict=True) if count < 100]
    return DawidSkene(
        categories=tuple(categories),
        consensus=tuple(categories[k] if seen else None for k, seen in zip(best, rated, strict=True)),
        posterior=tuple(tuple(float(v) for v in row) for row in posterior),
        prior=tuple(float(v) for v in prior),
        confusion={
            name: tuple(tuple(float(v) for v in row) for row in table)
            for name, table in zip(raters, theta, strict=True)
        },
        accuracy={name: float(prior @ np.diag(table)) for name, table in zip(raters, theta, strict=True)},
        iterations=steps,
        note=f"fewer than 100 items from {', '.join(thin)}: their error rates are rough" if thin else "",
    )
