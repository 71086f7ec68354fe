"""Pictures decoded for requests: large ones one at a time, so that their memory does not add up."""

import contextlib
import threading
from collections.abc import Iterator

from PIL import Image

from mmfilter.images import ImageLimits, decode, probe

LARGE = 1 << 22  # pixels from which a picture is decoded alone: 17 MB as RGBA, and copies of it
_alone = threading.Lock()


@contextlib.contextmanager
def decoded(data: bytes, limits: ImageLimits) -> Iterator[Image.Image]:
    """The picture, for as long as it is used; a large one waits until no other large one is. Raises DecodeError."""
    width, height = probe(data, limits)
    with _alone if width * height >= LARGE else contextlib.nullcontext():
        yield decode(data, limits)
