"""A timeline as files: CSV, JSON, WebVTT and SRT.

    Path("video.vtt").write_text(webvtt(segments), encoding="utf-8")

Times are seconds in CSV and JSON, to the millisecond everywhere. CSV and JSON hold every segment, those of none of the
classes with an empty label or null; captions hold the others alone.
"""

import csv
import io
import json
import re
from collections.abc import Sequence

from .segments import Segment
from .timelines import Timeline


CSV_COLUMNS = ("video", "start", "end", "label", "confidence")


def csv_text(found: Timeline) -> str:
    """One line a segment: video, start, end, label, confidence."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for start, end, label, confidence in found.segments:
        writer.writerow([found.video, f"{start:.3f}", f"{end:.3f}", label or "", f"{confidence:.4f}"])
    return stream.getvalue()


def json_text(found: Timeline) -> str:
    """Everything that is known of the timeline, segments as objects."""
    content = {
        "video": found.video,
        "duration": round(found.duration, 3),
        "window": found.window,
        "stride": found.stride,
        "classes": list(found.class_names),
        "switch_penalty": round(found.switch_penalty, 4),
        "remark": found.remark,
        "segments": [
            {
                "start": round(s.start, 3),
                "end": round(s.end, 3),
                "label": s.label,
                "confidence": round(s.confidence, 4),
            }
            for s in found.segments
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def webvtt(segments: Sequence[Segment]) -> str:
    """Captions for browsers and players."""
    cues = [
        f"{clock(start)}.{start % 1000:03d} --> {clock(end)}.{end % 1000:03d}\n{_escaped(text)}\n"
        for start, end, text in _cues(segments)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def srt(segments: Sequence[Segment]) -> str:
    """Captions for players, numbered from 1."""
    cues = [
        f"{number}\n{clock(start)},{start % 1000:03d} --> {clock(end)},{end % 1000:03d}\n{_without_markup(text)}\n"
        for number, (start, end, text) in enumerate(_cues(segments), start=1)
    ]
    return "\n".join(cues)


def clock(milliseconds: int) -> str:
    """Hours, minutes and seconds, 01:02:03, of a time in milliseconds; hours may have more digits."""
    seconds = milliseconds // 1000
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _cues(segments: Sequence[Segment]) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and text in one line, of each segment of a class."""
    timed = [(round(1000 * s.start), round(1000 * s.end), s) for s in segments if s.label is not None]
    return [
        (start, end, f"{' '.join(str(s.label).split())} ({100 * s.confidence:.0f} %)")
        for start, end, s in timed
        if end > start
    ]


def _escaped(text: str) -> str:
    """Text that WebVTT shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _without_markup(text: str) -> str:
    """Text in which no player of SRT, which has no escapes, finds tags, styles or an arrow."""
    return re.sub(r"<(?=[\w/!])", "< ", text).replace("{\\", "{ \\").replace("-->", "->")
