import functools
import json
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets
import numpy as np
import pytest
import torch
from transformers import pipeline

from modeling_dkd import (
    DKDCLIPModel,
    DKDCLIPProcessor,
    VideoClassificationPipeline,
    ZeroShotVideoClassificationPipeline,
)
from modeling_dkd.data.prompts import SINGLE_TEMPLATE
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.synthetic.clips import ACTIONS, DOMAINS, describe_clips, render_clip, write_clip
from modeling_dkd.video_pipelines import CUSTOM_PIPELINES, DEFAULT_TEMPLATE
from tests.test_remote_code import run_isolated


LABELS = ["moving left", "growing", "turning"]
TEMPLATES = ["something {}", "an object {}"]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    domain = DOMAINS["combined"]
    return [render_clip(domain, description) for description in describe_clips(domain, 12, 0)]


@pytest.fixture(scope="module")
def processor() -> DKDCLIPProcessor:
    return DKDCLIPProcessor.from_pretrained(CHECKPOINT)


@pytest.fixture
def model() -> DKDCLIPModel:
    return DKDCLIPModel.from_pretrained(CHECKPOINT)


@pytest.fixture
def zero_shot(model, processor) -> ZeroShotVideoClassificationPipeline:
    task = "zero-shot-video-classification"
    return ZeroShotVideoClassificationPipeline(model=model, processor=processor, task=task)


def fit(model, processor, clips, class_names=ACTIONS):
    texts = [f"something {action}" for action in ACTIONS]
    return model.fit_domain(**processor(videos=clips, text=texts, num_frames=4), class_names=list(class_names))


def scores_of(result, labels):
    found = {entry["label"]: entry["score"] for entry in result}
    return torch.tensor([found[label] for label in labels])


def expected_scores(model, processor, clips, texts):
    with torch.no_grad():
        return model(**processor(videos=clips, text=texts, num_frames=4)).logits_per_video.softmax(-1)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_scores_are_the_models_own(zero_shot, model, processor, clips):
    results = zero_shot(clips, candidate_labels=LABELS, hypothesis_template=TEMPLATES, batch_size=5)
    texts = [[template.format(label) for template in TEMPLATES] for label in LABELS]
    expected = expected_scores(model, processor, clips, texts)
    close(torch.stack([scores_of(result, LABELS) for result in results]), expected)
    for result in results:
        scores = [entry["score"] for entry in result]
        assert scores == sorted(scores, reverse=True)
        assert abs(sum(scores) - 1) < 1e-5


def test_without_a_template_labels_go_into_the_usual_prompt(zero_shot, model, processor, clips):
    assert DEFAULT_TEMPLATE == SINGLE_TEMPLATE
    texts = [SINGLE_TEMPLATE.format(label) for label in LABELS]
    result = zero_shot(clips[0], candidate_labels=LABELS)
    close(scores_of(result, LABELS), expected_scores(model, processor, clips[:1], texts)[0])


def test_one_video_gives_one_result_in_every_form_it_can_have(zero_shot, clips, tmp_path):
    path = tmp_path / "a #1; (b).mp4"
    write_clip(path, clips[0])
    expected = scores_of(zero_shot(clips[0], candidate_labels=LABELS), LABELS)
    tensor = torch.from_numpy(clips[0]).permute(0, 3, 1, 2)
    for video in (tensor, list(clips[0]), list(tensor)):
        close(scores_of(zero_shot(video, candidate_labels=LABELS), LABELS), expected)
    from_file = [zero_shot(video, candidate_labels=LABELS) for video in (path, str(path))]
    assert from_file[0] == from_file[1]
    # The file is compressed, so that pixels differ a little.
    torch.testing.assert_close(scores_of(from_file[0], LABELS), expected, atol=0.05, rtol=0)


def test_batches_of_any_kind_give_one_result_a_video(zero_shot, clips):
    expected = [zero_shot(clip, candidate_labels=LABELS) for clip in clips[:3]]
    short = clips[2][:5]  # videos of different length can stand in one batch
    several = zero_shot([*clips[:2], short], candidate_labels=LABELS, batch_size=3)
    assert [len(result) for result in several] == [3, 3, 3]
    close(scores_of(several[0], LABELS), scores_of(expected[0], LABELS))
    together = zero_shot(np.stack(clips[:3]), candidate_labels=LABELS)
    streamed = zero_shot((clip for clip in clips[:3]), candidate_labels=LABELS)
    assert not isinstance(streamed, list)
    for result, same, one in zip(streamed, together, expected, strict=True):
        close(scores_of(result, LABELS), scores_of(one, LABELS))
        close(scores_of(same, LABELS), scores_of(one, LABELS))
    assert len(zero_shot([clips[0]], candidate_labels=LABELS)) == 1


