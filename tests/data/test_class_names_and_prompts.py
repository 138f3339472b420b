import json

import pytest

from modeling_dkd.data.class_names import readable_class_name
from modeling_dkd.data.prompts import class_prompts, description_prompts, load_templates


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BasketballDunk", "Basketball Dunk"),
        ("brush_hair", "brush hair"),
        ("YoYo", "Yo Yo"),
        ("CleanAndJerk", "Clean And Jerk"),
        ("TVShow2Start", "TV Show2 Start"),
        ("playing  the-drums", "playing the drums"),
        ("Archery", "Archery"),
    ],
)
def test_class_names_become_words(name, expected):
    assert readable_class_name(name) == expected


def test_a_class_name_without_letters_is_refused():
    with pytest.raises(ValueError, match="class name '__' holds no letters"):
        readable_class_name("__")


def test_official_names_become_the_published_readable_ones(data_dir):
    for dataset, exceptions in (("ucf101", {"HandstandPushups"}), ("hmdb51", set())):
        classes = json.loads((data_dir / f"prompts/{dataset}_classnames.json").read_text())["classes"]
        differing = {c["official"] for c in classes if readable_class_name(c["official"]) != c["readable"]}
        assert differing == exceptions


def test_carried_templates_are_clips():
    ucf, kinetics = load_templates("clip_ucf101"), load_templates("clip_kinetics")
    assert (len(ucf), len(kinetics)) == (48, 28)
    assert len(set(ucf)) == 48
    assert len(set(kinetics)) == 28
    assert all(template.count("{}") == 1 for template in ucf + kinetics)
    assert ucf[0] == "a photo of a person {}."


def test_carried_templates_equal_the_published_lists(data_dir):
    for name, file in (("clip_ucf101", "openai_clip_ucf101"), ("clip_kinetics", "openai_clip_kinetics")):
        published = json.loads((data_dir / f"prompts/{file}_templates.json").read_text())["templates"]
        assert load_templates(name) == published


def test_prompts_are_every_template_of_every_class():
    assert class_prompts(["HorseRace", "kick_ball"], ["a {}.", "{} {{}}".replace("{{}}", "again")]) == [
        ["a Horse Race.", "Horse Race again"],
        ["a kick ball.", "kick ball again"],
    ]


@pytest.mark.parametrize(
    ("content", "file", "message"),
    [
        ("a video of a cat", "t.txt", r"template 'a video of a cat' must hold \{\} exactly once"),
        ("{} and {}", "t.txt", "exactly once"),
        ("", "t.txt", "must hold a list of templates"),
        ("{", "t.json", "is not valid JSON"),
        ('{"a": 1}', "t.json", "must hold a list of templates"),
    ],
)
def test_bad_template_files_are_named(tmp_path, content, file, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_templates(tmp_path / file)


def test_own_templates_are_read_from_text_and_json(tmp_path):
    (tmp_path / "t.txt").write_text("a clip of {}.\n\n  {} outdoors\n")
    (tmp_path / "t.json").write_text('["a clip of {}.", "{} outdoors"]')
    assert (
        load_templates(tmp_path / "t.txt")
        == load_templates(str(tmp_path / "t.json"))
        == ["a clip of {}.", "{} outdoors"]
    )
    with pytest.raises(
        ValueError, match=r"no template file .*nowhere.* or one of single, bare, clip_ucf101, clip_kinetics"
    ):
        load_templates("nowhere")


def test_descriptions_of_both_forms_are_padded_in_turn(tmp_path):
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"Shoot Bow": ["one", "two", "three"], "wave": "hand moves", "other": ["x"]}))
    assert description_prompts(["wave", "shoot_bow"], file) == [["hand moves"] * 3, ["one", "two", "three"]]
    file.write_text(
        json.dumps(
            {
                "note": "text",
                "hmdb51": [{"class": "wave", "description": "a"}, {"class": "run", "descriptions": ["b", "c"]}],
            }
        )
    )
    assert description_prompts(["wave", "run"], file, "hmdb51") == [["a", "a"], ["b", "c"]]


def test_missing_descriptions_are_counted_and_named(tmp_path):
    (tmp_path / "d.json").write_text('{"a": "text", "b": " "}')
    with pytest.raises(ValueError, match="describes 1 of 3 classes; it lacks b, c"):
        description_prompts(["a", "b", "c"], tmp_path / "d.json")
    (tmp_path / "d.json").write_text('{"a": 3}')
    with pytest.raises(ValueError, match="description of 'a' is neither"):
        description_prompts(["a"], tmp_path / "d.json")


def test_published_descriptions_can_be_read(data_dir):
    classes = json.loads((data_dir / "prompts/hmdb51_classnames.json").read_text())["classes"]
    prompts = description_prompts(
        [c["official"] for c in classes], data_dir / "prompts/ezclip_descriptions.json", "hmdb51"
    )
    assert len(prompts) == 51
    assert {len(row) for row in prompts} == {1}
