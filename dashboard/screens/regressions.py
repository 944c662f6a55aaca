"""What got worse: hard checks that the candidate fails and the baseline passed, check by check, down to the answers."""

from __future__ import annotations

from dataclasses import replace

import polars
import streamlit as st

from judge.render.words import markdown, safe
from judge.store import CheckRun, RunInfo

from ..findings import broken, passes
from ..place import Place, downloads, empty, link, table

__all__ = ["show"]


def show(place: Place) -> None:
    """The page."""
    st.title("Regressions")
    run = place.run
    assert run is not None
    found = passes(place)
    for done in found:
        _checks(place, done)
    origin = None if found else _origin(place)
    if origin is not None:
        st.markdown(
            f"These answers were checked as those of run {markdown(origin.run_id)}, which this run judges again."
        )
        st.link_button(f"The checks of {origin.run_id}", link("regressions", run=origin.run_id))
    elif not found:
        empty(
            "No hard checks were run on these answers.",
            "A suite checks every answer of both sides: JSON, tools, citations, refusals, budgets.",
            f"judge check {run.run_id}",
        )
    _losing(place)


def _origin(place: Place) -> RunInfo | None:
    """The newest run with checks whose very answers a run of labelled pairs judges again."""
    run = place.run
    if run is None or not place.is_aside(run):
        return None
    checked = (one for one in place.judging if passes(replace(place, run=one)))
    return next((one for one in checked if place.same_pairs(one, run)), None)


def _checks(place: Place, done: CheckRun) -> None:
    """What one pass of a suite found: the checks that break most first."""
    assert place.run is not None
    results = sorted(done.report.get("results", ()), key=lambda r: (-r["broken"], -r["candidate_failed"], r["check"]))
    rows, idle = [], []
    for result in results:
        ids = broken(place, done, result["check"]) if result["broken"] else []
        asked = result["n"] + result["candidate_unjudged"] + result["baseline_unjudged"]
        if not asked:
            idle.append(result["check"])
            continue
        rows.append(
            {
                "check": safe(result["check"]),
                "severity": safe(result["severity"]),
                "axis": safe(result["axis"]),
                "pairs": result["n"],
                "candidate fails": result["candidate_failed"],
                "baseline fails": result["baseline_failed"],
                "newly broken": result["broken"],
                "mended": result["fixed"],
                "could not be made": result["candidate_unjudged"],
                "read": link("pairs", run=place.run.run_id, ids=",".join(ids)) if ids else None,
            }
        )
    total = sum(int(result["broken"]) for result in results)
    st.subheader(f"Hard checks: {markdown(done.suite)}", anchor=False)
    st.markdown(
        f"**{total} newly broken** over {len(rows)} checks on {done.pairs:,} pairs: the candidate fails where the "
        "baseline does not."
    )
    if idle:
        st.caption("Asked of no answer here: " + markdown(", ".join(idle)) + ".")
    if not rows:
        return
    table(
        rows,
        alt=f"Hard checks of {done.suite}",
        height="content" if len(rows) <= 30 else "auto",
        config={"read": st.column_config.LinkColumn(display_text="pairs", width="small")},
    )
    downloads(polars.DataFrame(rows, infer_schema_length=None), f"checks-{done.check_id}")


def _losing(place: Place) -> None:
    """The segments that the judge finds worse, over every column at once."""
    run = place.run
    assert run is not None
    st.subheader("Segments that the judge finds worse", anchor=False)
    rows = []
    for facet, _many in place.views.facets(run.run_id):
        if facet in ("label", "confidence", "consistent", "length"):
            continue
        for row in place.segments(facet):
            if row["verdict"] == "worse":
                rows.append(
                    {
                        "column": safe(facet),
                        "segment": safe(row["segment"]),
                        "net": 100 * row["net"],
                        "low": 100 * row["net_low"],
                        "high": 100 * row["net_high"],
                        "n": row["judged"],
                        "pairs": link("pairs", run=run.run_id, field=facet, value=row["segment"], outcome="loss"),
                    }
                )
    if not rows:
        st.markdown(
            "None is shown to be worse (interval of the net win rate below zero, widened for the "
            "number of segments of its column)."
        )
        return
    points = st.column_config.NumberColumn(format="%+.1f")
    table(
        sorted(rows, key=lambda row: row["net"]),
        alt="Losing segments",
        config={
            "net": st.column_config.NumberColumn("net, pp", format="%+.1f"),
            **dict.fromkeys(("low", "high"), points),
            "pairs": st.column_config.LinkColumn(display_text="lost pairs"),
        },
    )
