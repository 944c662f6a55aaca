"""Advised commands work when they are pasted: they name the home folder and are quoted for a shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import orjson
import pytest
from click.testing import CliRunner

from judge.advice import HOMELESS, VERBS, advised, homed, note_home
from judge.again import probe_command, run_command
from judge.cli import _run, root
from judge.cli.screen import complain
from judge.store import Store


@pytest.fixture(autouse=True)
def no_home() -> Iterator[None]:
    """No test leaves a home behind."""
    note_home(None)
    yield
    note_home(None)


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every command of the command line by its words."""
    waiting: list[tuple[str, click.Command]] = [("", root)]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                assert found is not None
                waiting.append((f"{name} {inner}".strip(), found))
        if name:
            yield name, command


def test_the_verbs_with_a_home_are_those_of_the_command_line() -> None:
    """Whoever adds a verb, or a home to a verb, has to say so where commands are advised."""
    known = dict(verbs())
    assert {name for name in known if " " not in name} == set(VERBS)
    for name, command in known.items():
        takes = any(option.name == "home" for option in command.params)
        deeper = isinstance(command, click.Group) and not command.invoke_without_command
        said = name not in HOMELESS and name.split()[0] not in HOMELESS
        assert deeper or takes == said, name


@pytest.mark.parametrize("home", ["runs", "my runs", "it's; rm -rf x"])
def test_a_command_is_quoted_and_names_the_home(home: str) -> None:
    """What a shell reads is what was meant, whatever stands in the names."""
    note_home(home)
    assert shlex.split(advised("report", "r-1", "--html", "a b.html", seed=7)) == [
        "judge", "report", "r-1", "--html", "a b.html", "--seed", "7", "--home", home,
    ]  # fmt: skip
    assert shlex.split(advised("generate", "e.jsonl", "-m", "x")) == ["judge", "generate", "e.jsonl", "-m", "x"]
    note_home(None)
    assert advised("report", "r-1") == "judge report r-1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("finish it with: judge resume r-1", "finish it with: judge resume r-1 --home h"),
        ("run `judge doctor`, then `judge recover`", "run `judge doctor --home h`, then `judge recover --home h`"),
        ("judge label r-1, then judge gate r-1", "judge label r-1 --home h, then judge gate r-1 --home h"),
        ("calibrate it anew (judge calibrate)", "calibrate it anew (judge calibrate --home h)"),
        ("it is not finished: judge resume r-1.", "it is not finished: judge resume r-1 --home h."),
        ("go: judge rollout rollback ro-1   (as before)", "go: judge rollout rollback ro-1 --home h   (as before)"),
        ("see: judge report r-1 --home other", "see: judge report r-1 --home other"),
        ("the judge report said so; a judge run by hand", "the judge report said so; a judge run by hand"),
        ("judge gate RUN\njudge rollout start D", "judge gate RUN --home h\njudge rollout start D --home h"),
        ("write it with `judge rubric lint x.md`", "write it with `judge rubric lint x.md`"),
    ],
)  # fmt: skip
def test_commands_in_sentences_are_completed_and_prose_is_not(text: str, told: str) -> None:
    """Commands in backticks and where a command is announced get the home; talk about judges stays as it is."""
    assert homed(text) == text
    note_home("h")
    assert homed(text) == told


def rows(path: Path) -> Path:
    """Twelve pairs."""
    made = [
        {"id": f"p{n}", "prompt": f"question {n}", "candidate": f"a long answer {n}", "baseline": f"short {n}"}
        for n in range(12)
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in made))
    return path


def commands(text: str) -> list[list[str]]:
    """The commands after "next:" and "with:" of an output."""
    found = [line.split(": judge ", 1)[1] for line in text.splitlines() if ": judge " in line]
    return [shlex.split(command) for command in found]


