import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_dkd.cli import main
from modeling_dkd.domain_file import DOMAIN_FILE
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.recognition import DomainUse, recognise, recognise_embeddings
from modeling_dkd.recognition.command_options import ended_at_once
from modeling_dkd.recognition.prediction_table import COLUMNS
from modeling_dkd.recognition.saved_domain import load_domain

from .colour_clips import COLOURS, write_clip, write_clips


ROOT = Path(__file__).resolve().parents[2]
OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of its own, with 18 clips, one of them damaged, and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKD_CACHE", str(tmp_path / "cache"))
    write_clips(Path("clips"), 18)
    Path("clips/bad.mp4").write_text("no video")
    return tmp_path


def run(*arguments, model=OWN):
    return main(["recognise", *map(str, arguments), "--num-workers", "0", *(["--model", model] if model else [])])


def rows(file="predictions.csv"):
    with open(file, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def is_right(row):
    return row["label"] in row["clip"]


def test_a_folder_becomes_a_table_and_damaged_clips_are_named(capsys):
    assert run("clips", "--classes", ",".join(COLOURS)) == 1
    table = rows()
    assert tuple(table[0]) == COLUMNS
    assert [row["clip"] for row in table] == sorted(f"clips/{name}" for name in os.listdir("clips"))
    sound = [row for row in table if not row["error"]]
    assert len(sound) == 18
    assert all(map(is_right, sound))
    assert {row["zero_shot_label"] for row in sound} == set(COLOURS)
    assert all(0 <= float(row["confidence"]) <= 1 for row in sound)
    assert all({row["label"], row["label_2"], row["label_3"]} == set(COLOURS) and not row["label_4"] for row in sound)
    (bad,) = [row for row in table if row["error"]]
    assert (bad["clip"], bad["label"], bad["confidence"]) == ("clips/bad.mp4", "", "")
    assert "/bad.mp4" not in bad["error"]
    output = capsys.readouterr().out
    assert "18 clips recognised with colours, 18 of them embedded now" in output
    assert "clips/bad.mp4: " in output
    assert run("clips", "--classes", "red,green,blue") == 1
    assert "0 of them embedded now" in capsys.readouterr().out


def test_what_comes_back_in_python_is_what_the_table_says():
    run("clips", "--classes", "red,green,blue")
    found = recognise(["clips"], ["red", "green", "blue"], OWN, num_workers=0)
    assert [p.clip for p in found.predictions] == [row["clip"] for row in rows()]
    assert [p.label or "" for p in found.predictions] == [row["label"] for row in rows()]
    assert len(found.damaged) == 1
    assert len(found.read) == 18
    assert found.described == "fitted to these 18 clips"
    plain = recognise(["clips"], "red,green,blue", model=OWN, num_workers=0, use=DomainUse(adapt=False))
    assert plain.domain is None
    assert [p.label for p in plain.predictions] == [p.zero_shot_label for p in plain.predictions]
    for one, other in zip(plain.read, found.read, strict=True):
        assert one.zero_shot_confidence == one.confidence == other.zero_shot_confidence
        assert one.confidence != other.confidence


def test_all_formats_hold_the_same(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert run("clips", "--classes", "red,green,blue", "--output", f"new/t.{suffix}") == 1
    lines = [json.loads(line) for line in Path("new/t.jsonl").read_text().splitlines()]
    parquet = pq.read_table("new/t.parquet").to_pylist()
    assert lines == parquet
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in lines]
    assert texts == rows("new/t.csv")
    assert sorted(os.listdir("new")) == ["t.csv", "t.jsonl", "t.parquet"]


def test_tomorrow_needs_the_domain_alone_and_each_clip_is_learned_once(capsys):
    assert run("clips", "--classes", "red,green,blue", "--save-domain", "domain") == 1
    saved = load_domain("domain")
    assert (saved.class_names, saved.encoder, len(saved.learned)) == (list(COLOURS), "colours", 18)
    for number in range(6):
        write_clip(
            Path("tomorrow") / f"{number}_{list(COLOURS)[number % 3]}.avi", list(COLOURS)[number % 3], 50 + number
        )
    before = Path("domain", DOMAIN_FILE).read_bytes()
    assert run("tomorrow", "--domain", "domain") == 0
    assert all(map(is_right, rows()))
    assert Path("domain", DOMAIN_FILE).read_bytes() == before
    assert run("tomorrow", "clips", "--domain", "domain", "--update") == 1
    assert "the one in domain, updated with 6 clips" in capsys.readouterr().out
    after = load_domain("domain")
    assert len(after.learned) == 24
    assert float(after.head.num_samples) == float(saved.head.num_samples) + 6
    assert run("tomorrow", "--domain", "domain", "--update") == 0
    assert "updated with 0 clips" in capsys.readouterr().out
    # Some of its classes, in another order, and the new place for an updated one.
    assert run("tomorrow", "--domain", "domain", "--classes", "blue,red", "--update", "--save-domain", "other") == 0
    assert {row["label"] for row in rows()} == {"blue", "red"}
    assert Path("other", DOMAIN_FILE).is_file()


def test_a_domain_to_share_has_nothing_of_classes_of_few_clips(capsys):
    for path in sorted(Path("clips").glob("*green*"))[2:]:
        path.unlink()
    assert run("clips", "--classes", "red,green,blue", "--save-domain", "shared", "--min-clips", "4") == 1
    assert all(is_right(row) for row in rows() if not row["error"] and "green" not in row["clip"])
    saved = load_domain("shared")
    assert (saved.head.min_clips, saved.class_names) == (4, ["red", "green", "blue"])
    assert [count > 3 for count in saved.head.counts.tolist()] == [True, False, True]
    assert float(saved.head.counts[1]) == 0
    assert run("clips", "--domain", "shared") == 1
    for arguments, message in {
        ("--min-clips", "4"): "--min-clips is for a domain that is fitted now and saved; give --save-domain DIR",
        ("--save-domain", "x", "--min-clips", "1"): "min_clips is 1, but must be at least 2",
        ("--save-domain", "x", "--min-clips", "50"): "no class has 50 clips",
        ("--domain", "owner/nowhere", "--update"): "owner/nowhere is on the Hub; say with --save-domain where",
        ("--save-domain", "hf://nowhere"): "hf://nowhere names no repository; write hf://OWNER/NAME",
        ("--domain", "no/such/folder"): "--domain no/such/folder: there is no such folder",
    }.items():
        assert run("clips", "--classes", "red,green,blue", *arguments) == 2
        assert message in capsys.readouterr().err


def test_a_domain_is_not_used_with_another_encoder(capsys, tmp_path):
    run("clips", "--classes", "red,green,blue", "--save-domain", "domain")
    assert run("clips", "--domain", "domain", "--frames", "2") == 2
    assert "fitted with 3 frames a clip; give --frames 3" in capsys.readouterr().err
    assert run("clips", "--domain", "domain", model=OWN.replace("ColourEncoder", "Slow")) == 2
    assert "another encoder than slow is now: colours" in capsys.readouterr().err
    assert run("clips", "--domain", "domain", model=None) == 2
    assert "of 27 dimensions, but those of dkd-tiny have 64" in capsys.readouterr().err
    # One that a head wrote alone tells its classes and no more.
    load_domain("domain").head.save_pretrained("plain", ["red", "green", "blue"])
    assert run("clips", "--domain", "plain", "--output", "plain.csv") == 1
    run("clips", "--domain", "domain")
    assert rows("plain.csv") == rows()


def test_labelled_clips_take_part_in_the_fit(capsys):
    Path("labels.csv").write_text("clip,label\nclips/00_red.avi,green\n03_red.avi,green\n06_red.avi,\n", "utf-8")
    assert run("clips", "--classes", "red,green,blue", "--labelled", "labels.csv") == 1
    assert "fitted to these 18 clips, 2 labelled" in capsys.readouterr().out
    with_labels = [row["confidence"] for row in rows()]
    run("clips", "--classes", "red,green,blue")
    assert with_labels != [row["confidence"] for row in rows()]
    found = recognise(["clips"], "red,green,blue", model=OWN, num_workers=0, use=DomainUse(labelled="labels.csv"))
    assert found.domain is not None
    assert float(found.domain.head.num_labelled) > 0


def test_clips_of_none_of_the_classes_get_no_label(capsys):
    assert run("clips", "--classes", "red,green,blue") == 1
    known = [float(row["known"]) for row in rows() if not row["error"]]
    assert all(0 <= value <= 1 for value in known)
    middle = sorted(known)[len(known) // 2]
    assert run("clips", "--classes", "red,green,blue", "--reject-below", middle) == 1
    sound = [row for row in rows() if not row["error"]]
    assert {row["clip"] for row in sound if not row["label"]} == {
        row["clip"] for row in sound if float(row["known"]) < round(middle, 6)
    }
    assert all(row["confidence"] and row["zero_shot_label"] for row in sound)
    capsys.readouterr()
    assert run("clips", "--classes", "red,green,blue", "--reject-below", "1") == 1
    sound = [row for row in rows() if not row["error"]]
    assert all((not row["label"]) == (float(row["known"]) < 1) for row in sound)
    run("clips", "--classes", "red,green,blue", "--save-domain", "domain")
    for path in [*Path("clips").glob("*blue*"), *Path("clips").glob("*green*")]:
        path.unlink()
    capsys.readouterr()
    assert run("clips", "--domain", "domain", "--classes", "blue,green", "--reject-below", "0.5") == 1
    assert not any(row["label"] for row in rows())
    said = capsys.readouterr()
    assert "all of 6 clips rejected" in said.err
    assert "  no clip of a class\n" in said.out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip,label\n00_red.avi,pink\n", "line 2: 'pink' is no class that is asked; these are red, green, blue"),
        ("clip,label\nnowhere.avi,red\n", "line 2: 'nowhere.avi' fits none of 19 clips"),
        ("clip,label\n00_red.avi,red\nclips/00_red.avi,blue\n", "line 3: 'clips/00_red.avi' has another label above"),
        ("clip,name\n00_red.avi,red\n", "no column label; its columns are clip, name"),
        ("clip,label\n00_red.avi,\n", "labels no clip"),
    ],
)
def test_labels_that_fit_nothing_are_refused(capsys, text, message):
    Path("labels.csv").write_text(text)
    assert run("clips", "--classes", "red,green,blue", "--labelled", "labels.csv") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name clips (PATH ...) or --embeddings"),
        (["clips"], "no classes: give --classes"),
        (["clips", "--classes", "nowhere.txt"], "--classes nowhere.txt: there is no such file"),
        (["clips", "--classes", "archery"], "--classes archery: there is no such file, and it is a single name"),
        (["clips", "--classes", "one_line.txt"], "one_line.txt: the line 'red, green' holds several names or a comma"),
        (["clips", "--classes", "commas.txt"], "commas.txt: the line 'red,' holds several names or a comma"),
        (["clips", "--classes", "growing,Growing"], "'Growing' and 'growing' are the same words in two spellings"),
        (["clips", "--classes", "BrushHair,brush_hair"], "are the same words in two spellings"),
        (["clips", "--classes", "red,green,red"], "'red' stands twice"),
        (["clips", "--classes", " , "], "no class in it"),
        (["nowhere", "--classes", "red,green"], "there is no file or folder nowhere"),
        (["clips", "--classes", "red,green", "--output", "t.xlsx"], "ends in .csv, .jsonl or .parquet"),
        (["clips", "--classes", "red,green", "--output", "clips"], "--output clips is a folder"),
        (["clips", "--classes", "red,green", "--output", "commas.txt/t.csv"], "a part of this path is a file"),
        (["clips", "--classes", "red,green", "--report", "commas.txt"], "--report commas.txt is a file"),
        (["clips", "--classes", "red,green", "--report", "commas.txt/r"], "a part of this path is a file"),
        (["clips", "--classes", "red,green", "--save-domain", "commas.txt"], "--save-domain commas.txt is a file"),
        (["clips", "--classes", "red,green", "--update"], "--update goes on with a saved domain"),
        (["clips", "--classes", "red,green", "--no-adapt", "--save-domain", "d"], "leave out --save-domain"),
        (
            ["clips", "--domain", "nowhere"],
            "--domain nowhere: there is no such folder; give a folder that dkd recognise",
        ),
        (["clips", "--domain", "clips"], "--domain clips: no domain is in it (dkd_domain.safetensors)"),
        (["clips", "--domain", "commas.txt"], "--domain commas.txt: is a file, and a domain is a folder"),
        (["clips", "--classes", "red,green", "--templates", "nowhere"], "no template file nowhere"),
        (["clips", "--classes", "red,green", "--descriptions", "n.json"], "cannot read n.json"),
        (["clips/bad.mp4", "--classes", "red,green"], "error: clips/bad.mp4 cannot be read: "),
        (["bad", "--classes", "red,green"], "none of the 2 clips can be read; the first, bad/1.mp4: "),
        (["clips", "--classes", "pink,violet"], "gives all 2 classes the same text embedding"),
        (["--embeddings", "nowhere.npz"], "no such file"),
    ],
)
def test_what_the_user_has_to_change_is_one_line(capsys, arguments, message):
    Path("one_line.txt").write_text("red, green\n")
    Path("commas.txt").write_text("red,\ngreen,\nblue\n")
    Path("bad").mkdir()
    for number in (1, 2):
        Path(f"bad/{number}.mp4").write_text("no video")
    assert run(*arguments, model=None if "--embeddings" in arguments else OWN) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clips", "--classes", "red,pink,violet"], "2 classes have the same text embedding (pink, violet)"),
        (["clips/00_red.avi", "clips/01_green.avi", "--classes", "red,green,blue"], "is only 2 clips for 3 classes"),
        (["clips", "--classes", "red,"], "only one class is asked"),
    ],
)
def test_a_word_is_said_when_labels_are_worth_little(capsys, caplog, arguments, message):
    run(*arguments)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len([note for note in notes if message in note]) == 1
    assert not [record for record in caplog.records if "have the same text" in record.getMessage()]
    run("clips", "--classes", "red,green,blue")
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert ["the domain is only 18 clips for 3 classes, too few to trust" in note for note in notes] == [True]


