"""Everything that can be named as an encoder: --model of the commands.

openai/clip-vit-base-patch16, FOLDER      a dual encoder of transformers, or a checkpoint of this project
open_clip:hf-hub:OWNER/NAME               a model of open_clip, with its own preprocessing and tokenizer
open_clip:local-dir:FOLDER                the same from a folder
sentence_transformers:NAME                a CLIP model of sentence-transformers, repository or folder
FILE.py:NAME, module:NAME                 an encoder of one's own, see `own_encoder`
"""

from pathlib import Path

import torch

from ..open_clip_backbone import PREFIX as OPEN_CLIP
from .clip_encoder import ClipEncoder
from .own_encoder import OwnEncoder, load_own_encoder
from .sentence_transformers_encoder import PREFIX as SENTENCE_TRANSFORMERS
from .sentence_transformers_encoder import load_sentence_transformers


def load_source(
    name: str, views: str | None, revision: str | None, dtype: torch.dtype, device: torch.device
) -> ClipEncoder | OwnEncoder:
    """The encoder of this name.

    Args:
        name: As above.
        views: "FRAMESxCROPSxCLIPS"; None: one view of as many frames as the encoder says.
        revision: Branch, tag or commit of a repository.
        dtype: What an image encoder of transformers or open_clip multiplies in.
        device: Where the encoder is put, unless it is one of one's own.

    Raises:
        ValueError: There is no such encoder, or it cannot be loaded or is none.
    """
    if name.startswith(SENTENCE_TRANSFORMERS):
        return load_sentence_transformers(name, views, revision, device)
    if ":" in name and not name.startswith(OPEN_CLIP) and not Path(name).exists():
        return load_own_encoder(name, views)
    if name.endswith(".py"):
        raise ValueError(f"--model {name} names a file; add what to call in it, as in {name}:load")
    return ClipEncoder.load(name, views, revision, dtype, device)
