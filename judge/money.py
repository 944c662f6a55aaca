"""What judging costs: an upper bound before a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .types import Ask

__all__ = ["FREE", "Priced", "Quote"]


@dataclass(frozen=True, slots=True)
class Quote:
    """The most that one ask can take: tokens in and out, and US dollars (``None`` where the price is unknown)."""

    prompt_tokens: int
    completion_tokens: int
    cost: float | None


FREE = Quote(0, 0, 0.0)
"""What an ask of a judge without a price takes: nothing is paid for it."""


@runtime_checkable
class Priced(Protocol):
    """A backend whose calls cost money; one that is not ``Priced`` is free."""

    def quote(self, ask: Ask) -> Quote:
        """The upper bound of one ask, retries not counted."""
        ...
