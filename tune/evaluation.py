"""What an evaluation of a candidate may rest on: a judge that did not label its data, prompts it never saw.

Both are looked for along the whole lineage: what a parent was trained on, its child has seen, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from judge.errors import InputError
from judge.prompts import Asking, PromptSet
from judge.writing import write_whole

from .candidate import Candidate, Candidates
from .preferences import said_text
from .splitting import prompt_digest

__all__ = ["Evaluation", "State", "labelled_by", "seen_prompts", "unheld", "within_training"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is evaluated, by whom, on what: all that its answers and verdicts depend on."""

    candidate: str
    against: str
    evalset: str
    prompts: str
    """Digest of the eval set's prompts."""
    rubric: str
    judge: str
    max_tokens: int
    temperature: float
    seed: int

    @property
    def name(self) -> str:
        """The same evaluation has the same name, so that the same command goes on with it."""
        fields = {**asdict(self), "evalset": ""}
        return f"e-{hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]}"


@dataclass(slots=True)
class State:
    """How far an evaluation is: a file that is written after every step."""

    path: Path
    steps: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> State:
        """What stands at ``path``, or a new beginning."""
        return cls(path, orjson.loads(path.read_bytes()) if path.exists() else {})

    def done(self, step: str, result: Any) -> None:
        """Write down that a step is done, and what it came to; appears whole."""
        self.steps[step] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, orjson.dumps(self.steps, option=orjson.OPT_INDENT_2))


def labelled_by(line: Sequence[Candidate], judge: str, identity: str) -> str:
    """Which of a lineage's labellers is this judge (by its string or its identity), or an empty string.

    A judge with another revision or another way to ask is still the same judge here: what it likes, it has taught.
    """
    names = {_bare(judge), _bare(identity)}
    for candidate in line:
        for labeller in candidate.labellers:
            kind, _, name = labeller.partition(":")
            if kind == "judge" and _bare(name) in names:
                return f"{candidate.id} ({name})"
    return ""


def _bare(name: str) -> str:
    """A judge's name without its revision, decoding and options."""
    return name.partition("?")[0].partition("[")[0].partition("@")[0].strip().lower()


def seen_prompts(shelf: Candidates, line: Sequence[Candidate]) -> set[str]:
    """Digests of all prompts that a lineage was trained or stopped on.

    Raises ``InputError`` for a candidate that keeps no record of them: then nothing shows that a prompt is new.
    """
    return {prompt for candidate in line for prompt in _record(shelf, candidate)["prompts"]}


def unheld(shelf: Candidates, line: Sequence[Candidate]) -> list[str]:
    """Those of a lineage whose training data was held against no gold or eval set, or of which no record says so."""
    return [candidate.id for candidate in line if _record(shelf, candidate).get("checked") is not True]


def _record(shelf: Candidates, candidate: Candidate) -> Mapping[str, Any]:
    path = shelf.folder(candidate.id) / "training" / "data.json"
    try:
        record = orjson.loads(path.read_bytes())
        set(record["prompts"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: no record of the prompts {candidate.id} was trained on") from None
    found: Mapping[str, Any] = record
    return found


def within_training(prompts: PromptSet, seen: Iterable[str]) -> list[str]:
    """Ids of the items whose prompt was trained on."""
    known = set(seen)
    return [
        prompt.id
        for prompt in prompts.prompts(Asking(context=False))
        if prompt_digest(said_text(tuple(prompt.messages))) in known
    ]
