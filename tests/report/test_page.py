"""The page of a report: what it says, and, in a real browser, that it works without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from browsers import chromium
from ptq4vm.errors import ConfigError
from ptq4vm.report.page import write_report
from sample_runs import write_log, write_run, write_sheet, write_stills

HOSTILE = "</script><script>throw new Error('x')</script><img src=x onerror=alert(1)>"
ERRORS = {("w8a8", "rtn"): 4.5, ("w8a8", "qdrop"): 4.25, ("w4a4", "rtn"): 100.0, ("w4a4", "qdrop"): 9.0}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two methods, two widths and two seeds, with all kinds of trouble in it."""
    root = tmp_path_factory.mktemp("page") / "sweep"
    for (bits, method), mad in ERRORS.items():
        for seed in (0, 1):
            folder = write_run(root, bits, method, seed, mad + seed * 0.1)
            write_stills(folder, "set/a", shade=100 + 50 * seed)
            write_sheet(folder, "b")
            write_log(folder, "gac", {"loss": [2.0, 1.0], "flow": [0.5, 0.25]})
    write_run(root, "w4a4", "adaround", status="failed", error=f"out of memory {HOSTILE}")
    write_run(root, "w4a4", "brecq", status="running")
    (write_run(root, "w4a8", "brecq") / "metrics.json").write_text("{")
    (folder / "logs" / "gac" / "metrics.csv").write_text("gac/loss,step\nsoon,1\n")
    return write_report([root], title=f"Sweep {HOSTILE}")


