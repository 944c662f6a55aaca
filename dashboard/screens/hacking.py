"""Does the candidate win by being better, or by what a judge likes? Measures of both sides, and what a trick buys."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from judge.grounding.report import BY_WORDS
from judge.kept import probes_judge_of
from judge.register import Entry
from judge.render.words import LENGTHS, ends, markdown, number, p_value, safe, unit_of

from .. import answers, listing
from ..place import Place, chart, empty, link, table
from ..views import charts, texts

__all__ = ["show"]

_TITLES = {
    "hack": "What the candidate does more of",
    "probe": "What tricks buy from this judge",
    "ground": "What the answers say without a source",
}
_Q = 0.05


def show(place: Place) -> None:
    """The page."""
    st.title("Hacking")
    run = place.run
    assert run is not None
    probe = "probe" in run.header
    own = [entry for entry in place.entries("hack", "ground") if entry.subject == run.run_id]
    # A probe is of the judge, not of the run: it speaks for every run of that judge under that rubric.
    probes = [entry for entry in place.entries("probe") if entry.subject == run.run_id or probes_judge_of(entry, run)]
    shown = [*_newest(own, lambda entry: entry.kind), *_newest(probes, lambda entry: str(entry.body.get("kind")))]
    if not probe and not any(entry.kind == "hack" for entry in own):
        empty(
            "No hacking report was made for this run.",
            "It measures length, hedging, refusals, boilerplate, citations and Markdown on both sides.",
            f"judge hack {run.run_id}",
        )
    for entry in shown:
        _report(place, entry)
    if not probes:
        empty(
            "This judge was not probed under this rubric.",
            "Tricks are appended to the baseline's own answers; the shift is what each buys. No labels are needed.",
            f"judge probe EVALSET --rubric {run.rubric}",
        )
    if not probe:
        _length(place)


def _newest(entries: Iterable[Entry], key: Any) -> list[Entry]:
    """The newest entry of each kind (entries come newest first)."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(key(entry), entry)
    return list(found.values())


def _report(place: Place, entry: Entry) -> None:
    st.subheader(_TITLES[entry.kind], anchor=False)
    body = _body(place, entry)
    if body is None:
        st.error(f"The stored report is gone or was changed; make it again: judge {entry.kind}")
        return
    said = body.get("headline") or body.get("verdict") or entry.body.get("says") or ""
    st.markdown(f"**{markdown(str(said))}**")
    if entry.kind == "ground" and BY_WORDS not in str(said):  # a report of an older version
        st.caption(BY_WORDS)
    told = (f"{entry.subject}", str(entry.body.get("judge") or entry.body.get("coefficients") or ""))
    st.caption(markdown(" · ".join(part for part in (*told, entry.at[:16].replace("T", " ")) if part)))
    rows = body.get("probes") or body.get("attacks") or ()
    if entry.kind == "probe":
        _probes(entry, rows, body)
    else:
        _measures(entry, body)
    if body.get("explained"):
        _explained(body["explained"])
    _samples(entry.subject, body.get("rows") or ())
    notes = [str(note) for note in body.get("notes") or ()]
    if notes:
        with st.expander("Where this report can mislead"):
            st.markdown("\n".join(f"- {markdown(note)}" for note in notes))


def _measures(entry: Entry, body: Mapping[str, Any]) -> None:
    """Both sides of every measure that has a number, what moved first; what has none is named with the reason."""
    tested = {row["measure"]["name"]: row for row in body.get("rows") or ()}
    rows, without = [], []
    for measure in body.get("measures") or ():
        name = str(measure.get("name", "?"))
        row = tested.get(name, {})
        title = str(row.get("title") or name)
        ids = [str(pair) for pair in measure.get("examples") or ()]
        gap = _part(measure, "difference")
        if gap.get("value") is None:
            # Rates with a feature held equal stand in a table of their own, below.
            if row or not tested:
                without.append(f"{title} ({measure.get('missing') or 'no number'})")
            continue
        if tested and not row and not any(_part(measure, side).get("value") for side in ("candidate", "baseline")):
            continue  # a flag of the screen that no answer has
        unit, q = str(measure.get("unit", "")), row.get("q")
        rows.append(
            {
                "measure": title,
                "unit": "share" if unit.startswith("share") else unit,
                "candidate": _side(measure, "candidate", unit),
                "baseline": _side(measure, "baseline", unit),
                "difference": " ".join(_gap(measure, unit)),
                "n": gap.get("n"),
                **({"q": p_value(q) + (", moved" if _moved(q) else "") if row else "–"} if tested else {}),
                "read": ("pairs", link("pairs", run=entry.subject, ids=",".join(ids[:50]))) if ids else None,
            }
        )
    order = sorted(range(len(rows)), key=lambda at: not str(rows[at].get("q")).endswith("moved"))
    listing.show([rows[at] for at in order], alt="Measures of both sides", key=f"measures-{entry.id}")
    if tested:
        st.caption(
            "Difference: candidate minus baseline with its 95% interval; of lengths by how many percent a candidate's "
            "answer is longer in the typical pair (geometric mean of the ratios), which one very long answer does not "
            "move. q: p value of no change, adjusted for all features (Benjamini-Hochberg); moved at 0.05 or less. "
            "Sides are means over answers. A dash in place of q: what the screen flags, which is not tested."
        )
    if without:
        with st.expander(f"Without a number: {len(without)}"):
            st.markdown("\n".join(f"- {markdown(line)}" for line in without))


