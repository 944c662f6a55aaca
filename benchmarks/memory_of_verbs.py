"""Peak memory of the verbs that read a whole run, and how it grows with the pairs.

    python benchmarks/memory_of_verbs.py [--pairs 50000] [--small 10000] [--only gate,segments] [--tree FOLDER]

Each verb is a process of its own; its peak is the resident set that the kernel reports when it ends (``ru_maxrss`` of
``wait4``), so the interpreter and every library count. The set is made up: some 1,500 characters a pair, eight
categories, two fields of metadata, and 500 labels whatever its size. ``gate`` decides on what the verbs before it made
and would have to make the grounding report, if items had documents; ``gate alone`` makes nothing. ``--tree`` measures
another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROMPT = "Explain in two sentences why the sky is blue, for a child of eight. " * 3
ANSWER = "Sunlight holds all colours, and the air scatters the blue ones most, so blue reaches us from everywhere. " * 6
LABELS = 500
VERBS = {
    "run": ("run", "e.jsonl", "-j", "scripted:longer", "--json"),
    "report": ("report", "--json"),
    "segments": ("segments", "--json"),
    "calibrate": ("calibrate", "--json"),
    "gate alone": ("gate", "latest", "--as-it-is", "--dry-run", "--json"),
    "check": ("check", "latest", "--json"),
    "hack": ("hack", "latest", "--json"),
    "gate": ("gate", "latest", "--json"),
}
"""In the order of use: each reads what those before it wrote."""


def rows(count: int) -> Iterator[str]:
    """The lines of the made set; the candidate is the longer answer in two pairs of three."""
    for number in range(count):
        long, short = f"{ANSWER}{number}{' indeed' * (number % 5)}", f"{number} {ANSWER}"[: 560 + number % 60]
        swapped = number % 3 == 0
        row = {
            "id": f"p{number}",
            "prompt": f"{PROMPT} ({number})",
            "category": f"c{number % 8}",
            "candidate": short if swapped else long,
            "baseline": long if swapped else short,
            "metadata": {"language": ("en", "de", "fr")[number % 3], "risk": ("low", "high")[number % 2]},
        }
        if number < LABELS:
            row["label"] = "win" if number % 10 < 6 else "loss"
        yield json.dumps(row)


def peak(command: tuple[str, ...], folder: Path, tree: Path) -> float:
    """Peak MB of one verb."""
    started = [sys.executable, "-c", "from judge.cli import main; main()", *command]
    env = {**os.environ, "PYTHONPATH": str(tree), "NO_COLOR": "1"}
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(started, cwd=folder, env=env, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 4):  # a verdict; anything else is none
        told = (folder / "err").read_text(encoding="utf-8")
        sys.exit(f"judge {' '.join(command)}: exit {process.returncode}\n{told}")
    return usage.ru_maxrss / 1024


def measured(count: int, wanted: list[str], tree: Path) -> dict[str, float]:
    """Peak MB by verb at a number of pairs; the run is always made."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "e.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in rows(count))
        return {verb: peak(VERBS[verb], folder, tree) for verb in VERBS if verb in wanted}


def main() -> int:
    """Measure at two sizes and print both with the growth between them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--only", default=",".join(VERBS))
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
    options = parser.parse_args()
    wanted = ["run", *options.only.split(",")]
    few, many = (measured(count, wanted, options.tree.resolve()) for count in (options.small, options.pairs))
    sizes = f"{f'{options.small:,}':>10}{f'{options.pairs:,}':>10}"
    print(f"{'peak MB at':12}{sizes}{'kB a pair':>12}")
    for verb, most in many.items():
        growth = 1024 * (most - few[verb]) / (options.pairs - options.small)
        print(f"{verb:12}{few[verb]:10.0f}{most:10.0f}{growth:12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
