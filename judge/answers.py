"""Generated answers at rest: in a journal while they are made, then as an answer file that ``judge run`` joins on
``id``.

One JSON object a line: ``id``, ``model`` (``NAME@REVISION``), ``text``, ``finish`` (``stop``, ``length``,
``tool_calls`` and whatever else the server says), ``prompt_tokens``, ``tokens``, ``latency_ms``, ``cost`` (US dollars)
and, where the model made some, ``tool_calls``. What is not known is ``null``, never 0.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .backends.chat import Generation
from .types import JudgeId, Usage
from .writing import whole

__all__ = ["Tally", "answers_in", "decode_generation", "encode_generation", "row_of", "tally", "write_answers"]

_DEFAULTS = {entry.name: entry.default for entry in dataclasses.fields(Generation)}


@dataclass(slots=True)
class Tally:
    """What a set of answers adds up to.

    ``counted`` answers say their ``tokens`` (generated) and ``prompt_tokens``, which are sums over those. ``finish``
    and ``models`` count answers, ``empty`` those without text and tool calls; ``latencies_ms`` are in file order.
    """

    answers: int = 0
    counted: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    empty: int = 0
    tool_calls: int = 0
    finish: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)


def encode_generation(made: Generation) -> dict[str, Any]:
    """A generation as plain JSON values, without what is at its default."""
    values = {name: getattr(made, name) for name in _DEFAULTS}
    kept = {name: value for name, value in values.items() if value != _DEFAULTS[name] or name == "text"}
    return {**kept, "usage": dataclasses.asdict(made.usage)}


def decode_generation(data: Mapping[str, Any]) -> Generation:
    """The inverse of ``encode_generation``."""
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Generation(**{**values, "usage": Usage(**data.get("usage", {}))})


def row_of(name: str, model: JudgeId, made: Generation) -> dict[str, Any]:
    """One line of an answer file; the revision of a model behind a server is the name that the server gave it."""
    revision = model.revision
    if made.model and made.model != model.name.partition("/")[2]:
        revision = made.model
    told = "no_usage" not in made.flags
    row = {
        "id": name,
        "model": "@".join(part for part in (model.name, revision) if part),
        "text": made.text,
        "finish": made.finish,
        "prompt_tokens": made.usage.prompt_tokens if told else None,
        "tokens": made.usage.completion_tokens if told else None,
        "latency_ms": made.latency_ms,
        "cost": made.usage.cost if told else None,
    }
    return {**row, "tool_calls": made.tool_calls} if made.tool_calls else row


def answers_in(journal: Path, names: Iterable[str], model: JudgeId) -> Iterator[dict[str, Any]]:
    """The rows of a journal in the order of ``names``, read one at a time; memory is an offset for each."""
    places: dict[str, int] = {}
    offset = 0
    with journal.open("rb") as file:
        for line in file:
            if line.startswith(b'{"t":"reply"', 9) and line.endswith(b"\n"):
                record = orjson.loads(line[9:])
                if record["reply"].get("error") is None:
                    places[record["key"]] = offset
            offset += len(line)
        for name in names:
            if name in places:
                file.seek(places[name])
                yield row_of(name, model, decode_generation(orjson.loads(file.readline()[9:])["reply"]))


def write_answers(output: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write an answer file; it appears whole, on the disk, or not at all."""
    with whole(output, durable=True) as part, part.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, default=str) + b"\n")


def tally(rows: Iterable[Mapping[str, Any]]) -> Tally:
    """Add up the rows of an answer file."""
    found = Tally()
    for row in rows:
        found.answers += 1
        if row["tokens"] is not None:
            found.counted += 1
            found.tokens += row["tokens"]
            found.prompt_tokens += row["prompt_tokens"]
        calls = len(row.get("tool_calls", ()))
        found.tool_calls += calls
        found.empty += not row["text"].strip() and not calls
        found.finish[row["finish"] or "unknown"] += 1
        found.models[row["model"]] += 1
        found.latencies_ms.append(row["latency_ms"])
    return found
