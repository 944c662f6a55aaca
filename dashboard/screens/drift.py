"""Has something moved: over runs, within one run, and was it the judge or what it judges?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import polars
import streamlit as st

from calibration.drift import anchors, cusum
from judge.render.words import markdown, safe
from judge.store import RunInfo

from ..place import Place, chart, downloads, empty, link, table, two_runs
from ..views import charts, figures, tables

__all__ = ["show"]

_MEASURES = {
    "net": ("Net win rate", "+.0%"),
    "length": ("Length ratio: characters, candidate over baseline, geometric mean", ".2f"),
    "candidate_length": ("Length of the candidate's answers: characters, mean", ",.0f"),
    "confidence": ("Confidence of the judge", ".2f"),
    "tie": ("Ties", ".0%"),
    "flip": ("Verdicts that differ between the orders", ".0%"),
    "invalid": ("Invalid comparisons", ".1%"),
    "refusal": ("Refusals of the judge", ".1%"),
    "first": ("Decisive verdicts for the answer shown first", ".0%"),
    "right": ("Agreement with the labels of the eval set", ".0%"),
}
_RUN_LENGTH = 1000.0
_FEW = 10
"""Rows under which a run is no point of a curve: its interval fills the picture."""


def show(place: Place) -> None:
    """The page."""
    st.title("Drift")
    # Labelled pairs that were judged again are here: the same answers by another judge are what anchors are for.
    runs = [run for run in reversed(place.views.runs()) if "probe" not in run.header]
    if not runs:
        empty("No run in this home folder.", "Drift is seen over runs, and within one.", "judge demo")
        return
    names = list(_MEASURES)
    measure = st.selectbox(
        "Measure", names, key="measure", bind="query-params", format_func=lambda name: _MEASURES[name][0], width=380
    )
    _over_runs(place, runs, measure)
    if place.run is not None:
        _within(place, place.run, measure)
    _judge_moved(place, runs)


def _over_runs(place: Place, runs: Sequence[RunInfo], measure: str) -> None:
    title, fmt = _MEASURES[measure]
    st.subheader("Over runs", anchor=False)
    same = st.toggle("only runs of the same eval set as the chosen run", value=True, key="same", bind="query-params")
    kept = list(runs)
    if same and place.run is not None:
        chosen = place.run
        kept = [run for run in kept if place.same_pairs(run, chosen)]
    others = len(runs) - len(kept)
    by_id = {run.run_id: run for run in kept}
    found = figures.run_rows(place.views.overview(), list(by_id), measure)
    rows = [
        {**row, "at": by_id[row["run"]].created_at[:16], "series": tables.series(by_id[row["run"]].header)}
        for row in found
        if row["n"] >= _FEW
    ]
    left_out = [
        f"{others} of other eval sets" if others else "",
        f"{len(found) - len(rows)} with fewer than {_FEW} rows" if len(found) > len(rows) else "",
        f"{len(kept) - len(found)} without this measure" if len(kept) > len(found) else "",
        f"{len(rows) - 60} older ones" if len(rows) > 60 else "",
    ]
    told = "; ".join(part for part in left_out if part)
    if not rows:
        st.info("No run to show" + (f": left out are {told}." if told else " has this measure."))
        return
    shown = rows[-60:]
    alt = f"{title} over {len(shown)} runs with 95% intervals"
    chart(
        charts.over_runs(shown, place.ink, title=title, fmt=fmt, marks=_changes([by_id[row["run"]] for row in shown])),
        place.ink,
        key=f"runs-{measure}",
        alt=alt,
    )
    st.caption(
        "Intervals are 95%, clustered by prompt. A line joins runs of the same pairs, rubric and judge. Dashed lines: "
        "the rubric or the judge changed there, so what follows is measured with another ruler."
        + (f" Left out: {told}." if told else "")
    )
    downloads(polars.DataFrame(rows), f"drift-{measure}")


def _changes(runs: Sequence[RunInfo]) -> list[dict[str, str]]:
    """Runs that have another rubric or judge than the one before."""
    marks = []
    for before, after in pairwise(runs):
        what = [
            word
            for word, changed in (
                ("rubric", before.header["rubric_digest"] != after.header["rubric_digest"]),
                ("judge", before.judge != after.judge),
            )
            if changed
        ]
        if what:
            marks.append({"run": after.run_id, "what": " and ".join(what) + " changed"})
    return marks


def _within(place: Place, run: RunInfo, measure: str) -> None:
    """The control chart of one run."""
    title, fmt = _MEASURES[measure]
    st.subheader(f"Within {run.run_id}", anchor=False)
    cells = place.views.cells(run.run_id, "sequence")
    rows = figures.stretch_rows(cells, measure)
    if not rows:
        count = int(cells.filter(polars.col("measure") == measure)["n"].sum())
        st.info(
            f"Too few to chart: {count:,} rows of this run have the measure, and a chart takes "
            f"{figures.FEWEST * figures.STRETCH} ({figures.FEWEST} stretches of {figures.STRETCH})."
        )
        return
    outside = [row["stretch"] for row in rows if row["state"] == "outside"]
    alarm = _alarm(rows)
    chart(
        charts.control(rows, place.ink, title=title, fmt=fmt, alarm=alarm),
        place.ink,
        key=f"control-{measure}",
        alt=f"Control chart of {title} over {len(rows)} stretches; {len(outside)} outside the limits",
    )
    expected = 0.0027 * len(rows)
    said = (
        f"{len(outside)} of {len(rows)} stretches lie outside"
        if outside
        else f"None of the {len(rows)} stretches lies outside"
    )
    st.markdown(
        f"{said} the 3-sigma limits; {expected:.2f} would by chance. "
        + (f"The CUSUM alarms at **stretch {alarm}**." if alarm else "The CUSUM does not alarm.")
        + (
            f" It watches for a lasting change of half a standard deviation and alarms by chance "
            f"once in {_RUN_LENGTH:,.0f} stretches."
        )
    )
    st.caption(
        f"A stretch holds {min(row['n'] for row in rows):,} rows or more. Limits end at what the measure can be; those "
        "of a rare event are rough, for its mean is not normal."
    )


def _alarm(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The first stretch at which a CUSUM passes its limit, in units of each stretch's own standard error."""
    scores = [row["score"] for row in rows]
    if not any(scores):
        return None
    found = cusum(scores, centre=0.0, sd=1.0, shift=0.5, limit=_limit())
    return rows[found.alarm_at - 1]["stretch"] if found.alarm_at is not None else None


