"""``judge tune pairs``: a preference data set from several sources, and the report to read before training on it."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from ..render.words import counted, number, span
from .loop_sample import redaction_options, redaction_words
from .recipes import recipe_option
from .screen import Ticker, bring_in, home_option, safe

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from tune.dataset import Dataset, Gathered
    from tune.redaction import Redactor
    from tune.sources import Found

    from ..store import RunInfo, Store
    from ..types import Pair

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The sources that were named."""

    files: tuple[Path, ...]
    human: tuple[Path, ...]
    ratings: tuple[Path, ...]
    actions: tuple[Path, ...]
    judged: tuple[str, ...]
    findings: tuple[tuple[str, Path], ...]
    passes: tuple[str, ...]
    calibration: Path | None
    uncalibrated: bool
    least: float
    trust: float
    weights: Mapping[str, float]
    skip_bad: bool
    files_are: str | None
    redactor: Redactor


@dataclass(frozen=True, slots=True)
class _Held:
    """What the data is held against."""

    against: tuple[str, ...]
    unchecked: bool
    drop: bool
    mix: Path | None
    last: Path | None
    major: float


@click.command("pairs", epilog="Example: judge tune pairs --human labels.jsonl --against evals.jsonl -o pairs.jsonl")
@click.argument("files", nargs=-1, type=_FILE)
@recipe_option
@click.option(
    "--files-are",
    type=click.Choice(["human", "rating", "action", "judge", "gate"]),
    help="Who compared, for rows of FILES that do not say it.",
)
@click.option("--human", multiple=True, type=_FILE, help="Label file of judge label (with its draw).")
@click.option("--ratings", multiple=True, type=_FILE, help="Rows with prompt, answer, rating, rater.")
@click.option(
    "--actions", multiple=True, type=_FILE, help="Traces with what users did (edit, accept, reask, escalate)."
)
@click.option("--judge", "judged", multiple=True, metavar="RUN", help="A run's verdicts, as calibrated probabilities.")
@click.option("--checks", "passes", multiple=True, metavar="ID", help="A pass of judge check over a run (k-...).")
@click.option(
    "--findings", multiple=True, nargs=2, type=(str, _FILE), metavar="RUN FILE",
    help="Failed checks on a run's pairs, from a file.",
)  # fmt: skip
@click.option("--calibration", "-c", type=_FILE, help="For --judge; default: the one of the home folder that fits.")
@click.option("--allow-uncalibrated", is_flag=True, help="For --judge: take the judge's own probabilities; marked so.")
@click.option(
    "--least",
    type=click.FloatRange(0.5, 1),
    default=0.6,
    show_default=True,
    help="For --judge: leave out pairs that the judge is less sure of.",
)
@click.option(
    "--trust",
    type=click.FloatRange(0.5, 1),
    default=1.0,
    show_default=True,
    help="For --actions: how often a person would confirm what the action says.",
)
@click.option("--weight", "weights", multiple=True, metavar="SOURCE=W", help="What a source's rows count for.")
@click.option(
    "--against", multiple=True, metavar="FILE|RUN", help="Gold, eval or frozen set that must not be repeated."
)
@click.option("--unchecked", is_flag=True, help="Hold the data against nothing; recorded, and a gate may refuse it.")
@click.option("--drop-contaminated", is_flag=True, help="Take out rows that repeat a reference instead of refusing.")
@click.option("--mix", type=_FILE, help="Traces that show the real mix, for the coverage.")
@click.option("--last", type=_FILE, help="The last data set: how much is new?")
@click.option(
    "--major",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="Share of new rows from which a refresh is a major change.",
)
@click.option("--output", "-o", required=True, type=_FILE, help="Where the data set goes (.jsonl).")
@click.option("--strict", is_flag=True, help="Exit 1 where the report has a flag.")
@click.option("--skip-bad", is_flag=True, help="Take the usable rows of FILES.")
@redaction_options
@click.option("--json", "as_json", is_flag=True, help="The card as one JSON object.")
@home_option
def command(
    files: tuple[Path, ...],
    *,
    files_are: str | None,
    human: tuple[Path, ...],
    ratings: tuple[Path, ...],
    actions: tuple[Path, ...],
    judged: tuple[str, ...],
    passes: tuple[str, ...],
    findings: tuple[tuple[str, Path], ...],
    calibration: Path | None,
    allow_uncalibrated: bool,
    least: float,
    trust: float,
    weights: tuple[str, ...],
    against: tuple[str, ...],
    unchecked: bool,
    drop_contaminated: bool,
    mix: Path | None,
    last: Path | None,
    major: float,
    output: Path,
    strict: bool,
    skip_bad: bool,
    hook: str | None,
    no_patterns: bool,
    as_json: bool,
    home: str | None,
) -> int:  # fmt: skip
    """Build a preference data set from FILES (rows of judge ingest) and other sources.

    Sources on the same two answers are put together and their disagreement is shown. Rows that repeat a gold, eval or
    frozen prompt, exactly or nearly, refuse the set. The report says what is covered, what is too easy, and how much of
    better is only longer.
    """
    from tune.redaction import Redactor, load_hook

    from ..store import Store

    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    redactor = Redactor(load_hook(hook) if hook else None, patterns=not no_patterns)
    wanted = _Wanted(
        files, human, ratings, actions, judged, findings, passes, calibration, allow_uncalibrated, least, trust,
        _weights(weights), skip_bad, files_are, redactor,
    )  # fmt: skip
    held = _Held(against, unchecked, drop_contaminated, mix, last, major)
    dataset, entry = _build(wanted, held, output, store)
    if as_json:
        click.echo(json.dumps({**dataset.to_card(), "path": str(output), "entry": entry}, ensure_ascii=False))
    else:
        click.echo(safe(str(output)))
        for line in _report(dataset):
            click.echo(safe(line), err=True)
        if actions:
            click.echo(redaction_words(redactor.counts, patterns=not no_patterns), err=True)
        click.echo(f"recorded as {entry}; next: {safe(advised('tune', 'train', output))}", err=True)
    return 1 if strict and dataset.quality.flags else 0


