"""Every run: what it was, what it cost, how far it is, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars
import streamlit as st

from judge.render.words import markdown, safe
from judge.store import RunInfo
from judge.tailing import Live, Tail, unfinished

from .. import listing
from ..place import Place, command, downloads, empty, explained, link, table, two_runs
from ..views import figures, tables

__all__ = ["show"]

_PAGE = 25


def show(place: Place) -> None:
    """The page."""
    st.title("Runs")
    _live(place)
    runs = place.views.runs()
    if not runs:
        empty("No run in this home folder.", "A run judges an eval set; the sample set needs no key.", "judge demo")
        return
    frame = _frame(place)
    pages = -(-frame.height // _PAGE)
    at = min(st.pagination(pages, key="at", bind="query-params"), pages) if pages > 1 else 1
    shown = frame.slice((at - 1) * _PAGE, _PAGE)
    listing.show([_line(row) for row in shown.iter_rows(named=True)], alt="Runs, newest first", key="runs")
    downloads(frame, "runs")
    st.caption(
        "A cost without a figure is a price that is not known, never zero. VOID: canary pairs failed, and no rate of "
        "the run may be used. Again: labelled pairs judged again, to compare judges. The download has every run, with "
        "its calls: made, given up, possibly paid without an answer, and how many a second."
    )
    _compare(place)
    if place.run is not None:
        with st.expander(f"Header of {place.run.run_id}"):
            rows = [{"field": name, "value": safe(value)[:500]} for name, value in tables.flat(
                {key: value for key, value in place.run.header.items() if key != "rubric_text"}).items()]  # fmt: skip
            table(rows, alt="The header of the run")


def _line(row: Mapping[str, Any]) -> listing.Row:
    """A run as it is read."""
    net, calls = row["net"], f"{row['calls']:,}"
    if row["possibly paid"] or row["given up"]:
        calls += f"\n{row['given up']:,} given up\n{row['possibly paid']:,} possibly paid"
    return {
        "run": (row["run"], link("segments", run=row["run"])),
        "created": row["created"].replace(" ", "\n"),
        "state": row["state"].replace(", ", "\n") if row["kind"] == "run" else f"{row['kind']}\n{row['state']}",
        "pairs": row["pairs"],
        "net": None if net is None else f"{net:+.1f} pp\n{row['verdict']}",
        "rubric and judge": f"{row['rubric']}\n{row['judge']}",
        "invalid": None if row["invalid"] is None else f"{row['invalid']:.1%}",
        "flips": None if row["flips"] is None else f"{row['flips']:.1%}",
        "cost": None if row["cost"] is None else f"${row['cost']:.2f}",
        "calls": calls,
    }


def _frame(place: Place) -> polars.DataFrame:
    """One row a run."""
    cells = figures.by_cell(place.views.overview(), "run_id")
    rows: list[dict[str, Any]] = []
    for run in place.views.runs():
        cell = cells.get((run.run_id,), {})
        net = figures.estimate(cell, "net")
        invalid, flips = figures.estimate(cell, "invalid"), figures.estimate(cell, "flip")
        probe = "probe" in run.header  # a probe judges no candidate: it has no net win rate
        canaries = place.views.canaries(run)
        void = run.sealed and canaries.void
        rows.append(
            {"run": run.run_id, "created": run.created_at[:16].replace("T", " "),
             "kind": "probe" if probe else "again" if place.is_aside(run) else "run",
             "state": ("VOID" if void else "sealed") if run.sealed else "not finished",
             "pairs": int(run.header["evalset"]["rows"]),
             "net": 100 * net.value if net and not probe and not void else None,
             "verdict": "–" if probe else "void" if void else figures.verdict(net),
             "rubric": safe(run.rubric), "judge": safe(run.judge),
             "invalid": invalid.value if invalid else None,
             "flips": flips.value if flips else None, "cost": figures.whole_cost(cell, canaries, run),
             "calls": run.calls, "possibly paid": run.possibly_paid, "given up": run.given_up,
             "calls a second": run.rate}
        )  # fmt: skip
    return polars.DataFrame(rows, infer_schema_length=None)


def _compare(place: Place) -> None:
    """What two runs differ in, and whether their numbers may stand side by side."""
    by_id = {run.run_id: run for run in sorted(place.views.runs(), key=place.is_aside)}
    if len(by_id) < 2:
        return
    st.subheader("Two runs", anchor=False)
    with st.container(horizontal=True):
        first, second = two_runs(place, by_id, lambda one, other: not _against(place, one, other))
    if first is None:
        st.caption(
            f"No earlier sealed run compares with {second}: none judged the same pairs in the same way. Choose one to "
            "see what differs."
        )
        return
    if first == second:
        st.caption("Choose two runs.")
        return
    heads = by_id[first].header, by_id[second].header
    why = _against(place, by_id[first], by_id[second])
    if why:
        st.warning(
            "**Not comparable.** Their numbers must not be read as one system getting better or worse: "
            + "; ".join(why)
            + "."
        )
    else:
        st.success("Same pairs, rubric and judge: what differs is what was judged, or noise.")
    rows = [{name: safe(value)[:200] for name, value in row.items()} for row in tables.header_diff(*heads)]
    if rows:
        table(rows, alt="Fields in which the two headers differ")
    else:
        st.caption("The two headers are equal.")
    st.link_button("What the judge said otherwise", link("drift", before=first, after=second))


def _against(place: Place, one: RunInfo, other: RunInfo) -> list[str]:
    """Why the numbers of two runs do not compare."""
    return tables.incomparable(one.header, other.header, same_pairs=place.same_pairs(one, other))


@st.cache_resource(max_entries=32, show_spinner=False)
def _tail(path: str, inode: int) -> Tail:
    return Tail(Path(path))


@st.fragment(run_every=2.0)
def _live(place: Place) -> None:
    """Batches that are being written now, and those that ended too early; journals alone are read."""
    for path in unfinished(place.views.store)[:5]:
        with explained(f"{path.name} cannot be read"):
            live = _tail(str(path), path.stat().st_ino).look()
            if live is not None:
                _progress(live)


def _progress(live: Live) -> None:
    share = min(1.0, live.replies / live.total) if live.total else 0.0
    words = {
        "running": "running",
        "stopped": "stopped before its end",
        "silent": f"nothing written for {live.quiet:.0f} s",
    }[live.state]
    if live.sealed:
        words = "judged; being brought into the database"
    with st.container(border=True):
        cost = f" · ${live.cost:.4f}" if live.replies and not live.unpriced else ""
        failed = f" · {live.failed:,} failed calls" if live.failed else ""
        st.progress(
            share, f"**{markdown(live.run_id)}** {words}: {live.replies:,} of {live.total:,} judge calls{failed}{cost}"
        )
        st.caption(markdown(f"{live.rubric} · {live.judge}"))
        if live.state != "running" and not live.sealed:
            command(f"judge resume {live.run_id}")
