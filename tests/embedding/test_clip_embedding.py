import hashlib
import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file

from modeling_dkd.data.video_index import folder_index
from modeling_dkd.data.webdataset_index import webdataset_index
from modeling_dkd.embedding import clip_embedding
from modeling_dkd.embedding.batch_claims import visible_processes
from modeling_dkd.embedding.clip_embedding import embed_clips, embed_texts
from modeling_dkd.embedding.clip_shards import ClipShards, clip_identity
from modeling_dkd.embedding.tensor_files import remove_unfinished, sort_metadata
from modeling_dkd.embedding.worker_processes import NEEDED_BY_WORKERS, start_server, worker_context
from modeling_dkd.video_frames import VideoReadError

from ..killed_runs import share_with_a_kill
from ..made_up_sets import tar_of


ROOT = Path(__file__).resolve().parents[2]


def make_folder(root, num_clips=23):
    for number in range(num_clips):
        file = root / f"class{number % 3}" / f"clip{number:02d}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * 10)
    return folder_index(root)


def load_clip(record):
    """Frames (2, 3, 4, 4) that tell the file's first byte; files that begin with 255 are damaged, with 254 in part."""
    value = Path(record.path).read_bytes()[0]
    if value == 255:
        raise VideoReadError(f"cannot read video {record.path!r}: damaged")
    frames = torch.full((2, 3, 4, 4), float(value)) + torch.arange(2.0).view(2, 1, 1, 1) / 8
    return frames, "1 of its 9 frames is damaged" if value == 254 else ""


def embed(clips):
    return torch.stack(list(clips)).mean((2, 3, 4))[..., None].expand(-1, -1, 5) + 1


def run(index, folder, wanted=None, **options):
    shards = ClipShards(folder)
    done = embed_clips(
        index.records,
        wanted or index.records,
        load_clip,
        embed,
        shards,
        Accelerator(cpu=True),
        batch_size=4,
        **options,
    )
    return shards, done


