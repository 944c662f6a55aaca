"""What training data must not repeat: prompts of eval sets, runs, gold sets and frozen hard prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.errors import InputError
from judge.formats import Problem, read_rows

from .contamination import References, compared_text

if TYPE_CHECKING:
    from judge.store import Store

__all__ = ["FROZEN", "add_reference", "frozen_files", "full_name", "is_full_name", "texts_of"]

FROZEN = "frozen"
"""Folder of the home folder with what earlier rounds froze; data is always held against it."""
_PROMPTS = ("prompt", "instruction", "question", "input")


def add_reference(references: References, what: str, store: Store) -> int:
    """Add the prompts of a file or a run; returns how many. Raises ``InputError`` where there are none to compare with.

    They stand under ``full_name``. A label file of ``judge label`` holds no texts: they are read from where its pairs
    were drawn.
    """
    count = references.add(full_name(what, store), texts_of(what, store))
    if not count:
        raise InputError(f"--against {what}: there is no prompt in it to compare with")
    return count


def full_name(what: str, store: Store) -> str:
    """What names the same file or run later and from any folder: an absolute path, or the whole id of the run."""
    path = Path(what)
    return str(path.resolve()) if path.exists() else store.run(what).run_id


def is_full_name(what: str, store: Store) -> bool:
    """Whether a recorded name is such a one; ``latest``, or a path relative to a folder of then, may be another."""
    return Path(what).is_absolute() or any(run.run_id == what for run in store.runs())


def frozen_files(home: Path) -> list[Path]:
    """The frozen sets of a home folder."""
    return sorted((home / FROZEN).glob("*.jsonl"))


def texts_of(what: str, store: Store) -> Iterator[tuple[str, str]]:
    """Ids and prompts of a file or a run."""
    path = Path(what)
    if not path.exists():
        from judge.labels import run_source

        yield from _of_pairs(run_source(store, what).read())
        return
    for line, row in read_rows(path):
        if isinstance(row, Problem):
            raise InputError(f"--against {what}: {row}")
        if {"pair_id", "outcome"} <= row.keys():
            yield from _of_labels(path, store)
            return
        text = _prompt(row)
        if text is not None:
            yield str(row.get("id") or row.get("prompt_id") or f"line {line}"), text


def _prompt(row: Mapping[str, Any]) -> str | None:
    messages = row.get("messages")
    if isinstance(messages, list) and messages:
        return compared_text(tuple(turn for turn in messages if isinstance(turn, Mapping)))
    for name in _PROMPTS:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value:
            return compared_text(tuple(turn for turn in value if isinstance(turn, Mapping)))
    return None


def _of_labels(path: Path, store: Store) -> Iterator[tuple[str, str]]:
    from judge.labels import draw_path, read_draw, reopened

    record = read_draw(path)
    if record is None:
        raise InputError(
            f"--against {path}: these labels hold no texts, and there is no {draw_path(path).name} that says where "
            "their pairs lie; give the eval set or the run that they label"
        )
    wanted = {place.pair_id for place in record.drawing.places}
    yield from _of_pairs(pair for pair in reopened(record.origin, store).read() if pair.id in wanted)


def _of_pairs(pairs: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for pair in pairs:
        asked = tuple({"role": turn.role, "content": turn.content} for turn in pair.item.messages)
        yield pair.id, compared_text(asked or pair.item.prompt)
