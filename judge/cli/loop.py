"""``judge loop``: from traces to the next round. Each verb is a file ``loop_<verb>.py``."""

from __future__ import annotations

import click

from .verbs import Verbs

__all__ = ["command"]

_TABLE = {
    "status": "Where the loop stands, and the next command.",
    "sample": "Draw traces with known chances, redacted, for the label queue.",
    "failures": "Turn failures into the next round's cases, with their origin.",
    "should-tune": "Six questions before you tune, answered from data.",
}


@click.command("loop", cls=Verbs, table=_TABLE, prefix="loop_")
def command() -> None:
    """The product loop: traces, labels, pairs, candidate, evaluation, gate, rollout, failures, and round again."""
