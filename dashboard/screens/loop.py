"""The loop from traces to the next candidate: where it stands, and what comes next (as ``judge loop status``)."""

from __future__ import annotations

import streamlit as st

from judge.render.words import markdown
from judge.rounds import Loop, loop_state

from .. import listing
from ..place import Place, command, explained, link

__all__ = ["show"]

_STATES = {"done": "✓ done", "next": "→ next", "stale": "! stale", "waiting": "waiting", "skipped": "skipped"}
_PAGES = {
    "labels": "label",
    "candidate": "candidates",
    "evaluation": "runs",
    "gate": "decision",
    "rollout": "candidates",
    "failures": "regressions",
}
_KINDS = ("intake", "dataset", "candidate", "failures")


def show(place: Place) -> None:
    """The page."""
    st.title("Loop")
    st.markdown(
        "Traces are sampled and labelled, labels make pairs, pairs make a candidate, the gate decides on it, and what "
        "fails begins the next round."
    )
    labels = place.home / "labels"
    with explained("The loop cannot be read"):
        _steps(_state(place, (place.views.version(), place.marks(labels))))
    logged = place.entries(*_KINDS)
    if logged:
        st.subheader("What the loop recorded", anchor=False)
        rows = [
            {
                "when": entry.at[:16].replace("T", " "),
                "what": entry.kind,
                "about": entry.subject,
                "by": entry.by or "–",
                "says": "; ".join(f"{name} {value}" for name, value in list(entry.body.items())[:6])[:300],
            }
            for entry in logged[:50]
        ]
        listing.show(rows, alt="Entries of the loop", key="entries")


@st.cache_resource(max_entries=4, show_spinner=False)
def _state(_place: Place, key: tuple[object, ...]) -> Loop:
    return loop_state(_place.views.store, _place.home / "labels")


def _steps(state: Loop) -> None:
    """Each step with what there is, and the next command."""
    st.markdown(f"**{state.rounds} decided so far.**" if state.rounds else "**No decision yet.**")
    rows = [
        {
            "step": step.name,
            "state": _STATES[step.state],
            "there is": step.says,
            "since": step.at[:16].replace("T", " ") or "–",
            "open": ("open", link(_PAGES[step.name])) if step.name in _PAGES else None,
        }
        for step in state.steps
    ]
    listing.show(rows, alt="Steps of the loop", key="steps")
    following = state.next
    if following is None:
        st.markdown("The round is complete; the next begins with traces.")
        return
    st.markdown(f"**Next: {markdown(following.name)}**")
    command(following.command)