def _build(wanted: _Wanted, held: _Held, output: Path, store: Store) -> tuple[Dataset, str]:
    """Gather, put together, hold against the references, write and record; returns the set and its entry's id."""
    from tune.contamination import References
    from tune.dataset import assemble, refuse_clashes, save, without
    from tune.preferences import read_preferences
    from tune.references import add_reference, frozen_files

    gathered = list(_gather(wanted, store))
    if not gathered:
        raise click.UsageError("name a source: FILES, --human, --ratings, --actions, --judge, --checks or --findings")
    references = References()
    for what in (*held.against, *map(str, frozen_files(store.home))):
        add_reference(references, what, store)
    if not held.against and not held.unchecked:
        raise click.UsageError(
            "--against is needed: the gold, eval and frozen sets that the candidate will be measured on "
            "(or --unchecked, which is recorded)"
        )
    use = None if held.mix is None else list(_rows(held.mix, "--mix"))
    last = None if held.last is None else read_preferences(held.last)
    unchecked = held.unchecked and not held.against
    ticker = Ticker()
    dataset = assemble(
        gathered, references, use=use, last=last, limit=held.major, unchecked=unchecked,
        report=lambda done, total: ticker.show(
            done, total, lambda: f"held {done:,} of {total:,} rows against {len(references):,} prompts",
            last=False,
        ),
    )  # fmt: skip
    if dataset.clashes and held.drop:
        dataset = without(dataset, use=use, last=last, limit=held.major)
    else:
        refuse_clashes(dataset.clashes, len(dataset.rows))
    at = stamp()
    return dataset, save(dataset, output, store.home, at=at, by=_who()).id


