"""Answers of a base or a candidate, many at a time: the file that ``judge run --candidate`` and ``--baseline`` read.

Prompts are sorted by length and computed in batches, padded on the left, with a cache of keys and values; a row that
has ended leaves its batch, so that the last long answer does not pay for the others. Sampling draws from a generator of
each item's own seed: an answer depends on its neighbours through rounding alone (a near tie between two tokens can fall
the other way; ``batch=1`` rules that out).

What is answered is appended to ``OUTPUT.answers`` as it comes: the same call again after an interruption goes on there.
The output appears whole, in the order of the prompts.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from judge.answers import Tally, row_of, tally, write_answers
from judge.backends.chat import Generation
from judge.errors import InputError
from judge.prompts import Asking, Prompt, PromptSet
from judge.types import JudgeId, Usage

if TYPE_CHECKING:
    from torch import Tensor

    from judge.backends.hf import HuggingFaceModel

__all__ = ["Decoding", "Made", "Speaker", "decode", "write_answer_file"]

_TOP = 50


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are made: tokens at most, temperature (0 is greedy), prompts in one batch, seed of the run."""

    max_tokens: int = 256
    temperature: float = 0.0
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """The tokens of one answer without its end, whether it ended by itself, and milliseconds since its batch began."""

    ids: list[int]
    ended: bool
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Speaker:
    """A model that answers: its network (adapters in place or merged), its text encoder, and what it is called."""

    network: Any
    tokenizer: Any
    text: HuggingFaceModel
    id: JudgeId
    ends: frozenset[int]

    @classmethod
    def of(cls, network: Any, tokenizer: Any, text: HuggingFaceModel, name: JudgeId) -> Speaker:
        """A speaker whose turns end as its tokenizer and chat template say."""
        ends = {text.end} | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
        return cls(network, tokenizer, text, name, frozenset(ends))


def decode(
    speaker: Speaker, prompts: Sequence[Sequence[int]], how: Decoding, seeds: Sequence[int] | None = None
) -> list[Made]:
    """Continue every prompt (token ids); the k-th answer belongs to the k-th prompt."""
    import torch

    order = sorted(range(len(prompts)), key=lambda k: (len(prompts[k]), k))
    found: dict[int, Made] = {}
    with torch.inference_mode():
        for begin in range(0, len(order), how.batch):
            part = order[begin : begin + how.batch]
            draws = [_generator(speaker, seeds[k] if seeds else how.seed) for k in part] if how.temperature else []
            made = _decode_batch(speaker, [prompts[k] for k in part], how, draws)
            found |= dict(zip(part, made, strict=True))
    return [found[k] for k in range(len(prompts))]


