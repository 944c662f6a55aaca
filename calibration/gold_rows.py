"""One labelled pair as a value, and the one place that knows what a line of a gold file looks like."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rubrics import Outcome
from rubrics.errors import InputError

__all__ = ["GoldItem", "GoldLabel", "parse", "row"]

_LETTERS = {"A": Outcome.WIN, "B": Outcome.LOSS, "tie": Outcome.TIE}
_WORDS = {str(outcome): outcome for outcome in Outcome}
_PROVENANCE = ("candidate", "baseline", "rubric", "category", "source", "drawn", "stratum")
_DRAWS = ("random", "stratified", "active", "all", "escalated", "unknown")


@dataclass(frozen=True, slots=True)
class GoldLabel:
    """One annotator's outcome for one pair, from the candidate's side.

    ``closeness`` is 0 (far apart) to 1 (nearly equal), as the annotator felt it. ``at`` is an ISO 8601 time,
    ``shown_first`` is ``"candidate"`` or ``"baseline"`` where the place on the screen is known. ``named`` is false
    where the annotator is only a position in a list (``r1``, ``r2``): two such names on two pairs need not be one
    person.
    """

    annotator: str
    outcome: Outcome
    rationale: str = ""
    closeness: float | None = None
    at: str | None = None
    shown_first: str | None = None
    named: bool = True


@dataclass(frozen=True, slots=True)
class GoldItem:
    """One labelled pair and its provenance.

    ``prompt_id`` is the cluster; ``source`` the collection it came from. ``drawn`` says how it was chosen (``random``,
    ``stratified``, ``active``, ``all``, ``escalated``, or ``unknown``), ``probability`` with what chance (``None`` =
    not recorded), ``stratum`` from which stratum. ``stated`` is an outcome which the source gives without saying whose
    it is. Lengths are in characters of the answers.
    """

    pair_id: str
    prompt_id: str
    labels: tuple[GoldLabel, ...]
    candidate: str | None = None
    baseline: str | None = None
    rubric: str | None = None
    category: str = ""
    source: str = ""
    drawn: str = "unknown"
    probability: float | None = None
    stratum: str = ""
    stated: Outcome | None = None
    candidate_length: int | None = None
    baseline_length: int | None = None

    @property
    def majority(self) -> Outcome | None:
        """What more than half of the annotators said (without annotators: ``stated``); ``None`` is "no majority"."""
        if not self.labels:
            return self.stated
        outcome, count = Counter(label.outcome for label in self.labels).most_common(1)[0]
        return outcome if 2 * count > len(self.labels) else None

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of annotators who said win, tie and loss."""
        given: list[Outcome | None] = [label.outcome for label in self.labels] or [self.stated]
        win, tie, loss = (given.count(outcome) / len(given) for outcome in (Outcome.WIN, Outcome.TIE, Outcome.LOSS))
        return win, tie, loss

    @property
    def value(self) -> float:
        """Mean of the annotators' outcomes: win 1, tie 0.5, loss 0."""
        win, tie, _ = self.shares
        return win + tie / 2

    @property
    def disagreement(self) -> float:
        """Chance that two annotators of this pair differ: 0 for one voice, 1 where no two agree."""
        n = len(self.labels)
        if n < 2:
            return 0.0
        same = sum(count * (count - 1) for count in Counter(label.outcome for label in self.labels).values())
        return 1 - same / (n * (n - 1))


def parse(lines: Iterable[str], *, where: str, source: str) -> tuple[tuple[GoldItem, ...], tuple[str, ...]]:
    """Items in order of first appearance, and notes on what was odd; ``InputError`` names ``where`` and the line."""
    items: dict[str, GoldItem] = {}
    unlabelled = 0
    shapes = set()
    derived: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = _object(line)
            shapes.add("pair" if "response_a" in raw else "label")
            if len(shapes) > 1:
                raise InputError("pair rows and label rows stand in one file; keep them apart")
            if "response_a" not in raw:
                _add_label(items, raw, source)
                continue
            item = _pair(raw, source)
            if item is None:
                unlabelled += 1
                continue
            if item.pair_id in items:
                raise InputError(f"field id: {item.pair_id!r} stands twice; give every pair its own id")
            if item.labels and item.stated not in (None, item.majority):
                derived.append(item.pair_id)
            items[item.pair_id] = item
        except (InputError, ValueError) as error:
            raise InputError(f"{where}:{number}: {error}") from error
    notes = []
    if unlabelled:
        notes.append(f"{unlabelled} rows carry no label and were left out")
    if derived:
        notes.append(f"the source's own label differs from the majority of the annotators on {len(derived)} pairs")
    return tuple(item for item in items.values() if item.labels or item.stated is not None), tuple(notes)


