"""The losses of preference tuning, as pure functions of log-probabilities; no model, no data, no optimiser.

Every loss is one function f of one signed margin z, and the pair's label is the probability p that the chosen answer is
the better one:

    loss = p * f(z) + (1 - p) * f(-z)

so a pair of which the labellers are sure (p = 1) costs f(z), and a toss-up (p = 1/2) pulls z to zero. With the sigmoid
the minimum lies at z = logit(p): a calibrated p keeps margins finite, where a hard label pushes them on without end.
What differs between the kinds is z and f:

    kind          z                                              f(z)
    sigmoid       beta * (rw - rl)                               -log sigmoid(z)           DPO, arXiv:2305.18290
    hinge         beta * (rw - rl)                               max(0, 1 - z)             SLiC, arXiv:2305.10425
    robust        beta * (rw - rl)                               ((1-e) s(z) - e s(-z)) / (1-2e), s = -log sigmoid
                                                                                           arXiv:2403.00409
    ipo           rw / nw - rl / nl                              (z - 1 / (2 beta))^2      arXiv:2310.12036, per token
    sigmoid_norm  beta * (rw / nw - rl / nl)                     -log sigmoid(z)           length-normalised DPO
    simpo         beta * (lw / nw - ll / nl), no reference       -log sigmoid(z - gamma)   arXiv:2405.14734

with r = log pi - log pi_ref of an answer, l = log pi, n its tokens. ``flip`` is e: for ``robust`` as above, for the
others it smooths the label (conservative DPO), p -> p (1-e) + (1-p) e. ``length_penalty`` adds alpha * (nw - nl) to z
(R-DPO, arXiv:2403.19159: the implicit reward of length is taken out). ``tail`` below 1 counts the tokens beyond the
shorter answer's length by that share (LD-DPO, arXiv:2409.06411), in policy and reference alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from judge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KINDS", "Kind", "Loss", "Scores", "desensitised", "margin", "pair_losses", "rewards"]

Kind = Literal["sigmoid", "hinge", "robust", "ipo", "sigmoid_norm", "simpo"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Loss:
    """Which loss, and its constants; see the module for what they mean.

    >>> Loss("sigmoid", beta=0.1, tail=0.5).uses_reference
    True

    Raises ``InputError`` for a kind that does not exist or a constant outside its range.
    """

    kind: Kind = "sigmoid"
    beta: float = 0.1
    flip: float = 0.0
    length_penalty: float = 0.0
    tail: float = 1.0
    gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"loss {self.kind!r}: choose one of {', '.join(KINDS)}")
        if not 0 < self.beta < float("inf"):
            raise InputError(f"beta {self.beta:g}: give a positive number, for example 0.1")
        if not 0 <= self.flip < 0.5:
            raise InputError(f"flip {self.flip:g}: the share of wrong labels lies in [0, 0.5)")
        if not 0 <= self.tail <= 1:
            raise InputError(f"tail {self.tail:g}: the weight of the tokens beyond the shorter answer lies in [0, 1]")
        if self.gamma and self.kind != "simpo":
            raise InputError("gamma is the target margin of simpo; the other losses have none")

    @property
    def uses_reference(self) -> bool:
        """Whether the loss looks at the reference model at all."""
        return self.kind != "simpo"


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of n pairs, in nats: tensors of shape [n], sums over an answer's tokens.

    ``chosen`` and ``rejected`` under the policy, ``ref_chosen`` and ``ref_rejected`` under the reference (zeros for a
    loss without one); ``chosen_tokens`` and ``rejected_tokens`` count the tokens of each answer, its end included.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


def desensitised(shared: Tensor, beyond: Tensor, tail: float) -> Tensor:
    """The log-probability of an answer whose tokens beyond the shorter answer's length count by the share ``tail``."""
    return shared + tail * beyond


def rewards(scores: Scores, loss: Loss) -> tuple[Tensor, Tensor]:
    """Implicit rewards of the chosen and the rejected answers: beta times the log ratio to the reference.

    For ``simpo`` beta times the mean log-probability of a token.
    """
    if loss.kind == "simpo":
        return (
            loss.beta * scores.chosen / scores.chosen_tokens,
            loss.beta * scores.rejected / scores.rejected_tokens,
        )
    return loss.beta * (scores.chosen - scores.ref_chosen), loss.beta * (scores.rejected - scores.ref_rejected)


def margin(scores: Scores, loss: Loss) -> Tensor:
    """The signed margin z of each pair; swapping the answers of a pair turns its sign."""
    chosen, rejected = scores.chosen - scores.ref_chosen, scores.rejected - scores.ref_rejected
    if loss.kind == "simpo":
        z = loss.beta * (scores.chosen / scores.chosen_tokens - scores.rejected / scores.rejected_tokens)
    elif loss.kind == "ipo":
        z = chosen / scores.chosen_tokens - rejected / scores.rejected_tokens
    elif loss.kind == "sigmoid_norm":
        z = loss.beta * (chosen / scores.chosen_tokens - rejected / scores.rejected_tokens)
    else:
        z = loss.beta * (chosen - rejected)
    if loss.length_penalty:
        z = z + loss.length_penalty * (scores.chosen_tokens - scores.rejected_tokens)
    return z


def pair_losses(scores: Scores, p: Tensor, loss: Loss) -> Tensor:
    """The loss of each pair, where ``p`` is the probability that its chosen answer is the better one.

    >>> import torch
    >>> one = torch.ones(1)
    >>> scores = Scores(-40 * one, -45 * one, -42 * one, -44 * one, 50 * one, 40 * one)
    >>> round(pair_losses(scores, one, Loss("sigmoid", beta=0.1)).item(), 6)
    0.554355
    """
    z = margin(scores, loss)
    if loss.kind != "robust" and loss.flip:
        p = p * (1 - loss.flip) + (1 - p) * loss.flip
    return p * _cost(z, loss) + (1 - p) * _cost(-z, loss)


def _cost(z: Tensor, loss: Loss) -> Tensor:
    """The function f of the module's table."""
    from torch.nn.functional import logsigmoid

    if loss.kind == "hinge":
        return (1 - z).clamp(min=0)
    if loss.kind == "ipo":
        return (z - 1 / (2 * loss.beta)) ** 2
    if loss.kind == "robust":
        kept, flipped = -logsigmoid(z), -logsigmoid(-z)
        return ((1 - loss.flip) * kept - loss.flip * flipped) / (1 - 2 * loss.flip)
    return -logsigmoid(z - loss.gamma)
