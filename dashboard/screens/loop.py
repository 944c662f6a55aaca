"""The loop from failures to the next candidate: how much stands at each step, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from judge.labelling import marks
from judge.labels import read_rows
from judge.render.words import markdown, safe

from ..place import Place, command, explained, link, table

__all__ = ["show"]


def show(place: Place) -> None:
    """The page."""
    st.title("Loop")
    st.markdown(
        "Failures become cases, cases are labelled, labels make pairs, pairs make a "
        "candidate, and the gate decides on it."
    )
    steps = _steps(place)
    table(
        [{key: value for key, value in step.items() if key not in ("next", "there")} for step in steps],
        alt="Steps of the loop", config={"open": st.column_config.LinkColumn(display_text="open")},
    )  # fmt: skip
    todo = next((step for step in steps if not step["there"]), None)
    if todo is not None:
        st.markdown(f"**Next: {todo['step'].lower()}.**")
        command(str(todo["next"]))
    logged = place.entries("loop", "case", "intake", "failures", "dataset")
    if logged:
        st.subheader("What the loop recorded", anchor=False)
        table(
            [{"when": e.at[:16].replace("T", " "), "what": e.kind, "about": safe(e.subject), "by": safe(e.by),
              "says": safe("; ".join(f"{k} {v}" for k, v in list(e.body.items())[:6]))[:300]} for e in logged[:200]],
            alt="Entries of the loop",
        )  # fmt: skip


def _steps(place: Place) -> list[dict[str, Any]]:
    """Each step with what stands there, counted from the files and the register."""
    labels = 0
    for path in place.labels:
        with explained(f"{path.name} cannot be read"):
            rows = read_rows(path)
            for name in {str(row["annotator"]) for row in rows}:
                held = marks([row for row in rows if row["annotator"] == name])
                labels += sum(mark.outcome is not None for mark in held.values())
    runs = place.views.runs()
    losses = _losses(place)
    counted = [
        ("Judge", f"{len(runs)} runs", bool(runs), link("runs"), "judge run EVALSET"),
        ("Find failures", losses, losses != "none", link("regressions"), "judge check RUN"),
        ("Turn failures into cases", _files(place.home, "cases"), None, None, "judge loop status"),
        ("Label", f"{labels} labels", labels > 0, link("label"), "judge label --to labels.jsonl --as YOU"),
        ("Make pairs", _files(place.home, "pairs"), None, None, "judge tune pairs --help"),
        ("Train a candidate", _registered(place, "candidate"), None, link("candidates"), "judge tune train --help"),
        ("Decide", _registered(place, "decision"), None, link("decision"), "judge gate RUN"),
        ("Roll out", _registered(place, "rollout"), None, link("candidates"), "judge rollout start CANDIDATE"),
    ]
    return [
        {
            "step": name,
            "stands at": markdown(told),
            "there": told != "none" if there is None else there,
            "open": opened,
            "next": how,
        }
        for name, told, there, opened, how in counted
    ]


def _losses(place: Place) -> str:
    runs = place.views.runs()
    if not runs:
        return "none"
    frame = place.views.cells(runs[0].run_id)
    found = frame.filter(frame["measure"] == "loss")
    lost = round(found["total"][0]) if found.height else 0
    return f"{lost:,} lost pairs in the newest run" if lost else "none"


def _files(home: Path, name: str) -> str:
    """How many files of a kind stand in the home folder, and lines in them."""
    files = sorted((home / name).glob("*.jsonl")) if (home / name).is_dir() else []
    if not files:
        return "none"
    lines = sum(path.read_bytes().count(b"\n") for path in files)
    return f"{lines} rows in {len(files)} files"


def _registered(place: Place, kind: str) -> str:
    found = place.entries(kind)
    return f"{len(found)} recorded, the last on {found[0].at[:10]}" if found else "none"
