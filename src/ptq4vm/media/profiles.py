"""Colour profiles of pictures: what they call red is brought to what sRGB calls so."""

from __future__ import annotations

import io
import logging
from functools import lru_cache

from PIL import Image, ImageCms

log = logging.getLogger(__name__)

_PLAIN = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB", "CMYK": "CMYK"}
"""Mode that a picture's profile speaks of, by the picture's own mode."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert a picture to sRGB, mode ``RGB``; as it is where the profile is sRGB already, or cannot be understood.

    Args:
        image: A picture of 8 bits a channel.
        profile: The ICC profile that its file brings.
    """
    mode = _PLAIN.get(image.mode)
    transform = _transform(profile, mode) if mode is not None else None
    if transform is None or mode is None:
        return image
    plain = image if image.mode == mode else image.convert(mode)
    return ImageCms.applyTransform(plain, transform)  # type: ignore[return-value]  # a new picture is given


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What converts from a profile; ``None`` where there is nothing to be done. A clip has one for all its frames."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        log.warning("a colour profile cannot be used (%s): colours are taken as they are", " ".join(str(error).split()))
        return None
