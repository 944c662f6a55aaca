"""How often the judge says what humans say, beside how often humans say what humans say.

A judge cannot agree with one human more often than the truth lets it: the agreement of humans with each other is the
ceiling, and 81% against a ceiling of 81% is not 19% wrong. Nothing here averages annotators before it has to.

Where pairs were drawn with unequal chances (hard ones more often), the labelled pairs are not like the run: each then
counts 1 / its chance (Hajek 1971), or a judge that is right on 83% of the run would read 67%.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rubrics import Outcome

from .annotators import AltTest, DawidSkene, alt_test, dawid_skene, latent_accuracy
from .coefficients import Resampling, cohen_kappa, fleiss_kappa, gwet_ac, krippendorff_alpha
from .estimates import Estimate, bootstrap, mean, relative_weights, share
from .gold import GoldSet
from .gold_rows import GoldItem

__all__ = [
    "ORDER",
    "AgreementReport",
    "AnnotatorAgreement",
    "Ceiling",
    "SegmentAgreement",
    "agreement_report",
    "draw_weights",
    "votes",
]

Array = npt.NDArray[np.float64]
Verdicts = Mapping[str, Outcome | None]
PairWeights = Mapping[str, float] | None

ORDER = (Outcome.LOSS, Outcome.TIE, Outcome.WIN)
"""The categories in their order, for ordinal coefficients and confusion tables."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Human against human, and the judge measured on the same pairs and votes (pairs with two annotators or more).

    ``human`` is the chance that two annotators of a pair agree, ``judge`` the chance that the judge agrees with one of
    them, ``share`` judge over human. ``fleiss``, ``ac1`` and ``alpha`` (ordinal) are among humans.
    ``annotator_accuracy`` and ``judge_accuracy`` are against the unseen truth on decisive votes (``latent_accuracy``):
    the n of the first are pairs that two annotators decide, of the second pairs that the judge and one annotator do.
    """

    human: Estimate | None
    judge: Estimate | None
    share: Estimate | None
    fleiss: Estimate | None
    ac1: Estimate | None
    alpha: Estimate | None
    annotator_accuracy: Estimate | None
    judge_accuracy: Estimate | None


@dataclass(frozen=True, slots=True)
class AnnotatorAgreement:
    """One annotator: agreement with the judge (and its kappa), and with each of the other annotators."""

    annotator: str
    n: int
    judge: Estimate | None
    kappa: Estimate | None
    others: Estimate | None


@dataclass(frozen=True, slots=True)
class SegmentAgreement:
    """One segment: 3-way and decisive accuracy against the majority, and kappa."""

    name: str
    n: int
    accuracy: Estimate | None
    decisive: Estimate | None
    kappa: Estimate | None


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """A judge against a gold set.

    Counts: ``labelled`` pairs in the gold set, ``compared`` pairs with a verdict and a majority, ``invalid`` pairs
    whose verdict is ``None``, ``missing`` pairs nobody judged, ``no_majority`` pairs on which humans split.
    ``accuracy`` is 3-way against the majority, ``accuracy_bounds`` the same with every invalid verdict wrong, and
    right. ``decisive`` is over pairs where human and judge both decide, ``decided`` the share of decisive human labels
    on which the judge decides. ``confusion[human][judge]`` counts in ``order``. ``weighted`` says that each pair counts
    1 / the chance of its draw, so that the figures speak of the run; counts, ``confusion``, ``alt_test`` and
    ``consensus`` are always of the labelled pairs themselves.
    """

    labelled: int
    compared: int
    invalid: int
    missing: int
    no_majority: int
    accuracy: Estimate | None
    accuracy_bounds: tuple[float, float] | None
    decisive: Estimate | None
    decided: Estimate | None
    kappa: Estimate | None
    ac1: Estimate | None
    alpha_nominal: Estimate | None
    alpha_ordinal: Estimate | None
    confusion: tuple[tuple[int, ...], ...]
    ceiling: Ceiling | None
    annotators: tuple[AnnotatorAgreement, ...]
    segments: tuple[SegmentAgreement, ...]
    alt_test: AltTest | None
    consensus: DawidSkene | None
    weighted: bool = False
    order: tuple[Outcome, ...] = ORDER


def draw_weights(gold: GoldSet) -> dict[str, float] | None:
    """1 / the chance of each pair's draw by pair id; ``None`` where all are equal, or one was not stored.

    A random draw, and one of all pairs, is equal; an escalated pair had chance 1. A pair whose draw is unknown stands
    for itself alone (weight 1).
    """
    kinds = {item.drawn for item in gold.items}
    if kinds <= {"random", "all", "unknown"}:
        return None
    sure = ("all", "escalated", "unknown")
    chances = {item.pair_id: 1.0 if item.drawn in sure else item.probability for item in gold.items}
    weights = {pair: 1 / chance for pair, chance in chances.items() if chance}
    if len(weights) < len(chances) or relative_weights(list(weights.values()), len(weights)) is None:
        return None
    return weights


def agreement_report(
    gold: GoldSet,
    verdicts: Verdicts,
    *,
    by: Callable[[GoldItem], str] = lambda item: item.category,
    level: float = 0.95,
    rounds: int = 1000,
    seed: int = 0,
    epsilon: float = 0.15,
    weights: PairWeights = None,
) -> AgreementReport:
    """Everything about how a judge agrees with a gold set.

    ``verdicts`` maps pair id to outcome, ``None`` for an invalid verdict. Shares carry Wilson intervals at the
    effective sample size, coefficients and ratios a bootstrap of whole prompts. A figure that is undefined (no pairs,
    one category only) is ``None``. Verdicts of pairs without gold are ignored. ``epsilon`` is the alt-test's.
    ``weights`` (by pair id) is 1 / the chance of each pair's draw; the default takes it from the gold set
    (``draw_weights``), and equal chances are no weights.
    """
    weights = draw_weights(gold) if weights is None else weights
    known = [item for item in gold.items if item.pair_id in verdicts]
    judged = [item for item in known if verdicts[item.pair_id] is not None]
    compared = [item for item in judged if item.majority is not None]
    rows = [(item.majority, verdicts[item.pair_id]) for item in compared]
    how = _resampling(compared, weights, Resampling(level=level, rounds=rounds, seed=seed))
    table = Counter(rows)
    matrix = votes(gold)
    return AgreementReport(
        labelled=len(gold),
        compared=len(compared),
        invalid=len(known) - len(judged),
        missing=len(gold) - len(known),
        no_majority=len(gold.no_majority),
        accuracy=_accuracy(compared, verdicts, weights, level=level),
        accuracy_bounds=_bounds(known, verdicts, weights),
        decisive=_accuracy(_decided(compared, verdicts), verdicts, weights, level=level),
        decided=_decisiveness(compared, verdicts, weights, level=level),
        kappa=cohen_kappa(rows, ORDER, resampling=how),
        ac1=gwet_ac(rows, ORDER, resampling=how),
        alpha_nominal=krippendorff_alpha(rows, ORDER, resampling=how),
        alpha_ordinal=krippendorff_alpha(rows, ORDER, metric="ordinal", resampling=how),
        confusion=tuple(tuple(table[human, judge] for judge in ORDER) for human in ORDER),
        ceiling=_ceiling(gold, verdicts, weights, how),
        annotators=_per_annotator(gold, verdicts, weights, how),
        segments=_segments(compared, verdicts, weights, by, how),
        alt_test=alt_test(
            [verdicts.get(item.pair_id) for item in gold.items], matrix, gold.annotators, epsilon=epsilon
        ),
        consensus=dawid_skene(matrix, ORDER, gold.annotators) if len(gold.annotators) > 1 else None,
        weighted=how.weights is not None,
    )


def votes(gold: GoldSet) -> list[list[Outcome | None]]:
    """Outcomes as a table: one line a pair in the set's order, one column an annotator of ``gold.annotators``."""
    names = gold.annotators
    table = []
    for item in gold.items:
        given = {label.annotator: label.outcome for label in item.labels}
        table.append([given.get(name) for name in names])
    return table


