"""``judge export``: rows or a run of ours as another tool's file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ..environment import environment
from .ingest import counter, mapping_of, say_moved
from .screen import bring_in, home_option

__all__ = ["command"]


@click.command("export", epilog="Example: judge export pairs.jsonl --to trl -o prefs.jsonl")
@click.argument("source", metavar="FILE|RUN")
@click.option("--to", "format_name", required=True, metavar="FORMAT", help="What to write (judge ingest --formats).")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="File or folder to write.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=PATH", help="Name a place, as for judge ingest.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the shuffled sides.")
@click.option("--skip-bad", is_flag=True, help="Write the usable rows although others cannot be written.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    source: str,
    *,
    format_name: str,
    output: Path,
    maps: tuple[str, ...],
    seed: int,
    skip_bad: bool,
    as_json: bool,
    home: str | None,
) -> int:
    """Write FILE (JSONL of ours) or a RUN with its verdicts as a file of another tool.

    A run becomes pairs with `judged` (alpacaeval-annotations, arena-hard, mt-bench) or one evaluation a pair
    (otel-evaluations, scores).
    """
    from ..exchange import Options, export, find_format

    rows: Path | Iterable[dict[str, Any]] = Path(source)
    if not Path(source).exists():
        from ..exchange.moving import run_rows
        from ..store import Store

        entry = find_format(format_name, to_write=True)
        store = Store(Path(home) if home else environment().home)
        bring_in(store)
        kind = "evaluation" if entry.written_from == "evaluation" else "pair"
        rows = run_rows(store, store.run(source), kind)
    options = Options(mapping=mapping_of(maps), seed=seed)
    moved = export(rows, format_name, output, options=options, skip_bad=skip_bad, report=counter("written"))
    say_moved(moved, as_json=as_json)
    return 0
