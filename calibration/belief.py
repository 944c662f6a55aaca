"""From measures to words: which assumptions hold, and how far the judge can be believed.

The rules are few and literal; each stands in a table below with the sentence it prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .drift import moves
from .estimates import Estimate
from .evidence import Matched
from .provenance import Refused, label_more

if TYPE_CHECKING:
    from .report import CalibrationReport

__all__ = ["Assumption", "Belief", "Word", "believe", "ledger", "more_labels"]

Word = Literal["BELIEVE", "WITH CARE", "DO NOT BELIEVE", "UNKNOWN"]

FEW = 30
ENOUGH = 100
"""Labelled pairs below which agreement is a hint, and from which it carries a decision."""
_NEAR_CEILING = 0.9
_POSITION = 0.1
_INVALID = 0.05
_RATE = "corrected win rate"
_NONE = "There is no label of this run's pairs."
_BIAS_Q = 0.05


@dataclass(frozen=True, slots=True)
class Belief:
    """The verdict: one word, then sentences with the numbers behind it, most important first."""

    word: Word
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing a figure rests on; ``holds`` is ``None`` where nothing tells. ``costs`` names what is withheld."""

    name: str
    holds: bool | None
    text: str
    costs: str = ""


def ledger(report: CalibrationReport, matched: Matched) -> tuple[Assumption, ...]:
    """Every assumption of the report, held against this run and these labels."""
    return (*_labels(report, matched), *_judging(report), *_people(report))


def believe(report: CalibrationReport) -> Belief:
    """The verdict.

    UNKNOWN         fewer than 30 labelled pairs with a verdict and a majority, or no decisive one
    DO NOT BELIEVE  on decisive pairs it is not shown to beat a coin (interval of the accuracy reaches 1/2); or to agree
                    more than habits do (interval of Cohen's kappa reaches 0, or kappa does not exist); or what it says
                    adds nothing to the base rate (held-out log loss); or its preference falls where people's rises
    WITH CARE       an assumption fails; or too few labels, decisive ones, or decisions; or the human ceiling is
                    unknown, or may lie more than a tenth above it; or its confidence is beyond the null band; or it
                    leans to a place; or a style moves it beyond what people do (q below .05)
    BELIEVE         none of these
    """
    agreement = report.agreement
    if agreement.compared >= FEW and agreement.decisive is None:
        why = (
            f"On none of {agreement.compared} labelled pairs do people and judge both decide: ties cannot tell a good "
        )
        return Belief("UNKNOWN", (why + "judge from a bad one. Label pairs that are not ties.", *_rate(report)))
    if agreement.compared < FEW:
        pairs = _plural(agreement.compared, "labelled pair has", "labelled pairs have")
        have = f"{agreement.compared} {pairs} a verdict and a majority"
        if agreement.no_majority:
            have += f" (people were split on {agreement.no_majority} more)"
        text = f"{have}; below {FEW} nothing can be said about this judge. {_sentence(more_labels(report))}"
        return Belief("UNKNOWN", (text, *_rate(report)))
    sentences = (*_agreement(report), *_rate(report))
    faults = tuple(_faults(report))
    if faults:
        return Belief("DO NOT BELIEVE", (*faults, *sentences))
    doubts = tuple(_doubts(report))
    if doubts or any(assumption.holds is False for assumption in report.ledger):
        return Belief("WITH CARE", (*sentences, *doubts))
    return Belief("BELIEVE", sentences)


def more_labels(report: CalibrationReport) -> str:
    """What to label so that something can be said about the judge, in the words of the win rate's own refusal.

    A pair without a verdict tells nothing of the judge, and one that people split on is labelled already.
    """
    agreement, rate = report.agreement, report.win_rate
    return label_more(
        agreement.compared,
        rate.judged - rate.invalid,
        labelled=agreement.labelled - agreement.invalid - agreement.missing,
        least=FEW,
        enough=ENOUGH,
    )


