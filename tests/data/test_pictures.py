"""Real files made by Pillow, decoded; what cannot be decoded is named."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stx.data import pictures
from stx.data.pictures import BrokenImage, center_crop, decode


def noise(width, height, channels=3, seed=0, high=256):
    return np.random.Generator(np.random.PCG64(seed)).integers(0, high, (height, width, channels), dtype=np.uint8)


def encoded(image, form="png", **options):
    stream = io.BytesIO()
    image.save(stream, format=form, **options)
    return stream.getvalue()


def exact(data, resolution=16, channels=3):
    return decode(data, resolution=resolution, channels=channels)


def reason(data, resolution=16):
    with pytest.raises(BrokenImage) as caught:
        decode(data, resolution=resolution, channels=3)
    return str(caught.value)


def adm(image, size):
    """guided-diffusion's center_crop_arr, restated."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    array = np.array(image)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


@pytest.mark.parametrize(
    "size", [(16, 16), (17, 33), (40, 31), (64, 50), (31, 200), (9, 12), (500, 375), (1, 1), (35, 34)]
)
def test_the_crop_is_adms_bit_for_bit(size):
    image = Image.fromarray(noise(*size))
    assert np.array_equal(exact(encoded(image)), adm(image, 16))
    assert np.array_equal(np.asarray(center_crop(image, 16)), adm(image, 16))


@pytest.mark.parametrize(("form", "options"), [("png", {}), ("jpeg", {"quality": 95}), ("webp", {"lossless": True})])
def test_png_jpeg_and_webp_are_told_by_their_content(form, options):
    data = encoded(Image.fromarray(noise(16, 16)), form, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(exact(data), np.asarray(image.convert("RGB")))


def test_other_formats_text_and_nothing_are_named():
    image = Image.fromarray(noise(16, 16))
    assert reason(encoded(image, "bmp")) == reason(b"hello") == "no JPEG, PNG, WEBP image"
    assert reason(encoded(image, "gif")) == "no JPEG, PNG, WEBP image"
    assert reason(b"") == "the file is empty"


def test_gray_becomes_three_equal_channels_and_colour_can_become_gray():
    gray = noise(16, 16, 1)[:, :, 0]
    found = exact(encoded(Image.fromarray(gray)))
    assert np.array_equal(found, np.repeat(gray[:, :, None], 3, axis=2))
    assert np.array_equal(exact(encoded(Image.fromarray(gray)), channels=1), gray[:, :, None])
    colour = Image.fromarray(noise(16, 16))
    assert np.array_equal(exact(encoded(colour), channels=1)[:, :, 0], np.asarray(colour.convert("L")))


def test_one_bit_is_black_and_white():
    bits = noise(16, 16, 1, high=2)[:, :, 0]
    found = exact(encoded(Image.fromarray(bits * 255).convert("1")))
    assert np.array_equal(found[:, :, 0], bits * 255)


def cmyk(colour):
    return Image.new("CMYK", (16, 16), colour)


def test_cmyk_is_converted_whether_adobe_inverted_it_or_not():
    colour = (200, 30, 60, 10)
    adobe = encoded(cmyk(colour), "jpeg", quality=100)
    assert b"Adobe" in adobe
    start = adobe.index(b"\xff\xee")
    (length,) = struct.unpack(">H", adobe[start + 2 : start + 4])
    inverted = encoded(cmyk(tuple(255 - value for value in colour)), "jpeg", quality=100)
    plain = inverted[:start] + inverted[start + 2 + length :]
    assert b"Adobe" not in plain
    expected = np.asarray(cmyk(colour).convert("RGB")).astype(int)
    for data in (adobe, plain):
        assert np.abs(exact(data).astype(int) - expected).max() <= 3


def test_a_palette_is_looked_up_and_its_transparency_is_white():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.paste(1, (8, 0, 16, 16))
    found = exact(encoded(image))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[0, 15].tolist() == [200, 100, 50]
    found = exact(encoded(image, transparency=1))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[0, 15].tolist() == [255, 255, 255]


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    found = exact(encoded(Image.fromarray(values)))
    assert np.array_equal(found[:, :, 0], (values >> 8).astype(np.uint8))


def png(width, height, depth, colour, rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_read_as_sixteen_bit_gray_is():
    values = np.linspace(0, 65535, 16 * 16 * 3, dtype=">u2").reshape(16, 48)
    data = png(16, 16, 16, 2, b"".join(b"\0" + row.tobytes() for row in values))
    assert np.array_equal(exact(data).reshape(16, 48), (values >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("form", ["png", "webp"])
def test_alpha_is_composited_on_white_before_anything_is_resized(mode, form):
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0)).convert(mode)
    image.paste((40, 40, 40, 255) if mode == "RGBA" else (40, 255), (0, 0, 16, 32))
    found = exact(encoded(image, form, **({"lossless": True} if form == "webp" else {})))
    assert found[0, 0].tolist() == [40, 40, 40]
    assert found[0, 15].tolist() == [255, 255, 255]
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert exact(encoded(half))[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_exif_turns_a_picture_upright(orientation, form):
    corners = np.zeros((16, 16, 3), dtype=np.uint8)
    corners[:8, :8], corners[:8, 8:], corners[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    upright = Image.fromarray(corners)
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90),  # its right side is up: stored turned to the left
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = exact(encoded(stored, form, exif=exif)).astype(int)
    assert np.abs(found[4::8, 4::8] - corners[4::8, 4::8].astype(int)).max() < 20


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    for form in ("webp", "png"):
        options = {"lossless": True} if form == "webp" else {}
        found = exact(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options))
        assert found[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_image_is_broken_not_half_gray(form, kept):
    data = encoded(Image.fromarray(noise(64, 64)), form)
    assert reason(data[: int(len(data) * kept)])


def test_flipped_bytes_are_broken_or_decoded_never_a_crash():
    data = encoded(Image.fromarray(noise(24, 24)), "png")
    jpeg = encoded(Image.fromarray(noise(24, 24)), "jpeg")
    draw = np.random.Generator(np.random.PCG64(0))
    for start in (data, jpeg):
        for _ in range(100):
            bad = bytearray(start)
            for place in draw.integers(0, len(bad), 3):
                bad[place] ^= int(draw.integers(1, 256))
            try:
                assert exact(bytes(bad)).shape == (16, 16, 3)
            except BrokenImage as error:
                assert str(error)


def test_a_huge_jpeg_is_decoded_smaller_and_anything_else_huge_is_refused(monkeypatch):
    image = Image.fromarray(np.asarray(Image.fromarray(noise(8, 8)).resize((256, 256), Image.Resampling.BICUBIC)))
    usual = exact(encoded(image, "jpeg", quality=95)).astype(int)
    monkeypatch.setattr(pictures, "LARGEST", 40_000)
    smaller = exact(encoded(image, "jpeg", quality=95)).astype(int)
    assert 0 < np.abs(smaller - usual).max() < 12
    assert reason(encoded(image)) == "256 x 256 pixels: more than 40000 are not decoded (make it smaller)"
    monkeypatch.setattr(pictures, "LARGEST", 900)
    assert "256 x 256 pixels" in reason(encoded(image, "jpeg"))


def test_a_bomb_is_refused_before_it_is_decoded():
    bomb = png(60_000, 60_000, 8, 2, b"")
    assert reason(bomb) == "60000 x 60000 pixels: more than 178956970 are not decoded (make it smaller)"


def test_a_thread_of_pixels_is_refused():
    assert "too long" in reason(encoded(Image.new("L", (60_000, 1))), resolution=256)
