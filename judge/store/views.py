"""What a dashboard asks: read-only, in short bursts, remembered until the database changes.

The database file is locked whole: a reader who keeps it open stops the writer of a batch. ``Views`` opens it for one
burst, answers, closes it, and keeps the (small) answer until the file is another: a page that polls an unchanged
database opens nothing. Sums come from the rollups; rows come a page at a time.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from .. import journal
from ..canaries import PREFIX, CanaryVerdict, canary_verdict
from ..errors import StoreError
from ..types import Pair, Reply
from .database import Stream, reading
from .listing import CANARY, NO_CANARY, NO_CANARY_ROW, ROW, SORTS, Filter, canary_bounds, condition, ordered
from .runs import RunInfo, Store, list_runs

if TYPE_CHECKING:
    import duckdb
    import polars

__all__ = ["SORTS", "Call", "Detail", "Filter", "Views"]

T = TypeVar("T")
_EVERY = Filter()
_KEPT = 256
"""Answers kept; each is a few hundred rows at most."""
_GLANCE = 0.02
"""Seconds for which a look at the file's state holds."""
_STRETCH, _PAUSE = 0.25, 0.08
"""Seconds for which bursts may follow each other, and the pause after that."""


@dataclass(frozen=True, slots=True)
class Call:
    """One judge call of a pair: its key, which answer stood first, the repeat, and the raw reply."""

    key: str
    placement: str
    repeat: int
    reply: Reply
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything about one pair of one run: the texts, the settled comparisons by repeat, and the raw judge calls."""

    pair: Pair
    comparisons: tuple[Mapping[str, Any], ...]
    calls: tuple[Call, ...]


class Views:
    """The dashboard's questions about one home folder; safe to share between threads.

    Every answer is a frame or a value; nothing here writes. ``opened`` counts bursts, for tests and benchmarks.
    """

    def __init__(self, home: Path) -> None:
        self.store = Store(home)
        self.opened = 0
        self._answers: OrderedDict[tuple[Any, ...], tuple[tuple[int, ...], Any]] = OrderedDict()
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._since = self._closed = 0.0
        self._seen: tuple[float, tuple[int, ...]] = (-1.0, ())
        self._open = threading.local()
        self._looked: dict[str, tuple[int, ...]] = {}
        self._places: tuple[str, tuple[int, ...], polars.Series, polars.Series] | None = None

    def version(self) -> tuple[int, ...]:
        """What changes when the database does: inode, size and time of the file and of its write-ahead log.

        Looked at once for the questions of one page, which follow each other within 20 ms.
        """
        at, known = self._seen
        now = time.monotonic()
        if now - at < _GLANCE:
            return known
        found: list[int] = []
        for path in (self.store.path, self.store.path.with_name(self.store.path.name + ".wal")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found += [stat.st_ino, stat.st_size, stat.st_mtime_ns]
        self._seen = (now, tuple(found))
        return self._seen[1]

    def runs(self) -> list[RunInfo]:
        """All runs, newest first."""
        return self._remembered(("runs",), lambda: self._burst(list_runs) if self.store.path.exists() else [])

    def look(self, run_id: str) -> None:
        """Ask in one burst what nearly every page of a run asks: opening the file takes longer than the questions."""
        asked = (
            lambda: self.facets(run_id),
            lambda: self.crossings(run_id),
            lambda: self.cells(run_id),
            lambda: self.cells(run_id, "category"),
        )
        version = self.version()
        if not self.store.path.exists() or self._looked.get(run_id) == version:
            return

        def read(con: duckdb.DuckDBPyConnection) -> None:
            self._open.con = con
            try:
                for question in asked:
                    question()
            finally:
                self._open.con = None

        try:
            self._burst(read)
        except StoreError:
            return  # a writer holds the file: each question then stands on its last answer, or says so itself
        self._looked[run_id] = version

    def facets(self, run_id: str) -> list[tuple[str, int]]:
        """The columns that a run may be cut by, with how many values each takes; the category first."""
        sql = (
            "SELECT facet, count(DISTINCT value) FROM rollup WHERE run_id = ? AND across = '' AND measure = 'invalid' "
            "AND facet NOT IN ('', 'sequence') GROUP BY facet ORDER BY facet <> 'category', facet"
        )
        return [(str(name), int(many)) for name, many in self._rows(sql, [run_id])]

    def crossings(self, run_id: str) -> list[tuple[str, str]]:
        """The pairs of columns that have a two-way table."""
        sql = "SELECT DISTINCT facet, across FROM rollup WHERE run_id = ? AND across <> '' ORDER BY ALL"
        return [(str(name), str(other)) for name, other in self._rows(sql, [run_id])]

    def cells(self, run_id: str, facet: str = "", across: str = "") -> polars.DataFrame:
        """The sums of every cell of a column (``''``: the whole run) or of two columns crossed.

        Columns: ``value``, ``other``, ``measure``, and the seven sums of ``calibration.sums.Sums``.
        """
        sql = (
            "SELECT value, other, measure, n, total, squares, clusters, tt, tn, nn FROM rollup "
            "WHERE run_id = $run AND facet = $facet AND across = $across ORDER BY value, other, measure"
        )
        return self._frame(sql, {"run": run_id, "facet": facet, "across": across})

    def overview(self) -> polars.DataFrame:
        """The sums of every whole run, all runs at once: as ``cells``, with ``run_id`` in front."""
        sql = (
            "SELECT run_id, measure, n, total, squares, clusters, tt, tn, nn FROM rollup "
            "WHERE facet = '' AND across = '' ORDER BY run_id, measure"
        )
        return self._frame(sql, {})

    def histogram(self, run_id: str, axis: str) -> polars.DataFrame:
        """The bins of ``confidence`` or ``length`` (see ``schema/004_rollups.sql``)."""
        sql = (
            "SELECT bin, n, win, tie, loss, flipped, labelled, agreed, mean FROM histogram "
            "WHERE run_id = $run AND axis = $axis ORDER BY bin"
        )
        return self._frame(sql, {"run": run_id, "axis": axis})

    def rows(
        self,
        run_id: str,
        wanted: Filter = _EVERY,
        *,
        sort: str = "",
        offset: int = 0,
        limit: int = 50,
    ) -> polars.DataFrame:
        """A page of comparisons without texts; ``sort`` is a key of ``SORTS``."""
        order = ordered(sort, "rowid")
        if wanted.pairs is not None:
            return self._by_id(run_id, wanted, order)[offset : offset + limit]
        where, params = condition(run_id, wanted)
        params |= {"limit": limit, "offset": offset}
        if order == "rowid":
            sql = f"SELECT {ROW} FROM comparison WHERE {where} LIMIT $limit OFFSET $offset"  # noqa: S608 - clauses of ours, values bound
            return self._frame(sql, params)
        # The first rows of each order are kept. Those of them that pass a filter are the first that pass it at all, so
        # a full page of them is the page; where they do not fill it, every row of the run is asked.
        kept = (
            f"SELECT {ROW} FROM leading_row WHERE {where} AND sort = $sort ORDER BY place LIMIT $limit OFFSET $offset"  # noqa: S608 - as above
        )
        # First which rows, then their columns: a sort that carries every column reads every column of every row.
        first = f"SELECT rowid FROM comparison WHERE {_by_row(where)} ORDER BY {order} LIMIT $limit OFFSET $offset"  # noqa: S608 - as above
        then = f"SELECT {ROW} FROM comparison WHERE rowid IN (SELECT unnest($rows)) ORDER BY {order}"  # noqa: S608 - as above

        def read(con: duckdb.DuckDBPyConnection) -> polars.DataFrame:
            import polars

            found = polars.DataFrame(Stream(con.cursor().sql(kept, params={**params, "sort": sort})))
            if found.height == limit:
                return found
            rows = [row[0] for row in con.execute(first, params).fetchall()]
            return polars.DataFrame(Stream(con.cursor().sql(then, params={"rows": rows})))

        key = (first, *(tuple(value) if isinstance(value, list) else value for value in params.values()))
        return self._remembered(key, lambda: self._burst(read))

    def count(self, run_id: str, wanted: Filter = _EVERY) -> int:
        """How many comparisons of a run pass: from the tally where it says so, else by asking every row."""
        if wanted.tallied and (known := self._tallied(run_id, wanted)) is not None:
            return known
        if wanted.pairs is not None:
            return self._by_id(run_id, wanted, "rowid").height
        where, params = condition(run_id, wanted)
        frame = self._frame(f"SELECT count(*) AS n FROM comparison WHERE {_by_row(where)}", params)  # noqa: S608 - as above
        return int(frame["n"][0])

    def _by_id(self, run_id: str, wanted: Filter, order: str) -> polars.DataFrame:
        """The comparisons of pairs named by id: their row numbers from what is kept in memory, then those rows alone.

        To find fifty ids the database reads the id of every row, 28 ms of a million; sorted hashes in memory take none.
        """
        ids = [name for name in wanted.pairs or () if not name.startswith(PREFIX)]
        clauses, params = condition(run_id, wanted, by_row=True)
        sql = f"SELECT {ROW} FROM comparison WHERE {clauses} ORDER BY {order}"  # noqa: S608 - clauses of ours, values bound

        def read(con: duckdb.DuckDBPyConnection) -> polars.DataFrame:
            import polars

            rows = self._rows_of(con, run_id, ids)
            found = polars.DataFrame(Stream(con.cursor().sql(sql, params={**params, "rows": rows})))
            return found.filter(polars.col("pair_id").is_in(ids))  # two ids may have one hash

        return self._remembered(
            (sql, *ids, *(tuple(v) if isinstance(v, list) else v for v in params.values())), lambda: self._burst(read)
        )

    def _rows_of(self, con: duckdb.DuckDBPyConnection, run_id: str, ids: Sequence[str]) -> list[int]:
        """The row numbers of ids, and perhaps a few more; the hashes of one run are kept in order, 8 bytes a row."""
        import polars

        version = self.version()
        if self._places is None or self._places[:2] != (run_id, version):
            sql = (
                "SELECT (hash(pair_id) >> 32)::UINTEGER AS h, rowid::UINTEGER AS at FROM comparison "
                "WHERE run_id = $run ORDER BY h"
            )
            frame = polars.DataFrame(Stream(con.cursor().sql(sql, params={"run": run_id})))
            self._places = (run_id, version, frame["h"], frame["at"])
        _, _, hashes, rows = self._places
        if not ids or not len(hashes):
            return []
        wanted = con.execute("SELECT (hash(unnest($ids)) >> 32)::UINTEGER", {"ids": list(ids)}).fetchall()
        sought = polars.Series([row[0] for row in wanted], dtype=polars.UInt32)
        ends = zip(hashes.search_sorted(sought, "left"), hashes.search_sorted(sought, "right"), strict=True)
        return [row for first, last in ends for row in rows[first:last].to_list()]

    def _tallied(self, run_id: str, wanted: Filter) -> int | None:
        """How many comparisons pass a filter by columns, outcomes, flips and the label; ``None`` where that was not
        counted.
        """
        facet, value, across, other = wanted.cell
        narrowed = ["value = $value", "other = $other"]
        params: dict[str, Any] = {"run": run_id, "facet": facet, "across": across, "value": value, "other": other}
        if wanted.outcomes:
            narrowed.append("outcome IN (SELECT unnest($outcomes))")
            params["outcomes"] = list(wanted.outcomes)
        narrowed += ["flipped"] * wanted.flipped + ["against"] * wanted.against_label
        sql = (
            f"SELECT count(*) AS counted, coalesce(sum(n) FILTER ({' AND '.join(narrowed)}), 0)::BIGINT AS n "  # noqa: S608 - clauses of ours, values bound
            "FROM tally WHERE run_id = $run AND facet = $facet AND across = $across"
        )
        for turned in (False, True):  # two columns are counted in one order
            if turned:
                params |= {"facet": across, "across": facet, "value": other, "other": value}
            counted, n = self._frame(sql, params).row(0)
            if counted:
                return int(n)
            if not across:
                break
        return None

    def detail(self, run_id: str, pair_id: str) -> Detail:
        """Texts, comparisons and raw calls of one pair; raises ``StoreError`` where the run has no such pair."""

        def read(con: duckdb.DuckDBPyConnection) -> Detail:
            row = con.execute("SELECT body FROM pair WHERE run_id = ? AND pair_id = ?", [run_id, pair_id]).fetchone()
            if row is None:
                raise StoreError(f"run {run_id} has no pair {pair_id!r}")
            found = con.execute(
                "SELECT * FROM comparison WHERE run_id = ? AND pair_id = ? ORDER BY repeat", [run_id, pair_id]
            )
            names = [column[0] for column in found.description]
            comparisons = tuple(dict(zip(names, values, strict=True)) for values in found.fetchall())
            calls = con.execute(
                "SELECT key, placement, repeat, body FROM reply WHERE run_id = ? AND pair_id = ? "
                "ORDER BY repeat, placement DESC",
                [run_id, pair_id],
            ).fetchall()
            return Detail(
                journal.decode_pair(orjson.loads(row[0])),
                comparisons,
                tuple(
                    Call(key, placement, repeat, journal.decode_reply(orjson.loads(body)), orjson.loads(body))
                    for key, placement, repeat, body in calls
                ),
            )

        return self._remembered(("detail", run_id, pair_id), lambda: self._burst(read))

    def canaries(self, info: RunInfo) -> CanaryVerdict:
        """What the canary pairs of a run say, void or not, as its report does."""
        sql = f"SELECT * FROM comparison WHERE run_id = $run AND {CANARY} ORDER BY pair_id, repeat"  # noqa: S608 - ours
        found = self._frame(sql, {"run": info.run_id, **canary_bounds()})
        twins = [orjson.loads(text).get("of", "") for text in found["metadata"].to_list()]
        sql = "SELECT * FROM comparison WHERE run_id = $run AND pair_id IN (SELECT unnest($twins))"
        return canary_verdict(info.header, found, self._frame(sql, {"run": info.run_id, "twins": twins}))

    def pairs(self, run_id: str, pair_ids: Sequence[str]) -> dict[str, Pair]:
        """The texts of these pairs by id."""
        return {pair.id: pair for pair in self.store.pairs(run_id, pair_ids)}

    def rejudged(self, before: str, after: str) -> polars.DataFrame:
        """The pairs that two runs share with the very same answers: outcome and preference of both, in order of id.

        Columns: ``pair_id``, ``prompt``, ``category``, ``old``, ``new`` (outcomes), ``old_preference``,
        ``new_preference``, ``label``. First repeats only.
        """
        sql = """
            WITH answers AS (
                SELECT run_id, pair_id, hash(json_extract_string(body, '$.candidate.text'),
                    json_extract_string(body, '$.baseline.text')) AS said FROM pair WHERE run_id IN ($before, $after)
            ), same AS (
                SELECT b.pair_id FROM answers b JOIN answers a ON a.pair_id = b.pair_id AND a.said = b.said
                WHERE b.run_id = $before AND a.run_id = $after
            )
            SELECT b.pair_id, b.prompt_digest AS prompt, b.category, b.outcome AS old, a.outcome AS new,
                b.preference AS old_preference, a.preference AS new_preference, coalesce(b.label, a.label) AS label
            FROM comparison b JOIN comparison a ON a.pair_id = b.pair_id AND a.repeat = 0 AND a.run_id = $after
            JOIN same ON same.pair_id = b.pair_id WHERE b.run_id = $before AND b.repeat = 0
                AND NOT starts_with(b.pair_id, $canary) ORDER BY b.pair_id
        """
        return self._frame(sql, {"before": before, "after": after, "canary": PREFIX})

    def _burst(self, read: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Open the file, read, close it; one burst at a time, with a pause for writers after each stretch of them.

        A writer looks for a moment without readers every 50 ms: sessions that follow each other without a gap would
        keep it out for as long as they ask.
        """
        if (held := getattr(self._open, "con", None)) is not None:
            return read(held)
        with self._turn:
            now = time.monotonic()
            if now - self._closed > _PAUSE:
                self._since = now
            elif now - self._since > _STRETCH:
                time.sleep(_PAUSE)
                self._since = time.monotonic()
            try:
                with reading(self.store.path) as con:
                    self.opened += 1
                    return read(con)
            finally:
                self._closed = time.monotonic()

    def _rows(self, sql: str, params: list[Any]) -> list[tuple[Any, ...]]:
        if not self.store.path.exists():
            return []
        return self._remembered((sql, *params), lambda: self._burst(lambda con: con.execute(sql, params).fetchall()))

    def _frame(self, sql: str, params: dict[str, Any]) -> polars.DataFrame:
        """A query's answer as a frame."""
        import polars

        def read(con: duckdb.DuckDBPyConnection) -> polars.DataFrame:
            return polars.DataFrame(Stream(con.cursor().sql(sql, params=params)))

        key = (sql, *(tuple(value) if isinstance(value, list) else value for value in params.values()))
        return self._remembered(key, lambda: self._burst(read))

    def _remembered(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """An answer that was given since the database last changed, or a fresh one.

        While a writer holds the database for longer than a reader waits, the last answer stands.
        """
        version = self.version()
        with self._lock:
            known = self._answers.get(key)
            if known is not None and known[0] == version:
                self._answers.move_to_end(key)
                return known[1]  # type: ignore[no-any-return]
        try:
            made = make()
        except StoreError as error:
            if known is None or "another process holds" not in str(error):
                raise
            return known[1]  # type: ignore[no-any-return]
        with self._lock:
            self._answers[key] = (version, made)
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return made


def _by_row(where: str) -> str:
    """The same condition with canary pairs left out by row number, so that no id of a million is read."""
    return where.replace(NO_CANARY, NO_CANARY_ROW)
