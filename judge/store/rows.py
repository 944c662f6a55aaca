"""What a journal says, settled anew, and what that is as rows of the database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import journal, protocol, signs
from ..ledger import Ledger
from ..types import Ask, Comparison, JudgeId, Pair, Reply

if TYPE_CHECKING:
    from rubrics import Rubric

__all__ = [
    "TABLES",
    "TYPES",
    "Settled",
    "comparison_row",
    "identity",
    "row_digest",
    "rows_of",
    "run_row",
    "settled",
    "settled_records",
    "stored_reply",
]

TABLES = ("comparison", "pair", "reply")
"""The tables that hold a run's rows beside its own in ``run``."""


class Settled:
    """One pair with its raw replies and the comparison they settle to.

    ``comparison`` may be given as what makes it of the replies: it is then settled when it is first asked for. A reply
    may be given as the JSON that it is stored as, and is then read when it is first asked for. ``reused`` says of each
    reply whether it was taken from an earlier identical judgement instead of asked for.
    """

    __slots__ = ("_comparison", "_replies", "asks", "pair", "reused")

    def __init__(
        self,
        pair: Pair,
        asks: tuple[Ask, ...],
        replies: tuple[Reply | str, ...],
        comparison: Comparison | Callable[[tuple[Reply, ...]], Comparison],
        reused: tuple[bool, ...],
    ) -> None:
        self.pair, self.asks, self.reused = pair, asks, reused
        self._replies, self._comparison = replies, comparison

    @property
    def replies(self) -> tuple[Reply, ...]:
        """The replies, one an ask."""
        read = tuple(reply if isinstance(reply, Reply) else stored_reply(reply) for reply in self._replies)
        self._replies = read
        return read

    @property
    def comparison(self) -> Comparison:
        """Both orders settled."""
        if not isinstance(self._comparison, Comparison):
            self._comparison = self._comparison(self.replies)
        return self._comparison

    @property
    def invalid(self) -> bool:
        """Whether the comparison is invalid, without settling it."""
        for ask, reply in zip(self.asks, self._replies, strict=True):
            if protocol.reading(ask.labels, *_said(reply), flipped=False)[4] is not None:
                return True
        return False

    @property
    def cached(self) -> int:
        """How many replies were not asked for again."""
        return sum(self.reused)

    @property
    def paid(self) -> tuple[float | None, int]:
        """US dollars (``None`` once a price is unknown) and tokens of the replies that were asked for."""
        if all(self.reused):
            return 0.0, 0
        asked = [reply.usage for reply, reused in zip(self.replies, self.reused, strict=True) if not reused]
        costs = [usage.cost for usage in asked if usage.cost is not None]
        tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in asked)
        return (sum(costs) if len(costs) == len(asked) else None), tokens


def stored_reply(body: str) -> Reply:
    """A reply of the JSON that it is stored as."""
    return journal.decode_reply(orjson.loads(body))


def _said(reply: Reply | str) -> tuple[str, Sequence[float] | None, str, str | None]:
    """Text, label probabilities, finish and error of a reply: all that a verdict is read from."""
    if isinstance(reply, Reply):
        return reply.text, reply.probs, reply.finish, reply.error
    raw = orjson.loads(reply)
    return raw.get("text", ""), raw.get("probs"), raw.get("finish", "stop"), raw.get("error")


_MOST_LOST = 1_000
"""Keys that are named among those possibly paid for; all are counted."""


def settled(path: Path, rubric: Rubric | None = None, *, ledger: Ledger | None = None) -> Iterator[Settled]:
    """Settle every fully answered pair of a journal anew, without a model; ``rubric`` replaces the recorded tie rule
    and ``ledger`` is told of every record.

    Pairs come in the order in which their last reply was written; memory holds only pairs that are still incomplete.
    A reply that carries an error keeps its pair open until the journal ends, because a resume may have asked again.
    The asks have no rendered prompt.
    """
    return (entry for entry, _answers in settled_records(path, rubric, ledger))


def settled_records(path: Path, rubric: Rubric | None, ledger: Ledger | None) -> Iterator[tuple[Settled, _Answers]]:
    """``settled``, with the records that each comparison was made of."""
    from rubrics import parse

    stream = journal.records(path)
    header = next(stream)
    frozen = parse(header["rubric_text"], path=f"{path} (rubric)")
    judge = JudgeId(**header["judge"])
    waiting: dict[str, _Answers] = {}
    for record in stream:
        if ledger is not None:
            ledger.take(record)
        if record["t"] == "pair":
            pair = journal.decode_pair(record["pair"])
            repeats = range(header["repeats"])
            seed = header["seed"]
            plans = [protocol.plan(pair, frozen, judge, seed=seed, repeat=n, rendered=False) for n in repeats]
            name, answers = pair.id, _Answers(pair, plans, record["pair"])
            waiting[name] = answers
        elif record["t"] == "reply" and record["pair_id"] in waiting:
            name = record["pair_id"]
            answers = waiting[name]
            answers.replies[record["key"]] = (journal.decode_reply(record["reply"]), record.get("reused", False))
            answers.records[record["key"]] = record["reply"]
        else:
            continue
        if answers.complete and not answers.failed:
            del waiting[name]
            yield from answers.settle(rubric or frozen, judge)
    if ledger is not None:
        ledger.end()
    for answers in waiting.values():
        if answers.complete:
            yield from answers.settle(rubric or frozen, judge)


