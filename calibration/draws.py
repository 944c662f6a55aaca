"""Which pairs to label: drawn so that the labels can speak for the whole run, with the chance of each pair kept.

A chance that was not stored cannot be recovered, and labels without one cannot correct a win rate.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rubrics.errors import InputError

from .estimates import Values

__all__ = ["Draw", "DrawnPair", "draw_active", "draw_random", "draw_stratified", "proportional"]


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """One pair to label, the chance with which it was drawn, and its stratum (empty without strata)."""

    pair_id: str
    probability: float
    stratum: str = ""


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample of a run: ``how``, ``seed``, the frame it came from (size, digest of its sorted ids), and the pairs.

    ``probabilities`` holds the chance of every pair of the frame, drawn or not.
    """

    how: str
    seed: int
    frame_size: int
    frame_digest: str
    pairs: tuple[DrawnPair, ...]
    probabilities: Mapping[str, float]


def draw_random(pair_ids: Sequence[str], n: int, *, seed: int = 0) -> Draw:
    """``n`` pairs, simple random without replacement: every pair has the chance n/N. Equal for any order of ids."""
    frame = _frame(pair_ids, n)
    picked = np.random.default_rng(seed).permutation(len(frame))[:n]
    chance = n / len(frame)
    pairs = tuple(DrawnPair(frame[k], chance) for k in sorted(picked))
    return _draw("random", seed, frame, pairs, dict.fromkeys(frame, chance))


def draw_stratified(
    strata: Mapping[str, str], n: int, *, seed: int = 0, spread: Mapping[str, float] | None = None
) -> Draw:
    """``n`` pairs, each stratum (pair id -> stratum name) in proportion to its size, simple random within it.

    With ``spread`` (stratum -> standard deviation of human minus judge) the sizes follow size times spread (Neyman
    1934; for prediction-powered estimates arXiv 2406.04291). Every stratum gets at least two pairs where it has them
    and ``n`` allows it.
    """
    frame = _frame(list(strata), n)
    sizes = Counter(strata[pair] for pair in frame)
    names = sorted(sizes)
    if spread is not None and (set(names) - set(spread) or not all(v >= 0 for v in spread.values())):
        raise InputError("spread needs one value of 0 or more for every stratum")
    wants = [sizes[name] * (spread[name] if spread is not None else 1.0) for name in names]
    counts = proportional(wants, n, limits=[sizes[name] for name in names])
    rng = np.random.default_rng(seed)
    chances: dict[str, float] = {}
    pairs: list[DrawnPair] = []
    for name, count in zip(names, counts, strict=True):
        members = [pair for pair in frame if strata[pair] == name]
        chance = count / len(members)
        chances |= dict.fromkeys(members, chance)
        pairs += [DrawnPair(members[k], chance, name) for k in sorted(rng.permutation(len(members))[:count])]
    return _draw("stratified", seed, frame, tuple(pairs), chances)


def draw_active(uncertainty: Mapping[str, float], n: int, *, seed: int = 0, mix: float = 0.5) -> Draw:
    """``n`` pairs, the uncertain ones more often: chance (1-mix) n u / sum u + mix n/N, capped at 1.

    Zrnic and Candes 2024.     ``uncertainty`` maps pair id to u >= 0, e.g. 1 - confidence. ``mix`` above 0 keeps every
    chance well above 0, or one unlucky pair carries the estimate (robust active inference, arXiv 2511.08991). The
    sample has exactly ``n`` pairs: systematic sampling of the chances along a random order (Madow 1949).
    """
    if not 0 < mix <= 1:
        raise InputError(f"mix must lie above 0 and up to 1, not {mix}: pairs without a chance cannot be spoken for")
    frame = _frame(list(uncertainty), n)
    u = np.array([uncertainty[pair] for pair in frame], dtype=float)
    if not (np.isfinite(u) & (u >= 0)).all():
        raise InputError("uncertainty must be finite and 0 or more for every pair")
    total = float(u.sum())
    wanted = mix / len(frame) + (1 - mix) * (u / total if total > 0 else np.full(len(frame), 1 / len(frame)))
    chances = _capped(wanted, n)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(frame))
    edges = np.concatenate([[0.0], np.cumsum(chances[order])])
    edges[-1] = n
    marks = np.arange(n) + rng.random()
    picked = sorted(order[np.searchsorted(edges, marks, side="right") - 1])
    pairs = tuple(DrawnPair(frame[k], float(chances[k])) for k in picked)
    return _draw("active", seed, frame, pairs, {pair: float(c) for pair, c in zip(frame, chances, strict=True)})


def proportional(sizes: Values, n: int, *, limits: Sequence[int], least: int = 2) -> list[int]:
    """Whole numbers that sum to ``n`` in proportion to ``sizes``, none over its limit, each ``least`` if that fits."""
    want = np.asarray(sizes, dtype=float)
    top = np.asarray(limits, dtype=np.int64)
    floor = np.minimum(top, least)
    counts = floor.copy() if floor.sum() <= n else np.zeros(len(top), dtype=np.int64)
    while counts.sum() < n:
        open_ = counts < top
        weights = np.where(open_, np.maximum(want, 1e-12), 0.0)
        short = np.where(open_, weights / weights.sum() * n - counts, -np.inf)
        counts[int(np.argmax(short))] += 1
    return [int(count) for count in counts]


def _capped(wanted: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Chances that sum to ``n``: those that would pass 1 are set to 1 and the rest share what is left."""
    full = np.zeros(len(wanted), dtype=bool)
    while True:
        left = n - int(full.sum())
        scale = left / wanted[~full].sum() if (~full).any() else 0.0
        chances = np.where(full, 1.0, wanted * scale)
        over = (chances > 1) & ~full
        if not over.any():
            return np.minimum(chances, 1.0)
        full |= over


def _frame(pair_ids: Sequence[str], n: int) -> list[str]:
    frame = sorted(set(pair_ids))
    if len(frame) < len(pair_ids):
        raise InputError("a pair id stands twice in the frame; draw from each pair once")
    if not 0 < n <= len(frame):
        raise InputError(f"{n} pairs cannot be drawn from {len(frame)}")
    return frame


def _draw(
    how: str, seed: int, frame: Sequence[str], pairs: tuple[DrawnPair, ...], chances: Mapping[str, float]
) -> Draw:
    if math.isclose(min(chances.values()), 1.0):
        how = "all"
    return Draw(how, seed, len(frame), hashlib.sha256("\n".join(frame).encode()).hexdigest(), pairs, chances)
