"""What every page stands on: the home folder's views and register, the run that is looked at, the colours of the theme.

The URL is the state: widgets that choose something are bound to query parameters of their own name, so that a page, its
run and its filters can be sent to somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import streamlit as st

from judge.advice import homed
from judge.errors import InputError, StoreError
from judge.register import Entry, Register
from judge.render.words import markdown
from judge.store.views import Views

from .views.charts import Ink, ink
from .views.tables import arrow, as_csv, as_parquet

if TYPE_CHECKING:
    import polars

    from judge.store import RunInfo

__all__ = [
    "Place",
    "chart",
    "command",
    "downloads",
    "empty",
    "explained",
    "home_line",
    "link",
    "no_other_run",
    "pick_run",
    "place_of",
    "table",
    "tile",
    "two_runs",
    "void_line",
]


_COMPARED = 20_000
"""Pairs up to which two runs are compared pair by pair."""


@dataclass(frozen=True)
class Place:
    """One home folder as the pages see it."""

    home: Path
    views: Views
    run: RunInfo | None = None

    @property
    def ink(self) -> Ink:
        """The colours of the theme that the reader has."""
        return ink(dark=st.context.theme.type == "dark")

    @property
    def labels(self) -> list[Path]:
        """The label files of the home folder that have a draw, by name."""
        folder = self.home / "labels"
        return sorted(path for path in folder.glob("*.jsonl") if not path.name.endswith(".draw.jsonl"))

    @property
    def judging(self) -> list[RunInfo]:
        """The runs that judge a candidate, newest first: probes, and labelled pairs judged again, judge the judge."""
        return [run for run in self.views.runs() if not self.is_aside(run)]

    def is_aside(self, run: RunInfo) -> bool:
        """Whether a run was made to measure a judge: it is nobody's latest, here as in the terminal."""
        return self.views.store.is_aside(run)

    def same_pairs(self, one: RunInfo, other: RunInfo) -> bool:
        """Whether two runs judged the very same pairs and answers.

        The digest of the eval set says so. Labelled pairs that are judged again stand in a file of their own, with a
        digest of its own, so there the pairs themselves are compared.
        """
        first, second = one.header["evalset"], other.header["evalset"]
        if first["digest"] == second["digest"]:
            return True
        again = any("probe" not in run.header and self.is_aside(run) for run in (one, other))
        rows = first["rows"]
        if not again or rows != second["rows"] or rows > _COMPARED:
            return False
        return self.views.rejudged(one.run_id, other.run_id).height == rows

    def marks(self, folder: Path) -> tuple[object, ...]:
        """What changes when the register or a file of a folder does."""
        return (_stamp(Register(self.home).path), *((path.name, _stamp(path)) for path in sorted(folder.glob("*"))))

    def segments(self, by: str) -> list[dict[str, Any]]:
        """The figures of every segment of the run by a column, worked out once; not to be changed."""
        assert self.run is not None
        return _segments(self.views, str(self.home), self.run.run_id, by, self.views.version())

    def entries(self, *kinds: str) -> list[Entry]:
        """The register's entries of some kinds, newest first; says so where the chain is broken."""
        register = Register(self.home)
        try:
            found = _entries(str(register.path), _stamp(register.path))
        except StoreError as error:
            st.error(f"The register cannot be trusted: {markdown(str(error))}")
            return []
        return [entry for entry in reversed(found) if entry.kind in kinds]


@st.cache_resource(max_entries=8, show_spinner=False)
def _views(home: str) -> Views:
    return Views(Path(home))


@st.cache_resource(max_entries=128, show_spinner=False)
def _segments(_views: Views, home: str, run_id: str, by: str, version: tuple[int, ...]) -> list[dict[str, Any]]:
    from .views.figures import segment_rows

    return segment_rows(_views.cells(run_id, by))


@st.cache_resource(max_entries=4, show_spinner=False)
def _entries(path: str, stamp: tuple[int, int]) -> list[Entry]:
    return Register(Path(path).parent).entries()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


def place_of(home: Path) -> Place:
    """The place of a home folder; its views are shared by all sessions of this server."""
    return Place(home, _views(str(home)))


def home_line(place: Place) -> None:
    """Say in the sidebar which home folder is looked at: two servers of two homes look alike."""
    st.sidebar.caption(f"Home folder: {markdown(str(place.home.resolve()))}")


def pick_run(place: Place) -> Place:
    """Let the reader choose the run in the sidebar; the latest one, as in the terminal, unless the URL names another.

    A run in the URL that is not here is said, and the page shows nothing: never another run in its place.
    """
    runs = place.views.runs()
    if not runs:
        return place
    by_id = {run.run_id: run for run in sorted(runs, key=place.is_aside)}
    no_other_run(place, by_id)
    # No other words for an option than its id: the URL holds what is shown, and would not be found by the id.
    chosen = st.sidebar.selectbox("Run", list(by_id), key="run", bind="query-params")
    run = by_id[chosen]
    place.views.look(run.run_id)
    state = ("sealed" if run.sealed else "not finished") + _aside(place, run)
    st.sidebar.caption(markdown(f"{run.created_at[:16].replace('T', ' ')} · {state}"))
    st.sidebar.caption(markdown(f"{run.rubric} · {run.judge}"))
    return Place(place.home, place.views, run)


def void_line(place: Place) -> None:
    """Say above everything that a page shows of a run that its canary pairs failed: no rate below counts."""
    if place.run is not None and (canaries := place.views.canaries(place.run)).void:
        st.error(f"**{markdown(canaries.text)}** No rate of this run may be used.")


