"""HTTP for the interfaces beside chat completions: one request or one stream of lines, each failure a value.

Like ``remote.HttpTransport`` it follows no redirect, sends its headers to one base URL only, and searches every answer
for secrets before anybody reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import completions
from .chat import Access
from .faults import Failure, Fault, classify, redact

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Wire", "WireError"]

_MAX_BODY = 8_000_000
_CHUNK = 1 << 16
_CONNECT_SECONDS = 10.0
_UPLOAD_SECONDS = 3_600.0


class WireError(Exception):
    """A stream of lines that broke, or never began; ``failure`` says how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Wire:
    """Requests to one base URL with fixed headers. ``timeout`` is in seconds: for a whole request, for an upload or a
    stream between two pieces.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], access: Access, *, timeout: float) -> None:
        self.base_url, self._given, self._timeout = base_url, dict(headers), timeout
        self._secrets = access.hidden()
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        upload: Path | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Any | Failure:
        """One request; its answer as decoded JSON, or why there is none.

        ``body`` is sent as JSON; ``upload`` is a file, sent as the whole body or, with ``form``, as the field ``file``
        beside these fields.
        """
        import aiohttp
        import orjson

        handle = upload.open("rb") if upload is not None else None
        try:
            data: Any = handle if handle is not None else None if body is None else orjson.dumps(body)
            headers = {} if form is not None else {"Content-Type": "application/json"}
            if form is not None and handle is not None and upload is not None:
                data = aiohttp.FormData(dict(form))
                data.add_field("file", handle, filename=upload.name, content_type="application/jsonl")
            slow = self._patient() if handle is not None else None
            async with self._exchange(method, path, data, headers, slow) as answer:
                raw = await _whole(answer)
        except WireError as error:
            return error.failure
        finally:
            if handle is not None:
                handle.close()
        if raw is None:
            return Failure(Fault.UNREADABLE, f"the answer has more than {_MAX_BODY:,} bytes", status=200)
        try:
            return completions.load(self._clean(raw))
        except ValueError:
            return Failure(Fault.UNREADABLE, "the answer is not JSON", status=200)

    async def lines(self, path: str) -> AsyncIterator[bytes]:
        """The lines of a body, as they come, without empty ones; raises ``WireError`` where it breaks.

        A last line without its end is given only where the body is whole. A line longer than 8 MB ends it.
        """
        rest = b""
        async with self._exchange("GET", path, None, {}, self._patient()) as answer:
            async for chunk in answer.content.iter_chunked(_CHUNK):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield self._clean(line)
                if len(rest) > _MAX_BODY:
                    raise WireError(Failure(Fault.UNREADABLE, f"a line has more than {_MAX_BODY:,} bytes", status=200))
            if rest.strip():
                yield self._clean(rest)

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, data: Any, headers: Mapping[str, str], limits: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send and hand out an answer with status 200; everything else is a ``WireError``."""
        import aiohttp

        extra = {} if limits is None else {"timeout": limits}
        url = f"{self.base_url}{path}"
        try:
            async with self._open().request(
                method, url, data=data, headers=headers, allow_redirects=False, **extra
            ) as answer:
                if answer.status != 200:
                    raw = await _whole(answer) or b""
                    known = {name.lower(): self._safe(value) for name, value in answer.headers.items()}
                    given = {"Retry-After": "retry-after", "Date": "date", "Location": "location"}
                    told = known | {name: known[low] for name, low in given.items() if low in known}
                    text = self._clean(raw).decode("utf-8", "replace")
                    raise WireError(classify(answer.status, text, told))
                yield answer
        except aiohttp.ClientConnectorError as error:
            detail = self._safe(f"cannot connect ({error.strerror or type(error).__name__})")
            raise WireError(Failure(Fault.UNREACHABLE, detail)) from None
        except aiohttp.ConnectionTimeoutError:
            raise WireError(Failure(Fault.UNREACHABLE, "cannot connect (timed out)")) from None
        except TimeoutError:
            raise WireError(Failure(Fault.TIMEOUT, f"no whole answer within {self._timeout:g} s")) from None
        except (aiohttp.ClientError, OSError) as error:
            raise WireError(Failure(Fault.RESET, f"the connection broke ({type(error).__name__})")) from None

    def _safe(self, text: str) -> str:
        return redact(text, self._secrets)

    def _clean(self, data: bytes) -> bytes:
        data = completions.plain(data)
        for secret in self._secrets:
            if secret.encode() in data:
                data = data.replace(secret.encode(), b"[redacted]")
        return data

    def _patient(self) -> Any:
        import aiohttp

        return aiohttp.ClientTimeout(
            total=_UPLOAD_SECONDS, sock_read=self._timeout, sock_connect=min(self._timeout, _CONNECT_SECONDS)
        )

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop:
            return self._session
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **self._given},
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(self._timeout, _CONNECT_SECONDS)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._loop = loop
        return self._session


async def _whole(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body, ``None`` where it is larger than anything that is read here."""
    data = bytearray()
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > _MAX_BODY:
            return None
    return bytes(data)
