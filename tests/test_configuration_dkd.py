import importlib.util
import json
import math

import pytest
from transformers import AlignConfig, AutoConfig, CLIPConfig, PreTrainedConfig

from modeling_dkd import DKDCLIPConfig, configuration_dkd
from tests.tiny_backbones import BACKBONE_KINDS, PROJECTION_DIM, SIGLIP_DIM, tiny_backbone_config


def test_without_arguments_it_has_the_values_of_clip():
    config = DKDCLIPConfig()
    assert (config.projection_dim, config.logit_scale, config.logit_bias) == (512, 100.0, 0.0)
    assert config.num_components == 0
    assert config.backbone_config is None


@pytest.mark.parametrize("kind", BACKBONE_KINDS)
def test_what_is_not_given_comes_from_the_backbone(kind):
    backbone_config = tiny_backbone_config(kind)
    config = DKDCLIPConfig(backbone_config=backbone_config)
    assert config.projection_dim == (SIGLIP_DIM if kind.startswith("siglip") else PROJECTION_DIM)
    initial = getattr(backbone_config, "logit_scale_init_value", None)
    assert config.logit_scale == (100.0 if initial is None else math.exp(initial))


def test_a_temperature_is_the_inverse_of_a_scale():
    backbone_config = AlignConfig(projection_dim=40, temperature_init_value=0.25)
    config = DKDCLIPConfig(backbone_config=backbone_config)
    assert (config.projection_dim, config.logit_scale) == (40, 4.0)


def test_what_is_given_wins():
    config = DKDCLIPConfig(backbone_config=tiny_backbone_config("clip"), logit_scale=7, logit_bias=-3)
    assert (config.logit_scale, config.logit_bias) == (7.0, -3.0)
    assert isinstance(config.logit_scale, float)


@pytest.mark.parametrize("kind", BACKBONE_KINDS)
def test_the_backbone_may_be_given_as_a_dict(kind):
    backbone_config = tiny_backbone_config(kind)
    as_object = DKDCLIPConfig(backbone_config=backbone_config)
    as_dict = DKDCLIPConfig(backbone_config=backbone_config.to_dict())
    assert type(as_dict.backbone_config) is type(backbone_config)
    assert as_dict.to_dict() == as_object.to_dict()


@pytest.mark.parametrize("kind", BACKBONE_KINDS)
def test_saving_and_loading_gives_the_same_configuration(kind, tmp_path):
    config = DKDCLIPConfig(backbone_config=tiny_backbone_config(kind), logit_scale=3.7, logit_bias=-1.25)
    config.num_components = 5
    config.id2label = {0: "walk", 1: "run", 2: "jump"}
    config.label2id = {"walk": 0, "run": 1, "jump": 2}
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, DKDCLIPConfig)
    assert loaded.backbone_config.to_dict() == config.backbone_config.to_dict()
    assert (loaded.logit_scale, loaded.logit_bias, loaded.num_components) == (3.7, -1.25, 5)
    assert loaded.id2label == config.id2label
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["auto_map"]["AutoConfig"] == "configuration_dkd.DKDCLIPConfig"
    assert stored["backbone_config"]["model_type"] == tiny_backbone_config(kind).model_type


def test_the_given_backbone_configuration_is_copied_and_left_alone():
    backbone_config = CLIPConfig(attn_implementation="eager")
    before = backbone_config.to_dict()
    config = DKDCLIPConfig(backbone_config=backbone_config)
    config.backbone_config.vision_config.hidden_size = 1
    assert backbone_config.to_dict() == before
    assert backbone_config._attn_implementation == "eager"
    assert config.backbone_config.text_config._attn_implementation == "eager"


def test_the_attention_implementation_reaches_the_encoders():
    config = DKDCLIPConfig(backbone_config=CLIPConfig(), attn_implementation="eager")
    assert config.backbone_config.vision_config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection_dim": 0}, "projection_dim is 0, but must be an integer >= 1"),
        ({"projection_dim": "512"}, "projection_dim is '512', but must be an integer >= 1"),
        ({"projection_dim": True}, "projection_dim is True, but must be an integer >= 1"),
        ({"logit_scale": 0.0}, "logit_scale is 0.0, but must be a finite number > 0"),
        ({"logit_scale": math.inf}, "logit_scale is inf, but must be a finite number > 0"),
        ({"logit_bias": math.nan}, "logit_bias is nan, but must be a finite number"),
        ({"num_components": -1}, "num_components is -1, but must be an integer >= 0"),
        ({"num_components": 2.5}, "num_components is 2.5, but must be an integer >= 0"),
        ({"backbone_config": "clip"}, "backbone_config must be a dict or a PreTrainedConfig, not str"),
        ({"backbone_config": {"hidden_size": 3}}, "backbone_config has model_type None, which transformers"),
        ({"backbone_config": {"model_type": "klip"}}, "backbone_config has model_type 'klip', which transformers"),
        (
            {"backbone_config": CLIPConfig(projection_dim=24), "projection_dim": 32},
            "projection_dim is 32, but the backbone's embeddings have 24 dimensions; leave projection_dim out",
        ),
    ],
)
def test_bad_values_are_told_in_one_sentence(options, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")) as caught:
        DKDCLIPConfig(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["4.57.3", "5.13.0", "6.0.0", "6.1.0"])
def test_an_untested_transformers_is_refused_with_the_remedy(version, monkeypatch):
    monkeypatch.setattr("transformers.__version__", version)
    spec = importlib.util.spec_from_file_location("modeling_dkd.configuration_elsewhere", configuration_dkd.__file__)
    with pytest.raises(ImportError, match=rf"but {version} is installed; run: pip install"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("version", ["5.13.1", "5.23.0", "5.99.0"])
def test_a_tested_transformers_is_accepted(version, monkeypatch):
    monkeypatch.setattr("transformers.__version__", version)
    spec = importlib.util.spec_from_file_location("modeling_dkd.configuration_elsewhere", configuration_dkd.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module.DKDCLIPConfig, PreTrainedConfig)


def test_the_number_of_frames_belongs_to_the_processor():
    with pytest.raises(ValueError, match="give it to DKDCLIPProcessor"):
        DKDCLIPConfig(num_frames=8)
    assert not hasattr(DKDCLIPConfig(), "num_frames")
    assert "num_frames" not in DKDCLIPConfig().to_dict()
