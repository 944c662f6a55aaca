"""Judges behind an OpenAI-compatible URL (``POST {base_url}/chat/completions``): vLLM, llama.cpp, SGLang, Ollama,
OpenAI and the like.

One aiohttp session for the life of a backend. The API key is sent as a bearer token to ``base_url`` and appears nowhere
else: redirects are not followed, and every answer is searched for the key before it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from ..errors import InputError
from . import completions
from .batches import OpenAIBatches
from .calling import Caller
from .chat import Access, ChatBackend, Options
from .completions import Completion, Malformed, label_probs
from .faults import Failure, Fault, classify, detail_of, redact
from .wire import Wire

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HttpTransport", "OpenAIBackend", "Options", "label_probs", "open_openai"]

OPENAI = "https://api.openai.com/v1"
_MAX_BODY = 8_000_000
_CONNECT_SECONDS = 10.0

OpenAIBackend = ChatBackend


class HttpTransport:
    """Posts bodies to one URL. ``timeout`` is in seconds for one attempt, from connecting to the last byte."""

    def __init__(self, base_url: str, access: Access, *, timeout: float, connections: int) -> None:
        self.base_url, self._key, self._hidden = base_url, access.key, access.hidden()
        self._timeout, self._connections = timeout, connections
        self._secrets = [secret.encode() for secret in self._hidden]
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._url: Any = None

    async def send(self, body: Mapping[str, Any]) -> Completion | Failure:
        """Post once and read the answer; every way in which that can fail is a ``Failure``."""
        import aiohttp

        session = self._open()
        try:
            async with session.post(self._url, data=orjson.dumps(body), allow_redirects=False) as answer:
                data = await _body(answer)
        except aiohttp.ClientConnectorError as error:
            return Failure(Fault.UNREACHABLE, self._safe(f"cannot connect ({error.strerror or type(error).__name__})"))
        except aiohttp.ConnectionTimeoutError:
            return Failure(Fault.UNREACHABLE, "cannot connect (timed out)")
        except TimeoutError:
            return Failure(Fault.TIMEOUT, f"no whole answer within {self._timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Failure(Fault.RESET, f"the connection broke ({type(error).__name__})")
        except TypeError as error:
            return Failure(Fault.BAD_REQUEST, f"the prompt cannot be sent as JSON ({error})"[:200])
        if data is None:
            return Failure(Fault.UNREADABLE, f"the answer has more than {_MAX_BODY:,} bytes", status=200)
        data = completions.plain(data)
        for secret in self._secrets:
            if secret in data:
                data = data.replace(secret, b"[redacted]")
        if answer.status != 200:
            return classify(answer.status, data.decode("utf-8", "replace"), _Headers(answer.headers, self._safe))
        return understood(data)

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _safe(self, text: str) -> str:
        return redact(text, self._hidden)

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop:
            return self._session
        import aiohttp
        from yarl import URL

        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, _CONNECT_SECONDS)),
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._url = URL(f"{self.base_url}/chat/completions")
        self._loop = loop
        return self._session


class _Headers(dict[str, str]):
    """Headers by name without regard to case, without secrets."""

    def __init__(self, headers: Mapping[str, str], safe: Any) -> None:
        super().__init__((name.lower(), safe(value)) for name, value in headers.items())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


async def _body(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body, ``None`` where it is larger than anything that is read here."""
    size = answer.content_length
    if size is not None and "Content-Encoding" not in answer.headers:
        return await answer.read() if size <= _MAX_BODY else None
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > _MAX_BODY:
            return None
    return bytes(data)


def understood(data: bytes) -> Completion | Failure:
    """A body that came with status 200, read."""
    try:
        payload = completions.load(data)
    except ValueError:
        shown = " ".join(data[:500].decode("utf-8", "replace").split())[:120]
        return Failure(Fault.UNREADABLE, f"the answer is not JSON: {shown}", status=200)
    error = detail_of(payload)
    if error is not None:
        return classify(error[0], error[1], {})
    try:
        return completions.read(payload)
    except Malformed as problem:
        return Failure(Fault.MALFORMED, f"the completion: {problem}", status=200)


def open_openai(model: str, *, options: Options | None = None, access: Access | None = None) -> ChatBackend:
    """Open ``openai:MODEL``. Raises ``InputError`` without a model, with a URL that is none, or for an option out of
    its range.

    The price table applies to OpenAI's own server only; any other has no price until one is given.
    """
    options, access = options or Options(), access or Access()
    url = (options.base_url or OPENAI).rstrip("/")
    if not model:
        raise InputError(
            "openai: name the model, for example openai:gpt-4o-mini or "
            "openai:my-model?base_url=http://127.0.0.1:8000/v1"
        )
    check_url(url)
    price = options.price(f"openai/{model}", access.prices, url="" if url == OPENAI else url)
    transport = HttpTransport(url, access, timeout=options.timeout, connections=options.concurrency)
    options.form()
    advice = f"check the URL, the model name and {options.key_env or 'OPENAI_API_KEY'}"
    caller = Caller(url, options.limits(), advice=advice)
    options = replace(options, revision=options.at(url, own=OPENAI))
    memory = access.memory(f"openai/{model}", url, options)
    backend = ChatBackend(f"openai/{model}", model, transport, caller, options=options, price=price, memory=memory)
    headers = {"Authorization": f"Bearer {access.key}"} if access.key else {}
    backend.batches = lambda: OpenAIBatches(Wire(url, headers, access, timeout=options.timeout), caller)
    return backend


def check_url(url: str) -> None:
    """Refuse what is no URL of a server, and one that carries a secret: judge strings are written to the journal."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # What stands before an @ or after a question mark may be a secret.
        shown = url.rpartition("@")[2].partition("?")[0]
        raise InputError(f"base_url {shown!r} is not a URL of a server; it looks like http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError(
            "base_url carries a user name, a query or a fragment; a key belongs in the environment "
            "(OPENAI_API_KEY, or name the variable with &key_env=)"
        )
