"""`judge view`: what it starts, with which settings, and what it says where it cannot."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from judge.cli.view import _serve

REPO = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("made", REPO / "tests" / "servers" / "dashboard.py")
assert _spec is not None and _spec.loader is not None
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)
streamlit = pytest.mark.skipif(
    importlib.util.find_spec("streamlit") is None,
    reason="streamlit is not installed: pip install 'touchstone-judge[dashboard]'",
)


def view(*words: str, home: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """`judge view` in a process of its own."""
    script = f"{code}\nimport sys; sys.argv = ['judge', 'view', *sys.argv[1:]]; from judge.cli import main; main()"
    command = [sys.executable, "-c", script, *words, "--home", str(home)]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=home)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one run."""
    folder = tmp_path_factory.mktemp("home")
    made.judge_rows(folder, made.write_rows(folder / "a.jsonl", made.rows(12)), "r-aaaaaa")
    return folder


@streamlit
def test_the_address_is_on_stdout_and_the_settings_are_safe(home: Path) -> None:
    """Loopback only, known hosts, no statistics, no error details, a cap on uploads; the port is the one asked for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = view("r-aaa", "--dry-run", "--port", str(port), home=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"http://localhost:{port}/?run=r-aaaaaa\n"
    for option in (
        "--server.address=127.0.0.1",
        "--server.allowedHosts=localhost",
        "--browser.gatherUsageStats=false",
        "--client.showErrorDetails=none",
        "--client.toolbarMode=viewer",
        "--server.maxUploadSize=5",
        "--server.headless=true",
        f"--server.port={port}",
    ):
        assert option in done.stderr.split(), option


@streamlit
def test_a_segment_is_a_page_or_its_pairs(home: Path) -> None:
    """`--segment language` begins at the segments by language, `--segment category=safety` at the pairs of safety."""
    assert "/segments?by=language" in view("--segment", "language", "--dry-run", home=home).stdout
    pairs = view("--segment", "category=a b&c", "--dry-run", home=home).stdout
    assert "/pairs?value=a+b%26c&field=category" in pairs or "/pairs?field=category&value=a+b%26c" in pairs


@streamlit
def test_bad_input_is_one_line(home: Path, tmp_path: Path) -> None:
    """A run that is not there and a port that is taken exit 2 with one line; an empty home says how to fill it."""
    gone = view("r-zzz", "--dry-run", home=home)
    assert gone.returncode == 2 and "is not a run here" in gone.stderr and len(gone.stderr.splitlines()) == 1
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = view("--dry-run", "--port", str(held.getsockname()[1]), home=home)
    assert taken.returncode == 2 and "is taken; give another --port" in taken.stderr
    empty = view("--dry-run", home=tmp_path)
    assert empty.returncode == 0 and "judge demo" in empty.stderr


def test_without_the_extra_one_line_says_how_to_install_it(home: Path) -> None:
    """Where streamlit is missing the command says which words install it, and exits 2."""
    hide = "import importlib.util as u; f = u.find_spec\n"
    hide += "u.find_spec = lambda n, *a: None if n == 'streamlit' else f(n, *a)"
    done = view("--dry-run", home=home, code=hide)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the dashboard needs streamlit: install it with: pip install 'touchstone-judge[dashboard]'"
    ]


@streamlit
def test_every_shipped_setting_is_one_that_streamlit_knows() -> None:
    """A misspelt setting would be ignored; the installed Streamlit knows each of ours."""
    from streamlit import config

    from judge.cli.view import _flat

    shipped = tomllib.loads((REPO / "dashboard" / "config.toml").read_text(encoding="utf-8"))
    known = set(config._config_options_template)
    assert [name for name, _ in _flat(shipped) if name not in known] == []


@pytest.mark.parametrize(("server", "code", "says"), [("", 0, "the dashboard has ended"), ("exit(1)", 3, "broke off")])
def test_a_dashboard_that_ends_says_so(
    server: str, code: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the server ends, one line says that it did, and how to open it again or that it broke off."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert _serve([sys.executable, "-c", server], "http://localhost:1/", 1, open_browser=False) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
