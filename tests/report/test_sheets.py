"""Contact sheets: which frames are kept, and where the pictures land."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ptq4vm.errors import ConfigError
from ptq4vm.evaluation.results import EvaluationResult
from ptq4vm.metrics import METRIC_NAMES
from ptq4vm.report.canvas import GREEN, colour_map, composite, fit_text, font, resize_to_width
from ptq4vm.report.collector import SheetCollector
from ptq4vm.report.sheets import SheetRow, draw_sheet, write_sheets


def show(observer, clip: int, length: int, chunk: int, alpha: float, size=(18, 32)) -> None:
    """Stream a clip whose frame i has the colour i."""
    for start in range(0, length, chunk):
        frames = torch.arange(start, min(start + chunk, length), dtype=torch.uint8).view(-1, 1, 1, 1)
        image = frames.expand(-1, 3, *size)
        plane = torch.full((len(frames), 1, *size), alpha)
        observer.on_frames(clip, start, image, plane.mul(255).byte(), plane, image / 255)


def results(clips, alpha: float) -> EvaluationResult:
    return EvaluationResult.from_frames({clip: dict.fromkeys(METRIC_NAMES, (alpha,) * 40) for clip in clips})


@pytest.mark.parametrize("length", [1, 3, 4, 9, 24, 100, 217])
@pytest.mark.parametrize("chunk", [1, 7])
def test_stages_keep_the_same_frames_evenly_spread(length, chunk):
    collector = SheetCollector(["a", "b"], rows=4)
    for stage, alpha in (("fp32", 0.25), ("gac", 0.5)):
        observer = collector.observer(stage)
        for clip in (0, 1):
            show(observer, clip, length, chunk, alpha)
    for clip in collector.clips("fp32", "gac"):
        kept = collector.pictures(clip, "fp32", "gac")
        frames = [p.frame for p in kept]
        assert len(frames) == min(4, length) and frames[0] == 0 and frames == sorted(set(frames))
        assert [int(p.image[0, 0, 0]) for p in kept] == frames
        assert all(p.alphas["fp32"][0, 0] == 64 and p.alphas["gac"][0, 0] == 128 for p in kept)
        if length >= 24:
            assert frames[-1] >= length * 0.75 and np.diff(frames).max() <= length * 0.5


def test_memory_is_bounded():
    collector = SheetCollector(["a", "b"], rows=3, width=20)
    for stage in ("fp32", "gac"):
        observer = collector.observer(stage, foreground=stage == "gac")
        for clip in (0, 1):
            show(observer, clip, 200, 8, 0.5, size=(36, 64))
    assert len(collector._kept["a"]) == 3 and len(collector._kept["b"]) <= 12
    picture = collector.pictures("a", "gac")[0]
    assert picture.image.shape == (11, 20, 3) and picture.truth.shape == (11, 20)
    assert list(picture.foregrounds) == ["gac"]


@pytest.mark.parametrize("chunks", [(3, 3), (7, 2)])
def test_still_is_the_last_frame_of_every_stage(chunks):
    collector = SheetCollector(["a", "b"], rows=2, width=16, still_width=24)
    for stage, chunk, alpha in zip(("fp32", "gac"), chunks, (0.25, 0.5), strict=True):
        assert collector.still("a", "fp32", stage) is None or stage == "fp32"
        show(collector.observer(stage), 0, 11, chunk, alpha)
    still = collector.still("a", "fp32", "gac")
    assert still.frame == 10 and (still.image == 10).all() and still.image.shape == (14, 24, 3)
    assert still.alphas["fp32"][0, 0] == 64 and still.alphas["gac"][0, 0] == 128
    assert collector.still("b", "fp32") is None and collector.still("a", "biq") is None


def test_one_sheet_a_clip_that_both_stages_saw(tmp_path):
    names = ["set/a", "b", "unseen"]
    collector = SheetCollector(names, rows=2)
    for stage in ("fp32", "gac"):
        observer = collector.observer(stage, foreground=False)
        for clip in (0, 1):
            show(observer, clip, 5, 2, 0.5)
    show(collector.observer("fp32"), 2, 5, 2, 0.5)
    metrics = {"fp32": results(names, 3.0), "gac": results(names, 4.0)}
    files = write_sheets(tmp_path / "sheets", collector, "gac", metrics, label="W4A4")
    assert [f.name for f in files] == ["set__a.png", "b.png"]
    assert sorted(p.name for p in (tmp_path / "sheets").iterdir()) == ["b", "b.png", "set__a", "set__a.png"]
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "PNG" and picture.width > 6 * 224 and picture.height > 2 * 126
    for clip in ("b", "set__a"):
        stills = tmp_path / "sheets" / clip
        assert sorted(p.name for p in stills.iterdir()) == ["fp32.jpg", "input.jpg", "quantized.jpg", "truth.jpg"]
    write_sheets(tmp_path / "alone", collector, "gac", metrics, reference=None)
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == ["b.png", "set__a.png"]
    with pytest.raises(ConfigError, match="no results of stage biq"):
        write_sheets(tmp_path, collector, "biq", metrics)
    with pytest.raises(ConfigError, match="no clip was watched"):
        write_sheets(tmp_path, collector, "biq", metrics | {"biq": metrics["gac"]})


def test_sheet_shows_input_truth_alphas_amplified_difference_and_composite():
    def plane(value):
        return np.full((126, 224), value, np.uint8)

    image = np.stack([plane(10), plane(20), plane(30)], -1)
    row = SheetRow(3, image, plane(255), plane(100), plane(110), image, mad=1.0)
    page = np.asarray(draw_sheet([row, row], "clip", "subtitle", "W4A4"))
    centres = [page[-36 - 63, 36 + 92 + column * (224 + 10) + 112].tolist() for column in range(6)]
    mix = np.rint(110 / 255 * image[0, 0] + (1 - 110 / 255) * np.array(GREEN)).tolist()
    assert centres[0] == [10, 20, 30]
    assert centres[1:4] == [[255] * 3, [100] * 3, [110] * 3]
    assert centres[4] == colour_map(plane(40))[0, 0].tolist()
    assert centres[5] == pytest.approx(mix, abs=1)


def test_drawing_helpers():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (composite(image, np.full((4, 4), 255, np.uint8)) == image).all()
    assert (composite(image, np.zeros((4, 4), np.uint8)) == GREEN).all()
    assert resize_to_width(image, 4) is image and resize_to_width(image, 8).shape == (8, 8, 3)
    assert fit_text("short", font(12), 400) == "short"
    cut = fit_text("a very long clip name " * 9, font(12), 120)
    assert cut.endswith("…") and font(12).getlength(cut) <= 120


def test_refuses_nothing_and_nonsense():
    with pytest.raises(ConfigError, match="at least one frame"):
        draw_sheet([], "clip", "")
    with pytest.raises(ConfigError, match="rows and width"):
        SheetCollector(["a"], rows=0)
