"""``judge loop status``: where the loop stands."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ..advice import homed
from ..environment import environment
from ..render.words import counted, wrap
from .screen import bring_in, home_option, safe

__all__ = ["command"]

_MARK = {"done": "x", "next": ">", "stale": "!", "waiting": " ", "skipped": "-"}


@click.command("status", epilog="Example: judge loop status")
@click.option(
    "--labels", type=click.Path(file_okay=False, path_type=Path), default=Path("gold"), show_default=True,
    help="Folder of label files.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(*, labels: Path, as_json: bool, home: str | None) -> int:
    """Say which steps are done, which are stale, and what to run next; read from runs, register and label files.

    The steps are those of the newest candidate (trained here, or the one that was decided on last). Below them stands
    every decision, override and rollout of the register.
    """
    from ..rounds import loop_state
    from ..store import Store

    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    state = loop_state(store, labels)
    if as_json:
        following = state.next
        body = {
            "rounds": state.rounds,
            "steps": [asdict(step) for step in state.steps],
            "records": [asdict(record) for record in state.records],
        }
        click.echo(json.dumps({**body, "next": following.name if following else None}, ensure_ascii=False))
        return 0
    click.echo(f"{counted(state.rounds, 'decision')} so far" if state.rounds else "no decision yet")
    for step in state.steps:
        when = f"  {_when(step.at)}" if step.at else ""
        for line in wrap(f"{safe(step.says)}{when}", first=f"[{_MARK[step.state]}] {step.name:<10}  ", rest=" " * 16):
            click.echo(line)
    if state.records:
        click.echo("in the register, newest first")
    for record in state.records:
        head = f"    {_when(record.at)}  {record.kind:<8}  {safe(record.id):<17}  "
        for line in wrap(safe(record.says), first=head, rest=" " * len(head)):
            click.echo(line)
    following = state.next
    click.echo(
        f"next: {safe(homed(following.command))}" if following else "the round is complete; begin the next with traces"
    )
    return 0


def _when(at: str) -> str:
    return at[:16].replace("T", " ")
