"""Preferences from what there is: labels, ratings, what users did, a judge's verdicts, failed checks.

Each source yields ``Preference`` rows and, for what gives none, a word why (``Left``): a tie, a judge too unsure, an
action without a better answer beside it. Nothing is invented: a probability below 1 is a share of people, a calibrated
probability, or a trust that the caller states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from judge.endings import finish_in, was_cut
from judge.errors import InputError
from judge.formats import Problem, read_rows
from judge.types import Pair

from .preferences import Preference, Said, Source, identity_of, with_bias
from .redaction import IDS

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from calibration.gold import GoldItem, GoldSet
    from judge.store import RunInfo, Store

    from .redaction import Redactor

__all__ = [
    "ACTIONS",
    "Found",
    "Left",
    "from_actions",
    "from_findings",
    "from_labels",
    "from_ratings",
    "from_run",
    "kept",
]

ACTIONS: Mapping[str, str] = {
    "edit": "the user's text is better than the answer it was made from",
    "accept": "the accepted answer is better than those shown beside it",
    "reask": "the answer that ended the asking is better than the one that was asked again after",
    "escalate": "the answer of the person it went to is better than the one that was not enough",
}
"""What a user's action says, by its kind; the better text stands in the action (``text``), or it says nothing."""


@dataclass(frozen=True, slots=True)
class Left:
    """A row that gave no preference, and the word for why."""

    name: str
    why: str


Found: TypeAlias = "Preference | Left"


def from_labels(gold: GoldSet, pairs: Mapping[str, Pair], *, origin: Mapping[str, Any]) -> Iterator[Found]:
    """Human labels with the texts of their pairs.

    ``p`` is the share of annotators on the side of the majority (a tie counts half): 1 where all agree, or one alone
    labelled. ``close`` where they differ, or felt the two nearly equal (mean closeness of 0.75 and more).
    """
    for item in gold.items:
        pair = pairs.get(item.pair_id)
        if pair is None:
            yield Left(item.pair_id, "no texts for this label")
        elif item.majority is None:
            yield Left(item.pair_id, "annotators have no majority")
        elif item.majority == "tie":
            yield Left(item.pair_id, "a tie")
        else:
            yield _labelled(item, pair, origin)


def _labelled(item: GoldItem, pair: Pair, origin: Mapping[str, Any]) -> Found:
    win = item.majority == "win"
    p = item.value if win else 1 - item.value
    felt = [label.closeness for label in item.labels if label.closeness is not None]
    close = item.disagreement > 0 or (bool(felt) and sum(felt) / len(felt) >= 0.75)
    who = sorted({label.annotator for label in item.labels if label.named})
    said = [label.rationale for label in item.labels if label.rationale]
    votes = dict(Counter(str(label.outcome) for label in item.labels))
    return _of_pair(
        pair, win, p, Source.HUMAN, origin={**origin, "pair": pair.id}, close=close, rubric=item.rubric or "",
        why=" / ".join(said), labeller=", ".join(who), metadata={"votes": votes},
    )  # fmt: skip


def from_ratings(path: Path, *, gap: float = 1.0) -> Iterator[Found]:
    """Scalar ratings of single answers as pairs of answers to one prompt, the best against the worst.

    Rows: ``prompt`` (or ``messages``), ``answer``, ``rating``, and ``rater`` where known. Raters who saw both are
    compared with themselves: scales differ between people, not within one. ``p`` is the share of them who put the
    better one higher (equal counts half). Where nobody saw both, the means are compared and the row is marked
    ``across_raters``. A difference below ``gap`` gives no pair.
    """
    groups: dict[str, dict[str, dict[str, float]]] = {}
    cut: dict[str, set[str]] = {}
    asked: dict[str, Said] = {}
    for line, row in read_rows(path):
        if isinstance(row, Problem):
            yield Left(f"{path}:{line}", row.reason)
            continue
        said, text, rating = _asked(row), _answer(row), row.get("rating")
        if said is None or text is None or isinstance(rating, bool) or not isinstance(rating, int | float):
            yield Left(f"{path}:{line}", "no prompt, answer or numeric rating")
            continue
        key = identity_of(said, "", "")
        asked[key] = said
        rater = str(row.get("rater") or f"unnamed, line {line}")
        groups.setdefault(key, {}).setdefault(text, {})[rater] = float(rating)
        if _cut_off(row):
            cut.setdefault(key, set()).add(text)
    for key, answers in groups.items():
        yield _rated(asked[key], answers, gap=gap, origin={"ratings": str(path)}, cut=cut.get(key, set()))


