"""``judge calibrate``: how far a judge can be believed, and whether a new rubric or judge model is better."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..clock import stamp
from ..environment import environment
from ..writing import write_whole
from .run import drive
from .screen import Ticker, bring_in, home_option, minutes, progress, safe

if TYPE_CHECKING:
    from calibration.evidence import Evidence
    from calibration.gold import GoldSet
    from calibration.ppi import Estimand
    from calibration.report import CalibrationReport
    from rubrics import Rubric

    from ..backends import Backend
    from ..formats import EvalSet
    from ..store import RunInfo, Store

__all__ = ["command"]

_ROUNDS = 400


class _Margin(click.FloatRange):
    """A range that NaN does not pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return self.fail(f"{value} is no number", param, ctx) if number != number else number  # noqa: PLR0124 - NaN


@click.command("calibrate", epilog="Example: judge calibrate --gold labels.jsonl --html calibration.html")
@click.argument("run_id", required=False)
@click.option(
    "--gold", "-g", multiple=True, type=click.Path(dir_okay=False, path_type=Path),
    help="Human labels: what `judge label` wrote, or labelled pairs; may be repeated. Default: the eval set's own.",
)  # fmt: skip
@click.option("--mix-sources", is_flag=True, help="Join gold sets of several sources; they may not agree.")
@click.option("--rubric", "-r", help="Judge the labelled pairs under this rubric, NAME@VERSION or a path.")
@click.option("--judge", "-j", "judge_spec", help="Judge the labelled pairs by this judge (default: the run's).")
@click.option("--against", metavar="RUBRIC", help="The rubric in use, to compare --rubric with; @1 is its version 1.")
@click.option("--against-judge", metavar="JUDGE", help="The judge in use, to compare --judge with.")
@click.option("--anchors", type=click.IntRange(0), default=0, help="Judge this many unlabelled pairs under both, too.")
@click.option("--margin", type=_Margin(0, 0.5, min_open=True), default=0.02, show_default=True,
              help="Difference in accuracy that does not matter.")  # fmt: skip
