"""Sheets of thumbnails: which samples to show, and their images read straight from the tars."""

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from .. import storage
from ..images import EMBEDDED, decode, displayed
from ..records import failure_of
from ..run_pool import listed
from .pool import Pool
from .scores import Cut

SIDE = 128  # pixels of a thumbnail's longer side
MAX_BYTES = 32 << 20  # of an image file that is worth a thumbnail
BUDGET = 3_500_000  # characters of images in one report; beyond it only captions are shown
ABSENT = "its tar is not at hand"
CAPTION = 280  # characters of a caption that are shown


@dataclass(frozen=True)
class Sheet:
    """Positions (k,) in the pool, in the order they are shown, and the value beside each (or none)."""

    title: str
    kept: bool
    positions: np.ndarray
    values: np.ndarray | None = None


@dataclass(frozen=True)
class Thumb:
    """What is shown of a sample: `image` is a data URI, or empty with `why` in its place."""

    uid: str
    caption: str
    image: str
    why: str
    size: str
    place: str


def beside(pool: Pool, values: np.ndarray, cut: Cut, n: int, seed: int) -> tuple[Sheet, Sheet]:
    """The n samples this threshold was first to drop that lie nearest to it, and the n nearest kept.

    values (samples,) float. Ties (a column of whole numbers) are drawn at random by `seed`.
    """
    right_side = cut.good(values)
    dropped = np.flatnonzero((pool.blame == cut.step) & (~right_side | (values == cut.value)) & np.isfinite(values))
    kept = np.flatnonzero(pool.keep & right_side & np.isfinite(values))
    just = [_nearest(where, values, cut.value, n, seed) for where in (dropped, kept)]
    return (
        Sheet("Just dropped", False, just[0], values[just[0]]),
        Sheet("Just kept", True, just[1], values[just[1]]),
    )


def _nearest(where: np.ndarray, values: np.ndarray, value: float, n: int, seed: int) -> np.ndarray:
    gaps = np.abs(values[where] - value)
    if len(where) > n:  # only what is within the n-th gap needs sorting
        close = gaps <= np.partition(gaps, n - 1)[n - 1]
        where, gaps = where[close], gaps[close]
    ties = np.random.default_rng(seed).permutation(len(where))
    return where[np.lexsort((ties, gaps))[:n]]


def at_random(where: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n of the positions `where` (k,), drawn by `seed`, in the pool's order."""
    return np.sort(np.random.default_rng(seed).choice(where, min(n, len(where)), replace=False))


def load_thumbs(pool: Pool, sheets: list[Sheet]) -> dict[int, Thumb]:
    """The samples of all sheets by position. What cannot be shown says why; nothing here raises on data."""
    order = [int(p) for sheet in sheets for p in sheet.positions]
    rows = pool.rows(order)
    images = dict(_images({p: rows[p] for p in dict.fromkeys(order)}))
    return {p: _thumb(rows[p], *images[p]) for p in rows}


def absent_tars(thumbs: dict[int, Thumb]) -> str:
    """The shards whose tars could not be opened for a picture, in words; "" for none."""
    stems = {thumb.place.split("/")[0] for thumb in thumbs.values() if thumb.why == ABSENT}
    return listed(stems) if stems else ""


def _thumb(row: dict[str, Any], image: str, why: str) -> Thumb:
    text = str(row.get("text") or "")
    size = f"{row.get('original_width')} × {row.get('original_height')}"
    place = f"{row['shard']}/{row.get('key') or ''}".rstrip("/")
    return Thumb(str(row["uid"]), shorten(text), image, why, size, shorten(place))


def shorten(text: str) -> str:
    """The first CAPTION characters, `visible`."""
    return visible(text if len(text) <= CAPTION else text[:CAPTION] + "…")


def visible(text: str) -> str:
    """Control characters as their pictures (NUL becomes U+2400) or escapes, so that nothing is hidden or lost."""
    return "".join(map(_visible, text))


def _visible(c: str) -> str:
    if ord(c) < 32:
        return chr(0x2400 + ord(c))
    return "\u2421" if ord(c) == 127 else f"\\u{ord(c):04x}" if 128 <= ord(c) < 160 else c


def _images(rows: dict[int, dict[str, Any]]) -> Iterator[tuple[int, tuple[str, str]]]:
    """(position, (data URI, why not)); each tar is opened once."""
    by_tar: dict[str, list[int]] = {}
    for position, row in rows.items():
        by_tar.setdefault(row["path"], []).append(position)
    used = 0
    for path, positions in sorted(by_tar.items()):
        stream = _open(path)
        for position in sorted(positions, key=lambda p: rows[p].get("offset") or 0):
            image, why = ("", "left out to keep the report small") if used > BUDGET else _image(stream, rows[position])
            used += len(image)
            yield position, (image, why)
        if stream is not None:
            stream.close()


def _open(path: str) -> BinaryIO | None:
    try:
        return storage.open_read(path) if path else None
    except Exception:  # a store can fail in its own ways; a report without pictures is still a report
        return None


def _image(stream: BinaryIO | None, row: dict[str, Any]) -> tuple[str, str]:
    if stream is None:
        return "", ABSENT if row["path"] else "this pool came without images"
    if row.get("offset") is None or not 0 < (row.get("size") or 0) <= MAX_BYTES:
        return "", "its place in the tar is not known"
    try:
        stream.seek(row["offset"])
        data = stream.read(row["size"])
    except Exception:
        return "", "its tar cannot be read"
    if row.get("sha256") and hashlib.sha256(data).hexdigest() != row["sha256"]:
        return "", "its tar has changed since"
    try:
        return small(data), ""
    except Exception as error:  # Pillow raises whatever it pleases: no picture ends a report
        return "", f"cannot be shown: {failure_of('', '', error).error}"


def small(data: bytes) -> str:
    """A WebP data URI of the image, at most SIDE pixels on its longer side. Raises DecodeError."""
    image = displayed(decode(data, EMBEDDED))
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=62, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
