import json

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings
from modeling_dkd.evaluation.command import main as evaluate
from modeling_dkd.hub.card_target import require_card, update_card
from modeling_dkd.hub.card_update import update_folder, weights_revision, write_card
from modeling_dkd.hub.publishing import PublishOptions, plan_publication, publish

from .local_hub import READER
from .rows import results_file


pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "owner/tiny"


def values_of(text):
    return {(r.dataset_type, r.metric_name): r.metric_value for r in ModelCard(text).data.eval_results}


def test_results_go_into_card_entries_and_a_file_of_their_own(folder):
    before = values_of((folder / "README.md").read_text())
    changed = update_folder(folder, results_file())
    name = "results/20260102T030405-ucf101.json"
    assert changed == [".eval_results/ucf101.yaml", "README.md", name]
    after = values_of((folder / "README.md").read_text())
    assert before.items() <= after.items()
    assert after["ucf101", "top-1, dkd"] == 0.61
    assert "/home/me" not in (folder / name).read_text()
    # The whole card, written anew, says the same.
    updated = (folder / "README.md").read_text()
    assert values_of(write_card(folder, NAME)) == values_of(updated)


def test_a_second_evaluation_replaces_its_own_rows(folder):
    update_folder(folder, results_file({"zero-shot": 0.5, "stata": 0.52}))
    changed = update_folder(folder, results_file({"zero-shot": 0.5, "dkd": 0.7}, date="2026-03-01T00:00:00+00:00"))
    assert "results/20260102T030405-ucf101.json" not in changed  # its row of stata still counts
    update_folder(folder, results_file({"zero-shot": 0.4, "stata": 0.5}, date="2026-04-01T00:00:00+00:00"))
    assert not (folder / "results/20260102T030405-ucf101.json").exists()
    values = values_of((folder / "README.md").read_text())
    assert values["ucf101", "top-1, dkd"] == 0.71
    assert ("ucf101", "top-1, stata") not in values  # a peer: in the table alone
    assert "| stata | 51.00 |" in (folder / "README.md").read_text()
    assert (folder / "README.md").read_text().count("| **dkd** | **71.00**") == 1


def test_entries_that_others_made_survive_a_new_card(folder):
    card = ModelCard.load(folder / "README.md")
    foreign = card.data.eval_results[0]
    foreign.metric_args, foreign.dataset_type, foreign.metric_value = None, "theirs", 0.123
    (folder / "README.md").write_text(str(card))
    assert values_of(write_card(folder, NAME))["theirs", foreign.metric_name] == 0.123


def test_figures_of_other_encoders_are_refused(folder):
    where = str(folder)
    with pytest.raises(ValueError, match=r"measured with the encoders sha256:abc, but .* holds sha256:"):
        update_card(where, results_file())
    with pytest.raises(ValueError, match="do not say which encoders they belong to"):
        update_card(where, results_file(revision=None))
    own = results_file(revision=weights_revision(folder))
    assert "README.md" in update_card(where, own)
    assert "README.md" in update_card(where, results_file(), model=where)


def test_a_place_without_a_card_is_refused_before_anything_runs(tmp_path, folder, hub, api):
    (folder / "README.md").unlink()
    with pytest.raises(ValueError, match=r"holds no README\.md"):
        require_card(str(folder))
    with pytest.raises(ValueError, match="neither a folder nor owner/name"):
        require_card(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no repository or revision"):
        require_card("owner/nowhere", api)


def test_evaluate_finds_out_at_once(tmp_path, capsys):
    assert evaluate(["--embeddings", "unread.npz", "--update_card", str(tmp_path)]) == 2
    assert "holds no README.md; write one with" in capsys.readouterr().err


def test_evaluate_writes_its_rows_of_a_cache_into_the_card(folder, tmp_path, capsys):
    torch.manual_seed(0)
    dim, known = 64, {"dataset": "clips", "backbone": "tiny", "revision": weights_revision(folder)}
    texts, labels = torch.randn(3, dim), torch.arange(30) % 3
    embeds = texts[labels] + 2 * torch.randn(30, dim)
    write_embeddings(tmp_path / "own.safetensors", EmbeddingSet(embeds, labels, texts, known))
    command = ["--protocols", "induct", "--seeds", "2", "--embeddings", str(tmp_path / "own.safetensors")]
    output = tmp_path / "results.json"
    assert evaluate([*command, "--output", str(output), "--update_card", str(folder)]) == 0
    values = values_of((folder / "README.md").read_text())
    for method in ("zero-shot", "dkd"):
        top1 = [row["top1"] for row in json.loads(output.read_text())["rows"] if row["method"] == method]
        assert values["own", f"top-1, {method}"] == pytest.approx(sum(top1) / 2, abs=1e-6)


def test_a_repository_is_updated_by_one_commit(folder, hub, api):
    publish(plan_publication(folder, NAME), api, PublishOptions())
    before = hub.files(NAME)
    require_card(NAME, api)
    update_card(NAME, results_file(backbone=NAME), api=api)
    after = hub.files(NAME)
    added = {".eval_results/ucf101.yaml", "results/20260102T030405-ucf101.json"}
    assert after.keys() - before.keys() == added
    assert {name for name in before if before[name] != after[name]} == {"README.md"}
    assert values_of(after["README.md"].decode())["ucf101", "top-1, dkd"] == 0.61
    assert json.loads(after["results/20260102T030405-ucf101.json"])["measured"]
    with pytest.raises(ValueError, match="the results are of clip, not of owner/tiny"):
        update_card(NAME, results_file(), api=api)


def test_a_card_whose_answer_was_lost_is_not_written_twice(folder, hub, api, pauses):
    publish(plan_publication(folder, NAME), api, PublishOptions())
    hub.fail("/commit/", "cut after")
    done = update_card(NAME, results_file(backbone=NAME), api=api)
    repository = hub.repositories["models", NAME]
    assert done.endswith(f"/commit/{repository.refs['main']}")
    assert len(repository.commits) == 3
    assert "results/20260102T030405-ucf101.json" in hub.files(NAME)


def test_a_reader_cannot_update_and_somebody_elses_commit_is_not_lost(folder, hub, api):
    publish(plan_publication(folder, NAME), api, PublishOptions())
    before = hub.files(NAME)
    with pytest.raises(ValueError, match="no right to write"):
        update_card(NAME, results_file(backbone=NAME), api=HfApi(endpoint=hub.url, token=READER))
    hub.fail("/commit/", 412)
    with pytest.raises(ValueError, match="changed by somebody else meanwhile"):
        update_card(NAME, results_file(backbone=NAME), api=api)
    assert hub.files(NAME) == before
