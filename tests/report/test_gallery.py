"""Pictures that a page embeds."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from ptq4vm.report.images import Gallery
from ptq4vm.runs.reading import read_run
from sample_runs import write_run, write_sheet, write_stills


def opened(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_stills_are_taken_before_the_sheet_and_equal_ones_are_shared(tmp_path):
    folders = [write_run(tmp_path, seed=seed) for seed in (0, 1)]
    for folder, shade in zip(folders, (100, 200), strict=True):
        write_stills(folder, "set/a", shade)
    write_sheet(folders[0], "b")
    gallery = Gallery()
    first, second = (gallery.clips(read_run(folder)) for folder in folders)
    assert first.keys() == {"set/a", "b"} and second.keys() == {"set/a"}
    assert first["b"].keys() == {"sheet"} and first["set/a"].keys() == {"input", "truth", "fp32", "quantized"}
    assert first["set/a"]["fp32"] == second["set/a"]["fp32"]
    assert first["set/a"]["quantized"] != second["set/a"]["quantized"]
    assert len(gallery.uris) == 6 and not gallery.left_out and not gallery.warnings
    assert opened(gallery.uris[first["set/a"]["input"]]).size == (64, 36)


def test_wide_pictures_are_scaled_down(tmp_path):
    folder = write_run(tmp_path)
    write_sheet(folder, "b", size=(3000, 900))
    write_stills(folder, "set/a", size=(1280, 720))
    gallery = Gallery()
    clips = gallery.clips(read_run(folder))
    assert opened(gallery.uris[clips["b"]["sheet"]]).size == (1400, 420)
    assert opened(gallery.uris[clips["set/a"]["truth"]]).size == (640, 360)


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_damaged_picture_is_named_and_the_rest_is_kept(tmp_path, content):
    folder = write_run(tmp_path)
    write_sheet(folder, "set/a")
    damaged = write_sheet(folder, "b", size=(300, 300))
    damaged.write_bytes(damaged.read_bytes()[:60] if content is None else content)
    gallery = Gallery()
    assert gallery.clips(read_run(folder)).keys() == {"set/a"}
    (warning,) = gallery.warnings
    assert str(damaged) in warning and "\n" not in warning


def test_budget_leaves_out_and_counts(tmp_path):
    folder = write_run(tmp_path)
    write_stills(folder, "set/a")
    write_sheet(folder, "b")
    gallery = Gallery(budget=0)
    assert gallery.clips(read_run(folder)) == {} and not gallery.uris and gallery.left_out == 5


def test_run_without_pictures(tmp_path):
    assert Gallery().clips(read_run(write_run(tmp_path))) == {}
