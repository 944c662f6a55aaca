"""Training on a tiny model: it learns, it resumes to the same bits, and it stops where it must."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import orjson
import pytest

from judge import failpoints
from judge.cli.tune_train import Options, command
from judge.errors import BackendUnavailable, InputError
from tune.preferences import Preference

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("accelerate")

from tune import checkpoints  # noqa: E402 - needs torch
from tune import train as loop  # noqa: E402 - needs torch
from tune.adapters import attach, base_of  # noqa: E402 - needs torch
from tune.losses import Loss  # noqa: E402 - needs torch
from tune.models import Base, open_base  # noqa: E402 - needs torch
from tune.packing import encode  # noqa: E402 - needs torch
from tune.train import Data, Recipe, Trained, TrainingStopped, Workers, read_log, train  # noqa: E402 - needs torch

REPO = Path(__file__).resolve().parent.parent
RECIPE = Recipe(batch=4, epochs=2, learning_rate=5e-3, every=3, samples=2, sample_tokens=6, patience=50)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal bits need equal sums: one thread in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Base:
    return open_base(str(tiny_llama), tmp_path)


def data_of(base: Base, count: int = 24, **more: Any) -> Data:
    rows = [
        Preference(f"q{n}", f"Number {n}.", "yes " * (n % 4 + 1), "no " * (n % 5 + 1), **more) for n in range(count)
    ]
    pairs, _ = encode(rows, base.text, most=512)
    return Data(tuple(pairs[:-6]), tuple(pairs[-6:]), "digest")


def trained(base: Base, folder: Path, recipe: Recipe = RECIPE, **more: Any) -> Trained:
    return train(recipe, data_of(base), base, folder, **more)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that a training leaves and that must not depend on interruptions."""
    names = ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "train.jsonl", "result.json")
    return {name: (folder / name).read_bytes() for name in (*names, "reference.json", "best.safetensors")}


