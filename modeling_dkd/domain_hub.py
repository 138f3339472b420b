"""A domain as a repository of its own on the Hub: fetched by name, revision or commit, and sent.

Nothing but the one safetensors file is ever fetched, and only for what is no folder here and is written as owner/name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .domain_file import DOMAIN_FILE


NO_MODEL = "is a model and no domain alone; load it with AutoModel.from_pretrained, its domain is in model.head."


@dataclass(frozen=True)
class HubOptions:
    """How a repository is asked.

    Attributes:
        revision: Branch, tag or commit; None: the main branch.
        token: Access token; None: the one of `hf auth login` or HF_TOKEN.
        cache_dir: Where files are kept; None: the usual cache of the Hub.
        local_files_only: Take what is in the cache and ask nobody.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


def is_hub_name(name: str | Path) -> bool:
    """Whether this is no folder here and written as a repository of the Hub, owner/name."""
    text = str(name)
    return not Path(name).exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) is not None and ".." not in text


def domain_path(name_or_folder: str | Path, options: HubOptions) -> tuple[Path, str]:
    """Where the file of a domain is, fetched if need be, and what messages call it.

    Args:
        name_or_folder: A folder, or a repository as owner/name where there is no such folder.
        options: How the Hub is asked.

    Raises:
        ValueError: There is no such folder or repository, it may not be seen, it has no such revision, or it holds no
            domain (one sentence says which).
        OSError: The Hub cannot be asked, and the file is not in the cache.
    """
    if not is_hub_name(name_or_folder):
        path = Path(name_or_folder) / DOMAIN_FILE
        if not path.is_file():
            raise ValueError(f"{name_or_folder} has no {DOMAIN_FILE}; a domain is written by DKDHead.save_pretrained.")
        return path, str(path)
    repo_id = str(name_or_folder)
    at = f" at {options.revision}" if options.revision else ""
    try:
        fetched = hf_hub_download(
            repo_id,
            DOMAIN_FILE,
            revision=options.revision,
            token=options.token,
            cache_dir=options.cache_dir,
            local_files_only=options.local_files_only,
        )
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{repo_id}{at} is not in the cache, and the Hub could not be asked; go online and try again."
        ) from error
    except EntryNotFoundError as error:
        if _is_model(repo_id, options):
            raise ValueError(f"{repo_id} {NO_MODEL}") from error
        raise ValueError(f"{repo_id}{at} holds no domain: it has no {DOMAIN_FILE}.") from error
    except (HTTPError, OSError) as error:
        raise _told(error, repo_id, options.revision) from error
    return Path(fetched), f"{DOMAIN_FILE} of {repo_id}{at}"


def send_domain(
    folder: str | Path,
    repo_id: str,
    private: bool | None = None,
    options: HubOptions | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Send a folder with a domain and its card in one commit; the repository is made where there is none.

    Args:
        folder: All files in it are sent.
        repo_id: As owner/name.
        private: Of a repository that is made; None: what its owner set.
        options: Token, and the branch as `revision`, which is made where there is none.
        commit_message: Of the commit.
        create_pr: Open a pull request instead.

    Raises:
        ValueError: The repository is a model, which a card of a domain would spoil, or the Hub refuses.
        OSError: The Hub cannot be asked.
    """
    options = options or HubOptions()
    api = HfApi(token=options.token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if _is_model(repo_id, options):
            raise ValueError(f"{repo_id} is a model; give the domain a repository of its own.")
        if options.revision and not create_pr:
            api.create_branch(repo_id, branch=options.revision, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=options.revision,
            commit_message=commit_message or "Share a domain",
            create_pr=create_pr,
        )
    except (HTTPError, OSError) as error:
        raise _told(error, repo_id, options.revision) from error


def _is_model(repo_id: str, options: HubOptions) -> bool:
    """Whether the repository has the configuration of a model."""
    try:
        return HfApi(token=options.token).file_exists(repo_id, "config.json", revision=options.revision)
    except (HTTPError, OSError):
        return False


def _told(error: Exception, repo_id: str, revision: str | None) -> Exception:
    """One sentence for what the Hub said."""
    if isinstance(error, RepositoryNotFoundError):
        return ValueError(
            f"there is no folder {repo_id} here and no repository of that name that you may see on the Hub; if it is "
            "private, log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError):
        return ValueError(f"{repo_id} has no revision {revision} on the Hub; look at its branches, tags and commits.")
    if isinstance(error, OfflineModeIsEnabled):
        return OSError(f"{repo_id} cannot be reached: HF_HUB_OFFLINE is set.")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return ValueError(
                f"the Hub refuses access to {repo_id} (status {status}); log in with `hf auth login`, or set HF_TOKEN "
                "to a token that may do this."
            )
        return OSError(f"the Hub failed with status {status} for {repo_id}; try again later.")
    return OSError(f"the Hub could not be asked for {repo_id}: {' '.join(str(error).split())[:200]}; try again.")
