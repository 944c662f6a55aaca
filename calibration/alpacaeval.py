"""AlpacaEval 2's length-controlled win rate, by name and step by step.

Dubois, Galambosi, Liang, Hashimoto 2024 (arXiv 2404.04475), as computed by alpaca_eval's ``length_controlled_v1``:

1. preference in [0, 1] from the judge's log probabilities; 0.5 where it is missing a side.
2. x = tanh(d / sd(d)), d = baseline length - candidate length in characters, sd over the candidate's prompts, ddof 1,
   not centred. (Baseline minus model: published coefficients are negative, -1.8 on average.)
3. logit = a x + b difficulty + c * [not a gamed baseline], no intercept.
4. Regulariser: rows of a verbose and a concise variant of the baseline, with the last feature 0 and weight 0.2 / 2
   each.
5. Lasso by liblinear, C on ten steps from 1e-4 to 1e4, chosen by 5-fold cross-validated continuous log loss.
6. LC = mean over prompts of sig(b difficulty + c).

Difficulties and gamed rows are published apart from the package and are given by the caller. Without the gamed rows the
figures agree to about half a point at the median, except for candidates built to game length (27.0 against 12.19).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import Array, logistic
from .estimates import Estimate, mean

__all__ = ["AlpacaEval2", "GamedRows", "alpacaeval2"]


@dataclass(frozen=True, slots=True)
class GamedRows:
    """The regulariser: preferences, x (tanh of the standardised length difference) and difficulty of the gamed
    baselines.
    """

    preferences: Sequence[float]
    x: Sequence[float]
    difficulty: Sequence[float]


@dataclass(frozen=True, slots=True)
class AlpacaEval2:
    """Both published figures as shares in [0, 1].

    ``win_rate`` is the mean preference with its interval; ``length_controlled`` the LC rate with a delta-method
    interval at the chosen penalty; ``coefficients`` are (length, difficulty, level); ``penalty`` is the chosen C.
    ``lc_standard_error`` is what AlpacaEval prints under that name: the standard error of the fitted probabilities,
    which is no sampling error of LC (0.14 points for a constant answer).
    """

    win_rate: Estimate
    length_controlled: Estimate
    coefficients: tuple[float, float, float]
    penalty: float
    lc_standard_error: float

    @property
    def extreme(self) -> bool:
        """Whether LC is over 10 points and over a quarter of the way to 0 or 1 from the raw rate: AlpacaEval warns
        then.
        """
        raw, lc = self.win_rate.value, self.length_controlled.value
        return lc < min(0.75 * raw, raw - 0.1) or lc > max(raw + 0.25 * (1.0 - raw), raw + 0.1)


def alpacaeval2(
    preferences: Sequence[float] | Array,
    candidate_lengths: Sequence[float] | Array,
    baseline_lengths: Sequence[float] | Array,
    difficulty: Sequence[float] | Array,
    *,
    gamed: GamedRows | None = None,
    level: float = 0.95,
) -> AlpacaEval2 | None:
    """AlpacaEval 2's two figures for one candidate; one row per prompt, lengths in characters.

    ``None`` for an empty set. Raises ``InputError`` for unequal lengths, values that are not finite, preferences
    outside [0, 1], or fewer than 10 rows (five folds need two each).
    """
    y, ours, theirs, d = (
        np.asarray(v, dtype=np.float64) for v in (preferences, candidate_lengths, baseline_lengths, difficulty)
    )
    if y.ndim != 1 or not (y.shape == ours.shape == theirs.shape == d.shape):
        raise InputError("preferences, lengths and difficulty must be four lists of one length")
    if y.size == 0:
        return None
    if y.size < 10:
        raise InputError(f"the AlpacaEval 2 estimator needs at least 10 prompts for its five folds; got {y.size}")
    if not all(np.all(np.isfinite(v)) for v in (y, ours, theirs, d)) or np.any((y < 0.0) | (y > 1.0)):
        raise InputError("preferences must lie in [0, 1] and lengths and difficulty be finite; leave invalid rows out")
    delta = theirs - ours
    spread = float(np.std(delta, ddof=1))
    x = np.tanh(delta / spread) if spread > 0.0 else np.zeros_like(delta)
    design, target, weight = np.column_stack([x, d, np.ones_like(x)]), y, np.ones_like(y)
    if gamed is not None:
        extra = np.column_stack([gamed.x, gamed.difficulty, np.zeros(len(gamed.x))])
        design, target = np.vstack([extra, design]), np.append(np.asarray(gamed.preferences, dtype=np.float64), target)
        weight = np.append(np.full(len(extra), 0.1), weight)
    beta, penalty = _lasso_cv(design, target, weight)
    rate = logistic(d * beta[1] + beta[2])
    raw = mean(y.tolist(), level=level, bounds=(0.0, 1.0))
    assert raw is not None  # y is not empty
    return AlpacaEval2(
        win_rate=raw,
        length_controlled=_interval(design, target, weight, beta, rate, level=level),
        coefficients=(float(beta[0]), float(beta[1]), float(beta[2])),
        penalty=penalty,
        lc_standard_error=float(np.std(rate, ddof=1) / np.sqrt(rate.size)),
    )


def _lasso_cv(design: Array, y: Array, weight: Array) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    n = y.size
    rows = np.tile(np.arange(n), 2)
    label = np.repeat([1, 0], n)
    mass = np.concatenate([y, 1.0 - y]) * np.tile(weight, 2)

    def fit(keep: npt.NDArray[np.intp], penalty: float) -> Array:
        model = LogisticRegression(l1_ratio=1.0, C=penalty, solver="liblinear", fit_intercept=False, random_state=123)
        model.fit(design[rows[keep]], label[keep], sample_weight=mass[keep])
        return np.asarray(model.coef_[0], dtype=np.float64)

    folds = [(train, np.unique(rows[test])) for train, test in GroupKFold(5).split(rows[:, None], groups=rows)]
    grid = np.logspace(-4, 4, 10)
    score = np.zeros(grid.size)
    for train, test in folds:
        for k, penalty in enumerate(grid):
            p = np.clip(logistic(design[test] @ fit(train, float(penalty))), 1e-15, 1.0 - 1e-15)
            score[k] += np.mean(weight[test] * (y[test] * np.log(p) + (1.0 - y[test]) * np.log1p(-p)))
    best = float(grid[int(np.argmax(score))])
    return fit(np.arange(2 * n), best), best


def _interval(design: Array, y: Array, weight: Array, beta: Array, rate: Array, *, level: float) -> Estimate:
    """Delta method with a sandwich over rows, the penalty held at its choice."""
    from scipy.stats import t

    n = rate.size
    own = np.arange(y.size) >= y.size - n
    fitted = logistic(design @ beta)
    hessian = (design * (weight * fitted * (1.0 - fitted))[:, None]).T @ design + 1e-6 * np.eye(3)
    equal = design[own] * np.array([0.0, 1.0, 1.0])
    slope = (equal * (rate * (1.0 - rate))[:, None]).mean(axis=0)
    influence = (design @ np.linalg.solve(hessian, slope)) * weight * (y - fitted)
    influence[own] += (rate - rate.mean()) / n
    reach = float(t.ppf(0.5 + level / 2.0, n - 1) * np.sqrt(np.sum(influence**2) * n / (n - 1)))
    value = float(rate.mean())
    return Estimate(
        value=value,
        low=max(value - reach, 0.0),
        high=min(value + reach, 1.0),
        level=level,
        n=n,
        clusters=n,
        method="AlpacaEval 2 length-controlled GLM, delta method",
    )
