"""One sample of a pool: a clean pair, or a pair with something wrong that its label tells."""

import hashlib
import io
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from ..errors import UsageError
from . import captions, draw
from .options import KINDS, MISMATCHED, SynthOptions
from .scenes import Scene, make_scene


@dataclass(frozen=True, slots=True)
class Plan:
    """What each sample is: `kinds` (n,) uint8, positions in KINDS; `clean` (m,) int64, the clean samples."""

    options: SynthOptions
    kinds: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True, slots=True)
class Made:
    """A sample before it is packed. `duplicate_of` is the index of the sample it repeats, -1 for none."""

    image: bytes
    captions: tuple[str, ...]
    kind: str
    lang: str = "en"
    duplicate_of: int = -1

    @property
    def match(self) -> bool:
        """Does the caption describe what is to be seen?"""
        return self.kind not in MISMATCHED


def make_plan(options: SynthOptions) -> Plan:
    """Give each of the n samples its kind: numbers exact to the shares (largest remainders), order by seed."""
    shares = np.array(list(options.shares().values())) * options.samples
    numbers = np.floor(shares + 1e-9).astype(np.int64)
    left = options.samples - int(numbers.sum())
    numbers[np.argsort(-(shares - numbers), kind="stable")[:left]] += 1
    kinds = np.repeat(np.arange(len(KINDS), dtype=np.uint8), numbers)
    np.random.default_rng(options.seed).shuffle(kinds)
    clean = np.flatnonzero(kinds == 0)
    if len(clean) < 2 and len(clean) < options.samples:
        raise UsageError("noise: wrong captions and duplicates need at least two clean samples; ask for more samples")
    return Plan(options, kinds, clean)


def uid(seed: int, index: int) -> str:
    """32 lower-case hex digits."""
    return hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=16).hexdigest()


def make(plan: Plan, index: int) -> Made:
    """Sample `index` of the pool; depends on the plan and the index alone."""
    kind = list(KINDS)[plan.kinds[index]]
    rng = Random(f"{plan.options.seed}/{index}/{kind}")
    if kind.startswith("duplicate_"):
        return _duplicate(plan, int(rng.choice(plan.clean)), kind, rng)
    if kind == "text_image":
        return _text(plan, kind, rng)
    scene = scene_of(plan.options, index, narrow=kind == "narrow")
    image = image_of(plan.options, index, scene, tiny=kind == "tiny")
    if kind == "other_language":
        text, lang = captions.foreign(scene, rng)
        return Made(image, (text,), kind, lang)
    if kind == "short_caption":
        return Made(image, (captions.short(scene, rng),), kind)
    if kind == "boilerplate":
        return Made(image, (captions.boilerplate(rng),), kind)
    told = _other_scene(plan, scene, rng) if kind == "wrong_caption" else scene
    return Made(image, _captions(plan, told, rng), kind)


def _captions(plan: Plan, scene: Scene, rng: Random) -> tuple[str, ...]:
    return tuple(captions.english(scene, rng) for _ in range(plan.options.captions))


def scene_of(options: SynthOptions, index: int, narrow: bool = False) -> Scene:
    """The scene of sample `index`: short side `size` px, at most a quarter longer than wide; narrow: 3.5 to 5 times."""
    rng = Random(f"{options.seed}/{index}/scene")
    long = int(options.size * (rng.uniform(3.5, 5.0) if narrow else rng.uniform(1.0, 1.25)))
    sides = (long, options.size) if rng.random() < 0.5 else (options.size, long)
    return make_scene(rng, *sides)


def image_of(options: SynthOptions, index: int, scene: Scene, tiny: bool = False) -> bytes:
    """The scene as a JPEG file; tiny: short side 16 to 40 px."""
    rng = Random(f"{options.seed}/{index}/image")
    image = draw.render(scene, rng)
    if tiny:
        image = _scaled(image, rng.randint(16, 40) / options.size)
    return draw.jpeg(image, rng.randint(86, 95))


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    sides = (round(image.width * factor), round(image.height * factor))
    return image.resize(sides, Image.Resampling.BICUBIC)


def _other_scene(plan: Plan, scene: Scene, rng: Random) -> Scene:
    """A clean sample's scene whose shapes and colours are not those of `scene`."""
    here = {(group.shape, group.colour) for group in scene.groups}
    while True:
        other = scene_of(plan.options, int(rng.choice(plan.clean)))
        if not here & {(group.shape, group.colour) for group in other.groups}:
            return other


def _duplicate(plan: Plan, source: int, kind: str, rng: Random) -> Made:
    """A clean sample's picture again, exactly or changed, with words of its own."""
    scene = scene_of(plan.options, source)
    image = image_of(plan.options, source, scene)
    if kind != "duplicate_exact":
        image = _changed(image, kind, rng)
    return Made(image, _captions(plan, scene, rng), kind, duplicate_of=source)


def _changed(data: bytes, kind: str, rng: Random) -> bytes:
    image: Image.Image = Image.open(io.BytesIO(data))
    if kind == "duplicate_resized":
        image = _scaled(image, rng.uniform(0.75, 0.9) if rng.random() < 0.5 else rng.uniform(1.15, 1.6))
    elif kind == "duplicate_cropped":
        width, height = (round(side * rng.uniform(0.84, 0.94)) for side in image.size)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        image = image.crop((left, top, left + width, top + height))
    return draw.jpeg(image, rng.randint(40, 65) if kind == "duplicate_reencoded" else 90)


def _text(plan: Plan, kind: str, rng: Random) -> Made:
    """A picture of its own caption, written out."""
    if rng.random() < 0.5:
        words = captions.slogan(rng)
    else:
        words = captions.english(scene_of(plan.options, int(rng.choice(plan.clean))), rng)
    return Made(draw.jpeg(draw.text_image(words, plan.options.size, rng), 90), (words,), kind)
