import shutil

import pytest
import torch

from modeling_dkd.data.video_index import folder_index
from modeling_dkd.data.webdataset_index import webdataset_index
from modeling_dkd.image_processing_dkd import DKDCLIPImageProcessor
from modeling_dkd.processing_dkd import DKDCLIPProcessor
from modeling_dkd.training.augmentation import augment
from modeling_dkd.training.clips import (
    ClipBatch,
    TrainingClips,
    collate,
    domain_clips,
    epoch_batches,
    mix_clips,
    open_index,
    training_loader,
)
from modeling_dkd.training.config import AugmentationOptions, DataOptions, RecipeOptions, load_config

from ..made_up_sets import webdataset


def test_two_processes_see_together_what_one_sees():
    one = epoch_batches(50, 8, epoch=3, seed=1)
    halves = [epoch_batches(50, 4, epoch=3, seed=1, process_index=i, num_processes=2) for i in range(2)]
    assert len(one) == 6
    assert [a + b for a, b in zip(*halves, strict=True)] == one
    drawn = [position for batch in one for _, position in batch]
    assert len(set(drawn)) == 48
    assert epoch_batches(50, 8, epoch=4, seed=1) != one


def test_a_set_smaller_than_a_piece_has_no_batch():
    assert epoch_batches(7, 4, 0, 0, process_index=1, num_processes=2) == []
    assert len(epoch_batches(8, 4, 0, 0, process_index=1, num_processes=2)) == 1


def test_the_domain_is_fitted_to_all_training_clips_or_to_a_drawn_part(clips_dir, config_file):
    index = folder_index(clips_dir)
    training = index.part("train").records

    def drawn(*overrides):
        return domain_clips(index, load_config(config_file(), overrides)).records

    assert drawn() == drawn("domain.num_clips=18") == drawn("domain.num_clips=99") == training
    some = drawn("domain.num_clips=7")
    assert len(some) == len(set(some)) == 7
    assert set(some) < set(training)
    assert some == drawn("domain.num_clips=7") == tuple(sorted(some, key=training.index))
    assert some != drawn("domain.num_clips=7", "run.seed=1")
    with pytest.raises(ValueError, match=r"domain\.num_clips is -1, but must be at least 0"):
        drawn("domain.num_clips=-1")


@pytest.fixture(scope="module")
def clips(clips_dir, backbone_dir):
    index = folder_index(clips_dir).part("train")
    processor = DKDCLIPProcessor.from_backbone(backbone_dir)
    return TrainingClips(index.records, index.class_names, processor, 3, AugmentationOptions(), seed=0)


def test_a_sample_depends_on_epoch_and_clip_alone(clips):
    first, record = clips[0, 4]
    assert first.shape == (3, 3, 30, 30)
    assert record.name.startswith("train/")
    torch.testing.assert_close(clips[0, 4][0], first, rtol=0, atol=0)
    assert not clips[1, 4][0].equal(first)


def test_workers_change_nothing(clips):
    batches = epoch_batches(len(clips), 6, 0, 0)
    alone = [batch.pixel_values for batch in training_loader(clips, batches, 0)]
    shared = [batch.pixel_values for batch in training_loader(clips, batches, 2)]
    assert len(alone) == 3
    assert all(a.equal(b) for a, b in zip(alone, shared, strict=True))


def test_archives_come_in_shares_every_clip_once_also_after_an_interruption(tmp_path, backbone_dir):
    """Four tar archives, two processes with two workers each; the second is stopped after one batch and resumed."""
    index = webdataset_index(webdataset(tmp_path, ["train-0", "train-1", "train-2", "train-3"]))
    processor = DKDCLIPProcessor.from_backbone(backbone_dir)
    clips = TrainingClips(index.records, index.class_names, processor, 2, AugmentationOptions(), seed=0)
    first, second = (epoch_batches(len(clips), 2, 0, 0, process, 2) for process in range(2))
    stopped = training_loader(clips, second, 2)
    batches = [*training_loader(clips, first, 2), next(stopped)]
    stopped.close()
    batches += training_loader(clips, second[1:], 2)
    assert sorted(name for batch in batches for name in batch.names) == [record.name for record in index.records]
    assert all(batch.weights.all() for batch in batches)
    label = {record.name: record.label for record in index.records}
    assert all(batch.labels.tolist() == [label[name] for name in batch.names] for batch in batches)


def test_a_clip_that_cannot_be_read_weighs_nothing(clips, tmp_path):
    (tmp_path / "broken.avi").write_bytes(b"no video")
    record = clips.records[0]._replace(path=str(tmp_path / "broken.avi"), name="broken.avi")
    broken = TrainingClips(
        [record, clips.records[1]], ["Blue", "Green", "Red"], clips_processor(clips), 3, clips.options, 0
    )
    batch = collate([broken[0, 0], broken[0, 1]])
    assert isinstance(batch, ClipBatch)
    assert batch.weights.tolist() == [0, 1]
    assert not batch.pixel_values[0].any()
    assert list(batch.damaged) == ["broken.avi"]
    assert str(tmp_path / "broken.avi") in batch.damaged["broken.avi"]
    with pytest.raises(ValueError, match="no clip of this batch can be read"):
        collate([broken[0, 0]])


