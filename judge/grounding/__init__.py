"""Grounding: does an answer say what its documents say? Claims, evidence, contradictions, by the words alone.

``claims.ground`` is the pure function; ``report`` compares a candidate with its baseline over an eval set;
``calibrating`` fits the coefficients to labels; ``likelihood`` is what the embedded model can add. Every rule reads
words, numbers and their order, never meaning: a true paraphrase may look unsupported, a false sentence made of the
document's own words may look supported. docs/grounding.md has the measurements.
"""

from __future__ import annotations

from .claims import Claim, Evidence, Grounding, ground, ground_in
from .coefficients import Coefficients, shipped, shipped_local
from .contradictions import Contradiction
from .documents import Documents

__all__ = [
    "Claim",
    "Coefficients",
    "Contradiction",
    "Documents",
    "Evidence",
    "Grounding",
    "ground",
    "ground_in",
    "shipped",
    "shipped_local",
]
