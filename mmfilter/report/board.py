"""The leaderboard's page: tables and plots in one HTML file that opens anywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from ..leaderboard import Board, Figure
from .charts import number, ticks

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 760.0, 340.0, 52.0, 190.0, 40.0
LINE = 15.0  # px from one label to the next


@dataclass(frozen=True)
class Point:
    """An arm at `x`, with its score; points of one `line` are joined."""

    name: str
    x: float
    score: Figure
    line: str = ""
    random: bool = False


def render(boards: Sequence[Board], tau: Figure | None = None, proxy: str = "") -> str:
    """The page as text. Runs no script and loads nothing."""
    here = files(__package__)
    environment = Environment(
        loader=DictLoader({"board.html": here.joinpath("board.html").read_text("utf-8")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(level=level, apart=apart, n=lambda value: f"{value:,}", num=number)
    return environment.get_template("board.html").render(
        boards=boards, kept=[by_kept(board) for board in boards], budget=by_budget(boards), tau=tau, proxy=proxy
    )


def level(figure: Figure) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def apart(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def by_kept(board: Board) -> Markup:
    """Score against the kept fraction; what is chosen at random is joined, from no filter down."""
    points = [
        Point(row.name, row.fraction, row.score, "random" if row.random or not row.beside else "", row.random)
        for row in board.rows
    ]
    return draw(points, "kept fraction of the pool", (0.0, max(1.0, *(point.x for point in points))))


def by_budget(boards: Sequence[Board]) -> Markup | None:
    """Score against pairs seen, an arm a line; None where there is one budget alone."""
    if len({board.samples for board in boards}) < 2:
        return None
    points = [
        Point(row.name, math.log10(board.samples), row.score, row.name, row.random)
        for board in boards
        for row in board.rows
    ]
    xs = [point.x for point in points]
    return draw(points, "pairs seen", (min(xs) - 0.1, max(xs) + 0.1), power=True)


def draw(points: Sequence[Point], title: str, span: tuple[float, float], power: bool = False) -> Markup:
    """Points with their intervals; a name is written beside the last point of each arm, with a hairline to it."""
    low = min(point.score.low for point in points)
    high = max(point.score.high for point in points)
    room = max(0.05 * (high - low), 0.005)
    low, high = low - room, high + room

    def across(x: float) -> float:
        return LEFT + (x - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return 10 + (high - y) / (high - low) * (HEIGHT - BOTTOM - 10)

    at = dict(zip(points, _spread([across(point.x) for point in points]), strict=True))
    marks = sorted({point.x for point in points}) if power else ticks(*span, 5)
    shapes = [_text(across(x), HEIGHT - 22, f"{10**x:,.0f}" if power else f"{x:g}", "middle") for x in marks]
    shapes.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, title, "middle", "title"))
    for y in ticks(low, high, 5):
        shapes += [_line(LEFT, up(y), WIDTH - RIGHT, up(y), "grid"), _text(LEFT - 6, up(y) + 4, f"{y:.2f}", "end")]
    for name in sorted({point.line for point in points if point.line}):
        joined = sorted((at[point], up(point.score.value)) for point in points if point.line == name)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in joined)
        shapes.append(Markup('<polyline points="{}"/>').format(path))
    for point in points:
        x, kind = at[point], "random" if point.random else "arm"
        shapes.append(_line(x, up(point.score.low), x, up(point.score.high), kind))
        told = f"{point.name}: {level(point.score)}"
        shapes.append(
            Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="{}"><title>{}</title></circle>').format(
                x, up(point.score.value), kind, told
            )
        )
    shapes += _names({p.name: (at[p], up(p.score.value)) for p in sorted(points, key=lambda p: p.x)})
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="score against {}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(shapes)
    )


def _spread(xs: Sequence[float], apart: float = 8.0) -> list[float]:
    """px; those that would lie on each other stand beside each other, so that every interval is seen."""
    found = list(xs)
    for middle in sorted(set(xs)):
        here = [i for i, x in enumerate(xs) if abs(x - middle) < 1]
        for place, i in enumerate(here):
            found[i] = xs[i] + (place - (len(here) - 1) / 2) * apart
    return found


def _names(ends: dict[str, tuple[float, float]]) -> list[Markup]:
    """Names in a column at the right, in the points' order from above, moved apart where they would touch."""
    shapes, last = [], -math.inf
    order = sorted(ends.items(), key=lambda end: (end[1][1], end[0]))
    for place, (name, (x, y)) in enumerate(order):
        left = len(order) - place - 1
        at = min(max(y, last + LINE), HEIGHT - BOTTOM - left * LINE)
        last = at
        edge = WIDTH - RIGHT + 14
        shapes += [_line(x + 5, y, edge, at, "lead"), _text(edge + 4, at + 4, name, "start")]
    return shapes


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, kind, words)
