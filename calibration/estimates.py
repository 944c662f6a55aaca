"""Numbers with their uncertainty: ``Estimate`` is the only way a number leaves this package.

Intervals are clustered: rows that share a cluster (a prompt) are one observation of it, however many rows there are.
Everything is seeded, and nothing here reads a file, a clock or the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .rare import clustered_ends
from .students_t import normal, two_sided

__all__ = [
    "Equivalence",
    "Estimate",
    "PairedTest",
    "accuracy",
    "bootstrap",
    "clopper_pearson",
    "cluster_codes",
    "difference",
    "effective_size",
    "equivalence",
    "geometric_mean_ratio",
    "mcnemar",
    "mean",
    "normal_quantile",
    "p_value",
    "relative_weights",
    "resampled",
    "rule_of_three",
    "sample_size",
    "share",
    "share_difference",
    "standard_error",
    "t_cdf",
    "t_quantile",
    "wilson",
]

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Values = Sequence[float] | npt.NDArray[Any]
Clusters = Sequence[Hashable] | npt.NDArray[Any]

_BLOCK = 32_768
"""Bootstrap weights held at once, in numbers: small enough for the processor's cache."""
_ROUNDING = 1e-12
"""Spread, as a part of the greatest value, that is no more than what adding up rounds off."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval (``low``, ``high``) at ``level``; ``n`` rows in ``clusters`` clusters, by ``method``.

    Example: ``mean([1.0, 0.0, 0.5, 1.0], bounds=(0, 1))`` has value 0.625, n 4 and clusters 4.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    clusters: int
    method: str

    def to_dict(self) -> dict[str, float | int | str]:
        """The fields as a plain mapping, for JSON."""
        return asdict(self)


def mean(
    values: Values,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    weights: Values | None = None,
) -> Estimate | None:
    """Mean with a cluster-robust t interval, clipped to ``bounds``; ``None`` for no values.

    se^2 = G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2 with G clusters and G - 1 degrees of freedom (Miller 2024,
    arXiv 2411.00640). One cluster says nothing about the spread: the interval is then ``bounds``, or unbounded. Values
    that are all equal would give no width; with ``bounds`` the rule of three on the number of clusters stands in
    (``rule_of_three``). Raises ``InputError`` for values that are not finite or a cluster list of another length.

    With ``weights`` (1 / the chance of each row's draw): sum w x / sum w (Hajek), se^2 = G/(G-1) sum_g (sum_{i in g}
    w_i (x_i - mean))^2 / (sum w)^2, and the degrees of freedom are those of the effective number of clusters, (sum
    w)^2 / sum w^2 - 1. Equal weights are no weights.
    """
    x = _checked(values, level)
    n = len(x)
    if n == 0:
        return None
    groups = cluster_codes(clusters, n)
    count = int(groups.max()) + 1
    w = relative_weights(weights, n)
    if w is not None and count > 1:
        return _weighted_mean(x, w, groups, level=level, bounds=bounds)
    centre = float(x.mean())
    lowest, highest = bounds if bounds is not None else (-math.inf, math.inf)
    if count < 2:
        return Estimate(centre, lowest, highest, level, n, count, "one cluster: nothing is known about the spread")
    half = t_quantile(level, count - 1) * standard_error(x, groups)
    if bounds is not None and bool(np.all(x == x[0])):
        low, high = rule_of_three(centre, count, bounds=bounds, level=level)
        return Estimate(centre, low, high, level, n, count, "all values equal: rule of three")
    return Estimate(centre, max(lowest, centre - half), min(highest, centre + half), level, n, count, "clustered t")


def share(
    hits: Values, *, clusters: Clusters | None = None, level: float = 0.95, weights: Values | None = None
) -> Estimate | None:
    """Share of ones with a Wilson interval at the effective sample size; ``None`` for no rows.

    With clusters the sample size is divided by the design effect (clustered over independent variance, at least 1) and
    the normal quantile becomes Student's with G - 1 degrees of freedom, so 0 of n and n of n keep an honest width
    (Wilson 1927; Korn and Graubard 1998). Where no variance can be seen (0 of n, n of n) every cluster counts once. One
    cluster of several rows gives [0, 1]. Raises ``InputError`` for anything but zeros and ones.

    With ``weights`` (1 / the chance of each row's draw) the share is sum w x / sum w and its effective sample size p (1
    - p) / se^2 with the linearised clustered variance of ``mean``, never more than Kish's (sum w)^2 / sum w^2 (1965):
    heavy rows that all agree do not make the light ones count for more than they are.

    Example: 8 of 10 independent rows give 0.8 [0.490162, 0.943318].
    """
    x = _checked(hits, level)
    n = len(x)
    if n == 0:
        return None
    if not np.isin(x, (0.0, 1.0)).all():
        raise InputError("share takes zeros and ones; use mean for other values")
    groups = cluster_codes(clusters, n)
    count = int(groups.max()) + 1
    w = relative_weights(weights, n)
    if w is not None and count > 1:
        return _weighted_share(x, w, groups, level=level)
    p = float(x.mean())
    if count == n:
        low, high = wilson(float(x.sum()), n, level=level)
        return Estimate(p, low, high, level, n, count, "Wilson")
    if count == 1:
        return Estimate(p, 0.0, 1.0, level, n, count, "one cluster: nothing is known about the spread")
    independent = p * (1 - p) / n
    effect = standard_error(x, groups) ** 2 / independent if independent > 0 else n / count
    effective = n / max(1.0, effect)
    low, high = _wilson(p, effective, t_quantile(level, count - 1))
    return Estimate(p, low, high, level, n, count, "Wilson, clustered")


def accuracy(hits: Values, *, clusters: Clusters | None = None, level: float = 0.95) -> Estimate | None:
    """How often something is right: 1 for right, 0 for wrong, 0.5 for what leans to neither side; ``None`` for no rows.

    ``share`` where every row is right or wrong, else ``mean`` within [0, 1]: a half is no count of hits.

    Example: 8 of 10 independent rows give 0.8 [0.490162, 0.943318].
    """
    if np.isin(hits, (0.0, 1.0)).all():
        return share(hits, clusters=clusters, level=level)
    return mean(hits, clusters=clusters, level=level, bounds=(0.0, 1.0))


def difference(
    first: Values,
    second: Values,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Estimate | None:
    """Mean of ``first - second`` over the same rows, with the clustered t interval of ``mean``.

    Its variance is var A + var B - 2 cov. Raises ``InputError`` where the two differ in length: unpaired values have no
    paired difference.
    """
    a, b = _checked(first, level), _checked(second, level)
    if len(a) != len(b):
        raise InputError(f"a paired difference needs the same rows on both sides, not {len(a)} and {len(b)}")
    return mean(a - b, clusters=clusters, level=level, bounds=bounds)


def share_difference(
    first: Values, second: Values, *, clusters: Clusters | None = None, level: float = 0.95
) -> Estimate | None:
    """Paired difference of two shares, zeros and ones on the same rows, with an interval that holds for rare events.

    The t interval of ``difference`` is too narrow where few rows differ: held to a limit of 2 points it passes a
    candidate that lies on it 13 times of 100 at 150 rows, where 2.5 are meant. Each end is the wider of two. One: one
    row is added to each of the two ways to differ (Bonett and Price 2012), at the sample size divided by the design
    effect of the clusters (at least 1), with Student's quantile at G - 1; where no row differs (or all do alike) the
    rule of three. Alone it passes up to 6 of 100, and in uneven clusters up to 45. Two: ``rare.clustered_ends``, which
    asks no design effect of a few events. ``None`` for no rows; raises ``InputError`` for anything but zeros and ones.

    Example: 4 rows of 400 that only the first has give 0.01 [-0.002009, 0.025604].
    """
    a, b = _checked(first, level), _checked(second, level)
    if not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InputError("share_difference takes zeros and ones; use difference for other values")
    plain = difference(a, b, clusters=clusters, level=level, bounds=(-1.0, 1.0))
    if plain is None or plain.clusters < 2:
        return plain
    delta, n = a - b, len(a)
    groups = cluster_codes(clusters, n)
    found = plain if plain.method != "clustered t" else _bonett_price(plain, delta, groups)
    low, high = clustered_ends(delta, groups, level=level)
    if low < found.low or high > found.high:
        found = replace(found, low=min(found.low, low), high=max(found.high, high), method=f"{found.method}, gamma")
    return found


def _bonett_price(plain: Estimate, delta: Array, groups: Codes) -> Estimate:
    """The Bonett-Price interval of a paired difference at its effective sample size; ``plain`` is its t interval."""
    n = plain.n
    error = standard_error(delta, groups)
    effective = n / max(1.0, error**2 / (float(delta.var()) / n))
    more, less = (
        (effective * float((delta == sign).mean()) + 1) / (effective + 2) for sign in (1.0, -1.0)
    )  # the two ways to differ, one row added to each
    centre = more - less
    half = t_quantile(plain.level, plain.clusters - 1) * math.sqrt((more + less - centre**2) / (effective + 2))
    low, high = max(-1.0, min(plain.value, centre - half)), min(1.0, max(plain.value, centre + half))
    return replace(plain, low=low, high=high, method="Bonett-Price, clustered")


def geometric_mean_ratio(
    first: Values, second: Values, *, clusters: Clusters | None = None, level: float = 0.95
) -> Estimate | None:
    """Geometric mean of ``first / second`` over the same rows, e.g. of answer lengths: 1.22 is 22% longer.

    The interval is the clustered t interval of the mean log ratio, carried back by exp. Raises ``InputError`` for a
    value that is not above zero (an empty answer has no length ratio: count it apart, or add one to both sides and say
    so).
    """
    a, b = _checked(first, level), _checked(second, level)
    if (a <= 0).any() or (b <= 0).any():
        raise InputError("a length ratio needs values above zero; count empty answers apart")
    logs = difference(np.log(a), np.log(b), clusters=clusters, level=level)
    if logs is None:
        return None
    low, high = (math.exp(min(edge, 700.0)) for edge in (logs.low, logs.high))
    return Estimate(math.exp(logs.value), low, high, level, logs.n, logs.clusters, f"geometric mean, {logs.method}")


def bootstrap(
    statistic: Callable[[Array], Array],
    moments: npt.ArrayLike,
    *,
    clusters: Clusters | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    rounds: int = 2000,
    seed: int = 0,
) -> Estimate | None:
    """A statistic of sums, with an interval from resampling whole clusters; ``None`` where the statistic is undefined.

    ``moments`` has one line per row and one column per sum the statistic needs (for a kappa: the cells of the table).
    ``statistic`` maps sums of shape (..., columns) to values of shape (...), with NaN for undefined. Interval:
    bias-corrected and accelerated (Efron 1987), acceleration by leaving clusters out, quantiles widened by
    sqrt(G/(G-1)) and Student's t for small G (Hesterberg 2015, arXiv 1411.5279). Equal for any order of rows. If no
    resample differs, ``rule_of_three`` stands in. Resamples where the statistic is undefined are left out and named in
    ``method``; if they are most, the interval is ``bounds``.

    Example: ``bootstrap(lambda s: s[..., 0] / s[..., 1], np.column_stack([correct, np.ones(n)]), clusters=prompts)``.
    """
    rows = np.asarray(moments, dtype=float)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError("moments must be a table of finite numbers, one line per row")
    _checked((), level)
    n = len(rows)
    if n == 0:
        return None
    groups = cluster_codes(clusters, n)
    sums = _by_cluster(rows, groups)
    count = len(sums)
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(total[None, :])[0])
        if not math.isfinite(value):
            return None
        if count < 2:
            return Estimate(value, *bounds, level, n, count, "one cluster: nothing is known about the spread")
        drawn = statistic(resampled(sums, rounds=rounds, seed=seed))
        left = statistic(total[None, :] - sums)
    usable = drawn[np.isfinite(drawn)]
    if len(usable) < rounds / 2:
        return Estimate(value, *bounds, level, n, count, "undefined in most resamples")
    spread = float(usable.max() - usable.min())
    if spread <= 1e-12 * max(1.0, abs(value)):
        low, high = rule_of_three(value, count, bounds=bounds, level=level)
        return Estimate(value, low, high, level, n, count, "no resample differs: rule of three")
    low, high = _bca(usable, value, left[np.isfinite(left)], count, level)
    missing = rounds - len(usable)
    method = f"cluster bootstrap BCa, {rounds} rounds" + (f", undefined in {missing}" if missing else "")
    return Estimate(value, max(bounds[0], min(low, value)), min(bounds[1], max(high, value)), level, n, count, method)


def resampled(sums: Array, *, rounds: int, seed: int) -> Array:
    """Totals of ``rounds`` samples with replacement of the lines of ``sums``: shape (rounds, columns).

    Equal lines are drawn together by their multinomial count, which is the same distribution at a fraction of the cost,
    and makes the draw independent of the order of lines.
    """
    cells, counts = np.unique(sums, axis=0, return_counts=True)
    count = len(sums)
    rng = np.random.default_rng(seed)
    if len(cells) < count / 4:
        return np.asarray(rng.multinomial(count, counts / count, size=rounds) @ cells)
    # Row numbers are far cheaper to draw than one binomial per line; small blocks stay in the processor's cache.
    lines = np.repeat(cells, counts, axis=0)
    totals = np.empty((rounds, sums.shape[1]))
    step = max(1, _BLOCK // count)
    offsets = np.arange(step, dtype=np.intp)[:, None] * count
    kind = np.uint16 if count <= 65535 else np.uint32
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        picks = rng.integers(0, count, size=(size, count), dtype=kind) + offsets[:size]
        weights = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count).astype(float)
        totals[start : start + size] = weights @ lines
    return totals


@dataclass(frozen=True, slots=True)
class PairedTest:
    """McNemar's test: ``only_first`` and ``only_second`` count the rows that one of the two got right alone."""

    only_first: int
    only_second: int
    p_exact: float
    p_mid: float


