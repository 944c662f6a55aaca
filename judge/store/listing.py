"""Rows of comparisons as they are listed: which columns, in which orders, under which filters.

The plain query over ``comparison``, the first rows of each order that are kept beside it, and the sums by column all
say the same thing because they are made of the same expressions: those of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from ..canaries import PREFIX

__all__ = [
    "AGAINST",
    "CANARY",
    "COLUMNS",
    "FLIPPED",
    "NO_CANARY",
    "NO_CANARY_ROW",
    "OUTCOME",
    "RATIO",
    "ROW",
    "SORTS",
    "Filter",
    "canary_bounds",
    "condition",
    "ordered",
    "pointer",
]

RATIO = "(candidate_chars + 1) / (baseline_chars + 1)"
"""Length of the candidate's answer over that of the baseline's; one more each, so that empty answers have a ratio."""

SORTS = {
    "order of judging": "",
    "least confident first": "confidence",
    "most confident first": "confidence DESC",
    "candidate longest against baseline": f"{RATIO} DESC",
    "candidate shortest against baseline": RATIO,
}
"""How rows may be sorted, by the words that a reader sees: ties in the order of judging, what has no value last."""

ROW = (
    "pair_id, repeat, category, outcome, preference, confidence, consistent, invalid, label, cf_outcome, bf_outcome, "
    "candidate_chars, baseline_chars, flags, cost"
)
"""The columns of a listed row."""

CANARY = "pair_id >= $canary AND pair_id < $beyond"
"""That an id begins with the prefix of canary pairs, as bounds: the minimum and maximum of a block of rows then say
that it holds none, and its ids are not read."""
NO_CANARY = f"NOT ({CANARY})"
NO_CANARY_ROW = "rowid NOT IN (SELECT rowid FROM comparison WHERE run_id = $run AND " + CANARY + ")"  # noqa: S608 - ours
"""The same by row number: few rows are found by the bounds of their ids, and no other id is read."""

COLUMNS = {
    "category": "category",
    "label": "coalesce(label, '(none)')",
    "consistent": (
        "CASE WHEN outcome IS NULL THEN '(no verdict)' WHEN consistent THEN 'both orders "
        "agree' ELSE 'orders differ' END"
    ),
    "confidence": (
        "CASE WHEN preference IS NULL THEN '(no verdict)' WHEN confidence < 0.6 THEN '0.5 to 0.6' "
        "WHEN confidence < 0.7 THEN '0.6 to 0.7' WHEN confidence < 0.8 THEN '0.7 to 0.8' "
        "WHEN confidence < 0.9 THEN '0.8 to 0.9' ELSE '0.9 to 1' END"
    ),
    "length": (
        f"CASE WHEN {RATIO} < 0.5 THEN 'under half' WHEN {RATIO} < 0.8 THEN 'shorter' "
        f"WHEN {RATIO} <= 1.25 THEN 'about equal' WHEN {RATIO} <= 2 THEN 'longer' ELSE 'over double' END"
    ),
}
"""The columns of the rollup that are not fields of the metadata, as expressions over ``comparison``."""

FLIPPED = "outcome IS NOT NULL AND NOT coalesce(consistent, FALSE)"
AGAINST = "label IN ('win', 'loss') AND preference <> 0.5 AND (preference > 0.5) <> (label = 'win')"
OUTCOME = "coalesce(outcome, 'invalid')"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which comparisons of a run: every field narrows, an empty one does not.

    ``field`` and ``value`` name a column of the rollup (``category``, a field of the metadata, ``length``,
    ``confidence``, ``consistent``, ``label``), ``across`` and ``other`` a second one. ``outcomes`` are ``win``,
    ``tie``, ``loss`` and ``invalid``. ``confidence`` and ``ratio`` (candidate over baseline characters) are ranges.
    ``against_label`` takes those on which the judge leans to the side that the label does not name. ``pairs`` are ids,
    ``search`` a part of an id.
    """

    field: str = ""
    value: str = ""
    across: str = ""
    other: str = ""
    outcomes: tuple[str, ...] = ()
    flipped: bool = False
    against_label: bool = False
    confidence: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    pairs: tuple[str, ...] | None = None
    search: str = ""

    @property
    def empty(self) -> bool:
        """Whether every comparison passes."""
        return self == Filter()

    @property
    def tallied(self) -> bool:
        """Whether it narrows only by what ``tally`` counts: columns, outcomes, flips and the label."""
        return self.confidence is None and self.ratio is None and self.pairs is None and not self.search

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """Column and value, and the second ones, without a gap in front."""
        one, two = (self.field, self.value), (self.across, self.other)
        if not self.field:
            one, two = two, one
        return (*(one if one[0] else ("", "")), *(two if two[0] else ("", "")))


def ordered(sort: str, nth: str) -> str:
    """The ORDER BY of one of ``SORTS`` (any other word: the order of judging); ``nth`` is the column that tells it."""
    key = SORTS.get(sort, "")
    return f"{key}, {nth}" if key else nth


def condition(run_id: str, wanted: Filter, *, by_row: bool = False) -> tuple[str, dict[str, Any]]:
    """A filter as a WHERE clause with named parameters; ``by_row`` for rows of the run that are given by number."""
    if by_row:
        clauses, params = ["rowid IN (SELECT unnest($rows))", "run_id = $run"], cast("dict[str, Any]", {"run": run_id})
    else:
        clauses = ["run_id = $run", NO_CANARY]  # canary pairs are no evidence of the candidate
        params = {"run": run_id, **canary_bounds()}
    for number, (name, value) in enumerate(((wanted.field, wanted.value), (wanted.across, wanted.other))):
        if name:
            column = COLUMNS.get(name)
            if column is None:
                column = f"coalesce(json_extract_string(metadata, $p{number}), '')"
                params[f"p{number}"] = pointer(name)
            clauses.append(f"{column} = $v{number}")
            params[f"v{number}"] = value
    if wanted.outcomes:
        clauses.append(f"{OUTCOME} IN (SELECT unnest($outcomes))")
        params["outcomes"] = list(wanted.outcomes)
    if wanted.flipped:
        clauses.append(FLIPPED)
    if wanted.against_label:
        clauses.append(AGAINST)
    for name, limits, column in (("c", wanted.confidence, "confidence"), ("r", wanted.ratio, RATIO)):
        if limits is not None:
            clauses.append(f"{column} BETWEEN ${name}0 AND ${name}1")
            params[f"{name}0"], params[f"{name}1"] = limits
    if wanted.search:
        clauses.append("contains(lower(pair_id), lower($search))")
        params["search"] = wanted.search
    return " AND ".join(clauses), params


def canary_bounds() -> dict[str, str]:
    """The parameters of ``NO_CANARY``."""
    return {"canary": PREFIX, "beyond": PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)}


def pointer(name: str) -> str:
    """A JSON pointer (RFC 6901) to a field."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
