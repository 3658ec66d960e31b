"""Pictures that people bring: colour profiles, floats, mattes in the alpha channel, animations, and what is none."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ptq4vm.errors import DataError
from ptq4vm.media.images import FORMATS, image_size, list_folders, open_alpha, open_rgb

SOURCE = Path(__file__).parents[2] / "src" / "ptq4vm"
RAMP = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def _profile(name: str) -> bytes:
    """A profile that Pillow makes itself: sRGB, or LAB's, which no RGB picture can have."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def _swapped() -> bytes:
    """sRGB with the tags of red and blue exchanged: what its pictures call red is blue."""
    profile = bytearray(_profile("sRGB"))
    names = {profile[at : at + 4].decode(): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, blue = names["rXYZ"], names["bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        profile[blue + 4 : blue + 12],
        profile[red + 4 : red + 12],
    )
    text = bytes(profile).replace("sRGB".encode("utf-16-be"), "none".encode("utf-16-be")).replace(b"sRGB", b"none")
    return text


@pytest.mark.parametrize(
    ("profile", "seen"),
    [(_swapped, (30, 30, 200)), (lambda: _profile("sRGB"), (200, 30, 30)), (lambda: b"no profile", (200, 30, 30))],
    ids=("another", "sRGB", "damaged"),
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_brought_to_srgb(
    tmp_path: Path, mode: str, profile: Callable[[], bytes], seen: tuple[int, int, int]
) -> None:
    picture = Image.new("RGB", (6, 4), (200, 30, 30))
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=profile())
    found = np.asarray(open_rgb(tmp_path / "a.png"), int)[2, 3]
    assert np.abs(found - seen).max() <= 2


def test_a_matte_is_no_colour(tmp_path: Path) -> None:
    Image.fromarray(RAMP).convert("RGB").save(tmp_path / "a.png", icc_profile=_swapped())
    assert np.array_equal(open_alpha(tmp_path / "a.png"), RAMP)


@pytest.mark.parametrize("read", [open_alpha, open_rgb])
def test_floats_are_scaled_from_one(tmp_path: Path, read: Callable[[Path], Image.Image]) -> None:
    values = np.linspace(-0.1, 1.1, 24, dtype=np.float32).reshape(4, 6)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = np.asarray(read(tmp_path / "a.tif"))
    assert np.array_equal(found if found.ndim == 2 else found[..., 1], np.rint(np.clip(values, 0, 1) * 255))
    values[1, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has values that are not finite"):
        read(tmp_path / "a.tif")


def _rgba(colours: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha]))


OPAQUE = np.full_like(RAMP, 255)
COLOURED = np.dstack([RAMP, RAMP // 2, RAMP // 3])
GREY = np.dstack([RAMP] * 3)
MATTES = {
    "grey": (Image.fromarray(RAMP), RAMP),
    "alpha over a colour": (_rgba(np.full((4, 6, 3), 120, np.uint8), RAMP), RAMP),
    "alpha over a picture": (_rgba(COLOURED, RAMP), RAMP),
    "all of a picture": (_rgba(COLOURED, OPAQUE), OPAQUE),
    "grey saved with opaque alpha": (_rgba(GREY, OPAQUE), RAMP),
    "grey with alpha": (Image.merge("LA", [Image.new("L", (6, 4), 200), Image.fromarray(RAMP)]), RAMP),
    "grey with opaque alpha": (Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (6, 4), 255)]), RAMP),
    "in colour": (Image.fromarray(GREY), RAMP),
}


@pytest.mark.parametrize("name", MATTES)
def test_where_a_file_holds_its_matte(tmp_path: Path, name: str) -> None:
    picture, matte = MATTES[name]
    picture.save(tmp_path / "a.png")
    assert np.array_equal(open_alpha(tmp_path / "a.png"), matte)


@pytest.mark.parametrize("kind", ["webp", "png", "tif"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, kind: str) -> None:
    first, second = (Image.new("RGB", (6, 4), (value, 0, 0)) for value in (0, 200))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"a\.{kind} holds 2 pictures"):
        open_rgb(tmp_path / f"a.{kind}")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n"


@pytest.mark.parametrize("content", [POSTSCRIPT, b"GIF89a"], ids=("eps", "gif"))
def test_no_other_format_is_parsed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0003.png").write_bytes(content.ljust(2000, b"\n"))
    for read in (open_rgb, open_alpha, image_size):
        with pytest.raises(DataError, match=r"0003\.png cannot be read"):
            read(tmp_path / "0003.png")


def test_pictures_are_opened_in_one_place() -> None:
    """``Image.open`` guesses the format from the content, and knows some that other programs are run for."""
    assert not set(FORMATS) & {"EPS", "PSD", "WMF", "GIF", "FPX", "IM"}
    names = ("Image.open", "PIL.Image.open", "imread", "cv2.imread")
    calls = [
        path.relative_to(SOURCE).as_posix()
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]
    assert calls == ["media/images.py"]


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", "a\u2028b".encode()], ids=("break", "bytes", "separator"))
def test_clips_whose_names_cannot_be_written_down(tmp_path: Path, name: bytes) -> None:
    for plain in ("a\u00a0b", "日本", "Ünï"):
        (tmp_path / plain).mkdir()
    assert len(list_folders(tmp_path)) == 3
    try:
        (tmp_path / os.fsdecode(name)).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DataError, match="has a name with line breaks or not in UTF-8: rename it") as caught:
        list_folders(tmp_path)
    assert str(caught.value).isprintable()
