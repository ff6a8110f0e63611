"""Bad and odd videos, as data sets from the internet bring them; what is expected of each stands in corpus.yaml.

Every frame carries its number, so that a test can tell which frame it was given. No file is stored: encoders make them,
and byte surgery spoils them.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.pipeline.coded_frames import draw, encode, packet_places

FPS = 10
FRAMES = 60
VFR = [10 * i for i in range(30)] + [1000 * i for i in range(1, 8)]
"""ms: a burst of 30 frames, then one a second."""
X265 = {"x265-params": "log-level=0"}
OPEN_GOP = {"bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
B_FRAMES = {"bf": "3", "x264-params": "b-adapt=0:scenecut=0:bframes=3"}
BASELINE = {"coder": "cavlc", "profile": "baseline"}
FASTSTART = {"movflags": "faststart"}

Shown = list[tuple[float, int]]
"""What a right player shows: seconds since the first frame, and the frame's number."""


@dataclass(frozen=True)
class Case:
    """One file of the corpus."""

    build: Callable[[Path], object]
    shown: Shown
    grey: bool = False
    """A frame of few pixels, whose number is its grey level."""


def steady(numbers: range | list[int] = range(FRAMES)) -> Shown:
    """These frames at a constant rate."""
    return [(index / FPS, number) for index, number in enumerate(numbers)]


CASES: dict[str, Case] = {}


def add(name: str, build: Callable[[Path], object], shown: Shown | None = None, *, grey: bool = False) -> None:
    CASES[name] = Case(build, steady() if shown is None else shown, grey)


def add_encoded(name: str, shown: Shown | None = None, *, grey: bool = False, **options: object) -> None:
    add(name, lambda path: encode(path, **options), shown, grey=grey)  # type: ignore[arg-type]


def build_corpus(root: Path) -> dict[str, Path]:
    """Write all files into a folder; return them by the name of their case."""
    root.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, case in CASES.items():
        paths[name] = root / name
        case.build(paths[name])
    return paths


# What encoders make.

add_encoded("plain.mp4")
add_encoded("plain.mkv")
add_encoded("baseline.mp4", options=BASELINE)
add_encoded("b-frame-delay.mp4", options={"bf": "7", "g": "30", "x264-params": "b-pyramid=normal:b-adapt=0"})
add_encoded("one-frame.mp4", steady([0]), frames=1)
add_encoded("two-frames.mp4", steady([0, 1]), frames=2)
add_encoded("variable-rate.mp4", [(ms / 1000, n) for n, ms in enumerate(VFR)], frames=len(VFR), fps=1000, times=VFR)
add_encoded("variable-rate.mkv", [(ms / 1000, n) for n, ms in enumerate(VFR)], frames=len(VFR), fps=1000, times=VFR)
add_encoded("open-gop.mp4", options=OPEN_GOP)
add_encoded("fragmented.mp4", form_options={"movflags": "frag_keyframe+empty_moov"})
add_encoded("transport-stream.ts")
add_encoded("program-stream.mpg", [(n / 25, n) for n in range(60)], fps=25, codec="mpeg2video", options={"bf": "2"})
add_encoded("no-duration.webm", codec="libvpx", seekable=False)
add_encoded("vp8-hidden-frames.webm", codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "25"})
for degrees in (90, 180, 270):
    add_encoded(f"rotation-{degrees}.mp4", rotation=degrees, size=(80, 48))
