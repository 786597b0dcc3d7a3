"""Charts as inline SVG, for the page: a few kilobytes each, text that is text, colours that the page's style sets.

The files beside the page (figures.py) are matplotlib's; for a page it would take a dozen times as long and three times
the space, and its text would shrink with the picture on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rlaif_lab.report.curves import AXIS_TITLES, LOG_FLOOR, Axis, DrawnCurve, Mark

FONT, WIDE_FONT = 12.0, 13.0  # of a chart and of one with labelled curves, in user units, as in the style sheet
CHARACTER = 0.6  # mean width of a character, in units of the font size
UNIT_WIDTH = 15.0
ROW = 13.5  # from line to line of a label
FEW = 6
"""Up to so many arms, all have their names at the ends of their curves; of more, only those that are drawn thick."""
TITLED_POINTS = 120
"""A chart with more points than this has no tooltip at each: their text would be most of the page."""


@dataclass(frozen=True)
class Line:
    """An arm in a chart. key: its CSS class, which sets colour and dashes. marker: as in MARKERS."""

    key: str
    label: str
    marker: str
    points: DrawnCurve


@dataclass(frozen=True)
class Frame:
    """Where things lie in a chart, in user units: the drawing area within width x height, and the values at its
    edges."""

    width: float
    height: float
    left: float
    right: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    axis: Axis = "round"
    log: bool = False
    top: float = 8.0
    bottom: float = 36.0

    def x(self, value: float) -> float:
        low, high = (math.log2(v) for v in self.x_range) if self.axis == "k" else self.x_range
        at = math.log2(value) if self.axis == "k" else value
        # A single round stands in the middle.
        share = (at - low) / (high - low) if high > low else 0.5
        return self.left + share * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = (math.log10(v) for v in self.y_range) if self.log else self.y_range
        at = math.log10(max(value, LOG_FLOOR)) if self.log else value
        # What lies beyond the edge is drawn on it.
        share = min(1.0, max(0.0, (at - low) / (high - low)))
        return self.top + (1.0 - share) * (self.height - self.top - self.bottom)


def line_chart(
    lines: Sequence[Line],
    y_range: tuple[float, float],
    *,
    title: str,
    unit: str = "",
    axis: Axis = "round",
    reference: float | None = None,
    log: bool = False,
    bands: bool = True,
    strong: Sequence[str] | None = None,
    marks: Mapping[str, Mark] | None = None,
    size: tuple[float, float] = (360.0, 226.0),
) -> str:
    """Return an ``<svg>`` element. unit: title of the y axis. strong: keys of the arms that are drawn thick, with band
    and a label at the end of the curve, the others thin and without band; None: all alike, and the legend is elsewhere.
    marks: by key, drawn for the strong arms."""
    # Room for the widest number.
    left = max(36.0, 8 + CHARACTER * FONT * max(len(text) for _, text in y_ticks(y_range, log)))
    left += UNIT_WIDTH if unit else 0.0
    few = len({line.key for line in lines}) <= FEW
    labels = [line for line in lines if strong is not None and (few or line.key in strong)]
    short = dict(zip((line.key for line in labels), distinct([line.label for line in labels]), strict=True))
    said = {
        line.key: (short[line.key], *(marks[line.key].words() if marks and line.key in marks else ()))
        for line in labels
    }
    right = 10.0
    if labels:
        longest = max(len(text) for texts in said.values() for text in texts)
        # Not more than two fifths: the curves need the rest.
        right = min(0.4 * size[0], 14 + CHARACTER * WIDE_FONT * max(6, longest))
    xs = [x for line in lines for x in line.points.x] or [0.0, 1.0]
    frame = Frame(*size, left, right=right, x_range=(min(xs), max(xs)), y_range=y_range, axis=axis, log=log)
    titled = sum(len(line.points.x) for line in lines) <= TITLED_POINTS
    # SVG paints in this order, so the thick ones come last, above the others.
    ordered = sorted(lines, key=lambda line: strong is not None and line.key in strong)
    drawn = []
    for line in ordered:
        kind = "" if strong is None else " strong" if line.key in strong else " weak"
        drawn.append(_arm(line, frame, kind, bands and kind != " weak", titled))
    level = []
    if reference is not None:
        y = _n(frame.y(reference))
        level = [f'<path class="ref" d="M{_n(frame.left)} {y}H{_n(frame.width - frame.right)}"/>']
    return (
        f'<svg class="chart" viewBox="0 0 {_n(size[0])} {_n(size[1])}" role="img" aria-label="{escape(title)}">'
        + "".join([*_axes(frame, unit), *level, *drawn])
        + "".join(_mark(marks[line.key], line, frame) for line in lines if marks and line.key in marks)
        + _end_labels(labels, said, frame, strong or ())
        + "</svg>"
    )


# --- pieces -------------------------------------------------------------------------------------------------------
def _axes(frame: Frame, unit: str) -> list[str]:
    parts = []
    if unit:
        middle = _n((frame.top + frame.height - frame.bottom) / 2)
        parts.append(
            f'<text class="unit" transform="rotate(-90 11 {middle})" x="11" y="{middle}" text-anchor="middle">'
            f"{escape(unit)}</text>"
        )
    end = frame.width - frame.right
    floor = frame.height - frame.bottom
    for value, text in y_ticks(frame.y_range, frame.log):
        y = frame.y(value)
        parts.append(f'<path class="grid" d="M{_n(frame.left)} {_n(y)}H{_n(end)}"/>')
        parts.append(f'<text x="{_n(frame.left - 5)}" y="{_n(y + 4)}" text-anchor="end">{text}</text>')
    parts.append(f'<path class="axis" d="M{_n(frame.left)} {_n(floor)}H{_n(end)}"/>')
    for value, text in x_ticks(frame.x_range, frame.axis):
        x = _n(frame.x(value))
        parts.append(f'<text x="{x}" y="{_n(floor + 15)}" text-anchor="middle">{text}</text>')
    at = f'x="{_n((frame.left + end) / 2)}" y="{_n(frame.height - 5)}"'
    parts.append(f'<text {at} text-anchor="middle">{AXIS_TITLES[frame.axis]}</text>')
    return parts


def _arm(line: Line, frame: Frame, kind: str, band: bool, titled: bool) -> str:
    points = line.points
    at = [(frame.x(x), frame.y(y)) if math.isfinite(y) else None for x, y in zip(points.x, points.mean, strict=True)]
    parts = [f'<g class="{line.key}{kind}{" faint" if points.faint else ""}">']
    if band and not points.faint:
        parts += [f'<path class="band" d="{outline}"/>' for outline in _bands(points, frame)]
    parts.append(f'<path class="line" d="{_path(at)}"/>')
    size = 3.6 if kind == " strong" else 3.0
    # About two dozen markers per curve.
    every = max(1, len(at) // 24)
    marked = [p for i, p in enumerate(at) if p is not None and i % every == 0]
    parts.append(f'<path class="dot" d="{"".join(_marker(line.marker, x, y, size) for x, y in marked)}"/>')
    if titled:
        for i, p in enumerate(at):
            if p is not None:
                text = escape(f"{line.label}, {_at(frame.axis, points, i)}: {_value(points, i)}")
                parts.append(
                    f'<circle class="tip" cx="{_n(p[0])}" cy="{_n(p[1])}" r="9"><title>{text}</title></circle>'
                )
    return "".join([*parts, "</g>"])


def _at(axis: Axis, points: DrawnCurve, i: int) -> str:
    return f"k = {points.x[i]:g} in round {points.rounds[i]}" if axis == "k" else f"round {points.rounds[i]}"


def _value(points: DrawnCurve, i: int) -> str:
    interval = f" [{points.low[i]:.3g}, {points.high[i]:.3g}]" if math.isfinite(points.low[i]) else ""
    return f"{points.mean[i]:.3g}{interval}, n = {points.n[i]}"


def _path(at: Sequence[tuple[float, float] | None]) -> str:
    """Draw straight lines from point to point, broken at holes."""
    parts, pen = [], "M"
    for p in at:
        if p is None:
            pen = "M"
        else:
            parts.append(f"{pen}{_n(p[0])} {_n(p[1])}")
            pen = "L"
    return "".join(parts)


def _bands(points: DrawnCurve, frame: Frame) -> list[str]:
    """Return an outline for each stretch of rounds that have an interval."""
    stretches: list[list[int]] = [[]]
    for i, low in enumerate(points.low):
        if math.isfinite(low):
            stretches[-1].append(i)
        elif stretches[-1]:
            stretches.append([])
    outlines = []
    for stretch in stretches:
        # A single point encloses nothing.
        if len(stretch) > 1:
            up = [f"{_n(frame.x(points.x[i]))} {_n(frame.y(points.high[i]))}" for i in stretch]
            down = [f"{_n(frame.x(points.x[i]))} {_n(frame.y(points.low[i]))}" for i in reversed(stretch)]
            outlines.append(f"M{'L'.join([*up, *down])}Z")
    return outlines


def _mark(mark: Mark, line: Line, frame: Frame) -> str:
    """Return the ceiling as a dotted level with its interval, the plateau as a ring and a line down to its round."""
    points = line.points
    parts = [f'<g class="{line.key} mark">']
    end = frame.width - frame.right
    if mark.ceiling is not None:
        level, low, high = mark.ceiling
        y = _n(frame.y(level))
        begin = frame.x(mark.ceiling_from(points))
        if math.isfinite(low):
            top, bottom = frame.y(high), frame.y(low)
            parts.append(f'<path class="range" d="M{_n(begin)} {_n(top)}H{_n(end)}V{_n(bottom)}H{_n(begin)}Z"/>')
        parts.append(f'<path class="ceiling" d="M{_n(begin)} {y}H{_n(end)}"/>')
    if mark.plateau is not None and mark.plateau in points.rounds:
        i = points.rounds.index(mark.plateau)
        if math.isfinite(points.mean[i]):
            x, y_at = frame.x(points.x[i]), frame.y(points.mean[i])
            floor = frame.height - frame.bottom
            parts.append(f'<path class="drop" d="M{_n(x)} {_n(y_at + 8)}V{_n(floor)}"/>')
            parts.append(f'<circle class="ring" cx="{_n(x)}" cy="{_n(y_at)}" r="8"/>')
    return "".join([*parts, "</g>"])


def _end_labels(lines: Sequence[Line], said: Mapping[str, Sequence[str]], frame: Frame, strong: Sequence[str]) -> str:
    """Return the arm's name, last value, ceiling and plateau beside the end of its curve; labels that would overlap are
    moved apart. They stand outside the drawing, so that none lies on another arm's curve."""
    ends = []
    for line in lines:
        last = line.points.last()
        if last is not None and not line.points.faint:
            ends.append((frame.y(line.points.mean[last]), line, line.points.mean[last]))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    free = frame.top + FONT
    for y, line, _ in ends:
        places.append(max(y, free))
        free = places[-1] + ROW * (len(said[line.key]) + 1) + 5
    floor = frame.height - frame.bottom + FONT
    for i in reversed(range(len(places))):  # up again, where there were too many
        places[i] = min(places[i], floor - ROW * (len(said[ends[i][1].key]) + 1) - 5)
        floor = places[i]
    x = _n(frame.width - frame.right + 8)
    parts = []
    for y, (_, line, value) in zip(places, ends, strict=True):
        kind = f"{line.key} end main" if line.key in strong else f"{line.key} end"
        name, *more = said[line.key]
        rows = "".join(
            f'<text x="{x}" y="{_n(y + ROW * (i + 1))}">{escape(text)}</text>'
            for i, text in enumerate((f"{value:.3f}", *more))
        )
        parts.append(f'<g class="{kind}"><text x="{x}" y="{_n(y)}">{escape(name)}</text>{rows}</g>')
    return "".join(parts)


