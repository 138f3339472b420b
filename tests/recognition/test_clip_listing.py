import os

import pytest

from modeling_dkd.recognition.clip_listing import list_clips


ODD = ["ä ö.mp4", "new\nline.mp4", "a;b#c&(d).MP4", "视频.webm", "=1+1.avi", "'; rm -rf.mkv"]


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_folder_of_any_depth_gives_its_videos_by_name(tmp_path, monkeypatch):
    make(tmp_path / "clips", "b.mp4", "a/z.avi", "a/deep/er/x.MKV", ".hidden.mp4", ".git/y.mp4", "notes.txt", *ODD)
    monkeypatch.chdir(tmp_path)
    found = list_clips(["clips"]).clips
    assert sorted(clip.name for clip in found) == sorted(
        f"clips/{name}" for name in ("b.mp4", "a/z.avi", "a/deep/er/x.MKV", *ODD)
    )
    assert all(clip.path == str(tmp_path / clip.name) for clip in found)
    assert found == list_clips(["clips"]).clips


def test_files_lists_and_tables_may_be_mixed_and_each_clip_counts_once(tmp_path):
    make(tmp_path, "one.mp4", "two", "three.mp4", "new\nline.mp4")
    (tmp_path / "list.txt").write_text("\ufeffone.mp4\n\n  \ngone.mp4\r\n", encoding="utf-8")
    (tmp_path / "table.csv").write_text('group,path\n1,three.mp4\n2,"new\nline.mp4"\n', encoding="utf-8")
    found = list_clips([tmp_path / "two", tmp_path / "list.txt", tmp_path / "table.csv", tmp_path / "one.mp4"]).clips
    assert [clip.name for clip in found] == [
        str(tmp_path / "two"),
        "one.mp4",
        "gone.mp4",
        "three.mp4",
        "new\nline.mp4",
    ]
    assert [os.path.basename(clip.path) for clip in found] == [
        "two",
        "one.mp4",
        "gone.mp4",
        "three.mp4",
        "new\nline.mp4",
    ]


@pytest.mark.parametrize("written", ['"{}"', "'{}'", "  {}\t", "{} 7", "{}\t7", '"{}" 7', "{0}"])
@pytest.mark.parametrize("backslashes", [False, True])
def test_lists_of_other_programs_lead_to_the_clips_that_are_there(written, backslashes, tmp_path):
    (tmp_path / "a b").mkdir()
    make(tmp_path / "a b", "it's 1.mp4")
    listed = written.format("a b/it's 1.mp4".replace("/", "\\" if backslashes else "/"))
    (tmp_path / "list.txt").write_bytes(f"{listed}\r\n gone.mp4 \r\n".encode("utf-16"))
    found = [clip.path for clip in list_clips([tmp_path / "list.txt"]).clips]
    assert found == [str(tmp_path / "a b/it's 1.mp4"), str(tmp_path / "gone.mp4")]
    make(tmp_path, "it's 1.mp4 7")
    (tmp_path / "list.txt").write_text("it's 1.mp4 7\n")  # as written, where that is there
    assert [clip.name for clip in list_clips([tmp_path / "list.txt"]).clips] == ["it's 1.mp4 7"]


def test_a_name_that_is_no_utf8_is_written_as_escapes_and_still_found(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    try:
        with open(path, "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    (clip,) = list_clips([tmp_path]).clips
    assert clip.name.endswith("caf\\udce9.mp4")
    assert os.path.isfile(clip.path)


def test_links_to_clips_are_followed_and_loops_are_told_of(tmp_path):
    make(tmp_path / "store", "a.mp4")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").symlink_to(tmp_path / "store/a.mp4")
    (tmp_path / "clips/gone.mp4").symlink_to(tmp_path / "store/gone.mp4")
    assert [os.path.basename(clip.path) for clip in list_clips([tmp_path / "clips"]).clips] == ["a.mp4", "gone.mp4"]
    (tmp_path / "clips/loop").symlink_to(tmp_path / "clips")
    with pytest.raises(ValueError, match="is a link to a folder that it lies in"):
        list_clips([tmp_path / "clips"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"list.txt": "\n \n"}, "list.txt lists no clips"),
        ({"t.csv": "name,label\na,b\n"}, "no column path or clip or video or file; its columns are name, label"),
        ({"t.csv": ""}, "its columns are none"),
        ({"t.csv": b"path\n\xff\xfe\n"}, "cannot read .*t.csv"),
        ({"list.txt": "a\0b\n"}, "holds a null byte"),
        ({"folder/readme.md": "x", "folder/b.jpg": "x"}, r"no video in .*folder \(2 files passed over"),
    ],
)
def test_what_lists_no_clips_is_told_of(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    first = next(iter(content)).split("/")[0]
    with pytest.raises(ValueError, match=message):
        list_clips([tmp_path / first])


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file or folder .*\*\.mp4"):
        list_clips([tmp_path / "*.mp4"])
    with pytest.raises(ValueError, match="no path at all"):
        list_clips([])


def test_what_cannot_be_looked_at_is_not_taken_for_missing(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="x cannot be looked at: File name too long"):
        list_clips(["x" * 300])

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.lstat", denied)
    with pytest.raises(ValueError, match="clips cannot be looked at: Permission denied"):
        list_clips([tmp_path / "clips"])
