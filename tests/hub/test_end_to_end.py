"""One model, the whole way: trained, fitted, evaluated, published, loaded elsewhere by name and revision."""

import json
import re

import pytest
from huggingface_hub import ModelCard

from ..test_remote_code import HIDE_PACKAGE
from .conftest import ROOT


pytestmark = pytest.mark.slow

MEASURE = """
import json
from pathlib import Path
import torch
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.utils import cached_file

name, revision = {name!r}, {revision!r}
model = AutoModel.from_pretrained(name, revision=revision, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
prompts = json.loads(Path(cached_file(name, "class_prompts.json", revision=revision)).read_text())
clips = sorted(Path({clips!r}).glob("*/*.avi"))
inputs = processor(videos=[str(clip) for clip in clips], text=list(prompts.values()))
with torch.no_grad():
    moved = model(**inputs).logits_per_video
    model.head.reset()
    plain = model(**inputs).logits_per_video
truth = torch.tensor([list(prompts).index(clip.parent.name) for clip in clips])
found = {{"n": len(clips)}}
for method, logits in (("fine-tuned", plain), ("fine-tuned/dkd", moved)):
    hits = logits.topk(3, 1).indices == truth[:, None]
    found[method] = [hits[:, 0].float().mean().item(), [hits[truth == k, 0].float().mean().item() for k in range(3)]]

videos, truth = [str(clip) for clip in clips], [clip.parent.name for clip in clips]
labels = {{"candidate_labels": ["Blue", "Grey", "Red 1"]}}
asked = {{"video-classification": {{}}, "zero-shot-video-classification": labels}}
for task, options in asked.items():
    pipe = pipeline(task, model=name, revision=revision, trust_remote_code=True)
    for loaded in (pipe, pipe.model, pipe.processor):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    answers = pipe(videos, batch_size=4, **options)
    hits = [answer[0]["label"].replace(" ", "_") == label for answer, label in zip(answers, truth)]
    found[task] = {{
        "n": len(hits),
        "top1": sum(hits) / len(hits),
        "per_class": {{name: sum(hit for hit, label in zip(hits, truth) if label == name) / truth.count(name)
                       for name in set(truth)}},
        "labels": sorted({{guess["label"] for guess in answers[0]}}),
        "sums": [sum(guess["score"] for guess in answer) for answer in answers],
    }}
print(json.dumps(found))
"""


LOAD = """
import hashlib
from transformers import AutoModel

try:
    model = AutoModel.from_pretrained({name!r}, revision={revision!r}, trust_remote_code=True)
    weights = b"".join(tensor.numpy().tobytes() for _, tensor in sorted(model.state_dict().items()))
    print("loaded", hashlib.sha256(weights).hexdigest())
except Exception as error:
    print("refused", type(error).__name__, error)
"""


def isolated(code: str) -> str:
    return HIDE_PACKAGE.format(entries=["", str(ROOT)]) + code


def figures_of(card: str) -> dict[str, float]:
    return {result.metric_name: result.metric_value for result in ModelCard(card).data.eval_results}


@pytest.fixture(scope="module")
def measured(published, tmp_path_factory):
    """Figures of the published revision, once from the Hub and once more from the cache alone."""
    home = tmp_path_factory.mktemp("elsewhere")
    code = isolated(
        MEASURE.format(name=published.repo_id, revision=published.commit, clips=str(published.clips / "test"))
    )
    online = published.run("-I", "-c", code, cwd=home, HF_HOME=str(home / "hf"))
    asked = len(published.hub.requests)
    offline = published.run("-I", "-c", code, cwd=home, HF_HOME=str(home / "hf"), HF_HUB_OFFLINE="1")
    assert len(published.hub.requests) == asked
    return [json.loads(run.stdout.splitlines()[-1]) for run in (online, offline)]


def test_the_published_model_has_the_figures_of_its_card(published, measured):
    card = published.hub.files(published.repo_id, published.commit)["README.md"].decode()
    figures = figures_of(card)
    for found in measured:
        assert found["n"] == 30
        for method in ("fine-tuned", "fine-tuned/dkd"):
            top1, per_class = found[method]
            assert 1 / 3 < top1 < 1
            assert top1 == pytest.approx(figures[f"top-1, {method}"], abs=1e-6)
            row = re.search(rf"{method}\*{{0,2}} \| \*{{0,2}}{100 * top1:.2f}.*", card)[0]
            assert f" {100 * sum(per_class) / 3:.2f} " in row.replace("*", "")