@st.cache_data(show_spinner=False)
def _limit() -> float:
    from calibration.drift import cusum_limit

    return cusum_limit(_RUN_LENGTH, k=0.25)


def _judge_moved(place: Place, runs: Sequence[RunInfo]) -> None:
    """The very same answers judged twice: what moved there is the judge, not the candidate."""
    st.subheader("Did the judge move?", anchor=False)
    st.caption(
        "The same answers judged in two runs are anchors: a difference there is the judge's "
        "(or the rubric's), and is taken off a change of the candidate."
    )
    by_id = {run.run_id: run for run in reversed(runs)}
    names = list(by_id)
    if len(names) < 2:
        empty(
            "One run only.",
            "Judge the same eval set again, later or under another rubric, and compare.",
            "judge run EVALSET --no-reuse",
        )
        return
    with st.container(horizontal=True):
        before, after = two_runs(place, by_id, place.same_pairs)
    if before is None:
        st.caption(f"No earlier sealed run judged the pairs of {after}. Choose a run that shares some of its answers.")
        return
    if before == after:
        st.caption("Choose two runs.")
        return
    heads = {run.run_id: run.header for run in runs}
    differing = [
        row
        for row in tables.header_diff(heads[before], heads[after])
        if row["field"] in ("judge.name", "judge.revision", "judge.decoding", "rubric", "template")
    ]
    frame = place.views.rejudged(before, after)
    if frame.is_empty():
        st.info(
            "The two runs share no pair with the same answers: nothing tells the judge's drift from the candidate's."
        )
        return
    _anchors(frame, differing)
    _changed(place, frame, before, after)


