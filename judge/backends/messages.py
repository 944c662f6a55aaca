"""Judges behind Anthropic's Messages API (``POST {base_url}/messages``), in its own shape.

The wire format is that of ``MessageCreateParams`` and ``Message`` in https://github.com/anthropics/anthropic-sdk-python.
It gives no label probabilities, so verdicts are read strictly from text and every reply carries ``no_logprobs``. The
judge's id is that of ``anthropic/MODEL`` through litellm in the same mode: one judge, one cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..types import Ask, Reply
from .batches import AnthropicBatches
from .calling import Called, Caller
from .chat import Access, ChatBackend, Options
from .completions import Completion, Malformed, ids_of
from .faults import Failure, Fault
from .remote import check_url
from .wire import Wire

__all__ = ["MessagesBackend", "MessagesTransport", "open_anthropic", "params_of", "read_message"]

ANTHROPIC = "https://api.anthropic.com/v1"
"""Where Anthropic's own server is."""
_VERSION = "2023-06-01"
_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "refusal"}


def params_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a message from the body of a chat completion: the system text stands apart, there is no seed.

    >>> params_of({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "seed": 1})
    {'model': 'm', 'messages': [{'role': 'user', 'content': 'Hi'}], 'max_tokens': 8}
    """
    system = "\n\n".join(turn["content"] for turn in body["messages"] if turn["role"] == "system")
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    turns = [turn for turn in body["messages"] if turn["role"] != "system"]
    params: dict[str, Any] = {"model": body["model"], "messages": turns, "max_tokens": limit}
    if system:
        params["system"] = system
    if "temperature" in body:
        params["temperature"] = body["temperature"]
    return params


def read_message(payload: Any) -> Completion:
    """Read a message; raises ``Malformed`` where something has another shape."""
    if not isinstance(payload, dict):
        raise Malformed("the message is no object")
    content = payload.get("content", [])
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Malformed("content is no list of objects")
    texts = [block.get("text", "") for block in content if block.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise Malformed("content: a text is no text")
    stop = payload.get("stop_reason")
    if stop is not None and not isinstance(stop, str):
        raise Malformed("stop_reason is no text")
    model = payload.get("model")
    return Completion(
        text="".join(texts),
        refusal=stop == "refusal",
        finish=_FINISH.get(stop, stop) if stop else None,
        usage=_usage(payload.get("usage")),
        model=model if isinstance(model, str) else None,
        ids=ids_of(payload),
    )


def _usage(value: Any) -> tuple[int, int] | None:
    """Tokens in and out; what was written to or read from a prompt cache counts as in."""
    if not isinstance(value, dict) or value.get("input_tokens") is None:
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    counts = [value.get(name) or 0 for name in names]
    # A verdict is not thrown away over its accounts: what cannot be used counts as not said.
    if not all(isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53 for count in counts):
        return None
    return sum(counts[:3]), counts[3]


class MessagesTransport:
    """Carries bodies to ``/messages``, one attempt each."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def send(self, body: Mapping[str, Any]) -> Completion | Failure:
        """Send once."""
        answer = await self._wire.request("POST", "/messages", body=params_of(body))
        if isinstance(answer, Failure):
            return answer
        try:
            return read_message(answer)
        except Malformed as problem:
            return Failure(Fault.MALFORMED, f"the message: {problem}", status=200)

    async def close(self) -> None:
        """Close the HTTP session."""
        await self._wire.close()


class MessagesBackend(ChatBackend):
    """A ``ChatBackend`` that says of every reply that it came without label probabilities."""

    def _reply(self, ask: Ask, called: Called[Completion], *, repair: bool = False) -> Reply:
        reply = super()._reply(ask, called, repair=repair)
        return replace(reply, flags=("no_logprobs", *reply.flags))


def open_anthropic(model: str, *, options: Options | None = None, access: Access | None = None) -> ChatBackend:
    """Open ``anthropic:MODEL``. Raises ``InputError`` without a model, for ``mode=logprobs`` or ``mode=schema``, or for
    a URL that is none. ``base_url`` may be given with or without its ``/v1``.
    """
    options, access = options or Options(), access or Access()
    if not model:
        raise InputError("anthropic: name the model, for example anthropic:claude-haiku-4-5")
    if options.mode not in ("auto", "text"):
        raise InputError(f"mode={options.mode!r}: Anthropic's messages give no label probabilities; use mode=text")
    options = replace(options, mode="text")
    options.form()
    url = (options.base_url or ANTHROPIC).rstrip("/")
    check_url(url)
    url = url if url.endswith("/v1") else f"{url}/v1"
    headers = {"anthropic-version": _VERSION, **({"x-api-key": access.key} if access.key else {})}
    price = options.price(f"anthropic/{model}", access.prices, url="" if url == ANTHROPIC else url)
    advice = f"check the URL, the model name and {options.key_env or 'ANTHROPIC_API_KEY'}"
    caller = Caller(url, options.limits(), advice=advice)
    transport = MessagesTransport(Wire(url, headers, access, timeout=options.timeout))
    options = replace(options, revision=options.at(url, own=ANTHROPIC))
    backend = MessagesBackend(f"anthropic/{model}", model, transport, caller, options=options, price=price)
    wire = Wire(url, headers, access, timeout=options.timeout)
    backend.batches = lambda: AnthropicBatches(wire, caller, params=params_of, read=read_message)
    return backend
