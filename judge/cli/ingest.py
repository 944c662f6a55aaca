"""``judge ingest``: data of other tools in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..advice import homed
from ..render.words import counted
from .screen import Ticker, safe

if TYPE_CHECKING:
    from ..exchange import Moved

__all__ = ["command", "counter", "mapping_of", "say_moved"]

_NEXT = {
    "pair": "judge run {out} --rubric helpfulness@1",
    "task": "judge generate {out} --model local -o answers.jsonl",
    "answer": "judge run EVALSET --candidate {out} --baseline OTHER",
    "preference": "judge tune pairs {out} -o training.jsonl",
    "trace": "judge loop sample {out} -o queue.jsonl --rate 0.05",
    "label": "judge calibrate RUN --gold {out}",
}


def _list_formats(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from ..exchange import FORMATS

    rows = [("FORMAT", "ROWS", "IN", "OUT", "WHAT")]
    for entry in FORMATS.values():
        out = entry.written_from if entry.takes else "yes" if entry.write else "-"
        rows.append((entry.name, entry.kind, "yes" if entry.read else "-", out, entry.about))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    ctx.exit()


@click.command("ingest", epilog="Example: judge ingest prefs.jsonl --from trl -o pairs.jsonl")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--from", "format_name", required=True, metavar="FORMAT", help="What the file is (--formats lists them).")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSONL to write.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=PATH", help="Name a place: --map input=inputs.question.")
@click.option("--candidate", metavar="MODEL", default="", help="Which model of a folder of many is the candidate.")
@click.option("--baseline", metavar="MODEL", default="", help="Which is the baseline.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="The key written beside labelling tasks.")
@click.option("--skip-bad", is_flag=True, help="Take the usable rows although others cannot be used.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--formats", is_flag=True, is_eager=True, expose_value=False, callback=_list_formats, help="List formats."
)
def command(
    file: Path,
    *,
    format_name: str,
    output: Path,
    maps: tuple[str, ...],
    candidate: str,
    baseline: str,
    key: Path | None,
    skip_bad: bool,
    as_json: bool,
) -> int:
    """Read FILE (or folder) of another tool into rows of ours.

    Fields that we do not know stay in the rows and come out again with `judge export --to` the same format.
    """
    from ..exchange import Options, ingest

    options = Options(mapping=mapping_of(maps), candidate=candidate, baseline=baseline, key=key)
    moved = ingest(file, format_name, output, options=options, skip_bad=skip_bad, report=counter("read"))
    say_moved(moved, as_json=as_json)
    if moved.kind in _NEXT and not as_json:
        click.echo(f"next: {safe(homed(_NEXT[moved.kind].format(out=shlex.quote(str(moved.out)))))}", err=True)
    return 0


def counter(word: str) -> Callable[[int], None]:
    """A reporter of how many rows went by; how many there are is not known before."""
    ticker = Ticker()
    return lambda count: ticker.show(count, count + 1, lambda: f"{word} {count:,} rows", last=False)


def mapping_of(maps: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=PATH`` options as a mapping; raises ``click.UsageError`` for one without a value."""
    found = {}
    for entry in maps:
        name, sign, value = entry.partition("=")
        if not (name and sign and value):
            raise click.UsageError(f"--map takes FIELD=PATH, not {entry!r}")
        found[name] = value
    return found


def say_moved(moved: Moved, *, as_json: bool) -> None:
    """Say what came over and what did not."""
    if as_json:
        click.echo(json.dumps(moved.to_dict(), ensure_ascii=False))
        return
    click.echo(safe(str(moved.out)))
    kinds = f" of kind {moved.kind}"
    click.echo(f"{moved.format}: {counted(moved.rows, 'row')}{kinds}, of {moved.read} read", err=True)
    for kind, count in moved.problems.items():
        click.echo(f"  {count} {kind}", err=True)
    for line in moved.first:
        click.echo(f"  {safe(line)}", err=True)
