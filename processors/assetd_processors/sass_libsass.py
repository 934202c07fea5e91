"""The engine `libsass`: LibSass in this process.

LibSass knows `@import` only.  A file with `@use` or `@forward` is refused, because LibSass
would take the rule for unknown CSS and publish it.

It looks into the current directory before any load path, so we compile in an empty folder:
what an import finds depends on its own folder and on the load paths, in this order, and on
nothing else.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from assetd.processor import BuildError, Step, Tool
from assetd_processors import sass_imports, sass_printed
from assetd_processors.sass_paths import stable_name, url

_PACKAGE: Final = "libsass"

_PLACE: Final = re.compile(
    r"^ +(on|from) line (\d+)(?::(\d+))? of (.+?)(?:, in (?:function|mixin) `[^`]*`)?$",
    re.MULTILINE,
)
_LINE_COMMENT: Final = re.compile(r"(?<=/\* line )(\d+), (.+?)(?= \*/)")


Check: TypeAlias = Callable[[str, Mapping[str, str]], BuildError | None]
"""Gets the CSS and the texts that it is from, by absolute path, the input first."""


@dataclass(frozen=True, slots=True)
class _Reached:
    """What an input reaches through its imports, on the disk as it is now."""

    files: dict[str, str] = field(default_factory=dict)
    """The text of each file by its absolute path, the input first."""
    probed: dict[str, None] = field(default_factory=dict)
    """Every path that LibSass asks for, there or not."""
    odd: list[str] = field(default_factory=list)
    """Of those, what is neither a file nor a folder."""
    names: set[str] = field(default_factory=set)
    """What is imported, as it is spelt."""


def tool() -> Tool:
    """The compiler as it is on this machine, without loading it into the owner's process."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Tool(_PACKAGE, version(_PACKAGE))
    except PackageNotFoundError:
        return Tool(_PACKAGE, None, "pip install 'libsass>=0.23,<0.24'")


def warm() -> object:
    """The compiler: what `Step.warm` must be."""
    import sass as compiler

    return compiler


def make(step: Step, given_paths: Sequence[str], check: Check | None = None) -> None:
    """Make the CSS, and the map if it is asked for.

    Args:
        step: With this engine's compiler as `warm`.
        given_paths: Absolute; where imports are looked for after their own folder.
        check: Asked whether the CSS is wrong after all.
    """
    origin, load_paths = os.path.abspath(step.origin), list(given_paths)
    _check_names(step, origin, load_paths)
    if step.input == step.origin:
        entry = origin
    else:
        # What a node before us made: it lies alone, and imports as if it lay in the mount.
        entry = os.path.join(step.scratch(), "input", os.path.basename(origin))
        os.mkdir(os.path.dirname(entry))
        with open(step.input, "rb") as made, open(entry, "wb") as copy:
            copy.write(made.read())
        load_paths.insert(0, os.path.dirname(origin))

    # The dependencies are told before the compiler runs: they count even if it fails.
    reached = _reach(entry, os.path.dirname(origin), load_paths)
    for path in reached.probed:
        step.depends(path)
    if reached.odd:
        raise step.fail(f"{reached.odd[0]} is no regular file: it cannot be imported")

    # Deep enough for every `../` to stay among empty folders.
    depth = 1 + min(64, max((name.count("../") for name in reached.names), default=0))
    nowhere = os.path.join(step.scratch(), *["0"] * depth)
    os.makedirs(nowhere)
    printed = bytearray()
    try:
        with _working_in(nowhere), sass_printed.caught(printed):
            css, raw_map = _compile(step, entry, load_paths)
    except step.warm.CompileError as error:
        raise _failure(step, str(error), nowhere, entry, reached.files) from error
    finally:
        _warn(step, bytes(printed), nowhere, entry)

    source_map = json.loads(raw_map, strict=False)
    # Its sources are relative to the root, where we said that the map would be.
    included = ["/" + path for path in source_map["sources"]]
    for path in included:
        if path != entry and path not in reached.probed:
            step.depends(path)
    if "@use" in css or "@forward" in css:
        uses = _modules(step, included, entry, reached.files)
        if uses is not None:
            raise uses
    if check is not None and (wrong := check(css, reached.files)) is not None:
        raise wrong
    shown = {path: stable_name(step, path, load_paths) for path in included}
    shown[entry] = stable_name(step, origin, load_paths)
    if step.options["source_comments"]:
        css = _with_stable_comments(css, nowhere, shown)

    target = step.path[:-5] + ".css"
    if step.options["source_map"]:
        source_map["file"] = url(os.path.basename(target))
        source_map["sources"] = [url(shown[path]) for path in included]
        step.write(target + ".map", json.dumps(source_map, separators=(",", ":")))
        css += f"\n/*# sourceMappingURL={url(os.path.basename(target))}.map */"
    step.write(target, css)


def _check_names(step: Step, origin: str, load_paths: Sequence[str]) -> None:
    for path in (origin, *load_paths):
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise step.fail("LibSass cannot open a path that is not UTF-8") from error
    for path in load_paths:
        if os.pathsep in path:
            raise step.fail(f"LibSass splits load paths at {os.pathsep!r}: {path}")


