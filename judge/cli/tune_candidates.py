"""``judge tune candidates``: list them, show one, serve one, roll back, merge for a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..advice import advised
from ..clock import stamp
from .run import surroundings
from .screen import home_option, safe
from .tune_train import import_tune

if TYPE_CHECKING:
    from tune.candidate import Candidates

__all__ = ["command"]


@click.group("candidates")
def command() -> None:
    """What was trained: list, show, serve, roll back, merge."""


def _shelf(home: str | None) -> Candidates:
    from tune.candidate import Candidates

    return Candidates(surroundings(home).home)


@command.command("list", epilog="Example: judge tune candidates list --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@home_option
def list_(*, as_json: bool, home: str | None) -> int:
    """List all candidates, and what each domain serves."""
    shelf = _shelf(home)
    found = shelf.all()
    serving = {one.domain: now.candidate for one in found if (now := shelf.serving(one.domain)) is not None}
    if as_json:
        click.echo(json.dumps([{**asdict(one), "serves": serving.get(one.domain) == one.id} for one in found]))
        return 0
    for one in found:
        parent = f" from {one.parent}" if one.parent else ""
        served = "  SERVING" if serving.get(one.domain) == one.id else ""
        click.echo(f"{one.id}  {safe(one.domain)}  {safe(one.base)}{parent}{served}")
    if not found:
        click.echo(f"no candidate yet; make one with: {advised('tune', 'train', 'PAIRS.jsonl')}", err=True)
    return 0


@command.command("show", epilog="Example: judge tune candidates show c-1a2b3c4d")
@click.argument("candidate")
@click.option("--json", "as_json", is_flag=True, help="The record as one JSON object.")
@home_option
def show_(candidate: str, *, as_json: bool, home: str | None) -> int:
    """Print the model card of CANDIDATE, written from its records."""
    shelf = _shelf(home)
    found = shelf.verified(shelf.get(candidate).id)
    click.echo(json.dumps(asdict(found)) if as_json else shelf.card(found).rstrip("\n"))
    return 0


@command.command("serve", epilog="Example: judge tune candidates serve c-1a2b3c4d --domain support")
@click.argument("candidate")
@click.option("--domain", default="default", show_default=True)
@click.option("--by", default="", metavar="NAME", help="Who decides; kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def serve_(candidate: str, *, domain: str, by: str, as_json: bool, home: str | None) -> int:
    """Let a domain serve CANDIDATE (or `base`) from now on; the one before stays at hand."""
    shelf = _shelf(home)
    name = candidate if candidate == "base" else shelf.get(candidate).id
    now = shelf.serve(domain, name, at=stamp(), by=by)
    text = f"{safe(domain)} serves {now.candidate or 'its base'}, before it {now.before or 'its base'}"
    click.echo(json.dumps(asdict(now)) if as_json else text)
    return 0


@command.command("roll-back", epilog="Example: judge tune candidates roll-back --domain support")
@click.option("--domain", default="default", show_default=True)
@click.option("--by", default="", metavar="NAME", help="Who decides; kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def roll_back_(*, domain: str, by: str, as_json: bool, home: str | None) -> int:
    """Let a domain serve again what it served before. Nothing is trained or lost by it."""
    now = _shelf(home).roll_back(domain, at=stamp(), by=by)
    text = f"{safe(domain)} serves {now.candidate or 'its base'} again"
    click.echo(json.dumps(asdict(now)) if as_json else text)
    return 0


@command.command("merge", epilog="Example: judge tune candidates merge c-1a2b3c4d -o served/")
@click.argument("candidate")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="A new folder.")
@home_option
def merge_(candidate: str, *, output: Path, home: str | None) -> int:
    """Write base and adapter of CANDIDATE as one model for a server; the adapter itself stays."""
    import_tune()
    from tune.models import open_base

    env = surroundings(home)
    shelf = _shelf(home)
    found = shelf.verified(shelf.get(candidate).id)
    shelf.merge(found.id, open_base(found.base_spec, env.cache), output)
    click.echo(f"{safe(str(output))}: {found.base} with {found.id}; judge it as hf:{safe(str(output))}", err=True)
    return 0
