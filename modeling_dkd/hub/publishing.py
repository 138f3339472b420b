"""Publish a finished folder: plan it, show it, and send it in one commit that is checked afterwards.

plan = plan_publication(Path("runs/dkd-tiny"), "dkd/dkd-tiny")
print(describe_plan(plan))
publish(plan, HfApi(), PublishOptions(private=True))

Everything goes up in one commit, code and weights together, or nothing does: large files are stored first, but no
revision names them until the commit. Afterwards the commit is compared, file by file, with what was sent.
"""

import hashlib
import json
import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from ..data.plain_files import read_text
from .card_facts import read_facts
from .model_card import format_bytes, render_card
from .upload_checks import incomplete, select_files


CARD, MODEL_ENTRY = "README.md", "config.json"
# What a publication may remove from a repository that is there: leftovers would be loaded beside the new files.
LEFTOVERS = re.compile(r"[^/]+\.(py|safetensors|safetensors\.index\.json|bin|pt|pth)")
ATTEMPTS = 4
PATIENCE_SECONDS = 120.0
TRANSIENT = (408, 429, 500, 502, 503, 504)

T = TypeVar("T")


class PublishError(ValueError):
    """A publication that did not happen, or must not be used; one sentence with the remedy."""


@dataclass(frozen=True)
class Publication:
    """What would be published.

    Attributes:
        folder: Where the files are.
        repo_id: Where they go.
        repo_type: "model" or "dataset".
        files: Path inside the repository -> bytes.
        left_out: Paths of the folder that stay there.
        problems: Reasons why it cannot be published as it is.
        card: Text of the card that goes up.
        is_card_new: Whether it was written for this repository now, instead of what lies in the folder.
        entry: File without which nobody can load it.
    """

    folder: Path
    repo_id: str
    repo_type: str
    files: Mapping[str, int]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]
    card: str
    is_card_new: bool = False
    entry: str = MODEL_ENTRY


@dataclass(frozen=True)
class PublishOptions:
    """How it is published.

    Attributes:
        private: Of a repository that is made; one that is there keeps what it is.
        revision: Branch; None is the main one.
        create_pr: Open a pull request instead of writing to the branch.
        update: Write into a repository that is there already.
        message: Of the commit.
    """

    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    update: bool = False
    message: str | None = None


@dataclass(frozen=True)
class Published:
    """What was published: the commit to pin, and where to look at it."""

    commit: str
    url: str
    pr_url: str | None


def plan_publication(folder: Path, repo_id: str, repo_type: str = "model", entry: str = MODEL_ENTRY) -> Publication:
    """Look at a folder without touching it or the network.

    Args:
        folder: Where the files are.
        repo_id: Where they would go.
        repo_type: "model" or "dataset".
        entry: File that loads it: of a model its configuration, and all that a model needs must be there.

    Raises:
        PublishError: There is no such folder, or the repository's name is none.
    """
    if not folder.is_dir():
        raise PublishError(f"there is no folder {folder}; train.py, save_pretrained or evaluate.py write one")
    require_name(repo_id)
    selection = select_files(folder, repo_type)
    problems = list(selection.problems)
    if repo_type == "model" and entry == MODEL_ENTRY and not problems:
        problems += incomplete(folder, selection.files)
    path = folder / CARD
    card = read_text(path) if path.is_file() else ""
    renamed = renamed_card(folder, card, repo_id) if repo_type == "model" and not problems else None
    if card and repo_id not in card and renamed is None:
        problems.append(
            f"{CARD} loads another repository than {repo_id}; write it anew with: "
            f"dkd card {folder} --repo_id {repo_id}"
        )
    sizes = {name: (folder / name).stat().st_size for name in selection.files}
    if renamed is not None:
        card, sizes[CARD] = renamed, len(renamed.encode())
    told = selection.left_out, tuple(problems), card, renamed is not None
    return Publication(folder, repo_id, repo_type, sizes, *told, entry)


