"""Entry points and configuration → the ordered processors.  The only code that loads others'.

`load` does it for the owner: it asks the tools, checks every option and tells every problem
at once.  `open_recipe` does it again in a worker, from what the owner found: no YAML, no
search for entry points, no tool is asked twice, and a plugin is the text that the owner read,
whatever its file holds by now.
"""

import importlib
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import reduce
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_origin

from assetd import config as configs
from assetd import confinement
from assetd import place as places
from assetd import stamp as stamps
from assetd.config import (
    DEFAULT_FILTER,
    KEYS,
    Config,
    Mount,
    Section,
)
from assetd.document import nearest, shown, suggestion
from assetd.errors import ConfigError
from assetd.installed import entry_points
from assetd.model import Digest, Problem, Stamp
from assetd.processor import Option, Options, Processor, Setting, Tool
from assetd.stamp import digest_bytes

GROUP: Final = "assetd.processors"


@dataclass(frozen=True, slots=True)
class Opened:
    """A processor with all that its nodes' keys need to know of it."""

    processor: Processor
    options: Options
    options_digest: Digest
    version: str
    """The processor's, its tool's, and the digest of the plugin that it is from."""
    tool: Tool | None
    origin: str
    """`module:attribute` of an entry point, or the path of a plugin."""

    @property
    def available(self) -> bool:
        """Whether its tool is there."""
        return self.tool is None or self.tool.version is not None

    @property
    def missing(self) -> str | None:
        """Which tool is not there, and what to type; None if all is there."""
        if self.tool is None or self.available:
            return None
        cure = "" if self.tool.cure is None else f": {self.tool.cure}"
        return f"needs {self.tool.name}, which is not there{cure}"


@dataclass(frozen=True, slots=True)
class Project:
    """A configuration and the processors that it asks for."""

    config: Config
    processors: tuple[Opened, ...]
    """All that are installed, by priority, then name."""
    chosen: Mapping[str, tuple[Opened, ...]]
    """By mount, those that its filter lets through, in the same order."""
    warnings: tuple[Problem, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)
    """The text of each plugin, by its path."""
    stamps: Mapping[str, Stamp | None] = field(default_factory=dict)
    """Of the configuration file and the plugins, from before they were read."""

    def enabled(self, mount: Mount | str) -> tuple[Opened, ...]:
        """The processors that the sources of *mount* may go through."""
        return self.chosen[mount if isinstance(mount, str) else mount.name]

    @property
    def unavailable(self) -> tuple[Opened, ...]:
        """Those whose tool is not there: their sources fail."""
        return tuple(opened for opened in self.processors if not opened.available)

    def reads(self) -> tuple[str, ...]:
        """What its processors need to read: all that the configuration names, and their code.

        An option's text counts if something of that name is there; so no processor has to
        tell which of its options are paths.
        """
        config = self.config
        found = [config.project, config.state_dir, config.out_dir, *config.sandbox_read]
        found += [mount.folder for mount in config.mounts]
        home = os.path.expanduser("~")
        for opened in self.processors:
            if opened.origin in self.plugins:
                folder = os.path.dirname(opened.origin)
                found.append(opened.origin if places.is_below(home, folder) else folder)
            else:
                module = sys.modules.get(opened.origin.partition(".")[0].partition(":")[0])
                found += getattr(module, "__path__", ())
            for text in confinement.strings(opened.options):
                path = os.path.normpath(os.path.join(config.project, text))
                if "\0" not in path and os.path.exists(path):
                    found.append(path)
                    if os.path.isfile(path) and os.access(path, os.X_OK):
                        programs = (path, os.path.realpath(path))
                        found += [confinement.tool_home(os.path.dirname(p)) for p in programs]
        return confinement.reduced(found)

    def recipe(self) -> dict[str, Any]:
        """All that a worker needs to open the same processors, as a JSON object."""
        wanted = {o.processor.name for enabled in self.chosen.values() for o in enabled}
        return {
            "config": self.config.row(),
            "plugins": dict(self.plugins),
            "processors": [
                {
                    "name": opened.processor.name,
                    "options": opened.options,
                    "options_digest": opened.options_digest,
                    "version": opened.version,
                    "tool": None if opened.tool is None else astuple(opened.tool),
                    "origin": opened.origin,
                }
                for opened in self.processors
                if opened.processor.name in wanted
            ],
            "chosen": {
                mount: [opened.processor.name for opened in enabled]
                for mount, enabled in self.chosen.items()
            },
        }


