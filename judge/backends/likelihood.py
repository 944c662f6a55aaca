"""A judge that reads no text from its model, only probabilities: the same for the embedded model and for any Hugging
Face model.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from ..types import Ask, JudgeId, Reply, Usage
from .measures import Request, TextModel, Unit, finish, prepare, units_of
from .scoring import METHODS, answer_score, label_probabilities, probabilities

__all__ = ["LikelihoodBackend"]

_MEMORY = 50_000


class LikelihoodBackend:
    """Answers asks by measuring texts with a model (``measures``) and turning the measures into probabilities
    (``scoring``).

    Work is shared: what was measured about an answer is remembered (the 50,000 most recent measures, a few floats each)
    and used for both orders of a pair and for other pairs with the same answer. ``measured`` counts the measures that
    the model was run for.
    """

    def __init__(self, model: TextModel, identity: JudgeId, *, method: str, notice: str) -> None:
        self.model = model
        self.method = method
        self.id = identity
        self.batch, self.concurrency = max(16, 2 * model.batch), 1
        self.notice = notice
        self.measured = 0
        self._memory: OrderedDict[bytes, Mapping[str, float]] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(model.threads, thread_name_prefix="judge-model")

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer each ask; the model works in threads, so the event loop stays free, and cancelling drops the work not
        yet begun.
        """
        begun = time.perf_counter()
        needed = {unit.key: unit for ask in asks for unit in units_of(ask, METHODS[self.method].needs)}
        known = {key: values for key in needed if (values := self._recall(key)) is not None}
        missing = [unit for key, unit in needed.items() if key not in known]
        loop = asyncio.get_running_loop()
        work = [loop.run_in_executor(self._pool, self._measure, group) for group in self._groups(missing)]
        for results in await asyncio.gather(*work):
            known |= results
        share = (time.perf_counter() - begun) * 1000 / max(len(asks), 1)
        return [self._reply(ask, known, share) for ask in asks]

    async def close(self) -> None:
        """Let running work end, drop the rest and the memory."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._memory.clear()

    def _groups(self, units: list[Unit]) -> Iterator[list[Unit]]:
        """Texts of like length together, as many as the model computes at once; the longest last, so that little is
        padded.
        """
        units = sorted(units, key=lambda unit: (unit.kind, len(unit.first) + len(unit.second), unit.key))
        for begin in range(0, len(units), self.model.batch):
            yield units[begin : begin + self.model.batch]

    def _measure(self, units: list[Unit]) -> dict[bytes, Mapping[str, float]]:
        requests: list[Request] = [prepare(self.model, unit) for unit in units]
        answers = self.model.logprobs(requests)
        results = {
            unit.key: finish(unit, request, logprobs)
            for unit, request, logprobs in zip(units, requests, answers, strict=True)
        }
        with self._lock:
            self.measured += len(results)
            self._memory.update(results)
            while len(self._memory) > _MEMORY:
                self._memory.popitem(last=False)
        return dict(results)

    def _recall(self, key: bytes) -> Mapping[str, float] | None:
        with self._lock:
            values = self._memory.get(key)
            if values is not None:
                self._memory.move_to_end(key)
            return values

    def _reply(self, ask: Ask, known: Mapping[bytes, Mapping[str, float]], latency_ms: float) -> Reply:
        method = METHODS[self.method]
        used = [known[unit.key] for unit in units_of(ask, method.needs)]
        flags = ("truncated",) if any(values["cut"] for values in used) else ()
        if self.method == "labels":
            values = used[0]
            probs = label_probabilities((values["first"], values["tie"], values["second"]))
            score: dict[str, float] = {"mass": values["mass"]}
        else:
            scores = [self._score(ask, answer, known) for answer in (ask.first, ask.second)]
            probs = probabilities(*scores, scale=method.scale)
            # An answer of white space has no score: infinity is not a number that JSON or a database can hold.
            score = {place: s for place, s in zip(("first", "second"), scores, strict=True) if s > float("-inf")}
        return Reply(
            probs=probs,
            score=score,
            model=self.id.name,
            fingerprint=self.id.revision,
            latency_ms=latency_ms,
            usage=Usage(cost=0.0),
            flags=flags,
        )

    def _score(self, ask: Ask, answer: str, known: Mapping[bytes, Mapping[str, float]]) -> float:
        if not answer.strip():
            return answer_score(self.method, {})
        values: dict[str, float] = {}
        for kind in METHODS[self.method].needs:
            values |= known[Unit(kind, "" if kind == "free" else ask.question, answer).key]
        return answer_score(self.method, values)