def test_ctrl_c_ends_imports_at_once_and_what_was_set_before_comes_back():
    with ended_at_once():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as behind nohup
    try:
        with ended_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_files_that_are_no_videos_are_told_of(capsys):
    for name in ("a.txt", "b.txt", "c"):
        Path("clips", name).write_text("no video")
    assert run("clips", "--classes", "red,green,blue") == 1
    said = capsys.readouterr().err
    assert "note: 3 files passed over, whose ending is none of a video's: .txt (2), none (1)" in said


def test_one_clip_is_told_of_in_the_singular(capsys):
    assert run("clips/00_red.avi", "--classes", "red,green,blue") == 0
    said = capsys.readouterr()
    assert "1 clip recognised with colours, 1 of them embedded now; domain: fitted to this clip" in said.out
    assert "the domain is only 1 clip for 3 classes" in said.err
    assert "1 clips" not in said.out + said.err


def test_a_place_that_takes_no_file_is_told_of_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # a superuser may write everywhere
    for option, name in (("--output", "t.csv"), ("--report", "r"), ("--save-domain", "d")):
        assert run("clips", "--classes", "red,green", option, name) == 2
        assert "cannot be written there; give another place" in capsys.readouterr().err
    assert not Path("cache").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
@pytest.mark.parametrize(
    ("option", "name"), [("--output", "/proc/t.csv"), ("--report", "/proc"), ("--save-domain", "/proc")]
)
def test_a_place_that_only_seems_to_take_files_is_told_of_before_the_work(capsys, option, name):
    assert run("clips", "--classes", "red,green", option, name) == 2
    assert f"{option} {name} cannot be written there (" in capsys.readouterr().err
    assert not Path("cache").exists()


