"""``judge label``: a person labels pairs in the terminal, blind."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from ..render.words import counted
from .screen import bring_in, home_option, safe

if TYPE_CHECKING:
    from rubrics import Rubric

    from ..labelling import BlindView, Change, Drawing, Place, Request, Session, Subject
    from ..labels import DrawRecord, LabelLog, Source
    from ..store import Store
    from ..types import Pair
    from .keyboard import Face, Scene

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_HELP = """\
1  the first answer is better
2  the second answer is better
3  a tie: equally good
4  a tie: both bad
s  skip: the pair comes back next time
u  undo: take back the last label
n  note: why; kept with the label
c  closeness: far, in between, equal
r  the rubric
q  quit; what is labelled is kept
space and b, or the arrow keys, scroll

Judge by the rubric alone. The two answers stand in random order, other people see other orders, \
and nobody is told here what a judge or another person said."""
_CLOSENESS = {None: "", 0.0: "far apart", 0.5: "in between", 1.0: "nearly equal"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given; ``None`` is "not said"."""

    run_id: str | None
    to: Path
    annotator: str | None
    n: int | None
    how: str | None
    by: str | None
    below: float | None
    seed: int | None
    rubric: str | None
    evalset: Path | None
    candidate: Path | None
    baseline: Path | None
    maps: tuple[str, ...]
    status: bool
    as_json: bool
    home: str | None

    @property
    def again(self) -> str:
        """The command that goes on where this one stops."""
        more = ("--draw", "disputed") if self.how == "disputed" else ()
        return advised("label", "--to", self.to, "--as", self.annotator or "", *more)