def test_both_pipelines_have_the_figures_of_the_card(published, measured):
    figures = figures_of(published.hub.files(published.repo_id, published.commit)["README.md"].decode())
    for found in measured:
        own, zero_shot = found["video-classification"], found["zero-shot-video-classification"]
        assert own["labels"] == ["Blue", "Grey", "Red_1"]
        assert zero_shot["labels"] == ["Blue", "Grey", "Red 1"]
        assert own["n"] == zero_shot["n"] == 30
        assert own["sums"] == pytest.approx([1] * 30, abs=1e-5)
        for pipe in (own, zero_shot):
            assert pipe["top1"] == pytest.approx(figures["top-1, fine-tuned/dkd"], abs=1e-6)
            assert sum(pipe["per_class"].values()) / 3 == pytest.approx(pipe["top1"], abs=1e-6)  # ten clips a class


def test_weights_cut_off_on_their_way_never_load(published, tmp_path):
    code = isolated(LOAD.format(name=published.repo_id, revision=published.commit))

    def load(home, **variables):
        run = published.run("-I", "-c", code, cwd=tmp_path / "work", HF_HOME=str(tmp_path / home), **variables)
        return run.stdout.splitlines()[-1]

    weights = r"GET .*/resolve/.*/model\.safetensors"
    published.hub.fail(weights, "cut in the middle", times=1000)
    assert load("lasting").startswith("refused")
    assert load("lasting", HF_HUB_OFFLINE="1").startswith("refused")
    published.hub.faults.clear()
    whole = load("lasting")
    assert whole.startswith("loaded")
    published.hub.fail(weights, "cut in the middle")
    assert load("passing") == whole
    assert not published.hub.faults.pop().times


def test_training_and_evaluation_stand_side_by_side_in_the_card(published):
    files = published.hub.files(published.repo_id, published.commit)
    card = files["README.md"].decode()
    figures = figures_of(card)
    assert {"top-1, zero-shot", "top-1, dkd", "top-1, fine-tuned", "top-1, fine-tuned/dkd"} <= figures.keys()
    assert "both\\_centred" in card
    added = [name for name in files if name.startswith("results/")]
    assert len(added) == 1
    assert added[0] in card
    assert "results.json" in card
    assert ".eval_results/clips.yaml" in files
    # Weights that were trained first, evaluated as they are: plain zero-shot of them is the fine-tuned row.
    rows = {row["method"]: row for row in json.loads(files[added[0]])["measured"]}
    own = {row["method"]: row for row in json.loads(files["results.json"])["rows"]}
    assert rows["zero-shot"]["top1"] == own["fine-tuned"]["top1"]
    assert rows["zero-shot"]["data"]["data_revision"] == own["fine-tuned"]["data"]["data_revision"]


def test_what_was_published_is_what_was_shown_and_names_no_machine(published):
    files = published.hub.files(published.repo_id, published.commit)
    for name, content in files.items():
        if name != ".gitattributes":
            assert re.search(rf"^  {re.escape(name)} ", published.shown, re.MULTILINE)
            assert str(published.folder.parent).encode() not in content, name
    assert published.hub.repositories["models", published.repo_id].private
    assert not any(name.startswith("best/") for name in files)


def test_the_examples_of_the_card_run_as_written(published, tmp_path):
    card = published.hub.files(published.repo_id, published.commit)["README.md"].decode()
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    (tmp_path / "work").mkdir()
    for name in ("clip", "another"):
        clip = next((published.clips / "test" / "Red_1").iterdir())
        (tmp_path / "work" / f"{name}.mp4").write_bytes(clip.read_bytes())
    done = published.run("-I", "-c", isolated(code), cwd=tmp_path / "work", HF_HOME=str(tmp_path / "hf"))
    assert re.search(r"^(Red_1|Grey|Blue) [01]\.\d+", done.stdout, re.MULTILINE)
    assert (tmp_path / "work/my-domain/dkd_domain.safetensors").is_file()
