"""AlpacaEval: outputs of one model, and annotations of pairs. Shapes: tatsu-lab/alpaca_eval, README."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .rows import BadRow, Layout, Row

__all__ = ["ANNOTATIONS", "OUTPUTS"]


def _after(ours: Row, rest: Mapping[str, Any]) -> None:
    """``preference`` runs from 1 (the first output, the baseline) to 2; ours from 0 to 1."""
    assert isinstance(rest, dict)
    if "preference" not in rest:
        return
    value = rest["preference"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        raise BadRow("malformed", f"'preference' is {value!r}, not a number from 1 to 2")
    # An old way to write a tie is 0.
    ours.setdefault("judged", {})["preference"] = 0.5 if value == 0 else value - 1
    if not (value == 0 or float(value - 1) + 1 != value):
        del rest["preference"]


def _before(theirs: Row, ours: Row) -> None:
    judged = ours.get("judged")
    if isinstance(judged, dict) and judged.get("preference") is not None:
        value = judged.pop("preference")
        if "preference" not in theirs:
            theirs["preference"] = value + 1
        if not judged:
            del ours["judged"]
    for side in ("candidate", "baseline"):
        if isinstance(ours[side], str):
            ours[side] = {"text": ours[side]}


def _before_outputs(_theirs: Row, ours: Row) -> None:
    if isinstance(ours.get("answer"), str):
        ours["answer"] = {"text": ours["answer"]}


OUTPUTS = Layout(
    name="alpacaeval",
    kind="answer",
    fields={
        "prompt": "instruction", "answer.text": "output", "answer.model": "generator", "category": "dataset",
    },
    required=("instruction", "output"),
    texts=("instruction", "output", "generator"),
    before=_before_outputs,
)  # fmt: skip

ANNOTATIONS = Layout(
    name="alpacaeval-annotations",
    kind="pair",
    fields={
        "prompt": "instruction", "baseline.text": "output_1", "baseline.model": "generator_1",
        "candidate.text": "output_2", "candidate.model": "generator_2", "judged.judge": "annotator",
        "category": "dataset",
    },
    required=("instruction", "output_1", "output_2"),
    texts=("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator"),
    after=_after,
    before=_before,
)  # fmt: skip
