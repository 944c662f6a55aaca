"""A run added up once, when it is brought in: sums by cell, from which every page's figures follow by arithmetic.

A cell is a column and its value (and a second column for two-way tables). Columns are the category, every field of the
items' metadata that takes few values, the label that the eval set brought, and a few made here: ``length`` and
``confidence`` in bands, ``consistent``, and ``sequence`` (the run cut into equal stretches in the order of judging).

Sums over prompts are kept beside sums over rows, so that the intervals are the clustered ones, exactly, and not those
of independent rows (``calibration/sums.py``). Run id and bins of confidence never meet in one key: their product would
be as large as the run. Rows are read in portions of whole prompts, so that memory does not grow with the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..canaries import PREFIX
from .database import Stream

if TYPE_CHECKING:
    import duckdb
    import polars

__all__ = [
    "CONFIDENCE_BINS",
    "LENGTH_BINS",
    "MEASURES",
    "STRETCHES",
    "TABLES",
    "VERSION",
    "keep",
    "roll_up",
    "roll_up_files",
]

VERSION = 1
"""Raised when the sums change their meaning; runs that an older version added up are then added up anew."""

TABLES = ("rollup", "histogram", "rolled")
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

_PORTION = 100_000
_MEMORY = "256MB"
_MOST_VALUES = 60
_MOST_FIELDS = 8
_MOST_CELLS = 600

_BASE = """
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
    category AS f_category,
    coalesce(label, '(none)') AS f_label,
    CASE WHEN outcome IS NULL THEN '(no verdict)' WHEN consistent THEN 'both orders agree' ELSE 'orders differ' END
        AS f_consistent,
    CASE WHEN preference IS NULL THEN '(no verdict)'
        WHEN greatest(preference, 1 - preference) < 0.6 THEN '0.5 to 0.6'
        WHEN greatest(preference, 1 - preference) < 0.7 THEN '0.6 to 0.7'
        WHEN greatest(preference, 1 - preference) < 0.8 THEN '0.7 to 0.8'
        WHEN greatest(preference, 1 - preference) < 0.9 THEN '0.8 to 0.9' ELSE '0.9 to 1' END AS f_confidence,
    CASE WHEN (candidate_chars + 1) / (baseline_chars + 1) < 0.5 THEN 'under half'
        WHEN (candidate_chars + 1) / (baseline_chars + 1) < 0.8 THEN 'shorter'
        WHEN (candidate_chars + 1) / (baseline_chars + 1) <= 1.25 THEN 'about equal'
        WHEN (candidate_chars + 1) / (baseline_chars + 1) <= 2 THEN 'longer' ELSE 'over double' END AS f_length,
    lpad(((rowid - $first) * $stretches // ($last - $first + 1))::VARCHAR, 2, '0') AS f_sequence{fields}
FROM comparison WHERE run_id = $run AND NOT starts_with(pair_id, $canary) AND hash(prompt_digest) % $portions = $portion
"""
_READ = (
    "run_id, pair_id, prompt_digest, category, metadata, label, outcome, invalid, preference, consistent, cost, "
    "cf_outcome, bf_outcome, candidate_chars, baseline_chars"
)
"""The columns of a comparison that ``_BASE`` reads."""
_MADE = ("category", "label", "consistent", "confidence", "length", "sequence")
_CROSSED = ("label", "length")
"""Columns made here that are also crossed with the segments; what the judge said by what the judge said is no table."""


def roll_up(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path) -> None:
    """Add one run's comparisons up into files of ``folder``, for ``keep``; ``con`` is only read.

    Adding up a million rows takes many seconds: whoever holds the database for writing does this elsewhere before.
    """
    import polars

    first, last, rows = con.execute(
        "SELECT min(rowid), max(rowid), count(*) FROM comparison WHERE run_id = ?", [run_id]
    ).fetchone() or (0, 0, 0)
    sums, bins = _Sums(_fields(con, run_id)), _Bins()
    portions = max(1, -(-rows // _PORTION))
    for portion in range(portions if rows else 0):
        span = {"first": first, "last": last, "stretches": STRETCHES}
        params = {"run": run_id, "canary": PREFIX, **span, "portions": portions, "portion": portion}
        frame = polars.DataFrame(Stream(con.cursor().sql(_BASE.format(fields=sums.columns), params=params)))
        sums.add(frame)
        bins.add(frame)
    for table, made in (("rollup", sums.rows(run_id)), ("histogram", bins.rows(run_id))):
        if made.height:
            made.write_parquet(folder / f"sums-{table}.parquet")


def keep(con: duckdb.DuckDBPyConnection, run_id: str, folder: Path) -> None:
    """Replace one run's sums by those that ``roll_up`` left in ``folder``: a moment's work in a burst of writing."""
    for table in TABLES:
        con.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])  # noqa: S608 - a name from the tuple
    for table in ("rollup", "histogram"):
        path = folder / f"sums-{table}.parquet"
        if path.exists():
            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(path)])  # noqa: S608
            path.unlink()
    con.execute("INSERT INTO rolled VALUES (?, ?)", [run_id, VERSION])


def roll_up_files(folder: Path, run_id: str) -> None:
    """The same from the Parquet files of comparisons in ``folder``, in a database of its own beside them."""
    import duckdb

    files = sorted(str(path) for path in folder.glob("comparison-*.parquet"))
    path = folder / "sums.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(f"SET memory_limit = '{_MEMORY}'")
        if files:
            con.execute(f"CREATE TABLE comparison AS SELECT {_READ} FROM read_parquet(?)", [files])  # noqa: S608 - columns of ours
            roll_up(con, run_id, folder)
    path.unlink()


def _fields(con: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """Fields of the metadata that take from two to ``_MOST_VALUES`` values, those with the fewest first."""
    rows = con.execute(
        "WITH seen AS (SELECT DISTINCT metadata FROM comparison "
        "WHERE run_id = ? AND NOT starts_with(pair_id, ?) AND metadata <> '{}'), "
        "pairs AS (SELECT unnest(json_keys(metadata)) AS name, metadata FROM seen) "
        "SELECT name, count(DISTINCT json_extract_string(metadata, "
        "'/' || replace(replace(name, '~', '~0'), '/', '~1'))) AS many FROM pairs GROUP BY name "
        "HAVING many BETWEEN 2 AND ? ORDER BY many, name",
        [run_id, PREFIX, _MOST_VALUES],
    ).fetchall()
    return [str(name) for name, _many in rows if name not in _MADE][:_MOST_FIELDS]


@dataclass(slots=True)
class _Cells:
    """Sums of one column, or of two crossed: by pair of values, then by measure, seven sums."""

    names: tuple[str, ...]
    sums: dict[tuple[str, ...], Any]
    dropped: bool = False
    """Whether it has too many cells to be a table that anybody reads; nothing of it is kept then."""


class _Sums:
    """The sums of all cells, added up over portions of whole prompts."""

    def __init__(self, fields: list[str]) -> None:
        self.facets = {name: f"f_{name}" for name in _MADE} | {name: f"f_{k}" for k, name in enumerate(fields)}
        self.columns = "".join(
            f",\n    coalesce(json_extract_string(metadata, {_text(_pointer(name))}), '') AS f_{k}"
            for k, name in enumerate(fields)
        )
        segments = ["category", *fields]
        crossed = [*combinations(segments, 2), *((name, other) for name in segments for other in _CROSSED)]
        names: list[tuple[str, ...]] = [(), *((name,) for name in self.facets), *crossed]
        self.cells = [_Cells(cell, {}) for cell in names]

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
        prompts = np.unique(frame["prompt"].to_numpy(), return_inverse=True)[1].astype(np.int64)
        alone = bool(len(prompts) == prompts.max(initial=-1) + 1)
        for cell in self.cells:
            named, where = _crossed([codes[name] for name in cell.names], frame.height)
            if len({*cell.sums, *named}) > _MOST_CELLS:
                cell.dropped = True
                cell.sums.clear()
            if cell.dropped:
                continue
            groups = None
            if not alone:
                groups = np.unique(prompts * len(named) + where, return_inverse=True)[1]
            measures = MEASURES if len(cell.names) < 2 else _TWO_WAY
            table = np.stack([_seven(values[name], counts[name], where, groups, len(named)) for name in measures], 1)
            for k, key in enumerate(named):
                cell.sums[key] = cell.sums.get(key, 0.0) + table[k]

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


def _seven(x: Any, n: Any, where: Any, groups: Any, cells: int) -> Any:
    """For each cell: rows, sum, sum of squares, prompts, and the sums of squares and products over prompts."""
    import numpy as np

    def by_cell(weights: Any, at: Any) -> Any:
        return np.bincount(at, weights=weights, minlength=cells)

    squares = by_cell(x * x, where)
    if groups is None:  # each prompt has one row: sums over prompts are those over rows
        each = by_cell((n > 0).astype(float), where), squares, by_cell(x * n, where), by_cell(n * n, where)
        return np.stack([by_cell(n, where), by_cell(x, where), squares, *each], axis=1)
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


def _pointer(name: str) -> str:
    """A JSON pointer (RFC 6901) to a field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _text(value: str) -> str:
    """A string as an SQL literal: names of fields come from files."""
    return "'" + value.replace("'", "''") + "'"
