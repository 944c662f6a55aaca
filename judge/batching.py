"""A run through a provider's batch interface: half the price, an answer within a day, and never paid for twice.

Pairs are planned as in a live run, known replies taken over, the rest written to files that fit the provider's limits.
Then, for each file: it is uploaded, an intent with a tag of our own journaled, the batch made, its id journaled, and
only then looked at. So a process may die anywhere: a batch whose id stands in the journal is taken up again by that id,
and one that was made in the moment between intent and id is searched for at the provider (by its tag, or by its
requests), and counted as possibly paid where it is not found.

Kinds of journal record beside those of ``journal``:

* ``batch_intent``: a batch is about to be made: ``tag``, ``keys``, the most it can cost (``bound``), ``at``;
* ``batch``: it was made: ``tag``, ``id``, ``provider``, ``endpoint``, ``count``, ``digest`` of its sorted keys,
  ``submitted_at``; ``found`` where it was searched for. The ``custom_id`` of a request is the key of its ask;
* ``batch_lost``: it was not made, or not found: ``possibly_paid`` requests of at most ``bound`` US dollars;
* ``batch_end``: it ended and was read: ``status`` and how many requests were answered, failed, expired and so on;
* ``draft``: an unreadable first answer, kept for the one repair request that follows in a further batch.

Memory is a few hundred bytes for each ask of the run; prompts are rendered into the files and not kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import failpoints, protocol
from . import journal as journals
from .backends.batches import BatchApi, BatchStatus, Refused, Row
from .backends.chat import ChatBackend
from .backends.faults import POLICIES, Failure, Fault
from .backends.wire import WireError
from .engine import Job, judge_pairs
from .errors import BackendError, InputError
from .mail import MOST_WAIT, Batching, BatchPlan, BatchProgress, Outbox, Parcel, Post
from .money import BudgetSpent, took
from .types import Ask, Pair, Reply, Usage

if TYPE_CHECKING:
    from .backends import Backend
    from .journal import Journal
    from .store import Settled

__all__ = ["BatchPlan", "BatchProgress", "Batching", "batch_prices", "batched_pairs", "require_batches"]

ROUNDS = 3
"""Batches in which one ask is tried before it is given up."""
_WINDOW = 1_000
_READINGS, _FAILED_LOOKS = 4, 10
_FLUSH_ROWS = 16


async def batched_pairs(
    pairs: Callable[[], Iterable[Pair]], job: Job, journal: Journal, batching: Batching
) -> AsyncGenerator[Settled, None]:
    """Judge pairs through batches and yield each settled; the contract is that of ``engine.judge_pairs``.

    ``pairs`` gives the pairs anew at each call. Raises ``InputError`` for a judge without a batch interface,
    ``BackendError`` where the provider cannot go on (or somebody cancelled a batch), ``BudgetSpent`` before anything is
    submitted where the whole round may cost more than the budget allows.
    """
    backend = require_batches(job.backend)
    assert backend.batches is not None
    api = backend.batches()
    work = _Work(job, backend, api, journal, batching)
    try:
        with batch_prices(backend):
            await work.plan(pairs())
            await work.recover()
            while True:
                await work.wait()
                work.give_up()
                if not work.slots or (work.mail.ran and batching.plan.rest == "live"):
                    break
                await work.send(pairs)
    finally:
        journal.flush()
        await api.close()
    if work.slots:
        await work.repair_live(pairs())
    rest = replace(job, resumed=work.replies, planned=frozenset(work.planned), known=None)
    async with aclosing(judge_pairs(pairs(), rest, journal=journal)) as settled:
        async for entry in settled:
            yield entry


@contextmanager
def batch_prices(backend: Backend) -> Iterator[None]:
    """Let a backend quote and account at what its provider's batch interface charges, for as long as this lasts; raises
    as ``require_batches``.
    """
    chat = require_batches(backend)
    price = chat.price
    if price is not None:
        each = {name: getattr(price, name) * price.batch for name in ("input", "output", "long_input", "long_output")}
        chat.price = replace(price, batch=1.0, **each)
    try:
        yield
    finally:
        chat.price = price


def require_batches(backend: Backend) -> ChatBackend:
    """The backend, where batches can be sent to it; raises ``InputError`` where not."""
    if not isinstance(backend, ChatBackend) or backend.batches is None:
        raise InputError(
            f"judge {backend.id}: it has no batch interface here; use openai:MODEL or anthropic:MODEL, or leave out "
            "--batch"
        )
    return backend


@dataclass(slots=True)
class _Slot:
    """An ask that has no reply yet: its ask without texts, the pairs that wait for it, what was tried."""

    ask: Ask
    pairs: list[str]
    bound: float | None = 0.0
    held: float | None = 0.0
    """What the budget holds back for it in US dollars: nothing once its batch never ran, or its cost is known."""
    most_in: int = 0
    paid: int = 0
    attempts: int = 0
    error: str = "no result came back"
    taken: float = 0.0
    """What the budget knows already of what its reply will have taken, in US dollars."""


class _Work:
    """One run in its batches: what is unanswered (``slots``), what was answered (``replies``), what is on its way."""

    def __init__(self, job: Job, backend: ChatBackend, api: BatchApi, journal: Journal, batching: Batching) -> None:
        self.job, self.backend, self.api, self.journal, self.batching = job, backend, api, journal, batching
        self.post = Post(api, journal, batching, job.budget)
        self.mail = self.post.mail
        self.slots: dict[str, _Slot] = {}
        self.replies: dict[str, Reply] = {}
        self.planned: set[str] = set()
        self._trouble = ""

    async def plan(self, pairs: Iterable[Pair]) -> None:
        """Journal the pairs that the journal lacks, and take over every known reply."""
        job = self.job
        source = (pair for pair in pairs if pair.id not in job.done)
        while window := list(islice(source, _WINDOW)):
            asked = [key for pair in window for key in self._place(pair)]
            if job.known is not None and asked:
                for key, reply in (await asyncio.to_thread(job.known, asked)).items():
                    self._answer(key, reply, reused=True)
            self.journal.flush()

    def _place(self, pair: Pair) -> Iterator[str]:
        """The keys of a pair that nothing is known about yet."""
        job = self.job
        fresh = pair.id not in job.planned
        plans = [
            protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat, rendered=False)
            for repeat in range(job.repeats)
        ]
        if fresh:
            self.journal.add("pair", {"pair": journals.encode_pair(pair), "asks": journals.encode_asks(plans)})
        self.planned.add(pair.id)
        for asks in plans:
            for ask in asks:
                known = job.resumed.get(ask.key) or self.replies.get(ask.key)
                if known is not None:
                    if fresh or ask.key in self.replies:
                        # Another row has these texts, too; a process may have died before it wrote this row's reply.
                        self._store(ask.key, pair.id, known, reused=True)
                    self.replies[ask.key] = known
                elif ask.key in self.slots:
                    self.slots[ask.key].pairs.append(pair.id)
                else:
                    light = replace(ask, question="", first="", second="")
                    self.slots[ask.key] = _Slot(light, [pair.id])
                    yield ask.key

    async def recover(self) -> None:
        """Take up what earlier processes left: batches by their id, lost ones by a search; drafts of this run."""
        for key in self.mail.drafts.keys() - self.slots.keys():
            del self.mail.drafts[key]
        for parcel in list(self.mail.unsure.values()):
            await self.post.look_for(parcel)
        for parcel in self.mail.open.values():
            each = None if parcel.bound is None else parcel.bound / max(1, len(parcel.keys))
            for key in parcel.keys & self.slots.keys():
                self.slots[key].bound = self.slots[key].held = each
                self.slots[key].attempts += 1

    async def send(self, pairs: Callable[[], Iterable[Pair]]) -> None:
        """Write all that is unanswered to files, reserve what it may cost, and make the batches."""
        parcels: list[Parcel] = []
        try:
            self._write(pairs(), parcels, repairs=False)
            if self.mail.drafts:
                self._write(pairs(), parcels, repairs=True)
            if not parcels:
                raise BackendError(f"{len(self.slots)} asks are not in the eval set any more")
            self.post.reserve(parcels)
            for parcel in parcels:
                await self.post.submit(parcel)
        finally:
            for parcel in parcels:
                parcel.discard()

    def _write(self, pairs: Iterable[Pair], parcels: list[Parcel], *, repairs: bool) -> None:
        """Write the requests of first asks, or of repairs, to files that fit the provider's limits."""
        job, drafts = self.job, self.mail.drafts
        wanted = {key for key in self.slots if (key in drafts) == repairs}
        outbox = Outbox(
            self.batching.folder, self.api.shape, self.batching.plan.size, self.batching.tags, repairs=repairs,
            parcels=parcels,
        )  # fmt: skip
        for pair in pairs if wanted else ():
            for repeat in range(job.repeats):
                plans = protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat, rendered=False)
                if not any(ask.key in wanted for ask in plans):
                    continue
                for ask in protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat):
                    if ask.key in wanted:
                        wanted.discard(ask.key)
                        outbox.add(ask.key, self.api.request(ask.key, self._body(ask)), self._quoted(ask))
        outbox.close()

    def _body(self, ask: Ask) -> dict[str, Any]:
        draft = self.mail.drafts.get(ask.key)
        if draft is None:
            return self.backend.body(ask)
        reason = protocol.read(ask, draft).invalid
        assert reason is not None
        return self.backend.body(ask, repair=(draft.text, reason))

    def _quoted(self, ask: Ask) -> float | None:
        """The most that an ask can cost, kept in its slot; what an earlier batch reserved for it is given back."""
        slot, quote = self.slots[ask.key], self.backend.quote(ask)
        self._settle(slot, 0.0)
        slot.bound = slot.held = quote.cost
        slot.most_in = quote.prompt_tokens
        slot.attempts += 1
        return quote.cost

    def _settle(self, slot: _Slot, taken: float) -> None:
        """Replace what the budget holds back for an ask by what it took."""
        if self.job.budget is not None:
            self.job.budget.settle(slot.held, taken)
        slot.held = 0.0

    async def wait(self) -> None:
        """Look at every batch on its way until all have ended, and read each as it ends.

        Raises ``BackendError`` where one was cancelled, or where batches failed and none brought an answer.
        """
        wait, left, self._trouble, fails = self.batching.wait, len(self.slots), "", 0
        while self.mail.open:
            seen = []
            for parcel in list(self.mail.open.values()):
                try:
                    status = await self.api.status(parcel.id)
                except BackendError as error:
                    fails += 1
                    if fails >= _FAILED_LOOKS or isinstance(error, Refused):
                        raise
                    continue
                fails = 0
                seen.append(status)
                if status.state != "running":
                    await self._read(parcel, status)
            self.post.tell(seen)
            failpoints.reached("while_polling")
            if self.mail.open:
                await self.batching.clock.sleep(wait)
                wait = min(1.5 * wait, MOST_WAIT)
        if self._trouble and len(self.slots) == left:
            raise BackendError(
                f"{self._trouble}; look at the provider's limits, perhaps smaller batches (--batch-size)"
            )

    async def _read(self, parcel: Parcel, status: BatchStatus) -> None:
        """Take every result of a batch that ended, each journaled; then say so in the journal."""
        seen: dict[str, str] = {}
        odd = {"duplicate": 0, "unknown": 0}
        for turn in range(_READINGS):
            try:
                await self._rows(parcel, status, seen, odd)
                break
            except WireError as error:
                self.journal.flush()
                if turn + 1 == _READINGS:
                    raise BackendError(f"{self.api.provider}: the results of {status.id}: {error.failure}") from None
                await self.batching.clock.sleep(self.batching.wait * 2**turn)
                odd = {"duplicate": 0, "unknown": 0}
        missing = [key for key in parcel.keys - seen.keys() if key in self.slots] if status.state != "failed" else []
        for key in missing:
            self.slots[key].paid += status.state == "ended"
        fates = list(seen.values())
        counts = {fate: fates.count(fate) for fate in ("answered", "failed", "expired", "cancelled")}
        self.post.note("batch_end", parcel, id=parcel.id, status=status.state, missing=len(missing), **counts, **odd)
        self.mail.end(parcel, status.state)
        if status.state == "failed":
            self._trouble = f"{self.api.provider}: the batch {status.id} failed ({status.detail or 'no reason given'})"
            for key in parcel.keys & self.slots.keys():
                self.slots[key].attempts -= 1
                self._settle(self.slots[key], 0.0)  # it never ran
        if status.state == "cancelled" and any(key in self.slots for key in parcel.keys):
            raise BackendError(
                f"{self.api.provider}: the batch {status.id} was cancelled; resuming sends the rest again"
            )

    async def _rows(self, parcel: Parcel, status: BatchStatus, seen: dict[str, str], odd: dict[str, int]) -> None:
        again: set[str] = set()
        async with aclosing(self.api.rows(status)) as rows:
            async for row in rows:
                if row.key not in parcel.keys or row.key in again:
                    odd["unknown" if row.key not in parcel.keys else "duplicate"] += 1
                    continue
                again.add(row.key)
                if row.key not in seen:
                    seen[row.key] = row.fate
                    self._take(parcel, row)
                if len(again) % _FLUSH_ROWS == 0:
                    self.journal.flush()
                    failpoints.reached("while_reading")
        self.journal.flush()

    def _take(self, parcel: Parcel, row: Row) -> None:
        """One result: a reply, a draft that is to be repaired, or nothing yet."""
        key, slot = row.key, self.slots.get(row.key)
        draft = self.mail.drafts.get(key)
        if slot is None or (draft is not None) != parcel.repair:
            return  # answered, or drafted, before the process died
        if isinstance(row.said, Failure):
            self._failed(slot, row.said, row)
            return
        reply = self._priced(slot, self.backend.read(slot.ask, row.said))
        if draft is not None:
            self._answer(key, self.backend.repaired(reply, draft))
        elif self.backend.repairable(slot.ask, reply):
            self.mail.drafts[key] = reply
            self.journal.add("draft", {"key": key, "reply": journals.encode_reply(reply)})
        else:
            self._answer(key, reply)

    def _failed(self, slot: _Slot, failure: Failure, row: Row) -> None:
        slot.error = str(failure)
        policy = POLICIES[failure.fault]
        again = row.fate in ("expired", "cancelled") or policy.retries or self.backend.learn(failure)
        if row.fate == "failed":
            slot.paid += failure.fault is Fault.MALFORMED
        if failure.fault in (Fault.AUTH, Fault.QUOTA):
            self._trouble = f"{self.api.provider}: requests were refused ({failure})"
            again = True
        if again:
            return
        if slot.ask.key in self.mail.drafts:
            self._answer(slot.ask.key, self.backend.repaired(None, self.mail.drafts[slot.ask.key]))
        elif failure.fault is Fault.FILTERED:
            self._answer(slot.ask.key, Reply(finish="content_filter", usage=self._nothing(), attempts=slot.attempts))
        else:
            self._answer(slot.ask.key, self._error(slot))

    def give_up(self) -> None:
        """Answer with an error what was tried in ``ROUNDS`` batches (with its draft, where a repair failed)."""
        if self.batching.plan.rest == "live":
            return
        for key, slot in list(self.slots.items()):
            if slot.attempts >= ROUNDS:
                draft = self.mail.drafts.get(key)
                self._answer(key, self._error(slot) if draft is None else self.backend.repaired(None, draft))
        self.journal.flush()

    async def repair_live(self, pairs: Iterable[Pair]) -> None:
        """Repair drafts by ordinary calls, each reserved before it is sent like any other.

        What was reserved for asks that are now sent so is given back first, and what the drafts took is counted.
        Raises ``BudgetSpent`` where the budget does not allow the next repair.
        """
        job, size = self.job, max(1, self.backend.concurrency)
        for key, slot in self.slots.items():
            draft = self.mail.drafts.get(key)
            slot.taken = 0.0 if draft is None else took(draft, slot.bound)
            self._settle(slot, slot.taken)
        plans = (
            protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat)
            for pair in (pairs if self.mail.drafts else ())
            for repeat in range(job.repeats)
        )
        asks = (ask for planned in plans for ask in planned if ask.key in self.mail.drafts)
        while waiting := list({ask.key: ask for ask in islice(asks, size)}.values()):
            while waiting:
                window, waiting = self._reserved(waiting)
                bounds = [self.backend.quote(ask).cost for ask in window]
                self.journal.append("intent", {"keys": [ask.key for ask in window], "bounds": bounds})
                drafts = [self.mail.drafts[ask.key] for ask in window]
                replies = await asyncio.gather(*map(self.backend.repair, window, drafts))
                for ask, reply in zip(window, replies, strict=True):
                    self._answer(ask.key, reply)
                self.journal.flush()

    def _reserved(self, waiting: list[Ask]) -> tuple[list[Ask], list[Ask]]:
        """The repairs that the budget allows together, reserved, and the others; raises ``BudgetSpent`` for none."""
        budget = self.job.budget
        for number, ask in enumerate(waiting):
            slot, bound = self.slots[ask.key], self.backend.quote(ask).cost
            more = None if bound is None else max(0.0, bound - slot.taken)
            if budget is not None and not budget.reserve(more):
                if number == 0:
                    most = "what it may take is unknown" if more is None else f"it may take ${more:.4f}"
                    raise BudgetSpent(
                        f"the budget of ${budget.limit:g} does not allow the next repair: ${budget.spent:.4f} are "
                        f"spent, and {most}"
                    )
                return waiting[:number], waiting[number:]
            slot.bound, slot.held = bound, more
        return waiting, []

    def _answer(self, key: str, reply: Reply, *, reused: bool = False) -> None:
        """Journal a reply for every pair that waits for it."""
        slot = self.slots.pop(key)
        if not reused:
            reply = replace(
                reply, attempts=max(reply.attempts, slot.attempts), possibly_paid=reply.possibly_paid + slot.paid
            )
            self._settle(slot, max(0.0, took(reply, slot.bound) - slot.taken))
        for number, pair_id in enumerate(slot.pairs):
            reply = self._store(key, pair_id, reply, reused=reused or number > 0)
        self.replies[key] = reply
        self.mail.drafts.pop(key, None)

    def _store(self, key: str, pair_id: str, reply: Reply, *, reused: bool) -> Reply:
        record = {"key": key, "pair_id": pair_id, **({"reused": True} if reused else {})}
        return self.journal.add_reply(record, reply)

    def _priced(self, slot: _Slot, reply: Reply) -> Reply:
        """Where the server did not say what a reply took, the upper bound of its ask."""
        if "no_usage" not in reply.flags:
            return reply
        return replace(reply, usage=Usage(slot.most_in, reply.usage.completion_tokens, slot.bound))

    def _error(self, slot: _Slot) -> Reply:
        return Reply(error=slot.error, finish="error", usage=self._nothing(), attempts=max(1, slot.attempts))

    def _nothing(self) -> Usage:
        return Usage(cost=None if self.backend.price is None else 0.0)
