"""HealthBench: conversations with rubrics of signed points. Shape: openai/simple-evals, ``healthbench_eval.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .rows import BadRow, Layout, Row

__all__ = ["HEALTHBENCH"]


def _after(ours: Row, _rest: Mapping[str, Any]) -> None:
    messages = ours["messages"]
    if not isinstance(messages, list) or not all(isinstance(turn, Mapping) and "role" in turn for turn in messages):
        raise BadRow("malformed", "'prompt' is not a list of {role, content}")
    criteria = ours["criteria"]
    if not isinstance(criteria, list) or not criteria:
        raise BadRow("malformed", "'rubrics' is not a list of {criterion, points}")
    for number, entry in enumerate(criteria, 1):
        points = entry.get("points") if isinstance(entry, Mapping) else None
        if not isinstance(entry, Mapping) or not isinstance(entry.get("criterion"), str):
            raise BadRow("malformed", f"rubric {number} has no 'criterion'")
        if isinstance(points, bool) or not isinstance(points, int | float):
            raise BadRow("malformed", f"rubric {number}: 'points' is {points!r}, not a number")
    if not any(entry["points"] > 0 for entry in criteria):
        raise BadRow("malformed", "no rubric has points above zero: a score would divide by nothing")


HEALTHBENCH = Layout(
    name="healthbench",
    kind="task",
    fields={"id": "prompt_id", "messages": "prompt", "criteria": "rubrics", "tags": "example_tags"},
    required=("prompt", "rubrics"),
    after=_after,
)
