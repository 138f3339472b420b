import csv
import json
import os
import signal
from pathlib import Path

import pytest

from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.recognition.encoder import ModelChoice
from modeling_dkd.space.clip_folders import CLIPS
from modeling_dkd.space.clip_jobs import (
    ClipJobs,
    find_clips,
    follow_video,
    recognise_clips,
    refuse_long,
)
from modeling_dkd.space.visitor_process import VisitorProcess
from modeling_dkd.synthetic.clips import DOMAINS, describe_clips, render_clip, write_clip


MODEL = ModelChoice(str(CHECKPOINT), 4, None)
LABELS = ["moving left", "growing", "<b>turning</b> ${1}"]
NAMES = ["<b>0</b>.mp4", "1.mp4", "2.mp4", "broken.mp4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("visitor")
    domain = DOMAINS["combined"]
    for name, description in zip(NAMES, describe_clips(domain, 3, 4), strict=False):
        write_clip(folder / CLIPS / name, render_clip(domain, description))
    (folder / CLIPS / NAMES[3]).write_bytes(b"nothing to see")
    return folder


def texts(files: list[str]) -> dict[str, str]:
    return {Path(file).name: Path(file).read_text(encoding="utf-8") for file in files if not file.endswith(".png")}


def test_several_clips_become_a_table_and_a_report(folder):
    here = os.getcwd()
    found = recognise_clips(MODEL, folder, NAMES, LABELS)
    assert os.getcwd() == here
    assert found.html.count("<tr") == 5
    assert "&lt;b&gt;0&lt;/b&gt;.mp4" in found.html
    assert not {"<b>", "${"} & {found.html[at : at + size] for size in (2, 3) for at in range(len(found.html))}
    assert str(folder) not in found.html
    written = texts(found.files)
    assert sorted(written) == ["predictions.csv", "report.html"]
    rows = list(csv.DictReader(written["predictions.csv"].splitlines()))
    assert [row["clip"] for row in rows] == NAMES
    assert {row["label"] for row in rows[:3]} <= set(LABELS)
    assert rows[3]["error"]
    for share in (rows[0]["confidence"], rows[0]["known"]):
        assert f"{100 * float(share):.0f} %" in found.html
    assert 'href="1.mp4"' in written["report.html"]
    assert str(folder) not in written["report.html"]


def test_a_video_becomes_a_timeline(folder):
    found = follow_video(MODEL, folder, ["1.mp4"], LABELS, 1.0, 0.0)
    assert found.html.startswith("<iframe")
    assert 'sandbox="allow-scripts"' in found.html
    assert "data:video/mp4" in found.html
    written = texts(found.files)
    assert sorted(written) == [f"1.{ending}" for ending in ("csv", "html", "json", "srt", "vtt")]
    assert 'src="1.mp4"' in written["1.html"]
    assert str(folder) not in "".join(written.values()) + found.html
    assert all(segment["label"] in LABELS for segment in json.loads(written["1.json"])["segments"])
    rejected = follow_video(MODEL, folder, ["1.mp4"], LABELS, 1.0, 0.999)
    assert not any(segment["label"] for segment in json.loads(texts(rejected.files)["1.json"])["segments"])


def test_a_text_finds_clips_with_and_without_a_domain(folder):
    adapted = find_clips(MODEL, folder, NAMES[:3], "growing", LABELS)
    plain = find_clips(MODEL, folder, NAMES[:3], "growing", None)
    for found in (adapted, plain):
        assert found.html.count("<figure>") == 3
        assert "&lt;b&gt;0&lt;/b&gt;.mp4" in found.html
        assert [Path(file).name for file in found.files] == ["matches.html", "matches.png"]
        assert str(folder) not in found.html + texts(found.files)["matches.html"]
    assert adapted.html != plain.html


def test_a_long_video_is_refused_before_it_is_decoded(folder):
    refuse_long(folder / CLIPS / "1.mp4", max_seconds=2.1)
    with pytest.raises(ValueError, match=r"'1\.mp4' is 0 minutes long, and at most"):
        refuse_long(folder / CLIPS / "1.mp4", max_seconds=1.9)
    refuse_long(folder / CLIPS / "broken.mp4")


@pytest.mark.slow
def test_jobs_are_done_elsewhere_and_can_be_given_up(folder):
    process = VisitorProcess()
    try:
        jobs = ClipJobs(MODEL, process)
        found = jobs(recognise_clips, folder, NAMES, LABELS)
        assert found == recognise_clips(MODEL, folder, NAMES, LABELS)
        with pytest.raises(ValueError, match=r"^broken\.mp4 cannot be read: ") as error:
            jobs(recognise_clips, folder, ["broken.mp4"], LABELS)
        assert str(folder) not in str(error.value)
        jobs.max_seconds = 0.5
        pid = process._process.pid
        with pytest.raises(ValueError, match=r"no result after 0\.5 seconds; send fewer clips"):
            jobs(_for_ever, folder)
        jobs.max_seconds = 120
        assert jobs(recognise_clips, folder, NAMES, LABELS) == found
        assert process._process.pid != pid
    finally:
        process.close()


def _for_ever(*_: object) -> None:
    signal.pause()
