"""What suites, reports and probes left behind about a run: read back, checked, and turned into a gate's words.

    checks/<id>.jsonl   one pass of a suite, its report in the seal; register kind ``check`` about the run
    hacks/<name>.json   one report, by the digest that the register (kinds ``hack``, ``ground``, ``probe``) gives it

Of each suite the newest pass counts, so that a pass of another suite never hides one that failed. A measure that
several suites make is that of the newest pass that looked for it; where that one has no number, there is none. A
hacking or grounding report is about a run. A probe is about a judge: the newest finished one of the run's judge and
rubric counts. What was made for another eval set, or whose file is not what the register says, counts for nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rubrics.words import pinned

from . import archive
from .again import probe_command
from .clock import days_since
from .decision import Hard, Missing, Probed
from .errors import InputError, StoreError
from .register import Entry, Register
from .types import Measure, Severity

if TYPE_CHECKING:
    from datetime import datetime

    from .store import RunInfo, Store

__all__ = ["Kept", "probed", "probes_judge_of", "read_kept", "require_named"]

_BY_HACK = ("abstention", "apologies", "boilerplate", "citations", "confidence", "disclaimers", "escalation", "hedging",
            "length", "markdown", "mirroring", "refusal", "screen", "self_justification", "tools", "win")  # fmt: skip
"""First words of the measures that only ``judge hack`` makes."""
_HACK_ALONE = frozenset({"refusal.harmless", "refusal.harmful", "citations.invented"})
"""Measures of the hacking report whose names suites, too, once gave to something else: sealed passes still do."""
_BY_CHECK = {"refusal": "refusal", "voice.words": "spoken"}
"""Measures of a pass (by the beginning of their name) that it finds only with the check of this name in its suite."""
_BY_SUITES = ("cost", "latency", "tokens")
"""First words of the measures that any suite makes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Hard results, measures by name, why other measures are not there (by the first word of their name, empty: any
    other), the entry of the probe that the measures ``probe.*`` are of, and the digests of what was read.
    """

    suites: tuple[Hard, ...] | Missing
    measures: Mapping[str, Measure]
    unmeasured: Mapping[str, Missing]
    probe: Entry | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


def read_kept(store: Store, info: RunInfo, *, checks: Sequence[str] = (), hacks: Sequence[str] = ()) -> Kept:
    """Everything kept about a run. ``checks`` and ``hacks`` name what is to be read (none: the newest pass of each
    suite, the newest report).

    Raises ``StoreError`` for a name that is nothing or about something else, and for a file that was changed.
    """
    register = Register(store.home)
    check_entries = _named(register, info, "check", checks)
    hack_entries = _named(register, info, "hack", hacks)
    ground_entries = _named(register, info, "ground", ())
    probe = next(
        (
            entry
            for entry in reversed(register.entries("probe"))
            if entry.body.get("kind") == "probes" and probes_judge_of(entry, info)
        ),
        None,
    )
    seals = [_seal(store.home, entry) for entry in check_entries]
    reports = [archive.read(store.home, entry).body for entry in (*ground_entries, *hack_entries)]
    found: dict[str, Measure] = {}
    # No two kinds of report share a name (a test holds that). Of one kind the newest that looked for a measure says
    # what it is, also where it found no number: the figure of an older one is not today's.
    probed = () if probe is None else archive.measures_of(archive.read(store.home, probe).body)
    found |= {measure.name: measure for measure in probed if measure.name.startswith("probe.")}
    found |= {measure.name: measure for body in reports for measure in archive.measures_of(body)}
    for body in seals:
        for measure in archive.measures_of(body):
            if measure.name not in _HACK_ALONE and (measure.name not in found or _looked_for(measure.name, body)):
                found[measure.name] = measure
    entries = (*check_entries, *hack_entries, *ground_entries, *(() if probe is None else (probe,)))
    return Kept(
        suites=_suites(info, check_entries, seals) if info.sealed else _of_a_part(register, info, "check"),
        measures=found,
        unmeasured=_unmeasured(info, check_entries, hack_entries)
        if info.sealed
        else {"": _of_a_part(register, info, "hack"), **_unprobed(info)},
        probe=probe,
        inputs={f"{entry.kind} {entry.body.get('check_id', entry.id)}": entry.digest for entry in entries},
    )


def require_named(store: Store, info: RunInfo, *, checks: Sequence[str], hacks: Sequence[str]) -> None:
    """Raises ``InputError`` for a name of a check or hacking report that is nothing or about another run."""
    register = Register(store.home)
    for kind, names in (("check", checks), ("hack", hacks)):
        _named(register, info, kind, names)


def _named(register: Register, info: RunInfo, kind: str, names: Sequence[str]) -> tuple[Entry, ...]:
    """The entries that were named, or the newest about this run and its eval set (of passes, one of each suite); the
    oldest first.
    """
    digest = info.header["evalset"]["digest"]
    mine = [
        entry
        for entry in register.entries(kind)
        if entry.subject in (info.run_id, digest)
        and entry.body.get("evalset", digest) == digest
        and entry.body.get("sealed", True)
    ]
    if not names:
        newest = {str(entry.body.get("suite", "")).partition("@")[0]: entry for entry in mine}
        return tuple(sorted(newest.values(), key=lambda entry: entry.seq))
    found = []
    for name in names:
        fits = [entry for entry in mine if name in (entry.body.get("check_id"), entry.id) or entry.id.startswith(name)]
        if not fits:
            known = ", ".join(str(entry.body.get("check_id", entry.id)) for entry in mine[-5:]) or "none"
            raise InputError(
                f"{name!r} is no {kind} of run {info.run_id}; there are: {known}; make one with: judge {kind} "
                f"{info.run_id}"
            )
        found.append(fits[-1])
    return tuple(sorted(found, key=lambda entry: entry.seq))


def _looked_for(name: str, report: Mapping[str, Any]) -> bool:
    """Whether a pass of a suite could have found this measure: with a check that its suite lacks it says nothing."""
    check = next((check for begin, check in _BY_CHECK.items() if name.startswith(begin)), None)
    return check is None or any(str(row["check"]).partition("@")[0] == check for row in report["results"])


def probes_judge_of(entry: Entry, info: RunInfo) -> bool:
    """Whether a probe speaks for a run: it is finished, and of the run's judge under the very text of its rubric."""
    head, body = info.header, entry.body
    digest = str(head["rubric_digest"])
    names = (info.rubric, pinned(str(head["rubric"]), digest, released=head.get("rubric_released", True)))
    return (
        body.get("judge") == info.judge
        and body.get("rubric") in names
        and body.get("rubric_digest", digest) == digest
        and bool(body.get("sealed", True))
    )


