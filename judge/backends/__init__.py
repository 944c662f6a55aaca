"""One interface for every judge: a backend answers asks with replies.

A backend is opened by a judge string, ``NAME[:MODEL][?OPTION=VALUE&...]``: ``local``, ``hf:models/x``,
``recorded:verdicts.jsonl?judge=NAME``, ``openai:MODEL?base_url=http://127.0.0.1:8000/v1``, ``scripted:longer``; or a
litellm model string, bare (``anthropic/NAME``, ``gemini/NAME``, ``bedrock/NAME``) or after ``litellm:``;
``anthropic:NAME`` is our own client of Anthropic's API, which also has batches. Keys come from the environment only
(``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, or ``&key_env=NAME``).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl

from ..errors import InputError
from ..types import Ask, JudgeId, Reply, Usage

if TYPE_CHECKING:
    from ..environment import Environment
    from ..money import Budget

__all__ = ["Backend", "Preparing", "open_backend", "probed", "ready"]


@runtime_checkable
class Backend(Protocol):
    """Answers asks; knows nothing of journals, caches, pairs or outcomes.

    ``ask`` returns one reply per ask, in order, and must give the same probabilities whatever else is in the batch.
    A call that failed for good is a ``Reply`` with ``error`` set; ``BackendError`` is raised only when nothing can be
    answered any more. ``batch`` is how many asks one call wants, ``concurrency`` how many calls may be in flight.
    ``notice`` is one sentence that every report of this judge must show, or empty.
    """

    id: JudgeId
    batch: int
    concurrency: int
    notice: str

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer each ask; the k-th reply belongs to the k-th ask."""
        ...

    async def close(self) -> None:
        """Release models, sockets and files."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A backend that must know something of its server before its id is final; see ``ready``."""

    async def prepare(self, recorded: JudgeId | None = None, *, budget: Budget | None = None) -> None:
        """Fix the id; with ``recorded``, to that one where it can be. What it asks must fit ``budget``."""
        ...

    async def probed(self, *, keep: bool = False) -> Reply:
        """What ``prepare`` took, handed out once: usage, attempts, ids of responses; no attempts for nothing. With
        ``keep`` it is only looked at, and handed out later.
        """
        ...


_OPENERS = {
    "local": ("local", "open_local"),
    "hf": ("hf", "open_hf"),
    "recorded": ("recorded", "open_recorded"),
    "openai": ("remote", "open_openai"),
    "anthropic": ("messages", "open_anthropic"),
    "litellm": ("providers", "open_litellm"),
    "scripted": ("scripted", "open_scripted"),
}
_PROVIDERS = (
    "anthropic", "azure", "azure_ai", "bedrock", "cerebras", "cohere", "databricks", "deepinfra", "deepseek",
    "fireworks_ai", "gemini", "groq", "huggingface", "mistral", "nvidia_nim", "ollama", "ollama_chat", "openrouter",
    "perplexity", "sagemaker", "together_ai", "vertex_ai", "watsonx", "xai",
)  # fmt: skip
_OWN_KEYS = {"anthropic": "ANTHROPIC_API_KEY", "litellm": ""}
"""Judges to which OPENAI_BASE_URL and OPENAI_API_KEY do not apply, and the variable that holds their key instead."""


def open_backend(spec: str, env: Environment) -> Backend:
    """Open the judge that a judge string names.

    Raises ``InputError`` for an unknown name or option, ``BackendUnavailable`` where a package, model or server is
    missing. No message repeats what stands after the question mark: somebody may have put a key there.
    """
    head, _, query = spec.partition("?")
    name, _, model = head.partition(":")
    provider = head.partition("/")[0]
    if provider == "openai" and "/" in head:
        name, model = "openai", head.removeprefix("openai/")
    elif provider in _PROVIDERS:
        name, model = "litellm", head
    if name not in _OPENERS:
        near = difflib.get_close_matches(name, _OPENERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = f"{', '.join(_OPENERS)}, or a litellm model such as anthropic/NAME"
        raise InputError(f"judge {head!r}: there is no judge {name!r}{hint} (known: {known})")
    module, function = _OPENERS[name]
    opener: Callable[..., Backend] = getattr(import_module(f".{module}", __name__), function)
    takes = inspect.signature(opener).parameters
    known_options = _options(takes)
    given = {"cache": env.cache, "base_url": env.base_url} if name not in _OWN_KEYS else {}
    values: dict[str, Any] = {key: value for key, value in given.items() if key in known_options}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known_options or key == "cache":
            allowed = [option for option in known_options if option != "cache"]
            raise InputError(f"judge {head!r}: unknown option {key!r}; {name} takes {', '.join(allowed) or 'none'}")
        values[key] = _typed(head, key, value, known_options[key])
    if "access" not in takes:
        return opener(model, **values)
    from .chat import Options

    # The key of one provider must not be sent to another; litellm finds its providers' keys itself.
    key = env.keys.get(_OWN_KEYS[name], "") if name in _OWN_KEYS else env.api_key
    access = _access(env, values.get("key_env", ""), head, default=key)
    return opener(model, options=Options(**values), access=access)


def _options(takes: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    """The options of an opener and their types as text; remote openers take theirs as one value."""
    if "options" not in takes:
        return {name: str(parameter.annotation) for name, parameter in takes.items() if name != "model"}
    from .chat import Options

    return {entry.name: str(entry.type) for entry in dataclasses.fields(Options)}


def _access(env: Environment, key_env: str, head: str, *, default: str) -> Any:
    """The key that a remote judge sends, and all secrets that it must not repeat."""
    from .chat import Access

    if key_env and key_env not in env.keys:
        raise InputError(f"judge {head!r}: the environment has no key under the name that key_env gives")
    key = (env.keys[key_env] if key_env else default).strip()  # a key that was read from a file ends with its line
    if not key.isprintable():
        raise InputError(f"judge {head!r}: its key holds a line break or another control character; give the key alone")
    secrets = {value.strip() for value in (*env.keys.values(), env.api_key)}
    return Access(key, tuple(sorted(secrets)), env.prices, (env.home, env.cache))


def _typed(head: str, key: str, text: str, annotation: str) -> Any:
    """An option's text as the type it is annotated with."""
    kind = annotation.removesuffix(" | None")
    if kind == "bool" and text not in ("0", "1"):
        raise InputError(f"judge {head!r}: {key} is 0 or 1")
    if kind not in ("int", "float"):
        return text == "1" if kind == "bool" else text
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        wanted = "a whole number" if kind == "int" else "a number"
        raise InputError(f"judge {head!r}: {key}={text!r} is not {wanted}")
    return number


async def ready(backend: Backend, recorded: JudgeId | None = None, *, budget: Budget | None = None) -> Backend:
    """Let a backend know what it needs to know about its server before its id is used; most need nothing.

    What was found out once is kept and costs nothing again (``capability``). ``recorded`` is the id in the header of a
    run that is resumed: the mode that it names is then kept. Raises ``BackendError`` where the server cannot answer,
    ``BudgetSpent`` where ``budget`` does not allow asking it.
    """
    if isinstance(backend, Preparing):
        await backend.prepare(recorded, budget=budget)
    return backend


async def probed(backend: Backend, *, keep: bool = False) -> Reply:
    """What finding out took that nobody has booked yet: a reply with usage, attempts and no answer; with ``keep`` it
    stays unbooked.
    """
    return (
        await backend.probed(keep=keep) if isinstance(backend, Preparing) else Reply(attempts=0, usage=Usage(cost=0.0))
    )
