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

from ..dkd_head import DKDHead
from ..domain_card import write_domain_card
from ..domain_file import DOMAIN_FILE
from ..domain_hub import HubOptions, domain_path, is_hub_name, send_domain
from ..embedding.tensor_files import remove_unfinished, write_tensors
from .encoder import Encoder
from .output_places import folder_to_fill


METADATA_KEY = "recognition"
HUB_SCHEME = "hf://"


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


def hub_name(name: str | os.PathLike[str]) -> tuple[str, str | None] | None:
    """Repository and revision of `[hf://]OWNER/NAME[@REVISION]`, None for what names a folder."""
    text = os.fspath(name)
    if Path(text).exists():
        return None
    repo_id, _, revision = text.removeprefix(HUB_SCHEME).partition("@")
    if not is_hub_name(repo_id):
        if text.startswith(HUB_SCHEME):
            raise ValueError(f"{text} names no repository; write hf://OWNER/NAME")
        return None
    return repo_id, revision or None


def is_on_hub(name: str | os.PathLike[str] | None) -> bool:
    """Whether a domain is asked of the Hub: it is no folder, and written as a repository."""
    return name is not None and hub_name(name) is not None


def make_room(target: str | os.PathLike[str]) -> None:
    """Make the folder that a domain will be saved in, or refuse a name of a repository that is none."""
    if os.fspath(target).startswith(HUB_SCHEME):
        hub_name(target)
    else:
        folder_to_fill("--save-domain", target)


def save_domain(target: str | os.PathLike[str], domain: SavedDomain) -> None:
    """Write a domain in one go; one that was there before stays until then.

    Args:
        target: A folder, or `hf://OWNER/NAME`: then it is sent there, without what tells which clips it has learned
            from, and a repository that is not there is made private.
        domain: What is written.

    Raises:
        ValueError: The head is not fitted, or the Hub refuses.
        OSError: The disk refuses, or the Hub cannot be asked.
    """
    on_hub = hub_name(target) if os.fspath(target).startswith(HUB_SCHEME) else None
    if on_hub is None:
        _write(Path(target), domain)
        return
    repo_id, revision = on_hub
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), replace(domain, learned=frozenset()))
        write_domain_card(folder, repo_id)
        send_domain(folder, repo_id, private=True, options=HubOptions(revision))


def _write(folder: Path, domain: SavedDomain) -> None:
    """The file of a domain, whole or not at all."""
    path = folder / DOMAIN_FILE
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


def load_domain(name: str | os.PathLike[str]) -> SavedDomain:
    """The domain in a folder or a repository, also one that `DKDHead.save_pretrained` wrote alone.

    Args:
        name: A folder, or what is none and written `[hf://]OWNER/NAME[@REVISION]`.

    Raises:
        ValueError: There is none, it is damaged, or it does not tell its classes.
        OSError: The Hub cannot be asked, and it is not in the cache.
    """
    on_hub = hub_name(name)
    if on_hub is None:
        path, told = Path(name) / DOMAIN_FILE, f"--domain {os.fspath(name)}"
        remedy = "give a folder that dkd recognise --save-domain, or dkd watch, wrote, or a repository OWNER/NAME"
        if not Path(name).is_dir():
            found = "is a file, and a domain is a folder" if Path(name).exists() else "there is no such folder"
            raise ValueError(f"{told}: {found}; {remedy}")
        if not path.is_file():
            raise ValueError(f"{told}: no domain is in it ({DOMAIN_FILE}); {remedy}")
    else:
        repo_id, revision = on_hub
        path, _ = domain_path(repo_id, HubOptions(revision))
    head = DKDHead.from_pretrained(path.parent).eval()
    names = head.class_names
    if names is None:
        raise ValueError(f"the domain in {os.fspath(name)} does not tell its classes; fit it with class names")
    described = _described(path)
    prompts = described.get("prompts")
    if prompts is not None and len(prompts) != len(names):
        raise ValueError(f"{path} has prompts of {len(prompts)} of {len(names)} classes")
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
