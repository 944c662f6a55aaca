"""The charts that only a page shows, as Vega-Lite specifications; ``judge.render.charts`` has the others.

Plain values in, a dictionary out, data inside, nothing fetched.
"""

from __future__ import annotations

from collections.abc import Sequence

from judge.render.charts import (
    DARK,
    LIGHT,
    PICK,
    Ink,
    Rows,
    Spec,
    assembled,
    forest,
    inked,
    measured,
    pixel,
    reliability,
    risk,
    rounded,
    sums,
    tips,
)
from judge.render.words import cut

__all__ = [
    "PICK",
    "Ink",
    "bars",
    "confusion",
    "control",
    "forest",
    "heat",
    "histogram",
    "ink",
    "inked",
    "over_runs",
    "reliability",
    "risk",
    "sums",
]

_LEVEL, _SHORT = 4, 8
"""So many columns with names of at most so many characters fit beside each other on a phone without being turned."""

_ROW = 46


def ink(*, dark: bool) -> Ink:
    """The colours of the light or the dark theme."""
    return DARK if dark else LIGHT


def bars(rows: Rows, colours: Ink) -> Spec:
    """Wins, ties and losses of each ``segment`` as shares of one bar, with the share written where it fits."""
    parts = ("win", "tie", "loss")
    written = {part: colours.text if part == "tie" else colours.ground for part in parts}
    values, names = [], []
    for at, row in enumerate(rows):
        start, top = 0.0, _ROW * at + 20
        names.append({"name": cut(str(row["segment"]), 40), "y": top - 9})
        for part in parts:
            share = float(row[part] or 0.0)
            values.append(
                {"segment": row["segment"], "part": part, "share": share, "from": start, "to": start + share,
                 "top": top, "foot": top + 18, "middle": top + 9, "ink": written[part],
                 "said": f"{share:.0%}" if share >= 0.09 else ""}
            )  # fmt: skip
            start += share
    scale = {"domain": list(parts), "range": [colours.better, colours.line, colours.worse]}
    x: Spec = {"field": "from", "type": "quantitative", "title": "Share of judged pairs",
               "axis": {"format": ".0%", "tickCount": 5}, "scale": {"domain": [0, 1], "nice": False}}  # fmt: skip
    bar: Spec = {
        "mark": {"type": "rect"},
        "encoding": {
            "y": pixel("top"), "y2": {"field": "foot"}, "x": x, "x2": {"field": "to"},
            "color": {"field": "part", "type": "nominal", "scale": scale, "sort": list(parts), "title": None,
                      "legend": {"orient": "bottom"}},
            "tooltip": tips(("segment", ""), ("part", ""), ("share", ".1%")),
        },
    }  # fmt: skip
    said = {
        "mark": {"type": "text", "align": "left", "dx": 4, "fontSize": 12},
        "encoding": {"y": pixel("middle"), "x": x, "text": {"field": "said", "type": "nominal"},
                     "fill": {"field": "ink", "type": "nominal", "scale": None}},
    }  # fmt: skip
    name = {
        "mark": {"type": "text", "align": "left", "fontSize": 12, "color": colours.text},
        "data": {"values": names},
        "encoding": {"y": pixel("y"), "x": {"value": 0}, "text": {"field": "name", "type": "nominal"}},
    }
    told = "; ".join(
        f"{row['segment']}: " + ", ".join(f"{part} {row[part] or 0.0:.0%}" for part in parts) for row in rows
    )
    return assembled(values, [bar, said, name], colours, height=_ROW * len(rows) + 116, said=told)


