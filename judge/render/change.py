"""Section 7 of the calibration report: a new rubric or a new judge against the one in use, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .document import Absent, Block, Figure, Figures, Level, Prose, Section, Table, figure
from .words import cut, number, p_value, span

if TYPE_CHECKING:
    from calibration.change import Change, Flip, Verdict
    from calibration.report import CalibrationReport

__all__ = ["change"]

_LEVELS: dict[Verdict, Level] = {"ADOPT": "good", "KEEP": "bad", "UNDECIDED": "care"}
_FLIPS = 30


def change(report: CalibrationReport) -> Section:
    """7: whether the new way to judge should replace the one in use."""
    title = "Rubric or judge change"
    found = report.change
    if found is None:
        answer = "Not asked for: judge calibrate --against RUBRIC (or --against-judge JUDGE) compares two."
        return Section(7, "change", title, answer, "soft")
    gap = found.difference
    answer = f"{found.verdict} {cut(found.new, 60)} (in use: {cut(found.old, 60)})"
    if gap is not None:
        answer += f": accuracy {number(gap.value, 'points')} {span(gap, 'points')} (n {gap.n})"
    blocks: list[Block] = [Prose(f"{reason[:1].upper()}{reason[1:]}.") for reason in found.reasons]
    blocks += [Figures(tuple(_accuracy(found)), _counts(found)), Figures(tuple(_further(found)), "New minus old")]
    blocks += [Figures(tuple(_costs(found)), "Cost, new over old"), Figures(tuple(_power(found)), "Power")]
    blocks += [*_flipped(found.flips), *(Prose(f"{note[:1].upper()}{note[1:]}.", "care") for note in found.notes)]
    return Section(7, "change", title, f"{answer}.", _LEVELS[found.verdict], tuple(blocks))


def _counts(found: Change) -> str:
    left = (
        (found.no_majority, "without a majority"),
        (sum(found.missing), "not judged by a side"),
        (sum(found.invalid), "invalid on a side"),
    )
    told = ", ".join(f"{count} {why}" for count, why in left)
    return f"Accuracy: {found.compared} of {found.labelled} labelled pairs on {found.prompts} prompts ({told})"


def _accuracy(found: Change) -> Iterator[Figure]:
    why = "no pair has a human majority and a verdict of both sides"
    yield figure("in use", found.accuracy_old, why, unit="share")
    yield figure("proposed", found.accuracy_new, why, unit="share")
    yield figure("difference", found.difference, why, unit="points")
    yield figure("with invalid verdicts wrong", found.invalid_as_wrong, why, unit="points")
    test = found.mcnemar
    if test is None:
        yield Figure("exact McNemar", Absent(why))
    else:
        apart = test.only_first + test.only_second
        told = f"p {p_value(test.p_exact)}, mid-p {p_value(test.p_mid)} (n {apart} discordant)"
        note = f"only the new is right {test.only_first}, only the old {test.only_second}"
        yield Figure("exact McNemar", told, note=note)
    same = found.equivalence
    if same is None:
        yield Figure("equivalence (TOST)", Absent("too few prompts, or no difference at all"))
    else:
        word = "equivalent" if same.equivalent else "not shown"
        told = f"{word} within {number(same.margin, 'points')}, p {p_value(same.p)} (n {same.difference.n})"
        note = f"{same.difference.level:.0%} interval {span(same.difference, 'points')}"
        yield Figure("equivalence (TOST)", told, note=note)


def _further(found: Change) -> Iterator[Figure]:
    no_p = "no pair has a preference of both sides"
    yield figure("log loss", found.log_loss, no_p, unit="signed", note="below 0 the new side is better")
    few = "below 30 prompts, or one outcome only"
    yield figure("log loss, calibrated", found.calibrated_log_loss, few, unit="signed", note="cross-fitted")
    yield figure("Cohen kappa", found.kappa, "undefined on one of the sides", unit="signed")
    moved = found.anchors
    if moved is None:
        why = "no unlabelled pair was judged by both; judge calibrate --anchors N judges some"
        yield Figure("win rate on anchors", Absent(why))
        return
    note = f"p {p_value(moved.p_value)}; {moved.skipped} skipped without a verdict"
    yield Figure("win rate on anchors", moved.shift, "points", note)
    yield Figure("verdicts that changed side", moved.flips, "share")


def _costs(found: Change) -> Iterator[Figure]:
    ratios = found.ratios
    base = f"(n {ratios.old_verdicts} old, {ratios.new_verdicts} new)"
    for name, value in (("dollars", ratios.cost), ("tokens", ratios.tokens), ("seconds a call", ratios.seconds)):
        yield Figure(name, Absent("not known on both sides") if value is None else f"{value:.2f}x {base}")


def _power(found: Change) -> Iterator[Figure]:
    power = found.power
    if power is None:
        yield Figure("what these pairs could find", Absent("no pair was compared"))
        return
    yield Figure("pairs where one side is right", power.discordant, "share")
    n = found.compared
    seen = Absent("not even the largest difference possible") if power.detectable is None else None
    told = "" if power.detectable is None else f"{number(power.detectable, 'points')} (n {n})"
    yield Figure("smallest difference seen", seen or told, note=f"with {power.power:.0%} power")
    more = f"; {found.more_pairs} more would decide" if found.more_pairs is not None else ""
    yield Figure("pairs that settle the margin", f"{power.pairs_needed} (have {n}{more})")


def _flipped(flips: tuple[Flip, ...]) -> Iterator[Block]:
    if not flips:
        yield Prose("No pair changed its verdict.", "soft")
        return
    counts = {side: sum(flip.right == side for flip in flips) for side in ("new", "old", "neither")}
    shown = flips[:_FLIPS]
    yield Table(
        ("pair", "people", "old", "new", "right", "moved", "category"),
        tuple(
            (
                flip.pair_id,
                str(flip.human.value),
                str(flip.old.value),
                str(flip.new.value),
                flip.right,
                "none" if flip.moved is None else number(flip.moved, "signed"),
                cut(flip.category, 24) or "-",
            )
            for flip in shown
        ),
        title=(
            f"{len(flips)} changed verdicts: {counts['new']} now agree with people, {counts['old']} no longer do, "
            f"{counts['neither']} neither"
        ),
        left_out=len(flips) - len(shown),
    )
