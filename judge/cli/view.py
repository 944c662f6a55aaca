"""``judge view``: serve the dashboard on this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from ..advice import advised
from ..environment import environment
from .screen import bring_in, complain, home_option, safe

__all__ = ["command"]

_PORT = 8501


@click.command("view", epilog="Example: judge view latest --segment category=safety")
@click.argument("run_id", default="latest")
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port (default: {_PORT}, or the next that is free).")
@click.option("--no-browser", is_flag=True, help="Open no browser; the address is printed either way.")
@click.option(
    "--segment", metavar="COLUMN[=VALUE]", help="Begin at this column of the segments, or at one value of it."
)
@click.option("--dry-run", is_flag=True, help="Print the address and the command, and start nothing.")
@home_option
def command(
    run_id: str, *, port: int | None, no_browser: bool, segment: str | None, dry_run: bool, home: str | None
) -> int:
    """Look at RUN_ID (default: the latest run) in the browser: decision, segments, pairs, labels, drift.

    The server listens on this machine only, reads the runs while a batch is writing them, and asks nothing of any other
    machine. Ctrl-C ends it.
    """
    from ..errors import InputError
    from ..store import Findings, Store

    missing = [name for name in ("streamlit", "altair", "markdown_it") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the dashboard needs {' and '.join(missing)}: install it with: pip install 'touchstone-judge[dashboard]'"
        )
    store = Store(Path(home) if home else environment().home)
    bring_in(store, Findings(store.home))
    chosen = "" if run_id == "latest" else store.run(run_id).run_id
    if not store.runs():
        click.echo(f"note: no runs in {safe(str(store.home))} yet; make one with: {advised('demo')}", err=True)
    port = _free(port)
    address = f"http://localhost:{port}/{_page(chosen, segment)}"
    words = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        _script(),
        *_options(port),
        "--",
        "--home",
        str(store.home.resolve()),
    ]
    if dry_run:
        click.echo(address)
        click.echo(shlex.join(words), err=True)
        return 0
    click.echo(f"dashboard: {address}   (Ctrl-C ends it)", err=True)
    click.echo(f"home:      {safe(str(store.home.resolve()))}", err=True)
    return _serve(words, address, port, open_browser=not no_browser)


def _page(run_id: str, segment: str | None) -> str:
    """The page to begin at, with its query."""
    query = {"run": run_id} if run_id else {}
    page = ""
    if segment:
        column, _, value = segment.partition("=")
        query |= {"by": column} | ({"value": value} if value else {})
        page = "pairs" if value else "segments"
        query |= {"field": query.pop("by")} if value else {}
    return page + ("?" + urlencode(query) if query else "")


def _script() -> str:
    """The dashboard's script, found without importing it."""
    return str(resources.files("dashboard").joinpath("app.py"))


def _options(port: int) -> Iterator[str]:
    """The shipped settings as options of Streamlit: those beat every file and variable."""
    shipped = tomllib.loads(resources.files("dashboard").joinpath("config.toml").read_text(encoding="utf-8"))
    for name, value in _flat(shipped):
        if isinstance(value, list) and name.startswith("theme."):
            yield f"--{name}={json.dumps(value)}"  # Streamlit reads lists of a theme as JSON, other lists as repeats
        elif isinstance(value, list):
            for entry in value:
                yield f"--{name}={entry}"
        else:
            yield f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
    yield f"--server.port={port}"
    yield f"--browser.serverPort={port}"


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _free(wanted: int | None) -> int:
    """The wanted port if nobody listens there, else an error; without a wish the first free one from 8501 up."""
    from ..errors import InputError

    for port in (wanted,) if wanted else range(_PORT, _PORT + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(port)
    raise InputError(
        f"port {wanted} is taken; give another --port"
        if wanted
        else f"ports {_PORT} to {_PORT + 49} are all taken; give one with --port"
    )


_ENDED = "the dashboard has ended; {again} opens it again"


def _serve(words: list[str], address: str, port: int, *, open_browser: bool) -> int:
    """Run the server until it ends, Ctrl-C or SIGTERM, and leave none behind; open the browser once it answers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = str(Path(_script()).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    server = subprocess.Popen(  # noqa: S603 - our own interpreter and script
        words, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.DEVNULL
    )
    try:
        if open_browser and _answers(port, server):
            import webbrowser

            webbrowser.open(address)
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(10)
        click.echo(_ENDED.format(again=advised("view")), err=True)
        return 0
    finally:
        if server.poll() is None:
            server.terminate()
    well = code in (0, -15)
    if not well:
        complain(f"the dashboard broke off (code {code})")
        return 3
    click.echo(_ENDED.format(again=advised("view")), err=True)
    return 0


def _answers(port: int, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server took connections within half a minute."""
    import time

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False
