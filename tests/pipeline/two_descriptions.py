"""An mp4 with two sample descriptions one behind the other, as joining files without encoding them anew makes it."""

import struct
from pathlib import Path

import av


def join(first: Path, second: Path, target: Path) -> Path:
    """Put the samples of two H.264 mp4 files without B-frames, at 10 FPS and 64 x 48, into one track."""
    samples: list[bytes] = []
    keys: list[int] = []
    counts: list[int] = []
    for path in (first, second):
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    samples.append(bytes(packet))
                    keys += [len(samples)] * packet.is_keyframe
        counts.append(len(samples))
    head = _box("ftyp", b"isom", struct.pack(">I", 512), b"isomavc1")
    place = ["moov", "trak", "mdia", "minf", "stbl", "stsd"]
    entries = [_find(path.read_bytes(), place)[16:] for path in (first, second)]
    length = len(head) + len(_movie(entries, samples, keys, counts[0], 0)) + 8
    target.write_bytes(head + _movie(entries, samples, keys, counts[0], length) + _box("mdat", *samples))
    return target


def _box(kind: str, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind.encode()) + body


def _full(kind: str, *content: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *content)


def _find(data: bytes, path: list[str]) -> bytes:
    """A box below others."""
    place = 0
    while True:
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind.decode() == path[0]:
            found = data[place : place + length]
            return found if len(path) == 1 else _find(found[8:], path[1:])
        place += length


def _movie(entries: list[bytes], samples: list[bytes], keys: list[int], n_first: int, offset: int) -> bytes:
    """The whole index, with the first sample at a place of the file."""
    n = len(samples)
    table = _box(
        "stbl",
        _full("stsd", struct.pack(">I", 2), *entries),
        _full("stts", struct.pack(">III", 1, n, 100)),
        _full("stss", struct.pack(f">I{len(keys)}I", len(keys), *keys)),
        _full("stsc", struct.pack(">IIIIIII", 2, 1, n_first, 1, 2, n - n_first, 2)),
        _full("stsz", struct.pack(f">II{n}I", 0, n, *map(len, samples))),
        _full("stco", struct.pack(">III", 2, offset, offset + sum(map(len, samples[:n_first])))),
    )
    data = _box("dinf", _full("dref", struct.pack(">I", 1), _full("url ", flags=1)))
    media = _box(
        "mdia",
        _full("mdhd", struct.pack(">IIIIHH", 0, 0, 1000, 100 * n, 0x55C4, 0)),
        _full("hdlr", bytes(4), b"vide", bytes(12), b"v\0"),
        _box("minf", _full("vmhd", bytes(8), flags=1), data, table),
    )
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    times = struct.pack(">IIIII", 0, 0, 1, 0, 100 * n)
    track = _full("tkhd", times, bytes(16), matrix, struct.pack(">II", 64 << 16, 48 << 16), flags=7)
    times = struct.pack(">IIIIIH", 0, 0, 1000, 100 * n, 1 << 16, 256)
    movie = _full("mvhd", times, bytes(10), matrix, bytes(24), struct.pack(">I", 2))
    return _box("moov", movie, _box("trak", track, media))
