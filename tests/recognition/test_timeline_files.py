import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from modeling_dkd.recognition.segments import Segment
from modeling_dkd.recognition.timeline_figure import timeline_figure
from modeling_dkd.recognition.timeline_files import clock, csv_text, json_text, srt, webvtt
from modeling_dkd.recognition.timeline_player import colour, file_address, player_page
from modeling_dkd.recognition.timelines import Timeline


ODD = '<b>a & b</b> --> "c"\n{\\an8}</script>, $x$'


def a_timeline(segments, video="film.mp4", path="/videos/film.mp4"):
    end = segments[-1].end
    names = [s.label for s in segments if s.label]
    return Timeline(
        video, path, segments, np.array([0.0]), np.array([end]), [None], [names[0]], tuple(names), 4.0, 2.0, 3.5
    )


SEGMENTS = [
    Segment(0.0, 3.0004, "surfing", 0.875),
    Segment(3.0004, 59.9996, None, 0.6),
    Segment(59.9996, 3725.25, ODD, 0.999),
    Segment(3725.25, 3725.2504, "too short to show", 0.5),
]


def test_captions_of_browsers():
    assert webvtt(SEGMENTS) == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:03.000\nsurfing (88 %)\n\n"
        '00:01:00.000 --> 01:02:05.250\n&lt;b&gt;a &amp; b&lt;/b&gt; --&gt; "c" {\\an8}&lt;/script&gt;, $x$ (100 %)\n'
    )


def test_captions_of_players_are_numbered_and_hold_no_markup():
    text = srt(SEGMENTS)
    assert text.startswith("1\n00:00:00,000 --> 00:00:03,000\nsurfing (88 %)\n\n2\n00:01:00,000 --> 01:02:05,250\n")
    shown = text.splitlines()[-1]
    assert not re.search(r"<[\w/]|\{\\|-->", shown)
    assert srt([SEGMENTS[1]]) == ""


def test_a_video_without_any_class_has_empty_captions():
    assert webvtt([SEGMENTS[1]]) == "WEBVTT\n"


@pytest.mark.parametrize(("time", "shown"), [(999, "00:00:00"), (3_599_999, "00:59:59"), (360_000_000, "100:00:00")])
def test_clocks(time, shown):
    assert clock(time) == shown


def test_tables_hold_every_segment():
    rows = list(csv.DictReader(io.StringIO(csv_text(a_timeline(SEGMENTS)))))
    assert [row["label"] for row in rows] == ["surfing", "", ODD, "too short to show"]
    assert rows[0] == {
        "video": "film.mp4",
        "start": "0.000",
        "end": "3.000",
        "label": "surfing",
        "confidence": "0.8750",
    }
    content = json.loads(json_text(a_timeline(SEGMENTS)))
    assert content["segments"][1] == {"start": 3.0, "end": 60.0, "label": None, "confidence": 0.6}
    assert (content["window"], content["stride"], content["switch_penalty"]) == (4, 2, 3.5)


def test_the_page_takes_nothing_for_markup(tmp_path):
    found = a_timeline(SEGMENTS, video=f"{ODD}.mp4", path=str(tmp_path / "a#b?c%20 é.mp4"))
    page = player_page(found, tmp_path / "pages")
    assert 'src="../a%23b%3Fc%2520%20%C3%A9.mp4"' in page
    assert page.count("</script>") == 2
    assert "<b>" not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    content = json.loads(data)
    assert content["classes"][0]["name"] == ODD
    assert content["segments"][1]["label"] is None
    assert content["duration"] == found.duration
    assert "://" not in page  # it opens without a network


def test_classes_seen_longest_come_first_and_colours_differ(tmp_path):
    parts = [Segment(i, i + 1 + 0.01 * i, f"class {i}", 1.0) for i in range(30)]
    data = player_page(a_timeline(parts), tmp_path)
    assert data.index('"class 29"') < data.index('"class 0"')
    assert len({colour(k) for k in range(101)}) == 101


def test_an_address_leads_from_the_page_to_the_file(tmp_path):
    assert file_address(str(tmp_path / "a.mp4"), tmp_path) == "a.mp4"
    assert file_address(str(tmp_path / "x/a b.mp4"), tmp_path / "y") == "../x/a%20b.mp4"


def test_the_figure_has_a_row_a_class(tmp_path):
    figure = timeline_figure(a_timeline(SEGMENTS[:3]))
    figure.savefig(tmp_path / "timeline.png")
    (axes,) = figure.axes
    assert len(axes.get_yticklabels()) == 2
    assert len(axes.collections) == 2
    nothing = replace(a_timeline(SEGMENTS[:1]), segments=[SEGMENTS[1]])
    empty = timeline_figure(nothing)
    assert "none of the classes" in [text.get_text() for text in empty.axes[0].texts]


def test_a_long_figure_leaves_out_the_classes_seen_least(tmp_path):
    parts = [Segment(i, i + 1 + 0.001 * i, f"class {i}", 1.0) for i in range(101)]
    (axes,) = timeline_figure(a_timeline(parts)).axes
    assert len(axes.get_yticklabels()) == 40
    assert "61 classes" in axes.get_title(loc="left")
