"""What the embedded model is asked about one answer, or about one blind prompt: each measure is a few floats.

A measure depends on nothing but the texts it names, so it is computed once, remembered, and used for both orders of a pair and for
every pair the answer takes part in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .language_model import END

if TYPE_CHECKING:
    from ..types import Ask
    from .language_model import LanguageModel

__all__ = ["ANSWER_TOKENS", "QUESTION_TOKENS", "TEMPLATE", "Unit", "measure", "units_of"]

TEMPLATE = "t1"
"""Version of the prompts and budgets in this module; part of the judge's identity."""

QUESTION_TOKENS, ANSWER_TOKENS = 320, 640
"""Budgets of the pointwise measures, in tokens: a longer question loses its middle, a longer answer its end. Both answers of a pair
have the same budget, so truncation cannot favour one. With the template this keeps a sequence under 1,024 tokens (0.8 GB, 3 CPU-s)."""

SYSTEM_TOKENS, PAIR_QUESTION_TOKENS, PAIR_ANSWER_TOKENS = 1536, 288, 400
"""Budgets of the pairwise prompt of the ``labels`` method: at most about 2,700 tokens in all, of which the system part is shared."""

_FENCED = re.compile(r"^=== (?P<name>[^\n]{1,60}?) (?P<nonce>[0-9a-f]{32}) ===\n(?P<body>.*?)\n=== END (?P=nonce) ===$", re.M | re.S)

_YES_NO = "Is this a good answer to the request? Reply with exactly one word: Yes or No."
_RATING = "Rate this answer to the request from 1 (bad) to 5 (excellent). Reply with exactly one digit."
_GRADER = "You judge how well an answer fulfils a request."


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of model work. ``kind`` is ``given``, ``free``, ``yesno``, ``rating`` or ``labels``.

    ``first`` and ``second`` are question and answer of a pointwise kind (``free`` has no question), or system and user prompt of
    ``labels``, whose ``labels`` are the three label texts.
    """

    kind: str
    first: str
    second: str
    labels: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        """SHA-256 over the parts, each with its length, so that no two units collide by concatenation."""
        digest = hashlib.sha256()
        for part in (self.kind, self.first, self.second, *self.labels):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data) + data)
        return digest.digest()


def units_of(ask: Ask, kinds: tuple[str, ...]) -> list[Unit]:
    """The units an ask needs: per answer for the pointwise kinds (none for an answer of white space only), per prompt for ``labels``."""
    units = []
    for kind in kinds:
        if kind == "labels":
            labels = (ask.labels.first, ask.labels.tie, ask.labels.second)
            units.append(Unit("labels", ask.system, ask.user, labels))
            continue
        for answer in (ask.first, ask.second):
            if answer.strip():
                units.append(Unit(kind, "" if kind == "free" else ask.question, answer))
    return units


def measure(model: LanguageModel, unit: Unit) -> dict[str, float]:
    """Compute one unit. All log-probabilities are natural logarithms.

    ``given``: ``tokens`` of the answer, ``given`` = sum of log p(token | question, tokens before), ``end`` = log p(end of turn) where
    the answer was not cut. ``free``: ``free`` = the same sum without the question. ``yesno``: ``yes`` = log p(Yes) - log p(No).
    ``rating``: expected digit 1 to 5 under the renormalised digit probabilities. ``labels``: ``first``, ``tie``, ``second`` =
    log-probabilities of the labels' first tokens, and ``mass``, the probability of the three together. ``cut`` is 1 after truncation.
    """
    if unit.kind in ("given", "free"):
        return _likelihood(model, unit)
    if unit.kind == "labels":
        return _labels(model, unit)
    return _graded(model, unit)


def _likelihood(model: LanguageModel, unit: Unit) -> dict[str, float]:
    question, question_cut = model.middle_cut(unit.first, QUESTION_TOKENS)
    answer, cut = model.head(unit.second, ANSWER_TOKENS)
    logprobs = model.token_logprobs(model.chat(question), answer if cut else [*answer, END])
    total = sum(logprobs[: len(answer)])
    if unit.kind == "free":
        return {"free": total, "cut": float(cut)}
    values = {"tokens": float(len(answer)), "given": total, "cut": float(cut or question_cut)}
    if not cut:
        values["end"] = logprobs[-1]
    return values


def _graded(model: LanguageModel, unit: Unit) -> dict[str, float]:
    question, question_cut = model.middle_cut(unit.first, QUESTION_TOKENS)
    answer, cut = model.head(unit.second, ANSWER_TOKENS)
    head, between = model.encode("Request:\n"), model.encode("\n\nAnswer:\n")
    system = model.system_turn(model.encode(_GRADER))
    words = ("Yes", "No") if unit.kind == "yesno" else ("1", "2", "3", "4", "5")
    ask = model.encode("\n\n" + (_YES_NO if unit.kind == "yesno" else _RATING))
    prompt = system + model.user_turn([*head, *question, *between, *answer, *ask])
    logprobs = model.next_token_logprobs(prompt, [model.encode(word)[0] for word in words], shared=len(system))
    flag = float(cut or question_cut)
    if unit.kind == "yesno":
        return {"yes": logprobs[0] - logprobs[1], "cut": flag}
    return {"rating": _expected_digit(logprobs), "cut": flag}


def _expected_digit(logprobs: list[float]) -> float:
    from math import exp

    top = max(logprobs)
    weights = [exp(value - top) for value in logprobs]
    return sum(digit * weight for digit, weight in enumerate(weights, 1)) / sum(weights)


def _labels(model: LanguageModel, unit: Unit) -> dict[str, float]:
    from math import exp

    system_text, system_cut = model.middle_cut(unit.first, SYSTEM_TOKENS)
    user_text, user_cut = _pair_prompt(model, unit.second)
    system = model.system_turn(system_text)
    tokens = [model.encode(label)[0] for label in unit.labels]
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"the labels {', '.join(unit.labels)} begin with the same token; choose labels with different first letters")
    values = model.next_token_logprobs(system + model.user_turn(user_text), tokens, shared=len(system))
    first, tie, second = values
    mass = sum(exp(value) for value in values)
    return {"first": first, "tie": tie, "second": second, "mass": mass, "cut": float(system_cut or user_cut)}


def _pair_prompt(model: LanguageModel, user: str) -> tuple[list[int], bool]:
    """The user turn with every fenced text cut to its budget: answers keep their beginning, request and sources lose their middle."""
    ids: list[int] = []
    cut = False
    position = 0
    for found in _FENCED.finditer(user):
        ids += model.encode(user[position : found.start("body")])
        answer = found["name"].startswith("ANSWER")
        shorten = model.head if answer else model.middle_cut
        body, was_cut = shorten(found["body"], PAIR_ANSWER_TOKENS if answer else PAIR_QUESTION_TOKENS)
        ids += body + (model.encode("…") if answer and was_cut else [])
        cut |= was_cut
        position = found.end("body")
    tail, tail_cut = model.middle_cut(user[position:], 2 * PAIR_ANSWER_TOKENS + PAIR_QUESTION_TOKENS)
    return ids + tail, cut or tail_cut
