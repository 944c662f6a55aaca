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
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, BackendUnavailable, InputError
from ..types import Ask, JudgeId, Labels, Reply, Usage

if TYPE_CHECKING:
    import aiohttp

__all__ = ["OpenAIBackend", "label_probs", "open_openai"]

_RETRIES = 3
_RETRY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MAX_WAIT_SECONDS = 30.0
_MIN_MASS = 0.5


class OpenAIBackend:
    """One model behind one base URL; one HTTP session for its life."""

    def __init__(
        self, model: str, *, base_url: str, api_key: str, concurrency: int, max_tokens: int, timeout: float
    ) -> None:
        self.model, self.base_url, self.max_tokens, self.timeout = model, base_url.rstrip("/"), max_tokens, timeout
        self.id = JudgeId(f"openai/{model}", "", f"t0-n{max_tokens}-logprobs")
        self.batch, self.concurrency, self.notice = 2, concurrency, ""
        self._key = api_key
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Send the asks together; a reply that failed for good carries ``error``."""
        session = await self._open()
        return list(await asyncio.gather(*(self._one(session, ask) for ask in asks)))

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
            if status == 200 and isinstance(payload, Mapping):
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
    if not url.startswith(("http://", "https://")):
        raise InputError(f"base_url {url!r} is not a URL; it starts with http:// or https://")
    return OpenAIBackend(
        model, base_url=url, api_key=api_key, concurrency=concurrency, max_tokens=max_tokens, timeout=timeout
    )


def label_probs(top: Sequence[Mapping[str, Any]], labels: Labels) -> tuple[tuple[float, float, float], float] | None:
    """P(first), P(tie), P(second) from the top log-probabilities of one token, with the probability mass that the
    labels held.

    A token counts for a letter label if it is that letter, for the tie label if it begins that word; the three are
    normalised. ``None`` where the labels hold less than half of the mass: then the distribution says something else.
    """
    mass = {labels.first: 0.0, labels.tie: 0.0, labels.second: 0.0}
    for entry in top:
        token, logprob = str(entry.get("token", "")).strip().upper(), entry.get("logprob")
        if not token or not isinstance(logprob, int | float) or math.isnan(logprob):
            continue
        for label in mass:
            if token == label or (label == labels.tie and label.startswith(token)):
                mass[label] += math.exp(min(float(logprob), 0.0))
    total = sum(mass.values())
    if total < _MIN_MASS:
        return None
    return (mass[labels.first] / total, mass[labels.tie] / total, mass[labels.second] / total), total


def _reply(payload: Mapping[str, Any], labels: Labels, latency_ms: float) -> Reply:
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    message = choice.get("message") or {}
    usage = payload.get("usage") or {}
    content = (choice.get("logprobs") or {}).get("content") or []
    top = content[0].get("top_logprobs") or [] if content and isinstance(content[0], Mapping) else []
    read = label_probs(top, labels)
    return Reply(
        text=str(message.get("content") or message.get("refusal") or ""),
        probs=read[0] if read else None,
        score={"label_mass": read[1]} if read else {},
        finish=str(choice.get("finish_reason") or "stop"),
        model=payload.get("model"),
        fingerprint=payload.get("system_fingerprint"),
        latency_ms=round(latency_ms, 3),
        usage=Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)),
        flags=() if top else ("no_logprobs",),
    )
