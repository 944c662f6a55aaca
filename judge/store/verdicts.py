"""Reading and joining verdicts for whole columns: ``protocol.reading`` and ``protocol.joined`` on arrays of numbers.

A run's probabilities are the same arithmetic a hundred thousand times. Here it is done once for a column, in the same
order of operations and therefore to the same last bit; the tests hold both against each other on every kind of reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..types import InvalidReason, Outcome

if TYPE_CHECKING:
    import polars
    from numpy.typing import NDArray

    from rubrics import TieRule

__all__ = ["CODES", "columns"]

CODES: dict[InvalidReason, int] = {reason: number for number, reason in enumerate(InvalidReason, 1)}
"""Reasons as numbers, the graver the higher; 0 is a reply with numbers."""
_OUTCOMES = (Outcome.WIN.value, Outcome.TIE.value, Outcome.LOSS.value, None)
_REASONS = (None, *(reason.value for reason in InvalidReason))
_WIN, _TIE, _LOSS, _NONE = range(4)


def columns(
    one: NDArray[np.float64],
    two: NDArray[np.float64],
    codes: tuple[NDArray[np.int64], NDArray[np.int64]],
    rule: TieRule,
) -> tuple[dict[str, polars.Series], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The columns of verdicts and comparisons, and the reason codes of both orders.

    ``one`` and ``two`` hold a row for each comparison: P(first is better), P(tie), P(second is better) as the replies
    to the candidate's and the baseline's order give them; what stands where ``codes`` has a reason is not looked at.
    Probabilities that are no distribution get the code of ``NOT_FINITE``.
    """
    cf, cf_codes = _side(one, codes[0], flipped=False)
    bf, bf_codes = _side(two, codes[1], flipped=True)
    invalid = np.maximum(cf_codes, bf_codes)
    valid = invalid == 0
    win, tie, loss = ((cf[name] + bf[name]) / 2 for name in ("win", "tie", "loss"))
    preference = 0.5 + (win - loss) / 2
    consistent = cf["outcome"] == bf["outcome"]
    outcome = np.where(win - loss > 2 * rule.margin, _WIN, np.where(loss - win > 2 * rule.margin, _LOSS, _TIE))
    if rule.conflict == "tie":
        outcome = np.where(consistent, outcome, _TIE)
    numbers = {
        "p_win": win, "p_tie": tie, "p_loss": loss, "preference": preference,
        "confidence": np.maximum(preference, 1 - preference),
    }  # fmt: skip
    found = {
        "outcome": _named(np.where(valid, outcome, _NONE), _OUTCOMES),
        "invalid": _named(invalid, _REASONS),
        **{name: _numbers(values, valid) for name, values in numbers.items()},
        "consistent": _flags(consistent, valid),
    }
    for prefix, side, reasons in (("cf", cf, cf_codes), ("bf", bf, bf_codes)):
        good = reasons == 0
        found |= {f"{prefix}_{name}": _numbers(side[name], good) for name in ("win", "tie", "loss")}
        found[f"{prefix}_outcome"] = _named(np.where(good, side["outcome"], _NONE), _OUTCOMES)
        found[f"{prefix}_invalid"] = _named(reasons, _REASONS)
    return found, (cf_codes, bf_codes)


def _side(
    probs: NDArray[np.float64], codes: NDArray[np.int64], *, flipped: bool
) -> tuple[Mapping[str, NDArray[Any]], NDArray[np.int64]]:
    """One order from the candidate's side, and the codes with what is no distribution put in."""
    first, tie, second = probs[:, 0], probs[:, 1], probs[:, 2]
    with np.errstate(invalid="ignore"):
        whole = (first >= 0) & (tie >= 0) & (second >= 0) & (np.abs(first + tie + second - 1) <= 1e-6)
    codes = np.where((codes == 0) & ~whole, CODES[InvalidReason.NOT_FINITE], codes)
    win, loss = (second, first) if flipped else (first, second)
    win, tie, loss = (np.where(codes == 0, values, 0.0) for values in (win, tie, loss))
    outcome = np.where(win > np.maximum(tie, loss), _WIN, np.where(loss > np.maximum(tie, win), _LOSS, _TIE))
    return {"win": win, "tie": tie, "loss": loss, "outcome": outcome}, codes


def _named(codes: NDArray[np.int64], names: tuple[str | None, ...]) -> polars.Series:
    import polars

    return polars.Series(names, dtype=polars.String).gather(polars.Series(codes, dtype=polars.UInt32))


def _numbers(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> polars.Series:
    import polars

    return polars.Series(np.where(valid, values, np.nan)).fill_nan(None)


def _flags(values: NDArray[np.bool_], valid: NDArray[np.bool_]) -> polars.Series:
    import polars

    return polars.Series(values).set(~polars.Series(valid), None)