def _gather(wanted: _Wanted, store: Store) -> Iterator[Gathered]:
    from tune.dataset import Gathered
    from tune.sources import from_actions, from_findings, from_labels, from_ratings, from_run

    def of(name: str, found: Any, source: str) -> Gathered:
        return Gathered.of(name, found, weight=wanted.weights.get(source, 1.0))

    for path in wanted.files:
        yield of(str(path), _preferences(path, wanted), "file")
    for path in wanted.human:
        gold, pairs, origin = _labelled(path, store)
        yield of(str(path), from_labels(gold, pairs, origin=origin), "human")
    for path in wanted.ratings:
        yield of(str(path), from_ratings(path), "rating")
    for path in wanted.actions:
        yield of(str(path), from_actions(path, wanted.redactor, trust=wanted.trust), "action")
    for run_id in wanted.judged:
        info = store.run(run_id)
        fitted = _calibration(wanted, store, info)
        found = from_run(store, info, fitted, least=wanted.least, uncalibrated=wanted.uncalibrated)
        yield of(f"run {info.run_id}", found, "judge")
        if fitted is None:
            click.echo(f"WARNING: run {info.run_id} is NOT calibrated: its probabilities are the judge's own", err=True)
    for check_id in wanted.passes:
        yield of(*_checked_by(check_id, store), "gate")
    for run_id, path in wanted.findings:
        info = store.run(run_id)
        found = from_findings(_rows(path, "--findings"), _texts(store, info.run_id), source=str(path))
        yield of(str(path), found, "gate")


def _checked_by(check_id: str, store: Store) -> tuple[str, Iterator[Found]]:
    """What a pass is called, and its findings as preferences; the texts are those of the run that it checked."""
    from tune.sources import from_findings

    from ..errors import InputError
    from ..store import Findings

    kept = Findings(store.home)
    for problem in kept.catch_up():
        click.echo(f"note: {safe(problem)}", err=True)
    done = kept.run(check_id)
    if done.run_id is None:
        raise InputError(
            f"--checks {done.check_id}: this pass checked a file, whose texts are not kept; judge the answers "
            "(judge run), check the run (judge check RUN), and give that pass"
        )
    name = f"pass {done.check_id} of run {done.run_id}"
    rows = kept.frame(done.check_id).iter_rows(named=True)
    return name, from_findings(rows, _texts(store, done.run_id), source=done.check_id, of_pass=done.run_id)


def _texts(store: Store, run_id: str) -> dict[str, Pair]:
    return {pair.id: pair for pair in store.pairs(run_id, store.ids(run_id))}


def _preferences(path: Path, wanted: _Wanted) -> Iterator[Any]:
    """The rows of a file; who compared is taken from the row, else from --files-are, and never supposed."""
    from dataclasses import replace

    from tune.preferences import Preference, Source, read_preferences, scan_preferences, with_bias
    from tune.sources import Left

    from ..errors import InputError
    from ..formats import Problem, read_rows

    if not wanted.skip_bad:
        read_preferences(path)
    silent = {line for line, row in read_rows(path) if not isinstance(row, Problem) and not row.get("source")}
    if silent and wanted.files_are is None:
        raise InputError(
            f"{path}: {counted(len(silent), 'row')} (the first on line {min(silent)}) do not say who compared; "
            "say it with --files-are human, rating, action, judge or gate"
        )
    for line, found in scan_preferences(path):
        if not isinstance(found, Preference):
            yield Left(str(found), f"{found.kind} row")
        else:
            said = wanted.files_are if line in silent else None
            yield with_bias(found if said is None else replace(found, source=Source(said)))


def _labelled(path: Path, store: Store) -> tuple[Any, Mapping[str, Pair], dict[str, Any]]:
    """The gold set of a label file, the texts of its pairs, and where it comes from."""
    from calibration.gold import GoldSet

    from ..errors import InputError
    from ..formats import open_evalset
    from ..labels import draw_path, read_draw, reopened

    gold = GoldSet.read(path)
    record = read_draw(path)
    if record is not None:
        pairs = reopened(record.origin, store).pairs(item.pair_id for item in gold.items)
    else:
        try:
            pairs = {pair.id: pair for pair in open_evalset(path).pairs()}
        except InputError:
            raise InputError(
                f"{path}: these labels hold no texts, and there is no {draw_path(path).name} that says where they lie"
            ) from None
    return gold, pairs, {"labels": str(path), "digest": gold.digest}


def _calibration(wanted: _Wanted, store: Store, info: RunInfo) -> Calibration | None:
    """The calibration that was named, else that of the home folder (``stored_calibration``)."""
    from rubrics.words import pinned

    from ..calibrations import read_calibration, stored_calibration
    from ..types import JudgeId

    if wanted.calibration is not None:
        return read_calibration(wanted.calibration)
    head = info.header
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    stored = stored_calibration(store.home, rubric, str(JudgeId(**head["judge"])))
    if stored is None:
        return None
    click.echo(f"calibration: {safe(str(stored[0]))}", err=True)
    return stored[1]


