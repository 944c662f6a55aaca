"""Making answers: prompts in, one answer file out, journaled on the way like a run.

Beside the output stands its journal (``answers.jsonl.journal``; the format is that of ``judge.journal``): a header with
everything the answers depend on, an intent before each call, a reply after it. A process that dies loses at most what
was in flight; the same command again continues. The output is written from the journal, in the order of the eval set,
and appears whole: its bytes (but for the latencies) do not depend on concurrency, interruptions or the order of
replies.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import journal as journals
from .answers import Tally, answers_in, encode_generation, tally, write_answers
from .backends.chat import Generation
from .errors import BackendError, BackendUnavailable, InputError, StoreError
from .journal import Journal
from .ledger import CRASHED, DEATHS, Ledger
from .money import Budget, BudgetSpent, losing
from .prompts import Asking, Prompt, PromptSet
from .types import Usage

if TYPE_CHECKING:
    from .backends.generators import Generator

__all__ = ["Estimate", "GenerationPlan", "Progress", "Result", "estimate", "generate", "journal_path"]

_LOOK_AHEAD = 512
"""Prompts that are held while those of one length are sought for a batch."""
_GRACE_SECONDS = 10.0
"""How long an interrupted generation waits for the calls that are in flight and paid for."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """Everything the answers of one file depend on. ``spec`` is the model string, ``options`` how the eval set was
    opened (``mapping``, ``skip_bad``, ``limit``); ``max_cost`` in US dollars over all continuations.
    """

    output: Path
    prompts: PromptSet
    asking: Asking
    spec: str
    created_at: str
    options: Mapping[str, Any] = field(default_factory=dict)
    max_cost: float | None = None
    allow_unknown_price: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: answers there (``before`` of them from an earlier start) of all, failed ones, tokens generated and
    seconds since the start; ``cost`` in US dollars, ``None`` once a price was unknown.
    """

    answered: int
    total: int
    before: int
    failed: int
    tokens: int
    seconds: float
    cost: float | None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end at the average rate since the start, ``None`` before the first answer."""
        done = self.answered - self.before + self.failed
        return self.seconds / done * (self.total - self.answered - self.failed) if done else None


@dataclass(frozen=True, slots=True)
class Result:
    """What a generation came to: ``items`` in all, ``before`` of them answered by an earlier start, ``failed`` as (id,
    reason), the sums of what stands in the output.

    ``cost`` is in US dollars over all starts, failed calls included (``None`` where a price is unknown); ``cost_most``
    adds the upper bounds of the ``possibly_paid`` calls, which brought no answer and may have been charged.
    ``seconds`` and ``generated`` tokens are this process's.
    """

    output: Path
    items: int
    before: int
    failed: tuple[tuple[str, str], ...]
    tally: Tally
    cost: float | None
    cost_most: float | None
    possibly_paid: int
    seconds: float
    generated: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is still to be made: items, tokens at most, US dollars from ``low`` to ``high`` (``None`` where unknown)."""

    items: int
    before: int
    prompt_tokens: int
    completion_tokens: int
    low: float | None
    high: float | None


def journal_path(output: Path) -> Path:
    """Where the journal of an answer file stands."""
    return output.with_name(f"{output.name}.journal")


@dataclass(slots=True)
class _Kept:
    """What a journal holds: ids with an answer, the last failure of others, ids that are given up, the accounts."""

    answered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    ledger: Ledger = field(default_factory=Ledger)
    begun: bool = False


def estimate(plan: GenerationPlan, generator: Generator) -> Estimate:
    """Count what is still to be made, without a call and without writing anything."""
    kept = _kept(plan, generator)
    items = tokens_in = tokens_out = 0
    low: float | None = 0.0
    high: float | None = 0.0
    for prompt in plan.prompts.prompts(plan.asking):
        if prompt.id in kept.answered or prompt.id in kept.given_up:
            continue
        quote = generator.quote(prompt)
        items, tokens_in, tokens_out = (
            items + 1,
            tokens_in + quote.prompt_tokens,
            tokens_out + quote.completion_tokens,
        )
        low = None if low is None or quote.cost is None else low + (quote.least or 0.0)
        high = None if high is None or quote.cost is None else high + quote.cost
    return Estimate(items, len(kept.answered), tokens_in, tokens_out, low, high)


