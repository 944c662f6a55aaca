"""The runs of one home folder in DuckDB: brought in from their journals, audited, read.

Layout of a home folder (default ``.judge``): ``runs/<run id>.jsonl`` are the journals, ``judge.duckdb`` is the view.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import failpoints, journal, signs
from ..canaries import PREFIX
from ..errors import JournalError, StoreError
from ..ledger import Ledger
from ..types import JudgeId, Order, Pair
from ..writing import write_whole
from .columns import write_segments
from .database import ONE_THREAD, Stream, reading, writing
from .findings import Findings
from .known import ReplyCache
from .rollups import VERSION, keep, roll_up_files, take_out
from .rows import (
    TABLES,
    TYPES,
    comparison_row,
    identity,
    row_digest,
    rows_of,
    run_row,
    settled,
    settled_records,
)
from .scratch import scratch

if TYPE_CHECKING:
    import duckdb
    import polars

    from calibration.confidence import Calibration

__all__ = ["Audit", "RunInfo", "Store", "list_runs"]

AGAIN = "evalsets"
"""The folder of eval sets that calibration writes to judge labelled pairs again."""
_CHUNK = 2_000
_TEXTS = 500
"""Pairs whose texts are read at once."""
_MODELS = ("$.candidate.model", "$.baseline.model")
_QUICKLY_ADDED = 100_000
"""Comparisons that are added up in about half a second, while the database takes their rows."""
_COUNTS = ("calls", "possibly_paid", "possibly_paid_cost", "given_up", "rate", "probes", "probe_cost", "lost")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as the database lists it; ``header`` is the journal's header record, with the counts of calls put in.

    ``calls`` were answered, ``rate`` of them a second where that was measured; ``possibly_paid`` attempts may have been
    charged without an answer, for at most ``possibly_paid_cost`` US dollars (``None`` where a price is unknown);
    ``given_up`` asks are invalid because the process died each time they were asked; ``probes`` calls for
    ``probe_cost`` US dollars found out the judge's mode before the run began. ``lost`` names by their keys the calls
    that were possibly paid, with how often.
    """

    run_id: str
    created_at: str
    rubric: str
    judge: str
    sealed: bool
    header: Mapping[str, Any]
    calls: int = 0
    possibly_paid: int = 0
    possibly_paid_cost: float | None = 0.0
    given_up: int = 0
    rate: float | None = None
    probes: int = 0
    probe_cost: float | None = 0.0
    lost: Mapping[str, int] = field(default_factory=dict)
    screen: str = signs.VERSION
    """The version of the screen whose flags its comparisons carry in the database."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One journal against the database, row by row over comparisons, pairs and replies.

    ``comparisons`` are what the journal settles to, ``missing`` rows are in the journal alone, ``extra`` ones in the
    database alone, ``differing`` ones in both with other content; ``first`` names the first of them. ``ledger`` is the
    journal's.
    """

    comparisons: int
    missing: int
    extra: int
    differing: int
    first: str
    ledger: Ledger

    @property
    def agrees(self) -> bool:
        """Whether database and journal say the same."""
        return not (self.missing or self.extra or self.differing)


