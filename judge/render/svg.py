"""A chart's specification (``charts.py``) as SVG text, without a script, a font or an outside resource.

This draws the part of Vega-Lite that our own specifications use: layers of rule, line, area, rect, point and text over
linear, banded and pixel scales, with legends below and ``tooltip`` as a mark's ``<title>``. Whatever it does not know
is an error, never left out in silence: what a report draws is what the dashboard shows of the same specification.
All text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from .charts import POINTS, Ink
from .words import cut, safe

__all__ = ["WIDTH", "draw", "picture"]

WIDTH = 360
_MARKS = {"rule", "line", "area", "rect", "point", "text"}
_CHANNELS = {"x", "y", "x2", "y2", "color", "fill", "shape", "strokeDash", "text", "opacity", "tooltip"}
_LETTER = 7.2
"""Pixels of a letter at 12 pixels of height, with room to spare."""
_TOP, _RIGHT, _WIDEST = 10.0, 8.0, 190.0
_FAR = 1e300
"""A value beyond is drawn at the edge: the span of a scale has to be a number."""
_FONT = "system-ui, sans-serif"

Spec = Mapping[str, Any]
Row = Mapping[str, Any]


def draw(spec: Spec, *, name: str, title: str, width: float = WIDTH) -> str:
    """The picture for a page: it scales to its place; ``name`` makes its ids unique, ``title`` is what it is called.

    Raises ``ValueError`` for a specification with anything that is not drawn here; empty without a row of data.
    """
    if not any(_rows(spec, layer) for layer in spec["layer"]) or not spec["data"]["values"]:
        return ""
    frame = _Frame.of(spec, width)
    parts = [*frame.axes(), *(part for layer in spec["layer"] for part in _layer(frame, layer)), *frame.legend()]
    size = (width, frame.bottom + frame.under)
    return _framed("".join(parts), size, name=name, title=title, said=str(spec.get("description", "")))


def picture(spec: Spec, colours: Ink, *, title: str, width: float = 640) -> bytes:
    """The picture as a file of its own, on the ground of its theme; without a row of data one that says so."""
    drawn = draw(spec, name="chart", title=title, width=width) or _nothing(colours, title, width)
    head, found, rest = drawn.partition("</desc>")
    ground = f'<rect width="100%" height="100%" fill="{colours.ground}"/>'
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return (head + found + ground + rest).encode()


def _framed(parts: str, size: tuple[float, float], *, name: str, title: str, said: str) -> str:
    key = escape(safe(name), quote=True)
    return (
        f'<svg viewBox="0 0 {size[0]:g} {size[1]:.0f}" font-family="{_FONT}" '
        f'font-size="12" role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(safe(title))}</title>'
        f'<desc id="{key}-desc">{escape(safe(said))}</desc>{parts}</svg>'
    )


def _nothing(colours: Ink, title: str, width: float) -> str:
    said = "nothing to show"
    text = _text((width / 2, 40), said, colours.text, anchor="middle")
    return _framed(text, (width, 72), name="chart", title=title, said=said)


@dataclass(slots=True)
class _Scale:
    """From a value to a place between ``start`` and ``end`` in pixels: linear, or in bands by name."""

    start: float
    end: float
    low: float = 0.0
    high: float = 1.0
    names: Sequence[str] = ()
    ticks: Sequence[float] = ()

    def __call__(self, value: Any) -> float:
        if self.names:
            return self.start + (self.end - self.start) * (self.names.index(str(value)) + 0.5) / len(self.names)
        return self.start + (self.end - self.start) * _within((float(value) - self.low) / (self.high - self.low))

    @property
    def band(self) -> float:
        """The width of a band."""
        return abs(self.end - self.start) / len(self.names)


@dataclass(slots=True)
class _Frame:
    """Where the axes of a chart stand; ``x`` and ``y`` are their encodings, empty where places are pixels."""

    spec: Spec
    width: float
    x: Spec
    y: Spec
    right: _Scale
    up: _Scale
    bottom: float
    under: float
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    top: float = _TOP

    @classmethod
    def of(cls, spec: Spec, width: float) -> _Frame:
        for layer in spec["layer"]:
            kind = layer["mark"]["type"]
            unknown = (layer["encoding"].keys() - _CHANNELS) | ({kind} - _MARKS)
            if unknown:
                raise ValueError(f"no drawing of {', '.join(sorted(unknown))}")
        x, y = (_axis(spec, channel) for channel in "xy")
        keys = _keys(spec)
        left = _RIGHT
        if y:
            upright = _scaled(spec, "y", y, 0, 1)
            written = upright.names or [_formatted(tick, y.get("axis", {})) for tick in upright.ticks]
            left = min(8 + (18 if y.get("title") else 0) + max(map(len, written)) * _LETTER, _WIDEST)
        above = _TOP + (34 if x.get("axis", {}).get("orient") == "top" else 0)
        angle = x.get("axis", {}).get("labelAngle", 0)
        under = (0 if above > _TOP else 58 if angle else 20) + (17 if x.get("title") and above == _TOP else 0) + 2
        lines = max((line for line, _ in _flow(keys, width)), default=-1) + 1
        under += 18 * lines + (6 if lines else 0)
        # Where rows stand at pixels, the axis follows the last of them.
        bottom = max(float(spec["height"]) - under, above + 40) if y else above + max(_pixels(spec)) + 8
        frame = cls(spec, width, x, y, _Scale(left, width - _RIGHT), _Scale(bottom, above), bottom, under, keys)
        frame.right = _scaled(spec, "x", x, left, width - _RIGHT)
        named = y.get("type") in ("nominal", "ordinal")
        frame.up = _scaled(spec, "y", y, *((above, bottom) if named else (bottom, above)))
        if not y:
            frame.up = _Scale(_TOP, bottom)
        frame.top = above
        return frame

    def place(self, channel: str, told: Spec, row: Row) -> float | None:
        """Where a value stands in pixels; ``None`` where the row has none."""
        scale = self.right if channel[0] == "x" else self.up
        if "value" in told:
            edge = scale.start if channel == "x" else _TOP
            return scale.end if told["value"] == "width" else edge + float(told["value"])
        value = told["datum"] if "datum" in told else row.get(told["field"])
        if value is None:
            return None
        return _TOP + float(value) if told.get("scale", 1) is None else scale(value)

    def axes(self) -> Iterator[str]:
        yield from self._across()
        yield from self._upright()

    def _across(self) -> Iterator[str]:
        axis, scale = self.x.get("axis", {}), self.right
        if not self.x:
            return
        line, text = self.spec["config"]["axis"]["domainColor"], self.spec["config"]["axis"]["labelColor"]
        top = axis.get("orient") == "top"
        y = self.top - 6 if top else self.bottom + 16
        if scale.names:
            limit = int(axis.get("labelLimit", 180) / _LETTER)
            for name in scale.names:
                at, turned = scale(name), axis.get("labelAngle", 0)
                yield _text((at, y), cut(name, limit), text, anchor="end" if turned else "middle", turn=turned)
        else:
            yield _line((scale.start, self.bottom), (scale.end, self.bottom), line)
            written = -math.inf
            for tick in scale.ticks:
                at, said = scale(tick), _formatted(tick, axis)
                half = len(said) * 4.3 + 1
                at_text = min(max(at, half), self.width - half)
                if at_text - half < written:
                    continue
                written = at_text + half + 6
                yield _line((at, self.bottom), (at, self.bottom + 4), line)
                yield _text((at_text, y), said, text, anchor="middle")
        if self.x.get("title"):
            place = ((scale.start + scale.end) / 2, y - 17 if top else y + 17)
            yield _text(place, str(self.x["title"]), text, anchor="middle")

    def _upright(self) -> Iterator[str]:
        axis, scale = self.y.get("axis", {}), self.up
        if not self.y:
            return
        line, text = self.spec["config"]["axis"]["gridColor"], self.spec["config"]["axis"]["labelColor"]
        if scale.names:
            for name in scale.names:
                yield _text((self.right.start - 6, scale(name) + 4), cut(name, 26), text, anchor="end")
        else:
            for tick in scale.ticks:
                y = scale(tick)
                yield _line((self.right.start, y), (self.right.end, y), line, width=0.5)
                yield _text((self.right.start - 5, y + 4), _formatted(tick, axis), text, anchor="end")
        if self.y.get("title"):
            room = int((self.bottom - self.top) / _LETTER) + 4
            place = (12.0, (self.bottom + self.top) / 2)
            yield _text(place, cut(str(self.y["title"]), room), text, anchor="middle", turn=-90)

    def legend(self) -> Iterator[str]:
        """The names below, each with its mark as it is drawn above."""
        text = self.spec["config"]["legend"]["labelColor"]
        places = _flow(self.keys, self.width)
        last = max((line for line, _ in places), default=0)
        for (name, look), (line, x) in zip(self.keys.items(), places, strict=True):
            y = self.bottom + self.under - 18 * (last - line) - 10
            colour = look.get("colour", text)
            if look["mark"] == "line":
                yield _line((x, y), (x + 24, y), colour, width=2, dash=look.get("dash"))
            elif look["mark"] == "rect":
                yield f'<rect x="{x + 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{colour}"/>'
            else:
                yield _shape(look.get("shape", "circle"), (x + 12, y), 60, colour)
            yield _text((x + 30, y + 4), cut(name, 40), text)


def _flow(keys: Mapping[str, Any], width: float) -> list[tuple[int, float]]:
    """The line and the left edge of each name of a legend: beside each other as far as they go."""
    found: list[tuple[int, float]] = []
    line, x = 0, _RIGHT
    for name in keys:
        size = 30 + min(len(name), 40) * _LETTER + 12
        if x > _RIGHT and x + size - 12 > width:
            line, x = line + 1, _RIGHT
        found.append((line, x))
        x += size
    return found


def _axis(spec: Spec, channel: str) -> Spec:
    """The encoding that says how a channel's axis looks: the first with a field and a scale, titled if any is."""
    told = [layer["encoding"][channel] for layer in spec["layer"] if channel in layer["encoding"]]
    told = [one for one in told if "field" in one and one.get("scale", 1) is not None]
    return next((one for one in told if one.get("title")), told[0] if told else {})