def _faults(report: CalibrationReport) -> Iterator[str]:
    """Why the judge knows nothing, as far as these labels tell."""
    agreement = report.agreement
    if agreement.decisive is not None and agreement.decisive.low <= 0.5:
        yield f"On decisive pairs it is right in {_pct(agreement.decisive)}: not shown to be better than a coin."
    elif agreement.kappa is None:
        yield "It, or people, gave one answer throughout: nothing shows that it tells better from worse."
    elif agreement.kappa.low <= 0:
        kappa = agreement.kappa
        yield (
            f"Its agreement is what habit alone would give: Cohen's kappa {kappa.value:.2f} [{kappa.low:.2f}, "
            f"{kappa.high:.2f}] (n = {kappa.n}) does not exclude 0."
        )
    fitted = report.confidence.fitted
    if not isinstance(fitted, Refused):
        for note in fitted.notes:
            if "inverted" in note or "adds nothing" in note:
                yield _sentence(note)


def _agreement(report: CalibrationReport) -> Iterator[str]:
    agreement = report.agreement
    assert agreement.decisive is not None
    n = agreement.decisive.n
    text = f"Where people agree and both decide, the judge sides with them in {_pct(agreement.decisive)} (n = {n})"
    ceiling = agreement.ceiling
    if ceiling is not None and ceiling.share is not None and ceiling.human is not None:
        people = _pct(ceiling.human)
        text += f"; it agrees with one person {ceiling.share.value:.0%} as often as two people agree ({people})"
    yield text + "."


def _rate(report: CalibrationReport) -> Iterator[str]:
    rate = report.win_rate
    if rate.judge is None:
        return
    if isinstance(rate.corrected, Refused):
        yield (
            f"The judge says {_pct(rate.judge)} for the candidate; what people would say is withheld: "
            f"{rate.corrected.reason}. To get it: {rate.corrected.fix}."
        )
        return
    bias = rate.judge.value - rate.corrected.value
    yield (
        f"People would give the candidate {_pct(rate.corrected)} (prediction-powered, {rate.labels} labels of "
        f"{rate.judged} pairs); the judge alone says {_pct(rate.judge)}, {_off(bias)}."
    )


def _off(bias: float) -> str:
    """By how much the judge's own rate misses what people would say."""
    if abs(bias) < 0.0005:
        return "the same to a tenth of a point"
    return f"{100 * abs(bias):.1f} points too {'high' if bias > 0 else 'low'}"


def _doubts(report: CalibrationReport) -> Iterator[str]:
    agreement, ceiling = report.agreement, report.agreement.ceiling
    if agreement.compared < ENOUGH:
        split = f" (people were split on {agreement.no_majority} more)" if agreement.no_majority else ""
        yield f"Only {agreement.compared} labelled pairs stand behind this{split}; label {ENOUGH} to decide by it."
    elif agreement.decisive is not None and agreement.decisive.n < ENOUGH:
        yield f"Only {agreement.decisive.n} pairs are decided by both; {ENOUGH} are asked for before deciding by it."
    if agreement.decided is not None and agreement.decided.value < 0.5:
        yield f"It decides only {_pct(agreement.decided)} of the pairs that people decide (n = {agreement.decided.n})."
    if ceiling is None and agreement.decisive is not None and agreement.decisive.low < _NEAR_CEILING:
        yield "No pair was labelled by two people, so how much better a judge could be is unknown."
    if ceiling is not None and ceiling.share is not None and ceiling.share.low < _NEAR_CEILING:
        yield f"It may reach only {ceiling.share.low:.0%} of the human ceiling."
    raw = report.confidence.raw
    if raw is not None and raw.ece.beyond_chance:
        yield (
            f"Its own confidence is off: debiased calibration error {raw.ece.error.value:.3f} where chance alone gives "
            f"up to {raw.ece.chance:.3f}; use the calibrated one."
        )
    position = report.bias.position
    if position.net_first is not None and abs(position.net_first.value) > _POSITION:
        place = "first" if position.net_first.value > 0 else "second"
        yield f"It leans to the answer shown {place} ({position.net_first.value:+.2f}); only the swap evens that out."
    for style in report.bias.styles:
        if report.bias.q.get(style.feature, 1.0) < _BIAS_Q:
            way = "more" if style.bias.value > 0 else "less"
            judge, human, low, high = (
                100 * value for value in (style.judge.value, style.human.value, style.bias.low, style.bias.high)
            )
            yield (
                f"It favours {style.feature} {way} than people do, by {100 * abs(style.bias.value):.1f} points: a "
                f"typical step more of it moves its preference by {judge:+.1f}, people's by {human:+.1f} (difference "
                f"[{low:+.1f}, {high:+.1f}], {_q(report.bias.q[style.feature])})."
            )
    for assumption in report.ledger:
        if assumption.holds is False and assumption.costs != _RATE:  # the rate's own sentence says it already
            yield f"{assumption.text}{f' Withheld: {assumption.costs}.' if assumption.costs else ''}"


