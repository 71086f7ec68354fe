"""Decode images that strangers made: allowed formats, stated limits, and a reason when it fails."""

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImagePalette, UnidentifiedImageError

from .errors import is_of_machine

T = TypeVar("T")

warnings.filterwarnings("ignore", module=r"PIL\.")  # of what strangers' files hold; a filter in threads is no filter

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoders that run no other program; EPS, for one, would start Ghostscript."""
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
"""How EPS files begin."""


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


MAX_SCANS = 100
"""Scans of a JPEG: each goes over the whole picture. cjpeg writes no more, and libtiff reads no more."""

MAX_PASSES = 8
"""How many times a TIFF's strips or tiles may cover its picture: once a band, and what the tiles at its edges add."""

MAX_EXIF = 100
"""Pieces of a JPEG's EXIF data, which has one: Pillow joins them in a time that grows with their number's square."""

EMBEDDED = ImageLimits(avif=True)
"""For a picture that was embedded, which its run's limits allowed."""


def probe(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int]:
    """(width, height) from the header alone. Raises DecodeError."""
    with judged(lambda: _opened(data, limits), limits) as image:
        return image.size


TRIES = 3  # of a decoder that asks for more memory than there is


def decode(data: bytes, limits: ImageLimits = ImageLimits()) -> Image.Image:
    """The first frame, loaded, in its own mode: no conversion and no turn by EXIF, as open_clip sees it.

    Raises DecodeError: not_an_image, format_not_allowed, too_many_pixels, truncated_image, corrupt_image. Raises
    MemoryError where the machine is short of memory. Decoders report a file's impossible sizes as a lack of memory
    too: that one is the file's which comes back each time while there is memory for any other picture.
    """
    return judged(lambda: _decode(data, limits), limits)


def judged(call: Callable[[], T], limits: ImageLimits) -> T:
    """`call()`. Raises MemoryError where the machine is short of memory, DecodeError where the picture is why."""
    for _ in range(TRIES):
        try:
            return call()
        except MemoryError as error:
            told = str(error)[:120] or "MemoryError"
        _check_memory(limits)
    raise DecodeError("corrupt_image", f"its decoder asks for more memory than such a picture takes ({told})")


def _check_memory(limits: ImageLimits) -> None:
    """Raise MemoryError where there is none for the largest image, or not for a decoder at a sound one."""
    bytearray(4 * min(limits.max_pixels, ImageLimits.max_pixels))
    with Image.open(io.BytesIO(_sound())) as image:
        image.load()


@functools.cache
def _sound() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 30)).save(stream, "JPEG")
    return stream.getvalue()


def _decode(data: bytes, limits: ImageLimits) -> Image.Image:
    with _opened(data, limits) as image:
        try:
            image.load()
            if image.mode in ("P", "PA") and image.palette is None:  # a PNG without PLTE: Pillow converts it by the
                # palette of its core, but fails on all that asks for one
                image.palette = ImagePalette.ImagePalette("RGB", image.im.getpalette("RGB", "RGB"))
        except Exception as error:  # Pillow's decoders raise whatever they please on hostile bytes
            _raise_of_machine(error)
            status = "truncated_image" if "truncated" in str(error) or "incomplete" in str(error) else "corrupt_image"
            raise DecodeError(
                status, f"{image.format} cannot be decoded ({str(error)[:120] or type(error).__name__})"
            ) from error
        return image


