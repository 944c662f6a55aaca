"""What the verbs of the first hour print, piped, fits a terminal of 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from judge.cli import root
from judge.render.words import columns

VERBS = (
    "report", "check latest", "hack latest", "ground latest", "segments latest", "gate latest", "gate show",
    "calibrate", "rank latest", "loop status", "rollout status", "tune candidates list", "check --list",
    "report --list", "gate show --list", "doctor", "run evals.jsonl -j scripted:longer --dry-run",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder in which `judge demo` has run, with a scripted judge; its verbs run in it."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGE_HOME", ".judge")
        patch.chdir(folder)
        yield folder


def said(*words: str) -> str:
    """Everything that a command prints."""
    done = CliRunner().invoke(root, list(words))
    assert done.exit_code in (0, 1, 4), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output


def test_the_demo_and_what_it_advises_fit_80_columns(home: Path) -> None:
    """`judge demo`, then each verb of a first hour on its run: no line is wider than 80 columns, except a command to
    paste, which stands whole on a line of its own.
    """
    outputs = {"demo": said("demo", "--judge", "scripted:longer")}
    rows = ({"id": f"p{n}", "prompt": "Which?", "candidate": "longer", "baseline": "short"} for n in range(40))
    Path("evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    outputs |= {verb: said(*verb.split()) for verb in VERBS}
    wide = [
        f"{verb}: {columns(line)}: {line}"
        for verb, text in outputs.items()
        for line in text.splitlines()
        if columns(line) > 80 and not line.lstrip(" ->").startswith("judge ")
    ]
    assert wide == []
    assert all(len(text) > 20 for text in outputs.values()), {verb: len(text) for verb, text in outputs.items()}
