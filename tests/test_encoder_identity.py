import copy
import re

import pytest
import torch
from transformers.utils import logging

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel, DKDHead
from modeling_dkd.domain_file import DOMAIN_FILE
from modeling_dkd.encoder_identity import EncoderIdentity, fingerprint, known_name
from tests.test_domain_file import rewrite
from tests.tiny_checkpoint import save_tiny_clip
from tests.toy_domain import toy_domain


TOY = toy_domain(60, 4)
ONE = EncoderIdentity(24, "owner/clip", "a" * 40, "float32:1111")


def other(**changes):
    return EncoderIdentity(**{**vars(ONE), **changes})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    return [save_tiny_clip(root / f"clip-{seed}", seed) for seed in (0, 1)]


@pytest.fixture
def warned(monkeypatch):
    said = []
    monkeypatch.setattr(
        logging.get_logger("modeling_dkd.encoder_identity"), "warning", lambda *a: said.append(a[0] % a[1:])
    )
    return said


@pytest.mark.parametrize(
    "model",
    [
        other(name="mirror/clip", revision="b" * 40),  # equal weights under another name
        other(weights=None),
        other(weights="bfloat16:2222"),  # rounded: not comparable
        other(name="", revision=None, weights=None),
        other(name="folder", revision=None),
    ],
)
def test_the_same_encoder_or_one_of_which_nothing_is_known_is_silent(model, warned):
    ONE.check_model(model, "the domain")
    assert not warned


@pytest.mark.parametrize(
    "model",
    [
        other(projection_dim=32),
        other(name="owner/siglip", weights=None),
        other(name="owner/siglip", weights="float32:2222"),
        other(weights="float32:2222"),  # of this name and revision, but trained further
        other(name="folder", revision=None, weights="float32:2222"),
    ],
)
def test_another_encoder_is_an_error_that_names_both(model, warned):
    one, two = re.escape(str(ONE)), re.escape(str(model))
    with pytest.raises(
        ValueError, match=f"^the domain belongs to the encoder {one}, but this model's encoder is {two};"
    ):
        ONE.check_model(model, "the domain")


def test_another_revision_is_a_warning(warned):
    ONE.check_model(other(revision="b" * 40, weights="float32:2222"), "the domain")
    assert len(warned) == 1
    assert "a" * 40 in warned[0]
    assert "b" * 40 in warned[0]


def test_other_preprocessing_is_a_warning(warned):
    known = other(preprocessing={"size": 224})
    known.check_model(other(preprocessing={"size": 224}), "the domain")
    known.check_model(other(), "the domain")
    assert not warned
    known.check_model(other(preprocessing={"size": 336}), "the domain")
    assert "prepared otherwise" in warned[0]


def test_a_fingerprint_sees_training_and_no_name(folders):
    models = [DKDCLIPModel.from_backbone(folder) for folder in (*folders, folders[0])]
    prints = [fingerprint(model.backbone) for model in models]
    assert prints[0] == prints[2] != prints[1]
    assert prints[0].startswith("float32:")
    assert fingerprint(copy.deepcopy(models[0].backbone).bfloat16()).startswith("bfloat16:")
    with torch.no_grad():
        models[2].backbone.visual_projection.weight += 1e-3
    assert fingerprint(models[2].backbone) != prints[0]
    with torch.device("meta"):
        assert fingerprint(torch.nn.Linear(2, 3)) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [("", ""), ("owner/clip", "owner/clip"), ("clip", "clip"), ("/home/me/clip", "clip"), ("a/b/clip", "clip")],
)
def test_a_folder_is_known_by_its_last_part_alone(name, known):
    assert known_name(name) == known


def test_a_model_refuses_the_domain_of_another_and_takes_its_own(folders, tmp_path, warned):
    one, another = (DKDCLIPModel.from_backbone(folder) for folder in folders)
    one.fit_domain(video_embeds=TOY.videos, text_embeds=TOY.texts, class_names=list("abcd"))
    one.head.save_pretrained(tmp_path)
    stored = DKDHead.from_pretrained(tmp_path).encoder
    assert stored == one.encoder_identity()
    assert (stored.name, stored.projection_dim) == ("clip-0", 24)
    with pytest.raises(ValueError, match=r"belongs to the encoder clip-0 .* this model's encoder is clip-1 "):
        another.load_domain(tmp_path)
    assert not another.head.is_fitted
    again = DKDCLIPModel.from_backbone(folders[0]).load_domain(tmp_path)
    assert again.head.encoder == stored
    assert again.head.class_names == list("abcd")
    again.save_pretrained(tmp_path / "model")
    loaded = DKDCLIPModel.from_pretrained(tmp_path / "model")
    assert loaded.head.encoder.weights == stored.weights
    assert loaded.head.class_names == list("abcd")
    assert not warned


def test_a_domain_of_which_no_encoder_is_known_is_loaded(folders, tmp_path, warned):
    head = DKDHead(DKDCLIPConfig(projection_dim=24)).fit(TOY.videos, TOY.texts)
    head.save_pretrained(tmp_path)
    assert DKDCLIPModel.from_backbone(folders[1]).load_domain(tmp_path).head.encoder is None
    assert not warned


@pytest.mark.parametrize("content", ["[]", "{}", '{"projection_dim": "x"}', '{"projection_dim": 24, "more": 1}', "3"])
def test_hostile_metadata_of_the_encoder_is_refused(tmp_path, content):
    DKDHead(DKDCLIPConfig(projection_dim=24)).fit(TOY.videos, TOY.texts).save_pretrained(tmp_path)
    rewrite(tmp_path, encoder=content)
    with pytest.raises(ValueError, match=rf"{DOMAIN_FILE} has an encoder with .*fit the domain again"):
        DKDHead.from_pretrained(tmp_path)
    rewrite(tmp_path, encoder="null", min_clips='"5"')
    with pytest.raises(ValueError, match="has min_clips that are no number"):
        DKDHead.from_pretrained(tmp_path)
