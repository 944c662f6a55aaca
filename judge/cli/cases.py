"""``judge cases``: prompts that went wrong, frozen to be rerun every release."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..environment import environment
from .screen import home_option, safe

if TYPE_CHECKING:
    from ..checks.suite import SuiteFile

__all__ = ["command"]

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.group("cases")
def command() -> None:
    """Known-failure cases: freeze failing prompts with their checks and origin, write a suite's cases as prompts."""


@command.command("write", epilog="Example: judge cases write redteam -o redteam.jsonl")
@click.argument("suite")
@click.option("--output", "-o", required=True, type=_PATH, help="Where the prompts go (.jsonl).")
def write(suite: str, *, output: Path) -> int:
    """Write the frozen prompts of SUITE as an eval set, for `judge generate`."""
    from ..checks.cases import freeze, read_cases, write_cases
    from ..checks.suite import load_suite
    from ..errors import InputError

    found = load_suite(suite)
    if found.cases is None:
        raise InputError(f"suite {found.ref} has no frozen cases; `judge check --list` says which do")
    cases = read_cases(found.cases)
    count = write_cases(output, (freeze(case.id, case.item, case.origin) for case in cases.values()))
    click.echo(f"wrote {count} prompts to {safe(str(output))}", err=True)
    click.echo(f"then: {safe(advised('generate', output, '-m', 'MODEL', '-o', 'answers.jsonl'))}", err=True)
    return 0


@command.command(
    "freeze", epilog='Example: judge cases freeze k-1a2b3c -o known/incident-42.jsonl --why "Broke the feed."'
)
@click.argument("check_id")
@click.option("--output", "-o", required=True, type=_PATH, help="The new case file (.jsonl); never overwritten.")
@click.option("--why", required=True, help="Why these prompts are kept.")
@click.option("--source", default="", help="Where they come from (default: the pass and its run).")
@click.option("--check", "only", multiple=True, help="Only failures of this check (its ref); several may be given.")
@click.option("--broken", is_flag=True, help="Only what the candidate broke, not what the baseline failed, too.")
@home_option
def freeze_failures(
    check_id: str, *, output: Path, why: str, source: str, only: tuple[str, ...], broken: bool, home: str | None
) -> int:
    """Freeze the prompts on which the candidate failed in pass CHECK_ID, each with the checks that it failed."""
    from ..checks.cases import freeze, write_cases
    from ..errors import InputError
    from ..store import Findings, Store

    folder = Path(home) if home else environment().home
    findings = Findings(folder)
    for problem in findings.catch_up():
        click.echo(f"note: {safe(problem)}", err=True)
    found = findings.run(check_id)
    if found.run_id is None:
        raise InputError(f"pass {found.check_id} checked a file; freeze from a pass over a run, which keeps its texts")
    failing = _failing(findings, found.check_id, only, broken=broken)
    if not failing:
        raise InputError(f"pass {found.check_id}: the candidate fails nothing there; there is nothing to freeze")
    entries = _entries(findings, found.check_id)
    origin = {
        "source": source or f"pass {found.check_id} of run {found.run_id}",
        "date": datetime.now(UTC).date().isoformat(),
        "why": why,
    }
    rows = []
    for pair in Store(folder).pairs(found.run_id, sorted(failing)):
        own = [dict(check) for check in pair.item.checks]
        checks = [*own, *(entries[ref] for ref in failing[pair.id] if ref in entries)]
        rows.append(freeze(pair.id, _only(pair.item, checks), origin))
    count = write_cases(output, rows)
    click.echo(f"froze {count} prompts in {safe(str(output))}; name it under `cases:` of a suite beside it", err=True)
    return 0


def _failing(findings: Any, check_id: str, only: tuple[str, ...], *, broken: bool) -> dict[str, list[str]]:
    """By pair, the checks that the candidate fails there."""
    frame = findings.frame(check_id)
    failed: dict[str, list[str]] = {}
    theirs = set()
    for row in frame.iter_rows(named=True):
        if row["passed"] is False and row["side"] == "baseline":
            theirs.add((row["pair_id"], row["check"]))
    for row in frame.iter_rows(named=True):
        key = (row["pair_id"], row["check"])
        wanted = row["passed"] is False and row["side"] == "candidate" and (not only or row["check"] in only)
        if wanted and not (broken and key in theirs):
            failed.setdefault(row["pair_id"], []).append(row["check"])
    return failed


def _entries(findings: Any, check_id: str) -> dict[str, dict[str, Any]]:
    """The suite's entries of a pass as checks that an item can carry, by the ref of their findings."""
    from rubrics.source import read_yaml

    from .. import journal
    from ..checks.suite import DEEPEST, SuiteFile

    header = next(journal.records(findings.file(check_id), head="check"))
    source = read_yaml(header["suite_text"].encode(), header["suite"], deepest=DEEPEST)
    return _by_ref(SuiteFile.model_validate(source.data))


def _by_ref(suite: SuiteFile) -> dict[str, dict[str, Any]]:
    from ..checks.registry import CHECKS, Registry

    registry, found = Registry(), {}
    for entry in suite.checks:
        name = entry.check.partition("@")[0]
        if name not in CHECKS:
            continue
        ref = f"{name}@{registry.find(name).version}" + (f"#{entry.id}" if entry.id and entry.id != name else "")
        found[ref] = entry.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"where", "required"})
    return found


def _only(item: Any, checks: list[dict[str, Any]]) -> Any:
    from dataclasses import replace

    return replace(item, checks=tuple(checks))
