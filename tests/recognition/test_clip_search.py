import io
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.cli import main
from modeling_dkd.recognition import clip_search, load_encoder, search, search_index
from modeling_dkd.recognition.clip_search import Match, Row, SearchIndex
from modeling_dkd.recognition.search_command import place
from modeling_dkd.recognition.thumbnails import HEIGHT, WIDTH, Picture, sheet_page, thumbnail, write_sheet
from modeling_dkd.recognition.window_embedding import pooled

from .colour_clips import write_clips
from .long_colour_video import rows_of, write_long_video


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"
COLOURS = ["red", "green", "blue"]


@pytest.fixture
def clips(tmp_path):
    write_clips(tmp_path / "clips", 12)
    return tmp_path / "clips"


def test_clips_of_a_text_come_first_with_their_cosines(clips, tmp_path):
    encoder = load_encoder(OWN)
    found = search("something green", [clips], None, encoder, count=4, cache_dir=tmp_path / "cache", num_workers=0)
    assert all("green" in match.clip for match in found)
    assert [m.score for m in found] == sorted((m.score for m in found), reverse=True)
    frames, _ = encoder.reader(found[0].path)
    embeds = normalize(normalize(encoder.embed_videos([frames]), dim=-1).mean(1), dim=-1)
    text = normalize(encoder.embed_texts([["green"]])[0], dim=-1)
    assert found[0].score == pytest.approx(float((embeds @ text.T).squeeze()), abs=1e-5)


def test_scores_are_the_cosines_that_the_fitted_head_returns(clips, tmp_path):
    index = search_index([clips], COLOURS, OWN, cache_dir=tmp_path / "cache", num_workers=0)
    assert index.head.is_fitted
    encoder = load_encoder(OWN)
    embeds = pooled(torch.cat([encoder.embed_videos([encoder.reader(row.path)[0]]) for row in index.rows]))
    texts = encoder.embed_texts(encoder.prompts(COLOURS))
    head = DKDHead(DKDCLIPConfig(projection_dim=encoder.dim, logit_scale=20.0)).fit(embeds, texts)
    expected = head(embeds, texts)
    for k, colour in enumerate(COLOURS):
        cosines = (expected.video_embeds @ expected.text_embeds[k]).detach().numpy()
        np.testing.assert_allclose(index.scores(colour), cosines, atol=1e-4)


def test_a_second_query_neither_decodes_nor_fits(clips, tmp_path, monkeypatch):
    encoder = load_encoder(OWN)
    options = {"cache_dir": tmp_path / "cache", "num_workers": 0}
    first = search("blue", [clips], COLOURS, encoder, **options)
    monkeypatch.setattr(clip_search, "ClipEmbeddings", lambda *_: pytest.fail("embedded again"))
    assert search("blue", [clips], COLOURS, encoder, **options) == first
    write_clips(clips, 13)
    with pytest.raises(pytest.fail.Exception):  # a clip that is new makes another index
        search("blue", [clips], COLOURS, encoder, **options)


def test_moments_of_long_videos_do_not_overlap(tmp_path):
    path = write_long_video(tmp_path / "long.mp4", [("red", 8), ("green", 8), ("red", 8), ("blue", 8)])
    found = search("green", [path], None, OWN, count=5, window=4, cache_dir=tmp_path / "cache")
    assert 8 <= found[0].start < found[0].end <= 16
    for one in found:
        assert one.end - one.start == pytest.approx(4)
        assert not any(o is not one and o.start < one.end and one.start < o.end for o in found)


def test_a_damaged_clip_is_told_and_an_index_of_none_refused(clips, tmp_path):
    (clips / "bad.mp4").write_bytes(b"no video at all")
    index = search_index([clips], None, OWN, cache_dir=tmp_path / "cache", num_workers=0)
    assert len(index.rows) == 12
    assert [Path(name).name for name in index.damaged] == ["bad.mp4"]
    with pytest.raises(ValueError, match=r"bad.mp4 cannot be read: "):
        search_index([clips / "bad.mp4"], None, OWN, cache_dir=tmp_path / "cache", num_workers=0)
    with pytest.raises(ValueError, match="the text to search for is empty"):
        index.search("  ")
    with pytest.raises(ValueError, match="ask for at least 1"):
        index.search("red", 0)


def test_an_index_that_cannot_be_read_is_made_again(clips, tmp_path):
    options = {"cache_dir": tmp_path / "cache", "num_workers": 0}
    before = search("blue", [clips], COLOURS, OWN, **options)
    for name in ("embeds.npy", "index.json", "dkd_domain.safetensors"):
        (file,) = (tmp_path / "cache").rglob(name)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        assert search("blue", [clips], COLOURS, OWN, **options) == before
        (file,) = (tmp_path / "cache").rglob(name)
        assert len(file.read_bytes()) == len(whole)
    assert not list((tmp_path / "cache").rglob(".unfinished-*"))


def test_an_index_that_the_disk_refuses_is_named_and_leaves_nothing(clips, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match=r" cannot be written: No space left on device; make room"):
        search_index([clips], COLOURS, OWN, cache_dir=tmp_path / "cache", num_workers=0)
    assert not list((tmp_path / "cache").rglob(".unfinished-*"))


