"""What every flow does first, whoever has called it: a command, a script, or a worker of Prefect's."""

from dynaprop.flows.terminal.interrupts import keep_listening
from dynaprop.flows.terminal.printing import make_harmless
from dynaprop.pipeline.main_guard import refuse_second_import


def enter_flow() -> None:
    """Make a flow's surroundings fit.

    Raises:
        SystemExit: a process that was started for some work imports the script that started it, which comes here.
    """
    refuse_second_import()
    keep_listening()
    make_harmless()
