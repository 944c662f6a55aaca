"""``judge loop failures``: what failed becomes what the next round is measured on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ..advice import advised
from ..clock import stamp
from ..environment import environment
from .loop_sample import redaction_options, redaction_words, traces_of
from .screen import bring_in, home_option, safe

__all__ = ["command"]


@click.command("failures", epilog="Example: judge loop failures decision-1f0c9a2b -o cases.jsonl")
@click.argument("source", metavar="RUN|DECISION|TRACES")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Cases (.jsonl).")
@click.option("--force", is_flag=True, help="Write -o anew where it exists.")
@click.option("--name", help="Of the frozen set (default: the date and the source).")
@click.option(
    "--frozen-share", type=click.FloatRange(0, 1), default=0.5, show_default=True,
    help="Share of failures that are frozen as hard prompts; the others go to the label queue.",
)  # fmt: skip
@click.option(
    "--sure",
    type=click.FloatRange(0.5, 1),
    default=0.6,
    show_default=True,
    help="How sure the judge must be of a loss.",
)
@redaction_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    source: str,
    *,
    output: Path,
    force: bool,
    name: str | None,
    frozen_share: float,
    sure: float,
    hook: str | None,
    no_patterns: bool,
    as_json: bool,
    home: str | None,
) -> int:
    """Collect what failed: pairs that a candidate lost, what a DECISION stood on, traces that users found bad.

    Half of them (by a coin from the prompt) are frozen in the home folder, as known-failure cases with a suite beside
    them: later candidates are checked on them, no training set may repeat them. The others are for the label queue.
    Each carries its origin. Traces are redacted before anything of them is written.
    """
    from tune.failures import collect, save, suite_path
    from tune.redaction import Redactor, load_hook

    from ..errors import InputError
    from ..register import Register
    from ..store import Store

    if output.exists() and not force:
        raise InputError(f"{output}: exists already and may hold cases of an earlier round; name another, or --force")
    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    now = datetime.now(UTC)
    redactor = Redactor(load_hook(hook) if hook else None, patterns=not no_patterns)
    found, subject = _found(store, source, now.date().isoformat(), sure, redactor)
    cases = collect(found, store.home, share=frozen_share)
    if not len(cases):
        left = ", ".join(f"{count} {why}" for why, count in cases.left.items())
        raise InputError(f"{source}: there is no failure to collect{f' ({left})' if left else ''}")
    stem = re.sub(r"[^\w.@-]+", "-", Path(subject).stem)
    target = save(cases, output, store.home, name or f"{now:%Y-%m-%d}-{stem}")
    body = {
        "cases": str(output), "frozen": len(cases.frozen), "queue": len(cases.queue), "left": dict(cases.left),
        "frozen_file": str(target) if target else "", "redacted": dict(redactor.counts),
        "patterns": not no_patterns, "hook": hook or "",
    }  # fmt: skip
    at = stamp(now)
    entry = Register(store.home).append("failures", subject, body, at=at)
    if as_json:
        click.echo(json.dumps({**body, "entry": entry.id}, ensure_ascii=False))
        return 0
    click.echo(safe(str(output)))
    click.echo(f"{len(cases.frozen)} frozen{f' in {safe(str(target))}' if target else ''}", err=True)
    click.echo(f"{len(cases.queue)} for the label queue", err=True)
    for why, count in cases.left.items():
        click.echo(f"  {count} left out: {why}", err=True)
    if Path(source).exists():
        click.echo(redaction_words(redactor.counts, patterns=not no_patterns), err=True)
    click.echo(f"recorded as {entry.id}", err=True)
    if target is not None:
        first = advised("generate", target, "--model", "CANDIDATE", "-o", "answers.jsonl")
        then = advised("check", target, "--suite", suite_path(target), "-c", "answers.jsonl")
        # One command a line, so that each can be pasted; a path is never broken.
        click.echo(safe(f"next: {first}\nthen: {then}"), err=True)
    return 0


def _found(store: Any, source: str, date: str, sure: float, redactor: Any) -> tuple[Iterable[Any], str]:
    """The failures of a file of traces, of a decision or of a run, and what they are called after."""
    from tune.failures import from_decision, from_run, from_traces
    from tune.redaction import IDS

    from ..register import Register

    if Path(source).exists():
        rows = (redactor.row(row, keep=IDS) for row in traces_of(Path(source)))
        return from_traces(rows, source=f"traces {source}", date=date), source
    if source.startswith("decision-"):
        entry = Register(store.home).find(source)
        return from_decision(store, entry, date=date, sure=sure), entry.id
    info = store.run(source)
    return from_run(store, info, date=date, sure=sure), info.run_id
