"""What the packets of H.264 say of themselves, whatever the container claims: pictures that stand for themselves
(IDR), and whether a picture may be coded as two fields (Rec. ITU-T H.264, sections 7.3.1 and 7.3.2.1.1)."""

import re
from collections.abc import Iterator
from itertools import islice

import av

_START_CODE = re.compile(rb"\x00\x00\x01")
_IDR, _SEI, _SPS, _PPS = 5, 6, 7, 8  # NAL unit types
_SLICES = frozenset({1, 2, 5})
_LONGEST_SET = 1024  # bytes of a sequence parameter set in which what we ask for lies
_ORIENTATION = 47  # payload type of an SEI message
# Profiles whose sequence parameter set says more about colours.
_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


INDEPENDENT = "independent"
"""A picture (IDR) for which nothing before it need be decoded."""
DISPOSABLE = "disposable"
"""A B-picture that no other one is predicted from; its type is asked for, as one damaged byte makes others seem so."""
DEPENDENT = "dependent"


class H264Stream:
    """What is known of a stream from its header and the packets seen so far.

    Args:
        extradata: of the codec, ``avcC`` or Annex B; None where parameter sets come in the packets alone.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._length_size: int | None = None  # None: Annex B
        self._known: set[bytes] = set()  # parameter sets of the header
        self._progressive: set[bool] = set()
        self.steady = True
        """Whether all parameter sets so far were the header's: then a picture needs none from before it."""
        self.oriented = False
        """Whether a packet so far says how its picture, and those behind it, are to be turned."""
        extradata = extradata or b""
        try:
            if extradata[:1] == b"\x01":
                self._length_size = (extradata[4] & 3) + 1
                units = list(_listed(extradata))
            else:
                units = list(_annex_b(extradata))
        except (IndexError, ValueError):
            units = []
        for unit in units:
            self._known.add(unit)
            self._see(unit)

    @property
    def progressive(self) -> bool:
        """Whether each packet is a whole picture: no parameter set allows fields, and there has been one."""
        return self._progressive == {True}

    def look(self, packet: av.Packet | bytes) -> str | None:
        """Look at the next packet; ``INDEPENDENT``, ``DISPOSABLE`` or ``DEPENDENT``, None where it holds no picture."""
        if isinstance(packet, av.Packet) and packet.has_sidedata("new_extradata"):  # another description begins
            self.steady = False
            self._progressive.add(False)
        size = self._length_size
        start = bytes(memoryview(packet)[:6])
        if size is not None and len(start) > size and start[size] & 31 in _SLICES:
            return _picture(start[size:])  # the usual packet: nothing but slices, all of one kind
        picture = None
        parameters = False
        try:
            for unit in self._units(bytes(packet)):
                kind = unit[0] & 31
                if kind in (_SPS, _PPS):
                    parameters = True
                    self.steady &= unit in self._known
                    self._see(unit)
                elif kind == _SEI:
                    self.oriented |= _ORIENTATION in _sei_types(unit)
                elif kind in _SLICES:
                    picture = picture or _picture(unit)
        except (IndexError, ValueError):
            return None
        return DEPENDENT if parameters and picture == DISPOSABLE else picture

    def _units(self, packet: bytes) -> Iterator[bytes]:
        return _annex_b(packet) if self._length_size is None else _prefixed(packet, self._length_size)

    def _see(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            try:
                self._progressive.add(_frames_only(unit))
            except (IndexError, ValueError):
                self._progressive.add(False)


def _picture(start: bytes) -> str:
    """What a picture is by the beginning of its first slice, section 7.3.3."""
    if start[0] & 31 == _IDR:
        return INDEPENDENT
    if start[0] & 0xE0 or len(start) < 2:  # nal_ref_idc, or the bit that has to be 0
        return DEPENDENT
    # Exp-Golomb codes from the left: first_mb_in_slice 0 is 1, slice_type 1 (B) is 010, 6 (all slices are B) 00111.
    is_b = start[1] & 0b11110000 == 0b10100000 or start[1] & 0b11111100 == 0b10011100
    return DISPOSABLE if is_b else DEPENDENT


def _annex_b(data: bytes) -> Iterator[bytes]:
    starts = [match.end() for match in _START_CODE.finditer(data)]
    for begin, end in zip(starts, [*(start - 3 for start in starts[1:]), len(data)], strict=True):
        if unit := data[begin:end].rstrip(b"\x00"):  # zeros behind a unit belong to the next start code
            yield unit


def _prefixed(data: bytes, size: int) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place : place + size])
        place += size + length
        if place > len(data):
            raise ValueError("a unit longer than its packet")
        if length:
            yield data[place - length : place]


def _listed(avcc: bytes) -> Iterator[bytes]:
    """The parameter sets of an ``avcC`` box."""
    place = 5
    for mask in (31, 255):  # sequence, then picture parameter sets
        count, place = avcc[place] & mask, place + 1
        for _ in range(count):
            length = int.from_bytes(avcc[place : place + 2])
            place += 2 + length
            if length:
                yield avcc[place - length : place]


def _sei_types(unit: bytes) -> Iterator[int]:
    """Payload types of the messages of an SEI unit, section 7.3.2.3.1."""
    data = iter(unit[1:].rstrip(b"\x80\x00").replace(b"\x00\x00\x03", b"\x00\x00"))

    def number(value: int) -> int:
        total = value
        while value == 255:
            value = next(data, 0)
            total += value
        return total

    for byte in data:
        yield number(byte)
        for _ in islice(data, number(next(data, 0))):
            pass


def _frames_only(sps: bytes) -> bool:
    """``frame_mbs_only_flag`` of a sequence parameter set."""
    bits = _Bits(sps[1:_LONGEST_SET].replace(b"\x00\x00\x03", b"\x00\x00"))
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # number of the set
    if profile in _HIGH:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb(), bits.golomb()  # bits of a sample
        bits.take(1)
        if bits.take(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if number < 6 else 64)
    bits.golomb()  # of frame numbers
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # reference frames
    bits.take(1)
    bits.golomb(), bits.golomb()  # width and height in macroblocks
    return bool(bits.take(1))


def _pass_scaling_list(bits: "_Bits", size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


class _Bits:
    """Reads bits from the left; ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("no more bits")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code, section 9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("no number")
        return (1 << zeros) - 1 + self.take(zeros)
