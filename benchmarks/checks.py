"""How fast suites run and how much memory they take, and JSON Schema against the plain ``jsonschema`` package.

    python benchmarks/checks.py                      # 100,000 answers (50,000 pairs) through every shipped check
    python benchmarks/checks.py --pairs 5000         # fewer
    python benchmarks/checks.py --schema GOLD/json_suite/schema_2020_12.jsonl     # the official cases, both libraries

The pass makes every deterministic check there is on both answers of each pair, which are drawn from a few texts with
numbers put in, so that no answer repeats. Printed are answers a second of one core (CPU time, not the clock), the share
of each check, and the peak memory at a tenth of the pairs and at all of them, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from judge.checks.examination import examine
from judge.checks.registry import Registry
from judge.checks.suite import Planned, Suite
from judge.types import Answer, Item, Pair

TEXT = (
    "Sunlight holds all colours, and the air scatters the blue ones most [1], so blue reaches us from everywhere. "
    'As the report says, "short waves are scattered more than long ones" (number {n}). '
    "See https://example.org/sky/{n} for more."
    "\n\n1. Look up at noon.\n2. Look again at dusk.\n3. Compare what you saw, and write it down.\n"
)
JSON = '{{"id": {n}, "name": "order {n}", "tags": ["a", "b"], "total": {n}.5, "ok": true}}'
SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0},
        "name": {"type": "string", "pattern": "^order [0-9]+$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True},
        "total": {"type": "number"},
        "ok": {"type": "boolean"},
    },
    "required": ["id", "name", "total"],
    "additionalProperties": False,
}
SOURCE = "The report of 2019 says that short waves are scattered more than long ones, which is why noon is blue. " * 4
TOOLS = (
    {"name": "find", "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
)
TEXT_CHECKS = (
    ("not-empty", {}),
    ("contains", {"texts": ["blue"]}),
    ("not-contains", {"texts": ["as an AI", "I cannot"]}),
    ("regex", {"pattern": r"\bnumber \d+\b"}),
    ("instructions", {"instructions": [
        {"id": "length_constraints:number_words", "num_words": 20, "relation": "at least"},
        {"id": "length_constraints:number_sentences", "num_sentences": 30, "relation": "less than"},
        {"id": "keywords:existence", "keywords": ["blue", "noon"]},
    ]}),
    ("language", {"language": "en"}),
    ("format", {"lines": 40}),
    ("refusal", {"expect": "help"}),
    ("citations", {}),
    ("links", {"in_context": False}),
    ("budget", {"tokens": 400, "latency_ms": 5000.0, "cost": 1.0}),
    ("spoken", {"words": 200, "written": True}),
)  # fmt: skip
JSON_CHECKS = (
    ("json-parses", {}),
    ("json-schema", {"schema": SCHEMA}),
    ("tool-calls", {}),
    ("expected-calls", {"calls": [{"find": {"id": [1]}}]}),
)


def suite(names: set[str] | None = None) -> Suite:
    from judge.checks.suite import Where

    registry = Registry()
    planned = []
    for kind, checks in (("text", TEXT_CHECKS), ("json", JSON_CHECKS)):
        for name, options in checks:
            if names is None or name in names:
                check = registry.build(name, options)
                planned.append(Planned(name, check, check.severity, Where(category=(kind,))))
    return Suite("bench", 1, "", "0" * 64, "", tuple(planned), registry)


def pairs(count: int) -> Iterator[Pair]:
    for number in range(count):
        if number % 4:
            item = Item(f"Why is the sky blue? ({number})", category="text", context=(SOURCE,))
            texts, calls = (TEXT.format(n=number), "Well, blue noon. " + TEXT.format(n=number + 1)), ()
        else:
            item = Item(f"Order {number} as JSON", category="json", tools=TOOLS)
            texts, calls = (
                (JSON.format(n=number), JSON.format(n=number + 1)),
                ({"name": "find", "arguments": '{"id": 1}'},),
            )
        sides = [
            Answer(text, latency_ms=100.0 + number % 97, tokens=120, cost=0.001, tool_calls=calls) for text in texts
        ]
        yield Pair(f"p{number}", item, sides[0], sides[1])


def one(count: int, names: set[str] | None) -> None:
    """One pass in this process; prints one JSON line."""
    checks = suite(names)
    list(examine(checks, pairs(200)).results)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    report = examine(checks, pairs(count))
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    failed = {r.check: r.candidate_failed for r in report.results if r.candidate_failed}
    print(json.dumps({"pairs": count, "seconds": seconds, "peak_mb": peak / 1024, "before_mb": before / 1024,
                      "failed": failed}))  # fmt: skip


def measured(count: int, names: str = "") -> dict:
    command = [sys.executable, __file__, "--one", "--pairs", str(count), *(["--only", names] if names else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def throughput(count: int) -> None:
    small, large = measured(count // 10), measured(count)
    print(f"every check, {2 * count:,} answers: {2 * count / large['seconds']:,.0f} answers a second of one core "
          f"({large['seconds']:.1f} s CPU)")  # fmt: skip
    per = 1e6 * (large["peak_mb"] - small["peak_mb"]) / (1.8 * count)
    print(f"peak memory: {small['peak_mb']:.0f} MB at {2 * count // 10:,} answers, {large['peak_mb']:.0f} MB at "
          f"{2 * count:,}: {per:.0f} bytes an answer")  # fmt: skip
    every = [name for name, _ in (*TEXT_CHECKS, *JSON_CHECKS)]
    few = max(2000, count // 20)
    floor = measured(few, "none")["seconds"]
    print(f"by check, microseconds an answer (beyond {1e6 * floor / (2 * few):.1f} for the pass itself):")
    for name in every:
        share = 0.75 if name in dict(TEXT_CHECKS) else 0.25
        extra = measured(few, name)["seconds"] - floor
        print(f"  {name:15} {1e6 * extra / (2 * few * share):8.1f}")


def schemas(path: Path) -> None:
    import jsonschema

    from judge.checks.structure import Schema
    from judge.errors import InputError

    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    rows = [row for row in rows if "localhost:1234" not in json.dumps(row["schema"])]
    wrong: dict[str, Counter[str]] = {"judge": Counter(), "jsonschema": Counter()}
    usable = []
    for row in rows:
        formats = row["file"].startswith("optional/format")
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER if formats else None
        theirs = jsonschema.Draft202012Validator(row["schema"], format_checker=checker)
        try:
            ours = Schema(row["schema"], formats=formats)
            if ours.valid(row["data"]) != row["valid"]:
                wrong["judge"][row["file"]] += 1
        except InputError:
            wrong["judge"][row["file"]] += 1
            continue
        try:
            if theirs.is_valid(row["data"]) != row["valid"]:
                wrong["jsonschema"][row["file"]] += 1
        except Exception:  # noqa: BLE001 - whatever it raises is a case that it does not decide
            wrong["jsonschema"][row["file"]] += 1
            continue
        usable.append((row["schema"], row["data"], ours, theirs))
    print(
        f"{len(rows)} cases without a remote document; wrong: "
        + ", ".join(f"{k} {v.total()}" for k, v in wrong.items())
    )
    arms = {
        "ours, compiled once": lambda: [ours.valid(data) for _s, data, ours, _t in usable],
        "jsonschema, compiled once": lambda: [theirs.is_valid(data) for _s, data, _o, theirs in usable],
        "jsonschema.validate, each time": lambda: [_plain(jsonschema, data, schema) for schema, data, _o, _t in usable],
    }
    seconds = dict.fromkeys(arms, 0.0)
    for _round in range(3):
        for name, arm in arms.items():
            started = time.process_time()
            arm()
            seconds[name] += (time.process_time() - started) / 3
    first = seconds["ours, compiled once"]
    for name, taken in seconds.items():
        print(f"  {name:31} {1e6 * taken / len(usable):9.2f} us a case   x {taken / first:,.1f}")


def _plain(jsonschema: object, data: object, schema: object) -> bool:
    try:
        jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    except jsonschema.ValidationError:
        return False
    except jsonschema.SchemaError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--schema", type=Path)
    options = parser.parse_args()
    if options.one:
        one(options.pairs, {options.only} if options.only else None)
    elif options.schema:
        schemas(options.schema)
    else:
        throughput(options.pairs)
