"""Reading an eval set as prompts: what a model is to be asked, without answers.

Only ``id`` and ``prompt`` or ``messages`` are needed, so the file that is judged later serves as it is; answers that
stand in it are not looked at. The sources of an item (``context``) are put before the prompt: before the text of the
last user turn each source as ``[source N]``, a line feed and its text, parted by empty lines. A system text becomes
the first turn. ``tools`` (a column, or a field of ``metadata``) and the fields of tool turns go to the model as they
are, in the form of OpenAI's chat completions (https://github.com/openai/openai-openapi,
``CreateChatCompletionRequest``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .cells import Bad as _Bad
from .errors import InputError
from .formats import Problem, _pair, _rows, listed_problems
from .layouts import FIELDS, Layouts, value_of

__all__ = ["Asking", "Prompt", "PromptSet", "item_seed", "open_prompts"]

_SENT = ("role", "content", "name", "tool_calls", "tool_call_id")
_TURNS = frozenset({"system", "developer", "user", "assistant", "tool"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """One conversation that a model is to continue: OpenAI chat messages, the tools it may call, and a seed of its own.

    ``messages`` are ``{"role", "content"}`` and, for tool turns, ``tool_calls``, ``tool_call_id`` and ``name``.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Asking:
    """How items become prompts: a system text, whether their sources are put before the prompt, the seed of the run."""

    system: str | None = None
    context: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A checked set of prompts; ``prompts`` streams it again from its file.

    ``digest`` covers ids, prompts, messages, sources and tools in order (sha256 hex), not how they are asked and no
    answers. ``with_context`` and ``with_tools`` count the items that have sources or tools.
    """

    source: Path
    digest: str
    rows: int
    problems: tuple[Problem, ...]
    with_context: int
    with_tools: int
    read: Callable[[], Iterator[tuple[int, _Row | Problem]]] = field(repr=False)

    def prompts(self, asking: Asking) -> Iterator[Prompt]:
        """Stream the usable prompts in file order; raises ``InputError`` at the end if they are not what was
        checked.
        """
        seen: set[str] = set()
        digest = hashlib.sha256()
        for _line, row in self.read():
            if isinstance(row, _Row) and row.id not in seen:
                seen.add(row.id)
                digest.update(row.canonical())
                yield row.prompt(asking)
        if digest.hexdigest() != self.digest:
            raise InputError(
                f"{self.source}: the eval set changed while it was read ({self.rows} rows before, {len(seen)} now); "
                "start again with another output"
            )


@dataclass(frozen=True, slots=True)
class _Row:
    """What of a row is asked."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    context: tuple[str, ...]
    tools: tuple[Mapping[str, Any], ...]

    def canonical(self) -> bytes:
        return orjson.dumps([self.id, self.messages, self.context, self.tools], default=str) + b"\n"

    def prompt(self, asking: Asking) -> Prompt:
        turns = [dict(turn) for turn in self.messages]
        if self.context and asking.context:
            last = next((turn for turn in reversed(turns) if turn["role"] == "user"), turns[-1])
            sources = [f"[source {number}]\n{text}" for number, text in enumerate(self.context, 1)]
            last["content"] = "\n\n".join([*sources, last["content"]])
        if asking.system is not None:
            turns.insert(0, {"role": "system", "content": asking.system})
        return Prompt(self.id, tuple(turns), self.tools, item_seed(asking.seed, self.id))


class _NoAnswer:
    """Stands where an eval set's reader looks answers up: they are what is about to be made."""

    def get(self, _name: str) -> Mapping[str, Any]:
        return {"text": ""}


