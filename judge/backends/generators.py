"""Models that answer prompts, by the same strings as judges: ``local``, ``hf:MODEL``, ``openai:MODEL?base_url=...``, a
litellm model, ``scripted``.

A generator is not a judge: it knows nothing of asks, labels and rubrics. What it says about one prompt depends on the
prompt, its seed and the settings alone, not on what else is asked, in which order, or how many at once; how far that
holds for a server is the server's affair.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import parse_qsl

import orjson

from ..errors import InputError
from ..money import Quote
from ..prices import tokens_at_least, tokens_at_most
from ..prompts import Prompt
from ..types import JudgeId, Usage
from . import open_backend, smollm2
from .chat import ChatBackend, Generation
from .hf import HuggingFaceModel
from .language_model import LanguageModel
from .likelihood import LikelihoodBackend

if TYPE_CHECKING:
    from ..environment import Environment

__all__ = ["Generation", "Generator", "ScriptedGenerator", "Settings", "open_generator"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are made: tokens at most, and the temperature (0 is greedy)."""

    max_tokens: int = 512
    temperature: float = 0.0


@runtime_checkable
class Generator(Protocol):
    """Answers prompts.

    ``generate`` returns one ``Generation`` per prompt, in order; one that failed for good has ``error`` set, and
    ``BackendError`` is raised only when nothing can be answered any more. It takes at most ``batch`` prompts of equal
    ``tokens``; ``concurrency`` calls may be in flight. ``takes_tools`` says whether tool definitions are understood.
    """

    id: JudgeId
    settings: Settings
    batch: int
    concurrency: int
    takes_tools: bool

    def tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt: exact for a model that runs here, else an upper bound."""
        ...

    def quote(self, prompt: Prompt) -> Quote:
        """The most that one answer can take, retries not counted."""
        ...

    async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer prompts of one length; the k-th generation belongs to the k-th prompt."""
        ...

    async def close(self) -> None:
        """Stop what is at work, release models and sockets."""
        ...


def open_generator(spec: str, env: Environment, settings: Settings) -> Generator:
    """Open the model that a model string names.

    Raises ``InputError`` for a string or option that is unknown or no model that generates, ``BackendUnavailable``
    where a package, model or server is missing.
    """
    head, _, query = spec.partition("?")
    name, _, model = head.partition(":")
    if name == "scripted":
        return _open_scripted(model, query, settings)
    if name == "recorded":
        raise InputError(f"model {head!r}: recorded judges hold verdicts, not answers; name a model that generates")
    backend = open_backend(spec, env)
    if isinstance(backend, ChatBackend):
        return ChatGenerator(backend, settings)
    if isinstance(backend, LikelihoodBackend) and isinstance(backend.model, LanguageModel):
        return LocalGenerator(backend.model, backend.id, settings)
    if isinstance(backend, LikelihoodBackend) and isinstance(backend.model, HuggingFaceModel):
        return HuggingFaceGenerator(backend.model, backend.id, settings)
    raise InputError(f"model {head!r} judges and does not generate; use local, hf:MODEL, openai:MODEL or scripted")