def test_of_old_indexes_a_few_stay(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_search, "KEPT_INDEXES", 2)
    encoder = load_encoder(OWN)
    for colour in COLOURS:
        search("blue", [clips], [colour, "white"], encoder, cache_dir=tmp_path / "cache", num_workers=0)
    assert len(list((tmp_path / "cache").rglob("index.json"))) == 2
    monkeypatch.setattr(clip_search, "ClipEmbeddings", lambda *_: pytest.fail("the last one is gone"))
    search("blue", [clips], ["blue", "white"], encoder, cache_dir=tmp_path / "cache", num_workers=0)


@pytest.mark.slow
def test_a_query_of_100000_clips_takes_under_a_second_and_equals_the_whole_product(tmp_path):
    random = np.random.default_rng(0)
    embeds = random.standard_normal((100_000, 512), dtype=np.float32)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    np.save(tmp_path / "embeds.npy", embeds)
    query = normalize(torch.from_numpy(random.standard_normal((1, 1, 512), dtype=np.float32)), dim=-1)
    rows = [Row(f"{i}.mp4", f"/{i}.mp4") for i in range(len(embeds))]
    head = DKDHead(DKDCLIPConfig(projection_dim=512)).eval()
    index = SearchIndex(rows, np.load(tmp_path / "embeds.npy", mmap_mode="r"), head, lambda text: query)
    index.search("first")
    start = time.perf_counter()
    found = index.search("second", 20)
    assert time.perf_counter() - start < 1
    expected = embeds @ query[0, 0].numpy()
    assert [match.path for match in found] == [f"/{i}.mp4" for i in np.argsort(-expected)[:20]]
    assert len(index.search("all of them", 5000)) == 5000


def test_thumbnails_and_sheets(tmp_path):
    path = write_long_video(tmp_path / "a <b>&.mp4", [("red", 4), ("blue", 4)])
    for seconds, brightest in ((1.0, 0), (6.0, 2), (99.0, 2), (None, None)):
        image = thumbnail(str(path), seconds)
        assert image.width <= WIDTH
        assert image.height <= HEIGHT
        mean = np.asarray(image.convert("RGB")).mean((0, 1))
        assert brightest is None or mean.argmax() == brightest
    assert thumbnail(str(tmp_path / "absent.mp4"), 1.0).size == (WIDTH, HEIGHT)
    pictures = [Picture(str(path), 1.0, "<i>title</i>", f"note {i}") for i in range(7)]
    page = sheet_page(pictures, "<script>alert(1)</script>", tmp_path)
    assert "<i>" not in page
    assert "<script>" not in page
    assert 'href="a%20%3Cb%3E%26.mp4#t=1.000"' in page
    assert len(re.findall(r'src="data:image/jpeg;base64,', page)) == 7
    write_sheet(pictures, tmp_path / "sheet.png", "red")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * HEIGHT
    with pytest.raises(ValueError, match=r"\.png or a \.html"):
        write_sheet(pictures, tmp_path / "sheet.jpg", "red")


def test_the_command_prints_matches_and_writes_tables_and_sheets(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["clips", "--model", OWN, "--cache-dir", "cache", "--num-workers", "0", "--count", "3"]
    assert main(["search", "something blue", *common, "--output", "found.csv", "--sheet", "found.html"]) == 0
    said = capsys.readouterr()
    assert "12 clips, plain cosines" in said.out
    assert "no --classes" in said.err
    rows = rows_of(tmp_path / "found.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert all("blue" in row["clip"] for row in rows)
    assert "something blue" in (tmp_path / "found.html").read_text(encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("red\n\ngreen\n"))
    assert main(["search", "-", *common, "--classes", "red,green,blue"]) == 0
    said = capsys.readouterr().out
    assert "red: 12 clips, adapted to the domain" in said
    assert "green: 12 clips" in said
    assert [said.count(f"_{colour}.avi") for colour in COLOURS] == [3, 3, 0]


def test_moments_are_told_to_a_tenth_of_a_second():
    assert place(Match("a.mp4", "", 0.5, 0.0, 1.34)) == "a.mp4  00:00:00.0 - 00:00:01.3"
    assert place(Match("a.mp4", "", 0.5, 1.9996, 3661.25)) == "a.mp4  00:00:02.0 - 01:01:01.2"
    assert place(Match("a.mp4", "", 0.5, None, None)) == "a.mp4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red", "clips", "--sheet", "a.pdf"], "--sheet a.pdf: give a name that ends in .png, .html or .htm"),
        (["red", "clips", "--sheet", "clips"], "--sheet clips is a folder"),
        (["red", "clips", "--output", "a.xlsx"], "--output a.xlsx: give a name that ends in .csv"),
        (["red", "clips", "--output", "clips"], "--output clips is a folder"),
        (["red", "clips", "--stride", "2"], "--stride goes with --window"),
        ([" ", "clips"], "the text to search for is empty"),
        (["red", "nowhere"], "there is no file or folder nowhere"),
        (["red", "clips", "--window", "4", "--stride", "9"], "leave out what is between them"),
    ],
)
def test_mistakes_are_one_line(arguments, message, clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments, "--model", OWN, "--cache-dir", "cache"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
