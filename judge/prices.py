"""What models cost: a small dated table, a user's own on top, and a bound on tokens that needs no tokenizer.

The shipped table (``judge/data/prices.json``) holds list prices of widely used models under ``PROVIDER/MODEL``. A model
that is not in it has no price, which is ``None`` and never 0: only the user can say that something is free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import InputError

__all__ = ["Price", "find_price", "prices_date", "tokens_at_least", "tokens_at_most"]

_SHIPPED = Path(__file__).parent / "data" / "prices.json"
_PER_MESSAGE = 16
_BYTES_A_TOKEN = 6


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens in and out.

    ``batch`` is what a provider's batch interface charges of it (0.5 is half). A prompt of more than ``long_above``
    tokens costs the ``long`` prices (0 where there are none).

    >>> Price(2.5, 10.0).cost(1_000_000, 100_000)
    3.5
    """

    input: float
    output: float
    batch: float = 1.0
    long_above: int = 0
    long_input: float = 0.0
    long_output: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars of one call."""
        long = 0 < self.long_above < prompt_tokens
        each = (self.long_input, self.long_output) if long else (self.input, self.output)
        return (prompt_tokens * each[0] + completion_tokens * each[1]) / 1e6


def find_price(model: str, *, override: Path | None = None, url: str = "") -> Price | None:
    """The price of ``PROVIDER/MODEL``, from the user's file where that has it, else from the shipped table; ``None``
    where it is unknown.

    A user's file is JSON of the same form: ``{"models": {"openai/my-model": {"input": 0.1, "output": 0.4}}}``, US
    dollars per million tokens. With ``url``, the base URL of a server other than the provider's own, only the user's
    file can know a price, under the most exact of: ``openai/MODEL@URL``, ``openai/MODEL@HOST:PORT``,
    ``openai/MODEL@HOST``, ``URL``, ``HOST:PORT``, ``HOST`` (the last three hold for every model there). A list price
    of a provider says nothing about another server. Raises ``InputError`` for a file or price that cannot be used.
    """
    own = _table(override) if override is not None else {}
    if not url:
        return own.get(model) or _table(_SHIPPED).get(model)
    parts = urlsplit(url.lower())
    places = list(dict.fromkeys((url.rstrip("/").lower(), parts.netloc, parts.hostname or "")))
    keys = [*(f"{model}@{place}" for place in places), *places]
    placed = {_placed(name): price for name, price in own.items()}
    return next((placed[key] for key in keys if key and key in placed), None)


def _placed(name: str) -> str:
    """A key of a price file with its place in lower case and without a closing slash; models keep their case."""
    model, mark, place = name.rpartition("@")
    return f"{model}{mark}{place.rstrip('/').lower()}"


def prices_date() -> str:
    """The day on which the shipped table was made, as ``YYYY-MM-DD``."""
    return str(json.loads(_SHIPPED.read_text(encoding="utf-8"))["date"])


def tokens_at_most(*texts: str) -> int:
    """An upper bound of the prompt tokens of a chat with these messages, without a tokenizer.

    Byte-level and byte-fallback tokenizers never make more tokens than a text has UTF-8 bytes, because each token
    covers at least one (Sennrich et al. 2016, arXiv:1508.07909; GPT-2's byte-level variant). For each message 16 tokens
    are added for role and turn markers. English takes about 4.5 bytes a token, so this is some four times too much: it
    is meant for limits, not for estimates.
    """
    return sum(_bytes(text) + _PER_MESSAGE for text in texts) + _PER_MESSAGE


def tokens_at_least(*texts: str) -> int:
    """A low estimate of the same: one token for six bytes. No bound: long words repeated may take fewer."""
    return sum(_bytes(text) for text in texts) // _BYTES_A_TOKEN


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@cache
def _table(path: Path) -> Mapping[str, Price]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the price file cannot be read: {error}; see JUDGE_PRICES") from None
    models = read.get("models") if isinstance(read, dict) else None
    if not isinstance(models, dict):
        raise InputError(
            f'{path}: a price file looks like {{"models": {{"openai/m": {{"input": 0.1, "output": 0.4}}}}}}'
        )
    return {name: _price(path, name, entry) for name, entry in models.items()}


def _price(path: Path, name: str, entry: Any) -> Price:
    def number(holder: Any, field: str, default: float | None = None) -> float:
        value = holder.get(field, default) if isinstance(holder, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise InputError(f"{path}: {name}: {field} is {value!r}; give US dollars per million tokens")
        return float(value)

    long = entry.get("long") if isinstance(entry, dict) else None
    return Price(
        number(entry, "input"),
        number(entry, "output"),
        number(entry, "batch", 1.0),
        *((int(number(long, "above")), number(long, "input"), number(long, "output")) if long else ()),
    )
