"""The dashboard: what pages there are and where they stand. ``judge view`` runs this file under Streamlit.

streamlit run dashboard/app.py -- --home .judge
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st

from dashboard.place import Place, empty, pick_run, place_of
from dashboard.screens import (
    calibration,
    candidates,
    decision,
    drift,
    hacking,
    label,
    loop,
    pairs,
    regressions,
    runs,
    segments,
)

Show = Callable[[Place], None]

_PAGES: dict[str, list[tuple[str, str, Show]]] = {
    "The release": [
        ("decision", "Decision", decision.show),
        ("segments", "Segments", segments.show),
        ("pairs", "Pairs", pairs.show),
        ("regressions", "Regressions", regressions.show),
        ("hacking", "Hacking", hacking.show),
    ],
    "The judge": [
        ("label", "Label", label.show),
        ("calibration", "Calibration", calibration.show),
        ("drift", "Drift", drift.show),
    ],
    "The work": [
        ("runs", "Runs", runs.show),
        ("candidates", "Candidates and rollout", candidates.show),
        ("loop", "Loop", loop.show),
    ],
}
_BLIND = "label"
"""The page on which nothing may stand that says who is who or what a judge said: it has no run in the sidebar."""
_WITHOUT_RUN = ("label", "runs", "candidates", "loop", "drift")


def _home(argv: list[str]) -> Path:
    parser = argparse.ArgumentParser(prog="dashboard", add_help=False)
    parser.add_argument("--home", type=Path, default=Path(".judge"))
    return Path(parser.parse_known_args(argv)[0].home)


def _page(name: str, show: Show) -> None:
    place = place_of(_home(sys.argv[1:]))
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
    show(place)


def _main() -> None:
    st.set_page_config(page_title="touchstone-judge", page_icon="⚖️", layout="wide")
    groups = {
        title: [
            st.Page(partial(_page, name, show), title=told, url_path=name, default=name == "decision")
            for name, told, show in pages
        ]
        for title, pages in _PAGES.items()
    }
    st.navigation(groups, expanded=True).run()


_main()