def renamed_card(folder: Path, card: str, repo_id: str) -> str | None:
    """The card of a model for this repository, where it was written for another and nobody has changed it since."""
    written_for = re.search(r'^name, revision = ("(?:[^"\\]|\\.)*"), ', card, re.MULTILINE)
    if written_for is None or repo_id in card:
        return None
    try:
        if card != render_card(read_facts(folder, json.loads(written_for[1]))):
            return None
        return render_card(read_facts(folder, repo_id))
    except ValueError:  # a file that cannot be read is told where it is needed
        return None


def require_name(repo_id: str) -> None:
    """Refuse what is no owner/name."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(f"{repo_id!r} is no name of a repository: {error}") from error
    if "/" not in repo_id:
        raise PublishError(f"{repo_id!r} lacks the owner: give owner/{repo_id}")


def describe_plan(plan: Publication) -> str:
    """Files, sizes, what stays behind, what is in the way, and the card."""
    width = max((len(name) for name in plan.files), default=0)
    lines = [f"{plan.repo_type} {plan.repo_id}, from {plan.folder}", ""]
    lines += [f"  {name:<{width}}  {format_bytes(size):>9}" for name, size in plan.files.items()]
    lines += ["", f"  {len(plan.files)} files, {format_bytes(sum(plan.files.values()))}"]
    if plan.left_out:
        named = ", ".join(plan.left_out[:5]) + (" ..." if len(plan.left_out) > 5 else "")
        lines.append(f"  left out: {len(plan.left_out)} files ({named})")
    lines += ["", f"----- {CARD}", plan.card.rstrip(), "-----"]
    if plan.problems:
        lines += ["", "cannot be published:", *(f"  - {problem}" for problem in plan.problems)]
    return "\n".join(lines)


def publish(plan: Publication, api: HfApi, options: PublishOptions) -> Published:
    """Make the repository where it is not there, send one commit, and compare it with the folder.

    Args:
        plan: Without problems.
        api: Knows the endpoint and the token.
        options: Where to and how.

    Raises:
        PublishError: It has problems, or the Hub refused; or what arrived differs, in which case it has been made
            unloadable.
    """
    if plan.problems:
        raise PublishError(f"{plan.folder} cannot be published: {'; '.join(plan.problems)}")
    contents = {name: (plan.folder / name).read_bytes() for name in plan.files if plan.files[name] < 1_000_000}
    if plan.is_card_new:
        contents[CARD] = plan.card.encode()
    digests = {name: digests_of(contents.get(name) or plan.folder / name) for name in plan.files}
    head = _open_repository(plan, api, options)
    remote = with_retries(lambda: _remote_digests(plan, api, head), plan.repo_id) if head else {}
    leftovers = sorted(name for name in remote if LEFTOVERS.fullmatch(name) and name not in plan.files)
    message = options.message or f"Publish {plan.repo_id.rsplit('/', 1)[-1]}"

    def commit() -> tuple[str, CommitInfo | None]:
        additions = [CommitOperationAdd(name, contents.get(name) or plan.folder / name) for name in plan.files]
        info = api.create_commit(
            plan.repo_id,
            [*additions, *(CommitOperationDelete(name) for name in leftovers)],
            commit_message=message,
            repo_type=plan.repo_type,
            revision=options.revision,
            create_pr=options.create_pr,
            parent_commit=head if not options.create_pr else None,
        )
        return info.oid, info

    def arrived() -> tuple[str, None] | None:
        """The commit, where an answer was lost on its way though the Hub had taken it."""
        if options.create_pr:
            return None
        sha = _head(plan, api, options)
        is_ours = sha and sha != head and not _differences(digests, _remote_digests(plan, api, sha))
        return (sha, None) if sha and is_ours else None

    try:
        sha, info = with_retries(commit, plan.repo_id, arrived)
    except PublishError as error:
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError) and 400 <= cause.response.status_code < 500:
            raise PublishError(f"{error}; nothing was published") from cause
        raise
    _verify(plan, api, options, digests, sha, head)
    url = f"{api.endpoint}/{'datasets/' if plan.repo_type == 'dataset' else ''}{plan.repo_id}"
    return Published(sha, f"{url}/tree/{sha}", info.pr_url if info else None)


def require_token(api: HfApi) -> None:
    """Refuse to begin without a token.

    Raises:
        PublishError: There is none.
    """
    if not (api.token or get_token()):
        raise PublishError("no Hugging Face token: log in with `hf auth login`, or set HF_TOKEN to one that may write")


def _open_repository(plan: Publication, api: HfApi, options: PublishOptions) -> str | None:
    """Make the repository, or find the one to write into; returns the commit that the new one follows."""
    require_token(api)
    if not (options.update or options.create_pr):
        _make_repository(plan, api, options.private)
    branch = options.revision
    if branch and branch != "main" and not options.create_pr:
        with_retries(
            lambda: api.create_branch(plan.repo_id, branch=branch, repo_type=plan.repo_type, exist_ok=True),
            plan.repo_id,
        )
    return with_retries(lambda: _head(plan, api, options), plan.repo_id)


def _make_repository(plan: Publication, api: HfApi, private: bool) -> None:
    """Make an empty repository; one without a card is what an interrupted publication leaves, and is gone on with."""
    try:
        with_retries(lambda: api.create_repo(plan.repo_id, repo_type=plan.repo_type, private=private), plan.repo_id)
    except PublishError as error:
        cause = error.__cause__
        if not isinstance(cause, HfHubHTTPError) or cause.response.status_code != 409:
            raise
        if CARD in with_retries(lambda: _remote_digests(plan, api, "main"), plan.repo_id):
            raise PublishError(
                f"{plan.repo_id} exists already; write into it with --update, or propose it with --pr"
            ) from error


def _head(plan: Publication, api: HfApi, options: PublishOptions) -> str | None:
    """Newest commit of the branch."""
    return api.repo_info(plan.repo_id, repo_type=plan.repo_type, revision=options.revision).sha


def digests_of(content: bytes | Path) -> tuple[int, str, str]:
    """Size, git blob hash and SHA-256: what the Hub knows a small or a large file by."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    git, sha = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), hashlib.sha256()
    if isinstance(content, bytes):
        git.update(content)
        sha.update(content)
    else:
        with content.open("rb") as file:
            while chunk := file.read(1 << 20):
                git.update(chunk)
                sha.update(chunk)
    return size, git.hexdigest(), sha.hexdigest()


