"""One pass of a suite from start to end: over a run or an eval set, kept in the home folder, entered in the register.

Findings go to ``checks/<id>.jsonl`` as they come; the file appears under its name when the pass is whole, so that an
interruption or an error leaves nothing behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import journal
from ..canaries import PREFIX
from ..errors import InputError, StoreError
from ..journal import Journal
from ..register import Register
from ..types import Finding, Pair, Severity
from .cases import Cases, read_cases
from .examination import SECONDS, CheckReport, examine

if TYPE_CHECKING:
    from ..formats import EvalSet
    from ..store import Findings
    from .suite import Suite

__all__ = ["Material", "Pass", "encode_report", "of_evalset", "of_run", "run_pass"]

_FLUSH = 512
_SHOWN = 400
"""Findings that a pass keeps in memory to be shown; the file has them all."""


@dataclass(frozen=True, slots=True)
class Material:
    """What is checked: pairs that can be streamed, how many, the digest of the eval set, and the run they come from."""

    pairs: Callable[[], Iterable[Pair]]
    rows: int
    evalset: str
    name: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass that is whole: its id, the report, the first findings, and what became of the suite's frozen cases.

    ``cases`` counts those of the suite, ``unrun`` are ids of cases without an answer to the frozen prompt, ``altered``
    those of them that the eval set holds with another prompt.
    """

    check_id: str
    material: Material
    report: CheckReport
    shown: tuple[Finding, ...]
    cases: int = 0
    unrun: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    @property
    def undecided(self) -> bool:
        """Whether something that has to be said was not: a check not made, a case not run."""
        return bool(self.report.undecided() or self.unrun)


def of_evalset(evalset: EvalSet) -> Material:
    """An eval set to check without a judge."""
    return Material(evalset.pairs, evalset.rows, evalset.digest, evalset.sources[0].name)


def of_run(path: Path) -> Material:
    """A run to check, from its journal: the texts that were judged, whatever became of their file, without canaries.

    Raises ``StoreError`` where the run has no pair yet.
    """
    header = next(journal.records(path))
    count = sum(1 for _pair in _answers(path))
    if not count:
        raise StoreError(f"run {header['run_id']} has no pair yet; finish it with: judge resume {header['run_id']}")

    def pairs() -> Iterator[Pair]:
        return map(journal.decode_pair, _answers(path))

    return Material(pairs, count, header["evalset"]["digest"], f"run {header['run_id']}", header["run_id"])


def _answers(path: Path) -> Iterator[Mapping[str, Any]]:
    """The records of a run's own pairs: canary pairs hold answers that nobody gave."""
    for record in journal.records(path):
        if record["t"] == "pair" and not record["pair"]["id"].startswith(PREFIX):
            yield record["pair"]


@dataclass(slots=True)
class _Writing:
    """Findings on their way to the file; the first of each check and side are kept to be shown."""

    out: Journal
    count: int = 0
    shown: list[Finding] = field(default_factory=list)
    per: dict[tuple[str, str], int] = field(default_factory=dict)

    def __call__(self, finding: Finding) -> None:
        self.out.add("finding", _row(finding))
        self.count += 1
        if self.count % _FLUSH == 0:
            self.out.flush()
        key = (finding.check, finding.side)
        self.per[key] = self.per.get(key, 0) + 1
        if self.per[key] <= 20 and len(self.shown) < _SHOWN:
            self.shown.append(finding)


def run_pass(
    suite: Suite,
    material: Material,
    findings: Findings,
    *,
    check_id: str,
    at: str,
    by: str = "",
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> Pass:
    """Check everything and keep what was found; ``progress`` is told of pairs done and of all.

    Raises ``InputError`` where an item's own check is wrong or no pair is concerned by anything; nothing is kept then.
    """
    cases = Cases(read_cases(suite.cases)) if suite.cases is not None else None
    final = findings.file(check_id)
    part = final.with_suffix(".part")
    header = {
        "check_id": check_id,
        "created_at": at,
        "run_id": material.run_id,
        "suite": suite.pinned,
        "suite_digest": suite.digest,
        "suite_text": suite.text,
        "evalset": material.evalset,
        "source": material.name,
        "rows": material.rows,
    }
    pairs = _counted(material, progress)
    try:
        with Journal(part, create=True) as out:
            out.append("check", header)
            sink = _Writing(out)
            report = examine(suite, cases.hold(pairs) if cases else pairs, sink, seconds=seconds)
            if not any(result.n for result in report.results):
                raise InputError(f"suite {suite.ref} concerns no item of {material.name}: nothing was checked")
            done = Pass(
                check_id, material, report, tuple(sink.shown), len(cases.cases) if cases else 0,
                tuple(cases.missing) if cases else (), tuple(cases.altered) if cases else (),
            )  # fmt: skip
            out.append("seal", {"report": encode_report(done)})
            out.sync()
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)
    body = {key: header[key] for key in ("check_id", "suite", "suite_digest", "evalset")}
    with final.open("rb") as file:
        body["digest"] = hashlib.file_digest(file, "sha256").hexdigest()
    Register(findings.home).append(
        "check", material.run_id or material.evalset, {**body, **_summary(done)}, at=at, by=by
    )
    findings.ingest(final)
    return done


def _counted(material: Material, progress: Callable[[int, int], None] | None) -> Iterator[Pair]:
    for number, pair in enumerate(material.pairs(), 1):
        yield pair
        if progress is not None:
            progress(number, material.rows)


def _summary(done: Pass) -> dict[str, Any]:
    report = done.report
    return {
        "pairs": report.pairs,
        "findings": report.findings,
        "failed": {r.check: r.candidate_failed for r in report.blocking()},
        "broken": {r.check: r.broken for r in report.results if r.broken and r.severity is Severity.BLOCK},
        "undecided": [r.check for r in report.undecided()],
        "unrun": list(done.unrun),
    }


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "pair_id": finding.pair_id,
        "side": finding.side,
        "passed": finding.passed,
        "severity": finding.severity.value,
        "detail": finding.detail,
        "spans": [[span.start, span.end, span.note] for span in finding.spans],
    }


def encode_report(done: Pass) -> dict[str, Any]:
    """A pass as plain JSON values: what ``--json`` prints, the seal holds and the database keeps."""
    from ..render.words import plain

    report = done.report
    return {
        "schema": "judge.check/1",
        "check_id": done.check_id,
        "source": done.material.name,
        "run_id": done.material.run_id,
        "evalset": done.material.evalset,
        "suite": report.suite,
        "suite_digest": report.suite_digest,
        "pairs": report.pairs,
        "findings": report.findings,
        "cases": {"total": done.cases, "unrun": list(done.unrun), "altered": list(done.altered)},
        "blocked_by": [result.check for result in report.blocking()],
        "regressed": [result.check for result in report.blocking(regressions=True)],
        "undecided": [result.check for result in report.undecided()],
        "results": [{**plain(result), "candidate_passed": result.candidate_passed} for result in report.results],
        "measures": [plain(measure) for measure in report.measures],
    }
