"""Rows on their way between our files and other tools' files.

A row of ours is a plain object of one of the kinds in ``KINDS``. What another format knows and we do not stays in the
row as ``foreign`` (``{"format": name, "fields": {...}}``) and is put back when the row leaves in that format; what we
know and the other format does not stands in its rows under one key, ``touchstone``. So nothing is lost either way, and
import, export, import gives the same rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from ..cells import MAX_FIELD
from ..errors import InputError
from ..formats import Problem, read_rows
from ..writing import whole

__all__ = [
    "KINDS",
    "OURS",
    "BadRow",
    "Found",
    "Layout",
    "Options",
    "Row",
    "at_path",
    "check_text",
    "convert",
    "counted",
    "decode",
    "default_id",
    "encode",
    "kind_of",
    "layout_reader",
    "put_path",
    "tried",
    "undecided",
    "write_file",
    "write_rows",
]

Row: TypeAlias = dict[str, Any]
Found: TypeAlias = "tuple[int, Row | Problem]"

OURS = "touchstone"
"""The key under which a foreign row carries what its format has no place for."""

KINDS: Mapping[str, str] = {
    "pair": "a prompt and two answers, candidate and baseline: an eval set for `judge run`",
    "answer": "a prompt and one answer: an answer file for `judge run --candidate`",
    "task": "a prompt without answers: an eval set for `judge generate`",
    "preference": "a prompt, the better and the worse answer: for `judge tune pairs`",
    "trace": "what a system was asked and answered in use, with feedback: for `judge loop sample`",
    "label": "what a person said of a pair: a gold set for `judge calibrate`",
    "evaluation": "one score of one answer",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What an import or export may need beyond the file.

    ``mapping`` names fields by path (``{"prompt": "inputs.question"}``), ``candidate`` and ``baseline`` the models to
    compare where a format holds many, ``key`` the file that says which side was shown where, ``seed`` that of the
    shuffled sides, ``at`` the time to write (ISO 8601).
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    candidate: str = ""
    baseline: str = ""
    key: Path | None = None
    seed: int = 0
    at: str = ""


class BadRow(Exception):
    """A row that cannot be used; becomes a ``Problem`` of this ``kind``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Layout:
    """A format whose rows are flat objects, as a literal table.

    ``fields`` maps our dotted field to their key, ``required`` are their keys without which a row means nothing,
    ``texts`` those whose value must be a text. ``after`` and ``before`` mend what a table cannot say: after decoding a
    row (ours, theirs), before encoding it (theirs, ours).
    """

    name: str
    kind: str
    fields: Mapping[str, str]
    required: tuple[str, ...]
    texts: tuple[str, ...] = ()
    after: Callable[[Row, Mapping[str, Any]], None] | None = None
    before: Callable[[Row, Row], None] | None = None


def decode(layout: Layout, theirs: Mapping[str, Any]) -> Row:
    """Our row of one of theirs; raises ``BadRow`` for one that lacks a field or holds something else there."""
    for name in layout.required:
        if theirs.get(name) is None:
            raise BadRow("missing", f"no {name!r}")
    for name in layout.texts:
        if theirs.get(name) is not None:
            check_text(theirs[name], name)
    ours: Row = {}
    taken = {OURS}
    for path, name in layout.fields.items():
        if theirs.get(name) is not None:
            put_path(ours, path, theirs[name])
            taken.add(name)
    merge(ours, _own(theirs.get(OURS)))
    rest = {name: value for name, value in theirs.items() if name not in taken}
    if layout.after is not None:
        layout.after(ours, rest)
    if rest and "foreign" not in ours:
        ours["foreign"] = {"format": layout.name, "fields": rest}
    if ours.get("id") in (None, ""):
        ours = {"id": default_id(ours, layout.kind), **ours}
    ours["id"] = str(ours["id"])
    return ours


