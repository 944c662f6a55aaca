"""The command line: one file per verb, loaded only when that verb is called. Nobody imports this package.

Human text goes to stderr, data to stdout. Exit codes: 0 done, 1 blocked or a check failed, 2 your input, 3 could not
judge, 4 not enough evidence, 130 interrupted (with the command that resumes).
"""

from __future__ import annotations

import errno
import gc
import os
import sys

import click

from .. import __version__
from .verbs import Verbs

_COMMANDS = {
    "demo": "Judge the sample eval set offline, in under a minute.",
    "generate": "Let a model answer an eval set, to be judged then.",
    "compare": "Judge one pair of answers, in both orders.",
    "run": "Judge an eval set; journaled, resumable, stored.",
    "resume": "Finish an interrupted run.",
    "calibrate": "Measure a judge against human labels; compare two rubrics or judges.",
    "check": "Make hard checks on every answer, both sides, paired.",
    "cases": "Freeze prompts that went wrong; write the shipped ones.",
    "report": "Show a run: terminal, Markdown, JSON or HTML.",
    "ground": "Hold the answers against their documents: claims, evidence, contradictions.",
    "segments": "Which slice of a run got worse, in what way, and what changed.",
    "gate": "Decide whether a candidate may ship: SHIP, HOLD or BLOCK.",
    "rollout": "Bring a candidate to traffic step by step; take it back with one command.",
    "hack": "Did the candidate learn to please the judge? Before and after.",
    "probe": "What do cheap tricks buy from a judge? Needs no labels.",
    "rank": "Rate the systems of several runs on one scale.",
    "label": "Label pairs yourself: blind, by keyboard, resumable.",
    "view": "Open the dashboard in the browser.",
    "rubric": "List, show, compare, check, write and release rubrics.",
    "ingest": "Bring data of other tools in: preferences, pairs, traces, labels.",
    "export": "Write data or a run in another tool's format.",
    "tune": "Preference data and candidates: pairs, training, evaluation.",
    "loop": "From traces to the next round: sample, failures, should you tune.",
    "recover": "Build the database anew from the journals.",
    "doctor": "Check the installation, the journals and the database.",
}


@click.command(
    cls=Verbs,
    table=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: judge demo",
)
@click.version_option(__version__, "--version", message="judge %(version)s")
def root() -> None:
    """Know whether a new model is better: blind, position-swapped judgements with the doubt stated."""
    from ..advice import note_home

    note_home(None)


def main() -> None:
    """Run the command line and exit with its code."""
    code = _run(sys.argv[1:])
    # What a run froze or left in cycles is freed before Python ends, else DuckDB's binding complains of it on stderr.
    gc.unfreeze()
    gc.collect()
    sys.exit(code)


def _run(argv: list[str]) -> int:
    from ..errors import BackendError, InputError

    try:
        code = root.main(argv, prog_name="judge", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except InputError as error:
        return _fail(str(error), 2)
    except BackendError as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader went away (`judge report | head`): silence the flushes at exit, too.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        theirs = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE)
        return _fail(f"{where}{error.strerror or error}", 3 if theirs else 2)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    from ..advice import homed
    from .screen import complain

    complain(homed(message))
    return code
