"""What can go wrong with one call to a model behind a URL, and what is done about it: one enum, one table.

Pure: nothing here sends, sleeps or reads a clock. ``classify`` names the fault of an HTTP answer, ``POLICIES`` says for
each fault how often the call is tried again, whether a failed attempt may have been charged, and what else learns of
it. Retry-After is read in the three spellings in use: seconds and an HTTP date (RFC 9110, section 10.2.3), and
``retry-after-ms`` (https://github.com/openai/openai-python, ``_base_client.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

__all__ = ["POLICIES", "Failure", "Fault", "Policy", "classify", "redact", "retry_after", "spellings"]


class Fault(StrEnum):
    """Why a call brought no completion."""

    RATE_LIMITED = "rate_limited"
    """429: too many requests or tokens."""
    OVERLOADED = "overloaded"
    """503 or 529: the server refused the work."""
    SERVER_ERROR = "server_error"
    """500, 502 and every other 5xx: the work may have been done."""
    TIMEOUT = "timeout"
    """No whole answer in time, ours or a gateway's (408, 504)."""
    RESET = "reset"
    """The connection broke after the request was sent."""
    UNREADABLE = "unreadable"
    """200 with a body that is no JSON: cut, an HTML page, too large."""
    MALFORMED = "malformed"
    """JSON that is no chat completion."""
    UNREACHABLE = "unreachable"
    """No connection, and this server never answered before."""
    GONE = "gone"
    """No connection, though this server answered before."""
    AGAIN = "again"
    """409 or 425: the server asks to try again."""
    BAD_REQUEST = "bad_request"
    """400, 422 and every other 4xx: this request is refused."""
    TOO_LONG = "too_long"
    """The prompt does not fit the model."""
    FILTERED = "filtered"
    """The provider's filter refused the prompt."""
    AUTH = "auth"
    """401 or 403: the key is missing, wrong or not allowed."""
    QUOTA = "quota"
    """402, or 429 because the account is out of money."""
    NOT_FOUND = "not_found"
    """404: no such model, or the URL is wrong."""
    REDIRECT = "redirect"
    """3xx: never followed, the key belongs to the host it was given for."""
    BUG = "bug"
    """Something nobody thought of; never retried."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done about a fault.

    ``retries`` is how often a call that met it is sent again, ``wait`` the first back-off in seconds (it doubles up to
    ``calling.MAX_WAIT``; the time waited is drawn evenly from zero to it, "full jitter"). ``paid``: a failed attempt
    may have been charged. ``breaker``: it counts towards the breaker of the endpoint. ``slow``: fewer calls in flight
    from now on. ``stops``: when the retries are used up nothing can be answered any more (``BackendError``, the run
    can be resumed); otherwise this one ask gets an error reply.
    """

    retries: int = 0
    wait: float = 0.5
    paid: bool = False
    breaker: bool = False
    slow: bool = False
    stops: bool = False


POLICIES: Mapping[Fault, Policy] = {
    #                            retries wait      paid         breaker       slow       stops
    Fault.RATE_LIMITED: Policy(8, 1.0, slow=True, stops=True),
    Fault.OVERLOADED: Policy(5, 1.0, breaker=True, slow=True),
    Fault.SERVER_ERROR: Policy(2, 0.5, paid=True, breaker=True),
    Fault.TIMEOUT: Policy(1, 1.0, paid=True, breaker=True, slow=True),
    Fault.RESET: Policy(2, 0.5, paid=True, breaker=True),
    Fault.UNREADABLE: Policy(1, 0.5, paid=True, breaker=True),
    Fault.MALFORMED: Policy(0, paid=True),
    Fault.UNREACHABLE: Policy(2, 0.25, stops=True),
    Fault.GONE: Policy(6, 1.0, breaker=True, stops=True),
    Fault.AGAIN: Policy(2, 0.5),
    Fault.BAD_REQUEST: Policy(0),
    Fault.TOO_LONG: Policy(0),
    Fault.FILTERED: Policy(0),
    Fault.AUTH: Policy(0, stops=True),
    Fault.QUOTA: Policy(0, stops=True),
    Fault.NOT_FOUND: Policy(0, stops=True),
    Fault.REDIRECT: Policy(0, stops=True),
    Fault.BUG: Policy(0, paid=True),
}
"""The whole retry policy, one row per fault."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that brought no completion: its fault, a short text without secrets, and the server's wish to wait
    in seconds (``None`` where it said nothing).
    """

    fault: Fault
    detail: str
    wait: float | None = None
    status: int = 0

    def __str__(self) -> str:
        return f"{self.fault}: {self.detail}"


