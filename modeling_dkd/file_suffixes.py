"""How the names of video and image files end that are read here."""

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "ivf", "m2t", "m2ts"),
        *("m2v", "m4v", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut", "ogv"),
        *("qt", "rm", "ts", "vob", "webm", "wmv", "wtv", "y4m"),
    )
)
IMAGE_SUFFIXES = frozenset({".apng", ".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
