"""As if decord and OpenVINO were not installed: for a process with this folder in PYTHONPATH, and for its children."""

import sys
from importlib.machinery import PathFinder
from importlib.metadata import DistributionFinder

ABSENT = {"decord", "openvino", "openvino_telemetry"}


class Without:
    """The finder of installed packages, less some."""

    invalidate_caches = PathFinder.invalidate_caches

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context=DistributionFinder.Context()):  # noqa: B008
        found = PathFinder.find_distributions(context)
        return (one for one in found if one.name.replace("-", "_").lower() not in ABSENT)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
