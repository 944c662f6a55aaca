"""Charts as Vega-Lite specifications: plain values in, a dictionary out, data inside, nothing fetched.

One specification feeds every surface: the dashboard shows it with Vega, the HTML reports and the dashboard's SVG files
draw it with ``svg.py``. The charts that a report and a page both show are here; ``dashboard/views/charts.py`` adds
those that only a page shows. No plotting package is imported.

Colours are of a theme and never alone: better, unclear and worse are also words, and lines differ in dash. ``PAPER``
holds the CSS variables of the reports' style sheet; ``inked`` gives a specification the colours of a theme.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .words import Unit, counted, cut

__all__ = [
    "DARK",
    "LIGHT",
    "NET",
    "PAPER",
    "PICK",
    "POINTS",
    "Ink",
    "assembled",
    "forest",
    "inked",
    "measured",
    "pixel",
    "reliability",
    "risk",
    "rounded",
    "sums",
    "tips",
    "trace",
]

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

POINTS = "datum.value === 0 ? '0' : format(100 * datum.value, '+.0f')"
"""Shares of one as percentage points on an axis."""
NET = "Net win rate, percentage points"
"""What the axis of a forest plot of net win rates is called."""
PICK = "pick"
"""The name of the selection that a click makes, where a chart has one."""
_NAME, _STEP = 24, 14
"""Pixels of a row of a forest plot for its name, and for each interval below it."""
_LETTERS = 21
_BELOW, _LEGEND = 76, 40
"""Pixels of a picture's height for its horizontal axis, and for a legend."""
_SHAPES = ["circle", "diamond", "square"]
_DASHES = [[1, 0], [5, 3]]
_BINS = 20
_MARKS = 200
_STROKES: Spec = {"orient": "bottom", "symbolType": "stroke", "symbolStrokeWidth": 2.5, "symbolSize": 400}
"""A legend of lines, each as it is drawn: a dashed line round a dot is a blot."""
_SANE = 2.0
"""No rate or difference of rates lies beyond; an end that does (or is infinite) is drawn at the edge."""


@dataclass(frozen=True, slots=True)
class Ink:
    """The colours of one theme; each that writes has a contrast of at least 4.5 against ``ground``."""

    better: str
    worse: str
    unclear: str
    accent: str
    second: str
    line: str
    text: str
    ground: str
    middle: str
    """The middle of a diverging scale."""
    depth: float = 0.5
    """How far a cell's colour may go from the middle, so that the text in it keeps its contrast."""

    def soft(self, colour: str) -> str:
        """A colour as the deepest ground that the theme's text can still be read on."""
        mixed = [
            round(int(self.middle[k : k + 2], 16) * (1 - self.depth) + int(colour[k : k + 2], 16) * self.depth)
            for k in (1, 3, 5)
        ]
        return "#" + "".join(f"{part:02x}" for part in mixed)


LIGHT = Ink(
    "#0b7a75", "#b93c0a", "#5b6670", "#34507a", "#9b2f86", "#b4bec5", "#11181c", "#ffffff", "#eef1f2", 0.55
)  # fmt: skip
DARK = Ink(
    "#2dd4bf", "#fb923c", "#a9b4bc", "#9db8e6", "#f0a3e0", "#46545d", "#e8edf0", "#11181c", "#26323a", 0.38
)  # fmt: skip
PAPER = Ink(
    better="var(--good)",
    worse="var(--bad)",
    unclear="var(--soft)",
    accent="var(--first)",
    second="var(--second)",
    line="var(--line)",
    text="var(--ink)",
    ground="var(--paper)",
    middle="var(--panel)",
)
"""The variables of ``templates/style.css``: one picture in light, in dark and on paper."""
_THEMED = tuple(field.name for field in fields(Ink) if field.name != "depth")


def inked(spec: Any, colours: Ink) -> Any:
    """A specification made with ``PAPER`` in the colours of a theme; nothing else changes."""
    known = {getattr(PAPER, name): getattr(colours, name) for name in _THEMED}

    def turned(value: Any) -> Any:
        if isinstance(value, str):
            return known.get(value, value)
        if isinstance(value, Mapping):
            return {key: turned(entry) for key, entry in value.items()}
        return [turned(entry) for entry in value] if isinstance(value, list | tuple) else value

    return turned(spec)


