"""The files of a labelling: an append-only log of labels, and beside it the draw that says what they may speak for.

``support.jsonl`` holds one row a line in the form of ``GoldSet.read``; a row that it would refuse is never written.
``support.draw.jsonl`` holds the draw (pairs with their chances, what is compared, the rubric's text), and extensions.
A row is on the disk before ``append`` returns; a line torn by a crash is cut when the log is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from calibration.gold import GoldSet
from calibration.gold_rows import parse
from rubrics.words import pinned

from .canaries import PREFIX
from .errors import InputError, StoreError
from .formats import open_evalset
from .journal import decode_pair, records
from .labelling import Drawing, Framed, Place, Request, Subject
from .store import Store
from .types import Pair

__all__ = [
    "DrawRecord",
    "LabelLog",
    "Source",
    "draw_path",
    "evalset_source",
    "extend_draw",
    "read_draw",
    "read_rows",
    "refuse_other",
    "reopened",
    "run_source",
    "write_draw",
]

FORMAT = 1
"""Version of the draw records; a newer one is refused."""


class LabelLog:
    """One open label file; a second process that opens it is refused until this one closes.

    ``rows`` are all rows of the file in order, ``cut`` the bytes of a torn last line that were cut when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending, made where it does not exist.

        Raises ``InputError`` where another process holds the file, or ``GoldSet.read`` would refuse it.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"{path}: another process is labelling into this file; wait for it, or label the same draw into a "
                    "file of your own (--to, with the same --seed) and join the files later"
                ) from None
            self.cut = _mend(self._fd, path)
            self.rows = _checked(path.read_bytes(), path)
        except InputError:
            os.close(self._fd)
            raise
        self._of: dict[str, list[str]] = {}
        for entry in self.rows:
            self._of.setdefault(str(entry["pair_id"]), []).append(json.dumps(entry))
        if fresh:
            _sync_folder(path.parent)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; it survives a crash once this returns. Raises ``InputError`` for one nobody could read."""
        line = json.dumps(dict(row))  # ASCII: no character of a note can end a line early
        # What a reader checks between rows, it checks among the rows of one pair.
        held = self._of.get(str(row.get("pair_id")), [])
        parse([*held, line], where=f"{self.path} (new row)", source=self.path.stem)
        _append(self._fd, line)
        self.rows.append(dict(row))
        self._of.setdefault(str(row["pair_id"]), []).append(line)

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a label file, without a lock; none where it does not exist. A torn last line is left out."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return _checked(data[: len(data) - _torn(data)], path)


@dataclass(frozen=True, slots=True)
class DrawRecord:
    """What stands in a draw file: the draw with all extensions, what the labels are about, and where the pairs lie.

    ``origin`` is ``{"run": id}`` or ``{"evalset": file, "options": {...}}``.
    """

    drawing: Drawing
    subject: Subject
    rubric_text: str
    origin: Mapping[str, Any]


def draw_path(labels: Path) -> Path:
    """Where the draw of a label file stands: ``gold/support.jsonl`` has ``gold/support.draw.jsonl``."""
    return labels.with_name(f"{labels.stem}.draw.jsonl")


def write_draw(labels: Path, record: DrawRecord, *, at: str) -> None:
    """Write the draw of a label file, once: raises ``InputError`` where there is one already."""
    path = draw_path(labels)
    if read_draw(labels) is not None:
        raise InputError(f"{path}: there is a draw already")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing = record.drawing
    _write(
        path,
        {
            "t": "draw",
            "format": FORMAT,
            "at": at,
            "request": asdict(drawing.request),
            "frame_size": drawing.frame_size,
            "frame_digest": drawing.frame_digest,
            "subject": asdict(record.subject),
            "origin": dict(record.origin),
            "rubric_text": record.rubric_text,
            "pairs": [asdict(place) for place in drawing.places],
        },
    )


def extend_draw(labels: Path, larger: Drawing, *, known: int, at: str) -> None:
    """Append the pairs that a larger draw has beyond the first ``known`` ones."""
    pairs = [asdict(place) for place in larger.places[known:]]
    _write(draw_path(labels), {"t": "extension", "at": at, "n": larger.request.n, "pairs": pairs})


def read_draw(labels: Path) -> DrawRecord | None:
    """The draw of a label file, ``None`` where there is none; a torn last line (a crash while writing) is left out.

    Raises ``InputError`` for a file that holds anything else, or is of a newer version.
    """
    path = draw_path(labels)
    if not path.exists():
        return None
    data = path.read_bytes()
    found: DrawRecord | None = None
    for number, line in enumerate(data[: len(data) - _torn(data)].splitlines(), 1):
        try:
            entry = json.loads(line)
            if entry["t"] == "draw" and entry["format"] > FORMAT:
                raise InputError(f"{path}: written by a newer version; upgrade touchstone-judge")
            found = _drawn(entry) if found is None else _grown(found, entry)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: not a draw of `judge label` ({error}); restore the file") from None
    return found


def refuse_other(labels: Path, rows: Sequence[Mapping[str, Any]], held: Subject | None, subject: Subject) -> None:
    """Raise ``InputError`` where a label file is about something else than ``subject``, naming the difference."""
    if rows and held is None:
        raise InputError(
            f"{labels}: there are {len(rows)} labels here, but no {draw_path(labels).name} that says how their pairs "
            "were drawn; restore it, or label into another file (--to)"
        )
    for name in ("candidate", "baseline", "rubric"):
        mine = getattr(subject, name)
        of_file = [getattr(held, name)] if held is not None else []
        other = next((value for value in (*of_file, *(entry.get(name) for entry in rows)) if value != mine), mine)
        if other != mine:
            raise InputError(
                f"{labels}: its labels are about {name} {other!r}, this would add labels about {name} {mine!r}; "
                "label into another file (--to)"
            )
    if held is not None and held.evalset != subject.evalset:
        raise InputError(
            f"{labels}: its pairs were drawn from eval set {held.evalset[:12]}, this is {subject.evalset[:12]}: other "
            "answers under the same names; label into another file (--to)"
        )
    if held is not None and held.rubric_digest != subject.rubric_digest:
        raise InputError(
            f"{labels}: the text of {subject.rubric} changed since the first label; give it a new version, and label "
            "under that into another file (--to)"
        )


@dataclass(frozen=True, slots=True)
class Source:
    """Where the pairs to label lie: a finished run, or an eval set that nobody judged yet.

    ``evalset`` is the digest of the set, ``rubric`` what the run was judged under, by name and as text (``None``
    without a run), ``said`` gives what the judge made of each pair: its confidence, and whether both orders agreed
    (``None`` without a verdict).
    """

    origin: Mapping[str, Any]
    evalset: str
    read: Callable[[], Iterator[Pair]]
    rubric: tuple[str, str] | None = None
    said: Callable[[], Mapping[str, tuple[float | None, bool | None]]] = dict

    def names(self) -> tuple[str, str]:
        """Names of candidate and baseline, by the rule of ``evidence``: labels and runs must call them the same."""
        from .evidence import compared_names

        return compared_names(((pair.candidate.model, pair.baseline.model) for pair in self.read()), self.evalset)

    def frame(self, request: Request) -> list[Framed]:
        """Every pair that may be drawn; raises ``InputError`` for strata that no item has."""
        said = self.said() if request.how in ("active", "escalated") else {}
        frame, fields = [], {"category"}
        for pair in self.read():
            fields |= pair.item.metadata.keys()
            value = pair.item.category if request.by == "category" else pair.item.metadata.get(request.by, "")
            frame.append(Framed(pair.id, str(value), *said.get(pair.id, (None, None))))
        if request.by not in fields:
            raise InputError(f"--by {request.by}: no item has this field; there are {', '.join(sorted(fields))}")
        return frame

    def pairs(self, wanted: Iterable[str]) -> dict[str, Pair]:
        """The texts of these pairs by id; memory holds no others."""
        ids = set(wanted)
        return {pair.id: pair for pair in self.read() if pair.id in ids}


def run_source(store: Store, run_id: str = "latest") -> Source:
    """The pairs of a run, canaries apart; raises ``StoreError`` where it is not finished: no frame is known before."""
    info = store.run(run_id)
    path = store.journal_path(info.run_id)
    if not info.sealed or not path.exists():
        why = "is not finished" if path.exists() else "has lost its journal, which holds the texts"
        way = f"finish it with `judge resume {info.run_id}`" if path.exists() else "label its eval set with --evalset"
        raise StoreError(f"run {info.run_id} {why}; {way}")

    def read() -> Iterator[Pair]:
        pairs = (entry["pair"] for entry in records(path) if entry["t"] == "pair")
        return (decode_pair(pair) for pair in pairs if not pair["id"].startswith(PREFIX))

    def said() -> dict[str, tuple[float | None, bool | None]]:
        seen: dict[str, list[tuple[float | None, bool | None]]] = {}
        frame = store.comparisons(info.run_id)
        for pair_id, preference, consistent in frame.select("pair_id", "preference", "consistent").iter_rows():
            seen.setdefault(pair_id, []).append((preference, consistent))
        return {pair_id: _over_repeats(given) for pair_id, given in seen.items()}

    head = info.header
    name = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    return Source({"run": info.run_id}, head["evalset"]["digest"], read, (name, head["rubric_text"]), said)


def evalset_source(evalset: Path, options: Mapping[str, Any]) -> Source:
    """The pairs of an eval set; ``options`` are ``candidate`` and ``baseline`` (answer files) and ``mapping``."""
    candidate, baseline = (Path(options[side]) if options.get(side) else None for side in ("candidate", "baseline"))
    checked = open_evalset(evalset, candidate=candidate, baseline=baseline, mapping=options.get("mapping"))
    return Source({"evalset": str(evalset.resolve()), "options": dict(options)}, checked.digest, checked.pairs)


def reopened(origin: Mapping[str, Any], store: Store) -> Source:
    """The source that a draw was made from."""
    if "run" in origin:
        return run_source(store, origin["run"])
    return evalset_source(Path(origin["evalset"]), origin["options"])


def _over_repeats(given: Sequence[tuple[float | None, bool | None]]) -> tuple[float | None, bool | None]:
    """Confidence of the mean preference of the repeats that have one, and whether all of those were consistent."""
    kept = [preference for preference, _ in given if preference is not None]
    if not kept:
        return None, None
    preference = sum(kept) / len(kept)
    return max(preference, 1 - preference), all(consistent for p, consistent in given if p is not None)


def _drawn(entry: Mapping[str, Any]) -> DrawRecord:
    if entry["t"] != "draw":
        raise ValueError(f"the first record is {entry['t']!r}")
    places = tuple(Place(**place) for place in entry["pairs"])
    drawing = Drawing(Request(**entry["request"]), entry["frame_size"], entry["frame_digest"], places)
    return DrawRecord(drawing, Subject(**entry["subject"]), entry["rubric_text"], entry["origin"])


def _grown(held: DrawRecord, entry: Mapping[str, Any]) -> DrawRecord:
    if entry["t"] != "extension":
        raise ValueError(f"a second record of kind {entry['t']!r}")
    drawing = held.drawing
    request = Request(**{**asdict(drawing.request), "n": entry["n"]})
    places = drawing.places + tuple(Place(**place) for place in entry["pairs"])
    larger = Drawing(request, drawing.frame_size, drawing.frame_digest, places)
    return DrawRecord(larger, held.subject, held.rubric_text, held.origin)


def _write(path: Path, entry: Mapping[str, Any]) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _mend(fd, path)
        _append(fd, json.dumps(dict(entry)))
    finally:
        os.close(fd)
    _sync_folder(path.parent)


def _append(fd: int, line: str) -> None:
    """Write a line and force it to the disk; where the disk is full, nothing of it stays."""
    size = os.fstat(fd).st_size
    data = line.encode() + b"\n"
    try:
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def _torn(data: bytes) -> int:
    """Bytes of a last line that is no whole JSON value; a whole one that only lacks its newline is kept."""
    tail = data[data.rfind(b"\n") + 1 :]
    try:
        json.loads(tail or b"0")
    except ValueError:
        return len(tail)
    return 0


def _mend(fd: int, path: Path) -> int:
    """Cut a torn last line, end a whole one that lacks its newline; returns the bytes that were cut."""
    data = path.read_bytes()
    torn = _torn(data)
    if torn:
        os.ftruncate(fd, len(data) - torn)
    elif data and not data.endswith(b"\n"):
        os.write(fd, b"\n")
    return torn


def _checked(data: bytes, path: Path) -> list[dict[str, Any]]:
    """The rows of a label file that ``GoldSet.read`` accepts."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; restore the file") from None
    GoldSet.from_lines(lines, where=str(path), source=path.stem)
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
    if any("response_a" in entry for entry in rows):
        raise InputError(
            f"{path}: this file holds pairs with texts, not a log of labels; label into another file (--to)"
        )
    return rows


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
