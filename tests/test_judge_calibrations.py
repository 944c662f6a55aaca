"""A file that is no calibration is refused by its name, whoever was to read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from judge import cli, compare
from judge.calibrations import read_calibration
from judge.cli.run import time_words
from judge.errors import InputError
from judge.testing import ScriptedBackend, prefer_longer, sample_pair

BAD = {
    "empty.json": b"",
    "other.json": b'{"a": 1}',
    "list.json": b"[]",
    "latin.json": b"\xff\xfe",
    "format.json": b'{"format": "judge.calibration/0"}',
}


@pytest.mark.parametrize("name", [*BAD, "gone.json"])
def test_the_error_names_the_file(tmp_path: Path, name: str) -> None:
    """Empty, something else, another format, not UTF-8, gone: each is one error with the path in front."""
    path = tmp_path / name
    if name in BAD:
        path.write_bytes(BAD[name])
    with pytest.raises(InputError, match="calibration") as refused:
        read_calibration(path)
    assert str(refused.value).startswith(f"{path}: ")
    pair = sample_pair()
    backend = ScriptedBackend(prefer_longer, name="scripted/longer")
    with pytest.raises(InputError, match="calibration") as refused:
        compare("Q", candidate=pair.candidate.text, baseline=pair.baseline.text, judge=backend, calibration=path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("verb", ["gate", "pairs", "should-tune", "cascade"])
def test_every_verb_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Exit code 2 and the path of the calibration that cannot be used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    row = '{"id": "p%d", "prompt": "Q", "candidate": "longer answer", "baseline": "short"}\n'
    (tmp_path / "e.jsonl").write_text("".join(row % n for n in range(3)), encoding="utf-8")
    bad = tmp_path / "bad.json"
    bad.write_text("{}", encoding="utf-8")
    assert cli._run(["run", "e.jsonl", "-j", "scripted:longer"]) == 0
    capsys.readouterr()
    commands = {
        "gate": ["gate", "latest", "--calibration", str(bad), "--as-it-is"],
        "pairs": ["tune", "pairs", "-o", "p.jsonl", "--judge", "latest", "--calibration", str(bad)],
        "should-tune": ["loop", "should-tune", "--prompt-run", "latest", "--calibration", str(bad)],
        "cascade": ["run", "e.jsonl", "-j", "scripted:longer", "-j", "scripted:shorter", "--cascade", str(bad)],
    }
    code = cli._run(commands[verb])
    shown = capsys.readouterr().err
    assert (code, "bad.json" in shown, "not a calibration file" in shown) == (2, True, True), shown


def test_no_time_is_said_as_such() -> None:
    """Zero hours, minutes and seconds is no estimate that anybody can read."""
    given = (None, 0.0, 0.2, 1.0, 3_671.0)
    assert [*map(time_words, given)] == ["unknown", "none", "under a second", "about 0:00:01", "about 1:01:11"]
