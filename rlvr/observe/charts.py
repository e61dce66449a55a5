"""Curves over steps as inline SVG: no script, no font, no file from elsewhere. Knows points and colours; no metric.

    chart("entropy", [Curve("policy/entropy", [(1, 0.9), (2, 0.8)])], [Mark(2, "rollback", "alarm: ...")])

Drawn 360 wide, which is a phone; the page scales it up a little. What is not finite is a gap with a cross under it,
what is far above the rest a triangle at the top.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from rlvr.observe.html import Markup, tag

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 20  # room for the numbers: `short` makes up to eight characters of six units
COLOURS = ("#2f6fde", "#d9822b", "#1f9d61", "#a24bc4", "#c0392b", "#6b7785")  # and once more, dashed
MANY = 300  # points of a curve above which it is drawn as the mean and the range of stretches
FEW = 8  # points below which none of them is far above the rest
FAR = 4  # times the 98th percentile: where an axis ends, as one spike would flatten all else
KINDS = {  # of events, and how they look
    "rollback": "#d9480f",
    "stopped": "#c0392b",
    "error": "#c0392b",
    "warning": "#c99700",
    "interrupt": "#c99700",
    "restart": "#a24bc4",
    "begin": "#8a94a3",
    "checkpoint_failed": "#c99700",
    "healthy": "#1f9d61",
    "evaluation": "#1f9d61",
}


Points = Sequence[tuple[float, float]]
Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Curve:
    name: str
    points: Points  # by x
    dots: bool = False  # few points that each count, as evaluations
    undone: Sequence[Points] = ()  # what was taken back, dashed and pale
    look: int | None = None  # its `look`, the same in several charts; None: by its place among the curves drawn

    @classmethod
    def of(cls, name: str, rows: Rows, undone: Sequence[Rows] = (), label: str | None = None) -> "Curve":
        """The column `name` of rows that each have a `step`."""
        taken_back = [points for stretch in undone if (points := series(stretch, name))]
        return cls(label or name, series(rows, name), undone=taken_back)

    def all_points(self) -> list[tuple[float, float]]:
        return [*self.points, *(point for stretch in self.undone for point in stretch)]

    def any_finite(self) -> bool:
        return any(math.isfinite(y) for _, y in self.all_points())


@dataclass(frozen=True)
class Mark:
    x: float
    kind: str
    text: str
    colour: str = ""  # empty: that of its kind


@dataclass(frozen=True)
class Frame:
    """From values to places; what is above or below is put to the edge."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        value = min(max(value, self.low_y), self.high_y)
        return round(HEIGHT - BOTTOM - (value - self.low_y) / (self.high_y - self.low_y) * (HEIGHT - TOP - BOTTOM), 1)


def chart(title: str, curves: Sequence[Curve], marks: Sequence[Mark] = (), share: bool = False) -> Markup | None:
    """A figure with its legend; None where no curve has a finite point. `share`: from 0 to 1."""
    curves = [curve for curve in curves if curve.any_finite()]
    marks = [mark for mark in marks if math.isfinite(mark.x)]
    if not curves:
        return None
    frame = framed(curves, marks, share)
    looks = [look(n if curve.look is None else curve.look) for n, curve in enumerate(curves)]
    drawn = [drawing(c, colour, frame, dashed) for c, (colour, dashed) in zip(curves, looks, strict=True)]
    svg = tag(
        "svg", axes(frame, share), [mark_line(mark, frame) for mark in marks], drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title,
    )  # fmt: skip
    legend = [
        tag("span", swatch(*looks[n]), f" {curve.name} ", tag("b", last(curve, share)))
        for n, curve in enumerate(curves)
    ]
    highest = max(y for curve in curves for _, y in curve.all_points() if math.isfinite(y))
    cut = tag("span", f"\u25b2 up to {short(highest, share)}", class_="dim") if highest > frame.high_y else None
    return tag("figure", tag("figcaption", title), svg, tag("div", legend, cut, class_="legend"))


def series(rows: Rows, name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def look(n: int) -> tuple[str, bool]:
    """The colour of the n-th curve, and whether it is dashed: twelve differ."""
    return COLOURS[n % len(COLOURS)], n >= len(COLOURS)


def swatch(colour: str, dashed: bool) -> Markup:
    if not dashed:
        return tag("i", "", style=f"background:{colour}")
    stripes = f"repeating-linear-gradient(90deg,{colour} 0 4px,transparent 0 6px)"
    return tag("i", "", class_="dashed", style=f"background:{stripes}")


def framed(curves: Sequence[Curve], marks: Sequence[Mark], share: bool) -> Frame:
    points = [point for curve in curves for point in curve.all_points()]
    xs = [x for x, _ in points] + [mark.x for mark in marks]
    ys = [y for _, y in points if math.isfinite(y)]
    low, high = (0.0, 1.0) if share and min(ys) >= 0 and max(ys) <= 1 else (min(ys), max(ys))
    low, high = (min(max(y, -1e300), 1e300) for y in (low, high))  # what is larger has no differences
    kept = [sorted(y for _, y in curve.points if math.isfinite(y)) for curve in curves]
    if max(map(len, kept)) >= FEW and not share:  # what was undone may be far above all of it
        cut = max(end_of_axis(one, min(low, 0.0)) for one in kept if one)  # no curve is another one's spike
        high = cut if low < cut < high else high
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, 1e-300):  # what differs less is rounding
        apart = largest / 10 if largest > 1e-290 else 0.1
        low, high = low - apart, high + apart
    return Frame(min(xs), max(max(xs), min(xs) + 1), low, high)


