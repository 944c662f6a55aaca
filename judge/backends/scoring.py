"""From what the embedded model measured to P(first), P(tie), P(second): formulas only, no model.

A pointwise method gives each answer one score; the pair's difference d, divided by the method's scale, goes through the
model of Rao and Kupper (1967, JASA 62:194): with x = d / scale and threshold ln 2,

    P(first) = 1 / (1 + 2 exp(-x)),   P(second) = 1 / (1 + 2 exp(x)),   P(tie) = 1 - P(first) - P(second).

The threshold is chosen by theory, not fitted: at equal scores the three outcomes are equally likely, so the model
claims nothing it does not know, and the more probable side is always the one with the higher score. Exchanging the
answers exchanges the probabilities bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["METHODS", "Method", "MethodName", "answer_score", "blindness", "label_probabilities", "probabilities"]

MethodName = Literal["labels", "yesno", "rating", "likelihood", "pmi-mean", "pmi-sum", "pmi-root", "blend"]

_DIRECT = {"yesno": "yes", "rating": "rating"}

LIMIT = 6.0
"""Largest |x|: no single comparison of this model may claim more than P = 0.995. An answer of white space only has a
score of minus infinity and loses to any other answer with that limit.
"""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to score: the measures it needs, and the score difference (in the method's own unit) that counts as x =
    1.
    """

    needs: tuple[str, ...]
    scale: float = 1.0


METHODS: Mapping[str, Method] = {
    "labels": Method(("labels",)),
    "yesno": Method(("yesno",), scale=0.38),
    "rating": Method(("rating",), scale=0.15),
    "likelihood": Method(("given",), scale=3.8),
    "pmi-mean": Method(("given", "free"), scale=2.2),
    "pmi-sum": Method(("given", "free"), scale=27.0),
    "pmi-root": Method(("given", "free"), scale=4.2),
    "blend": Method(("given", "free"), scale=3.1),
}
assert set(METHODS) == set(get_args(MethodName))

BLEND: Mapping[str, float] = {"pmi-root": 1.0, "end": 0.2}
END_UNKNOWN = -2.7
"""Stands for the log-probability of the end of an answer that was cut to the budget, so that being cut neither helps
nor hurts much: the mean over the sound answers of the fit set.
"""


def blindness(method: str) -> str:
    """What every report of a judge with this method must say about what it does not look at."""
    if method == "labels":
        return ""
    return (
        f"Its method {method} scores each answer alone and does not read the rubric; flips and first place cannot show "
        "anything about it."
    )


def answer_score(method: str, values: Mapping[str, float]) -> float:
    """One answer's score under a pointwise method; higher is better, minus infinity for an answer of white space only
    (no values).

    ``values`` are the measures of ``judge.backends.measures``, n is the number of the answer's tokens. ``likelihood``:
    mean log p(token | question). ``pmi-sum``: log p(answer | question) - log p(answer), the pointwise mutual
    information of question and answer in nats; ``pmi-mean`` = pmi-sum / n; ``pmi-root`` = pmi-sum / sqrt(n): a sum of n
    like terms deviates from its mean by sqrt(n), so this one neither follows length as the sum does nor shortness as
    the mean does. ``blend``: pmi-root and the log-probability that the answer ends where it ends, weighted by
    ``BLEND``.
    """
    if not values:
        return -math.inf
    if method in _DIRECT:
        return values[_DIRECT[method]]
    tokens = max(values["tokens"], 1.0)
    if method == "likelihood":
        return values["given"] / tokens
    pmi = values["given"] - values["free"]
    if method == "pmi-sum":
        return pmi
    if method == "pmi-mean":
        return pmi / tokens
    root = pmi / math.sqrt(tokens)
    if method == "pmi-root":
        return root
    return BLEND["pmi-root"] * root + BLEND["end"] * values.get("end", END_UNKNOWN)


def probabilities(first: float, second: float, *, scale: float) -> tuple[float, float, float]:
    """P(first), P(tie), P(second) from two scores (see the module's formula).

    >>> [round(p, 3) for p in probabilities(0.0, 0.0, scale=1.0)]
    [0.333, 0.333, 0.333]
    >>> probabilities(2.0, 1.0, scale=0.5) == probabilities(1.0, 2.0, scale=0.5)[::-1]
    True
    """
    x = 0.0 if first == second else (first - second) / scale
    x = min(max(x, -LIMIT), LIMIT)
    win, loss = 1 / (1 + 2 * math.exp(-x)), 1 / (1 + 2 * math.exp(x))
    return win, 1 - (win + loss), loss


def label_probabilities(logprobs: Sequence[float]) -> tuple[float, float, float]:
    """P(first), P(tie), P(second) from the log-probabilities of three labels: renormalised over the three."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    total = math.fsum(weights)
    first, tie, second = (weight / total for weight in weights)
    return first, tie, second
