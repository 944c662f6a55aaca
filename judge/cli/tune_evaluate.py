"""``judge tune evaluate``: both sides answer, a judge that did not label compares them blind, and the gate decides."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..clock import stamp
from .engines import opener
from .run import Options as RunOptions
from .run import announce, drive, plan_of, surroundings
from .screen import home_option, progress, safe
from .tune_generate import reporter
from .tune_train import import_tune

if TYPE_CHECKING:
    from tune.evaluation import Evaluation, State

    from ..environment import Environment

__all__ = ["Options", "command", "evaluate"]

_EVIDENCE = {
    "check": "regression suites",
    "hack": "what changed besides quality",
    "ground": "grounding in the sources",
    "gate": "the decision",
}
"""The verbs that look at the judged run, in order; what a version does not have counts as missing evidence."""
_WORDS = {0: "SHIP", 1: "BLOCK", 3: "HOLD", 4: "HOLD"}
_CODES = {"SHIP": 0, "BLOCK": 1, "HOLD": 4}


@click.command(
    "evaluate", epilog="Example: judge tune evaluate c-1a2b3c4d --against local --evalset e.jsonl --judge openai:M"
)
@click.argument("candidate")
@click.option("--against", default="", help="A base or another candidate (default: the candidate's base).")
@click.option(
    "--evalset", "-e", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Held-out prompts."
)
@click.option("--rubric", "-r", default="", help="The rubric (default: the one that the candidate's labels followed).")
@click.option("--judge", "-j", default="local", show_default=True, help="A judge that did not label the training data.")
@click.option("--allow-labeller", is_flag=True, help="Use a judge that labelled the data; then it can never say SHIP.")
@click.option("--gold", "-g", type=click.Path(dir_okay=False, path_type=Path), help="Human labels, for the gate.")
@click.option("--policy", default="default", show_default=True, help="The gate's policy.")
@click.option("--suite", default="default", show_default=True, help="The suite of hard checks.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Of one answer.")
@click.option("--temperature", type=click.FloatRange(0, 5), default=0.0, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Prompts computed at once.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--threads", type=click.IntRange(1), help="Threads of a CPU.")
@click.option("--by", default="", metavar="NAME", help="Who asks; kept in the record.")
@click.option("--json", "as_json", is_flag=True, help="The evaluation as one JSON object on stdout.")
@home_option
def command(*, as_json: bool, home: str | None, **options: Any) -> int:
    """Evaluate CANDIDATE on held-out prompts: generate, judge blind in both orders, check, decide, record.

    Exit code: 0 SHIP, 1 BLOCK, 4 HOLD. Evidence that is missing holds a candidate; it never lets one through. The same
    command after an interruption goes on where it stopped.
    """
    return evaluate(Options(**options), surroundings(home), as_json=as_json)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given; also how ``judge tune loop`` says what to evaluate."""

    candidate: str
    evalset: Path
    against: str = ""
    rubric: str = ""
    judge: str = "local"
    allow_labeller: bool = False
    gold: Path | None = None
    policy: str = "default"
    suite: str = "default"
    max_tokens: int = 256
    temperature: float = 0.0
    batch: int = 16
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    by: str = ""


def evaluate(options: Options, env: Environment, *, as_json: bool) -> int:
    """All steps that are not done yet, and the exit code of the decision."""
    import_tune()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    plan, marks = _plan(options, env)
    from tune.evaluation import State

    state = State.of(env.home / "evaluations" / plan.name / "state.json")
    click.echo(f"{plan.name}: {plan.candidate} against {safe(plan.against)}, judge {safe(plan.judge)}", err=True)
    for text in marks:
        click.echo(f"WARNING: {safe(text)}", err=True)
    if "decided" not in state.steps:
        for side, model in (("baseline", plan.against), ("candidate", plan.candidate)):
            _answers(side, model, options, env, state)
        _judged(plan, options, env, state)
        _evidence(plan, options, env, state)
        _decide(plan, marks, options, env, state)
    found = state.steps["decided"]
    if as_json:
        click.echo(json.dumps({**found, "evaluation": plan.name, "steps": dict(state.steps)}))
    else:
        click.echo((state.path.parent / "summary.txt").read_text(encoding="utf-8").rstrip("\n"))
    return _CODES[found["word"]]


