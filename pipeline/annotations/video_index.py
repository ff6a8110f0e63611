"""Which file or folder of frames below a root is which listed video."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from dynaprop.pipeline.annotations.passed_over import is_video_name
from dynaprop.pipeline.annotations.video_files import is_file, walk

# Last part of a name -> the paths that have it, each with its comparable form, a file's without extension. Tuples of
# strings, since the garbage collector passes over them.
_Places = dict[str, tuple[tuple[str, str], ...]]


class VideoIndex:
    """The videos below a root that have one of the wanted names, found by a single walk.

    Lists are made on other machines: the root may hold more folders than a list says (``train/`` above the classes) or
    fewer (a list says ``images/train/run/x`` where here is ``run/x.mp4``). A video ``run/x`` is therefore, whatever its
    extension,

    1. what lies at a path that ends in ``run/x``;
    2. else what lies at ``x``, the end of the listed path, right below the root; or an ``x`` elsewhere, if the list has
       no other of this name and none of the folders above it is one that the list names for other videos.

    Args:
        root: the folder.
        names: listed paths without extension.
        template: name of a frame, such as ``image_{:05d}.jpg``, where folders of frames are videos too; a folder goes
            before a file.
    """

    def __init__(self, root: Path, names: Collection[str], *, template: str | None = None) -> None:
        self._listed = {comparable(name) for name in names}
        self._bases = Counter([_base(name) for name in self._listed])
        self._parents = {_base(folder) for folder in {name.rpartition("/")[0] for name in self._listed}} - {""}
        self._files: _Places = {}
        self._folders: _Places = {}
        self._folder_paths: set[str] = set()
        frame = _pattern(template) if template else None
        found = walk(
            root,
            is_wanted=self._is_wanted if frame else None,
            is_frame=(lambda name: frame.fullmatch(name) is not None) if frame else None,
        )
        self.passed: list[str] = []
        """As what the files are counted that only look like videos."""
        for path, kind, passed in found:
            if passed is not None and not self._is_listed(path):
                self.passed.append(passed)
                continue
            name = comparable(path if kind == "folder" else path.rpartition(".")[0])
            base = name.rpartition("/")[2]
            if base in self._bases and (kind != "link" or is_file(root / path)):
                places = self._folders if kind == "folder" else self._files
                places[base] = (*places.get(base, ()), (path, name))
                if kind == "folder":
                    self._folder_paths.add(path)

    def is_folder(self, path: str) -> bool:
        """Whether a path relative to the root is that of a folder which may be a video."""
        return path in self._folder_paths

    def folders(self, name: str) -> list[str]:
        """Return the paths, relative to the root, of the folders that may be the video of this name."""
        return self._best(comparable(name), self._folders)

    def files(self, name: str) -> list[str]:
        """Return the paths, relative to the root, of the files that may be the video of this name."""
        return self._best(comparable(name), self._files)

    def _is_listed(self, path: str) -> bool:
        """Whether the very file is listed: then it is a video, whatever its name looks like."""
        return is_video_name(path) and comparable(path.rpartition(".")[0]) in self._listed

    def _is_wanted(self, path: str) -> bool:
        path = comparable(path)
        base = path.rpartition("/")[2]
        # A class may be called like a video in it: then only the listed path itself is the video.
        return base in self._bases and (base not in self._parents or path in self._listed)

    def _best(self, name: str, places: _Places) -> list[str]:
        candidates = places.get(_base(name))
        if candidates is None:
            return []
        whole = [path for path, found in candidates if found == name or found.endswith(f"/{name}")]
        return whole or [path for path, found in candidates if self._fits_by_end(found, name)]

    def _fits_by_end(self, found: str, name: str) -> bool:
        if name.endswith(f"/{found}"):
            return True
        return self._bases[_base(name)] == 1 and self._parents.isdisjoint(found.split("/")[:-1])


def comparable(name: str) -> str:
    """Return a name so that it equals itself however its accents are written (macOS takes them apart)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _pattern(template: str) -> re.Pattern[str]:
    """Return what the names of a video's frames match."""
    before, after = re.split(r"\{[^}]*\}", template)
    return re.compile(rf"{re.escape(before)}[0-9]+{re.escape(after)}")