def test_parquet_without_its_library_is_refused_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr("modeling_dkd.recognition.output_places.find_spec", lambda _: None)
    assert run("clips", "--classes", "red,green", "--output", "t.parquet") == 2
    assert "Parquet needs pyarrow; run: pip install pyarrow" in capsys.readouterr().err
    assert not Path("cache").exists()


def test_the_embedded_checkpoint_is_loaded_without_a_bar_and_an_error_has_a_line_of_its_own(capsys):
    assert run("clips", "--classes", "turning,growing", model=None) == 1
    assert "Loading weights" not in capsys.readouterr().err
    from tqdm import tqdm

    from modeling_dkd.recognition.command_options import say

    with tqdm(total=3, file=sys.stderr) as bar:
        bar.update(1)
        say("error", "it ended")
        lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert "error: it ended" in lines


def test_the_table_that_is_written_may_not_be_one_that_is_read(capsys):
    Path("list.csv").write_text("path\nclips/00_red.avi\n")
    before = Path("list.csv").read_text()
    assert run("list.csv", "--classes", "red,green", "--output", "list.csv") == 2
    assert "is one of the files that are read" in capsys.readouterr().err
    assert Path("list.csv").read_text() == before


def test_odd_names_stand_in_the_table_as_they_are():
    names = ["new\nline red.avi", 'quo"te, red.avi', "=1+1 red.avi", "красный red.avi"]
    for name in names:
        write_clip(Path("odd") / name, "red")
    run("odd", "--classes", "red,green")
    assert sorted(row["clip"] for row in rows()) == sorted(f"odd/{name}" for name in names)


