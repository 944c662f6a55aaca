"""A segment report as text, Markdown and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .words import columns, counted, cut, markdown, number, p_value, plain, safe, span, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..segments import Moved, SegmentReport, Slice
    from .words import Unit

__all__ = ["to_json", "to_markdown", "to_text"]

_WIDTH = 100
_TITLES = {"worse": "worse", "unclear": "unclear", "better": "better", "too few": "too few to tell"}
_SHOWN = 12


def to_text(report: SegmentReport) -> str:
    """What got worse and in which way, then what is unclear, what changed, and how to go back."""
    lines = [*wrap(safe(_headline(report)), width=_WIDTH)]
    lines += [line for note in report.notes for line in wrap(f"! {safe(note)}", rest="  ", width=_WIDTH)]
    unit: Unit = "share" if report.against is None else "points"
    for verdict in ("worse", "unclear", "better", "too few"):
        parts = report.of(verdict)
        if not parts:
            continue
        lines += ["", f"{_TITLES[verdict]} ({len(parts)})"]
        if verdict == "too few":
            names = ", ".join(f"{part.column}={part.value} ({part.prompts})" for part in parts)
            lines += wrap(safe(f"below {report.minimum} prompts: {names}"), first="  ", rest="  ", width=_WIDTH)
            continue
        for part in parts[:_SHOWN]:
            lines += _slice_text(part, unit)
        if len(parts) > _SHOWN:
            lines.append(f"  and {len(parts) - _SHOWN} more (--json holds all)")
    if report.changes:
        lines += ["", f"what changed since {report.against}"]
        for change in report.changes:
            told = f"{change.before or '(none)'} -> {change.after or '(none)'}"
            lines += wrap(safe(told), first=f"  {change.kind:8} {safe(change.field)}: ", rest="    ", width=_WIDTH)
    elif report.against is not None:
        lines += ["", f"nothing in the headers changed since {report.against}"]
    if report.of("worse"):
        lines += ["", "how to go back, and how to know that it helped"]
        lines += [line for step in report.back for line in wrap(safe(step), first="  ", rest="    ", width=_WIDTH)]
    return "\n".join(lines)


def _headline(report: SegmentReport) -> str:
    worse = report.of("worse")
    tested = [part for part in report.slices if part.q is not None]
    what = f"run {report.run_id}"
    if report.overall is not None:
        if report.against is None:
            what += f": preference {number(report.overall.value, 'share')} {span(report.overall, 'share')}"
        else:
            shift = f"{number(report.overall.value, 'points')} {span(report.overall, 'points')}"
            what += f" against {report.against}: preference {shift}"
    names = ", ".join(f"{part.column}={part.value}" for part in worse[:3]) + (" ..." if len(worse) > 3 else "")
    found = f"{counted(len(worse), 'slice')} of {len(tested)} tested got worse: {names}" if worse else (
        f"none of {counted(len(tested), 'tested slice')} is shown worse"
    )  # fmt: skip
    out = f"; {report.left_out} pairs left out (no verdict, or not in both runs)" if report.left_out else ""
    return f"{what}, {report.pairs} pairs{out}. {found} (Benjamini-Hochberg, q = {report.q:g})."


def _slice_text(part: Slice, unit: Unit) -> Iterator[str]:
    name = cut(f"{part.column}={part.value}", 32)
    raw = f"{number(part.raw.value, unit)} {span(part.raw, unit)}"
    shrunk = "" if part.shrunk is None else f"shrunk {number(part.shrunk.value, unit)}"
    yield f"  {name}{' ' * (33 - columns(name))}{raw:26} {shrunk:16} n {part.pairs:<5} q {p_value(part.q)}".rstrip()
    for moved in part.moved:
        yield from wrap(safe(_moved(moved)), first=f"      {moved.kind:13} ", rest=" " * 20, width=_WIDTH)
    if part.verdict == "worse" and part.items:
        yield from wrap(safe(", ".join(part.items)), first="      read          ", rest=" " * 20, width=_WIDTH)


def _moved(moved: Moved) -> str:
    if moved.estimate is None:
        return f"{moved.name}: {moved.why}" if moved.shown else f"{moved.name}: not known ({moved.why})"
    unit: Unit = "share" if moved.name.endswith("fails") else "plain"
    shown = "" if moved.shown else ", not shown to have moved"
    more = f" ({moved.why})" if moved.why else ""
    return f"{moved.name} {number(moved.estimate.value, unit)} {span(moved.estimate, unit)}{shown}{more}"


def to_markdown(report: SegmentReport) -> str:
    """The report for an incident's page."""
    unit: Unit = "share" if report.against is None else "points"
    lines = [f"### {markdown(_headline(report))}", ""]
    lines += [f"> {markdown(note)}" for note in report.notes]
    lines += ["| slice | verdict | value | interval | shrunk | pairs | q |", "|---|---|---:|---|---:|---:|---:|"]
    for part in report.slices:
        shrunk = "-" if part.shrunk is None else number(part.shrunk.value, unit)
        name = f"{part.column}={part.value}"
        value = number(part.raw.value, unit)
        cells = (name, part.verdict, value, span(part.raw, unit), shrunk, str(part.pairs), p_value(part.q))
        lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    for part in report.of("worse"):
        lines += ["", f"**{markdown(f'{part.column}={part.value}')}**", ""]
        lines += [f"- {moved.kind}: {markdown(_moved(moved))}" for moved in part.moved]
        lines += [f"- read: {markdown(', '.join(part.items))}"] if part.items else []
    if report.changes:
        lines += ["", "**What changed**", ""]
        lines += [
            f"- {c.kind}, {markdown(c.field)}: {markdown(c.before)} -> {markdown(c.after)}" for c in report.changes
        ]
    if report.of("worse"):
        lines += ["", "**How to go back**", "", *(f"- {markdown(step)}" for step in report.back)]
    return "\n".join(lines)


def to_json(report: SegmentReport) -> str:
    """The report as one JSON object."""
    return json.dumps({"schema": "judge.segments/1", **plain(report)}, ensure_ascii=False, allow_nan=False)