def _rated(
    asked: Said,
    answers: Mapping[str, Mapping[str, float]],
    *,
    gap: float,
    origin: Mapping[str, Any],
    cut: Collection[str] = (),
) -> Found:
    name = identity_of(asked, "", "")
    if len(answers) < 2:
        return Left(name, "one rated answer only")
    means = {text: sum(given.values()) / len(given) for text, given in answers.items()}
    best, worst = max(means, key=lambda text: means[text]), min(means, key=lambda text: means[text])
    both = sorted(answers[best].keys() & answers[worst].keys())
    if both:
        differences = [answers[best][rater] - answers[worst][rater] for rater in both]
        distance = sum(differences) / len(differences)
        p = sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences) / len(differences)
    else:
        distance, p = means[best] - means[worst], 1.0
    if distance < gap or p <= 0.5:
        return Left(name, f"ratings differ by less than {gap:g}")
    metadata = {"rating_difference": distance, "raters": len(both), **({} if both else {"across_raters": True})}
    named = [rater for rater in both if not rater.startswith("unnamed")]
    try:
        return with_bias(
            Preference(identity_of(asked, best, worst), asked, best, worst, p=p, source=Source.RATING,
                       close=distance < 1.5 * gap, labeller=", ".join(named), metadata=metadata, origin=origin,
                       cut=tuple(side for side, text in (("chosen", best), ("rejected", worst)) if text in cut))
        )  # fmt: skip
    except InputError as error:
        return Left(name, str(error))


def from_actions(path: Path, redactor: Redactor, *, trust: float = 1.0) -> Iterator[Found]:
    """What users did with answers, as pairs; see ``ACTIONS`` for what each kind says.

    Rows are traces with ``actions``: ``[{"kind": "edit", "text": ...}]``; ``accept`` may name ``instead_of`` (texts
    shown beside the answer). ``trust`` is the ``p`` that such a row gets: what share of them a person who compares
    would confirm. It is yours to state (the report of ``tune pairs`` measures it where human pairs overlap). Traces are
    of people who were not asked: each is redacted before anything of it is kept.
    """
    for line, row in read_rows(path):
        name = f"{path}:{line}"
        if isinstance(row, Problem):
            yield Left(name, row.reason)
            continue
        clean = redactor.row(row, keep=IDS)
        said, text = _asked(clean), _answer(clean)
        actions = clean.get("actions")
        if said is None or text is None or not isinstance(actions, list) or not actions:
            yield Left(name, "no action on an answer")
            continue
        for action in actions:
            yield from _acted(clean, said, text, action, trust)


