"""Batch interfaces as thin clients: submit, look, read the results, find a batch again, cancel. No policy lives here.

Two shapes. OpenAI's (``/files`` and ``/batches``; ``Batch`` in https://github.com/openai/openai-python) takes a file of
requests and tags a batch with metadata. Anthropic's (``/messages/batches``; ``MessageBatch`` in
https://github.com/anthropics/anthropic-sdk-python) takes the requests in the body and knows no tags. In both the
``custom_id`` of a request is the key of its ask: 64 hex digits, which is all that Anthropic allows.

Limits, as documented: OpenAI 50,000 requests and 200 MB a file
(https://platform.openai.com/docs/api-reference/batch/create), Anthropic 100,000 requests and 256 MB a batch
(https://platform.claude.com/docs/en/build-with-claude/batch-processing).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from ..errors import BackendError
from . import completions
from .calling import Caller
from .completions import Completion, Malformed
from .faults import POLICIES, Failure, Fault, classify
from .wire import Wire, WireError

__all__ = ["AnthropicBatches", "BatchApi", "BatchStatus", "OpenAIBatches", "Refused", "Row", "Shape", "Sought"]

State = Literal["running", "ended", "failed", "expired", "cancelled"]

_PAGES = 20
_EARLIER_SECONDS = 900.0
"""How much earlier than its intent a batch may seem to be made: two clocks differ."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the requests of a batch are put into one file, and how many fit: ``requests`` and ``size`` in bytes."""

    requests: int
    size: int
    head: bytes = b""
    between: bytes = b"\n"
    tail: bytes = b"\n"


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What the provider says of a batch. ``done`` of ``total`` requests are finished; ``files`` hold the results;
    ``detail`` says why a batch failed.
    """

    id: str
    state: State
    done: int
    total: int
    files: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one request: a completion or a failure; ``fate`` ``expired`` or ``cancelled`` for one that never
    ran and was not charged.
    """

    key: str
    said: Completion | Failure
    fate: Literal["answered", "failed", "expired", "cancelled"] = "answered"


@dataclass(frozen=True, slots=True)
class Sought:
    """A batch whose id was never written down: its tag, when its intent was written (ISO 8601), the keys of its
    requests, and ids of batches that are known to be others.
    """

    tag: str
    since: str
    keys: Collection[str]
    others: Collection[str] = ()


class Refused(BackendError):
    """A call about a batch that no waiting helps: the key, the account or the batch is refused."""


def _error(failure: Failure | None, told: str) -> BackendError:
    refused = failure is not None and not POLICIES[failure.fault].retries
    return Refused(told) if refused else BackendError(told)


