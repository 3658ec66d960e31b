"""Moving a cut-out person over a scene, with the alpha and the optical flow that follow from the motion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ptq4vm.data.augmentation.motion import Motion, frame_points, random_wobble
from ptq4vm.data.compositing import composite_uint8
from ptq4vm.data.demo.people import CutOut, Floats
from ptq4vm.ops.warp import in_frame, warp

_OVERHANG = 16  # the person reaches this many pixels beyond the frame, more than any motion below brings back


@dataclass(frozen=True)
class Placement:
    """Where a person stands in the frame, and how large.

    Attributes:
        height: Height of the person's whole picture in the frame, pixels.
        x: Centre of the picture, as a fraction of the frame's width.
        beyond: The picture goes on beyond the frame's right side, where ``x`` does not count (``mirror``: left side).
        mirror: Whether the picture is mirrored left to right.
    """

    height: int
    x: float = 0.5
    beyond: bool = False
    mirror: bool = False


class SceneLayers(NamedTuple):
    """What a clip is composited from: pictures with float32 colours in [0, 1], and how each moves."""

    person: CutOut
    scene: Floats
    person_motion: Motion
    scene_motion: Motion


class RenderedFrame(NamedTuple):
    """One frame, uint8, ``(C, H, W)``; flow ``(2, H, W)`` float32 and visible ``(1, H, W)`` bool to the frame before.

    ``frame`` is ``alpha foreground + (1 - alpha) background`` of the other three, rounded. The first frame of a clip
    has no flow.
    """

    frame: Tensor
    alpha: Tensor
    foreground: Tensor
    background: Tensor
    flow: Tensor | None
    visible: Tensor | None


def place(
    person: CutOut, scene: Floats, placement: Placement, size: tuple[int, int], generator: torch.Generator
) -> SceneLayers:
    """Scale the person to the frame and draw both motions.

    The person hangs over the bottom of the frame, so that it cuts the body as in a photograph.

    Args:
        person: Cut-out picture with alpha, of any size.
        scene: Background ``(H', W', 3)`` float32 in [0, 1], larger than the frame.
        placement: Where the person stands, and how large.
        size: ``(H, W)`` of the frame, pixels.
        generator: Source of randomness, which gives the phases of both motions.
    """
    height, width = size
    sized = _resize(person, placement.height / person.alpha.shape[0], placement.mirror)
    layer_height, layer_width = sized.alpha.shape
    x = placement.x * (width - 1)
    if placement.beyond:
        x = width - 1 + _OVERHANG - layer_width / 2
        x = width - 1 - x if placement.mirror else x
    phases = (2 * math.pi * torch.rand(4, generator=generator)).tolist()
    # Rotation around the bottom, where the body is cut, moves that cut least.
    person_motion = Motion(
        frame_anchor=(x, height - 1 + _OVERHANG),
        layer_anchor=(layer_width / 2, layer_height - 1),
        sway=(6.0 if placement.beyond else 16.0, 4.0),
        sway_phase=(phases[0], phases[1]),
        period=40.0,
        tilt=0.03,
        zoom=0.02,
        waves=random_wobble(generator, amplitude=1.8, wavelength=140),
    )
    spare_x, spare_y = scene.shape[1] - width, scene.shape[0] - height
    direction = 1 if phases[2] < math.pi else -1
    scene_motion = Motion(
        frame_anchor=((width - 1) / 2 - direction * 0.25 * spare_x, (height - 1) / 2),
        layer_anchor=((scene.shape[1] - 1) / 2, (scene.shape[0] - 1) / 2),
        velocity=(direction * min(1.2, 0.5 * spare_x / 24), 0.0),
        sway=(0.0, 0.15 * spare_y),
        sway_phase=(phases[2], phases[3]),
        period=60.0,
        zoom=0.02,
    )
    return SceneLayers(sized, scene, person_motion, scene_motion)


def render(layers: SceneLayers, count: int, size: tuple[int, int]) -> Iterator[RenderedFrame]:
    """Render ``count`` frames of ``size`` = ``(H, W)``."""
    person = np.dstack((layers.person.foreground, layers.person.alpha))
    before: Tensor | None = None
    for time in range(count):
        sampled = _sample(person, layers.person_motion, time, size)
        foreground, alpha = sampled[:3], sampled[3:]
        background = _sample(layers.scene, layers.scene_motion, time, size)
        flow, visible = (None, None) if before is None else _flow(layers, time, size, alpha, before)
        frame = composite_uint8(foreground, alpha, background)
        yield RenderedFrame(frame, alpha, foreground, background, flow, visible)
        before = alpha


def _flow(
    layers: SceneLayers, time: int, size: tuple[int, int], alpha: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Flow of the nearest layer at each pixel, and where that layer was seen in the frame before.

    Wherever alpha is above zero the person's motion counts. A pixel of the scene was seen if nothing of the person
    was there, not even a hair.
    """
    person_flow = layers.person_motion.backward_flow(time, size).float()[None]
    scene_flow = layers.scene_motion.backward_flow(time, size).float()[None]
    is_person = (alpha > 0)[None]
    covered = warp((before > 0).float()[None], scene_flow) > 0
    flow = torch.where(is_person, person_flow, scene_flow)
    visible = in_frame(flow) & (is_person | ~covered)
    return flow[0], visible[0]


def _sample(picture: Floats, motion: Motion, time: int, size: tuple[int, int]) -> Tensor:
    """The picture seen in frame ``time``, ``(C, H, W)`` uint8."""
    x, y = motion(time, frame_points(size)).float().numpy()
    seen = cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    pixels = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _resize(person: CutOut, scale: float, mirror: bool) -> CutOut:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    layers = [
        np.clip(cv2.resize(layer, None, fx=scale, fy=scale, interpolation=method), 0, 1).astype(np.float32)
        for layer in (person.foreground, person.alpha)
    ]
    foreground, alpha = (layer[:, ::-1].copy() if mirror else layer for layer in layers)
    return CutOut(foreground, alpha)
