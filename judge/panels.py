"""Several judges over one eval set: as a panel that votes, or as a cascade in which the next decides what one cannot.

Each judge is an ordinary run, journaled and resumable by itself. What makes runs a group is a record in their headers,
``panel`` or ``cascade``: its id, the place of the run in it, and everything that the other runs are started from. So a
group that was interrupted between two judges can be finished from any one of its runs.

Panels: every judge judges everything; here are their agreement and their joint verdict, by plain majority and, with
labels, weighted by reliability (``calibration.panel``). Cascades: a judge's verdict stands where its confidence reaches
the threshold that its calibration certifies (``calibration.selective``); the other pairs go to the next judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.coefficients import Resampling, cohen_kappa
from calibration.estimates import Estimate, difference, mean, share
from calibration.evidence import match
from calibration.gold import outcome_value
from calibration.panel import fit_panel, majority

from .errors import InputError, StoreError
from .evidence import run_evidence
from .money import total
from .runs import rubric_of
from .summary import summarise
from .types import Outcome

if TYPE_CHECKING:
    from calibration.evidence import Evidence
    from calibration.gold import GoldSet
    from calibration.panel import Panel
    from rubrics import TieRule

    from .store import RunInfo, Store
    from .summary import RunReport

__all__ = ["Agreement", "Group", "Joint", "Member", "PanelReport", "Weighing", "group_of", "panel_report"]

_VALUES = {Outcome.WIN: 1.0, Outcome.TIE: 0.5, Outcome.LOSS: 0.0}
_SIDES = {1.0: Outcome.WIN, 0.5: Outcome.TIE, 0.0: Outcome.LOSS}
_FEW = 30


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one panel or cascade, those begun, by place from 1; ``plan`` is the record in their headers."""

    id: str
    plan: Mapping[str, Any]
    runs: Mapping[int, RunInfo]

    @property
    def is_cascade(self) -> bool:
        """Whether it is a cascade and no panel."""
        return "gates" in self.plan

    @property
    def first(self) -> RunInfo:
        """The run of the first judge: over the whole eval set, and begun before all others."""
        return self.runs[1]

    @property
    def specs(self) -> tuple[str, ...]:
        """The judge strings, in order of their places."""
        return tuple(self.plan["judges"])


def group_of(store: Store, group_id: str) -> Group:
    """A panel or cascade by id or unique prefix; raises ``StoreError`` naming those that exist."""
    found: dict[str, dict[int, RunInfo]] = {}
    plans: dict[str, Mapping[str, Any]] = {}
    for info in store.runs():
        plan = info.header.get("panel") or info.header.get("cascade")
        if plan:
            plans[plan["id"]] = plan
            found.setdefault(plan["id"], {})[plan["place"]] = info
    names = [name for name in found if name == group_id] or [name for name in found if name.startswith(group_id)]
    if len(names) != 1:
        known = ", ".join((names or list(found))[:5]) or "none"
        what = "is ambiguous: " if names else "is no panel or cascade here; there are: "
        raise StoreError(f"{group_id!r} {what}{known}")
    name = names[0]
    if 1 not in found[name]:
        raise StoreError(f"{name}: the run of its first judge is gone, and nothing says what it judged")
    return Group(name, plans[name], dict(sorted(found[name].items())))


