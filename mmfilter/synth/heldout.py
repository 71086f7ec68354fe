"""Scenes that no pool holds, to measure a model on: by attribute, in pairs of groups, and under shifts.

A pool's scenes are drawn from "SEED/INDEX/scene" with a whole number as the seed; these are drawn from
"held out/...", so that no pool of any seed has them.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from .draw import jpeg, render
from .scenes import CLASHES, Group, Scene, make_scene
from .words import COLOURS, NOUNS, RELATIONS, TEXTURES

SIDE = 112
"""The short side of a scene in px, as a pool's by default."""

VALUES: Mapping[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": tuple(NOUNS),
    "texture": tuple(TEXTURES),
    "count": ("1", "2", "3", "4", "5", "6"),
}
"""What each attribute of a scene's only group can be; a value's place is its label."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A scene and its picture (RGB, SIDE px or a little more a side)."""

    scene: Scene
    image: Image.Image


def of_class(attribute: str, label: int, seed: int, index: int, shift: str = "") -> HeldOut:
    """Scene `index` whose only group has value `label` of `attribute`; `shift` is "" or one of SHIFTS."""
    value = VALUES[attribute][label]
    rng = Random(f"held out/{seed}/{attribute}/{index}")
    while True:
        scene = _draw(rng)
        if len(scene.groups) == 1:
            scene = _with(scene, attribute, value)
            if str(_value(scene.groups[0], attribute)) == value and scene.groups[0].colour not in clash(scene):
                return HeldOut(scene, picture(scene, rng, shift))


def of_two(seed: int, index: int) -> HeldOut:
    """Scene `index` of two groups that differ in shape and colour, neither of which clashes with the ground."""
    rng = Random(f"held out/{seed}/two/{index}")
    while True:
        scene = _draw(rng)
        if len(scene.groups) == 2 and scene.groups[0].colour != scene.groups[1].colour:
            return HeldOut(scene, picture(scene, rng))


def of_any(seed: int, index: int) -> HeldOut:
    """Scene `index` as a pool has them."""
    rng = Random(f"held out/{seed}/any/{index}")
    scene = _draw(rng)
    return HeldOut(scene, picture(scene, rng))


def clash(scene: Scene) -> frozenset[str]:
    """Colours that would be hard to see on the scene's ground."""
    return CLASHES[scene.place] if scene.place else frozenset({scene.colour})


def _draw(rng: Random) -> Scene:
    long = int(SIDE * rng.uniform(1.0, 1.25))
    return make_scene(rng, *((long, SIDE) if rng.random() < 0.5 else (SIDE, long)))


def _with(scene: Scene, attribute: str, value: str) -> Scene:
    """The scene with another value; where things lie does not hang on shape, colour or texture."""
    if attribute == "count":
        return scene
    changed: dict[str, Any] = {attribute: value}
    return replace(scene, groups=(replace(scene.groups[0], **changed),))


def _value(group: Group, attribute: str) -> str | int:
    return getattr(group, attribute)


def told(scene: Scene, relation: str = "", colours: tuple[str, str] | None = None) -> str:
    """ "a red star to the left of two blue circles": two groups in a fixed form, so that captions differ in
    nothing but what is asked for: another relation of the first group to the second, other colours.
    """
    inks = colours or (scene.groups[0].colour, scene.groups[1].colour)
    first, second = (phrase(group, colour) for group, colour in zip(scene.groups, inks, strict=True))
    return f"{first} {RELATIONS[relation or scene.relation][0][0]} {second}"


def phrase(group: Group, colour: str = "") -> str:
    """ "two blue circles"."""
    noun = group.shape if group.count == 1 else NOUNS[group.shape][0]
    words = f"{colour or group.colour} {noun}"
    number = {1: "an" if words[0] in "aeiou" else "a", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    return f"{number[group.count]} {words}"


def picture(scene: Scene, rng: Random, shift: str = "") -> Image.Image:
    """The scene as it comes out of a JPEG file, like a pool's; then what `shift` does to it."""
    ground = unseen(scene.width, scene.height, rng) if shift == "background" else None
    image = Image.open(io.BytesIO(jpeg(render(scene, rng, ground), rng.randint(86, 95)))).convert("RGB")
    return SHIFTS[shift](image, rng) if shift else image


def unseen(width: int, height: int, rng: Random) -> Image.Image:
    """A ground that no pool has: soft blotches of random colours, greyed so that shapes stand out."""
    few = np.frombuffer(rng.randbytes(4 * 4 * 3), np.uint8).reshape(4, 4, 3)
    soft = Image.fromarray((96 + few // 3).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    fine = np.frombuffer(rng.randbytes(width * height), np.uint8).reshape(height, width, 1).astype(np.int16)
    return Image.fromarray((np.asarray(soft, np.int16) + fine // 8 - 16).clip(0, 255).astype(np.uint8))


def _noise(image: Image.Image, rng: Random) -> Image.Image:
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0, 40, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, rng: Random) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image, 8))).convert("RGB")


SHIFTS: Mapping[str, Callable[[Image.Image, Random], Image.Image]] = {
    "noise": _noise,
    "blur": lambda image, rng: image.filter(ImageFilter.GaussianBlur(2.5)),
    "jpeg": _jpeg,
    "brightness": lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.choice((0.45, 1.8))),
    "background": lambda image, rng: image,
}
"""Changes that no pool's pictures have. How strong they are is ours: what a person still sees through."""
