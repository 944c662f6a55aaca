"""``judge segments``: which slice of a run got worse, in what way, what changed, and how to go back."""

from __future__ import annotations

from pathlib import Path

import click

from ..environment import environment
from .screen import bring_in, home_option

__all__ = ["command"]


@click.command("segments", epilog="Example: judge segments r-1a2b3c --against r-4d5e6f --by category,risk")
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--against", metavar="RUN", help="An earlier run of the same pairs: what got worse since?")
@click.option(
    "--by", default="", metavar="COLUMNS",
    help="Columns, with commas: category, tags, tools, context, a metadata field (default: what there is).",
)  # fmt: skip
@click.option("--minimum", type=click.IntRange(2), default=20, show_default=True, help="Prompts a slice needs.")
@click.option("--q", "q", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
              help="False discovery rate over all slices.")  # fmt: skip
@click.option("--md", "--markdown", "as_md", is_flag=True, help="Markdown.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    *,
    run_id: str,
    against: str | None,
    by: str,
    minimum: int,
    q: float,
    as_md: bool,
    as_json: bool,
    home: str | None,
) -> int:
    """Slice RUN, alone (where does the candidate lose?) or against an earlier run (what got worse since?).

    Exit code: 0, or 1 where a slice is shown worse.
    """
    from ..render import segments as render
    from ..segments import segment_report
    from ..store import Store

    if as_md and as_json:
        raise click.UsageError("--md and --json both want stdout; give one of them")
    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    report = segment_report(
        store,
        store.run(run_id),
        by=tuple(name.strip() for name in by.split(",") if name.strip()),
        against=None if against is None else store.run(against),
        minimum=minimum,
        q=q,
    )
    shape = render.to_json if as_json else render.to_markdown if as_md else render.to_text
    click.echo(shape(report))
    return 1 if report.of("worse") else 0
