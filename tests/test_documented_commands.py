"""Commands and examples of README.md and docs/: all are understood; those of a user's first days run as written."""

import csv
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from benchmarks.page_pictures import write_video
from modeling_dkd.cli import COMMANDS
from modeling_dkd.cli import main as dkd
from modeling_dkd.embedding.embedded_checkpoint import CHECKPOINT
from modeling_dkd.embedding.embedding_cache import EmbeddingSet, write_embeddings
from modeling_dkd.synthetic.clips import ACTIONS, generate_clips


ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What stands in the pages beside commands of this project.
OF_OTHERS = (
    r"(git clone|python -m venv|pip download|tar xzf|cd|M=|TRANSFORMERS_SDIST=\S+ python -m pytest|open-clip/bin/)"
)
EXAMPLE_MODEL = "openai/clip-vit-base-patch16"
NUM_CLIPS = 100
CACHE = "embedded"
# Pages whose commands are run, and of these the ones that are not, with the reason.
RUN = ("README.md", "quickstart.md", "recognise.md", "domains.md", "evaluate.md", "protocols.md", "own_method.md")
NOT_RUN = {
    r"make ": "targets, which CI runs",
    r"pip install|git clone|cd |M=": "installing: see test_wheel.py",
    r".*--push": "sends: see tests/hub",
    r".*(UCF-101|hmdb51_org)": "takes the videos of a data set: see tests/evaluation and tests/training",
    r".*--dataset hub": "a data set of the Hub: see tests/hub/test_clips_of_the_hub.py",
    r"dkd export": "see tests/interop",
    r"dkd recognise \S+ .*me/kitchen-domain": "a domain of the Hub: see tests/hub/test_domain_hub.py",
}


def commands(page):
    """Each command of the page's blocks of bash, without its comment."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines if line.strip() for part in re.sub(r"\s#\s.*", "", line).split("&&")]


ALL = [(page.name, command) for page in PAGES for command in commands(page)]


def parse(command):
    """Let the parser of the command read its options; raises SystemExit where it does not know one."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return False
    if words[0] == "accelerate":
        words = words[next(i for i, word in enumerate(words) if word.endswith((".py", "modeling_dkd"))) :]
        words = ["python", *words]
    if words[:2] in (["python", "evaluate.py"], ["python", "train.py"]):
        words = ["dkd", words[1].removesuffix(".py"), *words[2:]]
    if words[0] != "dkd":
        return False
    module, _ = COMMANDS[words[1]]
    parser = importlib.import_module(f"modeling_dkd.{module}").build_parser()
    arguments = words[2:]
    if "--help" not in arguments:
        parser.parse_args(arguments)
    return True


@pytest.mark.parametrize(("page", "command"), ALL, ids=lambda value: value.replace("/", "-")[:60])
def test_every_command_is_understood(page, command):
    if parse(command) or re.match(OF_OTHERS, command):
        return
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        asked = re.search(r"\[(.*)\]", command)
        assert asked is None or set(asked[1].split(",")) <= extras.keys()
    else:
        assert words[:2] == ["python", "exported/run_graphs.py"], "no test knows this command: run it, or say why not"


def test_the_pages_hold_commands():
    """Lest the test above looks for nothing."""
    assert len(ALL) > 50
    assert {page for page, _ in ALL} > set(RUN) - {"protocols.md"}
    with pytest.raises(SystemExit):
        parse("dkd recognise clips --no-such-option")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that has what the pages name: clips, a long video, lists of classes, a model, embeddings."""
    folder = tmp_path_factory.mktemp("place")
    for name, count, seed in (("clips", NUM_CLIPS, 1), ("tomorrow", 6, 2)):
        list(generate_clips(folder / name, "combined", count, seed))
    for name in ("archive", "camera"):
        shutil.copytree(folder / "tomorrow", folder / name)
    (folder / CACHE).mkdir()
    (folder / "cameras").mkdir()
    write_video(folder / "monday.mp4")
    shutil.copy(folder / "monday.mp4", folder / "cameras/monday.mp4")
    for name in ("activities.txt", "classes.txt"):
        (folder / name).write_text("\n".join(ACTIONS) + "\n")
    shutil.copytree(CHECKPOINT, folder / "runs/my-model")
    torch.manual_seed(0)
    labels = torch.arange(96) % 8
    texts = torch.randn(8, 16)
    embeds = texts[labels] + torch.randn(96, 16)
    write_embeddings(folder / "FILE.safetensors", EmbeddingSet(embeds, labels, texts, {}))
    for block in re.findall(
        r"`(\w+\.py)`:\n\n```python\n(.*?)```", (ROOT / "docs/own_method.md").read_text(), re.DOTALL
    ):
        (folder / block[0]).write_text(block[1])
    return folder


def fill_in(file):
    """What the user does between two of the commands: the labels of a table."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["label"] = Path(row["clip"]).parent.name.replace("_", " ")
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_commands_run_as_written(name, place, monkeypatch, capsys):
    """In order, with a checkpoint that is here in the place of the one that is on the Hub."""
    given = set(place.iterdir())
    monkeypatch.chdir(place)
    monkeypatch.setenv("DKD_CACHE", str(place / CACHE))
    page = next(page for page in PAGES if page.name == name)  # of two called README.md the first page of all
    ran = 0
    for command in commands(page):
        if any(re.match(pattern, command) for pattern in NOT_RUN):
            continue
        written = command.replace(EXAMPLE_MODEL, "runs/my-model").replace("$M", "runs/my-model")
        written = written.replace("FILE.npz", "FILE.safetensors")
        words = shlex.split(written)
        if words[1] == "watch":
            words.append("--once")  # it would wait for more files
        if words[:2] == ["python", "evaluate.py"]:
            words = ["dkd", "evaluate", *words[2:]]
        assert words[0] == "dkd", command
        if "--help" in words:
            continue
        code = dkd(words[1:])
        assert code == 0, f"{command}: {capsys.readouterr().err[-2000:]}"
        ran += 1
        if words[1] == "suggest":
            fill_in(Path(words[words.index("--output") + 1]))
    assert ran
    for made in set(place.iterdir()) - given:  # the next page begins anew
        shutil.rmtree(made) if made.is_dir() else made.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart.md", "recognise.md"])
def test_examples_in_python_run_as_written(name, place):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)[1]
    code = code.replace(EXAMPLE_MODEL, "runs/my-model")
    if "__main__" not in code:  # where it stands in a notebook, or its script has one
        code = 'if __name__ == "__main__":\n' + re.sub(r"^", "    ", code, flags=re.MULTILINE)
    script = place / f"{name}.py"
    script.write_text(code)
    environment = os.environ | {"DKD_CACHE": str(place / CACHE)}
    done = subprocess.run([sys.executable, str(script)], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(".mp4") == NUM_CLIPS
