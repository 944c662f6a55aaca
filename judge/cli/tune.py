"""``judge tune``: from preference data to a candidate that the judge evaluates. Each verb is a file ``tune_<verb>.py``.

The package ``tune`` is imported inside the commands only, torch by the verbs that need it.
"""

from __future__ import annotations

import click

from .verbs import Verbs

__all__ = ["command"]

_TABLE = {
    "pairs": "Build a preference data set, with its quality report.",
    "train": "Tune a base on preference pairs (DPO), resumable; ends in a candidate.",
    "generate": "Let a base or a candidate answer an eval set, in batches.",
    "candidates": "List, show, serve, roll back and merge candidates.",
    "evaluate": "Answers of both sides, blind judging, checks and one decision.",
    "loop": "The whole arc on the sample project, resumable at each step.",
}


@click.command("tune", cls=Verbs, table=_TABLE, prefix="tune_")
def command() -> None:
    """Preference data and candidates: what to train on, training, and the evaluation that decides."""