def mcnemar(first: Values, second: Values) -> PairedTest:
    """Two-sided exact and mid-p McNemar test on paired zeros and ones.

    McNemar 1947; mid-p after Fagerland, Lydersen and Laake 2013. 12 against 3 discordant rows give exact p 0.035156 and
    mid-p 0.021271. Rows are taken as independent: keep one per prompt.
    """
    from scipy.special import bdtr

    a, b = _checked(first, 0.95), _checked(second, 0.95)
    if len(a) != len(b) or not (np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all()):
        raise InputError("McNemar's test needs zeros and ones for the same rows on both sides")
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    smaller, discordant = min(only_first, only_second), only_first + only_second
    if discordant == 0:
        return PairedTest(0, 0, 1.0, 1.0)
    below = float(bdtr(smaller, discordant, 0.5))
    point = math.comb(discordant, smaller) * 0.5**discordant
    return PairedTest(only_first, only_second, min(1.0, 2 * below), min(1.0, 2 * below - point))


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two one-sided tests: ``difference`` at level 1 - 2 alpha, ``p`` for "outside the margin", and the finding."""

    difference: Estimate
    margin: float
    p: float
    equivalent: bool


def equivalence(
    first: Values, second: Values, *, margin: float, clusters: Clusters | None = None, alpha: float = 0.05
) -> Equivalence | None:
    """Whether the paired mean difference lies within ``margin`` either way, so that "no change" is a finding (TOST).

    Schuirmann 1987: equivalent where the 1 - 2 alpha interval lies inside (-margin, margin); ``p`` is the larger of the
    two one-sided p values, Student's t with G - 1 degrees of freedom. ``None`` for no rows or fewer than two clusters.
    Identical columns carry no variance and are judged by the rule of three on differences in [-1, 1].
    """
    if not margin > 0:
        raise InputError(f"the equivalence margin must be above zero, not {margin}")
    gap = difference(first, second, clusters=clusters, level=1 - 2 * alpha, bounds=(-1.0, 1.0))
    if gap is None or gap.clusters < 2:
        return None
    delta = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    se = standard_error(delta, cluster_codes(clusters, len(delta)))
    size = abs(gap.value)
    if size >= margin and se == 0.0:
        p = 1.0
    elif se == 0.0:
        p = (1 - (margin - size) / (1 - size)) ** gap.clusters if margin < 1 else 0.0
    else:
        p = t_cdf((size - margin) / se, gap.clusters - 1)
    return Equivalence(gap, margin, p, -margin < gap.low and gap.high < margin)


def sample_size(
    gain: float, *, ties: float = 0.0, power: float = 0.8, level: float = 0.95, sd: float | None = None
) -> int:
    """Prompts needed to see a win rate of 0.5 + ``gain`` with ``power``, two-sided, with a share ``ties`` of ties.

    n = (z_{1-alpha/2} + z_power)^2 var(Y) / gain^2, var(Y) = win + ties/4 - (0.5 + gain)^2 unless ``sd`` is given.
    Examples: 0.05 needs 778, with 30% ties 542.
    """
    if gain == 0 or not 0 < power < 1 or not 0 <= ties < 1:
        raise InputError("sample_size needs a gain other than 0, a power in (0, 1) and a tie share in [0, 1)")
    rate = 0.5 + abs(gain)
    variance = sd**2 if sd is not None else (rate - ties / 2) + ties / 4 - rate**2
    quantile = normal_quantile(level) + normal_quantile(2 * power - 1)
    return max(1, math.ceil(quantile**2 * max(variance, 0.0) / gain**2))


def wilson(hits: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927): inside [0, 1], never without width. 8 of 10 give (.490162, .943318)."""
    if n <= 0 or not 0 <= hits <= n:
        raise InputError(f"{hits} hits of {n} is no share")
    return _wilson(hits / n, n, normal_quantile(level))