class _InThreads(ABC):
    """What the two generators in this process share: a pool of threads, and a flag that ends what is at work."""

    takes_tools = False

    def __init__(self, threads: int, settings: Settings) -> None:
        self.concurrency, self.settings = threads, settings
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="generate")
        self._stop = Event()

    @abstractmethod
    def tokens(self, prompt: Prompt) -> int:
        """Tokens of the prompt in the model's chat template."""

    def quote(self, prompt: Prompt) -> Quote:
        """The most tokens; nothing is paid for what runs here."""
        return Quote(self.tokens(prompt), self.settings.max_tokens, 0.0, 0.0)

    async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer in a thread; the event loop stays free."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._work, prompts)

    @abstractmethod
    def _work(self, prompts: Sequence[Prompt]) -> list[Generation]: ...

    async def close(self) -> None:
        """End what is at work at its next token, and wait for it."""
        self._stop.set()
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class LocalGenerator(_InThreads):
    """The embedded model. With int8 and temperature 0 prompts of one length are computed together, which changes no bit
    of any answer (``LanguageModel.together``); otherwise one at a time in each thread.
    """

    def __init__(self, model: LanguageModel, judge: JudgeId, settings: Settings) -> None:
        super().__init__(model.threads, settings)
        self.model = model
        self.batch = model.together if settings.temperature == 0 else 1
        self.id = JudgeId(judge.name, judge.revision, model.compute)

    def tokens(self, prompt: Prompt) -> int:
        """Tokens of the prompt in the model's chat template."""
        return len(self.model.conversation(prompt.messages))

    def _work(self, prompts: Sequence[Prompt]) -> list[Generation]:
        ids = [self.model.conversation(prompt.messages) for prompt in prompts]
        most = self.settings.max_tokens
        if ids and len(ids[0]) + most > smollm2.CONTEXT:
            return [_too_long(len(ids[0]), most, smollm2.CONTEXT)] * len(ids)
        made = self.model.complete(
            ids,
            max_tokens=most,
            temperature=self.settings.temperature,
            seed=prompts[0].seed,
            stop=self._stop.is_set,
        )
        return [
            _made(one.text, one.finish, Usage(len(prompt), one.tokens, 0.0), latency)
            for prompt, (one, latency) in zip(ids, made, strict=True)
        ]

    async def close(self) -> None:
        """End what is at work and release the model."""
        await super().close()
        self.model.close()


class HuggingFaceGenerator(_InThreads):
    """A model on transformers; one prompt at a time, because padding a batch moves its probabilities."""

    batch = 1

    def __init__(self, model: HuggingFaceModel, judge: JudgeId, settings: Settings) -> None:
        super().__init__(1, settings)
        self._model = model
        self.id = JudgeId(judge.name, judge.revision, model.dtype)

    def tokens(self, prompt: Prompt) -> int:
        """Tokens of the prompt in the model's chat template."""
        return len(self._model.conversation(prompt.messages))

    def _work(self, prompts: Sequence[Prompt]) -> list[Generation]:
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Generation:
        try:
            ids = self._model.conversation(prompt.messages)
        except InputError as error:
            return Generation(error=str(error), finish="error", usage=Usage(cost=0.0))
        most = self.settings.max_tokens
        if len(ids) + most > self._model.context:
            return _too_long(len(ids), most, self._model.context)
        begun = time.perf_counter()
        text, count, finish = self._model.complete(
            ids,
            max_tokens=most,
            temperature=self.settings.temperature,
            seed=prompt.seed,
            stop=self._stop.is_set,
        )
        return _made(text, finish, Usage(len(ids), count, 0.0), 1000 * (time.perf_counter() - begun))


class ChatGenerator:
    """A model behind a URL or litellm, through the one retry loop of the remote judges."""

    batch = 1
    takes_tools = True

    def __init__(self, backend: ChatBackend, settings: Settings) -> None:
        self._backend, self.settings = backend, settings
        self.concurrency = backend.concurrency
        self.id = JudgeId(backend.id.name, backend.id.revision)

    def tokens(self, prompt: Prompt) -> int:
        """An upper bound of the prompt's tokens."""
        return tokens_at_most(*_texts(prompt))

    def quote(self, prompt: Prompt) -> Quote:
        """The most that one answer can take, and the least."""
        most_in, most_out, price = self.tokens(prompt), self.settings.max_tokens, self._backend.price
        if price is None:
            return Quote(most_in, most_out, None)
        return Quote(most_in, most_out, price.cost(most_in, most_out), price.cost(tokens_at_least(*_texts(prompt)), 1))

    async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Send each prompt."""
        return [
            await self._backend.generate(
                prompt.messages,
                max_tokens=self.settings.max_tokens,
                temperature=self.settings.temperature,
                seed=prompt.seed,
                tools=prompt.tools,
            )
            for prompt in prompts
        ]

    async def close(self) -> None:
        """Close connections."""
        await self._backend.close()


class ScriptedGenerator:
    """A model whose answer to each prompt is ``script(prompt, settings)``; for tests and for trying a pipeline."""

    batch = 1
    takes_tools = True

    def __init__(
        self,
        script: Callable[[Prompt, Settings], Generation],
        settings: Settings | None = None,
        *,
        name: str = "scripted",
        concurrency: int = 4,
        delay_ms: float = 0.0,
    ) -> None:
        self.script, self.settings = script, settings or Settings()
        self.concurrency, self._delay = concurrency, delay_ms
        self.id = JudgeId(name)

    def tokens(self, prompt: Prompt) -> int:
        """Words of the prompt."""
        return sum(len(text.split()) for text in _texts(prompt))

    def quote(self, prompt: Prompt) -> Quote:
        """The most words; nothing is paid."""
        return Quote(self.tokens(prompt), self.settings.max_tokens, 0.0, 0.0)

    async def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer each prompt by the script, after the delay."""
        await asyncio.sleep(self._delay / 1000)
        return [replace(self.script(prompt, self.settings), latency_ms=self._delay) for prompt in prompts]

    async def close(self) -> None:
        """Nothing to release."""


