"""What a suite found, on its surfaces: terminal text, Markdown, JSON and JUnit, from the same value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ..types import Severity
from .words import counted, cut, listed, markdown, number, p_value, safe, span, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from ..checks.passes import Pass
    from ..checks.tally import CheckResult
    from ..types import Finding, Measure

__all__ = ["check_json", "check_junit", "check_markdown", "check_text", "headline"]

_NAME = 28


def headline(done: Pass) -> str:
    """One sentence: blocked, undecided or passed, and why."""
    report = done.report
    blocking, broken = report.blocking(), report.blocking(regressions=True)
    if blocking:
        worst = "; ".join(f"{r.check} fails {r.candidate_failed} of {r.n}, {r.broken} new" for r in blocking[:4])
        more = f" and {len(blocking) - 4} more checks" if len(blocking) > 4 else ""
        kind = "" if broken else " (nothing new: the baseline fails there, too)"
        return f"FAILED{kind}: {worst}{more}"
    if done.unrun:
        return f"UNDECIDED: {len(done.unrun)} of {done.cases} frozen cases were not run: {listed(done.unrun)}"
    if report.undecided():
        return f"UNDECIDED: {'; '.join(_gap(result) for result in report.undecided()[:4])}"
    warned = sum(r.candidate_failed for r in report.results if r.severity is Severity.WARN)
    return f"PASSED: no failure of severity block{f'; {warned} of severity warn to look at' if warned else ''}"


def check_text(done: Pass, *, show: int = 5) -> str:
    """The terminal report, at most 80 columns wide: counts per check, measures, and the first findings of each."""
    report = done.report
    lines = [*wrap(safe(headline(done))), ""]
    lines += wrap(safe(f"suite {report.suite} on {done.material.name}: {counted(report.pairs, 'pair')}"))
    lines += ["", f"{'check':{_NAME}} {'sev.':5} {'n':>6} {'cand.':>6} {'base':>6} {'broke':>6} {'fixed':>6} {'p':>7}"]
    lines += [_line(result) for result in report.results if not result.empty]
    if idle := [result.check for result in report.results if result.empty]:
        lines += wrap(f"(concern no item: {', '.join(idle)})")
    lines += ["", *wrap(_LEGEND)]
    lines += [line for note in _blind(done) for line in wrap(note)]
    figures = f"{'measure':30} {'cand.':>9} {'base':>9}  {'difference, or ratio':>20}"
    for heading, rows in ((figures, list(_measures(done))), ("not judged", list(_gaps(done)))):
        if rows:
            lines += ["", heading, *rows]
    lines += _excerpts(done, show)
    return "\n".join(lines)


_LEGEND = (
    "cand. and base count answers that fail; broke: the baseline's answer passes, the candidate's fails; fixed: the "
    "other way round; p: McNemar's exact test of broke against fixed; !: not judged on some answers, listed below."
)


_BLIND = {
    "citations": "{check} holds quotations and numbers like [2] against the item's own context, and sees nothing else.",
    "links": (
        "{check} sees whether URLs and DOIs are well formed. Nothing is looked up: a well-formed reference to a work "
        "that does not exist passes, unless the suite gives a corpus of the links there are."
    ),
}
"""What a passed check does not say, for checks whose names promise more than they can see offline."""


def _blind(done: Pass) -> Iterator[str]:
    for result in done.report.results:
        told = _BLIND.get(result.check.partition("@")[0])
        if told and not result.empty:
            yield told.format(check=result.check)


def _line(result: CheckResult) -> str:
    name = cut(result.check, _NAME)
    gap = "  !" if result.candidate_unjudged or result.baseline_unjudged else ""
    return (
        f"{name:{_NAME}} {result.severity.value:5} {result.n:>6} {result.candidate_failed:>6} "
        f"{result.baseline_failed:>6} {result.broken:>6} {result.fixed:>6} {p_value(result.p_exact):>7}{gap}"
    )


def _gap(result: CheckResult) -> str:
    if result.empty:
        return f"{result.check} is required and concerns no item"
    return f"{result.check} could not be made on {result.candidate_unjudged} of {result.n} answers"


def _gaps(done: Pass) -> Iterator[str]:
    for result in done.report.results:
        if result.candidate_unjudged or result.baseline_unjudged:
            yield from wrap(
                safe(
                    f"{result.check}: candidate {result.candidate_unjudged}, baseline {result.baseline_unjudged} of "
                    f"{result.n} ({listed(result.unjudged)})"
                ),
                first="  ! ",
                rest="    ",
            )
    if done.unrun:
        text = f"{len(done.unrun)} of {done.cases} frozen cases were not run: {listed(done.unrun)}"
        yield from wrap(safe(text), first="  ! ", rest="    ")
    for name in done.altered:
        yield f"  ! case {safe(name)} has another prompt than the frozen one"


def _measures(done: Pass) -> Iterator[str]:
    for measure in done.report.measures:
        if measure.difference is not None and not measure.name.startswith("check."):
            yield f"{measure.name:30} {_value(measure)}"


def _value(measure: Measure) -> str:
    unit = "share" if measure.unit.startswith("share") else "plain"

    def shown(estimate: Estimate | None) -> str:
        return "none" if estimate is None else number(estimate.value, "share" if unit == "share" else "plain")

    gap = measure.difference
    assert gap is not None
    kind = "points" if unit == "share" else "plain"
    signed = number(gap.value, "points" if unit == "share" else "plain" if "ratio" in measure.name else "signed")
    return f"{shown(measure.candidate):>9} {shown(measure.baseline):>9}  {signed:>9} {span(gap, kind)}"  # type: ignore[arg-type]


def _excerpts(done: Pass, show: int) -> list[str]:
    """The first findings on the candidate of each check: failures, and what a blocking check could not see."""
    by_check: dict[str, list[Finding]] = {}
    for finding in done.shown:
        if finding.side == "candidate" and (finding.passed is False or finding.severity is Severity.BLOCK):
            by_check.setdefault(finding.check, []).append(finding)
    lines: list[str] = []
    for check, found in by_check.items() if show else ():
        lines += ["", safe(check)]
        for finding in found[:show]:
            lines += wrap(safe(f"{finding.pair_id}: {_why(finding)}"), first="  ", rest="    ")
    return lines


def _why(finding: Finding) -> str:
    state = "" if finding.passed is False else "not judged: "
    where = f" [{finding.spans[0].start}:{finding.spans[0].end}]" if finding.spans else ""
    return f"{state}{finding.detail}{where}"


def check_markdown(done: Pass) -> str:
    """The report for a pull request."""
    report = done.report
    lines = [f"### Checks: {markdown(headline(done))}", ""]
    lines += [f"Suite {markdown(report.suite)} on {markdown(done.material.name)}, {counted(report.pairs, 'pair')}.", ""]
    lines += ["| check | severity | n | candidate fails | baseline fails | broke | fixed | at most | p |"]
    lines += ["|---|---|" + "---:|" * 7]
    for r in report.results:
        upper = "" if r.upper is None else number(r.upper, "share")
        cells = [r.n, r.candidate_failed, r.baseline_failed, r.broken, r.fixed, upper, p_value(r.p_exact)]
        lines.append(f"| {markdown(r.check)} | {r.severity.value} | {' | '.join(map(str, cells))} |")
    lines += ["", "`at most`: one-sided 95% bound on the candidate's failure rate (3/n where nothing failed)."]
    broken = [r for r in report.results if r.breaking]
    if broken:
        lines += ["", "**Newly broken**", ""]
        lines += [f"- {markdown(r.check)}: {markdown(listed(r.breaking, 10))}" for r in broken]
    return "\n".join(lines)


def check_json(done: Pass) -> str:
    """One JSON object; counts are exact, rates carry their intervals."""
    from ..checks.passes import encode_report

    return json.dumps(encode_report(done), ensure_ascii=False, allow_nan=False)


def check_junit(done: Pass) -> str:
    """JUnit XML: one test case a check, failed where severity ``block`` fails, skipped where it concerned nothing."""
    report = done.report
    suite = ET.Element("testsuite", name=f"judge check {report.suite}")
    failed = errors = skipped = 0
    undecided = {result.check for result in report.undecided()}
    for result in report.results:
        case = ET.SubElement(suite, "testcase", classname=report.suite, name=result.check)
        if result.severity is Severity.BLOCK and result.candidate_failed:
            failed += 1
            message = f"{result.candidate_failed} of {result.n} fail, {result.broken} new"
            ET.SubElement(case, "failure", message=message).text = _xml(listed(result.failing, 50))
        elif result.check in undecided:
            errors += 1
            ET.SubElement(case, "error", message=_xml(_gap(result)))
        elif result.empty:
            skipped += 1
            ET.SubElement(case, "skipped", message="concerns no item")
    for name in done.unrun:
        errors += 1
        case = ET.SubElement(suite, "testcase", classname=report.suite, name=f"case {_xml(name)}")
        ET.SubElement(case, "error", message="not run")
    tests = len(report.results) + len(done.unrun)
    for key, value in (("tests", tests), ("failures", failed), ("errors", errors), ("skipped", skipped)):
        suite.set(key, str(value))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Text that XML can hold: control characters are shown by name."""
    return safe(text)
