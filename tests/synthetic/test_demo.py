import io
import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from modeling_dkd.cli import COMMANDS, main
from modeling_dkd.embedding.embedding_cache import read_embeddings
from modeling_dkd.recognition import recognise
from modeling_dkd.recognition.predictions import Prediction, Recognition
from modeling_dkd.synthetic.clips import ACTIONS, DEFAULT_TARGET, SHIFTS
from modeling_dkd.synthetic.demo import QUICK_TARGETS, _step
from modeling_dkd.synthetic.demo_command import try_next
from modeling_dkd.synthetic.demo_recognition import share_found, shares_right
from modeling_dkd.synthetic.shift_results import ShiftResult, markdown_table


def result(gain, error):
    return ShiftResult("camera", 500, 0.6, 0.6 + gain, gain, 0.01, error)


def test_verdicts_need_two_standard_errors():
    assert result(0.05, 0.01).verdict == "gains"
    assert result(-0.05, 0.01).verdict == "loses"
    assert result(0.05, 0.03).verdict == "no clear change"


def test_table_gives_percent_with_signs():
    line = markdown_table([result(-0.0321, 0.03)]).splitlines()[-1]
    assert line == "| camera | camera shake and noise | 500 | 60.0 | 56.8 | -3.2 ± 1.0 | no clear change |"


def test_too_few_clips_are_refused(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path), "--clips", "1"]) == 2
    assert "error: the number of clips must be at least 2" in capsys.readouterr().err


@pytest.mark.slow
def test_demo_on_few_clips_writes_everything(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path), "--clips", "20"]) == 0
    printed = capsys.readouterr().out
    contents = json.loads((tmp_path / "results.json").read_text())
    targets = {DEFAULT_TARGET, *SHIFTS, "source"}
    runs = {(row["data"]["name"], row["method"], row["seed"]) for row in contents["rows"]}
    assert "search" not in contents  # from 200 clips on
    assert runs == {(t, m, s) for t in targets for m in ("zero-shot", "both_centred", "dkd") for s in range(5)}
    assert all(row["n"] == 10 and row["protocol"] == "induct" for row in contents["rows"])
    assert contents["environment"]["versions"]["torch"]
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in printed
    assert printed.index("recognised as if nobody") < printed.index("Searched by text") < printed.index(table.strip())
    shown = re.findall(r"look +(\S+\.html)", printed)
    assert shown == [str(tmp_path / "report/index.html"), str(tmp_path / "search.html")]
    pages = [Path(page).read_text() for page in shown]
    assert pages[0].count("data:image/jpeg") >= 20
    assert pages[1].count("data:image/jpeg") == 10
    # The command that the report names makes the same of the same files.
    found = recognise([tmp_path / "clips/combined"], tmp_path / "actions.txt", cache_dir=tmp_path / "c", num_workers=0)
    assert f"which changed {sum(p.is_changed for p in found.predictions)} labels" in printed
    assert all(f'href="../clips/combined/{p.clip.rpartition("combined/")[2]}"' in pages[0] for p in found.predictions)
    assert (tmp_path / "gain_by_shift.png").stat().st_size > 10_000
    assert len(list((tmp_path / "figures").glob("combined-*.png"))) == 2
    assert len(list((tmp_path / "clips" / "combined").glob("*/*.mp4"))) == 20
    assert (tmp_path / "dkd-tiny" / "dkd_head.py").is_file()
    embedded = read_embeddings(tmp_path / "embeddings" / "camera.safetensors")
    assert embedded.video_embeds.shape == (20, 4, 64)
    assert embedded.class_names == list(ACTIONS)


def test_the_progress_is_a_line_a_step_where_nobody_looks(tmp_path, capsys):
    assert main(["demo", "--quick", "--output", str(tmp_path), "--clips", "8"]) == 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1 of 2, combined", "2 of 2, source"]


def test_a_terminal_shows_a_bar_a_step_and_no_line_besides(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with _step("1 of 2, combined", 3) as bar:
        bar.update(3)
    shown = sys.stderr.getvalue()
    assert shown.rpartition("\r")[2].startswith("1 of 2, combined: 100%")
    assert shown.count("\n") == 1


def test_what_is_said_of_the_clips_is_counted_from_their_labels():
    labels = torch.tensor([0, 0, 1, 1])
    similarity = torch.tensor([[4.0, 1], [3, 2], [2, 4], [1, 3]])
    assert share_found(similarity, labels) == 0.5  # all four are found for both texts, and two are right
    labels, similarity = torch.arange(40) % 2, torch.zeros(40, 2)
    similarity[:10, 0] = similarity[1:20:2, 1] = 1
    assert share_found(similarity, labels) == (0.5 + 1.0) / 2
    found = [
        Prediction("a", label="x", guess="x", zero_shot_label="y"),
        Prediction("b", label="x", guess="x", zero_shot_label="x"),
    ]
    assert shares_right(Recognition(found, ["x", "y"], "e", None, "", []), ["x", "y"]) == (0.0, 0.5)


def test_the_commands_to_try_next_are_understood(tmp_path):
    commands = [shlex.split(line) for line in try_next(tmp_path / "my demo").splitlines() if line.startswith("  dkd ")]
    assert [words[1] for words in commands] == ["recognise", "search", "recognise"]
    assert commands[0][2] == str(tmp_path / "my demo/clips/combined")
    for _, name, *arguments in commands:
        module, _ = COMMANDS[name]
        import_module(f"modeling_dkd.{module}").build_parser().parse_args(arguments)


def test_the_quick_demo_needs_no_matplotlib(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("modeling_dkd.synthetic.demo.find_spec", lambda name: None)
    monkeypatch.setattr("modeling_dkd.synthetic.demo_command.find_spec", lambda name: None)
    assert main(["demo", "--quick", "--output", str(tmp_path), "--clips", "20"]) == 0
    table, words = capsys.readouterr().out.split("\n\nOn combined")
    assert [line.split(" | ")[0] for line in table.splitlines()[-2:]] == [f"| {target}" for target in QUICK_TARGETS]
    assert 'pip install "modeling-dkd[eval]"' in words
    pictures = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.png")}
    assert pictures <= {"dkd-tiny"}  # the checkpoint's own
