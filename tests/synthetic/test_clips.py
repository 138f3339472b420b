import csv
import multiprocessing
from collections import Counter
from dataclasses import fields

import av
import numpy as np
import pytest

from modeling_dkd.synthetic.clips import (
    ACTIONS,
    DOMAIN_SUMMARIES,
    DOMAINS,
    NUM_FRAMES,
    SHIFTS,
    SIDE,
    SOURCE,
    TRAIL_MOMENTS,
    Domain,
    class_frequencies,
    clip_writers,
    describe_clips,
    generate_clips,
    long_exposure,
    main,
    object_masks,
    render_clip,
    start_clips,
)
from modeling_dkd.synthetic.motions import draw_track
from modeling_dkd.synthetic.scenes import SOURCE_SCENES, UNSEEN_SCENES, draw_scene


# What a description may differ in from the source's description of the same clip, by kind of shift.
DESCRIPTION_CHANGES = {
    "scenes": {"scene"},
    "palette": {"colour"},
    "camera": set(),
    "frequencies": {"action", "scene"},
    "rebound": {"scene"},
}


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def masks_of(action, seed=3):
    moments = np.arange(-TRAIL_MOMENTS, NUM_FRAMES) / (NUM_FRAMES - 1)
    return object_masks("star", draw_track(action, moments, np.random.default_rng(seed)))


def centre(mask):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (mask * columns).sum() / mask.sum(), (mask * rows).sum() / mask.sum()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return folder, list(generate_clips(folder, "combined", 24, seed=5))


def test_the_same_seed_gives_the_same_files(clips, tmp_path):
    _, first = clips
    second = list(generate_clips(tmp_path, "combined", 24, seed=5))
    assert [path.read_bytes() for path, _ in first] == [path.read_bytes() for path, _ in second]
    assert [description for _, description in first] == [description for _, description in second]


