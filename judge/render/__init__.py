"""One value, several surfaces: a run report, a comparison or a calibration report as text, Markdown, JSON and HTML.

The reports are loaded when they are first asked for: whoever takes ``safe`` or ``words`` loads no statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .words import safe

if TYPE_CHECKING:
    from .run import (
        Example,
        comparison_json,
        comparison_text,
        pick_examples,
        to_html,
        to_json,
        to_markdown,
        to_text,
    )

__all__ = [
    "Example",
    "comparison_json",
    "comparison_text",
    "pick_examples",
    "safe",
    "to_html",
    "to_json",
    "to_markdown",
    "to_text",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import run

    return getattr(run, name)
