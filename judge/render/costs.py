"""What a run cost, for every surface of its report: the whole, each category, each verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .words import counted

if TYPE_CHECKING:
    from ..summary import RunReport

__all__ = ["cost_facts", "cost_table", "dollars"]


def dollars(value: float | None) -> str:
    """US dollars with the digits that say something; ``unknown`` where a price is not known, which is not 0.

    >>> dollars(12.5), dollars(0.0123), dollars(0.00004321), dollars(None)
    ('$12.50', '$0.0123', '$0.0000432', 'unknown')
    """
    if value is None:
        return "unknown"
    if value == 0 or value >= 1:
        return f"${value:,.2f}"
    digits = max(4, 2 - int(f"{value:e}".split("e")[1]))
    return f"${value:.{digits}f}"


def cost_table(report: RunReport) -> list[tuple[str, str, str]]:
    """Name, cost and cost per verdict that was asked for: all pairs and each category of them, then what else was paid
    for, and the whole run; empty for a run for which nothing is paid.
    """
    if report.cost == 0 and not report.possibly_paid:
        return []
    parts = [("all pairs", report.overall), *((part.name, part) for part in report.categories)]
    rows = [(name, dollars(part.cost), _each(part.cost, part.cost_per_verdict)) for name, part in parts]
    probing = report.header.get("calls", {}).get("probe_cost", 0.0)
    beside = [("canary pairs", report.canaries.cost), ("finding out the mode", probing)]
    rows += [(name, dollars(cost), "") for name, cost in beside if cost != 0]
    return [*rows, ("the whole run", dollars(report.cost), "")]


def _each(cost: float | None, each: float | None) -> str:
    if cost is None:
        return "unknown"
    return "-" if each is None else dollars(each)


def cost_facts(report: RunReport) -> list[str]:
    """Sentences beside the table: what is not in its rows, and what was not paid for again."""
    if not cost_table(report):
        return []
    facts = []
    if report.cost_most is not None and report.cost is not None and report.cost_most > report.cost:
        facts.append(f"With every possibly paid call at its upper bound it cost at most {dollars(report.cost_most)}.")
    if report.cached:
        again = counted(report.cached, "verdict")
        facts.append(f"{again} cost nothing again: stored already, or another row has the same texts.")
    if report.overall.cost is None:
        facts.append("A price is not known: give price_in and price_out, or a price file (JUDGE_PRICES).")
    return facts
