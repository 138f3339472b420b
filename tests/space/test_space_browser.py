"""The Space in a real browser (Debian's chromium), as a visitor uses it."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest

from modeling_dkd.synthetic.clips import DOMAINS, describe_clips, render_clip, write_clip


pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECONDS = 300
# Where pictures of the page go to be looked at; nowhere unless asked.
SCREENSHOTS = os.environ.get("DKD_SCREENSHOTS")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """Address of a Space that was exported to a folder and runs there, and where it keeps uploads."""
    folder = tmp_path_factory.mktemp("space")
    uploads = tmp_path_factory.mktemp("temporary")
    export = [sys.executable, "-m", "modeling_dkd", "space", "--export", str(folder / "space")]
    subprocess.run(export, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(uploads), "OMP_NUM_THREADS": "1"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    log = folder / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder / "space", env=environment, stdout=output, stderr=output
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/", server, log)
        yield f"http://127.0.0.1:{port}/", uploads
    finally:
        server.terminate()
        server.wait(SECONDS)
    assert not list(uploads.glob("dkd-space-*")), "the Space left files behind when it ended"


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until the page answers."""
    end = time.monotonic() + 900
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}; install Debian's package chromium to run the browser tests")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    """The page as it has just been opened; nothing may go wrong on it and nothing may be fetched from elsewhere."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(SECONDS * 1000)
    foreign: list[str] = []
    errors: list[str] = []
    host = urlparse(address[0]).netloc
    opened.on(
        "request",
        lambda request: (
            foreign.append(request.url)
            if urlparse(request.url).scheme in ("http", "https", "ws", "wss") and urlparse(request.url).netloc != host
            else None
        ),
    )
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(address[0])
    opened.locator("#classify").wait_for()
    yield opened
    context.close()
    assert not foreign
    assert not errors


@pytest.fixture
def clip_files(tmp_path) -> list[Path]:
    """Clips of the default target, the first with a name to be escaped."""
    domain = DOMAINS["combined"]
    files = []
    for index, description in enumerate(describe_clips(domain, 12, 3)):
        path = tmp_path / (f"clip &{index}.mp4" if index == 0 else f"clip_{index}.mp4")
        write_clip(path, render_clip(domain, description))
        files.append(path)
    return files


