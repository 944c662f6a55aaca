"""Where rubrics are found: the shipped ones by name, a user's own by path, both held to the digests in
``frozen.json``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from .errors import RubricError
from .model import NAME, Rubric, parse
from .source import MAX_BYTES

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "FROZEN",
    "Found",
    "edited",
    "frozen",
    "frozen_file",
    "is_path",
    "load",
    "locate",
    "names",
    "read_frozen",
    "shipped",
    "versions",
]

FROZEN = "frozen.json"
_VERSION_FILE = re.compile(r"v([1-9][0-9]{0,3})\.md")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A rubric file found.

    ``path`` is as a user would type it, ``file`` is ``None`` for a shipped one, and ``place`` is the ref that a place
    ``<name>/v<N>.md`` stands for (empty elsewhere).
    """

    path: str
    data: bytes
    file: Path | None
    place: str


def shipped() -> Traversable:
    """The folder of the shipped rubrics (the package itself)."""
    return files(__package__ or "rubrics")


def names() -> tuple[str, ...]:
    """Names of the shipped rubrics, sorted."""
    return tuple(sorted(room.name for room in shipped().iterdir() if re.fullmatch(NAME, room.name) and _numbers(room)))


def versions(name: str) -> tuple[int, ...]:
    """Versions of a shipped rubric, drafts included, ascending. Raises ``RubricError`` for an unknown name."""
    if name not in names():
        raise _unknown(name)
    return tuple(_numbers(shipped() / name))


def load(ref: str | Path) -> Rubric:
    """Read a rubric: ``"helpfulness@1"``, ``"helpfulness"`` (its latest released version), or a file of your own.

    A ``Path``, and a string that ends in ``.md`` or holds a path separator, is a file. A shipped file must have the
    digest that ``frozen.json`` gives it; a file of your own is held to a ``frozen.json`` in its folder or the folder
    above, if any.

    Raises ``RubricError``: unknown name or version, a file that cannot be read, or one that was edited after its
    release.
    """
    found = locate(ref)
    rubric = parse(found.data, path=found.path)
    if fault := edited(found, rubric):
        raise RubricError(fault)
    if found.file is None and str(rubric.ref) != found.place:
        name, _, number = found.place.partition("@")
        raise RubricError(f"{found.path}: says {rubric.ref}; set `name: {name}` and `version: {number}`")
    return rubric.model_copy(update={"released": str(rubric.ref) in frozen(found, rubric.name)})


def locate(ref: str | Path) -> Found:
    """The file behind a ref or a path, read but not checked. Raises ``RubricError`` where there is none."""
    if isinstance(ref, Path) or is_path(ref):
        file = Path(ref)
        match = _VERSION_FILE.fullmatch(file.name)
        place = f"{file.absolute().parent.name}@{match[1]}" if match else ""
        return Found(path=str(ref), data=_read(file), file=file, place=place)
    name, at, number = ref.partition("@")
    known = versions(name)
    if at:
        if number not in map(str, known):
            have = ", ".join(f"{name}@{version}" for version in known)
            raise RubricError(f"rubric {ref!r}: no such version; known: {have}")
        version = int(number)
    else:
        table = read_frozen(shipped() / FROZEN)
        released = [version for version in known if f"{name}@{version}" in table]
        if not released:
            raise RubricError(f"rubric {name!r}: no released version; name the draft, as in {name}@{known[-1]}")
        version = released[-1]
    path = shipped() / name / f"v{version}.md"
    return Found(path=_shown(path), data=path.read_bytes(), file=None, place=f"{name}@{version}")


def frozen(found: Found, name: str) -> dict[str, str]:
    """The digests that hold a file, by ``name@version``."""
    return read_frozen(shipped() / FROZEN if found.file is None else frozen_file(found.file, name))


def edited(found: Found, rubric: Rubric) -> str | None:
    """What to do about a file that was edited after its release; ``None`` where it was not.

    The place counts before what the file says, so that an edit of its name or version is seen too.
    """
    table = frozen(found, rubric.name)
    ref = found.place if found.place in table else str(rubric.ref)
    digest = table.get(ref, rubric.digest)
    if digest == rubric.digest:
        return None
    path = quote(found.path)
    again = " (or reinstall touchstone-judge)" if found.file is None else ""
    start = f"judge rubric new {ref.partition('@')[0]} --from {path}"
    return (
        f"{found.path}: {ref} was released and then edited (frozen {digest[:12]}, file {rubric.digest[:12]}). "
        f"Either restore it with `git checkout -- {path}`{again}, or keep the edit as the next version: "
        f"`{start}` copies the file to a new draft; then restore this one and run `judge rubric release` on the draft."
    )


def is_path(ref: str) -> bool:
    """Whether a string names a file rather than a shipped rubric."""
    return ref.endswith(".md") or any(mark in ref for mark in ("/", os.sep, os.altsep) if mark)


def _read(path: Path) -> bytes:
    """The bytes of a user's rubric file. Raises ``RubricError`` where it is missing, no plain file, or over the size
    limit.
    """
    try:
        if not path.is_file():
            what = "is not a plain file" if path.exists() else "does not exist"
            raise RubricError(
                f"rubric file {path}: {what}; give the path of a .md file, or a name: {', '.join(names())}"
            )
        with path.open("rb") as handle:
            return handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, RubricError):
            raise
        raise RubricError(
            f"rubric file {path}: cannot be read ({error}); check the path and its permissions"
        ) from error


def frozen_file(path: Path, name: str) -> Path:
    """The ``frozen.json`` that holds a user's file: an existing one in its folder or the one above, else where a new
    one goes.

    A new one stands beside the folder ``<name>/`` where the file lies in such a folder, otherwise beside the file.
    """
    folder = path.absolute().parent
    for place in (folder, folder.parent):
        if (place / FROZEN).is_file():
            return place / FROZEN
    return (folder.parent if folder.name == name else folder) / FROZEN


def read_frozen(path: Traversable) -> dict[str, str]:
    """Digests by ``name@version``; empty where there is no such file. Raises ``RubricError`` where it is damaged."""
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RubricError(
            f"{path}: cannot be read as JSON ({error}); restore it with `git checkout -- {path}`"
        ) from error
    if not isinstance(table, dict) or not all(
        isinstance(digest, str) and _HEX.fullmatch(digest) for digest in table.values()
    ):
        raise RubricError(f"{path}: must map name@version to a SHA-256; restore it with `git checkout -- {path}`")
    return table


def _numbers(room: Traversable) -> list[int]:
    """Versions in one folder, ascending."""
    if not room.is_dir():
        return []
    return sorted(int(found[1]) for file in room.iterdir() if (found := _VERSION_FILE.fullmatch(file.name)))


def _shown(path: Traversable) -> str:
    """A shipped file as the user would type it: relative to the working folder where it lies below it."""
    if not isinstance(path, Path):
        return str(path)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _unknown(name: str) -> RubricError:
    known = names()
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return RubricError(
        f"unknown rubric {name!r}{hint}; known: {', '.join(known)}; a file of your own is given by its path"
    )