def _object(line: str) -> dict[str, Any]:
    """One line as a JSON object."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        torn = "; a torn last line is cut by `judge label --to FILE`" if not line.rstrip().endswith("}") else ""
        raise InputError(f"not JSON ({error.msg} at column {error.colno}){torn}") from error
    except RecursionError:
        raise InputError("nested too deeply for a label; delete the line") from None
    if not isinstance(raw, dict):
        raise InputError("a row must be a JSON object")
    return raw


def row(item: GoldItem, label: GoldLabel) -> dict[str, Any]:
    """One label as the mapping that ``GoldSet.read`` reads back: what ``judge label`` appends to its file."""
    out: dict[str, Any] = {
        "pair_id": item.pair_id,
        "prompt_id": item.prompt_id,
        "annotator": label.annotator,
        "outcome": str(label.outcome),
        "rationale": label.rationale,
        "closeness": label.closeness,
        "at": label.at,
        "shown_first": label.shown_first,
        "probability": item.probability,
        "candidate_length": item.candidate_length,
        "baseline_length": item.baseline_length,
    }
    out |= {name: getattr(item, name) for name in _PROVENANCE}
    return {name: value for name, value in out.items() if value not in (None, "")}


def _add_label(items: dict[str, GoldItem], raw: Mapping[str, Any], source: str) -> None:
    pair, who = _text(raw, "pair_id"), _text(raw, "annotator")
    fresh = _item(raw, pair, source)
    item = items.setdefault(pair, fresh)
    for name in (*_PROVENANCE, "prompt_id", "probability"):
        if getattr(item, name) != getattr(fresh, name):
            raise InputError(
                f"field {name}: {getattr(fresh, name)!r} for pair {pair!r}, "
                f"but an earlier row says {getattr(item, name)!r}"
            )
    others = tuple(label for label in item.labels if label.annotator != who)
    if len(others) < len(item.labels) and not raw.get("revises"):
        raise InputError(f'annotator {who!r} labelled pair {pair!r} before; a correction carries "revises": true')
    if raw.get("outcome") is None and raw.get("revises"):
        items[pair] = replace(item, labels=others)
        return
    _within(raw, "closeness", zero=True)
    label = GoldLabel(
        annotator=who,
        outcome=_outcome(raw.get("outcome"), "outcome", _WORDS),
        rationale=str(raw.get("rationale") or ""),
        closeness=raw.get("closeness"),
        at=raw.get("at"),
        shown_first=_side(raw.get("shown_first")),
    )
    items[pair] = replace(item, labels=(*others, label))


def _pair(raw: Mapping[str, Any], source: str) -> GoldItem | None:
    pair = _text(raw, "id")
    given = raw.get("annotators")
    labels: tuple[GoldLabel, ...] = ()
    if isinstance(given, Mapping):
        labels = tuple(
            GoldLabel(str(name), _outcome(letter, f"annotators.{name}", _LETTERS)) for name, letter in given.items()
        )
    elif isinstance(given, list):
        labels = tuple(
            GoldLabel(f"r{place}", _outcome(letter, f"annotators.{place - 1}", _LETTERS), named=False)
            for place, letter in enumerate(given, 1)
            if letter is not None
        )
    elif given is not None:
        raise InputError("field annotators: give a list of A, B, tie, or a mapping from annotator to one of them")
    stated = None if raw.get("label") is None else _outcome(raw["label"], "label", _LETTERS)
    if stated is None and not labels:
        return None
    meta = raw.get("meta") if isinstance(raw.get("meta"), Mapping) else {}
    assert isinstance(meta, Mapping)
    flat = {"candidate": meta.get("model_a"), "baseline": meta.get("model_b")} | {
        name: value for name, value in raw.items() if name != "label"
    }
    item = _item(flat, pair, source)
    lengths = [len(text) if isinstance(text, str) else None for text in (raw["response_a"], raw.get("response_b"))]
    return replace(item, labels=labels, stated=stated, candidate_length=lengths[0], baseline_length=lengths[1])


def _item(raw: Mapping[str, Any], pair: str, source: str) -> GoldItem:
    _within(raw, "probability", zero=False)
    drawn = str(raw.get("drawn") or "unknown")
    if drawn not in _DRAWS:
        raise InputError(f"field drawn: {drawn!r} is none of {', '.join(_DRAWS)}")
    prompt = raw.get("prompt_id")
    if prompt is None and isinstance(raw.get("prompt"), str):
        prompt = hashlib.sha256(raw["prompt"].encode("utf-8", "surrogatepass")).hexdigest()[:16]
    named = {name: None if raw.get(name) is None else str(raw[name]) for name in ("candidate", "baseline", "rubric")}
    return GoldItem(
        pair_id=pair,
        prompt_id=str(prompt) if prompt is not None else pair,
        labels=(),
        candidate=named["candidate"],
        baseline=named["baseline"],
        rubric=named["rubric"],
        category=str(raw.get("category") or ""),
        source=str(raw.get("source") or source),
        drawn=drawn,
        probability=raw.get("probability"),
        stratum=str(raw.get("stratum") or ""),
        candidate_length=_length(raw, "candidate_length"),
        baseline_length=_length(raw, "baseline_length"),
    )


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise InputError(f"field {name}: missing or no text; every row needs one")
    return str(value)


def _outcome(value: object, name: str, known: Mapping[str, Outcome]) -> Outcome:
    if isinstance(value, str) and value in known:
        return known[value]
    raise InputError(f"field {name}: {value!r} is none of {', '.join(known)}")


def _side(value: object) -> str | None:
    if value in (None, "candidate", "baseline"):
        return None if value is None else str(value)
    raise InputError(f"field shown_first: {value!r} is neither candidate nor baseline")


def _within(raw: Mapping[str, Any], name: str, *, zero: bool) -> None:
    value = raw.get(name)
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 <= value <= 1) or (value == 0 and not zero):
        raise InputError(f"field {name}: {value!r} is no number {'from 0 to 1' if zero else 'above 0 and up to 1'}")


def _length(raw: Mapping[str, Any], name: str) -> int | None:
    value = raw.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise InputError(f"field {name}: {value!r} is no number of characters")