def encode(layout: Layout, ours: Mapping[str, Any]) -> Row:
    """Their row of one of ours; what the format has no field for stands under ``touchstone``."""
    rest: Row = orjson.loads(orjson.dumps(ours))
    theirs: Row = {}
    foreign = rest.get("foreign")
    if isinstance(foreign, Mapping) and foreign.get("format") == layout.name:
        theirs |= foreign["fields"]
        del rest["foreign"]
    if "id" not in layout.fields and rest.get("id") == default_id(rest, layout.kind):
        del rest["id"]
    if layout.before is not None:
        layout.before(theirs, rest)
    for path, name in layout.fields.items():
        value = at_path(rest, path)
        if value is not None:
            theirs[name] = value
            drop_path(rest, path)
    missing = [name for name in layout.required if theirs.get(name) is None]
    if missing:
        raise BadRow("missing", f"the row has nothing for {missing[0]!r}")
    if rest:
        # As text: tools that infer one type a column (Arrow) could not read objects that differ from row to row.
        theirs[OURS] = orjson.dumps(rest).decode()
    return theirs


def _own(given: Any) -> Mapping[str, Any]:
    """What a foreign row carries for us; raises ``BadRow`` where somebody changed it into something else."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    try:
        found = orjson.loads(given) if isinstance(given, str) else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise BadRow("malformed", f"{OURS!r} is not what `judge export` wrote there")
    return found


def default_id(row: Mapping[str, Any], kind: str) -> str:
    """The id of a row without one: of its prompt, and of its answers where the kind has two of them.

    Two models' answers to one prompt thus get one id, by which they are joined.
    """
    parts = [row.get("messages") or row.get("prompt")]
    if kind == "pair":
        parts += [row.get("candidate"), row.get("baseline")]
    elif kind == "preference":
        parts = [row.get("prompt"), row.get("chosen"), row.get("rejected")]
    elif kind == "evaluation":
        parts = [row.get(name) for name in ("name", "value", "label", "target")]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def kind_of(row: Mapping[str, Any]) -> str:
    """Which kind a row of ours is, by the fields it has; raises ``BadRow`` where it is none."""
    marks = {
        "label": ("pair_id", "outcome"),
        "evaluation": ("name", "target"),
        "preference": ("chosen", "rejected"),
        "pair": ("candidate", "baseline"),
        "trace": ("answer", "trace_id"),
        "answer": ("answer",),
    }
    for kind, names in marks.items():
        if all(name in row for name in names):
            return kind
    if row.get("prompt") or row.get("messages"):
        return "task"
    raise BadRow("malformed", f"no row of ours: it has {', '.join(map(str, row)) or 'no field'}")


def convert(row: Row, kind: str) -> Row:
    """A row as one of another kind; raises ``BadRow`` where that cannot be done without inventing something."""
    have = kind_of(row)
    for side in ("candidate", "baseline", "answer"):
        if side in row and have in ("pair", "answer", "trace") and not isinstance(row[side], str | Mapping):
            raise BadRow("malformed", f"{side!r} is {type(row[side]).__name__}, not a text or an object")
    if have == kind:
        return row
    if (have, kind) == ("pair", "preference"):
        label = row.get("label")
        if label not in ("win", "loss"):
            raise undecided(label)
        better, worse = ("candidate", "baseline") if label == "win" else ("baseline", "candidate")
        rest = {
            name: value for name, value in row.items() if name not in ("candidate", "baseline", "label", "messages")
        }
        return {**rest, "prompt": row.get("messages") or row.get("prompt"), "chosen": _text_of(row[better]),
                "rejected": _text_of(row[worse])}  # fmt: skip
    if (have, kind) == ("preference", "pair"):
        rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected", "prompt")}
        asked = row["prompt"]
        sides = {"candidate": _side(row["chosen"]), "baseline": _side(row["rejected"])}
        return {
            **rest,
            **({"prompt": asked} if isinstance(asked, str) else {"messages": asked}),
            **sides,
            "label": "win",
        }
    if kind == "answer" and have == "trace":
        return {name: value for name, value in row.items() if name != "trace_id"}
    if kind == "task" and have in ("pair", "answer", "trace"):
        gone = ("candidate", "baseline", "answer", "label", "trace_id", "feedback", "actions")
        return {name: value for name, value in row.items() if name not in gone}
    raise BadRow("malformed", f"a row of kind {have!r} cannot become one of kind {kind!r}")


def undecided(label: Any) -> BadRow:
    """Why a pair with this label has no better answer."""
    why = "a tie has no better answer" if label == "tie" else "no label says which answer is better"
    return BadRow("undecided", why)


def tried(path: Path, line: int, make: Callable[[], Row]) -> Found:
    """The row that ``make`` gives, or the problem that stands in its place.

    Other tools' rows are of any shape: what a decoder stumbles over is a malformed row, not the end of the file.
    """
    try:
        return line, make()
    except BadRow as bad:
        return line, Problem(str(path), line, bad.kind, str(bad))
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return line, Problem(str(path), line, "malformed", f"not of the shape that was expected ({error})")


def layout_reader(layout: Layout) -> Callable[[Path, Options], Iterator[Found]]:
    """A reader of files with one row of this layout a line (or a list of them, a table of them)."""

    def read(path: Path, _options: Options) -> Iterator[Found]:
        for line, row in read_rows(path):
            if isinstance(row, Problem):
                yield line, row
                continue
            yield tried(path, line, partial(decode, layout, row))

    return read


def write_rows(path: Path, rows: Iterable[Row], _options: Options) -> int:
    """Write rows that are what the format wants: JSONL, or one JSON list for a name that ends in ``.json``."""
    return write_file(path, rows)


def write_file(path: Path, rows: Iterable[Any]) -> int:
    """Write objects as JSONL, or as a JSON list (``.json``); the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed, count = path.suffix.lower() == ".json", 0
    try:
        with whole(path) as part, part.open("wb") as file:
            file.write(b"[\n" if listed else b"")
            for row in rows:
                file.write(b",\n" if listed and count else b"")
                file.write(orjson.dumps(row) + (b"" if listed else b"\n"))
                count += 1
            file.write(b"\n]\n" if listed else b"")
    except orjson.JSONEncodeError as error:
        raise InputError(f"{path}: row {count + 1} cannot be written as JSON ({error})") from None
    return count


