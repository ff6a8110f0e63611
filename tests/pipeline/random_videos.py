"""Random videos: the files that the recipes ask for, encoded, cut and muxed by PyAV, one after another."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.pipeline.coded_frames import DARK, LIGHT, draw
from tests.pipeline.field_coded import Coded, code_frames
from tests.pipeline.random_kinds import MOV
from tests.pipeline.random_recipes import Recipe

_ENDINGS = {"matroska": "mkv", "mpegts": "ts", "mpeg": "mpg", "mpeg1video": "m1v", "mpeg2video": "m2v", "asf": "wmv"}
_OTHER = 100  # what is added to the numbers of another stream's frames
_FIELD_GROUP = 12

_Packets = Callable[[], list[av.Packet]]
"""To be called when all streams of the file are known."""


def build_video(recipe: Recipe, folder: Path) -> Path:
    """Write the file of a recipe."""
    path = folder / f"{recipe.number:04d}.{_ENDINGS.get(recipe.form, recipe.form)}"
    with av.open(str(path), "w", format=recipe.form, options=_form_options(recipe)) as out:
        before = [_decoy(out, recipe)] if recipe.stream else []
        packets = _video(out, recipe)
        behind = [_decoy(out, recipe)] if recipe.decoy in ("second", "cover") else []
        if recipe.decoy == "default":
            out.streams[0].disposition = av.stream.Disposition(0)
            out.streams[1].disposition = av.stream.Disposition.default
        streams = [[*make()] for make in (*before, packets, *behind)]
        streams[recipe.stream] = _edited(streams[recipe.stream], recipe)
        for packet in sorted((one for stream in streams for one in stream), key=lambda one: one.dts * one.time_base):
            out.mux(packet)
    if recipe.kind.disguise:
        path.write_bytes(_unmasked(path.read_bytes(), recipe))
    if recipe.cut == "bytes":
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * (0.3 + 0.7 * recipe.place))])
    return path


def _form_options(recipe: Recipe) -> dict[str, str]:
    options = {"fflags": "+bitexact"} | dict(recipe.form_options)
    if recipe.form in (*MOV, "3gp"):
        if recipe.cut == "bytes":
            options.setdefault("movflags", "faststart")
        if recipe.start == "no-list":
            options["use_editlist"] = "0"
    return options


def _video(out: av.container.OutputContainer, recipe: Recipe) -> _Packets:
    rng = np.random.default_rng(recipe.number)
    pictures = [
        np.ascontiguousarray(recipe.orientation.code(draw(number, recipe.size, rng))) for number in range(recipe.frames)
    ]
    if recipe.kind.fields:
        return _field_coded(out, recipe, pictures)
    if recipe.kind.disguise:
        return _disguised(out, recipe, pictures)
    return _encoded(out, recipe, pictures)


def _encoded(out: av.container.OutputContainer, recipe: Recipe, pictures: list[np.ndarray]) -> _Packets:
    """By an encoder of this very container, as its headers want it."""
    options = {"threads": "1"} | {key: str(value) for key, value in recipe.options.items()}
    stream = out.add_stream(recipe.kind.codec, rate=recipe.rate, options=options)
    stream.height, stream.width = pictures[0].shape[:2]
    stream.pix_fmt = recipe.kind.pix_fmt
    if recipe.times:
        stream.codec_context.time_base = Fraction(1, 1000)
    _turn(stream, recipe)

    def packets() -> list[av.Packet]:
        found = []
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if recipe.times:
                frame.pts, frame.time_base = recipe.times[index], Fraction(1, 1000)
            found += stream.encode(frame)
        found += stream.encode()
        return found

    return packets


def _disguised(out: av.container.OutputContainer, recipe: Recipe, pictures: list[np.ndarray]) -> _Packets:
    """Encoded for an AVI, and muxed as if it were MPEG-4; ``_unmasked`` puts its own name there."""
    with av.open(io.BytesIO(), "w", format="avi") as container:
        found = _encoded(container, recipe, pictures)()
    stream = out.add_stream("mpeg4", rate=recipe.rate)
    stream.height, stream.width = pictures[0].shape[:2]

    def packets() -> list[av.Packet]:
        out.start_encoding()
        for packet in found:
            packet.stream = stream
        return found

    return packets


def _unmasked(data: bytes, recipe: Recipe) -> bytes:
    """Matroska's way to hold what an AVI can: a Windows bitmap header where MPEG-4 has its own."""
    data = data.replace(b"V_MPEG4/ISO/ASP", b"V_MS/VFW/FOURCC", 1)
    begin = data.index(b"\0\0\1\xb0")  # of MPEG-4's header, which is longer
    width, height = recipe.size
    header = struct.pack(
        "<IiiHH4sIiiII", 40, width, height, 1, 24, recipe.kind.disguise, 3 * width * height, 0, 0, 0, 0
    )
    return data[:begin] + header + data[begin + len(header) :]


