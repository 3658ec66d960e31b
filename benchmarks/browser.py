"""Exported ONNX files in a browser: milliseconds a frame, frames a second of a playing video, and memory.

    python benchmarks/browser.py FILE.onnx... --clip FRAMES [--threads 1,2] [--rounds 8] [--seconds 10]
        [--mediapipe npm]

Each file becomes a page of ``ptq4vm web`` and is opened in headless Chromium once for each number of threads. All pages
are open at once and take turns of ``--burst`` frames (one before them does not count), forth in one round and back in
the next: that is ms/frame, of the network alone. Then a browser of its own plays a video of the frames in each page:
frames a second, as the page composites them, and the resident memory (PSS, Linux) of the page's process at the end.
``FRAMES`` is a folder of pictures. Alphas of the first frames are compared with the Python engine's.

``--mediapipe`` (``npm``, or a folder with the unpacked package) takes MediaPipe's own selfie segmentation into the
turns, once as it computes by default, in WebGL (which Chromium gives without a GPU too, from the CPU), and once in
WebAssembly. Its ms/frame are of all that it does, from a picture to the pixels of a mask, and its alphas are compared
with those of files of the same network and size.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import mediapipe_page
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

import ptq4vm
from ptq4vm.engines.files.onnx import OnnxEngine
from ptq4vm.system.cpu import this_cpu
from ptq4vm.web.server import PageServer

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
WEBGL = ["--enable-unsafe-swiftshader"]  # computed by the CPU; MediaPipe's own does not start without WebGL
COMPARED = 6
"""How many frames alphas are compared on."""
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


@dataclass(frozen=True)
class Candidate:
    """A page: its address, its network, the size of the frames it gets, and the file where it is ours."""

    address: str
    network: str
    size: tuple[int, int]
    file: Path | None = None


def launch(playwright: Any) -> Any:
    """A headless Chromium."""
    program = next(filter(None, map(shutil.which, PROGRAMS)))
    return playwright.chromium.launch(executable_path=program, args=[*FLAGS, *WEBGL])


def look(opened: Any, address: str) -> Any:
    """A page with its network loaded."""
    page = opened.new_page()
    page.goto(address)
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


def alphas(page: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    """Alphas of the first frames."""
    found = [np.reshape(page.evaluate(ALPHA, i), size) for i in range(COMPARED)]
    page.evaluate("window.ptq4vm.reset()")
    return np.asarray(found, np.float32)


def apart(alpha: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean difference of alphas, of 255."""
    return float(np.abs(alpha - other).mean()) * 255


def turns(pages: dict[str, Any], rounds: int, burst: int) -> dict[str, list[float]]:
    """Milliseconds of each page's network, in turns."""
    found: dict[str, list[float]] = {name: [] for name in pages}
    for turn in range(rounds):
        for name in sorted(pages, reverse=turn % 2 == 1):
            found[name] += pages[name].evaluate(RUN, {"first": turn * burst, "count": burst + 1})[1:]
    return found


def write_video(path: Path, frames: Frames, seconds: float, rate: int) -> None:
    """A WebM of the frames, there and back."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=rate, options={"deadline": "realtime", "cpu-used": "8"})
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *frames[0].shape[:2], "yuv420p", 4_000_000
        for index in range(int(rate * seconds)):
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


def played(playwright: Any, candidate: Candidate, video: Path, seconds: float) -> tuple[list[float], float]:
    """Frames a second as the page shows them, each second of a playing video, and the page's memory."""
    with contextlib.closing(launch(playwright)) as opened:
        page = look(opened, candidate.address)
        page.set_input_files("#file", video)
        page.wait_for_selector("#result:not([hidden])")
        page.wait_for_timeout(3000)
        shown = []
        for _ in range(int(seconds)):
            page.wait_for_timeout(1000)
            text = page.inner_text("#fps")
            shown += [float(text)] if text[0].isdigit() else []
        return shown, resident(opened)


def served(stack: contextlib.ExitStack, server: Any) -> str:
    """Let a server work until the end; its address."""
    stack.enter_context(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}/"


