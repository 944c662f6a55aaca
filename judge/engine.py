"""The loop between the pure protocol and a backend: pairs in, settled comparisons out, every reply journaled as it
comes.

There is one implementation, asynchronous; ``judge.compare`` and the CLI are synchronous faces of it. Memory is bounded:
pairs are read in windows, a window's asks go out in the batches the backend wants, and nothing is kept once a pair is
settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from . import journal as journals
from . import protocol
from .errors import BackendError
from .store import Settled
from .types import Ask, Pair, Reply

if TYPE_CHECKING:
    from rubrics import Rubric

    from .backends import Backend
    from .journal import Journal

__all__ = ["Job", "judge_pairs"]

Lookup = Callable[[Sequence[str]], Mapping[str, Reply]]

_WINDOW = 1_000


@dataclass(frozen=True, slots=True)
class Job:
    """How to judge: the rubric, the judge, the seed of all draws, how often each pair is judged, and where replies are
    known from.

    ``known`` looks up stored replies by key (the cache); ``resumed`` holds replies of this very run's journal by key,
    and ``done`` the ids of pairs that its journal answers whole.
    """

    rubric: Rubric
    backend: Backend
    seed: int = 0
    repeats: int = 1
    known: Lookup | None = None
    resumed: Mapping[str, Reply] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    planned: frozenset[str] = frozenset()
    """Ids of pairs whose texts the journal holds already."""


async def judge_pairs(pairs: Iterable[Pair], job: Job, *, journal: Journal | None = None) -> AsyncIterator[Settled]:
    """Judge pairs and yield each as it is settled; order of completion is not order of input.

    A pair's texts are journaled before it is asked and each reply as soon as it is read. If the backend gives up
    (``BackendError``), everything that was answered stands in the journal before the error is raised.
    """
    source = iter(pairs)
    while window := list(islice(source, _WINDOW)):
        async for entry in _judge_window([pair for pair in window if pair.id not in job.done], job, journal):
            yield entry


async def _judge_window(pairs: Sequence[Pair], job: Job, journal: Journal | None) -> AsyncIterator[Settled]:
    work = [
        _Open(pair, protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat))
        for pair in pairs
        for repeat in range(job.repeats)
    ]
    if journal is not None:
        for pair in pairs:
            if pair.id not in job.planned:
                journal.append("pair", {"pair": journals.encode_pair(pair)})
    _fill_known(work, job, journal)
    for entry in (entry for entry in work if entry.complete):
        yield entry.settle(job)
    # Rows with the same texts have the same identity: within a window they are asked once, and the reply serves all.
    shared: dict[str, list[_Open]] = {}
    asks: dict[str, Ask] = {}
    for entry in work:
        for ask in entry.missing:
            asks.setdefault(ask.key, ask)
            shared.setdefault(ask.key, []).append(entry)
    async for ask, reply in _answered(list(asks.values()), job.backend):
        for number, entry in enumerate(shared[ask.key]):
            entry.add(ask.key, reply, journal, reused=number > 0)
            if entry.complete:
                yield entry.settle(job)


class _Open:
    """One pair at one repeat while its replies come in."""

    __slots__ = ("asks", "pair", "replies", "reused")

    def __init__(self, pair: Pair, asks: tuple[Ask, ...]) -> None:
        self.pair, self.asks = pair, asks
        self.replies: dict[str, Reply] = {}
        self.reused: set[str] = set()

    @property
    def missing(self) -> list[Ask]:
        return [ask for ask in self.asks if ask.key not in self.replies]

    @property
    def complete(self) -> bool:
        return len(self.replies) == len({ask.key for ask in self.asks})

    def add(self, key: str, reply: Reply, journal: Journal | None, *, reused: bool) -> None:
        self.replies[key] = reply
        if reused:
            self.reused.add(key)
        if journal is not None:
            record = {"key": key, "pair_id": self.pair.id, "reply": journals.encode_reply(reply)}
            journal.append("reply", {**record, "reused": True} if reused else record)

    def settle(self, job: Job) -> Settled:
        replies = tuple(self.replies[ask.key] for ask in self.asks)
        comparison = protocol.settle(self.pair, job.rubric, job.backend.id, self.asks, replies)
        return Settled(self.pair, self.asks, replies, comparison, tuple(ask.key in self.reused for ask in self.asks))


def _fill_known(work: Sequence[_Open], job: Job, journal: Journal | None) -> None:
    """Give each open pair the replies that need no call: those of this run's own journal, then those of the store."""
    for entry in work:
        for ask in entry.asks:
            if ask.key in job.resumed:
                entry.add(ask.key, job.resumed[ask.key], None, reused=False)
    if job.known is None:
        return
    stored = job.known([ask.key for entry in work for ask in entry.missing])
    for entry in work:
        for ask in entry.missing:
            if ask.key in stored:
                entry.add(ask.key, stored[ask.key], journal, reused=True)


async def _answered(asks: Sequence[Ask], backend: Backend) -> AsyncIterator[tuple[Ask, Reply]]:
    """Send asks in the backend's batches, at most ``concurrency`` at once, and yield replies as they come.

    When a call fails for good nothing new is sent, what is in flight is let finish and yielded, and then the error is
    raised: a reply that was paid for is never thrown away.
    """
    size = max(1, backend.batch)
    batches = iter([asks[start : start + size] for start in range(0, len(asks), size)])
    running: dict[asyncio.Task[list[Reply]], Sequence[Ask]] = {}
    failure: BackendError | None = None
    try:
        while True:
            if failure is None:
                for batch in islice(batches, max(1, backend.concurrency) - len(running)):
                    running[asyncio.ensure_future(backend.ask(batch))] = batch
            if not running:
                break
            finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                batch = running.pop(task)
                try:
                    replies = task.result()
                except BackendError as error:
                    failure = failure or error
                    continue
                if len(replies) != len(batch):
                    failure = BackendError(f"{backend.id} gave {len(replies)} replies to {len(batch)} asks")
                    continue
                for answer in zip(batch, replies, strict=True):
                    yield answer
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failure is not None:
        raise failure
