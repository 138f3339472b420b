"""What the site makes of a page that reads without it: the docstrings where api.md names them."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A comment `api: NAME` becomes the docstring of that name, for mkdocstrings."""
    return re.sub(r"<!-- api: (\S+) -->", r"::: \1", markdown)
