"""Stamps order records that were made within one second."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

from judge.clock import days_since, stamp


def test_stamps_sort_as_text_in_the_order_of_their_moments() -> None:
    """A millisecond apart, across a second's edge, and beside stamps of whole seconds that older runs carry."""
    start = datetime(2026, 1, 2, 3, 4, 58, 999_000, tzinfo=UTC)
    stamps = [stamp(start + timedelta(milliseconds=step)) for step in range(3)]
    assert stamps == sorted(set(stamps))
    assert "2026-01-02T03:04:58+00:00" < stamps[0] < "2026-01-02T03:05:00+00:00"


def test_a_stamp_is_in_utc_whatever_the_zone_of_its_moment() -> None:
    """Times of two machines compare."""
    there = datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert stamp(there) == "2026-01-02T03:04:05.000+00:00"


def test_an_age_is_known_only_of_a_stamp_with_its_zone() -> None:
    """A stamp has an age in days; an empty text, another text and a time without its zone have none."""
    now = datetime(2026, 1, 3, 12, tzinfo=UTC)
    assert days_since("2026-01-02T00:00:00+00:00", now) == 1.5
    assert all(math.isnan(days_since(text, now)) for text in ("", "yesterday", "2026-01-02T00:00:00"))
