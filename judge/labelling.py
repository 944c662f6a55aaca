"""Blind labelling as values: which pairs, in which order, what a person sees of one, and what each key does. Pure.

The person sees a request and two answers called first and second. Which answer stands first, and in which order the
pairs come, follow a digest of seed, pair and annotator: it differs between annotators, cannot be switched off, and is
the same after an interruption. Because the order is a shuffle of the whole draw, the labels given so far are a random
part of the draw at any moment.

Nothing here reads a file, a clock or a terminal: ``labels`` keeps the log, the command line draws the screen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Any

import orjson

from calibration.gold import GoldSet
from calibration.gold_rows import GoldItem, GoldLabel, row

from . import protocol
from .errors import InputError
from .types import Outcome, Pair

if TYPE_CHECKING:
    from calibration.estimates import Estimate
    from rubrics import Rubric

__all__ = [
    "BlindView",
    "Change",
    "Choice",
    "Draft",
    "Drawing",
    "Framed",
    "Mark",
    "Place",
    "Request",
    "Session",
    "Shared",
    "Subject",
    "agreements",
    "begin",
    "blind",
    "candidate_first",
    "disputed",
    "drawing",
    "extended",
    "gold_item",
    "marks",
    "order",
    "prompt_id",
    "record",
]

DRAWS = ("random", "stratified", "active", "escalated", "all")
"""How pairs may be drawn; ``disputed`` is no draw but a second look at pairs that carry labels."""

DEFAULT_LABELS = 100
LEAST_AUDIT = 30
"""Pairs drawn from those that were not escalated: fewer would leave the larger part of a run to a handful of labels."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What labels are about: the names of both sides, the rubric (as a run names it, digest), the eval set's digest."""

    candidate: str
    baseline: str
    rubric: str
    rubric_digest: str
    evalset: str


@dataclass(frozen=True, slots=True)
class Request:
    """How pairs shall be drawn.

    ``how`` is one of ``DRAWS``, ``n`` the number of pairs (``None``: 100, or all if fewer), ``by`` names the strata
    (``category`` or a field of the items' metadata). For ``escalated`` every pair is taken on which the judge gave no
    verdict, contradicted itself when the answers changed places, or was less confident than ``below``; ``n`` then
    counts the pairs drawn at random from the others.
    """

    how: str = "random"
    n: int | None = None
    seed: int = 0
    by: str = "category"
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Framed:
    """One pair of the frame: its stratum, and where a judge has seen it its confidence and whether both orders agreed.

    ``confidence`` and ``consistent`` are ``None`` where the judge gave no verdict.
    """

    pair_id: str
    stratum: str = ""
    confidence: float | None = None
    consistent: bool | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One pair of a draw: how it came in, with what chance, and its stratum; these go into every label of the pair."""

    pair_id: str
    drawn: str
    probability: float
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A draw that was fixed: the request, the frame it came from (size, digest of its sorted ids), and its pairs."""

    request: Request
    frame_size: int
    frame_digest: str
    places: tuple[Place, ...]


