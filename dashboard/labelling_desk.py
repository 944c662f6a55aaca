"""One rater's sitting on the page Label: opened from a draw, every vote on the disk before the next pair is shown."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from judge.clock import stamp
from judge.errors import InputError
from judge.labelling import (
    BlindView,
    Change,
    Drawing,
    Place,
    Request,
    Session,
    Subject,
    begin,
    blind,
    candidate_first,
    drawing,
    gold_item,
    record,
)
from judge.labelling import disputed as disputed_pairs
from judge.labels import DrawRecord, LabelLog, read_draw, read_rows, reopened, run_source, write_draw
from judge.store.views import Views
from judge.types import Pair
from rubrics import Rubric, parse

__all__ = ["Desk", "new_draw", "open_desk"]

_LOCKS: dict[str, threading.Lock] = {}
_GUARD = threading.Lock()
_WAIT_SECONDS = 3.0


@dataclass(slots=True)
class Desk:
    """A sitting: the file, the draw, the texts, and the session as it stands; ``since`` is when the pair came up."""

    path: Path
    record: DrawRecord
    rubric: Rubric
    pairs: Mapping[str, Pair]
    session: Session
    since: float

    @property
    def view(self) -> BlindView | None:
        """What may be seen of the current pair, ``None`` at the end."""
        name = self.session.current
        if name is None:
            return None
        first = candidate_first(self.session.seed, name, self.session.annotator)
        return blind(self.pairs[name], self.rubric, first_is_candidate=first)

    @property
    def token(self) -> str:
        """What the page calls the current pair: it may not carry the pair's id, which can tell its category."""
        told = f"{self.session.annotator} {self.session.current}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    def keep(self, later: Session, change: Change) -> None:
        """Write a change down, then take it on; raises ``InputError`` where the file is held or another sitting was
        quicker.
        """
        subject, places = self.record.subject, {place.pair_id: place for place in self.record.drawing.places}
        item = gold_item(self.pairs[change.pair_id], places[change.pair_id], subject)
        row = record(
            item, change, annotator=later.annotator, seed=later.seed, at=stamp(), seconds=time.monotonic() - self.since
        )
        _append(self.path, row)
        self.turn(later)

    def turn(self, later: Session) -> None:
        """Take a session on without writing anything."""
        if later.current != self.session.current:
            self.since = time.monotonic()
        self.session = later


def open_desk(path: Path, annotator: str, views: Views, *, disputed: bool = False) -> Desk:
    """Sit down at a label file; raises ``InputError`` where it has no draw."""
    held = read_draw(path)
    if held is None:
        raise InputError(f"{path.name}: no draw stands beside it; begin a new label file")
    places: dict[str, Place] = {place.pair_id: place for place in held.drawing.places}
    rows = read_rows(path)
    queue = tuple(places)
    if disputed:
        queue = tuple(name for name in disputed_pairs(rows, annotator=annotator, where=str(path)) if name in places)
    session = begin(queue, rows, annotator=annotator, seed=held.drawing.request.seed)
    pairs = (
        views.pairs(held.origin["run"], list(queue))
        if "run" in held.origin
        else reopened(held.origin, views.store).pairs(queue)
    )
    missing = [name for name in queue if name not in pairs]
    if missing:
        raise InputError(f"{path.name}: {len(missing)} of its pairs are gone from {held.origin}; restore the run")
    return Desk(path, held, parse(held.rubric_text, path=f"{path.name} (rubric)"), pairs, session, time.monotonic())


def new_draw(path: Path, run_id: str, request: Request, views: Views) -> Drawing:
    """Draw pairs of a run into a new label file; the draw is written once and never changes."""
    source = run_source(views.store, run_id)
    assert source.rubric is not None  # a run has one
    name, text = source.rubric
    rubric = parse(text, path=f"run {run_id} (rubric)")
    drawn = drawing(source.frame(request), request)
    subject = Subject(*source.names(), name, rubric.digest, source.evalset)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_draw(path, DrawRecord(drawn, subject, text, source.origin), at=stamp())
    path.touch(exist_ok=True)
    return drawn


def _append(path: Path, row: Mapping[str, object]) -> None:
    """Append one row; sessions of this server take turns, other processes are waited for a moment."""
    with _GUARD:
        lock = _LOCKS.setdefault(str(path.resolve()), threading.Lock())
    deadline = time.monotonic() + _WAIT_SECONDS
    with lock:
        while True:
            try:
                log = LabelLog(path)
                break
            except InputError as error:
                if "another process" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        with log:
            log.append(row)
