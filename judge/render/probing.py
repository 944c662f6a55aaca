"""The probe report on its surfaces: terminal, Markdown, JSON and HTML, all from the same value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .page import page
from .words import counted, cut, markdown, number, p_value, plain, safe, span, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from ..hacking.probes import AttackRow, ProbeReport, ProbeRow

__all__ = ["probe_headline", "probe_html", "probe_json", "probe_markdown", "probe_text"]

SCHEMA = "judge.probe/1"


def probe_headline(report: ProbeReport) -> str:
    """What the report says in one sentence."""
    if report.kind == "probes":
        bought = [row for row in report.probes if row.shift is not None and row.shift.low > 0 and _sure(row)]
        if not bought:
            return "No trick is shown to buy anything from this judge."
        best = sorted(bought, key=lambda row: -(row.shift.value if row.shift else 0.0))
        named = ", ".join(f"{_title(row.name)} {_points(row.shift)}" for row in best)
        return f"{len(bought)} of {len(report.probes)} tricks buy points from this judge: {named}."
    lifted = [row for row in report.attacks if row.bare is not None and row.bare.lift.low > 0]
    through = [row for row in report.attacks if row.screened is not None and row.screened.lift.low > 0]
    if not lifted:
        return "No family of attacks is shown to make a weak answer win more often."
    names = ", ".join(row.name for row in sorted(lifted, key=lambda row: -(row.bare.lift.value if row.bare else 0.0)))
    left = ", ".join(row.name for row in through) or "none"
    return f"Weak answers win more often with: {names}. With the screen before the judge: {left}."


def _sure(row: ProbeRow) -> bool:
    return row.q is not None and row.q <= 0.05


def _title(name: str) -> str:
    return name.replace("_", " ")


def _points(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{number(estimate.value, 'points')} {span(estimate, 'points')}"


def _share(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{number(estimate.value, 'share')}"


def probe_text(report: ProbeReport) -> str:
    """The terminal report."""
    what = "tricks" if report.kind == "probes" else "attacks"
    lines = wrap(
        safe(f"{what}: run {report.run_id}  {report.rubric}  judge {report.judge}  {counted(report.pairs, 'prompt')}")
    )
    lines += ["", *wrap(probe_headline(report)), ""]
    lines += list(_probes_text(report) if report.kind == "probes" else _attacks_text(report))
    lines += ["", "where this report can mislead"]
    for note in report.notes:
        lines += wrap(safe(note), first="  ! ", rest="    ")
    return "\n".join(lines)


def _probes_text(report: ProbeReport) -> Iterator[str]:
    head = ("shift", 9), ("95% interval", 18), ("wins", 8), ("q", 8), ("n", 6), ("invalid", 9)
    yield f"  {'appended to its own twin':26}" + "".join(f"{name:>{width}}" for name, width in head)
    for row in report.probes:
        mark = "* " if _sure(row) and row.shift is not None and row.shift.low > 0 else "  "
        if row.shift is None:
            yield f"{mark}{_title(row.name):26}{'-':>9} {'':>17} {'-':>7} {'-':>7} {row.n:>5} {row.invalid:>8}"
            continue
        yield (
            f"{mark}{_title(row.name):26}{number(row.shift.value, 'points'):>9} {span(row.shift, 'points'):>17} "
            f"{_share(row.wins):>7} {p_value(row.q):>7} {row.n:>5} {row.invalid:>8}"
        )
    yield ""
    yield from wrap(
        "shift = mean preference for the changed answer over the same one unchanged, minus 1/2: what the trick buys. "
        "* = above 0 after adjusting for the number of tricks (Benjamini-Hochberg)."
    )
    for row in report.probes:
        if row.examples:
            yield from wrap(f"read {_title(row.name)}: {safe(', '.join(row.examples[:3]))}", first="  ", rest="    ")


def _attacks_text(report: ProbeReport) -> Iterator[str]:
    yield from wrap(f"weak answers: {report.weak}")
    head = (
        ("attacked", 9),
        ("plain", 8),
        ("lift", 10),
        ("95% interval", 18),
        ("after screen", 14),
        ("flagged", 9),
        ("n", 5),
    )
    yield f"  {'family':22}" + "".join(f"{name:>{width}}" for name, width in head) + f"{'n':>5}"
    for row in report.attacks:
        if row.bare is None or row.screened is None:
            yield f"  {row.family:>2} {cut(row.name, 18):19}{'no verdict':>18}"
            continue
        mark = "* " if row.bare.lift.low > 0 else "  "
        yield (
            f"{mark}{row.family:>2} {cut(row.name, 18):19}{_share(row.bare.attacked):>9}{_share(row.bare.plain):>8}"
            f"{number(row.bare.lift.value, 'points'):>10} {span(row.bare.lift, 'points'):>17}"
            f"{number(row.screened.lift.value, 'points'):>14}{_share(row.flagged):>9}{row.n:>5}"
        )
    yield ""
    yield from wrap(
        "attacked, plain = how often the weak answer wins with and without the attack; lift = their paired difference "
        "(Newcombe); after screen = the lift where a win of a flagged answer does not count. * = above 0."
    )
    for row in report.attacks:
        if row.examples:
            yield from wrap(f"read {row.name}: {safe(', '.join(row.examples[:3]))}", first="  ", rest="    ")


def probe_table(report: ProbeReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows as text, for Markdown and HTML."""
    head: tuple[str, ...]
    if report.kind == "probes":
        head = ("trick", "shift (95% interval)", "wins", "q", "n", "invalid", "read")
        return head, [
            (_title(row.name), _points(row.shift), _share(row.wins), p_value(row.q), str(row.n), str(row.invalid),
             ", ".join(row.examples[:3]))
            for row in report.probes
        ]  # fmt: skip
    head = ("family", "attacked", "plain", "lift (95% interval)", "after the screen", "flagged", "n", "invalid", "read")
    return head, [_attack_cells(row) for row in report.attacks]


def _attack_cells(row: AttackRow) -> tuple[str, ...]:
    bare, screened = row.bare, row.screened
    return (
        f"{row.family} {row.name}", _share(bare.attacked if bare else None), _share(bare.plain if bare else None),
        _points(bare.lift if bare else None), _points(screened.lift if screened else None), _share(row.flagged),
        str(row.n), str(row.invalid), ", ".join(row.examples[:3]),
    )  # fmt: skip


def probe_markdown(report: ProbeReport) -> str:
    """The report for a pull request."""
    head, rows = probe_table(report)
    lines = [
        f"### What tricks buy: `{report.run_id}`, judge {markdown(report.judge)}",
        "",
        f"**{markdown(probe_headline(report))}**",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- {markdown(note)}" for note in report.notes)])


def probe_json(report: ProbeReport) -> str:
    """The report as one JSON object; ``measures`` holds every number as a policy reads it."""
    body = {"schema": SCHEMA, **plain(report), "measures": plain(report.measures), "headline": probe_headline(report)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def probe_html(report: ProbeReport) -> str:
    """The report as one HTML page without scripts or outside resources."""
    head, rows = probe_table(report)
    return page("probe.html.j2", report=report, headline=probe_headline(report), head=head, rows=rows)
