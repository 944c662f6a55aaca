"""What a model at a place can give, found out once and kept: label probabilities, structured output, or text alone.

Finding out takes one to six small paid calls (``find``), so the answer is stored with its date, one JSON file for each
(name, endpoint, revision, temperature) under its digest, in the home folder, or in the user's cache where there is no
home. It is no part of a judgement's identity: the identity names the mode itself. A finding that a server later belies
is withdrawn with the reason and found out anew at the next start; nothing that was once written there is removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from ..errors import BackendError
from ..money import Budget, BudgetSpent, took
from ..prices import Price, tokens_at_most
from ..types import Ask, Labels, Order, Reply, Usage
from ..writing import write_whole
from . import completions
from .calling import Called
from .completions import Completion, Form, Mode
from .faults import Failure, Fault

__all__ = ["NO_PROBE", "Capability", "Memory", "Probing", "find", "known_capabilities", "refused", "with_spent"]

FOLDER = "capabilities"
"""The folder of findings in a home folder or cache."""
MOST_CALLS = 6
"""Calls that finding out takes at most."""
NO_PROBE = Reply(attempts=0, usage=Usage(cost=0.0))
"""What finding out took where nothing was asked."""
_KEPT = 50
_LABELS = Labels("K", "R", "TIE")
_ASK = Ask(
    "", "", Order.CANDIDATE_FIRST, 0, "You reply with one word.",
    "This checks how you answer. Reply with exactly one of: K, R, TIE.", _LABELS, "", "", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Capability:
    """What was found: the ``mode`` that verdicts can come from, the name of the token ``limit``, parameters to leave
    out, and the day (UTC) on which it was ``found``.
    """

    mode: Mode
    limit: str = "max_tokens"
    without: tuple[str, ...] = ()
    found: str = ""

    def form(self, form: Form) -> Form:
        """The form with what was found put in."""
        return replace(form, mode=self.mode, limit=self.limit, without=frozenset(self.without))

    @classmethod
    def of(cls, form: Form, found: str) -> Capability:
        """What a form says about its model."""
        return cls(form.mode, form.limit, tuple(sorted(form.without)), found)


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


class Memory:
    """Findings about one model at one place. ``folders`` are looked in from the first to the last; a finding is written
    to the first whose parent exists, else to the last.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        subject: Mapping[str, str | float],
        *,
        today: Callable[[], str] = _today,
    ) -> None:
        self.folders, self.subject, self.today = tuple(folders), dict(subject), today
        digest = hashlib.sha256(orjson.dumps(self.subject, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self.name = f"{digest[:24]}.json"

    def recall(self) -> Capability | None:
        """The finding that holds, ``None`` where there is none, or where the last one was withdrawn."""
        for folder in self.folders:
            last = next(reversed(_history(folder / self.name)), None)
            if last is not None:
                return None if last.get("refuted") else _capability(last)
        return None

    def keep(self, found: Capability, spent: Reply) -> bool:
        """Store a finding and what it took; returns whether that succeeded (a cache that is read-only only costs the
        next start another look).
        """
        usage = {**asdict(spent.usage), "attempts": spent.attempts, "response_ids": list(spent.response_ids)}
        return self._append(self._place(), {**asdict(found), "took": usage})

    def amend(self, found: Capability) -> None:
        """Replace the finding that holds by one that was learned on the way."""
        if self.recall() is not None:
            self._append(self._holder(), asdict(found))

    def refute(self, why: str) -> bool:
        """Withdraw the finding that holds; returns whether there was one."""
        held = self.recall()
        if held is None:
            return False
        return self._append(self._holder(), {**asdict(held), "refuted": self.today(), "why": why[:300]})

    def _holder(self) -> Path:
        return next((folder for folder in self.folders if (folder / self.name).exists()), self._place())

    def _place(self) -> Path:
        return next((folder for folder in self.folders if folder.parent.is_dir()), self.folders[-1])

    def _append(self, folder: Path, entry: Mapping[str, Any]) -> bool:
        path = folder / self.name
        history = [*_history(path), dict(entry)][-_KEPT:]
        text = json.dumps({**self.subject, "history": history}, indent=1) + "\n"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        except OSError:
            return False
        return True


def _history(path: Path) -> list[dict[str, Any]]:
    """Everything that was written about one model; a file that cannot be read says nothing, so it is found out anew."""
    read = _read(path)
    history = read.get("history") if isinstance(read, dict) else None
    return [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def _read(path: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _capability(entry: Mapping[str, Any]) -> Capability | None:
    mode, limit, without = entry.get("mode"), entry.get("limit"), entry.get("without")
    if mode not in ("logprobs", "schema", "text") or limit not in ("max_tokens", "max_completion_tokens"):
        return None
    names = tuple(str(name) for name in without) if isinstance(without, list) else ()
    return Capability(mode, limit, names, str(entry.get("found", "")))


def known_capabilities(folders: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """Model, endpoint and what was last found of each, in words; for ``judge doctor``."""
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        read, last = _read(path), next(reversed(_history(path)), None)
        if not isinstance(read, dict) or last is None:
            continue
        told = f"{last.get('mode')}, found {last.get('found')}"
        if last.get("refuted"):
            told += f", withdrawn {last['refuted']}: {last.get('why')}"
        yield str(read.get("model")), str(read.get("endpoint")), told


@dataclass(frozen=True, slots=True)
class Probing:
    """What finding out needs: the model's name, one call, its price, how a completion is accounted, the endpoint for
    messages, and the budget that it must fit.
    """

    model: str
    endpoint: str
    call: Callable[[Mapping[str, Any], int], Awaitable[Called[Completion]]]
    usage: Callable[[Completion, int, int], Usage]
    price: Price | None
    budget: Budget | None = None

    def bound(self, form: Form) -> float | None:
        """The most that one call in this form costs in US dollars."""
        if self.price is None:
            return None
        return self.price.cost(tokens_at_most(_ASK.system, _ASK.user), form.tokens)


async def find(form: Form, probing: Probing, spent: Callable[[Reply], None]) -> Form:
    """Find out where verdicts can come from: label probabilities, else structured output, else text.

    Parameters that the model refuses are left out from then on. Each call's upper bound is reserved before it is sent,
    and ``spent`` is told of each call when it is over. Raises ``BudgetSpent`` where the budget does not allow a call,
    ``BackendError`` where the server cannot answer.
    """
    for _ in range(MOST_CALLS):
        bound, budget = probing.bound(form), probing.budget
        if budget is not None and not budget.reserve(bound):
            raise BudgetSpent(
                f"the budget of ${budget.limit:g} does not allow the call that finds out how {probing.model} can "
                f"answer (at most ${bound or 0.0:.6f}, and ${budget.spent:.6f} are spent on it); raise it, or name the "
                "mode, for example &mode=text"
            )
        called = await probing.call(completions.ask_body(probing.model, form, _ASK), 64)
        reply = Reply(attempts=called.attempts, possibly_paid=called.possibly_paid, usage=Usage(cost=0.0))
        said = called.value
        if said is not None:
            usage = probing.usage(said, tokens_at_most(_ASK.system, _ASK.user), form.tokens)
            reply = replace(reply, usage=usage, response_ids=said.ids)
        if budget is not None:
            budget.settle(bound, took(reply, bound))
        spent(reply)
        if said is None:
            assert called.failure is not None
            name = refused(called.failure)
            if name is None or completions.without(form, name) == form:
                raise BackendError(f"{probing.endpoint}: {called.failure}; name the mode, for example &mode=text")
            form = completions.without(form, name)
        elif form.mode == "logprobs" and not said.tokens:
            form = replace(form, mode="schema")
        elif form.mode == "schema" and not _is_verdict(said.text):
            return replace(form, mode="text")
        else:
            return form
    raise BackendError(f"{probing.endpoint}: refuses one parameter after another; name the mode: &mode=text")


def refused(failure: Failure | None) -> str | None:
    """The parameter that a refused request was refused for, where it says so."""
    if failure is None or failure.fault is not Fault.BAD_REQUEST:
        return None
    return completions.refused_parameter(failure.detail)


def with_spent(reply: Reply, other: Reply) -> Reply:
    """The reply with what another call took added to its own, that call's response ids first."""
    one, two = reply.usage, other.usage
    cost = None if one.cost is None or two.cost is None else one.cost + two.cost
    return replace(
        reply,
        usage=Usage(one.prompt_tokens + two.prompt_tokens, one.completion_tokens + two.completion_tokens, cost),
        attempts=reply.attempts + other.attempts,
        possibly_paid=reply.possibly_paid + other.possibly_paid,
        response_ids=(*other.response_ids, *reply.response_ids),
    )


def _is_verdict(text: str) -> bool:
    try:
        value = completions.load(text.encode())
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("verdict") in (_LABELS.first, _LABELS.second, _LABELS.tie)
