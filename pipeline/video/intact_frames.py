"""Sound frames: what a damaged video shows is told apart from what was filmed."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import av
import av.error
from av.video.frame import PictureType

from dynaprop.pipeline.video.container import VideoFile
from dynaprop.pipeline.video.h264 import DEPENDENT, DISPOSABLE, H264Stream

SAME = 1e-4  # seconds: times that differ by less are one frame's
_REORDERED = 16  # frames that a decoder may hold to put them in order, in H.264 and HEVC


def decode_frames(
    video: VideoFile,
    packets: Iterable[av.Packet] | None = None,
    *,
    wanted: Sequence[float] | None = None,
    on_packet: Callable[[], None] | None = None,
) -> Iterator[tuple[float | None, av.VideoFrame | None]]:
    """Decode packet by packet; yield ``(time, frame)`` in presentation order, the frame None where it is lost.

    Lost is a frame whose packet is damaged, and every frame that may have been predicted from it, up to the next key
    frame: FFmpeg conceals the damage, and what it shows was never filmed. Decoders notice damage as far as the format
    lets them: nearly always in MPEG-4 and in H.264's baseline profiles, mostly in H.264 with arithmetic coding, and in
    HEVC, VP9 and AV1 where more than single bytes are wrong. A packet that is gone from the file is not yielded, nor is
    a lost frame from before the first key frame: it was cut off.

    Args:
        video: the open file.
        packets: those to decode, in order, from a picture on that needs none before it; all by default.
        wanted: times in seconds, rising: other frames are left out where H.264 says that none is predicted from them.
        on_packet: called before every packet, as a sign of life.

    Raises:
        MemoryError: there is not enough for a frame.
        OSError: as ``VideoFile.packets``.
    """
    decoder = video.stream.codec_context
    h264 = H264Stream(decoder.extradata) if video.codec == "h264" else None
    sound = _SoundFrames(video.time_base, timed=video.timed, reordered=bool(decoder.has_b_frames))
    index = -1
    for index, packet in enumerate(video.packets() if packets is None else packets):
        if on_packet:
            on_packet()
        picture = h264.look(packet) if h264 else DEPENDENT
        disposable = h264 is not None and h264.progressive and picture == DISPOSABLE
        if disposable and wanted is not None and video.timed and not _is_among(packet, video.time_base, wanted):
            continue
        packet.opaque = index
        if packet.is_keyframe or (index == 0 and picture is None):  # what cannot be read is damaged, and not cut off
            sound.enter(packet)
        sound.expect(index, packet, disposable=disposable)
        frames: list[av.VideoFrame] = []
        if packet.is_corrupt:
            sound.damage(index)  # it is decoded all the same: without it others would come in another order
        try:
            frames = decoder.decode(packet)
        except MemoryError:  # FFmpeg's is one, too
            raise
        except av.error.FFmpegError:
            sound.lose(index, packet)
        for frame in frames:
            sound.receive(_source(frame, index), frame)
        yield from sound.release()
    with suppress(av.error.FFmpegError):
        for frame in decoder.decode(None):
            sound.receive(_source(frame, index), frame)
    yield from sound.release(all_frames=True)


def _is_among(packet: av.Packet, time_base: float, times: Sequence[float]) -> bool:
    """Whether a packet's frame is shown at one of these times, or does not say when."""
    if packet.pts is None:
        return True
    time = packet.pts * time_base
    place = bisect_left(times, time - SAME)
    return place < len(times) and times[place] < time + SAME


def _source(frame: av.VideoFrame, newest: int) -> int:
    """Number of the packet that a frame comes from; the newest one's where the decoder has lost it."""
    return frame.opaque if isinstance(frame.opaque, int) else newest