@pytest.mark.slow
def test_processes_write_the_same_files_and_the_death_of_one_is_told(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_dkd.synthetic.clips.MANY_CLIPS", 24)
    first, written = clips[1], generate_clips(tmp_path, "combined", 24, seed=5)
    assert [path.read_bytes() for path, _ in first] == [path.read_bytes() for path, _ in written]
    others = multiprocessing.active_children()
    written = generate_clips(tmp_path, "combined", 2000, seed=5)
    next(written)
    for process in set(multiprocessing.active_children()) - set(others):
        process.kill()
    with pytest.raises(OSError, match="a process that writes clips died"):
        list(written)


def test_clips_are_written_before_they_are_asked_for(tmp_path, clips):
    with clip_writers(24) as writers:
        written = start_clips(writers, tmp_path, "combined", 24, seed=5)
        writers.shutdown()  # waits for what has begun
        assert len(list(tmp_path.glob("*/*.mp4"))) == 24
    assert [path.relative_to(tmp_path) for path, _ in written] == [path.relative_to(clips[0]) for path, _ in clips[1]]


def test_another_seed_gives_other_clips():
    one, other = (describe_clips(SOURCE, 50, seed) for seed in (0, 1))
    assert [d.action for d in one] != [d.action for d in other]
    assert not np.array_equal(render_clip(SOURCE, one[0]), render_clip(SOURCE, other[0]))


def test_a_clip_does_not_depend_on_how_many_are_made():
    assert describe_clips(SOURCE, 40, 2)[:7] == describe_clips(SOURCE, 7, 2)


def test_files_decode_to_the_frames_that_were_drawn(clips):
    for path, description in clips[1]:
        frames = decode(path)
        drawn = render_clip(DOMAINS["combined"], description)
        assert frames.shape == drawn.shape == (NUM_FRAMES, SIDE, SIDE, 3)
        # The codec drops part of the sensor noise, so means over blocks of 4 x 4 pixels are compared.
        difference = (frames.astype(float) - drawn).reshape(NUM_FRAMES, SIDE // 4, 4, SIDE // 4, 4, 3).mean((2, 4))
        assert np.abs(difference).mean() < 3, f"{path} is far from what was drawn"


def test_folders_and_table_hold_the_labels(clips):
    folder, made = clips
    with (folder / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(folder / row["path"]).resolve() for row in rows] == [path.resolve() for path, _ in made]
    assert [row["label"] for row in rows] == [d.action for _, d in made]
    assert all(path.parent.name == description.action.replace(" ", "_") for path, description in made)


def test_every_action_and_every_scene_occurs():
    for name, domain in DOMAINS.items():
        described = describe_clips(domain, 1000, 0)
        assert {d.action for d in described} == set(ACTIONS), name
        assert {d.scene for d in described} == set(domain.scenes), name


@pytest.mark.parametrize("kind", SHIFTS)
def test_each_shift_changes_only_what_it_names(kind):
    domain = DOMAINS[kind]
    changed = {f.name for f in fields(Domain) if getattr(domain, f.name) != getattr(SOURCE, f.name)}
    assert changed == set(SHIFTS[kind])
    before, after = describe_clips(SOURCE, 300, 1), describe_clips(domain, 300, 1)
    differing = {
        name
        for one, other in zip(before, after, strict=True)
        for name in ("action", "scene", "shape", "colour")
        if getattr(one, name) != getattr(other, name)
    }
    assert differing == DESCRIPTION_CHANGES[kind]


def test_the_combined_target_makes_every_change():
    for kind, changes in SHIFTS.items():
        for name, value in changes.items():
            assert getattr(DOMAINS["combined"], name) == value, kind
    assert list(DOMAIN_SUMMARIES) == list(DOMAINS)


def test_unseen_scenes_and_other_colours_do_not_occur_in_the_source():
    assert not set(SOURCE_SCENES) & set(UNSEEN_SCENES)
    assert not set(SOURCE.colours) & set(DOMAINS["palette"].colours)


def test_light_makes_pictures_darker_and_warmer():
    pairs = zip(describe_clips(SOURCE, 20, 1), describe_clips(DOMAINS["palette"], 20, 1), strict=True)
    pictures = [(render_clip(SOURCE, a), render_clip(DOMAINS["palette"], b)) for a, b in pairs]
    before, after = (np.mean([pair[i] for pair in pictures], axis=(0, 1, 2, 3)) for i in (0, 1))
    assert after.mean() < 0.8 * before.mean()
    assert after[0] / after[2] > 1.3 * before[0] / before[2]


def test_camera_shakes_and_adds_noise():
    description = next(d for d in describe_clips(SOURCE, 200, 1) if d.action == "standing still")
    steady, shaken = (render_clip(DOMAINS[name], description).astype(float) for name in ("source", "camera"))
    assert np.abs(np.diff(shaken, axis=0)).mean() > 2 * np.abs(np.diff(steady, axis=0)).mean()


def test_frequencies_have_a_tail_and_draws_follow_them():
    assert np.allclose(class_frequencies(SOURCE), 1 / len(ACTIONS))
    expected = class_frequencies(DOMAINS["frequencies"])
    assert expected.max() > 5 * expected.min()
    counts = Counter(d.action for d in describe_clips(DOMAINS["frequencies"], 3000, 0))
    assert np.allclose([counts[action] / 3000 for action in ACTIONS], expected, atol=0.03)


def test_rebinding_moves_every_action_to_another_usual_scene():
    def usual(domain):
        described = describe_clips(domain, 3000, 0)
        return {a: Counter(d.scene for d in described if d.action == a).most_common(1)[0][0] for a in ACTIONS}

    before, after = usual(SOURCE), usual(DOMAINS["rebound"])
    assert all(before[action] != after[action] for action in ACTIONS)


@pytest.mark.parametrize(
    ("action", "dx", "dy"),
    [("moving left", -1, 0), ("moving right", 1, 0), ("moving up", 0, -1), ("moving down", 0, 1)],
)
def test_objects_move_where_the_label_says_and_trail_behind(action, dx, dy):
    masks = masks_of(action)
    first, last = centre(masks[TRAIL_MOMENTS]), centre(masks[-1])
    assert (last[0] - first[0]) * dx + (last[1] - first[1]) * dy > SIDE / 4
    frame = centre(long_exposure(masks)[-1])
    assert (frame[0] - last[0]) * dx + (frame[1] - last[1]) * dy < -1


def test_sizes_follow_the_label():
    area = {action: masks_of(action).sum((1, 2)) for action in ("growing", "shrinking", "standing still")}
    assert (np.diff(area["growing"]) > 0).all()
    assert (np.diff(area["shrinking"]) < 0).all()
    assert np.ptp(area["standing still"]) == 0


def test_no_two_actions_draw_the_same_frame():
    frames = {action: long_exposure(masks_of(action))[8] for action in ACTIONS}
    for action, frame in frames.items():
        others = [np.abs(frame - other).mean() for name, other in frames.items() if name != action]
        assert min(others) > 1e-3, action


def test_wrong_names_are_refused_by_name():
    with pytest.raises(ValueError, match=r"no synthetic domain is called 'mars'; choose one of: source, scenes"):
        next(generate_clips(None, "mars", 1, 0))
    with pytest.raises(ValueError, match="no motion is known for the action 'flying'"):
        draw_track("flying", np.zeros(1), np.random.default_rng(0))
    with pytest.raises(ValueError, match="no scene is called 'mars'"):
        draw_scene("mars", 8, np.random.default_rng(0))


def test_command_line(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "c"), "--domain", "camera", "--clips", "3"]) == 0
    assert len(list((tmp_path / "c").glob("*/*.mp4"))) == 3
    assert main(["--output", str(tmp_path), "--clips", "0"]) == 2
    assert "error: the number of clips must be at least 1, not 0" in capsys.readouterr().err