class Choice(StrEnum):
    """What a person says of two answers on a screen."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    BOTH_BAD = "both_bad"
    """A tie for every estimate; the label carries the tag ``both_bad``."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was noted about the pair before the vote; ``closeness`` is 0 (far apart) to 1 (nearly equal), ``tags`` are
    reasons in a word or two.
    """

    note: str = ""
    closeness: float | None = None
    tags: tuple[str, ...] = ()

    @property
    def closer(self) -> Draft:
        """The next step of closeness: not said, far apart (0), in between (0.5), nearly equal (1), not said."""
        steps = (None, 0.0, 0.5, 1.0)
        at = steps.index(self.closeness) if self.closeness in steps else 0
        return replace(self, closeness=steps[(at + 1) % len(steps)])


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands for one pair and annotator: an outcome from the candidate's side, or skipped (``None``)."""

    outcome: Outcome | None
    both_bad: bool = False
    draft: Draft = Draft()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to append to the log: a mark for a pair, or ``None`` where it is taken back.

    ``revises`` says whether the annotator has an earlier row on this pair.
    """

    pair_id: str
    mark: Mark | None
    revises: bool


@dataclass(frozen=True, slots=True)
class Session:
    """One annotator's queue as a value; every action returns the next session, and what to write down.

    ``todo`` are the pairs to come, ``trail`` those done, in the order in which they were done: undo walks back along
    it, also into labels of an earlier sitting. ``touched`` are the pairs on which the log has a row of this annotator.
    """

    annotator: str
    seed: int
    todo: tuple[str, ...]
    trail: tuple[str, ...] = ()
    marks: Mapping[str, Mark] = field(default_factory=dict)
    touched: frozenset[str] = frozenset()
    draft: Draft = Draft()

    @property
    def current(self) -> str | None:
        """The pair on the screen, ``None`` at the end."""
        return self.todo[0] if self.todo else None

    @property
    def voted(self) -> int:
        """Pairs with a label."""
        return sum(mark.outcome is not None for mark in self.marks.values())

    @property
    def skipped(self) -> int:
        """Pairs passed over, in this sitting or an earlier one."""
        return sum(mark.outcome is None for mark in self.marks.values())

    @property
    def total(self) -> int:
        """Pairs in the queue, done and to come."""
        return len({*self.todo, *self.trail})

    def cast(self, choice: Choice) -> tuple[Session, Change]:
        """Vote on the current pair; raises ``InputError`` at the end of the queue."""
        pair_id = self._now()
        outcome = Outcome.TIE
        if choice in (Choice.FIRST, Choice.SECOND):
            first = candidate_first(self.seed, pair_id, self.annotator)
            outcome = Outcome.WIN if (choice is Choice.FIRST) == first else Outcome.LOSS
        return self._marked(Mark(outcome, choice is Choice.BOTH_BAD, self.draft))

    def skip(self) -> tuple[Session, Change]:
        """Pass over the current pair; it comes back in the next sitting, after all others."""
        return self._marked(Mark(None, draft=self.draft))

    def undo(self) -> tuple[Session, Change]:
        """Take back the last mark and return to its pair, with its note; raises ``InputError`` where there is none."""
        if not self.trail:
            raise InputError("there is nothing to undo")
        pair_id = self.trail[-1]
        mark = self.marks[pair_id]
        later = replace(
            self,
            todo=(pair_id, *self.todo),
            trail=self.trail[:-1],
            marks={name: kept for name, kept in self.marks.items() if name != pair_id},
            draft=mark.draft,
        )
        return later, Change(pair_id, None, revises=True)

    def noted(self, text: str) -> Session:
        """Give the vote to come a rationale, an empty one to take it away."""
        return replace(self, draft=replace(self.draft, note=text.strip()))

    def tagged(self, tags: Sequence[str]) -> Session:
        """Give the vote to come its reasons; ``both_bad`` is a choice and no reason."""
        return replace(self, draft=replace(self.draft, tags=tuple(tag for tag in tags if tag != "both_bad")))

    def turned(self, steps: int) -> Session:
        """Look at another pair to come, ``steps`` further on or back, without a mark; the draft stays behind."""
        if not self.todo:
            return self
        at = steps % len(self.todo)
        return replace(self, todo=self.todo[at:] + self.todo[:at], draft=Draft())

    def closer(self) -> Session:
        """Step the closeness of the vote to come."""
        return replace(self, draft=self.draft.closer)

    def _now(self) -> str:
        if self.current is None:
            raise InputError("every pair of the draw is done; only undo is left")
        return self.current

    def _marked(self, mark: Mark) -> tuple[Session, Change]:
        pair_id = self._now()
        later = replace(
            self,
            todo=self.todo[1:],
            trail=(*self.trail, pair_id),
            marks={name: kept for name, kept in self.marks.items() if name != pair_id} | {pair_id: mark},
            touched=self.touched | {pair_id},
            draft=Draft(),
        )
        return later, Change(pair_id, mark, revises=pair_id in self.touched)


def begin(queue: Sequence[str], rows: Iterable[Mapping[str, Any]], *, annotator: str, seed: int) -> Session:
    """An annotator's session on a queue (pair ids in any order), continued from the rows of the log.

    Pairs without a row come first, in the annotator's own order; then those skipped in an earlier sitting.
    """
    inside = set(queue)
    own = [entry for entry in rows if entry.get("annotator") == annotator and str(entry.get("pair_id")) in inside]
    held = marks(own)
    ordered = order(queue, annotator=annotator, seed=seed)
    fresh = tuple(name for name in ordered if name not in held)
    again = tuple(name for name in ordered if name in held and held[name].outcome is None)
    trail = tuple(name for name, mark in held.items() if mark.outcome is not None)
    return Session(annotator, seed, fresh + again, trail, held, frozenset(str(entry["pair_id"]) for entry in own))


def marks(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mark]:
    """What stands after all rows of one annotator, in the order in which the pairs were last marked."""
    held: dict[str, Mark] = {}
    for entry in rows:
        pair_id = str(entry["pair_id"])
        held.pop(pair_id, None)
        tags = tuple(str(tag) for tag in entry.get("tags") or ())
        reasons = tuple(tag for tag in tags if tag != "both_bad")
        draft = Draft(str(entry.get("rationale") or ""), entry.get("closeness"), reasons)
        if entry.get("outcome") is not None:
            held[pair_id] = Mark(Outcome(entry["outcome"]), "both_bad" in tags, draft)
        elif entry.get("skipped"):
            held[pair_id] = Mark(None, draft=draft)
    return held


def order(queue: Sequence[str], *, annotator: str, seed: int) -> list[str]:
    """The queue shuffled for one annotator, the same every time, for any order it comes in."""
    return sorted(queue, key=lambda pair_id: _digest("order", seed, pair_id, annotator))


def candidate_first(seed: int, pair_id: str, annotator: str) -> bool:
    """Whether this annotator sees the candidate's answer of this pair first: a fair coin from a digest."""
    return bool(_digest("side", seed, pair_id, annotator)[0] & 1)


