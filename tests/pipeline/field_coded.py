"""Field-coded H.264 (PAFF), which no encoder at hand makes: pictures that are single fields, frames among them.

A picture of 16 x 16 blocks, each either the raw bytes (I_PCM) or, where it is what it was before, skipped (P_Skip):
lossless, and still every picture but the first of a group needs the one before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_I, _P = 7, 5  # slice types of a picture that has no others
_RAW_IN_I, _RAW_IN_P = 25, 30  # macroblock type I_PCM


@dataclass(frozen=True)
class Coded:
    """One coded picture: a frame or a field."""

    data: bytes
    """Annex B; parameter sets first where a group begins."""
    half: int
    """When it is shown, in halves of a frame's time."""
    key: bool
    field: bool


def code_frames(
    frames: Sequence[np.ndarray],
    layout: Sequence[bool],
    *,
    rate: Fraction,
    group: int,
    intra_second: bool,
    reorder: bool,
) -> list[Coded]:
    """Code greyscale pictures, in decoding order.

    Args:
        frames: ``[height, width]`` uint8, multiples of 32 and 16, values from 1 on.
        layout: for each frame whether it is coded as two fields.
        group: an IDR picture every so many frames.
        intra_second: the second field of an IDR picture is intra, too; else it is predicted from the first.
        reorder: every second frame of a group is none that others need, and comes after the one that follows it.
    """
    head = _sps(frames[0].shape, rate) + _pps()
    coded: list[Coded] = []
    before = frames[0]  # the newest reference
    for start in range(0, len(frames), group):
        size = min(group, len(frames) - start)
        references = 0
        for place in _decoding_order(size, reorder):
            frame, needed = frames[start + place], not (reorder and place % 2 and place + 1 < size)
            slices = _Slices(place, references, idr=place == 0, needed=needed, idr_id=start // group % 2)
            for parity in (0, 1) if layout[start + place] else (None,):
                own = frame if parity is None else frame[parity::2]
                seen = before if parity is None else before[parity::2]
                intra = place == 0 and (not parity or intra_second)
                if place == 0 and parity:
                    seen = frame[0::2]  # the second field of the first frame: only its own first one is there
                data = slices.code(own, None if intra else seen, parity)
                begins = place == 0 and not parity
                half = 2 * (start + place) + (parity or 0)
                coded.append(Coded(head + data if begins else data, half, begins, parity is not None))
            if needed:
                before, references = frame, references + 1
    return coded


def _decoding_order(size: int, reorder: bool) -> list[int]:
    order = list(range(size))
    if reorder:
        for place in range(1, size - 1, 2):
            order[place], order[place + 1] = place + 1, place
    return order


@dataclass(frozen=True)
class _Slices:
    """What the slices of one frame have in common."""

    place: int
    number: int
    idr: bool
    needed: bool
    idr_id: int

    def code(self, picture: np.ndarray, before: np.ndarray | None, parity: int | None) -> bytes:
        """One picture as one slice, with ``before`` as its only reference; None codes it by itself."""
        bits, idr = _Bits(), self.idr and not parity
        bits.ue(0, _I if before is None else _P, 0)
        bits.put(self.number % 256, 8)
        bits.put(0 if parity is None else 2 + parity, 1 if parity is None else 2)  # a field? the bottom one?
        if idr:
            bits.ue(self.idr_id)
        bits.put((2 * self.place + (parity or 0)) % 256, 8)
        if before is not None:
            bits.put(0, 2)  # as many references as usual, in their usual order
        if self.needed:
            bits.put(0, 2 if idr else 1)
        bits.ue(0, 1)  # quantiser as usual, no deblocking
        _blocks(bits, picture, before)
        return _nal(5 if idr else 1, bits, importance=3 if self.needed else 0)


def _blocks(bits: "_Bits", picture: np.ndarray, before: np.ndarray | None) -> None:
    skipped = 0
    for top in range(0, picture.shape[0], 16):
        for left in range(0, picture.shape[1], 16):
            block = np.s_[top : top + 16, left : left + 16]
            if before is not None and np.array_equal(picture[block], before[block]):
                skipped += 1
                continue
            if before is None:
                bits.ue(_RAW_IN_I)
            else:
                bits.ue(skipped, _RAW_IN_P)
                skipped = 0
            bits.raw(picture[block].tobytes() + bytes([128]) * 128)
    if skipped:
        bits.ue(skipped)


def _sps(shape: tuple[int, ...], rate: Fraction) -> bytes:
    bits = _Bits()
    for byte in (77, 0, 30):  # main profile, level 3
        bits.put(byte, 8)
    bits.ue(0, 4, 0, 4, 2)  # id, bits of frame numbers, kind and bits of picture order, reference frames
    bits.put(0, 1)
    bits.ue(shape[1] // 16 - 1, shape[0] // 32 - 1)
    bits.put(0b001_01_0000_1, 10)  # fields, no macroblock pairs; nothing cropped; of the rest only the rate
    bits.put(rate.denominator, 32)
    bits.put(2 * rate.numerator, 32)
    bits.put(0b1_00_0_1_1, 6)
    bits.ue(0, 0, 16, 16, 1, 2)  # one frame is reordered, two are held
    return _nal(7, bits)


def _pps() -> bytes:
    bits = _Bits()
    bits.ue(0, 0)
    bits.put(0, 2)
    bits.ue(0, 0, 0)
    bits.put(0, 3)
    bits.ue(0, 0, 0)
    bits.put(0b100, 3)  # slices say that they are not deblocked
    return _nal(8, bits)


def _nal(kind: int, bits: "_Bits", *, importance: int = 3) -> bytes:
    bits.put(1, 1)
    bits.align()
    payload = re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", bits.data())
    return b"\0\0\0\1" + bytes([importance << 5 | kind]) + payload


class _Bits:
    """Numbers of any number of bits, one after another."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._length = 0

    def put(self, value: int, bits: int) -> None:
        self._text.append(f"{value:0{bits}b}")
        self._length += bits

    def ue(self, *values: int) -> None:
        """Exp-Golomb codes; zero is the same signed and unsigned."""
        for value in values:
            self.put(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self) -> None:
        if self._length % 8:
            self.put(0, 8 - self._length % 8)

    def raw(self, data: bytes) -> None:
        self.align()
        self.put(int.from_bytes(data, "big"), 8 * len(data))

    def data(self) -> bytes:
        text = "".join(self._text)
        return int(text, 2).to_bytes(len(text) // 8, "big")