def clopper_pearson(hits: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval (Clopper and Pearson 1934), never below its level. 8 of 10: (.443905, .974789)."""
    from scipy.special import betaincinv

    if n <= 0 or not 0 <= hits <= n:
        raise InputError(f"{hits} hits of {n} is no share")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def rule_of_three(value: float, n: int, *, bounds: tuple[float, float], level: float = 0.95) -> tuple[float, float]:
    """Interval for a mean of values in ``bounds`` when all ``n`` independent ones were equal to ``value``.

    With probability ``level`` at most q = 1 - (alpha/2)^(1/n) of the population differs (Clopper-Pearson at zero of n;
    Hanley and Lippman-Hand 1983), and what differs lies at a bound at worst. An infinite bound stays infinite.
    """
    rest = 1 - ((1 - level) / 2) ** (1 / max(n, 1))
    low, high = bounds
    return value - rest * (value - low), value + rest * (high - value)


def standard_error(values: Values, clusters: Clusters | None = None) -> float:
    """Clustered standard error of the mean, sqrt(G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2) / n; NaN for G < 2."""
    x = np.asarray(values, dtype=float)
    groups = cluster_codes(clusters, len(x))
    if len(x) == 0 or groups.max() < 1:
        return math.nan
    sums = np.bincount(groups, weights=x - x.mean())
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / len(x)


def cluster_codes(clusters: Clusters | None, n: int) -> Codes:
    """Cluster names as whole numbers 0..G-1 in order of appearance; without names every row is its own cluster."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise InputError(f"{n} values but {len(clusters)} cluster names; give one per value")
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in clusters], dtype=np.int64)


