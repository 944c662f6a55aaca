"""What a language model is asked about one answer, or about one blind prompt: each measure is a few floats.

A measure depends on nothing but the texts it names, so it is computed once, remembered, and used for both orders of a
pair and for every pair the answer takes part in.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError

if TYPE_CHECKING:
    from ..types import Ask

__all__ = ["TEMPLATE", "Budget", "Request", "TextModel", "Unit", "finish", "measure", "prepare", "units_of"]

TEMPLATE = "t1"
"""Version of the prompts and budgets in this module; part of the judge's identity."""

_CHARACTERS_A_TOKEN = 64
"""More characters than this a token are not looked at when a text is cut to a number of tokens."""

_FENCED = re.compile(
    r"^=== (?P<name>[^\n]{1,60}?) (?P<nonce>[0-9a-f]{32}) ===\n(?P<body>.*?)\n=== END (?P=nonce) ===$",
    re.MULTILINE | re.DOTALL,
)

_YES_NO = "Is this a good answer to the request? Reply with exactly one word: Yes or No."
_RATING = "Rate this answer to the request from 1 (bad) to 5 (excellent). Reply with exactly one digit."
_GRADER = "You judge how well an answer fulfils a request."


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens of each text a judge reads; both answers of a pair have the same budget, so truncation cannot
    favour one.

    ``question`` and ``answer`` bound the pointwise measures; ``system``, ``pair_question`` (also for sources) and
    ``pair_answer`` the pairwise prompt. A longer answer loses its end, any other text its middle.
    """

    question: int
    answer: int
    system: int
    pair_question: int
    pair_answer: int


@dataclass(frozen=True, slots=True)
class Request:
    """One forward pass: the log-probability of each token of ``continuation`` after ``prompt`` and the tokens before it
    is wanted; with ``choice``, that of each of them alone as the very next token.

    The first ``shared`` tokens of ``prompt`` are likely to be the same in other requests.
    """

    prompt: list[int]
    continuation: list[int]
    shared: int = 0
    cut: bool = False
    answer_tokens: int = 0
    choice: bool = False


class TextModel(Protocol):
    """A causal language model as the measures need it. Texts are encoded as plain characters: special tokens come from
    templates only.
    """

    budget: Budget
    end: int
    batch: int
    threads: int

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ...

    def first_token(self, word: str) -> int:
        """The token with which a reply that consists of this word begins."""
        ...

    def chat(self, user: Sequence[int]) -> list[int]:
        """One user turn and the opening of the assistant's turn."""
        ...

    def dialogue(self, system: Sequence[int], user: Sequence[int]) -> tuple[list[int], int]:
        """The same after a system turn, and how many tokens stand before the user's text."""
        ...

    def logprobs(self, requests: Sequence[Request]) -> list[list[float]]:
        """Log-probabilities for each request, the same whatever else is asked in the call."""
        ...


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of model work. ``kind`` is ``given``, ``free``, ``yesno``, ``rating`` or ``labels``.

    ``first`` and ``second`` are question and answer of a pointwise kind (``free`` has no question), or system and user
    prompt of ``labels``, whose ``labels`` are the three label texts.
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
    """The units an ask needs: per answer for the pointwise kinds (none for an answer of white space only), per prompt
    for ``labels``.
    """
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


def measure(model: TextModel, unit: Unit) -> dict[str, float]:
    """Compute one unit (see ``finish`` for what comes back)."""
    request = prepare(model, unit)
    return finish(unit, request, model.logprobs([request])[0])


def prepare(model: TextModel, unit: Unit) -> Request:
    """What the model has to compute for a unit, with every text cut to the model's budget."""
    if unit.kind in ("given", "free"):
        return _likelihood(model, unit)
    if unit.kind == "labels":
        return _labels(model, unit)
    return _graded(model, unit)