def bytes_of(folder):
    paths = (path for path in Path(folder).iterdir() if ".claim" not in path.name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_every_clip_is_embedded_once_and_found_again(tmp_path):
    index = make_folder(tmp_path / "videos")
    shards, done = run(index, tmp_path / "shards")
    assert (done.num_embedded, done.num_known, done.damaged) == (23, 0, {})
    order = list(reversed(index.records))
    embeds = shards.gather([done.identities[record.name] for record in order])
    assert embeds.shape == (23, 2, 5)
    expected = torch.stack([load_clip(record)[0] for record in order])
    torch.testing.assert_close(embeds, embed(expected))
    _, again = run(index, tmp_path / "shards")
    assert (again.num_embedded, again.num_known) == (0, 23)


def test_a_part_embedded_before_is_not_embedded_again(tmp_path):
    index = make_folder(tmp_path / "videos")
    shards, first = run(index, tmp_path / "shards", wanted=index.records[5:12])
    assert first.num_embedded == 7
    _, second = run(index, tmp_path / "shards")
    assert (second.num_embedded, second.num_known) == (16, 7)
    torch.testing.assert_close(
        shards.gather([second.identities[r.name] for r in index.records]),
        embed(torch.stack([load_clip(r)[0] for r in index.records])),
    )


def test_an_edited_file_is_embedded_anew(tmp_path):
    index = make_folder(tmp_path / "videos")
    run(index, tmp_path / "shards")
    Path(index.records[7].path).write_bytes(b"\x50" * 11)
    shards, done = run(index, tmp_path / "shards")
    assert (done.num_embedded, done.num_known) == (1, 22)
    assert shards.gather([done.identities[index.records[7].name]])[0, 0, 0] == 0x50 + 1


def test_damaged_files_are_named_and_the_others_embedded(tmp_path):
    index = make_folder(tmp_path / "videos")
    Path(index.records[0].path).write_bytes(b"\xff")
    for record in index.records[8:12]:  # a whole batch
        Path(record.path).write_bytes(b"\xff")
    Path(index.records[3].path).unlink()
    shards, done = run(index, tmp_path / "shards")
    assert set(done.damaged) == {index.records[i].name for i in (0, 3, 8, 9, 10, 11)}
    assert "damaged" in done.damaged[index.records[0].name]
    assert "No such file" in done.damaged[index.records[3].name]
    assert done.num_embedded == 17
    good = [record for record in index.records if record.name not in done.damaged]
    assert shards.gather([done.identities[record.name] for record in good]).shape == (17, 2, 5)
    with pytest.raises(KeyError):
        shards.gather([clip_identity(index.records[0])])


def test_remarks_are_kept_for_later_runs(tmp_path):
    index = make_folder(tmp_path / "videos")
    Path(index.records[4].path).write_bytes(b"\xfe")
    for num_embedded in (23, 0):
        _, done = run(index, tmp_path / "shards")
        assert done.num_embedded == num_embedded
        assert done.remarks == {index.records[4].name: "1 of its 9 frames is damaged"}
        assert done.damaged == {}


def test_an_unreadable_shard_is_made_again(tmp_path):
    index = make_folder(tmp_path / "videos")
    shards, _ = run(index, tmp_path / "shards")
    before = bytes_of(shards.folder)
    path = shards.folder / sorted(before)[0]
    path.write_bytes(path.read_bytes()[:50])
    _, done = run(index, tmp_path / "shards")
    assert 0 < done.num_embedded <= 4
    assert bytes_of(shards.folder) == before


def test_old_leavings_of_killed_runs_are_removed(tmp_path):
    shards = ClipShards(tmp_path)
    old, new = tmp_path / "a.unfinished-1", tmp_path / "b.unfinished-2"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    remove_unfinished(shards.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["b.unfinished-2"]


def test_files_with_equal_contents_have_equal_bytes(tmp_path):
    metadata = {letter * 3: letter + "ä" for letter in "qwertyuiop"}
    for name in "abcdef":
        save_file({"x": torch.ones(3)}, tmp_path / name, metadata)
        sort_metadata(tmp_path / name)
    assert len(set(bytes_of(tmp_path).values())) == 1
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == metadata
        assert file.get_tensor("x").tolist() == [1, 1, 1]


def test_equal_prompts_are_encoded_once():
    asked = []

    def encode(texts):
        asked.extend(texts)
        return torch.tensor([[len(text), ord(text[0])] for text in texts], dtype=torch.float16)

    embeds = embed_texts([["aa", "b"], ["ccc", "aa"]], encode, batch_size=2)
    assert sorted(asked) == ["aa", "b", "ccc"]
    assert embeds.dtype == torch.float32
    assert embeds.tolist() == [[[2, 97], [1, 98]], [[3, 99], [2, 97]]]


class Memory:
    """An encoder that has room for so many clips at a time; it notes how many it was given."""

    def __init__(self, room, error="CUDA out of memory. Tried to allocate 1 GiB"):
        self.room, self.error, self.given = room, error, []

    def __call__(self, clips):
        self.given.append(len(clips))
        if len(clips) > self.room:
            raise RuntimeError(self.error)
        return embed(clips)


def embed_with(memory, index, folder):
    return embed_clips(index.records, index.records, load_clip, memory, ClipShards(folder), Accelerator(cpu=True), 5)


def test_a_batch_that_memory_does_not_hold_is_halved_once_with_a_word(tmp_path, capsys):
    index = make_folder(tmp_path / "videos", 12)
    memory = Memory(3)
    done = embed_with(memory, index, tmp_path / "shards")
    assert memory.given == [5, 3, 2, 3, 2, 1, 1]
    assert done.num_embedded == 12
    assert capsys.readouterr().err.count("5 clips at once are out of memory, so batches are encoded in halves") == 1
    embed_with(Memory(5), index, tmp_path / "whole")
    assert bytes_of(tmp_path / "shards") == bytes_of(tmp_path / "whole")


def test_memory_that_does_not_hold_half_a_batch_is_told_of_and_nothing_is_lost(tmp_path):
    index = make_folder(tmp_path / "videos", 12)
    with pytest.raises(ValueError, match=r"not even 3 of 5 clips .* go on with a smaller --batch_size"):
        embed_with(Memory(2), index, tmp_path / "shards")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed_with(Memory(2, "shapes cannot be multiplied"), index, tmp_path / "shards")
    assert embed_with(Memory(5), index, tmp_path / "shards").num_embedded == 12


def multiply():
    """Have torch start its threads, as an encoder does."""
    return torch.ones(600, 600) @ torch.ones(600, 600)


@pytest.mark.slow
def test_workers_start_after_an_encoder_has_run_and_give_what_one_process_gives(tmp_path):
    index = make_folder(tmp_path / "videos")
    alone, _ = run(index, tmp_path / "alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for number in range(2):
            multiply()
            shards, done = run(index, tmp_path / f"shards{number}", num_workers=2)
            assert done.num_embedded == 23
            assert bytes_of(shards.folder) == bytes_of(alone.folder)
    finally:
        torch.set_num_threads(threads)


def test_workers_are_never_forked_from_this_process():
    assert worker_context(0) is None
    assert worker_context(2).get_start_method() in ("forkserver", "spawn")
    for name in NEEDED_BY_WORKERS:
        importlib.import_module(name)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="this system has no server")
def test_the_server_is_started_before_workers_only_where_there_will_be_any(monkeypatch):
    started = []
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: started.append(True))
    start_server(0)
    assert started == []
    start_server(2)
    assert started == [True]


def test_prompts_of_about_one_length_are_encoded_together():
    asked = []

    def encode(texts):
        asked.append(texts)
        return torch.zeros(len(texts), 1)

    embed_texts([["a long one", "b"], ["a longer one", "a"]], encode, batch_size=2)
    assert asked == [["a", "b"], ["a long one", "a longer one"]]


SCRIPT = """
import sys, time
from pathlib import Path
from accelerate import Accelerator
from modeling_dkd.embedding.clip_embedding import embed_clips
from modeling_dkd.embedding.clip_shards import ClipShards
from modeling_dkd.data.video_index import folder_index
from tests.embedding.test_clip_embedding import embed, load_clip

def slow_embed(clips):
    time.sleep(float(sys.argv[3]))
    return embed(clips)

if __name__ == "__main__":
    records = folder_index(sys.argv[1]).records
    accelerator = Accelerator(cpu=True)
    done = embed_clips(records, records, load_clip, slow_embed, ClipShards(sys.argv[2]), accelerator, 4, 1)
    if accelerator.is_main_process:
        print(accelerator.num_processes, done.num_embedded, done.num_known, flush=True)
"""


def start(tmp_path, shards, pause, launcher=()):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, *launcher, str(script), str(tmp_path / "videos"), str(shards), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    whole, _ = run(make_folder(tmp_path / "videos", 40), tmp_path / "whole")
    killed = start(tmp_path, tmp_path / "killed", 0.5)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").glob("*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=30)  # its workers end too: they hold the other end of this pipe
    written = bytes_of(tmp_path / "killed")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.safetensors")}
    assert 3 <= len(times) < 10
    resumed = start(tmp_path, tmp_path / "killed", 0)
    output, errors = resumed.communicate(timeout=120)
    assert output.split() == ["1", str(40 - 4 * len(times)), str(4 * len(times))], errors
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in times} == times
    final = {name: digest for name, digest in bytes_of(tmp_path / "killed").items() if name.endswith(".safetensors")}
    assert final == bytes_of(whole.folder)
    assert written.items() <= bytes_of(tmp_path / "killed").items()


