"""Findings of hard checks on the run that is looked at: what the newest pass of each suite says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from judge.store import CheckRun, Findings

from .place import Place

if TYPE_CHECKING:
    import polars

    from judge.types import Finding

__all__ = ["broken", "failed_pairs", "of_pair", "passes"]


def passes(place: Place) -> list[CheckRun]:
    """The newest pass of each suite over the run; none where no check was made."""
    assert place.run is not None
    found: dict[str, CheckRun] = {}
    for done in _passes(place.views.store.home.as_posix(), place.run.run_id, place.views.version()):
        found.setdefault(done.suite, done)
    return list(found.values())


def of_pair(place: Place, pair_id: str) -> list[Finding]:
    """What failed or could not be made on one pair."""
    home = place.views.store.home
    return [finding for done in passes(place) for finding in Findings(home).of_pair(pair_id, check_id=done.check_id)]


def failed_pairs(place: Place) -> set[str]:
    """The pairs on which an answer fails a check."""
    import polars

    return {
        name
        for done in passes(place)
        for name in _frame(place, done).filter(~polars.col("passed"))["pair_id"].to_list()
    }


def broken(place: Place, done: CheckRun, check: str, *, most: int = 50) -> list[str]:
    """Pairs on which the candidate fails a check and the baseline does not."""
    import polars

    failed = _frame(place, done).filter((polars.col("check") == check) & ~polars.col("passed"))
    sides = {side: failed.filter(polars.col("side") == side)["pair_id"].to_list() for side in ("candidate", "baseline")}
    also = set(sides["baseline"])
    return [name for name in sides["candidate"] if name not in also][:most]


def _frame(place: Place, done: CheckRun) -> polars.DataFrame:
    return _kept(place.views.store.home.as_posix(), done.check_id, place.views.version())


@st.cache_resource(max_entries=16, show_spinner=False)
def _passes(home: str, run_id: str, version: tuple[int, ...]) -> list[CheckRun]:
    return Findings(Path(home)).runs(run_id)


@st.cache_resource(max_entries=8, show_spinner=False)
def _kept(home: str, check_id: str, version: tuple[int, ...]) -> polars.DataFrame:
    return Findings(Path(home)).frame(check_id).select("pair_id", "side", "check", "passed")
