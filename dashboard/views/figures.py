"""From sums of the rollup to figures with intervals, as frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calibration.estimates import Estimate
from calibration.sums import Sums, accuracy_of, geometric_mean_of, mean_of, share_of

if TYPE_CHECKING:
    import polars

__all__ = [
    "LEVEL",
    "by_cell",
    "estimate",
    "heat_rows",
    "reliability_rows",
    "run_rows",
    "segment_rows",
    "stretch_rows",
    "verdict",
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
                "cost": cell["cost"].total if "cost" in cell and cell["cost"].n == _n(cell, "invalid") else None,
            }
        )
    return sorted(rows, key=lambda row: (row["net"] is None, row["net"] or 0.0))


def heat_rows(frame: polars.DataFrame, *, least: int = 10) -> list[dict[str, Any]]:
    """One row a cell of a two-way table; a cell with fewer than ``least`` judged rows says so and shows no number."""
    rows = []
    for (value, other), cell in by_cell(frame, "value", "other").items():
        judged = _n(cell, "net")
        net = estimate(cell, "net") if judged >= least else None
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


def stretch_rows(frame: polars.DataFrame, measure: str) -> list[dict[str, Any]]:
    """One measure over the stretches of a run, in the order of judging, with the run's own limits.

    The limits hold one stretch each to the mean of the run at a two-sided level of 0.27% (three standard errors of a
    normal mean): with 40 stretches a run without drift shows one outside in about one of ten runs.
    """
    cells = by_cell(frame, "value")
    whole = _whole(cells.values(), measure)
    rows = []
    for at, ((name,), cell) in enumerate(sorted(cells.items()), 1):
        sums = cell.get(measure)
        if sums is None or whole is None:
            continue
        mean = sums.total / sums.n
        spread = max(whole.squares / whole.n - (whole.total / whole.n) ** 2, 0.0)
        half = 3.0 * (spread / sums.n) ** 0.5
        centre = whole.total / whole.n
        outside = abs(mean - centre) > half > 0
        rows.append(
            {"stretch": at, "name": name, "value": mean, "n": sums.n, "centre": centre, "low": centre - half,
             "high": centre + half, "state": "outside" if outside else "inside"}
        )  # fmt: skip
    return rows


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
