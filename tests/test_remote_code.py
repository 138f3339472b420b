"""A saved folder carries its own code: it loads in a process that knows nothing of this package."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import modeling_dkd
from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from tests.test_processing_dkd import random_video, save_stock_checkpoint
from tests.tiny_backbones import BACKBONE_KINDS, make_model, make_texts, make_videos, tiny_backbone


SHIPPED = {"configuration_dkd.py", "modeling_dkd.py", "dkd_head.py", "dual_encoder.py"}

# The installed package must not be found: neither through sys.path nor through the finder of an editable install.
HIDE_PACKAGE = """
import importlib.util, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path = [entry for entry in sys.path if entry not in {entries!r}]
assert importlib.util.find_spec("modeling_dkd") is None, "the package is still there"
"""

LOAD_AND_RUN = """
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

inputs = load_file("{root}/inputs.safetensors")
for folder in Path("{root}/saved").iterdir():
    model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    assert type(AutoConfig.from_pretrained(folder, trust_remote_code=True)) is type(model.config)
    with torch.no_grad():
        output = model(**inputs)
    save_file({{name: value.contiguous() for name, value in output.items()}}, "{root}/" + folder.name)
    model.save_pretrained("{root}/again/" + folder.name)
"""


CLASSIFY = """
import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoProcessor

processor = AutoProcessor.from_pretrained("{root}/saved", trust_remote_code=True)
model = AutoModel.from_pretrained("{root}/saved", trust_remote_code=True)
inputs = processor(videos=[numpy.load("{root}/video.npy")], text={texts!r})
with torch.no_grad():
    save_file({{"logits_per_video": model(**inputs).logits_per_video}}, "{root}/logits")
"""


def run_isolated(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code with `python -I` in an empty folder, with an empty cache and without this package."""
    workplace = folder / "elsewhere"
    workplace.mkdir(exist_ok=True)
    repository = str(Path(modeling_dkd.__file__).parents[1])
    environment = {"PATH": os.environ["PATH"], "HOME": str(workplace), "HF_HOME": str(folder / "hf_home")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        [sys.executable, "-I", "-c", HIDE_PACKAGE.format(entries=["", repository]) + code],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_saved_folders_give_the_same_bits_without_the_package(tmp_path):
    names = ["walk", "run", "jump", "pour"]
    inputs = {"pixel_values": make_videos(), "input_ids": make_texts(4, 2)}
    save_file(inputs, tmp_path / "inputs.safetensors")
    models = {kind: make_model(kind) for kind in BACKBONE_KINDS}
    for kind, model in models.items():
        model.fit_domain(make_videos(9, 2, seed=5), inputs["input_ids"], class_names=names)
        model.save_pretrained(tmp_path / "saved" / kind)
    done = run_isolated(LOAD_AND_RUN.format(root=tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    for kind, model in models.items():
        with torch.no_grad():
            expected = model(**inputs)
        outputs = load_file(tmp_path / kind)
        assert outputs.keys() == dict(expected).keys()
        assert all(torch.equal(outputs[name], value) for name, value in expected.items()), kind
        # What that process saved again still carries everything.
        again, saved = ({path.name for path in (tmp_path / name / kind).iterdir()} for name in ("again", "saved"))
        assert again == saved
        config = json.loads((tmp_path / "again" / kind / "config.json").read_text())
        assert config["id2label"] == {str(index): name for index, name in enumerate(names)}
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_one_folder_holds_all_it_takes_to_classify_a_video(tmp_path):
    texts, video = ["a swim", "a dance", "to pour"], random_video()
    stock = save_stock_checkpoint(tmp_path / "stock")
    tiny_backbone("clip").save_pretrained(stock)
    model, processor = DKDCLIPModel.from_backbone(stock), DKDCLIPProcessor.from_backbone(stock)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    np.save(tmp_path / "video.npy", video)
    done = run_isolated(CLASSIFY.format(root=tmp_path, texts=texts), tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model(**processor(videos=[video], text=texts)).logits_per_video
    assert torch.equal(load_file(tmp_path / "logits")["logits_per_video"], expected)


def test_a_saved_folder_holds_the_weights_the_configuration_and_the_code(tmp_path):
    make_model().save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors"} | SHIPPED <= names
    assert "__init__.py" not in names
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_dkd.DKDCLIPConfig",
        "AutoModel": "modeling_dkd.DKDCLIPModel",
    }
    assert config["architectures"] == ["DKDCLIPModel"]
    for name in names - {"config.json", "model.safetensors", "modules.json"}:
        assert (tmp_path / name).read_bytes() == Path(modeling_dkd.__file__).with_name(name).read_bytes()


def test_shipped_code_imports_its_siblings_flatly_and_what_transformers_brings(tmp_path):
    make_model().save_pretrained(tmp_path)
    allowed = {"torch", "numpy", "transformers", "huggingface_hub", "safetensors", "packaging", "tqdm"}
    for path in tmp_path.glob("*.py"):
        source = path.read_text()
        for node in _imports_outside_try(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, f"{path.name}: {ast.unparse(node)}"
                assert node.module, f"{path.name}: {ast.unparse(node)}"
                assert (tmp_path / f"{node.module}.py").is_file(), f"{path.name}: {ast.unparse(node)}"
                continue
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            packages = {name.split(".")[0] for name in names}
            assert packages <= allowed | set(sys.stdlib_module_names), f"{path.name}: {ast.unparse(node)}"


def _imports_outside_try(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not isinstance(child, ast.Try):
            yield from _imports_outside_try(child)
