"""Charts as inline SVG. Bars are stretched to the width at hand; every letter is HTML, so it stays crisp."""

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .scores import Histogram

HEIGHT = 100.0


@dataclass(frozen=True)
class Tick:
    """A label at `at` percent of the axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """`svg` is the drawing; ticks and lines are placed over it in percent of its width or height."""

    svg: Markup
    x: list[Tick]
    y: list[Tick]
    lines: list[Tick]


def number(value: float, digits: int = 4) -> str:
    """A value in `digits` significant digits: 0.2431, 224, 1.5."""
    if not math.isfinite(value):
        return "none"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.{digits}g}"


def exact(value: float) -> str:
    """A value beside a sample, in five digits however they end: 0.88070."""
    return number(value) if not math.isfinite(value) or value == round(value) else f"{value:#.5g}"


def short(value: float) -> str:
    """12.8M, 640k, 0.75: a number on an axis."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def nice_step(span: float, parts: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts `span` in about `parts`."""
    if span <= 0:
        return 1.0
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999))


def ticks(low: float, high: float, parts: int) -> list[float]:
    step = nice_step(high - low, parts)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def draw_histogram(histogram: Histogram) -> Chart:
    """Kept bars stand on the axis, dropped ones on top of them; dashed lines are thresholds."""
    edges, total = histogram.edges, histogram.kept + histogram.dropped
    top = max(int(total.max()), 1)
    low, high = float(edges[0]), float(edges[-1])
    left = (edges[:-1] - low) / (high - low) * 100
    width = np.diff(edges) / (high - low) * 100
    shapes = [
        _bars("kept", left, width, np.zeros(len(total)), histogram.kept / top * HEIGHT),
        _bars("dropped", left, width, histogram.kept / top * HEIGHT, total / top * HEIGHT),
        *(_hover(histogram, i, left[i], width[i]) for i in range(len(total)) if total[i]),
    ]
    lines = [Tick((histogram.at(cut) - low) / (high - low) * 100, number(cut.value, 5)) for cut in histogram.cuts]
    marks = Markup("").join(
        Markup('<line class="cut" x1="{0:.3f}" x2="{0:.3f}" y1="0" y2="100"/>').format(line.at) for line in lines
    )
    svg = Markup('<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>').format(
        _aria(histogram), Markup("").join(shapes), marks
    )
    x = [Tick((v - low) / (high - low) * 100, number(_clean(v))) for v in ticks(low, high, 6)]
    y = [Tick(v / top * 100, f"{v:,.0f}") for v in ticks(0, top, 4) if v and v == round(v)]
    return Chart(svg, x, y, lines)


def _bars(name: str, left: np.ndarray, width: np.ndarray, base: np.ndarray, top: np.ndarray) -> Markup:
    """One path for all bars, from `base` to `top` in percent of the height; a hairline apart."""
    gap = width * 0.06
    path = "".join(
        f"M{x + g:.2f} {HEIGHT - b:.2f}V{HEIGHT - t:.2f}h{w - 2 * g:.2f}V{HEIGHT - b:.2f}z"
        for x, w, g, b, t in zip(left, width, gap, base, top, strict=True)
        if t > b
    )
    return Markup('<path class="{}" d="{}"/>').format(name, path)


def span(histogram: Histogram, i: int) -> str:
    """The values of bar i: "0.21 to 0.22", or "4" and "4 to 7" of whole numbers."""
    low, high = float(histogram.edges[i]), float(histogram.edges[i + 1])
    if histogram.whole:
        low, high = low + 0.5, high - 0.5
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def _hover(histogram: Histogram, i: int, left: float, width: float) -> Markup:
    told = f"{span(histogram, i)}: {histogram.kept[i]:,} kept, {histogram.dropped[i]:,} dropped"
    return Markup('<rect class="hover" x="{:.2f}" y="0" width="{:.2f}" height="100"><title>{}</title></rect>').format(
        left, width, told
    )


def _clean(value: float) -> float:
    """Without the dust of binary fractions: 0.30000000000000004 -> 0.3."""
    return float(f"{value:.6g}")


def _aria(histogram: Histogram) -> str:
    cuts = ", ".join(number(cut.value, 5) for cut in histogram.cuts)
    told = f"Histogram of {histogram.column}: {histogram.kept.sum():,} kept and {histogram.dropped.sum():,} dropped"
    return f"{told}; threshold {cuts}" if cuts else told
