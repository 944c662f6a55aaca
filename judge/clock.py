"""The one clock: every record says when it was made with the same words.

Milliseconds, because a record's time also orders it: two runs begun within one second are still "the latest" and the
one before.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["days_since", "stamp"]


def stamp(now: datetime | None = None) -> str:
    """A moment (by default this one) as ISO 8601 in UTC with milliseconds; stamps sort as text.

    >>> stamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000+00:00'
    """
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds")


def days_since(when: str, now: datetime) -> float:
    """The days from a stamp to ``now``; NaN for a text that is no stamp of a known zone.

    >>> days_since("2026-01-02T00:00:00+00:00", datetime(2026, 1, 3, 12, tzinfo=UTC))
    1.5
    """
    try:
        return (now - datetime.fromisoformat(when)).total_seconds() / 86400
    except (ValueError, TypeError):
        return math.nan
