"""Direct preference optimisation, in one file that reads from top to bottom: recipe, data, set-up, loop, end.

What differs from the paper (arXiv:2305.18290) and from the usual trainers:
1. The label of a pair is a probability, so a judge's calibrated doubt keeps the margin finite (``losses``).
2. Log-probabilities of the reference are computed once, before the first step.
3. Several pairs share a row without padding, each prompt stands there once for both answers (``packing``), and the
   output layer sees answer tokens only (``scoring``). On the model at hand this is compared with the plain way first.
4. Dropout is off: policy and reference are compared on the same network.
5. A step is a number of pairs, whatever the number of processes and rows; the gradient is summed over all of them.
6. Training ends by what held-out pairs (and a win rate, where one is given) say, never by the margin, which a model can
   widen without getting better.
7. Everything the next step depends on is a function of the seed, the step number and the checkpoint: a training that
   was killed and resumed ends in the same bits as one that was not (on a CPU with the same number of threads).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch

from judge import failpoints
from judge.errors import BackendError, InputError
from judge.types import JudgeId
from judge.writing import write_whole

from . import checkpoints
from .generate import Speaker
from .heldout import Reference, Watched, heldout_figures, own_answers, reference_of, scores_of
from .losses import Loss, pair_losses, rewards
from .packing import Encoded, pack, row_of
from .scoring import Scorer, prove
from .workers import Workers

if TYPE_CHECKING:
    from .models import Base

__all__ = ["Data", "Progress", "Recipe", "Trained", "TrainingStopped", "Workers", "read_log", "train"]

_BUDGET = {"cpu": 512, "cuda": 16_384}
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}


# ---- what to do


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. ``batch`` counts pairs a step; ``rank`` 0 trains all weights instead of a LoRA adapter; ``warmup``
    is a share of the steps, after which the learning rate falls to zero linearly. ``row_tokens`` 0 means 512 on a CPU
    and 16,384 on a GPU. ``every`` steps the held-out pairs are looked at and a checkpoint is written; after
    ``patience`` looks without a better one training ends. ``samples`` prompts are answered at each look.

    Raises ``InputError`` for a number out of range.
    """

    loss: Loss = field(default_factory=Loss)
    epochs: int = 1
    batch: int = 8
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    rank: int = 8
    alpha: int = 16
    targets: str = "all-linear"
    row_tokens: int = 0
    every: int = 10
    patience: int = 3
    samples: int = 4
    sample_tokens: int = 32
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate", "clip", "alpha", "every", "patience", "sample_tokens"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)}: give a positive number")
        for name in ("weight_decay", "rank", "row_tokens", "samples"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)}: give a number that is not negative")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup {self.warmup:g}: a share of the steps in [0, 1)")

    @property
    def digest(self) -> str:
        """sha256 (hex) of all of it."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Data:
    """Pairs to train on and pairs held out (numbers are unique over both); ``digest`` is that of the preferences."""

    train: tuple[Encoded, ...]
    heldout: tuple[Encoded, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done of all, the last step's loss and implicit accuracy, seconds since the start and until the end."""

    step: int
    steps: int
    loss: float
    accuracy: float
    seconds: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to: its folder (``adapter/``, ``train.jsonl``, ``result.json``), the steps that were made
    and the step whose weights were kept, the held-out figures there, and what to be warned of.
    """

    folder: Path
    steps: int
    best_step: int
    best: Mapping[str, Any]
    warnings: tuple[str, ...]


class TrainingStopped(BackendError):
    """The loss is no number; the last good checkpoint stands and the message names the batch."""


# ---- the loop


def train(
    recipe: Recipe,
    data: Data,
    base: Base,
    folder: Path,
    *,
    workers: Workers | None = None,
    parent: Path | None = None,
    report: Callable[[Progress], None] | None = None,
    win_rate: Callable[[Speaker], float] | None = None,
) -> Trained:
    """Tune ``base`` on preference pairs; the same call again goes on from the last checkpoint in ``folder``.

    ``parent`` is the adapter to begin with. ``win_rate`` measures the share of wins of the policy as it is over the
    base, at each look; where it is given, it decides which step is the best before the held-out pairs do.

    Raises:
        InputError: ``folder`` holds a training of another recipe, data set or base; no pair is held out.
        TrainingStopped: the loss or the gradient is not a number.
        OSError: a checkpoint cannot be written; the one before stands.
    """
    run = _begin(recipe, data, base, folder, workers or Workers(), parent)
    steps = recipe.epochs * math.ceil(len(data.train) / recipe.batch)
    log, state = _resume(run, folder)
    started, first = time.monotonic(), int(state["step"])
    if first == 0:
        log.add({"step": 0, **_look(run, win_rate)})
    for step in range(first, steps):
        if state["since_best"] >= recipe.patience:
            break
        figures = _step(run, _batch(data.train, recipe, step), step, steps)
        log.add({"step": step + 1, **figures})
        failpoints.reached("after_step")
        if report is not None and run.workers.leads:
            seconds = time.monotonic() - started
            left = seconds / (step + 1 - first) * (steps - step - 1)
            report(Progress(step + 1, steps, figures["loss"], figures["accuracy"], seconds, left))
        if (step + 1) % recipe.every == 0 or step + 1 == steps:
            looked = _look(run, win_rate)
            log.add({"step": step + 1, **looked})
            state = _judged(run, folder, state, looked, step + 1)
            _save(run, folder, state, log)
    return _finish(run, folder, state, log)


def _step(run: _Run, batch: Sequence[Encoded], step: int, steps: int) -> dict[str, Any]:
    """One step of the optimiser over a batch of pairs; returns what is logged of it."""
    recipe, workers = run.recipe, run.workers
    torch.manual_seed(recipe.seed * 1_000_003 + step)
    whole = sum(pair.weight for pair in batch)
    sums = torch.zeros(9, dtype=torch.float64, device=workers.device)
    for group in pack(batch[workers.rank :: workers.count], run.budget):
        with run.precision():
            scored = run.scorer(row_of(group, workers.device))
            scores = scores_of(scored, group, run.reference, recipe.loss)
            p = torch.tensor([pair.p for pair in group], device=workers.device)
            weight = torch.tensor([pair.weight for pair in group], device=workers.device)
            losses = pair_losses(scores, p, recipe.loss)
            ((losses * weight).sum() / whole).backward()
        with torch.no_grad():
            chosen, rejected = rewards(scores, recipe.loss)
            columns = (
                losses * weight * (len(batch) / whole), chosen, rejected, chosen > rejected, scores.chosen,
                scores.rejected, scores.chosen - scores.ref_chosen, scored.entropy, torch.ones_like(scored.entropy),
            )  # fmt: skip
            sums += torch.stack([column.double().sum() for column in columns])
    total, gradient = workers.sum(sums).tolist(), _summed_gradient(run)
    if not math.isfinite(total[0]) or not math.isfinite(gradient):
        names = ", ".join(pair.id for pair in batch)
        raise TrainingStopped(
            f"step {step + 1}: the {'loss' if not math.isfinite(total[0]) else 'gradient'} is not a finite number; "
            f"the pairs of this step are {names}. Nothing was changed by it: the last checkpoint stands. Look at "
            "these pairs, lower --learning-rate, or use float32"
        )
    rate = _rate(recipe, step, steps)
    for group_ in run.optimizer.param_groups:
        group_["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    mean = [value / len(batch) for value in total[:7]]
    return {
        "kind": "step",
        "loss": mean[0],
        "reward_chosen": mean[1],
        "reward_rejected": mean[2],
        "margin": mean[1] - mean[2],
        "accuracy": mean[3],
        "logp_chosen": mean[4],
        "logp_rejected": mean[5],
        "chosen_moved": mean[6] if recipe.loss.uses_reference else None,
        "entropy": total[7] / total[8],
        "gradient": gradient,
        "learning_rate": rate,
    }


def _summed_gradient(run: _Run) -> float:
    """Sum the gradients over the processes, clip them, and return their norm before that."""
    if run.workers.count > 1:
        for parameter in run.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in run.parameters.values()])
        parts = run.workers.sum(flat).split([parameter.numel() for parameter in run.parameters.values()])
        for parameter, part in zip(run.parameters.values(), parts, strict=True):
            parameter.grad.copy_(part.view_as(parameter))
    return float(torch.nn.utils.clip_grad_norm_(list(run.parameters.values()), run.recipe.clip).item())


def _look(run: _Run, win_rate: Callable[[Speaker], float] | None) -> dict[str, Any]:
    """What held-out pairs and own answers say of the policy as it is."""
    with run.precision():
        part = run.data.heldout
        figures = heldout_figures(run.scorer, part, run.reference, run.recipe.loss, run.budget)
        answers = own_answers(run.watched, run.scorer) if run.watched is not None else None
        won = win_rate(run.speaker) if win_rate is not None else None
    return {"kind": "heldout", **figures, "own": answers, "win_rate": won}


def _judged(run: _Run, folder: Path, state: Mapping[str, Any], looked: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The state after a look: the best weights so far are kept apart."""
    won, right = looked["win_rate"], looked["accuracy"]
    key = [won if won is not None else 0.0, right if right is not None else 0.0, -looked["loss"]]
    warnings = list(state["warnings"])
    displaced = run.recipe.loss.uses_reference and looked["displaced"] > 0.5 and looked["chosen_moved"] < 0
    if displaced and not any("displaced" in one for one in warnings):
        warnings.append(
            f"step {step}: likelihood is displaced: {looked['displaced']:.0%} of the held-out chosen answers are less "
            "likely than before the training (arXiv:2410.08847); the margin grows by pushing the rejected ones down"
        )
    if state["best"] is not None and key <= state["best"]["key"]:
        return {**state, "step": step, "since_best": state["since_best"] + 1, "warnings": warnings}
    if run.workers.leads:
        _write_best(run, folder)
    best = {"key": key, "step": step, "figures": dict(looked)}
    return {**state, "step": step, "since_best": 0, "best": best, "warnings": warnings}


