"""From sums of the rollup to figures with intervals, as frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calibration.estimates import Estimate
from calibration.sums import Sums, accuracy_of, geometric_mean_of, mean_of, share_of
from judge import summary

if TYPE_CHECKING:
    import polars

    from judge.canaries import CanaryVerdict
    from judge.store import RunInfo

__all__ = [
    "FEWEST",
    "LEVEL",
    "STRETCH",
    "by_cell",
    "estimate",
    "heat_rows",
    "reliability_rows",
    "run_rows",
    "segment_rows",
    "stretch_rows",
    "verdict",
    "whole_cost",
]

LEVEL = 0.95
_BOUNDS = {"net": (-1.0, 1.0), "preference": (0.0, 1.0), "confidence": (0.5, 1.0)}
_SHARES = ("win", "tie", "loss", "invalid", "flip", "refusal", "first")
_SUMS = ("n", "total", "squares", "clusters", "tt", "tn", "nn")

Cell = Mapping[str, Sums]


def by_cell(frame: polars.DataFrame, *keys: str) -> dict[tuple[str, ...], dict[str, Sums]]:
    """The sums of a frame of the store by key columns, then by measure."""
    found: dict[tuple[str, ...], dict[str, Sums]] = {}
    for row in frame.iter_rows(named=True):
        cell = found.setdefault(tuple(str(row[key]) for key in keys), {})
        cell[row["measure"]] = Sums(*(row[name] for name in _SUMS))
    return found


def estimate(cell: Cell, measure: str, *, level: float = LEVEL) -> Estimate | None:
    """One measure of a cell with its clustered interval; ``None`` where no row has it."""
    sums = cell.get(measure)
    if sums is None or sums.n == 0:
        return None
    if measure in _SHARES:
        return share_of(sums, level=level)
    if measure == "right":
        return accuracy_of(sums, level=level)
    if measure == "length":
        return geometric_mean_of(sums, level=level)
    return mean_of(sums, level=level, bounds=_BOUNDS.get(measure))


def verdict(net: Estimate | None) -> str:
    """``better``, ``worse`` or ``unclear`` by where the interval lies against zero."""
    if net is None or net.low <= 0 <= net.high:
        return "unclear"
    return "better" if net.low > 0 else "worse"


def segment_rows(frame: polars.DataFrame) -> list[dict[str, Any]]:
    """One row a segment, the worst first: counts, rates with intervals, and a verdict.

    The interval of the net win rate is widened by Bonferroni over the segments, as in ``judge report``, so that one of
    twenty healthy segments is not called worse by chance; the verdict is by that very interval.
    """
    cells = by_cell(frame, "value")
    strict = 1 - (1 - LEVEL) / max(1, len(cells))
    rows = []
    for (name,), cell in cells.items():
        net = estimate(cell, "net", level=strict)
        rows.append(
            {
                "segment": name,
                "n": _n(cell, "invalid"),
                "judged": _n(cell, "net"),
                "invalid": round(cell["invalid"].total) if "invalid" in cell else 0,
                "verdict": verdict(net),
                **_ends("net", net),
                **{part: _value(estimate(cell, part)) for part in ("win", "tie", "loss")},
                **_ends("preference", estimate(cell, "preference")),
                **_ends("flip", estimate(cell, "flip")),
                **_ends("length", estimate(cell, "length")),
                **_ends("right", estimate(cell, "right")),
                "cost": _cost(cell),
            }
        )
    return sorted(rows, key=lambda row: (row["net"] is None, row["net"] or 0.0))


def whole_cost(cell: Cell, canaries: CanaryVerdict, run: RunInfo) -> float | None:
    """What a run took in US dollars, as its report says it; ``cell`` are the sums over all its pairs, and ``None`` says
    that a price is unknown.
    """
    return summary.whole_cost(_cost(cell), canaries, run.header)


def _cost(cell: Cell) -> float | None:
    """What the pairs of a cell took; ``None`` where one of them has no price."""
    return cell["cost"].total if "cost" in cell and cell["cost"].n == _n(cell, "invalid") else None


def heat_rows(frame: polars.DataFrame, *, least: int = 10) -> list[dict[str, Any]]:
    """One row a cell of a two-way table; a cell with fewer than ``least`` judged rows says so and shows no number.

    The intervals are widened by Bonferroni over the cells that show one, and the verdicts go by them.
    """
    rows = []
    cells = by_cell(frame, "value", "other")
    strict = 1 - (1 - LEVEL) / max(1, sum(_n(cell, "net") >= least for cell in cells.values()))
    for (value, other), cell in cells.items():
        judged = _n(cell, "net")
        net = estimate(cell, "net", level=strict) if judged >= least else None
        rows.append({"row": value, "column": other, "n": judged, "verdict": verdict(net), **_ends("net", net)})
    return rows


def run_rows(overview: polars.DataFrame, order: Sequence[str], measure: str) -> list[dict[str, Any]]:
    """One measure over runs in the given order; runs without it are left out."""
    cells = by_cell(overview, "run_id")
    rows = []
    for run in order:
        found = estimate(cells[(run,)], measure) if (run,) in cells else None
        if found is not None:
            rows.append({"run": run, "value": found.value, "low": found.low, "high": found.high, "n": found.n})
    return rows


STRETCH = 25
"""Rows that a stretch of a run holds at the least. Three standard errors of 25 signs are at most 0.6: both limits of a
net win rate near 0 are then values that it can take, and the mean is near enough to normal."""
FEWEST = 4
"""Stretches from which on a control chart says anything."""


def stretch_rows(frame: polars.DataFrame, measure: str) -> list[dict[str, Any]]:
    """One measure over the stretches of a run, in the order of judging, with the run's own limits.

    Neighbouring stretches are joined until each holds ``STRETCH`` rows; empty where that leaves fewer than ``FEWEST``.
    The limits hold one stretch each to the mean of the run at a two-sided level of 0.27% (three standard errors of a
    normal mean), and end where the measure does: with 40 stretches a run without drift shows one outside in about one
    of ten runs. ``score`` is the distance from the mean in standard errors.
    """
    whole = _whole((cell for cell in by_cell(frame, "value").values()), measure)
    joined = _joined(frame, measure)
    if whole is None or len(joined) < FEWEST:
        return []
    least, most = (0.0, 1.0) if measure in _SHARES else _BOUNDS.get(measure, (-math.inf, math.inf))
    if measure == "right":
        least, most = 0.0, 1.0
    told = math.exp if measure == "length" else float  # lengths are summed as logarithms of ratios
    centre = whole.total / whole.n
    spread = max(whole.squares / whole.n - centre**2, 0.0)
    rows = []
    for at, sums in enumerate(joined, 1):
        mean = sums.total / sums.n
        error = (spread / sums.n) ** 0.5
        score = (mean - centre) / error if error > 0 else 0.0
        rows.append(
            {"stretch": at, "value": told(mean), "n": sums.n, "centre": told(centre),
             "low": told(max(least, centre - 3 * error)), "high": told(min(most, centre + 3 * error)),
             "score": score, "state": "outside" if abs(score) > 3 else "inside"}
        )  # fmt: skip
    return rows


def _joined(frame: polars.DataFrame, measure: str) -> list[Sums]:
    """The sums of neighbouring stretches together, ``STRETCH`` rows each at the least; a short rest joins the last."""
    found: list[Sums] = []
    for _name, cell in sorted(by_cell(frame, "value").items()):
        sums = cell.get(measure)
        if sums is None or not sums.n:
            continue
        if found and found[-1].n < STRETCH:
            found[-1] += sums
        else:
            found.append(sums)
    if len(found) > 1 and found[-1].n < STRETCH:
        rest = found.pop()
        found[-1] += rest
    return found


def reliability_rows(histogram: polars.DataFrame) -> list[dict[str, Any]]:
    """Confidence against how often the labels agree, by bin, with Wilson intervals; bins without any are left out."""
    from calibration.estimates import wilson

    rows = []
    for row in histogram.iter_rows(named=True):
        if row["labelled"]:
            low, high = wilson(min(row["agreed"], row["labelled"]), row["labelled"], level=LEVEL)
            rows.append(
                {"confidence": row["mean"], "agreed": row["agreed"] / row["labelled"], "low": low, "high": high,
                 "n": row["labelled"]}
            )  # fmt: skip
    return rows


def _whole(cells: Iterable[Cell], measure: str) -> Sums | None:
    total: Sums | None = None
    for cell in cells:
        sums = cell.get(measure)
        if sums is not None:
            total = sums if total is None else total + sums
    return total


def _n(cell: Cell, measure: str) -> int:
    return cell[measure].n if measure in cell else 0


def _value(found: Estimate | None) -> float | None:
    return None if found is None else found.value


def _ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    """A value and its interval as three columns."""
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
