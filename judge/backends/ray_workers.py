"""A judge on the machines of a Ray cluster: actors call, this process keeps journal, cache, budget and database.

``RayBackend`` wraps an opened judge and has its id, notice, batch and prices; it hands each batch of the engine to the
worker (a Ray actor) that has the fewest calls in flight. Every worker opened the same judge string on its own node,
with the keys of that node's environment, and was found to be the same judge: a key is never sent through Ray.

Ray repeats nothing (``max_task_retries=0``) and starts no actor again (``max_restarts=0``): its task retries repeat
calls that were paid for, and do not count them. What was in flight on a worker that died is sent once more, to another
one, and each such ask counts one attempt more and one possibly paid call. At most ``concurrency`` batches of the judge
are in flight on a worker, so one death repeats at most that window.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

from .. import __version__, protocol
from ..environment import environment
from ..errors import BackendError, BackendUnavailable, InputError
from ..money import FREE, Budget, BudgetSpent, Priced, Quote, lose, took
from ..types import Ask, JudgeId, Reply, Usage
from . import Backend, Preparing, open_backend, probed, ready
from .capability import NO_PROBE, Capability, with_spent
from .chat import ChatBackend
from .faults import redact, spellings

if TYPE_CHECKING:
    from ..environment import Environment
    from ..prices import Price

__all__ = ["Cluster", "RayBackend", "Worker", "open_on_ray"]

_STORE_BYTES = 80 * 2**20
"""The object store of a local cluster, near Ray's least: asks and replies are small and travel without it."""
_CONNECT_SECONDS = 5.0
_PLACE_SECONDS = 90.0
_SENT = 2
"""How often one ask is sent in all where workers die of (or with) it."""
_TELLING = 300


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker that is there: its process and node, and the versions that must be those of this process."""

    pid: int
    node: str
    version: str
    template: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Who a worker is once it knows its server, what it found out where it asked, and what that took."""

    id: JudgeId
    capability: Capability | None
    probe: Reply


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a worker cannot answer: an exception as text, without secrets, for the other side to raise."""

    kind: str
    message: str
    probe: Reply = NO_PROBE
    """What finding out took until then."""

    def error(self) -> Exception:
        """The exception that it stands for."""
        kinds: dict[str, type[Exception]] = {
            "InputError": InputError, "BackendUnavailable": BackendUnavailable, "BudgetSpent": BudgetSpent,
        }  # fmt: skip
        return kinds.get(self.kind, BackendError)(self.message)


class Worker:
    """What runs in each actor: the judge, opened from its string. Errors travel as values (``Problem``)."""

    def __init__(self) -> None:
        self._backend: Backend | None = None

    async def hello(self) -> Opened:
        """Say who this is."""
        import os

        return Opened(os.getpid(), socket.gethostname(), __version__, protocol.TEMPLATE)

    async def open(self, spec: str, base_url: str, price: Price | None) -> JudgeId | Problem:
        """Open the judge; keys and caches are this node's, the server and the price those of the driver."""
        try:
            self._backend = backend = open_backend(spec, replace(environment(), base_url=base_url))
            if isinstance(backend, ChatBackend):
                backend.price, backend.memory = price, None  # what is known of the server is kept by the driver
            return backend.id
        except Exception as error:  # noqa: BLE001 - whatever opening dies of is told to the driver, in one form
            return _problem(error)

    async def prepare(self, recorded: JudgeId | None, left: float | None) -> Prepared | Problem:
        """Look at the server (``ready``), for at most ``left`` US dollars."""
        assert self._backend is not None
        try:
            await ready(self._backend, recorded, budget=None if left is None else Budget(left))
            found = getattr(self._backend, "capability", None)
            return Prepared(self._backend.id, found, await probed(self._backend))
        except Exception as error:  # noqa: BLE001 - as in open
            return replace(_problem(error), probe=await probed(self._backend))

    async def ask(self, asks: Sequence[Ask]) -> list[Reply] | Problem:
        """Answer a batch."""
        assert self._backend is not None
        try:
            return await self._backend.ask(asks)
        except Exception as error:  # noqa: BLE001 - as in open
            return _problem(error)


def _problem(error: Exception) -> Problem:
    env = environment()
    expected = isinstance(error, (InputError, BackendError))
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    return Problem(type(error).__name__, redact(message, spellings((env.api_key, *env.keys.values()))))


