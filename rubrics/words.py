"""The words every package shares, as plain values: importing this module loads nothing but the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Change", "Outcome", "Problem", "RubricDiff", "RubricRef", "pinned"]


class Outcome(StrEnum):
    """Who is better, always from the candidate's side."""

    WIN = "win"
    TIE = "tie"
    LOSS = "loss"

    @property
    def mirrored(self) -> Outcome:
        """The same outcome seen from the baseline's side: ``WIN`` and ``LOSS`` change places, ``TIE`` stays."""
        if self is Outcome.TIE:
            return self
        return Outcome.LOSS if self is Outcome.WIN else Outcome.WIN


@dataclass(frozen=True, slots=True)
class RubricRef:
    """Exactly one rubric text: name, version (1, 2, ...) and the SHA-256 of its text as 64 hex digits.

    ``str(RubricRef("helpfulness", 1, digest)) == "helpfulness@1"``. Two refs are equal only where the texts are.
    """

    name: str
    version: int
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a rubric file: where (path, line counted from 1, field such as ``criteria.0.weight``), what, and
    the fix.
    """

    path: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs between two rubrics; ``None`` on a side means that the field is absent there.

    Criteria are matched by id: ``criteria.accuracy.weight``. Values are shown as compact JSON.
    """

    field: str
    before: str | None
    after: str | None

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class RubricDiff:
    """What lies between two rubrics: the changed fields, and ``text``, a unified diff of the files (empty where
    equal).
    """

    before: RubricRef
    after: RubricRef
    changes: tuple[Change, ...]
    text: str


def pinned(ref: str, digest: str, *, released: bool) -> str:
    """A reference that names one text: a released ``name@version`` does, a draft needs the head of its digest."""
    return ref if released else f"{ref}#{digest[:12]}"