def stamps_of(config: Config) -> dict[str, Stamp | None]:
    """Those of the files and links that decide what *config* is, as they are now."""
    files = {path: stamps.read(path) for path in (config.file, *config.plugins)}
    return files | {link: stamps.read_link(link) for link in config.links}


def load(file: str) -> Project:
    """The project of the configuration *file*.

    Raises:
        ConfigError: It cannot be used; holds every problem, those of the file by line.
    """
    before = stamps.read(file)
    config, problems = configs.read(file)
    read = stamps_of(config) | {config.file: before}
    loading = _Loading(config, list(problems))
    processors = loading.opened()
    names = {opened.processor.name for opened in processors}
    loading.check_sections(names)
    filters = {"processors": (config.processors, config.lines.get("processors"))} | {
        f"mounts.{mount.name}": (mount.processors, mount.filter_line)
        for mount in config.mounts
        if mount.processors is not None
    }
    warnings = [
        warning
        for key, (terms, line) in filters.items()
        for warning in loading.check_filter(key, terms, line, processors)
    ]
    if config.sandbox == "required" and not confinement.abi():
        told = f"sandbox: required, but {confinement.absence()}: say `auto` to do without"
        loading.wrong(config.lines.get("sandbox"), told)
    if loading.problems:
        raise ConfigError(sorted(loading.problems, key=lambda p: (p.file or "", p.line or 0)))
    chosen = {
        mount.name: choose(
            config.processors if mount.processors is None else mount.processors, processors
        )
        for mount in config.mounts
    }
    return Project(config, processors, chosen, tuple(warnings), loading.texts, read)


def choose(terms: Iterable[str], processors: Sequence[Opened]) -> tuple[Opened, ...]:
    """What a filter lets through.

    A processor whose tool is not there is chosen all the same: its sources fail, say what to
    type, and keep what they last made.  Left out, they would be copied as they are, and what
    was made of them before would be deleted.
    """
    names: set[str] = set()
    for term in terms:
        if term == "all":
            names |= {o.processor.name for o in processors if o.processor.default}
        elif term.startswith("-"):
            names.discard(term[1:])
        else:
            names.add(term)
    return tuple(opened for opened in processors if opened.processor.name in names)


def open_recipe(recipe: Mapping[str, Any]) -> Project:
    """The project of `Project.recipe()`, with the processors that its mounts use.

    Raises:
        ConfigError: A processor that loaded in the owner's process does not load here.
    """
    config = Config.of(recipe["config"])
    plugins: dict[str, dict[str, Processor]] = {}
    processors: list[Opened] = []
    for row in recipe["processors"]:
        name, origin = row["name"], row["origin"]
        try:
            if origin not in recipe["plugins"]:
                processor = _imported(origin)
            else:
                if origin not in plugins:
                    made = _executed(origin, recipe["plugins"][origin])
                    plugins[origin] = {processor.name: processor for processor in made}
                processor = plugins[origin][name]
        except _WHATEVER as error:
            raise ConfigError([Problem(f"in a worker, {_broken(name, origin, error)}")]) from error
        tool = None if row["tool"] is None else Tool(*row["tool"])
        processors.append(
            Opened(processor, row["options"], row["options_digest"], row["version"], tool, origin)
        )
    by_name = {opened.processor.name: opened for opened in processors}
    chosen = {
        mount: tuple(by_name[name] for name in names) for mount, names in recipe["chosen"].items()
    }
    return Project(config, tuple(processors), chosen, plugins=recipe["plugins"])


# --- loading --------------------------------------------------------------------------------

_WHATEVER: Final = (Exception, SystemExit)
"""What other people's code may raise while it is loaded or asked."""

_RESERVED: Final = frozenset({"all", *(key.name for key in KEYS)})


@dataclass(frozen=True, slots=True)
class _Found:
    processor: Processor
    origin: str
    digest: Digest | None = None
    """Of the plugin's text."""


def _imported(origin: str) -> Processor:
    module, _, attributes = origin.partition(":")
    value: object = reduce(getattr, attributes.split("."), importlib.import_module(module))
    if not isinstance(value, Processor):
        raise TypeError(f"it is {type(value).__name__}, no Processor")
    return value


