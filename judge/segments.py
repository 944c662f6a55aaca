"""Segments that answer an incident: which slice got worse, in what way, what changed between two runs, which items.

Alone, a run's slices are held against 0.5: where does the candidate lose? Against an earlier run, each pair is held
against itself: the change of its preference, so that what was always hard does not count as a regression. All slices of
all columns share one Benjamini-Hochberg; those below the least number of prompts are named and not tested; what is
neither shown better nor worse is "unclear".

Everything is on the judge's scale: it says where to look. What may ship is the gate's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from calibration.drift import log_length
from calibration.estimates import Estimate, geometric_mean_ratio, share
from calibration.segments import Segment as Tested
from calibration.segments import benjamini_hochberg, segment_rates

from .decision import Missing
from .errors import InputError
from .evidence import compared
from .kept import read_kept
from .register import Register
from .slices import slices_of, usual_columns

if TYPE_CHECKING:
    import polars

    from .store import RunInfo, Store

__all__ = ["Change", "Moved", "SegmentReport", "Slice", "header_changes", "segment_report"]

Verdict = Literal["worse", "better", "unclear", "too few"]
Kind = Literal["behaviour", "truthfulness", "format", "latency"]
_ITEMS = 10
_COLUMNS = (
    "pair_id", "repeat", "category", "metadata", "prompt_digest", "preference", "candidate_chars", "baseline_chars",
)  # fmt: skip
_NEITHER = (None, None)
_ORDER: dict[Verdict, int] = {"worse": 0, "unclear": 1, "too few": 2, "better": 3}
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("json", "format"),
    ("schema", "format"),
    ("tool", "format"),
    ("regex", "format"),
    ("contains", "format"),
    ("format", "format"),
    ("instructions", "format"),
    ("language", "format"),
    ("citation", "truthfulness"),
    ("ground", "truthfulness"),
    ("links", "truthfulness"),
    ("latency", "latency"),
    ("budget", "latency"),
    ("cost", "latency"),
)
"""What kind of regression a failed check is, by how its name begins; every other one is behaviour."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One thing that moved in a slice: its kind, what it is, by how much (``None``: ``why`` there is no number)."""

    kind: Kind
    name: str
    estimate: Estimate | None
    shown: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: its value raw and shrunk (rate against 0.5, or change against 0), its test, and what it consists of.

    ``q`` is Benjamini-Hochberg over all tested slices of the report. ``moved`` says in what way it got worse (for
    slices that did), ``items`` the pairs to read, worst first.
    """

    column: str
    value: str
    pairs: int
    prompts: int
    raw: Estimate
    shrunk: Estimate | None
    q: float | None
    verdict: Verdict
    moved: tuple[Moved, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs between two runs: ``kind`` is base, adapter, data, rubric, judge or config."""

    kind: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """The slices of a run, worst first, and against ``against`` what changed and how to go back."""

    run_id: str
    against: str | None
    candidate: str
    columns: tuple[str, ...]
    overall: Estimate | None
    slices: tuple[Slice, ...]
    pairs: int
    left_out: int
    minimum: int
    q: float
    changes: tuple[Change, ...] = ()
    back: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, verdict: Verdict) -> tuple[Slice, ...]:
        """The slices with this verdict, worst first."""
        return tuple(part for part in self.slices if part.verdict == verdict)


