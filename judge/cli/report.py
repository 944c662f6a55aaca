"""``judge report``: show a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..environment import environment
from ..render.words import counted, wrap
from ..writing import write_whole
from .screen import bring_in, complain, home_option, safe

if TYPE_CHECKING:
    import polars

    from ..store import RunInfo, Store
    from ..summary import RunReport

__all__ = ["command"]

_HACK_ROWS = 2_000
"""Comparisons up to which the page also says what changed besides quality; beyond them that takes minutes."""


@click.command("report", epilog="Example: judge report --html report.html")
@click.argument("run_id", default="latest")
@click.option("--list", "list_runs", is_flag=True, help="List the runs, newest first.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one self-contained HTML file.")
@click.option(
    "--by", default="category", show_default=True, help="Slice by category or by a field of the items' metadata."
)
@click.option(
    "--tie-margin",
    type=click.FloatRange(0, 0.5, max_open=True),
    help="Settle anew under this tie margin; asks no model.",
)
@click.option(
    "--gold", "-g", type=click.Path(dir_okay=False, path_type=Path), help="Of a panel: labels that weigh its judges."
)
@click.option(
    "--receipts",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every paid reply to hold against a bill (JSONL): response ids, model, tokens, cost.",
)
@home_option
def command(
    run_id: str,
    *,
    list_runs: bool,
    as_md: bool,
    as_json: bool,
    html: Path | None,
    by: str,
    tie_margin: float | None,
    gold: Path | None,
    receipts: Path | None,
    home: str | None,
) -> int:
    """Show RUN_ID: a run, a panel or a cascade (default: the latest run).

    An interrupted one shows what it has so far, and says so.
    """
    from .. import render
    from ..store import Store
    from ..summary import summarise

    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    if list_runs:
        return _list(store, as_json=as_json)
    if run_id.startswith(("p-", "c-")):
        from .panel import Showing, show

        if html is not None or tie_margin is not None or receipts is not None:
            raise click.UsageError(
                f"--html, --receipts and --tie-margin are for a run; `judge report {run_id}` names its runs"
            )
        return show(store, run_id, Showing(as_json, as_md, gold, by))
    if gold is not None:
        raise click.UsageError("--gold weighs the judges of a panel; measure one judge with `judge calibrate --gold`")
    info = store.run(run_id)
    frame = store.comparisons(info.run_id) if tie_margin is None else store.resettled(info.run_id, tie_margin)
    if frame.is_empty():
        complain(f"run {info.run_id} has no comparison yet; finish it with: {advised('resume', info.run_id)}")
        return 4
    if receipts is not None:
        _write_receipts(store, info.run_id, receipts)
    report = summarise(
        {**info.header, "tie_margin": tie_margin},
        frame,
        by=by,
        sealed=info.sealed,
        canaries=store.canaries(info.run_id),
    )
    if html is not None:
        _write_html(html, store, info, report, frame)
    elif as_json:
        click.echo(render.to_json(report))
    else:
        click.echo(render.to_markdown(report) if as_md else render.to_text(report))
    _notes(info, home)
    return 0


def _notes(info: RunInfo, home: str | None) -> None:
    """Where the run lies, if that was asked for, and how to finish one that is not finished."""
    if home:
        click.echo(f"note: this run is in the home folder {safe(home)}", err=True)
    if not info.sealed:
        click.echo(f"note: this run is not finished; finish it with: {advised('resume', info.run_id)}", err=True)


def _write_receipts(store: Store, run_id: str, path: Path) -> None:
    """One line of JSON for each reply of a run, to hold against a provider's bill."""
    from ..errors import InputError

    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it first")
    write_whole(path, store.receipts(run_id).write_ndjson())
    click.echo(f"wrote {safe(str(path))}", err=True)


def _write_html(html: Path, store: Store, info: RunInfo, report: RunReport, frame: polars.DataFrame) -> None:
    """The page, with pairs to read and what changed in the answers besides quality."""
    from .. import render
    from ..errors import InputError
    from ..hacking.report import hack_report

    if not html.parent.is_dir():
        raise InputError(f"{html.parent}: no such folder; make it first")
    hack = hack_report(store, info, rounds=400) if frame.height <= _HACK_ROWS else None
    if hack is None:
        click.echo(f"note: left out what changed besides quality; see: {advised('hack', info.run_id)}", err=True)
    shown = safe(str(store.home))
    text = render.to_html(report, render.pick_examples(store, report, frame), hack=hack, home=shown)
    write_whole(html, text)
    click.echo(f"wrote {safe(str(html))}", err=True)


def _list(store: Store, *, as_json: bool) -> int:
    import json

    from ..outlays import unbooked

    runs = store.runs()
    for outlay in unbooked(store.home):
        click.echo(f"note: no run has booked this: {safe(str(outlay))}", err=True)
    if as_json:
        click.echo(json.dumps([_row(run) for run in runs]))
        return 0
    if not runs:
        click.echo(f"no runs in {store.home}; start one with: {advised('demo')}", err=True)
    for run in runs:
        row = _row(run)
        state = "sealed" if run.sealed else "unfinished"
        click.echo(
            f"{row['run_id']:10} {row['created_at'][:16].replace('T', ' ')}  {state:10} "
            f"{counted(row['pairs'], 'pair'):>12}  {safe(row['rubric'])}"
        )
        for line in wrap(safe(f"{row['judge']}{'  ' + row['group'] if row['group'] else ''}"), first="  ", rest="    "):
            click.echo(line)
    return 0


def _row(run: RunInfo) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "created_at": run.created_at,
        "sealed": run.sealed,
        "pairs": run.header["evalset"]["rows"],
        "rubric": run.rubric,
        "judge": run.judge,
        "group": (run.header.get("panel") or run.header.get("cascade") or {}).get("id"),
    }
