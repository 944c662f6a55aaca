"""What a journal says, as columns of the database: the short way, over the records as they stand.

The rules are those of ``protocol`` (``reading``, ``joined``, ``screened``, ``lacking``); what is saved are the typed
values between a record and its row, and planning anew: where a pair's record names its asks, they are believed here.
``rows.settled_records`` and ``rows.rows_of`` make the same rows from typed values with every ask planned anew from the
texts; that is what the audit holds the database against, so neither can drift from the other unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import journal, protocol
from ..ledger import Ledger
from ..types import JudgeId, Labels, Order
from .database import raise_if_full

if TYPE_CHECKING:
    import polars

    from rubrics import Rubric

__all__ = ["write_segments"]

_PART_ROWS, _PART_BYTES = 10_000, 16_000_000
"""A segment is closed after so many comparisons, or so many bytes of texts and replies: memory stays bounded."""
_PLACES = (Order.CANDIDATE_FIRST.value, Order.BASELINE_FIRST.value)

Asked = tuple[str, str, Labels]
"""The keys of both orders and the labels of one repeat of a pair."""

_COMPARISON = (
    "pair_id", "repeat", "category", "metadata", "prompt_digest", "label", "candidate_chars", "baseline_chars",
    "candidate_finish", "baseline_finish", "cost", "tokens", "cached",
)  # fmt: skip
"""What is known of a comparison beside its verdicts."""
_PAIR = ("pair_id", "body")
_REPLY = ("key", "pair_id", "placement", "repeat", "body", "reused")
_WHOLE = ("repeat", "candidate_chars", "baseline_chars", "tokens", "cached")
_EVEN = (0.0, 1.0, 0.0)
_ABSENT = (0.0, 0.0, 0.0)


Screened = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
"""Flags of the screen by key of the candidate's order, where they are stored already."""


def write_segments(
    path: Path,
    header: Mapping[str, Any],
    folder: Path,
    ledger: Ledger,
    *,
    screened: Screened | None = None,
    more: Callable[[], bool] | None = None,
) -> int:
    """Write a journal's settled rows as Parquet files of bounded size; returns the number of comparisons.

    ``screened`` finds what the screen saw in the same two texts before: a key is a digest of them in their places.
    ``more`` waits for more of a journal that still grows (``journal.bodies``).

    Pairs come in the order in which their last reply was written. One whose reply carries an error stays open until the
    journal ends, because a resume may have asked again.
    """
    from rubrics import parse

    rubric = parse(header["rubric_text"], path=f"{path} (rubric)")
    plan = _Plan(header, rubric)
    segments = _Segments(header, rubric, folder, screened)
    waiting: dict[str, _Open] = {}
    for record, body in journal.bodies(path, more=more):
        kind = record["t"]
        if kind == "reply":
            if "reused" not in record:
                ledger.take(record)
            entry = waiting.get(record["pair_id"])
            if entry is None:
                continue
            entry.take(record, body)
        elif kind == "pair":
            entry = _Open(record, body, plan.asks(record))
            waiting[entry.pair["id"]] = entry
        else:
            ledger.take(record)
            continue
        if entry.whole and not entry.failed:
            del waiting[entry.pair["id"]]
            segments.add(entry)
    ledger.end()
    for entry in waiting.values():
        if entry.whole:
            segments.add(entry)
    segments.close()
    return segments.comparisons


class _Open:
    """A pair of a journal while its replies are read; ``body`` is the line that its texts stand on."""

    __slots__ = ("asks", "body", "failed", "pair", "replies", "wanted")

    def __init__(self, record: Mapping[str, Any], body: bytes, asks: Sequence[Asked | None]) -> None:
        self.pair, self.asks = record["pair"], asks
        self.body = _part(record, body, b'{"t":"pair","pair":', "pair")
        self.wanted = {key for asked in asks if asked is not None for key in asked[:2]}
        self.replies: dict[str, tuple[Mapping[str, Any], bytes]] = {}
        self.failed: set[str] = set()

    def take(self, record: Mapping[str, Any], body: bytes) -> None:
        """Take a reply; the last one to a key is the one that counts."""
        key = record["key"]
        self.replies[key] = record, body
        if "error" in record["reply"]:
            self.failed.add(key)
        elif self.failed:
            self.failed.discard(key)

    @property
    def whole(self) -> bool:
        """Whether every reply is there."""
        return len(self.replies) >= len(self.wanted) and self.wanted <= self.replies.keys()


def _part(record: Mapping[str, Any], body: bytes, before: bytes, name: str) -> str:
    """One field of a record as JSON: cut out of the line where it stands there as this program writes it.

    No text can look like the border of a field, because JSON escapes the quotation marks inside one.
    """
    start = body.find(before)
    *_, last = record
    if start >= 0 and last in (name, "asks"):
        start += len(before)
        until = len(body) - 1 if last == name else body.rfind(b',"asks":')
        if body[start : start + 1] == b"{" and body[until - 1 : until] == b"}":
            return body[start:until].decode()
    return orjson.dumps(record[name]).decode()