def segment_report(
    store: Store,
    info: RunInfo,
    *,
    by: Sequence[str] = (),
    against: RunInfo | None = None,
    minimum: int = 20,
    q: float = 0.05,
) -> SegmentReport:
    """The slices of a run, alone or against an earlier run of the same pairs.

    ``by`` names columns (none: the usual ones that the run has). Raises ``InputError`` for a column that no item has, a
    run without a comparison, and two runs that share no pair.
    """
    candidate, _ = compared(store, info)
    frame, traits = _means(store, info), store.traits(info.run_id)
    before = None if against is None else _means(store, against)
    columns = tuple(by) or usual_columns(frame, traits)
    slices = slices_of(frame, traits, columns)
    values, left_out, notes = _values(frame, before, info, against)
    held = _Held(values, dict(zip(frame["pair_id"], frame["prompt_digest"], strict=True)), against is not None)
    found = [(column, part, inside) for column in columns for part, inside in held.tested(slices[column])]
    enough = [k for k, (_, part, _) in enumerate(found) if part.p is not None and part.raw.clusters >= minimum]
    adjusted = benjamini_hochberg([found[k][1].p or 0.0 for k in enough]).tolist() if enough else []
    q_of = dict(zip(enough, adjusted, strict=True))
    look = _Look(store, info, against, (frame, before), traits)
    made = []
    for k, (column, part, inside) in enumerate(found):
        verdict = _verdict(part, q_of.get(k), held.reference, q)
        moved = look.moved(inside) if verdict == "worse" else ()
        made.append(Slice(column, part.name, part.n, part.raw.clusters, part.raw, part.shrunk, q_of.get(k), verdict,
                          moved, held.worst(inside)))  # fmt: skip
    made.sort(key=lambda part: (_ORDER[part.verdict], part.raw.value, part.column, part.value))
    whole = held.tested(dict.fromkeys(values, ("all",)))
    return SegmentReport(
        run_id=info.run_id,
        against=None if against is None else against.run_id,
        candidate=candidate,
        columns=columns,
        overall=whole[0][0].raw if whole else None,
        slices=tuple(made),
        pairs=len(values),
        left_out=left_out,
        minimum=minimum,
        q=q,
        changes=() if against is None else header_changes(store, against, info),
        back=_back(store, info, against, candidate),
        notes=notes,
    )


@dataclass(frozen=True)
class _Held:
    """What each pair is held by: its preference against 0.5, or its change against 0."""

    values: Mapping[str, float]
    prompts: Mapping[str, str]
    changes: bool

    @property
    def reference(self) -> float:
        return 0.0 if self.changes else 0.5

    def tested(self, column: Mapping[str, tuple[str, ...]]) -> list[tuple[Tested, list[str]]]:
        """Every slice of a column, tested, with its pairs."""
        rows = [(value, pair) for pair in self.values for value in column[pair]]
        inside: dict[str, list[str]] = {}
        for value, pair in rows:
            inside.setdefault(value, []).append(pair)
        parts = segment_rates(
            [self.values[pair] for _, pair in rows],
            [value for value, _ in rows],
            clusters=[self.prompts[pair] for _, pair in rows],
            reference=self.reference,
            bounds=(-1.0, 1.0) if self.changes else (0.0, 1.0),
        )
        return [(part, inside[part.name]) for part in parts]

    def worst(self, inside: Sequence[str]) -> tuple[str, ...]:
        """The pairs below the reference, lowest first."""
        below = sorted((self.values[pair], pair) for pair in inside if self.values[pair] < self.reference)
        return tuple(pair for _, pair in below[:_ITEMS])


def _verdict(part: Tested, q: float | None, reference: float, limit: float) -> Verdict:
    if q is None:
        return "too few"
    if q > limit:
        return "unclear"
    return "worse" if part.raw.value < reference else "better"


def _means(store: Store, info: RunInfo) -> polars.DataFrame:
    """One row a pair: the mean preference over its repeats that have a verdict."""
    import polars

    frame = store.comparisons(info.run_id, _COLUMNS)
    if frame.is_empty():
        raise InputError(f"run {info.run_id} has no comparison yet; finish it with: judge resume {info.run_id}")
    means = frame.group_by("pair_id").agg(polars.col("preference").mean())
    first = frame.unique("pair_id", keep="first", maintain_order=True).drop("preference")
    return first.join(means, on="pair_id", how="left").sort("pair_id")