@dataclass(frozen=True, slots=True)
class Member:
    """One judge of a panel; ``report`` is that of its run (``None`` before its first comparison), ``cost`` what the run
    took in US dollars (``None``: a price is unknown).
    """

    place: int
    judge: str
    run_id: str | None
    sealed: bool
    report: RunReport | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges (by place) on the ``n`` pairs to which both gave a verdict: the share of equal outcomes, Cohen's
    kappa, and the correlation of their errors against labels (``None`` without labels, or where one never errs).
    """

    first: int
    second: int
    n: int
    share: Estimate | None
    kappa: Estimate | None
    errors: float | None


@dataclass(frozen=True, slots=True)
class Joint:
    """The verdicts of a panel under one rule: shares of the ``judged`` of ``n`` pairs; ``invalid`` got no verdict."""

    n: int
    judged: int
    invalid: int
    win: Estimate | None
    tie: Estimate | None
    loss: Estimate | None
    net: Estimate | None


@dataclass(frozen=True, slots=True)
class Weighing:
    """A panel measured on labels.

    ``panel`` holds weights, error correlation, effective size and the held-out comparison with the best member
    (``calibration.panel.fit_panel``), ``joint`` the weighted verdicts on all pairs. Accuracies here are by the side
    that a soft preference leans to, however little. ``majority`` is that of the side which most judges lean to,
    ``best_gap`` that minus the accuracy of the member which is the best on these labels, paired (a little hard on the
    majority: the best is chosen on the same labels).
    ``left_out`` counts labels that say nothing about these pairs, by reason.
    """

    gold: str
    labels: int
    panel: Panel
    joint: Joint
    majority: Estimate | None
    best_gap: Estimate | None
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PanelReport:
    """What a panel says; ``weighing`` is ``None`` where no labels measure it, and ``notes`` say why."""

    panel_id: str
    rubric: str
    pairs: int
    members: tuple[Member, ...]
    agreements: tuple[Agreement, ...]
    majority: Joint
    weighing: Weighing | None
    cost: float | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sealed(self) -> bool:
        """Whether every judge has judged everything."""
        return all(member.sealed for member in self.members)


def panel_report(store: Store, group: Group, gold: GoldSet | None = None, *, level: float = 0.95) -> PanelReport:
    """The judges of a panel side by side, how far they agree, and what they say together.

    ``gold`` are labels of these pairs. Raises ``InputError`` where no judge has judged anything yet.
    """
    members: list[Member] = []
    evidence: dict[int, Evidence] = {}
    for place, spec in enumerate(group.specs, 1):
        info = group.runs.get(place)
        report = None
        if info is not None:
            frame = store.comparisons(info.run_id)
            if not frame.is_empty():
                report = summarise(info.header, frame, sealed=info.sealed, canaries=store.canaries(info.run_id))
                evidence[place] = run_evidence(store, info)
        judge = info.judge if info is not None else spec.partition("?")[0]
        sealed = info is not None and info.sealed
        cost = report.cost if report is not None else info.probe_cost if info is not None else 0.0
        members.append(Member(place, judge, info.run_id if info is not None else None, sealed, report, cost))
    if not evidence:
        raise InputError(f"{group.id} has no comparison yet; finish it with: judge resume {group.id}")
    votes = _Votes(evidence)
    weighing, notes = (
        _weighing(votes, gold, rubric_of(group.first.header).tie_rule, level)
        if gold is not None
        else (None, [_NO_LABELS])
    )
    return PanelReport(
        panel_id=group.id,
        rubric=group.first.rubric,
        pairs=len(votes.pairs),
        members=tuple(members),
        agreements=_agreements(votes, weighing, level),
        majority=_joint(votes, votes.plain(), level),
        weighing=weighing,
        cost=total(member.cost for member in members),
        warnings=_warnings(members, weighing),
        notes=tuple(notes),
    )


_NO_LABELS = (
    "weights, error correlation and the effective size of the panel need labels: put a 'label' into the eval set, or "
    "label some of its pairs and pass --gold FILE"
)


def _name(place: int) -> str:
    return f"judge {place}"


class _Votes:
    """What several judges say pair by pair; a repeated judgement counts once (see ``run_evidence``).

    ``outcomes`` are settled verdicts by place, ``preferences`` soft preferences by name, NaN where there is none.
    """

    def __init__(self, evidence: Mapping[int, Evidence]) -> None:
        self.evidence = evidence
        prompts = {row.pair_id: row.prompt_id for one in evidence.values() for row in one.run.rows}
        self.pairs = sorted(prompts)
        self.prompts = [prompts[pair] for pair in self.pairs]
        said = {place: one.outcomes for place, one in evidence.items()}
        self.outcomes = {place: [own.get(pair) for pair in self.pairs] for place, own in said.items()}
        self.preferences = {_name(place): self._soft(one) for place, one in evidence.items()}

    def _soft(self, one: Evidence) -> list[float]:
        values, place = one.preferences, one.place
        return [float(values[place[pair]]) if pair in place else np.nan for pair in self.pairs]

    def plain(self) -> list[Outcome | None]:
        """By pair the verdict of most judges; a tie where two are level."""
        votes = {
            _name(place): [np.nan if outcome is None else _VALUES[outcome] for outcome in row]
            for place, row in self.outcomes.items()
        }
        return [None if np.isnan(value) else _SIDES[float(value)] for value in majority(votes)]

    def weighted(self, panel: Panel, rule: TieRule) -> list[Outcome | None]:
        """``Panel.combine`` of all pairs, settled under the rubric's tie rule like the verdict of one judge."""
        votes, weights = np.array(list(self.preferences.values())), [[member.weight] for member in panel.members]
        given = np.isfinite(votes) * np.array(weights)
        total = given.sum(axis=0)
        soft = 0.5 + (given * np.nan_to_num(votes - 0.5)).sum(axis=0) / np.where(total > 0, total, 1)
        soft = np.clip(soft, 0, 1)
        return [
            rule.outcome(float(p), 0.0, float(1 - p)) if mass > 0 else None for p, mass in zip(soft, total, strict=True)
        ]


