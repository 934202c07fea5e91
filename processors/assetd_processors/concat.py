r"""The processor `concat`: a YAML list of files, joined into one.

`js/app.js.concat` makes `js/app.js`::

    files:                  # in this order
      - vendor/jquery.js
      - "widgets/**/*.js"   # sorted; what the list named before is not brought again
    path_mode: relative     # to this file's folder; `absolute`: to the mount's
    delim: "\n"             # between two files, not after the last

A path that starts with `/` starts from the mount's folder in both modes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from assetd.processor import BuildError, Names, Options, Processor, Step

if TYPE_CHECKING:
    import yaml

_SUFFIX: Final = ".concat"
_KEYS: Final = ("files", "path_mode", "delim")
_MODES: Final = ("relative", "absolute")
_NULL: Final = "tag:yaml.org,2002:null"
_STR: Final = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class _Item:
    """An item of `files`: a path or a glob."""

    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a `.concat` file says."""

    items: tuple[_Item, ...]
    absolute: bool
    delim: str


def _matches(path: str, _options: Options) -> bool:
    name = path.rpartition("/")[2]
    return name.lower().endswith(_SUFFIX) and len(name) > len(_SUFFIX)


def _outputs(path: str, _options: Options) -> Names:
    return Names((path[: -len(_SUFFIX)],))


def _concat(step: Step) -> None:
    recipe = _recipe(step)
    parts: dict[str, None] = {}
    failures: list[BuildError] = []
    # Every item is looked at, although the first that is wrong fails the step: what the
    # others depend on heals it too.
    for item in recipe.items:
        try:
            for part in _files(step, item, absolute=recipe.absolute, known=parts):
                parts[part] = None
        except BuildError as error:
            failures.append(error)
    contents: list[bytes] = []
    if not failures and not parts:
        failures.append(step.fail("nothing to join: no pattern finds a file", file=step.origin))
    if failures:
        raise failures[0]
    for part in parts:
        try:
            with open(part, "rb") as file:
                contents.append(file.read())
        except OSError as error:
            raise step.fail(f"cannot read {part}: {error.strerror}", file=step.origin) from error
    step.write(step.path[: -len(_SUFFIX)], recipe.delim.encode().join(contents))


def _files(step: Step, item: _Item, *, absolute: bool, known: dict[str, None]) -> Iterator[str]:
    """The files that *item* stands for, each told to `depends`."""
    base = os.fspath(step.mount if absolute or item.text.startswith("/") else step.origin.parent)
    path = os.path.normpath(os.path.join(base, item.text.lstrip("/")))
    if any(c in item.text for c in "*?["):
        yield from _globbed(step, item, path, known)
        return
    _check_inside(step, item, path)
    step.depends(path)
    if not os.path.isfile(path):
        what = "is a folder, not a file" if os.path.isdir(path) else "does not exist"
        raise _wrong(step, item, f"{_shown(step, path)} {what}")
    yield path


def _globbed(step: Step, item: _Item, path: str, known: dict[str, None]) -> Iterator[str]:
    # The pattern starts at the first folder whose name is not fixed.
    steps = path.split("/")
    fixed = next(i for i, name in enumerate(steps) if any(c in name for c in "*?["))
    folder = "/".join(steps[:fixed]) or "/"
    _check_inside(step, item, folder)
    found = [os.fspath(p) for p in step.depends_glob(folder, "/".join(steps[fixed:]))]
    if not found:
        step.warn(f"{item.text} finds no file", file=step.origin, line=item.line)
    for part in found:
        if part not in known and part != os.fspath(step.origin):
            _check_inside(step, item, part)
            step.depends(part)
            yield part


def _check_inside(step: Step, item: _Item, path: str) -> None:
    """Fail if *path* is neither in the mount nor, links resolved, in the project."""
    if _is_below(path, os.fspath(step.mount)):
        return
    if not _is_below(os.path.realpath(path), os.path.realpath(step.project)):
        raise _wrong(step, item, f"{item.text} leads out of the project")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _shown(step: Step, path: str) -> str:
    project = os.fspath(step.project)
    return os.path.relpath(path, project) if _is_below(path, project) else path


def _wrong(step: Step, place: "_Item | yaml.Node", message: str) -> BuildError:
    if isinstance(place, _Item):
        return step.fail(message, file=step.origin, line=place.line, column=place.column)
    mark = place.start_mark
    return step.fail(message, file=step.origin, line=mark.line + 1, column=mark.column + 1)


def _recipe(step: Step) -> _Recipe:
    """What the input says, checked.

    The nodes are composed, not constructed: they know their lines, a key given twice is
    seen, and `no` or `12:30` stays the text that it is.
    """
    import yaml

    root = _root(step)
    if not isinstance(root, yaml.MappingNode):
        message = "expected a mapping with the key files"
        if root is None:
            raise step.fail(message, file=step.origin, line=1)
        raise _wrong(step, root, message)
    values: dict[str, yaml.Node] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _wrong(step, key, "expected a name for a key")
        if key.value not in _KEYS:
            raise _wrong(step, key, f"unknown key {key.value!r}{_did_you_mean(key.value, _KEYS)}")
        if key.value in values:
            raise _wrong(step, key, f"the key {key.value} is given twice")
        values[key.value] = value

    files = values.get("files")
    if files is None:
        raise _wrong(step, root, "the key files is missing")
    if not isinstance(files, yaml.SequenceNode):
        raise _wrong(step, files, "files must be a list of paths")
    if not files.value:
        raise _wrong(step, files, "files is empty")
    for node in files.value:
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL or not node.value.strip("/"):
            raise _wrong(step, node, "expected a path or a pattern")
        if "\0" in node.value:
            raise _wrong(step, node, "a path cannot hold a NUL character")

    mode = values.get("path_mode")
    if mode is not None and mode.value not in _MODES:
        hint = _did_you_mean(mode.value, _MODES) if isinstance(mode, yaml.ScalarNode) else ""
        raise _wrong(step, mode, f"path_mode must be relative or absolute{hint}")
    delim = values.get("delim")
    if delim is not None and delim.tag != _STR:
        raise _wrong(step, delim, 'delim must be a string (nothing between files: "")')
    return _Recipe(
        tuple(_Item(n.value, n.start_mark.line + 1, n.start_mark.column + 1) for n in files.value),
        absolute=mode is not None and mode.value == "absolute",
        delim="\n" if delim is None else delim.value,
    )


def _root(step: Step) -> "yaml.Node | None":
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


def _did_you_mean(word: str, known: tuple[str, ...]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else f" (known: {', '.join(known)})"


concat = Processor(
    name="concat",
    version="1",
    matches=_matches,
    outputs=_outputs,
    process=_concat,
    cheap=True,
)
