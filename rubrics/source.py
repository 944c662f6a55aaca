"""From bytes to checked pieces: canonical text, front matter as plain data, body, line numbers and the digest.

The YAML that is read is a small, safe part of YAML: mappings with unique string keys, lists, strings, decimal numbers,
``true``, ``false`` and ``null``. Tags, anchors, aliases and merge keys are refused, and dates stay strings.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import RubricError
from .words import Problem

__all__ = ["MAX_BYTES", "MAX_DEPTH", "Malformed", "Source", "hidden_character", "read", "read_yaml"]

MAX_BYTES = 64 * 1024
"""Largest rubric file, in bytes."""
MAX_DEPTH = 8
"""Deepest nesting of the front matter."""

_FENCE = "---"
_BIDI_AND_BOM = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


class Malformed(RubricError):
    """A rubric file that cannot be read as one; ``problems`` lists every fault that was found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        more = len(problems) - 1
        rest = f" (and {more} more: judge rubric lint {problems[0].path})" if more else ""
        super().__init__(f"{problems[0]}{rest}")


@dataclass(frozen=True, slots=True)
class Source:
    """A rubric file taken apart.

    ``text`` is canonical (LF, no white space at the end but one newline), ``digest`` its SHA-256 without
    ``calibrated_on``, ``data`` the front matter and ``front`` its text, ``body_line`` the line of the file (from 1)
    where the body starts.
    """

    path: str
    text: str
    digest: str
    data: dict[str, Any]
    front: str
    body: str
    body_line: int
    root: yaml.MappingNode
    first: int = 2
    """The line of the file where the YAML begins."""

    def line(self, field: tuple[int | str, ...]) -> int:
        """The line of the file (from 1) where the field stands, or that of its closest parent that exists."""
        node: yaml.Node = self.root
        line = self.first
        for part in field:
            if isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == part), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + self.first, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + self.first
            else:
                break
        return line

    def problem(self, field: tuple[int | str, ...], message: str) -> Problem:
        """A ``Problem`` at the line of ``field``; ``("body",)`` stands for the Markdown below the front matter."""
        line = self.body_line if field == ("body",) else self.line(field)
        return Problem(self.path, line, ".".join(str(part) for part in field) or "front matter", message)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without tags, anchors, aliases, dates, merge keys and the many spellings of booleans."""

    depth = 0
    first = 2
    """The line of the file where the YAML begins."""
    deepest = MAX_DEPTH

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node; refuse what could hide or multiply content."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves it out
        fault = ""
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            fault = "anchors and aliases (& and *) are not allowed; write the value out, or quote it"
        elif event.tag:
            fault = f"tags are not allowed; remove or quote {event.tag!r}"
        elif self.depth >= self.deepest:
            fault = f"nested deeper than {self.deepest} levels; flatten it"
        if fault:
            raise yaml.MarkedYAMLError(problem=fault, problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; refuse a key that is not a string or comes twice."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key must be a plain word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} is given twice (first on line {seen[key.value]}); keep one",
                    problem_mark=key.start_mark,
                )
            seen[key.value] = key.start_mark.line + self.first
        return super().construct_mapping(node, deep=deep)


def _plain_scalars() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Implicit types by first character: null, true/false, decimal integers and decimal fractions; all else is a
    string.
    """
    kinds = (
        ("null", r"(?:~|null|)", ["~", "n", ""]),
        ("bool", r"(?:true|false)", ["t", "f"]),
        ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", list("-+0123456789")),
        ("float", r"[-+]?[0-9]{1,17}\.[0-9]{1,17}", list("-+0123456789")),
    )
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, starts in kinds:
        for start in starts:
            table.setdefault(start, []).append((f"tag:yaml.org,2002:{name}", re.compile(rf"^{pattern}$")))
    return table


_Loader.yaml_implicit_resolvers = _plain_scalars()


