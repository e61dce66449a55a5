"""Curves as inline SVG: no script, no font, no file from elsewhere. Knows points and colours; no metric, no run.

    chart("entropy", [Curve("policy/entropy", [(1, 0.9), (2, 0.8)])], [Mark(2, "rollback", "alarm: ...")])

Drawn 360 wide, which is a phone; the page scales it up. What is not finite is a gap with a cross under it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from rlvr.observe.html import Markup, tag

WIDTH, HEIGHT = 360, 170
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20  # room for the numbers: `short` makes up to eight characters of six units
COLOURS = ("#2f6fde", "#d9822b", "#1f9d61", "#a24bc4", "#c0392b", "#6b7785")
MANY = 300  # points of a curve above which it is drawn as the mean and the range of stretches
KINDS = {  # of events, and how they look
    "rollback": "#d9480f",
    "stopped": "#c0392b",
    "error": "#c0392b",
    "warning": "#c99700",
    "interrupt": "#c99700",
    "begin": "#8a94a3",
    "checkpoint_failed": "#c99700",
    "healthy": "#1f9d61",
    "evaluation": "#1f9d61",
}


@dataclass(frozen=True)
class Curve:
    name: str
    points: Sequence[tuple[float, float]]  # by x
    dots: bool = False  # few points that each count, as evaluations


@dataclass(frozen=True)
class Mark:
    x: float
    kind: str
    text: str


@dataclass(frozen=True)
class Frame:
    """From values to places."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.low_x) / (self.high_x - self.low_x) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - self.low_y) / (self.high_y - self.low_y) * (HEIGHT - TOP - BOTTOM), 1)


def chart(title: str, curves: Sequence[Curve], marks: Sequence[Mark] = (), share: bool = False) -> Markup | None:
    """A figure with its legend; None where no curve has a finite point. `share`: from 0 to 1."""
    curves = [curve for curve in curves if any(math.isfinite(y) for _, y in curve.points)]
    if not curves:
        return None
    frame = framed(curves, share)
    colours = [COLOURS[n % len(COLOURS)] for n in range(len(curves))]
    drawn = [line for curve, colour in zip(curves, colours, strict=True) for line in drawing(curve, colour, frame)]
    svg = tag(
        "svg", axes(frame, share), [mark_line(mark, frame) for mark in marks if frame.low_x <= mark.x <= frame.high_x],
        drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title,
    )  # fmt: skip
    legend = [
        tag("span", tag("i", "", style=f"background:{colour}"), f" {curve.name} ", tag("b", last(curve, share)))
        for curve, colour in zip(curves, colours, strict=True)
    ]
    return tag("figure", tag("figcaption", title), svg, tag("div", legend, class_="legend"))


def framed(curves: Sequence[Curve], share: bool) -> Frame:
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points if math.isfinite(y)]
    low, high = (0.0, 1.0) if share and min(ys) >= 0 and max(ys) <= 1 else (min(ys), max(ys))
    if not math.isfinite(high - low):  # 1e308 and its negative
        low, high = max(low, -1e300), min(high, 1e300)
    if high == low:
        low, high = low - (abs(low) or 1.0) / 10, high + (abs(high) or 1.0) / 10
    return Frame(min(xs), max(max(xs), min(xs) + 1), low, high)


def drawing(curve: Curve, colour: str, frame: Frame) -> list[Markup]:
    """Stretches of finite points as lines, a point alone as a dot, the others as crosses at the bottom."""
    points, ranges = thinned(curve.points)
    lines: list[Markup] = []
    for finite, stretch in groupby(points, lambda point: math.isfinite(point[1])):
        places = [(frame.x(x), frame.y(min(max(y, frame.low_y), frame.high_y)) if finite else HEIGHT - BOTTOM)
                  for x, y in stretch]  # fmt: skip
        if not finite:
            lines += [tag("path", d=f"M{x - 3} {y - 6}l6 6m0 -6l-6 6", stroke=colour, fill="none") for x, y in places]
        elif len(places) > 1:
            lines.append(tag("polyline", points=spelt(places), stroke=colour, fill="none", stroke_width=1.5))
        if finite and (curve.dots or len(places) == 1):
            lines += [tag("circle", cx=x, cy=y, r=2.5, fill=colour) for x, y in places]
    if ranges:
        outline = [(frame.x(x), frame.y(high)) for x, _, high in ranges]
        outline += [(frame.x(x), frame.y(low)) for x, low, _ in reversed(ranges)]
        lines.insert(0, tag("polygon", points=spelt(outline), fill=colour, opacity=0.18))
    return lines


def thinned(
    points: Sequence[tuple[float, float]],
) -> tuple[Sequence[tuple[float, float]], list[tuple[float, float, float]]]:
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
    lines = []
    for part in (0, 0.5, 1):
        value = frame.low_y + part * (frame.high_y - frame.low_y)
        y = frame.y(value)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        lines.append(tag("text", short(value, share), x=LEFT - 4, y=y + 3, text_anchor="end"))
    for value, anchor in ((frame.low_x, "start"), (frame.high_x, "end")):
        lines.append(tag("text", f"{value:g}", x=frame.x(value), y=HEIGHT - 6, text_anchor=anchor))
    return lines


def mark_line(mark: Mark, frame: Frame) -> Markup:
    x = frame.x(mark.x)
    line = tag("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, stroke=colour_of(mark.kind), stroke_dasharray="3 3")
    return tag("g", tag("title", f"{mark.kind}: {mark.text}"), line)


def colour_of(kind: str) -> str:
    return KINDS.get(kind, "#8a94a3")


def last(curve: Curve, share: bool) -> str:
    return short(curve.points[-1][1], share)


def short(value: float, share: bool = False) -> str:
    """In at most eight characters."""
    if not math.isfinite(value):
        return str(value)
    if share:
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e+")


def spelt(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
