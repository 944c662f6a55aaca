"""Sections 1 to 3 of the calibration report: what was measured, the headline, agreement with people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from calibration.estimates import Estimate
from calibration.provenance import Refused

from .charts import PAPER, forest
from .document import Absent, Block, Chart, Figure, Figures, Level, Prose, Section, Table, figure, withheld
from .words import counted, cut, number, p_value, span

if TYPE_CHECKING:
    from calibration.agreement import AgreementReport, Ceiling
    from calibration.annotators import AltTest, DawidSkene
    from calibration.report import CalibrationReport
    from calibration.winrate import WinRate

__all__ = ["LISTED", "agreement", "headline", "identity", "interval_row", "level_of", "trimmed"]

LISTED = 20
"""Rows that a table shows at most; the JSON holds all of them."""
_LATENT = ("latent; n: pairs that two people decide", "latent; n: pairs that the judge and a person decide")
_SOFT = "mean of P(win) + P(tie)/2; judge report counts settled verdicts instead"


def trimmed(values: Sequence[str]) -> str:
    """A list in a sentence, cut with the count of the rest."""
    rest = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
    return ", ".join(cut(value, 40) for value in values[:LISTED]) + rest


def identity(report: CalibrationReport) -> Section:
    """1: every version and digest the figures belong to."""
    rows = [Figure(name, text or "not known") for name, text in report.identity.items()]
    rows.append(Figure("labelled pairs used", str(report.labels)))
    rows += [Figure("labels left out", f"{count} about {why}") for why, count in report.left_out.items()]
    blocks: list[Block] = [Figures(tuple(rows))]
    blocks += [Prose(f"{note[:1].upper()}{note[1:]}.", "care") for note in report.warnings]
    if report.disputed:
        pairs = counted(len(report.disputed), "pair")
        text = f"For an expert ({pairs} on which annotators differ): {trimmed(report.disputed)}."
        blocks.append(Prose(text))
    pairs = counted(report.labels, "labelled pair")
    answer = f"Everything below holds for this judge, rubric and gold set only ({pairs})."
    return Section(1, "identity", "What was measured", answer, blocks=tuple(blocks))


def headline(report: CalibrationReport) -> Section:
    """2: the win rate on the human scale, beside the judge's and the labels' own."""
    rate = report.win_rate
    corrected = rate.corrected
    none = corrected if isinstance(corrected, Refused) else Absent("undefined on these labels")
    rows = [
        Figure("human scale (corrected)", corrected, "share", _how(rate)),
        Figure("labels alone", rate.human or none, "share"),
        figure("judge scale (soft preference)", rate.judge, "no pair has a verdict", unit="share", note=_SOFT),
    ]
    counts = [Figure("win", rate.win, "share"), Figure("tie", rate.tie, "share"), Figure("loss", rate.loss, "share")]
    if isinstance(corrected, Refused):
        counts = []
    blocks: list[Block] = [_three(rate), Figures(tuple(rows))]
    if counts:
        blocks.append(Figures(tuple(counts), "Win, tie and loss as people would give them (they sum to 100%)"))
    blocks += [
        Figures(tuple(_worth(rate, none)), "What the judge adds to the labels"),
        Figures(tuple(_length(report)), "At equal answer length"),
    ]
    blocks += [Prose(f"{note[:1].upper()}{note[1:]}.", "care") for note in rate.notes]
    if isinstance(corrected, Refused):
        answer, level = f"The win rate on the human scale is {withheld(corrected)}.", "bad"
    else:
        level = "good" if corrected.low > 0.5 else "bad" if corrected.high < 0.5 else "ink"
        side = {"good": "the candidate is better", "bad": "the candidate is worse"}.get(level, "not decided")
        answer = (
            f"People would give the candidate {number(corrected.value, 'share')} {span(corrected, 'share')}: {side}."
        )
    return Section(2, "win-rate", "Win rate on the human scale", answer, level_of(level), tuple(blocks))


def level_of(word: str) -> Level:
    """The level that a word names, plain ink for any other."""
    found: dict[str, Level] = {"good": "good", "bad": "bad", "care": "care", "soft": "soft"}
    return found.get(word, "ink")


def _how(rate: WinRate) -> str:
    if isinstance(rate.corrected, Refused):
        return ""
    return f"{rate.corrected.method}; {counted(rate.labels, 'label')} of {counted(rate.judged, 'pair')}"


def _three(rate: WinRate) -> Chart:
    named: list[tuple[str, Estimate | Refused | None]] = [
        ("human scale", rate.corrected),
        ("labels alone", rate.human),
        ("judge scale", rate.judge),
    ]
    rows = [interval_row(name, value) for name, value in named if isinstance(value, Estimate)]
    title = "The candidate's win rate with its interval, and the mark of an even match at 50%"
    return Chart("win-rate", title, forest(rows, PAPER, title="Win rate of the candidate", unit="share"))


def interval_row(name: str, rate: Estimate) -> dict[str, Any]:
    """A win rate as a row of a forest plot: better or worse where its interval leaves out an even match."""
    word = "better" if rate.low > 0.5 else "worse" if rate.high < 0.5 else "unclear"
    ends = {"value": rate.value, "low": rate.low, "high": rate.high}
    return {"segment": name, "kind": "", **ends, "verdict": word, "n": rate.n}


def _worth(rate: WinRate, none: Refused | Absent) -> Iterator[Figure]:
    yield Figure("correlation with people (rho)", rate.rho or none)
    base = f" (n {rate.labels})"
    given = none if rate.tuning is None else number(rate.tuning) + base
    yield Figure("weight of the judge", given, note="0 ignores it, 1 takes it in full")
    worth = none if rate.effective_labels is None else f"{rate.effective_labels:.0f}{base}"
    yield Figure("effective labels", worth, note="labels that would give this interval without a judge")
    if not rate.labels_for:
        yield Figure("labels for ±3 points", none)
    for half, needed in rate.labels_for:
        text = f"{needed} in all (have {rate.labels})"
        if needed is None:
            text = f"more than all {rate.judged} pairs of this run: judge more pairs (have {rate.labels} labels)"
        yield Figure(f"labels for ±{100 * half:g} points", text)


def _length(report: CalibrationReport) -> Iterator[Figure]:
    why = "no pair with a verdict has known answer lengths, or all of them differ by the same"
    human = report.length.human
    judge = human if report.length.judge is None and isinstance(human, Refused) else report.length.judge
    for name, found in (("judge scale", judge), ("human scale", human)):
        if found is None or isinstance(found, Refused):
            yield figure(f"{name}, length-controlled", found, why)
            continue
        yield Figure(f"{name}, length-controlled", found.controlled, "share", found.method)
        yield Figure("moved by length", found.shift, "points")


def agreement(report: CalibrationReport) -> Section:
    """3: the judge against people, and against how far people agree with each other."""
    found = report.agreement
    why = "no labelled pair has a verdict and a majority"
    undefined = f"undefined on {counted(found.compared, 'pair')} (one category only, or none)"
    counts = (
        f"{found.labelled} labelled, {found.compared} compared; {found.invalid} without a verdict, {found.missing} not "
        f"judged, {found.no_majority} without a majority."
    )
    rows = (
        figure("3-way accuracy", found.accuracy, why, unit="share", note=_bounds(found)),
        figure("accuracy where both decide", found.decisive, why, unit="share"),
        figure("judge decides when people do", found.decided, why, unit="share"),
        figure("Gwet AC1", found.ac1, undefined),
        figure("Cohen kappa", found.kappa, undefined),
        figure("Krippendorff alpha, nominal", found.alpha_nominal, undefined),
        figure("Krippendorff alpha, ordinal", found.alpha_ordinal, undefined),
    )
    blocks: list[Block] = [Prose(counts), Figures(rows)]
    if found.weighted:
        text = (
            "Pairs were drawn with unequal chances, so each counts 1/chance: the figures speak of the run. "
            "The confusion table, the alternative annotator test and Dawid-Skene are of the labelled pairs as they are."
        )
        blocks.insert(1, Prose(text, "soft"))
    if found.compared:
        blocks.append(_confusion(found))
    blocks += _ceiling(found.ceiling)
    blocks += _alternative(found.alt_test)
    blocks += _annotators(found)
    blocks += _dawid_skene(found.consensus)
    blocks += _agreement_segments(found)
    share = found.ceiling.share if found.ceiling is not None else None
    if found.decisive is None:
        answer, level = f"Nothing can be said: {why}.", "bad"
    else:
        right = f"{number(found.decisive.value, 'share')} {span(found.decisive, 'share')} (n {found.decisive.n})"
        answer, level = f"Where both decide, the judge sides with people in {right}", "ink"
        answer += f"; {number(share.value, 'share')} of the human ceiling (n {share.n})." if share is not None else "."
    return Section(3, "agreement", "Agreement against the human ceiling", answer, level_of(level), tuple(blocks))


def _bounds(found: AgreementReport) -> str:
    if found.accuracy_bounds is None or not found.invalid:
        return ""
    low, high = (number(value, "share") for value in found.accuracy_bounds)
    return f"{low} to {high} with the {found.invalid} invalid wrong, or right"


def _confusion(found: AgreementReport) -> Table:
    most = max(max(line) for line in found.confusion) or 1
    # Wins first, as in every other table; the report counts in the order of the scale.
    names = tuple(reversed([outcome.value for outcome in found.order]))
    lines = tuple(line[::-1] for line in found.confusion[::-1])
    rows = tuple((f"people: {name}", *map(str, line)) for name, line in zip(names, lines, strict=True))
    return Table(
        ("", *(f"judge: {name}" for name in names)),
        rows,
        title=f"Confusion of the {counted(found.compared, 'compared pair')}",
        heat=tuple(tuple(count / most for count in line) for line in lines),
    )


def _ceiling(found: Ceiling | None) -> Iterator[Block]:
    title = "The human ceiling"
    if found is None:
        why = "no pair has two annotators; have some pairs labelled twice"
        yield Figures((Figure("how far people agree", Absent(why)),), title)
        return
    why = "undefined on these pairs"
    yield Figures(
        (
            figure("two people agree", found.human, why, unit="share"),
            figure("judge agrees with one person", found.judge, why, unit="share"),
            figure("share of the ceiling", found.share, why, unit="share"),
            figure("Fleiss kappa among people", found.fleiss, why),
            figure("Gwet AC1 among people", found.ac1, why),
            figure("alpha among people, ordinal", found.alpha, why),
            figure("one person against the truth", found.annotator_accuracy, why, unit="share", note=_LATENT[0]),
            figure("judge against the truth", found.judge_accuracy, why, unit="share", note=_LATENT[1]),
        ),
        title,
    )


def _alternative(found: AltTest | None) -> Iterator[Block]:
    title = "Alternative annotator test"
    if found is None:
        why = "needs three annotators with 30 shared pairs each"
        yield Figures((Figure("omega, rho", Absent(why)),), title)
        return
    passed = "passed: it may stand in for an annotator" if found.passed else "not passed"
    people = len(found.rows)
    base = counted(people, "annotator")
    yield Figures(
        (
            Figure("result", f"{passed} (epsilon {found.epsilon:g})"),
            Figure("omega", f"{number(found.omega)} (n {base})", note="share of annotators it beats"),
            Figure("rho", f"{number(found.rho)} (n {base})", note="mean share of pairs where it is as near"),
        ),
        title,
    )
    yield Table(
        ("annotator", "judge as near", "annotator as near", "p", "beaten"),
        tuple(
            (
                r.annotator,
                number(r.judge_wins, "share"),
                number(r.annotator_wins, "share"),
                p_value(r.p),
                _yes(r.rejected),
            )
            for r in found.rows[:LISTED]
        ),
        n=tuple(row.n for row in found.rows[:LISTED]),
        left_out=max(people - LISTED, 0),
    )
    if found.skipped:
        yield Prose(f"Too few labels for the test: {trimmed(found.skipped)}.", "soft")
    if found.note:
        yield Prose(found.note, "care")


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _annotators(found: AgreementReport) -> Iterator[Block]:
    if not found.annotators:
        return
    none = Absent("no shared pair")
    shown = found.annotators[:LISTED]
    yield Table(
        ("annotator", "judge agrees", "kappa with judge", "other people agree"),
        tuple((a.annotator, a.judge or none, a.kappa or Absent("undefined"), a.others or none) for a in shown),
        title="Each annotator",
        units=("share", "plain", "share"),
        left_out=len(found.annotators) - len(shown),
    )


def _dawid_skene(found: DawidSkene | None) -> Iterator[Block]:
    if found is None:
        return
    items = len(found.consensus)
    raters = list(found.accuracy.items())
    yield Table(
        ("rater", "right"),
        tuple((name, number(value, "share")) for name, value in raters[:LISTED]),
        title="Dawid-Skene consensus: how often each rater is right",
        note=found.note,
        n=(items,) * min(len(raters), LISTED),
        left_out=max(len(raters) - LISTED, 0),
    )


def _agreement_segments(found: AgreementReport) -> Iterator[Block]:
    shown = found.segments[:LISTED]
    if len(shown) < 2:
        return
    none, undefined = Absent("no pair"), Absent("undefined")
    yield Table(
        ("segment", "3-way", "both decide", "kappa"),
        tuple((s.name, s.accuracy or none, s.decisive or none, s.kappa or undefined) for s in shown),
        title="Agreement by segment",
        units=("share", "share", "plain"),
        n=tuple(s.n for s in shown),
        left_out=len(found.segments) - len(shown),
    )
