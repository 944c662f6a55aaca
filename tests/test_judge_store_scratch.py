"""What a killed process left beside the database is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from judge.store.scratch import scratch, sweep

REPO = Path(__file__).resolve().parent.parent
HOLDER = """
import sys, time
from pathlib import Path
from judge.store.scratch import scratch
with scratch(Path(sys.argv[1]), "ingest") as folder:
    (folder / "part.parquet").write_bytes(b"x" * 1000)
    print(folder.name, flush=True)
    time.sleep(60)
"""


def aged(path: Path) -> None:
    """Make a path look as if nothing was written to it for a while."""
    past = time.time() - 3_600
    os.utime(path, (past, past))


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    """The folder of a living process stays, however old; after kill -9 it goes, and so do older versions' leftovers."""
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(REPO)}
    )
    assert held.stdout is not None
    folder = tmp_path / held.stdout.readline().strip()
    try:
        aged(folder)
        assert sweep(tmp_path) == []
        assert (folder / "part.parquet").exists()
    finally:
        held.send_signal(signal.SIGKILL)
        held.communicate()
    (tmp_path / "ingest-old0_x").mkdir()
    (tmp_path / "rebuild-4711.duckdb").write_bytes(b"half")
    (tmp_path / "rebuild-4711.duckdb.wal").write_bytes(b"half")
    young = tmp_path / "ingest-young"
    young.mkdir()
    for name in ("ingest-old0_x", "rebuild-4711.duckdb", "rebuild-4711.duckdb.wal"):
        aged(tmp_path / name)
    (tmp_path / "judge.duckdb").write_bytes(b"the view")
    (tmp_path / "runs").mkdir()
    with scratch(tmp_path, "ingest") as mine:
        aged(mine)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [mine.name, young.name, "judge.duckdb", "runs"]
        )
        assert sweep(tmp_path) == []
    assert not mine.exists()


def test_what_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    """A leftover that is gone meanwhile, or of a kind that nobody expects, is left alone."""
    (tmp_path / "ingest-link").symlink_to(tmp_path / "nowhere")
    assert sweep(tmp_path) == []
    with scratch(tmp_path, "rebuild") as folder:
        assert folder.is_dir()
