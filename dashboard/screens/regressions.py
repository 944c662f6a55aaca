"""What got worse: hard checks that the candidate fails and the baseline passed, check by check, down to the answers."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import polars
import streamlit as st

from judge.render.words import safe
from judge.types import Finding

from ..findings import findings_of
from ..place import Place, downloads, empty, link, table

__all__ = ["show"]


def show(place: Place) -> None:
    """The page."""
    st.title("Regressions")
    run = place.run
    assert run is not None
    found = findings_of(place)
    if found:
        _checks(run.run_id, found)
    else:
        empty(
            "No hard checks were run on these answers.",
            "A suite checks every answer of both sides: JSON, tools, citations, refusals, budgets.",
            f"judge check {run.run_id}",
        )
    _losing(place)


def _checks(run_id: str, found: list[Finding]) -> None:
    by: dict[str, dict[str, dict[str, bool | None]]] = defaultdict(lambda: defaultdict(dict))
    severity = {finding.check: finding.severity.value for finding in found}
    for finding in found:
        by[finding.check][finding.pair_id][finding.side] = finding.passed
    rows: list[dict[str, Any]] = []
    for check, pairs in sorted(by.items()):
        broken = [
            name for name, sides in pairs.items() if sides.get("candidate") is False and sides.get("baseline") is True
        ]
        mended = sum(sides.get("candidate") is True and sides.get("baseline") is False for sides in pairs.values())
        failed = sum(sides.get("candidate") is False for sides in pairs.values())
        unmade = sum(sides.get("candidate", True) is None for sides in pairs.values())
        rows.append(
            {
                "check": safe(check),
                "severity": severity[check],
                "answers": len(pairs),
                "candidate fails": failed,
                "newly broken": len(broken),
                "mended": mended,
                "could not be made": unmade,
                "pairs": link("pairs", run=run_id, ids=",".join(broken[:50])) if broken else None,
            }
        )
    rows.sort(key=lambda row: (-int(row["newly broken"]), -int(row["candidate fails"])))
    total = sum(int(row["newly broken"]) for row in rows)
    st.markdown(
        f"**{total} answers newly broken** over {len(rows)} checks: the candidate fails where the baseline passed."
    )
    table(rows, alt="Hard checks", config={"pairs": st.column_config.LinkColumn(display_text="pairs")})
    downloads(polars.DataFrame(rows, infer_schema_length=None), f"checks-{run_id}")


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
