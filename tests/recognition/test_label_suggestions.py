import csv
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from modeling_dkd.cli import main
from modeling_dkd.recognition import label_suggestions, suggest
from modeling_dkd.recognition.label_suggestions import LEAST_WORTH, most_helpful

from .colour_clips import write_clips
from .long_colour_video import rows_of


OWN = f"{Path(__file__).with_name('own_encoder.py')}:ColourEncoder"
COLOURS = ["red", "green", "blue"]


def made_up(num_clips: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeds = normalize(torch.randn(num_clips, 8, generator=generator), dim=1)
    return embeds, torch.randn(num_clips, 4, generator=generator).softmax(1)


def covered_by(chosen, embeds, posteriors):
    """What labelled clips cover, by the definition."""
    centred = normalize(embeds - embeds.mean(0), dim=1)
    best = posteriors.sort(1, descending=True).values
    worth = 1 - (best[:, 0] - best[:, 1]) + LEAST_WORTH
    total = 0.0
    for i in range(len(embeds)):
        total += float(worth[i]) * max((max(0.0, float(centred[i] @ centred[j])) ** 2 for j in chosen), default=0.0)
    return total


def test_each_clip_is_the_one_that_adds_most():
    embeds, posteriors = made_up()
    chosen = most_helpful(embeds, posteriors, 6).tolist()
    for step in range(6):
        gains = {j: covered_by([*chosen[:step], j], embeds, posteriors) for j in range(60) if j not in chosen[:step]}
        assert gains[chosen[step]] == pytest.approx(max(gains.values()), abs=1e-4)
    assert most_helpful(embeds, posteriors, 3).tolist() == chosen[:3]


def test_a_large_uncertain_group_comes_first_and_a_labelled_one_not_at_all():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(8)[:3].repeat_interleave(torch.tensor([30, 20, 10]), 0)
    embeds = normalize(centres + 0.05 * torch.randn(60, 8, generator=generator), dim=1)
    unsure = torch.tensor([0.5, 0.5]).expand(60, 2).clone()
    groups = [(0 if i < 30 else 1 if i < 50 else 2) for i in most_helpful(embeds, unsure, 3).tolist()]
    assert sorted(groups) == [0, 1, 2]
    assert groups[0] == 0
    rest = most_helpful(embeds, unsure, 2, labelled=torch.tensor([3]))
    assert all(i >= 30 for i in rest.tolist())
    sure = unsure.clone()
    sure[:30] = torch.tensor([1.0, 0.0])
    assert int(most_helpful(embeds, sure, 1)) >= 30


def test_no_more_than_there_are_and_none_twice(monkeypatch):
    embeds, posteriors = made_up(12)
    assert sorted(most_helpful(embeds, posteriors, 50).tolist()) == list(range(12))
    assert len(most_helpful(embeds, posteriors, 5, labelled=torch.arange(12))) == 0
    monkeypatch.setattr(label_suggestions, "MAX_CANDIDATES", 5)
    some = most_helpful(embeds, posteriors, 3)
    assert some.equal(most_helpful(embeds, posteriors, 3))
    assert len(set(some.tolist())) == 3


@pytest.fixture
def clips(tmp_path):
    write_clips(tmp_path / "clips", 12)
    return tmp_path / "clips"


def test_clips_are_suggested_with_their_guess(clips, tmp_path):
    found = suggest([clips], COLOURS, OWN, count=3, cache_dir=tmp_path / "cache", num_workers=0)
    assert len({s.guess for s in found.suggestions}) == 3
    assert all(s.guess in s.clip and 0 < s.confidence <= 1 for s in found.suggestions)
    with pytest.raises(ValueError, match="at least two classes"):
        suggest([clips], ["red"], OWN, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match="ask for at least 1"):
        suggest([clips], COLOURS, OWN, count=0, cache_dir=tmp_path / "cache")


def test_the_table_is_filled_in_and_handed_back(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["clips", "--classes", "red,green,blue", "--model", OWN, "--cache-dir", "cache", "--num-workers", "0"]
    assert main(["suggest", *common, "--count", "3", "--sheet", "look.html"]) == 0
    assert "3 clips to label: fill in the column label of labels.csv" in capsys.readouterr().out
    rows = rows_of(tmp_path / "labels.csv")
    assert [row["label"] for row in rows] == ["", "", ""]
    assert main(["suggest", *common]) == 2
    assert "labels.csv is there, perhaps with labels in it" in capsys.readouterr().err
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(row | {"label": Path(row["clip"]).stem.split("_")[1]} for row in rows)
    assert main(["suggest", *common, "--labelled", "labels.csv", "--output", "more.csv", "--count", "9"]) == 0
    more = rows_of(tmp_path / "more.csv")
    assert not {row["clip"] for row in more} & {row["clip"] for row in rows}
    assert len(more) == 9
    assert main(["recognise", *common, "--labelled", "labels.csv", "--output", "out.csv"]) == 0
