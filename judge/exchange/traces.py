"""Trace exports of Langfuse, LangSmith and Phoenix, and results of promptfoo: tables of paths, replaced by ``--map``.

Fields after the tools' own exports: Langfuse traces and observations (``input``, ``output``, ``scores``), LangSmith
runs (``inputs``, ``outputs``, ``feedback_stats``), Phoenix spans (OpenInference attributes), promptfoo results
(``version`` 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from ..formats import Problem, read_rows
from ..writing import write_whole
from .rows import Found, Options, Row, at_path, tried, write_file
from .whole import Whole, decode_whole, encode_whole

__all__ = [
    "LANGFUSE",
    "LANGSMITH",
    "PHOENIX",
    "PROMPTFOO",
    "read_results",
    "trace_reader",
    "trace_writer",
    "write_results",
]

LANGFUSE = Whole(
    name="langfuse",
    kind="trace",
    asked=("input",),
    answered=("output",),
    fields={
        "id": ("id",), "trace_id": ("traceId", "trace_id", "id"), "at": ("timestamp", "startTime"),
        "category": ("name",), "answer.model": ("model", "metadata.model"), "answer.cost": ("totalCost",),
        "answer.tokens": ("usage.output", "usageDetails.output"), "answer.finish": ("metadata.finish_reason",),
        "feedback": ("scores",), "tags": ("tags",),
    },
    shape={"tags": (list, list)},
)  # fmt: skip
LANGSMITH = Whole(
    name="langsmith",
    kind="trace",
    asked=("inputs.messages", "inputs"),
    answered=("outputs.generations.0.message", "outputs.output", "outputs"),
    fields={
        "id": ("id",), "trace_id": ("trace_id", "id"), "at": ("start_time",), "category": ("name",),
        "answer.model": ("extra.metadata.ls_model_name", "extra.invocation_params.model"),
        "answer.cost": ("total_cost",), "answer.tokens": ("completion_tokens",),
        "answer.finish": (
            "outputs.generations.0.generation_info.finish_reason",
            "outputs.generations.0.message.response_metadata.finish_reason", "outputs.choices.0.finish_reason",
        ),
        "feedback": ("feedback", "feedback_stats"), "tags": ("tags",),
    },
    shape={},
)  # fmt: skip
PHOENIX = Whole(
    name="phoenix",
    kind="trace",
    asked=("attributes.llm.input_messages", "attributes.input.value"),
    answered=("attributes.llm.output_messages", "attributes.output.value"),
    fields={
        "id": ("context.span_id", "span_id"), "trace_id": ("context.trace_id", "trace_id"), "at": ("start_time",),
        "category": ("name",), "answer.model": ("attributes.llm.model_name",),
        "answer.tokens": ("attributes.llm.token_count.completion",), "answer.finish": ("attributes.llm.finish_reason",),
        "feedback": ("annotations",),
    },
    shape={},
)  # fmt: skip
PROMPTFOO = Whole(
    name="promptfoo-results",
    kind="answer",
    asked=("prompt.raw",),
    answered=("response.output",),
    fields={
        "answer.model": ("provider.id", "provider"), "answer.latency_ms": ("latencyMs",), "answer.cost": ("cost",),
        "answer.tokens": ("response.tokenUsage.completion",), "answer.finish": ("response.finishReason",),
        "vars": ("vars",), "graded.passed": ("success",),
        "graded.score": ("score",), "graded.reason": ("gradingResult.reason",), "at_test": ("testIdx",),
    },
    shape={},
)  # fmt: skip
_MAPPED = ("input", "output")


def trace_reader(format_: Whole) -> Callable[[Path, Options], Iterator[Found]]:
    """A reader of a tool's rows; raises ``InputError`` for a mapping that names a field we have not."""

    def read(path: Path, options: Options) -> Iterator[Found]:
        _check(format_, options.mapping)
        met: set[str] = set()
        rows = 0
        for line, row in read_rows(path):
            if isinstance(row, Problem):
                yield line, row
                continue
            rows += 1
            met |= {name for name, place in options.mapping.items() if at_path(row, place) is not None}
            yield _decoded(format_, row, options.mapping, path, line)
        lost = sorted(set(options.mapping) - met)
        if rows and lost:
            raise InputError(
                f"{path}: --map {lost[0]}={options.mapping[lost[0]]}: no row has a value there; look at a row and give "
                "the path with dots (inputs.messages, outputs.0.text)"
            )

    return read


def trace_writer(format_: Whole) -> Callable[[Path, Iterable[Row], Options], int]:
    """A writer of a tool's rows: originals as they came, changed values put in."""

    def write(path: Path, rows: Iterable[Row], options: Options) -> int:
        _check(format_, options.mapping)
        return write_file(path, (encode_whole(format_, row, options.mapping) for row in rows))

    return write


def read_results(path: Path, _options: Options) -> Iterator[Found]:
    """Results of promptfoo: one JSON document; the document around the rows is kept with the first of them."""
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    outer = document.get("results") if isinstance(document, dict) else None
    rows = outer.get("results") if isinstance(outer, dict) else None
    if not isinstance(rows, list) or not isinstance(outer, dict):
        raise InputError(f"{path}: no results.results: this is no result file of promptfoo (version 3)")
    if outer.get("version") != 3:
        raise InputError(f"{path}: results of version {outer.get('version')!r}; this reads version 3")
    around = {**document, "results": {**outer, "results": []}}
    for line, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            yield line, Problem(str(path), line, "malformed", "a result is an object")
            continue
        if row.get("error") and at_path(row, "response.output") is None:
            yield line, Problem(str(path), line, "failed", f"no answer: {str(row['error'])[:80]}")
            continue
        number, found = _decoded(PROMPTFOO, row, {}, path, line)
        if not isinstance(found, Problem) and around:
            found["foreign"]["document"], around = around, {}
        yield number, found


def write_results(path: Path, rows: Iterable[Row], options: Options) -> int:
    """Write results of promptfoo; a document is made where the rows came from elsewhere."""
    document: Row | None = None
    kept: list[Row] = []
    for row in rows:
        foreign = row.get("foreign")
        if document is None and isinstance(foreign, Mapping) and "document" in foreign:
            document = foreign["document"]
            row = {**row, "foreign": {name: value for name, value in foreign.items() if name != "document"}}  # noqa: PLW2901
        kept.append(encode_whole(PROMPTFOO, row, {}))
    body = document or {"evalId": None, "results": {"version": 3, "timestamp": options.at or None, "prompts": []}}
    passed = sum(row.get("success") is True for row in kept)
    stats = body["results"].get("stats") or {"successes": passed, "failures": len(kept) - passed, "errors": 0}
    body = {**body, "results": {**body["results"], "results": kept, "stats": stats}}
    write_whole(path, orjson.dumps(body))
    return len(kept)


def _decoded(format_: Whole, row: Mapping[str, Any], mapping: Mapping[str, str], path: Path, line: int) -> Found:
    return tried(path, line, partial(decode_whole, format_, row, mapping))


def _check(format_: Whole, mapping: Mapping[str, str]) -> None:
    fields = (*_MAPPED, *format_.fields)
    unknown = sorted(set(mapping) - set(fields))
    if unknown:
        raise InputError(f"--map {unknown[0]}=...: unknown field; the fields are {', '.join(fields)}")
