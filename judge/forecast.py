"""What a run would take, before anything is called: calls, tokens, US dollars and time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from . import protocol
from .canaries import longest_duel
from .engine import RECENT, Job
from .money import FREE, Priced, Quote
from .types import Ask, Pair

__all__ = ["Forecast", "forecast", "with_canaries"]

_WINDOW = 1_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What judging takes if nothing fails: no retry and no repair call is in it.

    ``verdicts`` are wanted, two for each pair and repeat; ``identical`` pairs need no call; ``cached`` verdicts are
    stored already and ``shared`` ones belong to rows with the same texts; ``calls`` are left. Tokens and ``high`` (US
    dollars) are upper bounds; ``low`` is the least that the calls cost. Both are ``None`` where a price is unknown,
    ``low`` also where the judge states no least cost. ``seconds`` is ``None`` where no rate was measured.
    """

    pairs: int
    verdicts: int
    identical: int
    cached: int
    shared: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    low: float | None
    high: float | None
    seconds: float | None


def forecast(pairs: Iterable[Pair], job: Job, *, rate: float | None = None) -> Forecast:
    """Plan every pair as a run would and add up what is not known; ``rate`` is in calls per second."""
    quote = job.backend.quote if isinstance(job.backend, Priced) else _free
    counts = {"pairs": 0, "verdicts": 0, "identical": 0, "cached": 0, "shared": 0, "calls": 0}
    tokens = [0, 0]
    low: float | None = 0.0
    high: float | None = 0.0
    for ask in _asked(pairs, job, counts):
        most = quote(ask)
        counts["calls"] += 1
        tokens[0] += most.prompt_tokens
        tokens[1] += most.completion_tokens
        high = None if high is None or most.cost is None else high + most.cost
        low = None if low is None or most.least is None else low + most.least
    seconds = counts["calls"] / rate if rate else (0.0 if not counts["calls"] else None)
    return Forecast(**counts, prompt_tokens=tokens[0], completion_tokens=tokens[1], low=low, high=high, seconds=seconds)


def with_canaries(
    found: Forecast, pairs: Iterable[Pair], job: Job, count: int, *, rate: float | None = None
) -> Forecast:
    """An upper bound for a run over some of ``pairs``, whose own calls are ``found``: with ``count`` canaries that cost
    calls, each as dear as the dearest that can be made of any of them. ``low`` is 0: it may be that nothing is judged.
    """
    duels = filter(None, map(longest_duel, pairs)) if count else iter(())
    anew = replace(job, known=None, repeats=1)
    prompt, completion, cost, unpriced, made = 0, 0, 0.0, False, 0
    for each in (forecast([duel], anew) for duel in duels):
        made = count
        prompt, completion = max(prompt, each.prompt_tokens), max(completion, each.completion_tokens)
        unpriced = unpriced or each.high is None
        cost = max(cost, each.high or 0.0)
    calls = found.calls + 2 * made
    return replace(
        found,
        pairs=found.pairs + made,
        verdicts=found.verdicts + 2 * made,
        calls=calls,
        prompt_tokens=found.prompt_tokens + made * prompt,
        completion_tokens=found.completion_tokens + made * completion,
        low=0.0,
        high=None if unpriced or found.high is None else found.high + made * cost,
        seconds=calls / rate if rate else (0.0 if not calls else None),
    )


def _asked(pairs: Iterable[Pair], job: Job, counts: dict[str, int]) -> Iterator[Ask]:
    """The asks that a run would send; what needs no call is counted by its reason."""
    source = iter(pairs)
    recent: OrderedDict[str, None] = OrderedDict()
    while window := list(islice(source, _WINDOW)):
        asks: list[Ask] = []
        for pair in window:
            counts["pairs"] += 1
            counts["verdicts"] += 2 * job.repeats
            for repeat in range(job.repeats):
                planned = protocol.plan(pair, job.rubric, job.backend.id, seed=job.seed, repeat=repeat)
                counts["identical"] += not planned and repeat == 0
                asks += planned
        stored = job.known([ask.key for ask in asks]) if job.known is not None else {}
        for ask in asks:
            if ask.key in stored:
                counts["cached"] += 1
            elif ask.key in recent:
                counts["shared"] += 1
            else:
                recent[ask.key] = None
                if len(recent) > RECENT:
                    recent.popitem(last=False)
                yield ask


def _free(_ask: Ask) -> Quote:
    return FREE
