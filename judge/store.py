"""The DuckDB store: every query of the package, and a view that can be rebuilt from the journals at any time.

Layout of a home folder (default ``.judge``): ``runs/<run id>.jsonl`` are the journals, ``judge.duckdb`` is the view.
DuckDB locks a whole file per process, so nothing here keeps a connection: writers open, commit and close; readers open
read-only for one burst. Both retry for a bounded time while another process holds the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from . import failpoints, journal, protocol
from .errors import JournalError, StoreError
from .ledger import Ledger
from .types import Ask, Comparison, JudgeId, Pair, Reply

if TYPE_CHECKING:
    import duckdb
    import polars

    from calibration.confidence import Calibration
    from rubrics import Rubric

__all__ = ["Audit", "RunInfo", "Settled", "Store", "settled"]

_CHUNK = 2_000
_TABLES = ("comparison", "pair", "reply")
_WAIT_SECONDS = 15.0
_WRITER_MEMORY = "128MB"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as the database lists it; ``header`` is the journal's header record, with the counts of calls put in.

    ``calls`` were answered, ``rate`` of them a second where that was measured; ``possibly_paid`` attempts may have been
    charged without an answer, for at most ``possibly_paid_cost`` US dollars (``None`` where a price is unknown);
    ``given_up`` asks are invalid because the process died each time they were asked.
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


@dataclass(frozen=True, slots=True)
class Settled:
    """One pair with its raw replies and the comparison they settle to.

    ``reused`` says of each reply whether it was taken from an earlier identical judgement instead of asked for.
    """

    pair: Pair
    asks: tuple[Ask, ...]
    replies: tuple[Reply, ...]
    comparison: Comparison
    reused: tuple[bool, ...]

    @property
    def cached(self) -> int:
        """How many replies were not asked for again."""
        return sum(self.reused)

    @property
    def paid(self) -> tuple[float | None, int]:
        """US dollars (``None`` once a price is unknown) and tokens of the replies that were asked for."""
        asked = [reply.usage for reply, reused in zip(self.replies, self.reused, strict=True) if not reused]
        costs = [usage.cost for usage in asked if usage.cost is not None]
        tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in asked)
        return (sum(costs) if len(costs) == len(asked) else None), tokens


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


def settled(path: Path, rubric: Rubric | None = None, *, ledger: Ledger | None = None) -> Iterator[Settled]:
    """Settle every fully answered pair of a journal anew, without a model; ``rubric`` replaces the recorded tie rule
    and ``ledger`` is told of every record.

    Pairs come in the order in which their last reply was written; memory holds only pairs that are still incomplete.
    A reply that carries an error keeps its pair open until the journal ends, because a resume may have asked again.
    The asks have no rendered prompt.
    """
    return (entry for entry, _answers in _settled(path, rubric, ledger))


def _settled(path: Path, rubric: Rubric | None, ledger: Ledger | None) -> Iterator[tuple[Settled, _Answers]]:
    """``settled``, with the records that each comparison was made of."""
    from rubrics import parse

    stream = journal.records(path)
    header = next(stream)
    frozen = parse(header["rubric_text"], path=f"{path} (rubric)")
    judge = JudgeId(**header["judge"])
    waiting: dict[str, _Answers] = {}
    for record in stream:
        if ledger is not None:
            ledger.take(record)
        if record["t"] == "pair":
            pair = journal.decode_pair(record["pair"])
            repeats = range(header["repeats"])
            seed = header["seed"]
            plans = [protocol.plan(pair, frozen, judge, seed=seed, repeat=n, rendered=False) for n in repeats]
            name, answers = pair.id, _Answers(pair, plans, record["pair"])
            waiting[name] = answers
        elif record["t"] == "reply" and record["pair_id"] in waiting:
            name = record["pair_id"]
            answers = waiting[name]
            answers.replies[record["key"]] = (journal.decode_reply(record["reply"]), record.get("reused", False))
            answers.records[record["key"]] = record["reply"]
        else:
            continue
        if answers.complete and not answers.failed:
            del waiting[name]
            yield from answers.settle(rubric or frozen, judge)
    if ledger is not None:
        ledger.end()
    for answers in waiting.values():
        if answers.complete:
            yield from answers.settle(rubric or frozen, judge)


class _Answers:
    """A pair of a journal while its replies are read."""

    __slots__ = ("keys", "pair", "plans", "record", "records", "replies")

    def __init__(self, pair: Pair, plans: list[tuple[Ask, ...]], record: Mapping[str, Any]) -> None:
        self.pair, self.plans, self.record = pair, plans, record
        self.records: dict[str, Mapping[str, Any]] = {}
        self.keys = {ask.key for asks in plans for ask in asks}
        self.replies: dict[str, tuple[Reply, bool]] = {}

    @property
    def complete(self) -> bool:
        return self.keys <= self.replies.keys()

    @property
    def failed(self) -> bool:
        return any(reply.error is not None for reply, _ in self.replies.values())

    def settle(self, rubric: Rubric, judge: JudgeId) -> Iterator[tuple[Settled, _Answers]]:
        for asks in self.plans:
            replies = tuple(self.replies[ask.key][0] for ask in asks)
            reused = tuple(self.replies[ask.key][1] for ask in asks)
            comparison = protocol.settle(self.pair, rubric, judge, asks, replies)
            yield Settled(self.pair, asks, replies, comparison, reused), self


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

    def ingest(self, path: Path) -> int:
        """Replace one run's rows by what its journal says; returns the number of comparisons. Safe to repeat."""
        self.home.mkdir(parents=True, exist_ok=True)
        header = next(journal.records(path))
        if header["run_id"] != path.stem:
            raise JournalError(
                f"{path}: this is a copy of run {header['run_id']}; keep copies in another folder, or restore it as "
                f"{header['run_id']}.jsonl"
            )
        failpoints.reached("before_ingest")
        ledger = Ledger()
        with tempfile.TemporaryDirectory(dir=self.home, prefix="ingest-") as folder:
            count = _write_parquet(path, header, Path(folder), ledger)
            failpoints.reached("after_segments")
            with self._writing() as con:
                # One transaction a part keeps memory flat. The run is listed only by its last statement, so a crash
                # in between leaves rows of a run that does not exist yet, and the next ingest begins by deleting them.
                for table in ("run", *_TABLES):
                    con.execute(f"DELETE FROM {table} WHERE run_id = ?", [header["run_id"]])  # noqa: S608 - a name from the tuple
                failpoints.reached("after_delete")
                for table in _TABLES:
                    for part in sorted(Path(folder).glob(f"{table}-*.parquet")):
                        con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM read_parquet(?)", [str(part)])  # noqa: S608
                failpoints.reached("before_listing")
                row = _run_row(header, ledger)
                con.execute(
                    f"INSERT INTO run ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608 - names of ours
                    list(row.values()),
                )
        failpoints.reached("after_ingest")
        return count

    def catch_up(self) -> list[str]:
        """Bring in journals that the database does not hold, or held only in part; returns what could not be read.

        One damaged journal never hides the other runs.
        """
        whole = {run.run_id for run in self.runs() if run.sealed}
        return self._ingest_all(path for path in self._journals() if path.stem not in whole)

    def audit(self, path: Path) -> Audit:
        """Settle a journal anew and hold every row against the database; nothing is written."""
        header = next(journal.records(path))
        ledger, count, missing, extra, differing, first = Ledger(), 0, 0, 0, 0, ""
        wanted: dict[tuple[str, ...], bytes] = {}
        for entry, answers in _settled(path, None, ledger):
            count += 1
            for table, row in _rows(header, entry, answers):
                wanted[_identity(table, row)] = _row_digest(row)
        run = _run_row(header, ledger)
        wanted[_identity("run", run)] = _row_digest(run)
        with self._reading() as con:
            for table in ("run", *_TABLES):
                found = con.execute(f"SELECT * FROM {table} WHERE run_id = ?", [header["run_id"]])  # noqa: S608
                names = [column[0] for column in found.description]
                while batch := found.fetchmany(_CHUNK):
                    for values in batch:
                        row = dict(zip(names, values, strict=True))
                        name = _identity(table, row)
                        digest = wanted.pop(name, None)
                        extra += digest is None
                        differing += digest is not None and digest != _row_digest(row)
                        if digest != _row_digest(row):
                            first = first or " ".join(name)
        missing = len(wanted)
        return Audit(count, missing, extra, differing, first or " ".join(next(iter(wanted), ())), ledger)

    def rebuild(self) -> tuple[list[str], list[str]]:
        """Build the database anew from all journals, then swap it in; the old file is kept as ``.old``.

        Returns the runs that were built and what could not be read.
        """
        if not self._journals():
            raise StoreError(f"{self.runs_folder}: no journals to rebuild from")
        fresh = Store(self.home)
        fresh.path = self.home / f"rebuild-{os.getpid()}.duckdb"
        try:
            bad = fresh._ingest_all(self._journals())
            built = [run.run_id for run in fresh.runs()]
            # A write-ahead log belongs to the file it was written beside; left here it would spoil the new one.
            for name in ("judge.duckdb", "judge.duckdb.wal"):
                if (self.home / name).exists():
                    (self.home / name).replace(self.home / f"{name}.old")
            if fresh.path.exists():
                fresh.path.replace(self.path)
        finally:
            fresh.path.unlink(missing_ok=True)
        return built, bad

    def _journals(self) -> list[Path]:
        return sorted(self.runs_folder.glob("*.jsonl"))

    def _ingest_all(self, paths: Iterable[Path]) -> list[str]:
        bad = []
        for path in paths:
            try:
                self.ingest(path)
            except JournalError as error:
                bad.append(str(error))
        return bad

    def runs(self) -> list[RunInfo]:
        """All runs, newest first; empty where no database exists."""
        if not self.path.exists():
            return []
        with self._reading() as con:
            rows = con.execute(
                "SELECT run_id, created_at, rubric, judge, sealed, header, calls, possibly_paid, possibly_paid_cost, "
                "given_up, rate FROM run ORDER BY created_at DESC, run_id DESC"
            ).fetchall()
        found = []
        for name, made, rubric, judge, sealed, head, *counts in rows:
            calls = dict(zip(("calls", "possibly_paid", "possibly_paid_cost", "given_up"), counts, strict=False))
            found.append(RunInfo(name, made, rubric, judge, sealed, {**orjson.loads(head), "calls": calls}, *counts))
        return found

    def run(self, run_id: str = "latest") -> RunInfo:
        """One run by id, by unique prefix, or the latest; raises ``StoreError`` naming what exists."""
        runs = self.runs()
        if not runs:
            raise StoreError(f"{self.home}: no runs here yet; start one with `judge run` or pass --home")
        found = runs[:1] if run_id == "latest" else [run for run in runs if run.run_id == run_id]
        found = found or [run for run in runs if run.run_id.startswith(run_id)]
        if len(found) != 1:
            listed = found or runs
            names = ", ".join(run.run_id for run in listed[:5])
            names += f" and {len(listed) - 5} more (`judge report --list`)" if len(listed) > 5 else ""
            raise StoreError(f"{run_id!r} {'is ambiguous: ' if found else 'is not a run here; there are: '}{names}")
        return found[0]

    def comparisons(self, run_id: str) -> polars.DataFrame:
        """Every comparison of a run without texts, in the order of pair id and repeat (columns as in
        ``schema/001_runs.sql``).
        """
        import polars

        with self._reading() as con:
            relation = con.cursor().sql(
                "SELECT * FROM comparison WHERE run_id = $id ORDER BY pair_id, repeat", params={"id": run_id}
            )
            return polars.DataFrame(_Stream(relation))

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
        rows = [_comparison_row(run_id, entry) for entry in settled(path, rubric)]
        return (
            polars.DataFrame(rows, schema_overrides=_TYPES, infer_schema_length=None).sort("pair_id", "repeat")
            if rows
            else polars.DataFrame()
        )

    def pair(self, run_id: str, pair_id: str) -> Pair:
        """The texts of one pair; raises ``StoreError`` if the run has no such pair."""
        with self._reading() as con:
            row = con.execute("SELECT body FROM pair WHERE run_id = ? AND pair_id = ?", [run_id, pair_id]).fetchone()
        if row is None:
            raise StoreError(f"run {run_id} has no pair {pair_id!r}")
        return journal.decode_pair(orjson.loads(row[0]))

    def pairs(self, run_id: str, pair_ids: Sequence[str]) -> Iterator[Pair]:
        """The texts of those of ``pair_ids`` that the run has, in order of id."""
        with self._reading() as con:
            rows = con.execute(
                "SELECT body FROM pair WHERE run_id = ? AND pair_id IN (SELECT unnest(?)) ORDER BY pair_id",
                [run_id, list(pair_ids)],
            ).fetchall()
        return (journal.decode_pair(orjson.loads(body)) for (body,) in rows)

    def models(self, run_id: str) -> dict[str, tuple[str | None, str | None]]:
        """By pair id, the models that the candidate's and the baseline's answer name."""
        with self._reading() as con:
            rows = con.execute(
                "SELECT pair_id, json_extract_string(body, '$.candidate.model'), "
                "json_extract_string(body, '$.baseline.model') FROM pair WHERE run_id = ?",
                [run_id],
            ).fetchall()
        return {pair: (candidate, baseline) for pair, candidate, baseline in rows}

    def digests(self, run_id: str) -> dict[str, str]:
        """By pair id, in the order in which pairs were judged, a digest of both answers' texts."""
        with self._reading() as con:
            rows = con.execute(
                "SELECT pair_id, md5(json_extract_string(body, '$.candidate.text') || chr(31) || "
                "json_extract_string(body, '$.baseline.text')) FROM pair WHERE run_id = ? ORDER BY rowid",
                [run_id],
            ).fetchall()
        return dict(rows)

    def usage(self, run_id: str) -> tuple[float | None, int, float | None]:
        """What the run's judgements take when each is asked for: US dollars (``None``: a price is unknown), tokens,
        and mean seconds of a call (``None`` where none was timed). Replies that were reused count like the others.
        """
        with self._reading() as con:
            row = con.execute(
                "SELECT sum(CAST(json_extract_string(body, '$.usage.cost') AS DOUBLE)), "
                "count(*) - count(json_extract_string(body, '$.usage.cost')), "
                "sum(coalesce(CAST(json_extract_string(body, '$.usage.prompt_tokens') AS BIGINT), 0) + "
                "coalesce(CAST(json_extract_string(body, '$.usage.completion_tokens') AS BIGINT), 0)), "
                "avg(CAST(json_extract_string(body, '$.latency_ms') AS DOUBLE)) / 1000 FROM reply WHERE run_id = ?",
                [run_id],
            ).fetchone()
        cost, unpriced, tokens, seconds = row or (None, 1, 0, None)
        return (None if unpriced else float(cost or 0.0)), int(tokens or 0), float(seconds) if seconds else None

    def known(self, rubric_digest: str, judge: JudgeId) -> Callable[[Sequence[str]], dict[str, Reply]] | None:
        """A lookup of stored replies by key for one rubric and judge, or ``None`` where the store has none at all."""
        if not self.path.exists():
            return None
        with self._reading() as con:
            row = con.execute(
                "SELECT 1 FROM reply WHERE rubric_digest = ? AND judge = ? LIMIT 1", [rubric_digest, str(judge)]
            ).fetchone()
        return self._replies if row else None

    def _replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        with self._reading() as con:
            # Where a judge was asked again and answered otherwise, the first answer stays the answer.
            rows = con.execute(
                "SELECT key, arg_min(body, created_at || run_id) FROM reply JOIN run USING (run_id) "
                "WHERE key IN (SELECT unnest(?)) GROUP BY key",
                [list(keys)],
            ).fetchall()
        return {key: journal.decode_reply(orjson.loads(body)) for key, body in rows}

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
        part = path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
        return path

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _connection(self.path, read_only=True) as con:
            if _version(con, self.path) == _migrations()[-1][0]:
                yield con
                return
        with self._writing():
            pass  # opening it for writing brings the schema up to date
        with _connection(self.path, read_only=True) as con:
            yield con

    @contextmanager
    def _writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with _connection(self.path, read_only=False) as con:
            con.execute(f"SET memory_limit = '{_WRITER_MEMORY}'")
            _migrate(con, self.path)
            yield con


