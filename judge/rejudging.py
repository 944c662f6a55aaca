"""The labelled pairs judged again, under another rubric or by another judge, so that the two can be compared.

The pairs are written once as an eval set in the home folder, named by their content; judging them is an ordinary run:
journaled, resumable, and free where the same judgement is stored.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np
import orjson

from .errors import InputError
from .evidence import compared
from .formats import EvalSet, open_evalset, write_evalset
from .journal import encode_pair
from .store.runs import AGAIN
from .types import JudgeId

if TYPE_CHECKING:
    from calibration.change import Side
    from calibration.evidence import Evidence, Matched
    from calibration.gold import GoldSet
    from rubrics import Rubric

    from .store import RunInfo, Store

__all__ = ["labelled_evalset", "run_with_labels", "side_of", "stored"]


def run_with_labels(store: Store, gold: GoldSet, run_id: str | None) -> RunInfo | None:
    """The run that the labels are about: the one named, else the newest sealed run with labelled pairs.

    A run of the models that the labels name goes before one that only has the same pair ids.
    """
    if run_id is not None:
        return store.run(run_id)
    wanted = {item.pair_id for item in gold.items}
    named = {(item.candidate, item.baseline) for item in gold.items}
    second = None
    for info in store.runs():
        if store.is_aside(info) or not info.sealed:
            continue
        if wanted.isdisjoint(store.ids(info.run_id)):
            continue
        if named & {compared(store, info), *store.models(info.run_id)}:
            return info
        second = second or info
    return second


def labelled_evalset(store: Store, info: RunInfo, gold: GoldSet, *, anchors: int = 0, seed: int = 0) -> EvalSet:
    """The labelled pairs of a run, and ``anchors`` others drawn at random, as an eval set in the home folder.

    Raises ``InputError`` where the run holds none of the labelled pairs.
    """
    labelled = {item.pair_id for item in gold.items}
    known = set(store.ids(info.run_id))
    wanted = sorted(labelled & known)
    if not wanted:
        raise InputError(
            f"run {info.run_id} holds none of the {len(labelled)} labelled pairs; name the run they are of, or "
            "draw fresh ones with `judge label`"
        )
    rest = sorted(known - labelled)
    wanted += random.Random(seed).sample(rest, min(anchors, len(rest)))
    pairs = list(store.pairs(info.run_id, wanted))
    digest = hashlib.sha256(b"\n".join(orjson.dumps(encode_pair(pair), default=str) for pair in pairs)).hexdigest()
    path = store.home / AGAIN / f"labelled-{digest[:12]}.jsonl"
    if not path.exists():
        write_evalset(path, pairs)
    return open_evalset(path)


def side_of(evidence: Evidence, matched: Matched) -> Side:
    """One side of the experiment: verdicts on the labelled pairs, and on the others as anchors."""
    from calibration.change import Side

    labelled = {item.pair_id for item in matched.gold.items}
    preferences = {
        row.pair_id: None if np.isnan(value) else float(value)
        for row, value in zip(evidence.run.rows, evidence.preferences, strict=True)
    }
    return Side(
        name=f"{evidence.rubric} by {evidence.judge}",
        rubric=evidence.rubric,
        judge=evidence.judge,
        verdicts={pair: outcome for pair, outcome in evidence.outcomes.items() if pair in labelled},
        preferences={pair: value for pair, value in preferences.items() if pair in labelled},
        cost=evidence.cost,
        tokens=evidence.tokens or None,
        seconds=evidence.seconds,
        anchors={pair: value for pair, value in preferences.items() if pair not in labelled},
        prompts={row.pair_id: row.prompt_id for row in evidence.run.rows},
    )


def stored(store: Store, evalset: EvalSet, rubric: Rubric, judge: JudgeId) -> RunInfo | None:
    """The newest sealed run of exactly this eval set, rubric text and judge."""
    for info in store.runs():
        same = info.header["evalset"]["digest"] == evalset.digest and info.header["rubric_digest"] == rubric.digest
        if info.sealed and same and info.judge == str(judge) and info.header["repeats"] == 1:
            return info
    return None
