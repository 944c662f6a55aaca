"""The dashboard: what pages there are and where they stand. ``judge view`` runs this file under Streamlit.

streamlit run dashboard/app.py -- --home .judge
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import streamlit as st

from dashboard.place import empty, home_line, pick_run, place_of, void_line
from judge.advice import note_home

_PAGES = {
    "The release": [
        ("decision", "Decision"),
        ("segments", "Segments"),
        ("pairs", "Pairs"),
        ("regressions", "Regressions"),
        ("hacking", "Hacking"),
    ],
    "The judge": [("label", "Label"), ("calibration", "Calibration"), ("drift", "Drift")],
    "The work": [("runs", "Runs"), ("candidates", "Candidates and rollout"), ("loop", "Loop")],
}
"""Groups of pages: the module under ``screens``, loaded when its page is first opened, and the title."""
_HOME = ".judge"
"""The home folder where none is given, as of every command."""
_BLIND = "label"
"""The page on which nothing may stand that says who is who or what a judge said: it has no run in the sidebar."""
_WITHOUT_RUN = ("label", "runs", "candidates", "loop", "drift")


_SIDEBAR = 220
"""Pixels: at 1280 the tables have the rest."""


def _home(argv: list[str]) -> Path:
    parser = argparse.ArgumentParser(prog="dashboard", add_help=False)
    parser.add_argument("--home", type=Path, default=Path(_HOME))
    return Path(parser.parse_known_args(argv)[0].home)


def _page(name: str) -> None:
    home = _home(sys.argv[1:])
    note_home(None if home == Path(_HOME) else str(home))
    place = place_of(home)
    home_line(place)
    if name != _BLIND:
        place = pick_run(place)
    if place.run is None and name not in _WITHOUT_RUN:
        st.title("Nothing judged yet")
        empty(
            "There is no run in this home folder.",
            "A run judges an eval set; the sample set needs no key.",
            "judge demo",
        )
        return
    if name not in _WITHOUT_RUN:
        void_line(place)
    import_module(f"dashboard.screens.{name}").show(place)


def _main() -> None:
    st.set_page_config(page_title="touchstone-judge", page_icon="⚖️", layout="wide", initial_sidebar_state=_SIDEBAR)
    groups = {
        title: [
            st.Page(partial(_page, name), title=told, url_path=name, default=name == "decision") for name, told in pages
        ]
        for title, pages in _PAGES.items()
    }
    st.navigation(groups, expanded=True).run()


_main()
