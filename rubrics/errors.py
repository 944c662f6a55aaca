"""Errors whose cause is the caller's input.

``InputError`` stands in the leftmost package of the chain (``rubrics <- calibration <- judge <- tune | dashboard``)
so that every package can raise the same word for "yours to fix":

    InputError              what, where (file, line, field) and how to fix it, in one message
    └── RubricError         a rubric file that cannot be read, is unknown, or was edited after release
"""

from __future__ import annotations


class InputError(ValueError):
    """The caller's input cannot be used; the message names what, where and the fix (exit code 2)."""


class RubricError(InputError):
    """A rubric cannot be used: unreadable, unknown, or edited after its release."""