def end_of_axis(ys: Sequence[float], floor: float) -> float:
    """Above all of a curve but its spikes. `ys`: in order; of few points none is a spike."""
    return ys[-1] if len(ys) < FEW else floor + FAR * (ys[int(0.98 * (len(ys) - 1))] - floor)


def drawing(curve: Curve, colour: str, frame: Frame, dashed: bool) -> list[Markup]:
    """What was undone, the range of what is drawn as means, the curve, and triangles for what the axis leaves out."""
    points, ranges = thinned(curve.points)
    pale = [stroke(thinned(stretch)[0], colour, frame, "4 3", False) for stretch in curve.undone]
    lines = [tag("g", pale, opacity=0.65)] if pale else []
    if ranges:
        outline = [(frame.x(x), frame.y(high)) for x, _, high in ranges]
        outline += [(frame.x(x), frame.y(low)) for x, low, _ in reversed(ranges)]
        lines.append(tag("polygon", points=spelt(outline), fill=colour, opacity=0.18))
    lines += stroke(points, colour, frame, "4 2" if dashed else None, curve.dots)
    return lines + triangles(curve, colour, frame)


def stroke(points: Points, colour: str, frame: Frame, dash: str | None, dots: bool) -> list[Markup]:
    """Stretches of finite points as lines, a point alone as a dot, the others as crosses at the bottom."""
    lines: list[Markup] = []
    look = {"stroke_dasharray": dash} if dash else {}
    for finite, stretch in groupby(points, lambda point: math.isfinite(point[1])):
        places = [(frame.x(x), frame.y(y) if finite else HEIGHT - BOTTOM) for x, y in stretch]
        if not finite:
            lines += [tag("path", d=f"M{x - 3} {y - 6}l6 6m0 -6l-6 6", stroke=colour, fill="none") for x, y in places]
        elif len(places) > 1:
            lines.append(tag("polyline", points=spelt(places), stroke=colour, fill="none", stroke_width=1.5, **look))
        if finite and (dots or len(places) == 1):
            lines += [tag("circle", cx=x, cy=y, r=2.5, fill=colour) for x, y in places]
    return lines


def triangles(curve: Curve, colour: str, frame: Frame) -> list[Markup]:
    """Of several that would lie on each other the highest."""
    highest: dict[int, tuple[float, float]] = {}
    for x, y in curve.all_points():
        place = int(frame.x(x)) // 4
        if math.isfinite(y) and y > max(frame.high_y, highest.get(place, (x, -math.inf))[1]):
            highest[place] = (x, y)
    return [
        tag("g", tag("title", f"step {x:g}: {short(y)}"),
            tag("path", d=f"M{frame.x(x):g} {TOP - 7}l4 7h-8z", fill=colour))
        for x, y in highest.values()
    ]  # fmt: skip


def thinned(
    points: Points,
) -> tuple[Points, list[tuple[float, float, float]]]:
    """At most MANY points: means of even stretches, with the (x, lowest, highest) of each; what is not finite stays."""
    if len(points) <= MANY:
        return points, []
    edges = [n * len(points) // MANY for n in range(MANY + 1)]
    means: list[tuple[float, float]] = []
    ranges = []
    for a, b in pairwise(edges):
        finite = [y for _, y in points[a:b] if math.isfinite(y)]
        x = points[(a + b) // 2][0]
        if len(finite) < b - a:
            means.append((x, math.nan))
        if finite:
            means.append((x, math.fsum(y / len(finite) for y in finite)))
            ranges.append((x, min(finite), max(finite)))
    return means, ranges


def axes(frame: Frame, share: bool) -> list[Markup]:
    lines = [tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM, class_="grid")]
    heights = ticks(frame.low_y, frame.high_y)
    for value, label in zip(heights, labels(heights, share), strict=True):
        y = frame.y(value)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        lines.append(tag("text", label, x=LEFT - 4, y=y + 3, text_anchor="end"))
    lines.append(tag("text", "step", x=LEFT - 10, y=HEIGHT - 6, text_anchor="end"))
    places = ticks(frame.low_x, frame.high_x, least=1)
    for value, label in zip(places, labels(places, False), strict=True):
        x = frame.x(value)
        anchor = "end" if x > WIDTH - 20 else "middle"
        lines.append(tag("line", x1=x, x2=x, y1=HEIGHT - BOTTOM, y2=HEIGHT - BOTTOM + 3, class_="grid"))
        lines.append(tag("text", label, x=x if anchor == "middle" else WIDTH - 2, y=HEIGHT - 6, text_anchor=anchor))
    return lines


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """The multiples of 1, 2 or 5 x 10^n in this range: two to six, or fewer where they are to be `least` apart."""
    rough = max((high - low) / 5, least)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * (1 - 1e-9))
    return [n * apart for n in range(math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9) + 1)]


def labels(values: Sequence[float], share: bool) -> list[str]:
    said = [short(value, share) for value in values]
    return said if share or len(set(said)) == len(said) else [f"{value:.6g}" for value in values]


def mark_line(mark: Mark, frame: Frame) -> Markup:
    x = frame.x(mark.x)
    colour = mark.colour or colour_of(mark.kind)
    line = tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke=colour, stroke_dasharray="3 3")
    return tag("g", tag("title", f"{mark.kind}: {mark.text}"), line)


def colour_of(kind: str) -> str:
    return KINDS.get(kind, "#8a94a3")


def last(curve: Curve, share: bool) -> str:
    return short(curve.points[-1][1], share) if curve.points else ""


def short(value: float, share: bool = False) -> str:
    """In at most eight characters."""
    if not math.isfinite(value):
        return str(value)
    if share:
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")


def spelt(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