def _aside(place: Place, run: RunInfo) -> str:
    """What a run is that judges no candidate, after its state."""
    if "probe" in run.header:
        return " · a probe of the judge"
    return " · labelled pairs judged again" if place.is_aside(run) else ""


def no_other_run(place: Place, known: Mapping[str, RunInfo]) -> None:
    """Stop the page where the URL names a run that this home folder does not hold."""
    asked = st.query_params.get("run", "")
    if not asked or asked in known:
        return
    st.title("No such run here")
    latest = next(iter(known))
    st.error(
        f"{markdown(asked)} is no run of the home folder {markdown(str(place.home.resolve()))}. Another home "
        "folder, or an id that was cut?"
    )
    with st.container(horizontal=True):
        st.link_button(f"The latest run, {latest}", link("", run=latest))
        st.link_button("All runs", link("runs"))
    command("judge report --list")
    st.stop()


def two_runs(
    place: Place, runs: Mapping[str, RunInfo], fits: Callable[[RunInfo, RunInfo], bool]
) -> tuple[str | None, str]:
    """Let the reader choose a run and one before it; ``runs`` are newest first, ``fits`` says whether two may stand
    side by side.

    After is the run of the sidebar, before the newest other sealed run that fits it: none (``None``) where none does.
    """
    names = list(runs)
    shown = place.run.run_id if place.run is not None and place.run.run_id in runs else names[0]
    asked = st.query_params.get("after", "")
    shown = asked if asked in runs else shown
    fitting = [
        name
        for name, run in runs.items()
        if name != shown and run.sealed and run.created_at <= runs[shown].created_at and fits(run, runs[shown])
    ]
    index = names.index(fitting[0]) if fitting else None
    before = st.selectbox(
        "Before", names, index=index, key="before", bind="query-params", width=220, placeholder="none that fits"
    )
    after = st.selectbox("After", names, index=names.index(shown), key="after", bind="query-params", width=220)
    return before, after


def link(page: str, **query: str | float | None) -> str:
    """The address of a page with a query, relative to the server."""
    told = {name: value for name, value in query.items() if value not in (None, "")}
    return f"/{page}" + (f"?{urlencode(told)}" if told else "")


def command(text: str) -> None:
    """Show a command to type, for the home folder of the page."""
    st.code(homed(text), language=None, wrap_lines=True)  # highlighted words miss a contrast of 4.5


def empty(title: str, why: str, how: str) -> None:
    """Say why a page has nothing to show, and which command makes what it shows."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(why)
        command(how)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an error that has an answer into a sentence on the page; anything else stays an error."""
    try:
        yield
    except (InputError, StoreError) as error:
        st.warning(f"{doing}: {markdown(str(error))}")


def tile(title: str, value: str, note: str) -> None:
    """A figure in a box, with its interval or what it is of below it; nothing is cut, whatever the width."""
    with st.container(border=True, height="stretch", gap="xxsmall"):
        st.metric(title, value)
        st.caption(markdown(note))


def chart(spec: Mapping[str, Any], colours: Ink, *, key: str, alt: str, pick: bool = False) -> Mapping[str, Any]:
    """Draw a specification, with a button that saves it as SVG; with ``pick`` return what a click chose (empty where
    nothing is). ``alt`` says what is seen; the numbers that the specification says are read after it.
    """
    # Data stands in the layers: at the top Streamlit would make an Arrow table of it, through pandas.
    drawn = {name: value for name, value in spec.items() if name not in ("data", "description")}
    drawn["layer"] = [{"data": spec["data"], **layer} for layer in spec["layer"]]
    event = st.vega_lite_chart(
        drawn,
        key=key,
        alt=f"{alt}. {spec['description']}",
        width="stretch",
        on_select="rerun" if pick else "ignore",
    )
    st.download_button(
        "Save the chart as SVG", data=lambda: _svg(spec, colours, alt), file_name=f"{key}.svg",
        mime="image/svg+xml", key=f"svg-{key}", on_click="ignore", type="tertiary",
    )  # fmt: skip
    if not pick:
        return {}
    chosen = event.get("selection", {}).get("pick", []) if isinstance(event, Mapping) else []
    return dict(chosen[0]) if chosen else {}


def _svg(spec: Mapping[str, Any], colours: Ink, title: str) -> bytes:
    from judge.render.svg import picture

    return picture(spec, colours, title=title)


def table(frame: Any, *, alt: str, config: Mapping[str, Any] | None = None, height: int | str = "auto") -> None:
    """A table of the rows of one screen: a frame, or a list of records.

    Sent whole: to find out whether rows should be sent bit by bit Streamlit imports pandas, in 0.4 s.
    """
    st.dataframe(
        arrow(frame), hide_index=True, column_config=dict(config or {}), alt=alt, height=height, placeholder="–",
        lazy=False,
    )  # fmt: skip


def downloads(frame: polars.DataFrame | Sequence[Mapping[str, Any]], name: str) -> None:
    """Buttons that save a table as CSV (no cell is a formula) and as Parquet."""
    with st.container(horizontal=True):
        for kind, make, mime in (
            ("CSV", as_csv, "text/csv"),
            ("Parquet", as_parquet, "application/vnd.apache.parquet"),
        ):
            st.download_button(
                f"Download {kind}", data=lambda make=make: make(frame), file_name=f"{name}.{kind.lower()}", mime=mime,
                key=f"save-{name}-{kind}", on_click="ignore", type="tertiary",
            )  # fmt: skip
