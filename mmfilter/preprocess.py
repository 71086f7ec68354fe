"""From a decoded image to the pixels a model takes: open_clip's own transform, up to its last two steps.

The transform's ToTensor and Normalize are left to the device (`mmfilter.embed`), so a quarter of
the bytes cross the bus. What is kept is the model's own Compose, whatever its resize mode is.
"""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .images import ImageLimits, judged

MAX_RESIZED = 1 << 27
"""Pixels. Resizing the shortest side of a 1 x 60000 image to 224 makes 3e9 of them before the crop."""


class Unpreparable(ValueError):
    """An image that decodes but cannot be resized within memory; `status` is the sample's."""

    status = "aspect_too_extreme"


class Preparation(NamedTuple):
    """`steps` map a PIL image to an RGB one of the model's size; `mean` and `std` are per channel, of 0..1."""

    steps: tuple[Any, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fast: bool

    @property
    def key(self) -> str:
        """Equal keys give equal pixels, so two models can share one array."""
        steps = [f"{step!r}{getattr(step, 'fill', '')}" for step in self.steps]
        return f"{'fast' if self.fast else 'pillow'}: {' > '.join(steps)}"


def preparation(transform: Any, decoder: str = "pillow") -> Preparation:
    """Split open_clip's eval transform. Raises TypeError if it does not end in ToTensor and Normalize."""
    from torchvision.transforms import Normalize, ToTensor

    *steps, to_tensor, normalize = transform.transforms
    if not (isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize)):
        raise TypeError(f"a transform that ends in {to_tensor!r}, {normalize!r}: expected ToTensor, Normalize")
    mean, std = tuple(map(float, normalize.mean)), tuple(map(float, normalize.std))
    return Preparation(tuple(steps), mean, std, decoder == "fast")


def prepare(image: Image.Image, how: Preparation) -> np.ndarray:
    """uint8 (height, width, 3), the model's input before scaling. Raises Unpreparable."""
    _refuse_slivers(image, how.steps[0])
    if how.fast and image.mode == "RGB" and _is_resize(how.steps[0]):
        return _prepare_fast(image, how.steps)
    for step in how.steps:
        image = step(image)
    return np.asarray(image)


def _is_resize(step: Any) -> bool:
    return type(step).__name__ == "Resize" and step.interpolation.value in ("bicubic", "bilinear")


def _resized(width: int, height: int, size: Any) -> tuple[int, int]:
    """(height, width) after torchvision's Resize: an int is the shortest side, the other one truncated."""
    if not isinstance(size, int):
        return (int(size[0]), int(size[-1])) if len(size) > 1 else _resized(width, height, int(size[0]))
    long = int(size * max(width, height) / min(width, height))
    return (size, long) if height <= width else (long, size)


def _refuse_slivers(image: Image.Image, step: Any) -> None:
    if type(step).__name__ != "Resize":
        return
    height, width = _resized(*image.size, step.size)
    if height * width > MAX_RESIZED:
        raise Unpreparable(f"{image.width} x {image.height} pixels become {width} x {height} before the crop")


def _prepare_fast(image: Image.Image, steps: tuple[Any, ...]) -> np.ndarray:
    """torch's antialiased resize of uint8: the same filter as Pillow's, within two grey levels, vectorised."""
    import torch
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    size = _resized(*image.size, steps[0].size)
    if size != (image.height, image.width):
        pixels = interpolate(pixels, size, mode=steps[0].interpolation.value, antialias=True)
    for step in steps[1:]:
        if hasattr(step, "size"):  # the crop; the conversion to RGB has nothing to do
            pixels = step(pixels)
    return pixels[0].permute(1, 2, 0).contiguous().numpy()


def draft(data: bytes, side: int) -> Image.Image | None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 of its size by the DCT, or None when that gains nothing.

    The shortest side stays at least twice `side` (the largest of the models'), so that the resize
    that follows hides the coarser filter. None also for anything that is wrong with the file: the
    exact decoder then says what. The header's size must have been checked by then.
    """
    try:
        return judged(lambda: _draft(data, side), ImageLimits())
    except MemoryError:  # the machine's: the exact decoder's pixels are others
        raise
    except Exception:
        return None


def _draft(data: bytes, side: int) -> Image.Image | None:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        full = image.size
        if min(full) < 4 * side or image.mode != "RGB":
            return None
        image.draft("RGB", (2 * side, 2 * side))
        image.load()
        return image.copy() if image.size != full else None
