"""A file that is no calibration is refused by its name, whoever was to read it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from calibration.confidence import Calibration
from judge import cli, compare
from judge.calibrations import read_calibration, stored_calibration
from judge.cli.run import time_words
from judge.clock import stamp
from judge.errors import InputError
from judge.store import Store
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


def calibration_of(folder: Path, **changes: object) -> Path:
    """A stored calibration for ``helpfulness@1`` and the judge ``j``, and where it lies."""
    given: dict[str, Any] = {"rubric": "helpfulness@1", "judge": "j", "slope": 1.0, "dated": "", "n": 50} | changes
    fitted = Calibration(
        given["rubric"], given["judge"], "g" * 64, "temperature", {"slope": (given["slope"],)}, 0.0, given["n"], 50,
        dated=given["dated"],
    )  # fmt: skip
    return Store(folder).keep_calibration(fitted)


def test_the_stored_calibration_is_the_one_of_the_newest_verdicts(tmp_path: Path) -> None:
    """Not of the newest file, which a copy of the folder changes; of equal dates that with the most labels."""
    assert stored_calibration(tmp_path, "helpfulness@1", "j") is None
    newest = calibration_of(tmp_path, dated="2026-03-01")
    for changes in ({"dated": "2026-02-01"}, {"judge": "another", "dated": "2026-09-01"}, {"n": 900}):
        calibration_of(tmp_path, **changes)
        found = stored_calibration(tmp_path, "helpfulness@1", "j")
        assert found is not None
        assert (found[0], found[1].dated) == (newest, "2026-03-01")
    larger = calibration_of(tmp_path, dated="2026-03-01", n=60)
    found = stored_calibration(tmp_path, "helpfulness@1", "j")
    assert found is not None
    assert found[0] == larger
    (tmp_path / "calibrations" / "broken.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.json: .*; or delete it"):
        stored_calibration(tmp_path, "helpfulness@1", "j")


def test_the_gate_and_the_training_data_use_the_same_stored_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two in the home folder, whichever file is the newer one, as after copying it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_HOME", str(tmp_path / "home"))
    row = '{"id": "p%d", "prompt": "Question %d", "candidate": "longer answer", "baseline": "short"}\n'
    (tmp_path / "e.jsonl").write_text("".join(row % (n, n) for n in range(6)), encoding="utf-8")
    assert cli._run(["run", "e.jsonl", "-j", "scripted:longer"]) == 0
    info = Store(tmp_path / "home").run()
    mine: dict[str, Any] = {"rubric": info.rubric, "judge": info.judge}
    old = calibration_of(tmp_path / "home", **mine, slope=0.5, dated="2024-01-01T00:00:00+00:00")
    new = calibration_of(tmp_path / "home", **mine, slope=0.8, dated=stamp())
    for out, (first, second) in {"1.jsonl": (old, new), "2.jsonl": (new, old)}.items():
        os.utime(first, (1_000_000, 1_000_000))
        os.utime(second, (2_000_000, 2_000_000))
        capsys.readouterr()
        assert cli._run(["tune", "pairs", "-o", out, "--judge", "latest", "--unchecked"]) == 0
        assert f"calibration: {new}" in capsys.readouterr().err
        cli._run(["gate", "latest", "--json", "--dry-run"])
        shown = capsys.readouterr().out
        digest = hashlib.sha256(new.read_bytes()).hexdigest()[:12]
        assert f"calibration {digest}" in shown


def test_no_time_is_said_as_such() -> None:
    """Zero hours, minutes and seconds is no estimate that anybody can read."""
    given = (None, 0.0, 0.2, 1.0, 3_671.0)
    assert [*map(time_words, given)] == ["unknown", "none", "under a second", "about 0:00:01", "about 1:01:11"]