def candidates(stack: contextlib.ExitStack, root: Path, options: argparse.Namespace) -> dict[str, Candidate]:
    """All that is measured, by name."""
    found = {}
    for index, file in enumerate(options.files):
        ptq4vm.web_page(file, root / str(index))
        address = served(stack, PageServer(root / str(index), 0))
        engine = OnnxEngine(file, 1)
        about = (engine.metadata.get("model", ""), engine.frame_size or (0, 0), file)
        for threads in options.threads.split(","):
            found[f"{file.name}, {threads}"] = Candidate(f"{address}?threads={threads}", *about)
    if options.mediapipe:
        mediapipe_page.write_page(root / "mediapipe", options.mediapipe)
        address = served(stack, mediapipe_page.server(root / "mediapipe"))
        size = mediapipe_page.GRAPHS[options.graph]
        for place, words in mediapipe_page.INFERENCE.items():
            url = f"{address}?graph={options.graph}&inference={place}"
            found[f"MediaPipe {options.graph}, {words}"] = Candidate(url, f"selfie_{options.graph}", size)
    return found


def compare(all_of_them: dict[str, Candidate], found: dict[str, NDArray[np.float32]], frames: Frames) -> dict[str, str]:
    """How far each page's alphas are: ours from the Python engine's, MediaPipe's from those of files of its network."""
    said = {}
    for name, candidate in all_of_them.items():
        if candidate.file is not None:
            engine = OnnxEngine(candidate.file, 1)
            own = [engine.matte(frame).alpha for frame in scaled(frames[:COMPARED], candidate.size)]
            said[name] = f"{apart(found[name], np.asarray(own)):.4f}"
            continue
        alike = {
            ours.file: found[other]
            for other, ours in all_of_them.items()
            if ours.file and (ours.network, ours.size) == (candidate.network, candidate.size)
        }
        said[name] = "; ".join(f"{apart(found[name], alpha):.2f} from {file.name}" for file, alpha in alike.items())
    return said


def measure(playwright: Any, all_of_them: dict[str, Candidate], frames: Frames, options: argparse.Namespace) -> Any:
    """Milliseconds of each page in turns, and its alphas of the first frames."""
    pages, found = {}, {}
    with contextlib.closing(launch(playwright)) as opened:
        print(f"Chromium {opened.version}, {this_cpu()}, {os.cpu_count()} CPUs")
        for name, candidate in all_of_them.items():
            pages[name] = look(opened, candidate.address)
            keep(pages[name], scaled(frames, candidate.size))
            found[name] = alphas(pages[name], candidate.size)
            if candidate.file is None:
                print(f"{name}: WebGL is {pages[name].evaluate('window.ptq4vm.renderer()')}")
        turns(pages, 1, 10)  # the compiler's second, better version of the code comes with use
        return turns(pages, options.rounds, options.burst), found


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--burst", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=int, default=30, help="frames a second of the video, which none can exceed")
    parser.add_argument("--mediapipe", metavar="npm|FOLDER", help="measure MediaPipe's own, fetched or from a folder")
    parser.add_argument("--graph", choices=mediapipe_page.GRAPHS, default="landscape", help="which of MediaPipe's")
    return parser.parse_args()


def main() -> None:
    """Measure and print a table."""
    options = arguments()
    frames = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in sorted(options.clip.iterdir())]
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        playwright = stack.enter_context(sync_playwright())
        write_video(root / "clip.webm", frames, options.seconds + 20, options.rate)
        all_of_them = candidates(stack, root, options)
        times, found = measure(playwright, all_of_them, frames, options)
        far = compare(all_of_them, found, frames)
        print(f"load {os.getloadavg()[0]:.1f}")
        print(
            "| page, threads | ms/frame: median (least-most) | frames a second (least-most) | MB | alpha apart, /255 |"
        )
        for name, took in times.items():
            fps, memory = played(playwright, all_of_them[name], root / "clip.webm", options.seconds)
            shown = f"{statistics.median(fps):.1f} ({min(fps)}-{max(fps)})" if fps else "none"
            spread = f"{statistics.median(took):.1f} ({min(took):.1f}-{max(took):.1f})"
            print(f"| {name} | {spread} | {shown} | {memory:.0f} | {far[name]} |", flush=True)


if __name__ == "__main__":
    main()
