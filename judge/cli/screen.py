"""What all verbs share towards a person: safe text, and progress on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import click

from ..environment import environment
from ..render import safe

__all__ = ["home_option", "progress", "safe"]

home_option = click.option(
    "--home", type=click.Path(file_okay=False), help="Folder of runs and database (default: $JUDGE_HOME or .judge)."
)

_TTY_SECONDS = 0.1
_PLAIN_SECONDS = 30.0
_PLAIN_SHARE, _PLAIN_PAUSE = 0.05, 2.0


def progress() -> Callable[..., None]:
    """A reporter of ``runs.Progress``: one line rewritten on a terminal, else a plain line every 5% (at most one in 2
    seconds) or 30 seconds.
    """
    live = sys.stderr.isatty() and not environment().plain
    state = {"at": time.monotonic(), "share": 0.0}

    def report(now: object) -> None:
        from ..runs import Progress

        assert isinstance(now, Progress)
        done = now.settled == now.total
        clock = time.monotonic()
        share = now.settled / now.total if now.total else 1.0
        since = clock - state["at"]
        due = since >= (_TTY_SECONDS if live else _PLAIN_SECONDS)
        step = not live and share - state["share"] >= _PLAIN_SHARE and since >= _PLAIN_PAUSE
        if state["at"] == math.inf or not (done or due or step):
            return
        state.update(at=clock, share=share)
        rate = now.settled / now.seconds if now.seconds else 0.0
        eta = now.eta_seconds or 0.0
        cost = "cost unknown" if now.cost is None else f"${now.cost:.2f}"
        line = (
            f"judged {now.settled}/{now.total}  {rate:.1f}/s  eta {int(eta) // 60}:{int(eta) % 60:02}  "
            f"cached {now.cached}  invalid {now.invalid}  {cost}"
        )
        try:
            if live:
                click.echo(f"\r\x1b[2K  {line}" + ("\n" if done else ""), nl=False, err=True)
            else:
                click.echo(f"  {line}", err=True)
        except OSError:
            state["at"] = math.inf  # nobody reads stderr any more: judging goes on, progress does not

    return report
