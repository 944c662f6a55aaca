"""One interface for every judge: a backend answers asks with replies.

A backend is opened by a judge string, ``NAME[:MODEL][?OPTION=VALUE&...]``: ``local``, ``hf:models/x``,
``recorded:verdicts.jsonl?judge=NAME``, ``openai:MODEL?base_url=http://127.0.0.1:8000/v1``, ``scripted:longer``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl

from ..errors import InputError
from ..types import Ask, JudgeId, Reply

if TYPE_CHECKING:
    from ..environment import Environment

__all__ = ["Backend", "open_backend"]


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


_OPENERS = {
    "local": ("local", "open_local"),
    "hf": ("hf", "open_hf"),
    "recorded": ("recorded", "open_recorded"),
    "openai": ("remote", "open_openai"),
    "scripted": ("scripted", "open_scripted"),
}


def open_backend(spec: str, env: Environment) -> Backend:
    """Open the judge that a judge string names.

    Raises ``InputError`` for an unknown name or option, ``BackendUnavailable`` where a package, model or server is
    missing.
    """
    head, _, query = spec.partition("?")
    name, _, model = head.partition(":")
    if name not in _OPENERS:
        near = difflib.get_close_matches(name, _OPENERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"judge {spec!r}: there is no judge {name!r}{hint} (known: {', '.join(_OPENERS)})")
    module, function = _OPENERS[name]
    opener: Callable[..., Backend] = getattr(import_module(f".{module}", __name__), function)
    known = {key: value for key, value in inspect.signature(opener).parameters.items() if key != "model"}
    given = {"cache": env.cache, "base_url": env.base_url, "api_key": env.api_key}
    options: dict[str, Any] = {key: value for key, value in given.items() if key in known}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known or key in ("api_key", "cache"):
            allowed = [option for option in known if option not in ("api_key", "cache")]
            raise InputError(f"judge {spec!r}: unknown option {key!r}; {name} takes {', '.join(allowed) or 'none'}")
        options[key] = _typed(spec, key, value, known[key])
    return opener(model, **options)


def _typed(spec: str, key: str, value: str, parameter: inspect.Parameter) -> Any:
    """An option's text as the type its parameter is annotated with."""
    kind = str(parameter.annotation).removesuffix(" | None")
    try:
        return {"int": int, "float": float}.get(kind, str)(value)
    except ValueError:
        raise InputError(
            f"judge {spec!r}: {key}={value!r} is not {'a whole number' if kind == 'int' else 'a number'}"
        ) from None
