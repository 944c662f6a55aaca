"""Reading eval sets: JSONL, JSON, CSV or Parquet, as one file of pairs or as prompts with answer files joined on
``id``.

A set is read twice: once to check every row and take the digest, once to stream the pairs, so memory does not grow with
the answers (JSONL and CSV; a Parquet or JSON file is loaded whole). Rows that cannot be used are never dropped in
silence: each is a ``Problem`` with file, line and reason, and ``open_evalset`` refuses the set unless ``skip_bad`` says
to judge the rest.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from . import cells
from .cells import Bad as _Bad
from .endings import finish_in
from .errors import InputError
from .journal import encode_pair
from .layouts import FIELDS, Layout, Layouts, nearest, present, value_of
from .types import Answer, Item, Pair
from .writing import whole

__all__ = ["EvalSet", "Problem", "listed_problems", "open_evalset", "read_rows", "write_evalset"]

_MODELS = {"candidate": ("candidate_model", "model_a"), "baseline": ("baseline_model", "model_b")}
"""Where a row with plain texts says whose they are: a column of its own, or a field of its metadata."""
_FOR_CHECKS = (
    "schema", "expected_calls", "functions", "context_ids", "must_contain", "must_not_contain", "instruction_id_list",
    "kwargs",
)  # fmt: skip
"""Columns whose lists and objects are metadata, too: what the shipped checks look for there."""
_SHOWN = 8
_RESERVED = "canary:"
"""How the ids of canary pairs begin (``canaries.PREFIX``); a row with such an id would not be counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row that cannot be judged: where it stands and why."""

    file: str
    line: int
    kind: str
    """``malformed``, ``missing``, ``duplicate`` or ``unmatched``."""
    reason: str

    def __str__(self) -> str:
        if Path(self.file).suffix.lower() in (".json", ".parquet"):
            return f"{self.file}: row {self.line}: {self.reason}"
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A checked eval set; ``pairs`` streams it again from its files.

    ``digest`` covers the content of every usable pair in order (sha256 hex), ``rows`` counts them.
    """

    sources: tuple[Path, ...]
    digest: str
    rows: int
    problems: tuple[Problem, ...]
    read: Callable[[], Iterator[tuple[int, Pair | Problem]]] = field(repr=False)

    def pairs(self) -> Iterator[Pair]:
        """Stream the usable pairs in file order; raises ``InputError`` at the end if they are not what was checked."""
        seen: set[str] = set()
        digest = hashlib.sha256()
        for _line, pair in self.read():
            if isinstance(pair, Pair) and pair.id not in seen:
                seen.add(pair.id)
                digest.update(_canonical(pair))
                yield pair
        if digest.hexdigest() != self.digest:
            raise InputError(
                f"{self.sources[0]}: the eval set changed while it was judged ({self.rows} rows before, {len(seen)} "
                "now); start again"
            )


