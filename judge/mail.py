"""The post of a run through a batch interface: files of requests, batches made, what the journal says of both.

The order of a submission is what makes it safe: upload, intent in the journal, submission, id in the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import failpoints
from . import journal as journals
from .backends.batches import BatchApi, BatchStatus, Shape, Sought
from .backends.calling import Clock
from .backends.faults import POLICIES, Failure
from .errors import BackendError, InputError
from .money import Budget, BudgetSpent
from .types import Reply

if TYPE_CHECKING:
    from .journal import Journal

__all__ = ["MOST_WAIT", "BatchPlan", "BatchProgress", "Batching", "Mail", "Outbox", "Parcel", "Post"]

MOST_WAIT = 60.0
"""Seconds between two looks at a batch at most."""
_SUBMISSIONS = 4
_LOOKS = (0.3, 1.0, 3.0)
"""Seconds after each search in vain for a batch whose id was lost; a provider's list may lag behind."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How a run uses the batch interface; stands in the run's header.

    ``rest`` says where asks go that a batch left unanswered: ``batch``, a further one, or ``live``. ``size`` is the
    most requests in one batch, 0 for the provider's limit.
    """

    rest: str = "batch"
    size: int = 0

    def __post_init__(self) -> None:
        if self.rest not in ("batch", "live") or self.size < 0:
            raise InputError(f"batch: rest={self.rest!r}, size={self.size}; rest is batch or live, size 0 or more")


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far the batches of a run are: how many were made and have ended, requests done of all, seconds since the
    start.
    """

    batches: int
    ended: int
    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Batching:
    """What a batch run needs from outside: a ``folder`` for request files, the time as ISO 8601 (``now``), fresh
    ``tags``, somebody to ``report`` to, a clock, and the seconds before the second look at a batch (then 1.5 times as
    long each time, up to a minute).
    """

    folder: Path
    now: Callable[[], str]
    tags: Callable[[], str]
    report: Callable[[BatchProgress], None] | None = None
    clock: Clock = field(default_factory=Clock)
    wait: float = 0.5
    plan: BatchPlan = field(default_factory=BatchPlan)


@dataclass(slots=True)
class Parcel:
    """One batch: our tag, the provider's id once there is one, its keys, the most it can cost in US dollars (``None``
    where a price is unknown), when its intent was written, and whether it holds repairs.
    """

    tag: str
    keys: set[str]
    bound: float | None = 0.0
    at: str = ""
    repair: bool = False
    id: str = ""
    path: Path = field(default_factory=Path)
    file: IO[bytes] | None = None
    """Its file of requests, locked for as long as this process needs it (``judge.leftovers``)."""

    def discard(self) -> None:
        """Remove the file of requests."""
        if self.file is not None:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what could not be written is not wanted any more
                self.file.close()
            self.file = None


@dataclass(slots=True)
class Mail:
    """The batches of one journal: ``unsure`` (an intent and no id) and ``open`` (not read to the end) by tag, ids of
    those that ``ended``, how many of these ran
    (``ran``), how many requests they held (``finished``), and drafts by key.
    """

    unsure: dict[str, Parcel] = field(default_factory=dict)
    open: dict[str, Parcel] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    ran: int = 0
    finished: int = 0
    drafts: dict[str, Reply] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Mail:
        """Read a journal; a journal without batches gives an empty one."""
        mail = cls()
        for record in journals.records(path):
            kind = record["t"]
            if kind == "batch_intent":
                keys, tag = set(record["keys"]), record["tag"]
                mail.unsure[tag] = Parcel(tag, keys, record["bound"], record["at"], record["repair"])
            elif kind == "batch":
                mail.open[record["tag"]] = parcel = mail.unsure.pop(record["tag"])
                parcel.id = record["id"]
            elif kind == "batch_lost":
                mail.unsure.pop(record["tag"], None)
            elif kind == "batch_end":
                mail.end(mail.open[record["tag"]], record["status"])
            elif kind == "draft":
                mail.drafts[record["key"]] = journals.decode_reply(record["reply"])
        return mail

    def end(self, parcel: Parcel, state: str) -> None:
        """A batch ended and was read."""
        del self.open[parcel.tag]
        self.ended.add(parcel.id)
        self.ran += state != "failed"
        self.finished += len(parcel.keys)


class Outbox:
    """Writes requests to as many files as a provider's limits (``shape``) and ``most`` requests a file call for, and
    adds each to ``parcels`` as it is begun.
    """

    def __init__(
        self, folder: Path, shape: Shape, most: int, tags: Callable[[], str], *, repairs: bool, parcels: list[Parcel]
    ) -> None:
        self._folder, self._shape, self._tags, self._repairs = folder, shape, tags, repairs
        self._most = min(most or shape.requests, shape.requests)
        self._parcels = parcels
        self._file: IO[bytes] | None = None
        self._size = 0

    def add(self, key: str, request: bytes, bound: float | None) -> None:
        """Put one request into the file that is open, or into a new one."""
        shape = self._shape
        extra = len(request) + len(shape.between) + len(shape.tail)
        if self._file is not None and (len(self._parcels[-1].keys) >= self._most or self._size + extra > shape.size):
            self._end()
        if self._file is None:
            self._begin()
        else:
            self._put(shape.between)
        self._put(request)
        parcel = self._parcels[-1]
        parcel.keys.add(key)
        parcel.bound = None if bound is None or parcel.bound is None else parcel.bound + bound

    def close(self) -> None:
        """End the last file."""
        self._end()

    def _begin(self) -> None:
        tag = self._tags()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{tag}.jsonl"
        self._file, self._size = path.open("wb"), 0
        self._parcels.append(Parcel(tag, set(), repair=self._repairs, path=path, file=self._file))
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._put(self._shape.head)

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._size += len(data)

    def _end(self) -> None:
        if self._file is not None:
            self._put(self._shape.tail)
            self._file.flush()
            self._file = None