def test_embeddings_give_the_figures_of_evaluate(data_dir, capsys):
    file = f"{data_dir}/features/whurs19_clip_vit-b-32.npz"
    arrays = "video_embeds=image_f,text_embeds=text_avg,class_names=classnames"
    options = ["--protocols", "full", "--seeds", "1", "--output", "results.json"]
    assert main(["evaluate", "--embeddings", f"{file}:{arrays},labels=labels", *options]) == 0
    expected = {row["method"]: row for row in json.loads(Path("results.json").read_text())["rows"]}
    assert main(["recognise", "--embeddings", f"{file}:{arrays}"]) == 0
    truth = read_embeddings(file, video_embeds="image_f", text_embeds="text_avg", class_names="classnames")
    labels = [truth.class_names[label] for label in truth.labels.tolist()]
    for method, column in (("zero-shot", "zero_shot_label"), ("dkd", "label")):
        right = [row[column] == label for row, label in zip(rows(), labels, strict=True)]
        assert len(right) == expected[method]["n"]
        assert sum(right) / len(right) == pytest.approx(expected[method]["top1"], abs=1e-6)
    assert expected["dkd"]["top1"] > expected["zero-shot"]["top1"] + 0.1


def test_embeddings_of_some_classes_and_labels_by_name(data_dir):
    arrays = "video_embeds=val_f,labels=val_l,class_names=classnames,names=val_names"
    file = f"{data_dir}/features/ucf101_openai_vitb32_dev.npz:{arrays}"
    file += f"+{data_dir}/features/ucf101_object_prompts_vitb32.npz:text_embeds=text,class_names=class_name"
    names = recognise_embeddings(file, use=DomainUse(adapt=False)).class_names
    found = recognise_embeddings(file, names[3:6])
    assert found.class_names == names[3:6]
    with pytest.raises(ValueError, match="has no texts of 'flying'"):
        recognise_embeddings(file, ["flying"])


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_writes(tmp_path):
    arguments = ["recognise", "clips", "--classes", "red,green,blue", "--model", OWN, "--batch-size", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--main_process_port", "0", "-m", "modeling_dkd", *arguments, "--num-workers", "0"]
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.count("18 clips recognised with colours, 18 of them embedded now") == 1, done.stderr
    # One clip could not be read; any other code would make the launcher show a traceback.
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "clips/bad.mp4: " in done.stdout
    together = rows()
    run("clips", "--classes", "red,green,blue", "--cache-dir", "another")
    assert rows() == together


@pytest.mark.slow
def test_two_machines_share_a_cache_and_a_kill_changes_no_byte(tmp_path):
    """Runs that know nothing of each other but --cache-dir; one is killed and begun anew, both put shards together."""
    Path("many").mkdir()
    for number in range(140):
        name = list(COLOURS)[number % 3]
        write_clip(Path(f"many/{name} {number}.mp4"), name)
    model = OWN.replace("ColourEncoder", "Slow")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def begin(output, cache="shared"):
        command = [sys.executable, "-m", "modeling_dkd", "recognise", "many", "--classes", ",".join(COLOURS)]
        options = [
            "--model",
            model,
            "--batch-size",
            "1",
            "--num-workers",
            "0",
            "--cache-dir",
            cache,
            "--output",
            output,
        ]
        return subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)

    first, second = begin("first.csv"), begin("second.csv")
    deadline = time.monotonic() + 120
    while len(list(Path("shared").rglob("*.safetensors"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    second.kill()
    second.communicate()
    assert first.poll() is None
    second = begin("second.csv")
    told = [process.communicate(timeout=180)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    embedded = [
        int(re.search(r"140 clips recognised with slow, (\d+) of them embedded now", text)[1]) for text in told
    ]
    assert 0 < sum(embedded) <= 140
    alone = begin("alone.csv", "another")
    alone.communicate(timeout=180)
    assert alone.returncode == 0
    assert Path("first.csv").read_bytes() == Path("second.csv").read_bytes() == Path("alone.csv").read_bytes()
    assert len(list(Path("shared").rglob("*.safetensors"))) < 64  # put together
