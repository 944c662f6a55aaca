"""How far a batch is that another process is writing: read from its journal, from where the last look ended.

Nothing is locked and the database is not touched, so looking never slows a batch down. A line that is still being
written is left for the next look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .errors import StoreError
from .store import Store

__all__ = ["Live", "Tail", "unfinished"]

_BLOCK = 1 << 20
_FRESH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Live:
    """One look at an unsealed journal: ``replies`` of ``total`` judge calls are there (reused ones too), ``failed`` of
    them with an error.

    ``cost`` is in US dollars over replies with a price (``unpriced`` have none, reused ones take nothing), ``quiet``
    the seconds since the file last grew, ``state`` is ``running``, ``stopped`` (in good order) or ``silent`` (nothing
    was written for a while).
    """

    run_id: str
    judge: str
    rubric: str
    total: int
    replies: int
    failed: int
    cost: float
    unpriced: int
    quiet: float
    state: str
    sealed: bool


@dataclass(slots=True)
class Tail:
    """The journal of one run and what was counted in it so far; ``look`` reads on."""

    path: Path
    clock: Callable[[], float] = time.time
    at: int = 0
    header: dict[str, Any] = field(default_factory=dict)
    keys: int = 0
    failed: int = 0
    cost: float = 0.0
    unpriced: int = 0
    last: str = ""

    def look(self, *, most: int = 64 * _BLOCK) -> Live | None:
        """Read about ``most`` further bytes, whole lines; ``None`` before the header is whole.

        Raises ``StoreError`` for a file that is no journal.
        """
        stat = self.path.stat()
        with self.path.open("rb") as handle:
            handle.seek(self.at)
            left, size = most, _BLOCK
            while left > 0 and (block := handle.read(size)):
                whole = block[: block.rfind(b"\n") + 1]
                if not whole and len(block) == size:
                    size *= 2  # a line of a long text, or of a batch's keys, is longer than a block
                    handle.seek(self.at)
                    continue
                if not whole:
                    break
                size = _BLOCK
                for line in whole.splitlines():
                    self._take(line)
                self.at += len(whole)
                left -= len(block)
                handle.seek(self.at)
        if not self.header:
            return None
        quiet = max(0.0, self.clock() - stat.st_mtime)
        state = "stopped" if self.last == "stop" else "running" if quiet < _FRESH_SECONDS else "silent"
        judge, planned = self.header["judge"], self.header.get("canaries")
        canaries = int(planned["count"]) + 1 if planned else 0  # and the twin of a real pair, which is asked nothing
        return Live(
            run_id=self.header["run_id"],
            judge=str(judge["name"]),
            rubric=str(self.header["rubric"]),
            total=2 * (int(self.header["evalset"]["rows"]) + canaries) * int(self.header["repeats"]),
            replies=self.keys,
            failed=self.failed,
            cost=self.cost,
            unpriced=self.unpriced,
            quiet=quiet,
            state=state,
            sealed=self.last == "seal",
        )

    def _take(self, line: bytes) -> None:
        """Count one line; only headers and replies are decoded, by what stands right after the checksum."""
        head = line[9:40]
        if head.startswith(b'{"t":"reply"'):
            self.last = "reply"
            record = orjson.loads(line[9:])
            reply = record.get("reply", {})
            self.keys += not reply.get("error")
            self.failed += bool(reply.get("error"))
            cost = 0.0 if record.get("reused") else reply.get("usage", {}).get("cost")
            if cost is None:
                self.unpriced += 1
            else:
                self.cost += float(cost)
            return
        for kind in ("stop", "seal", "resume"):
            if head.startswith(b'{"t":"%s"' % kind.encode()):
                self.last = kind
        if not self.header:
            try:
                self.header = orjson.loads(line[9:])
            except orjson.JSONDecodeError:
                self.header = {}
            if self.header.get("t") != "run":
                raise StoreError(f"{self.path}: the first line is no run header; this is no journal of a run")


def unfinished(store: Store) -> list[Path]:
    """Journals that the database does not hold as sealed runs, newest first."""
    whole = {run.run_id for run in store.runs() if run.sealed}
    found = [path for path in store.runs_folder.glob("*.jsonl") if path.stem not in whole]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