def _accuracy(items: Sequence[GoldItem], verdicts: Verdicts, weights: PairWeights, *, level: float) -> Estimate | None:
    hits = [float(item.majority == verdicts[item.pair_id]) for item in items]
    return share(hits, clusters=_prompts(items), level=level, weights=_weights(items, weights))


def _bounds(items: Sequence[GoldItem], verdicts: Verdicts, weights: PairWeights) -> tuple[float, float] | None:
    """Accuracy with every invalid verdict wrong, and right."""
    settled = [item for item in items if item.majority is not None]
    if not settled:
        return None
    given = np.array(_weights(settled, weights) or [1] * len(settled))
    right = np.array([item.majority == verdicts[item.pair_id] for item in settled])
    blank = np.array([verdicts[item.pair_id] is None for item in settled])
    return float((given @ right) / given.sum()), float((given @ (right | blank)) / given.sum())


def _decided(items: Sequence[GoldItem], verdicts: Verdicts) -> list[GoldItem]:
    return [item for item in items if Outcome.TIE not in (item.majority, verdicts[item.pair_id])]


def _decisiveness(
    items: Sequence[GoldItem], verdicts: Verdicts, weights: PairWeights, *, level: float
) -> Estimate | None:
    open_ = [item for item in items if item.majority != Outcome.TIE]
    hits = [float(verdicts[item.pair_id] != Outcome.TIE) for item in open_]
    return share(hits, clusters=_prompts(open_), level=level, weights=_weights(open_, weights))


