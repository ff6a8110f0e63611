"""Sound frames: what a damaged video shows is told apart from what was filmed."""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import av
import av.error
from av.video.frame import PictureType

from pipeline.video import VideoFile

_REORDERED = 16  # frames that a decoder may hold to put them in order, in H.264 and HEVC


def decode_frames(
    video: VideoFile,
    packets: Iterable[av.Packet] | None = None,
    *,
    is_wanted: Callable[[av.Packet], bool] | None = None,
    on_packet: Callable[[], None] | None = None,
) -> Iterator[tuple[float | None, av.VideoFrame | None]]:
    """Decode packet by packet; yield ``(time, frame)`` in presentation order, the frame None where it is lost.

    Lost is a frame whose packet is damaged, and every frame that may have been predicted from it, up to the next key
    frame: FFmpeg conceals the damage, and what it shows was never filmed. Decoders notice damage as far as the format
    lets them: nearly always in MPEG-4 and in H.264's baseline profiles, mostly in H.264 with arithmetic coding, and in
    HEVC, VP9 and AV1 where more than single bytes are wrong. A packet that is gone from the file is not yielded.

    Args:
        video: the open file.
        packets: those to decode, in order, from a picture on that needs none before it; all by default.
        is_wanted: says of a packet whether its frame is wanted. Others are not yielded where no frame is predicted
            from them, which saves decoding them. By default all are wanted.
        on_packet: called before every packet, as a sign of life.

    Raises:
        MemoryError: there is not enough for a frame.
        OSError: as ``VideoFile.packets``.
    """
    decoder = video.stream.codec_context
    sound = _SoundFrames(video.time_base, timed=video.timed, reordered=bool(decoder.has_b_frames))
    index, skipping = -1, False
    for index, packet in enumerate(video.packets() if packets is None else packets):
        if on_packet:
            on_packet()
        packet.opaque = index
        sound.expect(index, packet)
        if is_wanted and is_wanted(packet) == skipping:
            skipping = not skipping
            decoder.skip_frame = "NONREF" if skipping else "DEFAULT"
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
    if skipping:
        decoder.skip_frame = "DEFAULT"  # as whoever goes on with this decoder expects it
    with suppress(av.error.FFmpegError):
        for frame in decoder.decode(None):
            sound.receive(_source(frame, index), frame)
    yield from sound.release(all_frames=True)


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
        self._expected: dict[int, int | None] = {}  # packets, in order, whose frames are still to come: their times
        self._held: deque[tuple[int, av.VideoFrame | None]] = deque()
        self._lost: list[int] = []  # times of frames that will never come, in order
        self._damaged: list[int] = []  # packets, in order, behind the newest sound key frame
        self._key = -1  # packet of that key frame

    def expect(self, index: int, packet: av.Packet) -> None:
        """A packet whose frame will be shown, unless an edit list hides it."""
        if not packet.is_discard:
            self._expected[index] = packet.pts

    def damage(self, index: int) -> None:
        """A packet whose frame, and all that is predicted from it, is not what was filmed."""
        insort(self._damaged, index)

    def lose(self, index: int, packet: av.Packet) -> None:
        """A packet that nothing can be made of."""
        self.damage(index)
        if index not in self._expected:
            return
        if (pts := self._expected.pop(index)) is None or not self._timed:
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
            yield time, frame if self._is_sound(index, frame) else None
        if all_frames:
            yield from self._lost_before(None)

    def _lost_before(self, pts: int | None) -> Iterator[tuple[float, None]]:
        while self._lost and (pts is None or self._lost[0] < pts):
            yield self._lost.pop(0) * self._time_base, None

    def _is_sound(self, index: int, frame: av.VideoFrame) -> bool:
        if index < self._unplaced:
            return False
        place = bisect_right(self._damaged, index)
        damaged = self._damaged[place - 1] if place else -1
        if frame.key_frame and damaged < index and frame.pict_type != PictureType.P:  # P: the first of a slow refresh
            self._key = index
            del self._damaged[:place]
            return True
        return damaged <= self._key
