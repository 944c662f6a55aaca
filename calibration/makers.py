"""Who made a model, as far as its name tells: the family that a judge may favour."""

from __future__ import annotations

import re

__all__ = ["maker"]

_HOSTS = frozenset(
    {"azure", "bedrock", "groq", "huggingface", "ollama", "openrouter", "together_ai", "vertex_ai", "vllm"}
)
"""Prefixes that name where a model runs, not who made it."""
_NOBODY = frozenset({"local", "recorded", "scripted"})
"""Prefixes of names that do not tell a maker."""
_MODELS = {
    "anthropic": ("claude",),
    "cohere": ("command", "c4ai"),
    "deepseek": ("deepseek",),
    "google": ("gemini", "gemma", "palm"),
    "meta": ("llama", "codellama"),
    "microsoft": ("phi", "wizardlm"),
    "mistral": ("mistral", "mixtral", "ministral", "magistral", "codestral", "pixtral"),
    "openai": ("gpt", "chatgpt", "o1", "o3", "o4", "text-davinci", "davinci"),
    "qwen": ("qwen", "qwq"),
    "xai": ("grok",),
}
_SAME = {
    "cohereforai": "cohere",
    "deepseek-ai": "deepseek",
    "meta-llama": "meta",
    "mistralai": "mistral",
    "x-ai": "xai",
}


def maker(model: str) -> str:
    """The maker of a model by its name, empty where the name does not tell.

    A name that is not known is its maker's where it has a prefix, else its first word stands for the family.

    >>> [maker(name) for name in ("openai/gpt-4o", "gpt-4o-mini", "openrouter/openai/gpt-4o@2024[t=0]")]
    ['openai', 'openai', 'openai']
    >>> [maker(name) for name in ("local/smollm2-135m", "acme/rex-2", "rex-2")]
    ['', 'acme', 'rex']
    """
    parts = [part for part in re.split("[/:]", model.lower().partition("[")[0].partition("@")[0]) if part]
    if not parts or parts[0] in _NOBODY:
        return ""
    for part in reversed(parts):
        for known, stems in _MODELS.items():
            if any(re.match(rf"{stem}(?![a-z])", part.removeprefix("meta-")) for stem in stems):
                return known
    named = [part for part in parts[:-1] if part not in _HOSTS]
    return _SAME.get(named[-1], named[-1]) if named else re.split("[-_. ]", parts[-1])[0]
