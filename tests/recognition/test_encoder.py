import re
from pathlib import Path

import pytest
import torch

from modeling_dkd.embedding.own_encoder import MAX_SIDE
from modeling_dkd.recognition.encoder import load_encoder
from modeling_dkd.video_frames import VideoReadError

from .colour_clips import write_clip


OWN = Path(__file__).with_name("own_encoder.py")


@pytest.fixture
def encoder():
    return load_encoder(f"{OWN}:ColourEncoder")


def test_an_encoder_of_ones_own_embeds_clips_of_any_size_and_texts(encoder, tmp_path):
    assert (encoder.name, encoder.num_frames, encoder.dim, encoder.logit_scale) == ("colours", 3, 27, 20.0)
    files = [write_clip(tmp_path / "a.avi", "red"), write_clip(tmp_path / "b.avi", "blue", size=(48, 64))]
    clips = [encoder.reader(str(file))[0] for file in files]
    assert [clip.shape for clip in clips] == [(3, 3, 24, 32), (3, 3, 64, 48)]
    videos = encoder.embed_videos(clips)
    texts = encoder.embed_texts(encoder.prompts(["Red", "the_blue"]))
    assert (videos.shape, texts.shape, videos.dtype) == ((2, 3, 27), (2, 1, 27), torch.float32)
    output = encoder.new_head()(videos, texts)
    assert output.logits_per_video.argmax(1).tolist() == [0, 1]
    assert output.logits_per_video.abs().max() <= 20.001


def test_prompts_of_a_class_become_its_particles(encoder, tmp_path):
    templates = tmp_path / "templates.txt"
    templates.write_text("a {} thing\nsomething {}\n")
    assert encoder.prompts(["Red"], templates) == [["a Red thing", "something Red"]]
    assert encoder.embed_texts(encoder.prompts(["Red", "blue"], templates)).shape == (2, 2, 27)
    with pytest.raises(ValueError, match="not both"):
        encoder.prompts(["red"], templates, templates)


def test_large_frames_are_made_smaller(encoder, tmp_path):
    file = write_clip(tmp_path / "large.avi", "green", size=(1280, 720), frames=2)
    assert encoder.reader(str(file))[0].shape == (3, 3, MAX_SIDE, round(1280 * MAX_SIDE / 720))


def test_a_module_can_be_named_as_well_as_a_file():
    found = load_encoder("tests.recognition.own_encoder:ColourEncoder", num_frames=7)
    assert (found.name, found.num_frames) == ("colours", 7)


def test_lists_instead_of_tensors_will_do():
    assert load_encoder(f"{OWN}:Lists").embed_texts([["red"]]).shape == (1, 1, 27)


def test_the_key_follows_source_and_frames(tmp_path):
    copy = tmp_path / "mine.py"
    copy.write_text(OWN.read_text())
    first = load_encoder(f"{copy}:ColourEncoder").key
    assert first == load_encoder(f"{OWN}:ColourEncoder").key
    assert first != load_encoder(f"{OWN}:ColourEncoder", num_frames=4).key
    copy.write_text(OWN.read_text() + "\n# other weights\n")
    assert first != load_encoder(f"{copy}:ColourEncoder").key


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{own}:Colours", r"own_encoder.py has no callable 'Colours'; it has .*ColourEncoder"),
        ("{own}:not_callable", "no callable 'not_callable'"),
        ("{own}", r"add what to call in it, as in .*own_encoder.py:load"),
        ("nowhere.py:load", "there is no file nowhere.py"),
        ("no_such_module:load", r"import of no_such_module failed: ModuleNotFoundError"),
        ("not a module:load", "no folder, no FILE.py:NAME and no module:NAME"),
        ("{own}:Without", "has no embed_videos"),
        ("{own}:NoFrames", "num_frames of .* is 'eight'; it must be a whole number"),
        ("{own}:failing_load", r"failed: RuntimeError: weights are not here \(.*own_encoder.py, line \d+\)"),
        ("no/such/folder/at/all", "no model folder"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_sentence(spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(spec.format(own=OWN))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nan", "gave zeros, NaN or infinity for number 0 of clips"),
        ("WrongCount", r"gave \(1, 1, 27\) for 2 clips; it must be \(2, 27\) or \(2, P, 27\)"),
        ("Failing", r"IndexError: list index out of range \(.*own_encoder.py, line \d+\)"),
    ],
)
def test_what_it_gives_is_checked(name, message):
    with pytest.raises(ValueError, match=message):
        load_encoder(f"{OWN}:{name}").embed_videos([torch.zeros(3, 3, 8, 8, dtype=torch.uint8)] * 2)


def test_a_file_that_is_no_video_is_named(encoder, tmp_path):
    file = tmp_path / "text.mp4"
    file.write_text("no video")
    with pytest.raises(VideoReadError, match=re.escape(str(file))):
        encoder.reader(str(file))


def test_the_embedded_checkpoint_is_the_default_and_knows_its_prompts():
    found = load_encoder()
    assert found.logit_scale == pytest.approx(13.9, abs=0.05)  # the factor itself, as config.json has it
    assert (found.name, found.num_frames, found.dim) == ("dkd-tiny", 4, 64)
    assert len(found.prompts(["moving left"])[0]) == 4
    assert found.prompts(["moving left", "juggling"])[1] == ["a photo of a person doing juggling."]
    assert found.embed_texts(found.prompts(["moving left", "growing"])).shape == (2, 4, 64)
    assert not found.new_head().is_fitted
