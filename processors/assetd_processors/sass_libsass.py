"""The engine `libsass`: LibSass in this process.

LibSass knows `@import` only.  A file with `@use` or `@forward` is refused, because LibSass
would take the rule for unknown CSS and publish it.

It looks into the current directory before any load path, so we compile in an empty folder:
what an import finds depends on its own folder and on the load paths, in this order, and on
nothing else.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from assetd.processor import BuildError, Step
from assetd_processors import sass_imports, sass_native, sass_printed
from assetd_processors.sass_paths import stable_name, url

_REMEMBERED: Final = 4096

_PLACE: Final = re.compile(
    r"^ +(on|from) line (\d+)(?::(\d+))? of (.+?)(?:, in (?:function|mixin) `[^`]*`)?$",
    re.MULTILINE,
)
_LINE_COMMENT: Final = re.compile(r"(?<=/\* line )(\d+), (.+?)(?= \*/)")


Check: TypeAlias = Callable[[str, Callable[[], Mapping[str, str]]], BuildError | None]
"""Gets the CSS, and what gives the texts that it is from, by absolute path, the input first."""


@dataclass(slots=True)
class Engine:
    """What a worker keeps: the compiler, and what the files that it has seen import."""

    compiler: sass_native.Compiler = field(default_factory=sass_native.Compiler)
    _names: dict[tuple[str, bool], tuple[str, ...]] = field(default_factory=dict)
    """By the digest of the content, and whether it is indented."""

    def imports(self, path: str, digest: str | None) -> tuple[str, ...]:
        """What the file at *path* imports, as it is spelt.

        Args:
            path: Of the file.
            digest: Of its content a moment ago; None if nobody could read it.
        """
        key = (digest or "", sass_imports.is_indented(path))
        known = self._names.get(key)
        if known is not None:
            return known
        data = _read(path)
        names = tuple(sass_imports.imports(_decoded(data), indented=key[1]))
        if hashlib.sha256(data).hexdigest() == digest:  # it may have changed since
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[key] = names
        return names


@dataclass(frozen=True, slots=True)
class _Reached:
    """What an input reaches through its imports, on the disk as it is now."""

    files: dict[str, None] = field(default_factory=dict)
    """Each file by its absolute path, the input first."""
    probed: set[str] = field(default_factory=set)
    """Every path that LibSass asks for, there or not."""
    odd: list[str] = field(default_factory=list)
    """Of those, what is neither a file nor a folder."""
    climbs: int = 0
    """How often a single name goes up to the folder above."""

    def texts(self) -> dict[str, str]:
        """The text of each file."""
        return {path: _decoded(_read(path)) for path in self.files}


def make(step: Step, given_paths: Sequence[str], check: Check | None = None) -> None:
    """Make the CSS, and the map if it is asked for.

    Args:
        step: With this engine as `warm`.
        given_paths: Absolute; where imports are looked for after their own folder.
        check: Asked whether the CSS is wrong after all.
    """
    origin, load_paths = os.path.abspath(step.origin), list(given_paths)
    _check_names(step, origin, load_paths)
    given = os.fspath(step.input)
    scratch = os.fspath(step.scratch())
    if given == os.fspath(step.origin):
        entry = origin
    else:
        # What a node before us made: it lies alone, and imports as if it lay in the mount.
        entry = os.path.join(scratch, "input", os.path.basename(origin))
        os.mkdir(os.path.dirname(entry))
        with open(given, "rb") as made, open(entry, "wb") as copy:
            copy.write(made.read())
        load_paths.insert(0, os.path.dirname(origin))

    # The dependencies are told before the compiler runs: they count even if it fails.
    reached = _reach(step, entry, os.path.dirname(origin), load_paths)
    if reached.odd:
        raise step.fail(f"{reached.odd[0]} is no regular file: it cannot be imported")

    nowhere = _nowhere(scratch, reached.climbs, is_empty=entry == origin)
    style, with_map = step.options["style"], step.options["source_map"]
    printed = bytearray()
    try:
        with _working_in(nowhere), sass_printed.caught(printed):
            css, raw_map, included = step.warm.compiler.compile(
                entry,
                style=style,
                precision=step.options["precision"],
                comments=step.options["source_comments"] and style != "compressed",
                load_paths=load_paths,
                map_name="/map" if with_map else None,
            )
    except sass_native.CompileError as error:
        raise _failure(step, str(error), nowhere, entry, reached.texts()) from error
    finally:
        if printed:
            _warn(step, bytes(printed), nowhere, entry)

    for path in included:
        if path != entry and path not in reached.probed:
            step.depends(path)
    if "@use" in css or "@forward" in css:
        uses = _modules(step, included, entry, reached.texts())
        if uses is not None:
            raise uses
    if check is not None and (wrong := check(css, reached.texts)) is not None:
        raise wrong

    def shown(path: str) -> str:
        return stable_name(step, origin if path == entry else path, load_paths)

    if step.options["source_comments"]:
        css = _with_stable_comments(css, nowhere, {path: shown(path) for path in included})
    target = step.path[:-5] + ".css"
    if raw_map is not None:
        source_map = json.loads(raw_map, strict=False)
        source_map["file"] = url(os.path.basename(target))
        # Its sources are relative to the root, where we said that the map would be.
        source_map["sources"] = [url(shown("/" + path)) for path in source_map["sources"]]
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


def _reach(step: Step, entry: str, folder: str, load_paths: Sequence[str]) -> _Reached:
    """Follow the imports of *entry*, which lies in *folder* for those who import.

    The step is told of every path that LibSass asks for.
    """
    files: dict[str, None] = {entry: None}
    probed: set[str] = set()
    odd: list[str] = []
    asked: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
    climbs = 0
    waiting: list[tuple[str, str, str | None]] = [(entry, folder, None)]
    while waiting:
        path, folder, digest = waiting.pop()
        for name in step.warm.imports(path, digest):
            climbs = max(climbs, name.count("../"))
            for place in (folder, *load_paths):
                found = asked.get((place, name))
                if found is None:
                    found = asked[place, name] = _probe(step, place, name, probed, odd)
                for each, content in found:
                    if each not in files:
                        files[each] = None
                        waiting.append((each, os.path.dirname(each), content))
                if found:
                    break
    return _Reached(files, probed, odd, climbs)


def _probe(
    step: Step, folder: str, name: str, probed: set[str], odd: list[str]
) -> list[tuple[str, str | None]]:
    """The files that *name* may mean in *folder*: more than one and LibSass refuses."""
    for candidates in (sass_imports.direct(folder, name), sass_imports.index(folder, name)):
        probed.update(candidates)
        files = []
        for path, found in zip(candidates, step.find(candidates), strict=True):
            if found.kind == "file":
                files.append((path, found.digest))
            elif found.kind == "other":  # LibSass would wait at a FIFO for somebody who writes
                odd.append(path)
        if files:
            return files
    return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # LibSass will say so, if it gets there


def _decoded(data: bytes) -> str:
    return data.decode(errors="replace")


def _nowhere(scratch: str, climbs: int, *, is_empty: bool) -> str:
    """A folder that is empty, as are those above it, as far up as an import may climb.

    Args:
        scratch: The step's own folder.
        climbs: How often a name goes up.
        is_empty: Whether there is nothing of ours in it.
    """
    if is_empty and not climbs:
        return scratch
    nowhere = os.path.join(scratch, *["0"] * (1 + min(64, climbs)))
    os.makedirs(nowhere)
    return nowhere


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
