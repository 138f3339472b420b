import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from modeling_dkd.cli import main
from modeling_dkd.recognition.predictions import Prediction, Recognition
from modeling_dkd.recognition.report import MAX_GALLERY, PER_LIST, summarise, write_report

from .colour_clips import write_clip, write_clips


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"
CHROMIUM = Path("/usr/bin/chromium")


def prediction(number, label="red", zero_shot="red", confidence=0.9, known=None, **others):
    return Prediction(
        f"clips/{number}.mp4",
        label=label,
        guess=label or "red",
        confidence=confidence,
        known=known,
        zero_shot_label=zero_shot,
        zero_shot_confidence=0.5,
        **others,
    )


def recognition(predictions, class_names=("red", "green", "blue"), **others):
    return Recognition(list(predictions), list(class_names), "an encoder", None, "none", **{"doubts": [], **others})


class Page(HTMLParser):
    """What a browser makes of a page: texts, tags, addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def page(folder, found, command="dkd recognise clips"):
    return Page(write_report(folder, found, command).read_text(encoding="utf-8"))


def test_predictions_are_sorted_into_what_is_worth_a_look():
    found = [prediction(n, "red", confidence=0.5 + n / 100) for n in range(10)]
    found += [prediction(10 + n, "green", "blue", confidence=0.3 + n / 100) for n in range(3)]
    found += [prediction(20, None, known=0.2), prediction(21, None, known=0.1)]
    found += [Prediction("clips/bad.mp4", error="the file is empty")]
    report = summarise(recognition(found))
    assert [(c.name, c.count) for c in report.classes] == [("red", 10), ("green", 3)]
    assert [round(c.share, 2) for c in report.classes] == [1.0, 0.3]
    assert report.absent == ["blue"]
    assert [p.clip for p in report.changed] == [f"clips/{n}.mp4" for n in (12, 11, 10)]
    assert [p.clip for p in report.unsure[:3]] == [f"clips/{n}.mp4" for n in (10, 11, 12)]
    assert [p.known for p in report.rejected] == [0.1, 0.2]
    assert report.classes[0].confidence == pytest.approx(0.545)
    assert dict(report.rejected_below) == {n / 10: (0 if n == 1 else 1 if n == 2 else 2) for n in range(1, 10)}


def test_thousands_of_clips_and_classes_stay_one_page(tmp_path):
    names = [f"class {k}" for k in range(200)]
    found = [prediction(n, names[n % 200], names[(n * 7) % 200], confidence=(n % 97) / 97) for n in range(5000)]
    seen = page(tmp_path, recognition(found, names))
    assert seen.tags.count("li") <= max(MAX_GALLERY, 3 * 200) + 3 * PER_LIST + 4


def test_the_page_tells_all_of_it_and_fetches_nothing(tmp_path):
    found = [prediction(n, "red", known=0.75) for n in range(4)] + [prediction(5, "green", "blue")]
    found += [prediction(6, None, known=0.125), Prediction("clips/bad.mp4", error="the file is empty")]
    found += [prediction(7, remark="3 of its 9 frames are missing or damaged")]
    seen = page(
        tmp_path, recognition(found, doubts=["this may be worth nothing; do that"]), "dkd recognise 'my clips'"
    )
    text = " ".join(" ".join(seen.texts).split())
    for told in (
        "an encoder",
        "3 classes asked",
        "this may be worth nothing; do that",
        "Without any clip: blue.",
        "Changed by the domain (1)",
        "Rejected (1)",
        "none (red)",
        "the file is empty",
        "3 of its 9 frames are missing or damaged",
        "dkd recognise 'my clips'",
        "known 75",
    ):
        assert told in text, told
    assert not [a for a in seen.addresses if re.match(r"(?i)(https?:)?//|javascript:", a)]
    assert "script" not in seen.tags


def test_names_are_text_whatever_they_hold(tmp_path):
    evil = "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}"
    plain = page(tmp_path / "a", recognition([prediction(1, "red", "green")]))
    found = replace(prediction(1, evil, f"{evil}2"), clip=f"{evil}.mp4", path=f"/clips/{evil}.mp4", remark=evil)
    predictions = [found, Prediction(evil, error=evil)]
    doubted = recognition(predictions, [evil, f"{evil}2", "green"], doubts=[evil])
    doubted = replace(doubted, encoder=evil, described=evil)
    seen = page(tmp_path / "b", doubted, evil)
    assert seen.tags.count("img") == 2  # the thumbnail, grey here, in two places
    assert not [a for a in seen.addresses if a == "x"]
    assert sum(evil in text for text in seen.texts) >= 8
    assert "49" not in " ".join(seen.texts)
    assert set(seen.tags) <= {*plain.tags, "img", "a", "p", "table", "thead", "tbody", "tr", "td", "th"}


def test_a_command_makes_it_with_thumbnails_that_lead_to_the_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKD_CACHE", str(tmp_path / "cache"))
    write_clips(Path("clips"), 6)
    write_clip(Path("clips/odd #1?&ü%.avi"), "red", 9)
    arguments = ["recognise", "clips", "--classes", "red,green,blue", "--model", OWN, "--num-workers", "0"]
    assert main([*arguments, "--report", "out/report"]) == 0
    seen = Page(Path("out/report/index.html").read_text(encoding="utf-8"))
    assert "dkd " + " ".join(["recognise", "clips"]) in " ".join(seen.texts)
    images = [address for address in seen.addresses if address.startswith("data:image/jpeg;base64,")]
    assert len(images) >= 7
    assert max(map(len, images)) < 15_000
    linked = [address for address in seen.addresses if not address.startswith(("data:", "#"))]
    assert {Path("out/report", unquote(address)).resolve() for address in linked} == {
        path.resolve() for path in Path("clips").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser_nothing_overflows_and_all_pictures_show(tmp_path, width):
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}; install Debian's package chromium to run the browser tests")
    from playwright.sync_api import sync_playwright

    write_clips(tmp_path / "clips", 12)
    long = "a" * 300 + ".mp4"
    paths = sorted((tmp_path / "clips").iterdir())
    found = [replace(prediction(n, "red", "green"), path=str(path)) for n, path in enumerate(paths)]
    found += [prediction(99, "b" * 120, known=0.5), Prediction(long, error=long)]
    file = write_report(tmp_path / "report", recognition(found, ["red", "green", "b" * 120]), long)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": width, "height": 900})
        requests: list[str] = []
        opened.on("request", lambda request: requests.append(request.url))
        opened.goto(file.as_uri())
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        opened.evaluate("for (const image of document.images) image.loading = 'eager'")
        opened.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert all(url.startswith(("file:", "data:")) for url in requests)
        browser.close()
