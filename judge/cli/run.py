"""``judge run``: judge an eval set."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from ..render.words import counted, wrap
from .engines import engine_options, opener
from .screen import complain, home_option, progress, safe

if TYPE_CHECKING:
    from ..backends import Backend
    from ..environment import Environment
    from ..forecast import Forecast
    from ..runs import RunPlan
    from ..store import Store

__all__ = [
    "Options",
    "announce",
    "clock",
    "command",
    "cost_words",
    "drive",
    "dry_run",
    "estimated",
    "finish",
    "mode_of",
    "mode_words",
    "pairs_words",
    "plan_of",
    "run",
    "surroundings",
    "time_words",
]


@click.command("run", epilog="Example: judge run evals.jsonl --rubric helpfulness@1 --judge local")
@click.argument("evalset", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--candidate", "-c", type=click.Path(dir_okay=False, path_type=Path), help="The candidate's answers, joined on id."
)
@click.option(
    "--baseline", "-b", type=click.Path(dir_okay=False, path_type=Path), help="The baseline's answers, joined on id."
)
@click.option(
    "--rubric", "-r", default="helpfulness", show_default=True, help="NAME@VERSION, NAME for the newest, or a path."
)
@click.option(
    "--judge",
    "-j",
    "judges",
    multiple=True,
    default=("local",),
    show_default="local",
    help="local, hf:MODEL, openai:MODEL, anthropic:MODEL, recorded:FILE, ...; several are a panel, one run each.",
)
@click.option(
    "--gold", "-g", type=click.Path(dir_okay=False, path_type=Path), help="Labels that weigh the judges of a panel."
)
@click.option(
    "--cascade",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The calibration of a judge: what it cannot certify goes to the next -j; one for each judge but the last.",
)
@click.option(
    "--error",
    type=click.FloatRange(0, 0.5, min_open=True),
    help="With --cascade: the share of wrong verdicts that is tolerated.  [default: 0.1]",
)
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Name a column: --map baseline=answer_old.")
@click.option("--skip-bad", is_flag=True, help="Judge the usable rows although others cannot be; they stay counted.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N rows.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of labels and fences."
)
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=1, show_default=True, help="Judge every pair this many times."
)
@click.option("--no-cache", is_flag=True, help="Ask again even where an identical judgement is stored.")
@click.option(
    "--max-cost", type=click.FloatRange(0), metavar="USD", help="Stop before the run may cost more than this."
)
@click.option("--allow-unknown-price", is_flag=True, help="With --max-cost: count calls of unknown price as free.")
@click.option(
    "--canaries",
    type=click.IntRange(0, 100),
    help="Canary pairs that cost two calls each (0: none of any kind).  [default: 1 for 20 pairs, at most 8]",
)
@click.option("--batch", is_flag=True, help="Through the provider's batch interface: half the price, within a day.")
@click.option(
    "--batch-rest",
    type=click.Choice(["batch", "live"]),
    default="batch",
    show_default=True,
    help="With --batch: how to send what a batch left unanswered.",
)
@click.option("--batch-size", type=click.IntRange(1), help="With --batch: the most requests in one batch.")
@click.option(
    "--dry-run", is_flag=True, help="Say what it would take: calls, tokens, cost, time. Calls and writes nothing."
)
@click.option("--json", "as_json", is_flag=True, help="The report (or the dry run) as one JSON object on stdout.")
@engine_options
@home_option
def command(**options: Any) -> int:
    """Judge EVALSET: blind, both orders, under a rubric; the result is journaled, stored and summarised.

    EVALSET is JSONL, CSV, JSON or Parquet: pairs (prompt, candidate, baseline) or prompts with --candidate and
    --baseline files joined on id. Rows that cannot be judged are listed with line numbers and nothing is judged unless
    --skip-bad is given.

    Several --judge are a panel: each judges everything, then come their agreement and their joint verdict. With
    --cascade the next judge sees only the pairs on which the one before is not certified to be right.
    """
    first, *others = options.pop("judges")
    return run(Options(**options, judge=first, others=tuple(others)))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given; also how ``judge demo`` says what to run."""

    evalset: Path
    candidate: Path | None = None
    baseline: Path | None = None
    rubric: str = "helpfulness"
    judge: str = "local"
    others: tuple[str, ...] = ()
    """The judges after the first: of a panel, or of a cascade."""
    gold: Path | None = None
    cascade: tuple[Path, ...] = ()
    error: float | None = None
    maps: tuple[str, ...] = ()
    skip_bad: bool = False
    limit: int | None = None
    seed: int = 0
    repeat: int = 1
    no_cache: bool = False
    max_cost: float | None = None
    allow_unknown_price: bool = False
    canaries: int | None = None
    batch: bool = False
    batch_rest: str = "batch"
    batch_size: int | None = None
    dry_run: bool = False
    as_json: bool = False
    home: str | None = None
    engine: str = "asyncio"
    workers: int | None = None
    ray_address: str | None = None

    @property
    def judges(self) -> tuple[str, ...]:
        """All judges, in their order."""
        return (self.judge, *self.others)

    def reading(self) -> dict[str, Any]:
        """How the eval set is opened, as plain values: what a resume opens it with again."""
        return {
            "candidate": str(self.candidate.resolve()) if self.candidate else None,
            "baseline": str(self.baseline.resolve()) if self.baseline else None,
            "mapping": _mapping(self.maps),
            "skip_bad": self.skip_bad,
            "limit": self.limit,
        }

    def elsewhere(self) -> dict[str, Any]:
        """Where the calls are made from: what ``opener`` takes."""
        if self.batch and self.engine != "asyncio":
            raise click.UsageError("--batch sends whole batches to the provider: leave out --engine ray")
        return {"engine": self.engine, "workers": self.workers, "ray_address": self.ray_address}


