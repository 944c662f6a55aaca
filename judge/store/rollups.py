"""A run added up once, when it is brought in: sums by cell, from which every page's figures follow by arithmetic.

A cell is a column and its value (and a second column for two-way tables). Columns are the category, every field of the
items' metadata that takes few values, the label that the eval set brought, and a few made here: ``length`` and
``confidence`` in bands, ``consistent``, and ``sequence`` (the run cut into equal stretches in the order of judging).

Sums over prompts are kept beside sums over rows, so that the intervals are the clustered ones, exactly, and not those
of independent rows (``calibration/sums.py``). Run id and bins of confidence never meet in one key: their product would
be as large as the run.

Rows are added up in portions of whole prompts, so that memory does not grow with the run. They are laid
in the order of their portions first (on disk, where memory is short), so that each portion is read by itself and the
time grows as the run does.

Beside the sums, what filters and sorts need so that a page of a large run reads few rows: how many comparisons each
cell has by outcome, flip and label (``tally``), and copies of the first rows under each order that is offered
(``leading_row``). Both stand on the expressions of ``listing.py``, as the plain query does that answers the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canaries import PREFIX
from .database import Stream
from .listing import AGAINST, COLUMNS, FLIPPED, NO_CANARY, OUTCOME, ROW, SORTS, canary_bounds, ordered, pointer

if TYPE_CHECKING:
    import duckdb
    import polars

__all__ = [
    "CONFIDENCE_BINS",
    "LEADING",
    "LEADS_FROM",
    "LENGTH_BINS",
    "MEASURES",
    "STRETCHES",
    "TABLES",
    "VERSION",
    "keep",
    "roll_up_files",
    "take_out",
]

VERSION = 2
"""Raised when what is derived changes its meaning; runs that an older version added up are then added up anew."""

TABLES = ("rollup", "histogram", "tally", "leading_row", "rolled")
"""The derived tables, written together for one run."""

CONFIDENCE_BINS = 20
"""Equal bins of confidence from 0.5 to 1."""
LENGTH_BINS = 24
"""Equal bins of log2(candidate + 1 / baseline + 1 characters) from -3 to 3; what lies beyond is in the last ones."""
STRETCHES = 40
"""Into how many equal stretches a run is cut for control charts."""

MEASURES = (
    "net",
    "win",
    "tie",
    "loss",
    "invalid",
    "flip",
    "preference",
    "confidence",
    "refusal",
    "length",
    "candidate_length",
    "right",
    "cost",
    "first",
)
"""What is added up: columns of ``_BASE``; a row where one is NULL does not count for it."""
_TWO_WAY = MEASURES[:6]
"""What is added up by two columns at once."""

LEADING = 8192
"""How many first rows of each order are kept."""
LEADS_FROM = 100_000
"""Rows from which a run has them; of a smaller one a sorted page takes about 10 ms without."""

_PORTION = 100_000
_MEMORY = "256MB"
_MOST_VALUES = 60
_MOST_FIELDS = 8
_MOST_CELLS = 600

_BASE = f"""
SELECT hash(prompt_digest) AS prompt,
    CASE outcome WHEN 'win' THEN 1 WHEN 'loss' THEN -1 WHEN 'tie' THEN 0 END::DOUBLE AS net,
    preference,
    CASE WHEN outcome IS NOT NULL THEN NOT coalesce(consistent, FALSE) END::DOUBLE AS flip,
    (outcome IS NULL)::DOUBLE AS invalid,
    coalesce(invalid = 'refusal', FALSE)::DOUBLE AS refusal,
    ln((candidate_chars + 1) / (baseline_chars + 1)) AS length,
    candidate_chars::DOUBLE AS candidate_length,
    ((cf_outcome IN ('win', 'loss')) IS TRUE)::DOUBLE + ((bf_outcome IN ('win', 'loss')) IS TRUE)::DOUBLE AS n_first,
    ((cf_outcome = 'win') IS TRUE)::DOUBLE + ((bf_outcome = 'loss') IS TRUE)::DOUBLE AS first,
    CASE WHEN label IN ('win', 'loss') AND outcome IS NOT NULL THEN
        CASE WHEN preference = 0.5 THEN 0.5 ELSE ((preference > 0.5) = (label = 'win'))::DOUBLE END END AS "right",
    cost,
    {", ".join(f"{column} AS f_{name}" for name, column in COLUMNS.items())},
    lpad(((place - 1) * $stretches // $rows)::VARCHAR, 2, '0') AS f_sequence,
    {OUTCOME} AS state, ({FLIPPED}) AS flipped, ({AGAINST}) IS TRUE AS against
"""
_READ = (
    "pair_id, repeat, prompt_digest, category, metadata, label, outcome, invalid, preference, consistent, confidence, "
    "cost, cf_outcome, bf_outcome, candidate_chars, baseline_chars, flags"
)
"""The columns of a comparison that ``_BASE`` and ``_leading`` read."""
_MADE = (*COLUMNS, "sequence")
_CROSSED = ("label", "length")
"""Columns made here that are also crossed with the segments; what the judge said by what the judge said is no table."""
_STATES = tuple(product(("win", "tie", "loss", "invalid"), (False, True), (False, True)))
"""What is told apart in the tally: outcome, whether the orders differ, whether the label names the other side."""


def take_out(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path) -> None:
    """Copy what is added up of one run into a file of ``folder``, for ``roll_up_files``; ``con`` is only read.

    Adding a million rows up takes many seconds, copying them out a moment: nobody is kept from writing for longer.
    """
    path = _text(str(folder / "comparison-000000.parquet"))
    con.execute(f"SET memory_limit = '{_MEMORY}'")
    con.execute(
        f"COPY (SELECT {_READ} FROM comparison WHERE run_id = $run) TO {path} (FORMAT parquet, COMPRESSION lz4)",  # noqa: S608 - columns of ours
        {"run": run_id},
    )


def roll_up_files(folder: Path, run_id: str) -> None:
    """Add one run's comparisons up, from their Parquet files in ``folder`` into files beside them, for ``keep``.

    The order of the files and of their rows is the order of judging.
    """
    import duckdb

    files = sorted(str(path) for path in folder.glob("comparison-*.parquet"))
    if not files:
        return
    path = folder / "sums.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(f"SET memory_limit = '{_MEMORY}'")
        con.execute("SET enable_progress_bar = false")
        (rows,) = con.execute("SELECT count(*) FROM read_parquet(?)", [files]).fetchone() or (0,)
        portions = max(1, -(-rows // _PORTION))
        con.execute(
            f"CREATE TABLE comparison AS SELECT {_READ}, row_number() OVER () AS place, "  # noqa: S608 - columns of ours
            "hash(prompt_digest) % $portions AS portion FROM read_parquet($files)"
            + (" ORDER BY portion, place" if portions > 1 else ""),
            {"files": files, "portions": portions},
        )
        _add_up(con, run_id, folder, (rows, portions))
    path.unlink()


def _add_up(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path, size: tuple[int, int]) -> None:
    """Sums, bins and tally of the rows that ``roll_up_files`` has laid in order, and the first of each order."""
    import polars

    rows, portions = size
    sums, bins = _Sums(_fields(con)), _Bins()
    # The rows of a portion stand together, and the bounds of each block say which blocks hold it.
    sql = f"{_BASE}{sums.columns} FROM comparison WHERE NOT starts_with(pair_id, $prefix) AND portion = $portion"
    for portion in range(portions if rows else 0):
        params = {"prefix": PREFIX, "stretches": STRETCHES, "rows": rows, "portion": portion}
        frame = polars.DataFrame(Stream(con.cursor().sql(sql, params=params)))
        sums.add(frame)
        bins.add(frame)
    made = {"rollup": sums.rows(run_id), "histogram": bins.rows(run_id), "tally": sums.tally(run_id)}
    if rows > LEADS_FROM:
        made["leading_row"] = _leading(con, run_id)
    for table, frame in made.items():
        if frame.height:
            frame.write_parquet(folder / f"sums-{table}.parquet")


def _leading(con: duckdb.DuckDBPyConnection, run_id: str) -> polars.DataFrame:
    """The first ``LEADING`` rows under each order that is not the order of judging."""
    import polars

    made = []
    for sort in (sort for sort, key in SORTS.items() if key):
        order = ordered(sort, "place")
        first = f"SELECT place FROM comparison WHERE {NO_CANARY} ORDER BY {order} LIMIT {LEADING}"  # noqa: S608 - ours
        rows = [row[0] for row in con.execute(first, canary_bounds()).fetchall()]
        then = (
            "SELECT $run AS run_id, $sort AS sort, (row_number() OVER () - 1)::INTEGER AS place, * FROM "  # noqa: S608 - columns of ours
            f"(SELECT {ROW}, metadata FROM comparison WHERE place IN (SELECT unnest($rows)) ORDER BY {order})"
        )
        made.append(
            polars.DataFrame(Stream(con.cursor().sql(then, params={"run": run_id, "sort": sort, "rows": rows})))
        )
    return polars.concat(made)


def keep(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path) -> None:
    """Replace what is derived of one run by what ``roll_up_files`` left in ``folder``: a moment's work in a burst of
    writing.
    """
    for table in TABLES:
        con.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])  # noqa: S608 - a name from the tuple
        path = folder / f"sums-{table}.parquet"
        if path.exists():
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(path)])  # noqa: S608
            path.unlink()
    con.execute("INSERT INTO rolled VALUES (?, ?)", [run_id, VERSION])


def _fields(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Fields of the metadata that take from two to ``_MOST_VALUES`` values, those with the fewest first."""
    rows = con.execute(
        "WITH seen AS (SELECT DISTINCT metadata FROM comparison "
        "WHERE NOT starts_with(pair_id, ?) AND metadata <> '{}'), "
        "pairs AS (SELECT unnest(json_keys(metadata)) AS name, metadata FROM seen) "
        "SELECT name, count(DISTINCT json_extract_string(metadata, "
        "'/' || replace(replace(name, '~', '~0'), '/', '~1'))) AS many FROM pairs GROUP BY name "
        "HAVING many BETWEEN 2 AND ? ORDER BY many, name",
        [PREFIX, _MOST_VALUES],
    ).fetchall()
    return [str(name) for name, _many in rows if name not in _MADE][:_MOST_FIELDS]


@dataclass(slots=True)
class _Cells:
    """Sums of one column, or of two crossed: by pair of values, then by measure, seven sums."""

    names: tuple[str, ...]
    sums: dict[tuple[str, ...], Any]
    counts: dict[tuple[str, ...], Any]
    """How many rows each pair of values has in each of ``_STATES``."""
    dropped: bool = False
    """Whether it has too many cells to be a table that anybody reads; nothing of it is kept then."""


class _Sums:
    """The sums of all cells, added up over portions of whole prompts."""

    def __init__(self, fields: list[str]) -> None:
        self.facets = {name: f"f_{name}" for name in _MADE} | {name: f"f_{k}" for k, name in enumerate(fields)}
        self.columns = "".join(
            f",\n    coalesce(json_extract_string(metadata, {_text(pointer(name))}), '') AS f_{k}"
            for k, name in enumerate(fields)
        )
        segments = ["category", *fields]
        crossed = [*combinations(segments, 2), *((name, other) for name in segments for other in _CROSSED)]
        names: list[tuple[str, ...]] = [(), *((name,) for name in self.facets), *crossed]
        self.cells = [_Cells(cell, {}, {}) for cell in names]

    def add(self, frame: polars.DataFrame) -> None:
        """Add a portion up."""
        import numpy as np
        import polars

        frame = frame.with_columns(
            *(
                (polars.col("net") == value).cast(polars.Float64).alias(name)
                for name, value in (("win", 1.0), ("tie", 0.0), ("loss", -1.0))
            ),
            confidence=polars.max_horizontal("preference", 1 - polars.col("preference")),
        )
        values, counts = {}, {}
        for name in MEASURES:
            x = frame[name].to_numpy().astype(float)
            known = np.isfinite(x)
            counts[name] = frame["n_first"].to_numpy() if name == "first" else known.astype(float)
            values[name] = np.where(known, x, 0.0)
        codes = {name: _coded(frame[column]) for name, column in self.facets.items()}
        states = _coded_states(frame)
        prompts = np.unique(frame["prompt"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        alone = bool(len(prompts) == prompts.max(initial=-1) + 1)
        for cell in self.cells:
            named, where = _crossed([codes[name] for name in cell.names], frame.height)
            if len({*cell.sums, *named}) > _MOST_CELLS:
                cell.dropped = True
                cell.sums.clear()
                cell.counts.clear()
            if cell.dropped:
                continue
            groups = None
            if not alone:
                groups = np.unique(prompts * len(named) + where, return_inverse=True)[1]
            measures = MEASURES if len(cell.names) < 2 else _TWO_WAY
            table = np.stack([_seven(values[name], counts[name], where, groups, len(named)) for name in measures], 1)
            for k, key in enumerate(named):
                cell.sums[key] = cell.sums.get(key, 0.0) + table[k]
            tally = np.bincount(where * len(_STATES) + states, minlength=len(named) * len(_STATES))
            for key, counts_of in zip(named, tally.reshape(len(named), len(_STATES)), strict=True):
                cell.counts[key] = cell.counts.get(key, 0) + counts_of

    def rows(self, run_id: str) -> polars.DataFrame:
        """The sums as rows of the table ``rollup``."""
        import polars

        made: list[tuple[Any, ...]] = []
        for cell in self.cells:
            for key, table in cell.sums.items():
                facet, across = (*cell.names, "", "")[:2]
                value, other = (*key, "", "")[:2]
                for measure, (n, *sums) in zip(MEASURES, table.tolist(), strict=False):
                    if n > 0:
                        made.append((run_id, facet, value, across, other, measure, n, *sums))
        names = ("run_id", "facet", "value", "across", "other", "measure")
        sums = ("n", "total", "squares", "clusters", "tt", "tn", "nn")
        schema = {**dict.fromkeys(names, polars.String), **dict.fromkeys(sums, polars.Float64)}
        frame = polars.DataFrame(made, schema=schema, orient="row")
        return frame.with_columns(polars.col("n", "clusters").cast(polars.Int64))

    def tally(self, run_id: str) -> polars.DataFrame:
        """The counts as rows of the table ``tally``."""
        import polars

        made: list[tuple[Any, ...]] = []
        for cell in self.cells:
            if cell.names == ("sequence",):
                continue  # no filter: a row does not say in which stretch of the run it stands
            for key, counts in cell.counts.items():
                facet, across = (*cell.names, "", "")[:2]
                value, other = (*key, "", "")[:2]
                for state, n in zip(_STATES, counts.tolist(), strict=True):
                    if n > 0:
                        made.append((run_id, facet, value, across, other, *state, n))
        names = dict.fromkeys(("run_id", "facet", "value", "across", "other", "outcome"), polars.String())
        kinds: Any = {**names, "flipped": polars.Boolean(), "against": polars.Boolean(), "n": polars.Int64()}
        return polars.DataFrame(made, schema=kinds, orient="row")


def _coded_states(frame: polars.DataFrame) -> Any:
    """For each row, which of ``_STATES`` it is in."""
    import numpy as np
    import polars

    outcomes = [outcome for outcome, *_rest in _STATES[::4]]
    outcome = frame["state"].cast(polars.Enum(outcomes)).to_physical().to_numpy().astype(np.int64)
    return outcome * 4 + frame["flipped"].to_numpy() * 2 + frame["against"].to_numpy()


def _seven(x: Any, n: Any, where: Any, groups: Any, cells: int) -> Any:
    """For each cell: rows, sum, sum of squares, prompts, and the sums of squares and products over prompts."""
    import numpy as np

    def by_cell(weights: Any, at: Any) -> Any:
        return np.bincount(at, weights=weights, minlength=cells)

    squares = by_cell(x * x, where)
    if groups is None:  # each prompt has one row: sums over prompts are those over rows
        rows, total = by_cell(n, where), by_cell(x, where)
        if n.max(initial=0.0) <= 1.0:  # and that row counts once or not at all
            each = rows, squares, total, rows
        else:
            each = by_cell((n > 0).astype(float), where), squares, by_cell(x * n, where), by_cell(n * n, where)
        return np.stack([rows, total, squares, *each], axis=1)
    total, rows = np.bincount(groups, weights=x), np.bincount(groups, weights=n)
    at = np.zeros(len(total), dtype=np.int64)
    at[groups] = where
    return np.stack(
        [
            by_cell(n, where),
            by_cell(x, where),
            squares,
            by_cell((rows > 0).astype(float), at),
            by_cell(total * total, at),
            by_cell(total * rows, at),
            by_cell(rows * rows, at),
        ],
        axis=1,
    )


def _coded(column: polars.Series) -> tuple[list[str], Any]:
    """The values of a column and, for each row, which of them it has."""
    import polars

    values = sorted(column.unique().to_list())
    return values, column.cast(polars.Enum(values)).to_physical().to_numpy()


def _crossed(coded: list[tuple[list[str], Any]], height: int) -> tuple[list[tuple[str, ...]], Any]:
    """The cells of one or two coded columns, and for each row the cell that it is in."""
    import numpy as np

    if not coded:
        return [()], np.zeros(height, dtype=np.int64)
    names, where = coded[0]
    if len(coded) == 1:
        return [(name,) for name in names], where.astype(np.int64)
    others, at = coded[1]
    return [(name, other) for name in names for other in others], where.astype(np.int64) * len(others) + at


class _Bins:
    """Histograms of confidence and length, added up over portions."""

    _KEPT = ("n", "win", "tie", "loss", "flipped", "labelled", "agreed", "mean")

    def __init__(self) -> None:
        self.sums: dict[tuple[str, int], Any] = {}

    def add(self, frame: polars.DataFrame) -> None:
        """Add a portion up; ``mean`` is a sum until ``rows``."""
        import numpy as np
        import polars

        axes = {
            "confidence": (
                polars.max_horizontal("preference", 1 - polars.col("preference")),
                0.5,
                CONFIDENCE_BINS,
                0.5,
            ),
            "length": (polars.col("length") / np.log(2), -3.0, LENGTH_BINS, 6.0),
        }
        for axis, (value, low, bins, width) in axes.items():
            made = (
                frame.with_columns(x=value)
                .filter(polars.col("x").is_not_null())
                .group_by(
                    ((polars.col("x") - low) / width * bins).floor().clip(0, bins - 1).cast(polars.Int32).alias("bin")
                )
                .agg(
                    polars.len().alias("n"),
                    *(
                        (polars.col("net") == sign).sum().alias(name)
                        for name, sign in (("win", 1), ("tie", 0), ("loss", -1))
                    ),
                    (polars.col("flip") == 1).sum().alias("flipped"),
                    polars.col("right").count().alias("labelled"),
                    polars.col("right").sum().alias("agreed"),
                    polars.col("x").sum().alias("mean"),
                )
            )
            for row in made.iter_rows(named=True):
                key = axis, row["bin"]
                self.sums[key] = self.sums.get(key, 0.0) + np.array([row[name] for name in self._KEPT], dtype=float)

    def rows(self, run_id: str) -> polars.DataFrame:
        """The bins as rows of the table ``histogram``."""
        import polars

        made = [
            (run_id, axis, place, *table[:-1].tolist(), table[-1] / table[0])
            for (axis, place), table in sorted(self.sums.items())
        ]
        whole: dict[str, Any] = dict.fromkeys(self._KEPT[:6], polars.Int64)
        types: dict[str, Any] = {"run_id": polars.String, "axis": polars.String, "bin": polars.Int32}
        names = (*types, *self._KEPT)
        frame = polars.DataFrame(made, schema=list(names), orient="row", infer_schema_length=None)
        kinds: Any = {**types, **whole, "agreed": polars.Float64, "mean": polars.Float64}
        return frame.cast(kinds) if made else frame


def _text(value: str) -> str:
    """A string as an SQL literal: names of fields come from files."""
    return "'" + value.replace("'", "''") + "'"