def forest(rows: Rows, colours: Ink, *, title: str = NET, unit: Unit = "points", pick: bool = False) -> Spec:
    """Intervals below each other: ``segment``, ``kind``, ``value``, ``low``, ``high``, ``verdict``, ``n``.

    Rows keep their order; several ``kind``s of one segment stand below each other, told apart by shape. The name and n
    stand above the interval and the figures with the verdict on the right, so that nothing is cut on a phone. ``unit``
    is ``points`` (differences, even at 0) or ``share`` (win rates, even at one half). A click picks ``segment``.

    Raises ``ValueError`` for more than three ``kind``s.
    """
    even = 0.0 if unit == "points" else 0.5
    names = list(dict.fromkeys(str(row["segment"]) for row in rows))
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    step = _NAME + _STEP * max(1, len(kinds))
    first = {str(row["segment"]): row for row in reversed(rows)}
    heads = [
        {"top": step * at + 13, "name": f"{cut(name, _LETTERS)} · n {first[name]['n']:,}", "segment": name,
         "said": _figures(first[name], unit), "verdict": first[name]["verdict"]}
        for at, name in enumerate(names)
    ]  # fmt: skip
    marks = [
        {**row, **{end: _held(row[end], even) for end in ("value", "low", "high")},
         "y": step * names.index(str(row["segment"])) + _NAME + _STEP * kinds.index(str(row["kind"])) + 3}
        for row in rows
    ]  # fmt: skip
    evens = [{"even": even, "y": step * at + _NAME - 3, "foot": step * (at + 1) - 4} for at in range(len(names))]
    colour = {
        "field": "verdict", "type": "nominal", "legend": None,
        "scale": {"domain": ["better", "unclear", "worse"],
                  "range": [colours.better, colours.unclear, colours.worse]},
    }  # fmt: skip
    x = _holding([even, *(mark[end] for mark in marks for end in ("value", "low", "high"))], title, unit)
    legend = {"orient": "bottom", "symbolFillColor": colours.text, "symbolStrokeColor": colours.text}
    point: Spec = {
        "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
        "encoding": {
            "y": pixel("y"), "x": {"field": "value", "type": "quantitative"}, "color": colour,
            "shape": {"field": "kind", "type": "nominal", "sort": kinds, "title": None,
                      "scale": {"domain": kinds, "range": _looks("kinds of interval", kinds, _SHAPES)},
                      "legend": legend if len(kinds) > 1 else None},
            "tooltip": tips(("segment", ""), ("kind", ""), ("value", "+.1%" if unit == "points" else ".1%"),
                            ("low", ".1%"), ("high", ".1%"), ("n", ","), ("verdict", "")),
        },
    }  # fmt: skip
    if pick:
        point["params"] = [{"name": PICK, "select": {"type": "point", "fields": ["segment"]}}]
        point["encoding"]["opacity"] = {"condition": {"param": PICK, "value": 1, "empty": True}, "value": 0.35}
    name = {"type": "text", "align": "left", "fontSize": 12, "color": colours.text}
    said = "; ".join(f"{head['name']}: {head['said']}" for head in heads)
    return assembled(
        marks,
        [
            {"mark": {"type": "rule", "color": colours.unclear, "strokeDash": [4, 3]}, "data": {"values": evens},
             "encoding": {"x": {"field": "even", "type": "quantitative"}, "y": pixel("y"), "y2": {"field": "foot"}}},
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"y": pixel("y"), "color": colour, "x": x, "x2": {"field": "high"}}},
            point,
            {"mark": name, "data": {"values": heads},
             "encoding": {"y": pixel("top"), "x": {"value": 0}, "text": {"field": "name", "type": "nominal"}}},
            {"mark": {**name, "align": "right"} | {"color": colours.unclear}, "data": {"values": heads},
             "encoding": {"y": pixel("top"), "x": {"value": "width"}, "text": {"field": "said", "type": "nominal"},
                          "color": colour}},
        ],
        colours,
        height=step * len(names) + _BELOW + (_LEGEND if len(kinds) > 1 else 0),
        said=said,
    )  # fmt: skip