@dataclass(frozen=True, slots=True)
class BlindView:
    """All that a person sees of a pair before the vote: titled texts (request, sources), and the answers by place.

    No id, category, model name, label or verdict. ``hidden`` says what of the item is not shown, because the rubric
    does not use it and the judge is not shown it either; empty where everything is shown.
    """

    sections: tuple[tuple[str, str], ...]
    first: str
    second: str
    hidden: str = ""


def blind(pair: Pair, rubric: Rubric, *, first_is_candidate: bool) -> BlindView:
    """What a person sees of a pair: what a judge would see under this rubric, in one order and without labels.

    A label is of the question that the judge was asked. A person who read sources that the judge was not shown would
    answer another one, and the disagreement would be laid at the judge's door: so they are hidden, and that is said.
    """
    messages = [f"[{message.role}]\n{message.content}" for message in pair.item.messages]
    sections = [("Request", "\n\n".join(messages) if messages else pair.item.prompt)]
    if "context" in rubric.uses:
        sections += [(f"Source {number}", text) for number, text in enumerate(pair.item.context, 1)]
    if "reference" in rubric.uses and pair.item.reference:
        sections.append(("Reference answer", pair.item.reference))
    texts = protocol.shown(pair.candidate), protocol.shown(pair.baseline)
    first, second = texts if first_is_candidate else texts[::-1]
    return BlindView(tuple(sections), first, second, _hidden(pair, rubric))


def _hidden(pair: Pair, rubric: Rubric) -> str:
    """What of an item neither a person nor the judge is shown under a rubric, and which rubric would show it."""
    many, uses = len(pair.item.context), rubric.uses
    parts = [f"{many} source{'s' if many != 1 else ''}"] if many and "context" not in uses else []
    parts += ["a reference answer"] if pair.item.reference and "reference" not in uses else []
    if not parts:
        return ""
    return (
        f"Not shown here, nor to the judge: {' and '.join(parts)} of this item. The rubric {rubric.ref} judges "
        "without; one whose `uses` names them (groundedness, say) shows them to both."
    )


