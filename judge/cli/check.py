"""``judge check``: hard checks on every answer, candidate and baseline, paired."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..environment import environment
from ..render.words import counted
from ..writing import write_whole
from .making import make_pass
from .screen import bring_in, home_option, safe

if TYPE_CHECKING:
    from ..checks.passes import Material, Pass
    from ..checks.registry import Registry
    from ..store import Store

__all__ = ["command"]

_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_PATH = click.Path(dir_okay=False, path_type=Path)


@click.command("check", epilog="Example: judge check evals.jsonl --suite json-tools -c new.jsonl -b old.jsonl")
@click.argument("target", metavar="RUN|EVALSET", default="latest")
@click.option("--suite", "-s", default="default", show_default=True, help="A shipped suite, or a .yaml of your own.")
@click.option("--candidate", "-c", type=_PATH, help="Of an eval set: the candidate's answers, joined on id.")
@click.option("--baseline", "-b", type=_PATH, help="Of an eval set: the baseline's answers, joined on id.")
@click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="Name a column of the eval set.")
@click.option("--skip-bad", is_flag=True, help="Check the usable rows although others cannot be read.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N rows of an eval set.")
@click.option("--checks", "files", multiple=True, type=_PATH, help="Python with checks of your own; it is run.")
@click.option("--allow-python", is_flag=True, help="Let the suite name Python classes (python:module:Class).")
@click.option(
    "--fail-on", type=click.Choice(["failures", "regressions", "nothing"]), default="failures", show_default=True,
    help="What of severity block makes the exit code 1: any failure of the candidate, or only new ones.",
)  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.01), default=10.0, show_default=True, help="For one check, at most.")
@click.option("--show", type=click.IntRange(0), default=5, show_default=True, help="Findings shown of each check.")
@click.option("--list", "list_all", is_flag=True, help="List the shipped suites and checks.")
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--junit", type=_PATH, help="Write JUnit XML.")
@home_option
def command(
    target: str,
    *,
    suite: str,
    candidate: Path | None,
    baseline: Path | None,
    maps: tuple[str, ...],
    skip_bad: bool,
    limit: int | None,
    files: tuple[Path, ...],
    allow_python: bool,
    fail_on: str,
    seconds: float,
    show: int,
    list_all: bool,
    as_md: bool,
    as_json: bool,
    junit: Path | None,
    home: str | None,
) -> int:  # fmt: skip
    """Make the checks of a suite on both answers of every pair of RUN (default: the latest) or EVALSET.

    Exit code 1 where a check of severity block fails on an answer of the candidate, 4 where one could not be made (or a
    frozen case was not run), else 0. Failures and regressions are counted apart.
    """
    from ..checks.suite import load_suite
    from ..errors import InputError
    from ..render import checks as render
    from ..store import Findings, Store

    registry = _registry(files, allow_python=allow_python)
    if list_all:
        return _list(registry, as_json=as_json)
    if junit is not None and not junit.parent.is_dir():
        raise InputError(f"{junit.parent}: no such folder; make it first")
    wanted = load_suite(suite, registry)
    store = Store(Path(home) if home else environment().home)
    reading = {"candidate": candidate, "baseline": baseline, "skip_bad": skip_bad, "limit": limit}
    material = _material(target, store, reading, maps)
    for problem in Findings(store.home).catch_up():
        click.echo(f"note: {safe(problem)}", err=True)
    done = make_pass(wanted, material, store, seconds=seconds)
    if junit is not None:
        write_whole(junit, render.check_junit(done))
    if as_json:
        click.echo(render.check_json(done))
    else:
        click.echo(render.check_markdown(done) if as_md else render.check_text(done, show=show))
        click.echo(f"kept as {done.check_id} ({counted(done.report.findings, 'finding')})", err=True)
    return _code(done, fail_on)


def _registry(files: tuple[Path, ...], *, allow_python: bool) -> Registry:
    """The shipped checks and those of the user's files, which are run."""
    from ..checks.registry import Registry

    registry = Registry(python=allow_python)
    for file in files:
        registry.add(file)
    return registry


def _code(done: Pass, fail_on: str) -> int:
    """The exit code: what fails first, then what was not said."""
    if fail_on != "nothing" and done.report.blocking(regressions=fail_on == "regressions"):
        return 1
    return 4 if done.undecided else 0


def _material(target: str, store: Store, reading: Mapping[str, object], maps: tuple[str, ...]) -> Material:
    """What the target names: a file that exists or looks like one, else a run."""
    from ..checks.passes import of_evalset, of_run
    from ..formats import open_evalset

    if target.lower().endswith(_FILES) or "/" in target:
        names = dict(one.split("=", 1) for one in maps if "=" in one)
        if len(names) != len(maps):
            raise click.UsageError("--map takes FIELD=COLUMN")
        return of_evalset(open_evalset(Path(target), mapping=names, **reading))  # type: ignore[arg-type]
    if any(value for name, value in reading.items() if name in ("candidate", "baseline")) or maps:
        raise click.UsageError("--candidate, --baseline and --map go with an eval set; a run has its answers")
    bring_in(store)
    info = store.run(target)
    if not info.sealed:
        click.echo(f"note: run {info.run_id} is not finished; what it has so far is checked", err=True)
    return of_run(store.journal_path(info.run_id))


def _list(registry: Registry, *, as_json: bool) -> int:
    import inspect
    import json

    from ..checks.suite import load_suite, shipped_suites

    suites = [load_suite(ref) for ref in shipped_suites()]
    checks = {name: (inspect.getdoc(registry.find(name)) or "").split("\n\n")[0] for name in registry.names()}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "suites": [{"ref": one.ref, "digest": one.digest, "summary": one.summary} for one in suites],
                    "checks": {f"{name}@{registry.find(name).version}": text for name, text in checks.items()},
                }
            )
        )
        return 0
    from ..render.words import wrap

    click.echo("suites")
    for one in suites:
        click.echo("\n".join(wrap(one.summary, first=f"  {one.ref:14} ", rest=" " * 17)))
    click.echo("\nchecks")
    for name, text in checks.items():
        label = f"{name}@{registry.find(name).version}"
        click.echo("\n".join(wrap(text.replace("``", ""), first=f"  {label:18} ", rest=" " * 21)))
    return 0
