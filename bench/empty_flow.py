"""What every command with a flow starts with, and nothing else: the interpreter, Prefect, its server, an empty flow."""

from flows.environment import prepare_environment
from flows.server import prefect_server


def main() -> None:
    prepare_environment(verbose=False)
    with prefect_server():
        from prefect import flow

        @flow
        def empty() -> None:
            pass

        empty()


if __name__ == "__main__":
    main()