@cache
def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("judge").joinpath("schema")
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name[:3]), folder.joinpath(name).read_text(encoding="utf-8")) for name in files]


def _migrate(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Apply the numbered migrations that are missing, each in one transaction with the row that records it."""
    con.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)")
    current = _version(con, path)
    for number, script in _migrations():
        if number > current:
            con.execute("BEGIN")
            con.execute(script)
            con.execute("INSERT INTO schema_version VALUES (?)", [number])
            con.execute("COMMIT")


def _version(con: duckdb.DuckDBPyConnection, path: Path) -> int:
    """The number of the last migration that the database has; one that this version does not know is refused."""
    row = con.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    version = int(row[0]) if row else 0
    newest = _migrations()[-1][0]
    if version > newest:
        raise StoreError(
            f"{path}: schema {version} is newer than this version knows ({newest}); upgrade touchstone-judge"
        )
    return version


@contextmanager
def _connection(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            con = duckdb.connect(str(path), read_only=read_only)
            break
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            held = "lock" in str(error).lower() or "different configuration" in str(error)
            if not held:
                raise StoreError(
                    f"{path}: cannot open the database ({_first_line(error)}); run `judge doctor`, then `judge recover`"
                ) from None
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{path}: another process holds the database ({_first_line(error)}); the journals are safe, try "
                    "again"
                ) from None
            time.sleep(0.05)
        except duckdb.Error as error:
            raise StoreError(f"{path}: not a usable database ({_first_line(error)}); run `judge recover`") from None
    try:
        yield con
    except duckdb.Error as error:
        _raise_if_full(error, path)
        raise StoreError(
            f"{path}: the database cannot do this ({_first_line(error)}); the journals are safe; run `judge recover`"
        ) from error
    finally:
        con.close()


class _Stream:
    """A relation as an Arrow stream and nothing else.

    polars keeps the type of what it was given in a cache for the life of the process; given DuckDB's own type, DuckDB
    2.0 prints warnings about leaked instances when the interpreter exits.
    """

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self.relation = relation

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.relation.__arrow_c_stream__(requested_schema)


def _raise_if_full(error: Exception, path: Path) -> None:
    """A full disk is said as such, whichever library found it."""
    if "No space left on device" in str(error):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _run_row(header: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    return {
        "run_id": header["run_id"],
        "created_at": header["created_at"],
        "rubric": header["rubric"],
        "rubric_digest": header["rubric_digest"],
        "judge": str(JudgeId(**header["judge"])),
        "evalset": header["evalset"]["digest"],
        "sealed": ledger.sealed,
        "header": orjson.dumps(header).decode(),
        "calls": ledger.calls,
        "possibly_paid": ledger.possibly_paid,
        "possibly_paid_cost": ledger.possibly_paid_cost,
        "given_up": ledger.given_up,
        "rate": ledger.rate,
    }


def _write_parquet(path: Path, header: Mapping[str, Any], folder: Path, ledger: Ledger) -> int:
    """Write a journal's settled rows as Parquet files of bounded size; returns the number of comparisons."""
    import polars

    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in _TABLES}
    count = part = 0

    def flush() -> None:
        nonlocal part
        part += 1
        for table, batch in rows.items():
            if batch:
                frame = polars.DataFrame(batch, schema_overrides=_TYPES, infer_schema_length=None)
                try:
                    frame.write_parquet(folder / f"{table}-{part:06}.parquet")
                except polars.exceptions.ComputeError as error:
                    _raise_if_full(error, folder)
                    raise
                batch.clear()

    for entry, answers in _settled(path, None, ledger):
        for table, row in _rows(header, entry, answers):
            rows[table].append(row)
        count += 1
        if count % _CHUNK == 0:
            flush()
    flush()
    return count