def _labels(report: CalibrationReport, matched: Matched) -> Iterator[Assumption]:
    """What the corrected win rate asks of the labels: fresh, drawn at random, enough of them."""
    rate = report.win_rate
    refused = rate.corrected if isinstance(rate.corrected, Refused) else None
    kind = refused.kind if refused else ""

    def made(name: str, kinds: tuple[str, ...], *, holds: bool | None, text: str) -> Assumption:
        fails = refused is not None and kind in kinds
        said = _sentence(refused.reason) if refused is not None and fails else text
        return Assumption(name, False if fails else holds, said, _RATE if fails else "")

    out = sum(report.left_out.values())
    why = "; ".join(f"{count} about {reason}" for reason, count in report.left_out.items())
    yield made(
        "labels of these answers",
        ("stale", "rubric"),
        holds=False if out else (True if report.labels else None),
        text=f"{out} {_plural(out, 'label was', 'labels were')} left out: {why}."
        if out
        else ("Every label is about the answers of this run." if report.labels else _NONE),
    )
    unknown = sum(item.drawn == "unknown" for item in matched.gold.items)
    yield made(
        "random draw",
        ("not_random", "chance"),
        holds=None if not report.labels else not unknown,
        text=f"{unknown} {_plural(unknown, 'label does', 'labels do')} not say how the pair was drawn."
        if unknown
        else (_drawn(matched) if report.labels else _NONE),
    )
    yield made(
        "enough labels",
        ("too_few", "no_labels", "unknown_pairs"),
        holds=None if refused else True,
        text=f"{rate.labels} label{'s' * (rate.labels != 1)} may speak for the rate; below {FEW} it has no interval.",
    )
    for note in rate.notes:
        if "hardly were drawn" in note:
            yield Assumption("labels look like the run", False, _sentence(note))


def _drawn(matched: Matched) -> str:
    if all(item.drawn == "all" for item in matched.gold.items):
        return "Every pair of the run is labelled, so nothing hangs on how pairs were drawn."
    return "The labelled pairs were drawn at random, with known chances."


def _people(report: CalibrationReport) -> Iterator[Assumption]:
    """What agreement asks of the annotators: several, independent, sides shuffled."""
    for note in report.warnings:
        if "always on one side" in note:
            yield Assumption("sides shuffled", False, _sentence(note))
        if "one person twice" in note:
            yield Assumption("independent annotators", False, note[:1].upper() + note[1:])
    if report.agreement.ceiling is not None:
        yield Assumption("human ceiling known", True, "Some pairs have two annotators or more.")
    else:
        text = "No pair has two annotators: how often people agree with each other is unknown."
        yield Assumption("human ceiling known", None, text, "human ceiling, alternative annotator test")


def _judging(report: CalibrationReport) -> Iterator[Assumption]:
    """What every figure asks of the judge: verdicts for nearly all pairs, and the same judge as before."""
    rate, bounds = report.win_rate, report.agreement.accuracy_bounds
    text = f"{rate.invalid} of {rate.judged} pairs {_plural(rate.invalid, 'has', 'have')} no verdict"
    if report.agreement.invalid and bounds is not None:
        text += f"; with those wrong or right the agreement lies between {bounds[0]:.0%} and {bounds[1]:.0%}"
    yield Assumption("verdicts", rate.invalid <= _INVALID * rate.judged if rate.judged else None, text + ".")
    anchors = report.drift.anchors if report.drift is not None else None
    if report.drift is not None and anchors is not None and not report.drift.judge_changed:
        moved = moves(anchors, report.drift.cusum)
        on = f"On {anchors.n} anchors of run {report.drift.previous} "
        if anchors.identical:
            text = on + "every preference is identical."
        elif moved:
            shift = f"{anchors.shift.value:+.3f} [{anchors.shift.low:+.3f}, {anchors.shift.high:+.3f}]"
            text = f"{on}its {', '.join(moved)} moved: mean preference {shift}."
        else:
            text = on + "neither its preference, accuracy, verdicts nor CUSUM is shown to have moved."
        yield Assumption("the judge stands still", not moved, text)


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _q(value: float) -> str:
    return f"q = {value:.3f}" if value >= 0.001 else "q < 0.001"


def _pct(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}% [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
