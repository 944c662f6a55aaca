"""Logs of Inspect (UKGovernmentBEIS/inspect_ai), read only: ``.json``, and ``.eval``, a zip of one JSON a sample."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..endings import finish_in
from ..errors import InputError
from ..formats import Problem
from .rows import BadRow, Found, Options, Row, check_text, tried
from .whole import messages_of, text_of

__all__ = ["read_log"]


def read_log(path: Path, _options: Options) -> Iterator[Found]:
    """One answer row a sample, with its scores; a sample that failed is reported."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    samples = _zipped(path) if path.suffix.lower() == ".eval" else _listed(path)
    for number, sample in enumerate(samples, 1):
        line, found = tried(path, number, partial(_row, sample))
        if isinstance(found, Problem) and isinstance(sample, Mapping):
            found = replace(found, reason=f"sample {sample.get('id', number)}: {found.reason}")
        yield line, found


def _listed(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        log = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(log, dict) or not isinstance(log.get("eval"), dict):
        raise InputError(f"{path}: no log of Inspect: it has no 'eval'")
    if not log.get("samples"):
        raise InputError(f"{path}: the log holds no samples (status {log.get('status')!r})")
    yield from log["samples"]


def _zipped(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(
                name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")
            )
            if not names:
                raise InputError(f"{path}: the log holds no samples")
            for name in names:
                yield orjson.loads(archive.read(name))
    except zipfile.BadZipFile:
        raise InputError(f"{path}: not a whole .eval file (it is a zip); was it still being written?") from None
    except NotImplementedError:
        raise InputError(
            f"{path}: compressed in a way this Python cannot read; run: inspect log convert --to json"
        ) from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: a sample in it is not JSON: {error.msg}") from None


def _row(sample: Mapping[str, Any]) -> Row:
    if sample.get("error"):
        message = sample["error"].get("message", "") if isinstance(sample["error"], Mapping) else sample["error"]
        raise BadRow("failed", f"it ended in an error: {str(message)[:80]}")
    asked, output = sample.get("input"), sample.get("output") or {}
    choices = output.get("choices") or []
    if not choices:
        raise BadRow("missing", "no output")
    epoch = sample.get("epoch", 1)
    row: Row = {"id": str(sample.get("id", "")) + (f"/{epoch}" if epoch != 1 else "")}
    turns = messages_of(asked)
    if turns is not None:
        row["messages"] = turns
    elif isinstance(asked, str) and asked.strip():
        row["prompt"] = check_text(asked, "input")
    else:
        raise BadRow("missing", "no input")
    said = choices[0].get("message") or {}
    row["answer"] = {"text": text_of(said.get("content")) or ""}
    if said.get("tool_calls"):
        row["answer"]["tool_calls"] = said["tool_calls"]
    usage = output.get("usage") or {}
    known = {"model": output.get("model"), "tokens": usage.get("output_tokens"), "finish": finish_in(choices[0])}
    seconds = output.get("time")
    known["latency_ms"] = seconds * 1000 if isinstance(seconds, int | float) else None
    row["answer"] |= {name: value for name, value in known.items() if value is not None}
    if sample.get("target") not in (None, "", []):
        row["reference"] = text_of(sample["target"])
    if sample.get("scores"):
        row["scores"] = sample["scores"]
    metadata = {**(sample.get("metadata") or {}), "epoch": epoch}
    rest = ("id", "epoch", "input", "target", "output", "scores", "metadata", "messages", "events", "attachments")
    foreign = {name: value for name, value in sample.items() if name not in rest}
    return {**row, "metadata": metadata, **({"foreign": {"format": "inspect", "fields": foreign}} if foreign else {})}
