"""The common tests that transformers has for all of its models, from the source distribution of the installed release.

    pip download --no-binary :all: --no-deps transformers==X.Y.Z && tar xzf transformers-X.Y.Z.tar.gz
    TRANSFORMERS_SDIST=transformers-X.Y.Z python -m pytest tests/test_common_of_transformers.py

docs/common_tests.md says which cannot apply, and why.
"""

import importlib.util
import os
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
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not FOUND, reason="needs TRANSFORMERS_SDIST and parameterized"),
]


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


class TestModel(common_mixin() if FOUND else object, unittest.TestCase):
    all_model_classes = (DKDCLIPModel,)
    has_attentions = False

    def setUp(self):
        self.model_tester = TinyModel(self)
