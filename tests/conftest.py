"""Fixtures shared by all tests: where the real videos are."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dynaprop", deadline=None)  # a busy machine is no failure
settings.load_profile("dynaprop")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real videos (`ut-interaction/`, `weizmann/`): $DYNAPROP_DATA, else ../shared/data."""
    root = Path(os.environ.get("DYNAPROP_DATA", REPOSITORY.parent / "shared" / "data")).resolve()
    if not (root / "ut-interaction").is_dir():
        if "DYNAPROP_DATA" in os.environ:
            pytest.fail(f"DYNAPROP_DATA={root} has no ut-interaction/")
        pytest.skip(f"no real videos at {root}; set DYNAPROP_DATA")
    return root
