"""A segment report as text, Markdown and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..advice import homed
from .words import columns, counted, cut, markdown, number, p_value, plain, safe, span, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..segments import Moved, SegmentReport, Slice
    from .words import Unit

__all__ = ["to_json", "to_markdown", "to_text"]

_WIDTH = 80
_SINCE = {
    "worse": "worse than before",
    "unclear": "unclear",
    "better": "better than before",
    "too few": "too few to tell",
}
_ALONE = {
    "worse": "the candidate loses",
    "unclear": "unclear",
    "better": "the candidate wins",
    "too few": "too few to tell",
}
_SHOWN = 12
_HEAD = f"{{:30}}{'value':>8} {'95% interval':>15} {'shrunk':>9} {'n':>6} {'q':>7}"


def to_text(report: SegmentReport) -> str:
    """What got worse and in which way, then what is unclear, what changed, and how to go back."""
    lines = [*wrap(safe(_headline(report)), width=_WIDTH)]
    lines += [line for note in report.notes for line in wrap(f"! {safe(note)}", rest="  ", width=_WIDTH)]
    unit: Unit = "share" if report.against is None else "points"
    first = next((verdict for verdict in ("worse", "unclear", "better") if report.of(verdict)), "")
    for verdict in ("worse", "unclear", "better", "too few"):
        parts = report.of(verdict)
        if not parts:
            continue
        titles = _ALONE if report.against is None else _SINCE
        lines += ["", f"{titles[verdict]} ({len(parts)})"]
        if verdict == "too few":
            names = ", ".join(f"{part.column}={part.value} ({part.prompts})" for part in parts)
            lines += wrap(safe(f"below {report.minimum} prompts: {names}"), first="  ", rest="  ", width=_WIDTH)
            continue
        if verdict == first:
            lines[-1] = _HEAD.format(lines[-1])
        for part in parts[:_SHOWN]:
            lines += _slice_text(part, unit)
        if len(parts) > _SHOWN:
            lines.append(f"  and {len(parts) - _SHOWN} more (--json holds all)")
    lines += ["", *wrap(_legend(report), width=_WIDTH)]
    if report.changes:
        lines += ["", f"what changed since {report.against}"]
        for change in report.changes:
            told = f"{change.before or '(none)'} -> {change.after or '(none)'}"
            lines += wrap(safe(told), first=f"  {change.kind:8} {safe(change.field)}: ", rest="    ", width=_WIDTH)
    elif report.against is not None:
        lines += ["", f"nothing in the headers changed since {report.against}"]
    if report.of("worse"):
        lines += ["", "how to go back, and how to know that it helped"]
        lines += [
            line for step in report.back for line in wrap(safe(homed(step)), first="  ", rest="    ", width=_WIDTH)
        ]
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
    got = "the candidate is shown to lose" if report.against is None else "got worse"
    not_so = (
        "the candidate is not shown to lose in any" if report.against is None else "none is shown to have got worse"
    )
    tests = counted(len(tested), "tested slice")
    found = f"Of {tests} {not_so}"
    if not tested:
        found = "No slice could be tested: each has too few pairs"
    if worse:
        found = f"{counted(len(worse), 'slice')} of {len(tested)} tested, in which {got}: {names}"
        if report.against is not None:
            found = f"{counted(len(worse), 'slice')} of {len(tested)} tested {got}: {names}"
    out = f"; {counted(report.left_out, 'pair')} left out (no verdict, or not in both runs)" if report.left_out else ""
    return f"{what}, {counted(report.pairs, 'pair')}{out}. {found} (Benjamini-Hochberg, q = {report.q:g})."


def _legend(report: SegmentReport) -> str:
    """What the columns are, and how to ask the other question."""
    what = "mean preference of the judge for the candidate, 50% is even"
    other = " judge segments RUN --against EARLIER says what got worse since an earlier run of the same pairs."
    if report.against is not None:
        what, other = f"change of the judge's mean preference for the candidate since {report.against}", ""
    return (
        f"value = {what} (judge's scale, 95% interval); shrunk = pulled to the run's mean as far as its noise asks; "
        f"n = pairs; q = p value adjusted for all slices.{other}"
    )


def _slice_text(part: Slice, unit: Unit) -> Iterator[str]:
    name = cut(f"{part.column}={part.value}", 27)
    shrunk = "" if part.shrunk is None else number(part.shrunk.value, unit)
    name += " " * (28 - columns(name))
    figures = f"{number(part.raw.value, unit):>8} {span(part.raw, unit):>15} {shrunk:>9}"
    yield f"  {name}{figures} {part.pairs:>6} {p_value(part.q):>7}"
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
