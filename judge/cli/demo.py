"""``judge demo``: the whole main job offline, on the sample set."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from ..advice import advised
from ..environment import environment
from ..render.words import wrap
from .run import Options, run
from .screen import home_option

__all__ = ["command"]

_INTRODUCED = (
    "Judging the sample set: a longer, nicer-sounding candidate against a baseline, faults planted on both sides."
)
_EMBEDDED = "The embedded judge (SmolLM2-135M, on this CPU) shows the pipeline; it is too small to trust."


@click.command("demo")
@click.option("--judge", "-j", default="local", show_default=True, help="Another judge for the same set.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
@home_option
def command(*, judge: str, as_json: bool, home: str | None) -> int:
    """Judge the sample set (pairs with planted faults, better side known) with the embedded judge, offline.

    It ends with the result, with what the judge is worth on this set, with where the report can mislead, and with the
    gate's word: SHIP, HOLD or BLOCK.
    """
    for line in wrap(_INTRODUCED):
        click.echo(line, err=True)
    if judge == "local":
        for line in wrap(_EMBEDDED):
            click.echo(line, err=True)
    sample = resources.files("judge").joinpath("samples/demo.jsonl")
    with resources.as_file(sample) as path:
        code = run(Options(Path(path), rubric="helpfulness@1", judge=judge, as_json=as_json, home=home))
    if code == 0 and not as_json:
        _may_it_ship(home)
    for command, told in (
        (advised("gate", "latest"), "every rule, and what would change it"),
        (advised("view"), "the dashboard: decision, segments, every pair"),
        (advised("calibrate"), "how far the judge can be believed"),
        (advised("run", "your.jsonl"), 'your own rows with "prompt", "candidate" and "baseline"'),
    ):
        click.echo(f"  {command:20}  {told}", err=True)
    return code


def _may_it_ship(home: str | None) -> None:
    """The gate's word on the run that was just judged, in a few lines."""
    from ..dossier import Asked
    from ..policy import load_policy
    from ..register import Register
    from ..render.gate import to_brief
    from ..store import Store
    from .gate import conclude
    from .making import make_missing

    store = Store(Path(home) if home else environment().home)
    info = store.run()
    make_missing(store, info)
    # A first look has a decision for its dashboard; a register with decisions of one's own gets none about samples.
    first = not Register(store.home).entries("decision")
    decision, _ = conclude(store, info, load_policy("default"), Asked(), record=first)
    click.echo("\nmay it ship? (policy default; the sample's own labels, hard checks on all)")
    click.echo(to_brief(decision))
    click.echo("")
