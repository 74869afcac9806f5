"""Small real images in the three forms of a source."""

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def encoded(number: int, *, form: str = "png", size: tuple[int, int] = (20, 16)) -> bytes:
    """A picture that differs from every other one."""
    pixels = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=form)
    return stream.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """The encoded picture of a number."""
    return encoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of four images: PNG, JPEG and WebP."""
    root = tmp_path / "pets"
    forms = ("png", "jpeg", "webp", "png")
    for label, name in enumerate(("dog", "cat", "Ant")):
        (root / name).mkdir(parents=True)
        for number, form in enumerate(forms):
            extension = "jpg" if form == "jpeg" else form.upper() if number == 3 else form
            (root / name / f"{number}.{extension}").write_bytes(encoded(10 * label + number, form=form))
    return root


@pytest.fixture
def write_tar() -> Callable[..., None]:
    """Write a tar of (name, content) members."""

    def write_tar(path: Path, members: Sequence[tuple[str, bytes]], *, mode: str = "w") -> None:
        with tarfile.open(path, mode) as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return write_tar
