"""The eight ways a picture can lie: how a file says so, and the coded picture that is upright when it is shown so."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ONE = 1 << 16


@dataclass(frozen=True)
class Orientation:
    """From the coded picture to the shown one."""

    name: str
    matrix: tuple[int, int, int, int]
    """a, b, c, d: what is at (x, y) is shown at (a x + c y, b x + d y)."""
    sei: tuple[int, int, int]
    """How H.264 says it: mirror, flip, then quarter turns counter-clockwise."""
    code: Callable[[np.ndarray], np.ndarray]
    """From the shown picture back to the coded one."""

    def display_matrix(self, off: tuple[int, int, int, int] = (0, 0, 0, 0)) -> list[int]:
        """The nine numbers of ISO 14496-12, the four above off by some 65536ths."""
        a, b, c, d = (ONE * value + error for value, error in zip(self.matrix, off, strict=True))
        return [a, b, 0, c, d, 0, 0, 0, 1 << 30]

    def sei_message(self) -> bytes:
        """A display orientation message of H.264 (payload type 47), valid until another one comes, in Annex B."""
        mirror, flip, turns = self.sei
        payload = f"0{mirror}{flip}{turns << 14:016b}01001"
        return b"\0\0\0\1\6" + bytes([47, 3]) + int(payload, 2).to_bytes(3, "big") + b"\x80"


ORIENTATIONS = (
    Orientation("upright", (1, 0, 0, 1), (0, 0, 0), lambda shown: shown),
    Orientation("clockwise", (0, 1, -1, 0), (0, 0, 3), lambda shown: np.rot90(shown, 1)),
    Orientation("upside-down", (-1, 0, 0, -1), (0, 0, 2), lambda shown: np.rot90(shown, 2)),
    Orientation("counter-clockwise", (0, -1, 1, 0), (0, 0, 1), lambda shown: np.rot90(shown, -1)),
    Orientation("mirrored", (-1, 0, 0, 1), (1, 0, 0), lambda shown: shown[:, ::-1]),
    Orientation("flipped", (1, 0, 0, -1), (0, 1, 0), lambda shown: shown[::-1]),
    Orientation("transposed", (0, 1, 1, 0), (1, 0, 1), lambda shown: shown.swapaxes(0, 1)),
    Orientation(
        "antitransposed",
        (0, -1, -1, 0),
        (1, 0, 3),
        lambda shown: np.rot90(shown, 2).swapaxes(0, 1),
    ),
)
