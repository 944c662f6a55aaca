"""From stored runs to one table of systems: every comparison is a battle, every prompt a cluster.

A run compares a candidate with a baseline; runs that share a system rank all of theirs on one scale
(``calibration.ratings``). Systems are told apart by the ``model`` of their answers, row by row, so that one eval set
may hold many systems; answers that name no model are one system by the content of their eval set
(``evidence.compared_names``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from calibration.evidence import match
from calibration.gold import outcome_value
from calibration.ratings import ELO, Battles, rate

from .errors import InputError
from .evidence import run_evidence
from .types import JudgeId

if TYPE_CHECKING:
    from calibration.estimates import Estimate
    from calibration.evidence import Evidence
    from calibration.gold import GoldSet
    from calibration.ratings import Ratings

    from .store import RunInfo, Store

__all__ = ["Human", "Ranked", "Ranking", "System", "Ties", "ranking"]

Ties = Literal["davidson", "rao_kupper"]

_ROUNDS = 1000
_FEW = 30
_OPEN = 12.0
"""Log odds beyond which the end of an interval is no number but a bootstrap round in which someone never lost."""
_SCALE = "Elo: 400/ln 10 points per unit of log strength, the baseline at 1000"
_JUDGE_SCALE = (
    "ratings are on the judge's scale: they say what this judge prefers, not what people do; "
    "`judge calibrate RUN --gold FILE` corrects the win rate of one run"
)


@dataclass(frozen=True, slots=True)
class System:
    """One system on the judge's scale.

    ``rating`` is in Elo points, its interval from the bootstrap over prompts; ``sandwich`` is the same point with the
    prompt-clustered sandwich. The baseline is 1000 by definition, without an interval (method ``fixed``); an end that
    the data do not limit is infinite. ``against`` are the modelled chances (win, tie, loss) against the baseline
    (``None`` for itself), ``record`` the wins, ties and losses counted over all ``comparisons`` on ``prompts`` prompts.
    ``rank_low`` to ``rank_high`` are the ranks that the bootstrap leaves possible.
    """

    name: str
    rank_low: int
    rank_high: int
    rating: Estimate
    sandwich: Estimate
    against: tuple[float, float, float] | None
    record: tuple[int, int, int]
    comparisons: int
    prompts: int


@dataclass(frozen=True, slots=True)
class Human:
    """The same systems rated by people on the labelled pairs: ``ratings`` by name, empty where ``reason`` says why.

    Of the labels that fit, ``labels`` have a majority and ``no_majority`` have none; ``left_out`` are about other
    pairs, answers or rubrics. The baseline is 1000, as with the judge.
    """

    gold: str
    labels: int
    prompts: int
    no_majority: int
    left_out: int
    ratings: Mapping[str, Estimate]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A run that went in: its pairs, those of them without a verdict, and those left out by reason."""

    run_id: str
    rubric: str
    judge: str
    sealed: bool
    pairs: int
    invalid: int
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Systems, best first, and everything their order depends on.

    ``tie`` is nu (Davidson) or theta (Rao-Kupper). ``pseudo_ties`` with the baseline were added to every system where
    some never lost or never won. ``notes`` say what a reader must know.
    """

    model: Ties
    scale: str
    baseline: str
    systems: tuple[System, ...]
    tie: Estimate | None
    pseudo_ties: float
    comparisons: int
    prompts: int
    invalid: int
    runs: tuple[Ranked, ...]
    human: Human | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Rows:
    """Battles while they are collected."""

    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    def add(self, sides: tuple[str, str], outcome: float, item: str) -> None:
        self.first.append(sides[0])
        self.second.append(sides[1])
        self.outcomes.append(outcome)
        self.items.append(item)

    @property
    def battles(self) -> Battles:
        return Battles(self.first, self.second, self.outcomes, self.items)


def ranking(
    store: Store,
    runs: Sequence[RunInfo],
    *,
    ties: Ties = "davidson",
    baseline: str | None = None,
    mixed: bool = False,
    gold: GoldSet | None = None,
    seed: int = 0,
) -> Ranking | None:
    """Rate the systems of ``runs`` on one scale; ``None`` where fewer than two prompts have a verdict.

    ``baseline`` is the system at 1000 (default: the one most rows of the first run have as their baseline). ``gold``
    are labels of these pairs: the same systems are then rated by people, too. Raises ``InputError`` for a run named
    twice, runs under different rubrics or judges unless ``mixed``, systems that no chain of comparisons links, and an
    unknown baseline.
    """
    runs = tuple(runs)
    twice = [name for name, count in Counter(info.run_id for info in runs).items() if count > 1]
    if twice:
        raise InputError(f"run {twice[0]} is named twice; name each run once")
    apart = _apart(runs)
    if apart and not mixed:
        raise InputError(
            f"these runs were not judged alike: {apart}; judge them alike, or pass --mixed to rank them all the same"
        )
    found = [run_evidence(store, info) for info in runs]
    rows, ranked = _collected(runs, found)
    prompts = len(set(rows.items))
    if prompts < 2:
        return None
    _require_links(rows)
    anchor = baseline or _usual_baseline(found[0])
    drawn = rate(rows.battles, baseline=anchor, model=ties, interval="bootstrap", rounds=_ROUNDS, seed=seed)
    robust = rate(rows.battles, baseline=anchor, model=ties)
    assert drawn is not None and robust is not None
    notes = [f"these runs were not judged alike: {apart}"] if apart else []
    human = None if gold is None else _human(found, gold, anchor, ties)
    return Ranking(
        model=ties,
        scale=_SCALE,
        baseline=anchor,
        systems=_systems(drawn, robust, rows),
        tie=drawn.tie if sum(y == 0.5 for y in rows.outcomes) else None,
        pseudo_ties=drawn.pseudo_ties,
        comparisons=drawn.n,
        prompts=prompts,
        invalid=sum(run.invalid for run in ranked),
        runs=tuple(ranked),
        human=human,
        notes=(*notes, *drawn.notes, *_notes(runs, ranked, drawn, prompts)),
    )


def _apart(runs: Sequence[RunInfo]) -> str:
    """What differs between the runs' rubrics and judges, with the runs; empty where nothing does."""
    told: list[str] = []
    for what in ("rubric", "judge"):
        groups: dict[str, list[str]] = {}
        for info in runs:
            groups.setdefault(_of(info.header, what), []).append(info.run_id)
        if len(groups) > 1:
            told.append(f"{what} " + " against ".join(f"{name} ({', '.join(who)})" for name, who in groups.items()))
    return "; ".join(told)