@click.option("--since", metavar="RUN", help="An earlier run of the same pairs: has the judge moved?")
@click.option("--fixed-set", is_flag=True, help="Speak of exactly these pairs, not of prompts like these.")
@click.option("--self-check", is_flag=True, help="Simulate the estimator at these sizes; print the coverage it has.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of all draws.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; --schema prints its JSON Schema.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one self-contained HTML file.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Also save the calibration here.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the report and stop.")
@home_option
def command(**options: Any) -> int:
    """Measure the judge of RUN_ID against human labels: agreement, bias, confidence, corrected win rate.

    Without RUN_ID: the newest run that holds labelled pairs. Where labels come with their texts, --judge or --rubric
    judges them now. --against (or --against-judge) makes it an experiment that ends in ADOPT, KEEP or UNDECIDED.
    """
    return _calibrate(Options(**options))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given."""

    run_id: str | None
    gold: tuple[Path, ...]
    mix_sources: bool
    rubric: str | None
    judge_spec: str | None
    against: str | None
    against_judge: str | None
    anchors: int
    margin: float
    since: str | None
    fixed_set: bool
    self_check: bool
    seed: int
    as_md: bool
    as_json: bool
    html: Path | None
    save: Path | None
    schema: bool
    home: str | None

    @property
    def compares(self) -> bool:
        """Whether two ways to judge are compared."""
        return self.against is not None or self.against_judge is not None


def _calibrate(options: Options) -> int:
    from calibration.gold import GoldSet, combine

    from ..render import calibration as render
    from ..store import Store

    if options.schema:
        click.echo(render.schema())
        return 0
    if options.as_md and options.as_json:
        raise click.UsageError("--md and --json both want stdout; give one of them")
    if options.anchors and not options.compares:
        raise click.UsageError("--anchors are judged by both sides of a comparison; give --against or --against-judge")
    _writable(options.html, options.save)
    env = environment()
    store = Store(Path(options.home) if options.home else env.home)
    bring_in(store)
    if options.gold:
        gold = combine([GoldSet.read(path) for path in options.gold], mix_sources=options.mix_sources)
        info = _run(options, store, gold)
    else:
        info = store.run(options.run_id or "latest")
        gold = _own_labels(store, info)
    report = (_experiment if options.compares else _measured)(options, store, gold, info)
    if options.html is not None:
        write_whole(options.html, render.to_html(report))
        click.echo(f"wrote {safe(str(options.html))}", err=True)
    if options.as_json:
        click.echo(render.to_json(report))
    elif options.as_md:
        click.echo(render.to_markdown(report))
    else:  # with a page for the sections, only what stands before them
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
        click.echo((render.to_text if options.html is None else render.to_brief)(report, width))
    _keep(report, store, options.save)
    return {"ADOPT": 0, "KEEP": 1, "UNDECIDED": 4}[report.change.verdict] if report.change is not None else 0


def _measured(options: Options, store: Store, gold: GoldSet, info: RunInfo | None) -> CalibrationReport:
    """The report of one way to judge: a stored run as it is, or the labelled pairs judged now."""
    from ..evidence import run_evidence

    evidence = None
    if info is not None:
        evidence = run_evidence(store, info, read_texts_of=_ids(gold))
        _some_match(options, evidence, gold, info)
    ways = _Ways(options, store, gold, info)
    rubric, spec = ways.rubric(options.rubric), options.judge_spec or ways.spec
    if info is None or (rubric.digest, spec) != (info.header["rubric_digest"], info.header["judge_spec"]):
        evidence = ways.evidence(rubric, spec)
    else:
        click.echo(f"run {info.run_id}: rubric {rubric.ref}", err=True)
        click.echo(f"  judge {safe(info.judge)}", err=True)
    assert evidence is not None  # a run was read, or the pairs were judged
    return _report(options, store, gold, evidence)


def _experiment(options: Options, store: Store, gold: GoldSet, info: RunInfo | None) -> CalibrationReport:
    """The report of the new way to judge, with the comparison against the one in use."""
    from calibration.change import compare_judges
    from calibration.evidence import match

    from ..rejudging import side_of

    ways = _Ways(options, store, gold, info)
    new_rubric = ways.rubric(options.rubric)
    against = options.against
    if against is not None and against.startswith("@"):
        against = new_rubric.name + against
    old_rubric = new_rubric if against is None else ways.rubric(against)
    _same_family(gold, new_rubric, old_rubric)
    new_spec = options.judge_spec or ways.spec
    old_spec = options.against_judge or new_spec
    if (new_rubric.digest, new_spec) == (old_rubric.digest, old_spec):
        raise click.UsageError("both sides are the same rubric and judge; name another with --rubric or --judge")
    old, new = ways.evidence(old_rubric, old_spec), ways.evidence(new_rubric, new_spec)
    both = match(new, match(old, gold).gold)
    change = compare_judges(side_of(old, both), side_of(new, both), both.gold, margin=options.margin, seed=options.seed)
    return replace(_report(options, store, gold, new), change=change)


class _Ways:
    """The labelled pairs as an eval set, what they compare, and how to judge them in a given way."""

    def __init__(self, options: Options, store: Store, gold: GoldSet, info: RunInfo | None) -> None:
        self.options, self.store, self.gold, self.info = options, store, gold, info
        self.spec = "local" if info is None else str(info.header["judge_spec"])

    @cached_property
    def evalset(self) -> EvalSet:
        """The labelled pairs (and anchors) of the run, or the gold file itself."""
        from ..formats import open_evalset
        from ..rejudging import labelled_evalset

        if self.info is None:
            return open_evalset(_with_texts(self.options), skip_bad=True)
        return labelled_evalset(self.store, self.info, self.gold, anchors=self.options.anchors, seed=self.options.seed)

    @property
    def pairs(self) -> str:
        """How many pairs are judged, in words."""
        known = set(_ids(self.gold))
        labelled = sum(pair.id in known for pair in self.evalset.pairs())
        rest = self.evalset.rows - labelled
        return f"{labelled} labelled pairs" + (f" and {rest} anchors" if rest else "")

    def rubric(self, name: str | None) -> Rubric:
        """A rubric by name or path; without one, that of the run."""
        from rubrics import load

        from ..runs import rubric_of

        if name is not None or self.info is None:
            return load(name or "helpfulness")
        return rubric_of(self.info.header)

    def evidence(self, rubric: Rubric, spec: str) -> Evidence:
        """What a judge says about the labelled pairs under a rubric: stored already, or judged now as a run."""
        from ..backends import open_backend
        from ..evidence import run_evidence
        from ..rejudging import stored

        backend = open_backend(spec, environment())
        info = stored(self.store, self.evalset, rubric, backend.id)
        if info is None:
            info = self._judge(rubric, spec, backend)
        else:
            asyncio.run(backend.close())
            click.echo(f"{info.run_id}: rubric {rubric.ref}, judge {safe(info.judge)}, judged before", err=True)
        return run_evidence(self.store, info, read_texts_of=_ids(self.gold), part_of=self.info)

    def _judge(self, rubric: Rubric, spec: str, backend: Backend) -> RunInfo:
        from ..runs import RunPlan, start_run

        plan = RunPlan(
            run_id=f"r-{secrets.token_hex(3)}",
            created_at=stamp(),
            evalset=self.evalset,
            options={"skip_bad": True},
            rubric=rubric,
            judge_spec=spec,
            seed=self.options.seed,
        )
        click.echo(f"{plan.run_id}: {self.pairs} x 2 orders, rubric {rubric.ref}", err=True)
        click.echo(f"  judge {safe(str(backend.id))}", err=True)

        async def work() -> None:
            try:
                await start_run(plan, backend, self.store, report=progress())
            finally:
                await backend.close()

        drive(work(), plan.run_id, self.options.home)
        return self.store.run(plan.run_id)


def _run(options: Options, store: Store, gold: GoldSet) -> RunInfo | None:
    """The run that is measured, or ``None`` where the labels bring their texts and are to be judged now."""
    from ..errors import InputError
    from ..rejudging import run_with_labels

    info = run_with_labels(store, gold, options.run_id)
    if info is None and options.rubric is None and options.judge_spec is None and not options.compares:
        raise InputError(
            f"{options.gold[0]}: no run in {store.home} holds one of its {len(gold)} pairs; name the run, judge the "
            "pairs first (`judge run`), or give --judge if the file has their texts"
        )
    return info


def _some_match(options: Options, evidence: Evidence, gold: GoldSet, info: RunInfo) -> None:
    """Refuse labels of which not one is about the answers of the run: there is nothing to measure then."""
    from calibration.evidence import match

    from ..errors import InputError

    found = match(evidence, gold)
    if not len(found.gold):
        where = options.gold[0] if options.gold else f"run {info.run_id}"
        left = ", ".join(f"{count}: {why}" for why, count in found.left_out.items())
        raise InputError(
            f"{where}: none of its {len(gold)} labelled pairs is of run {info.run_id} ({left}); name the run that they "
            f"are of, or label this one: judge label {info.run_id} --to labels.jsonl --as YOU"
        )


def _same_family(gold: GoldSet, *sides: Rubric) -> None:
    """Refuse, before anything is judged, a rubric that the labels say nothing about."""
    from calibration.provenance import rubric_family

    from ..errors import InputError

    asked = {rubric_family(item.rubric) for item in gold.items if item.rubric}
    for rubric in sides:
        if asked and rubric.name not in asked:
            names = ", ".join(sorted(name for name in asked if name))
            raise InputError(
                f"the labels were given under {names} and say nothing about {rubric.ref}; compare versions of one "
                f"rubric (`judge rubric new {names.partition(',')[0]}` writes one), or label under {rubric.name}"
            )


def _own_labels(store: Store, info: RunInfo) -> GoldSet:
    """The labels that came with the eval set of a run."""
    from ..errors import InputError
    from ..evidence import labels_of

    gold = labels_of(store, info)
    if not len(gold):
        raise InputError(
            f"run {info.run_id}: its eval set carries no labels; give --gold FILE, or make one with "
            f"`judge label {info.run_id} --to labels.jsonl --as YOU`"
        )
    return gold


def _with_texts(options: Options) -> Path:
    """The one gold file that holds the texts of its pairs."""
    from ..errors import InputError

    if len(options.gold) > 1:
        raise InputError("several gold files cannot be judged at once; judge each with `judge run` first")
    return options.gold[0]


def _report(options: Options, store: Store, gold: GoldSet, evidence: Evidence) -> CalibrationReport:
    from calibration.report import Earlier, calibration_report

    from ..evidence import run_evidence

    earlier = None
    if options.since is not None:
        info = store.run(options.since)
        earlier = Earlier(info.run_id, run_evidence(store, info))
    estimand: Estimand = "fixed set" if options.fixed_set else "superpopulation"
    report = calibration_report(evidence, gold, earlier=earlier, estimand=estimand, seed=options.seed)
    if not options.self_check:
        return report
    from calibration.selfcheck import self_check

    checked = self_check(
        evidence.run, gold, estimand=estimand, rounds=_ROUNDS, seed=options.seed, progress=_simulated()
    )
    return replace(report, self_check=checked)


def _simulated() -> Callable[[int, int], None]:
    """A reporter of how far the self-check is."""
    ticker, started = Ticker(), time.monotonic()

    def report(done: int, rounds: int) -> None:
        left = (time.monotonic() - started) / done * (rounds - done)
        ticker.show(done, rounds, lambda: f"self-check: round {done} of {rounds}  eta {minutes(left)}")

    return report


def _keep(report: CalibrationReport, store: Store, save: Path | None) -> None:
    """Store the fitted calibration under its identity, and say how it is used."""
    from calibration.confidence import Calibration

    fitted = report.confidence.fitted
    if not isinstance(fitted, Calibration):
        click.echo(f"note: no calibration was fitted: {safe(fitted.reason)}", err=True)
        return
    try:
        path = store.keep_calibration(fitted)
    except OSError as error:
        click.echo(f"note: the calibration is not kept in {store.home}: {error.strerror}", err=True)
        if save is None:
            return
    if save is not None:
        write_whole(save, fitted.to_json() + "\n")
        path = save
    click.echo(f"calibration: {safe(str(path))}", err=True)
    click.echo("  use it: judge compare --calibration FILE ...", err=True)


def _writable(*paths: Path | None) -> None:
    from ..errors import InputError

    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; make it first")


def _ids(gold: GoldSet) -> list[str]:
    return [item.pair_id for item in gold.items]
