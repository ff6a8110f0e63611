"""Prefect's settings for runs inside one process; import this before Prefect.

Importing Prefect reads the environment, so what is set here are defaults that the user's own settings override.
"""

import os


def quiet_prefect(*, verbose: bool) -> None:
    """Keep Prefect's own log lines away unless asked for, and its telemetry off."""
    level = "INFO" if verbose else "CRITICAL"  # an error reaches the user as the command's own one line
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": level,
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING" if verbose else "CRITICAL",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",  # a busy machine takes longer than the default 20
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",  # its default serializer is pickle
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
