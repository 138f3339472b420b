"""What the library's own pipelines make of a model in memory; those of ours are in test_video_pipelines.py."""

import pytest
import transformers

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.synthetic.checkpoint import CHECKPOINT
from tests.test_processing_dkd import random_video


def test_video_classification_without_our_class_fails_at_the_first_video(caplog, monkeypatch):
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    model, processor = DKDCLIPModel.from_pretrained(CHECKPOINT), DKDCLIPProcessor.from_pretrained(CHECKPOINT)
    pipe = transformers.pipeline("video-classification", model=model, processor=processor)
    assert type(pipe) is transformers.VideoClassificationPipeline
    assert "The model 'DKDCLIPModel' is not supported for video-classification" in caplog.text
    with pytest.raises(AttributeError, match="num_frames"):
        pipe([random_video()])
