"""``judge run`` with several judges, as a panel or a cascade; what ``resume`` and ``report`` do with one."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..advice import advised
from ..calibrations import read_calibration
from ..clock import stamp
from ..environment import environment
from ..money import Budget, BudgetSpent
from ..outlays import find_out, unbooked
from ..render.words import counted
from .engines import opener
from .run import (
    Options,
    announce,
    cost_words,
    drive,
    estimated,
    mode_of,
    mode_words,
    pairs_words,
    plan_of,
    surroundings,
    time_words,
)
from .screen import bring_in, complain, progress, safe

if TYPE_CHECKING:
    from calibration.confidence import Calibration
    from calibration.gold import GoldSet

    from ..backends import Backend
    from ..cascades import Gate
    from ..panels import Group
    from ..runs import RunPlan
    from ..store import Store

__all__ = ["Showing", "begin", "resume", "show"]

Opener = Callable[[str], "Backend"]

_ERROR = 0.1
"""The share of wrong verdicts that a cascade tolerates where nobody says otherwise."""


def begin(options: Options) -> int:
    """Start a panel or a cascade: check everything that can be known before the first call, judge, report."""
    from ..store import Store

    _check(options)
    env = surroundings(options.home)
    plan = plan_of(options)
    store = Store(env.home)
    open_judge = opener(env, **({} if options.dry_run else options.elsewhere()))
    backends = [open_judge(spec) for spec in options.judges]
    _refuse(options, plan, backends)
    if options.dry_run:
        return _dry_run(plan, options, backends, store)
    kind = "cascade" if options.cascade else "panel"
    group_id = f"{kind[0]}-{secrets.token_hex(3)}"
    by_pair = all(backend.id.by_pair for backend in backends)
    announce(plan, group_id, f"{kind} of {len(backends)} judges", by_pair=by_pair)

    opened = dict(enumerate(backends, 1))

    async def work() -> None:
        try:
            env.home.mkdir(parents=True, exist_ok=True)
            budget = Budget(math.inf if plan.max_cost is None else plan.max_cost)
            probes = []
            for place, backend in enumerate(backends, 1):
                spent, subject = budget.spent, f"{group_id}/{place}"
                await find_out(env.home, subject, backend, budget=budget, at=plan.created_at)
                probes.append(budget.spent - spent)
            # A judge that looks at its server first may be another one than its string alone says.
            record = {"id": group_id, **_record(options, plan, backends)}
            group = _Work(store, open_judge, kind, record, plan, opened=opened, limit=plan.max_cost)
            group.probes = probes
            await group.complete({})
        finally:
            while opened:
                await opened.popitem()[1].close()

    drive(work(), group_id, options.home)
    return show(store, group_id, Showing(as_json=options.as_json, after=True))


def resume(group_id: str, open_judge: Opener, *, max_cost: float | None, as_json: bool, home: str | None) -> int:
    """Finish what a panel or cascade lacks: a run that was interrupted, and those that were not begun."""
    from ..panels import group_of
    from ..store import Store

    store = Store(Path(home) if home else environment().home)
    bring_in(store)
    group = group_of(store, group_id)
    limit = max_cost if max_cost is not None else _limit(store, group)
    kind = "cascade" if group.is_cascade else "panel"
    record = {name: value for name, value in group.plan.items() if name != "place"}
    work = _Work(store, open_judge, kind, record, _base(group), opened={}, limit=limit)
    work.lost = sum(outlay.most or 0.0 for outlay in unbooked(store.home) if outlay.subject.startswith(f"{group.id}/"))
    begun = {place: (info.run_id, info.sealed) for place, info in group.runs.items()}
    drive(work.complete(begun), group.id, home)
    given_up = sum(info.given_up for info in group_of(store, group.id).runs.values())
    if given_up:
        click.echo(f"note: {given_up} asks were given up: the process died each time they were asked", err=True)
    return show(store, group.id, Showing(as_json=as_json, after=True))


@dataclass(frozen=True, slots=True)
class Showing:
    """How a panel or cascade is shown; ``after`` says that it was just judged."""

    as_json: bool = False
    as_md: bool = False
    gold: Path | None = None
    by: str = "category"
    after: bool = False


def show(store: Store, group_id: str, how: Showing) -> int:
    """Print a panel or cascade; exit code 3 where not one comparison could be judged."""
    from ..cascades import cascade_report
    from ..panels import group_of, panel_report
    from ..render import panel as render

    group = group_of(store, group_id)
    if group.is_cascade:
        if how.gold is not None:
            raise click.UsageError("--gold weighs the judges of a panel; this is a cascade")
        cascade = cascade_report(store, group, by=how.by)
        shape = (render.cascade_json, render.cascade_markdown, render.cascade_text)
        text = shape[0 if how.as_json else 1 if how.as_md else 2](cascade)
        judged, sealed = cascade.report.overall.judged, cascade.sealed
    else:
        if how.by != "category":
            raise click.UsageError("--by is for a run or a cascade; name a run of this panel")
        panel = panel_report(store, group, _gold(store, group, how.gold))
        forms = (render.panel_json, render.panel_markdown, render.panel_text)
        text = forms[0 if how.as_json else 1 if how.as_md else 2](panel)
        judged, sealed = panel.majority.judged, panel.sealed
    click.echo(text)
    if not sealed:
        click.echo(f"note: this is not finished; finish it with: {advised('resume', group.id)}", err=True)
    if judged == 0:
        complain("not one comparison could be judged")
        return 3
    if how.after:
        click.echo(f"next: {advised('report', group.id)}", err=True)
    return 0


class _Work:
    """Runs the judges of a group one after another, each as a run of its own; what is there already is kept."""

    def __init__(
        self, store: Store, open_judge: Opener, kind: str, record: Mapping[str, Any], base: RunPlan,
        *, opened: dict[int, Backend], limit: float | None,
    ) -> None:  # fmt: skip
        self.store, self.open_judge, self.kind, self.record, self.base = store, open_judge, kind, record, base
        self.opened, self.limit = opened, limit
        self.probes: list[float] = []
        """What finding out each judge's mode took in US dollars; a judge's own run books it."""
        self.lost = 0.0
        """The most that was spent on this group before and that none of its runs has booked, in US dollars."""

    async def complete(self, begun: Mapping[int, tuple[str, bool]]) -> None:
        """Judge what is missing; ``begun`` holds run id and whether it is sealed, by place."""
        from ..cascades import Gate, escalated, escalated_evalset

        spent, plan = self.lost, self.base
        try:
            for place in range(1, self.record["of"] + 1):
                left = None if self.limit is None else max(0.0, self.limit - spent - sum(self.probes[place:]))
                run_id, sealed = begun.get(place, ("", False))
                try:
                    if not run_id:
                        run_id = await self._start(replace(plan, max_cost=left), place)
                    elif not sealed:
                        await self._resume(run_id, place, left)
                except BudgetSpent as error:
                    if place == 1 or self.limit is None:
                        raise
                    rest = f"that is what the {counted(place - 1, 'judge')} before left of ${self.limit:g}"
                    raise BudgetSpent(f"{error}; {rest}", unanswered=error.unanswered) from error
                if self.limit is not None:
                    spent += _ledger(self.store, run_id)[0]
                if self.kind == "cascade" and place < self.record["of"]:
                    gate = Gate(**self.record["gates"][place - 1])
                    ids = escalated(self.store.comparisons(run_id), gate)
                    if not ids:
                        click.echo(f"  judge {place} decided every pair that reached it", err=True)
                        return
                    plan = replace(plan, evalset=escalated_evalset(self.store, run_id, ids), options={})
        finally:
            while self.opened:
                await self.opened.popitem()[1].close()

    async def _start(self, plan: RunPlan, place: int) -> str:
        from ..runs import start_run
        from .batching import batching

        spec = self.record["judges"][place - 1]
        backend = self._open(place, spec)
        plan = replace(
            plan,
            run_id=f"r-{secrets.token_hex(3)}",
            created_at=stamp(),
            judge_spec=spec,
            group={self.kind: {**self.record, "place": place}},
        )
        self._say(place, f"{plan.run_id}: {plan.evalset.rows} pairs, {backend.id}")
        try:
            await start_run(plan, backend, self.store, report=progress(), batching=batching(self.store.home))
        finally:
            await self.opened.pop(place).close()
        return plan.run_id

    async def _resume(self, run_id: str, place: int, limit: float | None) -> None:
        from ..runs import resume_run
        from .batching import batching

        self._say(place, f"{run_id}: resumed")
        try:
            await resume_run(
                run_id,
                self.store,
                lambda spec: self._open(place, spec),
                report=progress(),
                max_cost=limit,
                batching=batching(self.store.home),
            )
        finally:
            self.opened.pop(place, None)  # it was closed with the run

    def _open(self, place: int, spec: str) -> Backend:
        if place not in self.opened:
            self.opened[place] = self.open_judge(spec)
        return self.opened[place]

    def _say(self, place: int, text: str) -> None:
        click.echo(f"  judge {place} of {self.record['of']}  {safe(text)}", err=True)


def _check(options: Options) -> None:
    """What the options say together."""
    judges, gates = len(options.judges), len(options.cascade)
    if options.error is not None and not gates:
        raise click.UsageError("--error needs --cascade")
    if gates and gates not in (judges - 1, judges):
        raise click.UsageError(
            f"--cascade: {judges} judges need {judges - 1} calibrations (the last judge decides what is left), or "
            f"{judges} (what the last cannot certify is left to people); got {gates}"
        )
    if gates and options.repeat > 1:
        raise click.UsageError("--repeat does not go with --cascade: thresholds are certified for single judgements")
    if gates and options.gold is not None:
        raise click.UsageError("--gold weighs the judges of a panel; a cascade goes by its calibrations")


def _refuse(options: Options, plan: RunPlan, backends: list[Backend]) -> None:
    """Refuse, before any judge is asked, what can be known to go wrong: gold, gates, prices."""
    from ..backends import Preparing
    from ..runs import header_of, require_price

    if options.gold is not None:
        _read_gold(options.gold)
    _twice([str(backend.id) for backend in backends])
    for path, backend in zip(options.cascade, backends, strict=False):
        # The id of a judge that looks at its server first is not known yet; all else about its gate is.
        fitted = read_calibration(path)
        _gate(options, plan, fitted, fitted.judge if isinstance(backend, Preparing) else str(backend.id))
    if plan.max_cost is not None:
        for spec, backend in zip(options.judges, backends, strict=True):
            header = header_of(replace(plan, judge_spec=spec), backend.id, backend.notice)
            require_price(header, plan.evalset, plan.rubric, backend)


def _twice(names: list[str]) -> None:
    from ..errors import InputError

    for name in names:
        if names.count(name) > 1:
            raise InputError(f"judge {name} stands twice; ask one judge several times with --repeat")


def _record(options: Options, plan: RunPlan, backends: list[Backend]) -> dict[str, Any]:
    """What every header of the group holds beside its id; raises ``InputError`` where the ids do not allow it."""
    from ..batching import require_batches

    names = [str(backend.id) for backend in backends]
    _twice(names)
    if plan.batch is not None:
        for backend in backends:
            require_batches(backend)
    common = {"of": len(backends), "judges": list(options.judges)}
    if not options.cascade:
        return {**common, "gold": str(options.gold.resolve()) if options.gold is not None else None}
    gates: list[dict[str, Any] | None] = [
        asdict(_gate(options, plan, read_calibration(path), name))
        for path, name in zip(options.cascade, names, strict=False)
    ]
    return {**common, "error": _error(options), "gates": gates + [None] * (len(backends) - len(gates))}


def _gate(options: Options, plan: RunPlan, fitted: Calibration, judge: str) -> Gate:
    from ..cascades import gate_of

    return gate_of(fitted, rubric=plan.rubric.pinned, judge=judge, error=_error(options))


def _error(options: Options) -> float:
    return _ERROR if options.error is None else options.error


def _dry_run(plan: RunPlan, options: Options, backends: list[Backend], store: Store) -> int:
    found = [
        estimated(plan, backend, store, part=bool(options.cascade) and place > 0)[0]
        for place, backend in enumerate(backends)
    ]
    sums: dict[str, Any] = {}
    for name in ("verdicts", "cached", "calls", "prompt_tokens", "completion_tokens", "low", "high", "seconds"):
        values = [getattr(entry, name) for entry in found]
        sums[name] = None if None in values else sum(values)
    if options.cascade:
        # Nothing may be passed on: what the first judge takes is certain, the rest an upper bound.
        sums |= {"low": found[0].low, "seconds_least": found[0].seconds, "calls_least": found[0].calls}
    if options.as_json:
        judges = [{"judge": str(b.id), **asdict(entry), **mode_of(b)} for b, entry in zip(backends, found, strict=True)]
        click.echo(json.dumps({"pairs": plan.evalset.rows, "judges": judges, "total": sums}))
        return 0
    click.echo(f"dry run: {pairs_words(plan, found[0])}, rubric {plan.rubric.ref}, {len(found)} judges")
    for place, (backend, entry) in enumerate(zip(backends, found, strict=True), 1):
        most = "at most " if options.cascade and place > 1 else ""
        time = time_words(entry.seconds)
        click.echo(f"  {place}  {safe(str(backend.id))}")
        for sentence in mode_words(backend):
            click.echo(f"     {safe(sentence)}")
        click.echo(f"     calls {most}{entry.calls:,}, {entry.cached:,} cached; cost {cost_words(entry)}; time {time}")
    most = "at most " if options.cascade else ""
    time = time_words(sums["seconds"])
    cost = "unknown: the price of a judge is not known"
    if sums["high"] is not None:
        cost = "none" if sums["high"] == 0 else f"at most ${sums['high']:.4f}, retries not counted"
    longest = most if sums["seconds"] else ""
    click.echo(f"  all: calls {most}{sums['calls']:,}; cost {cost}; time {longest}{time}")
    if plan.max_cost is not None and sums["high"] is not None and sums["high"] > plan.max_cost:
        click.echo(f"  --max-cost ${plan.max_cost:g} for all together may stop it before its end")
    click.echo("nothing was called and nothing written", err=True)
    return 0


def _base(group: Group) -> RunPlan:
    """The plan of the first run, as its header tells it: what runs that were not begun are started from."""
    from ..batching import BatchPlan
    from ..runs import RunPlan, evalset_of, rubric_of

    head = group.first.header
    return RunPlan(
        run_id="",
        created_at="",
        evalset=evalset_of(head),
        options=head["evalset"]["options"],
        rubric=rubric_of(head),
        judge_spec=head["judge_spec"],
        seed=head["seed"],
        repeats=head["repeats"],
        reuse=head["reuse"],
        allow_unknown_price=head["allow_unknown_price"],
        canaries=(head.get("canaries") or {}).get("count"),
        batch=BatchPlan(**head["batch"]) if head.get("batch") else None,
    )


def _ledger(store: Store, run_id: str) -> tuple[float, float | None]:
    """The most that a run has cost so far in US dollars, and the limit that it was last given."""
    from ..journal import records
    from ..ledger import Ledger

    ledger = Ledger()
    for record in records(store.journal_path(run_id)):
        ledger.take(record)
    ledger.end()
    return ledger.most or ledger.cost or 0.0, ledger.max_cost


def _limit(store: Store, group: Group) -> float | None:
    """The limit of the whole group: what its latest run was given, and what the runs before it had taken by then."""
    *before, latest = (info.run_id for info in group.runs.values())
    limit = _ledger(store, latest)[1]
    return None if limit is None else limit + sum(_ledger(store, run_id)[0] for run_id in before)


def _gold(store: Store, group: Group, given: Path | None) -> GoldSet | None:
    """Labels to weigh the judges by: those named now, those named at the start, or the eval set's own."""
    from ..evidence import labels_of

    path = given or (Path(group.plan["gold"]) if group.plan.get("gold") else None)
    if path is not None and (given is not None or path.exists()):
        return _read_gold(path)
    if path is not None:
        click.echo(f"note: {safe(str(path))} is gone; name the labels with --gold", err=True)
    gold = labels_of(store, group.first)
    return gold if len(gold) else None


def _read_gold(path: Path) -> GoldSet:
    from calibration.gold import GoldSet

    return GoldSet.read(path)