class _Plan:
    """The asks of a pair: as its record names them, else planned from its texts (records of format 1)."""

    def __init__(self, header: Mapping[str, Any], rubric: Rubric) -> None:
        self.header, self.rubric, self.judge = header, rubric, JudgeId(**header["judge"])
        self._labels: dict[tuple[str, ...], Labels] = {}

    def asks(self, record: Mapping[str, Any]) -> list[Asked | None]:
        """One entry a repeat; ``None`` where the answers are identical and nothing is asked."""
        given = record.get("asks")
        if given is not None:
            return [(asked[0], asked[1], self._named(*asked[2:])) if asked else None for asked in given]
        pair, seed = journal.decode_pair(record["pair"]), self.header["seed"]
        plans = [
            protocol.plan(pair, self.rubric, self.judge, seed=seed, repeat=repeat, rendered=False)
            for repeat in range(self.header["repeats"])
        ]
        return [(asks[0].key, asks[1].key, asks[0].labels) if asks else None for asks in plans]

    def _named(self, *names: str) -> Labels:
        found = self._labels.get(names)
        if found is None:
            found = self._labels[names] = Labels(*names)
        return found


class _Side:
    """The replies to one order of many comparisons, in columns."""

    def __init__(self) -> None:
        self.probs: list[tuple[float, float, float]] = []
        self.codes: list[int] = []
        self.texts: list[str] = []

    def add(self, labels: Labels, reply: Mapping[str, Any]) -> None:
        """Add what a reply says: its numbers, whose sum is looked at later, or what its text means."""
        probs = reply.get("probs")
        if probs is not None and "error" not in reply and "finish" not in reply:
            first, tie, second = probs
            self.probs.append((first, tie, second))
            self.codes.append(0)
            self.texts.append(reply.get("text", ""))
            return
        from .verdicts import CODES

        win, tie, loss, _outcome, invalid, _source, text = protocol.reading(
            labels, reply.get("text", ""), probs, reply.get("finish", "stop"), reply.get("error"), flipped=False
        )
        self.probs.append(_ABSENT if win is None or tie is None or loss is None else (win, tie, loss))
        self.codes.append(0 if invalid is None else CODES[invalid])
        self.texts.append(text)

    def add_identical(self) -> None:
        """Add the tie of two answers that are the same."""
        self.probs.append(_EVEN)
        self.codes.append(0)
        self.texts.append("")


