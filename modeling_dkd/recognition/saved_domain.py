"""A domain in a folder, with what recognising tomorrow's clips needs: encoder, classes, prompts, clips learned from.

All of it is one file, written whole or not at all, so that what the domain has learned and what it says it has learned
from are never apart.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file

from ..dkd_head import DOMAIN_FILE, DKDHead
from ..embedding.tensor_files import remove_unfinished, write_tensors
from .encoder import Encoder


METADATA_KEY = "recognition"


@dataclass(frozen=True)
class SavedDomain:
    """A fitted head and what it belongs to.

    Attributes:
        head: Fitted.
        class_names: Names of its K classes.
        prompts: P prompts of each class; None where the file does not tell.
        encoder: Name of the encoder; "" where the file does not tell.
        encoder_key: All that the encoder's embeddings depend on, as JSON values.
        learned: Which clips it was fitted to or updated with, as `digest` gives them.
    """

    head: DKDHead
    class_names: list[str]
    prompts: list[list[str]] | None
    encoder: str
    encoder_key: dict[str, Any] = field(default_factory=dict)
    learned: frozenset[str] = frozenset()

    def learned_from(self, identities: Iterable[str]) -> "SavedDomain":
        """The same, with more clips that it was fitted to or updated with."""
        return replace(self, learned=self.learned | {digest(identity) for identity in identities})

    def require_encoder(self, encoder: Encoder) -> None:
        """Refuse another encoder than the one that the domain was fitted with.

        Raises:
            ValueError: It is another, or looks at clips otherwise.
        """
        if encoder.dim != self.head.config.projection_dim:
            raise ValueError(
                f"the domain is of embeddings of {self.head.config.projection_dim} dimensions, but those of "
                f"{encoder.name} have {encoder.dim}; give the --model that it was fitted with"
            )
        if not self.encoder or self.encoder_key == encoder.key:
            return
        if self.encoder_key.get("frames") != encoder.key.get("frames") and self.encoder == encoder.name:
            frames = str(self.encoder_key.get("frames")).partition("x")[0]
            raise ValueError(f"the domain was fitted with {frames} frames a clip; give --frames {frames}")
        raise ValueError(
            f"the domain was fitted with another encoder than {encoder.name} is now: {self.encoder}, with other "
            "weights, preprocessing or code; give that --model, or fit the domain anew"
        )


def digest(identity: str) -> str:
    """Twelve hexadecimal digits for the identity of a clip."""
    return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:12]


def save_domain(folder: str | os.PathLike[str], domain: SavedDomain) -> None:
    """Write a domain in one go; one that was there before stays until then.

    Raises:
        ValueError: The head is not fitted.
        OSError: The disk refuses.
    """
    path = Path(folder) / DOMAIN_FILE
    with tempfile.TemporaryDirectory() as unfinished:
        domain.head.save_pretrained(unfinished, domain.class_names)
        plain = Path(unfinished) / DOMAIN_FILE
        tensors, metadata = load_file(plain), _metadata(plain)
    described = {
        "encoder": domain.encoder,
        "encoder_key": domain.encoder_key,
        "prompts": domain.prompts,
        "learned": sorted(domain.learned),
    }
    write_tensors(path, tensors, metadata | {METADATA_KEY: json.dumps(described)})
    remove_unfinished(path.parent)


def load_domain(folder: str | os.PathLike[str]) -> SavedDomain:
    """The domain in a folder, also one that `DKDHead.save_pretrained` wrote alone.

    Raises:
        ValueError: There is none, it is damaged, or it does not tell its classes.
    """
    remedy = "give a folder that dkd recognise --save-domain, or dkd watch, wrote"
    if not Path(folder).is_dir():
        found = "is a file, and a domain is a folder" if Path(folder).exists() else "there is no such folder"
        raise ValueError(f"--domain {os.fspath(folder)}: {found}; {remedy}")
    if not (Path(folder) / DOMAIN_FILE).is_file():
        raise ValueError(f"--domain {os.fspath(folder)}: no domain is in it ({DOMAIN_FILE}); {remedy}")
    head = DKDHead.from_pretrained(Path(folder)).eval()
    names = head.class_names
    if names is None:
        raise ValueError(f"--domain {os.fspath(folder)}: it does not name its classes; {remedy}")
    described = _described(Path(folder) / DOMAIN_FILE)
    prompts = described.get("prompts")
    if prompts is not None and len(prompts) != len(names):
        raise ValueError(f"{Path(folder) / DOMAIN_FILE} has prompts of {len(prompts)} of {len(names)} classes")
    return SavedDomain(
        head,
        names,
        prompts,
        str(described.get("encoder", "")),
        described.get("encoder_key", {}),
        frozenset(described.get("learned", ())),
    )


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _described(path: Path) -> dict[str, Any]:
    """What `save_domain` added to the file; nothing where another wrote it."""
    try:
        described = json.loads(_metadata(path).get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata is no JSON ({error}); fit the domain again") from error
    kinds = {"encoder": str, "encoder_key": dict, "learned": list, "prompts": list | None}
    for name, kind in kinds.items():
        if not isinstance(described, dict) or (name in described and not isinstance(described[name], kind)):
            raise ValueError(f"{path}: its metadata has another {name} than this version writes; fit the domain again")
    return described
