"""Know whether a new model is better: blind, position-swapped judgements under a versioned rubric, with the doubt
stated.

    import judge
    result = judge.compare(prompt, candidate=new, baseline=old, rubric="helpfulness@1", judge="local")
    result.outcome, result.preference, result.consistent, result.confidence

Everything public is listed in ``__all__`` and loaded on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rubrics import Outcome

    from .api import acompare, compare, compare_many
    from .backends import Backend
    from .errors import BackendError, BackendUnavailable, InputError, RubricError, StoreError
    from .types import (
        Answer,
        Ask,
        Comparison,
        Finding,
        InvalidReason,
        Item,
        JudgeId,
        Measure,
        Order,
        Pair,
        Reply,
        Severity,
        Span,
        Usage,
        Verdict,
    )
else:
    _HOMES = {
        "api": ("acompare", "compare", "compare_many"),
        "backends": ("Backend",),
        "errors": ("BackendError", "BackendUnavailable", "InputError", "RubricError", "StoreError"),
        "types": (
            "Answer", "Ask", "Comparison", "Finding", "InvalidReason", "Item", "JudgeId", "Measure",
            "Order", "Outcome", "Pair", "Reply", "Severity", "Span", "Usage", "Verdict",
        ),
    }  # fmt: skip
    _MODULES = {name: module for module, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        """Load the module that defines ``name`` on its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "Comparison",
    "Finding",
    "InputError",
    "InvalidReason",
    "Item",
    "JudgeId",
    "Measure",
    "Order",
    "Outcome",
    "Pair",
    "Reply",
    "RubricError",
    "Severity",
    "Span",
    "StoreError",
    "Usage",
    "Verdict",
    "acompare",
    "compare",
    "compare_many",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