def _rows(header: Mapping[str, Any], entry: Settled, answers: _Answers) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one settled pair is in the database: table and row.

    Replies are worth keeping for another run; a failed or absent one is evidence of this run, not an answer to reuse.
    """
    run_id, pair_id = header["run_id"], entry.pair.id
    if entry.comparison.repeat == 0:
        yield "pair", {"run_id": run_id, "pair_id": pair_id, "body": orjson.dumps(answers.record).decode()}
    yield "comparison", _comparison_row(run_id, entry)
    judge = str(entry.comparison.judge)
    for ask, reply in zip(entry.asks, entry.replies, strict=True):
        yield (
            "reply",
            {
                "key": ask.key if reply.error is None and reply.finish != "missing" else f"failed:{ask.key}",
                "rubric_digest": header["rubric_digest"],
                "judge": judge,
                "run_id": run_id,
                "pair_id": pair_id,
                "placement": ask.order.value,
                "repeat": ask.repeat,
                "body": orjson.dumps(answers.records[ask.key]).decode(),
            },
        )


def _identity(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row is called among the rows of its run."""
    names = {"pair": ("pair_id",), "comparison": ("pair_id", "repeat"), "reply": ("pair_id", "repeat", "placement")}
    return (table, *(str(row[name]) for name in names.get(table, ("run_id",))))