def probed(entry: Entry, info: RunInfo, now: datetime) -> Probed:
    """How old the oldest reply is that a probe of a run's judge used, and where the judge fell silent; an entry that
    does not say since when its replies are is of unknown age.
    """
    days = days_since(str(entry.body.get("replies_since", "")), now)
    try:
        silent = {str(trick): (int(counts[0]), int(counts[1])) for trick, counts in entry.body["silent"].items()}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        silent = {}
    return Probed(f"probe run {entry.subject}", days, silent, probe_command(info, fresh=True))


def _seal(home: Path, entry: Entry) -> Mapping[str, Any]:
    """The report of one pass of a suite, held against what the register says of it."""
    name = str(entry.body["check_id"])
    path = home / "checks" / f"{name}.jsonl"
    again = f"make it again with: judge check {entry.subject}"
    if not path.is_file():
        raise StoreError(f"{path}: is gone since {entry.id} was written; {again}")
    data = path.read_bytes()
    if entry.body.get("digest", "") not in ("", hashlib.sha256(data).hexdigest()):
        raise StoreError(f"{path}: was changed since {entry.id} was written; {again}")
    *_, line = data.splitlines() or [b""]
    if line[:8] != b"%08x" % zlib.crc32(line[9:]):
        raise StoreError(f"{path}: its last line is damaged or half-written; {again}")
    record = orjson.loads(line[9:])
    report = record.get("report") if record.get("t") == "seal" else None
    if not isinstance(report, dict):
        raise StoreError(f"{path}: it has no end; {again}")
    said = {row["check"]: row["candidate_failed"] for row in report["results"] if row["check"] in report["blocked_by"]}
    if said != entry.body.get("failed") or report["suite_digest"] != entry.body.get("suite_digest"):
        raise StoreError(f"{path}: it does not say what {entry.id} of the register says; {again}")
    return dict(report)


