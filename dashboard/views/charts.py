"""Charts as Vega-Lite specifications: plain values in, a dictionary out, data inside, nothing fetched.

Colours are per theme and never alone: better, unclear and worse also differ in shape and in a written word. Every
specification takes the width of its place and carries a title for each axis, so that it can stand in a page, in an HTML
report or in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "PICK",
    "Ink",
    "bars",
    "confusion",
    "control",
    "curve",
    "forest",
    "heat",
    "histogram",
    "ink",
    "over_runs",
    "reliability",
]

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

_POINTS = "datum.value === 0 ? '0' : format(100 * datum.value, '+.0f')"
"""Shares of one as percentage points on an axis."""
PICK = "pick"
"""The name of the selection that a click makes, where a chart has one."""
_ROW = 30


@dataclass(frozen=True, slots=True)
class Ink:
    """The colours of one theme; each has a contrast of at least 4.5 against that theme's background."""

    better: str
    worse: str
    unclear: str
    accent: str
    line: str
    text: str
    middle: str
    """The middle of a diverging scale."""
    depth: float
    """How far a cell's colour may go from the middle, so that the text in it keeps its contrast."""

    def soft(self, colour: str) -> str:
        """A colour as the deepest ground that the theme's text can still be read on."""
        mixed = [
            round(int(self.middle[k : k + 2], 16) * (1 - self.depth) + int(colour[k : k + 2], 16) * self.depth)
            for k in (1, 3, 5)
        ]
        return "#" + "".join(f"{part:02x}" for part in mixed)


_LIGHT = Ink("#0b7a75", "#b93c0a", "#5b6670", "#34507a", "#b4bec5", "#11181c", "#eef1f2", 0.55)
_DARK = Ink("#2dd4bf", "#fb923c", "#a9b4bc", "#9db8e6", "#46545d", "#e8edf0", "#26323a", 0.38)


def ink(*, dark: bool) -> Ink:
    """The colours of the light or the dark theme."""
    return _DARK if dark else _LIGHT


