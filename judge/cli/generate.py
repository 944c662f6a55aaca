"""``judge generate``: let a model answer an eval set."""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from .run import surroundings
from .screen import Ticker, complain, dollars, minutes, safe

if TYPE_CHECKING:
    from ..backends.generators import Generator
    from ..generation import GenerationPlan, Progress, Result

__all__ = ["command"]

_SHOWN = 8


@click.command("generate", epilog="Example: judge generate evals.jsonl --model local -o base.jsonl")
@click.argument("evalset", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--model",
    "-m",
    "spec",
    required=True,
    help="local, hf:MODEL, openai:MODEL[?base_url=URL], a litellm model.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the answers go (.jsonl).",
)
@click.option("--system", metavar="TEXT|@FILE", help="A system text before every prompt.")
@click.option("--no-context", is_flag=True, help="Do not put an item's sources before its prompt.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=512, show_default=True, help="Of one answer.")
@click.option("--temperature", type=click.FloatRange(0, 5), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Each item's seed is made of it."
)
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Name a column: --map prompt=question_text.")
@click.option("--skip-bad", is_flag=True, help="Ask the usable rows although others cannot be asked.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N rows.")
@click.option(
    "--max-cost", type=click.FloatRange(0), metavar="USD", help="Stop before the answers may cost more than this."
)
@click.option("--allow-unknown-price", is_flag=True, help="With --max-cost: count calls of unknown price as free.")
@click.option("--dry-run", is_flag=True, help="Say what it would take. Calls and writes nothing.")
@click.option("--json", "as_json", is_flag=True, help="The summary (or the dry run) as one JSON object on stdout.")
def command(evalset: Path, output: Path, spec: str, *, as_json: bool, dry_run: bool, **options: Any) -> int:
    """Let a model answer every prompt of EVALSET, and write the answers as a file for `judge run`.

    EVALSET is JSONL, CSV, JSON or Parquet with an id and a prompt (or messages) a row; answers in it are not looked at.
    What is answered is kept in OUTPUT.journal: after Ctrl-C, a crash or a failed item the same command goes on where it
    stopped. OUTPUT appears whole, in the order of EVALSET.
    """
    from ..backends.generators import Settings, open_generator
    from ..generation import GenerationPlan, estimate
    from ..prompts import Asking, open_prompts

    _check_output(evalset, output)
    env = surroundings(None)
    mapping = _mapping(options["maps"])
    system = _text(options["system"])
    reading = {"skip_bad": options["skip_bad"], "limit": options["limit"]}
    prompts = open_prompts(evalset, mapping=mapping, system=system is not None, **reading)
    asking = Asking(system, not options["no_context"], options["seed"])
    generator = open_generator(spec, env, Settings(options["max_tokens"], options["temperature"]))
    plan = GenerationPlan(
        output=output,
        prompts=prompts,
        asking=asking,
        spec=spec,
        created_at=stamp(),
        options={"map": mapping, **reading},
        max_cost=options["max_cost"],
        allow_unknown_price=options["allow_unknown_price"],
    )
    if dry_run:
        try:
            return _dry_run(plan, estimate(plan, generator), generator, as_json=as_json)
        finally:
            asyncio.run(generator.close())
    left = f", {len(prompts.problems)} rows left out (--skip-bad)" if prompts.problems else ""
    sources = f", {prompts.with_context} with sources" if prompts.with_context and asking.context else ""
    click.echo(f"{output}: {prompts.rows} prompts{sources}{left}, model {safe(str(generator.id))}", err=True)
    result = _drive(plan, generator)
    _show(result, evalset, as_json=as_json)
    return 3 if result.failed else 0


def _drive(plan: GenerationPlan, generator: Generator) -> Result:
    """Generate to the end; on Ctrl-C, a full disk or a model that gives up, say how to go on."""
    from ..engine import seldom_collecting
    from ..errors import BackendError
    from ..generation import generate

    async def work() -> Result:
        try:
            return await generate(plan, generator, report=_progress())
        finally:
            await generator.close()

    go_on = f"what was answered is kept; go on with: {_again()}"
    try:
        with seldom_collecting():
            return asyncio.run(work())
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted: {go_on}", err=True)
        sys.exit(130)
    except BackendError as error:
        rest = f" ({error.unanswered} prompts without an answer)" if error.unanswered else ""
        raise BackendError(f"{error}{rest}; {go_on}") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; make room, {go_on}", error.filename) from error


def _again() -> str:
    """This command as a shell reads it."""
    return shlex.join(["judge", *sys.argv[1:]])


def _check_output(evalset: Path, output: Path) -> None:
    if output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise click.UsageError(f"-o {output}: answers are written as JSON lines; name it .jsonl")
    if output.resolve() == evalset.resolve():
        raise click.UsageError(f"-o {output}: that is the eval set; name another file")
    if not output.parent.is_dir():
        raise click.UsageError(f"-o {output}: there is no folder {output.parent}")


def _mapping(maps: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for entry in maps:
        name, equals, column = entry.partition("=")
        if not equals or not name or not column:
            raise click.UsageError(f"--map {entry}: write FIELD=COLUMN, for example --map prompt=question_text")
        found[name] = column
    return found


def _text(system: str | None) -> str | None:
    """The system text; ``@FILE`` names a file, read whole but for the line feeds at its end."""
    if system is None or not system.startswith("@"):
        return system
    path = Path(system[1:])
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.UsageError(f"--system {system}: the file is not UTF-8") from None
    except OSError as error:
        raise click.UsageError(f"--system {system}: {error.strerror}") from None


def _dry_run(plan: GenerationPlan, found: Any, generator: Generator, *, as_json: bool) -> int:
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps(asdict(found)))
        return 0
    click.echo(f"dry run: {plan.prompts.rows} prompts, model {safe(str(generator.id))}")
    click.echo(f"  calls   {found.items:,}" + (f" ({found.before:,} answered already)" if found.before else ""))
    click.echo(f"  tokens  at most {found.prompt_tokens:,} in and {found.completion_tokens:,} out")
    if found.high is None:
        cost = "unknown: this model's price is not known"
    elif found.high == 0:
        cost = "none"
    else:
        cost = f"${found.low or 0.0:.4f} to ${found.high:.4f}, retries not counted"
    click.echo(f"  cost    {cost}")
    if plan.max_cost is not None and found.high is not None and found.high > plan.max_cost:
        click.echo(f"  --max-cost ${plan.max_cost:g} may stop it before its end")
    click.echo("nothing was called and nothing written", err=True)
    return 0


def _progress() -> Callable[[Progress], None]:
    """A reporter of how far the answers are."""
    ticker = Ticker()

    def report(now: Progress) -> None:
        handled, seconds = now.answered + now.failed, now.seconds or math.inf
        ticker.show(
            handled,
            now.total,
            lambda: (
                f"answered {now.answered}/{now.total}  {(handled - now.before) / seconds:.1f}/s  "
                f"{now.tokens / seconds:.0f} tokens/s  eta {minutes(now.eta_seconds or 0.0)}  failed {now.failed}  "
                f"{dollars(now.cost)}"
            ),
        )

    return report


def _summary(result: Result) -> dict[str, Any]:
    """The result as plain values for ``--json``."""
    found = result.tally
    latencies = sorted(found.latencies_ms)
    tail = statistics.quantiles(latencies, n=20, method="inclusive")[18] if len(latencies) > 1 else None
    return {
        "output": str(result.output) if found.answers else None,
        "items": result.items,
        "answered": found.answers,
        "answered_before": result.before,
        "failed": [{"id": name, "reason": reason} for name, reason in result.failed],
        "models": dict(found.models),
        "finish": dict(found.finish),
        "empty": found.empty,
        "tool_calls": found.tool_calls,
        "tokens": {"n": found.counted, "prompt": found.prompt_tokens, "generated": found.tokens},
        "latency_ms": {
            "n": len(latencies),
            "median": round(statistics.median(latencies), 3) if latencies else None,
            "p95": round(tail, 3) if tail is not None else None,
        },
        "cost": result.cost,
        "cost_at_most": result.cost_most,
        "possibly_paid": result.possibly_paid,
        "seconds": round(result.seconds, 3),
    }


def _show(result: Result, evalset: Path, *, as_json: bool) -> None:
    summary = _summary(result)
    if as_json:
        click.echo(json.dumps(summary))
    for name, reason in result.failed[:_SHOWN]:
        click.echo(f"  failed: {safe(name)}: {safe(reason)}", err=True)
    if len(result.failed) > _SHOWN:
        click.echo(f"  and {len(result.failed) - _SHOWN} more (--json lists all)", err=True)
    found, latency = result.tally, summary["latency_ms"]
    ends = ", ".join(f"{count} {safe(name)}" for name, count in sorted(found.finish.items()))
    click.echo(f"{found.answers} of {result.items} answered" + (f" ({ends})" if ends else ""), err=True)
    if result.generated:
        rate = result.generated / result.seconds
        click.echo(f"  {result.generated:,} tokens in {result.seconds:.1f} s ({rate:.0f} tokens/s)", err=True)
    if latency["median"] is not None:
        tail = f", 95% within {latency['p95']:.0f} ms" if latency["p95"] is not None else ""
        click.echo(f"  latency: median {latency['median']:.0f} ms{tail}, n = {latency['n']}", err=True)
    if found.empty:
        click.echo(f"  {found.empty} answers are empty", err=True)
    if len(found.models) > 1:
        names = ", ".join(f"{safe(name)} ({count})" for name, count in found.models.items())
        click.echo(f"  more than one model answered: {names}", err=True)
    cost = "unknown" if result.cost is None else f"${result.cost:.4f}"
    most = f", at most ${result.cost_most:.4f}" if result.possibly_paid and result.cost_most is not None else ""
    paid = f" ({result.possibly_paid} calls were possibly paid{most})" if result.possibly_paid else ""
    click.echo(f"  cost: {cost}{paid}", err=True)
    if result.failed:
        missing = f"{len(result.failed)} of {result.items} prompts have no answer"
        written = f"; {result.output} holds the others" if found.answers else "; nothing was written"
        complain(f"{missing}{written}. Ask for them again with: {_again()}")
    else:
        then = advised("run", evalset, "--baseline", "OTHER.jsonl", "--candidate", result.output)
        click.echo(f"next: {safe(then)}", err=True)
