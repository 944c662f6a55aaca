"""Replies of earlier runs by the key of their judgement: the cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ..types import Reply
from .database import ONE_THREAD, reading
from .rows import stored_reply

if TYPE_CHECKING:
    import duckdb

__all__ = ["Known", "ReplyCache"]

_HELD_SECONDS = 2.0
"""How long the database is kept open over several questions; who wants to write waits for it up to 15 seconds."""


class Known(Mapping[str, Reply]):
    """Stored replies by key; ``bodies`` holds each as the JSON in which it is stored, so that a journal that takes it
    over need not make that anew. A reply is read when it is asked for.
    """

    def __init__(self, bodies: Mapping[str, str]) -> None:
        self.bodies = bodies

    def __getitem__(self, key: str) -> Reply:
        return stored_reply(self.bodies[key])

    def __contains__(self, key: object) -> bool:
        return key in self.bodies

    def __iter__(self) -> Iterator[str]:
        return iter(self.bodies)

    def __len__(self) -> int:
        return len(self.bodies)


class ReplyCache:
    """Finds stored replies by their keys: call it.

    After ``hold`` the database stays open from one question to the next, for a while, as long as every key is found:
    whoever then has no calls to make asks again at once. ``close`` ends that. Questions may come from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._held = False
        self._open: ExitStack | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._since = 0.0

    def __call__(self, keys: Sequence[str]) -> Known:
        """The stored replies among ``keys``; where a judge was asked again and answered otherwise, the first one."""
        with self._lock:
            try:
                rows = (
                    self._connection()
                    .execute(
                        "SELECT key, arg_min(body, made) FROM reply JOIN (SELECT run_id, row_number() OVER "
                        "(ORDER BY created_at, run_id) AS made FROM run) USING (run_id) "
                        "WHERE key IN (SELECT unnest(?)) GROUP BY key",
                        [list(keys)],
                    )
                    .fetchall()
                )
            except BaseException:
                self._close()
                raise
            if not self._held or len(rows) < len(keys) or time.monotonic() - self._since > _HELD_SECONDS:
                self._close()
        return Known(dict(rows))

    def hold(self) -> None:
        """Keep the database open between questions from now on."""
        with self._lock:
            self._held = True

    def close(self) -> None:
        """Let go of the database, and keep it open no more."""
        with self._lock:
            self._held = False
            self._close()

    def _connection(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            self._open, self._since = ExitStack(), time.monotonic()
            self._con = self._open.enter_context(reading(self._path))
            self._con.execute(ONE_THREAD)
        return self._con

    def _close(self) -> None:
        opened, self._open, self._con = self._open, None, None
        if opened is not None:
            opened.close()
