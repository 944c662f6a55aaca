"""Whether an answer's claims hold against the item's documents, with the figures of ``judge ground``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from ..types import Answer, Item, Severity, Span
from .check import Check, Observation, failed, passed, unjudged

__all__ = ["Grounded"]


@dataclass(frozen=True)
class Grounded(Check):
    """Every claim is supported by the item's ``context``, and none is contradicted.

    ``unsupported`` is the share of an answer's claims that may lack support (0 to 1), ``contradictions`` whether one
    contradiction (a number, a name, a negation that the documents say otherwise) fails it, however many claims hold.
    The judgement is lexical and calibrated, not certain (docs/grounding.md), so a failure warns unless the suite says
    otherwise. An item without documents is not concerned; what cannot be judged (another language) is not judged.
    """

    name: ClassVar[str] = "grounded"
    severity: ClassVar[Severity] = Severity.WARN
    layer: ClassVar[str] = "evidence"
    unsupported: Annotated[float, Field(ge=0, le=1)] = 0.0
    contradictions: bool = True

    def examine(self, item: Item, answer: Answer) -> Observation | None:
        """Hold each claim against the documents; the value is the share of claims without support."""
        from ..grounding import ground

        if not item.context:
            return None
        found = ground(answer.text, item.context)
        if found.not_judged:
            return unjudged(f"not judged: {found.not_judged}")
        share, odd = found.unsupported_share or 0.0, found.contradictions
        if self.contradictions and odd:
            more = "; ..." if len(odd) > 3 else ""
            spans = (Span(one.start, one.end, str(one)) for one in odd)
            return failed("; ".join(str(one) for one in odd[:3]) + more, *spans, value=share)
        if share > self.unsupported:
            lacking = found.unsupported
            spans = (Span(claim.start, claim.end, "no support in the documents") for claim in lacking)
            detail = f"{len(lacking)} of {len(found.judged)} claims are not supported ({found.coefficients})"
            return failed(detail, *spans, value=share)
        return passed(value=share)
