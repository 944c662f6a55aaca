"""``judge tune train``: DPO on preference pairs, resumable, ending in a registered candidate."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from ..render.words import counted
from .run import surroundings
from .screen import Ticker, bring_in, home_option, minutes, safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tune.admission import Admission
    from tune.candidate import Candidate, Candidates
    from tune.models import Base
    from tune.preferences import Preference
    from tune.train import Data, Recipe, Trained, Workers

    from ..environment import Environment

__all__ = ["Options", "command", "trained_candidate"]

_KINDS = ("sigmoid", "hinge", "robust", "ipo", "sigmoid_norm", "simpo")


@click.command("train", epilog="Example: judge tune train pairs.jsonl --loss sigmoid --epochs 2")
@click.argument("pairs", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--base", default="local", show_default=True, help="local (SmolLM2-135M), a folder, OWNER/NAME.")
@click.option("--parent", default="", metavar="CANDIDATE", help="Go on from this candidate's adapter.")
@click.option(
    "--held-out", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.15, show_default=True,
    help="Share of the prompts that is never trained on.",
)  # fmt: skip
@click.option(
    "--validation", type=click.Path(dir_okay=False, path_type=Path), metavar="PAIRS",
    help="Held-out pairs from elsewhere, instead of a share; a major refresh of the data needs them.",
)  # fmt: skip
@click.option(
    "--against", multiple=True, metavar="FILE|RUN", help="A further gold or eval set that PAIRS must not repeat."
)
@click.option("--loss", "kind", type=click.Choice(_KINDS), default="sigmoid", show_default=True)
@click.option("--beta", type=float, default=0.1, show_default=True, help="How firmly the reference is held to.")
@click.option("--flip", type=float, default=0.0, show_default=True, help="Share of labels that are wrong.")
@click.option("--tail", type=float, default=1.0, show_default=True, help="LD-DPO: weight of tokens beyond the shorter.")
@click.option("--length-penalty", type=float, default=0.0, show_default=True, help="R-DPO: margin for each token more.")
@click.option("--gamma", type=float, default=0.0, show_default=True, help="SimPO: the margin aimed at.")
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Pairs a step.")
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@click.option(
    "--rank", type=click.IntRange(0), default=8, show_default=True, help="Of the LoRA adapter; 0: all weights."
)
@click.option("--alpha", type=click.IntRange(1), default=16, show_default=True, help="Scale of the LoRA adapter.")
@click.option("--targets", default="all-linear", show_default=True, help="Layers with an adapter, comma between them.")
@click.option(
    "--max-tokens", type=click.IntRange(8), default=1024, show_default=True, help="Prompt and answer together."
)
@click.option("--row-tokens", type=click.IntRange(0), default=0, help="Tokens computed at once (0: by device).")
@click.option("--every", type=click.IntRange(1), default=10, show_default=True, help="Steps between looks.")
@click.option("--patience", type=click.IntRange(1), default=3, show_default=True, help="Looks without a better one.")
@click.option("--samples", type=click.IntRange(0), default=4, show_default=True, help="Prompts answered at each look.")
@click.option("--sample-tokens", type=click.IntRange(1), default=32, show_default=True)
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more arithmetic.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Threads of a CPU; the same number gives the same bits.")
@click.option("--cpu", is_flag=True, help="On the CPU although there is a GPU.")
@click.option("--skip-bad", is_flag=True, help="Train on the usable pairs although others cannot be used.")
@click.option("--domain", default="default", show_default=True, help="What the candidate is for.")
@click.option("--rubric", default="", help="The rubric that the labels follow (default: what the pairs say).")
@click.option("--by", default="", metavar="NAME", help="Who trains; kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="The candidate and its held-out figures as one JSON object.")
@home_option
def command(*, as_json: bool, home: str | None, **options: Any) -> int:
    """Tune a base model on PAIRS (JSONL: prompt, chosen, rejected, p) with direct preference optimisation.

    PAIRS are what judge tune pairs built: their card and entry are read, and rows that repeat a gold, eval or frozen
    prompt refuse the training. The same command after Ctrl-C or a crash goes on from the last checkpoint, to the same
    bits. On several devices:
    accelerate launch -m tune train PAIRS ... . It ends with a candidate, which `judge tune evaluate` decides on.
    """
    found = trained_candidate(Options(**options), surroundings(home))
    if found is None:
        return 0  # a process that does not lead
    candidate, trained, folder = found
    if as_json:
        figures = {
            "candidate": candidate.id, "folder": str(folder), "steps": trained.steps, "best_step": trained.best_step,
            "heldout": dict(trained.best), "warnings": list(trained.warnings),
        }  # fmt: skip
        click.echo(json.dumps(figures))
    for text in trained.warnings:
        click.echo(f"warning: {safe(text)}", err=True)
    best = trained.best
    right = "none decided" if best["accuracy"] is None else f"{best['accuracy']:.1%}"
    click.echo(
        f"{candidate.id}: held-out pairs ordered right {right} (n = {best['n']}), loss {best['loss']:.4f}, "
        f"step {trained.best_step} of {trained.steps}",
        err=True,
    )
    click.echo(f"  card and curves: {safe(str(folder))}/card.md, curves.html", err=True)
    words = ("tune", "evaluate", candidate.id, "--against", "BASE", "--evalset", "EVALS.jsonl", "--judge", "JUDGE")
    click.echo(f"next: {advised(*words)}", err=True)
    return 0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given; also how ``judge tune loop`` says what to train."""

    pairs: Path
    base: str = "local"
    parent: str = ""
    held_out: float = 0.15
    validation: Path | None = None
    against: tuple[str, ...] = ()
    kind: str = "sigmoid"
    beta: float = 0.1
    flip: float = 0.0
    tail: float = 1.0
    length_penalty: float = 0.0
    gamma: float = 0.0
    epochs: int = 1
    batch: int = 8
    learning_rate: float = 1e-4
    rank: int = 8
    alpha: int = 16
    targets: str = "all-linear"
    max_tokens: int = 1024
    row_tokens: int = 0
    every: int = 10
    patience: int = 3
    samples: int = 4
    sample_tokens: int = 32
    gradient_checkpointing: bool = False
    seed: int = 0
    threads: int | None = None
    cpu: bool = False
    skip_bad: bool = False
    domain: str = "default"
    rubric: str = ""
    by: str = ""

    def recipe(self) -> Recipe:
        """How to train, checked."""
        from tune.losses import Loss
        from tune.train import Recipe

        return Recipe(loss=Loss(**self._given(Loss)), **self._given(Recipe))

    def _given(self, kind: type) -> dict[str, Any]:
        """The fields of another dataclass that were given here, by name: each is written down once, there."""
        asked = {field.name for field in fields(self)}
        return {field.name: getattr(self, field.name) for field in fields(kind) if field.name in asked}


