"""``judge loop should-tune``: six questions before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..advice import homed
from ..environment import environment
from ..render.words import number, plain, span, wrap
from .loop_sample import traces_of
from .screen import bring_in, home_option, safe

if TYPE_CHECKING:
    from tune.worth import Answer, Worth

__all__ = ["command"]

_FILE = click.Path(dir_okay=False, path_type=Path)
_UNDER = " " * 10
_FOLLOWS = {
    "TUNE": "tune: a prompt does not close it, and the rest holds",
    "PROMPT": "do not tune: a better prompt closes the gap",
    "NOT NOW": "do not tune now: what it needs is not there",
    "UNKNOWN": "not known yet: settle what is open first",
}


@click.command("should-tune", epilog="Example: judge loop should-tune --cases cases.jsonl --mix traces.jsonl")
@click.option(
    "--prompt-run", metavar="RUN", help="A prompt-only candidate against what runs now, judged like any other."
)
@click.option("--base-run", metavar="RUN", help="The base with help (examples, best of several) on failing prompts.")
@click.option("--cases", type=_FILE, help="Failures (judge loop failures).")
@click.option("--mix", type=_FILE, help="Traces that show the real mix.")
@click.option("--gold", "-g", multiple=True, type=_FILE, help="Labels, some of them by two people.")
@click.option("--calibration", "-c", type=_FILE, help="Of the judge of these runs.")
@click.option(
    "--gain", type=click.FloatRange(0, 0.5), default=0.05, show_default=True, help="Win rate above one half wanted."
)
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Share of use that is central."
)
@click.option(
    "--least-cases", type=click.IntRange(1), default=20, show_default=True, help="Distinct failures that are many."
)
@click.option("--agreement", type=click.FloatRange(0, 1), default=0.7, show_default=True, help="Of two people.")
@click.option(
    "--reach", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Failing prompts in reach of the base."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    *,
    prompt_run: str | None,
    base_run: str | None,
    cases: Path | None,
    mix: Path | None,
    gold: tuple[Path, ...],
    calibration: Path | None,
    gain: float,
    share: float,
    least_cases: int,
    agreement: float,
    reach: float,
    as_json: bool,
    home: str | None,
) -> int:
    """Answer from data: can a better prompt close it, is it central, repeated, stable, measurable, within reach?

    Yes or no where the whole interval says so, unknown otherwise, with what would settle it. Exit code: 0 tune, 1 do
    not, 4 not known.
    """
    from calibration.gold import GoldSet, combine
    from tune import worth

    from ..calibrations import read_calibration
    from ..store import Store

    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    bars = worth.Bars(gain, share, least_cases, agreement, reach)
    fitted = None if calibration is None else read_calibration(calibration)
    failed = [] if cases is None else list(traces_of(cases))
    labels = combine([GoldSet.read(path) for path in gold]) if gold else None
    found = worth.Worth(
        (
            worth.better_prompt(store, store.run(prompt_run) if prompt_run else None, fitted, bars),
            worth.central(failed, None if mix is None else list(traces_of(mix)), bars),
            worth.repeated(failed, bars),
            worth.stable(labels, bars),
            worth.measurable(fitted),
            worth.has_capability(
                store, store.run(base_run) if base_run else None, (str(row.get("id")) for row in failed), fitted, bars
            ),
        )
    )
    if as_json:
        click.echo(json.dumps({"word": found.word, "answers": plain(found.answers)}, ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)
    return found.exit_code


def _lines(found: Worth) -> Iterator[str]:
    yield f"{found.word}  {_FOLLOWS[found.word]}"
    for answer in found.answers:
        yield f"  {answer.says:<8}{answer.question}"
        yield from wrap(safe(f"{answer.evidence}{_figure(answer)}"), first=_UNDER, rest=_UNDER)
        if answer.settle:
            yield from wrap(safe(homed(f"to settle it: {answer.settle}")), first=_UNDER, rest=_UNDER + "  ")


def _figure(answer: Answer) -> str:
    estimate = answer.estimate
    return "" if estimate is None else f": {number(estimate.value)} {span(estimate)}, n {estimate.n}"
