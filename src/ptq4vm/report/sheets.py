"""Contact sheets: one picture per evaluation clip that shows what quantization did to its alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.io import atomic_path
from ptq4vm.metrics import METRICS
from ptq4vm.report.canvas import Bytes, colour_map, composite, fit_text, font, gray_to_rgb, resize_to_width
from ptq4vm.report.collector import FramePictures, SheetCollector
from ptq4vm.report.tables import stage_title

AMPLIFIED = 4
"""How much brighter a sheet shows the difference of two alphas."""

_PAGE, _INK, _FAINT, _LINE = "#fafafa", "#16181d", "#6b7280", "#d4d7dd"
_MARGIN, _GAP, _LABEL = 36, 10, 92
_MIN_CELL = 224  # narrower cells are enlarged, so that the headings fit


@dataclass(frozen=True)
class SheetRow:
    """One frame of a contact sheet. All pictures are uint8 and of one size.

    Attributes:
        frame: Index of the frame in its clip.
        image: Input, ``(H, W, 3)`` RGB.
        truth: True alpha, ``(H, W)``.
        reference: Alpha of the FP32 network, ``(H, W)``.
        alpha: Alpha of the quantized network, ``(H, W)``.
        foreground: Foreground colours for the composite, ``(H, W, 3)`` RGB.
        mad: Error of ``alpha`` in this frame, shown under the frame's number.
    """

    frame: int
    image: Bytes
    truth: Bytes
    reference: Bytes
    alpha: Bytes
    foreground: Bytes
    mad: float | None = None


def draw_sheet(
    rows: Sequence[SheetRow],
    title: str,
    subtitle: str,
    label: str = "quantized",
    reference_label: str = "FP32",
) -> Image.Image:
    """Draw frames as rows of input, true alpha, two predicted alphas, their difference and a composite on green.

    Args:
        rows: At least one frame; all of one size.
        title: Large, on top: the clip's name.
        subtitle: Below the title: stage and error.
        label: What the quantized alpha is called above its column.
        reference_label: What the alpha is called that it is compared with.

    Returns:
        RGB picture.

    Raises:
        ConfigError: There is no row.
    """
    if not rows:
        raise ConfigError("a contact sheet needs at least one frame")
    headings = [
        ("Input", "composite"),
        ("True alpha", "ground truth"),
        (f"{reference_label} alpha", "float network" if reference_label == "FP32" else "to compare with"),
        (f"{label} alpha", "quantized network"),
        ("Difference", f"|{label} − {reference_label}| × {AMPLIFIED}"),
        ("On green", f"{label} alpha and colours"),
    ]
    cells = [[resize_to_width(cell, max(row.image.shape[1], _MIN_CELL)) for cell in _cells(row)] for row in rows]
    height, width = cells[0][0].shape[:2]
    left, top = _MARGIN + _LABEL, _MARGIN + 134
    page = Image.new(
        "RGB",
        (left + len(headings) * (width + _GAP) - _GAP + _MARGIN, top + len(rows) * (height + _GAP) - _GAP + _MARGIN),
        _PAGE,
    )
    draw = ImageDraw.Draw(page)
    space = page.width - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN - 6), fit_text(title, font(30, bold=True), space), _INK, font(30, bold=True))
    draw.text((_MARGIN, _MARGIN + 38), fit_text(subtitle, font(18), space), _FAINT, font(18))
    draw.line((_MARGIN, _MARGIN + 74, page.width - _MARGIN, _MARGIN + 74), _LINE)
    for column, (heading, caption) in enumerate(headings):
        x = left + column * (width + _GAP)
        draw.text((x, top - 50), fit_text(heading, font(17, bold=True), width), _INK, font(17, bold=True))
        draw.text((x, top - 26), fit_text(caption, font(14), width), _FAINT, font(14))
    for index, (row, pictures) in enumerate(zip(rows, cells, strict=True)):
        y = top + index * (height + _GAP)
        draw.text((_MARGIN, y), "frame", _FAINT, font(14))
        draw.text((_MARGIN, y + 18), str(row.frame), _INK, font(22, bold=True))
        if row.mad is not None:
            draw.text((_MARGIN, y + 62), "MAD", _FAINT, font(14))
            draw.text((_MARGIN, y + 80), f"{row.mad:.1f}", _INK, font(22, bold=True))
        for column, picture in enumerate(pictures):
            x = left + column * (width + _GAP)
            page.paste(Image.fromarray(picture), (x, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_LINE)
    return page


_SCORES = tuple(METRICS[name] for name in ("mad", "dtssd"))


def write_sheets(
    folder: Path | str,
    collector: SheetCollector,
    stage: str,
    results: Mapping[str, EvaluationResult],
    label: str = "quantized",
    reference: str | None = "fp32",
) -> list[Path]:
    """Write one PNG per clip that both stages have seen, and its stills, for pages that lay two alphas on each other.

    The stills of a clip are its last frame: ``<clip>/{input,truth,fp32,quantized}.jpg``; only with a ``reference``.

    Args:
        folder: The folder of the sheets, made when missing.
        collector: The collector that has watched the evaluation of both stages.
        stage: Name of the quantized network's stage, in ``collector`` and ``results``.
        results: Metrics of both stages.
        label: Name of the quantized network on the sheets, ``W4A4``.
        reference: Stage of the float network; ``None`` compares with the true alpha instead.

    Returns:
        The files, in the order of the clips: ``<clip>.png``, with ``__`` for every slash in a clip's name.

    Raises:
        ConfigError: A stage was not watched or has no result.
        SaveError: A file cannot be written.
    """
    stages = [stage] if reference is None else [stage, reference]
    for name in stages:
        if name not in results:
            raise ConfigError(f"no results of stage {name} for the contact sheets; there are: {', '.join(results)}")
    written = []
    for clip in collector.clips(*stages):
        rows = [
            SheetRow(
                kept.frame,
                kept.image,
                kept.truth,
                kept.truth if reference is None else kept.alphas[reference],
                kept.alphas[stage],
                kept.foregrounds.get(stage, kept.image),
                _mad(results[stage], clip, kept.frame),
            )
            for kept in collector.pictures(clip, *stages)
        ]
        ours = results[stage].clips[clip]
        base = None if reference is None else results[reference].clips[clip]
        scores = (
            f"{m.title} {m.text(ours[m.name])}" + (f"   (FP32 {m.text(base[m.name])})" if base else "") for m in _SCORES
        )
        subtitle = "   ·   ".join([f"{label}, {stage_title(stage)}" if base else label, *scores])
        target = Path(folder) / f"{clip.replace('/', '__')}.png"
        with atomic_path(target) as temporary:
            draw_sheet(rows, clip, subtitle, label, "FP32" if base else "True").save(
                temporary, format="PNG", optimize=True
            )
        written.append(target)
        still = None if reference is None else collector.still(clip, stage, reference)
        if still is not None and reference is not None:
            _write_stills(target.with_suffix(""), still, reference, stage)
    return written


def _write_stills(folder: Path, still: FramePictures, reference: str, stage: str) -> None:
    """Raises :class:`SaveError`."""
    pictures = {
        "input": still.image,
        "truth": still.truth,
        "fp32": still.alphas[reference],
        "quantized": still.alphas[stage],
    }
    for name, picture in pictures.items():
        with atomic_path(folder / f"{name}.jpg") as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=88, optimize=True)


def _cells(row: SheetRow) -> list[Bytes]:
    difference = np.abs(row.alpha.astype(np.int16) - row.reference)
    return [
        row.image,
        gray_to_rgb(row.truth),
        gray_to_rgb(row.reference),
        gray_to_rgb(row.alpha),
        colour_map((difference * AMPLIFIED).clip(0, 255).astype(np.uint8)),
        composite(row.foreground, row.alpha),
    ]


def _mad(result: EvaluationResult, clip: str, frame: int) -> float | None:
    values = result.frames.get(clip, {}).get("mad", ())
    return values[frame] if frame < len(values) else None
