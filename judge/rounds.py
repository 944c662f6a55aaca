"""Where the loop stands, read from the disk: the register, the runs, the label files. There is no file of state.

    traces in -> labels -> pairs -> candidate -> evaluation -> gate -> rollout -> failures -> (the next round)

Each step is done, waiting for its input, or stale: something before it is newer. The next command is that of the first
step that is not done. The steps follow the newest candidate that was trained here; where none was, the newest decision,
whose candidate came from elsewhere. ``Loop.records`` lists every decision, override and rollout of the register.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .overrides import overrides_of
from .register import Entry, Register
from .render.words import counted

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Loop", "Record", "Step", "loop_state"]

_LOOKED_AT = 30
"""How many of the newest runs are searched for the candidate's."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what there is, since when, what to run.

    ``state`` is ``done``, ``next``, ``waiting``, ``stale`` or ``skipped``.
    """

    name: str
    state: str
    says: str
    at: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A decision, an override or a rollout (as its last event leaves it) of the register."""

    kind: str
    id: str
    at: str
    says: str


@dataclass(frozen=True, slots=True)
class Loop:
    """All steps in order, how many rounds ended in a decision, and what the register holds, newest first."""

    steps: tuple[Step, ...]
    rounds: int
    records: tuple[Record, ...] = ()

    @property
    def next(self) -> Step | None:
        """The first step that is not done; ``None`` where all are."""
        return next((step for step in self.steps if step.state in ("next", "stale")), None)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look at the disk found for one step; ``at`` is empty where there is nothing."""

    name: str
    says: str
    at: str
    command: str
    after: str = ""
    """The time that its input was made: a step older than that is stale."""


def loop_state(store: Store, labels: Path) -> Loop:
    """The state of a home folder; ``labels`` is the folder of label files, beside those that a gate was given."""
    register = Register(store.home)
    entries = register.entries()
    last = {
        kind: _last(entries, kind) for kind in ("intake", "dataset", "candidate", "decision", "rollout", "failures")
    }
    candidate, dataset = last["candidate"], last["dataset"]
    labelled = _labels(labels, _given(entries))
    elsewhere = _from_elsewhere(last, labelled[1])
    run_id, run_at = _decided(store, elsewhere) if elsewhere else _run_of(store, candidate)
    decision = elsewhere or _decision(entries, candidate, run_id)
    rollout = _rollout(entries, decision)
    failures = _failures(entries, decision)
    found = (
        _Found("traces", _intake_says(last["intake"]), _at(last["intake"]),
               "judge loop sample traces.jsonl -o queue.jsonl --rate 0.05"),
        _Found("labels", labelled[0], labelled[1], "judge label --evalset PAIRS --to gold/labels.jsonl"),
        _Found("pairs", _dataset_says(dataset), _at(dataset),
               "judge tune pairs --human gold/labels.jsonl --against EVALS -o pairs.jsonl", after=labelled[1]),
        _Found("candidate", _candidate_says(candidate, dataset), _at(candidate), "judge tune train pairs.jsonl",
               after=_at(dataset) if candidate and dataset and candidate.body.get("data") != dataset.subject else ""),
        _Found("evaluation", f"run {run_id}" if run_id else "the candidate has no run", run_at,
               f"judge tune evaluate {candidate.subject if candidate else 'CANDIDATE'} --against BASE --evalset EVALS"),
        _Found("gate", _decision_says(decision), _at(decision), f"judge gate {run_id or 'RUN'}"),
        rollout,
        _Found("failures", _failures_says(failures), _at(failures),
               f"judge loop failures {decision.id if decision else 'DECISION'} -o cases.jsonl"),
    )  # fmt: skip
    skipped = ("traces", "labels", "pairs", "candidate") if elsewhere else ()
    return Loop(_steps(found, skipped), sum(entry.kind == "decision" for entry in entries), _records(entries))


def _from_elsewhere(last: Mapping[str, Entry | None], labelled_at: str) -> Entry | None:
    """The newest decision where no candidate was ever trained here and no later step of a first round was begun."""
    decision, begun = last["decision"], [_at(last[kind]) for kind in ("intake", "dataset")]
    if decision is None or last["candidate"] is not None:
        return None
    return decision if all(at <= decision.at for at in (*begun, labelled_at)) else None


def _decided(store: Store, decision: Entry) -> tuple[str, str]:
    """The run of a decision and when it began (without the run: when it was decided on)."""
    begun = (info.created_at for info in store.runs() if info.run_id == decision.subject)
    return decision.subject, next(begun, decision.at)


def _records(entries: Sequence[Entry]) -> tuple[Record, ...]:
    """Every decision and override, and every rollout at its last event; newest first."""
    found: dict[str, Record] = {}
    for entry in entries:
        body = entry.body
        if entry.kind == "decision":
            says = f"{str(body.get('word', '?')).upper()} of run {entry.subject} under {body.get('policy', '?')}"
        elif entry.kind == "override":
            says = f"of {body.get('decision', entry.subject)}, by {entry.by or '?'} and {body.get('second', '?')}"
        elif entry.kind == "rollout":
            says = f"{body.get('to') or body.get('event', '?')}"
        else:
            continue
        name = entry.subject if entry.kind == "rollout" else entry.id
        found.pop(name, None)
        found[name] = Record(entry.kind, name, entry.at, says)
    return tuple(reversed(found.values()))


def _steps(found: Sequence[_Found], skipped: Sequence[str] = ()) -> tuple[Step, ...]:
    """States: what is there is done unless its input is newer; the first that is not there is next, others wait."""
    steps: list[Step] = []
    open_ = False
    for entry in found:
        stale = bool(entry.at and entry.after and entry.after > entry.at)
        missing = "waiting" if open_ else "stale" if stale else "next"
        state = "done" if entry.at and not stale else missing
        # A first round may begin anywhere: labels need no traces, pairs need no labels of this folder.
        passed = not entry.at and (
            entry.name in skipped
            or (entry.name in ("traces", "labels") and any(later.at for later in found[len(steps) + 1 : 4]))
        )
        if passed:
            state = "skipped"
        open_ = open_ or state in ("next", "stale")
        steps.append(
            Step(
                entry.name,
                state,
                entry.says,
                entry.at,
                "" if state in ("done", "waiting", "skipped") else entry.command,
            )
        )
    return tuple(steps)


def _last(entries: Sequence[Entry], kind: str) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.kind == kind), None)


def _at(entry: Entry | None) -> str:
    return entry.at if entry is not None else ""


def _given(entries: Sequence[Entry]) -> dict[Path, str]:
    """The label files that gates were given and that are still there, each with the time it was first used."""
    found: dict[Path, str] = {}
    for entry in entries:
        for name in entry.body.get("gold_files", ()) if entry.kind == "decision" else ():
            if Path(name).is_file():
                found.setdefault(Path(name), entry.at)
    return found


def _labels(folder: Path, given: Mapping[Path, str]) -> tuple[str, str]:
    """How many labels there are, by how many people, and when the last was made (else when it was used)."""
    from .labels import draw_path, read_rows

    count, unnamed, people, last = 0, 0, set[str](), ""
    read: list[str] = []
    unread: list[str] = []
    own = [path.resolve() for path in sorted(folder.glob("*.jsonl")) if draw_path(path).exists()]
    files = dict.fromkeys([*own, *given])
    for path in files:
        try:
            said = [(row.get("annotator"), row.get("at")) for row in read_rows(path)] if path in own else _told(path)
        except (InputError, OSError):
            unread.append(path.name)
            continue
        read.append(path.name)
        count += len(said)
        people |= {who for who, _at in said if who}
        unnamed += sum(not who for who, _at in said)
        made = max((str(at or "") for _who, at in said), default="")
        last = max(last, made or given.get(path, ""))
    bad = "".join(f"; {name} cannot be read" for name in unread)
    if not count:
        none = f"no labels in {folder} (another folder: --labels)"
        return f"{none}{bad or ', and no gate was given any'}", ""
    people_said = f" of {counted(len(people), 'person', 'people')}" if people else ", nobody named,"
    if people and unnamed:
        people_said += f" ({unnamed} of nobody named)"
    named = ", ".join(read) if len(read) < 3 else counted(len(read), "file")
    return f"{counted(count, 'label')}{people_said} in {named}{bad}", last


def _told(path: Path) -> list[tuple[str | None, str | None]]:
    """Who gave each label of a gold set, and when; a label that the source only states has neither, and a place in a
    list (``r1``) is no name.
    """
    from calibration.gold import GoldSet

    return [
        (None if label is None or not label.named else label.annotator, None if label is None else label.at)
        for item in GoldSet.read(path).items
        for label in (item.labels or (None,))
    ]


def _run_of(store: Store, candidate: Entry | None) -> tuple[str, str]:
    """The newest finished run whose candidate answers carry the candidate's id."""
    if candidate is None:
        return "", ""
    for info in store.runs()[:_LOOKED_AT]:
        names = {name for name, _baseline in store.models(info.run_id)}
        if info.sealed and any(name and candidate.subject in name for name in names):
            return info.run_id, info.created_at
    return "", ""


