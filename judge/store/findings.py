"""What suites found, in DuckDB: brought in from the files under ``checks/``, listed, read pair by pair.

``checks/<id>.jsonl`` of a home folder holds one pass: a header, every finding that failed or could not be made, and a
seal with the counts; each line carries a CRC, like a run's journal. The database is a view of those files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import journal
from ..errors import JournalError, StoreError
from ..types import Finding, Measure, Severity, Span
from .database import reading, writing
from .scratch import scratch

if TYPE_CHECKING:
    import polars

__all__ = ["CheckRun", "Findings"]

_TABLES = ("check_run", "check_count", "finding")
_CHUNK = 20_000
_COUNTS = (
    "n", "candidate_failed", "baseline_failed", "candidate_unjudged", "baseline_unjudged", "broken", "fixed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckRun:
    """One pass of a suite: over which run (``None``: an eval set without a judge), and its report as plain values."""

    check_id: str
    created_at: str
    run_id: str | None
    suite: str
    evalset: str
    pairs: int
    findings: int
    report: Mapping[str, Any]

    @property
    def measures(self) -> dict[str, Measure]:
        """The measures of the report as values, by name."""
        return {row["name"]: _measure(row) for row in self.report["measures"]}


class Findings:
    """The findings of one home folder.

    ``path`` is the database (default: that of the home folder).
    """

    def __init__(self, home: Path, *, path: Path | None = None) -> None:
        self.home = home
        self.path = path or home / "judge.duckdb"
        self.folder = home / "checks"

    def file(self, check_id: str) -> Path:
        """Where a pass is kept."""
        return self.folder / f"{check_id}.jsonl"

    def ingest(self, path: Path) -> int:
        """Replace one pass's rows by what its file says; returns the number of findings. Safe to repeat.

        Raises ``JournalError`` for a file that is damaged, a copy, or has no end.
        """
        header, seal = _ends(path)
        self.home.mkdir(parents=True, exist_ok=True)
        name = header["check_id"]
        with scratch(self.home, "ingest") as folder:
            count = _parquet(path, header, folder)
            with writing(self.path) as con:
                # As for runs: the pass is listed by its last statement; what a crash leaves before it is deleted anew.
                for table in _TABLES:
                    con.execute(f"DELETE FROM {table} WHERE check_id = ?", [name])  # noqa: S608 - a name from the tuple
                for part in sorted(folder.glob("finding-*.parquet")):
                    con.execute("INSERT INTO finding BY NAME SELECT * FROM read_parquet(?)", [str(part)])
                for result in seal["report"]["results"]:
                    row = [name, result["check"], result["severity"], result["layer"], result["axis"]]
                    con.execute(
                        f"INSERT INTO check_count VALUES ({', '.join('?' * 12)})",  # noqa: S608 - question marks
                        [*row, *(result[column] for column in _COUNTS)],
                    )
                con.execute(
                    "INSERT INTO check_run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        name, header["created_at"], header.get("run_id"), header["suite"], header["suite_digest"],
                        header["evalset"], seal["report"]["pairs"], count, orjson.dumps(seal["report"]).decode(),
                    ],
                )  # fmt: skip
        return count

    def catch_up(self) -> list[str]:
        """Bring in passes that the database does not hold; returns what could not be read."""
        bad = []
        known = {run.check_id for run in self.runs()}
        for path in sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else ():
            if path.stem not in known:
                try:
                    self.ingest(path)
                except JournalError as error:
                    bad.append(str(error))
        return bad

    def runs(self, run_id: str | None = None) -> list[CheckRun]:
        """All passes, newest first, or those over one run; empty where no database exists."""
        if not self.path.exists():
            return []
        with reading(self.path) as con:
            rows = con.execute(
                "SELECT check_id, created_at, run_id, suite, evalset, pairs, findings, body FROM check_run "
                "WHERE ? IS NULL OR run_id = ? ORDER BY created_at DESC, check_id DESC",
                [run_id, run_id],
            ).fetchall()
        return [
            CheckRun(name, made, over, suite, evalset, pairs, count, orjson.loads(body))
            for name, made, over, suite, evalset, pairs, count, body in rows
        ]

    def run(self, check_id: str) -> CheckRun:
        """One pass by id or unique prefix; raises ``StoreError`` naming what exists."""
        every = self.runs()
        found = [run for run in every if run.check_id == check_id] or [
            run for run in every if run.check_id.startswith(check_id)
        ]
        if len(found) != 1:
            names = ", ".join(run.check_id for run in (found or every)[:5]) or "none; make one with `judge check RUN`"
            raise StoreError(f"{check_id!r} {'is ambiguous' if found else 'is no pass of a suite here'}: {names}")
        return found[0]

    def of_pair(self, pair_id: str, *, run_id: str | None = None, check_id: str | None = None) -> list[Finding]:
        """The findings on one pair, of a run's latest pass or of one pass."""
        if not self.path.exists():
            return []
        with reading(self.path) as con:
            rows = con.execute(
                'SELECT "check", pair_id, side, passed, severity, detail, spans FROM finding WHERE pair_id = ? AND '
                "check_id = coalesce(?, (SELECT check_id FROM check_run WHERE run_id = ? ORDER BY created_at DESC, "
                'check_id DESC LIMIT 1)) ORDER BY "check", side',
                [pair_id, check_id, run_id],
            ).fetchall()
        return [_finding(row) for row in rows]

    def frame(self, check_id: str) -> polars.DataFrame:
        """Every finding of a pass as a frame, in the order of pair, check and side (columns as in
        ``schema/003_findings.sql``).
        """
        import polars

        from .database import Stream

        with reading(self.path) as con:
            relation = con.cursor().sql(
                'SELECT * FROM finding WHERE check_id = $id ORDER BY pair_id, "check", side', params={"id": check_id}
            )
            return polars.DataFrame(Stream(relation))


