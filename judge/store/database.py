"""One connection to the DuckDB file: opened for a burst, migrated, its errors told in our words.

DuckDB locks a whole file per process, so nothing keeps a connection: writers open, commit and close; readers open
read-only for one burst. Both retry for a bounded time while another process holds the file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError

if TYPE_CHECKING:
    import duckdb

__all__ = ["ONE_THREAD", "Stream", "raise_if_full", "reading", "writing"]

_WAIT_SECONDS = 15.0
_WRITER_MEMORY = "128MB"
ONE_THREAD = "SET threads = 1"
"""For what is looked up beside other work: two threads answer little sooner and take a quarter more CPU."""


@contextmanager
def reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open for one burst of reading; a database of an older schema is brought up to date first."""
    with _connection(path, read_only=True) as con:
        if _version(con, path) == _migrations()[-1][0]:
            yield con
            return
    with writing(path):
        pass  # opening it for writing brings the schema up to date
    with _connection(path, read_only=True) as con:
        yield con


@contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open for one burst of writing, schema up to date."""
    with _connection(path, read_only=False) as con:
        con.execute(f"SET memory_limit = '{_WRITER_MEMORY}'")
        _migrate(con, path)
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
    # All of it is fetched: a result with rows left would keep the connection from registering a frame.
    rows = con.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchall()
    version = int(rows[0][0])
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
        con.execute("SET enable_progress_bar = false")  # it would go to stdout, into the data, after two seconds
        yield con
    except duckdb.Error as error:
        raise_if_full(error, path)
        raise StoreError(
            f"{path}: the database cannot do this ({_first_line(error)}); the journals are safe; run `judge recover`"
        ) from error
    finally:
        con.close()


class Stream:
    """A relation as an Arrow stream and nothing else.

    polars keeps the type of what it was given in a cache for the life of the process; given DuckDB's own type, DuckDB
    2.0 prints warnings about leaked instances when the interpreter exits.
    """

    def __init__(self, relation: duckdb.DuckDBPyRelation) -> None:
        self.relation = relation

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.relation.__arrow_c_stream__(requested_schema)


def raise_if_full(error: Exception, path: Path) -> None:
    """A full disk is said as such, whichever library found it."""
    if "No space left on device" in str(error):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
