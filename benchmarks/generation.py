"""`judge generate` with the embedded model against a plain script on CTranslate2: generated tokens per second of wall
time and of CPU, as ratios in one run.

    python benchmarks/generation.py --prompts 32 --rounds 3 --max-tokens 48

"Ours" is all of it: prompts read and checked, journal with an intent and a reply for each answer, answer file written.
"Plain" is what a script does: every prompt through the tokenizer and one `generate_batch(..., max_batch_size=8)`, whose
answers depend on their neighbours (rows of unlike length share a computation), kept in memory; "plain alone" is the
same with one prompt a batch, whose answers do not. Rounds alternate between the sides and take new prompts, so that a
busy machine slows all. The last line counts answers of plain batches that differ from those of the same prompts alone;
for ours that count must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from judge.backends.generators import LocalGenerator, Settings
from judge.backends.language_model import LanguageModel, open_language_model
from judge.generation import GenerationPlan, generate
from judge.prompts import Asking, open_prompts
from judge.types import JudgeId

Side = Callable[[list[str]], list[tuple[str, int]]]

THINGS = ("a river", "the moon", "bread", "a small town", "steel", "an old violin", "rain", "the number seven")
TASKS = (
    "Explain {} to a child.",
    "Write three sentences about {}.",
    "What would a poet say about {}, and what would an engineer say?",
    "List some uses of {} and give a reason for each.",
    "Compare {} with something that is quite unlike it. Say first what they share, then what parts them.",
    "Why do people care about {}? Answer in one paragraph without using a list.",
)


def prompts_of(count: int, skip: int, *, spread: bool) -> list[str]:
    """Distinct prompts: made from a few templates, so that lengths repeat, or ``spread`` over some 150 lengths."""
    made = []
    for n in range(skip, skip + count):
        text = f"{TASKS[n % len(TASKS)].format(THINGS[n * 5 % len(THINGS)])} ({n})"
        words = [THINGS[n * k % len(THINGS)].split()[-1] for k in range(n * 37 % 149)] if spread else []
        made.append(f"{text} Use some of these words: {' '.join(words)}." if words else text)
    return made


def measured(side: Side, texts: list[str]) -> tuple[list[str], float, float]:
    """Texts, generated tokens per wall second and per CPU second (all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = side(texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = sum(count for _, count in made)
    return [text for text, _ in made], tokens / wall, tokens / cpu


def ours(model: LanguageModel, texts: list[str], most: int) -> list[tuple[str, int]]:
    """Answers by the whole path of `judge generate`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [orjson.dumps({"id": str(n), "prompt": text}) + b"\n" for n, text in enumerate(texts)]
        (folder / "e.jsonl").write_bytes(b"".join(rows))
        output = folder / "o.jsonl"
        prompts = open_prompts(folder / "e.jsonl")
        plan = GenerationPlan(output, prompts, Asking(), "local", "2026-01-01T00:00:00+00:00")
        asyncio.run(generate(plan, LocalGenerator(model, JudgeId("local"), Settings(most))))
        found = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    return [(row["text"], row["tokens"]) for row in found]


def plain(model: LanguageModel, texts: list[str], most: int, batch: int) -> list[tuple[str, int]]:
    """Answers by one call of CTranslate2."""
    engine: Any = model._generator  # noqa: SLF001 - the very same weights and threads
    names = model._token  # noqa: SLF001
    ids = [model.conversation([{"role": "user", "content": text}]) for text in texts]
    queued = engine.generate_batch(
        [[names[number] for number in one] for one in ids],
        max_batch_size=batch,
        max_length=most,
        include_prompt_in_result=False,
        end_token=names[2],
        asynchronous=True,
    )
    made = [one.result().sequences_ids[0] for one in queued]
    return [(model.decode(one), len(one)) for one in made]


def compare(sides: Mapping[str, Side], rounds: int, size: int, *, spread: bool) -> None:
    """Alternate the sides over the rounds; print rates, ratios and how many answers depend on their neighbours."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    moved = dict.fromkeys(sides, 0)
    for number in range(rounds):
        texts = prompts_of(size, number * size, spread=spread)
        order = list(sides)[number % 3 :] + list(sides)[: number % 3]
        answers = {}
        for name in order:
            answers[name], wall, cpu = measured(sides[name], texts)
            rates[name].append((wall, cpu))
        for name, made in answers.items():
            moved[name] += sum(one != alone for one, alone in zip(made, answers["plain alone"], strict=True))
    for name, found in rates.items():
        ratios = [
            [mine / theirs for mine, theirs in zip(one, base, strict=True)]
            for one, base in zip(rates["ours"], found, strict=True)
        ]
        wall, cpu = (statistics.median(pair[k] for pair in found) for k in (0, 1))
        against = [statistics.median(pair[k] for pair in ratios) for k in (0, 1)]
        print(
            f"  {name:14} {wall:6.1f} tokens/s  {cpu:6.1f} tokens/CPU-s   ours is {against[0]:.2f}x wall, "
            f"{against[1]:.2f}x CPU   {moved[name]} of {size * rounds} answers differ from those alone"
        )
    if moved["ours"]:
        raise SystemExit("answers of judge generate depend on their neighbours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    model = open_language_model(threads=options.threads)
    most = options.max_tokens
    sides: dict[str, Side] = {
        "ours": lambda texts: ours(model, texts, most),
        "plain batch 8": lambda texts: plain(model, texts, most, 8),
        "plain alone": lambda texts: plain(model, texts, most, 1),
    }
    for side in sides.values():
        side(prompts_of(4, 10_000, spread=False))
    print(f"{options.rounds} rounds of {options.prompts} prompts, at most {most} tokens, {model.threads} threads, int8")
    for spread in (False, True):
        print("lengths spread over some 150:" if spread else "lengths of a few templates:")
        compare(sides, options.rounds, options.prompts, spread=spread)


if __name__ == "__main__":
    main()