@pytest.mark.slow
def test_two_processes_share_the_clips_and_end_in_the_same_bytes(tmp_path):
    alone, _ = run(make_folder(tmp_path / "videos", 40), tmp_path / "alone")
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617")
    shared = start(tmp_path, tmp_path / "shared", 0, launcher)
    output, errors = shared.communicate(timeout=180)
    assert output.split() == ["2", "40", "0"], errors
    assert bytes_of(tmp_path / "shared") == bytes_of(alone.folder)


def work(folder, shards, pause):
    """One machine's run."""

    def slow_embed(clips):
        time.sleep(pause)
        return embed(clips)

    records = folder_index(folder).records
    embed_clips(records, records, load_clip, slow_embed, ClipShards(shards), Accelerator(cpu=True), 4, 0, False)


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_four_runs_share_a_folder_and_twenty_kills_change_no_byte(tmp_path):
    """Runs that know nothing of each other, as on four machines; whoever is killed is replaced."""
    make_folder(tmp_path / "videos", 240)
    work(tmp_path / "videos", tmp_path / "alone", 0)
    context = multiprocessing.get_context("fork")
    draw = random.Random(0)

    def begin():
        process = context.Process(target=work, args=(tmp_path / "videos", tmp_path / "shared", 0.2))
        process.start()
        return process

    processes = [begin() for _ in range(4)]
    for _ in range(20):
        time.sleep(0.15)
        victim = draw.randrange(4)
        processes[victim].kill()
        processes[victim].join()
        processes[victim] = begin()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    shared = {name: digest for name, digest in bytes_of(tmp_path / "shared").items() if name.endswith(".safetensors")}
    assert shared == bytes_of(tmp_path / "alone")