def p_value(values: Values, clusters: Clusters | None = None) -> float | None:
    """Two-sided clustered t test of a mean of 0 (``standard_error``, G - 1 degrees of freedom); ``None`` for G < 2.

    1 where every value is 0. Where all values are the same, or all clusters are, there is no spread to test with but
    that of rounding: the sign test's 2 / 2^G stands in, and 1 where the mean is 0.
    """
    x = np.asarray(values, dtype=float)
    groups = cluster_codes(clusters, len(x))
    count = int(groups.max()) + 1 if len(x) else 0
    if count < 2:
        return None
    if not np.any(x):
        return 1.0
    error = standard_error(x, groups)
    centre, rounding = abs(float(x.mean())), _ROUNDING * float(np.abs(x).max())
    if error <= rounding or np.ptp(x) <= rounding:
        return 1.0 if centre <= rounding else 0.5 ** (count - 1)
    return min(1.0, 2 * t_cdf(-centre / error, count - 1))


def t_quantile(level: float, df: float) -> float:
    """Two-sided Student's t quantile with ``df`` degrees of freedom: 2.776445 at 0.95 and 4."""
    return two_sided(float(level), float(df))


def t_cdf(value: float, df: float) -> float:
    """P(T <= value) for Student's t with ``df`` degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(df, value))


def normal_quantile(level: float) -> float:
    """Two-sided normal quantile: 1.959964 at 0.95."""
    return normal(level)


def relative_weights(weights: Values | None, n: int) -> Array | None:
    """Weights scaled to a mean of 1; ``None`` where there are none or all are equal.

    Raises ``InputError`` for another number of them than rows, or one that is not above zero.
    """
    if weights is None:
        return None
    w = np.asarray(weights, dtype=float)
    if w.shape != (n,) or not (np.isfinite(w) & (w > 0)).all():
        raise InputError(f"{n} rows need {n} weights above zero")
    if n == 0 or np.allclose(w, w[0], rtol=1e-9, atol=0.0):
        return None
    return np.asarray(w / w.mean())


def effective_size(weights: Values) -> float:
    """Kish's effective sample size, (sum w)^2 / sum w^2: as many equal rows would tell as much."""
    w = np.asarray(weights, dtype=float)
    return float(w.sum() ** 2 / (w @ w))


