"""Test suites of promptfoo: ``prompts``, ``tests[].vars``, ``tests[].assert``, as YAML or JSON.

Every prompt with every test is a task. A template is filled where it only names variables (``{{ name }}``); one that
computes (filters, blocks) is reported, not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..formats import Problem
from ..writing import write_whole
from .rows import OURS, BadRow, Found, Options, Row, tried

__all__ = ["read_suite", "write_suite"]

_HOLE = re.compile(r"\{\{\s*([A-Za-z_][\w.]*)\s*\}\}")
_NAME = "promptfoo"


def read_suite(path: Path, options: Options) -> Iterator[Found]:
    """The tasks of a suite, by test, then by prompt; ``options.mapping`` may name the variable that is the prompt."""
    suite = _load(path)
    tests = suite.get("tests")
    if not isinstance(tests, list):
        raise InputError(f"{path}: 'tests' is {type(tests).__name__}, not a list; write the tests of a file:// in here")
    prompts = [
        entry.get("raw", entry.get("id")) if isinstance(entry, Mapping) else entry
        for entry in suite.get("prompts") or ()
    ]
    if "prompt" in options.mapping:
        prompts = [f"{{{{{options.mapping['prompt']}}}}}"]
    if not prompts:
        raise InputError(f"{path}: no 'prompts'; name the variable that holds the prompt with --map prompt=question")
    around = {name: value for name, value in suite.items() if name != "tests"}
    default = suite.get("defaultTest") if isinstance(suite.get("defaultTest"), Mapping) else {}
    for number, test in enumerate(tests, 1):
        for place, template in enumerate(prompts):
            _line, row = tried(path, number, partial(_task, test, template, default))
            if isinstance(row, Problem):
                yield number, replace(row, reason=f"test {number}: {row.reason}")
                continue
            row["id"] = str(row.get("id") or f"t{number}" + (f"p{place + 1}" if len(prompts) > 1 else ""))
            raw = {"test": test, "prompt": place, "at": number} | ({"suite": around} if around else {})
            around = {}
            yield number, {**row, "foreign": {"format": _NAME, "fields": raw}}


def write_suite(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write tasks as a suite: tests as they came, others with their prompt as the variable ``prompt``."""
    suite: Row = {}
    tests: dict[Any, Any] = {}
    count = 0
    for row in rows:
        count += 1
        foreign = row.get("foreign")
        if isinstance(foreign, Mapping) and foreign.get("format") == _NAME:
            fields = foreign["fields"]
            suite |= fields.get("suite", {})
            tests[fields["at"]] = fields["test"]
            continue
        asked = row.get("prompt") or "\n\n".join(str(turn["content"]) for turn in row.get("messages", ()))
        test: Row = {"vars": {**row.get("vars", {}), "prompt": asked}}
        if row.get("assert"):
            test["assert"] = row["assert"]
        elif row.get("criteria"):
            test["assert"] = [{"type": "llm-rubric", "value": entry["criterion"]} for entry in row["criteria"]]
        test["metadata"] = {
            OURS: {name: value for name, value in row.items() if name not in ("prompt", "vars", "assert")}
        }
        tests[f"row {count}"] = test
    if not suite:
        suite = {"prompts": ["{{prompt}}"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump({**suite, "tests": list(tests.values())}, sort_keys=False, allow_unicode=True))
    return count


def _load(path: Path) -> Row:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a suite") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"{path}:{mark.line + 1 if mark else 1}: not YAML: {getattr(error, 'problem', error)}"
        ) from None
    if not isinstance(suite, dict):
        raise InputError(f"{path}: a suite is an object with prompts and tests")
    return suite


def _task(test: Any, template: Any, default: Any) -> Row:
    if not isinstance(test, Mapping):
        raise BadRow("malformed", "a test is an object with vars")
    if not isinstance(template, str) or template.startswith(("file://", "exec:")):
        raise BadRow("malformed", f"the prompt {template!r} stands in a file of its own; write it into the suite")
    values = {**(default.get("vars") or {}), **(test.get("vars") or {})}
    if "{%" in template or "{#" in template or re.search(r"\{\{(?!\s*[A-Za-z_][\w.]*\s*\}\})", template):
        raise BadRow("malformed", "the template computes (a filter or a block); fill it in first")
    lost = [name for name in _HOLE.findall(template) if name not in values]
    if lost:
        raise BadRow("missing", f"no variable {lost[0]!r} for the prompt")
    row: Row = {"prompt": _HOLE.sub(lambda hole: str(values[hole[1]]), template)}
    if not row["prompt"].strip():
        raise BadRow("missing", "the prompt is empty")
    if values:
        row["vars"] = values
    checks = [*(default.get("assert") or ()), *(test.get("assert") or ())]
    if checks:
        row["assert"] = checks
    given = (test.get("metadata") or {}).get(OURS) if isinstance(test.get("metadata"), Mapping) else None
    return {**row, **given} if isinstance(given, Mapping) else row
