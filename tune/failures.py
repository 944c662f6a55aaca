"""Failures of production and of the gate as the next round's cases, each with where it comes from.

A failure is used once: a coin from its prompt says whether it is frozen (a hard prompt that every later candidate is
measured on, and that no training set may repeat) or goes to the label queue, from where it may become training data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from judge.checks.cases import case_lines, freeze
from judge.errors import InputError
from judge.exchange.rows import write_file
from judge.types import Item, Message
from judge.writing import whole

from .contamination import References, compared_text
from .intake import signal_of
from .preferences import said_text

if TYPE_CHECKING:
    from judge.register import Entry
    from judge.store import RunInfo, Store

__all__ = [
    "Case",
    "Cases",
    "collect",
    "from_decision",
    "from_run",
    "from_traces",
    "never_again",
    "save",
    "suite_path",
]

_NAME = re.compile(r"[\w.@-]+")
_ITEM = ("prompt", "messages", "context", "category", "tags", "tools")
_LONGEST_CHECK = 2_000
"""Characters of a failed answer that a check remembers."""
_SHORT = 60
"""Characters below which a failed answer may be part of a good one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One failure: the prompt and its sources, the answer that failed, the better one where known, and the origin.

    ``origin`` holds ``source``, ``date`` and ``why`` (as frozen cases need them) and the ids behind it: run, decision,
    pair or trace.
    """

    id: str
    item: Mapping[str, Any]
    failed: str
    better: str
    origin: Mapping[str, str]
    checks: tuple[Mapping[str, Any], ...] = ()

    @property
    def text(self) -> str:
        """The prompt as it is compared."""
        messages = self.item.get("messages")
        return compared_text(tuple(messages) if messages else str(self.item.get("prompt", "")))

    def frozen(self, share: float) -> bool:
        """Whether the coin of this prompt says frozen; the same prompt always gets the same side."""
        words = " ".join(self.text.lower().split())
        digest = hashlib.sha256(f"freeze:{words}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    def to_row(self, use: str) -> dict[str, Any]:
        """The case as a row of an eval set, the failed answer as its baseline. A frozen one is a known-failure case
        (``judge.checks.cases``): it has the checks that must hold, and the digest of what may not be edited.
        """
        more = {"baseline": {"text": self.failed}, "use": use} | ({"better": self.better} if self.better else {})
        if use == "frozen":
            row = freeze(self.id, self._as_item(), self.origin)
            kept = {name: self.item[name] for name in ("reference", "metadata") if name in self.item}
            return row | kept | more
        checks = {"checks": [dict(check) for check in self.checks]} if self.checks else {}
        return {"id": self.id, **self.item, **checks, "origin": dict(self.origin)} | more

    def _as_item(self) -> Item:
        turns = self.item.get("messages") or ()
        return Item(
            prompt="" if turns else str(self.item.get("prompt", "")),
            messages=tuple(Message(str(turn.get("role", "")), said_text((turn,))) for turn in turns),
            category=str(self.item.get("category", "")),
            tags=tuple(self.item.get("tags", ())),
            context=tuple(self.item.get("context", ())),
            tools=tuple(self.item.get("tools", ())),
            checks=(*self.checks, never_again(self.failed)),
        )


@dataclass(frozen=True, slots=True)
class Cases:
    """What was collected: frozen cases, those for the label queue, and what was left out, by why."""

    frozen: tuple[Case, ...]
    queue: tuple[Case, ...]
    left: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frozen) + len(self.queue)


def never_again(failed: str) -> dict[str, Any]:
    """The check that an answer which failed must not come again, as an item carries it.

    A long answer may not stand anywhere in the new one (of a very long one its first part). A short one ("No.") may
    well be part of a good answer: there the new answer may not be it, word for word. After an empty one, any text.
    """
    text = failed.strip()
    if not text:
        return {"check": "not-empty", "id": "known-failure"}
    if len(text) < _SHORT:
        pattern = rf"\A\s*{re.escape(text)}\s*\Z"
        return {"check": "regex", "id": "known-failure", "with": {"pattern": pattern, "absent": True, "flags": "i"}}
    return {"check": "not-contains", "id": "known-failure", "with": {"texts": [text[:_LONGEST_CHECK].rstrip()]}}


def from_run(store: Store, info: RunInfo, *, date: str, decision: str = "", sure: float = 0.6) -> Iterator[Case]:
    """The pairs of a run that the candidate lost: both orders agree, and the preference is at most 1 - ``sure``."""
    frame = store.comparisons(info.run_id)
    lost: dict[str, list[tuple[float, bool, str]]] = {}
    for row in frame.iter_rows(named=True):
        if row["preference"] is not None:
            said = (row["preference"], bool(row["consistent"]), row["rationale"] or "")
            lost.setdefault(row["pair_id"], []).append(said)
    names = [
        pair_id
        for pair_id, said in lost.items()
        if all(consistent for _p, consistent, _why in said) and sum(p for p, _c, _w in said) / len(said) <= 1 - sure
    ]
    source = f"decision {decision} on run {info.run_id}" if decision else f"run {info.run_id}"
    for pair in store.pairs(info.run_id, names):
        why = next((reason for _p, _c, reason in lost[pair.id] if reason), "")
        origin = {
            "source": source, "date": date, "kind": "gate" if decision else "run", "run": info.run_id, "pair": pair.id,
            "why": why or f"the candidate lost under {info.header['rubric']} in both orders",
        }  # fmt: skip
        yield Case(f"{info.run_id}-{pair.id}", _item(pair), pair.candidate.text, pair.baseline.text,
                   origin | ({"decision": decision} if decision else {}))  # fmt: skip


def from_decision(store: Store, entry: Entry, *, date: str, sure: float = 0.6) -> Iterator[Case]:
    """What a decision stood on: the pairs that its run lost, and those that its rulings name as examples."""
    if entry.kind != "decision":
        raise InputError(f"{entry.id} is no decision")
    info = store.run(str(entry.body.get("run_id") or entry.subject))
    word = str(entry.body.get("word", "")).upper()
    seen: set[str] = set()
    for case in from_run(store, info, date=date, decision=entry.id, sure=sure):
        seen.add(case.origin["pair"])
        yield case
    named: dict[str, str] = {}
    for ruling in entry.body.get("rulings") or ():
        # A ruling that stands in nobody's way names no failure.
        if isinstance(ruling, Mapping) and str(ruling.get("effect", "")).upper() != "SHIP":
            for name in ruling.get("pairs") or ():
                named.setdefault(str(name), f"{ruling.get('rule', 'a rule')}: {ruling.get('says', '')}")
    for pair in store.pairs(info.run_id, [name for name in named if name not in seen]):
        origin = {
            "source": f"decision {entry.id} on run {info.run_id}", "date": date, "kind": "gate", "run": info.run_id,
            "decision": entry.id, "pair": pair.id, "why": f"{word or 'held'}: {named[pair.id]}",
        }  # fmt: skip
        yield Case(f"{info.run_id}-{pair.id}", _item(pair), pair.candidate.text, pair.baseline.text, origin)


def from_traces(rows: Iterable[Mapping[str, Any]], *, source: str, date: str) -> Iterator[Case]:
    """Traces that users found bad (``intake.signal_of``), with the better answer where an action holds one."""
    for row in rows:
        answer = row.get("answer")
        if signal_of(row) != "bad" or not isinstance(answer, Mapping) or not (row.get("prompt") or row.get("messages")):
            continue
        actions = [action for action in row.get("actions") or () if isinstance(action, Mapping)]
        better = next((action["text"] for action in actions if isinstance(action.get("text"), str)), "")
        said = [f"user: {action.get('kind')}" for action in actions]
        said += [f"{score.get('name', 'score')} {score.get('value')}" for score in row.get("feedback") or ()
                 if isinstance(score, Mapping)]  # fmt: skip
        item = {name: row[name] for name in _ITEM if row.get(name)}
        when = str(row.get("at") or date)
        origin = {"source": source, "date": when, "kind": "production", "trace": str(row.get("id")),
                  "why": "; ".join(said)}  # fmt: skip
        yield Case(f"trace-{row.get('id')}", item, str(answer.get("text", "")), better, origin)


def collect(found: Iterable[Case], home: Path, *, share: float) -> Cases:
    """Put cases to their use: one of each prompt, none that is frozen already (exactly or nearly)."""
    from judge.formats import Problem, read_rows

    from .references import frozen_files

    held = References()
    for path in frozen_files(home):
        rows = [row for _line, row in read_rows(path) if not isinstance(row, Problem)]
        texts = ((str(row.get("id")), compared_text(row.get("messages") or str(row.get("prompt", "")))) for row in rows)
        held.add(str(path), texts)
    frozen: list[Case] = []
    queue: list[Case] = []
    left: Counter[str] = Counter()
    seen: set[str] = set()
    cases = list(found)
    # An id that a later case brought along stays that one's.
    taken, used = {case.id for case in cases}, set[str]()
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(2))
    known = {clash.row for clash in held.clashes((str(place), case.text) for place, case in enumerate(cases))}
    for place, case in enumerate(cases):
        words = " ".join(case.text.lower().split())
        if not words:
            left["no prompt"] += 1
        elif str(place) in known:
            left["frozen already"] += 1
        elif words in seen:
            left["the same prompt as another failure"] += 1
        else:
            seen.add(words)
            name = case.id
            if name in used:
                name = next(free for number in numbers[name] if (free := f"{case.id}-{number}") not in taken)
            used.add(name)
            (frozen if case.frozen(share) else queue).append(replace(case, id=name))
    return Cases(tuple(frozen), tuple(queue), dict(left))


def save(cases: Cases, out: Path, home: Path, name: str) -> Path | None:
    """Write all cases to ``out`` and the frozen ones to ``frozen/NAME.jsonl`` of the home folder, which is returned.

    Beside it stands ``NAME.yaml``, a suite of these cases. Raises ``InputError`` where that name is taken (what is
    frozen is never overwritten), and where the set is none that ``judge check`` would accept: then nothing is written.
    """
    from .references import FROZEN

    target = home / FROZEN / f"{name}.jsonl"
    if not _NAME.fullmatch(name):
        raise InputError(f"--name {name!r}: letters, digits, '.', '-', '_' and '@' only; it names a file")
    if cases.frozen and target.exists():
        raise InputError(f"{target}: there is a frozen set of this name; give another with --name")
    frozen = [case.to_row("frozen") for case in cases.frozen]
    rows = [*frozen, *(case.to_row("queue") for case in cases.queue)]
    if not frozen:
        write_file(out, rows)
        return None
    lines = case_lines(frozen, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The set comes last: where anything before it fails, its name is still free.
    with whole(target, durable=True) as part, whole(suite_path(target), durable=True) as suite:
        part.write_bytes(lines)
        suite.write_text(_suite(name, len(frozen)), encoding="utf-8")
        write_file(out, rows)
    return target


def suite_path(frozen: Path) -> Path:
    """The suite that reruns a frozen set: the file beside it."""
    return frozen.with_suffix(".yaml")


def _suite(name: str, count: int) -> str:
    words = "-".join(re.findall(r"[a-z0-9]+", name.lower()))[:48].strip("-")
    return (
        f"name: {f'failures-{words}' if words else 'failures'}\nversion: 1\n"
        f"summary: What failed once and must not come again ({count} {'prompt' if count == 1 else 'prompts'}).\n"
        f"cases: {json.dumps(f'{name}.jsonl', ensure_ascii=False)}\n"
    )


def _item(pair: Any) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if pair.item.messages:
        item["messages"] = [{"role": turn.role, "content": turn.content} for turn in pair.item.messages]
    else:
        item["prompt"] = pair.item.prompt
    rest = {"category": pair.item.category, "context": list(pair.item.context), "reference": pair.item.reference,
            "tags": list(pair.item.tags), "metadata": dict(pair.item.metadata)}  # fmt: skip
    return item | {name: value for name, value in rest.items() if value}
