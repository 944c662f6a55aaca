"""Should you tune at all? Six questions, answered from data: yes, no, or unknown, with the evidence; never a guess.

An answer is yes or no only where the whole interval lies on one side of the bar; everything else is unknown, and says
what would settle it. Tune where a better prompt does not close the gap (no) and the other five are yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from calibration.estimates import Estimate, mean, share

from .contamination import compared_text, distinct
from .intake import weight_of

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from calibration.gold import GoldSet
    from judge.store import RunInfo, Store

__all__ = ["Answer", "Bars", "Worth", "better_prompt", "central", "has_capability", "measurable", "repeated", "stable"]

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True, slots=True)
class Bars:
    """Where a figure counts as enough; yours to set.

    ``gain`` is the win rate above one half that would close the gap, ``share`` of use that makes a behaviour central,
    ``cases`` distinct failing prompts that make it repeated, ``agreement`` of two people that makes it stable,
    ``reach`` the share of failing prompts that the base gets right with help.
    """

    gain: float = 0.05
    share: float = 0.05
    cases: int = 20
    agreement: float = 0.7
    reach: float = 0.3


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered: what was asked, yes, no or unknown, the evidence in words, and the figure behind it."""

    question: str
    says: str
    evidence: str
    estimate: Estimate | None = None
    settle: str = ""


@dataclass(frozen=True, slots=True)
class Worth:
    """All answers, and what follows: ``TUNE``, ``PROMPT`` (a better prompt does it), ``NOT NOW`` or ``UNKNOWN``."""

    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def word(self) -> str:
        """What follows from the answers."""
        prompt, rest = self.answers[0], self.answers[1:]
        if prompt.says == YES:
            return "PROMPT"
        if any(answer.says == NO for answer in rest):
            return "NOT NOW"
        if prompt.says == UNKNOWN or any(answer.says == UNKNOWN for answer in rest):
            return "UNKNOWN"
        return "TUNE"

    @property
    def exit_code(self) -> int:
        """0 tune, 1 do not, 4 not enough evidence."""
        return {"TUNE": 0, "UNKNOWN": 4}.get(self.word, 1)


def better_prompt(store: Store, info: RunInfo | None, calibration: Calibration | None, bars: Bars) -> Answer:
    """Whether a prompt-only candidate, judged like any other, closes the gap: its win rate against what runs now.

    On the human scale: without a calibration for this judge the answer is unknown.
    """
    question = "Can a better prompt close it?"
    way = "judge generate EVALS --model BASE --system @better.txt, then judge run, then --prompt-run RUN"
    if info is None:
        return Answer(question, UNKNOWN, "no prompt-only candidate was evaluated", settle=way)
    rate = _win_rate(store, info, calibration)
    if isinstance(rate, str):
        return Answer(question, UNKNOWN, f"run {info.run_id}: {rate}", settle=way)
    bar = 0.5 + bars.gain
    says = YES if rate.low >= bar else NO if rate.high < bar else UNKNOWN
    evidence = f"run {info.run_id}: win rate of the prompt-only candidate against {bar:.2f} wanted"
    return Answer(question, says, evidence, rate, settle="" if says != UNKNOWN else "judge more prompts")


def central(cases: Sequence[Mapping[str, Any]], use: Sequence[Mapping[str, Any]] | None, bars: Bars) -> Answer:
    """Whether the behaviour is a part of use that matters: the share of traces in the categories that fail.

    Traces that were sampled with known chances are weighted back.
    """
    question = "Is the behaviour central?"
    failing = {str(case["category"]) for case in cases if case.get("category")}
    if not failing:
        return Answer(question, UNKNOWN, "no failing case names a category", settle="give cases with --cases")
    known = [row for row in use or () if row.get("category")]
    if not known:
        return Answer(question, UNKNOWN, "no trace names a category", settle="give the real mix with --mix")
    hits = [float(str(row["category"]) in failing) for row in known]
    weights = [weight_of(row) for row in known]
    found = share(hits, weights=weights)
    assert found is not None
    says = YES if found.low >= bars.share else NO if found.high < bars.share else UNKNOWN
    evidence = f"share of use in {', '.join(sorted(failing)[:4])}, against {bars.share:.0%}"
    return Answer(question, says, evidence, found, settle="" if says != UNKNOWN else "sample more traces")


def repeated(cases: Sequence[Mapping[str, Any]], bars: Bars) -> Answer:
    """Whether it comes again: distinct failing prompts (near-duplicates count once), from more than one origin."""
    question = "Is it repeated?"
    if not cases:
        return Answer(
            question, UNKNOWN, "no failing case was collected", settle="judge loop failures RUN -o cases.jsonl"
        )
    texts = [
        compared_text(tuple(case["messages"]) if case.get("messages") else str(case.get("prompt", "")))
        for case in cases
    ]
    count = len(distinct(texts))
    origins = {
        str((case.get("origin") or {}).get("source")) for case in cases if isinstance(case.get("origin"), Mapping)
    }
    says = (
        YES if count >= bars.cases and len(origins) > 1 else NO if count < bars.cases and len(origins) > 1 else UNKNOWN
    )
    evidence = f"{count} distinct failing prompts from {len(origins)} origins; {bars.cases} from two or more wanted"
    return Answer(question, says, evidence, settle="" if says != UNKNOWN else "collect failures of another run or week")