async def generate(
    plan: GenerationPlan, generator: Generator, *, report: Callable[[Progress], None] | None = None
) -> Result:
    """Make every answer that the journal does not hold yet, then write the output.

    An item that failed has no row in the output and is named in the result; the same call again tries it anew. What an
    earlier process left is kept; an item during which the process died three times is given up.

    Raises:
        InputError: the output is something else, was begun from another eval set, model or parameter (named), or is
            being written by another process; a budget without a price; tools for a model that takes none.
        BackendError: nothing can be answered any more, or the budget is spent. What was answered is in the journal,
            the output is not written.
    """
    if plan.prompts.with_tools and not generator.takes_tools:
        raise InputError(
            f"{plan.prompts.source}: {plan.prompts.with_tools} items bring tools, and {generator.id.name} takes none; "
            "leave their column 'tools' out, or use a model behind a server"
        )
    started = time.monotonic()
    path = journal_path(plan.output)
    if plan.output.exists() and not path.exists():
        raise InputError(f"{plan.output}: the file exists and has no journal beside it; name another output")
    kept = _kept(plan, generator)
    before = len(kept.answered)
    if kept.ledger.sealed:
        if not plan.output.exists():
            write_answers(plan.output, _rows(plan, generator))
        return _result(plan, generator, started, before=before)
    if plan.max_cost is not None and not plan.allow_unknown_price:
        _require_price(plan, generator)
    with _open(path) as journal:
        kept = _kept(plan, generator)  # again, under the lock: another process may have worked until now
        before = len(kept.answered)
        if kept.begun:
            journal.append("resume", {"max_cost": plan.max_cost, "spec": plan.spec})
        else:
            journal.append("run", _header(plan, generator))
        journal.sync()
        work = _Work(plan, generator, journal, kept)
        await work.run(report)
        if kept.answered:
            journal.sync()
            write_answers(plan.output, _rows(plan, generator))
        if kept.failed:
            journal.append("stop", {"reason": "failed", "failed": len(kept.failed)})
        else:
            seconds = round(time.monotonic() - started, 3)
            journal.append("seal", {"answers": len(kept.answered), "calls": work.calls, "seconds": seconds})
        journal.sync()
    return _result(plan, generator, started, before=before, generated=work.tokens)


def _rows(plan: GenerationPlan, generator: Generator) -> Iterator[dict[str, Any]]:
    names = (prompt.id for prompt in plan.prompts.prompts(plan.asking))
    return answers_in(journal_path(plan.output), names, generator.id)


def _result(plan: GenerationPlan, generator: Generator, started: float, *, before: int, generated: int = 0) -> Result:
    kept = _kept(plan, generator)
    return Result(
        output=plan.output,
        items=plan.prompts.rows,
        before=before,
        failed=tuple(sorted(kept.failed.items())),
        tally=tally(_rows(plan, generator)),
        cost=kept.ledger.cost,
        cost_most=kept.ledger.most,
        possibly_paid=kept.ledger.possibly_paid,
        seconds=time.monotonic() - started,
        generated=generated,
    )