class Cluster:
    """The connection of this process to a Ray cluster, shared by every judge on it; the last one to leave closes it.

    ``address``: ``auto`` for the cluster of this machine or of ``RAY_ADDRESS``, ``HOST:PORT`` of a head node (its GCS
    port, 6379 unless it was changed), or ``local`` to start one here for the length of the run, on loopback only, with
    its files in a folder of its own that is removed again.
    """

    def __init__(self, address: str = "auto", *, workers: int = 2) -> None:
        if "://" in address:
            raise InputError(f"ray address {address}: give HOST:PORT of the head node (port 6379), auto or local")
        self.address, self.workers = address, workers
        self.folder = ""
        """Where a local cluster keeps its files while it runs."""
        self._joined = 0
        self._ours: weakref.finalize[..., Cluster] | None = None

    @property
    def local(self) -> bool:
        """Whether the cluster lives on this machine, for this process only."""
        return self.address == "local"

    def join(self) -> Any:
        """Connect, or start the local cluster; returns the ``ray`` module. Raises ``BackendUnavailable``."""
        try:
            import ray
        except ImportError as error:
            raise BackendUnavailable(f"--engine ray needs ray ({error}); pip install 'touchstone-judge[ray]'") from None
        if not self._joined and not ray.is_initialized():
            self._connect(ray)
            self._ours = weakref.finalize(self, _disconnect, ray, self.folder)
        self._joined += 1
        return ray

    def leave(self) -> None:
        """Disconnect once nobody is left; a local cluster ends with it."""
        self._joined -= 1
        if self._joined == 0 and self._ours is not None:
            self._ours()
            self._ours = None

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "address": self.address}
        if self.local:
            # Ray's own default, /tmp, and not TMPDIR: paths of its sockets must stay below 104 bytes.
            self.folder = tempfile.mkdtemp(prefix="judge-ray-", dir="/tmp")
            options |= {
                "num_cpus": self.workers, "include_dashboard": False, "object_store_memory": _STORE_BYTES,
                "_temp_dir": self.folder, "_node_ip_address": "127.0.0.1",
            }  # fmt: skip
        elif self.address != "auto":
            self._reach()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**options)
        except Exception as error:  # noqa: BLE001 - Ray raises many types here, all of them: no cluster
            _disconnect(ray, self.folder)
            how = "Ray could not be started here" if self.local else self._unreachable()
            raise BackendUnavailable(f"{how} ({_last_line(error)})") from None
        finally:
            # Ray puts a handler of its own there, which prints a stack; the signal means what it meant before.
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def _reach(self) -> None:
        """Fail at once where nothing listens; Ray itself would try for a long time."""
        try:
            parts = urlsplit(f"//{self.address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port:
            raise InputError(
                f"ray address {self.address!r}: give HOST:PORT of the head node (port 6379), auto or local"
            )
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise BackendUnavailable(f"{self._unreachable()} ({error.strerror or error})") from None

    def _unreachable(self) -> str:
        where = "of this machine" if self.address == "auto" else f"at {self.address}"
        return (
            f"no Ray cluster {where} can be reached: start one (`ray start --head --port=6379`), give its address "
            "(--ray-address HOST:6379), or use --ray-address local"
        )


def _disconnect(ray: Any, folder: str) -> None:
    ray.shutdown()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True, eq=False)
class _Seat:
    """One worker as the driver sees it."""

    actor: Any
    opened: Opened
    flying: int = 0