def test_top_k_and_options_given_when_the_pipeline_is_made(model, processor, clips):
    pipe = ZeroShotVideoClassificationPipeline(
        model=model, processor=processor, candidate_labels=LABELS, hypothesis_template="{}", top_k=2
    )
    best = pipe(clips[0])
    assert len(best) == 2
    assert pipe(clips[0], top_k=1) == best[:1]
    assert len(pipe(clips[0], top_k=50)) == len(LABELS)
    assert [entry["label"] for entry in pipe(clips[0], candidate_labels=["growing"])] == ["growing"]


def test_texts_are_encoded_once_for_a_set_of_labels(zero_shot, model, clips, monkeypatch):
    calls = []
    encode = model.get_text_features
    monkeypatch.setattr(model, "get_text_features", lambda **tokens: (calls.append(1), encode(**tokens))[1])
    for _ in range(2):
        zero_shot(clips[:4], candidate_labels=LABELS, batch_size=2)
    assert len(calls) == 1
    zero_shot(clips[0], candidate_labels=LABELS[::-1])
    assert len(calls) == 2


def test_a_fitted_domain_is_used_without_being_asked(zero_shot, model, processor, clips):
    plain = zero_shot(clips[0], candidate_labels=LABELS, hypothesis_template="something {}")
    fit(model, processor, clips)
    asked = [label.title().replace(" ", "_") for label in LABELS]  # another spelling of the same classes
    expected = expected_scores(model, processor, clips, [f"something {label}" for label in LABELS])
    for labels in (LABELS, asked):
        close(torch.stack([scores_of(r, labels) for r in zero_shot(clips, candidate_labels=labels)]), expected)
    assert (expected[0] - scores_of(plain, LABELS)).abs().max() > 1e-3
    # Classes the domain does not know take part with their prompt, beside those it knows.
    mixed = ["growing", "a dog"]
    both = expected_scores(model, processor, clips[:1], ["something growing", SINGLE_TEMPLATE.format("a dog")])[0]
    close(scores_of(zero_shot(clips[0], candidate_labels=mixed), mixed), both)


def test_a_fitted_domain_gives_the_model_labels_of_its_own(model, processor, clips):
    pipe = VideoClassificationPipeline(model=model, processor=processor, task="video-classification")
    with pytest.raises(ValueError, match="no labels of its own"):
        pipe(clips[0])
    fit(model, processor, clips)
    results = pipe(clips, top_k=len(ACTIONS))
    expected = expected_scores(model, processor, clips, [f"something {action}" for action in ACTIONS])
    close(torch.stack([scores_of(result, ACTIONS) for result in results]), expected)
    assert len(pipe(clips[0])) == 5


def test_named_labels_without_a_domain_become_prompts(model, processor, clips):
    model.config.id2label = dict(enumerate(LABELS))
    pipe = VideoClassificationPipeline(model=model, processor=processor, task="video-classification")
    texts = [SINGLE_TEMPLATE.format(label) for label in LABELS]
    close(scores_of(pipe(clips[0]), LABELS), expected_scores(model, processor, clips[:1], texts)[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "candidate_labels is empty"),
        (None, "candidate_labels are missing"),
        ("walk, run", "must be a list of texts"),
        (3, "must be a list of texts"),
        (["walk", 3], r"candidate_labels\[1\] is 3"),
        (["walk", " "], r"candidate_labels\[1\] is ' '"),
        (["walk", "run", "walk"], r"candidate_labels\[0\] and \[2\] are both 'walk'"),
    ],
)
def test_bad_labels_are_named(zero_shot, clips, labels, message):
    with pytest.raises(ValueError, match=message):
        zero_shot(clips[0], candidate_labels=labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hypothesis_template": "a video"}, "hypothesis_template 'a video' must be a text with {} once"),
        ({"hypothesis_template": []}, "must be a text or a list of texts"),
        ({"hypothesis_template": ["a {}", 3]}, "hypothesis_template 3 must be"),
        ({"top_k": 0}, "top_k is 0"),
        ({"num_frames": 1.5}, "num_frames is 1.5"),
        ({"topk": 3}, "does not know the option 'topk'"),
        ({"on_error": "ignore"}, "on_error is 'ignore', but must be 'raise' or 'skip'"),
        ({"reject_below": 1.5}, "reject_below is 1.5, but must be a number from 0 to 1"),
        ({"reject_below": True}, "reject_below is True"),
        ({"reject_below": "x"}, "reject_below is 'x'"),
    ],
)
def test_bad_options_are_named(zero_shot, clips, options, message):
    with pytest.raises(ValueError, match=message):
        zero_shot(clips[0], candidate_labels=LABELS, **options)


