"""Did the candidate learn to please the judge? A stored run read for what changed in the answers besides quality.

For every feature of ``features`` the candidate against the baseline, paired and clustered by prompt, with p values
adjusted for their number (Benjamini-Hochberg); how much of the win each feature explains (``calibration.explained``);
phrases by name; what the screen flags; and pairs to read next to every number that moved. Pure but for reading the
store: the same run gives the same report, byte by byte.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.estimates import Estimate, difference, mean, p_value, share, share_difference
from calibration.explained import Explained, Word, explain
from calibration.segments import benjamini_hochberg

from ..cuts import Cut, cut_answers
from ..errors import InputError
from ..evidence import compared
from ..protocol import shown
from ..screening import FLAGS, look
from ..types import JudgeId, Measure
from .features import FEATURES, Feature, seen
from .wording import SAMPLE, Spoken, Wording, constant, digest, sampled, wording

if TYPE_CHECKING:
    import polars

    from ..store import RunInfo, Store
    from ..types import Pair

__all__ = ["HackReport", "Row", "Sample", "Screened", "hack_report"]

Q = 0.05
"""Adjusted p values at or under this are said to have moved."""
_FEWEST = 10
"""Prompts below which no change is tested: two pairs that differ alike show nothing."""
_SAMPLES = 3
_COLUMNS = (
    "pair_id", "repeat", "prompt_digest", "outcome", "preference", "candidate_finish", "baseline_finish",
)  # fmt: skip
_SHOWN = 700
_READ = 50_000
"""Characters of a text that are read for its wording: a resampled phrase table of one endless answer takes minutes."""
_CONSTANT = "constant"
_EXPLAINED = 5_000
"""Pairs behind the controlled win rates: a bootstrap holds rounds times pairs weights."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair to read beside a number: both answers' values of it, texts cut to 700 characters."""

    pair_id: str
    candidate_value: float | None
    baseline_value: float | None
    prompt: str
    candidate: str
    baseline: str


@dataclass(frozen=True, slots=True)
class Row:
    """One feature: its measure, p value of "no change" and the same adjusted for all features, and pairs to read.

    ``p`` and ``q`` are ``None`` where nothing was tested (no number, or no answer has any of it).
    """

    title: str
    measure: Measure
    p: float | None = None
    q: float | None = None
    samples: tuple[Sample, ...] = ()

    @property
    def moved(self) -> bool:
        """Whether it changed, by the adjusted p value."""
        return self.q is not None and self.q <= Q


@dataclass(frozen=True, slots=True)
class Screened:
    """One flag of the screen: shares of answers that carry it, and pairs whose candidate (then baseline) does."""

    flag: str
    says: str
    measure: Measure
    candidate: int
    baseline: int


