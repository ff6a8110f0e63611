"""What every command with a flow starts with, and nothing else: the interpreter, Prefect, its server, an empty flow."""

from dynaprop.flows.server.own_server import prefect_server


def main() -> None:
    with prefect_server():
        from prefect import flow

        @flow
        def empty() -> None:
            pass

        empty()


if __name__ == "__main__":
    main()