def heat(rows: Rows, colours: Ink) -> Spec:
    """A two-way table of net win rates: ``row``, ``column``, ``net``, ``n``, ``verdict``, each number in its cell.

    A click picks ``row`` and ``column``.
    """
    values = [
        {**row, "said": f"{100 * row['net']:+.0f} pp" if row["net"] is not None else f"n {row['n']}"}
        for row in rows
    ]  # fmt: skip
    long = len({row["column"] for row in rows}) > _LEVEL or any(len(row["column"]) > _SHORT for row in rows)
    angle = -30 if long else 0
    x = {"field": "column", "type": "nominal", "title": None, "axis": {"labelAngle": angle, "labelLimit": 120}}
    y = {"field": "row", "type": "nominal", "title": None, "axis": {"labelLimit": 170}}
    deep = [colours.soft(colours.worse), colours.middle, colours.soft(colours.better)]
    seen = tips(("row", ""), ("column", ""), ("net", "+.1%"), ("net_low", "+.1%"), ("net_high", "+.1%"), ("n", ","),
                ("verdict", ""))  # fmt: skip
    few: Spec = {
        "mark": {"type": "rect", "stroke": colours.line, "strokeWidth": 1, "color": "transparent"},
        "data": {"values": [row for row in values if row["net"] is None]},
        "encoding": {"x": x, "y": y},
    }
    cell: Spec = {
        "mark": {"type": "rect", "stroke": colours.line, "strokeWidth": 1},
        "data": {"values": [row for row in values if row["net"] is not None]},
        "params": [{"name": PICK, "select": {"type": "point", "fields": ["row", "column"]}}],
        "encoding": {
            "x": x, "y": y,
            "color": {"field": "net", "type": "quantitative", "title": "net", "legend": None,
                      "scale": {"domain": [-1, 0, 1], "interpolate": "rgb", "range": deep}},
            "tooltip": seen,
        },
    }  # fmt: skip
    said = {
        "mark": {"type": "text", "fontSize": 12, "color": colours.text},
        "encoding": {"x": x, "y": y, "text": {"field": "said", "type": "nominal"}, "tooltip": seen},
    }
    told = "; ".join(f"{row['row']} and {row['column']}: {row['said']}" for row in values[:40])
    return assembled(values, [few, cell, said], colours, height=34 * len({row["row"] for row in rows}) + 90, said=told)