def _remote_digests(plan: Publication, api: HfApi, revision: str) -> dict[str, tuple[int, str, str | None]]:
    """Size, git blob hash and, for a large file, SHA-256 of every file of a revision."""
    try:
        tree = list(api.list_repo_tree(plan.repo_id, repo_type=plan.repo_type, revision=revision, recursive=True))
    except EntryNotFoundError:
        return {}
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    return {file.path: (file.size, file.blob_id, file.lfs.sha256 if file.lfs else None) for file in files}


def _differences(
    digests: Mapping[str, tuple[int, str, str]], remote: Mapping[str, tuple[int, str, str | None]]
) -> list[str]:
    """Files that are not in the revision as they were sent."""
    different = []
    for name, (size, git, sha) in digests.items():
        there = remote.get(name)
        same = there is not None and there[0] == size and (there[2] == sha if there[2] else there[1] == git)
        if not same:
            different.append(name)
    return different


def _verify(
    plan: Publication,
    api: HfApi,
    options: PublishOptions,
    digests: Mapping[str, tuple[int, str, str]],
    revision: str,
    previous: str | None,
) -> None:
    """Compare the published revision with the folder; one that differs is made unloadable."""
    try:
        remote = with_retries(lambda: _remote_digests(plan, api, revision), plan.repo_id)
    except PublishError as error:
        raise PublishError(
            f"{plan.repo_id} was published as {revision}, but could not be compared: {error}"
        ) from error
    different = _differences(digests, remote)
    if not different:
        return
    said = f"{', '.join(different[:5])}{' ...' if len(different) > 5 else ''} arrived at {plan.repo_id} changed"
    if options.create_pr:
        raise PublishError(f"{said}: close the pull request ({revision}) and publish again")
    # Without its entry a model does not load; of a data set any table loads alone, so the changed ones go too.
    entry = plan.entry if plan.repo_type == "model" else CARD
    withdrawn = sorted({entry, *different} & remote.keys())
    with_retries(
        lambda: api.create_commit(
            plan.repo_id,
            [CommitOperationDelete(name) for name in withdrawn],
            commit_message=f"Withdraw {revision[:12]}: files differ from what was sent",
            repo_type=plan.repo_type,
            revision=options.revision,
        ),
        plan.repo_id,
    )
    raise PublishError(
        f"{said}: they and {entry} have been removed again, so that nobody loads them; "
        f"publish again with --update; the revision before it is {previous or 'an empty repository'}"
    )


