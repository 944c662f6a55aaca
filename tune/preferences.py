"""Preference data: one ``Preference`` a row, one JSON object a line on disk.

A row says that ``chosen`` is the better answer to ``prompt`` with probability ``p``, who says so (``source``,
``labeller``, ``rubric``, ``why``) and where it comes from (``origin``). Rows that cannot be used are never dropped in
silence: ``scan_preferences`` yields them as ``Problem`` in their place, ``read_preferences`` refuses the file and lists
them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from judge.cells import MAX_FIELD
from judge.errors import InputError
from judge.formats import Problem
from judge.writing import whole

__all__ = [
    "BIAS",
    "Preference",
    "Said",
    "Source",
    "digest_of",
    "identity_of",
    "read_preferences",
    "said_text",
    "scan_preferences",
    "with_bias",
    "write_preferences",
]

Said: TypeAlias = "str | tuple[Mapping[str, Any], ...]"
"""A text, or turns of a conversation: mappings with ``role``, ``content`` and what else they carry (``tool_calls``)."""

_SHOWN = 8


class Source(StrEnum):
    """Who says which answer is better."""

    HUMAN = "human"
    """A person compared the two."""
    RATING = "rating"
    """Two scalar ratings, of one person or of several, turned into a pair."""
    ACTION = "action"
    """What a user did: edited, accepted, asked again, escalated."""
    JUDGE = "judge"
    """A judge's calibrated preference."""
    GATE = "gate"
    """A failure that a check or the gate found, against an answer that passed it."""


