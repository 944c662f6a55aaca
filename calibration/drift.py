"""Has the judge, or what it judges, changed? Anchors, streams and distributions, each with a false-alarm rate that is
known.

- The same anchor pairs re-judged, paired: power 1.00 where fresh unpaired samples have .22 (100 anchors, .25 logits).
  The flip rate stands beside the repeat-noise floor, and the headline is corrected: system change = total change -
  anchor change.
- Lengths: paired t on log length; Kolmogorov-Smirnov for the shape.
- PSI only with a calibrated threshold. "PSI > 0.2" fires on 38% of unchanged samples of 100 and on none of 500; without
  change PSI is (1/n + 1/m) chi2 with B - 1 df.
- CUSUM with a limit simulated to the wanted run length between false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array
from .estimates import Estimate, mcnemar, mean, share, standard_error, t_cdf

__all__ = [
    "AnchorDrift",
    "Cusum",
    "Moved",
    "Shift",
    "anchors",
    "corrected_change",
    "cusum",
    "cusum_limit",
    "kolmogorov_smirnov",
    "log_length",
    "moves",
    "population_stability",
    "psi_threshold",
]


Moved = Literal["preference", "accuracy", "verdicts", "stream"]
"""What of a judge has moved: its mean preference, its agreement with gold, single verdicts, or a stretch of it."""

_ALPHA = 0.05
_ANY_NOISE = 2 / 3
"""Two independent draws of one verdict differ with a chance of at most 1 - 3 (1/3)^2: more flips are no noise."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A distance between two samples, the threshold that unchanged samples pass with probability ``alpha``, and a p
    value.
    """

    statistic: float
    threshold: float
    p_value: float
    alpha: float
    n_before: int
    n_after: int
    method: str

    @property
    def changed(self) -> bool:
        """Whether the distance is beyond its threshold."""
        return self.statistic > self.threshold


@dataclass(frozen=True, slots=True)
class AnchorDrift:
    """The same anchors judged before and after.

    ``shift`` is the mean change of preference (after minus before), ``p_value`` its paired t test. ``flips`` is the
    share of anchors whose side changed; ``noise_flips`` the same between repeats under the old judge, where given, and
    ``excess`` their paired difference. ``accuracy`` is the change of agreement with anchor gold, ``mcnemar`` its exact
    p value; ``gained`` and ``lost`` count anchors that became right and wrong. ``skipped`` counts anchors invalid on
    either side; ``identical`` says that every anchor has the very same preference in both.
    """

    shift: Estimate
    p_value: float
    flips: Estimate
    noise_flips: Estimate | None
    excess: Estimate | None
    accuracy: Estimate | None
    mcnemar: float | None
    gained: int
    lost: int
    n: int
    skipped: int
    identical: bool = False


@dataclass(frozen=True, slots=True)
class Cusum:
    """Two one-sided sums over a stream: S = max(0, S + (x - mean)/sd - k), up and mirrored down.

    ``alarm_at`` is the first value (from 1) whose sum passes ``limit``, ``direction`` which one; ``None`` without
    alarm. ``run_length`` is the mean number of values between false alarms that ``limit`` was made for.
    """

    up: tuple[float, ...]
    down: tuple[float, ...]
    limit: float
    k: float
    run_length: float
    alarm_at: int | None
    direction: str | None


def anchors(
    before: Sequence[float] | Array,
    after: Sequence[float] | Array,
    *,
    repeat: Sequence[float] | Array | None = None,
    gold: Sequence[float] | Array | None = None,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> AnchorDrift | None:
    """Paired comparison of two judgings of the same anchors, preferences in [0, 1] in the same order, NaN where
    invalid.

    ``repeat`` is a second judging by the old judge (the noise floor), ``gold`` human outcomes 1, 0.5, 0 (NaN: none).
    With ``clusters`` intervals and the t test are prompt-clustered. ``None`` where no anchor is valid on both sides.
    """
    a, b = _preferences("before", before), _preferences("after", after)
    extra = None if repeat is None else _preferences("repeat", repeat)
    truth = None if gold is None else np.asarray(gold, dtype=np.float64)
    for name, other in (("after", b), ("repeat", extra), ("gold", truth), ("clusters", clusters)):
        if other is not None and len(other) != a.size:
            raise InputError(f"{name} has {len(other)} rows for {a.size} anchors; give the same anchors in order")
    valid = np.isfinite(a) & np.isfinite(b)
    if not valid.any():
        return None
    ids = np.arange(a.size) if clusters is None else np.asarray(clusters)
    shift = mean((b - a)[valid].tolist(), clusters=_names(ids[valid]), level=level, bounds=(-1.0, 1.0))
    flips = share((_side(a) != _side(b))[valid].astype(float).tolist(), clusters=_names(ids[valid]), level=level)
    assert shift is not None  # valid anchors exist
    assert flips is not None
    noise = excess = None
    if extra is not None:
        both = valid & np.isfinite(extra)
        noisy = (_side(a) != _side(extra)).astype(float)
        noise = share(noisy[both].tolist(), clusters=_names(ids[both]), level=level)
        moved = ((_side(a) != _side(b)).astype(float) - noisy)[both]
        excess = mean(moved.tolist(), clusters=_names(ids[both]), level=level, bounds=(-1.0, 1.0))
    accuracy, exact, gained, lost = None, None, 0, 0
    if truth is not None and (known := valid & np.isfinite(truth)).any():
        was, now = (_side(a) == truth)[known], (_side(b) == truth)[known]
        paired = mcnemar(now.astype(float), was.astype(float))
        gained, lost, exact = paired.only_first, paired.only_second, paired.p_exact
        change = now.astype(float) - was.astype(float)
        accuracy = mean(change.tolist(), clusters=_names(ids[known]), level=level, bounds=(-1.0, 1.0))
    return AnchorDrift(
        shift=shift,
        p_value=_t_test((b - a)[valid], ids[valid]),
        flips=flips,
        noise_flips=noise,
        excess=excess,
        accuracy=accuracy,
        mcnemar=exact,
        gained=gained,
        lost=lost,
        n=int(valid.sum()),
        skipped=int(np.sum(~valid)),
        identical=bool(np.all(a[valid] == b[valid])),
    )


def moves(found: AnchorDrift, watched: Cusum | None = None) -> tuple[Moved, ...]:
    """What of the judge has moved on the anchors; only where this is empty is it not shown to move.

    ``preference``  the paired t test of the mean preference, p < .05
    ``accuracy``    the exact McNemar test against gold, p < .05
    ``verdicts``    more verdicts changed side than repeats of the old judge do (the interval of ``excess`` lies above
                    0); without repeats, more than any noise explains (the interval of ``flips`` lies above 2/3)
    ``stream``      the CUSUM of ``watched`` raised an alarm

    A mean hides changes that cancel, so one of the four is enough. Each has its own level: of judges that stand still
    up to 14% show one of the first three by chance, which asks for a look, not for a verdict.
    """
    noisy = found.flips.low > _ANY_NOISE if found.excess is None else found.excess.low > 0.0
    shown: dict[Moved, bool] = {
        "preference": found.p_value < _ALPHA,
        "accuracy": found.mcnemar is not None and found.mcnemar < _ALPHA,
        "verdicts": noisy,
        "stream": watched is not None and watched.alarm_at is not None,
    }
    return tuple(name for name, moved in shown.items() if moved)


def corrected_change(total: Estimate, anchor: Estimate) -> Estimate:
    """Change of the system = total change - change of the judge on anchors; intervals combined in quadrature.

    Assumes that anchors and system are judged apart (independent errors) and that the judge's change is the same on
    both.
    """
    value = total.value - anchor.value
    down = float(np.hypot(total.value - total.low, anchor.high - anchor.value))
    up = float(np.hypot(total.high - total.value, anchor.value - anchor.low))
    return Estimate(
        value=value,
        low=value - down,
        high=value + up,
        level=min(total.level, anchor.level),
        n=total.n,
        clusters=total.clusters,
        method="total minus anchor change, quadrature",
    )


def log_length(
    before: Sequence[float] | Array,
    after: Sequence[float] | Array,
    *,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
) -> Estimate | None:
    """Mean of ln(after / before) over the same prompts: exp(value) - 1 is the relative growth. Paired, t interval.

    Lengths of 0 count as 1 (an empty answer is short, not absent). ``None`` without prompts.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape:
        raise InputError(f"lengths must be paired by prompt: {old.size} before, {new.size} after")
    if not (np.all(old >= 0.0) and np.all(new >= 0.0)):
        raise InputError("lengths must be numbers of at least 0")
    ratio = np.log(np.maximum(new, 1.0)) - np.log(np.maximum(old, 1.0))
    return mean(ratio.tolist(), clusters=clusters, level=level)


