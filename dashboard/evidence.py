"""What takes more than sums: a run against labels, and at equal length. Kept until something changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from judge.errors import InputError

from .place import Place

if TYPE_CHECKING:
    from calibration.evidence import Evidence
    from calibration.gold import GoldSet
    from calibration.report import CalibrationReport
    from calibration.winrate import Judged

__all__ = ["LARGEST", "OWN", "calibration_of", "corrected_segments", "gold_of", "gold_sources"]

LARGEST = 20_000
"""Pairs of a run up to which labels and length are worked out on the page; above it the command line does it."""
OWN = "labels of the eval set"
_ROUNDS = 200


def gold_sources(place: Place) -> list[str]:
    """What the run can be held against: its own labels first, then the label files of the home folder."""
    run = place.run
    assert run is not None
    values = place.views.cells(run.run_id, "label")
    own = [OWN] if any(value != "(none)" for value in values["value"].unique().to_list()) else []
    return own + [path.name for path in place.labels]


def gold_of(place: Place, source: str) -> GoldSet:
    """The labels of one source."""
    from calibration.gold import GoldSet
    from judge.evidence import labels_of

    assert place.run is not None
    if source == OWN:
        return labels_of(place.views.store, place.run)
    return GoldSet.read(place.home / "labels" / source)


def calibration_of(place: Place, source: str) -> CalibrationReport:
    """The calibration report of the run against one source; raises ``InputError`` for a run that is too large."""
    run = place.run
    assert run is not None
    pairs = place.views.count(run.run_id)
    if pairs > LARGEST:
        how = "" if source == OWN else f" --gold {place.home / 'labels' / source}"
        raise InputError(
            f"{pairs:,} pairs are more than a page works out ({LARGEST:,}); run: judge calibrate {run.run_id}{how}"
        )
    return _report(place, (*_key(place), source, _stamp(place, source)))


def corrected_segments(place: Place, by: str) -> tuple[list[dict[str, Any]], list[str]]:
    """By segment, the net win rate corrected by labels and at equal answer length, and notes on what is missing.

    Both are on the scale of the net win rate: 2 (win + tie/2) - 1.
    """
    run = place.run
    assert run is not None
    pairs = place.views.count(run.run_id)
    if pairs > LARGEST:
        return [], [
            (
                f"Labels and length are worked out here up to {LARGEST:,} pairs; this run has "
                f"{pairs:,}: use `judge calibrate {run.run_id}`."
            )
        ]
    sources = gold_sources(place)
    source = (
        sources[0]
        if len(sources) == 1
        else st.selectbox("Labels", sources, key="gold", bind="query-params")
        if sources
        else ""
    )
    return _segments(place, (*_key(place), by, source, _stamp(place, source)))


def _key(place: Place) -> tuple[Any, ...]:
    assert place.run is not None
    return (str(place.home), place.run.run_id, place.views.version())


def _stamp(place: Place, source: str) -> tuple[int, int]:
    path = place.home / "labels" / source
    if not source or source == OWN or not path.exists():
        return (0, 0)
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns)


@st.cache_resource(max_entries=8, show_spinner="Measuring the judge against the labels")
def _report(_place: Place, key: tuple[Any, ...]) -> CalibrationReport:
    from calibration.report import calibration_report

    gold = gold_of(_place, key[-2])
    return calibration_report(_evidence(_place, key[:3], gold), gold, rounds=_ROUNDS)


def _evidence(place: Place, key: tuple[Any, ...], gold: GoldSet | None = None) -> Evidence:
    from judge.evidence import run_evidence

    assert place.run is not None
    texts = [item.pair_id for item in gold.items] if gold is not None else []
    return run_evidence(place.views.store, place.run, read_texts_of=texts)


@st.cache_resource(max_entries=16, show_spinner="Working out labels and length")
def _segments(_place: Place, key: tuple[Any, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    by, source = key[3], key[4]
    evidence = _evidence(_place, key[:3])
    name = _naming(_place, by)
    rows, notes = _at_equal_length(evidence, name)
    if not source:
        return rows, [*notes, "No labels speak for this run yet: `judge label`, or the page Label, makes them."]
    from calibration.provenance import Refused
    from calibration.winrate import segment_win_rates

    found = segment_win_rates(evidence.run, gold_of(_place, source), by=name)
    if isinstance(found, Refused):
        return rows, [*notes, f"No corrected rate: {found.reason}; {found.fix}."]
    corrected = [_row(part.name, "by labels", part.shrunk, part.labels) for part in found if part.shrunk is not None]
    notes.append("Corrected rates are pulled towards their common mean as far as their noise demands; n counts labels.")
    return [*corrected, *rows], notes


def _naming(place: Place, by: str) -> Callable[[Judged], str]:
    """What a row's segment is called."""
    if by == "category":
        return lambda row: row.category or "(none)"
    assert place.run is not None
    import json

    frame = place.views.store.comparisons(place.run.run_id)
    if by in ("label", "consistent", "confidence", "length"):
        raise InputError(f"{by} is made from the judgement itself; correct by a column of the items")
    names = {
        pair: str(json.loads(data).get(by, "")) or "(none)"
        for pair, data in frame.select("pair_id", "metadata").iter_rows()
    }
    return lambda row: names[row.pair_id]


def _at_equal_length(evidence: Evidence, name: Callable[[Judged], str]) -> tuple[list[dict[str, Any]], list[str]]:
    import numpy as np

    from calibration.length import controlled, length_feature, reaches_equality

    rows = evidence.run.rows
    feature = length_feature([row.candidate_length or 0 for row in rows], [row.baseline_length or 0 for row in rows])
    where = np.array([name(row) for row in rows])
    preferences = np.asarray(evidence.preferences, dtype=float)
    prompts = np.array(evidence.run.prompts)
    made, thin = [], 0
    for segment in sorted(set(where.tolist())):
        inside = where == segment
        known = inside & np.isfinite(preferences)
        if len(set(prompts[known])) < 10 or not reaches_equality(feature[known]):
            thin += 1
            continue
        found = controlled(preferences[inside], feature[inside], clusters=prompts[inside].tolist(), rounds=_ROUNDS)
        if found is not None:
            made.append(_row(segment, "equal length", found.controlled, found.n))
    notes = (
        [f"{thin} segments have fewer than 10 prompts, or hardly a pair of like length: no rate at equal length."]
        if thin
        else []
    )
    return made, notes


def _row(segment: str, kind: str, found: Any, n: int) -> dict[str, Any]:
    low, high = 2 * found.low - 1, 2 * found.high - 1
    word = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return {
        "segment": segment,
        "kind": kind,
        "value": 2 * found.value - 1,
        "low": low,
        "high": high,
        "verdict": word,
        "n": n,
    }