def run(options: Options) -> int:
    """Check the input, judge, and print the report; returns the exit code."""
    from ..alongside import Alongside
    from ..runs import start_run
    from ..store import Store
    from .batching import batching

    if options.others or options.cascade:
        from .panel import begin

        return begin(options)
    if options.gold is not None or options.error is not None:
        raise click.UsageError("--gold needs several --judge, and --error needs --cascade")
    env = surroundings(options.home)
    with Alongside() as along:
        if not options.dry_run:
            along.warm_up(options.evalset)
        plan = plan_of(options)
        elsewhere = {} if options.dry_run else options.elsewhere()
        backend = opener(env, **elsewhere)(options.judge)
        store = Store(env.home)
        if options.dry_run:
            return dry_run(plan, backend, store, as_json=options.as_json)
        announce(plan, plan.run_id, f"judge {safe(str(backend.id))}", by_pair=backend.id.by_pair)

        async def work() -> None:
            try:
                await start_run(plan, backend, store, report=progress(), batching=batching(store.home), along=along)
            finally:
                await backend.close()

        drive(work(), plan.run_id, options.home)
    return finish(store, plan.run_id, as_json=options.as_json)


def plan_of(options: Options) -> RunPlan:
    """The run that the options ask for, with its input checked; of several judges, the first's."""
    from rubrics import load

    from ..batching import BatchPlan
    from ..canaries import usual_count
    from ..formats import open_evalset
    from ..runs import RunPlan

    if not options.batch and (options.batch_size or options.batch_rest != "batch"):
        raise click.UsageError("--batch-size and --batch-rest go with --batch")
    reading = options.reading()
    answers = {side: getattr(options, side) for side in ("candidate", "baseline")}
    evalset = open_evalset(options.evalset, **{**reading, **answers})
    wanted = usual_count(evalset.rows) if options.canaries is None else options.canaries or None
    return RunPlan(
        run_id=f"r-{secrets.token_hex(3)}",
        created_at=stamp(),
        evalset=evalset,
        options=reading,
        rubric=load(options.rubric),
        judge_spec=options.judge,
        seed=options.seed,
        repeats=options.repeat,
        reuse=not options.no_cache,
        max_cost=options.max_cost,
        allow_unknown_price=options.allow_unknown_price,
        canaries=wanted,
        batch=BatchPlan(options.batch_rest, options.batch_size or 0) if options.batch else None,
    )


