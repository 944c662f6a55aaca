"""Text for every surface: what is safe to show, how it is wrapped, and how a number and its interval are written."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from ..lengths import longer

if TYPE_CHECKING:
    from calibration.estimates import Estimate

__all__ = [
    "LENGTHS",
    "Unit",
    "columns",
    "counted",
    "cut",
    "ends",
    "listed",
    "markdown",
    "markdown_code",
    "number",
    "p_value",
    "plain",
    "prose",
    "safe",
    "span",
    "unit_of",
    "wrap",
]

Unit = Literal["share", "points", "signed", "plain", "ln"]
"""How a number is written: 0.531 as ``53.1%``, ``+53.1 pp``, ``+0.531`` or ``0.531``. ``ln`` is the logarithm of a
ratio of lengths, written as how much longer that is: ``+70.1%``."""

LENGTHS = ("characters", "words", "tokens")
"""Units of lengths: sides are means, rounded; the differences of ``length.*`` are of logarithms."""

WIDTH = 80
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f\ud800-\udfff]"
)
_MARKUP = re.compile(r"([\\`*_\[\]<>|#!~])")
_HUGE = 1e5


def safe(text: str) -> str:
    """Text that cannot steer a terminal: control, bidi and zero-width characters as visible ``<U+XXXX>``; tab and
    newline stay. So are those that XML cannot hold.
    """
    return _UNSAFE.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def columns(text: str) -> int:
    """How many terminal columns a line takes: two for wide East Asian characters and emoji, none for combining ones."""
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if character < "\x7f":
        return 1
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def cut(text: str, width: int) -> str:
    """One safe line of at most ``width`` columns, with an ellipsis where something is missing."""
    line = " ".join(safe(text).split())
    if columns(line) <= width:
        return line
    return f"{_head(line, width - 1)}…"


def _head(text: str, width: int) -> str:
    """The longest start of ``text`` that fits in ``width`` columns."""
    used = 0
    for at, character in enumerate(text):
        used += _columns_of(character)
        if used > width:
            return text[:at]
    return text


def wrap(text: str, *, first: str = "", rest: str = "", width: int = WIDTH) -> list[str]:
    """Lines of at most ``width`` columns; a word longer than a line is broken. Whitespace runs become one space."""
    lines: list[str] = []
    line, empty = first, True
    for word in text.split():
        todo = word
        while todo:
            gap = "" if empty else " "
            if columns(line) + len(gap) + columns(todo) <= width:
                line, empty, todo = f"{line}{gap}{todo}", False, ""
            elif not empty:
                lines.append(line)
                line, empty = rest, True
            else:
                part = _head(todo, max(width - columns(line), 2)) or todo[:1]
                lines.append(line + part)
                line, todo = rest, todo[len(part) :]
    if not empty or not lines:
        lines.append(line)
    return [line.rstrip() for line in lines]


def number(value: float, unit: Unit = "plain") -> str:
    """A number as it is read: three decimals, or percent with one; ``undefined`` for NaN."""
    if unit == "ln":
        return longer(value)
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "no limit"
    scaled = 100 * value if unit in {"share", "points"} else value
    digits = 1 if unit in {"share", "points"} else 3
    sign = "+" if unit in {"points", "signed"} else ""
    ending = {"share": "%", "points": " pp"}.get(unit, "")
    if abs(scaled) >= _HUGE:
        return f"{scaled:{sign}.2e}{ending}"
    return f"{scaled + 0.0:{sign}.{digits}f}{ending}"


def unit_of(name: str, unit: str, of: str) -> Unit:
    """How a measure's number is written, on every surface; ``of`` is candidate, baseline or difference.

    The difference of two shares is in points, that of lengths (which is of logarithms) in percent, that of anything
    else has a sign, except where it is a ratio; a side is what the measure's unit says.

    >>> unit_of("refusal.harmless", "share", "difference"), unit_of("length.words", "words", "difference")
    ('points', 'ln')
    >>> unit_of("length.words_ratio", "ratio of words", "difference"), unit_of("length.cut", "share", "candidate")
    ('plain', 'share')
    """
    difference = of == "difference"
    if difference and name.startswith("length.") and unit in (*LENGTHS, "ln"):
        return "ln"
    if unit.startswith(("share", "points")):
        return "points" if difference else "share"
    return "signed" if difference and not unit.startswith("ratio") else "plain"


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its noun: ``1 label``, ``2 labels``; ``many`` where the plural does not end in s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def p_value(value: float | None) -> str:
    """A p or q value: three decimals, ``<0.001`` below that, ``none`` where nothing was tested."""
    if value is None or math.isnan(value):
        return "none"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def span(estimate: Estimate, unit: Unit = "plain") -> str:
    """The interval of an estimate in the same unit: ``[49.1, 57.0]``."""
    return ends(estimate.low, estimate.high, unit)


def ends(low: float, high: float, unit: Unit = "plain") -> str:
    """An interval by its ends, as ``span`` writes it."""
    return f"[{', '.join(number(end, unit).removesuffix('%').removesuffix(' pp') for end in (low, high))}]"


def markdown(text: str) -> str:
    """Text inside Markdown prose or a table cell: no markup, no line break, no HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(safe(text).split()))


def prose(text: str) -> str:
    """A sentence of our own inside Markdown: as ``markdown``, but what stands between two backticks stays code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner marks nothing
        return markdown(text)
    return "".join(
        f"`{markdown_code(part)}`" if k % 2 and part.strip() else _kept(part) for k, part in enumerate(parts)
    )


def _kept(part: str) -> str:
    """``markdown`` with the white space at both ends, which parts it from a code span."""
    inner = markdown(part)
    if not inner:
        return " " if part else ""
    return f"{' ' * part[0].isspace()}{inner}{' ' * part[-1].isspace()}"


def markdown_code(text: str) -> str:
    """Text inside a Markdown code span."""
    return " ".join(safe(text).replace("`", "'").split())


def plain(value: Any) -> Any:
    """Dataclasses, enums, mappings, tuples and NumPy numbers as plain JSON values; what is not finite becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None  # an open end of an interval; JSON has no infinity
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float) or value is None:
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else str(value)


def listed(names: Sequence[str], shown: int = 5) -> str:
    """The first few names, each on one safe line of at most 40 columns, and how many more there are."""
    more = len(names) - shown
    return ", ".join(cut(name, 40) for name in names[:shown]) + (f" and {more} more" if more > 0 else "")
