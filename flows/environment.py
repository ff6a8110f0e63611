"""Settings that libraries read from the environment when they are imported: call this before importing them.

All of them are defaults that the user's own environment overrides.
"""

import os

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # commands start a server that ends with them
    "PREFECT_API_REQUEST_TIMEOUT": "120",  # on a busy machine the server takes long to start
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # its default serializer is pickle
    # Decode children share the cores with the model: threads that spin while they wait would starve them.
    "OMP_WAIT_POLICY": "passive",
}


def prepare_environment(*, verbose: bool) -> None:
    """Keep Prefect quiet unless asked for, its telemetry off, and OpenMP from spinning."""
    level = "INFO" if verbose else "CRITICAL"  # an error reaches the user as the command's own one line
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    for part in ("", "SERVER_", "INTERNAL_"):
        os.environ.setdefault(f"PREFECT_LOGGING_{part}LEVEL", level)
    if os.environ.get("PREFECT_API_URL") and not verbose:  # somebody can read the runs' logs there
        for runs in ("FLOW", "TASK"):
            os.environ.setdefault(f"PREFECT_LOGGING_LOGGERS_PREFECT_{runs}_RUNS_LEVEL", "INFO")
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", level)
