"""What a decode child and its parent say to each other, in bytes.

Requests go to the child as JSON lines. Answers are messages: one byte of kind, four bytes of length, payload. ``F``: a
clip's index and its resized frames; ``D``: done, JSON, with the ``missing`` clips; ``E``: a video error, JSON; ``A``:
alive, while a long file gives nothing else to send.
"""

import struct
from typing import BinaryIO

HEADER = struct.Struct("<cI")
CLIP_INDEX = struct.Struct("<I")


def send(out: BinaryIO, kind: bytes, *payload: bytes) -> None:
    """Write one message."""
    message = memoryview(b"".join((HEADER.pack(kind, sum(map(len, payload))), *payload)))
    while message:  # a raw pipe may take part of a message
        message = message[out.write(message) :]
