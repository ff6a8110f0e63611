"""Benchmarks; they run in the environment that the commands run in."""

from dynaprop.flows.terminal.environment import prepare_environment

prepare_environment(verbose=False)  # before torch and Prefect are imported