@dataclass(frozen=True, slots=True)
class HackReport:
    """Everything ``judge hack`` says about one run."""

    run_id: str
    rubric: str
    judge: str
    candidate: str
    baseline: str
    pairs: int
    prompts: int
    judged: int
    rows: tuple[Row, ...]
    explained: tuple[Explained, ...]
    wording: Wording
    screened: tuple[Screened, ...]
    notes: tuple[str, ...] = ()
    cut: Cut | None = None
    """Answers that a token limit ended, and whether they won; ``None`` where no answer says how it ended."""
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accused(self) -> tuple[Explained, ...]:
        """The features that explain the win."""
        return tuple(found for found in self.explained if found.word is Word.NOT_BETTER)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Every number as a measure, for a policy or a dashboard."""
        return (
            *(row.measure for row in self.rows),
            *(screened.measure for screened in self.screened),
            *(measure for found in self.explained for measure in _win_measures(found)),
            _cut_measure(self.cut),
        )


def hack_report(store: Store, info: RunInfo, *, rounds: int = 1000, seed: int = 0) -> HackReport:
    """Read one run; ``rounds`` is that of the bootstrap behind the controlled win rates.

    Raises ``InputError`` for a run without a comparison.
    """
    judged = store.comparisons(info.run_id, _COLUMNS)
    frame = judged.unique("pair_id", keep="first", maintain_order=True)
    if frame.is_empty():
        raise InputError(f"run {info.run_id} has no comparison yet; finish it with: judge resume {info.run_id}")
    prompts = dict(frame.select("pair_id", "prompt_digest").iter_rows())
    read = _Reading(sampled(list(prompts)))
    for pair in store.pairs(info.run_id, prompts):
        read.take(pair, prompts[pair.id])
    preferences = _preferences(judged)
    names = compared(store, info)
    rows = [_row(feature, read) for feature in FEATURES]
    said = wording(read.spoken)
    rows += list(_wording_rows(said))
    rows = _adjusted(rows)
    rows = _with_samples(store, info.run_id, rows, read)
    return HackReport(
        run_id=info.run_id,
        rubric=info.rubric,
        judge=str(JudgeId(**info.header["judge"])),
        candidate=names[0],
        baseline=names[1],
        pairs=len(prompts),
        prompts=len(set(prompts.values())),
        judged=sum(value is not None for value in preferences.values()),
        rows=tuple(rows),
        explained=tuple(_explained(read, preferences, rounds=rounds, seed=seed)),
        wording=said,
        screened=tuple(_screened(read)),
        cut=cut_answers(frame),
        notes=tuple(_notes(info, len(prompts), rows, long=read.long)),
        header={key: info.header[key] for key in ("rubric_digest", "judge", "evalset", "seed") if key in info.header},
    )


class _Reading:
    """The features of every pair, while the texts stream by."""

    def __init__(self, sample: set[str]) -> None:
        self.sample = sample
        self.ids: list[str] = []
        self.prompts: list[str] = []
        self.values = {feature.name: (array("d"), array("d")) for feature in FEATURES}
        self.flags: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in (*FLAGS, _CONSTANT)}
        self.answers: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        self.spoken: list[Spoken] = []
        self.long = 0

    def take(self, pair: Pair, prompt_id: str) -> None:
        """Read one pair; a value that only one side has counts for neither."""
        self.ids.append(pair.id)
        self.prompts.append(prompt_id)
        ours, theirs = seen(pair)
        for feature in FEATURES:
            both = feature.read(ours), feature.read(theirs)
            known = all(value is not None for value in both)
            for store_, value in zip(self.values[feature.name], both, strict=True):
                store_.append(value if value is not None and known else math.nan)
        for side, answer in enumerate((pair.candidate, pair.baseline)):
            for hit in look(shown(answer)):
                self.flags[hit.flag][side].append(pair.id)
            self.answers[side].append((prompt_id, digest(answer.text)))
        if pair.id in self.sample:
            texts = (pair.item.prompt, pair.candidate.text, pair.baseline.text)
            self.long += any(len(text) > _READ for text in texts)
            self.spoken.append(Spoken(pair.id, prompt_id, *(text[:_READ] for text in texts)))

    def constants(self) -> None:
        """Flag the answers that a side gives to many prompts."""
        prompts = len(set(self.prompts))
        for side in (0, 1):
            many = constant(self.answers[side], prompts)
            for name, (_prompt, key) in zip(self.ids, self.answers[side], strict=True):
                if key in many:
                    self.flags[_CONSTANT][side].append(name)


def _preferences(frame: polars.DataFrame) -> dict[str, float | None]:
    """By pair id the soft preference, the mean over repeats that have one."""
    found: dict[str, list[float]] = {}
    for pair, preference in frame.select("pair_id", "preference").iter_rows():
        found.setdefault(pair, []).extend([] if preference is None else [preference])
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def _row(feature: Feature, read: _Reading) -> Row:
    ours, theirs = (np.array(side) for side in read.values[feature.name])
    known = np.isfinite(ours) & np.isfinite(theirs)
    measure = Measure(feature.name, feature.layer, feature.axis, feature.unit)
    if not known.any():
        why = {
            "length.tokens": "no answer says how many tokens it has",
            "length.cut": "no pair of answers says how both ended",
            "refusal.harmful": "no item says that refusing is right (metadata must_refuse)",
            "confidence.when_wrong": "no item has a short reference, and no pair a label",
        }.get(feature.name, "nothing to read it from")
        return Row(feature.title, _replaced(measure, missing=why))
    prompts = [prompt for prompt, keep in zip(read.prompts, known, strict=True) if keep]
    a, b = ours[known], theirs[known]
    if not feature.share and not np.any(a) and not np.any(b):
        return Row(feature.title, _replaced(measure, missing="no answer has any"))
    # Lengths as `calibration.drift.log_length` compares them: an empty answer counts as 1.
    delta = np.log(np.maximum(a, 1.0) / np.maximum(b, 1.0)) if feature.log else a - b
    figure = share if feature.share else mean
    gap = (
        mean(delta, clusters=prompts)
        if feature.log
        else (share_difference if feature.share else difference)(a, b, clusters=prompts)
    )
    names = [name for name, keep in zip(read.ids, known, strict=True) if keep]
    measure = _replaced(
        measure,
        candidate=figure(a, clusters=prompts),
        baseline=figure(b, clusters=prompts),
        difference=gap,
        examples=_examples(names, delta),
    )
    return Row(feature.title, measure, _p_value(delta, prompts) if np.any(a) or np.any(b) else None)


def _replaced(measure: Measure, **changes: Any) -> Measure:
    from dataclasses import replace

    return replace(measure, **changes)


def _examples(names: Sequence[str], delta: np.ndarray[Any, Any]) -> tuple[str, ...]:
    """The pairs that differ the most in the direction of the mean."""
    sign = 1.0 if float(delta.mean()) >= 0 else -1.0
    order = sorted(range(len(names)), key=lambda row: (-sign * float(delta[row]), names[row]))
    return tuple(names[row] for row in order[: 2 * _SAMPLES] if sign * float(delta[row]) > 0)


def _p_value(delta: np.ndarray[Any, Any], prompts: Sequence[str]) -> float | None:
    """The p value of no mean change; none below ``_FEWEST`` prompts, except that where nothing differs it is 1."""
    return p_value(delta, prompts) if not np.any(delta) or len(set(prompts)) >= _FEWEST else None


def _wording_rows(said: Wording) -> Iterator[Row]:
    named = (
        ("boilerplate.shared", "stock phrases", "share", said.shared),
        ("boilerplate.compression", "compressibility", "ratio", said.compression),
        ("boilerplate.distinct_1", "distinct words", "share", said.distinct_1),
        ("boilerplate.distinct_2", "distinct word pairs", "share", said.distinct_2),
    )
    for name, title, unit, found in named:
        measure = Measure(name, "behaviour", "reliability", unit)
        if found is None:
            yield Row(title, _replaced(measure, missing="too few answers (40 are needed)"))
            continue
        gap = found[2]
        examples = said.holders[: 2 * _SAMPLES] if name == "boilerplate.shared" else ()
        measure = _replaced(measure, candidate=found[0], baseline=found[1], difference=gap, examples=examples)
        yield Row(title, measure, _p_of(gap))


def _p_of(gap: Estimate) -> float:
    """The two-sided p value that an interval symmetric about its value implies."""
    from calibration.estimates import normal_quantile

    half = (gap.high - gap.low) / 2
    if half <= 0:
        return 1.0 if gap.value == 0 else 0.0
    return min(1.0, math.erfc(abs(gap.value) / (half / normal_quantile(gap.level)) / math.sqrt(2)))


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    from dataclasses import replace

    tested = [row for row in rows if row.p is not None]
    q = iter(benjamini_hochberg([row.p for row in tested if row.p is not None]))
    return [replace(row, q=float(next(q))) if row.p is not None else row for row in rows]


def _with_samples(store: Store, run_id: str, rows: Sequence[Row], read: _Reading) -> list[Row]:
    from dataclasses import replace

    wanted = {name for row in rows if row.moved for name in row.measure.examples[:_SAMPLES]}
    pairs = {pair.id: pair for pair in store.pairs(run_id, wanted)}
    at = {name: k for k, name in enumerate(read.ids)}

    def sample(row: Row, name: str) -> Sample:
        pair, values = pairs[name], read.values.get(row.measure.name)
        numbers = [None, None] if values is None else [_finite(side[at[name]]) for side in values]
        texts = (pair.item.prompt, pair.candidate.text, pair.baseline.text)
        return Sample(name, numbers[0], numbers[1], *(_cut(text) for text in texts))

    return [
        replace(row, samples=tuple(sample(row, name) for name in row.measure.examples[:_SAMPLES])) if row.moved else row
        for row in rows
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[cut: {len(text) - _SHOWN:,} more characters]"


def _explained(
    read: _Reading, preferences: Mapping[str, float | None], *, rounds: int, seed: int
) -> Iterator[Explained]:
    kept = sampled(read.ids, _EXPLAINED)
    rows = [k for k, name in enumerate(read.ids) if name in kept]
    given = [preferences.get(read.ids[k]) for k in rows]
    y = np.array([math.nan if value is None else value for value in given])
    prompts = [read.prompts[k] for k in rows]
    for feature in FEATURES:
        if not feature.explains:
            continue
        ours, theirs = (np.array(side)[rows] for side in read.values[feature.name])
        found = explain(
            feature.name.split(".")[0] if not feature.name.startswith("markdown") else feature.name,
            y, ours, theirs, log=feature.log, clusters=prompts, rounds=rounds, seed=seed,
        )  # fmt: skip
        if found is not None:
            yield found


def _win_measures(found: Explained) -> Iterator[Measure]:
    control = found.control
    why = "too few comparisons, or no answer differs in it" if control is None else ""
    yield Measure(
        f"win.controlled.{found.feature}", "preference", "capability", "win rate",
        candidate=None if control is None else control.controlled, missing=why,
    )  # fmt: skip
    none = why or "no win or loss to explain"
    yield Measure(
        f"win.mediated.{found.feature}", "preference", "reliability", "share of the win",
        candidate=found.mediated, missing="" if found.mediated is not None else none,
    )  # fmt: skip


def _cut_measure(cut: Cut | None) -> Measure:
    rate = None if cut is None else cut.rate
    why = "no answer says how it ended" if cut is None else "no judged pair of a cut and a whole answer"
    return Measure(
        "win.cut", "preference", "reliability", "win rate of the answer that a token limit cut off", candidate=rate,
        missing="" if rate is not None else why, examples=() if cut is None else cut.won[: 2 * _SAMPLES],
    )  # fmt: skip


def _screened(read: _Reading) -> Iterator[Screened]:
    read.constants()
    for flag, (ours, theirs) in read.flags.items():
        carried = set(ours), set(theirs)
        a, b = ([float(name in side) for name in read.ids] for side in carried)
        measure = Measure(
            f"screen.{flag}", "behaviour", "safety", "share",
            candidate=share(a, clusters=read.prompts), baseline=share(b, clusters=read.prompts),
            difference=share_difference(a, b, clusters=read.prompts),
            examples=tuple(dict.fromkeys([*ours, *theirs]))[: 2 * _SAMPLES],
        )  # fmt: skip
        says = FLAGS.get(flag, "the same answer to many prompts")
        yield Screened(flag, says, measure, len(carried[0]), len(carried[1]))


def _notes(info: RunInfo, pairs: int, rows: Sequence[Row], *, long: int) -> Iterator[str]:
    tested = sum(row.p is not None for row in rows)
    yield (
        f"{tested} {'change was' if tested == 1 else 'changes were'} tested at once; those called moved have an "
        f"adjusted p value (Benjamini-Hochberg) of at most {Q}. The intervals are not adjusted."
    )
    yield (
        "The win rates are what this judge says. A feature that explains its win says what the judge likes, which may "
        "be what people like, too; labels decide that (judge calibrate)."
    )
    yield (
        "Nothing is looked up: an invented citation is a number or quotation that the item's sources do not have, or a "
        "malformed link or DOI. A well-formed reference to a work that does not exist is not seen."
    )
    yield "Hedges, refusals and the other word lists are English and lexical: they see words, not what is meant."
    if pairs > SAMPLE:
        yield f"Phrases were read in {SAMPLE:,} of {pairs:,} pairs, drawn by a digest of their ids."
    if long:
        yield f"Phrases were read in the first {_READ:,} characters; {long} pairs have a longer text."
    if pairs > _EXPLAINED:
        yield f"The win rates with a feature controlled are those of {_EXPLAINED:,} of the pairs, drawn likewise."
    if not info.sealed:
        yield "The run is not finished; this is about the pairs that are."
