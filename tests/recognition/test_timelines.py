import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_dkd.cli import main
from modeling_dkd.dkd_head import DKDHeadOutput
from modeling_dkd.recognition import load_encoder, timeline, window_embedding
from modeling_dkd.recognition.clip_listing import list_clips
from modeling_dkd.recognition.saved_domain import SavedDomain, save_domain
from modeling_dkd.recognition.segments import Segment, segment_f1
from modeling_dkd.recognition.timelines import embed_videos, label_posteriors

from .long_colour_video import rows_of, write_long_video


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"
COLOURS = ["red", "green", "blue"]
STRETCHES = [("red", 8), ("green", 12), ("red", 6), ("blue", 10)]
TRUE = [
    Segment(0, 8, "red", 1.0),
    Segment(8, 20, "green", 1.0),
    Segment(20, 26, "red", 1.0),
    Segment(26, 36, "blue", 1.0),
]


@pytest.fixture
def video(tmp_path):
    return write_long_video(tmp_path / "long video é#1.mp4", STRETCHES)


def test_stretches_of_a_video_are_found_with_their_times(video, tmp_path):
    found = timeline([video], COLOURS, OWN, adapt=False, cache_dir=tmp_path / "cache")
    (of_video,) = found.timelines
    assert [s.label for s in of_video.segments] == ["red", "green", "red", "blue"]
    for segment, true in zip(of_video.segments, TRUE, strict=True):
        assert abs(segment.start - true.start) <= 1.01
        assert abs(segment.end - true.end) <= 1.01
        assert 0.5 < segment.confidence <= 1
    assert segment_f1(of_video.segments, TRUE) == 1
    assert (of_video.duration, of_video.window, of_video.stride) == (36, 4, 2)
    assert of_video.starts.tolist() == list(range(0, 34, 2))
    assert of_video.zero_shot_labels[0] == of_video.window_labels[0] == "red"
    assert not found.damaged
    assert not found.head.is_fitted


def test_windows_that_overlap_make_a_label_no_surer(video, tmp_path):
    options = {"model": OWN, "adapt": False, "cache_dir": tmp_path, "switch_penalty": 3.0}
    apart, close = (
        timeline([video], COLOURS, stride=stride, **options).timelines[0].segments for stride in (4.0, 0.5)
    )
    assert [s.label for s in apart] == [s.label for s in close]
    assert all(b.confidence < a.confidence - 0.01 for a, b in zip(apart, close, strict=True))


def test_the_domain_is_fitted_to_the_windows_or_given(video, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "switch_penalty": 0.0, "reject_below": 0.0}
    found = timeline([video], COLOURS, OWN, **options)
    assert found.head.is_fitted
    encoder = load_encoder(OWN)
    (windows,), _ = embed_videos(list_clips([video]).clips, encoder, tmp_path / "windows", 4.0, 2.0)
    texts = encoder.embed_texts(encoder.prompts(COLOURS))
    head = encoder.new_head().fit(windows.video_embeds, texts)
    best = head(windows.video_embeds, texts).logits_per_video.argmax(1)
    assert found.timelines[0].window_labels == [COLOURS[k] for k in best]
    save_domain(tmp_path / "domain", SavedDomain(head, COLOURS, None, encoder.name, encoder.key))
    again = timeline([video], None, OWN, domain=tmp_path / "domain", **options)
    assert again.timelines[0].segments == found.timelines[0].segments


def test_windows_are_embedded_once(video, tmp_path, monkeypatch):
    encoder = load_encoder(OWN)
    first = timeline([video], COLOURS, encoder, cache_dir=tmp_path / "cache").timelines[0]
    monkeypatch.setattr(window_embedding, "read_windows", lambda *_: pytest.fail("the video is decoded again"))
    again = timeline([video], COLOURS, encoder, cache_dir=tmp_path / "cache").timelines[0]
    assert again.segments == first.segments
    other = timeline([video], ["blue", "green"], encoder, adapt=False, cache_dir=tmp_path / "cache").timelines[0]
    assert {s.label for s in other.segments} <= {"blue", "green", None}
    with pytest.raises(pytest.fail.Exception, match="decoded again"):  # other windows are others
        timeline([video], COLOURS, encoder, window=3.0, cache_dir=tmp_path / "cache")


