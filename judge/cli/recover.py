"""``judge recover``: build the database anew from the journals."""

from __future__ import annotations

import json

import click

from ..advice import advised
from .run import surroundings
from .screen import home_option, safe

__all__ = ["command"]


@click.command("recover", epilog="Example: judge recover --home .judge")
@click.option(
    "--json", "as_json", is_flag=True, help="What was rebuilt and what could not be read, as one JSON object."
)
@home_option
def command(*, as_json: bool, home: str | None) -> int:
    """Build the database anew from the journals, which hold everything that was paid for.

    The old file is kept beside the new one as judge.duckdb.old. A journal that is damaged is named and left as it is;
    the others are brought in. Exit code 1 if one could not be read.
    """
    from ..store import Store

    built, bad = Store(surroundings(home).home).rebuild()
    if as_json:
        click.echo(json.dumps({"rebuilt": built, "unreadable": bad}))
    else:
        click.echo(f"rebuilt from {len(built)} journals" + (f": {', '.join(built)}" if built else ""))
        for problem in bad:
            click.echo(f"not read: {safe(problem)}")
    click.echo(f"check it with: {advised('doctor')}", err=True)
    return 1 if bad else 0
