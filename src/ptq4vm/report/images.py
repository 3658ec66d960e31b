"""Pictures of a page: scaled, as JPEG, inside the page itself, and each of them once."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from ptq4vm.errors import DataError
from ptq4vm.media.images import open_image
from ptq4vm.runs.layout import SHEETS
from ptq4vm.runs.reading import Run

PARTS = ("input", "truth", "fp32", "quantized")
"""Stills of a clip, ``sheets/<clip>/<part>.jpg``."""

_STILL_WIDTH, _SHEET_WIDTH = 640, 1400


@dataclass
class Gallery:
    """Pictures of many runs within a budget.

    Attributes:
        budget: Bytes of JPEG that may be embedded; what does not fit is counted in ``left_out``.
        uris: Name of a picture (a hash of what it holds) to its data URI. Runs share what they have in common.
        left_out: Pictures that did not fit.
        warnings: One line for each file that could not be read.
    """

    budget: int = 24_000_000
    uris: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    warnings: list[str] = field(default_factory=list)
    _spent: int = 0

    def clips(self, run: Run) -> dict[str, dict[str, str]]:
        """Clip to the names of its pictures.

        Either of :data:`PARTS` (``fp32`` and ``quantized`` at least), or ``sheet`` alone where a run has no stills.
        """
        found: dict[str, dict[str, str]] = {}
        clip_names = {clip.replace("/", "__"): clip for clip in run.clips}
        for path in sorted((run.folder / SHEETS).glob("*")):
            stem = path.name if path.is_dir() else path.name.removesuffix(".png")
            clip = clip_names.get(stem, stem.replace("__", "/"))
            if path.is_dir():
                names = {part: self._add(path / f"{part}.jpg", _STILL_WIDTH) for part in PARTS}
                kept = {part: name for part, name in names.items() if name}
                if {"fp32", "quantized"} <= kept.keys():
                    found[clip] = kept
            elif path.suffix == ".png" and not (path.parent / stem).is_dir():
                name = self._add(path, _SHEET_WIDTH)
                if name:
                    found[clip] = {"sheet": name}
        order = {clip: index for index, clip in enumerate(run.clips)}  # as they were evaluated
        return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))

    def _add(self, path: Path, width: int) -> str:
        """The name of a picture; empty when there is none, or it cannot be read, or does not fit."""
        if not path.is_file():
            return ""
        try:
            content = _jpeg(path, width)
        except (OSError, DataError) as error:
            self.warnings.append(f"cannot read {path}: {' '.join(str(error).split())}")
            return ""
        name = hashlib.sha256(content).hexdigest()[:16]
        if name not in self.uris:
            if self._spent + len(content) > self.budget:
                self.left_out += 1
                return ""
            self._spent += len(content)
            self.uris[name] = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
        return name


def _jpeg(path: Path, width: int) -> bytes:
    """A picture as JPEG, at most ``width`` wide; a small JPEG as it is."""
    with open_image(path) as file:
        if file.format == "JPEG" and file.width <= width:
            file.load()  # a damaged one is told now
            return path.read_bytes()
        picture = file.convert("RGB")
        if picture.width > width:
            picture = picture.resize((width, max(1, round(picture.height * width / picture.width))))
        target = io.BytesIO()
        picture.save(target, format="JPEG", quality=82, optimize=True)
        return target.getvalue()