def _two_rulers(differing: Sequence[Mapping[str, str]]) -> str:
    """That two runs were measured with different rulers, in words; empty where judge and rubric are one."""
    fields = {row["field"]: row for row in differing}
    words = [
        f"two different {what}s ({markdown(row['first'])} and {markdown(row['second'])})"
        for name, what in (("judge.name", "judge"), ("rubric", "rubric"))
        if (row := fields.get(name)) is not None
    ]
    return f"These are {' and '.join(words)}" if words else ""


def _anchors(frame: polars.DataFrame, differing: Sequence[Mapping[str, str]]) -> None:
    known = frame.filter(polars.col("old_preference").is_not_null() & polars.col("new_preference").is_not_null())
    moved = anchors(
        frame["old_preference"].to_numpy().astype(float),
        frame["new_preference"].to_numpy().astype(float),
        clusters=frame["prompt"].to_list(),
    )
    if moved is None:
        st.info(f"{frame.height} shared pairs, none with a verdict in both runs.")
        return
    shift = moved.shift
    differs = f"{shift.value:+.3f} [{shift.low:+.3f}, {shift.high:+.3f}], p {moved.p_value:.3f}"
    flips = f"{moved.flips.value:.1%} [{moved.flips.low:.1%}, {moved.flips.high:.1%}]"
    two = _two_rulers(differing)
    if two:
        st.markdown(
            f"**{two}**: what differs between them is no drift. On {known.height:,} shared pairs their mean preference "
            f"differs by {differs}; they prefer another side on {flips}."
        )
    else:
        word = "**has moved**" if moved.p_value < 0.05 else "is not shown to have moved"
        st.markdown(
            f"On {known.height:,} shared pairs the judge's mean preference {word}: {differs}; the preferred side "
            f"changed on {flips}."
        )
    if moved.identical:
        st.markdown("Every preference is the very same: it was taken from the cache, or the judge is deterministic.")
    if differing:
        st.warning(
            "Changed between the two: "
            + "; ".join(
                markdown(f"{row['field']}: {row['first'][:60]} → {row['second'][:60]}") for row in differing[:4]
            )
        )


def _changed(place: Place, frame: polars.DataFrame, before: str, after: str) -> None:
    """The verdicts that changed, as a table of counts and as a list."""
    said = frame.with_columns(polars.col("old", "new").fill_null("invalid"))
    counts = said.group_by("old", "new").len().sort("old", "new")
    rows = [{"row": old, "column": new, "n": n} for old, new, n in counts.iter_rows()]
    chart(
        charts.confusion(rows, place.ink, x_title=f"in {after}", y_title=f"in {before}"),
        place.ink,
        key=f"moved-{before}-{after}",
        alt=f"Verdicts of {before} against {after}: "
        + "; ".join(f"{row['row']} to {row['column']} {row['n']}" for row in rows),
    )
    changed = said.filter(polars.col("old") != polars.col("new"))
    if changed.is_empty():
        st.markdown("No verdict changed.")
        return
    st.markdown(f"**{changed.height:,} changed verdicts**" + (", the first 200:" if changed.height > 200 else ":"))
    shown = changed.head(200)
    ids = shown["pair_id"].to_list()
    table(
        shown.select(
            polars.Series("before ", [link("pairs", run=before, pair=name) for name in ids]),
            polars.Series("after ", [link("pairs", run=after, pair=name) for name in ids]),
            polars.col("pair_id").map_elements(safe, return_dtype=polars.String).alias("pair"),
            "category",
            "old",
            "new",
            "old_preference",
            "new_preference",
            "label",
        ),
        alt="Changed verdicts",
        config={
            "before ": st.column_config.LinkColumn("open", display_text="before", width="small"),
            "after ": st.column_config.LinkColumn("open", display_text="after", width="small"),
            "old": st.column_config.TextColumn("outcome before"),
            "new": st.column_config.TextColumn("outcome after"),
            "old_preference": st.column_config.NumberColumn("preference before", format="%.2f"),
            "new_preference": st.column_config.NumberColumn("preference after", format="%.2f"),
        },
    )
    downloads(changed, f"changed-{before}-{after}")
