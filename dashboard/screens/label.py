"""Blind labelling by keyboard: two answers without a name, a vote, the next pair.

Nothing that says who is who reaches the browser before the vote: no model name, no verdict, no order, no pair id, no
category. Which answer stands first is a coin of its own for each pair and rater, and cannot be switched off.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import streamlit as st

from calibration.gold import GoldSet
from judge.errors import InputError, StoreError
from judge.labelling import Choice, Request, agreements, begin, marks
from judge.labels import read_draw, read_rows
from judge.render.words import markdown

from .. import answers, note
from ..labelling_desk import Desk, new_draw, open_desk
from ..place import Place, command, empty, explained, link, no_other_run, table
from ..views import texts

__all__ = ["TAGS", "show"]

TAGS = ("wrong fact", "missed instruction", "incomplete", "too long", "unclear", "format", "unsafe", "unsupported")
_NAME = re.compile(r"[\w .@+-]{1,64}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_NEW = "(a new draw)"
_KINDS = {
    "random": "at random: the labels may speak for the run",
    "active": "where the judge is unsure, more often (with known chances)",
    "escalated": "all that the judge could not settle, and a random part of the rest",
    "stratified": "at random within each category",
}


def show(place: Place) -> None:
    """The page."""
    st.title("Label")
    files = {path.stem: path for path in place.labels if read_draw_quietly(path)}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Labels", [*files, _NEW], key="labels", bind="query-params", width=240)
        name = st.text_input(
            "Your name", key="as", bind="query-params", width=200, max_chars=64, placeholder="goes into every label"
        )
        again = (
            st.toggle("only pairs on which others differ", key="disputed", bind="query-params")
            if chosen != _NEW
            else False
        )
    if chosen == _NEW:
        _begin(place)
        return
    if not name or not _NAME.fullmatch(name) or name != name.strip():
        st.info("Say who labels: letters, digits, spaces and . @ + - are allowed.")
        return
    seat = (str(files[chosen]), name, bool(again))
    if st.session_state.get("seat") != seat:
        with explained("This sitting cannot begin"):
            st.session_state["desk"] = open_desk(files[chosen], name, place.views, disputed=bool(again))
            st.session_state["seat"] = seat
        if st.session_state.get("seat") != seat:
            return
    _vote(place)


def read_draw_quietly(path: Path) -> bool:
    """Whether a label file has a draw that can be read; one that cannot is left out of the choice."""
    try:
        return read_draw(path) is not None
    except InputError:
        return False


def _begin(place: Place) -> None:
    """A form that draws pairs of a run into a new label file."""
    runs = [run.run_id for run in place.judging if run.sealed]
    if not runs:
        empty("No finished run to draw from.", "Pairs to label are drawn from a run.", "judge demo")
        return
    no_other_run(place, {run.run_id: run for run in place.views.runs()})
    asked = st.query_params.get("run", "")
    if asked and asked not in runs:
        st.warning(
            f"{markdown(asked)} is not finished, or measures a judge: labels are drawn from a finished run of a "
            "candidate."
        )
    with st.form("draw", border=True):
        st.markdown(
            "**Draw pairs to label.** The draw is fixed once; its chances go into every label, "
            "so that the labels can correct a win rate."
        )
        name = st.text_input("Name of the label file", value="labels", max_chars=40)
        run = st.selectbox("Run", runs, index=runs.index(asked) if asked in runs else 0)
        how = st.selectbox("Which pairs", list(_KINDS), format_func=lambda kind: f"{kind}: {_KINDS[kind]}")
        n = st.number_input("How many", min_value=1, max_value=5000, value=100)
        seed = st.number_input("Seed", min_value=0, max_value=2**31 - 1, value=0)
        sent = st.form_submit_button("Draw", type="primary")
    if not sent:
        return
    if not _FILE.fullmatch(name):
        st.error("The name takes small letters, digits, _ and -, up to 40.")
        return
    path = place.home / "labels" / f"{name}.jsonl"
    try:
        drawn = new_draw(path, str(run), Request(str(how), int(n), int(seed)), place.views)
    except (InputError, StoreError) as error:
        st.error(markdown(str(error)))
        return
    st.success(f"{len(drawn.places)} pairs were drawn.")
    st.link_button("Begin", link("label", labels=name), type="primary")


@st.fragment
def _vote(place: Place) -> None:
    """One pair, and what each key does; reruns alone, so that a vote costs a fraction of a page."""
    desk: Desk = st.session_state["desk"]
    _buttons(desk)
    session = desk.session
    left, done = len(session.todo), session.total - len(session.todo)
    st.progress(
        done / max(session.total, 1),
        f"{done} of {session.total} done" + (f", {session.skipped} skipped" if session.skipped else ""),
    )
    trouble = st.session_state.pop("trouble", "")
    if trouble:
        st.warning(markdown(trouble) + " What stands in the file was read anew; go on here.")
    view = desk.view
    if view is None:
        _end(place, desk)
        return
    _note(desk)
    whole = (
        st.toggle("everything, as text", key=f"whole-{desk.token}")
        if max(map(len, (view.first, view.second))) > texts.CAP
        else False
    )
    answers.show(
        [answers.Side(title, _blocks(text, whole=True)) for title, text in view.sections], key="asked", height=200
    )
    if view.hidden:
        st.caption(markdown(view.hidden))
    answers.show(
        [
            answers.Side("First", _blocks(view.first, whole=whole)),
            answers.Side("Second", _blocks(view.second, whole=whole)),
        ],
        key="sides",
        height=620,
    )
    with st.expander("The rubric"):
        answers.show([answers.Side(desk.rubric.title, texts.rendered(_rubric(desk)))], key="rubric", height=420)
    if left > 1:
        st.caption("J and K look ahead and back without a vote; what you pass comes round again.")


def _buttons(desk: Desk) -> None:
    """The keys; what one does is done, and written down, before anything is drawn.

    While a note is open no key works: each is a letter or a digit of the note.
    """
    over, noting = desk.session.current is None, _noting(desk)
    with st.container(horizontal=True):
        for key, words in (("1", "First is better"), ("2", "Second is better"), ("3", "Tie"), ("4", "Both bad")):
            st.button(words, key=f"vote{key}", shortcut=key, disabled=over or noting, on_click=_pressed, args=(key,))
    with st.container(horizontal=True):
        for key, words in (("j", "On"), ("k", "Back"), ("s", "Skip"), ("u", "Undo"), ("n", "Note")):
            blocked = (over and key != "u") or (key == "u" and not desk.session.trail) or noting
            st.button(words, key=f"do{key}", shortcut=key, disabled=blocked, on_click=_pressed, args=(key,))


def _pressed(key: str) -> None:
    """Do what a key does; what goes wrong is kept for the page to say."""
    desk: Desk = st.session_state["desk"]
    try:
        _press(desk, key)
    except InputError as error:
        st.session_state["trouble"] = f"Nothing was written: {error}."
        rows = read_rows(desk.path)
        session = desk.session
        queue = [*session.trail, *session.todo]
        desk.turn(begin(queue, rows, annotator=session.annotator, seed=session.seed))


def _noting(desk: Desk) -> bool:
    return bool(st.session_state.get("noting") == desk.token)


def _press(desk: Desk, key: str) -> None:
    session = desk.session
    if _noting(desk) or (key != "n" and st.session_state.get("don")):
        # Typed for the note, before its field was there to take it: presses that wait are handed over together, and
        # the last one's callback may come first.
        return
    if key in ("1", "2", "3", "4"):
        choice = (Choice.FIRST, Choice.SECOND, Choice.TIE, Choice.BOTH_BAD)[int(key) - 1]
        tags = st.session_state.get(f"tags-{desk.token}") or ()
        desk.keep(*session.tagged(tags).cast(choice))
    elif key == "s":
        desk.keep(*session.skip())
    elif key == "u":
        desk.keep(*session.undo())
        st.session_state[f"tags-{desk.token}"] = [tag for tag in desk.session.draft.tags if tag in TAGS]
    elif key in ("j", "k"):
        desk.turn(session.turned(1 if key == "j" else -1))
    if key:
        st.session_state["noting"] = desk.token if key == "n" else ""


def _note(desk: Desk) -> None:
    """Reasons, and a note where N asked for one."""
    st.pills("Why (if you like)", TAGS, selection_mode="multi", key=f"tags-{desk.token}")
    if _noting(desk):
        note.field(desk.session.draft.note, pair=desk.token, done=_noted)
        st.caption("Enter keeps the note, Escape leaves it as it was; then vote.")
    elif desk.session.draft.note:
        st.caption("Note: " + markdown(desk.session.draft.note))


def _noted(text: str) -> None:
    """Keep a note for the vote to come."""
    desk: Desk = st.session_state["desk"]
    desk.session = desk.session.noted(text)
    st.session_state["noting"] = ""


def _end(place: Place, desk: Desk) -> None:
    """What was labelled, and only now how the raters agree."""
    st.success("Every pair of this draw is done.")
    rows = read_rows(desk.path)
    people = []
    for name in sorted({str(row["annotator"]) for row in rows}):
        held = marks([row for row in rows if row["annotator"] == name])
        voted = sum(mark.outcome is not None for mark in held.values())
        people.append(
            {"rater": name, "labelled": voted, "skipped": len(held) - voted, "of": len(desk.record.drawing.places)}
        )
    table(people, alt="How far each rater is")
    shared = agreements(GoldSet.read(desk.path)) if any(person["labelled"] for person in people) else ()
    for pair in shared:
        found = pair.agreement
        st.markdown(
            f"{markdown(pair.first)} and {markdown(pair.second)} agree on **{found.value:.0%}** "
            f"[{found.low:.0%}, {found.high:.0%}] of {found.n} shared pairs."
        )
    run = desk.record.origin.get("run")
    if run:
        st.link_button("What the labels say of the judge", link("calibration", run=run, gold=desk.path.name))
        command(f"judge calibrate {run} --gold {shlex.quote(str(desk.path))}")


def _blocks(text: str, *, whole: bool) -> list[texts.Block]:
    """A text as it is, capped unless all of it is wanted."""
    shown, rest = texts.capped(text, whole=whole)
    made = texts.raw(shown) if whole else texts.rendered(shown)
    if rest:
        made = [
            *made,
            {"tag": "p", "runs": [[f"[{rest:,} more characters: switch on “everything, as text”]", "i", ""]]},
        ]
    return made or [{"tag": "p", "runs": [["(empty answer)", "i", ""]]}]


def _rubric(desk: Desk) -> str:
    parts = [f"- **{criterion.id}**: {criterion.text.strip()}" for criterion in desk.rubric.criteria]
    return "\n".join([desk.rubric.summary, "", *parts, "", desk.rubric.body.strip()])