class RayBackend:
    """A judge whose asks are answered by workers on a Ray cluster; satisfies ``Backend``, ``Preparing`` and ``Priced``.

    ``concurrency`` is the judge's own, times the workers. ``lost`` counts workers that died, ``repeated`` the asks that
    were sent again because of that. ``tell`` is called with one sentence for each worker that is lost.
    """

    def __init__(
        self, inner: Backend, cluster: Cluster, seats: Sequence[_Seat], *, tell: Callable[[str], None] | None = None
    ) -> None:
        self.inner, self.cluster = inner, cluster
        self.id, self.batch, self.notice = inner.id, inner.batch, inner.notice
        self.window = max(1, inner.concurrency)
        self.concurrency = self.window * len(seats)
        self.lost = self.repeated = 0
        self._probe = NO_PROBE
        self._seats, self._all = list(seats), tuple(seats)
        self._tell = tell
        self._freed: asyncio.Condition | None = None
        self._why = ""
        self._closed = False

    @property
    def workers(self) -> tuple[Opened, ...]:
        """The workers that are alive, as far as is known."""
        return tuple(seat.opened for seat in self._seats)

    @property
    def assumed(self) -> bool:
        """Whether the judge's mode is only assumed: nobody has asked the server yet."""
        return self.inner.assumed if isinstance(self.inner, ChatBackend) else isinstance(self.inner, Preparing)

    def recall(self) -> Capability | None:
        """Take over what is kept here about the server, without a call; ``None`` where there is nothing."""
        return self.inner.recall() if isinstance(self.inner, ChatBackend) else None

    async def prepare(self, recorded: JudgeId | None = None, *, budget: Budget | None = None) -> None:
        """Let the workers know their server: by what is kept here, else the first one finds out and the others are
        told.
        """
        inner = self.inner
        if not isinstance(inner, Preparing):
            return
        self.recall()
        if recorded is None and not self.assumed:
            recorded = inner.id
        for seat in self._seats:
            left = None if budget is None else budget.limit - budget.spent
            answer: Prepared | Problem = await seat.actor.prepare.remote(recorded, left)
            self._probe = with_spent(self._probe, answer.probe)
            prepared: Prepared = _value(answer)
            if budget is not None:
                budget.settle(0.0, took(prepared.probe, self.probe_bound()))
            if recorded is None and prepared.capability is not None and isinstance(inner, ChatBackend):
                inner.adopt(prepared.capability)
                inner.keep(self._probe)
            recorded = prepared.id
        await inner.prepare(recorded)
        self.id = inner.id
        if recorded != self.id:
            raise BackendError(f"the workers are {recorded}, this process is {self.id}")

    async def probed(self, *, keep: bool = False) -> Reply:
        """What the workers' look at their server took, once, unless it is to be kept."""
        probe, self._probe = self._probe, self._probe if keep else NO_PROBE
        return probe

    def probe_bound(self) -> float | None:
        """The most that one call of finding out may cost in US dollars."""
        return self.inner.probe_bound() if isinstance(self.inner, ChatBackend) else 0.0

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Have a worker answer a batch; where it dies, one other worker is asked.

        Asks that two workers died of are replies with ``error``. Raises ``BackendError`` once no worker is left, or
        where a worker's judge gave up.
        """
        from ray.exceptions import RayError

        for lost in range(_SENT):
            seat = await self._take()
            try:
                if lost:
                    lose(lost)
                answer = await seat.actor.ask.remote(list(asks))
            except RayError as error:
                self._lose(seat, error)
                self.repeated += len(asks) if lost + 1 < _SENT else 0
                continue
            finally:
                await self._give(seat)
            replies: list[Reply] = _value(answer)
            if isinstance(self.inner, ChatBackend) and any("no_logprobs" in reply.flags for reply in replies):
                self.inner.belie("asked for label probabilities, it gave none")
            return [_after(reply, lost) for reply in replies] if lost else replies
        told = f"given up: {_SENT} Ray workers died while this was asked ({self._why})"
        given_up = Reply(error=told, finish="error", attempts=_SENT, possibly_paid=_SENT, usage=Usage(cost=0.0))
        return [given_up] * len(asks)

    def quote(self, ask: Ask) -> Quote:
        """What the wrapped judge quotes; nothing for one without a price."""
        return self.inner.quote(ask) if isinstance(self.inner, Priced) else FREE

    async def close(self) -> None:
        """End the workers, leave the cluster and close the judge that was opened here."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.inner.close()
        finally:
            _dismiss(seat.actor for seat in self._all)
            self.cluster.leave()

    async def _take(self) -> _Seat:
        """A place on the worker with the fewest calls in flight; waits while all are full."""
        if self._freed is None:
            self._freed = asyncio.Condition()
        async with self._freed:
            while True:
                if not self._seats:
                    raise BackendError(f"all {len(self._all)} Ray workers died, the last with: {self._why}")
                seat = min(self._seats, key=lambda seat: seat.flying)
                if seat.flying < self.window:
                    seat.flying += 1
                    return seat
                await self._freed.wait()

    async def _give(self, seat: _Seat) -> None:
        assert self._freed is not None
        seat.flying -= 1
        async with self._freed:
            self._freed.notify_all() if not self._seats else self._freed.notify()

    def _lose(self, seat: _Seat, error: Exception) -> None:
        """Take a worker off the list, once, and see to it that it calls nothing more."""
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        self.lost += 1
        self._why = _last_line(error)
        _dismiss([seat.actor])
        if self._tell is not None:
            self._tell(
                f"Ray worker {seat.opened.pid} on {seat.opened.node} was lost ({self._why}); {len(self._seats)} left, "
                f"{seat.flying} calls of it are sent again"
            )