def _plan(options: Options, env: Environment) -> tuple[Evaluation, list[str]]:
    """What is evaluated, checked: the judge is no labeller, no prompt was trained on; and what must be said aloud."""
    from rubrics import load
    from tune.candidate import Candidates
    from tune.evaluation import Evaluation, labelled_by, seen_prompts, within_training

    from ..errors import InputError
    from ..prompts import open_prompts

    shelf = Candidates(env.home)
    found = shelf.verified(shelf.get(options.candidate).id)
    against = options.against or found.base_spec
    if against.startswith("c-"):
        against = shelf.verified(shelf.get(against).id).id
    line = shelf.lineage(found.id)
    prompts = open_prompts(options.evalset)
    known = within_training(prompts, seen_prompts(shelf, line))
    if known:
        raise InputError(
            f"{options.evalset}: {len(known)} of its {prompts.rows} prompts were trained or stopped on, the first: "
            f"{', '.join(known[:5])}; evaluate on prompts that the candidate has never seen"
        )
    backend = opener(env)(options.judge)
    marks = []
    labeller = labelled_by(line, options.judge, str(backend.id))
    if labeller:
        text = (
            f"the judge {options.judge} labelled the training data of {labeller}: the candidate has learnt to please it"
        )
        if not options.allow_labeller:
            raise InputError(f"{text}; use another judge, or --allow-labeller for a result that can never be SHIP")
        marks.append(f"{text}; whatever it says, this evaluation is not SHIP")
    rubric = options.rubric or found.rubric or "helpfulness"
    ref = str(load(rubric).ref)
    plan = Evaluation(
        found.id, against, str(options.evalset), prompts.digest, ref if not Path(rubric).suffix else rubric,
        options.judge, options.max_tokens, options.temperature, options.seed,
    )  # fmt: skip
    return plan, marks


def _answers(side: str, model: str, options: Options, env: Environment, state: State) -> None:
    if side in state.steps:
        return
    from tune.candidate import Candidates
    from tune.generate import Decoding, write_answer_file
    from tune.speakers import device_of, open_speaker

    from ..prompts import open_prompts

    state.path.parent.mkdir(parents=True, exist_ok=True)
    speaker = open_speaker(model, Candidates(env.home), env.cache, device=device_of(options.device))
    how = Decoding(options.max_tokens, options.temperature, options.batch, options.seed)
    output = state.path.parent / f"{side}.jsonl"
    found = write_answer_file(speaker, open_prompts(options.evalset), output, how, report=reporter(f"{side} answered"))
    state.done(side, {"model": str(speaker.id), "answers": found.answers, "tokens": found.tokens,
                      "finish": dict(found.finish), "empty": found.empty})  # fmt: skip


def _judged(plan: Evaluation, options: Options, env: Environment, state: State) -> None:
    """Judge the two answer files blind, or finish the run that was begun."""
    if "judged" in state.steps:
        return
    from ..runs import start_run
    from ..store import Store
    from .batching import batching

    store = Store(env.home)
    begun = state.steps.get("run")
    if begun is not None and (env.home / "runs" / f"{begun}.jsonl").exists():
        with _away(state.path.parent / "run.txt"):
            code = import_module(".resume", __package__).command.main(
                [begun, "--home", str(env.home)], standalone_mode=False
            )
    else:
        folder = state.path.parent
        asked = RunOptions(
            options.evalset, folder / "candidate.jsonl", folder / "baseline.jsonl", plan.rubric, plan.judge,
            seed=plan.seed, home=str(env.home),
        )  # fmt: skip
        run_plan = plan_of(asked)
        begun = run_plan.run_id
        state.done("run", begun)
        backend = opener(env)(plan.judge)
        announce(run_plan, begun, f"judge {safe(str(backend.id))}", by_pair=backend.id.by_pair)

        async def work() -> None:
            try:
                await start_run(run_plan, backend, store, report=progress(), batching=batching(store.home))
            finally:
                await backend.close()

        drive(work(), begun, str(env.home))
        code = 0
    state.done("judged", code if isinstance(code, int) else 0)


def _evidence(plan: Evaluation, options: Options, env: Environment, state: State) -> None:
    """Let every verb that this version has look at the run; keep what it says beside the answers."""
    run, more = state.steps["run"], {"check": ["--suite", options.suite], "gate": ["--policy", options.policy]}
    more["gate"] += ["--gold", str(options.gold)] if options.gold else []
    more["gate"] += ["--by", options.by] if options.by else []
    for verb in _EVIDENCE:
        if verb in state.steps:
            continue
        if find_spec(f".{verb}", __package__) is None:
            state.done(verb, {"missing": f"this version has no `judge {verb}`"})
            continue
        if verb == "ground" and not _has_sources(options.evalset):
            state.done(verb, {"left out": "no item of the eval set has sources"})
            continue
        made = _made(verb, run, options, env)
        if made:
            state.done(verb, {"entry": made})
            continue
        path = state.path.parent / f"{verb}.txt"
        with _away(path):
            code = _called(verb, [run, "--home", str(env.home), *more.get(verb, [])])
        state.done(verb, {"exit": code, "said": path.name, **({"missing": "it failed"} if code in (2, 3) else {})})


