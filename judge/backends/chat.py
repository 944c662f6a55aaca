"""A judge that is a chat model behind some client: asks to bodies, completions to replies, with one repair at most.

Which client carries a body is the transport's business (``remote`` for HTTP, ``providers`` for litellm); when a call is
sent and how often is the caller's (``calling``); what is asked and how an answer reads is pure (``completions``).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import protocol
from ..errors import BackendError, InputError
from ..money import Budget, Quote
from ..prices import Price, find_price, tokens_at_least, tokens_at_most
from ..types import Ask, InvalidReason, JudgeId, Message, Reply, Usage
from . import completions
from .calling import Called, Caller, Limits
from .capability import FOLDER, NO_PROBE, Capability, Memory, Probing, find, refused, with_spent
from .completions import Completion, Form, Mode
from .faults import Failure, Fault, spellings

if TYPE_CHECKING:
    from .batches import BatchApi

__all__ = ["Access", "ChatBackend", "Generation", "Options", "Transport"]

_FAILURES = 10
_REPAIRABLE = frozenset(
    {InvalidReason.UNPARSED, InvalidReason.CONFLICT, InvalidReason.LENGTH, InvalidReason.EMPTY}
)  # fmt: skip
_ABOUT_THE_ASK = frozenset({Fault.TOO_LONG, Fault.FILTERED})
_BYTES_A_TOKEN = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What a judge string may say after its question mark, for every remote judge.

    * ``base_url``: where the server is; ``key_env``: the environment variable that holds its key. ``revision``: which
      weights answer there, part of the judge's id. Without it a server other than the provider's own is told apart by
      a digest of its URL: the same model name elsewhere may be another model.
    * ``concurrency``: calls in flight at most; fewer are sent while the server is overloaded.
    * ``rpm``, ``tpm``: requests and tokens a minute, shared by all workers; 0 for no limit.
    * ``timeout``: seconds that one attempt may take.
    * ``mode``: ``logprobs``, ``schema``, ``text``, or ``auto`` to find out with a small call (``ready``), once: the
      finding is kept (``capability``). ``probe=1`` finds out anew.
    * ``temperature``: 0 by default. Repeats (``--repeat k``) use the repeat's index as the seed. At temperature 0 they
      only measure the server's own noise; give ``temperature=0.7`` or so to sample the judge's opinion.
    * ``max_tokens``: the limit of one call, 0 for one that fits the mode. ``repair``: 0 for no repair call.
    * ``price_in``, ``price_out``: US dollars per million tokens, instead of the price table. A server of your own has
      no price until you say ``price_in=0&price_out=0``. ``price_batch``: what its batch interface charges of them (0.5
      for half).
    """

    base_url: str = ""
    key_env: str = ""
    revision: str = ""
    concurrency: int = 8
    rpm: float = 0
    tpm: float = 0
    timeout: float = 120.0
    mode: str = "auto"
    probe: bool = False
    temperature: float = 0.0
    max_tokens: int = 0
    repair: bool = True
    price_in: float | None = None
    price_out: float | None = None
    price_batch: float = 1.0

    def form(self) -> Form:
        """How the model is asked; raises ``InputError`` for an option out of its range."""
        modes: Mapping[str, Mode] = {"auto": "logprobs", "logprobs": "logprobs", "schema": "schema", "text": "text"}
        if self.mode not in modes:
            raise InputError(f"mode={self.mode!r}; use {', '.join(modes)}")
        for name, low, high in (
            ("concurrency", 1, 10_000),
            ("rpm", 0, 1e9),
            ("tpm", 0, 1e12),
            ("timeout", 0.001, 86_400),
            ("temperature", 0, 5),
            ("max_tokens", 0, 1_000_000),
            ("price_in", 0, 1e6),
            ("price_out", 0, 1e6),
            ("price_batch", 0, 1),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"{name}={value}; it lies between {low:g} and {high:g}")
        if (self.price_in is None) != (self.price_out is None):
            raise InputError("price_in and price_out go together: US dollars per million tokens in and out")
        return Form(modes[self.mode], self.temperature, self.max_tokens, self.repair)

    def price(self, model: str, prices: Path | None, *, url: str = "") -> Price | None:
        """The price by these options, else by the tables for ``PROVIDER/MODEL``, else ``None``; ``url`` is that of a
        server other than the provider's own.
        """
        if self.price_in is not None and self.price_out is not None:
            return Price(self.price_in, self.price_out, self.price_batch)
        return find_price(model, override=prices, url=url)

    def at(self, url: str, *, own: str) -> str:
        """The revision in the judge's id: as given, empty at the provider's ``own`` URL, else a digest of ``url``."""
        if self.revision or url.rstrip("/").lower() == own:
            return self.revision
        return hashlib.sha256(url.rstrip("/").lower().encode()).hexdigest()[:8]

    def limits(self) -> Limits:
        """The limits of the caller."""
        return Limits(self.concurrency, self.rpm, self.tpm)


