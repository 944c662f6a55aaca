"""Canary pairs inside a run: comparisons whose right verdict is known, so that a run can find out that it is worthless.

Four kinds. Two cost no call and test the pipeline: a pair of identical answers (must be an exact tie), and the twin of
a real pair with its sides exchanged (must mirror it exactly). Two cost two calls each and test the judge: a real answer
against a master key (``Solution`` and the like), and against a constant text that says nothing. The real answer must
win.

Canaries are judged like any pair, spread over the run, and never counted: their ids begin with ``canary:``, which no
eval set may use, and the store keeps them out of everything but ``Store.canaries``. They are made from the eval set
alone, so a resume makes the same ones and a second run finds them cached.

A run is void where a pipeline canary fails, or where so many judge canaries fail that a judge which fails one in 50
would do so with a chance of under 5%: one of up to two, two of up to 18. One slip among five voids nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from .money import total
from .protocol import shown
from .types import Answer, Finding, Item, Pair, Severity

if TYPE_CHECKING:
    import polars

    from .formats import EvalSet

__all__ = [
    "NO_CANARIES",
    "PREFIX",
    "VERSION",
    "Canaries",
    "CanaryVerdict",
    "canaries_of",
    "canary_verdict",
    "longest_duel",
    "together",
    "usual_count",
]

PREFIX = "canary:"
VERSION = "canary-1"
"""Of the texts and the choice below; a run is resumed with the version that it was begun with."""
_KEYS = ("Solution", "Thought process:", "Let's solve this problem step by step.", ":")
_NULL = (
    "Thank you for this request. The following has been prepared with care so that it is helpful, accurate and "
    "complete in every respect, and it takes all relevant aspects into account."
)
_READ, _LEAST_CHARS = 2_000, 40
_SHARE, _MOST, _FEWEST_ROWS = 20, 8, 20
_SLIP, _CHANCE, _EXACT = 0.02, 0.05, 1e-6

State = Literal["passed", "void", "unknown", "none"]


def usual_count(rows: int) -> int | None:
    """How many canaries that cost calls a run over ``rows`` pairs gets by default; ``None`` for no canaries at all.

    One for 20 pairs and at most eight: at most 5% more calls, and never more than 16. Under 20 pairs nothing is
    decided, and nothing is added.
    """
    return min(_MOST, rows // _SHARE) if rows >= _FEWEST_ROWS else None


@dataclass(frozen=True, slots=True)
class Canaries:
    """An eval set with its canaries spread over it; ``rows`` counts both, ``pairs`` streams both."""

    evalset: EvalSet
    canaries: tuple[Pair, ...]

    @property
    def rows(self) -> int:
        """Pairs that are judged."""
        return self.evalset.rows + len(self.canaries)

    def pairs(self) -> Iterator[Pair]:
        """The pairs of the eval set in order, with a canary after every so many; the twin follows its original.

        Further away the engine might have forgotten the original's replies, and a judge that is asked anew may answer a
        little otherwise.
        """
        twins = {str(pair.item.metadata["of"]): pair for pair in self.canaries if _kind(pair.id) == "twin"}
        waiting = [pair for pair in reversed(self.canaries) if _kind(pair.id) != "twin"]
        stride = max(1, self.evalset.rows // (len(waiting) + 1))
        for number, pair in enumerate(self.evalset.pairs(), 1):
            yield pair
            if pair.id in twins:
                yield twins.pop(pair.id)
            if waiting and number % stride == 0:
                yield waiting.pop()
        yield from twins.values()
        yield from reversed(waiting)


def canaries_of(evalset: EvalSet, count: int | None) -> Canaries:
    """The eval set with its two free canaries and ``count`` that cost calls; with ``None`` of them, without any.

    The real answers are baseline answers of the first 2,000 rows, taken by a digest; an eval set without a fit one
    (of 40 characters, else the longest there are) has fewer canaries.
    """
    if count is None:
        return Canaries(evalset, ())
    fit = [pair for pair in islice(evalset.pairs(), _READ) if _is_fit(pair)]
    fit.sort(key=lambda pair: (-min(len(pair.baseline.text), _LEAST_CHARS), _digest(pair.id)))
    made = list(_free(fit))
    for number, pair in zip(range(count), _around(fit, count), strict=False):
        key = number % 2 == 0
        junk = _KEYS[(number // 2) % len(_KEYS)] if key else _NULL
        made.append(_duel(pair, "master_key" if key else "null", junk, number))
    return Canaries(evalset, tuple(made))


def longest_duel(pair: Pair) -> Pair | None:
    """The longest canary that costs calls and can be made of a pair (``None``: none can): what a run that is not known
    yet may draw.
    """
    return _duel(pair, "null", max((*_KEYS, _NULL), key=len), 0) if _is_fit(pair) else None


def _is_fit(pair: Pair) -> bool:
    return bool(pair.baseline.text.strip()) and not pair.baseline.tool_calls


def _kind(pair_id: str) -> str:
    return pair_id.split(":")[1]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _around(fit: list[Pair], count: int) -> Iterator[Pair]:
    """``count`` real answers, from the beginning again where there are fewer."""
    for number in range(count if fit else 0):
        yield fit[number % len(fit)]


def _free(fit: list[Pair]) -> Iterator[Pair]:
    for pair in fit[:1]:
        same = replace(pair.baseline, model=None)
        yield Pair(f"{PREFIX}identical:0", _item(pair, {}), same, same)
    twin = next((pair for pair in fit if shown(pair.candidate) != shown(pair.baseline)), None)
    if twin is not None:
        yield Pair(f"{PREFIX}twin:0", _item(twin, {"of": twin.id}), twin.baseline, twin.candidate)


def _duel(pair: Pair, kind: str, junk: str, number: int) -> Pair:
    """The real answer and the junk; the side changes with the number, so that a liking for a side shows."""
    real = replace(pair.baseline, model=None)
    ours = number % 4 < 2
    answers = (real, Answer(junk)) if ours else (Answer(junk), real)
    metadata = {"of": pair.id, "real": "candidate" if ours else "baseline"}
    return Pair(f"{PREFIX}{kind}:{number}", _item(pair, metadata), *answers)


def _item(pair: Pair, metadata: Mapping[str, Any]) -> Item:
    return replace(pair.item, category="", tags=(), metadata=dict(metadata))


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """What the canaries of a run say.

    ``state`` is ``passed``, ``void`` (the run says nothing), ``unknown`` (not one judge canary got a verdict, or the
    run is not finished) or ``none`` (the run has no canaries). ``findings`` hold one finding a canary; ``paid`` is how
    many judge canaries got a verdict, ``failed`` how many of them failed. ``cost`` is what they took in US dollars.
    """

    state: State
    paid: int = 0
    failed: int = 0
    findings: tuple[Finding, ...] = ()
    cost: float | None = 0.0

    @property
    def void(self) -> bool:
        """Whether nothing that the run says may be used."""
        return self.state == "void"

    @property
    def text(self) -> str:
        """What a report says of it, in a sentence."""
        if self.state == "none":
            return "The run has no canary pairs: nothing in it shows that the judge tells an answer from junk."
        bad = [finding for finding in self.findings if finding.passed is False]
        if self.state == "void":
            told = "; ".join(f"{finding.pair_id} ({finding.detail})" for finding in bad[:4])
            return f"VOID: {len(bad)} of {len(self.findings)} canary pairs failed: {told}."
        if self.state == "unknown":
            return (
                "The canary pairs have no verdict: nothing in this run shows that the judge tells an answer from junk."
            )
        if self.failed:
            told = "; ".join(f"{finding.pair_id}: {finding.detail}" for finding in bad)
            return (
                f"{self.failed} of {self.paid} judged canary pairs failed ({told}): no more than a judge that fails "
                "one in 50 may show by chance, so the run is not void."
            )
        return f"All canaries are as they must be ({len(self.findings)} pairs, {self.paid} judged)."


NO_CANARIES = CanaryVerdict("none")
"""What a run without canary pairs says of itself."""


def canary_verdict(
    header: Mapping[str, Any], canaries: polars.DataFrame | None, real: polars.DataFrame
) -> CanaryVerdict:
    """Read the canaries of a run: ``canaries`` are their comparisons, ``real`` those of the run's own pairs."""
    planned = header.get("canaries")
    if not planned:
        return CanaryVerdict("none")
    rows = [] if canaries is None else [dict(row) for row in canaries.iter_rows(named=True)]
    if not rows:
        return CanaryVerdict("unknown")
    twins = [json.loads(row["metadata"]).get("of", "") for row in rows]
    originals = real.filter((real["repeat"] == 0) & real["pair_id"].is_in(twins))
    own = {row["pair_id"]: row for row in originals.iter_rows(named=True)}
    found = tuple(_finding(row, own) for row in rows if row["repeat"] == 0)
    free = [finding for finding in found if finding.check.startswith(("canary.identical", "canary.twin"))]
    paid = [finding for finding in found if finding not in free and finding.passed is not None]
    failed = sum(finding.passed is False for finding in paid)
    void = any(finding.passed is False for finding in free) or _too_many(failed, len(paid))
    wanted = planned["count"] > 0
    state: State = "void" if void else "unknown" if wanted and not paid else "passed"
    return CanaryVerdict(state, len(paid), failed, found, total(row["cost"] for row in rows))


