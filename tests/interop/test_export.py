"""`dkd export`: what the graphs give in onnxruntime and OpenVINO, beside PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.cli import main
from modeling_dkd.interop import run_graphs
from modeling_dkd.synthetic.clips import write_clip
from tests.tiny_backbones import make_model, make_texts, make_videos
from tests.tiny_checkpoint import save_tiny_clip


pytestmark = pytest.mark.slow
NAMES = ["waving", "jumping", "tea"]
FRAMES = 3


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A tiny CLIP with a domain of three classes, in a folder."""
    folder = tmp_path_factory.mktemp("fitted")
    save_tiny_clip(folder / "stock")
    model = DKDCLIPModel.from_backbone(folder / "stock")
    processor = DKDCLIPProcessor.from_backbone(folder / "stock", num_frames=FRAMES)
    tokens = processor(text=[[f"a {name}", f"one {name}"] for name in NAMES])
    model.fit_domain(make_videos(12, FRAMES, seed=5), **tokens, class_names=NAMES)
    model.save_pretrained(folder / "dkd")
    processor.save_pretrained(folder / "dkd")
    model.head.save_pretrained(folder / "domain", NAMES)
    return folder, model, processor


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(fitted, request, tmp_path_factory):
    for library in ("onnxscript", "onnxruntime", request.param):
        pytest.importorskip(library)
    target = tmp_path_factory.mktemp("exported") / request.param
    assert main(["export", str(fitted[0] / "dkd"), "--to", request.param, str(target)]) == 0
    return target, run_graphs.load(target, num_threads=1), *fitted[1:]


def assert_same(found, expected, model):
    """Equal in the units of export_folder.py: logits as cosines, `known` as deviations."""
    units = {"logits_per_video": float(model.head.logit_scale.detach()), "known": float(model.head.known_slope)}
    assert units["known"] > 1
    assert {"logits_per_video", "moved_video_embeds", "strength", "known"} <= found.keys()
    wanted = {
        f"moved_{name}": getattr(expected, name) for name in ("video_embeds", "text_embeds")
    } | expected._asdict()
    for name in found.keys() & wanted.keys():
        unit, value = units.get(name, 1.0), wanted[name].detach().numpy()
        np.testing.assert_allclose(found[name] / unit, value / unit, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("num_videos", [1, 2, 5])
def test_frames_give_the_logits_of_the_model(exported, num_videos):
    _, graphs, model, _ = exported
    videos = make_videos(num_videos, FRAMES, seed=9)
    found = graphs.recognise(videos.numpy())
    frames = model.get_video_features(videos)
    np.testing.assert_allclose(found["frame_embeds"], frames.detach().numpy(), rtol=0, atol=1e-5)
    assert_same(found, model.head(frames, model.head.fitted_texts), model)
    assert found["strength"].min() > 0
    assert graphs.about["classes"] == NAMES


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 2, 5, 3), (3, 7, 2, 1)])
def test_embeddings_give_the_logits_of_the_head_for_any_classes(exported, shape):
    _, graphs, model, _ = exported
    num_videos, num_frames, num_classes, num_prompts = shape
    generator = torch.Generator().manual_seed(3)
    dim = model.config.projection_dim
    # Not far from the domain: a hundred deviations out `known` shows the rounding of scores.
    videos = model.head.domain_mean + 0.1 * torch.randn(num_videos, num_frames, dim, generator=generator)
    texts = torch.randn(num_classes, num_prompts, dim, generator=generator)
    texts[-1] = model.head.fitted_texts[1]
    assert_same(graphs.compare(videos.numpy(), texts.numpy()), model.head(videos, texts), model)
    assert_same(
        graphs.compare(videos[:, 0].numpy(), texts[:, 0].numpy()), model.head(videos[:, 0], texts[:, 0]), model
    )


def test_embeddings_of_the_first_graph_go_into_the_second(exported):
    _, graphs, model, _ = exported
    found = graphs.recognise(make_videos(2, FRAMES, seed=9).numpy())
    again = graphs.compare(found["frame_embeds"], graphs.text_embeds)
    scale = float(model.head.logit_scale.detach())
    np.testing.assert_allclose(again["logits_per_video"], found["logits_per_video"], rtol=0, atol=1e-5 * scale)


def test_bad_pixels_are_refused_as_the_model_refuses_them(exported):
    _, graphs, model, processor = exported
    videos, tokens = make_videos(2, FRAMES), processor(text=NAMES)
    videos[1, 2, 0, 4, 4] = torch.nan
    with pytest.raises(ValueError, match=r"video_embeds\[1, 2, 0\] is not finite") as refused:
        model(videos, **tokens)
    with pytest.raises(ValueError, match="is not finite") as also_refused:
        graphs.recognise(videos.numpy())
    assert str(also_refused.value) == str(refused.value)


def test_the_folder_runs_without_pytorch_and_this_package(exported, tmp_path):
    folder, _, model, processor = exported
    clips = np.random.default_rng(0).integers(0, 256, (2, 7, 40, 48, 3), np.uint8)
    for number, clip in enumerate(clips):
        write_clip(tmp_path / f"{number}.mp4", clip)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code = "import runpy, sys; sys.argv = sys.argv[1:]; code = 0\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as left: code = left.code\n"
    code += "assert not {'torch', 'transformers', 'modeling_dkd'} & set(sys.modules)\nsys.exit(code)"
    paths = [str(tmp_path / name) for name in ("0.mp4", "broken.mp4", "1.mp4")]
    command = [sys.executable, "-I", "-c", code, str(folder / "run_graphs.py"), *paths]
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home)}
    environment.pop("ORT_DISABLE_TELEMETRY")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert not list(home.iterdir())  # where the runtimes keep what they would tell their makers
    assert "broken.mp4" in done.stderr
    assert "Traceback" not in done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [paths[0], paths[2]]
    frames = model.get_video_features(processor(videos=[paths[0], paths[2]]).pixel_values)
    moved = model.head(frames, model.head.fitted_texts)
    best = moved.logits_per_video.softmax(1).max(1)
    assert [line[1] for line in lines] == [NAMES[k] for k in best.indices]
    np.testing.assert_allclose([float(line[2]) for line in lines], best.values.detach().numpy(), atol=0.02)
    np.testing.assert_allclose([float(line[3]) for line in lines], moved.known.detach().numpy(), atol=0.02)


