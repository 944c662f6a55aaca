"""``judge hack``: did the candidate learn to please the judge?"""

from __future__ import annotations

from pathlib import Path

import click

from ..advice import advised
from ..environment import environment
from ..writing import write_whole
from .making import make_hack
from .screen import bring_in, complain, home_option, safe

__all__ = ["command"]


@click.command("hack", epilog="Example: judge hack latest --html hack.html")
@click.argument("run_id", default="latest")
@click.option("--rounds", type=click.IntRange(100, 100_000), default=1000, show_default=True, help="Bootstrap rounds.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, with every number as a measure.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write one self-contained HTML file.")
@home_option
def command(
    run_id: str,
    *,
    rounds: int,
    seed: int,
    as_md: bool,
    as_json: bool,
    html: Path | None,
    home: str | None,
) -> int:
    """Compare the answers of RUN_ID (default: the latest run) for what changed besides quality.

    Length, hedging, refusals, citations, boilerplate, Markdown and more, before and after, with intervals; how much of
    the win each explains; and pairs to read. The report is kept in the home folder and entered in its register.
    """
    from ..errors import InputError
    from ..render import hacking as render
    from ..store import Store

    if html is not None and not html.parent.is_dir():
        raise InputError(f"{html.parent}: no such folder; make it first")
    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    info = store.run(run_id)
    if not store.ids(info.run_id):
        complain(f"run {info.run_id} has no comparison yet; finish it with: {advised('resume', info.run_id)}")
        return 4
    report, kept = make_hack(store, info, rounds=rounds, seed=seed)
    if html is not None:
        write_whole(html, render.hack_html(report))
        click.echo(f"wrote {safe(str(html))}", err=True)
    else:
        shape = render.hack_json if as_json else render.hack_markdown if as_md else render.hack_text
        click.echo(shape(report))
    click.echo(f"kept as {kept.entry.id} ({safe(str(kept.path))})", err=True)
    return 0
