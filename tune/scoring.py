"""Log-probabilities of answers: the part of DPO that costs the time, so it is done once and without padding.

The output layer is the widest matrix of a small model. It is applied to the places alone whose next token belongs to an
answer, a few rows at a time. Where it is frozen (LoRA), the gradient of a token's log-probability with respect to its
hidden state does not depend on what comes after: it is W[target] - softmax(logits) W, computed in the forward pass and
scaled by the incoming gradient in the backward pass. So logits are never kept and never computed twice.

A model whose logits are not hidden states times that matrix (a soft cap, a scale) or that does not take the row's mask
fails ``prove``, and the caller falls back to ``plain_logprobs`` and says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy, linear

from .packing import Encoded, Row, row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["Scored", "Scorer", "plain_logprobs", "prove", "split"]

_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities (nats) and entropies (nats, no gradient) of a row's answer tokens, answer after answer."""

    logprobs: Tensor
    entropy: Tensor
    lengths: tuple[int, ...]


class _FrozenHead(torch.autograd.Function):  # type: ignore[misc]
    """Log-probability and entropy of targets under a frozen output layer; see the module."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for begin in range(0, len(targets), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            goal = targets[part]
            logits = linear(hidden[part], weight).float()
            logits -= logits.logsumexp(-1, keepdim=True)
            logprobs[part] = logits.gather(-1, goal[:, None])[:, 0]
            probabilities = logits.exp()
            entropy[part] = -torch.linalg.vecdot(probabilities, logits)
            if slopes is not None:
                slopes[part] = weight[goal] - probabilities.to(weight.dtype) @ weight
        ctx.save_for_backward(*([slopes] if slopes is not None else []))
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0][:, None].to(slopes.dtype), None, None


class Scorer:
    """Scores rows with one model; ``network`` is the causal language model itself, with adapters put in place or not.

    ``packed`` says whether rows are computed as they are (proved to be equal) or sequence by sequence.
    """

    def __init__(self, network: Any, *, packed: bool = True) -> None:
        self.network = network
        self.packed = packed
        self._body = network.get_decoder()
        self._head = network.get_output_embeddings()

    def __call__(self, row: Row) -> Scored:
        """Log-probabilities of the answers of a row."""
        if not self.packed:
            return _apart(self.network, row)
        hidden = self.hidden(row)[0, row.predicts]
        return Scored(*self.from_hidden(hidden, row.targets), row.lengths)

    def hidden(self, row: Row) -> Tensor:
        """Last hidden states of a row, shape [1, T, H]."""
        states: Tensor = self._body(
            input_ids=row.ids, attention_mask=row.mask, position_ids=row.positions, use_cache=False
        ).last_hidden_state
        return states

    def from_hidden(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of targets, from the hidden states that predict them."""
        weight, bias = self._head.weight, getattr(self._head, "bias", None)
        if not weight.requires_grad and bias is None and type(self._head) is torch.nn.Linear:
            found: tuple[Tensor, Tensor] = _FrozenHead.apply(hidden, weight, targets)
            return found
        return _of_logits(self._head(hidden), targets)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states in float32."""
        logits: Tensor = self._head(hidden).float()
        return logits


def split(scored: Scored) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities of each chosen and of each rejected answer, token by token."""
    parts = scored.logprobs.split(list(scored.lengths))
    return list(parts[0::2]), list(parts[1::2])


def plain_logprobs(network: Any, prompt: Sequence[int], answer: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of one answer's tokens the plain way: the whole sequence, alone, all logits."""
    ids = torch.tensor([[*prompt, *answer]], device=network.device)
    logits = network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return _of_logits(logits, ids[0, len(prompt) :])


def prove(network: Any, pairs: Sequence[Encoded], *, tolerance: float) -> tuple[bool, float]:
    """Whether the packed way gives this model's log-probabilities of some pairs, and the largest difference in nats."""
    worst = 0.0
    with torch.no_grad():
        try:
            packed = Scorer(network)(row_of(pairs, network.device)).logprobs
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return False, float("inf")  # a model that takes no such mask, or has no single output layer
        plain = torch.cat(
            [
                plain_logprobs(network, pair.prompt, answer)[0]
                for pair in pairs
                for answer in (pair.chosen, pair.rejected)
            ]
        )
        worst = (packed - plain).abs().max().item()
    return worst <= tolerance, worst


def _apart(network: Any, row: Row) -> Scored:
    found = [
        plain_logprobs(network, pair.prompt, answer) for pair in row.pairs for answer in (pair.chosen, pair.rejected)
    ]
    return Scored(torch.cat([one[0] for one in found]), torch.cat([one[1] for one in found]), row.lengths)


def _of_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    logprobs = -cross_entropy(logits, targets, reduction="none")
    with torch.no_grad():
        logs = logits.log_softmax(-1)
        entropy = -torch.linalg.vecdot(logs.exp(), logs)
    return logprobs, entropy
