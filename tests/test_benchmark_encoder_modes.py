"""The benchmark of layouts and compilation, with a tiny convolutional encoder in place of those that it measures."""

import pytest
import torch
from torch.nn.functional import normalize

from benchmarks import encoder_modes
from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from tests.tiny_backbones import make_videos, tiny_backbone


@pytest.fixture
def tiny(monkeypatch):
    """ALIGN, whose image encoder is an EfficientNet."""
    backbone = tiny_backbone("align")
    model = DKDCLIPModel(DKDCLIPConfig(backbone_config=backbone.config), backbone).eval()
    monkeypatch.setattr(encoder_modes, "CLIPS", {"tiny": 3})
    monkeypatch.setattr(encoder_modes, "new_model", lambda name: model)
    monkeypatch.setattr(encoder_modes, "frames_of_clips", lambda count: make_videos(count))
    return model


def test_every_mode_is_beside_eager_and_has_its_embeddings(tiny, monkeypatch):
    compiler, compiled = torch.compile, []

    def without_code(function, **how):
        compiled.append(how)
        return compiler(function, **how, backend="eager")

    monkeypatch.setattr(torch, "compile", without_code)
    monkeypatch.setattr(encoder_modes, "has_cpp_compiler", lambda: True)
    rows = encoder_modes.one_encoder("tiny")
    modes = ("channels last", "compiled", "compiled, channels last")
    assert [row.what for row in rows] == [f"tiny, 3 clips x 8 frames, {mode}" for mode in modes]
    assert {(row.other, row.unit, row.rounds) for row in rows} == {("eager", "clips/s", 3)}
    assert all(row.ours > 0 and row.ratio.lowest > 0 for row in rows)
    assert all("same top-1 on 3 of 3 clips" in row.note for row in rows)
    assert ["first batch" in row.note for row in rows] == [False, True, False]
    assert compiled == [{"fullgraph": True}] * 2


def test_without_a_compiler_the_rows_say_so(tiny, monkeypatch):
    monkeypatch.setattr(encoder_modes, "has_cpp_compiler", lambda: False)
    last, *compiled = encoder_modes.one_encoder("tiny")
    assert last.ratio is not None
    assert [(row.ours, row.ratio, row.note) for row in compiled] == [(None, None, "no C++ compiler")] * 2


def test_batch_statistics_keep_activations_from_fading(tiny):
    clips = make_videos(4)
    with torch.no_grad():
        before = tiny.get_video_features(clips).std()
        encoder_modes.settle(tiny, clips)
        assert not tiny.training
        assert not any(module.training for module in tiny.modules())
        assert tiny.get_video_features(clips).std() > 10 * before


def test_embeddings_that_differ_are_told():
    expected = torch.eye(8)[:4, None]
    assert encoder_modes.agreement(expected, expected).startswith("largest difference of unit embeddings 0.0, same")
    other = expected.clone()
    other[0] = normalize(torch.ones(1, 8), dim=-1)
    assert "same top-1 on 3 of 4 clips" in encoder_modes.agreement(other, expected)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(encoder_modes, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'open_clip is not installed; run: pip install "modeling-dkd\[open_clip\]"'):
        encoder_modes.measure()
