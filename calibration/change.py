"""A new rubric, or a new judge, as an experiment: both judge the same labelled pairs, and the difference is a finding.

"The new rubric looks better" costs nothing to say. Here it has to win on the same pairs (paired, clustered by prompt),
"no change" has to be shown by two one-sided tests instead of by a large p value, and what cannot be told is UNDECIDED,
with the number of labels that would tell it.

The rule (``margin`` in accuracy, ``saving`` as a share of the old cost; "cheaper" is by dollars, else by tokens):

    finding                                     cheaper by `saving`    not cheaper
    better: interval above 0, mid-p McNemar     ADOPT                  ADOPT
    worse: interval below 0, mid-p McNemar      KEEP                   KEEP
    equivalent: TOST inside +-margin            ADOPT                  KEEP
    not worse by more than margin               ADOPT                  UNDECIDED
    none of these, or fewer than 30 prompts     UNDECIDED              UNDECIDED

The first line that fits counts. A finding that changes when invalid verdicts count as wrong is UNDECIDED. Differences
are new minus old throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from rubrics import Outcome
from rubrics.errors import InputError

from .agreement import ORDER
from .confidence import cross_fit
from .drift import AnchorDrift, anchors
from .estimates import (
    Equivalence,
    Estimate,
    PairedTest,
    bootstrap,
    difference,
    equivalence,
    mcnemar,
    normal_quantile,
    share,
    standard_error,
)
from .gold import GoldSet, outcome_value
from .gold_rows import GoldItem
from .reliability import log_losses

__all__ = ["Change", "Flip", "Power", "Ratios", "Side", "compare_judges", "detectable_difference", "pairs_needed"]

Array = npt.NDArray[np.float64]
Verdict = Literal["ADOPT", "KEEP", "UNDECIDED"]
Finding = Literal["better", "worse", "equivalent", "not worse", "open"]

MINIMUM = 30
"""Compared prompts below which no verdict is given."""
_PLATT_FROM = 100
_LOSSES = (-math.log(1e6), math.log(1e6))
"""A log loss with clipped probabilities lies between 0 and ln 1e6, so a difference of two within these."""


@dataclass(frozen=True, slots=True)
class Side:
    """One judge under one rubric, and what it said.

    ``verdicts`` maps pair id to outcome, ``None`` for an invalid one; ``preferences`` to the candidate's soft
    preference in [0, 1], ``None`` where there is none. ``cost`` (dollars) and ``tokens`` are totals over ``verdicts``,
    ``seconds`` is per call, each ``None`` where unknown. ``anchors`` are preferences on pairs without labels that both
    sides judged, ``prompts`` the prompt ids of these (a pair that is not named is its own prompt).
    """

    name: str
    rubric: str
    judge: str
    verdicts: Mapping[str, Outcome | None]
    preferences: Mapping[str, float | None] = field(default_factory=dict)
    cost: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    anchors: Mapping[str, float | None] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, given in (("preferences", self.preferences), ("anchors", self.anchors)):
            for pair, value in given.items():
                if value is not None and not 0 <= value <= 1:
                    raise InputError(
                        f"side {self.name!r}, field {what}, pair {pair!r}: {value} is not a number in [0, 1]; "
                        "give None where there is no preference"
                    )
        for what, total in (("cost", self.cost), ("tokens", self.tokens), ("seconds", self.seconds)):
            if total is not None and not 0 <= total < math.inf:
                raise InputError(f"side {self.name!r}, field {what}: {total} is not a number of 0 or more")


@dataclass(frozen=True, slots=True)
class Flip:
    """A pair that the two sides judged differently, the human majority, and which side had it right."""

    pair_id: str
    prompt_id: str
    category: str
    human: Outcome
    old: Outcome
    new: Outcome
    right: Literal["old", "new", "neither"]
    disagreement: float
    moved: float | None


@dataclass(frozen=True, slots=True)
class Ratios:
    """New over old, per verdict for ``cost`` and ``tokens``, per call for ``seconds``; ``None`` where unknown."""

    cost: float | None
    tokens: float | None
    seconds: float | None
    old_verdicts: int
    new_verdicts: int

    @property
    def saved(self) -> float | None:
        """Share of the old cost that the new side saves: by dollars, else by tokens; below 0 it costs more."""
        known = self.cost if self.cost is not None else self.tokens
        return None if known is None else 1 - known


@dataclass(frozen=True, slots=True)
class Power:
    """What these pairs could find.

    ``discordant`` is the share of pairs on which exactly one side is right; ``detectable`` the smallest difference in
    accuracy seen with probability ``power`` (``None``: none at all); ``pairs_needed`` the pairs that settle ``margin``
    either way: find a true difference of that size, or show equivalence if there is none. Both allow for prompts.
    """

    power: float
    discordant: Estimate
    detectable: float | None
    pairs_needed: int


@dataclass(frozen=True, slots=True)
class Change:
    """The comparison of two sides on one gold set; differences are new minus old, ``None`` where undefined.

    ``compared`` pairs have a human majority and a verdict of both sides; ``missing`` and ``invalid`` count (old, new)
    labelled pairs that a side did not judge or judged without result, ``no_majority`` those on which humans split.
    ``invalid_as_wrong`` is the accuracy difference with every invalid verdict counted as wrong. ``log_loss`` is of the
    preferences as they are, ``calibrated_log_loss`` after maps cross-fitted on other prompts; below 0 the new side is
    better; ``same_preferences`` says that both gave the very same, so that their difference is none, not unknown.
    ``flips`` lists the most informative first. ``anchors`` is the shift of the mean preference on pairs judged
    twice. ``reasons`` say how ``verdict`` came about, ``more_pairs`` how many labelled pairs more would decide
    (``None`` where it is decided, or cannot be said).
    """

    old: str
    new: str
    verdict: Verdict
    finding: Finding
    reasons: tuple[str, ...]
    more_pairs: int | None
    labelled: int
    compared: int
    prompts: int
    no_majority: int
    missing: tuple[int, int]
    invalid: tuple[int, int]
    accuracy_old: Estimate | None
    accuracy_new: Estimate | None
    difference: Estimate | None
    invalid_as_wrong: Estimate | None
    mcnemar: PairedTest | None
    equivalence: Equivalence | None
    log_loss: Estimate | None
    calibrated_log_loss: Estimate | None
    kappa: Estimate | None
    flips: tuple[Flip, ...]
    anchors: AnchorDrift | None
    ratios: Ratios
    power: Power | None
    same_preferences: bool = False
    notes: tuple[str, ...] = ()


def compare_judges(
    old: Side,
    new: Side,
    gold: GoldSet,
    *,
    margin: float = 0.02,
    saving: float = 0.1,
    level: float = 0.95,
    power: float = 0.8,
    seed: int = 0,
) -> Change:
    """Compare two sides on the pairs of ``gold`` and say ADOPT, KEEP or UNDECIDED by the rule of this module.

    Accuracy is 3-way against the human majority; its difference has the clustered t interval of ``estimates``, log loss
    and kappa a bootstrap of whole prompts. Raises ``InputError`` for a margin, saving or level out of range, an empty
    gold set, or sides that share no labelled pair.

    Example: ``compare_judges(Side("v1", ...), Side("v2", ...), gold, margin=0.03).reasons``.
    """
    if not (0 < margin < 1 and 0 <= saving < 1 and 0.5 < level < 1 and 0 < power < 1):
        raise InputError("margin and power must lie between 0 and 1, level between 0.5 and 1, saving from 0 to below 1")
    both = [item for item in gold.items if item.pair_id in old.verdicts and item.pair_id in new.verdicts]
    if not both:
        raise InputError(
            f"sides {old.name!r} and {new.name!r} judged no labelled pair in common ({len(gold)} labels); "
            "judge the pairs of the gold set with both"
        )
    settled = [item for item in both if item.majority is not None]
    rows = [item for item in settled if not _invalid([item], old) + _invalid([item], new)]
    test = _Accuracy.of(rows, old, new, margin=margin, level=level)
    strict = test if len(rows) == len(settled) else _Accuracy.of(settled, old, new, margin=margin, level=level)
    ratios = _ratios(old, new)
    plan = None if test is None else _power(test, margin=margin, level=level, power=power)
    verdict, finding, reasons = _decide(test, strict, ratios, margin=margin, saving=saving)
    if _same(old, new) and old.verdicts == new.verdicts:
        verdict, reasons = "KEEP", (f"both sides are {old.judge} under {old.rubric} with the same verdicts",)
    more = _more(test, plan, margin=margin, level=level) if verdict == "UNDECIDED" and test and plan else None
    if more is not None:
        reasons += (f"about {more} more labelled pair{'s' * (more != 1)} would decide at a margin of {margin:g}",)
    return Change(
        old=old.name,
        new=new.name,
        verdict=verdict,
        finding=finding,
        reasons=reasons,
        more_pairs=more,
        labelled=len(gold),
        compared=len(rows),
        prompts=len({item.prompt_id for item in rows}),
        no_majority=len(both) - len(settled),
        missing=(_missing(gold, old), _missing(gold, new)),
        invalid=(_invalid(both, old), _invalid(both, new)),
        accuracy_old=None if test is None else share(test.old, clusters=test.clusters, level=level),
        accuracy_new=None if test is None else share(test.new, clusters=test.clusters, level=level),
        difference=None if test is None else test.gap,
        invalid_as_wrong=None if strict is None else strict.gap,
        mcnemar=None if test is None else test.paired,
        equivalence=None if test is None else test.tost,
        log_loss=_log_loss(rows, old, new, level=level, seed=seed, calibrated=False),
        calibrated_log_loss=_log_loss(rows, old, new, level=level, seed=seed, calibrated=True),
        kappa=_kappa_change(rows, old, new, level=level, seed=seed),
        flips=_flips(rows, old, new),
        anchors=_anchors(old, new, level=level),
        ratios=ratios,
        power=plan,
        same_preferences=_equal(rows, old, new),
        notes=_notes(rows, old, new, test),
    )


def pairs_needed(gain: float, discordant: float, *, level: float = 0.95, power: float = 0.8) -> int:
    """Independent pairs to find a paired difference of ``gain`` where the two sides differ on a share ``discordant``.

    n = (z_{1-alpha/2} sqrt(d) + z_power sqrt(d - gain^2))^2 / gain^2 (Connor 1987 for McNemar's test); a gain cannot
    exceed the discordant share. 0.05 at 0.2 needs 625. Raises ``InputError`` for values out of range.
    """
    if not 0 < abs(gain) <= discordant <= 1:
        raise InputError(f"a difference of {gain} needs a discordant share from it up to 1, not {discordant}")
    reach = normal_quantile(level) * math.sqrt(discordant)
    reach += normal_quantile(2 * power - 1) * math.sqrt(max(discordant - gain**2, 0.0))
    return math.ceil(reach**2 / gain**2)


def detectable_difference(n: float, discordant: float, *, level: float = 0.95, power: float = 0.8) -> float | None:
    """The smallest difference that ``n`` pairs find with ``power``: ``pairs_needed`` solved for the gain.

    ``None`` where even a difference as large as the discordant share would not be found.
    """
    if not 0 < discordant <= 1 or pairs_needed(discordant, discordant, level=level, power=power) > n:
        return None
    low, high = 0.0, discordant
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if pairs_needed(middle, discordant, level=level, power=power) <= n else (middle, high)
    return high


@dataclass(frozen=True, eq=False)
class _Accuracy:
    """Right (1) and wrong (0) of both sides on the same pairs, and every test of their difference."""

    old: Array
    new: Array
    clusters: tuple[str, ...]
    gap: Estimate
    paired: PairedTest
    tost: Equivalence | None

    @classmethod
    def of(cls, rows: Sequence[GoldItem], old: Side, new: Side, *, margin: float, level: float) -> _Accuracy | None:
        """``None`` without rows; an invalid verdict is never right."""
        was, now = (
            np.array([float(item.majority == side.verdicts[item.pair_id]) for item in rows]) for side in (old, new)
        )
        prompts = tuple(item.prompt_id for item in rows)
        gap = difference(now, was, clusters=prompts, level=level, bounds=(-1.0, 1.0))
        if gap is None:
            return None
        tost = equivalence(now, was, margin=margin, clusters=prompts, alpha=round(1 - level, 12))
        return cls(was, now, prompts, gap, mcnemar(now, was), tost)

    @property
    def finding(self) -> Finding:
        """The first line of the rule that fits."""
        apart = self.paired.p_mid <= 1 - self.gap.level
        if apart and self.gap.low > 0:
            return "better"
        if apart and self.gap.high < 0:
            return "worse"
        if self.tost is None:
            return "open"
        if self.tost.equivalent:
            return "equivalent"
        return "not worse" if self.tost.difference.low > -self.tost.margin else "open"

    @property
    def effect(self) -> float:
        """Design effect of the prompts on the difference, at least 1."""
        gap = self.new - self.old
        alone = standard_error(gap)
        return max(1.0, (standard_error(gap, self.clusters) / alone) ** 2) if alone > 0 else 1.0


def _decide(
    test: _Accuracy | None, strict: _Accuracy | None, ratios: Ratios, *, margin: float, saving: float
) -> tuple[Verdict, Finding, tuple[str, ...]]:
    """The rule of the module's docstring, with its reasons."""
    if test is None:
        return "UNDECIDED", "open", ("no pair has a human majority and a valid verdict of both sides",)
    finding, gap = test.finding, test.gap
    shown = f"accuracy {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] on {gap.n} pair{'s' * (gap.n != 1)}"
    reasons = [f"{shown}: {_words(finding, margin)}"]
    if gap.clusters < MINIMUM:
        are = " is" if gap.clusters == 1 else "s are"
        reasons.append(f"{gap.clusters} prompt{are} too few: below {MINIMUM} no verdict is given")
        return "UNDECIDED", finding, tuple(reasons)
    if strict is not None and strict.finding != finding:
        reasons.append(f"with invalid verdicts counted as wrong it would be {_words(strict.finding, margin)}")
        return "UNDECIDED", finding, tuple(reasons)
    saved = ratios.saved
    cheaper = saved is not None and saved >= saving
    if finding in ("equivalent", "not worse"):
        same = saved is not None and abs(saved) < 0.005
        cost = "its cost is not known" if saved is None else "it costs the same" if same else f"it costs {-saved:+.0%}"
        reasons.append(f"{cost}; {saving:.0%} less is asked for a change without gain")
    table: dict[Finding, tuple[Verdict, Verdict]] = {
        "better": ("ADOPT", "ADOPT"),
        "worse": ("KEEP", "KEEP"),
        "equivalent": ("ADOPT", "KEEP"),
        "not worse": ("ADOPT", "UNDECIDED"),
        "open": ("UNDECIDED", "UNDECIDED"),
    }
    return table[finding][0 if cheaper else 1], finding, tuple(reasons)


def _words(finding: Finding, margin: float) -> str:
    return {
        "better": "the new side is better",
        "worse": "the new side is worse",
        "equivalent": f"equivalent within {margin:g}",
        "not worse": f"not worse by more than {margin:g}",
        "open": "neither a difference nor equivalence is shown",
    }[finding]


def _notes(rows: Sequence[GoldItem], old: Side, new: Side, test: _Accuracy | None) -> tuple[str, ...]:
    found = []
    kinds = {item.majority for item in rows}
    if len(kinds) == 1 and len(rows) > 1:
        found.append(f"every majority is a {kinds.pop()}: a judge that always says so would be perfect")
    for side in (old, new):
        said = {side.verdicts[item.pair_id] for item in rows}
        if len(said) == 1 and len(rows) > 1:
            found.append(f"side {side.name!r} says {said.pop()} on every pair")
    if test is not None and test.gap.clusters < test.gap.n:
        found.append("McNemar's test takes pairs of one prompt as independent; the interval of the difference does not")
    if _same(old, new):
        found.append("rubric and judge are the same on both sides: what differs is repeat noise")
    if old.anchors and new.anchors and not old.anchors.keys() & new.anchors.keys():
        found.append("the sides share no anchor, so no shift of the win rate is known")
    return tuple(found)


def _equal(rows: Sequence[GoldItem], old: Side, new: Side) -> bool:
    """Whether both sides gave the very same preference wherever both gave one."""
    both = [(old.preferences.get(item.pair_id), new.preferences.get(item.pair_id)) for item in rows]
    known = [pair for pair in both if None not in pair]
    return bool(known) and all(was == now for was, now in known)


def _same(old: Side, new: Side) -> bool:
    return old.rubric == new.rubric and old.judge == new.judge


def _missing(gold: GoldSet, side: Side) -> int:
    return sum(item.pair_id not in side.verdicts for item in gold.items)


def _invalid(rows: Sequence[GoldItem], side: Side) -> int:
    return sum(side.verdicts[item.pair_id] is None for item in rows)


def _log_loss(
    rows: Sequence[GoldItem], old: Side, new: Side, *, level: float, seed: int, calibrated: bool
) -> Estimate | None:
    """Mean log loss of the new minus the old preferences against the majority, bootstrapped by prompt.

    ``None`` where no pair has both preferences, and for calibrated ones below ``MINIMUM`` prompts or with one outcome.
    """
    known = [
        item for item in rows if None not in (old.preferences.get(item.pair_id), new.preferences.get(item.pair_id))
    ]
    if not known:
        return None
    prompts = [item.prompt_id for item in known]
    y = np.array([outcome_value(item.majority) for item in known if item.majority is not None])
    groups = len(set(prompts))
    if calibrated and (groups < MINIMUM or np.ptp(y) == 0):
        return None
    losses = []
    for side in (old, new):
        p = np.array([side.preferences[item.pair_id] for item in known], dtype=float)
        if calibrated:
            method = "constant" if np.ptp(p) == 0 else "platt" if groups >= _PLATT_FROM else "temperature"
            p = cross_fit(p, y, method, clusters=prompts, seed=seed)
        losses.append(log_losses(p, y))
    moments = np.column_stack([losses[1] - losses[0], np.ones(len(y))])
    return bootstrap(
        lambda sums: sums[..., 0] / sums[..., 1], moments, clusters=prompts, level=level, bounds=_LOSSES, seed=seed
    )


def _kappa_change(rows: Sequence[GoldItem], old: Side, new: Side, *, level: float, seed: int) -> Estimate | None:
    """Cohen's kappa with the majority, new minus old, bootstrapped by prompt; ``None`` where one is undefined."""
    size = len(ORDER)
    cells = np.zeros((len(rows), 2, size * size))
    for k, item in enumerate(rows):
        for place, side in enumerate((old, new)):
            said = side.verdicts[item.pair_id]
            if item.majority is not None and said is not None:
                cells[k, place, ORDER.index(item.majority) * size + ORDER.index(said)] = 1.0

    def kappa(sums: Array) -> Array:
        table = sums.reshape(*sums.shape[:-1], 2, size, size)
        table = table / table.sum(axis=(-2, -1), keepdims=True)
        seen = np.trace(table, axis1=-2, axis2=-1)
        chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
        value = np.where(chance < 1 - 1e-12, (seen - chance) / np.maximum(1 - chance, 1e-12), np.nan)
        return np.asarray(value[..., 1] - value[..., 0])

    prompts = [item.prompt_id for item in rows]
    return bootstrap(
        kappa, cells.reshape(len(rows), 2 * size * size), clusters=prompts, level=level, bounds=(-2.0, 2.0), seed=seed
    )


def _flips(rows: Sequence[GoldItem], old: Side, new: Side) -> tuple[Flip, ...]:
    """Pairs judged differently: first where one side is right, clear human labels and large moves before others."""
    found = []
    for item in rows:
        human, was, now = item.majority, old.verdicts[item.pair_id], new.verdicts[item.pair_id]
        if human is None or was is None or now is None or was == now:
            continue
        before, after = old.preferences.get(item.pair_id), new.preferences.get(item.pair_id)
        found.append(
            Flip(
                pair_id=item.pair_id,
                prompt_id=item.prompt_id,
                category=item.category,
                human=human,
                old=was,
                new=now,
                right="old" if was == human else "new" if now == human else "neither",
                disagreement=item.disagreement,
                moved=None if before is None or after is None else after - before,
            )
        )
    found.sort(key=lambda flip: (flip.right == "neither", flip.disagreement, -abs(flip.moved or 0.0), flip.pair_id))
    return tuple(found)


def _anchors(old: Side, new: Side, *, level: float) -> AnchorDrift | None:
    shared = sorted(old.anchors.keys() & new.anchors.keys())
    if not shared:
        return None
    before, after = (
        [math.nan if (value := side.anchors[pair]) is None else value for pair in shared] for side in (old, new)
    )
    prompts = [old.prompts.get(pair) or new.prompts.get(pair) or pair for pair in shared]
    return anchors(before, after, clusters=prompts, level=level)


def _ratios(old: Side, new: Side) -> Ratios:
    sizes = len(old.verdicts), len(new.verdicts)

    def over(mine: float | None, theirs: float | None, scale: float) -> float | None:
        return None if mine is None or theirs is None or theirs <= 0 else mine / theirs * scale

    each = sizes[0] / max(sizes[1], 1)
    return Ratios(
        cost=over(new.cost, old.cost, each),
        tokens=over(new.tokens, old.tokens, each),
        seconds=over(new.seconds, old.seconds, 1.0),
        old_verdicts=sizes[0],
        new_verdicts=sizes[1],
    )


def _power(test: _Accuracy, *, margin: float, level: float, power: float) -> Power | None:
    apart = (test.old != test.new).astype(float)
    discordant = share(apart, clusters=test.clusters, level=level)
    assert discordant is not None  # there are rows
    n, effect = len(apart), test.effect
    rate = _rate(test)
    detectable = detectable_difference(n / effect, rate, level=level, power=power)
    # Equivalence, if there is no difference: (z_{1-alpha} + z_{(1+power)/2})^2 d / margin^2 (Julious 2004).
    same = (normal_quantile(2 * level - 1) + normal_quantile(power)) ** 2 * rate / margin**2
    other = pairs_needed(margin, rate, level=level, power=power) if margin <= rate else 0
    # Without a difference in sight the rule of three decides, and it counts prompts.
    unseen = math.log(1 - level) / math.log(1 - margin) * n / test.gap.clusters if not apart.any() else 0.0
    return Power(power, discordant, detectable, max(MINIMUM, math.ceil(max(effect * same, effect * other, unseen))))


def _rate(test: _Accuracy) -> float:
    """Discordant share for planning, (k + 1) / (n + 2): none seen is not none."""
    return (float((test.old != test.new).sum()) + 1) / (len(test.old) + 2)


def _more(test: _Accuracy, plan: Power, *, margin: float, level: float) -> int:
    """Pairs beyond these: up to the plan, or past it what the difference seen would need if it were the true one."""
    n, seen = len(test.old), abs(test.gap.value)
    if plan.pairs_needed > n:
        return plan.pairs_needed - n
    spread = max(_rate(test) - seen**2, 1e-9) * test.effect
    ways = [spread * (normal_quantile(level) / seen) ** 2] if seen > 0 else []
    if seen < margin:
        ways.append(spread * (normal_quantile(2 * level - 1) / (margin - seen)) ** 2)
    return max(1, math.ceil(min(ways)) - n)