def _executed(path: str, text: str) -> tuple[Processor, ...]:
    """The processors at the top level of a plugin, made anew from its text."""
    code = compile(text, path, "exec", dont_inherit=True)
    module = ModuleType(f"assetd_plugin_{digest_bytes(os.fsencode(path))[:16]}")
    module.__file__ = path
    # Dataclasses look up the module of their class while they are made.
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)  # noqa: S102  # it is what a plugin is for
    return tuple(value for value in vars(module).values() if isinstance(value, Processor))


def _told(error: BaseException) -> str:
    lines = traceback.format_exception_only(error)
    return lines[-1].strip()


def _frames(error: BaseException) -> list[tuple[str, int | None]]:
    """Files and lines that led to *error*, the innermost last; without the import machinery."""
    summary = traceback.extract_tb(error.__traceback__)
    frames = [(frame.filename, frame.lineno) for frame in summary]
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append((error.filename, error.lineno))
    machinery = {__file__, importlib.__file__}
    return [f for f in frames if f[0] not in machinery and not f[0].startswith("<")]


def _broken(name: str, origin: str, error: BaseException) -> str:
    """A processor that does not load, in a sentence."""
    frames = _frames(error)
    where = f" ({frames[-1][0]}:{frames[-1][1]})" if frames else ""
    return f"processor {shown(name)} ({origin}) does not load: {_told(error)}{where}"


@dataclass(slots=True)
class _Loading:
    """One `load`: what was found so far, and what is wrong with it."""

    config: Config
    problems: list[Problem]
    texts: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    """Entry points that do not load: that their names are unknown is no second problem."""
    plugin_lost: bool = False

    def wrong(self, line: int | None, message: str) -> None:
        self.problems.append(Problem(message, os.path.basename(self.config.file), line))

    def opened(self) -> tuple[Opened, ...]:
        """Every processor that loads, by priority, then name."""
        by_name: dict[str, _Found] = {}
        for found in (*self._installed(), *self._plugged()):
            name = found.processor.name
            other = by_name.setdefault(name, found)
            if re.fullmatch("[a-z][a-z0-9_-]*", name) is None or name in _RESERVED:
                told = "lower case, without spaces, no key of the configuration"
                self.wrong(None, f"{self._place(found)}: {shown(name)} is no name: {told}")
            elif other.processor is not found.processor:
                places_ = f"{self._place(other)} and {self._place(found)}"
                line = self.config.lines.get("plugins") if found.digest else None
                self.wrong(line, f"two processors are called {shown(name)}: {places_}")
        order = sorted(by_name.values(), key=lambda f: (f.processor.priority, f.processor.name))
        return tuple(self._open(found) for found in order)

    def _place(self, found: _Found) -> str:
        return places.of(found.origin, self.config.project) if found.digest else found.origin

    def _installed(self) -> Iterator[_Found]:
        for point in entry_points(GROUP):
            origin = f"{point.module}:{point.attribute}"
            try:
                yield _Found(_imported(origin), origin)
            except _WHATEVER as error:
                self.lost.add(point.name)
                self.problems.append(Problem(_broken(point.name, origin, error)))

    def _plugged(self) -> Iterator[_Found]:
        for path in self.config.plugins:
            try:
                with open(path, "rb") as opened:
                    content = opened.read()
                self.texts[path] = decode_source(content)
                processors = _executed(path, self.texts[path])
                if not processors:
                    raise TypeError("no Processor stands at its top level")
            except _WHATEVER as error:
                self.plugin_lost = True
                place = places.of(path, self.config.project)
                told = f"the plugin does not load: {_told(error)}"
                line = next((n for file, n in reversed(_frames(error)) if file == path), None)
                self.problems.append(Problem(told, place, line))
            else:
                digest = digest_bytes(content)
                yield from (_Found(processor, path, digest) for processor in processors)

    def _open(self, found: _Found) -> Opened:
        processor = found.processor
        options = self._options(processor, self.config.sections.get(processor.name))
        canonical = json.dumps(options, sort_keys=True, separators=(",", ":"))
        tool = None
        if processor.tool is not None:
            try:
                tool = processor.tool(Setting(Path(self.config.project), options, None))
            except _WHATEVER as error:
                name = shown(processor.name)
                self.wrong(None, f"processor {name}: its tool cannot be asked: {_told(error)}")
        parts = [processor.version]
        parts += [] if tool is None else [f"{tool.name} {tool.version}"]
        parts += [] if found.digest is None else [f"plugin {found.digest[:16]}"]
        version = ", ".join(parts)
        digest = digest_bytes(canonical.encode())
        return Opened(processor, options, digest, version, tool, found.origin)

    def _options(self, processor: Processor, section: Section | None) -> dict[str, Any]:
        """The options of a section on top of the defaults."""
        known = {option.name: option for option in processor.options}
        options: dict[str, Any] = {}
        try:
            # As JSON has them, so that a worker gets no other kind of list than we do.
            options = json.loads(json.dumps({o.name: o.default for o in processor.options}))
        except (TypeError, ValueError) as error:
            self.wrong(
                None, f"processor {shown(processor.name)}: its defaults are no JSON: {error}"
            )
        if section is None:
            return options
        if section.found is not None:
            expected = f"{processor.name}: expected a mapping of options"
            self.wrong(section.line, f"{expected}, found {section.found}")
        for name, value in section.values.items():
            key = f"{processor.name}.{name}"
            if name not in known:
                hint = suggestion(name, known)
                self.wrong(section.lines[name], f"unknown option {shown(key)}{hint}")
            elif value is not None:
                try:
                    options[name] = checked(known[name], value)
                except ValueError as error:
                    self.wrong(section.lines[name], f"{key}: {error}")
        return options

    def check_sections(self, names: Iterable[str]) -> None:
        """Tell of sections that are nobody's."""
        names = {*names, *self.lost}
        keys = [key.name for key in KEYS]
        for name, section in self.config.sections.items():
            near = nearest(name, [*keys, *names])
            if name in names or (near is None and self.plugin_lost):
                continue
            is_key = near in keys or (near is None and section.found is not None)
            told = f"unknown key {shown(name)}" if is_key else _not_installed(name)
            self.wrong(section.line, told + suggestion(name, [*keys, *names]))

    def check_filter(
        self, key: str, terms: Sequence[str], line: int | None, processors: Sequence[Opened]
    ) -> Iterator[Problem]:
        """Tell of names that are nobody's; yield what deserves a warning."""
        by_name = {opened.processor.name: opened for opened in processors}
        if all(term.startswith("-") for term in terms):
            self.wrong(line, f'{key}: this filter lets nothing through: start it with "all"')
        for term in terms:
            name = term.removeprefix("-")
            if term == "all" or term in DEFAULT_FILTER or name in self.lost:
                continue
            if name not in by_name:
                hint = suggestion(name, ["all", *by_name])
                if hint or not self.plugin_lost:
                    self.wrong(line, _not_installed(name) + hint)
            elif term == name and not by_name[name].available:
                told = f"processor {shown(name)} {by_name[name].missing}"
                yield Problem(told, os.path.basename(self.config.file), line)