class BatchApi(Protocol):
    """One provider's batch interface. Failures of a look, a search or a cancellation raise ``BackendError``; a
    submission gives its failure back, because only the caller knows whether it may be repeated.
    """

    provider: str
    endpoint: str
    shape: Shape
    tagged: bool
    """Whether a batch carries our tag; else ``find`` knows one by its results."""

    def request(self, key: str, body: Mapping[str, Any]) -> bytes:
        """One request of the file, from the body of a chat completion."""
        ...

    async def upload(self, path: Path) -> str:
        """Bring a file to the provider, where that is a step of its own; costs nothing."""
        ...

    async def submit(self, path: Path, uploaded: str, *, tag: str) -> BatchStatus | Failure:
        """Make the batch: from here on it is paid for. One attempt."""
        ...

    async def find(self, sought: Sought) -> BatchStatus | None:
        """The batch that was made and not written down; ``None`` where there is none."""
        ...

    async def status(self, batch: str) -> BatchStatus:
        """Look at a batch."""
        ...

    def rows(self, status: BatchStatus) -> AsyncGenerator[Row, None]:
        """The results of a batch that ended, in any order; raises ``WireError`` where the stream breaks."""
        ...

    async def cancel(self, batch: str) -> BatchStatus:
        """Ask for no more requests to be run; those that ran stay paid and readable."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class _Client(ABC):
    """What both shapes share: calls under the caller's limits and retries."""

    def __init__(self, wire: Wire, caller: Caller) -> None:
        self._wire, self._caller = wire, caller

    async def close(self) -> None:
        await self._wire.close()

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """A call that may be repeated; raises ``BackendError`` where it fails for good, ``Refused`` where the answer
        would be the same an hour later.
        """
        failure: Failure | None = None

        async def send() -> Any | Failure:
            nonlocal failure
            answer = await self._wire.request(method, path, **options)
            failure = answer if isinstance(answer, Failure) else None
            return answer

        try:
            called = await self._caller.call(send)
        except BackendError as error:
            raise _error(failure, str(error)) from None
        if called.value is None:
            raise _error(failure, f"{self._caller.endpoint}{path}: {failure}")
        if not isinstance(called.value, dict):
            raise BackendError(f"{self._caller.endpoint}{path}: the answer is no object")
        return called.value

    @abstractmethod
    def _status(self, entry: Mapping[str, Any]) -> BatchStatus:
        """A batch as the provider shows it; may raise anything where that has another shape."""

    def _seen(self, entry: Mapping[str, Any]) -> BatchStatus:
        """``_status``; raises ``BackendError`` for another shape, so that a look is repeated like any that failed."""
        try:
            return self._status(entry)
        except (AttributeError, TypeError, ValueError):
            raise BackendError(f"{self._caller.endpoint}: what it says of a batch has an unknown shape") from None

    async def _pages(self, path: str, after: str) -> AsyncIterator[dict[str, Any]]:
        """The entries of a list, newest first, page after page."""
        cursor = ""
        for _ in range(_PAGES):
            page = await self._call("GET", f"{path}?limit=100" + (f"&{after}={cursor}" if cursor else ""))
            listed = page.get("data")
            entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
            for entry in entries:
                yield entry
            cursor = str(page.get("last_id") or (entries[-1].get("id") if entries else ""))
            if not page.get("has_more") or not entries or not cursor:
                return

    async def _lines(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Key and object of each line; a line that is damaged or names no key stands for nothing."""
        async for line in self._wire.lines(path):
            try:
                entry = completions.load(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("custom_id"), str):
                yield entry["custom_id"], entry


class OpenAIBatches(_Client):
    """OpenAI's shape; also spoken by Azure OpenAI, Groq, Mistral-compatible gateways, vLLM's and others' servers."""

    provider = "openai"
    endpoint = "/v1/chat/completions"
    shape = Shape(50_000, 200_000_000)
    tagged = True

    def request(self, key: str, body: Mapping[str, Any]) -> bytes:
        """One line of the input file."""
        return orjson.dumps({"custom_id": key, "method": "POST", "url": self.endpoint, "body": body})

    async def upload(self, path: Path) -> str:
        """Upload the input file; returns its id. Raises ``BackendError``."""
        made = await self._call("POST", "/files", upload=path, form={"purpose": "batch"})
        return _name(made.get("id"))

    async def submit(self, path: Path, uploaded: str, *, tag: str) -> BatchStatus | Failure:
        """Create the batch over the uploaded file, with the tag in its metadata."""
        del path
        body = {
            "input_file_id": uploaded,
            "endpoint": self.endpoint,
            "completion_window": "24h",
            "metadata": {"touchstone_tag": tag},
        }
        made = await self._wire.request("POST", "/batches", body=body)
        return made if isinstance(made, Failure) else _submitted(made, self._status)

    async def find(self, sought: Sought) -> BatchStatus | None:
        """The batch whose metadata carries the tag."""
        async for entry in self._pages("/batches", "after"):
            metadata = entry.get("metadata")
            if isinstance(metadata, dict) and metadata.get("touchstone_tag") == sought.tag:
                return self._seen(entry)
            created = entry.get("created_at")
            if isinstance(created, int) and created < _seconds(sought.since) - _EARLIER_SECONDS:
                return None
        return None

    async def status(self, batch: str) -> BatchStatus:
        """Look at a batch."""
        return self._seen(await self._call("GET", f"/batches/{batch}"))

    async def cancel(self, batch: str) -> BatchStatus:
        """Cancel a batch; it ends within some minutes."""
        return self._seen(await self._call("POST", f"/batches/{batch}/cancel"))

    async def rows(self, status: BatchStatus) -> AsyncGenerator[Row, None]:
        """The lines of the output file and of the error file."""
        for file in status.files:
            async for key, entry in self._lines(f"/files/{file}/content"):
                yield _openai_row(key, entry)

    def _status(self, entry: Mapping[str, Any]) -> BatchStatus:
        states: Mapping[str, State] = {
            "completed": "ended", "failed": "failed", "expired": "expired", "cancelled": "cancelled"
        }  # fmt: skip
        counts = entry.get("request_counts") or {}
        errors = (entry.get("errors") or {}).get("data") or []
        told = [f"{error.get('code')}: {error.get('message')}" for error in errors if isinstance(error, dict)]
        return BatchStatus(
            id=_id(entry),
            state=states.get(str(entry.get("status")), "running"),
            done=int(counts.get("completed") or 0) + int(counts.get("failed") or 0),
            total=int(counts.get("total") or 0),
            files=tuple(_name(entry[name]) for name in ("output_file_id", "error_file_id") if entry.get(name)),
            detail="; ".join(told)[:500],
        )


def _openai_row(key: str, entry: Mapping[str, Any]) -> Row:
    error, response = entry.get("error"), entry.get("response")
    if isinstance(error, dict) and error.get("code") in ("batch_expired", "batch_cancelled"):
        fate: Literal["expired", "cancelled"] = "expired" if error["code"] == "batch_expired" else "cancelled"
        return Row(key, Failure(Fault.TIMEOUT, str(error["code"])), fate)
    if not isinstance(response, dict):
        told = error if isinstance(error, dict) else {}
        slow = told.get("code") == "request_timeout"
        fault = Fault.TIMEOUT if slow else Fault.SERVER_ERROR
        return Row(key, Failure(fault, f"{told.get('code')}: {told.get('message')}"[:200]), "failed")
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        code = status if isinstance(status, int) and 300 <= status < 600 else 500
        text = orjson.dumps(body, default=str).decode() if body is not None else str(error)
        return Row(key, classify(code, text, {}), "failed")
    try:
        return Row(key, completions.read(body))
    except Malformed as problem:
        return Row(key, Failure(Fault.MALFORMED, f"the completion: {problem}", status=200), "failed")


class AnthropicBatches(_Client):
    """Anthropic's shape. ``params`` makes the parameters of a message from the body of a chat completion, ``read``
    reads a message.
    """

    provider = "anthropic"
    endpoint = "/v1/messages"
    shape = Shape(100_000, 256_000_000, b'{"requests":[', b",\n", b"]}")
    tagged = False

    def __init__(
        self,
        wire: Wire,
        caller: Caller,
        *,
        params: Callable[[Mapping[str, Any]], dict[str, Any]],
        read: Callable[[Any], Completion],
    ) -> None:
        super().__init__(wire, caller)
        self._params, self._read = params, read

    def request(self, key: str, body: Mapping[str, Any]) -> bytes:
        """One entry of ``requests``."""
        return orjson.dumps({"custom_id": key, "params": self._params(body)})

    async def upload(self, path: Path) -> str:
        """Nothing: the requests go with the submission."""
        del path
        return ""

    async def submit(self, path: Path, uploaded: str, *, tag: str) -> BatchStatus | Failure:
        """Create the batch; it can carry no tag."""
        del uploaded, tag
        made = await self._wire.request("POST", "/messages/batches", upload=path)
        return made if isinstance(made, Failure) else _submitted(made, self._status)

    async def find(self, sought: Sought) -> BatchStatus | None:
        """A batch of as many requests, made since, whose results are those of the sought keys.

        Which requests a batch holds shows in its results only, so one that is still running is waited for by the
        caller (``BatchStatus.state`` is then ``running``) and compared again.
        """
        earliest = _seconds(sought.since) - _EARLIER_SECONDS
        async for entry in self._pages("/messages/batches", "after_id"):
            if _seconds(str(entry.get("created_at"))) < earliest:
                return None
            status = self._seen(entry)
            if status.id in sought.others or status.total != len(sought.keys):
                continue
            if status.state == "running" or await self._holds(status, sought.keys):
                return status
        return None

    async def _holds(self, status: BatchStatus, keys: Collection[str]) -> bool:
        try:
            async for key, _entry in self._lines(f"/messages/batches/{status.id}/results"):
                return key in keys
        except WireError as error:
            raise BackendError(f"{self._caller.endpoint}: the results of {status.id}: {error.failure}") from None
        return False

    async def status(self, batch: str) -> BatchStatus:
        """Look at a batch."""
        return self._seen(await self._call("GET", f"/messages/batches/{batch}"))

    async def cancel(self, batch: str) -> BatchStatus:
        """Cancel a batch; requests that run are finished."""
        return self._seen(await self._call("POST", f"/messages/batches/{batch}/cancel"))

    async def rows(self, status: BatchStatus) -> AsyncGenerator[Row, None]:
        """The lines of the results, read under our own base URL: the key goes nowhere else."""
        async for key, entry in self._lines(f"/messages/batches/{status.id}/results"):
            yield self._row(key, entry)

    def _row(self, key: str, entry: Mapping[str, Any]) -> Row:
        result = entry.get("result")
        kind = result.get("type") if isinstance(result, dict) else None
        if not isinstance(result, dict) or kind not in ("succeeded", "errored", "expired", "canceled"):
            return Row(key, Failure(Fault.MALFORMED, "a result of no known type", status=200), "failed")
        if kind in ("expired", "canceled"):
            return Row(key, Failure(Fault.TIMEOUT, str(kind)), "expired" if kind == "expired" else "cancelled")
        if kind == "errored":
            return Row(key, _anthropic_failure(result.get("error")), "failed")
        try:
            return Row(key, self._read(result.get("message")))
        except Malformed as problem:
            return Row(key, Failure(Fault.MALFORMED, f"the message: {problem}", status=200), "failed")

    def _status(self, entry: Mapping[str, Any]) -> BatchStatus:
        counts = entry.get("request_counts") or {}
        kinds = ("succeeded", "errored", "canceled", "expired")
        done = sum(int(counts.get(kind) or 0) for kind in kinds)
        total = done + int(counts.get("processing") or 0)
        state: State = "running"
        if entry.get("processing_status") == "ended":
            state = "cancelled" if entry.get("cancel_initiated_at") else "expired" if counts.get("expired") else "ended"
        return BatchStatus(_id(entry), state, done, total)


_STATUS_OF = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip


def _anthropic_failure(error: Any) -> Failure:
    """The failure of one request; the error stands inside an error object."""
    inner = error.get("error", error) if isinstance(error, dict) else {}
    kind = str(inner.get("type")) if isinstance(inner, dict) else ""
    text = str(inner.get("message", "")) if isinstance(inner, dict) else ""
    return classify(_STATUS_OF.get(kind, 500), f"{kind}: {text}", {})


def _submitted(made: Any, read: Callable[[Mapping[str, Any]], BatchStatus]) -> BatchStatus | Failure:
    """The batch that a submission made; an answer that cannot be read may stand for one all the same."""
    try:
        return read(made)
    except (BackendError, AttributeError, TypeError, ValueError):
        return Failure(Fault.MALFORMED, "the answer to the submission names no batch", status=200)


def _id(entry: Mapping[str, Any]) -> str:
    return _name(entry.get("id"))


def _name(value: Any) -> str:
    """An id as part of a URL: whatever could lead elsewhere is refused."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]{1,200}", value):
        raise BackendError("the provider's answer has an id that cannot be used")
    return value


def _seconds(text: str) -> float:
    """ISO 8601 as seconds since 1970; 0 where it is no date."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
