"""Chat completions as values: what is asked for, and what an answer says. Pure: nothing here sends anything.

The wire format is OpenAI's (https://github.com/openai/openai-openapi, ``CreateChatCompletionRequest`` and its
response), which vLLM, llama.cpp, SGLang, Ollama and most gateways speak. Everything in an answer may be missing or of
another shape: that is ``Malformed``, never a crash. Answers are checked by hand and not by a model class, because it is
done for every call.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import orjson

from ..types import Ask, InvalidReason, Labels

__all__ = ["Completion", "Form", "Malformed", "Mode", "ask_body", "body_of", "label_probs", "load", "read", "repair_of"]

Mode = Literal["logprobs", "schema", "text"]
"""Where a verdict comes from: the label probabilities of the first token, strict structured output, or plain text."""

_MIN_MASS = 0.5
_MOST_TOKENS = 100_000_000
_LONGEST_ID = 256
_TOP = 20
_MAX_TOKENS: Mapping[str, int] = {"logprobs": 8, "schema": 64, "text": 32}
_REPAIR_TOKENS = 1_024
_MARKUP = "*_`\"'([{: \t\r\n"


class Malformed(ValueError):
    """An answer that is JSON and no chat completion; the message says where."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is asked. Part of the judge's identity: another form is another judge.

    ``max_tokens`` 0 means 8 for ``logprobs``, 64 for ``schema`` and 32 for ``text``. ``without`` names parameters that
    this model refuses (``temperature``, ``seed``) and that are therefore not sent; ``limit`` is the name under which it
    takes the token limit.
    """

    mode: Mode = "logprobs"
    temperature: float = 0.0
    max_tokens: int = 0
    repair: bool = True
    limit: str = "max_tokens"
    without: frozenset[str] = field(default_factory=frozenset)

    @property
    def tokens(self) -> int:
        """The token limit of one call."""
        return self.max_tokens or _MAX_TOKENS[self.mode]

    @property
    def repair_tokens(self) -> int:
        """The token limit of the one repair call: larger, for a reply that was cut."""
        return max(self.tokens, min(8 * self.tokens, _REPAIR_TOKENS))

    @property
    def decoding(self) -> str:
        """The form as a judge id shows it, for example ``t0-n8-logprobs``."""
        heat = "default" if "temperature" in self.without else f"{self.temperature:g}"
        return f"t{heat}-n{self.tokens}-{self.mode}" + ("" if self.repair else "-norepair")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a chat completion says. ``tokens`` are the top alternatives of each generated token, ``None`` where the
    server gave none; ``usage`` is (prompt, completion) tokens, ``None`` where it did not say. ``ids`` is the provider's
    id of the response, where it has one. ``finish`` is its word for how the text ended, ``None`` where it gave none.
    """

    text: str = ""
    refusal: bool = False
    finish: str | None = None
    tokens: Sequence[Mapping[str, Any]] | None = None
    usage: tuple[int, int] | None = None
    model: str | None = None
    fingerprint: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    ids: tuple[str, ...] = ()


def body_of(model: str, form: Form, messages: Sequence[Mapping[str, Any]], *, seed: int, tokens: int) -> dict[str, Any]:
    """A request body without anything that says how the verdict is given."""
    body: dict[str, Any] = {"model": model, "messages": messages, form.limit: tokens}
    if "temperature" not in form.without:
        body["temperature"] = form.temperature
    if "seed" not in form.without:
        body["seed"] = seed
    return body


def ask_body(model: str, form: Form, ask: Ask) -> dict[str, Any]:
    """The request body of one ask; ``seed`` is the index of the repeat, so that repeats differ and can be repeated."""
    messages = [{"role": "system", "content": ask.system}, {"role": "user", "content": ask.user}]
    return _verdict_by(body_of(model, form, messages, seed=ask.repeat, tokens=form.tokens), form, ask.labels)


def repair_of(body: Mapping[str, Any], form: Form, ask: Ask, *, text: str, reason: InvalidReason) -> dict[str, Any]:
    """The body of the one call that repairs an unreadable reply.

    One that was cut or empty is asked again with a larger limit. One that says something else is shown to the model
    with the question for the label alone.
    """
    again = {**body, form.limit: form.repair_tokens}
    if reason in (InvalidReason.LENGTH, InvalidReason.EMPTY):
        return again
    labels = f"{ask.labels.first}, {ask.labels.second}, {ask.labels.tie}"
    turn = f"That is not in the form that was asked for. Reply with exactly one of: {labels}. Nothing else."
    said = [{"role": "assistant", "content": text[:4_000]}, {"role": "user", "content": turn}]
    return {**again, "messages": [*body["messages"], *said]}


def _verdict_by(body: dict[str, Any], form: Form, labels: Labels) -> dict[str, Any]:
    if form.mode == "logprobs":
        body["logprobs"], body["top_logprobs"] = True, _TOP
    elif form.mode == "schema":
        body["response_format"] = _schema(labels)
    return body


