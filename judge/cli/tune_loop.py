"""``judge tune loop``: the whole arc on the sample project, from prompts to a decision, resumable at each step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..render.words import counted
from .run import surroundings
from .screen import home_option, safe
from .tune_evaluate import Options as EvaluateOptions
from .tune_evaluate import evaluate
from .tune_generate import reporter
from .tune_train import Options as TrainOptions
from .tune_train import import_tune, trained_candidate

if TYPE_CHECKING:
    from tune.evaluation import State
    from tune.sample import Order

    from ..environment import Environment

__all__ = ["command"]


@click.command("loop", epilog="Example: judge tune loop --home /tmp/tuned   then: judge tune loop --labels length")
@click.option(
    "--labels", type=click.Choice(["rule", "length"]), default="rule", show_default=True,
    help="Who labels: a rule, or a judge that likes length (to see it caught).",
)  # fmt: skip
@click.option("--base", default="local", show_default=True, help="local (SmolLM2-135M), a folder, OWNER/NAME.")
@click.option("--judge", "-j", default="local", show_default=True, help="Who compares the answers at the end.")
@click.option("--prompts", type=click.IntRange(4, 1000), default=48, show_default=True, help="Orders to train on.")
@click.option("--held-out", type=click.IntRange(4, 1000), default=40, show_default=True, help="Orders to evaluate on.")
@click.option("--epochs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--learning-rate", type=float, default=5e-4, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of a CPU.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object on stdout.")
@home_option
def command(*, as_json: bool, home: str | None, **options: Any) -> int:
    """Tune a base on the sample task (orders to JSON), evaluate the candidate and decide on it, offline.

    Answers of the base, pairs from them, training, both sides on held-out orders, the rule's verdict, blind judging,
    the decision: each step is kept in the home folder, and the same command goes on with the first that is missing.
    Exit code: that of the decision (0 SHIP, 1 BLOCK, 4 HOLD).
    """
    import_tune()
    import torch

    from tune.evaluation import State
    from tune.sample import orders

    torch.set_num_threads(options["threads"])
    env = surroundings(home)
    named = {
        name: options[name] for name in ("labels", "base", "prompts", "held_out", "epochs", "learning_rate", "seed")
    }
    folder = env.home / "loops" / "-".join(str(value).replace("/", "_").strip("._") for value in named.values())
    state = State.of(folder / "state.json")
    trained = orders(options["prompts"], held_out=False, seed=options["seed"])
    asked = orders(options["held_out"], held_out=True, seed=options["seed"])
    _files(folder, trained, asked)
    pairs = _pairs(folder, trained, options, env, state)
    candidate = _train(pairs, options, env, state)
    ahead = EvaluateOptions(
        candidate, folder / "evals.jsonl", options["base"], "instruction-following", options["judge"], max_tokens=64,
        seed=options["seed"], threads=options["threads"],
    )  # fmt: skip
    code = evaluate(ahead, env, as_json=False) if not as_json else _quietly(ahead, env)
    _show(folder, asked, candidate, env, as_json=as_json, code=code)
    return code


def _files(folder: Path, trained: list[Order], asked: list[Order]) -> None:
    """The prompts as eval sets; the right answer stands in ``reference``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in (("train.jsonl", trained), ("evals.jsonl", asked)):
        rows = [{"id": one.id, "prompt": one.prompt, "reference": one.answer, "category": "orders"} for one in found]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")


def _pairs(folder: Path, trained: list[Order], options: dict[str, Any], env: Environment, state: State) -> Path:
    """Step 1 and 2: the base answers the orders to train on, and pairs are made of that."""
    path = folder / "pairs.jsonl"
    if "pairs" in state.steps:
        return path
    from tune.candidate import Candidates
    from tune.generate import Decoding, write_answer_file
    from tune.preferences import write_preferences
    from tune.sample import rows_of
    from tune.speakers import open_speaker

    from ..endings import was_cut
    from ..prompts import open_prompts

    own: dict[str, str] = {}
    cut: list[str] = []
    if options["labels"] == "rule":
        speaker = open_speaker(options["base"], Candidates(env.home), env.cache)
        output = folder / "own.jsonl"
        how = Decoding(48, seed=options["seed"])
        write_answer_file(speaker, open_prompts(folder / "train.jsonl"), output, how, report=reporter("own answers"))
        own = _texts(output)
        cut = [row["id"] for row in _rows(output) if was_cut(row["finish"])]
    count = write_preferences(path, rows_of(trained, own, options["labels"], cut=cut))
    state.done("pairs", count)
    click.echo(f"{counted(count, 'pair')}: {safe(str(path))}", err=True)
    return path


def _train(pairs: Path, options: dict[str, Any], env: Environment, state: State) -> str:
    """Step 3: training, or its end where it was interrupted."""
    if "candidate" not in state.steps:
        asked = TrainOptions(
            pairs, base=options["base"], epochs=options["epochs"], learning_rate=options["learning_rate"], every=6,
            samples=2, seed=options["seed"], domain="orders", rubric="instruction-following", cpu=True,
            threads=options["threads"],
        )  # fmt: skip
        found = trained_candidate(asked, env)
        assert found is not None, "one process leads"
        state.done("candidate", found[0].id)
    return str(state.steps["candidate"])


def _quietly(ahead: EvaluateOptions, env: Environment) -> int:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        return evaluate(ahead, env, as_json=True)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _texts(path: Path) -> dict[str, str]:
    return {row["id"]: row["text"] for row in _rows(path)}


def _show(folder: Path, asked: list[Order], candidate: str, env: Environment, *, as_json: bool, code: int) -> None:
    """What the rule says, beside what the judge and the gate say."""
    from tune.sample import figures

    from ..register import Register
    from ..render.words import number

    entry = Register(env.home).entries("evaluation", candidate)[-1]
    answers = next(
        path.parent for path in (env.home / "evaluations").glob("*/state.json")
        if json.loads(path.read_text(encoding="utf-8")).get("decided", {}).get("entry") == entry.id
    )  # fmt: skip
    found = figures(asked, _texts(answers / "candidate.jsonl"), _texts(answers / "baseline.jsonl"))

    def span(value: Any, unit: Any = "share") -> str:
        return f"{number(value.value, unit)} [{number(value.low, unit)}, {number(value.high, unit)}]"

    if as_json:
        shown = {
            "right_candidate": found.candidate, "right_base": found.base, "gain": found.gain, "longer": found.longer
        }  # fmt: skip
        rows = {name: {"value": one.value, "low": one.low, "high": one.high, "n": one.n} for name, one in shown.items()}
        head = {"candidate": candidate, "word": entry.body["word"], "entry": entry.id, "exit": code}
        click.echo(json.dumps({**head, **rows}))
        return
    click.echo(f"\nby rule, on {len(asked)} held-out orders (95% intervals; the difference is paired):")
    click.echo(f"  right answers   candidate {span(found.candidate)}   base {span(found.base)}")
    click.echo(f"  difference      {span(found.gain, 'points')}")
    click.echo(f"  answer length   {span(found.longer, 'plain')} times the base's")