BIAS: Mapping[Source, tuple[str, ...]] = {
    Source.HUMAN: ("length", "position", "annotator", "fatigue"),
    Source.RATING: ("scale use differs by rater", "not compared side by side", "length", "coarse"),
    Source.ACTION: ("selection: only those who act", "effort and interface", "edits favour small faults", "intent"),
    Source.JUDGE: ("length", "self-preference", "position", "style", "the judge's blind spots"),
    Source.GATE: ("only what is checked", "rejected answers cluster on few failures", "says nothing of taste"),
}
"""What each source is known to favour or to miss; written into every row's ``metadata`` as ``known_bias``."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One comparison to train on.

    ``p`` is the probability that ``chosen`` is better, in [0.5, 1]: 1 for a plain human choice, the calibrated
    probability for a judge's. ``weight`` (> 0) is what the row counts for in the loss. ``close`` says that whoever
    compared found the two nearly equal. ``tools`` are schemas that the model may call. ``cut`` names the sides
    (``chosen``, ``rejected``) whose text a token limit cut off: such an answer did not end there, and a model trained
    that it did (or must not) unlearns to stop. ``extra`` holds the keys of the row that are no field of ours; they are
    written back as they came.

    Raises ``InputError`` for a row that teaches nothing: an empty or blank ``chosen``, ``chosen`` equal to
    ``rejected``, an empty prompt, a ``p`` outside [0.5, 1], a weight that is not above zero.

    Example: ``Preference("q1", "2+2?", "4", "5", source=Source.HUMAN, labeller="ada")``.
    """

    id: str
    prompt: Said
    chosen: Said
    rejected: Said
    p: float = 1.0
    source: Source = Source.HUMAN
    weight: float = 1.0
    rubric: str = ""
    why: str = ""
    labeller: str = ""
    close: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    cut: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not said_text(self.prompt).strip():
            raise InputError("the prompt is empty")
        if not self.chosen_text.strip() and not _calls(self.chosen):
            raise InputError("'chosen' is empty: a model trained on it learns to say nothing")
        if self.chosen == self.rejected or (
            self.chosen_text == self.rejected_text and _calls(self.chosen) == _calls(self.rejected)
        ):
            raise InputError("'chosen' equals 'rejected': there is nothing to prefer")
        if not (math.isfinite(self.p) and 0.5 <= self.p <= 1.0):
            raise InputError(f"'p' is {self.p}, not in [0.5, 1]; below 0.5 swap chosen and rejected and write 1 - p")
        if not (math.isfinite(self.weight) and self.weight > 0.0):
            raise InputError(f"'weight' is {self.weight}, not above zero; leave the row out instead")
        if not set(self.cut) <= {"chosen", "rejected"}:
            raise InputError(f"'cut' is {list(self.cut)}; it lists 'chosen', 'rejected' or both")

    @property
    def prompt_text(self) -> str:
        """The prompt as one text (turns joined by blank lines)."""
        return said_text(self.prompt)

    @property
    def chosen_text(self) -> str:
        """The better answer as one text."""
        return said_text(self.chosen)

    @property
    def rejected_text(self) -> str:
        """The worse answer as one text."""
        return said_text(self.rejected)

    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The prompt as turns, ready for a chat template: a plain text is one turn of the user."""
        return self.prompt if isinstance(self.prompt, tuple) else ({"role": "user", "content": self.prompt},)

    def to_row(self) -> dict[str, Any]:
        """The row on disk: fields that hold their default are left out, keys that we do not know are put back."""
        row: dict[str, Any] = dict(self.extra)
        row |= {"id": self.id, "prompt": _listed(self.prompt)}
        row |= {"chosen": _listed(self.chosen), "rejected": _listed(self.rejected), "source": self.source.value}
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                row[name] = list(value) if isinstance(value, tuple) else value
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Preference:
        """The preference of a row as ``to_row`` writes it; raises ``InputError`` naming the field that is wrong."""
        values: dict[str, Any] = {name: row[name] for name in _DEFAULTS if row.get(name) is not None}
        for name in ("p", "weight"):
            if name in values and (isinstance(values[name], bool) or not isinstance(values[name], int | float)):
                raise InputError(f"'{name}' is {values[name]!r}, not a number")
        for name in ("metadata", "origin"):
            if not isinstance(values.get(name, {}), Mapping):
                raise InputError(f"'{name}' is {type(values[name]).__name__}, not an object")
        for name in ("rubric", "why", "labeller"):
            if not isinstance(values.get(name, ""), str):
                raise InputError(f"'{name}' is {type(values[name]).__name__}, not text")
        if not isinstance(values.get("close", False), bool):
            raise InputError(f"'close' is {values['close']!r}; use true or false")
        values["tools"] = _turns(values.get("tools", ()), "tools", need=())
        values["cut"] = _sides(values.get("cut", ()))
        prompt, chosen, rejected = (_said(row, name) for name in ("prompt", "chosen", "rejected"))
        try:
            values["source"] = Source(row.get("source", Source.HUMAN))
        except ValueError:
            raise InputError(f"'source' is {row['source']!r}; use {', '.join(Source)}") from None
        extra = {str(name): value for name, value in row.items() if name not in _NAMES}
        name = "" if row.get("id") is None else str(row["id"])
        return cls(name or identity_of(prompt, chosen, rejected), prompt, chosen, rejected, **values, extra=extra)


_DEFAULTS: Mapping[str, Any] = {
    "p": 1.0, "weight": 1.0, "rubric": "", "why": "", "labeller": "", "close": False, "metadata": {}, "origin": {},
    "tools": (), "cut": (),
}  # fmt: skip
_NAMES = frozenset({"id", "prompt", "chosen", "rejected", "source", *_DEFAULTS})


def _sides(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(side, str) for side in value):
        raise InputError(f"'cut' is {value!r}; use a list of 'chosen', 'rejected' or both")
    return tuple(value)


def identity_of(prompt: Said, chosen: Said, rejected: Said) -> str:
    """The id of a row that has none: 16 hex digits of the sha256 of its three texts."""
    body = orjson.dumps([_listed(prompt), _listed(chosen), _listed(rejected)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).hexdigest()[:16]


def said_text(said: Said) -> str:
    """Turns as one text; content that is a list of parts counts by its texts."""
    return said if isinstance(said, str) else "\n\n".join(_content(turn) for turn in said)


def digest_of(preferences: Iterable[Preference]) -> str:
    """sha256 (hex) of a data set: every row with all its fields; the order of rows does not count."""
    rows = sorted(
        hashlib.sha256(orjson.dumps(row.to_row(), option=orjson.OPT_SORT_KEYS)).digest() for row in preferences
    )
    return hashlib.sha256(b"".join(rows)).hexdigest()


def scan_preferences(path: Path) -> Iterator[tuple[int, Preference | Problem]]:
    """Stream a JSONL file: line number and the row, or the ``Problem`` that stands in its place.

    Memory holds the ids alone. Raises ``InputError`` where there is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    seen: dict[str, int] = {}
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if not line.strip():
                continue
            found = _read(line, path, number)
            if isinstance(found, Preference):
                first = seen.setdefault(found.id, number)
                if first != number:
                    reason = f"id {found.id!r} stands already on line {first}"
                    found = Problem(str(path), number, "duplicate", reason)
            yield number, found


