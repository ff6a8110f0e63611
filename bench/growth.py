"""`make bench-growth`: what planning, resuming and verifying cost with 10 thousand to a million videos.

    python -m bench.growth           # writes growth.json, growth.png and the README's line
    python -m bench.growth 10000     # prints one point only

The videos are made up: one file stands for all of them on disk, their probes are given, and features are 4 channels
wide. Each point is a process of its own, so that its peak memory is its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.machine import seconds_of
from bench.synthetic import fill_store, probed, synthetic_videos
from flows.inventory import list_inventory
from pipeline.annotations import Annotations
from pipeline.cached import locate_backbone, open_store
from pipeline.extraction import Extraction
from pipeline.plan import apply_changes, compare, shards_to_do
from pipeline.specs import BackboneSpec, DatasetSpec
from pipeline.verify import verify_key

SIZES = (10_000, 100_000, 1_000_000)
CLIPS = 25
