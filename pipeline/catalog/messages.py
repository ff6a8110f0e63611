"""What is wrong with an entry of the catalog, in one line."""

import re

from pydantic_core import ErrorDetails

from dynaprop.pipeline.errors import did_you_mean

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "path_type": "a path",
    "is_instance_of": "a path",
}


def explain(error: ErrorDetails) -> str:
    """Return ``, key 'k': what is wrong``, for the first problem that pydantic found in an entry."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    place = list(error["loc"])
    if len(place) > 1 and place[0] == "annotations":
        del place[1]  # pydantic names the format there, which is no key
    if kind == "missing" and isinstance(place[-1], str):
        missing = place.pop()
        problem = f"needs the key {missing!r}"
    elif kind in ("missing", "too_long", "too_short"):
        place = place[:-1] if kind == "missing" else place
        problem = f"has the wrong number of values: {short(value)}"
    elif kind == "union_tag_not_found":
        problem = "needs the key 'format'"
    elif kind == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", context["expected_tags"])
        problem = f"unknown format {context['tag']!r}{did_you_mean(context['tag'], known)}"
    elif kind == "literal_error":
        hint = did_you_mean(value, re.findall(r"'([^']*)'", context["expected"])) if isinstance(value, str) else ""
        problem = f"should be {context['expected']}, not {short(value)}{hint if 'mean' in hint else ''}"
    elif kind == "refused":
        problem = error["msg"]
    elif kind in _EXPECTED:
        problem = f"should be {_EXPECTED[kind]}, not {short(value)}"
    else:
        problem = f"{error['msg'].replace('Input should', 'should')}, not {short(value)}"
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return one_line(f", key {path!r}: {problem}" if path else f": {problem}")


def one_line(message: object) -> str:
    """Spaces for line breaks."""
    return " ".join(str(message).split())


def short(value: object) -> str:
    """A value as Python writes it, cut to 60 characters."""
    try:
        text = "nothing" if value is None else repr(value)
    except ValueError:  # Python writes no decimal number of more than 4300 digits
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