def _suites(info: RunInfo, entries: Sequence[Entry], seals: Sequence[Mapping[str, Any]]) -> tuple[Hard, ...] | Missing:
    again = f"judge check {info.run_id}"
    made: list[Hard] = []
    if not entries:
        return Missing("no regression suite was run on these answers", again)
    rows = info.header["evalset"]["rows"]
    if short := next((entry for entry in entries if entry.body["pairs"] < rows), None):
        why = f"{short.body['check_id']} ({short.body['suite']}) looked at {short.body['pairs']} of {rows} pairs"
        return Missing(why, f"{again} with that suite")
    for entry, report in zip(entries, seals, strict=True):
        taken = Counter(row["check"] for row in report["results"])
        known = {hard.check for hard in made}
        for row in report["results"]:
            if row["n"] or row["required"]:
                name = row["check"] if taken[row["check"]] == 1 else row["id"]
                made.append(_hard(row, f"{name} ({entry.body['suite']})" if name in known else name))
        cases = report.get("cases", {})
        undone = [*cases.get("unrun", ()), *cases.get("altered", ())]
        if undone:
            suite = f"cases of {entry.body['suite']}"
            made.append(Hard(suite, "reliability", Severity.BLOCK, 0, 0, unjudged=len(undone)))
    return tuple(made) or Missing(f"{entries[-1].body['suite']} concerns no answer of this run", again)


def _hard(row: Mapping[str, Any], name: str) -> Hard:
    return Hard(
        check=name,
        axis=row["axis"],
        severity=Severity(row["severity"]),
        passed=row["n"] - row["candidate_failed"] - row["candidate_unjudged"],
        failed=row["candidate_failed"],
        unjudged=row["candidate_unjudged"],
        baseline_failed=row["baseline_failed"],
        failing=tuple(row["failing"]),
        layer=row["layer"],
        unseen=tuple(row.get("unjudged", ())),
    )


def _of_a_part(register: Register, info: RunInfo, kind: str) -> Missing:
    """Why nothing that was made about an unfinished run counts, with the report that there is."""
    made = [str(entry.body.get("check_id", entry.id)) for entry in register.entries(kind, subject=info.run_id)]
    counts = f"{made[-1]} is about a part of the run and does not count" if made else "no report about a part counts"
    return Missing(f"the run is not finished: {counts}", f"judge resume {info.run_id}")


def _unprobed(info: RunInfo) -> dict[str, Missing]:
    return {"probe": Missing("no probe was made of this judge under this rubric", probe_command(info))}


def _unmeasured(info: RunInfo, checks: Sequence[Entry], hacks: Sequence[Entry]) -> dict[str, Missing]:
    """Why a measure is not there, by the first word of its name (``must``: the refusals of a suite)."""
    check, hack = (f"judge {kind} {info.run_id}" for kind in ("check", "hack"))
    name = "a measure of that name is made by no report here"
    none = Missing(name, "name one of judge check, hack, ground or probe --json in the policy")
    by_hack = Missing("the hacking report did not measure it" if hacks else "no hacking report was made", hack)
    by_check = "no regression suite was run on these answers"
    if checks:
        by_check = f"{', '.join(str(entry.body['suite']) for entry in checks)} did not measure it"
    return {
        "": none,
        **_unprobed(info),
        "grounding": Missing("no grounding report was kept about these answers", f"judge ground {info.run_id}"),
        "check": Missing(by_check, f"{check} --suite SUITE, one that has this check"),
        "must": Missing(by_check, f"{check} --suite safety"),
        "voice": Missing(by_check, f"{check} --suite voice"),
        **dict.fromkeys(_BY_SUITES, Missing(by_check, check)),
        **dict.fromkeys(_BY_HACK, by_hack),
    }
