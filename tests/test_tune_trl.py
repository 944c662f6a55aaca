"""Our losses and steps against TRL's DPOTrainer on the same token ids: an independent implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune.preferences import Preference

pytestmark = [
    pytest.mark.torch,
    # TRL and what it imports warn of their own future; none of it is ours.
    pytest.mark.filterwarnings("ignore"),
]

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")

from tune import train as loop  # noqa: E402 - needs torch
from tune.losses import Loss  # noqa: E402 - needs torch
from tune.models import open_base  # noqa: E402 - needs torch
from tune.packing import Encoded, encode  # noqa: E402 - needs torch
from tune.train import Data, Recipe, Workers  # noqa: E402 - needs torch

LOSSES = {
    "sigmoid": (Loss("sigmoid", beta=0.2), {}),
    "hinge": (Loss("hinge", beta=0.2), {}),
    "ipo": (Loss("ipo", beta=0.2), {}),
    "robust": (Loss("robust", beta=0.2, flip=0.2), {"label_smoothing": 0.2}),
    "sigmoid_norm": (Loss("sigmoid_norm", beta=2.0), {"beta": 2.0}),
    "ld": (Loss("sigmoid", beta=0.2, tail=0.3), {"ld_alpha": 0.3}),
}
RATE = 2e-3


def pairs_of(text: Any) -> list[Encoded]:
    rows = [
        Preference(f"q{n}", f"Question {n}? " * (n % 3 + 1), "Yes. " * (n % 4 + 1), "No, never. " * (n % 5 + 1))
        for n in range(12)
    ]
    return encode(rows, text, most=512)[0]


def theirs(model: Path, work: Path, kind: str, options: dict[str, Any]) -> list[float]:
    base = open_base(str(model), work)
    rows = [
        {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}
        for pair in pairs_of(base.text)
    ]
    losses: list[float] = []

    class InOrder(trl.DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_rest: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_rest: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, *rest: Any, **more: Any) -> Any:
            loss = super().training_step(*rest, **more)
            losses.append(loss.item())
            return loss

    config = trl.DPOConfig(
        output_dir=str(work / "trl"),
        **{"beta": 0.2, **options},
        loss_type=["sigmoid" if kind == "ld" else kind],
        per_device_train_batch_size=4,
        num_train_epochs=1,
        learning_rate=RATE,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    torch.manual_seed(0)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0)
    trainer = InOrder(
        model=base.model,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=base.tokenizer,
        peft_config=lora,
    )
    trainer.train()
    return losses


def ours(model: Path, work: Path, loss: Loss) -> list[float]:
    base = open_base(str(model), work)
    pairs = pairs_of(base.text)
    recipe = Recipe(loss=loss, batch=4, learning_rate=RATE, warmup=0.0, samples=0)
    run = loop._begin(recipe, Data(tuple(pairs), tuple(pairs[:1]), "d"), base, work / "ours", Workers(), None)
    return [loop._step(run, pairs[step * 4 : step * 4 + 4], step, 3)["loss"] for step in range(3)]


@pytest.mark.parametrize(
    "kind",
    [
        "sigmoid",
        "ld",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in LOSSES if kind not in ("sigmoid", "ld")),
    ],
)
def test_each_loss_and_step_is_trl_s(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    """Three steps with the same first weights: loss, gradient and optimiser agree to 1e-4 at each."""
    loss, options = LOSSES[kind]
    mine, other = ours(tiny_llama, tmp_path, loss), theirs(tiny_llama, tmp_path, kind, options)
    assert mine == pytest.approx(other, abs=1e-4)
    assert abs(mine[2] - mine[0]) > 1e-3  # something was learnt, so the steps were compared and not the start alone
