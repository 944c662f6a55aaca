"""``judge rubric list|show|diff|lint|new|release``: read, compare and write rubrics.

The data that was asked for goes to stdout, messages go to stderr. Bad input is raised as ``InputError`` for the root
command to report.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import rubrics
from judge.advice import advised

__all__ = ["command"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")


@click.group("rubric", short_help="List, read, check and release rubrics.")
def command() -> None:
    """Read, compare and write rubrics.

    RUBRIC is a name (helpfulness), a name and version (helpfulness@1), or the path of a .md file.
    """


@command.command("list", short_help="The shipped rubrics.")
@_as_json
def list_(as_json: bool) -> None:
    """List the shipped rubrics, every version."""
    rows = [_row(rubrics.load(f"{name}@{number}")) for name in rubrics.names() for number in rubrics.versions(name)]
    if as_json:
        _write_json(rows)
        return
    table = [("NAME", "VERSION", "RELEASED", "DIGEST", "CRITERIA", "TITLE")]
    for row in rows:
        released = "yes" if row["released"] else "no"
        shown = (row["name"], row["version"], released, row["digest"][:12], row["criteria"], row["title"])
        table.append(tuple(map(str, shown)))  # type: ignore[arg-type]  # six columns, as in the heading
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@command.command("show", short_help="The text of one rubric.")
@click.argument("rubric")
@_as_json
def show(rubric: str, as_json: bool) -> None:
    """Write the text of RUBRIC as it stands."""
    found = rubrics.load(rubric)
    if as_json:
        shares = {name: round(share, 4) for name, share in found.shares.items()}
        _write_json({**found.model_dump(mode="json"), "ref": str(found.ref), "shares": shares})
        return
    click.echo(found.text, nl=False)
    click.echo(f"{found.ref} {found.digest} ({'released' if found.released else 'draft'})", err=True)


@command.command("diff", short_help="What changed between two rubrics.")
@click.argument("before")
@click.argument("after")
@_as_json
def diff(before: str, after: str, as_json: bool) -> None:
    """Compare two rubrics: a unified diff to stdout, the changed fields to stderr."""
    found = rubrics.diff(before, after)
    if as_json:
        changes = [{**asdict(change), "kind": change.kind} for change in found.changes]
        _write_json(
            {"before": asdict(found.before), "after": asdict(found.after), "changes": changes, "text": found.text}
        )
        return
    click.echo(found.text, nl=False)
    if not found.text:
        click.echo("the texts are the same", err=True)
    for change in found.changes:
        click.echo(f"{change.kind:8} {change.field}: {_short(change.before)} -> {_short(change.after)}", err=True)


@command.command("lint", short_help="Check rubric files.")
@click.argument("rubric", nargs=-1)
@_as_json
def lint(rubric: tuple[str, ...], as_json: bool) -> None:
    """Check each RUBRIC, or all shipped ones; exit 2 where there is a problem."""
    targets = rubric or tuple(f"{name}@{number}" for name in rubrics.names() for number in rubrics.versions(name))
    problems = [problem for target in targets for problem in rubrics.lint(target)]
    if as_json:
        _write_json([asdict(problem) for problem in problems])
    for problem in () if as_json else problems:
        click.echo(str(problem), err=True)
    files = "1 file" if len(targets) == 1 else f"{len(targets)} files"
    faults = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    click.echo(f"{files}, {faults}", err=True)
    if problems:
        raise SystemExit(2)


@command.command("new", short_help="Start a draft.")
@click.argument("name")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rubrics"),
    show_default=True,
    help="Folder of your rubrics; the draft goes to FOLDER/NAME/v<N>.md.",
)
@click.option(
    "--from", "from_ref", metavar="RUBRIC", help="Copy this one. Default: the latest version of NAME, if any."
)
@_as_json
def new(name: str, folder: Path, from_ref: str | None, as_json: bool) -> None:
    """Write a draft of NAME: its next version, or a commented skeleton for a new name."""
    path = rubrics.new(name, folder, from_ref=from_ref)
    if as_json:
        _write_json({"path": str(path)})
        return
    click.echo(str(path))
    lint, release = advised("rubric", "lint", path), advised("rubric", "release", path)
    click.echo(f"next: edit it, then {lint}, then {release}", err=True)


@command.command("release", short_help="Freeze a draft.")
@click.argument("path", type=click.Path(path_type=Path))
@_as_json
def release(path: Path, as_json: bool) -> None:
    """Write the digest of the draft at PATH into the frozen.json beside it; from then on an edit is refused."""
    ref = rubrics.release(path)
    if as_json:
        _write_json({**asdict(ref), "ref": str(ref), "path": str(path)})
        return
    click.echo(f"{ref} {ref.digest}")
    click.echo(f"released; use it as --rubric {path}", err=True)


def _row(rubric: rubrics.Rubric) -> dict[str, Any]:
    return {
        "name": rubric.name,
        "version": rubric.version,
        "released": rubric.released,
        "digest": rubric.digest,
        "criteria": len(rubric.criteria),
        "title": rubric.title,
    }


def _short(value: str | None) -> str:
    text = "(absent)" if value is None else value
    return text if len(text) <= 60 else text[:57] + "..."


def _write_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
