"""Charts as SVG text: pure functions from values to a string, without a script, a font or an outside resource.

Every chart is 360 units wide and scales to its place, so that 12-unit text stays readable on a phone. Colours are CSS
variables of the page (``--good``, ``--bad``, ``--soft``, ``--first``, ``--second``), so that both themes work; lines
also differ in dash and marks in shape. ``<title>`` and ``<desc>`` carry the numbers for screen readers. All text is
escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from .words import Unit, counted, cut, number, safe

if TYPE_CHECKING:
    from calibration.estimates import Estimate

__all__ = ["Bar", "Caption", "Line", "Tone", "forest", "plane", "stream"]

Tone = Literal["good", "bad", "soft", "first", "second"]
Point = tuple[float, float]

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 350.0, 12.0, 270.0
_ROW = 38
_LETTERS = 48
_MARKS = 200
_BINS = 20
_SANE = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """One interval of a forest plot: its name, the estimate, how its number reads, and its colour and shape."""

    name: str
    estimate: Estimate
    text: str
    tone: Tone
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plane; ``dashed`` tells lines apart without colour."""

    points: Sequence[Point]
    tone: Tone
    name: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    """What a plane is called: ``name`` makes its ids, ``said`` is read aloud, ``axes`` names x and y."""

    name: str
    title: str
    said: str
    axes: tuple[str, str]


def forest(bars: Sequence[Bar], *, at: float, unit: Unit, name: str, title: str) -> str:
    """Intervals below each other on one axis with a mark at ``at``; ``name`` makes the ids of the chart unique.

    Returns an empty string without bars. Names stand above their interval, so that none can run into another.
    """
    if not bars:
        return ""
    low, high = _domain([x for bar in bars for x in (bar.estimate.low, bar.estimate.value, bar.estimate.high)], at)
    floor = _ROW * len(bars) + 8
    parts = [
        _svg_line("axis", (8, floor), (WIDTH - 8, floor)),
        *_mark(_x(at, low, high), len(bars)),
    ]
    used: list[float] = []
    for tick in [at, *_ticks(low, high)]:
        x = _x(tick, low, high)
        if all(abs(x - other) > 46 for other in used):
            used.append(x)
            parts.append(
                _text(
                    x,
                    floor + 16,
                    number(tick, unit),
                    anchor="end" if x > WIDTH - 26 else "start" if x < 26 else "middle",
                )
            )
    for k, bar in enumerate(bars):
        parts += _interval(bar, y=_ROW * k + 30.0, low=low, high=high)
    said = "; ".join(f"{bar.name}: {bar.text}{f', {bar.note}' if bar.note else ''}" for bar in bars)
    return _svg(parts, height=floor + 24, name=name, title=title, said=said)


def _mark(x: float, rows: int) -> Iterator[str]:
    """The dashed mark through the intervals alone: over the names it would strike the letters out."""
    for k in range(rows):
        middle = _ROW * k + 30
        foot = _ROW * rows + 8 if k == rows - 1 else middle + 9
        yield _svg_line("zero", (x, middle - 8), (x, foot))


def _interval(bar: Bar, *, y: float, low: float, high: float) -> list[str]:
    x, start, end = (_x(value, low, high) for value in (bar.estimate.value, bar.estimate.low, bar.estimate.high))
    figures = f"{bar.text}  {bar.note}" if bar.note else bar.text
    room = max(_LETTERS - len(figures), 8)
    shape = (
        f'<circle class="fill-{bar.tone}" cx="{x:.1f}" cy="{y}" r="4.5"/>'
        if bar.tone == "soft"
        else f'<rect class="fill-{bar.tone}" x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'
    )
    return [
        _text(8, y - 12, cut(bar.name, room)),
        _text(WIDTH - 8, y - 12, cut(figures, _LETTERS - 8), anchor="end", kind="soft"),
        f'<line class="stroke-{bar.tone}" stroke-width="2.5" x1="{start:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}"/>',
        shape,
    ]


def plane(
    lines: Sequence[Line],
    caption: Caption,
    *,
    top: float = 1.0,
    band: Sequence[tuple[float, float, float]] = (),
    levels: Sequence[tuple[float, str]] = (),
    counts: Sequence[Point] = (),
) -> str:
    """Lines over [0, 1] by [0, ``top``] with a legend below; returns an empty string without a point.

    ``band`` is (x, low, high), drawn as an area; ``levels`` are heights with a name, drawn across; ``counts`` are
    (x, how many), drawn as a histogram along the foot.
    """
    if not any(line.points for line in lines):
        return ""

    def place(x: float, y: float) -> Point:
        return _LEFT + (_RIGHT - _LEFT) * _held(x), _BOTTOM - (_BOTTOM - _TOP) * _held(y / top)

    parts = [*_grid(caption, top=top), *_histogram(counts)]
    if band:
        edge = [place(x, low) for x, low, _ in band] + [place(x, high) for x, _, high in reversed(band)]
        parts.append(f'<polygon class="band" points="{_points(edge)}"/>')
    for height, label in levels:
        if height <= top:
            x, y = place(1, height)
            parts += [_svg_line("zero", (_LEFT, y), (x, y)), _text(x, y - 4, label, anchor="end", kind="soft")]
    y = _BOTTOM + 54
    for line in lines:
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        stroke = f'class="stroke-{line.tone}" fill="none" stroke-width="2"{dash}'
        parts.append(f'<polyline {stroke} points="{_points(place(*point) for point in line.points)}"/>')
        parts.append(f'<line {stroke} x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y - 4}" y2="{y - 4}"/>')
        parts.append(_text(_LEFT + 32, y, cut(line.name, _LETTERS - 8)))
        y += 18
    return _svg(parts, height=y - 6, name=caption.name, title=caption.title, said=caption.said)


