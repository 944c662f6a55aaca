"""Running a suite over pairs: one pass, both sides, memory of a few bytes an answer.

A check that crashes or takes longer than its limit gives a finding that is neither passed nor failed, and the pass goes
on. The limit on time is held by the operating system's timer, which reaches the main thread only; in other threads
(and on Windows) only patterns have one.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..types import Answer, Finding, Item, Measure, Pair, Severity
from .check import Observation
from .measures import Series, measures_of
from .suite import Planned, Suite
from .tally import CheckResult, CheckTally

__all__ = ["CheckReport", "examine"]

SECONDS = 10.0
"""Longest time that one check may take for one answer."""

Sink = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a suite found: the counts per check, the measures a gate may hold, and how many pairs and findings.

    ``findings`` counts those that failed or could not be made; passing ones are counted, not kept. ``suite`` names the
    text that was run.
    """

    suite: str
    suite_digest: str
    pairs: int
    findings: int
    results: tuple[CheckResult, ...]
    measures: tuple[Measure, ...]

    def blocking(self, *, regressions: bool = False) -> tuple[CheckResult, ...]:
        """Checks of severity ``block`` that the candidate fails; with ``regressions``, only those it newly fails."""
        return tuple(
            result
            for result in self.results
            if result.severity is Severity.BLOCK and (result.broken if regressions else result.candidate_failed)
        )

    def undecided(self) -> tuple[CheckResult, ...]:
        """Checks that say nothing although they have to: ``block`` ones not made on every answer of the candidate, and
        required ones that concern no item.
        """
        return tuple(
            result
            for result in self.results
            if (result.empty and result.required)
            or (result.severity is Severity.BLOCK and result.candidate_unjudged > 0)
        )


def examine(suite: Suite, pairs: Iterable[Pair], sink: Sink | None = None, *, seconds: float = SECONDS) -> CheckReport:
    """Make every check of a suite, and those of the items themselves, on both answers of every pair.

    ``sink`` is told of each finding that failed or could not be made, in the order of pairs. ``seconds`` is the longest
    time for one check on one answer. Raises ``InputError`` for a check of an item that is unknown or configured
    wrongly.

    >>> report = examine(load_suite("default@1"), evalset.pairs())                              # doctest: +SKIP
    >>> [(result.check, result.candidate_failed, result.broken) for result in report.results]   # doctest: +SKIP
    """
    tallies = {planned.ref: CheckTally(planned) for planned in suite.planned}
    series = Series()
    findings = 0
    codes: dict[bytes, int] = {}
    with _limit(seconds) as limited:
        for pair in pairs:
            prompt = codes.setdefault(_prompt_key(pair.item), len(codes))
            try:
                entries = (*suite.planned, *suite.own(pair.item))
            except InputError as error:
                raise InputError(f"item {pair.id}: {error}") from None
            values: dict[str, tuple[Observation | None, Observation | None]] = {}
            for planned in entries:
                if not planned.where.holds(pair.item):
                    continue
                seen = _sides(planned, pair, limited)
                if seen == [None, None]:
                    continue
                tally = tallies.get(planned.ref) or tallies.setdefault(planned.ref, CheckTally(planned))
                tally.add(pair.id, prompt, seen[0], seen[1])
                values[planned.check.name] = (seen[0], seen[1])
                for finding in _findings(planned, pair, seen):
                    findings += 1
                    if sink is not None:
                        sink(finding)
            series.add(pair, prompt, values)
    results = tuple(tally.result() for tally in tallies.values())
    return CheckReport(suite.pinned, suite.digest, series.pairs, findings, results, measures_of(series, results))


def _sides(planned: Planned, pair: Pair, examiner: Examiner) -> list[Observation | None]:
    try:
        return [examiner(planned, pair.item, answer) for answer in (pair.candidate, pair.baseline)]
    except InputError as error:
        raise InputError(f"item {pair.id}: {planned.check.name}: {error}") from None


def _prompt_key(item: Item) -> bytes:
    whole = repr((item.prompt, item.context)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(whole, digest_size=8).digest()


def _findings(planned: Planned, pair: Pair, seen: list[Observation | None]) -> Iterator[Finding]:
    for side, observation in zip(("candidate", "baseline"), seen, strict=True):
        if observation is None:
            observation = Observation(None, "the check does not concern this answer, but the other one")  # noqa: PLW2901
        if observation.passed is not True:
            yield Finding(
                planned.ref, pair.id, side, observation.passed, planned.severity, observation.detail, observation.spans
            )


class _TooLong(BaseException):
    """A check took too long; no ``except Exception`` of a check catches it."""


Examiner = Callable[[Planned, Item, Answer], Observation | None]


@contextmanager
def _limit(seconds: float) -> Iterator[Examiner]:
    """A way to make a check that turns a crash into a finding, and where the timer can be used, a time-out, too."""
    timed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def late(_number: int, _frame: Any) -> None:
        raise _TooLong

    def make(planned: Planned, item: Item, answer: Answer) -> Observation | None:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            try:
                return _made(planned, item, answer)
            finally:
                if timed:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        except _TooLong:
            return Observation(None, f"took longer than {seconds:g} s and was given up")

    before = signal.signal(signal.SIGALRM, late) if timed else None
    try:
        yield make
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _made(planned: Planned, item: Item, answer: Answer) -> Observation | None:
    try:
        seen: object = planned.check.examine(item, answer)
    except InputError:
        raise  # what the item asks for is at fault (an invalid schema in its metadata), not the answer
    # A check that crashes is a finding that could not be made, never a pass; one that exits would end the whole
    # command, with the exit code of its choice.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return Observation(None, f"the check crashed: {type(error).__name__}: {str(error)[:200]}")
    if seen is None or isinstance(seen, Observation):
        return _clipped(seen, answer)
    return Observation(None, f"the check returned {type(seen).__name__}, not an Observation")


def _clipped(seen: Observation | None, answer: Answer) -> Observation | None:
    """Spans that lie inside the answer: a check of the user may point anywhere."""
    if seen is None or not seen.spans:
        return seen
    length = len(answer.text)
    if all(0 <= span.start <= span.end <= length for span in seen.spans):
        return seen
    spans = tuple(
        replace(s, start=min(max(s.start, 0), length), end=min(max(s.end, s.start, 0), length)) for s in seen.spans
    )
    return replace(seen, spans=spans)
