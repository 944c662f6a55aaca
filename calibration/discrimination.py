"""How well a score tells two kinds apart: the area under the ROC curve with a clustered interval, and small logistic
fits.

AUC = P(score of a positive > score of a negative) + P(equal) / 2. Its variance comes from each row's placement among
the other kind (DeLong, DeLong and Clarke-Pearson 1988), summed within clusters first (Obuchowski 1997), so that claims
about one document count as what they are: one document seen several times.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import logistic
from .estimates import Clusters, Codes, Estimate, Values, cluster_codes, rule_of_three, t_quantile

__all__ = ["auc", "auc_difference", "fit_logistic"]

Array = npt.NDArray[np.float64]


def auc(scores: Values, positive: Values, *, clusters: Clusters | None = None, level: float = 0.95) -> Estimate | None:
    """Area under the ROC curve of ``scores`` for ``positive`` (ones) against the rest (zeros); ``None`` without both.

    The interval is Student's t with G - 1 degrees of freedom on the logit of the area, so that it stays inside [0, 1]
    and keeps its level near the ends (Qin and Hotilovac 2008). Scores that separate the kinds completely show no
    spread: the rule of three on the smaller kind's clusters stands in. Raises ``InputError`` for scores that are not
    finite, another number of labels than scores, or labels other than 0 and 1.

    Example: scores .1 .4 .35 .8 with labels 0 0 1 1 have an area of 0.75.
    """
    x, y, codes = _checked(scores, positive, clusters)
    if not 0 < y.sum() < y.size:
        return None
    area, influence = _placements(x, y)
    count = int(codes.max()) + 1
    se = _clustered(influence, codes)
    if count < 2 or math.isnan(se):
        return Estimate(area, 0.0, 1.0, level, y.size, count, "one cluster: nothing is known about the spread")
    if se <= 1e-12 or not 0 < area < 1:
        fewest = min(len(np.unique(codes[y == kind])) for kind in (0.0, 1.0))
        low, high = rule_of_three(area, fewest, bounds=(0.0, 1.0), level=level)
        return Estimate(area, low, high, level, y.size, count, "no spread: rule of three")
    half = t_quantile(level, count - 1) * se / (area * (1 - area))
    centre = math.log(area / (1 - area))
    low, high = (float(logistic(np.array(centre + side * half))) for side in (-1, 1))
    method = "DeLong" if count == y.size else "DeLong, clustered"
    return Estimate(area, low, high, level, y.size, count, method)


def auc_difference(
    first: Values, second: Values, positive: Values, *, clusters: Clusters | None = None, level: float = 0.95
) -> Estimate | None:
    """Area of ``first`` minus that of ``second`` over the same rows, paired and clustered; ``None`` without both kinds.

    DeLong's covariance of two correlated areas, with Student's t on G - 1 degrees of freedom.
    """
    x, y, codes = _checked(first, positive, clusters)
    z, _, _ = _checked(second, positive, clusters)
    if not 0 < y.sum() < y.size:
        return None
    (area, mine), (other, theirs) = _placements(x, y), _placements(z, y)
    count = int(codes.max()) + 1
    se = _clustered(mine - theirs, codes)
    if count < 2 or math.isnan(se):
        return Estimate(area - other, -1.0, 1.0, level, y.size, count, "one cluster: nothing is known about the spread")
    half = t_quantile(level, count - 1) * se
    value = area - other
    return Estimate(
        value, max(-1.0, value - half), min(1.0, value + half), level, y.size, count, "DeLong, paired, clustered"
    )


def fit_logistic(features: Array, outcome: Array, *, ridge: float = 1.0) -> tuple[float, Array]:
    """Intercept and weights of a logistic regression of 0/1 ``outcome`` on the columns of ``features``.

    Maximum of the likelihood less ridge/2 times the squared weights of the standardised columns (the intercept is
    free), by Newton's method; weights are returned for the columns as given. A column without spread gets weight 0.
    Raises ``InputError`` where only one kind of outcome is there.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
        raise InputError("a logistic fit needs one line of finite features for each outcome")
    if not 0 < y.sum() < y.size:
        raise InputError("a logistic fit needs outcomes of both kinds")
    centre, scale = x.mean(axis=0), x.std(axis=0)
    flat = scale <= 1e-12
    z = np.column_stack([np.ones(len(x)), (x - centre) / np.where(flat, 1.0, scale)])
    penalty = np.array([0.0, *([ridge] * x.shape[1])])
    beta = np.zeros(z.shape[1])
    beta[0] = math.log(y.mean() / (1 - y.mean()))

    def loss(b: Array) -> float:
        eta = z @ b
        return float(np.sum(np.logaddexp(0.0, eta) - y * eta) + 0.5 * (penalty * b) @ b)

    for _ in range(100):
        p = logistic(z @ beta)
        hessian = (z * (p * (1 - p))[:, None]).T @ z + np.diag(penalty) + 1e-9 * np.eye(beta.size)
        step = np.linalg.solve(hessian, z.T @ (y - p) - penalty * beta)
        now, size = loss(beta), 1.0
        while loss(beta + size * step) > now + 1e-12 and size > 1e-8:
            size /= 2
        beta = beta + size * step
        if float(np.abs(size * step).max()) < 1e-10:
            break
    weights = np.where(flat, 0.0, beta[1:] / np.where(flat, 1.0, scale))
    return float(beta[0] - weights @ centre), np.asarray(weights)


def _placements(x: Array, y: Array) -> tuple[float, Array]:
    """The area, and each row's share in its deviation: they sum to 0, and their squares to DeLong's variance."""
    from scipy.stats import rankdata

    ones = y == 1
    m, n = int(ones.sum()), int((~ones).sum())
    ranks, own_ones, own_zeros = rankdata(x), rankdata(x[ones]), rankdata(x[~ones])
    place = np.empty(y.size)
    place[ones] = (ranks[ones] - own_ones) / n
    place[~ones] = 1 - (ranks[~ones] - own_zeros) / m
    area = float(place[ones].mean())
    return area, (place - area) / np.where(ones, m, n)


def _clustered(influence: Array, codes: Codes) -> float:
    sums = np.bincount(codes, weights=influence)
    if len(sums) < 2:
        return math.nan
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums))


def _checked(scores: Values, positive: Values, clusters: Clusters | None) -> tuple[Array, Array, Codes]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"{x.size} scores but {y.size} labels; give one of each for every row")
    if not np.isfinite(x).all():
        raise InputError(f"score {int(np.flatnonzero(~np.isfinite(x))[0])} is not finite")
    if not np.isin(y, (0.0, 1.0)).all():
        raise InputError("labels are 1 for the kind that should score high and 0 for the other")
    return x, y, cluster_codes(clusters, x.size)
