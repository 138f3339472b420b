"""The common tests of transformers for all of its models and processors, from the source distribution of the release.

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
import unittest.mock
from pathlib import Path

import numpy as np
import pytest
import transformers

from modeling_dkd import DKDCLIPConfig, DKDCLIPImageProcessor, DKDCLIPModel, DKDCLIPProcessor
from tests.test_processing_dkd import make_tokenizer, random_video
from tests.tiny_backbones import make_texts, make_videos, tiny_backbone_config


SDIST = Path(os.environ.get("TRANSFORMERS_SDIST", "not given"))
HAS_SDIST = (SDIST / "tests" / "test_modeling_common.py").is_file()
FOUND = HAS_SDIST and importlib.util.find_spec("parameterized") is not None


STATES = "asks for hidden states, which DKDCLIPModel refuses in one sentence"
TENSORS = "wants an output object, where ours are tensors (B, T, D) and (K, D), what the head takes"
MODEL_CANNOT_APPLY = {
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
BOTH = "gives images and videos in one call, which is refused; the same of each alone is in this file"
PER_CALL = "wants no setting of the processor in a call, where num_frames may be given for one"
PROCESSOR_CANNOT_APPLY = {
    "test_call_arguments_not_in_attributes": PER_CALL,
    "test_call_arguments_not_in_processor_kwargs": PER_CALL + ", and the groups of options are named, so that "
    "a misspelt one is refused",
    "test_flat_kwarg_applied_when_modality_dict_lacks_it": BOTH,
    "test_init_arguments_not_in_processor_kwargs": PER_CALL,
    "test_model_input_names": BOTH,
    "test_processor_text_has_no_visual": "puts images into texts, where a dual encoder has each for itself",
    "test_subprocessor_defaults_1_images": "wants the image processor's (N, 3, H, W), where an image is a video of "
    "one frame, (N, 1, 3, H, W)",
    "test_subprocessor_defaults_preserved_by_kwargs_0_images": "pads as the tokenizer was made to, where the "
    "processor has text_padding and max_text_length",
}


class Nothing:
    """In place of the common tests where they are not there."""


def common_tests(name):
    """A module of the distribution's tests; what it imports of folders that are not in it is empty."""
    assert f"Version: {transformers.__version__}\n" in (SDIST / "PKG-INFO").read_text(encoding="utf-8")
    package = types.ModuleType("transformers_tests")
    package.__path__ = [str(SDIST / "tests")]
    sys.modules["transformers_tests"] = package
    for missing, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        folder, _, _ = missing.partition(".")
        sys.modules[f"transformers_tests.{folder}"] = types.ModuleType(folder)
        module = sys.modules[f"transformers_tests.{missing}"] = types.ModuleType(missing)
        setattr(module, mixin, type(mixin, (), {}))
    tool = sys.modules["fetch_hub_objects_for_ci"] = types.ModuleType("fetch_hub_objects_for_ci")
    tool.url_to_local_path = str
    return importlib.import_module(f"transformers_tests.{name}")


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


def skip_what_cannot_apply(test, reasons):
    """The copies of a test that differ in a number alone are one."""
    name = re.sub(r"_\d+$", "", test._testMethodName)
    if name in reasons:
        test.skipTest(reasons[name])


def test_what_cannot_apply_is_documented():
    document = (Path(__file__).parents[1] / "docs/common_tests.md").read_text(encoding="utf-8")
    models, processors = document.split("## Processor\n")
    for part, reasons in ((models, MODEL_CANNOT_APPLY), (processors, PROCESSOR_CANNOT_APPLY)):
        assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", part, re.MULTILINE)) == reasons


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not FOUND, reason="needs TRANSFORMERS_SDIST and parameterized")
class TestModel(common_tests("test_modeling_common").ModelTesterMixin if FOUND else Nothing, unittest.TestCase):
    all_model_classes = (DKDCLIPModel,)
    has_attentions = False

    def setUp(self):
        skip_what_cannot_apply(self, MODEL_CANNOT_APPLY)
        self.model_tester = TinyModel(self)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not FOUND, reason="needs TRANSFORMERS_SDIST and parameterized")
class TestProcessor(
    common_tests("test_processing_common").ProcessorTesterMixin if FOUND else Nothing, unittest.TestCase
):
    processor_class = DKDCLIPProcessor

    @classmethod
    def _setup_image_processor(cls):
        return DKDCLIPImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 28, "width": 26})

    @classmethod
    def _setup_tokenizer(cls):
        return make_tokenizer(max_length=200)

    @staticmethod
    def prepare_processor_dict():
        return {"num_frames": 3, "max_text_length": 150}

    def setUp(self):
        skip_what_cannot_apply(self, PROCESSOR_CANNOT_APPLY)
        # Saving its code too leaves auto_map in the processor that is saved, which the library drops when it loads.
        without_code = unittest.mock.patch.object(DKDCLIPProcessor, "_auto_class", None)
        without_code.start()
        self.addCleanup(without_code.stop)


def test_what_cannot_apply_is_there():
    if not FOUND:
        pytest.skip("needs TRANSFORMERS_SDIST and parameterized")
    for tests, reasons in ((TestModel, MODEL_CANNOT_APPLY), (TestProcessor, PROCESSOR_CANNOT_APPLY)):
        assert [name for name in reasons if not hasattr(tests, name) and not hasattr(tests, f"{name}_0")] == []


@pytest.fixture(scope="module")
def processor():
    return DKDCLIPProcessor(TestProcessor._setup_image_processor(), TestProcessor._setup_tokenizer())


@pytest.mark.parametrize("visual", [{"images": random_video()[0]}, {"videos": random_video()}])
def test_model_input_names_and_flat_options(processor, visual):
    inputs = processor(text="a", **visual, text_kwargs={}, return_tensors="np")
    assert inputs.keys() == set(processor.model_input_names)
    assert {type(value) for value in inputs.values()} == {np.ndarray}


def test_an_option_may_repeat_what_is_common(processor):
    inputs = processor(text="a", return_tensors="np", common_kwargs={"return_tensors": "np"})
    assert type(inputs["input_ids"]) is np.ndarray
    with pytest.raises(ValueError, match="return_tensors is given twice, once of them in common_kwargs"):
        processor(text="a", return_tensors="np", common_kwargs={"return_tensors": "pt"})
