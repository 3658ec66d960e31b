"""Smooth motion that is known exactly: an affine drift and a gentle low-frequency wobble, as hair and cloth move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ptq4vm.data.augmentation.easing import ease
from ptq4vm.ops.warp import pixel_grid

_STEEPEST = 0.5  # bound on the wobble's slope; the fixed point converges by at least this factor a step
_STEPS = 40


@dataclass(frozen=True)
class Wave:
    """One sine of the wobble, ``amplitude sin(2 pi frequency . p + phase + speed t)``: a displacement of pixel p.

    Attributes:
        amplitude: Largest displacement ``(x, y)``, pixels.
        frequency: Cycles a pixel along ``(x, y)``.
        phase: Phase at time 0 in the frame's corner, radians.
        speed: How far the phase moves on, radians a frame.
    """

    amplitude: tuple[float, float]
    frequency: tuple[float, float]
    phase: float
    speed: float


@dataclass(frozen=True)
class Pose:
    """How a picture lies in the frame at one moment.

    The picture's point that frame pixel p shows is ``layer_anchor + L (p - centre)`` with ::

        L = S^-1 R(angle) / scale,   S = [[r, r tan shear_x], [tan shear_y / r, 1 / r]],   r = sqrt(stretch)

    Attributes:
        centre: Where the picture's anchor is shown, ``(x, y)`` frame pixels.
        angle: Rotation of the picture, radians.
        scale: Size of the picture, relative to its own.
        shear: Angles of the shear along ``(x, y)``, radians.
        stretch: Width over height of a square of the picture, as shown.
    """

    centre: tuple[float, float]
    angle: float = 0.0
    scale: float = 1.0
    shear: tuple[float, float] = (0.0, 0.0)
    stretch: float = 1.0

    def linear(self, like: Tensor) -> Tensor:
        """The matrix L, ``(2, 2)``, in the dtype and on the device of ``like``."""
        scale = 1 / self.scale
        cosine, sine = scale * math.cos(self.angle), scale * math.sin(self.angle)
        turn = like.new_tensor([[cosine, -sine], [sine, cosine]])
        if self.shear == (0.0, 0.0) and self.stretch == 1:
            return turn
        x, y = (math.tan(angle) for angle in self.shear)
        root = math.sqrt(self.stretch)
        skew = like.new_tensor([[root, x * root], [y / root, 1 / root]])
        return torch.linalg.solve(skew, turn)

    def matrix(self, layer_anchor: tuple[float, float]) -> Tensor:
        """The map from frame pixels to the picture's pixels as a homogeneous matrix, ``(3, 3)`` float64."""
        whole = torch.eye(3, dtype=torch.float64)
        whole[:2, :2] = self.linear(whole)
        whole[:2, 2] = whole.new_tensor(layer_anchor) - whole[:2, :2] @ whole.new_tensor(self.centre)
        return whole

    def towards(self, other: Pose, part: float) -> Pose:
        """The pose after ``part`` of the way to ``other``, each number by itself; below 0 and above 1 it goes on."""

        def mix(first: float, last: float) -> float:
            return first + (last - first) * part

        centre, shear = (
            (mix(a[0], b[0]), mix(a[1], b[1])) for a, b in ((self.centre, other.centre), (self.shear, other.shear))
        )
        scale, stretch = mix(self.scale, other.scale), mix(self.stretch, other.stretch)
        return Pose(centre, mix(self.angle, other.angle), scale, shear, stretch)


@dataclass(frozen=True)
class EasedMotion:
    """A picture that goes from one pose to another.

    Attributes:
        first: Pose in the first frame.
        last: Pose in the last frame.
        easing: Course of the motion in time, one of :data:`ptq4vm.data.augmentation.easing.EASINGS`.
    """

    first: Pose
    last: Pose
    easing: str = "linear"

    def pose(self, time: float) -> Pose:
        """The pose at ``time``, which goes from 0 to 1."""
        return self.first.towards(self.last, ease(self.easing, time))


