"""From a stored run to what ``calibration`` measures: names, verdicts in both orders, lengths, style of the answers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from calibration.evidence import Evidence, Said
from calibration.gold import GoldItem, GoldSet
from calibration.provenance import Judged, JudgedRun
from rubrics.words import pinned

from .errors import InputError
from .hacking.features import rates
from .runs import rubric_of
from .types import JudgeId, Outcome

if TYPE_CHECKING:
    from rubrics import TieRule

    from .store import RunInfo, Store

__all__ = ["compared", "compared_names", "labels_of", "run_evidence", "styles"]

_STYLES = ("bold", "headers", "lists", "hedges", "apologies")
"""The markers of ``hacking.features`` whose taste a calibration measures."""
_COLUMNS = (
    "pair_id", "repeat", "prompt_digest", "category", "outcome", "preference", "p_win", "p_tie", "p_loss",
    "cf_outcome", "cf_win", "cf_tie", "bf_outcome", "bf_win", "bf_tie", "candidate_chars", "baseline_chars",
)  # fmt: skip


def run_evidence(
    store: Store, info: RunInfo, *, read_texts_of: Iterable[str] = (), part_of: RunInfo | None = None
) -> Evidence:
    """Everything the calibration report needs of one stored run.

    ``read_texts_of`` are the pair ids whose answers are read for style (the labelled ones; the texts of a large run
    stay on disk). ``part_of`` is the run of which this one judges some pairs again: it lends its names, and the rate is
    then withheld unless all its pairs are there. Probabilities of repeats are averaged over those with a verdict, and
    the rubric's tie rule makes the outcome of that mean. Raises ``InputError`` for a run without a comparison.
    """
    answers = store.answers(info.run_id)
    frame = store.comparisons(info.run_id, _COLUMNS).join(answers, on="pair_id", how="left", maintain_order="left")
    if frame.is_empty():
        raise InputError(f"run {info.run_id} has no comparison yet; finish it with: judge resume {info.run_id}")
    head, tie_rule = info.header, rubric_of(info.header).tie_rule
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    rows, said = [], []
    same: dict[Any, Any] = {}  # few categories, models and outcomes stand on many pairs: each is held once
    for _, repeats in groupby(frame.iter_rows(named=True), key=itemgetter("pair_id")):
        own = list(repeats)
        rows.append(_judged(own, same))
        said.append(_said(own, rows[-1], tie_rule, same))
    run = JudgedRun(
        tuple(rows),
        *compared(store, part_of or info),
        rubric,
        None if part_of is None else len(store.ids(part_of.run_id)),
    )
    ids = {row.pair_id: row.pair_id for row in rows}
    cost, tokens, seconds = store.usage(info.run_id)
    return Evidence(
        run=run,
        said=tuple(said),
        rubric=rubric,
        judge=str(JudgeId(**info.header["judge"])),
        identity={
            **_identity(info),
            **({} if part_of is None else {"pairs of": str(part_of.header["evalset"]["digest"])}),
            "replies since": store.replies_since(info),
        },
        styles=styles(
            (pair.id, (pair.candidate.text, pair.baseline.text)) for pair in store.pairs(info.run_id, read_texts_of)
        ),
        cost=cost,
        tokens=tokens,
        seconds=seconds,
        sequence=tuple(ids[pair] for pair in answers["pair_id"] if pair in ids),
    )


def labels_of(store: Store, info: RunInfo) -> GoldSet:
    """The labels that the eval set of a run brought along, as a gold set without annotators.

    Where every pair has one, the whole run is labelled and they may speak for its rate; else nothing says how the
    labelled ones were picked.
    """
    columns = ("pair_id", "repeat", "prompt_digest", "category", "label")
    frame = store.comparisons(info.run_id, columns).unique("pair_id", keep="first", maintain_order=True)
    candidate, baseline = compared(store, info)
    rows = frame.filter(frame["label"] != "").to_dicts()
    return GoldSet(
        tuple(
            GoldItem(
                pair_id=row["pair_id"],
                prompt_id=row["prompt_digest"],
                labels=(),
                candidate=candidate,
                baseline=baseline,
                category=row["category"],
                source=f"the eval set of run {info.run_id}",
                drawn="all" if len(rows) == frame.height else "unknown",
                stated=Outcome(row["label"]),
            )
            for row in rows
        )
    )


def compared(store: Store, info: RunInfo) -> tuple[str, str]:
    """What a run compares, candidate and baseline (``compared_names``)."""
    return compared_names(store.models(info.run_id), info.header["evalset"]["digest"])


def compared_names(models: Iterable[tuple[str | None, str | None]], evalset_digest: str) -> tuple[str, str]:
    """What is compared, as labels and runs name it: each side's model if all answers name one, else the eval set.

    Labels carry these names, and only labels with the names of a run may correct its win rate: answers of a model
    without a name are told apart by the content of the eval set they stand in.
    """
    sides: tuple[set[str | None], set[str | None]] = (set(), set())
    for pair in models:
        for names, name in zip(sides, pair, strict=True):
            names.add(name or None)
    found = [
        next(iter(names)) if len(names) == 1 and None not in names else f"evalset:{evalset_digest[:12]}/{side}"
        for names, side in zip(sides, ("candidate", "baseline"), strict=True)
    ]
    return str(found[0]), str(found[1])


def styles(texts: Iterable[tuple[str, tuple[str, str]]]) -> dict[str, dict[str, float]]:
    """By marker and pair id, how much more of it the candidate's answer has: counts per 100 words, difference.

    ``texts`` are pair ids with the candidate's and the baseline's answer.
    """
    found: dict[str, dict[str, float]] = {name: {} for name in _STYLES}
    for pair, sides in texts:
        both = [rates(text, _STYLES) for text in sides]
        for name in _STYLES:
            found[name][pair] = both[0][name] - both[1][name]
    return found


def _judged(rows: list[dict[str, Any]], same: dict[Any, Any]) -> Judged:
    valid = [row for row in rows if row["preference"] is not None]
    first = rows[0]
    p = [sum(row[name] for row in valid) / len(valid) if valid else None for name in ("p_win", "p_tie", "p_loss")]
    return Judged(
        pair_id=first["pair_id"],
        prompt_id=first["prompt_digest"],
        p_win=p[0],
        p_tie=p[1],
        p_loss=p[2],
        category=same.setdefault(first["category"], first["category"]),
        candidate_length=first["candidate_chars"],
        baseline_length=first["baseline_chars"],
    )


def _said(rows: list[dict[str, Any]], judged: Judged, tie_rule: TieRule, same: dict[Any, Any]) -> Said:
    outcome = None
    if judged.p_win is not None and judged.p_tie is not None and judged.p_loss is not None:
        single = rows[0]["outcome"] if len(rows) == 1 else None
        outcome = Outcome(single or tie_rule.outcome(judged.p_win, judged.p_tie, judged.p_loss))
    first, second = (
        tuple(Outcome(row[name]) if row[name] else None for row in rows) for name in ("cf_outcome", "bf_outcome")
    )
    candidate, baseline = rows[0]["candidate"] or None, rows[0]["baseline"] or None
    return Said(
        outcome=outcome,
        first=same.setdefault(first, first),
        second=same.setdefault(second, second),
        soft=(_soft(rows, "cf"), _soft(rows, "bf")),
        candidate=same.setdefault(candidate, candidate),
        baseline=same.setdefault(baseline, baseline),
        each=tuple(row["preference"] for row in rows),
        texts=rows[0]["texts"] or "",
    )


def _soft(rows: list[dict[str, Any]], prefix: str) -> float | None:
    given = [row[f"{prefix}_win"] + row[f"{prefix}_tie"] / 2 for row in rows if row[f"{prefix}_win"] is not None]
    return sum(given) / len(given) if given else None


def _identity(info: RunInfo) -> dict[str, str]:
    head = info.header
    return {
        "run": info.run_id,
        "created": info.created_at,
        "judge": str(JudgeId(**head["judge"])),
        "judge string": str(head["judge_spec"]),
        "rubric": str(head["rubric"]),
        "rubric digest": str(head["rubric_digest"]),
        "template": str(head["template"]),
        "eval set": str(head["evalset"]["digest"]),
        "seed": str(head["seed"]),
        "repeats": str(head["repeats"]),
    }