def test_the_lines_of_its_readme_run(exported, tmp_path):
    folder, *_ = exported
    text = (folder / "README.md").read_text()
    assert "$" not in text
    code = text.split("```python\n")[1].split("```")[0]
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, np.random.default_rng(0).integers(0, 256, (7, 40, 48, 3), np.uint8))
    environment = {"PYTHONPATH": str(folder), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} <= set(NAMES)
    assert len(done.stdout.splitlines()) == 2


def test_nothing_of_this_machine_is_in_the_folder(exported):
    folder, *_ = exported
    for path in filter(Path.is_file, folder.iterdir()):  # Python's own bytecode of the runner is a folder
        content = path.read_bytes()
        for trace in (sys.prefix, str(folder.parent), "site-packages"):
            assert trace.encode() not in content, (path.name, trace)


def test_a_domain_in_a_folder_is_exported_with_its_encoder(fitted, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder, model, _ = fitted
    command = ["export", str(folder / "stock"), "--domain", str(folder / "domain"), "--to", "onnx"]
    assert main([*command, "--frames", "2", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 classes, 2 frames a clip" in said
    assert "largest difference from PyTorch" in said
    graphs = run_graphs.load(tmp_path / "out")
    videos = make_videos(2, 2)
    expected = model.head(model.get_video_features(videos), model.head.fitted_texts)
    assert_same(graphs.recognise(videos.numpy()), expected, model)


def test_int8_rounds_the_encoder_and_nothing_of_the_head(fitted, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from modeling_dkd.interop.onnx_graphs import nodes_before

    folder, model, _ = fitted
    assert main(["export", str(folder / "dkd"), "--to", "onnx", "--int8", str(tmp_path / "out")]) == 0
    graph = onnx.load(tmp_path / "out" / "frames_to_logits.onnx")
    rounded = {node.name for node in graph.graph.node if node.op_type == "MatMulInteger"}
    assert len(rounded) >= 4 * 2  # query, key, value and output, at least, of both layers
    assert rounded <= set(nodes_before(graph, "frame_embeds"))
    assert not list((tmp_path / "out").glob("float*"))
    graphs = run_graphs.load(tmp_path / "out")
    assert graphs.about["encoder_precision"] == "int8"
    videos = make_videos(4, FRAMES, seed=9)
    found, frames = graphs.recognise(videos.numpy()), model.get_video_features(videos)
    exact = model.head(frames, model.head.fitted_texts)
    cosines = (found["moved_video_embeds"] * exact.video_embeds.detach().numpy()).sum(1)
    assert cosines.min() > 0.99
    # What the head makes of the rounded embeddings is what PyTorch makes of them.
    of_rounded = model.head(torch.from_numpy(found["frame_embeds"]), model.head.fitted_texts)
    assert_same(found, of_rounded, model)


@pytest.mark.parametrize("kind", ["siglip", "metaclip_2", "chinese_clip", "vision_text_dual_encoder"])
@torch.no_grad()
def test_other_encoders_are_traced(kind, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from modeling_dkd.interop.onnx_graphs import export_frames_to_logits

    model = make_model(kind).fit_domain(make_videos(12, 2, seed=4), make_texts(4, 2))
    texts, videos = model.head.fitted_texts[:, None], make_videos(3, 2)
    export_frames_to_logits(model, texts, videos, tmp_path / "graph.onnx")
    found = run_graphs.start_onnx(tmp_path / "graph.onnx")([videos.numpy()])
    assert_same(found, model.head(model.get_video_features(videos), texts), model)


def test_an_encoder_that_cannot_be_traced_is_told_in_one_sentence(tmp_path):
    pytest.importorskip("onnxscript")
    from modeling_dkd.interop.onnx_graphs import export_frames_to_logits

    model = make_model("siglip2")
    texts = torch.randn(2, 1, model.config.projection_dim)
    with pytest.raises(ValueError, match=r"torch\.onnx cannot trace Siglip2Model"):
        export_frames_to_logits(model, texts, make_videos(), tmp_path / "graph.onnx")


def test_what_does_not_fit_is_told(fitted, tmp_path, capsys):
    for library in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(library)
    folder, *_ = fitted
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    wrong = {
        ("stock", "--to", "onnx", "new"): "has no domain with classes; give --domain DIR, or --classes",
        ("dkd", "--to", "openvino", "--int8", "new"): "--int8 is for --to onnx",
        ("dkd", "--to", "onnx", "full"): "is there already; give a new folder",
        ("dkd", "--to", "onnx", "--classes", "a,b", "new"): "leave --classes out",
        ("dkd", "--to", "onnx", "--frames", "0", "new"): "--frames is 0; give at least 1",
        ("none", "--to", "onnx", "new"): "no model folder",
    }
    for (name, *options, target), message in wrong.items():
        assert main(["export", str(folder / name), *options, str(tmp_path / target)]) == 2
        said = capsys.readouterr().err
        assert message in said, said
        assert said.startswith("error: ")
        assert not (tmp_path / "new").exists()