def _holding(values: Sequence[float], title: str, unit: Unit) -> Spec:
    """The axis of ``low`` that holds all values and is labelled at both ends."""
    ticks = rounded(min(values), max(values), count=5)
    told = {"labelExpr": POINTS} if unit == "points" else {"format": ".0%"}
    return {"field": "low", "type": "quantitative", "title": title, "axis": {**told, "values": ticks, "grid": False},
            "scale": {"domain": [ticks[0], ticks[-1]], "zero": False, "nice": False}}  # fmt: skip


def _looks(what: str, names: Sequence[str], looks: Sequence[Any]) -> list[Any]:
    """As many looks as there are names; raises ``ValueError`` where a chart has too few to tell them apart."""
    if len(names) > len(looks):
        raise ValueError(f"{len(names)} {what} in one chart ({', '.join(names)}): it tells {len(looks)} apart")
    return list(looks[: len(names)])


def _figures(row: Mapping[str, Any], unit: Unit) -> str:
    """``-54 [-69, -38] worse``: short enough to stand beside a name on a phone; the tables have the decimals."""
    sign, ending = ("+", "") if unit == "points" else ("", "%")
    shown = [f"{100 * row[end] + 0.0:{sign}.0f}" if math.isfinite(row[end]) and abs(row[end]) < 1e4 else "–"
             for end in ("value", "low", "high")]  # fmt: skip
    return f"{shown[0]}{ending} [{shown[1]}, {shown[2]}] {row['verdict']}"


def _held(value: float, even: float) -> float:
    return even if math.isnan(value) else min(max(float(value), -_SANE), _SANE)