def stable(gold: GoldSet | None, bars: Bars) -> Answer:
    """Whether what is wanted stands still: how often two people agree on which answer is better."""
    question = "Is what is wanted stable?"
    hits: list[float] = []
    prompts: list[str] = []
    for item in gold.items if gold is not None else ():
        outcomes = [label.outcome for label in item.labels]
        for place, one in enumerate(outcomes):
            for other in outcomes[place + 1 :]:
                hits.append(float(one == other))
                prompts.append(item.prompt_id)
    found = share(hits, clusters=prompts)
    if found is None:
        return Answer(
            question, UNKNOWN, "no pair was labelled by two people", settle="let a second person run judge label"
        )
    says = YES if found.low >= bars.agreement else NO if found.high < bars.agreement else UNKNOWN
    return Answer(question, says, f"two people agree, against {bars.agreement:.0%}", found,
                  settle="" if says != UNKNOWN else "label more pairs twice")  # fmt: skip


def measurable(calibration: Calibration | None) -> Answer:
    """Whether a judge can see it: its held-out Brier score is better than that of the base rate for its labels.

    A judge that says the same about everything is right as often as one side wins, which is no measurement.
    """
    question = "Is it measurable?"
    if calibration is None:
        return Answer(
            question, UNKNOWN, "no calibrated judge", settle="judge calibrate RUN --gold LABELS, then --calibration"
        )
    gain = calibration.quality.get("brier_gain")
    about = f"{calibration.judge} under {calibration.rubric}, {calibration.n} labels"
    if gain is None:
        return Answer(question, UNKNOWN, f"{about}: no held-out quality on record", settle="fit the calibration anew")
    says = YES if gain.low > 0.0 else NO if gain.high <= 0.0 else UNKNOWN
    return Answer(question, says, f"{about}: gain in held-out Brier score over the base rate", gain,
                  settle="" if says != UNKNOWN else "label more pairs")  # fmt: skip


def has_capability(store: Store, info: RunInfo | None, case_ids: Iterable[str], calibration: Calibration | None,
                   bars: Bars) -> Answer:  # fmt: skip
    """Whether the base can do it with help (examples, best of several): its wins on failing prompts in such a run.

    Preference tuning makes likelier what a model can say; what it never says, it does not learn from pairs.
    """
    question = "Does the base have the capability?"
    way = (
        "judge generate CASES --model BASE --system @examples.txt, judge it against the failed answers, --base-run RUN"
    )
    if info is None:
        return Answer(question, UNKNOWN, "the base was not tried with help on the failing prompts", settle=way)
    said = _preferences(store, info, calibration)
    if isinstance(said, str):
        return Answer(question, UNKNOWN, f"run {info.run_id}: {said}", settle=way)
    wanted = set(case_ids)
    hits = [(float(p > 0.5), prompt) for name, (p, prompt) in said.items() if not wanted or name in wanted]
    found = share([hit for hit, _ in hits], clusters=[prompt for _, prompt in hits])
    if found is None:
        return Answer(question, UNKNOWN, f"run {info.run_id} holds none of the failing prompts", settle=way)
    says = YES if found.low >= bars.reach else NO if found.high < bars.reach else UNKNOWN
    evidence = f"run {info.run_id}: the base with help beats the failed answer, against {bars.reach:.0%}"
    return Answer(question, says, evidence, found, settle="" if says != UNKNOWN else "try more failing prompts")


def _win_rate(store: Store, info: RunInfo, calibration: Calibration | None) -> Estimate | str:
    said = _preferences(store, info, calibration)
    if isinstance(said, str):
        return said
    found = mean(
        [p for p, _prompt in said.values()], clusters=[prompt for _p, prompt in said.values()], bounds=(0.0, 1.0)
    )
    return found if found is not None else "it has no verdict"


def _preferences(store: Store, info: RunInfo, calibration: Calibration | None) -> dict[str, tuple[float, str]] | str:
    """By pair, the calibrated preference for the candidate and the prompt; or why there are none."""
    from judge.types import JudgeId
    from rubrics.words import pinned

    head = info.header
    rubric = pinned(str(head["rubric"]), str(head["rubric_digest"]), released=head.get("rubric_released", True))
    judge = str(JudgeId(**head["judge"]))
    if calibration is None:
        return "its judge is not calibrated (--calibration)"
    if (calibration.rubric, calibration.judge) != (rubric, judge):
        return "the calibration is for another rubric or judge"
    if not info.sealed:
        return "it is not finished"
    given: dict[str, tuple[list[float], str]] = {}
    frame = store.comparisons(info.run_id).select("pair_id", "preference", "prompt_digest")
    invalid = 0
    for pair_id, preference, prompt in frame.iter_rows():
        if preference is None:
            invalid += 1
        else:
            given.setdefault(pair_id, ([], prompt))[0].append(preference)
    if invalid > 0.05 * frame.height:
        return f"{invalid} of {frame.height} comparisons are invalid"
    return {name: (calibration.apply(sum(said) / len(said)), prompt) for name, (said, prompt) in given.items()}
