import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_dkd.cli import main
from modeling_dkd.recognition.arrivals import Arrivals, is_written_to
from modeling_dkd.recognition.predictions import Prediction
from modeling_dkd.recognition.result_log import LOG_COLUMNS, ResultLog, instant, key, nanoseconds
from modeling_dkd.recognition.saved_domain import load_domain

from .colour_clips import COLOURS, write_clip, write_clips


ROOT = Path(__file__).resolve().parents[2]
OWN = f"{Path(__file__).with_name('own_encoder.py')}"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run(*arguments, encoder="ColourEncoder"):
    always = ["--model", f"{OWN}:{encoder}", "--settle", "0", "--interval", "0", "--num-workers", "0", "--once"]
    return main(["watch", "clips", "--output", "log.csv", *map(str, arguments), *always])


def rows(file="log.csv"):
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_classes_with_one_text_are_told_of_at_the_start(caplog):
    write_clips(Path("clips"), 3)
    assert run("--classes", "red,pink,violet") == 0
    assert "2 classes have the same text embedding (pink, violet)" in caplog.text


def test_each_file_is_written_down_once_and_again_when_it_is_replaced(capsys):
    write_clips(Path("clips"), 9)
    Path("clips/bad\nname.mp4").write_text("no video")
    assert run("--classes", "red,green,blue") == 1
    first = rows()
    assert tuple(first[0]) == LOG_COLUMNS
    assert [row["clip"] for row in first if row["error"]] == ["bad\nname.mp4"]
    assert all(row["label"] in row["clip"] for row in first if not row["error"])
    assert run("--classes", "red,green,blue") == 0
    assert rows() == first
    write_clip(Path("clips/deep/er/red.avi"), "red", 40)
    write_clip(Path("clips/00_red.avi"), "blue", 41, frames=7)
    capsys.readouterr()
    assert run("--classes", "red,green,blue") == 0
    added = rows()[len(first) :]
    assert [(row["clip"], row["label"]) for row in added] == [("00_red.avi", "blue"), ("deep/er/red.avi", "red")]
    assert "deep/er/red.avi  red  " in capsys.readouterr().out


def test_the_domain_learns_from_each_clip_once_and_is_what_one_run_would_make():
    write_clips(Path("clips"), 6)
    run("--classes", "red,green,blue", "--domain", "domain")
    assert len(load_domain("domain").learned) == 6
    for number in range(6, 12):
        name = list(COLOURS)[number % 3]
        write_clip(Path(f"clips/{number:02d}_{name}.avi"), name, number)
    run("--domain", "domain")
    after = load_domain("domain")
    assert len(after.learned) == 12
    assert float(after.head.num_samples) == 12
    run("--domain", "domain")
    assert float(load_domain("domain").head.num_samples) == 12
    run("--classes", "red,green,blue", "--save-domain", "whole", "--output", "whole.csv")
    whole = load_domain("whole")
    assert whole.learned == after.learned
    assert whole.head.means.allclose(after.head.means, atol=0.05)


def test_a_domain_of_more_classes_than_are_asked_keeps_them():
    write_clips(Path("clips"), 6)
    run("--classes", "red,green,blue", "--domain", "domain")
    write_clip(Path("clips/red.avi"), "red", 40)
    run("--classes", "red,blue", "--domain", "domain")
    assert load_domain("domain").class_names == ["red", "green", "blue"]
    assert len(load_domain("domain").learned) == 7


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_line_that_was_cut_off_is_taken_off_and_its_clip_done_again(suffix):
    write_clips(Path("clips"), 6)
    file = Path(f"log.{suffix}")
    run("--classes", "red,green,blue", "--output", file)
    whole = file.read_bytes()
    for cut in (1, 20, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:-cut])
        run("--classes", "red,green,blue", "--output", file)
        names = [
            row["clip"] for row in (rows(file) if suffix == "csv" else map(json.loads, file.read_text().splitlines()))
        ]
        assert sorted(names) == sorted(os.listdir("clips"))


def test_a_log_knows_where_a_row_with_line_breaks_ends(tmp_path):
    path = tmp_path / "log.csv"
    found = [(Prediction('a"b\nc.mp4', label="red", guess="red", confidence=0.5), 5, 7), (Prediction("d\n"), 6, 8)]
    with ResultLog(path) as log:
        log.add(found)
    whole = path.read_bytes()
    with ResultLog(path) as log:
        assert log.done == {key('a"b\nc.mp4', 5, 7): True, key("d\n", 6, 8): True}
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with ResultLog(path) as log:
            assert len(log.done) <= 1
            log.add([one for one in found if key(one[0].clip, one[1], one[2]) not in log.done])
        assert path.read_bytes() == whole


