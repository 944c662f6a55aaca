"""Labelling in Label Studio or Argilla: tasks out, with shuffled sides and without a model's name; labels back in.

Which answer stands first is a coin from a seed and the pair's id; it stands in ``<file>.key.jsonl``, which stays with
you. The tool sees a task's number, the request and two answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from ..formats import Problem, read_rows
from ..labelling import candidate_first
from .rows import BadRow, Found, Options, Row, tried, write_file

__all__ = ["LABEL_CONFIG", "key_path", "read_argilla", "read_label_studio", "write_argilla", "write_label_studio"]

LABEL_CONFIG = """<View>
  <Header value="Which answer is better?"/>
  <Text name="request" value="$request"/>
  <View style="display: flex">
    <View style="margin-right: 2em; width: 50%"><Text name="first" value="$first"/></View>
    <View style="width: 50%"><Text name="second" value="$second"/></View>
  </View>
  <Choices name="preference" toName="first" choice="single" required="true">
    <Choice value="first"/><Choice value="tie"/><Choice value="second"/>
  </Choices>
  <TextArea name="why" toName="first" placeholder="why"/>
</View>
"""
"""The labelling interface of Label Studio for these tasks (it has no tie in its ``Pairwise`` tag)."""

_CHOICES = {"first": "first", "left": "first", "second": "second", "right": "second", "tie": "tie", "both_bad": "tie"}


def key_path(path: Path) -> Path:
    """Where the key of a task file stands: ``tasks.json`` has ``tasks.key.jsonl``."""
    return path.with_name(f"{path.stem}.key.jsonl")


def write_label_studio(path: Path, rows: Iterable[Row], options: Options) -> int:
    """Write tasks for Label Studio, the key and the interface (``<file>.xml``) beside them."""
    count = _write(path, rows, options, lambda task, shown: {"data": {"task": task, **shown}})
    path.with_suffix(".xml").write_text(LABEL_CONFIG, encoding="utf-8")
    return count


def write_argilla(path: Path, rows: Iterable[Row], options: Options) -> int:
    """Write records for Argilla (fields ``request``, ``first``, ``second``; question ``preference``), and the key."""
    return _write(path, rows, options, lambda task, shown: {"id": task, "fields": shown})


def read_label_studio(path: Path, options: Options) -> Iterator[Found]:
    """Labels of an export of Label Studio: one row for each annotation that was not cancelled."""
    return _read(path, options, _label_studio)


def read_argilla(path: Path, options: Options) -> Iterator[Found]:
    """Labels of an export of Argilla: one row for each submitted response."""
    return _read(path, options, _argilla)


def _write(path: Path, rows: Iterable[Row], options: Options, shape: Callable[[str, Row], Row]) -> int:
    key: list[Row] = []

    def tasks() -> Iterator[Row]:
        for row in rows:
            name = str(row["id"])
            task = hashlib.sha256(f"task:{options.seed}:{name}".encode()).hexdigest()[:12]
            first = candidate_first(options.seed, name, "")
            texts = [_text(row[side]) for side in ("candidate", "baseline")]
            asked = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in row.get("messages") or ())
            shown = {"request": asked or row.get("prompt", "")}
            for number, source in enumerate(_sources(row), 1):
                shown["request"] += f"\n\n[source {number}]\n{source}"
            shown |= dict(zip(("first", "second"), texts if first else texts[::-1], strict=True))
            names = {
                side: row[side]["model"]
                for side in ("candidate", "baseline")
                if isinstance(row[side], Mapping) and row[side].get("model")
            }
            key.append({"task": task, "pair_id": name, "shown_first": "candidate" if first else "baseline",
                        "texts": _digest(shown), **names})  # fmt: skip
            yield shape(task, shown)

    count = write_file(path, tasks())
    write_file(key_path(path), key)
    return count


def _read(path: Path, options: Options, labels: Callable[[Mapping[str, Any]], Iterator[Row]]) -> Iterator[Found]:
    if options.key is None:
        raise InputError(f"{path}: --key FILE is needed: it says which answer stood first (written beside the tasks)")
    key = {str(row["task"]): row for _line, row in read_rows(options.key) if not isinstance(row, Problem)}
    for line, task in read_rows(path):
        if isinstance(task, Problem):
            yield line, task
            continue
        number, found = tried(path, line, partial(_of_task, task, key, options.key, labels))
        if isinstance(found, Problem):
            yield number, found
        else:
            yield from ((number, row) for row in found["labels"])


def _of_task(
    task: Mapping[str, Any],
    key: Mapping[str, Mapping[str, Any]],
    file: Path,
    labels: Callable[[Mapping[str, Any]], Iterator[Row]],
) -> Row:
    """The label rows of one task, under ``labels``; raises ``BadRow`` where it is not one of ours, or has none."""
    shown: Mapping[str, Any] = task.get("data") or task.get("fields") or {}
    name = shown.get("task", task.get("id"))
    held = key.get(str(name))
    if held is None:
        raise BadRow("unmatched", f"task {name!r} is not in {file}")
    texts = {field: shown[field] for field in ("request", "first", "second") if field in shown}
    if _digest(texts) != held["texts"]:
        raise BadRow("unmatched", f"task {name!r} shows other texts than were written")
    found = list(labels(task))
    if not found:
        raise BadRow("other", f"task {name!r} has no label yet")
    return {"labels": [{"id": f"{held['pair_id']}:{label['annotator']}", **_outcome(label, held)} for label in found]}


def _outcome(label: Row, held: Mapping[str, Any]) -> Row:
    choice = label.pop("choice")
    better = {"first": True, "second": False}.get(choice)
    outcome = "tie" if better is None else "win" if better == (held["shown_first"] == "candidate") else "loss"
    names = {side: held[side] for side in ("candidate", "baseline") if side in held}
    return {"pair_id": held["pair_id"], "outcome": outcome, "shown_first": held["shown_first"], **label, **names}


def _label_studio(task: Mapping[str, Any]) -> Iterator[Row]:
    for annotation in task.get("annotations") or ():
        if annotation.get("was_cancelled"):
            continue
        choice, why = None, ""
        for result in annotation.get("result") or ():
            value = result.get("value") or {}
            choice = value.get("selected") or next(iter(value.get("choices") or ()), choice)
            why = " ".join(value.get("text") or ()) if isinstance(value.get("text"), list) else why
        who = annotation.get("completed_by")
        who = who.get("email") or who.get("id") if isinstance(who, Mapping) else who
        yield _label(choice, who, annotation.get("created_at"), why)


def _argilla(record: Mapping[str, Any]) -> Iterator[Row]:
    given = (record.get("responses") or {}).get("preference") or ()
    for response in given:
        if response.get("status", "submitted") == "submitted":
            yield _label(response.get("value"), response.get("user_id"), response.get("inserted_at"), "")


def _label(choice: Any, who: Any, at: Any, why: str) -> Row:
    if choice not in _CHOICES:
        raise BadRow("malformed", f"the choice is {choice!r}; use {', '.join(_CHOICES)}")
    if who in (None, ""):
        raise BadRow("missing", "nobody is named as the annotator")
    row: Row = {"annotator": str(who), "choice": _CHOICES[str(choice)]}
    return row | ({"at": str(at)} if at else {}) | ({"rationale": why} if why else {})


def _text(side: Any) -> str:
    return side if isinstance(side, str) else str(side.get("text", ""))


def _sources(row: Mapping[str, Any]) -> list[str]:
    context = row.get("context") or []
    return [context] if isinstance(context, str) else list(context)


def _digest(shown: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(shown), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
