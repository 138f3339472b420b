"""Encoders named in other ways than a folder or repository, for every command."""

import re
from pathlib import Path

import pytest
import torch

from modeling_dkd.embedding.encoder_sources import load_source
from modeling_dkd.embedding.own_encoder import OwnEncoder
from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.recognition.encoder import load_encoder
from tests.recognition.colour_clips import write_clip
from tests.test_processing_dkd import random_video, save_stock_checkpoint
from tests.tiny_backbones import tiny_backbone


OWN = Path(__file__).parents[1] / "recognition/own_encoder.py"


def source_of(name, views=None):
    return load_source(name, views, None, torch.float32, torch.device("cpu"))


def test_several_clips_of_a_video_are_several_particles(tmp_path):
    file = str(write_clip(tmp_path / "a.avi", "red", frames=12))
    source = source_of(f"{OWN}:ColourEncoder", "3x1x2")
    frames, remark = source.reader(file)
    assert (len(frames), remark) == (6, "")
    embeds = source.embed_clips([frames, frames])
    single = source_of(f"{OWN}:ColourEncoder")
    assert embeds.shape == (2, 6, 27)  # three of each view
    expected = torch.cat([single.embed_clips([part])[0] for part in frames.split(3)])
    torch.testing.assert_close(embeds[1], expected)
    assert source.key() != single.key()
    with pytest.raises(ValueError, match="crops frames itself: give views 3x1x1, not 3x3x1"):
        source_of(f"{OWN}:ColourEncoder", "3x3x1")


@pytest.fixture
def clips(tmp_path):
    for part in ("train", "test"):
        for colour in ("red", "green", "blue"):
            (tmp_path / "clips" / part / colour).mkdir(parents=True)
            for index in range(3):
                write_clip(tmp_path / "clips" / part / colour / f"{index}.avi", colour, index + 3 * (part == "test"))
    return tmp_path / "clips"


def test_evaluate_takes_an_encoder_of_ones_own(clips, tmp_path, capsys):
    arguments = ["--model", f"{OWN}:ColourEncoder", "--dataset", "folder", "--data_dir", str(clips)]
    arguments += ["--cache_dir", str(tmp_path / "cache"), "--output", str(tmp_path / "results.json")]
    arguments += ["--num_workers", "0"]
    assert not evaluate(arguments)
    folders = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(folders) == 1
    assert re.fullmatch(r"colours-3x1x1-[0-9a-f]{12}", folders[0])
    assert "18 clips embedded, 0 known" in capsys.readouterr().err
    assert not evaluate(arguments)
    assert "0 clips embedded, 18 known" in capsys.readouterr().err


def test_sentence_transformers_frames_and_texts_are_its_own(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    save_stock_checkpoint(tmp_path / "clip")
    backbone = tiny_backbone("clip")
    backbone.save_pretrained(tmp_path / "clip")
    encoder = load_encoder(f"sentence_transformers:{tmp_path / 'clip'}", num_frames=3)
    assert (encoder.name, encoder.num_frames, encoder.dim) == ("clip", 3, 24)
    assert encoder.logit_scale == pytest.approx(backbone.logit_scale.exp().item())
    frames = torch.from_numpy(random_video(3, 40, 40)).permute(0, 3, 1, 2)
    video = encoder.embed_videos([frames])
    text = encoder.embed_texts([["swim"], ["run"]])
    assert (video.shape, text.shape) == ((1, 3, 24), (2, 1, 24))
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "clip"), device="cpu")
    torch.testing.assert_close(text[:, 0], model.encode(["swim", "run"], convert_to_tensor=True), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(video[0, 0], video[0, 1], atol=1e-3)
    assert isinstance(source_of(f"sentence_transformers:{tmp_path / 'clip'}"), OwnEncoder)


def test_sentence_transformers_that_are_none_are_refused(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ValueError, match="cannot load the model sentence_transformers:"):
        source_of(f"sentence_transformers:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="sentence_transformers: names no model; give a CLIP model"):
        source_of("sentence_transformers:")


def test_two_encoders_of_one_file_are_kept_apart_though_they_have_one_name(tmp_path):
    file = tmp_path / "two.py"
    file.write_text(f"import sys\nsys.path.append({str(OWN.parent)!r})\nfrom own_encoder import ColourEncoder\n")
    file.write_text(file.read_text() + "class Other(ColourEncoder):\n    pass\n")
    first, second = (source_of(f"{file}:{name}") for name in ("ColourEncoder", "Other"))
    assert first.name == second.name
    assert first.key() != second.key()
    assert first.revision != second.revision
