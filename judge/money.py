"""What judging costs: an upper bound before a call, and a budget that reserves it.

A call's price is known only afterwards, so its upper bound is reserved before it is sent and replaced by what it took.
What is reserved counts as spent: many calls in flight cannot pass the limit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .errors import BackendError
from .types import Ask, Reply

__all__ = ["FREE", "Budget", "BudgetSpent", "Priced", "Quote", "lose", "losing", "took", "total"]

_LOST: ContextVar[Callable[[int], None] | None] = ContextVar("lost", default=None)


@dataclass(frozen=True, slots=True)
class Quote:
    """The most that one ask can take: tokens in and out, and US dollars (``None`` where the price is unknown).

    ``least`` is the least that it costs in US dollars (its prompt and the shortest answer), ``None`` where nobody says.
    """

    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    least: float | None = None


FREE = Quote(0, 0, 0.0, 0.0)
"""What an ask of a judge without a price takes: nothing is paid for it."""


@runtime_checkable
class Priced(Protocol):
    """A backend whose calls cost money; one that is not ``Priced`` is free."""

    def quote(self, ask: Ask) -> Quote:
        """The upper bound of one ask, retries not counted."""
        ...


def total(costs: Iterable[float | None]) -> float | None:
    """US dollars together; ``None`` where one price is unknown, which is not 0.

    >>> total([0.25, 0.5]), total([0.25, None]), total([])
    (0.75, None, 0.0)
    """
    found = list(costs)
    known = [cost for cost in found if cost is not None]
    return float(sum(known)) if len(known) == len(found) else None


class BudgetSpent(BackendError):
    """The budget does not allow one more call; everything that was answered is kept."""


class Budget:
    """US dollars that a run may take: reserved before each call, settled after it.

    ``limit`` is the most, ``spent`` what was taken so far, ``reserved`` the upper bounds of the calls in flight. A call
    that is made again after an attempt that was possibly paid is reserved once more (``losing``), so that spending
    passes ``limit`` only where somebody else makes it again: a worker on another machine, by less than one window.

    >>> budget = Budget(1.0)
    >>> budget.reserve(0.75), budget.reserve(0.5)
    (True, False)
    >>> budget.settle(0.75, 0.25)
    >>> budget.reserve(0.5), budget.spent
    (True, 0.25)
    """

    def __init__(self, limit: float, *, spent: float = 0.0) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0

    def reserve(self, cost: float | None) -> bool:
        """Set aside the upper bound of a call; ``False`` where the limit does not allow it. An unknown one counts 0."""
        wanted = cost or 0.0
        if self.spent + self.reserved + wanted > self.limit * (1 + 1e-12):
            return False
        self.reserved += wanted
        return True

    def settle(self, reserved: float | None, taken: float) -> None:
        """Replace what was reserved for a call by what it took."""
        self.reserved = max(0.0, self.reserved - (reserved or 0.0))
        self.spent += taken


def took(reply: Reply, bound: float | None) -> float:
    """The most that a reply took in US dollars: its own cost (its upper bound where that is unknown), and the bound
    once more for each attempt that was possibly paid.
    """
    most = bound or 0.0
    cost = reply.usage.cost
    if cost is None:
        cost = 0.0 if reply.error is not None else most
    return cost + reply.possibly_paid * most


@contextmanager
def losing(told: Callable[[int], None]) -> Iterator[None]:
    """Calls begun in here tell ``told`` of attempts that were possibly paid before they are made again, and not
    only at their end: the process may die before that, or the budget not allow it (``told`` then raises).
    """
    token = _LOST.set(told)
    try:
        yield
    finally:
        _LOST.reset(token)


def lose(attempts: int) -> None:
    """Tell whoever keeps the accounts of this call that so many attempts were possibly paid and are made again."""
    told = _LOST.get()
    if told is not None:
        told(attempts)