def trained_candidate(options: Options, env: Environment) -> tuple[Candidate, Trained, Path] | None:
    """Train (or go on, or find it done) and register; ``None`` in a process that does not lead."""
    import_tune()
    import torch

    from tune.candidate import About, Candidates
    from tune.curves import curves_page
    from tune.models import open_base
    from tune.preferences import read_preferences
    from tune.train import Workers, read_log, train

    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = options.recipe()
    rows = read_preferences(options.pairs, skip_bad=options.skip_bad)
    shelf = Candidates(env.home)
    admitted = _admitted(rows, options, shelf)
    record = admitted.record
    workers = Workers.here(cpu=options.cpu)
    for text in admitted.warnings if workers.leads else ():
        click.echo(f"WARNING: {safe(text)}", err=True)
    dtype = "float32" if recipe.rank == 0 else "auto"
    base = open_base(options.base, env.cache, device=workers.device, dtype=dtype)
    parent = shelf.folder(shelf.verified(options.parent).id) / "adapter" if options.parent else None
    data = _data(rows, admitted.validation, base, options)
    folder = env.home / "tunings" / _name(recipe, data, base, options, record["validation"])
    _announce(folder, data, base, recipe, workers)
    if workers.leads:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    trained = train(recipe, data, base, folder, workers=workers, parent=parent, report=_progress())
    if not workers.leads:
        return None
    rubrics = record["rubrics"]
    rubric = options.rubric or (rubrics[0] if len(rubrics) == 1 else ", ".join(rubrics))
    about = About(options.domain, rubric, tuple(record["labellers"]), options.parent)
    at = stamp()
    candidate = shelf.add(folder, base, about, at=at, by=options.by)
    target = shelf.folder(candidate.id)
    page = curves_page(f"Training of {candidate.id}", list(read_log(folder)), trained.warnings)
    (target / "curves.html").write_text(page, encoding="utf-8")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True) if candidate.whole else None
    return candidate, trained, target