def _schema(labels: Labels) -> dict[str, Any]:
    """Structured output that can hold nothing but one of the labels."""
    verdict = {"type": "string", "enum": [labels.first, labels.second, labels.tie]}
    schema = {
        "type": "object",
        "properties": {"verdict": verdict},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def load(data: bytes) -> Any:
    """Decode a body strictly: UTF-8, no NaN, bounded depth. Raises ``ValueError``.

    A lone surrogate, which JSON can spell and UTF-8 cannot hold, becomes U+FFFD instead of costing a paid answer.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise
    try:
        value = json.loads(data, parse_constant=_refuse)
        return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def plain(data: bytes) -> bytes:
    r"""A JSON body with nothing spelled as an escape that can be written out: a key is then found as it is.

    >>> plain(b'{"a": "\u006bey"}')
    b'{"a":"key"}'
    """
    if b"\\u" not in data and b"\\/" not in data:
        return data
    try:
        return orjson.dumps(load(data))
    except (ValueError, TypeError):
        return data


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read(payload: Any) -> Completion:
    """Read a decoded answer; raises ``Malformed`` where something has another shape than a chat completion."""
    body = _object(payload, "the body")
    choices = body.get("choices")
    if "choices" not in body:
        raise Malformed("there are no choices")
    if choices is None:
        choices = []
    if not isinstance(choices, list):
        raise Malformed("choices is no list")
    choice = _object(choices[0], "choices.0") if choices else {}
    message = _object(choice.get("message"), "choices.0.message") if choice.get("message") is not None else {}
    refusal = _text(message, "refusal")
    logprobs = choice.get("logprobs")
    content = _object(logprobs, "choices.0.logprobs").get("content") if logprobs is not None else None
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Malformed("choices.0.message.tool_calls is no list of objects")
    return Completion(
        text=_text(message, "content") or refusal or "",
        refusal=bool(refusal),
        finish=_text(choice, "finish_reason") or None,
        tokens=_tokens(content),
        usage=_usage(body.get("usage")),
        model=_text(body, "model"),
        fingerprint=_text(body, "system_fingerprint"),
        tool_calls=tuple(calls),
        ids=ids_of(body),
    )


def ids_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The provider's id of a response as a tuple of one; empty where there is none that can be kept."""
    name = body.get("id")
    return (name,) if isinstance(name, str) and 0 < len(name) <= _LONGEST_ID else ()


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{where} is no object")
    return value


def _text(holder: Mapping[str, Any], name: str) -> str | None:
    value = holder.get(name)
    if isinstance(value, list):
        # Some servers give the content in parts.
        value = "".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value


def _tokens(content: Any) -> list[dict[str, Any]] | None:
    if not content:
        return None
    if not isinstance(content, list):
        raise Malformed("choices.0.logprobs.content is no list")
    for number, token in enumerate(content):
        top = _object(token, f"choices.0.logprobs.content.{number}").get("top_logprobs")
        if top is not None and not (isinstance(top, list) and all(isinstance(entry, dict) for entry in top)):
            raise Malformed(f"choices.0.logprobs.content.{number}.top_logprobs is no list of objects")
    return content if any(token.get("top_logprobs") for token in content) else None


def _usage(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    counts = value if isinstance(value, dict) else {}
    found = counts.get("prompt_tokens"), counts.get("completion_tokens", 0)
    # A verdict is not thrown away over its accounts: what cannot be used counts as not said.
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < _MOST_TOKENS for count in found):
        return None
    return found  # type: ignore[return-value]


def label_probs(top: Iterable[Mapping[str, Any]], labels: Labels) -> tuple[tuple[float, float, float], float] | None:
    """P(first), P(tie), P(second) from the top log-probabilities of one token, with the probability mass that the
    labels held.

    A token counts for a letter label if it is that letter, for the tie label if it begins that word; the three are
    normalised. ``None`` where the labels hold less than half of the mass: then the distribution says something else.
    """
    first = tie = second = 0.0
    for entry in top:
        logprob = entry.get("logprob")
        token = str(entry.get("token", "")).strip().upper()
        if not token or not isinstance(logprob, float | int) or not -1e6 < logprob < 1e6:
            continue
        if token == labels.first:
            first += math.exp(min(logprob, 0.0))
        elif token == labels.second:
            second += math.exp(min(logprob, 0.0))
        elif labels.tie.startswith(token):
            tie += math.exp(min(logprob, 0.0))
    total = first + tie + second
    return ((first / total, tie / total, second / total), total) if total >= _MIN_MASS else None


def label_probs_of(
    tokens: Sequence[Mapping[str, Any]], labels: Labels
) -> tuple[tuple[float, float, float], float] | None:
    """``label_probs`` of the first token that is more than white space or markup.

    What was skipped was only likely, so the mass of the labels is multiplied by its probability.
    """
    skipped = 1.0
    for token in tokens:
        logprob = token.get("logprob")
        if str(token.get("token", "")).strip(_MARKUP):
            found = label_probs(token.get("top_logprobs") or (), labels)
            return (found[0], found[1] * skipped) if found and found[1] * skipped >= _MIN_MASS else None
        skipped *= math.exp(min(float(logprob), 0.0)) if isinstance(logprob, float | int) else 0.0
    return None


_PARAMETERS = ("response_format", "top_logprobs", "logprobs", "temperature", "seed", "max_tokens")


def refused_parameter(text: str) -> str | None:
    """The optional parameter that a 400 or 422 complains about, ``None`` where it names none."""
    named = re.search(r"\"?param\"?\s*[:=]\s*\"(\w+)\"", text)
    if named and named[1] in _PARAMETERS:
        return named[1]
    return next((name for name in _PARAMETERS if name in text), None)


def without(form: Form, parameter: str) -> Form:
    """The form for a model that refuses one parameter."""
    if parameter in ("logprobs", "top_logprobs"):
        return replace(form, mode="schema")
    if parameter == "response_format":
        return replace(form, mode="text")
    if parameter == "max_tokens":
        return replace(form, limit="max_completion_tokens")
    return replace(form, without=form.without | {parameter})