def test_what_is_advised_runs_as_it_is_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run in a home with a space in its name: each next command is run word by word, and none asks for a home."""
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path / "my runs")
    assert _run(["run", str(rows(tmp_path / "e.jsonl")), "-j", "scripted:longer", "--home", home]) == 0
    (then,) = commands(capsys.readouterr().err)
    assert then[-2:] == ["--home", home] and _run(then) == 0
    assert (tmp_path / "report.html").exists()
    assert _run(["gate", "latest", "--home", home]) in (1, 4)
    said = " ".join(capsys.readouterr().out.split())
    assert "judge gate override decision-" in said and f"--home '{home}'" in said
    assert _run(["demo", "-j", "scripted:longer", "--home", home]) == 0
    listed = [line.strip() for line in capsys.readouterr().err.splitlines() if line.startswith("  judge gate latest")]
    assert len(listed) == 1 and f"--home '{home}'  every rule" in listed[0], "a long command stays apart from its words"


def test_an_error_advises_for_the_home_that_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A message of a module that knows no home is completed where it is printed."""
    home = str(tmp_path / "none")
    assert _run(["report", "r-123abc", "--home", home]) == 2
    assert f"`judge run --home {home}`" in capsys.readouterr().err


def test_a_run_is_made_anew_as_it_was_begun(tmp_path: Path) -> None:
    """Other canaries than the usual ones, and batches, are named; the usual ones are not."""
    home, path = tmp_path / "home", str(rows(tmp_path / "e.jsonl"))
    info = None
    for words in ([], ["--canaries", "3"]):
        assert (
            CliRunner().invoke(root, ["run", path, "-j", "scripted:longer", *words, "--home", str(home)]).exit_code == 0
        )
        info = Store(home).run()
        note_home(None)
        assert ("--canaries 3" in run_command(info)) == bool(words)
    assert info is not None
    batched = replace(info, header={**info.header, "batch": {"rest": "live", "size": 50}})
    assert "--batch --batch-rest live --batch-size 50" in run_command(batched)


def test_a_run_is_made_anew_with_its_seed(tmp_path: Path) -> None:
    """The commands that make a run or its probe again name a seed that is not the usual one."""
    home = tmp_path / "home"
    words = ["run", str(rows(tmp_path / "e.jsonl")), "-j", "scripted:longer", "--seed", "5", "--home", str(home)]
    assert CliRunner().invoke(root, words).exit_code == 0
    info = Store(home).run()
    note_home(None)
    for command in (run_command(info), probe_command(info)):
        assert shlex.split(command)[-2:] == ["--seed", "5"]


@pytest.mark.parametrize("name", ["evalset (1).jsonl", "a, b.jsonl", "x; y.jsonl"])
def test_a_quoted_name_is_not_torn_by_the_home(name: str) -> None:
    """A command that was made whole stays as it is, whatever stands between its quotation marks."""
    note_home("my runs")
    command = advised("run", name, "--judge", "x")
    assert homed(f"calibrate anew: {command}") == f"calibrate anew: {command}"
    note_home(None)


def test_the_home_is_known_in_every_thread() -> None:
    """A page is drawn in several threads; advice in each names the home."""
    note_home("h")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(homed, "`judge report`").result() == "`judge report --home h`"
    note_home(None)


def test_an_error_is_broken_at_the_terminals_width_and_in_no_path_or_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal no line is wider than it, except for what must be pasted whole; elsewhere it is one line."""
    path, command = "/data/my runs/a b.jsonl", "judge label r-1a2b3c --to labels.jsonl --as YOU --home '/data/my runs'"
    message = (
        f"{path}: none of its 700 labelled pairs is of run r-1a2b3c (35: another candidate or baseline); name the run "
        f"that they are of, or label this one: {command}\n  b.jsonl:3: a second line of its own that is long too"
    )
    complain(message)
    assert capsys.readouterr().err == f"error: {message}\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((44, 20)))
    complain(message)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {path}: none of its"
    assert f"  {command}" in lines
    assert all(len(line) <= 44 for line in lines if command not in line)
    assert lines[-2:] == ["  b.jsonl:3: a second line of its own that", "  is long too"]
    assert " ".join(" ".join(lines).split()) == " ".join(f"error: {message}".split())
