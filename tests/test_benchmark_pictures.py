"""The pictures show what they are given, and those that are committed are what README promises."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import av
import pytest
import torch
from PIL import Image, ImageColor

from benchmarks import page_pictures, pictures
from modeling_dkd.dkd_head import DKDHeadOutput
from modeling_dkd.synthetic.clips import ACTIONS, DEFAULT_TARGET, generate_clips
from modeling_dkd.video_frames import read_frames


PICTURES = Path(__file__).resolve().parents[1] / "docs/pictures"
LABELS = torch.tensor([0, 0, 1, 1, 2])


def output_of(guesses, confidence=0.9, num_classes=3):
    """Logits of so confident guesses, and random embeddings."""
    shares = torch.full((len(guesses), num_classes), (1 - confidence) / (num_classes - 1))
    shares[range(len(guesses)), guesses] = confidence
    videos, texts = torch.randn(len(guesses), 7), torch.randn(num_classes, 7)
    return DKDHeadOutput(shares.log(), videos, texts)


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_domain_figure_tells_accuracies_and_is_blind_to_what_changes_no_label():
    before = output_of([0, 1, 1, 0, 2])
    after = DKDHeadOutput(output_of([0, 0, 1, 0, 2]).logits_per_video, before.video_embeds, 3 * before.text_embeds + 5)
    figure = pictures.domain_figure((before, after), LABELS, ["a", "b", "c"])
    assert titles(figure) == [
        "zero-shot: 60.0 % of 5 clips recognised",
        "with the domain: 80.0 % of 5 clips recognised",
    ]
    old, new = (torch.tensor(axes.collections[1].get_offsets()) for axes in figure.axes)
    assert old.shape == (3, 2)
    torch.testing.assert_close(old, new, atol=1e-4, rtol=0)


def test_reliability_figure_draws_the_share_of_right_clips():
    figure = pictures.reliability_figure((output_of([0, 0, 1, 1, 0], 0.7), output_of([0, 0, 1, 1, 2], 0.9)), LABELS)
    assert titles(figure) == ["zero-shot: calibration error 10.0", "with the domain: calibration error 10.0"]
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[pytest.approx(0.8)], [5], [1.0], [5]]


def test_confusions_are_counted_by_true_class():
    counts = pictures.confusions(output_of([0, 1, 1, 0, 2]), LABELS, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.slow
def test_the_video_of_the_timeline_shows_each_action_for_so_many_clips(tmp_path):
    page_pictures.write_video(tmp_path / "a.mp4")
    seconds = 2 * sum(count for _, count in page_pictures.STRETCHES)
    read = read_frames(str(tmp_path / "a.mp4"), 4)
    assert read.pixels.shape[2:] == (384, 384)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.duration / av.time_base) == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize("name", page_pictures.PICTURES)
def test_pictures_of_pages_are_of_the_size_that_is_seen(name):
    with Image.open(PICTURES / f"{name}.webp") as picture:
        assert picture.size == page_pictures.SIZES[name]
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20  # something is on it


@pytest.mark.parametrize(("guess", "colour"), [(1, pictures.BETTER), (0, pictures.WRONG)])
def test_demo_frames_colour_the_first_bar_by_whether_it_is_right(guess, colour, tmp_path):
    ((path, _),) = generate_clips(tmp_path, DEFAULT_TARGET, 1, 0)
    output = output_of([guess], num_classes=len(ACTIONS))
    frames = pictures.demo_frames([path], (output, output), [1], (0.5, 0.75))
    assert len(frames) == pictures.FRAMES
    first_bar = frames[0].getpixel((pictures.CLIP_SIDE + 46, 115))
    assert first_bar == ImageColor.getrgb(colour)
    clip = [frame.crop((16, 38, 224, 246)).tobytes() for frame in frames]
    assert len(set(clip)) > 8  # it moves


def test_without_features_the_demo_is_drawn_all_the_same(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(pictures, "write_demo", drawn.append)
    monkeypatch.setattr(page_pictures, "CHROMIUM", tmp_path / "gone")
    assert pictures.main(["--features", str(tmp_path / "gone"), "--output", str(tmp_path / "pictures")]) == 0
    assert drawn == [tmp_path / "pictures/demo.webp"]
    said = capsys.readouterr().err
    assert "confusions.webp stay as they are; say where with --features" in said
    assert f"no {tmp_path / 'gone'} (Debian's package chromium): pictures of the pages stay as they are" in said


def test_the_moving_picture_moves_and_is_light():
    path = PICTURES / "demo.webp"
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as picture:
        assert picture.n_frames == pictures.NUM_SHOWN * pictures.FRAMES
        assert picture.size == pictures.SIZE


def test_the_diagram_has_a_colour_in_light_and_in_dark_for_everything_drawn():
    text = (PICTURES / "method.svg").read_text()
    used = {name for part in ET.fromstring(text).iter() for name in part.get("class", "").split()} - {"strong"}
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for style in (light, dark.split("</style>")[0]):
        assert used <= set(re.findall(r"\.([a-z]+) \{[^}]*(?:fill|stroke): #", style))