def _weighted_error(x: Array, w: Array, groups: Codes, centre: float) -> float:
    """Linearised clustered standard error of sum w x / sum w."""
    sums = np.bincount(groups, weights=w * (x - centre))
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / float(w.sum())


def _weighted_mean(x: Array, w: Array, groups: Codes, *, level: float, bounds: tuple[float, float] | None) -> Estimate:
    n, count, clusters = len(x), int(groups.max()) + 1, effective_size(np.bincount(groups, weights=w))
    centre = float(w @ x / w.sum())
    if bounds is not None and bool(np.all(x == x[0])):
        low, high = rule_of_three(float(x[0]), math.ceil(clusters), bounds=bounds, level=level)
        return Estimate(float(x[0]), low, high, level, n, count, "all values equal: rule of three, weighted")
    half = t_quantile(level, max(clusters - 1, 1.0)) * _weighted_error(x, w, groups, centre)
    lowest, highest = bounds if bounds is not None else (-math.inf, math.inf)
    low, high = max(lowest, centre - half), min(highest, centre + half)
    return Estimate(centre, low, high, level, n, count, "weighted by 1/chance, clustered t")


def _weighted_share(x: Array, w: Array, groups: Codes, *, level: float) -> Estimate:
    p, clusters = float(w @ x / w.sum()), effective_size(np.bincount(groups, weights=w))
    p = min(max(p, 0.0), 1.0)
    most = effective_size(w)
    variance = _weighted_error(x, w, groups, p) ** 2
    effective = min(most, p * (1 - p) / variance) if 0 < p < 1 and variance > 0 else min(most, clusters)
    low, high = _wilson(p, effective, t_quantile(level, max(clusters - 1, 1.0)))
    method = f"weighted by 1/chance, Wilson at {effective:.0f} effective rows"
    return Estimate(p, low, high, level, len(x), int(groups.max()) + 1, method)


