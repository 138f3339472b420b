"""Started by test_fit_from_shards.py, once per process: fits the shards of a folder, its own part of them."""

import sys
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.embedding.embedding_shards import EmbeddingShards
from tests.toy_domain import toy_domain


if __name__ == "__main__":
    folder, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
    texts = toy_domain().texts
    paths = sorted(folder.glob("shard*"))[accelerator.process_index :: accelerator.num_processes]
    shards = EmbeddingShards(paths)
    head = DKDHead(DKDCLIPConfig(projection_dim=texts.shape[1]))
    head.fit(shards, texts, shards.labels(), all_reduce=lambda sums: accelerator.reduce(sums, "sum"))
    buffers = {name: tensor.contiguous() for name, tensor in head.named_buffers()}
    save_file(buffers, folder / f"fitted-{accelerator.process_index}-of-{accelerator.num_processes}")
    accelerator.end_training()