@dataclass(frozen=True)
class Motion:
    """A smooth map M_t from pixels of frame t to pixels of a picture that moves through the frame.

    With the wobble w_t, the drift d_t, and L_t a rotation with a scale, ::

        M_t(p) = layer_anchor + L_t (p + w_t(p) - frame_anchor - d_t)
        d_t = velocity t + sway sin(2 pi t / period + sway_phase)

    Attributes:
        frame_anchor: Where ``layer_anchor`` is shown at rest, ``(x, y)`` in frame pixels; rotation goes around it.
        layer_anchor: The point ``(x, y)`` in the picture's pixels that ``frame_anchor`` shows at rest.
        velocity: Steady part of the drift along ``(x, y)``, pixels a frame.
        sway: Amplitude of the to and fro, ``(x, y)`` pixels.
        sway_phase: Phases of the to and fro along ``(x, y)`` at time 0, radians.
        period: Frames in which sway, tilt and zoom come round.
        tilt: Amplitude of the rotation, radians.
        zoom: Amplitude of the scale, relative.
        waves: Sines that add up to the wobble; none without one.

    Raises:
        ValueError: The wobble is so steep that it might fold the picture.
    """

    frame_anchor: tuple[float, float]
    layer_anchor: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)
    sway_phase: tuple[float, float] = (0.0, 0.0)
    period: float = 24.0
    tilt: float = 0.0
    zoom: float = 0.0
    waves: tuple[Wave, ...] = ()

    def __post_init__(self) -> None:
        slope = sum(2 * math.pi * math.hypot(*wave.amplitude) * math.hypot(*wave.frequency) for wave in self.waves)
        if slope > _STEEPEST:
            raise ValueError(f"the wobble's slope may reach {slope:.2f}, above {_STEEPEST}: it could fold the picture")

    def __call__(self, time: float, points: Tensor) -> Tensor:
        """M_t of ``points``, ``(2, H, W)`` frame pixels (x, then y): picture pixels of the same shape."""
        pose = self.pose(time)
        relative = points + self._wobble(time, points) - _column(pose.centre, points)
        return torch.einsum("ij,jhw->ihw", pose.linear(points), relative) + _column(self.layer_anchor, points)

    def pose(self, time: float) -> Pose:
        """Drift, rotation and scale at ``time``, in frames; the wobble comes on top."""
        turn = 2 * math.pi * time / self.period
        x, y = (
            anchor + speed * time + sway * math.sin(turn + phase)
            for anchor, speed, sway, phase in zip(
                self.frame_anchor, self.velocity, self.sway, self.sway_phase, strict=True
            )
        )
        angle = self.tilt * math.sin(turn + self.sway_phase[0])
        return Pose((x, y), angle, 1 + self.zoom * math.sin(turn + self.sway_phase[1]))

    def inverse(self, time: float, layer_points: Tensor, start: Tensor | None = None) -> Tensor:
        """Frame pixels that M_t takes to ``layer_points``, ``(2, H, W)``, to 1e-6 of a pixel.

        The equation ``p + w_t(p) = L_t^-1 (q - layer_anchor) + frame_anchor + d_t`` is solved for p by fixed point
        iteration, which converges because the wobble's slope is bounded.
        """
        offset = layer_points - _column(self.layer_anchor, layer_points)
        pose = self.pose(time)
        linear = torch.linalg.inv(pose.linear(layer_points))
        target = torch.einsum("ij,jhw->ihw", linear, offset) + _column(pose.centre, layer_points)
        points = target if start is None else start
        for _ in range(_STEPS):
            following = target - self._wobble(time, points)
            settled = (following - points).abs().max() < 1e-6
            points = following
            if settled:
                break
        return points

    def backward_flow(self, time: float, size: tuple[int, int]) -> Tensor:
        """Flow from frame ``time`` to frame ``time - 1``: ``(2, H, W)`` float64 pixels, exact to 1e-6.

        The picture's point seen at p in frame t is seen at p' in frame t-1 where ``M_{t-1}(p') = M_t(p)``; the flow is
        ``p' - p``.
        """
        points = frame_points(size)
        return self.inverse(time - 1, self(time, points), start=points) - points

    def _wobble(self, time: float, points: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        for wave in self.waves:
            fx, fy = wave.frequency
            angle = 2 * math.pi * (fx * points[0] + fy * points[1]) + wave.phase + wave.speed * time
            total = total + _column(wave.amplitude, points) * angle.sin()
        return total


def frame_points(size: tuple[int, int]) -> Tensor:
    """``(2, H, W)`` float64 pixel coordinates (x, then y) of a frame of ``size`` = ``(H, W)``."""
    return pixel_grid(*size, torch.empty(0, dtype=torch.float64))


def random_wobble(generator: torch.Generator, amplitude: float, wavelength: float, count: int = 3) -> tuple[Wave, ...]:
    """Draw ``count`` waves in random directions whose displacements add up to at most ``amplitude`` pixels.

    Args:
        generator: Source of randomness.
        amplitude: Largest displacement, pixels.
        wavelength: Shortest wavelength, pixels; the longest is twice that.
        count: Number of waves.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    waves = []
    for _ in range(count):
        heading, way, length = draw(0, 2 * math.pi), draw(0, 2 * math.pi), draw(wavelength, 2 * wavelength)
        waves.append(
            Wave(
                (amplitude / count * math.cos(way), amplitude / count * math.sin(way)),
                (math.cos(heading) / length, math.sin(heading) / length),
                draw(0, 2 * math.pi),
                draw(0.15, 0.4),
            )
        )
    return tuple(waves)


def _column(pair: tuple[float, float], like: Tensor) -> Tensor:
    return like.new_tensor(pair).view(2, 1, 1)
