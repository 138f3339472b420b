import os

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

from modeling_dkd.hub.card_facts import read_facts
from modeling_dkd.hub.card_update import write_card
from modeling_dkd.hub.model_card import render_card
from modeling_dkd.hub.publishing import PublishError, PublishOptions, describe_plan, plan_publication, publish

from .local_hub import READER


# huggingface_hub hands large files to its HTTP client in a way that the client has another name for by now.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "owner/tiny"


def send(folder, api, **options):
    return publish(plan_publication(folder, NAME), api, PublishOptions(**options))


def contents_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_plan_shows_files_sizes_and_the_card_and_touches_nothing(folder, hub):
    (folder / "best").mkdir()
    (folder / "best/model.safetensors").write_bytes(b"x")
    (folder / "events.out.tfevents.1").write_bytes(b"x")
    before = contents_of(folder)
    plan = plan_publication(folder, NAME)
    shown = describe_plan(plan)
    assert not plan.problems
    assert "model.safetensors" in shown
    assert "2.4 MB" in shown
    assert plan.left_out == ("events.out.tfevents.1", "best/model.safetensors")
    assert "best/model.safetensors" not in plan.files
    assert "AutoModel.from_pretrained(name" in shown
    assert contents_of(folder) == before
    assert hub.requests == []


def test_everything_arrives_in_one_commit(folder, hub, api):
    done = send(folder, api, private=True)
    repository = hub.repositories["models", NAME]
    assert repository.private
    assert len(repository.commits) == 2  # the empty one that the Hub makes, and ours
    arrived = hub.files(NAME, done.commit)
    assert arrived.pop(".gitattributes")
    assert arrived == contents_of(folder)


def test_a_repository_that_exists_is_asked_for(folder, hub, api):
    first = send(folder, api)
    with pytest.raises(PublishError, match="owner/tiny exists already; write into it with --update"):
        send(folder, api)
    hub.repositories["models", NAME].commits[first.commit]["old_code.py"] = (b"stale", False)
    hub.repositories["models", NAME].commits[first.commit]["NOTES.md"] = (b"of somebody", False)
    (folder / "card_notes.md").write_text("Changed.\n")
    second = send(folder, api, update=True)
    files = hub.files(NAME)
    assert hub.repositories["models", NAME].refs["main"] == second.commit
    assert files["card_notes.md"] == b"Changed.\n"
    assert "old_code.py" not in files
    assert files["NOTES.md"] == b"of somebody"


def test_updating_what_is_not_there_is_refused(folder, hub, api):
    with pytest.raises(PublishError, match="no repository or revision of that name"):
        send(folder, api, update=True)
    assert not hub.repositories


def test_a_pull_request_and_a_branch_leave_main_alone(folder, hub, api):
    first = send(folder, api)
    (folder / "card_notes.md").write_text("Changed.\n")
    proposed = send(folder, api, create_pr=True)
    assert proposed.pr_url == f"{hub.url}/{NAME}/discussions/1"
    branched = send(folder, api, update=True, revision="v2")
    repository = hub.repositories["models", NAME]
    assert repository.refs["refs/pr/1"] == proposed.commit
    assert repository.refs["v2"] == branched.commit
    assert repository.refs["main"] == first.commit


@pytest.mark.parametrize(
    ("token", "message"),
    [("hf_unknown", "does not accept the token"), (READER, "no right to write to owner")],
)
def test_rights_are_explained(folder, hub, api, token, message):
    with pytest.raises(PublishError, match=message):
        send(folder, HfApi(endpoint=hub.url, token=token))
    assert not hub.repositories


def test_no_token_is_said_before_anything_is_sent(folder, hub, api, monkeypatch):
    monkeypatch.setattr("modeling_dkd.hub.publishing.get_token", lambda: None)
    with pytest.raises(PublishError, match="log in with `hf auth login`"):
        send(folder, HfApi(endpoint=hub.url))
    assert not hub.requests


