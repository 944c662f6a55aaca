"""Batched answers of a torch model against transformers' plain `generate`, one prompt at a time: tokens a CPU second.

    python benchmarks/batched_generation.py --prompts 16 --max-tokens 32

Both sides use the same weights, one thread, float32, greedy; prompts are those of the sample set. The first line is
ours (`tune.generate.decode`: sorted by length, padded on the left, a cache of keys and values, rows that end leave the
batch), the others are `generate` on each prompt alone and on all prompts padded in one batch. Rounds alternate between
the sides. The last line counts answers that differ from those of the prompts alone: between two tokens that are nearly
as likely the rounding of a batch can decide otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="local")
    args = parser.parse_args()
    import torch
    import transformers

    from judge.environment import environment
    from judge.types import JudgeId
    from tune.generate import Decoding, Speaker, decode
    from tune.models import open_base

    torch.set_num_threads(1)
    base = open_base(args.model, environment().cache)
    speaker = Speaker.of(base.model, base.tokenizer, base.text, JudgeId("base"))
    rows = [json.loads(line) for line in (ROOT / "judge/samples/demo.jsonl").read_text().splitlines()]
    texts = [rows[k % len(rows)]["prompt"] for k in range(args.prompts)]
    prompts = [base.text.conversation([{"role": "user", "content": text}]) for text in texts]
    settings = transformers.GenerationConfig(
        max_new_tokens=args.max_tokens, eos_token_id=sorted(speaker.ends), pad_token_id=base.text.end
    )

    def trimmed(ids: list[int]) -> list[int]:
        end = next((k for k, token in enumerate(ids) if token in speaker.ends), len(ids))
        return ids[:end]

    def ours() -> list[list[int]]:
        return [one.ids for one in decode(speaker, prompts, Decoding(args.max_tokens, batch=args.batch))]

    def plain(some: list[list[int]]) -> list[list[int]]:
        width = max(map(len, some))
        ids = torch.tensor([[base.text.end] * (width - len(one)) + one for one in some])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in some])
        made = base.model.generate(ids, attention_mask=mask, generation_config=settings)
        return [trimmed(row[width:].tolist()) for row in made]

    sides: dict[str, Callable[[], list[list[int]]]] = {
        "ours": ours,
        "generate, alone": lambda: [plain([one])[0] for one in prompts],
        "generate, one batch": lambda: plain(prompts),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Any] = {}
    for number in range(args.rounds):
        for name in [*list(sides)[number % 3 :], *list(sides)[: number % 3]]:
            started = time.process_time()
            answers[name] = sides[name]()
            seconds = time.process_time() - started
            rates[name].append(sum(len(one) + 1 for one in answers[name]) / seconds)
    mine = statistics.median(rates["ours"])
    print(f"{args.prompts} prompts, at most {args.max_tokens} tokens, batch {args.batch}, {args.model}")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"  {name:20} {rate:6.1f} tokens/CPU-s   ours is {mine / rate:.2f}x")
    moved = {
        name: sum(one != alone for one, alone in zip(made, answers["generate, alone"], strict=True))
        for name, made in answers.items()
    }
    print(f"  answers that differ from the prompt alone: {', '.join(f'{name} {n}' for name, n in moved.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