def _joint(votes: _Votes, outcomes: Sequence[Outcome | None], level: float) -> Joint:
    given = [(said, prompt) for said, prompt in zip(outcomes, votes.prompts, strict=True) if said is not None]
    prompts = [prompt for _, prompt in given]
    rates = {
        word.value: share([float(said is word) for said, _ in given], clusters=prompts, level=level) for word in Outcome
    }
    net = mean([2 * _VALUES[said] - 1 for said, _ in given], clusters=prompts, level=level, bounds=(-1.0, 1.0))
    return Joint(len(outcomes), len(given), len(outcomes) - len(given), net=net, **rates)


def _agreements(votes: _Votes, weighing: Weighing | None, level: float) -> tuple[Agreement, ...]:
    found = []
    order = list(votes.outcomes)
    for first, second in combinations(order, 2):
        rows = [
            (a, b, prompt)
            for a, b, prompt in zip(votes.outcomes[first], votes.outcomes[second], votes.prompts, strict=True)
            if a is not None and b is not None
        ]
        prompts = [prompt for *_, prompt in rows]
        how = Resampling(prompts, level)
        kappa = cohen_kappa([(a, b) for a, b, _ in rows], tuple(Outcome), resampling=how) if rows else None
        errors = None
        if weighing is not None:
            errors = weighing.panel.correlation[order.index(first)][order.index(second)]
        same = share([float(a is b) for a, b, _ in rows], clusters=prompts, level=level)
        found.append(Agreement(first, second, len(rows), same, kappa, errors))
    return tuple(found)


def _weighing(votes: _Votes, gold: GoldSet, rule: TieRule, level: float) -> tuple[Weighing | None, list[str]]:
    """The panel on labels, and what to know about them; no weighing where too few labels are about these pairs."""
    matched = match(next(iter(votes.evidence.values())), gold)
    left = dict(matched.left_out)
    items = [item for item in matched.gold.items if item.majority is not None]
    if len(items) < len(matched.gold):
        left["pairs without a majority among their annotators"] = len(matched.gold) - len(items)
    place = {pair: k for k, pair in enumerate(votes.pairs)}
    rows, prompts = [place[item.pair_id] for item in items], [item.prompt_id for item in items]
    truth = [outcome_value(item.majority) for item in items if item.majority is not None]
    preferences = {name: [own[k] for k in rows] for name, own in votes.preferences.items()}
    answered = any(np.isfinite(own).any() for own in preferences.values())
    panel = fit_panel(preferences, truth, clusters=prompts, level=level) if answered else None
    if panel is None:
        reasons = "".join(f"; {count} {why}" for why, count in left.items())
        return None, [f"{len(items)} labels are about these pairs, which is too few to weigh judges by{reasons}"]
    right, gap = _plain(preferences, panel.best, truth, prompts, level=level)
    few = len(set(prompts)) < _FEW
    notes = [f"only {len(set(prompts))} labelled prompts: read the weights as a hint"] if few else []
    joint = _joint(votes, votes.weighted(panel, rule), level)
    return Weighing(gold.digest, len(items), panel, joint, right, gap, left), notes


def _plain(
    preferences: Mapping[str, Sequence[float]],
    best: str,
    truth: Sequence[float],
    prompts: Sequence[str],
    *,
    level: float,
) -> tuple[Estimate | None, Estimate | None]:
    """How often the side that most judges lean to is the labelled one, and how much more often than the best's."""
    right = np.asarray(truth)
    most, own = majority(preferences), majority({best: preferences[best]})
    seen, both = np.isfinite(most), np.isfinite(most) & np.isfinite(own)
    names = np.array(prompts, dtype=object)
    hits, hits_of_best = (most == right).astype(float), (own == right).astype(float)
    gap = difference(hits[both], hits_of_best[both], clusters=names[both], level=level, bounds=(-1.0, 1.0))
    return share(hits[seen], clusters=names[seen], level=level), gap


def _warnings(members: Sequence[Member], weighing: Weighing | None) -> tuple[str, ...]:
    reports = [(member.place, member.report) for member in members if member.report is not None]
    said = [(place, one.canaries) for place, one in reports if one.canaries.state in ("void", "unknown")]
    found = [
        f"judge {place}: {canaries.text} Its votes are in the figures above all the same." for place, canaries in said
    ]
    if weighing is not None:
        gap, best = weighing.best_gap, weighing.panel.best
        if gap is not None and gap.high < 0:
            found.append(
                f"by plain majority the panel is worse than {best} alone: {gap.value:+.1%} [{gap.low:+.1%}, "
                f"{gap.high:+.1%}] on {gap.n} labelled pairs"
            )
        if weighing.panel.warning is not None:
            found.append(f"weighted by gold, {weighing.panel.warning}")
    unfinished = [str(member.place) for member in members if not member.sealed]
    if unfinished:
        found.append(f"not finished: judge {', '.join(unfinished)} of {len(members)} has pairs left")
    return tuple(found)