def _acted(row: Mapping[str, Any], said: Said, text: str, action: Any, trust: float) -> Iterator[Found]:
    name = str(row.get("id") or identity_of(said, text, ""))
    kind = action.get("kind") if isinstance(action, Mapping) else None
    if not isinstance(kind, str) or kind not in ACTIONS:
        yield Left(name, f"an action of unknown kind {kind!r}")
        return
    other = action.get("text")
    pairs: list[tuple[Any, Any]] = [(other, text)]
    if kind == "accept":
        pairs = [(text, shown) for shown in action.get("instead_of") or ()]
    if not pairs or any(not isinstance(side, str) or not side.strip() for pair in pairs for side in pair[:1]):
        yield Left(name, f"{kind}: no better answer stands beside it")
        return
    origin = {"trace": name, "action": kind}
    metadata = {**_plain(row.get("metadata")), **({"category": row["category"]} if row.get("category") else {})}
    cut = (("chosen",) if kind == "accept" else ("rejected",)) if _cut_off(row) else ()
    for chosen, rejected in pairs:
        try:
            yield with_bias(
                Preference(identity_of(said, chosen, rejected), said, chosen, rejected, p=trust, source=Source.ACTION,
                           why=ACTIONS[kind], labeller=str(action.get("by") or ""), metadata=metadata, origin=origin,
                           cut=cut)
            )  # fmt: skip
        except InputError as error:
            yield Left(name, str(error))


def from_run(
    store: Store, info: RunInfo, calibration: Calibration | None, *, least: float = 0.6, uncalibrated: bool = False
) -> Iterator[Found]:
    """A judge's verdicts as soft preferences: ``p`` is the calibrated probability that the chosen answer is better.

    ``least`` is the probability below which a pair is left out. Raises ``NotCalibrated`` (an ``InputError``) without a
    calibration for exactly this rubric and judge, unless ``uncalibrated`` says to take the judge's own preference; each
    row then carries ``metadata.uncalibrated``.
    """
    from calibration.confidence import NotCalibrated
    from judge.types import JudgeId
    from rubrics.words import pinned

    head = info.header
    judge = str(JudgeId(**head["judge"]))
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    if calibration is not None:
        calibration.require(rubric=rubric, judge=judge)
    elif not uncalibrated:
        raise NotCalibrated(
            f"run {info.run_id}: no calibration for {rubric} and {judge}; fit one with `judge calibrate {info.run_id} "
            "--gold LABELS` and pass it with --calibration, or say --allow-uncalibrated (a judge's own probabilities "
            "are usually too sure)"
        )
    said: dict[str, list[float]] = {}
    consistent: dict[str, bool] = {}
    frame = store.comparisons(info.run_id).select("pair_id", "preference", "consistent")
    for pair_id, preference, agreed in frame.iter_rows():
        said.setdefault(pair_id, [])
        if preference is not None:
            said[pair_id].append(preference)
            consistent[pair_id] = consistent.get(pair_id, True) and bool(agreed)
    for pair in store.pairs(info.run_id, list(said)):
        given = said[pair.id]
        if not given:
            yield Left(pair.id, "the judge's verdict is invalid")
            continue
        raw = sum(given) / len(given)
        p = raw if calibration is None else calibration.apply(raw)
        if max(p, 1 - p) < least:
            yield Left(pair.id, f"the judge is less than {least:g} sure")
            continue
        metadata: dict[str, Any] = {"consistent": consistent[pair.id], "raw": max(raw, 1 - raw)}
        metadata |= {"uncalibrated": True} if calibration is None else {"calibrated_on": calibration.gold}
        yield _of_pair(
            pair, p >= 0.5, max(p, 1 - p), Source.JUDGE, origin={"run": info.run_id, "pair": pair.id},
            close=not consistent[pair.id], rubric=rubric, labeller=judge, metadata=metadata,
        )  # fmt: skip