def _segments(
    items: Sequence[GoldItem],
    verdicts: Verdicts,
    weights: PairWeights,
    by: Callable[[GoldItem], str],
    how: Resampling,
) -> tuple[SegmentAgreement, ...]:
    groups: dict[str, list[GoldItem]] = {}
    for item in items:
        groups.setdefault(by(item), []).append(item)
    if len(groups) < 2:
        return ()
    out = []
    for name, inside in sorted(groups.items()):
        rows = [(item.majority, verdicts[item.pair_id]) for item in inside]
        kappa = cohen_kappa(rows, ORDER, resampling=_resampling(inside, weights, how))
        accuracy = _accuracy(inside, verdicts, weights, level=how.level)
        decisive = _accuracy(_decided(inside, verdicts), verdicts, weights, level=how.level)
        out.append(SegmentAgreement(name, len(inside), accuracy, decisive, kappa))
    return tuple(out)


def _per_annotator(
    gold: GoldSet, verdicts: Verdicts, weights: PairWeights, how: Resampling
) -> tuple[AnnotatorAgreement, ...]:
    rows: dict[str, list[tuple[GoldItem, Outcome, Outcome]]] = {name: [] for name in gold.annotators}
    pairs: dict[str, list[tuple[GoldItem, float]]] = {name: [] for name in gold.annotators}
    for item in gold.items:
        verdict = verdicts.get(item.pair_id)
        for label in item.labels:
            if verdict is not None:
                rows[label.annotator].append((item, label.outcome, verdict))
            others = [other.outcome for other in item.labels if other.annotator != label.annotator]
            pairs[label.annotator] += [(item, float(other == label.outcome)) for other in others]
    out = []
    for name in gold.annotators:
        own, shared = [row[0] for row in rows[name]], [row[0] for row in pairs[name]]
        with_judge = [(row[1], row[2]) for row in rows[name]]
        hits = [float(a == b) for a, b in with_judge]
        met = [hit for _, hit in pairs[name]]
        out.append(
            AnnotatorAgreement(
                annotator=name,
                n=len(with_judge),
                judge=share(hits, clusters=_prompts(own), level=how.level, weights=_weights(own, weights)),
                kappa=cohen_kappa(with_judge, ORDER, resampling=_resampling(own, weights, how)),
                others=share(met, clusters=_prompts(shared), level=how.level, weights=_weights(shared, weights)),
            )
        )
    return tuple(out)