def _echo(prompt: Prompt, settings: Settings) -> Generation:
    """The last turn again, behind eight hex digits that change with the conversation and, when sampled, the seed."""
    seed = prompt.seed if settings.temperature else 0
    digest = hashlib.sha256(orjson.dumps([prompt.messages, prompt.tools, seed], default=str)).hexdigest()[:8]
    words = f"{digest} {prompt.messages[-1]['content']}".split()
    cut = words[: settings.max_tokens]
    finish = "stop" if len(cut) == len(words) else "length"
    asked = sum(len(text.split()) for text in _texts(prompt))
    return Generation(" ".join(cut), usage=Usage(asked, len(cut), 0.0), finish=finish)


def _open_scripted(model: str, query: str, settings: Settings) -> Generator:
    """``scripted`` or ``scripted:echo``, with ``delay_ms``, ``concurrency`` and ``fail`` (a text: prompts with it
    fail).
    """
    if model not in ("", "echo"):
        raise InputError(f"scripted:{model}: unknown script; there is echo")
    options = dict(parse_qsl(query))
    unknown = sorted(set(options) - {"delay_ms", "concurrency", "fail"})
    if unknown:
        raise InputError(f"scripted: unknown option {unknown[0]!r}; it takes delay_ms, concurrency, fail")
    fail = options.get("fail")

    def script(prompt: Prompt, settings: Settings) -> Generation:
        if fail and fail in prompt.messages[-1]["content"]:
            return Generation(error=f"scripted: the prompt holds {fail!r}", finish="error", usage=Usage(cost=0.0))
        return _echo(prompt, settings)

    try:
        delay, concurrency = float(options.get("delay_ms", 0)), int(options.get("concurrency", 4))
    except ValueError:
        raise InputError("scripted: delay_ms and concurrency are numbers") from None
    return ScriptedGenerator(script, settings, name="scripted/echo", concurrency=concurrency, delay_ms=delay)


def _texts(prompt: Prompt) -> list[str]:
    """Everything of a prompt that a model reads, as texts."""
    extra = [{key: turn[key] for key in turn.keys() - {"role", "content"}} for turn in prompt.messages]
    more = [orjson.dumps(value, default=str).decode() for value in (*extra, *prompt.tools) if value]
    return [*(str(turn["content"]) for turn in prompt.messages), *more]


def _too_long(count: int, most: int, context: int) -> Generation:
    told = f"too_long: the prompt has {count} tokens, and {most} more may follow; the model reads {context} in all"
    return Generation(error=told, finish="error", usage=Usage(cost=0.0))


def _made(text: str, finish: str, usage: Usage, latency_ms: float) -> Generation:
    """One answer of a model that runs here; one that was stopped on the way is none."""
    if finish == "cancelled":
        return Generation(error="cancelled", finish="cancelled", usage=Usage(cost=0.0))
    return Generation(text, usage=usage, latency_ms=round(latency_ms, 3), finish=finish)
