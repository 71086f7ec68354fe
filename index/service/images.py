"""Pictures straight out of the tars, by byte offset: thumbnails made safe, or the file as it is."""

import hashlib
import io
from typing import Any

import numpy as np
from PIL import Image

from mmfilter import storage
from mmfilter.images import ImageLimits, displayed
from mmfilter.records import failure_of

from .columns import PLACE
from .decoding import decoded
from .pool import Pool, Snapshot
from .settings import Refused

MAX_BYTES = 64 << 20  # of an image file that is read
SIDES = (16, 1024)
TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"BM": "image/bmp"}


def image(pool: Pool, snapshot: Snapshot, row: int, side: int) -> tuple[bytes, str]:
    """(bytes, media type): a JPEG of at most `side` pixels on its longer side; at 0 the file. Raises Refused."""
    if side == 0:
        data = _read(pool, snapshot, row)
        return data, _type(data)
    side = min(max(side, SIDES[0]), SIDES[1])
    made = snapshot.columns.cache.get(
        ("thumb", row, side), lambda: _small(_read(pool, snapshot, row), snapshot.limits, side), len
    )
    return made, "image/jpeg"


def _read(pool: Pool, snapshot: Snapshot, row: int) -> bytes:
    place: dict[str, Any] = snapshot.columns.rows(np.array([row]), PLACE)[0]
    stem, _ = snapshot.columns.place(row)
    path, offset, size = pool.tar(stem), place["offset"], place["size"]
    if not path or offset is None or not 0 < (size or 0) <= MAX_BYTES:
        raise Refused(404, "the sample's place in a tar is not known: this pool came without images")
    try:
        with storage.open_read(path) as stream:
            stream.seek(offset)
            data = stream.read(size)
    except Exception as error:  # a store can fail in its own ways
        raise Refused(
            404, f"the tar of shard {stem} is not at hand; put it back, or run again with --pool where it is"
        ) from error
    if len(data) != size or (place["sha256"] and hashlib.sha256(data).hexdigest() != place["sha256"]):
        raise Refused(404, f"the tar of shard {stem} has changed since it was embedded")
    return data


def _small(data: bytes, limits: ImageLimits, side: int) -> bytes:
    try:
        with decoded(data, limits) as picture:
            return jpeg(picture, side)
    except Exception as error:  # Pillow raises whatever it pleases: no picture is a fault of the service
        raise Refused(404, f"the image cannot be shown: {failure_of('', '', error).error}") from error


def jpeg(picture: Image.Image, side: int) -> bytes:
    """The picture as a JPEG on white, at most `side` pixels on its longer side. Raises DecodeError."""
    picture = displayed(picture)
    if picture.mode == "RGBA":
        picture.thumbnail((side, side))
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    picture = picture.convert("RGB")
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def _type(data: bytes) -> str:
    """By the first bytes, of images alone: whatever else it may be is bytes to a browser."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for mark, kind in TYPES.items() if data.startswith(mark)), "application/octet-stream")
