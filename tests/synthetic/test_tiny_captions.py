import random
from collections import Counter

from modeling_dkd.synthetic.clips import SOURCE, class_prompts, describe_clips, usual_actions
from modeling_dkd.synthetic.tiny_captions import build_tokenizer, draw_caption, guess_from_scene, true_pairs


def test_captions_state_what_is_true_of_their_own_clip():
    rng = random.Random(0)
    descriptions = describe_clips(SOURCE, 40, 0)
    captions = [draw_caption(description, rng) for description in descriptions]
    is_true = true_pairs(descriptions, captions)
    assert is_true.diagonal().all()
    for row, description in enumerate(descriptions):
        for column, caption in enumerate(captions):
            expected = all(getattr(description, name) == value for name, value in caption.facts)
            assert is_true[row, column] == expected
            assert all(value in caption.text for _, value in caption.facts)


def test_captions_that_leave_out_the_scene_are_true_of_other_scenes():
    rng = random.Random(0)
    kinds = Counter(frozenset(name for name, _ in draw_caption(d, rng).facts) for d in describe_clips(SOURCE, 400, 0))
    assert kinds[frozenset({"action"})] > 200
    assert all("action" in kind for kind in kinds)
    assert len(kinds) == 5


def test_guesses_take_the_asked_share_from_the_scene():
    rng = random.Random(0)
    descriptions = describe_clips(SOURCE, 3000, 0)
    assert all(guess_from_scene(d, 0.0, rng) is d for d in descriptions[:50])
    for clip in descriptions[:50]:
        guessed = guess_from_scene(clip, 1.0, rng)
        assert guessed.action in usual_actions(SOURCE, clip.scene)
        assert (guessed.scene, guessed.shape, guessed.colour) == (clip.scene, clip.shape, clip.colour)
    touched = sum(guess_from_scene(d, 0.4, rng) is not d for d in descriptions)
    assert abs(touched / 3000 - 0.4) < 0.04


def test_tokenizer_knows_every_word_of_the_prompts():
    tokenizer = build_tokenizer()
    prompts = [prompt for of_class in class_prompts() for prompt in of_class]
    ids = tokenizer(prompts)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert all(row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id for row in ids)
    assert tokenizer.unk_token_id in tokenizer("something skydiving")["input_ids"]