class _Segments:
    """Rows on their way to Parquet files, one list of tuples for each table, and the verdicts beside them."""

    def __init__(
        self, header: Mapping[str, Any], rubric: Rubric, folder: Path, screened: Screened | None = None
    ) -> None:
        self.rubric, self.folder, self._screened = rubric, folder, screened
        self.comparisons = self._part = self._bytes = 0
        self._lacking: dict[tuple[bool, bool], tuple[str, ...]] = {}
        self._run = {"run_id": header["run_id"]}
        self._judged = {"rubric_digest": header["rubric_digest"], "judge": str(JudgeId(**header["judge"]))}
        self._begin()

    def _begin(self) -> None:
        self._bytes = 0
        self._comparisons: list[tuple[Any, ...]] = []
        self._flags: list[tuple[int, tuple[str, ...]]] = []
        self._texts: list[tuple[str, tuple[str, str]]] = []
        self._pairs: list[tuple[str, str]] = []
        self._replies: list[tuple[Any, ...]] = []
        self._sides = _Side(), _Side()

    def add(self, entry: _Open) -> None:
        """Add a pair that has all its replies."""
        name = entry.pair["id"]
        fixed, flags, texts = self._described(entry.pair)
        cf, bf = self._sides
        if entry.asks:
            self._pairs.append((name, entry.body))
        place, again = len(self._texts), ""
        for repeat, asked in enumerate(entry.asks):
            if asked is None:
                cf.add_identical()
                bf.add_identical()
                self._flags.append((place, flags))
                self._comparisons.append((name, repeat, *fixed, 0.0, 0, 0))
                continue
            one, first_body = entry.replies[asked[0]]
            two, second_body = entry.replies[asked[1]]
            first, second = one["reply"], two["reply"]
            cf.add(asked[2], first)
            bf.add(asked[2], second)
            if "flags" in first or "flags" in second:
                seen = {*first.get("flags", ()), *second.get("flags", ())}
                self._flags.append((place, (*flags, *sorted(seen))))
            else:
                self._flags.append((place, flags))
            self._comparisons.append((name, repeat, *fixed, *_paid((one, two))))
            self._keep(asked[0], name, _PLACES[0], repeat, one, first_body)
            self._keep(asked[1], name, _PLACES[1], repeat, two, second_body)
            if "reused" in one:
                again = asked[0]
        self._texts.append((again, texts))
        self.comparisons += len(entry.asks)
        self._bytes += len(entry.body)
        if len(self._comparisons) >= _PART_ROWS or self._bytes >= _PART_BYTES:
            self.close()

    def _keep(self, key: str, name: str, place: str, repeat: int, record: Mapping[str, Any], body: bytes) -> None:
        reply = record["reply"]
        kept = "error" not in reply and reply.get("finish") != "missing"
        text = _part(record, body, b',"reply":', "reply")
        self._bytes += len(text)
        reused = bool(record.get("reused", False))
        self._replies.append((key if kept else f"failed:{key}", name, place, repeat, text, reused))

    def _described(self, pair: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[str, str]]:
        """The columns of a comparison that say what was compared, the flags of its texts, and both as a judge sees
        them.
        """
        item, candidate, baseline = pair["item"], pair["candidate"], pair["baseline"]
        context, reference, metadata = item.get("context", []), item.get("reference"), item.get("metadata")
        scalars = {key: value for key, value in (metadata or {}).items() if isinstance(value, str | int | float)}
        if "tool_calls" in candidate or "tool_calls" in baseline:
            typed = journal.decode_pair(pair)
            texts = protocol.shown(typed.candidate), protocol.shown(typed.baseline)
        else:
            texts = candidate.get("text", ""), baseline.get("text", "")
        flags = protocol.screened(*texts)
        has = bool(context), reference is not None
        if has not in self._lacking:
            self._lacking[has] = protocol.lacking(self.rubric, context=has[0], reference=has[1])
        fixed = (
            item.get("category", ""),
            orjson.dumps(scalars).decode() if scalars else "{}",
            hashlib.sha256(orjson.dumps([item.get("prompt", ""), context, reference])).hexdigest()[:16],
            pair.get("label"),
            len(candidate.get("text", "")),
            len(baseline.get("text", "")),
            candidate.get("finish"),
            baseline.get("finish"),
        )
        return fixed, flags + self._lacking[has], texts

    def close(self) -> None:
        """Write what was added since the last segment."""
        import polars

        self._part += 1
        if self._comparisons:
            self._write("comparison", _frame(_COMPARISON, self._comparisons).hstack([self._told(), *self._verdicts()]))
            self._write("pair", _frame(_PAIR, self._pairs))
        if self._replies:
            judged = {name: polars.lit(value) for name, value in self._judged.items()}
            self._write("reply", _frame(_REPLY, self._replies).with_columns(**judged))
        self._begin()

    def _told(self) -> polars.Series:
        """The column of flags, those of the screen among them: looked up where the same texts were screened before."""
        import polars

        from .. import screening

        keys = [key for key, _texts in self._texts if key]
        before = self._screened(keys) if keys and self._screened is not None else {}
        fresh = iter(screening.flagged_all([texts for key, texts in self._texts if key not in before]))
        seen = [tuple(before[key]) if key in before else next(fresh) for key, _texts in self._texts]
        told = [" ".join((*flags, *seen[place])) for place, flags in self._flags]
        return polars.Series("flags", told, dtype=polars.String)

    def _verdicts(self) -> list[polars.Series]:
        """The columns of the verdicts and the comparisons that they settle to."""
        import numpy as np
        import polars

        from .verdicts import columns

        cf, bf = self._sides
        codes = np.array(cf.codes), np.array(bf.codes)
        found, after = columns(np.array(cf.probs, float), np.array(bf.probs, float), codes, self.rubric.tie_rule)
        for side, was, now in zip(self._sides, codes, after, strict=True):
            for bad in np.flatnonzero(was != now):
                side.texts[bad] = ""
        rationales = [one or two for one, two in zip(cf.texts, bf.texts, strict=True)]
        found["rationale"] = polars.Series(rationales, dtype=polars.String)
        return [series.alias(name) for name, series in found.items()]

    def _write(self, table: str, frame: polars.DataFrame) -> None:
        import polars

        path = self.folder / f"{table}-{self._part:06}.parquet"
        try:
            frame.with_columns(run_id=polars.lit(self._run["run_id"])).write_parquet(
                path, compression="lz4", statistics=False
            )
        except polars.exceptions.ComputeError as error:
            raise_if_full(error, path.parent)
            raise


def _paid(records: Sequence[Mapping[str, Any]]) -> tuple[float | None, int, int]:
    """US dollars (``None`` once a price is unknown) and tokens of the replies that were asked for, and how many were
    not.
    """
    cost: float | None = 0.0
    tokens = cached = 0
    for record in records:
        if "reused" in record:
            cached += 1
            continue
        usage = record["reply"].get("usage", {})
        each = usage.get("cost")
        cost = None if each is None or cost is None else cost + each
        tokens += usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
    return cost, tokens, cached


def _frame(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> polars.DataFrame:
    import polars

    def kind(name: str) -> Any:
        if name == "cost":
            return polars.Float64
        if name == "reused":
            return polars.Boolean
        return polars.Int64 if name in _WHOLE else polars.String

    given = zip(*rows, strict=True)
    return polars.DataFrame(
        [polars.Series(name, values, dtype=kind(name)) for name, values in zip(names, given, strict=True)]
    )