def kolmogorov_smirnov(
    before: Sequence[float] | Array, after: Sequence[float] | Array, *, alpha: float = 0.01
) -> Shift | None:
    """Largest distance of two distribution functions, for change of shape; ``None`` where a sample is empty."""
    from scipy.stats import ks_2samp, kstwobign

    old, new = _sample("before", before), _sample("after", after)
    if not old.size or not new.size:
        return None
    result = ks_2samp(old, new, method="asymp" if old.size * new.size > 10_000 else "auto")
    rows = old.size * new.size / (old.size + new.size)
    limit = float(kstwobign.isf(alpha) / np.sqrt(rows))
    return Shift(float(result.statistic), limit, float(result.pvalue), alpha, old.size, new.size, "Kolmogorov-Smirnov")


def psi_threshold(n_before: int, n_after: int, *, bins: int = 10, alpha: float = 0.01) -> float:
    """PSI that unchanged samples pass with probability ``alpha``: (1/n + 1/m) times the chi2 quantile with bins - 1
    df.
    """
    from scipy.stats import chi2

    if min(n_before, n_after) < 1 or bins < 2:
        raise InputError(f"PSI needs two samples and at least 2 bins; got {n_before}, {n_after} rows and {bins} bins")
    return float((1.0 / n_before + 1.0 / n_after) * chi2.isf(alpha, bins - 1))


