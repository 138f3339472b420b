"""What tools around a model ask of it: Trainer, shape-only runs, inner states, token embeddings."""

import copy

import pytest
import torch
from accelerate import init_empty_weights
from accelerate.utils import calculate_maximum_sizes
from torch._subclasses import FakeTensorMode
from transformers import AutoModel, Trainer, TrainingArguments

from modeling_dkd import DKDCLIPConfig, DKDCLIPModel
from tests.tiny_backbones import BACKBONE_KINDS, VOCAB_SIZE, make_model, make_texts, make_videos


FITTED = make_model().fit_domain(make_videos(9, 2), make_texts(5))


def fitted_model(kind="clip"):
    return copy.deepcopy(FITTED) if kind == "clip" else make_model(kind).fit_domain(make_videos(9, 2), make_texts(5))


class Clips(torch.utils.data.Dataset):
    """Seven clips of four classes."""

    videos, labels = make_videos(7, 2), torch.arange(7) % 4

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {"pixel_values": self.videos[index], "labels": self.labels[index]}


def collate(rows):
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return batch | {"input_ids": make_texts(4)}


def trainer_of(model, folder, **options):
    options = {"per_device_eval_batch_size": 3, "per_device_train_batch_size": 3, "report_to": []} | options
    arguments = TrainingArguments(
        str(folder),
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    return Trainer(model, arguments, data_collator=collate, train_dataset=Clips(), eval_dataset=Clips())


def test_trainer_predictions_are_the_logits_of_all_clips(tmp_path):
    model = fitted_model()
    predicted = trainer_of(model, tmp_path).predict(Clips())
    with torch.no_grad():
        expected = model(Clips.videos, make_texts(4)).logits_per_video
    torch.testing.assert_close(torch.from_numpy(predicted.predictions), expected, rtol=1e-4, atol=1e-4)
    assert predicted.label_ids.tolist() == Clips.labels.tolist()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_trainer_smooths_labels(tmp_path, smoothing):
    model = fitted_model()
    loss = trainer_of(model, tmp_path, label_smoothing_factor=smoothing, per_device_eval_batch_size=7).evaluate()
    with torch.no_grad():
        logits = model(Clips.videos, make_texts(4)).logits_per_video
    expected = torch.nn.functional.cross_entropy(logits, Clips.labels, label_smoothing=smoothing)
    assert loss["eval_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_what_trainer_saves_is_evaluated_with_the_scale_it_trained(tmp_path):
    model = make_model(logit_scale=5.0)
    trainer = trainer_of(
        model,
        tmp_path,
        max_steps=2,
        learning_rate=0.1,
        label_smoothing_factor=0.1,
        save_strategy="no",
        logging_steps=1,
    )
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    trained = float(model.head.logit_scale.detach())
    assert trained != pytest.approx(5)
    assert DKDCLIPConfig.from_pretrained(tmp_path / "saved").logit_scale == pytest.approx(trained)


def test_the_loss_counts_once_however_it_is_accumulated(tmp_path):
    assert not trainer_of(make_model(), tmp_path).model_accepts_loss_kwargs


def test_logits_have_the_name_that_classifiers_have_but_are_no_item_of_their_own():
    output = make_model()(make_videos(), make_texts(4), labels=torch.tensor([0, 1]))
    assert output.logits is output["logits"] is output.logits_per_video
    assert "logits" not in output.keys()  # noqa: SIM118 (a ModelOutput)
    assert output[0] is output.loss


# SigLIP 2's own code looks at the values of its attention mask.
SHAPES_ALONE = [(kind, False) for kind in BACKBONE_KINDS if kind != "siglip2"] + [("clip", True)]


@pytest.mark.parametrize(("kind", "fitted"), SHAPES_ALONE)
def test_shapes_come_out_of_a_run_without_values(kind, fitted):
    model = fitted_model(kind) if fitted else make_model(kind)
    inputs = {"pixel_values": make_videos(2, 3), "input_ids": make_texts(4, 2), "labels": torch.tensor([0, 3])}
    with torch.no_grad():
        expected = {name: value.shape for name, value in model(**inputs).items()}
        meta = model.to("meta")(**{name: value.to("meta") for name, value in inputs.items()})
    assert {name: value.shape for name, value in meta.items()} == expected
    assert all(value.is_meta for value in meta.values())


@pytest.mark.parametrize("fitted", [False, True])
def test_fake_tensors_go_through(fitted):
    model = fitted_model() if fitted else make_model()
    inputs = make_videos(2, 3), make_texts(4, 2)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        output = model(*(mode.from_tensor(tensor) for tensor in inputs), labels=mode.from_tensor(torch.tensor([0, 3])))
    assert output.logits_per_video.shape == (2, 4)
    assert output.loss.shape == ()


def test_accelerate_estimates_its_memory(tmp_path):
    model = fitted_model()
    model.save_pretrained(tmp_path)
    with init_empty_weights():
        empty = AutoModel.from_config(DKDCLIPConfig.from_pretrained(tmp_path), dtype=torch.float32)
    total, (largest, _) = calculate_maximum_sizes(empty)
    assert total == sum(parameter.numel() * 4 for parameter in model.parameters()) + sum(
        buffer.numel() * buffer.element_size() for buffer in model.buffers()
    )
    assert 0 < largest < total


@pytest.mark.parametrize("name", ["output_attentions", "output_hidden_states"])
def test_inner_states_are_refused_in_one_sentence(name, tmp_path):
    model, inputs = make_model(), (make_videos(), make_texts(4))
    message = (
        rf"^DKDCLIPModel has no {name}; ask the encoder: model\.backbone\.get_image_features\(frames, {name}=True\)$"
    )
    with pytest.raises(ValueError, match=message):
        model(*inputs, **{name: True})
    model(*inputs, **{name: False})
    if name == "output_hidden_states":
        model.save_pretrained(tmp_path)
        asked = DKDCLIPModel.from_pretrained(tmp_path, output_hidden_states=True)
        with pytest.raises(ValueError, match=message):
            asked(*inputs)
        asked(*inputs, output_hidden_states=False)


@torch.no_grad()
@pytest.mark.parametrize("kind", BACKBONE_KINDS)
def test_token_embeddings_are_those_of_the_backbone(kind, tmp_path):
    model = make_model(kind)
    inputs = make_videos(), make_texts(4)
    before = model(*inputs).logits_per_video
    embeddings = model.get_input_embeddings()
    assert embeddings.weight.shape[0] == VOCAB_SIZE
    assert any(parameter is embeddings.weight for parameter in model.backbone.parameters())
    resized = model.resize_token_embeddings(VOCAB_SIZE + 5, mean_resizing=False)
    assert resized is model.get_input_embeddings()
    assert resized.weight.shape[0] == VOCAB_SIZE + 5
    torch.testing.assert_close(model(*inputs).logits_per_video, before)
    model.save_pretrained(tmp_path)
    loaded = DKDCLIPModel.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().weight.shape[0] == VOCAB_SIZE + 5
    torch.testing.assert_close(loaded(*inputs).logits_per_video, before)
    other = torch.nn.Embedding(VOCAB_SIZE, embeddings.weight.shape[1])
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other


def test_a_backbone_that_tells_no_token_embeddings_is_named(monkeypatch):
    model = make_model()
    monkeypatch.setattr(type(model.backbone.text_model), "get_input_embeddings", _not_told)
    with pytest.raises(NotImplementedError, match="the backbone CLIPModel does not tell its token embeddings"):
        model.get_input_embeddings()


def _not_told(self):
    raise NotImplementedError


def test_a_stream_goes_on_through_the_model():
    videos = make_videos(12, 2)
    model = make_model().fit_domain(videos[:8], make_texts(5), class_names=list("abcde"))
    assert model.update_domain(videos[8:]) is model
    assert float(model.head.num_samples) == 12
    assert model.config.id2label[4] == "e"
    other = make_model().fit_domain(videos[:8], make_texts(5))
    with torch.no_grad():
        other.update_domain(video_embeds=other.get_video_features(videos[8:]))
    torch.testing.assert_close(other.head.means, model.head.means)
    with pytest.raises(ValueError, match="give pixel_values or video_embeds: the videos of the domain"):
        model.update_domain()
    with pytest.raises(ValueError, match="give pixel_values or video_embeds, not both"):
        model.update_domain(videos, video_embeds=torch.ones(2, 24))
    with pytest.raises(ValueError, match="update goes on from a fit with class texts"):
        make_model().update_domain(videos)
