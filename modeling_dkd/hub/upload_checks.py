"""Which files of a folder are published, and what must not be among them.

A published model is what loads it and what explains it: safetensors weights, JSON configuration, tokenizer files, the
code that ships with them, the card, results and options. Products of training beside them are left out. A pickle, a
secret, a path of the author's machine, training data or a file of unknown kind stops the publication: it is refused,
not dropped, so that nobody learns afterwards that something was missing.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .measured_rows import LOCAL_PATH


TEXTS = {".json", ".yaml", ".yml", ".md", ".txt", ".py", ".jinja", ".cff", ".bib", ".svg", ""}
TEXT_NAMES = {"LICENSE", "NOTICE", ".gitattributes"}
BINARIES = {".safetensors", ".model", ".spm", ".png", ".parquet"}
LEFT_OUT = ("best/", "checkpoints/", "__pycache__/", ".cache/", ".git/", ".ipynb_checkpoints/")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".msgpack", ".onnx"}
VIDEOS = {".avi", ".mp4", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".gif", ".jpg", ".jpeg", ".bmp", ".wav", ".mp3"}
DATA = VIDEOS | {".zip", ".tar", ".gz", ".rar", ".7z", ".csv", ".arrow", ".tfrecord"}
SECRET_NAMES = re.compile(
    r"(^|/)(\.env.*|\.netrc|\.git-credentials|id_[a-z0-9]+|.*\.(pem|key|p12|pfx)|token|secrets?\..*)$", re.IGNORECASE
)
SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "an AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "an API key": r"\bsk-[A-Za-z0-9_-]{32,}",
    "a password in a URL": r"https?://[^/\s:@]+:[^/\s@]+@",
    "a secret": r"""(?i)(api_?key|secret|passw(or)?d|access_?token|auth_?token)["']?\s*[:=]\s*["'][^"'\s]{8,}["']""",
}
HOMES = ("~/", "/home/", "/Users/", "/root/", "/tmp/", "/var/", "/mnt/", "/media/", "/scratch/", "/srv/", "/Volumes/")
SYSTEM = ("/usr/", "/etc/", "/bin/", "/dev/", "/proc/", "/sys/", "/lib/")
# Tensors that hold clips, not a model.
DATA_TENSORS = {"video_embeds", "labels", "pixel_values"}


@dataclass(frozen=True)
class Selection:
    """What a folder gives.

    Attributes:
        files: Paths inside the folder, in order, that are published.
        left_out: Paths inside the folder that are not.
        problems: One sentence for every reason not to publish at all.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    problems: tuple[str, ...]


def select_files(folder: Path, kind: str = "model") -> Selection:
    """Walk a folder and judge every file in it.

    Args:
        folder: What is to be published.
        kind: "model" or "dataset"; Parquet tables belong to data sets alone.
    """
    files, left_out, problems = [], [], []
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if any(f"/{name}".find(f"/{part}") >= 0 for part in LEFT_OUT) or "tfevents" in name:
            left_out.append(name)
            continue
        files.append(name)
        problems += [f"{name}: {problem}" for problem in _problems(folder, path, name, kind)]
    return Selection(tuple(files), tuple(left_out), tuple(problems))


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in order; links are not followed into other folders."""
    for root, directories, names in os.walk(folder, followlinks=False):
        directories.sort()
        yield from (Path(root, name) for name in sorted(names))
        # A link to a folder is no folder that is walked; it must not vanish silently.
        yield from (Path(root, name) for name in directories if Path(root, name).is_symlink())


def _problems(folder: Path, path: Path, name: str, kind: str) -> list[str]:
    """Reasons not to publish this file."""
    suffix = path.suffix.lower()
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return ["is a link that leads out of the folder; put the file itself there"]
    if not path.is_file():
        return ["is no file that can be read; remove it"]
    if SECRET_NAMES.search(name):
        return ["is named like a secret; move it out of the folder"]
    if suffix in PICKLES:
        return ["may hold a pickle or other format than safetensors; save weights with save_pretrained"]
    if suffix in DATA or (suffix == ".parquet" and kind != "dataset"):
        return ["is data, which belongs into a data set repository; move it out of the folder"]
    if path.name not in TEXT_NAMES and (suffix not in TEXTS | BINARIES or not suffix):
        return ["is of a kind that no repository of this project has; move it out of the folder"]
    if suffix == ".safetensors":
        return _tensor_problems(path)
    if suffix in BINARIES:
        return []
    return _text_problems(path)