def prompt_id(pair: Pair) -> str:
    """The cluster of a pair: the same digest of request and sources as the store's ``prompt_digest``."""
    parts = [pair.item.prompt, pair.item.context, pair.item.reference]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]


def drawing(frame: Sequence[Framed], request: Request) -> Drawing:
    """Draw pairs to label from a frame; every pair's chance is part of the result.

    Raises ``InputError`` for more pairs than there are, for a draw that needs a judge's confidence where none has seen
    the frame, and for an escalation of nothing or of everything.
    """
    from calibration.draws import draw_active, draw_random, draw_stratified

    ids = [framed.pair_id for framed in frame]
    n = min(DEFAULT_LABELS, len(ids)) if request.n is None else request.n
    if request.how == "escalated":
        return _escalated(frame, request)
    if request.how == "stratified":
        drawn = draw_stratified({framed.pair_id: framed.stratum for framed in frame}, n, seed=request.seed)
    elif request.how == "active":
        _need_judge(frame, request.how)
        doubt = {framed.pair_id: 1 - (0.5 if framed.confidence is None else framed.confidence) for framed in frame}
        drawn = draw_active(doubt, n, seed=request.seed)
    elif request.how in ("random", "all"):
        drawn = draw_random(ids, len(ids) if request.how == "all" else n, seed=request.seed)
    else:
        raise InputError(f"there is no draw {request.how!r}; use one of {', '.join(DRAWS)}")
    # A random draw that happens to take every pair stays "random": in shuffled order its first part is a random sample,
    # while labels "of all" speak for a run only once the last one is given.
    places = tuple(Place(pair.pair_id, request.how, pair.probability, pair.stratum) for pair in drawn.pairs)
    return Drawing(replace(request, n=len(places)), drawn.frame_size, drawn.frame_digest, places)


def _escalated(frame: Sequence[Framed], request: Request) -> Drawing:
    """All pairs which the judge could not settle, and a random part of the others: every chance is above 0."""
    from calibration.draws import draw_random

    _need_judge(frame, request.how)
    below = request.below if request.below is not None else 0.0
    doubtful = {
        framed.pair_id
        for framed in frame
        if framed.confidence is None or not framed.consistent or framed.confidence < below
    }
    rest = [framed.pair_id for framed in frame if framed.pair_id not in doubtful]
    if not doubtful or not rest:
        what = "no pair is" if not doubtful else "every pair is"
        raise InputError(f"{what} escalated; use --draw {'random' if not doubtful else 'all'}, or another --below")
    n = min(DEFAULT_LABELS, len(rest)) if request.n is None else request.n
    if n > len(rest):
        raise InputError(f"--n {n}: besides the {len(doubtful)} escalated pairs there are only {len(rest)} others")
    if n < min(LEAST_AUDIT, len(rest)):
        raise InputError(
            f"--n {n}: besides the {len(doubtful)} escalated pairs at least {min(LEAST_AUDIT, len(rest))} of the "
            f"{len(rest)} others are labelled, or nothing could be said about the run"
        )
    audit = draw_random(rest, n, seed=request.seed)
    places = [Place(name, "escalated", 1.0) for name in sorted(doubtful)]
    places += [Place(pair.pair_id, "random", pair.probability) for pair in audit.pairs]
    whole = draw_random([framed.pair_id for framed in frame], len(frame), seed=request.seed)
    return Drawing(replace(request, n=n), whole.frame_size, whole.frame_digest, tuple(places))


def _need_judge(frame: Sequence[Framed], how: str) -> None:
    if all(framed.confidence is None for framed in frame):
        raise InputError(f"--draw {how} needs a judged run to know where the judge is unsure; use --draw random")


