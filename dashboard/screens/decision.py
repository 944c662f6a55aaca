"""May it ship? The last decision on the run, the reasons that matter, what would change it, and the pairs to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from judge.register import Entry
from judge.render.words import markdown, safe

from ..place import Place, command, link, table
from ..views import figures

__all__ = ["show"]

_SAYS = {
    "SHIP": "Every rule of the policy passed.",
    "HOLD": "Nothing is shown to be worse than allowed, but something is open.",
    "BLOCK": "It is shown to be worse than the policy allows.",
}


def show(place: Place) -> None:
    """The page."""
    run = place.run
    assert run is not None
    found = [entry for entry in place.entries("decision") if entry.subject == run.run_id]
    if not found:
        st.title("No decision yet")
        st.markdown("No gate was held against this run. What stands below is what the judge says, and no decision.")
        command(f"judge gate {run.run_id}")
        _judge_says(place)
        return
    names = {f"{entry.id} · {entry.at[:16].replace('T', ' ')}": entry for entry in found}
    entry = found[0]
    if len(names) > 1:
        entry = names[st.selectbox("Decision", list(names), key="decision", bind="query-params", width=320)]
    _decision(place, entry)
    _judge_says(place)


def _decision(place: Place, entry: Entry) -> None:
    body = entry.body
    word = str(body.get("word") or body.get("says") or "unknown")
    st.title(word)
    st.markdown(markdown(str(body.get("headline") or _SAYS.get(word, ""))))
    who = " against ".join(safe(str(body[side])) for side in ("candidate", "baseline") if body.get(side))
    st.caption(
        markdown(
            f"{who} · policy {body.get('policy', '?')} · {entry.at[:16].replace('T', ' ')}"
            + (f" · by {entry.by}" if entry.by else "")
        )
    )
    for reason in body.get("void") or ():
        st.error(f"The run gives no verdict: {markdown(str(reason))}")
    rulings = [ruling for ruling in body.get("rulings") or () if isinstance(ruling, Mapping)]
    order = {"BLOCK": 0, "HOLD": 1}
    against = sorted((r for r in rulings if r.get("effect") in order), key=lambda r: order[str(r["effect"])])
    if against:
        st.subheader("Why", anchor=False)
    for ruling in against[:2]:
        _reason(place, ruling)
    needs = [str(need) for need in body.get("needs") or ()]
    if needs:
        st.subheader("What would change it", anchor=False)
        st.markdown("\n".join(f"- {markdown(need)}" for need in needs[:5]))
    for override in [e for e in place.entries("override") if e.subject in (entry.subject, entry.id)]:
        st.warning(
            f"Overridden by {markdown(override.by)} on {override.at[:16]}: "
            f"{markdown(str(override.body.get('reason', 'no reason given')))}"
        )
    if rulings:
        st.subheader("Every rule", anchor=False)
        _rules(place, rulings)


def _reason(place: Place, ruling: Mapping[str, Any]) -> None:
    """One rule that stands in the way, with its pairs."""
    assert place.run is not None
    with st.container(border=True):
        st.markdown(
            f"**{markdown(str(ruling.get('effect')))}** · "
            f"{markdown(str(ruling.get('rule', '')))}: {markdown(str(ruling.get('says', '')))}"
        )
        if ruling.get("change"):
            st.caption("What would change it: " + markdown(str(ruling["change"])))
        ids = [str(name) for name in ruling.get("pairs") or ()]
        if ids:
            st.link_button(
                f"The pairs behind it ({len(ids)})", link("pairs", run=place.run.run_id, ids=",".join(ids[:50]))
            )


def _rules(place: Place, rulings: Sequence[Mapping[str, Any]]) -> None:
    assert place.run is not None
    rows = []
    for ruling in rulings:
        observed = ruling.get("observed")
        observed = observed if isinstance(observed, Mapping) else {}
        ids = [str(name) for name in ruling.get("pairs") or ()]
        rows.append(
            {
                "result": safe(str(ruling.get("result", "?"))),
                "effect": safe(str(ruling.get("effect", "?"))),
                "rule": safe(str(ruling.get("rule", ""))),
                "axis": safe(str(ruling.get("axis", ""))),
                "observed": observed.get("value"),
                "low": observed.get("low"),
                "high": observed.get("high"),
                "n": observed.get("n"),
                "must be": safe(str(ruling.get("side") or "")),
                "limit": ruling.get("limit"),
                "says": safe(str(ruling.get("says", "")))[:300],
                "pairs": link("pairs", run=place.run.run_id, ids=",".join(ids[:50])) if ids else None,
            }
        )
    three = st.column_config.NumberColumn(format="%.3f")
    table(
        rows,
        alt="Every rule of the policy",
        config={
            **dict.fromkeys(("observed", "low", "high", "limit"), three),
            "pairs": st.column_config.LinkColumn(display_text="pairs"),
        },
    )


def _judge_says(place: Place) -> None:
    """The headline of the run on the judge's own scale, with its worst and best segments."""
    run = place.run
    assert run is not None
    cell = figures.by_cell(place.views.cells(run.run_id), "value").get(("",), {})
    net = figures.estimate(cell, "net")
    st.subheader("What the judge says", anchor=False)
    if net is None:
        st.info(
            "No comparison of this run has a verdict."
            + ("" if run.sealed else f" It is not finished: judge resume {run.run_id}")
        )
        return
    flips, invalid, length, right = (figures.estimate(cell, name) for name in ("flip", "invalid", "length", "right"))
    with st.grid(columns="auto", min_column_width=190):
        for title, value, note in (
            (
                "Net win rate",
                f"{net.value:+.1%}",
                f"[{net.low:+.1%}, {net.high:+.1%}] {figures.verdict(net)}, n {net.n:,}",
            ),
            ("Flips on swap", f"{flips.value:.1%}" if flips else "–", "verdicts that differ between the orders"),
            ("No verdict", f"{invalid.value:.1%}" if invalid else "–", f"of {invalid.n:,} pairs" if invalid else ""),
            ("Length ratio", f"{length.value:.2f}" if length else "–", "candidate over baseline"),
            (
                "Right by the labels",
                f"{right.value:.0%}" if right else "unknown",
                f"[{right.low:.0%}, {right.high:.0%}], n {right.n:,}" if right else "no label: judge label",
            ),
        ):
            st.metric(title, value, note, delta_color="off", delta_arrow="off", border=True, height="stretch")
    notice = run.header.get("judge_notice")
    if notice:
        st.warning(markdown(str(notice)))
    rows = [row for row in place.segments("category") if row["net"] is not None]
    worse = [row for row in rows if row["verdict"] == "worse"]
    if rows:
        told = worse[:3] or rows[:1]
        words = "Worse in: " if worse else "No segment is shown to be worse; the lowest is "
        st.markdown(
            words
            + "; ".join(
                (
                    f"**{markdown(row['segment'] or '(none)')}** {row['net']:+.0%} "
                    f"[{row['net_low']:+.0%}, {row['net_high']:+.0%}]"
                )
                for row in told
            )
            + "."
        )
    with st.container(horizontal=True):
        st.link_button("All segments", link("segments", run=run.run_id))
        st.link_button("Pairs that it lost", link("pairs", run=run.run_id, outcome="loss"))
        st.link_button("How far the judge can be believed", link("calibration", run=run.run_id))