def import_tune() -> None:
    """Say what to install where tuning's packages are missing."""
    try:
        import accelerate  # noqa: F401 - asked for by name below
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        from ..errors import BackendUnavailable

        raise BackendUnavailable(
            f"tuning needs the package {error.name}; run: python -m pip install 'touchstone-judge[tune]'"
        ) from error


def _admitted(rows: tuple[Preference, ...], options: Options, shelf: Candidates) -> Admission:
    """What is on record of the pairs, and that they may be trained on."""
    from tune.admission import admit
    from tune.evaluation import seen_prompts

    from ..store import Store

    store = Store(shelf.home)
    if options.against:
        bring_in(store)
    seen = seen_prompts(shelf, shelf.lineage(options.parent)) if options.parent and options.validation else set()
    return admit(options.pairs, rows, store, against=options.against, validation=options.validation, seen=seen)


def _data(rows: tuple[Preference, ...], validation: tuple[Preference, ...], base: Base, options: Options) -> Data:
    """Pairs to train on and pairs held out: a share of the prompts, or all of ``validation``."""
    from tune.packing import encode
    from tune.preferences import digest_of
    from tune.splitting import split
    from tune.train import Data

    most = min(options.max_tokens, base.text.context)
    kept, problems = encode(rows, base.text, most=most, skip_bad=options.skip_bad)
    if problems:
        click.echo(
            f"  {counted(len(problems), 'pair')} left out (--skip-bad), the first: {safe(str(problems[0]))}", err=True
        )
    digest = digest_of(rows)
    if validation:
        held, _ = encode(validation, base.text, most=most, skip_bad=False)
        return Data(tuple(kept), tuple(held), digest)
    usable = {one.id for one in kept}
    _, out = split([row for row in rows if row.id in usable], options.held_out, seed=options.seed)
    names = {row.id for row in out}
    return Data(
        tuple(one for one in kept if one.id not in names), tuple(one for one in kept if one.id in names), digest
    )


def _name(recipe: Recipe, data: Data, base: Base, options: Options, validation: Mapping[str, Any] | None) -> str:
    held: Any = options.held_out if validation is None else validation["digest"]
    parts = [recipe.digest, data.digest, base.digest, options.parent, held, options.max_tokens]
    return f"t-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"


def _announce(folder: Path, data: Data, base: Base, recipe: Recipe, workers: Workers) -> None:
    if not workers.leads:
        return
    tokens = sum(pair.tokens for pair in data.train)
    what = "all weights" if recipe.rank == 0 else f"LoRA rank {recipe.rank}"
    click.echo(
        f"{folder.name}: {counted(len(data.train), 'pair')} to train on, {len(data.heldout)} held out, {tokens:,} "
        f"tokens an epoch; {safe(base.ref)}, {what}, {recipe.loss.kind}, {workers.count} x {workers.device}",
        err=True,
    )
    again = " (going on from a checkpoint)" if any((folder / "checkpoints").glob("step-*")) else ""
    click.echo(f"  folder {safe(str(folder))}{again}; first the reference, then the steps", err=True)


def _progress() -> Any:
    ticker = Ticker()

    def report(now: Any) -> None:
        ticker.show(
            now.step,
            now.steps,
            lambda: (
                f"step {now.step}/{now.steps}  loss {now.loss:.4f}  right {now.accuracy:.0%}  "
                f"eta {minutes(now.eta_seconds)}"
            ),
        )

    return report