def test_a_file_that_cannot_be_read_is_named(zero_shot, clips, tmp_path):
    write_clip(tmp_path / "sound.mp4", clips[0])
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        zero_shot([str(tmp_path / "sound.mp4"), str(tmp_path / "broken.mp4")], candidate_labels=LABELS, batch_size=2)
    with pytest.raises(ValueError, match=r"absent\.mp4"):
        zero_shot(str(tmp_path / "absent.mp4"), candidate_labels=LABELS)


@pytest.fixture
def files(clips, tmp_path):
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, clip in zip(paths, clips[:3], strict=True):
        write_clip(path, clip)
    return paths


@pytest.fixture
def expected(zero_shot, files):
    return zero_shot([str(path) for path in files], candidate_labels=LABELS)


def test_the_librarys_own_name_of_the_argument_and_an_empty_list(zero_shot, files, expected):
    assert zero_shot(inputs=str(files[0]), candidate_labels=LABELS) == expected[0]
    assert zero_shot([], candidate_labels=LABELS) == []
    assert zero_shot((), candidate_labels=LABELS) == []
    with pytest.raises(ValueError, match="does not know the option 'topk'"):
        zero_shot([], candidate_labels=LABELS, topk=3)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_what_datasets_gives_is_taken(zero_shot, files, expected, batch_size):
    rows = [{"path": None, "bytes": path.read_bytes()} for path in files]
    features = datasets.Features({"video": datasets.Video(decode=False)})
    table = datasets.Dataset.from_dict({"video": rows}, features=features)
    options = {"candidate_labels": LABELS, "batch_size": batch_size}
    streamed = zero_shot(table.to_iterable_dataset()["video"], **options)
    assert next(streamed)[0]["label"] == expected[0][0]["label"]
    several = [zero_shot(table["video"], **options), [None, *streamed], zero_shot(table[:]["video"], **options)]
    for number, right in enumerate(expected):
        for results in several:
            if results[number] is not None:
                close(scores_of(results[number], LABELS), scores_of(right, LABELS))
    assert [len(results) for results in several] == [3, 3, 3]
    assert zero_shot(table[1]["video"], **options) == expected[1]
    with pytest.raises(ValueError, match=r"a whole data set; give the column that holds them, one of \['video'\]"):
        zero_shot(table, **options)


def test_files_open_or_as_bytes_are_taken_at_once(zero_shot, files, expected):
    assert zero_shot(files[0].read_bytes(), candidate_labels=LABELS) == expected[0]
    with files[0].open("rb") as file:
        assert zero_shot(file, candidate_labels=LABELS) == expected[0]
    with files[0].open("rb") as first, files[1].open("rb") as second:
        assert zero_shot([first, second], candidate_labels=LABELS) == expected[:2]
    with files[0].open(encoding="latin-1") as file, pytest.raises(ValueError, match=r"0\.mp4 is open as text"):
        zero_shot(file, candidate_labels=LABELS)


