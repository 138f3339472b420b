"""Clips that nobody has labelled: recognised, found, followed, reported.

from modeling_dkd.recognition import load_encoder, recognise, search, suggest, timeline, watch
"""

from importlib import import_module
from typing import Any


# Imported only when they are asked for: commands read their arguments before anything slow is imported.
FUNCTIONS = {
    "DomainUse": "clip_recognition",
    "Waiting": "folder_watch",
    "load_encoder": "encoder",
    "recognise": "clip_recognition",
    "recognise_embeddings": "clip_recognition",
    "search": "clip_search",
    "search_index": "clip_search",
    "suggest": "label_suggestions",
    "timeline": "timelines",
    "watch": "folder_watch",
}


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{FUNCTIONS[name]}", __name__), name)