def finish(unit: Unit, request: Request, logprobs: Sequence[float]) -> dict[str, float]:
    """The values of a unit, from the log-probabilities its request came back with. All are natural logarithms.

    ``given``: ``tokens`` of the answer, ``given`` = sum of log p(token | question, tokens before), ``end`` = log p(end
    of turn) where the answer was not cut. ``free``: ``free`` = the same sum without the question. ``yesno``: ``yes`` =
    log p(Yes) - log p(No). ``rating``: expected digit 1 to 5 under the renormalised digit probabilities. ``labels``:
    ``first``, ``tie``, ``second`` = log-probabilities of the labels' first tokens, and ``mass``, the probability of the
    three together. ``cut`` is 1 after truncation.
    """
    values = {"cut": float(request.cut)}
    if unit.kind in ("given", "free"):
        count = request.answer_tokens
        values[unit.kind] = sum(logprobs[:count])
        if unit.kind == "given":
            values["tokens"] = float(count)
            if len(logprobs) > count:
                values["end"] = logprobs[count]
        return values
    if unit.kind == "yesno":
        return {"yes": logprobs[0] - logprobs[1], **values}
    if unit.kind == "rating":
        return {"rating": _expected_digit(logprobs), **values}
    first, tie, second = logprobs
    mass = sum(math.exp(value) for value in logprobs)
    return {"first": first, "tie": tie, "second": second, "mass": mass, **values}


def _likelihood(model: TextModel, unit: Unit) -> Request:
    question, question_cut = middle_cut(model, unit.first, model.budget.question)
    answer, cut = head(model, unit.second, model.budget.answer)
    continuation = answer if cut else [*answer, model.end]
    return Request(model.chat(question), continuation, cut=cut or question_cut, answer_tokens=len(answer))


def _graded(model: TextModel, unit: Unit) -> Request:
    question, question_cut = middle_cut(model, unit.first, model.budget.question)
    answer, cut = head(model, unit.second, model.budget.answer)
    before, between = model.encode("Request:\n"), model.encode("\n\nAnswer:\n")
    words = ("Yes", "No") if unit.kind == "yesno" else ("1", "2", "3", "4", "5")
    ask = model.encode("\n\n" + (_YES_NO if unit.kind == "yesno" else _RATING))
    prompt, shared = model.dialogue(model.encode(_GRADER), [*before, *question, *between, *answer, *ask])
    return _choice(model, prompt, words, shared=shared, cut=cut or question_cut)


def _labels(model: TextModel, unit: Unit) -> Request:
    system, system_cut = middle_cut(model, unit.first, model.budget.system)
    user, user_cut = _pair_prompt(model, unit.second)
    prompt, shared = model.dialogue(system, user)
    return _choice(model, prompt, unit.labels, shared=shared, cut=system_cut or user_cut)


def _choice(model: TextModel, prompt: list[int], words: Sequence[str], *, shared: int, cut: bool) -> Request:
    starts = [model.first_token(word) for word in words]
    if len(set(starts)) < len(starts):
        raise InputError(f"the labels {', '.join(words)} begin with the same token for this model; choose other labels")
    return Request(prompt, starts, shared=shared, cut=cut, choice=True)


def _expected_digit(logprobs: Sequence[float]) -> float:
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return sum(digit * weight for digit, weight in enumerate(weights, 1)) / sum(weights)


def head(model: TextModel, text: str, limit: int) -> tuple[list[int], bool]:
    """The first ``limit`` tokens of a text and whether anything was cut; time and memory are bounded by ``limit``, not
    by the text.
    """
    reach = limit * _CHARACTERS_A_TOKEN
    ids = model.encode(text[:reach])
    return ids[:limit], len(ids) > limit or len(text) > reach


def middle_cut(model: TextModel, text: str, limit: int) -> tuple[list[int], bool]:
    """At most ``limit`` tokens of a text: where it is longer, its beginning and its end with an ellipsis between."""
    reach = limit * _CHARACTERS_A_TOKEN
    if len(text) <= 2 * reach:
        ids = model.encode(text)
        if len(ids) <= limit:
            return ids, False
        start, end = ids, ids
    else:
        start, end = model.encode(text[:reach]), model.encode(text[-reach:])
    mark = model.encode("\n…\n")
    half = max(limit - len(mark), 0) // 2
    return start[:half] + mark + end[len(end) - half :], True


def _pair_prompt(model: TextModel, user: str) -> tuple[list[int], bool]:
    """The user turn with every fenced text cut to its budget: answers keep their beginning, request and sources lose
    their middle.
    """
    budget = model.budget
    ids: list[int] = []
    cut = False
    position = 0
    for found in _FENCED.finditer(user):
        ids += model.encode(user[position : found.start("body")])
        answer = found["name"].startswith("ANSWER")
        shorten = head if answer else middle_cut
        body, was_cut = shorten(model, found["body"], budget.pair_answer if answer else budget.pair_question)
        ids += body + (model.encode("…") if answer and was_cut else [])
        cut |= was_cut
        position = found.end("body")
    tail, tail_cut = middle_cut(model, user[position:], 2 * budget.pair_answer + budget.pair_question)
    return ids + tail, cut or tail_cut