def test_training_learns_the_preference(base: Base, tmp_path: Path) -> None:
    """Held-out pairs that the base cannot tell apart are ordered right after training, with a lower loss."""
    found = trained(base, tmp_path / "t")
    looks = [line for line in read_log(tmp_path / "t") if line["kind"] == "heldout"]
    assert looks[0]["accuracy"] == 0.0  # at the start policy and reference are one: no margin at all
    assert looks[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert looks[0]["own"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert found.best["accuracy"] == 1.0
    assert found.best["loss"] < 0.3
    assert looks[-1]["own"]["kl"] > 0.01


def test_everything_is_logged(base: Base, tmp_path: Path) -> None:
    """A step logs loss, rewards, margin, accuracy, both log-probabilities, entropy; a look the held-out figures."""
    trained(base, tmp_path / "t")
    lines = list(read_log(tmp_path / "t"))
    step = next(line for line in lines if line["kind"] == "step")
    look = next(line for line in lines if line["kind"] == "heldout")
    assert {
        "loss", "reward_chosen", "reward_rejected", "margin", "accuracy", "logp_chosen", "logp_rejected", "entropy",
        "gradient", "learning_rate",
    } <= step.keys()  # fmt: skip
    assert {"loss", "accuracy", "ece", "margin", "displaced", "chosen_moved", "own", "win_rate"} <= look.keys()
    assert look["own"].keys() == {"n", "tokens", "cut", "refusals", "kl"}


def test_rows_do_not_change_the_training(tiny_llama: Path, tmp_path: Path) -> None:
    """How many pairs share a row is a matter of speed: the losses are the same to rounding."""
    losses = []
    for size in (1, 4000):
        base = open_base(str(tiny_llama), tmp_path)
        trained(base, tmp_path / f"t{size}", replace(RECIPE, row_tokens=size))
        losses.append([line["loss"] for line in read_log(tmp_path / f"t{size}") if line["kind"] == "step"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from judge import failpoints
failpoints.install(failpoints.killer("within_checkpoint:2"))
import test_tune_train as here
from tune.models import open_base
here.trained(open_base({model!r}, Path({work!r})), Path({work!r}) / "t")
"""


class _CrashError(Exception):
    """Stands for a death between two lines of code."""


def test_a_killed_training_resumes_to_the_same_bits(tiny_llama: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a checkpoint, a death after a later step: adapter, log and result equal the unbroken
    ones.
    """
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "unbroken")
    work = tmp_path / "broken"
    work.mkdir()
    code = CHILD.format(tests=str(REPO / "tests"), model=str(tiny_llama), work=str(work))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert [path.name for path in (work / "t/checkpoints").glob("step-*")] == ["step-000003"]

    left = iter(range(5))

    def die(name: str) -> None:
        if name == "after_step" and next(left) == 4:
            raise _CrashError

    failpoints.install(die)
    try:
        with pytest.raises(_CrashError):
            trained(open_base(str(tiny_llama), tmp_path), work / "t")
    finally:
        failpoints.install(None)
    assert not (work / "t/adapter").exists()
    trained(open_base(str(tiny_llama), tmp_path), work / "t")
    assert files_of(work / "t") == files_of(tmp_path / "unbroken")


def test_a_finished_training_is_not_done_again(tiny_llama: Path, tmp_path: Path) -> None:
    """The same call on a finished folder makes no step and leaves the same files."""
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t")
    before, seen = files_of(tmp_path / "t"), []
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t", report=seen.append)
    assert seen == []
    assert files_of(tmp_path / "t") == before


def test_another_training_is_refused_in_a_folder_that_holds_one(tiny_llama: Path, tmp_path: Path) -> None:
    """A changed recipe or data set is named, and what stands there stays."""
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t")
    before = files_of(tmp_path / "t")
    with pytest.raises(InputError, match="another recipe; name another folder"):
        trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t", replace(RECIPE, seed=1))
    base = open_base(str(tiny_llama), tmp_path)
    with pytest.raises(InputError, match="another data"):
        train(RECIPE, replace(data_of(base), digest="other"), base, tmp_path / "t")
    assert files_of(tmp_path / "t") == before


def test_a_loss_that_is_no_number_stops_and_names_the_batch(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in step 5: the pairs of that step are named, and the checkpoint of step 3 stands and can be gone on from."""
    whole, count = loop.pair_losses, iter(range(1000))
    monkeypatch.setattr(loop, "pair_losses", lambda *a: whole(*a) * (float("nan") if next(count) >= 4 else 1.0))
    with pytest.raises(
        TrainingStopped, match=r"step 5: the loss is not a finite number; the pairs of this step are q\d"
    ):
        trained(base, tmp_path / "t")
    found = checkpoints.latest(tmp_path / "t/checkpoints")
    assert found is not None
    assert found.step == 3
    assert all(bool(tensor.isfinite().all()) for tensor in found.weights.values())
    monkeypatch.setattr(loop, "pair_losses", whole)
    assert trained(open_base(base.spec, tmp_path), tmp_path / "t").steps == 10


def test_a_base_without_finite_probabilities_is_refused(base: Base, tmp_path: Path) -> None:
    """Weights that are broken show in the reference, before anything is trained."""
    with torch.no_grad():
        base.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingStopped, match="no finite log-probability"):
        trained(base, tmp_path / "t")


def test_a_full_disk_leaves_the_last_checkpoint(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space in the second checkpoint: the error says so, the first stands whole, and with room it goes on."""
    whole, count = checkpoints.write_tensors, iter(range(1000))

    def full(path: Path, *rest: Any) -> None:
        if path.name == "moments.safetensors" and next(count) >= 1:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        whole(path, *rest)

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t")
    assert [path.name for path in (tmp_path / "t/checkpoints").iterdir()] == ["step-000003"]
    monkeypatch.setattr(checkpoints, "write_tensors", whole)
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t")
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "unbroken")
    assert files_of(tmp_path / "t") == files_of(tmp_path / "unbroken")


def test_a_real_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """What safetensors says about a file that cannot grow arrives as an OSError, which the command line explains."""
    code = (
        "import resource, signal, sys, torch; from pathlib import Path; from tune.checkpoints import write_tensors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_tensors(Path(sys.argv[1]), {'x': torch.zeros(100_000)})\n"
        "except OSError as error: print('OSError', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.safetensors")],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("OSError"), done.stderr


def test_training_ends_when_held_out_pairs_get_no_better(tiny_llama: Path, tmp_path: Path) -> None:
    """After ``patience`` looks without a better one it stops, and the weights kept are those of the best look."""
    rates = iter([0.2, 0.5, 0.8, 0.7, 0.6, 0.5, 0.4])
    recipe = replace(RECIPE, every=1, patience=2, epochs=3)
    found = trained(open_base(str(tiny_llama), tmp_path), tmp_path / "t", recipe, win_rate=lambda _speaker: next(rates))
    assert (found.steps, found.best_step) == (4, 2)
    assert found.best["win_rate"] == 0.8
    kept = checkpoints.read_tensors(tmp_path / "t/best.safetensors")
    last = checkpoints.latest(tmp_path / "t/checkpoints")
    assert last is not None
    assert any(not torch.equal(kept[name], last.weights[name]) for name in kept)


def test_likelihood_displacement_is_warned_of(tiny_llama: Path, tmp_path: Path) -> None:
    """Where the rejected answer repeats the chosen one, both get less likely, and the training says so; elsewhere it
    does not.
    """
    base = open_base(str(tiny_llama), tmp_path)
    rows = [Preference(f"q{n}", f"Number {n}.", f"ab {n}", f"ab {n} " * 5) for n in range(24)]
    pairs, _ = encode(rows, base.text, most=512)
    recipe = Recipe(batch=4, epochs=1, learning_rate=1e-2, every=2, samples=0, patience=50)
    found = train(recipe, Data(tuple(pairs[6:]), tuple(pairs[:6]), "d"), base, tmp_path / "t")
    looks = [line for line in read_log(tmp_path / "t") if line["kind"] == "heldout"]
    assert looks[-1]["chosen_moved"] < -1
    assert looks[-1]["margin"] > 0
    assert [text for text in found.warnings if "likelihood is displaced: 100%" in text]
    assert trained(open_base(str(tiny_llama), tmp_path), tmp_path / "plain").warnings == ()


def test_soft_labels_keep_the_margin_finite(tiny_llama: Path, tmp_path: Path) -> None:
    """Trained for long, p = 0.75 ends near its logit (1.1), where p = 1 goes on."""
    margins = {}
    for p in (0.75, 1.0):
        base = open_base(str(tiny_llama), tmp_path)
        recipe = Recipe(batch=18, epochs=40, learning_rate=5e-3, every=40, samples=0, patience=50)
        train(recipe, data_of(base, p=p), base, tmp_path / f"t{p}")
        margins[p] = [line["margin"] for line in read_log(tmp_path / f"t{p}") if line["kind"] == "step"][-1]
    assert margins[0.75] == pytest.approx(1.0986, abs=0.25)
    assert margins[1.0] > 3


def test_a_loss_without_a_reference_computes_none(base: Base, tmp_path: Path) -> None:
    """SimPO learns without a reference: none is computed, and what is measured from it is not there."""
    recipe = replace(RECIPE, loss=Loss("simpo", beta=2.0, gamma=0.5), samples=0)
    found = trained(base, tmp_path / "t", recipe)
    assert not (tmp_path / "t/reference.json").exists()
    assert found.best["accuracy"] == 1.0
    assert (found.best["displaced"], found.best["chosen_moved"]) == (None, None)


def test_all_weights_can_be_trained(base: Base, tmp_path: Path) -> None:
    """Rank 0 trains the whole model and writes one that opens as a base."""
    recipe = Recipe(batch=6, epochs=2, learning_rate=1e-3, every=3, samples=1, sample_tokens=4, rank=0)
    found = train(recipe, data_of(base), base, tmp_path / "t")
    assert found.best["accuracy"] > 0.5
    assert found.best["own"]["kl"] is None  # a second copy of all weights is not kept, so there is nothing to compare
    assert open_base(str(tmp_path / "t/adapter"), tmp_path).model.config.hidden_size == 64


def test_an_adapter_goes_on_from_its_parent(tiny_llama: Path, tmp_path: Path) -> None:
    """Training from a parent begins with its weights: the reference is the parent, and KL begins at zero."""
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "first")
    again = trained(open_base(str(tiny_llama), tmp_path), tmp_path / "second", parent=tmp_path / "first/adapter")
    looks = [line for line in read_log(again.folder) if line["kind"] == "heldout"]
    assert looks[0]["own"]["kl"] == pytest.approx(0.0, abs=1e-6)
    first, second = (orjson.loads((tmp_path / name / "reference.json").read_bytes()) for name in ("first", "second"))
    assert first != second


def test_an_adapter_of_another_base_is_refused(base: Base, tmp_path: Path) -> None:
    """The adapter names its base by digest; weights that differ in one number are another base."""
    import shutil

    from safetensors.torch import load_file, save_file

    trained(base, tmp_path / "t")
    assert base_of(tmp_path / "t/adapter") == base.ref
    other = tmp_path / "other"
    shutil.copytree(base.spec, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1.0
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"belongs to tiny-llama@\w+, not to other@"):
        attach(open_base(str(other), tmp_path), tmp_path / "t/adapter")


def test_pickled_weights_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """A base or an adapter with pickled weights alone is refused before anything reads them."""
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(InputError, match=r"pytorch_model.bin: pickled weights are refused"):
        open_base(str(folder), tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.bin").write_bytes(b"never read")
    with pytest.raises(InputError, match="pickled weights are refused"):
        attach(open_base(str(tiny_llama), tmp_path), adapter)


def test_a_folder_that_is_no_model_is_an_input_error(tmp_path: Path) -> None:
    """A missing folder and a damaged one are told apart, each with what to do."""
    with pytest.raises(InputError, match="there is no such folder"):
        open_base(str(tmp_path / "nothing"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*.safetensors file"):
        open_base(str(tmp_path / "empty"), tmp_path)
    (tmp_path / "empty/model.safetensors").write_bytes(b"x")
    with pytest.raises(BackendUnavailable, match="cannot be loaded"):
        open_base(str(tmp_path / "empty"), tmp_path)


def test_no_held_out_pair_is_refused(base: Base, tmp_path: Path) -> None:
    """Without held-out pairs nothing says when to stop."""
    found = data_of(base)
    with pytest.raises(InputError, match="no pair is held out"):
        train(RECIPE, Data(found.train, (), "d"), base, tmp_path / "t")


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("learning_rate", -1.0), ("rank", -1), ("warmup", 1.0)])
def test_a_recipe_out_of_range_is_refused(name: str, value: float) -> None:
    """Numbers of a recipe are checked before a model is opened."""
    with pytest.raises(InputError, match=name):
        Recipe(**{name: value})


@pytest.mark.slow
def test_two_processes_train_like_one(tiny_llama: Path, tmp_path: Path) -> None:
    """`accelerate launch` with two CPU processes makes the same steps as one process, to rounding."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch; from pathlib import Path\n"
        f"torch.set_num_threads(1); sys.path.insert(0, {str(REPO / 'tests')!r})\n"
        "import test_tune_train as here\n"
        "from tune.models import open_base; from tune.train import Workers\n"
        "workers = Workers.here(cpu=True); assert workers.count == 2\n"
        f"base = open_base({str(tiny_llama)!r}, Path({str(tmp_path)!r}))\n"
        f"here.trained(base, Path({str(tmp_path / 'two')!r}), workers=workers)\n"
    )
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        str(script),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trained(open_base(str(tiny_llama), tmp_path), tmp_path / "one", workers=Workers())
    one, two = (list(read_log(tmp_path / name)) for name in ("one", "two"))
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert first["kind"] == second["kind"]
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-4)


def test_what_the_command_line_says_of_a_recipe_is_what_a_recipe_says() -> None:
    """Every field of the recipe and of the loss is an option of `judge tune train` with the same default, but those
    three that nobody should turn; and an option that is given reaches the recipe.
    """
    asked = {field.name: field.default for field in dataclasses.fields(Options)}
    context = click.Context(command)
    shown = {option.name: option.get_default(context) for option in command.params}
    for kind in (Recipe, Loss):
        own = {field.name: field.default for field in dataclasses.fields(kind) if field.name != "loss"}
        assert own.keys() - asked.keys() == ({"warmup", "weight_decay", "clip"} if kind is Recipe else set())
        for name in own.keys() & asked.keys():
            assert asked[name] == own[name], name
            assert (shown[name] or own[name]) == own[name], name
    made = Options(Path("p.jsonl"), rank=4, every=7, kind="ipo", beta=0.3).recipe()
    assert (made.rank, made.every, made.loss.kind, made.loss.beta) == (4, 7, "ipo", 0.3)
    assert Options(Path("p.jsonl")).recipe() == Recipe()
