"""The embedded judge against plain transformers judging of the same pairs: comparisons per CPU-second, as a ratio in
one run.

    python benchmarks/local_speed.py --gold ../shared/gold --pairs 40 --rounds 3

Both sides judge the same pairs in both orders with the same prompts and the same method on one thread. "Plain" is what
a script with transformers does: float32, one full forward pass for every text of every (pair, order), nothing
remembered. Rounds alternate between the sides, so that a busy machine slows both. CPU time is that of the whole process
with all its threads. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from embedded_judge import SETS, Row, label_asks, read

from judge.backends import smollm2
from judge.backends.language_model import BUDGET, open_language_model
from judge.backends.local import LocalBackend
from judge.backends.measures import Request, Unit, finish, prepare, units_of
from judge.backends.scoring import METHODS

if TYPE_CHECKING:
    from judge.types import Ask

FILLER = tuple(
    Row(
        "made",
        str(n),
        f"Explain point {n} of the plan.",
        "It works step by step. " * (6 + n),
        "Nobody knows it. " * (4 + 2 * n),
        1,
    )
    for n in range(40)
)


class Plain:
    """A straightforward judge on transformers: one full forward pass per text, float32."""

    def __init__(self, encoder: Any) -> None:
        import torch
        import transformers

        torch.set_num_threads(1)
        weights = {name: torch.from_numpy(array) for name, array in smollm2.checkpoint(smollm2.gguf_file())}
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        self.network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**smollm2.CONFIG)).eval()
        self.network.load_state_dict(weights, strict=True)
        self.encoder = encoder
        self.budget = BUDGET

    def logprobs(self, request: Request) -> list[float]:
        """Log-probabilities by one full forward pass."""
        import torch

        with torch.inference_mode():
            ids = request.prompt if request.choice else request.prompt + request.continuation[:-1]
            logits = self.network(torch.tensor([ids])).logits[0]
            table = torch.log_softmax(logits[len(request.prompt) - 1 :], -1)
            rows = [0] * len(request.continuation) if request.choice else list(range(len(request.continuation)))
            return [float(table[row, token]) for row, token in zip(rows, request.continuation, strict=True)]

    def judge(self, asks: list[Ask], method: str) -> dict[bytes, dict[str, float]]:
        """Every unit of every ask anew."""
        found = {}
        for ask in asks:
            for unit in units_of(ask, METHODS[method].needs):
                request = prepare(self.encoder, unit)
                found[unit.key] = finish(unit, request, self.logprobs(request))
        return found


def cpu(action: Any) -> tuple[Any, float]:
    """A result and the CPU seconds of this process that it took."""
    begun = time.process_time()
    value = action()
    return value, time.process_time() - begun


def worst(ours: dict[bytes, Any], theirs: dict[bytes, Any]) -> tuple[float, float]:
    """Largest difference of a sum of log-probabilities, in nats, absolute and per token of its text."""
    total = token = 0.0
    for key, values in theirs.items():
        for name in ("given", "free", "first", "second", "tie", "yes"):
            if name in values:
                difference = abs(values[name] - ours[key][name])
                total, token = max(total, difference), max(token, difference / max(values.get("tokens", 1.0), 1.0))
    return total, token


def compare(method: str, rows: list[Row], rounds: int, plain: Plain, engines: dict[str, Any]) -> None:
    """Alternate the sides over the rounds and print rates, ratios and differences."""
    spent: dict[str, list[float]] = {name: [] for name in ("plain", *engines)}
    gaps = dict.fromkeys(engines, (0.0, 0.0))
    size = len(rows) // rounds
    for number in range(rounds):
        asks = [ask for row in rows[number * size : (number + 1) * size] for ask in label_asks(row)]
        theirs, seconds = cpu(lambda asks=asks: plain.judge(asks, method))
        spent["plain"].append(size / seconds)
        for name, engine in engines.items():
            backend = LocalBackend(engine, method=method)
            _, seconds = cpu(lambda asks=asks, backend=backend: asyncio.run(backend.ask(asks)))
            spent[name].append(size / seconds)
            gaps[name] = max(gaps[name], worst(backend._memory, theirs))  # type: ignore[arg-type]  # noqa: SLF001
    for name, rates in spent.items():
        ratios = [rate / base for rate, base in zip(rates, spent["plain"], strict=True)]
        gap = f", largest gap {gaps[name][0]:.4f} nat" if name in gaps else ""
        print(
            f"{method:9} {name:14} {statistics.median(rates):6.3f} comparisons/CPU-s, "
            f"ratio {statistics.median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f}){gap}"
        )
    if gaps["local float32"][0] > TOLERANCE:
        raise SystemExit(
            f"float32 differs from transformers by {gaps['local float32'][0]:.4f} nat, more than {TOLERANCE}"
        )


TOLERANCE = 0.02
"""Largest difference between float32 CTranslate2 and torch in the sum of log-probabilities of one text (up to 640
tokens), in nats.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", type=Path, default=Path("../shared/gold"))
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default="blend,labels")
    options = parser.parse_args()
    rows = list(FILLER)
    if options.gold.is_dir():
        sets = [read(options.gold, name) for name in SETS]
        rows = [row for group in zip(*sets, strict=False) for row in group]
    rows = rows[: options.pairs]
    engines = {f"local {name}": open_language_model(compute=name, threads=1) for name in ("float32", "int8")}  # type: ignore[arg-type]
    plain = Plain(engines["local float32"])
    # One throw-away judgement a side: the first call pays for allocations.
    for engine in engines.values():
        engine.token_logprobs(engine.chat([]), engine.encode("warm up"))
    plain.logprobs(prepare(plain.encoder, Unit("free", "", "warm up")))
    print(f"{len(rows)} pairs, both orders, one thread, {options.rounds} rounds")
    for method in options.methods.split(","):
        compare(method, rows, options.rounds, plain, engines)


if __name__ == "__main__":
    main()
