import torch

from modeling_dkd import DKDCLIPConfig, DKDHead
from modeling_dkd.recognition.predictions import Question, predict


def test_classes_with_one_text_come_in_the_order_asked_as_zero_shot_has_them():
    texts = torch.eye(8)[[1, *[0] * 40]][:, None]
    names = ["other", *(f"word {number}" for number in range(40))]
    head = DKDHead(DKDCLIPConfig(projection_dim=8)).eval()
    (found,) = predict(head, head, torch.eye(8)[:1, None], Question(names, texts), ["clip"])
    assert found.label == found.zero_shot_label == "word 0"
    assert found.runners_up == ("word 1", "word 2", "word 3", "word 4")