def population_stability(
    before: Sequence[float] | Array,
    after: Sequence[float] | Array,
    *,
    bins: int = 10,
    alpha: float = 0.01,
    permutations: int = 0,
    seed: int = 0,
) -> Shift | None:
    """Population stability index with a calibrated threshold; ``None`` where a sample is empty.

    sum (p_b - q_b) ln(p_b / q_b) over bins at the quantiles of both samples pooled; empty cells count as half a row.
    Fewer bins remain where values repeat. ``permutations`` > 0 takes threshold and p from relabelled samples instead of
    the chi2 law, which is the honest choice below about 10 rows a bin.
    """
    old, new = _sample("before", before), _sample("after", after)
    if not old.size or not new.size:
        return None
    pooled = np.concatenate([old, new])
    edges = np.unique(pooled)
    if edges.size > bins:  # few distinct values are their own bins
        edges = np.unique(np.quantile(pooled, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    code = np.unique(np.searchsorted(edges, pooled, side="left"), return_inverse=True)[1]
    used = int(code.max()) + 1
    value = float(_psi(code[None, :], old.size, used)[0])
    if used == 1:
        return Shift(0.0, 0.0, 1.0, alpha, old.size, new.size, "PSI, all values equal")
    if permutations > 0:
        rng = np.random.default_rng(seed)
        null = _psi(np.array([rng.permutation(code) for _ in range(permutations)]), old.size, used)
        p_value = float((1 + np.sum(null >= value)) / (1 + permutations))
        limit, method = float(np.quantile(null, 1.0 - alpha)), f"PSI, {used} bins, {permutations} permutations"
    else:
        from scipy.stats import chi2

        limit = psi_threshold(old.size, new.size, bins=used, alpha=alpha)
        p_value = float(chi2.sf(value / (1.0 / old.size + 1.0 / new.size), used - 1))
        method = f"PSI, {used} bins, chi2 law"
    return Shift(value, limit, p_value, alpha, old.size, new.size, method)


def cusum_limit(run_length: float, *, k: float = 0.25, seed: int = 0, streams: int = 400) -> float:
    """The limit at which a two-sided CUSUM of standard normal values alarms once in ``run_length`` values on average.

    Simulated: ``streams`` streams of four times the run length (capped at 20,000 values); waiting times that outlast
    the stream are counted as exposure without an alarm, so that the cut does not bias the rate.
    """
    if not run_length >= 10.0:
        raise InputError(f"run_length must be at least 10 values; got {run_length}")
    if not k >= 0.0:
        raise InputError(f"k must be at least 0; got {k}")
    rng = np.random.default_rng(seed)
    length = int(min(4.0 * run_length, 20_000))
    peaks = np.empty((length, streams))
    up, down, peak = np.zeros(streams), np.zeros(streams), np.zeros(streams)
    for t in range(length):
        x = rng.standard_normal(streams)
        up, down = np.maximum(0.0, up + x - k), np.maximum(0.0, down - x - k)
        np.maximum(peak, np.maximum(up, down), out=peak)
        peaks[t] = peak

    def mean_run(limit: float) -> float:
        """Exposure over alarms: unbiased for the rate of the (nearly exponential) waiting time in cut streams."""
        crossed = peaks > limit
        alarms = crossed[-1].sum()
        return float((~crossed).sum() + alarms) / max(float(alarms), 0.5)

    low, high = 0.0, float(peaks.max())
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean_run(middle) < run_length else (low, middle)
    return 0.5 * (low + high)


def cusum(
    values: Sequence[float] | Array,
    *,
    centre: float,
    sd: float,
    shift: float = 0.5,
    run_length: float = 2000.0,
    limit: float | None = None,
    seed: int = 0,
) -> Cusum:
    """Watch a stream for a lasting change of ``shift`` standard deviations (k = shift / 2), in either direction.

    ``centre`` and ``sd`` come from the stream's own stable history. ``limit`` defaults to ``cusum_limit(run_length)``,
    which assumes roughly normal values: average small groups first where they are not. No values, no alarm.
    """
    x = _sample("values", values)
    if not sd > 0.0:
        raise InputError(f"sd must be above 0; got {sd}: a constant history has no scale to measure drift in")
    k = 0.5 * shift
    edge = cusum_limit(run_length, k=k, seed=seed) if limit is None else limit
    up, down = np.zeros(x.size), np.zeros(x.size)
    high = low = 0.0
    for t, z in enumerate((x - centre) / sd):
        high, low = max(0.0, high + z - k), max(0.0, low - z - k)
        up[t], down[t] = high, low
    out = np.flatnonzero((up > edge) | (down > edge))
    at = int(out[0]) if out.size else None
    direction = None if at is None else ("up" if up[at] > edge else "down")
    alarm_at = None if at is None else at + 1
    return Cusum(tuple(up.tolist()), tuple(down.tolist()), edge, k, run_length, alarm_at, direction)


def _preferences(name: str, values: Sequence[float] | Array) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or np.any((x < 0.0) | (x > 1.0)):
        raise InputError(f"{name} must be preferences in [0, 1], NaN where invalid")
    return x


def _sample(name: str, values: Sequence[float] | Array) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.all(np.isfinite(x)):
        raise InputError(f"{name} must be finite numbers; leave missing values out and count them")
    return x


def _names(ids: npt.NDArray[Any]) -> list[str]:
    return [str(i) for i in ids]


def _side(preference: Array) -> Array:
    return np.asarray(np.where(preference > 0.5, 1.0, np.where(preference < 0.5, 0.0, 0.5)))


def _t_test(x: Array, ids: npt.NDArray[Any]) -> float:
    """Two-sided cluster-robust t test of mean 0; 1 where it cannot be computed (one cluster, or no change anywhere)."""
    groups = np.unique(ids).size
    if groups < 2 or not np.any(x != 0.0):
        return 1.0
    error = standard_error(x, _names(ids))
    return 2.0 * t_cdf(-abs(float(x.mean())) / error, groups - 1) if error > 0.0 else 0.0


def _psi(codes: npt.NDArray[np.intp], first: int, bins: int) -> Array:
    """PSI of each row of bin codes, whose first ``first`` columns are the old sample."""
    offset = np.arange(len(codes))[:, None] * bins

    def shares(part: npt.NDArray[np.intp]) -> Array:
        count = np.bincount((part + offset).ravel(), minlength=len(codes) * bins).reshape(len(codes), bins)
        filled = np.maximum(count.astype(np.float64), 0.5)
        return np.asarray(filled / filled.sum(axis=1, keepdims=True))

    p, q = shares(codes[:, :first]), shares(codes[:, first:])
    return np.asarray(((p - q) * np.log(p / q)).sum(axis=1))