def _rows(path: Path, option: str) -> Iterator[dict[str, Any]]:
    from ..errors import InputError
    from ..formats import Problem, read_rows

    for _line, row in read_rows(path):
        if isinstance(row, Problem):
            raise InputError(f"{option}: {row}")
        yield row


def _weights(given: Sequence[str]) -> dict[str, float]:
    names = ("file", "human", "rating", "action", "judge", "gate")
    found = {}
    for entry in given:
        name, sign, value = entry.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            sign = ""
        if not sign or name not in names or not found[name] > 0:
            raise click.UsageError(
                f"--weight takes SOURCE=W with W above zero and SOURCE of {', '.join(names)}, not {entry!r}"
            )
    return found


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _report(dataset: Dataset) -> Iterator[str]:
    found = dataset.quality
    sources = ", ".join(f"{count} {name}" for name, count in sorted(found.sources.items()))
    yield f"{counted(found.rows, 'pair')} on {counted(found.prompts, 'prompt')} ({sources})  digest {found.digest[:12]}"
    for entry in dataset.gathered:
        yield f"  {entry.name}: {counted(len(entry.rows), 'pair')}"
        for why, count in entry.left.items():
            yield f"    {count} left out: {why}"
    yield from _together(dataset)
    yield from _checked(dataset)
    yield "coverage"
    for coverage in found.coverage:
        if coverage.distance is None:
            yield f"  {coverage.facet}: unknown ({coverage.missing})"
            continue
        yield f"  {coverage.facet}: distance {coverage.distance:.2f} from the real mix"
        for segment in coverage.segments[:6]:
            shares = [
                number(side.value, "share") if side is not None else "none" for side in (segment.training, segment.use)
            ]
            yield f"    {segment.name}: {shares[0]} of training, {shares[1]} of use" + (
                "  < too few" if segment.under else ""
            )
    if found.length is not None and found.length.clusters > 1:
        yield f"length of chosen over rejected: {number(found.length.value)} {span(found.length)}"
    if found.longer is not None:
        yield f"chosen is the longer one: {number(found.longer.value, 'share')} {span(found.longer, 'share')}"
    for easy in found.easy:
        yield f"too easy: {easy.why}: {counted(len(easy.ids), 'pair')} ({_some(easy.ids)})"
    people = found.people
    yield (
        "people: no two compared the same answers"
        if people is None
        else (f"people agree on {number(people.value, 'share')} {span(people, 'share')} of {people.n}")
    )
    if found.refresh is not None:
        refresh = found.refresh
        size = " - MAJOR" if refresh.major else ""
        yield f"refresh: {refresh.new} new, {refresh.gone} gone, {refresh.same} the same{size}"
    yield from (f"flag: {flag}" for flag in found.flags)


def _together(dataset: Dataset) -> Iterator[str]:
    together = dataset.triangulated
    if together.merged:
        yield f"put together: {counted(together.merged, 'row')} on a comparison that another row makes"
    if together.undecided:
        yield f"  {counted(len(together.undecided), 'comparison')} left out: the sources cancel out"
    for pair in together.between:
        same = f"{number(pair.same.value, 'share')} {span(pair.same, 'share')}"
        yield f"  {pair.sources[0]} and {pair.sources[1]} agree on {same} of {pair.same.n}"
        if pair.apart:
            yield f"    apart on {_some(pair.apart)}"


def _checked(dataset: Dataset) -> Iterator[str]:
    if dataset.unchecked:
        yield "contamination: NOT CHECKED (--unchecked); recorded"
        return
    prompts = sum(dataset.against.values())
    held = f"{counted(prompts, 'prompt')} of {counted(len(dataset.against), 'set')}"
    yield f"contamination: {counted(len(dataset.clashes), 'row')} against {held}"
    for clash in dataset.clashes[:4]:
        yield f"  taken out: {clash.row}, {clash.how} to {clash.reference} of {clash.where}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
