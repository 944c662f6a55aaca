"""``judge rank``: several runs as one table of systems."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ..environment import environment
from .screen import bring_in, complain, home_option

__all__ = ["command"]


@click.command("rank", epilog="Example: judge rank r-1a2b3c r-4d5e6f --md")
@click.argument("run_ids", metavar="RUN [RUN ...]", nargs=-1, required=True)
@click.option("--baseline", metavar="NAME", help="The system at 1000 (default: the first run's baseline).")
@click.option(
    "--ties", type=click.Choice(["davidson", "rao-kupper"]), default="davidson", show_default=True,
    help="How ties enter the Bradley-Terry model.",
)  # fmt: skip
@click.option("--mixed", is_flag=True, help="Rank runs under different rubrics or judges all the same.")
@click.option(
    "--gold", "-g", type=click.Path(dir_okay=False, path_type=Path),
    help="Human labels of these pairs: rate the same systems by people, too.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the bootstrap.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@home_option
def command(
    run_ids: tuple[str, ...],
    *,
    baseline: str | None,
    ties: Literal["davidson", "rao-kupper"],
    mixed: bool,
    gold: Path | None,
    seed: int,
    as_md: bool,
    as_json: bool,
    home: str | None,
) -> int:  # fmt: skip
    """Rate the systems of several runs on one scale: Bradley-Terry with ties.

    Systems are known by the model of their answers: runs that share one are linked. All must be judged under one rubric
    by one judge.
    """
    from calibration.gold import GoldSet

    from ..ranking import ranking
    from ..render import rank as render
    from ..store import Store

    labels = None if gold is None else GoldSet.read(gold)
    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    runs = [store.run(run_id) for run_id in run_ids]
    found = ranking(
        store,
        runs,
        ties="davidson" if ties == "davidson" else "rao_kupper",
        baseline=baseline,
        mixed=mixed,
        gold=labels,
        seed=seed,
    )
    if found is None:
        complain("fewer than two prompts have a verdict between two systems; nothing can be rated")
        return 4
    shape = render.rank_json if as_json else render.rank_markdown if as_md else render.rank_text
    click.echo(shape(found))
    return 0
