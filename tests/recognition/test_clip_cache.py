import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from modeling_dkd.recognition.clip_cache import ClipCache, default_cache_folder
from modeling_dkd.recognition.clip_listing import list_clips
from modeling_dkd.recognition.encoder import load_encoder

from .colour_clips import write_clip, write_clips


OWN = Path(__file__).with_name("own_encoder.py")


@pytest.fixture
def encoder():
    return load_encoder(f"{OWN}:ColourEncoder")


def embed(cache, folder, **options):
    clips = list_clips([folder]).clips
    return clips, cache.embed(clips, Accelerator(cpu=True), num_workers=0, **options)


def test_each_clip_is_embedded_once_and_again_only_when_it_changed(encoder, tmp_path):
    files = write_clips(tmp_path / "clips", 9)
    (tmp_path / "clips/bad.mp4").write_bytes(b"no video at all")
    cache = ClipCache(tmp_path / "cache", encoder)
    clips, run = embed(cache, tmp_path / "clips")
    assert (run.num_embedded, run.num_known, list(run.damaged)) == (9, 0, [str(tmp_path / "clips/bad.mp4")])
    assert "bad.mp4" not in run.damaged[str(tmp_path / "clips/bad.mp4")]  # its name stands beside the reason
    sound = [clip for clip in clips if clip.path not in run.damaged]
    expected = torch.cat([encoder.embed_videos([encoder.reader(clip.path)[0]]) for clip in sound])
    torch.testing.assert_close(cache.gather(sound), expected)
    write_clip(files[4], "red", 77, frames=6)
    _, run = embed(ClipCache(tmp_path / "cache", encoder), tmp_path / "clips")
    assert (run.num_embedded, run.num_known) == (1, 8)
    # Two files of one name in two folders are two clips.
    shutil.copytree(tmp_path / "clips", tmp_path / "other")
    _, run = embed(cache, tmp_path / "other")
    assert run.num_embedded == 9


def test_encoders_do_not_share_embeddings(encoder, tmp_path):
    write_clips(tmp_path / "clips", 3)
    embed(ClipCache(tmp_path / "cache", encoder), tmp_path / "clips")
    _, run = embed(ClipCache(tmp_path / "cache", load_encoder(f"{OWN}:ColourEncoder", 2)), tmp_path / "clips")
    assert run.num_embedded == 3


def test_many_small_shards_become_one_that_holds_the_same(encoder, tmp_path):
    write_clips(tmp_path / "clips", 9)
    cache = ClipCache(tmp_path / "cache", encoder)
    clips, _ = embed(cache, tmp_path / "clips", batch_size=1)
    before = cache.gather(clips)
    assert len(cache.shards.written()) == 9
    cache.shards.merge(at_least=10)
    assert len(cache.shards.written()) == 9
    cache.shards.merge(at_least=9, max_clips=4)
    assert len(cache.shards.written()) == 3
    torch.testing.assert_close(cache.gather(clips), before, rtol=0, atol=0)
    cache.shards.merge(at_least=2)
    assert len(cache.shards.written()) == 1
    torch.testing.assert_close(cache.gather(clips), before, rtol=0, atol=0)
    _, run = embed(cache, tmp_path / "clips")
    assert (run.num_embedded, run.num_known) == (0, 9)


def test_a_merge_that_was_killed_before_the_old_shards_went_does_no_harm(encoder, tmp_path):
    write_clips(tmp_path / "clips", 6)
    cache = ClipCache(tmp_path / "cache", encoder)
    clips, _ = embed(cache, tmp_path / "clips", batch_size=2)
    before = cache.gather(clips)
    folder = cache.shards.folder
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    cache.shards.merge(at_least=2)
    for name, content in old.items():
        (folder / name).write_bytes(content)
    torch.testing.assert_close(cache.gather(clips), before, rtol=0, atol=0)
    cache.shards.merge(at_least=2)
    assert len(cache.shards.written()) == 1
    assert len(cache.shards.known()) == 6
    torch.testing.assert_close(cache.gather(clips), before, rtol=0, atol=0)


def test_odd_names_are_kept_apart(encoder, tmp_path):
    names = ["ä ö.avi", "new\nline.avi", "new line.avi", "a|b.avi", "视频#1;&.avi"]
    for number, name in enumerate(names):
        write_clip(tmp_path / "clips" / name, ("red", "green", "blue")[number % 3], number)
    cache = ClipCache(tmp_path / "cache", encoder)
    clips, run = embed(cache, tmp_path / "clips")
    assert (run.num_embedded, run.damaged) == (5, {})
    expected = torch.cat([encoder.embed_videos([encoder.reader(clip.path)[0]]) for clip in clips])
    torch.testing.assert_close(cache.gather(clips), expected)


def test_where_the_cache_lies_by_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("DKD_CACHE", str(tmp_path / "here"))
    assert default_cache_folder() == tmp_path / "here"
    monkeypatch.delenv("DKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "dkd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache/dkd"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_says_so(encoder, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied"):
        ClipCache(tmp_path / "cache", encoder)
