"""Candidates and where they are served: lineage, decisions, the stage of each rollout, and the log of every step."""

from __future__ import annotations

import streamlit as st

from judge.register import Entry
from judge.render.words import markdown, safe

from ..place import Place, command, empty, link, table

__all__ = ["show"]

_LOGGED = ("candidate", "decision", "override", "rollout")


def show(place: Place) -> None:
    """The page."""
    st.title("Candidates and rollout")
    entries = place.entries(*_LOGGED)
    if not entries:
        empty(
            "Nothing is registered in this home folder.",
            "A candidate is registered when it is tuned, decided on by the gate, and served by a rollout.",
            "judge gate RUN\njudge rollout start CANDIDATE",
        )
        return
    _lineage([entry for entry in entries if entry.kind == "candidate"])
    _stages([entry for entry in entries if entry.kind == "rollout"])
    st.subheader("Log", anchor=False)
    st.caption("Append-only, each entry chained to the one before by its digest; the newest first.")
    rows = [
        {
            "when": entry.at[:19].replace("T", " "),
            "what": entry.kind,
            "about": safe(entry.subject),
            "by": safe(entry.by),
            "says": safe(_says(entry))[:200],
            "open": link("decision", run=entry.subject) if entry.kind == "decision" else None,
            "id": entry.id,
        }
        for entry in entries[:500]
    ]
    table(rows, alt="The register", config={"open": st.column_config.LinkColumn(display_text="open")})
    if len(entries) > 500:
        st.caption(f"{len(entries) - 500} older entries are in register.jsonl.")


def _lineage(found: list[Entry]) -> None:
    st.subheader("Candidates", anchor=False)
    if not found:
        st.markdown("No candidate was tuned here.")
        command("judge tune train --help")
        return
    rows = [
        {
            "candidate": safe(str(entry.body.get("name") or entry.body.get("id") or entry.subject)),
            "made": entry.at[:16].replace("T", " "),
            "base": safe(str(entry.body.get("base", ""))),
            "parent": safe(str(entry.body.get("parent") or "–")),
            "rubric": safe(str(entry.body.get("rubric", ""))),
            **{
                name: safe(str(entry.body[name]))[:12] for name in ("adapter", "recipe", "data") if entry.body.get(name)
            },
        }
        for entry in found
    ]
    table(rows, alt="Candidates, newest first")


def _stages(found: list[Entry]) -> None:
    st.subheader("Rollouts", anchor=False)
    if not found:
        st.markdown("Nothing is being rolled out.")
        return
    latest: dict[str, Entry] = {}
    for entry in found:
        latest.setdefault(entry.subject, entry)
    rows = [
        {
            "candidate": safe(name),
            "stage": safe(str(entry.body.get("stage") or entry.body.get("to") or "?")),
            "last step": safe(str(entry.body.get("event") or entry.body.get("what") or entry.body.get("kind") or "")),
            "since": entry.at[:16].replace("T", " "),
            "by": safe(entry.by),
            "why": safe(str(entry.body.get("reason") or ""))[:200],
        }
        for name, entry in latest.items()
    ]
    table(rows, alt="Where each rollout stands")
    for name in latest:
        command(f"judge rollout status {name}")


def _says(entry: Entry) -> str:
    body = entry.body
    for name in ("word", "says", "stage", "event", "reason", "name"):
        if body.get(name):
            more = body.get("headline") or body.get("reason") or ""
            return markdown(str(body[name])) + (f": {more}" if more and more != body[name] else "")
    return ""