def _decision(entries: Sequence[Entry], candidate: Entry | None, run_id: str) -> Entry | None:
    """The last decision on the candidate's run, or that names it."""
    if candidate is None:
        return None
    mine = [
        entry
        for entry in entries
        if entry.kind == "decision"
        and entry.seq > candidate.seq
        and (entry.subject == run_id or candidate.subject in str(entry.body.get("candidate", "")))
    ]
    return mine[-1] if mine else None


def _rollout(entries: Sequence[Entry], decision: Entry | None) -> _Found:
    if decision is None:
        return _Found("rollout", "nothing is decided", "", "judge rollout start DECISION")
    word = str(decision.body.get("word", "")).upper()
    overrides = overrides_of(entries, decision.id)
    licences = {decision.id, *(entry.id for entry in overrides)}
    rollouts = [entry for entry in entries if entry.kind == "rollout"]
    # A flag may be moved for another decision meanwhile: what counts is what this one set out with.
    mine = {entry.subject for entry in rollouts if entry.body.get("licence") in licences}
    events = [entry for entry in rollouts if entry.subject in mine]
    if events:
        stage = str(events[-1].body.get("to") or events[-1].body.get("event", ""))
        return _Found("rollout", f"{events[-1].subject} at {stage}", events[-1].at, "")
    if overrides:
        name = overrides[-1].id
        return _Found("rollout", f"not started, the {word} is overridden", "", f"judge rollout start {name}")
    if word != "SHIP":
        return _Found("rollout", f"none: the gate says {word or 'nothing'}", decision.at, "")
    return _Found("rollout", "not started", "", f"judge rollout start {decision.id}")


