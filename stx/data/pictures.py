"""One encoded image (JPEG, PNG, WebP) to uint8 (R, R, C): whatever its mode, the middle square at one resolution.

    crop          ADM's: halved with BOX while the shorter side is at least 2 R, then BICUBIC until it is R, then cut
    orientation   EXIF's is applied
    alpha         composited on white, before anything is resized; a palette's or colour key's transparency too
    16 bits       the high byte, gray as colour (scaled, not clipped)
    CMYK          converted without a profile; inverted only where an Adobe marker says so
    animations    the first frame
    huge          above LARGEST pixels a JPEG is decoded at 1/2, 1/4 or 1/8 of its size; anything else is refused

Colour profiles are ignored. An image that cannot be decoded whole is a BrokenImage that says why.
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

FORMATS = ("JPEG", "PNG", "WEBP")
LARGEST = 178_956_970  # pixels; half a GiB of RGB, and where Pillow gives up as well
Image.MAX_IMAGE_PIXELS = None  # ours is checked before a pixel is decoded, and draft mode gets its chance

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on bytes that are no whole image.
_UNDECODABLE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)


class BrokenImage(Exception):
    """These bytes are no whole image of a known format."""


def decode(data: bytes, *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """The image in `data` as (resolution, resolution, channels)."""
    if not data:
        raise BrokenImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _bound(image, resolution=resolution)
            image.load()
            plain = _upright(_plain(image), image.getexif().get(_ORIENTATION, 1))
    except _UNDECODABLE as error:
        raise BrokenImage(_reason(error)) from error
    square = center_crop(plain if channels == 3 else plain.convert("L"), resolution)
    array = np.asarray(square, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def center_crop(image: Image.Image, resolution: int) -> Image.Image:
    """The middle square as ADM (guided-diffusion) cuts it."""
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = resolution / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if max(size) > LARGEST // resolution:
        raise BrokenImage(f"{image.width} x {image.height} pixels: too long for a square of its middle")
    image = image.resize(size, resample=Image.Resampling.BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def _bound(image: Image.Image, *, resolution: int) -> None:
    """Refuse what would fill the memory; a JPEG can be decoded smaller, still at twice the resolution or more."""
    width, height = image.size
    if width * height > LARGEST and image.format == "JPEG":
        image.draft(None, (2 * resolution, 2 * resolution))
    if image.width * image.height > LARGEST:
        raise BrokenImage(f"{width} x {height} pixels: more than {LARGEST} are not decoded (make it smaller)")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _plain(image: Image.Image) -> Image.Image:
    """RGB or L, opaque."""
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every CMYK JPEG for an inverted one, as Adobe writes them
    if image.mode.startswith("I"):
        return _high_byte(image)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    gray = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return Image.fromarray(gray).convert("RGB")


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"no {', '.join(FORMATS)} image"
    return str(error) or type(error).__name__
