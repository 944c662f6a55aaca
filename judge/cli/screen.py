"""What all verbs share towards a person: safe text, and progress on stderr."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ..advice import note_home, unbroken
from ..environment import environment
from ..render import safe
from ..render.words import columns

if TYPE_CHECKING:
    from ..runs import Progress
    from ..store import Findings, Store

__all__ = ["Ticker", "bring_in", "complain", "dollars", "home_option", "minutes", "progress", "safe"]


def _noted(_context: click.Context, _option: click.Parameter, home: str | None) -> str | None:
    """Keep the home that the user gave for the commands that are advised."""
    note_home(home)
    return home


home_option = click.option(
    "--home", type=click.Path(file_okay=False), callback=_noted,
    help="Folder of runs and database (default: $JUDGE_HOME or .judge).",
)  # fmt: skip

_TTY_SECONDS = 0.1
_PLAIN_SECONDS = 30.0
_PLAIN_SHARE, _PLAIN_PAUSE = 0.05, 2.0


class Ticker:
    """One line of progress on stderr: rewritten on a terminal, else a plain line every 5% (at most one in 2 seconds)
    or 30 seconds.

    Where nobody reads stderr any more the work goes on and the progress does not.
    """

    def __init__(self) -> None:
        self._live = sys.stderr.isatty() and not environment().plain
        self._at, self._share = time.monotonic(), 0.0

    def show(
        self, done: int, total: int, line: Callable[[], str], *, last: bool | None = None, news: bool = False
    ) -> None:
        """Show ``line()`` if it is due, is the last (by default: all is done) or holds ``news``."""
        over = done >= total if last is None else last
        clock, share = time.monotonic(), done / total if total else 1.0
        since = clock - self._at
        due = since >= (_TTY_SECONDS if self._live else _PLAIN_SECONDS)
        step = not self._live and share - self._share >= _PLAIN_SHARE and since >= _PLAIN_PAUSE
        if self._at == math.inf or not (over or due or step or news):
            return
        self._at, self._share = clock, share
        try:
            if self._live:
                click.echo(f"\r\x1b[2K  {line()}" + ("\n" if over else ""), nl=False, err=True)
            else:
                click.echo(f"  {line()}", err=True)
        except OSError:
            self._at = math.inf


def bring_in(store: Store, *others: Findings) -> None:
    """Bring in what the database does not hold; what cannot be read is noted, and work of seconds shows progress."""
    ticker, began = Ticker(), time.monotonic()

    def report(done: int, total: int) -> None:
        if time.monotonic() - began >= _PLAIN_PAUSE:
            ticker.show(done, total, lambda: f"brought in {done}/{total} runs")

    for problem in (*store.catch_up(report), *(problem for other in others for problem in other.catch_up())):
        click.echo(f"note: {safe(problem)}", err=True)


def complain(message: str) -> None:
    """Say on stderr what is wrong. On a terminal lines are broken at its width, but in no path and no command, so that
    these can be copied; elsewhere a message is one line, to be searched for.
    """
    said = safe(f"error: {message}")
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        first, *rest = safe(message).splitlines() or [""]
        lines = [("error: ", first), *((text[: len(text) - len(text.lstrip())], text) for text in rest)]
        said = "\n".join(line for start, text in lines for line in _folded(start, text, width))
    click.echo(said, err=True)


def _folded(start: str, text: str, width: int) -> Iterator[str]:
    line, empty = start, True
    for word in unbroken(text):
        if not empty and columns(line) + 1 + columns(word) > width:
            yield line
            line, empty = "  ", True
        line, empty = f"{line}{word}" if empty else f"{line} {word}", False
    yield line


def minutes(seconds: float) -> str:
    """Seconds as minutes:seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def dollars(cost: float | None) -> str:
    """A cost in US dollars, or that it is unknown."""
    return "cost unknown" if cost is None else f"${cost:.2f}"


def progress() -> Callable[[Progress], None]:
    """A reporter of how far a run is."""
    ticker = Ticker()

    def report(now: Progress) -> None:
        rate = now.settled / now.seconds if now.seconds else 0.0
        ticker.show(
            now.settled,
            now.total,
            lambda: (
                f"judged {now.settled}/{now.total}  {rate:.1f}/s  eta {minutes(now.eta_seconds or 0.0)}  "
                f"cached {now.cached}  invalid {now.invalid}  {dollars(now.cost)}"
            ),
        )

    return report