def forest(rows: Rows, colours: Ink, *, title: str = "Net win rate, percentage points", pick: bool = True) -> Spec:
    """Segments with intervals: ``segment``, ``kind``, ``value``, ``low``, ``high``, ``verdict``, ``n``.

    Rows keep their order. Several ``kind``s of one segment stand below each other, told apart by shape. ``verdict`` is
    written at the right edge. A click picks ``segment``.
    """
    names = list(dict.fromkeys(str(row["segment"]) for row in rows))
    kinds = list(dict.fromkeys(str(row["kind"]) for row in rows))
    y: Spec = {
        "field": "segment", "type": "nominal", "sort": names, "title": None,
        "axis": {"labelLimit": 170, "ticks": False, "domain": False, "labelOverlap": False, "labelBound": False,
                 "labelFlush": False},
    }  # fmt: skip
    offset = {"yOffset": {"field": "kind", "type": "nominal", "sort": kinds}} if len(kinds) > 1 else {}
    colour = _verdicts(colours)
    first = [row for row in rows if row["kind"] == kinds[0]] if kinds else []
    tips = _tips(
        ("segment", ""), ("kind", ""), ("value", "+.1%"), ("low", "+.1%"), ("high", "+.1%"), ("n", ","), ("verdict", "")
    )
    point: Spec = {
        "mark": {"type": "point", "filled": True, "size": 75, "opacity": 1},
        "encoding": {
            "y": y, **offset, "x": {"field": "value", "type": "quantitative"}, "color": colour,
            "shape": {"field": "kind", "type": "nominal", "sort": kinds, "title": None,
                      "scale": {"domain": kinds, "range": ["circle", "diamond", "square"][: len(kinds)]},
                      "legend": {"orient": "top", "symbolFillColor": colours.text, "symbolStrokeColor": colours.text}
                      if len(kinds) > 1 else None},
            "tooltip": tips,
        },
    }  # fmt: skip
    if pick:
        point["params"] = [{"name": PICK, "select": {"type": "point", "fields": ["segment"]}}]
        point["encoding"]["opacity"] = {"condition": {"param": PICK, "value": 1, "empty": True}, "value": 0.35}
    return _chart(
        rows,
        [
            {"mark": {"type": "rule", "color": colours.text, "strokeDash": [4, 3]}, "data": {"values": [{}]},
             "encoding": {"x": {"datum": 0}}},
            {"mark": {"type": "rule", "strokeWidth": 2},
             "encoding": {"y": y, **offset, "color": colour,
                          "x": {"field": "low", "type": "quantitative", "title": title,
                                "axis": {"labelExpr": _POINTS, "tickCount": 5}, "scale": {"nice": True}},
                          "x2": {"field": "high"}}},
            point,
            *(_side(text, align, dx, colours) for text, align, dx in
              (("baseline better", "right", -8), ("candidate better", "left", 8))),
            {"mark": {"type": "text", "align": "right", "dx": 52, "fontSize": 12, "clip": False},
             "data": {"values": [dict(row) for row in first]},
             "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "verdict"}, "color": colour}},
        ],
        colours,
        height=_ROW * len(names) * (1 if len(kinds) < 2 else 1.5) + (60 if len(kinds) < 2 else 100),
        padding={"left": 5, "top": 5, "bottom": 5, "right": 58},
    )  # fmt: skip


def bars(rows: Rows, colours: Ink, *, pick: bool = False) -> Spec:
    """Wins, ties and losses of each ``segment`` as shares of one bar, with the share written where it fits."""
    names = list(dict.fromkeys(str(row["segment"]) for row in rows))
    parts = ("win", "tie", "loss")
    values = []
    for row in rows:
        start = 0.0
        for part in parts:
            share = float(row[part] or 0.0)
            values.append(
                {"segment": row["segment"], "part": part, "share": share, "from": start, "to": start + share,
                 "said": f"{share:.0%}" if share >= 0.09 else ""}
            )  # fmt: skip
            start += share
    y = {"field": "segment", "type": "nominal", "sort": names, "title": None,
         "axis": {"labelLimit": 170, "ticks": False, "domain": False, "labelOverlap": False, "labelBound": False,
                 "labelFlush": False}}  # fmt: skip
    scale = {"domain": list(parts), "range": [colours.better, colours.line, colours.worse]}
    bar: Spec = {
        "mark": {"type": "bar", "height": 18},
        "encoding": {
            "y": y, "x": {"field": "from", "type": "quantitative", "title": "Share of judged pairs",
                          "axis": {"format": ".0%", "tickCount": 5}, "scale": {"domain": [0, 1]}},
            "x2": {"field": "to"},
            "color": {"field": "part", "type": "nominal", "scale": scale, "sort": list(parts), "title": None,
                      "legend": {"orient": "top"}},
            "tooltip": _tips(("segment", ""), ("part", ""), ("share", ".1%")),
        },
    }  # fmt: skip
    if pick:
        bar["params"] = [{"name": PICK, "select": {"type": "point", "fields": ["segment", "part"]}}]
    dark = colours is _DARK
    said = {
        "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 12},
        "encoding": {
            "y": y, "x": {"field": "from", "type": "quantitative"}, "text": {"field": "said"},
            "color": {"condition": {"test": "datum.part == 'tie'", "value": colours.text},
                      "value": "#0b1214" if dark else "#ffffff"},
        },
    }  # fmt: skip
    return _chart(values, [bar, said], colours, height=_ROW * len(names) + 100)


def heat(rows: Rows, colours: Ink) -> Spec:
    """A two-way table of net win rates: ``row``, ``column``, ``net``, ``n``, ``verdict``, each number in its cell.

    A click picks ``row`` and ``column``.
    """
    values = [
        {**row, "said": f"{row['net']:+.0%}" if row["net"] is not None else f"n {row['n']}"}
        for row in rows
    ]  # fmt: skip
    x = {"field": "column", "type": "nominal", "title": None, "axis": {"labelAngle": -30, "labelLimit": 120}}
    y = {"field": "row", "type": "nominal", "title": None, "axis": {"labelLimit": 170}}
    deep = [colours.soft(colours.worse), colours.middle, colours.soft(colours.better)]
    cell: Spec = {
        "mark": {"type": "rect", "stroke": colours.line, "strokeWidth": 1},
        "params": [{"name": PICK, "select": {"type": "point", "fields": ["row", "column"]}}],
        "encoding": {
            "x": x, "y": y,
            "color": {"condition": {"test": "datum.net === null", "value": "transparent"}, "field": "net",
                      "type": "quantitative", "title": "net", "legend": None,
                      "scale": {"domain": [-1, 0, 1], "interpolate": "rgb", "range": deep}},
            "tooltip": _tips(("row", ""), ("column", ""), ("net", "+.1%"), ("net_low", "+.1%"), ("net_high", "+.1%"),
                             ("n", ","), ("verdict", "")),
        },
    }  # fmt: skip
    said = {
        "mark": {"type": "text", "fontSize": 12},
        "encoding": {"x": x, "y": y, "text": {"field": "said"}, "color": {"value": colours.text}},
    }
    return _chart(values, [cell, said], colours, height=34 * len({row["row"] for row in rows}) + 90)


def over_runs(rows: Rows, colours: Ink, *, title: str, fmt: str, marks: Rows = ()) -> Spec:
    """A measure over runs in time, with intervals: ``run``, ``at`` (ISO time), ``value``, ``low``, ``high``, ``n``.

    ``marks`` are changes of rubric or judge: ``run`` and ``what``, drawn as a labelled line before the run.
    """
    order = [str(row["run"]) for row in rows]
    x = {
        "field": "run",
        "type": "ordinal",
        "sort": order,
        "title": None,
        "axis": {"labelAngle": -40, "labelLimit": 110},
    }
    tips = _tips(("run", ""), ("at", ""), ("value", fmt), ("low", fmt), ("high", fmt), ("n", ","))
    layers: list[Spec] = [
        {"mark": {"type": "line", "color": colours.line, "strokeWidth": 1.5},
         "encoding": {"x": x, "y": _y("value", title, fmt)}},
        {"mark": {"type": "rule", "color": colours.accent, "strokeWidth": 2},
         "encoding": {"x": x, "y": _y("low", title, fmt), "y2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 70, "color": colours.accent, "opacity": 1},
         "encoding": {"x": x, "y": _y("value", title, fmt), "tooltip": tips}},
    ]  # fmt: skip
    for at, mark in enumerate(marks):
        own = {"data": {"values": [dict(mark)]}}
        rule = {"type": "rule", "color": colours.worse, "strokeDash": [5, 3]}
        text = {"type": "text", "align": "right", "dx": -4, "color": colours.worse, "fontSize": 11}
        said = {"x": x, "y": {"value": 8 + 14 * (at % 3)}, "text": {"field": "what"}}
        layers += [{"mark": rule, **own, "encoding": {"x": x}}, {"mark": text, **own, "encoding": said}]
    return _chart(rows, layers, colours, height=230)


def control(rows: Rows, colours: Ink, *, title: str, fmt: str, alarm: int | None = None) -> Spec:
    """A control chart of one run: ``stretch``, ``value``, ``centre``, ``low``, ``high``, ``state``.

    The band is the limit, labelled; stretches outside it have another colour and shape. ``alarm`` is the first stretch
    at which a CUSUM passed its limit, drawn as a labelled line.
    """
    x = {"field": "stretch", "type": "quantitative", "title": "Stretch of the run, in order of judging",
         "axis": {"tickMinStep": 1}}  # fmt: skip
    states = {"domain": ["inside", "outside"], "range": [colours.accent, colours.worse]}
    layers: list[Spec] = [
        {"mark": {"type": "area", "color": colours.line, "opacity": 0.35},
         "encoding": {"x": x, "y": _y("low", title, fmt), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "color": colours.text, "strokeDash": [4, 3]},
         "encoding": {"x": x, "y": _y("centre", title, fmt)}},
        {"mark": {"type": "line", "color": colours.accent, "strokeWidth": 1.2},
         "encoding": {"x": x, "y": _y("value", title, fmt)}},
        {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
         "encoding": {"x": x, "y": _y("value", title, fmt),
                      "color": {"field": "state", "type": "nominal", "scale": states,
                                "title": "against the 3-sigma limits", "legend": {"orient": "top"}},
                      "shape": {"field": "state", "type": "nominal",
                                "scale": {"domain": ["inside", "outside"], "range": ["circle", "triangle-up"]}},
                      "tooltip": _tips(("stretch", ""), ("value", fmt), ("low", fmt), ("high", fmt), ("n", ","),
                                       ("state", ""))}},
    ]  # fmt: skip
    if alarm is not None:
        layers += [
            {"mark": {"type": "rule", "color": colours.worse, "strokeWidth": 1.5}, "data": {"values": [{}]},
             "encoding": {"x": {"datum": alarm}}},
            {"mark": {"type": "text", "align": "left", "dx": 5, "color": colours.worse, "fontSize": 12},
             "data": {"values": [{}]},
             "encoding": {"x": {"datum": alarm}, "y": {"value": 8},
                          "text": {"value": f"first alarm: stretch {alarm}"}}},
        ]  # fmt: skip
    return _chart(rows, layers, colours, height=230)


def histogram(rows: Rows, colours: Ink, *, title: str, fmt: str = "", ticks: Sequence[float] = ()) -> Spec:
    """Counts by bin: ``low``, ``high``, ``n``; ``ticks`` are the labelled places of the axis."""
    axis = {**({"format": fmt} if fmt else {}), **({"values": list(ticks)} if ticks else {})}
    layer = {
        "mark": {"type": "bar", "color": colours.accent},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "title": title, "bin": {"binned": True},
                  "axis": axis},
            "x2": {"field": "high"},
            "y": {"field": "n", "type": "quantitative", "title": "pairs"},
            "tooltip": _tips(("low", ".2f"), ("high", ".2f"), ("n", ",")),
        },
    }  # fmt: skip
    return _chart(rows, [layer], colours, height=200)


