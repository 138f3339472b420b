"""Archives that are read once, as a stream, by whoever claims them: clips, kills, resumes, damage."""

import os
import shutil
import time

import pytest
import torch
from accelerate import Accelerator

from modeling_dkd.data.hub_stream import stream_pieces
from modeling_dkd.embedding import streamed_embedding
from modeling_dkd.embedding.batch_claims import visible_processes
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.embedding.streamed_embedding import embed_stream
from modeling_dkd.video_frames import VideoReadError

from ..killed_runs import share_with_a_kill
from ..made_up_sets import tar_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


def archives(root, clips_each=10, number=4):
    """Archives of clips of one byte, which tells them apart; two in three are of the training part."""
    for archive in range(number):
        files = {}
        for n in range(clips_each * archive, clips_each * (archive + 1)):
            files |= {f"{n:03d}.cls": b"b" if n % 2 else b"a", f"{n:03d}.mp4": bytes([n])}
        tar_of(root / f"{'test' if archive % 3 == 2 else 'train'}-{archive}.tar", files)
    return root


def load_byte(record):
    """Frames that tell the byte of a clip; 13 and 200 are damaged, 14 is remarked on."""
    with open(record.path, "rb") as file:
        value = file.read()[0]
    if value in (13, 200):
        raise VideoReadError(f"cannot read video {record.path!r}: unlucky")
    return torch.full((2, 3, 4, 4), float(value)), "odd" if value == 14 else ""


def load_slowly(record):
    time.sleep(0.03)
    return load_byte(record)


def embed(clips):
    return torch.stack([clip[:, 0, 0, 0, None] + 1 for clip in clips])


def run(root, folder, load=load_byte, num_workers=0, batch_size=4):
    shards = ClipShards(folder)
    pieces = stream_pieces(str(root))
    index, done = embed_stream(pieces, load, embed, shards, Accelerator(cpu=True), batch_size, num_workers, False)
    return index, done, shards


def values(index, done, shards):
    """The byte of each readable clip by its name, read off its embedding."""
    names = [record.name for record in index.records if record.name not in done.damaged]
    embeds = shards.gather([done.identities[name] for name in names])
    return {name: int(embeds[i, 0, 0]) - 1 for i, name in enumerate(names)}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stream_becomes_an_index_and_embeddings(tmp_path):
    index, done, shards = run(archives(tmp_path / "tars"), tmp_path / "shards")
    assert (index.dataset, index.split, index.class_names) == ("tars", "1", ("a", "b"))
    assert [len(index.part(part).records) for part in ("train", "test")] == [30, 10]
    assert list(done.damaged) == ["train-1/013.mp4"]
    assert done.damaged["train-1/013.mp4"].endswith("train-1.tar/013.mp4': unlucky")
    assert done.remarks == {"train-1/014.mp4": "odd"}
    assert (done.num_embedded, done.num_known) == (39, 0)
    found = values(index, done, shards)
    assert sorted(found.values()) == [n for n in range(40) if n != 13]
    assert all(name.endswith(f"{value:03d}.mp4") for name, value in found.items())
    label = {record.name: record.label for record in index.records}
    assert all(label[name] == value % 2 for name, value in found.items())


@pytest.mark.slow
def test_workers_give_what_one_process_gives(tmp_path):
    root = archives(tmp_path / "tars")
    one = run(root, tmp_path / "one")
    two = run(root, tmp_path / "two", num_workers=2)
    assert two[:2] == one[:2]
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_what_is_done_is_neither_read_nor_decoded_again(tmp_path, monkeypatch):
    root = archives(tmp_path / "tars")
    first = run(root, tmp_path / "shards")
    monkeypatch.setattr("modeling_dkd.data.hub_stream.StreamPiece.batches", None)
    again = run(root, tmp_path / "shards")
    assert again[0] == first[0]
    assert again[1].damaged == first[1].damaged
    assert again[1].remarks == first[1].remarks
    assert (again[1].num_embedded, again[1].num_known) == (0, 39)


def test_of_a_changed_set_changed_archives_are_read_and_new_clips_decoded(tmp_path):
    root = archives(tmp_path / "tars")
    run(root, tmp_path / "shards")
    tar_of(root / "train-0.tar", {f"{n}.{e}": c for n in (5, 99) for e, c in (("mp4", bytes([n])), ("cls", b"c"))})
    (root / "README.md").write_text("of no account")
    decoded = []

    def load(record):
        decoded.append(record.name)
        return load_byte(record)

    index, done, shards = run(root, tmp_path / "shards", load)
    assert decoded == ["train-0/99.mp4"]
    assert (done.num_embedded, len(index.records), index.class_names) == (1, 32, ("a", "b", "c"))
    assert sorted(values(index, done, shards).values()) == [5, *(n for n in range(10, 40) if n != 13), 99]


