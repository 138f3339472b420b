"""Two hours of a stream at 30 clips a second, as fast as it goes: no growth of memory and no drift."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]


STREAM = """
import json, sys
import torch
from tests.toy_domain import toy_domain
from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.evaluation.measurement import growth_of_memory

videos, texts, labels = toy_domain(216_000, num_classes=12, dim=64, noise=1.6)
videos, labels, tested, truth = videos[2000:], labels[2000:], videos[:2000], labels[:2000]
head = DKDHead(DKDCLIPConfig(projection_dim=64)).fit(videos[:64], texts)

def accuracy():
    return float((head(tested, texts).logits_per_video.argmax(1) == truth).double().mean())

def watch(part):
    for batch in part.split(256):
        head.update(batch)

early, rest = videos[64:20_000], videos[20_000:]
watch(early)
early_accuracy = accuracy()
_, megabytes = growth_of_memory(lambda: watch(rest))
print(json.dumps({
    "megabytes": megabytes,
    "zero_shot": float(((tested @ texts.T).argmax(1) == truth).double().mean()),
    "early": early_accuracy,
    "late": accuracy(),
    "samples": float(head.num_samples),
    "counts": float(head.counts.sum()),
    "finite": all(bool(buffer.isfinite().all()) for buffer in head.buffers()),
}))
"""


@pytest.mark.slow
def test_a_long_stream_neither_fills_memory_nor_drifts():
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed is not counted
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", STREAM], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["finite"]
    assert seen["samples"] == 214_000
    assert seen["counts"] == pytest.approx(214_000, rel=1e-3)
    # 196,000 embeddings of 64 floats would be 48 MB.
    assert seen["megabytes"] < 8
    assert seen["early"] > seen["zero_shot"] + 0.01
    assert seen["late"] > seen["early"] - 0.01
