"""What every flow does first, whoever has called it: a command, a script, or a worker of Prefect's."""

from flows.interrupts import keep_listening
from flows.terminal import make_harmless
from pipeline.main_guard import refuse_second_import


def enter_flow() -> None:
    """Make a flow's surroundings fit.

    Raises:
        SystemExit: a process that was started for some work imports the script that started it, which comes here.
    """
    refuse_second_import()
    keep_listening()
    make_harmless()
