"""May it ship? The last decision on the run, the reasons that matter, what would change it, and the pairs to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from judge.advice import parted
from judge.decision import Decision, Ruling, Word
from judge.errors import InputError
from judge.register import Entry
from judge.render.words import Unit, markdown, number, prose, span

from .. import listing
from ..place import Place, command, link, tile
from ..views import figures

__all__ = ["show"]

_SAYS = {
    Word.SHIP: "Every rule of the policy passed.",
    Word.HOLD: "Nothing is shown to be worse than allowed, but something is open.",
    Word.BLOCK: "It is shown to be worse than the policy allows.",
}
_STANDS = {Word.SHIP: "–", Word.HOLD: "holds", Word.BLOCK: "blocks"}
_UNITS: dict[str, Unit] = {"share": "share", "points": "points", "signed": "signed", "ln": "ln"}
_REASONS, _NEEDS, _IDS = 2, 5, 50
_NAMED = 10
"""Judged pairs from which on a category is worth naming: of one pair the interval is everything there is."""


def show(place: Place) -> None:
    """The page."""
    run = place.run
    assert run is not None
    found = [entry for entry in place.entries("decision") if entry.subject == run.run_id]
    if not found:
        st.title("No decision yet")
        if "probe" in run.header:
            st.markdown(
                "This run probes the judge with tricks; it judges no candidate, and no gate is held against it."
            )
            st.link_button("What the tricks buy", link("hacking", run=run.run_id))
        else:
            st.markdown("No gate was held against this run. What stands below is what the judge says, and no decision.")
            command(f"judge gate {run.run_id}")
            if place.is_aside(run):
                st.caption(
                    "This run judges labelled pairs again, to compare judges or rubrics; the gate is held against the "
                    "run of the candidate."
                )
        _judge_says(place)
        return
    names = {f"{entry.id} · {entry.at[:16].replace('T', ' ')}": entry for entry in found}
    entry = found[0]
    if len(names) > 1:
        entry = names[st.selectbox("Decision", list(names), key="decision", bind="query-params", width=320)]
    try:
        decision = Decision.from_dict(entry.body)
    except InputError as error:
        st.title("No decision that can be read")
        st.error(f"{markdown(entry.id)}: {markdown(str(error))}")
    else:
        _decision(place, entry, decision)
    _judge_says(place)


def _decision(place: Place, entry: Entry, decision: Decision) -> None:
    word = decision.word
    st.title(str(word.value))
    headline = decision.headline.removeprefix(f"{word.value}. ") or _SAYS[word]
    st.markdown(prose(headline))
    who = f"{decision.candidate} against {decision.baseline}" if decision.candidate else ""
    told = (who, f"policy {decision.policy}", entry.at[:16].replace("T", " "), f"by {entry.by}" if entry.by else "")
    st.caption(markdown(" · ".join(part for part in told if part)))
    for reason in decision.void:
        st.error(f"The run gives no verdict: {markdown(reason)}")
    for override in [e for e in place.entries("override") if e.subject in (entry.subject, entry.id)]:
        second = str(override.body.get("second") or "")
        st.warning(
            f"**Overridden** by {markdown(override.by)}"
            + (f", agreed by {markdown(second)}" if second else "")
            + f", {override.at[:16].replace('T', ' ')}: "
            + markdown(str(override.body.get("reason", "no reason given")))
        )
    against = decision.standing_in_the_way
    if against:
        st.subheader("Why", anchor=False)
    for ruling in against[:_REASONS]:
        _reason(place, ruling)
    if len(against) > _REASONS:
        st.caption(f"{len(against) - _REASONS} more rules stand in the way; they are in the table of every rule below.")
    if decision.needs:
        st.subheader("What would change it", anchor=False)
        _needs(decision.needs[:_NEEDS])
        rest = decision.needs[_NEEDS:]
        if rest:
            with st.expander(f"{len(rest)} more"):
                _needs(rest)
    if decision.rulings:
        st.subheader("Every rule", anchor=False)
        _rules(place, entry, decision)


def _needs(needs: Sequence[str]) -> None:
    """What would change a decision, one below the other."""
    with st.container(gap="xsmall"):
        for need in needs:
            _change("- ", need)


def _change(before: str, need: str, say: Callable[[str], object] = st.markdown) -> None:
    """A need in words; a command in it stands by itself, as it is to be typed: in Markdown its URLs would be links."""
    for piece, typed in parted(need):
        if typed:
            command(piece)
        else:
            say(before + prose(piece))
            before = ""


def _reason(place: Place, ruling: Ruling) -> None:
    """One rule that stands in the way, with its pairs."""
    assert place.run is not None
    with st.container(border=True):
        st.markdown(f"**{_STANDS[ruling.effect]}** · **{markdown(ruling.rule)}**: {prose(ruling.says)}")
        if ruling.change:
            _change("What would change it: ", ruling.change, st.caption)
        if ruling.pairs:
            many = len(ruling.pairs)
            st.link_button(
                f"The {many} pairs behind it" if many > 1 else "The pair behind it", _pairs(place, ruling.pairs)
            )


def _pairs(place: Place, ids: Sequence[str]) -> str:
    assert place.run is not None
    return link("pairs", run=place.run.run_id, ids=",".join(ids[:_IDS]))


def _rules(place: Place, entry: Entry, decision: Decision) -> None:
    """The rules in the order of how much they stand in the way; the finding is in words, the interval in its unit."""
    in_the_way = decision.standing_in_the_way
    rows = []
    for ruling in [*in_the_way, *(r for r in decision.rulings if r not in in_the_way)]:
        unit = _UNITS.get(ruling.unit, "plain")
        seen = ruling.observed
        rows.append(
            {
                "result": ruling.result.value + (f",\n{stands}" if (stands := _STANDS[ruling.effect]) != "–" else ""),
                "rule": ruling.rule,
                "observed": "–" if seen is None else f"{number(seen.value, unit)} {span(seen, unit)}",
                "limit": "–" if ruling.limit is None else f"{ruling.side} {number(ruling.limit, unit)}",
                "n": None if seen is None else seen.n,
                "axis": ruling.axis,
                "says": ruling.says,
                "read": ("pairs", _pairs(place, ruling.pairs)) if ruling.pairs else None,
            }
        )
    listing.show(rows, alt="Every rule of the policy", key=f"rules-{entry.id}")


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
    cost = figures.whole_cost(cell, place.views.canaries(run), run)
    tiles = [
        ("Net win rate", number(net.value, "points"), f"{span(net, 'points')} {figures.verdict(net)}, n {net.n:,}"),
        (
            "Right by labels",
            f"{right.value:.0%}" if right else "unknown",
            f"[{right.low:.0%}, {right.high:.0%}], n {right.n:,}" if right else "no label: judge label",
        ),
        (
            "Length ratio",
            f"{length.value:.2f}" if length else "–",
            "candidate over baseline, characters, geometric mean",
        ),
        ("Flips on swap", f"{flips.value:.1%}" if flips else "–", "of verdicts, by order"),
        ("No verdict", f"{invalid.value:.1%}" if invalid else "–", f"of {invalid.n:,} pairs" if invalid else ""),
        ("Cost", "unknown" if cost is None else f"${cost:.2f}", "of the judge's calls, canary pairs included"),
    ]
    for start in (0, 3):  # two full rows at every width; below each other on a phone
        for column, one in zip(st.columns(3), tiles[start : start + 3], strict=True):
            with column:
                tile(*one)
    notice = run.header.get("judge_notice")
    if notice:
        st.warning(markdown(str(notice)))
    told = _categories(place.segments("category"))
    if told:
        st.markdown(told)
    with st.container(horizontal=True):
        st.link_button("All segments", link("segments", run=run.run_id))
        st.link_button("Pairs that it lost", link("pairs", run=run.run_id, outcome="loss"))
        st.link_button("How far the judge can be believed", link("calibration", run=run.run_id))


def _categories(rows: Sequence[Mapping[str, Any]]) -> str:
    """The categories that are shown to be worse, or the lowest of those with enough pairs to be named."""
    judged = [row for row in rows if row["net"] is not None]
    worse = [row for row in judged if row["verdict"] == "worse"]
    named = worse[:3] or [row for row in judged if row["judged"] >= _NAMED][:1]
    shown = "; ".join(
        f"**{markdown(row['segment'] or '(none)')}** {100 * row['net']:+.0f} pp "
        f"[{100 * row['net_low']:+.0f}, {100 * row['net_high']:+.0f}], n {row['judged']:,}"
        for row in named
    )
    if worse:
        rest = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        return f"Worse in the categories {shown}{rest}." if len(worse) > 1 else f"Worse in the category {shown}."
    if not judged or (len(judged) == 1 and not judged[0]["segment"]):
        return ""
    if not named:
        return f"No category is shown to be worse; each has fewer than {_NAMED} judged pairs."
    return f"No category is shown to be worse; the lowest is {shown} (widened to hold for all categories at once)."
