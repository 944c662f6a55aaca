"""The one clock: every record says when it was made with the same words.

Milliseconds, because a record's time also orders it: two runs begun within one second are still "the latest" and the
one before.
"""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["stamp"]


def stamp(now: datetime | None = None) -> str:
    """A moment (by default this one) as ISO 8601 in UTC with milliseconds; stamps sort as text.

    >>> stamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000+00:00'
    """
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")
