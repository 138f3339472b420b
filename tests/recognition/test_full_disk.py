import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from modeling_dkd.cli import main
from modeling_dkd.data import whole_files

from .colour_clips import write_clips


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"


class FullDisk(SimpleNamespace):
    """As much of `os` as writing files takes; only the file named is one too many."""

    def __init__(self, file: str) -> None:
        super().__init__(fsync=os.fsync, getpid=os.getpid, path=os.path)
        self.file = file

    def replace(self, unfinished: Path, path: Path) -> None:
        if path.name == self.file:
            raise OSError(28, "No space left on device")
        os.replace(unfinished, path)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("recognise clips --output kept/table.csv", "table.csv"),
        ("recognise clips --output kept/table.jsonl", "table.jsonl"),
        ("recognise clips --output other.csv --report kept", "index.html"),
        ("suggest clips --overwrite --output kept/labels.csv", "labels.csv"),
        ("suggest clips --output other.csv --sheet kept/look.html", "look.html"),
        ("search red clips --output kept/found.csv", "found.csv"),
        ("search red clips --sheet kept/found.html", "found.html"),
        ("search red clips --sheet kept/found.png", "found.png"),
        *(
            (f"timeline clips/00_red.avi --output kept --formats {ending}", f"00_red.{ending}")
            for ending in ("csv", "json", "vtt", "srt", "png", "html")
        ),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, capsys, command, file):
    monkeypatch.chdir(tmp_path)
    write_clips(Path("clips"), 3)
    Path("kept").mkdir()
    old = Path("kept", file)
    old.write_text("old")
    monkeypatch.setattr(whole_files, "os", FullDisk(file))
    options = ["--classes", "red,green,blue", "--model", OWN, "--cache-dir", "cache"]
    assert main([*command.split(), *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {old} cannot be written: No space left on device; make room or name another place"]
    assert [path.name for path in Path("kept").iterdir()] == [file]
    assert old.read_text() == "old"