def open_on_ray(
    spec: str, env: Environment, cluster: Cluster, *, tell: Callable[[str], None] | None = None
) -> RayBackend:
    """Open a judge string here and on ``cluster.workers`` workers of the cluster.

    Raises ``BackendUnavailable`` where there is no ray or no cluster; ``BackendError`` where the cluster has no room,
    or where a worker is not the same judge, or has another version of this package; and what opening the judge raises.
    """
    inner = open_backend(spec, env)
    ray = cluster.join()
    actors: list[Any] = []
    try:
        # A local cluster is ours alone; on a shared one each worker is accounted with one CPU.
        made = ray.remote(
            num_cpus=0 if cluster.local else 1, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD",
            max_concurrency=max(1, inner.concurrency) + 1,
        )(Worker)  # fmt: skip
        actors += [made.remote() for _ in range(cluster.workers)]
        seats = [_Seat(actor, opened) for actor, opened in zip(actors, _greeted(ray, actors), strict=True)]
        price = getattr(inner, "price", None)
        shared = _shared(spec, cluster.workers)
        ids = _gathered(
            ray, [actor.open.remote(shared, env.base_url, price) for actor in actors], "died while opening it"
        )
        for seat, identity in zip(seats, map(_value, ids), strict=True):
            if identity != inner.id:
                raise BackendError(f"judge {inner.id} is {identity} on {seat.opened.node}: make both the same first")
    except BaseException:  # Ctrl-C, too: actors that nobody will use are not left on somebody's cluster
        _dismiss(actors)
        cluster.leave()
        raise
    return RayBackend(inner, cluster, seats, tell=tell)


def _greeted(ray: Any, actors: Sequence[Any]) -> list[Opened]:
    """Every worker's greeting, once all of them have found a place."""
    greetings = [actor.hello.remote() for actor in actors]
    placed, waiting = ray.wait(greetings, num_returns=len(greetings), timeout=_PLACE_SECONDS)
    if waiting:
        raise BackendError(
            f"the Ray cluster has room for {len(placed)} of {len(actors)} workers (one CPU each, waited "
            f"{_PLACE_SECONDS:g} s): give --workers {max(1, len(placed))}, or add nodes"
        )
    found: list[Opened] = _gathered(
        ray, greetings, f"cannot start; every node needs `pip install 'touchstone-judge[ray]=={__version__}'`"
    )
    for opened in found:
        if (opened.version, opened.template) != (__version__, protocol.TEMPLATE):
            raise BackendError(
                f"node {opened.node} has touchstone-judge {opened.version} ({opened.template}), this machine "
                f"{__version__} ({protocol.TEMPLATE}): install the same version on both"
            )
    return found


def _gathered(ray: Any, refs: Sequence[Any], failed: str) -> list[Any]:
    try:
        return list(ray.get(list(refs)))
    except ray.exceptions.RayError as error:
        raise BackendError(f"a Ray worker {failed} ({_last_line(error)})") from None


def _dismiss(actors: Iterable[Any]) -> None:
    """Kill actors; those that are dead already, or whose cluster is gone, are left alone."""
    import ray

    for actor in actors:
        with contextlib.suppress(Exception):  # there is nothing left to kill
            ray.kill(actor, no_restart=True)


def _value(answer: Any) -> Any:
    if isinstance(answer, Problem):
        raise answer.error()
    return answer


def _after(reply: Reply, lost: int) -> Reply:
    """A reply that came after so many workers died with its ask."""
    return replace(reply, attempts=reply.attempts + lost, possibly_paid=reply.possibly_paid + lost)


def _shared(spec: str, workers: int) -> str:
    """The judge string for one of several workers: limits per minute hold for all of them together."""
    head, mark, query = spec.partition("?")
    if not mark:
        return spec
    options = [
        (name, _part(value, workers) if name in ("rpm", "tpm") else value)
        for name, value in parse_qsl(query, keep_blank_values=True)
    ]
    return head + mark + "&".join(f"{name}={quote_plus(value)}" for name, value in options)


def _part(value: str, workers: int) -> str:
    try:
        return repr(float(value) / workers)
    except ValueError:
        return value


def _last_line(error: BaseException) -> str:
    """The line of an error that says most: Ray puts a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:_TELLING]