def _not_installed(name: str) -> str:
    return f"processor {shown(name)} is not installed"


# --- options --------------------------------------------------------------------------------

_EXPECTED: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "text, or a list of it",
    dict: "a mapping",
}


def checked(option: Option, value: object) -> Any:
    """The value as the processor gets it.

    Raises:
        ValueError: It does not fit; the text says what was expected, and what was found.
    """
    kind = get_origin(option.type) or option.type
    if kind is list:
        items = value.split() if isinstance(value, str) else value
        if not isinstance(items, list):
            raise _misfit(option, value)
        for item in items:
            if not isinstance(item, str) or not _allowed(option, item):
                raise _misfit(option, item)
        return items
    if kind is float and type(value) is int:
        value = float(value)
    # By `type`, because True is an int to isinstance.
    if type(value) is not kind or not _allowed(option, value):
        raise _misfit(option, value)
    return value


def _allowed(option: Option, value: object) -> bool:
    if option.choices and value not in option.choices:
        return False
    if not isinstance(value, int | float):
        return True
    low = -math.inf if option.minimum is None else option.minimum
    high = math.inf if option.maximum is None else option.maximum
    return low <= value <= high


def _misfit(option: Option, found: object) -> ValueError:
    kind = get_origin(option.type) or option.type
    expected = _EXPECTED[kind]
    if option.choices:
        *most, last = map(str, option.choices)
        expected = f"{', '.join(most)} or {last}" if most else last
    match option.minimum, option.maximum:
        case None, None:
            pass
        case low, None:
            expected += f" of {low:g} or more"
        case None, high:
            expected += f" of {high:g} or less"
        case low, high:
            expected += f" from {low:g} to {high:g}"
    hint = ""
    if isinstance(found, str):
        hint = suggestion(found, map(str, option.choices))
    elif kind in {str, list} and isinstance(found, int | float):
        hint = " (put it in quotes)"
    return ValueError(f"expected {expected}, found {shown(found)}{hint}")