def announce(plan: RunPlan, name: str, judged_by: str, *, by_pair: bool = False) -> None:
    """Say on stderr what is about to be judged; a judge that answers by the ids of pairs (``by_pair``) is asked about
    no canary.
    """
    from ..canaries import canaries_of

    checked = plan.evalset
    click.echo(f"{name}: {counted(checked.rows, 'pair')} x 2 orders, rubric {plan.rubric.ref}", err=True)
    click.echo(f"  {judged_by}", err=True)
    more = 0 if by_pair else len(canaries_of(checked, plan.canaries).canaries)
    if more:
        known = f"  and {counted(more, 'canary pair')}, whose verdicts are known beforehand: they watch the judge,"
        click.echo(known, err=True)
        click.echo("  and count in no figure but the progress and the cost", err=True)
    if checked.problems:
        left = len(checked.problems)
        click.echo(f"  {counted(left, 'row')} left out (--skip-bad), and counted in the report", err=True)


def surroundings(home: str | None) -> Environment:
    """The environment with --home put in; a crash point that it names is set."""
    from .. import failpoints

    env = environment()
    if env.crash_at:
        failpoints.install(failpoints.killer(env.crash_at))
    return replace(env, home=Path(home)) if home else env


def estimated(
    plan: RunPlan, backend: Backend, store: Store, *, part: bool = False
) -> tuple[Forecast, tuple[float, str] | None]:
    """What the run would take, and the calls per second that this judge made in an earlier run, with its id.

    With ``part`` an upper bound of what a run over some of the pairs would take: its canaries are made of those.
    """
    from ..backends.chat import ChatBackend
    from ..batching import batch_prices
    from ..canaries import canaries_of
    from ..engine import Job
    from ..forecast import forecast, with_canaries

    if isinstance(backend, ChatBackend):
        backend.recall()
    known = store.known(plan.rubric.digest, backend.id) if plan.reuse else None
    job = Job(plan.rubric, backend, seed=plan.seed, repeats=plan.repeats, known=known)
    measured = store.rate(backend.id)
    rate = measured[0] if measured else None
    canaries = None if backend.id.by_pair else plan.canaries
    with batch_prices(backend) if plan.batch is not None else contextlib.nullcontext():
        if part:
            own = forecast(plan.evalset.pairs(), job, rate=rate)
            return with_canaries(own, plan.evalset.pairs(), job, canaries or 0, rate=rate), measured
        return forecast(canaries_of(plan.evalset, canaries).pairs(), job, rate=rate), measured


def dry_run(plan: RunPlan, backend: Backend, store: Store, *, as_json: bool) -> int:
    """Say what a run would take, and take nothing."""
    import json

    found, measured = estimated(plan, backend, store)
    if as_json:
        click.echo(json.dumps({"judge": str(backend.id), **asdict(found), **mode_of(backend)}))
        return 0
    free = f"{found.cached} cached, {found.shared} shared, {counted(found.identical, 'pair')} with identical answers"
    rate = (
        f"at {measured[0]:.1f} calls/s as in {measured[1]}" if measured else "no earlier run of this judge measured it"
    )
    head = f"dry run: {pairs_words(plan, found)}, rubric {plan.rubric.ref}, judge {safe(str(backend.id))}"
    lines = wrap(head, rest="  ")
    facts = [
        *(("mode", safe(sentence)) for sentence in mode_words(backend)),
        ("calls", f"{found.calls:,} for {found.verdicts:,} verdicts ({free})"),
        ("tokens", f"at most {found.prompt_tokens:,} in and {found.completion_tokens:,} out"),
        ("cost", cost_words(found) + (", at the price of batches" if plan.batch is not None else "")),
        ("time", time_words(found.seconds) + (f" ({rate})" if found.calls else "")),
    ]
    for name, fact in facts:
        lines += wrap(fact, first=f"  {name:8}", rest=" " * 10)
    click.echo("\n".join(lines))
    if plan.max_cost is not None and found.high is not None and found.high > plan.max_cost:
        click.echo(f"  --max-cost ${plan.max_cost:g} may stop it before its end")
    click.echo("nothing was called and nothing written", err=True)
    return 0