CALLS = {
    "create": "POST /api/repos/create",
    "validate": "POST /api/validate-yaml",
    "preupload": "preupload",
    "batch": "objects/batch",
    "put": "PUT /lfs",
    "verify": "verify",
    "commit": "/commit/",
    "tree": "GET .*/tree/",
}


@pytest.mark.parametrize("fault", [429, *(pytest.param(fault, marks=pytest.mark.slow) for fault in (503, "cut"))])
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_that_passes_is_waited_for(folder, hub, api, pauses, call, fault):
    headers = {"Retry_After": "7"} if fault == 429 else {}
    hub.fail(CALLS[call], fault, **headers)
    done = send(folder, api)
    arrived = hub.files(NAME, done.commit)
    assert {name: arrived[name] for name in contents_of(folder)} == contents_of(folder)
    assert len(hub.repositories["models", NAME].commits) == 2
    assert pauses
    # An older huggingface_hub asks again after a second; a newer one adds a second to what it is told.
    if fault == 429 and hasattr(_http, "_parse_retry_after"):
        assert max(pauses) in (7, 8)


def test_a_commit_whose_answer_was_lost_is_not_made_twice(folder, hub, api, pauses):
    hub.fail("/commit/", "cut after")
    done = send(folder, api)
    repository = hub.repositories["models", NAME]
    assert repository.refs["main"] == done.commit
    assert len(repository.commits) == 2


def test_a_repository_whose_making_was_not_answered_is_gone_on_with(folder, hub, api, pauses):
    hub.fail("POST /api/repos/create", "cut after")
    assert hub.files(NAME, send(folder, api).commit).keys() >= contents_of(folder).keys()


@pytest.mark.parametrize("call", ["preupload", "put", "commit"])
def test_a_fault_that_lasts_leaves_nothing_that_loads_and_can_be_repeated(folder, hub, api, pauses, call):
    hub.fail(CALLS[call], 503, times=100)
    with pytest.raises(PublishError, match="the Hub failed with status 503"):
        send(folder, api)
    assert hub.files(NAME).keys() == {".gitattributes"}
    hub.faults.clear()
    assert hub.files(NAME, send(folder, api).commit).keys() >= contents_of(folder).keys()


def test_a_connection_that_never_holds_is_named(folder, hub, api, pauses):
    hub.fail("PUT /lfs", "cut", times=100)
    with pytest.raises(PublishError, match="the connection to the Hub broke"):
        send(folder, api)
    assert hub.files(NAME).keys() == {".gitattributes"}


def test_rights_that_end_in_the_middle_publish_nothing(folder, hub, api):
    hub.fail("/commit/", 403, times=9)
    with pytest.raises(PublishError, match=r"no right to write.*nothing was published"):
        send(folder, api)
    assert hub.files(NAME).keys() == {".gitattributes"}


@pytest.mark.parametrize(
    ("status", "message"), [(401, "does not accept the token"), (409, "reports a conflict at owner/tiny")]
)
def test_a_refusal_in_the_middle_publishes_nothing(folder, hub, api, status, message):
    hub.fail("/commit/", status, times=9)
    with pytest.raises(PublishError, match=f"{message}.*nothing was published"):
        send(folder, api)
    assert hub.files(NAME).keys() == {".gitattributes"}


def test_weights_that_arrive_changed_are_withdrawn(folder, hub, api):
    hub.corrupt_uploads = True
    with pytest.raises(PublishError, match=r"model\.safetensors arrived at owner/tiny changed.*removed again"):
        send(folder, api)
    assert not {"config.json", "model.safetensors"} & hub.files(NAME).keys()
    hub.corrupt_uploads = False
    hub.large.clear()
    done = send(folder, api, update=True)
    assert hub.files(NAME, done.commit)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_a_revision_that_cannot_be_compared_is_not_called_unpublished(folder, hub, api, pauses):
    # Every revision but the empty one that the local Hub begins with.
    hub.fail("GET .*/tree/(?!000cb3cb)", 503, times=100)
    with pytest.raises(PublishError, match=r"was published as \w{40}, but could not be compared: the Hub failed"):
        send(folder, api)


