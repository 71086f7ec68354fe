"""Line charts as inline SVG: drawn in percent of both axes and stretched, strokes kept to their width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .charts import Chart, Tick, number, short, ticks

Place = Callable[[np.ndarray, np.ndarray], list[tuple[float, float]]]


@dataclass(frozen=True)
class Line:
    """`x` and `y` (n,) joined in their order; `dots` are marked, `low` and `high` (n,) are a band around the line.

    `hue` numbers a colour of report.css.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    hue: int = 0
    dots: bool = False
    joined: bool = True
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def draw_lines(lines: Sequence[Line], label: str, mark: float | None = None, whole: bool = False) -> Chart:
    """All lines over one pair of axes; a dashed line stands at `mark`. `whole` puts ticks on whole numbers only."""
    xs, ys = ([v for line in lines for v in values(line)] for values in (_across, _up))
    left, right = _span(np.concatenate(xs), 0.03)
    low, high = _span(np.concatenate(ys), 0.06)

    def at(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
        return list(zip((x - left) / (right - left) * 100, 100 - (y - low) / (high - low) * 100, strict=True))

    shapes = [_shape(line, at) for line in lines]
    cut = [] if mark is None else [Tick((mark - left) / (right - left) * 100, number(mark))]
    shapes += [Markup('<line class="cut" x1="{0:.2f}" x2="{0:.2f}" y1="0" y2="100"/>').format(t.at) for t in cut]
    svg = Markup('<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
        label, Markup("").join(shapes)
    )
    x = [v for v in ticks(left, right, 6) if not whole or v == round(v)]
    return Chart(
        svg,
        [Tick((v - left) / (right - left) * 100, short(v)) for v in x],
        [Tick((v - low) / (high - low) * 100, short(v)) for v in ticks(low, high, 4)],
        cut,
    )


def _across(line: Line) -> list[np.ndarray]:
    return [line.x]


def _up(line: Line) -> list[np.ndarray]:
    return [line.y, *(band for band in (line.low, line.high) if band is not None)]


def _span(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The values' ends with a margin; never of no width."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = (high - low) * margin or max(abs(low) * 0.05, 1e-6)
    return low - room, high + room


def _shape(line: Line, place: Place) -> Markup:
    points = place(line.x, line.y)
    parts = []
    if line.low is not None and line.high is not None:
        ring = [*place(line.x, line.high), *place(line.x, line.low)[::-1]]
        parts.append(Markup('<path class="band" d="M{}z"/>').format(_path(ring)))
    if line.joined:
        parts.append(Markup('<path class="line" d="M{}"/>').format(_path(points)))
    if line.dots:
        d = "".join(f"M{x:.2f} {y:.2f}h0" for x, y in points)
        parts.append(Markup('<path class="dots" d="{}"/>').format(d))
    told = Markup("<title>{}</title>").format(line.name)
    return Markup('<g class="hue{}">{}{}</g>').format(line.hue % 8, told, Markup("").join(parts))


def _path(points: list[tuple[float, float]]) -> str:
    return "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
