import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_dkd import DKDCLIPConfig, DKDHead, dkd_head, domain_statistics, embedding_inputs
from modeling_dkd.mixture_options import MixtureOptions
from tests.toy_domain import toy_domain


ROOT = Path(__file__).resolve().parents[1]
VIDEOS, TEXTS, LABELS = toy_domain(150)
SOME_LABELS = torch.where(torch.arange(150) % 3 == 0, LABELS, -1)
PATIENCE = 300


def fit(videos, texts=TEXTS, labels=None, **options):
    return DKDHead(DKDCLIPConfig(projection_dim=24)).fit(videos, texts, labels, **options)


def assert_same_domain(one, other, **tolerance):
    for name, expected in other.named_buffers():
        if name == "precision":
            # Large numbers, of which single ones may be near 0.
            tolerance = tolerance | {"atol": tolerance["atol"] * float(expected.abs().max())}
        torch.testing.assert_close(one.get_buffer(name), expected, **tolerance, msg=name)


class Passes(list):
    """A list of shards that counts how often it is passed over."""

    count = 0

    def __iter__(self):
        self.count += 1
        return super().__iter__()


@pytest.mark.parametrize("labels", [None, SOME_LABELS])
def test_shards_give_the_domain_of_the_whole(labels, monkeypatch):
    monkeypatch.setattr(domain_statistics, "SETTLED", -1.0)
    whole = fit(VIDEOS, labels=labels)
    shards = Passes(VIDEOS.split([70, 1, 40, 39]))
    # In pieces that end neither with a shard nor with each other.
    monkeypatch.setattr(embedding_inputs, "NUMBERS_AT_ONCE", 16 * 24)
    monkeypatch.setattr(domain_statistics, "CHUNK_SIZE", 7)
    assert_same_domain(fit(shards, labels=labels), whole, rtol=1e-5, atol=1e-5)
    # Once a round, and once to count, for the texts' bias, second moments, trust and confidence each.
    assert shards.count == MixtureOptions().num_rounds + 5


def test_a_large_tensor_is_made_ready_in_pieces(monkeypatch):
    videos = VIDEOS[:, None] + 0.1 * torch.randn(150, 3, 24, generator=torch.Generator().manual_seed(0))
    whole = fit(videos)
    monkeypatch.setattr(dkd_head, "KEPT_NUMBERS", 100)
    monkeypatch.setattr(embedding_inputs, "NUMBERS_AT_ONCE", 16 * 3 * 24)
    assert_same_domain(fit(videos), whole, rtol=1e-5, atol=1e-5)
    videos[20, 1, 2] = torch.nan
    with pytest.raises(ValueError, match=re.escape("video_embeds[16:][4, 1, 2] is not finite")):
        fit(videos)


def test_shards_without_texts_are_the_points_of_a_mixture():
    torch.testing.assert_close(fit(VIDEOS.split(40), None).means, fit(VIDEOS, None).means)


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ((shard for shard in VIDEOS.split(40)), "not generator; a generator is used up after the first round."),
        (3, "video_embeds must be a torch.Tensor or shards that can be passed over again, such as a list, not int;"),
        ([VIDEOS, [1.0]], "shard 1 of video_embeds must be a torch.Tensor of floats, not list;"),
        ([VIDEOS, VIDEOS[:0]], "shard 1 of video_embeds must be (N, 24)"),
        ([VIDEOS, torch.tensor(1.0)], "shard 1 of video_embeds must be (N, 24)"),
        ([VIDEOS[:5], VIDEOS[:, :5]], "shard 1 of video_embeds must be (N, 24)"),
        ([VIDEOS[:5], torch.zeros(2, 24)], "shard 1 of video_embeds[0] is a zero embedding"),
        ([], "video_embeds has no shard; give at least one video."),
    ],
)
@pytest.mark.parametrize("texts", [None, TEXTS])
def test_shards_that_cannot_be_fitted(shards, message, texts):
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(shards, texts)


def test_labels_are_as_many_as_the_videos_of_all_shards():
    with pytest.raises(ValueError, match=re.escape("labels must be int64 of shape (150,), got torch.int64 of (149,)")):
        fit(VIDEOS.split(40), labels=LABELS[1:])


def launch(folder, num_processes):
    """Fit the shards of a folder in so many processes; the heads' buffers, one dict a process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launcher = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--main_process_port", port]
    launcher += ["--num_processes", str(num_processes), *(["--multi_gpu"] if num_processes > 1 else [])]
    command = [sys.executable, *launcher, str(ROOT / "tests/fit_shards_of_processes.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [load_file(folder / f"fitted-{rank}-of-{num_processes}") for rank in range(num_processes)]


@pytest.mark.slow
@pytest.mark.parametrize("num_shards", [1, 3])
def test_two_processes_fit_what_one_fits(tmp_path, num_shards):
    """Real processes, of which one has no shard at all where there is but one."""
    size = -(-len(VIDEOS) // num_shards)
    for number, (videos, labels) in enumerate(zip(VIDEOS.split(size), SOME_LABELS.split(size), strict=True)):
        save_file({"video_embeds": videos.contiguous(), "labels": labels}, tmp_path / f"shard{number}")
    (alone,) = launch(tmp_path, 1)
    first, second = launch(tmp_path, 2)
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-5, msg=name)


MEASURE = """
import sys
from pathlib import Path
import torch
from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.embedding.embedding_shards import EmbeddingShards
from modeling_dkd.evaluation.measurement import growth_of_memory
from modeling_dkd.mixture_options import MixtureOptions

texts = torch.randn(200, 256, generator=torch.Generator().manual_seed(1))
head = DKDHead(DKDCLIPConfig(projection_dim=256), MixtureOptions(num_rounds=2))
head.fit(texts, texts)
shards = EmbeddingShards(sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])])
_, megabytes = growth_of_memory(lambda: head.fit(shards, texts))
print(megabytes)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_videos(tmp_path):
    """100,000 x 256 in float32 are 98 MB, N x K floats 76 MB: neither is ever there as a whole."""
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        save_file({"video_embeds": torch.randn(25_000, 256, generator=generator)}, tmp_path / f"{number}")
    # With the threshold every large block goes back to the system when freed: no fragments of the heap are counted.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    megabytes = []
    for num_shards in ("1", "4"):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), num_shards]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        megabytes.append(float(done.stdout))
    # What is there at once: the matrices of one chunk (46 MB measured), however many files there are.
    assert megabytes[1] < 60
    assert megabytes[1] < megabytes[0] + 5


SAMPLE_OF_SHARDS = """
import torch
from pathlib import Path
from modeling_dkd.domain_statistics import spread_samples

class Shards:
    def __iter__(self):
        for _ in range(200):
            embeds = torch.ones(4096, 512, dtype=torch.float16).float()
            yield embeds / embeds.norm(dim=1, keepdim=True)

def in_memory():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024

torch.set_num_threads(2)
before = in_memory()
for _ in range(4):
    sample = spread_samples(Shards(), 51_200, 200 * 4096)
    print(in_memory() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what of memory is in use")
def test_a_sample_of_shards_takes_what_it_holds():
    """100 MiB, while chunks of 8 MiB come and go; copies of parts between these held 1 to 2 GiB apart."""
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE_OF_SHARDS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert max(map(float, done.stdout.split())) < 400
