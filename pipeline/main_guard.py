"""Scripts without `if __name__ == "__main__":` below which processes cannot be started.

A new process imports the main script once more. Where that asks for processes again, there is no end to it.
"""

import ast
import sys
import threading
import tokenize
from types import FrameType

from dynaprop.pipeline.errors import UsageError
from dynaprop.pipeline.printable import printable

# What a script tells by whether it is the main one.
_TELLS = {"__name__", "parent_process", "current_process"}


def refuse_second_import() -> None:
    """End a process that imports the main script once more and comes to what only the first may do.

    Raises:
        SystemExit: with one line for people; nothing less would end the process without a traceback.
    """
    if (frame := _running("__mp_main__")) is not None:
        sys.exit(f"error: {printable(_advice(frame))}")


def require_main_guard() -> None:
    """Check that processes can be started: the main script does not ask for them whenever it is imported.

    Raises:
        UsageError: it does, as far as can be seen.
        SystemExit: see ``refuse_second_import``.
    """
    refuse_second_import()
    frame = _running("__main__")
    if frame is not None and frame.f_globals.get("__file__") == "<stdin>":
        raise UsageError("this starts processes, which import the script, and it is read from stdin; save it as a file")
    if frame is not None and _told_at(frame) is False:
        raise UsageError(_advice(frame))


def failed_for_want_of_guard() -> UsageError | None:
    """The error of a process that could not be started, where the main script is the likely reason."""
    frame = _running("__main__")
    if frame is None or _told_at(frame) is None or _is_guarded(_source(frame), frame.f_lineno):
        return None
    return UsageError(_advice(frame))


def _advice(frame: FrameType) -> str:
    return (
        f"{frame.f_code.co_filename}:{frame.f_lineno}: this starts processes, and each of them imports the script and "
        'comes here again; put the call below `if __name__ == "__main__":`'
    )


def _running(name: str) -> FrameType | None:
    """The frame of a module's own code where the first thread is in the middle of it."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    module = vars(sys.modules[name]) if name in sys.modules else {}
    while frame is not None:
        variables = frame.f_globals
        if frame.f_code.co_name == "<module>" and variables is module and variables.get("__name__") == name:
            return frame
        frame = frame.f_back
    return None


def _source(frame: FrameType) -> ast.Module | None:
    """The script's code; None where new processes do not import it, or where it cannot be read."""
    spec = frame.f_globals.get("__spec__")
    if "__file__" not in frame.f_globals:  # a prompt, a notebook, `python -c`
        return None
    if spec is not None and spec.name.rpartition(".")[2] == "__main__":  # `python -m` of a package
        return None
    try:
        with tokenize.open(frame.f_globals["__file__"]) as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, TypeError):
        return None


def _told_at(frame: FrameType) -> bool | None:
    """Whether the script has asked, up to the line that it is at, if it is the main one; None: who knows."""
    source = _source(frame)
    if source is None:
        return None
    return any(_asks(node) and node.lineno <= frame.f_lineno for node in ast.walk(source) if isinstance(node, ast.expr))


def _asks(node: ast.expr) -> bool:
    """Whether a comparison or a call tells the main script from its second import."""
    if not isinstance(node, ast.Compare | ast.Call):
        return False
    inner = node.func if isinstance(node, ast.Call) else node
    names = {name.id for name in ast.walk(inner) if isinstance(name, ast.Name)}
    names |= {name.attr for name in ast.walk(inner) if isinstance(name, ast.Attribute)}
    return not _TELLS.isdisjoint(names)


def _is_guarded(source: ast.Module | None, line: int) -> bool:
    """Whether a line stands below a condition on what the script is."""
    ifs = [node for node in ast.walk(source) if isinstance(node, ast.If)] if source else []
    return any(
        node.lineno <= line <= (node.end_lineno or line)
        and any(_asks(part) for part in ast.walk(node.test) if isinstance(part, ast.expr))
        for node in ifs
    )