class _SoundFrames:
    """Frames in the decoder's order, held until all that they may be predicted from has come out sound, or has not.

    Args:
        time_base: seconds a tick of the stream.
        timed: whether the times of packets are those of presentation.
        reordered: whether frames come in another order than their packets.
    """

    def __init__(self, time_base: float, *, timed: bool, reordered: bool) -> None:
        self._time_base = time_base
        self._timed = timed
        self._reordered = reordered
        self._unplaced = -1  # newest packet whose lost frame may belong before frames of earlier packets
        self._entered = False
        self._begin: int | None = None  # time of the first key frame
        self._expected: dict[int, int | None] = {}  # packets, in order, whose frames are still to come: their times
        self._held: deque[tuple[int, av.VideoFrame | None]] = deque()
        self._lost: list[int] = []  # times of frames that will never come, in order
        self._damaged: list[int] = []  # packets, in order, behind the newest sound key frame
        self._disposable: set[int] = set()  # packets of frames to come, from which none is predicted
        self._damaged_alone: set[int] = set()  # those of them that are damaged
        self._key = -1  # packet of the newest sound key frame

    def enter(self, packet: av.Packet) -> None:
        """A packet before whose frame all that is lost was cut off, if it is the first such."""
        if not self._entered:
            self._entered, self._begin = True, packet.pts

    def expect(self, index: int, packet: av.Packet, *, disposable: bool) -> None:
        """A packet whose frame will be shown, unless an edit list hides it."""
        if disposable:
            self._disposable.add(index)
        if not packet.is_discard:
            self._expected[index] = packet.pts

    def damage(self, index: int) -> None:
        """A packet whose frame, and all that is predicted from it, is not what was filmed."""
        if index in self._disposable:
            self._damaged_alone.add(index)
        else:
            insort(self._damaged, index)

    def lose(self, index: int, packet: av.Packet) -> None:
        """A packet that nothing can be made of."""
        self.damage(index)
        if index not in self._expected:
            return
        if (pts := self._expected.pop(index)) is None or not self._timed:
            if self._entered:
                self._held.append((index, None))
            self._unplaced = index if self._reordered else -1
        else:
            insort(self._lost, pts)

    def receive(self, index: int, frame: av.VideoFrame) -> None:
        """A frame and its packet."""
        self._expected.pop(index, None)
        for other, pts in list(self._expected.items()):
            passed = pts is not None and frame.pts is not None and pts <= frame.pts
            if passed or other < index - _REORDERED:  # its frame will not come: some packets have none
                del self._expected[other]
        if frame.is_corrupt:
            self.damage(index)
        self._held.append((index, frame))

    def release(self, *, all_frames: bool = False) -> Iterator[tuple[float | None, av.VideoFrame | None]]:
        """Yield what need not be held any longer."""
        while self._held and (all_frames or next(iter(self._expected), self._held[0][0]) >= self._held[0][0]):
            index, frame = self._held.popleft()
            if frame is None:
                yield None, None
                continue
            yield from self._lost_before(frame.pts)
            time = None if frame.pts is None else frame.pts * self._time_base  # flushed frames know no time base
            if self._is_sound(index, frame):
                yield time, frame
            elif not self._is_cut_off(frame.pts):
                yield time, None
        if all_frames:
            yield from self._lost_before(None)

    def _lost_before(self, pts: int | None) -> Iterator[tuple[float, None]]:
        while self._lost and (pts is None or self._lost[0] < pts):
            lost = self._lost.pop(0)
            if not self._is_cut_off(lost):
                yield lost * self._time_base, None

    def _is_cut_off(self, pts: int | None) -> bool:
        """Whether a lost frame belongs to what is no longer there before the first key frame."""
        return not self._entered or (pts is not None and self._begin is not None and pts < self._begin)

    def _is_sound(self, index: int, frame: av.VideoFrame) -> bool:
        self._disposable.discard(index)
        if index < self._unplaced or index in self._damaged_alone:
            return False
        place = bisect_right(self._damaged, index)
        damaged = self._damaged[place - 1] if place else -1
        if frame.key_frame and damaged < index and frame.pict_type != PictureType.P:  # P: the first of a slow refresh
            self._key = index
            del self._damaged[:place]
            return True
        return damaged <= self._key
