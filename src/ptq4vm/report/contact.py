"""A page of small pictures of a data set's clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from ptq4vm.data.checks import Findings, sample
from ptq4vm.errors import DataError
from ptq4vm.io import atomic_path
from ptq4vm.report.canvas import fit_text, font

_HEIGHT, _GAP, _LABEL, _MARGIN = 108, 8, 22, 24
_PAGE, _INK = "#fafafa", "#16181d"
_CLIPS = 12  # shown of each part, spread over it

Row = tuple[str, list[Image.Image]]


def write_contact_sheet(path: Path | str, found: Findings) -> int:
    """Draw the first, middle and last frame of some clips of each part, and the middle one's alpha.

    A clip that cannot be decoded is left out, and its fault added to ``found``.

    Returns:
        How many clips are shown; without any nothing is written.

    Raises:
        SaveError: The picture cannot be written.
    """
    parts = {part: _rows(part, found) for part in found.items}
    count = sum(map(len, parts.values()))
    if count:
        with atomic_path(path) as temporary:
            _draw(parts).save(temporary)
    return count


def _rows(part: str, found: Findings) -> list[Row]:
    facts = {clip.name: clip for clip in found.parts[part]}
    items = [item for item in found.items[part] if item.name in facts]
    step = max(1, -(-len(items) // _CLIPS))
    rows = []
    for item in items[::step]:
        fact = facts[item.name]
        shown = sorted({0, fact.frames // 2, fact.frames - 1})
        try:
            samples = [sample(item, index) for index in shown]
        except DataError as error:
            if str(error) not in found.faults:
                found.faults.append(str(error))
            continue
        alpha = samples[len(samples) // 2][1]
        pictures = [_small(colours) for colours, _ in samples] + ([] if alpha is None else [_small(alpha)])
        title = f"{fact.name}   {fact.frames} frames   {fact.size[1]}x{fact.size[0]}"
        rows.append((title, pictures))
    return rows


def _small(image: Tensor) -> Image.Image:
    picture = Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy()).convert("RGB")
    return picture.resize((max(1, round(_HEIGHT * picture.width / picture.height)), _HEIGHT), Image.Resampling.BILINEAR)


def _draw(parts: Mapping[str, Sequence[Row]]) -> Image.Image:
    rows = [row for part in parts.values() for row in part]
    width = max(sum(p.width + _GAP for p in pictures) for _, pictures in rows) + 2 * _MARGIN
    width = max(width, 480)
    titles = [part for part, shown in parts.items() if shown]
    height = 2 * _MARGIN + len(rows) * (_HEIGHT + _LABEL + _GAP) + len(titles) * (_LABEL + _GAP)
    page = Image.new("RGB", (width, height), _PAGE)
    pen, y = ImageDraw.Draw(page), _MARGIN
    for part in titles:
        pen.text((_MARGIN, y), part, _INK, font(17, bold=True))
        y += _LABEL + _GAP
        for title, pictures in parts[part]:
            pen.text((_MARGIN, y), fit_text(title, font(13), width - 2 * _MARGIN), _INK, font(13))
            y, x = y + _LABEL, _MARGIN
            for picture in pictures:
                page.paste(picture, (x, y))
                x += picture.width + _GAP
            y += _HEIGHT + _GAP
    return page
