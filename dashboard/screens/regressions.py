"""What got worse: hard checks that the candidate fails and the baseline passed, check by check, down to the answers."""

from __future__ import annotations

import polars
import streamlit as st

from judge.render.words import markdown, safe
from judge.store import CheckRun

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
    if not found:
        empty(
            "No hard checks were run on these answers.",
            "A suite checks every answer of both sides: JSON, tools, citations, refusals, budgets.",
            f"judge check {run.run_id}",
        )
    _losing(place)


def _checks(place: Place, done: CheckRun) -> None:
    """What one pass of a suite found: the checks that break most first."""
    assert place.run is not None
    results = sorted(done.report.get("results", ()), key=lambda r: (-r["broken"], -r["candidate_failed"], r["check"]))
    rows = []
    for result in results:
        ids = broken(place, done, result["check"]) if result["broken"] else []
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
    st.subheader(markdown(done.suite), anchor=False)
    st.markdown(
        f"**{total} newly broken** over {len(results)} checks on {done.pairs:,} pairs: the candidate fails where the "
        "baseline does not."
    )
    table(rows, alt=f"Hard checks of {done.suite}", config={"read": st.column_config.LinkColumn(display_text="pairs")})
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
                        "net": row["net"],
                        "low": row["net_low"],
                        "high": row["net_high"],
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
    percent = st.column_config.NumberColumn(format="percent")
    table(
        sorted(rows, key=lambda row: row["net"]),
        alt="Losing segments",
        config={
            **dict.fromkeys(("net", "low", "high"), percent),
            "pairs": st.column_config.LinkColumn(display_text="lost pairs"),
        },
    )