def _batch(pairs: Sequence[Encoded], recipe: Recipe, step: int) -> list[Encoded]:
    """The pairs of a step: every epoch is a new order of all pairs, drawn from the seed and the epoch's number."""
    epoch, place = divmod(step, math.ceil(len(pairs) / recipe.batch))
    order = random.Random(f"{recipe.seed}:{epoch}").sample(range(len(pairs)), len(pairs))
    return [pairs[k] for k in order[place * recipe.batch : (place + 1) * recipe.batch]]


def _rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step: up linearly over the warm-up, then down linearly to zero."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * (steps - step) / (steps - warm)


# ---- set-up


@dataclass(slots=True)
class _Run:
    """A training at work."""

    recipe: Recipe
    data: Data
    base: Base
    workers: Workers
    model: Any
    scorer: Scorer
    speaker: Speaker
    parameters: dict[str, Any]
    optimizer: Any
    budget: int
    header: dict[str, Any]
    reference: Reference = field(default_factory=dict)
    watched: Watched | None = None

    def precision(self) -> Any:
        """16-bit arithmetic on a GPU where the weights themselves are 32-bit."""
        mixed = self.workers.device.startswith("cuda") and self.recipe.rank == 0
        return torch.autocast("cuda", torch.bfloat16) if mixed else contextlib.nullcontext()


