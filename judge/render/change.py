"""Section 7 of the calibration report: a new rubric or a new judge against the one in use, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .document import Absent, Block, Figure, Figures, Level, Prose, Section, Table, figure
from .words import counted, cut, number, p_value, span

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
    answer = f"{_named(found)}{_shown(found)}.{_unbelieved(report)}"
    blocks: list[Block] = [Prose(f"{reason[:1].upper()}{reason[1:]}.") for reason in found.reasons]
    blocks += [Figures(tuple(_accuracy(found)), _counts(found)), Figures(tuple(_further(found)), "New minus old")]
    blocks.append(Figures(tuple(_costs(found)), "Cost, new over old"))
    blocks.append(Figures(tuple(_power(found)), "What these pairs could find"))
    blocks += [*_flipped(found.flips), *(Prose(f"{note[:1].upper()}{note[1:]}.", "care") for note in found.notes)]
    return Section(7, "change", title, answer, _LEVELS[found.verdict], tuple(blocks))


def _named(found: Change) -> str:
    """The verdict with the side it is about: what is kept or adopted stands right after the word."""
    old, new = cut(found.old, 60), cut(found.new, 60)
    named: dict[Verdict, str] = {
        "ADOPT": f"ADOPT {new} instead of {old}",
        "KEEP": f"KEEP {old}; do not adopt {new}",
        "UNDECIDED": f"UNDECIDED between {old} (in use) and {new} (proposed)",
    }
    return named[found.verdict]


def _shown(found: Change) -> str:
    gap = found.difference
    if gap is None:
        return ""
    if found.compared and not found.flips:
        return f": the same verdict on all compared pairs (n {gap.n})"
    return f": accuracy {number(gap.value, 'points')} {span(gap, 'points')} (n {gap.n})"


def _unbelieved(report: CalibrationReport) -> str:
    """The verdict of the report is about the proposed side alone, and winning a comparison does not lift it."""
    if report.change is None or report.belief.word != "DO NOT BELIEVE":
        return ""
    old, new = cut(report.change.old, 60), cut(report.change.new, 60)
    text = f" Either way {new} is not to be believed"
    if report.change.verdict == "ADOPT":
        return f"{text}: it is only the better choice of the two."
    return f"{text}; {old} was compared here, not measured by itself."


def _counts(found: Change) -> str:
    left = (
        (found.no_majority, "without a majority"),
        (sum(found.missing), "not judged by a side"),
        (sum(found.invalid), "invalid on a side"),
    )
    told = ", ".join(f"{count} {why}" for count, why in left)
    pairs, prompts = counted(found.labelled, "labelled pair"), counted(found.prompts, "prompt")
    return f"Accuracy: {found.compared} of {pairs} on {prompts} ({told})"


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
    few = "below 30 prompts, or one outcome only"
    if found.same_preferences and found.log_loss is not None:
        yield Figure("log loss", f"identical: the same preferences (n {found.log_loss.n})")
    else:
        yield figure("log loss", found.log_loss, no_p, unit="signed", note="below 0 the new side is better")
        yield figure("log loss, calibrated", found.calibrated_log_loss, few, unit="signed", note="cross-fitted")
    if found.kappa is not None and not found.flips:
        yield Figure("Cohen kappa", f"identical: the same verdicts (n {found.kappa.n})")
    else:
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
    if found.verdict != "UNDECIDED":  # it is settled: a number of pairs would read as if it were not
        return
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
            f"{counted(len(flips), 'changed verdict')}: now with people {counts['new']}, no longer {counts['old']}, "
            f"neither {counts['neither']}"
        ),
        left_out=len(flips) - len(shown),
    )
