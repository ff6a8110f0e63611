"""Whether Prefect's settings name a server, found out without Prefect where they do not."""

import os
import tomllib
from pathlib import Path

# Where Prefect looks for settings in the current folder.
_FILES = (".env", "prefect.toml", "pyproject.toml")


def names_server() -> bool:
    """Whether commands are to be flow runs: the environment, a profile or a file of settings names Prefect's API.

    Prefect's import takes seconds, so it is asked only where something may name one.
    """
    if not (os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE") or _profile_may() or _file_may()):
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def _profile_may() -> bool:
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # Prefect says what is wrong with it
    active = profiles.get("active")
    own = profiles.get("profiles", {}).get(active)
    return active is not None and (own is None or "PREFECT_API_URL" in own)  # without entries it is one of Prefect's


def _file_may() -> bool:
    for name in _FILES:
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace").lower()
        except OSError:
            continue
        if "api" in text and (name == "prefect.toml" or "prefect" in text):
            return True
    return False