def _decode_batch(speaker: Speaker, prompts: list[Sequence[int]], how: Decoding, draws: list[Any]) -> list[Made]:
    import torch
    from transformers import DynamicCache

    network, started = speaker.network, time.monotonic()
    device, width = network.device, max(len(prompt) for prompt in prompts)
    padded = [[speaker.text.end] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    ids = torch.tensor(padded, device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=network.config)
    alive = list(range(len(prompts)))
    answers: list[list[int]] = [[] for _ in prompts]
    made: dict[int, Made] = {}
    for step in range(how.max_tokens):
        logits = network(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip
        tokens = _next(logits, how, [draws[k] for k in alive] if draws else [])
        kept: list[int] = []
        for row, (k, token) in enumerate(zip(alive, tokens, strict=True)):
            ended = token in speaker.ends
            if not ended:
                answers[k].append(token)
            if ended or step + 1 == how.max_tokens:
                made[k] = Made(answers[k], ended, round(1000 * (time.monotonic() - started), 3))
            else:
                kept.append(row)
        if not kept:
            break
        if len(kept) < len(alive):
            rows = torch.tensor(kept, device=device)
            cache.batch_select_indices(rows)
            mask, positions = mask[rows], positions[rows]
            alive = [alive[row] for row in kept]
        ids = torch.tensor([[answers[k][-1]] for k in alive], device=device)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [made[k] for k in range(len(prompts))]


def _next(logits: Tensor, how: Decoding, draws: list[Any]) -> list[int]:
    """The next token of each row: the likeliest, or one drawn from the 50 likeliest by the row's own generator."""
    import torch

    if how.temperature == 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    top = logits.float().topk(min(_TOP, logits.shape[-1]), dim=-1)
    weights = (top.values / how.temperature).softmax(-1)
    picked = [
        torch.multinomial(weights[row], 1, generator=draw).item() for row, draw in enumerate(draws)
    ]  # each row by its own generator, so that no row's luck depends on another's
    return [int(top.indices[row, int(place)]) for row, place in enumerate(picked)]


def _generator(speaker: Speaker, seed: int) -> Any:
    import torch

    return torch.Generator(device=speaker.network.device).manual_seed(seed)


def write_answer_file(
    speaker: Speaker,
    prompts: PromptSet,
    output: Path,
    how: Decoding,
    *,
    asking: Asking | None = None,
    report: Callable[[int, int, int], None] | None = None,
) -> Tally:
    """Answer every prompt of a set and write the answer file; an earlier, interrupted start is continued.

    ``report`` gets prompts answered, all prompts, tokens so far. Raises ``InputError`` where the output was begun with
    another model, prompt set or setting, where an item brings tools, or where a prompt leaves no room for an answer.
    """
    asked = asking or Asking(seed=how.seed)
    if prompts.with_tools:
        raise InputError(f"{prompts.source}: {prompts.with_tools} items bring tools, and this model takes none")
    todo = list(prompts.prompts(asked))
    rows = output.with_name(f"{output.name}.answers")
    head = {
        "model": asdict(speaker.id), "prompts": prompts.digest, "how": asdict(how), "asking": asdict(asked)
    }  # fmt: skip
    if output.exists() and not rows.exists():
        raise InputError(f"{output}: the file exists and was not made here; name another output")
    done = _begun(rows, head)
    with _appending(rows, head) as file:
        for group in _batches([one for one in todo if one.id not in done], speaker, how):
            made = decode(speaker, [ids for _, ids in group], how, [prompt.seed for prompt, _ in group])
            for (prompt, ids), one in zip(group, made, strict=True):
                row = _row(speaker, prompt, len(ids), one)
                done[prompt.id] = row
                file.write(orjson.dumps(row) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            if report is not None:
                report(len(done), len(todo), sum(int(row["tokens"]) for row in done.values()))
    found = [done[prompt.id] for prompt in todo]
    write_answers(output, found)
    return tally(found)


def _batches(todo: list[Prompt], speaker: Speaker, how: Decoding) -> Iterator[list[tuple[Prompt, list[int]]]]:
    """Prompts with their tokens, the shortest first, a batch at a time."""
    encoded = [(prompt, speaker.text.conversation(prompt.messages)) for prompt in todo]
    for prompt, ids in encoded:
        if len(ids) >= speaker.text.context:
            raise InputError(f"prompt {prompt.id!r} has {len(ids):,} tokens, the model takes {speaker.text.context:,}")
    encoded.sort(key=lambda one: len(one[1]))
    for begin in range(0, len(encoded), how.batch):
        yield encoded[begin : begin + how.batch]


def _row(speaker: Speaker, prompt: Prompt, size: int, made: Made) -> dict[str, Any]:
    text = speaker.tokenizer.decode(made.ids, skip_special_tokens=True)
    return row_of(
        prompt.id,
        speaker.id,
        Generation(
            text=text,
            finish="stop" if made.ended else "length",
            usage=Usage(size, len(made.ids) + made.ended, 0.0),
            latency_ms=made.latency_ms,
        ),
    )


def _begun(rows: Path, head: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier start answered, by id; a torn last line is left out."""
    if not rows.exists():
        return {}
    lines = [line for line in rows.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    was = orjson.loads(lines[0])["head"] if lines else ""
    if lines and was != _digest(head):
        raise InputError(
            f"{rows}: begun with another model, prompt set or setting; name another output, or remove this file"
        )
    return {row["id"]: row for row in map(orjson.loads, lines[1:])}


@contextmanager
def _appending(rows: Path, head: dict[str, Any]) -> Iterator[BinaryIO]:
    whole = 0
    if rows.exists():
        text = rows.read_bytes()
        whole = text.rfind(b"\n") + 1
    with rows.open("r+b" if rows.exists() else "wb") as file:
        file.truncate(whole)
        file.seek(whole)
        if whole == 0:
            file.write(orjson.dumps({"head": _digest(head)}) + b"\n")
        yield file


def _digest(head: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(head, option=orjson.OPT_SORT_KEYS)).hexdigest()
