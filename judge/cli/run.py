"""``judge run``: judge an eval set."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..environment import environment
from .screen import home_option, progress, safe

if TYPE_CHECKING:
    from ..store import Store

__all__ = ["Options", "command", "drive", "finish", "run"]


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
    "--judge", "-j", default="local", show_default=True, help="local, hf:MODEL, openai:MODEL, recorded:FILE, scripted."
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
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
@home_option
def command(**options: Any) -> int:
    """Judge EVALSET: blind, both orders, under a rubric; the result is journaled, stored and summarised.

    EVALSET is JSONL, CSV, JSON or Parquet: pairs (prompt, candidate, baseline) or prompts with --candidate and
    --baseline files joined on id. Rows that cannot be judged are listed with line numbers and nothing is judged unless
    --skip-bad is given.
    """
    return run(Options(**options))


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given; also how ``judge demo`` says what to run."""

    evalset: Path
    candidate: Path | None = None
    baseline: Path | None = None
    rubric: str = "helpfulness"
    judge: str = "local"
    maps: tuple[str, ...] = ()
    skip_bad: bool = False
    limit: int | None = None
    seed: int = 0
    repeat: int = 1
    no_cache: bool = False
    as_json: bool = False
    home: str | None = None

    def reading(self) -> dict[str, Any]:
        """How the eval set is opened, as plain values: what a resume opens it with again."""
        return {
            "candidate": str(self.candidate.resolve()) if self.candidate else None,
            "baseline": str(self.baseline.resolve()) if self.baseline else None,
            "mapping": _mapping(self.maps),
            "skip_bad": self.skip_bad,
            "limit": self.limit,
        }


def run(options: Options) -> int:
    """Check the input, judge, and print the report; returns the exit code."""
    from rubrics import load

    from ..backends import open_backend
    from ..formats import open_evalset
    from ..runs import RunPlan, start_run
    from ..store import Store

    env = environment()
    env = replace(env, home=Path(options.home)) if options.home else env
    reading = options.reading()
    answers = {side: getattr(options, side) for side in ("candidate", "baseline")}
    checked = open_evalset(options.evalset, **{**reading, **answers})
    rubric = load(options.rubric)
    backend = open_backend(options.judge, env)
    plan = RunPlan(
        run_id=f"r-{secrets.token_hex(3)}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        evalset=checked,
        options=reading,
        rubric=rubric,
        judge_spec=options.judge,
        seed=options.seed,
        repeats=options.repeat,
        reuse=not options.no_cache,
    )
    click.echo(
        f"{plan.run_id}: {checked.rows} pairs x 2 orders, rubric {rubric.ref}, judge {safe(str(backend.id))}", err=True
    )
    if checked.problems:
        left = len(checked.problems)
        click.echo(f"  {left} rows left out (--skip-bad); they are counted in the report", err=True)
    store = Store(env.home)

    async def work() -> None:
        try:
            await start_run(plan, backend, store, report=progress())
        finally:
            await backend.close()

    drive(work(), plan.run_id, options.home)
    return finish(store, plan.run_id, as_json=options.as_json, home=options.home)


def drive(work: Any, run_id: str, home: str | None) -> None:
    """Run to the end; on Ctrl-C, a full disk or a judge that gives up, say how to go on."""
    from ..errors import BackendError

    go_on = f"what was judged is kept; finish with: judge resume {run_id}{_home(home)}"
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted: {go_on}", err=True)
        sys.exit(130)
    except BackendError as error:
        rest = f" ({error.unanswered} comparisons without a result)" if error.unanswered else ""
        raise BackendError(f"{error}{rest}; {go_on}") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; make room, {go_on}", error.filename) from error


def _home(home: str | None) -> str:
    """The option that names the same home again, as a shell reads it."""
    return f" --home {shlex.quote(home)}" if home else ""


def finish(store: Store, run_id: str, *, as_json: bool, home: str | None) -> int:
    """Print the report of a finished run; exit code 3 where not one comparison could be judged."""
    from .. import render
    from ..summary import summarise

    info = store.run(run_id)
    report = summarise(info.header, store.comparisons(run_id), sealed=info.sealed)
    click.echo(render.to_json(report) if as_json else render.to_text(report))
    if report.overall.judged == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.invalid_reasons)
        click.echo(f"error: not one comparison could be judged ({reasons})", err=True)
        return 3
    click.echo(f"next: judge report {run_id} --html report.html{_home(home)}", err=True)
    return 0


def _mapping(maps: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for entry in maps:
        field, equals, column = entry.partition("=")
        if not equals or not field or not column:
            raise click.UsageError(f"--map {entry}: write FIELD=COLUMN, for example --map baseline=answer_old")
        found[field] = column
    return found