def screenshot(page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def shares(page, kind: str) -> list[float]:
    """Percentages of one column."""
    return [float(text.removesuffix("%")) for text in page.locator(f"#result td.{kind} .share").all_inner_texts()]


def upload(page, elem_id: str, files: list[Path]) -> None:
    page.locator(f"#{elem_id} input[type=file]").set_input_files([str(path) for path in files])


def uploaded_files(folder: Path) -> list[Path]:
    """Files that visitors have sent and that are still there."""
    return [path for path in folder.rglob("uploads/**/*.mp4") if path.stat().st_size]


def test_a_visitor_uploads_a_clip_and_gives_a_domain(page, address, clip_files):
    page.locator("#labels textarea").fill(
        "moving left\nturning\ngrowing\n<img src=x onerror=alert(1)> ${1+1} {{value}}"
    )
    upload(page, "clip-upload", clip_files[:1])
    page.locator("#result table").wait_for()
    assert page.locator("#frames img").count() == 8
    assert "clip &0.mp4" in page.locator("#frames").inner_text()
    assert "No domain is known" in page.locator("#result").inner_text()
    # What was typed is text, neither markup nor a template.
    labels = page.locator("#result th.label").all_inner_texts()
    assert "<img src=x onerror=alert(1)> ${1+1} {{value}}" in labels
    assert page.locator("#result img").count() == 0
    before = shares(page, "zero-shot")
    assert len(before) == 4
    assert abs(sum(before) - 100) < 0.3
    assert shares(page, "known") == before
    assert not uploaded_files(address[1])
    screenshot(page, "uploaded")

    upload(page, "domain-upload", clip_files[1:])
    page.get_by_text("11 clips of your domain were looked at.").wait_for()
    page.get_by_text("Domain: your 11 clips").wait_for()
    assert shares(page, "known") != shares(page, "zero-shot")
    assert sorted(shares(page, "zero-shot")) == sorted(before)
    assert re.search(r"strength 0\.\d\d", page.locator("#result").inner_text())
    assert page.locator("#result td.moved").count() == 4
    assert not uploaded_files(address[1])

    page.locator("#forget-domain").click()
    page.get_by_text("No domain is known").wait_for()


def test_examples_show_what_a_domain_changes(page):
    page.locator("#examples button.gallery-item, #examples .thumbnail-item").first.click()
    page.locator("#result table").wait_for()
    plain = shares(page, "known")
    page.locator("#example-domain").click()
    page.get_by_text("Domain: your 60 clips").wait_for()
    assert shares(page, "known") != plain
    screenshot(page, "examples")
    page.locator("#labels textarea").fill("moving left, growing")
    page.locator("#classify").click()
    page.wait_for_function("document.querySelectorAll('#result td.known').length == 2")


def test_what_cannot_be_read_is_told_in_one_sentence(page, address, clip_files, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    upload(page, "clip-upload", [broken])
    alert = page.locator("#result [role=alert]")
    page.locator("#frames [role=alert]").wait_for()
    text = page.locator("#frames [role=alert]").inner_text()
    assert text.startswith("cannot read video 'broken.mp4'")
    assert str(address[1]) not in text
    page.locator("#result").get_by_text("Choose a clip first").wait_for()
    assert alert.count() == 0
    screenshot(page, "broken")
    # The domain keeps what can be read.
    upload(page, "domain-upload", [broken, *clip_files[1:4]])
    page.get_by_text("3 clips of your domain were looked at. Left out: cannot read video").wait_for()
    assert not uploaded_files(address[1])
    page.locator("#labels textarea").fill(" ")
    upload(page, "clip-upload", clip_files[1:2])
    page.locator("#result [role=alert]").get_by_text("at least one label").wait_for()


def test_visitors_do_not_see_each_others_domain(page, browser, address):
    page.locator("#example-domain").click()
    page.get_by_text("60 clips of your domain were looked at.").wait_for()
    context = browser.new_context()
    try:
        other = context.new_page()
        other.set_default_timeout(SECONDS * 1000)
        other.goto(address[0])
        other.locator("#examples button.gallery-item, #examples .thumbnail-item").first.click()
        other.get_by_text("No domain is known").wait_for()
    finally:
        context.close()


def test_the_page_fits_a_telephone(browser, address):
    context = browser.new_context(viewport={"width": 375, "height": 740}, is_mobile=True, has_touch=True)
    try:
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address[0])
        page.locator("#examples button.gallery-item, #examples .thumbnail-item").first.click()
        page.locator("#result table").wait_for()
        page.locator("#example-domain").click()
        page.get_by_text("Domain: your 60 clips").wait_for()
        screenshot(page, "telephone")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        for selector in ("#result table", "#frames", "#classify", "#clip-upload"):
            box = page.locator(selector).bounding_box()
            assert box["x"] >= 0, selector
            assert box["x"] + box["width"] <= 375, selector
    finally:
        context.close()


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def downloaded(page, name: str, file: str, folder: Path) -> str:
    """Text of a file to keep."""
    with page.expect_download() as download:
        page.locator(f"#{name}-files").get_by_role("link").and_(page.locator(f"[download='{file}']")).click()
    download.value.save_as(folder / file)
    return (folder / file).read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_kept_files(address) -> None:
    """What an earlier test left, because it failed, is no matter of the next."""
    for path in kept_files(address[1]):
        path.unlink()


def kept_files(folder: Path) -> list[Path]:
    """Files of several clips that are kept for further questions."""
    return [path for path in folder.glob("dkd-space-*/clips/**/*") if path.is_file()]


def test_several_clips_are_recognised_with_a_report(page, address, clip_files, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"this is no video" * 100)
    open_tab(page, "Recognise")
    page.locator("#recognise").click()
    page.locator("#recognise-result").get_by_text("drop clips first").wait_for()
    upload(page, "recognise-upload", [*clip_files, tmp_path / "broken.mp4"])
    page.get_by_text("13 clips:").wait_for()
    assert not uploaded_files(address[1])
    page.locator("#recognise").click()
    rows = page.locator("#recognise-result tbody tr")
    page.locator("#recognise-result table").wait_for()
    assert rows.count() == 13
    assert any(text.startswith("clip &0.mp4") for text in rows.all_inner_texts())
    assert re.search(r"broken\.mp4\s+\S", page.locator("#recognise-result tr:has(.error)").inner_text())
    assert "fitted to these 12 clips" in page.locator("#recognise-result").inner_text()
    assert str(address[1]) not in page.locator("#recognise-result").inner_text()
    screenshot(page, "several")
    report = downloaded(page, "recognise", "report.html", tmp_path)
    assert report.count("data:image/jpeg") >= 12
    assert str(address[1]) not in report
    table = downloaded(page, "recognise", "predictions.csv", tmp_path)
    assert len(table.splitlines()) == 14
    # Other classes of the same clips.
    page.locator("#recognise-labels textarea").fill("moving left\n<img src=x onerror=alert(1)> ${1+1}")
    page.locator("#recognise").click()
    page.locator("#recognise-result").get_by_text("<img src=x onerror=alert(1)> ${1+1}").first.wait_for()
    assert page.locator("#recognise-result img").count() == 0
    assert any(path.name == "clip_1.mp4" for path in kept_files(address[1]))
    page.locator("#recognise-remove").click()
    page.locator("#recognise-clips").get_by_text("No clips yet").wait_for()
    assert not kept_files(address[1])


def test_a_video_gets_a_timeline_that_plays(page, address, tmp_path):
    open_tab(page, "Timeline")
    page.locator("#timeline-examples").click()
    page.locator("#timeline-clips").get_by_text("1 clip: long video.mp4").wait_for()
    page.locator("#timeline").click()
    player = page.frame_locator("#timeline-result iframe")
    player.locator("#list tr").first.wait_for()
    assert player.locator("#bar i").count() == player.locator("#list tr").count() > 1
    player.locator("#list tr button").nth(1).click()
    assert player.locator("#said").inner_text()
    assert player.locator("video").evaluate("video => video.error") is None
    page.wait_for_timeout(500)
    screenshot(page, "timeline")
    assert downloaded(page, "timeline", "long video.vtt", tmp_path).startswith("WEBVTT")
    assert 'src="long%20video.mp4"' in downloaded(page, "timeline", "long video.html", tmp_path)
    page.locator("#timeline-remove").click()
    page.locator("#timeline-clips").get_by_text("No clips yet").wait_for()
    assert not kept_files(address[1])


def test_clips_are_found_by_a_text(page, address, clip_files):
    open_tab(page, "Search")
    upload(page, "search-upload", clip_files)
    page.get_by_text("12 clips:").wait_for()
    page.locator("#search").click()
    page.locator("#search-result figure").first.wait_for()
    captions = page.locator("#search-result figcaption").all_inner_texts()
    assert len(captions) == 12
    scores = [float(caption.split()[0]) for caption in captions]
    assert scores == sorted(scores, reverse=True)
    screenshot(page, "search")
    page.locator("#search-labels textarea").fill("")
    page.locator("#search-text input, #search-text textarea").first.fill("growing <b>")
    page.locator("#search").click()
    page.wait_for_function(
        "before => document.querySelector('#search-result figcaption')?.innerText !== before", arg=captions[0]
    )
    page.locator("#search-remove").click()
    page.locator("#search-clips").get_by_text("No clips yet").wait_for()
    assert not kept_files(address[1])


def test_all_tabs_fit_a_telephone(browser, address):
    context = browser.new_context(viewport={"width": 375, "height": 740}, is_mobile=True, has_touch=True)
    try:
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(address[0])
        for tab, name, shown in (
            ("Recognise", "recognise", "table"),
            ("Timeline", "timeline", "iframe"),
            ("Search", "search", "figure"),
        ):
            open_tab(page, tab)  # none is hidden in a menu
            page.locator(f"#{name}-examples").click()
            page.locator(f"#{name}-clips").get_by_text(re.compile("^(1 clip|60 clips): ")).wait_for()
            page.locator(f"#{name}").click()
            page.locator(f"#{name}-result {shown}").first.wait_for()
            page.locator(f"#{name}-result {shown}").first.scroll_into_view_if_needed()
            if shown == "iframe":
                player = page.frame_locator(f"#{name}-result iframe")
                player.locator("#list tr button").first.wait_for()
                assert player.locator("body").evaluate("body => body.scrollWidth <= innerWidth")
            screenshot(page, f"telephone-{name}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
            box = page.locator(f"#{name}-result {shown}").first.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 375, name
            page.locator(f"#{name}-remove").click()
            page.locator(f"#{name}-clips").get_by_text("No clips yet").wait_for()
    finally:
        context.close()
