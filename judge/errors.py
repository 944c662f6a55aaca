"""Every exception the package raises, as a tree.

    InputError                  yours: a file, field or option to correct (exit code 2); defined in ``rubrics.errors``
    ├── RubricError             a rubric that cannot be used
    └── StoreError              a journal or database that cannot be used as asked (unknown run, newer schema, changed
    inputs) BackendError                theirs: the judge cannot answer at all; carries what is unanswered (exit code 3)
    └── BackendUnavailable      a missing optional package, model file or server; the message carries the command to run

Expected bad news is a value, not an exception: an unreadable reply is an invalid ``Verdict`` with a reason.
"""

from __future__ import annotations

from rubrics.errors import InputError, RubricError

__all__ = ["BackendError", "BackendUnavailable", "InputError", "RubricError", "StoreError"]


class StoreError(InputError):
    """A run, journal or database cannot be used as asked; the message names the file and the fix."""


class BackendError(RuntimeError):
    """The judge cannot answer: catch it to keep what was judged and to resume later.

    ``unanswered`` counts the asks that got no reply, when known.
    """

    def __init__(self, message: str, *, unanswered: int = 0) -> None:
        super().__init__(message)
        self.unanswered = unanswered


class BackendUnavailable(BackendError):
    """The judge cannot be opened here: a package, a model file or a server is missing."""
