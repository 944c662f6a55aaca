"""``judge loop sample``: traces in, with known chances."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from ..render.words import counted
from ..writing import whole
from .screen import home_option, safe

__all__ = ["command", "redaction_options", "redaction_words", "traces_of"]

_FILE = click.Path(dir_okay=False, path_type=Path)


def redaction_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--redact`` and ``--no-patterns``: what is done to every text of a trace before it is written."""
    hook = click.option(
        "--redact", "hook", metavar="MODULE:FUNCTION", help="Your own redaction of each text, after the patterns."
    )
    patterns = click.option(
        "--no-patterns", is_flag=True, help="Do not look for personal data (it was done before); recorded."
    )
    return hook(patterns(command))


def redaction_words(counts: Mapping[str, int], *, patterns: bool) -> str:
    """What was redacted, as one line."""
    found = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number)
    return f"redacted: {found or 'nothing found'}{'' if patterns else ' (patterns off)'}"


@click.command(
    "sample", epilog="Example: judge loop sample traces.jsonl -o queue.jsonl --rate 0.02 --rate-for signal=bad:1"
)
@click.argument("traces", type=_FILE)
@click.option("--output", "-o", required=True, type=_FILE, help="The label queue (.jsonl, an eval set).")
@click.option("--rate", required=True, type=click.FloatRange(0, 1, min_open=True), help="Chance of a trace.")
@click.option(
    "--rate-for", "rules", multiple=True, metavar="FIELD=VALUE:RATE",
    help="Another chance for some: category=refund:0.5, signal=bad:1 (asked again, escalated, edited, scored 0).",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the draw.")
@redaction_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    traces: Path,
    *,
    output: Path,
    rate: float,
    rules: tuple[str, ...],
    seed: int,
    hook: str | None,
    no_patterns: bool,
    as_json: bool,
    home: str | None,
) -> int:
    """Draw TRACES (rows of judge ingest) for labelling: each with a known chance, redacted, the same ones every time.

    The answer given in use is the baseline; let the candidate answer with judge generate, then judge and label.
    """
    from tune.intake import Intake, parse_rule, sample
    from tune.redaction import Redactor, load_hook

    from ..errors import InputError
    from ..exchange.rows import write_file
    from ..register import Register

    parsed = [parse_rule(rule) for rule in rules]
    redactor = Redactor(load_hook(hook) if hook else None, patterns=not no_patterns)
    intake = Intake(seed)
    with whole(output) as part:
        count = write_file(part, sample(traces_of(traces), parsed, redactor, intake, rate=rate))
        if not count:
            raise InputError(f"{traces}: no trace was drawn of {sum(intake.met.values())}; raise --rate")
    body = {
        **intake.to_dict(), "traces": str(traces), "queue": str(output), "redacted": dict(redactor.counts),
        "patterns": not no_patterns, "hook": hook or "",
    }  # fmt: skip
    place = Path(home) if home else environment().home
    entry = Register(place).append("intake", str(output), body, at=stamp())
    if as_json:
        click.echo(json.dumps({**body, "rows": count, "entry": entry.id}, ensure_ascii=False))
        return 0
    click.echo(safe(str(output)))
    for name, met in sorted(intake.met.items()):
        drawn = intake.drawn.get(name, 0)
        click.echo(f"  {safe(name)}: {drawn} of {met} drawn, each with chance {intake.rates[name]:g}", err=True)
    for why, left in intake.left.items():
        click.echo(f"  {left} left out: {why}", err=True)
    click.echo(redaction_words(redactor.counts, patterns=not no_patterns), err=True)
    click.echo(f"{counted(count, 'row')}; recorded as {entry.id}", err=True)
    then = advised("generate", output, "--model", "CANDIDATE", "-o", "answers.jsonl")
    click.echo(f"next: {safe(then)}", err=True)
    return 0


def traces_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of traces; raises ``InputError`` for one that does not parse."""
    from ..errors import InputError
    from ..formats import Problem, read_rows

    for _line, row in read_rows(path):
        if isinstance(row, Problem):
            raise InputError(str(row))
        yield row