add_encoded("rotation-90-odd-size.mov", rotation=90, size=(63, 47), codec="mpeg4")
add_encoded("odd-size.mp4", size=(63, 47), pix_fmt="yuv444p")
add_encoded("odd-size.avi", size=(63, 47), codec="mpeg4")
add_encoded("one-pixel.mp4", size=(1, 1), pix_fmt="yuv444p", grey=True)
add_encoded("one-pixel.mkv", size=(1, 1), pix_fmt="yuv444p", codec="ffv1", grey=True)
add_encoded("ten-bit.mp4", pix_fmt="yuv420p10le")
add_encoded("ten-bit-hevc.mp4", pix_fmt="yuv420p10le", codec="libx265", options=X265)
add_encoded("yuv444.mp4", pix_fmt="yuv444p")
add_encoded("grey.mp4", pix_fmt="gray")
add_encoded("alpha.webm", codec="libvpx-vp9", pix_fmt="yuva420p")
add_encoded("alpha.mov", codec="qtrle", pix_fmt="argb")
add_encoded("interlaced.ts", options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
add_encoded("anamorphic.mp4", pixel_aspect=Fraction(4, 3))
add_encoded("hevc.mp4", codec="libx265", options=X265)
add_encoded("vp9.webm", codec="libvpx-vp9")
add_encoded("av1.mp4", codec="libsvtav1", options={"svtav1-params": "lp=1"})
add_encoded("mpeg4-asp.avi", codec="mpeg4", options={"bf": "2"})
add_encoded("mpeg4-asp.mp4", codec="mpeg4", options={"bf": "2"})
add_encoded("mjpeg.avi", codec="mjpeg", pix_fmt="yuvj420p")
add_encoded("gif-inside.mp4", codec="gif", pix_fmt="gray", form="gif")
add_encoded("prores.mov", codec="prores_ks", pix_fmt="yuv422p10le")
add_encoded("h263.3gp", codec="h263", size=(176, 144))
add_encoded("flv1.flv", codec="flv")
add_encoded("wmv2.wmv", codec="wmv2", form="asf")
add_encoded("h264-b-frames.avi", options={"bf": "2"})
add_encoded("annex-b-inside.mp4", [(n / 25, n) for n in range(FRAMES)], form="h264", options={"bf": "2"})

# AVI stands still by chunks without data.
PAUSES = [100 * n + 2000 * (n >= 10) for n in range(20)]
add_encoded(
    "pauses.avi", [(ms / 1000, n) for n, ms in enumerate(PAUSES)], codec="mpeg4", frames=20, fps=1000, times=PAUSES
)

# Names.

for awkward in (
    "with spaces and 'quotes'.mp4",
    "видео 動画 é.mp4",
    "line\nbreak.mp4",
    "-rf.mp4",
    "%03d.mp4",
    "concat:a|b.mp4",
    "http:..mp4",
):
    add_encoded(awkward)


# What is no video at all.


def _playlist(text: str) -> Callable[[Path], object]:
    """A text that leads elsewhere: whoever follows it waits at a pipe for ever."""

    def write(path: Path) -> None:
        trap = path.parent.parent / "trap"
        if not trap.exists():
            os.mkfifo(trap)
        path.write_text(text.format(trap=trap))

    return write


def _sound_only(path: Path, *, cover: bool = False) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            container.mux(picture.encode())
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


add("empty.mp4", lambda path: path.touch(), [])
add("text.mp4", lambda path: path.write_text("no video at all\n" * 100), [])
add("html.mp4", lambda path: path.write_text("<!DOCTYPE html><title>Video unavailable</title>\n" * 50), [])
add("directory.mp4", lambda path: path.mkdir(), [])
add("dangling-link.mp4", lambda path: path.symlink_to("nowhere.mp4"), [])
add("link-to-itself.mp4", lambda path: path.symlink_to(path.name), [])
add("pipe.mp4", lambda path: os.mkfifo(path), [])
add("device.mp4", lambda path: path.symlink_to("/dev/zero"), [])
add("kernel-file.mp4", lambda path: path.symlink_to("/proc/self/mem"), [])
add("audio-only.mp4", _sound_only, [])
add("cover-art-only.mp4", lambda path: _sound_only(path, cover=True), [])
add("m3u8.mp4", _playlist("#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{trap}\n#EXT-X-ENDLIST\n"), [])
add("ffconcat.mp4", _playlist("ffconcat version 1.0\nfile '{trap}'\n"), [])
add("dash.mp4", _playlist('<?xml version="1.0"?><MPD><Period><BaseURL>{trap}</BaseURL></Period></MPD>\n'), [])
add("sdp.mp4", _playlist("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"), [])


def _with_companions(path: Path) -> None:
    """Sound before the picture, a second camera behind it, which shows other numbers; in mp4 a cover, too."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cameras = [container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"}) for _ in range(2)]
        if path.suffix == ".mp4":
            cameras.append(container.add_stream("mjpeg", rate=1))
            cameras[-1].disposition = av.stream.Disposition.attached_pic
        for camera in cameras:
            camera.width, camera.height = 64, 48
            camera.pix_fmt = "yuvj420p" if camera.codec.name == "mjpeg" else "yuv420p"
        for number in range(FRAMES):
            for shift, camera in zip((0, 100, 200), cameras, strict=False):
                if shift < 200 or number == 0:
                    picture = draw(number + shift, (64, 48), rng)
                    container.mux(camera.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1600 * number
            container.mux(sound.encode(frame))
        for stream in (sound, *cameras):
            container.mux(stream.encode())


add("sound-cover-and-two-cameras.mp4", _with_companions)
add("sound-and-two-cameras.mkv", _with_companions)


# What byte surgery makes.


def _spoilt(surgery: Callable[[bytearray, Path], object], **options: object) -> Callable[[Path], object]:
    """Encode, then change the bytes in place; surgery is told the path, for ``packet_places``."""

    def build(path: Path) -> None:
        encode(path, **options)  # type: ignore[arg-type]
        data = bytearray(path.read_bytes())
        surgery(data, path)
        path.write_bytes(data)

    return build


def _cut_after(frames: int) -> Callable[[bytearray, Path], object]:
    """End the file in the middle of frame number ``frames``."""

    def cut(data: bytearray, path: Path) -> None:
        position, size = packet_places(path)[frames]
        del data[position + size // 2 :]

    return cut


def _cut_header(part: float) -> Callable[[bytearray, Path], object]:
    def cut(data: bytearray, _: Path) -> None:
        del data[int(data.find(b"mdat") * part) :]

    return cut


def _zero(first: int, beyond: int) -> Callable[[bytearray, Path], object]:
    """Zero the data of some packets."""

    def zero(data: bytearray, path: Path) -> None:
        for position, size in packet_places(path)[first:beyond]:
            data[position : position + size] = bytes(size)

    return zero


def _flip(*packets: int) -> Callable[[bytearray, Path], object]:
    """Turn all bits of the last four fifths of some packets."""

    def flip(data: bytearray, path: Path) -> None:
        places = packet_places(path)
        for position, size in (places[packet] for packet in packets):
            for index in range(position + size // 5, position + size):
                data[index] ^= 0xFF

    return flip


def _scatter(data: bytearray, path: Path) -> None:
    """Change 20 bytes anywhere in the frames, as a failing disk does."""
    places = packet_places(path)
    rng = np.random.default_rng(0)
    for index in rng.integers(places[15][0], sum(places[-1]), 20):
        data[index] ^= int(rng.integers(1, 255))


def _boxes(data: bytearray, name: bytes) -> list[int]:
    """Where the contents of all boxes of a name begin."""
    found, position = [], data.find(name)
    while position >= 0:
        found.append(position + 4)
        position = data.find(name, position + 1)
    return found


def _set_durations(factor: int) -> Callable[[bytearray, Path], object]:
    """Multiply every duration that an mp4's headers give (version 0)."""

    def change(data: bytearray, _: Path) -> None:
        for name, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
            for box in _boxes(data, name):
                (duration,) = struct.unpack_from(">I", data, box + offset)
                struct.pack_into(">I", data, box + offset, duration * factor)
        for box in _boxes(data, b"elst"):
            data[box - 4 : box] = b"free"

    return change


def _end_the_edit(seconds: float) -> Callable[[bytearray, Path], object]:
    """An edit list that shows only the beginning, as phones cut."""

    def change(data: bytearray, _: Path) -> None:
        (box,) = _boxes(data, b"elst")
        struct.pack_into(">I", data, box + 8, int(seconds * 1000))  # in units of the movie's time scale

    return change


def _huge_header(data: bytearray, _: Path) -> None:
    """7680 x 4320 in the headers of a small H.264 video, whose own headers know better."""
    for box in _boxes(data, b"tkhd"):
        struct.pack_into(">II", data, box + 76, 7680 << 16, 4320 << 16)
    for box in _boxes(data, b"avc1")[:1]:
        struct.pack_into(">HH", data, box + 24, 7680, 4320)


def _huge_frame(data: bytearray, _: Path) -> None:
    """65500 x 65500 in an AVI of raw H.263+ pictures: more than any memory."""
    begin = data.find(b"strf") + 8
    struct.pack_into("<ii", data, begin + 4, 65500, 65500)


def _drop_middle(data: bytearray, _: Path) -> None:
    """Lose part of a transport stream, in whole packets of 188 bytes."""
    n_packets = len(data) // 188
    del data[n_packets * 2 // 5 * 188 : n_packets * 3 // 5 * 188]


def _copy_from(key: int, shown_from: int, **options: object) -> Callable[[Path], object]:
    """Copy packets without decoding, from the key frame of this number on, as ``ffmpeg -ss -c copy`` does."""

    def build(path: Path) -> None:
        source = path.with_name(f".source{path.suffix}")
        encode(source, **options)  # type: ignore[arg-type]
        with av.open(str(source)) as old, av.open(str(path), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            shift = round(shown_from / FPS / old.streams.video[0].time_base)
            packets = [packet for packet in old.demux(video=0) if packet.size]
            start, begun = packets[0].pts, False
            for packet in packets:
                begun = begun or round((packet.pts - start) * packet.time_base * FPS) == key
                if begun:
                    packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                    new.mux(packet)
        source.unlink()

    return build


def _concatenated(path: Path) -> None:
    """Two recordings in one file: time and size begin anew in the middle."""
    first, second = path.with_name(".first.ts"), path.with_name(".second.ts")
    encode(first)
    encode(second, size=(96, 64))
    path.write_bytes(first.read_bytes() + second.read_bytes())
    first.unlink()
    second.unlink()


for kept in (0, 6, 15, 24, 29, 31, 36, 45, 54, 59):
    add(f"truncated-after-{kept:02d}.mp4", _spoilt(_cut_after(kept), form_options=FASTSTART))
add("truncated-header.mp4", _spoilt(_cut_header(0.5), form_options=FASTSTART), [])
add("truncated-without-index.mp4", _spoilt(_cut_after(40)), [])
add("truncated.mkv", _spoilt(_cut_after(40)))
add("truncated.avi", _spoilt(_cut_after(40), codec="mpeg4"))
add("truncated.ts", _spoilt(lambda data, _: data.__delitem__(slice(len(data) * 2 // 3, None))))
add("truncated-fragment.mp4", _spoilt(_cut_after(40), form_options={"movflags": "frag_keyframe+empty_moov"}))
add("flipped-in-a-few.mp4", _spoilt(_flip(25, 52), options=BASELINE))
add("flipped-key-frames.mp4", _spoilt(_flip(10, 20, 30, 40), options=BASELINE))
add("zeroed-p-frame.mp4", _spoilt(_zero(21, 22), options=B_FRAMES))
add("flipped.avi", _spoilt(_flip(14, 37), codec="mpeg4", options={"g": "12"}))
add("flipped.mkv", _spoilt(_flip(25, 52), options=BASELINE))
add("scattered.mp4", _spoilt(_scatter, options=BASELINE))
add("zeroed-tail.mp4", _spoilt(_zero(42, FRAMES)))
add("zeroed-tail.avi", _spoilt(_zero(42, FRAMES), codec="mpeg4", options={"g": "12"}))
add("zeroed-tail.hevc.mp4", _spoilt(_zero(42, FRAMES), codec="libx265", options=X265))
add("zeroed-head.mp4", _spoilt(_zero(0, 8)))
add("zeroed-all.mp4", _spoilt(_zero(0, FRAMES)), [])
add("zero-duration.mp4", _spoilt(_set_durations(0)))
add("lying-duration.mp4", _spoilt(_set_durations(100)))
add("edit-list-start.mp4", _copy_from(20, 25), steady(range(25, FRAMES)))
add("edit-list-end.mp4", _spoilt(_end_the_edit(3.0)), steady(range(30)))
add("open-gop-cut.ts", _copy_from(20, 0, options=OPEN_GOP), steady(range(20, FRAMES)))
add("transport-stream-gap.ts", _spoilt(_drop_middle))
add("concatenated.ts", _concatenated, steady([*range(FRAMES), *range(FRAMES)]))
add("header-8k.mp4", _spoilt(_huge_header))
add("header-65500.avi", _spoilt(_huge_frame, codec="h263", size=(176, 144)))
add("headless.mp4", _spoilt(lambda data, _: data.__delitem__(slice(0, 20))), [])