@click.command("label", epilog="Example: judge label --to gold/support.jsonl --as ada")
@click.argument("run_id", required=False)
@click.option("--to", type=_FILE, required=True, help="The label file, appended to; made where it does not exist.")
@click.option("--as", "annotator", help="Your name: it goes into every label.")
@click.option(
    "--n", type=click.IntRange(1), help="Pairs to draw (default 100); a larger number later extends the draw."
)
@click.option(
    "--draw",
    "how",
    type=click.Choice(["random", "stratified", "active", "escalated", "disputed", "all"]),
    help="Which pairs (default random).",
)
@click.option("--by", help="Strata of --draw stratified: category (default) or a field of the items' metadata.")
@click.option("--below", type=click.FloatRange(0.5, 1), help="--draw escalated: also confidences below this.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of draw, sides and order (default 0).")
@click.option("--rubric", "-r", help="NAME@VERSION or a path (default: the run's, else helpfulness).")
@click.option("--evalset", type=_FILE, help="Label pairs of an eval set that no judge has seen.")
@click.option("--candidate", "-c", type=_FILE, help="With --evalset: the candidate's answers, joined on id.")
@click.option("--baseline", "-b", type=_FILE, help="With --evalset: the baseline's answers, joined on id.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="With --evalset: name a column.")
@click.option("--status", is_flag=True, help="Only say how far every annotator is.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@home_option
def command(**options: Any) -> int:
    """Label pairs of RUN_ID (default: the latest run) by keyboard, blind; keep the labels with how they were drawn.

    You see a request and two answers in random order, without names or verdicts. Every label is on the disk before the
    next pair is shown; the same command goes on where you stopped. The draw is fixed at its first use and stored beside
    the labels, so that they can correct the win rate of the run.
    """
    given = Options(**options)
    if given.status:
        return _status(given)
    _check(given)
    return _label(given)


def _check(options: Options) -> None:
    name = options.annotator
    if not name or name != name.strip() or safe(name) != name or not name.isprintable() or len(name) > 64:
        raise click.UsageError("say who labels: --as NAME (up to 64 visible characters)")
    if options.evalset is not None and options.run_id is not None:
        raise click.UsageError("give a RUN_ID or --evalset, not both")
    if options.evalset is None and (options.candidate or options.baseline or options.maps):
        raise click.UsageError("--candidate, --baseline and --map say how --evalset is read; give that too")
    if options.by is not None and options.how != "stratified":
        raise click.UsageError("--by names the strata of --draw stratified")
    if options.below is not None and options.how != "escalated":
        raise click.UsageError("--below goes with --draw escalated")
    if options.how in ("all", "disputed") and options.n is not None:
        raise click.UsageError(f"--draw {options.how} takes every such pair; leave --n away")


def _label(options: Options) -> int:
    from ..errors import InputError
    from ..labelling import Subject
    from ..labels import LabelLog, read_draw, read_rows, refuse_other
    from ..store import Store
    from .keyboard import open_face

    env = environment()
    store = Store(Path(options.home) if options.home else env.home)
    face = open_face(plain=env.plain)
    if options.to.suffix != ".jsonl":
        raise InputError(f"{options.to}: labels are JSON lines; name the file {options.to.stem}.jsonl")
    held = read_draw(options.to)
    source = _source(options, held, store)
    name, rubric = _rubric(options, held, source)
    subject = Subject(*source.names(), name, rubric.digest, source.evalset)
    about = _About(source, rubric, subject)
    refuse_other(options.to, read_rows(options.to), held.subject if held else None, subject)
    planned = _planned(options, held, about)  # refuse before any file is made
    with LabelLog(options.to) as log:
        if log.cut:
            click.echo(f"note: a torn last line ({log.cut} bytes, a crash while writing) was cut", err=True)
        now = read_draw(options.to)
        refuse_other(options.to, log.rows, now.subject if now else None, subject)
        record = planned if now == held else _planned(options, now, about)
        _keep(options, now, record)
        desk = _desk(options, about, record, log, face)
        if desk.session.total == 0:
            click.echo("no pair is disputed: nobody differs, or each pair has one label", err=True)
            return 0
        try:
            with face:
                desk.work()
        except KeyboardInterrupt:
            click.echo(f"interrupted: every label is kept; go on with: {options.again}", err=True)
            return 130
        if face.scripted and not desk.keys and desk.session.current is not None:
            raise InputError("no key came on stdin: labelling needs a terminal, or keys piped in")
        return _finish(options, desk, record)


def _source(options: Options, held: DrawRecord | None, store: Store) -> Source:
    """What the person named, else what the draw was made from, else the latest run."""
    from ..labels import evalset_source, reopened, run_source
    from .run import Options as Reading

    if options.evalset is not None:
        reading = Reading(options.evalset, options.candidate, options.baseline, maps=options.maps).reading()
        return evalset_source(options.evalset, reading)
    bring_in(store)
    if options.run_id is None and held is not None:
        return reopened(held.origin, store)
    return run_source(store, options.run_id or "latest")


def _rubric(options: Options, held: DrawRecord | None, source: Source) -> tuple[str, Rubric]:
    """The rubric as runs and labels name it, and its text: as given, as at the first label, or as the run has it."""
    from rubrics import load, parse

    known = (held.subject.rubric, held.rubric_text) if held is not None else source.rubric
    if options.rubric is not None or known is None:
        rubric = load(options.rubric or "helpfulness")
        return rubric.pinned, rubric
    return known[0], parse(known[1], path="the recorded rubric")


@dataclass(frozen=True, slots=True)
class _About:
    """What a sitting is about: where the pairs lie, the rubric, and the names that go into every label."""

    source: Source
    rubric: Rubric
    subject: Subject


def _planned(options: Options, held: DrawRecord | None, about: _About) -> DrawRecord:
    """The draw of the label file: the stored one, extended or refused where other options are given, or a new one."""
    from ..errors import InputError
    from ..labelling import Request, drawing, extended
    from ..labels import DrawRecord

    if held is None:
        if options.how == "disputed":
            raise InputError(f"{options.to}: there are no labels yet that could be disputed")
        wanted = Request(options.how or "random", options.n, options.seed or 0, options.by or "category", options.below)
        drawn = drawing(about.source.frame(wanted), wanted)
        return DrawRecord(drawn, about.subject, about.rubric.text, about.source.origin)
    _refuse_change(options, held.drawing.request)
    if options.n is None or options.n == held.drawing.request.n:
        return held
    larger = extended(held.drawing, about.source.frame(held.drawing.request), options.n)
    return replace(held, drawing=larger)


def _keep(options: Options, held: DrawRecord | None, record: DrawRecord) -> None:
    """Write down a new draw, or what an extended one has beyond the stored one."""
    from ..labels import extend_draw, write_draw

    if held is None:
        write_draw(options.to, record, at=stamp())
    elif record != held:
        before = len(held.drawing.places)
        extend_draw(options.to, record.drawing, known=before, at=stamp())
        click.echo(f"note: the draw was extended from {before} to {len(record.drawing.places)} pairs", err=True)


def _refuse_change(options: Options, request: Request) -> None:
    from ..errors import InputError

    given = {"how": options.how, "seed": options.seed, "by": options.by, "below": options.below}
    if options.how == "disputed":
        given["how"] = None
    for name, value in given.items():
        fixed = getattr(request, name)
        if value is not None and value != fixed:
            flag = "draw" if name == "how" else name
            raise InputError(
                f"{options.to}: its draw was fixed with --{flag} {fixed}, not {value}: with two draws in one file "
                "nobody could say how likely a pair was to be labelled; label into another file (--to)"
            )


def _desk(options: Options, about: _About, record: DrawRecord, log: LabelLog, face: Face) -> _Desk:
    from ..labelling import begin, disputed

    places = {place.pair_id: place for place in record.drawing.places}
    queue: Iterable[str] = places
    name = options.annotator or ""
    if options.how == "disputed":
        queue = [pair for pair in disputed(log.rows, annotator=name, where=str(options.to)) if pair in places]
    session = begin(tuple(queue), log.rows, annotator=name, seed=record.drawing.request.seed)
    return _Desk(session, about.source.pairs(queue), places, record.subject, about.rubric, log, face)


@dataclass(slots=True)
class _Desk:
    """One sitting: the session, its texts, and what was counted on the way."""

    session: Session
    pairs: Mapping[str, Pair]
    places: Mapping[str, Place]
    subject: Subject
    rubric: Rubric
    log: LabelLog
    face: Face
    seconds: dict[str, float] = field(default_factory=dict)
    undone: int = 0
    keys: int = 0
    message: str = ""
    warned: str = ""
    asks: bool = False
    hidden: dict[str, str] = field(default_factory=dict)
    """What was said to be hidden, and on which pair: it is said once a sitting."""

    def work(self) -> None:
        """Show pairs and take keys until the person quits or all is done."""
        shown, since = "", time.monotonic()
        while True:
            name = self.session.current
            if name != shown:
                shown, since = name or "", time.monotonic()
            self.face.show(self._scene())
            key = self.face.key()
            self.keys += key != "eof"
            self.message, self.asks = "", False
            if key in ("q", "eof") or (name is None and (key == "enter" or (self.face.scripted and key != "u"))):
                return
            self._press(key, time.monotonic() - since)

    def _press(self, key: str, seconds: float) -> None:
        from ..errors import InputError
        from ..labelling import Choice

        done = self.session.current is None
        if key in "1234" and not done and self._must_read():
            return
        if key in "1234" and not done:
            choice = (Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.BOTH_BAD)[int(key) - 1]
            self._write(*self.session.cast(choice), seconds)
        elif key == "s" and not done:
            self._write(*self.session.skip(), seconds)
        elif key == "u" and self.session.trail:
            self._write(*self.session.undo(), seconds)
            self.undone += 1
            self.message = "the last label is taken back"
        elif key == "u":
            self.message = "there is nothing to undo"
        elif key == "n" and not done:
            self.face.show(self._scene())  # without the hint that the last key left
            text = self.face.ask("note (Enter keeps, Esc leaves): ", self.session.draft.note)
            self.session = self.session.noted(text) if text is not None else self.session
        elif key == "c" and not done:
            self.session = self.session.closer()
        elif key in "r?":
            self._read(key)
        elif self.face.scripted:
            raise InputError(f"stdin: {key!r} is no key of `judge label`; labels before it are kept")
        else:
            self.message = "every pair is done: u takes the last label back, q ends" if done else "no such key: ? helps"

    def _must_read(self) -> bool:
        """Whether to ask once more, because part of the pair was never on the screen; at most once a pair."""
        name, unseen = self.session.current or "", self.face.unseen
        if not unseen or self.warned == name:
            return False
        self.warned, self.asks = name, True
        self.message = f"{counted(unseen, 'more line')} below; press again to vote"
        return True

    def _write(self, later: Session, change: Change, seconds: float) -> None:
        """First the disk, then the screen: a crash in between loses nothing."""
        from ..labelling import gold_item, record

        item = gold_item(self.pairs[change.pair_id], self.places[change.pair_id], self.subject)
        row = record(item, change, annotator=later.annotator, seed=later.seed, at=stamp(), seconds=seconds)
        self.log.append(row)
        if change.mark is not None and change.mark.outcome is not None:
            self.seconds[change.pair_id] = seconds
        else:
            self.seconds.pop(change.pair_id, None)
        self.session = later

    def _read(self, key: str) -> None:
        """Show the rubric or the keys until the next key that does not scroll."""
        from .keyboard import Scene, titled

        title, text = ("Keys", _HELP) if key == "?" else (f"Rubric: {self.rubric.title}", _criteria(self.rubric))
        self.face.show(Scene(title, "any key goes back", partial(titled, title, text)))
        if not self.face.scripted:
            self.face.key()

    def _scene(self) -> Scene:
        from ..labelling import blind, candidate_first
        from .keyboard import Scene

        session = self.session
        name, left = session.current, len(session.todo)
        header = f"{session.total - left} of {session.total} done, {left} to go"
        header += f", {session.skipped} skipped" if session.skipped else ""
        if name is None:
            return Scene(
                "", header, lambda _: ["every pair is done.", "u takes the last label back, q ends."], self.message
            )
        view = blind(
            self.pairs[name], self.rubric, first_is_candidate=candidate_first(session.seed, name, session.annotator)
        )
        view = self._once(view, name)
        draft = session.draft
        parts = [
            self.message,
            f"closeness: {_CLOSENESS.get(draft.closeness, draft.closeness)}" if draft.closeness is not None else "",
            f"note: {draft.note}" if draft.note else "",
        ]
        status = " · ".join(part for part in parts if part)
        return Scene(f"pair {name}", header, partial(_body, view), status, self.asks)

    def _once(self, view: BlindView, name: str) -> BlindView:
        """The view, without the sentence about what is hidden where another pair already showed it."""
        told = re.sub(r"\d+ sources?", "sources", view.hidden)
        return view if self.hidden.setdefault(told, name) == name else replace(view, hidden="")


def _body(view: Any, width: int) -> list[str]:
    """The lines of a blind pair: request and sources, then the answers, side by side where there is room."""
    from ..render.words import wrap
    from .keyboard import SIDE_BY_SIDE, columns, titled

    lines = [line for title, text in view.sections for line in titled(title, text, width)]
    lines += ["", *wrap(view.hidden, width=width)] if view.hidden else []
    if width >= SIDE_BY_SIDE:
        return lines + columns(("First", view.first), ("Second", view.second), width)
    return lines + titled("First", view.first, width) + titled("Second", view.second, width)


def _criteria(rubric: Rubric) -> str:
    parts = [rubric.summary, ""]
    for criterion in rubric.criteria:
        must = " An answer that violates this loses to one that does not." if criterion.must else ""
        parts.append(f"{criterion.id} ({rubric.shares[criterion.id]:.0%}): {criterion.text.strip()}{must}")
    return "\n".join([*parts, "", rubric.body.strip()])


def _finish(options: Options, desk: _Desk, record: DrawRecord) -> int:
    """What was done, where it lies, and what to type next; agreement only once the own labels are complete."""
    from calibration.gold import GoldSet

    from ..labelling import agreements

    session = desk.session
    done = session.current is None
    shared = agreements(GoldSet.read(options.to)) if done else ()
    run = record.origin.get("run")
    then = advised("calibrate", *([run] if run else []), "--gold", options.to)
    then = then if run else f"{_judging(record)} && {then}"
    summary: dict[str, Any] = {
        "schema": "judge.label/1",
        "file": str(options.to),
        "annotator": session.annotator,
        "draw": _shown(record.drawing),
        "labelled": session.voted,
        "skipped": session.skipped,
        "to_go": len(session.todo),
        "choices": _choices(session),
        "this_sitting": {"labels": len(desk.seconds), "undone": desk.undone, "median_seconds": _median(desk)},
        "agreement": [{"annotators": [pair.first, pair.second], **pair.agreement.to_dict()} for pair in shared]
        if done
        else None,
        "next": then if done else options.again,
    }
    for line in _told(summary):
        click.echo(safe(line), err=True)
    if options.as_json:
        click.echo(json.dumps(summary))
    return 0


def _told(summary: Mapping[str, Any]) -> list[str]:
    """The summary for a person."""
    choices, sitting, draw = summary["choices"], summary["this_sitting"], summary["draw"]
    state = f"{counted(summary['labelled'], 'label')}, {summary['skipped']} skipped, {summary['to_go']} to go"
    drawn = f"{draw['how']} draw of {draw['pairs']} from {counted(draw['frame_size'], 'pair')}"
    ties = f"tie {choices['tie']}, both bad {choices['both_bad']}"
    lines = [
        f"{summary['annotator']}: {state} ({drawn})",
        f"  first better {choices['first']}, second better {choices['second']}, {ties}",
    ]
    pace = f", {sitting['median_seconds']} s a label (median)" if sitting["labels"] else ""
    lines.append(f"  this sitting: {counted(sitting['labels'], 'label')}, {sitting['undone']} undone{pace}")
    for pair in summary["agreement"] or ():
        first, second = pair["annotators"]
        lines.append(
            f"  {first} and {second} agree on {pair['value']:.0%} [{pair['low']:.0%}, {pair['high']:.0%}] of "
            f"{counted(pair['n'], 'shared pair')}"
        )
    if summary["skipped"]:
        lines.append("  skipped pairs come back in the next sitting; estimates take them to be like the others")
    lines += [f"labels: {summary['file']}", f"next: {summary['next']}"]
    return lines


def _choices(session: Session) -> dict[str, int]:
    """How often each place won, over all labels of the annotator: by place, so that nothing is unblinded."""
    from ..labelling import candidate_first
    from ..types import Outcome

    counts = {"first": 0, "second": 0, "tie": 0, "both_bad": 0}
    for pair_id, mark in session.marks.items():
        if mark.outcome is Outcome.TIE:
            counts["both_bad" if mark.both_bad else "tie"] += 1
        elif mark.outcome is not None:
            first = candidate_first(session.seed, pair_id, session.annotator)
            counts["first" if (mark.outcome is Outcome.WIN) == first else "second"] += 1
    return counts


def _shown(drawing: Drawing) -> dict[str, Any]:
    request = asdict(drawing.request)
    return {**request, "pairs": len(drawing.places), "frame_size": drawing.frame_size}


def _median(desk: _Desk) -> float | None:
    return round(statistics.median(desk.seconds.values()), 1) if desk.seconds else None


def _judging(record: DrawRecord) -> str:
    """The command that judges the eval set which the labels were drawn from."""
    origin, options = record.origin, record.origin["options"]
    words = ["run", str(origin["evalset"])]
    for side in ("candidate", "baseline"):
        words += [f"--{side}", str(options[side])] if options.get(side) else []
    for name, column in (options.get("mapping") or {}).items():
        words += ["--map", f"{name}={column}"]
    # A draft is named by its reference and the head of its digest; `judge run` takes the reference alone.
    return advised(*words, "-r", record.subject.rubric.partition("#")[0])


def _status(options: Options) -> int:
    """How far every annotator of a file is; reads without a lock, also while somebody labels."""
    from ..errors import InputError
    from ..labelling import marks
    from ..labels import read_draw, read_rows

    record = read_draw(options.to)
    if record is None:
        raise InputError(f"{options.to}: no draw here yet; begin with: judge label --to {options.to} --as NAME")
    rows = read_rows(options.to)
    names = sorted({str(entry["annotator"]) for entry in rows})
    pairs = len(record.drawing.places)
    people = []
    for name in names:
        own = [entry for entry in rows if entry["annotator"] == name]
        held = marks(own)
        voted = sum(mark.outcome is not None for mark in held.values())
        last = str(own[-1].get("at") or "")
        people.append({"annotator": name, "labelled": voted, "skipped": len(held) - voted, "of": pairs, "last": last})
    if options.as_json:
        value = {"schema": "judge.label-status/1", "file": str(options.to), "draw": _shown(record.drawing)}
        click.echo(json.dumps({**value, "annotators": people}))
        return 0
    drawing = record.drawing
    click.echo(
        f"{safe(str(options.to))}: {drawing.request.how} draw of {pairs} from {counted(drawing.frame_size, 'pair')}"
    )
    for person in people:
        click.echo(
            f"  {safe(str(person['annotator'])):20} {person['labelled']:>5} of {pairs} labelled  "
            f"{person['skipped']:>4} skipped  last {person['last']}"
        )
    if not people:
        click.echo("  nobody has labelled yet", err=True)
    return 0
