"""``judge resume``: finish an interrupted run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ..environment import environment
from .run import drive, finish
from .screen import home_option, progress

__all__ = ["command"]


@click.command("resume", epilog="Example: judge resume r-3fa9c1")
@click.argument("run_id")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
@home_option
def command(run_id: str, *, as_json: bool, home: str | None) -> int:
    """Finish RUN_ID: what its journal holds is kept, only missing judgements are asked for.

    Refused where the eval set or the judge is no longer what the run began with.
    """
    from ..backends import open_backend
    from ..runs import resume_run
    from ..store import Store

    env = environment()
    env = replace(env, home=Path(home)) if home else env
    store = Store(env.home)
    drive(resume_run(run_id, store, lambda spec: open_backend(spec, env), report=progress()), run_id, home)
    return finish(store, run_id, as_json=as_json, home=home)
