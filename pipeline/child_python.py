"""Python processes beside this one, which run this very package wherever they are started."""

import sys
from pathlib import Path

# Nothing is put on a path: not even a folder that holds a `dynaprop` of its own can get in between.
_START = """\
import importlib.util, runpy, sys
folder, module = sys.argv[1:3]
del sys.argv[1:3]
spec = importlib.util.spec_from_file_location("dynaprop", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["dynaprop"] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
_PACKAGE = str(Path(__file__).absolute().parents[1])


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of dynaprop; -P keeps what lies in the current folder out of its way."""
    return [sys.executable, "-P", "-c", _START, _PACKAGE, module, *arguments]
