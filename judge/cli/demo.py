"""``judge demo``: the whole main job offline, on the sample set."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import click

from .run import Options, run
from .screen import home_option

__all__ = ["command"]


@click.command("demo")
@click.option("--judge", "-j", default="local", show_default=True, help="Another judge for the same set.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
@home_option
def command(*, judge: str, as_json: bool, home: str | None) -> int:
    """Judge the sample set (pairs with planted faults, better side known) with the embedded judge, offline.

    It ends with the result, with what the judge is worth on this set, and with where the report can mislead.
    """
    click.echo(
        "Judging the sample set: a longer, nicer-sounding candidate against a baseline, faults planted on both sides.",
        err=True,
    )
    if judge == "local":
        click.echo(
            "The embedded judge (SmolLM2-135M, on this CPU) shows the pipeline; it is too small to trust.", err=True
        )
    sample = resources.files("judge").joinpath("samples/demo.jsonl")
    with resources.as_file(sample) as path:
        code = run(Options(Path(path), rubric="helpfulness@1", judge=judge, as_json=as_json, home=home))
    click.echo(
        'then: judge run your.jsonl --rubric helpfulness@1    (rows with "prompt", "candidate" and "baseline")',
        err=True,
    )
    click.echo("      judge rubric list                               (what good means, versioned)", err=True)
    return code