def test_a_killed_run_goes_on_where_it_was(video, tmp_path, monkeypatch):
    encoder = load_encoder(OWN)
    expected = timeline([video], COLOURS, encoder, cache_dir=tmp_path / "whole").timelines[0]
    monkeypatch.setattr(window_embedding, "WINDOWS_PER_PART", 4)
    decode = window_embedding.read_windows

    def killed(*arguments):
        for number, window in enumerate(decode(*arguments)):
            if number == 10:
                raise KeyboardInterrupt
            yield window

    monkeypatch.setattr(window_embedding, "read_windows", killed)
    with pytest.raises(KeyboardInterrupt):
        timeline([video], COLOURS, encoder, cache_dir=tmp_path / "cache")
    embedded = []
    monkeypatch.setattr(window_embedding, "read_windows", decode)
    embed = encoder.videos
    object.__setattr__(encoder, "videos", lambda clips: embedded.extend(clips) or embed(clips))
    again = timeline([video], COLOURS, encoder, cache_dir=tmp_path / "cache").timelines[0]
    assert again.segments == expected.segments
    assert len(embedded) == len(expected.starts) - 8
    assert not list((tmp_path / "cache").rglob("*.parts"))


def test_a_damaged_video_gives_what_can_be_read_and_others_are_named(video, tmp_path):
    data = bytearray(video.read_bytes())
    place = data.index(b"mdat") + 8
    length = len(data) - place
    for start in range(place + length * 4 // 10, place + length * 6 // 10, 50):
        data[start : start + 30] = bytes(30)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    found = timeline([broken, video, empty], COLOURS, OWN, adapt=False, cache_dir=tmp_path / "cache")
    by_name = {Path(t.path).name: t for t in found.timelines}
    assert found.damaged == {str(empty): "the file is empty"}
    assert by_name[video.name].segments[-1].label == "blue"
    assert by_name["broken.mp4"].segments[0].label == "red"
    assert by_name["broken.mp4"].remark
    assert str(tmp_path) not in by_name["broken.mp4"].remark
    with pytest.raises(ValueError, match=r"empty.mp4 cannot be read: the file is empty"):
        timeline([empty], COLOURS, OWN, cache_dir=tmp_path / "cache")


def test_what_is_none_of_the_classes_is_a_gap(tmp_path):
    path = write_long_video(tmp_path / "long.mp4", [("red", 20), ("blue", 20), ("green", 20)])
    options = {"adapt": False, "cache_dir": tmp_path / "cache"}

    def labels(**rejecting):
        run = timeline([path], ["red", "green"], OWN, **rejecting, **options)
        return [segment.label for segment in run.timelines[0].segments]

    assert labels(reject_below=0.5) == ["red", None, "green"]
    assert set(labels()) == set(labels(reject_below=0.0)) == {"red", "green"}


def test_where_all_is_a_gap_it_is_said_with_what_to_do(tmp_path):
    path = write_long_video(tmp_path / "long.mp4", [("blue", 20)])
    options = {"adapt": False, "cache_dir": tmp_path / "cache"}
    run = timeline([path], ["red", "green"], OWN, reject_below=0.9, **options)
    assert [segment.label for segment in run.timelines[0].segments] == [None]
    assert next(note for note in run.notes if "give a lower one" in note).startswith(
        "all of 9 windows rejected, where"
    )
    assert not timeline([path], ["red", "blue"], OWN, reject_below=0.5, **options).notes


def test_what_is_known_makes_gaps():
    logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]])
    output = DKDHeadOutput(logits_per_video=logits, known=torch.tensor([0.9, 0.3, 1.0]))
    posteriors = label_posteriors(output, 0.5)
    torch.testing.assert_close(
        posteriors[:, 2], torch.tensor([0.1, 0.7, 1e-6], dtype=torch.float64), atol=1e-7, rtol=1e-4
    )
    torch.testing.assert_close(posteriors.sum(1), torch.ones(3, dtype=torch.float64))
    assert float(label_posteriors(output, 0.3)[1, 2]) == pytest.approx(0.5, abs=1e-6)
    assert label_posteriors(output, 0).shape == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "no classes: give --classes"),
        ({"window": 0.0}, "both must be above 0"),
        ({"window": float("nan")}, "both must be above 0"),
        ({"stride": -1.0}, "both must be above 0"),
        ({"stride": 5.0}, "leave out what is between them"),
        ({"switch_penalty": -1.0}, "must be 0 or more"),
        ({"reject_below": 1.0}, "known is a probability"),
        ({"domain": "nowhere"}, "--domain nowhere: there is no such folder; give a folder that dkd recognise"),
        ({"domain": "nowhere", "adapt": False}, "leave out one of both"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_decoded(options, message, video, tmp_path, monkeypatch):
    monkeypatch.setattr(window_embedding, "read_windows", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=message):
        timeline([video], **({"classes": COLOURS, "model": OWN, "cache_dir": tmp_path} | options))


def test_the_command_writes_every_file_and_names_what_it_could_not_read(video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    write_long_video(tmp_path / "more" / video.name, [("green", 6), ("blue", 6)])
    (tmp_path / "text.mp4").write_text("no video at all\n" * 9)
    command = ["timeline", video.name, "more", "text.mp4", "--classes", "red,green,blue", "--model", OWN, "--no-adapt"]
    assert main([*command, "--cache-dir", "cache"]) == 1
    said = capsys.readouterr()
    assert "00:00:36, 4 segments of 3 classes" in said.out
    assert "not read: text.mp4" in said.err
    stems = [video.stem, f"{video.stem}-2"]
    names = {f"{stem}.{ending}" for stem in stems for ending in ("csv", "json", "vtt", "srt", "png", "html")}
    assert {path.name for path in (tmp_path / "timelines").iterdir()} == names
    rows = rows_of(tmp_path / "timelines" / f"{video.stem}.csv")
    assert [row["label"] for row in rows] == ["red", "green", "red", "blue"]
    assert json.loads((tmp_path / "timelines" / f"{stems[1]}.json").read_text(encoding="utf-8"))["duration"] == 12
    assert "00:00:00.000 --> " in (tmp_path / "timelines" / f"{video.stem}.vtt").read_text(encoding="utf-8")


def code_of(arguments):
    """Exit code of the command; the parser leaves by SystemExit."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no classes: give --classes"),
        (["--classes", "red,green", "--formats", "csv,pdf"], "choose from csv, json"),
        (["--classes", "red,green", "--stride", "9"], "leave out what is between"),
        (["--classes", "red,green", "--window", "0"], "--window: '0' is not a number of seconds above 0"),
        (["--classes", "red,green", "--stride", "nan"], "--stride: 'nan' is not a number of seconds above 0"),
        (["--classes", "red,green", "--switch-penalty", "-1"], "--switch-penalty: '-1' is not a number from 0"),
        (["--classes", "red,red"], "stands twice"),
    ],
)
def test_mistakes_are_one_line(arguments, message, video, tmp_path, capsys):
    assert code_of(["timeline", str(video), "--model", OWN, "--output", str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_name_of_any_signs_is_charted_and_stays_in_its_line(tmp_path, capsys):
    video = tmp_path / "語\nby night.mp4"
    write_long_video(video, [("red", 3.0)])
    options = ["--classes", "red,green", "--model", OWN, "--cache-dir", str(tmp_path / "cache"), "--formats", "png"]
    assert main(["timeline", str(video), *options, "--output", str(tmp_path / "times")]) == 0
    assert (tmp_path / "times" / "語\nby night.png").stat().st_size > 1000
    assert r"語\nby night.mp4: 0" in capsys.readouterr().err


def test_a_chart_without_its_library_is_refused_where_it_is_asked_for(video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_dkd.recognition.timeline_command.find_spec", lambda _: None)
    command = ["timeline", str(video), "--model", OWN, "--classes", "red,green", "--output", str(tmp_path / "out")]
    command += ["--cache-dir", str(tmp_path / "cache")]
    assert main([*command, "--formats", "csv,png"]) == 2
    assert "needs matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(command) == 0  # who did not ask for it gets the other files
    assert "note: no chart is written: the chart (png) needs matplotlib" in capsys.readouterr().err
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv", ".json", ".vtt", ".srt", ".html"}


def test_a_single_class_and_a_video_shorter_than_a_window(tmp_path):
    path = write_long_video(tmp_path / "short.mp4", [("green", 1)])
    (found,) = timeline([path], ["green"], OWN, reject_below=0.0, cache_dir=tmp_path / "cache").timelines
    assert [(s.start, s.end, s.label) for s in found.segments] == [(0, pytest.approx(1), "green")]
    assert np.isfinite(found.segments[0].confidence)