def _text_problems(path: Path) -> list[str]:
    """Secrets and local paths in a text, and texts that are none."""
    content = path.read_bytes()
    if content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or content[:4] == b"PK\x03\x04":
        return ["is a pickle under another name"]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return ["is no UTF-8 text, though its name says so"]
    if path.suffix == ".json":
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            return [f"is not valid JSON ({error})"]
    if path.name in ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"):
        return []  # tens of thousands of pieces of words, of which some look like anything
    return said_in(text)


def said_in(text: str) -> list[str]:
    """What a text gives away: secrets (never repeated in the message) and a path of a machine."""
    found = [
        f"holds {what}; remove it, and revoke it if it was ever shared"
        for what, pattern in SECRETS.items()
        if re.search(pattern, text)
    ]
    path = next((match[0] for match in LOCAL_PATH.finditer(text) if _is_local(match[0])), None)
    if path is not None:
        found.append(f"names a path of a machine ({path[:60]}); write it without its folders")
    return found


def _is_local(path: str) -> bool:
    """Whether a path is one of somebody's machine; others only look like one (a route, a place of the system)."""
    if path.startswith(HOMES) or re.match(r"[A-Za-z]:\\", path):
        return True
    return path.startswith((f"{Path.home()}/", f"{Path.cwd()}/")) or (
        not path.startswith(SYSTEM) and Path(path).exists()
    )


def _tensor_problems(path: Path) -> list[str]:
    """Whether a safetensors file is one, and holds a model and no clips."""
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = set(file.keys()), file.metadata() or {}
    except (SafetensorError, OSError) as error:
        return [f"is no readable safetensors file ({error})"]
    if names & DATA_TENSORS:
        return ["holds embeddings of clips, which belong into a data set repository; move it out of the folder"]
    return [problem for value in metadata.values() for problem in said_in(value)]


def incomplete(folder: Path, files: Sequence[str]) -> list[str]:
    """What a model repository lacks to load with AutoModel and AutoProcessor and to be understood."""
    there, problems = set(files), []
    for name in ("config.json", "processor_config.json", "tokenizer_config.json", "README.md"):
        if name not in there:
            problems.append(f"{name} is missing")
    index = "model.safetensors.index.json"
    if index in there:
        shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
        problems += [f"{name}, which {index} names, is missing" for name in sorted(shards - there)]
    elif "model.safetensors" not in there:
        problems.append("model.safetensors is missing")
    for name in ("config.json", "processor_config.json"):
        if name not in there:
            continue
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        needed = {f"{value.split('--')[-1].rsplit('.', 1)[0]}.py" for value in _auto_classes(content)}
        if not needed:
            problems.append(f"{name} names no code that loads it (auto_map)")
        problems += [f"{module}, which {name} names, is missing" for module in sorted(needed - there)]
    for name in sorted(name for name in there if name.endswith(".py") and "/" not in name):
        siblings = re.findall(r"^\s*from \.(\w+) import", (folder / name).read_text(encoding="utf-8"), re.MULTILINE)
        problems += [
            f"{m}.py, which {name} imports, is missing" for m in sorted(set(siblings)) if f"{m}.py" not in there
        ]
    return problems


def _auto_classes(content: dict) -> list[str]:
    """Every "module.Class" that an auto_map in the file names."""
    found = []
    for key, value in content.items():
        if key == "auto_map" and isinstance(value, dict):
            found += [item for item in value.values() if isinstance(item, str)]
        elif isinstance(value, dict):
            found += _auto_classes(value)
    return found
