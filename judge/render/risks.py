"""Sections 6 to 11 of the calibration report: biases, a rubric change, segments, drift, the ledger, the self-check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from calibration.drift import moves
from calibration.provenance import Refused

from .charts import PAPER, forest, sums
from .document import Absent, Block, Chart, Figure, Figures, Level, Prose, Section, Table, figure, withheld
from .measures import LISTED, interval_row
from .words import counted, number, p_value, span

if TYPE_CHECKING:
    from calibration.bias import FlipSources, PositionBias
    from calibration.cards import BiasCard, DriftCard
    from calibration.drift import AnchorDrift, Cusum, Moved, Shift
    from calibration.report import CalibrationReport
    from calibration.selfcheck import SelfCheck
    from calibration.winrate import SegmentRate

__all__ = ["bias", "drift", "segments", "self_check", "validity"]

_LOUD = 0.05
_PULL = "verdicts for the answer shown first, less those for the second: 0 is even"
_FOLLOWS = "of the verdicts that change with the order, those for the first place"
_SHIFT = "mean preference of an answer when it is shown first, less when it is second"
_SLOPES = (
    "Points by which the preference moves towards the candidate where its answer has one typical step more than the "
    "baseline's (one standard deviation over these pairs): of length alone, of each style at equal length. Judge "
    "beyond people is the difference: above 0 the judge overrates it. q adjusts its p for the number of tests."
)


def bias(report: CalibrationReport) -> Section:
    """6: what moves the judge beside quality, with what needs no label first."""
    card = report.bias
    blocks: list[Block] = [*_position(card.position, card.q.get("position")), *_flips(card.flips), *_styles(card)]
    if card.families:
        shown = card.families[:LISTED]
        blocks.append(
            Table(
                ("maker", "judge minus people", "p", "q", "own family"),
                tuple((f.family, f.excess, p_value(f.p), p_value(f.q), "yes" if f.own else "no") for f in shown),
                title="Favour for a maker's answers (needs labels)",
                units=("signed", "plain", "plain", "plain"),
                n=tuple(f.excess.n for f in shown),
                left_out=len(card.families) - len(shown),
            )
        )
    loud = [name for name, q in card.q.items() if q < _LOUD]
    tests = f"of {counted(len(card.q), 'test')}{', adjusted together' if len(card.q) > 1 else ''}"
    answer = f"Shown to move it ({tests}): {', '.join(loud)}." if loud else f"Nothing is shown to move it ({tests})."
    level: Level = "care" if loud else "ink"
    if not card.q:
        answer = "Nothing could be tested: no pair has two verdicts and no label comes with answer lengths."
    return Section(6, "bias", "What moves the judge beside quality", answer, level, tuple(blocks))


def _position(found: PositionBias, q: float | None) -> Iterator[Block]:
    why = f"no pair has two verdicts ({found.invalid} of {found.pairs + found.invalid} without)"
    lone = "no pair went to the same place in both orders"
    test = f"p {p_value(found.p)}, q {p_value(q)}" if found.p is not None else ""
    yield Figures(
        (
            figure("same verdict in both orders", found.consistency, why, unit="share"),
            figure("pull of the first place", found.net_first, why, unit="points", note=_PULL),
            figure(
                "verdicts that follow the place",
                found.first_rate,
                lone,
                unit="share",
                note=f"{_FOLLOWS}; {test}" if test else _FOLLOWS,
            ),
            figure("pull on the preference", found.score_shift, why, unit="points", note=_SHIFT),
        ),
        "Position: does the place in the prompt decide? (needs no label; "
        f"{counted(found.pairs, 'pair')}, {found.invalid} invalid)",
    )


def _flips(found: FlipSources | None) -> Iterator[Block]:
    title = "Why verdicts flip (needs no label)"
    if found is None:
        why = "every pair was judged once in each order; judge run --repeat 3 tells noise from position"
        yield Figures((Figure("noise against order", Absent(why)),), title)
        return
    why = "too few repeats with a verdict"
    yield Figures(
        (
            figure("repeats that differ (noise)", found.noise, why, unit="share"),
            figure("orders that differ", found.order, why, unit="share"),
            figure("what order adds to noise", found.position, why, unit="points"),
            figure("stability of a verdict", found.stability, why, unit="share"),
        ),
        title,
    )


def _styles(card: BiasCard) -> Iterator[Block]:
    title = "Length and style: does it like more of them than people do? (needs labels)"
    if not card.styles:
        why = "no labelled pair with a verdict comes with lengths that differ"
        yield Figures((Figure("judge minus people", Absent(why)),), title)
        return
    yield Table(
        ("more of", "judge beyond people", "p", "q"),
        tuple((s.feature, s.bias, p_value(s.p_two_sided), p_value(card.q.get(s.feature))) for s in card.styles),
        title=title,
        units=("points", "plain", "plain"),
        n=tuple(s.bias.n for s in card.styles),
    )
    yield Table(
        ("more of", "moves the judge", "moves people"),
        tuple((s.feature, s.judge, s.human) for s in card.styles),
        note=_SLOPES,
        units=("points", "points"),
        n=tuple(s.bias.n for s in card.styles),
    )


def segments(report: CalibrationReport) -> Section:
    """8: the corrected win rate by segment, the worst first."""
    found = report.segments
    title = "Win rate by segment"
    if isinstance(found, Refused):
        return Section(8, "segments", title, f"Segments are {withheld(found)}.", "bad")
    if not found:
        return Section(8, "segments", title, "None: the pairs carry no category.", "soft")
    ordered = sorted(found, key=_worth)
    shown = ordered[:LISTED]
    few = Absent("labels on fewer than two prompts")
    none = Absent("no label in any segment")
    rows = tuple((s.name or "(no category)", s.shrunk or none, s.corrected or few, p_value(s.q)) for s in shown)
    table = Table(
        ("segment", "shrunk", "its own labels", "q"),
        rows,
        note=(
            "Worst first. Shrunk: the judge's bias in a segment is pulled towards the common one as far as its noise "
            "demands. q: Benjamini-Hochberg over the segments, of its own rate against 50%. n: labels."
        ),
        units=("share", "share", "plain"),
        n=tuple(s.labels for s in shown),
        left_out=len(ordered) - len(shown),
    )
    judged = Table(
        ("segment", "judge scale"),
        tuple((s.name or "(no category)", s.judge or Absent("no pair has a verdict")) for s in shown),
        units=("share",),
        n=tuple(s.judge.n if s.judge else s.judged for s in shown),
        left_out=len(ordered) - len(shown),
    )
    losing = [s for s in ordered if s.q is not None and s.q < _LOUD and s.corrected and s.corrected.value < 0.5]
    named = ", ".join(f"{s.name} (q {p_value(s.q)}, n {s.labels})" for s in losing[:LISTED])
    answer = f"The candidate loses in: {named}." if losing else f"In none of {len(found)} is it shown to lose."
    level: Level = "bad" if losing else "ink"
    return Section(8, "segments", title, answer, level, (_segment_forest(shown), table, judged))


def _worth(segment: SegmentRate) -> float:
    best = segment.shrunk or segment.corrected or segment.judge
    return 2.0 if best is None else best.value


def _segment_forest(shown: list[SegmentRate]) -> Chart:
    rates = [(segment, segment.shrunk or segment.corrected) for segment in shown]
    rows = [
        {**interval_row(segment.name or "(no category)", rate), "n": segment.labels}
        for segment, rate in rates
        if rate is not None
    ]
    title = "Shrunk win rate on the human scale by segment, worst first, with the mark of an even match at 50%"
    return Chart("segments", title, forest(rows, PAPER, title="Win rate on the human scale; n labels", unit="share"))


def drift(report: CalibrationReport) -> Section:
    """9: whether the judge stands still."""
    card = report.drift
    title = "Drift against an earlier run"
    if card is None:
        answer = "Not asked for: judge calibrate --since RUN compares with an earlier run of the same pairs."
        return Section(9, "drift", title, answer, "soft")
    blocks: list[Block] = []
    if card.judge_changed:
        blocks.append(Prose("Another judge or rubric: this is a change, not a drift.", "care"))
    blocks += _anchors(card.anchors)
    blocks += _panels(card)
    if card.cusum is not None:
        blocks += _cusum(card.cusum)
    level: Level
    if card.anchors is None:
        answer, level = f"No pair is the same in run {card.previous}.", "care"
    else:
        moved = moves(card.anchors, card.cusum)
        answer = f"Against run {card.previous} it has {_moved(card.anchors, card.cusum, moved)}."
        level = "care" if moved else "good"
    return Section(9, "drift", title, answer, level, tuple(blocks))


def _moved(found: AnchorDrift, watched: Cusum | None, moved: tuple[Moved, ...]) -> str:
    """Which of the four moved, or what stands behind "not been shown to"."""
    if found.identical:
        return f"not moved: every preference is identical (n {found.n})"
    said: dict[Moved, str] = {"preference": f"mean preference {_change(found)}"}
    if found.accuracy is not None:
        gap = found.accuracy
        test = f"n {gap.n}, McNemar p {p_value(found.mcnemar)}"
        said["accuracy"] = f"accuracy {number(gap.value, 'points')} {span(gap, 'points')} ({test})"
    floor = "noise floor unknown" if found.noise_flips is None else f"noise {number(found.noise_flips.value, 'share')}"
    flips = f"{number(found.flips.value, 'share')} {span(found.flips, 'share')}"
    said["verdicts"] = f"{flips} of verdicts changed side (n {found.flips.n}, {floor})"
    if watched is not None and watched.alarm_at is not None:
        said["stream"] = f"CUSUM {_alarm(watched)}"
    if not moved:
        return f"not been shown to move: {said['preference']}; {said['verdicts']}"
    rest = "" if "preference" in moved else f"; its mean preference hides it: {_change(found)}"
    return f"moved: {'; '.join(said[name] for name in moved)}{rest}"


def _change(found: AnchorDrift) -> str:
    shift = found.shift
    return f"{number(shift.value, 'signed')} {span(shift, 'signed')} (n {shift.n}, p {p_value(found.p_value)})"


def _alarm(found: Cusum) -> str:
    return f"alarm {found.direction} at stretch {found.alarm_at} of {len(found.up)}"


def _anchors(found: AnchorDrift | None) -> Iterator[Block]:
    if found is None:
        return
    none = "the earlier run judged each pair once; repeats give the noise floor"
    gold = "no anchor has a label"
    moved = f"McNemar p {p_value(found.mcnemar)}; {found.gained} became right, {found.lost} wrong"
    yield Figures(
        (
            Figure("change of preference", found.shift, "signed", f"paired t, p {p_value(found.p_value)}"),
            Figure("verdicts that changed side", found.flips, "share"),
            figure("noise floor", found.noise_flips, none, unit="share"),
            figure("beyond the noise floor", found.excess, none, unit="points"),
            figure("change of accuracy", found.accuracy, gold, unit="points", note=moved if found.accuracy else ""),
        ),
        f"Anchors: {counted(found.n, 'pair')} with the same texts, {found.skipped} left out without a verdict",
    )


def _panels(card: DriftCard) -> Iterator[Block]:
    def row(name: str, found: Shift | None) -> Figure:
        if found is None:
            return Figure(name, Absent("too few values in one of the runs"))
        word = "changed" if found.changed else "not changed"
        base = f"n {found.n_before} before, {found.n_after} now"
        text = f"{word}: {number(found.statistic)}, limit {number(found.threshold)} ({base})"
        return Figure(name, text, note=f"{found.method}, p {p_value(found.p_value)}")

    yield Figures((row("confidence", card.confidence), row("candidate length", card.length)), "Distributions")


def _cusum(found: Cusum) -> Iterator[Block]:
    name = "CUSUM"
    series = {"up": found.up, "down": found.down}
    x = f"Stretch of ten anchors, of {counted(len(found.up), 'stretch', 'stretches')}"
    yield Chart("cusum", "CUSUM of the change", sums(series, PAPER, limit=found.limit, title=x))
    told = "no alarm" if found.alarm_at is None else _alarm(found)
    note = f"limit {found.limit:.3g}: one false alarm in {found.run_length:.0f} stretches of ten anchors"
    yield Figures((Figure(name, f"{told} (n {counted(len(found.up), 'stretch', 'stretches')})", note=note),))


def validity(report: CalibrationReport) -> Section:
    """10: what the figures rest on, failures first."""
    marks: dict[bool | None, tuple[str, Level]] = {
        False: ("FAILS", "bad"),
        None: ("unknown", "care"),
        True: ("holds", "good"),
    }
    blocks: list[Block] = []
    for holds in (False, None, True):
        for assumption in report.ledger:
            if assumption.holds is holds:
                word, level = marks[holds]
                cost = f" Withheld: {assumption.costs}." if assumption.costs and holds is not True else ""
                blocks.append(Prose(f"{word}: {assumption.name}. {assumption.text}{cost}", level))
    failed = [assumption.name for assumption in report.ledger if assumption.holds is False]
    unknown = sum(assumption.holds is None for assumption in report.ledger)
    total = len(report.ledger)
    fail = "fails" if len(failed) == 1 else "fail"
    answer = f"{len(failed)} of {counted(total, 'assumption')} {fail}, {unknown} cannot be told."
    return Section(10, "validity", "What these figures rest on", answer, "bad" if failed else "ink", tuple(blocks))


def self_check(report: CalibrationReport) -> Section:
    """11: the coverage that the estimator has at these sizes."""
    found = report.self_check
    title = "Self-check of the interval"
    if found is None:
        answer = "Not asked for: judge calibrate --self-check simulates the estimator at these sizes."
        return Section(11, "self-check", title, answer, "soft")
    if isinstance(found, Refused):
        return Section(11, "self-check", title, f"The self-check is {withheld(found)}.", "bad")
    level: Level = "ink" if found.holds is None else "good" if found.holds else "bad"
    return Section(11, "self-check", title, found.sentence, level, tuple(_checked(found)))


def _checked(found: SelfCheck) -> Iterator[Block]:
    why = f"the estimator refused in all {found.rounds} rounds"
    promised = f"promised {number(found.level, 'share')}"
    yield Figures(
        (
            figure("measured coverage", found.coverage, why, unit="share", note=promised),
            figure("mean width, corrected", found.width, why, unit="share"),
            figure("mean width, labels alone", found.human_width, why, unit="share"),
            figure("mean error", found.bias, why, unit="points"),
        )
    )
    rho = "none" if found.rho is None else number(found.rho)
    yield Prose(
        f"{counted(found.rounds, 'simulated run')}, {found.refused} refused; {counted(found.labels, 'label')} of "
        f"{counted(found.pairs, 'pair')} on {counted(found.prompts, 'prompt')}, drawn: {found.design}, "
        f"{found.estimand}, {found.method}. The simulated population "
        f"has rho {rho}, {number(found.ties, 'share')} ties, and a correlation of {number(found.within)} "
        "within a prompt.",
        "soft",
    )
    for note in found.notes:
        yield Prose(f"{note[:1].upper()}{note[1:]}.", "care")
