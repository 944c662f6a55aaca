"""How far the judge can be believed: against people, their ceiling, and its own confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import streamlit as st

from judge.render import calibration as rendering
from judge.render.document import Chart
from judge.render.words import markdown

from .. import sections
from ..evidence import OWN, calibration_of, gold_sources
from ..place import Place, chart, command, empty, explained, link
from ..views import charts, figures, tables

if TYPE_CHECKING:
    from calibration.report import CalibrationReport

__all__ = ["show"]


def show(place: Place) -> None:
    """The page."""
    st.title("Calibration")
    run = place.run
    assert run is not None
    sources = gold_sources(place)
    if not sources:
        empty(
            "No labels speak for this run.",
            (
                "What a judge says is worth as much as its agreement with people. Label some pairs "
                "of the run, blind and by keyboard, on the page Label, or in the terminal:"
            ),
            f"judge label {run.run_id} --to {place.home}/labels/labels.jsonl --as YOU",
        )
        _own_confidence(place)
        return
    source = st.selectbox("Labels", sources, key="gold", bind="query-params", width=320)
    with explained("This run cannot be measured here"):
        report = calibration_of(place, str(source))
        _report(place, report, str(source))


def _report(place: Place, report: CalibrationReport, source: str) -> None:
    belief = report.belief
    run = place.run
    assert run is not None
    st.markdown(f"### {belief.word}")
    st.markdown("\n".join(f"- {markdown(sentence)}" for sentence in belief.sentences))
    rate = report.win_rate
    corrected = rate.corrected if not hasattr(rate.corrected, "reason") else None
    with st.container(horizontal=True):
        for title, found in (
            ("Win rate, as the judge says", rate.judge),
            ("Win rate, labels alone", rate.human),
            ("Win rate, corrected", corrected),
        ):
            value = "withheld" if found is None else f"{found.value:.1%}"
            detail = "" if found is None else f"[{found.low:.1%}, {found.high:.1%}], n {found.n:,}"
            st.metric(title, value, detail, delta_color="off", delta_arrow="off", border=True, height="stretch")
    if corrected is None:
        st.caption(
            f"No corrected rate: {markdown(str(getattr(rate.corrected, 'reason', '')))}; "
            f"{markdown(str(getattr(rate.corrected, 'fix', '')))}."
        )
    parts = rendering.sections(report)
    drawn = {block.name: block for part in parts for block in part.blocks if isinstance(block, Chart)}
    _draw(place, drawn["win-rate"])
    _agreement(report)
    _diagram(place, report, drawn)
    _curve(place, report, drawn)
    _confusion(place, report, source)
    st.subheader("Everything behind it", anchor=False)
    sections.draw(parts, place)
    st.caption(
        "The same figures as in the terminal, with fewer bootstrap rounds (200), so the last "
        "digit of an interval may differ:"
    )
    command(f"judge calibrate {run.run_id}" + ("" if source == OWN else f" --gold {place.home}/labels/{source}"))
    st.link_button("Another rubric or judge on the same pairs", link("drift", run=run.run_id, after=run.run_id))


def _agreement(report: CalibrationReport) -> None:
    found, ceiling = report.agreement, report.agreement.ceiling
    st.subheader("Agreement with people", anchor=False)
    lines = [
        f"- the judge with the majority: {tables.said(found.accuracy, 'share')}",
        f"- on pairs that both decide: {tables.said(found.decisive, 'share')}",
    ]
    if ceiling is not None and ceiling.human is not None:
        lines.append(
            f"- people with each other, the ceiling: {tables.said(ceiling.human, 'share')}; the "
            f"judge on the same votes: {tables.said(ceiling.judge, 'share')}"
        )
    else:
        lines.append("- people with each other: unknown, no pair has two raters; a second rater on 50 pairs would tell")
    st.markdown("\n".join(lines))


def _diagram(place: Place, report: CalibrationReport, drawn: Mapping[str, Chart]) -> None:
    st.subheader("Is its confidence the people's?", anchor=False)
    raw = report.confidence.raw
    if raw is None:
        st.info("No labelled pair has a verdict.")
        return
    _draw(place, drawn["reliability"])
    ece = raw.ece
    word = "beyond" if ece.beyond_chance else "within"
    st.caption(
        f"Calibration error {ece.error.value:.3f} [{ece.error.low:.3f}, "
        f"{ece.error.high:.3f}], {word} what chance alone shows ({ece.chance:.3f}). Band: "
        f"where 90% of perfectly calibrated judges of this size lie. Bars: how many labels stand there."
    )


def _curve(place: Place, report: CalibrationReport, drawn: Mapping[str, Chart]) -> None:
    st.subheader("What may it decide alone?", anchor=False)
    if "risk" not in drawn:
        why = getattr(report.selective.certificates, "reason", "no labelled pair was drawn at random")
        st.caption(f"No selective curve: {markdown(str(why))}.")
        return
    _draw(place, drawn["risk"])


def _draw(place: Place, block: Chart) -> None:
    """A chart of the report itself, in the colours of the reader's theme."""
    chart(charts.inked(block.spec, place.ink), place.ink, key=block.name, alt=block.title)


def _confusion(place: Place, report: CalibrationReport, source: str) -> None:
    run = place.run
    assert run is not None
    st.subheader("Where it differs", anchor=False)
    rows = [
        {"row": human.value, "column": judge.value, "n": report.agreement.confusion[k][j]}
        for k, human in enumerate(report.agreement.order)
        for j, judge in enumerate(report.agreement.order)
    ]
    chosen = chart(
        charts.confusion(rows, place.ink, x_title="the judge says", y_title="people say"),
        place.ink,
        key="confusion",
        pick=True,
        alt="Confusion of people and judge: "
        + "; ".join(f"people {r['row']}, judge {r['column']}: {r['n']}" for r in rows),
    )
    if source == OWN:
        query = (
            {"field": "label", "value": chosen["row"], "outcome": chosen["column"]} if chosen else {"against": "true"}
        )
        words = (
            f"Pairs: people {chosen['row']}, judge {chosen['column']}"
            if chosen
            else "Pairs on which it leans against the label"
        )
        st.link_button(words, link("pairs", run=run.run_id, **query))


def _own_confidence(place: Place) -> None:
    """Without labels: only how sure it says it is."""
    run = place.run
    assert run is not None
    bins = place.views.histogram(run.run_id, "confidence")
    rows = [
        {"low": 0.5 + row["bin"] / 40, "high": 0.5 + (row["bin"] + 1) / 40, "n": row["n"]}
        for row in bins.iter_rows(named=True)
    ]
    if rows:
        st.subheader("How sure it says it is", anchor=False)
        chart(
            charts.histogram(rows, place.ink, title="Confidence, the judge's own"),
            place.ink,
            key="confidence",
            alt="Histogram of the judge's own confidence",
        )
    points = figures.reliability_rows(bins)
    if points:
        st.caption(f"{sum(point['n'] for point in points):,} pairs carry a label of the eval set.")
