"""The loop between the pure protocol and a backend: pairs in, settled comparisons out, every reply journaled as it
comes.

There is one implementation, asynchronous; ``judge.compare`` and the CLI are synchronous faces of it. It streams: pairs
are read a little ahead of the calls, a free slot takes the next ask at once, and nothing is kept once a pair is
settled. In one turn of ``judge_pairs``

1. pairs are planned until enough asks wait to fill every slot, their texts journaled, known replies looked up in bulk;
2. free slots take asks: budget reserved, ``intent`` journaled, call started; both orders of a pair stand side by side
   in the queue and so go out together;
3. replies that came in meanwhile are journaled (one write for all of them), and only then counted.

What is kept: the pairs in flight, as many again that wait (more while replies are looked up), and the last ``RECENT``
replies, from which rows with the same texts are served.
"""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import orjson

from . import failpoints, protocol
from . import journal as journals
from .errors import BackendError
from .money import Budget, BudgetSpent, Priced, losing, took
from .store import Known, ReplyCache, Settled
from .types import Ask, Pair, Reply

if TYPE_CHECKING:
    from rubrics import Rubric

    from .backends import Backend
    from .journal import Journal

__all__ = ["RECENT", "Job", "judge_pairs", "seldom_collecting"]

Lookup = Callable[[Sequence[str]], Mapping[str, Reply]]

_SLICE = 32
"""Pairs planned in one go, about 2 ms of work; between two slices the event loop serves the calls in flight."""
_SEARCH, _MOST_SEARCHED, _MOST_CHARS = 256, 8_192, 16_000_000
"""Pairs per lookup of stored replies: the first number while calls are needed, up to the second while none are; one of
long texts is begun earlier, at so many characters, so that what waits for it stays small."""
RECENT = 4_096
"""Replies kept for rows with the same texts: such rows are asked once if fewer asks than this lie between them."""
_GRACE_SECONDS = 10.0
"""How long a journaled run that is stopped waits for the calls that are in flight and paid for."""


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
    budget: Budget | None = None
    """What the calls may cost; without one nothing is reserved."""
    suspects: frozenset[str] = frozenset()
    """Keys that were in flight when the process died, twice: each is asked alone, so that a third death names one."""


async def judge_pairs(
    pairs: Iterable[Pair], job: Job, *, journal: Journal | None = None
) -> AsyncGenerator[Settled, None]:
    """Judge pairs and yield each as it is settled; order of completion is not order of input.

    A pair's texts are journaled before it is asked, each key before its call, and each reply before its pair is
    yielded. If the backend gives up (``BackendError``) or the budget is spent (``BudgetSpent``), or if the caller is
    cancelled, nothing new is sent, what is in flight is let finish, and it stands in the journal before the error is
    raised: a reply that was paid for is never thrown away.
    """
    source = (pair for pair in pairs if pair.id not in job.done)
    desk, calls = _Desk(job, journal), _Calls(job, journal)
    failure: Exception | None = None
    try:
        while not desk.empty or failure is not None:
            failure = failure or calls.failure or desk.failure
            if failure is None:
                desk.read(source)
            calls.send(desk.ready if failure is None else deque(), more=desk.hungry or desk.searching)
            for entry in desk.finished():
                yield entry
            if failure is None and desk.hungry:
                await asyncio.sleep(0)
            elif calls.running or desk.searching:
                await _next(calls, desk)
            elif failure is not None:
                raise failure
            desk.collect_search()
            for ask, reply in calls.collect():
                desk.answer(ask, reply)
    except asyncio.CancelledError:
        await calls.drain()
        for ask, reply in calls.collect():
            desk.answer(ask, reply)
        calls.flush()
        raise
    finally:
        desk.close()
        await calls.close()


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Look for cycles of garbage less often for a while, and never among what is there already: judging makes many
    small values and no cycles, and every look at them costs as much as a seventh of its CPU.

    For whoever owns the process; a library that is called leaves the collector of its caller alone.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # what stays frozen is never freed, and DuckDB's binding complains of that when Python ends


async def _next(calls: _Calls, desk: _Desk) -> None:
    """Wait for a call or the lookup to end."""
    if not calls.ended and not (desk.search is not None and desk.search.done()):
        calls.waiter = asyncio.get_running_loop().create_future()
        if desk.search is not None:
            desk.search.add_done_callback(calls.wake)
        await calls.waiter


