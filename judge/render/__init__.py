"""One value, several surfaces: a run report, a comparison or a calibration report as text, Markdown, JSON and HTML."""

from __future__ import annotations

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
from .words import safe

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
