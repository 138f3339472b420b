"""The files of a domain's repository: the domain, its card with a picture, and what was measured with its encoder."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..data.plain_files import read_json
from ..dkd_head import DKDHead
from ..domain_card import CARD_FILE, write_domain_card
from ..domain_file import DOMAIN_FILE, StoredDomain, read_domain, write_domain
from ..recognition.saved_domain import METADATA_KEY
from .card_update import add_results
from .measured_rows import check_results, newest_rows, newest_search_rows, read_folder, rows_of
from .model_card import with_results


def write_domain_repository(
    source: Path, target: Path, repo_id: str, min_clips: int = 0, results: Sequence[Path] = ()
) -> None:
    """Write what is published of a domain.

    Args:
        source: Folder of a saved domain, which stays as it is.
        target: Folder for the repository, made if need be.
        repo_id: As owner/name.
        min_clips: Classes of fewer clips must have been withheld when it was saved.
        results: Files of evaluate.py, measured with the domain's encoder.

    Raises:
        ValueError: There is no whole domain, classes were not withheld, or results belong to another encoder.
    """
    if not (source / DOMAIN_FILE).is_file():
        raise ValueError(f"{source} has no {DOMAIN_FILE}; dkd recognise --save-domain {source} writes one")
    DKDHead.from_pretrained(source)  # refuses what is no whole domain
    domain = read_domain(source / DOMAIN_FILE, str(source / DOMAIN_FILE))
    if domain.min_clips < min_clips:
        raise ValueError(
            f"{source} was saved with min_clips={domain.min_clips}, and only the clips tell what must be left out: "
            f"fit it again with dkd recognise ... --save-domain {source} --min-clips {min_clips}"
        )
    notes = dict(domain.notes)
    described = json.loads(notes.get(METADATA_KEY, "{}"))
    if described:
        # Whoever has a clip could tell from these whether it was there.
        notes[METADATA_KEY] = json.dumps({key: value for key, value in described.items() if key != "learned"})
    write_domain(target, StoredDomain(**vars(domain) | {"notes": notes}))
    card = write_domain_card(target, repo_id)
    for path in results:
        contents = read_json(path)
        check_results(contents, str(path))
        _check_encoder(domain, described.get("encoder_key", {}), contents, path)
        add_results(target, contents)
    if results:
        files = read_folder(target)
        text = with_results(card, newest_rows(files), searches=newest_search_rows(files))
        (target / CARD_FILE).write_text(text, encoding="utf-8")


def _check_encoder(domain: StoredDomain, encoder_key: dict, contents: dict, path: Path) -> None:
    """Refuse figures of another encoder than the domain's, as far as both are known."""
    own = {domain.encoder.revision} if domain.encoder is not None and domain.encoder.revision else set()
    if "weights" in encoder_key:
        own.add(f"sha256:{encoder_key['weights'][:16]}")
    for row in rows_of(contents, str(path)):
        measured = row.data.get("revision")
        if own and measured is not None and measured not in own:
            belongs = " or ".join(sorted(own))
            raise ValueError(f"{path} was measured with the encoder {measured}, but the domain belongs to {belongs}")