def item_seed(seed: int, name: str) -> int:
    """The seed of one item: the first 31 bits of SHA-256 over the run's seed and the item's id.

    It depends on nothing else, so neither the order nor the number of items changes an answer.

    >>> item_seed(0, "q1") == item_seed(0, "q1") != item_seed(1, "q1")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def open_prompts(
    evalset: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
    system: bool = False,
) -> PromptSet:
    """Check the prompts of an eval set (JSONL, JSON, CSV or Parquet) and return a handle that streams them.

    ``mapping`` names columns (``{"prompt": "question_text"}``), ``limit`` takes the first rows only, ``system`` says
    that a system text will be put before each. Raises ``InputError`` for a file that cannot be read, an empty set, or
    (unless ``skip_bad``) rows that cannot be asked: no prompt, no id (answers are joined on it), a repeated id, a
    system turn of their own where ``system`` is given.
    """
    names = dict(mapping or {})
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise InputError(f"--map {unknown[0]}=...: unknown field; the fields are {', '.join(FIELDS)}")

    layouts = Layouts(names)

    def read() -> Iterator[tuple[int, _Row | Problem]]:
        for count, (line, _offset, row) in enumerate(_rows(evalset)):
            if limit is not None and count >= limit:
                return
            try:
                if isinstance(row, _Bad):
                    raise row
                yield line, _asked(row, names, layouts, system=system)
            except _Bad as bad:
                yield line, Problem(str(evalset), line, bad.kind, str(bad))

    problems: list[Problem] = []
    seen: dict[str, int] = {}
    digest = hashlib.sha256()
    with_context = with_tools = 0
    for line, found in read():
        if isinstance(found, Problem):
            problems.append(found)
        elif found.id in seen:
            known = f"id {found.id!r} stands already on line {seen[found.id]}"
            problems.append(Problem(str(evalset), line, "duplicate", known))
        else:
            seen[found.id] = line
            digest.update(found.canonical())
            with_context += bool(found.context)
            with_tools += bool(found.tools)
    if problems and (not skip_bad or not seen):
        raise InputError(_refusal(evalset, problems, len(seen)))
    if not seen:
        raise InputError(f"{evalset}: the eval set is empty; it needs at least one row with an id and a prompt")
    return PromptSet(evalset, digest.hexdigest(), len(seen), tuple(problems), with_context, with_tools, read)


def _asked(row: Mapping[str, Any], names: Mapping[str, str], layouts: Layouts, *, system: bool) -> _Row:
    given = value_of(row, "messages", names)
    sides: Any = {"candidate": _NoAnswer(), "baseline": _NoAnswer()}
    pair = _pair(row, layouts, sides)
    item = pair.item
    if not item.messages:
        turns: tuple[Mapping[str, Any], ...] = ({"role": "user", "content": item.prompt},)
    else:
        turns = tuple(
            {**{key: turn[key] for key in _SENT if turn.get(key) is not None}, "role": message.role}
            for turn, message in zip(given, item.messages, strict=True)
        )
        strange = next((turn["role"] for turn in turns if turn["role"] not in _TURNS), None)
        if strange is not None:
            raise _Bad("malformed", f"'messages' has the role {strange!r}; use {', '.join(sorted(_TURNS))}")
    if turns[-1]["role"] == "assistant":
        raise _Bad("malformed", "'messages' ends with an assistant turn: there is nothing to answer")
    if system and any(turn["role"] in ("system", "developer") for turn in turns):
        raise _Bad("conflict", "has a system turn of its own and --system is given; leave one of them out")
    return _Row(pair.id, turns, item.context, _tools(row, item.metadata, names))


def _tools(row: Mapping[str, Any], metadata: Mapping[str, Any], names: Mapping[str, str]) -> tuple[Any, ...]:
    """Tool definitions from the column ``tools`` or the item's metadata; a CSV cell holds them as JSON."""
    value = row.get(names.get("tools", "tools"))
    if value is None:
        value = metadata.get("tools")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _Bad("malformed", "'tools' is not JSON") from None
    if value is None or value in ("", []):
        return ()
    if not isinstance(value, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("function", tool), dict) and tool.get("type") for tool in value
    ):
        raise _Bad("malformed", "'tools' is not a list of {type, function: {name, parameters}}")
    return tuple(value)


def _refusal(evalset: Path, problems: list[Problem], usable: int) -> str:
    kinds: dict[str, int] = {}
    for problem in problems:
        kinds[problem.kind] = kinds.get(problem.kind, 0) + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    rows = "1 row" if len(problems) == 1 else f"{len(problems)} rows"
    lines = [f"{evalset}: {rows} cannot be asked ({counts}), {usable} can:"]
    lines += listed_problems(problems)
    lines.append(
        "correct them, or pass --skip-bad to ask the usable rows"
        if usable
        else "name the columns with --map, for example --map prompt=question_text"
    )
    return "\n".join(lines)
