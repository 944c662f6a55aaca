"""Judges behind an OpenAI-compatible URL (``POST {base_url}/chat/completions``): vLLM, llama.cpp, Ollama, OpenAI and
the like.

The verdict comes from the label probabilities of the first token where the server gives them; asked for and not given
is recorded as the flag ``no_logprobs`` and the text is read strictly instead. The API key is sent as a bearer token and
appears nowhere else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import BackendError, BackendUnavailable, InputError
from ..types import Ask, JudgeId, Labels, Reply, Usage

if TYPE_CHECKING:
    import aiohttp

__all__ = ["OpenAIBackend", "label_probs", "open_openai"]

_RETRIES = 3
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MAX_WAIT_SECONDS = 30.0
_MIN_MASS = 0.5
_FAILURES = 10


class OpenAIBackend:
    """One model behind one base URL; one HTTP session for its life."""

    def __init__(
        self, model: str, *, base_url: str, api_key: str, concurrency: int, max_tokens: int, timeout: float
    ) -> None:
        self.model, self.base_url, self.max_tokens, self.timeout = model, base_url.rstrip("/"), max_tokens, timeout
        self.id = JudgeId(f"openai/{model}", "", f"t0-n{max_tokens}-logprobs")
        self.batch, self.concurrency, self.notice = 1, concurrency, ""
        self._failures = 0
        self._key = api_key
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Send the asks; one that failed for good gives a reply with ``error``, ten in a row a ``BackendError``."""
        session = await self._open()
        return [await self._one(session, ask) for ask in asks]

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=self.timeout))
            self._loop = loop
        return self._session

    async def _one(self, session: aiohttp.ClientSession, ask: Ask) -> Reply:
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": ask.system}, {"role": "user", "content": ask.user}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "logprobs": True,
            "top_logprobs": 20,
            "seed": 0,
        }
        failure = ""
        for attempt in range(_RETRIES):
            started = time.monotonic()
            status, payload, wait = await self._post(session, body)
            if status == 200:
                self._failures = 0
                return _reply(payload, ask.labels, (time.monotonic() - started) * 1000)
            failure = f"HTTP {status}: {payload}" if status else str(payload)
            if status in (401, 403, 404):
                raise BackendError(f"{self.base_url}: {failure}; check the URL, the model name and OPENAI_API_KEY")
            if status and status not in _RETRY_STATUS:
                break
            if attempt + 1 < _RETRIES:
                await asyncio.sleep(min(wait if wait is not None else 0.5 * 2**attempt, _MAX_WAIT_SECONDS))
        if failure.startswith("cannot connect"):
            raise BackendUnavailable(f"{self.base_url}: {failure}; is the server running?")
        self._failures += 1
        if self._failures >= _FAILURES:
            raise BackendError(
                f"{self.base_url}: {self._failures} calls failed in a row, the last with {failure[:200]}"
            )
        return Reply(error=failure[:500], finish="error")

    async def _post(self, session: aiohttp.ClientSession, body: Mapping[str, Any]) -> tuple[int, Any, float | None]:
        """Status (0 where no answer came), the decoded body or a short reason, and the server's wish to wait in
        seconds.
        """
        import aiohttp

        try:
            async with session.post(f"{self.base_url}/chat/completions", json=body) as answer:
                text = await answer.text(errors="replace")
                wait = answer.headers.get("Retry-After", "")
                delay = float(wait) if wait.replace(".", "", 1).isdigit() else None
                if answer.status != 200:
                    return answer.status, " ".join(text.split())[:200], delay
                try:
                    return 200, await answer.json(content_type=None), None
                except ValueError:
                    return 502, "the reply is not JSON", None
        except aiohttp.ClientConnectorError as error:
            return 0, f"cannot connect ({error.strerror or type(error).__name__})", None
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, f"{type(error).__name__}: the connection failed or timed out", None


def open_openai(
    model: str,
    *,
    base_url: str = "",
    api_key: str = "",
    concurrency: int = 8,
    max_tokens: int = 8,
    timeout: float = 120.0,
) -> OpenAIBackend:
    """Open ``openai:MODEL``; ``timeout`` is in seconds per call. Raises ``InputError`` without a model or with a URL
    that is none.
    """
    url = base_url or "https://api.openai.com/v1"
    if not model:
        raise InputError(
            "openai: name the model, for example openai:gpt-4o-mini or "
            "openai:my-model?base_url=http://127.0.0.1:8000/v1"
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"base_url {url!r} is not a URL of a server; it looks like http://127.0.0.1:8000/v1")
    return OpenAIBackend(
        model, base_url=url, api_key=api_key, concurrency=concurrency, max_tokens=max_tokens, timeout=timeout
    )


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore")


def label_probs(top: Sequence[Mapping[str, Any]], labels: Labels) -> tuple[tuple[float, float, float], float] | None:
    """P(first), P(tie), P(second) from the top log-probabilities of one token, with the probability mass that the
    labels held.

    A token counts for a letter label if it is that letter, for the tie label if it begins that word; the three are
    normalised. ``None`` where the labels hold less than half of the mass: then the distribution says something else.
    """
    mass = {labels.first: 0.0, labels.tie: 0.0, labels.second: 0.0}
    for entry in top:
        token, logprob = str(entry.get("token", "")).strip().upper(), entry.get("logprob")
        if not token or not isinstance(logprob, float | int) or not -1e6 < logprob < 1e6:
            continue
        for label in mass:
            if token == label or (label == labels.tie and label.startswith(token)):
                mass[label] += math.exp(min(float(logprob), 0.0))
    total = sum(mass.values())
    if total < _MIN_MASS:
        return None
    return (mass[labels.first] / total, mass[labels.tie] / total, mass[labels.second] / total), total


class _Message(_Loose):
    content: str | None = None
    refusal: str | None = None


class _Token(_Loose):
    top_logprobs: list[dict[str, Any]] | None = None


class _Logprobs(_Loose):
    content: list[_Token] | None = None


class _Choice(_Loose):
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(_Loose):
    prompt_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0
    completion_tokens: Annotated[int, Field(ge=0, lt=2**53)] = 0


class _Completion(_Loose):
    """What of a chat completion is read; anything of another shape is an error reply, never a crash."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None


def _reply(payload: Any, labels: Labels, latency_ms: float) -> Reply:
    try:
        body = _Completion.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        return Reply(error=f"the completion is malformed: {where}: {first['msg']}", finish="error")
    choice = body.choices[0] if body.choices else _Choice()
    message = choice.message or _Message()
    content = choice.logprobs.content if choice.logprobs else None
    top = (content[0].top_logprobs if content else None) or []
    read = label_probs(top, labels)
    usage = body.usage or _Usage()
    return Reply(
        text=_clean(message.content or message.refusal or ""),
        probs=read[0] if read else None,
        score={"label_mass": read[1]} if read else {},
        finish=_clean(choice.finish_reason or "stop"),
        model=_clean(body.model) if body.model else None,
        fingerprint=_clean(body.system_fingerprint) if body.system_fingerprint else None,
        latency_ms=round(latency_ms, 3),
        usage=Usage(usage.prompt_tokens, usage.completion_tokens),
        flags=() if top else ("no_logprobs",),
    )


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate becomes U+FFFD."""
    return text.encode("utf-8", "replace").decode("utf-8")
