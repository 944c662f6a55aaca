"""Moving files: foreign file to rows of ours, rows or a run of ours to a foreign file; every row accounted for."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..formats import Problem, read_rows
from ..writing import whole
from .formats import find_format
from .rows import Found, Options, Row, convert, default_id, kind_of, tried, write_file

if TYPE_CHECKING:
    from ..store import RunInfo, Store

__all__ = ["Moved", "export", "ingest", "run_rows"]

_SHOWN = 8
_EVERY = 1_000
Report = Callable[[int], None]
_HARMLESS = ("other",)
"""Kinds of problem that refuse nothing: rows that are no data of this sort, such as spans of a database call."""

_NONE = Options()


@dataclass(frozen=True, slots=True)
class Moved:
    """What came over: ``rows`` written to ``out``, of this ``kind``; ``problems`` by kind, the first of them in words.

    ``read`` counts the rows that were looked at: rows + sum of problems.
    """

    out: Path
    format: str
    kind: str
    rows: int
    problems: dict[str, int]
    first: tuple[str, ...]

    @property
    def read(self) -> int:
        """Rows that were looked at."""
        return self.rows + sum(self.problems.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.out), "format": self.format, "kind": self.kind, "read": self.read, "rows": self.rows,
            "problems": self.problems, "first_problems": list(self.first),
        }  # fmt: skip


_LABELS = (
    "nothing says which answer is better: give the rows a `label` (win, loss) and judge them again, or build pairs "
    "from labels (judge label RUN --to labels.jsonl --as YOU; judge tune pairs --human labels.jsonl -o pairs.jsonl) "
    "and export those"
)


class _Sieve:
    """Passes rows on and keeps count of the others; ids that stand twice are among those."""

    def __init__(self, where: Path, report: Report | None = None) -> None:
        self.where, self.report, self.count, self.line = where, report, 0, 0
        self.kinds: Counter[str] = Counter()
        self.first: list[Problem] = []
        self.alike: dict[str, int] = {}
        self._seen: dict[tuple[str, str], int] = {}

    def sift(self, found: Iterable[Found], made: Callable[[Row], Row] | None = None) -> Iterator[Row]:
        """The rows that can be used, each as ``made`` makes it; one that it refuses is a problem, too."""
        for line, row in found:
            self.count += 1
            if self.report is not None and self.count % _EVERY == 0:
                self.report(self.count)
            if isinstance(row, Problem):
                self.note(row)
                continue
            answer = row.get("answer")
            model = str(answer.get("model") or "") if isinstance(answer, dict) else ""
            name = (row["id"], model)
            if name in self._seen:
                reason = f"id {row['id']!r} stands already on line {self._seen[name]}"
                self.note(Problem(str(self.where), line, "duplicate", reason))
                continue
            _, ready = (line, row) if made is None else tried(self.where, line, partial(made, row))
            if isinstance(ready, Problem):
                self.note(ready)
                continue
            self._seen[name] = self.line = line
            yield ready

    def note(self, problem: Problem) -> None:
        self.kinds[problem.kind] += 1
        if problem.kind in _HARMLESS:
            return
        if problem.reason in self.alike:
            self.alike[problem.reason] += 1
        elif len(self.first) < _SHOWN:
            self.alike[problem.reason] = 1
            self.first.append(problem)

    @property
    def bad(self) -> int:
        return sum(count for kind, count in self.kinds.items() if kind not in _HARMLESS)

    def refusal(self, usable: int, *, what: str) -> str:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()) if kind not in _HARMLESS)
        rows = "1 row" if self.bad == 1 else f"{self.bad} rows"
        lines = [f"{self.where}: {rows} cannot be {what} ({counts}), {usable} can:"]
        for problem in self.first:
            more = self.alike[problem.reason] - 1
            lines.append(f"  {problem}" + (f" (and {more} more like it)" if more else ""))
        rest = self.bad - sum(self.alike[problem.reason] for problem in self.first)
        lines += [f"  and {rest} more"] if rest else []
        way = "correct them, or pass --skip-bad to take the usable rows; the others are counted"
        if not usable:
            way = _LABELS if self.kinds["undecided"] == self.bad else "is the file what --from or --to says it is?"
        return "\n".join([*lines, way])


def ingest(
    path: Path, format_name: str, out: Path, *, options: Options = _NONE, skip_bad: bool = False,
    report: Report | None = None,
) -> Moved:  # fmt: skip
    """Read a file of another tool into ``out`` (JSONL, rows of ours).

    Streams: memory holds ids (and whole documents where a format is one). Raises ``InputError`` for a file that is not
    of this format, for one without a usable row and, unless ``skip_bad``, for rows that cannot be used; nothing is
    written then. ``report`` is told how many rows went by, every thousand.
    """
    entry = find_format(format_name)
    assert entry.read is not None
    if options.mapping and not entry.mapped:
        raise InputError(f"--map: format {format_name!r} has fixed fields")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir() and not entry.folder:
        raise InputError(f"{path}: a folder; format {format_name!r} is one file")
    name, kind, found = entry.name, entry.kind, entry.read(path, options)
    if out.suffix.lower() != ".jsonl":
        raise InputError(f"{out}: rows are written as JSONL; name it .jsonl")
    if path.resolve() == out.resolve():
        raise InputError(f"{out}: this is the file to read; write to another")
    sieve = _Sieve(path, report)
    with whole(out) as part:
        count = write_file(part, sieve.sift(found))
        if sieve.bad and not skip_bad:
            raise InputError(sieve.refusal(count, what="used"))
        if not count:
            counts = ", ".join(f"{n} {what}" for what, n in sorted(sieve.kinds.items()))
            raise InputError(f"{path}: no row that can be used as {name}{f' ({counts})' if counts else ''}")
    return Moved(
        out, name, kind, count, dict(sorted(sieve.kinds.items())), tuple(str(problem) for problem in sieve.first)
    )


def export(
    rows: Path | Iterable[Row],
    format_name: str,
    out: Path,
    *,
    options: Options = _NONE,
    skip_bad: bool = False,
    report: Report | None = None,
) -> Moved:
    """Write rows of ours (a JSONL file, or rows at hand) as a file of another tool.

    Rows of another kind are turned where that invents nothing (a labelled pair into a preference); those that cannot be
    (a tie) are problems. Everything is written beside ``out`` first and moved there once it is whole: an export that
    fails leaves what was there, companions of a file (a key of shuffled sides) too. Raises as ``ingest`` does, and for
    a folder that is not empty.
    """
    entry = find_format(format_name, to_write=True)
    assert entry.write is not None
    where = rows if isinstance(rows, Path) else out
    if isinstance(rows, Path) and rows.resolve() == out.resolve():
        raise InputError(f"{out}: this is the file to read; write to another")
    _refuse_place(out, folder=entry.folder)
    sieve = _Sieve(where, report)
    taken = _own(rows, entry.written_from)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        staged = Path(folder) / out.name
        try:
            count = entry.write(staged, sieve.sift(taken, entry.made), options)
        except InputError as error:
            raise InputError(str(error).replace(str(staged), str(out))) from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            shape = f"not of the shape that {format_name} can hold ({type(error).__name__}: {error})"
            raise InputError(f"{where}:{sieve.line}: {shape}; correct the row, or leave it out") from None
        if sieve.bad and not (skip_bad and count):
            raise InputError(sieve.refusal(count, what="written"))
        if not count:
            raise InputError(f"{where}: no row that can be written as {format_name}")
        # What belongs to it goes first: tasks are never there without the key of their sides.
        for made in sorted(Path(folder).iterdir(), key=lambda made: made.name == out.name):
            made.replace(out.parent / made.name)
    return Moved(out, format_name, entry.written_from, count, dict(sorted(sieve.kinds.items())),
                 tuple(str(problem) for problem in sieve.first))  # fmt: skip


def _refuse_place(out: Path, *, folder: bool) -> None:
    """Refuse to write where something lies that an export must not touch."""
    if folder and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: there is something here already; give a new folder")
    if not folder and out.is_dir():
        raise InputError(f"{out}: a folder; name the file to write")


def run_rows(store: Store, info: RunInfo, kind: str) -> Iterator[Row]:
    """The pairs of a run with what the judge said, as rows of kind ``pair`` or ``evaluation``.

    ``judged`` holds judge, rubric, preference (P(win) + P(tie)/2, from the candidate's side), outcome, the outcome of
    each order, or why there is none; an evaluation's value is the preference, and its target the ids of trace, span and
    response that the item's metadata names.
    """
    from ..journal import encode_pair
    from ..types import JudgeId

    judge, rubric = str(JudgeId(**info.header["judge"])), str(info.header["rubric"])
    rows = [row for row in store.comparisons(info.run_id).iter_rows(named=True) if row["repeat"] == 0]
    said = {row["pair_id"]: row for row in rows}
    for pair in store.pairs(info.run_id, list(said)):
        row = said[pair.id]
        metadata = pair.item.metadata
        if kind == "evaluation":
            target = {
                name: str(metadata[name]) for name in ("trace_id", "span_id", "response_id") if metadata.get(name)
            }
            score = {"value": row["preference"], "label": row["outcome"] or f"invalid: {row['invalid']}",
                     "explanation": row["rationale"]}  # fmt: skip
            score = {name: value for name, value in score.items() if value not in (None, "")}
            yield {"id": f"{info.run_id}:{pair.id}", "name": f"pairwise.{rubric}", **score, "target": target}
            continue
        body: Row = encode_pair(pair)
        item = body.pop("item")
        judged: Row = {"judge": judge, "rubric": rubric, "run": info.run_id}
        judged |= {
            name: row[name] for name in ("preference", "outcome", "invalid", "rationale") if row[name] not in (None, "")
        }
        judged["outcomes"] = {"candidate_first": row["cf_outcome"], "baseline_first": row["bf_outcome"]}
        whole = {**item, **body, "judged": judged}
        yield {name: value for name, value in whole.items() if value not in (None, "", [], (), {})}


def _own(rows: Path | Iterable[Row], kind: str) -> Iterator[Found]:
    numbered = read_rows(rows) if isinstance(rows, Path) else enumerate(rows, 1)
    where = rows if isinstance(rows, Path) else Path("row")
    for line, row in numbered:
        if isinstance(row, Problem):
            yield line, row
            continue
        yield tried(where, line, partial(_named, row, kind))


def _named(row: Row, kind: str) -> Row:
    """A row as one of this kind, with an id."""
    have = kind_of(row)
    named = {"id": str(row.get("id") or row.get("pair_id") or ""), **{k: v for k, v in row.items() if k != "id"}}
    if not named["id"]:
        named["id"] = default_id(row, have)
    return convert(named, kind)