def data(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    return json.loads(found[1])


def test_files_and_where_they_go(report, tmp_path):
    assert report.name == "index.html" and report.parent.name == "report"
    assert {path.name for path in report.parent.iterdir()} == {
        *("index.html", "results.csv", "results.md", "errors.png")
    }
    elsewhere = write_report([report.parent.parent], out=tmp_path / "new" / "place")
    assert elsewhere == tmp_path / "new" / "place" / "index.html"
    assert "<h1>sweep</h1>" in elsewhere.read_text(encoding="utf-8")


def test_page_is_one_file_and_names_nothing_outside(report):
    text = report.read_text(encoding="utf-8")
    assert text.count("<script>") == 3 and text.count("</script>") == 4 and text.count("<style>") == 1
    without_plotly = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", without_plotly)
    assert "http" not in re.sub(r"http-equiv", "", without_plotly)
    assert report.stat().st_size < 6_000_000


def test_page_names_what_went_wrong(report):
    text = unescape(report.read_text(encoding="utf-8"))
    assert "1 job failed" in text and f"out of memory {HOSTILE}" in text
    assert "bits=w4a8,method=brecq,seed=0/metrics.json" in text and "logs/gac/metrics.csv" in text
    assert "11 runs: 8 finished, 1 failed, 1 not finished, 1 not readable" in text
    assert HOSTILE not in report.read_text(encoding="utf-8")


def test_every_command_is_there_to_copy(report):
    text = unescape(report.read_text(encoding="utf-8"))
    for bits, method in ERRORS:
        for seed in (0, 1):
            assert f"<code>ptq4vm quantize bits={bits} method={method} seed={seed}</code>" in text


def test_figures_get_the_numbers(report):
    found = data(report)
    points = {(point["bits"], point["label"]): point for point in found["scatter"]["points"]}
    assert points["W4A4", "qdrop"]["mean"]["mad"] == pytest.approx(9.05) and points["W4A4", "qdrop"]["n"] == 2
    assert points["W4A4", "qdrop"]["megabytes"] == 2.0 and points["W8A8", "rtn"]["seconds"] == pytest.approx(30.5)
    assert found["scatter"]["lines"] == [{"label": "FP32", "metrics": found["scatter"]["lines"][0]["metrics"]}]
    assert found["heat"]["layers"] == ["conv1", "conv2", "skipped"]
    assert found["heat"]["bits"][0] == [None] * 4 and found["heat"]["mixed"] == [False] * 4, "older runs say nothing"
    assert found["heat"]["values"][2] == [None] * 4 and found["heat"]["columns"][0] == "W8A8 qdrop"
    curve = next(item for item in found["curves"] if item["run"] == "W4A4 · qdrop · seed 0")
    assert curve["series"]["qdrop/aspp"] == [[0, 1, 2], [3.0, 2.0, 1.0]]
    assert {frame["clip"] for frame in found["frames"]} == {"set/a", "b"} and len(found["frames"]) == 16


def test_nothing_but_failures_still_makes_a_page(tmp_path):
    write_run(tmp_path, status="failed", error="no data")
    text = write_report([tmp_path]).read_text(encoding="utf-8")
    assert "No quantized run has finished." in text and "no data" in text and 'id="tradeoffs"' not in text


def test_no_path_is_an_error():
    with pytest.raises(ConfigError, match="at least one folder"):
        write_report([])


class Opened(NamedTuple):
    """A page in a browser, with what it asked for and complained about."""

    page: Any
    strangers: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def look(browser: Any, path: Path, width: int, scheme: str = "light") -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    strangers: list[str] = []
    complaints: list[str] = []

    def decide(route: Any) -> None:
        if route.request.url.split(":")[0] in ("file", "data", "blob"):
            route.continue_()
        else:
            strangers.append(route.request.url)
            route.abort()

    page.route("**/*", decide)
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector("#heat-plot .main-svg")
    return Opened(page, strangers, complaints)


def methods(page: Any) -> list[str]:
    rows = page.locator("table.sortable").first.locator("tbody:last-child tr")
    return [" ".join(row.split()[:2]) for row in rows.all_inner_texts()]


def test_sorting_by_mouse_and_by_keyboard(browser, report):
    opened = look(browser, report, 1280)
    page, table = opened.page, opened.page.locator("table.sortable").first
    assert methods(page) == ["qdrop W8A8", "rtn W8A8", "qdrop W4A4", "rtn W4A4"]
    assert table.locator("tbody.pinned tr").inner_text().startswith("Float network")
    heading = table.get_by_role("columnheader", name="MAD")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending" and methods(page)[0] == "qdrop W8A8"
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert methods(page) == ["rtn W4A4", "qdrop W4A4", "rtn W8A8", "qdrop W8A8"]
    table.get_by_role("columnheader", name="Method").get_by_role("button").click()
    assert [name.split()[0] for name in methods(page)] == ["qdrop", "qdrop", "rtn", "rtn"]
    assert heading.get_attribute("aria-sort") == "none"
    assert table.locator("tbody.pinned tr").count() == 1 and page.locator("#said").inner_text() == (
        "Sorted by Method, ascending"
    )
    best = table.locator("tr td:nth-child(4).best strong").all_inner_texts()
    assert sorted(best) == ["4.30 ± 0.07", "9.05 ± 0.07"]
    assert opened.strangers == [] and opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_fits_and_asks_nobody(browser, report, width, scheme):
    opened = look(browser, report, width, scheme)
    page = opened.page
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for figure in ("size-plot", "seconds-plot", "curve-plot"):
        assert page.locator(f"#{figure} .main-svg").count() >= 1
    for name in ("#tradeoff-metric", "#stage-metric"):
        page.select_option(name, "dtssd")
    page.select_option("#tradeoff-bits", "W4A4")
    page.select_option("#curve-run", "*")
    page.select_option("#curve-series", "aspp")
    assert page.locator("#curve-plot .scatterlayer .trace").count() == 9  # the broken run has logs
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.strangers == [] and opened.complaints == []


def test_alphas_slide(browser, report):
    opened = look(browser, report, 400)
    page = opened.page
    tiles = page.locator("#alpha-tiles figure")
    assert tiles.count() == 2, "the fewest bits and one seed are shown first"
    page.select_option("#alpha-bits", "")
    page.select_option("#alpha-seed", "")
    assert tiles.count() == 8
    ranges = page.locator("#alpha-tiles input[type=range]")
    ranges.first.fill("20")
    assert {item.input_value() for item in ranges.all()} == {"20"}
    page.locator("#alpha-together").uncheck()
    ranges.first.press("ArrowRight")
    assert [ranges.nth(i).input_value() for i in (0, 1)] == ["21", "20"]
    place = page.locator("#alpha-tiles .compare").first
    assert place.evaluate("e => e.style.getPropertyValue('--at')") == "21%"
    page.select_option("#alpha-left", "truth")
    assert "Truth" in place.inner_text()
    page.select_option("#alpha-clip", "b")
    assert page.locator("#alpha-tiles figure.wide img").count() == 8
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert opened.strangers == [] and opened.complaints == []


def test_command_is_copied_and_a_row_leads_to_its_run(browser, report):
    opened = look(browser, report, 1280)
    page = opened.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("table.sortable a").first.click()
    run = page.locator("details.run").first
    assert run.get_attribute("open") is not None
    run.get_by_role("button", name="Copy").click()
    page.wait_for_timeout(200)
    command = "ptq4vm quantize bits=w8a8 method=qdrop seed=0"
    if run.locator(".copy").inner_text() == "Copied":
        assert page.evaluate("navigator.clipboard.readText()") == command
    else:
        assert page.evaluate("getSelection().toString()") == command
    assert opened.strangers == [] and opened.complaints == []


def test_a_stranger_would_be_noticed(browser, tmp_path, report):
    """The check itself: a page that asks for something outside is caught, by its own policy and by the test."""
    text = report.read_text(encoding="utf-8").replace("</main>", '<img src="https://example.org/x.png" alt=""></main>')
    page = tmp_path / "index.html"
    page.write_text(text, encoding="utf-8")
    opened = look(browser, page, 1280)
    assert opened.strangers or opened.complaints