def _field_coded(out: av.container.OutputContainer, recipe: Recipe, pictures: list[np.ndarray]) -> _Packets:
    rng = np.random.default_rng([recipe.number, 1])
    coded = code_frames(
        [np.where(picture[..., 0] > 128, LIGHT, DARK).astype(np.uint8) for picture in pictures],
        [recipe.kind.fields != "mixed" or bool(rng.integers(2)) for _ in pictures],
        rate=recipe.rate,
        group=_FIELD_GROUP,
        intra_second=bool(rng.integers(2)),
        reorder=bool(rng.integers(2)),
    )
    if recipe.kind.fields == "pair":
        pairs = zip(coded[::2], coded[1::2], strict=True)
        coded = [Coded(first.data + second.data, first.half, first.key, False) for first, second in pairs]
    source = av.open(io.BytesIO(b"".join(one.data for one in coded)), format="h264")
    stream = out.add_stream_from_template(source.streams.video[0])
    _turn(stream, recipe)

    def packets() -> list[av.Packet]:
        found, elapsed = [], -2
        for one in coded:
            packet = av.Packet(one.data)
            packet.time_base, packet.stream = 1 / (2 * recipe.rate), stream
            packet.pts, packet.dts, packet.is_keyframe = one.half, elapsed, one.key
            packet.duration = 1 if one.field else 2
            elapsed += packet.duration
            found.append(packet)
        return found

    return packets


def _turn(stream: av.VideoStream, recipe: Recipe) -> None:
    if recipe.orientation.matrix != (1, 0, 0, 1) and not recipe.sei:
        stream.set_display_matrix(recipe.orientation.display_matrix(recipe.off))


def _decoy(out: av.container.OutputContainer, recipe: Recipe) -> _Packets:
    """A stream that is not the video: another camera, or one picture."""
    rng = np.random.default_rng([recipe.number, 2])
    picture = recipe.decoy in ("thumbnail", "cover")
    codec, pix_fmt = ("mpeg2video", "yuv420p") if recipe.form == "mpegts" else ("mjpeg", "yuvj420p")
    stream = out.add_stream(codec, rate=25, options={"threads": "1"})
    stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
    if recipe.decoy == "cover":
        stream.disposition = av.stream.Disposition.attached_pic

    def packets() -> list[av.Packet]:
        drawn = [
            draw(_OTHER + number, (64, 48), rng)
            for number in range(1 if picture else 50 if recipe.decoy == "default" else 4)
        ]
        frames = [av.VideoFrame.from_ndarray(one, format="rgb24") for one in drawn]
        return [packet for frame in (*frames, None) for packet in stream.encode(frame)]

    return packets


def _edited(packets: list[av.Packet], recipe: Recipe) -> list[av.Packet]:
    """Cut, with other flags, at other times and with the orientation in the stream."""
    packets = _cut(packets, recipe)
    if recipe.sei:
        told = len(packets) if recipe.sei == "every" else 1
        packets[:told] = [_with_sei(packet, recipe.orientation.sei_message()) for packet in packets[:told]]
    for index, packet in enumerate(packets):
        if recipe.flags != "own":
            packet.is_keyframe = recipe.flags == "all" or index == 0
    first = min(packet.pts for packet in packets) if recipe.cut in ("key", "clean", "other") else 0
    seconds = {"ten": Fraction(10), "hidden": -3 / recipe.rate}.get(recipe.start, Fraction(0))
    for packet in packets:
        shift = round(seconds / packet.time_base) - first
        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
    return packets


def _with_sei(packet: av.Packet, message: bytes) -> av.Packet:
    told = av.Packet(message + bytes(packet))
    told.time_base, told.stream, told.duration = packet.time_base, packet.stream, packet.duration
    told.pts, told.dts, told.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
    return told


def _cut(packets: list[av.Packet], recipe: Recipe) -> list[av.Packet]:
    if recipe.cut == "tail":
        return packets[: max(2, int(len(packets) * recipe.place))]
    if recipe.cut not in ("key", "clean", "other"):
        return packets
    key = recipe.cut != "other"
    places = [
        index for index, packet in enumerate(packets) if packet.is_keyframe == key and 0 < index < len(packets) - 4
    ]
    if not places:
        return packets
    packets = packets[places[int(len(places) * recipe.place)] :]
    return [packet for packet in packets if recipe.cut != "clean" or packet.pts >= packets[0].pts]
