"""Does the candidate win by being better, or by what a judge likes? Measures of both sides, and what a trick buys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from judge.register import Entry
from judge.render.words import markdown, safe

from ..place import Place, chart, empty, link, table
from ..views import charts

__all__ = ["show"]

_KINDS = ("hack", "hacking", "probe", "probes")


def show(place: Place) -> None:
    """The page."""
    st.title("Hacking")
    run = place.run
    assert run is not None
    found = [entry for entry in place.entries(*_KINDS) if entry.subject == run.run_id]
    if not found:
        empty(
            "No hacking report was made for this run.",
            (
                "It measures length, hedging, refusals, boilerplate, citations and Markdown on both "
                "sides, and what each trick buys from the judge."
            ),
            f"judge hack {run.run_id}",
        )
    for entry in found:
        _report(place, entry)
    _length(place)


def _report(place: Place, entry: Entry) -> None:
    assert place.run is not None
    body = _body(place, entry)
    if body is None:
        st.error("The stored report is gone or was changed; make it again: judge hack " + markdown(entry.subject))
        return
    measures = body.get("measures") or ()
    if isinstance(measures, Mapping):
        measures = [{"name": name, **value} for name, value in measures.items() if isinstance(value, Mapping)]
    st.subheader(f"{markdown(entry.kind)} of {entry.at[:16].replace('T', ' ')}", anchor=False)
    for line in body.get("says") or ():
        st.markdown(f"- {markdown(str(line))}")
    rows = []
    for measure in measures:
        ids = [str(name) for name in measure.get("examples") or ()]
        difference = _part(measure, "difference")
        rows.append(
            {
                "measure": safe(str(measure.get("name", "?"))),
                "unit": safe(str(measure.get("unit", ""))),
                "candidate": _part(measure, "candidate").get("value"),
                "baseline": _part(measure, "baseline").get("value"),
                "difference": difference.get("value"),
                "low": difference.get("low"),
                "high": difference.get("high"),
                "missing": safe(str(measure.get("missing", ""))),
                "read": link("pairs", run=place.run.run_id, ids=",".join(ids[:50])) if ids else None,
            }
        )
    if rows:
        three = st.column_config.NumberColumn(format="%.3f")
        table(
            rows,
            alt="Measures of both sides",
            config={
                **dict.fromkeys(("candidate", "baseline", "difference", "low", "high"), three),
                "read": st.column_config.LinkColumn(display_text="pairs"),
            },
        )


def _body(place: Place, entry: Entry) -> Mapping[str, Any] | None:
    """What a report says: the entry itself, or the file that it names by digest; ``None`` where that does not fit."""
    name = entry.body.get("file")
    if not name:
        return entry.body
    path = (place.home / str(name)).resolve()
    if not path.is_relative_to(place.home.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.body.get("digest"):
        return None
    found = json.loads(data)
    return found if isinstance(found, Mapping) else None


def _part(measure: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = measure.get(name)
    return part if isinstance(part, Mapping) else {}


def _length(place: Place) -> None:
    """The first thing that a judge is fooled by needs no report: who wins at which difference of length."""
    run = place.run
    assert run is not None
    st.subheader("Does the longer answer win?", anchor=False)
    order = ["under half", "shorter", "about equal", "longer", "over double"]
    rows = {row["segment"]: row for row in place.segments("length")}
    shown = [rows[name] for name in order if name in rows and rows[name]["net"] is not None]
    if not shown:
        st.info("No comparison of this run has a verdict.")
        return
    points = [
        {
            "segment": row["segment"],
            "kind": "judge",
            "value": row["net"],
            "low": row["net_low"],
            "high": row["net_high"],
            "verdict": row["verdict"],
            "n": row["judged"],
        }
        for row in shown
    ]
    chosen = chart(
        charts.forest(points, place.ink, title="Net win rate of the candidate"),
        key="by-length",
        pick=True,
        alt="Net win rate by the candidate's length against the baseline's",
    )
    st.caption(
        "Rows: the candidate's answer against the baseline's, in characters. A slope says "
        "that length and winning go together, not that one makes the other: the page "
        "Segments shows the rate at equal length."
    )
    value = str(chosen["segment"]) if chosen else shown[-1]["segment"]
    st.link_button(f"Pairs: {value}", link("pairs", run=run.run_id, field="length", value=value))
    bins = place.views.histogram(run.run_id, "length")
    made = [
        {"low": -3 + row["bin"] / 4, "high": -3 + (row["bin"] + 1) / 4, "n": row["n"]}
        for row in bins.iter_rows(named=True)
    ]
    chart(
        charts.histogram(made, place.ink, title="Length ratio, log2 (0 equal, 1 double)"),
        key="lengths",
        alt="Histogram of the length ratio",
    )