def _made(verb: str, run: str, options: Options, env: Environment) -> str:
    """The entry of a report on this run that is there already (an evaluation that was cut off wrote it), or nothing.

    `judge gate` goes by the same entries: what stands there, it does not make again.
    """
    from ..checks.suite import load_suite
    from ..register import Register

    if verb == "gate":
        return ""
    entries = Register(env.home).entries(verb, run)
    if verb == "check":
        wanted = load_suite(options.suite).digest
        entries = [entry for entry in entries if entry.body.get("suite_digest") == wanted]
    if verb == "ground":  # a report that could judge no answer is no evidence, now as when it was made
        entries = [entry for entry in entries if entry.body.get("judged")]
    return entries[-1].id if entries else ""


def _called(verb: str, arguments: list[str]) -> int:
    """The exit code of another verb, called as from a shell."""
    from ..errors import BackendError, InputError

    try:
        code = import_module(f".{verb}", __package__).command.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (InputError, click.ClickException) as error:
        click.echo(f"judge {verb}: {safe(str(error))}", err=True)
        return 2
    except BackendError as error:
        click.echo(f"judge {verb}: {safe(str(error))}", err=True)
        return 3
    return code if isinstance(code, int) else 0


def _has_sources(evalset: Path) -> bool:
    from ..prompts import open_prompts

    return open_prompts(evalset).with_context > 0


@contextlib.contextmanager
def _away(path: Path) -> Iterator[None]:
    """Send what is printed on stdout to a file: stdout is this command's own."""
    kept = io.StringIO()
    try:
        with contextlib.redirect_stdout(kept):
            yield
    finally:
        path.write_text(kept.getvalue(), encoding="utf-8")


def _decide(plan: Evaluation, marks: list[str], options: Options, env: Environment, state: State) -> None:
    """One word out of everything, recorded: the gate's, held back by what is missing or must be said aloud."""
    from ..register import Register
    from ..render import to_text
    from ..store import Store
    from ..summary import summarise

    gate = state.steps["gate"]
    missing = [
        f"{_EVIDENCE[verb]}: {state.steps[verb]['missing']}" for verb in _EVIDENCE if "missing" in state.steps[verb]
    ]
    missing += _unheld(plan, env)
    word = "HOLD" if "missing" in gate else _WORDS.get(gate["exit"], "HOLD")
    if word == "SHIP" and (marks or missing):
        word = "HOLD"
    register, run = Register(env.home), state.steps["run"]
    decisions = register.entries("decision", run)
    body = {
        "word": word, "run": run, "decision": decisions[-1].id if decisions else None, "marks": marks,
        "missing": missing, "plan": asdict(plan),
        "answers": {side: state.steps[side] for side in ("candidate", "baseline")},
    }  # fmt: skip
    at = stamp()
    known = [one for one in register.entries("evaluation", plan.candidate) if one.body["run"] == run]
    entry = known[-1] if known else register.append("evaluation", plan.candidate, body, at=at, by=options.by)
    store = Store(env.home)
    info = store.run(run)
    judged = to_text(summarise(info.header, store.comparisons(run), sealed=info.sealed, canaries=store.canaries(run)))
    lines = [
        judged.rstrip("\n"), "", f"{word}  {plan.candidate} against {plan.against}  ({entry.id})",
        *(f"  ! {text}" for text in marks), *(f"  missing: {text}" for text in missing),
        *(f"  decided by {one.id}; show it with: {advised('gate', 'show', one.id)}" for one in decisions[-1:]),
        f"  answers and reports: {state.path.parent}",
    ]  # fmt: skip
    (state.path.parent / "summary.txt").write_text(safe_lines(lines), encoding="utf-8")
    state.done(
        "decided", {"word": word, "entry": entry.id, **{k: body[k] for k in ("run", "decision", "marks", "missing")}}
    )
    from tune.candidate import Candidates

    shelf = Candidates(env.home)
    shelf.write_card(shelf.get(plan.candidate))


def _unheld(plan: Evaluation, env: Environment) -> list[str]:
    """What the records of the training data lack, for the candidate and all it goes on from."""
    from tune.candidate import Candidates
    from tune.evaluation import unheld

    shelf = Candidates(env.home)
    return [
        f"contamination: the training data of {name} was held against no gold or eval set (judge tune pairs --against)"
        for name in unheld(shelf, shelf.lineage(plan.candidate))
    ]


def safe_lines(lines: list[str]) -> str:
    """Lines that a terminal may show."""
    return "\n".join("\n".join(safe(part) for part in line.split("\n")) for line in lines) + "\n"
