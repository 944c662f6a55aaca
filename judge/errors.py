"""Every exception the package raises, as a tree.

    InputError                yours: a file, field or option to correct (exit code 2); lives in ``rubrics.errors``
    ├── RubricError           a rubric that cannot be used
    └── StoreError            a run or database that cannot be used as asked: unknown, newer schema, changed inputs
        └── JournalError      one journal that is damaged, empty, newer or a copy; the other runs are untouched
    BackendError              theirs: the judge cannot answer (exit code 3); carries what is unanswered
    └── BackendUnavailable    a package, model file or server is missing; the message carries the command to run

Expected bad news is a value, not an exception: an unreadable reply is an invalid ``Verdict`` with a reason.
"""

from __future__ import annotations

from rubrics.errors import InputError, RubricError

__all__ = ["BackendError", "BackendUnavailable", "InputError", "JournalError", "RubricError", "StoreError"]


class StoreError(InputError):
    """A run, journal or database cannot be used as asked; the message names the file and the fix."""


class JournalError(StoreError):
    """One journal cannot be read: it is damaged, empty, of a newer version, or a copy of another run's."""


class BackendError(RuntimeError):
    """The judge cannot answer: catch it to keep what was judged and to resume later.

    ``unanswered`` counts the comparisons that have no result yet, when known.
    """

    def __init__(self, message: str, *, unanswered: int = 0) -> None:
        super().__init__(message)
        self.unanswered = unanswered


class BackendUnavailable(BackendError):
    """The judge cannot be opened here: a package, a model file or a server is missing."""
