"""``judge resume``: finish an interrupted run."""

from __future__ import annotations

from typing import Any

import click

from .engines import engine_options, opener
from .run import drive, finish, surroundings
from .screen import home_option, progress

__all__ = ["command"]


@click.command("resume", epilog="Example: judge resume r-3fa9c1")
@click.argument("run_id")
@click.option(
    "--max-cost", type=click.FloatRange(0), metavar="USD", help="A new limit for the whole run, what it cost included."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object on stdout.")
@engine_options
@home_option
def command(run_id: str, *, max_cost: float | None, as_json: bool, home: str | None, **elsewhere: Any) -> int:
    """Finish RUN_ID, a run, panel or cascade: what is journaled is kept, only missing judgements are asked for.

    Refused where the eval set or the judge is no longer what the run began with. An ask during which the process died
    three times is given up and counted as invalid.
    """
    if run_id.startswith(("p-", "c-")):
        from .panel import resume

        open_judge = opener(surroundings(home), **elsewhere)
        return resume(run_id, open_judge, max_cost=max_cost, as_json=as_json, home=home)
    from ..runs import resume_run
    from ..store import Store
    from .batching import batching

    env = surroundings(home)
    store = Store(env.home)
    work = resume_run(
        run_id,
        store,
        opener(env, **elsewhere),
        report=progress(),
        max_cost=max_cost,
        batching=batching(store.home),
    )
    drive(work, run_id, home)
    given_up = store.run(run_id).given_up
    if given_up:
        click.echo(f"note: {given_up} asks were given up: the process died each time they were asked", err=True)
    return finish(store, run_id, as_json=as_json)