def with_retries(call: Callable[[], T], repo_id: str, arrived: Callable[[], T | None] = lambda: None) -> T:
    """Call the Hub; after a fault that passes, wait as long as it asks for and call again.

    huggingface_hub repeats some calls by itself, which ones depends on its version.

    Args:
        call: What to do, from the beginning each time.
        repo_id: For the message.
        arrived: Asked before it is called again: the result, if the Hub had already done it.

    Raises:
        PublishError: The Hub refused, or the fault did not pass.
    """
    started = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # advice on metadata, given when the card is written
                return call()
        except (HTTPError, RuntimeError, ValueError, OSError) as error:
            fault = _fault_in(error)
            last = attempt == ATTEMPTS or time.monotonic() - started > PATIENCE_SECONDS
            if last or not _is_transient(fault):
                raise PublishError(explain(error, repo_id)) from (fault or error)
            time.sleep(_pause(fault, attempt))
            # A broken connection or a gateway that gave up says nothing of what the Hub did.
            with suppress(HTTPError, OSError, ValueError):
                found = arrived()
                if found is not None:
                    return found
    raise AssertionError("unreachable")


def _fault_in(error: BaseException) -> BaseException | None:
    """The HTTP or network error behind an error; huggingface_hub wraps those of large files."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, HTTPError | JSONDecodeError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _is_network(fault: BaseException | None) -> bool:
    """Whether there was no answer, or one that broke off."""
    return fault is not None and not isinstance(fault, HfHubHTTPError)


def _is_transient(fault: BaseException | None) -> bool:
    """Whether the same call may succeed in a while."""
    return _is_network(fault) or (isinstance(fault, HfHubHTTPError) and fault.response.status_code in TRANSIENT)


def _pause(fault: BaseException | None, attempt: int) -> float:
    """Seconds to wait: what the Hub asks for, else twice as long each time."""
    asked = fault.response.headers.get("retry-after", "") if isinstance(fault, HfHubHTTPError) else ""
    return min(float(asked), PATIENCE_SECONDS) if asked.isdigit() else float(2 ** (attempt - 1))


def explain(error: Exception, repo_id: str) -> str:
    """One sentence for the user: what the Hub said and what to do."""
    fault = _fault_in(error)
    if not isinstance(fault, HfHubHTTPError):
        if fault is not None:
            return f"the connection to the Hub broke ({str(fault) or type(fault).__name__}): try again"
        return f"{repo_id} was not published: {' '.join(str(error).split())}"
    status = fault.response.status_code
    owner = repo_id.split("/")[0]
    said = {
        401: "the Hub does not accept the token: log in again with `hf auth login`, or set HF_TOKEN",
        403: f"the token has no right to write to {owner}: use one with write access, or another --repo_id",
        404: f"there is no repository or revision of that name for {repo_id}, or the token may not see it",
        409: f"the Hub reports a conflict at {repo_id}, as when somebody else writes to it: look at it and try again",
        412: f"{repo_id} was changed by somebody else meanwhile: look at it and publish again",
        413: "the Hub says that a file is too large",
        429: "the Hub asks for patience (too many requests): try again later",
    }.get(status, f"the Hub failed with status {status}: try again later")
    return said
