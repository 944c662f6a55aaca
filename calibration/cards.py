"""The parts of a calibration report that are made of several measures: confidence, selection, biases and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .bias import (
    FamilyBias,
    FlipSources,
    PositionBias,
    StyleSlope,
    family_bias,
    flip_sources,
    position_bias,
    style_bias,
)
from .confidence import Calibration, NotCalibrated, cross_fit, fit
from .drift import AnchorDrift, Cusum, Shift, anchors, cusum, population_stability
from .evidence import Evidence, Matched
from .gold import outcome_value
from .length import length_feature
from .makers import maker
from .provenance import Refused, join
from .reliability import Reliability, assess
from .segments import benjamini_hochberg
from .selective import Certificate, certify, cheapest_threshold, equal_chance, errors, risk_bound

__all__ = [
    "BiasCard",
    "ConfidenceCard",
    "ConfidenceSlice",
    "CurvePoint",
    "DriftCard",
    "SelectiveCard",
    "bias_card",
    "confidence_card",
    "drift_card",
    "selective_card",
]

Array = npt.NDArray[np.float64]

ALPHAS = (0.05, 0.1, 0.2)
DELTA = 0.1
_SLICE = 30
_POINTS = 40
_RUN_LENGTH = 1000.0
_GROUP = 10


@dataclass(frozen=True, slots=True)
class ConfidenceSlice:
    """Calibration within one category or one third of the answer lengths: the judge's own, and held-out calibrated."""

    name: str
    n: int
    raw: Reliability
    calibrated: Reliability | None


@dataclass(frozen=True, slots=True)
class ConfidenceCard:
    """Is the judge's confidence the humans'? ``fitted`` is the chosen map (or why there is none), ``raw`` the judge's
    own preferences, ``calibrated`` the same through maps that never saw the prompt; ``n`` counts annotators' labels.
    """

    fitted: Calibration | Refused
    raw: Reliability | None
    calibrated: Reliability | None
    slices: tuple[ConfidenceSlice, ...]
    n: int


