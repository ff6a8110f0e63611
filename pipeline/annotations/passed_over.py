"""What lies among videos and is none: folders of systems, leftovers of downloads, files that only look like videos."""

import re
from collections import Counter
from collections.abc import Collection, Iterable

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".3gp", ".flv", ".wmv", ".ogv"),
)

# Bins, thumbnails, snapshots and lost files of systems and network disks; hidden folders are passed over anyway.
_SYSTEM_FOLDERS = frozenset(
    {
        *("$recycle.bin", "system volume information", "found.000", "msocache", "config.msi"),  # Windows
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),  # macOS
        *("lost+found", "lost.dir"),  # Linux, Android
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin"),  # Synology
        *("@recycle", "@recently-snapshot", "@__thumb"),  # QNAP
        *("~snapshot", "__pycache__"),
    }
)
_OLD_BINS = frozenset({"RECYCLER", "RECYCLED", "Recycler", "Recycled"})  # in small letters a class may be called so

_LOOK_ALIKES = (
    *(".gif", ".vob", ".mxf", ".rm", ".rmvb", ".asf", ".m1v", ".m2v", ".m2p", ".m2t", ".divx", ".xvid", ".f4v", ".3g2"),
    *(".ogm", ".mpe", ".mpv", ".mp4v", ".dv", ".mod", ".tod", ".y4m", ".yuv", ".h264", ".264", ".h265", ".265"),
    *(".hevc", ".ivf", ".qt", ".wtv", ".dvr-ms", ".amv", ".nut", ".mjpeg", ".mjpg", ".mj2", ".tp", ".trp", ".vro"),
    *(".evo", ".bik", ".lrv", ".insv", ".braw", ".r3d"),
)
_UNFINISHED = (
    *(".part", ".partial", ".crdownload", ".download", ".opdownload", ".unconfirmed", ".tmp"),
    *(".ytdl", ".aria2", ".!qb", ".!ut", ".bc!"),
)
_BESIDE = (".aria2", ".ytdl")  # of a file that has its last name already
# What yt-dlp leaves of a download that was stopped: one stream of a video, and what is being joined. A person may call
# his videos so, too; but then the other stream, a part, or what the streams are joined into do not lie beside them.
_STREAM = re.compile(r"(?P<stem>.+)\.(?:f[0-9]{2,3}(?:-[0-9]+)?|temp)\.(?P<kind>mp4|webm|mkv|m4a)", re.IGNORECASE)
_LEFTOVER = "unfinished download"


def is_video_name(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def is_passed_folder(name: str) -> bool:
    """Whether a folder is a system's or a browser's own, so that nothing in it is a video of the user's."""
    lower = name.lower()
    return lower in _SYSTEM_FOLDERS or name in _OLD_BINS or lower.endswith((".download", ".crdownload"))


def passed_kind(name: str, beside: Collection[str]) -> str | None:
    """As what a file is counted that looks like a video and is none; None of videos and of all other files.

    Args:
        name: of the file.
        beside: names of the files in its folder: downloaders mark a video that is not whole by a file beside it.
    """
    lower = name.lower()
    if lower.endswith(VIDEO_SUFFIXES):
        stopped = _is_stream(name, beside) or any(name + ending in beside for ending in _BESIDE)
        return _LEFTOVER if stopped else None
    if lower.endswith(_LOOK_ALIKES):
        return lower[lower.rindex(".") :]
    unfinished = next((ending for ending in _UNFINISHED if lower.endswith(ending)), None)
    return _LEFTOVER if unfinished and is_video_name(name[: -len(unfinished)]) else None


def _is_stream(name: str, beside: Collection[str]) -> bool:
    stream = _STREAM.fullmatch(name)
    if stream is None:
        return False
    stem = stream["stem"]
    for other in beside:
        if other == name or not other.startswith(f"{stem}."):
            continue
        second = _STREAM.fullmatch(other)
        joined = any(other == stem + suffix for suffix in VIDEO_SUFFIXES)
        if joined or other.lower().endswith((".part", ".ytdl")):
            return True
        if second and second["stem"] == stem and (second["kind"].lower() in ("m4a", "webm") or "temp" in name + other):
            return True
    return False


def describe_passed(kinds: Iterable[str]) -> str:
    """One line about files that were passed over, from the ``passed_kind`` of each; empty where there are none."""
    counts = Counter(kinds)
    if not counts:
        return ""
    total = counts.total()
    said = ", ".join(
        f"{count:,} {kind}{'s' if kind == _LEFTOVER and count > 1 else ''}"
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
    are = "file is" if total == 1 else "files are"
    return f"{total:,} {are} passed over: {said} (known extensions: {' '.join(VIDEO_SUFFIXES)})"
