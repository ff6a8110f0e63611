"""A small file, published as the product publishes its own."""

import json
from typing import Any

from dynaprop.pipeline.io.atomic import published
from dynaprop.pipeline.io.paths import StoragePath


def publish_json(path: StoragePath, value: Any) -> None:
    """Write a value as JSON."""
    with published(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