def _measure(row: Mapping[str, Any]) -> Measure:
    from calibration.estimates import Estimate

    fields = dict(row)
    for name in ("candidate", "baseline", "difference"):
        if fields[name] is not None:
            # An open end of an interval is null in JSON.
            ends = {"low": -math.inf, "high": math.inf}
            given: dict[str, Any] = {
                key: ends.get(key) if value is None else value for key, value in fields[name].items()
            }
            fields[name] = Estimate(**given)
    return Measure(**{**fields, "examples": tuple(fields["examples"])})


def _finding(row: Sequence[Any]) -> Finding:
    check, pair_id, side, passed, severity, detail, spans = row
    places = tuple(Span(start, end, note) for start, end, note in orjson.loads(spans))
    return Finding(check, pair_id, side, passed, Severity(severity), detail, places)


def _ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and seal of a pass."""
    header = last = None
    for last in journal.records(path, head="check"):
        header = header or last
    if header is None or last is None or last["t"] != "seal":
        raise JournalError(f"{path}: it has no end; the pass was cut off: delete the file and check again")
    if header["check_id"] != path.stem:
        raise JournalError(f"{path}: this is a copy of pass {header['check_id']}; keep copies in another folder")
    return header, last


def _records(path: Path) -> Iterator[dict[str, Any]]:
    return (record for record in journal.records(path, head="check") if record["t"] == "finding")


def _parquet(path: Path, header: Mapping[str, Any], folder: Path) -> int:
    """Write the findings of a pass as Parquet files of bounded size; returns their number."""
    import polars

    schema = dict.fromkeys(
        ("check_id", "run_id", "pair_id", "side", "check", "severity", "detail", "spans"), polars.String
    )
    batch: list[dict[str, Any]] = []
    count = 0

    def flush() -> None:
        if batch:
            frame = polars.DataFrame(batch, schema={**schema, "passed": polars.Boolean})
            frame.write_parquet(folder / f"finding-{count:09}.parquet")
            batch.clear()

    for record in _records(path):
        count += 1
        row = {name: record.get(name) for name in ("pair_id", "side", "check", "severity", "passed", "detail")}
        spans = orjson.dumps(record["spans"]).decode()
        batch.append({"check_id": header["check_id"], "run_id": header.get("run_id"), **row, "spans": spans})
        if len(batch) == _CHUNK:
            flush()
    flush()
    return count
