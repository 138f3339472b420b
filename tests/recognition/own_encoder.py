"""An encoder of one's own, as a user would write it: mean colours, and words of colours."""

import torch
from torch.nn.functional import one_hot


COLOURS = ("red", "green", "blue")


class ColourEncoder:
    num_frames = 3
    logit_scale = 20.0
    name = "colours"

    def embed_videos(self, videos):
        return torch.stack([video.float().mean((-2, -1)) + 1 for video in videos])

    def embed_texts(self, texts):
        found = [next((i for i, colour in enumerate(COLOURS) if colour in text.lower()), 0) for text in texts]
        return one_hot(torch.tensor(found), 3).float() + 0.1


class Without:
    num_frames = 3

    def embed_texts(self, texts):
        return torch.ones(len(texts), 3)


class Nan(ColourEncoder):
    def embed_videos(self, videos):
        return super().embed_videos(videos) * float("nan")


class WrongCount(ColourEncoder):
    def embed_videos(self, videos):
        return torch.ones(1, 3)


class NoFrames(ColourEncoder):
    num_frames = "eight"


class Failing(ColourEncoder):
    def embed_videos(self, videos):
        return videos[7]


class Lists(ColourEncoder):
    def embed_texts(self, texts):
        return super().embed_texts(texts).tolist()


def failing_load():
    raise RuntimeError("weights are\nnot here")


not_callable = 3