def reliability(lines: Rows, band: Rows, colours: Ink) -> Spec:
    """A reliability diagram: ``lines`` (``name``, ``forecast``, ``observed``, ``n``) over the ``band`` that a perfectly
    calibrated judge stays in (``forecast``, ``low``, ``high``), and the diagonal.
    """
    names = list(dict.fromkeys(str(row["name"]) for row in lines))
    x = {"field": "forecast", "type": "quantitative", "title": "What the judge says: P(candidate wins)",
         "scale": {"domain": [0, 1]}}  # fmt: skip
    dashes = {"domain": names, "range": [[1, 0], [5, 3]][: len(names)]}
    told = {"domain": names, "range": [colours.accent, colours.better][: len(names)]}
    colour = {"field": "name", "type": "nominal", "scale": told, "title": None, "legend": {"orient": "top"}}
    return _chart(
        lines,
        [
            {"mark": {"type": "area", "color": colours.line, "opacity": 0.4},
             "data": {"values": [dict(row) for row in band]},
             "encoding": {"x": x, "y": {"field": "low", "type": "quantitative",
                                        "title": "What people say", "scale": {"domain": [0, 1]}},
                          "y2": {"field": "high"}}},
            {"mark": {"type": "line", "color": colours.text, "strokeDash": [4, 3]},
             "data": {"values": [{"forecast": 0, "observed": 0}, {"forecast": 1, "observed": 1}]},
             "encoding": {"x": x, "y": {"field": "observed", "type": "quantitative"}}},
            {"mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2},
             "encoding": {"x": x, "y": {"field": "observed", "type": "quantitative"}, "color": colour,
                          "strokeDash": {"field": "name", "type": "nominal", "scale": dashes, "legend": None}}},
            {"mark": {"type": "point", "filled": True, "size": 45, "opacity": 1},
             "encoding": {"x": x, "y": {"field": "observed", "type": "quantitative"}, "color": colour,
                          "tooltip": _tips(("name", ""), ("forecast", ".2f"), ("observed", ".2f"), ("n", ","))}},
        ],
        colours,
        height=330,
    )  # fmt: skip


