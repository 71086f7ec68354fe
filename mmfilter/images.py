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

    Pillow's own limit (89 million) only warns until twice that. `avif` also allows AVIF, where Pillow has a decoder.
    """

    max_pixels: int = 1 << 26
    avif: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """The decoders that may run, by Pillow's names."""
        return (*FORMATS, "AVIF") if self.avif else FORMATS


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
            image = Image.open(io.BytesIO(data), formats=limits.formats)
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
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return DecodeError("format_not_allowed", "AVIF; `read: {avif: true}` in the recipe allows it")
    for mark, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG", "PNG"), (b"RIFF", "WEBP"), (b"GIF8", "GIF")):
        if data.startswith(mark):
            return DecodeError("truncated_image", f"its {name} header is cut short or damaged ({len(data)} bytes)")
    if start[:1] == b"<":
        return DecodeError("not_an_image", "HTML, not an image")
    return DecodeError("not_an_image", f"no image of {', '.join(FORMATS)}; it starts with {start[:12]!r}")


KINDS = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
)


def image_ending(head: bytes) -> str:
    """The ending that an image's first bytes call for: jpg, png, webp, gif, bmp, tif or avif; "" for none of these."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "avif"
    return next((ending for mark, ending in KINDS if head.startswith(mark)), "")


def to_png(data: bytes, limits: ImageLimits = ImageLimits()) -> bytes:
    """The first frame as a PNG, pixels as the models see them, without metadata. Raises DecodeError."""
    image = decode(data, limits)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    image.info = {k: v for k, v in image.info.items() if k == "transparency"}
    stream = io.BytesIO()
    try:
        image.save(stream, "PNG")
    except (OSError, ValueError, SyntaxError) as error:
        raise DecodeError("not_encodable", f"cannot be written as a PNG ({str(error)[:120]})") from error
    return stream.getvalue()