@dataclass(frozen=True, slots=True)
class Access:
    """What the environment gives a remote judge: the key to send, every secret to keep out of what is written, the
    user's price file, and the folders where it is kept what servers can do (none: nothing is kept).
    """

    key: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    prices: Path | None = None
    places: tuple[Path, ...] = ()

    def hidden(self) -> tuple[str, ...]:
        """What no text of a server may show (``faults.spellings`` of the key and the secrets)."""
        return spellings((self.key, *self.secrets))

    def memory(self, model: str, endpoint: str, options: Options) -> Memory | None:
        """Where findings about a model at a place are kept; its ``options`` hold its revision by now."""
        if not self.places:
            return None
        subject = {"model": model, "endpoint": endpoint, "revision": options.revision}
        folders = [place / FOLDER for place in self.places]
        return Memory(folders, {**subject, "temperature": options.temperature})


class Transport(Protocol):
    """Carries one body to a model and brings the completion back, or says why not; one attempt, no retries."""

    async def send(self, body: Mapping[str, Any]) -> Completion | Failure:
        """Send once."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer: its text and tool calls, what it took, and how it ended (``finish`` is ``None`` where
    the server did not say); ``error`` where the call failed for good.
    """

    text: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    usage: Usage = field(default_factory=Usage)
    latency_ms: float = 0.0
    finish: str | None = "stop"
    model: str | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()
    attempts: int = 1
    possibly_paid: int = 0