def write_evalset(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as an eval set that ``open_evalset`` reads back equal; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("wb") as file:
        for pair in pairs:
            body = encode_pair(pair)
            item = body.pop("item")
            file.write(orjson.dumps({**item, **body}, default=str) + b"\n")


def _canonical(pair: Pair) -> bytes:
    """What the digest of an eval set covers of a pair: all of it but how its answers ended, which no judge sees and
    which older versions did not read.
    """
    body = encode_pair(pair)
    for side in ("candidate", "baseline"):
        body[side].pop("finish", None)
    return orjson.dumps(body, default=str) + b"\n"


def open_evalset(
    evalset: Path,
    *,
    candidate: Path | None = None,
    baseline: Path | None = None,
    mapping: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
) -> EvalSet:
    """Check an eval set and return a handle that streams it.

    ``candidate`` and ``baseline`` are answer files joined on ``id``. ``mapping`` names columns: ``{"baseline":
    "answer_old"}``.
    Raises ``InputError`` for a file that cannot be read, an empty set, an unknown column, or (unless ``skip_bad``) rows
    that cannot be used, with the first of them listed.
    """
    names = dict(mapping or {})
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise InputError(f"--map {unknown[0]}=...: unknown field; the fields are {', '.join(FIELDS)}")
    reader = _Reader(evalset, candidate, baseline, names, limit)
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    digest = hashlib.sha256()
    for line, row in reader.read():
        if isinstance(row, Problem):
            problems.append(row)
        elif row.id in seen:
            problems.append(
                Problem(str(evalset), line, "duplicate", f"id {row.id!r} stands already on line {seen[row.id]}")
            )
        else:
            seen[row.id] = line
            digest.update(_canonical(row))
    if limit is None:
        problems += reader.unmatched(seen)
    sources = tuple(path for path in (evalset, candidate, baseline) if path is not None)
    if problems and (not skip_bad or not seen):
        raise InputError(_refusal(evalset, problems, len(seen)))
    if not seen:
        raise InputError(f"{evalset}: the eval set is empty; it needs at least one row with a prompt and two answers")
    return EvalSet(sources, digest.hexdigest(), len(seen), tuple(problems), reader.read)


def listed_problems(problems: Sequence[Problem]) -> list[str]:
    """The first of each kind of problem with how many rows share it, as lines; what is left is counted."""
    alike: dict[str, list[Problem]] = {}
    for problem in problems:
        alike.setdefault(problem.reason, []).append(problem)
    shown = list(alike.values())[:_SHOWN]
    lines = [f"  {same[0]}" + (f" (and {len(same) - 1} more like it)" if len(same) > 1 else "") for same in shown]
    rest = len(problems) - sum(map(len, shown))
    return [*lines, *([f"  and {rest} more"] if rest else [])]


def _refusal(evalset: Path, problems: list[Problem], usable: int) -> str:
    kinds: dict[str, int] = {}
    for problem in problems:
        kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    rows = "1 row" if len(problems) == 1 else f"{len(problems)} rows"
    lines = [f"{evalset}: {rows} cannot be judged ({counts}), {usable} can:"]
    lines += listed_problems(problems)
    lines.append(
        "correct them, or pass --skip-bad to judge the usable rows; the others stay counted in the report"
        if usable
        else "name the columns with --map, for example --map candidate=answer_new,baseline=answer_old"
    )
    return "\n".join(lines)


class _Reader:
    """Rows of the eval set merged with the answer files; holds only ids and byte offsets of those."""

    def __init__(
        self, evalset: Path, candidate: Path | None, baseline: Path | None, names: dict[str, str], limit: int | None
    ) -> None:
        self.evalset, self.limit, self.layouts = evalset, limit, Layouts(names)
        self.answers = {
            side: _Answers(path, names)
            for side, path in (("candidate", candidate), ("baseline", baseline))
            if path is not None
        }

    def read(self) -> Iterator[tuple[int, Pair | Problem]]:
        for count, (line, _offset, row) in enumerate(_rows(self.evalset)):
            if self.limit is not None and count >= self.limit:
                return
            try:
                if isinstance(row, _Bad):
                    raise row
                yield line, _pair(row, self.layouts, self.answers)
            except _Bad as bad:
                yield line, Problem(str(self.evalset), line, bad.kind, str(bad))

    def unmatched(self, seen: Mapping[str, int]) -> list[Problem]:
        found: list[Problem] = []
        for answers in self.answers.values():
            found += answers.problems
            found += [
                Problem(str(answers.path), line, "unmatched", f"id {name!r} is not in {self.evalset}")
                for name, line in answers.lines.items()
                if name not in seen
            ]
        return found


class _Answers:
    """One answer file, indexed by id: by byte offset for JSONL, in memory for the other formats."""

    def __init__(self, path: Path, names: dict[str, str]) -> None:
        self.path, self.names = path, names
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self._where: dict[str, int | dict[str, Any]] = {}
        for line, offset, row in _rows(path):
            name = None if isinstance(row, _Bad) else value_of(row, "id", present(row, names))
            if isinstance(row, _Bad):
                self.problems.append(Problem(str(path), line, row.kind, str(row)))
            elif name in (None, ""):
                self.problems.append(Problem(str(path), line, "missing", "no 'id' to join on"))
            elif str(name) in self.lines:
                self.problems.append(
                    Problem(str(path), line, "duplicate", f"id {name!r} stands already on line {self.lines[str(name)]}")
                )
            else:
                self.lines[str(name)] = line
                self._where[str(name)] = offset if offset >= 0 else row

    def get(self, name: str) -> Any:
        where = self._where.get(name)
        if isinstance(where, int):
            with self.path.open("rb") as handle:
                handle.seek(where)
                line = handle.readline()
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise InputError(f"{self.path}: the file changed while it was judged; start again") from None
        elif where is None:
            raise _Bad("unmatched", f"id {name!r} has no answer in {self.path}")
        else:
            row = where
        inner = row.get("answer")
        return inner if isinstance(inner, Mapping) else row


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """Stream the rows of any file that an eval set may be, with their lines; a row that does not parse is a problem."""
    for line, _offset, row in _rows(path):
        yield line, Problem(str(path), line, row.kind, str(row)) if isinstance(row, _Bad) else row


def _rows(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Line number, byte offset (-1 where a row cannot be re-read by one) and the row, a mapping or ``_Bad``."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind in (".jsonl", ".ndjson"):
        yield from _jsonl_rows(path)
    elif kind == ".json":
        try:
            rows = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
        if not isinstance(rows, list):
            raise InputError(f"{path}: a .json eval set is a list of rows; for one row a line name it .jsonl")
        yield from (
            (number, -1, row if isinstance(row, dict) else _Bad("malformed", "not an object"))
            for number, row in enumerate(rows, 1)
        )
    elif kind == ".csv":
        yield from _csv_rows(path)
    elif kind == ".parquet":
        import polars

        try:
            frame = polars.read_parquet(path)
        except (polars.exceptions.PolarsError, OSError) as error:
            raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0][:120]})") from None

        yield from ((number, -1, row) for number, row in enumerate(frame.iter_rows(named=True), 1))
    else:
        raise InputError(f"{path}: unknown format {kind or '(no suffix)'}; use .jsonl, .json, .csv or .parquet")