def _begin(recipe: Recipe, data: Data, base: Base, folder: Path, workers: Workers, parent: Path | None) -> _Run:
    """Put the adapter in place, prove the packed way, and compute (or read) the reference."""
    if not data.heldout:
        raise InputError("no pair is held out: without one nothing says when to stop; hold out a share of the prompts")
    kind = "cuda" if workers.device.startswith("cuda") else "cpu"
    budget = recipe.row_tokens or _BUDGET[kind]
    sample = sorted(data.train, key=lambda pair: pair.tokens)[:2]
    dtype = next(base.model.parameters()).dtype
    packed, difference = prove(base.model, sample, tolerance=_TOLERANCE.get(dtype, 0.5))
    torch.manual_seed(recipe.seed)
    model, network = _with_adapter(recipe, base, parent)
    parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if recipe.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        network.enable_input_require_grads()
        network.train()
    optimizer = torch.optim.AdamW(parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    scorer = Scorer(network, packed=packed)
    speaker = Speaker.of(network, base.tokenizer, base.text, JudgeId("policy"))
    header = {
        "recipe": recipe.digest, "data": data.digest, "base": base.digest, "parent": str(parent or ""),
        "pairs": len(data.train), "heldout": len(data.heldout), "packed": packed,
        "packed_differs_by": difference if math.isfinite(difference) else None,
        "trained_parameters": sum(one.numel() for one in parameters.values()),
    }  # fmt: skip
    run = _Run(recipe, data, base, workers, model, scorer, speaker, parameters, optimizer, budget, header)
    if recipe.samples:
        prompts = [pair.prompt for pair in data.heldout[: recipe.samples]]
        before = _as_it_was(parameters) if recipe.rank else None  # of all weights a second copy would not fit
        run.watched = Watched(speaker, prompts, recipe.sample_tokens, before)
    if workers.leads:
        folder.mkdir(parents=True, exist_ok=True)
        _same_training(folder / "header.json", header, recipe)
    workers.wait()
    if recipe.loss.uses_reference:
        run.reference = _reference(run, folder / "reference.json")
    return run


def _as_it_was(parameters: Mapping[str, Any]) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context in which the trained parameters have the values that they have now: the network is the reference."""
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        now = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = before[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = now[name]

    return context


def _with_adapter(recipe: Recipe, base: Base, parent: Path | None) -> tuple[Any, Any]:
    """The model with what is trained of it switched on, and the network inside."""
    from .adapters import attach, quiet

    if recipe.rank == 0:
        if parent is not None:
            raise InputError("all weights are trained (--rank 0): there is no adapter to begin with")
        base.model.requires_grad_(True)
        return base.model, base.model
    import peft

    base.model.requires_grad_(False)
    if parent is not None:
        model = attach(base, parent, trainable=True)
        return model, model.get_base_model()
    targets: str | list[str] = recipe.targets if recipe.targets == "all-linear" else recipe.targets.split(",")
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, lora_dropout=0.0
    )  # fmt: skip
    with quiet():
        model = peft.get_peft_model(base.model, settings)
    return model, model.get_base_model()


def _same_training(path: Path, header: Mapping[str, Any], recipe: Recipe) -> None:
    """Write down what is trained, or refuse a folder that holds something else."""
    if path.exists():
        was = orjson.loads(path.read_bytes())
        changed = [name for name in ("recipe", "data", "base", "parent") if was.get(name) != header[name]]
        if changed:
            raise InputError(
                f"{path.parent}: it holds a training of another {' and another '.join(changed)}; name another folder"
            )
        return
    write_whole(path, orjson.dumps({**header, "how": asdict(recipe)}, option=orjson.OPT_INDENT_2))


def _reference(run: _Run, path: Path) -> Reference:
    """Log-probabilities under the model as it is before the first step, read from ``path`` if they stand there."""
    if path.exists():
        return {int(number): tuple(values) for number, values in orjson.loads(path.read_bytes()).items()}
    pairs = [*run.data.train, *run.data.heldout]
    with run.precision():
        part = reference_of(run.scorer, pairs[run.workers.rank :: run.workers.count], run.budget)
    found: Reference = run.workers.joined(part)
    bad = [pair.id for pair in pairs if not all(map(math.isfinite, found[pair.number]))]
    if bad:
        raise TrainingStopped(f"the base model gives no finite log-probability for: {', '.join(bad[:8])}")
    if run.workers.leads:
        write_whole(path, orjson.dumps({str(number): found[number] for number in sorted(found)}))
    run.workers.wait()
    return found


# ---- what stays


class _Log:
    """The lines of ``train.jsonl``: no clock, no host, so that two runs of one training are equal byte for byte."""

    def __init__(self, path: Path, end: int, *, leads: bool) -> None:
        self.path, self.end, self._leads = path, end, leads
        if leads:
            with path.open("r+b" if path.exists() else "wb") as file:
                file.truncate(end)

    def add(self, figures: Mapping[str, Any]) -> None:
        line = orjson.dumps(figures) + b"\n"
        self.end += len(line)
        if self._leads:
            with self.path.open("ab") as file:
                file.write(line)


def _resume(run: _Run, folder: Path) -> tuple[_Log, dict[str, Any]]:
    """The log and the state to go on from; weights and optimiser are put back."""
    found = checkpoints.latest(folder / "checkpoints")
    if found is None:
        state: dict[str, Any] = {"step": 0, "best": None, "since_best": 0, "warnings": []}
        return _Log(folder / "train.jsonl", 0, leads=run.workers.leads), state
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(found.weights[name])
    for name, parameter in run.parameters.items():
        moments = {
            kind: found.moments[f"{kind}:{name}"].to(parameter.device if kind != "step" else "cpu")
            for kind in ("step", "exp_avg", "exp_avg_sq")
        }
        run.optimizer.state[parameter] = moments
    return _Log(folder / "train.jsonl", int(found.state["log"]), leads=run.workers.leads), dict(found.state)


def _save(run: _Run, folder: Path, state: Mapping[str, Any], log: _Log) -> None:
    if run.workers.leads:
        weights = {name: parameter.detach() for name, parameter in run.parameters.items()}
        moments = {
            f"{kind}:{name}": value
            for name, parameter in run.parameters.items()
            for kind, value in run.optimizer.state[parameter].items()
        }
        step = int(state["step"])
        checkpoints.save(folder / "checkpoints", step, weights, moments, {**state, "log": log.end})
    run.workers.wait()


def _write_best(run: _Run, folder: Path) -> None:
    weights = {name: parameter.detach() for name, parameter in run.parameters.items()}
    part = folder / ".best.part"
    checkpoints.write_tensors(part, weights)
    part.replace(folder / "best.safetensors")


def _finish(run: _Run, folder: Path, state: Mapping[str, Any], log: _Log) -> Trained:
    """Put the best weights back, write the adapter (or the whole model), and say what it came to."""
    from .adapters import write_adapter

    run.workers.wait()
    best = checkpoints.read_tensors(folder / "best.safetensors")
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(best[name])
    result = {
        "steps": state["step"], "best_step": state["best"]["step"], "best": state["best"]["figures"],
        "warnings": state["warnings"], "stopped_early": state["since_best"] >= run.recipe.patience,
        "log": hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest(),
    }  # fmt: skip
    if run.workers.leads:
        write_adapter(run.model, run.base, folder / "adapter", whole=run.recipe.rank == 0)
        (folder / "result.json").write_bytes(orjson.dumps({**run.header, **result}, option=orjson.OPT_INDENT_2))
    run.workers.wait()
    return Trained(folder, result["steps"], result["best_step"], result["best"], tuple(result["warnings"]))


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a training's log: ``kind`` is ``step`` or ``heldout``."""
    with (folder / "train.jsonl").open("rb") as file:
        for line in file:
            yield orjson.loads(line)