def over_runs(rows: Rows, colours: Ink, *, title: str, fmt: str, marks: Rows = ()) -> Spec:
    """A measure over runs in time, with intervals: ``run``, ``at`` (ISO time), ``value``, ``low``, ``high``, ``n``,
    ``series``. A line joins neighbours of one series alone: runs that may be read as one system over time.

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
    seen = tips(("run", ""), ("at", ""), ("value", fmt), ("low", fmt), ("high", fmt), ("n", ","))
    series: dict[str, list[Spec]] = {}
    for row in rows:
        series.setdefault(str(row["series"]), []).append(dict(row))
    layers: list[Spec] = [
        *(
            {"mark": {"type": "line", "color": colours.unclear, "strokeWidth": 1.5}, "data": {"values": joined},
             "encoding": {"x": x, "y": measured("value", title, fmt)}}
            for joined in series.values() if len(joined) > 1
        ),
        {"mark": {"type": "rule", "color": colours.accent, "strokeWidth": 2},
         "encoding": {"x": x, "y": measured("low", title, fmt), "y2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 70, "color": colours.accent, "opacity": 1},
         "encoding": {"x": x, "y": measured("value", title, fmt), "tooltip": seen}},
    ]  # fmt: skip
    shown = [mark for mark in marks if mark["run"] in order]
    for at, mark in enumerate(shown):
        own = {"data": {"values": [dict(mark)]}}
        rule = {"type": "rule", "color": colours.worse, "strokeDash": [5, 3]}
        text = {"type": "text", "align": "right", "dx": -4, "color": colours.worse, "fontSize": 11}
        said = {"x": x, "y": {"value": 8 + 14 * (at % 3)}, "text": {"field": "what", "type": "nominal"}}
        layers += [{"mark": rule, **own, "encoding": {"x": x}}, {"mark": text, **own, "encoding": said}]
    return assembled(rows, layers, colours, height=260, said=_told(rows, "run", fmt))


def control(rows: Rows, colours: Ink, *, title: str, fmt: str, alarm: int | None = None) -> Spec:
    """A control chart of one run: ``stretch``, ``value``, ``centre``, ``low``, ``high``, ``state``.

    The band is the limit, labelled; stretches outside it have another colour and shape. ``alarm`` is the first stretch
    at which a CUSUM passed its limit, drawn as a labelled line.
    """
    x = {"field": "stretch", "type": "quantitative", "title": "Stretch of the run, in order of judging",
         "axis": {"tickMinStep": 1, "format": ",.0f"}, "scale": {"zero": False, "nice": False}}  # fmt: skip
    states = {"domain": ["inside", "outside"], "range": [colours.accent, colours.worse]}
    layers: list[Spec] = [
        {"mark": {"type": "area", "color": colours.line, "opacity": 0.35},
         "encoding": {"x": x, "y": measured("low", title, fmt), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "color": colours.text, "strokeDash": [4, 3]},
         "encoding": {"x": x, "y": measured("centre", title, fmt)}},
        {"mark": {"type": "line", "color": colours.accent, "strokeWidth": 1.2},
         "encoding": {"x": x, "y": measured("value", title, fmt)}},
        {"mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
         "encoding": {"x": x, "y": measured("value", title, fmt),
                      "color": {"field": "state", "type": "nominal", "scale": states,
                                "title": "against the 3-sigma limits", "legend": {"orient": "bottom"}},
                      "shape": {"field": "state", "type": "nominal",
                                "scale": {"domain": ["inside", "outside"], "range": ["circle", "triangle-up"]}},
                      "tooltip": tips(("stretch", ""), ("value", fmt), ("low", fmt), ("high", fmt), ("n", ","),
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
    return assembled(rows, layers, colours, height=290, said=_told(rows, "stretch", fmt))


def _told(rows: Rows, key: str, fmt: str) -> str:
    return "; ".join(f"{row[key]}: {format(row['value'], fmt)}" for row in rows[:40])


def histogram(rows: Rows, colours: Ink, *, title: str, fmt: str = "", ticks: Sequence[float] = ()) -> Spec:
    """Counts by bin: ``low``, ``high``, ``n``; ``ticks`` are the labelled places of the axis."""
    axis = {**({"format": fmt} if fmt else {}), **({"values": list(ticks)} if ticks else {})}
    up = rounded(0.0, 1.05 * max((row["n"] for row in rows), default=1), count=4, least=1.0)  # no bar meets the top
    layer = {
        "mark": {"type": "rect", "color": colours.accent, "stroke": colours.ground},
        "encoding": {
            "x": {"field": "low", "type": "quantitative", "title": title, "axis": axis,
                  "scale": {"zero": False, "nice": False}},
            "x2": {"field": "high"},
            "y": {"field": "n", "type": "quantitative", "title": "Pairs", "axis": {"format": ",.0f", "values": up},
                  "scale": {"domain": [0, up[-1]], "nice": False}},
            "y2": {"datum": 0},
            "tooltip": tips(("low", ".2f"), ("high", ".2f"), ("n", ",")),
        },
    }  # fmt: skip
    said = "; ".join(f"{row['low']:.2f} to {row['high']:.2f}: {row['n']:,}" for row in rows)
    return assembled(rows, [layer], colours, height=200, said=said)


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
    return assembled(
        values,
        [
            {"mark": {"type": "rect", "stroke": colours.line},
             "params": [{"name": PICK, "select": {"type": "point", "fields": ["row", "column"]}}],
             "encoding": {"x": x, "y": y, "tooltip": tips(("row", ""), ("column", ""), ("n", ","), ("share", ".0%")),
                          "color": {"field": "share", "type": "quantitative", "legend": None,
                                    "scale": {"domain": [0, 1], "range": deep}}}},
            {"mark": {"type": "text", "fontSize": 14, "color": colours.text},
             "encoding": {"x": x, "y": y, "text": {"field": "said", "type": "nominal"}}},
        ],
        colours,
        height=44 * max(1, len(totals)) + 70,
        said="; ".join(f"{y_title} {row['row']}, {x_title} {row['column']}: {row['n']:,}" for row in rows),
    )  # fmt: skip