def _of(header: Mapping[str, Any], what: str) -> str:
    """The rubric with the digest of its text, or the judge with its revision and how it decodes."""
    if what == "judge":
        return str(JudgeId(**header["judge"]))
    return f"{header['rubric']} sha256:{header['rubric_digest'][:12]}"


def _sides(evidence: Evidence, k: int) -> tuple[str, str]:
    """The systems of row ``k``: the model that its answers name, else what the run is about."""
    said, run = evidence.said[k], evidence.run
    return said.candidate or str(run.candidate), said.baseline or str(run.baseline)


def _usual_baseline(evidence: Evidence) -> str:
    """The baseline that most rows have; by name among equals, so that the order of rows does not matter."""
    counts = Counter(_sides(evidence, k)[1] for k in range(len(evidence.said)))
    return min(counts, key=lambda name: (-counts[name], name))


def _collected(runs: Sequence[RunInfo], found: Sequence[Evidence]) -> tuple[_Rows, list[Ranked]]:
    """The battles of all runs, and what of each run went in.

    The same answers judged again in a later run by the same judge are one observation: the first run's counts.
    """
    rows, ranked = _Rows(), []
    seen: set[tuple[str, ...]] = set()
    for info, evidence in zip(runs, found, strict=True):
        left, invalid, new = Counter[str](), 0, set[tuple[str, ...]]()
        for k, (said, row) in enumerate(zip(evidence.said, evidence.run.rows, strict=True)):
            sides = _sides(evidence, k)
            key = (evidence.rubric, evidence.judge, row.prompt_id, said.texts, *sides)
            if key in seen:
                left["judged in an earlier run, too"] += 1
            elif sides[0] == sides[1]:
                left["one system on both sides"] += 1
            elif said.outcome is None:
                invalid += 1
            else:
                new.add(key)
                rows.add(sides, outcome_value(said.outcome), row.prompt_id)
        seen |= new
        ranked.append(
            Ranked(info.run_id, info.rubric, info.judge, info.sealed, len(evidence.said), invalid, dict(left))
        )
    return rows, ranked


