"""Small trees in the layout of every data set, with names that are not easy: spaces, accents, links."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
from PIL import Image

from commands import FRAMES, SIZE, draw_clip

LAYOUTS = ("folder", "videomatte", "videomatte240k", "d646", "aim", "footage")
SHORT = {"videomatte": ("data.pairs_per_clip=1",), "d646": ("data.frames=6", "data.size=[64,96]")}
SHORT["aim"] = SHORT["d646"]
"""Overrides that go with a tree."""


def write_video(path: Path, seed: int = 0, frames: int = FRAMES, size: tuple[int, int] = SIZE, ahead: int = 0) -> Path:
    """Noise that drifts, as a video file; ``ahead``: frames in a row that look ahead (B frames)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 12, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((size[1] * 2, size[0]), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = size[1], size[0], "yuv420p", 4
        stream.bit_rate = 2_000_000
        stream.codec_context.max_b_frames = ahead
        for index in range(frames):
            picture = np.ascontiguousarray(wide[:, 3 * index : 3 * index + size[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def draw_backgrounds(root: Path) -> Path:
    """A clip and a video in ``root/video``, two images in ``root/image``."""
    for split in ("train", "test"):
        draw_clip({"background": root / "video" / split / "a street"}, 20)
        write_video(root / "video" / split / "café.mp4", seed=21)
    for index in range(2):
        draw_clip({"background": root / "still"}, 22 + index, frames=1)
        (root / "image").mkdir(exist_ok=True)
        shutil.move(root / "still" / "0000.png", root / "image" / f"bild {index}.png")
    return root


def draw_layout(name: str, root: Path) -> Path:
    """A tree that ``data=NAME data.root=ROOT`` calibrates and evaluates on without another value."""
    if name == "folder":
        for seed, clip in enumerate(("set é/clip 1", "set é/clip 2")):
            draw_clip({kind: root / clip / kind for kind in ("com", "pha", "fgr")}, seed)
        return root
    if name == "footage":
        write_video(root / "büro 1.mp4", seed=1)
        draw_clip({"com": root / "my clip"}, 2)
        return root
    draw_clip({"background": root / "backgrounds" / "ein weg"}, 8)
    write_video(root / "backgrounds" / "film.mp4", seed=9, frames=4)
    if name in ("d646", "aim"):
        for split, seed in (("train", 0), ("test", 4)):
            for still in range(2):
                parts = {kind: root / split / f"{kind}-parts" for kind in ("fgr", "pha")}
                draw_clip(parts, seed + still, frames=1)
                for kind, folder in parts.items():
                    (root / split / kind).mkdir(exist_ok=True)
                    shutil.move(folder / "0000.png", root / split / kind / f"frau {still}.png")
                    folder.rmdir()
        return root
    for seed, clip in enumerate(("0000", "0001", "ein clip")):
        draw_clip({kind: root / "train" / kind / clip for kind in ("fgr", "pha")}, seed)
    real = root / "elsewhere"
    real.mkdir()
    for kind in ("fgr", "pha"):  # a clip that is linked rather than copied
        (root / "train" / kind / "ein clip").rename(real / kind)
        (root / "train" / kind / "ein clip").symlink_to(real / kind)
    draw_clip({kind: root / "test" / kind / "0000" for kind in ("fgr", "pha")}, 5)
    if name == "videomatte":
        draw_clip({kind: root / "eval" / "set" / "0000" / kind for kind in ("com", "pha", "fgr")}, 6)
    return root
