import copy
import os
import signal

import numpy as np
import pytest
import torch

from modeling_dkd.embedding.clip_encoder import ClipEncoder
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.space.comparison import MAX_DOMAIN_CLIPS, Clip, ClipComparer, Comparison, parse_labels
from modeling_dkd.space.comparison_html import MAX_ROWS, clip_frames, comparison_table, escaped, note
from modeling_dkd.space.upload_decoding import UploadDecoder
from modeling_dkd.space.visitor_process import VisitorProcess
from modeling_dkd.synthetic.clips import ACTIONS, DOMAINS, describe_clips, render_clip, write_clip
from modeling_dkd.video_frames import VideoReadError


LABELS = ["moving left", "growing", "turning"]
TEMPLATE = "something {}"


@pytest.fixture
def encoder() -> ClipEncoder:
    return ClipEncoder.load(str(CHECKPOINT), "4x1x1", None, torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Frames of 16 clips, (16, T, H, W, 3)."""
    domain = DOMAINS["combined"]
    return torch.stack([torch.from_numpy(render_clip(domain, d)) for d in describe_clips(domain, 16, 4)])


@pytest.fixture
def embeds(encoder, frames) -> torch.Tensor:
    clips = [[clip.permute(0, 3, 1, 2)] for clip in frames]
    return encoder.embed(encoder.processor.image_processor.crop_videos(clips)).float()


def clip_of(embeds: torch.Tensor, name: str = "clip.mp4") -> Clip:
    thumbnails = np.zeros((len(embeds), 6, 8, 3), np.uint8)
    return Clip(name, embeds, thumbnails, np.arange(len(embeds), dtype=np.float64), "")


def own_scores(encoder, embeds) -> list[float]:
    """What the model itself says of one clip, with the head as it is."""
    texts = encoder.encode([TEMPLATE.format(label) for label in LABELS])
    return encoder.model.head(embeds[None], texts).logits_per_video[0].softmax(-1).tolist()


def test_without_a_domain_both_are_plain_zero_shot(encoder, embeds):
    result = ClipComparer(encoder, VisitorProcess()).compare(clip_of(embeds[0]), LABELS, TEMPLATE, None)
    assert result.zero_shot == pytest.approx(own_scores(encoder, embeds[0]), abs=1e-5)
    assert result.dkd == result.zero_shot
    assert (result.video_strength, result.text_strengths, result.domain) == (0.0, None, "")


def test_a_visitors_domain_moves_dkd_and_nothing_that_is_shared(encoder, embeds):
    comparer = ClipComparer(encoder, VisitorProcess())
    plain = comparer.compare(clip_of(embeds[0]), LABELS, TEMPLATE, None)
    moved = comparer.compare(clip_of(embeds[0]), LABELS, TEMPLATE, embeds[1:])
    assert moved.zero_shot == plain.zero_shot
    assert np.abs(np.subtract(moved.dkd, plain.dkd)).max() > 1e-3
    assert 0 < moved.video_strength < 1
    assert len(moved.text_strengths) == 3
    assert moved.domain == "your 15 clips"
    assert not encoder.model.head.is_fitted
    assert encoder.model.config.num_components == 0
    assert comparer.compare(clip_of(embeds[0]), LABELS, TEMPLATE, None) == plain


def test_a_checkpoint_with_a_domain_of_its_own_uses_it(encoder, embeds):
    plain = own_scores(encoder, embeds[0])
    texts = encoder.encode([TEMPLATE.format(action) for action in ACTIONS])
    encoder.model.head.fit(embeds[1:], texts)
    before = copy.deepcopy(encoder.model.head.state_dict())
    result = ClipComparer(encoder, VisitorProcess()).compare(clip_of(embeds[0]), LABELS, TEMPLATE, None)
    assert result.zero_shot == pytest.approx(plain, abs=1e-5)
    assert result.dkd == pytest.approx(own_scores(encoder, embeds[0]), abs=1e-5)
    assert result.domain == f"the checkpoint's own, {len(ACTIONS)} classes"
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.head.state_dict().items())


@pytest.mark.parametrize("template", ["a video", "{} and {}", "{}" + "x" * 300])
def test_a_prompt_without_one_place_for_the_label_is_refused(encoder, embeds, template):
    with pytest.raises(ValueError, match="the prompt must hold"):
        ClipComparer(encoder, VisitorProcess()).compare(clip_of(embeds[0]), LABELS, template, None)


def test_labels_come_from_lines_or_commas():
    assert parse_labels("walk\n run fast \n\nwalk\nsit, then stand") == ["walk", "run fast", "sit, then stand"]
    assert parse_labels("walk, run,") == ["walk", "run"]
    assert parse_labels("walk\n") == ["walk"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n,", "at least one label"),
        ("\n".join(map(str, range(51))), "51 labels, and at most 50"),
        ("x" * 201, "201 characters, and at most 200"),
    ],
)
def test_bad_labels_are_told(text, message):
    with pytest.raises(ValueError, match=message):
        parse_labels(text)


def test_what_a_visitor_typed_is_text():
    evil = "<script>alert(1)</script> ${1+1} {{value}} `x` \"'&"
    pages = [
        comparison_table(Comparison([evil, "b"], [0.25, 0.75], [0.9, 0.1], 0.3, [0.5, 0.2], "your 3 clips")),
        clip_frames(clip_of(torch.zeros(2, 4), evil)),
        note(evil, is_error=True),
    ]
    for page in pages:
        assert escaped(evil) in page
        assert not {"<script", "${", "{{", "`x"} & {page[at : at + size] for size in (2, 7) for at in range(len(page))}


def test_the_table_shows_the_likeliest_first_and_says_what_it_leaves_out():
    shares = [0.5, *[0.5 / (MAX_ROWS + 3)] * (MAX_ROWS + 3)]
    labels = [f"label {index}" for index in range(len(shares))]
    table = comparison_table(Comparison(labels, shares, shares[::-1], 0.25, None, "your 3 clips"))
    assert table.count("<tr>") == MAX_ROWS + 1
    assert "4 less likely labels are not shown" in table
    assert table.index(labels[-1]) < table.index(labels[0])
    assert "strength 0.25" in table
    assert "text moved" not in table


def test_a_file_that_is_too_large_is_not_opened(encoder, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(3000))
    decoder = UploadDecoder(encoder.processor.image_processor, 4, VisitorProcess(), max_bytes=2999)
    with pytest.raises(VideoReadError, match=r"'large\.mp4'.*at most"):
        decoder(tmp_path / "large.mp4")


@pytest.mark.slow
def test_files_are_decoded_in_a_process_that_can_be_given_up(encoder, frames, tmp_path):
    for index in range(3):
        write_clip(tmp_path / f"{index}.mp4", frames[index].numpy())
    (tmp_path / "broken.mp4").write_bytes(b"nothing to see")
    process = VisitorProcess()
    comparer = ClipComparer(encoder, process)
    try:

        class PathOfGradio(str):
            """What the worker would have to import before it could read it."""

        clip = comparer.open_clip(PathOfGradio(tmp_path / "0.mp4"))
        expected = encoder.embed(encoder.reader(str(tmp_path / "0.mp4"))[0][None])[0]
        torch.testing.assert_close(clip.embeds, expected)
        assert clip.thumbnails.shape == (4, 64, 64, 3)
        assert clip.times.tolist() == sorted(clip.times.tolist())
        # A worker that does not go on.
        os.kill(process._process.pid, signal.SIGSTOP)
        comparer.decoder.max_seconds = 0.5
        with pytest.raises(VideoReadError, match=r"'0\.mp4': no result after 0.5 seconds"):
            comparer.open_clip(tmp_path / "0.mp4")
        comparer.decoder.max_seconds = 60.0
        # A worker that crashed is replaced.
        comparer.open_clip(tmp_path / "1.mp4")
        process._process.kill()
        process._process.join()
        comparer.open_clip(tmp_path / "1.mp4")
        domain, left_out = comparer.open_domain([tmp_path / f"{name}.mp4" for name in (0, "broken", 1, 2)])
        assert domain.shape == (3, *clip.embeds.shape)
        assert len(left_out) == 1
        assert left_out[0].startswith("cannot read video 'broken.mp4'")
        assert str(tmp_path) not in left_out[0]
        assert comparer.open_domain([tmp_path / "broken.mp4"])[0] is None
        many = [tmp_path / "absent.mp4"] * (MAX_DOMAIN_CLIPS + 5)
        assert comparer.open_domain(many)[1][-1].startswith("5 clips")
    finally:
        process.close()
