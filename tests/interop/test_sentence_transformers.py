"""A checkpoint in sentence-transformers, as its user loads it."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT, copy_code
from modeling_dkd.video_frames import read_frames

from ..training.conftest import write_clip


sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
TEXTS = ["a video of a red square moving left", "a video of a blue disc", "nothing"]


MISSING = ["missing.mp4", "MISSING.AVI", "a folder/missing.png", "x.mkv", "card.m2ts", "old.divx"]
MISSING += ["videos/scan.heic", r"videos\clip.xyz"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    paths = [str(folder / f"{name}.avi") for name in ("one", "two")]
    for path, colour in zip(paths, ((200, 40, 40), (40, 40, 200)), strict=True):
        write_clip(folder / path, colour, 3)
    return paths


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A checkpoint with a domain."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = DKDCLIPModel.from_pretrained(CHECKPOINT), DKDCLIPProcessor.from_pretrained(CHECKPOINT)
    texts = model.get_text_features(**processor(text=TEXTS)).detach()
    generator = torch.Generator().manual_seed(0)
    videos = torch.randn(60, texts.shape[1], generator=generator) + 3
    model.fit_domain(video_embeds=videos, text_embeds=texts)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    copy_code(folder)
    return folder


@pytest.fixture(scope="module", params=["plain", "fitted"])
def loaded(request, fitted):
    folder = fitted if request.param == "fitted" else CHECKPOINT
    copy_code(CHECKPOINT)
    embedder = sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    return embedder, DKDCLIPModel.from_pretrained(folder), DKDCLIPProcessor.from_pretrained(folder)


def test_cosines_are_those_of_the_model(loaded, clips):
    embedder, model, processor = loaded
    assert set(embedder.modalities) == {"text", "image", "video"}
    assert embedder.get_embedding_dimension() == model.config.projection_dim
    assert type(embedder[0]).__module__.startswith("transformers_modules.")
    videos, texts = embedder.encode(clips), embedder.encode(TEXTS)
    assert np.allclose(np.linalg.norm(videos, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        output = model(**processor(videos=clips, text=TEXTS))
    cosines = (output.logits_per_video - model.head.logit_bias) / model.head.logit_scale
    torch.testing.assert_close(embedder.similarity(videos, texts), cosines, atol=1e-4, rtol=0)


def test_videos_come_as_paths_frames_and_dicts_and_images_too(loaded, clips, tmp_path):
    embedder, _, processor = loaded
    frames = read_frames(clips[0], processor.num_frames).pixels
    by_path = embedder.encode(clips[:1])
    for form in (frames, frames.numpy(), {"video": clips[0]}, {"video": frames}):
        np.testing.assert_allclose(embedder.encode([form]), by_path, atol=1e-5)
    picture = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    picture.save(tmp_path / "frame.png")
    for form in (picture, str(tmp_path / "frame.png"), {"image": picture}):
        embeds = embedder.encode([form])
        assert embeds.shape == by_path.shape
        np.testing.assert_allclose(embeds, embedder.encode([picture]), atol=1e-5)


@pytest.mark.parametrize("name", MISSING)
def test_a_file_that_is_missing_is_never_embedded_as_text(loaded, name):
    embedder = loaded[0]
    with pytest.raises(ValueError, match="there is no file"):
        embedder.encode([name])
    with pytest.raises(ValueError, match="there is no file"):
        embedder.encode(["a text", name])
    as_text = embedder.encode([{"text": name}])  # what is meant as one
    assert as_text.shape == (1, embedder.get_embedding_dimension())


@pytest.mark.parametrize("text", ["moving up/down.", "either/or", "a video of 2.5 cars", "e.g. rowing", "x.y"])
def test_texts_with_dots_and_slashes_are_texts(loaded, text):
    embedder = loaded[0]
    np.testing.assert_array_equal(embedder.encode([text]), embedder.encode([{"text": text}]))


def test_what_cannot_be_embedded_is_refused(loaded, clips, tmp_path):
    embedder = loaded[0]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot read video"):
        embedder.encode([str(broken)])
    with pytest.raises(ValueError, match=r"in calls of their own|modalit"):
        embedder.encode([clips[0], "a text"])
    with pytest.raises(ValueError, match=r".+"):
        embedder.encode([np.zeros(7)])


def test_a_prompt_is_put_before_texts(loaded):
    embedder = loaded[0]
    np.testing.assert_allclose(
        embedder.encode(["disc"], prompt="a video of a "), embedder.encode(["a video of a disc"]), atol=1e-6
    )


def test_what_is_saved_is_loaded_again(loaded, clips, tmp_path):
    embedder = loaded[0]
    embedder.save_pretrained(str(tmp_path / "saved"))
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(again.encode(clips), embedder.encode(clips), atol=1e-6)
    np.testing.assert_allclose(again.encode(TEXTS), embedder.encode(TEXTS), atol=1e-6)


def test_without_trust_it_is_refused():
    with pytest.raises(Exception, match=r"(?i)trust|custom code|remote"):
        sentence_transformers.SentenceTransformer(str(CHECKPOINT), device="cpu")
