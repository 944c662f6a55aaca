"""A note field that takes the keyboard at once: Enter keeps the note, Escape leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

__all__ = ["field"]

_CSS = """
.touchstone-note textarea { width: 100%; box-sizing: border-box; min-height: 4.2rem; padding: 0.5rem; font: inherit;
  color: var(--st-text-color); background: var(--st-background-color); border: 1px solid var(--st-primary-color);
  border-radius: 4px; }
"""
_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const field = parentElement.querySelector("textarea");
  if (field.dataset.pair !== data.pair) {
    field.dataset.pair = data.pair;
    field.value = data.value;
    field.focus();
  }
  field.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      setTriggerValue("done", { text: field.value });
    } else if (event.key === "Escape") {
      setTriggerValue("done", { text: data.value });
    }
  };
}
"""


def field(value: str, *, pair: str, done: Callable[[str], None]) -> None:
    """Show the field; ``done`` is called with the note before the page is drawn anew. ``pair`` tells one pair's field
    from the next.
    """
    element = st.components.v2.component(
        "touchstone_note",
        html='<div class="touchstone-note"><textarea aria-label="Note" maxlength="2000"></textarea></div>',
        css=_CSS,
        js=_JS,
        isolate_styles=False,
    )
    key = f"note-{pair}"

    def taken() -> None:
        told = st.session_state[key].get("done")
        done(str((told or {}).get("text", value))[:2000])

    element(data={"value": value, "pair": pair}, key=key, on_done_change=taken)
