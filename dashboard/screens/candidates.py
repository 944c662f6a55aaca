"""Candidates and where they are served: lineage, decisions, the stage of each rollout, and the log of every step."""

from __future__ import annotations

import streamlit as st

from judge.errors import StoreError
from judge.register import Entry
from judge.render.rollout import served_text
from judge.render.words import markdown, safe
from judge.rollout import rollouts

from .. import listing
from ..place import Place, command, empty, link

__all__ = ["show"]

_LOGGED = ("candidate", "decision", "override", "rollout")
_PAGE = 25


def show(place: Place) -> None:
    """The page."""
    st.title("Candidates and rollout")
    entries = place.entries(*_LOGGED)
    if not entries:
        empty(
            "Nothing is registered in this home folder.",
            "A candidate is registered when it is tuned, decided on by the gate, and served by a rollout.",
            "judge gate RUN\njudge rollout start DECISION",
        )
        return
    _lineage([entry for entry in entries if entry.kind == "candidate"])
    _stages([entry for entry in entries if entry.kind == "rollout"])
    st.subheader("Log", anchor=False)
    st.caption("Append-only, each entry chained to the one before by its digest; the newest first.")
    pages = -(-len(entries) // _PAGE)
    at = min(st.pagination(pages, key="at", bind="query-params"), pages) if pages > 1 else 1
    rows: list[listing.Row] = [
        {
            "when": entry.at[:16].replace("T", " "),
            "what": entry.kind,
            "about": (entry.subject, link("decision", run=entry.subject))
            if entry.kind == "decision"
            else entry.subject,
            "by": _people(entry),
            "says": _says(entry),
            "id": entry.id,
        }
        for entry in entries[(at - 1) * _PAGE : at * _PAGE]
    ]
    listing.show(rows, alt="The register", key="log")


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
    listing.show(rows, alt="Candidates, newest first", key="candidates")


def _stages(found: list[Entry]) -> None:
    """Every rollout as its events leave it, the newest first."""
    st.subheader("Rollouts", anchor=False)
    if not found:
        st.markdown(
            "Nothing is being rolled out. A rollout starts from a decision that says SHIP, or from an override:"
        )
        command("judge rollout start DECISION")
        return
    try:
        made = rollouts(reversed(found))
    except (KeyError, StoreError) as error:
        st.error(f"The rollouts cannot be told from the register: {markdown(str(error))}")
        return
    rows: list[listing.Row] = [
        {
            "rollout": rollout.id,
            "stage": rollout.state,
            "who answers": safe(served_text(rollout)),
            "since": rollout.since[:16].replace("T", " "),
            "flag": safe(rollout.flag),
            "from": safe(rollout.licence),
            "run": (rollout.run, link("decision", run=rollout.run)),
            "policy": safe(rollout.policy),
        }
        for rollout in reversed(made)
    ]
    listing.show(rows, alt="Where each rollout stands", key="rollouts")
    command(
        "\n".join(f"judge rollout status {rollout.id}" for rollout in made if rollout.active) or "judge rollout log"
    )


def _people(entry: Entry) -> str:
    """Who stands behind an entry; an override takes two."""
    return " and ".join(name for name in (entry.by, str(entry.body.get("second") or "")) if name) or "–"


def _says(entry: Entry) -> str:
    """One line of the log in words."""
    body, reason = entry.body, str(entry.body.get("reason") or "")
    if entry.kind == "decision":
        return str(body.get("headline") or body.get("word") or "")
    if entry.kind == "override":
        return f"{body.get('word', '')} overridden: {reason}"
    if entry.kind == "rollout":
        return f"{body.get('event', '')} to {body.get('to', '?')}" + (f": {reason}" if reason else "")
    parent = f", from {body['parent']}" if body.get("parent") else ""
    return f"{body.get('name') or entry.subject}: {body.get('base', '')}{parent}"
