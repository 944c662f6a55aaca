"""The coefficients fitted, or corrected, on labelled claims, and how good they are on documents they have not seen.

Three ways compete by log loss on held-out documents: the coefficients as they are, the same with their probability
corrected (a slope and a shift, Platt 1999), and a fit of all weights (from 100 documents on). All rows of a document
are in one fold, every figure is out of fold, and what is returned is fitted again on all rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from calibration.confidence import NotCalibrated

from ..errors import InputError
from .claims import features
from .coefficients import FEATURES, LIKELIHOOD, Coefficients, shipped
from .contradictions import contradictions
from .documents import Documents
from .likelihood import Reader, reading
from .words import folded, language_problem, tokens, uncited

if TYPE_CHECKING:
    from calibration.estimates import Estimate
    from calibration.reliability import Reliability

__all__ = ["LEAST", "Calibrated", "LabelledClaim", "Table", "calibrate", "read_labels", "table"]

Array = npt.NDArray[np.float64]

LEAST = 30
"""Documents below which nothing is fitted; and each kind of label must come from ten of them."""
_LEAST_KIND = 10
_REFIT = 100
"""Documents from which on all weights may be fitted anew."""
_FOLDS = 5
_RIDGE = 1.0
_FALSE_ALARMS = 0.05
"""Share of the claims that people call supported which the threshold may flag."""
_FIELDS = ("context", "claim", "label", "document")
_WORDS = {
    "supported": True, "unsupported": False, "grounded": True, "ungrounded": False, "yes": True, "no": False,
    "true": True, "false": False, "1": True, "0": False, "hallucinated": False, "ok": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledClaim:
    """A claim, the documents it is held against, and whether a person calls it supported; ``document`` groups the
    claims about the same documents.
    """

    context: tuple[str, ...]
    claim: str
    supported: bool
    document: str


@dataclass(frozen=True, slots=True)
class Table:
    """The features of labelled claims: one line a claim, one column for each of ``names``; ``outcome`` is 1 where
    supported, ``words`` how long each is, ``contradicted`` whether a rule found something. ``left_out`` counts the
    claims that cannot be judged, by reason.
    """

    features: Array
    outcome: Array
    documents: tuple[str, ...]
    words: Array
    contradicted: npt.NDArray[np.bool_]
    left_out: Mapping[str, int]
    names: tuple[str, ...] = FEATURES


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration found. ``method`` is ``as it is``, ``corrected`` or ``fitted anew``; ``held_out`` the log loss
    of each that competed; ``auc`` and ``reliability`` are those of the chosen way out of fold; ``against`` is the area
    under the curve of single features and of length on the same claims; ``gain`` the paired difference in area to the
    coefficients as they were. ``caught`` is the share of the unsupported claims below the threshold that flags one in
    twenty of the supported ones. ``contradictions`` is the share of contradicted claims that people call unsupported.
    """

    coefficients: Coefficients
    method: str
    held_out: Mapping[str, float]
    auc: Estimate
    reliability: Reliability
    against: Mapping[str, Estimate]
    gain: Estimate
    caught: Estimate
    rows: int
    documents: int
    supported: Estimate
    contradictions: Estimate | None
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()


