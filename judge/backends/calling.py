"""The one retry loop: every remote call, whatever the client under it, goes through ``Caller.call``.

Four rules stand between a call and the wire, all shared by every worker of a backend:

* a window of calls in flight that adapts under a hard cap (``Window``): additive increase, multiplicative decrease
  (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance", 1989);
* requests and tokens per minute (``Meter``): the generic cell rate algorithm (ITU-T I.371), a leaky bucket kept as one
  number;
* a pause for everybody where the server names a time (Retry-After), never cut short and capped at ``MAX_WAIT``;
* a breaker per endpoint (``Breaker``; M. Nygard, "Release It!", 2007): after ``BREAK_AFTER`` failures in a row nothing
  is sent for a while, then one probe; when the probes keep failing the backend gives up.

Between attempts the wait is drawn evenly from zero to a doubling bound: full jitter (M. Brooker, "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..errors import BackendError, BackendUnavailable
from ..money import lose
from .faults import POLICIES, Failure, Fault

__all__ = ["Breaker", "Called", "Caller", "Clock", "Limits", "Meter", "Window"]

T = TypeVar("T")

MAX_WAIT = 60.0
"""Seconds that one wait takes at most, the server's own wish included."""
MAX_ATTEMPTS = 12
"""Attempts that one call makes at most, whatever mixture of faults it meets."""
BREAK_AFTER = 8
"""Failures in a row that open the breaker."""
GIVE_UP_AFTER = 5
"""Probes in a row that may fail before the backend gives up: about a minute after the breaker opened."""
_COOLDOWN, _MAX_COOLDOWN = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, handed in so that tests need not wait: seconds that only grow, a sleep, draws from [0, 1)."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may do: calls in flight at most, requests and tokens per minute (0 for no limit)."""

    concurrency: int = 8
    rpm: float = 0
    tpm: float = 0


class Window:
    """How many calls may be in flight: starts at the cap, halves on a sign of overload, grows by one per window of
    successes.

    >>> window = Window(8)
    >>> window.shrink(started=1.0, now=2.0), window.size
    (True, 4.0)
    """

    def __init__(self, cap: int) -> None:
        self.cap = max(1, cap)
        self.size = float(self.cap)
        self._shrunk = float("-inf")

    def grow(self) -> None:
        """A call succeeded."""
        if self.size < self.cap:
            self.size = min(float(self.cap), self.size + 1 / self.size)

    def shrink(self, *, started: float, now: float) -> bool:
        """A call that was sent at ``started`` met overload; those sent before the last cut do not count again."""
        if started <= self._shrunk:
            return False
        self.size, self._shrunk = max(1.0, self.size / 2), now
        return True


class Meter:
    """So many units a minute, with a burst of one second's worth; 0 a minute means no limit.

    >>> meter = Meter(60)
    >>> meter.take(1, now=0.0), meter.take(1, now=0.0)
    (0.0, 1.0)
    """

    def __init__(self, per_minute: float) -> None:
        self._each = 60 / per_minute if per_minute > 0 else 0.0
        self._free = float("-inf")

    def take(self, units: float, *, now: float) -> float:
        """Book units and return the seconds to wait until they are due."""
        if not self._each:
            return 0.0
        begin = max(self._free, now - max(0.0, 1.0 - self._each))
        self._free = begin + units * self._each
        return max(0.0, begin - now)

    def give_back(self, units: float) -> None:
        """Return units that were booked and not used."""
        self._free -= units * self._each


class Breaker:
    """Whether an endpoint is asked at all: closed (yes), open (no, for a while), half open (one probe).

    >>> breaker = Breaker(after=2)
    >>> breaker.failed(now=0.0), breaker.failed(now=0.0), breaker.wait(now=1.0)
    (None, None, 1.0)
    """

    def __init__(self, *, after: int = BREAK_AFTER) -> None:
        self._after, self._failures, self._cooldown = after, 0, _COOLDOWN
        self._opened: float | None = None
        self._probing = False
        self.failed_probes = 0

    def wait(self, *, now: float) -> float:
        """Seconds until a call may be sent; 0 lets the caller through, and while open that makes it the probe."""
        if self._opened is None:
            return 0.0
        left = self._opened + self._cooldown - now
        if left > 0 or self._probing:
            return max(left, _COOLDOWN) if self._probing else left
        self._probing = True
        return 0.0

    def succeeded(self) -> bool:
        """The endpoint answered; returns whether that closed an open breaker."""
        self._failures, closed = 0, self._opened is not None
        if closed:
            self._opened, self._probing, self._cooldown, self.failed_probes = None, False, _COOLDOWN, 0
        return closed

    def failed(self, *, now: float) -> None:
        """A call failed in a way that speaks against the endpoint."""
        self._failures += 1
        if self._opened is not None and self._probing:
            self._opened, self._probing = now, False
            self._cooldown = min(2 * self._cooldown, _MAX_COOLDOWN)
            self.failed_probes += 1
        elif self._opened is None and self._failures >= self._after:
            self._opened = now

    def abandon(self) -> None:
        """The probe was cancelled, or met something that says nothing about the endpoint: let another one try."""
        self._probing = False


