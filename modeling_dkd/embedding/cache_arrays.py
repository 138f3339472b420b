"""What embedding files and their arrays are called; apart from what reads them, which takes seconds to import."""

import re
from dataclasses import dataclass
from pathlib import Path


# What the arrays of a file are, under these names unless the caller gives others.
ARRAYS = {
    "video_embeds": "video embeddings (N, D) or (N, T, D), one row a frame",
    "labels": "class of each clip (N,), -1 unlabelled",
    "text_embeds": "class texts (K, D) or (K, P, D), one row a prompt; (P, K, D) where there are K class names",
    "class_names": "one text a class",
    "names": "one text a clip",
    "prompts": "the texts that were embedded, or their templates",
    "class_id": "in a file of class texts: the label that each of them stands for (K,); other clips are left out",
    "text_rows": "class text that each label stands for: labels become text_rows[labels]; read only where it is named",
}
# What arrays of a file are called, behind its path: FILE:video_embeds=image_f,text_embeds=text_avg
ARRAYS_OF_FILE = re.compile(r":(\w+=[^,=+]+(?:,\w+=[^,=+]+)*)$")


@dataclass(frozen=True)
class Source:
    """One file of embeddings as it was typed.

    Attributes:
        path: The file.
        arrays: What its arrays are called, as `read_embeddings` takes it.
        title: What rows call it, where the user says so.
    """

    path: Path
    arrays: dict[str, str]
    title: str | None = None

    @classmethod
    def parse(cls, given: str) -> "Source":
        """FILE or FILE:NAME=ARRAY,...; a file that is really called so is meant as it stands."""
        found = None if Path(given).is_file() else ARRAYS_OF_FILE.search(given)
        if found is None:
            return cls(Path(given), {})
        arrays = dict(pair.split("=") for pair in found[1].split(","))
        return cls(Path(given[: found.start()]), arrays, arrays.pop("title", None))


def split_pair(given: str, text_embeddings: str | None = None) -> tuple[Source, Source | None]:
    """FILE+TEXTFILE into both, FILE alone with --text_embeddings; a plus in the name of an existing file is kept."""
    everywhere = None if text_embeddings is None else Source.parse(text_embeddings)
    whole = Source.parse(given)
    if whole.path.is_file() or "+" not in given:
        return whole, everywhere
    cuts = [(given[:i], given[i + 1 :]) for i, letter in enumerate(given) if letter == "+"]
    pairs = [(Source.parse(before), Source.parse(after)) for before, after in cuts]
    fitting = [pair for pair in pairs if all(source.path.is_file() for source in pair)]
    return (fitting or pairs)[0]
