import torch

from modeling_dkd.evaluation.figures import confusion_figure, per_class_figure, save_figure, write_figures
from modeling_dkd.evaluation.measurement import Measurement


def labels_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_classes_are_sorted_by_gain_and_absent_ones_left_out():
    before = torch.tensor([[4.0, 0, 0], [3, 1, 0], [0, 0, 0]])
    after = torch.tensor([[3.0, 1, 0], [0, 4, 0], [0, 0, 0]])
    figure = per_class_figure(before, after, ["falls", "rises", "absent"], "toy")
    assert labels_of(figure) == ["falls (4)", "rises (4)"]
    assert figure.get_suptitle() == "toy: zero-shot 62.5 %, DKD 87.5 %"


def test_many_classes_show_only_those_that_change_most():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randint(5, (90, 90), generator=generator).double() for _ in range(2))
    after = after * before.sum(1, keepdim=True) / after.sum(1, keepdim=True)
    labels = labels_of(per_class_figure(before, after, [f"class {k}" for k in range(90)], "toy"))
    assert len(labels) == 41
    assert labels[20] == ""


def test_confusions_show_what_fell_above_what_rose():
    before = torch.tensor([[5.0, 4, 0], [0, 5, 1], [0, 0, 5]])
    after = torch.tensor([[9.0, 0, 0], [0, 3, 3], [0, 1, 4]])
    figure = confusion_figure(before, after, ["a", "b", "c"], "toy")
    assert labels_of(figure) == ["b read as c", "c read as b", "a read as b"]


def test_a_figure_without_changes_can_be_drawn():
    same = torch.eye(3) * 4
    assert labels_of(confusion_figure(same, same, list("abc"), "toy")) == []


def test_names_are_taken_literally(tmp_path):
    before, after = torch.tensor([[4.0, 0], [3, 1]]), torch.tensor([[3.0, 1], [0, 4]])
    names = ["$x_1$ \\frac{", "漢字"]
    for draw in (per_class_figure, confusion_figure):
        figure = draw(before, after, names, "$t$ $")
        assert any("$x_1$" in label for label in labels_of(figure))
        save_figure(figure, tmp_path / "figure.png")


def test_pngs_are_written_for_every_set(tmp_path):
    def measured(method, predictions, name):
        row = {"method": method, "protocol": "full", "seed": 0, "data": {"name": name}}
        return Measurement(row, torch.arange(4), torch.tensor([0, 0, 1, 1]), torch.tensor(predictions))

    rows = [measured(m, p, s) for s in ("a", "b") for m, p in (("zero-shot", [0, 1, 1, 0]), ("dkd", [0, 0, 1, 0]))]
    written = list(write_figures(tmp_path / "new", rows, {"a": ["x", "y"], "b": ["x", "y"]}))
    assert sorted(path.name for path in written) == sorted(p.name for p in (tmp_path / "new").iterdir())
    assert {path.read_bytes()[:4] for path in written} == {b"\x89PNG"}
    assert len(written) == 4