def _grid(caption: Caption, *, top: float) -> Iterator[str]:
    yield _svg_line("axis", (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM))
    yield _svg_line("axis", (_LEFT, _BOTTOM), (_LEFT, _TOP))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _LEFT + (_RIGHT - _LEFT) * share
        yield _text(x, _BOTTOM + 16, f"{share:g}", anchor="end" if share == 1 else "middle")
    for tick in _ticks(0.0, top):
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / top
        yield _text(_LEFT - 5, y + 4, f"{tick:g}", anchor="end")
        if tick:
            yield _svg_line("grid", (_LEFT, y), (_RIGHT, y))
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 33, caption.axes[0], anchor="middle", kind="soft")
    yield _text(12, (_TOP + _BOTTOM) / 2, caption.axes[1], anchor="middle", kind="soft", turned=True)


def _histogram(counts: Sequence[Point]) -> Iterator[str]:
    """Twenty bars along the foot, the highest an eighth of the picture."""
    bins = [0.0] * _BINS
    for x, count in counts:
        bins[min(int(_held(x) * _BINS), _BINS - 1)] += count
    width = (_RIGHT - _LEFT) / _BINS
    for k, count in enumerate(bins):
        if count:
            height = (_BOTTOM - _TOP) / 8 * count / max(bins)
            place = f'x="{_LEFT + k * width + 1:.1f}" y="{_BOTTOM - height:.1f}"'
            yield f'<rect class="count" {place} width="{width - 2:.1f}" height="{height:.1f}"/>'


def stream(values: Sequence[Sequence[float]], *, limit: float, names: Sequence[str], name: str, title: str) -> str:
    """Sums over time with the limit that raises an alarm; long streams keep the highest value of each stretch."""
    if not any(len(series) for series in values):
        return ""
    size = max(len(series) for series in values)
    top = 1.1 * max([limit, *(x for series in values for x in series if math.isfinite(x))])
    tones: tuple[Tone, ...] = ("first", "second")
    lines = [
        Line([((k + 0.5) / size, x) for k, x in _thinned(series)], tone, label, dashed=tone == "second")
        for series, tone, label in zip(values, tones, names, strict=True)
    ]
    peaks = ", ".join(f"{label} {max(series, default=0):.3g}" for series, label in zip(values, names, strict=True))
    said = f"{counted(size, 'value')}; highest {peaks}; limit {limit:.3g}"
    return plane(
        lines,
        Caption(name, title, said, (f"share of the {counted(size, 'stretch', 'stretches')} of ten anchors", "sum")),
        top=top,
        levels=[(limit, f"limit {limit:.3g}")],
    )


def _thinned(series: Sequence[float]) -> list[tuple[int, float]]:
    step = max(1, math.ceil(len(series) / _MARKS))
    ends = range(0, len(series), step)
    return [
        max(((k, series[k]) for k in range(at, min(at + step, len(series)))), key=lambda point: point[1]) for at in ends
    ]


def _domain(values: Iterable[float], at: float) -> tuple[float, float]:
    """From the lowest to the highest value of a sane size and ``at``, a little wider."""
    seen = [value for value in values if abs(value) < _SANE] + [at]
    low, high = min(seen), max(seen)
    room = 0.06 * (high - low) or 0.05
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside the domain, about four."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [k * step for k in range(first, first + 8) if k * step <= high]


def _x(value: float, low: float, high: float) -> float:
    return 8 + (WIDTH - 16) * _held((value - low) / (high - low))


def _held(share: float) -> float:
    """A share inside the picture; NaN and infinities at its edges."""
    return min(max(share, 0.0), 1.0) if not math.isnan(share) else 0.0


def _points(places: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _svg_line(kind: str, start: Point, end: Point) -> str:
    return f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "ink", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(safe(text))}</text>'


def _svg(parts: Iterable[str], *, height: float, name: str, title: str, said: str) -> str:
    key = escape(name, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(safe(title))}</title><desc id="{key}-desc">{escape(safe(said))}</desc>'
        f"{''.join(parts)}</svg>"
    )