def _values(
    frame: polars.DataFrame, other: polars.DataFrame | None, info: RunInfo, against: RunInfo | None
) -> tuple[dict[str, float], int, tuple[str, ...]]:
    """By pair id its preference, or the change of it; how many pairs are left out; and what is odd."""
    own = _preferences(frame)
    if against is None or other is None:
        notes = () if info.sealed else (f"run {info.run_id} is not finished: this is a part of it",)
        return own, frame.height - len(own), notes
    before = _preferences(other)
    places = [dict(zip(one["pair_id"], one["prompt_digest"], strict=True)) for one in (frame, other)]
    shared = {pair for pair in places[0] if places[1].get(pair) == places[0][pair]}
    values = {pair: own[pair] - before[pair] for pair in own if pair in shared and pair in before}
    if not values:
        raise InputError(f"runs {info.run_id} and {against.run_id} share no pair that both have a verdict on")
    found = []
    for head in (info, against):
        if not head.sealed:
            found.append(f"run {head.run_id} is not finished: this is a part of it")
    keys = ("rubric_digest", "judge")
    if any(info.header[key] != against.header[key] for key in keys):
        found.append(
            "the two runs were judged by another judge or rubric: a change may be the judge's; judge both alike to know"
        )
    return values, frame.height - len(values), tuple(found)


def _preferences(frame: polars.DataFrame) -> dict[str, float]:
    rows = frame.filter(frame["preference"].is_not_null())
    return dict(zip(rows["pair_id"].to_list(), rows["preference"].to_list(), strict=True))


class _Look:
    """What moved inside a slice that got worse, from what is stored: failed checks, latency, length, verdicts."""

    def __init__(
        self,
        store: Store,
        info: RunInfo,
        against: RunInfo | None,
        frames: tuple[polars.DataFrame, polars.DataFrame | None],
        traits: polars.DataFrame,
    ) -> None:
        now, before = frames
        self.ms = _sides(traits, "ms", None if against is None else store.traits(against.run_id))
        self.chars = _sides(now, "chars", before)
        self.checks = read_kept(store, info).suites

    def moved(self, inside: Sequence[str]) -> tuple[Moved, ...]:
        """Everything that can be said about the pairs of a slice."""
        return (*self._checks(inside), self._latency(inside), self._length(inside))

    def _checks(self, inside: Sequence[str]) -> Iterable[Moved]:
        if isinstance(self.checks, Missing):
            why = f"{self.checks.reason}: {self.checks.fix}"
            yield Moved("behaviour", "behaviour, truthfulness, format", None, shown=False, why=why)
            return
        own = set(inside)
        for hard in self.checks:
            failing = own & set(hard.failing)
            if failing:
                kind: Kind = next((kind for start, kind in _KINDS if hard.check.startswith(start)), "behaviour")
                whole = len(hard.failing) == hard.failed  # a report lists the first of many
                found = share([float(pair in failing) for pair in inside]) if whole else None
                told = (
                    f"{'' if whole else 'at least '}{len(failing)} of {len(inside)}: {', '.join(sorted(failing)[:5])}"
                )
                yield Moved(kind, f"{hard.check} fails", found, shown=True, why=told)

    def _latency(self, inside: Sequence[str]) -> Moved:
        """Candidate against baseline, or the candidate now against then: the geometric mean of the ratio."""
        pairs = [(now, then) for now, then in (self.ms.get(pair, _NEITHER) for pair in inside) if now and then]
        found = geometric_mean_ratio([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) > 1 else None
        if found is None:
            return Moved("latency", "latency", None, shown=False, why="the answers do not say their latency_ms")
        return Moved("latency", "latency ratio", found, shown=found.low > 1.0 or found.high < 1.0)

    def _length(self, inside: Sequence[str]) -> Moved:
        rows = [self.chars[pair] for pair in inside if pair in self.chars]
        found = log_length([b for _, b in rows], [c for c, _ in rows])
        if found is None:
            return Moved("format", "length", None, shown=False, why="no answer has a length")
        ratio = Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.level, found.n,
                         found.clusters, f"geometric mean, {found.method}")  # fmt: skip
        return Moved("format", "length ratio", ratio, shown=ratio.low > 1.0 or ratio.high < 1.0)


