"""Names of copies: a file for every video's id, on any disk."""

import hashlib
import re

_LONGEST = 180  # bytes of a name, of the 255 that file systems take: some are for what is put around it
_SIGNS = " .,+=@()[]'!-"  # of names, besides letters and digits


def copy_path(video_id: str) -> str:
    """Path of a video's copy relative to the folder of copies: below it, and another one for every id.

    It is the id with `.mp4` behind it, as far as names of files may hold what stands in ids; the rest is written as in
    URLs. Folders have no dot, so that none takes the name of a copy, of the table or of the lock.
    """
    *folders, name = video_id.split("/")
    return "/".join([_safe(folder, _SIGNS.replace(".", "")) or "%" for folder in folders] + [f"{_safe(name)}.mp4"])


def _safe(name: str, signs: str = _SIGNS) -> str:
    """A name of letters, digits and these signs; what is too long for a file system ends in a digest."""
    safe = re.sub(rf"[^\w{re.escape(signs)}]", lambda sign: "".join(f"%{byte:02X}" for byte in _encoded(sign[0])), name)
    if len(_encoded(safe)) > _LONGEST:
        digest = hashlib.sha256(_encoded(name)).hexdigest()[:32]
        safe = f"{_encoded(safe)[: _LONGEST - 33].decode(errors='ignore')}%{digest}"
    return safe


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
