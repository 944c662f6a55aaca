"""``judge tune generate``: answers of a base or a candidate, many at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .run import surroundings
from .screen import Ticker, home_option, safe
from .tune_train import import_tune

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command", "reporter"]


@click.command("generate", epilog="Example: judge tune generate c-1a2b3c4d evals.jsonl -o candidate.jsonl")
@click.argument("model")
@click.argument("evalset", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Answers (.jsonl)."
)
@click.option("--system", metavar="TEXT", help="A system text before every prompt.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Of one answer.")
@click.option("--temperature", type=click.FloatRange(0, 5), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Prompts computed at once.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a CPU.")
@click.option("--json", "as_json", is_flag=True, help="A summary as one JSON object.")
@home_option
def command(model: str, evalset: Path, output: Path, *, as_json: bool, home: str | None, **options: Any) -> int:
    """Let MODEL (a candidate's id, local, a folder, OWNER/NAME) answer every prompt of EVALSET.

    The answers are a file for `judge run --candidate` or `--baseline`. The same command goes on where it stopped.
    """
    import_tune()
    import torch

    from tune.candidate import Candidates
    from tune.generate import Decoding, write_answer_file
    from tune.speakers import device_of, open_speaker

    from ..prompts import Asking, open_prompts

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    env = surroundings(home)
    prompts = open_prompts(evalset, system=options["system"] is not None)
    speaker = open_speaker(model, Candidates(env.home), env.cache, device=device_of(options["device"]))
    how = Decoding(options["max_tokens"], options["temperature"], options["batch"], options["seed"])
    asking = Asking(options["system"], seed=how.seed)
    found = write_answer_file(speaker, prompts, output, how, asking=asking, report=reporter("answered"))
    if as_json:
        click.echo(json.dumps({"output": str(output), "answered": found.answers, "tokens": found.tokens,
                               "finish": dict(found.finish), "empty": found.empty}))  # fmt: skip
    ends = ", ".join(f"{count} {name}" for name, count in sorted(found.finish.items()))
    click.echo(f"{safe(str(output))}: {found.answers} answers ({ends}), {found.tokens:,} tokens", err=True)
    return 0


def reporter(word: str) -> Callable[[int, int, int], None]:
    """A reporter of how many answers are there."""
    ticker = Ticker()
    return lambda done, total, tokens: ticker.show(done, total, lambda: f"{word} {done}/{total}  {tokens:,} tokens")
