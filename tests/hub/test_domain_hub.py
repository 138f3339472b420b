"""A domain as a repository of its own, against the local Hub."""

import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors import safe_open

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel, DKDHead
from modeling_dkd.cli import main
from modeling_dkd.domain_card import CARD_FILE, PICTURE_FILE
from modeling_dkd.domain_file import DOMAIN_FILE
from modeling_dkd.domain_hub import is_hub_name
from modeling_dkd.encoder_identity import logger as identity_logger
from modeling_dkd.recognition.saved_domain import SavedDomain, hub_name, load_domain, save_domain

from ..test_domain_file import assert_same_head
from ..tiny_checkpoint import save_tiny_clip
from ..toy_domain import toy_domain
from .local_hub import READER, WRITER
from .rows import results_file


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOY = toy_domain(60, 4)
NAMES = ["kneading", "<b>frying|</b>", "washing up", "nothing"]
REPO = "owner/kitchen"


def fitted(videos=TOY.videos, **options):
    head = DKDHead(DKDCLIPConfig(projection_dim=24, logit_scale=60.0, **options))
    return head.fit(videos, TOY.texts, class_names=NAMES).eval()


HEAD = fitted()


@pytest.fixture
def online(api, hub, monkeypatch, tmp_path):
    """The local Hub as the one that everything asks, with somebody who may write logged in."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    # Made of the endpoint when the library is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template[template.index("/{") :])
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.chdir(tmp_path)
    return hub


def test_a_head_is_sent_and_fetched_by_branch_tag_and_commit(online):
    first = HEAD.push_to_hub(REPO, private=True)
    assert set(online.files(REPO)) == {".gitattributes", DOMAIN_FILE, CARD_FILE, PICTURE_FILE}
    assert online.repositories["models", REPO].private
    second = fitted(TOY.videos[:40])
    second.push_to_hub(REPO, commit_message="smaller")
    third = fitted(TOY.videos[:20])
    third.push_to_hub(REPO, revision="draft")
    for revision, head in {None: second, "main": second, first.oid: HEAD, "draft": third}.items():
        loaded = DKDHead.from_pretrained(REPO, revision=revision)
        assert loaded.class_names == NAMES
        assert_same_head(loaded, head)
    assert float(DKDHead.from_pretrained(REPO, video_strength=0.1).config.video_strength) == 0.1


def test_a_pull_request_leaves_the_branch(online):
    HEAD.push_to_hub(REPO)
    done = fitted(TOY.videos[:20]).push_to_hub(REPO, create_pr=True)
    assert done.pr_url
    assert_same_head(DKDHead.from_pretrained(REPO), HEAD)


def test_what_was_fetched_is_there_offline_and_nothing_is_asked_twice(online, monkeypatch):
    done = HEAD.push_to_hub(REPO)
    DKDHead.from_pretrained(REPO)
    asked = len(online.requests)
    DKDHead.from_pretrained(REPO, revision=done.oid)  # a commit that is in the cache
    assert_same_head(DKDHead.from_pretrained(REPO, local_files_only=True), HEAD)
    assert len(online.requests) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same_head(DKDHead.from_pretrained(REPO), HEAD)
    assert len(online.requests) == asked
    with pytest.raises(OSError, match=r"^owner/other is not in the cache, and the Hub could not be asked") as caught:
        DKDHead.from_pretrained("owner/other")
    assert "\n" not in str(caught.value)


def test_nothing_but_the_one_file_is_fetched_and_a_pickle_never(online):
    HEAD.push_to_hub(REPO)
    commit = online.repositories["models", REPO]
    files = commit.commits[commit.resolve("main")]
    files["pytorch_model.bin"] = (pickle.dumps({"a": 1}), False)
    files["code.py"] = (b"raise SystemExit", False)
    before = len(online.requests)
    DKDHead.from_pretrained(REPO)
    fetched = {request.rsplit("/", 1)[-1] for request in online.requests[before:] if "/resolve/" in request}
    assert fetched == {DOMAIN_FILE}


def test_a_pickle_under_the_domains_name_is_not_loaded(online):
    HEAD.push_to_hub(REPO)
    found = online.repositories["models", REPO]

    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    found.commits[found.resolve("main")][DOMAIN_FILE] = (pickle.dumps(Bomb()), False)
    with pytest.raises(ValueError, match=rf"^{DOMAIN_FILE} of {REPO} is not a safetensors file"):
        DKDHead.from_pretrained(REPO)


def test_what_cannot_be_fetched_is_one_clear_sentence(online, pauses, monkeypatch, tmp_path):
    HEAD.push_to_hub(REPO, private=True)
    found = online.repositories["models", REPO]
    refused = {
        ("owner/nothing", None): r"^there is no folder owner/nothing here and no repository of that name",
        (REPO, "v9"): r"^owner/kitchen has no revision v9 on the Hub",
        ("no/folder/here", None): rf"^no/folder/here has no {DOMAIN_FILE}; a domain is written by",
        ("../escape", None): rf"^\.\./escape has no {DOMAIN_FILE}",
    }
    monkeypatch.setenv("HF_TOKEN", READER)
    assert DKDHead.from_pretrained(REPO).is_fitted
    with pytest.raises(ValueError, match=r"^the Hub refuses access to owner/kitchen \(status 403\); log in"):
        HEAD.push_to_hub(REPO)
    for (name, revision), message in refused.items():
        with pytest.raises(ValueError, match=message) as caught:
            DKDHead.from_pretrained(name, revision=revision)
        assert "\n" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"if it is private, log in with `hf auth login` or set HF_TOKEN\.$"):
        DKDHead.from_pretrained(REPO, cache_dir=tmp_path / "empty")
    assert DKDHead.from_pretrained(REPO, token=READER).is_fitted
    whole, _ = found.commits[found.resolve("main")][DOMAIN_FILE]
    found.private = False
    found.commits[found.resolve("main")][DOMAIN_FILE] = (whole[: len(whole) // 2], False)
    with pytest.raises(ValueError, match=rf"^{DOMAIN_FILE} of {REPO} is not a safetensors file"):
        DKDHead.from_pretrained(REPO, cache_dir=tmp_path / "another")
    del found.commits[found.resolve("main")][DOMAIN_FILE]
    with pytest.raises(ValueError, match=rf"^{REPO} holds no domain: it has no {DOMAIN_FILE}\.$"):
        DKDHead.from_pretrained(REPO)
    found.commits[found.resolve("main")]["config.json"] = (b"{}", False)
    with pytest.raises(ValueError, match=rf"^{REPO} is a model and no domain alone; load it with AutoModel"):
        DKDHead.from_pretrained(REPO)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with pytest.raises(ValueError, match=rf"^{REPO} is a model; give the domain a repository of its own\.$"):
        HEAD.push_to_hub(REPO)
    online.fail("GET /api/models", 500, times=20)
    online.fail("HEAD ", 500, times=20)
    with pytest.raises(OSError, match=r"owner/fresh"):
        DKDHead.from_pretrained("owner/fresh")


def test_a_model_takes_a_domain_of_its_encoder_alone(online, tmp_path):
    one, another = (DKDCLIPModel.from_backbone(save_tiny_clip(tmp_path / f"clip-{seed}", seed)) for seed in (0, 1))
    one.fit_domain(video_embeds=TOY.videos, text_embeds=TOY.texts, class_names=NAMES)
    done = one.head.push_to_hub(REPO)
    fresh = DKDCLIPModel.from_backbone(tmp_path / "clip-0").load_domain(REPO, revision=done.oid)
    assert fresh.config.id2label[1] == NAMES[1]
    assert torch.equal(fresh.head.means, one.head.means)
    with pytest.raises(ValueError, match=r"belongs to the encoder clip-0 .* this model's encoder is clip-1"):
        another.load_domain(REPO)
    assert str(tmp_path).encode() not in b"".join(online.files(REPO).values())


def test_another_revision_of_the_encoders_repository_is_a_warning(online, api, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(identity_logger, "warning", lambda text, *values: said.append(text % values))
    api.create_repo("owner/clip")
    commits = []
    for seed in (0, 1):
        folder = save_tiny_clip(tmp_path / f"clip-{seed}", seed)
        commits.append(api.upload_folder(repo_id="owner/clip", folder_path=folder).oid)
    one, two = (DKDCLIPModel.from_backbone("owner/clip", revision=commit) for commit in commits)
    one.fit_domain(video_embeds=TOY.videos, text_embeds=TOY.texts, class_names=NAMES)
    one.head.push_to_hub(REPO)
    encoder = DKDHead.from_pretrained(REPO).encoder
    assert (encoder.name, encoder.revision) == ("owner/clip", commits[0])
    assert ModelCard(online.files(REPO)[CARD_FILE].decode()).data.base_model == "owner/clip"
    DKDCLIPModel.from_backbone("owner/clip", revision=commits[0]).load_domain(REPO)
    assert not said
    two.load_domain(REPO)
    assert len(said) == 1
    assert all(commit in said[0] for commit in commits)


def test_the_card_has_a_table_a_picture_and_what_is_told_of_single_clips(online):
    HEAD.push_to_hub(REPO)
    card, picture = (online.files(REPO)[name].decode() for name in (CARD_FILE, PICTURE_FILE))
    data = ModelCard(card).data
    assert {"dkd-domain", "video"} <= set(data.tags)
    assert "| kneading |" in card
    assert "&lt;b&gt;frying\\|&lt;/b&gt;" in card
    assert "<b>" not in card + picture
    assert "The mean of a class with one clip is the embedding of this clip" in card
    assert f'load_domain("{REPO}")' in card.replace("'", '"')
    assert picture.count("<rect") == 1 + len(NAMES)
    fitted().push_to_hub(REPO, min_clips=12)
    said = online.files(REPO)[CARD_FILE].decode()
    assert "Classes of fewer than 12 clips were withheld" in said


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("owner/name.v2-x", True),
        ("name", False),
        ("./owner/name", False),
        ("a/b/c", False),
        ("/owner/name", False),
        ("owner/..", False),
        ("owner/na me", False),
        ("hf://owner/name", False),
    ],
)
def test_what_is_written_as_a_repository(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name(name) is expected


def test_a_folder_of_that_name_is_the_folder_and_nobody_is_asked(online, tmp_path):
    HEAD.save_pretrained(tmp_path / "owner/kitchen")
    assert_same_head(DKDHead.from_pretrained(REPO), HEAD)
    assert hub_name(REPO) is None
    assert not online.requests


def test_recognition_takes_and_sends_domains(online, tmp_path):
    saved = SavedDomain(HEAD, NAMES, [["x"]] * 4, "own", {"frames": 8}).learned_from(["clip-1"])
    save_domain(f"hf://{REPO}", saved)
    found = online.repositories["models", REPO]
    assert found.private
    commit = found.resolve("main")
    for name in (REPO, f"hf://{REPO}", f"{REPO}@{commit}", f"hf://{REPO}@main"):
        loaded = load_domain(name)
        assert_same_head(loaded.head, HEAD)
        assert (loaded.class_names, loaded.prompts, loaded.encoder) == (NAMES, [["x"]] * 4, "own")
        assert not loaded.learned
    with pytest.raises(ValueError, match="names no repository"):
        save_domain("hf://kitchen", saved)
    with pytest.raises(ValueError, match="has no revision v9"):
        load_domain(f"{REPO}@v9")
    save_domain("owner/local", saved)
    assert (tmp_path / "owner/local" / DOMAIN_FILE).is_file()


@pytest.fixture
def saved_folder(online):
    saved = SavedDomain(HEAD, NAMES, [["x"]] * 4, "own", {"weights": "a" * 64}).learned_from(["clip-1"])
    save_domain("kitchen", saved)
    return Path("kitchen")


def test_the_command_shows_first_and_sends_with_push(online, saved_folder, capsys):
    arguments = ["publish-domain", "kitchen", "--repo_id", REPO]
    before = (saved_folder / DOMAIN_FILE).read_bytes()
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "dry run, nothing was sent" in shown
    assert "| kneading |" in shown
    assert not online.requests
    assert main([*arguments, "--push", "--private"]) == 0
    assert "commit to pin:" in capsys.readouterr().out
    assert set(online.files(REPO)) == {".gitattributes", DOMAIN_FILE, CARD_FILE, PICTURE_FILE}
    assert (saved_folder / DOMAIN_FILE).read_bytes() == before
    loaded = load_domain(REPO)
    assert_same_head(loaded.head, HEAD)
    assert loaded.prompts == [["x"]] * 4
    assert not loaded.learned
    assert main([*arguments, "--push"]) == 2
    assert "exists already; write into it with --update" in capsys.readouterr().err
    assert main([*arguments, "--push", "--update"]) == 0


def test_results_of_the_same_encoder_go_into_the_card(online, saved_folder, tmp_path, capsys):
    import json

    for name, revision in {"own": f"sha256:{'a' * 16}", "other": "sha256:bbb"}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(results_file(revision=revision)))
    arguments = ["publish-domain", "kitchen", "--repo_id", REPO, "--output", "out", "--results"]
    assert main([*arguments, "own.json"]) == 0
    assert "| ucf101 (" in Path("out", CARD_FILE).read_text()
    assert main([*arguments, "other.json"]) == 2
    assert "was measured with the encoder sha256:bbb, but the domain belongs to sha256:aaa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kitchen"], "give the domain a name: --repo_id OWNER/NAME"),
        (["kitchen", "--repo_id", "kitchen"], "lacks the owner"),
        (["nowhere", "--repo_id", REPO], f"nowhere has no {DOMAIN_FILE}"),
        (["kitchen", "--repo_id", REPO, "--min-clips", "5"], "was saved with min_clips=0"),
    ],
)
def test_mistakes_are_one_line(arguments, message, saved_folder, capsys):
    assert main(["publish-domain", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_domain_that_was_withheld_passes_the_minimum(online, capsys):
    fitted().save_pretrained("shared", min_clips=12)
    assert main(["publish-domain", "shared", "--repo_id", REPO, "--min-clips", "12"]) == 0
    assert "Classes of fewer than 12 clips were withheld" in capsys.readouterr().out
    with safe_open(Path("shared", DOMAIN_FILE), framework="pt") as file:
        assert not (file.get_tensor("counts") > 0).logical_and(file.get_tensor("counts") < 11).any()
