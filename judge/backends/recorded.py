"""The recorded judge: replays verdicts that a real judge gave earlier, so they run through the whole pipeline.

A file holds one JSON object a line (``.jsonl`` or ``.jsonl.gz``): ``id`` of the pair, ``judge``, ``order`` (``ab``
where response A, the candidate, was shown first, ``ba`` where B was), ``verdict`` in terms of the unswapped pair
(``A``, ``B``, ``tie`` or null for a reply nobody could read), optionally ``prob_a`` = P(A is better), ``raw`` (the
judge's text) and ``repeat``.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from ..errors import InputError
from ..types import Ask, JudgeId, Order, Reply, Usage

__all__ = ["RecordedBackend", "open_recorded"]

_FREE = Usage(cost=0.0)
_ORDERS = {"ab": Order.CANDIDATE_FIRST, "ba": Order.BASELINE_FIRST}


class RecordedBackend:
    """Answers an ask by looking up (pair id, order, repeat); an ask without a row gets a reply with
    ``finish="missing"``.
    """

    def __init__(self, rows: dict[tuple[str, Order, int], Reply], *, judge: str, revision: str) -> None:
        self.rows = rows
        # Verdicts belong to pairs, not to texts: two pairs with the same texts may have got different ones.
        self.id = JudgeId(f"recorded/{judge}", revision, by_pair=True)
        self.batch, self.concurrency = 512, 1
        self.notice = f"recorded verdicts of {judge}, replayed from a file; nothing was judged anew"

    async def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Look each ask up."""
        missing = Reply(finish="missing", usage=_FREE)
        return [self.rows.get((ask.pair_id, ask.order, ask.repeat), missing) for ask in asks]

    async def close(self) -> None:
        """Nothing to release."""


def open_recorded(model: str, *, judge: str = "") -> RecordedBackend:
    """Read ``recorded:PATH?judge=NAME``; ``judge`` may be left out where the file holds one judge only.

    Raises ``InputError`` for a missing file, a line that does not parse (with its number), several judges and no
    choice, an unknown judge, or two different verdicts for the same pair, order and repeat.
    """
    path = Path(model)
    if not model or not path.is_file():
        raise InputError(f"recorded:{model}: no such file; write recorded:verdicts.jsonl?judge=NAME")
    digest = hashlib.sha256()
    judges: dict[str, None] = {}
    rows: dict[tuple[str, Order, int], Reply] = {}
    for number, line in _lines(path):
        digest.update(line)
        row = _row(line, path, number)
        name = str(row.get("judge", ""))
        judges[name] = None
        if judge and name != judge:
            continue
        key = (str(row["id"]), _ORDERS[row["order"]], _repeat(row, path, number))
        reply = _reply(row, path, number)
        if rows.setdefault(key, reply) != reply and (judge or len(judges) == 1):
            raise InputError(f"{path}:{number}: a second, different verdict for {row['id']!r} in order {row['order']}")
    if judge and judge not in judges:
        raise InputError(f"{path}: no verdicts of {judge!r}; {_named(judges)}")
    if not judge and len(judges) != 1:
        raise InputError(f"{path}: holds {len(judges)} judges; choose one with ?judge=NAME; {_named(judges)}")
    first = min((repeat for _, _, repeat in rows), default=0)
    rows = {(pair, order, repeat - first): reply for (pair, order, repeat), reply in rows.items()}
    return RecordedBackend(rows, judge=judge or next(iter(judges)), revision=digest.hexdigest()[:12])


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            yield from ((number, line) for number, line in enumerate(handle, 1) if line.strip())
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}:{number}: not JSON: {error.msg}") from None
    if not isinstance(row, dict) or "id" not in row or str(row.get("order")) not in _ORDERS or "verdict" not in row:
        raise InputError(
            f"{path}:{number}: a recorded verdict needs 'id', 'order' (ab or ba) and 'verdict' (A, B, tie or null)"
        )
    return row


def _repeat(row: dict[str, Any], path: Path, number: int) -> int:
    repeat = row.get("repeat", 0)
    if isinstance(repeat, bool) or not isinstance(repeat, int):
        raise InputError(f"{path}:{number}: repeat is {repeat!r}; it is a whole number")
    return repeat


def _reply(row: dict[str, Any], path: Path, number: int) -> Reply:
    text = str(row.get("raw") or "")
    share = row.get("prob_a")
    verdict = row["verdict"]
    if share is not None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise InputError(f"{path}:{number}: prob_a is {share!r}; it is a probability from 0 to 1")
        chance = (float(share), 0.0, 1 - float(share))
    elif verdict is None:
        return Reply(text=text, finish="unparsed", usage=_FREE)
    else:
        hard = {"A": (1.0, 0.0, 0.0), "tie": (0.0, 1.0, 0.0), "B": (0.0, 0.0, 1.0)}
        if not isinstance(verdict, str) or verdict not in hard:
            raise InputError(f"{path}:{number}: verdict {verdict!r}; use A, B, tie or null")
        chance = hard[verdict]
    probs = chance if row["order"] == "ab" else chance[::-1]
    return Reply(text=text, probs=(probs[0], probs[1], probs[2]), usage=_FREE)


def _named(judges: Iterable[str]) -> str:
    names = list(judges)
    return "there are " + ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
