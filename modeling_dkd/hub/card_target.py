"""The card that `evaluate.py --update_card` writes to: in a folder, or in a repository of the Hub by one commit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download

from ..data.plain_files import read_text
from .card_update import CARD, check_weights, is_card_file, update_folder, updated, weights_revision
from .measured_rows import rows_of
from .publishing import PublishError, require_name, require_token, with_retries
from .upload_checks import said_in


def require_card(where: str, api: HfApi | None = None) -> None:
    """Find out before a long evaluation whether its rows can be written.

    Raises:
        ValueError: There is no card in the folder, no such repository, no card in it, or no token.
    """
    if Path(where).is_dir():
        if not (Path(where) / CARD).is_file():
            raise ValueError(f"{where} holds no {CARD}; write one with: dkd card {where}")
        return
    api = api or HfApi()
    try:
        require_name(where)
    except PublishError as error:
        raise ValueError(f"--update_card: {where} is neither a folder nor owner/name of a repository") from error
    require_token(api)
    if CARD not in _card_files(api, where, _head(api, where)):
        raise ValueError(f"{where} holds no {CARD}: publish the model first")


def update_card(where: str, contents: Mapping[str, Any], model: str | None = None, api: HfApi | None = None) -> str:
    """Bring results into the card of a folder or repository.

    Args:
        where: Folder, or owner/name.
        contents: Results as evaluate.py writes them.
        model: Folder or repository that was measured, where one was.
        api: Knows the endpoint and the token; None for the user's own.

    Returns:
        What was written, for people.

    Raises:
        ValueError: The figures are of other encoders, the card cannot be read, or the Hub refused.
    """
    rows = rows_of(contents, "results")
    folder = Path(where)
    if folder.is_dir():
        is_itself = model is not None and Path(model).is_dir() and Path(model).samefile(folder)
        check_weights(rows, None if is_itself else weights_revision(folder), where)
        changed = update_folder(folder, contents)
        return f"{where}: {', '.join(changed)}"
    for row in rows:
        if row.data.get("backbone") != where:
            raise ValueError(
                f"the results are of {row.data.get('backbone')}, not of {where}: measure with --model {where}"
            )
    api = api or HfApi()
    head = _head(api, where)
    texts = {name: _read(api, where, name, head) for name in _card_files(api, where, head)}
    changes = updated(texts, contents)
    for name, text in changes.items():
        for problem in said_in(text or ""):
            raise ValueError(f"{name} {problem}")
    operations = [
        CommitOperationDelete(name) if text is None else CommitOperationAdd(name, text.encode())
        for name, text in sorted(changes.items())
    ]

    def commit() -> str:
        return api.create_commit(where, operations, commit_message="Update results", parent_commit=head).commit_url

    def arrived() -> str | None:
        """Address of the commit, where an answer was lost on its way though the Hub had taken it."""
        sha = _head(api, where)
        files = _card_files(api, where, sha) if sha != head else []
        is_ours = sha != head and all(
            name not in files if text is None else name in files and _read(api, where, name, sha) == text
            for name, text in changes.items()
        )
        return f"{api.endpoint}/{where}/commit/{sha}" if is_ours else None

    return with_retries(commit, where, arrived)


def _head(api: HfApi, repo_id: str) -> str:
    sha = with_retries(lambda: api.model_info(repo_id), repo_id).sha
    assert sha is not None
    return sha


def _card_files(api: HfApi, repo_id: str, revision: str) -> list[str]:
    files = with_retries(lambda: api.list_repo_files(repo_id, revision=revision), repo_id)
    return [name for name in files if is_card_file(name)]


def _read(api: HfApi, repo_id: str, name: str, revision: str) -> str:
    path = with_retries(
        lambda: hf_hub_download(repo_id, name, revision=revision, token=api.token, endpoint=api.endpoint), repo_id
    )
    return read_text(path)
