"""``judge compare``: judge one pair."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .screen import complain

__all__ = ["command"]


@click.command("compare", epilog='Example: judge compare -p "2 + 2?" -c "4" -b "5"')
@click.option("--prompt", "-p", required=True, help="The request; @FILE reads a file, - reads stdin.")
@click.option("--candidate", "-c", required=True, help="The candidate's answer, or @FILE, or -.")
@click.option("--baseline", "-b", required=True, help="The baseline's answer, or @FILE, or -.")
@click.option("--context", multiple=True, help="A source the answers may rely on, or @FILE; may be repeated.")
@click.option("--reference", help="The known answer, or @FILE.")
@click.option(
    "--rubric", "-r", default="helpfulness", show_default=True, help="NAME@VERSION, NAME for the newest, or a path."
)
@click.option("--judge", "-j", default="local", show_default=True, help="local, hf:MODEL, openai:MODEL, scripted.")
@click.option(
    "--calibration",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A calibration that `judge calibrate` saved; adds the confidence on the human scale.",
)
@click.option("--json", "as_json", is_flag=True, help="The comparison as one JSON object on stdout.")
def command(
    prompt: str,
    *,
    candidate: str,
    baseline: str,
    context: tuple[str, ...],
    reference: str | None,
    rubric: str,
    judge: str,
    calibration: Path | None,
    as_json: bool,
) -> int:
    """Judge one pair of answers to one prompt, blind and in both orders; nothing is stored."""
    from .. import render
    from ..api import compare

    if [prompt, candidate, baseline].count("-") > 1:
        raise click.UsageError("only one of --prompt, --candidate and --baseline can be read from stdin")
    result = compare(
        _read(prompt),
        candidate=_read(candidate),
        baseline=_read(baseline),
        rubric=rubric,
        judge=judge,
        context=tuple(_read(text) for text in context),
        reference=_read(reference) if reference is not None else None,
        calibration=calibration,
    )
    click.echo(render.comparison_json(result) if as_json else render.comparison_text(result))
    if result.invalid is not None:
        complain(f"could not judge: {result.invalid.value}")
        return 3
    return 0


def _read(value: str) -> str:
    from ..errors import InputError

    if value == "-":
        data, name = sys.stdin.buffer.read(), "stdin"
    elif value.startswith("@"):
        name = value[1:]
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}; to pass text that begins with @, pipe it with -") from None
    else:
        return value
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 at byte {error.start}; convert it first") from None
