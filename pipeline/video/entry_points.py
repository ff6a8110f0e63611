"""Entry points: where a file may be entered in its middle so that the frames are those of a full read.

Flags of containers and recovery points do not tell: behind a wrong flag, or in an open group, frames are predicted from
others before the entry. So a group of frames begins only with a picture that the bitstream itself calls independent
(IDR in H.264), which everything before it precedes in presentation, and nothing behind it does.
"""

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from math import inf

import av
import numpy as np

from dynaprop.pipeline.video.container import VideoFile
from dynaprop.pipeline.video.h264 import INDEPENDENT, H264Stream


@dataclass(frozen=True)
class Group:
    """Packets that can be decoded without any before them."""

    packet: int
    """Number of the first one, in the order of decoding."""
    time: float
    """Presentation time of its first frame, seconds; minus infinity for the first group."""


_WHOLE = (Group(0, -inf),)
_WORTH_WHILE = 0.8  # of the packets; looking for groups takes some hundredths of what decoding does


def closed_groups(video: VideoFile, *, on_packet: Callable[[], None] | None = None) -> tuple[Group, ...]:
    """The groups of a file, in order; one alone where there is no proof of more.

    Args:
        video: the file, which is read to its end.
        on_packet: called after every packet, as a sign of life.
    """
    h264 = H264Stream(video.stream.codec_context.extradata)
    pts: list[int | None] = []
    independent = []
    for packet in video.packets():
        pts.append(packet.pts)
        independent.append(h264.look(packet) == INDEPENDENT)
        if on_packet:
            on_packet()
    if not pts or None in pts or not (h264.steady and h264.progressive) or h264.oriented:
        return _WHOLE
    ticks = np.array(pts, np.int64)
    before = np.maximum.accumulate(ticks)[:-1]
    from_here = np.minimum.accumulate(ticks[::-1])[::-1][1:]
    is_entry = np.array(independent[1:], bool) & (before < from_here) & (from_here == ticks[1:])
    return (*_WHOLE, *(Group(int(n), float(ticks[n]) * video.time_base) for n in np.flatnonzero(is_entry) + 1))


def may_save(video: VideoFile, times: Sequence[float]) -> bool:
    """Whether leaving out what closed groups do not need may save a fifth of the packets, going by the index.

    Other containers than mp4 know their key frames only when they have been read.

    Args:
        video: the file.
        times: of the wanted frames, seconds, rising.
    """
    if video.codec != "h264" or "mov" not in video.formats:
        return False
    entries = [(entry.timestamp * video.time_base, entry.is_keyframe) for entry in video.stream.index_entries or ()]
    entries = [entry for entry in entries if entry[0] <= times[-1]]
    keys = [place for place, (_, is_key) in enumerate(entries) if is_key]
    needed = 0
    for begin, end in pairwise([*keys, len(entries)]):
        after = bisect_left(times, entries[end][0] if end < len(entries) else inf)
        last = times[after - 1] if after else -inf
        needed += sum(time <= last for time, _ in entries[begin:end])
    return needed < _WORTH_WHILE * len(entries)


def wanted_groups(
    video: VideoFile, groups: Sequence[Group], times: Sequence[float], *, on_packet: Callable[[], None] | None = None
) -> Iterator[tuple[float, Iterator[av.Packet]]]:
    """Yield ``(last, packets)`` of each group that holds wanted frames: the last one's time, and what to decode.

    Args:
        video: the file, at its beginning.
        groups: from ``closed_groups``.
        times: of the wanted frames, seconds, rising.
        on_packet: called after every packet that is passed over, as a sign of life.
    """
    packets = video.packets()
    half_a_tick = video.time_base / 2
    for group, following in pairwise([*groups, Group(sys.maxsize, inf)]):
        first, after = (bisect_left(times, end.time - half_a_tick) for end in (group, following))
        own = islice(packets, following.packet - group.packet)
        if first < after:
            yield times[after - 1], own
        if after == len(times):
            return
        for _ in own:
            if on_packet:
                on_packet()
