"""Two answers side by side in one scroll: the one place where a page shows what a model wrote.

A small element of our own takes blocks (``views/texts.py``) and builds them from a fixed list of tags, every text set
as text. Nothing that a model wrote becomes markup, a style, a link or a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from .views.texts import Block

__all__ = ["Side", "show"]


@dataclass(frozen=True, slots=True)
class Side:
    """One column: its title, a line under it, and what stands in it."""

    title: str
    blocks: Sequence[Block]
    note: str = ""


_CSS = """
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 0.75rem;
  overflow: auto; color: var(--st-text-color); font-family: var(--st-font); font-size: 0.95rem; line-height: 1.5; }
.side { border: 1px solid var(--st-border-color); border-radius: 6px; padding: 0.6rem 0.8rem; min-width: 0;
  background: var(--st-background-color); }
.title { font-weight: 600; margin: 0; position: sticky; top: 0; padding: 0.15rem 0;
  background: var(--st-background-color); }
.note { font-size: 0.82rem; margin: 0 0 0.4rem; opacity: 0.85; }
p, h4, h5, h6, blockquote, .li { margin: 0 0 0.55rem; overflow-wrap: anywhere; white-space: pre-wrap; }
h4 { font-size: 1.1rem; } h5 { font-size: 1.02rem; } h6 { font-size: 0.95rem; }
blockquote { border-left: 3px solid var(--st-border-color); padding-left: 0.7rem; }
pre { margin: 0 0 0.55rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.86rem; line-height: 1.45;
  font-family: var(--st-code-font, monospace); }
pre.code, code { background: var(--st-secondary-background-color); border-radius: 4px; }
pre.code { padding: 0.5rem 0.6rem; } code { padding: 0.05rem 0.25rem; font-family: var(--st-code-font, monospace); }
mark { background: transparent; color: inherit; border-bottom: 3px solid var(--st-primary-color); font-weight: 600; }
hr { border: 0; border-top: 1px solid var(--st-border-color); }
"""
_JS = """
const TAGS = new Set(["p", "pre", "h4", "h5", "h6", "blockquote", "hr", "li"]);
const KINDS = { b: "strong", i: "em", code: "code", mark: "mark" };
export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".sides");
  root.replaceChildren();
  root.style.maxHeight = data.height ? data.height + "px" : "none";
  for (const side of data.sides) {
    const column = document.createElement("section");
    column.className = "side";
    const title = document.createElement("p");
    title.className = "title";
    title.textContent = side.title;
    column.append(title);
    if (side.note) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = side.note;
      column.append(note);
    }
    for (const block of side.blocks) {
      if (!TAGS.has(block.tag)) continue;
      const box = document.createElement(block.tag === "li" ? "div" : block.tag);
      box.dir = "auto";
      if (block.tag === "li") { box.className = "li"; box.style.paddingInlineStart = (block.depth || 1) * 1.1 + "rem"; }
      const whole = block.tag === "pre" && block.runs.length === 1 && block.runs[0][1] === "code";
      if (whole) box.className = "code";
      for (const [text, kind, note] of block.runs) {
        if (whole || !KINDS[kind]) { box.append(document.createTextNode(text)); continue; }
        const run = document.createElement(KINDS[kind]);
        run.textContent = text;
        if (note) run.title = note;
        box.append(run);
      }
      column.append(box);
    }
    root.append(column);
  }
}
"""


def show(sides: Sequence[Side], *, key: str, height: int | None = 560) -> None:
    """Show the columns beside each other (below each other on a phone) in one box with one scroll bar."""
    element = st.components.v2.component(
        "touchstone_answers", html='<div class="sides" tabindex="0"></div>', css=_CSS, js=_JS
    )
    # A tuple, because of a list Streamlit asks whether it is a frame, and imports pandas to know.
    told = tuple({"title": side.title, "note": side.note, "blocks": list(side.blocks)} for side in sides)
    element(data={"sides": told, "height": height}, key=key)