class Store:
    """The database of one home folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "judge.duckdb"
        self.runs_folder = home / "runs"

    def journal_path(self, run_id: str) -> Path:
        """Where a run's journal lies; raises ``StoreError`` for a name that could leave the folder."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", run_id) or run_id.startswith("."):
            raise StoreError(f"{run_id!r} is no run id; list them with `judge report --list`")
        return self.runs_folder / f"{run_id}.jsonl"

    def ingest(self, path: Path, *, more: Callable[[], bool] | None = None) -> int:
        """Replace one run's rows by what its journal says; returns the number of comparisons. Safe to repeat.

        ``more`` waits for more of a journal that still grows (``journal.bodies``).
        """
        self.home.mkdir(parents=True, exist_ok=True)
        header = next(journal.records(path))
        if header["run_id"] != path.stem:
            raise JournalError(
                f"{path}: this is a copy of run {header['run_id']}; keep copies in another folder, or restore it as "
                f"{header['run_id']}.jsonl"
            )
        failpoints.reached("before_ingest")
        ledger = Ledger()
        with scratch(self.home, "ingest") as folder:
            screened = partial(self._screened, header["run_id"]) if self.path.exists() else None
            count = write_segments(path, header, folder, ledger, screened=screened, more=more)
            failpoints.reached("after_segments")
            with ThreadPoolExecutor(1) as beside:
                sums = beside.submit(roll_up_files, folder, header["run_id"])
                if count > _QUICKLY_ADDED:
                    sums.result()  # adding up a large run takes long, and nobody is to wait for the database meanwhile
                with writing(self.path) as con:
                    # One transaction: a crash in between leaves the run as it was, and the file is written once.
                    con.execute("BEGIN")
                    for table in ("run", *TABLES):
                        con.execute(f"DELETE FROM {table} WHERE run_id = ?", [header["run_id"]])  # noqa: S608 - a name from the tuple
                    failpoints.reached("after_delete")
                    for table in TABLES:
                        if parts := sorted(str(part) for part in folder.glob(f"{table}-*.parquet")):
                            con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [parts])  # noqa: S608
                    sums.result()
                    keep(con, header["run_id"], folder)
                    failpoints.reached("before_listing")
                    row = run_row(header, ledger)
                    con.execute(
                        f"INSERT INTO run ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608 - names of ours
                        list(row.values()),
                    )
                    con.execute("COMMIT")
        failpoints.reached("after_ingest")
        return count

    def catch_up(self, report: Callable[[int, int], None] | None = None) -> list[str]:
        """Bring in journals that the database does not hold, held only in part, or holds with the flags of another
        version of the screen; returns what could not be read.

        One damaged journal never hides the other runs. ``report`` is told how many runs are done, of how many.
        """
        report = report or (lambda _done, _total: None)
        whole = {run.run_id for run in self.runs() if run.sealed and run.screen == signs.VERSION}
        bad = self._ingest_all([path for path in self._journals() if path.stem not in whole], report)
        self._roll_up_missing(report)
        return bad

    def _roll_up_missing(self, report: Callable[[int, int], None]) -> None:
        """Add up the runs that an older version brought in."""
        if not self.path.exists():
            return
        wanted = "SELECT run_id FROM run WHERE run_id NOT IN (SELECT run_id FROM rolled WHERE version = ?)"
        with reading(self.path) as con:
            missing = [run_id for (run_id,) in con.execute(wanted, [VERSION]).fetchall()]
        for number, run_id in enumerate(missing, 1):
            with scratch(self.home, "ingest") as folder:
                with reading(self.path) as con:
                    take_out(con, run_id, folder)
                roll_up_files(folder, run_id)
                with writing(self.path) as con:
                    # Another process may have brought the run in meanwhile, with other flags: its sums stand then.
                    if (run_id,) in con.execute(wanted, [VERSION]).fetchall():
                        con.execute("BEGIN")
                        keep(con, run_id, folder)
                        con.execute("COMMIT")
            report(number, len(missing))

    def audit(self, path: Path) -> Audit:
        """Settle a journal anew and hold every row against the database; nothing is written."""
        header = next(journal.records(path))
        ledger, count, missing, extra, differing, first = Ledger(), 0, 0, 0, 0, ""
        wanted: dict[tuple[str, ...], bytes] = {}
        for entry, answers in settled_records(path, None, ledger):
            count += 1
            for table, row in rows_of(header, entry, answers):
                wanted[identity(table, row)] = row_digest(row)
        run = run_row(header, ledger)
        del run["screen"]  # of the database alone: the journal knows nothing of it
        wanted[identity("run", run)] = row_digest(run)
        with reading(self.path) as con:
            for table in ("run", *TABLES):
                found = con.execute(f"SELECT * FROM {table} WHERE run_id = ?", [header["run_id"]])  # noqa: S608
                names = [column[0] for column in found.description]
                while batch := found.fetchmany(_CHUNK):
                    for values in batch:
                        row = {name: value for name, value in zip(names, values, strict=True) if name != "screen"}
                        name = identity(table, row)
                        digest = wanted.pop(name, None)
                        extra += digest is None
                        differing += digest is not None and digest != row_digest(row)
                        if digest != row_digest(row):
                            first = first or " ".join(name)
        missing = len(wanted)
        return Audit(count, missing, extra, differing, first or " ".join(next(iter(wanted), ())), ledger)

    def rebuild(self) -> tuple[list[str], list[str]]:
        """Build the database anew from all journals, then swap it in; the old file is kept as ``.old``.

        Returns the runs that were built and what could not be read.
        """
        if not self._journals() and not (self.home / "checks").is_dir():
            raise StoreError(f"{self.runs_folder}: no journals to rebuild from")
        fresh = Store(self.home)
        with scratch(self.home, "rebuild") as folder:
            fresh.path = folder / "judge.duckdb"
            bad = fresh._ingest_all(self._journals())
            bad += Findings(self.home, path=fresh.path).catch_up()
            built = [run.run_id for run in fresh.runs()]
            # A write-ahead log belongs to the file it was written beside; left here it would spoil the new one.
            for name in ("judge.duckdb", "judge.duckdb.wal"):
                if (self.home / name).exists():
                    (self.home / name).replace(self.home / f"{name}.old")
            if fresh.path.exists():
                fresh.path.replace(self.path)
        return built, bad

    def _journals(self) -> list[Path]:
        return sorted(self.runs_folder.glob("*.jsonl"))

    def _ingest_all(self, paths: Sequence[Path], report: Callable[[int, int], None] | None = None) -> list[str]:
        bad = []
        for number, path in enumerate(paths, 1):
            try:
                self.ingest(path)
            except JournalError as error:
                bad.append(str(error))
            if report is not None:
                report(number, len(paths))
        return bad

    def runs(self) -> list[RunInfo]:
        """All runs, newest first; empty where no database exists."""
        if not self.path.exists():
            return []
        with reading(self.path) as con:
            return list_runs(con)

    def run(self, run_id: str = "latest") -> RunInfo:
        """One run by id, by unique prefix, or the latest; raises ``StoreError`` naming what exists."""
        runs = self.runs()
        if not runs:
            raise StoreError(f"{self.home}: no runs here yet; start one with `judge run` or pass --home")
        own = [run for run in runs if not self.is_aside(run)] or runs
        found = own[:1] if run_id == "latest" else [run for run in runs if run.run_id == run_id]
        found = found or [run for run in runs if run.run_id.startswith(run_id)]
        if len(found) != 1:
            listed = found or runs
            names = ", ".join(run.run_id for run in listed[:5])
            names += f" and {len(listed) - 5} more (`judge report --list`)" if len(listed) > 5 else ""
            raise StoreError(f"{run_id!r} {'is ambiguous: ' if found else 'is not a run here; there are: '}{names}")
        return found[0]

    def is_aside(self, info: RunInfo) -> bool:
        """Whether a run was made to measure a judge (a probe, labelled pairs judged again), so that it is nobody's
        "latest".
        """
        again = Path(info.header["evalset"]["files"][0]).parent == (self.home / AGAIN).resolve()
        return again or "probe" in info.header

    def comparisons(self, run_id: str, columns: Sequence[str] = ()) -> polars.DataFrame:
        """Every comparison of a run without texts, in the order of pair id and repeat; canary pairs are none of them.

        ``columns`` are those wanted (none named: all that ``schema/001_runs.sql`` and later ones have).
        """
        return self._comparisons(run_id, ", ".join(columns) or "*", canaries=False)

    def canaries(self, run_id: str) -> polars.DataFrame:
        """The comparisons of a run's canary pairs, with the columns of ``comparisons``."""
        return self._comparisons(run_id, "*", canaries=True)

    def _comparisons(self, run_id: str, columns: str, *, canaries: bool) -> polars.DataFrame:
        import polars

        with reading(self.path) as con:
            relation = con.cursor().sql(
                f"SELECT {columns} FROM comparison WHERE run_id = $id AND starts_with(pair_id, $prefix) = $canaries "  # noqa: S608 - columns of ours
                "ORDER BY pair_id, repeat",
                params={"id": run_id, "prefix": PREFIX, "canaries": canaries},
            )
            return polars.DataFrame(Stream(relation))

    def replies_since(self, info: RunInfo) -> str:
        """When the oldest reply behind a run's comparisons was given at the earliest: the stamp at which the run began
        that asked for it. That is the run itself, or an earlier one whose replies were reused.

        Empty (not known) where a reply was reused and no run that asked for it is here any more, or where a run was
        brought in before it was kept which replies were reused. Canary pairs, which are the same in every run, count
        for nothing.
        """
        if not info.header.get("reuse", True):
            return info.created_at
        with reading(self.path) as con:
            row = con.execute(
                "WITH used AS (SELECT DISTINCT key FROM reply "
                "WHERE run_id = $id AND reused IS NOT FALSE AND NOT starts_with(pair_id, $prefix)), "
                # Who reused a key did not ask for it; where it did so before anybody here asked, that one is gone.
                "held AS (SELECT key, min(created_at) AS first, min(created_at) FILTER (NOT reused) AS since "
                "FROM reply JOIN run USING (run_id) "
                "WHERE key IN (SELECT key FROM used) AND created_at <= $own GROUP BY key) "
                "SELECT min(since), bool_and(since IS NOT NULL AND since = first) FROM held",
                {"id": info.run_id, "prefix": PREFIX, "own": info.created_at},
            ).fetchone()
        since, known = row or (None, None)
        if known is None:
            return info.created_at
        return str(since) if known else ""

    def resettled(self, run_id: str, tie_margin: float) -> polars.DataFrame:
        """The comparisons of a run settled anew under another tie margin, from its stored replies and without a model.

        Same columns and order as ``comparisons``; nothing is written. Raises ``StoreError`` where the journal is gone.
        """
        import polars

        from rubrics import TieRule, parse

        path = self.journal_path(run_id)
        if not path.exists():
            raise StoreError(f"{path}: the journal is gone; settling anew needs its replies")
        frozen = parse(next(journal.records(path))["rubric_text"], path=str(path))
        rubric = frozen.model_copy(update={"tie_rule": TieRule(margin=tie_margin, conflict=frozen.tie_rule.conflict)})
        entries = (entry for entry in settled(path, rubric) if not entry.pair.id.startswith(PREFIX))
        rows = [comparison_row(run_id, entry) for entry in entries]
        return (
            polars.DataFrame(rows, schema_overrides=TYPES, infer_schema_length=None).sort("pair_id", "repeat")
            if rows
            else polars.DataFrame()
        )

    def pair(self, run_id: str, pair_id: str) -> Pair:
        """The texts of one pair; raises ``StoreError`` if the run has no such pair."""
        with reading(self.path) as con:
            row = con.execute("SELECT body FROM pair WHERE run_id = ? AND pair_id = ?", [run_id, pair_id]).fetchone()
        if row is None:
            raise StoreError(f"run {run_id} has no pair {pair_id!r}")
        return journal.decode_pair(orjson.loads(row[0]))

    def pairs(self, run_id: str, pair_ids: Iterable[str]) -> Iterator[Pair]:
        """The texts of those of ``pair_ids`` that the run has, in order of id; a few at a time are in memory."""
        wanted = sorted(set(pair_ids))
        for start in range(0, len(wanted), _TEXTS):
            with reading(self.path) as con:
                rows = con.execute(
                    "SELECT body FROM pair WHERE run_id = ? AND pair_id IN (SELECT unnest(?)) ORDER BY pair_id",
                    [run_id, wanted[start : start + _TEXTS]],
                ).fetchall()
            for (body,) in rows:
                yield journal.decode_pair(orjson.loads(body))

    def ids(self, run_id: str) -> list[str]:
        """The ids of a run's pairs, canary pairs left out."""
        with reading(self.path) as con:
            rows = con.execute(
                "SELECT pair_id FROM pair WHERE run_id = ? AND NOT starts_with(pair_id, ?)", [run_id, PREFIX]
            ).fetchall()
        return [pair for (pair,) in rows]

    def models(self, run_id: str) -> set[tuple[str | None, str | None]]:
        """The models that a run's answers name, the candidate's with the baseline's; canary pairs are left out."""
        with reading(self.path) as con:
            rows = con.execute(
                f"SELECT DISTINCT said[1], said[2] FROM ({_bodies(*_MODELS)})",  # noqa: S608 - paths of ours
                [run_id, PREFIX],
            ).fetchall()
        return set(rows)

    def answers(self, run_id: str) -> polars.DataFrame:
        """A row a pair, in the order in which pairs were judged: ``pair_id``, the models that its answers name
        (``candidate``, ``baseline``), and ``texts``, a digest of both answers. Canary pairs are left out.
        """
        return self._of_bodies(
            "SELECT pair_id, said[1] AS candidate, said[2] AS baseline, md5(said[3] || chr(31) || said[4]) AS texts "  # noqa: S608 - paths of ours
            f"FROM ({_bodies(*_MODELS, '$.candidate.text', '$.baseline.text')}) ORDER BY place",
            run_id,
        )

    def traits(self, run_id: str) -> polars.DataFrame:
        """A row a pair, in order of id, of what slices are made of: ``tags``, ``context`` (characters in all),
        ``tools`` (whether an answer called one), and how long the answers took (``candidate_ms``, ``baseline_ms``).
        Canary pairs are left out.
        """
        paths = ("$.item.tags", "$.item.context", "$.candidate.tool_calls", "$.baseline.tool_calls",
                 "$.candidate.latency_ms", "$.baseline.latency_ms")  # fmt: skip
        listed = [f"CAST(CAST(said[{place}] AS JSON) AS VARCHAR[])" for place in (1, 2)]
        return self._of_bodies(
            f"SELECT pair_id, coalesce({listed[0]}, []) AS tags, "  # noqa: S608 - paths of ours
            f"CAST(coalesce(list_sum([len(part) for part in {listed[1]}]), 0) AS BIGINT) AS context, "
            "coalesce(json_array_length(said[3]), 0) + coalesce(json_array_length(said[4]), 0) > 0 AS tools, "
            "CAST(said[5] AS DOUBLE) AS candidate_ms, CAST(said[6] AS DOUBLE) AS baseline_ms "
            f"FROM ({_bodies(*paths)}) ORDER BY pair_id",
            run_id,
        )

    def _of_bodies(self, sql: str, run_id: str) -> polars.DataFrame:
        import polars

        with reading(self.path) as con:
            return polars.DataFrame(Stream(con.cursor().sql(sql, params=[run_id, PREFIX])))

    def usage(self, run_id: str) -> tuple[float | None, int, float | None]:
        """What judging the run's own pairs takes when each is asked for: US dollars (``None``: a price is unknown),
        tokens, and mean seconds of a call (``None`` where none was timed). Replies that were reused count like the
        others; canary pairs do not.
        """
        with reading(self.path) as con:
            row = con.execute(
                "SELECT sum(CAST(json_extract_string(body, '$.usage.cost') AS DOUBLE)), "
                "count(*) - count(json_extract_string(body, '$.usage.cost')), "
                "sum(coalesce(CAST(json_extract_string(body, '$.usage.prompt_tokens') AS BIGINT), 0) + "
                "coalesce(CAST(json_extract_string(body, '$.usage.completion_tokens') AS BIGINT), 0)), "
                "avg(CAST(json_extract_string(body, '$.latency_ms') AS DOUBLE)) / 1000 FROM reply "
                "WHERE run_id = ? AND NOT starts_with(pair_id, ?)",
                [run_id, PREFIX],
            ).fetchone()
        cost, unpriced, tokens, seconds = row or (None, 1, 0, None)
        return (None if unpriced else float(cost or 0.0)), int(tokens or 0), float(seconds) if seconds else None

    def receipts(self, run_id: str) -> polars.DataFrame:
        """The run's replies to hold against a bill, in the order of the journal: ``pair_id``, ``placement``,
        ``repeat``, the provider's ``response_ids`` (several are separated by a space), ``model``, tokens, ``cost`` in
        US dollars (null: unknown), ``attempts``, ``possibly_paid`` (attempts that may have been charged without an
        answer) and ``in_flight`` (the same of earlier processes); of a reply that was reused, those of the run
        that paid for it.
        """
        import polars

        fields = (
            ("array_to_string(CAST(json_extract(body, '$.response_ids') AS VARCHAR[]), ' ')", "response_ids"),
            ("json_extract_string(body, '$.model')", "model"),
            ("coalesce(CAST(json_extract_string(body, '$.usage.prompt_tokens') AS BIGINT), 0)", "prompt_tokens"),
            (
                "coalesce(CAST(json_extract_string(body, '$.usage.completion_tokens') AS BIGINT), 0)",
                "completion_tokens",
            ),
            ("CAST(json_extract_string(body, '$.usage.cost') AS DOUBLE)", "cost"),
            ("coalesce(CAST(json_extract_string(body, '$.attempts') AS INTEGER), 1)", "attempts"),
            ("coalesce(CAST(json_extract_string(body, '$.possibly_paid') AS INTEGER), 0)", "possibly_paid"),
        )
        columns = ", ".join(f"{expression} AS {name}" for expression, name in fields)
        with reading(self.path) as con:
            relation = con.cursor().sql(
                "SELECT pair_id, placement, repeat, replace(key, 'failed:', '') AS key, "  # noqa: S608 - columns of ours
                f"{columns} FROM reply WHERE run_id = $id ORDER BY rowid",
                params={"id": run_id},
            )
            frame = polars.DataFrame(Stream(relation))
        lost = self.run(run_id).lost
        flights = [lost.get(key, 0) - paid for key, paid in frame.select("key", "possibly_paid").iter_rows()]
        return frame.with_columns(polars.Series("in_flight", [max(0, count) for count in flights], dtype=polars.Int64))

    def known(self, rubric_digest: str, judge: JudgeId) -> ReplyCache | None:
        """A lookup of stored replies by key for one rubric and judge, or ``None`` where the store has none at all."""
        if not self.path.exists():
            return None
        with reading(self.path) as con:
            row = con.execute(
                "SELECT 1 FROM reply WHERE rubric_digest = ? AND judge = ? LIMIT 1", [rubric_digest, str(judge)]
            ).fetchone()
        return ReplyCache(self.path) if row else None

    def _screened(self, run_id: str, keys: Sequence[str]) -> dict[str, list[str]]:
        """What this version of the screen saw in texts of other runs, by key of the candidate's order."""
        with reading(self.path) as con:
            con.execute(ONE_THREAD)
            rows = con.execute(
                "SELECT reply.key, any_value(comparison.flags) FROM reply "
                "JOIN comparison USING (run_id, pair_id, repeat) "
                "WHERE reply.key IN (SELECT unnest(?)) AND placement = ? AND run_id <> ? "
                "AND run_id IN (SELECT run_id FROM run WHERE screen = ?) GROUP BY reply.key",
                [list(keys), Order.CANDIDATE_FIRST.value, run_id, signs.VERSION],
            ).fetchall()
        return {key: [flag for flag in flags.split() if flag in signs.SIDED] for key, flags in rows}

    def rate(self, judge: JudgeId) -> tuple[float, str] | None:
        """Calls per second of the latest run of a judge that measured one, and that run's id."""
        found = next((run for run in self.runs() if run.judge == str(judge) and run.rate), None)
        return (found.rate, found.run_id) if found is not None and found.rate else None

    def keep_calibration(self, fitted: Calibration) -> Path:
        """Store a calibration in the home folder under the digest of its content; a fitted one never changes."""
        text = fitted.to_json() + "\n"
        name = f"{re.sub(r'[^a-z0-9]+', '-', fitted.rubric)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        path = self.home / "calibrations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        return path