def _sides(now: polars.DataFrame, unit: str, before: polars.DataFrame | None) -> dict[str, tuple[Any, Any]]:
    """By pair id the candidate's number and what it is held against: the baseline's, or the candidate's before."""
    ours, theirs = f"candidate_{unit}", f"baseline_{unit}"
    if before is not None:
        theirs = f"{ours}_before"
        now = now.join(before.rename({ours: theirs}).select("pair_id", theirs), on="pair_id")
    return {pair: (one, other) for pair, one, other in now.select("pair_id", ours, theirs).iter_rows()}


def header_changes(store: Store, before: RunInfo, after: RunInfo) -> tuple[Change, ...]:
    """What differs between two runs: what is compared, data, rubric, judge and config; equal things are not listed."""
    heads = (before.header, after.header)
    names = [compared(store, run) for run in (before, after)]
    rows: list[tuple[str, str, Any, Any]] = [
        ("base", "candidate", names[0][0], names[1][0]),
        ("base", "baseline", names[0][1], names[1][1]),
        ("adapter", "adapter", _adapter(names[0][0]), _adapter(names[1][0])),
        ("data", "eval set", *(head["evalset"]["digest"][:12] for head in heads)),
        ("data", "pairs", *(head["evalset"]["rows"] for head in heads)),
        ("rubric", "rubric", *(head["rubric"] for head in heads)),
        ("rubric", "rubric text", *(head["rubric_digest"][:12] for head in heads)),
        *(("judge", key, *(head["judge"].get(key, "") for head in heads)) for key in ("name", "revision", "decoding")),
        *(("config", key, *(head.get(key, "") for head in heads)) for key in ("template", "seed", "repeats")),
        *(
            ("config", f"version of {name}", *(head.get("versions", {}).get(name, "") for head in heads))
            for name in sorted({*heads[0].get("versions", {}), *heads[1].get("versions", {})})
        ),
    ]
    found = [Change(kind, field, str(old), str(new)) for kind, field, old, new in rows if old != new]
    return (*found, *_data_changes(store, before, after))


def _adapter(name: str) -> str:
    """The adapter of a model that is named ``base+adapter``; none is empty."""
    return name.partition("+")[2]


def _data_changes(store: Store, before: RunInfo, after: RunInfo) -> list[Change]:
    old, new = (dict(store.answers(run.run_id).select("pair_id", "texts").iter_rows()) for run in (before, after))
    shared = old.keys() & new.keys()
    changed = sorted(pair for pair in shared if old[pair] != new[pair])
    found = []
    if changed:
        told = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        found.append(
            Change("data", "answers of shared pairs", f"{len(shared)} shared", f"{len(changed)} differ: {told}")
        )
    for field, names in (("pairs only before", old.keys() - new.keys()), ("pairs only now", new.keys() - old.keys())):
        if names:
            listed = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            found.append(Change("data", field, "", f"{len(names)}: {listed}"))
    return found


def _back(store: Store, info: RunInfo, against: RunInfo | None, candidate: str) -> tuple[str, ...]:
    """How to go back, and how to know that it helped."""
    from .rollout import rollouts

    running = [one for one in rollouts(Register(store.home).entries("rollout")) if one.active]
    mine = [one for one in running if info.run_id == one.run or candidate == one.candidate]
    steps = [f"judge rollout rollback {one.id} --reason WHY   (serves {one.baseline} again)" for one in mine]
    if not steps:
        steps = [
            "no rollout of this candidate is running here: keep serving the baseline, or point your flag back at it"
        ]
    since = info.run_id if against is None else against.run_id
    return (
        *steps,
        "judge what is served then as a run of the same eval set, and confirm it:",
        f"judge segments NEW-RUN --against {since}   (the slices above must no longer be worse)",
    )
