"""The dashboard's questions: sums are the report's figures, filters are the rows', nothing is written."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest

from dashboard.views import figures
from judge.canaries import PREFIX
from judge.store import Store, database, rollups, runs
from judge.store.database import Stream, reading, writing
from judge.store.listing import ROW
from judge.store.views import SORTS, Filter, Views
from judge.summary import summarise

_spec = importlib.util.spec_from_file_location("made", Path(__file__).parent / "servers" / "dashboard.py")
assert _spec is not None and _spec.loader is not None
made_homes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made_homes)
rows, write_rows, judge_rows = made_homes.rows, made_homes.write_rows, made_homes.judge_rows


def add_up(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path) -> None:
    """Derive one run's tables anew, as `catch_up` does for a run of an older version."""
    rollups.take_out(con, run_id, folder)
    rollups.roll_up_files(folder, run_id)
    rollups.keep(con, run_id, folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: prompts repeat, some labels, odd names of fields, a field with too many values."""
    folder = tmp_path_factory.mktemp("home")
    made = rows(120)
    for k, row in enumerate(made):
        row["prompt"] = f"Question {k // 2}"  # two pairs a prompt
        row["o'dd \"na/me~"] = "x'; DROP TABLE run; --" if k % 3 else "y"
        row["serial"] = k
    judge_rows(folder, write_rows(folder / "a.jsonl", made), "r-aaaaaa")
    judge_rows(folder, folder / "a.jsonl", "r-bbbbbb", spec="scripted:hash", at="2026-11-02T00:00:00+00:00")
    with writing(
        folder / "judge.duckdb"
    ) as con:  # what scripted judges never say: flips, and replies without a verdict
        con.execute("UPDATE comparison SET consistent = FALSE WHERE run_id = 'r-bbbbbb' AND pair_id LIKE '%7'")
        con.execute(
            "UPDATE comparison SET outcome = NULL, preference = NULL, confidence = NULL, consistent = NULL, "
            "invalid = 'refusal' WHERE run_id = 'r-bbbbbb' AND pair_id LIKE '%9'"
        )
        add_up(con, "r-bbbbbb", folder)
    return folder


def test_sums_give_the_figures_of_the_report(home: Path) -> None:
    """Segments and the whole run have the very values, intervals and verdicts of `judge report`."""
    store, views = Store(home), Views(home)
    for run_id in ("r-aaaaaa", "r-bbbbbb"):
        report = summarise(store.run(run_id).header, store.comparisons(run_id))
        found = {row["segment"]: row for row in figures.segment_rows(views.cells(run_id, "category"))}
        assert found.keys() == {part.name for part in report.categories}
        for part in report.categories:
            row = found[part.name]
            assert row["verdict"] == part.verdict
            assert (row["n"], row["judged"], row["invalid"]) == (part.n, part.judged, part.invalid)
            for name, wanted in (
                ("net", part.net),
                ("preference", part.preference),
                ("flip", part.flips),
                ("length", part.length_ratio),
            ):
                assert wanted is not None
                assert row[name] == pytest.approx(wanted.value, abs=1e-9)
                assert row[f"{name}_low"] == pytest.approx(wanted.low, abs=1e-9)
                assert row[f"{name}_high"] == pytest.approx(wanted.high, abs=1e-9)
            assert row["win"] == pytest.approx(part.win.value if part.win else None)
        whole = figures.by_cell(views.cells(run_id), "value")[("",)]
        first, right = figures.estimate(whole, "first"), figures.estimate(whole, "right")
        assert (
            report.overall.first_place is not None
            and report.worth is not None
            and first is not None
            and right is not None
        )
        assert first.value == pytest.approx(report.overall.first_place.value)
        assert right.value == pytest.approx(report.worth.accuracy.value)
        assert right.n == report.worth.n


def test_every_cell_counts_the_rows_that_its_filter_finds(home: Path) -> None:
    """For every column, and every pair of columns, the n of a cell is the number of rows behind the link to it."""
    views = Views(home)
    facets = views.facets("r-aaaaaa")
    names = [name for name, _ in facets]
    assert names[0] == "category" and {"language", "difficulty", "label", "length", "confidence"} <= set(names)
    assert "serial" not in names, "a field with a value a row is no column"
    checked = 0
    for facet in names:
        cells = views.cells("r-aaaaaa", facet).filter(polars.col("measure") == "invalid")
        assert cells["n"].sum() == 120
        for value, n in cells.select("value", "n").iter_rows():
            assert views.count("r-aaaaaa", Filter(facet, value)) == n, (facet, value)
            checked += 1
    for facet, across in views.crossings("r-aaaaaa"):
        cells = views.cells("r-aaaaaa", facet, across).filter(polars.col("measure") == "invalid")
        for value, other, n in cells.select("value", "other", "n").iter_rows():
            assert views.count("r-aaaaaa", Filter(facet, value, across, other)) == n
            checked += 1
    assert checked > 60


def test_portions_of_prompts_give_the_same_sums(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run read in many portions adds up to what one portion gives."""
    views = Views(home)
    before = views.cells("r-aaaaaa", "category")
    bins = views.histogram("r-aaaaaa", "length")
    monkeypatch.setattr(rollups, "_PORTION", 17)
    with writing(home / "judge.duckdb") as con:
        add_up(con, "r-aaaaaa", tmp_path)
    after = views.cells("r-aaaaaa", "category")
    assert before.drop("n").columns == after.drop("n").columns
    for column in ("n", "total", "squares", "clusters", "tt", "tn", "nn"):
        assert after[column].to_list() == pytest.approx(before[column].to_list())
    assert views.histogram("r-aaaaaa", "length")["n"].to_list() == bins["n"].to_list()


def test_rows_laid_in_portions_add_up_to_the_last_digit_as_one_scan_for_each_portion(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reading the run once, with the rows of a portion laid together, gives the very floats of a scan per portion."""
    monkeypatch.setattr(rollups, "_PORTION", 7)
    with reading(home / "judge.duckdb") as con:
        rollups.take_out(con, "r-bbbbbb", tmp_path)
    files = str(tmp_path / "comparison-*.parquet")
    with duckdb.connect() as con:
        con.execute("CREATE TABLE comparison AS SELECT *, row_number() OVER () AS place FROM read_parquet(?)", [files])
        portions = -(-con.execute("SELECT count(*) FROM comparison").fetchone()[0] // 7)
        assert portions == 18
        sums = rollups._Sums(rollups._fields(con))
        for portion in range(portions):
            relation = con.cursor().sql(
                f"{rollups._BASE}{sums.columns} FROM comparison WHERE hash(prompt_digest) % $portions = $portion",
                params={"stretches": rollups.STRETCHES, "rows": 120, "portions": portions, "portion": portion},
            )
            sums.add(polars.DataFrame(Stream(relation)))
    rollups.roll_up_files(tmp_path, "r-bbbbbb")
    laid = polars.read_parquet(tmp_path / "sums-rollup.parquet")
    assert laid.height > 500 and laid.equals(sums.rows("r-bbbbbb"))
    assert polars.read_parquet(tmp_path / "sums-tally.parquet").equals(sums.tally("r-bbbbbb"))
    assert not list(tmp_path.glob("sums.duckdb*")), "nothing is left of the rows"


_FIRST = 30
"""First rows kept of each order in the tests of pages."""


@pytest.fixture(scope="module")
def led(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose runs keep first rows: with ties in every sort, rows without a verdict, and canary pairs."""
    folder = shutil.copytree(home, tmp_path_factory.mktemp("led") / "home")
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patched, writing(folder / "judge.duckdb") as con:
        patched.setattr(rollups, "LEADS_FROM", 0)
        patched.setattr(rollups, "LEADING", _FIRST)
        con.execute("UPDATE comparison SET confidence = round(confidence, 1), baseline_chars = candidate_chars // 2")
        con.execute("UPDATE comparison SET baseline_chars = candidate_chars * 3 WHERE pair_id LIKE '%3'")
        con.execute(
            "INSERT INTO comparison SELECT * REPLACE (? || pair_id AS pair_id, 0.5 AS confidence) FROM comparison "
            "WHERE run_id = 'r-bbbbbb' AND pair_id < 'item-0020'",
            [PREFIX],
        )
        con.execute(
            "INSERT INTO comparison SELECT * REPLACE (1 AS repeat) FROM comparison "
            "WHERE run_id = 'r-bbbbbb' AND pair_id LIKE 'item-000%'"
        )
        add_up(con, "r-bbbbbb", scratch)
    return folder


def _asked(rng: random.Random, values: dict[str, list[str]]) -> Filter:
    """A filter that narrows by none, some or all of what there is."""
    columns = rng.sample(sorted(values), 2)
    one, two = (rng.random() < chance for chance in (0.5, 0.3))
    return Filter(
        field=columns[0] if one else "",
        value=rng.choice(values[columns[0]]) if one else "",
        across=columns[1] if two else "",
        other=rng.choice(values[columns[1]]) if two else "",
        outcomes=tuple(rng.sample(("win", "tie", "loss", "invalid"), rng.choice((0, 0, 1, 2, 4)))),
        flipped=rng.random() < 0.2,
        against_label=rng.random() < 0.2,
        confidence=(0.6, 0.9) if rng.random() < 0.15 else None,
        ratio=(0.25, 1.5) if rng.random() < 0.15 else None,
        search="1" if rng.random() < 0.15 else "",
    )


def _plainly(rows: list[dict[str, Any]], wanted: Filter, sort: str) -> list[tuple[object, ...]]:
    """The rows of a run that pass a filter, in the order of a sort, by Python alone."""

    def ratio(row: dict[str, Any]) -> float:
        return float((row["candidate_chars"] + 1) / (row["baseline_chars"] + 1))

    def column(row: dict[str, Any], name: str) -> str:
        if name == "length":
            limits = (0.5, "under half"), (0.8, "shorter"), (math.nextafter(1.25, 2), "about equal")
            limits = (*limits, (math.nextafter(2, 3), "longer"), (math.inf, "over double"))
            return next(word for limit, word in limits if ratio(row) < limit)
        if name == "consistent":
            agree = "both orders agree" if row["consistent"] else "orders differ"
            return agree if row["outcome"] else "(no verdict)"
        if name in ("category", "label"):
            return str(row[name] or "(none)")
        return str(json.loads(row["metadata"]).get(name, ""))

    def passes(row: dict[str, Any]) -> bool:
        leans = {"win": 1, "loss": -1}.get(row["label"], 0) * ((row["preference"] or 0.5) - 0.5)
        return (
            (not wanted.field or column(row, wanted.field) == wanted.value)
            and (not wanted.across or column(row, wanted.across) == wanted.other)
            and (not wanted.outcomes or (row["outcome"] or "invalid") in wanted.outcomes)
            and (not wanted.flipped or (row["outcome"] is not None and not row["consistent"]))
            and (not wanted.against_label or leans < 0)
            and (wanted.confidence is None or wanted.confidence[0] <= (row["confidence"] or 0) <= wanted.confidence[1])
            and (wanted.ratio is None or wanted.ratio[0] <= ratio(row) <= wanted.ratio[1])
            and wanted.search in row["pair_id"]
        )

    keys: dict[str, Callable[[dict[str, Any]], float]] = {
        "least confident first": lambda row: row["confidence"] or math.inf,
        "most confident first": lambda row: -(row["confidence"] or -math.inf),
        "candidate longest against baseline": lambda row: -ratio(row),
        "candidate shortest against baseline": ratio,
    }
    found = sorted(filter(passes, rows), key=keys.get(sort, lambda _row: 0.0))
    return [tuple(row[name] for name in ROW.split(", ")) for row in found]


def test_every_filter_sort_and_page_is_what_the_plain_query_gives(led: Path) -> None:
    """Whatever is taken from the first rows and from the tally is, row by row, what a query over all rows gives."""
    views, rng = Views(led), random.Random(5)
    names = [name for name, _ in views.facets("r-bbbbbb") if name != "confidence"]
    values = {name: views.cells("r-bbbbbb", name)["value"].unique().sort().to_list() for name in names}
    with reading(led / "judge.duckdb") as con:
        first = {
            sort: con.execute(f"SELECT {ROW} FROM leading_row WHERE sort = ? ORDER BY place", [sort]).fetchall()  # noqa: S608 - columns of ours
            for sort in SORTS
        }
        every = con.execute(
            "SELECT * FROM comparison WHERE run_id = 'r-bbbbbb' AND NOT starts_with(pair_id, ?) ORDER BY rowid",
            [PREFIX],
        )
        columns = [column[0] for column in every.description]
        judged = [dict(zip(columns, row, strict=True)) for row in every.fetchall()]
    assert len(judged) == 130
    asked = [Filter(), *(_asked(rng, values) for _ in range(80))]
    plain = {(wanted, sort): _plainly(judged, wanted, sort) for wanted in asked for sort in SORTS}
    assert [len(rows) for rows in first.values()] == [0, *[_FIRST] * 4]
    views._burst = lambda read: read(held)  # type: ignore[method-assign]
    beyond = within = tallied = 0
    with reading(led / "judge.duckdb") as held:
        for (wanted, sort), rows in plain.items():
            for at in (0, 8, _FIRST - 4, 96):
                found = views.rows("r-bbbbbb", wanted, sort=sort, offset=at, limit=8)
                assert found.rows() == rows[at : at + 8], (wanted, sort, at)
                passing = len([row for row in first[sort] if row in rows])
                within += at + 8 <= passing
                beyond += passing < at + 8 <= len(rows)
            assert views.count("r-bbbbbb", wanted) == len(rows), wanted
            tallied += wanted.tallied and views._tallied("r-bbbbbb", wanted) is not None
    assert within > 50 and beyond > 50 and tallied > 150, "each way is gone often"


def test_first_rows_and_tally_are_what_answers_where_they_can(led: Path, tmp_path: Path) -> None:
    """Deleted rows of the run are still on the first page and in the count; beyond the kept rows the run is asked, and
    without what is derived it is asked for everything.
    """
    home = shutil.copytree(led, tmp_path / "home")
    sort = "least confident first"
    before = Views(home).rows("r-bbbbbb", sort=sort, limit=_FIRST)
    with writing(home / "judge.duckdb") as con:
        con.execute("DELETE FROM comparison WHERE run_id = 'r-bbbbbb' AND pair_id <> 'item-0100'")
    views = Views(home)
    assert views.rows("r-bbbbbb", sort=sort, limit=_FIRST).equals(before)
    assert views.count("r-bbbbbb", Filter(outcomes=("win", "tie", "loss"))) == 117
    assert views.rows("r-bbbbbb", sort=sort, limit=_FIRST + 1).height == 1
    assert views.count("r-bbbbbb", Filter(search="item")) == 1
    with writing(home / "judge.duckdb") as con:
        con.execute("DELETE FROM leading_row")
        con.execute("DELETE FROM tally")
    views = Views(home)
    assert views.rows("r-bbbbbb", sort=sort, limit=_FIRST).height == 1
    assert views.count("r-bbbbbb") == 1


def test_filters_find_exactly_the_rows_that_pass(home: Path) -> None:
    """Every filter is held against the same condition on the whole table."""
    views, frame = Views(home), Store(home).comparisons("r-bbbbbb")
    ratio = (polars.col("candidate_chars") + 1) / (polars.col("baseline_chars") + 1)
    cases = (
        (Filter(outcomes=("win", "tie")), polars.col("outcome").is_in(["win", "tie"])),
        (Filter(flipped=True), polars.col("outcome").is_not_null() & polars.col("consistent").not_()),
        (Filter(confidence=(0.7, 0.9)), polars.col("confidence").is_between(0.7, 0.9)),
        (Filter(ratio=(2.0, 16.0)), ratio.is_between(2.0, 16.0)),
        (Filter(pairs=("item-0001", "item-0005", "gone")), polars.col("pair_id").is_in(["item-0001", "item-0005"])),
        (Filter(search="ITEM-00"), polars.col("pair_id").str.contains("item-00")),
        (
            Filter(against_label=True),
            ((polars.col("preference") > 0.5) & (polars.col("label") == "loss"))
            | ((polars.col("preference") < 0.5) & (polars.col("label") == "win")),
        ),
    )
    for wanted, condition in cases:
        passing = set(frame.filter(condition)["pair_id"].to_list())
        assert passing, wanted
        assert views.count("r-bbbbbb", wanted) == len(passing), wanted
        assert set(views.rows("r-bbbbbb", wanted, limit=500)["pair_id"].to_list()) == passing, wanted


def test_pages_of_rows_are_disjoint_and_sorted(home: Path) -> None:
    """Pages hold every row once, in the order that was asked for."""
    views = Views(home)
    for sort in SORTS:
        pages = [views.rows("r-bbbbbb", sort=sort, offset=at, limit=50) for at in (0, 50, 100)]
        assert [page.height for page in pages] == [50, 50, 20]
        assert polars.concat(pages)["pair_id"].n_unique() == 120
    least = views.rows("r-bbbbbb", sort="least confident first", limit=120)["confidence"].to_list()
    known = [value for value in least if value is not None]
    assert known == sorted(known) and len(known) == 108
    assert least[108:] == [None] * 12, "what has no verdict comes last"


def test_pairs_named_by_id_are_found_by_hash_in_any_run_and_never_a_stranger(home: Path, tmp_path: Path) -> None:
    """Rows and counts of ids are those of a scan, also in a run whose rows do not stand together, after a change of the
    file, and where two ids share a hash.
    """
    views, store = Views(home), Store(home)
    names = [f"item-{k:04}" for k in (3, 117, 50, 9)]
    for run_id in ("r-bbbbbb", "r-aaaaaa", "r-bbbbbb"):
        frame = store.comparisons(run_id)
        wanted = frame.filter(polars.col("pair_id").is_in(names))["pair_id"].to_list()
        found = views.rows(run_id, Filter(pairs=(*names, "no such pair")))
        assert found["pair_id"].to_list() == wanted
        said = frame.filter(polars.col("pair_id").is_in(names)).select("pair_id", "repeat", "preference")
        assert found.select(said.columns).equals(said), "the same ids in two runs are not the same rows"
        assert views.count(run_id, Filter(pairs=tuple(names))) == 4
        losses = frame.filter(polars.col("pair_id").is_in(names) & (polars.col("outcome") == "loss")).height
        assert views.count(run_id, Filter(pairs=tuple(names), outcomes=("loss",))) == losses
    assert views.rows("r-aaaaaa", Filter(pairs=tuple(names)), offset=1, limit=2).height == 2
    assert views.rows("r-aaaaaa", Filter(pairs=())).height == 0
    sure = views.rows("r-aaaaaa", Filter(pairs=tuple(names)), sort="most confident first")["confidence"].to_list()
    assert sure == sorted(sure, reverse=True)

    with writing(shutil.copytree(home, tmp_path / "copy") / "judge.duckdb") as con:
        con.execute("DELETE FROM comparison WHERE run_id = 'r-aaaaaa' AND pair_id = 'item-0060'")
    later = Views(tmp_path / "copy")
    assert later.rows("r-aaaaaa", Filter(pairs=tuple(names))).height == 4, "with a gap in the row numbers"
    twin = later.rows("r-aaaaaa", Filter(pairs=("item-0003",)))
    assert later._places is not None
    run_id, version, hashes, places = later._places
    assert hashes.is_sorted() and places.n_unique() == 119
    (mine,) = polars.DataFrame({"h": hashes, "at": places}).filter(polars.col("at") == places.min() + 3)["h"]
    later._places = (run_id, version, polars.Series([mine] * len(hashes), dtype=hashes.dtype), places)
    later._answers.clear()
    assert later.rows("r-aaaaaa", Filter(pairs=("item-0003",))).equals(twin), "one hash for all: still the one row"


def test_what_nearly_every_page_asks_opens_the_file_once(home: Path) -> None:
    """After a look at a run its columns, crossings and sums are known without another burst."""
    views = Views(home)
    views.look("r-aaaaaa")
    assert views.opened == 1
    views.facets("r-aaaaaa"), views.crossings("r-aaaaaa"), views.cells("r-aaaaaa"), views.cells("r-aaaaaa", "category")
    views.look("r-aaaaaa")
    assert views.opened == 1


def test_a_row_leads_to_its_texts_and_raw_calls(home: Path) -> None:
    """The detail of a pair holds both texts, the comparison and both calls with their replies."""
    detail = Views(home).detail("r-aaaaaa", "item-0003")
    assert detail.pair.id == "item-0003" and detail.pair.candidate.text
    assert len(detail.comparisons) == 1 and len(detail.calls) == 2
    assert {call.placement for call in detail.calls} == {"candidate_first", "baseline_first"}
    assert all(call.reply.probs is not None for call in detail.calls)


def test_the_same_answers_judged_twice_are_found(home: Path) -> None:
    """Two runs of one eval set share all pairs; what they said stands side by side."""
    frame = Views(home).rejudged("r-aaaaaa", "r-bbbbbb")
    assert frame.height == 120
    assert frame["prompt"].n_unique() == 60
    assert frame.filter(polars.col("old") != polars.col("new")).height > 20


def test_an_answer_is_remembered_until_the_database_changes(home: Path, tmp_path: Path) -> None:
    """A page that asks again opens nothing; after a new run it sees the new run."""
    views = Views(home)
    views.cells("r-aaaaaa", "category")
    views.overview()
    opened = views.opened
    for _ in range(20):
        views.cells("r-aaaaaa", "category")
        views.overview()
    assert views.opened == opened
    judge_rows(home, write_rows(home / "b.jsonl", rows(8, seed=9)), "r-cccccc", at="2026-11-03T00:00:00+00:00")
    assert "r-cccccc" in views.overview()["run_id"].to_list()
    assert views.opened == opened + 1


def test_runs_of_an_older_version_are_added_up_at_the_next_chance(home: Path) -> None:
    """A run without sums gets them from `catch_up`, and a run that is brought in again has them once."""
    with writing(home / "judge.duckdb") as con:
        for table in rollups.TABLES:
            con.execute(f"DELETE FROM {table} WHERE run_id = 'r-aaaaaa'")  # noqa: S608 - names of ours
    assert Views(home).facets("r-aaaaaa") == []
    store = Store(home)
    assert store.catch_up() == []
    before = Views(home).cells("r-aaaaaa", "category")
    assert before.height
    store.ingest(store.journal_path("r-aaaaaa"))
    assert Views(home).cells("r-aaaaaa", "category").equals(before)
    built, bad = store.rebuild()
    assert "r-aaaaaa" in built and not bad
    assert Views(home).cells("r-aaaaaa", "category").equals(before)


def _derived(home: Path, run_id: str) -> list[list[tuple[object, ...]]]:
    """All rows of every table that is derived of a run."""
    with reading(home / "judge.duckdb") as con:
        return [
            con.execute(f"SELECT * FROM {table} WHERE run_id = ? ORDER BY ALL", [run_id]).fetchall()  # noqa: S608 - names of ours
            for table in rollups.TABLES
        ]


def test_what_is_derived_is_the_same_however_a_run_came_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brought in, brought in again, recovered, and added up by `catch_up` in the database of an older version: the same
    sums, tally and first rows.
    """
    monkeypatch.setattr(rollups, "LEADS_FROM", 50)
    monkeypatch.setattr(rollups, "LEADING", 20)
    monkeypatch.setattr(rollups, "_PORTION", 50)
    folder = shutil.copytree(home, tmp_path / "home")
    store = Store(folder)
    store.ingest(store.journal_path("r-aaaaaa"))
    before = _derived(folder, "r-aaaaaa")
    assert [bool(rows) for rows in before] == [True] * 5 and len(before[3]) == 80
    store.ingest(store.journal_path("r-aaaaaa"))
    assert _derived(folder, "r-aaaaaa") == before
    with writing(store.path) as con:  # what an older version left, brought up to date: the new tables are empty
        con.execute("DELETE FROM tally")
        con.execute("DELETE FROM leading_row")
        con.execute("UPDATE rolled SET version = 1")
        con.execute("UPDATE rollup SET total = 0")
    views = Views(folder)
    plain = views.rows("r-aaaaaa", sort="most confident first", limit=15), views.count("r-aaaaaa")
    assert plain[0].height == 15 and plain[1] == 120, "the plain query answers until then"
    assert store.catch_up() == []
    assert _derived(folder, "r-aaaaaa") == before
    views = Views(folder)
    assert views.rows("r-aaaaaa", sort="most confident first", limit=15).equals(plain[0])
    built, bad = store.rebuild()
    assert "r-aaaaaa" in built and not bad
    assert _derived(folder, "r-aaaaaa") == before


def test_a_database_from_before_the_tally_answers_by_the_plain_query(home: Path, tmp_path: Path) -> None:
    """Looked at by this version, a database of schema 6 gets the new tables, empty, and every question is answered."""
    with duckdb.connect(str(tmp_path / "judge.duckdb")) as con:
        con.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY)")
        for number, script in database._migrations()[:6]:
            con.execute(script)
            con.execute("INSERT INTO schema_version VALUES (?)", [number])
        con.execute("ATTACH ? AS made (READ_ONLY)", [str(home / "judge.duckdb")])
        columns = ", ".join(row[0] for row in con.execute("DESCRIBE comparison").fetchall())
        con.execute(f"INSERT INTO comparison SELECT {columns} FROM made.comparison WHERE run_id = 'r-aaaaaa'")  # noqa: S608 - columns of ours
    old, new, losses = Views(tmp_path), Views(home), Filter("category", "safety", outcomes=("loss",))
    assert old.count("r-aaaaaa", losses) == new.count("r-aaaaaa", losses) > 0
    for sort in SORTS:
        assert old.rows("r-aaaaaa", losses, sort=sort).equals(new.rows("r-aaaaaa", losses, sort=sort))
    with reading(tmp_path / "judge.duckdb") as con:
        assert con.execute("SELECT (SELECT count(*) FROM tally), (SELECT count(*) FROM leading_row)").fetchone() == (
            0,
            0,
        )


def test_a_run_that_another_process_brings_in_meanwhile_keeps_what_that_derived(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of rows that were replaced while they were added up are thrown away."""
    folder = shutil.copytree(home, tmp_path / "home")
    store = Store(folder)
    with writing(store.path) as con:
        con.execute("DELETE FROM rolled WHERE run_id = 'r-aaaaaa'")
        con.execute("UPDATE comparison SET outcome = 'loss' WHERE run_id = 'r-aaaaaa'")
    adding, told = runs.roll_up_files, []

    def interrupted(scratch: Path, run_id: str) -> None:
        adding(scratch, run_id)
        if not told:
            told.append(run_id)
            store.ingest(store.journal_path(run_id))

    monkeypatch.setattr(runs, "roll_up_files", interrupted)
    assert store.catch_up() == [] and told == ["r-aaaaaa"]
    assert Views(folder).cells("r-aaaaaa").equals(Views(home).cells("r-aaaaaa"))
    with reading(store.path) as con:
        assert con.execute("SELECT count(*) FROM rolled WHERE run_id = 'r-aaaaaa'").fetchone() == (1,)


def test_text_in_a_filter_is_never_sql(home: Path) -> None:
    """Values and names that hold quotes find nothing and break nothing."""
    views = Views(home)
    for text in ("'; DROP TABLE comparison; --", '" OR 1=1', "$run", "\x00"):
        assert views.count("r-aaaaaa", Filter("category", text)) == 0
        assert views.count("r-aaaaaa", Filter(text, text)) == 0
        assert views.count("r-aaaaaa", Filter(search=text)) == 0
    odd = next(name for name, _ in views.facets("r-aaaaaa") if name.startswith("o'dd"))
    assert views.count("r-aaaaaa", Filter(odd, "y")) == 40
    with reading(home / "judge.duckdb") as con:
        assert con.execute("SELECT count(*) FROM run").fetchone()[0] >= 2


def test_an_empty_home_has_empty_answers(tmp_path: Path) -> None:
    """Without a database every list is empty and nothing is made."""
    views = Views(tmp_path / "nowhere")
    assert views.runs() == [] and views.facets("r-x") == [] and views.crossings("r-x") == []
    assert not (tmp_path / "nowhere").exists()
    assert replace(Filter(), search="").empty


def test_a_slow_query_says_nothing_on_stdout(home: Path) -> None:
    """DuckDB's progress bar, which it prints into the data on stdout after two seconds, is off on every connection."""
    for opened in (reading, writing):
        with opened(home / "judge.duckdb") as con:
            row = con.cursor().execute("SELECT current_setting('enable_progress_bar')").fetchone()
            assert row == (False,)
