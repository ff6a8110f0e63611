"""The environment: settings that libraries read from it when they are imported, and what launchers say in it.

All settings are defaults that the user's own environment overrides.
"""

import os

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # a flow runs where a server is named, not on one of its own
    "PREFECT_API_REQUEST_TIMEOUT": "120",  # on a busy machine the server takes long to start
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # its default serializer is pickle
    # Decode children share the cores with the model: threads that spin while they wait would starve them.
    "OMP_WAIT_POLICY": "passive",
}


def prepare_environment(*, verbose: bool) -> None:
    """Keep Prefect quiet unless asked for, its telemetry off, and OpenMP from spinning.

    Where the user names a server, flow runs send their log there, though the terminal stays quiet. On a command's own
    temporary server nobody could read it.
    """
    # An error reaches the user as the command's own one line.
    quiet = "INFO" if verbose else "CRITICAL"
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if os.environ.get("PREFECT_API_URL") else quiet)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", quiet)
    os.environ.setdefault("PREFECT_LOGGING_SERVER_LEVEL", quiet)
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")  # it has no level of its own on the terminal
