"""Kinds of random videos: codecs, the containers that hold them, and how their frames depend on one another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

MOV = ("mp4", "mov")
X264 = {"preset": "veryfast", "qp": 23}  # with any other rate control its bytes vary from run to run
SIZES_X265 = ((96, 64), (80, 64), (64, 96))  # it writes beyond its memory where a picture is narrower
SIZES = ((64, 48), (96, 64), (80, 64), (48, 80))


@dataclass(frozen=True)
class Kind:
    """A codec and how its frames depend on one another."""

    name: str
    codec: str
    forms: tuple[str, ...]
    """Muxers."""
    options: Callable[[np.random.Generator], Mapping[str, object]] = lambda rng: {}
    pix_fmt: str = "yuv420p"
    closed: bool = True
    """What begins with a key frame needs nothing before it."""
    slow: bool = False
    """What begins with a key frame is shown only when all of the picture has been refreshed."""
    variable: bool = True
    """Whether the encoder takes any times."""
    sizes: tuple[tuple[int, int], ...] = SIZES
    fields: str = ""
    """``single``: one field a packet; ``pair``: both; ``mixed``: some frames are fields, one picture a packet."""
    disguise: bytes = b""
    """FOURCC of a codec that Matroska holds, but not this muxer."""


def _x264(rng: np.random.Generator, **more: object) -> Mapping[str, object]:
    profile = rng.choice(["baseline", "main", "high"])
    frames = 0 if profile == "baseline" else int(rng.integers(0, 4))
    params = f"scenecut=0:b-adapt=0:ref={rng.integers(1, 4)}:slices={rng.integers(1, 4)}"
    return (
        X264
        | {
            "profile": profile,
            "g": int(rng.integers(6, 20)),
            "bf": frames,
            "x264-params": params,
        }
        | more
    )


def _open_x264(rng: np.random.Generator) -> Mapping[str, object]:
    pyramid = rng.choice(["none", "strict", "normal"])
    params = f"open-gop=1:scenecut=0:b-adapt=0:b-pyramid={pyramid}:ref={rng.integers(1, 5)}"
    return X264 | {"g": int(rng.integers(6, 16)), "bf": int(rng.integers(1, 5)), "x264-params": params}


def _refreshed_x264(rng: np.random.Generator) -> Mapping[str, object]:
    params = f"intra-refresh=1:scenecut=0:bframes={rng.integers(0, 3)}"
    return X264 | {"g": int(rng.integers(8, 16)), "x264-params": params}


def _interlaced_x264(rng: np.random.Generator) -> Mapping[str, object]:
    params = f"{rng.choice(['tff', 'bff'])}=1:scenecut=0:open-gop={rng.integers(0, 2)}"
    return _x264(rng, profile="high", **{"flags": "+ildct+ilme", "x264-params": params})


def _x265(params: str) -> Callable[[np.random.Generator], Mapping[str, object]]:
    def options(rng: np.random.Generator) -> Mapping[str, object]:
        own = f"log-level=0:scenecut=0:keyint={rng.integers(8, 16)}:bframes={rng.integers(1, 5)}:b-adapt=0:{params}"
        return {"preset": "ultrafast", "x265-params": own}

    return options


def _mpeg(flags: str = "", b_frames: int = 3) -> Callable[[np.random.Generator], Mapping[str, object]]:
    def options(rng: np.random.Generator) -> Mapping[str, object]:
        more = {"flags": flags, "sc_threshold": 1_000_000_000} if flags else {}
        return {"g": 12, "bf": int(rng.integers(0, b_frames)), "b": 500_000} | more

    return options


def _vpx(rng: np.random.Generator) -> Mapping[str, object]:
    return {"auto-alt-ref": 1, "lag-in-frames": 16, "g": int(rng.integers(10, 30)), "cpu-used": 5, "deadline": "good"}


def _svt(rng: np.random.Generator) -> Mapping[str, object]:
    return {"svtav1-params": "lp=1:preset=12", "g": int(rng.integers(8, 20))}


H264 = (*MOV, "matroska", "mpegts", "avi", "flv", "3gp", "h264", "mpeg", "asf")
FIELDS = (*MOV, "matroska", "mpegts", "flv", "h264")
MPEG2 = ("mpeg", "vob", "mpegts", "matroska", "mov", "mp4", "avi", "mpeg2video", "asf")
FIELD_SIZES = ((64, 64), (96, 64), (32, 32))

KINDS = (
    Kind("h264", "libx264", H264, _x264),
    Kind("h264-open", "libx264", H264, _open_x264, closed=False),
    Kind("h264-field", "", FIELDS, sizes=FIELD_SIZES, variable=False, fields="single"),
    Kind("mpeg2", "mpeg2video", MPEG2, _mpeg("+cgop"), variable=False),
    Kind("hevc", "libx265", (*MOV, "matroska", "mpegts", "hevc"), _x265("open-gop=0"), sizes=SIZES_X265),
    Kind("h264-refresh", "libx264", H264, _refreshed_x264, closed=False, slow=True),
    Kind(
        "mpeg4",
        "mpeg4",
        ("avi", *MOV, "matroska", "mpegts", "m4v", "3gp", "asf"),
        _mpeg(),
        closed=False,
        variable=False,
    ),
    Kind("vp8", "libvpx", ("webm", "matroska", "avi", "ogg", "ivf"), _vpx),
    Kind("h264-pair", "", FIELDS, sizes=FIELD_SIZES, variable=False, fields="pair"),
    Kind("h264-one-key", "libx264", H264, lambda rng: _x264(rng, g=1000)),
    Kind("mpeg2-open", "mpeg2video", MPEG2, _mpeg(b_frames=4), closed=False, variable=False),
    Kind(
        "hevc-open",
        "libx265",
        (*MOV, "matroska", "mpegts", "hevc"),
        _x265("open-gop=1"),
        closed=False,
        sizes=SIZES_X265,
    ),
    Kind("h263p", "h263p", ("avi",), _mpeg(b_frames=1), variable=False),
    Kind("h263p-mkv", "h263p", ("matroska",), _mpeg(b_frames=1), variable=False, disguise=b"H263"),
    Kind("h264-sei", "libx264", H264, _x264),
    Kind("vp9", "libvpx-vp9", ("webm", "matroska", "mp4", "ivf"), _vpx),
    Kind("h264-interlaced", "libx264", H264, _interlaced_x264, closed=False),
    Kind(
        "mpeg1",
        "mpeg1video",
        ("mpeg", "mpegts", "matroska", "avi", *MOV, "mpeg1video"),
        _mpeg(),
        closed=False,
        variable=False,
    ),
    Kind("mjpeg", "mjpeg", ("avi", *MOV, "matroska", "mjpeg"), pix_fmt="yuvj420p"),
    Kind("h264-mixed", "", FIELDS, sizes=FIELD_SIZES, variable=False, fields="mixed"),
    Kind("h264-intra", "libx264", H264, lambda rng: _x264(rng, g=1, bf=0)),
    Kind("mpeg2-interlaced", "mpeg2video", MPEG2, _mpeg("+ildct+ilme"), closed=False, variable=False),
    Kind("av1", "libsvtav1", ("webm", "matroska", "mp4", "ivf"), _svt, closed=False),
    Kind("hevc-field", "libx265", (*MOV, "matroska", "mpegts"), _x265("interlace=1:open-gop=0"), sizes=SIZES_X265),
    Kind("h263", "h263", ("3gp", "avi"), _mpeg(b_frames=1), variable=False, sizes=((128, 96),)),
    Kind("prores", "prores_ks", ("mov", "matroska"), pix_fmt="yuv422p10le"),
    Kind("ffv1", "ffv1", ("matroska", "avi"), _mpeg(b_frames=1), variable=False),
    Kind("flv1-mkv", "flv", ("matroska",), _mpeg(b_frames=1), variable=False, disguise=b"FLV1"),
    Kind("wmv2", "wmv2", ("asf", "avi"), _mpeg(b_frames=1), variable=False),
    Kind("flv1", "flv", ("flv", "avi"), _mpeg(b_frames=1), variable=False),
    Kind("msmpeg4", "msmpeg4", ("avi", "asf", "matroska"), _mpeg(b_frames=1), variable=False),
    Kind("rv20", "rv20", ("rm",), _mpeg(b_frames=1), variable=False),
    Kind("snow", "snow", ("matroska", "avi"), _mpeg(b_frames=1), variable=False),
    Kind("utvideo", "utvideo", ("avi",), variable=False),
    Kind("svq1", "svq1", ("mov",), _mpeg(b_frames=1), pix_fmt="yuv410p", variable=False),
    Kind("qtrle", "qtrle", ("mov",), _mpeg(b_frames=1), pix_fmt="rgb24", variable=False),
    Kind("png", "png", ("mov", "avi"), pix_fmt="rgb24", variable=False),
)
