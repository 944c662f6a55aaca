"""Grounding on its surfaces: terminal text, Markdown and JSON, from the same values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..grounding.report import BY_WORDS
from .words import counted, cut, markdown, number, p_value, plain, safe, span, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate

    from ..grounding.calibrating import Calibrated
    from ..grounding.claims import Claim
    from ..grounding.report import GroundedPair, GroundingReport
    from ..types import Measure
    from .words import Unit

__all__ = [
    "calibrated_json",
    "calibrated_text",
    "grounding_json",
    "grounding_markdown",
    "grounding_text",
]

_NAMES = {
    "grounding.unsupported_share": "unsupported claims",
    "grounding.contradictions": "with contradiction",
    "grounding.claims": "claims an answer",
}
_SHOWN = 3


def grounding_text(report: GroundingReport, title: str) -> str:
    """The terminal report, at most 80 columns wide."""
    lines = [*wrap(safe(_head(report, title))), ""]
    lines.append(f"{'':20}{'candidate':>20}{'baseline':>20}{'difference':>20}")
    for measure in report.measures:
        name, unit = _NAMES[measure.name], _unit(measure)
        if measure.missing:
            lines += wrap(safe(measure.missing), first=f"{name:20}  no number: ", rest=" " * 22)
            continue
        cells = (
            _cell(measure.candidate, unit),
            _cell(measure.baseline, unit),
            _cell(measure.difference, _signed(unit)),
        )
        lines.append(f"{name:20}" + "".join(f"{value:>20}" for value, _interval in cells))
        lines.append(" " * 20 + "".join(f"{found:>20}" for _value, found in cells))
    lines += ["", *wrap(verdict(report))]
    if report.segments:
        lines += ["", "unsupported claims by category, candidate minus baseline", *_segments(report)]
    kinds = [f"{side}: {_counts(counts)}" for side, counts in report.kinds.items() if counts]
    if kinds:
        lines += ["", "contradictions by kind", *(line for text in kinds for line in _fact(text))]
    if report.worst:
        lines += ["", "read these first (the candidate is less grounded than the baseline)"]
        lines += [line for pair in report.worst for line in _pair(pair)]
    lines += ["", *(line for note in _notes(report) for line in wrap(safe(note), first="  ! ", rest="    "))]
    return "\n".join(lines).rstrip()


def grounding_markdown(report: GroundingReport, title: str) -> str:
    """The report for a pull request."""
    lines = [f"### {markdown(_head(report, title))}", ""]
    lines += ["| | candidate | baseline | difference |", "|---|---:|---:|---:|"]
    for measure in report.measures:
        unit = _unit(measure)
        sides = (measure.candidate, measure.baseline)
        if measure.missing:
            cells = [markdown(measure.missing), "", ""]
        else:
            cells = [" ".join(_cell(side, unit)) for side in sides]
            cells.append(" ".join(_cell(measure.difference, _signed(unit))))
        lines.append(f"| {_NAMES[measure.name]} | {' | '.join(cells)} |")
    lines += ["", markdown(verdict(report))]
    if report.segments:
        lines += ["", "| category | n | difference | shrunk | q |", "|---|---:|---:|---:|---:|"]
        for segment in report.segments:
            shrunk = "-" if segment.shrunk is None else number(segment.shrunk.value, "points")
            cells = [markdown(segment.name), str(segment.n), " ".join(_cell(segment.raw, "points")), shrunk]
            lines.append(f"| {' | '.join(cells)} | {p_value(segment.q)} |")
    for pair in report.worst:
        lines += ["", f"- {markdown(pair.pair_id)}: {markdown(_summary(pair))}"]
        lines += [f"  - {markdown(text)}" for claim in _worst(pair) for text in _why(claim)]
    return "\n".join([*lines, "", *(f"- {markdown(note)}" for note in _notes(report))])


def grounding_json(report: GroundingReport, title: str) -> str:
    """One JSON object: measures, segments, counts, and every finding that did not pass."""
    body = {
        "schema": "judge.grounding/1",
        "of": title,
        "pairs": report.pairs,
        "judged": report.judged,
        "verdict": verdict(report),
        "measures": plain(report.measures),
        "segments": plain(report.segments),
        "not_judged": plain(report.not_judged),
        "contradictions": plain(report.kinds),
        "findings": plain(report.findings),
        "coefficients": plain(report.coefficients),
        "notes": _notes(report),
    }
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def verdict(report: GroundingReport) -> str:
    """What the paired difference in the unsupported share says, and what it cannot."""
    gap = report.measure("unsupported_share").difference
    if gap is None:
        return "Nothing was judged, so nothing is known; that is not a pass."
    size = f"{number(gap.value, 'points')} {span(gap, 'points')}"
    if gap.low > 0:
        said = f"The candidate is less grounded: {size} unsupported claims."
    elif gap.high < 0:
        said = f"The candidate is better grounded: {size} unsupported claims."
    else:
        said = f"Unclear: the difference in unsupported claims is {size}."
    return f"{said} {BY_WORDS}"


def calibrated_text(found: Calibrated, title: str) -> str:
    """What a calibration found, for the terminal."""
    rows = [
        ("area under the ROC curve", _plain(found.auc)),
        ("  minus the old coefficients'", _plain(found.gain, "signed")),
        *((f"  by {name} alone", _plain(area)) for name, area in found.against.items()),
        ("Brier score", _plain(found.reliability.brier)),
        (
            "calibration error",
            f"{_plain(found.reliability.ece.error)}; chance alone reaches {found.reliability.ece.chance:.3f}",
        ),
    ]
    rows.append(("unsupported claims it flags", f"{_plain(found.caught, 'share')} at 5% false alarms"))
    if found.reliability.slope is not None:
        rows.append(("slope (1 is calibrated)", _plain(found.reliability.slope.slope)))
    if found.contradictions is not None:
        hits = f"{_plain(found.contradictions, 'share')} of {found.contradictions.n} are unsupported"
        rows.append(("claims with a contradiction", hits))
    lines = [
        *wrap(
            f"grounding calibrated on {counted(found.rows, 'claim')} about {counted(found.documents, 'document')} "
            f"({number(found.supported.value, 'share')} supported), {safe(title)}: {found.method}"
        ),
        "",
        "on documents held out:",
        *(f"  {name:31}{value}" for name, value in rows),
        "",
        "log loss held out: " + ", ".join(f"{name} {loss:.3f}" for name, loss in found.held_out.items()),
    ]
    weights = ", ".join(f"{name} {weight:+.2f}" for name, weight in found.coefficients.weights.items())
    lines += wrap(f"weights: intercept {found.coefficients.intercept:+.2f}, {weights}")
    lines += [line for note in found.notes for line in wrap(safe(note), first="  ! ", rest="    ")]
    return "\n".join(lines)


def calibrated_json(found: Calibrated) -> str:
    """One JSON object with everything a calibration found."""
    body = {"schema": "judge.grounding-calibration/1", **plain(found)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def _head(report: GroundingReport, title: str) -> str:
    return (
        f"grounding of {title}: {report.judged} of {counted(report.pairs, 'pair')} judged on both sides, weighed by "
        f"{report.coefficients.name}"
    )


def _unit(measure: Measure) -> Unit:
    return "plain" if measure.name.endswith(".claims") else "share"


def _signed(unit: Unit) -> Unit:
    return "points" if unit == "share" else "signed"


def _cell(estimate: Estimate | None, unit: Unit) -> tuple[str, str]:
    if estimate is None:
        return "none", ""
    return number(estimate.value, unit), span(estimate, unit)


def _plain(estimate: Estimate, unit: Unit = "plain") -> str:
    return f"{number(estimate.value, unit)} {span(estimate, unit)}"


def _segments(report: GroundingReport) -> Iterator[str]:
    yield f"  {'category':24}{'n':>5}{'difference':>13}{'95% interval':>18}{'shrunk':>10}{'q':>8}"
    for segment in report.segments:
        shrunk = "-" if segment.shrunk is None else number(segment.shrunk.value, "points").removesuffix(" pp")
        difference = number(segment.raw.value, "points")
        yield (
            f"  {cut(segment.name, 23):24}{segment.n:>5}{difference:>13}{span(segment.raw, 'points'):>18}{shrunk:>10}"
            f"{p_value(segment.q):>8}"
        )
    if report.segments:
        yield from wrap(_SEGMENTS_LEGEND, first="  ", rest="  ")


_SEGMENTS_LEGEND = (
    "n = pairs; shrunk = the difference pulled to that of all pairs as far as its noise asks; q = p value adjusted for "
    "all categories (Benjamini-Hochberg)."
)


def _pair(pair: GroundedPair) -> Iterator[str]:
    yield from wrap(safe(_summary(pair)), first=f"  {cut(pair.pair_id, 24)}: ", rest="      ")
    for claim in _worst(pair):
        first, *rest = _why(claim)
        yield from wrap(safe(first), first="    - ", rest="      ")
        for text in rest:
            yield from wrap(safe(text), first="      ", rest="        ")


def _summary(pair: GroundedPair) -> str:
    def side(name: str) -> str:
        grounding = pair.of(name)
        return f"{len(grounding.unsupported)} of {len(grounding.judged)}"

    return f"{side('candidate')} claims of the candidate not supported, {side('baseline')} of the baseline"


def _worst(pair: GroundedPair) -> list[Claim]:
    bad = sorted(pair.candidate.unsupported, key=lambda claim: (not claim.contradictions, claim.support or 0.0))
    return bad[:_SHOWN]


def _why(claim: Claim) -> list[str]:
    texts = [f"{cut(claim.text, 150)} (support {claim.support:.2f})"]
    texts += [str(one) for one in claim.contradictions]
    texts.append(
        "no word of it in the documents" if claim.evidence is None else f"nearest: {cut(claim.evidence.text, 150)}"
    )
    return texts


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _notes(report: GroundingReport) -> list[str]:
    notes = [f"{side} not judged: {_counts(counts)}" for side, counts in report.not_judged.items() if counts]
    found = report.coefficients
    area = found.quality.get("auc")
    if area:
        on = found.fitted_on.get("data") or found.fitted_on.get("file") or "labels"
        notes.append(
            f"the weights {found.name} come from {on} and had an area under the curve of {area['value']:.2f} "
            f"[{area['low']:.2f}, {area['high']:.2f}] on documents held out there; on other texts it is unknown until "
            "`judge ground --calibrate LABELS` measures it"
        )
    typical = (found.fitted_on.get("typical") or {}).get("phrases")
    if typical and report.phrases is not None and report.phrases < typical / 2:
        notes.append(
            f"these answers copy {number(report.phrases, 'share')} of their word pairs, the texts of the weights "
            f"{number(typical, 'share')}: read the difference between the sides, not the level"
        )
    notes.append(
        "short claims and paraphrases suffer most: every word of a claim counts that its document does not have, also "
        "those that take up the question; a judge with the rubric groundedness@1 (--judge) reads meaning"
    )
    return notes


def _fact(fact: str) -> list[str]:
    return wrap(safe(fact), first="  ", rest="    ")