class _Desk:
    """The pairs that are planned and not settled: read ahead, filled with known replies, answered."""

    def __init__(self, job: Job, journal: Journal | None) -> None:
        self.job, self.journal = job, journal
        self.ready: deque[Ask] = deque()
        self.search: asyncio.Task[Mapping[str, Reply]] | None = None
        self.failure: Exception | None = None
        flight = max(1, job.backend.batch) * max(1, job.backend.concurrency)
        self._room = flight + max(_SLICE, flight // 2)
        self._size = _SEARCH if job.known is not None else 0
        self._planned = 0
        self._exhausted = False
        self._unsearched: list[_Open] = []
        self._chars = 0
        self._searched: list[_Open] = []
        self._open: dict[str, list[_Open]] = {}
        self._recent: OrderedDict[str, Reply] = OrderedDict()
        self._finished: list[_Open] = []
        self._resumed: set[str] = set()
        self._cache = job.known if isinstance(job.known, ReplyCache) else None
        if self._cache is not None:
            self._cache.hold()

    @property
    def hungry(self) -> bool:
        """Whether more pairs can and should be planned."""
        room = self._planned < self._room + self._size and self._chars < _MOST_CHARS
        return room and not self._exhausted and self.failure is None

    @property
    def searching(self) -> bool:
        """Whether planned pairs wait for a lookup."""
        return self.search is not None

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to do."""
        return self._exhausted and self._planned == 0 and not self._finished

    def read(self, source: Iterator[Pair]) -> None:
        """Plan the next few pairs where there is room for them, and hand them on: to one lookup in bulk where replies
        are stored, else straight to the queue.
        """
        if self.hungry:
            try:
                pairs = list(islice(source, _SLICE))
                self._exhausted = len(pairs) < _SLICE
                self._unsearched += [entry for pair in pairs for entry in self._plan(pair)]
            except Exception as error:  # noqa: BLE001 - a file that changed, a text that no journal holds: raised once the calls in flight are stored
                self.failure = error
                return
            self._chars += sum(len(pair.candidate.text) + len(pair.baseline.text) for pair in pairs)
        if self.job.known is None:
            self._chars = 0
            self._queue(self._unsearched)
            self._unsearched = []
        elif self._unsearched and self.search is None and (len(self._unsearched) >= self._size or not self.hungry):
            self._searched, self._unsearched, self._chars = self._unsearched, [], 0
            keys = [key for entry in self._searched for key in entry.missing]
            self.search = asyncio.ensure_future(asyncio.to_thread(self.job.known, keys))

    def _plan(self, pair: Pair) -> Iterator[_Open]:
        job = self.job
        # Where replies may be stored, prompts are rendered only for what turns out to be unknown.
        rendered = job.known is None
        plans = [
            protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat, rendered=rendered)
            for repeat in range(job.repeats)
        ]
        if self.journal is not None and pair.id not in job.planned:
            self.journal.add("pair", {"pair": journals.encode_pair(pair), "asks": journals.encode_asks(plans)})
        for repeat, asks in enumerate(plans):
            entry = _Open(pair, asks, repeat)
            for ask in entry.asks if job.resumed else ():
                if ask.key in job.resumed:
                    if ask.key in self._resumed or pair.id not in job.planned:
                        # Another row has these texts, too; the process may have died before it wrote this row's reply.
                        self._give(entry, ask.key, job.resumed[ask.key], reused=True)
                    self._resumed.add(ask.key)
                    entry.replies[ask.key] = job.resumed[ask.key]
            self._planned += 1
            yield entry

    def collect_search(self) -> None:
        """Fill in what the lookup found, and queue the rest."""
        if self.search is None or not self.search.done():
            return
        search, entries = self.search, self._searched
        self.search, self._searched = None, []
        try:
            stored = search.result()
        except Exception as error:  # noqa: BLE001 - an unreadable database: raised once the calls in flight are stored
            self.failure = error
            return
        bodies = stored.bodies if isinstance(stored, Known) else {}
        for entry in entries:
            for key in entry.missing:
                body = bodies.get(key)
                if body is not None and "\n" not in body:
                    self._give_stored(entry, key, body)
                elif key in stored:
                    self._give(entry, key, stored[key], reused=True)
            if not entry.whole:
                job = self.job
                entry.asks = protocol.plan(entry.pair, job.rubric, job.backend.id, seed=job.seed, repeat=entry.repeat)
        if self._exhausted and not self._unsearched:
            self._let_go()  # the calls that are in flight may take long, and others may want to write
        asked = len(self.ready)
        self._queue(entries)
        self._size = min(4 * self._size, _MOST_SEARCHED) if len(self.ready) == asked else _SEARCH

    def _queue(self, entries: Iterable[_Open]) -> None:
        """Queue what is not known; a key that is queued, in flight or was answered lately is not asked again."""
        for entry in entries:
            for ask in () if entry.whole else entry.asks:
                if ask.key in entry.replies:
                    continue
                if ask.key in self._recent:
                    self._give(entry, ask.key, self._recent[ask.key], reused=True)
                elif ask.key in self._open:
                    self._open[ask.key].append(entry)
                else:
                    self._open[ask.key] = [entry]
                    self.ready.append(ask)
            self._settle_if_whole(entry)

    def answer(self, ask: Ask, reply: Reply) -> None:
        """Take the reply to one ask, for every pair that waits for it."""
        for number, entry in enumerate(self._open.pop(ask.key)):
            reply = self._give(entry, ask.key, reply, reused=number > 0)
            self._settle_if_whole(entry)
        if reply.error is None:
            self._recent[ask.key] = reply
            if len(self._recent) > RECENT:
                self._recent.popitem(last=False)

    def _give(self, entry: _Open, key: str, reply: Reply, *, reused: bool) -> Reply:
        """Journal a reply and put it in its place; one that cannot be stored becomes an error, never a crash."""
        if self.journal is not None:
            record: dict[str, object] = {"key": key, "pair_id": entry.pair.id, **({"reused": True} if reused else {})}
            reply = self.journal.add_reply(record, reply)
        self._put(entry, key, reply, reused=reused)
        return reply

    def _give_stored(self, entry: _Open, key: str, body: str) -> None:
        """The same for a reply that was looked up, as the JSON that an earlier journal holds: it need not be read."""
        if self.journal is not None:
            record = {"key": key, "pair_id": entry.pair.id, "reused": True, "reply": orjson.Fragment(body)}
            self.journal.add("reply", record)
        self._put(entry, key, body, reused=True)

    @staticmethod
    def _put(entry: _Open, key: str, reply: Reply | str, *, reused: bool) -> None:
        entry.replies[key] = reply
        if reused:
            entry.reused.add(key)

    def _settle_if_whole(self, entry: _Open) -> None:
        if entry.whole:
            self._planned -= 1
            self._finished.append(entry)

    def close(self) -> None:
        """Give up a lookup that nobody waits for any more, and let go of the database."""
        if self.search is not None:
            self.search.cancel()
        self._let_go()

    def _let_go(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def finished(self) -> Iterator[Settled]:
        """The pairs that have all their replies, settled; call it only after the journal was flushed."""
        done, self._finished = self._finished, []
        for entry in done:
            yield entry.settle(self.job)


class _Open:
    """One pair at one repeat while its replies come in."""

    __slots__ = ("asks", "pair", "repeat", "replies", "reused")

    def __init__(self, pair: Pair, asks: tuple[Ask, ...], repeat: int) -> None:
        self.pair, self.asks, self.repeat = pair, asks, repeat
        self.replies: dict[str, Reply | str] = {}
        self.reused: set[str] = set()

    @property
    def missing(self) -> list[str]:
        return [ask.key for ask in self.asks if ask.key not in self.replies]

    @property
    def whole(self) -> bool:
        """Whether no reply is missing: it is only ever given those of its own asks, whose keys differ."""
        return len(self.replies) == len(self.asks)

    def settle(self, job: Job) -> Settled:
        replies = tuple([self.replies[ask.key] for ask in self.asks])
        reused = tuple([ask.key in self.reused for ask in self.asks])
        comparison = partial(protocol.settle, self.pair, job.rubric, job.backend.id, self.asks, repeat=self.repeat)
        return Settled(self.pair, self.asks, replies, comparison, reused)


class _Calls:
    """The calls in flight, at most ``concurrency``, and those that ended since the last look."""

    def __init__(self, job: Job, journal: Journal | None) -> None:
        self.backend, self.journal, self.budget = job.backend, journal, job.budget
        self.suspects = job.suspects
        self.price = job.backend.quote if isinstance(job.backend, Priced) else None
        self.running: dict[asyncio.Task[list[Reply]], Sequence[Ask]] = {}
        self.ended: list[asyncio.Task[list[Reply]]] = []
        self.waiter: asyncio.Future[None] | None = None
        self.failure: Exception | None = None
        self._bounds: dict[str, float | None] = {}
        self._again: dict[str, float] = {}
        self._alone = False
        self._refused = 0.0

    def send(self, ready: deque[Ask], *, more: bool) -> None:
        """Fill the free slots; while ``more`` pairs are to come, a batch waits until it is full."""
        batches = list(self._batches(ready, more=more))
        keys = [ask.key for batch in batches for ask in batch]
        if self.journal is not None and keys:
            bounds = {"bounds": [self._bounds[key] for key in keys]} if self.price else {}
            self.journal.add("intent", {"keys": keys, **bounds})
        self.flush()
        for batch in batches:
            failpoints.reached("before_call")
            with losing(partial(self._lost, batch)):
                task = asyncio.ensure_future(self.backend.ask(batch))
            self.running[task] = batch
            task.add_done_callback(self._end)

    def _lost(self, batch: Sequence[Ask], attempts: int) -> None:
        """Calls are made again after attempts that were possibly paid: each is reserved like a call of its own, and
        journaled before, because this process may die of the next one. Raises ``BudgetSpent``.
        """
        keys = [ask.key for ask in batch]
        more = attempts * sum(self._bounds.get(key) or 0.0 for key in keys)
        if self.budget is not None and not self.budget.reserve(more):
            self._refused = more
            raise self._spent()
        for key in keys:
            self._again[key] = self._again.get(key, 0.0) + attempts * (self._bounds.get(key) or 0.0)
        if self.journal is not None:
            self.journal.append("lost", {"keys": keys, "count": attempts})

    def flush(self) -> None:
        """Hand what was journaled in this turn to the operating system, in one write."""
        if self.journal is not None:
            self.journal.flush()

    def _batches(self, ready: deque[Ask], *, more: bool) -> Iterator[list[Ask]]:
        size, most = max(1, self.backend.batch), max(1, self.backend.concurrency)
        begun = len(self.running)
        while begun < most and ready and not self._alone:
            alone = ready[0].key in self.suspects
            if begun and alone:
                return
            if len(ready) < size and more and not alone:
                return
            batch = self._reserve(ready, 1 if alone else size)
            if not batch:
                if not begun:
                    self.failure = self._spent()
                return
            begun += 1
            self._alone = alone
            yield batch

    def _spent(self) -> BudgetSpent:
        assert self.budget is not None
        return BudgetSpent(
            f"the budget of ${self.budget.limit:g} does not allow another call: ${self.budget.spent:.4f} are spent, "
            f"and the next may take ${self._refused:.4f}"
        )

    def _reserve(self, ready: deque[Ask], size: int) -> list[Ask]:
        """Take up to ``size`` asks that the budget allows."""
        batch: list[Ask] = []
        while ready and len(batch) < size and (not batch or ready[0].key not in self.suspects):
            bound = self.price(ready[0]).cost if self.price is not None else 0.0
            if self.budget is not None and not self.budget.reserve(bound):
                self._refused = bound or 0.0
                break
            ask = ready.popleft()
            if self.price is not None:
                self._bounds[ask.key] = bound
            batch.append(ask)
        return batch

    def _end(self, task: asyncio.Task[list[Reply]]) -> None:
        self.ended.append(task)
        self.wake(task)

    def wake(self, _ended: object) -> None:
        """Let ``judge_pairs`` go on."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def collect(self) -> Iterator[tuple[Ask, Reply]]:
        """The answers of the calls that ended; the first failure is kept, and the others' answers still given."""
        ended, self.ended = self.ended, []
        for task in ended:
            batch = self.running.pop(task)
            self._alone = False
            failpoints.reached("after_call")
            try:
                replies = task.result()
                if len(replies) != len(batch):
                    raise BackendError(f"{self.backend.id} gave {len(replies)} replies to {len(batch)} asks")
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                continue  # of the last two the loop has told already; the others' answers are kept
            except Exception as error:  # noqa: BLE001 - whatever one call dies of, the others' answers are kept first
                self.failure = self.failure or error
                continue
            for ask, reply in zip(batch, replies, strict=True):
                bound, again = self._bounds.pop(ask.key, None), self._again.pop(ask.key, 0.0)
                if self.budget is not None:
                    self.budget.settle((bound or 0.0) + again, took(reply, bound))
                yield ask, reply

    async def drain(self) -> None:
        """Wait a bounded time for what is in flight, where its replies can be kept."""
        if self.running and self.journal is not None:
            await asyncio.wait(self.running, timeout=_GRACE_SECONDS)

    async def close(self) -> None:
        """Cancel what is still in flight."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