def read_preferences(path: Path, *, skip_bad: bool = False) -> tuple[Preference, ...]:
    """All rows of a file.

    Raises ``InputError`` for an empty file and, unless ``skip_bad``, for rows that cannot be used: how many of which
    kind, the first of them with their lines.
    """
    rows: list[Preference] = []
    problems: list[Problem] = []
    for _line, found in scan_preferences(path):
        if isinstance(found, Preference):
            rows.append(found)
        else:
            problems.append(found)
    if problems and not skip_bad:
        raise InputError(_refusal(path, problems, len(rows)))
    if not rows:
        raise InputError(f"{path}: no preference that can be used; a row needs prompt, chosen and rejected")
    return tuple(rows)


def write_preferences(path: Path, preferences: Iterable[Preference]) -> int:
    """Write a file that ``read_preferences`` reads back equal; it appears whole or not at all. Returns the rows.

    Raises ``InputError`` for a row that JSON cannot hold (a lone surrogate, a value of an unknown type).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with whole(path, durable=True) as part, part.open("wb") as file:
        for row in preferences:
            try:
                file.write(orjson.dumps(row.to_row()) + b"\n")
            except orjson.JSONEncodeError as error:
                raise InputError(f"{path}: row {row.id!r} cannot be written as JSON ({error})") from None
            count += 1
    return count


def with_bias(preference: Preference) -> Preference:
    """The row with what its source is known to favour, as ``metadata.known_bias``."""
    return replace(preference, metadata={**preference.metadata, "known_bias": list(BIAS[preference.source])})


def _read(line: bytes, path: Path, number: int) -> Preference | Problem:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        torn = "" if line.endswith(b"\n") else ": the file ends in the middle of a row; write it again"
        return Problem(str(path), number, "malformed", f"not JSON: {error.msg} (column {error.colno}){torn}")
    if not isinstance(row, dict):
        return Problem(str(path), number, "malformed", f"a row is an object, not {type(row).__name__}")
    try:
        return Preference.from_row(row)
    except InputError as error:
        absent = any(row.get(name) in (None, "", []) for name in ("prompt", "chosen", "rejected"))
        return Problem(str(path), number, "missing" if absent else "malformed", str(error))


def _refusal(path: Path, problems: Sequence[Problem], usable: int) -> str:
    kinds: dict[str, int] = {}
    for problem in problems:
        kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines = [f"{path}: {len(problems)} of {len(problems) + usable} rows cannot be used ({counts}):"]
    lines += [f"  {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    return "\n".join([*lines, "correct them, or pass --skip-bad to use the other rows"])


def _said(row: Mapping[str, Any], name: str) -> Said:
    value = row.get(name)
    if value is None:
        raise InputError(f"no '{name}'")
    if isinstance(value, str):
        if len(value) > MAX_FIELD:
            raise InputError(f"'{name}' has {len(value):,} characters, more than {MAX_FIELD:,}")
        return value
    return _turns(value, name, need=("role",))


def _turns(value: Any, name: str, *, need: Sequence[str]) -> tuple[Mapping[str, Any], ...]:
    ok = isinstance(value, list | tuple) and all(isinstance(turn, Mapping) for turn in value)
    if not ok or any(key not in turn for turn in value for key in need):
        raise InputError(f"'{name}' is neither a text nor a list of {{role, content}}" if need else f"'{name}': a list")
    return tuple(value)


def _content(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        parts = [part.get("text", "") if isinstance(part, Mapping) else str(part) for part in content]
        return "\n".join(str(part) for part in parts if part)
    return "" if content is None else str(content)


def _calls(said: Said) -> list[Any]:
    """The tool calls of an answer: one that only calls a tool is not empty."""
    return [turn["tool_calls"] for turn in said if turn.get("tool_calls")] if isinstance(said, tuple) else []


def _listed(said: Said) -> Any:
    return said if isinstance(said, str) else list(said)