def _bodies(*paths: str) -> str:
    """A query for what stands at some paths of every body (``said``): one reading of a body for all of them takes a
    fifth of the time and of the memory of one for each.
    """
    listed = ", ".join(f"'{path}'" for path in paths)
    return (
        f"SELECT pair_id, rowid AS place, json_extract_string(body, [{listed}]) AS said FROM pair "  # noqa: S608 - paths of ours
        "WHERE run_id = ? AND NOT starts_with(pair_id, ?)"
    )


def list_runs(con: duckdb.DuckDBPyConnection) -> list[RunInfo]:
    """All runs that an open database lists, newest first."""
    rows = con.execute(
        "SELECT run_id, created_at, rubric, judge, sealed, header, calls, possibly_paid, possibly_paid_cost, "
        "given_up, rate, probes, probe_cost, screen, lost FROM run ORDER BY created_at DESC, run_id DESC"
    ).fetchall()
    found = []
    for name, made, rubric, judge, sealed, head, *counts, screen, lost in rows:
        counted = dict(zip(_COUNTS, (*counts, orjson.loads(lost)), strict=True))
        calls = {key: value for key, value in counted.items() if key != "rate"}
        header = {**orjson.loads(head), "calls": calls}
        found.append(RunInfo(name, made, rubric, judge, sealed, header, **counted, screen=screen))
    return found