def _groups(rows: _Rows) -> list[list[str]]:
    """Systems that comparisons link, directly or through others; the largest group first."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for one, other in set(zip(rows.first, rows.second, strict=True)):
        parent[root(one)] = root(other)
    groups: dict[str, list[str]] = {}
    for name in sorted(parent):
        groups.setdefault(root(name), []).append(name)
    return sorted(groups.values(), key=lambda names: (-len(names), names))


def _require_links(rows: _Rows) -> None:
    groups = _groups(rows)
    if len(groups) == 1:
        return
    told = " | ".join(", ".join(names[:4]) + (", ..." if len(names) > 4 else "") for names in groups[:4])
    unnamed = any(name.startswith("evalset:") for names in groups for name in names)
    hint = " (answers that name no model are one system per eval set: give the rows candidate_model and baseline_model)"
    raise InputError(
        f"no comparison links these {len(groups)} groups of systems, so nothing says which is better: {told}; add a "
        f"run that compares one of each{hint if unnamed else ''}"
    )


def _systems(drawn: Ratings, robust: Ratings, rows: _Rows) -> tuple[System, ...]:
    records: dict[str, Counter[float]] = {rating.name: Counter() for rating in drawn.ratings}
    prompts: dict[str, set[str]] = {rating.name: set() for rating in drawn.ratings}
    for one, other, outcome, item in zip(rows.first, rows.second, rows.outcomes, rows.items, strict=True):
        records[one][outcome] += 1
        records[other][1.0 - outcome] += 1
        prompts[one].add(item)
        prompts[other].add(item)
    made = []
    for rating in drawn.ratings:
        fixed, name = rating.name == drawn.baseline, rating.name
        count = records[name]
        made.append(
            System(
                name=name,
                rank_low=rating.rank_low,
                rank_high=rating.rank_high,
                rating=_elo(rating.strength, fixed=fixed),
                sandwich=_elo(robust[name].strength, fixed=fixed),
                against=None if fixed else drawn.probabilities(name, drawn.baseline),
                record=(count[1.0], count[0.5], count[0.0]),
                comparisons=rating.battles,
                prompts=len(prompts[name]),
            )
        )
    return tuple(made)


def _elo(strength: Estimate, *, fixed: bool) -> Estimate:
    """Log strength in Elo points with the baseline at 1000; an end that no data limit becomes infinite."""
    if fixed:
        return replace(strength, value=1000.0, low=1000.0, high=1000.0, method="fixed")
    low = -math.inf if strength.low < -_OPEN else 1000.0 + ELO * strength.low
    high = math.inf if strength.high > _OPEN else 1000.0 + ELO * strength.high
    return replace(strength, value=1000.0 + ELO * strength.value, low=low, high=high)


def _human(found: Sequence[Evidence], gold: GoldSet, anchor: str, ties: Ties) -> Human:
    """People on the labelled pairs, each pair once, clustered by the runs' prompts."""
    rows, none = _Rows(), 0
    done: set[str] = set()
    for evidence in found:
        matched = match(evidence, gold)
        for item, k in zip(matched.gold.items, matched.rows, strict=True):
            sides = _sides(evidence, int(k))
            if item.pair_id in done or sides[0] == sides[1]:
                continue
            done.add(item.pair_id)
            if item.majority is None:
                none += 1
            else:
                rows.add(sides, outcome_value(item.majority), item.prompt_id)
    prompts, ratings, reason = len(set(rows.items)), None, ""
    if prompts < 2:
        reason = f"{prompts} labelled prompts; at least 2 are needed"
    elif len(_groups(rows)) > 1:
        reason = "the labelled pairs do not link all systems they are about"
    elif anchor not in {*rows.first, *rows.second}:
        reason = f"no label is about the baseline {anchor}"
    else:
        ratings = rate(rows.battles, baseline=anchor, model=ties)
    by_name = {} if ratings is None else {
        rating.name: _elo(rating.strength, fixed=rating.name == anchor) for rating in ratings.ratings
    }  # fmt: skip
    return Human(gold.digest, len(rows.items), prompts, none, len(gold) - len(done), by_name, reason)


def _notes(runs: Sequence[RunInfo], ranked: Sequence[Ranked], drawn: Ratings, prompts: int) -> list[str]:
    notes = [_JUDGE_SCALE]
    invalid = sum(run.invalid for run in ranked)
    if invalid:
        notes.append(f"{invalid} of {sum(run.pairs for run in ranked)} comparisons got no verdict and are in no rating")
    for run in ranked:
        notes += [f"{run.run_id}: {count} pairs left out: {why}" for why, count in run.left_out.items()]
        if not run.sealed:
            notes.append(f"run {run.run_id} is not finished; finish it with: judge resume {run.run_id}")
    chosen = [info.run_id for info in runs if (info.header.get("cascade") or {}).get("place", 1) > 1]
    if chosen:
        notes.append(f"{', '.join(chosen)} judged only the pairs that an earlier judge of a cascade was unsure about")
    if prompts < _FEW:
        notes.append(f"{prompts} prompts are few: intervals from fewer than {_FEW} are too narrow")
    if len(drawn.ratings) == 2:
        notes.append("with two systems the ratings say no more than the win rate")
    unnamed = sum(rating.name.startswith("evalset:") for rating in drawn.ratings)
    if unnamed:
        notes.append(
            f"{unnamed} of {len(drawn.ratings)} systems have no name: their answers carry no model (columns "
            "candidate_model, baseline_model), and each eval set counts as another system"
        )
    return notes