def clips_processor(clips):
    """An object with the image processor in it is all that is asked."""
    return type("Processor", (), {"image_processor": clips.images})()


IMAGES = DKDCLIPImageProcessor(size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30})


def test_all_frames_change_alike():
    frame = torch.randint(0, 256, (1, 3, 34, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options = AugmentationOptions(min_crop_area=0.3, flip_probability=0.5, colour_jitter=0.4)
    for seed in range(5):
        changed = augment(frame.expand(4, -1, -1, -1), options, True, IMAGES, torch.Generator().manual_seed(seed))
        assert changed.dtype == torch.uint8
        assert changed.shape[-2] == changed.shape[-1]
        assert (changed == changed[:1]).all()


@pytest.mark.parametrize(("may_flip", "flipped"), [(True, True), (False, False)])
def test_flip_spares_classes_that_it_would_change(may_flip, flipped):
    frames = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).reshape(2, 3, 4, 6)
    options = AugmentationOptions(min_crop_area=1, flip_probability=1, colour_jitter=0)
    changed = augment(frames, options, may_flip, IMAGES, torch.Generator())
    assert changed.equal(frames.flip(-1) if flipped else frames)


def test_colour_keeps_grey_grey():
    frames = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    options = AugmentationOptions(min_crop_area=1, flip_probability=0, colour_jitter=0.5)
    changed = augment(frames, options, False, IMAGES, torch.Generator().manual_seed(3))
    assert (changed == changed.flatten()[0]).all()
    assert not changed.equal(frames)


def test_unknown_class_without_flip(clips):
    with pytest.raises(ValueError, match="names 'Left', which is no class"):
        TrainingClips([], ["Red"], clips_processor(clips), 3, AugmentationOptions(classes_without_flip=("Left",)), 0)


def test_mixup():
    videos = torch.arange(4.0)[:, None, None, None, None].expand(4, 2, 3, 5, 5)
    labels = torch.tensor([0, 1, 2, 2])
    same, targets = mix_clips(videos, labels, 3, RecipeOptions(), torch.Generator())
    assert same is videos
    assert targets.argmax(1).equal(labels)
    mixed, targets = mix_clips(videos, labels, 3, RecipeOptions(mixup_alpha=0.8), torch.Generator().manual_seed(1))
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    assert not mixed.equal(videos)
    # What is mixed from clips a and b weighs their labels alike: the clip's number tells the share.
    torch.testing.assert_close(mixed[:, 0, 0, 0, 0].sum(), torch.tensor(6.0))


def test_cutmix_cuts_the_same_box_out_of_all_frames_and_weighs_labels_by_its_area():
    videos = torch.arange(4.0)[:, None, None, None, None].expand(4, 2, 3, 10, 16)
    labels = torch.tensor([0, 1, 2, 3])
    shares = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        mixed, targets = mix_clips(videos, labels, 4, RecipeOptions(cutmix_alpha=1.0), generator)
        assert (mixed == mixed[:, :1, :1]).all()
        found = torch.stack([(mixed[:, 0, 0] == k).float().mean((1, 2)) for k in range(4)], 1)
        torch.testing.assert_close(found, targets)
        # What comes from elsewhere fills one box.
        foreign = (mixed[:, 0, 0] != videos[:, 0, 0]).any(0)
        assert foreign.sum() == foreign.any(0).sum() * foreign.any(1).sum()
        shares.add(round(float(targets[0, 0]), 3))
    assert len(shares) > 10


def test_with_mixup_and_cutmix_a_batch_takes_one_of_them():
    videos = torch.arange(4.0)[:, None, None, None, None].expand(4, 1, 3, 12, 12)
    options, whole = RecipeOptions(mixup_alpha=1.0, cutmix_alpha=1.0), set()
    for seed in range(20):
        mixed, _ = mix_clips(videos, torch.arange(4), 4, options, torch.Generator().manual_seed(seed))
        whole.add(bool((mixed == mixed[..., :1, :1]).all()))
    assert whole == {True, False}


def test_missing_clips_and_parts(clips_dir, tmp_path):
    with pytest.raises(ValueError, match=r"--set data\.data_dir=DIR"):
        open_index(DataOptions("folder"))
    assert len(open_index(DataOptions("folder", str(clips_dir), classes=("Red",))).records) == 9
    copy = shutil.copytree(clips_dir, tmp_path / "copy")
    table = copy / "clips.csv"
    rows = [
        f"{copy}/train/Red/Red_0.avi,Red,train",
        f"{copy}/test/Red/Red_0.avi,Red,test",
        "gone.avi,Red,test",
    ]
    table.write_text("path,label,split\n" + "\n".join(rows))
    with pytest.raises(ValueError, match=r"1 of 2 clips clips are missing .* gone\.avi; pass --set data\.allow"):
        open_index(DataOptions("csv", str(table)))
    assert len(open_index(DataOptions("csv", str(table), allow_missing=True)).records) == 2
    table.write_text("path,label,split\n" + rows[0])
    with pytest.raises(ValueError, match="has no test clips"):
        open_index(DataOptions("csv", str(table)))