def _moved(q: object) -> bool:
    return isinstance(q, int | float) and q <= _Q


def _side(measure: Mapping[str, Any], side: str, unit: str) -> str:
    """One side of a measure, written as in the terminal."""
    value = _part(measure, side).get("value")
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,.0f}" if unit in LENGTHS else number(value, unit_of(str(measure.get("name", "")), unit, side))


def _gap(measure: Mapping[str, Any], unit: str) -> tuple[str, str]:
    """The difference and its interval, written as in the terminal."""
    gap, how = _part(measure, "difference"), unit_of(str(measure.get("name", "")), unit, "difference")
    # JSON has no infinity: an open end was written as null.
    low, high = (end if gap.get(name) is None else gap[name] for name, end in (("low", -math.inf), ("high", math.inf)))
    return number(gap["value"], how), ends(low, high, how)


def _probes(entry: Entry, found: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> None:
    """What each trick or attack buys, in points; the most bought first."""
    if body.get("kind") != "probes":
        _measures(entry, body)
        return
    rows = []
    for row in found:
        shift, wins = _part(row, "shift"), _part(row, "wins")
        ids = [str(pair) for pair in row.get("examples") or ()]
        q = row.get("q")  # 0.0 where it is below all that can be written
        sure = q is not None and q <= _Q and (shift.get("low") or 0.0) > 0
        rows.append(
            {
                "trick": safe(str(row.get("name", "?")).replace("_", " ")),
                "shift, pp": _hundred(shift.get("value")),
                "low": _hundred(shift.get("low")),
                "high": _hundred(shift.get("high")),
                "buys": "yes" if sure else "not shown",
                "wins, %": _hundred(wins.get("value")),
                "q": p_value(q),
                "n": row.get("n"),
                "invalid": row.get("invalid"),
                "read": link("pairs", run=entry.subject, ids=",".join(ids[:50])) if ids else None,
            }
        )
    signed = st.column_config.NumberColumn(format="%+.1f")
    table(
        sorted(rows, key=lambda row: -(row["shift, pp"] if row["shift, pp"] is not None else -1e9)),
        alt="What each trick buys",
        height="content",
        config={
            **dict.fromkeys(("shift, pp", "low", "high"), signed),
            "wins, %": st.column_config.NumberColumn(format="%.1f"),
            "read": st.column_config.LinkColumn(display_text="pairs", width="small"),
        },
    )
    st.caption(
        "Shift: mean preference for the answer with the trick over the same one without, minus one half; below zero it "
        "costs."
    )


def _explained(found: Sequence[Mapping[str, Any]]) -> None:
    """Each feature that could explain the win: the rate as judged, and with the feature held equal."""
    rows = []
    for feature in found:
        control = _part(feature, "control")
        raw, held = _part(control, "raw"), _part(control, "controlled")
        rows.append(
            {
                "feature": safe(str(feature.get("feature", "?")).replace("_", " ")),
                "found": safe(str(feature.get("word", "?"))),
                "win rate, %": _hundred(raw.get("value")),
                "at equal feature, %": _hundred(held.get("value")),
                "low": _hundred(held.get("low")),
                "high": _hundred(held.get("high")),
                "n": control.get("n"),
            }
        )
    one = st.column_config.NumberColumn(format="%.1f")
    with st.expander("Is the win explained by one of them?"):
        table(
            rows,
            alt="Win rate with each feature controlled",
            height="content",
            config=dict.fromkeys(("win rate, %", "at equal feature, %", "low", "high"), one),
        )


def _samples(run_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Pairs to read beside what moved: both answers, with their values."""
    for count, row in enumerate(rows):
        samples = [sample for sample in row.get("samples") or () if isinstance(sample, Mapping)]
        if not samples:
            continue
        with st.expander(f"Read: {markdown(str(row.get('title', '?')))} ({len(samples)} pairs)"):
            for at, sample in enumerate(samples):
                answers.show(
                    [
                        answers.Side(
                            title,
                            texts.raw(str(sample.get(side) or "")),
                            f"{row.get('title')}: {_value(sample.get(f'{side}_value'))}",
                        )
                        for title, side in (("Candidate", "candidate"), ("Baseline", "baseline"))
                    ],
                    key=f"sample-{run_id}-{count}-{at}",
                    height=260,
                )
                pair = str(sample.get("pair_id", ""))
                st.link_button(f"The whole pair {safe(pair)[:60]}", link("pairs", run=run_id, pair=pair))


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _hundred(value: Any) -> float | None:
    return 100.0 * value if isinstance(value, int | float) else None


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
        charts.forest(points, place.ink, pick=True),
        place.ink,
        key="by-length",
        pick=True,
        alt="Net win rate by the candidate's length against the baseline's",
    )
    st.caption(
        "Rows: the candidate's answer against the baseline's, in characters; the intervals are widened so that all "
        "rows hold at once at 95%, and the word goes by them. A slope says "
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
        charts.histogram(
            made, place.ink, title="Length ratio in characters, log2 (0 equal, 1 double)", ticks=range(-3, 4)
        ),
        place.ink,
        key="lengths",
        alt="Histogram of the length ratio",
    )