def at_path(row: Any, path: str) -> Any:
    """The value at a dotted path; a key that itself holds dots is found too, a number is a place in a list."""
    if isinstance(row, Mapping):
        if path in row:
            return row[path]
        for cut in (at for at, letter in enumerate(path) if letter == "."):
            inner = row.get(path[:cut])
            found = None if inner is None else at_path(inner, path[cut + 1 :])
            if found is not None:
                return found
    elif isinstance(row, list):
        head, _, rest = path.partition(".")
        if head.lstrip("-").isdigit() and -len(row) <= int(head) < len(row):
            return at_path(row[int(head)], rest) if rest else row[int(head)]
    return None


def put_path(row: Row, path: str, value: Any) -> None:
    """Set the value at a dotted path, making the objects on the way."""
    head, _, rest = path.partition(".")
    if rest:
        put_path(row.setdefault(head, {}), rest, value)
    else:
        row[head] = value


def drop_path(row: Row, path: str) -> None:
    """Remove the value at a dotted path, and objects that are empty then."""
    head, _, rest = path.partition(".")
    if rest and isinstance(row.get(head), dict):
        drop_path(row[head], rest)
        if not row[head]:
            del row[head]
    else:
        row.pop(head, None)


def merge(row: Row, given: Mapping[str, Any]) -> None:
    """Put into a row what it lacks, inside its objects too."""
    for name, value in given.items():
        if isinstance(row.get(name), dict) and isinstance(value, Mapping):
            merge(row[name], value)
        else:
            row.setdefault(name, value)


def check_text(value: Any, name: str) -> str:
    """The value if it is a text of bounded length; raises ``BadRow`` otherwise."""
    if not isinstance(value, str):
        raise BadRow("malformed", f"{name!r} is {type(value).__name__}, not text")
    if len(value) > MAX_FIELD:
        raise BadRow("malformed", f"{name!r} has {len(value):,} characters, more than {MAX_FIELD:,}")
    return value


def counted(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind."""
    return dict(sorted(Counter(problem.kind for problem in problems).items()))


def _text_of(side: Any) -> Any:
    return side if isinstance(side, str) else side.get("messages") or side.get("text", "")


def _side(said: Any) -> Row:
    return {"text": said} if isinstance(said, str) else {"messages": said}