@dataclass(frozen=True, slots=True)
class Called(Generic[T]):
    """What a call came to: a value, or the last failure; how many attempts it took, how many of those may have been
    charged without bringing a value, and the milliseconds of the last one.
    """

    value: T | None
    failure: Failure | None
    attempts: int
    possibly_paid: int
    latency_ms: float


@dataclass(slots=True)
class _Count:
    """What one call met so far."""

    attempts: int = 0
    paid: int = 0
    told: int = 0
    faults: dict[Fault, int] = field(default_factory=dict)

    def tell(self) -> None:
        """Another attempt begins: what those before it may have cost is said now, lest this process not see its end."""
        if self.paid > self.told:
            lose(self.paid - self.told)
            self.told = self.paid


class Caller:
    """Sends calls to one endpoint under its limits. ``endpoint`` and ``advice`` are for error messages."""

    def __init__(self, endpoint: str, limits: Limits, *, advice: str = "", clock: Clock | None = None) -> None:
        self.endpoint, self.limits, self.advice = endpoint, limits, advice
        self.clock = clock or Clock()
        self.window, self.breaker = Window(limits.concurrency), Breaker()
        self._requests, self._tokens = Meter(limits.rpm), Meter(limits.tpm)
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._resume_at = float("-inf")
        self._reached = False
        self._ending: BackendError | None = None
        self._endings = 0
        self._owed: BackendError | None = None
        self._news: asyncio.Future[None] | None = None

    async def call(self, send: Callable[[], Awaitable[T | Failure]], *, tokens: int = 0) -> Called[T]:
        """Call ``send`` until it brings a value or the policy of its fault is used up; ``tokens`` is the upper bound
        that counts against tokens per minute.

        What the hook of ``money.losing`` raises is raised before a call is made again.

        Raises ``BackendError`` (``BackendUnavailable`` where no server is there) when nothing can be answered any
        more; calls that wait for their turn then end with the same error instead of being sent.
        """
        if self._owed is not None:
            owed, self._owed = self._owed, None
            raise owed
        count, endings = _Count(), self._endings
        while True:
            await self._admit(tokens, endings)
            started = self.clock.now()
            try:
                count.tell()
                count.attempts += 1
                value = await send()
            except BaseException:  # a cancelled call, too: the breaker must not wait for its trial for ever
                self.breaker.abandon()
                raise
            finally:
                self._leave()
            latency = (self.clock.now() - started) * 1000
            if not isinstance(value, Failure):
                self._succeeded()
                return Called(value, None, count.attempts, count.paid, latency)
            failure, wait = self._failed(value, started, count)
            if wait is not None:
                await self._pause(wait)
            if wait is None or (count.paid > 1 and self._endings != endings):
                # Raising would lose how many attempts were possibly paid; who keeps accounts counts one per lost call.
                return Called(None, failure, count.attempts, count.paid, latency)

    def spent(self, *, booked: int, used: int) -> None:
        """Correct tokens per minute from the booked upper bound to what a call really took."""
        self._tokens.give_back(max(0, booked - used))

    def _succeeded(self) -> None:
        self._reached = True
        self.window.grow()
        if self.breaker.succeeded():
            self._tell()

    def _failed(self, failure: Failure, started: float, count: _Count) -> tuple[Failure, float | None]:
        """Book one failed attempt; returns the seconds to wait before the next, ``None`` for no more."""
        now = self.clock.now()
        if failure.fault is Fault.UNREACHABLE and self._reached:
            failure = Failure(Fault.GONE, failure.detail, failure.wait)
        self._reached |= failure.fault is not Fault.UNREACHABLE
        policy = POLICIES[failure.fault]
        count.paid += policy.paid
        tries = count.faults[failure.fault] = count.faults.get(failure.fault, 0) + 1
        if policy.slow:
            self.window.shrink(started=started, now=now)
        if policy.breaker:
            self.breaker.failed(now=now)
            if self.breaker.failed_probes >= GIVE_UP_AFTER:
                self._stop(BackendError(f"{self.endpoint}: keeps failing, the last call with {failure}"), count)
                return failure, None
        elif failure.status:
            # A refusal is an answer: the endpoint lives.
            if self.breaker.succeeded():
                self._tell()
        else:
            self.breaker.abandon()
        if failure.wait is not None and policy.retries:
            self._resume_at = max(self._resume_at, now + min(failure.wait, MAX_WAIT))
        if tries > policy.retries or count.attempts >= MAX_ATTEMPTS:
            if policy.stops:
                self._stop(self._error(failure, tries), count)
            return failure, None
        backed = self.clock.draw() * min(policy.wait * 2 ** (tries - 1), MAX_WAIT)
        if failure.wait is not None and failure.wait >= backed:
            return failure, 0.0  # the pause that was asked for holds for all calls (``_resume_at``)
        return failure, backed

    def _error(self, failure: Failure, tries: int) -> BackendError:
        match failure.fault:
            case Fault.GONE:
                return BackendError(
                    f"{self.endpoint}: {failure.detail}; it answered before, is the server still running?"
                )
            case Fault.UNREACHABLE:
                return BackendUnavailable(f"{self.endpoint}: {failure.detail}; is the server running?")
            case Fault.RATE_LIMITED:
                told = f"still rate limited after {tries} attempts ({failure.detail}); lower concurrency, rpm or tpm"
                return BackendError(f"{self.endpoint}: {told}")
            case Fault.REDIRECT:
                return BackendError(f"{self.endpoint}: {failure.detail}; set base_url to the place itself")
            case Fault.QUOTA:
                return BackendError(f"{self.endpoint}: {failure.detail}; the account is out of money or quota")
            case _:
                return BackendError(f"{self.endpoint}: {failure.detail}; {self.advice}")

    def _stop(self, error: BackendError, count: _Count) -> None:
        """End this call, and every call that waits, with an error (the next one, where this has accounts to give)."""
        self._ending, self._endings = error, self._endings + 1
        self.breaker = Breaker()
        self._tell()
        if count.paid <= 1:
            raise error
        self._owed = error

    async def _admit(self, tokens: int, endings: int) -> None:
        """Wait until this call may be sent, and take its place in the window."""
        if self._queue or self._busy >= int(self.window.size):
            await self._enter()
        else:
            self._busy += 1
        try:
            now = self.clock.now()
            due = now + max(self._requests.take(1, now=now), self._tokens.take(tokens, now=now))
            while True:
                self._check(endings)
                now = self.clock.now()
                wait = due - now
                if self._resume_at > now:
                    # Not everybody at the same moment: that is how the limit was met.
                    pause = self._resume_at - now
                    wait = max(wait, pause + self.clock.draw() * min(pause / 10, 1.0))
                if wait <= 0:
                    wait = self.breaker.wait(now=now)
                if wait <= 0:
                    return
                await self._pause(wait)
        except BaseException:  # who is cancelled while waiting gives the place back, too
            self._leave()
            raise

    def _check(self, endings: int) -> None:
        if self._endings != endings and self._ending is not None:
            raise type(self._ending)(str(self._ending))

    async def _enter(self) -> None:
        """Queue for a place in the window; ``_leave`` hands it over in order."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(ticket)
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                self._leave()
            elif ticket in self._queue:
                self._queue.remove(ticket)
            raise

    def _leave(self) -> None:
        self._busy -= 1
        while self._queue and self._busy < int(self.window.size):
            ticket = self._queue.popleft()
            if not ticket.done():
                self._busy += 1
                ticket.set_result(None)

    async def _pause(self, seconds: float) -> None:
        """Sleep, or less where something happened that waiting calls must hear of."""
        if seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        if self._news is None or self._news.done() or self._news.get_loop() is not loop:
            self._news = loop.create_future()
        sleeper = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait({sleeper, self._news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