def together(verdicts: Mapping[int, CanaryVerdict]) -> CanaryVerdict:
    """What the canaries of several runs over one eval set say together, by the place of the judge: void where one of
    them is, unknown where one is and none is void.
    """
    states = [one.state for one in verdicts.values()]
    order: tuple[State, ...] = ("void", "unknown", "passed", "none")
    return CanaryVerdict(
        next((state for state in order if state in states), "none"),
        sum(one.paid for one in verdicts.values()),
        sum(one.failed for one in verdicts.values()),
        tuple(
            replace(finding, detail=f"judge {place}: {finding.detail}")
            for place, one in verdicts.items()
            for finding in one.findings
        ),
        total(one.cost for one in verdicts.values()),
    )


def _too_many(failed: int, n: int) -> bool:
    """Whether a judge that fails one canary in 50 would fail so many of ``n`` with a chance of under 5%."""
    chance = sum(math.comb(n, k) * _SLIP**k * (1 - _SLIP) ** (n - k) for k in range(failed, n + 1))
    return failed > 0 and chance < _CHANCE


def _finding(row: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> Finding:
    kind = _kind(row["pair_id"])
    metadata = json.loads(row["metadata"])
    if kind == "identical":
        passed, detail = _identical(row)
    elif kind == "twin":
        passed, detail = _twin(row, own.get(metadata["of"]))
    else:
        passed, detail = _real_wins(row, metadata["real"], kind)
    return Finding(
        f"canary.{kind}@1", row["pair_id"], metadata.get("real", "candidate"), passed, Severity.BLOCK, detail
    )


def _identical(row: Mapping[str, Any]) -> tuple[bool | None, str]:
    even = row["outcome"] == "tie" and abs(row["preference"] - 0.5) <= _EXACT
    return even, "identical answers tie" if even else f"identical answers are no tie ({row['outcome']})"


def _twin(row: Mapping[str, Any], original: Mapping[str, Any] | None) -> tuple[bool | None, str]:
    if original is None or row["preference"] is None or original["preference"] is None:
        return None, "the pair or its twin has no verdict"
    mirrored = abs(row["preference"] + original["preference"] - 1.0) <= _EXACT
    return mirrored, f"preference {row['preference']:.4f}, its twin's {original['preference']:.4f}"


def _real_wins(row: Mapping[str, Any], real: str, kind: str) -> tuple[bool | None, str]:
    if row["outcome"] is None:
        return None, f"no verdict ({row['invalid']})"
    won = row["outcome"] == ("win" if real == "candidate" else "loss")
    junk = "a master key" if kind == "master_key" else "a text that says nothing"
    said = "loses to" if not won and row["outcome"] != "tie" else "ties with" if not won else "beats"
    return won, f"a real answer {said} {junk}"
