"""What ``judge run --batch`` and ``judge resume`` share: the surroundings of a batch run and its progress."""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..environment import environment

if TYPE_CHECKING:
    from ..batching import Batching, BatchProgress

__all__ = ["batching"]

_PLAIN_SECONDS = 60.0


def batching(home: Path) -> Batching:
    """Clock, ids, folder and reporter of a batch run in this home folder."""
    from ..batching import Batching

    return Batching(
        folder=home / "batches",
        now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        tags=lambda: f"judge-{secrets.token_hex(8)}",
        report=_progress(),
    )


def _progress() -> Callable[[BatchProgress], None]:
    """One line rewritten on a terminal, else a plain line whenever the counts change and once a minute."""
    live = sys.stderr.isatty() and not environment().plain
    state: dict[str, object] = {"at": -math.inf, "shown": None}

    def report(now: BatchProgress) -> None:
        counts = (now.batches, now.ended, now.done, now.total)
        clock = time.monotonic()
        since = clock - float(str(state["at"]))
        if state["at"] == math.inf or (not live and counts == state["shown"] and since < _PLAIN_SECONDS):
            return
        state.update(at=clock, shown=counts)
        seconds = round(now.seconds)
        line = (
            f"{now.batches} batches submitted, {now.ended} ended  {now.done:,}/{now.total:,} requests  "
            f"elapsed {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        )
        over = now.ended == now.batches
        try:
            if live:
                click.echo(f"\r\x1b[2K  {line}" + ("\n" if over else ""), nl=False, err=True)
            else:
                click.echo(f"  {line}", err=True)
        except OSError:
            state["at"] = math.inf  # nobody reads stderr any more: the run goes on, progress does not

    return report