def test_times_are_kept_to_the_nanosecond():
    for number in (0, 1, 1_795_937_859_194_849_726):
        assert nanoseconds(instant(number)) == number


def test_only_one_may_write_and_only_to_a_log(capsys, tmp_path):
    write_clips(Path("clips"), 1)
    with ResultLog(Path("log.csv")):
        assert run("--classes", "red,green,blue") == 2
    assert "another dkd watch writes to log.csv" in capsys.readouterr().err
    Path("log.csv").write_text("path,price\na,1\n")
    assert run("--classes", "red,green,blue") == 2
    assert "log.csv is no table of dkd watch" in capsys.readouterr().err
    assert Path("log.csv").read_text() == "path,price\na,1\n"
    assert run("--classes", "red,green,blue", "--output", "t.parquet") == 2
    assert "ends in .csv or .jsonl" in capsys.readouterr().err
    assert main(["watch", "nowhere", "--classes", "a,b", "--once"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_a_disk_that_refuses_leaves_whole_rows(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    with ResultLog(path) as log:
        log.add([(Prediction("a.mp4"), 1, 1)])
        before = path.read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"log\.csv cannot be written: No space left on device; make room"):
            log.add([(Prediction("b.mp4"), 1, 1)])
        assert path.read_bytes() == before
        assert len(log.done) == 1


def test_a_file_has_arrived_when_it_is_the_same_for_a_while_and_nobody_writes_to_it(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    arrivals = Arrivals(folder, settle=0.2)
    (folder / "a.mp4").write_bytes(b"1")
    (folder / "notes.txt").write_bytes(b"1")
    (folder / ".b.mp4.part").write_bytes(b"1")
    assert arrivals.look() == ([], 1)
    time.sleep(0.25)
    (folder / "a.mp4").write_bytes(b"12")
    assert arrivals.look() == ([], 1)
    time.sleep(0.25)
    with (folder / "a.mp4").open("ab") as writer:
        if is_written_to(str(folder / "a.mp4")):  # where leases are known
            assert arrivals.look() == ([], 1)
        writer.flush()
    (arrived,), coming = arrivals.look()
    assert (arrived.clip.name, arrived.size, coming) == ("a.mp4", 2, 0)
    assert not is_written_to(str(folder / "a.mp4"))
    assert not is_written_to(str(folder / "gone.mp4"))


def test_a_file_that_cannot_be_read_is_waited_for(monkeypatch):
    from modeling_dkd.recognition import folder_watch

    Path("clips").mkdir()
    whole = write_clip(Path("whole.avi"), "red").read_bytes()
    Path("clips/late.avi").write_bytes(whole[: len(whole) // 3])
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            Path("clips/late.avi").write_bytes(whole)
        assert len(naps) < 50

    monkeypatch.setattr(folder_watch.time, "sleep", nap)
    waiting = folder_watch.Waiting(interval=0, settle=0)
    batches = folder_watch.watch(
        "clips", "red,green,blue", "log.csv", model=f"{OWN}:ColourEncoder", num_workers=0, waiting=waiting
    )
    (prediction,) = next(batches)
    batches.close()
    assert (prediction.clip, prediction.label, len(naps)) == ("late.avi", "red", 3)
    assert len(rows()) == 1


def start(encoder="Slow"):
    arguments = [sys.executable, "-m", "modeling_dkd", "watch", "clips", "--output", "log.csv", "--domain", "domain"]
    arguments += ["--classes", "red,green,blue", "--model", f"{OWN}:{encoder}", "--settle", "0.2", "--interval", "0.1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*arguments, "--batch-size", "2"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_killed_at_any_moment_no_clip_is_lost_and_none_stands_twice():
    write_clips(Path("clips"), 12)
    count = 12
    for pause in (0, 0.4, 0.8):
        process = start()
        process.stdout.readline()
        time.sleep(pause)
        for number in range(count, count + 6):
            name = list(COLOURS)[number % 3]
            write_clip(Path(f"clips/{number:02d}_{name}.avi"), name, number)
        count += 6
        time.sleep(0.4)
        process.kill()
        process.communicate()
    process = start()
    end = time.monotonic() + 400
    while time.monotonic() < end and (not Path("log.csv").exists() or len(rows()) < count):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "ended" in output
    names = [row["clip"] for row in rows()]
    assert sorted(names) == sorted(os.listdir("clips"))
    saved = load_domain("domain")
    assert len(saved.learned) == count
    assert float(saved.head.num_samples) == count