class _Answers:
    """A pair of a journal while its replies are read."""

    __slots__ = ("keys", "pair", "plans", "record", "records", "replies")

    def __init__(self, pair: Pair, plans: list[tuple[Ask, ...]], record: Mapping[str, Any]) -> None:
        self.pair, self.plans, self.record = pair, plans, record
        self.records: dict[str, Mapping[str, Any]] = {}
        self.keys = {ask.key for asks in plans for ask in asks}
        self.replies: dict[str, tuple[Reply, bool]] = {}

    @property
    def complete(self) -> bool:
        return self.keys <= self.replies.keys()

    @property
    def failed(self) -> bool:
        return any(reply.error is not None for reply, _ in self.replies.values())

    def settle(self, rubric: Rubric, judge: JudgeId) -> Iterator[tuple[Settled, _Answers]]:
        for repeat, asks in enumerate(self.plans):
            replies = tuple(self.replies[ask.key][0] for ask in asks)
            reused = tuple(self.replies[ask.key][1] for ask in asks)
            comparison = protocol.settle(self.pair, rubric, judge, asks, replies, repeat=repeat)
            yield Settled(self.pair, asks, replies, comparison, reused), self


def run_row(header: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    """What a run is in the table ``run``."""
    return {
        "run_id": header["run_id"],
        "created_at": header["created_at"],
        "rubric": header["rubric"],
        "rubric_digest": header["rubric_digest"],
        "judge": str(JudgeId(**header["judge"])),
        "evalset": header["evalset"]["digest"],
        "sealed": ledger.sealed,
        "header": orjson.dumps(header).decode(),
        "calls": ledger.calls,
        "possibly_paid": ledger.possibly_paid,
        "possibly_paid_cost": ledger.possibly_paid_cost,
        "given_up": ledger.given_up,
        "rate": ledger.rate,
        "probes": ledger.probes,
        "probe_cost": ledger.probe_cost,
        "lost": orjson.dumps(dict(sorted(ledger.lost.items())[:_MOST_LOST])).decode(),
        "screen": signs.VERSION,
    }


def rows_of(header: Mapping[str, Any], entry: Settled, answers: _Answers) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one settled pair is in the database: table and row.

    Replies are worth keeping for another run; a failed or absent one is evidence of this run, not an answer to reuse.
    """
    run_id, pair_id = header["run_id"], entry.pair.id
    if entry.comparison.repeat == 0:
        yield "pair", {"run_id": run_id, "pair_id": pair_id, "body": orjson.dumps(answers.record).decode()}
    yield "comparison", comparison_row(run_id, entry)
    judge = str(entry.comparison.judge)
    for ask, reply, reused in zip(entry.asks, entry.replies, entry.reused, strict=True):
        yield (
            "reply",
            {
                "key": ask.key if reply.error is None and reply.finish != "missing" else f"failed:{ask.key}",
                "rubric_digest": header["rubric_digest"],
                "judge": judge,
                "run_id": run_id,
                "pair_id": pair_id,
                "placement": ask.order.value,
                "repeat": ask.repeat,
                "body": orjson.dumps(answers.records[ask.key]).decode(),
                "reused": reused,
            },
        )


def identity(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row is called among the rows of its run."""
    names = {"pair": ("pair_id",), "comparison": ("pair_id", "repeat"), "reply": ("pair_id", "repeat", "placement")}
    return (table, *(str(row[name]) for name in names.get(table, ("run_id",))))


def row_digest(row: Mapping[str, Any]) -> bytes:
    """A digest of a row's values, the same whether they come from Python or from DuckDB."""
    values = {
        name: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in row.items()
        if value is not None
    }
    return hashlib.blake2b(orjson.dumps(values, option=orjson.OPT_SORT_KEYS), digest_size=12).digest()


TYPES: dict[str, Any] = dict.fromkeys(
    (
        "label",
        "outcome",
        "invalid",
        "cf_outcome",
        "cf_invalid",
        "bf_outcome",
        "bf_invalid",
        "candidate_finish",
        "baseline_finish",
    ),
    str,
)


def comparison_row(run_id: str, entry: Settled) -> dict[str, Any]:
    """What a settled pair is in the table ``comparison``."""
    from ..screening import flags as flags_of  # its patterns take longer to compile than the rest of the store

    comparison, pair = entry.comparison, entry.pair
    cost, tokens = entry.paid
    row: dict[str, Any] = {
        "run_id": run_id,
        "pair_id": pair.id,
        "repeat": comparison.repeat,
        "category": pair.item.category,
        "metadata": orjson.dumps(
            {k: v for k, v in pair.item.metadata.items() if isinstance(v, str | int | float | bool)}
        ).decode(),
        "prompt_digest": hashlib.sha256(
            orjson.dumps([pair.item.prompt, pair.item.context, pair.item.reference])
        ).hexdigest()[:16],
        "label": pair.label.value if pair.label else None,
        "outcome": comparison.outcome.value if comparison.outcome else None,
        "invalid": comparison.invalid.value if comparison.invalid else None,
        "candidate_chars": len(pair.candidate.text),
        "baseline_chars": len(pair.baseline.text),
        "candidate_finish": pair.candidate.finish,
        "baseline_finish": pair.baseline.finish,
        "flags": " ".join((*comparison.flags, *flags_of(pair))),
        "rationale": comparison.rationale,
        "cost": cost,
        "tokens": tokens,
        "cached": entry.cached,
    }
    for name in ("preference", "p_win", "p_tie", "p_loss", "consistent", "confidence"):
        row[name] = getattr(comparison, name)
    for prefix, verdict in zip(("cf", "bf"), comparison.verdicts, strict=True):
        row[f"{prefix}_outcome"] = verdict.outcome.value if verdict.outcome else None
        row[f"{prefix}_invalid"] = verdict.invalid.value if verdict.invalid else None
        row |= {f"{prefix}_win": verdict.p_win, f"{prefix}_tie": verdict.p_tie, f"{prefix}_loss": verdict.p_loss}
    return row
