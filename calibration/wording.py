"""Which phrases does one side use more? Log-odds with an informative Dirichlet prior, and how repetitive a text is.

``log_odds`` is "Fightin' Words" (Monroe, Colaresi and Quinn 2008): for phrase w with counts y_w of n on one side and
z_w of m on the other, prior a_w = A (y_w + z_w) / (n + m),

    d_w = ln((y_w + a_w) / (n + A - y_w - a_w)) - ln((z_w + a_w) / (m + A - z_w - a_w)),
    var_w = 1 / (y_w + a_w) + 1 / (z_w + a_w),    score_w = d_w / sqrt(var_w).

The prior keeps rare phrases from winning by chance. Counts are of answers that hold a phrase, not of phrases, so that
one repetitive answer cannot name it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .estimates import Estimate, t_quantile

__all__ = ["Odds", "jackknife", "log_odds"]


@dataclass(frozen=True, slots=True)
class Odds:
    """One phrase: answers that hold it on either side, the log-odds and its score (in standard deviations)."""

    phrase: str
    candidate: int
    baseline: int
    log_odds: float
    score: float


def log_odds(
    candidate: Mapping[str, int], baseline: Mapping[str, int], *, strength: float = 500.0, least: int = 3
) -> tuple[Odds, ...]:
    """Phrases by score, the candidate's own first; ``least`` is the number of answers that must hold one.

    ``strength`` is A, the weight of the prior in answers-times-phrases. Ties go by the alphabet.
    """
    n, m = sum(candidate.values()), sum(baseline.values())
    if not n or not m:
        return ()
    found = []
    for phrase in candidate.keys() | baseline.keys():
        y, z = candidate.get(phrase, 0), baseline.get(phrase, 0)
        if y + z < least or y + z == n + m:  # the only phrase there is tells nobody apart, and its odds are infinite
            continue
        prior = strength * (y + z) / (n + m)
        gap = math.log((y + prior) / (n + strength - y - prior)) - math.log((z + prior) / (m + strength - z - prior))
        found.append(Odds(phrase, y, z, gap, gap / math.sqrt(1 / (y + prior) + 1 / (z + prior))))
    return tuple(sorted(found, key=lambda odds: (-odds.score, odds.phrase)))


def jackknife(
    statistic: Callable[[Sequence[int]], float], n: int, *, groups: int = 20, level: float = 0.95, method: str = ""
) -> Estimate | None:
    """A statistic of a whole collection (a compression ratio), with a delete-a-group jackknife interval.

    ``statistic`` takes row numbers. Rows go to ``groups`` groups in turn; se^2 = (G - 1)/G sum (t_g - mean t)^2 with
    G - 1 degrees of freedom (Shao and Tu 1995). ``None`` for fewer than two rows per group.
    """
    if n < 2 * groups:
        return None
    rows = np.arange(n)
    value = statistic(rows.tolist())
    left = np.array([statistic(rows[rows % groups != group].tolist()) for group in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(((left - left.mean()) ** 2).sum()))
    half = t_quantile(level, groups - 1) * error
    return Estimate(
        value, value - half, value + half, level, n, n, f"{method}delete-a-group jackknife, {groups} groups"
    )