def merge_again_and_again(folder, own):
    """Write, put together and read back, as runs that share a cache do when they end at about one time."""
    shards = ClipShards(folder)
    for turn in range(6):
        for number in range(6):
            identity = f"{own}-{turn}-{number}"
            shards.write([identity], [(identity, "")], torch.full((1, 1, 2), float(own)))
        shards.merge(at_least=2)
        wanted = [f"{own}-{earlier}-{number}" for earlier in range(turn + 1) for number in range(6)]
        assert shards.known().keys() >= set(wanted)
        assert shards.gather(wanted).eq(own).all()


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_runs_that_merge_shards_at_one_time_lose_none(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=merge_again_and_again, args=(tmp_path / "shards", own)) for own in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(ClipShards(tmp_path / "shards").known()) == 3 * 6 * 6
    assert not list((tmp_path / "shards").glob("*.claim"))


def load_member(record):
    """Frames that tell the first byte of a member of an archive."""
    time.sleep(0.02)
    with open(record.path, "rb") as archive:
        archive.seek(record.offset)
        return torch.full((2, 3, 4, 4), float(archive.read(record.size)[0])), ""


def work_on_archives(root, shards):
    """One machine's run on archives, with two decoding processes."""
    records = webdataset_index(root).records
    embed_clips(records, records, load_member, embed, ClipShards(shards), Accelerator(cpu=True), 4, 2, False)


@pytest.mark.slow
def test_runs_share_archives_of_webdataset_and_a_killed_one_is_resumed(tmp_path):
    """Four archives, two runs with two workers each, one killed in the middle: every clip once, the same bytes."""
    for archive in range(4):
        numbers = range(25 * archive, 25 * archive + 25)
        files = {
            f"{n:03d}.{ending}": content for n in numbers for ending, content in (("mp4", bytes([n])), ("cls", b"a"))
        }
        tar_of(tmp_path / f"tars/{archive}.tar", files)
    work_on_archives(tmp_path / "tars", tmp_path / "alone")
    folder = tmp_path / "shared"
    share_with_a_kill(
        work_on_archives, tmp_path / "tars", folder, lambda: len(list(folder.glob("*.safetensors"))) < 25
    )
    shared = {name: digest for name, digest in bytes_of(tmp_path / "shared").items() if name.endswith(".safetensors")}
    assert shared == bytes_of(tmp_path / "alone")
    assert len(ClipShards(tmp_path / "shared").known()) == 100


def test_a_killed_run_leaves_no_claim_on_what_it_finished(tmp_path):
    """Killed after writing the shard, before giving the claim back: done, so nobody takes it over; yet it goes."""
    index = make_folder(tmp_path / "videos", 8)
    run(index, tmp_path / "shards")
    name = next((tmp_path / "shards").glob("*.safetensors")).name
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"shards/{name}.claim").write_text(f"{visible_processes()} {gone.pid} x")
    alive = tmp_path / "shards/other.safetensors.claim"
    alive.write_text("another-machine 1 x")
    run(index, tmp_path / "shards")
    assert list((tmp_path / "shards").glob("*.claim")) == [alive]


def test_clips_that_another_run_could_not_read_are_told_of(tmp_path):
    index = make_folder(tmp_path / "videos", 8)
    Path(index.records[2].path).write_bytes(bytes([255]) * 10)
    _, first = run(index, tmp_path / "shards")
    _, second = run(index, tmp_path / "shards")
    assert list(first.damaged) == list(second.damaged) == [index.records[2].name]


def test_a_batch_that_another_machine_holds_is_waited_for(tmp_path, monkeypatch):
    """It appears while this run waits, which starts no workers for it, and is not embedded again."""
    loaders, loader = [], clip_embedding.DataLoader
    monkeypatch.setattr(clip_embedding, "DataLoader", lambda *a, **k: loaders.append(a) or loader(*a, **k))
    index = make_folder(tmp_path / "videos", 8)
    run(index, tmp_path / "other")
    shards = ClipShards(tmp_path / "shards")
    name = shards.path_of([clip_identity(record) for record in index.records[:4]]).name
    assert (tmp_path / "other" / name).exists()
    (tmp_path / f"shards/{name}.claim").write_text("another-machine 1 x")
    threading.Timer(0.5, lambda: os.link(tmp_path / "other" / name, tmp_path / "shards" / name)).start()
    loaders.clear()
    _, done = run(index, tmp_path / "shards")
    assert len(loaders) == 1
    assert done.num_embedded == 4
    assert len(ClipShards(tmp_path / "shards").known()) == 8


CTRL_C = """
import time
from modeling_dkd.embedding.worker_processes import start_server
start_server(1)
print("started", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
"""


def test_ctrl_c_while_the_server_imports_is_for_its_parent_alone():
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
