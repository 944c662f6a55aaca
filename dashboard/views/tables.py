"""Tables for people and for files: what two headers differ in, whether two runs compare, and safe downloads."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from judge.render.words import number, span

if TYPE_CHECKING:
    import polars

    from calibration.estimates import Estimate
    from judge.render.words import Unit

__all__ = ["arrow", "as_csv", "as_parquet", "flat", "header_diff", "incomparable", "said", "series"]

_WHOLE = 2**63
"""Whole numbers from here on are no 64-bit integers."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FIGURE = re.compile(r"[+-]\d[\d.,]*(%| pp)?( \[[-+\d., ]+\])?( n [\d,]+)?(: [\w .,()=+%-]+)?", re.ASCII)
_MATTER = {
    "evalset.digest": "they judged other pairs: differences are of the pairs, too",
    "rubric_digest": "they were judged under other rubrics: better means something else in each",
    "judge.name": "another judge said it",
    "judge.revision": "the judge has another revision",
    "judge.decoding": "the judge decoded otherwise",
    "template": "the judge was asked in another form",
    "evalset.options.candidate": "",
    "repeats": "pairs were judged another number of times",
}
"""Fields of a header that make two runs incomparable, and what that means; those with no words are only listed."""


def said(found: Estimate | None, unit: Unit = "plain") -> str:
    """An estimate in words: value, interval and n; a dash where there is none."""
    return "–" if found is None else f"{number(found.value, unit)} {span(found, unit)} n {found.n:,}"


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested record as dotted names and short texts."""
    found: dict[str, str] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found |= flat(entry, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = str(entry)
    return found


def header_diff(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, str]]:
    """The fields in which two run headers differ: ``field``, ``first``, ``second``; ids, times and long texts are left
    out.
    """
    skip = ("rubric_text", "t", "calls", "run_id", "created_at")
    sides = [flat({key: value for key, value in side.items() if key not in skip}) for side in (first, second)]
    names = sorted(sides[0].keys() | sides[1].keys())
    return [
        {"field": name, "first": sides[0].get(name, "(absent)"), "second": sides[1].get(name, "(absent)")}
        for name in names
        if sides[0].get(name) != sides[1].get(name)
    ]


def incomparable(first: Mapping[str, Any], second: Mapping[str, Any], *, same_pairs: bool = False) -> list[str]:
    """Why numbers of two runs must not stand side by side without a word; empty where nothing is against it.

    ``same_pairs`` says that the pairs are known to be the same, whatever the digests of their files are.
    """
    return [
        why
        for row in header_diff(first, second)
        if (why := _MATTER.get(row["field"], "")) and not (same_pairs and row["field"] == "evalset.digest")
    ]


def series(header: Mapping[str, Any]) -> str:
    """What runs have in common that may be read as one over time: pairs, rubric, judge and how it was asked."""
    told = flat({key: value for key, value in header.items() if key != "rubric_text"})
    return "\n".join(f"{name}={told.get(name, '')}" for name in _MATTER if name != "evalset.options.candidate")


def arrow(rows: polars.DataFrame | Sequence[Mapping[str, Any]]) -> Any:
    """Rows as an Arrow table for a page, in which no text cell is a formula: the browser can save it as CSV.

    Figures that begin with a sign (``-1.5 pp [-2.0, -1.0]: upper bound ...``) stay as they are; no character that a
    formula could call something with (``|``, ``!``, ``&``, a quote, a slash) may follow them. Numbers and words in one
    column are words. Streamlit hands an Arrow table on as it is; of anything else it makes a pandas frame, and
    ``pyarrow.array`` of a list looks for pandas as well: its import takes longer than the page.
    """
    import polars

    if isinstance(rows, Sequence):
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
    else:
        columns = rows.to_dict(as_series=False)
    made = [_column(name, values) for name, values in columns.items()]
    return polars.DataFrame(made).to_arrow(compat_level=polars.CompatLevel.oldest())


def _column(name: str, values: Sequence[Any]) -> polars.Series:
    import polars

    known = [value for value in values if value is not None]
    flags, whole, numbers = (
        [isinstance(value, kind) for value in known]
        for kind in (bool, Integral, Real)  # NumPy's numbers are both
    )
    kind: Any = polars.String
    if not known:
        kind = polars.Null
    elif all(flags):
        kind = polars.Boolean
    elif all(whole) and not any(flags) and all(abs(value) < _WHOLE for value in known):
        kind = polars.Int64
    elif all(numbers) and not any(flags) and not all(whole):
        kind = polars.Float64
    if kind == polars.String:
        words = (value if value is None else str(value) for value in values)
        values = [f"'{word}" if word is not None and _runs(word) else word for word in words]
    return polars.Series(name, values, dtype=kind)


def _runs(cell: str) -> bool:
    return cell[:1] in _FORMULA and cell != "" and _FIGURE.fullmatch(cell) is None


def as_csv(rows: polars.DataFrame | Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV in which no cell is a formula: text that a spreadsheet would run begins with an apostrophe.

    What begins with ``=``, ``+``, ``-``, ``@``, tab or carriage return is such text (OWASP, "CSV Injection"); numbers
    are left as they are.
    """
    import polars

    frame = _framed(rows)
    texts = [name for name, kind in frame.schema.items() if kind == polars.String]
    guarded = frame.with_columns(
        polars.when(polars.col(name).str.slice(0, 1).is_in(_FORMULA))
        .then(polars.lit("'") + polars.col(name))
        .otherwise(polars.col(name))
        .alias(name)
        for name in texts
    )
    named = {name: f"'{name}" for name in frame.columns if name[:1] in _FORMULA and name}
    return guarded.rename(named).write_csv().encode()


def as_parquet(rows: polars.DataFrame | Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    buffer = io.BytesIO()
    _framed(rows).write_parquet(buffer)
    return buffer.getvalue()


def _framed(rows: polars.DataFrame | Sequence[Mapping[str, Any]]) -> polars.DataFrame:
    import polars

    return polars.DataFrame(list(rows), infer_schema_length=None) if isinstance(rows, Sequence) else rows
