"""Does an answer refuse, and may it? The one place where this package asks: the classifier is that of the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checks.refusal import Compliance, classify

if TYPE_CHECKING:
    from ..types import Answer, Item

__all__ = ["may_refuse", "refuses"]


def refuses(answer: Answer) -> bool:
    """Whether an answer is a full refusal; one that calls a tool is none, and an empty one is counted as empty.

    Partial refusals (some help, some of it declined) are none: ``judge check`` tells all three classes apart.
    """
    if answer.tool_calls or not answer.text.strip():
        return False
    return classify(answer.text)[0] is Compliance.FULL_REFUSAL


def may_refuse(item: Item) -> bool:
    """Whether the item says that refusing is right: metadata ``must_refuse`` that is true, or a tag of that name."""
    value = item.metadata.get("must_refuse")
    said = value is True or (isinstance(value, str | int) and str(value).lower() in ("1", "true", "yes"))
    return said or bool({"must_refuse", "must-refuse"} & set(item.tags))
