"""An encoder of one's own, as a user would write it: colours of a coarse picture, and words of colours."""

import torch
from torch.nn.functional import interpolate


COLOURS = {"red": (200.0, 30.0, 30.0), "green": (30.0, 200.0, 30.0), "blue": (30.0, 30.0, 200.0)}
SIDE = 3


class ColourEncoder:
    num_frames = 3
    logit_scale = 20.0
    name = "colours"

    def embed_videos(self, videos):
        return torch.stack([interpolate(video.float(), (SIDE, SIDE), mode="area").flatten(1) + 9 for video in videos])

    def embed_texts(self, texts):
        found = [
            next((c for name, c in COLOURS.items() if name in text.lower()), (99.0, 99.0, 99.0)) for text in texts
        ]
        return torch.tensor(found).repeat_interleave(SIDE * SIDE, 1) + 9


class Without:
    num_frames = 3

    def embed_texts(self, texts):
        return torch.ones(len(texts), 3)


class Nan(ColourEncoder):
    def embed_videos(self, videos):
        return super().embed_videos(videos) * float("nan")


class WrongCount(ColourEncoder):
    def embed_videos(self, videos):
        return torch.ones(1, 27)


class NoFrames(ColourEncoder):
    num_frames = "eight"


class Failing(ColourEncoder):
    def embed_videos(self, videos):
        return videos[7]


class Lists(ColourEncoder):
    def embed_texts(self, texts):
        return super().embed_texts(texts).tolist()


class Slow(ColourEncoder):
    """Slow enough to be killed in the middle."""

    name = "slow"

    def embed_videos(self, videos):
        import time

        time.sleep(0.05)
        return super().embed_videos(videos)


def failing_load():
    raise RuntimeError("weights are\nnot here")


not_callable = 3