def distinct(labels: Sequence[str], length: int = 16) -> list[str]:
    """Return labels cut to a length, and still different from one another: by their beginnings, their ends, or both, or
    else by a number."""

    def begin(label: str) -> str:
        return label[: length - 1] + "…"

    def end(label: str) -> str:
        return "…" + label[1 - length :]

    def both(label: str) -> str:
        half = (length - 1) // 2
        return f"{label[:half]}…{label[half + 1 - length :]}"

    for cut in (begin, end, both):
        found = [label if len(label) <= length else cut(label) for label in labels]
        if len(set(found)) == len(set(labels)):
            return found
    return [f"{i}: {label}"[: length - 1] + "…" for i, label in enumerate(labels, start=1)]


# --- ticks ----------------------------------------------------------------------------------------------------------
def y_ticks(limits: tuple[float, float], log: bool = False, about: int = 5) -> list[tuple[float, str]]:
    """Return round values within the limits, with their texts."""
    low, high = limits
    if log:
        first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
        powers = range(first, last + 1, max(1, (last - first) // about))
        return [(10.0**e, f"{10.0**e:g}" if abs(e) < 4 else f"1e{e}") for e in powers]
    step = nice_step(high - low, about)
    # 1e-9 here and below: a quotient of round numbers may miss its integer by a rounding error.
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    texts = [f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.1e}" for value in values]
    # Not "-0.0".
    return list(zip(values, ("0" if float(t) == 0 else t for t in texts), strict=True))


def x_ticks(limits: tuple[float, float], axis: Axis) -> list[tuple[float, str]]:
    low, high = limits
    if axis == "k":
        return [(2.0**i, str(2**i)) for i in range(round(math.log2(low)), round(math.log2(high)) + 1)]
    if axis == "round":
        step = max(1.0, nice_step(high - low, 8)) if high > low else 1.0
        return [(step * i, f"{step * i:.0f}") for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return y_ticks(limits) if high > low else []


def nice_step(reach: float, about: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that ``reach`` has about that many steps."""
    rough = reach / about
    power = 10.0 ** math.floor(math.log10(rough))
    # 0.999 forgives a rounding error.
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)


def _n(value: float) -> str:
    """Write a number in short: a tenth of a unit is less than a pixel."""
    return f"{value:.1f}".removesuffix(".0")


SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "s": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "^": ((0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    "v": ((0, 1.1), (1.1, -0.9), (-1.1, -0.9)),
    "<": ((-1.1, 0), (0.9, -1.1), (0.9, 1.1)),
    ">": ((1.1, 0), (-0.9, -1.1), (-0.9, 1.1)),
    "D": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "P": ((-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2),
          (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)),
    "X": ((0, -0.6), (0.6, -1.2), (1.2, -0.6), (0.6, 0), (1.2, 0.6), (0.6, 1.2), (0, 0.6), (-0.6, 1.2), (-1.2, 0.6),
          (-0.6, 0), (-1.2, -0.6), (-0.6, -1.2)),
}  # fmt: skip
"""matplotlib's markers as polygons of about unit radius; "o" is the circle."""


def _marker(shape: str, x: float, y: float, r: float) -> str:
    """Return the outline of a marker around (x, y)."""
    if shape == "o":
        d = _n(2 * r)
        return f"M{_n(x - r)} {_n(y)}a{_n(r)} {_n(r)} 0 1 0 {d} 0a{_n(r)} {_n(r)} 0 1 0 -{d} 0z"
    return f"M{'L'.join(f'{_n(x + r * dx)} {_n(y + r * dy)}' for dx, dy in SHAPES[shape])}z"


def swatch(key: str, marker: str) -> str:
    """Return an arm's line with its marker, for legends and tables."""
    return (
        f'<svg class="swatch chart {key}" style="width:34px;height:12px" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path class="line" d="M0 6H34"/><path class="dot" d="{_marker(marker, 17, 6, 3.5)}"/></svg>'
    )
