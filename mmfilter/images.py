"""Decode images that strangers made: allowed formats, stated limits, and a reason when it fails."""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoders that run no other program; EPS, for one, would start Ghostscript."""


class DecodeError(Exception):
    """`status` is the reason in a word, `error` in a sentence."""

    def __init__(self, status: str, error: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded, in pixels: 2**26, a square of 8192, 200 MB as RGB.

    Pillow's own limit (89 million) only warns until twice that.
    """

    max_pixels: int = 1 << 26


def probe(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """(width, height) from the header alone. Raises DecodeError."""
    with _opened(data, limits) as image:
        return image.size


def decode(data: bytes, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """The first frame, loaded, in its own mode: no conversion and no turn by EXIF, as open_clip sees it.

    Raises DecodeError: not_an_image, format_not_allowed, too_many_pixels, truncated_image, corrupt_image.
    """
    with _opened(data, limits) as image:
        try:
            image.load()
        except Exception as error:  # Pillow's decoders raise whatever they please on hostile bytes
            status = "truncated_image" if "truncated" in str(error) or "incomplete" in str(error) else "corrupt_image"
            raise DecodeError(
                status, f"{image.format} cannot be decoded ({str(error)[:120] or type(error).__name__})"
            ) from error
        return image


def _opened(data: bytes, limits: ImageLimits) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DecodeError("too_many_pixels", f"the header states too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:
        raise DecodeError(
            "corrupt_image", f"its header cannot be read ({str(error)[:120] or type(error).__name__})"
        ) from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise DecodeError("too_many_pixels", f"{width} x {height} pixels; the limit is {limits.max_pixels}")
    return image


def _unidentified(data: bytes) -> DecodeError:
    """Say what it is where the first bytes tell."""
    start = data[:256].lstrip()
    for mark, name in (
        (b"%!PS", "EPS"),
        (b"%PDF", "PDF"),
        (b"<svg", "SVG"),
        (b"<?xml", "XML or SVG"),
        (b"8BPS", "PSD"),
    ):
        if start.startswith(mark):
            return DecodeError("format_not_allowed", f"{name}, not an image of {', '.join(FORMATS)}")
    for mark, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"RIFF", "WEBP"), (b"GIF8", "GIF")):
        if data.startswith(mark):
            return DecodeError("truncated_image", f"its {name} header is cut short or damaged ({len(data)} bytes)")
    if start[:1] == b"<":
        return DecodeError("not_an_image", "HTML, not an image")
    return DecodeError("not_an_image", f"no image of {', '.join(FORMATS)}; it starts with {start[:12]!r}")
