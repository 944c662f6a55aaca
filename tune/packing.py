"""Preference pairs as token ids, and several of them in one row without padding.

A row holds ``prompt chosen rejected`` of one pair after the other. Every prompt stands there once, for both answers;
a mask lets a token see its own prompt and what stands before it in its own answer, and nothing else, and the rejected
answer's positions begin where the prompt ends. The log-probabilities are those of the two sequences computed apart
(held by a test, and checked again on the model at hand before a training starts), and no position is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from judge.errors import InputError

from .preferences import Preference

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Encoded", "Problem", "Row", "encode", "pack", "row_of"]

_SHOWN = 8


class Encoder(Protocol):
    """A tokenizer with a chat template (``judge.backends.hf.HuggingFaceModel`` is one)."""

    end: int

    def encode(self, text: str) -> list[int]: ...
    def conversation(self, messages: Sequence[Any]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """One pair as token ids; each answer ends with the token that ends a turn, unless a limit cut it off. ``number`` is
    its place among the pairs, from 1.
    """

    id: str
    number: int
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    p: float = 1.0
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Positions that the pair takes in a row."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Problem:
    """One pair that cannot be trained on: its id and why."""

    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Row:
    """Several pairs in one row.

    ``ids`` and ``positions`` have shape [1, T], ``mask`` [1, 1, T, T] (true where a token may look). ``predicts`` are
    the places whose next token is an answer's, ``targets`` those tokens, answer after answer in the order chosen,
    rejected, chosen, ...; ``lengths`` counts the tokens of each answer.
    """

    pairs: tuple[Encoded, ...]
    ids: Tensor
    positions: Tensor
    mask: Tensor
    predicts: Tensor
    targets: Tensor
    lengths: tuple[int, ...]


def encode(
    pairs: Iterable[Preference], encoder: Encoder, *, most: int, skip_bad: bool = False
) -> tuple[list[Encoded], list[Problem]]:
    """Pairs as token ids, and those that cannot be used.

    Nothing is cut: a pair with a sequence of more than ``most`` tokens is a problem. Raises ``InputError`` listing the
    problems unless ``skip_bad``, and where no pair is left.
    """
    found: list[Encoded] = []
    problems: list[Problem] = []
    for number, pair in enumerate(pairs, 1):
        reason = _unusable(pair)
        if reason is None:
            made = _encoded(number, pair, encoder)
            longest = len(made.prompt) + max(len(made.chosen), len(made.rejected))
            if len(made.prompt) >= most:
                reason = f"the prompt has {len(made.prompt):,} tokens, the limit is {most:,} with its answer"
            elif longest > most:
                reason = f"prompt and answer have {longest:,} tokens, the limit is {most:,}"
            else:
                found.append(made)
        if reason is not None:
            problems.append(Problem(pair.id, reason))
    if problems and (not skip_bad or not found):
        lines = [f"{len(problems)} pairs cannot be trained on, {len(found)} can:"]
        lines += [f"  {problem}" for problem in problems[:_SHOWN]]
        lines += [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise InputError("\n".join([*lines, "correct them, raise --max-tokens, or pass --skip-bad to leave them out"]))
    if not found:
        raise InputError("there is no preference pair; give at least one with a prompt, chosen and rejected")
    return found, problems


def pack(pairs: Sequence[Encoded], budget: int) -> list[list[Encoded]]:
    """Pairs in rows of at most ``budget`` tokens (one pair more is never too much), longest first, in few rows."""
    rows: list[list[Encoded]] = []
    room: list[int] = []
    for pair in sorted(pairs, key=lambda one: (-one.tokens, one.number)):
        place = next((k for k, left in enumerate(room) if pair.tokens <= left), None)
        if place is None:
            rows.append([pair])
            room.append(budget - pair.tokens)
        else:
            rows[place].append(pair)
            room[place] -= pair.tokens
    return rows


def row_of(pairs: Sequence[Encoded], device: Any = "cpu") -> Row:
    """The tensors of one row."""
    import torch

    ids: list[int] = []
    positions: list[int] = []
    owner: list[int] = []
    part: list[int] = []
    predicts: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for k, pair in enumerate(pairs):
        start, turn = len(ids), len(pair.prompt)
        ids += pair.prompt
        positions += range(turn)
        owner += [k] * turn
        part += [0] * turn
        for number, answer in enumerate((pair.chosen, pair.rejected), 1):
            place = len(ids)
            predicts += [start + turn - 1, *range(place, place + len(answer) - 1)]
            targets += answer
            lengths.append(len(answer))
            # The last token of an answer is predicted and never read: it takes no place.
            ids += answer[:-1]
            positions += range(turn, turn + len(answer) - 1)
            owner += [k] * (len(answer) - 1)
            part += [number] * (len(answer) - 1)
    whose, which = torch.tensor(owner, device=device), torch.tensor(part, device=device)
    places = torch.arange(len(ids), device=device)
    mask = (
        (whose[:, None] == whose[None, :])
        & (places[:, None] >= places[None, :])
        & ((which[None, :] == 0) | (which[:, None] == which[None, :]))
    )
    return Row(
        tuple(pairs),
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        mask[None, None],
        torch.tensor(predicts, device=device),
        torch.tensor(targets, device=device),
        tuple(lengths),
    )


def _unusable(pair: Preference) -> str | None:
    for side, said in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if isinstance(said, tuple) and any(turn.get("tool_calls") for turn in said):
            return f"the {side} answer calls tools; only texts can be trained on"
        if not isinstance(said, str) and len(said) > 1:
            return f"the {side} answer has {len(said)} turns; only its one answer can be trained on"
    if not pair.rejected_text.strip():
        return "the rejected answer is empty"
    return "chosen and rejected are the same text" if pair.chosen_text == pair.rejected_text else None


def _encoded(number: int, pair: Preference, encoder: Encoder) -> Encoded:
    chosen, rejected = (
        (*encoder.encode(text), *(() if side in pair.cut else (encoder.end,)))
        for side, text in (("chosen", pair.chosen_text), ("rejected", pair.rejected_text))
    )
    prompt = tuple(encoder.conversation(pair.messages()))
    return Encoded(pair.id, number, prompt, chosen, rejected, float(pair.p), float(pair.weight))
