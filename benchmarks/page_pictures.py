"""Pictures of the pages that the commands write, and of the Space: synthetic clips, seen through chromium.

report.webp      the report of `dkd recognise` on the clips of the demo, its beginning
changed.webp     the same page where it shows which labels the domain changed
search.webp      the sheet of `dkd search` on the same clips
timeline.webp    the page of `dkd timeline` on a video of a minute
space.webp       the page of `dkd space` with its examples as the domain: the first of them that is read right
"""

import io
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from modeling_dkd.cli import main as dkd
from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.synthetic.clips import (
    DEFAULT_TARGET,
    FRAME_RATE,
    SIDE,
    describe_clips,
    domain_called,
    generate_clips,
    render_clip,
)
from modeling_dkd.synthetic.demo import CLIP_SEED, NUM_CLIPS, VIEWS, embed_target
from modeling_dkd.synthetic.demo_recognition import REPORT_FOLDER, SHEET_FILE, recognise_and_search


CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PICTURES = ("report", "changed", "search", "timeline", "space")
# Pixels of what is seen of each page, and how often larger the video of the timeline is than a clip.
SIZES = {"report": (1080, 865), "changed": (1080, 468), "search": (1280, 330), "timeline": (1000, 760)}
SIZES |= {"space": (1180, 1000)}
ENLARGED = 6
# What happens in the video: each for so many clips of two seconds.
STRETCHES = (("growing", 6), ("moving left", 5), ("circling", 5), ("moving up", 4), ("growing", 5), ("blinking", 5))
SECONDS = 120


def missing() -> str:
    """Why there can be no pictures of pages on this machine; "" where there can."""
    if find_spec("playwright") is None:
        return 'no playwright (pip install "modeling-dkd[test]")'
    return "" if CHROMIUM.is_file() else f"no {CHROMIUM} (Debian's package chromium)"


def write_page_pictures(output: Path) -> None:
    """Make the pages and write a picture of each into a folder."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        folder = Path(name)
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)

        def take(picture: str, address: str, prepare: Callable[[Any], None] = lambda page: None) -> None:
            width, height = SIZES[picture]
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.set_default_timeout(1000 * SECONDS)
            page.goto(address)
            prepare(page)
            with Image.open(io.BytesIO(page.screenshot())) as seen:
                seen.save(output / f"{picture}.webp", quality=75, method=6)
            page.close()

        make_pages(folder)
        report = (folder / REPORT_FOLDER / "index.html").as_uri()
        take("report", report)
        take("changed", report, _scroll_to_changed)
        take("search", (folder / SHEET_FILE).as_uri())
        take("timeline", next((folder / "timelines").glob("*.html")).as_uri(), _wait_for_video)
        with running_space(folder) as address:
            take("space", address, _use_examples)
        browser.close()


def make_pages(folder: Path) -> None:
    """The report, the sheet and the timeline, as the commands write them."""
    encoder = ClipEncoder.load(str(CHECKPOINT), VIEWS, None, torch.float32, torch.device("cpu"))
    clips = folder / "clips" / DEFAULT_TARGET
    with tqdm(total=NUM_CLIPS, unit="clip", disable=None) as bar:
        written = generate_clips(clips, DEFAULT_TARGET, NUM_CLIPS, CLIP_SEED)
        embedded = embed_target(encoder, DEFAULT_TARGET, written, bar)
    recognise_and_search(embedded, clips, folder)
    write_video(folder / "monday.mp4")
    actions = ",".join(dict.fromkeys(action for action, _ in STRETCHES))
    arguments = ["--classes", actions, "--window", "2", "--stride", "1", "--formats", "html", "--cache-dir", "cache"]
    with chdir(folder):  # the page names the video as it was given
        code = dkd(["timeline", "monday.mp4", *arguments])
    if code != 0:
        raise RuntimeError(f"dkd timeline ended with exit code {code}")


def write_video(path: Path) -> None:
    """A video that shows one action after the other, in a format that browsers play."""
    domain = domain_called(DEFAULT_TARGET)
    descriptions = describe_clips(domain, NUM_CLIPS, seed=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.height, stream.width, stream.pix_fmt = SIDE * ENLARGED, SIDE * ENLARGED, "yuv420p"
        for action, count in STRETCHES:
            for description in [d for d in descriptions if d.action == action][:count]:
                frames = render_clip(domain, description).repeat(ENLARGED, 1).repeat(ENLARGED, 2)
                for frame in np.ascontiguousarray(frames):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@contextmanager
def running_space(folder: Path) -> Iterator[str]:
    """Address of a Space that runs as long as it is needed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    command = [sys.executable, "-m", "modeling_dkd", "space"]
    log = folder / "space.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(2 * SECONDS):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None:
                    raise RuntimeError(f"the Space ended: {log.read_text()[-500:]}") from None
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(SECONDS)


def _scroll_to_changed(page: Any) -> None:
    """To the heading of what the domain changed."""
    page.get_by_role("heading", name="Changed by the domain").evaluate("heading => heading.scrollIntoView()")
    page.wait_for_timeout(300)


def _wait_for_video(page: Any) -> None:
    """Until a frame is there, in the middle of the third stretch."""
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    page.evaluate("document.querySelector('video').currentTime = 27")
    page.wait_for_function("!document.querySelector('video').seeking")
    page.wait_for_timeout(500)


def _use_examples(page: Any) -> None:
    """The first example clip that is read right with the examples as the domain; the last one where none is."""
    page.locator("#classify").wait_for()
    examples = page.locator("#examples button.gallery-item, #examples .thumbnail-item")
    examples.first.click()
    page.locator("#result table").wait_for()
    page.locator("#example-domain").click()
    page.get_by_text("Domain: your 60 clips").wait_for()
    for number, example in enumerate(examples.all()):
        if number:
            before = page.locator("#frames").inner_text()
            example.click()
            page.wait_for_function("text => document.querySelector('#frames').innerText != text", arg=before)
            page.wait_for_timeout(1500)  # the table comes after the frames
        likeliest = page.locator("#result th.label").nth(1)  # behind the heading of its column
        if likeliest.inner_text().strip() == example.inner_text().strip():
            break
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)
