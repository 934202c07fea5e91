r"""The processor `concat`: a YAML list of files, joined into one.

`js/app.js.concat` makes `js/app.js`::

    files:                  # in this order
      - vendor/jquery.js
      - "widgets/**/*.js"   # sorted; what the list named before is not brought again
    path_mode: relative     # to this file's folder; `absolute`: to the mount's
    delim: "\n"             # between two files, not after the last

A path that starts with `/` starts from the mount's folder in both modes.

With the option `source_map`, `js/app.js.map` leads from each part of a script or a style sheet
to where that comes from: by the part's own source map, if it has one, else to the part.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from assetd.processor import BuildError, Names, Option, Options, Processor, Step
from assetd_processors import recipes

_SUFFIX: Final = ".concat"
_MAPPED: Final = (".js", ".mjs", ".cjs", ".css")
_KEYS: Final = ("files", "path_mode", "delim")
_MODES: Final = ("relative", "absolute")


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


def _outputs(path: str, options: Options) -> Names:
    name = path[: -len(_SUFFIX)]
    return Names((name,), (name + ".map",) if _is_mapped(name, options) else ())


def _is_mapped(name: str, options: Options) -> bool:
    return bool(options["source_map"]) and name.lower().endswith(_MAPPED)


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
    name, delim = step.path[: -len(_SUFFIX)], recipe.delim.encode()
    if not _is_mapped(name, step.options):
        step.write(name, delim.join(contents))
        return
    from assetd_processors.concat_maps import Joined  # slow to import, and few ask for it

    joined = Joined(step, name, delim)
    for part, content in zip(parts, contents, strict=True):
        joined.add(part, content)
    joined.write()


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


def _wrong(step: Step, place: _Item, message: str) -> BuildError:
    return step.fail(message, file=step.origin, line=place.line, column=place.column)


def _recipe(step: Step) -> _Recipe:
    """What the input says, checked."""
    import yaml

    root = recipes.compose(step)
    if root is None:
        raise step.fail("expected a mapping with the key files", file=step.origin, line=1)
    values = recipes.mapping(step, root, _KEYS, "a mapping with the key files")
    files = values.get("files")
    if files is None:
        raise recipes.wrong(step, root, "the key files is missing")
    nodes = recipes.sequence(step, files, "files must be a list of paths")
    if not nodes:
        raise recipes.wrong(step, files, "files is empty")
    items = []
    for node in nodes:
        text = recipes.scalar(step, node, "expected a path or a pattern")
        if not text.strip("/"):
            raise recipes.wrong(step, node, "expected a path or a pattern")
        if "\0" in text:
            raise recipes.wrong(step, node, "a path cannot hold a NUL character")
        items.append(_Item(text, node.start_mark.line + 1, node.start_mark.column + 1))

    mode = values.get("path_mode")
    if mode is not None and mode.value not in _MODES:
        is_text = isinstance(mode, yaml.ScalarNode)
        hint = recipes.did_you_mean(mode.value, _MODES) if is_text else ""
        raise recipes.wrong(step, mode, f"path_mode must be relative or absolute{hint}")
    delim = values.get("delim")
    if delim is not None and delim.tag != recipes.STR:
        told = 'delim must be a string (nothing between files: "")'
        raise recipes.wrong(step, delim, told)
    return _Recipe(
        tuple(items),
        absolute=mode is not None and mode.value == "absolute",
        delim="\n" if delim is None else delim.value,
    )


concat = Processor(
    name="concat",
    version="2",
    matches=_matches,
    suffixes=(_SUFFIX,),
    outputs=_outputs,
    process=_concat,
    options=(
        Option(
            "source_map", bool, False, "Make x.js.map or x.css.map too, with the sources in it."
        ),
    ),
    cheap=True,
)
