"""``judge rubric``: data to stdout, messages to stderr, JSON on every verb, exit 2 for a file with problems."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import rubrics
from judge.cli.rubric import command
from rubrics import InputError


def run(*args: str) -> Result:
    """Run a subcommand, letting errors through as the root command sees them."""
    return CliRunner().invoke(command, list(args))


def data(*args: str) -> Any:
    """The JSON that a subcommand writes to stdout."""
    return json.loads(run(*args, "--json").stdout)


def test_list_is_a_table() -> None:
    """One line for each shipped rubric, under a heading, in aligned columns."""
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "RELEASED", "DIGEST", "CRITERIA", "TITLE"]
    assert len(lines) == 1 + len(rubrics.names())
    at = lines[0].index("TITLE")
    assert all(line[at - 1] == " " and line[at] != " " for line in lines)
    assert {row["name"] for row in data("list")} == set(rubrics.names())


def test_show_is_the_text_itself() -> None:
    """stdout holds the file as it stands; ref and digest go to stderr."""
    rubric = rubrics.load("helpfulness")
    result = run("show", "helpfulness")
    assert result.stdout == rubric.text
    assert result.stderr == f"helpfulness@1 {rubric.digest} (released)\n"
    shown = data("show", "helpfulness@1")
    assert (shown["ref"], shown["digest"], shown["shares"]["task"]) == ("helpfulness@1", rubric.digest, 0.4)


def test_bad_input_is_left_to_the_root_command() -> None:
    """An unknown rubric is raised as an input error with nothing on stdout."""
    result = run("show", "helpfullness")
    assert isinstance(result.exception, InputError)
    assert result.stdout == ""


def test_a_draft_from_start_to_release(tmp_path: Path) -> None:
    """new, lint, release and diff work in a row on a user's folder."""
    result = run("new", "helpfulness", "--folder", str(tmp_path))
    path = Path(result.stdout.strip())
    assert path == tmp_path / "helpfulness" / "v2.md"
    linted = run("lint", str(path))
    assert linted.exit_code == 2
    assert f"{path}:" in linted.stderr
    assert linted.stdout == ""
    assert data("lint", str(path))[0]["field"] == "draft"
    path.write_text(path.read_text(encoding="utf-8").replace("FILL IN what", "Say what"), encoding="utf-8")
    assert run("lint", str(path)).exit_code == 0
    assert run("release", str(path)).stdout.startswith("helpfulness@2 ")
    assert data("release", str(path))["ref"] == "helpfulness@2"
    compared = run("diff", "helpfulness", str(path))
    assert "+version: 2" in compared.stdout
    assert "changed  version: 1 -> 2" in compared.stderr
    assert data("diff", "helpfulness", str(path))["changes"][0] == {
        "field": "version", "before": "1", "after": "2", "kind": "changed",
    }  # fmt: skip


def test_lint_without_a_name_checks_what_is_shipped() -> None:
    """Without arguments all shipped rubrics are checked."""
    result = run("lint")
    assert result.exit_code == 0
    assert result.stderr == f"{len(rubrics.names())} files, 0 problems\n"
    assert data("lint") == []


def test_diff_of_the_same_says_so() -> None:
    """Equal rubrics give an empty stdout and a word on stderr."""
    result = run("diff", "helpfulness", "helpfulness@1")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "the texts are the same\n")


def test_new_writes_json(tmp_path: Path) -> None:
    """The path of a new draft can be had as JSON."""
    assert data("new", "tone", "--folder", str(tmp_path)) == {"path": str(tmp_path / "tone" / "v1.md")}


@pytest.mark.parametrize("verb", ["list", "show", "diff", "lint", "new", "release"])
def test_every_verb_explains_itself(verb: str) -> None:
    """Each subcommand has help and a --json option."""
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