def _jsonl_rows(path: Path) -> Iterator[tuple[int, int, Any]]:
    offset = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
            start, offset = offset + mark, offset + len(line)
            text = line[mark:]
            if not text.strip():
                continue
            try:
                row = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield number, start, _Bad("malformed", _why_not_json(text, error))
                continue
            yield (
                number,
                start,
                row if isinstance(row, dict) else _Bad("malformed", f"a row is an object, not {type(row).__name__}"),
            )


def _why_not_json(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"not UTF-8 at byte {bad.start}"
    return f"not JSON: {error.msg} (column {error.colno})"


def _csv_rows(path: Path) -> Iterator[tuple[int, int, Any]]:
    csv.field_size_limit(cells.MAX_FIELD * 4)

    def lines() -> Iterator[str]:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as bad:
                    raise InputError(
                        f"{path}:{number}: not UTF-8 at byte {bad.start}; save the file as UTF-8"
                    ) from None

    reader = csv.DictReader(lines(), strict=True)
    try:
        header = list(reader.fieldnames or ())
        if len(set(header)) < len(header):
            double = next(name for name in header if header.count(name) > 1)
            raise InputError(f"{path}:1: the column {double!r} stands twice in the header; rename one")
        for row in reader:
            if None in row or any(value is None for value in row.values()):
                yield (
                    reader.line_num,
                    -1,
                    _Bad("malformed", f"the row does not have the header's {len(reader.fieldnames or ())} columns"),
                )
            else:
                yield reader.line_num, -1, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _pair(row: Mapping[str, Any], layouts: Layouts, answers: Mapping[str, _Answers]) -> Pair:
    layout = layouts.of(row)
    get, names = layout.get, layouts.names
    if layout.plain is not None and not answers and (pair := _plain_pair(row, layout)) is not None:
        return pair
    prompt = get(row, "prompt")
    messages = cells.messages(get(row, "messages"))
    if prompt is None and not messages:
        raise _Bad("missing", f"no 'prompt' and no 'messages'{nearest('prompt', row)}")
    text = cells.text(prompt, "prompt") if prompt is not None else "\n\n".join(message.content for message in messages)
    name = get(row, "id")
    sides = {}
    for side in ("candidate", "baseline"):
        if side in answers:
            if name in (None, ""):
                raise _Bad("missing", "no 'id' to join the answer files on")
            row_of_side = answers[side].get(str(name))
            sides[side] = _answer(row_of_side, side, present(row_of_side, names))
        else:
            value = get(row, side)
            if value is None:
                raise _Bad("missing", f"no '{side}' answer{nearest(side, row)}")
            sides[side] = _answer(value, side, names)
    metadata = _metadata(row, layout)
    for side, answer in sides.items() if metadata else ():
        named = next((metadata[name] for name in _MODELS[side] if isinstance(metadata.get(name), str)), None)
        if answer.model is None and named:
            sides[side] = replace(answer, model=named)
    category = str(get(row, "category") or "")
    if layout.wanted.isdisjoint(_SELDOM):
        item = Item(text, messages, category, metadata=metadata)
    else:
        item = Item(
            prompt=text,
            messages=messages,
            category=category,
            tags=cells.texts(get(row, "tags"), "tags"),
            context=cells.texts(get(row, "context"), "context"),
            reference=cells.optional(get(row, "reference"), "reference"),
            metadata=metadata,
            checks=cells.calls(cells.structured(get(row, "checks"), "checks"), "checks"),
            tools=cells.calls(cells.structured(get(row, "tools"), "tools"), "tools"),
        )
    if str(name or "").startswith(_RESERVED):
        raise _Bad(
            "malformed", f"the id {str(name)!r} begins with {_RESERVED!r}, which is kept for canary pairs; rename"
        )
    if name in (None, ""):
        parts = [text, item.context, item.reference, sides["candidate"].text, sides["baseline"].text]
        name = hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]
    return Pair(str(name), item, sides["candidate"], sides["baseline"], label=cells.label(get(row, "label")))


