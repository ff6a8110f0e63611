"""The terminal: the one place that prints. No name in a line commands the terminal, whatever encoding it has.

Each text is one line, and plain: what cannot be seen is escaped, and nothing is markup. What the output's encoding
lacks is written in ASCII.
"""

import codecs
import logging
import sys
import traceback
import warnings
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from dynaprop.pipeline.printable import printable

console = Console(stderr=True, highlight=False, markup=False, emoji=False)
"""Standard error, where progress is drawn as well."""

_IN_ASCII = {
    **dict.fromkeys("‐‑‒–—―−", "-"),  # noqa: RUF001
    **dict.fromkeys("‘’‚′", "'"),  # noqa: RUF001
    **dict.fromkeys("“”„″", '"'),
    **dict.fromkeys("─━═╌╍┄┅╴╶╸╺", "-"),
    **dict.fromkeys("│┃║╎╏┆┇", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰┏┓┗┛┡┩┢┪╇╈╞╡╪╔╗╚╝", "+"),
    **{"±": "+/-", "×": "x", "÷": "/", "≈": "~", "≤": "<=", "≥": ">=", "≠": "!="},  # noqa: RUF001
    **{"…": "...", "→": "->", "←": "<-", "⇒": "=>", "µ": "u", "μ": "u", "•": "*", "·": "*"},
}
_ERRORS = "dynaprop.ascii"  # what encodings do with characters that they lack
_make_record = logging.getLogRecordFactory()
_format_warning = warnings.formatwarning


def answer(*lines: str) -> None:
    """What was asked for, to stdout, at once."""
    for line in lines:
        _write(sys.stdout, f"{printable(line)}\n")


def remark(line: str) -> None:
    """One line beside the answer, to stderr, above the progress that is being drawn."""
    console.print(Text(_encodable(printable(line), console.file)), soft_wrap=True)
    console.file.flush()


def complain(message: str, *, error: BaseException | None = None) -> None:
    """The last line of a command that failed.

    Args:
        message: for people.
        error: its traceback is printed, too.
    """
    if error is not None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            remark(line)
    remark(f"error: {message}")


def print_table(table: Table) -> None:
    """Print to stdout, all of its texts plain; a file or a pipe has no width to fit in."""
    wide = Console(markup=False, emoji=False)
    wide = wide if wide.is_terminal else Console(width=160, markup=False, emoji=False)
    columns = [
        Column(_cell(column.header), justify=column.justify, overflow=column.overflow) for column in table.columns
    ]
    made = Table(
        *columns,
        title=_cell(table.title) if table.title else None,
        caption=_cell(table.caption, kept="\n") if table.caption else None,
        title_justify=table.title_justify,
        caption_justify=table.caption_justify,
    )
    for row, cells in zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True):
        made.add_row(*map(_cell, cells), style=row.style, end_section=row.end_section)
    with wide.capture() as captured:
        wide.print(made)
    _write(sys.stdout, captured.get())


def make_harmless() -> None:
    """Do for all others that write to this process's terminal what can be done: logs, warnings, the streams."""
    logging.setLogRecordFactory(_record)
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _cell(text: RenderableType | None, *, kept: str = "") -> Text:
    return Text(_encodable(printable(str(text), kept=kept), sys.stdout))


def _write(stream: TextIO, text: str) -> None:
    stream.write(_encodable(text, stream))
    stream.flush()


def _encodable(text: str, stream: Any) -> str:
    """What can be written to a stream."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, _ERRORS).decode(encoding)
    except LookupError:
        return text.encode("ascii", _ERRORS).decode()


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    made = "".join(_IN_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking)
    return made, error.end


codecs.register_error(_ERRORS, _in_ascii)


def _record(*arguments: Any, **options: Any) -> logging.LogRecord:
    """A line of a log, of whatever library; only its own ends of lines stay."""
    record = _make_record(*arguments, **options)
    try:
        message = record.getMessage()
    except Exception:  # wrong arguments: the handlers say so
        return record
    if (harmless := printable(message, kept="\n\t")) != message:
        record.msg, record.args = harmless, None
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = printable("".join(traceback.format_exception(record.exc_info[1])).rstrip("\n"), kept="\n\t")
    return record


def _warning(*arguments: Any, **options: Any) -> str:
    return printable(_format_warning(*arguments, **options), kept="\n\t")