def _failures(entries: Sequence[Entry], decision: Entry | None) -> Entry | None:
    """The last failures that were collected after the decision: those before it belong to another round."""
    if decision is None:
        return None
    return next((entry for entry in reversed(entries) if entry.kind == "failures" and entry.seq > decision.seq), None)


def _intake_says(entry: Entry | None) -> str:
    if entry is None:
        return "no traces were sampled"
    strata: Mapping[str, Any] = entry.body.get("strata", {})
    met, drawn = (sum(int(stratum[name]) for stratum in strata.values()) for name in ("met", "drawn"))
    return f"{drawn} of {met} traces drawn"


def _dataset_says(entry: Entry | None) -> str:
    if entry is None:
        return "no data set was built"
    extra = ", a major change" if entry.body.get("extra_validation") else ""
    unchecked = "" if entry.body.get("checked", True) else ", NOT checked against gold"
    return f"{entry.body.get('rows')} pairs, digest {entry.subject[:12]}{extra}{unchecked}"


def _candidate_says(candidate: Entry | None, dataset: Entry | None) -> str:
    if candidate is None:
        return "no candidate was trained"
    older = dataset is not None and candidate.body.get("data") != dataset.subject
    return f"{candidate.subject}{', trained on other data than the last set' if older else ''}"


def _decision_says(entry: Entry | None) -> str:
    return "not decided" if entry is None else f"{str(entry.body.get('word', '?')).upper()} ({entry.id})"


def _failures_says(entry: Entry | None) -> str:
    if entry is None:
        return "none collected since the decision"
    return f"{entry.body.get('frozen', 0)} frozen, {entry.body.get('queue', 0)} for the queue, of {entry.subject}"