_BY_STATUS = {
    400: Fault.BAD_REQUEST,
    401: Fault.AUTH,
    402: Fault.QUOTA,
    403: Fault.AUTH,
    404: Fault.NOT_FOUND,
    408: Fault.TIMEOUT,
    409: Fault.AGAIN,
    413: Fault.TOO_LONG,
    425: Fault.AGAIN,
    429: Fault.RATE_LIMITED,
    503: Fault.OVERLOADED,
    504: Fault.TIMEOUT,
    529: Fault.OVERLOADED,
}
_QUOTA = re.compile(
    r"insufficient_quota|billing|credit balance|exceeded your current quota|out of credits", re.IGNORECASE
)
_TOO_LONG = re.compile(
    r"context_length|context length|maximum context|context size|too many tokens|too long", re.IGNORECASE
)
_FILTER = re.compile(r"content_filter|content_policy|content management policy|moderation|flagged", re.IGNORECASE)


def classify(status: int, text: str, headers: Mapping[str, str]) -> Failure:
    """The failure that an HTTP answer with another status than 200 stands for.

    ``text`` is the body as text without secrets; only its beginning is kept. Providers say "out of money" with 429,
    "prompt too long" and "filtered" with 400 or 403, so those words are looked for in the body.
    """
    shown = " ".join(text[:4_000].split())
    fault = _BY_STATUS.get(status)
    if fault is None:
        fault = Fault.REDIRECT if 300 <= status < 400 else Fault.SERVER_ERROR if status >= 500 else Fault.BAD_REQUEST
    if fault is Fault.RATE_LIMITED and _QUOTA.search(shown):
        fault = Fault.QUOTA
    elif fault in (Fault.BAD_REQUEST, Fault.AUTH) and status in (400, 403, 422):
        if _FILTER.search(shown):
            fault = Fault.FILTERED
        elif status != 403 and _TOO_LONG.search(shown):
            fault = Fault.TOO_LONG
    if fault is Fault.REDIRECT:
        shown = f"to {headers.get('Location', 'nowhere')[:200]}, which is not followed"
    return Failure(fault, f"HTTP {status}: {shown[:200]}".rstrip(": "), retry_after(headers), status)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, ``None`` where it does not say or cannot be understood.

    ``headers`` must look names up without regard to case. A date is taken relative to the answer's own ``Date``, so a
    clock that is wrong here does no harm; without one it is not understood.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])).total_seconds())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", text) else None


SHORTEST_SECRET = 8
"""Characters of a secret at least. What is shorter is a placeholder (``EMPTY``, ``x``) for a server that wants no key,
and to take it out of answers would take letters out of verdicts."""


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every way in which an answer or an error may repeat a secret, the longest first: as it is, and as in a URL.

    >>> spellings(["pa/ss+word", "EMPTY"])
    ('pa%2Fss%2Bword', 'pa/ss%2Bword', 'pa/ss+word')
    """
    whole = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
    found = whole | {quote(secret, safe=safe) for secret in whole for safe in ("", "/")}
    return tuple(sorted(found, key=lambda spelled: (-len(spelled), spelled)))


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret in it replaced; do this before a text is cut, or half a key remains."""
    for secret in secrets:
        if secret and secret in text:
            text = text.replace(secret, "[redacted]")
    return text


def detail_of(body: Any) -> tuple[int, str] | None:
    """Status and text of an error that came as JSON with status 200 (gateways do that), ``None`` where there is none.

    >>> detail_of({"error": {"code": 502, "message": "upstream"}})
    (502, 'upstream')
    """
    if not isinstance(body, dict) or body.get("choices") or body.get("content"):
        return None
    error = body.get("error")
    told = error if isinstance(error, dict) else body
    if error in (None, "") and "choices" not in body and "detail" not in body and "message" not in body:
        return None
    if error in (None, "") and "choices" in body:
        return None
    code = told.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    words = error if isinstance(error, str) and error else told.get("message") or told.get("detail") or ""
    return status, str(words)