def _reach(entry: str, folder: str, load_paths: Sequence[str]) -> _Reached:
    """Follow the imports of *entry*, which lies in *folder* for those who import."""
    reached = _Reached()
    reached.files[entry] = _read(entry) or ""
    asked: dict[tuple[str, str], list[str]] = {}
    waiting = [(entry, folder)]
    while waiting:
        path, folder = waiting.pop()
        text = reached.files[path]
        for name in sass_imports.imports(text, indented=sass_imports.is_indented(path)):
            reached.names.add(name)
            for place in (folder, *load_paths):
                found = asked.get((place, name))
                if found is None:
                    found = asked[place, name] = _probe(place, name, reached)
                for each in found:
                    if each not in reached.files and (content := _read(each)) is not None:
                        reached.files[each] = content
                        waiting.append((each, os.path.dirname(each)))
                if found:
                    break
    return reached


def _probe(folder: str, name: str, reached: _Reached) -> list[str]:
    """The files that *name* may mean in *folder*: more than one and LibSass refuses."""
    for candidates in (sass_imports.direct(folder, name), sass_imports.index(folder, name)):
        reached.probed.update(dict.fromkeys(candidates))
        reached.odd.extend(path for path in candidates if _is_odd(path))
        if found := [path for path in candidates if os.path.isfile(path)]:
            return found
    return []


def _is_odd(path: str) -> bool:
    """Whether LibSass would wait at *path* for somebody who writes: a FIFO, say."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()
    except OSError:
        return None  # LibSass will say so, if it gets there


@contextlib.contextmanager
def _working_in(folder: str) -> Iterator[None]:
    # By descriptor, so that we come back even if the folder we came from was renamed.
    back = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(back)
        os.close(back)


def _compile(step: Step, entry: str, load_paths: Sequence[str]) -> tuple[str, str]:
    """The CSS and the source map.

    The map is always asked for, because it names every file that was read.  It costs 3 to 8 %
    and does not change a byte of the CSS.
    """
    style = step.options["style"]
    css, source_map = step.warm.compile(
        filename=entry,
        output_style=style,
        precision=step.options["precision"],
        source_comments=step.options["source_comments"] and style != "compressed",
        include_paths=load_paths,
        source_map_filename="/map",
        source_map_contents=step.options["source_map"],
        omit_source_map_url=True,
    )
    return css, source_map


def _warn(step: Step, printed: bytes, nowhere: str, entry: str) -> None:
    """Tell the warnings among what was printed; the rest goes where it was to go."""
    warnings, rest = sass_printed.understood(printed)
    for said in warnings:
        if said.file is None:
            step.warn(said.message)
            continue
        path = os.path.normpath(os.path.join(nowhere, said.file))
        # Columns of the indented syntax are those of the SCSS that LibSass made of it.
        column = None if sass_imports.is_indented(path) else said.column
        file = step.origin if path == entry else path
        step.warn(said.message, file=file, line=said.line, column=column)
    sass_printed.pass_on(rest)


def _failure(
    step: Step, text: str, nowhere: str, entry: str, texts: Mapping[str, str]
) -> BuildError:
    """What LibSass says, told of the file that is broken."""
    places = list(_PLACE.finditer(text))
    # The last one: lines of the message itself may look like a place.
    first = next((i for i in reversed(range(len(places))) if places[i][1] == "on"), None)
    if first is None:
        return step.fail(text.strip())
    stack = [os.path.normpath(os.path.join(nowhere, match[4])) for match in places[first:]]
    uses = _modules(step, stack, entry, texts)
    if uses is not None:
        return uses
    match, path = places[first], stack[0]
    message = text[: match.start()].removeprefix("Error: ").rstrip().replace("\n       ", "\n")
    for each in texts:
        message = message.replace(os.path.relpath(each, nowhere), stable_name(step, each, ()))
    if message == "Invalid UTF-8 sequence":
        message = "not UTF-8: save it as UTF-8"
    # Columns of the indented syntax are those of the SCSS that LibSass made of it.
    column = int(match[3]) if match[3] and not sass_imports.is_indented(path) else None
    file = step.origin if path == entry else path
    return step.fail(message, file=file, line=int(match[2]), column=column)


def _modules(
    step: Step, paths: Sequence[str], entry: str, texts: Mapping[str, str]
) -> BuildError | None:
    """The error to raise if one of *paths* is written for Dart Sass."""
    for path in paths:
        use = sass_imports.first_use(texts.get(path, ""))
        if use is not None:
            return step.fail(
                f"needs the modern compiler ({use.rule}); LibSass knows only @import: "
                'set "engine: dart" for sass',
                file=step.origin if path == entry else path,
                line=use.line,
                column=use.column,
            )
    return None


def _with_stable_comments(css: str, nowhere: str, shown: Mapping[str, str]) -> str:
    def stable(match: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(nowhere, match[2]))
        return f"{match[1]}, {shown[path]}" if path in shown else match[0]

    return _LINE_COMMENT.sub(stable, css)
