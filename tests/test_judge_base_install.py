"""What the base install promises works with what the base install brings: no pyarrow, pandas, torch or streamlit.

The tests run where everything is installed. Here the command runs in a Python that sees the base requirements and what
those require, and nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPO = Path(__file__).parent.parent


def required(name: str, extras: frozenset[str], seen: dict[str, Distribution]) -> None:
    """Every distribution that one needs with these extras, into ``seen``."""
    found = distribution(name)
    for text in found.requires or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            key = need.name.lower().replace("_", "-")
            if key not in seen:
                try:
                    seen[key] = distribution(need.name)
                except PackageNotFoundError:
                    continue  # for another platform
                required(need.name, frozenset(need.extras), seen)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A Python command that sees the base install alone; its PYTHONPATH is the last part."""
    seen = {"touchstone-judge": distribution("touchstone-judge")}
    required("touchstone-judge", frozenset(), seen)
    site = tmp_path_factory.mktemp("site")
    for found in seen.values():
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))))
    yield [sys.executable, "-S", str(site)]
    shutil.rmtree(site)


def judge(python: list[str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line there, in ``folder`` with the home in it."""
    code = "import sys; sys.argv[0] = 'judge'; from judge.cli import main; main()"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUDGE_", "PYTHON"))}
    env |= {"PYTHONPATH": f"{REPO}{os.pathsep}{python[2]}", "JUDGE_HOME": str(folder / "home")}
    return subprocess.run(
        [*python[:2], "-c", code, *words], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_other_packages_are_not_there(python: list[str], tmp_path: Path) -> None:
    """The Python of this test has the base requirements, and none of the heavy ones that are left out on purpose."""
    code = (
        "import duckdb, polars, sklearn\nfrom importlib.util import find_spec\n"
        "print([name for name in ('pyarrow', 'pandas', 'torch', 'streamlit', 'litellm', 'openai') if find_spec(name)])"
    )
    env = {**os.environ, "PYTHONPATH": python[2]}
    done = subprocess.run([*python[:2], "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_every_step_from_a_set_to_a_decision_works_with_the_base_install(python: list[str], tmp_path: Path) -> None:
    """The verbs of the README in turn, each twice where a second time takes another way; no import is missed."""
    rows = [json.loads(line) for line in (REPO / "judge/samples/demo.jsonl").read_text(encoding="utf-8").splitlines()]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = "run e.jsonl -j scripted:longer"
    steps = (
        (0, run),
        (0, run),
        (0, f"{run} --repeat 2"),
        (0, f"{run} --dry-run"),
        (0, f"{run} -j scripted:shorter"),
        (0, "report --html r.html"),
        (0, "report latest --receipts b.jsonl"),
        (0, "report --list"),
        (1, "check latest --junit j.xml"),
        (0, "hack latest --html h.html"),
        (0, "probe e.jsonl --judge scripted:longer"),
        (0, "calibrate --html c.html"),
        (0, "segments latest"),
        (1, "gate latest --html g.html"),
        (0, "gate show --list"),
        (0, "export e.jsonl --to trl -o t.jsonl --skip-bad"),
        (0, "loop status"),
        (0, "rubric list"),
        (0, "recover"),
        (0, "doctor"),
        (0, run),
    )
    for code, words in steps:
        done = judge(python, tmp_path, *words.split())
        assert "No module named" not in done.stderr + done.stdout, (words, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert done.returncode == code, (words, done.returncode, done.stdout[-800:], done.stderr[-800:])
