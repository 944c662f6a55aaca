"""The curves of a training as one HTML page: each figure over the steps, held-out ones and the batch's apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from judge.render.charts import PAPER, trace
from judge.render.svg import draw
from judge.render.words import safe

__all__ = ["curves", "curves_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --paper: #fdfdfb; --soft: #6b7280; --first: #1f5fa8;
  --second: #b3541e;
  --good: #1b7f4b; --bad: #b3261e; --line: #d5d8de; --panel: #f2f3f0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --paper: #14171d; --soft: #9aa3b2; --first: #7fb4f0;
  --second: #f0a272; --good: #6fd09c; --bad: #f08a82; --line: #343a46; --panel: #1d2129; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
p.warn { border-left: 4px solid var(--bad); padding-left: .75rem; }
"""

_PANELS: Sequence[tuple[str, str, Sequence[tuple[str, str, str]]]] = (
    ("loss", "Loss", (("step", "loss", "batch"), ("heldout", "loss", "held out"))),
    ("accuracy", "Pairs ordered right", (("step", "accuracy", "batch"), ("heldout", "accuracy", "held out"))),
    ("rewards", "Implicit rewards", (("step", "reward_chosen", "chosen"), ("step", "reward_rejected", "rejected"))),
    ("margin", "Margin", (("step", "margin", "batch"), ("heldout", "margin", "held out"))),
    (
        "logps",
        "Log-probability, nats an answer",
        (("step", "logp_chosen", "chosen"), ("step", "logp_rejected", "rejected")),
    ),
    ("moved", "Chosen answers: change of log-probability", (("heldout", "chosen_moved", "held out"),)),
    ("ece", "Calibration error of sigmoid(margin)", (("heldout", "ece", "held out"),)),
    ("kl", "KL from the reference, nats a token", (("heldout", "own.kl", "own answers"),)),
    ("entropy", "Entropy, nats a token", (("step", "entropy", "answers of the batch"),)),
    ("tokens", "Tokens of own answers", (("heldout", "own.tokens", "own answers"),)),
    ("refusals", "Share of own answers that refuse", (("heldout", "own.refusals", "own answers"),)),
    ("win_rate", "Win rate", (("heldout", "win_rate", "against the base"),)),
)


def curves(log: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Title and SVG of every panel that has a point. ``log`` holds the lines of ``train.jsonl``."""
    drawn = []
    for name, title, series in _PANELS:
        found = {label: _points(log, kind, field) for kind, field, label in series}
        if not any(found.values()):
            continue
        said = "; ".join(f"{label}: first {p[0][1]:.4g}, last {p[-1][1]:.4g}" for label, p in found.items() if p)
        spec = trace(found, PAPER, titles=("Step", title), said=said)
        drawn.append((title, draw(spec, name=f"curve-{name}", title=title)))
    return drawn


def curves_page(title: str, log: Sequence[Mapping[str, Any]], warnings: Sequence[str] = ()) -> str:
    """The whole page; needs no script and nothing from outside."""
    warned = "".join(f'<p class="warn">{escape(safe(text))}</p>' for text in warnings)
    figures = "".join(f"<figure><figcaption>{escape(name)}</figcaption>{svg}</figure>" for name, svg in curves(log))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(safe(title))}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(safe(title))}</h1>{warned}<main>{figures}</main></body></html>\n"
    )


def _points(log: Sequence[Mapping[str, Any]], kind: str, field: str) -> list[tuple[int, float]]:
    found = []
    for line in log:
        if line["kind"] == kind:
            value: Any = line
            for part in field.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if isinstance(value, int | float) and math.isfinite(value):
                found.append((int(line["step"]), float(value)))
    return found
