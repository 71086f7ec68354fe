"""Blur the faces of an image file, by boxes that came with the pool, and encode it again.

The method is that of Yang et al. 2022 (arXiv 2103.06191), which DataComp's resharder and img2dataset
follow: each box grown by a tenth of its longer side, a Gaussian of a tenth of the longest side of all
boxes, and a mask that is blurred alike, so that no edge shows. Ours: the Gaussian is not cut short at
one sigma, the last row and column are reached, the file's own format is kept where theirs becomes
WebP, metadata (which can hold a thumbnail with the faces in it) is dropped, and there is no chance in it.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from .images import DecodeError, ImageLimits, decode, grey

Boxes = tuple[tuple[float, float, float, float], ...]
"""(x0, y0, x1, y1) of each face, as shares of the image's width and height."""

GROW = SIGMA = 0.1  # of a box's longer side
FAR = 1.0  # how far outside the image a box may reach, in widths and heights: past it these are not shares
QUALITY = 95  # of JPEG and WebP
FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WEBP"}  # anything else becomes a PNG
ORIENTATION = 0x0112


def face_boxes(meta: Mapping[str, Any]) -> Boxes:
    """The json's `face_bboxes`. Raises DecodeError: face_bboxes_missing, face_bboxes_malformed."""
    given = meta.get("face_bboxes")
    if given is None:
        raise DecodeError(
            "face_bboxes_missing", "its json has no face_bboxes, so nothing tells whether faces are there"
        )
    if not isinstance(given, list) or not all(_is_box(box) for box in given):
        raise DecodeError(
            "face_bboxes_malformed", f"not a list of [x0, y0, x1, y1] in shares of the sides: {str(given)[:80]}"
        )
    return tuple((float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in given)


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) for v in box):
        return False
    return all(-FAR <= v <= 1 + FAR for v in box) and box[0] <= box[2] and box[1] <= box[3]  # False for NaN


def blur_faces(data: bytes, boxes: Boxes, limits: ImageLimits = ImageLimits()) -> bytes:
    """The image file with its faces blurred; of an animated one the first frame. The same bytes each time.

    Raises DecodeError: what `images.decode` raises, and not_encodable.
    """
    image = decode(data, limits)
    form = FORMATS.get(image.format or "", "PNG")
    try:
        kept = _kept(image)
        return _encode(blur(_plain(image), boxes), form, kept)
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError("not_encodable", f"{image.format} cannot be written again ({str(error)[:120]})") from error


def blur(image: Image.Image, boxes: Boxes) -> Image.Image:
    """`image` (L, LA, RGB, RGBA or CMYK) with the boxes blurred."""
    mask = Image.new("L", image.size)
    draw, longest = ImageDraw.Draw(mask), 0.0
    for x0, y0, x1, y1 in boxes:
        left, top, right, bottom = x0 * image.width, y0 * image.height, x1 * image.width, y1 * image.height
        side = max(right - left, bottom - top, 1.0)
        longest = max(longest, side)
        by = GROW * side
        corner = (math.ceil(right + by) - 1, math.ceil(bottom + by) - 1)  # the rectangle holds both its corners
        draw.rectangle((math.floor(left - by), math.floor(top - by), *corner), fill=255)
    gaussian = ImageFilter.GaussianBlur(SIGMA * longest)
    return Image.composite(image.filter(gaussian), image, mask.filter(gaussian))


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that can be blurred: palettes and odd depths become 8 bits a channel."""
    if image.mode.startswith("I"):
        return grey(image)
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") and "transparency" not in image.info:
        return image
    return image.convert("L" if image.mode in ("1", "F") else "RGBA" if image.has_transparency_data else "RGB")


def _kept(image: Image.Image) -> dict[str, Any]:
    """What of the metadata changes how the pixels look: the colour profile and the turn."""
    kept = {"icc_profile": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
    turn = image.getexif().get(ORIENTATION)
    if turn in range(2, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        kept["exif"] = exif.tobytes()
    return kept


def _encode(image: Image.Image, form: str, kept: dict[str, Any]) -> bytes:
    image.info = {}  # Pillow would write a comment or a text found there
    stream = io.BytesIO()
    image.save(stream, form, **kept, **({} if form == "PNG" else {"quality": QUALITY}))
    return stream.getvalue()
