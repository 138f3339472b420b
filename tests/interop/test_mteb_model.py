"""mteb's zero-shot video classification on made-up clips, without its network."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd.cli import main
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.recognition.encoder import load_encoder

from ..training.conftest import write_clip


mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def make_split(folder, number, seed):
    """Rows as in mteb/HMDB51: a column of encoded videos and one of class labels."""
    paths, labels = [], []
    for k, (name, colour) in enumerate(COLOURS.items()):
        for i in range(number):
            path = folder / f"{name}_{seed}_{i}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, tuple(min(255, c + 3 * i) for c in colour), seed + 100 * k + i)
            paths.append({"path": str(path), "bytes": path.read_bytes()})
            labels.append(k)
    features = datasets.Features(
        {"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=list(COLOURS))}
    )
    return datasets.Dataset.from_dict({"video": paths, "label": labels}, features=features)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return datasets.DatasetDict({"train": make_split(folder, 6, 0), "test": make_split(folder, 5, 7)})


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(str(CHECKPOINT), num_frames=4)


@pytest.fixture
def task(splits):
    found = mteb.get_task("HMDB51ZeroShot")
    found.dataset = datasets.DatasetDict({"test": splits["test"]})
    found.data_loaded = True
    return found


def accuracy_of(found):
    (result,) = found.task_results
    return result.get_score()


def expected(encoder, splits, domain):
    """The same by hand."""
    from modeling_dkd.video_frames import read_frames

    def embed(split):
        clips = []
        for row in splits[split]["video"]:
            clips.append(encoder.prepare(read_frames(row["path"], 4).pixels))
        return normalize(normalize(encoder.embed_videos(clips), dim=-1).mean(1), dim=-1)

    texts = encoder.embed_texts([[f"a video of {name}"] for name in COLOURS]).mean(1)
    head = encoder.new_head()
    if domain != "plain":
        head.fit(embed("train" if domain == "inductive" else "test"), texts)
    return head(embed("test"), texts).logits_per_video.detach()


@pytest.mark.parametrize("domain", ["plain", "transductive", "inductive"])
def test_a_task_gives_what_the_head_gives(encoder, task, splits, domain, tmp_path, monkeypatch):
    from modeling_dkd.interop.mteb_model import DKDVideoModel

    model = DKDVideoModel(encoder, domain, train=lambda metadata: splits["train"], batch_size=4)
    given = []
    monkeypatch.setattr(model, "similarity", lambda *a, real=model.similarity: given.append(real(*a)) or given[0])
    found = mteb.evaluate(model, task, cache=mteb.ResultCache(tmp_path), co2_tracker=False)
    logits = expected(encoder, splits, domain)
    torch.testing.assert_close(given[0], logits, atol=1e-4, rtol=0)
    truth = torch.tensor(splits["test"]["label"])
    assert accuracy_of(found) == pytest.approx(float((logits.argmax(1) == truth).float().mean()))
    suffix = "plain" if domain == "plain" else f"dkd-{domain}"
    assert found.model_name == f"local/dkd-tiny-{suffix}"
    written = [path.as_posix() for path in tmp_path.rglob("HMDB51ZeroShot.json")]
    assert len(written) == 1
    assert suffix in written[0]


def test_a_domain_is_for_zero_shot_classification_alone(encoder):
    from modeling_dkd.interop.mteb_model import DKDVideoModel

    other = mteb.get_task("STS12").metadata
    with pytest.raises(ValueError, match="a domain is fitted for VideoZeroshotClassification alone"):
        DKDVideoModel(encoder, "transductive").encode(None, task_metadata=other, hf_split="test", hf_subset="x")
    with pytest.raises(ValueError, match="domain is 'other', but must be one of plain, transductive, inductive"):
        DKDVideoModel(encoder, "other")


def test_the_command(encoder, splits, tmp_path, monkeypatch, capsys):
    task = mteb.get_task("HMDB51ZeroShot")
    task.dataset, task.data_loaded = datasets.DatasetDict({"test": splits["test"]}), True
    monkeypatch.setattr(mteb, "get_tasks", lambda tasks: [task])
    arguments = ["mteb", "--model", str(CHECKPOINT), "--frames", "4", "--output", str(tmp_path)]
    assert main([*arguments, "--domains", "plain", "transductive"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if "accuracy" in line]
    assert [line.split()[0] for line in shown] == ["local/dkd-tiny-plain", "local/dkd-tiny-dkd-transductive"]
    assert Path(tmp_path).is_dir()


def test_a_task_that_mteb_does_not_have(capsys):
    assert main(["mteb", "--model", str(CHECKPOINT), "--tasks", "NoSuchTask"]) == 2
    assert "mteb has no such task" in capsys.readouterr().err
