"""How evidence is weighed: a logistic combination of four features, as readable JSON with its provenance.

The shipped one was fitted on one half of the QAGS CNN/DailyMail judgements (docs/grounding.md says how good it is on
the other half, and what that data is). It knows news summaries; ``judge ground --calibrate`` fits or corrects one on
your own labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError

__all__ = ["FEATURES", "LIKELIHOOD", "Coefficients", "shipped", "shipped_local"]

FEATURES = ("phrases", "order", "coverage", "stitched")
"""What is weighed, each in [0, 1]; ``judge.grounding.claims.features`` says what they are."""
LIKELIHOOD = "likelihood"
"""The feature that a language model brings, in nats (``judge.grounding.likelihood``); optional."""
_FORMAT = 1
_DATA = Path(__file__).parent.parent / "data"
_LARGEST = 1e4


@dataclass(frozen=True, slots=True)
class Coefficients:
    """P(a person would call a claim supported) = 1 / (1 + exp(-(intercept + sum of weight x feature))).

    A claim counts as supported from ``threshold`` on, unless something in it is contradicted. ``name`` is how reports
    call it; ``fitted_on`` says on what (source, licence, rows, documents) and ``quality`` how good it was held out.

    >>> shipped().probability({"phrases": 1.0, "order": 1.0, "coverage": 1.0, "stitched": 0.0}) > 0.9
    True
    """

    name: str
    intercept: float
    weights: Mapping[str, float]
    threshold: float = 0.5
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> bool:
        """Whether they weigh a model's likelihood, so that a model has to read."""
        return LIKELIHOOD in self.weights

    def probability(self, features: Mapping[str, float]) -> float:
        """The probability of support for the features of one claim."""
        eta = self.intercept + sum(weight * features[name] for name, weight in self.weights.items())
        return 0.5 * (1.0 + math.tanh(0.5 * eta))

    def to_json(self) -> str:
        """The coefficients as JSON that ``read`` takes."""
        body = {"format": _FORMAT, "features": list(self.weights), **asdict(self)}
        return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode() + "\n"

    @classmethod
    def read(cls, path: Path) -> Coefficients:
        """Read a file that ``judge ground --calibrate`` saved; raises ``InputError`` naming what is wrong in it."""
        try:
            body = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{path}: no such file; make one with `judge ground --calibrate LABELS --save {path}`"
            ) from None
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}: not JSON: {error.msg}") from None
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise InputError(f"{path}: no grounding coefficients of format {_FORMAT}; make them anew with --calibrate")
        weights = body.get("weights")
        if not isinstance(weights, dict) or set(weights) - {LIKELIHOOD} != set(FEATURES):
            raise InputError(f"{path}: weights must name {', '.join(FEATURES)} and may name {LIKELIHOOD}; nothing else")
        for name, value in {"intercept": body.get("intercept"), **weights}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
                raise InputError(f"{path}: {name} is {value!r}, not a number of at most {_LARGEST:g} either way")
        threshold = body.get("threshold", 0.5)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise InputError(f"{path}: threshold is {threshold!r}, not a probability between 0 and 1")
        about = {name: body.get(name) or {} for name in ("fitted_on", "quality")}
        if not all(isinstance(value, dict) for value in about.values()):
            raise InputError(f"{path}: fitted_on and quality must be objects")
        ordered = {name: float(weights[name]) for name in (*FEATURES, LIKELIHOOD) if name in weights}
        return cls(str(body.get("name", path.stem)), float(body["intercept"]), ordered, float(threshold), **about)


@cache
def shipped() -> Coefficients:
    """The coefficients that come with the package, for words alone."""
    return Coefficients.read(_DATA / "grounding-1.json")


@cache
def shipped_local() -> Coefficients:
    """Those that come with the package and also weigh what the embedded model reads."""
    return Coefficients.read(_DATA / "grounding-local-1.json")