def _rows(spec: Spec, layer: Spec) -> Sequence[Row]:
    return layer.get("data", spec["data"])["values"]  # type: ignore[no-any-return]


def _values(spec: Spec, channel: str) -> Iterator[Any]:
    """Everything that stands on a channel's scale."""
    for layer in spec["layer"]:
        for name in (channel, f"{channel}2"):
            told = layer["encoding"].get(name)
            # The second end of a mark has no scale of its own: it stands where the first does.
            if told is None or layer["encoding"].get(channel, {}).get("scale", 1) is None or "value" in told:
                continue
            found = [told["datum"]] if "datum" in told else [row.get(told["field"]) for row in _rows(spec, layer)]
            yield from (value for value in found if value is not None)


def _pixels(spec: Spec) -> Iterator[float]:
    for layer in spec["layer"]:
        for name in ("y", "y2"):
            told = layer["encoding"].get(name, {})
            yield from (float(row[told["field"]]) for row in _rows(spec, layer) if "field" in told)


def _names(spec: Spec, channel: str, told: Spec) -> list[str]:
    if told.get("type") not in ("nominal", "ordinal"):
        return []
    found = list(dict.fromkeys(map(str, _values(spec, channel))))
    order = told.get("sort")
    if order is None:
        return sorted(found)
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def _scaled(spec: Spec, channel: str, told: Spec, start: float, end: float) -> _Scale:
    """The scale of a channel: its own domain, or from the least to the greatest value, rounded if it is to be nice."""
    names = _names(spec, channel, told)
    if names or not told:
        return _Scale(start, end, names=names)
    asked, axis = told.get("scale", {}), told.get("axis", {})
    known = [float(value) for value in _values(spec, channel) if math.isfinite(float(value))]
    values = [min(max(value, -_FAR), _FAR) for value in known]
    low, high = asked["domain"] if "domain" in asked else (min(values, default=0.0), max(values, default=1.0))
    if "domain" not in asked and asked["zero"]:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-12 * max(1.0, abs(low)):
        room = max(0.5, abs(low) * 1e-6)
        low, high = low - room, high + room
    step = max(_step((high - low) / axis.get("tickCount", 6)), axis.get("tickMinStep", 0))
    if asked["nice"]:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    ticks = axis.get("values") or [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
    return _Scale(start, end, low, high, ticks=ticks)


def _step(raw: float) -> float:
    """A round number not below ``raw``."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))


def _keys(spec: Spec) -> dict[str, dict[str, Any]]:
    """What the legend names: the domain of every colour, shape or dash that has one, as its last mark looks."""
    found: dict[str, dict[str, Any]] = {}
    for layer in spec["layer"]:
        told = layer["encoding"]
        if not any("field" in told.get(c, {}) and told[c].get("legend", 1) for c in ("color", "shape")):
            continue
        for channel, look in (("color", "colour"), ("shape", "shape"), ("strokeDash", "dash")):
            scale = told.get(channel, {}).get("scale") or {}
            if channel == "color" and told[channel].get("legend", 1) is None:
                continue
            for name, value in zip(scale.get("domain", ()), scale.get("range", ()), strict=False):
                entry = found.setdefault(str(name), {"mark": layer["mark"]["type"]})
                entry.setdefault(look, value)
    return found


def _layer(frame: _Frame, layer: Spec) -> Iterator[str]:
    mark, told = layer["mark"], layer["encoding"]
    rows = _rows(frame.spec, layer)
    if mark["type"] in ("line", "area"):
        yield from _runs(frame, mark, told, rows)
        return
    drawing = {"rule": _rule, "rect": _rect, "point": _point, "text": _words}[mark["type"]]
    for row in rows:
        colour = _colour(mark, told, row)
        wanted = [channel for channel in ("x", "y", "x2", "y2") if channel in told]
        found = {channel: frame.place(channel, _end(told, channel), row) for channel in wanted}
        places = {channel: at for channel, at in found.items() if at is not None}
        if len(places) == len(wanted):
            yield _tipped(drawing(frame, mark, told, row, places, colour), told, row)


def _end(told: Spec, channel: str) -> Spec:
    """What says where a channel stands; the second end of a mark stands on the scale of the first."""
    own: Spec = told[channel]
    return {"scale": told[channel[0]].get("scale", {}), **own} if channel.endswith("2") else own


def _colour(mark: Spec, told: Spec, row: Row) -> str:
    enc = told.get("fill") or told.get("color")
    if enc is None:
        return str(mark["color"])
    value, scale = row[enc["field"]], enc["scale"]
    if scale is None:
        return str(value)
    if enc["type"] == "quantitative":
        return _mixed(float(value), scale["domain"], scale["range"])
    return str(scale["range"][scale["domain"].index(value)])


def _mixed(value: float, domain: Sequence[float], colours: Sequence[str]) -> str:
    """A colour of a scale between given colours."""
    at = 0
    while at < len(domain) - 2 and value > domain[at + 1]:
        at += 1
    share = _within((value - domain[at]) / (domain[at + 1] - domain[at]))
    ends = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in colours[at : at + 2]]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*ends, strict=True))


def _rule(frame: _Frame, mark: Spec, told: Spec, row: Row, at: Mapping[str, float], colour: str) -> str:
    x, y = at.get("x", frame.right.start), at.get("y", frame.top)
    x2 = at.get("x2", x if "x" in at else frame.right.end)
    y2 = at.get("y2", y if "y" in at else frame.bottom)
    return _line((x, y), (x2, y2), colour, width=mark.get("strokeWidth", 1), dash=mark.get("strokeDash"))


def _rect(frame: _Frame, mark: Spec, told: Spec, row: Row, at: Mapping[str, float], colour: str) -> str:
    spans = []
    for channel, scale in (("x", frame.right), ("y", frame.up)):
        here = at[channel]
        there = at.get(f"{channel}2")
        ends = (here - scale.band / 2, here + scale.band / 2) if there is None else sorted((here, there))
        spans.append(ends)
    (x, x2), (y, y2) = spans
    stroke = f' stroke="{mark["stroke"]}"' if "stroke" in mark else ""
    fill = f'fill="{"none" if colour == "transparent" else colour}" opacity="{mark.get("opacity", 1)}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{x2 - x:.1f}" height="{y2 - y:.1f}" {fill}{stroke}/>'


def _point(frame: _Frame, mark: Spec, told: Spec, row: Row, at: Mapping[str, float], colour: str) -> str:
    enc = told.get("shape")
    shape = enc["scale"]["range"][enc["scale"]["domain"].index(row[enc["field"]])] if enc else "circle"
    return _shape(str(shape), (at["x"], at["y"]), mark["size"], colour)


def _words(frame: _Frame, mark: Spec, told: Spec, row: Row, at: Mapping[str, float], colour: str) -> str:
    anchor = {"left": "start", "right": "end"}.get(mark.get("align", ""), "middle")
    text = told["text"].get("value") if "value" in told["text"] else row[told["text"]["field"]]
    place = (at["x"] + mark.get("dx", 0), at["y"] + mark.get("dy", 0) + 4)
    return _text(place, str(text), colour, anchor=anchor, size=mark.get("fontSize", 12))


def _runs(frame: _Frame, mark: Spec, told: Spec, rows: Sequence[Row]) -> Iterator[str]:
    """Lines and areas: one for each colour, in order of x."""
    enc = told.get("color")
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[enc["field"]] if enc else None, []).append(row)
    for name, members in groups.items():
        colour = _colour(mark, told, members[0])
        if mark["type"] == "area":
            edge = _points([*_places(frame, told, members, "y"), *reversed(_places(frame, told, members, "y2"))])
            yield f'<polygon points="{edge}" fill="{colour}" opacity="{mark.get("opacity", 1)}"/>'
            continue
        dash = mark.get("strokeDash")
        if "strokeDash" in told:
            scale = told["strokeDash"]["scale"]
            dash = scale["range"][scale["domain"].index(name)]
        yield (
            f'<polyline points="{_points(_places(frame, told, members, "y"))}" fill="none" stroke="{colour}" '
            f'stroke-width="{mark.get("strokeWidth", 1)}"{_dash(dash)}/>'
        )


def _places(frame: _Frame, told: Spec, rows: Sequence[Row], channel: str) -> list[tuple[float, float]]:
    found = [(frame.place("x", told["x"], row), frame.place(channel, _end(told, channel), row)) for row in rows]
    return sorted(((x, y) for x, y in found if x is not None and y is not None), key=lambda place: place[0])


def _tipped(part: str, told: Spec, row: Row) -> str:
    """A mark that says its values where it is pointed at."""
    if "tooltip" not in told:
        return part
    said = "\n".join(
        f"{tip['title']}: {_told(row.get(tip['field']), tip.get('format', ''))}" for tip in told["tooltip"]
    )
    return f"<g><title>{escape(safe(said))}</title>{part}</g>"


def _told(value: Any, fmt: str) -> str:
    return "–" if value is None else format(value, fmt) if fmt else str(value)


def _formatted(tick: float, axis: Spec) -> str:
    tick = round(tick, 10) + 0.0
    if "labelExpr" in axis:
        if axis["labelExpr"] != POINTS:
            raise ValueError(f"no drawing of the expression {axis['labelExpr']}")
        return "0" if tick == 0 else f"{100 * tick:+.0f}"
    return format(tick, axis.get("format") or "g")


def _shape(name: str, at: tuple[float, float], area: float, colour: str) -> str:
    x, y = at
    if name == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{math.sqrt(area / math.pi):.1f}" fill="{colour}"/>'
    half = math.sqrt(area) / 2
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
        "triangle-up": ((0, -1.3), (1.3, 1), (-1.3, 1)),
    }[name]
    edge = _points((x + half * dx, y + half * dy) for dx, dy in corners)
    return f'<polygon points="{edge}" fill="{colour}"/>'


def _within(share: float) -> float:
    """A share inside the picture; NaN and infinities at its edges."""
    return 0.0 if math.isnan(share) else min(max(share, 0.0), 1.0)


def _points(places: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _dash(dash: Sequence[float] | None) -> str:
    return f' stroke-dasharray="{" ".join(map(str, dash))}"' if dash and list(dash) != [1, 0] else ""


def _line(
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    *,
    width: float = 1,
    dash: Sequence[float] | None = None,
) -> str:
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{_dash(dash)}/>'


def _text(
    at: tuple[float, float], text: str, colour: str, *, anchor: str = "start", size: float = 12, turn: float = 0
) -> str:
    x, y = at
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    sized = f' font-size="{size:g}"' if size != 12 else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}{sized}{turned}>{escape(safe(text))}</text>"