def _row_digest(row: Mapping[str, Any]) -> bytes:
    """A digest of a row's values, the same whether they come from Python or from DuckDB."""
    values = {
        name: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in row.items()
        if value is not None
    }
    return hashlib.blake2b(orjson.dumps(values, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


_TYPES: dict[str, Any] = dict.fromkeys(
    ("label", "outcome", "invalid", "cf_outcome", "cf_invalid", "bf_outcome", "bf_invalid"), str
)


def _comparison_row(run_id: str, entry: Settled) -> dict[str, Any]:
    comparison, pair = entry.comparison, entry.pair
    cost, tokens = entry.paid
    row: dict[str, Any] = {
        "run_id": run_id,
        "pair_id": pair.id,
        "repeat": comparison.repeat,
        "category": pair.item.category,
        "metadata": orjson.dumps(
            {k: v for k, v in pair.item.metadata.items() if isinstance(v, str | int | float | bool)}
        ).decode(),
        "prompt_digest": hashlib.sha256(
            orjson.dumps([pair.item.prompt, pair.item.context, pair.item.reference])
        ).hexdigest()[:16],
        "label": pair.label.value if pair.label else None,
        "outcome": comparison.outcome.value if comparison.outcome else None,
        "invalid": comparison.invalid.value if comparison.invalid else None,
        "candidate_chars": len(pair.candidate.text),
        "baseline_chars": len(pair.baseline.text),
        "flags": " ".join(comparison.flags),
        "rationale": comparison.rationale,
        "cost": cost,
        "tokens": tokens,
        "cached": entry.cached,
    }
    for name in ("preference", "p_win", "p_tie", "p_loss", "consistent", "confidence"):
        row[name] = getattr(comparison, name)
    for prefix, verdict in zip(("cf", "bf"), comparison.verdicts, strict=True):
        row[f"{prefix}_outcome"] = verdict.outcome.value if verdict.outcome else None
        row[f"{prefix}_invalid"] = verdict.invalid.value if verdict.invalid else None
        row |= {f"{prefix}_win": verdict.p_win, f"{prefix}_tie": verdict.p_tie, f"{prefix}_loss": verdict.p_loss}
    return row