def reliability(lines: Rows, band: Rows, colours: Ink) -> Spec:
    """A reliability diagram: ``lines`` (``name``, ``forecast``, ``observed``, ``n``) over the ``band`` that a perfectly
    calibrated judge stays in (``forecast``, ``low``, ``high``, ``n``), the diagonal, and along the foot how many labels
    stand where (twenty bins, the fullest an eighth of the picture).
    """
    names = list(dict.fromkeys(str(row["name"]) for row in lines))
    x = _share("forecast", "What the judge says: preference for the candidate")
    y = _share("observed", "What people say: share for it")
    dashes = {"domain": names, "range": [[1, 0], [5, 3]][: len(names)]}
    told = {"domain": names, "range": [colours.accent, colours.second][: len(names)]}
    colour = {"field": "name", "type": "nominal", "scale": told, "title": None, "legend": _STROKES}
    dash = {"field": "name", "type": "nominal", "scale": dashes, "legend": None}
    seen = tips(("name", ""), ("forecast", ".2f"), ("observed", ".2f"), ("n", ","))
    first = [row for row in lines if row["name"] == names[0]] if names else []
    said = "; ".join(f"forecast {row['forecast']:.2f}, observed {row['observed']:.2f}, n {row['n']}" for row in first)
    return assembled(
        lines,
        [
            {"mark": {"type": "rect", "color": colours.unclear, "opacity": 0.35},
             "data": {"values": _foot(first)},
             "encoding": {"x": {**x, "field": "from"}, "x2": {"field": "to"}, "y": {**y, "field": "floor"},
                          "y2": {"field": "top"}}},
            {"mark": {"type": "area", "color": colours.unclear, "opacity": 0.25},
             "data": {"values": [dict(row) for row in band]},
             "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "line", "color": colours.unclear, "strokeDash": [4, 3], "strokeWidth": 1.5},
             "data": {"values": [{"forecast": 0, "observed": 0}, {"forecast": 1, "observed": 1}]},
             "encoding": {"x": x, "y": y}},
            {"mark": {"type": "line", "strokeWidth": 2},
             "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash}},
            {"mark": {"type": "point", "filled": True, "size": 18, "opacity": 1},
             "encoding": {"x": x, "y": y, "color": colour, "tooltip": seen}},
        ],
        colours,
        height=380,
        said=said,
    )  # fmt: skip


def _foot(rows: Rows) -> list[Spec]:
    bins = [0] * _BINS
    for row in rows:
        bins[min(int(min(max(row["forecast"], 0.0), 1.0) * _BINS), _BINS - 1)] += row["n"]
    return [
        {"from": k / _BINS + 0.003, "to": (k + 1) / _BINS - 0.003, "floor": 0, "top": n / max(bins) / 8}
        for k, n in enumerate(bins)
        if n
    ]


def risk(rows: Rows, colours: Ink, *, levels: Sequence[float] = ()) -> Spec:
    """The selective curve: ``coverage``, ``risk``, ``bound``, ``threshold``, ``n``, in order of coverage.

    ``levels`` are tolerated error rates, drawn across with their name.
    """
    top = min(1.0, max([0.25, *(1.1 * row["risk"] for row in rows), *(1.1 * row["bound"] for row in rows[-1:])]))
    drawn = [
        {**row, "name": name, "errors": min(row[end], top)}
        for name, end in (("errors seen", "risk"), ("upper bound (90%)", "bound"))
        for row in rows
    ]
    names = ["errors seen", "upper bound (90%)"]
    x = _share("coverage", "Share of pairs that the judge decides alone")
    y = {"field": "errors", "type": "quantitative", "title": "Errors among them",
         "axis": {"format": ".0%", "tickCount": 5}, "scale": {"domain": [0, top], "nice": False}}  # fmt: skip
    colour = {"field": "name", "type": "nominal", "title": None, "legend": _STROKES,
              "scale": {"domain": names, "range": [colours.accent, colours.worse]}}  # fmt: skip
    dash = {"field": "name", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": [[1, 0], [5, 3]]}}  # fmt: skip
    seen = tips(("threshold", ".3f"), ("coverage", ".0%"), ("risk", ".1%"), ("bound", ".1%"), ("n", ","))
    across = [{"errors": level, "name": f"{level:.0%}", "all": 1} for level in levels if level <= top]
    told = (f"coverage {r['coverage']:.2f}: errors {r['risk']:.3f}, bound {r['bound']:.3f}, n {r['n']}" for r in rows)
    return assembled(
        drawn,
        [
            {"mark": {"type": "rule", "color": colours.unclear, "strokeDash": [2, 3]}, "data": {"values": across},
             "encoding": {"y": y}},
            {"mark": {"type": "text", "align": "right", "dy": -7, "fontSize": 12, "color": colours.unclear},
             "data": {"values": across},
             "encoding": {"x": {**x, "field": "all"}, "y": y, "text": {"field": "name", "type": "nominal"}}},
            {"mark": {"type": "line", "strokeWidth": 2},
             "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash}},
            {"mark": {"type": "point", "filled": True, "size": 25, "opacity": 1},
             "encoding": {"x": x, "y": y, "color": colour, "tooltip": seen}},
        ],
        colours,
        height=300,
        said="; ".join(list(told)[::4]),
    )  # fmt: skip


def sums(series: Mapping[str, Sequence[float]], colours: Ink, *, limit: float, title: str) -> Spec:
    """Sums over time (two at most) with the limit that raises an alarm; long ones keep the highest of each stretch."""
    points = {
        name: [(k + 1, value) for k, value in _thinned([x if math.isfinite(x) else 0.0 for x in values])]
        for name, values in series.items()
    }
    most = max((len(values) for values in series.values()), default=0)
    peaks = ", ".join(f"{name} {max(values, default=0.0):.3g}" for name, values in series.items())
    said = f"{counted(most, 'value')}; highest {peaks}; limit {limit:.3g}"
    return trace(points, colours, titles=(title, "Sum"), said=said, limit=limit)


def trace(
    series: Mapping[str, Sequence[tuple[float, float]]],
    colours: Ink,
    *,
    titles: tuple[str, str],
    said: str,
    limit: float | None = None,
) -> Spec:
    """Figures over steps, two lines at most; ``titles`` are of the axes, ``limit`` is a line that means alarm.

    Raises ``ValueError`` for a third line.
    """
    names = [name for name, points in series.items() if points]
    rows = [{"name": name, "at": at, "value": value} for name in names for at, value in series[name]]
    x = {"field": "at", "type": "quantitative", "title": titles[0], "axis": {"format": ",.0f", "tickCount": 5},
         "scale": {"zero": False, "nice": False}}  # fmt: skip
    y = {"field": "value", "type": "quantitative", "title": titles[1], "axis": {"format": ".4g", "tickCount": 5},
         "scale": {"zero": limit is not None, "nice": True}}  # fmt: skip
    colour = {"field": "name", "type": "nominal", "title": None, "legend": _STROKES,
              "scale": {"domain": names, "range": [colours.accent, colours.second][: len(names)]}}  # fmt: skip
    dash = {"field": "name", "type": "nominal", "legend": None,
            "scale": {"domain": names, "range": _looks("lines", names, _DASHES)}}  # fmt: skip
    end = max((points[-1][0] for points in series.values() if points), default=0)
    across = {"values": [] if limit is None else [{"value": limit, "name": f"limit {limit:.3g}", "at": end}]}
    return assembled(
        rows,
        [
            {"mark": {"type": "rule", "color": colours.worse, "strokeDash": [2, 3]}, "data": across,
             "encoding": {"y": y}},
            {"mark": {"type": "text", "align": "right", "dy": -7, "fontSize": 12, "color": colours.worse},
             "data": across, "encoding": {"x": x, "y": y, "text": {"field": "name", "type": "nominal"}}},
            {"mark": {"type": "line", "strokeWidth": 2},
             "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash}},
        ],
        colours,
        height=230,
        said=said,
    )  # fmt: skip


def _thinned(series: Sequence[float]) -> list[tuple[int, float]]:
    step = max(1, math.ceil(len(series) / _MARKS))
    ends = range(0, len(series), step)
    return [
        max(((k, series[k]) for k in range(at, min(at + step, len(series)))), key=lambda point: point[1]) for at in ends
    ]


def rounded(low: float, high: float, *, count: int, least: float = 0.0) -> list[float]:
    """Round places along an axis of which the first is not above ``low`` and the last not below ``high``, about
    ``count`` steps, of at least ``least`` where counts are shown: an axis of these holds everything, and its ends are
    labelled.
    """
    if high - low <= 1e-12 * max(1.0, abs(low)):
        room = max(0.05, abs(low) * 1e-6)
        low, high = low - room, high + room
    raw = max((high - low) / count, least)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if least else (1, 2, 2.5, 5, 10)  # half a count is none
    step = next(power * factor for factor in factors if power * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def pixel(field: str) -> Spec:
    """A place in pixels, not on a scale."""
    return {"field": field, "type": "quantitative", "scale": None, "axis": None}


def _share(field: str, title: str) -> Spec:
    """An axis from nothing to everything."""
    return {"field": field, "type": "quantitative", "title": title, "axis": {"format": ".0%", "tickCount": 5},
            "scale": {"domain": [0, 1], "nice": False}}  # fmt: skip


def measured(field: str, title: str, fmt: str) -> Spec:
    """A vertical axis that begins where the values do."""
    return {"field": field, "type": "quantitative", "title": title, "axis": {"format": fmt, "tickCount": 5},
            "scale": {"zero": False, "nice": True}}  # fmt: skip


def tips(*fields: tuple[str, str]) -> list[Spec]:
    """What a mark says when it is pointed at: fields with a number format, or as they are."""
    return [
        {
            "field": name,
            "title": name.replace("_", " "),
            **({"format": fmt, "type": "quantitative"} if fmt else {"type": "nominal"}),
        }
        for name, fmt in fields
    ]


def assembled(rows: Rows, layers: list[Spec], colours: Ink, *, height: float, said: str = "", **rest: Any) -> Spec:
    """Layers over shared rows as one chart as wide as its place; ``said`` is read aloud in its stead."""
    told = {"labelColor": colours.text, "titleColor": colours.text}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": said,
        "data": {"values": [dict(row) for row in rows]},
        "width": "container",
        "height": height,
        "layer": layers,
        "config": {
            "axis": {**told, "gridColor": colours.line, "gridOpacity": 0.5, "domainColor": colours.line,
                     "tickColor": colours.line},
            "legend": told,
        },
        **rest,
    }  # fmt: skip
