"""What ``judge run --batch`` and ``judge resume`` share: the surroundings of a batch run and its progress."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..clock import stamp
from .screen import Ticker

if TYPE_CHECKING:
    from ..batching import Batching, BatchProgress

__all__ = ["batching"]


def batching(home: Path) -> Batching:
    """Clock, ids, folder and reporter of a batch run in this home folder."""
    from ..batching import Batching

    return Batching(
        folder=home / "batches",
        now=stamp,
        tags=lambda: f"judge-{secrets.token_hex(8)}",
        report=_progress(),
    )


def _progress() -> Callable[[BatchProgress], None]:
    """A reporter of how far the batches are; a change of their counts is told at once."""
    ticker = Ticker()
    shown: list[tuple[int, ...]] = []

    def report(now: BatchProgress) -> None:
        counts = (now.batches, now.ended, now.done, now.total)
        seconds = round(now.seconds)
        ticker.show(
            now.done,
            now.total,
            lambda: (
                f"{now.batches} batches submitted, {now.ended} ended  {now.done:,}/{now.total:,} requests  "
                f"elapsed {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
            ),
            last=now.ended == now.batches,
            news=shown[-1:] != [counts],
        )
        shown[:] = [counts]

    return report