class Post:
    """Makes batches, and finds again those that were made and not written down."""

    def __init__(self, api: BatchApi, journal: Journal, batching: Batching, budget: Budget | None) -> None:
        self.api, self.journal, self.batching, self.budget = api, journal, batching, budget
        self.mail = Mail.of(journal.path)
        self._started = batching.clock.now()

    def reserve(self, parcels: list[Parcel]) -> None:
        """Set aside the most that all of them can cost; raises ``BudgetSpent`` where the limit does not allow it."""
        budget, total = self.budget, sum(parcel.bound or 0.0 for parcel in parcels)
        if budget is not None and not budget.reserve(total):
            count = sum(len(parcel.keys) for parcel in parcels)
            raise BudgetSpent(
                f"the budget of ${budget.limit:g} does not allow this batch: ${budget.spent:.4f} are spent, and its "
                f"{count:,} requests may take up to ${total:.4f}; nothing was submitted"
            )

    async def submit(self, parcel: Parcel) -> None:
        """Make one batch; whatever happens, the journal knows of it."""
        uploaded = await self.api.upload(parcel.path)
        failpoints.reached("after_upload")
        failure: Failure | None = None
        for turn in range(_SUBMISSIONS):
            if turn:
                parcel.tag = self.batching.tags()
            parcel.at = self.batching.now()
            self.note("batch_intent", parcel, keys=sorted(parcel.keys), bound=parcel.bound, at=parcel.at,
                       repair=parcel.repair)  # fmt: skip
            made = await self.api.submit(parcel.path, uploaded, tag=parcel.tag)
            failpoints.reached("after_submit")
            if isinstance(made, BatchStatus):
                self._made(parcel, made)
                return
            failure, policy = made, POLICIES[made.fault]
            found = await self._find(parcel) if policy.paid else None
            if found is not None:
                self._made(parcel, found, found=True)
                return
            self._lost(parcel, possibly_paid=len(parcel.keys) if policy.paid else 0)
            if self.budget is not None and policy.paid:
                self.budget.spent += parcel.bound or 0.0
            if not policy.retries:
                break
            await self.batching.clock.sleep(min(made.wait or policy.wait * 2**turn, MOST_WAIT))
        raise BackendError(f"{self.api.provider}: the batch could not be made: {failure}")

    async def look_for(self, parcel: Parcel) -> None:
        """Find the batch of an intent that an earlier process left without an id, or journal that it is lost."""
        found = await self._find(parcel)
        if found is None:
            self._lost(parcel, possibly_paid=len(parcel.keys))
            return
        if self.budget is not None:
            # Until now it counted as possibly paid; from here on its replies count.
            self.budget.spent = max(0.0, self.budget.spent - (parcel.bound or 0.0))
        self._made(parcel, found, found=True)

    async def _find(self, parcel: Parcel) -> BatchStatus | None:
        """The batch of an intent, where the provider has it; one that cannot be told apart yet is waited for."""
        others = {open_.id for open_ in self.mail.open.values()} | self.mail.ended
        sought = Sought(parcel.tag, parcel.at, parcel.keys, others)
        wait = self.batching.wait
        for pause in _LOOKS:
            found = await self.api.find(sought)
            while found is not None and found.state == "running" and not self.api.tagged:
                self.tell([found])
                await self.batching.clock.sleep(wait)
                wait = min(1.5 * wait, MOST_WAIT)
                found = await self.api.find(sought)
            if found is not None:
                return found
            await self.batching.clock.sleep(pause)
        return None

    def _made(self, parcel: Parcel, status: BatchStatus, *, found: bool = False) -> None:
        digest = hashlib.sha256("".join(sorted(parcel.keys)).encode()).hexdigest()
        parcel.id = status.id
        self.note("batch", parcel, id=status.id, endpoint=self.api.endpoint, count=len(parcel.keys), digest=digest,
                   submitted_at=parcel.at, **({"found": True} if found else {}))  # fmt: skip
        self.mail.unsure.pop(parcel.tag, None)
        self.mail.open[parcel.tag] = parcel

    def _lost(self, parcel: Parcel, *, possibly_paid: int) -> None:
        bound = parcel.bound if possibly_paid else 0.0
        self.note("batch_lost", parcel, possibly_paid=possibly_paid, bound=bound)
        self.mail.unsure.pop(parcel.tag, None)

    def note(self, kind: str, parcel: Parcel, **told: Any) -> None:
        """Journal a record about a batch, on the disk before this returns."""
        self.journal.append(kind, {"tag": parcel.tag, "provider": self.api.provider, **told})
        self.journal.sync()

    def tell(self, seen: list[BatchStatus]) -> None:
        """Report progress after a look at the batches on their way."""
        if self.batching.report is not None:
            ended, going = len(self.mail.ended), [*self.mail.open.values(), *self.mail.unsure.values()]
            done = self.mail.finished + sum(status.done for status in seen if status.state == "running")
            total = self.mail.finished + sum(len(parcel.keys) for parcel in going)
            seconds = round(self.batching.clock.now() - self._started, 1)
            self.batching.report(BatchProgress(ended + len(going), ended, min(done, total), total, seconds))
