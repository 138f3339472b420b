import json
from collections import Counter

import pytest

from modeling_dkd.data.hub_stream import hub_stream, streamed_index
from modeling_dkd.processing_dkd import DKDCLIPProcessor
from modeling_dkd.training.clips import TrainingClips
from modeling_dkd.training.command import main
from modeling_dkd.training.config import AugmentationOptions
from modeling_dkd.training.streamed_clips import StreamedClips

from ..made_up_sets import tar_of, webdataset
from .conftest import forget_processes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


ARCHIVES = ("train-0", "train-1", "train-2", "train-3", "test-0")


@pytest.fixture
def kept(tmp_path, backbone_dir):
    """Four archives of four training clips each, and what is kept of them."""
    root = webdataset(tmp_path / "shards", ARCHIVES)
    index = streamed_index(str(root), tmp_path / "store", 2)
    processor = DKDCLIPProcessor.from_backbone(backbone_dir)
    return root, TrainingClips(index.part("train").records, index.class_names, processor, 2, AugmentationOptions(), 0)


def batches(root, clips, process, first, last, num_workers=2, num_processes=2, epoch=0):
    share = process, num_processes
    stream = hub_stream(str(root), "train")
    return StreamedClips(stream, str(root), clips, 2, epoch, share).batches(first, last, num_workers)


def same(one, other):
    return one.names == other.names and all(a.equal(b) for a, b in zip(one.tensors, other.tensors, strict=True))


def test_each_process_and_worker_has_its_share_and_goes_on_where_it_was(kept):
    """Two processes with two workers each: every clip once; a resumed one, the same clips and pixels."""
    root, clips = kept
    whole = [list(batches(root, clips, process, 0, 4)) for process in (0, 1)]
    names = [name for share in whole for batch in share for name in batch.names]
    assert len(names) == len(set(names)) == 16
    assert all(batch.weights.all() for share in whole for batch in share)
    resumed = list(batches(root, clips, 1, 3, 4))
    assert len(resumed) == 1
    assert same(resumed[0], whole[1][3])


def test_a_stream_goes_on_after_any_batch(kept):
    root, clips = kept
    whole = list(batches(root, clips, 1, 0, 4, 0))
    for done in range(4):
        resumed = list(batches(root, clips, 1, done, 4, 0))
        assert len(resumed) == 4 - done
        assert all(map(same, resumed, whole[done:]))


def test_a_share_begins_anew_in_another_order_and_so_does_an_epoch(kept):
    root, clips = kept
    names = [name for batch in batches(root, clips, 0, 0, 16, 0, 1) for name in batch.names]
    assert set(Counter(names).values()) == {2}
    assert set(names[:16]) == set(names)
    assert names[:16] != names[16:]
    later = [name for batch in batches(root, clips, 0, 0, 8, 0, 1, epoch=1) for name in batch.names]
    assert sorted(later) == sorted(names[:16])
    assert later != names[:16]


def test_more_processes_than_archives_share_them_clip_by_clip(kept):
    root, clips = kept
    names = [n for process in range(3) for batch in batches(root, clips, process, 0, 2, 0, 3) for n in batch.names]
    assert len(set(names)) == 12


def test_clips_that_cannot_be_used_weigh_nothing(kept):
    root, clips = kept
    sound = next(iter(batches(root, clips, 0, 0, 1)))
    files = {"a.mp4": b"no video", "a.json": b'{"label": "tai chi"}', "b.json": b'{"label": "juggling"}'}
    for file in root.glob("train-*.tar"):
        file.unlink()
    tar_of(root / "train-0.tar", files | {"b.mp4": b"x"})
    with pytest.raises(ValueError, match=r"no clip of this batch can be read: "):
        list(batches(root, clips, 0, 0, 1, 0, 1))
    assert sound.weights.tolist() == [1, 1]


def options_of(options, root, **changed):
    options["data"] |= {"dataset": "hub", "data_dir": str(root), "clips_per_epoch": 12}
    options["domain"] = {"num_clips": 9}
    options["run"] |= changed
    return options


def test_a_streamed_run_and_a_resumed_one_end_in_the_same_weights(options, config_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = webdataset(tmp_path / "shards", ARCHIVES, 6)
    options_of(options, root, output_dir=str(tmp_path / "whole"))
    assert main(["--config", str(config_file())]) == 0
    told = capsys.readouterr().out
    assert "shards: 12 streamed training clips, 6 test clips, 3 classes" in told
    rows = json.loads((tmp_path / "whole/results.json").read_text())["rows"]
    assert rows[0]["data"]["domain"] == "the first 9 training clips with their labels (inductive)"
    assert len(list((tmp_path / "runs/hub_clips").iterdir())) == 15  # the test part and the domain
    interrupt_after(3, monkeypatch)
    forget_processes()
    options_of(options, root, output_dir=str(tmp_path / "resumed"))
    assert main(["--config", str(config_file())]) == 143
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    forget_processes()
    assert main(["--config", str(config_file()), "--resume"]) == 0
    assert "going on after step 3" in capsys.readouterr().out
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert one == other


def interrupt_after(steps, monkeypatch):
    """Have the run be told to stop after so many steps."""
    from modeling_dkd.training import loop

    check = loop.check_step
    seen = []

    def counted(run, told, names):
        check(run, told, names)
        seen.append(told)
        if len(seen) == steps:
            told[5] = 1

    monkeypatch.setattr(loop, "check_step", counted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.dataset": "folder"}, "data.clips_per_epoch is 12, but must be 0 but for the whole of a data set"),
        ({"domain.num_clips": 0}, "domain.num_clips is 0, but must be above 0 with data.clips_per_epoch"),
        ({"data.clips_per_epoch": -1}, "data.clips_per_epoch is -1, but must be at least 0"),
    ],
)
def test_options_that_do_not_go_with_a_stream_are_told(options, config_file, tmp_path, capsys, change, message):
    options_of(options, tmp_path)
    sets = [f"{name}={value}" for name, value in change.items()]
    assert main(["--config", str(config_file()), "--set", *sets]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
