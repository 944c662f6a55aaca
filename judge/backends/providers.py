"""Judges at any provider that litellm knows (https://github.com/BerriAI/litellm): ``anthropic/NAME``, ``gemini/NAME``,
``bedrock/NAME`` and the rest.

litellm only translates and carries one attempt: its retries, fallbacks, telemetry and price download are off, and what
it raises is mapped to ``Fault``. It is imported at the first call (seconds, 170 MB), never by ``import judge``. It
reads its providers' keys from the environment itself (``ANTHROPIC_API_KEY`` and so on).
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ..environment import calm_litellm
from ..errors import BackendUnavailable, InputError
from ..prices import Price
from .calling import Caller
from .chat import Access, ChatBackend, Options
from .completions import Completion
from .faults import Failure, Fault, classify, redact
from .remote import check_url, understood

__all__ = ["LitellmTransport", "open_litellm"]

_INSTALL = "python -m pip install 'touchstone-judge[remote]'"
_MALICIOUS = ("1.82.7", "1.82.8")
_NO_CONNECTION = {"ClientConnectorError", "ClientConnectorDNSError", "ConnectError", "ConnectionRefusedError"}


class LitellmTransport:
    """Carries bodies through ``litellm.acompletion``; ``timeout`` is in seconds for one attempt."""

    _users: ClassVar[set[int]] = set()

    def __init__(self, model: str, access: Access, *, base_url: str, timeout: float) -> None:
        self._model, self._secrets = model, access.hidden()
        self._fixed: dict[str, Any] = {
            "model": model,
            "timeout": timeout,
            "num_retries": 0,
            "max_retries": 0,
            "drop_params": True,
        }
        if base_url:
            self._fixed["api_base"] = base_url
        if access.key:
            self._fixed["api_key"] = access.key

    async def send(self, body: Mapping[str, Any]) -> Completion | Failure:
        """Call once; whatever litellm raises becomes a ``Failure``."""
        litellm = _litellm()
        self._users.add(id(self))
        try:
            answer = await litellm.acompletion(**{**body, **self._fixed})
            data = answer.model_dump_json().encode("utf-8", "replace")
        except Exception as error:  # noqa: BLE001 - a library over a hundred providers: nothing it raises may end a run
            return self._failure(error)
        return understood(redact(data.decode(), self._secrets).encode())

    async def close(self) -> None:
        """Close the clients that litellm keeps for the whole process, once nobody here uses them any more."""
        self._users.discard(id(self))
        if "litellm" in sys.modules and not self._users:
            litellm = _litellm()
            await litellm.close_litellm_async_clients()
            # It closes them and hands them out again all the same.
            litellm.in_memory_llm_clients_cache.flush_cache()

    def _failure(self, error: Exception) -> Failure:
        text = redact(str(error), self._secrets)
        kind = type(error).__name__
        causes = {type(cause).__name__ for cause in _chain(error)}
        if causes & _NO_CONNECTION:
            return Failure(Fault.UNREACHABLE, "cannot connect")
        if any(_is_network(cause) for cause in _chain(error)):
            return Failure(Fault.TIMEOUT if "Timeout" in kind else Fault.RESET, " ".join(text.split())[:200])
        if kind == "APIConnectionError":
            # litellm's name for whatever it did not expect, also its own mistakes.
            return Failure(Fault.BUG, " ".join(text.split())[:200])
        if kind == "ContextWindowExceededError":
            return Failure(Fault.TOO_LONG, " ".join(text.split())[:200], status=400)
        if kind == "ContentPolicyViolationError":
            return Failure(Fault.FILTERED, " ".join(text.split())[:200], status=400)
        status = getattr(error, "status_code", None)
        if not isinstance(status, int) or status < 300:
            return Failure(Fault.BUG, f"{kind}: {text}"[:200])
        return classify(status, text, _headers(error, self._secrets))


def _is_network(error: BaseException) -> bool:
    client = type(error).__module__.split(".")[0] in ("aiohttp", "httpx", "httpcore")
    return (client and "Status" not in type(error).__name__) or type(error) is ConnectionResetError


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and everything that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _headers(error: Exception, secrets: Iterable[str]) -> dict[str, str]:
    """The headers of the answer behind an exception, in the spelling in which ``retry_after`` looks for them."""
    found: dict[str, str] = {}
    given = (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    )
    for headers in given:
        for name, value in dict(headers or {}).items():
            plain = str(name).lower().removeprefix("llm_provider-")
            key = {"retry-after": "Retry-After", "date": "Date"}.get(plain, plain)
            found.setdefault(key, redact(str(value), secrets))
    return found


@cache
def _litellm() -> Any:
    """litellm, imported once with everything off that would phone home."""
    calm_litellm()
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.disable_aiohttp_trust_env = True
    return litellm


def open_litellm(model: str, *, options: Options | None = None, access: Access | None = None) -> ChatBackend:
    """Open ``litellm:PROVIDER/NAME``. Raises ``InputError`` without a model, ``BackendUnavailable`` where litellm is
    missing or is one of the two releases that carried a credential stealer (PyPI advisory MAL-2026-2144).
    """
    options, access = options or Options(), access or Access()
    if "/" not in model:
        raise InputError("litellm: name provider and model, for example litellm:anthropic/claude-haiku-4-5")
    try:
        found = version("litellm")
    except PackageNotFoundError:
        raise BackendUnavailable(f"{model} needs litellm; run: {_INSTALL}") from None
    if found in _MALICIOUS:
        raise BackendUnavailable(f"litellm {found} is malicious; remove it, change your keys, then run: {_INSTALL}")
    if options.base_url:
        check_url(options.base_url)
    transport = LitellmTransport(model, access, base_url=options.base_url.rstrip("/"), timeout=options.timeout)
    price = options.price(model, access.prices, url=options.base_url)
    if price is None and not options.base_url and options.price_in is None:
        price = _bundled_price(model)
    provider = model.split("/", maxsplit=1)[0]
    advice = f"check the model name and the provider's key ({options.key_env or provider.upper() + '_API_KEY'})"
    caller = Caller(model, options.limits(), advice=advice)
    options.form()
    if options.base_url:
        options = replace(options, revision=options.at(options.base_url, own=""))
    memory = access.memory(model, options.base_url or "litellm", options)
    return ChatBackend(model, model, transport, caller, options=options, price=price, memory=memory)


def _bundled_price(model: str) -> Price | None:
    """The price in the map that the installed litellm carries as a file, read without importing litellm."""
    spec = importlib.util.find_spec("litellm")
    path = Path(spec.origin).parent / "model_prices_and_context_window_backup.json" if spec and spec.origin else None
    if path is None or not path.is_file():
        return None
    provider, _, name = model.partition("/")
    table = _price_map(path)
    for key in (model, name):
        entry = table.get(key)
        if isinstance(entry, dict) and str(entry.get("litellm_provider", "")).startswith(provider):
            each = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
            known = [float(value) * 1e6 for value in each if isinstance(value, int | float) and value > 0]
            if len(known) == 2:
                return Price(known[0], known[1])
    return None


@cache
def _price_map(path: Path) -> Mapping[str, Any]:
    table = json.loads(path.read_text(encoding="utf-8"))
    return table if isinstance(table, dict) else {}
