"""The benchmark of parts of long films, on short ones."""

import json

import pytest

from benchmarks import film_parts
from modeling_dkd.video_frames import read_frames


@pytest.mark.parametrize("name", film_parts.FILMS)
def test_films_are_as_long_as_asked(name, tmp_path):
    file, codec, options = film_parts.FILMS[name]
    film_parts.make_film(tmp_path / file, codec, options, 2)
    found = read_frames(tmp_path / file, 4)
    assert (found.total_frames, found.damage) == (2 * film_parts.RATE, "")
    assert found.pixels.shape[2:] == (film_parts.HEIGHT, film_parts.WIDTH)


def test_the_command_writes_a_row_a_film(tmp_path, monkeypatch):
    monkeypatch.setattr(film_parts, "ROUNDS", 1)
    film_parts.main(["--seconds", "1", "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["film"] for row in rows] == list(film_parts.FILMS)
    assert all(len(row["parts"]) == len(film_parts.PLACES) and min(*row["parts"], row["whole"]) > 0 for row in rows)
