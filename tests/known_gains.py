"""A small set of made-up embeddings on which gains are known, so that accuracy is tested where no data are.

    python -m tests.known_gains    # writes tests/known_gains.safetensors anew

It is a larger toy domain, rounded to float16: texts and videos in two cones, class texts that are off, videos that
vary more along some axes. Its figures say nothing of real data.
"""

from pathlib import Path

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings

from .toy_domain import toy_domain


PATH = Path(__file__).with_suffix(".safetensors")


def known_gains() -> EmbeddingSet:
    """Embeddings (600, 32) of 15 classes, and their texts."""
    made = toy_domain(num_videos=600, num_classes=15, dim=32, seed=0, noise=1.0)
    metadata = {
        "names": [f"clip {number}" for number in range(len(made.labels))],
        "class_names": [f"class {number}" for number in range(len(made.texts))],
        "dataset": "made-up embeddings with known gains",
        "logit_scale": 100.0,
    }
    return EmbeddingSet(made.videos.half().float(), made.labels, made.texts.half().float(), metadata)


if __name__ == "__main__":
    write_embeddings(PATH, known_gains())