def hidden_character(text: str) -> tuple[int, str] | None:
    """Index and name of the first character that a reviewer would not see (control, surrogate, bidi mark, tag), or
    ``None``.

    Tab and newline are allowed.
    """
    if text.isascii() and text.isprintable():
        return None
    for index, char in enumerate(text):
        if char in "\n\t":
            continue
        if (
            char in _BIDI_AND_BOM
            or 0xE0000 <= ord(char) <= 0xE007F
            or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        ):
            return index, f"U+{ord(char):04X}"
    return None


def read(data: bytes, path: str) -> Source:
    """Take a rubric file apart; ``path`` is only used in messages. Raises ``Malformed``."""
    text = _canonical(data, path)
    front, body, body_line = _split(text, path)
    root, values = _front_matter(front, path)
    return Source(path, text, _digest(text, front, root, path), values, front, body, body_line, root)


def read_yaml(data: bytes, path: str, *, deepest: int = MAX_DEPTH) -> Source:
    """Take a file apart that is YAML from its first line (a policy, a suite); raises ``Malformed``.

    The same small YAML as a rubric's front matter; the digest is the SHA-256 of the canonical text.
    """
    text = _canonical(data, path)
    root, values = _front_matter(text, path, first=1, deepest=deepest)
    return Source(path, text, hashlib.sha256(text.encode()).hexdigest(), values, text, "", 1, root, first=1)


def _fail(path: str, line: int, field: str, message: str) -> Malformed:
    return Malformed((Problem(path, line, field, message),))


def _canonical(data: bytes, path: str) -> str:
    """UTF-8 text with LF line ends, no byte order mark and nothing invisible, ending in one newline."""
    if len(data) > MAX_BYTES:
        raise _fail(path, 1, "file", f"{len(data)} bytes; at most {MAX_BYTES} are read: shorten it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _fail(path, line, "file", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip() + "\n"
    if hidden := hidden_character(text):
        index, name = hidden
        raise _fail(path, text.count("\n", 0, index) + 1, "file", f"invisible character {name}; delete it")
    return text


def _split(text: str, path: str) -> tuple[str, str, int]:
    """Front matter, body, and the line on which the body starts."""
    lines = text.split("\n")
    if lines[0].rstrip() != _FENCE:
        raise _fail(path, 1, "front matter", f"missing; start the file with a line {_FENCE!r} and the YAML fields")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        raise _fail(path, 1, "front matter", f"not closed; put a line {_FENCE!r} after the YAML fields")
    start = next((number for number in range(end + 1, len(lines)) if lines[number].strip()), end)
    return "\n".join(lines[1:end]) + "\n", "\n".join(lines[start if start > end else end + 1 :]).strip(), start + 1


def _front_matter(
    front: str, path: str, *, first: int = 2, deepest: int = MAX_DEPTH
) -> tuple[yaml.MappingNode, dict[str, Any]]:
    loader = _Loader(front)
    loader.first, loader.deepest = first, deepest
    field = "front matter" if first > 1 else "file"
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode) or root.flow_style:
            raise _fail(path, first, field, "must be `key: value` lines, one a field")
        values: dict[str, Any] = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + first if mark else first
        raise _fail(path, line, field, f"not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise _fail(path, first, field, "not valid YAML: " + " ".join(str(error).split())) from error
    finally:
        loader.dispose()
    return root, values


def _digest(text: str, front: str, root: yaml.MappingNode, path: str) -> str:
    """SHA-256 of the canonical text, without ``calibrated_on``: a measurement of the rubric is not a change of it.

    The key must be the last of the front matter, so that what is left out is exactly its value.
    """
    keys = [key for key, _ in root.value]
    position = next((number for number, key in enumerate(keys) if key.value == "calibrated_on"), None)
    if position is not None:
        mark = keys[position].start_mark
        if position != len(keys) - 1 or mark.column:
            raise _fail(path, mark.line + 2, "calibrated_on", "must be the last key of the front matter; move it down")
        offset = text.index("\n") + 1
        text = text[: offset + mark.index] + text[offset + len(front) :]
    return hashlib.sha256(text.encode()).hexdigest()
