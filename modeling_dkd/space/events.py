"""What all tabs of the page share in their events."""

from typing import Any


SESSION_SECONDS = 3600
VIDEO_TYPES = ["video", ".avi", ".gif", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".webm", ".wmv"]
# What works with the model waits in one line.
WITH_MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}

Outputs = tuple[Any, ...]  # of an event, in the order of its components
