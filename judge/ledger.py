"""What a journal says about its calls: which were paid for, which possibly were, and which the process died of.

An ``intent`` stands before every call and a ``reply`` after it. An intent without a reply means that the call was on
its way when the process ended: nobody can know whether it was paid for, so it is counted and its upper bound added to
what the run may have cost. A ``lost`` between the two tells of earlier attempts of that call, for the same reason. A
key that was on its way each time the process died is what killed it, sooner or later.

A ``batch_intent`` without a ``batch`` is the same for a whole batch, until a resume finds that batch at the provider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CRASHED", "DEATHS", "Ledger"]

DEATHS = 3
"""How often the process may die while one key is asked before that key is given up."""

CRASHED = "crashed"
"""The ``finish`` of a reply that stands for a key that was given up."""


@dataclass(slots=True)
class Ledger:
    """The calls of one journal, record by record (``take``).

    ``calls`` counts replies that were asked for, ``cost`` what they took in US dollars (``None`` once a price was
    unknown). ``possibly_paid`` counts attempts without a readable answer that may have been charged, calls that never
    returned among them, and ``possibly_paid_cost`` is the most they took (``None`` where unknown). ``given_up``
    counts keys that were given up, ``deaths`` how often the process died while a key was asked.
    """

    calls: int = 0
    cost: float | None = 0.0
    possibly_paid: int = 0
    possibly_paid_cost: float | None = 0.0
    given_up: int = 0
    probes: int = 0
    """Calls that found out the judge's mode before the run began; what they took is in ``cost``."""
    probe_cost: float | None = 0.0
    """What those took in US dollars; ``None`` where the price is unknown."""
    sealed: bool = False
    rate: float | None = None
    """Calls per second in the session that sealed the run; ``None`` where it made none."""
    max_cost: float | None = None
    """The limit in US dollars that the run was last given."""
    comparisons: int | None = None
    """How many comparisons the seal says there are."""
    deaths: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    """Which keys were possibly paid for without an answer, and how often; lost batches are counted alone."""
    _open: dict[str, float | None] = field(default_factory=dict)
    _noted: Counter[str] = field(default_factory=Counter)
    """Attempts of calls on their way that a ``lost`` told of: the reply counts them once more."""
    _clean: bool = False
    _batches: dict[str, tuple[int, float | None]] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any]) -> None:
        """Read the next record."""
        kind = record["t"]
        if kind == "intent":
            keys = record["keys"]
            self._open.update(zip(keys, record.get("bounds") or [0.0] * len(keys), strict=True))
        elif kind == "lost":
            self._note(record["keys"], record["count"])
        elif kind == "reply" and not record.get("reused"):
            self._reply(record["key"], record["reply"])
        elif kind == "probe":
            self._probe(record)
        elif kind == "stop":
            self._clean = True
            if record.get("unpaid"):
                self._open.clear()
        elif kind in ("resume", "seal"):
            self._died()
        elif kind == "batch_intent":
            self._batches[record["tag"]] = len(record["keys"]), record["bound"]
        elif kind in ("batch", "batch_lost"):
            self._batches.pop(record["tag"], None)
            self._lose_batch(record.get("possibly_paid", 0), record.get("bound", 0.0))
        if kind == "seal":
            self._seal(record)
        if kind in ("run", "resume") and record.get("max_cost") is not None:
            self.max_cost = float(record["max_cost"])

    def _seal(self, record: Mapping[str, Any]) -> None:
        self.sealed, self.comparisons = True, record.get("comparisons")
        calls, seconds = record.get("calls"), record.get("seconds")
        self.rate = calls / seconds if calls and seconds else None

    def _note(self, keys: Sequence[str], count: int) -> None:
        """Attempts that were possibly paid, of calls that are made again."""
        for key in keys:
            self._noted[key] += count
            self.lost[key] += count
            self._lose(count, self._open.get(key, 0.0))

    def end(self) -> None:
        """The journal ends here: what was on its way was possibly paid, batches without an id among it."""
        self._died()
        for count, bound in self._batches.values():
            self._lose_batch(count, bound)
        self._batches.clear()

    def _died(self) -> None:
        """The process ended here: what was on its way was possibly paid, and if it died, possibly died of that."""
        for key, bound in self._open.items():
            self.lost[key] += 1
            self._lose(1, bound)
        if not self._clean:
            self.deaths.update(self._open.keys())
        self._open.clear()
        self._noted.clear()
        self._clean = False

    def _reply(self, key: str, reply: Mapping[str, Any]) -> None:
        bound, noted = self._open.pop(key, 0.0), self._noted.pop(key, 0)
        self.deaths.pop(key, None)
        if reply.get("finish") == CRASHED:
            self.given_up += 1
            return
        self.calls += 1
        cost = reply.get("usage", {}).get("cost")
        if cost is None and reply.get("error"):
            cost = 0.0
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        if (lost := reply.get("possibly_paid", 0) - noted) > 0:
            self.lost[key] += lost
            self._lose(lost, bound)

    def _probe(self, record: Mapping[str, Any]) -> None:
        reply = record["reply"]
        self.probes += reply.get("attempts", 1)
        cost = reply.get("usage", {}).get("cost")
        self.probe_cost = None if cost is None or self.probe_cost is None else self.probe_cost + cost
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        self._lose(reply.get("possibly_paid", 0), record.get("bound"))

    def _lose(self, count: int, bound: float | None) -> None:
        self.possibly_paid += count
        if count:
            known = self.possibly_paid_cost is not None and bound is not None
            self.possibly_paid_cost = (self.possibly_paid_cost or 0.0) + count * (bound or 0.0) if known else None

    def _lose_batch(self, count: int, bound: float | None) -> None:
        """So many requests, which cost at most ``bound`` together."""
        self._lose(count, None if bound is None else bound / max(1, count))

    @property
    def most(self) -> float | None:
        """The most that the run has cost so far in US dollars, ``None`` where a price is unknown."""
        if self.cost is None or self.possibly_paid_cost is None:
            return None
        return self.cost + self.possibly_paid_cost