def curve(rows: Rows, colours: Ink) -> Spec:
    """The selective curve: ``coverage``, ``risk``, ``bound``, ``threshold``, ``n``."""
    x = {"field": "coverage", "type": "quantitative", "title": "Share of pairs that the judge decides alone",
         "axis": {"format": ".0%"}, "scale": {"domain": [0, 1]}}  # fmt: skip
    tips = _tips(("threshold", ".3f"), ("coverage", ".0%"), ("risk", ".1%"), ("bound", ".1%"), ("n", ","))
    return _chart(
        rows,
        [
            {"mark": {"type": "line", "color": colours.worse, "strokeDash": [5, 3]},
             "encoding": {"x": x, "y": _y("bound", "Errors (dashed: upper bound)", ".0%")}},
            {"mark": {"type": "line", "color": colours.accent, "strokeWidth": 2, "point": True},
             "encoding": {"x": x, "y": _y("risk", "Errors (dashed: upper bound)", ".0%"), "tooltip": tips}},
        ],
        colours,
        height=260,
    )  # fmt: skip


def confusion(rows: Rows, colours: Ink, *, x_title: str, y_title: str) -> Spec:
    """A table of counts: ``row``, ``column``, ``n``; the count and its share of the row stand in each cell."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["row"]] = totals.get(row["row"], 0) + row["n"]
    values = [{**row, "share": row["n"] / (totals[row["row"]] or 1), "said": f"{row['n']:,}"} for row in rows]
    order, deep = ["win", "tie", "loss", "invalid"], [colours.middle, colours.soft(colours.accent)]
    x = {
        "field": "column",
        "type": "nominal",
        "sort": order,
        "title": x_title,
        "axis": {"labelAngle": 0, "orient": "top"},
    }
    y = {"field": "row", "type": "nominal", "sort": order, "title": y_title}
    return _chart(
        values,
        [
            {"mark": {"type": "rect", "stroke": colours.line},
             "params": [{"name": PICK, "select": {"type": "point", "fields": ["row", "column"]}}],
             "encoding": {"x": x, "y": y, "tooltip": _tips(("row", ""), ("column", ""), ("n", ","), ("share", ".0%")),
                          "color": {"field": "share", "type": "quantitative", "legend": None,
                                    "scale": {"domain": [0, 1], "range": deep}}}},
            {"mark": {"type": "text", "fontSize": 14},
             "encoding": {"x": x, "y": y, "text": {"field": "said"}, "color": {"value": colours.text}}},
        ],
        colours,
        height=44 * max(1, len(totals)) + 70,
    )  # fmt: skip


def _side(text: str, align: str, dx: int, colours: Ink) -> Spec:
    """What a side of the zero line means, written above it."""
    return {
        "mark": {"type": "text", "align": align, "dx": dx, "fontSize": 12, "color": colours.text, "clip": False},
        "data": {"values": [{}]},
        "encoding": {"x": {"datum": 0}, "y": {"value": -10}, "text": {"value": text}},
    }


def _verdicts(colours: Ink) -> Spec:
    return {
        "field": "verdict", "type": "nominal", "legend": None,
        "scale": {"domain": ["better", "unclear", "worse"],
                  "range": [colours.better, colours.unclear, colours.worse]},
    }  # fmt: skip


def _y(field: str, title: str, fmt: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "axis": {"format": fmt, "tickCount": 5},
            "scale": {"zero": False, "nice": True}}  # fmt: skip


def _tips(*fields: tuple[str, str]) -> list[Spec]:
    return [
        {
            "field": name,
            "title": name.replace("_", " "),
            **({"format": fmt, "type": "quantitative"} if fmt else {"type": "nominal"}),
        }
        for name, fmt in fields
    ]


def _chart(rows: Rows, layers: list[Spec], colours: Ink, *, height: float, **rest: Any) -> Spec:
    told = {"labelColor": colours.text, "titleColor": colours.text}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"values": [dict(row) for row in rows]},
        "width": "container",
        "height": height,
        "layer": layers,
        "config": {
            "axis": {**told, "gridColor": colours.line, "gridOpacity": 0.5},
            "legend": told,
        },
        **rest,
    }
