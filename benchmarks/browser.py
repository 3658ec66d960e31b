"""Exported ONNX files in a browser: milliseconds a frame, frames a second of a playing video, and memory.

    python benchmarks/browser.py FILE.onnx... --clip FRAMES [--threads 1,2] [--rounds 8] [--seconds 10]

Each file becomes a page of ``ptq4vm web`` and is opened in headless Chromium once for each number of threads. All pages
are open at once and take turns of ``--burst`` frames (one before them does not count), forth in one round and back in
the next: that is ms/frame, of the network alone. Then a browser of its own plays a video of the frames in each page:
frames a second, as the page composites them, and the resident memory (PSS, Linux) of the page's process at the end.
``FRAMES`` is a folder of pictures. Alphas of the first frames are compared with the Python engine's.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

import ptq4vm
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.system.cpu import this_cpu
from ptq4vm.web.server import PageServer

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
KEEP = """async ({ texts, width, height }) => {
  window.kept = texts.map((text) =>
    new ImageData(Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0)), width, height));
}"""
RUN = """async ({ first, count }) => {
  const times = [];
  for (let i = 0; i < count; i += 1) times.push((await ptq4vm.alphaOf(kept[(first + i) % kept.length])).ms);
  return times;
}"""
ALPHA = "async (index) => Array.from((await ptq4vm.alphaOf(kept[index])).alpha)"

Frames = list[NDArray[np.uint8]]


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield opened
        opened.close()


def look(opened: Any, address: str, threads: int) -> Any:
    """A page with its network loaded."""
    page = opened.new_page()
    page.goto(f"{address}?threads={threads}")
    page.evaluate("window.ptq4vm.ready()")
    return page


def scaled(frames: Frames, size: tuple[int, int]) -> Frames:
    """Frames of the size of a file."""
    return [np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA), np.uint8) for frame in frames]


def keep(page: Any, frames: Frames) -> None:
    """Hand frames to a page."""
    height, width = frames[0].shape[:2]
    opaque = (np.dstack([frame, np.full((height, width), 255, np.uint8)]) for frame in frames)
    texts = [base64.b64encode(frame.tobytes()).decode() for frame in opaque]
    page.evaluate(KEEP, {"texts": texts, "width": width, "height": height})


def compared(page: Any, file: Path, frames: Frames) -> float:
    """Mean difference of alpha from the Python engine's, of 255."""
    engine = OnnxEngine(file, 1)
    found = [np.abs(np.reshape(page.evaluate(ALPHA, i), frames[0].shape[:2]) - engine.matte(frame).alpha).mean()
             for i, frame in enumerate(frames[:3])]  # fmt: skip
    page.evaluate("window.ptq4vm.reset()")
    return float(np.mean(found)) * 255


def turns(pages: dict[str, Any], rounds: int, burst: int) -> dict[str, list[float]]:
    """Milliseconds of each page's network, in turns."""
    found: dict[str, list[float]] = {name: [] for name in pages}
    for turn in range(rounds):
        for name in sorted(pages, reverse=turn % 2 == 1):
            found[name] += pages[name].evaluate(RUN, {"first": turn * burst, "count": burst + 1})[1:]
    return found


def write_video(path: Path, frames: Frames, seconds: float) -> None:
    """A WebM of the frames, there and back, 30 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=30)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames[0].shape[:2], "yuv420p", 4_000_000
        for index in range(int(30 * seconds)):
            at = index % (2 * len(frames) - 2)
            picture = frames[min(at, 2 * len(frames) - 2 - at)]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def resident(opened: Any) -> float:
    """Largest PSS of the browser's page processes, MB."""
    session = opened.new_browser_cdp_session()
    found = []
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] == "renderer":
            for line in Path(f"/proc/{process['id']}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found.append(int(line.split()[1]) / 1000)
    return max(found)


def played(address: str, threads: int, video: Path, seconds: float) -> tuple[list[float], float]:
    """Frames a second as the page shows them, each second of a playing video, and the page's memory."""
    with browser() as opened:
        page = look(opened, address, threads)
        page.set_input_files("#file", video)
        page.wait_for_selector("#result:not([hidden])")
        page.wait_for_timeout(3000)
        shown = []
        for _ in range(int(seconds)):
            page.wait_for_timeout(1000)
            text = page.inner_text("#fps")
            shown += [float(text)] if text[0].isdigit() else []
        return shown, resident(opened)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--burst", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    frames = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(options.clip.iterdir())]
    counts = [int(count) for count in options.threads.split(",")]
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_video(root / "clip.webm", frames, options.seconds + 60)
        addresses = {}
        for index, file in enumerate(options.files):
            ptq4vm.web_page(file, root / str(index))
            server = stack.enter_context(PageServer(root / str(index), 0))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            addresses[file] = server.address
        pages, apart = {}, {}
        with browser() as opened:
            version = opened.version
            for file, address in addresses.items():
                own = scaled(frames, OnnxEngine(file, 1).frame_size or (0, 0))
                for threads in counts:
                    name = f"{file.name}, {threads}"
                    pages[name] = look(opened, address, threads)
                    keep(pages[name], own)
                    apart[name] = compared(pages[name], file, own)
            turns(pages, 1, 10)  # the compiler's second, better version of the code comes with use
            times = turns(pages, options.rounds, options.burst)
        print(f"Chromium {version}, {this_cpu()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
        print("| file, threads | ms/frame: median (least-most) | frames a second (least-most) | MB | alpha apart |")
        for name, found in times.items():
            file = next(file for file in options.files if name.startswith(f"{file.name}, "))
            fps, memory = played(addresses[file], int(name.rpartition(" ")[2]), root / "clip.webm", options.seconds)
            shown = f"{statistics.median(fps):.1f} ({min(fps)}-{max(fps)})" if fps else "none"
            spread = f"{statistics.median(found):.0f} ({min(found):.0f}-{max(found):.0f})"
            print(f"| {name} | {spread} | {shown} | {memory:.0f} | {apart[name]:.4f}/255 |", flush=True)


if __name__ == "__main__":
    main()