def from_findings(
    findings: Iterable[Mapping[str, Any]], pairs: Mapping[str, Pair], *, source: str, of_pass: str = ""
) -> Iterator[Found]:
    """Failed checks as pairs: of two answers to one prompt the one that failed a blocking check is the worse.

    Rows are findings (``check``, ``pair_id``, ``side``, ``passed``, ``severity``, ``detail``), of a file or of a pass
    of ``judge check``: then ``of_pass`` is the run that it checked, and a side on which it is silent has passed: a pass
    keeps what failed or could not be said of either side. Where both sides fail, or the other was not checked by the
    same check, nothing is known of the two.
    """
    origin = {"findings": source} | ({"run": of_pass} if of_pass else {})
    held: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for number, row in enumerate(findings, 1):
        if not {"check", "pair_id", "side", "passed"} <= row.keys():
            yield Left(f"{source}:{number}", "no finding (check, pair_id, side, passed)")
        elif row.get("severity", "block") == "block":
            held.setdefault((str(row["pair_id"]), str(row["check"])), {})[str(row["side"])] = row
    verdicts: dict[str, dict[str, list[str]]] = {}
    for (pair_id, check), sides in sorted(held.items()):
        silent: dict[str, Any] = {"candidate": True, "baseline": True} if of_pass else {}
        passed = silent | {side: row["passed"] for side, row in sides.items()}
        if set(passed) == {"candidate", "baseline"} and set(passed.values()) == {True, False}:
            worse = "baseline" if passed["candidate"] else "candidate"
            verdicts.setdefault(pair_id, {}).setdefault(worse, []).append(f"{check}: {sides[worse].get('detail', '')}")
        elif False in passed.values():
            both = list(passed.values()) == [False, False]
            yield Left(pair_id, "both sides fail" if both else "one side only was checked")
    for pair_id, failed in verdicts.items():
        pair = pairs.get(pair_id)
        if pair is None or len(failed) == 2:
            yield Left(pair_id, "no texts for this finding" if pair is None else "each side fails another check")
            continue
        worse, why = next(iter(failed.items()))
        yield _of_pair(pair, worse == "baseline", 1.0, Source.GATE, origin=origin | {"pair": pair_id},
                       why="; ".join(why), metadata={"failed": [entry.split(":")[0] for entry in why]})  # fmt: skip


def _of_pair(pair: Pair, win: bool, p: float, source: Source, **fields: Any) -> Found:
    better, worse = (pair.candidate, pair.baseline) if win else (pair.baseline, pair.candidate)
    asked: Said = pair.item.prompt
    if pair.item.messages:
        asked = tuple({"role": turn.role, "content": turn.content} for turn in pair.item.messages)
    metadata = {**_plain(pair.item.metadata), **({"category": pair.item.category} if pair.item.category else {})}
    metadata |= {"context_chars": sum(map(len, pair.item.context))} if pair.item.context else {}
    fields["metadata"] = {**metadata, **fields.get("metadata", {})}
    ends = {"chosen": better, "rejected": worse}
    try:
        return with_bias(
            Preference(
                identity_of(asked, better.text, worse.text),
                asked,
                better.text,
                worse.text,
                p=p,
                source=source,
                cut=tuple(side for side, answer in ends.items() if was_cut(answer.finish)),
                **fields,
            )
        )
    except InputError as error:
        return Left(pair.id, str(error))


def _plain(metadata: Any) -> dict[str, Any]:
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def _asked(row: Mapping[str, Any]) -> Said | None:
    messages = row.get("messages")
    if (
        isinstance(messages, list)
        and messages
        and all(isinstance(turn, Mapping) and "role" in turn for turn in messages)
    ):
        return tuple(messages)
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, str) and prompt.strip() else None


def _answer(row: Mapping[str, Any]) -> str | None:
    answer = row.get("answer")
    text = answer.get("text") if isinstance(answer, Mapping) else answer
    return text if isinstance(text, str) else None


def _cut_off(row: Mapping[str, Any]) -> bool:
    """Whether the trace says that a token limit ended its answer (``judge.endings``)."""
    answer = row.get("answer")
    return was_cut(finish_in(answer if isinstance(answer, Mapping) else {}, row)) is True


def kept(found: Iterable[Found]) -> tuple[list[Preference], Counter[str]]:
    """The preferences, and how many rows gave none, by the word for why."""
    rows: list[Preference] = []
    left: Counter[str] = Counter()
    for entry in found:
        if isinstance(entry, Left):
            left[entry.why] += 1
        else:
            rows.append(entry)
    return rows, left
