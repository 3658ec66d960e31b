"""The page in Chromium: it mattes as the Python engine does, asks nobody, and says what is wrong."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from browsers import chromium
from commands import SIZE
from ptq4vm import web_page
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.exporting.verify import moving_portrait
from ptq4vm.web import server as serving

CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
ALPHA = """async ({ text, width, height }) => {
  const data = Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));
  const { alpha } = await window.ptq4vm.alphaOf(new ImageData(data, width, height));
  return Array.from(alpha);
}"""
PIXELS = """() => {
  const canvas = document.getElementById("result");
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  const alphas = data.filter((_, index) => index % 4 === 3);
  return { width: canvas.width, height: canvas.height, least: Math.min(...alphas) };
}"""
NO_CAMERA = """() => {
  navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", "NotFoundError"));
}"""
SEEN = "Number(document.getElementById('ms').textContent) >= 0"


def until(page: Any, condition: str, seconds: float = 20) -> None:
    """Wait until an expression is true; Playwright's own way is eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition}; error: {page.inner_text('#error')}"
        page.wait_for_timeout(50)


def frames(count: int = 4) -> list[NDArray[np.uint8]]:
    """A drawn portrait, ``(H, W, 3)`` uint8 each."""
    return [frame.permute(1, 2, 0).numpy() for frame in moving_portrait(SIZE, count).frames]


