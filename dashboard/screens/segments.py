"""Where the candidate is better, where it is worse, and where nothing can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from judge.render.words import markdown, number, span

from ..evidence import corrected_segments
from ..place import Place, chart, downloads, link, table
from ..views import charts, figures

__all__ = ["show"]

_TWO = "two columns crossed"


def show(place: Place) -> None:
    """The page."""
    st.title("Segments")
    run = place.run
    assert run is not None
    facets = dict(place.views.facets(run.run_id))
    if not facets:
        st.info("This run has no comparison yet, or was brought in by an older version; `judge report` adds it up.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by = st.selectbox("Cut by", list(facets), key="by", bind="query-params", width=220)
        crossings = [
            other if name == by else name for name, other in place.views.crossings(run.run_id) if by in (name, other)
        ]
        across = st.selectbox("and by", ["–", *crossings], key="across", bind="query-params", width=220)
    _headline(place)
    if across != "–":
        _two_way(place, by, across)
    else:
        _one_way(place, by)


def _headline(place: Place) -> None:
    """The whole run in one line, so that no segment is read without it."""
    assert place.run is not None
    cells = figures.by_cell(place.views.cells(place.run.run_id), "value")
    whole = cells.get(("",), {})
    net, invalid = figures.estimate(whole, "net"), whole.get("invalid")
    if net is None:
        st.warning("No comparison of this run has a verdict.")
        return
    word = figures.verdict(net)
    st.markdown(
        f"All {net.n:,} judged pairs: **{number(net.value, 'points')}** {span(net, 'points')}, **{word}**"
        + (f"; {round(invalid.total):,} pairs have no verdict" if invalid and invalid.total else "")
        + ". On the judge's own scale, clustered by prompt, 95%."
    )


def _one_way(place: Place, by: str) -> None:
    run = place.run
    assert run is not None
    rows = place.segments(by)
    shown = [row for row in rows if row["net"] is not None]
    points = [
        {"segment": row["segment"] or "(none)", "kind": "judge", "value": row["net"], "low": row["net_low"],
         "high": row["net_high"], "verdict": row["verdict"], "n": row["judged"]}
        for row in shown
    ]  # fmt: skip
    extra, notes = (
        corrected_segments(place, by)
        if st.toggle("Beside it: corrected by labels, and at equal length", key="corrected", bind="query-params")
        else ([], [])
    )
    st.subheader("Net win rate by " + markdown(by), anchor=False)
    st.caption(
        "Wins minus losses. The intervals are widened so that all segments hold at once at 95% (Bonferroni), and the "
        "word goes by them. Click a segment for its pairs."
    )
    chosen = chart(
        charts.forest([*_beside(points, extra)], place.ink, pick=True), place.ink, key=f"forest-{by}", pick=True,
        alt=f"Forest plot of the net win rate by {by}: " + "; ".join(
            f"{row['segment']} {100 * row['net']:+.0f} pp {row['verdict']}" for row in shown[:12]),
    )  # fmt: skip
    for note in notes:
        st.caption(markdown(note))
    if chosen:
        name = "" if chosen["segment"] == "(none)" else str(chosen["segment"])
        st.link_button(
            f"Pairs of {name or '(none)'}", link("pairs", run=run.run_id, field=by, value=name), type="primary"
        )
    st.subheader("Wins, ties and losses", anchor=False)
    parts = [{**row, "segment": row["segment"] or "(none)"} for row in shown]
    chart(charts.bars(parts, place.ink), place.ink, key=f"bars-{by}", alt=f"Shares of wins, ties and losses by {by}")
    _figures(place, by, rows)


def _beside(points: Sequence[Mapping[str, Any]], extra: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Corrected points after those of the judge, for the segments that have one."""
    known = {point["segment"] for point in points}
    return [*points, *(row for row in extra if row["segment"] in known)]


def _figures(place: Place, by: str, rows: Sequence[Mapping[str, Any]]) -> None:
    assert place.run is not None
    run_id = place.run.run_id
    shown = [
        {
            **{name: row[name] for name in ("segment", "n", "judged", "invalid", "verdict")},
            **{name: _hundred(row[name]) for name in ("net", "net_low", "net_high", "win", "tie", "loss", "flip")},
            "length ratio": row["length"],
            "rows": link("pairs", run=run_id, field=by, value=row["segment"]),
        }
        for row in rows
    ]
    percent = st.column_config.NumberColumn(format="%.1f", width=54)
    low, high = (st.column_config.NumberColumn(end, format="%+.1f", width=62) for end in ("low", "high"))
    table(
        shown, alt=f"Figures by {by}",
        config={
            "segment": st.column_config.TextColumn(width=108),
            "n": st.column_config.NumberColumn(width=42),
            **dict.fromkeys(("judged", "invalid"), st.column_config.NumberColumn(width=62)),
            "verdict": st.column_config.TextColumn(width=68),
            **dict.fromkeys(("win", "tie", "loss"), percent),
            "net": st.column_config.NumberColumn("net, pp", format="%+.1f", width=70),
            "net_low": low,
            "net_high": high,
            "flip": st.column_config.NumberColumn("flips", format="%.1f", width=55, help="Flips on swap, in percent"),
            "length ratio": st.column_config.NumberColumn(
                "length", format="%.2f", width=60,
                help="Length ratio: characters, candidate over baseline; geometric mean over pairs",
            ),
            "rows": st.column_config.LinkColumn("read", display_text="pairs", width=55),
        },
    )  # fmt: skip
    downloads(rows, f"segments-{run_id}")


def _two_way(place: Place, by: str, across: str) -> None:
    run = place.run
    assert run is not None
    frame = place.views.cells(run.run_id, by, across)
    if frame.is_empty():  # the store keeps each pair of columns once
        frame = place.views.cells(run.run_id, across, by).rename({"value": "other", "other": "value"})
    rows = figures.heat_rows(frame)
    st.subheader(f"Net win rate by {markdown(by)} and {markdown(across)}", anchor=False)
    st.caption(
        "A cell with fewer than 10 judged pairs shows its n and no rate; the intervals are widened for the number of "
        "the others. Click a cell for its pairs."
    )
    chosen = chart(
        charts.heat(rows, place.ink), place.ink, key=f"heat-{by}-{across}", pick=True,
        alt=f"Two-way table of the net win rate by {by} and {across}",
    )  # fmt: skip
    if chosen:
        st.link_button(
            f"Pairs of {chosen['row']} and {chosen['column']}",
            link("pairs", run=run.run_id, field=by, value=chosen["row"], across=across, other=chosen["column"]),
            type="primary",
        )
    shown = [
        {
            **row,
            **{name: _hundred(row[name]) for name in ("net", "net_low", "net_high")},
            "rows": link("pairs", run=run.run_id, field=by, value=row["row"], across=across, other=row["column"]),
        }
        for row in rows
    ]
    table(shown, alt="The same as a table", config={
        "net": st.column_config.NumberColumn("net, pp", format="%+.1f"),
        "net_low": st.column_config.NumberColumn("low", format="%+.1f"),
        "net_high": st.column_config.NumberColumn("high", format="%+.1f"),
        "rows": st.column_config.LinkColumn(display_text="pairs"),
    })  # fmt: skip
    downloads(rows, f"segments-{run.run_id}-{by}-{across}")


def _hundred(share: float | None) -> float | None:
    return None if share is None else 100 * share
