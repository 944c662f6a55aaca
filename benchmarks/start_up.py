"""CPU of `judge --help` and `import judge` against a bare interpreter, in interleaved rounds.

    python benchmarks/start_up.py

Prints the median CPU milliseconds of each command over the rounds and its ratio to `python -c pass`.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import judge": ["-c", "import judge"],
    "judge --help": ["-c", "from judge.cli import main; main()", "--help"],
}


def cpu_ms(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=os.environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for name in [*COMMANDS, *(list(COMMANDS) * ROUNDS)]:
        taken[name].append(cpu_ms(COMMANDS[name]))
    medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
    bare = medians["python -c pass"]
    for name, value in medians.items():
        print(f"{name:16} {value:7.1f} ms  {value / bare:5.2f}x")


if __name__ == "__main__":
    main()
