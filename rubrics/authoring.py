"""Writing rubrics: ``new`` starts a draft, ``lint`` finds what is wrong with it, ``release`` freezes it for good."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import yaml

from .errors import RubricError
from .library import FROZEN, Found, edited, frozen, frozen_file, locate, names, read_frozen, shipped, versions
from .model import NAME, Rubric, from_source
from .source import Malformed, Source, read
from .words import Problem, RubricRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_WORDS", "lint", "new", "release"]

MAX_WORDS = 450
"""Longest body, in words: the answers must still fit into a small judge's context."""

_DRAFT = "FILL IN"
_LETTER = re.compile(r"\b(?i:answer|response|assistant|option|output)s?\s+\(?[AB12]\b|\[\[")
_VERSION_FILE = re.compile(r"v(\d+)\.md")
_MENTION = {
    "reference": re.compile(r"\breference", re.IGNORECASE),
    "context": re.compile(r"\b(?:source|context)", re.IGNORECASE),
}


def new(name: str, folder: Path, *, from_ref: str | Path | None = None) -> Path:
    """Write a draft to ``folder/<name>/v<N>.md`` and return its path; never overwrites.

    The text is that of ``from_ref`` where given, else the latest version in ``folder/<name>``, else the latest shipped
    rubric of this name, else a commented skeleton. N follows every version of this name in the folder and among the
    shipped ones, so a draft never takes a ref that exists. Files are copied as they stand: this is how an edit of a
    released file is kept.

    Raises ``RubricError``: a name that is no name, a ``from_ref`` that cannot be read, a folder that cannot be written.
    """
    if not re.fullmatch(NAME, name) or len(name) > 64:
        raise RubricError(f"rubric name {name!r}: use lower-case words joined by hyphens, such as tone-of-voice")
    room = folder / name
    own = sorted(int(match[1]) for file in room.glob("v*.md") if (match := _VERSION_FILE.fullmatch(file.name)))
    taken = [*own, *(versions(name) if name in names() else ())]
    start: str | Path | None = from_ref
    if start is None and own:
        start = room / f"v{own[-1]}.md"
    elif start is None and taken:
        start = f"{name}@{taken[-1]}"
    if start is None:
        text = (shipped() / "skeleton.md").read_text("utf-8").replace("NAME", name)
    else:
        found = locate(start)
        source = read(found.data, found.path)
        origin = from_source(source)
        taken += [origin.version] if origin.name == name else []
        text = _next_version(source, origin, name, max(taken, default=0) + 1)
    path = room / f"v{max(taken, default=0) + 1}.md"
    try:
        room.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
    except OSError as error:
        raise RubricError(f"{path}: cannot be written ({error}); give another folder") from error
    return path


def lint(ref: str | Path) -> list[Problem]:
    """Every fault of a rubric file, in the order of the file; empty where it is ready for release.

    Raises ``RubricError`` only where there is no such file to read.
    """
    found = locate(ref)
    try:
        source = read(found.data, found.path)
        rubric = from_source(source)
    except Malformed as error:
        return sorted(error.problems, key=lambda problem: problem.line)
    problems = [problem for rule in _RULES for problem in rule(found, source, rubric)]
    return sorted(problems, key=lambda problem: problem.line)


def release(path: Path) -> RubricRef:
    """Freeze a draft: write its digest into the ``frozen.json`` beside it, and return its ref. Doing it twice changes
    nothing.

    The file that is written is an existing ``frozen.json`` in the folder or the one above, else a new one (see
    ``library.frozen_file``); it is replaced as a whole or not at all.

    Raises ``RubricError``: the file has problems, or this version was released with another text.
    """
    if problems := lint(path):
        more = f" (and {len(problems) - 1} more: judge rubric lint {path})" if len(problems) > 1 else ""
        raise RubricError(f"not released: {problems[0]}{more}")
    found = locate(path)
    rubric = from_source(read(found.data, found.path))
    target = frozen_file(path, rubric.name)
    table = read_frozen(target)
    if table.get(str(rubric.ref)) != rubric.digest:
        table[str(rubric.ref)] = rubric.digest
        _replace(target, json.dumps(dict(sorted(table.items())), indent=2) + "\n")
    return rubric.ref


