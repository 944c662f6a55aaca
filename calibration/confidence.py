"""A judge's own probability turned into the human one, for exactly one rubric, one judge and one gold set.

``fit`` chooses a map by sample size and by log loss on held-out prompts; the ``Calibration`` it returns carries
coefficients (never a pickle), its held-out quality and its identity, and refuses to speak for another rubric or judge.

Which maps compete depends on the number of labelled prompts, after simulations with an over-confident judge (mean
distance to the true probability at 50 / 300 / 1000 labels: temperature .060 / .046 / .043, smoothed Platt .067 / .030 /
.018, beta .080 / .036 / .021, Venn-Abers .076 / .049 / .034, isotonic .113 / .060 / .038):

    below 100   temperature
    from 100    + smoothed Platt, + ordinal where at least 5% of the labels are ties
    from 300    + beta
    from 1000   + Venn-Abers, + isotonic
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .calibrators import METHODS, Array, Coefficients, evaluate, fit_map, venn_abers_interval
from .estimates import Estimate, mean
from .reliability import log_losses, validated

__all__ = ["MINIMUM", "Calibration", "NotCalibrated", "cross_fit", "fit"]

MINIMUM = 30
"""Labelled prompts below which no calibration is fitted."""
_FORMAT = 1


class NotCalibrated(InputError):
    """No calibration applies here: too few labels, labels of one kind only, or fitted for another rubric or judge."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map from judge preference to human preference, and what it may be used for.

    ``rubric``, ``judge`` and ``gold`` are the reference, id and digest it was fitted on. ``method`` and
    ``coefficients`` define the map; ``tie`` is the Davidson parameter that splits the mean into win, tie and loss (0:
    no ties in the gold set). ``n`` counts labels, ``clusters`` prompts. ``quality`` holds out-of-fold figures:
    ``log_loss``, ``brier``, the same ``_raw`` for the judge's own probabilities, ``log_loss_gain`` (raw minus
    calibrated, paired; above 0 is better) and ``brier_gain`` (the base rate's score minus the calibrated judge's,
    paired; not above 0 where the judge says no more than how often the candidate wins). ``considered`` is the held-out
    log loss of every map that competed.
    ``certified`` maps a tolerated error rate (``"0.1"``) to the confidence from which on the judge may decide alone
    (``selective.certify``); a rate without an entry could not be certified. ``dated`` is when the run began that
    asked for the oldest verdict it was fitted on (UTC, ISO 8601; empty: not known).
    ``sources`` name the collections of its labels, ``evalset`` is the digest of the eval set whose pairs they are of
    (empty: not recorded). ``notes`` say in plain words what is odd.

    Example::

        calibration = fit(preferences, outcomes, rubric="helpfulness@1", judge="local@3f2a", gold="9c1e...")
        calibration.require(rubric="helpfulness@1", judge="local@3f2a").apply(0.93)
    """

    rubric: str
    judge: str
    gold: str
    method: str
    coefficients: Coefficients
    tie: float
    n: int
    clusters: int
    quality: Mapping[str, Estimate] = field(default_factory=dict)
    considered: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    certified: Mapping[str, float] = field(default_factory=dict)
    dated: str = ""
    sources: tuple[str, ...] = ()
    evalset: str = ""

    def require(self, *, rubric: str, judge: str) -> Calibration:
        """Return this calibration if it was fitted for ``rubric`` and ``judge``; raises ``NotCalibrated`` otherwise."""
        for what, mine, asked in (("rubric", self.rubric, rubric), ("judge", self.judge, judge)):
            if mine != asked:
                raise NotCalibrated(
                    f"this calibration was fitted for {what} {mine!r}, not for {asked!r}; "
                    f"run `judge calibrate` with gold labels for that {what}"
                )
        return self

    def apply(self, preference: float) -> float:
        """The calibrated preference, P(win) + P(tie)/2 on the human scale; raises ``InputError`` outside [0, 1]."""
        return float(self.apply_all([preference])[0])

    def apply_all(self, preferences: Sequence[float] | Array) -> Array:
        """``apply`` for many preferences at once; raises ``InputError`` naming the first that is not in [0, 1]."""
        p = np.asarray(preferences, dtype=np.float64)
        bad = np.flatnonzero(~((p >= 0.0) & (p <= 1.0)))
        if bad.size:
            raise InputError(f"preference {bad[0]} is {p[bad[0]]}, not in [0, 1]; an invalid comparison has none")
        return evaluate(self.method, self.coefficients, p)

    def confidence(self, preference: float) -> float:
        """Human-scale probability that the side the judge prefers is the better one (a tie counts half).

        Below 0.5 the judge's own preference points the wrong way: gold humans side against it at this value.
        """
        value = self.apply(preference)
        return value if preference >= 0.5 else 1.0 - value

    def outcomes(self, preference: float) -> tuple[float, float, float]:
        """Human-scale P(win), P(tie), P(loss) for one preference; they sum to 1 and P(win) + P(tie)/2 is ``apply``."""
        value = self.apply(preference)
        if self.method == "ordinal":
            high, low = (float(np.ravel(x)[0]) for x in _ordinal_outcomes(self.coefficients, np.array([preference])))
            return high, 1.0 - high - low, low
        tie = float(_tie_share(np.array([value]), self.tie)[0])
        return value - 0.5 * tie, tie, 1.0 - value - 0.5 * tie

    def interval(self, preference: float) -> tuple[float, float] | None:
        """Venn-Abers' lower and upper probability for one preference, ``None`` for every other method.

        Their distance says how sure the calibration itself is at this value.
        """
        self.apply(preference)
        if self.method != "venn_abers":
            return None
        low, high = venn_abers_interval(self.coefficients, np.array([preference]))
        return float(low[0]), float(high[0])

    def to_json(self) -> str:
        """One JSON object with sorted keys; ``from_json`` gives back an equal value."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """The calibration written by ``to_json``; raises ``InputError`` for anything else."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.pop("format") != _FORMAT:
                raise InputError(f"calibration file has another format than {_FORMAT}; refit it with this version")
            raw["coefficients"] = {str(k): tuple(float(x) for x in v) for k, v in raw["coefficients"].items()}
            raw["quality"] = {str(k): Estimate(**v) for k, v in raw["quality"].items()}
            raw["notes"] = tuple(raw["notes"])
            raw["sources"] = tuple(raw.get("sources", ()))
            raw["certified"] = {str(k): float(v) for k, v in raw.get("certified", {}).items()}
            made = cls(**raw)
            evaluate(made.method, made.coefficients, np.array([0.5]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            message = "not a calibration file, or not a whole one; write one with `judge calibrate`"
            raise InputError(message) from error
        return made


def fit(
    preferences: Sequence[float] | Array,
    outcomes: Sequence[float] | Array,
    *,
    rubric: str,
    judge: str,
    gold: str,
    clusters: Sequence[str] | None = None,
    method: str | None = None,
    seed: int = 0,
) -> Calibration:
    """Fit the map from judge preference to human outcome, choosing it by held-out log loss.

    ``preferences`` are two-order soft preferences in [0, 1], ``outcomes`` human labels 1, 0.5 or 0 for the candidate,
    one row per label; rows of one prompt share an id in ``clusters`` (all its orders, candidates and annotators) and
    stay in one fold. ``method`` forces one of ``calibrators.METHODS``. The choice among at most six maps is made on the
    same folds that measure them, an optimism of well under the standard error shown.

    Raises ``NotCalibrated`` below ``MINIMUM`` prompts and where all outcomes are alike, ``InputError`` for bad values.
    """
    p, y, codes = validated(preferences, outcomes, clusters)
    groups = int(codes.max()) + 1 if codes.size else 0
    if groups < MINIMUM:
        raise NotCalibrated(f"a calibration needs at least {MINIMUM} labelled prompts; this gold set has {groups}")
    if np.ptp(y) == 0.0:
        only = {1.0: "win", 0.5: "tie", 0.0: "loss"}[float(y[0])]
        raise NotCalibrated(f"all {y.size} human labels are one kind ({only}); a calibration needs wins and losses")
    if method is not None and method not in METHODS:
        raise InputError(f"unknown calibration method {method!r}; use one of {', '.join(METHODS)}")
    folds = _folds(codes, groups, seed)
    if np.ptp(p) == 0.0:
        names: tuple[str, ...] = ("constant",)
    else:
        names = (method,) if method else _competing(groups, float(np.mean(y == 0.5)))
    held = {name: _held_out(name, p, y, folds) for name in names}
    considered = {name: float(log_losses(value, y).mean()) for name, value in held.items()}
    best = min(names, key=lambda name: considered[name])
    coefficients = fit_map(best, p, y)
    return Calibration(
        rubric=rubric,
        judge=judge,
        gold=gold,
        method=best,
        coefficients=coefficients,
        tie=_fit_tie(held[best], y),
        n=y.size,
        clusters=groups,
        quality=_quality(p, held[best], _held_out("constant", p, y, folds), y, codes),
        considered=considered,
        notes=_notes(p, y, best, coefficients, considered),
    )


def cross_fit(
    preferences: Sequence[float] | Array,
    outcomes: Sequence[float] | Array,
    method: str,
    *,
    clusters: Sequence[str] | None = None,
    seed: int = 0,
) -> Array:
    """Calibrated preferences of every row from maps that never saw its prompt: five folds of whole prompts.

    Give these, never in-sample values, to ``reliability.assess``. The folds are those of ``fit`` with the same seed.
    """
    p, y, codes = validated(preferences, outcomes, clusters)
    groups = int(codes.max()) + 1 if codes.size else 0
    if groups < 2:
        raise NotCalibrated(f"cross-fitting needs at least 2 prompts; got {groups}")
    return _held_out(method, p, y, _folds(codes, groups, seed))


def _competing(groups: int, ties: float) -> tuple[str, ...]:
    floors = {"temperature": 0, "platt": 100, "ordinal": 100, "beta": 300, "venn_abers": 1000, "isotonic": 1000}
    return tuple(name for name in METHODS if groups >= floors[name] and (name != "ordinal" or ties >= 0.05))


def _folds(codes: npt.NDArray[np.intp], groups: int, seed: int) -> npt.NDArray[np.intp]:
    order = np.random.default_rng(seed).permutation(groups)
    return np.asarray((order % min(5, groups))[codes], dtype=np.intp)


def _held_out(method: str, p: Array, y: Array, folds: npt.NDArray[np.intp]) -> Array:
    out = np.empty_like(p)
    for fold in np.unique(folds):
        here = folds == fold
        out[here] = evaluate(method, fit_map(method, p[~here], y[~here]), p[here])
    return out


def _quality(p: Array, held: Array, base: Array, y: Array, codes: npt.NDArray[np.intp]) -> dict[str, Estimate]:
    raw, own = log_losses(p, y), log_losses(held, y)
    series = {
        "log_loss": own,
        "log_loss_raw": raw,
        "log_loss_gain": raw - own,
        "brier": (held - y) ** 2,
        "brier_raw": (p - y) ** 2,
        "brier_gain": (base - y) ** 2 - (held - y) ** 2,
    }
    names = [str(code) for code in codes]
    estimates = {name: mean(values.tolist(), clusters=names) for name, values in series.items()}
    return {name: value for name, value in estimates.items() if value is not None}


def _notes(
    p: Array, y: Array, method: str, coefficients: Coefficients, considered: Mapping[str, float]
) -> tuple[str, ...]:
    notes = []
    if method == "constant":
        notes.append(f"the judge gives {p[0]:.3f} to every pair, so only the base rate is left")
    slope = coefficients.get("slope")
    if slope and slope[0] <= 0.0:
        notes.append("the judge's preference does not rise with the human one: it is inverted or uninformative")
    elif method == "temperature" and slope and slope[0] < 0.5:
        notes.append(f"over-confident: its log odds shrink to {slope[0]:.2f} of what it says")
    edge = float(np.mean((p < 0.01) | (p > 0.99)))
    if edge > 0.5:
        notes.append(f"{edge:.0%} of the judge's preferences lie beyond .01/.99; log odds are clipped at 1e-6")
    uninformed = float(log_losses(np.full_like(y, y.mean()), y).mean())
    if considered[method] >= uninformed:
        notes.append("held-out log loss is no better than the base rate: this judge adds nothing on this gold set")
    return tuple(notes)


def _ordinal_outcomes(coefficients: Coefficients, p: Array) -> tuple[Array, Array]:
    """P(win) and P(loss): shifting both thresholds together is the mean model of ``calibrators.evaluate``."""
    half = coefficients["half"][0]
    base = {"slope": coefficients["slope"], "shift": (coefficients["shift"][0] - half,)}
    flip = {"slope": coefficients["slope"], "shift": (coefficients["shift"][0] + half,)}
    return evaluate("platt", base, p), 1.0 - evaluate("platt", flip, p)


def _tie_share(value: Array, nu: float) -> Array:
    """P(tie) of the Davidson model with tie parameter ``nu`` whose P(win) + P(tie)/2 is ``value``.

    With strength ratio x^2: value = (x^2 + nu x/2)/(x^2 + nu x + 1), a quadratic in x; P(tie) = nu x/(x^2 + nu x + 1).
    """
    v = np.minimum(value, 1.0 - value)
    b = nu * (0.5 - v)
    x = (-b + np.sqrt(b * b + 4.0 * v * (1.0 - v))) / (2.0 * (1.0 - v))
    return np.asarray(nu * x / (x * x + nu * x + 1.0))


def _fit_tie(value: Array, y: Array) -> float:
    """Maximum likelihood of the Davidson tie parameter given held-out mean preferences; 0 without ties."""
    if not np.any(y == 0.5):
        return 0.0
    from scipy.optimize import minimize_scalar

    v = np.clip(value, 1e-6, 1.0 - 1e-6)

    def negative(log_nu: float) -> float:
        tie = _tie_share(v, float(np.exp(log_nu)))
        chosen = np.where(y == 0.5, tie, np.where(y == 1.0, v - 0.5 * tie, 1.0 - v - 0.5 * tie))
        return float(-np.sum(np.log(np.maximum(chosen, 1e-12))))

    return float(np.exp(minimize_scalar(negative, bounds=(-6.0, 6.0), method="bounded").x))
