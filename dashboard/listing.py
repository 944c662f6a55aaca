"""A table to be read to its end: every row is there and every text is whole, wrapped to the width of the page.

``place.table`` scrolls, sorts and cuts, which suits many rows of figures; this suits rows that say something. A small
element of our own builds the table, every text set as text: nothing that a model wrote becomes markup or a style, and
a link leads to a page of this server or is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from judge.render.words import safe

__all__ = ["Row", "show"]

Link = tuple[str, str]
"""What a link says, and the address of a page (``place.link``)."""
Cell = str | int | Link | None
Row = Mapping[str, Cell]

_CSS = """
.listing { overflow-x: auto; container-type: inline-size;
  color: var(--st-text-color); font-family: var(--st-font); font-size: 0.86rem; }
table { border-collapse: collapse; width: 100%; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th, td { padding: 0.35rem 0.55rem; border-bottom: 1px solid var(--st-border-color); text-align: start;
  vertical-align: top; line-height: 1.4; }
th { font-weight: 600; white-space: nowrap; position: sticky; top: 0; background: var(--st-background-color); }
td { white-space: pre-line; } td.short { white-space: pre; }
td.figure, th.figure { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 11rem; }
code { background: var(--st-secondary-background-color); border-radius: 4px; padding: 0.05rem 0.25rem;
  font-family: var(--st-code-font, monospace); }
a { color: var(--st-link-color); }
@container (max-width: 560px) { /* on a phone each row is a card of named lines */
  thead { display: none; }
  tr { display: block; padding: 0.45rem 0; border-bottom: 1px solid var(--st-border-color); }
  td, td.short, td.figure, td.long { display: flex; gap: 0.6rem; border: 0; padding: 0.1rem 0; white-space: normal;
    text-align: start; }
  td::before { content: attr(data-name); flex: 0 0 5.5rem; font-weight: 600; }
}
"""
_JS = """
export default function ({ data, parentElement }) {
  const { caption, columns, rows } = JSON.parse(data.told);
  const root = parentElement.querySelector(".listing");
  const table = document.createElement("table");
  table.createCaption().textContent = caption;
  const head = table.createTHead().insertRow();
  for (const column of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.className = column.kind;
    cell.textContent = column.name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((value, at) => {
      const cell = line.insertCell();
      cell.className = columns[at].kind;
      cell.dataset.name = columns[at].name;
      if (Array.isArray(value)) {
        const [word, address] = value;
        if (!/^\\/[a-z]/.test(address)) { cell.textContent = word; return; }
        const link = document.createElement("a");
        link.textContent = word;
        link.href = address;
        link.target = "_blank";
        link.rel = "noopener";
        cell.append(link);
        return;
      }
      const text = cell.appendChild(document.createElement("span"));
      String(value).split("`").forEach((part, k, all) => {
        const code = k % 2 === 1 && k < all.length - 1;
        const piece = code ? document.createElement("code") : document.createElement("span");
        piece.textContent = k % 2 === 1 && !code ? "`" + part : part;
        text.append(piece);
      });
    });
  }
  root.replaceChildren(table);
}
"""
_FIGURE = re.compile(r"[<+-]?\$?\d[\d,.e+-]*( ?(%|pp))?( \[[^\]]{1,40}\])?", re.ASCII)
_LONG = 34
"""Characters from which on a column's texts are wrapped."""


def show(rows: Sequence[Row], *, alt: str, key: str) -> None:
    """Show rows of one form, each cell a text, a count or a link; ``None`` is a dash.

    A text between backticks is shown as code. A column all of whose cells are figures (with unit and interval) is set
    flush right; one with a text of more than ``_LONG`` characters wraps. ``alt`` is read out as the title of the table.
    """
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    kinds = [_kind([line[at] for line in cells]) for at in range(len(names))]
    told = {
        "caption": safe(alt),
        "columns": [{"name": safe(name), "kind": kind} for name, kind in zip(names, kinds, strict=True)],
        "rows": cells,
    }
    element = st.components.v2.component(
        "touchstone_listing", html='<div class="listing" tabindex="0"></div>', css=_CSS, js=_JS
    )
    # As one text: in lists Streamlit looks for frames, and imports pandas to know one.
    element(data={"told": json.dumps(told, ensure_ascii=False)}, key=key)


def _cell(value: Any) -> str | list[str]:
    if value is None:
        return "–"
    if isinstance(value, tuple):
        word, address = value
        return [safe(word), address]
    return f"{value:,}" if isinstance(value, int) else safe(str(value))


def _kind(cells: Sequence[str | list[str]]) -> str:
    texts = [cell for cell in cells if isinstance(cell, str) and cell != "–"]
    if texts and all(_FIGURE.fullmatch(text) for text in texts):
        return "figure"
    return "long" if any(len(text) > _LONG for text in texts) else "short"
