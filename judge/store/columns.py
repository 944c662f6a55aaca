"""What a journal says, as columns of the database: the short way, over the records as they stand.

The rules are those of ``protocol`` (``reading``, ``joined``, ``screened``, ``lacking``); what is saved are the typed
values between a record and its row, and planning anew: where a pair's record names its asks, they are believed here.
``rows.settled_records`` and ``rows.rows_of`` make the same rows from typed values with every ask planned anew from the
texts; that is what the audit holds the database against, so neither can drift from the other unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .. import journal, protocol
from ..ledger import Ledger
from ..types import JudgeId, Labels, Order, Outcome
from .database import raise_if_full

if TYPE_CHECKING:
    import polars

    from rubrics import Rubric

__all__ = ["write_segments"]

_PART_ROWS, _PART_BYTES = 10_000, 16_000_000
"""A segment is closed after so many comparisons, or so many bytes of texts and replies: memory stays bounded."""
_PLACES = (Order.CANDIDATE_FIRST.value, Order.BASELINE_FIRST.value)
_IDENTICAL: protocol.Reading = (0.0, 1.0, 0.0, Outcome.TIE, None, "identical", "")

Asked = tuple[str, str, Labels]
"""The keys of both orders and the labels of one repeat of a pair."""

_COMPARISON = (
    "pair_id", "repeat", "category", "metadata", "prompt_digest", "label", "candidate_chars", "baseline_chars", "flags",
    "cost", "tokens", "cached", "outcome", "invalid", "p_win", "p_tie", "p_loss", "preference", "consistent",
    "confidence", "rationale", "cf_win", "cf_tie", "cf_loss", "cf_outcome", "cf_invalid", "bf_win", "bf_tie", "bf_loss",
    "bf_outcome", "bf_invalid",
)  # fmt: skip
_PAIR = ("pair_id", "body")
_REPLY = ("key", "pair_id", "placement", "repeat", "body")
_WHOLE = ("repeat", "candidate_chars", "baseline_chars", "tokens", "cached")
_SIDES = tuple(f"{side}_{name}" for side in ("p", "cf", "bf") for name in ("win", "tie", "loss"))
_REAL = ("cost", "preference", "confidence", *_SIDES)


def write_segments(path: Path, header: Mapping[str, Any], folder: Path, ledger: Ledger) -> int:
    """Write a journal's settled rows as Parquet files of bounded size; returns the number of comparisons.

    Pairs come in the order in which their last reply was written. One whose reply carries an error stays open until the
    journal ends, because a resume may have asked again.
    """
    from rubrics import parse

    rubric = parse(header["rubric_text"], path=f"{path} (rubric)")
    plan = _Plan(header, rubric)
    segments = _Segments(header, rubric, folder)
    waiting: dict[str, _Open] = {}
    for record in journal.records(path):
        kind = record["t"]
        if kind == "reply":
            if "reused" not in record:
                ledger.take(record)
            entry = waiting.get(record["pair_id"])
            if entry is None:
                continue
            entry.replies[record["key"]] = record
        elif kind == "pair":
            entry = _Open(record["pair"], plan.asks(record))
            waiting[entry.pair["id"]] = entry
        else:
            ledger.take(record)
            continue
        if entry.wanted <= entry.replies.keys() and not entry.failed:
            del waiting[entry.pair["id"]]
            segments.add(entry)
    ledger.end()
    for entry in waiting.values():
        if entry.wanted <= entry.replies.keys():
            segments.add(entry)
    segments.close()
    return segments.comparisons


class _Open:
    """A pair of a journal while its replies are read."""

    __slots__ = ("asks", "pair", "replies", "wanted")

    def __init__(self, pair: Mapping[str, Any], asks: Sequence[Asked | None]) -> None:
        self.pair, self.asks = pair, asks
        self.wanted = {key for asked in asks if asked is not None for key in asked[:2]}
        self.replies: dict[str, Mapping[str, Any]] = {}

    @property
    def failed(self) -> bool:
        return any("error" in record["reply"] for record in self.replies.values())


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


class _Segments:
    """Rows on their way to Parquet files, one list of tuples for each table."""

    def __init__(self, header: Mapping[str, Any], rubric: Rubric, folder: Path) -> None:
        self.rubric, self.folder = rubric, folder
        self.comparisons = self._part = self._bytes = 0
        self._lacking: dict[tuple[bool, bool], tuple[str, ...]] = {}
        self._run = {"run_id": header["run_id"]}
        self._judged = {"rubric_digest": header["rubric_digest"], "judge": str(JudgeId(**header["judge"]))}
        self._rows: tuple[list[Any], list[Any], list[Any]] = ([], [], [])

    def add(self, entry: _Open) -> None:
        """Add a pair that has all its replies."""
        comparisons, pairs, replies = self._rows
        pair = entry.pair
        name, body = pair["id"], orjson.dumps(pair)
        fixed, flags, screened = self._described(pair)
        for repeat, asked in enumerate(entry.asks):
            if repeat == 0:
                pairs.append((name, body.decode()))
            if asked is None:
                joined = protocol.joined(_IDENTICAL, _IDENTICAL, self.rubric.tie_rule)
                paid: tuple[float | None, int, int] = (0.0, 0, 0)
                comparisons.append(
                    (
                        name,
                        repeat,
                        *fixed,
                        " ".join((*flags, *screened)),
                        *paid,
                        *joined,
                        *_IDENTICAL[:5],
                        *_IDENTICAL[:5],
                    )
                )
                continue
            one, two = entry.replies[asked[0]], entry.replies[asked[1]]
            first, second = one["reply"], two["reply"]
            cf, bf = (
                protocol.reading(
                    asked[2], reply.get("text", ""), reply.get("probs"), reply.get("finish", "stop"),
                    reply.get("error"), flipped=reply is second,
                )
                for reply in (first, second)
            )  # fmt: skip
            seen = {*first.get("flags", ()), *second.get("flags", ())}
            joined = protocol.joined(cf, bf, self.rubric.tie_rule)
            told = " ".join((*flags, *sorted(seen), *screened))
            comparisons.append((name, repeat, *fixed, told, *_paid((one, two)), *joined, *cf[:5], *bf[:5]))
            for key, place, reply in zip(asked, _PLACES, (first, second), strict=False):
                kept = "error" not in reply and reply.get("finish") != "missing"
                text = orjson.dumps(reply)
                self._bytes += len(text)
                replies.append((key if kept else f"failed:{key}", name, place, repeat, text.decode()))
        self.comparisons += len(entry.asks)
        self._bytes += len(body)
        if len(comparisons) >= _PART_ROWS or self._bytes >= _PART_BYTES:
            self.close()

    def _described(self, pair: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]:
        """The columns of a comparison that say what was compared, the flags of its texts, and what the screen saw."""
        from .. import screening

        item, candidate, baseline = pair["item"], pair["candidate"], pair["baseline"]
        context, reference, metadata = item.get("context", []), item.get("reference"), item.get("metadata")
        scalars = {key: value for key, value in (metadata or {}).items() if isinstance(value, str | int | float)}
        if "tool_calls" in candidate or "tool_calls" in baseline:
            typed = journal.decode_pair(pair)
            flags, seen = protocol.screen(typed), screening.flags(typed)
        else:
            texts = candidate.get("text", ""), baseline.get("text", "")
            flags, seen = protocol.screened(*texts), screening.flagged(*texts)
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
        )
        return fixed, flags + self._lacking[has], seen

    def close(self) -> None:
        """Write what was added since the last segment."""
        self._part += 1
        tables = {"comparison": _COMPARISON, "pair": _PAIR, "reply": _REPLY}
        for (table, names), rows in zip(tables.items(), self._rows, strict=True):
            if rows:
                fixed = {**self._run, **(self._judged if table == "reply" else {})}
                _write(_frame(names, rows, fixed), self.folder / f"{table}-{self._part:06}.parquet")
                rows.clear()
        self._bytes = 0


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


def _frame(names: Sequence[str], rows: Sequence[tuple[Any, ...]], fixed: Mapping[str, str]) -> polars.DataFrame:
    import polars

    def kind(name: str) -> Any:
        if name in _REAL:
            return polars.Float64
        if name == "consistent":
            return polars.Boolean
        return polars.Int64 if name in _WHOLE else polars.String

    columns = zip(*rows, strict=True)
    series = [polars.Series(name, values, dtype=kind(name)) for name, values in zip(names, columns, strict=True)]
    return polars.DataFrame(series).with_columns(**{name: polars.lit(value) for name, value in fixed.items()})


def _write(frame: polars.DataFrame, path: Path) -> None:
    import polars

    try:
        frame.write_parquet(path, compression="lz4", statistics=False)
    except polars.exceptions.ComputeError as error:
        raise_if_full(error, path.parent)
        raise
