"""What the library's own pipelines make of a model in memory; those of ours are in test_video_pipelines.py."""

import pytest
import transformers

from modeling_dkd import DKDCLIPModel, DKDCLIPProcessor
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from tests.test_processing_dkd import random_video
from tests.test_video_frames import write_video


def test_video_classification_without_our_class_says_what_to_give(caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    model, processor = DKDCLIPModel.from_pretrained(CHECKPOINT), DKDCLIPProcessor.from_pretrained(CHECKPOINT)
    pipe = transformers.pipeline("video-classification", model=model, processor=processor)
    assert type(pipe) is transformers.VideoClassificationPipeline
    assert "The model 'DKDCLIPModel' is not supported for video-classification" in caplog.text
    with pytest.raises(AttributeError, match="pipeline_class=VideoClassificationPipeline"):
        pipe([random_video()])
    clip = write_video(tmp_path / "clip.mp4", 8, "mpeg4")
    with pytest.raises(ValueError, match="for a pipeline VideoClassificationPipeline"):
        pipe(str(clip), num_frames=4)
