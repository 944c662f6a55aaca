"""What a training is stopped by and watched with: pairs it never saw, and its own answers to a few prompts.

A held-out pair counts as right where the implicit margin has the sign that its label says; a margin within rounding
(1e-5) of zero has none. Pairs of which the labellers are undecided (p = 1/2) are left out of that share. Calibration
compares sigmoid(margin) with p over both ways to name a pair's answers, because "chosen" always stands on one side. KL
is the mean over the tokens of the policy's own greedy answers of the exact divergence of the two next-token
distributions, policy from reference, in nats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from calibration.reliability import smooth_ece

from .generate import Decoding, Speaker, decode
from .losses import Loss, Scores, desensitised, margin, pair_losses, rewards
from .packing import Encoded, pack, row_of
from .scoring import Scored, Scorer, split

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["REFUSAL", "Reference", "Watched", "heldout_figures", "own_answers", "reference_of", "scores_of"]

Reference = dict[int, tuple[float, float, float, float]]
"""By a pair's number: the reference's log-probabilities of the chosen answer's tokens up to the shorter answer's length
and beyond it, and the same of the rejected answer."""

REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry|i (?:cannot|can't|can not|won't|am unable|'m unable|am not able)|"
    r"unable to (?:help|assist)|as an ai|not (?:able|appropriate) to)\b",
    re.IGNORECASE,
)
"""What counts as a refusal where it stands in the first 200 characters of an answer."""

_KL_ROWS = 32
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Watched:
    """What the policy's own answers are made with: a speaker, prompts (token ids), and a context in which its network
    is the reference (``None`` where all weights are trained, and there is no reference at hand).
    """

    speaker: Speaker
    prompts: Sequence[Sequence[int]]
    tokens: int
    without: Any = None


def reference_of(scorer: Scorer, pairs: Sequence[Encoded], budget: int) -> Reference:
    """Log-probabilities of pairs under the scorer's model as it is now."""
    found: Reference = {}
    with torch.no_grad():
        for group in pack(pairs, budget):
            chosen, rejected = split(scorer(row_of(group, scorer.network.device)))
            for pair, first, second in zip(group, chosen, rejected, strict=True):
                found[pair.number] = (*_halves(first, len(second)), *_halves(second, len(first)))
    return found


def _halves(logprobs: Tensor, other: int) -> tuple[float, float]:
    return logprobs[:other].double().sum().item(), logprobs[other:].double().sum().item()


def scores_of(scored: Scored, pairs: Sequence[Encoded], reference: Reference, loss: Loss) -> Scores:
    """The scores of a row's pairs as the losses take them."""
    chosen, rejected = split(scored)
    device = scored.logprobs.device

    def total(parts: list[Tensor], others: list[Tensor]) -> Tensor:
        sums = [
            desensitised(one[: len(other)].sum(), one[len(other) :].sum(), loss.tail)
            for one, other in zip(parts, others, strict=True)
        ]
        return torch.stack(sums)

    def known(side: int) -> Tensor:
        if not loss.uses_reference:
            return torch.zeros(len(pairs), device=device)
        values = [reference[pair.number][side : side + 2] for pair in pairs]
        return torch.tensor([shared + loss.tail * beyond for shared, beyond in values], device=device)

    def sizes(parts: list[Tensor]) -> Tensor:
        return torch.tensor([float(len(one)) for one in parts], device=device)

    return Scores(total(chosen, rejected), total(rejected, chosen), known(0), known(2), sizes(chosen), sizes(rejected))


def heldout_figures(
    scorer: Scorer, pairs: Sequence[Encoded], reference: Reference, loss: Loss, budget: int
) -> dict[str, Any]:
    """Loss, accuracy and calibration on held-out pairs, rewards, and how far the chosen answers have moved.

    ``displaced`` is the share of pairs whose chosen answer is less likely than under the reference (``None`` without).
    """
    groups = pack(pairs, budget)
    found: dict[int, tuple[float, float, float, float, float]] = {}
    with torch.no_grad():
        for group in groups:
            scores = scores_of(scorer(row_of(group, scorer.network.device)), group, reference, loss)
            p = torch.tensor([pair.p for pair in group], device=scorer.network.device)
            first, second = rewards(scores, loss)
            columns = (
                pair_losses(scores, p, loss),
                margin(scores, loss),
                first,
                second,
                scores.chosen - scores.ref_chosen,
            )
            for pair, *row in zip(group, *(column.tolist() for column in columns), strict=True):
                found[pair.number] = tuple(row)
    table = np.array([found[pair.number] for pair in pairs])
    label, weight = np.array([pair.p for pair in pairs]), np.array([pair.weight for pair in pairs])
    losses, z, chosen, rejected, moved = table.T
    decided = label != 0.5
    right = (np.sign(z) == np.sign(label - 0.5)) & (np.abs(z) > _ROUNDING)
    implied = 1 / (1 + np.exp(-np.clip(z, -50, 50)))
    return {
        "n": len(pairs),
        "loss": float(np.average(losses, weights=weight)),
        "accuracy": float(right[decided].mean()) if decided.any() else None,
        "ece": float(smooth_ece(np.concatenate([implied, 1 - implied]), np.concatenate([label, 1 - label]))),
        "margin": float(z.mean()),
        "reward_chosen": float(chosen.mean()),
        "reward_rejected": float(rejected.mean()),
        "chosen_moved": float(moved.mean()) if loss.uses_reference else None,
        "displaced": float((moved < -_ROUNDING).mean()) if loss.uses_reference else None,
    }


def own_answers(watched: Watched, scorer: Scorer) -> dict[str, Any]:
    """The policy's own greedy answers: tokens, share of refusals and of answers cut off, entropy and KL a token."""
    made = decode(watched.speaker, watched.prompts, Decoding(watched.tokens, batch=len(watched.prompts)))
    texts = [watched.speaker.tokenizer.decode(one.ids, skip_special_tokens=True) for one in made]
    figures: dict[str, Any] = {
        "n": len(made),
        "tokens": float(np.mean([len(one.ids) for one in made])),
        "cut": float(np.mean([not one.ended for one in made])),
        "refusals": float(np.mean([bool(REFUSAL.search(text[:200])) for text in texts])),
        "kl": None,
    }
    if watched.without is not None:
        divergence = [
            _divergence(scorer, [*prompt, *one.ids], len(one.ids) + 1, watched.without)
            for prompt, one in zip(watched.prompts, made, strict=True)
        ]
        figures["kl"] = float(np.average([kl for kl, _ in divergence], weights=[n for _, n in divergence]))
    return figures


def _divergence(scorer: Scorer, ids: Sequence[int], last: int, without: Any) -> tuple[float, int]:
    """Mean KL of the policy from the reference over the distributions that made the last tokens, and their number."""
    row = torch.tensor([list(ids)], device=scorer.network.device)
    with torch.no_grad():
        policy = _states(scorer, row)[-last:]
        context: AbstractContextManager[Any] = without()
        with context:
            reference = _states(scorer, row)[-last:]
        total = 0.0
        for begin in range(0, len(policy), _KL_ROWS):
            part = slice(begin, begin + _KL_ROWS)
            ours, theirs = (scorer.logits(states[part]).log_softmax(-1) for states in (policy, reference))
            total += (ours.exp() * (ours - theirs)).sum().item()
    return total / len(policy), len(policy)


def _states(scorer: Scorer, ids: Tensor) -> Tensor:
    states: Tensor = scorer.network.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
    return states
