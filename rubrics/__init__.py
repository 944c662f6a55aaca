"""What "good" means: versioned rubrics as Markdown files, frozen by digest once released.

    >>> import rubrics
    >>> rubric = rubrics.load("helpfulness@1")
    >>> str(rubric.ref), rubric.tie_rule.outcome(0.8, 0.1, 0.1)
    ('helpfulness@1', <Outcome.WIN: 'win'>)

``Outcome``, ``RubricRef`` and the errors come without pydantic and yaml; those load with the first use of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InputError, RubricError
from .words import Change, Outcome, Problem, RubricDiff, RubricRef

if TYPE_CHECKING:
    from .authoring import lint, new, release
    from .changes import diff
    from .library import load, names, versions
    from .model import CalibratedOn, Criterion, Example, Rubric, TieRule, parse
else:
    _HOMES = {
        "authoring": ("lint", "new", "release"),
        "changes": ("diff",),
        "library": ("load", "names", "versions"),
        "model": ("CalibratedOn", "Criterion", "Example", "Rubric", "TieRule", "parse"),
    }
    _MODULES = {name: module for module, exported in _HOMES.items() for name in exported}

    def __getattr__(name: str) -> object:
        """Import the module that defines ``name`` on its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


__all__ = [
    "CalibratedOn",
    "Change",
    "Criterion",
    "Example",
    "InputError",
    "Outcome",
    "Problem",
    "Rubric",
    "RubricDiff",
    "RubricError",
    "RubricRef",
    "TieRule",
    "diff",
    "lint",
    "load",
    "names",
    "new",
    "parse",
    "release",
    "versions",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
