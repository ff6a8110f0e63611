"""What to do about an error, as the command line says it: floors below know no options."""

from collections.abc import Mapping

from dynaprop.pipeline.errors import DynapropError, RemedyName, RemedyValue, one_line
from dynaprop.pipeline.printable import shell_line

ON_THE_COMMAND_LINE: dict[RemedyName, str] = {
    "repair": "{problem}; run `dynaprop verify TARGET --repair`",
    "wait": "{problem}; add --wait to wait for it",
    "wait and go on": "{problem}, and the same command with --wait goes on",
    "extract": "{problem}; run: dynaprop extract {target} {options}",
    "transcode": "{problem} run: dynaprop transcode {target} {options}",
    "keep by training": "{problem}; `dynaprop train TARGET {options}` keeps it",
    "keep by fine-tuning": "{problem}; `dynaprop finetune TARGET {options}` keeps it",
    "train heads": "{problem}; to make one, run: dynaprop train {target} {options}",
    "begin with heads": "{problem}: name a run (--init), or give it epochs",
    "choose frames": "{problem}; say which: {choices}",
    "leave out": "{problem}: leave out {options}",
    "leave out the choice": "{problem}: leave out --n-s, --n-t and --seed",
    "right catalog": "{problem}; name the catalog that it was trained with (--catalog), or extract and train again",
    "report elsewhere": "{problem}; --output puts the report elsewhere",
    "leave out videos": "{problem}, leave out --videos",
    "export elsewhere": "{problem}; give another --output",
    "replace the export": "{problem}; --force replaces it, --output puts this one elsewhere",
    "install onnx": "--onnx needs {problem}",
    "leave out onnx": "{problem}; leave out --onnx",
}


def as_shown(error: Exception) -> str:
    """An error's message, with its remedy as a user of the command line needs it."""
    if not isinstance(error, DynapropError) or error.remedy is None:
        return str(error)
    words = {name: _typed(value) for name, value in error.values.items()}
    return one_line(ON_THE_COMMAND_LINE[error.remedy].format(problem=error.problem, **words))


def _typed(value: RemedyValue) -> str:
    """A value as one types it; seeds are counted."""
    if isinstance(value, str):
        return shell_line(value)
    if isinstance(value, Mapping):
        return " ".join(
            f"--{name.replace('_', '-')} " + shell_line(str(len(argument) if isinstance(argument, range) else argument))
            for name, argument in value.items()
        )
    return " or ".join(map(_typed, value))
