"""The sections of a report (``judge.render``) as parts of a page: the same figures and words as in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from judge.render.charts import inked
from judge.render.document import Chart, Figure, Figures, Prose, Section, Table
from judge.render.words import markdown, safe

from .place import Place, chart, table

__all__ = ["draw"]

_MARKS = {"good": "✓ ", "care": "! ", "bad": "✗ ", "ink": "", "soft": ""}


_DRAWN = {"win-rate", "reliability", "risk"}
"""Charts of the report that stand on the page itself."""


def draw(sections: Iterable[Section], place: Place, *, opened: Iterable[str] = ()) -> None:
    """Each section as a line with its finding; what stands behind it unfolds."""
    wanted = set(opened)
    for section in sections:
        with st.expander(
            f"**{markdown(section.title)}**: {_MARKS[section.level]}{markdown(section.answer)}",
            expanded=section.key in wanted,
        ):
            for block in section.blocks:
                if isinstance(block, Prose):
                    st.markdown(markdown(block.text))
                elif isinstance(block, Figures):
                    _figures(block)
                elif isinstance(block, Chart):
                    if block.name not in _DRAWN:
                        chart(inked(block.spec, place.ink), place.ink, key=block.name, alt=block.title)
                elif isinstance(block, Table):
                    _table(block)


def _figures(block: Figures) -> None:
    if block.title:
        st.markdown(f"**{markdown(block.title)}**")
    table([_figure(row) for row in block.merged], alt=block.title or "Figures")


def _figure(row: Figure) -> dict[str, str]:
    return {
        "": safe(row.name),
        "value": safe(" ".join(part for part in (row.shown, row.interval) if part)),
        "of": safe(row.base),
        "note": safe(row.note),
    }


def _table(block: Table) -> None:
    if block.title:
        st.markdown(f"**{markdown(block.title)}**")
    head = list(block.columns)
    names = [name or " " * (k + 1) for k, name in enumerate(head)]
    names = [f"{name}{' ' * names[:k].count(name)}" for k, name in enumerate(names)]
    rows = [dict(zip(names, map(safe, block.cells(k)), strict=True)) for k in range(len(block.rows))]
    table(rows, alt=block.title or "Table")
    if block.note:
        st.caption(markdown(block.note))
    if block.left_out:
        st.caption(f"{block.left_out} more rows are left out here; the report of judge calibrate has them.")
