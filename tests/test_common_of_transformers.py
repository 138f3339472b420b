"""The common tests that transformers has for all of its models, from the source distribution of the installed release.

    pip download --no-binary :all: --no-deps transformers==X.Y.Z && tar xzf transformers-X.Y.Z.tar.gz
    TRANSFORMERS_SDIST=transformers-X.Y.Z python -m pytest tests/test_common_of_transformers.py

docs/common_tests.md says which cannot apply, and why.
"""

import importlib.util
import os
import re
import sys
import types
import unittest
from pathlib import Path

import pytest
import transformers

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from tests.tiny_backbones import make_texts, make_videos, tiny_backbone_config


SDIST = Path(os.environ.get("TRANSFORMERS_SDIST", "not given"))
HAS_SDIST = (SDIST / "tests" / "test_modeling_common.py").is_file()
FOUND = HAS_SDIST and importlib.util.find_spec("parameterized") is not None


STATES = "asks for hidden states, which DKDCLIPModel refuses in one sentence"
TENSORS = "wants an output object, where ours are tensors (B, T, D) and (K, D), what the head takes"
CANNOT_APPLY = {
    "test_batching_equivalence": STATES + "; tests/test_dkd_head.py has it for the head",
    "test_can_capture_specific_layers_hidden_states": STATES,
    "test_capture_outputs_decorator": STATES,
    "test_hidden_states_output": STATES,
    "test_model_outputs_equivalence": STATES + "; tests/test_modeling_dkd.py compares tuples with outputs",
    "test_retain_grad_hidden_states_attentions": STATES,
    "test_get_text_features_attentions": TENSORS,
    "test_get_text_features_hidden_states": TENSORS,
    "test_get_text_features_output": TENSORS,
    "test_get_video_features_attentions": TENSORS,
    "test_get_video_features_hidden_states": TENSORS,
    "test_get_video_features_output": TENSORS,
    "test_keep_in_fp32_modules": "compares names where ours is a regular expression, for SigLIP has a head too",
    "test_keep_in_fp32_modules_exist": "compares names where ours is a regular expression",
    "test_model_weights_reload_no_missing_tied_weights": "loads a file without any weights, which is refused",
    "test_resize_tokens_embeddings": "reads vocab_size from the outer configuration, where it is the backbone's; "
    "tests/test_model_in_transformers.py resizes those of every backbone",
}


class Nothing:
    """In place of the common tests where they are not there."""


def common_mixin():
    """ModelTesterMixin of the distribution; its folders for exporters and generation are not in it."""
    assert f"Version: {transformers.__version__}\n" in (SDIST / "PKG-INFO").read_text(encoding="utf-8")
    package = types.ModuleType("transformers_tests")
    package.__path__ = [str(SDIST / "tests")]
    sys.modules["transformers_tests"] = package
    for name, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        folder, _, _ = name.partition(".")
        sys.modules[f"transformers_tests.{folder}"] = types.ModuleType(folder)
        module = sys.modules[f"transformers_tests.{name}"] = types.ModuleType(name)
        setattr(module, mixin, type(mixin, (), {}))
    return importlib.import_module("transformers_tests.test_modeling_common").ModelTesterMixin


class TinyModel:
    """What the common tests ask of the tester of a model."""

    is_training = False
    batch_size = 3

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return DKDCLIPConfig(backbone_config=tiny_backbone_config("clip"))

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": make_videos(3, 2), "input_ids": make_texts(4)}


def test_what_cannot_apply_is_documented():
    document = (Path(__file__).parents[1] / "docs/common_tests.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", document, re.MULTILINE))
    assert rows == CANNOT_APPLY


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not FOUND, reason="needs TRANSFORMERS_SDIST and parameterized")
class TestModel(common_mixin() if FOUND else Nothing, unittest.TestCase):
    all_model_classes = (DKDCLIPModel,)
    has_attentions = False

    def setUp(self):
        name = re.sub(r"_\d+$", "", self._testMethodName)
        if name in CANNOT_APPLY:
            self.skipTest(CANNOT_APPLY[name])
        self.model_tester = TinyModel(self)
