"""What a report is made of before it has a surface: sections of figures, tables, prose and charts, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from calibration.estimates import Estimate
from calibration.provenance import Refused

from .svg import draw
from .words import Unit, counted, number, span

__all__ = [
    "Absent",
    "Block",
    "Cell",
    "Chart",
    "Figure",
    "Figures",
    "Level",
    "Prose",
    "Section",
    "Table",
    "figure",
    "withheld",
]

Level = Literal["ink", "soft", "good", "care", "bad"]
"""How loud something is said; a word or a mark says the same where there is no colour."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Why there is no number where one could stand: nothing was measured, or it was not asked for."""

    reason: str


Value = Estimate | Refused | Absent | str


@dataclass(frozen=True, slots=True)
class Figure:
    """One named number (or why it is missing). ``note`` explains it; text is foreign and not yet safe."""

    name: str
    value: Value
    unit: Unit = "plain"
    note: str = ""

    @property
    def shown(self) -> str:
        """The value as it is read, without its interval."""
        if isinstance(self.value, Estimate):
            return number(self.value.value, self.unit)
        return self.value if isinstance(self.value, str) else withheld(self.value)

    @property
    def interval(self) -> str:
        """The interval, empty where there is none."""
        return span(self.value, self.unit) if isinstance(self.value, Estimate) else ""

    @property
    def base(self) -> str:
        """What the number rests on: rows, and prompts where they are fewer."""
        return base(self.value) if isinstance(self.value, Estimate) else ""

    @property
    def missing(self) -> bool:
        """Whether a reason stands in place of a number."""
        return isinstance(self.value, Refused | Absent)


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of one kind below each other."""

    rows: tuple[Figure, ...]
    title: str = ""

    @property
    def merged(self) -> tuple[Figure, ...]:
        """The rows, with neighbours that are missing for the same reason said once."""
        found: list[Figure] = []
        for row in self.rows:
            if found and row.missing and row.value == found[-1].value:
                found[-1] = Figure(f"{found[-1].name}; {row.name}", row.value)
            else:
                found.append(row)
        return tuple(found)


Cell = Estimate | Refused | Absent | str
"""A table's cell. An estimate shows its interval, and its n where that is not the row's."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below a head; the first column names the row. ``n`` holds one count a row, for the column of that name.

    ``units`` gives the unit of each column after the first. ``heat`` (0 to 1, one a cell after the first column)
    shades a table of counts. ``left_out`` says how many rows are not shown.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    note: str = ""
    units: tuple[Unit, ...] = ()
    n: tuple[int, ...] = ()
    heat: tuple[tuple[float, ...], ...] = ()
    left_out: int = 0

    def cells(self, k: int) -> tuple[str, ...]:
        """The cells of row ``k`` as text, n last."""
        row = self.rows[k]
        shown = [self._cell(cell, at, k) for at, cell in enumerate(row)]
        return (*shown, str(self.n[k])) if self.n else tuple(shown)

    @property
    def columns(self) -> tuple[str, ...]:
        """The head, with n last where rows carry one."""
        return (*self.head, "n") if self.n else self.head

    def _cell(self, cell: Cell, at: int, k: int) -> str:
        if isinstance(cell, str):
            return cell
        if not isinstance(cell, Estimate):
            return withheld(cell)
        unit: Unit = self.units[at - 1] if self.units else "plain"
        text = f"{number(cell.value, unit)} {span(cell, unit)}"
        return text if self.n and self.n[k] == cell.n else f"{text} n {cell.n}"


@dataclass(frozen=True, slots=True)
class Prose:
    """One paragraph."""

    text: str
    level: Level = "ink"


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: a specification of ``charts.py`` in the colours of ``PAPER``, which pages and HTML reports both show.

    Every number in it also stands in a table or among the figures. ``name`` is unique in a report, ``title`` says what
    is seen.
    """

    name: str
    title: str
    spec: Mapping[str, Any]

    @property
    def svg(self) -> str:
        """The picture as escaped SVG text for an HTML page; empty where there is nothing to draw."""
        return draw(self.spec, name=self.name, title=self.title)


Block = Figures | Table | Prose | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """One numbered section: ``answer`` is its finding in one sentence, ``blocks`` what stands behind it."""

    number: int
    key: str
    title: str
    answer: str
    level: Level = "ink"
    blocks: tuple[Block, ...] = field(default=())


def figure(name: str, value: Value | None, why: str, *, unit: Unit = "plain", note: str = "") -> Figure:
    """A figure that may be missing; ``why`` is then the reason."""
    return Figure(name, Absent(why) if value is None else value, unit, note)


def withheld(value: Refused | Absent) -> str:
    """What stands in place of a number: never a blank, never a zero."""
    if isinstance(value, Refused):
        return f"withheld: {value.reason}; {value.fix}"
    return f"none: {value.reason}"


def base(estimate: Estimate) -> str:
    """``n 300``, and the prompts where several rows share one."""
    return f"n {estimate.n}" + (f", {counted(estimate.clusters, 'prompt')}" if estimate.clusters != estimate.n else "")
