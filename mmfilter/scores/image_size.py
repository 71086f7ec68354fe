"""The size of the image in the shard, which a resizing download made smaller than `original_*`."""

import io

import numpy as np
from PIL import Image

from ..plugs import Batch, Score


class ImageSize(Score):
    """`image_width`, `image_height` (pixels, int64), `image_aspect` (longer by shorter side, float32) and
    `image_bytes` (of the file, int64). Read from the header: no pixel is decoded.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        return ("image_width", "image_height", "image_aspect", "image_bytes")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"bytes"})

    def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
        files = batch["bytes"]
        sizes = np.array([_size(data) for data in files], dtype=np.int64).reshape(-1, 2)
        return {
            "image_width": sizes[:, 0],
            "image_height": sizes[:, 1],
            "image_aspect": (sizes.max(axis=1) / sizes.min(axis=1)).astype(np.float32),
            "image_bytes": np.array([len(data) for data in files], dtype=np.int64),
        }


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size