def confidence_card(evidence: Evidence, matched: Matched, *, level: float, rounds: int, seed: int) -> ConfidenceCard:
    """Fit and measure the probability calibration on every annotator's label of a pair with a verdict.

    A repeated judgement is fitted repeat by repeat: a calibration serves one judgement of two calls, not a mean.
    """
    votes = [
        (p, value, item.prompt_id, item.category or evidence.run.rows[k].category, k)
        for item, k in zip(matched.gold.items, matched.rows, strict=True)
        for p in evidence.singles(int(k))
        for value in _values(item.shares, len(item.labels))
    ]
    if not votes:
        none = Refused(
            "no_labels", "no labelled pair has a verdict", "label pairs of this run: `judge label` draws them"
        )
        return ConfidenceCard(none, None, None, (), 0)
    p, y = np.array([vote[0] for vote in votes]), np.array([vote[1] for vote in votes])
    prompts = [vote[2] for vote in votes]
    fitted: Calibration | Refused
    held: Array | None = None
    try:
        fitted = fit(
            p, y, rubric=evidence.rubric, judge=evidence.judge, gold=matched.digest, clusters=prompts, seed=seed
        )
        held = cross_fit(p, y, fitted.method, clusters=prompts, seed=seed)
    except NotCalibrated as error:
        fitted = Refused("too_few", str(error), "label more pairs of this run")

    def card(rows: npt.NDArray[np.bool_], forecast: Array | None, draws: int) -> Reliability | None:
        if forecast is None:
            return None
        own = [name for name, inside in zip(prompts, rows, strict=True) if inside]
        return assess(forecast[rows], y[rows], clusters=own, level=level, rounds=draws, seed=seed)

    everything = np.ones(len(votes), dtype=bool)
    slices = []
    for name, inside in _slices(evidence, [vote[3] for vote in votes], [vote[4] for vote in votes]):
        raw = card(inside, p, rounds // 10)
        if raw is not None:
            slices.append(ConfidenceSlice(name, int(inside.sum()), raw, card(inside, held, rounds // 10)))
    return ConfidenceCard(
        fitted=fitted,
        raw=card(everything, p, rounds // 2),
        calibrated=card(everything, held, rounds // 2),
        slices=tuple(slices),
        n=len(votes),
    )


def _values(shares: tuple[float, float, float], labels: int) -> list[float]:
    """One outcome value for each annotator (one where the source gives a single outcome)."""
    counts = [round(share * max(labels, 1)) for share in shares]
    return [value for value, count in zip((1.0, 0.5, 0.0), counts, strict=True) for _ in range(count)]


def _slices(
    evidence: Evidence, categories: Sequence[str], rows: Sequence[int]
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Categories and thirds of the answers' length that hold enough labels to say anything."""
    own = np.array(categories, dtype=object)
    found = [(str(name), np.asarray(own == name)) for name in sorted(set(categories)) if name]
    found = found if len(found) > 1 else []
    lengths = np.array(
        [
            np.nan
            if row.candidate_length is None or row.baseline_length is None
            else row.candidate_length + row.baseline_length
            for row in (evidence.run.rows[k] for k in rows)
        ],
        dtype=float,
    )
    known = np.isfinite(lengths)
    if known.any():
        low, high = np.quantile(lengths[known], [1 / 3, 2 / 3])
        thirds = (("short answers", lengths <= low), ("middling answers", (lengths > low) & (lengths <= high)))
        found += [*thirds, ("long answers", lengths > high)]
    return [(name, inside) for name, inside in found if int(inside.sum()) >= _SLICE]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Judge only from ``threshold`` up: share of gold that remains, error rate there, its upper bound (pointwise)."""

    threshold: float
    coverage: float
    n: int
    risk: float
    bound: float


@dataclass(frozen=True, slots=True)
class SelectiveCard:
    """Where the judge may decide alone.

    ``certificates`` for each tolerated error rate, strict first, or why none can be given: labels that nobody drew at
    random promise nothing about other pairs. ``curve`` is the risk-coverage curve; ``cheapest`` the threshold with the
    least cost per pair (``None``: label everything) where a human label costs 1 and a wrong verdict ``error_cost``;
    ``abstained`` how many pairs of the run each certificate sends to people. All of it rests on ``n`` labelled pairs
    that were drawn with one chance; ``thinned`` counts those left out of an unequal draw to make it so.
    """

    certificates: tuple[Certificate, ...] | Refused
    abstained: tuple[int, ...]
    curve: tuple[CurvePoint, ...]
    cheapest: float | None
    cost: float
    error_cost: float
    n: int
    thinned: int = 0


def selective_card(evidence: Evidence, matched: Matched, *, error_cost: float, seed: int) -> SelectiveCard:
    """Certify abstention thresholds on the judge's own confidence; one row a labelled pair that was drawn at random.

    Labels without a random draw are refused (kind ``not_random``), as ``join`` refuses them for the win rate. A draw
    with unequal chances is thinned to equal ones.
    """
    drawn = _drawn(evidence, matched)
    if isinstance(drawn, Refused):
        return SelectiveCard(drawn, (), (), None, 1.0, error_cost, 0)
    rows, human, chances = drawn
    kept = equal_chance(chances, seed=seed)
    rows, human = rows[kept], human[kept]
    valid = evidence.run.valid[rows]
    p = evidence.preferences[rows[valid]]
    confidence, wrong = np.maximum(p, 1 - p), errors(p, human[valid])
    prompts = [evidence.run.prompts[k] for k in rows[valid]]
    certificates = tuple(
        certify(confidence, wrong, alpha=alpha, delta=DELTA, clusters=prompts, seed=seed) for alpha in ALPHAS
    )
    everywhere = np.maximum(evidence.preferences, 1 - evidence.preferences)
    abstained = tuple(
        len(everywhere) if made.threshold is None else int(np.sum(~(everywhere >= made.threshold)))
        for made in certificates
    )
    cheapest, cost = cheapest_threshold(confidence, wrong, human_cost=1.0, error_cost=error_cost, delta=DELTA)
    return SelectiveCard(
        certificates=certificates,
        abstained=abstained,
        curve=_curve(confidence, wrong),
        cheapest=cheapest,
        cost=cost,
        error_cost=error_cost,
        n=int(valid.sum()),
        thinned=int((~kept).sum()),
    )


def _drawn(evidence: Evidence, matched: Matched) -> tuple[npt.NDArray[np.int64], Array, Array] | Refused:
    """Rows, human outcomes and chances of the labels that were drawn at random from this run, or why there are none."""
    if not len(matched.gold):
        return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
    run = evidence.run
    if run.part_of is not None and all(item.drawn == "random" for item in matched.gold.items):
        run = replace(run, part_of=None)  # drawn alike from the whole run, so alike within any part that holds them all
    joined = join(run, matched.gold)
    if isinstance(joined, Refused):
        return replace(joined, kind="not_random") if joined.kind == "chance" else joined
    return joined.sample.rows, joined.value, joined.sample.chances


def _curve(confidence: Array, wrong: Array) -> tuple[CurvePoint, ...]:
    if not confidence.size:
        return ()
    points = []
    for threshold in np.unique(np.quantile(confidence, np.linspace(0, 1, _POINTS, endpoint=False), method="lower")):
        kept = confidence >= threshold
        n, mistakes = int(kept.sum()), int(wrong[kept].sum())
        points.append(
            CurvePoint(float(threshold), n / confidence.size, n, mistakes / n, risk_bound(mistakes, n, DELTA))
        )
    return tuple(points)


@dataclass(frozen=True, slots=True)
class BiasCard:
    """What moves the judge beside quality.

    ``position`` needs no labels and uses every pair, as do ``flips`` where repeats exist. ``styles`` and ``families``
    are judge minus human on the labelled pairs: length by itself, every other style beside length, so at equal length.
    ``q`` holds the Benjamini-Hochberg value of the position test, of each style slope (by name) and of each family (its
    name after ``family``), over all of them; ``families`` carry the same.
    """

    position: PositionBias
    flips: FlipSources | None
    styles: tuple[StyleSlope, ...]
    families: tuple[FamilyBias, ...]
    q: Mapping[str, float]


def bias_card(evidence: Evidence, matched: Matched, *, level: float) -> BiasCard:
    """Position and noise on all pairs; length, style and family where humans labelled."""
    prompts = list(evidence.run.prompts)
    position = position_bias(
        [(said.first[0], said.second[0]) for said in evidence.said],
        scores=[said.soft for said in evidence.said],
        clusters=prompts,
        level=level,
    )
    repeated = any(len(said.first) > 1 for said in evidence.said)
    flips = None
    if repeated:
        calls = [(said.first, said.second) for said in evidence.said]
        flips = flip_sources(calls, clusters=prompts, level=level)
    rows = matched.rows[evidence.run.valid[matched.rows]] if len(matched.rows) else matched.rows
    styles = _styles(evidence, matched, level=level)
    named = [(said.candidate or "", said.baseline or "") for said in (evidence.said[k] for k in rows)]
    families: tuple[FamilyBias, ...] = ()
    if len({name for pair in named for name in pair} - {""}) > 2:
        human = matched.human[evidence.run.valid[matched.rows]]
        own = [evidence.run.prompts[k] for k in rows]
        pairs = [(maker(a), maker(b)) for a, b in named]
        families = family_bias(
            list(evidence.preferences[rows]), list(human), pairs,
            judge_family=maker(evidence.judge) or None, clusters=own, level=level,
        )  # fmt: skip
    tests = {style.feature: style.p_two_sided for style in styles}
    if position.p is not None:
        tests["position"] = position.p
    tests |= {f"family {row.family}": row.p for row in families if row.p is not None}
    q = dict(zip(tests, (float(value) for value in benjamini_hochberg(list(tests.values()))), strict=True))
    families = tuple(replace(row, q=q.get(f"family {row.family}")) for row in families)
    return BiasCard(position, flips, styles, families, q)


def _styles(evidence: Evidence, matched: Matched, *, level: float) -> tuple[StyleSlope, ...]:
    """Judge minus human slope on length by itself, and on every style that was measured and varies, beside length.

    Length goes with lists, headers and bold type: given those it would be the length of plain prose, not what a longer
    answer gains. A style is asked the other way round: what it gains among answers of equal length.
    """
    found: list[StyleSlope] = []
    for name in ("length", *evidence.styles):
        values = evidence.styles.get(name)
        kept = [
            place
            for place, k in enumerate(matched.rows)
            if evidence.run.valid[k]
            and None not in (evidence.run.rows[k].candidate_length, evidence.run.rows[k].baseline_length)
            and (values is None or matched.gold.items[place].pair_id in values)
        ]
        features = _features(evidence, matched, kept, None if values is None else (name, values))
        if name not in features:
            continue
        slopes = style_bias(
            list(evidence.preferences[matched.rows[kept]]), list(matched.human[kept]), features,
            clusters=[evidence.run.prompts[k] for k in matched.rows[kept]], level=level,
        )  # fmt: skip
        found += [slope for slope in slopes or () if slope.feature == name]
    return tuple(found)


def _features(
    evidence: Evidence, matched: Matched, kept: Sequence[int], style: tuple[str, Mapping[str, float]] | None
) -> dict[str, list[float]]:
    """The columns of one fit: length where it varies, and the style in units of its sd where enough pairs differ."""
    rows = [evidence.run.rows[matched.rows[place]] for place in kept]
    length = length_feature([row.candidate_length or 0 for row in rows], [row.baseline_length or 0 for row in rows])
    features = {"length": list(length)} if length.size and float(np.ptp(length)) > 0 else {}
    if style is not None:
        given = np.array([style[1][row.pair_id] for row in rows])
        if np.count_nonzero(given) >= _SLICE // 3 and float(np.std(given)) > 0:
            features[style[0]] = list(given / float(np.std(given)))
    return features


@dataclass(frozen=True, slots=True)
class DriftCard:
    """The same pairs judged in an earlier run: has the judge moved?

    ``anchors`` are pairs whose texts are equal in both runs. ``confidence`` and ``length`` compare the two runs whole
    (population stability with a threshold that unchanged samples pass in 99%), ``cusum`` runs over the anchors' changes
    of preference in the order in which they were judged, in groups of ten.
    """

    previous: str
    judge_changed: bool
    anchors: AnchorDrift | None
    confidence: Shift | None
    length: Shift | None
    cusum: Cusum | None


def drift_card(before: Evidence, after: Evidence, matched: Matched, *, name: str, seed: int, level: float) -> DriftCard:
    """Compare two judgings; anchors are pairs with the same prompt and the same answers in both.

    Where the earlier run judged pairs twice, first repeats are compared with each other, and the noise is between its
    first and its second.
    """
    place = {row.pair_id: k for k, row in enumerate(after.run.rows)}
    ids = after.sequence or tuple(place)
    shared = [
        (before.place[pair], place[pair])
        for pair in ids
        if pair in before.place and pair in place and _same(before, before.place[pair], after, place[pair])
    ]
    noise = np.array([_repeat(before, i, 1) for i, _ in shared])
    repeated = bool(np.isfinite(noise).any())
    old = np.array([_repeat(before, i, 0) if repeated else before.preferences[i] for i, _ in shared])
    new = np.array([_repeat(after, k, 0) if repeated else after.preferences[k] for _, k in shared])
    human = {int(k): item.majority for item, k in zip(matched.gold.items, matched.rows, strict=True)}
    truth = np.array([np.nan if (said := human.get(k)) is None else outcome_value(said) for _, k in shared])
    steps = _grouped(new - old)
    return DriftCard(
        previous=name,
        judge_changed=before.judge != after.judge or before.rubric != after.rubric,
        anchors=anchors(
            old,
            new,
            repeat=noise if repeated else None,
            gold=truth if np.isfinite(truth).any() else None,
            clusters=[after.run.prompts[k] for _, k in shared],
            level=level,
        )
        if shared
        else None,
        confidence=population_stability(_confidences(before), _confidences(after), seed=seed),
        length=population_stability(_lengths(before), _lengths(after), seed=seed),
        cusum=cusum(steps, centre=0.0, sd=float(np.std(steps)), run_length=_RUN_LENGTH, seed=seed)
        if steps.size >= _GROUP and float(np.std(steps)) > 0
        else None,
    )


def _same(before: Evidence, i: int, after: Evidence, k: int) -> bool:
    a, b = before.run.rows[i], after.run.rows[k]
    told = (before.said[i].texts, after.said[k].texts)
    if all(told) and told[0] != told[1]:
        return False
    return (a.prompt_id, a.candidate_length, a.baseline_length) == (b.prompt_id, b.candidate_length, b.baseline_length)


def _repeat(evidence: Evidence, k: int, number: int) -> float:
    """The preference of one repeat, NaN where there is none or it is invalid."""
    each = evidence.said[k].each or ((float(evidence.preferences[k]),) if evidence.run.valid[k] else ())
    value = each[number] if number < len(each) else None
    return float("nan") if value is None else value


def _grouped(moved: Array) -> Array:
    """Means of ten changes in a row: the chart's limits are for roughly normal values, single changes are not."""
    known = moved[np.isfinite(moved)]
    return np.asarray(known[: known.size // _GROUP * _GROUP].reshape(-1, _GROUP).mean(axis=1))


def _confidences(evidence: Evidence) -> Array:
    p = evidence.preferences[np.isfinite(evidence.preferences)]
    return np.maximum(p, 1 - p)


def _lengths(evidence: Evidence) -> Array:
    rows = [row.candidate_length for row in evidence.run.rows if row.candidate_length is not None]
    return np.asarray(np.log1p(np.array(rows, dtype=float)))
