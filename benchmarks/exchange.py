"""Import and export: rows and megabytes per CPU second, memory, by format.

    python benchmarks/exchange.py [--rows 50000]

Files are made up with answers of about 800 characters, brought in with ``ingest`` and taken out with ``export``; each
format runs in a process of its own, so that memory is its own. The last line holds ``trl`` against ``json.loads`` and
``json.dumps`` of the same file: what moving the bytes alone costs with the standard library.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are named like packages

from judge.exchange import export, ingest  # noqa: E402

LONG = "The invoice shows every charge of the month, and the refund that was promised. " * 10
NAMES = (
    "trl",
    "alpacaeval",
    "alpacaeval-annotations",
    "rewardbench",
    "trl-unpaired",
    "healthbench",
    "langfuse",
    "otel",
)


def attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def row(name: str, number: int) -> dict[str, Any]:
    asked, one, other = f"Question {number}: why?", f"{number} {LONG}", f"{LONG} {number}"
    turns = [{"role": "user", "content": asked}]
    if name == "otel":
        messages = [{"role": "user", "parts": [{"type": "text", "content": asked}]}]
        answer = [{"role": "assistant", "parts": [{"type": "text", "content": one}]}]
        attributes = [
            attribute("gen_ai.operation.name", "chat"),
            attribute("gen_ai.input.messages", orjson.dumps(messages).decode()),
            attribute("gen_ai.output.messages", orjson.dumps(answer).decode()),
        ]
        span = {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat", "attributes": attributes}
        return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [span]}]}]}
    return {
        "trl": {"prompt": turns, "chosen": [{"role": "assistant", "content": one}],
                "rejected": [{"role": "assistant", "content": other}], "score": 1.5},
        "alpacaeval": {"instruction": asked, "output": one, "generator": "m", "dataset": "d"},
        "alpacaeval-annotations": {"instruction": asked, "output_1": one, "output_2": other, "generator_1": "a",
                                   "generator_2": "b", "annotator": "j", "preference": 1.25},
        "rewardbench": {"id": number, "prompt": asked, "chosen": one, "rejected": other, "subset": "s"},
        "trl-unpaired": {"prompt": asked, "completion": one, "label": True},
        "healthbench": {"prompt_id": str(number), "prompt": turns, "rubrics": [{"criterion": LONG, "points": 5}]},
        "langfuse": {"id": str(number), "input": turns, "output": one, "tags": ["a"]},
    }[name]  # fmt: skip


def one_format(name: str, rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (place / "in.jsonl").open("wb") as file:
            for number in range(rows):
                file.write(orjson.dumps(row(name, number)) + b"\n")
        size = (place / "in.jsonl").stat().st_size / 1e6
        begun = time.process_time()
        assert ingest(place / "in.jsonl", name, place / "ours.jsonl").rows == rows
        into = time.process_time() - begun
        begun = time.process_time()
        assert export(place / "ours.jsonl", name, place / "out.jsonl").rows == rows
        out = time.process_time() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:<24}{rows / into:>10,.0f}{size / into:>8.0f}{rows / out:>12,.0f}{size / out:>8.0f}{peak:>9.0f}",
            flush=True,
        )
        if name == "trl":
            begun = time.process_time()
            with (place / "in.jsonl").open() as source, (place / "json.jsonl").open("w") as target:
                for line in source:
                    target.write(json.dumps(json.loads(line)) + "\n")
            bare = time.process_time() - begun
            print(f"{'  json, there and back':<24}{rows / bare:>10,.0f}{size / bare:>8.0f}", flush=True)


def main() -> int:
    """Print one line a format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--format", choices=NAMES)
    options = parser.parse_args()
    if options.format:
        one_format(options.format, options.rows)
        return 0
    print(f"{options.rows:,} rows; rows and MB per CPU second")
    print(f"{'':<24}{'in':>10}{'MB':>8}{'out':>12}{'MB':>8}{'peak MB':>9}", flush=True)
    for name in NAMES:
        command = [sys.executable, __file__, "--format", name, "--rows", str(options.rows)]
        subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
