"""A step of DPO against TRL's DPOTrainer on the same pairs: CPU seconds, peak memory, losses.

    python benchmarks/dpo.py --pairs 24 --batch 4

The pairs are those of the sample set (`judge/samples/demo.jsonl`) with a better side, in one order, tokenised alike
(checked). Both sides train the same LoRA adapter on SmolLM2-135M from the same first weights with the same optimiser,
one thread, float32 on a CPU; each runs in a process of its own, so that its peak memory is its own. CPU seconds are
those of the training loop: loading, tokenising and start-up are not counted. "precompute counted" adds to ours the
log-probabilities of the reference, which are computed once, whatever the number of epochs; TRL computes them in every
step by default, and once with `precompute_ref_log_probs` (the third side). With `--device cuda` the same in bfloat16
with a model of your own (`--model`), in wall seconds, with the share of the device's peak arithmetic (`--peak`
TFLOP/s) that is used.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SIDES = ("ours", "trl", "trl-precomputed")
RATE = 1e-4


def preferences(count: int, repeat: str) -> list[Any]:
    """The first pairs of the sample set that have a better side, as preferences; ``long`` puts a passage first."""
    from tune.preferences import Preference

    rows = [json.loads(line) for line in (ROOT / "judge/samples/demo.jsonl").read_text().splitlines()]
    found = []
    passage = " ".join(row["prompt"] for row in rows[:12]) + "\n\n" if repeat == "long" else ""
    for row in rows:
        sides = [row["candidate"]["text"], row["baseline"]["text"]]
        if row["label"] == "tie" or not all(side.strip() for side in sides) or sides[0] == sides[1]:
            continue
        better, worse = sides if row["label"] == "win" else sides[::-1]
        found.append(Preference(row["id"], passage + row["prompt"], better, worse))
    return (found * (count // len(found) + 1))[:count]


def opened(args: argparse.Namespace) -> Any:
    import torch

    from judge.environment import environment
    from tune.models import open_base

    torch.set_num_threads(1)
    return open_base(args.model, environment().cache, device=args.device)


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from tune import train as loop
    from tune.packing import encode

    base = opened(args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pairs, _ = encode(preferences(args.pairs, args.shape), base.text, most=base.text.context)
    recipe = loop.Recipe(
        batch=args.batch, epochs=args.epochs, learning_rate=RATE, warmup=0.0, samples=0, row_tokens=args.row_tokens
    )
    data = loop.Data(tuple(pairs), tuple(pairs[:1]), "benchmark")
    with tempfile.TemporaryDirectory() as name:
        started = clock(args.device)
        run = loop._begin(recipe, data, base, Path(name), loop.Workers(device=args.device), None)  # noqa: SLF001
        precompute = clock(args.device) - started
        losses, steps = [], args.epochs * -(-len(pairs) // args.batch)
        started = clock(args.device)
        for step in range(steps):
            batch = pairs[step * args.batch % len(pairs) :][: args.batch]
            losses.append(loop._step(run, batch, step, steps)["loss"])  # noqa: SLF001
        seconds = clock(args.device) - started
    tokens = args.epochs * sum(pair.tokens - 2 for pair in pairs)
    parameters = sum(one.numel() for one in base.model.parameters())
    peak = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else 0
    return {
        "seconds": seconds, "precompute": precompute, "losses": losses, "positions": tokens, "padding": 0.0,
        "flops": 4 * parameters * tokens, "before_mb": before / 1024, "gpu_mb": peak,
    }  # fmt: skip


def trl(args: argparse.Namespace) -> dict[str, Any]:
    import peft
    import torch
    import transformers
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import DPOConfig, DPOTrainer

    from tune.packing import encode

    transformers.logging.set_verbosity_error()
    base = opened(args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pairs, _ = encode(preferences(args.pairs, args.shape), base.text, most=base.text.context)
    rows = [
        {"prompt_ids": list(pair.prompt), "chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)}
        for pair in pairs
    ]

    class InOrder(DPOTrainer):
        """TRL's trainer on token ids, in the order given; it notes when its loop begins and ends."""

        losses: list[float] = []
        started = 0.0
        reference = 0.0
        """Spent on the reference before the loop: TRL computes it when the trainer is made."""

        def _precompute_ref_logps(self, *rest: Any, **more: Any) -> Any:
            began = clock(args.device)
            found = super()._precompute_ref_logps(*rest, **more)
            self.reference += clock(args.device) - began
            return found

        def _prepare_dataset(self, dataset: Any, *_rest: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_rest: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def training_step(self, *rest: Any, **more: Any) -> Any:
            self.started = self.started or clock(args.device)
            loss = super().training_step(*rest, **more)
            self.losses.append(loss.item() * self.args.gradient_accumulation_steps)
            return loss

    with tempfile.TemporaryDirectory() as name:
        config = DPOConfig(
            output_dir=name, per_device_train_batch_size=args.batch, num_train_epochs=args.epochs, learning_rate=RATE,
            logging_steps=1, report_to="none", save_strategy="no", max_length=None, bf16=args.device == "cuda",
            use_cpu=args.device == "cpu", gradient_checkpointing=False, disable_tqdm=True, seed=0,
            precompute_ref_log_probs=args.side == "trl-precomputed",
        )  # fmt: skip
        torch.manual_seed(0)
        lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear", lora_dropout=0.0)
        trainer = InOrder(
            model=base.model, args=config, train_dataset=Dataset.from_list(rows), processing_class=base.tokenizer,
            peft_config=lora,
        )  # fmt: skip
        began = clock(args.device)
        trainer.train()
        ended = clock(args.device)
    longest = [max(len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs[k : k + args.batch])
               for k in range(0, len(pairs), args.batch)]  # fmt: skip
    positions = sum(2 * args.batch * width for width in longest) * args.epochs
    used = sum(2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs) * args.epochs
    peak = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else 0
    losses = [sum(trainer.losses[k :: len(trainer.losses)]) for k in range(len(trainer.losses))]
    return {
        "seconds": ended - trainer.started, "precompute": trainer.reference + trainer.started - began,
        "losses": losses,
        "positions": positions, "padding": 1 - used / positions, "flops": 0, "before_mb": before / 1024, "gpu_mb": peak,
    }  # fmt: skip


def clock(device: str) -> float:
    """CPU seconds of this process, or wall seconds once the GPU has caught up."""
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def report(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> int:
    unit = "CPU-s" if args.device == "cpu" else "s"
    mine = found["ours"]
    answers = max(abs(a - b) for a, b in zip(mine["losses"], found["trl"]["losses"], strict=True))
    for name, one in found.items():
        rate = one["positions"] / one["seconds"]
        print(
            f"  {name:16} {one['seconds']:7.2f} {unit} in the loop, {one['precompute']:6.2f} before it;"
            f" {one['positions']:6,} positions, {one['padding']:4.0%} padding, {rate:6.0f} a {unit};"
            f" peak {one['peak_mb']:,.0f} MB" + (f" (GPU {one['gpu_mb']:,.0f} MB)" if one["gpu_mb"] else "")
        )
    if args.device != "cpu":
        share = mine["flops"] / mine["seconds"] / (args.peak * 1e12)
        print(f"  ours uses {share:.1%} of {args.peak:g} TFLOP/s (4 FLOP a parameter and position: LoRA)")
    print(f"  losses: largest difference {answers:.1e} over {len(mine['losses'])} steps")
    print(f"    ours {' '.join(f'{x:.4f}' for x in mine['losses'])}")
    print(f"    trl  {' '.join(f'{x:.4f}' for x in found['trl']['losses'])}")
    theirs = found["trl"]["seconds"]
    with_all = mine["seconds"] + mine["precompute"]
    print(
        f"  ours takes {theirs / mine['seconds']:.2f}x less than trl; precompute counted {theirs / with_all:.2f}x less"
    )
    if "trl-precomputed" in found:
        other = found["trl-precomputed"]
        whole = other["seconds"] + other["precompute"]
        print(
            f"  against trl-precomputed {other['seconds'] / mine['seconds']:.2f}x in the loop, "
            f"{whole / with_all:.2f}x with both precomputes counted"
        )
    good = theirs / mine["seconds"] >= 2.5 and theirs / with_all >= 2.0 and answers <= 1e-3
    good = good and mine["peak_mb"] < found["trl"]["peak_mb"]
    print(f"  targets (2.5x, 2.0x with precompute, equal loss, less memory): {'met' if good else 'MISSED'}")
    return 0 if good or args.device != "cpu" else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--row-tokens", type=int, default=0)
    parser.add_argument(
        "--shape", choices=["short", "long"], default="short", help="long: a passage before each prompt"
    )
    parser.add_argument("--model", default="local")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak", type=float, default=989.0, help="peak TFLOP/s of the device in bfloat16")
    parser.add_argument("--side", choices=SIDES, help="run one side and print its figures as JSON")
    parser.add_argument("--skip", action="append", default=[], choices=SIDES)
    args = parser.parse_args()
    if args.side:
        figures = ours(args) if args.side == "ours" else trl(args)
        figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps(figures))
        return 0
    found = {}
    for side in SIDES:
        if side not in args.skip:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            found[side] = json.loads(done.stdout.rsplit("RESULT ", 1)[1])
    print(f"{args.pairs} pairs ({args.shape} prompts), {args.batch} a step, {args.epochs} epochs, {args.model}")
    return report(found, args)


if __name__ == "__main__":
    sys.exit(main())
