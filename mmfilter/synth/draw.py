"""Scenes to pixels, with Pillow."""

import io
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont

from .scenes import Scene
from .shapes import core, mask
from .words import COLOURS

RGB = tuple[int, int, int]
LIGHT = frozenset({"yellow", "white", "pink", "turquoise", "orange"})
"""Colours whose texture is drawn in black; that of the others is drawn in white."""


def render(scene: Scene, rng: Random, ground: Image.Image | None = None) -> Image.Image:
    """An RGB image of width x height px, on another ground than the scene's where one is given."""
    image = ground.copy() if ground else background(scene, rng)
    inks = [_jitter(COLOURS[group.colour][0], rng) for group in scene.groups]
    for number, x, y, side in scene.items:
        group = scene.groups[number]
        outline = mask(group.shape, side)
        if group.texture == "outlined":
            outline = ImageChops.subtract(outline, core(group.shape, side))
        image.paste(inks[number], (x, y), outline)
        if group.texture not in ("plain", "outlined"):
            second = (25, 25, 25) if group.colour in LIGHT else (245, 245, 245)
            image.paste(second, (x, y), ImageChops.multiply(outline, _pattern(group.texture, side)))
    return image


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _jitter(colour: RGB, rng: Random, by: int = 12) -> RGB:
    red, green, blue = (min(255, max(0, c + rng.randint(-by, by))) for c in colour)
    return red, green, blue


@lru_cache(maxsize=1024)
def _pattern(texture: str, side: int) -> Image.Image:
    """ "L", side x side px, 255 where the second colour shows."""
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    period = max(6, side // 4)
    steps = range(-period, side + period, period)
    if texture == "striped":
        for y in steps:
            draw.rectangle((0, y, side, y + period // 2 - 1), fill=255)
    for row, y in enumerate(steps):
        for column, x in enumerate(steps):
            if texture == "checkered" and (row + column) % 2:
                draw.rectangle((x, y, x + period - 1, y + period - 1), fill=255)
            elif texture == "dotted":
                draw.ellipse((x, y, x + period * 0.6, y + period * 0.6), fill=255)
    return image


def background(scene: Scene, rng: Random) -> Image.Image:
    """The picture before anything lies on it, RGB."""
    width, height = scene.width, scene.height
    if not scene.place:
        return Image.new("RGB", (width, height), _jitter(COLOURS[scene.colour][0], rng))
    below, above = GROUNDS[scene.place]
    image = _gradient(width, height, _jitter(above, rng), _jitter(below, rng))
    draw = ImageDraw.Draw(image)
    DETAILS[scene.place](draw, rng, width, height)
    return image


def _gradient(width: int, height: int, above: RGB, below: RGB) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((width, height))
    return Image.composite(Image.new("RGB", (width, height), below), Image.new("RGB", (width, height), above), ramp)


def _stars(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    for _ in range(36):
        x, y = rng.randrange(width), rng.randrange(height)
        draw.rectangle((x, y, x + rng.randint(0, 1), y + 1), fill=(250, 250, 225))


def _meadow(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    horizon = int(height * rng.uniform(0.4, 0.55))
    draw.rectangle((0, horizon, width, height), fill=_jitter((96, 176, 72), rng))
    for _ in range(40):
        x, y = rng.randrange(width), rng.randrange(horizon, height)
        draw.line((x, y, x + 2, y - 5), fill=(66, 140, 52))


def _beach(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    shore = int(height * rng.uniform(0.45, 0.6))
    draw.rectangle((0, height // 4, width, shore), fill=_jitter((62, 140, 200), rng))
    draw.rectangle((0, shore, width, height), fill=_jitter((232, 208, 150), rng))


def _bricks(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    step = rng.randint(9, 13)
    for row, y in enumerate(range(rng.randint(-step, 0), height, step)):
        draw.line((0, y, width, y), fill=(206, 190, 176))
        for x in range((row % 2) * step, width, 2 * step):
            draw.line((x, y, x, y + step), fill=(206, 190, 176))


def _waves(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    step = rng.randint(12, 16)
    for y in range(rng.randint(-step, 0), height, step):
        for x in range(rng.randint(-2 * step, 0), width, 2 * step):
            draw.line((x, y + 4, x + step // 2, y, x + step, y + 4, x + 2 * step, y + 4), fill=(190, 226, 246), width=2)


def _snow(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    draw.rectangle((0, int(height * rng.uniform(0.75, 0.85)), width, height), fill=(250, 250, 252))
    for _ in range(45):
        x, y = rng.randrange(width), rng.randrange(height)
        draw.ellipse((x, y, x + 3, y + 3), fill=(255, 255, 255))


def _sunset(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    draw.rectangle((0, int(height * rng.uniform(0.8, 0.88)), width, height), fill=_jitter((52, 30, 62), rng))


def _squares(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    step = rng.randint(8, 11)
    for x in range(rng.randint(0, step), width, step):
        draw.line((x, 0, x, height), fill=(150, 182, 222))
    for y in range(rng.randint(0, step), height, step):
        draw.line((0, y, width, y), fill=(150, 182, 222))


def _boards(draw: ImageDraw.ImageDraw, rng: Random, width: int, height: int) -> None:
    step = rng.randint(14, 22)
    for y in range(rng.randint(0, step), height, step):
        draw.line((0, y, width, y), fill=(112, 72, 36), width=2)
        draw.line((0, y + step // 2, width, y + step // 2 + rng.randint(-2, 2)), fill=(166, 116, 66))


GROUNDS: dict[str, tuple[RGB, RGB]] = {
    "night": ((30, 32, 84), (8, 8, 30)),
    "meadow": ((190, 224, 250), (110, 176, 240)),
    "beach": ((200, 226, 246), (140, 196, 244)),
    "bricks": ((158, 72, 52), (174, 84, 62)),
    "water": ((24, 92, 164), (52, 136, 200)),
    "snow": ((214, 224, 236), (164, 180, 204)),
    "sunset": ((250, 170, 60), (196, 66, 96)),
    "paper": ((244, 246, 250), (250, 250, 252)),
    "wood": ((146, 98, 54), (158, 108, 60)),
}
"""Place -> (colour at the bottom, colour at the top)."""

DETAILS = {
    "night": _stars,
    "meadow": _meadow,
    "beach": _beach,
    "bricks": _bricks,
    "water": _waves,
    "snow": _snow,
    "sunset": _sunset,
    "paper": _squares,
    "wood": _boards,
}


@lru_cache(maxsize=32)
def _font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(px)


def text_image(words: str, size: int, rng: Random) -> Image.Image:
    """An RGB picture, size px high and a little wider, of nothing but `words`."""
    width = int(size * rng.uniform(1.0, 1.4))
    dark = rng.random() < 0.4
    paper = _jitter((235, 232, 224), rng, 20)
    ink = _jitter((30, 34, 60), rng, 30)
    image = Image.new("RGB", (width, size), ink if dark else paper)
    px = rng.randint(size // 9, size // 6)
    line_length = max(6, int(1.8 * width / px))
    lines = _wrap(words, line_length)[: size // (px + 2)]
    top = max(2, (size - len(lines) * (px + 2)) // 2)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((4, top + number * (px + 2)), line, fill=paper if dark else ink, font=_font(px))
    return image


def _wrap(words: str, length: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