@pytest.mark.parametrize(("harm", "anew"), [("*.safetensors", 4), ("*.json", 0)])
def test_a_list_that_is_torn_or_without_its_embeddings_is_made_again(tmp_path, harm, anew):
    root = archives(tmp_path / "tars", 8)
    run(root, tmp_path / "shards")
    before = contents(tmp_path / "shards")
    harmed = next(path for path in (tmp_path / "shards").glob(harm) if len(path.read_bytes()) > 50)
    harmed.write_bytes(harmed.read_bytes()[:50])
    _, done, _ = run(root, tmp_path / "shards")
    assert done.num_embedded in (anew, anew - 1 if anew else 0)  # one of the batches has a damaged clip
    assert contents(tmp_path / "shards") == before


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_torn_archive_is_told_and_the_others_are_kept(tmp_path, num_workers):
    root = archives(tmp_path / "tars")
    whole = (root / "train-3.tar").read_bytes()
    (root / "train-3.tar").write_bytes(whole[: len(whole) // 2 + 100])
    message = r"cannot read on in .*tars: train-3.tar: .*what is embedded is kept"
    with pytest.raises(OSError, match=message):
        run(root, tmp_path / "shards", num_workers=num_workers)
    assert not list((tmp_path / "shards").glob("*.claim"))
    (root / "train-3.tar").write_bytes(whole)
    _, done, _ = run(root, tmp_path / "shards")
    assert len(done.identities) == 40


def test_clips_without_a_class_are_left_out_with_a_word(tmp_path):
    tar_of(tmp_path / "tars/0.tar", {"1.json": b'{"label": "a"}', "1.mp4": b"1", "2.json": b"{}", "2.mp4": b"2"})
    index, _, _ = run(tmp_path / "tars", tmp_path / "shards")
    assert (index.split, [record.name for record in index.records]) == ("all", ["0/1.mp4"])
    assert index.notes == (f"1 clip of {tmp_path / 'tars'} without a class left out",)


def test_a_set_without_classes_is_refused_at_its_first_archive(tmp_path):
    for number in range(3):
        tar_of(tmp_path / f"tars/{number}.tar", {f"{number}.mp4": bytes([number])})
    with pytest.raises(ValueError, match=r"tars: 0\.tar: of 1 clip none says its class; a clip in an "):
        run(tmp_path / "tars", tmp_path / "shards")
    assert not list((tmp_path / "shards").glob("*.json*"))


def test_a_piece_is_the_archive_that_it_says(tmp_path):
    pieces = stream_pieces(str(archives(tmp_path / "tars", 3)))
    assert [piece.file for piece in pieces] == ["train-0.tar", "train-1.tar", "train-3.tar", "test-2.tar"]
    for piece in pieces:
        names = [name for clips in piece.batches(2) for name, _, _ in clips]
        assert len(names) == 3
        assert all(f"{name.split('/')[0]}.tar" == piece.file for name in names)


def test_an_archive_that_another_run_reads_is_waited_for(tmp_path, monkeypatch):
    """A living holder is waited for; as soon as it is gone its archive is read."""
    monkeypatch.setattr("modeling_dkd.embedding.streamed_embedding.POLL_SECONDS", 0.01)
    root = archives(tmp_path / "tars", number=3)
    (tmp_path / "shards").mkdir()
    claim = tmp_path / "shards" / f"{stream_pieces(str(root))[0].key}.json.claim"
    claim.write_text(f"{visible_processes()} {os.getppid()} x")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            claim.unlink()

    monkeypatch.setattr("modeling_dkd.embedding.streamed_embedding.time.sleep", sleep)
    _, done, _ = run(root, tmp_path / "shards")
    assert len(waits) == 3
    assert len(done.identities) == 30


def test_a_claim_is_kept_until_the_list_is_written(tmp_path, monkeypatch):
    """By the worker, which is through with an archive before its last clips are embedded."""
    (tmp_path / "shards").mkdir()
    pieces = stream_pieces(str(archives(tmp_path / "tars", number=1)))
    claim = tmp_path / "shards" / f"{pieces[0].key}.json.claim"
    there = []

    def sleep(_):
        there.append(claim.exists())
        claim.with_suffix("").touch()  # the list

    monkeypatch.setattr("modeling_dkd.embedding.streamed_embedding.time.sleep", sleep)
    batches = list(streamed_embedding._PassingClips(pieces, set(), load_byte, 4, tmp_path / "shards"))
    assert [(len(batch.clips), batch.is_last) for batch in batches] == [(4, False), (4, False), (2, False), (0, True)]
    assert there == [True]
    assert not claim.exists()


def work(root, shards):
    """One machine's run, with two reading processes."""
    run(root, shards, load_slowly, 2)


@pytest.mark.slow
def test_runs_share_the_archives_and_a_killed_one_is_resumed(tmp_path):
    """Six archives, two runs with two workers each, one killed in the middle: the same bytes as of one run alone."""
    root = archives(tmp_path / "tars", 20, 6)
    work(root, tmp_path / "alone")
    shared = tmp_path / "shared"
    share_with_a_kill(work, root, shared, lambda: len(list(shared.glob("*.json"))) < 6)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    shutil.rmtree(tmp_path / "alone")
    index, done, shards = run(root, tmp_path / "shared")
    assert done.num_embedded == 0
    assert sorted(values(index, done, shards).values()) == [n for n in range(120) if n != 13]
