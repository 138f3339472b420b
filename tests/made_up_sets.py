"""Small data sets in the shape in which the owners of the large ones publish theirs: lists, folders and archives."""

import io
import json
import tarfile
from pathlib import Path

import av
import numpy as np


COLOURS = {"abseiling": (200, 40, 40), "playing ping-pong": (40, 200, 40), "tai chi": (40, 40, 200)}
CODECS = {".mp4": "mpeg4", ".webm": "libvpx"}


def write_video(path: Path, colours, seed: int = 0, rate: int = 10) -> Path:
    """Frames of 40 x 34 pixels, each of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=rate)
        stream.width, stream.height, stream.pix_fmt = 40, 34, "yuv420p"
        for colour in colours:
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (34, 40, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def kinetics(root: Path, classes=COLOURS, per_part=(("train", 4), ("val", 2), ("test", 1))) -> Path:
    """annotations/{train,val,test}.csv, and the clips as <part>/<class with _>/<id>_<start>_<end>.mp4."""
    number = 0
    for part, per_class in per_part:
        lines = ["label,youtube_id,time_start,time_end,split,is_cc"]
        for name, colour in classes.items():
            for _ in range(per_class):
                number += 1
                video = f"-a_{number:08d}"
                lines.append(f'"{name}",{video},{number},{number + 10},{part},0')
                file = root / part / name.replace(" ", "_") / f"{video}_{number:06d}_{number + 10:06d}.mp4"
                write_video(file, [colour] * 6, number)
        write(root / "annotations" / f"{part}.csv", "\n".join(lines) + "\n")
    return root


def as_archives(root: Path, compressed: bool = False) -> Path:
    """The same set as CVDF hands it out: a tar archive of each part, no class folders, and nothing beside them."""
    for part in ("train", "val", "test"):
        with tarfile.open(
            root / f"{part}_part_0.tar{'.gz' if compressed else ''}", f"w:{'gz' if compressed else ''}"
        ) as tar:
            for file in sorted((root / part).rglob("*.mp4")):
                tar.add(file, arcname=f"./{file.name}")
                file.unlink()
    return root


def webdataset(root: Path, archives=("train-0", "train-1", "train-2", "test-0"), clips_each: int = 4) -> Path:
    """<part>-<number>.tar, each with samples of two files: <key>.mp4 and <key>.json with the label."""
    number = 0
    for archive in archives:
        members = {}
        for _ in range(clips_each):
            name = list(COLOURS)[number % len(COLOURS)]
            clip = write_video(root / "clip.mp4", [COLOURS[name]] * 6, number)
            members[f"{number:05d}.mp4"] = clip.read_bytes()
            members[f"{number:05d}.json"] = json.dumps({"label": name, "seconds": 0.6}).encode()
            clip.unlink()
            number += 1
        tar_of(root / f"{archive}.tar", members)
    return root


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    """A tar archive with these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def ssv2(root: Path) -> Path:
    """labels, train, validation and test as JSON, and <id>.webm."""
    templates = ["Holding [something]", "Pushing [something] from left to right"]
    write_json(root / "labels/labels.json", {"Pushing something from left to right": "1", "Holding something": "0"})
    for part, ids in (("train", range(1, 5)), ("validation", range(5, 7))):
        entries = []
        for i in ids:
            template = templates[i % 2]
            entries.append({"id": str(i), "label": template.replace("[something]", "a cup"), "template": template})
            entries[-1]["placeholders"] = ["a cup"]
            write_video(root / f"20bn-something-something-v2/{i}.webm", [(200 * (i % 2), 90, 90)] * 5, i)
        write_json(root / f"labels/{part}.json", entries)
    write_json(root / "labels/test.json", [{"id": "7"}])
    return root


def activitynet(root: Path) -> Path:
    """activity_net.v1-3.min.json, and two long videos of three seconds, red, green and blue."""
    seconds = [colour for colour in COLOURS.values() for _ in range(10)]
    names = ["Red thing", "Green thing", "Blue thing"]
    database = {"f___0": {"subset": "testing", "annotations": [], "duration": 9.0, "url": "", "resolution": "1x1"}}
    for video, subset in (("a-_1", "training"), ("b-_2", "validation")):
        write_video(root / f"videos/v_{video}.mp4", seconds, len(database))
        parts = [{"segment": [float(i), i + 1.0], "label": name} for i, name in enumerate(names)]
        if subset == "training":
            parts.append({"segment": [2.5, 2.5], "label": names[0]})
        database[video] = {"subset": subset, "annotations": parts, "duration": 3.0, "url": "", "resolution": "40x34"}
    write_json(root / "activity_net.v1-3.min.json", {"database": database, "taxonomy": [], "version": "VERSION 1.3"})
    return root


def diving48(root: Path) -> Path:
    """The vocabulary, train and test of V2 as JSON, and rgb/<vid_name>.mp4."""
    write_json(
        root / "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Inward", "Dive", "NoTwis", "PIKE"]]
    )
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        entries = []
        for i in numbers:
            entries.append({"vid_name": f"x{i}_0000{i}", "label": i % 2, "start_frame": 0, "end_frame": 5})
            write_video(root / f"rgb/x{i}_0000{i}.mp4", [(90, 200 * (i % 2), 90)] * 5, i)
        write_json(root / f"Diving48_V2_{part}.json", entries)
    return root


def msrvtt(root: Path) -> Path:
    """MSRVTT_data.json with 7 videos, and the 1kA list with 3 of them as its test."""
    videos, sentences = [], []
    for i in range(7):
        write_video(root / f"videos/all/video{i}.mp4", [(36 * i, 250 - 36 * i, 90)] * 5, i)
        videos.append({"video_id": f"video{i}", "split": "train" if i < 4 else "test", "category": 0})
        sentences += [{"video_id": f"video{i}", "caption": f"caption {n} of {i}", "sen_id": 2 * i + n} for n in (0, 1)]
    write_json(root / "annotation/MSRVTT_data.json", {"info": {}, "videos": videos, "sentences": sentences})
    tests = "".join(f'ret{i},msr{i},video{i},"a thing, number {i}"\n' for i in (3, 4, 6))
    write(root / "annotation/MSRVTT_JSFUSION_test.csv", "key,vid_key,video_id,sentence\n" + tests)
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content) -> None:
    write(path, json.dumps(content))