class ChatBackend:
    """One model behind one transport; satisfies ``Backend`` and ``money.Priced``.

    Until ``prepare`` is called, ``mode=auto`` means ``logprobs``: asked for and not given is the flag ``no_logprobs``,
    and the text is read strictly instead. The id names the mode, so a judge in another mode is another judge.
    """

    def __init__(
        self,
        name: str,
        model: str,
        transport: Transport,
        caller: Caller,
        *,
        options: Options,
        price: Price | None,
        memory: Memory | None = None,
    ) -> None:
        self.model, self.caller, self.price = model, caller, price
        self.batch, self.concurrency, self.notice = 1, options.concurrency, ""
        self._name, self._revision, self._transport = name, options.revision, transport
        self._use(options.form())
        self._open_mode, self._anew, self.memory = options.mode == "auto", options.probe, memory
        self.capability: Capability | None = None
        """What is known of the server, found out by this process or an earlier one; ``None`` where nothing is."""
        self._failures = 0
        self._belied = ""
        self._first: dict[str, str] = {}
        self._probe = NO_PROBE
        self.batches: Callable[[], BatchApi] | None = None
        """Opens the provider's batch interface, where it has one that is spoken here."""

    def _use(self, form: Form) -> None:
        """Ask in this form from now on; the id, for example ``openai/m[t0-n8-logprobs]``, follows it."""
        self._form, self.id = form, JudgeId(self._name, self._revision, form.decoding)

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Send the asks; one that failed for good gives a reply with ``error``, ten in a row a ``BackendError``."""
        if len(asks) == 1:
            return [await self._one(asks[0])]
        return list(await asyncio.gather(*map(self._one, asks)))

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    def quote(self, ask: Ask) -> Quote:
        """The most that an ask can take, its repair call included, and a low estimate of what it takes."""
        most_in, most_out = self._at_most(ask)
        if self._form.repair:
            more_in, more_out = self._at_most(ask, repair=True)
            most_in, most_out = most_in + more_in, most_out + more_out
        if self.price is None:
            return Quote(most_in, most_out, None)
        least = self.price.cost(tokens_at_least(ask.system, ask.user), 1)
        return Quote(most_in, most_out, self.price.cost(most_in, most_out), least)

    def _at_most(self, ask: Ask, *, repair: bool = False) -> tuple[int, int]:
        """The most tokens in and out of an ask's first call, or of its repair, which shows the first answer."""
        most_in, most_out = tokens_at_most(ask.system, ask.user), self._form.tokens
        return (most_in + 2 * most_out + 128, self._form.repair_tokens) if repair else (most_in, most_out)

    def body(self, ask: Ask, *, repair: tuple[str, InvalidReason] | None = None) -> dict[str, Any]:
        """The request body of an ask; with ``repair``, of the one that repairs a text unreadable for that reason."""
        body = completions.ask_body(self.model, self._form, ask)
        if repair is None:
            return body
        return completions.repair_of(body, self._form, ask, text=repair[0], reason=repair[1])

    def read(self, ask: Ask, said: Completion) -> Reply:
        """The reply to an ask whose completion came some other way than by ``ask``."""
        return self._with_probe(self._reply(ask, Called(said, None, 1, 0, 0.0)))

    def repairable(self, ask: Ask, reply: Reply) -> bool:
        """Whether one more call may read a verdict out of this model."""
        return self._form.repair and reply.probs is None and protocol.read(ask, reply).invalid in _REPAIRABLE

    async def repair(self, ask: Ask, reply: Reply) -> Reply:
        """The reply to the one repair call, with what the first one took."""
        reason = protocol.read(ask, reply).invalid
        assert reason is not None
        booked = (len(ask.system) + len(ask.user)) // _BYTES_A_TOKEN + self._form.tokens
        return await self._repaired(ask, reply, reason, booked)

    @staticmethod
    def repaired(again: Reply | None, first: Reply) -> Reply:
        """A repair's reply with what the first one took; the first, where the repair failed (``None``)."""
        if again is None:
            return replace(first, flags=(*first.flags, "repair_failed"))
        return with_spent(replace(again, flags=(*again.flags, "repaired")), first)

    def learn(self, failure: Failure) -> bool:
        """Leave out from now on what a refused request was refused for; whether it is worth asking again."""
        name = refused(failure)
        if name not in ("seed", "max_tokens"):
            return False
        self._leave_out(name)
        return True

    def _leave_out(self, name: str) -> None:
        self._use(completions.without(self._form, name))
        if self.memory is not None and self.capability is not None:
            self.memory.amend(Capability.of(self._form, self.capability.found))

    @property
    def mode(self) -> completions.Mode:
        """Where verdicts come from."""
        return self._form.mode

    @property
    def assumed(self) -> bool:
        """Whether the mode is only assumed: it was left open, and nobody has asked the server yet."""
        return self._open_mode

    def recall(self) -> Capability | None:
        """Take over what an earlier process found out about this server, without a call; ``None`` where there is
        nothing, or where it is to be found out anew (``probe=1``).
        """
        stored = self.memory.recall() if self.memory is not None and self._open_mode and not self._anew else None
        if stored is not None:
            self.adopt(stored)
        return stored

    def adopt(self, found: Capability) -> None:
        """Ask in the form that was found out elsewhere."""
        self._use(found.form(self._form))
        self.capability, self._open_mode = found, False

    def probe_bound(self) -> float | None:
        """The most that one call of finding out may cost in US dollars, ``None`` where the price is unknown."""
        return self._probing(None).bound(replace(self._form, mode="schema"))

    async def prepare(self, recorded: JudgeId | None = None, *, budget: Budget | None = None) -> None:
        """Know where this model's verdicts come from: from ``recorded``, the id of the run that is resumed, else from
        what was found out and kept, else by asking the server within ``budget`` (``capability.find``).

        What asking took is handed out once, by ``probed``; where nobody takes it, it is booked with the next reply.
        """
        if not self._open_mode:
            return
        self.recall()
        if recorded is not None and recorded.decoding != self._form.decoding:
            self._use(self._recorded(recorded) or self._form)
        if recorded is not None:
            self._open_mode = False
        if not self._open_mode:
            return
        form = await find(self._form, self._probing(budget), self._spent_probing)
        today = self.memory.today() if self.memory is not None else ""
        self.adopt(Capability.of(form, today))
        self.keep(self._probe)

    def keep(self, spent: Reply) -> None:
        """Store what is known of the server, and what finding it out took."""
        if self.memory is not None and self.capability is not None:
            self.memory.keep(self.capability, spent)

    async def probed(self, *, keep: bool = False) -> Reply:
        """What finding out took: a reply without an answer, with no attempts where nothing was asked. Only once, unless
        it is to be kept.
        """
        probe, self._probe = self._probe, self._probe if keep else NO_PROBE
        return probe

    def belie(self, why: str) -> None:
        """The server does not give what it gave: the finding is withdrawn, so that the next start asks anew."""
        if not self._belied and self.memory is not None and self.memory.refute(why):
            found = self.capability.found if self.capability is not None else "an earlier day"
            self._belied = f"; what was found out about it on {found} is withdrawn, a new run finds out anew"

    def _recorded(self, recorded: JudgeId) -> Form | None:
        """The form that an id names."""
        form = replace(self._form, limit="max_tokens", without=frozenset())
        modes: tuple[completions.Mode, ...] = ("logprobs", "schema", "text")
        for mode in modes:
            for without in (frozenset[str](), frozenset({"temperature"})):
                tried = replace(form, mode=mode, without=without)
                if tried.decoding == recorded.decoding:
                    return tried
        return None

    def _probing(self, budget: Budget | None) -> Probing:
        async def call(body: Mapping[str, Any], tokens: int) -> Called[Completion]:
            return await self.caller.call(lambda: self._transport.send(body), tokens=tokens)

        return Probing(self.model, self.caller.endpoint, call, self._usage, self.price, budget)

    def _spent_probing(self, reply: Reply) -> None:
        self._probe = with_spent(self._probe, reply)

    async def generate(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Generation:
        """Generate one answer to a conversation, through the same limits, retries and accounts.

        A message may also be a turn as it goes over the wire (with tool calls, say); ``tools`` are declarations in
        OpenAI's form. ``latency_ms`` is that of the attempt that answered. Raises ``BackendError`` as ``ask`` does.
        """
        turns = [
            message if isinstance(message, Mapping) else {"role": message.role, "content": message.content}
            for message in messages
        ]
        most_in = tokens_at_most(*(str(part) for part in (*turns, *tools)))

        def body(form: Form) -> dict[str, Any]:
            heated = replace(form, temperature=temperature)
            made = completions.body_of(self.model, heated, turns, seed=seed, tokens=max_tokens)
            return {**made, "tools": list(tools)} if tools else made

        called = await self._send(body, most_in // _BYTES_A_TOKEN + max_tokens)
        spent: dict[str, Any] = {"attempts": called.attempts, "possibly_paid": called.possibly_paid}
        said = called.value
        if said is None:
            zero = Usage(cost=None if self.price is None else 0.0)
            return Generation(error=str(called.failure), finish="error", usage=zero, **spent)
        return Generation(
            said.text,
            said.tool_calls,
            self._usage(said, most_in, max_tokens),
            round(called.latency_ms, 3),
            said.finish,
            said.model,
            flags=() if said.usage else ("no_usage",),
            **spent,
        )

    async def _one(self, ask: Ask) -> Reply:
        booked = (len(ask.system) + len(ask.user)) // _BYTES_A_TOKEN + self._form.tokens
        called = await self._send(lambda form: completions.ask_body(self.model, form, ask), booked)
        if called.value is None:
            return self._failed(called)
        reply = self._reply(ask, called)
        if reply.probs is None and self._form.repair:
            reason = protocol.read(ask, reply).invalid
            if reason in _REPAIRABLE:
                reply = await self._repaired(ask, reply, reason, booked)
        return self._with_probe(reply)

    def _with_probe(self, reply: Reply) -> Reply:
        """The reply with what ``prepare`` took, once."""
        if self._probe.attempts:
            probe, self._probe = self._probe, NO_PROBE
            reply = with_spent(reply, probe)
        return reply

    async def _repaired(self, ask: Ask, reply: Reply, reason: InvalidReason, booked: int) -> Reply:
        """The reply to the one repair call, with what the first one took; the first, where the repair failed."""
        try:
            called = await self._send(
                lambda form: completions.repair_of(
                    completions.ask_body(self.model, form, ask), form, ask, text=reply.text, reason=reason
                ),
                booked + self._form.repair_tokens,
            )
        except BackendError:
            # What was paid for is kept; whatever stops this backend stops the next call too. Of a call that is lost one
            # attempt may have been charged that nobody has told of.
            lost = Reply(attempts=1, possibly_paid=1, usage=Usage(cost=0.0))
            return with_spent(replace(reply, flags=(*reply.flags, "repair_failed")), lost)
        if called.value is None:
            spent = Reply(attempts=called.attempts, possibly_paid=called.possibly_paid, usage=Usage(cost=0.0))
            return with_spent(replace(reply, flags=(*reply.flags, "repair_failed")), spent)
        again = self._reply(ask, called, repair=True)
        return with_spent(replace(again, flags=(*again.flags, "repaired")), reply)

    async def _send(self, body: Any, tokens: int) -> Called[Completion]:
        """Call with the body that ``body`` makes for the form; a parameter that does not change the judgement and that
        the model refuses is left out for good.
        """
        attempts = paid = 0
        while True:
            form = self._form
            made = body(form)
            called = await self.caller.call(lambda made=made: self._transport.send(made), tokens=tokens)  # type: ignore[misc]
            attempts, paid = attempts + called.attempts, paid + called.possibly_paid
            name = refused(called.failure)
            if name not in ("seed", "max_tokens") or completions.without(form, name) == form:
                break
            self._leave_out(name)
        if called.value is not None and called.value.usage is not None:
            self.caller.spent(booked=tokens, used=sum(called.value.usage))
        return called if attempts == called.attempts else replace(called, attempts=attempts, possibly_paid=paid)

    def _failed(self, called: Called[Completion]) -> Reply:
        failure = called.failure
        assert failure is not None
        spent: dict[str, Any] = {"attempts": called.attempts, "possibly_paid": called.possibly_paid}
        zero = Usage(cost=None if self.price is None else 0.0)
        if failure.fault is Fault.FILTERED:
            return Reply(finish="content_filter", usage=zero, **spent)
        name = refused(failure)
        if name not in (None, "seed", "max_tokens"):
            self.belie(f"asked in mode {self._form.mode}, it refuses {name}")
        if failure.fault not in _ABOUT_THE_ASK:
            self._failures += 1
            # Raising would lose how many attempts were possibly paid; then the breaker ends it instead.
            if self._failures >= _FAILURES and called.possibly_paid <= 1:
                raise BackendError(
                    f"{self.caller.endpoint}: {self._failures} calls failed in a row, the last with {failure}"
                    + self._belied
                )
        return Reply(error=str(failure), finish="error", usage=zero, **spent)

    def _reply(self, ask: Ask, called: Called[Completion], *, repair: bool = False) -> Reply:
        said = called.value
        assert said is not None
        self._failures = 0
        read = completions.label_probs_of(said.tokens, ask.labels) if said.tokens and not said.refusal else None
        flags = []
        if self._form.mode == "logprobs" and not said.tokens:
            flags.append("no_logprobs")
            if said.finish in (None, "stop") and said.text and not said.refusal:
                self.belie("asked for label probabilities, it gave none")
        if said.usage is None:
            flags.append("no_usage")
        for kind, value in (("model", said.model), ("fingerprint", said.fingerprint)):
            if value and self._first.setdefault(kind, value) != value:
                flags.append(f"{kind}_changed")
        return Reply(
            text=said.text,
            probs=read[0] if read and self._form.mode == "logprobs" else None,
            score={"label_mass": read[1]} if read else {},
            finish="refusal" if said.refusal else said.finish or "stop",
            model=said.model,
            fingerprint=said.fingerprint,
            latency_ms=round(called.latency_ms, 3),
            usage=self._usage(said, *((0, 0) if said.usage else self._at_most(ask, repair=repair))),
            flags=tuple(flags),
            attempts=called.attempts,
            possibly_paid=called.possibly_paid,
            response_ids=said.ids,
        )

    def _usage(self, said: Completion, most_in: int, most_out: int) -> Usage:
        """Tokens and cost; where the server did not say, the upper bound of both (flag ``no_usage``), never 0."""
        tokens = said.usage or (most_in, most_out)
        return Usage(*tokens, cost=None if self.price is None else self.price.cost(*tokens))