def _wilson(p: float, n: float, quantile: float) -> tuple[float, float]:
    square = quantile * quantile / n
    centre = (p + square / 2) / (1 + square)
    half = quantile * math.sqrt(p * (1 - p) / n + square / (4 * n)) / (1 + square)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def _bca(drawn: Array, value: float, left: Array, count: int, level: float) -> tuple[float, float]:
    from scipy.special import ndtr, ndtri

    below = float((drawn < value).mean() + (drawn == value).mean() / 2)
    edge = 0.5 / len(drawn)
    shift = float(ndtri(min(max(below, edge), 1 - edge)))
    gaps = left.mean() - left if len(left) else np.zeros(1)
    scale = float((gaps**2).sum()) ** 1.5
    bend = float((gaps**3).sum()) / (6 * scale) if scale > 0 else 0.0
    # Past these the correction says more about the few clusters than about the statistic.
    shift, bend = min(max(shift, -0.5), 0.5), min(max(bend, -0.2), 0.2)
    half = t_quantile(level, count - 1) * math.sqrt(count / (count - 1))
    edges = []
    for side in (-half, half):
        moved = shift + side
        bent = 1 - bend * moved
        edges.append(float(ndtr(shift + moved / bent)) if bent > 0 else float(side > 0))
    low, high = np.quantile(drawn, edges)
    return float(low), float(high)


def _by_cluster(rows: Array, groups: Codes) -> Array:
    count = int(groups.max()) + 1
    if count == len(rows):
        return rows
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, groups, rows)
    return sums


def _checked(values: Values, level: float) -> Array:
    if not 0 < level < 1:
        raise InputError(f"the level must lie between 0 and 1, not {level}")
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise InputError("estimates need a flat list of finite numbers; drop or count missing values first")
    return x