def extended(held: Drawing, frame: Sequence[Framed], n: int) -> Drawing:
    """The same draw with more pairs; those drawn before keep their rows, new ones carry their chance under the new n.

    Only for draws whose chances can be recounted from what was labelled: random, and stratified by category. There the
    pairs of the smaller draw are among those of the larger one, by the same seed. Raises ``InputError`` with the reason
    elsewhere.
    """
    request = held.request
    if request.n is not None and n < request.n:
        raise InputError(
            f"--n {n}: {request.n} pairs are drawn already and a draw never shrinks; stop whenever you like, the order "
            "is shuffled, so what is labelled by then is a random sample too"
        )
    by_category = request.how == "stratified" and request.by == "category"
    if request.how != "random" and not by_category:
        raise InputError(
            f"--n {n}: a draw of kind {request.how!r} cannot grow, its chances would no longer be those stored with "
            "the labels; label a new draw into another file (--to)"
        )
    larger = drawing(frame, replace(request, n=n))
    known = {place.pair_id: place for place in held.places}
    if not known.keys() <= {place.pair_id for place in larger.places}:
        raise InputError(f"--n {n}: the larger draw does not hold the smaller one; label into another file (--to)")
    fresh = tuple(place for place in larger.places if place.pair_id not in known)
    return replace(larger, places=held.places + fresh)


def disputed(rows: Iterable[Mapping[str, Any]], *, annotator: str, where: str) -> tuple[str, ...]:
    """Pairs on which two annotators or more differ, not counting this one: a second look for an expert."""
    lines = [json.dumps(dict(entry)) for entry in rows if entry.get("annotator") != annotator]
    gold = GoldSet.from_lines(lines, where=where)
    return tuple(item.pair_id for item in gold.disputed(above=0.0))


def gold_item(pair: Pair, place: Place, subject: Subject) -> GoldItem:
    """A pair with the provenance that all its labels share."""
    return GoldItem(
        pair_id=pair.id,
        prompt_id=prompt_id(pair),
        labels=(),
        candidate=subject.candidate,
        baseline=subject.baseline,
        rubric=subject.rubric,
        category=pair.item.category,
        drawn=place.drawn,
        probability=place.probability,
        stratum=place.stratum,
        candidate_length=len(pair.candidate.text),
        baseline_length=len(pair.baseline.text),
    )


def record(item: GoldItem, change: Change, *, annotator: str, seed: int, at: str, seconds: float) -> dict[str, Any]:
    """One line of the label log: a row for ``GoldSet.read``, with ``tags``, ``skipped`` and ``seconds`` beside it.

    A skip and an undo are rows without an outcome that revise: they leave no label and keep the history. ``at`` is an
    ISO 8601 time, ``seconds`` how long the pair stood on the screen.
    """
    mark = change.mark
    side = "candidate" if candidate_first(seed, item.pair_id, annotator) else "baseline"
    draft = mark.draft if mark is not None else Draft()
    outcome = mark.outcome if mark is not None else None
    label = GoldLabel(annotator, outcome or Outcome.TIE, draft.note, draft.closeness, at, side)
    out = row(item, label) | {"seconds": round(seconds, 1)}
    if outcome is None:
        out["outcome"] = None
    if outcome is None or change.revises:
        out["revises"] = True
    if mark is not None and outcome is None:
        out["skipped"] = True
    tags = [*(["both_bad"] if mark is not None and mark.both_bad else []), *draft.tags]
    if tags:
        out["tags"] = tags
    return out


@dataclass(frozen=True, slots=True)
class Shared:
    """Two annotators and the share of pairs labelled by both on which they gave the same outcome (win, tie, loss)."""

    first: str
    second: str
    agreement: Estimate


def agreements(gold: GoldSet) -> tuple[Shared, ...]:
    """Agreement of every two annotators who share pairs, by name, with a 95% interval clustered by prompt."""
    from calibration.estimates import share

    found = []
    for first, second in combinations(gold.annotators, 2):
        hits, prompts = [], []
        for item in gold.items:
            given = {label.annotator: label.outcome for label in item.labels}
            if first in given and second in given:
                hits.append(float(given[first] is given[second]))
                prompts.append(item.prompt_id)
        agreement = share(hits, clusters=prompts)
        if agreement is not None:
            found.append(Shared(first, second, agreement))
    return tuple(found)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(orjson.dumps(parts)).digest()