def _plain_pair(row: Mapping[str, Any], layout: Layout) -> Pair | None:
    """``_pair`` of a row of a plain layout whose cells are texts, in a third of the time; ``None`` for any other."""
    assert layout.plain is not None
    name, prompt, candidate, baseline = texts = layout.plain(row)
    category, label = layout.get(row, "category"), layout.get(row, "label")
    for text in texts:
        if text.__class__ is not str or len(text) > cells.MAX_FIELD:
            return None
    if not name or name.startswith(_RESERVED) or not (category is None or category.__class__ is str):
        return None
    item = Item(prompt, category=category or "")
    return Pair(name, item, Answer(candidate), Answer(baseline), cells.label(label) if label is not None else None)


_SELDOM = frozenset(("tags", "context", "reference", "checks", "tools"))
"""Fields that most eval sets have no column for."""


def _metadata(row: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The item's metadata: every column that is no field of ours, then ``metadata`` (or ``meta``) itself."""
    found = {
        str(key): row[key]
        for key in layout.others
        if isinstance(row[key], str | int | float) or (key in _FOR_CHECKS and isinstance(row[key], list | dict))
    }
    given = layout.get(row, "metadata") or layout.get(row, "meta")
    return {**found, **given} if isinstance(given, Mapping) else found


def _answer(value: Any, side: str, names: Mapping[str, str]) -> Answer:
    if isinstance(value, str):
        return Answer(cells.text(value, side))
    if not isinstance(value, Mapping):
        raise _Bad("malformed", f"'{side}' is {type(value).__name__}, not text")
    text = value_of(value, "text", names)
    messages = cells.messages(value.get("messages"))
    if text is None:
        if not messages:
            raise _Bad("missing", f"'{side}' has no text")
        text = messages[-1].content
    return Answer(
        text=cells.text(text, side),
        model=cells.optional(value_of(value, "model", {}), f"{side}.model"),
        latency_ms=cells.number(value.get("latency_ms"), f"{side}.latency_ms"),
        tokens=cells.whole(value.get("tokens"), f"{side}.tokens"),
        cost=cells.number(value.get("cost"), f"{side}.cost"),
        tool_calls=cells.calls(value.get("tool_calls"), f"{side}.tool_calls"),
        turns=cells.whole(value.get("turns"), f"{side}.turns")
        or sum(message.role == "assistant" for message in messages)
        or None,
        finish=finish_in(value),
    )