def mode_of(backend: Backend) -> dict[str, Any]:
    """How a remote judge is asked: its mode, the day on which that was found out, whether it is only assumed."""
    from ..backends.chat import ChatBackend

    if not isinstance(backend, ChatBackend):
        return {}
    found = backend.capability.found if backend.capability is not None else None
    bound = backend.probe_bound() if backend.assumed else 0.0
    return {"mode": backend.mode, "mode_found": found, "mode_assumed": backend.assumed, "probe_most": bound}


def mode_words(backend: Backend) -> list[str]:
    """The same as one sentence, where it is not the user who named the mode."""
    from ..backends.capability import MOST_CALLS

    told = mode_of(backend)
    if told.get("mode_assumed"):
        most = "at an unknown price" if told["probe_most"] is None else f"for at most ${told['probe_most']:.6f} each"
        calls = f"the run begins with 1 to {MOST_CALLS} small calls that find out ({most})"
        return [f"{told['mode']} is assumed: nothing is known of this server; {calls}"]
    if told.get("mode_found"):
        return [f"{told['mode']}, as found out on {told['mode_found']} (&probe=1 finds out anew)"]
    return []


def pairs_words(plan: RunPlan, found: Forecast) -> str:
    """How many pairs a run has, and how many canary pairs beside its own."""
    more = found.pairs - plan.evalset.rows
    return counted(plan.evalset.rows, "pair") + (f" and {counted(more, 'canary pair')}" if more else "")


def cost_words(found: Forecast) -> str:
    """The range of what a forecast costs, in words."""
    if found.high is None:
        return "unknown: this judge's price is not known"
    if found.high == 0:
        return "none"
    low = f"${found.low:.4f} to " if found.low is not None else "at most "
    return f"{low}${found.high:.4f}, retries not counted"


def time_words(seconds: float | None) -> str:
    """How long something will take, as far as that can be said."""
    if seconds is None:
        return "unknown"
    if seconds == 0:
        return "none"
    return f"about {clock(seconds)}" if seconds >= 1 else "under a second"


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def drive(work: Any, run_id: str, home: str | None) -> None:
    """Run to the end; on Ctrl-C, a full disk or a judge that gives up, say how to go on."""
    from ..engine import seldom_collecting
    from ..errors import BackendError
    from ..money import BudgetSpent

    go_on = f"what was judged is kept; finish with: {advised('resume', run_id)}"
    begun = Path(home) / "runs" if home else environment().home / "runs"
    alone = run_id.startswith("r-")
    try:
        with seldom_collecting():
            asyncio.run(work)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted: {go_on}", err=True)
        sys.exit(130)
    except BackendError as error:
        rest = f" ({error.unanswered} comparisons without a result)" if error.unanswered else ""
        more = " --max-cost MORE" if isinstance(error, BudgetSpent) else ""
        if alone and not (begun / f"{run_id}.jsonl").exists():
            raise  # it ended before the run began: there is nothing to resume
        raise BackendError(f"{error}{rest}; {go_on}{more}") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; make room, {go_on}", error.filename) from error


def finish(store: Store, run_id: str, *, as_json: bool) -> int:
    """Print the report of a finished run; exit code 3 where not one comparison could be judged."""
    from .. import render
    from ..summary import summarise

    info = store.run(run_id)
    report = summarise(info.header, store.comparisons(run_id), sealed=info.sealed, canaries=store.canaries(run_id))
    click.echo(render.to_json(report) if as_json else render.to_text(report))
    if report.overall.judged == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.invalid_reasons)
        complain(f"not one comparison could be judged ({reasons})")
        return 3
    click.echo(f"next: {advised('report', run_id, '--html', 'report.html')}", err=True)
    return 0


def _mapping(maps: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for entry in maps:
        field, equals, column = entry.partition("=")
        if not equals or not field or not column:
            raise click.UsageError(f"--map {entry}: write FIELD=COLUMN, for example --map baseline=answer_old")
        found[field] = column
    return found