def read_labels(path: Path, mapping: Mapping[str, str] | None = None) -> tuple[LabelledClaim, ...]:
    """Labelled claims of a JSONL file: ``context`` (a text or a list), ``claim``, ``label`` and, if wanted,
    ``document`` (what groups claims; default: the context itself).

    ``mapping`` names other columns: ``{"context": "prompt"}``. Lines whose label is null or missing, and sentences that
    make no claim, are left for later. Raises ``InputError`` naming file, line and field of what cannot be read.
    """
    names = {**{name: name for name in _FIELDS}, **(mapping or {})}
    unknown = sorted(set(names) - set(_FIELDS))
    if unknown:
        raise InputError(f"--map {unknown[0]}=...: unknown field; the fields are {', '.join(_FIELDS)}")
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise InputError(f"{path}: labels are read from JSONL, one claim a line, named .jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    found = []
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            row = _row(line, f"{path}:{number}", names) if line.strip() else None
            if row is not None:
                found.append(row)
    if not found:
        raise InputError(f"{path}: no claim with a label in it; put supported or unsupported in {names['label']!r}")
    return tuple(found)


def table(
    rows: Sequence[LabelledClaim],
    *,
    reader: Reader | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """The features of labelled claims; the documents of equal contexts are indexed once where they follow each
    other. With a ``reader`` the likelihood is one more column.
    """
    names = FEATURES if reader is None else (*FEATURES, LIKELIHOOD)
    lines, outcome, documents, words, odd = [], [], [], [], []
    left_out: dict[str, int] = {}
    context: tuple[str, ...] | None = None
    index = Documents(())
    for done, row in enumerate(rows, 1):
        if row.context != context:
            context, index = row.context, Documents(row.context)
        text = uncited(folded(row.claim), len(row.context))
        said = tokens(text)
        problem = (
            "no words in the context" if not len(index)
            else f"context {index.problem}" if index.problem
            else "no words in the claim" if not said
            else f"claim {language_problem(text)}" if language_problem(text)
            else ""
        )  # fmt: skip
        if problem:
            left_out[problem] = left_out.get(problem, 0) + 1
        else:
            fit = index.fit(said)
            values = features(said, index, fit)
            if reader is not None:
                values[LIKELIHOOD] = reader(reading(index, index.evidence(fit)), [row.claim])[0]
            lines.append([values[name] for name in names])
            outcome.append(float(row.supported))
            documents.append(row.document)
            words.append(float(len(said)))
            odd.append(bool(contradictions(text, said, index, fit)))
        if progress is not None:
            progress(done, len(rows))
    return Table(
        np.array(lines, dtype=np.float64).reshape(len(lines), len(names)),
        np.array(outcome),
        tuple(documents),
        np.array(words),
        np.array(odd, dtype=bool),
        left_out,
        names,
    )


def calibrate(
    found: Table,
    *,
    start: Coefficients | None = None,
    name: str,
    source: Mapping[str, Any],
    seed: int = 0,
    only: str = "",
) -> Calibrated:
    """Fit or correct coefficients on labelled claims and measure them out of fold.

    ``source`` is recorded in the coefficients as what they were fitted on; ``only`` forces one of the ways. Raises
    ``NotCalibrated`` for fewer than 30 documents, or fewer than ten with a label of either kind.
    """
    from calibration.discrimination import auc, auc_difference
    from calibration.estimates import cluster_codes, share
    from calibration.reliability import assess, log_losses

    begun = shipped() if start is None else start
    codes = cluster_codes(found.documents, len(found.documents))
    _enough(found.outcome, codes)
    count = int(codes.max()) + 1
    folds = np.random.default_rng(seed).permutation(np.arange(count) % _FOLDS)[codes]
    ways = [only] if only else ["as it is", "corrected", *(["fitted anew"] if count >= _REFIT else [])]
    held = {way: _held_out(way, found, folds, begun) for way in ways}
    losses = {way: float(log_losses(p, found.outcome).mean()) for way, p in held.items()}
    chosen = min(losses, key=losses.__getitem__)
    p, was = held[chosen], _apply(found, begun)
    names = [str(code) for code in codes]
    area = auc(p, found.outcome, clusters=codes)
    gain = auc_difference(p, was, found.outcome, clusters=codes)
    card = assess(p, found.outcome, clusters=names, seed=seed)
    supported = share(found.outcome.tolist(), clusters=codes)
    assert area is not None and gain is not None and card is not None and supported is not None
    wrong = found.contradicted
    precise = share((1 - found.outcome[wrong]).tolist(), clusters=codes[wrong])
    made = _fitted(chosen, found, begun)
    # A screen: of the claims that people call supported, one in twenty is flagged on documents held out.
    threshold = float(np.quantile(p[found.outcome == 1], _FALSE_ALARMS))
    caught = share((p[found.outcome == 0] < threshold).astype(float), clusters=codes[found.outcome == 0])
    assert caught is not None
    quality = {"method": chosen, "log_loss": losses[chosen], **_quality(area, card, caught)}
    about = {**source, **_about(found, count, supported)}
    weights = dict(zip(found.names, (float(weight) for weight in made[1]), strict=True))
    coefficients = Coefficients(name, made[0], weights, threshold, about, quality)
    return Calibrated(
        coefficients,
        chosen,
        losses,
        area,
        card,
        _against(found, codes),
        gain,
        caught,
        len(found.outcome),
        count,
        supported,
        precise,
        found.left_out,
        _notes(found, area, gain, count),
    )


def _about(found: Table, count: int, supported: Estimate) -> dict[str, Any]:
    """What the coefficients record of the labels: how many, how many supported, and the mean of each feature."""
    typical = dict(zip(found.names, found.features.mean(axis=0).tolist(), strict=True))
    return {"rows": len(found.outcome), "documents": count, "supported": supported.value, "typical": typical}


def _quality(area: Estimate, card: Reliability, caught: Estimate) -> dict[str, Any]:
    """What the coefficients record of how good they are; everything is of documents held out."""
    error = {**card.ece.error.to_dict(), "chance": card.ece.chance}
    figures = {"auc": area, "brier": card.brier, "caught": caught}
    return {
        "held_out_documents": True,
        **{name: figure.to_dict() for name, figure in figures.items()},
        "calibration_error": error,
    }


def _against(found: Table, codes: npt.NDArray[np.int64]) -> dict[str, Estimate]:
    """The area of each feature alone, in its sense, and of the shorter claim."""
    from calibration.discrimination import auc

    scores = {name: found.features[:, k] * _sign(name) for k, name in enumerate(found.names)}
    scores["shorter"] = -found.words
    areas = {name: auc(values, found.outcome, clusters=codes) for name, values in scores.items()}
    return {name: area for name, area in areas.items() if area is not None}


def _sign(name: str) -> float:
    """Whether more of a feature speaks for support (1) or against it (-1)."""
    return -1.0 if name == "stitched" else 1.0


def _notes(found: Table, area: Estimate, gain: Estimate, count: int) -> tuple[str, ...]:
    notes = []
    if area.low <= 0.5:
        notes.append("it is not shown to tell supported from unsupported claims here: do not decide on it")
    if count < _REFIT:
        notes.append(f"{count} documents: the weights stay as they were, all are fitted from {_REFIT} documents on")
    if gain.high < 0:
        notes.append("the coefficients as they were order these claims better; the new ones fit their probabilities")
    if found.left_out:
        notes.append(f"{sum(found.left_out.values())} claims left out: " + ", ".join(found.left_out))
    return tuple(notes)


def _enough(outcome: Array, codes: npt.NDArray[np.int64]) -> None:
    count = len(np.unique(codes)) if len(codes) else 0
    if count < LEAST:
        raise NotCalibrated(f"labels of {count} documents are too few; at least {LEAST} are needed")
    for kind, word in ((1.0, "supported"), (0.0, "unsupported")):
        some = len(np.unique(codes[outcome == kind]))
        if some < _LEAST_KIND:
            raise NotCalibrated(
                f"only {some} documents have a claim labelled {word}; at least {_LEAST_KIND} of each kind are needed"
            )


def _weights(found: Table, coefficients: Coefficients) -> Array:
    """Weights in the order of the table's columns; raises ``InputError`` where they weigh what the table lacks."""
    missing = sorted(set(coefficients.weights) - set(found.names))
    if missing:
        raise InputError(f"the coefficients weigh {missing[0]}, which was not measured on these claims")
    return np.array([coefficients.weights.get(name, 0.0) for name in found.names])


def _apply(found: Table, coefficients: Coefficients) -> Array:
    from calibration.calibrators import logistic

    return logistic(coefficients.intercept + found.features @ _weights(found, coefficients))


def _fitted(
    way: str, found: Table, begun: Coefficients, rows: npt.NDArray[np.bool_] | None = None
) -> tuple[float, Array]:
    """Intercept and weights by one way, from all rows or some."""
    from calibration.discrimination import fit_logistic

    x, y = (found.features, found.outcome) if rows is None else (found.features[rows], found.outcome[rows])
    weights = _weights(found, begun)
    if way == "as it is":
        return begun.intercept, weights
    if way == "corrected":
        shift, slope = fit_logistic((begun.intercept + x @ weights)[:, None], y, ridge=_RIDGE)
        return shift + float(slope[0]) * begun.intercept, float(slope[0]) * weights
    return _monotone(x, y, found.names)


def _monotone(x: Array, y: Array, names: Sequence[str]) -> tuple[float, Array]:
    """All weights fitted, those against their sense left out one by one: more of the claim in the documents must never
    count against it, however few labels say so.
    """
    from calibration.discrimination import fit_logistic

    signs = [_sign(name) for name in names]
    keep = list(range(x.shape[1]))
    weights = np.zeros(x.shape[1])
    while True:
        intercept, fitted = fit_logistic(x[:, keep], y, ridge=_RIDGE)
        senseless = np.array([signs[k] for k in keep]) * fitted * x[:, keep].std(axis=0)
        worst = int(senseless.argmin()) if keep else 0
        if not keep or senseless[worst] >= 0:
            weights[keep] = fitted
            return intercept, weights
        del keep[worst]


def _held_out(way: str, found: Table, folds: npt.NDArray[np.int64], begun: Coefficients) -> Array:
    from calibration.calibrators import logistic

    p = np.empty(len(found.outcome))
    for fold in range(_FOLDS):
        out = folds == fold
        if not out.any():
            continue
        intercept, weights = _fitted(way, found, begun, ~out)
        p[out] = logistic(intercept + found.features[out] @ weights)
    return p


def _row(line: bytes, where: str, names: Mapping[str, str]) -> LabelledClaim | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg}") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object; one claim a line with context, claim and label")
    if row.get(names["label"]) in (None, ""):
        return None
    missing = [name for name in ("context", "claim") if row.get(names[name]) in (None, "", [])]
    if missing:
        raise InputError(
            f"{where}: a label but no {names[missing[0]]!r}; every line needs context and claim (or --map)"
        )
    context, claim, label = (row[names[name]] for name in ("context", "claim", "label"))
    texts = [context] if isinstance(context, str) else context
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where}: {names['context']!r} is neither a text nor a list of texts")
    if not isinstance(claim, str):
        raise InputError(f"{where}: {names['claim']!r} is {type(claim).__name__}, not a text")
    word = str(label).strip().lower()
    if word not in _WORDS:
        raise InputError(f"{where}: label {str(label)[:40]!r} is neither supported nor unsupported (nor yes/no, 1/0)")
    group = row.get(names["document"])
    if group is None:
        group = hashlib.sha256("\x00".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return LabelledClaim(tuple(texts), claim, _WORDS[word], str(group))
