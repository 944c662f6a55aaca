"""How an answer ended: the word that a server gave, and whether it means that a token limit cut the answer off.

Servers name the same end differently, and an answer keeps the word that its server used. An end that nobody told is
``None``, which is neither a whole answer nor a cut one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NAMES", "finish_in", "was_cut"]

NAMES = ("finish", "finish_reason", "stop_reason")
"""Fields in which an answer says how it ended: ours, that of OpenAI, that of Anthropic."""
_CUT = frozenset(("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"))
"""OpenAI chat completions, vLLM and Ollama; Anthropic, Gemini and Cohere; OpenAI responses; Mistral."""

_STOPPED = frozenset(
    ("content_filter", "content_filtered", "refusal", "guardrail_intervened", "safety", "recitation", "blocklist",
     "prohibited_content", "spii", "error", "error_toxic", "abort")
)  # fmt: skip
"""A filter, a classifier or a fault ended the answer: OpenAI, Bedrock, Anthropic, Gemini, Cohere, vLLM."""
_UNTOLD = frozenset(("", "unknown", "finish_reason_unspecified"))
"""Inspect and Gemini say so where the server of the model did not."""


def was_cut(finish: str | None) -> bool | None:
    """Whether a token limit ended an answer (else it is whole), by the word of its server in either case.

    ``None`` where that is not known, or something else stopped it: a content filter leaves neither a whole answer nor
    one that is cut by length.

    >>> was_cut("length"), was_cut("MAX_TOKENS"), was_cut("stop"), was_cut("content_filter"), was_cut(None)
    (True, True, False, None, None)
    """
    word = "" if finish is None else finish.lower()
    return None if word in _UNTOLD or word in _STOPPED else word in _CUT


def finish_in(*places: Mapping[str, Any]) -> str | None:
    """The first word about the end that stands in one of these objects; ``None`` where none says any.

    >>> finish_in({"text": "Berlin"}, {"stop_reason": "max_tokens"})
    'max_tokens'
    """
    found = (place.get(name) for place in places for name in NAMES)
    return next((value for value in found if isinstance(value, str) and value.lower() not in _UNTOLD), None)