def _opened(data: bytes, limits: ImageLimits) -> Image.Image:
    if data[:2] == b"\xff\xd8" and data.count(b"Exif\0\0") > MAX_EXIF:
        raise DecodeError("corrupt_image", f"its EXIF data is in more than {MAX_EXIF} pieces")
    try:
        image = Image.open(io.BytesIO(data), formats=limits.formats)
    except Image.DecompressionBombError as error:
        raise DecodeError("too_many_pixels", f"the header states too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:
        _raise_of_machine(error)
        raise DecodeError(
            "corrupt_image", f"its header cannot be read ({str(error)[:120] or type(error).__name__})"
        ) from error
    width, height = image.size
    if width * height > limits.max_pixels:
        raise DecodeError("too_many_pixels", f"{width} x {height} pixels; the limit is {limits.max_pixels}")
    _check_work(image, data, limits)
    return image


def _check_work(image: Any, data: bytes, limits: ImageLimits) -> None:
    """Raise DecodeError where a small file of a picture of moderate size states work without measure."""
    if image.format != "TIFF":  # a count of the bytes is quick and never too low; only what exceeds it is walked
        if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MAX_SCANS and _scans(data) > MAX_SCANS:
            raise DecodeError("corrupt_image", f"a JPEG of {_scans(data):,} scans; the limit is {MAX_SCANS}")
        return
    width, height = image.size
    covered = sum((right - left) * (low - top) for left, top, right, low in (tile[1] for tile in image.tile))
    if covered > MAX_PASSES * width * height:
        raise DecodeError(
            "corrupt_image", f"its strips cover the picture more than {MAX_PASSES} times ({len(image.tile):,} strips)"
        )
    stated = [image.tag_v2.get(tag) for tag in (322, 323)]  # width and height of a tile
    across, down = (value if isinstance(value, int) and value > 0 else 1 for value in stated)
    if -(-width // across) * -(-height // down) * across * down > MAX_PASSES * limits.max_pixels:
        raise DecodeError("too_many_pixels", f"{width} x {height} pixels in tiles of {across} x {down}")


def _scans(data: bytes) -> int:
    """How many scans a decoder of this JPEG goes through: markers between its segments, to the end of the image."""
    at, scans = 2, 0
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xD9:
            break
        if marker == 0xFF:  # fill
            at += 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # a byte of the scan, a restart: no segment
            at += 2
        else:
            scans += marker == 0xDA
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return scans


def _raise_of_machine(error: Exception) -> None:
    """Raise what is no fault of the image: a lack of memory, whoever's words it is in, as a MemoryError."""
    if "out of memory" in str(error):
        raise MemoryError(str(error)) from error
    if is_of_machine(error):
        raise error


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


def displayed(image: Image.Image) -> Image.Image:
    """An image of any mode as a person is shown it: RGB, or RGBA where it has transparency. Raises DecodeError.

    Of 16 and 32 bit grey the upper one of two bytes is shown, of floating point the range from its least value to its
    greatest.
    """
    try:
        if image.mode == "F" or image.mode.startswith("I"):
            return grey(image).convert("RGB")
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    except Exception as error:
        _raise_of_machine(error)
        raise DecodeError(
            "not_encodable", f"{image.mode} cannot be shown ({str(error)[:120] or type(error).__name__})"
        ) from error


def grey(image: Image.Image) -> Image.Image:
    """An image of deep grey (modes I, F and I;16 in either byte order) with 8 bits a pixel."""
    values = np.nan_to_num(np.array(image, np.float32), posinf=0, neginf=0)
    low, high = (float(values.min()), float(values.max())) if image.mode == "F" else (0.0, 255 * 256.0)
    values *= 255 / (high - low) if high > low else 0
    values -= low * 255 / (high - low) if high > low else 0
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def to_png(data: bytes, limits: ImageLimits = ImageLimits()) -> bytes:
    """The first frame as a PNG, pixels as the models see them, without metadata. Raises DecodeError."""
    image = decode(data, limits)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    image.info = {k: v for k, v in image.info.items() if k == "transparency"}
    stream = io.BytesIO()
    try:
        image.save(stream, "PNG")
    except Exception as error:  # as of decoding
        _raise_of_machine(error)
        raise DecodeError(
            "not_encodable", f"cannot be written as a PNG ({str(error)[:120] or type(error).__name__})"
        ) from error
    return stream.getvalue()