def test_a_branch_that_moved_meanwhile_is_left_alone(folder, hub, api):
    send(folder, api)
    hub.fail("/commit/", 412)
    (folder / "card_notes.md").write_text("Changed.\n")
    with pytest.raises(PublishError, match="changed by somebody else meanwhile"):
        send(folder, api, update=True)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("pytorch_model.bin", b"x", "pickle"),
        ("weights.json", b"\x80\x04x", "pickle under another name"),
        ("notes.md", b"token hf_" + b"a" * 34, "holds a Hugging Face token"),
        ("notes.md", b"-----BEGIN RSA PRIVATE KEY-----", "holds a private key"),
        ("notes.md", b'api_key: "0123456789abcdef"', "holds a secret"),
        (".env", b"A=1", "named like a secret"),
        ("notes.md", b"made in /home/somebody/work/x", "names a path of a machine"),
        ("notes.md", b"made in C:\\Users\\me\\x", "names a path of a machine"),
        ("clip.mp4", b"x", "is data"),
        ("train.csv", b"x", "is data"),
        ("table.parquet", b"x", "is data"),
        ("program.exe", b"x", "of a kind that no repository"),
        ("broken.json", b"{", "not valid JSON"),
    ],
)
def test_what_must_not_go_up_stops_it(folder, hub, api, name, content, problem):
    (folder / name).write_bytes(content)
    plan = plan_publication(folder, NAME)
    assert any(name in said and problem in said for said in plan.problems), plan.problems
    assert "aaaaaaaa" not in describe_plan(plan).split("cannot be published")[1]
    with pytest.raises(PublishError, match="cannot be published"):
        publish(plan, api, PublishOptions())
    assert not hub.requests


def test_links_out_of_the_folder_and_caches_are_refused(folder, tmp_path):
    from safetensors.torch import save_file
    from torch import zeros

    (tmp_path / "outside.md").write_text("x")
    (folder / "inside.md").symlink_to(tmp_path / "outside.md")
    (folder / "linked").symlink_to(tmp_path)
    save_file({"video_embeds": zeros(2, 3), "labels": zeros(2)}, folder / "cache.safetensors")
    said = "\n".join(plan_publication(folder, NAME).problems)
    assert "inside.md: is a link that leads out" in said
    assert "linked: is a link that leads out" in said
    assert "cache.safetensors: holds embeddings of clips" in said


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "svgd.py", "processor_config.json"])
def test_what_would_not_load_is_refused(folder, name):
    (folder / name).unlink()
    said = " ".join(plan_publication(folder, NAME).problems)
    assert f"{name} is missing" in said or f"{name}, which" in said


def test_a_card_that_loads_another_repository_is_refused(folder):
    said = plan_publication(folder, "owner/other").problems
    assert any("--repo_id owner/other" in problem for problem in said)


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "owner/na me"])
def test_names_that_are_none(folder, name):
    with pytest.raises(PublishError, match=r"name of a repository|lacks the owner"):
        plan_publication(folder, name)


def test_no_folder(tmp_path):
    with pytest.raises(PublishError, match="there is no folder"):
        plan_publication(tmp_path / "nowhere", NAME)
    assert os.listdir(tmp_path) == []


def test_an_untouched_card_is_written_anew_for_another_repository(folder, hub, api):
    write_card(folder, "owner/tiny")
    before = contents_of(folder)
    plan = plan_publication(folder, "me/x")
    assert not plan.problems
    assert 'name, revision = "me/x", ' in describe_plan(plan)
    assert plan.files["README.md"] == len(plan.card.encode())
    done = publish(plan, api, PublishOptions())
    arrived = hub.files("me/x", done.commit)
    assert arrived["README.md"].decode() == plan.card == render_card(read_facts(folder, "me/x"))
    assert contents_of(folder) == before
    # What somebody has written into it is not thrown away.
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMy own words.\n")
    assert any("loads another repository" in problem for problem in plan_publication(folder, "me/x").problems)
