"""A run from start to seal: header first, then every pair and reply in the journal, a seal at the end, the database
brought up to date.

An interrupted or failed run keeps its journal; ``resume_run`` reads it and asks only for what is missing. A resume
whose eval set changed is refused with the difference named.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rubrics import parse

from . import journal as journals
from . import protocol
from .alongside import Alongside
from .backends import probed, ready
from .batching import Batching, BatchPlan, batched_pairs, require_batches
from .canaries import VERSION, Canaries, canaries_of
from .engine import Job, judge_pairs
from .errors import BackendError, BackendUnavailable, InputError, StoreError
from .formats import EvalSet, Problem, open_evalset
from .journal import Journal
from .ledger import CRASHED, DEATHS, Ledger
from .money import Budget, Priced, took
from .outlays import find_out, subject_of
from .store import Store
from .types import JudgeId, Reply, Usage

if TYPE_CHECKING:
    from rubrics import Rubric

    from .backends import Backend

__all__ = [
    "Progress",
    "RunPlan",
    "evalset_of",
    "header_of",
    "require_price",
    "resume_run",
    "rubric_of",
    "start_run",
]

_MIN_FREE_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything a new run is made of, fixed before the first call; ``judge_spec`` is the judge string for a later
    resume.
    """

    run_id: str
    created_at: str
    evalset: EvalSet
    options: Mapping[str, Any]
    """How the eval set was opened: ``candidate``, ``baseline``, ``mapping``, ``skip_bad``, ``limit``."""
    rubric: Rubric
    judge_spec: str
    seed: int = 0
    repeats: int = 1
    reuse: bool = True
    """Whether replies of earlier runs with the same identity are taken over instead of asked again."""
    max_cost: float | None = None
    """US dollars that the run may take, over all its resumes; ``None`` for no limit."""
    allow_unknown_price: bool = False
    """Whether a judge whose price is unknown may run under ``max_cost``; its calls then count nothing."""
    batch: BatchPlan | None = None
    """How the run goes through the provider's batch interface; ``None`` for ordinary calls."""
    canaries: int | None = None
    """Canary pairs that cost calls, beside two that cost none; ``None`` for a run without any (``canaries``)."""
    group: Mapping[str, Any] = field(default_factory=dict)
    """What makes the run part of a panel or cascade, as its header keeps it (``panels.Group``)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: comparisons settled of all, how many needed no call, how many are invalid, seconds since the
    start.

    ``cost`` is in US dollars, ``None`` once a price was unknown.
    """

    settled: int
    total: int
    cached: int
    invalid: int
    seconds: float
    cost: float | None = 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end at the average rate of this run, ``None`` before the first comparison."""
        return self.seconds / self.settled * (self.total - self.settled) if self.settled else None


Report = Callable[[Progress], None]


def header_of(plan: RunPlan, judge: JudgeId, notice: str) -> dict[str, Any]:
    """The header record of a run: every version and digest that its numbers depend on."""
    return {
        "format": journals.FORMAT,
        "run_id": plan.run_id,
        "created_at": plan.created_at,
        "rubric": str(plan.rubric.ref),
        "rubric_digest": plan.rubric.digest,
        "rubric_released": plan.rubric.released,
        "rubric_text": plan.rubric.text,
        "judge": asdict(judge),
        "judge_spec": plan.judge_spec,
        "judge_notice": notice,
        "seed": plan.seed,
        "repeats": plan.repeats,
        "reuse": plan.reuse,
        "max_cost": plan.max_cost,
        "allow_unknown_price": plan.allow_unknown_price,
        **({"batch": asdict(plan.batch)} if plan.batch is not None else {}),
        **({"canaries": {"count": plan.canaries, "version": VERSION}} if plan.canaries is not None else {}),
        **plan.group,
        "template": protocol.TEMPLATE,
        "evalset": {
            "files": [str(path.resolve()) for path in plan.evalset.sources],
            "digest": plan.evalset.digest,
            "rows": plan.evalset.rows,
            "left_out": _counts(plan.evalset.problems),
            "options": dict(plan.options),
        },
        "versions": _versions(),
    }


async def start_run(
    plan: RunPlan,
    backend: Backend,
    store: Store,
    *,
    report: Report | None = None,
    batching: Batching | None = None,
    along: Alongside | None = None,
) -> str:
    """Judge an eval set from the beginning; returns the run id once the run is sealed and in the database.

    ``batching`` is needed where the plan wants batches; its own plan is then the run's. ``along`` is a second process
    that may be warm already.
    """
    if plan.batch is not None:
        require_batches(backend)
    if plan.max_cost is not None:
        require_price(header_of(plan, backend.id, ""), plan.evalset, plan.rubric, backend)
    _require_space(store.home)
    if plan.reuse:
        store.catch_up()  # before anything is paid for: it may take long where a version of the screen is new
    budget = None if plan.max_cost is None else Budget(plan.max_cost)
    await find_out(store.home, subject_of(plan.run_id, plan.group), backend, budget=budget, at=plan.created_at)
    probe = await probed(backend)
    if backend.id.by_pair:  # it answers by the ids of pairs, and knows none of a canary
        plan = replace(plan, canaries=None)
    header = header_of(plan, backend.id, backend.notice)
    batching = _batching(header, batching)
    job = Job(
        plan.rubric,
        backend,
        seed=plan.seed,
        repeats=plan.repeats,
        known=store.known(plan.rubric.digest, backend.id) if plan.reuse else None,
        budget=None if plan.max_cost is None else Budget(plan.max_cost, spent=took(probe, _probe_bound(backend))),
    )
    with along or Alongside() as helper:
        with Journal(store.journal_path(plan.run_id), create=True) as journal:
            journal.add("run", header)
            if probe.attempts:
                journal.add("probe", {"reply": journals.encode_reply(probe), "bound": _probe_bound(backend)})
            journal.sync()
            pairs = canaries_of(plan.evalset, plan.canaries)
            helper.begin(store, plan.run_id, pairs.rows * plan.repeats)
            await _run(pairs, job, journal, report, helper, batching)
        helper.bring_in(store, plan.run_id)
    return plan.run_id


async def resume_run(
    run_id: str,
    store: Store,
    open_judge: Callable[[str], Backend],
    *,
    report: Report | None = None,
    max_cost: float | None = None,
    batching: Batching | None = None,
) -> str:
    """Finish an interrupted run: what its journal holds is kept, only missing asks are sent.

    A sealed run is left as it is. ``max_cost`` replaces the run's limit in US dollars; what it has cost so far, calls
    that were possibly paid included, counts. An ask during which the process died three times is not sent again: its
    comparison is invalid (``error``). Raises ``StoreError`` where the eval set, the judge or the template is no longer
    what the header says.
    """
    path = store.journal_path(run_id)
    if not path.exists():
        raise StoreError(f"{path}: no such run; list them with `judge report --list`")
    header = next(journals.records(path))
    if journals.scan(path).sealed:
        store.ingest(path)
        return run_id
    batching = _batching(header, batching)
    evalset = evalset_of(header)
    rubric = rubric_of(header)
    backend = open_judge(header["judge_spec"])
    try:
        await ready(backend, JudgeId(**header["judge"]))
        if asdict(backend.id) != header["judge"]:
            raise StoreError(
                f"run {run_id} was begun with judge {JudgeId(**header['judge'])}, now {header['judge_spec']!r} is "
                f"{backend.id}; "
                "start a new run, or bring back the old judge"
            )
        if header["template"] != protocol.TEMPLATE:
            raise StoreError(
                f"run {run_id} was begun with template {header['template']}, this version asks {protocol.TEMPLATE}; "
                "start a new run"
            )
        if max_cost is not None:
            require_price(header, evalset, rubric, backend)
        _require_space(store.home)
        with Alongside() as along:
            with Journal(path) as journal:
                job, ledger, wanted = _resumed_job(path, header, rubric, backend)
                journal.append("resume", {"max_cost": max_cost, "versions": _versions()})
                limit = ledger.max_cost if max_cost is None else max_cost
                job = replace(
                    job,
                    known=store.known(rubric.digest, backend.id) if header["reuse"] else None,
                    resumed={**job.resumed, **_give_up(ledger, wanted, journal)},
                    budget=None if limit is None else Budget(limit, spent=ledger.most or ledger.cost or 0.0),
                )
                pairs = _canaries(header, evalset)
                along.begin(store, run_id, pairs.rows * job.repeats)
                await _run(pairs, job, journal, report, along, batching)
            along.bring_in(store, run_id)
    finally:
        await backend.close()
    return run_id


def _batching(header: Mapping[str, Any], batching: Batching | None) -> Batching | None:
    """What a run through batches needs, with the plan that its header holds; ``None`` for a run without."""
    if header.get("batch") is None:
        return None
    if batching is None:
        raise InputError(f"run {header['run_id']} goes through batches; start or resume it with `judge`")
    return replace(batching, plan=BatchPlan(**header["batch"]))


def _canaries(header: Mapping[str, Any], evalset: EvalSet) -> Canaries:
    """The pairs of a run with its canaries, as it was begun."""
    planned = header.get("canaries") or {"count": None, "version": VERSION}
    if planned["version"] != VERSION:
        raise StoreError(
            f"run {header['run_id']} was begun with canary pairs {planned['version']}, this version has {VERSION}; "
            "start a new run"
        )
    return canaries_of(evalset, planned["count"])


async def _run(
    evalset: Canaries,
    job: Job,
    journal: Journal,
    report: Report | None,
    along: Alongside,
    batching: Batching | None = None,
) -> None:
    started = time.monotonic()
    total = (evalset.rows - len(job.done)) * job.repeats
    settled = cached = invalid = calls = 0
    cost: float | None = 0.0
    try:
        judged = (
            judge_pairs(evalset.pairs(), job, journal=journal)
            if batching is None
            else batched_pairs(evalset.pairs, job, journal, batching)
        )
        async with contextlib.aclosing(judged) as entries:
            async for entry in entries:
                settled += 1
                cached += entry.cached == len(entry.asks) > 0
                calls += 0 if batching is not None else len(entry.asks) - entry.cached
                invalid += entry.invalid
                paid, _ = entry.paid
                cost = None if cost is None or paid is None else cost + paid
                seconds = time.monotonic() - started
                along.look(settled, seconds)
                if report is not None:
                    report(Progress(settled, total, cached, invalid, seconds, cost))
        if settled != total:
            raise BackendError(f"{total - settled} of {total} comparisons were not settled")
    except (BackendError, InputError, asyncio.CancelledError, KeyboardInterrupt) as error:
        # Anything else is a death: without this record the next resume asks who died of what.
        journal.append("stop", {"reason": type(error).__name__, "unpaid": isinstance(error, BackendUnavailable)})
        if isinstance(error, BackendError):
            raise type(error)(str(error), unanswered=total - settled) from error
        raise
    seconds = round(time.monotonic() - started, 3)
    journal.append("seal", {"comparisons": evalset.rows * job.repeats, "calls": calls, "seconds": seconds})
    journal.sync()


def _resumed_job(
    path: Path, header: Mapping[str, Any], rubric: Rubric, backend: Backend
) -> tuple[Job, Ledger, dict[str, set[str]]]:
    """What the journal of an interrupted run already holds, its ledger, and the keys that each unfinished pair wants.

    Memory is one id per finished pair and the replies of unfinished ones.
    """
    ledger = Ledger()
    done: set[str] = set()
    replies: dict[str, dict[str, Reply]] = {}
    wanted: dict[str, set[str]] = {}
    for record in journals.records(path):
        ledger.take(record)
        if record["t"] == "pair":
            pair = journals.decode_pair(record["pair"])
            name = pair.id
            plans = [
                protocol.plan(pair, rubric, backend.id, seed=header["seed"], repeat=repeat, rendered=False)
                for repeat in range(header["repeats"])
            ]
            wanted[name] = {ask.key for asks in plans for ask in asks}
            replies[name] = {}
        elif record["t"] == "reply" and record["pair_id"] in wanted and _is_final(record["reply"]):
            name = record["pair_id"]
            replies[name][record["key"]] = journals.decode_reply(record["reply"])
        else:
            continue
        if wanted[name] <= replies[name].keys():
            done.add(name)
            del wanted[name], replies[name]
    ledger.end()
    job = Job(
        rubric,
        backend,
        seed=header["seed"],
        repeats=header["repeats"],
        resumed={key: reply for given in replies.values() for key, reply in given.items()},
        done=frozenset(done),
        planned=frozenset(done | wanted.keys()),
        suspects=frozenset(key for key, deaths in ledger.deaths.items() if deaths == DEATHS - 1),
    )
    return job, ledger, wanted


def _is_final(reply: Mapping[str, Any]) -> bool:
    """Whether a journaled reply is not asked again: it is no error, or it stands for an ask that was given up."""
    return not reply.get("error") or reply.get("finish") == CRASHED


def _give_up(ledger: Ledger, wanted: Mapping[str, set[str]], journal: Journal) -> dict[str, Reply]:
    """Journal an error in place of each reply that the process died of too often."""
    deadly = {key for key, deaths in ledger.deaths.items() if deaths >= DEATHS}
    error = f"given up: the process died {DEATHS} times while this was asked"
    reply = Reply(error=error, finish=CRASHED, usage=Usage(cost=0.0))
    for name, keys in wanted.items():
        for key in sorted(keys & deadly):
            journal.add("reply", {"key": key, "pair_id": name, "reply": journals.encode_reply(reply)})
    journal.flush()
    return dict.fromkeys(deadly, reply)


def evalset_of(header: Mapping[str, Any]) -> EvalSet:
    """The eval set that a run judged, opened anew; raises ``StoreError`` where it is gone or another now."""
    files, options = header["evalset"]["files"], header["evalset"]["options"]
    answers = {side: Path(options[side]) if options.get(side) else None for side in ("candidate", "baseline")}
    try:
        evalset = open_evalset(
            Path(files[0]),
            **answers,
            mapping=options.get("mapping"),
            skip_bad=options.get("skip_bad", False),
            limit=options.get("limit"),
        )
    except InputError as error:
        raise StoreError(f"run {header['run_id']} cannot be resumed: {error}") from None
    was = header["evalset"]
    if evalset.digest != was["digest"]:
        raise StoreError(
            f"run {header['run_id']} cannot be resumed: {', '.join(files)} changed since it began "
            f"({was['rows']} rows, sha256 {was['digest'][:12]}; now {evalset.rows} rows, {evalset.digest[:12]}); "
            "restore the file, or start a new run (what is judged already is taken from this one)"
        )
    return evalset


def rubric_of(header: Mapping[str, Any]) -> Rubric:
    """The rubric as the run recorded it: the shipped file may have moved on, the run has not."""
    rubric = parse(header["rubric_text"], path=f"run {header['run_id']} (rubric)")
    if rubric.digest != header["rubric_digest"]:
        raise StoreError(
            f"run {header['run_id']}: the recorded rubric text does not have the recorded digest; the journal was "
            "edited"
        )
    return rubric.model_copy(update={"released": header.get("rubric_released", True)})


def require_price(header: Mapping[str, Any], evalset: EvalSet, rubric: Rubric, backend: Backend) -> None:
    """Refuse a budget where the first ask has no price: a limit that cannot be held is none."""
    if header.get("allow_unknown_price") or not isinstance(backend, Priced):
        return
    plans = (protocol.plan(pair, rubric, backend.id, seed=header["seed"]) for pair in evalset.pairs())
    first = next((ask for asks in plans for ask in asks), None)
    if first is not None and backend.quote(first).cost is None:
        raise InputError(
            f"judge {header['judge_spec']}: its price is unknown, so a limit in dollars cannot be held; give its "
            "price, or start the run with --allow-unknown-price to count its calls as free"
        )


def _probe_bound(backend: Backend) -> float | None:
    """The most that one call of finding out the judge's mode took in US dollars."""
    bound: Callable[[], float | None] | None = getattr(backend, "probe_bound", None)
    return bound() if bound is not None else 0.0


def _require_space(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < _MIN_FREE_BYTES:
        raise StoreError(
            f"{home}: only {free // 1_000_000} MB free on this disk; make room or pass --home on another disk"
        )


def _counts(problems: tuple[Problem, ...]) -> dict[str, int]:
    return {
        kind: sum(problem.kind == kind for problem in problems)
        for kind in sorted({problem.kind for problem in problems})
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in ("touchstone-judge", "duckdb", "polars", "ctranslate2", "tokenizers", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
