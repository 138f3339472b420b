"""The page of a timeline in a real browser (Debian's chromium), by mouse, touch and keyboard."""

import os
from pathlib import Path

import numpy as np
import pytest

from modeling_dkd.recognition.segments import Segment
from modeling_dkd.recognition.timeline_player import player_page
from modeling_dkd.recognition.timelines import Timeline

from .long_colour_video import write_long_video


pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")
# Where pictures of the page go to be looked at; nowhere unless asked.
SCREENSHOTS = os.environ.get("DKD_SCREENSHOTS")
SEGMENTS = [
    Segment(0, 8, "red", 0.9),
    Segment(8, 20, "<b>green</b>", 0.8),
    Segment(20, 26, None, 0.7),
    Segment(26, 36, "red", 0.6),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page, beside a video that Chromium plays."""
    folder = tmp_path_factory.mktemp("page")
    stretches = [("red", 8), ("green", 12), ("blue", 6), ("red", 10)]
    video = write_long_video(folder / "a video #1.mp4", stretches, "libx264")
    names = ("red", "<b>green</b>")
    found = Timeline(
        video.name, str(video), SEGMENTS, np.array([0.0]), np.array([36.0]), [None], ["red"], names, 4.0, 2.0, 3.0
    )
    (folder / "page.html").write_text(player_page(found, folder), encoding="utf-8")
    return (folder / "page.html").as_uri()


@pytest.fixture(params=[{"width": 1000, "height": 800}, {"width": 360, "height": 700}], ids=["desktop", "phone"])
def page(browser, address, request):
    context = browser.new_context(viewport=request.param, has_touch=True)
    page = context.new_page()
    mistakes = []
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.goto(address)
    page.wait_for_function("video.readyState >= 1 && video.duration > 35")
    yield page
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/timeline_{request.param['width']}.png", full_page=True)
    context.close()
    assert mistakes == []


def said(page) -> str:
    return page.locator("#said").inner_text()


def time_of(page) -> float:
    return page.evaluate("video.currentTime")


def test_keys_go_from_segment_to_segment(page):
    assert said(page) == "red (90 %)"
    page.locator("#bar").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("Math.abs(video.currentTime - 8) < 0.05")
    assert said(page) == "<b>green</b> (80 %)"
    page.keyboard.press("ArrowRight")
    assert said(page) == "none of the classes"
    page.keyboard.press("ArrowLeft")
    assert said(page) == "<b>green</b> (80 %)"
    page.keyboard.press("End")
    assert said(page) == "red (60 %)"
    page.keyboard.press("Home")
    assert page.locator("#bar").get_attribute("aria-valuenow") == "0.0"
    assert page.locator("#bar").get_attribute("aria-valuetext") == "0:00, red"
    page.keyboard.press("Space")
    page.wait_for_function("video.currentTime > 0.2")
    assert not page.evaluate("video.paused")


def test_a_touch_on_the_bar_or_a_name_goes_there(page):
    box = page.locator("#bar").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.4, box["y"] + box["height"] / 2)
    page.wait_for_function("Math.abs(video.currentTime - 14.4) < 0.5")
    assert said(page) == "<b>green</b> (80 %)"
    chip = page.locator("#legend button", has_text="red")
    chip.tap()
    page.wait_for_function("Math.abs(video.currentTime - 26) < 0.05")
    assert chip.get_attribute("aria-pressed") == "true"
    assert page.locator("#bar i.on").count() == 2
    page.locator("#list button").nth(1).tap()
    page.wait_for_function("Math.abs(video.currentTime - 8) < 0.05")


def test_all_fits_and_can_be_hit(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    sizes = page.evaluate("[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)")
    assert min(sizes) >= 44
    widths = page.evaluate("[...document.querySelectorAll('#bar i')].map(i => i.getBoundingClientRect().width)")
    total = page.evaluate("bar.getBoundingClientRect().width")
    assert widths == pytest.approx([total * (s.end - s.start) / 36 for s in SEGMENTS], abs=1)


def test_a_video_that_no_browser_plays_leaves_the_timeline(browser, tmp_path):
    video = tmp_path / "film.avi"
    video.write_bytes(b"no video")
    found = Timeline(
        video.name, str(video), SEGMENTS, np.array([0.0]), np.array([36.0]), [None], ["red"], ("red",), 4.0, 2.0, 3.0
    )
    (tmp_path / "page.html").write_text(player_page(found, tmp_path), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("#unplayable").wait_for(state="visible")
    assert page.locator("#video").is_hidden()
    page.locator("#bar").focus()
    page.keyboard.press("ArrowRight")
    assert said(page) == "<b>green</b> (80 %)"
    page.close()
