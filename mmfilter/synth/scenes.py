"""What is in a picture: groups of shapes, how they stand to each other, and where each one lies."""

from dataclasses import dataclass
from random import Random

from .words import COLOURS, NOUNS, PLACES, RELATIONS, TEXTURES

CLASHES: dict[str, frozenset[str]] = {
    "night": frozenset({"black", "blue", "purple"}),
    "meadow": frozenset({"green", "turquoise", "blue"}),
    "beach": frozenset({"yellow", "turquoise", "blue", "white"}),
    "bricks": frozenset({"brown", "red", "orange"}),
    "water": frozenset({"blue", "turquoise"}),
    "snow": frozenset({"white", "grey"}),
    "sunset": frozenset({"orange", "pink", "purple", "red"}),
    "paper": frozenset({"white", "grey"}),
    "wood": frozenset({"brown", "orange"}),
}
"""Colours that would be hard to see in front of a background."""

SIDE = {"small": 0.24, "medium": 0.40, "large": 0.62}
"""A shape's side as a part of the picture's short side; no more than its cell allows."""


@dataclass(frozen=True, slots=True)
class Group:
    """`count` equal shapes. `size` differs from "medium" for a single shape only."""

    count: int
    size: str
    texture: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """`place` is a key of PLACES, or "" for a background of plain `colour`.

    `relation` is that of the first group to the second, "" when there is only one.
    `items` are (group, x, y, side), px, one for each shape; they do not overlap.
    """

    width: int
    height: int
    place: str
    colour: str
    groups: tuple[Group, ...]
    relation: str
    items: tuple[tuple[int, int, int, int], ...]


def make_scene(rng: Random, width: int, height: int) -> Scene:
    """Draw a scene; everything comes from `rng`."""
    place = rng.choice(list(PLACES)) if rng.random() < 0.45 else ""
    ground = "" if place else rng.choice(list(COLOURS))
    clash = CLASHES[place] if place else frozenset({ground})
    two = rng.random() < 0.45
    shapes = rng.sample(list(NOUNS), 2)
    groups = tuple(_group(rng, shape, clash, 3 if two else 6) for shape in shapes[: 1 + two])
    relation = rng.choice(list(RELATIONS)) if two else ""
    items = [
        (number, *item)
        for number, group in enumerate(groups)
        for item in _place(rng, group, _region(relation, number, width, height), min(width, height))
    ]
    return Scene(width, height, place, ground, groups, relation, tuple(items))


def _group(rng: Random, shape: str, clash: frozenset[str], most: int) -> Group:
    count = 1 if rng.random() < 0.5 else rng.randint(2, most)
    size = rng.choice(list(SIDE)) if count == 1 else "medium"
    texture = "plain" if rng.random() < 0.4 else rng.choice(list(TEXTURES)[1:])
    return Group(count, size, texture, rng.choice([c for c in COLOURS if c not in clash]), shape)


def _region(relation: str, number: int, width: int, height: int) -> tuple[int, int, int, int]:
    """x, y, width, height, px, of the part of the picture where a group lies."""
    if not relation:
        return 0, 0, width, height
    first = relation in ("left", "above")  # does the first group have the near half?
    far = (number == 0) != first
    if relation in ("left", "right"):
        half = width // 2
        return (half if far else 0), 0, half, height
    half = height // 2
    return 0, (half if far else 0), width, half


def _place(rng: Random, group: Group, region: tuple[int, int, int, int], short: int) -> list[tuple[int, int, int]]:
    """(x, y, side) of each shape of a group: one to a cell of a grid, at random within it."""
    left, top, width, height = region
    columns, rows = _grid(group.count, width, height)
    cell_w, cell_h = width // columns, height // rows
    side = max(8, min(int(SIDE[group.size] * short * rng.uniform(0.92, 1.08)), int(0.94 * min(cell_w, cell_h))))
    placed = []
    for cell in sorted(rng.sample(range(columns * rows), group.count)):
        x = left + (cell % columns) * cell_w + rng.randint(0, cell_w - side)
        y = top + (cell // columns) * cell_h + rng.randint(0, cell_h - side)
        placed.append((x, y, side))
    return placed


def _grid(count: int, width: int, height: int) -> tuple[int, int]:
    """(columns, rows) with at least `count` cells, as square as can be."""
    grids = [(columns, -(-count // columns)) for columns in range(1, count + 1)]
    return max(grids, key=lambda grid: min(width / grid[0], height / grid[1]))
