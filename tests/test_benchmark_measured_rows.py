import json

import pytest

from benchmarks import measured_rows


def test_every_part_is_one_run_whose_summary_is_kept_without_places(tmp_path, monkeypatch):
    seen = []

    def evaluate(arguments):
        seen.append(arguments)
        path = arguments[arguments.index("--summary") + 1]
        command = ["evaluate.py", *arguments]
        with open(path, "w") as file:
            json.dump({"environment": {"command": command, "platform": "x"}, "summary": []}, file)
        return 0

    monkeypatch.setattr(measured_rows, "evaluate", evaluate)
    for part, (name, files, _) in measured_rows.PARTS.items():
        path = measured_rows.measure(part, tmp_path / "features", tmp_path, 3)
        assert path == tmp_path / name
        kept = json.loads(path.read_text())["environment"]
        assert "platform" not in kept
        assert str(tmp_path) not in path.read_text()
        places = seen[-1][seen[-1].index("--embeddings") + 1 :]
        assert len(places) == len(files)
        assert all(part.startswith(f"{tmp_path}/features/") for place in places for part in place.split("+"))


def test_a_part_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(measured_rows, "evaluate", lambda arguments: 2)
    with pytest.raises(ValueError, match="the part development was not measured"):
        measured_rows.measure("development", tmp_path, tmp_path, 1)


def test_the_sets_are_there(data_dir):
    from modeling_dkd.evaluation.command import build_parser
    from modeling_dkd.evaluation.sources import load_sources

    _, files, _ = measured_rows.PARTS["real_video"]
    places = [f"{data_dir}/features/{file}" for file in files]
    sets = load_sources(build_parser().parse_args(["--embeddings", *places])).sets
    shapes = [(len(s.labels), s.video_embeds.dim(), len(s.text_embeds)) for s in sets.values()]
    assert shapes == [(n, dim, k) for dim in (2, 3) for n, k in ((1272, 14), (1272, 101), (665, 21), (665, 51))]