def write_video(path: Path, size: tuple[int, int], count: int = 60) -> Path:
    """A WebM of ``count`` frames of ``(H, W)``, ten a second."""
    drawn = frames(8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(count):
            picture = av.VideoFrame.from_ndarray(drawn[index % 8], format="rgb24")
            container.mux(stream.encode(picture.reformat(width=size[1], height=size[0])))
        container.mux(stream.encode())
    return path


class Place(NamedTuple):
    """What the tests look at: the folder of the page, its address, and a video."""

    site: Path
    address: str
    video: Path


@pytest.fixture(scope="module")
def place(network: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("page")
    web_page(network, root / "site", cache_dir=cache)
    with serving.PageServer(root / "site", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Place(root / "site", server.address, write_video(root / "a.webm", (180, 320)))
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(*CAMERA) as opened:
        yield opened


class Opened(NamedTuple):
    """A page that has loaded its network, with what it asked others for and complained about."""

    page: Any
    strangers: list[str]
    complaints: list[str]


def look(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    strangers: list[str] = []
    complaints: list[str] = []

    def decide(route: Any) -> None:
        if route.request.url.startswith((address.partition("?")[0], "data:", "blob:")):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    page.context.route("**/*", decide)
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.evaluate("window.ptq4vm.ready()")
    return Opened(page, strangers, complaints)


def differences(page: Any, network: Path) -> list[float]:
    """Mean difference of each frame's alpha from the Python engine's, states carried in both."""
    engine, found = OnnxEngine(network, 1), []
    for frame in frames():
        pixels = np.dstack([frame, np.full(SIZE, 255, np.uint8)])
        text = base64.b64encode(pixels.tobytes()).decode()
        alpha = page.evaluate(ALPHA, {"text": text, "width": SIZE[1], "height": SIZE[0]})
        found.append(float(np.abs(np.reshape(alpha, SIZE) - engine.matte(frame).alpha).mean()))
    return found


def test_alphas_are_those_of_the_python_engine(browser: Any, place: Place, network: Path) -> None:
    opened = look(browser, f"{place.address}?threads=2")
    assert opened.page.evaluate("crossOriginIsolated")
    assert max(differences(opened.page, network)) <= 1 / 255
    opened.page.evaluate("window.ptq4vm.reset()")
    assert max(differences(opened.page, network)) <= 1 / 255, "states begin at zeros again"
    assert opened.strangers == [] and opened.complaints == []
    with pytest.raises(Exception, match="takes pictures of 96x64, not 1x1"):
        opened.page.evaluate("window.ptq4vm.alphaOf(new ImageData(1, 1))")
    opened.page.close()


def test_one_thread_where_the_page_is_not_isolated(
    browser: Any, place: Place, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"):
        monkeypatch.delitem(serving.HEADERS, name)
    opened = look(browser, place.address)
    assert not opened.page.evaluate("crossOriginIsolated")
    assert opened.page.inner_text("#isolation").startswith("One thread: the server sends no COOP and COEP headers")
    assert opened.page.locator("#threads").is_disabled()
    assert max(differences(opened.page, network)) <= 1 / 255
    opened.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_video_is_matted_over_every_background(
    browser: Any, place: Place, tmp_path: Path, width: int, scheme: str
) -> None:
    opened = look(browser, place.address, width, scheme)
    page = opened.page
    assert "rvm_mobilenetv3 · W8A8 · 96×64" in page.inner_text("header")
    page.set_input_files("#file", place.video)
    page.wait_for_selector("#result:not([hidden])")
    until(page, SEEN)
    page.get_by_role("button", name="Pause").click()
    page.fill("#colour", "#123456")
    found = page.evaluate(PIXELS)
    assert (found["width"], found["height"], found["least"]) == (320, 180, 255)
    page.get_by_role("radio", name="Transparent").press("Space")
    assert page.evaluate(PIXELS)["least"] < 250 and page.locator("#result.clear").count() == 1
    page.get_by_role("radio", name="Blur").check()
    assert page.evaluate(PIXELS)["least"] == 255
    page.get_by_role("radio", name="Picture").check()
    page.set_input_files("#picture", place.video)
    assert page.wait_for_selector("#error:not([hidden])").inner_text().startswith("a.webm is no picture")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(246, 247, 249)" if scheme == "light" else "rgb(19, 22, 27)"
    )
    assert float(page.inner_text("#memory")) > 16, "the WebAssembly memory is seen"
    assert opened.strangers == [] and opened.complaints == []
    page.close()


def test_a_recording_keeps_alpha(browser: Any, place: Place, tmp_path: Path) -> None:
    opened = look(browser, place.address)
    page = opened.page
    page.get_by_role("radio", name="Transparent").check()
    page.set_input_files("#file", place.video)
    until(page, SEEN)
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop recording").click()
    until(page, "document.getElementById('note').textContent.startsWith('Recorded')")
    assert page.inner_text("#note").endswith("with alpha.")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save recording").click()
    download.value.save_as(tmp_path / "r.webm")
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    with av.open(str(tmp_path / "r.webm")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        pictures = [frame.to_ndarray(format="rgba") for packet in packets for frame in decoder.decode(packet)]
    assert pictures and pictures[0].shape == (180, 320, 4) and pictures[0][..., 3].min() < 250
    assert opened.complaints == []
    page.close()


def test_what_is_wrong_is_one_line(browser: Any, place: Place, tmp_path: Path) -> None:
    opened = look(browser, place.address, 400)
    page = opened.page
    (tmp_path / "broken.webm").write_bytes(place.video.read_bytes()[:300])
    (tmp_path / "a.txt").write_text("text")
    for name in ("broken.webm", "a.txt"):
        page.set_input_files("#file", tmp_path / name)
        until(page, f"document.getElementById('error').textContent.startsWith('{name} is no video')")
    page.get_by_role("button", name="Start camera").click()
    until(page, SEEN)
    assert page.inner_text("#error") == "", "what works takes the line away"
    page.get_by_role("button", name="Stop camera").click()
    page.evaluate(NO_CAMERA)
    page.get_by_role("button", name="Start camera").click()
    assert page.wait_for_selector("#error:not([hidden])").inner_text().startswith("No camera was found")
    page.close()


def test_a_network_that_is_gone(browser: Any, place: Place) -> None:
    file = place.site / "model.onnx"
    content = file.read_bytes()
    page = browser.new_page()
    try:
        for wrong, said in ((None, "model.onnx is missing (HTTP 404): run ptq4vm web again."), (b"\0", "could not be")):
            file.unlink() if wrong is None else file.write_bytes(wrong)
            page.goto(place.address)
            line = page.wait_for_selector("#error:not([hidden])").inner_text()
            assert line.startswith("The network could not be loaded: ") and said in line and "\n" not in line
    finally:
        file.write_bytes(content)
        page.close()
