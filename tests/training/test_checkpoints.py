import errno
import logging
import shutil

import pytest
import torch
from accelerate import Accelerator

from modeling_dkd.training import checkpoints as module
from modeling_dkd.training.checkpoints import Checkpoints, Progress
from modeling_dkd.training.parameters import MovingAverage

from ..tiny_backbones import make_model, make_texts, make_videos


CONFIG = {"recipe": {"epochs": 3}, "run": {"checkpoint_minutes": 5}}


def state(folder, seed):
    """A model after two steps, with its checkpoints; other seeds give other weights and moments."""
    torch.manual_seed(seed)
    model = make_model()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and "vision" in name}
    group = {"params": list(trained.values()), "names": list(trained)}
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.AdamW([group], lr=0.01))
    average = MovingAverage(trained, 0.5)
    with torch.no_grad():
        model.head.fit(model.get_video_features(make_videos(4, seed=seed)), model.get_text_features(make_texts(3)))
    for _ in range(2):
        model.get_video_features(torch.randn_like(make_videos())).square().sum().backward()
        optimizer.step()
        average.update()
    return model, optimizer, Checkpoints(folder, accelerator, trained, model.head, optimizer, average)


def everything(model, optimizer, checkpoints):
    moments = checkpoints._optimizer_state()
    return model.state_dict() | moments | {f"average {k}": v for k, v in checkpoints.average.average.items()}


def test_a_resumed_state_is_the_same_to_the_bit(tmp_path):
    saved = state(tmp_path, 1)
    progress = Progress(epoch=1, batch=2, step=7, best_top1=0.5, config=CONFIG)
    assert saved[2].save(progress)
    drawn = torch.rand(3)
    other = state(tmp_path, 2)
    assert not everything(*other)["head.means"].equal(everything(*saved)["head.means"])
    assert other[2].resume(CONFIG) == progress
    torch.testing.assert_close(everything(*other), everything(*saved), rtol=0, atol=0)
    assert torch.rand(3).equal(drawn)


def test_two_are_kept_and_none_is_unfinished(tmp_path):
    *_, checkpoints = state(tmp_path, 1)
    for step in (1, 2, 10):
        checkpoints.save(Progress(step=step, config=CONFIG))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-00000002-epoch-0000",
        "step-00000010-epoch-0000",
    ]
    (tmp_path / ".unfinished-step-00000011-epoch-0000").mkdir()
    assert checkpoints.resume(CONFIG).step == 10
    checkpoints.remove()
    assert not tmp_path.exists()
    assert checkpoints.resume(CONFIG) is None


@pytest.mark.parametrize("file", ["weights.safetensors", "progress.json", "random.safetensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog, file):
    *_, checkpoints = state(tmp_path, 1)
    for step in (1, 2):
        checkpoints.save(Progress(step=step, config=CONFIG))
    newest = tmp_path / "step-00000002-epoch-0000" / file
    newest.write_bytes(newest.read_bytes()[:40])
    with caplog.at_level(logging.WARNING):
        assert checkpoints.resume(CONFIG).step == 1
    assert "step-00000002-epoch-0000 cannot be read" in caplog.text
    assert checkpoints.save(Progress(step=2, config=CONFIG))
    assert checkpoints.resume(CONFIG).step == 2


def test_a_full_disk_keeps_the_former_checkpoint(tmp_path, monkeypatch, caplog):
    *_, checkpoints = state(tmp_path, 1)
    assert checkpoints.save(Progress(step=1, config=CONFIG))

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with caplog.at_level(logging.WARNING):
        assert not checkpoints.save(Progress(step=2, config=CONFIG))
    assert "no checkpoint written at step 2" in caplog.text
    assert "No space left on device" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001-epoch-0000"]
    assert checkpoints.resume(CONFIG).step == 1


def test_other_options_or_processes_are_refused(tmp_path):
    *_, checkpoints = state(tmp_path, 1)
    checkpoints.save(Progress(step=1, config=CONFIG))
    assert checkpoints.resume(CONFIG | {"run": {"checkpoint_minutes": 1}}).step == 1
    with pytest.raises(ValueError, match=r"started with recipe\.epochs=3 and cannot go on with 4"):
        checkpoints.resume(CONFIG | {"recipe": {"epochs": 4}})
    shutil.rmtree(tmp_path)
    checkpoints.save(Progress(step=1, num_processes=2, config=CONFIG))
    with pytest.raises(ValueError, match="started with 2 processes and cannot go on with 1"):
        checkpoints.resume(CONFIG)