class _Work:
    """The calls of one process: workers that take prompts from one stream, reserve, journal, call and journal again."""

    def __init__(self, plan: GenerationPlan, generator: Generator, journal: Journal, kept: _Kept) -> None:
        self.plan, self.generator, self.journal, self.kept = plan, generator, journal, kept
        self.calls = self.tokens = self._flying = self._paying = self._failures = 0
        self._before = len(kept.answered)
        self._retried = dict(kept.failed)
        self._again: dict[str, float] = {}
        self._cost: float | None = 0.0
        self._started = time.monotonic()
        self._ending: Exception | None = None
        self._landed = asyncio.Event()
        limit = kept.ledger.max_cost if plan.max_cost is None else plan.max_cost
        spent = kept.ledger.most or kept.ledger.cost or 0.0
        self._budget = None if limit is None else Budget(limit, spent=spent)
        self._report: Callable[[Progress], None] | None = None

    async def run(self, report: Callable[[Progress], None] | None) -> None:
        """Ask for everything that is missing; what the process died of before goes first and alone."""
        self._report = report
        self._give_up()
        suspects = {name for name, deaths in self.kept.ledger.deaths.items() if deaths == DEATHS - 1}
        try:
            if suspects:
                await self._drain(([prompt] for prompt in self._missing() if prompt.id in suspects), 1)
            await self._drain(self._groups(), self.generator.concurrency)
        except (BackendError, InputError, asyncio.CancelledError, KeyboardInterrupt) as error:
            # Anything else is a death: without this record the next start asks who died of what.
            unpaid = isinstance(error, BackendUnavailable)
            self.journal.append("stop", {"reason": type(error).__name__, "unpaid": unpaid})
            raise

    def _give_up(self) -> None:
        for name, deaths in self.kept.ledger.deaths.items():
            if deaths >= DEATHS and name not in self.kept.answered:
                error = f"given up: the process died {DEATHS} times while this was asked"
                lost = Generation(error=error, finish=CRASHED, usage=Usage(cost=0.0))
                self.journal.add("reply", {"key": name, "reply": encode_generation(lost)})
                self.kept.failed[name] = error
                self.kept.given_up.add(name)
        self._failures = len(self.kept.given_up)
        self.journal.flush()

    def _missing(self) -> Iterator[Prompt]:
        for prompt in self.plan.prompts.prompts(self.plan.asking):
            if prompt.id not in self.kept.answered and prompt.id not in self.kept.given_up:
                yield prompt

    def _groups(self) -> Iterator[list[Prompt]]:
        """Prompts for one call each: single ones, or up to ``batch`` of one length from the next 512."""
        batch = self.generator.batch
        if batch == 1:
            yield from ([prompt] for prompt in self._missing())
            return
        waiting: dict[int, list[Prompt]] = {}
        held = 0
        for prompt in self._missing():
            length = self.generator.tokens(prompt)
            waiting.setdefault(length, []).append(prompt)
            held += 1
            if len(waiting[length]) == batch:
                held -= batch
                yield waiting.pop(length)
            elif held >= _LOOK_AHEAD:
                group = waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
                held -= len(group)
                yield group
        yield from (waiting[length] for length in sorted(waiting, reverse=True))

    async def _drain(self, groups: Iterator[list[Prompt]], workers: int) -> None:
        tasks = [asyncio.create_task(self._worker(groups)) for _ in range(workers)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        except asyncio.CancelledError:
            self._end(BackendError("interrupted"))
            if self._paying:
                await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(self._ending, BackendError):
            missing = self.plan.prompts.rows - len(self.kept.answered)
            raise type(self._ending)(str(self._ending), unanswered=missing) from self._ending
        if self._ending is not None:
            raise self._ending

    async def _worker(self, groups: Iterator[list[Prompt]]) -> None:
        """Take groups until there are none, or something ended it all; what others have in flight is not lost."""
        while self._ending is None:
            try:
                group = next(groups, None)
                if group is None:
                    return
                wanted = [prompt for prompt in group if not self._is_done(prompt)]
                if wanted:
                    await self._call(wanted)
            except Exception as error:  # noqa: BLE001 - whatever one call dies of, the others' answers are kept first
                self._end(error)

    def _end(self, error: Exception) -> None:
        """Nothing more is asked; the first error is the reason."""
        self._ending = self._ending or error
        self._landed.set()

    def _is_done(self, prompt: Prompt) -> bool:
        """Whether a prompt was asked by this process already (a suspect, which went first)."""
        return prompt.id in self.kept.answered or (prompt.id in self.kept.failed and prompt.id not in self._retried)

    async def _call(self, group: list[Prompt]) -> None:
        bounds = [self.generator.quote(prompt).cost for prompt in group]
        await self._reserve(sum(bound or 0.0 for bound in bounds))
        self.journal.append("intent", {"keys": [prompt.id for prompt in group], "bounds": bounds})
        paying = any(bound != 0.0 for bound in bounds)
        self._flying, self._paying = self._flying + 1, self._paying + paying
        try:
            with losing(partial(self._lost, group)):
                made = [_checked(one) for one in await self.generator.generate(group)]
        finally:
            self._flying, self._paying = self._flying - 1, self._paying - paying
        for prompt, one, bound in zip(group, made, bounds, strict=True):
            self.journal.add("reply", {"key": prompt.id, "reply": encode_generation(one)})
            if self._budget is not None:
                self._budget.settle((bound or 0.0) + self._again.pop(prompt.id, 0.0), _took(one, bound))
        self.journal.flush()
        self._landed.set()
        for prompt, one in zip(group, made, strict=True):
            self._book(prompt, one)

    @staticmethod
    def _spent(budget: Budget, bound: float) -> BudgetSpent:
        return BudgetSpent(
            f"${budget.spent:.4f} of ${budget.limit:g} are spent and one more answer may take ${bound:.4f}; raise "
            "--max-cost to go on"
        )

    def _lost(self, group: list[Prompt], attempts: int) -> None:
        """Reserve and journal attempts that were possibly paid before they are made again; raises ``BudgetSpent``."""
        for prompt in group:
            more = attempts * (self.generator.quote(prompt).cost or 0.0)
            if self._budget is not None and not self._budget.reserve(more):
                raise self._spent(self._budget, more)
            self._again[prompt.id] = self._again.get(prompt.id, 0.0) + more
        self.journal.append("lost", {"keys": [prompt.id for prompt in group], "count": attempts})

    async def _reserve(self, bound: float) -> None:
        """Set the upper bound aside; wait while calls in flight may still leave room for it."""
        if self._budget is None:
            return
        while not self._budget.reserve(bound):
            if not self._flying or self._ending is not None:
                raise self._spent(self._budget, bound)
            self._landed.clear()
            await self._landed.wait()

    def _book(self, prompt: Prompt, one: Generation) -> None:
        self.calls += 1
        self._retried.pop(prompt.id, None)
        if one.error is None:
            self.kept.answered.add(prompt.id)
            self.kept.failed.pop(prompt.id, None)
            self.tokens += one.usage.completion_tokens
        else:
            self.kept.failed[prompt.id] = one.error
            self._failures += 1
        self._cost = None if self._cost is None or one.usage.cost is None else self._cost + one.usage.cost
        if self._report is not None:
            seconds = time.monotonic() - self._started
            answered, total = len(self.kept.answered), self.plan.prompts.rows
            self._report(Progress(answered, total, self._before, self._failures, self.tokens, seconds, self._cost))


def _checked(made: Generation) -> Generation:
    """A withheld answer is a failure, not an empty text."""
    if made.error is None and made.finish == "content_filter":
        return dataclasses.replace(made, error="filtered: the provider's filter withheld the answer")
    return made


def _took(made: Generation, bound: float | None) -> float:
    """The most that a generation took in US dollars, by the rule of ``money.took``."""
    most = bound or 0.0
    cost = made.usage.cost if made.usage.cost is not None else 0.0 if made.error is not None else most
    return cost + made.possibly_paid * most


def _require_price(plan: GenerationPlan, generator: Generator) -> None:
    first = next(plan.prompts.prompts(plan.asking))
    if generator.quote(first).cost is None:
        raise InputError(
            f"model {generator.id.name}: its price is unknown, so a limit in dollars cannot be held; give its price "
            "(&price_in=0.1&price_out=0.4, US dollars per million tokens), or pass --allow-unknown-price"
        )


def _open(path: Path) -> Journal:
    """The journal, new or taken up; ``StoreError`` where another process has it."""
    try:
        return Journal(path, create=not path.exists())
    except StoreError as error:
        if "another process" in str(error) or "exists already" in str(error):
            raise StoreError(f"{path}: another process is writing these answers; wait for it or stop it") from None
        raise


def _header(plan: GenerationPlan, generator: Generator) -> dict[str, Any]:
    """Everything the answers depend on; what ``_differences`` compares on a continuation."""
    return {
        "format": journals.FORMAT,
        "run_id": plan.output.name,
        "what": "generation",
        "created_at": plan.created_at,
        "model": dataclasses.asdict(generator.id),
        "settings": dataclasses.asdict(generator.settings),
        "spec": plan.spec,
        "max_cost": plan.max_cost,
        "asking": dataclasses.asdict(plan.asking),
        "evalset": {
            "file": str(plan.prompts.source.resolve()),
            "digest": plan.prompts.digest,
            "rows": plan.prompts.rows,
            "left_out": len(plan.prompts.problems),
            "options": dict(plan.options),
        },
    }


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the inputs is another than when the answers were begun, in words."""

    def compared(part: Any) -> dict[str, Any]:
        flags = {**part["asking"], **part["settings"], **part["evalset"]["options"]}
        return {
            **{f"the model's {key}": value for key, value in part["model"].items()},
            **{f"--{key.replace('_', '-')}": value for key, value in flags.items()},
        }

    then = compared(was)
    found = [
        f"{label} was {then.get(label)!r}, now {here!r}"
        for label, here in compared(now).items()
        if then.get(label) != here
    ]
    one, two = was["evalset"], now["evalset"]
    if one["digest"] != two["digest"]:
        found.append(
            f"the eval set's prompts were sha256 {one['digest'][:12]} ({one['rows']} rows), "
            f"now {two['digest'][:12]} ({two['rows']} rows)"
        )
    return found


def _kept(plan: GenerationPlan, generator: Generator) -> _Kept:
    """Read the journal, if there is one; refuses one that was begun from something else."""
    path = journal_path(plan.output)
    kept = _Kept()
    if not path.exists() or journals.scan(path).records == 0:
        return kept
    for record in journals.records(path):
        kept.ledger.take(record)
        if record["t"] == "run":
            kept.begun = True
            if record.get("what") != "generation":
                raise InputError(f"{path}: the journal of something else; name another output")
            differences = _differences(record, _header(plan, generator))
            if differences:
                raise InputError(
                    f"{plan.output} was begun differently: {'; '.join(differences)}. Give what it was begun with to "
                    f"continue, or name another output (or delete {path.name} and {plan.output.name} to start again)"
                )
        elif record["t"] == "reply":
            name, error = record["key"], record["reply"].get("error")
            if error is None:
                kept.answered.add(name)
                kept.failed.pop(name, None)
            else:
                kept.failed[name] = error
                kept.given_up |= {name} if record["reply"].get("finish") == CRASHED else set()
    kept.ledger.end()
    return kept