def _next_version(source: Source, origin: Rubric, name: str, version: int) -> str:
    """The text under a new name and version, without ``calibrated_on`` and with a changelog entry to fill in."""
    start = source.text.index("\n") + 1
    end = start + len(source.front)
    keys = [*((key.value, key.start_mark.index, value) for key, value in source.root.value), ("", end - start, None)]
    front = ""
    for (key, begin, value), (_, until, _) in pairwise(keys):
        piece = source.text[start + begin : start + until]
        if key in {"name", "version"} and value is not None:
            rest = source.text[start + value.end_mark.index : start + until]
            front += f"{key}: {name if key == 'name' else version}{rest}"
        elif key not in {"changelog", "calibrated_on"}:
            front += piece
    history = list(origin.changelog) if origin.name == name else []
    history.append(f"v{version}: {_DRAFT} what changed since {origin.ref} and why.")
    changelog = "changelog:\n" + indent(yaml.safe_dump(history, allow_unicode=True, width=116), "  ")
    head = source.text[start : start + keys[0][1]]
    return source.text[:start] + head + front + changelog + source.text[end:]


def _replace(path: Path, text: str) -> None:
    """Write beside, flush to disk, then rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with beside.open("w", encoding="utf-8", newline="\n") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise RubricError(f"{path}: cannot be written ({error}); free the disk or fix its permissions") from error


def _place(found: Found, source: Source, rubric: Rubric) -> Iterator[Problem]:
    """A file ``<name>/v<N>.md`` says the same inside."""
    path = Path(found.path).absolute()
    if match := _VERSION_FILE.fullmatch(path.name):
        if int(match[1]) != rubric.version:
            yield source.problem(("version",), f"is {rubric.version} in a file called {path.name}; make them agree")
        if path.parent.name != rubric.name and (path.parent.parent / FROZEN).is_file():
            yield source.problem(("name",), f"is {rubric.name} in the folder {path.parent.name}; make them agree")


def _identity(found: Found, source: Source, rubric: Rubric) -> Iterator[Problem]:
    """A released text is not edited, and a ref that is shipped means the shipped text."""
    if fault := edited(found, rubric):
        yield source.problem(("version",), fault.removeprefix(f"{found.path}: "))
        return
    other = read_frozen(shipped() / FROZEN).get(str(rubric.ref))
    if other not in {None, rubric.digest} and str(rubric.ref) not in frozen(found, rubric.name):
        yield source.problem(
            ("version",), f"{rubric.ref} is a shipped rubric with another text; take another name or version"
        )


def _drafted(found: Found, source: Source, rubric: Rubric) -> Iterator[Problem]:
    """Nothing of the skeleton is left to fill in, and the changelog speaks of this version."""
    for number, line in enumerate(source.text.split("\n"), 1):
        if _DRAFT in line:
            yield Problem(found.path, number, "draft", f"still says {_DRAFT!r}; write it out")
    if not rubric.changelog or not rubric.changelog[-1].startswith(f"v{rubric.version}: "):
        yield source.problem(("changelog",), f'the last entry must say what changed: - "v{rubric.version}: ..."')


def _readable(found: Found, source: Source, rubric: Rubric) -> Iterator[Problem]:
    """The body is short, speaks of places and not of letters, and of the inputs that it uses."""
    words = len(rubric.body.split())
    if words > MAX_WORDS:
        yield source.problem(
            ("body",), f"{words} words; at most {MAX_WORDS}, so that the answers fit beside it: shorten it"
        )
    for number, line in enumerate(source.text.split("\n"), 1):
        if letter := _LETTER.search(line):
            yield Problem(
                found.path,
                number,
                "text",
                f"{letter[0]!r}: labels are drawn anew for every prompt; write 'the first "
                "answer', 'the second answer', 'one answer', 'the other'",
            )
    for used in rubric.uses:
        if not _MENTION[used].search(rubric.body):
            yield source.problem(("uses",), f"{used}: the body never says what to do with it; say so or remove it")


def _examples(found: Found, source: Source, rubric: Rubric) -> Iterator[Problem]:
    """Examples are there, show more than one outcome, and do not contradict themselves."""
    if len(rubric.examples) < 2:
        yield source.problem(("examples",), f"{len(rubric.examples)}; give at least two, with different outcomes")
    elif len({example.better for example in rubric.examples}) == 1:
        yield source.problem(("examples",), f"all say {rubric.examples[0].better!r}, which teaches a place; swap one")
    for position, example in enumerate(rubric.examples):
        if example.first == example.second and example.better != "tie":
            yield source.problem(("examples", position, "better"), "must be tie: both answers are the same")


_RULES: tuple[Callable[[Found, Source, Rubric], Iterator[Problem]], ...] = (
    _place,
    _identity,
    _drafted,
    _readable,
    _examples,
)
