"""Sections 4 and 5 of the calibration report: is the judge's confidence the people's, and which verdicts may stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from calibration.estimates import Estimate
from calibration.provenance import Refused

from .charts import PAPER, reliability, risk
from .document import Absent, Block, Chart, Figure, Figures, Prose, Section, Table, withheld
from .measures import LISTED, level_of
from .words import counted, number, p_value, span

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from calibration.reliability import Reliability
    from calibration.report import CalibrationReport
    from calibration.selective import Certificate

__all__ = ["calibration", "selective"]

_WRONG = (
    "Wrong: the judge's preference leans to one answer and the mean of the people's labels to the other; where either "
    "is even nothing is wrong."
)


def calibration(report: CalibrationReport) -> Section:
    """4: whether the judge's confidence is the people's."""
    card = report.confidence
    blocks: list[Block] = []
    if card.raw is not None:
        blocks += [_reliability(card.raw, card.calibrated), _scores(card.raw, card.calibrated, card.n)]
    blocks += _map(card.fitted)
    if card.slices:
        shown = card.slices[:LISTED]
        none = Absent("no map")
        blocks.append(
            Table(
                ("slice", "own error", "chance", "calibrated error", "chance"),
                tuple(
                    (
                        s.name,
                        s.raw.ece.error,
                        number(s.raw.ece.chance),
                        none if s.calibrated is None else s.calibrated.ece.error,
                        "-" if s.calibrated is None else number(s.calibrated.ece.chance),
                    )
                    for s in shown
                ),
                title="Debiased calibration error by category and by length",
                note="An error below its chance level is what a perfect judge of that size shows.",
                n=tuple(s.n for s in shown),
                left_out=len(card.slices) - len(shown),
            )
        )
    if card.raw is None:
        answer, level = "Nothing can be said: no labelled pair has a verdict.", "bad"
    else:
        ece = card.raw.ece
        off = ece.beyond_chance
        said = f"calibration error {number(ece.error.value)} {span(ece.error)} (n {ece.error.n})"
        word = "off" if off else "not shown to be off"
        answer = f"Its own confidence is {word}: {said}; chance alone gives up to {number(ece.chance)}."
        level = "care" if off else "good"
    return Section(4, "calibration", "Calibration of the confidence", answer, level_of(level), tuple(blocks))


def _scores(raw: Reliability, calibrated: Reliability | None, n: int) -> Table:
    def row(name: str, pick: Iterable[Estimate | None]) -> tuple[Estimate | Absent | str, ...]:
        return (name, *(value if value is not None else Absent("no finite value") for value in pick))

    cards = [raw, *([calibrated] if calibrated is not None else [])]
    rows = (
        row("debiased ECE", [card.ece.error for card in cards]),
        ("by chance alone, 95%", *(number(card.ece.chance) for card in cards)),
        row("smooth ECE", [card.smooth_ece.error for card in cards]),
        ("by chance alone, 95%", *(number(card.smooth_ece.chance) for card in cards)),
        row("Brier score", [card.brier for card in cards]),
        row("MCB, miscalibration", [card.miscalibration for card in cards]),
        row("DSC, discrimination", [card.discrimination for card in cards]),
        row("UNC, uncertainty", [card.uncertainty for card in cards]),
        row("log loss (nats)", [card.log_loss for card in cards]),
        row("slope (1 is right)", [card.slope.slope if card.slope else None for card in cards]),
        row("intercept (0 is right)", [card.slope.intercept if card.slope else None for card in cards]),
        ("p of both together", *(p_value(card.slope.p_value) if card.slope else "none" for card in cards)),
    )
    head = ("", "judge's own", "calibrated") if calibrated is not None else ("", "judge's own")
    return Table(
        head,
        rows,
        title=f"Scores on {counted(n, 'label')} of {counted(raw.clusters, 'prompt')}; calibrated values are held out",
        note="Brier = MCB - DSC + UNC. A slope below 1 is over-confidence.",
        n=(raw.n,) * len(rows),
    )


def _map(fitted: Calibration | Refused) -> Iterator[Block]:
    title = "The chosen map"
    if isinstance(fitted, Refused):
        yield Figures((Figure("map", fitted),), title)
        return
    size = f"{counted(fitted.n, 'label')}, {counted(fitted.clusters, 'prompt')}"
    rows = [Figure("map", f"{fitted.method} (n {size})"), Figure("why", _why(fitted))]
    gain = fitted.quality.get("log_loss_gain")
    if gain is not None:
        rows.append(
            Figure("log loss saved", gain, "signed", "held out, judge's own minus calibrated; above 0 is better")
        )
    yield Figures(tuple(rows), title)
    for note in fitted.notes:
        yield Prose(f"{note[:1].upper()}{note[1:]}.", "care")


def _why(fitted: Calibration) -> str:
    """Why this map: the best of those that competed, or the only one that these labels allow."""
    losses = sorted(fitted.considered.items(), key=lambda pair: pair[1])
    told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses)
    if not told:
        return "asked for by name"
    if len(losses) > 1:
        return f"lowest held-out log loss: {told}"
    if fitted.method == "constant":
        return "the judge says the same of every pair, so no other map can be fitted"
    return f"the only map that {counted(fitted.clusters, 'prompt')} allow; held-out log loss: {told}"


def _reliability(raw: Reliability, calibrated: Reliability | None) -> Chart:
    lines = [
        {"name": name, "forecast": point.forecast, "observed": point.observed, "n": point.n}
        for name, card in (("judge's own", raw), ("calibrated, held out", calibrated))
        if card is not None
        for point in card.diagram
    ]
    band = [{"forecast": p.forecast, "low": p.band_low, "high": p.band_high, "n": p.n} for p in raw.diagram]
    title = "Reliability diagram (CORP): band of a perfect judge (90%), and how many labels stand at each value"
    return Chart("reliability", title, reliability(lines, band, PAPER))


def selective(report: CalibrationReport) -> Section:
    """5: which verdicts may stand alone, with a guarantee."""
    card, total = report.selective, report.win_rate.judged
    blocks: list[Block] = []
    if card.curve:
        blocks.append(_risk(report))
    title = "Which verdicts may stand alone"
    if isinstance(card.certificates, Refused):
        blocks.append(Figures((Figure("thresholds and certificates", card.certificates),), "Certificates"))
        answer = f"A threshold with a guarantee is {withheld(card.certificates)}."
        return Section(5, "selective", title, answer, "bad", tuple(blocks))
    rows = tuple(_certificate(made, out, total) for made, out in zip(card.certificates, card.abstained, strict=True))
    blocks.append(Figures(rows, "Certificates (guarantee holds with 90% confidence, for pairs like these)"))
    blocks.append(Prose(_WRONG, "soft"))
    if card.thinned:
        drawn = f"{counted(card.thinned, 'label')} of pairs that were drawn more often than others"
        text = f"{drawn} {'is' if card.thinned == 1 else 'are'} left out here (seeded)"
        blocks.append(Prose(f"{text}: the guarantee asks for one chance for all.", "soft"))
    if not card.n:
        cheapest = "none: no labelled pair has a verdict"
    elif card.cheapest is None:
        cheapest = f"label everything (n {card.n})"
    else:
        cheapest = f"confidence >= {number(card.cheapest)} (n {card.n})"
    note = (
        f"cost {card.cost:.3f} human labels a pair, where a wrong verdict costs {card.error_cost:g}" if card.n else ""
    )
    blocks.append(Figures((Figure("cheapest threshold", cheapest, note=note),), "Cost"))
    blocks += _curve_table(report)
    held = [made for made in card.certificates if made.threshold is not None]
    if held and held[0].threshold is not None and held[0].coverage is not None:
        kept = f"{number(held[0].coverage.value, 'share')} of the labelled pairs (n {held[0].coverage.n})"
        answer = f"At confidence {number(held[0].threshold)} or more at most {held[0].alpha:.0%} are wrong: {kept}."
        level = "good"
    else:
        answer, level = f"No threshold can be certified with {counted(card.n, 'label')}.", "care"
    return Section(5, "selective", title, answer, level_of(level), tuple(blocks))


def _certificate(made: Certificate, out: int, total: int) -> Figure:
    """One tolerated error rate. Shares are of the labelled pairs it was tested on, the queue is of the whole run."""
    head, queue = f"at most {made.alpha:.0%} wrong", f"{out} of the run's {counted(total, 'pair')} go to people"
    if made.threshold is None or made.coverage is None or made.risk is None:
        need = "at these error rates no number would do" if made.needed is None else f"need about {made.needed}"
        if made.needed is not None and made.needed > total:
            need += f", more than the run's {counted(total, 'pair')}: judge more"
        return Figure(head, f"cannot certify with {counted(made.n, 'label')}; {need}", note=f"all {queue}")
    text = f"certified at confidence >= {number(made.threshold)} (n {made.n})"
    risk = f"wrong {number(made.risk.value, 'share')}, upper bound {number(made.risk.high, 'share')} (n {made.risk.n})"
    kept = f"{number(made.coverage.value, 'share')} {span(made.coverage, 'share')}"
    return Figure(head, text, note=f"{risk}; keeps {kept} of the labelled pairs (n {made.coverage.n}); {queue}")


def _risk(report: CalibrationReport) -> Chart:
    made = report.selective.certificates
    rows = [
        {"coverage": p.coverage, "risk": p.risk, "bound": p.bound, "threshold": p.threshold, "n": p.n}
        for p in sorted(report.selective.curve, key=lambda point: point.coverage)
    ]
    levels = [] if isinstance(made, Refused) else [one.alpha for one in made]
    title = "Risk and coverage: how often the verdicts that are kept oppose people"
    return Chart("risk", title, risk(rows, PAPER, levels=levels))


def _curve_table(report: CalibrationReport) -> Iterator[Block]:
    curve = report.selective.curve
    if not curve:
        return
    step = max(1, len(curve) // 8)
    shown = curve[::step]
    yield Table(
        ("confidence at least", "keeps", "wrong", "upper bound R+"),
        tuple(
            (number(p.threshold), number(p.coverage, "share"), number(p.risk, "share"), number(p.bound, "share"))
            for p in shown
        ),
        title="Risk and coverage on the labelled pairs",
        n=tuple(p.n for p in shown),
        left_out=len(curve) - len(shown),
    )
