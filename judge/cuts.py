"""Answers that a token limit cut off: how many of either side there are, and how often such an answer wins.

An answer that stops in mid-sentence is seldom the better one. Where it wins against a whole answer, the judge may like
what is long and unfinished, so those pairs are worth reading. Pure: a frame of comparisons in, counts out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calibration.estimates import Estimate, mean

from .endings import was_cut

if TYPE_CHECKING:
    import polars

__all__ = ["Cut", "cut_answers"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Cut:
    """``candidate`` and ``baseline`` are the answers that a token limit ended, of the ``candidate_told`` and
    ``baseline_told`` answers that are known to be whole or cut, of ``n`` pairs.

    ``uneven`` counts the judged pairs of one cut and one whole answer, ``rate`` is the win rate of the cut answers
    among them (a tie counts half), clustered by prompt. ``won`` are the ids of all pairs in which the cut answer won.
    """

    n: int
    candidate: int
    baseline: int
    candidate_told: int
    baseline_told: int
    uneven: int = 0
    rate: Estimate | None = None
    won: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was found, in one or two sentences."""
        sides = [f"{self.candidate} of the candidate's {self.candidate_told} answers",
                 f"{self.baseline} of the baseline's {self.baseline_told}"]  # fmt: skip
        told = f"A token limit cut off {' and '.join(sides)} that are known to be whole or cut"
        if self.rate is None:
            return f"{told}; no pair of a cut and a whole answer was judged."
        lost = "none of the cut answers won" if not self.won else f"the cut answer won {len(self.won)} of them"
        pairs = "1 pair" if self.uneven == 1 else f"{self.uneven} pairs"
        told += f". Of the {pairs} of a cut and a whole answer, {lost}"
        rate = f"a win rate of {self.rate.value:.0%} [{self.rate.low:.0%}, {self.rate.high:.0%}], ties count half"
        if not self.won:
            return f"{told} ({rate})."
        more = f" and {len(self.won) - _SHOWN} more" if len(self.won) > _SHOWN else ""
        read = f"read {'it' if len(self.won) == 1 else 'them'}: {', '.join(self.won[:_SHOWN])}{more}"
        return f"{told} ({rate}){', which is suspicious' if self.rate.low > 0.5 else ''}; {read}."


def cut_answers(frame: polars.DataFrame) -> Cut | None:
    """What comparisons (columns of ``schema/001_runs.sql`` and ``008_endings.sql``) say about cut answers; the first
    repeat of each pair. ``None`` where no answer is known to be whole or cut.
    """
    names = ("candidate_finish", "baseline_finish")
    if any(name not in frame.columns for name in names):
        return None
    rows = frame.filter(frame["repeat"] == 0)
    ends = [[was_cut(word) for word in rows[name].to_list()] for name in names]
    told = [sum(cut is not None for cut in side) for side in ends]
    if not any(told):
        return None
    points, prompts, won = [], [], []
    said = zip(*ends, rows.select("pair_id", "prompt_digest", "outcome").iter_rows(), strict=True)
    for ours, theirs, (pair_id, prompt, outcome) in said:
        if None in (ours, theirs) or ours == theirs or outcome is None:
            continue
        winner = "win" if ours else "loss"
        points.append(1.0 if outcome == winner else 0.5 if outcome == "tie" else 0.0)
        prompts.append(prompt)
        won += [pair_id] if outcome == winner else []
    rate = mean(points, clusters=prompts, bounds=(0.0, 1.0)) if points else None
    candidate, baseline = (sum(cut is True for cut in side) for side in ends)
    return Cut(rows.height, candidate, baseline, told[0], told[1], len(points), rate, tuple(won))