def test_the_next_result_of_a_stream_can_be_asked_for(zero_shot, files, expected):
    asked = []
    streamed = zero_shot((asked.append(path) or str(path) for path in files), candidate_labels=LABELS)
    assert next(streamed) == expected[0]
    assert len(asked) < 3
    assert list(streamed) == expected[1:]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_damaged_clip_in_a_list_may_be_skipped(zero_shot, files, expected, batch_size, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    videos = [str(files[0]), tmp_path / "broken.mp4", str(files[1]), "http://localhost/clip.mp4"]
    results = zero_shot(videos, candidate_labels=LABELS, batch_size=batch_size, on_error="skip")
    assert results[1].keys() == results[3].keys() == {"error"}
    assert "broken.mp4" in results[1]["error"]
    assert "only with allow_urls=True" in results[3]["error"]
    for result, right in zip(results[::2], expected, strict=False):
        close(scores_of(result, LABELS), scores_of(right, LABELS))
    assert zero_shot(videos[1], candidate_labels=LABELS, on_error="skip") == results[1]
    assert list(zero_shot(iter(videos), candidate_labels=LABELS, on_error="skip"))[1] == results[1]
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        zero_shot(videos, candidate_labels=LABELS, on_error="raise")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_clips_that_are_of_no_class_may_be_rejected(zero_shot, model, processor, clips, batch_size):
    fit(model, processor, clips)
    texts = [f"something {label}" for label in LABELS]
    with torch.no_grad():
        known = model(**processor(videos=clips, text=texts, num_frames=processor.num_frames)).known
    limit = float(known.median())
    options = {"candidate_labels": LABELS, "batch_size": batch_size}
    every, kept = zero_shot(clips, **options), zero_shot(clips, reject_below=limit, **options)
    assert zero_shot(clips, reject_below=0, **options) == every
    for result, usual, certainty in zip(kept, every, known.tolist(), strict=True):
        if certainty < limit - 1e-5:
            assert [entry["label"] for entry in result] == [None]
            assert result[0]["score"] == pytest.approx(certainty, abs=1e-5)
        elif certainty > limit + 1e-5:
            assert result == usual
    assert {len(result) for result in kept} == {1, len(LABELS)}
    own = VideoClassificationPipeline(model=model, processor=processor, reject_below=1)
    assert own(clips[0])[0]["label"] is None
    assert own(clips[0], reject_below=0)[0]["label"] is not None


def test_a_model_in_memory_makes_a_pipeline(model, processor, files, expected):
    pipe = pipeline("zero-shot-video-classification", model=model, processor=processor)
    assert type(pipe) is ZeroShotVideoClassificationPipeline
    assert pipe(str(files[0]), candidate_labels=LABELS) == expected[0]
    options = {"processor": processor, "pipeline_class": VideoClassificationPipeline}
    model.config.id2label = dict(enumerate(LABELS))
    assert len(pipeline("video-classification", model=model, **options)(str(files[0]))) == 3
    with pytest.raises(ValueError, match="VideoClassificationPipeline needs the processor of the model"):
        VideoClassificationPipeline(model=model)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import modeling_dkd", "import transformers.pipelines", ""])
def test_the_task_is_known_whatever_is_imported_first(first):
    code = f"""{first}
from transformers import pipeline
import modeling_dkd
from modeling_dkd import DKDCLIPModel
from transformers.pipelines import PIPELINE_REGISTRY
print(PIPELINE_REGISTRY.check_task("zero-shot-video-classification")[0])
"""
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "zero-shot-video-classification"
    assert "already registered" not in done.stderr


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_addresses_are_fetched_only_when_asked(zero_shot, clips, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip.mp4", clips[0])
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/clip.mp4"
        with pytest.raises(ValueError, match="only with allow_urls=True"):
            zero_shot(url, candidate_labels=LABELS)
        fetched = zero_shot(url, candidate_labels=LABELS, allow_urls=True)
        assert fetched == zero_shot(str(tmp_path / "clip.mp4"), candidate_labels=LABELS)
        with pytest.raises(ValueError, match=r"cannot fetch 'http.*/absent\.mp4'"):
            zero_shot(url.replace("clip", "absent"), candidate_labels=LABELS, allow_urls=True)
        with pytest.raises(ValueError, match="neither an http"):
            zero_shot("file:///etc/passwd", candidate_labels=LABELS, allow_urls=True)
        monkeypatch.setattr("modeling_dkd.video_pipelines.MAX_DOWNLOAD_BYTES", 1000)
        with pytest.raises(ValueError, match="more than 1000 bytes"):
            zero_shot(url, candidate_labels=LABELS, allow_urls=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_saved_pipeline_is_complete(zero_shot, tmp_path):
    zero_shot.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"processor_config.json", "tokenizer.json", "video_pipelines.py", "model.safetensors"} <= names
    assert json.loads((tmp_path / "config.json").read_text())["custom_pipelines"] == CUSTOM_PIPELINES


CLASSIFY = """
import json
from transformers import pipeline

found = {{}}
for task, options in {calls!r}.items():
    pipe = pipeline(task, model={folder!r}, trust_remote_code=True)
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    found[task] = pipe({videos!r}, batch_size=2, **options)
    pipe.save_pretrained({again!r})
print("RESULT" + json.dumps(found))
"""


@pytest.mark.slow
def test_both_tasks_work_from_a_folder_where_the_package_is_not_installed(model, processor, clips, tmp_path):
    fit(model, processor, clips)
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    videos = [tmp_path / f"{index}.mp4" for index in range(3)]
    for path, clip in zip(videos, clips[:3], strict=True):
        write_clip(path, clip)
    calls = {"zero-shot-video-classification": {"candidate_labels": LABELS}, "video-classification": {"top_k": 3}}
    code = CLASSIFY.format(
        calls=calls,
        folder=str(tmp_path / "saved"),
        videos=[str(path) for path in videos],
        again=str(tmp_path / "again"),
    )
    done = run_isolated(code, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("RESULT")[2])
    classes = {"zero-shot-video-classification": LABELS, "video-classification": list(ACTIONS)}
    for task, labels in classes.items():
        expected = expected_scores(model, processor, videos, [f"something {label}" for label in labels])
        for result, row in zip(found[task], expected, strict=True):
            best = row.topk(3)
            assert [entry["label"] for entry in result] == [labels[index] for index in best.indices]
            close(torch.tensor([entry["score"] for entry in result]), best.values)
    again, saved = ({path.name for path in (tmp_path / name).iterdir()} for name in ("again", "saved"))
    assert again == saved
