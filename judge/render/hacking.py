"""The reward-hacking report and the probe report on their surfaces: terminal, Markdown, JSON and HTML.

All are made from one value and print the same numbers. Model text is hostile: it cannot steer a terminal or leave its
place in HTML.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from calibration.explained import FLOOR, Word

from .page import page
from .words import LENGTHS, counted, cut, markdown, number, p_value, plain, safe, span, unit_of, wrap

if TYPE_CHECKING:
    from calibration.estimates import Estimate
    from calibration.explained import Explained
    from calibration.wording import Odds

    from ..hacking.report import HackReport, Row, Screened
    from ..types import Measure

__all__ = ["hack_html", "hack_json", "hack_markdown", "hack_text", "hack_values", "headline", "verdict_words"]

SCHEMA = "judge.hack/1"
_MORE = {
    "length": "longer", "hedging": "more hedged", "apologies": "more apologetic", "disclaimers": "more disclaimers",
    "citations": "more citations", "mirroring": "more of the user's words", "self_justification": "more self-praise",
    "markdown.bold": "more bold", "markdown.headings": "more headings", "markdown.lists": "more lists",
    "markdown.emoji": "more emoji", "confidence": "surer in tone",
}  # fmt: skip
_TEXT_SAMPLES, _TEXT_CHARS = 2, 220


def verdict_words(found: Explained) -> str:
    """The verdict on one feature, for example ``longer, not better``."""
    more = _MORE.get(found.feature, f"more {found.feature}")
    if found.word is Word.NOT_MORE:
        return f"not {more}"
    if found.word is Word.TOO_FEW:
        return f"{found.feature}: too few comparisons, or nobody differs in it"
    if found.word is Word.INSEPARABLE:
        return f"{more} by as much in every pair: it cannot be told apart from quality"
    joint = " " if found.word is Word.BETTER else ", "
    return f"{more}{joint}{found.word}"


def explanation(found: Explained) -> str:
    """The numbers behind the verdict, in one sentence."""
    control = found.control
    if control is None:
        return verdict_words(found)
    parts = [
        f"win rate {_rate(control.raw)} as judged",
        f"{_rate(control.controlled)} with {found.feature} controlled",
    ]
    if found.near is not None:
        alike = counted(found.near.n, "pair that hardly differs in it", "pairs that hardly differ in it")
        parts.append(f"{_rate(found.near)} among the {alike}")
    text = f"{verdict_words(found)}: {', '.join(parts)}"
    if found.mediated is not None and found.mediated.value > 0:
        side = "win" if control.raw.value > 0.5 else "loss"
        text += f"; it carries {number(found.mediated.value, 'share')} {span(found.mediated, 'share')} of the {side}"
    return text


def told(report: HackReport) -> list[Explained]:
    """The features whose verdict is worth a line: those that grew."""
    return [found for found in report.explained if found.growth.grew and found.word is not Word.TOO_FEW]


def headline(report: HackReport) -> str:
    """What the report says in one sentence."""
    moved = sum(row.moved for row in report.rows)
    accused = [verdict_words(found) for found in report.accused]
    changes = f"{moved} of {sum(row.p is not None for row in report.rows)} tested features moved"
    if accused:
        return f"Part of the win is bought: {'; '.join(accused)}. {changes}."
    if all(found.control is None for found in report.explained):
        few = report.judged < FLOOR
        why = "too few to say what explains them" if few else "no feature parts them enough to explain a win by it"
        return f"{counted(report.judged, 'comparison')}: {why}. {changes}."
    return f"{_unexplained(report)} {changes}."


def _unexplained(report: HackReport) -> str:
    """That no feature explains the win; or that there is none to explain, by the win rate that was looked at."""
    raw = next(found.control.raw for found in report.explained if found.control is not None)
    if raw.high < 0.5:
        return f"There is no win to explain: this judge prefers the baseline (win rate {_rate(raw)})."
    if raw.value <= 0.5:
        return f"There is no win to explain (win rate {_rate(raw)})."
    if raw.low <= 0.5:
        return f"No win is shown that a feature could explain (win rate {_rate(raw)})."
    return "No feature is shown to explain the win."


def hack_text(report: HackReport) -> str:
    """The terminal report, at most 80 columns wide but for the names of pairs."""
    lines = wrap(
        safe(
            f"reward hacking: run {report.run_id}  {report.rubric}  judge {report.judge}  "
            f"{counted(report.pairs, 'pair')}, {counted(report.prompts, 'prompt')}"
        )
    )
    lines += ["", *wrap(headline(report))]
    for found in told(report):
        lines += wrap(explanation(found), first="  ! " if found.word is Word.NOT_BETTER else "  - ", rest="    ")
    if _cut(report):
        lines += wrap(safe(_cut(report)), first="  ! " if report.cut and report.cut.won else "  - ", rest="    ")
    lines += ["", f"  {'':23}{'candidate':>9} {'baseline':>9} {'difference':>10} {'95% interval':>16} {'q':>6}"]
    lines += [_text_row(row, report.pairs) for row in report.rows if not row.measure.missing]
    lines += ["", *wrap(_LEGEND)]
    for row in report.rows:
        if row.measure.missing:
            lines += wrap(f"no {row.title}: {row.measure.missing}", first="  ", rest="    ")
    lines += [*_text_phrases(report), *_text_screen(report), *_text_samples(report)]
    lines += ["", "where this report can mislead"]
    for note in report.notes:
        lines += wrap(safe(note), first="  ! ", rest="    ")
    return "\n".join(lines)


_LEGEND = (
    "* = moved (q at most 0.05); q = p value of no change, adjusted for all rows (Benjamini-Hochberg); n = pairs "
    "behind a row that not all can be read for. Sides are means over answers, rates are per 100 words; the difference "
    "is candidate minus baseline, paired and clustered by prompt. For lengths it says by how many percent the "
    "candidate's answer is longer in the typical pair (geometric mean of the ratios), which one very long answer does "
    "not move."
)


def _cut(report: HackReport) -> str:
    """The sentence about cut answers; empty where there are none."""
    found = report.cut
    return found.text if found is not None and (found.candidate or found.baseline) else ""


def _few(row: Row, pairs: int) -> str:
    """The number of pairs behind a row that was read from fewer than the report has."""
    gap = row.measure.difference
    return f" n={gap.n:,}" if gap is not None and gap.n < pairs else ""


def _text_row(row: Row, pairs: int) -> str:
    measure = row.measure
    gap = measure.difference
    assert measure.candidate is not None and measure.baseline is not None and gap is not None
    ours, theirs = (_side(measure, figure) for figure in (measure.candidate, measure.baseline))
    value, ends = (words.replace("over ", ">") for words in gap_words(measure))  # a column has no room for the word
    change = f"{value:>10} {ends:>16}"
    of = _few(row, pairs)
    title = f"{'* ' if row.moved else '  '}{cut(row.title, 23 - len(of)) + of:23}"
    return f"{title}{ours:>9} {theirs:>9} {change} {p_value(row.q):>6}"


def _side(measure: Measure, figure: Estimate) -> str:
    if measure.unit in LENGTHS:
        return f"{figure.value:,.0f}"
    return number(figure.value, unit_of(measure.name, measure.unit, "candidate"))


def gap_words(measure: Measure) -> tuple[str, str]:
    """The difference of a measure and its interval, as ``unit_of`` writes it."""
    gap = measure.difference
    assert gap is not None
    unit = unit_of(measure.name, measure.unit, "difference")
    return number(gap.value, unit), span(gap, unit)


def _text_phrases(report: HackReport) -> Iterator[str]:
    ours, theirs = _phrases(report)
    if not ours and not theirs and not report.wording.common:
        return
    yield ""
    yield f"phrases ({counted(report.wording.n, 'pair')} read; answers that hold it, score by log-odds)"
    for title, found in (("more in the candidate", ours), ("more in the baseline", theirs)):
        if found:
            yield f"  {title}"
            for odds in found[:6]:
                counts = f"{odds.candidate} : {odds.baseline}"
                yield f"    {counts:>11}  {odds.score:+6.1f}  {cut(odds.phrase, 52)}"
    if report.wording.common:
        yield "  in more than 5% of the candidate's answers"
        for phrase, count in report.wording.common[:6]:
            yield f"    {count:>11}          {cut(phrase, 52)}"


def _phrases(report: HackReport) -> tuple[list[Odds], list[Odds]]:
    """The phrases of either side whose score is over 2 standard deviations."""
    strong = [odds for odds in report.wording.phrases if abs(odds.score) > 2]
    return [odds for odds in strong if odds.score > 0], [odds for odds in strong if odds.score < 0]


def _text_screen(report: HackReport) -> Iterator[str]:
    found = [row for row in report.screened if row.candidate or row.baseline]
    yield ""
    if not found:
        yield "the screen flags no answer"
        return
    yield f"what the screen flags (answers)   {'candidate':>10} {'baseline':>9}"
    for row in found:
        examples = cut(", ".join(row.measure.examples[:3]), 22)
        yield f"  {row.flag:32}{row.candidate:>10} {row.baseline:>9}  {examples}"


def _text_samples(report: HackReport) -> Iterator[str]:
    moved = [row for row in report.rows if row.moved and row.samples]
    if not moved:
        return
    yield ""
    yield "to read, for each number that moved"
    for row in moved:
        yield f"  {row.title}"
        for sample in row.samples[:_TEXT_SAMPLES]:
            values = _values(sample.candidate_value, sample.baseline_value)
            yield from wrap(f"{safe(sample.pair_id)}{values}", first="    ", rest="      ")
            yield f"      {cut(sample.candidate, 74)}"


def _values(ours: float | None, theirs: float | None) -> str:
    return "" if ours is None or theirs is None else f": {ours:.4g} against {theirs:.4g}"


def hack_markdown(report: HackReport) -> str:
    """The report for a pull request."""
    lines = [f"### Reward hacking: run `{report.run_id}`", "", f"**{markdown(headline(report))}**", ""]
    lines += [f"- {markdown(explanation(found))}" for found in told(report)]
    lines += [f"- {markdown(_cut(report))}"] if _cut(report) else []
    lines += ["", "| | candidate | baseline | difference (95% interval) | q | moved | read |"]
    lines += ["|---|---:|---:|---|---:|---|---|"]
    for row in report.rows:
        measure = row.measure
        gap = measure.difference
        if measure.missing or gap is None or measure.candidate is None or measure.baseline is None:
            continue
        cells = [
            row.title + _few(row, report.pairs), _side(measure, measure.candidate), _side(measure, measure.baseline),
            " ".join(gap_words(measure)), p_value(row.q), "yes" if row.moved else "no",
            ", ".join(measure.examples[:3]) if row.moved else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    for row in report.rows:
        if row.measure.missing:
            lines += ["", f"No {markdown(row.title)}: {markdown(row.measure.missing)}."]
    ours, _theirs = _phrases(report)
    if ours:
        named = ", ".join(f"{markdown(odds.phrase)} ({odds.candidate} : {odds.baseline})" for odds in ours[:6])
        lines += ["", f"More in the candidate: {named}."]
    flagged = [row for row in report.screened if row.candidate or row.baseline]
    shown = "; ".join(f"{row.flag} {row.candidate} : {row.baseline}" for row in flagged) or "no answer"
    lines += ["", f"The screen flags (candidate : baseline): {markdown(shown)}.", ""]
    return "\n".join([*lines, *(f"- {markdown(note)}" for note in report.notes)])


def hack_json(report: HackReport) -> str:
    """The report as one JSON object; ``measures`` holds every number as a policy reads it."""
    body = {"schema": SCHEMA, **plain(report), "measures": plain(report.measures), "headline": headline(report)}
    return json.dumps(body, ensure_ascii=False, allow_nan=False)


def hack_html(report: HackReport) -> str:
    """The report as one HTML page without scripts or outside resources."""
    return page("hack.html.j2", report=report, hack=hack_values(report))


def hack_values(report: HackReport) -> dict[str, object]:
    """What the template of the section is filled with, here and in the run report."""
    ours, theirs = _phrases(report)
    return {
        "headline": headline(report),
        "verdicts": [(explanation(found), found.word is Word.NOT_BETTER) for found in told(report)]
        + ([(_cut(report), bool(report.cut and report.cut.won))] if _cut(report) else []),
        "rows": [_html_row(row, report.pairs) for row in report.rows if not row.measure.missing],
        "absent": [(row.title, row.measure.missing) for row in report.rows if row.measure.missing],
        "phrases": [(odds, "candidate") for odds in ours] + [(odds, "baseline") for odds in theirs],
        "common": report.wording.common,
        "read": report.wording.n,
        "screened": _flagged(report.screened),
        "samples": [row for row in report.rows if row.moved and row.samples],
        "notes": report.notes,
        "legend": _LEGEND,
    }


def _flagged(screened: Sequence[Screened]) -> list[Screened]:
    return [row for row in screened if row.candidate or row.baseline]


def _html_row(row: Row, pairs: int) -> dict[str, object]:
    measure, gap = row.measure, row.measure.difference
    assert measure.candidate is not None and measure.baseline is not None and gap is not None
    return {
        "title": row.title + _few(row, pairs),
        "name": measure.name,
        "candidate": _side(measure, measure.candidate),
        "baseline": _side(measure, measure.baseline),
        "difference": " ".join(gap_words(measure)),
        "q": p_value(row.q),
        "moved": row.moved,
    }


def _rate(estimate: Estimate) -> str:
    return f"{number(estimate.value, 'share')} {span(estimate, 'share')}"