def _ceiling(gold: GoldSet, verdicts: Verdicts, weights: PairWeights, how: Resampling) -> Ceiling | None:
    shared = [item for item in gold.items if len(item.labels) > 1]
    if not shared:
        return None
    table = [row for row, item in zip(votes(gold), gold.items, strict=True) if len(item.labels) > 1]
    judged = [item for item in shared if verdicts.get(item.pair_id) is not None]
    both = np.array([_meeting(item, verdicts[item.pair_id]) for item in judged]).reshape(-1, 2)
    near = _decisive_meetings(judged, verdicts)
    among = _resampling(shared, weights, how)
    beside = _resampling(judged, weights, how)
    prompts = _prompts(judged)

    def average(values: Sequence[float] | Array, sample: Resampling) -> Estimate | None:
        return mean(values, clusters=sample.clusters, level=how.level, bounds=(0.0, 1.0), weights=sample.weights)

    def ratio(
        statistic: Callable[[Array], Array], moments: Array, bounds: tuple[float, float], bases: tuple[int, ...] = ()
    ) -> Estimate | None:
        """A ratio of sums; with ``bases`` over the pairs alone that stand in one of these columns."""
        scale = 1.0 if beside.weights is None else np.asarray(beside.weights)[:, None]
        rows = np.flatnonzero(moments[:, bases].any(axis=1)) if bases else np.arange(len(moments))
        return bootstrap(
            statistic, (moments * scale)[rows], clusters=[prompts[k] for k in rows],
            level=how.level, bounds=bounds, rounds=how.rounds, seed=how.seed,
        )  # fmt: skip

    def latent(which: int, bounds: tuple[float, float]) -> Estimate | None:
        def statistic(sums: Array) -> Array:
            found = [latent_accuracy(s[0] / s[1], s[2] / s[3]) if min(s[1], s[3]) > 0 else None for s in sums]
            return np.array([np.nan if pair is None else pair[which] for pair in found])

        estimate = ratio(statistic, near, bounds, (1, 3))
        own = np.flatnonzero(near[:, 2 * which + 1])
        own_prompts = len({prompts[k] for k in own})
        return None if estimate is None else replace(estimate, n=len(own), clusters=own_prompts)

    return Ceiling(
        human=average([1 - item.disagreement for item in shared], among),
        judge=average(both[:, 1], beside),
        share=ratio(_ratio, both, (0.0, np.inf)),
        fleiss=fleiss_kappa(table, ORDER, resampling=among),
        ac1=gwet_ac(table, ORDER, resampling=among),
        alpha=krippendorff_alpha(table, ORDER, metric="ordinal", resampling=among),
        annotator_accuracy=latent(0, (0.5, 1.0)),
        judge_accuracy=latent(1, (0.0, 1.0)),
    )


def _meeting(item: GoldItem, verdict: Outcome | None) -> tuple[float, float]:
    """Chance that two annotators agree, and that the judge agrees with one."""
    return 1 - item.disagreement, sum(label.outcome == verdict for label in item.labels) / len(item.labels)


def _decisive_meetings(items: Sequence[GoldItem], verdicts: Verdicts) -> Array:
    """By pair: agreeing and all couples of decisive human votes, then of the judge and each decisive vote."""
    rows = []
    for item in items:
        given = Counter[Outcome](label.outcome for label in item.labels if label.outcome != Outcome.TIE)
        total = given.total()
        verdict = verdicts[item.pair_id]
        ties = verdict == Outcome.TIE or verdict is None
        same = sum(count * (count - 1) for count in given.values()) / 2
        rows.append(
            (same, total * (total - 1) / 2, 0 if ties or verdict is None else given[verdict], 0 if ties else total)
        )
    return np.array(rows, dtype=float).reshape(-1, 4)


def _ratio(sums: Array) -> Array:
    return np.asarray(np.where(sums[..., 0] > 0, sums[..., 1] / np.maximum(sums[..., 0], 1e-300), np.nan))


def _prompts(items: Sequence[GoldItem]) -> list[str]:
    return [item.prompt_id for item in items]


def _weights(items: Sequence[GoldItem], weights: PairWeights) -> list[float] | None:
    return None if weights is None else [weights[item.pair_id] for item in items]


def _resampling(items: Sequence[GoldItem], weights: PairWeights, how: Resampling) -> Resampling:
    """``how`` with the prompts and the weights of these items, scaled to a mean of 1."""
    own = relative_weights(_weights(items, weights), len(items))
    return replace(how, clusters=_prompts(items), weights=own)
