"""Sources that are small YAML files for us: read with the place of everything in them.

The nodes are composed, not constructed: they know their lines, a key that is given twice is
seen, and `no` or `12:30` stays the text that it is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from assetd.processor import BuildError, Step

if TYPE_CHECKING:
    import yaml

NULL: Final = "tag:yaml.org,2002:null"
STR: Final = "tag:yaml.org,2002:str"


def compose(step: Step) -> "yaml.Node | None":
    """What the input says; None if it says nothing.

    Raises:
        BuildError: It is not YAML.
    """
    import yaml

    data = step.input.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise step.fail("not UTF-8: save it as UTF-8", file=step.origin, line=line) from error
    try:
        # Not the C loader: 100,000 brackets overflow its stack and kill the worker.
        root: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        assert mark is not None, "composing marks every problem"
        message = f"bad YAML: {error.problem}"
        if "alias" in f"{error.context} {error.problem}":
            message += " (a pattern that starts with * needs quotes)"
        line, column = mark.line + 1, mark.column + 1
        raise step.fail(message, file=step.origin, line=line, column=column) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"bad YAML: {error.reason}"
        raise step.fail(message, file=step.origin, line=line) from error
    except RecursionError as error:
        raise step.fail("bad YAML: nested too deeply", file=step.origin) from error
    return root


def wrong(step: Step, node: "yaml.Node", message: str) -> BuildError:
    """The error to raise about *node*."""
    mark = node.start_mark
    return step.fail(message, file=step.origin, line=mark.line + 1, column=mark.column + 1)


def mapping(
    step: Step, node: "yaml.Node", known: Sequence[str], what: str
) -> "dict[str, yaml.Node]":
    """The values of a mapping by their keys.

    Args:
        step: Whose input it is.
        node: The mapping.
        known: The keys that it may have.
        what: Is expected, if it is no mapping.

    Raises:
        BuildError: It is none, or has other keys.
    """
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise wrong(step, node, f"expected {what}")
    values: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise wrong(step, key, "expected a name for a key")
        if key.value not in known:
            raise wrong(step, key, f"unknown key {key.value!r}{did_you_mean(key.value, known)}")
        if key.value in values:
            raise wrong(step, key, f"the key {key.value} is given twice")
        values[key.value] = value
    return values


def sequence(step: Step, node: "yaml.Node", message: str) -> "list[yaml.Node]":
    """The items of a list; an error with *message* if it is none."""
    import yaml

    if not isinstance(node, yaml.SequenceNode):
        raise wrong(step, node, message)
    items: list[yaml.Node] = node.value
    return items


def scalar(step: Step, node: "yaml.Node", message: str) -> str:
    """The text of a scalar, as it is written; an error with *message* if it is none or empty."""
    import yaml

    if not isinstance(node, yaml.ScalarNode) or node.tag == NULL or not node.value:
        raise wrong(step, node, message)
    text: str = node.value
    return text


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A suggestion to append to a message."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"
